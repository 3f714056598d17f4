//! Whole purchases (join, hold, confirm) on 64 connections, while 10,000 wait in the same line on
//! streams and ten of them are let in every second, beside the same without the 10,000, and
//! without a journal.
//!
//! The buyers are the first in the line. Their later joins are told the number that they have.
//!
//! `cargo bench -p tmomi-bench --bench http_purchase`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::buyers::{Script, Seats, Shopper};
use tmomi_bench::socket::crowd::Crowd;
use tmomi_bench::socket::house::{self, House};
use tmomi_bench::socket::readers::Readers;
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::{raise_handle_limit, sized};

const SEATS: u32 = 4_000_000;
const CONNECTIONS: usize = 64;
const WAITING: usize = 10_000;
const ROUNDS: usize = 5;

/// A house whose first buyers in line are let in.
struct Side {
    name: &'static str,
    server: Server,
    crowd: Crowd,
    shoppers: Vec<Shopper>,
    readers: Option<Readers>,
}

impl Side {
    fn open(name: &'static str, waiting: usize, keep: Keep) -> Side {
        let server = Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), keep);
        let line = json!({ "mode": "fifo", "max_active": CONNECTIONS, "rate_per_s": 1_000,
                           "grace_ms": 3_600_000, "session_ms": 3_600_000 });
        let mut house = House::open(&server, SEATS, &json!({ "line": line }));
        let mut buyers = house::buyers(&server, CONNECTIONS + waiting);
        let crowd_in_line = buyers.split_off(CONNECTIONS);
        let mut crowd = Crowd::connect(server.address(), CONNECTIONS);
        let mut join = |buyers: &[_]| {
            let joins = Script::requests("POST", &house.path("/line"), buyers).into_iter();
            crowd.to_the_end(&mut Script::crowd(joins, CONNECTIONS));
        };
        join(&buyers);
        join(&crowd_in_line);
        while house.stats()["line"]["active"] != CONNECTIONS {
            thread::sleep(Duration::from_millis(10));
        }
        let streams = Script::requests("GET", &house.path("/line/stream"), &crowd_in_line);
        let streams = streams.iter().map(Vec::as_slice);
        let readers = (waiting > 0).then(|| Readers::open(server.address(), streams));
        // From here on the line moves.
        house.set_line(&json!({ "max_active": 1_000_000, "rate_per_s": 10 }));
        let seats = Seats::default();
        let shoppers = buyers.iter().map(|buyer| Shopper::new(&house, buyer, &seats)).collect();
        Side { name, server, crowd, shoppers, readers }
    }

    /// Purchases a second, and the CPU time of the server for one, in us.
    fn load(&mut self, run: Duration) -> (f64, f64) {
        let stop = AtomicBool::new(false);
        let bought = |shoppers: &[Shopper]| shoppers.iter().map(|s| s.bought).sum::<u64>();
        let (before, cpu) = (bought(&self.shoppers), self.server.process().cpu());
        let took = thread::scope(|scope| {
            if let Some(readers) = &mut self.readers {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        readers.read(Duration::from_millis(20), |_, _, _| {});
                    }
                });
            }
            let outcome = self.crowd.closed(&mut self.shoppers, run);
            stop.store(true, Ordering::Relaxed);
            outcome.took
        });
        let bought = (bought(&self.shoppers) - before) as f64;
        let cpu = self.server.process().cpu() - cpu;
        (bought / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / bought)
    }
}

fn main() {
    raise_handle_limit(11_000);
    let run = Duration::from_millis(sized(2_000, 300));
    let mut sides = [
        Side::open("nobody else waits", 0, Keep::Journal),
        Side::open("10,000 wait on streams", sized(WAITING, 500), Keep::Journal),
        Side::open("nobody else waits, no journal", 0, Keep::Memory),
    ];
    let mut rate = Rounds::new("purchases, 64 connections", "/s");
    let mut cpu = Rounds::new("purchases, CPU time of one", "us");
    for side in &mut sides {
        side.load(run / 4);
    }
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        for side in &mut sides {
            let (purchases, us) = side.load(run);
            rate.add(side.name, purchases);
            cpu.add(side.name, us);
        }
    }
    rate.print();
    cpu.print();
}
