//! Chance from a seed, so that a failing run can be had again: SplitMix64 (Steele, Lea, Flood,
//! "Fast splittable pseudorandom number generators", 2014).

/// A stream of numbers that depends on nothing but its seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed of this run: `TMOMI_TEST_SEED`, or a new one each time; it is printed.
    pub(crate) fn from_environment() -> Random {
        let seed = std::env::var("TMOMI_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("the system has randomness");
            u64::from_le_bytes(bytes)
        });
        eprintln!("to run this again: TMOMI_TEST_SEED={seed}");
        Random(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A stream of its own for somebody else.
    pub(crate) fn split(&mut self) -> Random {
        Random(self.next())
    }

    /// One of `items`, if there is one.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        (!items.is_empty()).then(|| &items[self.below(items.len())])
    }

    /// `count` of `items`, each at most once; fewer if there are fewer.
    pub(crate) fn sample<T: Clone>(&mut self, items: &[T], count: usize) -> Vec<T> {
        let mut rest: Vec<T> = items.to_vec();
        let count = count.min(rest.len());
        for i in 0..count {
            let j = i + self.below(rest.len() - i);
            rest.swap(i, j);
        }
        rest.truncate(count);
        rest
    }
}
