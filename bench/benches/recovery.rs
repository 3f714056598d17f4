//! How soon a shard with a house of ten million seats is back: from its snapshot, and from its
//! journal alone; beside reading the same files.
//!
//! A plain runner: it prints a table. `cargo bench -p tmomi-bench --bench recovery`; the files go
//! under `target/`.
#![allow(clippy::print_stdout, reason = "its table is what it is for")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tmomi_bench::SEATS;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::sale::{self, StoppedClock, seat};
use tmomi_engine::ids::{BuyerId, Part};
use tmomi_engine::{Context, Handle, HoldRequest, House, Reject};
use tmomi_persist::shard::{JOURNAL_DIR, SNAPSHOT_DIR, Shard, ShardConfig};

const ROUNDS: usize = 5;
/// Seats from one order to the next, a multiple of the 4 that each buys.
const SPREAD: u32 = 40;
/// Orders of the three houses.
const ORDERS: [u32; 3] = [0, 25_000, SEATS / SPREAD];

fn main() {
    println!("| what | how | took | of the baseline |");
    println!("| --- | --- | --- | --- |");
    for orders in ORDERS {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
        sell(dir.path(), orders);
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
    let mut rounds = Rounds::new(title, "ms");
    let (read, opened) = match source {
        Source::Snapshot => ("read the snapshot", "open from the snapshot"),
        Source::Journal => ("read the journal", "open from the journal"),
    };
    for _ in 0..ROUNDS {
        let start = Instant::now();
        match source {
            Source::Snapshot => files(&dir.join(SNAPSHOT_DIR)).iter().max().map_or(0, read_file),
            Source::Journal => {
                files(&dir.join(JOURNAL_DIR)).iter().map(read_file).fold(0, |a, b| a ^ b)
            }
        };
        rounds.add_ms(read, start.elapsed());
        rounds.add_ms(opened, open(dir));
        if source == Source::Journal {
            std::fs::remove_dir_all(dir.join(SNAPSHOT_DIR)).expect("it is ours");
        }
    }
    rounds.print();
}

fn open(dir: &Path) -> Duration {
    let start = Instant::now();
    let shard = shard(dir);
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

fn shard(dir: &Path) -> Shard {
    Shard::open(ShardConfig::journal(dir), Arc::new(StoppedClock)).expect("it is whole")
}

fn sell(dir: &Path, orders: u32) {
    let shard = shard(dir);
    let mut handle = shard.engine().handle().expect("the first");
    let now = shard.clock().now();
    let (house, _) = handle.open(now, sale::show(sale::layout(SEATS))).expect("nothing is open");
    for n in 0..orders {
        while buy(&mut handle, &house, n, Context::at(now)) == Err(Reject::RingFull) {
            shard.wake();
            std::thread::yield_now();
        }
    }
    drop(handle);
    shard.close().expect("the disk works");
}

fn buy(handle: &mut Handle, house: &House, n: u32, at: Context) -> Result<(), Reject> {
    let entry = handle.enter(house, BuyerId(n.into()), at.now)?;
    let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: false };
    // Spread over the house, four seats in a row of 64.
    let first = seat(n * SPREAD);
    let parts = [Part { mask: 0b1111 << first.mask.trailing_zeros(), ..first }];
    let held = handle.hold(house, request, &parts, at)?;
    while handle.confirm(held.id, None, at) == Err(Reject::RingFull) {
        std::thread::yield_now();
    }
    Ok(())
}
