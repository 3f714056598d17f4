//! What a handle decides about a showtime and its line: opening, terms, entering, joining,
//! leaving.

use std::sync::Arc;

use super::{Context, Handle, Joined, OpenShowtime, check_ttl};
use crate::emit::Decision;
use crate::entry::{LIMIT_MAX, Stand};
use crate::event::{Body, LeaveReason, LineMode, LineSettings};
use crate::house::House;
use crate::ids::{BuyerId, EntryId, Epoch, Seq, ShowtimeId, TimeMs};
use crate::reject::Reject;

impl Handle {
    /// Puts a showtime on sale: events `Opened` and `LineSet`.
    ///
    /// # Errors
    ///
    /// `AlreadyOpen`, `Contended`, `RingFull`, `SlabFull`; `TooMany` if the limit is above
    /// [`LIMIT_MAX`]; `TtlOutOfRange`.
    pub fn open(&mut self, now: TimeMs, open: OpenShowtime) -> Result<(Arc<House>, Seq), Reject> {
        check_terms(open.limit, open.hold_ttl_ms)?;
        if !self.access.shared.begin_opening() {
            return Err(Reject::Contended);
        }
        let opened = self.open_alone(now, open);
        self.access.shared.end_opening();
        opened
    }

    fn open_alone(&mut self, now: TimeMs, open: OpenShowtime) -> Result<(Arc<House>, Seq), Reject> {
        self.access.check_room()?;
        if self.access.shared.find(open.showtime).is_some() {
            return Err(Reject::AlreadyOpen);
        }
        let index = self.access.shared.next_house().ok_or(Reject::SlabFull)?;
        let house = House::new(index, open.showtime, open.layout);
        house.terms.set_sale(open.limit, open.hold_ttl_ms);
        house.terms.set_line(open.line);
        house.set_window(open.opens_at, open.closes_at);
        // Nobody can decide about the house before it can be found, and then its first number is
        // claimed already.
        let decision = Decision::claim(self.writer(), now, open.showtime, 2);
        let opened = Body::Opened { limit: open.limit, hold_ttl_ms: open.hold_ttl_ms };
        let house = self.access.shared.put(house);
        let seq = decision.publish_with_blob(&[opened, Body::LineSet(open.line)], open.blob);
        Ok((house, seq))
    }

    /// Records that a new process decides from here on.
    ///
    /// # Errors
    ///
    /// `RingFull`.
    pub fn start_epoch(&mut self, now: TimeMs, epoch: Epoch, node: u64) -> Result<Seq, Reject> {
        self.access.check_room()?;
        let decision = Decision::claim(self.writer(), now, ShowtimeId(0), 1);
        Ok(decision.publish(Body::EpochStart { epoch, node }))
    }

    /// Changes the buyer's limit and the hold time. Seats already in use above a lower limit
    /// stay.
    ///
    /// # Errors
    ///
    /// `RingFull`, `Contended`, `TooMany`, `TtlOutOfRange`.
    pub fn set_terms(
        &mut self,
        house: &House,
        now: TimeMs,
        limit: u32,
        hold_ttl_ms: u32,
    ) -> Result<Seq, Reject> {
        check_terms(limit, hold_ttl_ms)?;
        self.change(house, now, Body::Terms { limit, hold_ttl_ms }, || {
            house.terms.set_sale(limit, hold_ttl_ms);
        })
    }

    /// Changes the line's settings.
    ///
    /// # Errors
    ///
    /// `RingFull`, `Contended`.
    pub fn set_line(
        &mut self,
        house: &House,
        now: TimeMs,
        line: LineSettings,
    ) -> Result<Seq, Reject> {
        self.change(house, now, Body::LineSet(line), || house.terms.set_line(line))
    }

    fn change(
        &mut self,
        house: &House,
        now: TimeMs,
        body: Body,
        apply: impl FnOnce(),
    ) -> Result<Seq, Reject> {
        self.access.check_room()?;
        if !house.terms.begin_change() {
            return Err(Reject::Contended);
        }
        let decision = Decision::claim(self.writer(), now, house.showtime(), 1);
        let seq = decision.publish(body);
        apply();
        house.terms.end_change();
        Ok(seq)
    }

