//! How many holds a second become durable in one process, and how soon: through engine, ring,
//! group commit, image and watermark, as the server uses them, by how many are in flight. Beside
//! it a bare loop that appends and syncs the very bytes of each commit, into a file that was
//! written before and into one whose room was only taken; and the same shard without a log.
//!
//! `cargo bench -p tmomi-bench --bench durable`; the files go under `target/`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::path::Path;
use std::time::Instant;

use tmomi_bench::bare_file::{BareFile, Room};
use tmomi_bench::flight::{Flight, Outcome, histogram};
use tmomi_bench::rounds::{Rounds, rounds};
use tmomi_persist::shard::ShardConfig;

const IN_FLIGHT: [usize; 3] = [1, 64, 4_096];

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let mut journal = Flight::open(ShardConfig::journal(dir.path()));
    let mut memory = Flight::open(ShardConfig::memory());
    for in_flight in IN_FLIGHT {
        compare(dir.path(), &mut journal, &mut memory, in_flight);
    }
}

fn compare(dir: &Path, journal: &mut Flight, memory: &mut Flight, in_flight: usize) {
    let title = |what| format!("{in_flight} in flight, {what}");
    let mut rate = Rounds::new(title("holds a second"), "/s");
    let mut p50 = Rounds::new(title("p50"), "us");
    let mut p99 = Rounds::new(title("p99"), "us");
    let mut written = BareFile::new(dir, Room::Written).expect("there is room");
    let mut taken = BareFile::new(dir, Room::Taken).expect("there is room");
    for _ in 0..rounds() {
        let ours = journal.run(in_flight);
        let commits = ours.commits.clone();
        let outcomes = [
            ("bare, written before", bare(&mut written, &commits, ours.holds)),
            ("bare, room taken before", bare(&mut taken, &commits, ours.holds)),
            ("journal", ours),
            ("no log", memory.run(in_flight)),
        ];
        for (name, outcome) in outcomes {
            rate.add(name, outcome.holds as f64 / outcome.elapsed.as_secs_f64());
            let us = |quantile| outcome.ns.value_at_quantile(quantile) as f64 / 1e3;
            p50.add(name, us(0.5));
            p99.add(name, us(0.99));
        }
    }
    [rate, p50, p99].iter().for_each(Rounds::print);
}

/// Appends and syncs as many bytes at a time as the commits had.
fn bare(file: &mut BareFile, commits: &[usize], holds: u64) -> Outcome {
    let bytes = vec![0xab; commits.iter().copied().max().unwrap_or_default()];
    let mut ns = histogram();
    let start = Instant::now();
    for &length in commits {
        let before = Instant::now();
        file.append(&bytes[..length]).expect("the disk works");
        ns.saturating_record(before.elapsed().as_nanos() as u64);
    }
    Outcome { holds, elapsed: start.elapsed(), ns, commits: Vec::new() }
}
