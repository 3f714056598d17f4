//! What is offered may change while it is sold: prices, terms, whole showtimes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tmomi_engine::ids::{ShowtimeId, TimeMs};
use tmomi_persist::catalog::{Catalog, Change, ShowtimePatch};

use crate::support::house::{self, Buyer, STARTS_AT, Sale, hall, id, number, release};
use crate::support::{Client, Launch, Server, all_at_once, eventually};

/// How long the server may take to look again at what is incomplete.
const LOOKS_WITHIN: Duration = Duration::from_secs(20);

/// The price of every numbered seat, by the map and the sections.
async fn prices(client: &Client, sale: &Sale) -> BTreeMap<String, u64> {
    let map = client.get(&sale.path("/seats")).await.expect(200);
    let showtime = client.get(&sale.path("")).await.expect(200);
    let sections = map["sections"].as_array().expect("sections").iter();
    let mut prices = BTreeMap::new();
    for (section, terms) in sections.zip(showtime["sections"].as_array().expect("sections")) {
        let lowest = terms["tiers"]
            .as_array()
            .and_then(|tiers| tiers.iter().min_by_key(|tier| number(tier, "price")));
        let lowest = lowest.unwrap_or(terms);
        assert_eq!((&lowest["tier"], &lowest["price"]), (&terms["tier"], &terms["price"]));
        for row in section["rows"].as_array().expect("rows") {
            for (n, seat) in row["seats"].as_array().expect("seats").iter().enumerate() {
                let tier = row["tier"][n].as_u64();
                let price = tier.map_or(&terms["price"], |n| &terms["tiers"][n as usize]["price"]);
                let price = price.as_u64().expect("a price");
                prices.insert(seat.as_str().expect("text").to_owned(), price);
            }
        }
    }
    prices
}

/// Planted bug: the tiers of a section stand in the order of their prices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_is_right_after_a_change_of_prices() {
    let server = Server::start();
    let sale = Sale::open(&server, hall(), json!({})).await;
    let before = prices(&sale.admin, &sale).await;
    let row = sale.admin.get(&sale.admin_path("")).await.expect(200);
    let dearest = before.values().max().expect("seats");
    let turned = row["prices"].as_object().expect("prices").iter();
    let turned = turned
        .map(|(tier, price)| (tier.clone(), json!(10_000 - price.as_u64().expect("an amount"))));
    let turned = json!({ "prices": turned.collect::<serde_json::Map<_, _>>() });
    assert!(*dearest < 10_000);
    sale.admin.patch(&sale.admin_path(""), turned).await.expect(200);
    let after = prices(&sale.admin, &sale).await;
    let expected = before.iter().map(|(seat, price)| (seat.clone(), 10_000 - price));
    assert_eq!(after, expected.collect());
}

fn standard(price: u64) -> Value {
    json!({ "prices": { "Standard": price } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_change_until_somebody_was_told_one() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let path = sale.admin_path("");
    sale.admin.patch(&path, standard(2_000)).await.expect(200);
    let buyer = house::buyer(&server).await;
    let seats = Some(json!({ "seats": ["A-1-1"] }));
    let first = buyer.client.keyed(&sale.path("/holds"), "k", seats.clone()).await.expect(201);
    assert_eq!(release(&buyer, &id(&first, "hold_id")).await.status, 204);
    sale.admin.patch(&path, standard(3_000)).await.refused(409, "in-use");
    sale.admin.patch(&path, json!({ "currency": "USD" })).await.refused(409, "in-use");
    let again = buyer.client.keyed(&sale.path("/holds"), "k", seats).await.expect(201);
    assert_eq!((&again["total"], &again["currency"]), (&json!(2_000), &json!("EUR")));
    sale.admin.patch(&path, json!({ "limit": 2 })).await.expect(200);
    // Nothing was sold, so it may go.
    assert_eq!(sale.admin.delete(&path).await.status, 204);
}

/// Many rounds of a race whose window is narrow; the barrier itself has a test in `handles.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_holds_a_seat_for_a_price_of_before_or_in_a_showtime_that_is_gone() {
    let server = Server::start();
    let admin = house::admin(&server).await;
    let buyers = house::buyers(&server, 8).await;
    for round in 0..40 {
        let sale = Sale::open_as(&admin, house::rows(2, 10), json!({})).await;
        let holding = all_at_once(buyers.iter().cloned().zip(1..), {
            let sale = sale.clone();
            move |(buyer, n): (Buyer, u32)| {
                let sale = sale.clone();
                async move {
                    let hold = sale.hold(&buyer, &[&format!("A-1-{n}")]).await;
                    (buyer, hold)
                }
            }
        });
        let changing = async {
            tokio::time::sleep(Duration::from_micros(200 * (round % 10))).await;
            if round % 2 == 0 {
                admin.patch(&sale.admin_path(""), standard(2_000)).await.status
            } else {
                admin.delete(&sale.admin_path("")).await.status
            }
        };
        let (holds, status) = tokio::join!(holding, changing);
        assert!(matches!(status, 200 | 204 | 409), "{status}");
        for (buyer, hold) in holds {
            match hold.status {
                201 => {
                    let hold = hold.json();
                    let path = format!("/v1/holds/{}", id(&hold, "hold_id"));
                    let now = buyer.client.get(&path).await.expect(200);
                    assert_eq!(now["total"], hold["total"]);
                }
                // While it is shut, or gone.
                409 => drop(hold.refused(409, "sale-not-open")),
                _ => drop(hold.refused(404, "not-found")),
            }
        }
    }
}

/// Planted bug: the window is shut before it is known whether anything was held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_never_stops_a_sale() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(40, 10), json!({ "limit": 400 })).await;
    let buyer = house::buyer(&server).await;
    sale.bought(&buyer, &["A-1-1"]).await;
    let selling = async {
        for n in 0..300 {
            sale.held(&buyer, &[&format!("A-{}-{}", n / 10 + 2, n % 10 + 1)]).await;
        }
    };
    let changing = async {
        loop {
            sale.admin.patch(&sale.admin_path(""), standard(7)).await.refused(409, "in-use");
            sale.admin.delete(&sale.admin_path("")).await.refused(409, "in-use");
        }
    };
    tokio::select! {
        () = selling => {}
        () = changing => {}
    }
}

