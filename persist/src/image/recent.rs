//! What is remembered for a time: by key, forgotten in the order in which it came.
//!
//! Values stand in segments, in the order in which they came. Each segment has an index of its own,
//! 2 MiB at most, which is only ever added to:
//!
//! ```text
//! segments   [ .. forgotten | values ] [ values ] [ values, growing ]
//!               index           index      index
//! ```
//!
//! So to remember is one write at the end and one in a small table; to forget is to count on, and
//! a segment of which nothing is left is the next one to be filled. Who looks for a key asks every
//! segment, newest first, four of them a million values.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use tmomi_engine::ids::TimeMs;

use super::id_map::IdState;

/// How long things are remembered, in ms of the events' time: 24 h, as the contract says.
pub const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// Forgotten at one event at most, so that the first event after a quiet day is not a slow one.
/// More than one event can add, so the backlog shrinks.
const FORGET_MAX: usize = 64;

/// Values of a segment at most.
const SEGMENT_VALUES: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
/// Buckets of a segment's index at first.
const BUCKETS_MIN: usize = 1 << 4;
/// Buckets for each value at least: a search in an index passes few values that are others.
const BUCKETS_A_VALUE: usize = 2;

/// Low bits of a bucket: the number of the value in its segment, plus one. Those above are of the
/// key's hash. A bucket of zero is empty.
const NUMBER_BITS: u32 = 19;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;

const _: () = assert!(SEGMENT_VALUES < 1 << NUMBER_BITS);

/// What is remembered: by which key, and the time of the event that brought it.
pub(crate) trait Remembered {
    /// The key.
    fn key(&self) -> u64;
    /// When it came.
    fn at(&self) -> TimeMs;
}

/// Values by key, oldest first. A key that comes again hides the value before.
#[derive(Clone, Debug)]
pub(crate) struct Recent<T> {
    segments: VecDeque<Segment<T>>,
    /// Values of the first segment that are forgotten.
    forgotten: usize,
    len: usize,
    values_max: usize,
    /// When the oldest came; the end of time if there is none.
    oldest_at: TimeMs,
    /// A segment of which nothing is left; its memory is used again.
    spare: Option<Segment<T>>,
    hash_state: IdState,
}

impl<T: Remembered> Recent<T> {
    /// Remembers `values_max` values at most; the oldest make room.
    pub(crate) fn new(values_max: usize) -> Recent<T> {
        Recent {
            segments: VecDeque::new(),
            forgotten: 0,
            len: 0,
            values_max,
            oldest_at: TimeMs(u64::MAX),
            spare: None,
            hash_state: IdState::default(),
        }
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let hash = self.hash(key);
        let (first, rest) = (self.segments.front()?, self.segments.iter().skip(1));
        let of_rest = rest.rev().find_map(|segment| segment.newest(key, hash, 0));
        of_rest.or_else(|| first.newest(key, hash, self.forgotten))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) {
        if self.len == self.values_max {
            self.forget_oldest();
        }
        if self.len == 0 {
            self.oldest_at = value.at();
        }
        if self.segments.back().is_none_or(Segment::is_full) {
            let next = self.spare.take().unwrap_or_else(|| Segment::new(self.len > 0));
            self.segments.push_back(next);
        }
        let hash = self.hash(value.key());
        let segment = self.segments.back_mut().expect("one with room is the last");
        segment.push(value, hash, &self.hash_state);
        self.len += 1;
    }

    /// Forgets what is too old at `now`, a bounded number at a time.
    #[inline]
    pub(crate) fn forget(&mut self, now: TimeMs) {
        if now.since_ms(self.oldest_at) >= REMEMBERED_MS {
            self.forget_some(now);
        }
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flat_map(|segment| &segment.values).skip(self.forgotten)
    }

