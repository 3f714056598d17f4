//! What was committed and what clients were told, and whether both can be true.
//!
//! The log is folded twice as it is seen: by the strict reader that judges the engine's tests,
//! which panics at a decision that could not have followed (R1, R4, R5, R6, R11, R12, R14), and by
//! an image of its own, from the first event on (R9). Both outlive every crash, so what a process
//! brings back is compared with what the clients of the one before it were told.

use std::collections::HashMap;
use std::sync::Arc;

use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{EntryId, HoldId, LineNumber, Seq, ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::state::Place;
use tmomi_engine::{House, Reject};
use tmomi_persist::image::{Followed, HoldView, Image, Outcome};
use tmomi_persist::writer::Record;

use crate::fold::Fold;
use crate::rows::zombie;

/// The one showtime.
pub(crate) const SHOW: ShowtimeId = ShowtimeId(1);

pub(crate) struct Truth {
    pub(crate) fold: Fold,
    pub(crate) image: Image,
    /// Everything that was committed, as it was first seen.
    pub(crate) log: Vec<Record>,
    /// The last event of the decision that has the key.
    keys: HashMap<u64, Seq>,
    refusals: Vec<Refusal>,
    /// The highest number that anybody was told.
    pub(crate) told: Told,
    /// What is told of holds: the last end that somebody was told.
    ends: HashMap<HoldId, End>,
}

/// The highest numbers that anybody was told: of an event, and in the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) seq: Seq,
    pub(crate) number: LineNumber,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Held,
    Confirmed,
    Released,
    Refunded,
}

/// A refusal, to be justified by the log up to the event that was the last at that time.
struct Refusal {
    at: Seq,
    now: TimeMs,
    reject: Reject,
    about: About,
}

/// What a refused request was about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    Seats { entry: EntryId, count: u32, let_in: bool },
    Hold(HoldId),
    Other,
}

impl Truth {
    pub(crate) fn new(layout: &Arc<Layout>) -> Truth {
        Truth {
            fold: Fold::new([(SHOW, Arc::clone(layout))]),
            image: Image::new(),
            log: Vec::new(),
            keys: HashMap::new(),
            refusals: Vec::new(),
            told: Told::default(),
            ends: HashMap::new(),
        }
    }

    pub(crate) fn applied(&self) -> Seq {
        self.image.applied()
    }

    /// Whole decisions that were committed after what is known.
    pub(crate) fn add(&mut self, record: Record) {
        let Record { epoch, batch } = &record;
        let followed = self.image.follow(*epoch, batch).expect("R9: the log contradicts itself");
        assert_eq!(followed, Followed::Applied, "R7: a record of an ended reign");
        for decision in decisions(batch) {
            let done = self.fold.apply(&decision);
            let last = decision.last_seq().expect("a decision has an event");
            for event in done.iter().flat_map(|decision| &decision.events) {
                self.note_key(event, last);
            }
            self.justify();
        }
        self.log.push(record);
    }

    fn note_key(&mut self, event: &Event, last: Seq) {
        let key = event.body.key();
        if key.is_some() && !matches!(event.body, Body::More { .. }) {
            let before = self.keys.insert(key.hash, last);
            assert_eq!(before, None, "R3: key {:#x} has a second effect, {event:?}", key.hash);
        }
    }

    /// A client is told what its key led to.
    pub(crate) fn tell(&mut self, hash: u64, outcome: Outcome) {
        let seq = seq_of(outcome);
        assert!(seq <= self.applied(), "R2: {outcome:?} is told before it is committed");
        assert_eq!(self.keys.get(&hash), Some(&seq), "R3: {outcome:?} is not what the key did");
        self.told.seq = self.told.seq.max(seq);
        match outcome {
            Outcome::Joined { number, .. } => self.told.number = self.told.number.max(number),
            Outcome::Held { id, .. } => self.end_of(id, End::Held),
            Outcome::Confirmed { id, .. } => self.end_of(id, End::Confirmed),
            Outcome::Refunded { id, .. } => self.end_of(id, End::Refunded),
            Outcome::Blocked { .. } | Outcome::Unblocked { .. } => {}
        }
    }

    /// A client is told that a hold has come so far.
    pub(crate) fn end_of(&mut self, id: HoldId, end: End) {
        let known = self.ends.entry(id).or_insert(end);
        *known = (*known).max(end);
    }

    /// R2: whoever looks finds what he was told.
    pub(crate) fn look(&self, image: &Image, id: HoldId) {
        let Some(end) = self.ends.get(&id) else { return };
        let view = image.hold(id).unwrap_or_else(|| panic!("R2: {id:?} is gone, told {end:?}"));
        let refunded = match view {
            HoldView::Order(order) => order.refunded.is_some(),
            _ => false,
        };
        let is_kept = match end {
            End::Held => true,
            End::Confirmed => matches!(view, HoldView::Order(_)),
            End::Released => matches!(view, HoldView::Ended(_)),
            End::Refunded => refunded,
        };
        assert!(is_kept, "R2: {end:?} was told of {view:?}");
    }

