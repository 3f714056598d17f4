//! Rows of atomic words that grow without moving: what the slab, the entries and the line are in.
//!
//! Row `i` lives in a chunk that is twice as large as the one before, so a row never moves, no
//! reader ever waits for growth, and memory is touched only where a row is used: chunks come
//! zeroed from the operating system. Rows of eight words start on a cache line.

use once_cell::race::OnceBox;

use crate::sync::AtomicU64;

/// Rows in the first chunk. Loom and shuttle follow every atomic, so they get few.
const FIRST_ROWS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };
/// Enough for 2^32 rows.
const CHUNKS: usize = 27;
const LINE_BYTES: usize = 64;
const LINE_WORDS: usize = LINE_BYTES / size_of::<u64>();

const _: () = assert!(cfg!(any(loom, shuttle)) || (FIRST_ROWS as u64) << CHUNKS > 1 << 32);

/// Rows of `WIDTH` words, all zero at first.
pub(crate) struct Table<const WIDTH: usize> {
    chunks: [OnceBox<Words>; CHUNKS],
}

impl<const WIDTH: usize> Table<WIDTH> {
    pub(crate) fn new() -> Self {
        let table = Table { chunks: [const { OnceBox::new() }; CHUNKS] };
        if cfg!(loom) {
            // Loom does not see the synchronization of a `OnceBox`, so its few rows are made
            // before any thread is there.
            table.row(0);
            table.row(FIRST_ROWS as u32);
            table.row(3 * FIRST_ROWS as u32);
        }
        table
    }

    /// The row, whose chunk is made if it is the first of it to be asked for.
    #[inline]
    pub(crate) fn row(&self, index: u32) -> &[AtomicU64; WIDTH] {
        let (chunk, offset) = locate(index);
        let rows = FIRST_ROWS << chunk;
        let words = self.chunks[chunk].get_or_init(|| Box::new(Words::new(rows * WIDTH)));
        words.row(offset)
    }

    /// The row, unless nothing near it was ever asked for, which means that it is all zero.
    pub(crate) fn get(&self, index: u32) -> Option<&[AtomicU64; WIDTH]> {
        let (chunk, offset) = locate(index);
        Some(self.chunks[chunk].get()?.row(offset))
    }
}

/// Chunk `c` begins at row `FIRST_ROWS * (2^c - 1)`.
fn locate(index: u32) -> (usize, usize) {
    let group = index as usize / FIRST_ROWS + 1;
    let chunk = group.ilog2() as usize;
    (chunk, index as usize - FIRST_ROWS * ((1 << chunk) - 1))
}

/// Zeroed words; word 0 starts a cache line. Rows are half a line or whole lines.
pub(crate) struct Words {
    words: Box<[AtomicU64]>,
    skipped: usize,
}

impl Words {
    pub(crate) fn new(count: usize) -> Words {
        let words = zeroed(count + LINE_WORDS - 1);
        let past_line = words.as_ptr().addr() % LINE_BYTES / size_of::<u64>();
        Words { words, skipped: (LINE_WORDS - past_line) % LINE_WORDS }
    }

    #[inline]
    pub(crate) fn row<const WIDTH: usize>(&self, index: usize) -> &[AtomicU64; WIDTH] {
        self.words[self.skipped + index * WIDTH..]
            .first_chunk()
            .expect("the box was made for whole rows")
    }
}

/// `count` words that cost nothing until they are touched.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn zeroed(count: usize) -> Box<[AtomicU64]> {
    bytemuck::allocation::zeroed_slice_box(count)
}

#[cfg(any(loom, shuttle))]
pub(crate) fn zeroed(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering::Relaxed;

    #[test]
    fn rows_keep_their_place_and_begin_a_cache_line() {
        let table = Table::<8>::new();
        for index in 0..5_000 {
            table.row(index)[3].store(u64::from(index) + 1, Relaxed);
        }
        for index in 0..5_000 {
            let row = table.get(index).expect("it was made");
            assert_eq!(row[3].load(Relaxed), u64::from(index) + 1);
            assert_eq!(row.as_ptr().addr() % LINE_BYTES, 0);
        }
        assert!(table.get(u32::MAX).is_none());
    }
}
