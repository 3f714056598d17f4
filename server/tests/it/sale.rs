//! Show it, 3 and 4: a house sold to the last seat, and one seat that everybody wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::audit::{Ledger, Owned, trail};
use crate::support::house::{self, Buyer, Sale, confirm, hall, id, list_all, release, seats_of};
use crate::support::http::Pool;
use crate::support::random::Random;
use crate::support::{Server, all_at_once};

const CLIENTS: usize = 64;
const LIMIT: usize = 4;
const HALL_SEATS: usize = 240;
const FLOOR: &str = "스탠딩";

/// Rules R1, R5, R11. Planted bug: the CAS of a block becomes a load and a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hall_is_sold_to_the_last_seat_and_every_order_can_be_read_back() {
    let server = Server::start();
    let sale = Sale::open(&server, hall(), json!({})).await;
    let random = Random::from_environment();
    let buyers = house::buyers(&server, CLIENTS).await;
    let tasks = buyers.iter().cloned().enumerate().map(|(i, buyer)| {
        let random = Random::new(random.clone().next() ^ i as u64);
        (sale.clone(), buyer, random)
    });
    all_at_once(tasks, async |(sale, buyer, random)| shop(&sale, &buyer, random).await).await;

    let mut owner_of = BTreeMap::new();
    let mut tickets = 0;
    for buyer in &buyers {
        tickets += read_back(&sale, buyer, &mut owner_of).await;
    }
    assert_eq!((tickets, owner_of.len()), (HALL_SEATS, HALL_SEATS), "each seat once");
    let stats = sale.stats().await;
    assert_eq!(stats["capacity"], HALL_SEATS);
    assert_eq!(
        (&stats["sold"], &stats["free"], &stats["held"]),
        (&240.into(), &0.into(), &0.into())
    );
    assert!(sale.map(&sale.admin).await.states.values().all(|state| *state == 's'));

    let ledger = Ledger::of(&trail(&sale, 100).await);
    assert_eq!(ledger.count("opened"), 1);
    let sold: BTreeMap<String, u64> = ledger
        .seats
        .into_iter()
        .map(|(seat, owned)| match owned {
            Owned::Sold { user, .. } => (seat, user),
            other => panic!("{seat} is {other:?} in a sold-out house"),
        })
        .collect();
    assert_eq!(sold, owner_of, "the trail added up is who owns what");
}

/// Buys until the limit is reached or nothing is left.
async fn shop(sale: &Sale, buyer: &Buyer, mut random: Random) {
    let mut owned = 0;
    while owned < LIMIT {
        let wish = 1 + random.below(LIMIT - owned);
        let Some(hold) = choose(sale, buyer, wish, &mut random).await else {
            if is_sold_out(sale, buyer).await {
                return;
            }
            continue;
        };
        // Some change their mind; what they give back must find another buyer.
        if random.chance(15) {
            assert_eq!(release(buyer, &hold).await.status, 204);
            continue;
        }
        let order = confirm(buyer, &hold).await.expect(200);
        assert_eq!(order["state"], "confirmed");
        owned += seats_of(&order["tickets"]).len();
    }
}

/// One attempt to hold `wish` seats: on the floor, anywhere, or chosen from the map.
async fn choose(sale: &Sale, buyer: &Buyer, wish: usize, random: &mut Random) -> Option<String> {
    let reply = match random.below(4) {
        0 => sale.best(buyer, json!({ "count": wish, "section": FLOOR })).await,
        1 => sale.best(buyer, json!({ "count": wish, "adjacent": true })).await,
        _ => {
            let free = sale.seats_in(&buyer.client, 'f').await;
            let seats = random.sample(&free, wish);
            if seats.is_empty() {
                sale.best(buyer, json!({ "count": 1, "adjacent": false })).await
            } else {
                let seats: Vec<&str> = seats.iter().map(String::as_str).collect();
                sale.hold(buyer, &seats).await
            }
        }
    };
    let hold = reply.json();
    match (reply.status, reply.code().as_str()) {
        (201, _) => {
            let seats = hold["seats"].as_array().expect("seats");
            assert_eq!(seats.len(), wish.min(seats.len()));
            let total: u64 = seats.iter().map(|seat| house::number(seat, "price")).sum();
            assert_eq!(house::number(&hold, "total"), total);
            assert_eq!(hold["currency"], "EUR");
            Some(id(&hold, "hold_id"))
        }
        (409, "seat-unavailable") => {
            assert!(!hold["conflicts"].as_array().expect("conflicts").is_empty());
            None
        }
        (409, "contended" | "no-adjacent-seats" | "sold-out") => None,
        other => panic!("{other:?}: {}", reply.text()),
    }
}

