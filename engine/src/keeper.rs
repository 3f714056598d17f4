//! The keeper: the one who reads the ring of a shard and lets time pass.
//!
//! It drains decisions for the log, sets a timer for each deadline it reads, ends holds and
//! sessions whose time is over, and walks along the line. It never waits for another thread:
//! what it cannot do now, because somebody owns the word or the ring is full, it tries again
//! with the next tick. What a tick does is bounded, so that draining goes on.

use std::collections::HashSet;
use std::sync::Arc;

use crate::emit::Decision;
use crate::engine::Engine;
use crate::entry::{EntryWord, Stand};
use crate::event::{Batch, Body, Event, LeaveReason, LineMode, LineSettings};
use crate::handle::{Expiry, Handle};
use crate::house::House;
use crate::ids::{EntryId, LineNumber, ShowtimeId, TimeMs};
use crate::line::AtNumber;
use crate::ring::{RingReader, Writer};
use crate::state::{Place, ShardState};
use crate::timers::{Timer, Timers};

/// One admission, in the unit of a line's credit: a rate of `r` in 1,000 s brings `r` a ms.
const ADMISSION_CREDIT: u64 = 1_000_000;
/// A line that could not admit saves up what this many ms bring, but at least one admission.
const CREDIT_MS_MAX: u64 = 100;

/// Timers looked at in a tick at most. Ending a hold takes some 150 ns.
const DUE_PER_TICK_MAX: usize = 1 << 15;
/// Numbers looked at for a showtime in a tick at most.
const STEPS_PER_TICK_MAX: usize = 1 << 13;

/// See the module.
pub struct Keeper {
    engine: Engine,
    handle: Handle,
    reader: RingReader,
    timers: Timers,
    /// Admitted entries whose session is over, but not their last hold: they are looked at when it
    /// ends.
    held_over: HashSet<(ShowtimeId, EntryId)>,
    desks: Vec<Desk>,
}

/// The admission to one house.
struct Desk {
    house: Arc<House>,
    /// The next number to look at; every one below was admitted, passed over or given up.
    head: LineNumber,
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
        state: &impl ShardState,
        now: TimeMs,
    ) -> Keeper {
        let handle = Handle::new(Arc::clone(&engine.shared));
        let (timers, held_over, desks) = (Timers::new(now), HashSet::new(), Vec::new());
        let mut keeper = Keeper { engine, handle, reader, timers, held_over, desks };
        for hold in state.holds() {
            keeper.timers.set(now, hold.deadline, Timer::Hold(hold.id.slot));
        }
        for index in 0..keeper.engine.shared.house_count() {
            let house = Arc::clone(keeper.engine.shared.house(index));
            for (entry, about) in (0..).map(EntryId).zip(state.entries(house.showtime())) {
                if about.place == Place::Admitted {
                    let timer = Timer::Session { house: index, entry };
                    keeper.timers.set(now, about.session_until, timer);
                }
            }
            keeper.desks.push(Desk::new(house, now));
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
                self.timers.set(at, at.plus_ms(ttl_ms.into()), Timer::Hold(slot));
            }
            Body::Extended { hold, ttl_ms, .. } => {
                self.timers.set(at, at.plus_ms(ttl_ms.into()), Timer::Hold(hold.slot));
            }
            Body::Confirmed { entry, .. }
            | Body::Released { entry, .. }
            | Body::Expired { entry, .. }
                if !self.held_over.is_empty()
                    && self.held_over.remove(&(event.showtime, entry)) =>
            {
                let house = self.house_of(event.showtime);
                self.timers.set_late(Timer::Session { house, entry });
            }
            Body::Admitted { entry, until, .. } => {
                let house = self.house_of(event.showtime);
                self.timers.set(at, until, Timer::Session { house, entry });
            }
            Body::Opened { .. } => {
                let house = self.engine.house(event.showtime).expect("put before its event");
                self.desks.push(Desk::new(house, at));
            }
            _ => {}
        }
    }

    fn house_of(&self, showtime: ShowtimeId) -> u32 {
        self.engine.shared.find(showtime).expect("put before its events").index
    }

    /// Lets the time be `now`: ends holds and sessions that are over and admits whose turn it
    /// is. The events come with a later `drain`. To keep a deadline within 10 ms, call it every
    /// 5 ms or more often.
    pub fn tick(&mut self, now: TimeMs) {
        let due = self.timers.advance(now);
        for _ in 0..due.min(DUE_PER_TICK_MAX) {
            if !self.handle.writer().has_room() {
                break;
            }
            if let Some(timer) = self.timers.take() {
                self.fire(timer, now);
            }
        }
        for desk in &mut self.desks {
            desk.tick(self.handle.writer(), now);
        }
    }

    /// Whether everything that was claimed has been drained and no timer is late.
    pub fn idle(&self) -> bool {
        self.timers.none_late() && self.engine.ring_depth() == 0
    }

    fn fire(&mut self, timer: Timer, now: TimeMs) {
        let outcome = match timer {
            Timer::Hold(slot) => self.handle.expire(slot, now),
            Timer::Session { house, entry } => {
                let house = self.engine.shared.house(house);
                let outcome = end_session(self.handle.writer(), house, entry, now);
                if let Expiry::Held = outcome {
                    self.held_over.insert((house.showtime(), entry));
                }
                outcome
            }
        };
        match outcome {
            Expiry::Done | Expiry::Held => {}
            Expiry::Later(due) => self.timers.set(now, due, timer),
            Expiry::NotNow => self.timers.set_late(timer),
        }
    }
}

