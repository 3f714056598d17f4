//! What every seat of a showtime is: three masks a block, four counts a section.

use tmomi_engine::SeatState;
use tmomi_engine::ids::{BlockIndex, Part, SectionIndex};
use tmomi_engine::layout::{BLOCK_SEATS, Block, Layout};

use super::divergence::Contradiction;

/// Seats by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Can be held.
    pub free: u32,
    /// Held.
    pub held: u32,
    /// Sold.
    pub sold: u32,
    /// Off sale.
    pub blocked: u32,
}

impl Counts {
    /// All of them: the capacity.
    pub fn total(&self) -> u64 {
        [self.free, self.held, self.sold, self.blocked].into_iter().map(u64::from).sum()
    }

    fn of(&mut self, state: SeatState) -> &mut u32 {
        match state {
            SeatState::Free => &mut self.free,
            SeatState::Held => &mut self.held,
            SeatState::Sold => &mut self.sold,
            SeatState::Blocked => &mut self.blocked,
        }
    }
}

/// The seats of one block; the masks do not overlap, what is in none is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// Held.
    pub held: u64,
    /// Sold.
    pub sold: u64,
    /// Off sale.
    pub blocked: u64,
}

impl Masks {
    fn taken(&self) -> u64 {
        self.held | self.sold | self.blocked
    }

    fn of(&mut self, state: SeatState) -> Option<&mut u64> {
        match state {
            SeatState::Free => None,
            SeatState::Held => Some(&mut self.held),
            SeatState::Sold => Some(&mut self.sold),
            SeatState::Blocked => Some(&mut self.blocked),
        }
    }

    pub(super) fn are(&self, state: SeatState) -> u64 {
        match state {
            SeatState::Free => !self.taken(),
            SeatState::Held => self.held,
            SeatState::Sold => self.sold,
            SeatState::Blocked => self.blocked,
        }
    }
}

/// One block, with what every change asks of the layout: half a cache line, so that a change at a
/// random place of a large house waits for memory once.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct BlockSeats {
    masks: Masks,
    section: SectionIndex,
    len: u8,
}

const _: () = assert!(size_of::<BlockSeats>() == 32);

impl BlockSeats {
    fn new(block: &Block, masks: Masks) -> BlockSeats {
        BlockSeats { masks, section: block.section, len: block.len }
    }

    fn full(&self) -> u64 {
        u64::MAX >> (BLOCK_SEATS - u32::from(self.len))
    }
}

/// The seats of one showtime.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    blocks: Vec<BlockSeats>,
    sections: Vec<Counts>,
}

impl Seats {
    /// All free.
    pub(crate) fn new(layout: &Layout) -> Seats {
        let free = |capacity| Counts { free: capacity, ..Counts::default() };
        let none = |block| BlockSeats::new(block, Masks::default());
        Seats {
            blocks: layout.blocks().iter().map(none).collect(),
            sections: layout.sections().iter().map(|section| free(section.capacity)).collect(),
        }
    }

    /// Seats with these masks; `None` if they overlap or are not of the layout.
    pub(crate) fn restore(
        layout: &Layout,
        held: &[u64],
        sold: &[u64],
        blocked: &[u64],
    ) -> Option<Seats> {
        let count = layout.blocks().len();
        if [held, sold, blocked].iter().any(|masks| masks.len() != count) {
            return None;
        }
        let mut sections = vec![Counts::default(); layout.sections().len()];
        let mut blocks = Vec::with_capacity(count);
        for (index, block) in layout.blocks().iter().enumerate() {
            let (h, s, b) = (held[index], sold[index], blocked[index]);
            let overlap = h & s | h & b | s & b;
            let taken = h | s | b;
            if overlap != 0 || taken & !block.full() != 0 {
                return None;
            }
            let counts = &mut sections[usize::from(block.section.0)];
            counts.held += h.count_ones();
            counts.sold += s.count_ones();
            counts.blocked += b.count_ones();
            counts.free += u32::from(block.len) - taken.count_ones();
            blocks.push(BlockSeats::new(block, Masks { held: h, sold: s, blocked: b }));
        }
        Some(Seats { blocks, sections })
    }

    pub(crate) fn section(&self, section: SectionIndex) -> Option<Counts> {
        self.sections.get(usize::from(section.0)).copied()
    }

    pub(crate) fn sections(&self) -> &[Counts] {
        &self.sections
    }

    pub(crate) fn masks(&self, block: BlockIndex) -> Option<Masks> {
        self.blocks.get(block.0 as usize).map(|block| block.masks)
    }

    /// Loads a block: of no meaning, but it is in the cache then.
    #[inline]
    pub(crate) fn touch(&self, part: Part) -> u64 {
        self.blocks.get(part.block.0 as usize).map_or(0, |block| block.masks.held)
    }

    /// The masks of all blocks, in their order.
    pub(crate) fn all_masks(&self) -> impl ExactSizeIterator<Item = &Masks> {
        self.blocks.iter().map(|block| &block.masks)
    }

    /// The seats of `parts`, all of which are `from`, become `to`. Gives their number.
    ///
    /// # Errors
    ///
    /// [`Contradiction`] if there are none, the layout does not have one of them or one is not
    /// `from`; those of the parts before it have changed then.
    pub(crate) fn turn(
        &mut self,
        layout: &Layout,
        parts: &[Part],
        from: SeatState,
        to: SeatState,
    ) -> Result<u32, Contradiction> {
        if parts.is_empty() {
            return Err(Contradiction::NoSeats { block: BlockIndex(0), mask: 0 });
        }
        let mut seats = 0;
        for &Part { block, mask } in parts {
            let known = self.blocks.get_mut(block.0 as usize);
            let Some(known) = known.filter(|known| mask != 0 && mask & !known.full() == 0) else {
                return Err(Contradiction::NoSeats { block, mask });
            };
            let others = mask & !known.masks.are(from);
            if others != 0 {
                return Err(Contradiction::Seats { block, mask: others, expected: from });
            }
            known.masks.of(from).into_iter().for_each(|word| *word &= !mask);
            known.masks.of(to).into_iter().for_each(|word| *word |= mask);
            let section = known.section;
            let count = mask.count_ones();
            let counts = &mut self.sections[usize::from(section.0)];
            let fewer = counts.of(from).checked_sub(count);
            *counts.of(from) = fewer.ok_or(Contradiction::Count(section))?;
            *counts.of(to) += count;
            if counts.total() != u64::from(layout.sections()[usize::from(section.0)].capacity) {
                return Err(Contradiction::Count(section));
            }
            seats += count;
        }
        Ok(seats)
    }
}
