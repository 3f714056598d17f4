//! The masks of a house: one word of free seats a block, and the compare-and-swap that decides.
//!
//! Taking any seats of one block is one CAS that clears their bits: all or nothing, by any
//! thread, and from that instant they are taken. Seats of several blocks are taken in ascending
//! order; until the last block is reached the earlier ones are only *tried*, and given back if a
//! later one refuses. Nobody may be told "taken" because of a seat that is only tried (R10), so
//! beside the masks stands, for multi-block requests only, a pair of words a block:
//!
//! ```text
//! trying    seats that one multi-block request, and no other, is trying
//! version   counts the begin and the end of every such try
//!
//! try:      trying |= seats;  version += 1;  free &= !seats;  ... next block
//! decided:  version += 1;  trying &= !seats                       (of every block)
//! refused:  free |= seats;  version += 1;  trying &= !seats       (of every block so far)
//! ```
//!
//! A refused reader loads version, trying, free and version again. If the two versions are
//! equal, then a seat that `free` misses only because of a try had its try begun before the
//! first load (else the versions differ), so its bit was set in `trying` by then, and was still
//! set (it is cleared only after the version has moved). A missing seat that `trying` does not
//! have was therefore really taken. Loom checks this in `model.rs`.

use crate::ids::{BlockIndex, Part};
use crate::layout::{BLOCK_SEATS, Layout};
use crate::reject::{Conflict, Reject, SeatState};
use crate::sync::{AtomicU64, Ordering, Patience};
use crate::table::zeroed;

pub(crate) struct SeatMap {
    free: Box<[AtomicU64]>,
    sold: Box<[AtomicU64]>,
    blocked: Box<[AtomicU64]>,
    /// `trying` and `version` of block `b` at `2b` and `2b + 1`.
    settling: Box<[AtomicU64]>,
    /// One bit a block that has anything free. A set bit may be stale, a clear one is not.
    summary: Box<[AtomicU64]>,
}

/// What a look at the seats of one block saw.
#[must_use]
enum Look {
    /// All are free.
    Free,
    /// These were really taken at one instant of the look.
    Taken(u64),
    /// Somebody is trying for them: look again.
    Unsettled,
}

impl SeatMap {
    /// All seats of the layout, free.
    pub(crate) fn new(layout: &Layout) -> SeatMap {
        let blocks = layout.blocks().len();
        let map = SeatMap::empty(blocks);
        for (index, block) in layout.blocks().iter().enumerate() {
            map.free[index].store(block.full(), Ordering::Relaxed);
            map.mark_free(BlockIndex(index as u32));
        }
        map
    }

    /// `blocks` blocks without a free seat.
    pub(crate) fn empty(blocks: usize) -> SeatMap {
        SeatMap {
            free: zeroed(blocks),
            sold: zeroed(blocks),
            blocked: zeroed(blocks),
            settling: zeroed(2 * blocks),
            summary: zeroed(blocks.div_ceil(BLOCK_SEATS as usize)),
        }
    }

    /// The seats of the block that are free, or that somebody may still give back, just now.
    pub(crate) fn free(&self, block: BlockIndex) -> u64 {
        self.free[block.0 as usize].load(Ordering::Acquire)
    }

    /// What each seat of the block was at some instant of the call: held, sold and blocked.
    pub(crate) fn conflict(&self, block: BlockIndex, missing: u64) -> Conflict {
        let sold = self.sold[block.0 as usize].load(Ordering::Acquire) & missing;
        let blocked = self.blocked[block.0 as usize].load(Ordering::Acquire) & missing & !sold;
        Conflict { block, held: missing & !sold & !blocked, sold, blocked }
    }

    /// The state of one seat just now.
    pub(crate) fn state(&self, part: Part) -> SeatState {
        let missing = part.mask & !self.free(part.block);
        match self.conflict(part.block, missing) {
            Conflict { sold, .. } if sold != 0 => SeatState::Sold,
            Conflict { blocked, .. } if blocked != 0 => SeatState::Blocked,
            Conflict { held, .. } if held != 0 => SeatState::Held,
            _ => SeatState::Free,
        }
    }

