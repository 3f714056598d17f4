//! From the first hold of a sale until the last of its tickets is a row: engine, a Kafka topic as
//! the log, the writer behind it, and MySQL or MariaDB with stock settings, all on this machine.
//! How fast the sale itself is meanwhile, and how fast with the database stopped. And at half the
//! load that rows can follow, how long after its answer an order can be seen in the database.
//!
//! `make services`, then `cargo bench -p tmomi-bench --bench sold_to_stored`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tmomi_bench::broker;
use tmomi_bench::databases::{Database, servers};
use tmomi_bench::flight::histogram;
use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::sale::show;
use tmomi_bench::socket::clock::LoadClock;
use tmomi_bench::sold::{self, OneHouse, TICKETS_PER_ORDER};
use tmomi_engine::ids::{BuyerId, Seq};
use tmomi_engine::{Context, Handle};
use tmomi_persist::database::Server;
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::kafka::{KafkaConfig, KafkaSource};
use tmomi_persist::shard::{LogConfig, Shard, ShardConfig};
use tmomi_persist::writer::{DeadLetters, SqlSink, Writer, WriterConfig, WriterHandle, spawn};

/// Tickets, both halves multiples of the seats of a row.
const TICKETS: [u32; 2] = [100_096, 500_096];
/// How long orders come in at half load.
const HALF_LOAD: Duration = Duration::from_secs(10);
/// How often it is looked what has been committed and stored.
const LOOK_EVERY: Duration = Duration::from_micros(500);
/// Where no database is.
const NOWHERE: &str = "mysql://root@127.0.0.1:9/stopped";

fn main() {
    let tickets: &[u32] = if is_short() { &[6_400] } else { &TICKETS };
    for (kind, address) in servers() {
        let mut orders_a_second = 0.0;
        for &tickets in tickets {
            orders_a_second = sell_out(kind, &address, tickets);
        }
        half_load(kind, &address, orders_a_second / 2.0);
    }
}

/// Sells houses of `tickets` seats; gives how many orders a second became rows, of the median.
fn sell_out(kind: &'static str, address: &str, tickets: u32) -> f64 {
    let title = |what| format!("{kind}, {tickets} tickets, {what}");
    let mut stored = Rounds::new(title("sold to stored"), "ms");
    let mut sold = Rounds::new(title("sold and committed"), "ms");
    let mut one_shard = Vec::new();
    for round in 0..rounds() {
        for (shards, name) in [(1, "one shard"), (2, "two shards")] {
            let kafka = broker::topic("stored", round, shards);
            let database = database(kind, address, tickets / shards);
            let took = sale(&kafka, &database.server(), tickets / shards, shards);
            stored.add_ms(name, took.stored.expect("the database runs"));
            if shards == 1 {
                one_shard.push(took.stored.expect("the database runs"));
                sold.add_ms("database running", took.sold);
                let alone = broker::topic("stopped", round, shards);
                let took = sale(&alone, &nowhere(), tickets, shards);
                sold.add_ms("database stopped", took.sold);
            }
        }
    }
    stored.print();
    sold.print();
    one_shard.sort_unstable();
    f64::from(tickets / TICKETS_PER_ORDER) / one_shard[one_shard.len() / 2].as_secs_f64()
}

/// Orders at a rate; from the answer to the row.
fn half_load(kind: &'static str, address: &str, rate: f64) {
    let title = |what| format!("{kind}, {rate:.0} orders a second, answer to row, {what}");
    let (mut p50, mut p99) = (Rounds::new(title("p50"), "ms"), Rounds::new(title("p99"), "ms"));
    let time = if is_short() { HALF_LOAD / 20 } else { HALF_LOAD };
    let orders = (rate * time.as_secs_f64()) as u32;
    let tickets = (orders * TICKETS_PER_ORDER).next_multiple_of(64);
    for round in 0..rounds() {
        let database = database(kind, address, tickets);
        let ns = lag(&broker::topic("half-load", round, 1), &database.server(), tickets, rate);
        p50.add("behind the topic", ns.value_at_quantile(0.5) as f64 / 1e6);
        p99.add("behind the topic", ns.value_at_quantile(0.99) as f64 / 1e6);
    }
    p50.print();
    p99.print();
}

fn database(kind: &'static str, address: &str, tickets: u32) -> Database {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives what it needs");
    runtime.block_on(Database::fresh(kind, address, sold::buyers(tickets)))
}

fn nowhere() -> Server {
    Server::parse(NOWHERE).expect("an address")
}

/// How long after the first decision.
struct Took {
    /// Everything was committed.
    sold: Duration,
    /// The rows stood for it; `None` if there is no database.
    stored: Option<Duration>,
}

