//! The follower: applies what is committed to the image, and tells whoever waits or watches.
//!
//! ```text
//! log -> follower: apply in slices -> watchers (bounded, never waited for)
//!                                  -> watermark: replies go out
//!                                  -> snapshot thread: now and then a number
//! ```
//!
//! The snapshot of a number is made from what is in the log, which is the same image: to encode
//! the one in use would keep everybody waiting, for seconds when millions of orders are in it.
//!
//! It is the only one who writes the image. An event that contradicts the image ends the shard:
//! nothing is acknowledged any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::Seq;
use tokio::sync::broadcast;

use crate::frame;
use crate::history::History;
use crate::image::{Divergence, Image, slices};
use crate::journal::{self, Media};
use crate::log::Committed;
use crate::recovery;
use crate::snapshot::{Encoded, SnapshotInfo, Snapshots};
use crate::watermark::Watermark;

/// Events applied at a time: readers wait for no more, well below a millisecond.
const SLICE_EVENTS: usize = 512;
/// Snapshots that are kept: the newest, and one to fall back to.
pub const SNAPSHOTS_KEPT: usize = 2;
/// How far the thread that makes snapshots stands back.
const SNAPSHOT_NICE: i32 = 10;

/// When snapshots are written, and what they make superfluous.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotConfig {
    /// After so many events.
    pub events: u64,
    /// After so many bytes of log.
    pub bytes: u64,
    /// Whether segments of the journal that no kept snapshot needs are removed. The audit trail
    /// reads the journal, so it ends where the journal begins.
    pub remove_segments: bool,
}

impl Default for SnapshotConfig {
    /// After a million events or 256 MiB; every segment is kept.
    fn default() -> Self {
        SnapshotConfig { events: 1_000_000, bytes: 256 << 20, remove_segments: false }
    }
}

/// The image that the follower keeps, and what others see of it.
#[derive(Debug)]
pub(crate) struct LiveImage {
    pub(crate) image: RwLock<Image>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) watchers: broadcast::Sender<Arc<Batch>>,
    diverged: AtomicBool,
    /// Where those who read the journal have got to.
    journal_readers: Mutex<Vec<JournalFloor>>,
}

/// One who reads the journal: from which event on it must stay. Zero, and so all of it, until he
/// says.
#[derive(Clone, Debug)]
pub struct JournalFloor(Arc<AtomicU64>);

impl JournalFloor {
    /// Event `seq` is still to be read: segments with it or later events stay. The number only
    /// rises.
    pub fn keep_from(&self, seq: Seq) {
        // Relaxed: a segment too many for a while does no harm.
        self.0.fetch_max(seq.0, Ordering::Relaxed);
    }
}

impl LiveImage {
    /// An image, with room for `batches_max` batches that a watcher has not looked at.
    pub(crate) fn new(image: Image, batches_max: usize) -> Arc<LiveImage> {
        let watermark = Watermark::new(image.applied());
        let (watchers, _) = broadcast::channel(batches_max);
        let diverged = AtomicBool::new(false);
        let image = RwLock::new(image);
        let journal_readers = Mutex::default();
        Arc::new(LiveImage { image, watermark, watchers, diverged, journal_readers })
    }

    /// One more who reads the journal: what he has not read stays, whatever the snapshots say, for
    /// as long as the shard is open.
    pub(crate) fn journal_reader(&self) -> JournalFloor {
        let floor = JournalFloor(Arc::default());
        self.journal_readers.lock().push(floor.clone());
        floor
    }

    /// The first event that somebody has yet to read; zero if nobody reads.
    fn journal_read_from(&self) -> Seq {
        let readers = self.journal_readers.lock();
        let floors = readers.iter().map(|floor| floor.0.load(Ordering::Relaxed));
        Seq(floors.min().unwrap_or(0))
    }

    /// Whether an event contradicted the image.
    pub(crate) fn has_diverged(&self) -> bool {
        // Relaxed: the flag guards no other data.
        self.diverged.load(Ordering::Relaxed)
    }

    /// Applies what the log committed.
    pub(crate) fn apply(&self, committed: Committed) -> Result<(), Divergence> {
        let Committed { epoch, batch } = committed;
        if !self.image.read().admits(epoch, &batch)? {
            tracing::warn!(%epoch, "events of an ended reign are left out");
            return Ok(());
        }
        for slice in slices(&batch, SLICE_EVENTS) {
            let mut image = self.image.write();
            image.apply_slice(&batch, slice)?;
            // Whoever waits to read goes before the next slice.
            RwLockWriteGuard::unlock_fair(image);
        }
        let Some(last) = batch.last_seq() else { return Ok(()) };
        // Nobody may be watching.
        let _ = self.watchers.send(Arc::new(batch));
        self.watermark.advance(last);
        Ok(())
    }
}

/// Applies commit after commit, and has a snapshot written now and then.
pub(crate) struct Following {
    pub(crate) live: Arc<LiveImage>,
    pub(crate) snapshotter: Option<Snapshotter>,
}

