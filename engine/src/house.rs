//! A showtime on sale: its layout, masks, line and terms.

use std::sync::Arc;

use crate::event::{LineMode, LineSettings};
use crate::ids::{BuyerId, EntryId, LineNumber, Part, SectionIndex, ShowtimeId, TimeMs};
use crate::layout::Layout;
use crate::line::Line;
use crate::reject::{Conflict, SeatState};
use crate::seat_map::SeatMap;
use crate::state::ShowtimeState;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, Patience};

/// One showtime of a shard. Decisions about it are made through a
/// [`Handle`](crate::Handle).
pub struct House {
    /// Its place among the houses of the shard.
    pub(crate) index: u32,
    showtime: ShowtimeId,
    layout: Arc<Layout>,
    pub(crate) map: SeatMap,
    pub(crate) line: Line,
    pub(crate) terms: Terms,
}

/// What a showtime allows. Each word but `limit` stands for itself, so Relaxed is enough; whoever
/// changes logged ones owns `changing`.
#[derive(Default)]
pub(crate) struct Terms {
    opens_at: AtomicU64,
    closes_at: AtomicU64,
    limit: AtomicU32,
    hold_ttl_ms: AtomicU32,
    mode: AtomicU32,
    max_active: AtomicU32,
    rate_per_1000s: AtomicU32,
    grace_ms: AtomicU32,
    session_ms: AtomicU32,
    changing: AtomicBool,
}

impl Terms {
    pub(crate) fn set_line(&self, line: LineSettings) {
        self.max_active.store(line.max_active, Ordering::Relaxed);
        self.rate_per_1000s.store(line.rate_per_1000s, Ordering::Relaxed);
        self.grace_ms.store(line.grace_ms, Ordering::Relaxed);
        self.session_ms.store(line.session_ms, Ordering::Relaxed);
        self.mode.store(line.mode.number(), Ordering::Relaxed);
    }

    pub(crate) fn line(&self) -> LineSettings {
        LineSettings {
            mode: LineMode::from_number(self.mode.load(Ordering::Relaxed))
                .expect("only modes are stored"),
            max_active: self.max_active.load(Ordering::Relaxed),
            rate_per_1000s: self.rate_per_1000s.load(Ordering::Relaxed),
            grace_ms: self.grace_ms.load(Ordering::Relaxed),
            session_ms: self.session_ms.load(Ordering::Relaxed),
        }
    }

    /// Whether a buyer need not have been let in.
    pub(crate) fn is_open(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == LineMode::Open.number()
    }

