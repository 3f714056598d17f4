//! The publisher: the journal is the log, and a topic gets all of it, for whoever reads there.
//!
//! ```text
//! journal --> committed frames --> producer --> topic
//!                  ^                              |
//!                  +---- where the topic ends <---+  at the start, and after every fault
//! ```
//!
//! It keeps no position of its own: the last record of the partition says where the topic ends, and
//! the journal must have the same events there. A frame that was on its way when a publisher died
//! may come twice; it is the same frame, so whoever checks numbers leaves it out.

mod session;
mod state;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tmomi_engine::ids::Seq;

use super::config::KafkaConfig;
use super::error::KafkaError;
use crate::clock::Clock;
use crate::journal::JournalError;
pub use state::{PublishedSample, PublisherState, PublisherStatus};

/// The first and the longest wait when the brokers are away, in ms.
const BACKOFF_MS_MIN: u64 = 100;
const BACKOFF_MS_MAX: u64 = 5_000;
/// How often a wait looks whether it is to end, in ms.
const LOOK_MS: u64 = 20;

/// What is published, and where to.
pub struct PublisherConfig {
    /// The topic.
    pub kafka: KafkaConfig,
    /// The shard, which is the partition.
    pub shard: u32,
    /// The folder of its journal.
    pub journal: PathBuf,
    /// The last event that is committed: never a number that a crash can take back.
    pub committed: Box<dyn Fn() -> Seq + Send>,
    /// Called with the first event that the publisher may still need: the journal keeps it.
    pub needed: Box<dyn Fn(Seq) + Send>,
    /// Called after each record that was acknowledged, in the publisher's thread.
    pub hook: Box<dyn FnMut(&PublishedSample) + Send>,
    /// For durations.
    pub clock: Arc<dyn Clock>,
}

/// Why a publisher did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl PublishError {
    fn may_pass(&self) -> bool {
        match self {
            PublishError::Kafka(error) => error.may_pass(),
            PublishError::Journal(error) => matches!(error, JournalError::Io { .. }),
        }
    }
}

/// A running publisher. Dropped, it stops.
#[derive(Debug)]
pub struct Publisher {
    state: Arc<PublisherState>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Starts a publisher on a thread of its own. The brokers may be away: then it waits.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn spawn(config: PublisherConfig) -> io::Result<Publisher> {
        let (state, stop) = (Arc::<PublisherState>::default(), Arc::<AtomicBool>::default());
        let (of_thread, until) = (Arc::clone(&state), Arc::clone(&stop));
        let body = move || {
            let _guard = FailOnPanic(Arc::clone(&of_thread));
            run(config, &of_thread, &until);
        };
        let thread = thread::Builder::new().name("publisher".into()).spawn(body)?;
        Ok(Publisher { state, stop, thread: Some(thread) })
    }

    /// What can be seen of it.
    pub fn state(&self) -> &Arc<PublisherState> {
        &self.state
    }

    /// Stops it and waits until it is gone: some seconds if the brokers are away. What is not
    /// published then is published after the next start.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Relaxed: the flag guards no other data.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the publisher panicked");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.end();
    }
}

/// Publishes until it is told to stop, or somebody must look.
fn run(mut config: PublisherConfig, state: &PublisherState, stop: &AtomicBool) {
    let mut backoff_ms = BACKOFF_MS_MIN;
    loop {
        let before = state.published();
        let Err(error) = session::publish(&mut config, state, stop) else {
            return state.set(PublisherStatus::Stopped);
        };
        if !error.may_pass() {
            tracing::error!(%error, "the publisher leaves; sales go on");
            return state.set(PublisherStatus::Failed(error.to_string()));
        }
        if state.published() > before {
            backoff_ms = BACKOFF_MS_MIN;
        }
        if !matches!(state.status(), PublisherStatus::Waiting(_)) {
            tracing::warn!(%error, "the publisher waits; sales go on");
        }
        state.set(PublisherStatus::Waiting(error.to_string()));
        for _ in 0..backoff_ms / LOOK_MS {
            if stop.load(Ordering::Relaxed) {
                return state.set(PublisherStatus::Stopped);
            }
            thread::sleep(Duration::from_millis(LOOK_MS));
        }
        backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
    }
}

/// A panic must not look like a publisher that is at work.
struct FailOnPanic(Arc<PublisherState>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set(PublisherStatus::Failed("the publisher panicked".to_owned()));
        }
    }
}
