//! The memory operations that a decision cannot do without.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seats as bits of words, and nothing else.
pub struct BareMasks {
    words: Box<[AtomicU64]>,
    /// Bits of a word that are seats: 64, or 1 for a word a seat.
    seats_per_word: u32,
}

impl BareMasks {
    /// `seats` seats, all free, a bit each.
    pub fn new(seats: u32) -> BareMasks {
        BareMasks::of(seats, 64)
    }

    /// `seats` seats, all free, a word each.
    pub fn of_words(seats: u32) -> BareMasks {
        BareMasks::of(seats, 1)
    }

    fn of(seats: u32, seats_per_word: u32) -> BareMasks {
        let words = (0..seats.div_ceil(seats_per_word)).map(|_| AtomicU64::new(u64::MAX));
        BareMasks { words: words.collect(), seats_per_word }
    }

    fn place(&self, seat: u32) -> (&AtomicU64, u64) {
        let word = &self.words[(seat / self.seats_per_word) as usize];
        (word, 1 << (seat % self.seats_per_word))
    }

    /// Whether a seat is free, by one load.
    pub fn is_free(&self, seat: u32) -> bool {
        let (word, bit) = self.place(seat);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// Clears the bit of a seat by one compare-and-swap; `false` if it was clear.
    pub fn take(&self, seat: u32) -> bool {
        let (word, bit) = self.place(seat);
        let mut seen = word.load(Ordering::Relaxed);
        while seen & bit != 0 {
            let left = seen & !bit;
            match word.compare_exchange_weak(seen, left, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Sets the bit of a seat.
    pub fn give_back(&self, seat: u32) {
        let (word, bit) = self.place(seat);
        word.fetch_or(bit, Ordering::AcqRel);
    }
}

/// Words on one cache line, written like a record.
#[repr(align(64))]
struct Line([AtomicU64; 8]);

impl Line {
    fn new() -> Line {
        Line([const { AtomicU64::new(0) }; 8])
    }

    fn write(&self, number: u64) {
        let (first, rest) = self.0.split_first().expect("eight words");
        rest.iter().for_each(|word| word.store(number, Ordering::Relaxed));
        first.store(number, Ordering::Release);
    }
}

/// Events, a number and a line each.
pub struct RingOfLines {
    number: CachePadded,
    lines: Box<[Line]>,
    read: Mutex<Reader>,
}

/// Where the ring has been read to, and what came out.
#[derive(Default)]
struct Reader {
    upto: u64,
    events: Vec<[u64; 8]>,
}

type CachePadded = crossbeam::utils::CachePadded<AtomicU64>;

/// Slots of the ring, as many as the engine has by default.
const RING_SLOTS: usize = 1 << 17;

impl Default for RingOfLines {
    fn default() -> RingOfLines {
        RingOfLines {
            number: CachePadded::default(),
            lines: (0..RING_SLOTS).map(|_| Line::new()).collect(),
            read: Mutex::default(),
        }
    }
}

impl RingOfLines {
    /// Writes an event, and gives its number.
    pub fn publish(&self) -> u64 {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        self.lines[number as usize % RING_SLOTS].write(number);
        number
    }

    /// Copies what was published out of the ring: whoever decides shares the caches with whoever
    /// reads, here as in the engine.
    pub fn drain(&self) {
        let mut read = self.read.lock().expect("nobody panics with it");
        let Reader { upto, events } = &mut *read;
        events.clear();
        let end = self.number.load(Ordering::Acquire);
        for number in *upto + 1..=end {
            let line = &self.lines[number as usize % RING_SLOTS];
            assert_eq!(line.0[0].load(Ordering::Acquire), number, "it was published");
            events.push(std::array::from_fn(|n| line.0[n].load(Ordering::Relaxed)));
        }
        *upto = end;
    }
}

/// The seat's word, the buyer's word, a number, a record of the hold, an event in a ring.
pub struct BareDecisions {
    masks: BareMasks,
    buyers: Box<[AtomicU64]>,
    records: Box<[Line]>,
    ring: RingOfLines,
}

impl BareDecisions {
    /// For these seats, `buyers` buyers and `holds` records at a time.
    pub fn new(masks: BareMasks, buyers: u32, holds: u32) -> BareDecisions {
        BareDecisions {
            masks,
            buyers: (0..buyers).map(|_| AtomicU64::new(0)).collect(),
            records: (0..holds).map(|_| Line::new()).collect(),
            ring: RingOfLines::default(),
        }
    }

    /// Takes a seat for a buyer, noted in record `hold`.
    pub fn hold(&self, seat: u32, buyer: u32, hold: u32) -> bool {
        let buyer = &self.buyers[buyer as usize];
        let seen = buyer.load(Ordering::Relaxed);
        let turn = buyer.compare_exchange(seen, seen | 1, Ordering::Acquire, Ordering::Relaxed);
        if turn.is_err() {
            return false;
        }
        if !self.masks.take(seat) {
            buyer.fetch_sub(1, Ordering::Release);
            return false;
        }
        self.records[hold as usize].write(seat.into());
        self.ring.publish();
        // The seat counted and the turn ended at once.
        buyer.fetch_add((1 << 24) - 1, Ordering::Release);
        true
    }

    /// Frees the seat again.
    pub fn release(&self, seat: u32, buyer: u32, hold: u32) {
        let state = &self.records[hold as usize].0[0];
        let seen = state.load(Ordering::Acquire);
        let owned = state.compare_exchange(seen, u64::MAX, Ordering::Acquire, Ordering::Relaxed);
        assert!(owned.is_ok(), "nobody else is here");
        self.ring.publish();
        self.masks.give_back(seat);
        self.buyers[buyer as usize].fetch_sub(1 << 24, Ordering::Release);
        state.store(0, Ordering::Release);
    }

    /// Reads the ring.
    pub fn drain(&self) {
        self.ring.drain();
    }
}
