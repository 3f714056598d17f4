//! The numbers that were passed over and are back: they go first, the lowest of them first.
//!
//! One bit a number and one count for 4,096 of them, so that telling how many are back before a
//! number takes some thousand loads for ten million numbers, and none while nobody is back. Who
//! changes a number's bit has the turn at its entry.

use crate::ids::LineNumber;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::Table;

const WORD_NUMBERS: u32 = 64;
/// Numbers that one count is for.
const GROUP_NUMBERS: u32 = 4_096;
const GROUP_WORDS: u32 = GROUP_NUMBERS / WORD_NUMBERS;

pub(crate) struct Back {
    bits: Table<1>,
    counts: Table<1>,
    all: AtomicU32,
}

// Relaxed throughout: the bits say what to look at, and the word of the entry what is so.
impl Back {
    pub(crate) fn new() -> Back {
        Back { bits: Table::new(), counts: Table::new(), all: AtomicU32::new(0) }
    }

    pub(crate) fn insert(&self, number: LineNumber) {
        let (word, bit) = self.bit(number);
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.counts.row(number.0 / GROUP_NUMBERS)[0].fetch_add(1, Ordering::Relaxed);
            self.all.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, number: LineNumber) {
        let (word, bit) = self.bit(number);
        if word.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
            self.counts.row(number.0 / GROUP_NUMBERS)[0].fetch_sub(1, Ordering::Relaxed);
            self.all.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn bit(&self, number: LineNumber) -> (&AtomicU64, u64) {
        (&self.bits.row(number.0 / WORD_NUMBERS)[0], 1 << (number.0 % WORD_NUMBERS))
    }

    fn word(&self, word: u32) -> u64 {
        self.bits.get(word).map_or(0, |row| row[0].load(Ordering::Relaxed))
    }

    fn count(&self, group: u32) -> u32 {
        self.counts.get(group).map_or(0, |row| row[0].load(Ordering::Relaxed) as u32)
    }

    /// How many are back.
    pub(crate) fn len(&self) -> u32 {
        self.all.load(Ordering::Relaxed)
    }

    /// How many are back before `number`.
    pub(crate) fn before(&self, number: LineNumber) -> u32 {
        if self.len() == 0 {
            return 0;
        }
        let (group, word) = (number.0 / GROUP_NUMBERS, number.0 / WORD_NUMBERS);
        let in_groups: u32 = (0..group).map(|group| self.count(group)).sum();
        let in_words: u32 =
            (group * GROUP_WORDS..word).map(|word| self.word(word).count_ones()).sum();
        let below = (1 << (number.0 % WORD_NUMBERS)) - 1;
        in_groups + in_words + (self.word(word) & below).count_ones()
    }

    /// The lowest that is back, not above `last`.
    pub(crate) fn first(&self, last: LineNumber) -> Option<LineNumber> {
        if self.len() == 0 {
            return None;
        }
        let group = (0..=last.0 / GROUP_NUMBERS).find(|group| self.count(*group) > 0)?;
        let words = group * GROUP_WORDS..(group + 1) * GROUP_WORDS;
        words
            .map(|word| (word, self.word(word)))
            .find(|(_, bits)| *bits != 0)
            .map(|(word, bits)| LineNumber(word * WORD_NUMBERS + bits.trailing_zeros()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn those_before_a_number_are_counted_and_the_lowest_is_first() {
        let back = Back::new();
        let last = LineNumber(10_000_000);
        assert_eq!((back.before(last), back.first(last)), (0, None));
        for number in [9_999_999, 63, 64, 4_096, 4_095, 64] {
            back.insert(LineNumber(number));
        }
        let before = |number| back.before(LineNumber(number));
        assert_eq!([63, 64, 65, 4_095, 4_096, 4_097].map(before), [0, 1, 2, 2, 3, 4]);
        assert_eq!((before(9_999_999), before(10_000_000)), (4, 5));
        for number in [63, 64, 4_095, 4_096, 9_999_999] {
            assert_eq!(back.first(last), Some(LineNumber(number)));
            back.remove(LineNumber(number));
            back.remove(LineNumber(number));
        }
        assert_eq!((back.before(last), back.first(last)), (0, None));
    }
}
