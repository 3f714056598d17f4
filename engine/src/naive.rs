//! The engine once more, with plain collections and no thread in mind: what the decisions mean.
//!
//! The tests hold the fast engine against it (same operations, same answers, same events but for
//! the slab slots), the benches show what the difference buys. Every rule stands here in the
//! fewest words we know; nothing is fast on purpose.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::Standing;
use crate::event::{Batch, Body, Event, LeaveReason, LineMode, LineSettings, PARTS_PER_MORE};
use crate::handle::{Context, Joined, OpenShowtime};
use crate::ids::{BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, Part};
use crate::ids::{SeatAddr, Seq, ShowtimeId, TimeMs};
use crate::layout::Layout;
use crate::reject::Reject;
use crate::state::{Place, ShardState};

mod best;
mod seats;

/// One admission, as the bucket counts it: a rate is admissions in 1,000 s, so one millisecond
/// brings `rate_per_1000s` millionths.
const ADMISSION: u64 = 1_000_000;
/// The bucket holds what this many milliseconds of the rate bring, and one admission at least.
const BURST_MS: u64 = 100;

/// All showtimes of a shard.
#[derive(Clone, Default)]
pub struct Naive {
    houses: BTreeMap<ShowtimeId, House>,
    holds: BTreeMap<HoldId, Hold>,
    slots_free: Vec<HoldSlot>,
    claimed: Seq,
    out: Batch,
}

/// A [`Naive`] that threads can share.
#[derive(Default)]
pub struct NaiveShared(Mutex<Naive>);

impl NaiveShared {
    /// The engine, to itself as long as the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, Naive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct House {
    layout: Arc<Layout>,
    limit: u32,
    hold_ttl_ms: u32,
    line: LineSettings,
    opens_at: TimeMs,
    closes_at: TimeMs,
    /// A seat that is not here is free.
    taken: HashMap<SeatAddr, Taken>,
    entries: Vec<Entry>,
    entry_of: HashMap<BuyerId, EntryId>,
    last_number: LineNumber,
    /// Unused admissions, in millionths, as of `credited_at`.
    credit: u64,
    credited_at: TimeMs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Held,
    Sold,
    Blocked,
}

#[derive(Clone)]
struct Entry {
    joined_seq: Seq,
    number: LineNumber,
    place: Place,
    session_until: TimeMs,
    seats_used: u32,
    seen_at: TimeMs,
    /// Passed over, and seen since.
    back: bool,
}

#[derive(Clone)]
struct Hold {
    showtime: ShowtimeId,
    entry: EntryId,
    created_at: TimeMs,
    deadline: TimeMs,
    confirmed: bool,
    parts: Vec<Part>,
}

/// Showtimes and their line.
impl Naive {
    /// The engine of an image. Everybody in a line has given a sign of life at `now`.
    pub fn restore(state: &impl ShardState, now: TimeMs) -> Naive {
        let mut naive = Naive { claimed: state.applied(), ..Naive::default() };
        for show in state.showtimes() {
            let mut house = House {
                last_number: show.last_number,
                ..House::new(&show.layout, show.limit, show.hold_ttl_ms, show.line, now)
            };
            house.mark(&show.blocked, Taken::Blocked);
            for entry in state.entries(show.showtime) {
                let id = house.entry_of(entry.buyer, now);
                let it = house.entry_mut(id);
                (it.number, it.place) = (entry.number, entry.place);
                it.session_until = entry.session_until;
            }
            naive.houses.insert(show.showtime, house);
        }
        let orders = state.orders().map(|order| (order, true));
        let holds: Vec<_> = state.holds().map(|hold| (hold, false)).chain(orders).collect();
        let used = holds.iter().map(|(hold, _)| hold.id.slot.0 + 1).max().unwrap_or(0);
        naive.slots_free = (0..used).map(HoldSlot).collect();
        for (hold, confirmed) in holds {
            naive.slots_free.retain(|slot| *slot != hold.id.slot);
            naive.restore_hold(hold, confirmed);
        }
        naive
    }

