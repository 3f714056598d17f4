//! The two engines with a large house open and its buyers known.

use std::path::Path;
use std::sync::Arc;

use tmomi_engine::event::{Batch, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, EntryId, Part, ShowtimeId, TierIndex, TimeMs};
use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
use tmomi_engine::naive::Naive;
use tmomi_engine::{Context, Engine, EngineConfig, Handle, HoldRequest, House, Keeper};
use tmomi_engine::{HOLD_TTL_MS_MAX, LIMIT_MAX, OpenShowtime, Reject};
use tmomi_persist::clock::Clock;
use tmomi_persist::layout_codec;
use tmomi_persist::shard::{Shard, ShardConfig};

use crate::SEATS;

/// The showtime that is sold.
pub const SHOW: ShowtimeId = ShowtimeId(1);
/// When everything happens: benches have no clock either.
pub const NOW: TimeMs = TimeMs(1_767_225_600_000);
/// Buyers with an entry.
pub const BUYERS: u32 = 1_000_000;
/// Seats from one order to the next, a multiple of the 4 that each buys.
const SPREAD: u32 = 40;
/// Orders of the houses that are brought back.
pub const ORDERS: [u32; 3] = [0, 25_000, SEATS / SPREAD];
/// Events drained at a time.
const DRAIN_MAX: usize = 1 << 17;

/// A house of about `seats` seats in rows of 64, all in one section.
pub fn layout(seats: u32) -> Arc<Layout> {
    let (tier, first_distance) = (TierIndex(0), 0);
    let rows = seats.div_ceil(64);
    let section = SectionSpec::Uniform { rows, seats_per_row: 64, tier, first_distance };
    let spec = LayoutSpec { sections: vec![section] };
    Arc::new(Layout::build(spec).expect("it has seats and is not too large"))
}

/// Seat `n` of [`layout`], counted through all rows.
pub fn seat(n: u32) -> Part {
    Part { block: BlockIndex(n / 64), mask: 1 << (n % 64) }
}

/// A hold for the `n`th buyer.
pub fn request(n: u32) -> HoldRequest {
    HoldRequest { entry: EntryId(n % BUYERS), ttl_ms: None, admitted_by_caller: false }
}

/// What puts `layout` on sale, without a limit that a bench would meet.
pub fn show(layout: Arc<Layout>) -> OpenShowtime {
    OpenShowtime {
        showtime: SHOW,
        blob: layout_codec::encode(layout.spec()).into(),
        layout,
        limit: LIMIT_MAX,
        hold_ttl_ms: HOLD_TTL_MS_MAX,
        line: LineSettings::default(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    }
}

/// The fast engine.
pub struct FastSale {
    /// For further handles.
    pub engine: Engine,
    /// The house.
    pub house: Arc<House>,
    /// The handle of the bench's thread.
    pub handle: Handle,
    keeper: Keeper,
    out: Batch,
}

impl FastSale {
    /// About `seats` seats, [`BUYERS`] buyers with the entries 0 and up.
    pub fn open(seats: u32) -> FastSale {
        let mut events = Batch::default();
        FastSale::open_into(seats, &mut events)
    }

    /// The same, and the events that led to it.
    pub fn open_into(seats: u32, events: &mut Batch) -> FastSale {
        let (engine, keeper) = Engine::new(EngineConfig::default());
        let mut handle = engine.handle().expect("the first");
        let (house, _) = handle.open(NOW, show(layout(seats))).expect("nothing is open");
        let mut sale = FastSale { engine, house, handle, keeper, out: Batch::default() };
        for buyer in 0..BUYERS {
            let entry = sale.handle.enter(&sale.house, BuyerId(buyer.into()), NOW);
            assert_eq!(entry, Ok(EntryId(buyer)));
            if buyer % 10_000 == 0 {
                sale.drain_into(events);
            }
        }
        sale.drain_into(events);
        sale
    }

    /// Makes room in the ring.
    pub fn drain(&mut self) {
        self.out.clear();
        while self.keeper.drain(&mut self.out, DRAIN_MAX) > 0 {
            self.out.clear();
        }
    }

    /// Takes what has been decided out of the ring and puts it behind what is in `out`.
    pub fn drain_into(&mut self, out: &mut Batch) {
        while self.keeper.drain(out, DRAIN_MAX) > 0 {}
    }
}

/// The naive engine, open in the same way.
pub fn naive_sale(seats: u32) -> Naive {
    let mut naive = Naive::default();
    naive.open(NOW, show(layout(seats))).expect("nothing is open");
    for buyer in 0..BUYERS {
        let entry = naive.enter(SHOW, BuyerId(buyer.into()), NOW);
        assert_eq!(entry, EntryId(buyer));
    }
    naive.drain(&mut Batch::default());
    naive
}

/// Sells `orders` orders of four seats each of a house of ten million, spread over it, and leaves
/// journal and snapshot in `dir`.
pub fn sell_into(dir: &Path, orders: u32) {
    let shard = open_shard(dir);
    let mut handle = shard.engine().handle().expect("the first");
    let now = shard.clock().now();
    let (house, _) = handle.open(now, show(layout(SEATS))).expect("nothing is open");
    for n in 0..orders {
        while buy(&mut handle, &house, n, Context::at(now)) == Err(Reject::RingFull) {
            shard.wake();
            std::thread::yield_now();
        }
    }
    drop(handle);
    shard.close().expect("the disk works");
}

/// The shard of [`sell_into`], or an empty one.
pub fn open_shard(dir: &Path) -> Shard {
    Shard::open(ShardConfig::journal(dir), Arc::new(StoppedClock)).expect("it is whole")
}

fn buy(handle: &mut Handle, house: &House, n: u32, at: Context) -> Result<(), Reject> {
    let entry = handle.enter(house, BuyerId(n.into()), at.now)?;
    let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: false };
    let first = seat(n * SPREAD);
    let parts = [Part { mask: 0b1111 << first.mask.trailing_zeros(), ..first }];
    let held = handle.hold(house, request, &parts, at)?;
    while handle.confirm(held.id, None, at) == Err(Reject::RingFull) {
        std::thread::yield_now();
    }
    Ok(())
}

/// A clock that always shows [`NOW`], so that nothing expires.
pub struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> TimeMs {
        NOW
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }
}