impl Following {
    /// `false` if the events contradict the image: there is no further step.
    pub(crate) fn apply(&mut self, next: Committed) -> bool {
        let (events, bytes) = (next.batch.events.len(), frame::encoded_bytes(&next.batch));
        if let Err(divergence) = self.live.apply(next) {
            // Before the watermark fails, so that whoever is told of it finds the reason.
            self.live.diverged.store(true, Ordering::Relaxed);
            self.live.watermark.fail();
            tracing::error!(%divergence, "nothing is acknowledged any more");
            return false;
        }
        if let Some(snapshotter) = &mut self.snapshotter {
            snapshotter.after(events as u64, bytes as u64, self.live.watermark.applied());
        }
        true
    }

    /// Nothing more comes: writes the last snapshot.
    pub(crate) fn finish(self) {
        // Who waits for more need not wait for the snapshot, too.
        self.live.watermark.fail();
        if let Some(snapshotter) = self.snapshotter {
            snapshotter.finish(&self.live.image.read());
        }
    }
}

/// What a start from the disk read beyond the newest snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replayed {
    pub(crate) snapshot: Seq,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// Counts what was applied, and has a snapshot written when it is time.
pub(crate) struct Snapshotter {
    config: SnapshotConfig,
    events: u64,
    bytes: u64,
    last: Seq,
    queue: Sender<Seq>,
    writing: Writing,
}

/// Who writes snapshots.
enum Writing {
    Thread(JoinHandle<Archive>),
    /// Whoever calls [`Snapshotter::step`].
    Stepped(Archive),
}

impl Snapshotter {
    /// Nothing is written before [`spawn`](Self::spawn), or but by [`step`](Self::step).
    ///
    /// What was replayed counts: a process that crashes again and again before its snapshot is
    /// due has one written all the same.
    pub(crate) fn new(store: Store, replayed: Replayed, live: Arc<LiveImage>) -> Snapshotter {
        let (queue, due) = channel::bounded(1);
        let config = store.config;
        let writing = Writing::Stepped(Archive { store, live, due });
        let Replayed { snapshot: last, events, bytes } = replayed;
        Snapshotter { config, events, bytes, last, queue, writing }
    }

    /// Has a thread of its own write them.
    pub(crate) fn spawn(self) -> io::Result<Snapshotter> {
        let Writing::Stepped(archive) = self.writing else { return Ok(self) };
        let thread = thread::Builder::new().name("snapshot".into()).spawn(|| {
            // Of this thread only: sales go first. Without it they take turns.
            let _ = rustix::process::nice(SNAPSHOT_NICE);
            archive.run()
        })?;
        Ok(Snapshotter { writing: Writing::Thread(thread), ..self })
    }

    /// Writes the snapshot that is due; `false` if none is.
    pub(crate) fn step(&self) -> bool {
        match &self.writing {
            Writing::Stepped(archive) => archive.step(),
            Writing::Thread(_) => false,
        }
    }

    /// Counts, and asks for a snapshot of event `applied` if it is time.
    fn after(&mut self, events: u64, bytes: u64, applied: Seq) {
        self.events += events;
        self.bytes += bytes;
        let due = self.events >= self.config.events || self.bytes >= self.config.bytes;
        if !due || self.queue.is_full() {
            return;
        }
        // The one before may still be in writing: this one waits in the queue, which has room.
        if let Err(TrySendError::Disconnected(_)) = self.queue.try_send(applied) {
            tracing::error!("snapshots are no longer written");
        }
        (self.events, self.bytes, self.last) = (0, 0, applied);
    }

    /// Writes the last snapshot, if anything came since the one before. Nobody waits for the
    /// image any more, so it is the one that is there.
    fn finish(self, image: &Image) {
        drop(self.queue);
        let archive = match self.writing {
            Writing::Stepped(archive) => Ok(archive.run()),
            Writing::Thread(thread) => thread.join(),
        };
        let Ok(archive) = archive else {
            tracing::error!("the thread that writes snapshots panicked");
            return;
        };
        if image.applied() > self.last {
            archive.write(Encoded::of(image));
        }
    }
}

/// Where snapshots are, and what they are made from.
pub(crate) struct Store {
    pub(crate) snapshots: Snapshots,
    pub(crate) config: SnapshotConfig,
    /// The log that they are made from.
    pub(crate) history: Arc<dyn History>,
    /// The folder of that log, if it is a journal, and how its files are changed.
    pub(crate) journal: Option<(PathBuf, Arc<dyn Media>)>,
}

/// Writes snapshots, and removes what they make superfluous.
struct Archive {
    store: Store,
    live: Arc<LiveImage>,
    due: Receiver<Seq>,
}

impl Archive {
    /// Writes whatever is due until the other end is closed.
    fn run(self) -> Archive {
        while let Ok(seq) = self.due.recv() {
            self.write_at(seq);
        }
        self
    }

    fn step(&self) -> bool {
        let due = self.due.try_recv();
        due.is_ok_and(|seq| {
            self.write_at(seq);
            true
        })
    }

