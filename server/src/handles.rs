//! Engine handles, lent to whoever decides. A decision never waits, so a few handles serve any
//! number of requests: as many as there are threads that decide at once.

use crossbeam::queue::ArrayQueue;
use tmomi_engine::{Engine, Handle};

/// Threads that may decide at a time. More than any machine runs of ours: the server's workers
/// and the threads for blocking work.
pub(crate) const HANDLES_MAX: usize = 64;
/// Looks for a free handle before a request is refused; each gives the processor away.
const LOOKS_MAX: usize = 1_000;
/// Looks for the last handles before somebody who waits for all of them gives up.
const SETTLE_LOOKS_MAX: usize = 1_000_000;
/// Handles that stay when somebody had all of them.
const IDLE_KEPT: usize = 8;

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

    /// Waits until every decision that runs now has ended: what is looked up while a decision has
    /// its handle is no older than this call. One at a time may wait. `false` if some decision
    /// does not end.
    pub(crate) fn settle(&self) -> bool {
        let idle = || self.idle.pop().or_else(|| self.engine.handle());
        let mut all = Vec::with_capacity(HANDLES_MAX);
        for _ in 0..SETTLE_LOOKS_MAX {
            match idle() {
                Some(handle) => all.push(handle),
                None => std::thread::yield_now(),
            }
            if all.len() == HANDLES_MAX {
                break;
            }
        }
        let settled = all.len() == HANDLES_MAX;
        // Those that nobody needed before need not stay.
        all.truncate(IDLE_KEPT);
        all.into_iter().for_each(|handle| drop(self.idle.push(handle)));
        settled
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
    use std::sync::atomic::{AtomicBool, Ordering};
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

    #[test]
    fn settling_waits_for_a_decision_that_runs() {
        let config = EngineConfig { handles_max: HANDLES_MAX, ..EngineConfig::default() };
        let (engine, _keeper) = Engine::new(config);
        let handles = Handles::new(engine);
        let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                handles.with(|_| {
                    begun.store(true, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    ended.store(true, Ordering::SeqCst);
                })
            });
            while !begun.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            assert!(handles.settle());
            assert!(ended.load(Ordering::SeqCst));
        });
        assert!(handles.with(|_| ()).is_some());
    }
}
