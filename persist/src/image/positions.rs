//! Who is ahead of a number, in time that does not grow with the line.
//!
//! A bit a number says "waits in order". Bits are counted in blocks, blocks in superblocks, and
//! each has the count of what lies before it, so a rank is two loads and the bits of one block:
//!
//! ```text
//! number     1 ............ 1023 | 1024 ......... 2047 | ...        one bit each
//! block            0             |        1            | ... 127    set before it in its super
//! superblock                      0                          | 1    set before it in all
//! ```
//!
//! Whoever joins at the tail changes no count behind it. Whoever is served at the head changes none
//! either: the frontier moves past the number, its bit stays and is counted among `served`. Only a
//! number given up in the middle costs, an add for every block behind it in its superblock and for
//! every superblock behind: some 200 for ten million numbers.

use tmomi_engine::ids::LineNumber;

/// Bits of a word.
const WORD_BITS: u32 = u64::BITS;
/// Words of a block.
const BLOCK_WORDS: usize = 16;
/// Blocks of a superblock: for ten million numbers there are about as many superblocks.
const SUPER_BLOCKS: usize = 128;
/// Every number of a line is below it: as many as the engine gives.
const NUMBERS_MAX: u32 = u32::MAX;

const SUPER_WORDS: usize = SUPER_BLOCKS * BLOCK_WORDS;

/// The numbers of one line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    /// Set for ever once a number was given.
    given: Vec<u64>,
    /// Set while a number waits in order. Below the frontier: left over, see `served`.
    waiting: Vec<u64>,
    /// Bits of `waiting` before each block, within its superblock.
    before_block: Vec<u32>,
    /// Bits of `waiting` before each superblock.
    before_super: Vec<u32>,
    /// No number below it waits in order.
    frontier: u32,
    /// Bits of `waiting` below the frontier.
    served: u32,
    /// The highest number given.
    last: LineNumber,
}

impl Positions {
    /// A line of which `given` and `waiting` are the bits of all numbers.
    ///
    /// `None` if they do not fit together or a bound is passed.
    pub(crate) fn restore(given: Vec<u64>, waiting: Vec<u64>) -> Option<Positions> {
        let sound = given.len() == waiting.len()
            && given.len() <= (NUMBERS_MAX / WORD_BITS) as usize + 1
            && given.last() != Some(&0)
            && given.first().is_none_or(|first| first & 1 == 0)
            && given.iter().zip(&waiting).all(|(given, waiting)| waiting & !given == 0);
        if !sound {
            return None;
        }
        let last = given.last().map_or(0, |word| {
            (given.len() as u32 - 1) * WORD_BITS + WORD_BITS - 1 - word.leading_zeros()
        });
        let mut positions = Positions {
            given,
            waiting,
            before_block: Vec::new(),
            before_super: Vec::new(),
            frontier: 0,
            served: 0,
            last: LineNumber(last),
        };
        positions.recount_from(0);
        Some(positions)
    }

    /// The highest number given, [`LineNumber::NONE`] before the first.
    pub(crate) fn last(&self) -> LineNumber {
        self.last
    }

    /// How many numbers that wait in order are below `number`.
    pub(crate) fn ahead(&self, number: LineNumber) -> u32 {
        match number.0 > self.frontier {
            true => self.rank(number.0) - self.served,
            false => 0,
        }
    }

    /// The bits of the numbers ever given, without zero words at the end.
    pub(crate) fn given_words(&self) -> &[u64] {
        &self.given
    }

    /// The bits of the numbers that wait in order, as many words as of those given.
    pub(crate) fn waiting_words(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().enumerate().map(|(index, word)| {
            let first = index as u32 * WORD_BITS;
            let gone = self.frontier.saturating_sub(first).min(WORD_BITS);
            if gone == WORD_BITS { 0 } else { word & (u64::MAX << gone) }
        })
    }

    /// Whether the number waits in order.
    pub(crate) fn waits(&self, number: LineNumber) -> bool {
        number.0 >= self.frontier && bit_of(&self.waiting, number.0)
    }

