//! The operations: each checks, takes, claims its number, publishes, and only then gives back.
//!
//! The order inside an operation is the protocol of the crate's front page. A refusal has
//! written nothing that anyone can see.

mod hold;
mod show;

use std::sync::Arc;

use crate::emit::Decision;
use crate::engine::Shared;
use crate::event::{Body, LineSettings};
use crate::hold::{Facts, Found, Owned, State};
use crate::hold::{HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN};
use crate::house::House;
use crate::ids::{EntryId, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq};
use crate::ids::{ShowtimeId, TimeMs, count_seats};
use crate::layout::Layout;
use crate::reject::Reject;
use crate::ring::Writer;

/// What every request brings along.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The time, by the caller's clock. It never goes back by more than the calls in flight.
    pub now: TimeMs,
    /// The client's idempotency key.
    pub key: RequestKey,
}

impl Context {
    /// At `now`, without a key.
    pub fn at(now: TimeMs) -> Context {
        Context { now, key: RequestKey::NONE }
    }
}

/// A showtime to put on sale.
#[derive(Clone, Debug)]
pub struct OpenShowtime {
    /// Which.
    pub showtime: ShowtimeId,
    /// Its layout.
    pub layout: Arc<Layout>,
    /// The layout as the log carries it.
    pub blob: Box<[u8]>,
    /// Seats a buyer may have held or bought at a time, 1 to [`LIMIT_MAX`](crate::LIMIT_MAX).
    pub limit: u32,
    /// How long a hold lasts unless the request says otherwise, in ms.
    pub hold_ttl_ms: u32,
    /// The line's settings.
    pub line: LineSettings,
    /// Holds are made from this time on.
    pub opens_at: TimeMs,
    /// Holds are made before this time.
    pub closes_at: TimeMs,
}

/// For whom a hold is, and how long.
#[derive(Clone, Copy, Debug)]
pub struct HoldRequest {
    /// The buyer's entry.
    pub entry: EntryId,
    /// Until the deadline, in ms; the showtime's hold time if `None`.
    pub ttl_ms: Option<u32>,
    /// Somebody else answers for the buyer's admission: a partner, a box office.
    pub admitted_by_caller: bool,
}

/// A hold that was made; [`Handle::parts`] has its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: HoldId,
    /// Until when.
    pub deadline: TimeMs,
    /// The last event of the decision.
    pub seq: Seq,
}

/// A hold whose deadline was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The new deadline.
    pub deadline: TimeMs,
    /// The event.
    pub seq: Seq,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The buyer's entry.
    pub entry: EntryId,
    /// The number.
    pub number: LineNumber,
    /// The last event of the join that gave it.
    pub seq: Seq,
    /// `false` if the buyer was in already.
    pub fresh: bool,
}

/// What came of an attempt of the keeper to end a hold or a session.
pub(crate) enum Expiry {
    /// It has ended, now or before, or is an order.
    Done,
    /// Its time comes later.
    Later(TimeMs),
    /// The session is over, but a hold is active.
    Held,
    /// Somebody owns the word, or the ring is full.
    NotNow,
}

/// What all threads share, and one thread's right to write into the ring.
struct Access {
    shared: Arc<Shared>,
    writer: Writer,
}

/// The right of one thread at a time to decide. Dropping it returns it.
pub struct Handle {
    access: Access,
    /// Free slab slots that only this handle uses.
    slots: Vec<HoldSlot>,
    /// See [`parts`](Self::parts); kept so that a decision allocates nothing.
    parts: Vec<Part>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Handle {
        let writer = Writer::new(Arc::clone(&shared.ring));
        let access = Access { shared, writer };
        Handle { access, slots: Vec::new(), parts: Vec::new() }
    }

    /// To write decisions of the thread that owns the handle.
    pub(crate) fn writer(&self) -> &Writer {
        &self.access.writer
    }

    /// The seats that the last call decided about, in ascending order of their blocks; of no
    /// meaning after a refusal.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Moves a hold's deadline to `ttl_ms` from now, but not beyond [`HOLD_TTL_MS_MAX`] from its
    /// making.
    ///
    /// # Errors
    ///
    /// `HoldExpired`, `HoldConfirmed`, `HoldGone`, `Contended`, `TtlOutOfRange`, `RingFull`.
    pub fn extend(
        &mut self,
        id: HoldId,
        ttl_ms: u32,
        context: Context,
    ) -> Result<Extended, Reject> {
        check_ttl(ttl_ms)?;
        let now = context.now;
        let Handle { access, parts, .. } = self;
        let owned = own_active(access, id, now)?;
        owned.parts(parts);
        let facts = owned.facts();
        let latest = facts.created_at.plus_ms(HOLD_TTL_MS_MAX.into());
        let deadline = now.plus_ms(ttl_ms.into()).min(latest);
        let ttl_ms = deadline.since_ms(now) as u32;
        let house = access.shared.house(facts.house);
        let body = Body::Extended { hold: id, entry: facts.entry, first: parts[0], ttl_ms };
        let seq = access.claim(house, parts, now).publish_parts(body, parts, None);
        owned.settle(deadline, State::Active);
        Ok(Extended { deadline, seq })
    }

