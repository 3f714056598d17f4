//! 70,000 holds whose deadlines fall in one second: how long the durable holds of others take
//! meanwhile, beside the same load without them, and when the last of the 70,000 is free; with a
//! journal and without.
//!
//! `cargo bench -p tmomi-bench --bench http_expiry`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::fmt::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tmomi_bench::Rng;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::buyers::{Holder, Seats};
use tmomi_bench::socket::clock::LoadClock;
use tmomi_bench::socket::crowd::{Crowd, Outcome};
use tmomi_bench::socket::house::{self, Buyer, House, seat};
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::wire::{Caller, Template, since_expiry_ms};
use tmomi_bench::socket::{raise_handle_limit, sized};

const HOLDS: u32 = 70_000;
/// Seats of the first section, where nothing else is held.
const SECTION: u32 = 100_000;
const LINES: u32 = 10_000;
const CONNECTIONS: usize = 64;
const ROUNDS: u32 = 5;
/// Other holds a second.
const RATE: f64 = 2_000.0;
/// From the first batch to the first deadline: all of them are made by then.
const LEAD: Duration = Duration::from_millis(3_000);
/// The deadlines lie within it.
const SPAN_MS: u32 = 1_000;
/// The load begins so long before the first deadline, and ends as long after the last.
const AROUND: Duration = Duration::from_millis(300);

fn main() {
    raise_handle_limit(1_024);
    let holds = sized(HOLDS, LINES);
    let mut rng = Rng::new(11);
    let run = AROUND * 2 + Duration::from_millis(SPAN_MS.into());
    let mut others = Rounds::new("2,000 other holds a second, p99", "ms");
    let mut median = Rounds::new("2,000 other holds a second, p50", "ms");
    let mut free = Rounds::new("from the last deadline until a reader sees all free", "ms");
    let mut add = |name: String, outcome: &Outcome| {
        others.add(&name, outcome.ms(0.99));
        median.add(&name, outcome.ms(0.5));
    };
    let mut sides = [Side::open("", Keep::Journal), Side::open(", no journal", Keep::Memory)];
    for side in &mut sides {
        side.crowd.closed(&mut side.guests, run / 4);
    }
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        for side in &mut sides {
            let Side { what, server, house, buyers, crowd, guests } = side;
            add(format!("nothing expires{what}"), &crowd.open(guests, RATE, run, &mut rng));
            let first = Instant::now() + LEAD;
            let last_ms_ago = hold_all(house, buyers, round, holds, first);
            let last = Instant::now() + Duration::from_millis(last_ms_ago.unsigned_abs());
            assert!(
                last_ms_ago < 0 && Instant::now() < first - AROUND,
                "the batches took too long"
            );
            thread::sleep((first - AROUND).saturating_duration_since(Instant::now()));
            let watch = || watch(server, house, last);
            let (outcome, late) = thread::scope(|scope| {
                let watching = scope.spawn(watch);
                let outcome = crowd.open(guests, RATE, run, &mut rng);
                (outcome, watching.join().expect("all became free"))
            });
            add(format!("70,000 expire in a second{what}"), &outcome);
            free.add_ms(&format!("by GET stats{what}"), late);
        }
    }
    others.print();
    median.print();
    free.print();
}

/// A house, and the guests who hold its other seats.
struct Side {
    what: &'static str,
    server: Server,
    house: House,
    buyers: Vec<Buyer>,
    crowd: Crowd,
    guests: Vec<Holder>,
}

impl Side {
    fn open(what: &'static str, keep: Keep) -> Side {
        let server = Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), keep);
        let house = House::open(&server, 1_000_000, &json!({}));
        let buyers = house::buyers(&server, CONNECTIONS);
        let crowd = Crowd::connect(server.address(), CONNECTIONS);
        let guests = Holder::crowd(&house, &buyers, CONNECTIONS, &Seats::from(SECTION));
        Side { what, server, house, buyers, crowd, guests }
    }
}

/// Holds the first seats of the house until deadlines spread over a second from `first` on. Gives
/// the time since the last deadline, in ms; it is to come, so that is negative.
fn hold_all(house: &mut House, buyers: &[Buyer], round: u32, holds: u32, first: Instant) -> i64 {
    let token = Some(house.admin_token.as_str());
    let template = Template::new("POST", &house.path("/holds:batch"), token);
    let mut last_ms_ago = i64::MIN;
    for from in (0..holds).step_by(LINES as usize) {
        let mut body = String::new();
        let left_ms = first.saturating_duration_since(Instant::now()).as_millis() as u32;
        for n in from..from + LINES {
            let buyer = buyers[n as usize % buyers.len()].user_id;
            let ttl_ms = left_ms + n % SPAN_MS;
            writeln!(
                body,
                "{{\"idempotency_key\":\"{round}-{n}\",\"buyer\":{buyer},\"seats\":[\"{}\"],\
                 \"ttl_ms\":{ttl_ms}}}",
                seat(n)
            )
            .expect("memory takes it");
        }
        let mut request = Vec::new();
        template.push(&mut request, "application/x-ndjson", body.as_bytes());
        let (status, answer) = house.admin.exchange(&request);
        let answer = String::from_utf8(answer).expect("text");
        let held = answer.lines().filter(|line| line.starts_with("{\"status\":201,")).count();
        assert_eq!((status, held), (200, LINES as usize), "{:?}", answer.lines().next());
        let now_ms = LoadClock::start().now_ms();
        // The last line has the longest time to go.
        let last = answer.lines().last().expect("a line");
        last_ms_ago = last_ms_ago.max(since_expiry_ms(last, now_ms));
    }
    last_ms_ago
}

/// Looks at the section until all of it is free, and gives how long after `last` that was seen.
fn watch(server: &Server, house: &House, last: Instant) -> Duration {
    thread::sleep(last.saturating_duration_since(Instant::now()));
    let mut caller = Caller::connect(server.address());
    caller.identify(house.admin_token.clone());
    let path = format!("/v1/admin/showtimes/{}/stats", house.showtime);
    loop {
        let stats = caller.call("GET", &path, &Value::Null);
        if stats["sections"][0]["free"] == SECTION {
            return last.elapsed();
        }
    }
}
