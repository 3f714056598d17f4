//! How a handle makes a hold: the path that a crowd takes.
//!
//! What can be loaded is loaded before the first exchange, and nothing is written before all but
//! the seats is known to allow it. From the claim of the number on nothing can fail, and nobody
//! waits for what is still to be written: the account is settled first, the record and the event,
//! whose cache lines may be cold, come last.

use super::{Access, Context, Handle, Held, HoldRequest, check_ttl};
use crate::best::{BEST_SEATS_MAX, BestRequest, take_best};
use crate::entry::{EntryWord, Stand, Turn};
use crate::event::Body;
use crate::hold::{Facts, NewRecord, Slab};
use crate::house::House;
use crate::ids::{EntryId, HoldId, HoldSlot, Part};
use crate::reject::Reject;

/// A hold that only its seats can refuse now.
struct Start<'a> {
    turn: Turn<'a>,
    record: NewRecord<'a>,
    entry: EntryId,
    seats: u32,
    ttl_ms: u32,
}

impl Handle {
    /// Holds exactly the seats of `parts`, whose blocks ascend, all or none of them.
    ///
    /// # Errors
    ///
    /// `SeatUnavailable`, `Contended`, `SaleNotOpen`, `AdmissionRequired`, `LimitExceeded`,
    /// `UnknownSeat`, `TooMany`, `TtlOutOfRange`, `RingFull`, `SlabFull`.
    pub fn hold(
        &mut self,
        house: &House,
        request: HoldRequest,
        parts: &[Part],
        context: Context,
    ) -> Result<Held, Reject> {
        let Handle { access, slots, parts: own } = self;
        let seats = house.map.look(parts)?;
        let start = begin(access, slots, house, request, seats, parts.len(), context)?;
        if let Err(reject) = house.map.take(parts) {
            start.turn.end();
            return Err(reject);
        }
        own.clear();
        match parts {
            [part] => own.push(*part),
            _ => own.extend_from_slice(parts),
        }
        Ok(finish(access, slots, house, start, parts, context))
    }

    /// Holds the best seats that the request allows.
    ///
    /// # Errors
    ///
    /// As [`hold`](Self::hold), and `NoAdjacentSeats` or `SoldOut` instead of `SeatUnavailable`.
    pub fn hold_best(
        &mut self,
        house: &House,
        request: HoldRequest,
        best: BestRequest,
        context: Context,
    ) -> Result<Held, Reject> {
        if best.count == 0 || best.count > BEST_SEATS_MAX {
            return Err(Reject::TooMany);
        }
        let Handle { access, slots, parts } = self;
        let parts_max = best.count as usize;
        let start = begin(access, slots, house, request, best.count, parts_max, context)?;
        if let Err(reject) = take_best(house, best, parts) {
            start.turn.end();
            return Err(reject);
        }
        Ok(finish(access, slots, house, start, parts, context))
    }
}

/// Everything that can refuse a hold but its seats. Refuses without a write, unless another
/// request of the buyer changed his account just now.
#[inline(always)]
fn begin<'a>(
    access: &'a Access,
    slots: &mut Vec<HoldSlot>,
    house: &'a House,
    request: HoldRequest,
    seats: u32,
    parts: usize,
    context: Context,
) -> Result<Start<'a>, Reject> {
    let account = house.line.account(request.entry).ok_or(Reject::AdmissionRequired)?;
    let seen = account.look();
    let ttl_ms = request.ttl_ms.unwrap_or_else(|| house.terms.hold_ttl_ms());
    check_ttl(ttl_ms)?;
    access.check_room()?;
    if !house.terms.on_sale(context.now) {
        return Err(Reject::SaleNotOpen);
    }
    may_hold(house, request, seats, seen)?;
    let records = Slab::records_for(parts);
    if !access.shared.slab.fill(slots, records) {
        return Err(Reject::SlabFull);
    }
    let record = access.shared.slab.new_record(slots);
    let turn = account.turn()?;
    if turn.seen() != seen
        && let Err(reject) = may_hold(house, request, seats, turn.seen())
    {
        turn.end();
        return Err(reject);
    }
    Ok(Start { turn, record, entry: request.entry, seats, ttl_ms })
}

/// Whether the buyer's account allows a hold of so many seats more.
#[inline(always)]
fn may_hold(
    house: &House,
    request: HoldRequest,
    seats: u32,
    seen: EntryWord,
) -> Result<(), Reject> {
    let let_in = request.admitted_by_caller || seen.stand() == Stand::Admitted;
    if !seen.known() || !let_in && !house.terms.is_open() {
        return Err(Reject::AdmissionRequired);
    }
    let (limit, used) = (house.terms.limit(), seen.seats());
    if used + seats > limit { Err(Reject::LimitExceeded { limit, used }) } else { Ok(()) }
}

/// The seats of `parts` are taken: number, the buyer's account, record, event.
#[inline(always)]
fn finish(
    access: &Access,
    slots: &mut Vec<HoldSlot>,
    house: &House,
    start: Start<'_>,
    parts: &[Part],
    context: Context,
) -> Held {
    let Start { turn, record, entry, seats, ttl_ms } = start;
    let now = context.now;
    let decision = access.claim(house, parts, now);
    // Whoever has the next turn claims a higher number; what follows is not for him to wait for,
    // and the account is right before anybody can end this hold.
    turn.end_with_hold(seats);
    let deadline = now.plus_ms(ttl_ms.into());
    let facts = Facts { entry, house: house.index, created_at: now };
    let (slot, seq) = (record.slot(), decision.first_seq());
    access.shared.slab.make(slots, record, seq, facts, deadline, parts);
    let body = Body::Held { slot, entry, ttl_ms, first: parts[0], key: context.key };
    let last = decision.publish_parts(body, parts, None);
    Held { id: HoldId { slot, seq }, deadline, seq: last }
}