    /// The number is taken by somebody who waits. `false` if it was given before or is none.
    #[must_use]
    pub(crate) fn join(&mut self, number: LineNumber) -> bool {
        let n = number.0;
        if n == 0 || n == NUMBERS_MAX || bit_of(&self.given, n) {
            return false;
        }
        let word = (n / WORD_BITS) as usize;
        if word >= self.given.len() {
            self.grow(word + 1);
        }
        self.given[word] |= 1 << (n % WORD_BITS);
        self.last = self.last.max(number);
        if n < self.frontier {
            self.take_back_frontier(n);
        }
        self.waiting[word] |= 1 << (n % WORD_BITS);
        self.shift_behind(n, 1);
        true
    }

    /// The number waits in order no longer: admitted, passed over or given up. `false` if it did
    /// not wait in order.
    #[must_use]
    pub(crate) fn leave(&mut self, number: LineNumber) -> bool {
        if !self.waits(number) {
            return false;
        }
        if self.is_head(number.0) {
            self.frontier = number.0 + 1;
            self.served += 1;
        } else {
            self.waiting[(number.0 / WORD_BITS) as usize] &= !(1 << (number.0 % WORD_BITS));
            self.shift_behind(number.0, -1);
        }
        true
    }

    /// Whether no number between the frontier and `n`, which waits, waits too.
    fn is_head(&self, n: u32) -> bool {
        self.rank(n) == self.served
    }

    /// Bits of `waiting` below `n`.
    fn rank(&self, n: u32) -> u32 {
        let word = ((n / WORD_BITS) as usize).min(self.waiting.len());
        let below = match self.waiting.get(word) {
            Some(bits) => (bits & !(u64::MAX << (n % WORD_BITS))).count_ones(),
            None => 0,
        };
        // A number beyond the last block ranks behind every bit of it.
        let block = (word / BLOCK_WORDS).min(self.before_block.len().saturating_sub(1));
        let whole: u32 =
            self.waiting[block * BLOCK_WORDS..word].iter().map(|bits| bits.count_ones()).sum();
        let before_block = self.before_block.get(block).copied().unwrap_or(0);
        let before_super = self.before_super.get(block / SUPER_BLOCKS).copied().unwrap_or(0);
        before_super + before_block + whole + below
    }

    /// Makes room for `words`; new blocks begin with the counts of all bits before them.
    fn grow(&mut self, words: usize) {
        let (blocks, supers) = (words.div_ceil(BLOCK_WORDS), words.div_ceil(SUPER_WORDS));
        let all = self.rank(NUMBERS_MAX);
        self.given.resize(words, 0);
        self.waiting.resize(words, 0);
        self.before_super.resize(supers, all);
        for block in self.before_block.len()..blocks {
            self.before_block.push(all - self.before_super[block / SUPER_BLOCKS]);
        }
    }

    fn shift_behind(&mut self, n: u32, by: i32) {
        let block = (n / WORD_BITS) as usize / BLOCK_WORDS;
        let behind = block / SUPER_BLOCKS + 1;
        let end = (behind * SUPER_BLOCKS).min(self.before_block.len());
        for count in &mut self.before_block[block + 1..end] {
            *count = count.wrapping_add_signed(by);
        }
        for count in self.before_super.iter_mut().skip(behind) {
            *count = count.wrapping_add_signed(by);
        }
    }

    /// Somebody with the number `n` below the frontier comes late: threads that took numbers at
    /// once may log them in another order. The bits that the frontier left behind from `n` on are
    /// cleared, so that none of them counts as waiting.
    fn take_back_frontier(&mut self, n: u32) {
        for number in n..self.frontier {
            self.waiting[(number / WORD_BITS) as usize] &= !(1 << (number % WORD_BITS));
        }
        self.recount_from((n / WORD_BITS) as usize / BLOCK_WORDS);
        self.frontier = n;
        self.served = self.rank(n);
    }

