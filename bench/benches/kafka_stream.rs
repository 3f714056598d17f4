//! How fast a publisher brings a journal to a topic, by the size of its frames, beside a bare
//! producer with the same promises and frames of as many bytes.
//!
//! `make services`, then `cargo bench -p tmomi-bench --bench kafka_stream`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tmomi_bench::broker::{self, Bare};
use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::sale::{NOW, SHOW, StoppedClock};
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{BlockIndex, EntryId, Epoch, HoldSlot, Part, RequestKey, Seq};
use tmomi_persist::frame;
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::kafka::{KafkaConfig, Publisher, PublisherConfig};
use tmomi_persist::log::Log;

/// Events of a frame.
const SIZES: [usize; 2] = [64, 1_024];
/// Bytes of a round.
const ROUND_BYTES: usize = 64 << 20;

fn main() {
    for events in SIZES {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
        let (last, bytes) = fill(dir.path(), events);
        let title = format!("frames of {events} events ({bytes} bytes)");
        let mut rate = Rounds::new(title, "MB/s");
        let frames = last.0 as usize / events;
        for round in 0..rounds() {
            let megabytes = (frames * bytes) as f64 / 1e6;
            let took = produce(round, frames, &vec![0xab; bytes]);
            rate.add("bare producer", megabytes / took.as_secs_f64());
            let took = publish(round, dir.path(), Seq(events as u64), last);
            rate.add("publisher", megabytes / took.as_secs_f64());
        }
        rate.print();
    }
}

/// A journal of frames with so many events each; gives its last event and the bytes of a frame.
fn fill(dir: &Path, events: usize) -> (Seq, usize) {
    let (mut journal, _) = Journal::open(dir, JournalConfig::default()).expect("it is empty");
    let (mut next, mut written, mut bytes) = (1, 0, 0);
    let most = if is_short() { ROUND_BYTES / 50 } else { ROUND_BYTES };
    while written < most {
        let batch = batch(next, events);
        journal.append(Epoch(1), &batch).expect("there is room");
        next += events as u64;
        bytes = frame::encoded_bytes(&batch);
        written += bytes;
        // Syncs are another question.
        if written % (8 << 20) < bytes {
            journal.commit().expect("the disk works");
        }
    }
    journal.commit().expect("the disk works");
    (Seq(next - 1), bytes)
}

fn batch(first: u64, events: usize) -> Batch {
    let event = |n: u64| {
        let body = Body::Held {
            slot: HoldSlot(n as u32),
            entry: EntryId(n as u32),
            ttl_ms: 300_000,
            first: Part { block: BlockIndex(n as u32), mask: 0b11 },
            key: RequestKey { hash: n, fingerprint: !n },
        };
        let (seq, at, showtime) = (Seq(n), NOW, SHOW);
        Event { seq, at, showtime, more_follows: false, has_blob: false, body }.pack()
    };
    Batch { events: (first..first + events as u64).map(event).collect(), blobs: Vec::new() }
}

/// From the second frame on: the first one shows that all are connected.
fn publish(round: usize, dir: &Path, first: Seq, last: Seq) -> Duration {
    let committed = Arc::new(AtomicU64::new(first.0));
    let of_publisher = Arc::clone(&committed);
    let topic = broker::topic("stream", round, 1);
    let publisher = Publisher::spawn(PublisherConfig {
        kafka: topic.clone(),
        shard: 0,
        journal: dir.to_owned(),
        committed: Box::new(move || Seq(of_publisher.load(Ordering::Relaxed))),
        needed: Box::new(|_| {}),
        hook: Box::new(|_| {}),
        clock: Arc::new(StoppedClock),
    });
    let publisher = publisher.expect("a thread");
    let reach = |seq: Seq| {
        while publisher.state().published() < seq {
            thread::sleep(Duration::from_micros(100));
        }
    };
    reach(first);
    let start = Instant::now();
    committed.store(last.0, Ordering::Relaxed);
    reach(last);
    start.elapsed()
}

/// The same without a journal, frames, checks and order of its own.
fn produce(round: usize, frames: usize, bytes: &[u8]) -> Duration {
    let config = broker::topic("bare", round, 1);
    make(&config);
    // The default of librdkafka, as the publisher has it.
    let bare = Bare::open(&config, "5");
    bare.send(bytes);
    bare.flush();
    let start = Instant::now();
    for _ in 1..frames {
        bare.send(bytes);
        bare.poll();
    }
    bare.flush();
    start.elapsed()
}

/// Has a publisher of an empty journal make the topic.
fn make(config: &KafkaConfig) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    drop(Journal::open(dir.path(), JournalConfig::default()).expect("it is empty"));
    let publisher = Publisher::spawn(PublisherConfig {
        kafka: config.clone(),
        shard: 0,
        journal: dir.path().to_owned(),
        committed: Box::new(|| Seq(0)),
        needed: Box::new(|_| {}),
        hook: Box::new(|_| {}),
        clock: Arc::new(StoppedClock),
    });
    let publisher = publisher.expect("a thread");
    while publisher.state().status() != tmomi_persist::kafka::PublisherStatus::Running {
        thread::sleep(Duration::from_millis(5));
    }
}
