//! Random operations on both engines at once: same answers, same state, after every operation.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::Config;
use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{BlockIndex, BuyerId, Part, SectionIndex, TierIndex, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::naive::Naive;
use tmomi_engine::state::Place;
use tmomi_engine::{BestRequest, HOLD_TTL_MS_MAX, Reject};

use crate::desk::{Desk, Fast, SHOW, request};
use crate::op::{Answer, Op};
use crate::run::{Run, is_true, masks_are_the_log, small_house};

/// Both engines under one script.
struct Pair {
    fast: Run<Fast>,
    naive: Run<Naive>,
}

impl Pair {
    fn new(layout: &Arc<Layout>) -> Pair {
        Pair { fast: Run::new(layout), naive: Run::new(layout) }
    }

    fn step(&mut self, op: &Op) {
        let (fast, _) = self.fast.step(op);
        let (naive, _) = self.naive.step(op);
        match (&fast, &naive) {
            (Answer::Refused(given), Answer::Refused(reject)) => {
                self.same_refusal(op, *given, *reject)
            }
            _ => assert_eq!(fast, naive, "the fast engine answers otherwise"),
        }
        if self.fast.fold.hash() != self.naive.fold.hash() {
            let (fast, naive) = (&self.fast.fold, &self.naive.fold);
            panic!("states differ\nfast  {fast:?}\nnaive {naive:?}");
        }
        masks_are_the_log(&self.fast.desk.house, &self.fast.fold.shows[&SHOW]);
        self.positions_agree();
    }

    fn same_refusal(&mut self, op: &Op, given: Reject, reject: Reject) {
        let (naive, now) = (&mut self.naive.desk, self.naive.now);
        let reasons = match op {
            Op::Hold { buyer, parts, ttl_ms, let_in } => {
                let entry = naive.enter(SHOW, *buyer, now);
                naive.refusals(SHOW, request(entry, *ttl_ms, *let_in), parts, now)
            }
            Op::Best { buyer, best, ttl_ms, let_in } => {
                let entry = naive.enter(SHOW, *buyer, now);
                naive.refusals_best(SHOW, request(entry, *ttl_ms, *let_in), *best, now)
            }
            _ => vec![reject],
        };
        assert!(is_true(given, &reasons), "{given:?} is none of {reasons:?}");
    }

    fn positions_agree(&self) {
        let (fast, naive) = (&self.fast.desk, &self.naive.desk);
        for it in self.fast.fold.shows[&SHOW].entries.values() {
            if it.place == Place::Waiting {
                let back = Desk::returned_ahead(naive, it.number);
                assert_eq!(fast.returned_ahead(it.number), back, "ahead of number {}", it.number);
            }
        }
    }
}

/// Times are whole ticks of the timing wheel, so that both engines see a deadline at one time.
fn duration_ms() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => (10_u32..=40).prop_map(|n| n * 10),
        2 => (1_u32..=30).prop_map(|n| n * 100),
        1 => Just(HOLD_TTL_MS_MAX),
        1 => Just(98),
    ]
}

fn ttl() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![2 => Just(None), 3 => duration_ms().prop_map(Some)]
}

fn buyer() -> impl Strategy<Value = BuyerId> {
    (1_u64..=5).prop_map(BuyerId)
}

/// Few seats in few blocks: requests must collide. Now and then a seat that is not there.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    let block = prop_oneof![6 => Just(0_u32), 4 => Just(1), 3 => 2_u32..8, 1 => Just(8)];
    let mask = prop_oneof![
        5 => (0_u32..6).prop_map(|bit| 1_u64 << bit),
        3 => (0_u32..5).prop_map(|bit| 3_u64 << bit),
        1 => Just(0b111_u64),
    ];
    let part = (block, mask).prop_map(|(block, mask)| Part { block: BlockIndex(block), mask });
    let some = proptest::collection::vec(part, 1..=3).prop_map(|mut parts| {
        parts.sort_unstable();
        parts.dedup_by_key(|part| part.block);
        parts
    });
    // More parts than a hold has room for in one record, and in one event.
    let column = (0_u32..6).prop_map(|bit| {
        let mask = 1_u64 << (bit % 3);
        (0..6).map(|block| Part { block: BlockIndex(block), mask }).collect()
    });
    prop_oneof![12 => some, 1 => column]
}

