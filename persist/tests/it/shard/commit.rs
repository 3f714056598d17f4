//! The group commit: what it gathers, hands on, refuses, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BlockIndex, BuyerId, Epoch, Part, Seq};
use tmomi_engine::{Context, DECISION_EVENTS_MAX, EngineConfig, Reject};
use tmomi_persist::frame::encoded_bytes;
use tmomi_persist::image::HoldView;
use tmomi_persist::journal::{Journal, JournalConfig, verify};
use tmomi_persist::log::{CommitSample, GROUP_EVENTS_MAX, Log, LogError};
use tmomi_persist::shard::{LogConfig, ShardConfig, Stalled};

use super::{Desk, TestClock, config, until, wait, waited};
use crate::sale::START;

const SOON: Duration = Duration::from_secs(20);

/// A log that is driven by the test.
#[derive(Clone)]
struct Driven {
    appended: Arc<Mutex<Vec<Batch>>>,
    /// Whether a commit waits for a permit; it fails if that is `false`.
    asks: Arc<AtomicBool>,
    permit: Sender<bool>,
    permits: Receiver<bool>,
    full: Arc<AtomicBool>,
    sealed: Arc<AtomicBool>,
}

impl Default for Driven {
    fn default() -> Driven {
        let (permit, permits) = channel::unbounded();
        let (appended, asks, full, sealed) = Default::default();
        Driven { appended, asks, permit, permits, full, sealed }
    }
}

impl Driven {
    fn config(&self) -> ShardConfig {
        ShardConfig::new(LogConfig::Unread(Box::new(self.clone())))
    }

    /// From now on commits wait.
    fn hold_up(&self) {
        self.appended.lock().expect("no panic within").clear();
        self.asks.store(true, Ordering::Relaxed);
    }

    fn permit(&self, good: bool) {
        self.permit.send(good).expect("it is there");
    }

    /// Events of each group that was appended since commits wait.
    fn groups(&self) -> Vec<usize> {
        let appended = self.appended.lock().expect("no panic within");
        appended.iter().map(|batch| batch.events.len()).collect()
    }
}

