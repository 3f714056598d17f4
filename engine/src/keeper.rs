//! The keeper: the one thread of a shard that reads the ring and lets time pass.
//!
//! It drains decisions for the log, sets a timer for each deadline it reads, ends holds and
//! sessions whose time is over, and walks along the line. It never waits for another thread:
//! what it cannot do now, because somebody owns the word or the ring is full, it tries again
//! with the next tick.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::emit::Decision;
use crate::engine::Engine;
use crate::event::{Batch, Body, Event, LeaveReason, LineMode, LineSettings};
use crate::handle::{Expiry, Handle};
use crate::house::House;
use crate::ids::{EntryId, HoldId, LineNumber, TimeMs};
use crate::line::{AtNumber, Stand};
use crate::ring::{Ring, RingReader};
use crate::state::{Place, ShardState};
use crate::wheel::Wheel;

/// One admission, in the unit of a line's credit: a rate of `r` in 1,000 s brings `r` a ms.
const ADMISSION_CREDIT: u64 = 1_000_000;
/// A line that could not admit saves up what this many ms bring, but at least one admission.
const CREDIT_MS_MAX: u64 = 100;

#[derive(Clone, Copy, Debug)]
enum Timer {
    Hold(HoldId),
    Session { house: u32, entry: EntryId, until: TimeMs },
}

/// See the module.
pub struct Keeper {
    engine: Engine,
    handle: Handle,
    reader: RingReader,
    wheel: Wheel<Timer>,
    /// Timers that fired and could not be dealt with yet.
    late: Vec<Timer>,
    desks: Vec<Desk>,
}

/// The admission to one house.
struct Desk {
    house: Arc<House>,
    /// The next number to look at; every one below was admitted, passed over or given up.
    head: LineNumber,
    /// Passed over and back.
    back: BTreeSet<LineNumber>,
    credit: u64,
    credited_at: TimeMs,
}

/// What became of the number the desk looked at.
enum Step {
    /// Go on with the next.
    Next,
    /// Try again with the next tick.
    Wait,
}

impl Keeper {
    pub(crate) fn new(
        engine: Engine,
        reader: RingReader,
        state: &ShardState,
        now: TimeMs,
    ) -> Keeper {
        let handle = Handle::new(Arc::clone(&engine.shared));
        let (wheel, late, desks) = (Wheel::new(now), Vec::new(), Vec::new());
        let mut keeper = Keeper { engine, handle, reader, wheel, late, desks };
        for hold in state.holds.iter().filter(|hold| !hold.confirmed) {
            keeper.wheel.set(now, hold.deadline, Timer::Hold(hold.id));
        }
        for (house, showtime) in state.showtimes.iter().enumerate() {
            let house = house as u32;
            keeper.desks.push(Desk::new(Arc::clone(keeper.engine.shared.house(house)), now));
            for (entry, about) in showtime.entries.iter().enumerate() {
                if about.place == Place::Admitted {
                    let (entry, until) = (EntryId(entry as u32), about.session_until);
                    keeper.wheel.set(now, until, Timer::Session { house, entry, until });
                }
            }
        }
        keeper
    }

    /// Moves decisions from the ring into `out`: whole ones, in their order, until there are no
    /// more or at least `events_max` events were moved. Gives the number of events.
    pub fn drain(&mut self, out: &mut Batch, events_max: usize) -> usize {
        let start = out.events.len();
        let moved = self.reader.drain(out, events_max);
        for words in &out.events[start..] {
            let event = Event::unpack(words).expect("the ring has only events that were packed");
            self.note(&event);
        }
        moved
    }

    /// Sets the timers of an event.
    fn note(&mut self, event: &Event) {
        let at = event.at;
        match event.body {
            Body::Held { slot, ttl_ms, .. } => {
                let id = HoldId { slot, seq: event.seq };
                self.wheel.set(at, at.plus_ms(ttl_ms.into()), Timer::Hold(id));
            }
            Body::Extended { hold, ttl_ms, .. } => {
                self.wheel.set(at, at.plus_ms(ttl_ms.into()), Timer::Hold(hold));
            }
            Body::Admitted { entry, until, .. } => {
                let house = self.engine.house(event.showtime).expect("it was opened").index;
                self.wheel.set(at, until, Timer::Session { house, entry, until });
            }
            Body::Opened { .. } => {
                let house = self.engine.house(event.showtime).expect("put before its event");
                self.desks.push(Desk::new(house, at));
            }
            _ => {}
        }
    }

    /// Lets the time be `now`: ends holds and sessions that are over and admits whose turn it
    /// is. The events come with a later `drain`. To keep a deadline within 10 ms, call it every
    /// 5 ms or more often.
    pub fn tick(&mut self, now: TimeMs) {
        let mut due = std::mem::take(&mut self.late);
        self.wheel.advance(now, |_, timer| due.push(timer));
        for timer in due {
            if !self.fire(timer, now) {
                self.late.push(timer);
            }
        }
        for desk in &mut self.desks {
            desk.tick(&self.engine.shared.ring, now);
        }
    }

