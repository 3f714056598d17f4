//! The fold: what each event does to an image, and what it must not contradict.

use std::ops::Range;
use std::sync::Arc;

use tmomi_engine::SeatState;
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{EntryId, Epoch, HoldId, Part, Seq, ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;

use super::Image;
use super::decision;
use super::divergence::{Contradiction, Divergence};
use super::hold::{Ending, Hold, Moment, Parts};
use super::holds::{Claim, Holds};
use super::keys::{Keys, Outcome};
use super::showtime::{Past, ShowtimeImage, Terms};
use crate::layout_codec;

/// What a frame did to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Followed {
    /// It is applied.
    Applied,
    /// It is of a reign that has ended: nothing changed, and nobody may be told that it did.
    Stale,
}

/// Events that are read, and whose memory is asked for, before the first of them is applied.
const AHEAD_EVENTS: usize = 32;

/// An event on its way into the image.
#[derive(Clone, Copy)]
struct Step<'a> {
    event: &'a Event,
    /// Its seats, if it is about seats.
    parts: &'a [Part],
    /// The last event of its decision: the number that readers and clients know it by.
    last: Seq,
    /// The end of the session, if the decision lets somebody in.
    admitted_until: Option<TimeMs>,
}

impl<'a> Step<'a> {
    /// What the event says of a hold.
    fn claim(&self, entry: EntryId) -> Claim<'a> {
        Claim { showtime: self.event.showtime, entry, parts: self.parts }
    }

    fn moment(&self) -> Moment {
        Moment { at: self.event.at, seq: self.last }
    }
}

