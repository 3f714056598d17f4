//! The one clock of the process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tmomi_engine::ids::TimeMs;

/// The wall clock as it stood at the start, carried on by the monotonic clock: a system clock
/// that is set by an hour neither expires a hold early nor keeps one for ever, and no time is
/// before an earlier one.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
    started_wall: Duration,
}

impl SystemClock {
    /// Reads the wall clock, once.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> SystemClock {
        let started_wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        SystemClock { started: Instant::now(), started_wall }
    }

    /// Milliseconds since 1970.
    pub fn now(&self) -> TimeMs {
        TimeMs((self.started_wall + self.since_start()).as_millis() as u64)
    }

    /// How long the process has run: for durations and time-outs.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn since_start(&self) -> Duration {
        Instant::now() - self.started
    }
}

impl tmomi_persist::clock::Clock for SystemClock {
    fn now(&self) -> TimeMs {
        SystemClock::now(self)
    }

    fn monotonic_ns(&self) -> u64 {
        self.since_start().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_after_1970_and_does_not_go_back() {
        let clock = SystemClock::start();
        let first = clock.now();
        assert!(first.0 > 1_700_000_000_000);
        assert!(clock.now() >= first);
    }
}
