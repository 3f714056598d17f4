//! A sale by the real engine, from random steps: events that a log could have.

use std::sync::Arc;

use proptest::prelude::*;
use tmomi_engine::event::{Batch, LineMode, LineSettings};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, Epoch, HoldId, Part, RequestKey, ShowtimeId, TierIndex, TimeMs,
};
use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
use tmomi_engine::state::ShardState;
use tmomi_engine::{
    BestRequest, Context, Engine, EngineConfig, HOLD_TTL_MS_MAX, Handle, HoldRequest, House,
    Keeper, OpenShowtime,
};
use tmomi_persist::image::Image;
use tmomi_persist::layout_codec;

/// 2027-01-01.
pub(crate) const START: TimeMs = TimeMs(1_798_761_600_000);
pub(crate) const SHOWTIMES: [ShowtimeId; 2] = [ShowtimeId(1), ShowtimeId(9)];
const BUYERS: u64 = 12;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Something that happens; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Join { house: bool, buyer: u64 },
    Leave { house: bool, buyer: u64 },
    Touch { house: bool, buyer: u64 },
    Hold { house: bool, buyer: u64, block: u32, mask: u64 },
    Best { house: bool, buyer: u64, count: u32 },
    Extend { nth: usize, ttl_ms: u32 },
    Confirm { nth: usize },
    Release { nth: usize },
    Refund { nth: usize },
    Block { house: bool, block: u32, mask: u64 },
    Unblock { house: bool, block: u32, mask: u64 },
    Limit { house: bool, limit: u32 },
    Line { house: bool, mode: u8, max_active: u32 },
    Wait { ms: u64 },
}

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..most)
}

fn step() -> impl Strategy<Value = Step> {
    let house = any::<bool>;
    let buyer = || 1..=BUYERS;
    let block = || 0u32..6;
    let mask = || prop_oneof![(0u32..64).prop_map(|bit| 1 << bit), any::<u64>()];
    let nth = any::<usize>;
    prop_oneof![
        4 => (house(), buyer()).prop_map(|(house, buyer)| Step::Join { house, buyer }),
        1 => (house(), buyer()).prop_map(|(house, buyer)| Step::Leave { house, buyer }),
        1 => (house(), buyer()).prop_map(|(house, buyer)| Step::Touch { house, buyer }),
        4 => (house(), buyer(), block(), mask())
            .prop_map(|(house, buyer, block, mask)| Step::Hold { house, buyer, block, mask }),
        3 => (house(), buyer(), 1u32..9)
            .prop_map(|(house, buyer, count)| Step::Best { house, buyer, count }),
        1 => (nth(), 100u32..900_000).prop_map(|(nth, ttl_ms)| Step::Extend { nth, ttl_ms }),
        4 => nth().prop_map(|nth| Step::Confirm { nth }),
        2 => nth().prop_map(|nth| Step::Release { nth }),
        2 => nth().prop_map(|nth| Step::Refund { nth }),
        1 => (house(), block(), mask())
            .prop_map(|(house, block, mask)| Step::Block { house, block, mask }),
        1 => (house(), block(), mask())
            .prop_map(|(house, block, mask)| Step::Unblock { house, block, mask }),
        1 => (house(), 1u32..200).prop_map(|(house, limit)| Step::Limit { house, limit }),
        1 => (house(), 0u8..3, 0u32..5)
            .prop_map(|(house, mode, max_active)| Step::Line { house, mode, max_active }),
        3 => prop_oneof![8 => 1u64..20_000, 2 => 60_000u64..900_000]
            .prop_map(|ms| Step::Wait { ms }),
        1 => prop_oneof![19 => Just(1), 1 => Just(DAY_MS)].prop_map(|ms| Step::Wait { ms }),
    ]
}