fn best() -> impl Strategy<Value = BestRequest> {
    let count = prop_oneof![8 => 1_u32..=4, 2 => 5_u32..=11, 1 => Just(66_u32), 1 => Just(0)];
    let section = proptest::option::weighted(0.5, 0_u16..3).prop_map(|s| s.map(SectionIndex));
    let tier = proptest::option::weighted(0.4, 0_u16..3).prop_map(|t| t.map(TierIndex));
    (count, section, tier, any::<bool>(), any::<bool>()).prop_map(
        |(count, section, tier, adjacent, avoid_orphans)| BestRequest {
            count,
            section,
            tier,
            adjacent,
            avoid_orphans,
        },
    )
}

fn line() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![
        6 => Just(LineMode::Fifo),
        1 => Just(LineMode::Paused),
        1 => Just(LineMode::Open)
    ];
    let rate = prop_oneof![Just(0_u32), Just(3_000), Just(20_000), Just(50_000_000)];
    let grace = (5_u32..50).prop_map(|n| n * 10);
    let session = (5_u32..80).prop_map(|n| n * 10);
    (mode, 0_u32..4, rate, grace, session).prop_map(
        |(mode, max_active, rate_per_1000s, grace_ms, session_ms)| {
            Op::Line(LineSettings { mode, max_active, rate_per_1000s, grace_ms, session_ms })
        },
    )
}

/// Operations; a time is relative until [`script`] adds it up.
fn op() -> impl Strategy<Value = Op> {
    let nth = || 0_usize..12;
    prop_oneof![
        12 => (1_u64..30).prop_map(|n| Op::At(TimeMs(n * 10))),
        1 => (30_u64..200).prop_map(|n| Op::At(TimeMs(n * 10_000))),
        14 => Just(Op::Tick),
        1 => buyer().prop_map(Op::Enter),
        12 => buyer().prop_map(Op::Join),
        3 => buyer().prop_map(Op::Leave),
        6 => buyer().prop_map(Op::Touch),
        16 => (buyer(), parts(), ttl(), prop::bool::weighted(0.4)).prop_map(
            |(buyer, parts, ttl_ms, let_in)| Op::Hold { buyer, parts, ttl_ms, let_in }),
        8 => (buyer(), best(), ttl(), prop::bool::weighted(0.4)).prop_map(
            |(buyer, best, ttl_ms, let_in)| Op::Best { buyer, best, ttl_ms, let_in }),
        5 => (nth(), duration_ms()).prop_map(|(nth, ttl_ms)| Op::Extend { nth, ttl_ms }),
        6 => nth().prop_map(|nth| Op::Confirm { nth }),
        6 => nth().prop_map(|nth| Op::Release { nth }),
        3 => nth().prop_map(|nth| Op::Refund { nth }),
        2 => parts().prop_map(Op::Block),
        2 => parts().prop_map(Op::Unblock),
        4 => line(),
        1 => (prop_oneof![1_u32..8, Just(80_u32)], duration_ms()).prop_map(
            |(limit, hold_ttl_ms)| Op::Terms { limit, hold_ttl_ms }),
        1 => (0_u64..4_000, 1_000_u64..900_000).prop_map(|(opens, closes)| Op::Window {
            opens_at: TimeMs(opens), closes_at: TimeMs(closes) }),
        1 => Just(Op::Restart),
    ]
}

/// The newest holds are the ones that are asked about: `nth` counts from the last one made.
fn run(ops: &[Op]) {
    let mut pair = Pair::new(&small_house());
    let mut script = String::new();
    let mut now = TimeMs(0);
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for op in ops {
            let made = pair.fast.holds.len();
            let op = match op.clone() {
                Op::At(later) => {
                    now = now.plus_ms(later.0);
                    Op::At(now)
                }
                Op::Extend { nth, ttl_ms } => Op::Extend { nth: recent(made, nth), ttl_ms },
                Op::Confirm { nth } => Op::Confirm { nth: recent(made, nth) },
                Op::Release { nth } => Op::Release { nth: recent(made, nth) },
                Op::Refund { nth } => Op::Refund { nth: recent(made, nth) },
                op => op,
            };
            script.push_str(&format!("{op}\n"));
            pair.step(&op);
        }
    }));
    if let Err(panic) = told {
        eprintln!("the script, for `check`:\n{script}");
        std::panic::resume_unwind(panic);
    }
}

fn recent(made: usize, nth: usize) -> usize {
    made.saturating_sub(nth + 1)
}

proptest! {
    #![proptest_config(Config { cases: 96, failure_persistence: None, ..Config::default() })]

    /// R5, R6, R11, R12, R14. Plant: forget the limit on expiry (`free` without `give_back` of
    /// the entry), drop the give-back of a refused hold, lose a timer, count the abandoned as
    /// active.
    #[test]
    fn both_engines_answer_the_same_and_reach_one_state(
        ops in proptest::collection::vec(op(), 1..160),
    ) {
        run(&ops);
    }
}