/// Changes the catalog behind the server's back, as a call does whose end nobody knows.
async fn behind(launch: &Launch, change: impl AsyncFnOnce(&mut Change)) {
    let catalog = Catalog::open(&launch.data().join("catalog.db")).await.expect("the catalog");
    let mut transaction = catalog.change().await.expect("a change");
    change(&mut transaction).await;
    transaction.commit_unanswered().await.expect("a commit");
    catalog.close().await;
}

fn showtime(sale: &Sale) -> ShowtimeId {
    ShowtimeId(sale.showtime as u32)
}

async fn set_prices(launch: &Launch, sale: &Sale, prices: BTreeMap<String, u64>) {
    let patch = ShowtimePatch { prices: Some(prices), ..ShowtimePatch::default() };
    behind(launch, async |change| {
        change.update_showtime(showtime(sale), patch).await.expect("a row");
    })
    .await;
}

/// Planted bugs: the first row that fails ends the round; a hall that exists is not looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_showtime_that_cannot_be_opened_keeps_no_other_and_all_find_together_again() {
    let server = Server::start();
    let admin = house::admin(&server).await;
    let broken = Sale::open_as(&admin, house::rows(2, 10), json!({})).await;
    let made = json!({ "show_id": broken.show, "starts_at": STARTS_AT, "currency": "EUR",
                       "prices": { "Standard": 1_000 } });
    let keyed = async || admin.keyed("/v1/admin/showtimes", "made", Some(made.clone())).await;
    let keyed_id = number(&keyed().await.expect(201), "showtime_id");
    let keyed_sale = Sale { showtime: keyed_id, ..broken.clone() };
    let whole = Sale::open_as(&admin, house::rows(2, 10), json!({})).await;
    let gone = Sale::open_as(&admin, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    for sale in [&broken, &whole] {
        sale.bought(&buyer, &["A-1-1"]).await;
    }
    let launch = server.stop();
    for sale in [&broken, &keyed_sale] {
        set_prices(&launch, sale, BTreeMap::new()).await;
    }

    let server = launch.start_unready();
    eventually("the others are on sale", LOOKS_WITHIN, async || {
        let reply = admin.attempt(hyper::Method::GET, &gone.path(""), None, None).await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    assert_eq!(admin.get("/readyz").await.status, 503);
    assert_eq!(admin.get(&broken.path("")).await.status, 404);
    whole.bought(&buyer, &["A-1-2"]).await;
    for (path, count) in [("orders", 2), ("tickets", 2)] {
        let list = buyer.client.get(&format!("/v1/{path}?limit=2")).await.expect(200);
        assert_eq!(list[path].as_array().map(Vec::len), Some(count), "{list}");
        assert_eq!(list["next"], Value::Null);
    }
    keyed().await.refused(503, "not-committed");

    let later = ShowtimePatch { starts_at: Some(TimeMs(0)), ..ShowtimePatch::default() };
    behind(&launch, async |change| {
        change.update_showtime(showtime(&whole), later).await.expect("a row");
        change.delete_showtime(showtime(&gone), TimeMs(1)).await.expect("a row");
    })
    .await;
    eventually("what exists has the row's terms", LOOKS_WITHIN, async || {
        let there = admin.get(&whole.path("")).await.expect(200);
        (there["starts_at"] == "1970-01-01T00:00:00Z").then_some(())
    })
    .await;
    assert_eq!(admin.get(&gone.path("")).await.status, 404);
    for sale in [&broken, &keyed_sale] {
        set_prices(&launch, sale, BTreeMap::from([("Standard".to_owned(), 1_000)])).await;
    }
    eventually("all are on sale", LOOKS_WITHIN, async || {
        (admin.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(number(&keyed().await.expect(201), "showtime_id"), keyed_id);
    assert_eq!(house::list_all(&buyer.client, "/v1/orders", "orders").await.len(), 3);
    // Whatever became of it since, the key is answered as it was.
    assert_eq!(admin.delete(&keyed_sale.admin_path("")).await.status, 204);
    assert_eq!(number(&keyed().await.expect(201), "showtime_id"), keyed_id);
    drop(server);
}
