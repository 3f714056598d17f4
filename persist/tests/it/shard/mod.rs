//! A shard at work: what was waited for is there, after any end.

mod commit;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tmomi_engine::event::{Batch, LineMode, LineSettings};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, LineNumber, Part, RequestKey, Seq, ShowtimeId, TimeMs,
};
use tmomi_engine::layout::Layout;
use tmomi_engine::{Context, Handle, Held, HoldRequest, House, OpenShowtime, Reject};
use tmomi_persist::clock::Clock;
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::image::{HoldView, Image, Outcome};
use tmomi_persist::journal::{JournalConfig, Reader};
use tmomi_persist::layout_codec;
use tmomi_persist::shard::{LogConfig, Shard, ShardConfig};
use tmomi_persist::snapshot::Snapshots;

use crate::sale::{START, layout_spec};

/// More than any of these tests needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often they look.
const LOOK: Duration = Duration::from_millis(5);
const SHOWTIME: ShowtimeId = ShowtimeId(1);

/// Shows what the test sets.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(now: TimeMs) -> Arc<TestClock> {
        Arc::new(TestClock(AtomicU64::new(now.0)))
    }

    pub(crate) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> TimeMs {
        TimeMs(self.0.load(Ordering::Relaxed))
    }

    fn monotonic_ns(&self) -> u64 {
        self.now().0 * 1_000_000
    }
}

/// A shard with one open showtime and a hand to decide with.
pub(crate) struct Desk {
    pub(crate) shard: Shard,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) handle: Handle,
    pub(crate) house: Arc<House>,
}

impl Desk {
    pub(crate) fn new(config: ShardConfig, clock: Arc<TestClock>) -> Desk {
        let shard = Shard::open(config, Arc::clone(&clock) as Arc<dyn Clock>).expect("it opens");
        let mut handle = shard.engine().handle().expect("the first handle");
        let house = shard.engine().house(SHOWTIME).unwrap_or_else(|| {
            let layout = Arc::new(Layout::build(layout_spec()).expect("seats"));
            let open = OpenShowtime {
                showtime: SHOWTIME,
                blob: layout_codec::encode(layout.spec()).into(),
                layout,
                limit: 70,
                hold_ttl_ms: 1_000,
                line: LineSettings { mode: LineMode::Fifo, ..LineSettings::default() },
                opens_at: TimeMs(0),
                closes_at: TimeMs(u64::MAX),
            };
            let (house, seq) = handle.open(clock.now(), open).expect("it is not open");
            wait(&shard, seq);
            house
        });
        Desk { shard, clock, handle, house }
    }

    pub(crate) fn context(&self, key: u64) -> Context {
        Context {
            now: self.shard.clock().now(),
            key: RequestKey { hash: key, fingerprint: key + 1 },
        }
    }

    pub(crate) fn join(&mut self, buyer: u64) -> (EntryId, LineNumber) {
        let context = self.context(1_000 + buyer);
        let joined = self.handle.join(&self.house, BuyerId(buyer), context).expect("room");
        wait(&self.shard, joined.seq);
        (joined.entry, joined.number)
    }

    pub(crate) fn hold(&mut self, buyer: u64, block: u32, mask: u64) -> Result<Held, Reject> {
        let context = self.context(2_000 + buyer);
        let entry = self.handle.enter(&self.house, BuyerId(buyer), context.now)?;
        let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: true };
        let parts = [Part { block: BlockIndex(block), mask }];
        let held = self.handle.hold(&self.house, request, &parts, context)?;
        wait(&self.shard, held.seq);
        Ok(held)
    }
}

#[track_caller]
pub(crate) fn wait(shard: &Shard, seq: Seq) {
    shard.wake();
    assert!(waited(shard, seq, PATIENCE), "event {seq} is committed");
}

/// Whether it was committed within the time.
pub(crate) fn waited(shard: &Shard, seq: Seq, most: Duration) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let done = runtime
        .expect("a runtime")
        .block_on(async { tokio::time::timeout(most, shard.wait(seq)).await });
    matches!(done, Ok(Ok(())))
}

#[track_caller]
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if done() {
            return;
        }
        std::thread::sleep(LOOK);
    }
    panic!("it never came to pass: {what}");
}

fn config(dir: &Path, snapshot_events: u64) -> ShardConfig {
    ShardConfig::new(LogConfig::Journal {
        dir: dir.to_owned(),
        journal: JournalConfig { segment_bytes: 64 << 10, ..JournalConfig::default() },
        snapshots: None,
        snapshot: SnapshotConfig { events: snapshot_events, ..SnapshotConfig::default() },
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a disk");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a disk");
        }
    }
}

