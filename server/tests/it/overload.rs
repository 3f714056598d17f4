//! Limits by address and user, floods, and a server that has too much to do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::faults::journal_files;
use crate::support::batch::{LINES_MAX, batch};
use crate::support::house::{self, Buyer, PASSWORD, Sale, fresh_email, id, release};
use crate::support::raw::Raw;
use crate::support::sse::Stream;
use crate::support::tools::Strace;
use crate::support::{Client, Launch, Reply, Server, all_at_once};

/// A server that keeps its limits, with some of them small.
fn limited(settings: &[(&str, &str)]) -> Server {
    let launch = Launch::new()
        .unset("TMOMI_RATE_LIMITS")
        .unset("TMOMI_ADDRESS_CONNECTIONS_MAX")
        .set("TMOMI_SIGNUP_RATE_PER_H", "1000")
        .set("TMOMI_SIGNIN_RATE_PER_MIN", "1000")
        .set("TMOMI_ADDRESS_RATE_PER_S", "10000")
        .set("TMOMI_USER_RATE_PER_S", "10000");
    settings.iter().fold(launch, |launch, (name, value)| launch.set(name, value)).start()
}

#[track_caller]
fn says_when(reply: &Reply) {
    let seconds: u64 = reply.header("retry-after").parse().expect("Retry-After in seconds");
    assert!(seconds <= 3_600, "{seconds}");
    assert!(reply.json()["retry_after_ms"].is_u64(), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_of_one_address_are_429() {
    let server = limited(&[("TMOMI_ADDRESS_RATE_PER_S", "20")]);
    let stranger = Client::stranger(server.address());
    let tasks = (0..200).map(|_| stranger.clone());
    let replies = all_at_once(tasks, async |client: Client| client.get("/v1/shows").await).await;
    let refused: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(refused.len() > 50, "{} of 200 were refused", refused.len());
    for reply in refused {
        reply.refused(429, "rate-limited");
        says_when(reply);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(stranger.get("/v1/shows").await.status, 200, "the limit passes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guessing_is_429() {
    let server = limited(&[("TMOMI_SIGNIN_RATE_PER_MIN", "5")]);
    let stranger = Client::stranger(server.address());
    let email = fresh_email();
    let account = json!({ "email": email, "password": PASSWORD });
    stranger.post("/v1/auth/signup", account).await.expect(201);
    let mut statuses = Vec::new();
    for n in 0..12 {
        let guess = json!({ "email": email, "password": format!("guess number {n}") });
        let reply = stranger.post("/v1/auth/signin", guess).await;
        if reply.status == 429 {
            reply.refused(429, "rate-limited");
            says_when(&reply);
        }
        statuses.push(reply.status);
    }
    assert_eq!(&statuses[..4], [401; 4], "{statuses:?}");
    assert_eq!(&statuses[8..], [429; 4], "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holding_and_releasing_in_circles_is_429_after_a_while() {
    let server = limited(&[("TMOMI_HOLD_RATE_PER_MIN", "20")]);
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyers = house::buyers(&server, 2).await;
    let mut refused = None;
    for _ in 0..60 {
        let reply = sale.hold(&buyers[0], &["A-1-1"]).await;
        if reply.status != 201 {
            refused = Some(reply);
            break;
        }
        assert_eq!(release(&buyers[0], &id(&reply.json(), "hold_id")).await.status, 204);
    }
    let refused = refused.expect("the circle ends");
    refused.refused(429, "rate-limited");
    says_when(&refused);
    sale.held(&buyers[1], &["A-1-1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_streams_of_one_user_are_429() {
    let server = limited(&[("TMOMI_USER_STREAMS_MAX", "3")]);
    let line = json!({ "mode": "paused", "max_active": 1, "rate_per_s": 1 });
    let sale = Sale::open(&server, house::rows(2, 10), json!({ "line": line })).await;
    let buyer = house::buyer(&server).await;
    buyer.client.post_empty(&sale.path("/line")).await.expect(201);
    let path = sale.path("/line/stream");
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Stream::open(&buyer.client, &path, None).await.expect("a stream"));
    }
    let refused = Stream::open(&buyer.client, &path, None).await.map(drop);
    refused.expect_err("one too many").refused(429, "rate-limited");
    drop(open.pop());
    crate::support::eventually("a place is free again", Duration::from_secs(5), async || {
        Stream::open(&buyer.client, &path, None).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_of_one_address_are_refused() {
    let server = limited(&[("TMOMI_ADDRESS_CONNECTIONS_MAX", "20")]);
    // The connections that asked whether it is ready count until they are seen to be closed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(Raw::connect(server.address()).await);
    }
    let mut closed = 0;
    for _ in 0..10 {
        let mut raw = Raw::connect(server.address()).await;
        raw.send(b"GET /v1/shows HTTP/1.1\r\nHost: t\r\n\r\n").await;
        let outcome = raw.read_to_close(Duration::from_secs(2)).await;
        closed += usize::from(outcome.closed && outcome.status() != 200);
    }
    assert!(closed >= 9, "only {closed} of 10 were refused");
    drop(kept);
    crate::support::eventually("there is room again", Duration::from_secs(5), async || {
        let client = Client::stranger(server.address());
        let reply = client.attempt(hyper::Method::GET, "/v1/shows", None, None).await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
}

/// Hashing is slow on purpose; a flood of it must not be slow for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_passwords_is_bounded_and_then_503() {
    let server = Launch::new().set("TMOMI_HASH_QUEUE_MAX", "8").start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let flood: Vec<_> = (0..300).map(|n| (buyer.client.clone(), n)).collect();
    let flood = tokio::spawn(all_at_once(flood, async |(client, n): (Client, u32)| {
        let body = json!({ "email": format!("nobody{n}@crowd.test"), "password": PASSWORD });
        let reply = client.post("/v1/auth/signin", body).await;
        if reply.status == 503 {
            says_when(&reply);
        }
        (reply.status, reply.code())
    }));
    let start = tokio::time::Instant::now();
    sale.bought(&buyer, &["A-1-1"]).await;
    assert!(start.elapsed() < Duration::from_secs(5), "a sale took {:?}", start.elapsed());
    let mut counts: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for answer in flood.await.expect("the flood ends") {
        *counts.entry(answer).or_default() += 1;
    }
    let codes: Vec<_> = counts.keys().map(|(status, code)| (*status, code.as_str())).collect();
    assert_eq!(codes, [(401, "bad-credentials"), (503, "overloaded")], "{counts:?}");
}

/// More requests than the server takes at a time: 503 before any work, and nothing was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_503_with_a_time_and_changes_nothing() {
    let server = Launch::new().set("TMOMI_REQUESTS_MAX", "4").start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&server).await;
    let tasks = (0..600).map(|n| (sale.clone(), buyer.clone(), n));
    let replies = all_at_once(tasks, async |(sale, buyer, n): (Sale, Buyer, usize)| {
        sale.hold(&buyer, &[&format!("A-{}-{}", n / 60 + 1, n % 60 + 1)]).await
    })
    .await;
    let held = replies.iter().filter(|reply| reply.status == 201).count();
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        reply.refused(503, "overloaded");
        says_when(reply);
    }
    eprintln!("{held} of 600 were held");
    assert!(held > 0);
    assert_eq!(sale.stats().await["held"], held, "what was refused was not done");
}

/// The disk stands still until two batches have filled the ring: their lines wait for room, and
/// none is refused. Planted bug: a line that finds the ring full is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_a_batch_wait_for_room() {
    const ROW: usize = 100;
    // The least there may be: room for some 6,400 events beside what every thread may still add.
    let server = Launch::new().set("TMOMI_RING_SLOTS", "32768").start();
    let terms = json!({ "limit": 2 * LINES_MAX });
    let sale = Sale::open(&server, house::rows(2 * LINES_MAX / ROW, ROW), terms).await;
    let buyers = house::buyers(&server, 2).await;
    let journal = journal_files(&server);
    let strace = Strace::attach(server.pid(), "fdatasync", "delay_enter=3000000", &journal);
    let batches = buyers.iter().zip(0..).map(|(buyer, n)| (sale.clone(), buyer.user_id, n));
    let batches: Vec<_> = batches.collect();
    let batches = tokio::spawn(all_at_once(batches, async |(sale, buyer, n)| {
        let seat = |k: usize| format!("A-{}-{}", (n * LINES_MAX + k) / ROW + 1, k % ROW + 1);
        let line = |k| {
            let seats = [seat(k)];
            json!({ "idempotency_key": format!("{n}-{k}"), "buyer": buyer, "seats": seats })
        };
        batch(&sale, &(0..LINES_MAX).map(line).collect::<Vec<_>>()).await
    }));
    let stranger = Client::stranger(server.address());
    crate::support::eventually("the ring is half full", Duration::from_secs(9), async || {
        let text = stranger.get("/metrics").await.text();
        let depth = text.lines().find_map(|line| line.strip_prefix("tmomi_ring_depth "))?;
        depth.parse::<u32>().is_ok_and(|depth| depth > 3_000).then_some(())
    })
    .await;
    // Long enough for all lines, if they do not wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!batches.is_finished(), "nobody waited");
    drop(strace);
    for answers in batches.await.expect("no line is lost") {
        let refused = answers.iter().find(|answer| answer["status"] != 201);
        assert!(refused.is_none(), "{refused:?}");
    }
    assert_eq!(sale.stats().await["held"], 2 * LINES_MAX);
}
