//! The journal: a shard's log in files of one folder, durable by `fdatasync`.
//!
//! ```text
//! 00000000000000000001.journal   header | frame | frame | ... | continued | (cut to size)
//! 00000000000000183421.journal   header | frame | frame | zeros, preallocated
//! segment.new                    zeros, the next segment in the making
//! lock                           held by the process that writes
//! ```
//!
//! A segment is named by its first event. What its rules rest on:
//!
//! * A frame is written only when every frame before it is durable. So after a crash only the
//!   last frame can be incomplete, and a bad frame before a good one is damage.
//! * Frames are written into zeros, and a cut tail becomes zeros again before anything is
//!   written there. So an incomplete frame has zeros that a finished one has not, see
//!   [`crate::frame`], and nothing old can be taken for a frame.
//! * A new segment is complete and durable (header, room, name) before the one before it is
//!   marked as continued, and before its first frame. So a continued segment has a successor.
//! * Room is taken before a frame is written, so a full disk never cuts a frame.
//! * While a segment fills, the next one is written full of zeros under its unfinished name. It is
//!   nothing but room until it is begun, which makes it durable like any other.
//! * Every frame names the checksum of the frame before, across segments.

mod ahead;
mod lock;
mod media;
mod reader;
mod report;
mod scan;
mod segment;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use tmomi_engine::ids::{Epoch, Seq};

use crate::frame::FrameError;

pub use ahead::AheadDisk;
pub use lock::FolderLock;
pub use media::{Disk, Media};
#[cfg(feature = "kafka")]
pub(crate) use reader::Passed;
pub use reader::Reader;
pub use report::{Dump, Dumped, EpochReport, Report, dump, verify};
pub(crate) use segment::retain_from_on;
pub use segment::{FORMAT_VERSION, retain_from};
pub(crate) use writer::make_dir;
pub use writer::{Journal, JournalConfig, JournalTail};

/// A last frame that a crash cut off. It was never committed, so nobody was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the incomplete frame begins.
    pub offset: u64,
    /// Bytes from there to the last one that was written.
    pub bytes: u64,
}

/// Why a journal cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another process writes here.
    #[error("{} is in use by {}", path.display(), owner(*pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// The content is not what was written.
    #[error("{} is damaged at byte {offset}: {reason}", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the first bad frame begins.
        offset: u64,
        /// What is wrong.
        reason: Damage,
    },
    /// A newer program wrote it.
    #[error(
        "{} is of version {version}, written by a newer program; this one reads version {}",
        file.display(), FORMAT_VERSION
    )]
    NewerVersion {
        /// The segment.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It belongs to another shard.
    #[error("{} belongs to shard {found}, not to shard {expected}", file.display())]
    WrongShard {
        /// The segment.
        file: PathBuf,
        /// The shard it names.
        found: u32,
        /// The shard it is opened for.
        expected: u32,
    },
    /// A segment stands under the name of another.
    #[error("{} begins with event {found}, so it stands under a wrong name", file.display())]
    Misnamed {
        /// The segment.
        file: PathBuf,
        /// The first event by its header.
        found: Seq,
    },
    /// Events are missing between two segments, or after the last one.
    #[error("after {} the segment with event {expected} is missing", file.display())]
    MissingSegment {
        /// The segment before the gap.
        file: PathBuf,
        /// The first event that is missing.
        expected: Seq,
    },
    /// A segment begins with events that the one before has already.
    #[error("{} repeats events: event {expected} should come next", file.display())]
    Repeated {
        /// The segment that repeats.
        file: PathBuf,
        /// The event that should come next.
        expected: Seq,
    },
    /// The journal begins later than it is needed from.
    #[error("{} has no events before {oldest}, but {wanted} is needed", dir.display())]
    Removed {
        /// The folder.
        dir: PathBuf,
        /// The event that is needed.
        wanted: Seq,
        /// The first event there is.
        oldest: Seq,
    },
    /// The journal ends before an event that was committed.
    #[error("{} ends before event {wanted}, which was committed", dir.display())]
    EndsEarly {
        /// The folder.
        dir: PathBuf,
        /// The event that is missing.
        wanted: Seq,
    },
}

/// What is wrong with a damaged segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A frame is bad.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The segment's header is bad.
    #[error("this is no segment header")]
    Header,
    /// The segment's name is no number of an event.
    #[error("a segment is named by its first event, in 20 digits")]
    Name,
    /// The frame is good, but belongs elsewhere: the frame before is another.
    #[error("what begins here does not continue the frame before it")]
    Chain,
    /// The frame is of another shard.
    #[error("the frame belongs to shard {0}")]
    Shard(u32),
    /// The frame is of an older reign than the frame before.
    #[error("epoch {found} follows epoch {before}")]
    Epoch {
        /// The epoch of the frame.
        found: Epoch,
        /// The epoch of the frame before.
        before: Epoch,
    },
    /// The frame is good, but has an event that this version does not know.
    #[error("{0}")]
    Event(tmomi_engine::event::BadEvent),
    /// Bytes that are no frame stand where only zeros may.
    #[error("what stands there is no frame, and a good frame follows at byte {0}")]
    BeforeGood(u64),
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, reason: impl Into<Damage>) -> JournalError {
        JournalError::Damaged { file: file.to_owned(), offset, reason: reason.into() }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}
