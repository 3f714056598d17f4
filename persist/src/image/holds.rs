//! Active holds, orders, and holds that ended.
//!
//! A hold stands in its slab record until it is refunded, released or expires, so the record's
//! number finds it without a search. Orders are kept for ever, in the order of their confirmation,
//! each with a link to the buyer's order before it.

use tmomi_engine::SLOTS_MAX;
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, HoldSlot, Part, Seq, ShowtimeId, TimeMs};

use super::divergence::Contradiction;
use super::id_map::IdMap;
use super::recent::Recent;

/// Ended holds remembered at most. A shard that ends more within a day forgets the oldest early:
/// a client that asks after a hold so old is told that there is none.
const ENDED_MAX: usize = 1 << 20;
/// "No order before this one."
const NO_ORDER: u32 = u32::MAX;

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
    /// The order of the same buyer before it.
    previous: u32,
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

/// What stands in a slab record.
#[derive(Clone, Debug)]
enum Slot {
    Free,
    Active(Box<Hold>),
    Order(u32),
}

/// The holds and orders of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Holds {
    slots: Vec<Slot>,
    orders: Vec<Order>,
    /// Refunded orders by the hold's number: their records may be another hold's by now.
    refunded: IdMap<Seq, u32>,
    newest: IdMap<BuyerId, u32>,
    ended: Recent<Ended>,
}

impl Holds {
    pub(crate) fn new() -> Holds {
        Holds {
            slots: Vec::new(),
            orders: Vec::new(),
            refunded: IdMap::default(),
            newest: IdMap::default(),
            ended: Recent::new(ENDED_MAX),
        }
    }

