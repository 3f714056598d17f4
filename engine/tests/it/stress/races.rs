//! One race each, run often.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tmomi_engine::event::{Body, LineMode, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, HoldId, HoldSlot, Part, Seq};
use tmomi_engine::state::Place;
use tmomi_engine::{BestRequest, Context, HOLD_TTL_MS_MAX, Handle, Held, HoldRequest, House};
use tmomi_engine::{OpenShowtime, Reject};

use super::{house, stress};
use crate::desk::{SHOW, request, show};

const ROUNDS: usize = 20_000;
/// The clock runs fast here; a hold must not end before its thread has the processor again.
const LONG_MS: u32 = HOLD_TTL_MS_MAX;

fn part(block: u32, mask: u64) -> Part {
    Part { block: BlockIndex(block), mask }
}

/// R1. Plant: the CAS of a block becomes a load and a store.
#[test]
fn of_all_who_want_a_seat_one_gets_it() {
    let show = OpenShowtime { limit: 1_000, ..show(&house(1, 3)) };
    let trial = stress(show, 2, 1, |worker, n| {
        let entry = worker.enter(BuyerId(n));
        let (floor, handle) = (worker.floor, &mut worker.handle);
        let now = floor.now();
        let request = request(entry, Some(LONG_MS), true);
        let parts = [part(0, if n == 0 { 0b011 } else { 0b110 })];
        // As tight as can be, for the window is a few instructions.
        for _ in 0..10 * ROUNDS {
            let at = Context::at(now);
            if let Ok(held) = handle.hold(&floor.house, request, &parts, at) {
                while handle.release(held.id, at) == Err(Reject::RingFull) {
                    thread::yield_now();
                }
            }
        }
    });
    assert!(trial.fold.shows[&SHOW].taken.is_empty());
}

/// Blocks of the house of [`while_others_only_try`] that can be had; one more is off sale.
const WIDE: u32 = 8;

/// Lets one thread make requests that are refused in their last block, having tried all others,
/// while another holds by `hold` what nobody else gets. Panics if that one is told anything but
/// that others are trying.
fn while_others_only_try(
    seats_per_row: u32,
    trial: u64,
    hold: impl Fn(&mut Handle, &House, HoldRequest, u32, Context) -> Result<Held, Reject> + Sync,
) {
    let show = OpenShowtime { limit: 1_000, ..show(&house(WIDE + 1, seats_per_row)) };
    let holding = AtomicBool::new(true);
    stress(show, 2, trial, |worker, n| {
        let entry = worker.enter(BuyerId(1));
        let (floor, handle) = (worker.floor, &mut worker.handle);
        let at = Context::at(floor.now());
        if n == 0 {
            // A hold would look first and not try; an organiser's block does not.
            let last = [part(WIDE, 1)];
            while handle.block(&floor.house, &last, None, at) == Err(Reject::RingFull) {
                thread::yield_now();
            }
            let wide: Vec<Part> = (0..=WIDE).map(|block| part(block, 1)).collect();
            while holding.load(Ordering::Relaxed) {
                let refused = handle.block(&floor.house, &wide, None, at);
                let told = matches!(refused, Err(Reject::SeatUnavailable(_) | Reject::Contended));
                assert!(told || refused == Err(Reject::RingFull), "{refused:?}");
            }
            return;
        }
        let request = request(entry, Some(LONG_MS), true);
        let mut told = Ok(());
        for round in 0..10 * ROUNDS as u32 {
            match hold(handle, &floor.house, request, round, at) {
                Ok(held) => while handle.release(held.id, at) == Err(Reject::RingFull) {},
                Err(Reject::Contended | Reject::RingFull) => {}
                Err(reject) => told = Err(reject),
            }
        }
        holding.store(false, Ordering::Relaxed);
        assert_eq!(told, Ok(()), "R10");
    });
}

/// R10. Plant: a bit that somebody is only trying is reported as taken.
#[test]
fn a_seat_that_others_only_try_for_is_never_unavailable() {
    while_others_only_try(4, 2, |handle, house, request, round, at| {
        handle.hold(house, request, &[part(round % WIDE, 0b11)], at)
    });
}

/// R10. Plant: a search that finds nothing does not ask whether others were trying.
#[test]
fn a_house_that_others_only_try_for_is_never_sold_out() {
    let (section, tier) = (None, None);
    let all = BestRequest { count: WIDE, section, tier, adjacent: false, avoid_orphans: false };
    while_others_only_try(1, 8, |handle, house, request, round, at| {
        // Every other time a single seat, which no other try is in the way of for long.
        let count = if round % 2 == 0 { WIDE } else { 1 };
        handle.hold_best(house, request, BestRequest { count, ..all }, at)
    });
}

/// R5. Plant: charge the buyer before the seats are taken, and take it back after a refusal.
#[test]
fn a_refused_hold_never_makes_another_look_over_the_limit() {
    let show = OpenShowtime { limit: 2, ..show(&house(2, 4)) };
    let trial = stress(show, 3, 3, |worker, n| {
        let buyer = BuyerId(9);
        if n > 0 {
            let _ = worker.decide(|h, house, at| h.block(house, &[part(1, 0b1100)], None, at));
            for _ in 0..ROUNDS {
                let refused = worker.hold(buyer, &[part(1, 0b1100)], LONG_MS);
                let told = matches!(refused, Err(Reject::SeatUnavailable(_)));
                assert!(told, "{refused:?}");
            }
            return;
        }
        for _ in 0..ROUNDS {
            match worker.hold(buyer, &[part(0, 0b11)], LONG_MS) {
                Ok(held) => drop(worker.decide(|h, _, at| h.release(held.id, at)).expect("mine")),
                Err(reject) => assert_eq!(reject, Reject::Contended, "R5"),
            }
        }
    });
    assert!(trial.fold.holds.is_empty());
}