    /// A failed snapshot costs nothing but time at the next start, so it is logged and the next
    /// is tried.
    fn write_at(&self, seq: Seq) {
        let Store { snapshots, history, .. } = &self.store;
        match recovery::image_at(snapshots, &**history, seq) {
            Ok(image) => self.write(Encoded::of(&image)),
            Err(error) => tracing::error!(%error, "no snapshot; the next start takes longer"),
        }
    }

    fn write(&self, encoded: Encoded) {
        let written = self.store.snapshots.write(encoded).and_then(|snapshot| {
            tracing::info!(file = snapshot.file, bytes = snapshot.bytes, "snapshot");
            self.store.snapshots.keep_newest(SNAPSHOTS_KEPT)
        });
        match written {
            Ok(kept) => self.remove_segments(&kept),
            Err(error) => tracing::error!(%error, "no snapshot; the next start takes longer"),
        }
    }

    /// Removes segments once there is a snapshot to fall back to, and only what that one does not
    /// need.
    fn remove_segments(&self, kept: &[SnapshotInfo]) {
        let Some(oldest) = kept.get(SNAPSHOTS_KEPT - 1) else { return };
        let Some((journal_dir, media)) = &self.store.journal else { return };
        if !self.store.config.remove_segments {
            return;
        }
        let from = oldest.seq.next().min(self.live.journal_read_from());
        if let Err(error) = journal::retain_from_on(&**media, journal_dir, from) {
            tracing::error!(%error, "segments of the journal are not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::event::{Body, Event};
    use tmomi_engine::ids::{BuyerId, EntryId, Epoch, ShowtimeId, TimeMs};
    use tmomi_engine::layout::{LayoutSpec, SectionSpec};

    use crate::layout_codec;

    fn committed(epoch: u32, seq: u64, body: Body) -> Committed {
        let showtime = match body {
            Body::EpochStart { .. } => ShowtimeId(0),
            _ => ShowtimeId(1),
        };
        let event = Event {
            seq: Seq(seq),
            at: TimeMs(1_000 + seq),
            showtime,
            more_follows: false,
            has_blob: matches!(body, Body::Opened { .. }),
            body,
        };
        let places = SectionSpec::General { places: 9, tier: Default::default() };
        let layout = layout_codec::encode(&LayoutSpec { sections: vec![places] });
        let blobs = event.has_blob.then(|| (Seq(seq), layout.into()));
        let batch = Batch { events: vec![event.pack()], blobs: blobs.into_iter().collect() };
        Committed { epoch: Epoch(epoch), batch }
    }

    fn start(epoch: u32, seq: u64) -> Committed {
        committed(epoch, seq, Body::EpochStart { epoch: Epoch(epoch), node: 0 })
    }

    fn opened(epoch: u32, seq: u64) -> Committed {
        committed(epoch, seq, Body::Opened { limit: 4, hold_ttl_ms: 1_000 })
    }

    fn buyer(epoch: u32, seq: u64, buyer: u64) -> Committed {
        let entry = EntryId(buyer as u32);
        committed(epoch, seq, Body::Buyer { entry, buyer: BuyerId(buyer) })
    }

    /// R7; planted: the follower takes any epoch.
    #[test]
    fn a_record_of_an_ended_reign_changes_nothing_and_is_not_told() {
        let live = LiveImage::new(Image::new(), 4);
        for batch in [start(1, 1), opened(1, 2), start(3, 3)] {
            live.apply(batch).expect("in order");
        }
        let mut watcher = live.watchers.subscribe();
        let hash = live.image.read().hash();
        live.apply(buyer(1, 4, 7)).expect("it is left out");
        assert_eq!((live.image.read().hash(), live.watermark.applied()), (hash, Seq(3)));
        assert!(watcher.try_recv().is_err());
        live.apply(buyer(3, 4, 8)).expect("it is of the newest reign");
        assert_eq!(live.watermark.applied(), Seq(4));
        assert_eq!(watcher.try_recv().expect("told").last_seq(), Some(Seq(4)));
    }

    #[test]
    fn after_a_contradiction_nothing_is_acknowledged() {
        let live = LiveImage::new(Image::new(), 4);
        let mut following = Following { live: Arc::clone(&live), snapshotter: None };
        assert!(following.apply(start(1, 1)) && following.apply(opened(1, 2)));
        assert!(!following.apply(opened(1, 3)));
        assert!(live.has_diverged() && live.watermark.failed());
        assert_eq!(live.watermark.applied(), Seq(2));
    }

    #[test]
    fn a_watcher_that_lags_is_told_and_never_waited_for() {
        let live = LiveImage::new(Image::new(), 4);
        let mut slow = live.watchers.subscribe();
        live.apply(start(1, 1)).expect("in order");
        live.apply(opened(1, 2)).expect("in order");
        for n in 3..10 {
            live.apply(buyer(1, n, n)).expect("in order");
        }
        let lagged = slow.try_recv().expect_err("it missed some");
        assert_eq!(lagged, broadcast::error::TryRecvError::Lagged(5));
        assert_eq!(slow.try_recv().expect("the oldest that is left").last_seq(), Some(Seq(6)));
    }
}
