//! A strict reader of the log: it folds events into a state and panics at the first decision that
//! could not have followed the ones before.
//!
//! It shares nothing with the two engines but the types of an event, and so judges both. What it
//! asserts, by rule: a seat is held, confirmed and freed in a legal order and by its own hold
//! (R1, R11); the four counts of a section add up, and no buyer is above the limit when held for
//! (R5); numbers have no gaps (R6); nothing expires early and nothing is confirmed late (R12); the
//! line is let in in the order of its numbers, never more at once than allowed (R4, R14).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tmomi_engine::event::{Batch, Body, Event, LeaveReason, LineMode, LineSettings, Standing};
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, HoldSlot, LineNumber, Part};
use tmomi_engine::ids::{SeatAddr, Seq, ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::state::{EntryState, HoldState, Place, ShardState, ShowtimeState};

/// A hold lives so long at most, however often it is extended, in ms.
const LIFE_MS_MAX: u64 = 7_200_000;

/// What a seat is when it is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Taken {
    Held(Seq),
    Sold(Seq),
    Blocked,
}

/// One showtime as the log says it is.
#[derive(Debug)]
pub(crate) struct Show {
    pub(crate) layout: Arc<Layout>,
    pub(crate) limit: u32,
    pub(crate) hold_ttl_ms: u32,
    pub(crate) line: LineSettings,
    pub(crate) taken: BTreeMap<SeatAddr, Taken>,
    pub(crate) entries: BTreeMap<EntryId, EntryState>,
    pub(crate) used: HashMap<EntryId, u32>,
    buyers: HashSet<BuyerId>,
    numbers: HashSet<LineNumber>,
    waiting: BTreeSet<LineNumber>,
    active: u32,
    /// The highest number that was let in or passed over at the head of the line.
    head: LineNumber,
    /// Free, held, sold and blocked, by section.
    counts: Vec<[u32; 4]>,
}

/// Events that were decided at once, and the seats they are about.
pub(crate) struct Decision {
    pub(crate) events: Vec<Event>,
    pub(crate) parts: Vec<Part>,
}

/// A shard as its log says it is.
#[derive(Debug)]
pub(crate) struct Fold {
    layouts: HashMap<ShowtimeId, Arc<Layout>>,
    pub(crate) applied: Seq,
    pub(crate) shows: BTreeMap<ShowtimeId, Show>,
    pub(crate) holds: BTreeMap<Seq, Hold>,
    slots: HashSet<HoldSlot>,
}

/// An active hold or an order.
#[derive(Debug, PartialEq)]
pub(crate) struct Hold {
    id: HoldId,
    showtime: ShowtimeId,
    entry: EntryId,
    created_at: TimeMs,
    pub(crate) deadline: TimeMs,
    pub(crate) confirmed: bool,
    parts: Vec<Part>,
}

impl Fold {
    /// Before the first event. A test has the layouts, the blobs are not read.
    pub(crate) fn new(layouts: impl IntoIterator<Item = (ShowtimeId, Arc<Layout>)>) -> Fold {
        Fold {
            layouts: layouts.into_iter().collect(),
            applied: Seq(0),
            shows: BTreeMap::new(),
            holds: BTreeMap::new(),
            slots: HashSet::new(),
        }
    }

