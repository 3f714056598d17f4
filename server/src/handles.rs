//! Engine handles, lent to whoever decides. A decision never waits, so a few handles serve any
//! number of requests: as many as there are threads that decide at once.

use crossbeam::queue::ArrayQueue;
use tmomi_engine::{Engine, Handle};

/// Threads that may decide at a time. More than any machine runs of ours: the server's workers
/// and the threads for blocking work.
pub(crate) const HANDLES_MAX: usize = 64;
/// Looks for a free handle before a request is refused; each gives the processor away.
const LOOKS_MAX: usize = 1_000;

/// The pool.
pub(crate) struct Handles {
    engine: Engine,
    idle: ArrayQueue<Handle>,
}

impl Handles {
    /// Handles of `engine`, made when they are needed.
    pub(crate) fn new(engine: Engine) -> Handles {
        Handles { engine, idle: ArrayQueue::new(HANDLES_MAX) }
    }

    /// Decides with a handle. `None` if all of them are in use and none comes back soon: nothing
    /// was decided then.
    pub(crate) fn with<T>(&self, decide: impl FnOnce(&mut Handle) -> T) -> Option<T> {
        let mut handle = self.take()?;
        let decided = decide(&mut handle);
        // There is room for every handle that exists; one that panicked is dropped and made anew.
        let _ = self.idle.push(handle);
        Some(decided)
    }

    fn take(&self) -> Option<Handle> {
        for _ in 0..LOOKS_MAX {
            if let Some(handle) = self.idle.pop().or_else(|| self.engine.handle()) {
                return Some(handle);
            }
            std::thread::yield_now();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::EngineConfig;

    #[test]
    fn a_handle_comes_back() {
        let (engine, _keeper) = Engine::new(EngineConfig::default());
        let handles = Handles::new(engine);
        for _ in 0..HANDLES_MAX * 3 {
            assert!(handles.with(|_| ()).is_some());
        }
        assert_eq!(handles.idle.len(), 1);
    }
}
