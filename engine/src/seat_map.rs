//! The masks of a house: one word of free seats a block, and the compare-and-swap that decides.
//!
//! Taking any seats of one block is one CAS that clears their bits: all or nothing, by any
//! thread, and from that instant they are taken. Seats of several blocks are taken in ascending
//! order. The CAS on the last block decides; until then the earlier ones are only *tried*, and
//! given back if the last one, or one between, refuses. Nobody may be told "taken" because of a
//! seat that is only tried (R10), so beside the word of free seats a block has a row of four:
//!
//! ```text
//! trying    seats that one multi-block request, and no other, is trying
//! version   counts the tries that were given back
//! sold      of the seats that are not free
//! blocked   of the seats that are not free; the others are held
//!
//! try:      trying |= seats;  free &= !seats;  ... next block
//! decided:  trying &= !seats                                  (of every block but the last)
//! refused:  free |= seats;  version += 1;  trying &= !seats   (of every block so far)
//! ```
//!
//! A refused reader loads version, free, trying and version again. Say that a seat was missing
//! from `free` because of a try, and not in `trying`. The try had set it there before it took it,
//! so it was cleared since: the try has ended. If it was decided, the seat was really taken. If
//! it was refused, `version` was counted before, and the second load sees that. If the first saw
//! it too, `free` was loaded after the seat was given back, and did not miss it. So with both
//! versions equal, a missing seat that `trying` does not have was really taken. Loom checks this
//! in `model.rs`. While nobody tries for seats of several blocks at all, which two counters of the
//! house tell, a missing seat was taken, and nobody looks at the row.

use crossbeam::utils::CachePadded;

use crate::ids::{BlockIndex, Part, count_seats};
use crate::layout::{BLOCK_SEATS, Block, Layout};
use crate::reject::{Conflict, Reject, SeatState};
use crate::ring::PARTS_MAX;
use crate::summary::{Made, Run, Summary};
use crate::sync::{AtomicU64, Ordering, Patience};
use crate::table::{Words, zeroed};

/// Words of a row, half a cache line.
const ROW_WORDS: usize = 4;
const TRYING: usize = 0;
const VERSION: usize = 1;
const SOLD: usize = 2;
const BLOCKED: usize = 3;

pub(crate) struct SeatMap {
    free: Box<[AtomicU64]>,
    /// Seats of each block, 1 to 64.
    lens: Box<[u8]>,
    rows: Words,
    summary: Summary,
    tries: CachePadded<Tries>,
}

