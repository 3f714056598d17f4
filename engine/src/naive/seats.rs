//! Holds, orders and blocked seats.

use super::{Hold, House, Naive, Taken};
use crate::best::BestRequest;
use crate::entry::LIMIT_MAX;
use crate::event::{Body, LineMode};
use crate::handle::{Context, Extended, Held, HoldRequest};
use crate::hold::{HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN};
use crate::ids::{EntryId, HoldId, HoldSlot, Part, Seq, ShowtimeId, TimeMs, count_seats};
use crate::reject::Reject;
use crate::ring::PARTS_MAX;
use crate::state::{HoldState, Place};

impl Naive {
    /// Holds exactly these seats.
    ///
    /// # Errors
    ///
    /// The first of [`refusals`](Self::refusals).
    pub fn hold(
        &mut self,
        showtime: ShowtimeId,
        request: HoldRequest,
        parts: &[Part],
        ctx: Context,
    ) -> Result<Held, Reject> {
        match self.refusals(showtime, request, parts, ctx.now).first() {
            Some(reject) => Err(*reject),
            None => Ok(self.take(showtime, request, parts.to_vec(), ctx)),
        }
    }

    /// Every true reason to refuse a hold of these seats; none if it would be granted.
    pub fn refusals(
        &self,
        showtime: ShowtimeId,
        request: HoldRequest,
        parts: &[Part],
        now: TimeMs,
    ) -> Vec<Reject> {
        let house = &self.houses[&showtime];
        let mut reasons = house.refusals_but_seats(request, count_seats(parts), now);
        reasons.extend(house.malformed(parts));
        let taken = parts.iter().filter_map(|part| house.taken_of(*part));
        reasons.extend(taken.map(Reject::SeatUnavailable));
        reasons
    }

    /// Holds the best seats that fit.
    ///
    /// # Errors
    ///
    /// The first of [`refusals_best`](Self::refusals_best).
    pub fn hold_best(
        &mut self,
        showtime: ShowtimeId,
        request: HoldRequest,
        best: BestRequest,
        ctx: Context,
    ) -> Result<Held, Reject> {
        match self.choose_best(showtime, request, best, ctx.now) {
            Ok(parts) => Ok(self.take(showtime, request, parts, ctx)),
            Err(reasons) => Err(reasons[0]),
        }
    }

    /// Every true reason to refuse the best seats; none if it would be granted.
    pub fn refusals_best(
        &self,
        showtime: ShowtimeId,
        request: HoldRequest,
        best: BestRequest,
        now: TimeMs,
    ) -> Vec<Reject> {
        self.choose_best(showtime, request, best, now).err().unwrap_or_default()
    }

    /// The seats of an active hold or an order.
    pub fn parts(&self, id: HoldId) -> Option<&[Part]> {
        self.holds.get(&id).map(|hold| hold.parts.as_slice())
    }

    /// Gives an active hold a new deadline.
    ///
    /// # Errors
    ///
    /// [`Reject::TtlOutOfRange`], [`Reject::HoldExpired`], [`Reject::HoldConfirmed`],
    /// [`Reject::HoldGone`].
    pub fn extend(&mut self, id: HoldId, ttl_ms: u32, ctx: Context) -> Result<Extended, Reject> {
        if !(HOLD_TTL_MS_MIN..=HOLD_TTL_MS_MAX).contains(&ttl_ms) {
            return Err(Reject::TtlOutOfRange);
        }
        let hold = self.active(id)?;
        if hold.deadline <= ctx.now {
            return Err(Reject::HoldExpired);
        }
        let life_end = hold.created_at.plus_ms(HOLD_TTL_MS_MAX.into());
        hold.deadline = ctx.now.plus_ms(ttl_ms.into()).min(life_end);
        let (showtime, entry, deadline) = (hold.showtime, hold.entry, hold.deadline);
        let parts = hold.parts.clone();
        let ttl_ms = deadline.since_ms(ctx.now) as u32;
        let first = |first| Body::Extended { hold: id, entry, first, ttl_ms };
        let seq = self.emit_seats(ctx.now, showtime, &parts, first, None);
        Ok(Extended { deadline, seq })
    }

