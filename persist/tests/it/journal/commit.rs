//! The group commit: what it gathers, hands on, refuses, and how it ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use tmomi_engine::event::{Batch, Event};
use tmomi_engine::ids::{Epoch, Seq, TimeMs};
use tmomi_persist::clock::Clock;
use tmomi_persist::frame::FRAME_EVENTS_MAX;
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::log::{
    CommitConfig, CommitSample, Committed, GroupCommit, Log, LogError, Memory,
};

use super::support::*;

/// Every reading is a microsecond later.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> TimeMs {
        TimeMs(0)
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}

/// A log that is driven by the test.
#[derive(Clone)]
struct Driven {
    appended: Arc<Mutex<Vec<(Epoch, Batch)>>>,
    /// A commit waits for a permit, and fails if it is false.
    permits: Receiver<bool>,
    full: Arc<AtomicBool>,
    sealed: Arc<AtomicBool>,
}

impl Driven {
    fn new() -> (Driven, Sender<bool>) {
        let (permit, permits) = channel::unbounded();
        let (appended, full, sealed) = Default::default();
        (Driven { appended, permits, full, sealed }, permit)
    }
}

impl Log for Driven {
    fn append(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), LogError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(LogError::NoSpace("full".into()));
        }
        self.appended.lock().expect("no panic within").push((epoch, batch.clone()));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        match self.permits.recv() {
            Ok(true) => Ok(()),
            _ => Err(LogError::Fatal("broken".into())),
        }
    }

    fn seal(&mut self) -> Result<(), LogError> {
        self.sealed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

struct Running {
    batches: Sender<Batch>,
    committed: Receiver<Committed>,
    thread: GroupCommit,
    samples: Arc<Mutex<Vec<CommitSample>>>,
}

fn start(log: impl Log + 'static, config: CommitConfig) -> Running {
    let (sender, committed) = channel::unbounded();
    let samples = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&samples);
    let hook = Box::new(move |sample: &CommitSample| sink.lock().expect("fine").push(*sample));
    let clock = Arc::new(Ticking::default());
    let (batches, thread) =
        GroupCommit::start(Box::new(log), Epoch(6), config, clock, sender, hook).expect("a thread");
    Running { batches, committed, thread, samples }
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn what_gathers_during_a_sync_is_one_commit() {
    let (log, permit) = Driven::new();
    let appended = Arc::clone(&log.appended);
    let running = start(log, CommitConfig::default());
    running.batches.send(batch(1, 2)).expect("it runs");
    // The first commit is in its sync as soon as the queue is empty again and it was appended.
    while appended.lock().expect("fine").is_empty() {
        std::thread::yield_now();
    }
    for first in 3..9 {
        running.batches.send(batch(first, 1)).expect("it runs");
    }
    assert!(running.committed.try_recv().is_err(), "nothing is handed on before its commit");
    permit.send(true).expect("it waits");
    let first = running.committed.recv_timeout(SOON).expect("committed");
    assert_eq!(first, Committed { epoch: Epoch(6), batch: batch(1, 2) });
    permit.send(true).expect("it waits");
    let second = running.committed.recv_timeout(SOON).expect("committed");
    assert_eq!(second.batch, batch(3, 6));
    drop(running.batches);
    running.thread.close().expect("all is committed");
    let samples = running.samples.lock().expect("fine");
    let counts: Vec<_> = samples.iter().map(|s| (s.batches, s.events, s.took_ns)).collect();
    assert_eq!(counts, [(1, 2, 1_000), (6, 6, 1_000)]);
}

#[test]
fn a_commit_is_bounded_by_bytes() {
    let (log, permit) = Driven::new();
    let appended = Arc::clone(&log.appended);
    let config = CommitConfig { group_bytes_max: 1_000, ..CommitConfig::default() };
    let running = start(log, config);
    for first in [1, 11, 21] {
        running.batches.send(batch(first, 10)).expect("it runs");
    }
    for first in [1, 11, 21] {
        permit.send(true).expect("it waits");
        let committed = running.committed.recv_timeout(SOON).expect("committed");
        assert_eq!(committed.batch, batch(first, 10));
    }
    assert_eq!(appended.lock().expect("fine").len(), 3);
    drop(running.batches);
    running.thread.close().expect("all is committed");
}

/// Planted bug (R2): hand a batch on before its commit.
#[test]
fn after_a_failed_commit_nothing_is_ever_handed_on() {
    let (log, permit) = Driven::new();
    let sealed = Arc::clone(&log.sealed);
    let running = start(log, CommitConfig::default());
    let status = running.thread.status();
    running.batches.send(batch(1, 1)).expect("it runs");
    permit.send(true).expect("it waits");
    running.committed.recv_timeout(SOON).expect("committed");
    assert!(status.is_accepting());
    running.batches.send(batch(2, 1)).expect("it runs");
    permit.send(false).expect("it waits");
    running.committed.recv_timeout(SOON).expect_err("closed without a word");
    assert!(status.is_failed() && !status.is_accepting());
    permit.send(true).expect_err("it asks no more");
    running.batches.send(batch(3, 1)).expect_err("it takes no more");
    assert!(running.committed.recv().is_err());
    let error = running.thread.close().expect_err("a batch is not committed");
    assert_eq!(error, LogError::Fatal("broken".into()));
    assert!(!sealed.load(Ordering::Relaxed), "a failed log is not sealed");
}

#[test]
fn a_full_disk_stalls_the_log_and_loses_nothing() {
    let (log, permit) = Driven::new();
    let full = Arc::clone(&log.full);
    full.store(true, Ordering::Relaxed);
    let running = start(log, CommitConfig::default());
    let status = running.thread.status();
    running.batches.send(batch(1, 5)).expect("it runs");
    while !status.is_stalled() {
        std::thread::yield_now();
    }
    assert_eq!(status.error(), Some(LogError::NoSpace("full".into())));
    assert!(!status.is_accepting() && !status.is_failed());
    permit.send(true).expect("it waits");
    assert!(running.committed.try_recv().is_err());
    full.store(false, Ordering::Relaxed);
    let committed = running.committed.recv_timeout(SOON).expect("there is room again");
    assert_eq!(committed.batch, batch(1, 5));
    assert!(status.is_accepting() && status.error().is_none());
    drop(running.batches);
    running.thread.close().expect("all is committed");
}

#[test]
fn a_full_disk_does_not_hold_up_the_end() {
    let (log, _permit) = Driven::new();
    log.full.store(true, Ordering::Relaxed);
    let running = start(log, CommitConfig::default());
    running.batches.send(batch(1, 5)).expect("it runs");
    drop(running.batches);
    let error = running.thread.close().expect_err("the batch is not committed");
    assert_eq!(error, LogError::NoSpace("full".into()));
    assert!(running.committed.recv().is_err());
}

#[test]
fn closing_commits_what_waits_and_seals() {
    let dir = folder();
    let (journal, _) = Journal::open(dir.path(), SMALL).expect("an empty folder");
    let running = start(journal, CommitConfig::default());
    for first in 1..=200 {
        running.batches.send(batch(first, 1)).expect("it runs");
    }
    drop(running.batches);
    running.thread.close().expect("all is committed");
    let handed_on: usize = running.committed.iter().map(|c| c.batch.events.len()).sum();
    assert_eq!(handed_on, 200);
    let (journal, tail) = Journal::open(dir.path(), SMALL).expect("sound");
    assert_eq!((tail.last, tail.epoch, tail.closed), (Seq(200), Epoch(6), true));
    assert_eq!(tail.cut, None);
    drop(journal);
    assert_eq!(read_all(dir.path()).expect("sound"), batch(1, 200));
}

/// More events than a frame may have become several frames, cut between decisions.
#[test]
fn a_batch_above_the_limit_of_a_frame_is_cut_between_decisions() {
    let dir = folder();
    let config = JournalConfig { segment_bytes: 64 << 20, ..SMALL };
    let (journal, _) = Journal::open(dir.path(), config).expect("an empty folder");
    let running = start(journal, CommitConfig::default());
    let count = FRAME_EVENTS_MAX as u64 + 90;
    let mut large = batch(1, count);
    large.blobs.clear();
    for words in &mut large.events {
        let mut event = Event::unpack(words).expect("a known event");
        event.has_blob = false;
        event.more_follows = !event.seq.0.is_multiple_of(30) && event.seq.0 != count;
        *words = event.pack();
    }
    running.batches.send(large.clone()).expect("it runs");
    let committed = running.committed.recv_timeout(SOON).expect("committed");
    assert_eq!(committed.batch, large, "as one, whatever the frames");
    drop(running.batches);
    running.thread.close().expect("all is committed");
    assert_eq!(read_all(dir.path()).expect("sound"), large);
}

#[test]
fn memory_commits_at_once() {
    let running = start(Memory, CommitConfig::default());
    running.batches.send(batch(1, 3)).expect("it runs");
    assert_eq!(running.committed.recv_timeout(SOON).expect("committed").batch, batch(1, 3));
    drop(running.batches);
    running.thread.close().expect("nothing to lose");
}