impl Log for Driven {
    fn append(&mut self, _: Epoch, batch: &Batch) -> Result<(), LogError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(LogError::Stalled("full".into()));
        }
        self.appended.lock().expect("no panic within").push(batch.clone());
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        if !self.asks.load(Ordering::Relaxed) || self.permits.recv_timeout(SOON) == Ok(true) {
            return Ok(());
        }
        Err(LogError::Fatal("broken".into()))
    }

    fn seal(&mut self) -> Result<(), LogError> {
        self.sealed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A buyer joins; nobody waits for the commit.
fn decide(desk: &mut Desk, buyer: u64) -> Seq {
    let context = Context::at(desk.shard.clock().now());
    let joined = desk.handle.join(&desk.house, BuyerId(buyer), context).expect("there is room");
    desk.shard.wake();
    joined.seq
}

/// Planted bug: the keeper rings for nobody.
#[test]
fn what_nobody_rings_for_is_committed_all_the_same() {
    let mut desk = Desk::new(ShardConfig::memory(), TestClock::at(START));
    for buyer in 1..4 {
        let context = Context::at(desk.shard.clock().now());
        let joined = desk.handle.join(&desk.house, BuyerId(buyer), context).expect("there is room");
        assert!(waited(&desk.shard, joined.seq, SOON));
    }
}

/// Planted bug: the keeper lets time pass when none has.
#[test]
fn what_gathers_during_a_sync_is_one_commit_and_seen_only_after_it() {
    let log = Driven::default();
    let samples = Arc::new(Mutex::new(Vec::new()));
    let of_log = Arc::clone(&samples);
    let mut config = log.config();
    config.commit_hook =
        Box::new(move |sample| of_log.lock().expect("no panic within").push(*sample));
    let mut desk = Desk::new(config, TestClock::at(START));
    let before = desk.shard.applied();
    log.hold_up();
    samples.lock().expect("no panic within").clear();
    let first = decide(&mut desk, 1);
    until("the first is in its sync", || !log.groups().is_empty());
    let last = (2..8).map(|buyer| decide(&mut desk, buyer)).last().expect("some");
    assert!(!waited(&desk.shard, first, Duration::from_millis(20)));
    assert_eq!(desk.shard.applied(), before, "nothing is seen before its commit");
    // Less than a tick, so that the keeper decides nothing.
    desk.clock.pass(1);
    log.permit(true);
    wait(&desk.shard, first);
    assert!(desk.shard.applied() < last);
    log.permit(true);
    wait(&desk.shard, last);
    assert_eq!(log.groups(), [1, 6], "no time has passed, so the keeper has decided nothing");
    let sample = |(batch, took_ns): (&Batch, u64)| {
        let (events, bytes) = (batch.events.len(), encoded_bytes(batch));
        CommitSample { events, bytes, took_ns }
    };
    let appended = log.appended.lock().expect("no panic within");
    let expected: Vec<_> = appended.iter().zip([1_000_000, 0]).map(sample).collect();
    assert_eq!(*samples.lock().expect("no panic within"), expected);
}

#[test]
fn a_commit_is_bounded() {
    let log = Driven::default();
    let mut desk = Desk::new(log.config(), TestClock::at(START));
    log.hold_up();
    decide(&mut desk, 1);
    until("the first is in its sync", || !log.groups().is_empty());
    let count = 2 * GROUP_EVENTS_MAX as u64;
    let last = (2..count).map(|buyer| decide(&mut desk, buyer)).last().expect("some");
    (0..count).for_each(|_| log.permit(true));
    wait(&desk.shard, last);
    let groups = log.groups();
    let largest = *groups.iter().max().expect("some");
    let bound = GROUP_EVENTS_MAX..GROUP_EVENTS_MAX + DECISION_EVENTS_MAX;
    assert!(bound.contains(&largest), "{groups:?}");
}

/// R12; planted: time passes only between two commits.
#[test]
fn a_deadline_is_kept_while_the_log_waits_for_the_disk() {
    let log = Driven::default();
    let mut desk = Desk::new(log.config(), TestClock::at(START));
    let held = desk.hold(7, 0, 0b1).expect("free");
    log.hold_up();
    decide(&mut desk, 1);
    until("a commit is in its sync", || !log.groups().is_empty());
    desk.clock.pass(1_000);
    let seat = Part { block: BlockIndex(0), mask: 0b1 };
    until("the seat is free", || desk.house.seat_states(seat).held == 0);
    assert!(matches!(desk.shard.image().read().hold(held.id), Some(HoldView::Active(_))));
    (0..10).for_each(|_| log.permit(true));
    until("the hold has expired for all to see", || {
        matches!(desk.shard.image().read().hold(held.id), Some(HoldView::Ended(_)))
    });
}

/// Planted bug (R2): apply a group whose commit failed.
#[test]
fn after_a_failed_commit_nothing_is_ever_handed_on() {
    let log = Driven::default();
    let mut desk = Desk::new(log.config(), TestClock::at(START));
    log.hold_up();
    log.permit(true);
    let good = decide(&mut desk, 1);
    wait(&desk.shard, good);
    assert_eq!(desk.shard.accepting(), Ok(()));
    let lost = decide(&mut desk, 2);
    log.permit(false);
    assert!(!waited(&desk.shard, lost, SOON));
    assert_eq!(desk.shard.applied(), good);
    let broken = LogError::Fatal("broken".into());
    assert_eq!(desk.shard.accepting(), Err(Stalled::Failed(Some(broken.clone()))));
    log.permit(true);
    let later = decide(&mut desk, 3);
    assert!(!waited(&desk.shard, later, SOON), "it asks no more");
    assert_eq!(desk.shard.applied(), good);
    assert_eq!(desk.shard.close(), Err(broken));
    assert!(!log.sealed.load(Ordering::Relaxed), "a failed log is not sealed");
}

#[test]
fn closing_commits_what_waits_and_seals() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 1_000), TestClock::at(START));
    let last = (1..=200).map(|buyer| decide(&mut desk, buyer)).last().expect("some");
    desk.shard.close().expect("a disk");
    let journal = dir.path().join("journal");
    assert_eq!(verify(&journal).expect("a good journal").last, Some(last));
    let (_, tail) = Journal::open(&journal, JournalConfig::default()).expect("a good journal");
    assert_eq!((tail.last, tail.epoch, tail.closed), (last, Epoch(1), true));
}

