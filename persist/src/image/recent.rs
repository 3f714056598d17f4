//! What is remembered for a time: by key, forgotten in the order in which it came.

use std::collections::VecDeque;

use tmomi_engine::ids::TimeMs;

use super::id_map::IdMap;

/// How long things are remembered, in ms of the events' time: 24 h, as the contract says.
pub const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1_000;

/// Forgotten at one event at most, so that the first event after a quiet day is not a slow one.
/// More than one event can add, so the backlog shrinks.
const FORGET_MAX: usize = 64;

/// Values by key, oldest first. A key that comes again hides the value before.
#[derive(Clone, Debug)]
pub(crate) struct Recent<T> {
    values: VecDeque<Remembered<T>>,
    /// Where each key is, counted from the first value ever.
    index: IdMap<u64, u64>,
    forgotten: u64,
    values_max: usize,
}

/// A value with its key and the time of the event that brought it.
#[derive(Clone, Debug)]
pub(crate) struct Remembered<T> {
    pub(crate) key: u64,
    pub(crate) at: TimeMs,
    pub(crate) value: T,
}

impl<T> Recent<T> {
    /// Remembers `values_max` values at most; the oldest make room.
    pub(crate) fn new(values_max: usize) -> Recent<T> {
        Recent { values: VecDeque::new(), index: IdMap::default(), forgotten: 0, values_max }
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let at = *self.index.get(&key)? - self.forgotten;
        self.values.get(at as usize).map(|remembered| &remembered.value)
    }

    /// Makes room for `more` values.
    pub(crate) fn reserve(&mut self, more: usize) {
        let more = more.min(self.values_max);
        self.values.reserve(more);
        self.index.reserve(more);
    }

    pub(crate) fn insert(&mut self, key: u64, at: TimeMs, value: T) {
        if self.values.len() == self.values_max {
            self.forget_oldest();
        }
        self.index.insert(key, self.forgotten + self.values.len() as u64);
        self.values.push_back(Remembered { key, at, value });
    }

    /// Forgets what is too old at `now`, a bounded number at a time.
    pub(crate) fn forget(&mut self, now: TimeMs) {
        for _ in 0..FORGET_MAX {
            match self.values.front() {
                Some(oldest) if now.since_ms(oldest.at) >= REMEMBERED_MS => self.forget_oldest(),
                _ => return,
            }
        }
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Remembered<T>> {
        self.values.iter()
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.values.pop_front() else { return };
        if self.index.get(&oldest.key) == Some(&self.forgotten) {
            self.index.remove(&oldest.key);
        }
        self.forgotten += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_after_a_day_or_when_there_are_too_many() {
        let mut recent = Recent::new(3);
        recent.insert(1, TimeMs(0), 'a');
        recent.insert(2, TimeMs(10), 'b');
        recent.insert(1, TimeMs(20), 'c');
        recent.forget(TimeMs(REMEMBERED_MS - 1));
        assert_eq!((recent.get(1), recent.get(2)), (Some(&'c'), Some(&'b')));
        recent.forget(TimeMs(REMEMBERED_MS + 10));
        assert_eq!((recent.get(1), recent.get(2)), (Some(&'c'), None));
        for key in 3..6 {
            recent.insert(key, TimeMs(30), 'd');
        }
        assert_eq!((recent.get(1), recent.iter().len()), (None, 3));
    }
}
