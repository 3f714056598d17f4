//! How soon an image of ten million seats is a durable snapshot, and is an image again, and how
//! soon a house of ten million seats is built; beside a copy of as many bytes in memory, written
//! and synced or read, as ours is.
//!
//! `cargo bench -p tmomi-bench --bench snapshot`; the files go under `target/`.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;

use tmomi_bench::SEATS;
use tmomi_bench::rounds::{Rounds, is_short, rounds, timed};
use tmomi_bench::sale::{self, NOW, ORDERS, sell_into};
use tmomi_engine::{Engine, EngineConfig};
use tmomi_persist::shard::SNAPSHOT_DIR;
use tmomi_persist::snapshot::{Encoded, Snapshots};

/// The shard whose snapshots they are.
const SHARD: u32 = 0;

fn main() {
    for orders in ORDERS.into_iter().take(if is_short() { 2 } else { 3 }) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
        sell_into(dir.path(), orders);
        compare(&format!("10M seats, {orders} orders"), dir.path());
    }
    build();
}

fn compare(title: &str, dir: &Path) {
    let snapshots = Snapshots::local(&dir.join(SNAPSHOT_DIR), SHARD).expect("the folder is there");
    let newest = snapshots.list().expect("it can be read").swap_remove(0);
    let bytes = std::fs::read(&newest.file).expect("it can be read");
    let image = snapshots.read(&newest).expect("it is whole");
    let (mut write, mut read) = (
        Rounds::new(format!("{title}, write a snapshot"), "ms"),
        Rounds::new(format!("{title}, read a snapshot"), "ms"),
    );
    for _ in 0..rounds() {
        write.add_ms("copy, write, sync", timed(|| write_copy(&dir.join("copy"), &bytes)));
        write.add_ms("snapshot", timed(|| snapshots.write(Encoded::of(&image)).expect("room")));
        read.add_ms(
            "read, copy",
            timed(|| std::fs::read(&newest.file).expect("it is there").clone()),
        );
        read.add_ms("image", timed(|| snapshots.read(&newest).expect("it is whole")));
    }
    write.print();
    read.print();
}

fn write_copy(path: &Path, bytes: &[u8]) {
    let copy = black_box(bytes.to_vec());
    let mut file = File::create(path).expect("the folder can be written");
    file.write_all(&copy).expect("there is room");
    file.sync_all().expect("the disk works");
}

/// A layout, and an engine that sells it. A copy of the seats' words is the least there is.
fn build() {
    const WORDS_A_BLOCK: usize = 4;
    let mut table = Rounds::new("10M seats, build", "ms");
    let words = vec![u64::MAX; WORDS_A_BLOCK * SEATS.div_ceil(64) as usize];
    for _ in 0..rounds() {
        table.add_ms("copy of the seats' words", timed(|| black_box(&words).clone()));
        table.add_ms(
            "layout, engine, open",
            timed(|| {
                let (engine, keeper) = Engine::new(EngineConfig::default());
                let mut handle = engine.handle().expect("the first");
                handle.open(NOW, sale::show(sale::layout(SEATS))).expect("nothing is open");
                (engine, keeper)
            }),
        );
    }
    table.print();
}
