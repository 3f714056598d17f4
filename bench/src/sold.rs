//! A sale as its log has it: records for a writer, and what a hand-made loop would send for them.

use std::sync::Arc;

use serde_json::json;
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, HoldId, Part, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_engine::{Context, Engine, EngineConfig, Handle, HoldRequest, House as Open, Keeper};
use tmomi_persist::plan::Plan;
use tmomi_persist::writer::{House, Names, NamesError, Record, Source, SourceError};

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
    /// The user.
    pub buyer: u32,
    /// Where the first seat is.
    pub first: Part,
}

impl Sold {
    /// `tickets` tickets, a multiple of 64, in random order.
    pub fn out(tickets: u32) -> Sold {
        assert!(tickets.is_multiple_of(SEATS_PER_ROW));
        let rows = tickets / SEATS_PER_ROW;
        let plan = json!({"generate": {"sections": [
            {"name": "A", "tier": "R", "rows": rows, "seats_per_row": SEATS_PER_ROW},
        ]}});
        let plan = Plan::from_value(&plan).expect("a plan");
        let layout = Arc::new(Layout::build(plan.spec()).expect("a layout"));
        let prices = vec![("R".into(), 12_000)];
        let house = House {
            plan: Arc::new(plan),
            layout: Arc::clone(&layout),
            prices,
            currency: "EUR".into(),
        };
        let mut seller = Seller::open(layout);
        let count = tickets / TICKETS_PER_ORDER;
        let buyers = count.div_ceil(ORDERS_PER_BUYER);
        (1..=buyers).for_each(|buyer| seller.enter(buyer));
        let mut places: Vec<u32> = (0..count).collect();
        let mut rng = Rng::new(9);
        (1..count).for_each(|n| places.swap(n as usize, rng.below(n + 1) as usize));
        let mut orders: Vec<Order> =
            places.iter().zip(0..).map(|(place, n)| seller.buy(*place, n % buyers)).collect();
        let sale = seller.records();
        orders.iter().for_each(|order| seller.refund(order.id));
        let refunds = seller.records();
        orders.sort_unstable_by_key(|order| order.id.seq);
        Sold { sale, refunds, orders, buyers, house: Arc::new(house) }
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
        let first = crate::sale::seat(place * TICKETS_PER_ORDER);
        let part = Part { mask: 0b1111 << first.mask.trailing_zeros(), ..first };
        let request =
            HoldRequest { entry: EntryId(entry), ttl_ms: None, admitted_by_caller: false };
        let held = self.handle.hold(&self.house, request, &[part], Context::at(NOW));
        let id = held.expect("it is free").id;
        self.handle.confirm(id, None, Context::at(NOW)).expect("in time");
        self.decided();
        Order { id, buyer: entry + 1, first }
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
pub struct OneHouse(Arc<House>);

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
    fn seek(&mut self, _: Seq) -> Result<(), SourceError> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        Ok(self.0.next())
    }
}