    /// Makes an order of an active hold.
    ///
    /// # Errors
    ///
    /// [`Reject::HoldExpired`], [`Reject::HoldConfirmed`], [`Reject::HoldGone`].
    pub fn confirm(
        &mut self,
        id: HoldId,
        blob: Option<Box<[u8]>>,
        ctx: Context,
    ) -> Result<Seq, Reject> {
        let hold = self.active(id)?;
        if hold.deadline <= ctx.now {
            return Err(Reject::HoldExpired);
        }
        hold.confirmed = true;
        let (showtime, entry, parts) = (hold.showtime, hold.entry, hold.parts.clone());
        self.house_mut(showtime).mark(&parts, Taken::Sold);
        let key = ctx.key;
        let first = |first| Body::Confirmed { hold: id, entry, first, key };
        Ok(self.emit_seats(ctx.now, showtime, &parts, first, blob))
    }

    /// Gives an active hold up.
    ///
    /// # Errors
    ///
    /// [`Reject::HoldExpired`], [`Reject::HoldConfirmed`], [`Reject::HoldGone`].
    pub fn release(&mut self, id: HoldId, ctx: Context) -> Result<Seq, Reject> {
        if self.active(id)?.deadline <= ctx.now {
            return Err(Reject::HoldExpired);
        }
        Ok(self.end(id, ctx.now, |entry, first| Body::Released { hold: id, entry, first }))
    }

    /// Takes an order back.
    ///
    /// # Errors
    ///
    /// [`Reject::HoldGone`] if it is no order.
    pub fn refund(&mut self, id: HoldId, ctx: Context) -> Result<Seq, Reject> {
        let key = ctx.key;
        match self.holds.get(&id) {
            Some(hold) if hold.confirmed => Ok(self
                .end(id, ctx.now, |entry, first| Body::Refunded { hold: id, entry, first, key })),
            _ => Err(Reject::HoldGone),
        }
    }

    /// Takes free seats off sale.
    ///
    /// # Errors
    ///
    /// [`Reject::SeatUnavailable`], [`Reject::UnknownSeat`], [`Reject::TooMany`].
    pub fn block(
        &mut self,
        showtime: ShowtimeId,
        parts: &[Part],
        blob: Option<Box<[u8]>>,
        ctx: Context,
    ) -> Result<Seq, Reject> {
        let house = self.house_mut(showtime);
        if let Some(reject) = house.malformed(parts) {
            return Err(reject);
        }
        if let Some(taken) = parts.iter().find_map(|part| house.taken_of(*part)) {
            return Err(Reject::SeatUnavailable(taken));
        }
        house.mark(parts, Taken::Blocked);
        let first = |first| Body::Blocked { first, key: ctx.key };
        Ok(self.emit_seats(ctx.now, showtime, parts, first, blob))
    }

    /// Puts blocked seats back on sale.
    ///
    /// # Errors
    ///
    /// [`Reject::NotBlocked`], [`Reject::UnknownSeat`], [`Reject::TooMany`].
    pub fn unblock(
        &mut self,
        showtime: ShowtimeId,
        parts: &[Part],
        blob: Option<Box<[u8]>>,
        ctx: Context,
    ) -> Result<Seq, Reject> {
        let house = self.house_mut(showtime);
        if let Some(reject) = house.malformed(parts) {
            return Err(reject);
        }
        if let Some(others) = parts.iter().find_map(|part| house.not_blocked(*part)) {
            return Err(Reject::NotBlocked(others));
        }
        house.free(parts);
        let first = |first| Body::Unblocked { first, key: ctx.key };
        Ok(self.emit_seats(ctx.now, showtime, parts, first, blob))
    }

    fn take(
        &mut self,
        showtime: ShowtimeId,
        request: HoldRequest,
        parts: Vec<Part>,
        ctx: Context,
    ) -> Held {
        let entry = request.entry;
        let house = self.house_mut(showtime);
        house.mark(&parts, Taken::Held);
        house.entry_mut(entry).seats_used += count_seats(&parts);
        let ttl_ms = request.ttl_ms.unwrap_or(house.hold_ttl_ms);
        let deadline = ctx.now.plus_ms(ttl_ms.into());
        let next_slot = HoldSlot(self.holds.len() as u32);
        let slot = self.slots_free.pop().unwrap_or(next_slot);
        let id = HoldId { slot, seq: self.claimed.next() };
        let first = |first| Body::Held { slot, entry, ttl_ms, first, key: ctx.key };
        let seq = self.emit_seats(ctx.now, showtime, &parts, first, None);
        let hold = Hold { showtime, entry, created_at: ctx.now, deadline, confirmed: false, parts };
        self.holds.insert(id, hold);
        Held { id, deadline, seq }
    }

