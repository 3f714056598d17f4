//! Entries and the line: who a buyer is in one showtime, and where he stands.
//!
//! ```text
//! entry word
//! 63  49  48  47              24 23        4   3    2   0
//! +-----+-----+------------------+-----------+------+-----+
//! |     |known| seats in use     | holds     | turn |place|
//! +-----+-----+------------------+-----------+------+-----+
//! ```
//!
//! *Known* is set once the event that gave the buyer this entry is published. *Seats in use* are
//! held and bought ones, *holds* the active holds. Whoever sets the turn bit alone may add to them
//! or change the place; a buyer's parallel requests take turns at it, so one that fails never makes
//! another look over the limit. Giving seats back needs no turn.
//!
//! A number is taken with one `fetch_add`; the order of numbers is the order of the line. The
//! row of that number in `by_number` then gets the entry, and the keeper, who walks along the
//! numbers, waits for a row that is still empty.

use std::collections::BTreeSet;

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;

use crate::event::Standing;
use crate::ids::{BuyerId, EntryId, LineNumber, Seq, TimeMs};
use crate::index::Index;
use crate::reject::Reject;
use crate::state::{EntryState, Place};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Patience};
use crate::table::Table;

/// Entries of one showtime at most.
const ENTRIES_MAX: u32 = 1 << 28;
/// Numbers of one showtime at most.
const NUMBERS_MAX: u32 = u32::MAX - 1;
/// Seats in use of one buyer at most: what the word has room for.
pub const LIMIT_MAX: u32 = (1 << 20) - 1;

const PLACE_MASK: u64 = 0b111;
const TURN: u64 = 1 << 3;
const HOLD_ONE: u64 = 1 << 4;
const HOLDS_MASK: u64 = (1 << 20) - 1;
const SEATS_SHIFT: u32 = 24;
const SEATS_MASK: u64 = (1 << 24) - 1;
const KNOWN: u64 = 1 << 48;

// A buyer cannot have more holds than seats, so neither field overflows into the next.
const _: () = assert!((LIMIT_MAX as u64) <= HOLDS_MASK && HOLDS_MASK <= SEATS_MASK);

/// Where an entry stands, as its word says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Not in the line.
    Out,
    Waiting,
    Admitted,
    /// Passed over and not seen since.
    Passed,
    /// Passed over and back: next to be admitted.
    Back,
    /// The session ran out.
    Expired,
}

/// The entry word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryWord(u64);

impl EntryWord {
    pub(crate) fn stand(self) -> Stand {
        match self.0 & PLACE_MASK {
            0 => Stand::Out,
            1 => Stand::Waiting,
            2 => Stand::Admitted,
            3 => Stand::Passed,
            4 => Stand::Back,
            _ => Stand::Expired,
        }
    }

    pub(crate) fn seats(self) -> u32 {
        (self.0 >> SEATS_SHIFT & SEATS_MASK) as u32
    }

    pub(crate) fn holds(self) -> u32 {
        (self.0 >> 4 & HOLDS_MASK) as u32
    }

    /// The log knows whose entry it is.
    pub(crate) fn known(self) -> bool {
        self.0 & KNOWN != 0
    }

    fn taken(self) -> bool {
        self.0 & TURN != 0
    }
}

fn place_bits(stand: Stand) -> u64 {
    match stand {
        Stand::Out => 0,
        Stand::Waiting => 1,
        Stand::Admitted => 2,
        Stand::Passed => 3,
        Stand::Back => 4,
        Stand::Expired => 5,
    }
}

impl Stand {
    /// As an event says it; `None` if not in the line and not let in.
    pub(crate) fn standing(self) -> Option<Standing> {
        match self {
            Stand::Waiting => Some(Standing::Waiting),
            Stand::Passed | Stand::Back => Some(Standing::Passed),
            Stand::Admitted => Some(Standing::Admitted),
            Stand::Out | Stand::Expired => None,
        }
    }
}

/// The turn at an entry: until `end`, nobody else changes its place or adds to its seats.
#[must_use = "the turn must be ended"]
pub(crate) struct Turn<'a> {
    word: &'a AtomicU64,
    seen: EntryWord,
}

