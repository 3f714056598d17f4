//! What one decision costs one thread: nanoseconds for a hold, a release, a refusal, a join, a
//! look at the line, at random over ten million seats.
//!
//! A sample is rounds of [`ROUND`] decisions; what has to be put right between the rounds
//! (draining the ring, freeing the seats) is not timed.
//!
//! `cargo bench -p tmomi-bench --bench decisions`
#![allow(missing_docs, reason = "the macros of criterion make functions without any")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use tmomi_bench::baseline::{BareDecisions, BareMasks, MutexMap};
use tmomi_bench::sale::{BUYERS, FastSale, NOW, SHOW, naive_sale, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, HoldId, LineNumber};
use tmomi_engine::naive::Naive;
use tmomi_engine::{Context, Reject};

/// Decisions between two pauses; with the releases, fewer than the ring has slots.
const ROUND: u64 = 50_000;

/// Times `timed` in rounds of at most [`ROUND`], with `pause` between them.
fn rounds<S>(
    state: &mut S,
    iters: u64,
    mut timed: impl FnMut(&mut S, u64),
    mut pause: impl FnMut(&mut S),
) -> Duration {
    let (mut total, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let now = left.min(ROUND);
        let start = Instant::now();
        timed(state, now);
        total += start.elapsed();
        pause(state);
        left -= now;
    }
    total
}

/// Random free seats, each held by a random buyer: a hold, or a release, at a time.
trait Sale {
    fn hold(&mut self, seat: u32, buyer: u32);
    /// Releases the holds of the round, in the order in which they were made.
    fn release_all(&mut self);
    fn pause(&mut self);
}

fn time_holds(sale: &mut impl Sale, rng: &mut Rng, iters: u64) -> Duration {
    let hold = |sale: &mut _, count| {
        for _ in 0..count {
            Sale::hold(sale, rng.below(SEATS), rng.below(BUYERS));
        }
    };
    rounds(sale, iters, hold, |sale| {
        sale.release_all();
        sale.pause();
    })
}

fn time_releases(sale: &mut impl Sale, rng: &mut Rng, iters: u64) -> Duration {
    let (mut total, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let now = left.min(ROUND);
        (0..now).for_each(|_| sale.hold(rng.below(SEATS), rng.below(BUYERS)));
        let start = Instant::now();
        sale.release_all();
        total += start.elapsed();
        sale.pause();
        left -= now;
    }
    total
}

struct Bare(BareMasks, Vec<u32>);

impl Sale for Bare {
    fn hold(&mut self, seat: u32, _: u32) {
        if self.0.take(seat) {
            self.1.push(seat);
        }
    }

    fn release_all(&mut self) {
        self.1.drain(..).for_each(|seat| self.0.give_back(seat));
    }

    fn pause(&mut self) {}
}

struct BareWhole(BareDecisions, Vec<(u32, u32)>);

impl Sale for BareWhole {
    fn hold(&mut self, seat: u32, buyer: u32) {
        if self.0.hold(seat, buyer, self.1.len() as u32) {
            self.1.push((seat, buyer));
        }
    }

    fn release_all(&mut self) {
        let holds = self.1.drain(..).enumerate();
        holds.for_each(|(hold, (seat, buyer))| self.0.release(seat, buyer, hold as u32));
    }

    fn pause(&mut self) {
        self.0.drain();
    }
}

struct Map(MutexMap, Vec<u32>);

impl Sale for Map {
    fn hold(&mut self, seat: u32, buyer: u32) {
        if self.0.take(seat, buyer) {
            self.1.push(seat);
        }
    }

    fn release_all(&mut self) {
        self.1.drain(..).for_each(|seat| self.0.give_back(seat));
    }

    fn pause(&mut self) {}
}

struct Fast(FastSale, Vec<HoldId>);

impl Sale for Fast {
    fn hold(&mut self, n: u32, buyer: u32) {
        let FastSale { house, handle, .. } = &mut self.0;
        if let Ok(held) = handle.hold(house, request(buyer), &[seat(n)], Context::at(NOW)) {
            self.1.push(held.id);
        }
    }

    fn release_all(&mut self) {
        for id in self.1.drain(..) {
            self.0.handle.release(id, Context::at(NOW)).expect("it is active");
        }
    }

    fn pause(&mut self) {
        self.0.drain();
    }
}

/// The naive engine behind one of two locks.
struct Locked<L>(L, Vec<HoldId>);

trait Lock {
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R;
}

impl Lock for std::sync::Mutex<Naive> {
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R {
        act(&mut self.lock().expect("nobody panics with it"))
    }
}

impl Lock for parking_lot::Mutex<Naive> {
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R {
        act(&mut self.lock())
    }
}

impl<L: Lock> Sale for Locked<L> {
    fn hold(&mut self, n: u32, buyer: u32) {
        let (request, parts, at) = (request(buyer), [seat(n)], Context::at(NOW));
        if let Ok(held) = self.0.with(|naive| naive.hold(SHOW, request, &parts, at)) {
            self.1.push(held.id);
        }
    }

    fn release_all(&mut self) {
        for id in self.1.drain(..) {
            let released = self.0.with(|naive| naive.release(id, Context::at(NOW)));
            released.expect("it is active");
        }
    }

    fn pause(&mut self) {
        self.0.with(|naive| naive.drain(&mut Batch::default()));
    }
}

