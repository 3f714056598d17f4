//! Whole operations of two or three threads, in thousands of orders of their steps.
//!
//! Shuttle runs one thread at a time and decides at every atomic of the engine which goes on:
//! at random, or by few changes of priority (PCT: Burckhardt et al. 2010), which finds what needs
//! a thread to stand still for long. Each order is judged as a stress is: the log is folded, the
//! answers are held against it. Unlike loom it does not try all orders and takes every ordering
//! for SeqCst; so it can run the operations as they are, with the keeper beside them.
//!
//! A failing order is printed; `TMOMI_TEST_SCHEDULE` runs it again. `TMOMI_TEST_SCHEDULES` is how
//! many orders of each kind a scenario gets.

use std::collections::BTreeSet;
use std::env;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, Runner};
use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, HoldId, Part};
use tmomi_engine::state::Place;
use tmomi_engine::{BestRequest, HOLD_TTL_MS_MIN, Held, OpenShowtime, Reject};

use super::{Worker, house, sale, stress};
use crate::desk::{SHOW, request, show};

/// Orders of each kind, unless the environment says how many.
const SCHEDULES_DEFAULT: usize = 1_500;
/// How often so many are run until each outcome that a scenario wants was seen: some are rare, and
/// the orders are others every time.
const ROUNDS_MAX: usize = 10;
/// Changes of priority in an order at most: most bugs need no more than two or three.
const PCT_DEPTH: usize = 3;
/// The folding wants more than shuttle gives.
const STACK_BYTES: usize = 1 << 18;
const CONTENDED: &str = "contended";
/// A time that no test waits for.
const LONG_MS: u32 = 60_000;

/// What a scenario came to, over all orders.
type Seen = Arc<Mutex<BTreeSet<&'static str>>>;

/// Runs `scenario` in many orders. Each name of `wanted` must have been reported by one of them,
/// and no other: else the test would show nothing. (`contended` may be reported too: whoever is
/// told so has looked often enough, which is rare.)
fn explore(wanted: &[&str], scenario: impl Fn(&Seen) + Send + Sync + 'static) {
    let seen = Seen::default();
    let report = Arc::clone(&seen);
    let scenario = Arc::new(move || scenario(&report));
    let config = || {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.silence_warnings = true;
        config
    };
    if let Ok(schedule) = env::var("TMOMI_TEST_SCHEDULE") {
        let replay = ReplayScheduler::new_from_encoded(&schedule);
        Runner::new(replay, config()).run(move || scenario());
        return;
    }
    let schedules = env::var("TMOMI_TEST_SCHEDULES").ok().and_then(|count| count.parse().ok());
    let schedules = schedules.unwrap_or(SCHEDULES_DEFAULT);
    let mut found = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let (random, pct) = (Arc::clone(&scenario), Arc::clone(&scenario));
        Runner::new(RandomScheduler::new(schedules), config()).run(move || random());
        Runner::new(PctScheduler::new(PCT_DEPTH, schedules), config()).run(move || pct());
        let seen = seen.lock().expect("no order failed");
        found = seen.iter().copied().filter(|what| *what != CONTENDED).collect();
        if found == wanted {
            return;
        }
    }
    assert_eq!(found, wanted, "after {ROUNDS_MAX} times {schedules} orders of each kind");
}

fn saw(seen: &Seen, what: &'static str) {
    seen.lock().expect("no order failed").insert(what);
}

fn part(block: u32, mask: u64) -> Part {
    Part { block: BlockIndex(block), mask }
}

/// Two rows of three seats, open to all.
fn two_rows() -> OpenShowtime {
    OpenShowtime { limit: 9, ..show(&house(2, 3)) }
}

/// What a call was answered.
fn told<T>(answer: &Result<T, Reject>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Reject::SeatUnavailable(_)) => "unavailable",
        Err(Reject::Contended) => CONTENDED,
        Err(Reject::NoAdjacentSeats) => "none together",
        Err(Reject::SoldOut) => "sold out",
        Err(Reject::HoldConfirmed) => "confirmed",
        Err(Reject::HoldExpired | Reject::HoldGone) => "over",
        Err(_) => "another refusal",
    }
}

