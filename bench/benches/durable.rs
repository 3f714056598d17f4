//! How many holds a second become durable in one process, and how soon: through engine, ring,
//! group commit, image and watermark, as the server uses them, by how many are in flight. Beside
//! it a bare loop that appends and syncs the very bytes of each commit, into a file that was
//! written before and into one whose room was only taken; and the same shard without a log.
//!
//! `cargo bench -p tmomi-bench --bench durable`; the files go under `target/`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tmomi_bench::bare_file::{BareFile, Room};
use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::sale::{self, SHOW, StoppedClock, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::ids::{BuyerId, HoldId, Seq};
use tmomi_engine::{Context, Handle, House, Reject};
use tmomi_persist::shard::{Shard, ShardConfig};

const IN_FLIGHT: [usize; 3] = [1, 64, 4_096];
/// How long a round of each contender takes.
const ROUND: Duration = Duration::from_secs(1);
/// Buyers: each is in flight once.
const BUYERS: u32 = 1 << 16;

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let mut journal = Sale::open(ShardConfig::journal(dir.path()));
    let mut memory = Sale::open(ShardConfig::memory());
    for in_flight in IN_FLIGHT {
        compare(dir.path(), &mut journal, &mut memory, in_flight);
    }
}

fn compare(dir: &Path, journal: &mut Sale, memory: &mut Sale, in_flight: usize) {
    let title = |what| format!("{in_flight} in flight, {what}");
    let mut rate = Rounds::new(title("holds a second"), "/s");
    let mut p50 = Rounds::new(title("p50"), "us");
    let mut p99 = Rounds::new(title("p99"), "us");
    let mut written = BareFile::new(dir, Room::Written).expect("there is room");
    let mut taken = BareFile::new(dir, Room::Taken).expect("there is room");
    for _ in 0..rounds() {
        let ours = journal.run(in_flight);
        let commits = ours.commits.clone();
        let outcomes = [
            ("bare, written before", bare(&mut written, &commits, ours.holds)),
            ("bare, room taken before", bare(&mut taken, &commits, ours.holds)),
            ("journal", ours),
            ("no log", memory.run(in_flight)),
        ];
        for (name, outcome) in outcomes {
            rate.add(name, outcome.holds as f64 / outcome.elapsed.as_secs_f64());
            let us = |quantile| outcome.ns.value_at_quantile(quantile) as f64 / 1e3;
            p50.add(name, us(0.5));
            p99.add(name, us(0.99));
        }
    }
    [rate, p50, p99].iter().for_each(Rounds::print);
}

/// What a contender did in one round.
struct Outcome {
    holds: u64,
    elapsed: Duration,
    /// From the decision to the end of its wait; of a bare loop, of each append and sync.
    ns: Histogram<u64>,
    /// Bytes of each commit.
    commits: Vec<usize>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("a minute, and three digits")
}

/// Appends and syncs as many bytes at a time as the commits had.
fn bare(file: &mut BareFile, commits: &[usize], holds: u64) -> Outcome {
    let bytes = vec![0xab; commits.iter().copied().max().unwrap_or_default()];
    let mut ns = histogram();
    let start = Instant::now();
    for &length in commits {
        let before = Instant::now();
        file.append(&bytes[..length]).expect("the disk works");
        ns.saturating_record(before.elapsed().as_nanos() as u64);
    }
    Outcome { holds, elapsed: start.elapsed(), ns, commits: Vec::new() }
}

/// A shard with a house of ten million seats, and one client.
struct Sale {
    shard: Shard,
    house: Arc<House>,
    handle: Handle,
    commits: Arc<Mutex<Vec<usize>>>,
    rng: Rng,
    buyer: u32,
    waker: Waker,
}

impl Sale {
    fn open(mut config: ShardConfig) -> Sale {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let of_log = Arc::clone(&commits);
        config.commit_hook = Box::new(move |sample| {
            of_log.lock().expect("nobody panics with it").push(sample.bytes);
        });
        let shard = Shard::open(config, Arc::new(StoppedClock)).expect("it is empty");
        let mut handle = shard.engine().handle().expect("the first");
        let now = shard.clock().now();
        handle.open(now, sale::show(sale::layout(SEATS))).expect("nothing is open");
        let house = shard.engine().house(SHOW).expect("it was opened");
        for buyer in 0..BUYERS {
            while handle.enter(&house, BuyerId(buyer.into()), now) == Err(Reject::RingFull) {
                shard.wake();
                thread::yield_now();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (rng, buyer) = (Rng::new(0x5eed), 0);
        Sale { shard, house, handle, commits, rng, buyer, waker }
    }

    /// Keeps `in_flight` holds on their way. A hold that has arrived is released, and nobody
    /// waits for that.
    fn run(&mut self, in_flight: usize) -> Outcome {
        let round = if is_short() { ROUND / 20 } else { ROUND };
        self.wait(self.shard.engine().claimed());
        self.commits.lock().expect("nobody panics with it").clear();
        let mut flying: VecDeque<(HoldId, Seq, Instant)> = VecDeque::new();
        let (mut ns, mut holds) = (histogram(), 0);
        let start = Instant::now();
        while start.elapsed() < round {
            while flying.len() < in_flight {
                let before = Instant::now();
                let (id, seq) = self.hold();
                flying.push_back((id, seq, before));
            }
            self.shard.wake();
            let (_, oldest, _) = flying[0];
            self.wait(oldest);
            let (applied, now) = (self.shard.applied(), Instant::now());
            while let Some((id, _, before)) = flying.pop_front_if(|(_, seq, _)| *seq <= applied) {
                ns.saturating_record((now - before).as_nanos() as u64);
                holds += 1;
                self.release(id);
            }
        }
        let elapsed = start.elapsed();
        flying.drain(..).for_each(|(id, _, _)| self.release(id));
        let commits = std::mem::take(&mut *self.commits.lock().expect("nobody panics with it"));
        Outcome { holds, elapsed, ns, commits }
    }

    fn hold(&mut self) -> (HoldId, Seq) {
        loop {
            self.buyer += 1;
            let (request, parts) = (request(self.buyer % BUYERS), [seat(self.rng.below(SEATS))]);
            let at = Context::at(self.shard.clock().now());
            match self.handle.hold(&self.house, request, &parts, at) {
                Ok(held) => return (held.id, held.seq),
                Err(Reject::RingFull) => self.give_way(),
                Err(_) => {}
            }
        }
    }

    fn release(&mut self, id: HoldId) {
        let at = Context::at(self.shard.clock().now());
        while self.handle.release(id, at) == Err(Reject::RingFull) {
            self.give_way();
        }
    }

    fn give_way(&self) {
        self.shard.wake();
        thread::yield_now();
    }

    /// Waits until `seq` is committed and applied, as a request does.
    fn wait(&self, seq: Seq) {
        let mut wait = std::pin::pin!(self.shard.wait(seq));
        let mut context = TaskContext::from_waker(&self.waker);
        loop {
            match wait.as_mut().poll(&mut context) {
                Poll::Ready(done) => return done.expect("the log works"),
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
