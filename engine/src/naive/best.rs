//! The best seats that are free, by looking at every one.

use super::{House, Naive};
use crate::best::{BEST_SEATS_MAX, BestRequest};
use crate::handle::HoldRequest;
use crate::ids::{BlockIndex, Part, RowIndex, SeatAddr, ShowtimeId, TimeMs};
use crate::layout::Block;
use crate::reject::Reject;

impl Naive {
    /// The seats to take, or every true reason why there are none.
    pub(super) fn choose_best(
        &self,
        showtime: ShowtimeId,
        request: HoldRequest,
        best: BestRequest,
        now: TimeMs,
    ) -> Result<Vec<Part>, Vec<Reject>> {
        let house = &self.houses[&showtime];
        let mut reasons = house.refusals_but_seats(request, best.count, now);
        if !(1..=BEST_SEATS_MAX).contains(&best.count) {
            reasons.push(Reject::TooMany);
        }
        match house.best(best) {
            Ok(seats) if reasons.is_empty() => return Ok(parts(seats)),
            Ok(_) => {}
            Err(reject) => reasons.push(reject),
        }
        Err(reasons)
    }
}

impl House {
    fn best(&self, best: BestRequest) -> Result<Vec<SeatAddr>, Reject> {
        let count = best.count as usize;
        let mut free_in_all = Vec::new();
        for stretch in self.stretches() {
            let free = self.usable(&stretch, best);
            if best.adjacent && stretch.general && free.len() >= count {
                return Ok(free[..count].to_vec());
            }
            if let Some(seats) = best_run(&stretch, &free, best).filter(|_| best.adjacent) {
                return Ok(seats);
            }
            free_in_all.extend(free);
        }
        match free_in_all.len() < count {
            true => Err(Reject::SoldOut),
            false if best.adjacent => Err(Reject::NoAdjacentSeats),
            false => Ok(free_in_all[..count].to_vec()),
        }
    }

    /// Rows and general-admission sections, the nearest to the focal point first; general
    /// admission is as near as the focal point itself.
    fn stretches(&self) -> Vec<Stretch> {
        let layout = &self.layout;
        let row = |row: u32| Stretch {
            general: false,
            distance: layout.rows()[row as usize].distance,
            seats: layout.row_blocks(RowIndex(row)).flat_map(|(b, it)| seats(b, it)).collect(),
        };
        let mut all: Vec<_> = (0..layout.rows().len() as u32).map(row).collect();
        for section in layout.sections().iter().filter(|section| section.general) {
            let blocks = section.blocks.clone().map(BlockIndex);
            let seats = blocks.flat_map(|b| seats(b, layout.block(b))).collect();
            all.push(Stretch { general: true, distance: 0, seats });
        }
        all.sort_by_key(|stretch| (stretch.distance, stretch.seats[0]));
        all
    }

    /// The seats that are free and of the section and tier that are asked for.
    fn usable(&self, stretch: &Stretch, best: BestRequest) -> Vec<SeatAddr> {
        let wanted = |seat: &&SeatAddr| {
            let block = self.layout.block(seat.block());
            !self.taken.contains_key(*seat)
                && best.section.is_none_or(|section| section == block.section)
                && best.tier.is_none_or(|tier| tier == block.tier)
        };
        stretch.seats.iter().filter(wanted).copied().collect()
    }
}

/// The seats of a row, or the places of a section.
struct Stretch {
    general: bool,
    distance: u32,
    seats: Vec<SeatAddr>,
}

/// So many free seats side by side: without leaving a single one beside them, if that matters
/// and can be; then nearest to the middle of the row; then the first.
fn best_run(row: &Stretch, free: &[SeatAddr], best: BestRequest) -> Option<Vec<SeatAddr>> {
    let count = best.count as usize;
    let is_free = |at: usize| row.seats.get(at).is_some_and(|seat| free.contains(seat));
    let middle = row.seats.len().saturating_sub(count) / 2;
    let starts = 0..(row.seats.len() + 1).saturating_sub(count);
    let fits = starts.filter(|start| (*start..start + count).all(is_free));
    let start = fits.min_by_key(|start| {
        let below = *start > 0 && is_free(start - 1) && !(*start > 1 && is_free(start - 2));
        let above = is_free(start + count) && !is_free(start + count + 1);
        (best.avoid_orphans && (below || above), start.abs_diff(middle), *start)
    })?;
    Some(row.seats[start..start + count].to_vec())
}

fn seats(index: BlockIndex, block: &Block) -> impl Iterator<Item = SeatAddr> + use<> {
    Part { block: index, mask: block.full() }.seats()
}

fn parts(mut seats: Vec<SeatAddr>) -> Vec<Part> {
    seats.sort_unstable();
    let mut parts: Vec<Part> = Vec::new();
    for seat in seats {
        let mask = 1 << seat.bit();
        match parts.last_mut() {
            Some(part) if part.block == seat.block() => part.mask |= mask,
            _ => parts.push(Part { block: seat.block(), mask }),
        }
    }
    parts
}
