//! One newtype for every index, count, sequence and id, so that mixing them does not compile.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The catalog's number of a showtime, unique in the house's database.
    ShowtimeId(u32)
}
number! {
    /// The catalog's number of a user. The contract keeps it below 2^53.
    BuyerId(u64)
}
number! {
    /// A buyer's slot in one showtime; given once per buyer and showtime, kept for ever.
    EntryId(u32)
}
number! {
    /// A place in the line, from 1; [`LineNumber::NONE`] is "never joined".
    LineNumber(u32)
}
number! {
    /// A section of a layout, in plan order.
    SectionIndex(u16)
}
number! {
    /// A row of a layout, counted through all sections in plan order.
    RowIndex(u32)
}
number! {
    /// A price level of a layout.
    TierIndex(u16)
}
number! {
    /// A block of up to 64 seats of one row and one tier.
    BlockIndex(u32)
}
number! {
    /// A record of the hold slab.
    HoldSlot(u32)
}
number! {
    /// The number of an event in its shard: from 1, without gaps, counting on across epochs.
    Seq(u64)
}
number! {
    /// The number of an owner's reign over a shard; rises with every new deciding process.
    Epoch(u32)
}
number! {
    /// Milliseconds since the Unix epoch on the caller's clock. The engine has no clock.
    TimeMs(u64)
}

impl LineNumber {
    /// Not in the line, or let in without one.
    pub const NONE: LineNumber = LineNumber(0);
}

impl Seq {
    /// The number after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl TimeMs {
    /// This time and `ms` milliseconds, saturating.
    pub fn plus_ms(self, ms: u64) -> TimeMs {
        TimeMs(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if it is not earlier.
    pub fn since_ms(self, earlier: TimeMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One seat of a layout: block and bit. Not the plan's name of the seat, which the catalog knows.
///
/// ```text
/// 31            6 5      0
/// +--------------+--------+
/// | block        | bit    |
/// +--------------+--------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatAddr(u32);

impl SeatAddr {
    /// The seat at `bit` (0 to 63) of `block` (below 2^26).
    pub fn new(block: BlockIndex, bit: u32) -> SeatAddr {
        debug_assert!(bit < 64 && block.0 < 1 << 26);
        SeatAddr(block.0 << 6 | bit)
    }

    /// The block it is in.
    pub fn block(self) -> BlockIndex {
        BlockIndex(self.0 >> 6)
    }

    /// Its bit in the block's mask, 0 to 63.
    pub fn bit(self) -> u32 {
        self.0 & 63
    }

    /// The address as one number; the order is block, then bit.
    pub fn raw(self) -> u32 {
        self.0
    }
}

/// Seats of one block: bit `n` of `mask` is the seat at bit `n`. The mask is never empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The block.
    pub block: BlockIndex,
    /// The seats of the block that are meant.
    pub mask: u64,
}

impl Part {
    /// The seats of the part in ascending order.
    pub fn seats(self) -> impl Iterator<Item = SeatAddr> {
        let mut rest = self.mask;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(SeatAddr::new(self.block, bit))
        })
    }
}

/// How many seats the parts are.
#[inline]
pub fn count_seats(parts: &[Part]) -> u32 {
    parts.iter().map(|part| part.mask.count_ones()).sum()
}

/// A hold, and after its confirmation the order: the slab record that has it and the number of
/// the event that made it, which no other hold of the shard ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId {
    /// The record.
    pub slot: HoldSlot,
    /// The number of the `Held` event.
    pub seq: Seq,
}

/// What a client's `Idempotency-Key` is remembered by; all zero when it sent none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Hash of the user and the key. 0 is "no key".
    pub hash: u64,
    /// Fingerprint of path and body.
    pub fingerprint: u64,
}

impl RequestKey {
    /// The client sent no key.
    pub const NONE: RequestKey = RequestKey { hash: 0, fingerprint: 0 };

    /// Whether the client sent a key.
    pub fn is_some(self) -> bool {
        self.hash != 0
    }
}
