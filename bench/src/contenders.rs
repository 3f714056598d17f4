//! Ways to hold seats, behind one trait: the engine and what it is compared with, all doing the
//! same work: seat, buyer's account, number, record, event.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{HoldId, Part};
use tmomi_engine::naive::Naive;
use tmomi_engine::{Context, Handle, HoldRequest, House};

use crate::baseline::{BareDecisions, RingOfLines};
use crate::sale::{BUYERS, FastSale, NOW, SHOW, naive_sale, request, seat};

/// A seat, and the buyer who wants it.
pub type Want = (u32, u32);
/// Holds what it is given and remembers what it got.
pub type Worker<'a> = Box<dyn FnMut(&[Want]) + Send + 'a>;

/// Something that holds seats.
pub trait Contender {
    /// One worker for each of so many threads.
    fn workers(&mut self, threads: usize) -> Vec<Worker<'_>>;

    /// Gives back what was held, in the order in which it was.
    fn give_back(&mut self);

    /// Reads the ring.
    fn drain(&mut self);
}

/// A round of the contender: each list by a worker of its own, all at the same time.
pub fn time_round(contender: &mut dyn Contender, wants: &[Vec<Want>]) -> Duration {
    let took = time(contender.workers(wants.len()), wants);
    contender.give_back();
    contender.drain();
    took
}

/// Lets each worker have its list and a core, all at once; from the first start to the last end.
#[allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]
pub fn time(workers: Vec<Worker<'_>>, wants: &[Vec<Want>]) -> Duration {
    assert_eq!(workers.len(), wants.len(), "each has a list");
    let barrier = Barrier::new(wants.len());
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let mut all = Vec::new();
        for (nth, (mut worker, wants)) in workers.into_iter().zip(wants).enumerate() {
            let barrier = &barrier;
            all.push(scope.spawn(move || {
                pin(nth);
                barrier.wait();
                let start = Instant::now();
                worker(wants);
                (start, Instant::now())
            }));
        }
        all.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    });
    let start = spans.iter().map(|(start, _)| *start).min();
    let end = spans.iter().map(|(_, end)| *end).max();
    let (start, end) = start.zip(end).expect("there is a worker");
    end - start
}

/// Keeps the thread on the `nth` core that it may use, if there are so many: a round is over before
/// the system would have moved two threads of one core apart.
fn pin(nth: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let Some(core) = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(nth) else {
        return;
    };
    let mut own = CpuSet::new();
    own.set(core);
    let _ = sched_setaffinity(None, &own);
}

/// The engine, one request at a time or several preloaded together.
pub struct Fast {
    sale: FastSale,
    threads: Vec<(Handle, Vec<HoldId>)>,
    preloaded: usize,
}

impl Fast {
    /// A house of so many seats; `preloaded` requests are looked at together, 1 for each alone.
    pub fn new(seats: u32, preloaded: usize) -> Fast {
        Fast { sale: FastSale::open(seats), threads: Vec::new(), preloaded }
    }
}

/// Holds by a handle what it can.
fn hold_all(
    house: &House,
    handle: &mut Handle,
    held: &mut Vec<HoldId>,
    wants: &[(HoldRequest, [Part; 1])],
) {
    for (request, parts) in wants {
        if let Ok(one) = handle.hold(house, *request, parts, Context::at(NOW)) {
            held.push(one.id);
        }
    }
}

fn fast_worker<'a>(
    house: &'a House,
    handle: &'a mut Handle,
    held: &'a mut Vec<HoldId>,
    preloaded: usize,
) -> Worker<'a> {
    if preloaded == 1 {
        return Box::new(move |wants| {
            for (n, buyer) in wants {
                hold_all(house, handle, held, &[(request(*buyer), [seat(*n)])]);
            }
        });
    }
    Box::new(move |wants| {
        for wants in wants.chunks(preloaded) {
            let some = wants.iter().map(|(n, buyer)| (request(*buyer), [seat(*n)]));
            let some: Vec<_> = some.collect();
            house.preload(some.iter().map(|(request, parts)| (request.entry, &parts[..])));
            hold_all(house, handle, held, &some);
        }
    })
}

impl Contender for Fast {
    fn workers(&mut self, threads: usize) -> Vec<Worker<'_>> {
        let Fast { sale, threads: all, preloaded } = self;
        while all.len() < threads {
            all.push((sale.engine.handle().expect("64 are enough"), Vec::new()));
        }
        let (house, preloaded) = (&*sale.house, *preloaded);
        let mut workers = Vec::new();
        for (handle, held) in all.iter_mut().take(threads) {
            workers.push(fast_worker(house, handle, held, preloaded));
        }
        workers
    }

    fn give_back(&mut self) {
        for (handle, held) in &mut self.threads {
            for id in held.drain(..) {
                handle.release(id, Context::at(NOW)).expect("it is active");
            }
        }
    }

    fn drain(&mut self) {
        self.sale.drain();
    }
}

/// The memory operations that a hold cannot do without, and nothing else; with a bit a seat, as
/// the engine has it, or a word.
pub struct Bare {
    sale: BareDecisions,
    held: Vec<Vec<(u32, u32, u32)>>,
    records_each: u32,
}

