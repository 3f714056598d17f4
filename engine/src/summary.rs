//! One bit a block that has anything free, so that a search skips what is sold out.
//!
//! A set bit may be stale. A clear one is not, once whoever gave a seat back has returned: he
//! frees the seat and then looks at the bit; whoever cleared it clears the bit and then looks at
//! the seats. Both are SeqCst, so one of the two sees what the other did and sets the bit (the
//! argument of Dekker's flags).

use crate::ids::BlockIndex;
use crate::layout::BLOCK_SEATS;
use crate::sync::{AtomicU64, Ordering, seq_cst_here};
use crate::table::zeroed;

pub(crate) struct Summary {
    words: Box<[AtomicU64]>,
}

impl Summary {
    /// For `blocks` blocks without a free seat.
    pub(crate) fn new(blocks: usize) -> Summary {
        Summary { words: zeroed(blocks.div_ceil(BLOCK_SEATS as usize)) }
    }

    /// The block has a free seat, by a SeqCst write of its word.
    pub(crate) fn mark_free(&self, block: BlockIndex) {
        let (word, bit) = place(block);
        seq_cst_here();
        if self.words[word].load(Ordering::SeqCst) & bit == 0 {
            self.words[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// The last free seat of the block went; `free` is its word.
    pub(crate) fn mark_full(&self, block: BlockIndex, free: &AtomicU64) {
        let (word, bit) = place(block);
        self.words[word].fetch_and(!bit, Ordering::SeqCst);
        seq_cst_here();
        if free.load(Ordering::SeqCst) != 0 {
            self.words[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// The first block in `from..end` that may have a free seat.
    pub(crate) fn next_with_free(&self, from: u32, end: u32) -> Option<BlockIndex> {
        let mut block = from;
        while block < end {
            let (word, bit) = place(BlockIndex(block));
            let rest = self.words[word].load(Ordering::Acquire) & !(bit - 1);
            if rest != 0 {
                let found = word as u32 * BLOCK_SEATS + rest.trailing_zeros();
                return (found < end).then_some(BlockIndex(found));
            }
            block = (word as u32 + 1) * BLOCK_SEATS;
        }
        None
    }
}

fn place(block: BlockIndex) -> (usize, u64) {
    ((block.0 / BLOCK_SEATS) as usize, 1 << (block.0 % BLOCK_SEATS))
}
