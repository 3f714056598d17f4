//! The layout of a house as the engine needs it: sections, rows, blocks; no names, no prices.
//!
//! Blocks are numbered section by section, and within a section from the best row to the worst,
//! so that a scan in ascending order looks at the best seats first. A block belongs to one row
//! and one tier; a row is a run of consecutive blocks in the order of its seats.

use std::ops::Range;

use crate::ids::{BlockIndex, Part, RowIndex, SeatAddr, SectionIndex, TierIndex};

/// Seats in a block at most: the bits of a mask.
pub const BLOCK_SEATS: u32 = 64;
/// Seats and places in a layout at most.
pub const SEATS_MAX: u32 = 1 << 24;
/// Seats in a row at most.
pub const ROW_SEATS_MAX: u32 = u16::MAX as u32;
/// Sections in a layout at most.
pub const SECTIONS_MAX: usize = u16::MAX as usize;

// Every block has a seat, so its index fits beside six bits of seat in a `SeatAddr`.
const _: () = assert!((SEATS_MAX as u64) << 6 <= 1 << 32);

/// What a layout is built from; small, and what the log carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutSpec {
    /// In plan order; a section's place here is its [`SectionIndex`].
    pub sections: Vec<SectionSpec>,
}

impl LayoutSpec {
    /// How many blocks its layout has, if it can be built: before any is made.
    pub fn blocks(&self) -> u64 {
        let blocks = |seats: u32| u64::from(seats.div_ceil(BLOCK_SEATS));
        let of_row = |row: &RowSpec| row.runs.iter().map(|run| blocks(run.0.into())).sum::<u64>();
        let of_section = |section: &SectionSpec| match section {
            SectionSpec::Uniform { rows, seats_per_row, .. } => {
                u64::from(*rows) * blocks(*seats_per_row)
            }
            SectionSpec::Rows(rows) => rows.iter().map(of_row).sum(),
            SectionSpec::General { places, .. } => blocks(*places),
        };
        self.sections.iter().map(of_section).fold(0, u64::saturating_add)
    }
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionSpec {
    /// Equal rows, the first of them the best.
    Uniform {
        /// How many rows, at least 1.
        rows: u32,
        /// Seats in each, at least 1.
        seats_per_row: u32,
        /// The tier of all.
        tier: TierIndex,
        /// The distance of the first row from the focal point; each row behind adds 1.
        first_distance: u32,
    },
    /// Rows as drawn, in plan order.
    Rows(Vec<RowSpec>),
    /// Places without rows.
    General {
        /// How many, at least 1.
        places: u32,
        /// The tier of all.
        tier: TierIndex,
    },
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSpec {
    /// Neighbouring seats of one tier, in the order of the row; each run has at least one seat.
    pub runs: Vec<(u16, TierIndex)>,
    /// How far from the focal point, in any unit that all rows of the layout share.
    pub distance: u32,
}

/// Why a layout cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// A section, row or run has no seat, or there is no section.
    Empty(SectionIndex),
    /// A row of the section has more than [`ROW_SEATS_MAX`] seats.
    RowTooLong(SectionIndex),
    /// More than [`SEATS_MAX`] seats, or more than [`SECTIONS_MAX`] sections.
    TooLarge,
}

impl std::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LayoutError::Empty(section) => write!(f, "section {section} has a part without seats"),
            LayoutError::RowTooLong(section) => {
                write!(f, "section {section} has a row of more than {ROW_SEATS_MAX} seats")
            }
            LayoutError::TooLarge => {
                write!(f, "more than {SEATS_MAX} seats or {SECTIONS_MAX} sections")
            }
        }
    }
}

impl std::error::Error for LayoutError {}

/// A section as built.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its blocks.
    pub blocks: Range<u32>,
    /// Its rows; empty for general admission.
    pub rows: Range<u32>,
    /// Seats or places.
    pub capacity: u32,
    /// General admission: places, no rows.
    pub general: bool,
    /// The tiers its seats have, ascending.
    pub tiers: Vec<TierIndex>,
}