async fn is_sold_out(sale: &Sale, buyer: &Buyer) -> bool {
    let showtime = buyer.client.get(&sale.path("")).await.expect(200);
    let sections = showtime["sections"].as_array().expect("sections");
    sections.iter().all(|section| section["free"] == 0)
        && sale.seats_in(&buyer.client, 'h').await.is_empty()
        && sale.stats().await["sold"] == HALL_SEATS
}

/// Reads the orders and tickets of a buyer in every way there is; gives how many tickets.
async fn read_back(sale: &Sale, buyer: &Buyer, owner_of: &mut BTreeMap<String, u64>) -> usize {
    let orders = list_all(&buyer.client, "/v1/orders", "orders").await;
    let tickets = list_all(&buyer.client, "/v1/tickets", "tickets").await;
    let mut listed = BTreeSet::new();
    for order in &orders {
        let path = format!("/v1/orders/{}", id(order, "order_id"));
        let read = buyer.client.get(&path).await.expect(200);
        assert_eq!(read["state"], "confirmed");
        assert_eq!(read["showtime_id"], sale.showtime);
        assert_eq!(seats_of(&read["tickets"]), seats_of(&order["tickets"]));
        let prices = read["tickets"].as_array().expect("tickets").iter();
        let total: u64 = prices.map(|ticket| house::number(ticket, "price")).sum();
        assert_eq!(house::number(&read, "total"), total);
        for seat in seats_of(&read["tickets"]) {
            assert_eq!(owner_of.insert(seat.clone(), buyer.user_id), None, "{seat} sold twice");
            listed.insert(seat);
        }
    }
    assert!(listed.len() <= LIMIT, "{} has {} seats", buyer.email, listed.len());
    let mut seen = BTreeSet::new();
    for ticket in &tickets {
        let path = format!("/v1/tickets/{}", id(ticket, "ticket_id"));
        let read: Value = buyer.client.get(&path).await.expect(200);
        assert_eq!((&read["seat"], &read["state"]), (&ticket["seat"], &json!("valid")));
        seen.insert(id(ticket, "seat"));
    }
    assert_eq!(seen, listed, "the tickets are those of the orders");
    tickets.len()
}

/// Rule R1. Planted bug: the CAS of a block becomes a load and a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_requests_for_one_seat_one_gets_it() {
    const REQUESTS: usize = 10_000;
    const CONNECTIONS: usize = 256;
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(1, 10), json!({})).await;
    let buyers = house::buyers(&server, CONNECTIONS).await;
    let tasks = buyers.into_iter().enumerate().map(|(i, buyer)| {
        let share = REQUESTS / CONNECTIONS + usize::from(i < REQUESTS % CONNECTIONS);
        // A pool of its own, used by one task, is one connection.
        let buyer = buyer.on(Pool::new(buyer.client.pool.address()));
        (sale.clone(), buyer, share)
    });
    let answers = all_at_once(tasks, async |(sale, buyer, share)| {
        let mut answers = Vec::with_capacity(share);
        for _ in 0..share {
            let reply = sale.hold(&buyer, &["A-1-5"]).await;
            answers.push((reply.status, reply.code()));
        }
        answers
    })
    .await;
    let mut counts: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for answer in answers.into_iter().flatten() {
        *counts.entry(answer).or_default() += 1;
    }
    let count = |status: u16| -> usize {
        counts.iter().filter(|((s, _), _)| *s == status).map(|(_, count)| count).sum()
    };
    assert_eq!((count(201), count(409)), (1, REQUESTS - 1), "{counts:?}");
    let codes: BTreeSet<&str> = counts.keys().map(|(_, code)| code.as_str()).collect();
    assert!(codes.is_subset(&BTreeSet::from(["", "seat-unavailable", "contended"])), "{codes:?}");
    assert_eq!(sale.seats_in(&sale.admin, 'h').await, ["A-1-5"]);
}

/// Eight buyers and eight rows: who has a pool of connections to himself is served like others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_seats_come_from_the_front_and_together() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(8, 8), json!({ "limit": 8 })).await;
    let buyers = Arc::new(house::buyers(&server, 8).await);
    for (row, buyer) in buyers.iter().enumerate() {
        let hold = sale.best(buyer, json!({ "count": 8, "adjacent": true })).await.expect(201);
        let mut seats = seats_of(&hold["seats"]);
        seats.sort_unstable();
        let expected: Vec<String> = (1..=8).map(|n| format!("A-{}-{n}", row + 1)).collect();
        assert_eq!(seats, expected);
    }
    let last = sale.best(&house::buyer(&server).await, json!({ "count": 1 })).await;
    last.refused(409, "sold-out");
}