pub(crate) fn layout_spec() -> LayoutSpec {
    let tier = TierIndex(0);
    LayoutSpec {
        sections: vec![
            SectionSpec::Uniform { rows: 3, seats_per_row: 70, tier, first_distance: 1 },
            SectionSpec::General { places: 150, tier: TierIndex(1) },
        ],
    }
}

/// An engine at work, and everything it has decided.
pub(crate) struct Sale {
    pub(crate) engine: Engine,
    pub(crate) keeper: Keeper,
    handle: Handle,
    houses: Vec<Arc<House>>,
    holds: Vec<HoldId>,
    pub(crate) now: TimeMs,
    keys: u64,
    /// One batch a step that decided something.
    pub(crate) batches: Vec<Batch>,
}

impl Sale {
    /// Two showtimes, just opened.
    pub(crate) fn open() -> Sale {
        let (engine, keeper) = Engine::new(EngineConfig::default());
        let handle = engine.handle().expect("the first handle");
        let batches = Vec::new();
        let (houses, holds) = (Vec::new(), Vec::new());
        let mut sale = Sale { engine, keeper, handle, houses, holds, now: START, keys: 0, batches };
        sale.handle.start_epoch(START, Epoch(1), 1).expect("room");
        let layout = Arc::new(Layout::build(layout_spec()).expect("seats"));
        for showtime in SHOWTIMES {
            let open = OpenShowtime {
                showtime,
                layout: Arc::clone(&layout),
                blob: layout_codec::encode(layout.spec()).into(),
                limit: 100,
                hold_ttl_ms: 300_000,
                line: LineSettings { max_active: 4, ..LineSettings::default() },
                opens_at: TimeMs(0),
                closes_at: TimeMs(u64::MAX),
            };
            let (house, _) = sale.handle.open(START, open).expect("not open yet");
            sale.houses.push(house);
        }
        sale.gather();
        sale
    }

    /// The sale goes on where `image` stands, as after a crash.
    pub(crate) fn resume(image: &Image, now: TimeMs) -> Sale {
        let (engine, keeper) = Engine::restore(EngineConfig::default(), image, now);
        let handle = engine.handle().expect("the first handle");
        let house = |showtime| engine.house(showtime).expect("it is open");
        let houses = SHOWTIMES.map(house).to_vec();
        let holds = image.holds().chain(ShardState::orders(image)).map(|hold| hold.id).collect();
        let keys = image.applied().0 * 1_000;
        let mut sale =
            Sale { engine, keeper, handle, houses, holds, now, keys, batches: Vec::new() };
        sale.handle.start_epoch(now, Epoch(image.epoch().0 + 1), 1).expect("room");
        sale.gather();
        sale
    }

