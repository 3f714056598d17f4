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
use tmomi_bench::baseline::{BareDecisions, BareMasks};
use tmomi_bench::contenders::{Bare, Contender, Fast, Locked, Want, time_round};
use tmomi_bench::rounds::is_short;
use tmomi_bench::sale::{BUYERS, FastSale, NOW, SHOW, naive_sale, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, LineNumber};
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

/// A hold, and a release, of a random free seat for a random buyer.
fn hold_and_release(c: &mut Criterion) {
    let mut both = |name: &str, contender: &mut dyn Contender| {
        let mut rng = Rng::new(0x5eed);
        for phase in ["hold", "release"] {
            let mut group = c.benchmark_group(format!("{phase} of 10M seats"));
            settle(&mut group);
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter_custom(|iters| time_phase(contender, &mut rng, phase, iters));
            });
            group.finish();
        }
    };
    let bare = BareDecisions::new(BareMasks::new(SEATS), BUYERS, ROUND as u32);
    both("bare memory", &mut Bare::new(bare, 1, ROUND as u32));
    both("engine", &mut Fast::new(SEATS, 1));
    both("engine, 16 preloaded", &mut Fast::new(SEATS, 16));
    both("naive, std", &mut Locked::new(SEATS, std::sync::Mutex::new));
    both("naive, parking_lot", &mut Locked::new(SEATS, parking_lot::Mutex::new));
}

fn time_phase(contender: &mut dyn Contender, rng: &mut Rng, phase: &str, iters: u64) -> Duration {
    let (mut total, mut left) = (Duration::ZERO, iters);
    while left > 0 {
        let now = left.min(ROUND);
        let wants: Vec<Want> = (0..now).map(|_| (rng.below(SEATS), rng.below(BUYERS))).collect();
        if phase == "hold" {
            total += time_round(contender, &[wants]);
        } else {
            contender.workers(1).remove(0)(&wants);
            let start = Instant::now();
            contender.give_back();
            total += start.elapsed();
            contender.drain();
        }
        left -= now;
    }
    total
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
    group.bench_function("bare load", |b| {
        b.iter(|| (masks.is_free(rng.below(TAKEN)), rng.below(BUYERS)));
    });

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
    let share = if is_short() { 100 } else { 1 };
    group.warm_up_time(Duration::from_millis(500) / share);
    group.measurement_time(Duration::from_secs(2) / share);
    group.sample_size(20);
}

criterion_group!(benches, hold_and_release, refusal, join, line);
criterion_main!(benches);