    /// Applies whole decisions and gives them back unpacked.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Vec<Decision> {
        let unpack = |words| Event::unpack(words).expect("the engine writes what it can read");
        let events: Vec<Event> = batch.events.iter().map(unpack).collect();
        let with_blob = events.iter().filter(|event| event.has_blob).map(|event| event.seq);
        assert!(with_blob.eq(batch.blobs.iter().map(|(seq, _)| *seq)), "blobs belong to events");
        assert!(events.last().is_none_or(|last| !last.more_follows), "a decision is cut in two");
        let decisions = events.split_inclusive(|event| !event.more_follows);
        decisions.map(|events| self.decision(events)).collect()
    }

    fn decision(&mut self, events: &[Event]) -> Decision {
        let mut parts = Vec::from_iter(events[0].body.first_part());
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event.seq, self.applied.next(), "R6: {event:?} leaves a gap");
            self.applied = event.seq;
            if let Body::More { parts: more } = event.body {
                assert!(n > 0, "{event:?} continues nothing");
                parts.extend(more.into_iter().filter(|part| part.mask != 0));
            }
        }
        let ascending = parts.is_sorted_by(|a, b| a.block < b.block);
        assert!(ascending, "{:?}: blocks do not ascend", events[0]);
        for event in events.iter().filter(|event| !matches!(event.body, Body::More { .. })) {
            self.event(event, &parts);
        }
        Decision { events: events.to_vec(), parts }
    }

    fn event(&mut self, event: &Event, parts: &[Part]) {
        let Event { at, showtime, .. } = *event;
        match event.body {
            Body::EpochStart { .. } => assert_eq!(showtime, ShowtimeId(0)),
            Body::Opened { limit, hold_ttl_ms } => self.open(showtime, limit, hold_ttl_ms),
            Body::Terms { limit, hold_ttl_ms } => {
                let show = self.show(showtime);
                (show.limit, show.hold_ttl_ms) = (limit, hold_ttl_ms);
            }
            Body::Held { slot, entry, ttl_ms, .. } => {
                assert!(self.slots.insert(slot), "{event:?}: the record is another hold's");
                let id = HoldId { slot, seq: event.seq };
                self.show(showtime).hold(event, entry, id.seq, parts);
                let deadline = at.plus_ms(ttl_ms.into());
                let parts = parts.to_vec();
                let (created_at, confirmed) = (at, false);
                let hold = Hold { id, showtime, entry, created_at, deadline, confirmed, parts };
                self.holds.insert(event.seq, hold);
            }
            Body::Extended { hold, entry, ttl_ms, .. } => {
                let hold = self.hold(event, hold, entry, false);
                assert_eq!(hold.parts, parts, "R11: {event:?} extends other seats");
                assert!(at < hold.deadline, "R12: {event:?} comes after the deadline");
                hold.deadline = at.plus_ms(ttl_ms.into());
                let life_ms = hold.deadline.since_ms(hold.created_at);
                assert!(life_ms <= LIFE_MS_MAX, "{event:?} passes the cap of a hold's life");
            }
            Body::Confirmed { hold, entry, .. } => {
                let hold = self.hold(event, hold, entry, false);
                assert!(at < hold.deadline, "R12: {event:?} comes after the deadline");
                assert_eq!(hold.parts, parts, "R11: {event:?} confirms other seats");
                hold.confirmed = true;
                let seq = hold.id.seq;
                self.show(showtime).turn(event, parts, Taken::Held(seq), Some(Taken::Sold(seq)));
            }
            Body::Released { hold, entry, .. } => self.end(event, hold, entry, false, parts),
            Body::Expired { hold, entry, .. } => {
                let deadline = self.hold(event, hold, entry, false).deadline;
                assert!(deadline <= at, "{event:?} comes before the deadline {deadline}");
                self.end(event, hold, entry, false, parts);
            }
            Body::Refunded { hold, entry, .. } => self.end(event, hold, entry, true, parts),
            Body::Blocked { .. } => self.show(showtime).take(event, parts, Taken::Blocked),
            Body::Unblocked { .. } => {
                self.show(showtime).turn(event, parts, Taken::Blocked, None);
            }
            _ => self.show(showtime).line_event(event),
        }
    }

    fn open(&mut self, showtime: ShowtimeId, limit: u32, hold_ttl_ms: u32) {
        let layout = self.layouts[&showtime].clone();
        let counts = layout.sections().iter().map(|section| [section.capacity, 0, 0, 0]).collect();
        let show = Show {
            layout,
            limit,
            hold_ttl_ms,
            line: LineSettings::default(),
            taken: BTreeMap::new(),
            entries: BTreeMap::new(),
            used: HashMap::new(),
            buyers: HashSet::new(),
            numbers: HashSet::new(),
            waiting: BTreeSet::new(),
            active: 0,
            head: LineNumber::NONE,
            counts,
        };
        let before = self.shows.insert(showtime, show);
        assert!(before.is_none(), "showtime {showtime} was opened twice");
    }

    fn show(&mut self, showtime: ShowtimeId) -> &mut Show {
        self.shows.get_mut(&showtime).expect("the showtime was opened")
    }

    fn hold(&mut self, event: &Event, id: HoldId, entry: EntryId, confirmed: bool) -> &mut Hold {
        let hold = self.holds.get_mut(&id.seq);
        let hold = hold.unwrap_or_else(|| panic!("R1: {event:?} of a hold that is gone"));
        let same = (hold.id, hold.showtime, hold.entry, hold.confirmed);
        assert_eq!(same, (id, event.showtime, entry, confirmed), "R1: {event:?}");
        hold
    }

    fn end(&mut self, event: &Event, id: HoldId, entry: EntryId, sold: bool, parts: &[Part]) {
        let hold = self.hold(event, id, entry, sold);
        assert_eq!(hold.parts, parts, "R11: {event:?} frees other seats");
        self.holds.remove(&id.seq);
        self.slots.remove(&id.slot);
        let was = if sold { Taken::Sold(id.seq) } else { Taken::Held(id.seq) };
        let show = self.show(event.showtime);
        show.turn(event, parts, was, None);
        *show.used.get_mut(&entry).expect("it held seats") -= seats(parts);
    }

    /// One number for the whole state. It does not know slab slots, in which engines may differ.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.applied.hash(&mut hasher);
        for (showtime, show) in &self.shows {
            (showtime, show.limit, show.hold_ttl_ms, show.line).hash(&mut hasher);
            show.taken.hash(&mut hasher);
            for (entry, state) in &show.entries {
                let used = show.used.get(entry).copied().unwrap_or(0);
                (entry, state.buyer, state.number, state.place, used).hash(&mut hasher);
                state.session_until.hash(&mut hasher);
            }
        }
        for (seq, hold) in &self.holds {
            (seq, hold.showtime, hold.entry, hold.created_at).hash(&mut hasher);
            (hold.deadline, hold.confirmed, &hold.parts).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn states(&self, confirmed: bool) -> impl Iterator<Item = HoldState<'_>> {
        let those = self.holds.values().filter(move |hold| hold.confirmed == confirmed);
        those.map(|hold| {
            let Hold { id, showtime, entry, created_at, deadline, .. } = *hold;
            HoldState { id, showtime, entry, created_at, deadline, parts: &hold.parts }
        })
    }
}

