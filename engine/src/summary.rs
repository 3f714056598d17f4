//! Which blocks may have so many free seats side by side, so that a search skips all others.
//!
//! For each of a few lengths of a run there is a bit a block, and above it a bit for each 64
//! blocks. A set bit may be stale: taking seats leaves it alone. A clear one is not, once whoever
//! gave a seat back has returned: he frees the seat and then looks at the bits; and only a search
//! clears one, of a block in which it found no such run, and then it looks at the seats again. All
//! of it is SeqCst, so one of the two sees what the other did and sets the bit (the argument of
//! Dekker's flags). The bits above are to those below as these are to the seats. Between clearing
//! and looking again a bit may be wrong: the seat map counts that like a try, and a search that
//! found nothing meanwhile searches again.
//!
//! So a hold pays nothing for it, and a search pays once for each block that somebody filled.

use crate::ids::BlockIndex;
use crate::layout::BLOCK_SEATS;
use crate::sync::{AtomicU64, Ordering, seq_cst_here};
use crate::table::Words;

/// Words of a group of 64 blocks, one cache line: one for each length of a run, and two that say
/// which blocks go on into the one before or behind, in the same row.
const WORDS: usize = 8;
const JOINED_BEFORE: usize = 6;
const JOINED_BEHIND: usize = 7;
/// The lengths that have a word. A longer run is looked for among the blocks of the longest.
const RUNS: [u32; 6] = [1, 2, 3, 4, 6, 8];

pub(crate) struct Summary {
    groups: Words,
    /// A word for each 64 groups and each length: the groups with a bit set.
    tops: Words,
    blocks: u32,
}

/// A block as it is when the summary is made.
pub(crate) struct Made {
    pub(crate) free: u64,
    pub(crate) len: u32,
    pub(crate) joined_before: bool,
    pub(crate) joined_behind: bool,
}

/// A length of a run as the summary knows it.
#[derive(Clone, Copy)]
pub(crate) struct Run(usize);

impl Run {
    /// The longest length of which every run of `seats` seats, at least one, has one.
    pub(crate) fn of(seats: u32) -> Run {
        Run(RUNS.iter().rposition(|run| *run <= seats).expect("there is a run of one"))
    }
}

