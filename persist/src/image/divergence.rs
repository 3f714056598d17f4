//! What an image refuses to believe.

use tmomi_engine::SeatState;
use tmomi_engine::event::BadEvent;
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, SectionIndex, Seq,
    ShowtimeId,
};
use tmomi_engine::state::Place;

use crate::layout_codec::LayoutCodecError;

/// An event that contradicts those before it: the engine, the log or the image has a bug, or the
/// data was tampered with. Fatal: nothing may be acknowledged after it.
#[derive(Debug, thiserror::Error)]
#[error("event {seq} of showtime {showtime} contradicts what came before: {what}")]
pub struct Divergence {
    /// The event.
    pub seq: Seq,
    /// The showtime that it names.
    pub showtime: ShowtimeId,
    /// The contradiction.
    pub what: Contradiction,
}

/// How an event contradicts those before it.
#[derive(Debug, thiserror::Error)]
pub enum Contradiction {
    /// A number is missing, or comes again.
    #[error("the next event is {expected}")]
    Sequence {
        /// The number that had to come.
        expected: Seq,
    },
    /// It is no event of this version.
    #[error(transparent)]
    BadEvent(#[from] BadEvent),
    /// The epoch is not above the one before, or a new epoch begins without saying so.
    #[error("epoch {claimed} comes after epoch {current}")]
    Epoch {
        /// The epoch that the image is in.
        current: Epoch,
        /// The epoch that the event or its frame claims.
        claimed: Epoch,
    },
    /// A decision ends before its last event.
    #[error("the decision is cut off")]
    Cut,
    /// Further parts without an event that they belong to.
    #[error("further parts of nothing")]
    StrayParts,
    /// The blob that belongs to the event is not there.
    #[error("its blob is missing")]
    NoBlob,
    /// The showtime is open already.
    #[error("it is open already")]
    AlreadyOpen,
    /// The showtime was never opened.
    #[error("it was never opened")]
    NotOpen,
    /// The layout cannot be read or built.
    #[error(transparent)]
    Layout(#[from] LayoutCodecError),
    /// The layout has no such seats.
    #[error("block {block} has no seats {mask:#x}")]
    NoSeats {
        /// The block.
        block: BlockIndex,
        /// The seats.
        mask: u64,
    },
    /// Seats are not what they must be for this event.
    #[error("seats {mask:#x} of block {block} are not {expected:?}")]
    Seats {
        /// The block.
        block: BlockIndex,
        /// Those seats of the event that are something else.
        mask: u64,
        /// What they had to be.
        expected: SeatState,
    },
    /// Free, held, sold and blocked seats of a section do not add up to its capacity.
    #[error("the seats of section {0} do not add up")]
    Count(SectionIndex),
    /// Nobody has this entry.
    #[error("nobody has entry {0}")]
    NoEntry(EntryId),
    /// The entry is another buyer's, or the buyer has another entry.
    #[error("entry {entry} cannot be buyer {buyer}'s")]
    EntryTaken {
        /// The entry.
        entry: EntryId,
        /// The buyer.
        buyer: BuyerId,
    },
    /// The number was given before, or is not one.
    #[error("number {0} cannot be given")]
    Number(LineNumber),
    /// The entry has another number.
    #[error("entry {entry} does not have number {number}")]
    NotTheNumber {
        /// The entry.
        entry: EntryId,
        /// The number in the event.
        number: LineNumber,
    },
    /// The entry does not stand where the event says.
    #[error("entry {entry} is {place:?}")]
    Standing {
        /// The entry.
        entry: EntryId,
        /// Where it stands.
        place: Place,
    },
    /// The buyer has more seats than the showtime ever allowed, or gives back more than he has.
    #[error("entry {entry} would have {seats} seats of {limit}")]
    Limit {
        /// The entry.
        entry: EntryId,
        /// The seats after the event.
        seats: i64,
        /// The limit.
        limit: u32,
    },
    /// The record has a hold or an order that has not ended, or is out of bounds.
    #[error("hold slot {0} is taken")]
    SlotTaken(HoldSlot),
    /// There is no such active hold, or no such order that has not been refunded.
    #[error("hold {}/{} is not what the event needs", .0.slot, .0.seq)]
    NotThatHold(HoldId),
    /// Showtime, entry or seats are not the hold's.
    #[error("hold {}/{} is of another showtime, entry or other seats", .0.slot, .0.seq)]
    NotOfHold(HoldId),
    /// A confirm at or after the deadline, or an expiry before it.
    #[error("hold {}/{} ends on the wrong side of its deadline", .0.slot, .0.seq)]
    Deadline(HoldId),
}