/// Ends an admission whose session is over, unless a hold of it is active.
fn end_session(writer: &Writer, house: &House, entry: EntryId, now: TimeMs) -> Expiry {
    let line = &house.line;
    let over = |seen: EntryWord| {
        let until = line.session_until(entry);
        match seen.stand() {
            Stand::Admitted if until > now => Some(Expiry::Later(until)),
            // Whoever ends the hold takes it off the account before his event can be drained.
            Stand::Admitted if seen.holds() > 0 => Some(Expiry::Held),
            Stand::Admitted => None,
            _ => Some(Expiry::Done),
        }
    };
    let Some(turn) = line.try_turn(entry) else { return Expiry::NotNow };
    if let Some(not_over) = over(turn.seen()) {
        turn.end();
        return not_over;
    }
    let (number, was) = (line.number(entry), crate::event::Standing::Admitted);
    let reason = LeaveReason::SessionOver;
    let decision = Decision::claim(writer, now, house.showtime(), 1);
    decision.publish(Body::Left { entry, number, was, reason });
    line.count_active(false, true);
    turn.end_at(Stand::Expired);
    Expiry::Done
}

impl Desk {
    fn new(house: Arc<House>, now: TimeMs) -> Desk {
        let head = house.line.head_at_start();
        Desk { house, head, credit: ADMISSION_CREDIT, credited_at: now }
    }

    fn tick(&mut self, writer: &Writer, now: TimeMs) {
        let line = self.house.terms.line();
        let elapsed_ms = now.since_ms(self.credited_at);
        let rate = u64::from(line.rate_per_1000s);
        let most = (rate * CREDIT_MS_MAX).max(ADMISSION_CREDIT);
        self.credit = rate.saturating_mul(elapsed_ms).saturating_add(self.credit).min(most);
        self.credited_at = self.credited_at.max(now);
        for _ in 0..STEPS_PER_TICK_MAX {
            if !self.may_admit(line) || !writer.has_room() {
                break;
            }
            let last = self.house.line.last_number();
            let came_back = self.house.line.first_back();
            let number = came_back.unwrap_or(self.head);
            if number > last {
                break;
            }
            match self.look_at(writer, number, line, now) {
                Step::Wait => break,
                Step::Next if came_back.is_some() => {}
                Step::Next => self.head = LineNumber(number.0 + 1),
            }
        }
    }

    fn may_admit(&self, line: LineSettings) -> bool {
        match line.mode {
            LineMode::Paused => false,
            LineMode::Open => true,
            LineMode::Fifo => {
                line.rate_per_1000s > 0
                    && self.credit >= ADMISSION_CREDIT
                    && self.house.line.active() < line.max_active
            }
        }
    }

    /// Admits who has the number, or passes him over, or finds that he has left.
    fn look_at(
        &mut self,
        writer: &Writer,
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
            entries.no_longer_back(number);
            turn.end();
            return Step::Next;
        }
        if came_back {
            entries.no_longer_back(number);
        }
        let showtime = self.house.showtime();
        if line.mode == LineMode::Fifo && !entries.alive(entry, now, line.grace_ms) {
            if !came_back {
                let decision = Decision::claim(writer, now, showtime, 1);
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
        let decision = Decision::claim(writer, now, showtime, 1);
        decision.publish(Body::Admitted { entry, number, until });
        entries.count_active(true, false);
        turn.end_at(Stand::Admitted);
        Step::Next
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;
    use crate::handle::{Context, HoldRequest, OpenShowtime};
    use crate::hold::{Found, State};
    use crate::ids::{BlockIndex, BuyerId, Part, TierIndex};
    use crate::layout::{Layout, LayoutSpec, SectionSpec};

    fn drained(keeper: &mut Keeper) -> Vec<Body> {
        let mut batch = Batch::default();
        keeper.drain(&mut batch, 1_000);
        let unpacked = batch.events.iter().map(|words| Event::unpack(words).expect("packed"));
        unpacked.map(|event| event.body).collect()
    }

    /// R12. Planted: a timer that could not be served is lost.
    #[test]
    fn a_hold_that_is_owned_at_its_deadline_ends_later() {
        let (engine, mut keeper) = Engine::new(EngineConfig::default());
        let mut handle = engine.handle().expect("one of 64");
        let stalls = SectionSpec::General { places: 10, tier: TierIndex(0) };
        let layout = Layout::build(LayoutSpec { sections: vec![stalls] }).expect("ten places");
        let show = OpenShowtime {
            showtime: ShowtimeId(1),
            layout: Arc::new(layout),
            blob: Box::default(),
            limit: 4,
            hold_ttl_ms: 1_000,
            line: LineSettings::default(),
            opens_at: TimeMs(0),
            closes_at: TimeMs(u64::MAX),
        };
        let (house, _) = handle.open(TimeMs(5_000), show).expect("the first");
        let at = Context::at(TimeMs(5_000));
        let entry = handle.join(&house, BuyerId(1), at).expect("there is room").entry;
        let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: true };
        let seat = Part { block: BlockIndex(0), mask: 1 };
        let held = handle.hold(&house, request, &[seat], at).expect("it is free");
        drained(&mut keeper);

        let Found::Active(seen) = engine.shared.slab.find(held.id) else { panic!("it is active") };
        let owned = seen.own().expect("nobody else owns it");
        keeper.tick(TimeMs(6_010));
        assert_eq!(drained(&mut keeper), []);
        assert!(!keeper.idle(), "its timer is late");
        let deadline = owned.deadline();
        owned.settle(deadline, State::Active);
        keeper.tick(TimeMs(6_020));
        let expired = Body::Expired { hold: held.id, entry, first: seat };
        assert_eq!(drained(&mut keeper), [expired]);
    }
}
