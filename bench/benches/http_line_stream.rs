//! A line of more than 10,000 on streams, of whom 500 a second are let in: how soon each hears it,
//! how far apart the others' positions come, and what part of a core the server takes.
//!
//! `cargo bench -p tmomi-bench --bench http_line_stream`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::buyers::Script;
use tmomi_bench::socket::crowd::Crowd;
use tmomi_bench::socket::house::{self, House};
use tmomi_bench::socket::readers::Readers;
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::wire::since_expiry_ms;
use tmomi_bench::socket::{raise_handle_limit, sized};

/// Half of those who are let in stand before the 10,000th.
const WAITING: usize = 12_500;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_secs(2);
const RATE_PER_S: u32 = 500;
const SESSION_MS: i64 = 3_600_000;

/// What the readers of one round heard.
struct Heard {
    /// From admission to the event, in ms.
    admitted: Histogram<u64>,
    /// From one position to the next of a reader, in ms.
    positions: Histogram<u64>,
    last: Vec<Option<Duration>>,
}

impl Heard {
    fn new(readers: usize) -> Heard {
        let histogram = || Histogram::new(3).expect("three digits");
        Heard { admitted: histogram(), positions: histogram(), last: vec![None; readers] }
    }

    fn hear(&mut self, n: usize, bytes: &[u8], at: Duration, now_ms: u64) {
        let text = std::str::from_utf8(bytes).expect("a stream is text");
        if text.contains("event: admitted") {
            let late_ms = since_expiry_ms(text, now_ms) + SESSION_MS;
            self.admitted.saturating_record(late_ms.max(0) as u64);
        } else if text.contains("event: position")
            && let Some(before) = self.last[n].replace(at)
        {
            self.positions.saturating_record((at - before).as_millis() as u64);
        }
    }
}

fn main() {
    raise_handle_limit(14_000);
    let waiting = sized(WAITING, 600);
    let server = Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), Keep::Journal);
    let line = json!({ "mode": "paused", "max_active": 1_000_000, "rate_per_s": RATE_PER_S,
                       "grace_ms": 3_600_000, "session_ms": SESSION_MS });
    let mut house = House::open(&server, 1_000, &json!({ "line": line }));
    let buyers = house::buyers(&server, waiting);
    let joins = Script::requests("POST", &house.path("/line"), &buyers).into_iter();
    Crowd::connect(server.address(), 64).to_the_end(&mut Script::crowd(joins, 64));
    let streams = Script::requests("GET", &house.path("/line/stream"), &buyers);
    let before = server.process().resident_bytes();
    let mut readers = Readers::open(server.address(), streams.iter().map(Vec::as_slice));
    let weight = server.process().resident_bytes().saturating_sub(before);

    let mut admitted = Rounds::new("500 of 10,000 let in a second, from admission to heard", "ms");
    let mut positions = Rounds::new("the same, from one position to the next", "ms");
    let mut share = Rounds::new("the same, CPU share of the server", "% of a core");
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        let mut heard = Heard::new(readers.len());
        let (cpu, start) = (server.process().cpu(), Instant::now());
        house.set_line(&json!({ "mode": "fifo" }));
        let clock = *readers.clock();
        while start.elapsed() < RUN {
            readers.read(Duration::from_millis(20), |n, bytes, at| {
                heard.hear(n, bytes, at, clock.now_ms());
            });
        }
        let took = start.elapsed();
        let cpu = server.process().cpu() - cpu;
        // Whoever was let in by now hears it as well, before the next round.
        house.set_line(&json!({ "mode": "paused" }));
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            readers.read(Duration::from_millis(20), |n, bytes, at| {
                if !bytes.windows(15).any(|part| part == b"event: position") {
                    heard.hear(n, bytes, at, clock.now_ms());
                }
            });
        }
        let active = house.stats()["line"]["active"].as_u64().expect("a number");
        let told = (round + 1) as u64 * RUN.as_secs() * u64::from(RATE_PER_S);
        assert!(active * 10 > told * 8 || sized(false, true), "{active} of {told} were let in");
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("worst", 1.0)] {
            admitted.add(name, heard.admitted.value_at_quantile(quantile) as f64);
            positions.add(name, heard.positions.value_at_quantile(quantile) as f64);
        }
        share.add("server", cpu.as_secs_f64() / took.as_secs_f64() * 100.0);
    }
    admitted.print();
    positions.print();
    share.print();
    let mut memory = Rounds::new("memory of a reader of the line", "KiB");
    memory.add("line stream", weight as f64 / 1_024.0 / waiting as f64);
    memory.print();
}
