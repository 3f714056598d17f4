//! Best available: which seats to try for a request that names none.
//!
//! The layout numbers the blocks of a section from the best row to the worst, so the search
//! walks blocks in ascending order and skips those without such a run by the summary. Of several
//! sections the one whose next candidate row is nearest to the focal point comes first. What is
//! found is only a proposal: taking it is the decision, and if that fails the search goes on.

use std::ops::Range;

use crate::house::House;
use crate::ids::{BlockIndex, Part, SectionIndex, TierIndex, count_seats};
use crate::layout::Layout;
use crate::reject::Reject;
use crate::ring::PARTS_MAX;
use crate::sync::Patience;

/// Seats in one request for the best available at most.
pub const BEST_SEATS_MAX: u32 = 1_000;

/// Searches that find nothing while others try for seats, before a caller is told `contended`.
const SEARCHES_MAX: usize = 16;

/// A request for the best seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BestRequest {
    /// How many, 1 to [`BEST_SEATS_MAX`].
    pub count: u32,
    /// Only in this section.
    pub section: Option<SectionIndex>,
    /// Only of this tier.
    pub tier: Option<TierIndex>,
    /// Side by side in one row; in general admission every place is beside every other.
    pub adjacent: bool,
    /// Rather seats that leave no single free seat beside them, if the row has such.
    pub avoid_orphans: bool,
}

/// Blocks still to be looked at, section by section: each with the distance of its next row.
struct Search<'a> {
    house: &'a House,
    /// Rows without a run of so many free seats are passed over.
    run: u32,
    ahead: Vec<(u32, Range<u32>)>,
}

/// The blocks of one row, or of a whole general section, whose first stands at the front.
struct Candidate {
    blocks: Range<u32>,
    general: bool,
}

/// Takes the best seats that the request allows, into `parts` instead of what is there.
pub(crate) fn take_best(
    house: &House,
    request: BestRequest,
    parts: &mut Vec<Part>,
) -> Result<(), Reject> {
    let mut patience = Patience::new();
    for _ in 0..SEARCHES_MAX {
        let ended = house.map.tries_ended();
        let taken = match request.adjacent {
            true => take_adjacent(house, request, parts),
            false => take_any(house, request, parts),
        };
        let nothing = matches!(taken, Err(Reject::SoldOut | Reject::NoAdjacentSeats));
        if !nothing || house.map.untried_since(ended) {
            return taken;
        }
        // Seats may have been missing that others only tried for (R10).
        patience.wait();
    }
    Err(Reject::Contended)
}

fn take_adjacent(house: &House, request: BestRequest, parts: &mut Vec<Part>) -> Result<(), Reject> {
    let mut search = Search::new(house, request, request.count);
    let mut contended = false;
    while let Some(candidate) = search.next_row() {
        let mut patience = Patience::new();
        loop {
            parts.clear();
            let found = if candidate.general {
                propose_any(house, request, candidate.blocks.clone(), request.count, parts)
            } else {
                propose_run(house, request, candidate.blocks.clone(), parts)
            };
            if !found {
                break;
            }
            if house.map.take(parts).is_ok() {
                return Ok(());
            }
            if !patience.wait() {
                contended = true;
                break;
            }
        }
    }
    if contended {
        parts.clear();
        return Err(Reject::Contended);
    }
    let missing = propose_best(house, request, parts);
    parts.clear();
    Err(if missing == 0 { Reject::NoAdjacentSeats } else { Reject::SoldOut })
}

fn take_any(house: &House, request: BestRequest, parts: &mut Vec<Part>) -> Result<(), Reject> {
    let mut patience = Patience::new();
    loop {
        if propose_best(house, request, parts) > 0 {
            parts.clear();
            return Err(Reject::SoldOut);
        }
        if parts.len() > PARTS_MAX {
            parts.clear();
            return Err(Reject::TooMany);
        }
        parts.sort_unstable();
        if house.map.take(parts).is_ok() {
            return Ok(());
        }
        if !patience.wait() {
            parts.clear();
            return Err(Reject::Contended);
        }
    }
}

/// The best free seats into `parts`, wherever they are; gives how many are missing.
fn propose_best(house: &House, request: BestRequest, parts: &mut Vec<Part>) -> u32 {
    parts.clear();
    let mut missing = request.count;
    let mut search = Search::new(house, request, 1);
    while missing > 0 {
        let Some(candidate) = search.next_row() else { break };
        let before = parts.len();
        propose_any(house, request, candidate.blocks, missing, parts);
        missing -= count_seats(&parts[before..]).min(missing);
    }
    missing
}

