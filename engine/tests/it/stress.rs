//! Many threads on the fast engine. Its log is folded, and its answers are held against the log.
//!
//! Every call is stamped before and after from one counter, so of two calls of different threads
//! we know which was over before the other began. From the stamps of the calls that took and
//! freed a seat follows when it was taken at the most; a refusal outside of that is a lie (R10).

use std::collections::HashMap;
#[cfg(not(shuttle))]
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
#[cfg(not(shuttle))]
use std::thread;
#[cfg(not(shuttle))]
use std::time::Duration;

#[cfg(shuttle)]
use shuttle::{sync::Barrier, thread};

use tmomi_engine::event::{Batch, Body};
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, LineNumber, Part, SeatAddr, Seq, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::{
    Context, Engine, EngineConfig, Handle, Held, House, Keeper, OpenShowtime, Reject,
};

use crate::desk::{CONFIG, SHOW, request};
use crate::fold::{Decision, Fold, Hold};
use crate::run::masks_are_the_log;

#[cfg(shuttle)]
mod interleavings;
mod races;
mod sale;

/// A call, from when to when.
#[derive(Clone, Copy, Debug)]
struct Span {
    call: u64,
    ret: u64,
}

/// What was answered, as far as it can be held against the log.
#[derive(Clone, Debug)]
enum Told {
    /// A decision whose last event has this number.
    Decided(Seq),
    /// A fresh number, and the event that gave it.
    Number(LineNumber, Seq),
    /// Seats that were said to be taken.
    Unavailable(Part),
}

struct Record {
    span: Span,
    told: Told,
}

/// What the threads of a test share.
struct Floor {
    engine: Engine,
    house: Arc<House>,
    /// The clock of all, ms. Only the keeper moves it.
    now_ms: AtomicU64,
    stamps: AtomicU64,
    /// Holds that were made, for anyone to race on.
    board: Mutex<Vec<HoldId>>,
}

/// One thread.
struct Worker<'a> {
    floor: &'a Floor,
    handle: Handle,
    rng: Rng,
    records: Vec<Record>,
}

/// A small generator of its own (xorshift64*, Vigna 2016): a failing seed runs again.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

impl Floor {
    fn now(&self) -> TimeMs {
        TimeMs(self.now_ms.load(Ordering::SeqCst))
    }

    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::SeqCst)
    }

    fn pick(&self, rng: &mut Rng) -> Option<HoldId> {
        let mut board = self.board.lock().expect("no thread panics with it");
        // Old holds are dropped: the races are about new ones.
        if board.len() > 64 {
            board.drain(..32);
        }
        let len = board.len() as u64;
        (len > 0).then(|| board[rng.below(len) as usize])
    }
}

impl Worker<'_> {
    /// Calls until the ring has room, and stamps the last call.
    fn call<T>(
        &mut self,
        mut op: impl FnMut(&mut Handle, &House, Context) -> Result<T, Reject>,
    ) -> (Span, Result<T, Reject>) {
        for _ in 0..1_000_000 {
            let context = Context::at(self.floor.now());
            let call = self.floor.stamp();
            let answer = op(&mut self.handle, &self.floor.house, context);
            let span = Span { call, ret: self.floor.stamp() };
            if !matches!(answer, Err(Reject::RingFull)) {
                if let Err(Reject::SeatUnavailable(part)) = answer {
                    self.records.push(Record { span, told: Told::Unavailable(part) });
                }
                return (span, answer);
            }
            thread::yield_now();
        }
        panic!("R12: the ring stays full");
    }

    /// A call whose success is one decision.
    fn decide(
        &mut self,
        op: impl FnMut(&mut Handle, &House, Context) -> Result<Seq, Reject>,
    ) -> Result<Seq, Reject> {
        let (span, answer) = self.call(op);
        if let Ok(seq) = answer {
            self.records.push(Record { span, told: Told::Decided(seq) });
        }
        answer
    }

    fn enter(&mut self, buyer: BuyerId) -> EntryId {
        self.persist(|handle, house, at| handle.enter(house, buyer, at.now)).1
    }

    fn hold(&mut self, buyer: BuyerId, parts: &[Part], ttl_ms: u32) -> Result<Held, Reject> {
        let request = request(self.enter(buyer), Some(ttl_ms), true);
        let (span, held) = self.call(|handle, house, at| handle.hold(house, request, parts, at));
        self.held(span, held)
    }

    fn held(&mut self, span: Span, held: Result<Held, Reject>) -> Result<Held, Reject> {
        if let Ok(held) = &held {
            self.records.push(Record { span, told: Told::Decided(held.seq) });
            self.floor.board.lock().expect("no thread panics with it").push(held.id);
        }
        held
    }

    fn join(&mut self, buyer: BuyerId) {
        let (span, joined) = self.persist(|handle, house, at| handle.join(house, buyer, at));
        if joined.fresh {
            self.records.push(Record { span, told: Told::Number(joined.number, joined.seq) });
        }
    }

    /// A call that may be refused only because another thread was stopped in the middle of one.
    fn persist<T>(
        &mut self,
        mut op: impl FnMut(&mut Handle, &House, Context) -> Result<T, Reject>,
    ) -> (Span, T) {
        loop {
            match self.call(&mut op) {
                (span, Ok(done)) => return (span, done),
                (_, Err(reject)) => assert_eq!(reject, Reject::Contended),
            }
        }
    }
}