    /// Whether all the seats of `part` are free just now, and there are any.
    pub(crate) fn has_free(&self, part: Part) -> bool {
        let free = self.free.get(part.block.0 as usize);
        let free = free.map_or(0, |free| free.load(Ordering::Relaxed));
        part.mask != 0 && part.mask & !free == 0
    }

    /// Refuses without a write if a seat of `parts` is taken. `Ok` promises nothing.
    pub(crate) fn look(&self, parts: &[Part]) -> Result<(), Reject> {
        parts.iter().try_for_each(|part| match self.look_at(*part) {
            Look::Taken(missing) => Err(self.refusal(part.block, missing)),
            Look::Free | Look::Unsettled => Ok(()),
        })
    }

    /// Takes all the seats of `parts`, whose blocks ascend, or none.
    pub(crate) fn take(&self, parts: &[Part]) -> Result<(), Reject> {
        match parts {
            [part] => self.take_one(*part),
            _ => self.take_many(parts),
        }
    }

    fn take_one(&self, part: Part) -> Result<(), Reject> {
        let mut patience = Patience::new();
        loop {
            if self.clear(part) {
                return Ok(());
            }
            match self.look_at(part) {
                Look::Taken(missing) => return Err(self.refusal(part.block, missing)),
                Look::Free => {}
                Look::Unsettled if patience.wait() => {}
                Look::Unsettled => return Err(Reject::Contended),
            }
        }
    }

    fn take_many(&self, parts: &[Part]) -> Result<(), Reject> {
        for (tried, part) in parts.iter().enumerate() {
            if let Err(reject) = self.try_block(*part) {
                parts[..tried].iter().for_each(|part| {
                    self.give_back(*part);
                    self.settle(*part);
                });
                return Err(reject);
            }
        }
        parts.iter().for_each(|part| self.settle(*part));
        Ok(())
    }

    /// Takes the seats of one block for a request that needs others too.
    fn try_block(&self, part: Part) -> Result<(), Reject> {
        let trying = &self.settling[2 * part.block.0 as usize];
        let mut patience = Patience::new();
        loop {
            // AcqRel, here and on every word of a try: the argument above is one of happens-before
            // between the writes of a try in their order and the loads of a look in theirs.
            let others = trying.fetch_or(part.mask, Ordering::AcqRel) & part.mask;
            if others == 0 {
                break;
            }
            // Another request is trying one of these seats; a bit of `trying` has one owner.
            trying.fetch_and(!(part.mask & !others), Ordering::AcqRel);
            if let Look::Taken(missing) = self.look_at(part) {
                return Err(self.refusal(part.block, missing));
            }
            if !patience.wait() {
                return Err(Reject::Contended);
            }
        }
        self.count_version(part.block);
        loop {
            if self.clear(part) {
                return Ok(());
            }
            // These bits of `trying` are ours, so nobody else is only trying these seats.
            let missing = part.mask & !self.free(part.block);
            if missing != 0 {
                self.settle(part);
                return Err(self.refusal(part.block, missing));
            }
        }
    }

    /// Ends a try: what of it is taken now is taken for good.
    fn settle(&self, part: Part) {
        self.count_version(part.block);
        let trying = &self.settling[2 * part.block.0 as usize];
        trying.fetch_and(!part.mask, Ordering::AcqRel);
    }

    fn count_version(&self, block: BlockIndex) {
        self.settling[2 * block.0 as usize + 1].fetch_add(1, Ordering::AcqRel);
    }

    fn look_at(&self, part: Part) -> Look {
        let block = part.block.0 as usize;
        if self.has_free(part) {
            // Nothing to be explained, so the words of tries stay out of the cache.
            return Look::Free;
        }
        let (trying, version) = (&self.settling[2 * block], &self.settling[2 * block + 1]);
        let before = version.load(Ordering::Acquire);
        let tried = trying.load(Ordering::Acquire);
        let missing = part.mask & !self.free[block].load(Ordering::Acquire);
        if missing == 0 {
            return Look::Free;
        }
        // The three Acquire loads above keep this one behind them.
        let taken = missing & !tried;
        if taken != 0 && version.load(Ordering::Relaxed) == before {
            Look::Taken(taken)
        } else {
            Look::Unsettled
        }
    }

