//! Show it, 7: what has broken other systems, around one hold.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::house::{self, Buyer, Sale, confirm, id, list_all, refund, release};
use crate::support::{Reply, Server, all_at_once};

async fn small_sale(server: &Server) -> Sale {
    Sale::open(server, house::rows(4, 10), json!({})).await
}

fn outcome(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code())
}

/// Rule R3. Planted bug: the state word of a hold is stored, not swapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_confirmed_64_times_at_once_is_one_order() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let hold = sale.held(&buyer, &["A-1-1", "A-1-2"]).await;
    let tasks = (0..64).map(|_| (buyer.clone(), hold.clone()));
    let replies = all_at_once(tasks, async |(buyer, hold)| confirm(&buyer, &hold).await).await;
    let orders: BTreeSet<String> =
        replies.into_iter().map(|reply| id(&reply.expect(200), "order_id")).collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(list_all(&buyer.client, "/v1/orders", "orders").await.len(), 1);
    assert_eq!(list_all(&buyer.client, "/v1/tickets", "tickets").await.len(), 2);
    assert_eq!(sale.stats().await["sold"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_confirm_and_release_exactly_one_wins() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let mut wins = [0, 0];
    for _ in 0..100 {
        let hold = sale.held(&buyer, &["A-1-1"]).await;
        let (confirmed, released) = tokio::join!(confirm(&buyer, &hold), release(&buyer, &hold));
        match (outcome(&confirmed), outcome(&released)) {
            ((200, _), (409, code)) => {
                assert_eq!(code, "hold-confirmed");
                wins[0] += 1;
                let order = id(&confirmed.json(), "order_id");
                assert_eq!(refund(&buyer, &order).await.status, 200);
            }
            ((410, code), (204, _)) => {
                assert_eq!(code, "hold-released");
                wins[1] += 1;
            }
            both => panic!("{both:?}"),
        }
    }
    eprintln!("confirm won {}, release {}", wins[0], wins[1]);
}

/// A confirm at the deadline wins or is refused; the seat is sold or free accordingly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_confirm_and_expiry_exactly_one_wins() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    for delay_ms in 85..115 {
        let body = json!({ "seats": ["A-1-1"], "ttl_ms": 100 });
        let hold = buyer.client.post(&sale.path("/holds"), body).await.expect(201);
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let reply = confirm(&buyer, &id(&hold, "hold_id")).await;
        let sold = sale.map(&buyer.client).await.states["A-1-1"] == 's';
        match outcome(&reply) {
            (200, _) => {
                assert!(sold);
                let order = id(&reply.json(), "order_id");
                assert_eq!(refund(&buyer, &order).await.status, 200);
            }
            (410, code) => assert_eq!((code.as_str(), sold), ("hold-expired", false)),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Planted bug: a refused request extends the hold that stands in its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_hold_changes_no_deadline() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyers = house::buyers(&server, 2).await;
    let (owner, other) = (&buyers[0], &buyers[1]);
    let hold = sale.hold(owner, &["A-1-1", "A-1-2"]).await.expect(201);
    let own = sale.hold(other, &["A-2-1"]).await.expect(201);
    for _ in 0..50 {
        let refused = sale.hold(other, &["A-1-2", "A-1-3"]).await.refused(409, "seat-unavailable");
        assert_eq!(refused["conflicts"], json!([{ "seat": "A-1-2", "state": "held" }]));
        let many = ["A-3-1", "A-3-2", "A-3-3", "A-3-4"];
        let over = sale.hold(other, &many).await.refused(422, "limit-exceeded");
        assert_eq!((&over["limit"], &over["used"]), (&json!(4), &json!(1)));
    }
    for (buyer, hold) in [(owner, &hold), (other, &own)] {
        let path = format!("/v1/holds/{}", id(hold, "hold_id"));
        let now = buyer.client.get(&path).await.expect(200);
        assert_eq!(now["expires_at"], hold["expires_at"]);
        assert_eq!(now["state"], "active");
        let left = house::number(&now, "expires_in_ms");
        assert!(left <= house::number(hold, "expires_in_ms"), "{now}");
    }
    assert_eq!(sale.seats_in(&sale.admin, 'h').await.len(), 3, "a refusal takes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_can_be_extended_but_not_for_ever() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let body = json!({ "seats": ["A-1-1"], "ttl_ms": 1_000 });
    let hold = buyer.client.post(&sale.path("/holds"), body).await.expect(201);
    let path = format!("/v1/holds/{}", id(&hold, "hold_id"));
    let longer = buyer.client.patch(&path, json!({ "ttl_ms": 60_000 })).await.expect(200);
    assert!(longer["expires_at"].as_str() > hold["expires_at"].as_str(), "{longer}");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let read = buyer.client.get(&path).await.expect(200);
    assert_eq!((&read["state"], &read["expires_at"]), (&json!("active"), &longer["expires_at"]));
    for ttl_ms in [0, 99, 7_200_001] {
        let reply = buyer.client.patch(&path, json!({ "ttl_ms": ttl_ms })).await;
        reply.refused(400, "bad-request");
    }
    // The whole life is two hours: now and two hours more would pass it.
    let most = buyer.client.patch(&path, json!({ "ttl_ms": 7_200_000 })).await.expect(200);
    assert!(house::number(&most, "expires_in_ms") < 7_200_000, "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_frees_the_seats_once() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyers = house::buyers(&server, 2).await;
    let order = sale.bought(&buyers[0], &["A-1-1", "A-1-2"]).await;
    let first = refund(&buyers[0], &order).await.expect(200);
    assert_eq!((&first["state"], &first["order_id"]), (&json!("refunded"), &json!(order)));
    sale.bought(&buyers[1], &["A-1-1"]).await;
    let again = refund(&buyers[0], &order).await.expect(200);
    assert_eq!(again["state"], "refunded");
    assert_eq!(sale.map(&sale.admin).await.states["A-1-1"], 's', "the second buyer keeps it");
    assert_eq!(buyers[0].seats_owned().await, Vec::<String>::new());
    let tickets = list_all(&buyers[0].client, "/v1/tickets", "tickets").await;
    assert!(tickets.iter().all(|ticket| ticket["state"] == "refunded"));
}

/// Rule R5. Planted bug: the limit is checked before the hold, not with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyers_parallel_requests_never_pass_the_limit() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    for round in 0..10 {
        let seats = (0..32).map(|n| format!("A-{}-{}", n / 10 + 1, n % 10 + 1));
        let tasks = seats.map(|seat| (sale.clone(), buyer.clone(), seat));
        let replies = all_at_once(tasks, async |(sale, buyer, seat): (Sale, Buyer, String)| {
            sale.hold(&buyer, &[&seat]).await
        })
        .await;
        let held: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 201).collect();
        assert_eq!(held.len(), 4, "round {round}: exactly the limit, as every seat was free");
        for refused in replies.iter().filter(|reply| reply.status != 201) {
            refused.refused(422, "limit-exceeded");
        }
        for hold in held {
            assert_eq!(release(&buyer, &id(&hold.json(), "hold_id")).await.status, 204);
        }
    }
}

/// Planted bug: a hold is active until its expiry stands in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_whose_time_is_up_is_expired() {
    let server = Server::start();
    let sale = small_sale(&server).await;
    let buyer = house::buyer(&server).await;
    for _ in 0..10 {
        let body = json!({ "seats": ["A-1-1"], "ttl_ms": 100 });
        let hold = buyer.client.post(&sale.path("/holds"), body).await.expect(201);
        let path = format!("/v1/holds/{}", id(&hold, "hold_id"));
        loop {
            let now = buyer.client.get(&path).await.expect(200);
            if now["state"] == "expired" {
                break;
            }
            assert_eq!(now["state"], "active");
            assert_ne!(now["expires_in_ms"], 0, "{now}");
        }
        // The seat itself is free within 10 ms.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
