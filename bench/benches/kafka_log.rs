//! How many holds a second are committed with a Kafka topic as the log, and how soon, by how many
//! are in flight. Beside it a bare loop that produces the very bytes of each commit, with the same
//! promises, and reads them back.
//!
//! `make services`, then `cargo bench -p tmomi-bench --bench kafka_log`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::time::Instant;

use tmomi_bench::broker::{self, Bare};
use tmomi_bench::flight::{Flight, Outcome, histogram};
use tmomi_bench::rounds::{Rounds, rounds};
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::kafka::KafkaConfig;
use tmomi_persist::shard::{LogConfig, ShardConfig};

const IN_FLIGHT: [usize; 3] = [1, 64, 4_096];

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let kafka = broker::topic("log", 0, 1);
    let mut ours = Flight::open(config(&kafka, dir.path()));
    let other = broker::topic("log", 1, 1);
    // It is made by whoever opens it first.
    drop(Flight::open(config(&other, &dir.path().join("other"))));
    let bare = Bare::open(&other, "0");
    for in_flight in IN_FLIGHT {
        compare(&mut ours, &bare, in_flight);
    }
}

fn config(kafka: &KafkaConfig, dir: &std::path::Path) -> ShardConfig {
    ShardConfig::new(LogConfig::Kafka {
        kafka: kafka.clone(),
        dir: dir.to_owned(),
        snapshots: None,
        // Another question.
        snapshot: SnapshotConfig { events: u64::MAX, bytes: u64::MAX, remove_segments: false },
    })
}

fn compare(ours: &mut Flight, bare: &Bare, in_flight: usize) {
    let title = |what| format!("{in_flight} in flight, {what}");
    let mut rate = Rounds::new(title("holds a second"), "/s");
    let mut p50 = Rounds::new(title("p50"), "us");
    let mut p99 = Rounds::new(title("p99"), "us");
    for _ in 0..rounds() {
        let ours = ours.run(in_flight);
        let bare = produce(bare, &ours.commits, ours.holds);
        for (name, outcome) in [("bare produce and read back", bare), ("topic as the log", ours)] {
            rate.add(name, outcome.holds as f64 / outcome.elapsed.as_secs_f64());
            let us = |quantile| outcome.ns.value_at_quantile(quantile) as f64 / 1e3;
            p50.add(name, us(0.5));
            p99.add(name, us(0.99));
        }
    }
    [rate, p50, p99].iter().for_each(Rounds::print);
}

/// Produces and reads back as many bytes at a time as the commits had.
fn produce(bare: &Bare, commits: &[usize], holds: u64) -> Outcome {
    let bytes = vec![0xab; commits.iter().copied().max().unwrap_or_default()];
    let mut ns = histogram();
    let start = Instant::now();
    for &length in commits {
        let before = Instant::now();
        bare.write_and_read(&bytes[..length]);
        ns.saturating_record(before.elapsed().as_nanos() as u64);
    }
    Outcome { holds, elapsed: start.elapsed(), ns, commits: Vec::new() }
}
