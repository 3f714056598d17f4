//! Refusals: values that a caller matches, not errors. A refusal has changed nothing.

use crate::ids::{BlockIndex, Part, SeatAddr};

/// Why a request was refused. Of several reasons any true one is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// These seats of the request were held, sold or blocked at some instant of the call;
    /// [`House::conflict`](crate::House::conflict) says which.
    SeatUnavailable(Part),
    /// Others were trying for the same seats, the same hold or the same entry for too long.
    Contended,
    /// No row has so many free seats side by side.
    NoAdjacentSeats,
    /// There are not so many free seats.
    SoldOut,
    /// It is before or after the time of sale.
    SaleNotOpen,
    /// The buyer has not been let in.
    AdmissionRequired,
    /// The buyer would have more seats than the showtime allows.
    LimitExceeded {
        /// What is allowed.
        limit: u32,
        /// What is held and bought without this request.
        used: u32,
    },
    /// The deadline of the hold has passed.
    HoldExpired,
    /// The hold is an order already.
    HoldConfirmed,
    /// There is no such hold or order any more, or there never was.
    HoldGone,
    /// These seats, which were to be unblocked, are not blocked.
    NotBlocked(Part),
    /// The layout has no such seat, or a block is named twice or out of order.
    UnknownSeat,
    /// More parts than [`PARTS_MAX`](crate::PARTS_MAX), or more seats than
    /// [`BEST_SEATS_MAX`](crate::BEST_SEATS_MAX).
    TooMany,
    /// The time to live is not between [`HOLD_TTL_MS_MIN`](crate::HOLD_TTL_MS_MIN) and
    /// [`HOLD_TTL_MS_MAX`](crate::HOLD_TTL_MS_MAX).
    TtlOutOfRange,
    /// The ring is full: the log does not keep up. Try again later.
    RingFull,
    /// There is no memory left for another hold, entry or number.
    SlabFull,
    /// The showtime is open already.
    AlreadyOpen,
}

/// What seats of one block are; the masks do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conflict {
    /// The block.
    pub block: BlockIndex,
    /// Seats that are free.
    pub free: u64,
    /// Seats that somebody holds.
    pub held: u64,
    /// Seats that are sold.
    pub sold: u64,
    /// Seats off sale.
    pub blocked: u64,
}

/// What a seat is, one letter each in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeatState {
    /// `f`
    Free,
    /// `h`
    Held,
    /// `s`
    Sold,
    /// `b`
    Blocked,
}

impl Conflict {
    /// Each seat with its state.
    pub fn seats(&self) -> impl Iterator<Item = (SeatAddr, SeatState)> {
        let block = self.block;
        let each = |mask, state| {
            let part = Part { block, mask };
            part.seats().map(move |seat| (seat, state))
        };
        each(self.free, SeatState::Free)
            .chain(each(self.held, SeatState::Held))
            .chain(each(self.sold, SeatState::Sold))
            .chain(each(self.blocked, SeatState::Blocked))
    }
}
