//! Houses of a hundred thousand and of ten million seats: they open, and what they weigh. How soon
//! is printed; the figures of the design are in docs/PERFORMANCE.md with their commands.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::Server;
use crate::support::house::{self, STARTS_AT, Sale, number};

/// 100,000 seats as a seat editor would write them: 50 zones of 40 rows of 50.
fn plan_of_a_hundred_thousand() -> Value {
    let seat = |zone: usize, row: usize, seat: usize| {
        json!({ "seat_guid": format!("Z{zone}-{row}-{seat}"), "seat_number": seat.to_string(),
                "position": { "x": 20.5 * seat as f64, "y": 0 }, "category": "Standard" })
    };
    let row = |zone: usize, row: usize| {
        let seats: Vec<Value> = (1..=50).map(|n| seat(zone, row, n)).collect();
        json!({ "row_number": row.to_string(), "position": { "x": 0, "y": 25 * row },
                "seats": seats })
    };
    let zone = |zone: usize| {
        let rows: Vec<Value> = (1..=40).map(|n| row(zone, n)).collect();
        json!({ "name": format!("Z{zone}"), "position": { "x": 1_100 * zone, "y": 0 },
                "rows": rows })
    };
    let zones: Vec<Value> = (1..=50).map(zone).collect();
    json!({ "name": "Stadium", "categories": [{ "name": "Standard", "color": "#ccc" }],
            "zones": zones })
}

/// Puts the plan and opens a showtime; gives the showtime's number and the time of the two calls.
async fn open(server: &Server, plan: Value, tier: &str) -> (Sale, Duration) {
    let admin = house::admin(server).await;
    let body = json!({ "name": "Stadium" });
    let venue = number(&admin.post("/v1/admin/venues", body).await.expect(201), "venue_id");
    let body = json!({ "name": "Show", "venue_id": venue });
    let show = number(&admin.post("/v1/admin/shows", body).await.expect(201), "show_id");
    let request = admin.request(
        hyper::Method::PUT,
        &format!("/v1/admin/venues/{venue}/plan"),
        None,
        Some(plan),
    );
    let body = json!({ "show_id": show, "starts_at": STARTS_AT, "currency": "EUR",
                       "prices": { tier: 1_000 } });
    let start = Instant::now();
    admin.send(request).await.expect(200);
    let showtime = admin.post("/v1/admin/showtimes", body).await.expect(201);
    let took = start.elapsed();
    let showtime = number(&showtime, "showtime_id");
    (Sale { admin, venue, show, showtime }, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_seats_of_a_plan_open() {
    let server = Server::start();
    let plan = plan_of_a_hundred_thousand();
    let (sale, took) = open(&server, plan, "Standard").await;
    eprintln!("opened in {took:?}");
    let buyer = house::buyer(&server).await;
    sale.bought(&buyer, &["Z50-40-50", "Z1-1-1"]).await;
    assert_eq!(sale.stats().await["capacity"], 100_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_million_seats_open_in_less_than_100_mb() {
    let server = Server::start();
    // Hashing a password takes 19 MiB, which the process keeps for the next one.
    let (_, buyer) = (house::admin(&server).await, house::buyer(&server).await);
    let before = server.resident_bytes();
    let section = |n: usize| {
        let name = format!("S{n}");
        json!({ "name": name, "tier": "T", "rows": 10_000, "seats_per_row": 100 })
    };
    let sections: Vec<Value> = (1..=10).map(section).collect();
    let plan = json!({ "generate": { "sections": sections } });
    let (sale, took) = open(&server, plan, "T").await;
    eprintln!("opened in {took:?}");
    sale.bought(&buyer, &["S10-10000-100", "S1-1-1"]).await;
    assert_eq!(sale.stats().await["free"], 10_000_000 - 2);
    let grown = server.resident_bytes().saturating_sub(before);
    eprintln!("{} MB more than before", grown / 1_000_000);
    assert!(grown < 100_000_000, "ten million seats weigh {grown} bytes");
    // And they are there after a crash.
    let server = server.crash();
    assert_eq!(sale.stats().await["sold"], 2);
    drop(server);
}