    /// A request was refused when the last decision was `at`; the log will say whether rightly.
    pub(crate) fn refuse(&mut self, at: Seq, now: TimeMs, reject: Reject, about: About) {
        self.refusals.push(Refusal { at, now, reject, about });
        self.justify();
    }

    /// What was not committed when a process ended never was; whoever was refused for it was
    /// refused rightly at the time.
    pub(crate) fn forget_refusals(&mut self) {
        self.refusals.clear();
    }

    fn justify(&mut self) {
        let (applied, fold) = (self.fold.applied, &self.fold);
        self.refusals.retain(|refusal| {
            if refusal.at == applied && fold.shows.contains_key(&SHOW) {
                refusal.check(fold);
            }
            refusal.at > applied
        });
    }

    /// R9: the image at `applied` that something else came to.
    pub(crate) fn same(&self, image: &Image, what: &str) {
        assert_eq!(image.applied(), self.applied(), "R9: {what} stands elsewhere");
        assert_eq!(image.hash(), self.image.hash(), "R9: {what} is another image");
    }

    /// R7: what the node before would have written next changes nothing.
    pub(crate) fn check_stale(&self) {
        let Some(last) = self.log.last().filter(|last| last.epoch.0 > 1) else { return };
        let zombie = zombie(last);
        let mut image = self.image.clone();
        let followed = image.follow(zombie.epoch, &zombie.batch).expect("R7: it is left out");
        assert_eq!(followed, Followed::Stale, "R7: a record of an ended reign");
        assert_eq!(image.applied(), self.applied(), "R7: a record of an ended reign");
    }

    /// R5 and R14: what the engine knows without its log is what the log says.
    pub(crate) fn check_house(&self, house: &House) {
        let Some(show) = self.fold.shows.get(&SHOW) else { return };
        for (section, [free, ..]) in show.counts().into_iter().enumerate() {
            let section = tmomi_engine::ids::SectionIndex(section as u16);
            assert_eq!(house.free_in(section), free, "R5: free seats of section {section}");
        }
        let is_active = |place| place == Place::Admitted;
        let active = show.entries.values().filter(|it| is_active(it.place)).count();
        assert_eq!(house.active() as usize, active, "R14: who counts as active");
        for entry in show.entries.keys() {
            let used = show.used.get(entry).copied().unwrap_or(0);
            assert_eq!(house.seats_in_use(*entry), used, "R5: seats in use of entry {entry}");
        }
    }
}

impl Refusal {
    /// R10: the reason that was given was so.
    fn check(&self, fold: &Fold) {
        let Refusal { now, reject, about, .. } = self;
        let show = &fold.shows[&SHOW];
        let justified = match (reject, about) {
            (Reject::SeatUnavailable(part), _) => {
                part.mask != 0 && part.seats().all(|seat| show.taken.contains_key(&seat))
            }
            (Reject::LimitExceeded { limit, used }, About::Seats { entry, count, .. }) => {
                let in_use = show.used.get(entry).copied().unwrap_or(0);
                (*limit, *used) == (show.limit, in_use) && in_use + count > show.limit
            }
            (Reject::AdmissionRequired, About::Seats { entry, let_in, .. }) => {
                let place = show.entries.get(entry).map(|it| it.place);
                !let_in && place != Some(Place::Admitted)
            }
            (Reject::SoldOut, About::Seats { count, .. }) => {
                show.counts().iter().map(|[free, ..]| free).sum::<u32>() < *count
            }
            (Reject::HoldExpired, About::Hold(id)) => {
                fold.holds.get(&id.seq).is_some_and(|hold| hold.deadline <= *now)
            }
            (Reject::HoldConfirmed, About::Hold(id)) => {
                fold.holds.get(&id.seq).is_some_and(|hold| hold.confirmed)
            }
            (Reject::HoldGone, About::Hold(id)) => {
                // A refund of what is still a hold is refused so, too.
                fold.holds.get(&id.seq).is_none_or(|hold| !hold.confirmed)
            }
            _ => true,
        };
        assert!(justified, "R10: {reject:?} of {about:?} at {now} is not justified");
    }
}

/// The last event of the decision.
pub(crate) fn seq_of(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Joined { seq, .. }
        | Outcome::Held { seq, .. }
        | Outcome::Confirmed { seq, .. }
        | Outcome::Refunded { seq, .. }
        | Outcome::Blocked { seq, .. }
        | Outcome::Unblocked { seq, .. } => seq,
    }
}

/// One batch for each decision.
fn decisions(batch: &Batch) -> Vec<Batch> {
    let mut blobs = batch.blobs.iter().peekable();
    let whole = batch
        .events
        .split_inclusive(|words| Event::unpack(words).is_ok_and(|event| !event.more_follows));
    whole
        .map(|events| {
            let mut decision = Batch { events: events.to_vec(), blobs: Vec::new() };
            let last = decision.last_seq();
            while let Some(blob) = blobs.next_if(|(seq, _)| Some(*seq) <= last) {
                decision.blobs.push(blob.clone());
            }
            decision
        })
        .collect()
}