/// Sells `tickets` tickets in each of some shards, and waits for the rows if there is a database.
fn sale(kafka: &KafkaConfig, rows: &Server, tickets: u32, shards: u32) -> Took {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let has_rows = rows.to_string() != nowhere().to_string();
    let mut halls: Vec<Hall> =
        (0..shards).map(|shard| Hall::open(kafka, dir.path(), shard, rows, tickets)).collect();
    if has_rows {
        halls.iter().for_each(Hall::wait_for_rows);
    }
    let start = Instant::now();
    thread::scope(|scope| {
        for hall in &mut halls {
            scope.spawn(|| hall.sell_at_once());
        }
    });
    halls.iter().for_each(Hall::wait_for_commit);
    let sold = start.elapsed();
    let stored = has_rows.then(|| {
        halls.iter().for_each(Hall::wait_for_rows);
        start.elapsed()
    });
    Took { sold, stored }
}

fn lag(kafka: &KafkaConfig, rows: &Server, tickets: u32, rate: f64) -> Histogram<u64> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let mut hall = Hall::open(kafka, dir.path(), 0, rows, tickets);
    hall.wait_for_rows();
    let (shard, state) = (Arc::clone(&hall.shard), Arc::clone(hall.writer.state()));
    let (sender, orders) = mpsc::channel();
    thread::scope(|scope| {
        let hall = &mut hall;
        scope.spawn(move || hall.sell_at(rate, &sender));
        let (mut ns, mut left) = (histogram(), tickets / TICKETS_PER_ORDER);
        let (mut decided, mut answered) = (VecDeque::new(), VecDeque::new());
        while left > 0 {
            decided.extend(orders.try_iter());
            let (applied, now) = (shard.applied(), Instant::now());
            while let Some(seq) = decided.pop_front_if(|seq| *seq <= applied) {
                answered.push_back((seq, now));
            }
            let (position, now) = (state.position(), Instant::now());
            while let Some((_, since)) = answered.pop_front_if(|(seq, _)| *seq <= position) {
                ns.saturating_record((now - since).as_nanos() as u64);
                left -= 1;
            }
            thread::sleep(LOOK_EVERY);
        }
        ns
    })
}

/// A shard whose log is a partition, its writer, and a house on sale.
struct Hall {
    shard: Arc<Shard>,
    handle: Handle,
    house: Arc<tmomi_engine::House>,
    writer: WriterHandle,
    tickets: u32,
    buyers: u32,
}

impl Hall {
    fn open(kafka: &KafkaConfig, dir: &Path, nth: u32, rows: &Server, tickets: u32) -> Hall {
        let log = LogConfig::Kafka {
            kafka: kafka.clone(),
            dir: dir.join(nth.to_string()),
            snapshots: None,
            // Another question.
            snapshot: SnapshotConfig { events: u64::MAX, bytes: u64::MAX, remove_segments: false },
        };
        let clock = Arc::new(LoadClock::start());
        let config = ShardConfig { shard: nth, ..ShardConfig::new(log) };
        let shard = Shard::open(config, Arc::clone(&clock) as _).expect("it is empty");
        let names = sold::house(tickets);
        let mut handle = shard.engine().handle().expect("the first");
        let now = shard.clock().now();
        let (house, _) =
            handle.open(now, show(Arc::clone(&names.layout))).expect("nothing is open");
        let buyers = sold::buyers(tickets);
        for buyer in 1..=buyers {
            sold::with_room(thread::yield_now, || handle.enter(&house, BuyerId(buyer.into()), now));
        }
        shard.wake();
        let writer = Writer::new(
            WriterConfig { shard: nth, ..WriterConfig::default() },
            KafkaSource::new(kafka.clone(), nth),
            SqlSink::at(rows, nth),
            OneHouse(names),
            DeadLetters::new(dir.to_owned()),
            clock,
        );
        let writer = spawn(writer).expect("a thread");
        Hall { shard: Arc::new(shard), handle, house, writer, tickets, buyers }
    }

    /// Sells every seat as fast as it goes.
    fn sell_at_once(&mut self) {
        for (place, n) in self.places().zip(0..) {
            self.buy(place, n);
        }
    }

    /// Sells every seat at so many orders a second, whatever becomes of them, and tells the last
    /// event of each.
    fn sell_at(&mut self, rate: f64, sender: &mpsc::Sender<Seq>) {
        let start = Instant::now();
        for (place, n) in self.places().zip(0..) {
            let due = start + Duration::from_secs_f64(f64::from(n) / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let last = self.buy(place, n);
            sender.send(last).expect("somebody counts");
        }
    }

    fn places(&self) -> impl Iterator<Item = u32> + use<> {
        sold::random_places(self.tickets / TICKETS_PER_ORDER).into_iter()
    }

    fn buy(&mut self, place: u32, n: u32) -> Seq {
        let at = Context::at(self.shard.clock().now());
        let room = || {
            self.shard.wake();
            thread::yield_now();
        };
        let order = sold::buy(&mut self.handle, &self.house, place, n % self.buyers, at, room);
        self.shard.wake();
        order.last
    }

    fn wait_for_commit(&self) {
        while self.shard.applied() < self.shard.engine().claimed() {
            thread::sleep(LOOK_EVERY);
        }
    }

    fn wait_for_rows(&self) {
        self.wait_for_commit();
        while self.writer.state().position() < self.shard.applied() {
            thread::sleep(LOOK_EVERY);
        }
    }
}