/// What an engine is restored from.
impl ShardState for Fold {
    fn applied(&self) -> Seq {
        self.applied
    }

    fn showtimes(&self) -> impl Iterator<Item = ShowtimeState> {
        self.shows.iter().map(|(showtime, show)| show.state(*showtime))
    }

    fn entries(&self, showtime: ShowtimeId) -> impl Iterator<Item = EntryState> {
        let entries = &self.shows[&showtime].entries;
        let len = entries.last_key_value().map_or(0, |(last, _)| last.0 + 1);
        let entry = |id| entries.get(&EntryId(id)).copied().unwrap_or(EntryState::UNUSED);
        (0..len).map(entry)
    }

    fn holds(&self) -> impl Iterator<Item = HoldState<'_>> {
        self.states(false)
    }

    fn orders(&self) -> impl Iterator<Item = HoldState<'_>> {
        self.states(true)
    }
}

impl Show {
    /// Free, held, sold and blocked seats of each section, counted anew.
    pub(crate) fn counts(&self) -> Vec<[u32; 4]> {
        let fresh = |capacity| [capacity, 0, 0, 0];
        let sections = self.layout.sections().iter();
        let mut counts: Vec<_> = sections.map(|section| fresh(section.capacity)).collect();
        for (seat, taken) in &self.taken {
            let section = &mut counts[usize::from(self.layout.block(seat.block()).section.0)];
            section[0] -= 1;
            section[column(*taken)] += 1;
        }
        assert_eq!(counts, self.counts, "R5: counts by event and by seat differ");
        counts
    }

    fn hold(&mut self, event: &Event, entry: EntryId, hold: Seq, parts: &[Part]) {
        assert!(self.entries.contains_key(&entry), "{event:?} is for nobody");
        let used = self.used.entry(entry).or_default();
        *used += seats(parts);
        assert!(*used <= self.limit, "R5: {event:?} passes the limit {}", self.limit);
        self.take(event, parts, Taken::Held(hold));
    }

    fn take(&mut self, event: &Event, parts: &[Part], taken: Taken) {
        for seat in each_seat(parts) {
            assert!(self.layout.has(part_of(seat)), "{event:?}: no such seat");
            let before = self.taken.insert(seat, taken);
            assert_eq!(before, None, "R1: {event:?} takes {seat:?}, which is not free");
            self.count(seat, 0, column(taken));
        }
    }

    fn turn(&mut self, event: &Event, parts: &[Part], from: Taken, to: Option<Taken>) {
        for seat in each_seat(parts) {
            let before = match to {
                Some(to) => self.taken.insert(seat, to),
                None => self.taken.remove(&seat),
            };
            assert_eq!(before, Some(from), "R1: {event:?} of {seat:?}");
            self.count(seat, column(from), to.map_or(0, column));
        }
    }

    fn count(&mut self, seat: SeatAddr, from: usize, to: usize) {
        let section = self.layout.block(seat.block()).section;
        let counts = &mut self.counts[usize::from(section.0)];
        counts[from] -= 1;
        counts[to] += 1;
    }

