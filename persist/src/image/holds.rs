//! Active holds, orders, and holds that ended.
//!
//! A hold is found by its slab record until it is refunded, released or expires, without a search.
//! Active holds are in a pool whose places are used again, so they stay where the cache has them.
//! Orders are kept for ever, in the order of their confirmation, each with a link to the buyer's
//! order before it.

use tmomi_engine::SLOTS_MAX;
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, HoldSlot, Part, Seq, ShowtimeId, TimeMs};

use super::divergence::Contradiction;
use super::hold::{Ended, Ending, Hold, HoldView, Moment, Order};
use super::id_map::IdMap;
use super::index::Index;
use super::recent::{Recent, Remembered};
use super::slots::{Slot, Slots};

/// Ended holds remembered at most. A shard that ends more within a day forgets the oldest early:
/// a client that asks after a hold so old is told that there is none.
const ENDED_MAX: usize = 1 << 20;
/// "No order before this one."
const NO_ORDER: u32 = u32::MAX;

impl Remembered for Ended {
    fn key(&self) -> u64 {
        self.hold.id.seq.0
    }

    fn at(&self) -> TimeMs {
        self.ended.at
    }
}

/// What an event says of a hold besides its id.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) showtime: ShowtimeId,
    pub(crate) entry: EntryId,
    pub(crate) parts: &'a [Part],
}

impl Claim<'_> {
    fn is_of(&self, hold: &Hold) -> bool {
        hold.showtime == self.showtime && hold.entry == self.entry && hold.parts() == self.parts
    }
}

/// The holds and orders of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Holds {
    slots: Slots,
    /// Active holds, and among them places that are free.
    active: Vec<Hold>,
    free: Vec<u32>,
    orders: Vec<Order>,
    /// Refunded orders by the hold's number: their records may be another hold's by now.
    refunded: IdMap<Seq, u32>,
    /// Each buyer's newest order.
    newest: Index,
    ended: Recent<Ended>,
}

impl Holds {
    pub(crate) fn new() -> Holds {
        Holds {
            slots: Slots::default(),
            active: Vec::new(),
            free: Vec::new(),
            orders: Vec::new(),
            refunded: IdMap::default(),
            newest: Index::default(),
            ended: Recent::new(ENDED_MAX),
        }
    }

