//! The entries of a showtime and their line.

use tmomi_engine::event::{LeaveReason, Standing};
use tmomi_engine::ids::{BuyerId, EntryId, LineNumber, TimeMs};
use tmomi_engine::state::{EntryState, Place};

use super::divergence::Contradiction;
use super::index::Index;
use super::positions::Positions;

/// Entries of a showtime at most: as many as the engine makes.
const ENTRIES_MAX: u32 = 1 << 28;

/// One buyer in one showtime: half a cache line, and never parts of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub struct Entry {
    /// Who.
    pub buyer: BuyerId,
    /// The number, kept when out; [`LineNumber::NONE`] if he never joined.
    pub number: LineNumber,
    /// Seats held and bought.
    pub seats: u32,
    /// Where he stands.
    pub place: Place,
    /// When the session of an admitted entry ends.
    pub session_until: TimeMs,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    /// A slot that no committed event has named: as the engine says it.
    pub(crate) const UNUSED: Entry = Entry {
        buyer: EntryState::UNUSED.buyer,
        number: EntryState::UNUSED.number,
        seats: 0,
        place: EntryState::UNUSED.place,
        session_until: EntryState::UNUSED.session_until,
    };

    fn is_used(&self) -> bool {
        self.buyer != Entry::UNUSED.buyer
    }
}

/// Everybody in one showtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    entries: Vec<Entry>,
    of_buyer: Index,
    positions: Positions,
    waiting: u32,
    active: u32,
}

impl Line {
    /// A line of these entries; `None` if they contradict each other or the positions.
    pub(crate) fn restore(entries: Vec<Entry>, positions: Positions) -> Option<Line> {
        let mut line = Line { positions, ..Line::default() };
        line.of_buyer.reserve(entries.len());
        let mut in_order = 0;
        let last = line.positions.last();
        for (id, entry) in entries.iter().enumerate() {
            if *entry == Entry::UNUSED {
                continue;
            }
            line.count(entry.place, 1);
            in_order += u32::from(entry.place == Place::Waiting);
            let has_id = |other: u32| entries[other as usize].buyer == entry.buyer;
            let known = line.of_buyer.get(entry.buyer.0, has_id);
            let waits = line.positions.waits(entry.number);
            let stands = waits == (entry.place == Place::Waiting);
            if !entry.is_used() || entry.number > last || known.is_some() || !stands {
                return None;
            }
            line.of_buyer.insert(entry.buyer.0, id as u32);
        }
        let all = line.positions.ahead(LineNumber(u32::MAX));
        line.entries = entries;
        (in_order == all).then_some(line)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting
    }

    pub(crate) fn active(&self) -> u32 {
        self.active
    }

    pub(crate) fn entry_of(&self, buyer: BuyerId) -> Option<EntryId> {
        let has_id = |entry: u32| self.entries[entry as usize].buyer == buyer;
        self.of_buyer.get(buyer.0, has_id).map(EntryId)
    }

    pub(crate) fn entry(&self, entry: EntryId) -> Option<&Entry> {
        self.entries.get(entry.0 as usize).filter(|entry| entry.is_used())
    }

    /// Loads what the entry is: of no meaning, but it is in the cache then.
    #[inline]
    pub(crate) fn touch(&self, entry: EntryId) -> u64 {
        self.entries.get(entry.0 as usize).map_or(0, |entry| entry.buyer.0)
    }

    /// Loads where the buyer's entry is looked for, as above.
    #[inline]
    pub(crate) fn touch_buyer(&self, buyer: BuyerId) -> u64 {
        self.of_buyer.touch(buyer.0)
    }

    fn entry_mut(&mut self, entry: EntryId) -> Result<&mut Entry, Contradiction> {
        let slot = self.entries.get_mut(entry.0 as usize).filter(|entry| entry.is_used());
        slot.ok_or(Contradiction::NoEntry(entry))
    }

    /// A buyer gets an entry.
    pub(crate) fn enter(&mut self, entry: EntryId, buyer: BuyerId) -> Result<(), Contradiction> {
        let taken = Contradiction::EntryTaken { entry, buyer };
        let used = self.entry(entry).is_some();
        if used || entry.0 >= ENTRIES_MAX || self.entry_of(buyer).is_some() {
            return Err(taken);
        }
        let slots = self.entries.len().max(entry.0 as usize + 1);
        self.entries.resize(slots, Entry::UNUSED);
        self.entries[entry.0 as usize].buyer = buyer;
        if !self.entries[entry.0 as usize].is_used() {
            return Err(taken);
        }
        self.of_buyer.insert(buyer.0, entry.0);
        Ok(())
    }