    /// The buyer's entry; a new one, outside the line, if he had none.
    ///
    /// # Errors
    ///
    /// `RingFull`, `SlabFull`, `Contended`.
    pub fn enter(&mut self, house: &House, buyer: BuyerId, now: TimeMs) -> Result<EntryId, Reject> {
        if let Err(full) = self.access.check_room() {
            return house.entry_of(buyer).ok_or(full);
        }
        let entry = house.line.entry_for(buyer)?;
        if house.line.look(entry).known() {
            return Ok(entry);
        }
        let turn = house.line.turn(entry)?;
        if turn.seen().known() {
            turn.end();
            return Ok(entry);
        }
        let decision = Decision::claim(self.writer(), now, house.showtime(), 1);
        decision.publish(Body::Buyer { entry, buyer });
        turn.make_known();
        turn.end();
        Ok(entry)
    }

    /// Takes a number, or says which the buyer has. In mode `Open` he is let in at once.
    ///
    /// # Errors
    ///
    /// `RingFull`, `SlabFull`, `Contended`.
    pub fn join(
        &mut self,
        house: &House,
        buyer: BuyerId,
        context: Context,
    ) -> Result<Joined, Reject> {
        self.access.check_room()?;
        let entry = house.line.entry_for(buyer)?;
        house.touch(entry, context.now);
        let turn = house.line.turn(entry)?;
        if turn.seen().stand().standing().is_some() {
            let (number, seq) = (house.line.number(entry), house.line.joined_seq(entry));
            turn.end();
            return Ok(Joined { entry, number, seq, fresh: false });
        }
        let number = match house.line.take_number(entry, context.now) {
            Ok(number) => number,
            Err(reject) => {
                turn.end();
                return Err(reject);
            }
        };
        let joined = Body::Joined { entry, buyer, number, key: context.key };
        let line = house.terms.line();
        let open = line.mode == LineMode::Open;
        let decision =
            Decision::claim(self.writer(), context.now, house.showtime(), 1 + usize::from(open));
        let until = context.now.plus_ms(line.session_ms.into());
        if open {
            house.line.set_session_until(entry, until);
        }
        let admitted = Body::Admitted { entry, number, until };
        let seq = decision.publish_all(&[joined, admitted][..1 + usize::from(open)]);
        house.line.set_joined_seq(entry, seq);
        turn.make_known();
        house.line.count_active(open, false);
        turn.end_at(if open { Stand::Admitted } else { Stand::Waiting });
        Ok(Joined { entry, number, seq, fresh: true })
    }

    /// Gives the place in the line, or the admission, up; holds keep their deadlines. `None` if
    /// the entry has neither.
    ///
    /// # Errors
    ///
    /// `RingFull`, `Contended`.
    pub fn leave(
        &mut self,
        house: &House,
        entry: EntryId,
        now: TimeMs,
    ) -> Result<Option<Seq>, Reject> {
        self.access.check_room()?;
        if !house.line.has(entry) {
            return Ok(None);
        }
        let turn = house.line.turn(entry)?;
        let stand = turn.seen().stand();
        let Some(was) = stand.standing() else {
            turn.end();
            return Ok(None);
        };
        let number = house.line.number(entry);
        let decision = Decision::claim(self.writer(), now, house.showtime(), 1);
        let reason = LeaveReason::Asked;
        let seq = decision.publish(Body::Left { entry, number, was, reason });
        if stand == Stand::Back {
            house.line.no_longer_back(number);
        }
        house.line.count_active(false, stand == Stand::Admitted);
        turn.end_at(Stand::Out);
        Ok(Some(seq))
    }
}

fn check_terms(limit: u32, hold_ttl_ms: u32) -> Result<(), Reject> {
    check_ttl(hold_ttl_ms)?;
    if (1..=LIMIT_MAX).contains(&limit) { Ok(()) } else { Err(Reject::TooMany) }
}
