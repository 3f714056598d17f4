//! Free records, and how they change hands: a cache in each handle, and a stack of magazines that
//! all share (Bonwick and Adams, *Magazines and Vmem*, 2001).
//!
//! The word that holds the top of the stack is written by all, and a record that another thread
//! has used is in that thread's cache. So a handle takes and returns a magazine of slots at a time.
//! On the stack a magazine is a list of batches, and says so in records that nobody uses:
//!
//! ```text
//! first spare of a batch
//! word 3      slot + 1 of the magazine below (32), if the batch is a magazine's first
//!             | slot + 1 of the magazine's next batch (32)
//! word 4-7    slot + 1 of the other spares of the batch, two a word
//! ```

use crossbeam::utils::CachePadded;

use super::{SLOTS_MAX, Slab};
use crate::ids::HoldSlot;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Words of a record in which a spare names others, two each.
const NAME_WORDS: std::ops::Range<usize> = 4..if cfg!(loom) { 5 } else { 8 };
/// Slots of a batch at most.
const BATCH: usize = 1 + 2 * (NAME_WORDS.end - NAME_WORDS.start);
/// Slots of a magazine at most.
pub(crate) const MAGAZINE: usize = BATCH * if cfg!(loom) { 2 } else { 28 };
/// A handle that has so many spare slots returns a magazine: then it is as far from none as from
/// too many, and as many holds or releases go by before it shares again.
const CACHE_MAX: usize = 2 * MAGAZINE;

pub(super) struct Spares {
    /// Slots given out so far; the next one never used.
    fresh: CachePadded<AtomicU32>,
    /// The stack of magazines: tag (32) | slot + 1 (32). The tag changes with every change, so a
    /// pop that was overtaken does not succeed (Treiber 1986, with a counted pointer).
    top: CachePadded<AtomicU64>,
}

impl Spares {
    /// None; the first slot that was never used is `fresh`.
    pub(super) fn new(fresh: u32) -> Spares {
        Spares {
            fresh: CachePadded::new(AtomicU32::new(fresh)),
            top: CachePadded::new(AtomicU64::new(0)),
        }
    }
}

impl Slab {
    /// Fills `cache` to at least `count` free slots; `false` if there are no more.
    #[inline]
    pub(crate) fn fill(&self, cache: &mut Vec<HoldSlot>, count: usize) -> bool {
        cache.len() >= count || self.fill_up(cache, count)
    }

    #[inline(never)]
    fn fill_up(&self, cache: &mut Vec<HoldSlot>, count: usize) -> bool {
        while cache.len() < count {
            if !self.pop_magazine(cache) && !self.take_fresh(cache) {
                return false;
            }
        }
        true
    }

    fn take_fresh(&self, cache: &mut Vec<HoldSlot>) -> bool {
        let count = MAGAZINE as u32;
        let first = self.spares.fresh.fetch_add(count, Ordering::Relaxed);
        if first >= SLOTS_MAX {
            self.spares.fresh.fetch_sub(count, Ordering::Relaxed);
            return false;
        }
        // The lowest is used first.
        cache.extend((first..SLOTS_MAX.min(first + count)).rev().map(HoldSlot));
        true
    }

    /// Returns what a handle has too many of, first what was not used for the longest time.
    #[inline]
    pub(super) fn spill_some(&self, cache: &mut Vec<HoldSlot>) {
        while cache.len() >= CACHE_MAX {
            self.push_magazine(&cache[..MAGAZINE]);
            cache.drain(..MAGAZINE);
        }
    }

    /// Returns what a handle that is going has.
    pub(crate) fn spill_all(&self, cache: &mut Vec<HoldSlot>) {
        cache.chunks(MAGAZINE).for_each(|magazine| self.push_magazine(magazine));
        cache.clear();
    }

