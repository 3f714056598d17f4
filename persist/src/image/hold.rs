//! A hold, and what becomes of it: an order, or one that ended.

use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, HoldId, HoldSlot, Part, Seq, ShowtimeId, TimeMs,
};

/// Seats of one decision, one part or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Most are of one block.
    One(Part),
    /// The others.
    Many(Box<[Part]>),
}

impl Parts {
    pub(crate) fn new(parts: &[Part]) -> Parts {
        match parts {
            [part] => Parts::One(*part),
            _ => Parts::Many(parts.into()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[Part] {
        match self {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }
}

/// Seats taken for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which.
    pub id: HoldId,
    /// Where.
    pub showtime: ShowtimeId,
    /// For whom.
    pub entry: EntryId,
    /// When it was made.
    pub created_at: TimeMs,
    /// Its deadline, the last one it had.
    pub deadline: TimeMs,
    pub(crate) parts: Parts,
}

impl Hold {
    /// What stands in a free place of the pool.
    pub(super) const NONE: Hold = Hold {
        id: HoldId { slot: HoldSlot(0), seq: Seq(0) },
        showtime: ShowtimeId(0),
        entry: EntryId(0),
        created_at: TimeMs(0),
        deadline: TimeMs(0),
        parts: Parts::One(Part { block: BlockIndex(0), mask: 0 }),
    };

    /// Its seats.
    pub fn parts(&self) -> &[Part] {
        self.parts.as_slice()
    }

    /// How many seats.
    pub fn seats(&self) -> u32 {
        self.parts().iter().map(|part| part.mask.count_ones()).sum()
    }
}

/// What happened, when, and in which decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: TimeMs,
    /// The decision's last event.
    pub seq: Seq,
}

/// A confirmed hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The hold that it was; the order has its id.
    pub hold: Hold,
    /// When it was confirmed.
    pub confirmed: Moment,
    /// When it was refunded, if it was.
    pub refunded: Option<Moment>,
    /// Whose it is.
    pub(super) buyer: BuyerId,
    /// The order of the same buyer before it.
    pub(super) previous: u32,
}

/// How a hold ended that did not become an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was given up.
    Released,
    /// Its deadline passed.
    Expired,
}

/// A hold that ended; remembered for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The hold that it was.
    pub hold: Hold,
    /// When it ended.
    pub ended: Moment,
    /// How.
    pub how: Ending,
}

/// What became of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldView<'a> {
    /// It is active.
    Active(&'a Hold),
    /// It is an order, refunded or not.
    Order(&'a Order),
    /// It ended within the last day.
    Ended(&'a Ended),
}

impl<'a> HoldView<'a> {
    /// The hold that it is or was.
    pub fn hold(self) -> &'a Hold {
        match self {
            HoldView::Active(hold) => hold,
            HoldView::Order(order) => &order.hold,
            HoldView::Ended(ended) => &ended.hold,
        }
    }
}
