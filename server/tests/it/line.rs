//! Show it, 6: a first-in-first-out line with 2,000 clients on streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::history::{self, Call, Record, Reply, Terms};
use crate::support::audit::trail;
use crate::support::house::{self, Buyer, Sale, number};
use crate::support::sse::Stream;
use crate::support::{Server, all_at_once, eventually};

const CLIENTS: usize = 2_000;
const MAX_ACTIVE: usize = 40;
/// Requests that are under way at a time while everybody joins.
const AT_ONCE: usize = 64;
const GRACE_MS: u64 = 4_000;

/// One buyer in the line.
struct Waiting {
    buyer: Buyer,
    number: u64,
    stream: Stream,
}

fn fifo(settings: Value) -> Value {
    let mut line = json!({ "mode": "fifo", "max_active": 1, "rate_per_s": 10_000 });
    let settings = settings.as_object().expect("settings").clone();
    line.as_object_mut().expect("an object").extend(settings);
    json!({ "line": line })
}

/// Rule R4, R14. Planted bugs: two counters; the abandoned count as active.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_on_streams_are_served_in_the_order_of_their_numbers() {
    let server = Server::start();
    let terms = fifo(json!({ "mode": "paused", "max_active": MAX_ACTIVE, "grace_ms": GRACE_MS }));
    let sale = Sale::open(&server, house::rows(100, 50), terms).await;
    let buyers = house::buyers(&server, CLIENTS).await;

    let numbers = join_all(&sale, &buyers).await;
    let path = sale.path("/line/stream");
    // The last but ten opens no stream: the abandoned one.
    let (abandoned, abandoned_number) = find(&numbers, CLIENTS as u64 - 10);
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let tasks = numbers.iter().filter(|(_, number)| *number != abandoned_number).cloned();
    let tasks = tasks.map(|(buyer, number)| (buyer, number, path.clone(), gate.clone()));
    let mut waiting = all_at_once(tasks, async |(buyer, number, path, gate)| {
        let _turn = gate.acquire().await.expect("the gate stays open");
        let mut stream = Stream::open(&buyer.client, &path, None).await.expect("in line");
        let first = stream.next(Duration::from_secs(10)).await.expect("a position first");
        assert_eq!((first.name.as_str(), &first.data["number"]), ("position", &json!(number)));
        Waiting { buyer, number, stream }
    })
    .await;
    waiting.sort_by_key(|waiting| waiting.number);
    reconnect_keeps_the_number(&sale, &mut waiting[CLIENTS / 2]).await;
    tokio::time::sleep(Duration::from_millis(GRACE_MS)).await;

    sale.set_line(json!({ "mode": "fifo" })).await;
    let served = serve_all(&sale, &mut waiting).await;
    let order: Vec<u64> = served.iter().map(|(number, _)| *number).collect();
    assert!(order.is_sorted(), "admitted in the order of the numbers");
    check_active(&sale).await;

    let passed = trail(&sale, 9_999).await;
    let passed: Vec<_> = passed.iter().filter(|event| event["type"] == "passed").collect();
    assert_eq!(passed.len(), 1, "only the abandoned one was passed over: {passed:?}");
    assert_eq!(passed[0]["number"], abandoned_number);
    comes_back(&sale, &abandoned, abandoned_number).await;
}

/// Joins everybody, some at a time; the history checker looks at the numbers.
async fn join_all(sale: &Sale, buyers: &[Buyer]) -> Vec<(Buyer, u64)> {
    let start = Instant::now();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let tasks = buyers.iter().cloned().map(|buyer| (sale.clone(), buyer, gate.clone()));
    let joined =
        all_at_once(tasks, move |(sale, buyer, gate): (Sale, Buyer, Arc<Semaphore>)| async move {
            let _turn = gate.acquire().await.expect("the gate stays open");
            let sent = start.elapsed().as_micros() as u64;
            let answer = buyer.client.post_empty(&sale.path("/line")).await.expect(201);
            let got = start.elapsed().as_micros() as u64;
            assert_eq!(answer["state"], "waiting");
            (buyer, number(&answer, "number"), sent, got)
        })
        .await;
    let record = |(buyer, number, sent, got): &(Buyer, u64, u64, u64)| Record {
        buyer: buyer.user_id,
        sent: *sent,
        got: *got,
        key: None,
        call: Call::Join,
        reply: Reply::Number(*number),
    };
    let records: Vec<Record> = joined.iter().map(record).collect();
    assert_eq!(history::check(&records, Terms { limit: 4 }), []);
    let mut numbers: Vec<u64> = joined.iter().map(|joined| joined.1).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=buyers.len() as u64).collect::<Vec<_>>());
    joined.into_iter().map(|(buyer, number, ..)| (buyer, number)).collect()
}

