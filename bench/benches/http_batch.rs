//! Holds a second through `holds:batch`, 10,000 lines a request, on one connection and on eight.
//!
//! `cargo bench -p tmomi-bench --bench http_batch`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::house::{self, Buyer, House, seat};
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::sized;
use tmomi_bench::socket::wire::{Caller, Template};

const SEATS: u32 = 16_000_000;
const BUYERS_EACH: usize = 32;
const LINES: u32 = 10_000;
const ROUNDS: usize = 5;
/// Connections, and batches on all of them together in one round.
const LOADS: [(usize, u32); 2] = [(1, 8), (8, 32)];

/// A house with nothing sold, and where its free seats begin.
struct Side {
    name: &'static str,
    server: Server,
    house: House,
    buyers: Vec<Buyer>,
    next: u32,
}

impl Side {
    fn open(name: &'static str, keep: Keep) -> Side {
        let server = Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), keep);
        let house = House::open(&server, SEATS, &json!({}));
        let buyers = house::buyers(&server, BUYERS_EACH * LOADS[1].0);
        Side { name, server, house, buyers, next: 0 }
    }

    /// A request for the next free seats on a connection. Each has buyers of its own: a buyer's
    /// parallel holds wait for each other.
    fn batch(&mut self, connection: usize) -> Vec<u8> {
        let mut body = String::with_capacity(LINES as usize * 100);
        for n in self.next..self.next + LINES {
            let buyer = n as usize % BUYERS_EACH + connection * BUYERS_EACH;
            let buyer = self.buyers[buyer].user_id;
            writeln!(
                body,
                "{{\"idempotency_key\":\"{n:016x}\",\"buyer\":{buyer},\"seats\":[\"{}\"]}}",
                seat(n)
            )
            .expect("memory takes it");
        }
        self.next += LINES;
        let mut request = Vec::with_capacity(body.len() + 1_024);
        let token = Some(self.house.admin_token.as_str());
        let template = Template::new("POST", &self.house.path("/holds:batch"), token);
        template.push(&mut request, "application/x-ndjson", body.as_bytes());
        request
    }

    /// Holds a second, and the CPU time of the server for one, in us.
    fn load(&mut self, connections: usize, batches: u32) -> (f64, f64) {
        let mut callers: Vec<(Caller, Vec<Vec<u8>>)> = (0..connections)
            .map(|_| (Caller::connect(self.server.address()), Vec::new()))
            .collect();
        for n in 0..batches as usize {
            let connection = n % connections;
            callers[connection].1.push(self.batch(connection));
        }
        let (before, start) = (self.server.process().cpu(), Instant::now());
        std::thread::scope(|scope| {
            for (caller, requests) in &mut callers {
                scope.spawn(|| requests.iter().for_each(|request| exchange(caller, request)));
            }
        });
        let (took, cpu) = (start.elapsed(), self.server.process().cpu() - before);
        let holds = f64::from(batches * LINES);
        (holds / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / holds)
    }
}

fn exchange(caller: &mut Caller, request: &[u8]) {
    let (status, answer) = caller.exchange(request);
    let mut lines = answer.split_inclusive(|byte| *byte == b'\n');
    let refused = lines.find(|line| !line.starts_with(b"{\"status\":201,"));
    assert!(status == 200 && refused.is_none(), "{status} {:?}", refused.map(<[u8]>::escape_ascii));
}

fn main() {
    let mut sides = [Side::open("journal", Keep::Journal), Side::open("memory", Keep::Memory)];
    let mut rate = Rounds::new("holds:batch", "holds/s");
    let mut cpu = Rounds::new("holds:batch, CPU time of a hold", "us");
    for side in &mut sides {
        side.load(1, 1);
    }
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        for side in &mut sides {
            for (connections, batches) in LOADS {
                let (holds, us) = side.load(connections, sized(batches, connections as u32));
                let name = format!("{}, connections: {connections}", side.name);
                rate.add(&name, holds);
                cpu.add(&name, us);
            }
        }
    }
    rate.print();
    cpu.print();
}
