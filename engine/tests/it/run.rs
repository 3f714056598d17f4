//! A script on one engine: every answer, every event, and the fold that judges them.

use std::fmt::Write;
use std::sync::Arc;

use tmomi_engine::event::{Body, Event, LeaveReason};
use tmomi_engine::ids::{BlockIndex, HoldId, Part, SectionIndex, TierIndex, TimeMs};
use tmomi_engine::layout::{Layout, LayoutSpec, RowSpec, SectionSpec};
use tmomi_engine::state::Place;
use tmomi_engine::{House, Reject, SeatState};

use crate::desk::{Desk, Made, SHOW, context, show};
use crate::fold::{Fold, Show, Taken};
use crate::op::{Answer, Op, Parts};

/// One engine under a script.
pub(crate) struct Run<D> {
    pub(crate) desk: D,
    pub(crate) fold: Fold,
    pub(crate) now: TimeMs,
    pub(crate) holds: Vec<HoldId>,
    steps: usize,
    window: (TimeMs, TimeMs),
}

impl<D: Desk> Run<D> {
    /// With [`show`] open at time 0.
    pub(crate) fn new(layout: &Arc<Layout>) -> Run<D> {
        let mut run = Run {
            desk: D::open(TimeMs(0), show(layout)),
            fold: Fold::new([(SHOW, Arc::clone(layout))]),
            now: TimeMs(0),
            holds: Vec::new(),
            steps: 0,
            window: (TimeMs(0), TimeMs(u64::MAX)),
        };
        run.fold.apply(&run.desk.drain());
        run
    }

    /// Does one operation and folds the events of it.
    pub(crate) fn step(&mut self, op: &Op) -> (Answer, Vec<Event>) {
        self.steps += 1;
        let answer = match op {
            Op::At(now) => {
                self.now = *now;
                Answer::Done
            }
            Op::Restart => {
                self.desk = D::restore(&self.fold, self.now);
                let (opens_at, closes_at) = self.window;
                self.apply(&Op::Window { opens_at, closes_at })
            }
            Op::Window { opens_at, closes_at } => {
                self.window = (*opens_at, *closes_at);
                self.apply(op)
            }
            _ => self.apply(op),
        };
        let decisions = self.fold.apply(&self.desk.drain());
        let events = decisions.into_iter().flat_map(|decision| decision.events).collect();
        (answer, events)
    }

    fn apply(&mut self, op: &Op) -> Answer {
        match self.desk.apply(op, &self.holds, context(self.now, self.steps)) {
            Ok(Made(answer, hold)) => {
                self.holds.extend(hold);
                answer
            }
            Err(reject) => Answer::Refused(reject),
        }
    }

    /// The script with its answers and events.
    pub(crate) fn text(&mut self, script: &str) -> String {
        let mut text = String::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let op = Op::parse(line);
            let (answer, events) = self.step(&op);
            write!(text, "{op}").expect("a string takes it");
            if answer != Answer::Done {
                write!(text, " -> {answer}").expect("a string takes it");
            }
            text.push('\n');
            let mut lines: Vec<String> = events.iter().filter_map(event_text).collect();
            if matches!(op, Op::Tick) {
                // In which order one tick does what is due is the engine's affair.
                lines.sort();
            }
            lines.iter().for_each(|line| writeln!(text, "    {line}").expect("a string takes it"));
        }
        text
    }
}