    /// Puts at most [`MAGAZINE`] slots on the stack, at least one.
    #[inline(never)]
    fn push_magazine(&self, slots: &[HoldSlot]) {
        let (mut first, mut next) = (0, 0);
        for batch in slots.chunks(BATCH).rev() {
            next = first;
            first = self.write_batch(batch, next);
        }
        let link = &self.records.row(first - 1)[3];
        let stack = &self.spares.top;
        let mut top = stack.load(Ordering::Relaxed);
        loop {
            link.store(top << 32 | u64::from(next), Ordering::Relaxed);
            let new = next_tag(top) | u64::from(first);
            // Release pairs with the Acquire in `pop_magazine`: links and names are there for who
            // pops. Acquire, so that this holds for the magazines below too.
            match stack.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Writes the links of a batch before batch `next`; gives the slot of its first spare, + 1.
    fn write_batch(&self, batch: &[HoldSlot], next: u32) -> u32 {
        let (first, named) = batch.split_first().expect("there is one at least");
        let record = self.records.row(first.0);
        record[3].store(next.into(), Ordering::Relaxed);
        for (n, word) in record[NAME_WORDS].iter().enumerate() {
            let name = |n| named.get(n).map_or(0, |slot: &HoldSlot| u64::from(slot.0) + 1);
            word.store(name(2 * n) << 32 | name(2 * n + 1), Ordering::Relaxed);
        }
        first.0 + 1
    }

    /// Takes a magazine off the stack into `cache`; `false` if there is none.
    fn pop_magazine(&self, cache: &mut Vec<HoldSlot>) -> bool {
        let stack = &self.spares.top;
        let mut top = stack.load(Ordering::Acquire);
        let mut batch = loop {
            let Some(first) = (top as u32).checked_sub(1) else { return false };
            // Who overtakes may write a hold there meanwhile; then the tag is another.
            let below = self.records.row(first)[3].load(Ordering::Relaxed) >> 32;
            let new = next_tag(top) | below;
            match stack.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break first,
                Err(now) => top = now,
            }
        };
        loop {
            let record = self.records.row(batch);
            cache.push(HoldSlot(batch));
            for word in &record[NAME_WORDS] {
                let names = word.load(Ordering::Relaxed);
                let both = [(names >> 32) as u32, names as u32];
                cache.extend(both.into_iter().filter_map(|name| name.checked_sub(1)).map(HoldSlot));
            }
            match (record[3].load(Ordering::Relaxed) as u32).checked_sub(1) {
                Some(next) => batch = next,
                None => return true,
            }
        }
    }
}

fn next_tag(top: u64) -> u64 {
    ((top >> 32).wrapping_add(1) & u64::from(u32::MAX)) << 32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::Table;
    use std::collections::BTreeSet;

    /// Planted: the last magazine is a whole one.
    #[test]
    fn there_are_no_slots_beyond_the_last() {
        let slab = Slab { records: Table::new(), spares: Spares::new(SLOTS_MAX - 5) };
        let mut cache = Vec::new();
        assert!(slab.fill(&mut cache, 5));
        assert_eq!(cache.iter().map(|slot| slot.0).max(), Some(SLOTS_MAX - 1));
        assert!(!slab.fill(&mut cache, 6) && cache.len() == 5);
    }

    /// Planted: what was returned stays in the cache, too; only the first batch of a magazine is
    /// taken off.
    #[test]
    fn a_slot_is_in_one_place_only() {
        let slab = Slab::new();
        let (mut mine, mut other) = (Vec::new(), Vec::new());
        assert!(slab.fill(&mut mine, 10 * MAGAZINE + 3));
        let given = mine.len();
        slab.spill_some(&mut mine);
        assert!(!mine.is_empty() && mine.len() < CACHE_MAX);
        assert!(slab.fill(&mut other, given - mine.len()));
        let all: BTreeSet<HoldSlot> = mine.iter().chain(&other).copied().collect();
        assert_eq!(all.len(), given, "none twice, none lost");
        assert!(all.iter().all(|slot| (slot.0 as usize) < given), "none new");
    }
}