    /// Makes an order of a hold. `blob` is the payment reference.
    ///
    /// # Errors
    ///
    /// `HoldExpired` at or after the deadline, `HoldConfirmed`, `HoldGone`, `Contended`,
    /// `RingFull`.
    pub fn confirm(
        &mut self,
        id: HoldId,
        blob: Option<Box<[u8]>>,
        context: Context,
    ) -> Result<Seq, Reject> {
        let Handle { access, parts, .. } = self;
        let owned = own_active(access, id, context.now)?;
        owned.parts(parts);
        let Facts { entry, house, .. } = owned.facts();
        let house = access.shared.house(house);
        let body = Body::Confirmed { hold: id, entry, first: parts[0], key: context.key };
        let decision = access.claim(house, parts, context.now);
        house.line.give_back(entry, 0, true);
        let seq = decision.publish_parts(body, parts, blob);
        parts.iter().for_each(|part| house.map.set_sold(*part, true));
        let deadline = owned.deadline();
        owned.settle(deadline, State::Confirmed);
        Ok(seq)
    }

    /// Gives a hold up.
    ///
    /// # Errors
    ///
    /// `HoldExpired` at or after the deadline, `HoldConfirmed`, `HoldGone`, `Contended`,
    /// `RingFull`.
    pub fn release(&mut self, id: HoldId, context: Context) -> Result<Seq, Reject> {
        let Handle { access, slots, parts } = self;
        let owned = own_active(access, id, context.now)?;
        let make = |entry, first| Body::Released { hold: id, entry, first };
        Ok(free(access, slots, parts, owned, true, context.now, make))
    }

    /// Ends the hold of a record if its deadline is not after `now`; for the keeper.
    pub(crate) fn expire(&mut self, slot: HoldSlot, now: TimeMs) -> Expiry {
        let Handle { access, slots, parts } = self;
        let (id, found) = access.shared.slab.in_slot(slot);
        let seen = match found {
            Found::Active(seen) if seen.deadline() > now => return Expiry::Later(seen.deadline()),
            Found::Active(seen) => seen,
            Found::Confirmed(_) | Found::Gone => return Expiry::Done,
            Found::Contended => return Expiry::NotNow,
        };
        if !access.writer.has_room() {
            return Expiry::NotNow;
        }
        let Some(owned) = seen.own() else { return Expiry::NotNow };
        let make = |entry, first| Body::Expired { hold: id, entry, first };
        free(access, slots, parts, owned, true, now, make);
        Expiry::Done
    }

    /// Gives an order back; its seats are free again.
    ///
    /// # Errors
    ///
    /// `HoldGone` if it is no order (any more), `Contended`, `RingFull`.
    pub fn refund(&mut self, id: HoldId, context: Context) -> Result<Seq, Reject> {
        let Handle { access, slots, parts } = self;
        access.check_room()?;
        loop {
            match access.shared.slab.find(id) {
                Found::Confirmed(seen) => {
                    let Some(owned) = seen.own() else { continue };
                    let key = context.key;
                    let make = |entry, first| Body::Refunded { hold: id, entry, first, key };
                    return Ok(free(access, slots, parts, owned, false, context.now, make));
                }
                Found::Active(_) | Found::Gone => return Err(Reject::HoldGone),
                Found::Contended => return Err(Reject::Contended),
            }
        }
    }

    /// Takes seats off sale, all or none. `blob` is the reason.
    ///
    /// # Errors
    ///
    /// `SeatUnavailable`, `Contended`, `UnknownSeat`, `TooMany`, `RingFull`.
    pub fn block(
        &mut self,
        house: &House,
        parts: &[Part],
        blob: Option<Box<[u8]>>,
        context: Context,
    ) -> Result<Seq, Reject> {
        house.map.check(parts)?;
        self.access.check_room()?;
        house.map.take(parts)?;
        let body = Body::Blocked { first: parts[0], key: context.key };
        self.parts.clear();
        self.parts.extend_from_slice(parts);
        let seq = self.publish_seats(house, body, blob, context.now);
        // Marked after the number is claimed: who unblocks them comes later in the log.
        parts.iter().for_each(|part| house.map.set_blocked(*part, true));
        Ok(seq)
    }