    fn refusal(&self, block: BlockIndex, missing: u64) -> Reject {
        Reject::SeatUnavailable(self.conflict(block, missing))
    }

    /// The decision: clears the seats if all of them are free.
    fn clear(&self, part: Part) -> bool {
        let word = &self.free[part.block.0 as usize];
        let mut seen = word.load(Ordering::Relaxed);
        while seen & part.mask == part.mask {
            let left = seen & !part.mask;
            // Acquire pairs with the Release of `give_back`: what the one before did to these
            // seats, his event's number included, is before what we do. Release is for the
            // summary and for the reader of `look_at`.
            match word.compare_exchange_weak(seen, left, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    if left == 0 {
                        self.mark_full(part.block);
                    }
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Makes seats free that the caller owns.
    pub(crate) fn give_back(&self, part: Part) {
        // Release pairs with the Acquire of `clear`.
        let word = &self.free[part.block.0 as usize];
        let before = word.fetch_or(part.mask, Ordering::AcqRel);
        debug_assert_eq!(before & part.mask, 0, "seats given back were not taken");
        if before == 0 {
            self.mark_free(part.block);
        }
    }

    fn mark_free(&self, block: BlockIndex) {
        let (word, bit) = summary_bit(block);
        self.summary[word].fetch_or(bit, Ordering::AcqRel);
    }

    /// After the last free seat went. Whoever gives one back sets the bit after the seat, so if
    /// clearing comes later it sees the seat and sets the bit again.
    fn mark_full(&self, block: BlockIndex) {
        let (word, bit) = summary_bit(block);
        self.summary[word].fetch_and(!bit, Ordering::AcqRel);
        if self.free(block) != 0 {
            self.mark_free(block);
        }
    }

    /// The first block in `from..end` that may have a free seat.
    pub(crate) fn next_with_free(&self, from: u32, end: u32) -> Option<BlockIndex> {
        let mut block = from;
        while block < end {
            let (word, bit) = summary_bit(BlockIndex(block));
            let rest = self.summary[word].load(Ordering::Acquire) & !(bit - 1);
            if rest != 0 {
                let found = word as u32 * BLOCK_SEATS + rest.trailing_zeros();
                return (found < end).then_some(BlockIndex(found));
            }
            block = (word as u32 + 1) * BLOCK_SEATS;
        }
        None
    }

    /// Marks seats that the caller owns as sold, or no longer.
    pub(crate) fn set_sold(&self, part: Part, sold: bool) {
        set(&self.sold[part.block.0 as usize], part.mask, sold);
    }

    /// Marks seats that the caller owns as off sale, or no longer.
    pub(crate) fn set_blocked(&self, part: Part, blocked: bool) {
        set(&self.blocked[part.block.0 as usize], part.mask, blocked);
    }

    /// Whether all seats of the part are off sale.
    pub(crate) fn is_blocked(&self, part: Part) -> bool {
        part.mask & !self.blocked[part.block.0 as usize].load(Ordering::Acquire) == 0
    }

    /// Free seats of `blocks`, each counted at some instant of the call.
    pub(crate) fn count_free(&self, blocks: std::ops::Range<u32>) -> u32 {
        blocks.map(|block| self.free(BlockIndex(block)).count_ones()).sum()
    }
}

fn summary_bit(block: BlockIndex) -> (usize, u64) {
    ((block.0 / BLOCK_SEATS) as usize, 1 << (block.0 % BLOCK_SEATS))
}

fn set(word: &AtomicU64, mask: u64, on: bool) {
    // Release pairs with the Acquire in `conflict`.
    if on {
        word.fetch_or(mask, Ordering::AcqRel);
    } else {
        word.fetch_and(!mask, Ordering::AcqRel);
    }
}
