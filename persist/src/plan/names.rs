//! Many short names in little memory: one text with offsets, a hash index of four bytes a name,
//! and the rule by which equal names are told apart.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// Names in the order they came, in one piece of text.
#[derive(Debug, Default)]
pub(super) struct Arena {
    text: String,
    /// Where each name ends; it begins where the one before ends.
    ends: Vec<u32>,
}

impl Arena {
    pub(super) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(u32::try_from(self.text.len()).expect("a plan's text is below 4 GiB"));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Name `index`. Panics if there is none.
    pub(super) fn get(&self, index: u32) -> &str {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[index] as usize]
    }

    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// Finds a name's place in an [`Arena`]: open addressing with linear steps, at most half full.
/// The keys are hashed with the standard library's keyed hash, so that nobody can make a plan or
/// a request whose names all collide.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A place plus one; 0 is empty. The length is a power of two, or 0 without any name.
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Index {
    /// The index of all names of `arena`; the place of a name that is there a second time.
    pub(super) fn build(arena: &Arena) -> Result<Index, u32> {
        let names = arena.len();
        if names == 0 {
            return Ok(Index::default());
        }
        let slots = vec![0; (names * 2).next_power_of_two()];
        let mut index = Index { slots, hasher: RandomState::new() };
        for place in 0..names as u32 {
            match index.probe(arena, arena.get(place)) {
                Ok(_) => return Err(place),
                Err(slot) => index.slots[slot] = place + 1,
            }
        }
        Ok(index)
    }

    /// The place of `name` in `arena`, which must be the one that the index was built of.
    pub(super) fn find(&self, arena: &Arena, name: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        self.probe(arena, name).ok()
    }

    /// The place of `name`, or the empty slot where it would stand.
    fn probe(&self, arena: &Arena, name: &str) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(name) as usize & mask;
        // At most half of the slots are used, so an empty one ends the loop.
        loop {
            match self.slots[slot].checked_sub(1) {
                None => return Err(slot),
                Some(place) if arena.get(place) == name => return Ok(place),
                Some(_) => slot = (slot + 1) & mask,
            }
        }
    }
}

/// The names with ` (2)`, ` (3)` and so on behind those that came before or are in `reserved`.
/// A name that is there once and not reserved stays as it is.
pub(super) fn told_apart<'a>(
    names: &[Cow<'a, str>],
    reserved: impl Fn(usize, &str) -> bool,
) -> Vec<Cow<'a, str>> {
    let given: HashSet<&str> = names.iter().map(Cow::as_ref).collect();
    let mut first: HashSet<&str> = HashSet::with_capacity(names.len());
    let mut made: HashSet<String> = HashSet::new();
    let mut tried: HashMap<&str, u32> = HashMap::new();
    let mut apart = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        if first.insert(name) && !reserved(index, name) {
            apart.push(name.clone());
            continue;
        }
        // The numbers of one name go on where they stopped, so this does not grow with the
        // square of the names.
        let number = tried.entry(name).or_insert(1);
        let free = loop {
            *number += 1;
            let candidate = format!("{name} ({number})");
            let taken = given.contains(candidate.as_str()) || made.contains(&candidate);
            if !taken && !reserved(index, &candidate) {
                break candidate;
            }
        };
        made.insert(free.clone());
        apart.push(Cow::Owned(free));
    }
    apart
}

/// The number that `text` is, if it is written the one way that the computed seat ids have:
/// digits without a sign or a leading zero, from 1.
pub(super) fn canonical(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_told_apart_and_others_left_alone() {
        let names = ["A", "B", "A", "A (2)", "A"].map(Cow::Borrowed);
        let apart = told_apart(&names, |_, name| name == "B");
        assert_eq!(apart, ["A", "B (2)", "A (3)", "A (2)", "A (4)"]);
    }

    #[test]
    fn an_index_finds_every_name_and_names_the_one_that_is_there_twice() {
        let mut arena = Arena::default();
        (0..1_000).for_each(|n| arena.push(&format!("seat-{n}")));
        let index = Index::build(&arena).unwrap();
        assert!((0..1_000).all(|n| index.find(&arena, &format!("seat-{n}")) == Some(n)));
        assert_eq!(index.find(&arena, "seat-1000"), None);
        arena.push("seat-7");
        assert_eq!(Index::build(&arena).unwrap_err(), 1_000);
        assert_eq!(Index::default().find(&Arena::default(), ""), None);
    }

    #[test]
    fn only_one_spelling_of_a_number_is_a_number() {
        assert_eq!(canonical("16777216"), Some(16_777_216));
        for text in ["", "0", "07", "+7", "-7", " 7", "7 ", "4294967296", "٣"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