/// A row as built.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its first block; the others follow.
    pub first_block: BlockIndex,
    /// How far from the focal point.
    pub distance: u32,
    /// How many blocks.
    pub blocks: u16,
    /// How many seats.
    pub seats: u16,
    /// The section it is in.
    pub section: SectionIndex,
}

/// A block as built.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The row, or `None` in general admission.
    row: u32,
    /// Position in the row (in the section, for general admission) of the seat at bit 0, from 0.
    pub start: u32,
    /// The section it is in.
    pub section: SectionIndex,
    /// The tier of its seats.
    pub tier: TierIndex,
    /// How many seats, 1 to 64.
    pub len: u8,
}

const NO_ROW: u32 = u32::MAX;

impl Block {
    /// The row it is in; `None` in general admission.
    pub fn row(&self) -> Option<RowIndex> {
        (self.row != NO_ROW).then_some(RowIndex(self.row))
    }

    /// The mask of all its seats.
    pub fn full(&self) -> u64 {
        u64::MAX >> (BLOCK_SEATS - u32::from(self.len))
    }
}

/// A house, ready for masks.
#[derive(Debug)]
pub struct Layout {
    spec: LayoutSpec,
    sections: Vec<Section>,
    rows: Vec<Row>,
    blocks: Vec<Block>,
    capacity: u32,
}

impl Layout {
    /// Numbers the blocks of `spec`.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if a part has no seat or a limit is passed.
    pub fn build(spec: LayoutSpec) -> Result<Layout, LayoutError> {
        if spec.sections.is_empty() {
            return Err(LayoutError::Empty(SectionIndex(0)));
        }
        if spec.sections.len() > SECTIONS_MAX {
            return Err(LayoutError::TooLarge);
        }
        let mut layout = Layout {
            spec: LayoutSpec::default(),
            sections: Vec::with_capacity(spec.sections.len()),
            rows: Vec::new(),
            blocks: Vec::new(),
            capacity: 0,
        };
        for (index, section) in spec.sections.iter().enumerate() {
            layout.add_section(SectionIndex(index as u16), section)?;
        }
        layout.rows.shrink_to_fit();
        layout.blocks.shrink_to_fit();
        layout.spec = spec;
        Ok(layout)
    }

    /// What it was built from.
    pub fn spec(&self) -> &LayoutSpec {
        &self.spec
    }

    /// Seats and places in all.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The sections in plan order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The rows of all sections in plan order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The blocks, best first within each section.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// One block. Panics if the layout has no such block.
    pub fn block(&self, block: BlockIndex) -> &Block {
        &self.blocks[block.0 as usize]
    }

    /// The blocks of a row in the order of its seats, with their indices.
    pub fn row_blocks(&self, row: RowIndex) -> impl Iterator<Item = (BlockIndex, &Block)> {
        let row = &self.rows[row.0 as usize];
        let first = row.first_block.0;
        (first..first + u32::from(row.blocks)).map(|b| (BlockIndex(b), &self.blocks[b as usize]))
    }

    /// The seat at `position` (from 0) of a row, if there is one.
    pub fn seat(&self, row: RowIndex, position: u32) -> Option<SeatAddr> {
        self.rows.get(row.0 as usize)?;
        self.row_blocks(row).find_map(|(index, block)| {
            let bit = position.checked_sub(block.start)?;
            (bit < u32::from(block.len)).then(|| SeatAddr::new(index, bit))
        })
    }

    /// Place `n` (from 0) of a general-admission section, if there is one.
    pub fn place(&self, section: SectionIndex, n: u32) -> Option<SeatAddr> {
        let section = self.sections.get(usize::from(section.0)).filter(|s| s.general)?;
        let block = BlockIndex(section.blocks.start + n / BLOCK_SEATS);
        (n < section.capacity).then(|| SeatAddr::new(block, n % BLOCK_SEATS))
    }

