//! Show it, 7: houses, lines and expiries that have broken other systems by their numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::support::audit::trail;
use crate::support::batch::{LINES_MAX, batch, batch_text};
use crate::support::house::{self, Buyer, Sale, confirm, id, seats_of};
use crate::support::sse::Stream;
use crate::support::{Server, all_at_once, eventually};

/// `A-<row>-<seat>` for the `n`th seat of rows of 100.
fn seat(n: usize) -> String {
    format!("A-{}-{}", n / 100 + 1, n % 100 + 1)
}

fn parse_ms(text: &Value) -> i128 {
    let text = text.as_str().expect("a time is text");
    let time = OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339");
    time.unix_timestamp_nanos() / 1_000_000
}

/// Planted bug: seats are opened in the background and the first requests find a part of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_seats_are_opened_and_every_one_is_there() {
    const SEATS: usize = 500_000;
    let server = Server::start();
    let terms = json!({ "limit": 100_000 });
    let sale = Sale::open(&server, house::rows(SEATS / 100, 100), terms).await;
    let map = sale.map(&sale.admin).await;
    assert_eq!(map.states.len(), SEATS);
    assert!(map.states.values().all(|state| *state == 'f'));
    assert!((0..SEATS).all(|n| map.states.contains_key(&seat(n))));
    let stats = sale.stats().await;
    assert_eq!((&stats["capacity"], &stats["free"]), (&json!(SEATS), &json!(SEATS)));
    // The first, the last and every thousandth can really be taken.
    let buyer = house::buyer(&server).await;
    let wanted: Vec<usize> = (0..SEATS).step_by(1_000).chain([SEATS - 1]).collect();
    let line = |n: &usize| {
        let seats = [seat(*n)];
        json!({ "idempotency_key": format!("k{n}"), "buyer": buyer.user_id, "seats": seats })
    };
    let answers = batch(&sale, &wanted.iter().map(line).collect::<Vec<_>>()).await;
    assert!(answers.iter().all(|answer| answer["status"] == 201), "{:?}", answers[0]);
    assert_eq!(sale.stats().await["held"], wanted.len());
}

/// Rule R12. Planted bug: the timing wheel loses the timers of a slot beyond its first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seventy_thousand_holds_that_end_in_one_second_are_all_free_after_it() {
    const HOLDS: usize = 70_000;
    const BUYERS: usize = 70;
    const LEAD: Duration = Duration::from_secs(25);
    let server = Server::start();
    let terms = json!({ "limit": 100_000 });
    let sale = Sale::open(&server, house::rows(HOLDS / 100 + 10, 100), terms).await;
    let buyers = house::buyers(&server, BUYERS).await;
    let keeper = house::buyer(&server).await;
    let kept = sale.held(&keeper, &["A-710-1", "A-710-2"]).await;

    let end = Instant::now() + LEAD;
    for first in (0..HOLDS).step_by(LINES_MAX) {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as usize;
        let line = |n: usize| {
            let buyer = buyers[n % BUYERS].user_id;
            json!({ "idempotency_key": format!("h{n}"), "buyer": buyer,
                    "seats": [seat(n)], "ttl_ms": left })
        };
        let lines: Vec<Value> = (first..first + LINES_MAX).map(line).collect();
        let answers = batch(&sale, &lines).await;
        assert!(answers.iter().all(|answer| answer["status"] == 201), "{:?}", answers[0]);
    }
    assert_eq!(sale.stats().await["held"], HOLDS + 2);
    assert!(Instant::now() < end - Duration::from_secs(1), "the load took longer than {LEAD:?}");

    let selling = tokio::spawn(sell_through(sale.clone(), keeper.clone(), end));
    tokio::time::sleep_until(end + Duration::from_millis(500)).await;
    eventually("all seventy thousand are free", Duration::from_secs(5), async || {
        (sale.stats().await["held"] == 2).then_some(())
    })
    .await;
    let slowest = selling.await.expect("selling went on");
    eprintln!("slowest sale while they expired: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "others waited {slowest:?}");
    let stats = sale.stats().await;
    let capacity = house::number(&stats, "capacity");
    let taken = house::number(&stats, "held") + house::number(&stats, "sold");
    assert_eq!(house::number(&stats, "free") + taken, capacity);
    confirm(&keeper, &kept).await.expect(200);
    check_deadlines(&sale, HOLDS).await;
}

