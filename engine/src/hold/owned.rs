//! A hold that was found, and one that is owned: what may be done to it, and by whom.

use super::{Facts, INLINE_PARTS, Slab, State, Word};
use crate::ids::{BlockIndex, EntryId, HoldSlot, Part, TimeMs};
use crate::sync::{AtomicU64, Ordering};

/// A hold as it was found. It may be another's to change by now.
pub(crate) struct Seen<'a> {
    pub(super) slab: &'a Slab,
    pub(super) slot: HoldSlot,
    pub(super) words: &'a [AtomicU64; 8],
    pub(super) word: Word,
}

/// A hold whose state word is BUSY because of the caller, who must `settle` or `end` it.
#[must_use = "an owned hold must be settled or ended"]
pub(crate) struct Owned<'a>(Seen<'a>);

impl<'a> Seen<'a> {
    /// Until when it holds, if it is active.
    pub(crate) fn deadline(&self) -> TimeMs {
        self.word.deadline()
    }

    /// Makes the word BUSY, unless it is no longer what was seen.
    #[inline]
    pub(crate) fn own(self) -> Option<Owned<'a>> {
        let (seen, busy) = (self.word.0, self.word.with(State::Busy).0);
        // Acquire pairs with the Release stores of the word; there is nothing to release yet.
        let won = self.words[0].compare_exchange(seen, busy, Ordering::Acquire, Ordering::Relaxed);
        won.is_ok().then_some(Owned(self))
    }
}

impl Owned<'_> {
    /// Until when it was to hold, if it was active.
    pub(crate) fn deadline(&self) -> TimeMs {
        self.0.deadline()
    }

    /// Whose it is.
    #[inline]
    pub(crate) fn facts(&self) -> Facts {
        let whose = self.0.words[2].load(Ordering::Relaxed);
        Facts {
            entry: EntryId((whose >> 32) as u32),
            house: whose as u32,
            created_at: TimeMs(self.0.words[7].load(Ordering::Relaxed)),
        }
    }

    /// Its parts, instead of what `out` has.
    #[inline]
    pub(crate) fn parts(&self, out: &mut Vec<Part>) {
        out.clear();
        let count = (self.0.words[3].load(Ordering::Relaxed) >> 16 & 0xffff) as usize;
        push_parts(self.0.words, count.min(INLINE_PARTS), out);
        if count > INLINE_PARTS {
            self.further_parts(count, out);
        }
    }

    #[cold]
    fn further_parts(&self, count: usize, out: &mut Vec<Part>) {
        let mut words = self.0.words;
        while out.len() < count {
            let link = words[3].load(Ordering::Relaxed) >> 32;
            words = self.0.slab.records.row(link as u32 - 1);
            push_parts(words, (count - out.len()).min(INLINE_PARTS), out);
        }
    }

    /// Stores what it is from now on.
    #[inline]
    pub(crate) fn settle(self, deadline: TimeMs, state: State) {
        let word = Word::new(deadline, self.0.word.generation(), state);
        // Release pairs with the Acquire load in `find`.
        self.0.words[0].store(word.0, Ordering::Release);
    }

    /// Frees its records into `cache`.
    #[inline]
    pub(crate) fn end(self, cache: &mut Vec<HoldSlot>) {
        let Seen { slab, slot, words, .. } = self.0;
        let link = words[3].load(Ordering::Relaxed) >> 32;
        self.settle(TimeMs(0), State::Free);
        cache.push(slot);
        if link != 0 {
            slab.end_chain(link, cache);
        }
        slab.spill_some(cache);
    }
}

/// Appends the first `count` parts of a record, which has so many.
#[inline]
fn push_parts(words: &[AtomicU64; 8], count: usize, out: &mut Vec<Part>) {
    let blocks = words[4].load(Ordering::Relaxed);
    for n in 0..count {
        let block = BlockIndex((blocks >> (32 * (1 - n))) as u32);
        out.push(Part { block, mask: words[5 + n].load(Ordering::Relaxed) });
    }
}
