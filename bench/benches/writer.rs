//! How many rows a second become of events: the writer behind a log in memory, into MySQL and
//! MariaDB with stock settings, beside a hand-made loop that sends the same rows, made before, in
//! statements of a thousand over one connection, and beside the same row by row. Then two writers
//! at once, for two shards.
//!
//! `make services`, then `cargo bench -p tmomi-bench --bench writer`. `TMOMI_BENCH_TICKETS` says
//! how many tickets instead of the usual, as `10000000`, which takes half an hour a server.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tmomi_bench::databases::{Database, servers};
use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::socket::clock::LoadClock;
use tmomi_bench::sold::{InMemory, Order, Sold, TICKETS_PER_ORDER};
use tmomi_persist::writer::{DeadLetters, Record, SqlSink, Status, Writer, WriterConfig, spawn};

/// Rows of a hand-made statement, and statements of its transaction.
const STATEMENT_ROWS: usize = 1_000;
const TRANSACTION_STATEMENTS: usize = 10;
/// Orders that are written row by row: they are slow enough.
const SINGLE_ORDERS: usize = 200;
/// Tickets of a shard up to which two are written: more would only take longer.
const TWO_SHARDS_MAX: u32 = 100_032;

fn main() {
    let asked = std::env::var("TMOMI_BENCH_TICKETS").ok();
    let asked = asked.map(|text| text.parse().expect("TMOMI_BENCH_TICKETS is a multiple of 64"));
    let sizes = match asked {
        Some(tickets) => vec![tickets],
        None if is_short() => vec![6_400],
        None => vec![100_032, 500_032],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives what it needs");
    for (kind, address) in servers() {
        for tickets in &sizes {
            runtime.block_on(compare(kind, &address, *tickets));
        }
    }
}

async fn compare(kind: &'static str, address: &str, tickets: u32) {
    let sold = Sold::out(tickets);
    let title = |what| format!("{kind}, {tickets} tickets, {what}, rows a second");
    let mut inserts = Rounds::new(title("inserted"), "/s");
    let mut updates = Rounds::new(title("updated"), "/s");
    let mut took = Rounds::new(format!("{kind}, {tickets} tickets, sold to stored"), "ms");
    for _ in 0..rounds() {
        let database = Database::fresh(kind, address, sold.buyers).await;
        let hand = hand_made(&database, &sold, STATEMENT_ROWS).await;
        inserts.add("hand-made", hand.0);
        updates.add("hand-made", hand.1);
        let database = Database::fresh(kind, address, sold.buyers).await;
        let (rate, elapsed) = write(&database, &sold, &sold.sale, 1);
        inserts.add("writer", rate);
        took.add_ms("writer", elapsed);
        updates.add("writer", write(&database, &sold, &sold.refunds, 1).0);
        check(&database, &sold, 1).await;
        if tickets <= TWO_SHARDS_MAX {
            let database = Database::fresh(kind, address, sold.buyers).await;
            inserts.add("two writers, two shards", write(&database, &sold, &sold.sale, 2).0);
            updates.add("two writers, two shards", write(&database, &sold, &sold.refunds, 2).0);
            check(&database, &sold, 2).await;
        }
        let database = Database::fresh(kind, address, sold.buyers).await;
        let hand = hand_made(&database, &sold, 1).await;
        inserts.add("row by row", hand.0);
        updates.add("row by row", hand.1);
    }
    inserts.print();
    updates.print();
    took.print();
}

/// Writes the same records for each of some shards, all at once; gives rows a second of all
/// together, and the time.
fn write(database: &Database, sold: &Sold, records: &[Record], shards: u32) -> (f64, Duration) {
    let start = Instant::now();
    let rows: u64 = thread::scope(|scope| {
        let one = |shard| scope.spawn(move || write_shard(database, sold, records, shard));
        let writers: Vec<_> = (0..shards).map(one).collect();
        writers.into_iter().map(|writer| writer.join().expect("it has written")).sum()
    });
    let elapsed = start.elapsed();
    (rows as f64 / elapsed.as_secs_f64(), elapsed)
}

/// Gives the rows.
fn write_shard(database: &Database, sold: &Sold, records: &[Record], shard: u32) -> u64 {
    let sink = SqlSink::at(&database.server(), shard);
    let dead = DeadLetters::new(std::env::temp_dir());
    let source = InMemory::of(records.to_vec());
    let config = WriterConfig { shard, poll_ms: 1, ..WriterConfig::default() };
    let clock = Arc::new(LoadClock::start());
    let writer = Writer::new(config, source, sink, sold.names(), dead, clock);
    let writer = spawn(writer).expect("a thread");
    let last = Sold::last(records);
    while writer.state().position() < last {
        assert_eq!(writer.state().status(), Status::Running);
        thread::sleep(Duration::from_millis(1));
    }
    writer.state().rows()
}

async fn check(database: &Database, sold: &Sold, shards: usize) {
    let asked = "SELECT CAST(COUNT(*) AS SIGNED) FROM ticket WHERE state = 'refunded'";
    let mut conn = database.connect().await;
    let count: i64 = sqlx::query_scalar(asked).fetch_one(&mut conn).await.expect("an answer");
    assert_eq!(count as usize, shards * sold.orders.len() * TICKETS_PER_ORDER as usize);
}

/// A table as a hand-made loop sends it.
struct Sheet {
    head: &'static str,
    tail: &'static str,
    rows: Vec<String>,
}

/// Rows a second, inserted and updated.
async fn hand_made(database: &Database, sold: &Sold, at_a_time: usize) -> (f64, f64) {
    let is_single = at_a_time == 1;
    let orders = if is_single { SINGLE_ORDERS.min(sold.orders.len()) } else { sold.orders.len() };
    let orders = &sold.orders[..orders];
    let mut conn = database.connect().await;
    conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.expect("it may");
    let mut rates = [0.0; 2];
    for (rate, state) in rates.iter_mut().zip(["confirmed", "refunded"]) {
        let sheets = sheets(sold, orders, state);
        let rows: usize = sheets.iter().map(|sheet| sheet.rows.len()).sum();
        let start = Instant::now();
        for sheet in &sheets {
            send(&mut conn, sheet, at_a_time).await;
        }
        *rate = rows as f64 / start.elapsed().as_secs_f64();
    }
    (rates[0], rates[1])
}

async fn send(conn: &mut MySqlConnection, sheet: &Sheet, at_a_time: usize) {
    // Row by row is a transaction each, which is what a service does that thinks of none.
    let statements = if at_a_time == 1 { 1 } else { TRANSACTION_STATEMENTS };
    for rows in sheet.rows.chunks(at_a_time * statements) {
        let mut tx = conn.begin().await.expect("the server answers");
        for rows in rows.chunks(at_a_time) {
            let sql = format!("{} VALUES {} {}", sheet.head, rows.join(","), sheet.tail);
            tx.execute(AssertSqlSafe(sql)).await.expect("good rows");
        }
        tx.commit().await.expect("the server answers");
    }
}

fn sheets(sold: &Sold, orders: &[Order], state: &str) -> Vec<Sheet> {
    const TAIL: &str = "ON DUPLICATE KEY UPDATE state = VALUES(state), epoch = VALUES(epoch),
        sequence = VALUES(sequence)";
    let time = "'2026-01-01 00:00:00.000'";
    let seq = |order: &Order| order.id.seq.0 + u64::from(state == "refunded");
    let hold = |o: &Order| {
        let (id, slot, entry) = (o.id.seq.0, o.id.slot.0, o.buyer - 1);
        format!("(0,{id},{slot},1,{entry},'{state}',4,{time},{time},1,{})", seq(o))
    };
    let order = |o: &Order| {
        let (id, slot, user) = (o.id.seq.0, o.id.slot.0, o.buyer);
        format!("(0,{id},{slot},1,{user},48000,'EUR','{state}',NULL,{time},NULL,1,{})", seq(o))
    };
    let ticket_state = if state == "refunded" { "refunded" } else { "valid" };
    let ticket = |o: &Order, nth: u32| {
        let (row, bit) = (o.first.block.0, o.first.mask.trailing_zeros() + nth);
        let (id, addr) = (o.id.seq.0, row * 64 + bit);
        let mut text = String::with_capacity(80);
        write!(text, "(0,{id},{addr},1,'A-{}-{}','R',12000,", row + 1, bit + 1).expect("a String");
        write!(text, "'{ticket_state}',1,{})", seq(o)).expect("a String");
        text
    };
    let tickets = orders.iter().flat_map(|o| (0..TICKETS_PER_ORDER).map(move |n| ticket(o, n)));
    let mut sheets = vec![
        Sheet { head: "INSERT INTO hold", tail: TAIL, rows: orders.iter().map(hold).collect() },
        Sheet {
            head: "INSERT INTO ticket_order",
            tail: TAIL,
            rows: orders.iter().map(order).collect(),
        },
        Sheet { head: "INSERT INTO ticket", tail: TAIL, rows: tickets.collect() },
    ];
    if state == "confirmed" {
        let entry = |buyer| format!("(0,1,{},'out',NULL,{time},{buyer},NULL,1,{buyer})", buyer - 1);
        let rows = (1..=sold.buyers).map(entry).collect();
        let tail = "ON DUPLICATE KEY UPDATE place = VALUES(place)";
        sheets.insert(0, Sheet { head: "INSERT INTO line_entry", tail, rows });
    }
    sheets
}
