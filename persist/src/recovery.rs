//! From what is on the disk to the image that a shard begins with.

use std::path::Path;

use tmomi_engine::ids::Seq;

use crate::frame;
use crate::image::{Divergence, Followed, Image};
use crate::journal::{JournalError, JournalTail, Reader};
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
    /// How many events of the journal came after it.
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
    read_to(snapshots, listed.into_iter().next(), journal_dir, tail.last)
}

/// The image at event `to`, which is committed, or at the end of that event's frame: from the
/// newest snapshot and what the journal has after it. The journal may be written meanwhile.
///
/// # Errors
///
/// As [`recover`].
pub(crate) fn image_at(
    snapshots: &Snapshots,
    journal_dir: &Path,
    to: Seq,
) -> Result<Image, RecoveryError> {
    let newest = snapshots.list()?.into_iter().next();
    Ok(read_to(snapshots, newest, journal_dir, to)?.image)
}

fn read_to(
    snapshots: &Snapshots,
    snapshot: Option<SnapshotInfo>,
    journal_dir: &Path,
    to: Seq,
) -> Result<Recovered, RecoveryError> {
    let mut image = match &snapshot {
        Some(snapshot) => snapshots.read(snapshot)?,
        None => Image::new(),
    };
    let from = image.applied();
    let mut replayed_bytes = 0;
    let mut reader = Reader::open(journal_dir, from)?;
    while let Some(frame) = reader.read_to(to)? {
        replayed_bytes += frame::encoded_bytes(&frame.batch) as u64;
        if image.follow(frame.epoch, &frame.batch)? == Followed::Stale {
            tracing::warn!(epoch = %frame.epoch, "events of an ended reign are left out");
        }
    }
    let replayed = image.applied().0 - from.0;
    Ok(Recovered { image, snapshot, replayed, replayed_bytes })
}