    /// Where a seat is: its row (`None` in general admission) and its position, from 0.
    pub fn position(&self, seat: SeatAddr) -> (Option<RowIndex>, u32) {
        let block = self.block(seat.block());
        (block.row(), block.start + seat.bit())
    }

    /// Whether the layout has all these seats, and at least one.
    pub fn has(&self, part: Part) -> bool {
        let block = self.blocks.get(part.block.0 as usize);
        part.mask != 0 && block.is_some_and(|block| part.mask & !block.full() == 0)
    }

    fn add_section(&mut self, index: SectionIndex, spec: &SectionSpec) -> Result<(), LayoutError> {
        let (first_block, first_row) = (self.blocks.len() as u32, self.rows.len() as u32);
        let before = self.capacity;
        let mut tiers = Vec::new();
        match spec {
            SectionSpec::General { places, tier } => {
                tiers.push(*tier);
                self.add_seats(NO_ROW, index, &[(*places, *tier)])?;
            }
            SectionSpec::Uniform { rows, seats_per_row, tier, first_distance } => {
                tiers.push(*tier);
                if u64::from(*rows) * u64::from(*seats_per_row) > SEATS_MAX.into() {
                    return Err(LayoutError::TooLarge);
                }
                for row in 0..*rows {
                    let distance = first_distance.saturating_add(row);
                    self.push_row(index, distance);
                    self.add_row(first_row + row, index, &[(*seats_per_row, *tier)])?;
                }
            }
            SectionSpec::Rows(rows) => {
                rows.iter().for_each(|row| self.push_row(index, row.distance));
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                order.sort_by_key(|row| rows[*row as usize].distance);
                for row in order {
                    let runs = rows[row as usize].runs.iter();
                    let runs: Vec<_> = runs.map(|(n, tier)| (u32::from(*n), *tier)).collect();
                    tiers.extend(runs.iter().map(|(_, tier)| *tier));
                    self.add_row(first_row + row, index, &runs)?;
                }
            }
        }
        if self.capacity == before {
            return Err(LayoutError::Empty(index));
        }
        tiers.sort_unstable();
        tiers.dedup();
        self.sections.push(Section {
            blocks: first_block..self.blocks.len() as u32,
            rows: first_row..self.rows.len() as u32,
            capacity: self.capacity - before,
            general: matches!(spec, SectionSpec::General { .. }),
            tiers,
        });
        Ok(())
    }

    fn push_row(&mut self, section: SectionIndex, distance: u32) {
        let first_block = BlockIndex(0);
        self.rows.push(Row { first_block, distance, blocks: 0, seats: 0, section });
    }

    fn add_row(
        &mut self,
        row: u32,
        section: SectionIndex,
        runs: &[(u32, TierIndex)],
    ) -> Result<(), LayoutError> {
        let seats: u32 = runs.iter().map(|(seats, _)| seats).sum();
        if seats > ROW_SEATS_MAX {
            return Err(LayoutError::RowTooLong(section));
        }
        let first = self.blocks.len();
        self.add_seats(row, section, runs)?;
        let built = &mut self.rows[row as usize];
        built.first_block = BlockIndex(first as u32);
        built.blocks = (self.blocks.len() - first) as u16;
        built.seats = seats as u16;
        Ok(())
    }

