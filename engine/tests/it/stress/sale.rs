//! Everything at once: random calls of three threads on a house that is too small for them.

use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, Part};
use tmomi_engine::{BestRequest, OpenShowtime, Reject};

use super::{Told, Worker, house, stress};
use crate::desk::{request, show};

const BLOCKS: u64 = 4;
const SEATS: u64 = 8;
const BUYERS: u64 = 6;

pub(super) fn fifo() -> LineSettings {
    LineSettings {
        mode: LineMode::Fifo,
        max_active: 2,
        rate_per_1000s: 100_000_000,
        grace_ms: 300,
        session_ms: 200,
    }
}

/// R1, R4, R5, R6, R10, R11, R12, R14. Plant: the CAS of a block becomes a load and a store (R1,
/// R11), forget the limit on expiry (R5), drop the give-back (R11), lose a timer (R12), let more
/// in than `max_active` (R14).
#[test]
fn the_log_of_a_crowded_sale_is_legal_and_the_answers_are_true() {
    for seed in 0..4 {
        let show = OpenShowtime { line: fifo(), ..show(&house(BLOCKS as u32, SEATS as u32)) };
        let trial = stress(show, 3, seed * 1_000, |worker, _| {
            for _ in 0..3_000 {
                any(worker).unwrap_or_else(expected);
            }
        });
        let told = |wanted: fn(&Told) -> bool| {
            trial.records.iter().filter(|record| wanted(&record.told)).count()
        };
        // Else the test would show nothing.
        assert!(told(|told| matches!(told, Told::Decided(_))) > 500);
        assert!(told(|told| matches!(told, Told::Unavailable(_))) > 500);
        assert!(told(|told| matches!(told, Told::Number(..))) > 50);
    }
}

/// What a call may answer here; the rest is a mistake.
pub(super) fn expected(reject: Reject) {
    use Reject::*;
    match reject {
        SeatUnavailable(_) | Contended | NoAdjacentSeats | SoldOut | LimitExceeded { .. } => {}
        HoldExpired | HoldConfirmed | HoldGone | NotBlocked(_) | AdmissionRequired => {}
        other => panic!("{other:?}"),
    }
}

pub(super) fn any(worker: &mut Worker<'_>) -> Result<(), Reject> {
    let buyer = BuyerId(1 + worker.rng.below(BUYERS));
    let ttl_ms = 100 + worker.rng.below(100) as u32;
    match worker.rng.below(100) {
        0..34 => {
            let parts = seats(worker);
            worker.hold(buyer, &parts, ttl_ms)?;
        }
        34..42 => best(worker, buyer, ttl_ms)?,
        42..76 => on_a_hold(worker, ttl_ms)?,
        76..80 => {
            let parts = seats(worker);
            worker.decide(|handle, house, at| handle.block(house, &parts, None, at))?;
        }
        80..86 => {
            let parts = seats(worker);
            worker.decide(|handle, house, at| handle.unblock(house, &parts, None, at))?;
        }
        86..94 => worker.join(buyer),
        94..97 => {
            let (_, entry) = worker.call(|handle, house, at| handle.enter(house, buyer, at.now));
            let entry = entry?;
            worker.call(|handle, house, at| handle.leave(house, entry, at.now)).1?;
        }
        _ => {
            let house = &worker.floor.house;
            house.entry_of(buyer).into_iter().for_each(|it| house.touch(it, worker.floor.now()));
        }
    }
    Ok(())
}

/// One to three neighbours in one block, or one seat in each of several.
fn seats(worker: &mut Worker<'_>) -> Vec<Part> {
    let rng = &mut worker.rng;
    if rng.below(3) > 0 {
        let block = BlockIndex(rng.below(BLOCKS) as u32);
        let mask = (1 << (1 + rng.below(3))) - 1;
        return vec![Part { block, mask: mask << rng.below(SEATS - 2) }];
    }
    let first = rng.below(BLOCKS - 1);
    let part = |block| Part { block: BlockIndex(block as u32), mask: 1 << rng.below(SEATS) };
    (first..BLOCKS).map(part).collect()
}

fn best(worker: &mut Worker<'_>, buyer: BuyerId, ttl_ms: u32) -> Result<(), Reject> {
    let count = 1 + worker.rng.below(3) as u32;
    let adjacent = worker.rng.below(2) == 0;
    let (section, tier, avoid_orphans) = (None, None, true);
    let best = BestRequest { count, section, tier, adjacent, avoid_orphans };
    let (_, entry) = worker.call(|handle, house, at| handle.enter(house, buyer, at.now));
    let request = request(entry?, Some(ttl_ms), true);
    let (span, held) = worker.call(|handle, house, at| handle.hold_best(house, request, best, at));
    worker.held(span, held).map(drop)
}

fn on_a_hold(worker: &mut Worker<'_>, ttl_ms: u32) -> Result<(), Reject> {
    let Some(id) = worker.floor.pick(&mut worker.rng) else { return Ok(()) };
    match worker.rng.below(5) {
        0 => worker.decide(|handle, _, at| handle.confirm(id, Some(Box::from(*b"paid")), at))?,
        1 => worker.decide(|handle, _, at| handle.release(id, at))?,
        2 | 3 => worker.decide(|handle, _, at| handle.refund(id, at))?,
        _ => worker.decide(|handle, _, at| Ok(handle.extend(id, ttl_ms, at)?.seq))?,
    };
    Ok(())
}