/// An event without its number, so that a script's text is stable; `None` for a continuation.
fn event_text(event: &Event) -> Option<String> {
    let seats = |first: Part| {
        let dots = if event.more_follows { " ..." } else { "" };
        format!("{}{dots}", Parts(&[first]))
    };
    Some(match event.body {
        Body::More { .. } => return None,
        Body::EpochStart { epoch, node } => format!("epoch {epoch} of node {node}"),
        Body::Opened { limit, hold_ttl_ms } => format!("opened limit {limit} ttl {hold_ttl_ms}"),
        Body::Terms { limit, hold_ttl_ms } => format!("terms limit {limit} ttl {hold_ttl_ms}"),
        Body::LineSet(line) => format!("line {:?} active {}", line.mode, line.max_active),
        Body::Buyer { entry, buyer } => format!("entry {entry}: buyer {buyer}"),
        Body::Joined { entry, number, .. } => format!("entry {entry}: joined as {number}"),
        Body::Left { entry, was, reason: LeaveReason::Asked, .. } => {
            format!("entry {entry}: left, was {was:?}")
        }
        Body::Left { entry, .. } => format!("entry {entry}: session over"),
        Body::Admitted { entry, until, .. } => format!("entry {entry}: admitted until {until}"),
        Body::Passed { entry, .. } => format!("entry {entry}: passed over"),
        Body::Held { entry, ttl_ms, first, .. } => {
            format!("entry {entry}: held{} for {ttl_ms}", seats(first))
        }
        Body::Extended { entry, ttl_ms, .. } => format!("entry {entry}: extended by {ttl_ms}"),
        Body::Confirmed { entry, first, .. } => format!("entry {entry}: confirmed{}", seats(first)),
        Body::Released { entry, first, .. } => format!("entry {entry}: released{}", seats(first)),
        Body::Expired { entry, first, .. } => format!("entry {entry}: expired{}", seats(first)),
        Body::Refunded { entry, first, .. } => format!("entry {entry}: refunded{}", seats(first)),
        Body::Blocked { first, .. } => format!("blocked{}", seats(first)),
        Body::Unblocked { first, .. } => format!("unblocked{}", seats(first)),
    })
}

/// A small house with everything that layouts have. Blocks 0 and 1 are rows of six; blocks 2 to
/// 4 one row of three tiers, nearer than the second row of section 0; blocks 5 and 6 one long
/// row; block 7 is general admission.
pub(crate) fn small_house() -> Arc<Layout> {
    let tier = TierIndex;
    let row = |runs, distance| RowSpec { runs, distance };
    let sections = vec![
        SectionSpec::Uniform { rows: 2, seats_per_row: 6, tier: tier(0), first_distance: 1 },
        SectionSpec::Rows(vec![
            row(vec![(70, tier(1))], 9),
            row(vec![(3, tier(0)), (4, tier(1)), (3, tier(0))], 1),
        ]),
        SectionSpec::General { places: 9, tier: tier(2) },
    ];
    let layout = Layout::build(LayoutSpec { sections }).expect("it has seats");
    assert!(layout.sections()[2].general && layout.blocks()[7].section == SectionIndex(2));
    Arc::new(layout)
}

/// What the fast engine knows without its log is what the log says.
pub(crate) fn masks_are_the_log(house: &House, show: &Show) {
    for (index, block) in show.layout.blocks().iter().enumerate() {
        let block = Part { block: BlockIndex(index as u32), mask: block.full() };
        for seat in block.seats() {
            let state = match show.taken.get(&seat) {
                None => SeatState::Free,
                Some(Taken::Held(_)) => SeatState::Held,
                Some(Taken::Sold(_)) => SeatState::Sold,
                Some(Taken::Blocked) => SeatState::Blocked,
            };
            let part = Part { block: seat.block(), mask: 1 << seat.bit() };
            assert_eq!(house.seat_state(part), state, "R11: {seat:?}");
        }
    }
    for (section, [free, ..]) in show.counts().into_iter().enumerate() {
        assert_eq!(house.free_in(SectionIndex(section as u16)), free, "R5: section {section}");
    }
    let active = show.entries.values().filter(|it| it.place == Place::Admitted).count();
    assert_eq!(house.active() as usize, active, "R14: who counts as active");
    for (entry, it) in &show.entries {
        let used = show.used.get(entry).copied().unwrap_or(0);
        assert_eq!(house.seats_in_use(*entry), used, "R5: {entry} uses other seats");
        assert_eq!(house.entry_of(it.buyer), Some(*entry), "R4: {entry} is lost");
    }
}

/// Whether `given` is a true reason if `reasons` are all of them: of a conflict, part is enough.
pub(crate) fn is_true(given: Reject, reasons: &[Reject]) -> bool {
    let Reject::SeatUnavailable(part) = given else { return reasons.contains(&given) };
    reasons.iter().any(|reason| match reason {
        Reject::SeatUnavailable(all) => {
            all.block == part.block && part.mask != 0 && part.mask & !all.mask == 0
        }
        _ => false,
    })
}
