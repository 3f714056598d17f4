//! The hold slab: one cache line a hold, and the state word on which everything races.
//!
//! ```text
//! word 0   state word, below
//! word 1   sequence number of the hold's event: its identity
//! word 2   entry (32) | house (32)
//! word 3   link: slot + 1 of the record with further parts (32) | parts in all (16) | unused (16)
//! word 4   block of part 0 (32) | block of part 1 (32)
//! word 5-6 masks of parts 0 and 1
//! word 7   when it was made, ms
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
//!
//! Records that are free are in `spares.rs`.

mod owned;
mod spares;

use crate::ids::{EntryId, HoldId, HoldSlot, Part, Seq, TimeMs};
use crate::sync::{AtomicU64, Ordering, Patience};
use crate::table::Table;

pub(crate) use owned::{Owned, Seen};
#[cfg(loom)]
pub(crate) use spares::MAGAZINE;
use spares::Spares;

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
    spares: Spares,
}

impl Slab {
    #[cfg(test)]
    pub(crate) fn new() -> Slab {
        Slab::with_used(std::iter::empty())
    }

    /// A slab in which only the `used` slots are taken.
    pub(crate) fn with_used(used: impl Iterator<Item = HoldSlot>) -> Slab {
        let (mut fresh, mut taken) = (0, Vec::new());
        for HoldSlot(slot) in used {
            fresh = fresh.max(slot + 1);
            if slot as usize >= taken.len() {
                taken.resize((slot as usize + 1).next_power_of_two(), false);
            }
            taken[slot as usize] = true;
        }
        let slab = Slab { records: Table::new(), spares: Spares::new(fresh) };
        let spare = (0..fresh).rev().filter(|slot| !taken[*slot as usize]).map(HoldSlot);
        slab.spill_all(&mut spare.collect());
        slab
    }

    /// How many records a hold of `parts` parts takes.
    pub(crate) fn records_for(parts: usize) -> usize {
        parts.div_ceil(INLINE_PARTS).max(1)
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
