//! The hold slab: one cache line a hold, and the state word on which everything races.
//!
//! ```text
//! word 0   state word, below
//! word 1   sequence number of the hold's event: its identity
//! word 2   entry (32) | house (32)
//! word 3   link: slot + 1 of the record with further parts, or of the next batch of spares (32)
//!          | parts in all (16) | unused (16)
//! word 4   block of part 0 (32) | block of part 1 (32)
//! word 5-6 masks of parts 0 and 1
//! word 7   when it was made, ms
//!
//! The first spare of a batch names the others, slot + 1 each, in its words 4 to 7.
//!
//! state word
//! 63                     22 21          2 1   0
//! +------------------------+-------------+-----+
//! | deadline, ms           | generation  |state|
//! +------------------------+-------------+-----+
//!
//!            make              own                 end
//!   FREE ----------> ACTIVE ---------> BUSY ----------> FREE        release, expire
//!                      ^                | ^  \
//!                      +----- extend ---+ |   +-------> CONFIRMED   confirm
//!                                         +---------------- own     refund
//! ```
//!
//! Confirm, release, extend, expire and refund race to make the word BUSY; one wins, takes its
//! sequence number while it owns the word, publishes, and stores what the hold is now. Whoever
//! finds it BUSY looks again. The generation changes with every use of the record, so a word
//! seen before never comes back within 2^20 uses of one record.

mod owned;

use crossbeam::utils::CachePadded;

use crate::ids::{EntryId, HoldId, HoldSlot, Part, Seq, TimeMs};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Patience};
use crate::table::Table;

pub(crate) use owned::{Owned, Seen};

/// Holds last at least this long, in ms.
pub const HOLD_TTL_MS_MIN: u32 = 100;
/// Holds last at most this long from their making, however often they are extended, in ms: 2 h.
pub const HOLD_TTL_MS_MAX: u32 = 7_200_000;

/// Parts in one record.
const INLINE_PARTS: usize = 2;
const GENERATION_BITS: u32 = 20;
const STATE_BITS: u32 = 2;
const DEADLINE_SHIFT: u32 = STATE_BITS + GENERATION_BITS;
/// The latest deadline the word can say: the year 2109.
const DEADLINE_MAX: u64 = (1 << (64 - DEADLINE_SHIFT)) - 1;
/// Records of a shard at most. Far below what 32 bits can say, so that counting beyond it by all
/// who are refused never wraps.
pub const SLOTS_MAX: u32 = 1 << 28;
/// Spare slots that a handle keeps to itself at most, and what it keeps when it had more.
const CACHE_MAX: usize = 64;
const CACHE_KEEP: usize = 32;
/// Words of a record in which a spare names others, two each.
const NAME_WORDS: std::ops::Range<usize> = 4..if cfg!(loom) { 5 } else { 8 };
/// Spare slots that change hands at a time, so that few decisions touch what all share.
pub(crate) const BATCH: usize = 1 + 2 * (NAME_WORDS.end - NAME_WORDS.start);

const _: () = assert!(CACHE_KEEP + BATCH <= CACHE_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Active,
    Confirmed,
    Busy,
}

/// The state word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    fn new(deadline: TimeMs, generation: u64, state: State) -> Word {
        let deadline = deadline.0.min(DEADLINE_MAX);
        let generation = generation & ((1 << GENERATION_BITS) - 1);
        let state = match state {
            State::Free => 0,
            State::Active => 1,
            State::Confirmed => 2,
            State::Busy => 3,
        };
        Word(deadline << DEADLINE_SHIFT | generation << STATE_BITS | state)
    }

    pub(crate) fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Free,
            1 => State::Active,
            2 => State::Confirmed,
            _ => State::Busy,
        }
    }

    pub(crate) fn deadline(self) -> TimeMs {
        TimeMs(self.0 >> DEADLINE_SHIFT)
    }

    fn generation(self) -> u64 {
        self.0 >> STATE_BITS & ((1 << GENERATION_BITS) - 1)
    }

    fn with(self, state: State) -> Word {
        Word::new(self.deadline(), self.generation(), state)
    }
}

