//! What others see of a writer.

use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use parking_lot::Mutex;
use tmomi_engine::ids::{Seq, TimeMs};

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
    rows: AtomicU64,
    transactions: AtomicU64,
    busy_us: AtomicU64,
    last_time_ms: AtomicU64,
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

    /// Transactions so far, and how long all of them together took.
    pub fn transactions(&self) -> (u64, Duration) {
        let busy = Duration::from_micros(self.busy_us.load(Ordering::Relaxed));
        (self.transactions.load(Ordering::Relaxed), busy)
    }

    /// When the last event was decided that this process has written; 0 before.
    pub fn last_time(&self) -> TimeMs {
        TimeMs(self.last_time_ms.load(Ordering::Relaxed))
    }

    pub(super) fn wrote(&self, rows: usize, took: Duration, last: TimeMs) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.busy_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.last_time_ms.store(last.0, Ordering::Relaxed);
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }
}