impl Worker<'_> {
    /// Lets time pass for all.
    fn pass_ms(&self, elapsed_ms: u64) {
        self.floor.now_ms.fetch_add(elapsed_ms, Ordering::SeqCst);
    }

    fn release(&mut self, held: Result<Held, Reject>) {
        let Ok(held) = held else { return };
        self.decide(|handle, _, at| handle.release(held.id, at)).expect("nobody else ends it");
    }

    fn best(&mut self, buyer: BuyerId, count: u32) -> Result<Held, Reject> {
        let request = request(self.enter(buyer), Some(LONG_MS), true);
        let (section, tier) = (None, None);
        let best = BestRequest { count, section, tier, adjacent: true, avoid_orphans: false };
        let (span, held) =
            self.call(|handle, house, at| handle.hold_best(house, request, best, at));
        self.held(span, held)
    }

    /// A hold that another thread made, if there is one by now.
    fn newest(&self) -> Option<HoldId> {
        self.floor.board.lock().expect("no thread panics with it").last().copied()
    }
}

/// R1, R10, R11. Planted: the give-back is dropped; a tried seat is called taken; the seats of a
/// released hold are free before the event has its number.
#[test]
fn a_hold_across_blocks_meets_a_release() {
    explore(&["done", "unavailable"], |seen| {
        let seen = Arc::clone(seen);
        let trial = stress(two_rows(), 3, 1, move |worker, n| {
            let parts: &[Part] = match n {
                0 => &[part(0, 0b011), part(1, 0b001)],
                1 => &[part(0, 0b110), part(1, 0b110)],
                _ => &[part(1, 0b011)],
            };
            for _ in 0..2 {
                let held = worker.hold(BuyerId(n), parts, LONG_MS);
                saw(&seen, told(&held));
                worker.release(held);
            }
        });
        assert!(trial.fold.holds.is_empty());
    });
}

/// R1, R5, R12. Planted: a hold's word is stored, not exchanged; a confirm does not look at the
/// deadline; the account is not settled on expiry.
#[test]
fn an_expiry_meets_a_confirm() {
    explore(&["confirmed", "done", "over"], |seen| {
        let seen = Arc::clone(seen);
        stress(two_rows(), 2, 2, move |worker, n| {
            if n == 0 {
                let held = worker.hold(BuyerId(1), &[part(0, 0b111)], HOLD_TTL_MS_MIN);
                assert!(held.is_ok(), "{held:?}");
                worker.pass_ms(u64::from(HOLD_TTL_MS_MIN) - 5);
            }
            if let Some(id) = worker.newest() {
                saw(&seen, told(&worker.decide(|handle, _, at| handle.confirm(id, None, at))));
            }
        });
    });
}

/// R1, R5, R12. Planted: a timer that came early is lost.
#[test]
fn an_extension_meets_an_expiry_and_a_release() {
    explore(&["done", "over"], |seen| {
        let seen = Arc::clone(seen);
        let trial = stress(two_rows(), 3, 3, move |worker, n| {
            if n == 0 {
                let held = worker.hold(BuyerId(1), &[part(0, 0b101)], HOLD_TTL_MS_MIN);
                assert!(held.is_ok(), "{held:?}");
                worker.pass_ms(u64::from(HOLD_TTL_MS_MIN) - 5);
            }
            let Some(id) = worker.newest() else { return };
            let answer = match n {
                2 => worker.decide(|handle, _, at| handle.release(id, at)),
                _ => worker
                    .decide(|handle, _, at| Ok(handle.extend(id, 2 * HOLD_TTL_MS_MIN, at)?.seq)),
            };
            saw(&seen, told(&answer));
        });
        assert!(trial.fold.holds.is_empty(), "R12: it ends, extended or not");
    });
}