impl Bare {
    /// For rounds of at most `round` holds by at most `threads` threads.
    pub fn new(sale: BareDecisions, threads: u32, round: u32) -> Bare {
        let held = (0..threads).map(|_| Vec::new()).collect();
        Bare { sale, held, records_each: round / threads }
    }
}

impl Contender for Bare {
    fn workers(&mut self, threads: usize) -> Vec<Worker<'_>> {
        let Bare { sale, held, records_each } = self;
        let (sale, records_each) = (&*sale, *records_each);
        let mut workers: Vec<Worker<'_>> = Vec::new();
        for (n, held) in held.iter_mut().take(threads).enumerate() {
            workers.push(Box::new(move |wants| {
                let mut record = n as u32 * records_each;
                for (seat, buyer) in wants {
                    if sale.hold(*seat, *buyer, record) {
                        held.push((*seat, *buyer, record));
                        record += 1;
                    }
                }
            }));
        }
        workers
    }

    fn give_back(&mut self) {
        for (seat, buyer, record) in self.held.iter_mut().flat_map(|held| held.drain(..)) {
            self.sale.release(seat, buyer, record);
        }
    }

    fn drain(&mut self) {
        self.sale.drain();
    }
}

/// The naive engine behind a lock.
pub struct Locked<L> {
    lock: L,
    held: Vec<Vec<HoldId>>,
}

/// A lock around the naive engine.
pub trait Lock: Sync {
    /// Runs `act` while it is locked.
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R;
}

impl Lock for std::sync::Mutex<Naive> {
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R {
        act(&mut self.lock().expect("nobody panics with it"))
    }
}

impl Lock for parking_lot::Mutex<Naive> {
    fn with<R>(&self, act: impl FnOnce(&mut Naive) -> R) -> R {
        act(&mut self.lock())
    }
}

impl<L: Lock> Locked<L> {
    /// A house of so many seats behind the lock that `lock` makes.
    pub fn new(seats: u32, lock: impl FnOnce(Naive) -> L) -> Locked<L> {
        Locked { lock: lock(naive_sale(seats)), held: Vec::new() }
    }
}

impl<L: Lock> Contender for Locked<L> {
    fn workers(&mut self, threads: usize) -> Vec<Worker<'_>> {
        self.held.resize_with(threads.max(self.held.len()), Vec::new);
        let lock = &self.lock;
        let mut workers: Vec<Worker<'_>> = Vec::new();
        for held in self.held.iter_mut().take(threads) {
            workers.push(Box::new(move |wants| {
                for (n, buyer) in wants {
                    let (request, parts) = (request(*buyer), [seat(*n)]);
                    let at = Context::at(NOW);
                    if let Ok(one) = lock.with(|naive| naive.hold(SHOW, request, &parts, at)) {
                        held.push(one.id);
                    }
                }
            }));
        }
        workers
    }

    fn give_back(&mut self) {
        for id in self.held.iter_mut().flat_map(|held| held.drain(..)) {
            let released = self.lock.with(|naive| naive.release(id, Context::at(NOW)));
            released.expect("it is active");
        }
    }

    fn drain(&mut self) {
        self.lock.with(|naive| naive.drain(&mut Batch::default()));
    }
}

/// Seats and buyers in sharded maps.
pub struct Sharded {
    /// What a hold's record says: the buyer, the number, the deadline.
    seats: DashMap<u32, (u32, u64, u64)>,
    buyers: DashMap<u32, u64>,
    ring: RingOfLines,
    held: Vec<Vec<Want>>,
}

impl Default for Sharded {
    fn default() -> Sharded {
        let buyers = (0..BUYERS).map(|buyer| (buyer, 0)).collect();
        Sharded { seats: DashMap::new(), buyers, ring: RingOfLines::default(), held: Vec::new() }
    }
}

impl Contender for Sharded {
    fn workers(&mut self, threads: usize) -> Vec<Worker<'_>> {
        self.held.resize_with(threads.max(self.held.len()), Vec::new);
        let Sharded { seats, buyers, ring, held } = self;
        let (seats, buyers, ring) = (&*seats, &*buyers, &*ring);
        let mut workers: Vec<Worker<'_>> = Vec::new();
        for held in held.iter_mut().take(threads) {
            workers.push(Box::new(move |wants| {
                for (seat, buyer) in wants {
                    let mut account = buyers.get_mut(buyer).expect("all are there");
                    let Entry::Vacant(place) = seats.entry(*seat) else { continue };
                    place.insert((*buyer, ring.publish(), NOW.0));
                    *account += 1;
                    held.push((*seat, *buyer));
                }
            }));
        }
        workers
    }

    fn give_back(&mut self) {
        for (seat, buyer) in self.held.iter_mut().flat_map(|held| held.drain(..)) {
            self.seats.remove(&seat);
            *self.buyers.get_mut(&buyer).expect("all are there") -= 1;
            self.ring.publish();
        }
    }

    fn drain(&mut self) {
        self.ring.drain();
    }
}

/// Looks for `count` neighbours of a row of 64 from the first row on, as one does without a
/// summary; where the run begins.
pub fn scan(rows: &[AtomicU64], count: u32) -> Option<(usize, u32)> {
    rows.iter().enumerate().find_map(|(row, word)| {
        let free = word.load(Ordering::Relaxed);
        let runs = (1..count).fold(free, |runs, shift| runs & free >> shift);
        (runs != 0).then(|| (row, runs.trailing_zeros()))
    })
}
