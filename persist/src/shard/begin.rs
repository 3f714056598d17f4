//! From what is on the disk, or in the topic, to a reign that has begun.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq, TimeMs};
use tmomi_engine::{Engine, EngineConfig, Keeper, Reject};

use super::{Admit, JOURNAL_DIR, LogConfig, OpenError, SNAPSHOT_DIR};
use crate::clock::Clock;
use crate::follower::Store;
use crate::history::JournalHistory;
use crate::image::Image;
use crate::journal::{self, Journal, JournalConfig, Media};
#[cfg(feature = "kafka")]
use crate::kafka::{self, KafkaHistory};
use crate::log::{Log, LogError};
use crate::recovery::{self, Recovered, RecoveryError};
use crate::snapshot::{self, SnapshotInfo, Snapshots};

/// How often a reign is begun anew because others wrote meanwhile.
const OVERTAKEN_MAX: u32 = 8;
/// How often a log is asked for the commit of the first event while it is stalled: each time, it
/// waits by itself.
const STALLED_MAX: u32 = 10;

/// A shard that is being opened.
pub(super) struct Opening {
    pub(super) shard: u32,
    pub(super) node: u64,
    pub(super) sizes: EngineConfig,
    pub(super) media: Arc<dyn Media>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) admit: Admit,
}

/// A reign whose first event is committed and in the image.
pub(super) struct Begun {
    pub(super) engine: Engine,
    pub(super) keeper: Keeper,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: Box<dyn Log>,
    pub(super) image: Image,
    pub(super) epoch: Epoch,
    pub(super) recovered: WasRead,
    pub(super) store: Option<Store>,
}

/// What was read for it.
pub(super) struct WasRead {
    pub(super) snapshot: Option<SnapshotInfo>,
    pub(super) replayed: u64,
    pub(super) bytes: u64,
}

impl Opening {
    /// Brings the image back, builds the engine from it and commits the beginning of a reign.
    pub(super) fn begin(mut self, mut log: LogConfig) -> Result<Begun, OpenError> {
        for _ in 0..OVERTAKEN_MAX {
            let again = log.again();
            match self.begin_once(log) {
                Err(OpenError::Log(LogError::Overtaken(why))) => {
                    tracing::warn!(%why, "the log is read again");
                    let Some(again) = again else {
                        return Err(OpenError::Log(LogError::Overtaken(why)));
                    };
                    log = again;
                }
                begun => return begun,
            }
        }
        let why = "others began a reign again and again; do two nodes serve one shard?";
        Err(OpenError::Log(LogError::Fatal(why.into())))
    }

    fn begin_once(&mut self, log: LogConfig) -> Result<Begun, OpenError> {
        let Restored { mut log, recovered, epoch_seen, store } =
            Restored::load(self.shard, log, Arc::clone(&self.media))?;
        let Recovered { mut image, snapshot, replayed, replayed_bytes: bytes } = recovered;
        (self.admit)(&image).map_err(OpenError::Refused)?;
        let clock = not_before(Arc::clone(&self.clock), image.now());
        let (engine, mut keeper) = Engine::restore(self.sizes, &image, clock.now());
        let epoch = Epoch(epoch_seen.0 + 1);
        let first = first_event(&engine, &mut keeper, epoch, self.node, clock.now());
        log.append(epoch, &first)?;
        commit_first(&mut *log)?;
        image.apply(&first).map_err(RecoveryError::Diverged)?;
        let recovered = WasRead { snapshot, replayed, bytes };
        Ok(Begun { engine, keeper, clock, log, image, epoch, recovered, store })
    }
}

/// Nobody can be told to ask again yet, so this waits for a log that has stalled, but not for ever.
fn commit_first(log: &mut dyn Log) -> Result<(), LogError> {
    let mut done = log.commit();
    for _ in 1..STALLED_MAX {
        if !matches!(done, Err(LogError::Stalled(_))) {
            break;
        }
        done = log.commit();
    }
    done
}

impl LogConfig {
    /// The same once more, if it can be opened more than once.
    fn again(&self) -> Option<LogConfig> {
        match self {
            #[cfg(feature = "kafka")]
            LogConfig::Kafka { kafka, dir, snapshots, snapshot } => Some(LogConfig::Kafka {
                kafka: kafka.clone(),
                dir: dir.clone(),
                snapshots: snapshots.clone(),
                snapshot: *snapshot,
            }),
            LogConfig::Journal { .. } | LogConfig::Unread(_) => None,
        }
    }
}

