//! What a commit of the journal costs by the size of its batch, beside a bare write of as many
//! bytes and the same sync, into a file whose room was taken before.
//!
//! `cargo bench -p tmomi-bench --bench journal`; the files go under `target/`.
#![allow(missing_docs, reason = "the macros of criterion make functions without any")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tmomi_bench::sale::{NOW, SHOW};
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{BlockIndex, EntryId, Epoch, HoldSlot, Part, RequestKey, Seq};
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::log::Log;

const EVENT_BYTES: usize = 64;
/// As large as a segment, so that both take new room as rarely.
const BARE_FILE_BYTES: u64 = 64 << 20;

/// `count` holds, numbered from `first`.
fn batch(first: u64, count: usize, out: &mut Batch) {
    out.clear();
    for n in first..first + count as u64 {
        let body = Body::Held {
            slot: HoldSlot(n as u32),
            entry: EntryId(n as u32),
            ttl_ms: 300_000,
            first: Part { block: BlockIndex(n as u32), mask: 0b11 },
            key: RequestKey { hash: n, fingerprint: !n },
        };
        let (more_follows, has_blob) = (false, false);
        let event = Event { seq: Seq(n), at: NOW, showtime: SHOW, more_follows, has_blob, body };
        out.events.push(event.pack());
    }
}

fn bare_file(dir: &Path) -> File {
    let file = File::options().create(true).truncate(true).write(true).open(dir.join("bare"));
    let file = file.expect("the folder can be written");
    let zeros = vec![0; 1 << 20];
    for at in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("there is room");
    }
    file.sync_all().expect("the disk works");
    file
}

fn commits(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let mut group = c.benchmark_group("journal commit");
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(2));
    group.sample_size(20);
    let file = bare_file(dir.path());
    let journal_dir = dir.path().join("journal");
    std::fs::create_dir(&journal_dir).expect("the folder can be written");
    let config = JournalConfig::default();
    let (mut journal, _) = Journal::open(&journal_dir, config).expect("it is empty");
    let (mut next, mut at, mut events) = (1, 0, Batch::default());
    for count in [1, 8, 64, 512, 4_096] {
        group.throughput(Throughput::Elements(count as u64));
        let bytes = vec![0xab; count * EVENT_BYTES];
        group.bench_function(BenchmarkId::new("bare write and sync", count), |b| {
            b.iter(|| {
                if at + bytes.len() as u64 > BARE_FILE_BYTES {
                    at = 0;
                }
                file.write_all_at(&bytes, at).expect("there is room");
                file.sync_data().expect("the disk works");
                at += bytes.len() as u64;
            });
        });
        group.bench_function(BenchmarkId::new("journal", count), |b| {
            b.iter(|| {
                batch(next, count, &mut events);
                next += count as u64;
                journal.append(Epoch(1), &events).expect("there is room");
                journal.commit().expect("the disk works");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
