//! Rule R3: a key has one effect, whatever happens to the answer, the connection or the server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::batch::batch;
use crate::support::house::{self, Buyer, STARTS_AT, Sale, id, list_all, number};
use crate::support::{Client, Reply, Server, all_at_once};

/// The members of an answer that a repetition must have again, letter by letter.
fn lasting(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Some(members) = answer.as_object_mut() {
        members.retain(|name, _| {
            !name.ends_with("_ms") && !["ahead", "admission_token"].contains(&name.as_str())
        });
    }
    answer
}

/// Sends the same call before and after a crash.
struct Promise {
    path: String,
    key: String,
    body: Option<Value>,
    first: Reply,
}

impl Promise {
    async fn make(buyer: &Buyer, path: &str, key: &str, body: Option<Value>) -> Promise {
        let first = buyer.client.keyed(path, key, body.clone()).await;
        assert!(first.status < 300, "{path}: {}", first.text());
        Promise { path: path.to_owned(), key: key.to_owned(), body, first }
    }

    async fn is_kept(&self, buyer: &Buyer) {
        let again = buyer.client.keyed(&self.path, &self.key, self.body.clone()).await;
        assert_eq!(again.status, self.first.status, "{}: {}", self.path, again.text());
        assert_eq!(lasting(&again.json()), lasting(&self.first.json()), "{}", self.path);
    }
}