    /// Counts again what lies before every block after `block`.
    fn recount_from(&mut self, block: usize) {
        let blocks = self.waiting.len().div_ceil(BLOCK_WORDS);
        self.before_block.resize(blocks, 0);
        self.before_super.resize(blocks.div_ceil(SUPER_BLOCKS), 0);
        for next in block + 1..blocks {
            let words = &self.waiting[(next - 1) * BLOCK_WORDS..next * BLOCK_WORDS];
            let bits: u32 = words.iter().map(|bits| bits.count_ones()).sum();
            let before = self.before_block[next - 1] + bits;
            let of = next / SUPER_BLOCKS;
            if next % SUPER_BLOCKS == 0 {
                self.before_super[of] = self.before_super[of - 1] + before;
                self.before_block[next] = 0;
            } else {
                self.before_block[next] = before;
            }
        }
    }
}

fn bit_of(words: &[u64], n: u32) -> bool {
    words.get((n / WORD_BITS) as usize).is_some_and(|word| word >> (n % WORD_BITS) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        /// Take the next number but so many.
        Join(u32),
        /// Serve the head.
        Serve,
        /// Give up the nth that waits.
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..4).prop_map(Step::Join),
            1 => (0u32..3_000).prop_map(Step::Join),
            2 => Just(Step::Serve),
            1 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    fn naive(waiting: &BTreeSet<u32>, number: u32) -> u32 {
        waiting.range(..number).count() as u32
    }

    proptest! {
        #[test]
        fn ahead_is_what_a_naive_count_says(
            steps in proptest::collection::vec(step(), 1..300),
            start in prop_oneof![Just(1u32), 120_000u32..140_000],
        ) {
            let mut positions = Positions::default();
            let (mut given, mut waiting) = (BTreeSet::new(), BTreeSet::new());
            let mut next = start;
            for step in steps {
                match step {
                    Step::Join(skip) => {
                        // One in four comes late: the number is below one that was given.
                        let late = next.saturating_sub(7).max(1);
                        let number = if skip == 3 { late } else { next + skip };
                        next = next.max(number + 1);
                        let fresh = given.insert(number);
                        prop_assert_eq!(positions.join(LineNumber(number)), fresh);
                        if fresh {
                            waiting.insert(number);
                        }
                    }
                    Step::Serve => {
                        if let Some(head) = waiting.pop_first() {
                            prop_assert!(positions.leave(LineNumber(head)));
                        }
                    }
                    Step::Leave(nth) => {
                        let chosen = waiting.iter().nth(nth % waiting.len().max(1)).copied();
                        if let Some(number) = chosen {
                            waiting.remove(&number);
                            prop_assert!(positions.leave(LineNumber(number)));
                            prop_assert!(!positions.leave(LineNumber(number)));
                        }
                    }
                }
                let asked = [1, start, next.saturating_sub(1), next, next + 5_000];
                for number in asked.into_iter().chain(waiting.iter().copied().take(8)) {
                    prop_assert_eq!(positions.ahead(LineNumber(number)), naive(&waiting, number));
                }
            }
            let words: Vec<u64> = positions.waiting_words().collect();
            let again = Positions::restore(positions.given_words().to_vec(), words).unwrap();
            prop_assert_eq!(again.last(), positions.last());
            for number in waiting.iter().copied().chain([next]) {
                prop_assert_eq!(again.ahead(LineNumber(number)), naive(&waiting, number));
            }
        }
    }

    #[test]
    fn a_number_is_given_once_and_zero_is_none() {
        let mut positions = Positions::default();
        assert_eq!(positions.ahead(LineNumber(9)), 0);
        assert!(!positions.join(LineNumber(0)) && !positions.join(LineNumber(NUMBERS_MAX)));
        assert!(positions.join(LineNumber(3)) && !positions.join(LineNumber(3)));
        assert!(positions.leave(LineNumber(3)) && !positions.join(LineNumber(3)));
        assert_eq!(positions.last(), LineNumber(3));
    }
}