/// A tick of the keeper: when, and between which numbers its events are.
struct Tick {
    span: Span,
    after: Seq,
    upto: Seq,
}

/// What a stress left behind.
struct Trial {
    fold: Fold,
    decisions: Vec<Decision>,
    records: Vec<Record>,
    ticks: Vec<Tick>,
    house: Arc<House>,
}

/// Runs `work` on `workers` threads until each is done, with the keeper on this one; then lets
/// the time pass until nothing more is due. Panics if the log or an answer is wrong.
fn stress(
    show: OpenShowtime,
    workers: u64,
    seed: u64,
    work: impl Fn(&mut Worker<'_>, u64) + Sync,
) -> Trial {
    let layout = Arc::clone(&show.layout);
    let (engine, mut keeper) =
        Engine::new(EngineConfig { ring_slots: 8 * CONFIG.ring_slots, ..CONFIG });
    let mut handle = engine.handle().expect("the first");
    let (house, _) = handle.open(TimeMs(1), show).expect("nothing is open");
    drop(handle);
    let floor = Floor {
        engine,
        house,
        now_ms: AtomicU64::new(1),
        stamps: AtomicU64::new(0),
        board: Mutex::default(),
    };
    let running = AtomicUsize::new(workers as usize);
    let start = Barrier::new(workers as usize);
    let (mut batch, mut ticks, mut records) = (Batch::default(), Vec::new(), Vec::new());
    thread::scope(|scope| {
        let spawn = |n| {
            let (floor, running, start, work) = (&floor, &running, &start, &work);
            scope.spawn(move || {
                let done = Done(running);
                let handle = floor.engine.handle().expect("one for each worker");
                let rng = Rng((seed + n) | 1 << 40);
                let mut worker = Worker { floor, handle, rng, records: Vec::new() };
                start.wait();
                work(&mut worker, n);
                drop(done);
                worker.records
            })
        };
        let threads: Vec<_> = (0..workers).map(spawn).collect();
        while running.load(Ordering::SeqCst) > 0 {
            turn(&floor, &mut keeper, &mut batch, &mut ticks, 5);
            // The workers are to meet each other, not the keeper; there may be two cores only.
            #[cfg(not(shuttle))]
            thread::sleep(Duration::from_micros(100));
            #[cfg(shuttle)]
            thread::yield_now();
        }
        for worker in threads {
            records.extend(worker.join().expect("no worker panics"));
        }
    });
    // No deadline is further than a second, so a second without an event is the end.
    for _ in 0..1_000 {
        let before = floor.engine.claimed();
        (0..50).for_each(|_| turn(&floor, &mut keeper, &mut batch, &mut ticks, 20));
        if floor.engine.claimed() == before {
            break;
        }
    }
    let mut fold = Fold::new([(SHOW, layout)]);
    let decisions = fold.apply(&batch);
    let now = floor.now();
    let overdue = |hold: &&Hold| !hold.confirmed && hold.deadline <= now;
    assert_eq!(fold.holds.values().find(overdue), None, "R12: it outlives its deadline");
    assert!(keeper.idle(), "R12: something is left over");
    let trial = Trial { fold, decisions, records, ticks, house: floor.house };
    trial.judge();
    trial
}

/// Says that a worker is done even if it panics, so that the keeper does not wait for ever.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The keeper's round: time passes, what is due happens, the ring is emptied.
fn turn(
    floor: &Floor,
    keeper: &mut Keeper,
    batch: &mut Batch,
    ticks: &mut Vec<Tick>,
    elapsed_ms: u64,
) {
    let now = TimeMs(floor.now_ms.fetch_add(elapsed_ms, Ordering::SeqCst) + elapsed_ms);
    let (call, after) = (floor.stamp(), floor.engine.claimed());
    keeper.tick(now);
    let upto = floor.engine.claimed();
    ticks.push(Tick { span: Span { call, ret: floor.stamp() }, after, upto });
    keeper.drain(batch, usize::MAX);
}

impl Trial {
    fn judge(&self) {
        masks_are_the_log(&self.house, &self.fold.shows[&SHOW]);
        self.refusals_are_justified();
        self.numbers_follow_the_calls();
        // An engine of the image of all this is the same one.
        let (engine, _) = Engine::restore(CONFIG, &self.fold, TimeMs(0));
        let house = engine.house(SHOW).expect("it is in the state");
        masks_are_the_log(&house, &self.fold.shows[&SHOW]);
    }

    /// R10: each seat that was said to be taken was so at some instant of the call.
    fn refusals_are_justified(&self) {
        let refused = |record: &&Record| matches!(record.told, Told::Unavailable(_));
        if !self.records.iter().any(|record| refused(&record)) {
            // Some races are too tight for records.
            return;
        }
        let taken = self.taken_spans();
        for Record { span, told } in &self.records {
            let Told::Unavailable(part) = told else { continue };
            assert!(part.mask != 0, "R10: {part:?} names no seat");
            for seat in part.seats() {
                let spans = taken.get(&seat).map_or(&[][..], Vec::as_slice);
                let overlaps = |at: &Span| at.call < span.ret && span.call < at.ret;
                assert!(spans.iter().any(overlaps), "R10: {seat:?} was free during {span:?}");
            }
        }
    }

    /// When each seat was taken at the most: from the call that took it to the end of the one
    /// that freed it.
    fn taken_spans(&self) -> HashMap<SeatAddr, Vec<Span>> {
        let calls: HashMap<Seq, Span> = self.records.iter().filter_map(Record::decided).collect();
        let mut taken: HashMap<SeatAddr, Vec<Span>> = HashMap::new();
        for decision in &self.decisions {
            let (first, last) = (decision.events[0], decision.events[decision.events.len() - 1]);
            let span = || calls.get(&last.seq).copied().unwrap_or_else(|| self.tick_of(last.seq));
            for seat in decision.parts.iter().flat_map(|part| part.seats()) {
                match first.body {
                    Body::Held { .. } | Body::Blocked { .. } => {
                        let from = Span { call: span().call, ret: u64::MAX };
                        taken.entry(seat).or_default().push(from);
                    }
                    Body::Extended { .. } | Body::Confirmed { .. } => {}
                    _ => {
                        let open = taken.get_mut(&seat).and_then(|spans| spans.last_mut());
                        open.expect("the fold has seen it taken").ret = span().ret;
                    }
                }
            }
        }
        taken
    }

    fn tick_of(&self, seq: Seq) -> Span {
        let tick = self.ticks.partition_point(|tick| tick.upto < seq);
        assert!(self.ticks[tick].after < seq, "event {seq} was answered to nobody");
        self.ticks[tick].span
    }

    /// R4: a join that was answered before another was sent is ahead of it, and the log has the
    /// numbers that were told.
    fn numbers_follow_the_calls(&self) {
        let mut joins: Vec<(Span, LineNumber)> = Vec::new();
        let logged: HashMap<Seq, LineNumber> = self.decisions.iter().filter_map(joined).collect();
        for Record { span, told } in &self.records {
            if let Told::Number(number, seq) = told {
                assert_eq!(logged.get(seq), Some(number), "R4: the log has another number");
                joins.push((*span, *number));
            }
        }
        let mut answered = joins.clone();
        answered.sort_by_key(|(span, _)| span.ret);
        joins.sort_by_key(|(span, _)| span.call);
        let mut answered = answered.into_iter().peekable();
        let mut highest = LineNumber::NONE;
        for (span, number) in joins {
            while let Some((_, before)) = answered.next_if(|(before, _)| before.ret < span.call) {
                highest = highest.max(before);
            }
            assert!(number > highest, "R4: {number} was given after {highest} was answered");
        }
    }
}

impl Record {
    fn decided(&self) -> Option<(Seq, Span)> {
        match self.told {
            Told::Decided(seq) => Some((seq, self.span)),
            _ => None,
        }
    }
}

fn joined(decision: &Decision) -> Option<(Seq, LineNumber)> {
    let last = decision.events.last()?.seq;
    match decision.events[0].body {
        Body::Joined { number, .. } => Some((last, number)),
        _ => None,
    }
}

/// One section of `rows` rows.
pub(crate) fn house(rows: u32, seats_per_row: u32) -> Arc<Layout> {
    use tmomi_engine::ids::TierIndex;
    use tmomi_engine::layout::{LayoutSpec, SectionSpec};
    let (tier, first_distance) = (TierIndex(0), 0);
    let section = SectionSpec::Uniform { rows, seats_per_row, tier, first_distance };
    let spec = LayoutSpec { sections: vec![section] };
    Arc::new(Layout::build(spec).expect("it has seats"))
}
