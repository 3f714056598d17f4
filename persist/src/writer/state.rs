//! What others see of a writer.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tmomi_engine::ids::Seq;

use super::WriterError;

/// How a writer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It writes, or waits for events.
    #[default]
    Running,
    /// Log or database are away; it tries again.
    Waiting(String),
    /// It was asked to stop.
    Stopped,
    /// It left, and somebody must look.
    Failed(WriterError),
}

/// What others see of a writer, for metrics and for keeping the log as long as it is needed.
#[derive(Debug, Default)]
pub struct WriterState {
    pub(super) position: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) status: Mutex<Status>,
}

impl WriterState {
    /// The last event that the rows stand for.
    pub fn position(&self) -> Seq {
        // The rows are in the database, not in this memory: nothing else to be ordered with.
        Seq(self.position.load(Ordering::Relaxed))
    }

    /// Rows written so far by this process.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }
}