    fn forget_some(&mut self, now: TimeMs) {
        for _ in 0..FORGET_MAX {
            if now.since_ms(self.oldest_at) < REMEMBERED_MS {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if self.len == 0 {
            return;
        }
        self.len -= 1;
        self.forgotten += 1;
        if self.segments[0].values.len() == self.forgotten {
            self.forgotten = 0;
            self.spare = self.segments.pop_front().map(Segment::emptied);
        }
        let oldest = self.segments.front().map(|segment| segment.values[self.forgotten].at());
        self.oldest_at = oldest.unwrap_or(TimeMs(u64::MAX));
    }

    /// Loads where the next value of `key` will be entered: of no meaning, but it is in the cache
    /// then.
    #[inline]
    pub(crate) fn touch(&self, key: u64) -> u64 {
        self.segments.back().map_or(0, |segment| segment.touch(self.hash(key)))
    }

    fn hash(&self, key: u64) -> u64 {
        self.hash_state.hash_one(key)
    }
}

/// Some values in their order, and where each key is among them.
#[derive(Clone, Debug)]
struct Segment<T> {
    values: Vec<T>,
    /// A power of two. Searched from the hash's bucket on to the first that is empty.
    buckets: Vec<u32>,
}

impl<T: Remembered> Segment<T> {
    /// With all its room if it is not the first: more will come then, too.
    fn new(is_further: bool) -> Segment<T> {
        let (values, buckets) = match is_further {
            true => (SEGMENT_VALUES, SEGMENT_VALUES * BUCKETS_A_VALUE),
            false => (0, BUCKETS_MIN),
        };
        Segment { values: Vec::with_capacity(values), buckets: vec![0; buckets] }
    }

    fn is_full(&self) -> bool {
        self.values.len() == SEGMENT_VALUES
    }

    fn emptied(mut self) -> Segment<T> {
        self.values.clear();
        self.buckets.fill(0);
        self
    }

    #[inline]
    fn push(&mut self, value: T, hash: u64, hash_state: &IdState) {
        if self.buckets.len() < (self.values.len() + 1) * BUCKETS_A_VALUE {
            self.grow(hash_state);
        }
        self.values.push(value);
        self.enter(self.values.len() as u32, hash);
    }

    fn touch(&self, hash: u64) -> u64 {
        self.buckets[hash as usize & (self.buckets.len() - 1)].into()
    }

    /// Puts the number of a value, plus one, where its key is looked for. A value before it with
    /// the same key is not found any more.
    #[inline]
    fn enter(&mut self, number: u32, hash: u64) {
        let key = self.values[number as usize - 1].key();
        let at = self.bucket(key, hash);
        self.buckets[at] = tag(hash) | number;
    }

    /// The bucket of the key, or the empty one where it belongs.
    #[inline]
    fn bucket(&self, key: u64, hash: u64) -> usize {
        let mask = self.buckets.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let bucket = self.buckets[at];
            let is_it = || self.values[(bucket & NUMBER_MASK) as usize - 1].key() == key;
            if bucket == 0 || bucket & !NUMBER_MASK == tag(hash) && is_it() {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self, hash_state: &IdState) {
        self.buckets = vec![0; self.buckets.len() * 2];
        for index in 0..self.values.len() {
            self.enter(index as u32 + 1, hash_state.hash_one(self.values[index].key()));
        }
    }

    /// The newest value of `key` but for the first `forgotten`.
    fn newest(&self, key: u64, hash: u64, forgotten: usize) -> Option<&T> {
        let bucket = self.buckets[self.bucket(key, hash)];
        let index = ((bucket & NUMBER_MASK) as usize).checked_sub(1)?;
        (index >= forgotten).then(|| &self.values[index])
    }
}

/// The bits of a hash that a bucket has, in their place.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & !NUMBER_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Value(u64, TimeMs, u32);

    impl Remembered for Value {
        fn key(&self) -> u64 {
            self.0
        }

        fn at(&self) -> TimeMs {
            self.1
        }
    }

    fn value(key: u64, at_ms: u64, what: u32) -> Value {
        Value(key, TimeMs(at_ms), what)
    }

    #[test]
    fn the_oldest_is_forgotten_after_a_day_or_when_there_are_too_many() {
        let mut recent = Recent::new(3);
        recent.insert(value(1, 0, 1));
        recent.insert(value(2, 10, 2));
        recent.insert(value(1, 20, 3));
        recent.forget(TimeMs(REMEMBERED_MS - 1));
        let what = |recent: &Recent<Value>, key| recent.get(key).map(|value| value.2);
        assert_eq!((what(&recent, 1), what(&recent, 2)), (Some(3), Some(2)));
        recent.forget(TimeMs(REMEMBERED_MS + 10));
        assert_eq!((what(&recent, 1), what(&recent, 2)), (Some(3), None));
        for key in 3..6 {
            recent.insert(value(key, 30, 4));
        }
        assert_eq!((what(&recent, 1), recent.len()), (None, 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Planted: the number of those forgotten is not set back with a segment; a key's first
        /// value in a segment is found before its last.
        #[test]
        fn over_several_segments_it_is_what_a_list_says(
            values_max in SEGMENT_VALUES / 2..SEGMENT_VALUES * 2,
            keys in 1_000_u64..100_000,
            runs in proptest::collection::vec((1..SEGMENT_VALUES, 0..REMEMBERED_MS), 1..8),
        ) {
            let (mut recent, mut list) = (Recent::new(values_max), VecDeque::new());
            let (mut now, mut what) = (0, 0);
            for (count, pause_ms) in runs {
                now += pause_ms;
                for _ in 0..count {
                    what += 1;
                    let value = value(u64::from(what).wrapping_mul(0x9e37_79b9) % keys, now, what);
                    if list.len() == values_max {
                        list.pop_front();
                    }
                    list.push_back(value.clone());
                    recent.insert(value);
                    let is_old = |old: &Value| now - old.1.0 >= REMEMBERED_MS;
                    for _ in 0..FORGET_MAX {
                        list.pop_front_if(|old| is_old(old));
                    }
                    recent.forget(TimeMs(now));
                }
                prop_assert_eq!(recent.len(), list.len());
                prop_assert!(recent.iter().eq(&list));
                for key in (0..keys).step_by(997) {
                    let newest = list.iter().rev().find(|value| value.0 == key);
                    prop_assert_eq!(recent.get(key), newest);
                }
            }
        }
    }
}