    pub(crate) fn set_sale(&self, limit: u32, hold_ttl_ms: u32) {
        // Release pairs with the Acquire in `limit`: its event has its number by now, so a hold
        // under a raised limit has a later one.
        self.limit.store(limit, Ordering::Release);
        self.hold_ttl_ms.store(hold_ttl_ms, Ordering::Relaxed);
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    pub(crate) fn hold_ttl_ms(&self) -> u32 {
        self.hold_ttl_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn on_sale(&self, now: TimeMs) -> bool {
        let opens_at = self.opens_at.load(Ordering::Relaxed);
        let closes_at = self.closes_at.load(Ordering::Relaxed);
        (opens_at..closes_at).contains(&now.0)
    }

    /// The right to change what the organiser decides, so that the order of the events is the
    /// order of the changes. `false`: others are at it all the time.
    pub(crate) fn begin_change(&self) -> bool {
        let mut patience = Patience::new();
        // Acquire pairs with the Release in `end_change`.
        while self.changing.swap(true, Ordering::Acquire) {
            if !patience.wait() {
                return false;
            }
        }
        true
    }

    pub(crate) fn end_change(&self) {
        self.changing.store(false, Ordering::Release);
    }
}

impl House {
    pub(crate) fn new(index: u32, showtime: ShowtimeId, layout: Arc<Layout>) -> House {
        let map = SeatMap::new(&layout);
        let (line, terms) = (Line::new(), Terms::default());
        House { index, showtime, layout, map, line, terms }
    }

    /// The house of a showtime, without its line and what is held and sold in it.
    pub(crate) fn restore(index: u32, state: &ShowtimeState) -> House {
        let house = House::new(index, state.showtime, Arc::clone(&state.layout));
        house.terms.set_sale(state.limit, state.hold_ttl_ms);
        house.terms.set_line(state.line);
        // Until the catalog says when it is on sale.
        house.set_window(TimeMs(0), TimeMs(u64::MAX));
        for part in &state.blocked {
            house.map.take(std::slice::from_ref(part)).expect("an image has no seat twice");
            house.map.set_blocked(*part, true);
        }
        house
    }

    /// Which showtime it is.
    pub fn showtime(&self) -> ShowtimeId {
        self.showtime
    }

    /// Its layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Holds are made from `opens_at` on and before `closes_at`. This is a fact of the catalog
    /// and stands in no event: whoever builds an engine from an image sets it again.
    pub fn set_window(&self, opens_at: TimeMs, closes_at: TimeMs) {
        self.terms.opens_at.store(opens_at.0, Ordering::Relaxed);
        self.terms.closes_at.store(closes_at.0, Ordering::Relaxed);
    }

    /// The line's settings.
    pub fn line_settings(&self) -> LineSettings {
        self.terms.line()
    }

    /// The buyer's entry, if he has one.
    pub fn entry_of(&self, buyer: BuyerId) -> Option<EntryId> {
        self.line.entry_of(buyer).filter(|entry| self.line.look(*entry).known())
    }

    /// Notes a sign of life of the entry. It is never logged: after a restart, everybody has
    /// just given one.
    pub fn touch(&self, entry: EntryId, now: TimeMs) {
        if self.line.has(entry) {
            self.line.touch(entry, now);
        }
    }

    /// Notes that the entry gives a sign of life all the time, by an open stream: until
    /// [`unwatch`](Self::unwatch) was called as often.
    pub fn watch(&self, entry: EntryId, now: TimeMs) {
        if self.line.has(entry) {
            self.line.watch(entry, now);
        }
    }

    /// Takes a [`watch`](Self::watch) back; that is a last sign of life.
    pub fn unwatch(&self, entry: EntryId, now: TimeMs) {
        if self.line.has(entry) {
            self.line.unwatch(entry, now);
        }
    }

    /// Loads what holds of these seats for these entries look at first, all at once. Whoever has a
    /// queue of requests then waits for memory once, and not once a request. Decides nothing; the
    /// requests may be any.
    pub fn preload<'a>(&self, requests: impl IntoIterator<Item = (EntryId, &'a [Part])>) {
        // The loads do not depend on each other; what they give is only kept from being left out.
        let loaded = requests.into_iter().fold(0, |loaded, (entry, parts)| {
            let account = self.line.account(entry).map_or(0, |account| account.look().seats());
            parts.iter().fold(loaded ^ account, |loaded, part| loaded ^ self.map.peek(part.block))
        });
        std::hint::black_box(loaded);
    }

    /// How many entries that were passed over are back.
    pub fn returned(&self) -> u32 {
        self.line.back()
    }

    /// How many entries that were passed over are back and will be admitted before `number`.
    pub fn returned_ahead(&self, number: LineNumber) -> u32 {
        self.line.back_before(number)
    }

    /// Buyers that are let in.
    pub fn active(&self) -> u32 {
        self.line.active()
    }

    /// Seats in use of an entry: held and bought.
    pub fn seats_in_use(&self, entry: EntryId) -> u32 {
        self.line.account(entry).map_or(0, |account| account.look().seats())
    }

    /// Free seats of a section, each counted at some instant of the call. Panics if the layout
    /// has no such section.
    pub fn free_in(&self, section: SectionIndex) -> u32 {
        self.map.count_free(self.layout.sections()[usize::from(section.0)].blocks.clone())
    }

    /// What the seat is just now, as decided, not as committed. `part` names one seat.
    pub fn seat_state(&self, part: Part) -> SeatState {
        self.map.state(part)
    }

    /// What the seats are just now, as decided, not as committed. Panics if the layout has no such
    /// block.
    pub fn seat_states(&self, part: Part) -> Conflict {
        self.map.states(part)
    }

    /// What stands in the way of who was refused `part`: sold, blocked or else held, as decided
    /// just now. Panics if the layout has no such block.
    pub fn conflict(&self, part: Part) -> Conflict {
        self.map.conflict(part)
    }
}
