//! What a decision is compared with.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seats as bits of words, and nothing else.
pub struct BareMasks {
    words: Box<[AtomicU64]>,
}

impl BareMasks {
    /// `seats` seats, all free.
    pub fn new(seats: u32) -> BareMasks {
        let words = (0..seats.div_ceil(64)).map(|_| AtomicU64::new(u64::MAX)).collect();
        BareMasks { words }
    }

    /// Clears the bit of a seat by one compare-and-swap; `false` if it was clear.
    pub fn take(&self, seat: u32) -> bool {
        let (word, bit) = (&self.words[(seat / 64) as usize], 1 << (seat % 64));
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
        self.words[(seat / 64) as usize].fetch_or(1 << (seat % 64), Ordering::AcqRel);
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

/// The memory operations that a decision cannot do without: the seat's word, the buyer's word, a
/// number, a record of the hold, an event in a ring.
pub struct BareDecisions {
    masks: BareMasks,
    buyers: Box<[AtomicU64]>,
    number: AtomicU64,
    records: Box<[Line]>,
    ring: Box<[Line]>,
    read: Mutex<Reader>,
}

/// Where the ring has been read to, and what came out.
#[derive(Default)]
struct Reader {
    upto: u64,
    events: Vec<[u64; 8]>,
}

/// Slots of the ring, as many as the engine has by default.
const RING_SLOTS: usize = 1 << 17;

impl BareDecisions {
    /// For `seats` seats, `buyers` buyers and `holds` records at a time.
    pub fn new(seats: u32, buyers: u32, holds: u32) -> BareDecisions {
        BareDecisions {
            masks: BareMasks::new(seats),
            buyers: (0..buyers).map(|_| AtomicU64::new(0)).collect(),
            number: AtomicU64::new(0),
            records: (0..holds).map(|_| Line::new()).collect(),
            ring: (0..RING_SLOTS).map(|_| Line::new()).collect(),
            read: Mutex::default(),
        }
    }

    /// Takes a seat for a buyer, noted in record `hold`.
    pub fn hold(&self, seat: u32, buyer: u32, hold: u32) -> bool {
        let buyer = &self.buyers[buyer as usize];
        let seen = buyer.load(Ordering::Relaxed);
        let turn = buyer.compare_exchange(seen, seen | 1, Ordering::Acquire, Ordering::Relaxed);
        if turn.is_err() || !self.masks.take(seat) {
            return false;
        }
        self.records[hold as usize].write(seat.into());
        self.publish();
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
        self.publish();
        self.masks.give_back(seat);
        self.buyers[buyer as usize].fetch_sub(1 << 24, Ordering::Release);
        state.store(0, Ordering::Release);
    }

    /// Copies what was published out of the ring: whoever decides shares the caches with whoever
    /// reads, here as in the engine.
    pub fn drain(&self) {
        let mut read = self.read.lock().expect("nobody panics with it");
        let Reader { upto, events } = &mut *read;
        events.clear();
        let end = self.number.load(Ordering::Acquire);
        for number in *upto + 1..=end {
            let line = &self.ring[number as usize % RING_SLOTS];
            assert_eq!(line.0[0].load(Ordering::Acquire), number, "it was published");
            events.push(std::array::from_fn(|n| line.0[n].load(Ordering::Relaxed)));
        }
        *upto = end;
    }

    fn publish(&self) {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        self.ring[number as usize % RING_SLOTS].write(number);
    }
}

/// What is written first when one thinks of selling seats: who has which, behind a lock.
#[derive(Default)]
pub struct MutexMap(Mutex<HashMap<u32, u32>>);

impl MutexMap {
    /// Takes a seat for a buyer; `false` if it is taken.
    pub fn take(&self, seat: u32, buyer: u32) -> bool {
        let mut map = self.0.lock().expect("nobody panics with it");
        let free = !map.contains_key(&seat);
        if free {
            map.insert(seat, buyer);
        }
        free
    }

    /// Frees a seat.
    pub fn give_back(&self, seat: u32) {
        self.0.lock().expect("nobody panics with it").remove(&seat);
    }
}
