//! What a hold, an order or a seat list may not be, and what belongs to somebody else.

use serde_json::{Value, json};

use crate::support::house::{self, Buyer, Sale, confirm, id, list_all, refund, release};
use crate::support::{Server, eventually};

async fn setting() -> (Server, Sale, Vec<Buyer>) {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({})).await;
    let buyers = house::buyers(&server, 2).await;
    (server, sale, buyers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_holds_are_400_and_take_nothing() {
    let (_server, sale, buyers) = setting().await;
    let many: Vec<String> = (0..5_000).map(|n| format!("A-{}-{}", n / 60, n % 60)).collect();
    let bad = [
        ("empty-seats", json!({ "seats": [] })),
        ("duplicate-seat", json!({ "seats": ["A-1-1", "A-1-1"] })),
        ("unknown-seat", json!({ "seats": ["A-1-61"] })),
        ("unknown-seat", json!({ "seats": ["A-0-1"] })),
        ("unknown-seat", json!({ "seats": ["A-1-01"] })),
        ("unknown-seat", json!({ "seats": ["A-1-+1"] })),
        ("unknown-seat", json!({ "seats": ["A-4294967297-1"] })),
        ("unknown-seat", json!({ "seats": ["A-1-18446744073709551617"] })),
        ("unknown-seat", json!({ "seats": [""] })),
        ("unknown-seat", json!({ "seats": ["x".repeat(100_000)] })),
        ("unknown-seat", json!({ "seats": ["A-1-1\u{0}"] })),
        ("unknown-seat", json!({ "seats": ["'; DROP TABLE tickets; --"] })),
        ("*", json!({ "seats": many })),
        ("bad-request", json!({})),
        ("bad-request", json!([])),
        ("bad-request", json!({ "seats": "A-1-1" })),
        ("bad-request", json!({ "seats": [1] })),
        ("bad-request", json!({ "seats": ["A-1-1"], "surprise": 1 })),
        ("bad-request", json!({ "seats": ["A-1-1"], "best_available": { "count": 1 } })),
        ("bad-request", json!({ "seats": ["A-1-1"], "ttl_ms": 99 })),
        ("bad-request", json!({ "seats": ["A-1-1"], "ttl_ms": 7_200_001 })),
        ("bad-request", json!({ "seats": ["A-1-1"], "ttl_ms": -1 })),
        ("bad-request", json!({ "seats": ["A-1-1"], "ttl_ms": 1.5 })),
        ("bad-request", json!({ "seats": ["A-1-1"], "ttl_ms": "1000" })),
        ("bad-request", json!({ "best_available": {} })),
        ("bad-request", json!({ "best_available": { "count": 0 } })),
        ("bad-request", json!({ "best_available": { "count": -1 } })),
        ("bad-request", json!({ "best_available": { "count": 4_294_967_297_u64 } })),
        ("bad-request", json!({ "best_available": { "count": 1, "surprise": true } })),
        ("bad-request", json!({ "best_available": { "count": 1, "section": "Nowhere" } })),
        ("bad-request", json!({ "best_available": { "count": 1, "tier": "Gold" } })),
    ];
    for (code, body) in bad {
        let reply = buyers[0].client.post(&sale.path("/holds"), body.clone()).await;
        let body = body.to_string().chars().take(80).collect::<String>();
        assert_eq!(reply.status, 400, "{body}: {}", reply.text());
        assert!(code == "*" || reply.code() == code, "{body}: {}", reply.text());
    }
    let stats = sale.stats().await;
    assert_eq!((&stats["held"], &stats["free"]), (&json!(0), &json!(20 * 60)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_somebody_else_does_not_exist() {
    let (_server, sale, buyers) = setting().await;
    let (owner, other) = (&buyers[0], &buyers[1]);
    let hold = sale.held(owner, &["A-1-1"]).await;
    let order = sale.bought(owner, &["A-1-2"]).await;
    let tickets = list_all(&owner.client, "/v1/tickets", "tickets").await;
    let ticket = id(&tickets[0], "ticket_id");
    let hold_path = format!("/v1/holds/{hold}");
    other.client.get(&hold_path).await.refused(404, "not-found");
    let longer = json!({ "ttl_ms": 1_000 });
    other.client.patch(&hold_path, longer).await.refused(404, "not-found");
    release(other, &hold).await.refused(404, "not-found");
    confirm(other, &hold).await.refused(404, "not-found");
    other.client.get(&format!("/v1/orders/{order}")).await.refused(404, "not-found");
    refund(other, &order).await.refused(404, "not-found");
    other.client.get(&format!("/v1/tickets/{ticket}")).await.refused(404, "not-found");
    assert_eq!(list_all(&other.client, "/v1/orders", "orders").await, Vec::<Value>::new());
    // Nothing of it had an effect.
    assert_eq!(owner.client.get(&hold_path).await.expect(200)["state"], "active");
    confirm(owner, &hold).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_are_none_are_not_found() {
    let (_server, sale, buyers) = setting().await;
    let hold = sale.held(&buyers[0], &["A-1-1"]).await;
    let long = "9".repeat(300);
    let odd = format!("{hold}0");
    let ids = ["0", "none", "-1", "..", "%00", "%2e%2e%2f", "18446744073709551616", &long, &odd];
    for odd in ids {
        for path in ["/v1/holds", "/v1/orders", "/v1/tickets", "/v1/showtimes", "/v1/shows"] {
            let reply = buyers[0].client.get(&format!("{path}/{odd}")).await;
            assert!(matches!(reply.status, 400 | 404), "{path}/{odd}: {}", reply.text());
        }
        let reply = confirm(&buyers[0], odd).await;
        assert!(matches!(reply.status, 400 | 404 | 405), "{odd}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_stays_over() {
    let (_server, sale, buyers) = setting().await;
    let buyer = &buyers[0];
    let body = json!({ "seats": ["A-1-1"], "ttl_ms": 100 });
    let hold = buyer.client.post(&sale.path("/holds"), body).await.expect(201);
    let hold = id(&hold, "hold_id");
    let path = format!("/v1/holds/{hold}");
    eventually("it expires", std::time::Duration::from_secs(3), async || {
        (buyer.client.get(&path).await.expect(200)["state"] == "expired").then_some(())
    })
    .await;
    confirm(buyer, &hold).await.refused(410, "hold-expired");
    let longer = json!({ "ttl_ms": 1_000 });
    buyer.client.patch(&path, longer.clone()).await.refused(410, "hold-expired");
    let gone = sale.held(buyer, &["A-1-1"]).await;
    assert_eq!(release(buyer, &gone).await.status, 204);
    assert_eq!(release(buyer, &gone).await.status, 204, "also if already released");
    confirm(buyer, &gone).await.refused(410, "hold-released");
    let kept = sale.held(buyer, &["A-1-1"]).await;
    confirm(buyer, &kept).await.expect(200);
    release(buyer, &kept).await.refused(409, "hold-confirmed");
    let path = format!("/v1/holds/{kept}");
    buyer.client.patch(&path, longer).await.refused(409, "hold-confirmed");
    assert_eq!(buyer.client.get(&path).await.expect(200)["state"], "confirmed");
}

/// Rule R11. Planted bug: what was taken of a refused hold is not given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_hold_of_many_rows_takes_nothing() {
    let (_server, sale, buyers) = setting().await;
    sale.held(&buyers[0], &["A-9-9"]).await;
    let wish = ["A-1-1", "A-5-5", "A-7-60", "A-9-9"];
    let refused = sale.hold(&buyers[1], &wish).await.refused(409, "seat-unavailable");
    assert_eq!(refused["conflicts"], json!([{ "seat": "A-9-9", "state": "held" }]));
    assert_eq!(sale.seats_in(&sale.admin, 'h').await, ["A-9-9"]);
    let wish = ["A-1-1", "A-5-5", "A-7-60", "A-9-10"];
    let hold = sale.hold(&buyers[1], &wish).await.expect(201);
    assert_eq!(house::seats_of(&hold["seats"]).len(), 4);
}

/// Rule R10. Planted bug: a bit that another request is only trying is reported as taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_want_the_same_two_rows_are_never_both_refused() {
    let (_server, sale, buyers) = setting().await;
    for round in 0..200 {
        let (near, far) = (["A-1-1", "A-2-1"], ["A-2-1", "A-1-1"]);
        let (one, two) = tokio::join!(sale.hold(&buyers[0], &near), sale.hold(&buyers[1], &far));
        let won: Vec<_> = [(&buyers[0], &one), (&buyers[1], &two)]
            .into_iter()
            .filter(|(_, reply)| reply.status == 201)
            .collect();
        let codes = (one.code(), two.code());
        let contended = [&codes.0, &codes.1].iter().all(|code| *code == "contended");
        assert!(won.len() == 1 || contended, "round {round}: {codes:?}");
        for (buyer, reply) in won {
            assert_eq!(release(buyer, &id(&reply.json(), "hold_id")).await.status, 204);
        }
    }
}
