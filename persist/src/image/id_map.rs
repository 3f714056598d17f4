//! Hash maps by id, faster than the standard ones: an id is one number, and mixing it takes one
//! multiplication. Nothing that is written or compared ever depends on their order.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map whose keys are ids: newtypes of one integer.
pub(super) type IdMap<K, V> = HashMap<K, V, IdState>;

/// Where a map's hashes begin: unknown to whoever chooses ids, as some come from clients.
#[derive(Clone, Debug)]
pub(super) struct IdState {
    seed: u64,
}

impl Default for IdState {
    fn default() -> IdState {
        IdState { seed: RandomState::new().hash_one(0u64) }
    }
}

impl BuildHasher for IdState {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.seed)
    }
}

/// Folds the product of two words, so that every bit of the id reaches every bit of the hash.
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, id: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0 ^ id) * u128::from(ODD);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }
}
