//! A shard at work: an engine that decides, a log that keeps, an image that answers.
//!
//! ```text
//! keeper's thread: tick
//!            |
//! handles -> ring -> the shard's thread: drain, commit, apply -> image, watermark, watchers
//!                                                           |
//!                                                    snapshot thread
//! ```
//!
//! [`Shard::open`] brings the image back, builds the engine from it, and begins a new reign before
//! anybody can decide. [`Shard::close`] ends it in order.

mod begin;
mod bell;
mod stages;
mod ticker;
mod way;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};
use tmomi_engine::{Engine, EngineConfig};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::follower::{Following, LiveImage, Replayed, SnapshotConfig, Snapshotter};
use crate::history::History;
use crate::image::Image;
use crate::journal::{AheadDisk, JournalConfig, Media};
#[cfg(feature = "kafka")]
use crate::kafka::KafkaConfig;
use crate::log::{CommitHook, GroupCommit, Log, LogError, LogStatus, Memory, Room, TooLarge};
use crate::recovery::RecoveryError;
use crate::snapshot::{SnapshotInfo, Snapshots};
use crate::watermark::Wait;
use begin::{Begun, Opening, WasRead};
use bell::Bell;
use stages::Threads;
use ticker::Ticker;
use way::Way;

pub use crate::follower::JournalFloor;
pub use stages::Stages;

/// Batches that a watcher may be behind unless said.
pub const WATCHER_BATCHES_MAX: usize = 1_024;

/// The journal's folder within a shard's.
pub const JOURNAL_DIR: &str = "journal";
/// The snapshots' folder within a shard's, if they are in local files.
pub const SNAPSHOT_DIR: &str = "snapshots";

/// Where a shard keeps its decisions.
pub enum LogConfig {
    /// In a journal and snapshots in a folder.
    Journal {
        /// The folder, which is made if it is not there.
        dir: PathBuf,
        /// The journal; its shard is set by [`ShardConfig::shard`].
        journal: JournalConfig,
        /// Where snapshots go; `None`: into the folder.
        snapshots: Option<Snapshots>,
        /// When they are written.
        snapshot: SnapshotConfig,
    },
    /// In a partition of a Kafka topic, and snapshots.
    #[cfg(feature = "kafka")]
    Kafka {
        /// The topic; the partition is [`ShardConfig::shard`].
        kafka: KafkaConfig,
        /// The folder of the snapshots, which is made if it is not there.
        dir: PathBuf,
        /// Where snapshots go; `None`: into the folder.
        snapshots: Option<Snapshots>,
        /// When they are written.
        snapshot: SnapshotConfig,
    },
    /// In a log that is not read at the start: the shard begins empty.
    Unread(Box<dyn Log>),
}

/// Says whether a reign may begin with what the log has, or why not.
pub type Admit = Box<dyn FnMut(&Image) -> Result<(), String> + Send>;

/// A shard to open.
pub struct ShardConfig {
    /// Its number.
    pub shard: u32,
    /// The node that opens it, as the operator numbers them.
    pub node: u64,
    /// Where its decisions are kept.
    pub log: LogConfig,
    /// How the journal's files are changed.
    pub media: Arc<dyn Media>,
    /// The sizes of the engine.
    pub engine: EngineConfig,
    /// Asked when the log is read and before a reign begins, so before one that runs is ended. It
    /// may be asked again, with a later image.
    pub admit: Admit,
    /// Called after each commit, in the shard's thread.
    pub commit_hook: CommitHook,
    /// Batches that a watcher may be behind before it misses some.
    pub watcher_batches_max: usize,
}

impl ShardConfig {
    /// Shard 0 with this log and everything else as usual.
    pub fn new(log: LogConfig) -> ShardConfig {
        ShardConfig {
            shard: 0,
            node: 0,
            log,
            media: Arc::new(AheadDisk::default()),
            engine: EngineConfig::default(),
            admit: Box::new(|_| Ok(())),
            commit_hook: Box::new(|_| {}),
            watcher_batches_max: WATCHER_BATCHES_MAX,
        }
    }

