//! What the threads of a shard do, as stages that are stepped: by its threads, or by a simulation
//! that says whose turn it is.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::ticker::Ticker;
use super::way::Way;
use crate::follower::Snapshotter;
use crate::log::LogError;

/// The stages of a shard that was opened with
/// [`open_stepped`](super::Shard::open_stepped). No step waits but for the disk.
pub struct Stages {
    pub(super) ticker: Ticker,
    pub(super) way: Way,
}

impl Stages {
    /// Lets time pass, and gives some of what was decided to the log; `false` if there was
    /// nothing, or the log has not committed what it was given before.
    pub fn pump(&mut self) -> bool {
        self.ticker.step();
        self.way.drain()
    }

    /// Commits what the log was given; `false` if there was nothing, the log has no room or has
    /// failed, or the image does not have the commit before.
    pub fn commit(&mut self) -> bool {
        self.way.commit()
    }

    /// Applies a commit to the image; `false` if there was none.
    pub fn follow(&mut self) -> bool {
        self.way.follow()
    }

    /// Writes the snapshot that is due; `false` if none is.
    pub fn snapshot(&mut self) -> bool {
        self.way.following.snapshotter.as_ref().is_some_and(Snapshotter::step)
    }

    /// Ends the shard in order, as [`Shard::close`](super::Shard::close) does.
    ///
    /// # Errors
    ///
    /// [`LogError`] if something that was decided is not committed.
    pub fn close(self) -> Result<(), LogError> {
        self.way.bell.close();
        self.way.go()
    }

    /// A thread for the time, one for the way of the decisions, one for snapshots.
    pub(super) fn spawn(self) -> io::Result<Threads> {
        let Stages { ticker, mut way } = self;
        way.following.snapshotter =
            way.following.snapshotter.map(Snapshotter::spawn).transpose()?;
        let (bell, status) = (Arc::clone(&way.bell), Arc::clone(way.status()));
        let way = way.spawn()?;
        match ticker.spawn(Arc::clone(&bell), status) {
            Ok(keeper) => Ok(Threads { keeper, way }),
            Err(error) => {
                bell.close();
                // Nothing was decided.
                let _ = way.join();
                Err(error)
            }
        }
    }
}

/// The threads of a shard.
pub(super) struct Threads {
    keeper: JoinHandle<()>,
    way: JoinHandle<Result<(), LogError>>,
}

impl Threads {
    /// Waits for their end; the bell says that the shard is closing.
    pub(super) fn join(self) -> Result<(), LogError> {
        let panicked = |_| Err(LogError::Fatal("the shard's thread panicked".into()));
        let ended = self.way.join().unwrap_or_else(panicked);
        let ticked = self.keeper.join();
        ticked.map_err(|_| LogError::Fatal("the keeper's thread panicked".into()))?;
        ended
    }
}
