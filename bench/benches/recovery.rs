//! How soon a shard with a house of ten million seats is back: from its snapshot, and from its
//! journal alone; beside reading the same files.
//!
//! A plain runner: it prints a table. `cargo bench -p tmomi-bench --bench recovery`; the files go
//! under `target/`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::sale::{ORDERS, open_shard, sell_into};
use tmomi_persist::shard::{JOURNAL_DIR, SNAPSHOT_DIR};

fn main() {
    for orders in ORDERS.into_iter().take(if is_short() { 2 } else { 3 }) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
        sell_into(dir.path(), orders);
        let title = format!("10M seats, {orders} orders");
        from(&title, Source::Snapshot, dir.path());
        std::fs::remove_dir_all(dir.path().join(SNAPSHOT_DIR)).expect("it is ours");
        from(&title, Source::Journal, dir.path());
    }
}

/// What a start reads.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// The newest snapshot; the journal behind it has one event.
    Snapshot,
    /// The whole journal; there is no snapshot.
    Journal,
}

/// Opens the shard again and again, and reads the same files beside it.
fn from(title: &str, source: Source, dir: &Path) {
    let mut table = Rounds::new(title, "ms");
    let (read, opened) = match source {
        Source::Snapshot => ("read the snapshot", "open from the snapshot"),
        Source::Journal => ("read the journal", "open from the journal"),
    };
    for _ in 0..rounds() {
        let start = Instant::now();
        match source {
            Source::Snapshot => files(&dir.join(SNAPSHOT_DIR)).iter().max().map_or(0, read_file),
            Source::Journal => {
                files(&dir.join(JOURNAL_DIR)).iter().map(read_file).fold(0, |a, b| a ^ b)
            }
        };
        table.add_ms(read, start.elapsed());
        table.add_ms(opened, open(dir));
        if source == Source::Journal {
            std::fs::remove_dir_all(dir.join(SNAPSHOT_DIR)).expect("it is ours");
        }
    }
    table.print();
}

fn open(dir: &Path) -> Duration {
    let start = Instant::now();
    let shard = open_shard(dir);
    let took = start.elapsed();
    black_box(shard.applied());
    shard.close().expect("the disk works");
    took
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(dir).expect("it is there");
    listed.map(|file| file.expect("it is listed").path()).collect()
}

fn read_file(file: &PathBuf) -> u32 {
    black_box(crc32c::crc32c(&std::fs::read(file).expect("it can be read")))
}