/// R1, R10. Planted: a search that finds nothing does not ask for tries; a free seat is not in
/// the summary.
#[test]
fn best_available_meets_holds_and_releases() {
    explore(&["done", "none together", "sold out"], |seen| {
        let seen = Arc::clone(seen);
        let trial = stress(two_rows(), 3, 4, move |worker, n| match n {
            0 => {
                let held = worker.best(BuyerId(1), 3);
                saw(&seen, told(&held));
                worker.release(held);
            }
            1 => {
                let held = worker.best(BuyerId(2), 2);
                assert!(held.is_ok() || held == Err(Reject::Contended), "R10: {held:?}");
                worker.release(held);
            }
            _ => {
                // Never more than one row is really gone: two seats together stay free.
                let parts = [part(0, 0b010), part(1, 0b001)];
                let held = worker.hold(BuyerId(3), &parts, LONG_MS);
                worker.release(held);
            }
        });
        assert!(trial.fold.holds.is_empty());
    });
}

/// R4, R14. Planted: two counters of numbers; the abandoned are counted as active; a number that
/// is taken and not yet known is passed over.
#[test]
fn a_join_meets_the_admission() {
    let line = LineSettings {
        mode: LineMode::Fifo,
        max_active: 1,
        rate_per_1000s: u32::MAX,
        grace_ms: 1_000_000,
        session_ms: 3,
    };
    explore(&["done"], move |seen| {
        let seen = Arc::clone(seen);
        let show = OpenShowtime { line, ..show(&house(1, 1)) };
        let trial = stress(show, 3, 5, move |worker, n| {
            worker.join(BuyerId(n));
            // The same buyer from another tab, and one who gives up.
            worker.join(BuyerId((n + 1) % 3));
            if n == 2 {
                let entry = worker.enter(BuyerId(2));
                worker.persist(|handle, house, at| handle.leave(house, entry, at.now));
            }
            saw(&seen, "done");
        });
        let entries = trial.fold.shows[&SHOW].entries.values();
        let left = entries.filter(|it| !matches!(it.place, Place::Out | Place::Expired)).count();
        assert_eq!(left, 0, "R14: somebody is still in the line");
    });
}

/// R1, R10. Planted: seats are marked free before the unblocking has its number.
#[test]
fn a_block_meets_a_hold() {
    explore(&["done", "unavailable"], |seen| {
        let seen = Arc::clone(seen);
        stress(two_rows(), 2, 6, move |worker, n| {
            let parts = [part(0, 0b011), part(1, 0b001)];
            if n == 0 {
                let blocked = worker.decide(|h, house, at| h.block(house, &parts, None, at));
                if blocked.is_ok() {
                    let unblocked = worker.decide(|h, it, at| h.unblock(it, &parts, None, at));
                    unblocked.expect("nobody else does");
                }
                return;
            }
            for parts in [&[part(0, 0b110), part(1, 0b011)][..], &[part(0, 0b001)]] {
                let held = worker.hold(BuyerId(1), parts, LONG_MS);
                saw(&seen, told(&held));
            }
        });
    });
}

/// R1, R5. Planted: a refund frees its seats before the event has its number.
#[test]
fn a_refund_meets_a_hold() {
    explore(&["done", "unavailable"], |seen| {
        let seen = Arc::clone(seen);
        stress(two_rows(), 3, 7, move |worker, n| {
            if n == 0 {
                let held = worker.hold(BuyerId(1), &[part(0, 0b011)], LONG_MS);
                let Ok(Held { id, .. }) = held else { return };
                worker.decide(|handle, _, at| handle.confirm(id, None, at)).expect("it is mine");
            } else {
                let held = worker.hold(BuyerId(n), &[part(0, 0b110)], LONG_MS);
                saw(&seen, told(&held));
                worker.release(held);
            }
            if let Some(id) = worker.newest() {
                let _ = worker.decide(|handle, _, at| handle.refund(id, at));
            }
        });
    });
}

/// R1, R4 to R6, R10 to R12, R14: all calls, by three threads.
#[test]
fn everything_meets_everything() {
    explore(&["done"], |seen| {
        let seen = Arc::clone(seen);
        let show = OpenShowtime { line: sale::fifo(), ..show(&house(4, 8)) };
        // Shuttle decides the order, and its random numbers which calls, so both replay.
        let seed = shuttle::rand::RngCore::next_u64(&mut shuttle::rand::thread_rng());
        stress(show, 3, seed >> 32, move |worker, _| {
            for _ in 0..8 {
                sale::any(worker).unwrap_or_else(sale::expected);
            }
            saw(&seen, "done");
        });
    });
}
