//! From what is on the disk to the image that a shard begins with.

use std::path::Path;

use tmomi_engine::ids::Seq;

use crate::frame::{self, Frame};
use crate::history::{History, HistoryError, JournalHistory};
use crate::image::{Divergence, Followed, Image};
use crate::journal::{JournalError, JournalTail};
use crate::snapshot::{SnapshotError, SnapshotInfo, Snapshots};

/// Why a shard cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The newest snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The topic cannot be read, or is not the log of what is here.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] crate::kafka::KafkaError),
    /// The events contradict each other.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// The journal ends before the newest snapshot does: it is not the journal of that snapshot.
    #[error("the journal ends at event {last}, before snapshot {file}")]
    JournalBehind {
        /// The snapshot.
        file: String,
        /// The last event of the journal.
        last: Seq,
    },
}

/// An image at the end of the log; empty without one.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The image.
    pub image: Image,
    /// The snapshot it began with, if there was one.
    pub snapshot: Option<SnapshotInfo>,
    /// How many events of the log came after it.
    pub replayed: u64,
    /// Bytes of their frames.
    pub replayed_bytes: u64,
}

/// Reads the newest snapshot, and the journal in `journal_dir` from there to its end `tail`.
///
/// # Errors
///
/// [`RecoveryError`]. A damaged snapshot is not passed over: what damaged it may have damaged
/// more, and whoever takes it away decides that the one before it is good enough.
pub fn recover(
    snapshots: &Snapshots,
    journal_dir: &Path,
    tail: &JournalTail,
) -> Result<Recovered, RecoveryError> {
    let listed = snapshots.list()?;
    if let Some(newest) = listed.first().filter(|newest| newest.seq > tail.last) {
        return Err(RecoveryError::JournalBehind { file: newest.file.clone(), last: tail.last });
    }
    let journal = JournalHistory(journal_dir.to_owned());
    read_to(snapshots, listed.into_iter().next(), &journal, tail.last)
}

/// The image at event `to`, which is committed, or at the end of that event's frame: from the
/// newest snapshot that is not after it and what the log has from there. The log may be written
/// meanwhile.
///
/// # Errors
///
/// As [`recover`].
pub(crate) fn image_at(
    snapshots: &Snapshots,
    history: &dyn History,
    to: Seq,
) -> Result<Image, RecoveryError> {
    let newest = snapshots.list()?.into_iter().find(|snapshot| snapshot.seq <= to);
    Ok(read_to(snapshots, newest, history, to)?.image)
}

/// Brings an image to event `to`, as [`image_at`].
///
/// # Errors
///
/// As [`recover`]; the image is of no use then.
pub(crate) fn advance(
    image: &mut Image,
    history: &dyn History,
    to: Seq,
) -> Result<(), RecoveryError> {
    let mut frames = history.after(image.applied())?;
    while let Some(frame) = frames.read_to(to)? {
        follow(image, &frame)?;
    }
    Ok(())
}

fn follow(image: &mut Image, frame: &Frame) -> Result<(), RecoveryError> {
    if image.follow(frame.epoch, &frame.batch)? == Followed::Stale {
        tracing::warn!(epoch = %frame.epoch, "events of an ended reign are left out");
    }
    Ok(())
}

fn read_to(
    snapshots: &Snapshots,
    snapshot: Option<SnapshotInfo>,
    history: &dyn History,
    to: Seq,
) -> Result<Recovered, RecoveryError> {
    let mut replay = Replay::begin(snapshots, snapshot)?;
    let mut frames = history.after(replay.applied())?;
    while let Some(frame) = frames.read_to(to)? {
        replay.take(&frame)?;
    }
    Ok(replay.finish())
}

/// A snapshot, to which frames are added.
#[derive(Debug)]
pub(crate) struct Replay {
    recovered: Recovered,
    from: Seq,
}

impl Replay {
    /// Begins with `snapshot`, or with nothing.
    pub(crate) fn begin(
        snapshots: &Snapshots,
        snapshot: Option<SnapshotInfo>,
    ) -> Result<Replay, SnapshotError> {
        let image = match &snapshot {
            Some(snapshot) => snapshots.read(snapshot)?,
            None => Image::new(),
        };
        let from = image.applied();
        Ok(Replay { recovered: Recovered { image, snapshot, ..Recovered::default() }, from })
    }

    pub(crate) fn applied(&self) -> Seq {
        self.recovered.image.applied()
    }

    /// Adds the next frame.
    pub(crate) fn take(&mut self, frame: &Frame) -> Result<(), RecoveryError> {
        self.recovered.replayed_bytes += frame::encoded_bytes(&frame.batch) as u64;
        follow(&mut self.recovered.image, frame)
    }

    pub(crate) fn finish(mut self) -> Recovered {
        self.recovered.replayed = self.recovered.image.applied().0 - self.from.0;
        self.recovered
    }
}

#[cfg(feature = "kafka")]
impl Replay {
    pub(crate) fn image(&self) -> &Image {
        &self.recovered.image
    }

    pub(crate) fn snapshot(&self) -> Option<&SnapshotInfo> {
        self.recovered.snapshot.as_ref()
    }
}

impl From<HistoryError> for RecoveryError {
    fn from(error: HistoryError) -> RecoveryError {
        match error {
            HistoryError::Journal(error) => RecoveryError::Journal(error),
            #[cfg(feature = "kafka")]
            HistoryError::Kafka(error) => RecoveryError::Kafka(error),
        }
    }
}