    /// Puts a showtime on sale.
    ///
    /// # Errors
    ///
    /// [`Reject::AlreadyOpen`], [`Reject::TooMany`], [`Reject::TtlOutOfRange`].
    pub fn open(&mut self, now: TimeMs, show: OpenShowtime) -> Result<Seq, Reject> {
        seats::check_terms(show.limit, show.hold_ttl_ms)?;
        if self.houses.contains_key(&show.showtime) {
            return Err(Reject::AlreadyOpen);
        }
        let opened = Body::Opened { limit: show.limit, hold_ttl_ms: show.hold_ttl_ms };
        let bodies = [opened, Body::LineSet(show.line)];
        let seq = self.emit(now, show.showtime, &bodies, Some(show.blob));
        let house = House {
            opens_at: show.opens_at,
            closes_at: show.closes_at,
            ..House::new(&show.layout, show.limit, show.hold_ttl_ms, show.line, now)
        };
        self.houses.insert(show.showtime, house);
        Ok(seq)
    }

    /// Notes that a new process decides.
    pub fn start_epoch(&mut self, now: TimeMs, epoch: Epoch, node: u64) -> Seq {
        self.emit(now, ShowtimeId(0), &[Body::EpochStart { epoch, node }], None)
    }

    /// When the sale runs; not an event.
    pub fn set_window(&mut self, showtime: ShowtimeId, opens_at: TimeMs, closes_at: TimeMs) {
        let house = self.house_mut(showtime);
        (house.opens_at, house.closes_at) = (opens_at, closes_at);
    }

    /// Changes the buyer's limit and the hold time, for what is held from now on.
    ///
    /// # Errors
    ///
    /// [`Reject::TooMany`], [`Reject::TtlOutOfRange`].
    pub fn set_terms(
        &mut self,
        showtime: ShowtimeId,
        now: TimeMs,
        limit: u32,
        hold_ttl_ms: u32,
    ) -> Result<Seq, Reject> {
        seats::check_terms(limit, hold_ttl_ms)?;
        let house = self.house_mut(showtime);
        (house.limit, house.hold_ttl_ms) = (limit, hold_ttl_ms);
        Ok(self.emit(now, showtime, &[Body::Terms { limit, hold_ttl_ms }], None))
    }

    /// Changes the line's settings.
    pub fn set_line(&mut self, showtime: ShowtimeId, now: TimeMs, line: LineSettings) -> Seq {
        self.house_mut(showtime).line = line;
        self.emit(now, showtime, &[Body::LineSet(line)], None)
    }

    /// The buyer's entry, made if there is none; not in the line.
    pub fn enter(&mut self, showtime: ShowtimeId, buyer: BuyerId, now: TimeMs) -> EntryId {
        let house = self.house_mut(showtime);
        let known = house.entry_of.contains_key(&buyer);
        let entry = house.entry_of(buyer, now);
        if !known {
            self.emit(now, showtime, &[Body::Buyer { entry, buyer }], None);
        }
        entry
    }

    /// Takes a number, or finds the one the buyer has. A sign of life.
    pub fn join(&mut self, showtime: ShowtimeId, buyer: BuyerId, ctx: Context) -> Joined {
        let house = self.house_mut(showtime);
        let entry = house.entry_of(buyer, ctx.now);
        house.touch(entry, ctx.now);
        let (line, last_number) = (house.line, house.last_number);
        let it = house.entry_mut(entry);
        if !matches!(it.place, Place::Out | Place::Expired) {
            return Joined { entry, number: it.number, seq: it.joined_seq, fresh: false };
        }
        let number = LineNumber(last_number.0 + 1);
        (it.number, it.place) = (number, Place::Waiting);
        let mut bodies = vec![Body::Joined { entry, buyer, number, key: ctx.key }];
        if line.mode == LineMode::Open {
            bodies.push(it.admit(entry, ctx.now, line));
        }
        house.last_number = number;
        let seq = self.emit(ctx.now, showtime, &bodies, None);
        self.house_mut(showtime).entry_mut(entry).joined_seq = seq;
        Joined { entry, number, seq, fresh: true }
    }

