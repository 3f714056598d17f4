//! A shard at one sequence number, as plain data: what an image gives to build an engine from.
//!
//! Masks of free and sold seats, seats in use and active holds are not here: they follow from
//! the holds, the orders and the blocked seats.

use std::sync::Arc;

use crate::event::LineSettings;
use crate::ids::{BuyerId, EntryId, HoldId, LineNumber, Part, Seq, ShowtimeId, TimeMs};
use crate::layout::Layout;

/// Everything the decisions of one shard depend on.
#[derive(Clone, Debug, Default)]
pub struct ShardState {
    /// The number of the last event that is in it; 0 before the first.
    pub applied: Seq,
    /// The showtimes, in any order.
    pub showtimes: Vec<ShowtimeState>,
    /// Active holds and confirmed orders of all showtimes, in any order. No released, expired
    /// or refunded ones.
    pub holds: Vec<HoldState>,
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
    /// Entries by [`EntryId`], without gaps: the entry with id `n` is the `n`th. An entry that
    /// no event mentioned is [`EntryState::UNUSED`].
    pub entries: Vec<EntryState>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
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
    /// It is an order.
    pub confirmed: bool,
    /// Its seats, at least one part.
    pub parts: Vec<Part>,
}