    /// A buyer takes a number, and an entry if he has none.
    pub(crate) fn join(
        &mut self,
        entry: EntryId,
        buyer: BuyerId,
        number: LineNumber,
    ) -> Result<(), Contradiction> {
        match self.entry(entry) {
            None => self.enter(entry, buyer)?,
            Some(known) if known.buyer != buyer => {
                return Err(Contradiction::EntryTaken { entry, buyer });
            }
            Some(_) => {}
        }
        if !self.positions.join(number) {
            return Err(Contradiction::Number(number));
        }
        self.entry_mut(entry)?.number = number;
        self.place(entry, &[Place::Out, Place::Expired], Place::Waiting)
    }

    /// An entry is let in until `until`.
    pub(crate) fn admit(
        &mut self,
        entry: EntryId,
        number: LineNumber,
        until: TimeMs,
    ) -> Result<(), Contradiction> {
        self.turn_comes(entry, number)?;
        self.entry_mut(entry)?.session_until = until;
        self.place(entry, &[Place::Waiting, Place::Passed], Place::Admitted)
    }

    /// An entry is passed over.
    pub(crate) fn pass(&mut self, entry: EntryId, number: LineNumber) -> Result<(), Contradiction> {
        self.turn_comes(entry, number)?;
        self.place(entry, &[Place::Waiting], Place::Passed)
    }

    /// An entry gives its place up, or loses it.
    pub(crate) fn leave(
        &mut self,
        entry: EntryId,
        number: LineNumber,
        was: Standing,
        reason: LeaveReason,
    ) -> Result<(), Contradiction> {
        self.turn_comes(entry, number)?;
        let from = match was {
            Standing::Waiting => Place::Waiting,
            Standing::Passed => Place::Passed,
            Standing::Admitted => Place::Admitted,
        };
        let to = match reason {
            LeaveReason::Asked => Place::Out,
            LeaveReason::SessionOver => Place::Expired,
        };
        self.entry_mut(entry)?.session_until = TimeMs(0);
        self.place(entry, &[from], to)
    }

    /// The entry takes `seats` more seats.
    pub(crate) fn take(
        &mut self,
        entry: EntryId,
        seats: u32,
        limit: u32,
    ) -> Result<(), Contradiction> {
        let known = self.entry_mut(entry)?;
        let after = u64::from(known.seats) + u64::from(seats);
        if after > limit.into() {
            return Err(Contradiction::Limit { entry, seats: after as i64, limit });
        }
        known.seats += seats;
        Ok(())
    }

    /// The entry gives `seats` seats back.
    pub(crate) fn give_back(&mut self, entry: EntryId, seats: u32) -> Result<(), Contradiction> {
        let known = self.entry_mut(entry)?;
        let after = i64::from(known.seats) - i64::from(seats);
        known.seats = u32::try_from(after).map_err(|_| {
            let limit = known.seats;
            Contradiction::Limit { entry, seats: after, limit }
        })?;
        Ok(())
    }

    /// The number is the entry's, and waits in order no longer.
    fn turn_comes(&mut self, entry: EntryId, number: LineNumber) -> Result<(), Contradiction> {
        let known = *self.entry_mut(entry)?;
        if known.number != number {
            return Err(Contradiction::NotTheNumber { entry, number });
        }
        let waited = self.positions.leave(number);
        if waited != (known.place == Place::Waiting) {
            return Err(Contradiction::Standing { entry, place: known.place });
        }
        Ok(())
    }

    fn place(&mut self, entry: EntryId, from: &[Place], to: Place) -> Result<(), Contradiction> {
        let known = self.entry_mut(entry)?;
        let before = std::mem::replace(&mut known.place, to);
        if !from.contains(&before) {
            return Err(Contradiction::Standing { entry, place: before });
        }
        self.count(before, -1);
        self.count(to, 1);
        Ok(())
    }

    fn count(&mut self, place: Place, by: i32) {
        let counter = match place {
            Place::Waiting | Place::Passed => &mut self.waiting,
            Place::Admitted => &mut self.active,
            Place::Out | Place::Expired => return,
        };
        *counter = counter.wrapping_add_signed(by);
    }
}