    pub(super) fn restore_hold(&mut self, state: HoldState<'_>, confirmed: bool) {
        let house = self.house_mut(state.showtime);
        house.mark(state.parts, if confirmed { Taken::Sold } else { Taken::Held });
        house.entry_mut(state.entry).seats_used += count_seats(state.parts);
        let hold = Hold {
            showtime: state.showtime,
            entry: state.entry,
            created_at: state.created_at,
            deadline: state.deadline,
            confirmed,
            parts: state.parts.to_vec(),
        };
        self.holds.insert(state.id, hold);
    }

    fn active(&mut self, id: HoldId) -> Result<&mut Hold, Reject> {
        match self.holds.get_mut(&id) {
            Some(hold) if hold.confirmed => Err(Reject::HoldConfirmed),
            Some(hold) => Ok(hold),
            None => Err(Reject::HoldGone),
        }
    }

    /// Ends a hold or an order: its seats and the buyer's limit are free again.
    pub(super) fn end(
        &mut self,
        id: HoldId,
        now: TimeMs,
        body: impl Fn(EntryId, Part) -> Body,
    ) -> Seq {
        let hold = self.holds.remove(&id).expect("the caller found it");
        self.slots_free.push(id.slot);
        let house = self.house_mut(hold.showtime);
        house.free(&hold.parts);
        house.entry_mut(hold.entry).seats_used -= count_seats(&hold.parts);
        let first = |first| body(hold.entry, first);
        self.emit_seats(now, hold.showtime, &hold.parts, first, None)
    }
}

impl House {
    pub(super) fn refusals_but_seats(
        &self,
        request: HoldRequest,
        count: u32,
        now: TimeMs,
    ) -> Vec<Reject> {
        let it = &self.entries[request.entry.0 as usize];
        let ttl_ms = request.ttl_ms.unwrap_or(self.hold_ttl_ms);
        let must_be_admitted = self.line.mode != LineMode::Open && !request.admitted_by_caller;
        let mut reasons = Vec::new();
        if !(HOLD_TTL_MS_MIN..=HOLD_TTL_MS_MAX).contains(&ttl_ms) {
            reasons.push(Reject::TtlOutOfRange);
        }
        if now < self.opens_at || now >= self.closes_at {
            reasons.push(Reject::SaleNotOpen);
        }
        if must_be_admitted && it.place != Place::Admitted {
            reasons.push(Reject::AdmissionRequired);
        }
        if it.seats_used + count > self.limit {
            reasons.push(Reject::LimitExceeded { limit: self.limit, used: it.seats_used });
        }
        reasons
    }

    fn malformed(&self, parts: &[Part]) -> Option<Reject> {
        let known = parts.iter().all(|part| self.layout.has(*part));
        let ascending = parts.is_sorted_by(|a, b| a.block < b.block);
        if parts.is_empty() || !known || !ascending {
            return Some(Reject::UnknownSeat);
        }
        (parts.len() > PARTS_MAX).then_some(Reject::TooMany)
    }

    /// The seats of `part` that are not free, if there are any.
    fn taken_of(&self, part: Part) -> Option<Part> {
        self.those(part, |taken| taken.is_some())
    }

    /// The seats of `part` that are not blocked, if there are any.
    fn not_blocked(&self, part: Part) -> Option<Part> {
        self.those(part, |taken| taken != Some(&Taken::Blocked))
    }

    fn those(&self, part: Part, are: impl Fn(Option<&Taken>) -> bool) -> Option<Part> {
        let those = part.seats().filter(|seat| are(self.taken.get(seat)));
        let mask = those.fold(0, |mask, seat| mask | 1 << seat.bit());
        (mask != 0).then_some(Part { mask, ..part })
    }

    pub(super) fn mark(&mut self, parts: &[Part], taken: Taken) {
        self.taken.extend(parts.iter().flat_map(|part| part.seats()).map(|seat| (seat, taken)));
    }

    fn free(&mut self, parts: &[Part]) {
        for seat in parts.iter().flat_map(|part| part.seats()) {
            self.taken.remove(&seat).expect("it was taken");
        }
    }
}

pub(super) fn check_terms(limit: u32, hold_ttl_ms: u32) -> Result<(), Reject> {
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Reject::TooMany);
    }
    let in_range = (HOLD_TTL_MS_MIN..=HOLD_TTL_MS_MAX).contains(&hold_ttl_ms);
    if in_range { Ok(()) } else { Err(Reject::TtlOutOfRange) }
}
