//! What others see of a publisher.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tmomi_engine::ids::Seq;

/// How a publisher is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PublisherStatus {
    /// It publishes, or waits for events.
    Running,
    /// The brokers do not answer, or have not yet; it tries again.
    Waiting(String),
    /// It was asked to stop.
    Stopped,
    /// It left, and somebody must look.
    Failed(String),
    /// It has not asked the brokers yet.
    #[default]
    Starting,
}

/// One record that every replica in sync has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSample {
    /// Its events.
    pub events: usize,
    /// Its bytes.
    pub bytes: usize,
    /// From given to the producer to acknowledged, in ns.
    pub took_ns: u64,
}

/// What others see of a publisher.
#[derive(Debug, Default)]
pub struct PublisherState {
    published: AtomicU64,
    status: Mutex<PublisherStatus>,
}

impl PublisherState {
    /// The last event that the topic is known to have.
    pub fn published(&self) -> Seq {
        // Relaxed: the event is in the topic, not in this memory.
        Seq(self.published.load(Ordering::Relaxed))
    }

    /// How it is doing.
    pub fn status(&self) -> PublisherStatus {
        self.status.lock().clone()
    }

    pub(super) fn reached(&self, seq: Seq) {
        self.published.fetch_max(seq.0, Ordering::Relaxed);
    }

    pub(super) fn set(&self, status: PublisherStatus) {
        *self.status.lock() = status;
    }
}