    pub(crate) fn get(&self, id: HoldId) -> Option<HoldView<'_>> {
        let in_slot = match self.slots.get(id.slot) {
            Slot::Free => None,
            Slot::Active(number) => Some(HoldView::Active(&self.active[number as usize])),
            Slot::Order(number) => Some(HoldView::Order(&self.orders[number as usize])),
        };
        let is_it = |view: &HoldView<'_>| view.hold().id == id;
        in_slot.filter(is_it).or_else(|| self.get_past(id).filter(is_it))
    }

    /// Loads what stands in the record: of no meaning, but it is in the cache then.
    #[inline]
    pub(crate) fn touch_slot(&self, slot: HoldSlot) -> u64 {
        self.slots.touch(slot)
    }

    /// Loads the hold or the order that stands in the record, as above.
    #[inline]
    pub(crate) fn touch(&self, slot: HoldSlot) -> u64 {
        match self.slots.get(slot) {
            Slot::Free => 0,
            Slot::Active(number) => self.active[number as usize].id.seq.0,
            Slot::Order(number) => self.orders[number as usize].hold.id.seq.0,
        }
    }

    /// Loads where the hold will be entered when it ends, as above.
    #[inline]
    pub(crate) fn touch_ended(&self, id: HoldId) -> u64 {
        self.ended.touch(id.seq.0)
    }

    /// Loads where the buyer's next order will be entered, as above.
    #[inline]
    pub(crate) fn touch_buyer(&self, buyer: BuyerId) -> u64 {
        self.newest.touch(buyer.0)
    }

    /// A hold or an order that has given its record back.
    fn get_past(&self, id: HoldId) -> Option<HoldView<'_>> {
        match self.refunded.get(&id.seq) {
            Some(order) => Some(HoldView::Order(&self.orders[*order as usize])),
            None => self.ended.get(id.seq.0).map(HoldView::Ended),
        }
    }

    /// Active holds, by record.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Hold> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Active(number) => Some(&self.active[number as usize]),
            Slot::Free | Slot::Order(_) => None,
        })
    }

    /// How many holds are active.
    pub(crate) fn active_len(&self) -> usize {
        self.active.len() - self.free.len()
    }

    /// All orders, in the order of their confirmation.
    pub(crate) fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// Ended holds, in the order of their ends.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter()
    }

    /// How many ended holds are remembered.
    pub(crate) fn ended_len(&self) -> usize {
        self.ended.len()
    }

    /// The orders of a buyer, newest first: all, or those before the order `before`, which is his.
    pub(crate) fn orders_of(
        &self,
        buyer: BuyerId,
        before: Option<HoldId>,
    ) -> impl Iterator<Item = &Order> {
        let first = match before.map(|id| self.get(id)) {
            None => self.newest_of(buyer),
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
        let number = match self.free.pop() {
            Some(number) => {
                self.active[number as usize] = hold;
                number
            }
            None => {
                self.active.push(hold);
                self.active.len() as u32 - 1
            }
        };
        self.slots.set(slot, Slot::Active(number));
        Ok(())
    }

    /// A hold gets a new deadline.
    pub(crate) fn extend(
        &mut self,
        id: HoldId,
        claim: Claim<'_>,
        deadline: TimeMs,
    ) -> Result<(), Contradiction> {
        let number = self.claimed(id, claim)?;
        self.active[number as usize].deadline = deadline;
        Ok(())
    }

    /// A hold of `buyer` becomes an order.
    pub(crate) fn confirm(
        &mut self,
        id: HoldId,
        claim: Claim<'_>,
        buyer: BuyerId,
        confirmed: Moment,
    ) -> Result<(), Contradiction> {
        let hold = self.take_claimed(id, claim)?;
        if confirmed.at >= hold.deadline {
            return Err(Contradiction::Deadline(id));
        }
        self.add_order(hold, buyer, confirmed, None)
    }

    /// A hold is released or expires.
    pub(crate) fn end(
        &mut self,
        id: HoldId,
        claim: Claim<'_>,
        how: Ending,
        ended: Moment,
    ) -> Result<(), Contradiction> {
        let hold = self.take_claimed(id, claim)?;
        if how == Ending::Expired && ended.at < hold.deadline {
            return Err(Contradiction::Deadline(id));
        }
        self.remember(Ended { hold, ended, how });
        Ok(())
    }

    /// An order is given back; its record is free.
    pub(crate) fn refund(
        &mut self,
        id: HoldId,
        claim: Claim<'_>,
        refunded: Moment,
    ) -> Result<(), Contradiction> {
        let Slot::Order(number) = self.slots.get(id.slot) else {
            return Err(self.not_claimed(id, claim));
        };
        let order = &mut self.orders[number as usize];
        if order.hold.id != id || !claim.is_of(&order.hold) {
            return Err(self.not_claimed(id, claim));
        }
        order.refunded = Some(refunded);
        self.slots.set(id.slot, Slot::Free);
        self.refunded.insert(id.seq, number);
        Ok(())
    }

    /// Puts an ended hold among those remembered.
    pub(crate) fn remember(&mut self, ended: Ended) {
        self.ended.insert(ended);
    }

    /// Makes room for what a snapshot has.
    pub(crate) fn reserve(&mut self, orders: usize) {
        self.orders.reserve(orders);
        self.newest.reserve(orders);
    }

    /// Puts an order of `buyer` behind all others; refunded ones leave their record alone.
    pub(crate) fn add_order(
        &mut self,
        hold: Hold,
        buyer: BuyerId,
        confirmed: Moment,
        refunded: Option<Moment>,
    ) -> Result<(), Contradiction> {
        let (id, number) = (hold.id, self.orders.len() as u32);
        match refunded {
            None => {
                let slot = self.free_slot(id.slot)?;
                self.slots.set(slot, Slot::Order(number));
            }
            Some(_) => {
                self.refunded.insert(id.seq, number);
            }
        }
        let orders = &self.orders;
        let has_id = |number: u32| orders[number as usize].buyer == buyer;
        let previous = self.newest.replace(buyer.0, number, has_id).unwrap_or(NO_ORDER);
        self.orders.push(Order { hold, confirmed, refunded, buyer, previous });
        Ok(())
    }

    fn newest_of(&self, buyer: BuyerId) -> Option<u32> {
        self.newest.get(buyer.0, |number| self.orders[number as usize].buyer == buyer)
    }

    /// The record, if it is one and free.
    fn free_slot(&self, slot: HoldSlot) -> Result<HoldSlot, Contradiction> {
        let is_free = slot.0 < SLOTS_MAX && self.slots.get(slot) == Slot::Free;
        if is_free { Ok(slot) } else { Err(Contradiction::SlotTaken(slot)) }
    }

    /// The place of an active hold of which an event is right.
    fn claimed(&self, id: HoldId, claim: Claim<'_>) -> Result<u32, Contradiction> {
        if let Slot::Active(number) = self.slots.get(id.slot) {
            let hold = &self.active[number as usize];
            if hold.id == id && claim.is_of(hold) {
                return Ok(number);
            }
        }
        Err(self.not_claimed(id, claim))
    }

    /// Takes out an active hold of which an event is right.
    fn take_claimed(&mut self, id: HoldId, claim: Claim<'_>) -> Result<Hold, Contradiction> {
        let number = self.claimed(id, claim)?;
        self.slots.set(id.slot, Slot::Free);
        self.free.push(number);
        Ok(std::mem::replace(&mut self.active[number as usize], Hold::NONE))
    }

    /// Why an event is not right of a hold, or not of one that is what it needs.
    #[cold]
    fn not_claimed(&self, id: HoldId, claim: Claim<'_>) -> Contradiction {
        match self.get(id) {
            Some(view) if !claim.is_of(view.hold()) => Contradiction::NotOfHold(id),
            _ => Contradiction::NotThatHold(id),
        }
    }
}