/// What a shard begins with.
struct Restored {
    log: Box<dyn Log>,
    recovered: Recovered,
    epoch_seen: Epoch,
    store: Option<Store>,
}

impl Restored {
    fn load(shard: u32, config: LogConfig, media: Arc<dyn Media>) -> Result<Restored, OpenError> {
        let (dir, journal, snapshots, config) = match config {
            LogConfig::Journal { dir, journal, snapshots, snapshot } => {
                (dir, journal, snapshots, snapshot)
            }
            #[cfg(feature = "kafka")]
            LogConfig::Kafka { kafka, dir, snapshots, snapshot } => {
                let snapshots = match snapshots {
                    Some(snapshots) => snapshots,
                    None => own_snapshots(&dir, shard)?,
                };
                let (recovered, log, epoch_seen) = kafka::open(&kafka, shard, &snapshots)?;
                let history = Arc::new(KafkaHistory::new(kafka, shard));
                let store = Store { snapshots, config: snapshot, history, journal: None };
                let (log, store) = (Box::new(log), Some(store));
                return Ok(Restored { log, recovered, epoch_seen, store });
            }
            LogConfig::Unread(log) => {
                let (epoch_seen, recovered) = (Epoch(0), Recovered::default());
                return Ok(Restored { log, recovered, epoch_seen, store: None });
            }
        };
        let journal_dir = dir.join(JOURNAL_DIR);
        let journal = JournalConfig { shard, ..journal };
        let (journal, tail) = Journal::open_on(&journal_dir, journal, Arc::clone(&media))
            .map_err(RecoveryError::Journal)?;
        // From here on no other process writes in the folder.
        let snapshots = match snapshots {
            Some(snapshots) => snapshots,
            None => own_snapshots(&dir, shard)?,
        };
        let recovered = recovery::recover(&snapshots, &journal_dir, &tail)?;
        if let Some(cut) = &tail.cut {
            tracing::warn!(?cut, "an incomplete frame was cut off the journal");
        }
        let epoch_seen = tail.epoch.max(recovered.image.epoch());
        let history = Arc::new(JournalHistory(journal_dir.clone()));
        let journal_files = Some((journal_dir, media));
        let store = Store { snapshots, config, history, journal: journal_files };
        Ok(Restored { log: Box::new(journal), recovered, epoch_seen, store: Some(store) })
    }
}

/// The snapshots in the folder of a shard.
fn own_snapshots(dir: &Path, shard: u32) -> Result<Snapshots, OpenError> {
    let snapshot_dir: PathBuf = dir.join(SNAPSHOT_DIR);
    journal::make_dir(&snapshot_dir).map_err(RecoveryError::Journal)?;
    snapshot::remove_unfinished(&snapshot_dir).map_err(|source| not_made(&snapshot_dir, source))?;
    Ok(Snapshots::local(&snapshot_dir, shard).map_err(RecoveryError::Snapshot)?)
}

/// Begins a reign, before anybody else can decide.
fn first_event(
    engine: &Engine,
    keeper: &mut Keeper,
    epoch: Epoch,
    node: u64,
    now: TimeMs,
) -> Batch {
    let mut first = Batch::default();
    let started: Result<Seq, Reject> =
        engine.handle().expect("nobody has a handle yet").start_epoch(now, epoch, node);
    started.expect("the ring is empty");
    keeper.drain(&mut first, 1);
    first
}

/// A clock that never shows less than `earliest`, the time of the last event: if the machine's was
/// set back while the process was down, deadlines still come.
fn not_before(clock: Arc<dyn Clock>, earliest: TimeMs) -> Arc<dyn Clock> {
    let ahead_ms = earliest.since_ms(clock.now());
    if ahead_ms == 0 {
        return clock;
    }
    tracing::warn!(ahead_ms, "the clock was set back; time goes on from the last event's");
    Arc::new(Ahead { clock, ahead_ms })
}

struct Ahead {
    clock: Arc<dyn Clock>,
    ahead_ms: u64,
}

impl Clock for Ahead {
    fn now(&self) -> TimeMs {
        self.clock.now().plus_ms(self.ahead_ms)
    }

    fn monotonic_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }
}

fn not_made(dir: &Path, source: io::Error) -> OpenError {
    OpenError::Make { what: format!("folder {}", dir.display()), source }
}