    /// Whether everything that was claimed has been drained and no timer is late.
    pub fn idle(&self) -> bool {
        self.late.is_empty() && self.engine.ring_depth() == 0
    }

    /// `false`: try again.
    fn fire(&mut self, timer: Timer, now: TimeMs) -> bool {
        match timer {
            Timer::Hold(id) => match self.handle.expire(id, now) {
                // An extended hold has a timer of its own for its later deadline.
                Expiry::Done | Expiry::Gone | Expiry::Later => true,
                Expiry::NotNow => false,
            },
            Timer::Session { house, entry, until } => {
                let house = Arc::clone(self.engine.shared.house(house));
                end_session(&self.engine.shared.ring, &house, entry, until, now)
            }
        }
    }
}

/// Ends an admission whose session is over, unless a hold of it is active. `false`: try again.
fn end_session(ring: &Ring, house: &House, entry: EntryId, until: TimeMs, now: TimeMs) -> bool {
    let line = &house.line;
    let over = || line.look(entry).stand() == Stand::Admitted && line.session_until(entry) == until;
    if !over() {
        return true;
    }
    if line.look(entry).holds() > 0 || !ring.has_room() {
        return false;
    }
    let Some(turn) = line.try_turn(entry) else { return false };
    if !over() || turn.seen().holds() > 0 {
        turn.end();
        return false;
    }
    let (number, was) = (line.number(entry), crate::event::Standing::Admitted);
    let reason = LeaveReason::SessionOver;
    let decision = Decision::claim(ring, now, house.showtime(), 1);
    decision.publish(Body::Left { entry, number, was, reason });
    line.count_active(false, true);
    turn.end_at(Stand::Expired);
    true
}

impl Desk {
    fn new(house: Arc<House>, now: TimeMs) -> Desk {
        let back = BTreeSet::new();
        Desk { house, head: LineNumber(1), back, credit: ADMISSION_CREDIT, credited_at: now }
    }

    fn tick(&mut self, ring: &Ring, now: TimeMs) {
        let line = self.house.terms.line();
        let elapsed_ms = now.since_ms(self.credited_at);
        let rate = u64::from(line.rate_per_1000s);
        let most = (rate * CREDIT_MS_MAX).max(ADMISSION_CREDIT);
        self.credit = rate.saturating_mul(elapsed_ms).saturating_add(self.credit).min(most);
        self.credited_at = self.credited_at.max(now);
        while let Some(number) = self.house.line.next_return() {
            self.back.insert(number);
        }
        while self.may_admit(line) && ring.has_room() {
            let (number, came_back) = match self.back.first() {
                Some(number) => (*number, true),
                None => (self.head, false),
            };
            if number > self.house.line.last_number() {
                break;
            }
            match self.look_at(ring, number, line, now) {
                Step::Wait => break,
                Step::Next if came_back => {
                    self.back.pop_first();
                }
                Step::Next => self.head = LineNumber(number.0 + 1),
            }
        }
    }

    fn may_admit(&self, line: LineSettings) -> bool {
        match line.mode {
            LineMode::Paused => false,
            LineMode::Open => true,
            LineMode::Fifo => {
                self.credit >= ADMISSION_CREDIT && self.house.line.active() < line.max_active
            }
        }
    }

    /// Admits who has the number, or passes him over, or finds that he has left.
    fn look_at(
        &mut self,
        ring: &Ring,
        number: LineNumber,
        line: LineSettings,
        now: TimeMs,
    ) -> Step {
        let entries = &self.house.line;
        let entry = match entries.at_number(number) {
            AtNumber::NotYet => return Step::Wait,
            AtNumber::Nobody => return Step::Next,
            AtNumber::Entry(entry) => entry,
        };
        let Some(turn) = entries.try_turn(entry) else { return Step::Wait };
        let stand = turn.seen().stand();
        let came_back = stand == Stand::Back;
        if entries.number(entry) != number || !(stand == Stand::Waiting || came_back) {
            // Given up, and perhaps joined again with a later number.
            turn.end();
            return Step::Next;
        }
        if came_back {
            entries.count_back_gone();
        }
        let showtime = self.house.showtime();
        if line.mode == LineMode::Fifo && !entries.alive(entry, now, line.grace_ms) {
            if !came_back {
                let decision = Decision::claim(ring, now, showtime, 1);
                decision.publish(Body::Passed { entry, number });
            }
            turn.end_at(Stand::Passed);
            return Step::Next;
        }
        if line.mode == LineMode::Fifo {
            self.credit -= ADMISSION_CREDIT;
        }
        let until = now.plus_ms(line.session_ms.into());
        entries.set_session_until(entry, until);
        let decision = Decision::claim(ring, now, showtime, 1);
        decision.publish(Body::Admitted { entry, number, until });
        entries.count_active(true, false);
        turn.end_at(Stand::Admitted);
        Step::Next
    }
}
