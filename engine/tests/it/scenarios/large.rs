//! What is large; on the fast engine only.

use std::collections::HashMap;
use std::sync::Arc;

use tmomi_engine::LIMIT_MAX;
use tmomi_engine::event::Body;
use tmomi_engine::ids::{BlockIndex, BuyerId, Part, SectionIndex, TierIndex, TimeMs};
use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};

use crate::desk::{Fast, SHOW};
use crate::op::{Answer, Op};
use crate::run::Run;

/// Equal rows of 64, one block each.
fn rows(rows: u32) -> Arc<Layout> {
    let (tier, seats_per_row) = (TierIndex(0), 64);
    let section = SectionSpec::Uniform { rows, seats_per_row, tier, first_distance: 0 };
    let spec = LayoutSpec { sections: vec![section] };
    Arc::new(Layout::build(spec).expect("it has seats"))
}

/// R12, on the fast engine. Plant: lose a timer.
#[test]
fn seventy_thousand_deadlines_of_one_second_free_all_seats_and_no_other() {
    const HOLDS: u32 = 70_000;
    const DUE_MS: u64 = 5_000;
    let mut run = Run::<Fast>::new(&rows(HOLDS.div_ceil(64)));
    run.step(&Op::Terms { limit: 100_000, hold_ttl_ms: 1_000 });
    let mut due = HashMap::new();
    for n in 0..HOLDS {
        let part = Part { block: BlockIndex(n / 64), mask: 1 << (n % 64) };
        let ttl_ms = Some(if n == 77 { 60_000 } else { DUE_MS as u32 + n % 1_000 });
        let (buyer, let_in) = (BuyerId(1), false);
        let (held, _) = run.step(&Op::Hold { buyer, parts: vec![part], ttl_ms, let_in });
        let Answer::Held { hold, deadline, .. } = held else { panic!("{held:?}") };
        due.insert(hold, deadline);
    }
    for now in (DUE_MS - 5..DUE_MS + 1_005).step_by(5).map(TimeMs) {
        run.step(&Op::At(now));
        let (_, events) = run.step(&Op::Tick);
        let late = events.iter().filter(|event| {
            let Body::Expired { hold, .. } = event.body else { return false };
            now.since_ms(due[&hold.seq]) > 10
        });
        assert_eq!(late.count(), 0, "R12: later than 10 ms at {now}");
    }
    assert_eq!(run.fold.shows[&SHOW].counts(), [[HOLDS.div_ceil(64) * 64 - 1, 1, 0, 0]]);
    assert_eq!(run.desk.house.free_in(SectionIndex(0)), HOLDS.div_ceil(64) * 64 - 1);
}

/// R5, on the fast engine: every seat that was opened is there, once.
#[test]
fn half_a_million_seats_are_all_there() {
    const ROWS: u32 = 500_000_u32.div_ceil(64);
    let mut run = Run::<Fast>::new(&rows(ROWS));
    run.step(&Op::Terms { limit: LIMIT_MAX, hold_ttl_ms: 1_000 });
    for block in (0..ROWS).map(BlockIndex) {
        let parts = vec![Part { block, mask: u64::MAX }];
        let (buyer, ttl_ms, let_in) = (BuyerId(1), None, false);
        let (held, _) = run.step(&Op::Hold { buyer, parts, ttl_ms, let_in });
        assert!(matches!(held, Answer::Held { .. }), "{held:?}");
    }
    assert_eq!(run.fold.shows[&SHOW].counts(), [[0, ROWS * 64, 0, 0]]);
    assert_eq!(run.desk.house.free_in(SectionIndex(0)), 0);
}
