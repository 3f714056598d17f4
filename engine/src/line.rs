//! The line of a showtime, and its entries: who a buyer is in it.
//!
//! A number is taken with one `fetch_add`; the order of numbers is the order of the line. The
//! row of that number in `by_number` then gets the entry, and the keeper, who walks along the
//! numbers, waits for a row that is still empty. Where an entry stands is in its word, see
//! `entry.rs`.

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;

use crate::back::Back;
use crate::entry::{Account, EntryWord, KNOWN, Stand, Turn, place_bits};
use crate::ids::{BuyerId, EntryId, LineNumber, Seq, TimeMs};
use crate::index::Index;
use crate::reject::Reject;
use crate::state::{EntryState, Place};
use crate::sync::{AtomicU32, Ordering, Patience};
use crate::table::Table;

/// Entries of one showtime at most.
const ENTRIES_MAX: u32 = 1 << 28;
/// Numbers of one showtime at most.
// Half of what 32 bits can say: counting beyond it by all who are refused never wraps.
const NUMBERS_MAX: u32 = 1 << 31;
/// Columns of an entry's record.
mod column {
    pub(super) const BUYER: usize = 0;
    pub(super) const NUMBER: usize = 1;
    pub(super) const SEEN_AT: usize = 2;
    pub(super) const SESSION_UNTIL: usize = 3;
    pub(super) const JOINED_SEQ: usize = 4;
    /// Calls of `watch` without their `unwatch`.
    pub(super) const STREAMS: usize = 5;
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
    /// Passed over and back.
    back: Back,
    /// What the desk looked at first when the line was made.
    head_at_start: LineNumber,
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
            back: Back::new(),
            head_at_start: LineNumber(1),
        }
    }

    /// The line of an image. Everybody has just given a sign of life.
    pub(crate) fn restore(
        entries: impl Iterator<Item = EntryState>,
        last: LineNumber,
        now: TimeMs,
    ) -> Line {
        let mut ways = Vec::with_capacity(entries.size_hint().0);
        let (mut line, mut count) = (Line::new(), 0);
        let mut head = last.0 + 1;
        for number in 1..=last.0 {
            line.by_number.row(number)[0].store(VOID, Ordering::Relaxed);
        }
        for (id, entry) in (0..).map(EntryId).zip(entries) {
            count = id.0 + 1;
            if entry == EntryState::UNUSED {
                line.unused.push(id);
                continue;
            }
            ways.push((Index::way(entry.buyer.0), id.0));
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
            if stand == Stand::Waiting {
                head = head.min(entry.number.0);
            }
            if stand.standing().is_some() && entry.number != LineNumber::NONE {
                let at = &line.by_number.row(entry.number.0)[0];
                at.store(u64::from(id.0) + 1, Ordering::Relaxed);
            }
        }
        line.buyers.fill(ways);
        line.head_at_start = LineNumber(head);
        line.entries.store(count, Ordering::Relaxed);
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
        let fresh = || {
            let entry = self.unused.pop().map_or_else(|| self.fresh_entry(), Ok)?;
            self.records.row(entry.0)[column::BUYER].store(buyer.0, Ordering::Relaxed);
            Ok(entry.0)
        };
        let key_of = |entry| self.key(entry);
        let (entry, unused) = self.buyers.find_or_insert(buyer.0, key_of, fresh)?;
        if let Some(unused) = unused {
            self.unused.push(EntryId(unused));
        }
        Ok(EntryId(entry))
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

    /// The account of an entry; `None` if there is no such entry.
    #[inline]
    pub(crate) fn account(&self, entry: EntryId) -> Option<Account<'_>> {
        let there = entry.0 < self.entries.load(Ordering::Acquire);
        there.then(|| Account(&self.words.row(entry.0)[0]))
    }

    /// The account of an entry that the caller has from the engine.
    pub(crate) fn own_account(&self, entry: EntryId) -> Account<'_> {
        self.account(entry).expect("an entry is counted before anybody knows it")
    }

    /// Where the entry stands.
    pub(crate) fn look(&self, entry: EntryId) -> EntryWord {
        self.own_account(entry).look()
    }

    /// Waits for the turn at the entry, or says `Contended`.
    pub(crate) fn turn(&self, entry: EntryId) -> Result<Turn<'_>, Reject> {
        self.own_account(entry).turn()
    }

    /// The turn at the entry, if it is free.
    pub(crate) fn try_turn(&self, entry: EntryId) -> Option<Turn<'_>> {
        self.own_account(entry).try_turn()
    }

    /// Takes seats off the buyer's account, after the number of the event that frees them is
    /// claimed; and a hold, if it was active.
    pub(crate) fn give_back(&self, entry: EntryId, seats: u32, active_hold: bool) {
        self.own_account(entry).give_back(seats, active_hold);
    }

    /// Puts restored holds on the account.
    pub(crate) fn charge(&self, entry: EntryId, seats: u32, active_hold: bool) {
        self.own_account(entry).charge(seats, active_hold);
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
        record[column::SEEN_AT].fetch_max(now.0, Ordering::Relaxed);
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

    /// Whether the entry has given a sign of life within `grace_ms`, or gives one all the time.
    pub(crate) fn alive(&self, entry: EntryId, now: TimeMs, grace_ms: u32) -> bool {
        let record = self.records.row(entry.0);
        let seen_at = TimeMs(record[column::SEEN_AT].load(Ordering::Relaxed));
        let streams = record[column::STREAMS].load(Ordering::Relaxed);
        streams > 0 || now.since_ms(seen_at) <= grace_ms.into()
    }

    /// Notes that a sign of life is given all the time, until as many calls of `unwatch`.
    pub(crate) fn watch(&self, entry: EntryId, now: TimeMs) {
        let record = self.records.row(entry.0);
        record[column::STREAMS].fetch_add(1, Ordering::Relaxed);
        record[column::SEEN_AT].fetch_max(now.0, Ordering::Relaxed);
        // Somebody may be passing him over just now; there may be no other sign after this one.
        let mut patience = Patience::new();
        while !self.come_back(entry) && patience.wait() {}
    }

    pub(crate) fn unwatch(&self, entry: EntryId, now: TimeMs) {
        self.touch(entry, now);
        self.records.row(entry.0)[column::STREAMS].fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes a sign of life; whoever was passed over is back with it.
    pub(crate) fn touch(&self, entry: EntryId, now: TimeMs) {
        self.records.row(entry.0)[column::SEEN_AT].fetch_max(now.0, Ordering::Relaxed);
        // If somebody is changing the place just now, the next sign counts.
        self.come_back(entry);
    }

    /// Whoever was passed over is back; `false`: somebody else has the turn.
    fn come_back(&self, entry: EntryId) -> bool {
        let seen = self.look(entry);
        if seen.stand() != Stand::Passed {
            return !seen.taken();
        }
        let Some(turn) = self.try_turn(entry) else { return false };
        if turn.seen().stand() == Stand::Passed {
            self.back.insert(self.number(entry));
            turn.end_at(Stand::Back);
        } else {
            turn.end();
        }
        true
    }

    /// One that was back is admitted, gone, or passed over again; the caller has its turn.
    pub(crate) fn no_longer_back(&self, number: LineNumber) {
        self.back.remove(number);
    }

    /// The lowest number that was passed over and is back.
    pub(crate) fn first_back(&self) -> Option<LineNumber> {
        self.back.first(self.last_number())
    }

    /// How many were passed over and are back.
    pub(crate) fn back(&self) -> u32 {
        self.back.len()
    }

    /// How many below `number` were passed over and are back.
    pub(crate) fn back_before(&self, number: LineNumber) -> u32 {
        self.back.before(number)
    }

    /// The lowest number that waited in order when the line was made.
    pub(crate) fn head_at_start(&self) -> LineNumber {
        self.head_at_start
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