    pub(crate) fn get(&self, id: HoldId) -> Option<HoldView<'_>> {
        let view = match self.slots.get(id.slot.0 as usize) {
            Some(Slot::Active(hold)) if hold.id == id => HoldView::Active(hold),
            Some(Slot::Order(order)) if self.orders[*order as usize].hold.id == id => {
                HoldView::Order(&self.orders[*order as usize])
            }
            _ => match self.refunded.get(&id.seq) {
                Some(order) => HoldView::Order(&self.orders[*order as usize]),
                None => HoldView::Ended(self.ended.get(id.seq.0)?),
            },
        };
        (view.hold().id == id).then_some(view)
    }

    /// Active holds, by record.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Hold> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Active(hold) => Some(&**hold),
            Slot::Free | Slot::Order(_) => None,
        })
    }

    /// All orders, in the order of their confirmation.
    pub(crate) fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// Ended holds, in the order of their ends.
    pub(crate) fn ended(&self) -> impl ExactSizeIterator<Item = &Ended> {
        self.ended.iter().map(|remembered| &remembered.value)
    }

    /// The orders of a buyer, newest first: all, or those before the order `before`, which is his.
    pub(crate) fn orders_of(
        &self,
        buyer: BuyerId,
        before: Option<HoldId>,
    ) -> impl Iterator<Item = &Order> {
        let first = match before.map(|id| self.get(id)) {
            None => self.newest.get(&buyer).copied(),
            Some(Some(HoldView::Order(order))) => Some(order.previous),
            Some(_) => None,
        };
        let mut next = first.unwrap_or(NO_ORDER);
        std::iter::from_fn(move || {
            let order = self.orders.get(next as usize)?;
            next = order.previous;
            Some(order)
        })
    }

    /// Forgets ended holds of more than a day ago.
    pub(crate) fn forget(&mut self, now: TimeMs) {
        self.ended.forget(now);
    }

    /// A hold is made in its record.
    pub(crate) fn hold(&mut self, hold: Hold) -> Result<(), Contradiction> {
        let slot = self.free_slot(hold.id.slot)?;
        *slot = Slot::Active(Box::new(hold));
        Ok(())
    }

    /// A hold gets a new deadline.
    pub(crate) fn extend(
        &mut self,
        id: HoldId,
        entry: EntryId,
        deadline: TimeMs,
    ) -> Result<(), Contradiction> {
        match self.slots.get_mut(id.slot.0 as usize) {
            Some(Slot::Active(hold)) if hold.id == id && hold.entry == entry => {
                hold.deadline = deadline;
                Ok(())
            }
            _ => Err(Contradiction::NotThatHold(id)),
        }
    }

    /// A hold of `buyer` becomes an order.
    pub(crate) fn confirm(
        &mut self,
        id: HoldId,
        buyer: BuyerId,
        confirmed: Moment,
    ) -> Result<&Hold, Contradiction> {
        let hold = self.take_active(id)?;
        if confirmed.at >= hold.deadline {
            return Err(Contradiction::Deadline(id));
        }
        self.add_order(Order { hold, confirmed, refunded: None, previous: NO_ORDER }, buyer)?;
        let order = self.orders.last().expect("an order was added");
        Ok(&order.hold)
    }

    /// A hold is released or expires.
    pub(crate) fn end(
        &mut self,
        id: HoldId,
        how: Ending,
        ended: Moment,
    ) -> Result<(), Contradiction> {
        let hold = self.take_active(id)?;
        if how == Ending::Expired && ended.at < hold.deadline {
            return Err(Contradiction::Deadline(id));
        }
        self.remember(Ended { hold, ended, how });
        Ok(())
    }

    /// An order is given back; its record is free.
    pub(crate) fn refund(&mut self, id: HoldId, refunded: Moment) -> Result<(), Contradiction> {
        let unknown = Contradiction::NotThatHold(id);
        let Some(slot) = self.slots.get_mut(id.slot.0 as usize) else { return Err(unknown) };
        let Slot::Order(index) = *slot else { return Err(unknown) };
        let order = &mut self.orders[index as usize];
        if order.hold.id != id {
            return Err(unknown);
        }
        order.refunded = Some(refunded);
        *slot = Slot::Free;
        self.refunded.insert(id.seq, index);
        Ok(())
    }

    /// Puts an ended hold among those remembered.
    pub(crate) fn remember(&mut self, ended: Ended) {
        self.ended.insert(ended.hold.id.seq.0, ended.ended.at, ended);
    }

    /// Makes room for what a snapshot has.
    pub(crate) fn reserve(&mut self, orders: usize) {
        self.orders.reserve(orders);
        self.newest.reserve(orders);
        self.slots.reserve(orders);
    }

    /// Puts an order of `buyer` back behind those that were confirmed before it.
    pub(crate) fn restore_order(
        &mut self,
        hold: Hold,
        confirmed: Moment,
        refunded: Option<Moment>,
        buyer: BuyerId,
    ) -> Result<(), Contradiction> {
        self.add_order(Order { hold, confirmed, refunded, previous: NO_ORDER }, buyer)
    }

    /// Puts an order of `buyer` behind all others; refunded ones leave their record alone.
    fn add_order(&mut self, mut order: Order, buyer: BuyerId) -> Result<(), Contradiction> {
        let (id, index) = (order.hold.id, self.orders.len() as u32);
        match order.refunded {
            None => *self.free_slot(id.slot)? = Slot::Order(index),
            Some(_) => {
                self.refunded.insert(id.seq, index);
            }
        }
        order.previous = self.newest.insert(buyer, index).unwrap_or(NO_ORDER);
        self.orders.push(order);
        Ok(())
    }

    fn free_slot(&mut self, slot: HoldSlot) -> Result<&mut Slot, Contradiction> {
        let taken = Contradiction::SlotTaken(slot);
        // A bound on what a damaged event can make us allocate.
        if slot.0 >= SLOTS_MAX {
            return Err(taken);
        }
        let index = slot.0 as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::Free);
        }
        match &mut self.slots[index] {
            free @ Slot::Free => Ok(free),
            Slot::Active(_) | Slot::Order(_) => Err(taken),
        }
    }

    fn take_active(&mut self, id: HoldId) -> Result<Hold, Contradiction> {
        let unknown = Contradiction::NotThatHold(id);
        let Some(slot) = self.slots.get_mut(id.slot.0 as usize) else { return Err(unknown) };
        match std::mem::replace(slot, Slot::Free) {
            Slot::Active(hold) if hold.id == id => Ok(*hold),
            _ => Err(unknown),
        }
    }
}
