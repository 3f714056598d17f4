//! From the holds, orders and entries of an image to the words of an engine.
//!
//! Most of it is memory that is touched for the first time, so two threads do it: one makes the
//! lines, the other the slab and the seats. They share nothing but the image.

use std::collections::BTreeMap;

use crate::hold::{Facts, Slab};
use crate::house::House;
use crate::ids::{HoldId, HoldSlot, ShowtimeId, TimeMs, count_seats};
use crate::line::Line;
use crate::state::{HoldState, ShardState, ShowtimeState};
use crate::sync::both;

/// The slab of a state, and the houses in the order of their index.
pub(super) fn slab_and_houses(state: &impl ShardState, now: TimeMs) -> (Slab, Vec<House>) {
    let shows: Vec<ShowtimeState> = state.showtimes().collect();
    if shows.is_empty() {
        return (Slab::with_used(std::iter::empty()), Vec::new());
    }
    let of = HouseOf(shows.iter().map(|show| show.showtime).zip(0..).collect());
    let seats = || {
        let houses = (0..).zip(&shows).map(|(index, show)| House::restore(index, show));
        let houses: Vec<House> = houses.collect();
        (slab(state, &houses, &of), houses)
    };
    let (lines, (slab, mut houses)) = both(|| lines(state, &shows, &of, now), seats);
    for (house, line) in houses.iter_mut().zip(lines) {
        house.line = line;
    }
    (slab, houses)
}

/// The lines of all showtimes, each buyer charged with what he has.
fn lines(state: &impl ShardState, shows: &[ShowtimeState], of: &HouseOf, now: TimeMs) -> Vec<Line> {
    let line = |showtime, last| Line::restore(state.entries(showtime), last, now);
    let shows = shows.iter();
    let lines: Vec<Line> = shows.map(|show| line(show.showtime, show.last_number)).collect();
    let charge = |hold: HoldState<'_>, active| {
        lines[of.get(hold.showtime)].charge(hold.entry, count_seats(hold.parts), active);
    };
    state.holds().for_each(|hold| charge(hold, true));
    state.orders().for_each(|order| charge(order, false));
    lines
}

/// Puts holds and orders into the records where they were, and takes their seats.
fn slab(state: &impl ShardState, houses: &[House], of: &HouseOf) -> Slab {
    let slab = Slab::with_used(state.holds().chain(state.orders()).map(|hold| hold.id.slot));
    let mut spares = Vec::new();
    let mut put = |hold: HoldState<'_>, confirmed| {
        let house = &houses[of.get(hold.showtime)];
        for part in hold.parts {
            house.map.take(std::slice::from_ref(part)).expect("an image has no seat twice");
            house.map.set_sold(*part, confirmed);
        }
        put(&slab, hold, house.index, confirmed, &mut spares);
    };
    state.holds().for_each(|hold| put(hold, false));
    state.orders().for_each(|order| put(order, true));
    slab.spill_all(&mut spares);
    slab
}

/// Puts a hold into its record; `spares` has records for parts beyond its own.
fn put(slab: &Slab, hold: HoldState<'_>, house: u32, confirmed: bool, spares: &mut Vec<HoldSlot>) {
    let facts = Facts { entry: hold.entry, house, created_at: hold.created_at };
    let filled = slab.fill(spares, Slab::records_for(hold.parts.len()) - 1);
    assert!(filled, "the slab has room for the holds it had before");
    let HoldId { slot, seq } = hold.id;
    spares.push(slot);
    let record = slab.new_record(spares);
    slab.make(spares, record, seq, facts, hold.deadline, hold.parts);
    if confirmed {
        slab.restore_confirmed(slot);
    }
}

/// The index of the house of each showtime.
struct HouseOf(BTreeMap<ShowtimeId, usize>);

impl HouseOf {
    fn get(&self, showtime: ShowtimeId) -> usize {
        *self.0.get(&showtime).expect("an image has the showtime of its holds")
    }
}
