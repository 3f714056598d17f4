//! From an id to the number of what has it, where what has it also says which id it is.
//!
//! A table with eight bytes a place: the number, and so much of the id's hash that other ids are
//! passed over without a look at what they belong to. It is searched from the hash's place on to
//! the first empty one, and ordered by hash, so it grows by being read and written in order.

use std::hash::BuildHasher;

use super::id_map::IdState;

/// Places at first.
const PLACES_MIN: usize = 1 << 4;
/// Of so many places one stays empty at least: a search ends soon.
const EMPTY_ONE_OF: usize = 3;

/// Numbers by id. Nothing is ever removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// A power of two: the hash's upper half and the number plus one; zero is empty.
    places: Vec<u64>,
    len: usize,
    hash_state: IdState,
}

impl Index {
    /// The number of `id`, if `has_id` says so of one.
    #[inline]
    pub(super) fn get(&self, id: u64, has_id: impl Fn(u32) -> bool) -> Option<u32> {
        Some(self.places[self.place_of(id, has_id)?] as u32 - 1)
    }

    /// Gives the id another number and gives the one that it had, as [`get`](Self::get) does.
    pub(super) fn replace(
        &mut self,
        id: u64,
        number: u32,
        has_id: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let Some(at) = self.place_of(id, has_id) else {
            self.insert(id, number);
            return None;
        };
        let before = self.places[at] as u32 - 1;
        self.places[at] = place(self.tag(id), number);
        Some(before)
    }

    /// Puts the number of an id that has none, below `u32::MAX`.
    pub(super) fn insert(&mut self, id: u64, number: u32) {
        if self.places.len() - self.len <= self.places.len() / EMPTY_ONE_OF {
            self.grow((self.places.len() * 2).max(PLACES_MIN));
        }
        self.put(place(self.tag(id), number));
        self.len += 1;
    }

    /// Makes room for `len` ids in all.
    pub(super) fn reserve(&mut self, len: usize) {
        let places = (len + len / (EMPTY_ONE_OF - 1) + 1).next_power_of_two().max(PLACES_MIN);
        if places > self.places.len() {
            self.grow(places);
        }
    }

    /// What stands at the first place of `id`: of no meaning, but it is in the cache then.
    #[inline]
    pub(super) fn touch(&self, id: u64) -> u64 {
        if self.places.is_empty() { 0 } else { self.places[self.first_place(self.tag(id))] }
    }

    #[inline]
    fn place_of(&self, id: u64, has_id: impl Fn(u32) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let tag = self.tag(id);
        let mut at = self.first_place(tag);
        while self.places[at] != 0 {
            if self.places[at] >> 32 == tag && has_id(self.places[at] as u32 - 1) {
                return Some(at);
            }
            at = self.next_place(at);
        }
        None
    }

    #[cold]
    fn grow(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.places, vec![0; places]);
        old.into_iter().filter(|place| *place != 0).for_each(|place| self.put(place));
    }

    fn put(&mut self, place: u64) {
        let mut at = self.first_place(place >> 32);
        while self.places[at] != 0 {
            at = self.next_place(at);
        }
        self.places[at] = place;
    }

    fn tag(&self, id: u64) -> u64 {
        self.hash_state.hash_one(id) >> 32
    }

    fn first_place(&self, tag: u64) -> usize {
        ((tag * self.places.len() as u64) >> 32) as usize
    }

    fn next_place(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

fn place(tag: u64, number: u32) -> u64 {
    tag << 32 | u64::from(number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: a search ends at the end of the table and does not go on at its beginning.
    #[test]
    fn every_id_keeps_its_number_however_the_table_grows() {
        let mut index = Index::default();
        let id_of = |number: u32| u64::from(number) * 7;
        let get = |index: &Index, id| index.get(id, |number| id_of(number) == id);
        for number in 0..20_000 {
            assert_eq!(get(&index, id_of(number)), None);
            index.insert(id_of(number), number);
            if number == 9_000 {
                index.reserve(30_000);
            }
            if number.is_power_of_two() {
                assert!((0..=number).all(|n| get(&index, id_of(n)) == Some(n)), "{number}");
            }
        }
        assert!((0..20_000).all(|n| get(&index, id_of(n)) == Some(n)));
        assert_eq!(get(&index, 8), None);
        assert_eq!(index.replace(7, 99, |number| number == 1), Some(1));
        assert_eq!(index.get(7, |number| number == 99), Some(99));
        assert_eq!(index.replace(8, 98, |_| false), None);
        assert_eq!(index.get(8, |number| number == 98), Some(98));
    }
}
