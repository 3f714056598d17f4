//! Eight threads sell a hall of 10,000 seats, two side by side, until nothing is left.
//!
//! `cargo run --release -p tmomi-engine --example embed`
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::{sync::Arc, thread};

use tmomi_engine::event::{Batch, LineSettings};
use tmomi_engine::ids::{BuyerId, SectionIndex, ShowtimeId, TierIndex, TimeMs};
use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
use tmomi_engine::{
    BestRequest, Context, Engine, Handle, HoldRequest, House, OpenShowtime, Reject,
};

fn main() {
    let (tier, first_distance) = (TierIndex(0), 1);
    let hall = SectionSpec::Uniform { rows: 200, seats_per_row: 50, tier, first_distance };
    let layout = Layout::build(LayoutSpec { sections: vec![hall] }).expect("it has seats");
    let (engine, mut keeper) = Engine::new(tmomi_engine::EngineConfig::default());
    let mut handle = engine.handle().expect("64 threads may decide");
    let show = OpenShowtime {
        showtime: ShowtimeId(1),
        layout: Arc::new(layout),
        blob: Box::default(),
        limit: 4,
        hold_ttl_ms: 300_000,
        line: LineSettings::default(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    };
    let (house, _) = handle.open(TimeMs(0), show).expect("it is not open yet");
    let mut log = Batch::default();
    thread::scope(|scope| {
        let sell = |n| {
            let (house, handle) = (&house, engine.handle().expect("64 threads may decide"));
            scope.spawn(move || sell_out(handle, house, n))
        };
        let sellers: Vec<_> = (0..8).map(sell).collect();
        while !(sellers.iter().all(|seller| seller.is_finished()) && keeper.idle()) {
            keeper.drain(&mut log, usize::MAX);
        }
        let orders: Vec<u64> = sellers.into_iter().filter_map(|it| it.join().ok()).collect();
        println!("orders by thread: {orders:?}, {} in all", orders.iter().sum::<u64>());
    });
    println!("{} seats free, {} events", house.free_in(SectionIndex(0)), log.events.len());
}

/// Sells to one buyer after another; gives the number of orders.
fn sell_out(mut handle: Handle, house: &House, thread: u64) -> u64 {
    let (section, tier, now) = (None, None, Context::at(TimeMs(0)));
    let pair = BestRequest { count: 2, section, tier, adjacent: true, avoid_orphans: true };
    let mut orders = 0;
    loop {
        let buyer = BuyerId(thread << 32 | orders);
        let entry = handle.enter(house, buyer, now.now).expect("the keeper drains the ring");
        let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: false };
        match handle.hold_best(house, request, pair, now) {
            Ok(held) => handle.confirm(held.id, None, now).expect("it is held"),
            Err(Reject::Contended) => continue,
            Err(Reject::SoldOut | Reject::NoAdjacentSeats) => return orders,
            Err(reject) => panic!("{reject:?}"),
        };
        orders += 1;
    }
}
