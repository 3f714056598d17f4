//! A process: a shard opened on what is there, with its writer, and a hand to decide with.

use std::path::Path;
use std::sync::{Arc, Mutex};

use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use tmomi_engine::event::{Batch, LineMode, LineSettings};
use tmomi_engine::ids::TimeMs;
use tmomi_engine::layout::Layout;
use tmomi_engine::{EngineConfig, Handle, OpenShowtime};
use tmomi_persist::clock::Clock;
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::journal::JournalConfig;
use tmomi_persist::layout_codec;
use tmomi_persist::shard::{JOURNAL_DIR, LogConfig, OpenError, Shard, ShardConfig, Stages};
use tmomi_persist::snapshot::Snapshots;
use tmomi_persist::writer::{DeadLetters, JournalSource, Writer, WriterConfig};
use tokio::sync::broadcast;

use crate::disk::Cache;
use crate::rows::{Haunted, OneHouse, Tables};
use crate::truth::SHOW;

const LIMIT: u32 = 6;
/// Segments of a few frames.
const SEGMENT_BYTES: u64 = 4_096;
const SNAPSHOT_EVENTS: u64 = 30;

pub(crate) struct Life {
    pub(crate) writer: Writer<Haunted, Tables, OneHouse>,
    pub(crate) zombie: Arc<Mutex<bool>>,
    pub(crate) watcher: broadcast::Receiver<Arc<Batch>>,
    pub(crate) handle: Handle,
    pub(crate) stages: Stages,
    pub(crate) shard: Arc<Shard>,
}

impl Life {
    /// Opens the shard in `dir`, on `disk`, with the snapshots of `store`.
    pub(crate) fn open(
        dir: &Path,
        disk: &Cache,
        store: &Arc<InMemory>,
        clock: Arc<dyn Clock>,
        tables: Tables,
        names: OneHouse,
    ) -> Result<Life, OpenError> {
        let snapshot = SnapshotConfig {
            events: SNAPSHOT_EVENTS,
            remove_segments: true,
            ..SnapshotConfig::default()
        };
        let journal = JournalConfig { segment_bytes: SEGMENT_BYTES, ..JournalConfig::default() };
        let snapshots = Some(Snapshots::new(Arc::clone(store) as _, StorePath::default(), 0));
        let log = LogConfig::Journal { dir: dir.to_owned(), journal, snapshots, snapshot };
        let config = ShardConfig {
            media: Arc::new(disk.clone()),
            engine: EngineConfig { ring_slots: 2_048, handles_max: 2 },
            ..ShardConfig::new(log)
        };
        let (shard, stages) = Shard::open_stepped(config, Arc::clone(&clock))?;
        let shard = Arc::new(shard);
        let (of_source, floor) = (Arc::clone(&shard), shard.journal_reader());
        let journal = JournalSource::new(dir.join(JOURNAL_DIR), 0, move || of_source.applied())
            .on_written(move |position| floor.keep_from(position.next()));
        let zombie = Arc::new(Mutex::new(false));
        let source = Haunted { journal, zombie: Arc::clone(&zombie), last: None };
        let dead = DeadLetters::new(dir.join("dead"));
        let config = WriterConfig { events_max: 20, ..WriterConfig::default() };
        let writer = Writer::new(config, source, tables, names, dead, clock);
        let handle = shard.engine().handle().expect("the first handle");
        let watcher = shard.subscribe();
        Ok(Life { writer, zombie, watcher, handle, stages, shard })
    }
}

/// The line's settings, but for what the organiser changes.
pub(crate) fn line() -> LineSettings {
    LineSettings {
        mode: LineMode::Fifo,
        max_active: 3,
        rate_per_1000s: 1_000_000,
        grace_ms: 1_500,
        session_ms: 2_500,
    }
}

/// The one showtime.
pub(crate) fn showtime(layout: &Arc<Layout>) -> OpenShowtime {
    OpenShowtime {
        showtime: SHOW,
        layout: Arc::clone(layout),
        blob: layout_codec::encode(layout.spec()).into(),
        limit: LIMIT,
        hold_ttl_ms: 300,
        line: line(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    }
}