    /// Gives the place up; `None` if there was none.
    pub fn leave(&mut self, showtime: ShowtimeId, entry: EntryId, now: TimeMs) -> Option<Seq> {
        let it = self.house_mut(showtime).entry_mut(entry);
        let was = match it.place {
            Place::Out | Place::Expired => return None,
            Place::Waiting => Standing::Waiting,
            Place::Passed => Standing::Passed,
            Place::Admitted => Standing::Admitted,
        };
        (it.place, it.back) = (Place::Out, false);
        let left = Body::Left { entry, number: it.number, was, reason: LeaveReason::Asked };
        Some(self.emit(now, showtime, &[left], None))
    }

    /// A sign of life.
    pub fn touch(&mut self, showtime: ShowtimeId, entry: EntryId, now: TimeMs) {
        self.house_mut(showtime).touch(entry, now);
    }

    /// Entries that were passed over, came back and are admitted before `number`.
    pub fn returned_ahead(&self, showtime: ShowtimeId, number: LineNumber) -> u32 {
        let entries = self.houses[&showtime].entries.iter();
        entries.filter(|it| it.back && it.number < number).count() as u32
    }
}

/// Time.
impl Naive {
    /// Does what the time asks for: holds expire, sessions end, the line moves.
    pub fn tick(&mut self, now: TimeMs) {
        let due = |(_, hold): &(&HoldId, &Hold)| !hold.confirmed && hold.deadline <= now;
        let mut due: Vec<_> =
            self.holds.iter().filter(due).map(|(id, h)| (h.deadline, *id)).collect();
        due.sort_unstable_by_key(|(deadline, id)| (*deadline, id.seq));
        for (_, id) in due {
            self.end(id, now, |entry, first| Body::Expired { hold: id, entry, first });
        }
        let showtimes: Vec<_> = self.houses.keys().copied().collect();
        for showtime in showtimes {
            self.end_sessions(showtime, now);
            self.admit(showtime, now);
        }
    }

    fn end_sessions(&mut self, showtime: ShowtimeId, now: TimeMs) {
        let holding: Vec<EntryId> = self
            .holds
            .values()
            .filter(|hold| hold.showtime == showtime && !hold.confirmed)
            .map(|hold| hold.entry)
            .collect();
        for entry in self.houses[&showtime].entry_ids() {
            let it = self.house_mut(showtime).entry_mut(entry);
            let over = it.place == Place::Admitted && it.session_until <= now;
            if over && !holding.contains(&entry) {
                it.place = Place::Expired;
                let (was, reason) = (Standing::Admitted, LeaveReason::SessionOver);
                let left = Body::Left { entry, number: it.number, was, reason };
                self.emit(now, showtime, &[left], None);
            }
        }
    }

    /// Those who came back first, then the head of the line; who is not there is passed over.
    fn admit(&mut self, showtime: ShowtimeId, now: TimeMs) {
        let house = self.house_mut(showtime);
        let line = house.line;
        house.earn_credit(now);
        while let Some(entry) = self.houses[&showtime].next_in_line() {
            let house = self.house_mut(showtime);
            if line.mode == LineMode::Fifo && !house.has_room() {
                break;
            }
            let it = house.entry_mut(entry);
            let gone = now.since_ms(it.seen_at) > line.grace_ms.into();
            if gone && line.mode == LineMode::Fifo {
                let was = std::mem::replace(&mut it.place, Place::Passed);
                it.back = false;
                let number = it.number;
                if was == Place::Waiting {
                    self.emit(now, showtime, &[Body::Passed { entry, number }], None);
                }
                continue;
            }
            let admitted = it.admit(entry, now, line);
            if line.mode == LineMode::Fifo {
                house.credit -= ADMISSION;
            }
            self.emit(now, showtime, &[admitted], None);
        }
    }
}

/// Events.
impl Naive {
    /// The last number given to an event.
    pub fn claimed(&self) -> Seq {
        self.claimed
    }

    /// Moves the events since the last call to the end of `out`.
    pub fn drain(&mut self, out: &mut Batch) {
        out.events.append(&mut self.out.events);
        out.blobs.append(&mut self.out.blobs);
    }

    /// One decision: consecutive numbers, the blob with the first event.
    fn emit(
        &mut self,
        at: TimeMs,
        showtime: ShowtimeId,
        bodies: &[Body],
        blob: Option<Box<[u8]>>,
    ) -> Seq {
        let has_blob = blob.is_some();
        self.out.blobs.extend(blob.map(|blob| (self.claimed.next(), blob)));
        for (n, body) in bodies.iter().enumerate() {
            self.claimed = self.claimed.next();
            let event = Event {
                seq: self.claimed,
                at,
                showtime,
                more_follows: n + 1 < bodies.len(),
                has_blob: has_blob && n == 0,
                body: *body,
            };
            self.out.events.push(event.pack());
        }
        self.claimed
    }