    fn line_event(&mut self, event: &Event) {
        match event.body {
            Body::LineSet(line) => self.line = line,
            Body::Buyer { entry, buyer } => self.enter(event, entry, buyer),
            Body::Joined { entry, buyer, number, .. } => {
                if !self.entries.contains_key(&entry) {
                    self.enter(event, entry, buyer);
                }
                assert!(self.numbers.insert(number), "R4: {event:?}: number given twice");
                assert!(number > self.head, "R4: {event:?}: the line is past that number");
                self.waiting.insert(number);
                let it = self.entries.get_mut(&entry).expect("just entered");
                assert_eq!(it.buyer, buyer, "{event:?}");
                assert!(matches!(it.place, Place::Out | Place::Expired), "R4: {event:?}");
                (it.number, it.place) = (number, Place::Waiting);
            }
            Body::Left { entry, number, was, reason } => {
                let it = self.entry(event, entry, number);
                let place = match was {
                    Standing::Waiting => Place::Waiting,
                    Standing::Passed => Place::Passed,
                    Standing::Admitted => Place::Admitted,
                };
                assert_eq!(it.place, place, "{event:?}");
                let over = reason == LeaveReason::SessionOver;
                it.place = if over { Place::Expired } else { Place::Out };
                assert!(!over || place == Place::Admitted && it.session_until <= event.at);
                self.waiting.remove(&number);
                self.active -= u32::from(place == Place::Admitted);
            }
            Body::Admitted { entry, number, until } => self.admit(event, entry, number, until),
            Body::Passed { entry, number } => {
                let it = self.entry(event, entry, number);
                assert_eq!(it.place, Place::Waiting, "{event:?}");
                it.place = Place::Passed;
                assert_eq!(self.waiting.pop_first(), Some(number), "R4: {event:?} jumps the line");
                self.head = self.head.max(number);
            }
            other => panic!("{other:?} is no event of a line"),
        }
    }

    fn enter(&mut self, event: &Event, entry: EntryId, buyer: BuyerId) {
        let new = EntryState { buyer, ..EntryState::default() };
        let before = self.entries.insert(entry, new);
        assert!(before.is_none() && self.buyers.insert(buyer), "R4: {event:?}: entered twice");
    }

    fn entry(&mut self, event: &Event, entry: EntryId, number: LineNumber) -> &mut EntryState {
        let it = self.entries.get_mut(&entry);
        let it = it.unwrap_or_else(|| panic!("{event:?} is about nobody"));
        assert_eq!(it.number, number, "{event:?}");
        it
    }

    fn admit(&mut self, event: &Event, entry: EntryId, number: LineNumber, until: TimeMs) {
        let it = self.entry(event, entry, number);
        let was = it.place;
        assert!(matches!(was, Place::Waiting | Place::Passed), "{event:?} was {was:?}");
        (it.place, it.session_until) = (Place::Admitted, until);
        self.active += 1;
        let first = self.waiting.first().copied();
        self.waiting.remove(&number);
        match self.line.mode {
            LineMode::Open => {}
            LineMode::Paused => panic!("{event:?}, but the line is paused"),
            LineMode::Fifo => {
                assert!(self.active <= self.line.max_active, "{event:?}: too many active");
                if was == Place::Waiting {
                    assert_eq!(first, Some(number), "R4: {event:?} jumps the line");
                    self.head = self.head.max(number);
                }
            }
        }
    }

    fn state(&self, showtime: ShowtimeId) -> ShowtimeState {
        let blocked = self.taken.iter().filter(|(_, taken)| **taken == Taken::Blocked);
        ShowtimeState {
            showtime,
            layout: self.layout.clone(),
            limit: self.limit,
            hold_ttl_ms: self.hold_ttl_ms,
            line: self.line,
            blocked: blocked.map(|(seat, _)| part_of(*seat)).collect(),
            last_number: self.numbers.iter().max().copied().unwrap_or(LineNumber::NONE),
        }
    }
}

fn column(taken: Taken) -> usize {
    match taken {
        Taken::Held(_) => 1,
        Taken::Sold(_) => 2,
        Taken::Blocked => 3,
    }
}

fn part_of(seat: SeatAddr) -> Part {
    Part { block: seat.block(), mask: 1 << seat.bit() }
}

fn each_seat(parts: &[Part]) -> impl Iterator<Item = SeatAddr> {
    parts.iter().flat_map(|part| part.seats())
}

fn seats(parts: &[Part]) -> u32 {
    parts.iter().map(|part| part.mask.count_ones()).sum()
}