fn hold_and_release(c: &mut Criterion) {
    let mut both = |name: &str, sale: &mut dyn FnMut(&str, u64) -> Duration| {
        for phase in ["hold", "release"] {
            let mut group = c.benchmark_group(format!("{phase} of 10M seats"));
            settle(&mut group);
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter_custom(|iters| sale(phase, iters));
            });
            group.finish();
        }
    };
    fn run(sale: &mut impl Sale, rng: &mut Rng, phase: &str, iters: u64) -> Duration {
        match phase {
            "hold" => time_holds(sale, rng, iters),
            _ => time_releases(sale, rng, iters),
        }
    }
    let mut rng = Rng::new(0x5eed);
    let mut bare = Bare(BareMasks::new(SEATS), Vec::new());
    both("bare CAS", &mut |phase, iters| run(&mut bare, &mut rng, phase, iters));
    let mut bare = BareWhole(BareDecisions::new(SEATS, BUYERS, ROUND as u32), Vec::new());
    both("bare memory", &mut |phase, iters| run(&mut bare, &mut rng, phase, iters));
    let mut fast = Fast(FastSale::open(SEATS), Vec::new());
    both("engine", &mut |phase, iters| run(&mut fast, &mut rng, phase, iters));
    let mut map = Map(MutexMap::default(), Vec::new());
    both("mutex of a map", &mut |phase, iters| run(&mut map, &mut rng, phase, iters));
    let mut naive = Locked(std::sync::Mutex::new(naive_sale(SEATS)), Vec::new());
    both("naive, std", &mut |phase, iters| run(&mut naive, &mut rng, phase, iters));
    let mut naive = Locked(parking_lot::Mutex::new(naive_sale(SEATS)), Vec::new());
    both("naive, parking_lot", &mut |phase, iters| run(&mut naive, &mut rng, phase, iters));
}

/// A hold that is refused, at random over the first million seats, all of them held.
fn refusal(c: &mut Criterion) {
    const TAKEN: u32 = 1 << 20;
    let mut group = c.benchmark_group("refusal of 10M seats");
    settle(&mut group);
    let mut rng = Rng::new(0x5eed);
    let masks = BareMasks::new(SEATS);
    for n in 0..TAKEN {
        black_box(masks.take(n));
    }
    group.bench_function("bare load", |b| b.iter(|| masks.take(rng.below(TAKEN))));

    let mut fast = FastSale::open(SEATS);
    for block in 0..TAKEN / 64 {
        let part = tmomi_engine::ids::Part { mask: u64::MAX, ..seat(block * 64) };
        let FastSale { house, handle, .. } = &mut fast;
        handle.hold(house, request(block), &[part], Context::at(NOW)).expect("it is free");
        if block % 10_000 == 0 {
            fast.drain();
        }
    }
    fast.drain();
    let before = fast.engine.claimed();
    group.bench_function("engine", |b| {
        b.iter(|| {
            let parts = [seat(rng.below(TAKEN))];
            let request = request(rng.below(BUYERS));
            let FastSale { house, handle, .. } = &mut fast;
            let refused = handle.hold(house, request, &parts, Context::at(NOW));
            assert!(matches!(refused, Err(Reject::SeatUnavailable(_))));
        });
    });
    assert_eq!(fast.engine.claimed(), before, "a refusal writes nothing");

    let naive = parking_lot::Mutex::new(naive_sale(SEATS));
    for n in 0..TAKEN {
        let held = naive.lock().hold(SHOW, request(n), &[seat(n)], Context::at(NOW));
        held.expect("it is free");
    }
    group.bench_function("naive, parking_lot", |b| {
        b.iter(|| {
            let parts = [seat(rng.below(TAKEN))];
            let request = request(rng.below(BUYERS));
            let refused = naive.lock().hold(SHOW, request, &parts, Context::at(NOW));
            assert!(matches!(refused, Err(Reject::SeatUnavailable(_))));
        });
    });
    group.finish();
}

/// A buyer nobody has seen before joins the line of a house that is open to all.
fn join(c: &mut Criterion) {
    let mut group = c.benchmark_group("join");
    settle(&mut group);
    let counter = std::sync::atomic::AtomicU64::new(0);
    group.bench_function("bare fetch_add", |b| {
        b.iter(|| counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    });
    let (mut fast, mut buyer) = (FastSale::open(64), u64::from(BUYERS));
    group.bench_function("engine", |b| {
        b.iter_custom(|iters| {
            let joins = |fast: &mut FastSale, count| {
                for _ in 0..count {
                    buyer += 1;
                    let FastSale { house, handle, .. } = fast;
                    let joined = handle.join(house, BuyerId(buyer), Context::at(NOW));
                    assert!(joined.is_ok_and(|joined| joined.fresh));
                }
            };
            rounds(&mut fast, iters, joins, FastSale::drain)
        });
    });
    let (mut naive, mut buyer) = (naive_sale(64), u64::from(BUYERS));
    group.bench_function("naive", |b| {
        b.iter_custom(|iters| {
            let joins = |naive: &mut Naive, count| {
                for _ in 0..count {
                    buyer += 1;
                    assert!(naive.join(SHOW, BuyerId(buyer), Context::at(NOW)).fresh);
                }
            };
            rounds(&mut naive, iters, joins, |naive| naive.drain(&mut Batch::default()))
        });
    });
    group.finish();
}

/// What the engine says of a place in a line of a million: how many came back ahead of it.
fn line(c: &mut Criterion) {
    let mut group = c.benchmark_group("came back ahead of a number");
    settle(&mut group);
    let (fast, mut rng) = (FastSale::open(64), Rng::new(0x5eed));
    group.bench_function("engine", |b| {
        b.iter(|| fast.house.returned_ahead(LineNumber(rng.below(1_000_000))));
    });
    group.finish();
}

/// Short enough that all of it runs in two minutes; the shares of the machine differ more from
/// hour to hour than two seconds of samples do.
fn settle(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    group.sample_size(20);
}

criterion_group!(benches, hold_and_release, refusal, join, line);
criterion_main!(benches);
