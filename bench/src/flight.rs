//! Holds on their way: one client of a shard keeps so many in flight and counts those that arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tmomi_engine::ids::{BuyerId, HoldId, Seq};
use tmomi_engine::{Context, Handle, House, Reject};
use tmomi_persist::shard::{Shard, ShardConfig};

use crate::rounds::is_short;
use crate::sale::{self, SHOW, StoppedClock, request, seat};
use crate::{Rng, SEATS};

/// How long a round of each contender takes.
const ROUND: Duration = Duration::from_secs(1);
/// Buyers: each is in flight once.
const BUYERS: u32 = 1 << 16;

/// What a contender did in one round.
pub struct Outcome {
    /// Holds that arrived.
    pub holds: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// From the decision to the end of its wait; of a bare loop, of each append and sync.
    pub ns: Histogram<u64>,
    /// Bytes of each commit.
    pub commits: Vec<usize>,
}

/// Of times in ns.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("a minute, and three digits")
}

/// A shard with a house of ten million seats, and one client.
pub struct Flight {
    shard: Shard,
    house: Arc<House>,
    handle: Handle,
    commits: Arc<Mutex<Vec<usize>>>,
    rng: Rng,
    buyer: u32,
    waker: Waker,
}

impl Flight {
    /// Opens an empty shard and puts the house on sale.
    pub fn open(mut config: ShardConfig) -> Flight {
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
        Flight { shard, house, handle, commits, rng, buyer, waker }
    }

    /// Keeps `in_flight` holds on their way. A hold that has arrived is released, and nobody
    /// waits for that.
    #[allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]
    pub fn run(&mut self, in_flight: usize) -> Outcome {
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