fn find(numbers: &[(Buyer, u64)], wanted: u64) -> (Buyer, u64) {
    numbers.iter().find(|(_, number)| *number == wanted).expect("all are given").clone()
}

/// A second tab, a lost connection: the number stays.
async fn reconnect_keeps_the_number(sale: &Sale, waiting: &mut Waiting) {
    let path = sale.path("/line");
    let again = waiting.buyer.client.post_empty(&path).await.expect(200);
    assert_eq!(again["number"], waiting.number);
    assert_eq!(again["ahead"], waiting.number - 1);
    let stream_path = sale.path("/line/stream");
    waiting.stream =
        Stream::open(&waiting.buyer.client, &stream_path, None).await.expect("in line");
    let first = waiting.stream.next(Duration::from_secs(5)).await.expect("the position");
    assert_eq!(first.data["number"], waiting.number);
}

/// Lets the house run until everybody was in: whoever is admitted leaves at once, and the last in
/// the line hears of every change within a second. Gives number and time of each admission, in
/// the order of the trail.
async fn serve_all(sale: &Sale, waiting: &mut [Waiting]) -> Vec<(u64, Instant)> {
    let mut admitted: BTreeMap<u64, Instant> = BTreeMap::new();
    let last = waiting.last().expect("a line").number;
    let mut unheard: Option<Instant> = None;
    let start = Instant::now();
    while admitted.len() < waiting.len() {
        assert!(start.elapsed() < Duration::from_secs(120), "{} were admitted", admitted.len());
        let mut leaving = Vec::new();
        for waiting in waiting.iter_mut() {
            for event in waiting.stream.drain() {
                if waiting.number == last {
                    unheard = unheard.filter(|change| event.at < *change);
                }
                if event.name == "admitted" && !admitted.contains_key(&waiting.number) {
                    admitted.insert(waiting.number, event.at);
                    leaving.push((sale.clone(), waiting.buyer.clone()));
                }
            }
        }
        let silence = unheard.map_or(Duration::ZERO, |change| change.elapsed());
        assert!(silence < Duration::from_secs(1), "no news at the end of the line: {silence:?}");
        if leaving.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        all_at_once(leaving, async |(sale, buyer): (Sale, Buyer)| {
            assert_eq!(buyer.client.delete(&sale.path("/line/me")).await.status, 204);
        })
        .await;
        if !admitted.contains_key(&last) {
            unheard.get_or_insert(Instant::now());
        }
    }
    let events = trail(sale, 9_999).await;
    let numbers = events.iter().filter(|event| event["type"] == "admitted");
    numbers.map(|event| number(event, "number")).map(|n| (n, admitted[&n])).collect()
}

/// By the trail there were never more active buyers than allowed.
async fn check_active(sale: &Sale) {
    let (mut active, mut most) = (std::collections::BTreeSet::new(), 0);
    for event in trail(sale, 9_999).await {
        match event["type"].as_str() {
            Some("admitted") => drop(active.insert(number(&event, "user_id"))),
            Some("left") => drop(active.remove(&number(&event, "user_id"))),
            _ => {}
        }
        most = most.max(active.len());
    }
    assert!(most <= MAX_ACTIVE, "{most} were active");
    assert!(most > MAX_ACTIVE / 2, "and the house was used: {most}");
}

/// Who was passed over is next as soon as he is back, with his number.
async fn comes_back(sale: &Sale, abandoned: &Buyer, expected: u64) {
    let path = sale.path("/line/me");
    eventually("the one who comes back is let in", Duration::from_secs(5), async || {
        let me = abandoned.client.get(&path).await.expect(200);
        assert_eq!(me["number"], expected);
        (me["state"] == "admitted").then_some(())
    })
    .await;
}

