//! A shard at one sequence number, as plain data: what an image gives to build an engine from.
//!
//! It is read where it stands: a copy of a million orders would be as much memory again, touched
//! once. Masks of free and sold seats and seats in use are not here: they follow from the holds,
//! the orders and the blocked seats.

use std::sync::Arc;

use crate::event::LineSettings;
use crate::ids::{BuyerId, EntryId, HoldId, LineNumber, Part, Seq, ShowtimeId, TimeMs};
use crate::layout::Layout;

/// Everything the decisions of one shard depend on.
pub trait ShardState: Sync {
    /// The number of the last event that is in it; 0 before the first.
    fn applied(&self) -> Seq;

    /// The showtimes, always in the same order.
    fn showtimes(&self) -> impl Iterator<Item = ShowtimeState>;

    /// The entries of one of them by [`EntryId`], without gaps: the entry with id `n` is the
    /// `n`th. An entry that no event mentioned is [`EntryState::UNUSED`].
    fn entries(&self, showtime: ShowtimeId) -> impl Iterator<Item = EntryState>;

    /// The active holds of all showtimes, in any order.
    fn holds(&self) -> impl Iterator<Item = HoldState<'_>>;

    /// The orders of all showtimes but refunded ones, in any order.
    fn orders(&self) -> impl Iterator<Item = HoldState<'_>>;
}

/// A shard before its first event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nothing;

impl ShardState for Nothing {
    fn applied(&self) -> Seq {
        Seq(0)
    }

    fn showtimes(&self) -> impl Iterator<Item = ShowtimeState> {
        std::iter::empty()
    }

    fn entries(&self, _: ShowtimeId) -> impl Iterator<Item = EntryState> {
        std::iter::empty()
    }

    fn holds(&self) -> impl Iterator<Item = HoldState<'_>> {
        std::iter::empty()
    }

    fn orders(&self) -> impl Iterator<Item = HoldState<'_>> {
        std::iter::empty()
    }
}

/// One showtime.
#[derive(Clone, Debug)]
pub struct ShowtimeState {
    /// Which.
    pub showtime: ShowtimeId,
    /// Its layout.
    pub layout: Arc<Layout>,
    /// Seats a buyer may have held or bought at a time.
    pub limit: u32,
    /// How long a hold lasts unless the request says otherwise, in ms.
    pub hold_ttl_ms: u32,
    /// The line's settings.
    pub line: LineSettings,
    /// Seats off sale.
    pub blocked: Vec<Part>,
    /// The highest number given so far.
    pub last_number: LineNumber,
}

/// Where a buyer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// Not in the line: never joined, or left.
    #[default]
    Out,
    /// In the line.
    Waiting,
    /// Passed over, in the line.
    Passed,
    /// Let in.
    Admitted,
    /// The session ran out.
    Expired,
}

/// One buyer in one showtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryState {
    /// Who.
    pub buyer: BuyerId,
    /// The number, kept when out.
    pub number: LineNumber,
    /// Where he stands.
    pub place: Place,
    /// When the session of an admitted entry ends.
    pub session_until: TimeMs,
}

impl EntryState {
    /// A slot that no buyer has: its number was taken by a decision that was never committed.
    pub const UNUSED: EntryState = EntryState {
        buyer: BuyerId(u64::MAX),
        number: LineNumber::NONE,
        place: Place::Out,
        session_until: TimeMs(0),
    };
}

/// An active hold or a confirmed order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldState<'a> {
    /// Its id; a new engine keeps it in the same slab record.
    pub id: HoldId,
    /// The showtime of its seats.
    pub showtime: ShowtimeId,
    /// Whose it is.
    pub entry: EntryId,
    /// When it was made.
    pub created_at: TimeMs,
    /// The deadline; of no meaning once confirmed.
    pub deadline: TimeMs,
    /// Its seats, at least one part.
    pub parts: &'a [Part],
}
