//! What one thread and two hold in a second, each decision with its event in the ring: at random
//! over ten million seats and a million buyers; in one hot row; and what they refuse there.
//!
//! `cargo bench -p tmomi-bench --bench threads`
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::time::Duration;

use tmomi_bench::baseline::{BareDecisions, BareMasks};
use tmomi_bench::contenders::{
    Bare, Contender, Fast, Lock, Locked, Sharded, Want, Worker, time, time_round,
};
use tmomi_bench::rounds::{Rounds, rounds};
use tmomi_bench::sale::{BUYERS, FastSale, NOW, SHOW, naive_sale, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::Part;
use tmomi_engine::{Context, Handle, Reject};

/// Holds of a round, of all threads; with the releases, fewer than the ring has slots.
const ROUND: u32 = 50_000;
/// Requests that are looked at together, where a queue of them is known.
const PRELOADED: usize = 16;
/// Seats of the hot row.
const ROW: u32 = 64;

fn main() {
    random();
    hot_row();
    refusals();
}

/// Million calls a second.
fn rate(calls: u32, took: Duration) -> f64 {
    f64::from(calls) / took.as_secs_f64() / 1e6
}

/// What each of `threads` threads wants in a round.
fn wants(rng: &mut Rng, threads: u32, seats: u32) -> Vec<Vec<Want>> {
    let one = |_| (0..ROUND / threads).map(|_| (rng.below(seats), rng.below(BUYERS))).collect();
    (0..threads).map(one).collect()
}

fn random() {
    let bare = |masks| Bare::new(BareDecisions::new(masks, BUYERS, ROUND), 2, ROUND);
    let mut contenders: Vec<(&str, Box<dyn Contender>)> = vec![
        ("engine", Box::new(Fast::new(SEATS, 1))),
        ("engine, 16 preloaded", Box::new(Fast::new(SEATS, PRELOADED))),
        ("bare memory operations", Box::new(bare(BareMasks::new(SEATS)))),
        ("the same with a word a seat", Box::new(bare(BareMasks::of_words(SEATS)))),
        ("naive, std Mutex", Box::new(Locked::new(SEATS, std::sync::Mutex::new))),
        ("naive, parking_lot Mutex", Box::new(Locked::new(SEATS, parking_lot::Mutex::new))),
        ("dashmap of seats and of buyers", Box::new(Sharded::default())),
    ];
    let mut rng = Rng::new(0x5eed);
    for threads in [1, 2] {
        let mut table = Rounds::new(format!("holds, random, {threads} threads"), "M/s");
        for _ in 0..5 * rounds() {
            for (name, contender) in &mut contenders {
                let wants = wants(&mut rng, threads, SEATS);
                table.add(name, rate(ROUND, time_round(&mut **contender, &wants)));
            }
        }
        table.print();
    }
}

/// A hold and its release, again and again, of single seats of one row.
fn hot_row() {
    let mut fast = FastSale::open(SEATS);
    let mut handles = two_handles(&fast);
    let with_std = std::sync::Mutex::new(naive_sale(SEATS));
    let with_parking_lot = parking_lot::Mutex::new(naive_sale(SEATS));
    let bare = BareDecisions::new(BareMasks::new(ROW), BUYERS, 64);
    let mut rng = Rng::new(0x5eed);
    for threads in [1, 2] {
        let title = format!("hold and release in one row, {threads} threads");
        let mut table = Rounds::new(title, "M/s");
        for _ in 0..5 * rounds() {
            let wants = wants(&mut rng, threads, ROW);
            let house = &*fast.house;
            let mut workers: Vec<Worker<'_>> = Vec::new();
            for handle in handles.iter_mut().take(threads as usize) {
                workers.push(Box::new(move |wants| {
                    for (n, buyer) in wants {
                        let at = Context::at(NOW);
                        if let Ok(held) = handle.hold(house, request(*buyer), &[seat(*n)], at) {
                            handle.release(held.id, at).expect("it is active");
                        }
                    }
                }));
            }
            table.add("engine", rate(ROUND, time(workers, &wants)));
            fast.drain();
            table.add("bare memory operations", rate(ROUND, bare_pairs(&bare, &wants)));
            table.add("naive, std Mutex", rate(ROUND, naive_pairs(&with_std, &wants)));
            let took = naive_pairs(&with_parking_lot, &wants);
            table.add("naive, parking_lot Mutex", rate(ROUND, took));
        }
        table.print();
    }
}

fn bare_pairs(bare: &BareDecisions, wants: &[Vec<Want>]) -> Duration {
    let mut workers: Vec<Worker<'_>> = Vec::new();
    for record in (0..64).step_by(32).take(wants.len()) {
        workers.push(Box::new(move |wants| {
            for (seat, buyer) in wants {
                if bare.hold(*seat, *buyer, record) {
                    bare.release(*seat, *buyer, record);
                }
            }
        }));
    }
    let took = time(workers, wants);
    bare.drain();
    took
}

fn naive_pairs(lock: &impl Lock, wants: &[Vec<Want>]) -> Duration {
    let mut workers: Vec<Worker<'_>> = Vec::new();
    for _ in wants {
        workers.push(Box::new(move |wants| {
            for (n, buyer) in wants {
                let (at, parts) = (Context::at(NOW), [seat(*n)]);
                let held = lock.with(|naive| naive.hold(SHOW, request(*buyer), &parts, at));
                if let Ok(held) = held {
                    lock.with(|naive| naive.release(held.id, at)).expect("it is active");
                }
            }
        }));
    }
    let took = time(workers, wants);
    lock.with(|naive| naive.drain(&mut Batch::default()));
    took
}

/// Refusals in a row that one buyer holds: nothing is written, so two threads refuse twice as many.
fn refusals() {
    let mut fast = FastSale::open(SEATS);
    let mut handles = two_handles(&fast);
    let row = Part { mask: u64::MAX, ..seat(0) };
    fast.handle.hold(&fast.house, request(0), &[row], Context::at(NOW)).expect("it is free");
    fast.drain();
    let (before, house) = (fast.engine.claimed(), &*fast.house);
    let mut rng = Rng::new(0x5eed);
    let mut table = Rounds::new("refusals in one row", "M/s");
    for _ in 0..5 * rounds() {
        for (name, threads) in [("1 thread", 1), ("2 threads", 2)] {
            let mut wants = wants(&mut rng, threads, ROW);
            // Each thread makes a whole round, long enough that both run beside each other.
            wants.iter_mut().for_each(|wants| *wants = wants.repeat(20));
            let calls = wants.iter().map(|wants| wants.len() as u32).sum();
            let mut workers: Vec<Worker<'_>> = Vec::new();
            for handle in handles.iter_mut().take(threads as usize) {
                workers.push(Box::new(move |wants| {
                    for (n, buyer) in wants {
                        let parts = [seat(*n)];
                        let held = handle.hold(house, request(*buyer), &parts, Context::at(NOW));
                        assert!(matches!(held, Err(Reject::SeatUnavailable(_))));
                    }
                }));
            }
            table.add(name, rate(calls, time(workers, &wants)));
        }
    }
    table.print();
    assert_eq!(fast.engine.claimed(), before, "a refusal writes nothing");
}

fn two_handles(sale: &FastSale) -> Vec<Handle> {
    (0..2).map(|_| sale.engine.handle().expect("64 are enough")).collect()
}
