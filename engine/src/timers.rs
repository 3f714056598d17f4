//! The keeper's timers: one a hold record and one an admitted entry, however often either is used.
//!
//! A timer says when to look, not what to do: whoever gets it looks at the word of the hold or of
//! the entry and sets the timer again if it came too early. So a hold that is released and made
//! again finds the timer of the one before still set: as long as holds last equally long, there is
//! one timer a record. One that an earlier one overtook stays in the wheel until its time.

use std::collections::{HashMap, VecDeque};

use crate::ids::{EntryId, HoldSlot, TimeMs};
use crate::wheel::Wheel;

/// What is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    Hold(HoldSlot),
    Session { house: u32, entry: EntryId },
}

/// No timer is set.
const UNSET: TimeMs = TimeMs(0);
/// It is among the late ones and will be looked at anyway.
const LATE: TimeMs = TimeMs(1);

pub(crate) struct Timers {
    wheel: Wheel<Timer>,
    /// For when each record's timer is set.
    holds: Vec<TimeMs>,
    sessions: HashMap<(u32, EntryId), TimeMs>,
    /// Those that fired and were not taken yet.
    late: VecDeque<(TimeMs, Timer)>,
}

impl Timers {
    pub(crate) fn new(now: TimeMs) -> Timers {
        let (holds, sessions, late) = (Vec::new(), HashMap::new(), VecDeque::new());
        Timers { wheel: Wheel::new(now), holds, sessions, late }
    }

    /// Looks at `timer` at `due` or before.
    pub(crate) fn set(&mut self, now: TimeMs, due: TimeMs, timer: Timer) {
        let set = self.set_for(timer);
        if *set == UNSET || due < *set {
            *set = due;
            self.wheel.set(now, due, timer);
        }
    }

    /// Looks at it again, after all others that are late.
    pub(crate) fn set_late(&mut self, timer: Timer) {
        *self.set_for(timer) = LATE;
        self.late.push_back((LATE, timer));
    }

    fn set_for(&mut self, timer: Timer) -> &mut TimeMs {
        match timer {
            Timer::Hold(slot) => {
                let slot = slot.0 as usize;
                if slot >= self.holds.len() {
                    self.holds.resize((slot + 1).next_power_of_two(), UNSET);
                }
                &mut self.holds[slot]
            }
            Timer::Session { house, entry } => self.sessions.entry((house, entry)).or_insert(UNSET),
        }
    }

    /// Lets the time be `now`, and says how many timers wait to be taken.
    pub(crate) fn advance(&mut self, now: TimeMs) -> usize {
        let late = &mut self.late;
        self.wheel.advance(now, |due, timer| late.push_back((due, timer)));
        self.late.len()
    }

    /// Takes a timer that fired; `None` if it was set for another time since.
    pub(crate) fn take(&mut self) -> Option<Timer> {
        let (due, timer) = self.late.pop_front()?;
        if *self.set_for(timer) != due {
            return None;
        }
        match timer {
            Timer::Hold(slot) => self.holds[slot.0 as usize] = UNSET,
            Timer::Session { house, entry } => {
                self.sessions.remove(&(house, entry));
            }
        }
        Some(timer)
    }

    /// Whether all that fired are taken.
    pub(crate) fn none_late(&self) -> bool {
        self.late.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn hold(slot: u32) -> Timer {
        Timer::Hold(HoldSlot(slot))
    }

    fn due_at(timers: &mut Timers, now: u64) -> Vec<Timer> {
        let due = timers.advance(TimeMs(now));
        (0..due).filter_map(|_| timers.take()).collect()
    }

    #[test]
    fn a_record_has_one_timer_and_the_earliest() {
        let mut timers = Timers::new(TimeMs(1_000));
        for due in [5_000, 9_000, 3_000, 7_000] {
            timers.set(TimeMs(1_000), TimeMs(due), hold(7));
        }
        assert_eq!(due_at(&mut timers, 2_900), []);
        assert_eq!(due_at(&mut timers, 3_010), [hold(7)]);
        timers.set(TimeMs(3_010), TimeMs(9_000), hold(7));
        // The one for 5,000 was set before and means nothing any more.
        assert_eq!(due_at(&mut timers, 8_000), []);
        assert_eq!(due_at(&mut timers, 9_010), [hold(7)]);
        assert_eq!(due_at(&mut timers, 90_000), []);
    }

    #[test]
    fn one_that_is_late_is_looked_at_once() {
        let mut timers = Timers::new(TimeMs(1_000));
        let session = Timer::Session { house: 2, entry: EntryId(3) };
        timers.set_late(session);
        timers.set(TimeMs(1_000), TimeMs(1_500), session);
        assert!(!timers.none_late());
        assert_eq!(due_at(&mut timers, 1_000), [session]);
        assert_eq!(due_at(&mut timers, 9_000), []);
        assert!(timers.none_late() && timers.sessions.is_empty());
    }
}