impl Summary {
    pub(crate) fn new(blocks: impl ExactSizeIterator<Item = Made>) -> Summary {
        let count = blocks.len();
        let groups = count.div_ceil(BLOCK_SEATS as usize);
        let summary = Summary {
            groups: Words::new(groups * WORDS),
            tops: Words::new(groups.div_ceil(BLOCK_SEATS as usize) * WORDS),
            blocks: count as u32,
        };
        let add = |words: &AtomicU64, bit: u64| {
            // Nobody else knows the words yet.
            words.store(words.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        };
        for (index, made) in blocks.enumerate() {
            let (group, bit) = place(index);
            let words = summary.group(group);
            if made.joined_before {
                add(&words[JOINED_BEFORE], bit);
            }
            if made.joined_behind {
                add(&words[JOINED_BEHIND], bit);
            }
            let lengths = summary.lengths(index, made.free, || made.len);
            words[..lengths].iter().for_each(|word| add(word, bit));
            let (top, bit) = place(group);
            summary.top(top)[..lengths].iter().for_each(|word| add(word, bit));
        }
        summary
    }

    fn group(&self, group: usize) -> &[AtomicU64; WORDS] {
        self.groups.row(group)
    }

    fn top(&self, top: usize) -> &[AtomicU64; WORDS] {
        self.tops.row(top)
    }

    /// How many of the lengths a run may have that seats of the block are in: all, if it may go on
    /// in the next block. `len` says how many seats the block has; few are asked.
    #[inline]
    fn lengths(&self, block: usize, free: u64, len: impl FnOnce() -> u32) -> usize {
        let (group, bit) = place(block);
        let words = self.group(group);
        // Relaxed: they never change.
        let joined = |way: usize| words[way].load(Ordering::Relaxed) & bit != 0;
        let open_before = free & 1 != 0 && joined(JOINED_BEFORE);
        if open_before || joined(JOINED_BEHIND) && free >> (len() - 1) & 1 != 0 {
            return RUNS.len();
        }
        let pairs = free & free >> 1;
        let fours = pairs & pairs >> 2;
        match () {
            () if free == 0 => 0,
            () if pairs == 0 => 1,
            () if pairs & free >> 2 == 0 => 2,
            () if fours == 0 => 3,
            () if fours & pairs >> 4 == 0 => 4,
            () if fours & fours >> 4 == 0 => 5,
            () => 6,
        }
    }

    /// Whether a run of that length may have seats of the block, of which `free` are.
    pub(crate) fn may_have(
        &self,
        block: BlockIndex,
        run: Run,
        free: u64,
        len: impl FnOnce() -> u32,
    ) -> bool {
        self.lengths(block.0 as usize, free, len) > run.0
    }

    /// The block has these seats free since a SeqCst write of its word.
    #[inline]
    pub(crate) fn mark(&self, block: BlockIndex, free: u64, len: impl FnOnce() -> u32) {
        seq_cst_here();
        for run in 0..self.lengths(block.0 as usize, free, len) {
            self.set(block.0 as usize, run);
        }
    }

    /// Sets a bit and the one above, each unless it is.
    #[inline]
    fn set(&self, block: usize, run: usize) {
        let (group, bit) = place(block);
        set_bit(&self.group(group)[run], bit);
        seq_cst_here();
        let (top, bit) = place(group);
        set_bit(&self.top(top)[run], bit);
    }

    /// A search found no such run in the block, whose word is `free`.
    #[cold]
    pub(crate) fn unmark(
        &self,
        block: BlockIndex,
        run: Run,
        free: &AtomicU64,
        len: impl FnOnce() -> u32,
    ) {
        let index = block.0 as usize;
        let (group, bit) = place(index);
        let word = &self.group(group)[run.0];
        let left = word.fetch_and(!bit, Ordering::SeqCst) & !bit;
        seq_cst_here();
        if self.may_have(block, run, free.load(Ordering::SeqCst), len) {
            return self.set(index, run.0);
        }
        if left == 0 {
            let (top, bit) = place(group);
            self.top(top)[run.0].fetch_and(!bit, Ordering::SeqCst);
            seq_cst_here();
            if word.load(Ordering::SeqCst) != 0 {
                set_bit(&self.top(top)[run.0], bit);
            }
        }
    }

    /// The first block in `from..end` that may have seats of such a run.
    pub(crate) fn next(&self, run: Run, from: u32, end: u32) -> Option<BlockIndex> {
        let end = end.min(self.blocks) as usize;
        let mut block = from as usize;
        while block < end {
            let (group, bit) = place(block);
            let rest = self.group(group)[run.0].load(Ordering::Acquire) & !(bit - 1);
            if rest != 0 {
                let found = group * BLOCK_SEATS as usize + rest.trailing_zeros() as usize;
                return (found < end).then_some(BlockIndex(found as u32));
            }
            block = self.next_group(run, group + 1, end)? * BLOCK_SEATS as usize;
        }
        None
    }

    /// The first group from `from` on that may have a bit set and begins before block `end`.
    fn next_group(&self, run: Run, from: usize, end: usize) -> Option<usize> {
        let groups = end.div_ceil(BLOCK_SEATS as usize);
        let mut group = from;
        while group < groups {
            let (top, bit) = place(group);
            let rest = self.top(top)[run.0].load(Ordering::Acquire) & !(bit - 1);
            if rest != 0 {
                return Some(top * BLOCK_SEATS as usize + rest.trailing_zeros() as usize);
            }
            group = (top + 1) * BLOCK_SEATS as usize;
        }
        None
    }
}

#[inline]
fn set_bit(word: &AtomicU64, bit: u64) {
    if word.load(Ordering::SeqCst) & bit == 0 {
        word.fetch_or(bit, Ordering::SeqCst);
    }
}

/// The word that has the bit of the `index`th, and the bit.
#[inline]
fn place(index: usize) -> (usize, u64) {
    (index / BLOCK_SEATS as usize, 1 << (index % BLOCK_SEATS as usize))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `seats` neighbours are free in the block, or free ones reach an end that is joined.
    fn naive(made: &Made, seats: u32) -> bool {
        let free = |at: u32| made.free >> at & 1 != 0;
        let run = (0..made.len).any(|at| at + seats <= made.len && (at..at + seats).all(free));
        run || made.joined_before && free(0) || made.joined_behind && free(made.len - 1)
    }

    proptest! {
        /// Planted: a run of six is looked for as two of four.
        #[test]
        fn a_block_is_known_by_its_longest_run(
            bits in any::<[u64; 3]>(),
            len in 1_u32..=64,
            joined_before: bool,
            joined_behind: bool,
        ) {
            // Sparse, dense and even ones.
            for bits in [bits[0] & bits[1], bits[0] | bits[1] | bits[2], bits[0]] {
                let free = bits & u64::MAX >> (64 - len);
                let made = Made { free, len, joined_before, joined_behind };
                let summary = Summary::new([&made].into_iter().map(|made| Made { ..*made }));
                for (n, seats) in RUNS.into_iter().enumerate() {
                    let may = summary.may_have(BlockIndex(0), Run(n), free, || len);
                    prop_assert_eq!(may, naive(&made, seats), "{} of {:b}", seats, free);
                    prop_assert_eq!(summary.next(Run(n), 0, 1).is_some(), may);
                }
            }
        }
    }

    #[test]
    fn what_is_cleared_is_not_found_and_what_is_marked_is() {
        let blocks = 64 * 64 * 2 + 3;
        let full = |_| Made { free: 0, len: 64, joined_before: false, joined_behind: false };
        let summary = Summary::new((0..blocks).map(full));
        let run = Run::of(5);
        let (first, last) = (BlockIndex(70), BlockIndex(blocks - 1));
        for block in [first, last] {
            summary.mark(block, 0b1111, || 64);
        }
        assert_eq!(summary.next(run, 0, blocks), Some(first));
        assert_eq!(summary.next(run, 71, blocks), Some(last));
        assert_eq!(summary.next(run, 71, blocks - 1), None);
        assert_eq!(summary.next(Run::of(6), 0, blocks), None);
        summary.unmark(first, run, &AtomicU64::new(0b111), || 64);
        assert_eq!(summary.next(run, 0, blocks), Some(last));
        summary.unmark(last, run, &AtomicU64::new(0b1111), || 64);
        assert_eq!(summary.next(run, 0, blocks), Some(last));
    }
}