impl<'a> Search<'a> {
    fn new(house: &'a House, request: BestRequest, run: u32) -> Search<'a> {
        let sections = house.layout().sections().iter().enumerate();
        let wanted = sections.filter(|(index, section)| {
            request.section.is_none_or(|wanted| usize::from(wanted.0) == *index)
                && request.tier.is_none_or(|tier| section.tiers.contains(&tier))
        });
        let mut search = Search { house, run, ahead: Vec::new() };
        for (_, section) in wanted {
            // Places in general admission are beside each other wherever they are.
            search.push(section.blocks.clone(), if section.general { 1 } else { run });
        }
        search
    }

    /// Puts the rest of a section back with the distance of its next row that has such a run.
    fn push(&mut self, blocks: Range<u32>, run: u32) {
        if let Some(block) = self.house.map.next_with_run(run, blocks.start, blocks.end) {
            let layout = self.house.layout();
            let row = layout.block(block).row();
            let distance = row.map_or(0, |row| layout.rows()[row.0 as usize].distance);
            self.ahead.push((distance, block.0..blocks.end));
        }
    }

    fn next_row(&mut self) -> Option<Candidate> {
        let nearest = (0..self.ahead.len()).min_by_key(|n| {
            let (distance, blocks) = &self.ahead[*n];
            (*distance, blocks.start)
        })?;
        let (_, rest) = self.ahead.swap_remove(nearest);
        let layout = self.house.layout();
        let Some(row) = layout.block(BlockIndex(rest.start)).row() else {
            return Some(Candidate { blocks: rest, general: true });
        };
        let row = &layout.rows()[row.0 as usize];
        let end = row.first_block.0 + u32::from(row.blocks);
        self.push(end..rest.end, self.run);
        Some(Candidate { blocks: row.first_block.0..end, general: false })
    }
}

/// The free seats of the block that the request may have.
fn usable(house: &House, request: BestRequest, block: u32) -> u64 {
    let right =
        request.tier.is_none_or(|tier| house.layout().block(BlockIndex(block)).tier == tier);
    if right { house.map.free(BlockIndex(block)) } else { 0 }
}

/// Up to `count` free seats of the blocks, the first ones; `true` if there are so many.
fn propose_any(
    house: &House,
    request: BestRequest,
    blocks: Range<u32>,
    count: u32,
    parts: &mut Vec<Part>,
) -> bool {
    let mut missing = count;
    let mut from = blocks.start;
    while let Some(block) = house.map.next_with_run(1, from, blocks.end).filter(|_| missing > 0) {
        let mut free = usable(house, request, block.0);
        while free.count_ones() > missing {
            free &= !(1 << (63 - free.leading_zeros()));
        }
        if free != 0 {
            parts.push(Part { block, mask: free });
            missing -= free.count_ones();
        }
        from = block.0 + 1;
    }
    missing == 0
}

/// A run of `request.count` free seats of one row, the nearest to its middle; first one that
/// leaves no orphan, if that is asked for and there is one.
fn propose_run(
    house: &House,
    request: BestRequest,
    blocks: Range<u32>,
    parts: &mut Vec<Part>,
) -> bool {
    let layout = house.layout();
    let count = request.count;
    if blocks.len() == 1 && count <= 64 {
        let free = usable(house, request, blocks.start);
        let len = u32::from(layout.block(BlockIndex(blocks.start)).len);
        let Some(start) = best_start(free, len, count, request.avoid_orphans) else {
            return false;
        };
        let mask = (u64::MAX >> (64 - count)) << start;
        parts.push(Part { block: BlockIndex(blocks.start), mask });
        return true;
    }
    let Some(start) = best_start_in_row(house, request, blocks.clone()) else { return false };
    push_run(layout, blocks, start..start + count, parts);
    true
}

/// Where in a block of `len` seats a run of `count` free ones begins best.
fn best_start(free: u64, len: u32, count: u32, avoid_orphans: bool) -> Option<u32> {
    let mut starts = free;
    for shift in 1..count {
        starts &= free >> shift;
        if starts == 0 {
            return None;
        }
    }
    // A seat is an orphan if it is free and neither neighbour is, the run counting as taken.
    let alone_below = free << 1 & !(free << 2);
    let (after, behind) = (free.checked_shr(count), free.checked_shr(count + 1));
    let alone_above = after.unwrap_or(0) & !behind.unwrap_or(0);
    let tidy = starts & !alone_below & !alone_above;
    let starts = if avoid_orphans && tidy != 0 { tidy } else { starts };
    nearest_bit(starts, len.saturating_sub(count) / 2)
}

/// The set bit nearest to `middle`; of two the lower.
fn nearest_bit(bits: u64, middle: u32) -> Option<u32> {
    let upto = u64::MAX >> (63 - middle.min(63));
    let below = (bits & upto).checked_ilog2();
    let above = (bits & !upto != 0).then(|| (bits & !upto).trailing_zeros());
    match (below, above) {
        (Some(below), Some(above)) if above - middle < middle - below => Some(above),
        (below, above) => below.or(above),
    }
}

/// As [`best_start`], for a row of several blocks, by one walk along its runs of free seats.
fn best_start_in_row(house: &House, request: BestRequest, blocks: Range<u32>) -> Option<u32> {
    let layout = house.layout();
    let last = layout.block(BlockIndex(blocks.end - 1));
    let seats = last.start + u32::from(last.len);
    let middle = seats.saturating_sub(request.count) / 2;
    let mut best: Option<(bool, u32, u32)> = None;
    let mut run = 0..0;
    let mut finish = |run: Range<u32>| {
        if (run.len() as u32) < request.count {
            return;
        }
        for start in candidates(&run, request.count, middle) {
            let (before, after) = (start - run.start, run.end - start - request.count);
            let orphan = request.avoid_orphans && (before == 1 || after == 1);
            let rank = (orphan, start.abs_diff(middle), start);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        }
    };
    for block in blocks {
        let free = usable(house, request, block);
        let built = layout.block(BlockIndex(block));
        let mut bit = 0;
        while bit < u32::from(built.len) {
            let rest = free >> bit;
            if rest & 1 == 0 {
                bit += rest.trailing_zeros().clamp(1, 64 - bit);
                finish(run.clone());
                run = 0..0;
                continue;
            }
            let ones = rest.trailing_ones();
            let at = built.start + bit;
            if run.end != at {
                finish(run.clone());
                run = at..at;
            }
            run.end = at + ones;
            bit += ones;
        }
    }
    finish(run);
    best.map(|(_, _, start)| start)
}

/// The starts in a run that can be best: nearest the middle, flush with either end, or two away.
fn candidates(run: &Range<u32>, count: u32, middle: u32) -> impl Iterator<Item = u32> {
    let (first, last) = (run.start, run.end - count);
    let near = middle.clamp(first, last);
    let all =
        [near, near.saturating_sub(1), near + 1, first, last, first + 2, last.saturating_sub(2)];
    all.into_iter().filter(move |start| (first..=last).contains(start))
}

/// The parts of the seats at `positions` of a row.
fn push_run(layout: &Layout, blocks: Range<u32>, positions: Range<u32>, parts: &mut Vec<Part>) {
    for block in blocks {
        let built = layout.block(BlockIndex(block));
        let from = positions.start.max(built.start);
        let end = positions.end.min(built.start + u32::from(built.len));
        if from < end {
            let mask = (u64::MAX >> (64 - (end - from))) << (from - built.start);
            parts.push(Part { block: BlockIndex(block), mask });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_near_the_middle_and_leaves_no_orphan() {
        let full = |len: u32| u64::MAX >> (64 - len);
        assert_eq!(best_start(full(10), 10, 2, false), Some(4));
        assert_eq!(best_start(full(64), 64, 64, true), Some(0));
        assert_eq!(best_start(0b0110_1111, 8, 2, false), Some(2));
        // Starting at 2 leaves nothing alone, starting at 1 would leave seat 0.
        assert_eq!(best_start(0b0000_1111, 8, 2, true), Some(2));
        assert_eq!(best_start(0b0001_1111, 8, 4, true), Some(1));
        assert_eq!(best_start(0b101, 3, 2, false), None);
    }

    #[test]
    fn the_nearest_bit_may_be_on_either_side() {
        assert_eq!(nearest_bit(0b1000_0001, 3), Some(0));
        assert_eq!(nearest_bit(0b1000_0001, 5), Some(7));
        assert_eq!(nearest_bit(1 << 63, 0), Some(63));
        assert_eq!(nearest_bit(0, 5), None);
    }
}