/// Sells one seat after the other until a second after `end`; gives the longest time of one sale.
async fn sell_through(sale: Sale, keeper: Buyer, end: Instant) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 3.. {
        if Instant::now() > end + Duration::from_secs(1) || n > 690 {
            break;
        }
        let start = Instant::now();
        sale.bought(&keeper, &[&format!("A-{}-{}", 703 + n / 100, n % 100 + 1)]).await;
        slowest = slowest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

/// By the trail every hold expired, none before its deadline, and nearly all within 10 ms of it.
async fn check_deadlines(sale: &Sale, holds: usize) {
    let events = trail(sale, 9_999).await;
    let expired: Vec<&Value> = events.iter().filter(|e| e["type"] == "expired").collect();
    assert_eq!(expired.len(), holds);
    let once: BTreeSet<&str> = expired.iter().filter_map(|e| e["hold_id"].as_str()).collect();
    assert_eq!(once.len(), holds, "each hold expires once");
    let first = expired.iter().map(|e| parse_ms(&e["at"])).min().expect("some");
    let last = expired.iter().map(|e| parse_ms(&e["at"])).max().expect("some");
    eprintln!("expired within {} ms", last - first);
    assert!(last - first < 10_000, "the deadlines were a few seconds apart at most");
}

/// Planted bug: the line's counters are sized for small houses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_of_a_hundred_thousand_has_a_line() {
    const BUYERS: usize = 300;
    let server = Server::start();
    let line = json!({ "mode": "fifo", "max_active": 100, "rate_per_s": 1_000 });
    let terms = json!({ "line": line });
    let sale = Sale::open(&server, house::rows(1_000, 100), terms).await;
    let buyers = house::buyers(&server, BUYERS).await;
    let tasks = buyers.iter().cloned().map(|buyer| (sale.clone(), buyer));
    let replies = all_at_once(tasks, async |(sale, buyer): (Sale, Buyer)| {
        buyer.client.post_empty(&sale.path("/line")).await
    })
    .await;
    let numbers: BTreeSet<u64> =
        replies.into_iter().map(|reply| house::number(&reply.expect(201), "number")).collect();
    assert_eq!(numbers, (1..=BUYERS as u64).collect());
    eventually("a hundred are admitted", Duration::from_secs(10), async || {
        (sale.stats().await["line"]["active"] == 100).then_some(())
    })
    .await;
    assert_eq!(sale.stats().await["line"]["waiting"], BUYERS - 100);
}

/// Planted bug: a stream without an entry takes a place among the streams and polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_someone_who_is_not_in_line_starves_nobody() {
    let server = Server::start();
    let line = json!({ "mode": "fifo", "max_active": 1, "rate_per_s": 1_000 });
    let sale = Sale::open(&server, house::rows(1, 10), json!({ "line": line })).await;
    let strangers = house::buyers(&server, 20).await;
    let buyers = house::buyers(&server, 2).await;
    let path = sale.path("/line/stream");
    for buyer in &buyers {
        buyer.client.post_empty(&sale.path("/line")).await.expect(201);
    }
    let mut stream = Stream::open(&buyers[1].client, &path, None).await.expect("in line");
    let asking = strangers.into_iter().map(|stranger| (stranger, path.clone()));
    let asking = all_at_once(asking, async |(stranger, path): (Buyer, String)| {
        for _ in 0..20 {
            let refused = Stream::open(&stranger.client, &path, None).await;
            refused.map(drop).expect_err("not in line").refused(404, "not-in-line");
        }
    });
    let serving = async {
        stream.wait_for("position", Duration::from_secs(5)).await.expect("a position first");
        let left = buyers[0].client.delete(&sale.path("/line/me")).await;
        assert_eq!(left.status, 204);
        let admitted = stream.wait_for("admitted", Duration::from_secs(2)).await;
        assert!(admitted.is_some(), "the next was let in");
        sale.bought(&buyers[1], &["A-1-1"]).await;
    };
    tokio::join!(asking, serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_of_a_batch_is_answered_by_itself() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyers = house::buyers(&server, 2).await;
    let (one, two) = (buyers[0].user_id, buyers[1].user_id);
    let text = format!(
        "{}\nnot json\n{}\n{}\n{}\n{}\n",
        json!({ "idempotency_key": "a", "buyer": one, "seats": ["A-1-1"] }),
        json!({ "idempotency_key": "b", "buyer": two, "seats": ["A-1-1"] }),
        json!({ "idempotency_key": "c", "buyer": two, "best_available": { "count": 2 } }),
        json!({ "idempotency_key": "d", "buyer": two, "seats": ["Z-9-9"] }),
        json!({ "idempotency_key": "e", "buyer": two, "seats": ["A-1-2"], "surprise": 1 }),
    );
    let reply = batch_text(&sale.admin, &sale, text.clone()).await;
    assert_eq!(reply.status, 200);
    let answers: Vec<Value> =
        reply.text().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let statuses: Vec<_> = answers.iter().map(|a| a["status"].as_u64().unwrap_or(0)).collect();
    assert_eq!(statuses, [201, 400, 409, 201, 400, 400], "{answers:?}");
    let codes: Vec<_> = answers.iter().filter_map(|a| a["code"].as_str()).collect();
    assert_eq!(codes, ["bad-request", "seat-unavailable", "unknown-seat", "bad-request"]);
    assert_eq!(seats_of(&answers[0]["seats"]), ["A-1-1"]);
    // The holds are the buyers', and the same keys find the same holds.
    confirm(&buyers[0], &id(&answers[0], "hold_id")).await.expect(200);
    let again = batch_text(&sale.admin, &sale, text).await.text();
    let again: Value = serde_json::from_str(again.lines().nth(3).expect("six")).expect("JSON");
    assert_eq!(again["hold_id"], answers[3]["hold_id"]);
    // The door is for partners.
    let buyer = &buyers[0].client;
    batch_text(buyer, &sale, String::new()).await.refused(403, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_too_many_lines_is_refused_whole() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let line = json!({ "idempotency_key": "a", "buyer": 1, "seats": ["A-1-1"] });
    let text = format!("{line}\n").repeat(LINES_MAX + 1);
    let reply = batch_text(&sale.admin, &sale, text).await;
    assert!(matches!(reply.status, 400 | 413), "{}", reply.text());
    assert_eq!(sale.stats().await["held"], 0);
}