#[test]
fn memory_commits_at_once() {
    let mut desk = Desk::new(ShardConfig::memory(), TestClock::at(START));
    let decided = decide(&mut desk, 1);
    wait(&desk.shard, decided);
    desk.shard.close().expect("nothing to lose");
}

#[test]
fn a_full_log_stops_the_sale_and_room_lets_it_go_on_with_no_timer_lost() {
    let disk = Driven::default();
    let mut config = disk.config();
    config.engine = EngineConfig { ring_slots: 4_096, handles_max: 4 };
    let mut desk = Desk::new(config, TestClock::at(START));
    let held = desk.hold(7, 0, 0b1).expect("free");
    assert_eq!(desk.shard.accepting(), Ok(()));
    disk.full.store(true, Ordering::Relaxed);
    let now = desk.shard.clock().now();
    // Decide until the ring is full: all in flight is bounded.
    let mut last = Seq(0);
    let refused = (100..100_000).find_map(|buyer| {
        let entered = desk.handle.join(&desk.house, BuyerId(buyer), Context::at(now));
        entered.map(|joined| last = joined.seq).err()
    });
    assert_eq!(refused, Some(Reject::RingFull));
    until("the log says that it is full", || {
        matches!(desk.shard.accepting(), Err(Stalled::Waiting(_)))
    });
    // The deadline passes while nothing can be decided.
    desk.clock.pass(60_000);
    assert!(!waited(&desk.shard, last, Duration::from_millis(50)));
    assert!(matches!(desk.shard.image().read().hold(held.id), Some(HoldView::Active(_))));
    disk.full.store(false, Ordering::Relaxed);
    wait(&desk.shard, last);
    until("the hold expires after all", || {
        desk.clock.pass(1);
        matches!(desk.shard.image().read().hold(held.id), Some(HoldView::Ended(_)))
    });
    assert_eq!(desk.shard.accepting(), Ok(()));
    // Closing does not wait for room, and says that something is lost.
    disk.full.store(true, Ordering::Relaxed);
    let context = desk.context(3);
    desk.handle.join(&desk.house, BuyerId(5), context).expect("decided");
    assert!(matches!(desk.shard.close(), Err(LogError::Stalled(_))));
}

/// Planted bug: a shard that closes does not try again what found no room.
#[test]
fn room_that_comes_back_before_the_end_is_used() {
    let disk = Driven::default();
    let mut desk = Desk::new(disk.config(), TestClock::at(START));
    disk.full.store(true, Ordering::Relaxed);
    let decided = decide(&mut desk, 1);
    until("the log says that it is full", || {
        matches!(desk.shard.accepting(), Err(Stalled::Waiting(_)))
    });
    let wait = desk.shard.wait(decided);
    disk.full.store(false, Ordering::Relaxed);
    desk.shard.close().expect("there is room");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(wait).expect("it was committed");
    assert!(disk.sealed.load(Ordering::Relaxed));
}

/// Planted bug: nobody is told when the shard's thread panics.
#[test]
fn a_thread_that_panics_leaves_nobody_waiting() {
    let mut config = ShardConfig::memory();
    let panics = Arc::new(AtomicBool::new(false));
    let of_log = Arc::clone(&panics);
    config.commit_hook = Box::new(move |_| assert!(!of_log.load(Ordering::Relaxed), "as asked"));
    let mut desk = Desk::new(config, TestClock::at(START));
    panics.store(true, Ordering::Relaxed);
    let decided = decide(&mut desk, 1);
    assert!(!waited(&desk.shard, decided, SOON));
    until("it says that it failed", || desk.shard.accepting().is_err());
    assert!(matches!(desk.shard.accepting(), Err(Stalled::Failed(Some(_)))));
    assert!(matches!(desk.shard.close(), Err(LogError::Fatal(_))));
}