/// R5: requests of one buyer at the same time take turns. Plant: read the limit without a turn.
#[test]
fn parallel_holds_of_one_buyer_never_pass_the_limit() {
    let show = OpenShowtime { limit: 3, ..show(&house(4, 8)) };
    stress(show, 4, 4, |worker, n| {
        for round in 0..ROUNDS as u64 {
            let seats = part(n as u32, 0b11 << (round % 7));
            if let Ok(held) = worker.hold(BuyerId(9), &[seats], LONG_MS) {
                worker.decide(|handle, _, at| handle.release(held.id, at)).expect("mine");
            }
        }
    });
}

/// R1. Plant: whoever wants to own a hold loads its state word and stores it.
#[test]
fn of_a_confirm_and_a_release_at_once_one_wins() {
    // The hold that both are after: its number and its slot.
    const SLOT_BITS: u32 = 20;
    let (prize, making) = (AtomicU64::new(0), AtomicBool::new(true));
    stress(show(&house(1, 1)), 2, 7, |worker, n| {
        let entry = worker.enter(BuyerId(1));
        let (floor, handle) = (worker.floor, &mut worker.handle);
        let at = Context::at(floor.now());
        let request = request(entry, Some(LONG_MS), true);
        if n == 1 {
            let mut last = 0;
            while making.load(Ordering::Relaxed) {
                let seen = prize.load(Ordering::Acquire);
                if seen != last {
                    last = seen;
                    let slot = HoldSlot((seen & ((1 << SLOT_BITS) - 1)) as u32);
                    let _ = handle.release(HoldId { slot, seq: Seq(seen >> SLOT_BITS) }, at);
                }
            }
            return;
        }
        for round in 0..4 * ROUNDS {
            let held = handle.hold(&floor.house, request, &[part(0, 1)], at);
            let Ok(id) = held.map(|held| held.id) else { continue };
            prize.store(id.seq.0 << SLOT_BITS | u64::from(id.slot.0), Ordering::Release);
            // The other needs a moment to see it; not always the same.
            (0..round % 50).for_each(|_| std::hint::spin_loop());
            let confirmed = handle.confirm(id, None, at);
            if matches!(confirmed, Ok(_) | Err(Reject::RingFull)) {
                while handle.refund(id, at) == Err(Reject::RingFull) {}
                let _ = handle.release(id, at);
            }
        }
        making.store(false, Ordering::Relaxed);
    });
}

/// R1, R12. Plant: a hold may be owned by two.
#[test]
fn of_confirm_release_and_expiry_one_wins() {
    let show = OpenShowtime { limit: 1_000, ..show(&house(16, 8)) };
    let trial = stress(show, 3, 5, |worker, n| {
        for round in 0..ROUNDS as u32 {
            let seat = part(round % 16, 1 << (round % 8));
            let _ = worker.hold(BuyerId(n), &[seat], 100);
            let Some(id) = worker.floor.pick(&mut worker.rng) else { continue };
            let _ = match n {
                0 => worker.decide(|handle, _, at| handle.confirm(id, None, at)),
                _ => worker.decide(|handle, _, at| handle.release(id, at)),
            };
            let _ = worker.decide(|handle, _, at| handle.refund(id, at));
        }
    });
    let ends = |wanted: fn(&Body) -> bool| {
        trial.decisions.iter().filter(|decision| wanted(&decision.events[0].body)).count()
    };
    assert!(ends(|body| matches!(body, Body::Confirmed { .. })) > 100);
    assert!(ends(|body| matches!(body, Body::Released { .. })) > 100);
    assert!(ends(|body| matches!(body, Body::Expired { .. })) > 0);
}

/// R4, R14. Plant: two counters of numbers (R4); count the abandoned as active (R14).
#[test]
fn a_line_of_many_threads_is_let_in_by_number_and_to_the_last() {
    const BUYERS: u64 = 1_500;
    let line = LineSettings {
        mode: LineMode::Fifo,
        max_active: 5,
        rate_per_1000s: u32::MAX,
        grace_ms: 1_000_000_000,
        session_ms: 3,
    };
    let show = OpenShowtime { line, ..show(&house(1, 1)) };
    let trial = stress(show, 3, 6, |worker, n| {
        for buyer in 0..BUYERS {
            worker.join(BuyerId(buyer * 3 + n));
            // The same buyers from two tabs at once.
            let other = worker.rng.below(30) + buyer.saturating_sub(10) * 3;
            worker.join(BuyerId(other));
            if worker.rng.below(5) == 0 {
                let entry = worker.floor.house.entry_of(BuyerId(other)).expect("it joined");
                worker.persist(|handle, house, at| handle.leave(house, entry, at.now));
            }
        }
    });
    let entries = trial.fold.shows[&SHOW].entries.values();
    let left: Vec<_> =
        entries.filter(|it| !matches!(it.place, Place::Out | Place::Expired)).collect();
    assert_eq!(left.len(), 0, "R14: {left:?} are still in the line");
}
