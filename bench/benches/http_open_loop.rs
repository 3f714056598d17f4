//! How long durable holds take at 25, 50 and 75 % of the rate that the server reaches: requests at
//! random planned times, each latency counted from its planned time.
//!
//! `cargo bench -p tmomi-bench --bench http_open_loop`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tmomi_bench::Rng;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::buyers::{Holder, Seats};
use tmomi_bench::socket::crowd::Crowd;
use tmomi_bench::socket::house::{self, House};
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::{raise_handle_limit, sized};

const SEATS: u32 = 10_000_000;
const CONNECTIONS: usize = 256;
const ROUNDS: usize = 5;
/// Parts of the peak, in per cent.
const PARTS: [u32; 3] = [25, 50, 75];
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

fn main() {
    raise_handle_limit(2_048);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = Duration::from_millis(sized(1_500, 200));
    let mut rng = Rng::new(7);
    let mut peaks = Rounds::new("peak rate, closed loop of 256 connections", "/s");
    let mut tables: Vec<Rounds> = Vec::new();
    let mut sides: Vec<_> = [("hold, journal", Keep::Journal), ("hold, no journal", Keep::Memory)]
        .into_iter()
        .map(|(name, keep)| {
            let server = Server::start(target, keep);
            let house = House::open(&server, SEATS, &json!({}));
            let buyers = house::buyers(&server, CONNECTIONS);
            let mut crowd = Crowd::connect(server.address(), CONNECTIONS);
            let mut guests = Holder::crowd(&house, &buyers, CONNECTIONS, &Seats::default());
            crowd.closed(&mut guests, run / 2);
            for part in PARTS {
                tables.push(Rounds::new(format!("{name}, {part} % of its peak"), "ms"));
            }
            (name, server, crowd, guests)
        })
        .collect();
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        for (side, (name, _server, crowd, guests)) in sides.iter_mut().enumerate() {
            let peak = crowd.closed(guests, run / 2).rate();
            peaks.add(name, peak);
            for (n, part) in PARTS.into_iter().enumerate() {
                let rate = peak * f64::from(part) / 100.0;
                let outcome = crowd.open(guests, rate, run, &mut rng);
                for (quantile, at) in QUANTILES {
                    tables[side * PARTS.len() + n].add(quantile, outcome.ms(at));
                }
            }
        }
    }
    peaks.print();
    tables.iter().for_each(Rounds::print);
}