impl Image {
    /// Applies whole decisions.
    ///
    /// # Errors
    ///
    /// [`Divergence`] if an event contradicts those before it. The image is of no use then.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), Divergence> {
        self.apply_slice(batch, 0..batch.events.len())
    }

    /// Applies a frame unless it is of an older reign than the newest one that began.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply), and if a reign begins without its `EpochStart`.
    pub fn follow(&mut self, epoch: Epoch, batch: &Batch) -> Result<Followed, Divergence> {
        if !self.admits(epoch, batch)? {
            return Ok(Followed::Stale);
        }
        self.apply(batch)?;
        Ok(Followed::Applied)
    }

    /// Whether a frame of `epoch` counts; `false` if a later reign has begun.
    pub(crate) fn admits(&self, epoch: Epoch, batch: &Batch) -> Result<bool, Divergence> {
        if epoch < self.epoch {
            return Ok(false);
        }
        let first = batch.events.first().and_then(|words| Event::unpack(words).ok());
        let begins = first.is_some_and(|event| match event.body {
            Body::EpochStart { epoch: begun, .. } => begun == epoch,
            _ => false,
        });
        if epoch > self.epoch && !begins {
            let what = Contradiction::Epoch { current: self.epoch, claimed: epoch };
            let seq = batch.first_seq().unwrap_or_default();
            return Err(Divergence { seq, showtime: ShowtimeId(0), what });
        }
        Ok(true)
    }

    /// Applies the events of `range`, which are whole decisions.
    pub(crate) fn apply_slice(
        &mut self,
        batch: &Batch,
        range: Range<usize>,
    ) -> Result<(), Divergence> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut rest = &batch.events[range];
        while !rest.is_empty() {
            ahead.read_some(rest, AHEAD_EVENTS)?;
            self.ask_for(ahead.events());
            let decisions = ahead.events().split_inclusive(|event| !event.more_follows);
            for decision in decisions {
                self.apply_decision(decision, batch)?;
            }
            rest = &rest[ahead.events().len()..];
        }
        self.ahead = ahead;
        Ok(())
    }

    fn apply_decision(&mut self, decision: &[Event], batch: &Batch) -> Result<(), Divergence> {
        // Most decisions are one event with one part, and no admission is alone with what it is
        // the answer to.
        if let [event] = decision {
            let first = event.body.first_part().filter(|part| part.mask != 0);
            let (parts, last) = (first.as_slice(), event.seq);
            return self.apply_event(Step { event, parts, last, admitted_until: None }, batch);
        }
        let mut parts = std::mem::take(&mut self.parts);
        let last = decision.last().map(|event| event.seq).unwrap_or_default();
        let admitted_until = decision::admitted_until(&decision[1..]);
        for (index, event) in decision.iter().enumerate() {
            parts.clear();
            parts.extend(decision::parts(decision, index));
            if let Body::More { .. } = event.body
                && decision::continues_seats(decision, index)
            {
                self.pass(event)?;
            } else {
                self.apply_event(Step { event, parts: &parts, last, admitted_until }, batch)?;
            }
        }
        self.parts = parts;
        Ok(())
    }

    /// The event is the next one, and it is as late as it says.
    fn pass(&mut self, event: &Event) -> Result<(), Divergence> {
        let expected = self.applied.next();
        if event.seq != expected {
            let what = Contradiction::Sequence { expected };
            return Err(Divergence { seq: event.seq, showtime: event.showtime, what });
        }
        self.applied = event.seq;
        self.now = self.now.max(event.at);
        self.keys.forget(self.now);
        self.holds.forget(self.now);
        Ok(())
    }

    fn apply_event(&mut self, step: Step<'_>, batch: &Batch) -> Result<(), Divergence> {
        let event = step.event;
        self.pass(event)?;
        match event.body {
            Body::More { .. } => Err(Contradiction::StrayParts),
            Body::EpochStart { epoch, .. } => self.begin(epoch),
            Body::Opened { limit, hold_ttl_ms } => {
                self.open(step, limit, hold_ttl_ms, blob_of(batch, event.seq))
            }
            _ => self.change(step),
        }
        .map_err(|what| Divergence { seq: event.seq, showtime: event.showtime, what })
    }

    fn begin(&mut self, epoch: Epoch) -> Result<(), Contradiction> {
        if epoch <= self.epoch {
            return Err(Contradiction::Epoch { current: self.epoch, claimed: epoch });
        }
        self.epoch = epoch;
        Ok(())
    }

    fn open(
        &mut self,
        step: Step<'_>,
        limit: u32,
        hold_ttl_ms: u32,
        blob: Option<&[u8]>,
    ) -> Result<(), Contradiction> {
        let id = step.event.showtime;
        if self.showtimes.contains_key(&id) {
            return Err(Contradiction::AlreadyOpen);
        }
        let layout = layout_codec::build(blob.ok_or(Contradiction::NoBlob)?)?;
        let mut showtime = ShowtimeImage::new(self.share(layout), limit, hold_ttl_ms);
        showtime.last_seq = step.last;
        showtime.seats_seq = step.last;
        self.showtimes.insert(id, showtime);
        Ok(())
    }

    /// The layout that a showtime has already, if it is the same: a house is sold many times.
    pub(super) fn share(&self, layout: Layout) -> Arc<Layout> {
        let same = self.showtimes.values().find(|known| known.layout.spec() == layout.spec());
        same.map_or_else(|| Arc::new(layout), |known| Arc::clone(&known.layout))
    }

    /// An event of an open showtime.
    fn change(&mut self, step: Step<'_>) -> Result<(), Contradiction> {
        let showtime = self.showtimes.get_mut(&step.event.showtime);
        let showtime = showtime.ok_or(Contradiction::NotOpen)?;
        showtime.last_seq = step.last;
        Change { showtime, holds: &mut self.holds, keys: &mut self.keys }.apply(step)
    }
}

/// What an event of a showtime changes.
struct Change<'a> {
    showtime: &'a mut ShowtimeImage,
    holds: &'a mut Holds,
    keys: &'a mut Keys,
}

