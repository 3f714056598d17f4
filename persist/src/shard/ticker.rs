//! The thread that lets time pass: apart from the way of the decisions, so that deadlines are kept
//! while that waits for the disk.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tmomi_engine::ids::TimeMs;
use tmomi_engine::{Engine, Keeper};

use super::bell::Bell;
use crate::clock::Clock;
use crate::log::{LogError, LogStatus};

/// Time passes in steps of this, in ms. Deadlines are kept within 10 ms: twice this and the tick of
/// the engine's wheel fit into it.
const TICK_MS: u64 = 3;

pub(super) struct Ticker {
    pub(super) engine: Engine,
    pub(super) keeper: Arc<Mutex<Keeper>>,
    pub(super) clock: Arc<dyn Clock>,
    /// At first, when the shard was opened.
    pub(super) ticked_at: TimeMs,
}

impl Ticker {
    /// Lets time pass, if some has.
    pub(super) fn step(&mut self) {
        let now = self.clock.now();
        if now.since_ms(self.ticked_at) >= TICK_MS {
            self.keeper.lock().tick(now);
            self.ticked_at = now;
        }
    }

    /// Has a thread of its own tick until the shard is being closed or its log has failed, and ring
    /// for what came of it.
    pub(super) fn spawn(
        mut self,
        bell: Arc<Bell>,
        log: Arc<LogStatus>,
    ) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("keeper".into()).spawn(move || {
            let _end = End { bell: Arc::clone(&bell), log: Arc::clone(&log) };
            while !bell.is_closing() && !log.is_failed() {
                self.step();
                // Also for whoever has decided something and not rung.
                if self.engine.ring_depth() > 0 {
                    bell.ring();
                }
                thread::sleep(Duration::from_millis(TICK_MS));
            }
        })
    }
}

/// A shard in which no time passes is of no use.
struct End {
    bell: Arc<Bell>,
    log: Arc<LogStatus>,
}

impl Drop for End {
    fn drop(&mut self) {
        if thread::panicking() {
            self.log.fail(LogError::Fatal("the keeper's thread panicked".into()));
            self.bell.wake();
        }
    }
}