/// R2, R3 and R6; planted: the next number comes from memory, the snapshot has no keys.
#[test]
fn what_was_waited_for_is_there_after_a_crash_and_numbers_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let crashed = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 5), TestClock::at(START));
    let held = desk.hold(7, 0, 0b111).expect("free");
    let (entry, number) = desk.join(8);
    let context = desk.context(42);
    let seq = desk.handle.confirm(held.id, None, context).expect("active");
    wait(&desk.shard, seq);
    let last = desk.shard.applied();
    // As the disk is at this moment, the process still running.
    copy(dir.path(), crashed.path());
    let lost = desk.hold(9, 1, 0b1).expect("free");

    let mut next = Desk::new(config(crashed.path(), 1_000), TestClock::at(START));
    assert_eq!(next.shard.epoch(), Epoch(2));
    assert_eq!(next.shard.applied(), last.next(), "the new reign's first event is the next number");
    let image = next.shard.image().read();
    assert!(matches!(image.hold(held.id), Some(HoldView::Order(_))));
    assert!(image.hold(lost.id).is_none());
    assert_eq!(image.key(42).map(|key| key.outcome), Some(Outcome::Confirmed { id: held.id, seq }));
    assert!(matches!(
        image.key(2_007).map(|key| key.outcome),
        Some(Outcome::Held { id, .. }) if id == held.id
    ));
    assert!(image.key(2_009).is_none());
    let showtime = image.showtime(SHOWTIME).expect("it was opened");
    assert_eq!(showtime.entry(entry).map(|entry| entry.number), Some(number));
    drop(image);
    assert_eq!(next.join(8), (entry, number), "the number is kept");
    assert!(next.join(10).1 > number);
    let sold = Part { block: BlockIndex(0), mask: 0b1 };
    assert_eq!(next.hold(11, 0, 0b1).err(), Some(Reject::SeatUnavailable(sold)));
    assert_eq!(next.house.conflict(sold).sold, 0b1);
    assert!(next.hold(11, 1, 0b1).is_ok(), "what was not committed never was");
}

/// R9 across a close.
#[test]
fn a_closed_shard_opens_from_its_snapshot_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 1_000), TestClock::at(START));
    let context = desk.context(5);
    let mut decided = Seq(0);
    for buyer in 100..140 {
        decided = desk.handle.join(&desk.house, BuyerId(buyer), context).expect("room").seq;
    }
    let Desk { shard, clock, handle, .. } = desk;
    drop(handle);
    shard.close().expect("a disk");
    let again = Shard::open(config(dir.path(), 1_000), clock).expect("it opens");
    let (replayed, snapshot) = again.replayed();
    assert_eq!((replayed, snapshot.map(|info| info.seq >= decided)), (0, Some(true)));
    let image = again.image().read();
    assert_eq!(image.showtime(SHOWTIME).expect("open").waiting(), 40);
    let applied = image.applied();
    assert_eq!(from_zero(dir.path(), applied).hash(), image.hash());
}

/// The image at event `to`, by the journal alone. A shard may be at work on it.
fn from_zero(dir: &Path, to: Seq) -> Image {
    let mut image = Image::new();
    let mut reader = Reader::open(&dir.join("journal"), Seq(0)).expect("a journal");
    while let Some(frame) = reader.read_to(to).expect("a good frame") {
        let _ = image.follow(frame.epoch, &frame.batch).expect("no contradiction");
    }
    image
}

fn snapshots(dir: &Path) -> Vec<Image> {
    let snapshots = Snapshots::local(&dir.join("snapshots"), 0).expect("a folder");
    let all = snapshots.list().expect("a disk");
    all.iter().map(|info| snapshots.read(info).expect("a good snapshot")).collect()
}

/// R9 for snapshots that are made of a snapshot and the journal while the shard is at work.
#[test]
fn a_snapshot_made_at_work_is_the_image_of_its_number() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 50), TestClock::at(START));
    for buyer in 0..100 {
        desk.join(buyer);
    }
    until("two are there", || snapshots(dir.path()).len() == 2);
    let made = snapshots(dir.path());
    assert!(made[0].applied() > made[1].applied() && made[1].applied() > Seq(50));
    for image in made {
        assert_eq!(image.hash(), from_zero(dir.path(), image.applied()).hash());
    }
}

/// Planted bug: a start counts from zero to its next snapshot.
#[test]
fn a_process_that_keeps_crashing_makes_snapshots() {
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a folder")).collect();
    for (life, dir) in dirs.iter().enumerate() {
        let mut desk = Desk::new(config(dir.path(), 60), TestClock::at(START));
        let begun = desk.shard.applied();
        if life == 4 {
            desk.join(1_000);
            until("it is there", || !snapshots(dir.path()).is_empty());
            return;
        }
        for buyer in 0..20 {
            desk.join(life as u64 * 20 + buyer);
        }
        assert!(desk.shard.applied().0 - begun.0 < 50, "no life is long enough");
        copy(dir.path(), dirs[life + 1].path());
    }
}