/// What a look at a hold found.
#[must_use]
pub(crate) enum Found<'a> {
    /// It is active.
    Active(Seen<'a>),
    /// It is an order.
    Confirmed(Seen<'a>),
    /// The record is free or another hold's.
    Gone,
    /// Somebody owned it all the time.
    Contended,
}

/// A record that is free, and the generation of its next use.
pub(crate) struct NewRecord<'a> {
    slot: HoldSlot,
    words: &'a [AtomicU64; 8],
    generation: u64,
}

impl NewRecord<'_> {
    #[inline]
    pub(crate) fn slot(&self) -> HoldSlot {
        self.slot
    }
}

/// What a hold says of itself; read only by who owns it or has just made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) entry: EntryId,
    pub(crate) house: u32,
    pub(crate) created_at: TimeMs,
}

pub(crate) struct Slab {
    records: Table<8>,
    /// Slots given out so far; the next one never used.
    fresh: CachePadded<AtomicU32>,
    /// Batches of spare slots as a stack: tag (32) | slot + 1 (32). The tag changes with every
    /// change, so a pop that was overtaken does not succeed (Treiber 1986, with a counted pointer).
    spare: CachePadded<AtomicU64>,
}

impl Slab {
    pub(crate) fn new() -> Slab {
        Slab {
            records: Table::new(),
            fresh: CachePadded::new(AtomicU32::new(0)),
            spare: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// A slab in which only the `used` slots are taken.
    pub(crate) fn with_used(used: impl Iterator<Item = HoldSlot> + Clone) -> Slab {
        let slab = Slab::new();
        let fresh = used.clone().max().map_or(0, |last| last.0 + 1);
        slab.fresh.store(fresh, Ordering::Relaxed);
        let mut taken = vec![false; fresh as usize];
        used.for_each(|slot| taken[slot.0 as usize] = true);
        let spare = (0..fresh).rev().filter(|slot| !taken[*slot as usize]).map(HoldSlot);
        slab.spill(&mut spare.collect(), 0);
        slab
    }

    /// How many records a hold of `parts` parts takes.
    pub(crate) fn records_for(parts: usize) -> usize {
        parts.div_ceil(INLINE_PARTS).max(1)
    }

    /// Fills `cache` to at least `count` free slots; `false` if there are no more.
    pub(crate) fn fill(&self, cache: &mut Vec<HoldSlot>, count: usize) -> bool {
        while cache.len() < count {
            if !self.pop_spares(cache) && !self.take_fresh(cache) {
                return false;
            }
        }
        true
    }

    fn take_fresh(&self, cache: &mut Vec<HoldSlot>) -> bool {
        let first = self.fresh.fetch_add(BATCH as u32, Ordering::Relaxed);
        if first >= SLOTS_MAX {
            self.fresh.fetch_sub(BATCH as u32, Ordering::Relaxed);
            return false;
        }
        // The lowest is used first.
        cache.extend((first..first + BATCH as u32).rev().map(HoldSlot));
        true
    }

    /// Returns what a handle that is going has.
    pub(crate) fn spill_all(&self, cache: &mut Vec<HoldSlot>) {
        self.spill(cache, 0);
    }

    /// Returns all but `keep` slots, first those that were not used for the longest time.
    fn spill(&self, cache: &mut Vec<HoldSlot>, keep: usize) {
        let more = cache.len().saturating_sub(keep);
        cache[..more].chunks(BATCH).for_each(|batch| self.push_spares(batch));
        cache.drain(..more);
    }

    /// The record that [`make`](Self::make) will use: the last of `cache`, which has one.
    // Loaded before anything is decided, while nothing waits for it.
    #[inline]
    pub(crate) fn new_record(&self, cache: &[HoldSlot]) -> NewRecord<'_> {
        let slot = *cache.last().expect("the cache was filled");
        let words = self.records.row(slot.0);
        // Relaxed: whoever has a free slot is the only one to change its word.
        let generation = Word(words[0].load(Ordering::Relaxed)).generation() + 1;
        NewRecord { slot, words, generation }
    }

    /// Writes a hold into `record` and slots from `cache`, which has enough of them, and makes it
    /// active. The caller owns the seats and has the number `seq`.
    #[inline]
    pub(crate) fn make(
        &self,
        cache: &mut Vec<HoldSlot>,
        record: NewRecord<'_>,
        seq: Seq,
        facts: Facts,
        deadline: TimeMs,
        parts: &[Part],
    ) {
        let NewRecord { slot, words, generation } = record;
        let popped = cache.pop();
        debug_assert_eq!(popped, Some(slot), "the record is the last of the cache");
        // Relaxed, here and below: the Release store of the state word at the end publishes all.
        words[1].store(seq.0, Ordering::Relaxed);
        let whose = u64::from(facts.entry.0) << 32 | u64::from(facts.house);
        words[2].store(whose, Ordering::Relaxed);
        words[7].store(facts.created_at.0, Ordering::Relaxed);
        let link = if parts.len() > INLINE_PARTS { self.chain(cache, parts) } else { 0 };
        write_parts(words, link << 32 | (parts.len() as u64) << 16, parts);
        let word = Word::new(deadline, generation, State::Active);
        // Release pairs with the Acquire load in `find`.
        words[0].store(word.0, Ordering::Release);
    }

    /// Writes parts that the first record has no room for; gives the link to the first of theirs.
    #[cold]
    fn chain(&self, cache: &mut Vec<HoldSlot>, parts: &[Part]) -> u64 {
        parts.chunks(INLINE_PARTS).skip(1).rev().fold(0, |link, chunk| {
            let slot = cache.pop().expect("the cache was filled");
            write_parts(self.records.row(slot.0), link << 32, chunk);
            u64::from(slot.0) + 1
        })
    }

    /// What the hold is now; waits while somebody owns it.
    pub(crate) fn find(&self, id: HoldId) -> Found<'_> {
        match self.find_now(id) {
            Found::Contended => self.wait_for(id),
            found => found,
        }
    }