    /// Puts blocked seats on sale again, all or none.
    ///
    /// # Errors
    ///
    /// `NotBlocked`, `Contended`, `UnknownSeat`, `TooMany`, `RingFull`.
    pub fn unblock(
        &mut self,
        house: &House,
        parts: &[Part],
        blob: Option<Box<[u8]>>,
        context: Context,
    ) -> Result<Seq, Reject> {
        house.map.check(parts)?;
        self.access.check_room()?;
        // One at a time: only an unblocking makes bits of `blocked` go, so what it looked at stays.
        if !house.terms.begin_change() {
            return Err(Reject::Contended);
        }
        if let Some(others) = parts.iter().find_map(|part| house.map.not_blocked(*part)) {
            house.terms.end_change();
            return Err(Reject::NotBlocked(others));
        }
        parts.iter().for_each(|part| house.map.set_blocked(*part, false));
        house.terms.end_change();
        let body = Body::Unblocked { first: parts[0], key: context.key };
        self.parts.clear();
        self.parts.extend_from_slice(parts);
        let seq = self.publish_seats(house, body, blob, context.now);
        parts.iter().for_each(|part| house.map.give_back(*part));
        Ok(seq)
    }

    /// Claims and publishes a decision about `self.parts`; gives its last number.
    fn publish_seats(
        &self,
        house: &House,
        body: Body,
        blob: Option<Box<[u8]>>,
        now: TimeMs,
    ) -> Seq {
        self.access.claim(house, &self.parts, now).publish_parts(body, &self.parts, blob)
    }
}

impl Access {
    #[inline]
    fn check_room(&self) -> Result<(), Reject> {
        if self.writer.has_room() { Ok(()) } else { Err(Reject::RingFull) }
    }

    /// Claims the numbers of a decision about `parts`.
    #[inline]
    fn claim(&self, house: &House, parts: &[Part], now: TimeMs) -> Decision<'_> {
        Decision::claim_for(&self.writer, now, house.showtime(), parts)
    }
}

/// Owns an active hold; refuses one at or past its deadline, whether or not the keeper has come to
/// end it: it can only expire.
#[inline]
fn own_active(access: &Access, id: HoldId, now: TimeMs) -> Result<Owned<'_>, Reject> {
    access.check_room()?;
    loop {
        match access.shared.slab.find(id) {
            Found::Active(seen) if now >= seen.deadline() => return Err(Reject::HoldExpired),
            Found::Active(seen) => {
                if let Some(owned) = seen.own() {
                    return Ok(owned);
                }
            }
            Found::Confirmed(_) => return Err(Reject::HoldConfirmed),
            Found::Gone => return Err(Reject::HoldGone),
            Found::Contended => return Err(Reject::Contended),
        }
    }
}

/// Ends an owned hold or order: number, the buyer's account, event, and then the seats. Its parts
/// are in `parts` afterwards, its records in `slots`.
#[inline]
fn free(
    access: &Access,
    slots: &mut Vec<HoldSlot>,
    parts: &mut Vec<Part>,
    owned: Owned<'_>,
    active: bool,
    now: TimeMs,
    make: impl FnOnce(EntryId, Part) -> Body,
) -> Seq {
    owned.parts(parts);
    let Facts { entry, house, .. } = owned.facts();
    let house = access.shared.house(house);
    // What is exchanged below, one after the other, is waited for at once.
    house.preload([(entry, &parts[..])]);
    let body = make(entry, parts[0]);
    let decision = access.claim(house, parts, now);
    // Whoever uses what is free on the account now claims a higher number; and whoever reads the
    // event finds the account without this hold.
    house.line.give_back(entry, count_seats(parts), active);
    let seq = decision.publish_parts(body, parts, None);
    for part in &*parts {
        if !active {
            house.map.set_sold(*part, false);
        }
        house.map.give_back(*part);
    }
    owned.end(slots);
    seq
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.access.shared.slab.spill_all(&mut self.slots);
        self.access.shared.drop_handle();
    }
}

#[inline]
fn check_ttl(ttl_ms: u32) -> Result<(), Reject> {
    if (HOLD_TTL_MS_MIN..=HOLD_TTL_MS_MAX).contains(&ttl_ms) {
        Ok(())
    } else {
        Err(Reject::TtlOutOfRange)
    }
}
