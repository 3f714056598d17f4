//! A sale as its log has it: records for a writer, and what a hand-made loop would send for them.

use std::sync::Arc;

use serde_json::json;
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, HoldId, Part, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_engine::{
    Context, Engine, EngineConfig, Handle, HoldRequest, House as Open, Keeper, Reject,
};
use tmomi_persist::plan::Plan;
use tmomi_persist::writer::{House, Names, NamesError, Record, Source, SourceError, Stamp};

use crate::Rng;
use crate::sale::{NOW, SHOW, show};

/// Tickets of an order.
pub const TICKETS_PER_ORDER: u32 = 4;
/// Orders of a buyer.
const ORDERS_PER_BUYER: u32 = 10;
/// Seats of a row.
const SEATS_PER_ROW: u32 = 64;
/// Decisions of a record, about what a busy commit has.
const DECISIONS_PER_RECORD: usize = 1_000;
/// Events drained at a time.
const DRAIN_MAX: usize = 1 << 17;

/// A sold house.
pub struct Sold {
    /// Everything up to the last ticket.
    pub sale: Vec<Record>,
    /// Then every order is given back.
    pub refunds: Vec<Record>,
    /// The orders, by the numbers of their holds.
    pub orders: Vec<Order>,
    /// Buyers, users 1 and up.
    pub buyers: u32,
    house: Arc<House>,
}

/// An order of [`TICKETS_PER_ORDER`] seats.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Of its hold.
    pub id: HoldId,
    /// The event that confirmed it.
    pub last: Seq,
    /// The user.
    pub buyer: u32,
    /// Where the first seat is.
    pub first: Part,
}

impl Sold {
    /// `tickets` tickets, a multiple of 64, in random order.
    pub fn out(tickets: u32) -> Sold {
        let house = house(tickets);
        let mut seller = Seller::open(Arc::clone(&house.layout));
        let count = tickets / TICKETS_PER_ORDER;
        let buyers = buyers(tickets);
        (1..=buyers).for_each(|buyer| seller.enter(buyer));
        let places = random_places(count);
        let mut orders: Vec<Order> =
            places.iter().zip(0..).map(|(place, n)| seller.buy(*place, n % buyers)).collect();
        let sale = seller.records();
        orders.iter().for_each(|order| seller.refund(order.id));
        let refunds = seller.records();
        orders.sort_unstable_by_key(|order| order.id.seq);
        Sold { sale, refunds, orders, buyers, house }
    }

    /// Where the house's names come from.
    pub fn names(&self) -> OneHouse {
        OneHouse(Arc::clone(&self.house))
    }

    /// The last event of some records.
    pub fn last(records: &[Record]) -> Seq {
        records.last().and_then(|record| record.batch.last_seq()).expect("there are some")
    }
}

/// A house of `tickets` seats, a multiple of 64, in one section with one price.
pub fn house(tickets: u32) -> Arc<House> {
    assert!(tickets.is_multiple_of(SEATS_PER_ROW));
    let rows = tickets / SEATS_PER_ROW;
    let plan = json!({"generate": {"sections": [
        {"name": "A", "tier": "R", "rows": rows, "seats_per_row": SEATS_PER_ROW},
    ]}});
    let plan = Plan::from_value(&plan).expect("a plan");
    let layout = Arc::new(Layout::build(plan.spec()).expect("a layout"));
    let prices = vec![("R".into(), 12_000)];
    Arc::new(House { plan: Arc::new(plan), layout, prices, currency: "EUR".into() })
}

/// How many buyers share so many tickets.
pub fn buyers(tickets: u32) -> u32 {
    (tickets / TICKETS_PER_ORDER).div_ceil(ORDERS_PER_BUYER)
}

/// The places of `count` orders, in random order.
pub fn random_places(count: u32) -> Vec<u32> {
    let mut places: Vec<u32> = (0..count).collect();
    let mut rng = Rng::new(9);
    (1..count).for_each(|n| places.swap(n as usize, rng.below(n + 1) as usize));
    places
}

/// Holds and confirms the seats of a place. `room` is called while the ring is full.
pub fn buy(
    handle: &mut Handle,
    house: &Open,
    place: u32,
    entry: u32,
    at: Context,
    room: impl Fn(),
) -> Order {
    let first = crate::sale::seat(place * TICKETS_PER_ORDER);
    let part = Part { mask: 0b1111 << first.mask.trailing_zeros(), ..first };
    let request = HoldRequest { entry: EntryId(entry), ttl_ms: None, admitted_by_caller: false };
    let held = with_room(&room, || handle.hold(house, request, &[part], at));
    let last = with_room(&room, || handle.confirm(held.id, None, at));
    Order { id: held.id, last, buyer: entry + 1, first }
}

/// Decides, and waits while the ring is full.
pub fn with_room<T>(room: impl Fn(), mut decide: impl FnMut() -> Result<T, Reject>) -> T {
    loop {
        match decide() {
            Err(Reject::RingFull) => room(),
            decided => return decided.expect("every seat is free"),
        }
    }
}

struct Seller {
    handle: Handle,
    keeper: Keeper,
    house: Arc<Open>,
    events: Batch,
    records: Vec<Record>,
    decisions: usize,
}

impl Seller {
    fn open(layout: Arc<Layout>) -> Seller {
        let (engine, keeper) = Engine::new(EngineConfig::default());
        let mut handle = engine.handle().expect("the first");
        handle.start_epoch(NOW, Epoch(1), 1).expect("the ring is empty");
        let (house, _) = handle.open(NOW, show(layout)).expect("nothing is open");
        let (events, records) = (Batch::default(), Vec::new());
        Seller { handle, keeper, house, events, records, decisions: 0 }
    }

    fn enter(&mut self, buyer: u32) {
        let entry = self.handle.enter(&self.house, BuyerId(buyer.into()), NOW);
        assert_eq!(entry, Ok(EntryId(buyer - 1)));
        self.decided();
    }

    fn buy(&mut self, place: u32, entry: u32) -> Order {
        // Records are cut, and with them the ring is emptied, long before it is full.
        let room = || unreachable!("the ring has room");
        let order = buy(&mut self.handle, &self.house, place, entry, Context::at(NOW), room);
        self.decided();
        order
    }

    fn refund(&mut self, id: HoldId) {
        self.handle.refund(id, Context::at(NOW)).expect("it is an order");
        self.decided();
    }

    fn decided(&mut self) {
        self.decisions += 1;
        if self.decisions.is_multiple_of(DECISIONS_PER_RECORD) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        while self.keeper.drain(&mut self.events, DRAIN_MAX) > 0 {}
        let batch = std::mem::take(&mut self.events);
        if !batch.events.is_empty() {
            self.records.push(Record { epoch: Epoch(1), batch });
        }
    }

    fn records(&mut self) -> Vec<Record> {
        self.cut();
        std::mem::take(&mut self.records)
    }
}

/// One house for whatever showtime.
pub struct OneHouse(pub Arc<House>);

impl Names for OneHouse {
    async fn house(&mut self, showtime: ShowtimeId) -> Result<Arc<House>, NamesError> {
        assert_eq!(showtime, SHOW);
        Ok(Arc::clone(&self.0))
    }
}

/// Records in memory as a log.
pub struct InMemory(std::vec::IntoIter<Record>);

impl InMemory {
    /// A log of these.
    pub fn of(records: Vec<Record>) -> InMemory {
        InMemory(records.into_iter())
    }
}

impl Source for InMemory {
    fn seek(&mut self, _: Stamp) -> Result<(), SourceError> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        Ok(self.0.next())
    }
}
