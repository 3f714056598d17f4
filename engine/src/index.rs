//! An index from a number to a slot that only grows: which entry a buyer has.
//!
//! A hash trie of 16-way nodes; a slot of a node is empty, a value, or a further node, and goes
//! from one to the next by CAS. Nothing is ever removed, so nothing has to be reclaimed. (The
//! insert-only part of Bagwell's ideal hash trees, 2001.)

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::Table;

const WAYS_BITS: u32 = 4;
const WAYS: usize = 1 << WAYS_BITS;

/// A slot of a node: 0 is empty, an odd word a value, an even one a node.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Link(u64);

impl Link {
    const EMPTY: Link = Link(0);

    fn value(value: u32) -> Link {
        Link(u64::from(value) << 1 | 1)
    }

    fn node(node: u32) -> Link {
        Link(u64::from(node) << 1)
    }

    fn is_value(self) -> bool {
        self.0 & 1 == 1
    }

    fn number(self) -> u32 {
        (self.0 >> 1) as u32
    }
}

pub(crate) struct Index {
    nodes: Table<WAYS>,
    /// Nodes made so far; node 0 is the root.
    made: AtomicU32,
}

impl Index {
    pub(crate) fn new() -> Index {
        Index { nodes: Table::new(), made: AtomicU32::new(1) }
    }

    /// The value of `key`. `key_of` gives the key of a value.
    pub(crate) fn get(&self, key: u64, key_of: impl Fn(u32) -> u64) -> Option<u32> {
        let mut path = mix(key);
        let mut node = 0;
        loop {
            let way = (path % WAYS as u64) as usize;
            // Acquire pairs with the Release of the CAS in `insert`: what the value stands for
            // was written before.
            let link = Link(self.nodes.get(node)?[way].load(Ordering::Acquire));
            if link == Link::EMPTY {
                return None;
            }
            if link.is_value() {
                return (key_of(link.number()) == key).then_some(link.number());
            }
            node = link.number();
            path >>= WAYS_BITS;
        }
    }

    /// The way to the key, its first turn in the highest bits; no other key has it.
    pub(crate) fn way(key: u64) -> u64 {
        reverse_ways(mix(key))
    }

    /// Puts the values of an index without any, each with the way to its key: node after node, as
    /// each value by itself would wait for the memory of its way.
    ///
    /// # Panics
    ///
    /// If a key has two.
    pub(crate) fn fill(&self, mut values: Vec<(u64, u32)>) {
        values.sort_unstable();
        self.fill_node(0, 0, &values);
    }

    /// Puts the values whose ways have the first `depth` turns in common, to `node`.
    fn fill_node(&self, node: u32, depth: u32, mut values: &[(u64, u32)]) {
        let way = self.nodes.row(node);
        while let [(first, value), ..] = values {
            let skipped = first.checked_shl(WAYS_BITS * depth).expect("a key has one value");
            let turn = (skipped >> (u64::BITS - WAYS_BITS)) as usize;
            let last_in_it = first | u64::MAX >> (WAYS_BITS * depth) >> WAYS_BITS;
            let (these, others) =
                values.split_at(values.partition_point(|(way, _)| *way <= last_in_it));
            let link = if these.len() == 1 {
                Link::value(*value)
            } else {
                let below = self.made.fetch_add(1, Ordering::Relaxed);
                self.fill_node(below, depth + 1, these);
                Link::node(below)
            };
            // Relaxed: nobody else knows the index yet.
            way[turn].store(link.0, Ordering::Relaxed);
            values = others;
        }
    }

    /// The value of `key`; if it has none, the one that `make` makes, which `key_of` must know by
    /// then. If somebody else gave the key a value meanwhile, what was made is left over and comes
    /// second.
    ///
    /// # Errors
    ///
    /// What `make` says.
    pub(crate) fn find_or_insert<E>(
        &self,
        key: u64,
        key_of: impl Fn(u32) -> u64,
        make: impl FnOnce() -> Result<u32, E>,
    ) -> Result<(u32, Option<u32>), E> {
        let mut path = mix(key);
        let mut node = 0;
        // `mix` is a bijection, so two keys part before their 64 bits are used up.
        let mut depth = 1;
        let (mut make, mut made) = (Some(make), None);
        loop {
            let way = &self.nodes.row(node)[(path % WAYS as u64) as usize];
            let link = Link(way.load(Ordering::Acquire));
            if link == Link::EMPTY {
                if let Some(make) = make.take() {
                    made = Some(make()?);
                }
                let value = made.expect("it was made");
                if swap(way, Link::EMPTY, Link::value(value)) {
                    return Ok((value, None));
                }
            } else if !link.is_value() {
                node = link.number();
                path >>= WAYS_BITS;
                depth += 1;
            } else {
                let other = key_of(link.number());
                if other == key {
                    return Ok((link.number(), made));
                }
                // Move the other value one level down; a node that loses the race is not used.
                let below = self.made.fetch_add(1, Ordering::Relaxed);
                let its_way = mix(other) >> (WAYS_BITS * depth) & (WAYS as u64 - 1);
                self.nodes.row(below)[its_way as usize].store(link.0, Ordering::Relaxed);
                swap(way, link, Link::node(below));
            }
        }
    }
}

/// The word with its last `WAYS_BITS` bits first.
fn reverse_ways(path: u64) -> u64 {
    const _: () = assert!(WAYS_BITS == 4);
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let bytes = path.swap_bytes();
    (bytes & LOW) << 4 | bytes >> 4 & LOW
}

fn swap(way: &AtomicU64, from: Link, to: Link) -> bool {
    way.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
fn mix(key: u64) -> u64 {
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Planted: a value is put at the turn before the last; a node has the values of its first
    /// turn only.
    #[test]
    fn filled_at_once_it_is_what_it_is_one_by_one() {
        for count in [0, 1, 2, 17, 3_000] {
            let index = Index::new();
            let key_of = |value: u32| u64::from(value) * 7;
            index.fill((0..count).map(|value| (Index::way(key_of(value)), value)).collect());
            assert!((0..count).all(|value| index.get(key_of(value), key_of) == Some(value)));
            assert_eq!(index.get(8, key_of), None);
            let later = count..count + 3_000;
            for value in later.clone() {
                let put = index.find_or_insert(key_of(value), key_of, || Ok::<_, ()>(value));
                assert_eq!(put, Ok((value, None)));
            }
            let has = |value| index.get(key_of(value), key_of) == Some(value);
            assert!((0..later.end).all(has), "{count}");
        }
    }

    #[test]
    #[should_panic(expected = "a key has one value")]
    fn a_key_with_two_values_is_not_filled_in() {
        Index::new().fill(vec![(Index::way(7), 1), (Index::way(7), 2)]);
    }

    #[test]
    fn a_way_begins_with_the_first_turn() {
        assert_eq!(reverse_ways(0x0123_4567_89ab_cdef), 0xfedc_ba98_7654_3210);
    }

    #[test]
    fn every_key_keeps_its_first_value() {
        let index = Index::new();
        let key_of = |value: u32| u64::from(value) * 7;
        let put = |key, value| {
            let make = || Ok::<_, ()>(value);
            index.find_or_insert(key, key_of, make).expect("it is made")
        };
        for value in 0..10_000 {
            assert_eq!(put(key_of(value), value), (value, None));
        }
        assert_eq!(put(7, 99), (1, None));
        let refused = index.find_or_insert(8, key_of, || Err("no room"));
        assert_eq!(refused, Err("no room"));
        assert!((0..10_000).all(|value| index.get(key_of(value), key_of) == Some(value)));
        assert_eq!(index.get(8, key_of), None);
    }
}