    /// A journal in `dir`, as usual.
    pub fn journal(dir: &Path) -> ShardConfig {
        ShardConfig::new(LogConfig::Journal {
            dir: dir.to_owned(),
            journal: JournalConfig::default(),
            snapshots: None,
            snapshot: SnapshotConfig::default(),
        })
    }

    /// No log: all is lost with the process.
    pub fn memory() -> ShardConfig {
        ShardConfig::new(LogConfig::Unread(Box::new(Memory)))
    }
}

/// Why a shard cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is on the disk cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// [`ShardConfig::admit`] says no.
    #[error("{0}")]
    Refused(String),
    /// The log does not take the first event.
    #[error("the log cannot be written: {0}")]
    Log(#[from] LogError),
    /// The folder or a thread cannot be made.
    #[error("cannot make {what}: {source}")]
    Make {
        /// What.
        what: String,
        /// The answer.
        source: io::Error,
    },
}

/// Why a shard commits nothing just now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// The log has no room, or its brokers are away; it goes on by itself.
    #[error("the log waits: {0}")]
    Waiting(LogError),
    /// The log has failed; the process must start again.
    #[error("the log failed")]
    Failed(Option<LogError>),
    /// An event contradicted the image: a bug. Nothing is acknowledged any more.
    #[error("an event contradicted the image")]
    Diverged,
    /// The shard is being closed.
    #[error("the shard is being closed")]
    Closing,
}

/// One shard. Dropping it closes it.
pub struct Shard {
    engine: Engine,
    clock: Arc<dyn Clock>,
    live: Arc<LiveImage>,
    epoch: Epoch,
    /// The first event of its reign.
    first: Seq,
    replayed: u64,
    snapshot: Option<SnapshotInfo>,
    history: Option<Arc<dyn History>>,
    room: Option<Room>,
    bell: Arc<Bell>,
    status: Arc<LogStatus>,
    threads: Option<Threads>,
}

impl Shard {
    /// Brings the image back, builds the engine, commits the beginning of a new reign and starts
    /// the threads. Every showtime is on sale until [`set_window`](tmomi_engine::House::set_window)
    /// says when.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names the file and what is wrong.
    pub fn open(config: ShardConfig, clock: Arc<dyn Clock>) -> Result<Shard, OpenError> {
        let (mut shard, stages) = Shard::open_stepped(config, clock)?;
        shard.threads = Some(stages.spawn().map_err(no_thread)?);
        Ok(shard)
    }