impl Change<'_> {
    fn apply(&mut self, step: Step<'_>) -> Result<(), Contradiction> {
        let (event, showtime) = (step.event, &mut *self.showtime);
        match event.body {
            Body::Terms { limit, hold_ttl_ms } => {
                let limit_highest = showtime.terms.limit_highest.max(limit);
                showtime.terms = Terms { limit, limit_highest, hold_ttl_ms };
                Ok(())
            }
            Body::LineSet(settings) => {
                showtime.settings = settings;
                Ok(())
            }
            Body::Buyer { entry, buyer } => showtime.line.enter(entry, buyer),
            Body::Joined { entry, buyer, number, key } => {
                showtime.line.join(entry, buyer, number)?;
                let (showtime, seq) = (event.showtime, step.last);
                let admitted_until = step.admitted_until;
                let outcome = Outcome::Joined { showtime, entry, number, admitted_until, seq };
                self.keys.remember(key, event.at, outcome);
                Ok(())
            }
            Body::Left { entry, number, was, reason } => {
                showtime.line.leave(entry, number, was, reason)
            }
            Body::Admitted { entry, number, until } => showtime.line.admit(entry, number, until),
            Body::Passed { entry, number } => showtime.line.pass(entry, number),
            Body::Extended { hold, entry, ttl_ms, .. } => {
                let deadline = event.at.plus_ms(ttl_ms.into());
                self.holds.extend(hold, step.claim(entry), deadline)
            }
            _ => {
                showtime.seats_seq = step.last;
                showtime.past = showtime.past.max(match event.body {
                    Body::Held { .. } => Past::Held,
                    Body::Confirmed { .. } => Past::Sold,
                    _ => Past::Untouched,
                });
                self.change_seats(step)
            }
        }
    }

    /// An event that changes seats.
    fn change_seats(&mut self, step: Step<'_>) -> Result<(), Contradiction> {
        let Step { event, last: seq, .. } = step;
        let (at, showtime) = (event.at, event.showtime);
        let outcome = match event.body {
            Body::Held { slot, entry, ttl_ms, .. } => {
                let id = HoldId { slot, seq: event.seq };
                let deadline = at.plus_ms(ttl_ms.into());
                self.take_seats(step, id, entry, deadline)?;
                Outcome::Held { id, deadline, seq }
            }
            Body::Confirmed { hold: id, entry, .. } => {
                let buyer = self.showtime.line.entry(entry).map(|entry| entry.buyer);
                let buyer = buyer.ok_or(Contradiction::NoEntry(entry))?;
                self.holds.confirm(id, step.claim(entry), buyer, step.moment())?;
                self.turn(step, SeatState::Held, SeatState::Sold)?;
                Outcome::Confirmed { id, seq }
            }
            Body::Released { hold, entry, .. } => {
                return self.end(step, hold, entry, Ending::Released);
            }
            Body::Expired { hold, entry, .. } => {
                return self.end(step, hold, entry, Ending::Expired);
            }
            Body::Refunded { hold: id, entry, .. } => {
                self.holds.refund(id, step.claim(entry), step.moment())?;
                let seats = self.turn(step, SeatState::Sold, SeatState::Free)?;
                self.showtime.line.give_back(entry, seats)?;
                Outcome::Refunded { id, seq }
            }
            Body::Blocked { .. } => {
                let seats = self.turn(step, SeatState::Free, SeatState::Blocked)?;
                Outcome::Blocked { showtime, seats, seq }
            }
            Body::Unblocked { .. } => {
                let seats = self.turn(step, SeatState::Blocked, SeatState::Free)?;
                Outcome::Unblocked { showtime, seats, seq }
            }
            _ => unreachable!("the callers have taken every kind that is not about seats"),
        };
        self.keys.remember(event.body.key(), at, outcome);
        Ok(())
    }

    /// Seats are taken for an entry.
    fn take_seats(
        &mut self,
        step: Step<'_>,
        id: HoldId,
        entry: EntryId,
        deadline: TimeMs,
    ) -> Result<(), Contradiction> {
        let seats = self.turn(step, SeatState::Free, SeatState::Held)?;
        let limit = self.showtime.terms.limit_highest;
        self.showtime.line.take(entry, seats, limit)?;
        let (showtime, created_at) = (step.event.showtime, step.event.at);
        let parts = Parts::new(step.parts);
        self.holds.hold(Hold { id, showtime, entry, created_at, deadline, parts })
    }

    /// A hold is released or expires.
    fn end(
        &mut self,
        step: Step<'_>,
        id: HoldId,
        entry: EntryId,
        how: Ending,
    ) -> Result<(), Contradiction> {
        self.holds.end(id, step.claim(entry), how, step.moment())?;
        let seats = self.turn(step, SeatState::Held, SeatState::Free)?;
        self.showtime.line.give_back(entry, seats)
    }

    fn turn(
        &mut self,
        step: Step<'_>,
        from: SeatState,
        to: SeatState,
    ) -> Result<u32, Contradiction> {
        let ShowtimeImage { seats, layout, .. } = &mut *self.showtime;
        seats.turn(layout, step.parts, from, to)
    }
}

fn blob_of(batch: &Batch, seq: Seq) -> Option<&[u8]> {
    let index = batch.blobs.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
    Some(&batch.blobs[index].1)
}
