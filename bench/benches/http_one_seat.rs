//! Everybody wants one seat: from the first request sent to the last answer, for 100 buyers and for
//! 10,000, each on a connection of his own; with a journal and without.
//!
//! `cargo bench -p tmomi-bench --bench http_one_seat`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::bare::{self, BareStack};
use tmomi_bench::socket::buyers::{Rival, Script};
use tmomi_bench::socket::crowd::Crowd;
use tmomi_bench::socket::house::{self, Buyer, House};
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::{raise_handle_limit, sized};

const ROUNDS: u32 = 5;
const CROWDS: [usize; 2] = [100, 10_000];

fn main() {
    if bare::was_baseline() {
        return;
    }
    raise_handle_limit(11_000);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let stack = BareStack::start();
    let most = sized(CROWDS[1], 500);
    let sides = [("the sale", Keep::Journal), ("the sale, no journal", Keep::Memory)];
    let sides = sides.map(|(name, keep)| Side::open(name, Server::start(target, keep), most));
    let mut tables = CROWDS.map(|count| {
        let count = count.min(most);
        (count, Rounds::new(format!("{count} buyers, one seat, to the last answer"), "ms"))
    });
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        for (n, (count, table)) in tables.iter_mut().enumerate() {
            let seat = round * CROWDS.len() as u32 + n as u32;
            let (ms, _) = sides[0].race(stack.address, *count, seat);
            table.add("same stack, empty answer", ms);
            for side in &sides {
                let (ms, winners) = side.race(side.server.address(), *count, seat);
                assert_eq!(winners, 1, "one of {count} has the seat");
                table.add(side.name, ms);
            }
        }
    }
    tables.iter().for_each(|(_, table)| table.print());
}

/// A house and who wants its seats.
struct Side {
    name: &'static str,
    server: Server,
    house: House,
    buyers: Vec<Buyer>,
}

impl Side {
    fn open(name: &'static str, server: Server, buyers: usize) -> Side {
        let house = House::open(&server, 1_000, &json!({}));
        let buyers = house::buyers(&server, buyers);
        // Whoever is there at the start of a sale has been seen before.
        let known = Script::requests("GET", "/v1/me", &buyers).into_iter();
        Crowd::connect(server.address(), 64).to_the_end(&mut Script::crowd(known, 64));
        Side { name, server, house, buyers }
    }

    /// The first `count` buyers ask for one seat at once, at `address`. Gives the time to the last
    /// answer in ms, and how many were told that they have it.
    fn race(&self, address: SocketAddr, count: usize, seat: u32) -> (f64, usize) {
        let mut crowd = Crowd::connect(address, count);
        let rivals = self.buyers[..count].iter();
        let mut rivals: Vec<Rival> =
            rivals.map(|buyer| Rival::new(&self.house, buyer, seat)).collect();
        let outcome = crowd.to_the_end(&mut rivals);
        let winners = rivals.iter().filter(|rival| rival.heard == 201).count();
        (outcome.took.as_secs_f64() * 1e3, winners)
    }
}