    /// As [`open`](Self::open), without threads: nothing is passed on, committed or applied but by
    /// the steps that the caller takes, in any order. For simulations.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_stepped(
        config: ShardConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Shard, Stages), OpenError> {
        let ShardConfig { shard, node, log, media, engine: sizes, admit, .. } = config;
        let opening = Opening { shard, node, sizes, media, clock, admit };
        let Begun { engine, keeper, clock, log, image, epoch, recovered, store } =
            opening.begin(log)?;
        let (first, WasRead { snapshot, replayed, bytes }) = (image.applied(), recovered);

        let live = LiveImage::new(image, config.watcher_batches_max);
        let from = snapshot.as_ref().map_or(Seq(0), |snapshot| snapshot.seq);
        let begun = Replayed { snapshot: from, events: replayed, bytes };
        let history = store.as_ref().map(|store| Arc::clone(&store.history));
        let room = log.room();
        let snapshotter = store.map(|store| Snapshotter::new(store, begun, Arc::clone(&live)));
        let following = Following { live: Arc::clone(&live), snapshotter };
        let log = GroupCommit::new(log, epoch, Arc::clone(&clock), config.commit_hook);
        let (status, bell) = (Arc::clone(log.status()), Arc::new(Bell::default()));
        let keeper = Arc::new(Mutex::new(keeper));
        let ticker = Ticker {
            engine: engine.clone(),
            keeper: Arc::clone(&keeper),
            clock: Arc::clone(&clock),
            ticked_at: clock.now(),
        };
        let way = Way {
            engine: engine.clone(),
            keeper,
            bell: Arc::clone(&bell),
            drained: first,
            until: None,
            log,
            committed: None,
            following,
        };
        let stages = Stages { ticker, way };
        let threads = None;
        let shard = Shard {
            engine,
            clock,
            live,
            epoch,
            first,
            replayed,
            snapshot,
            history,
            room,
            bell,
            status,
            threads,
        };
        Ok((shard, stages))
    }

    /// The engine; whoever decides calls [`wake`](Self::wake) afterwards.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The clock to decide by: the one given to [`open`](Self::open), but never before the last
    /// event of the process before.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The image. Read it briefly: the follower waits to write it.
    pub fn image(&self) -> &RwLock<Image> {
        &self.live.image
    }

    /// The number of this process's reign.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The event that began it.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The log, to be read; `None` if it is lost with the process.
    pub fn history(&self) -> Option<&Arc<dyn History>> {
        self.history.as_ref()
    }

    /// The last event that is committed and applied to the image.
    pub fn applied(&self) -> Seq {
        self.live.watermark.applied()
    }

    /// Events that the start read from the journal, after the snapshot it began with.
    pub fn replayed(&self) -> (u64, Option<&SnapshotInfo>) {
        (self.replayed, self.snapshot.as_ref())
    }

    /// Waits until event `seq` is committed and in the image. The caller bounds the time.
    ///
    /// # Errors
    ///
    /// The future gives `NotCommitted` if the log failed or the shard was closed before.
    pub fn wait(&self, seq: Seq) -> Wait {
        self.live.watermark.wait(seq)
    }

    /// Waiters for a number, for metrics.
    pub fn waiting(&self) -> usize {
        self.live.watermark.waiting()
    }

    /// Whether decisions can be expected to be committed. Ask before deciding.
    ///
    /// # Errors
    ///
    /// [`Stalled`] says why not.
    pub fn accepting(&self) -> Result<(), Stalled> {
        if self.live.has_diverged() {
            return Err(Stalled::Diverged);
        }
        if self.bell.is_closing() {
            return Err(Stalled::Closing);
        }
        if self.status.is_failed() || self.live.watermark.failed() {
            return Err(Stalled::Failed(self.status.error()));
        }
        if self.status.is_stalled()
            && let Some(error) = self.status.error()
        {
            return Err(Stalled::Waiting(error));
        }
        Ok(())
    }

    /// Whether the log takes a showtime whose encoded layout has `bytes`. Ask before opening one:
    /// a decision that is too large ends the log.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] says what to set.
    pub fn check_layout(&self, bytes: usize) -> Result<(), TooLarge> {
        self.room.as_ref().map_or(Ok(()), |room| room.check_layout(bytes))
    }

    /// The calling thread has decided something. Cheap, and without it the decision waits some
    /// milliseconds longer.
    pub fn wake(&self) {
        // A refusal has left nothing in the ring. What this thread has put there it sees here.
        if self.engine.ring_depth() > 0 {
            self.bell.ring();
        }
    }

    /// Every batch that is applied from now on, after it is. A watcher that is too far behind is
    /// told how many batches it missed.
    ///
    /// To go on from an image, subscribe first, then read the image and leave out the events up to
    /// its number: it may be in the middle of a batch, between two decisions.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.live.watchers.subscribe()
    }

    /// Somebody is going to read the journal: what he has not read stays. Without any reader
    /// everything stays.
    pub fn journal_reader(&self) -> JournalFloor {
        self.live.journal_reader()
    }

    /// Ends the shard in order; the order is written here and nowhere else.
    ///
    /// 1. [`accepting`](Self::accepting) refuses.
    /// 2. What was decided until now is drained. A later decision is never committed, so whoever
    ///    makes one is told that nobody knows.
    /// 3. It is committed and applied, and replies can go out.
    /// 4. The log is sealed.
    /// 5. A last snapshot is written.
    ///
    /// # Errors
    ///
    /// [`LogError`] if something that was decided is not committed.
    pub fn close(mut self) -> Result<(), LogError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LogError> {
        let Some(threads) = self.threads.take() else { return Ok(()) };
        self.bell.close();
        threads.join()
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "decisions that nobody was told of are lost");
        }
    }
}

fn no_thread(source: io::Error) -> OpenError {
    OpenError::Make { what: "a thread".into(), source }
}
