//! A log as those read it who do not write it: recovery, snapshots, the audit trail, whoever
//! compares rows with it.

use std::path::PathBuf;

use tmomi_engine::ids::Seq;

use crate::frame::Frame;
use crate::journal::{JournalError, Reader};
#[cfg(feature = "kafka")]
use crate::kafka::{KafkaError, TopicFault};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The topic.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl HistoryError {
    /// The first event that the log still has, if it begins later than it was to be read from.
    pub fn oldest(&self) -> Option<Seq> {
        match self {
            HistoryError::Journal(JournalError::Removed { oldest, .. }) => Some(*oldest),
            #[cfg(feature = "kafka")]
            HistoryError::Kafka(KafkaError::Topic {
                fault: TopicFault::Removed { oldest, .. },
                ..
            }) => Some(*oldest),
            _ => None,
        }
    }

    /// Whether the log does not answer just now and may later.
    pub fn may_pass(&self) -> bool {
        match self {
            HistoryError::Journal(_) => false,
            #[cfg(feature = "kafka")]
            HistoryError::Kafka(error) => error.may_pass(),
        }
    }
}

/// The committed events of a shard, which may be read from several places at a time.
pub trait History: Send + Sync {
    /// Begins with the event after `after`.
    ///
    /// # Errors
    ///
    /// [`HistoryError`], also if the log begins later.
    fn after(&self, after: Seq) -> Result<Box<dyn Frames>, HistoryError>;
}

/// Committed frames, in order.
pub trait Frames {
    /// The next frame, if its events are at or below `committed`, the highest number that the log
    /// has committed. `None` means: nothing new, ask again when more is committed.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] if the log is damaged, or ends although more is committed.
    fn read_to(&mut self, committed: Seq) -> Result<Option<Frame>, HistoryError>;
}

/// The history of a journal in a folder.
#[derive(Clone, Debug)]
pub struct JournalHistory(pub PathBuf);

impl History for JournalHistory {
    fn after(&self, after: Seq) -> Result<Box<dyn Frames>, HistoryError> {
        Ok(Box::new(Reader::open(&self.0, after)?))
    }
}

impl Frames for Reader {
    fn read_to(&mut self, committed: Seq) -> Result<Option<Frame>, HistoryError> {
        Ok(Reader::read_to(self, committed)?)
    }
}