    #[cold]
    fn wait_for(&self, id: HoldId) -> Found<'_> {
        let mut patience = Patience::new();
        loop {
            match self.find_now(id) {
                Found::Contended if patience.wait() => {}
                found => return found,
            }
        }
    }

    /// As [`find`](Self::find), but without waiting.
    #[inline]
    pub(crate) fn find_now(&self, id: HoldId) -> Found<'_> {
        let slot = id.slot;
        let Some(words) = self.records.get(slot.0) else { return Found::Gone };
        // Acquire pairs with the Release stores of the word. The record may become another
        // hold's right after; then `own` fails, because the word is another.
        let word = Word(words[0].load(Ordering::Acquire));
        let seen = Seen { slab: self, slot, words, word };
        match word.state() {
            _ if words[1].load(Ordering::Relaxed) != id.seq.0 => Found::Gone,
            State::Free => Found::Gone,
            State::Active => Found::Active(seen),
            State::Confirmed => Found::Confirmed(seen),
            State::Busy => Found::Contended,
        }
    }

    /// The hold that is in the record now, and what it is.
    pub(crate) fn in_slot(&self, slot: HoldSlot) -> (HoldId, Found<'_>) {
        let seq = self.records.get(slot.0).map_or(0, |record| record[1].load(Ordering::Acquire));
        let id = HoldId { slot, seq: Seq(seq) };
        (id, self.find_now(id))
    }

    /// Makes an order of a hold that was just restored.
    pub(crate) fn restore_confirmed(&self, slot: HoldSlot) {
        let word = &self.records.row(slot.0)[0];
        let active = Word(word.load(Ordering::Relaxed));
        word.store(active.with(State::Confirmed).0, Ordering::Release);
    }

    /// Frees the further records of a hold that has ended.
    #[cold]
    fn end_chain(&self, mut link: u64, cache: &mut Vec<HoldSlot>) {
        while link != 0 {
            let slot = HoldSlot(link as u32 - 1);
            link = self.records.row(slot.0)[3].load(Ordering::Relaxed) >> 32;
            cache.push(slot);
        }
    }

    /// Puts at most [`BATCH`] slots on the stack, at least one.
    fn push_spares(&self, batch: &[HoldSlot]) {
        let (first, named) = batch.split_first().expect("there is one at least");
        let record = self.records.row(first.0);
        for (n, word) in record[NAME_WORDS].iter().enumerate() {
            let name = |n| named.get(n).map_or(0, |slot: &HoldSlot| u64::from(slot.0) + 1);
            word.store(name(2 * n) << 32 | name(2 * n + 1), Ordering::Relaxed);
        }
        let mut top = self.spare.load(Ordering::Relaxed);
        loop {
            record[3].store(top << 32, Ordering::Relaxed);
            let new = next_tag(top) | u64::from(first.0 + 1);
            // Release pairs with the Acquire in `pop_spares`: link and names are there for who
            // pops. Acquire, so that this holds for the batches below too.
            let swap =
                self.spare.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Relaxed);
            match swap {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Takes a batch off the stack into `cache`; `false` if there is none.
    fn pop_spares(&self, cache: &mut Vec<HoldSlot>) -> bool {
        let mut top = self.spare.load(Ordering::Acquire);
        let record = loop {
            let Some(first) = (top as u32).checked_sub(1) else { return false };
            let record = self.records.row(first);
            // Who overtakes may write a hold there meanwhile; then the tag is another.
            let below = record[3].load(Ordering::Relaxed) >> 32;
            let new = next_tag(top) | below;
            let swap =
                self.spare.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire);
            match swap {
                Ok(_) => {
                    cache.push(HoldSlot(first));
                    break record;
                }
                Err(now) => top = now,
            }
        };
        for word in &record[NAME_WORDS] {
            let names = word.load(Ordering::Relaxed);
            let both = [(names >> 32) as u32, names as u32];
            cache.extend(both.into_iter().filter_map(|name| name.checked_sub(1)).map(HoldSlot));
        }
        true
    }
}