    fn emit_seats(
        &mut self,
        at: TimeMs,
        showtime: ShowtimeId,
        parts: &[Part],
        first: impl FnOnce(Part) -> Body,
        blob: Option<Box<[u8]>>,
    ) -> Seq {
        let mut bodies = vec![first(parts[0])];
        for more in parts[1..].chunks(PARTS_PER_MORE) {
            let mut parts = [Part::default(); PARTS_PER_MORE];
            parts[..more.len()].copy_from_slice(more);
            bodies.push(Body::More { parts });
        }
        self.emit(at, showtime, &bodies, blob)
    }

    fn house_mut(&mut self, showtime: ShowtimeId) -> &mut House {
        self.houses.get_mut(&showtime).expect("the showtime is open")
    }
}

impl House {
    /// All seats free, nobody in the line, on sale for ever.
    fn new(
        layout: &Arc<Layout>,
        limit: u32,
        hold_ttl_ms: u32,
        line: LineSettings,
        now: TimeMs,
    ) -> House {
        House {
            layout: Arc::clone(layout),
            limit,
            hold_ttl_ms,
            line,
            opens_at: TimeMs(0),
            closes_at: TimeMs(u64::MAX),
            taken: HashMap::new(),
            entries: Vec::new(),
            entry_of: HashMap::new(),
            last_number: LineNumber::NONE,
            credit: ADMISSION,
            credited_at: now,
        }
    }

    fn entry_mut(&mut self, entry: EntryId) -> &mut Entry {
        &mut self.entries[entry.0 as usize]
    }

    fn entry_ids(&self) -> impl Iterator<Item = EntryId> + use<> {
        (0..self.entries.len() as u32).map(EntryId)
    }

    fn entry_of(&mut self, buyer: BuyerId, now: TimeMs) -> EntryId {
        *self.entry_of.entry(buyer).or_insert_with(|| {
            self.entries.push(Entry {
                joined_seq: Seq(0),
                number: LineNumber::NONE,
                place: Place::Out,
                session_until: TimeMs(0),
                seats_used: 0,
                seen_at: now,
                back: false,
            });
            EntryId(self.entries.len() as u32 - 1)
        })
    }

    fn touch(&mut self, entry: EntryId, now: TimeMs) {
        let it = self.entry_mut(entry);
        it.seen_at = it.seen_at.max(now);
        it.back |= it.place == Place::Passed;
    }

    /// Paused: nobody. Else the lowest number that came back, else the lowest that waits.
    fn next_in_line(&self) -> Option<EntryId> {
        let first = |wanted: fn(&Entry) -> bool| {
            let ids = self.entry_ids().zip(&self.entries).filter(move |(_, it)| wanted(it));
            ids.min_by_key(|(_, it)| it.number).map(|(id, _)| id)
        };
        if self.line.mode == LineMode::Paused {
            return None;
        }
        first(|it| it.back).or_else(|| first(|it| it.place == Place::Waiting))
    }

    fn has_room(&self) -> bool {
        let active = self.entries.iter().filter(|it| it.place == Place::Admitted).count();
        let flows = self.line.rate_per_1000s > 0 && self.credit >= ADMISSION;
        active < self.line.max_active as usize && flows
    }

    fn earn_credit(&mut self, now: TimeMs) {
        let rate = u64::from(self.line.rate_per_1000s);
        let earned = rate.saturating_mul(now.since_ms(self.credited_at));
        self.credit = self.credit.saturating_add(earned).min(ADMISSION.max(rate * BURST_MS));
        self.credited_at = self.credited_at.max(now);
    }
}

impl Entry {
    fn admit(&mut self, entry: EntryId, now: TimeMs, line: LineSettings) -> Body {
        self.session_until = now.plus_ms(line.session_ms.into());
        (self.place, self.back) = (Place::Admitted, false);
        Body::Admitted { entry, number: self.number, until: self.session_until }
    }
}