/// Every answer about an admitted entry has what the contract says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admitted_buyer_holds_without_sending_his_token() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), fifo(json!({}))).await;
    let buyers = house::buyers(&server, 2).await;
    let line = sale.path("/line");
    buyers[0].client.post_empty(&line).await.expect(201);
    buyers[1].client.post_empty(&line).await.expect(201);
    let me = sale.path("/line/me");
    let admitted = eventually("the first is admitted", Duration::from_secs(5), async || {
        let answer = buyers[0].client.get(&me).await.expect(200);
        (answer["state"] == "admitted").then_some(answer)
    })
    .await;
    for field in ["expires_at", "expires_in_ms", "admission_token"] {
        assert!(!admitted[field].is_null(), "{field} in {admitted}");
    }
    let second = buyers[1].client.get(&me).await.expect(200);
    assert_eq!((&second["state"], &second["ahead"]), (&json!("waiting"), &json!(0)));
    sale.hold(&buyers[1], &["A-1-2"]).await.refused(403, "admission-required");
    sale.bought(&buyers[0], &["A-1-1"]).await;
}

/// Leaving gives the number up for good; the next number is a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_never_given_twice() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), fifo(json!({ "mode": "paused" }))).await;
    let buyers = house::buyers(&server, 3).await;
    let (line, me) = (sale.path("/line"), sale.path("/line/me"));
    buyers[0].client.get(&me).await.refused(404, "not-in-line");
    let mut seen = Vec::new();
    for round in 0..5 {
        let buyer = &buyers[round % 3];
        seen.push(number(&buyer.client.post_empty(&line).await.expect(201), "number"));
        assert_eq!(buyer.client.delete(&me).await.status, 204);
        buyer.client.get(&me).await.refused(404, "not-in-line");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let server = server.crash();
    let next = buyers[0].client.post_empty(&line).await.expect(201);
    assert_eq!(next["number"], 6);
    drop(server);
}

/// Of ten in line the third leaves: those behind move up by one, those before do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_no_longer_ahead_of_anybody() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), fifo(json!({ "mode": "paused" }))).await;
    let buyers = house::buyers(&server, 10).await;
    let mut line = Vec::new();
    for buyer in &buyers {
        let answer = buyer.client.post_empty(&sale.path("/line")).await.expect(201);
        line.push((buyer, number(&answer, "number"), number(&answer, "ahead")));
    }
    assert!(line.iter().all(|(_, number, ahead)| number - 1 == *ahead));
    let me = sale.path("/line/me");
    assert_eq!(line[2].0.client.delete(&me).await.status, 204);
    for (buyer, number, _) in line.iter().filter(|(_, number, _)| *number != 3) {
        let answer = buyer.client.get(&me).await.expect(200);
        let expected = if *number < 3 { number - 1 } else { number - 2 };
        assert_eq!(answer["ahead"], expected, "{number}");
    }
}

/// An admitted buyer who does nothing loses his turn, and a hold keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_unless_something_is_held() {
    let server = Server::start();
    let terms = fifo(json!({ "session_ms": 1_000 }));
    let sale = Sale::open(&server, house::rows(2, 10), terms).await;
    let buyers = house::buyers(&server, 2).await;
    let (line, me) = (sale.path("/line"), sale.path("/line/me"));
    let mut streams = Vec::new();
    for buyer in &buyers {
        buyer.client.post_empty(&line).await.expect(201);
        let path = sale.path("/line/stream");
        streams.push(Stream::open(&buyer.client, &path, None).await.expect("in line"));
    }
    let second = Duration::from_secs(1);
    streams[0].wait_for("admitted", second).await.expect("the first is let in");
    let hold = sale.held(&buyers[0], &["A-1-1"]).await;
    tokio::time::sleep(second + second / 2).await;
    assert_eq!(sale.stats().await["line"]["active"], 1, "a hold keeps the turn");
    assert_eq!(house::release(&buyers[0], &hold).await.status, 204);
    streams[1].wait_for("admitted", second * 2).await.expect("then it passes on");
    streams[0].wait_for("expired", second).await.expect("and the first is told");
    let state = buyers[0].client.get(&me).await;
    assert!(state.status == 404 || state.json()["state"] == "expired", "{}", state.text());
    sale.hold(&buyers[0], &["A-1-1"]).await.refused(403, "admission-required");
}