impl Turn<'_> {
    /// What the word was when the turn began. Seats and holds may have become fewer since.
    pub(crate) fn seen(&self) -> EntryWord {
        self.seen
    }

    /// The event that gives the buyer this entry is published.
    pub(crate) fn make_known(&self) {
        self.word.fetch_or(KNOWN, Ordering::Relaxed);
    }

    /// Ends the turn without a change.
    pub(crate) fn end(self) {
        // Release, as in the other two: what was done in the turn is before the next turn, whose
        // CAS acquires.
        self.word.fetch_sub(TURN, Ordering::Release);
    }

    /// Ends the turn after a hold of `seats` seats.
    pub(crate) fn end_with_hold(self, seats: u32) {
        let more = (u64::from(seats) << SEATS_SHIFT) + HOLD_ONE;
        self.word.fetch_add(more - TURN, Ordering::Release);
    }

    /// Ends the turn with the entry at another place.
    pub(crate) fn end_at(self, stand: Stand) {
        let change = place_bits(stand).wrapping_sub(place_bits(self.seen.stand()));
        self.word.fetch_add(change.wrapping_sub(TURN), Ordering::Release);
    }
}

/// Columns of an entry's record.
mod column {
    pub(super) const BUYER: usize = 0;
    pub(super) const NUMBER: usize = 1;
    pub(super) const SEEN_AT: usize = 2;
    pub(super) const SESSION_UNTIL: usize = 3;
    pub(super) const JOINED_SEQ: usize = 4;
}

/// What `by_number` has for a number that no join was committed for.
const VOID: u64 = u64::MAX;

/// What the line has at a number.
pub(crate) enum AtNumber {
    /// The number is taken, its join is not done yet.
    NotYet,
    /// Nobody ever.
    Nobody,
    /// This entry; it may have left since.
    Entry(EntryId),
}

pub(crate) struct Line {
    words: Table<1>,
    records: Table<8>,
    entries: CachePadded<AtomicU32>,
    /// Entries that were made for a buyer who got another at the same time.
    unused: SegQueue<EntryId>,
    buyers: Index,
    last_number: CachePadded<AtomicU32>,
    by_number: Table<1>,
    /// Admitted entries.
    active: AtomicU32,
    /// Numbers that were passed over and are back, on their way to the keeper.
    returns: SegQueue<LineNumber>,
    /// How many are passed over and back.
    back: AtomicU32,
}

impl Line {
    pub(crate) fn new() -> Line {
        Line {
            words: Table::new(),
            records: Table::new(),
            entries: CachePadded::new(AtomicU32::new(0)),
            unused: SegQueue::new(),
            buyers: Index::new(),
            last_number: CachePadded::new(AtomicU32::new(0)),
            by_number: Table::new(),
            active: AtomicU32::new(0),
            returns: SegQueue::new(),
            back: AtomicU32::new(0),
        }
    }

