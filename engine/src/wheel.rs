//! A timing wheel: timers that are cheap to set and never searched for.
//!
//! Three levels of 256 slots; a slot of the first is [`TICK_MS`] wide, a slot of the next as
//! wide as the whole level before. A timer is put where its due time falls and moves down a
//! level when its slot comes up, so each is touched at most three times. Nothing is cancelled:
//! whoever gets a timer looks whether it still means something. (Varghese and Lauck 1987,
//! scheme 7.)

use crate::ids::TimeMs;

/// Timers fire at the end of the tick they are due in, so this much late at most.
const TICK_MS: u64 = 2;
const SLOTS: u64 = 256;
const LEVELS: usize = 3;
/// Ticks that the wheel reaches; a timer further away waits in the last slot and is put again.
const REACH: u64 = SLOTS * SLOTS * SLOTS;

pub(crate) struct Wheel<T> {
    /// Slot `s` of level `l` at `l * SLOTS + s`.
    slots: Vec<Vec<(TimeMs, T)>>,
    /// Ticks before this one have fired.
    tick: u64,
    len: usize,
}

impl<T> Wheel<T> {
    /// A wheel that stands at `now`.
    pub(crate) fn new(now: TimeMs) -> Wheel<T> {
        let slots = (0..LEVELS as u64 * SLOTS).map(|_| Vec::new()).collect();
        Wheel { slots, tick: now.0 / TICK_MS, len: 0 }
    }

    /// Sets a timer at `now`. One that is due already fires with the next `advance`.
    pub(crate) fn set(&mut self, now: TimeMs, due: TimeMs, timer: T) {
        if self.len == 0 {
            // Nothing to fire on the way, so the wheel need not turn through it.
            self.tick = self.tick.max(now.0 / TICK_MS);
        }
        self.len += 1;
        self.put(due, timer);
    }

    fn put(&mut self, due: TimeMs, timer: T) {
        let tick = due.0.div_ceil(TICK_MS).clamp(self.tick, self.tick + REACH - 1);
        let ahead = tick - self.tick;
        let (level, slot) = match ahead {
            0..SLOTS => (0, tick),
            _ if ahead < SLOTS * SLOTS => (1, tick / SLOTS),
            _ => (2, tick / (SLOTS * SLOTS)),
        };
        self.slots[level * SLOTS as usize + (slot % SLOTS) as usize].push((due, timer));
    }

    /// Gives every timer that is due at `now` to `fire`.
    pub(crate) fn advance(&mut self, now: TimeMs, mut fire: impl FnMut(TimeMs, T)) {
        let last = now.0 / TICK_MS;
        while self.len > 0 && self.tick <= last {
            if self.tick.is_multiple_of(SLOTS) {
                self.cascade();
            }
            let slot = (self.tick % SLOTS) as usize;
            let mut due = std::mem::take(&mut self.slots[slot]);
            self.tick += 1;
            self.len -= due.len();
            due.drain(..).for_each(|(due, timer)| fire(due, timer));
            // Keeps the memory of the slot.
            self.slots[slot] = due;
        }
        if self.len == 0 {
            // Nothing is on the way, so the wheel need not turn through it.
            self.tick = self.tick.max(last + 1);
        }
    }

    /// Moves down what the coming round of the first level, and of the second, is to fire.
    fn cascade(&mut self) {
        if self.tick.is_multiple_of(SLOTS * SLOTS) {
            self.move_down(2, self.tick / (SLOTS * SLOTS));
        }
        self.move_down(1, self.tick / SLOTS);
    }

    fn move_down(&mut self, level: usize, slot: u64) {
        let slot = level * SLOTS as usize + (slot % SLOTS) as usize;
        for (due, timer) in std::mem::take(&mut self.slots[slot]) {
            self.put(due, timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_fires_once_and_within_a_tick() {
        let mut wheel = Wheel::new(TimeMs(1_000_001));
        let dues: Vec<u64> = (0..4_000).map(|n| 1_000_000 + n * n * 3).collect();
        for due in &dues {
            wheel.set(TimeMs(1_000_001), TimeMs(*due), *due);
        }
        let mut fired = Vec::new();
        let mut now = 1_000_000;
        while wheel.len > 0 {
            wheel.advance(TimeMs(now), |due, timer| {
                assert_eq!(due, TimeMs(timer));
                // The step of this test, and a tick.
                assert!(timer <= now && now < timer.max(1_000_001) + 7 + 2 * TICK_MS);
                fired.push(timer);
            });
            now += 7;
        }
        fired.sort_unstable();
        assert_eq!(fired, dues);
    }

    #[test]
    fn a_timer_beyond_the_reach_is_not_early() {
        let mut wheel = Wheel::new(TimeMs(0));
        let due = TimeMs(REACH * TICK_MS * 3 + 5);
        wheel.set(TimeMs(0), due, ());
        let mut fired_at = None;
        for now in (0..due.0 + 2_000).step_by(1_000).map(TimeMs) {
            wheel.advance(now, |_, ()| fired_at = Some(now));
        }
        assert!(fired_at.is_some_and(|at| at >= due));
    }
}
