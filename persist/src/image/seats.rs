//! What every seat of a showtime is: three masks a block, four counts a section.

use tmomi_engine::SeatState;
use tmomi_engine::ids::{BlockIndex, Part, SectionIndex};
use tmomi_engine::layout::Layout;

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
}

/// The seats of one showtime.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    held: Vec<u64>,
    sold: Vec<u64>,
    blocked: Vec<u64>,
    sections: Vec<Counts>,
}

impl Seats {
    /// All free.
    pub(crate) fn new(layout: &Layout) -> Seats {
        let free = |capacity| Counts { free: capacity, ..Counts::default() };
        let none = vec![0; layout.blocks().len()];
        Seats {
            held: none.clone(),
            sold: none.clone(),
            blocked: none,
            sections: layout.sections().iter().map(|section| free(section.capacity)).collect(),
        }
    }

    /// Seats with these masks; `None` if they overlap or are not of the layout.
    pub(crate) fn restore(
        layout: &Layout,
        held: Vec<u64>,
        sold: Vec<u64>,
        blocked: Vec<u64>,
    ) -> Option<Seats> {
        let blocks = layout.blocks();
        if [&held, &sold, &blocked].iter().any(|masks| masks.len() != blocks.len()) {
            return None;
        }
        let mut sections = vec![Counts::default(); layout.sections().len()];
        for (index, block) in blocks.iter().enumerate() {
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
        }
        Some(Seats { held, sold, blocked, sections })
    }

    pub(crate) fn section(&self, section: SectionIndex) -> Option<Counts> {
        self.sections.get(usize::from(section.0)).copied()
    }

    pub(crate) fn sections(&self) -> &[Counts] {
        &self.sections
    }

    pub(crate) fn masks(&self, block: BlockIndex) -> Option<Masks> {
        let index = block.0 as usize;
        let held = *self.held.get(index)?;
        Some(Masks { held, sold: self.sold[index], blocked: self.blocked[index] })
    }

    pub(crate) fn held(&self) -> &[u64] {
        &self.held
    }

    pub(crate) fn sold(&self) -> &[u64] {
        &self.sold
    }

    pub(crate) fn blocked(&self) -> &[u64] {
        &self.blocked
    }

    /// The seats of `parts`, all of which are `from`, become `to`. Gives their number.
    ///
    /// # Errors
    ///
    /// [`Contradiction`] if the layout does not have one of them or one is not `from`; those of the
    /// parts before it have changed then.
    pub(crate) fn turn(
        &mut self,
        layout: &Layout,
        parts: &[Part],
        from: SeatState,
        to: SeatState,
    ) -> Result<u32, Contradiction> {
        let mut seats = 0;
        for &part in parts {
            let Part { block, mask } = part;
            if !layout.has(part) {
                return Err(Contradiction::NoSeats { block, mask });
            }
            let others = mask & !self.mask(block, from);
            if others != 0 {
                return Err(Contradiction::Seats { block, mask: others, expected: from });
            }
            self.words(from).into_iter().for_each(|words| words[block.0 as usize] &= !mask);
            self.words(to).into_iter().for_each(|words| words[block.0 as usize] |= mask);
            let section = layout.block(block).section;
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

    fn mask(&self, block: BlockIndex, state: SeatState) -> u64 {
        let masks = self.masks(block).unwrap_or_default();
        match state {
            SeatState::Free => !masks.taken(),
            SeatState::Held => masks.held,
            SeatState::Sold => masks.sold,
            SeatState::Blocked => masks.blocked,
        }
    }

    fn words(&mut self, state: SeatState) -> Option<&mut Vec<u64>> {
        match state {
            SeatState::Free => None,
            SeatState::Held => Some(&mut self.held),
            SeatState::Sold => Some(&mut self.sold),
            SeatState::Blocked => Some(&mut self.blocked),
        }
    }
}
