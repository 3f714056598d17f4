//! What the threads of a shard do, as stages that are stepped: by a thread each, or by a
//! simulation that says whose turn it is.

use std::io;
use std::thread::{self, JoinHandle};

use super::pump::{Passed, Pump};
use crate::follower::{Follower, Following, Snapshotter};
use crate::log::{Committing, GroupCommit, LogError, Worker};

/// The stages of a shard that was opened with
/// [`open_stepped`](super::Shard::open_stepped). No step waits.
pub struct Stages {
    pub(super) pump: Pump,
    pub(super) worker: Worker,
    pub(super) following: Following,
}

impl Stages {
    /// Lets time pass, and passes some of what was decided to the log; `false` if there was
    /// nothing, or no room in the log's queue.
    pub fn pump(&mut self) -> bool {
        self.pump.step() == Passed::Some
    }

    /// Commits what was passed on; `false` if there was nothing, the log has no room or has
    /// failed, or the follower is too far behind.
    pub fn commit(&mut self) -> bool {
        let free = !self.following.committed.is_full();
        free && self.worker.step() == Committing::Done
    }

    /// Applies a commit to the image; `false` if there was none.
    pub fn follow(&mut self) -> bool {
        self.following.step()
    }

    /// Writes the snapshot that is due; `false` if none is.
    pub fn snapshot(&mut self) -> bool {
        self.following.snapshotter.as_ref().is_some_and(Snapshotter::step)
    }

    /// Ends the shard in order, as [`Shard::close`](super::Shard::close) does.
    ///
    /// # Errors
    ///
    /// [`LogError`] if something that was decided is not committed.
    pub fn close(mut self) -> Result<(), LogError> {
        self.pump.bell.close();
        let status = self.worker.status();
        // After a contradiction nothing is taken from the queues any more.
        while !self.following.live.has_diverged() && self.pump.step() != Passed::End {
            while self.commit() || self.follow() {}
        }
        while self.commit() || self.follow() {}
        if status.is_accepting() {
            self.worker.seal();
        }
        if !self.following.live.has_diverged() {
            self.following.finish();
        }
        status.error().map_or(Ok(()), Err)
    }

    /// A thread for each stage.
    pub(super) fn spawn(self) -> io::Result<Threads> {
        let Stages { pump, worker, mut following } = self;
        following.snapshotter = following.snapshotter.map(Snapshotter::spawn).transpose()?;
        let follower = Follower::spawn(following)?;
        let commit = GroupCommit::spawn(worker)?;
        let pump = thread::Builder::new().name("keeper".into()).spawn(|| pump.run())?;
        Ok(Threads { pump, commit, follower })
    }
}

/// The threads of a shard.
pub(super) struct Threads {
    pump: JoinHandle<()>,
    commit: GroupCommit,
    follower: Follower,
}

impl Threads {
    /// Waits for the end of each; the bell says that the shard is closing.
    pub(super) fn join(self) -> Result<(), LogError> {
        let drained = self.pump.join();
        let committed = self.commit.close();
        self.follower.join();
        drained.map_err(|_| LogError::Fatal("the keeper's thread panicked".into()))?;
        committed
    }
}