/// R12; planted: the timers of restored holds are lost.
#[test]
fn holds_expire_by_the_clock_and_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 1_000), TestClock::at(START));
    let first = desk.hold(7, 0, 0b1).expect("free");
    desk.clock.pass(1_000);
    until("the first hold expires", || {
        matches!(desk.shard.image().read().hold(first.id), Some(HoldView::Ended(_)))
    });
    let second = desk.hold(7, 0, 0b1).expect("free again");
    let Desk { shard, clock, handle, .. } = desk;
    drop(handle);
    shard.close().expect("a disk");
    let shard = Shard::open(config(dir.path(), 1_000), Arc::clone(&clock) as _).expect("it opens");
    assert!(matches!(shard.image().read().hold(second.id), Some(HoldView::Active(_))));
    clock.pass(1_000);
    until("the second hold expires", || {
        matches!(shard.image().read().hold(second.id), Some(HoldView::Ended(_)))
    });
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut desk = Desk::new(config(dir.path(), 1_000), TestClock::at(START));
    let held = desk.hold(7, 0, 0b1).expect("free");
    drop(desk);
    let clock = TestClock::at(TimeMs(START.0 - 3_600_000));
    let shard = Shard::open(config(dir.path(), 1_000), Arc::clone(&clock) as _).expect("it opens");
    assert_eq!(shard.clock().now(), START);
    clock.pass(1_000);
    until("the hold expires", || {
        matches!(shard.image().read().hold(held.id), Some(HoldView::Ended(_)))
    });
}

#[test]
fn many_threads_decide_and_every_answer_is_in_the_image() {
    let dir = tempfile::tempdir().expect("a folder");
    let desk = Desk::new(config(dir.path(), 300), TestClock::at(START));
    let mut watcher = desk.shard.subscribe();
    let shard = &desk.shard;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let house = Arc::clone(&desk.house);
            scope.spawn(move || {
                let mut handle = shard.engine().handle().expect("one of 64");
                for n in 0..100 {
                    let buyer = BuyerId(thread * 1_000 + n);
                    let now = shard.clock().now();
                    let joined = handle.join(&house, buyer, Context::at(now)).expect("room");
                    wait(shard, joined.seq);
                    let image = shard.image().read();
                    let showtime = image.showtime(SHOWTIME).expect("open");
                    assert_eq!(showtime.entry_of(buyer), Some(joined.entry));
                }
            });
        }
    });
    let image = shard.image().read();
    let showtime = image.showtime(SHOWTIME).expect("open");
    // No time passes, so nobody is admitted.
    assert_eq!(showtime.waiting(), 400);
    drop(image);
    let (mut next, last) = (None, shard.applied());
    while next.is_none_or(|next| next <= last) {
        let batch: Arc<Batch> = watcher.try_recv().expect("it does not lag");
        assert!(next.is_none_or(|next| batch.first_seq() == Some(next)), "no gap");
        next = batch.last_seq().map(Seq::next);
    }
}

#[test]
fn segments_that_no_snapshot_and_no_reader_needs_are_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = || {
        ShardConfig::new(LogConfig::Journal {
            dir: dir.path().to_owned(),
            journal: JournalConfig { segment_bytes: 16 << 10, ..JournalConfig::default() },
            snapshots: None,
            snapshot: SnapshotConfig {
                events: 100,
                remove_segments: true,
                ..SnapshotConfig::default()
            },
        })
    };
    let first = || {
        let journal = dir.path().join("journal");
        tmomi_persist::journal::verify(&journal).expect("a good journal").first
    };
    let fill = |buyers: std::ops::Range<u64>, readers: Option<(Seq, Seq)>| {
        let mut desk = Desk::new(config(), TestClock::at(START));
        if let Some((fast, slow)) = readers {
            desk.shard.journal_reader().keep_from(fast);
            desk.shard.journal_reader().keep_from(slow);
        }
        for buyer in buyers {
            desk.join(buyer);
        }
        desk.shard.applied()
    };
    let all = Seq(u64::MAX);
    fill(0..900, None);
    assert_eq!(first(), Some(Seq(1)), "somebody may read it");
    let last = fill(900..1_400, Some((all, Seq(1))));
    assert_eq!(first(), Some(Seq(1)), "one of two has yet to read it");
    let last = fill(1_400..1_900, Some((all, all))).max(last);
    assert!(first() > Some(Seq(500)), "nobody reads it any more");
    let snapshots = fs::read_dir(dir.path().join("snapshots")).expect("a folder").count();
    assert_eq!(snapshots, 2);
    assert!(Desk::new(config(), TestClock::at(START)).shard.applied() > last);
}

#[test]
fn a_folder_is_one_process_s() {
    let dir = tempfile::tempdir().expect("a folder");
    let desk = Desk::new(config(dir.path(), 1_000), TestClock::at(START));
    let second = Shard::open(config(dir.path(), 1_000), TestClock::at(START));
    let error = second.err().expect("the first has it").to_string();
    assert!(error.contains("in use"), "{error}");
    drop(desk);
    assert!(Shard::open(config(dir.path(), 1_000), TestClock::at(START)).is_ok());
}
