//! A durable hold over HTTP, on 1, 64 and 1,024 connections, beside the same stack that answers as
//! many bytes to the same request and does nothing; and what of it is the journal.
//!
//! Rates of two processes that share two cores with their load say little of either, so the CPU
//! time that the serving process takes for one request stands beside them.
//!
//! `cargo bench -p tmomi-bench --bench http_holds`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::bare::{self, BareStack};
use tmomi_bench::socket::buyers::{Holder, Seats};
use tmomi_bench::socket::crowd::{Crowd, Outcome};
use tmomi_bench::socket::house::{self, Buyer, House};
use tmomi_bench::socket::server::{Keep, Process, Server};
use tmomi_bench::socket::{raise_handle_limit, sized};

const SEATS: u32 = 10_000_000;
const BUYERS: usize = 256;
const ROUNDS: usize = 5;
const CONNECTIONS: [usize; 3] = [1, 64, 1_024];
const STACK: &str = "same stack, empty answer";
const JOURNAL: &str = "hold, journal";
const MEMORY: &str = "hold, no journal";
/// A block of a file system: what a small commit writes.
const BLOCK: usize = 4_096;
const SYNCS: usize = 200;

/// Who serves, and the connections to it by their number.
struct Side {
    name: &'static str,
    crowds: Vec<Crowd>,
    guests: Vec<Vec<Holder>>,
}

impl Side {
    fn new(name: &'static str, address: SocketAddr, house: &House, buyers: &[Buyer]) -> Side {
        let seats = Seats::default();
        let guests = |count: &usize| Holder::crowd(house, buyers, *count, &seats);
        Side {
            name,
            crowds: CONNECTIONS.iter().map(|count| Crowd::connect(address, *count)).collect(),
            guests: CONNECTIONS.iter().map(guests).collect(),
        }
    }

    /// One load on all connections of a kind, and the CPU time of the process that serves.
    fn load(&mut self, kind: usize, process: &Process, run: Duration) -> (Outcome, Duration) {
        let before = process.cpu();
        let outcome = self.crowds[kind].closed(&mut self.guests[kind], run);
        (outcome, process.cpu() - before)
    }
}

fn main() {
    if bare::was_baseline() {
        return;
    }
    raise_handle_limit(8_192);
    let run = Duration::from_millis(sized(1_200, 200));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let stack = BareStack::start();
    let servers = [Keep::Journal, Keep::Memory].map(|keep| Server::start(target, keep));
    let houses = servers.each_ref().map(|server| {
        let house = House::open(server, SEATS, &json!({}));
        (house, house::buyers(server, BUYERS))
    });
    let side = |name, address, n: usize| Side::new(name, address, &houses[n].0, &houses[n].1);
    let mut sides = [
        (side(STACK, stack.address, 0), &stack.process),
        (side(JOURNAL, servers[0].address(), 0), servers[0].process()),
        (side(MEMORY, servers[1].address(), 1), servers[1].process()),
    ];
    let title = |what: &str, count: usize| format!("{what}, {count} connections");
    let mut tables: Vec<[Rounds; 4]> = CONNECTIONS
        .iter()
        .map(|&count| {
            [
                Rounds::new(title("rate", count), "/s"),
                Rounds::new(title("CPU time of one", count), "us"),
                Rounds::new(title("p50", count), "ms"),
                Rounds::new(title("p99", count), "ms"),
            ]
        })
        .collect();
    let file = File::create(target.join("http_holds_bare")).expect("target can be written");
    // The first look at each token and each seat's page is not what is asked.
    for kind in 0..CONNECTIONS.len() {
        for (side, process) in &mut sides {
            side.load(kind, process, run / 4);
        }
    }
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        let sync_ms = syncs_ms(&file);
        for (kind, [rate, cpu, p50, p99]) in tables.iter_mut().enumerate() {
            p99.add("write and sync of 4 KiB, p50", sync_ms[0]);
            p99.add("write and sync of 4 KiB, p99", sync_ms[1]);
            for (side, process) in &mut sides {
                let (outcome, took) = side.load(kind, process, run);
                let asked = outcome.latency_ns.len() as f64;
                rate.add(side.name, outcome.rate());
                cpu.add(side.name, took.as_secs_f64() * 1e6 / asked);
                p50.add(side.name, outcome.ms(0.5));
                p99.add(side.name, outcome.ms(0.99));
            }
        }
    }
    tables.iter().flatten().for_each(Rounds::print);
    let _ = std::fs::remove_file(target.join("http_holds_bare"));
}

/// Median and p99 of a bare commit, in ms: the same bytes again and again in a file that has its
/// room, and a sync.
fn syncs_ms(file: &File) -> [f64; 2] {
    let block = vec![0xab; BLOCK];
    let mut took: Vec<Duration> = (0..sized(SYNCS, 20))
        .map(|_| {
            let start = Instant::now();
            file.write_all_at(&block, 0).expect("there is room");
            file.sync_data().expect("the disk works");
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    [took[took.len() / 2], took[took.len() * 99 / 100]].map(|took| took.as_secs_f64() * 1e3)
}
