//! The best four seats side by side, by how full the house is, and beside a scan of its rows.
//!
//! Parties of four hold seats at random until the house is so full; what is then free is free in
//! fours. Latencies of single calls, a look at the clock included, which is some 25 ns.
//!
//! `cargo bench -p tmomi-bench --bench best`
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use tmomi_bench::Rng;
use tmomi_bench::contenders::scan;
use tmomi_bench::rounds::{Rounds, rounds};
use tmomi_bench::sale::{FastSale, NOW, request, seat};
use tmomi_engine::ids::Part;
use tmomi_engine::{BestRequest, Context, Handle, House};

/// Seats that are looked for.
const PARTY: u32 = 4;
const BEST: BestRequest =
    BestRequest { count: PARTY, section: None, tier: None, adjacent: true, avoid_orphans: false };
/// Calls of a round; all their seats are held at once where so many are free.
const CALLS: usize = 2_000;

fn main() {
    for seats in [100_000, 10_000_000] {
        let mut sale = FastSale::open(seats);
        let parties = seats / PARTY;
        let mut order: Vec<u32> = (0..parties).collect();
        shuffle(&mut order, &mut Rng::new(0x5eed));
        let mut full = 0;
        let mut median = Rounds::new(format!("best 4 of {} seats, median", digits(seats)), "ns");
        let mut p99 = Rounds::new(format!("best 4 of {} seats, p99", digits(seats)), "ns");
        for per_10_000 in [100, 5_000, 9_900, 9_999] {
            let wanted = (u64::from(parties) * per_10_000).div_ceil(10_000) as usize;
            for (n, party) in order[full..wanted].iter().enumerate() {
                let FastSale { house, handle, .. } = &mut sale;
                let first = party * PARTY;
                let part = Part { mask: 0b1111 << (first % 64), ..seat(first) };
                let held = handle.hold(house, request(n as u32), &[part], Context::at(NOW));
                held.expect("it is free");
                if n % 50_000 == 0 {
                    sale.drain();
                }
            }
            full = wanted;
            sale.drain();
            let rows = rows_of(&sale.house);
            for _ in 0..5 * rounds() {
                let name = format!("{} % full", f64::from(per_10_000 as u32) / 100.0);
                let free = parties as usize - full;
                let (took, found) = searches(&mut sale, CALLS.min(free));
                assert!(found > 0, "there are free seats");
                median.add(&name, took.value_at_quantile(0.5) as f64);
                p99.add(&name, took.value_at_quantile(0.99) as f64);
                median.add(&format!("{name}, linear scan"), scans(&rows));
            }
        }
        median.print();
        p99.print();
    }
}

/// Calls for the best seats until `calls` are made, then gives all back.
fn searches(sale: &mut FastSale, calls: usize) -> (Histogram<u64>, usize) {
    let mut took = Histogram::new(3).expect("three digits are allowed");
    let mut held = Vec::with_capacity(calls);
    for buyer in 0..CALLS as u32 {
        let FastSale { house, handle, .. } = &mut *sale;
        let start = Instant::now();
        let one = handle.hold_best(house, request(buyer), BEST, Context::at(NOW));
        took.saturating_record(start.elapsed().as_nanos() as u64);
        held.push(one.expect("there are enough").id);
        if held.len() == calls {
            give_back(handle, &mut held);
            sale.drain();
        }
    }
    let found = took.len() as usize;
    give_back(&mut sale.handle, &mut held);
    sale.drain();
    (took, found)
}

fn give_back(handle: &mut Handle, held: &mut Vec<tmomi_engine::ids::HoldId>) {
    for id in held.drain(..) {
        handle.release(id, Context::at(NOW)).expect("it is active");
    }
}

/// The masks of the house as words of their own.
fn rows_of(house: &House) -> Vec<AtomicU64> {
    let blocks = house.layout().blocks();
    let mask = |block: usize| {
        let whole = Part { block: tmomi_engine::ids::BlockIndex(block as u32), mask: u64::MAX };
        house.seat_states(Part { mask: blocks[block].full(), ..whole }).free
    };
    (0..blocks.len()).map(|block| AtomicU64::new(mask(block))).collect()
}

/// What one scan takes, ns: it finds the best seats each time.
fn scans(rows: &[AtomicU64]) -> f64 {
    const SCANS: u32 = 20;
    let start = Instant::now();
    for _ in 0..SCANS {
        let (row, bit) = std::hint::black_box(scan(rows, PARTY)).expect("there are free seats");
        // Taken and given back, so that the compiler cannot scan once for all.
        rows[row].fetch_and(!(0b1111 << bit), Ordering::AcqRel);
        rows[row].fetch_or(0b1111 << bit, Ordering::AcqRel);
    }
    (start.elapsed() / SCANS).as_nanos() as f64
}

fn shuffle(order: &mut [u32], rng: &mut Rng) {
    for n in (1..order.len()).rev() {
        order.swap(n, rng.below(n as u32 + 1) as usize);
    }
}

fn digits(seats: u32) -> String {
    if seats < 1_000_000 {
        format!("{}k", seats / 1_000)
    } else {
        format!("{}M", seats / 1_000_000)
    }
}
