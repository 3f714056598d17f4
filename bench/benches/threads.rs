//! How many holds and releases several threads make in a second, random over ten million seats,
//! while the ring is drained beside them; and how long the slowest wait.
//!
//! A plain runner: it prints a table.
//!
//! `cargo bench -p tmomi-bench --bench threads`
#![allow(clippy::print_stdout, reason = "its table is what it is for")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tmomi_bench::baseline::MutexMap;
use tmomi_bench::sale::{BUYERS, FastSale, NOW, SHOW, naive_sale, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::event::Batch;
use tmomi_engine::{Context, Reject};

const RUN: Duration = Duration::from_secs(2);
/// One pair in so many is timed by itself, so that the clock does not dominate.
const TIMED_EVERY: u64 = 64;

/// Pairs made in all, and how long single ones took, in ns.
struct Outcome {
    pairs: u64,
    elapsed: Duration,
    single_ns: Histogram<u64>,
}

fn main() {
    println!("{:<20} {:>7} {:>14} {:>9} {:>9}", "", "threads", "pairs/s", "p50 ns", "p99.9 ns");
    for threads in [1, 2, 4] {
        let map = MutexMap::default();
        let outcome = run(threads, || {
            |seat, buyer| {
                if map.take(seat, buyer) {
                    map.give_back(seat);
                }
            }
        });
        print("mutex of a map", threads, &outcome);
        let naive = parking_lot::Mutex::new(naive_sale(SEATS));
        let outcome = run(threads, || {
            |n, buyer| {
                let at = Context::at(NOW);
                let held = naive.lock().hold(SHOW, request(buyer), &[seat(n)], at);
                let Ok(held) = held else { return };
                let mut naive = naive.lock();
                naive.release(held.id, at).expect("it is active");
                naive.drain(&mut Batch::default());
            }
        });
        print("naive, parking_lot", threads, &outcome);
        print("engine", threads, &fast(threads));
    }
}

fn fast(threads: u64) -> Outcome {
    let mut sale = FastSale::open(SEATS);
    let (engine, house) = (sale.engine.clone(), sale.house.clone());
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        let keeper = scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                sale.drain();
                thread::sleep(Duration::from_micros(200));
            }
        });
        let outcome = run(threads, || {
            let mut handle = engine.handle().expect("64 are enough");
            let house = &house;
            move |n, buyer| {
                let at = Context::at(NOW);
                let held = loop {
                    match handle.hold(house, request(buyer), &[seat(n)], at) {
                        Ok(held) => break held,
                        Err(Reject::RingFull) => thread::yield_now(),
                        Err(_) => return,
                    }
                };
                while handle.release(held.id, at) == Err(Reject::RingFull) {
                    thread::yield_now();
                }
            }
        });
        running.store(false, Ordering::Relaxed);
        keeper.join().expect("it does not panic");
        outcome
    })
}

/// Lets `threads` threads do what `pair` makes for each of them.
fn run<P: FnMut(u32, u32) + Send>(threads: u64, pair: impl Fn() -> P) -> Outcome {
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let spawn = |n: u64| {
            let (stop, mut pair) = (&stop, pair());
            scope.spawn(move || {
                let mut rng = Rng::new(n + 1);
                let mut single_ns = Histogram::new(3).expect("three digits are allowed");
                let mut pairs = 0;
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    pair(rng.below(SEATS), rng.below(BUYERS));
                    single_ns.saturating_record(before.elapsed().as_nanos() as u64);
                    (1..TIMED_EVERY).for_each(|_| pair(rng.below(SEATS), rng.below(BUYERS)));
                    pairs += TIMED_EVERY;
                }
                (pairs, single_ns)
            })
        };
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        let (mut pairs, mut single_ns) = (0, Histogram::new(3).expect("three digits"));
        for worker in workers {
            let (more, histogram) = worker.join().expect("it does not panic");
            pairs += more;
            single_ns.add(histogram).expect("the same digits");
        }
        Outcome { pairs, elapsed: start.elapsed(), single_ns }
    })
}

fn print(name: &str, threads: u64, outcome: &Outcome) {
    let rate = outcome.pairs as f64 / outcome.elapsed.as_secs_f64();
    let at = |quantile| outcome.single_ns.value_at_quantile(quantile);
    println!("{name:<20} {threads:>7} {rate:>14.0} {:>9} {:>9}", at(0.5), at(0.999));
}
