//! The clock of a load.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tmomi_engine::ids::TimeMs;
use tmomi_persist::clock::Clock;

/// A clock that was started once.
#[derive(Clone, Copy, Debug)]
pub struct LoadClock {
    start: Instant,
    start_wall: Duration,
}

impl LoadClock {
    /// Starts it.
    #[allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]
    pub fn start() -> LoadClock {
        let start_wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        LoadClock { start: Instant::now(), start_wall }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Milliseconds since 1970, as the server counts them.
    pub fn now_ms(&self) -> u64 {
        (self.start_wall + self.elapsed()).as_millis() as u64
    }
}

impl Clock for LoadClock {
    fn now(&self) -> TimeMs {
        TimeMs(self.now_ms())
    }

    fn monotonic_ns(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }
}
