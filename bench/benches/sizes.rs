//! What the size of the house and of the request cost a hold: random holds over a thousand to ten
//! million seats, and four seats of two rows beside two holds of one.
//!
//! `cargo bench -p tmomi-bench --bench sizes`
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::time::Instant;

use tmomi_bench::contenders::{Contender, Fast, Want, time_round};
use tmomi_bench::rounds::{Rounds, rounds};
use tmomi_bench::sale::{BUYERS, FastSale, NOW, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::ids::{HoldId, Part};
use tmomi_engine::{Context, Handle};

/// Holds of a round at most, and at most half of a house.
const ROUND: u32 = 50_000;
/// Requests that are looked at together.
const PRELOADED: usize = 16;

fn main() {
    by_size_of_house();
    across_two_rows();
}

fn by_size_of_house() {
    let sizes = [1_000, 10_000, 100_000, 1_000_000, SEATS];
    for (title, preloaded) in [("hold", 1), ("hold, 16 preloaded", PRELOADED)] {
        let mut houses: Vec<Fast> =
            sizes.iter().map(|seats| Fast::new(*seats, preloaded)).collect();
        let mut rng = Rng::new(0x5eed);
        let mut table = Rounds::new(format!("{title}, by the seats of the house"), "ns");
        for _ in 0..5 * rounds() {
            for (seats, house) in sizes.iter().zip(&mut houses) {
                let took = ns_a_hold(house, *seats, &mut rng);
                table.add(&format!("{seats} seats"), took);
            }
        }
        table.print();
    }
}

/// Rounds until there were enough holds.
fn ns_a_hold(house: &mut dyn Contender, seats: u32, rng: &mut Rng) -> f64 {
    let a_round = ROUND.min(seats / 2);
    let mut total = 0.0;
    let all = ROUND / a_round;
    for _ in 0..all {
        let wants: Vec<Want> =
            (0..a_round).map(|_| (rng.below(seats), rng.below(BUYERS))).collect();
        total += time_round(house, &[wants]).as_nanos() as f64;
    }
    total / f64::from(a_round * all)
}

fn across_two_rows() {
    let mut sale = FastSale::open(SEATS);
    let mut rng = Rng::new(0x5eed);
    let mut table = Rounds::new("4 seats of two rows", "ns");
    for _ in 0..5 * rounds() {
        // Every second pair of rows, so that no request meets another.
        let rows: Vec<u32> = (0..ROUND / 4).map(|_| rng.below(SEATS / 128) * 128).collect();
        let buyers: Vec<u32> = rows.iter().map(|_| rng.below(BUYERS)).collect();
        let mut held: Vec<HoldId> = Vec::new();
        let FastSale { house, handle, .. } = &mut sale;
        let at = Context::at(NOW);
        let bit = rng.below(62);
        let one = |n: u32| [Part { mask: 1 << bit, ..seat(n) }];
        let start = Instant::now();
        for (row, buyer) in rows.iter().zip(&buyers) {
            let first = handle.hold(house, request(*buyer), &one(*row), at);
            let second = handle.hold(house, request(*buyer), &one(*row + 64), at);
            held.extend(first.into_iter().chain(second).map(|one| one.id));
        }
        table.add("two holds of a seat", ns(start, rows.len()));
        release_all(handle, &mut held);
        sale.drain();
        let FastSale { house, handle, .. } = &mut sale;
        let two = |n: u32| Part { mask: 0b11 << bit, ..seat(n) };
        let start = Instant::now();
        for (row, buyer) in rows.iter().zip(&buyers) {
            let parts = [two(*row), two(*row + 64)];
            held.extend(handle.hold(house, request(*buyer), &parts, at).map(|one| one.id));
        }
        table.add("one hold of two in each", ns(start, rows.len()));
        release_all(handle, &mut held);
        sale.drain();
    }
    table.print();
}

fn release_all(handle: &mut Handle, held: &mut Vec<HoldId>) {
    for id in held.drain(..) {
        handle.release(id, Context::at(NOW)).expect("it is active");
    }
}

fn ns(start: Instant, calls: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / calls as f64
}