    fn add_seats(
        &mut self,
        row: u32,
        section: SectionIndex,
        runs: &[(u32, TierIndex)],
    ) -> Result<(), LayoutError> {
        let mut start = 0;
        if runs.is_empty() {
            return Err(LayoutError::Empty(section));
        }
        for &(seats, tier) in runs {
            if seats == 0 {
                return Err(LayoutError::Empty(section));
            }
            if seats > SEATS_MAX - self.capacity {
                return Err(LayoutError::TooLarge);
            }
            self.capacity += seats;
            let end = start + seats;
            while start < end {
                let len = BLOCK_SEATS.min(end - start);
                self.blocks.push(Block { row, start, section, tier, len: len as u8 });
                start += len;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sections: Vec<SectionSpec>) -> Layout {
        Layout::build(LayoutSpec { sections }).expect("a layout with seats")
    }

    #[test]
    fn best_rows_come_first_and_rows_keep_plan_order() {
        let row = |distance, seats| RowSpec { runs: vec![(seats, TierIndex(0))], distance };
        let built = layout(vec![SectionSpec::Rows(vec![row(9, 3), row(1, 70), row(5, 2)])]);
        let firsts: Vec<u32> = built.rows().iter().map(|r| r.first_block.0).collect();
        assert_eq!(firsts, [3, 0, 2]);
        assert_eq!(built.seat(RowIndex(1), 69), Some(SeatAddr::new(BlockIndex(1), 5)));
        assert_eq!(built.seat(RowIndex(1), 70), None);
        assert_eq!(built.position(SeatAddr::new(BlockIndex(1), 5)), (Some(RowIndex(1)), 69));
        assert_eq!(built.capacity(), 75);
        assert_eq!(built.spec().blocks(), built.blocks().len() as u64);
    }

    #[test]
    fn the_blocks_of_equal_rows_are_known_before_they_are_made() {
        let (rows, tier) = (3, TierIndex(0));
        let rows = SectionSpec::Uniform { rows, seats_per_row: 65, tier, first_distance: 0 };
        let built = layout(vec![rows]);
        assert_eq!((built.spec().blocks(), built.blocks().len()), (6, 6));
    }

    #[test]
    fn a_tier_change_starts_a_block() {
        let runs = vec![(2, TierIndex(0)), (1, TierIndex(3)), (2, TierIndex(0))];
        let built = layout(vec![SectionSpec::Rows(vec![RowSpec { runs, distance: 0 }])]);
        let tiers: Vec<u16> = built.blocks().iter().map(|b| b.tier.0).collect();
        assert_eq!(tiers, [0, 3, 0]);
        assert_eq!(built.sections()[0].tiers, [TierIndex(0), TierIndex(3)]);
        assert_eq!(built.seat(RowIndex(0), 4), Some(SeatAddr::new(BlockIndex(2), 1)));
        assert_eq!(built.spec().blocks(), 3);
    }

    #[test]
    fn places_are_counted_through_the_section() {
        let general = SectionSpec::General { places: 130, tier: TierIndex(0) };
        let built = layout(vec![general]);
        assert_eq!(built.spec().blocks(), 3);
        assert_eq!(built.place(SectionIndex(0), 129), Some(SeatAddr::new(BlockIndex(2), 1)));
        assert_eq!(built.place(SectionIndex(0), 130), None);
        assert_eq!(built.position(SeatAddr::new(BlockIndex(2), 1)), (None, 129));
        assert!(!built.has(Part { block: BlockIndex(2), mask: 0b100 }));
    }

    #[test]
    fn what_has_no_seat_or_too_many_is_refused() {
        let tier = TierIndex(0);
        let refused = |sections| Layout::build(LayoutSpec { sections }).map(|_| ()).unwrap_err();
        let empty = LayoutError::Empty(SectionIndex(0));
        assert_eq!(refused(vec![]), empty);
        assert_eq!(refused(vec![SectionSpec::Rows(vec![])]), empty);
        assert_eq!(refused(vec![SectionSpec::General { places: 0, tier }]), empty);
        let many = SectionSpec::General { places: SEATS_MAX, tier };
        let one_more = SectionSpec::General { places: 1, tier };
        assert_eq!(refused(vec![many, one_more]), LayoutError::TooLarge);
        let rows = 1 << 20;
        let long = SectionSpec::Uniform { rows, seats_per_row: 17, tier, first_distance: 0 };
        assert_eq!(refused(vec![long]), LayoutError::TooLarge);
    }
}
