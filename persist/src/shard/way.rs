//! The way of a decision behind the ring: drain, commit, apply.
//!
//! The three share a thread because what is decided waits for all of them: every further thread on
//! the way costs a wake, which takes longer than they do. While the thread is in a sync nobody
//! drains; the ring is what gathers then.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tmomi_engine::event::Batch;
use tmomi_engine::ids::Seq;
use tmomi_engine::{Engine, Keeper};

use super::bell::Bell;
use crate::follower::Following;
use crate::log::{Committed, GROUP_EVENTS_MAX, GroupCommit, LogError, LogStatus};
use crate::watermark::Watermark;

/// How long a full disk, or brokers that are away, are left alone before they are tried again.
const STALLED_RETRY: Duration = Duration::from_millis(200);

/// What is on its way, and where to.
pub(super) struct Way {
    pub(super) engine: Engine,
    pub(super) keeper: Arc<Mutex<Keeper>>,
    pub(super) bell: Arc<Bell>,
    /// The last event that was drained.
    pub(super) drained: Seq,
    /// The last event that is still to be drained, once the bell says that the shard is closing.
    pub(super) until: Option<Seq>,
    pub(super) log: GroupCommit,
    /// Durable, and not yet in the image.
    pub(super) committed: Option<Committed>,
    pub(super) following: Following,
}

impl Way {
    /// Gives some of what was decided to the log; `false` if there was nothing, or the log has not
    /// committed what it was given before.
    pub(super) fn drain(&mut self) -> bool {
        if !self.log.is_free() {
            return false;
        }
        let mut batch = Batch::default();
        self.keeper.lock().drain(&mut batch, GROUP_EVENTS_MAX);
        let Some(last) = batch.last_seq() else { return false };
        self.drained = last;
        self.log.put(batch);
        true
    }

    /// Commits what the log was given; `false` if there was nothing, the log has no room or has
    /// failed, or the image does not have the commit before. Waits for the disk.
    pub(super) fn commit(&mut self) -> bool {
        if self.committed.is_some() {
            return false;
        }
        self.committed = self.log.step();
        self.committed.is_some()
    }

    /// Applies a commit to the image; `false` if there was none.
    pub(super) fn follow(&mut self) -> bool {
        let Some(committed) = self.committed.take() else { return false };
        if !self.following.apply(committed) {
            self.status().fail(LogError::Fatal("an event contradicted the image".into()));
        }
        true
    }

    /// Goes it until nothing more can be done: the bell says that the shard is closing, or the log
    /// fails.
    ///
    /// # Errors
    ///
    /// [`LogError`] if something that was decided is not committed.
    pub(super) fn go(mut self) -> Result<(), LogError> {
        let _end = End(Arc::clone(self.status()), Arc::clone(&self.following.live.watermark));
        while !self.is_over() {
            let is_busy = self.drain() | self.commit() | self.follow();
            if !is_busy && !self.status().is_failed() {
                let retry = self.status().is_stalled().then_some(STALLED_RETRY);
                self.bell.sleep(&self.engine, retry);
            }
        }
        self.finish()
    }

    /// Has a thread of its own go it.
    pub(super) fn spawn(self) -> io::Result<JoinHandle<Result<(), LogError>>> {
        let bell = Arc::clone(&self.bell);
        let thread = thread::Builder::new().name("shard".into()).spawn(|| self.go())?;
        bell.belongs_to(thread.thread());
        Ok(thread)
    }

    pub(super) fn status(&self) -> &Arc<LogStatus> {
        self.log.status()
    }

    /// Whether nothing more is to be done, or can be.
    fn is_over(&mut self) -> bool {
        if self.until.is_none() && self.bell.is_closing() {
            self.until = Some(self.engine.claimed());
            // What stalled is tried once more.
            let _ = self.commit() && self.follow();
        }
        let Some(until) = self.until else { return self.status().is_failed() };
        // A log that has stalled is not waited for.
        let hopeless = !self.status().is_accepting();
        hopeless || self.drained >= until && self.log.is_free() && self.committed.is_none()
    }

    fn finish(mut self) -> Result<(), LogError> {
        if self.status().is_accepting() {
            self.log.seal();
        }
        if !self.following.live.has_diverged() {
            self.following.finish();
        }
        self.log.status().error().map_or(Ok(()), Err)
    }
}

/// However the thread ends: whoever waits for more waits in vain, and a panic does not look like a
/// log that is merely slow.
struct End(Arc<LogStatus>, Arc<Watermark>);

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(LogError::Fatal("the shard's thread panicked".into()));
        }
        self.1.fail();
    }
}