/// Counts multi-block requests, so that a search that finds nothing knows whether one of them had
/// seats that it did not get in the end; and bits that are cleared from the summary, which hide a
/// seat that comes back just then.
#[derive(Default)]
struct Tries {
    begun: AtomicU64,
    ended: AtomicU64,
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
        let blocks = layout.blocks();
        let made = |index: usize| {
            let block = &blocks[index];
            let joined = |other: Option<&Block>| {
                block.row().is_some() && other.is_some_and(|other| other.row() == block.row())
            };
            Made {
                free: block.full(),
                len: block.len.into(),
                joined_before: joined(index.checked_sub(1).map(|before| &blocks[before])),
                joined_behind: joined(blocks.get(index + 1)),
            }
        };
        SeatMap::of((0..blocks.len()).map(made))
    }

    pub(crate) fn of(blocks: impl ExactSizeIterator<Item = Made> + Clone) -> SeatMap {
        let free = zeroed(blocks.len());
        for (word, made) in free.iter().zip(blocks.clone()) {
            word.store(made.free, Ordering::Relaxed);
        }
        SeatMap {
            free,
            lens: blocks.clone().map(|made| made.len as u8).collect(),
            rows: Words::new(ROW_WORDS * blocks.len()),
            summary: Summary::new(blocks),
            tries: CachePadded::default(),
        }
    }

    fn len(&self, block: BlockIndex) -> u32 {
        self.lens[block.0 as usize].into()
    }

    fn row(&self, block: BlockIndex) -> &[AtomicU64; ROW_WORDS] {
        self.rows.row(block.0 as usize)
    }

    fn word(&self, block: BlockIndex) -> &AtomicU64 {
        &self.free[block.0 as usize]
    }

    /// The seats of the block that are free, or that somebody may still give back, just now.
    pub(crate) fn free(&self, block: BlockIndex) -> u64 {
        self.word(block).load(Ordering::Acquire)
    }

    /// Loads the word of a block, if the house has it, for the sake of the caches alone.
    pub(crate) fn peek(&self, block: BlockIndex) -> u32 {
        self.free.get(block.0 as usize).map_or(0, |free| free.load(Ordering::Relaxed) as u32)
    }

    /// What each seat of the part is, if it is not free: sold, blocked, or else held.
    pub(crate) fn conflict(&self, part: Part) -> Conflict {
        let Part { block, mask } = part;
        let row = self.row(block);
        let sold = row[SOLD].load(Ordering::Acquire) & mask;
        let blocked = row[BLOCKED].load(Ordering::Acquire) & mask & !sold;
        Conflict { block, free: 0, held: mask & !sold & !blocked, sold, blocked }
    }

    /// What each seat of the part is just now.
    pub(crate) fn states(&self, part: Part) -> Conflict {
        let free = part.mask & self.free(part.block);
        Conflict { free, ..self.conflict(Part { mask: part.mask & !free, ..part }) }
    }

    /// The state of one seat just now.
    pub(crate) fn state(&self, part: Part) -> SeatState {
        self.states(part).seats().next().map_or(SeatState::Free, |(_, state)| state)
    }

    /// Whether all the seats of `part` are free just now, and there are any.
    #[inline]
    fn has_free(&self, part: Part) -> bool {
        let free = self.free.get(part.block.0 as usize);
        let free = free.map_or(0, |free| free.load(Ordering::Relaxed));
        part.mask != 0 && part.mask & !free == 0
    }

    /// Whether the house has these seats, and there are any.
    #[inline]
    fn has(&self, part: Part) -> bool {
        let len = self.lens.get(part.block.0 as usize);
        len.is_some_and(|len| part.mask & !(u64::MAX >> (BLOCK_SEATS - u32::from(*len))) == 0)
            && part.mask != 0
    }

    /// Whether the house has these seats, each block once and ascending.
    pub(crate) fn check(&self, parts: &[Part]) -> Result<(), Reject> {
        if parts.len() > PARTS_MAX {
            return Err(Reject::TooMany);
        }
        let ascending = parts.windows(2).all(|pair| pair[0].block < pair[1].block);
        if parts.is_empty() || !ascending || !parts.iter().all(|part| self.has(*part)) {
            return Err(Reject::UnknownSeat);
        }
        Ok(())
    }

    /// Refuses without a write what the house does not have, or what is taken; gives the number of
    /// seats. `Ok` promises nothing more.
    #[inline]
    pub(crate) fn look(&self, parts: &[Part]) -> Result<u32, Reject> {
        match parts {
            // A free seat is there: nothing else is loaded.
            [part] if self.has_free(*part) => Ok(count_seats(parts)),
            [part] => self.look_closer(*part).map(|()| count_seats(parts)),
            _ => self.look_at_all(parts),
        }
    }

    #[inline]
    fn look_closer(&self, part: Part) -> Result<(), Reject> {
        if !self.has(part) {
            return Err(Reject::UnknownSeat);
        }
        match self.look_at(part) {
            Look::Taken(missing) => Err(refusal(part.block, missing)),
            Look::Free | Look::Unsettled => Ok(()),
        }
    }

    #[inline(never)]
    fn look_at_all(&self, parts: &[Part]) -> Result<u32, Reject> {
        self.check(parts)?;
        parts.iter().try_for_each(|part| self.look_closer(*part))?;
        Ok(count_seats(parts))
    }

    /// Takes all the seats of `parts`, whose blocks ascend, or none.
    #[inline]
    pub(crate) fn take(&self, parts: &[Part]) -> Result<(), Reject> {
        match parts {
            [part] if self.clear(*part) => Ok(()),
            [part] => self.take_one(*part),
            _ => self.take_many(parts),
        }
    }

    #[inline(never)]
    fn take_one(&self, part: Part) -> Result<(), Reject> {
        let mut patience = Patience::new();
        loop {
            if self.clear(part) {
                return Ok(());
            }
            if let Look::Taken(missing) = self.look_at(part) {
                return Err(refusal(part.block, missing));
            }
            if !patience.wait() {
                return Err(Reject::Contended);
            }
        }
    }

    #[inline(never)]
    fn take_many(&self, parts: &[Part]) -> Result<(), Reject> {
        let Some((last, others)) = parts.split_last() else { return Ok(()) };
        // Release, as every write of a try: before any seat is missing because of it.
        self.tries.begun.fetch_add(1, Ordering::AcqRel);
        let taken = self.try_all(others).and_then(|()| {
            let taken = self.take_one(*last);
            if taken.is_err() {
                others.iter().for_each(|part| self.untry(*part, true));
            }
            taken
        });
        if taken.is_ok() {
            others.iter().for_each(|part| self.untry(*part, false));
        }
        self.tries.ended.fetch_add(1, Ordering::AcqRel);
        taken
    }

    /// Takes the seats for a request that needs others too, all or none.
    fn try_all(&self, parts: &[Part]) -> Result<(), Reject> {
        for (tried, part) in parts.iter().enumerate() {
            if let Err(reject) = self.try_block(*part) {
                parts[..tried].iter().for_each(|part| self.untry(*part, true));
                return Err(reject);
            }
        }
        Ok(())
    }

    fn try_block(&self, part: Part) -> Result<(), Reject> {
        let trying = &self.row(part.block)[TRYING];
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
                return Err(refusal(part.block, missing));
            }
            if !patience.wait() {
                return Err(Reject::Contended);
            }
        }
        loop {
            if self.clear(part) {
                return Ok(());
            }
            // These bits of `trying` are ours, so nobody else is only trying these seats.
            let missing = part.mask & !self.free(part.block);
            if missing == 0 && patience.wait() {
                continue;
            }
            trying.fetch_and(!part.mask, Ordering::AcqRel);
            return Err(match missing {
                0 => Reject::Contended,
                _ => refusal(part.block, missing),
            });
        }
    }

    /// Ends a try: its seats are taken for good, or given back.
    fn untry(&self, part: Part, give_back: bool) {
        let row = self.row(part.block);
        if give_back {
            self.give_back(part);
            row[VERSION].fetch_add(1, Ordering::AcqRel);
        }
        row[TRYING].fetch_and(!part.mask, Ordering::AcqRel);
    }

    /// See the module.
    #[inline]
    fn look_at(&self, part: Part) -> Look {
        let ended = self.tries_ended();
        let missing = part.mask & !self.free(part.block);
        match missing {
            0 => Look::Free,
            _ if self.untried_since(ended) => Look::Taken(missing),
            _ => self.look_at_row(part),
        }
    }

    #[inline(never)]
    fn look_at_row(&self, part: Part) -> Look {
        let row = self.row(part.block);
        let before = row[VERSION].load(Ordering::Acquire);
        let missing = part.mask & !self.free(part.block);
        if missing == 0 {
            return Look::Free;
        }
        let taken = missing & !row[TRYING].load(Ordering::Acquire);
        // The three Acquire loads above keep this one behind them.
        if taken != 0 && row[VERSION].load(Ordering::Relaxed) == before {
            Look::Taken(taken)
        } else {
            Look::Unsettled
        }
    }

    /// The decision: clears the seats if all of them are free.
    #[inline]
    fn clear(&self, part: Part) -> bool {
        let word = self.word(part.block);
        let mut seen = word.load(Ordering::Relaxed);
        while seen & part.mask == part.mask {
            let left = seen & !part.mask;
            // Acquire pairs with the Release of `give_back`: what the one before did to these
            // seats, his event's number included, is before what we do. Release is for the
            // reader of `look_at_row`.
            match word.compare_exchange_weak(seen, left, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Makes seats free that the caller owns.
    #[inline]
    pub(crate) fn give_back(&self, part: Part) {
        // Release pairs with the Acquire of `clear`; SeqCst is for the summary.
        let before = self.word(part.block).fetch_or(part.mask, Ordering::SeqCst);
        debug_assert_eq!(before & part.mask, 0, "seats given back were not taken");
        self.summary.mark(part.block, before | part.mask, || self.len(part.block));
    }

    /// The first block in `from..end` that has a free seat of a run of `seats` free ones in its
    /// row, at least one; or that may have: a run that goes on in another block is not followed.
    pub(crate) fn next_with_run(&self, seats: u32, from: u32, end: u32) -> Option<BlockIndex> {
        let (run, mut from) = (Run::of(seats), from);
        loop {
            let block = self.summary.next(run, from, end)?;
            let len = || self.len(block);
            if self.summary.may_have(block, run, self.free(block), len) {
                return Some(block);
            }
            // Until the bit is looked at again another search may miss a seat that came back.
            self.tries.begun.fetch_add(1, Ordering::AcqRel);
            self.summary.unmark(block, run, self.word(block), len);
            self.tries.ended.fetch_add(1, Ordering::AcqRel);
            from = block.0 + 1;
        }
    }

    /// Multi-block requests and clearings of the summary that have ended.
    pub(crate) fn tries_ended(&self) -> u64 {
        self.tries.ended.load(Ordering::Acquire)
    }

    /// Whether no multi-block request had seats on trial and no bit was cleared since `tries_ended`
    /// gave `ended`, not even by one that began before.
    pub(crate) fn untried_since(&self, ended: u64) -> bool {
        // The loads of the search are Acquire, and so before this one: if it missed a seat because
        // of a try, the try had been counted.
        self.tries.begun.load(Ordering::Acquire) == ended
    }

    /// Marks seats that the caller owns as sold, or no longer.
    pub(crate) fn set_sold(&self, part: Part, sold: bool) {
        set(&self.row(part.block)[SOLD], part.mask, sold);
    }

    /// Marks seats that the caller owns as off sale, or no longer.
    pub(crate) fn set_blocked(&self, part: Part, blocked: bool) {
        set(&self.row(part.block)[BLOCKED], part.mask, blocked);
    }

    /// The seats of the part that are not off sale, if there are any.
    pub(crate) fn not_blocked(&self, part: Part) -> Option<Part> {
        let mask = part.mask & !self.row(part.block)[BLOCKED].load(Ordering::Acquire);
        (mask != 0).then_some(Part { mask, ..part })
    }

    /// Free seats of `blocks`, each counted at some instant of the call.
    pub(crate) fn count_free(&self, blocks: std::ops::Range<u32>) -> u32 {
        blocks.map(|block| self.free(BlockIndex(block)).count_ones()).sum()
    }
}

fn refusal(block: BlockIndex, missing: u64) -> Reject {
    Reject::SeatUnavailable(Part { block, mask: missing })
}

fn set(word: &AtomicU64, mask: u64, on: bool) {
    // Release pairs with the Acquire in `conflict`.
    if on {
        word.fetch_or(mask, Ordering::AcqRel);
    } else {
        word.fetch_and(!mask, Ordering::AcqRel);
    }
}
