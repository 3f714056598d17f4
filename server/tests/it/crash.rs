//! Show it, 5: `kill -9` under load, again and again, and nothing that anyone was told is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use crate::history::{self, Call, Kind, Record, Reply, Terms};
use crate::support::actor::{Actor, Notebook};
use crate::support::audit::{Ledger, Owned, trail};
use crate::support::house::{self, Sale};
use crate::support::random::Random;
use crate::support::{Launch, Server};

const ROUNDS_DEFAULT: usize = 50;
const ACTORS: usize = 16;
const LIMIT: usize = 12;
/// The server lives at least this long under load, and up to as much again plus some.
const LIFE_MS: std::ops::Range<u64> = 20..600;
/// Old holds and orders that are looked up again after each crash; at the end it is all of them.
const SAMPLE: usize = 100;

fn rounds() -> usize {
    let rounds = std::env::var("TMOMI_TEST_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok());
    rounds.unwrap_or(ROUNDS_DEFAULT)
}

fn launch() -> Launch {
    // A token must outlive all rounds, and small segments make the journal change files often.
    Launch::new().set("TMOMI_ACCESS_TTL_S", "3600").set("TMOMI_SEGMENT_BYTES", "1048576")
}

async fn open_sale(server: &Server) -> Sale {
    let line = json!({ "mode": "fifo", "max_active": 100_000, "rate_per_s": 100_000,
                       "session_ms": 3_600_000, "grace_ms": 3_600_000 });
    let terms = json!({ "limit": LIMIT, "line": line });
    Sale::open(server, house::rows(20, 60), terms).await
}

/// Rules R1 to R6, R10, R11. Planted bugs: the sync is skipped; keys are left out of the snapshot;
/// numbers come from memory after a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let mut random = Random::from_environment();
    let mut server = launch().start();
    let sale = open_sale(&server).await;
    let notebook = Arc::new(Notebook::default());
    let mut actors = Vec::new();
    for buyer in house::buyers(&server, ACTORS).await {
        actors.push(Actor::new(buyer, sale.clone(), notebook.clone(), random.split()));
    }
    for round in 0..rounds() {
        // One new buyer a round, so that there are always joins to be lost.
        let place = round % ACTORS;
        let buyer = house::buyer(&server).await;
        actors[place] = Actor::new(buyer, sale.clone(), notebook.clone(), random.split());
        let (stop, stopped) = watch::channel(false);
        let tasks: Vec<_> = actors
            .drain(..)
            .map(|mut actor| {
                let stopped = stopped.clone();
                tokio::spawn(async move {
                    actor.act_until(stopped).await;
                    actor
                })
            })
            .collect();
        let life = LIFE_MS.start + random.next() % (LIFE_MS.end - LIFE_MS.start);
        tokio::time::sleep(Duration::from_millis(life)).await;
        let launch = server.kill();
        stop.send(true).expect("the actors listen");
        for task in tasks {
            actors.push(task.await.expect("an actor's task"));
        }
        server = launch.start();
        for actor in &mut actors {
            actor.settle().await;
        }
        look_around(&sale, &notebook, &mut random, SAMPLE).await;
        assert_sound(&notebook, round);
    }
    look_around(&sale, &notebook, &mut random, usize::MAX).await;
    assert_sound(&notebook, rounds());
    compare_with_trail(&sale, &notebook).await;
    summarise(&notebook);
}

/// Reads some of what buyers were told, and the map.
async fn look_around(sale: &Sale, notebook: &Notebook, random: &mut Random, count: usize) {
    let records = notebook.records();
    let mut holds = BTreeMap::new();
    let mut orders = BTreeMap::new();
    let mut joined = BTreeSet::new();
    for record in &records {
        match &record.reply {
            Reply::Held { hold, .. } => drop(holds.insert(hold.clone(), record.buyer)),
            Reply::Confirmed { order, .. } => drop(orders.insert(order.clone(), record.buyer)),
            Reply::Number(_) => drop(joined.insert(record.buyer)),
            _ => {}
        }
    }
    let holds: Vec<_> = holds.into_iter().collect();
    let orders: Vec<_> = orders.into_iter().collect();
    let joined: Vec<_> = joined.into_iter().collect();
    for (hold, buyer) in random.sample(&holds, count) {
        notebook.read(buyer, sale, Call::ReadHold { hold }).await;
    }
    for (order, buyer) in random.sample(&orders, count) {
        notebook.read(buyer, sale, Call::ReadOrder { order }).await;
    }
    for buyer in random.sample(&joined, count) {
        notebook.read(buyer, sale, Call::ReadNumber).await;
    }
    if let Some(buyer) = random.pick(&joined) {
        notebook.read(*buyer, sale, Call::ReadMap).await;
    }
}

#[track_caller]
fn assert_sound(notebook: &Notebook, round: usize) {
    let faults = history::check(&notebook.records(), Terms { limit: LIMIT });
    for fault in faults.iter().take(20) {
        eprintln!("{fault}");
    }
    let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
    assert!(faults.is_empty(), "after round {round}: {} faults of {kinds:?}", faults.len());
}

/// The house's own account, added up, has every acknowledged order and nothing else.
async fn compare_with_trail(sale: &Sale, notebook: &Notebook) {
    let ledger = Ledger::of(&trail(sale, 9_999).await);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let records = notebook.records();
    let gone: BTreeSet<&str> = records
        .iter()
        .filter_map(|record| match (&record.call, &record.reply) {
            (Call::Refund { order }, Reply::Done { .. }) => Some(order.as_str()),
            _ => None,
        })
        .collect();
    for record in &records {
        let Reply::Confirmed { order, seats, .. } = &record.reply else { continue };
        if !gone.contains(order.as_str()) {
            told.extend(seats.iter().map(|seat| (seat.clone(), record.buyer)));
        }
    }
    let sold: BTreeMap<String, u64> = ledger
        .seats
        .iter()
        .filter_map(|(seat, owned)| match owned {
            Owned::Sold { user, .. } => Some((seat.clone(), *user)),
            _ => None,
        })
        .collect();
    assert_eq!(sold, told);
}

fn summarise(notebook: &Notebook) {
    let records = notebook.records();
    let count = |is: fn(&Record) -> bool| records.iter().filter(|r| is(r)).count();
    eprintln!(
        "{} calls, {} held, {} confirmed, {} unknown",
        records.len(),
        count(|r| matches!(r.reply, Reply::Held { .. })),
        count(|r| matches!(r.reply, Reply::Confirmed { .. })),
        count(|r| r.reply == Reply::Unknown),
    );
    assert!(count(|r| matches!(r.reply, Reply::Confirmed { .. })) > 0, "nothing was sold");
}

/// A start takes over what a crash left half done, without a wait that grows with the crashes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_rise_and_sequence_numbers_go_on_across_crashes() {
    let mut server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 20), json!({ "limit": 40 })).await;
    let buyer = house::buyer(&server).await;
    let mut last = (0, 0);
    for n in 1..=5 {
        let hold = sale.hold(&buyer, &[&format!("A-1-{n}")]).await.expect(201);
        let seq = crate::support::audit::seq_of(&hold);
        assert!(seq.0 > last.0 && seq.1 > last.1, "{last:?}, then {seq:?}");
        last = seq;
        server = server.crash();
    }
    let map = sale.map(&buyer.client).await;
    assert_eq!(map.states.values().filter(|state| **state == 'h').count(), 5);
}