/// Words 3 to 6 of a record, which has room for the first of `parts`.
#[inline]
fn write_parts(record: &[AtomicU64; 8], word_3: u64, parts: &[Part]) {
    let second = parts.get(1).copied().unwrap_or_default();
    let blocks = u64::from(parts[0].block.0) << 32 | u64::from(second.block.0);
    record[3].store(word_3, Ordering::Relaxed);
    record[4].store(blocks, Ordering::Relaxed);
    record[5].store(parts[0].mask, Ordering::Relaxed);
    record[6].store(second.mask, Ordering::Relaxed);
}

fn next_tag(top: u64) -> u64 {
    ((top >> 32).wrapping_add(1) & u64::from(u32::MAX)) << 32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Planted: what was returned stays in the cache, too.
    #[test]
    fn a_slot_is_in_one_place_only() {
        let slab = Slab::new();
        let (mut mine, mut other) = (Vec::new(), Vec::new());
        assert!(slab.fill(&mut mine, 10 * BATCH + 3));
        let given = mine.len();
        slab.spill(&mut mine, 4);
        assert_eq!(mine.len(), 4);
        assert!(slab.fill(&mut other, given - 4));
        let all: BTreeSet<HoldSlot> = mine.iter().chain(&other).copied().collect();
        assert_eq!(all.len(), given, "none twice, none lost, none new");
    }
}
