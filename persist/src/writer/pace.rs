//! How much goes into a transaction: as much as the database takes in a certain time.

use std::time::Duration;

/// Events of a transaction at first, and at least.
const EVENTS_FIRST: usize = 4_096;
const EVENTS_MIN: usize = 256;
/// How long a transaction may take before the next is smaller. Others wait for its locks, and a
/// crash repeats it.
const TOOK_MAX: Duration = Duration::from_millis(400);

/// The size of the next transaction.
#[derive(Debug)]
pub(super) struct Pace {
    events: usize,
    events_max: usize,
}

impl Pace {
    /// Up to `events_max` events.
    pub(super) fn new(events_max: usize) -> Pace {
        Pace { events: EVENTS_FIRST.min(events_max), events_max }
    }

    /// Events that the next transaction may have.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// A transaction of so many events took so long.
    pub(super) fn took(&mut self, events: usize, took: Duration) {
        if took > TOOK_MAX {
            self.lower();
        } else if events >= self.events && took < TOOK_MAX / 2 {
            self.events = (self.events * 2).min(self.events_max);
        }
    }

    /// A transaction failed: perhaps it was too large.
    pub(super) fn failed(&mut self) {
        self.lower();
    }

    fn lower(&mut self) {
        self.events = (self.events / 2).max(EVENTS_MIN.min(self.events_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let mut pace = Pace::new(20_000);
        let quick = Duration::from_millis(10);
        pace.took(100, quick);
        assert_eq!(pace.events(), 4_096, "there was no more");
        for expected in [8_192, 16_384, 20_000, 20_000] {
            pace.took(pace.events(), quick);
            assert_eq!(pace.events(), expected);
        }
        pace.took(20_000, Duration::from_millis(300));
        assert_eq!(pace.events(), 20_000);
        pace.took(20_000, Duration::from_secs(1));
        assert_eq!(pace.events(), 10_000);
        (0..20).for_each(|_| pace.failed());
        assert_eq!((pace.events(), Pace::new(1).events()), (256, 1));
        let mut one = Pace::new(1);
        one.failed();
        assert_eq!(one.events(), 1);
    }
}