    pub(crate) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
            self.gather();
        }
    }

    /// Everything decided so far as one batch.
    pub(crate) fn all(&self) -> Batch {
        let mut all = Batch::default();
        for batch in &self.batches {
            all.events.extend_from_slice(&batch.events);
            all.blobs.extend_from_slice(&batch.blobs);
        }
        all
    }

    pub(crate) fn image(&self) -> Image {
        let mut image = Image::new();
        image.apply(&self.all()).expect("the engine does not contradict itself");
        image
    }

    /// Refusals are as good as decisions: they decide nothing.
    fn step(&mut self, step: &Step) {
        let context = self.context();
        let now = self.now;
        let of = |house: bool| Arc::clone(&self.houses[usize::from(house)]);
        match *step {
            Step::Join { house, buyer } => {
                let _ = self.handle.join(&of(house), BuyerId(buyer), context);
            }
            Step::Leave { house, buyer } => {
                let house = of(house);
                if let Some(entry) = house.entry_of(BuyerId(buyer)) {
                    let _ = self.handle.leave(&house, entry, now);
                }
            }
            Step::Touch { house, buyer } => {
                let house = of(house);
                if let Some(entry) = house.entry_of(BuyerId(buyer)) {
                    house.touch(entry, now);
                }
            }
            Step::Hold { house, buyer, block, mask } => {
                let house = of(house);
                let parts = parts(&house, block, mask);
                let Ok(entry) = self.handle.enter(&house, BuyerId(buyer), now) else { return };
                let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: true };
                let held = self.handle.hold(&house, request, &parts, context);
                self.holds.extend(held.map(|held| held.id));
            }
            Step::Best { house, buyer, count } => {
                let house = of(house);
                let Ok(entry) = self.handle.enter(&house, BuyerId(buyer), now) else { return };
                let request = HoldRequest { entry, ttl_ms: Some(5_000), admitted_by_caller: false };
                let best = BestRequest {
                    count,
                    section: None,
                    tier: None,
                    adjacent: count > 4,
                    avoid_orphans: true,
                };
                let held = self.handle.hold_best(&house, request, best, context);
                self.holds.extend(held.map(|held| held.id));
            }
            Step::Block { house, block, mask } => {
                let house = of(house);
                let reason = Some(b"camera".as_slice().into());
                let _ = self.handle.block(&house, &parts(&house, block, mask), reason, context);
            }
            Step::Unblock { house, block, mask } => {
                let house = of(house);
                let _ = self.handle.unblock(&house, &parts(&house, block, mask), None, context);
            }
            Step::Limit { house, limit } => {
                let _ = self.handle.set_terms(&of(house), now, limit, 300_000);
            }
            Step::Line { house, mode, max_active } => {
                let modes = [LineMode::Open, LineMode::Fifo, LineMode::Paused];
                let mode = modes[usize::from(mode)];
                let line = LineSettings { mode, max_active, ..LineSettings::default() };
                let _ = self.handle.set_line(&of(house), now, line);
            }
            Step::Wait { ms } => {
                // The wheel turns tick by tick while a timer is set, and not at all when none is:
                // of a day, only the time that the longest timer has.
                self.keeper.tick(self.now.plus_ms(ms.min(HOLD_TTL_MS_MAX.into())));
                self.now = self.now.plus_ms(ms);
                self.keeper.tick(self.now);
            }
            _ => self.step_hold(step, context),
        }
    }

    fn step_hold(&mut self, step: &Step, context: Context) {
        let of = |nth: usize| self.holds.get(nth % self.holds.len().max(1)).copied();
        match *step {
            Step::Extend { nth, ttl_ms } => {
                let _ = of(nth).map(|id| self.handle.extend(id, ttl_ms, context));
            }
            Step::Confirm { nth } => {
                let payment = Some(b"paid".as_slice().into());
                let _ = of(nth).map(|id| self.handle.confirm(id, payment, context));
            }
            Step::Release { nth } => {
                let _ = of(nth).map(|id| self.handle.release(id, context));
            }
            Step::Refund { nth } => {
                let _ = of(nth).map(|id| self.handle.refund(id, context));
            }
            _ => unreachable!("the other steps are taken"),
        }
    }

    fn context(&mut self) -> Context {
        self.keys += 1;
        let key = RequestKey { hash: self.keys, fingerprint: !self.keys };
        Context { now: self.now, key }
    }

    fn gather(&mut self) {
        let mut batch = Batch::default();
        while self.keeper.drain(&mut batch, 1_000) > 0 {}
        if !batch.events.is_empty() {
            self.batches.push(batch);
        }
    }
}

/// The seats of `mask` that the block has, and one seat of the next block if there is one.
fn parts(house: &House, block: u32, mask: u64) -> Vec<Part> {
    let blocks = house.layout().blocks();
    let first = block as usize % blocks.len();
    let mut parts =
        vec![Part { block: BlockIndex(first as u32), mask: mask & blocks[first].full() }];
    if mask.count_ones() > 20 && first + 1 < blocks.len() {
        parts.push(Part { block: BlockIndex(first as u32 + 1), mask: 1 });
    }
    parts.retain(|part| part.mask != 0);
    parts
}
