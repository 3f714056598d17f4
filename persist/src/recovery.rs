//! From what is on the disk to the image that a shard begins with.

use std::path::Path;

use tmomi_engine::ids::Seq;

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

/// An image at the end of the log.
#[derive(Debug)]
pub struct Recovered {
    /// The image.
    pub image: Image,
    /// The snapshot it began with, if there was one.
    pub snapshot: Option<SnapshotInfo>,
    /// How many events of the journal came after it.
    pub replayed: u64,
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
    let snapshot = listed.into_iter().next();
    let mut image = match &snapshot {
        Some(snapshot) => snapshots.read(snapshot)?,
        None => Image::new(),
    };
    let from = image.applied();
    for frame in Reader::open(journal_dir, from)? {
        let frame = frame?;
        if image.follow(frame.epoch, &frame.batch)? == Followed::Stale {
            tracing::warn!(epoch = %frame.epoch, "events of an ended reign are left out");
        }
    }
    let replayed = image.applied().0 - from.0;
    Ok(Recovered { image, snapshot, replayed })
}
