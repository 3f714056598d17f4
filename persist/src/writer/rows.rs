//! The rows that a batch of events changes: one of each key, in the order of the keys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tmomi_engine::ids::{
    BuyerId, EntryId, Epoch, HoldSlot, LineNumber, SeatAddr, Seq, ShowtimeId, TimeMs,
};
use tmomi_engine::state::Place;

use super::EntryKey;

/// What tells a hold, and the order that it became, from others of its shard: the showtime of its
/// seats, and the number of the event that made it.
pub type HoldKey = (ShowtimeId, Seq);
/// What tells a ticket from others of its shard: the key of its order, and the seat.
pub type TicketKey = (ShowtimeId, Seq, SeatAddr);

/// Which event changed a row last. Epochs count more than numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The reign in which it was decided.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
}

/// What became of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldOutcome {
    /// Its deadline is ahead, as far as the events say.
    Active,
    /// It is an order.
    Confirmed,
    /// It was given up.
    Released,
    /// Its deadline passed.
    Expired,
    /// It was an order and is none any more.
    Refunded,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// The slab record it was in.
    pub slot: HoldSlot,
    /// Whose it is.
    pub entry: EntryId,
    /// What became of it.
    pub state: HoldOutcome,
    /// How many seats, if an event of the batch says it.
    pub seats: Option<u32>,
    /// When it was made, if the batch has that event.
    pub created_at: Option<TimeMs>,
    /// Its deadline, if an event of the batch says it.
    pub deadline: Option<TimeMs>,
    /// The end of the last decision about it.
    pub stamp: Stamp,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// The slab record of its hold.
    pub slot: HoldSlot,
    /// Whose it is.
    pub buyer: BuyerId,
    /// Whether it was given back.
    pub refunded: bool,
    /// The sum of the prices, in the currency's minor unit.
    pub total: u64,
    /// What prices are in.
    pub currency: Arc<str>,
    /// The client's payment reference, if the batch has the confirmation.
    pub payment_ref: Option<String>,
    /// When it was made, if the batch has that event.
    pub confirmed_at: Option<TimeMs>,
    /// When it was given back, if the batch has that event.
    pub refunded_at: Option<TimeMs>,
    /// The end of the last decision about it.
    pub stamp: Stamp,
}

/// A seat of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRow {
    /// The plan's name of the seat.
    pub seat: String,
    /// The name of its tier.
    pub tier: Arc<str>,
    /// The price, in the currency's minor unit.
    pub price: u64,
    /// Whether it was given back.
    pub refunded: bool,
    /// The end of the last decision about it.
    pub stamp: Stamp,
}

/// A buyer in a showtime's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Whose it is, if an event of the batch says it.
    pub buyer: Option<BuyerId>,
    /// The number, if an event of the batch says it.
    pub number: Option<LineNumber>,
    /// Where he stands.
    pub place: Place,
    /// When the session of an admitted entry ends.
    pub session_until: Option<TimeMs>,
    /// When the last event about it was decided.
    pub changed_at: TimeMs,
    /// The end of the last decision about it.
    pub stamp: Stamp,
}

/// The rows that some events change, by key: coalesced and sorted.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Holds.
    pub holds: BTreeMap<HoldKey, HoldRow>,
    /// Orders, by the keys of their holds.
    pub orders: BTreeMap<HoldKey, OrderRow>,
    /// Tickets.
    pub tickets: BTreeMap<TicketKey, TicketRow>,
    /// Buyers in the lines.
    pub entries: BTreeMap<EntryKey, EntryRow>,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.holds.len() + self.orders.len() + self.tickets.len() + self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what a later event says about a hold.
    pub(super) fn hold(&mut self, key: HoldKey, new: HoldRow) {
        match self.holds.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.state = new.state;
                row.seats = new.seats.or(row.seats);
                row.created_at = new.created_at.or(row.created_at);
                row.deadline = new.deadline.or(row.deadline);
                row.stamp = new.stamp;
            }
        }
    }

    /// Adds what a later event says about an order. Its price stays what it was.
    pub(super) fn order(&mut self, key: HoldKey, new: OrderRow) {
        match self.orders.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.refunded = new.refunded;
                row.payment_ref = new.payment_ref.or(row.payment_ref.take());
                row.confirmed_at = new.confirmed_at.or(row.confirmed_at);
                row.refunded_at = new.refunded_at.or(row.refunded_at);
                row.stamp = new.stamp;
            }
        }
    }

    /// Adds what a later event says about a ticket. Its price stays what it was.
    pub(super) fn ticket(&mut self, key: TicketKey, new: TicketRow) {
        match self.tickets.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.refunded = new.refunded;
                row.stamp = new.stamp;
            }
        }
    }

    /// Adds what a later event says about an entry.
    pub(super) fn entry(&mut self, key: EntryKey, new: EntryRow) {
        match self.entries.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                let (buyer, number) = (new.buyer.or(row.buyer), new.number.or(row.number));
                *row = EntryRow { buyer, number, ..new };
            }
        }
    }
}