    /// The line of an image. Everybody has just given a sign of life.
    pub(crate) fn restore(entries: &[EntryState], last: LineNumber, now: TimeMs) -> Line {
        let line = Line::new();
        let mut known = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let id = EntryId(index as u32);
            if *entry == EntryState::UNUSED {
                line.unused.push(id);
                continue;
            }
            let record = line.records.row(id.0);
            record[column::BUYER].store(entry.buyer.0, Ordering::Relaxed);
            record[column::NUMBER].store(entry.number.0.into(), Ordering::Relaxed);
            record[column::SEEN_AT].store(now.0, Ordering::Relaxed);
            record[column::SESSION_UNTIL].store(entry.session_until.0, Ordering::Relaxed);
            let stand = match entry.place {
                Place::Out => Stand::Out,
                Place::Waiting => Stand::Waiting,
                Place::Passed => Stand::Passed,
                Place::Admitted => Stand::Admitted,
                Place::Expired => Stand::Expired,
            };
            line.words.row(id.0)[0].store(place_bits(stand) | KNOWN, Ordering::Relaxed);
            line.count_active(stand == Stand::Admitted, false);
            if stand.standing().is_some() && entry.number != LineNumber::NONE {
                known.insert(entry.number);
                let at = &line.by_number.row(entry.number.0)[0];
                at.store(u64::from(id.0) + 1, Ordering::Relaxed);
            }
            let inserted = line.buyers.insert(entry.buyer.0, id.0, |id| line.key(id));
            debug_assert!(inserted.is_ok(), "an image has one entry a buyer");
        }
        for number in (1..=last.0).map(LineNumber).filter(|number| !known.contains(number)) {
            line.by_number.row(number.0)[0].store(VOID, Ordering::Relaxed);
        }
        line.entries.store(entries.len() as u32, Ordering::Relaxed);
        line.last_number.store(last.0, Ordering::Relaxed);
        line
    }

    fn key(&self, entry: u32) -> u64 {
        self.records.row(entry)[column::BUYER].load(Ordering::Relaxed)
    }

    /// The buyer's entry, whether known or not.
    pub(crate) fn entry_of(&self, buyer: BuyerId) -> Option<EntryId> {
        self.buyers.get(buyer.0, |entry| self.key(entry)).map(EntryId)
    }

    /// The buyer's entry, new if he had none.
    pub(crate) fn entry_for(&self, buyer: BuyerId) -> Result<EntryId, Reject> {
        if let Some(entry) = self.entry_of(buyer) {
            return Ok(entry);
        }
        let entry = self.unused.pop().map_or_else(|| self.fresh_entry(), Ok)?;
        let record = self.records.row(entry.0);
        record[column::BUYER].store(buyer.0, Ordering::Relaxed);
        match self.buyers.insert(buyer.0, entry.0, |entry| self.key(entry)) {
            Ok(()) => Ok(entry),
            Err(other) => {
                self.unused.push(entry);
                Ok(EntryId(other))
            }
        }
    }

    fn fresh_entry(&self) -> Result<EntryId, Reject> {
        let entry = self.entries.fetch_add(1, Ordering::Relaxed);
        if entry >= ENTRIES_MAX {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            return Err(Reject::SlabFull);
        }
        Ok(EntryId(entry))
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, entry: EntryId) -> bool {
        entry.0 < self.entries.load(Ordering::Acquire)
    }

    fn word(&self, entry: EntryId) -> &AtomicU64 {
        &self.words.row(entry.0)[0]
    }

    pub(crate) fn look(&self, entry: EntryId) -> EntryWord {
        EntryWord(self.word(entry).load(Ordering::Acquire))
    }

    /// Waits for the turn at the entry, or says `Contended`.
    pub(crate) fn turn(&self, entry: EntryId) -> Result<Turn<'_>, Reject> {
        let mut patience = Patience::new();
        loop {
            if let Some(turn) = self.try_turn(entry) {
                return Ok(turn);
            }
            if !patience.wait() {
                return Err(Reject::Contended);
            }
        }
    }

    /// The turn at the entry, if it is free.
    pub(crate) fn try_turn(&self, entry: EntryId) -> Option<Turn<'_>> {
        let word = self.word(entry);
        let mut seen = EntryWord(word.load(Ordering::Relaxed));
        while !seen.taken() {
            let mine = seen.0 | TURN;
            // Acquire pairs with the Release that ended the turn before, and with that of
            // `give_back`: its event's number is below ours.
            match word.compare_exchange_weak(seen.0, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Turn { word, seen }),
                Err(now) => seen = EntryWord(now),
            }
        }
        None
    }

    /// Takes seats off the buyer's account, after the event that freed them is published; and a
    /// hold, if it was active.
    pub(crate) fn give_back(&self, entry: EntryId, seats: u32, active_hold: bool) {
        let less = (u64::from(seats) << SEATS_SHIFT) + u64::from(active_hold) * HOLD_ONE;
        // Release pairs with the Acquire of `try_turn`.
        self.word(entry).fetch_sub(less, Ordering::Release);
    }

    /// Puts restored holds on the account.
    pub(crate) fn charge(&self, entry: EntryId, seats: u32, active_hold: bool) {
        let more = (u64::from(seats) << SEATS_SHIFT) + u64::from(active_hold) * HOLD_ONE;
        self.word(entry).fetch_add(more, Ordering::Relaxed);
    }

    /// Takes the next number for an entry whose turn the caller has.
    pub(crate) fn take_number(&self, entry: EntryId, now: TimeMs) -> Result<LineNumber, Reject> {
        let last = self.last_number.fetch_add(1, Ordering::Relaxed);
        if last >= NUMBERS_MAX {
            self.last_number.fetch_sub(1, Ordering::Relaxed);
            return Err(Reject::SlabFull);
        }
        let number = LineNumber(last + 1);
        let record = self.records.row(entry.0);
        record[column::NUMBER].store(number.0.into(), Ordering::Relaxed);
        record[column::SEEN_AT].store(now.0, Ordering::Relaxed);
        // Release pairs with the Acquire in `at_number`.
        self.by_number.row(number.0)[0].store(u64::from(entry.0) + 1, Ordering::Release);
        Ok(number)
    }

    pub(crate) fn at_number(&self, number: LineNumber) -> AtNumber {
        match self.by_number.row(number.0)[0].load(Ordering::Acquire) {
            0 => AtNumber::NotYet,
            VOID => AtNumber::Nobody,
            entry => AtNumber::Entry(EntryId((entry - 1) as u32)),
        }
    }

    /// The highest number given so far.
    pub(crate) fn last_number(&self) -> LineNumber {
        LineNumber(self.last_number.load(Ordering::Acquire))
    }

    pub(crate) fn number(&self, entry: EntryId) -> LineNumber {
        LineNumber(self.records.row(entry.0)[column::NUMBER].load(Ordering::Relaxed) as u32)
    }

    pub(crate) fn session_until(&self, entry: EntryId) -> TimeMs {
        TimeMs(self.records.row(entry.0)[column::SESSION_UNTIL].load(Ordering::Relaxed))
    }

    pub(crate) fn set_session_until(&self, entry: EntryId, until: TimeMs) {
        self.records.row(entry.0)[column::SESSION_UNTIL].store(until.0, Ordering::Relaxed);
    }

    /// The number of the event that answers "already in": that of the last join.
    pub(crate) fn joined_seq(&self, entry: EntryId) -> Seq {
        Seq(self.records.row(entry.0)[column::JOINED_SEQ].load(Ordering::Relaxed))
    }

    pub(crate) fn set_joined_seq(&self, entry: EntryId, seq: Seq) {
        self.records.row(entry.0)[column::JOINED_SEQ].store(seq.0, Ordering::Relaxed);
    }

    /// Whether the entry has given a sign of life within `grace_ms`.
    pub(crate) fn alive(&self, entry: EntryId, now: TimeMs, grace_ms: u32) -> bool {
        let seen_at = TimeMs(self.records.row(entry.0)[column::SEEN_AT].load(Ordering::Relaxed));
        now.since_ms(seen_at) <= grace_ms.into()
    }

    /// Notes a sign of life; whoever was passed over is back with it.
    pub(crate) fn touch(&self, entry: EntryId, now: TimeMs) {
        self.records.row(entry.0)[column::SEEN_AT].store(now.0, Ordering::Relaxed);
        if self.look(entry).stand() != Stand::Passed {
            return;
        }
        // If the turn is taken, somebody is changing the place just now; the next sign counts.
        let Some(turn) = self.try_turn(entry) else { return };
        if turn.seen().stand() != Stand::Passed {
            return turn.end();
        }
        self.back.fetch_add(1, Ordering::Relaxed);
        self.returns.push(self.number(entry));
        turn.end_at(Stand::Back);
    }

    pub(crate) fn next_return(&self) -> Option<LineNumber> {
        self.returns.pop()
    }

    /// One that was back is admitted, gone, or passed over again.
    pub(crate) fn count_back_gone(&self) {
        self.back.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are passed over and back.
    pub(crate) fn back(&self) -> u32 {
        self.back.load(Ordering::Relaxed)
    }

    /// Counts an entry in or out of the admitted.
    pub(crate) fn count_active(&self, now_active: bool, was_active: bool) {
        // Release pairs with the Acquire in `active`: the event that ended the one is published
        // before the next is let in.
        match (was_active, now_active) {
            (false, true) => self.active.fetch_add(1, Ordering::Release),
            (true, false) => self.active.fetch_sub(1, Ordering::Release),
            _ => return,
        };
    }

    /// Admitted entries.
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Acquire)
    }
}
