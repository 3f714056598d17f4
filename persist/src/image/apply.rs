//! The fold: what each event does to an image, and what it must not contradict.

use std::ops::Range;
use std::sync::Arc;

use tmomi_engine::SeatState;
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{EntryId, Epoch, HoldId, Part, Seq, ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;

use super::Image;
use super::decision::Decision;
use super::divergence::{Contradiction, Divergence};
use super::holds::{Ending, Hold, Moment, Parts};
use super::keys::Outcome;
use super::line::Line;
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
        let mut decision = std::mem::take(&mut self.decision);
        let mut rest = &batch.events[range];
        while !rest.is_empty() {
            decision.read(rest)?;
            self.apply_decision(&decision, batch)?;
            rest = &rest[decision.events().len()..];
        }
        self.decision = decision;
        Ok(())
    }

    fn apply_decision(&mut self, decision: &Decision, batch: &Batch) -> Result<(), Divergence> {
        let mut parts = std::mem::take(&mut self.parts);
        let admitted_until = decision.admitted_until();
        for (index, event) in decision.events().iter().enumerate() {
            let diverged = |what| Divergence { seq: event.seq, showtime: event.showtime, what };
            let expected = self.applied.next();
            if event.seq != expected {
                return Err(diverged(Contradiction::Sequence { expected }));
            }
            self.applied = event.seq;
            self.now = self.now.max(event.at);
            self.keys.forget(self.now);
            self.holds.forget(self.now);
            parts.clear();
            decision.parts(index).for_each(|part| parts.push(part));
            let step = Step { event, parts: &parts, last: decision.last_seq(), admitted_until };
            match event.body {
                Body::More { .. } if decision.continues_seats(index) => Ok(()),
                Body::More { .. } => Err(Contradiction::StrayParts),
                Body::EpochStart { epoch, .. } => self.begin(epoch),
                Body::Opened { limit, hold_ttl_ms } => {
                    self.open(step, limit, hold_ttl_ms, blob_of(batch, event.seq))
                }
                _ => self.change(step),
            }
            .map_err(diverged)?;
        }
        self.parts = parts;
        Ok(())
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
        let Step { event, last: seq, .. } = step;
        let id = event.showtime;
        let showtime = self.showtimes.get_mut(&id).ok_or(Contradiction::NotOpen)?;
        showtime.last_seq = seq;
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
                let admitted_until = step.admitted_until;
                let outcome = Outcome::Joined { showtime: id, entry, number, admitted_until, seq };
                self.keys.remember(key, event.at, outcome);
                Ok(())
            }
            Body::Left { entry, number, was, reason } => {
                showtime.line.leave(entry, number, was, reason)
            }
            Body::Admitted { entry, number, until } => showtime.line.admit(entry, number, until),
            Body::Passed { entry, number } => showtime.line.pass(entry, number),
            Body::Extended { hold, entry, ttl_ms, .. } => {
                self.check_hold(step, hold, entry)?;
                self.holds.extend(hold, entry, event.at.plus_ms(ttl_ms.into()))
            }
            _ => {
                showtime.seats_seq = seq;
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
        let Step { event, parts, last: seq, .. } = step;
        let (at, showtime) = (event.at, event.showtime);
        let key = event.body.key();
        let outcome = match event.body {
            Body::Held { slot, entry, ttl_ms, .. } => {
                let id = HoldId { slot, seq: event.seq };
                let (deadline, parts) = (at.plus_ms(ttl_ms.into()), Parts::new(parts));
                let hold = Hold { id, showtime, entry, created_at: at, deadline, parts };
                self.take_seats(step, hold)?;
                Outcome::Held { id, deadline, seq }
            }
            Body::Confirmed { hold: id, entry, .. } => {
                self.check_hold(step, id, entry)?;
                let buyer = self.line_of(showtime)?.entry(entry).map(|entry| entry.buyer);
                let buyer = buyer.ok_or(Contradiction::NoEntry(entry))?;
                self.holds.confirm(id, buyer, Moment { at, seq })?;
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
                self.check_hold(step, id, entry)?;
                self.holds.refund(id, Moment { at, seq })?;
                let seats = self.turn(step, SeatState::Sold, SeatState::Free)?;
                self.line_of(showtime)?.give_back(entry, seats)?;
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
        self.keys.remember(key, at, outcome);
        Ok(())
    }

    /// Seats are taken for an entry.
    fn take_seats(&mut self, step: Step<'_>, hold: Hold) -> Result<(), Contradiction> {
        let seats = self.turn(step, SeatState::Free, SeatState::Held)?;
        let showtime =
            self.showtimes.get_mut(&step.event.showtime).ok_or(Contradiction::NotOpen)?;
        showtime.line.take(hold.entry, seats, showtime.terms.limit_highest)?;
        self.holds.hold(hold)
    }

    /// A hold is released or expires.
    fn end(
        &mut self,
        step: Step<'_>,
        id: HoldId,
        entry: EntryId,
        how: Ending,
    ) -> Result<(), Contradiction> {
        self.check_hold(step, id, entry)?;
        self.holds.end(id, how, Moment { at: step.event.at, seq: step.last })?;
        let seats = self.turn(step, SeatState::Held, SeatState::Free)?;
        self.line_of(step.event.showtime)?.give_back(entry, seats)
    }

    /// Whether showtime, entry and seats of the event are the hold's.
    fn check_hold(&self, step: Step<'_>, id: HoldId, entry: EntryId) -> Result<(), Contradiction> {
        let hold = self.holds.get(id).ok_or(Contradiction::NotThatHold(id))?.hold();
        let same = hold.showtime == step.event.showtime
            && hold.entry == entry
            && hold.parts() == step.parts;
        if same { Ok(()) } else { Err(Contradiction::NotOfHold(id)) }
    }

    fn turn(
        &mut self,
        step: Step<'_>,
        from: SeatState,
        to: SeatState,
    ) -> Result<u32, Contradiction> {
        let showtime =
            self.showtimes.get_mut(&step.event.showtime).ok_or(Contradiction::NotOpen)?;
        showtime.seats.turn(&showtime.layout, step.parts, from, to)
    }

    fn line_of(&mut self, showtime: ShowtimeId) -> Result<&mut Line, Contradiction> {
        let showtime = self.showtimes.get_mut(&showtime).ok_or(Contradiction::NotOpen)?;
        Ok(&mut showtime.line)
    }
}

fn blob_of(batch: &Batch, seq: Seq) -> Option<&[u8]> {
    let index = batch.blobs.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
    Some(&batch.blobs[index].1)
}