/// Planted bugs: keys are left out of the snapshot; keys are kept in memory only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_has_the_same_answer_after_a_crash_and_after_a_stop() {
    let mut server = Server::start();
    let line = json!({ "mode": "fifo", "max_active": 10, "rate_per_s": 1_000 });
    let sale = Sale::open(&server, house::rows(4, 10), json!({ "line": line })).await;
    let buyer = house::buyer(&server).await;
    let mut promises = vec![Promise::make(&buyer, &sale.path("/line"), "join", None).await];
    let me = sale.path("/line/me");
    crate::support::eventually("admitted", std::time::Duration::from_secs(5), async || {
        let me = buyer.client.get(&me).await.json();
        (me["state"] == "admitted").then_some(())
    })
    .await;
    let holds = sale.path("/holds");
    let body = json!({ "seats": ["A-1-1", "A-1-2"] });
    promises.push(Promise::make(&buyer, &holds, "hold", Some(body)).await);
    let body = json!({ "best_available": { "count": 1 } });
    promises.push(Promise::make(&buyer, &holds, "best", Some(body)).await);
    let hold = id(&promises[1].first.json(), "hold_id");
    let confirm = format!("/v1/holds/{hold}/confirm");
    let body = json!({ "payment_ref": "p-1" });
    promises.push(Promise::make(&buyer, &confirm, "confirm", Some(body)).await);
    let order = id(&promises[3].first.json(), "order_id");
    let refund = format!("/v1/orders/{order}/refund");
    promises.push(Promise::make(&buyer, &refund, "refund", None).await);

    for crash in [true, false, true] {
        for promise in &promises {
            promise.is_kept(&buyer).await;
        }
        server = if crash { server.crash() } else { server.stop().start() };
    }
    for promise in &promises {
        promise.is_kept(&buyer).await;
    }
    assert_eq!(list_all(&buyer.client, "/v1/orders", "orders").await.len(), 1);
    let stats = sale.stats().await;
    assert_eq!((&stats["held"], &stats["sold"]), (&json!(1), &json!(0)), "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisers_key_makes_one_thing() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let showtime = json!({
        "show_id": sale.show, "starts_at": STARTS_AT, "currency": "EUR",
        "prices": { "Standard": 1_000 },
    });
    let calls = [
        ("/v1/admin/venues", json!({ "name": "Second" }), "venue_id"),
        ("/v1/admin/shows", json!({ "name": "Second", "venue_id": sale.venue }), "show_id"),
        ("/v1/admin/showtimes", showtime, "showtime_id"),
    ];
    let mut made = Vec::new();
    for (path, body, field) in &calls {
        let first = sale.admin.keyed(path, "once", Some(body.clone())).await;
        // One key for three paths is three uses of it; only the first stands.
        if *field == "venue_id" {
            made.push(number(&first.expect(201), field));
        } else {
            first.refused(422, "idempotency-key-reused");
            let key = format!("once-{field}");
            let first = sale.admin.keyed(path, &key, Some(body.clone())).await;
            made.push(number(&first.expect(201), field));
        }
    }
    let server = server.crash();
    for ((path, body, field), made) in calls.iter().zip(&made) {
        let key = if *field == "venue_id" { "once".to_owned() } else { format!("once-{field}") };
        let again = sale.admin.keyed(path, &key, Some(body.clone())).await.expect(201);
        assert_eq!(number(&again, field), *made);
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_sent_64_times_at_once_holds_once() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(8, 10), json!({ "limit": 80 })).await;
    let buyer = house::buyer(&server).await;
    for round in 0..10 {
        let tasks = (0..64).map(|_| (sale.clone(), buyer.clone(), format!("round-{round}")));
        let replies = all_at_once(tasks, async |(sale, buyer, key): (Sale, Buyer, String)| {
            let body = json!({ "best_available": { "count": 2 } });
            buyer.client.keyed(&sale.path("/holds"), &key, Some(body)).await
        })
        .await;
        let mut holds = BTreeSet::new();
        for reply in replies {
            if reply.status == 201 {
                holds.insert(id(&reply.json(), "hold_id"));
            } else {
                reply.refused(409, "idempotency-in-progress");
            }
        }
        assert_eq!(holds.len(), 1);
        assert_eq!(sale.stats().await["held"], 2 * (round + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_another_body_or_path_is_refused_and_belongs_to_one_user() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(4, 10), json!({})).await;
    let other = Sale::open_as(&sale.admin, house::rows(4, 10), json!({})).await;
    let buyers = house::buyers(&server, 2).await;
    let body = |seat: &str| Some(json!({ "seats": [seat] }));
    let holds = sale.path("/holds");
    let first = buyers[0].client.keyed(&holds, "k", body("A-1-1")).await.expect(201);
    let reused = (422, "idempotency-key-reused");
    let reply = buyers[0].client.keyed(&holds, "k", body("A-1-2")).await;
    reply.refused(reused.0, reused.1);
    let reply = buyers[0].client.keyed(&other.path("/holds"), "k", body("A-1-1")).await;
    reply.refused(reused.0, reused.1);
    let theirs = buyers[1].client.keyed(&holds, "k", body("A-1-2")).await.expect(201);
    assert_ne!(theirs["hold_id"], first["hold_id"]);
    let again = buyers[0].client.keyed(&holds, "k", body("A-1-1")).await.expect(201);
    assert_eq!(again["hold_id"], first["hold_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_remembered() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(4, 10), json!({})).await;
    let buyers = house::buyers(&server, 2).await;
    let hold = sale.held(&buyers[0], &["A-1-1"]).await;
    let body = Some(json!({ "seats": ["A-1-1"] }));
    let holds = sale.path("/holds");
    let reply = buyers[1].client.keyed(&holds, "k", body.clone()).await;
    reply.refused(409, "seat-unavailable");
    assert_eq!(house::release(&buyers[0], &hold).await.status, 204);
    buyers[1].client.keyed(&holds, "k", body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_wrong_form_is_refused() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(4, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let body = Some(json!({ "seats": ["A-1-1"] }));
    for key in ["", "two words", &"k".repeat(129), "t\u{e9}"] {
        let reply = buyer.client.keyed(&sale.path("/holds"), key, body.clone()).await;
        reply.refused(400, "bad-request");
    }
    assert_eq!(sale.stats().await["held"], 0);
    let longest = "k".repeat(128);
    buyer.client.keyed(&sale.path("/holds"), &longest, body).await.expect(201);
}

/// Planted bug: the engine's calls and the catalog's remember their keys apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stands_for_one_call_of_buyers_and_organisers_together() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(4, 10), json!({})).await;
    let seats = json!({ "seats": ["A-1-1"] });
    let blocks = sale.admin_path("/blocks");
    let venue = Some(json!({ "name": "Second" }));
    sale.admin.keyed(&blocks, "block", Some(seats.clone())).await.expect(200);
    let reply = sale.admin.keyed("/v1/admin/venues", "block", venue.clone()).await;
    reply.refused(422, "idempotency-key-reused");
    sale.admin.keyed("/v1/admin/venues", "venue", venue.clone()).await.expect(201);
    let reply = sale.admin.keyed(&blocks, "venue", Some(json!({ "seats": ["A-1-2"] }))).await;
    reply.refused(422, "idempotency-key-reused");
    let holds = sale.path("/holds");
    let reply = sale.admin.keyed(&holds, "venue", Some(json!({ "seats": ["A-1-3"] }))).await;
    reply.refused(422, "idempotency-key-reused");
    let buyer = house::buyer(&server).await;
    let user = buyer.user_id;
    let line = |key: &str, seat: &str| {
        let seats = [seat];
        json!({ "idempotency_key": key, "buyer": user, "seats": seats })
    };
    let answers = batch(&sale, &[line("venue", "A-1-4"), line("line", "A-1-5")]).await;
    assert_eq!(answers[0]["code"], "idempotency-key-reused");
    assert_eq!(answers[1]["status"], 201);
    let reply = sale.admin.keyed("/v1/admin/venues", "line", venue).await;
    reply.refused(422, "idempotency-key-reused");
    assert_eq!(sale.stats().await["held"], 1);
    // Both kinds still find their own.
    sale.admin.keyed(&blocks, "block", Some(seats)).await.expect(200);
}

/// Planted bug: a repeated join is answered from what the line is by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_join_is_answered_as_the_first_whatever_the_line_is_by_then() {
    let server = Server::start();
    let terms = json!({ "line": { "mode": "paused" } });
    let sale = Sale::open(&server, house::rows(4, 10), terms).await;
    let buyers = house::buyers(&server, 2).await;
    let line = sale.path("/line");
    let waits = Promise::make(&buyers[0], &line, "k", None).await;
    assert_eq!(waits.first.json()["state"], "waiting");
    sale.set_line(json!({ "mode": "open" })).await;
    waits.is_kept(&buyers[0]).await;
    let is_in = Promise::make(&buyers[1], &line, "k", None).await;
    assert_eq!(is_in.first.json()["state"], "admitted");
    sale.set_line(json!({ "mode": "fifo", "session_ms": 5_000 })).await;
    is_in.is_kept(&buyers[1]).await;
    assert_eq!(buyers[1].client.delete(&sale.path("/line/me")).await.status, 204);
    let server = server.crash();
    waits.is_kept(&buyers[0]).await;
    is_in.is_kept(&buyers[1]).await;
    drop(server);
}

/// What is kept of a sign-up tells nothing of its password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_up_is_repeated_for_the_same_password_only() {
    let server = Server::start();
    let stranger = Client::stranger(server.address());
    let email = house::fresh_email();
    let sign_up = async |password: &str, more: &str| {
        let path = "/v1/auth/signup";
        let mut request = stranger.request(hyper::Method::POST, path, Some("k"), Some(json!({})));
        let body = format!(r#"{{{more}"email":"{email}","password":"{password}"}}"#);
        *request.body_mut() = body.into();
        stranger.send(request).await
    };
    let first = sign_up(house::PASSWORD, "").await.expect(201);
    assert_eq!(sign_up(house::PASSWORD, " ").await.expect(201), first);
    sign_up("another password", "").await.refused(422, "idempotency-key-reused");
}
