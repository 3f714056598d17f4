//! A house to sell and people to sell it to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tmomi_persist::writer::{Sink, SqlSink};

use super::audit::seq_of;
use super::eventually;
use super::http::{Client, Pool, Reply};
use super::server::{ADMIN_EMAIL, ADMIN_PASSWORD, Server};

/// The password of every test buyer.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Accounts made at a time; more would wait for the server's bounded pool of hashes.
const SIGNUPS_AT_ONCE: usize = 8;

/// A dated performance far away.
pub(crate) const STARTS_AT: &str = "2099-06-01T19:30:00Z";

/// Somebody with an account.
#[derive(Clone)]
pub(crate) struct Buyer {
    pub(crate) client: Client,
    pub(crate) user_id: u64,
    pub(crate) email: String,
}

impl Buyer {
    /// The same person with connections of his own.
    pub(crate) fn on(&self, pool: Arc<Pool>) -> Buyer {
        let client = Client { pool, token: self.client.token.clone() };
        Buyer { client, ..self.clone() }
    }

    /// The ids of the seats of all orders that are confirmed, in no order.
    pub(crate) async fn seats_owned(&self) -> Vec<String> {
        let orders = list_all(&self.client, "/v1/orders", "orders").await;
        let confirmed = orders.iter().filter(|order| order["state"] == "confirmed");
        confirmed.flat_map(|order| seats_of(&order["tickets"])).collect()
    }
}

/// Signs the admin in.
pub(crate) async fn admin(server: &Server) -> Client {
    let stranger = Client::stranger(server.address());
    let token = sign_in(&stranger, ADMIN_EMAIL, ADMIN_PASSWORD).await;
    stranger.with_token(&token)
}

/// Makes one account and signs it in.
pub(crate) async fn buyer(server: &Server) -> Buyer {
    let mut buyers = buyers(server, 1).await;
    buyers.pop().expect("one buyer")
}

/// Makes `count` accounts on one pool and signs them in.
pub(crate) async fn buyers(server: &Server, count: usize) -> Vec<Buyer> {
    let stranger = Client::stranger(server.address());
    let next = Arc::new(AtomicU64::new(0));
    let tasks = (0..SIGNUPS_AT_ONCE.min(count)).map(|_| {
        let (stranger, next) = (stranger.clone(), next.clone());
        tokio::spawn(async move {
            let mut made = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count as u64 {
                made.push(sign_up(&stranger).await);
            }
            made
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut buyers = Vec::with_capacity(count);
    for task in tasks {
        buyers.extend(task.await.expect("accounts are made"));
    }
    buyers
}

/// An e-mail address that nobody has, in this process or another.
pub(crate) fn fresh_email() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("buyer{next}.{}@crowd.test", std::process::id())
}

async fn sign_up(stranger: &Client) -> Buyer {
    let email = fresh_email();
    let body = json!({ "email": email, "password": PASSWORD });
    let account = stranger.post("/v1/auth/signup", body).await.expect(201);
    let user_id = account["user_id"].as_u64().expect("user_id is an integer");
    let token = sign_in(stranger, &email, PASSWORD).await;
    Buyer { client: stranger.with_token(&token), user_id, email }
}

/// The last event that the rows in `data` stand for, if they can be read.
pub(crate) async fn rows_seq(data: &Path) -> Option<u64> {
    let mut rows = SqlSink::open(&data.join("sales.db"), 0).await.ok()?;
    let position = rows.position().await.ok()?;
    rows.close().await;
    Some(position.seq.0)
}

/// Waits until the rows stand for everything that was sold by now.
pub(crate) async fn rows_are_written(server: &Server, sale: &Sale) {
    let (_, seq) = seq_of(&sale.stats().await);
    eventually("the rows follow", Duration::from_secs(60), async || {
        (rows_seq(server.launch().data()).await? >= seq).then_some(())
    })
    .await;
}

/// The access token of an account.
pub(crate) async fn sign_in(client: &Client, email: &str, password: &str) -> String {
    let body = json!({ "email": email, "password": password });
    let answer = client.post("/v1/auth/signin", body).await.expect(200);
    answer["access_token"].as_str().expect("a token is text").to_owned()
}

/// Every item of a list, page by page.
pub(crate) async fn list_all(client: &Client, path: &str, plural: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("{path}?limit=1000{after}")).await.expect(200);
        items.extend(page[plural].as_array().expect("a list").iter().cloned());
        match &page["next"] {
            Value::Null => return items,
            Value::String(next) => after = format!("&after={next}"),
            next => after = format!("&after={next}"),
        }
    }
}

/// The `seat` of each of `tickets` (or of a hold's seats).
pub(crate) fn seats_of(tickets: &Value) -> Vec<String> {
    let tickets = tickets.as_array().expect("a list of seats");
    tickets.iter().map(|t| t["seat"].as_str().expect("a seat id is text").to_owned()).collect()
}

/// The hall of tests/data/hall.json: a balcony, a floor, tables, Korean names; 240 seats.
pub(crate) fn hall() -> Value {
    let text = include_str!("../../data/hall.json");
    serde_json::from_str(text).expect("the hall is JSON")
}

/// A plan of one section `A` with rows of numbered seats, `A-1-1` and so on.
pub(crate) fn rows(rows: usize, seats_per_row: usize) -> Value {
    json!({ "generate": { "sections": [
        { "name": "A", "tier": "Standard", "rows": rows, "seats_per_row": seats_per_row },
    ] } })
}

/// One showtime on sale.
#[derive(Clone)]
pub(crate) struct Sale {
    pub(crate) admin: Client,
    pub(crate) venue: u64,
    pub(crate) show: u64,
    pub(crate) showtime: u64,
}

/// The seat map at one number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Map {
    pub(crate) seq: String,
    pub(crate) states: BTreeMap<String, char>,
}

impl Sale {
    /// Makes venue, plan, show and showtime. `terms` has fields of `POST /v1/admin/showtimes`.
    pub(crate) async fn open(server: &Server, plan: Value, terms: Value) -> Sale {
        let admin = admin(server).await;
        Sale::open_as(&admin, plan, terms).await
    }

    /// The same by an admin who is signed in.
    pub(crate) async fn open_as(admin: &Client, plan: Value, terms: Value) -> Sale {
        let body = json!({ "name": "House", "address": "1 Stage Road" });
        let venue = number(&admin.post("/v1/admin/venues", body).await.expect(201), "venue_id");
        let path = format!("/v1/admin/venues/{venue}/plan");
        let plan = admin.put(&path, plan).await.expect(200);
        let body = json!({ "name": "Show", "venue_id": venue });
        let show = number(&admin.post("/v1/admin/shows", body).await.expect(201), "show_id");
        let mut body = json!({
            "show_id": show,
            "starts_at": STARTS_AT,
            "currency": "EUR",
            "prices": prices(&plan["tiers"]),
        });
        let terms = terms.as_object().expect("terms are an object").clone();
        body.as_object_mut().expect("an object").extend(terms);
        let showtime = admin.post("/v1/admin/showtimes", body).await.expect(201);
        let showtime = number(&showtime, "showtime_id");
        let sale = Sale { admin: admin.clone(), venue, show, showtime };
        sale.wait_on_sale().await;
        sale
    }

    /// The path of something of this showtime, such as `/holds`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/showtimes/{}{rest}", self.showtime)
    }

    /// The path of something that only an admin sees, such as `/stats`.
    pub(crate) fn admin_path(&self, rest: &str) -> String {
        format!("/v1/admin/showtimes/{}{rest}", self.showtime)
    }

    /// Asks for a hold of these seats.
    pub(crate) async fn hold(&self, buyer: &Buyer, seats: &[&str]) -> Reply {
        buyer.client.post(&self.path("/holds"), json!({ "seats": seats })).await
    }

    /// Holds these seats, which must be free, and gives the hold's id.
    pub(crate) async fn held(&self, buyer: &Buyer, seats: &[&str]) -> String {
        id(&self.hold(buyer, seats).await.expect(201), "hold_id")
    }

    /// Holds and confirms, and gives the order's id.
    pub(crate) async fn bought(&self, buyer: &Buyer, seats: &[&str]) -> String {
        let hold = self.held(buyer, seats).await;
        id(&confirm(buyer, &hold).await.expect(200), "order_id")
    }

    /// Asks for the best seats.
    pub(crate) async fn best(&self, buyer: &Buyer, wish: Value) -> Reply {
        buyer.client.post(&self.path("/holds"), json!({ "best_available": wish })).await
    }

    /// The seat map.
    pub(crate) async fn map(&self, client: &Client) -> Map {
        map(&client.get(&self.path("/seats")).await.expect(200))
    }

    /// The ids of all numbered seats in one state, in the map's order.
    pub(crate) async fn seats_in(&self, client: &Client, state: char) -> Vec<String> {
        let map = self.map(client).await;
        map.states.into_iter().filter(|(_, s)| *s == state).map(|(seat, _)| seat).collect()
    }

    /// The counts an admin sees.
    pub(crate) async fn stats(&self) -> Value {
        self.admin.get(&self.admin_path("/stats")).await.expect(200)
    }

    /// Changes the line's settings.
    pub(crate) async fn set_line(&self, settings: Value) -> Value {
        self.admin.put(&self.admin_path("/line"), settings).await.expect(200)
    }

    async fn wait_on_sale(&self) {
        let path = self.path("");
        super::eventually("the showtime is there", Duration::from_secs(60), async || {
            (self.admin.get(&path).await.status == 200).then_some(())
        })
        .await;
    }
}

/// Confirms a hold.
pub(crate) async fn confirm(buyer: &Buyer, hold: &str) -> Reply {
    buyer.client.post(&format!("/v1/holds/{hold}/confirm"), json!({})).await
}

/// Gives a hold up.
pub(crate) async fn release(buyer: &Buyer, hold: &str) -> Reply {
    buyer.client.delete(&format!("/v1/holds/{hold}")).await
}

/// Gives an order back.
pub(crate) async fn refund(buyer: &Buyer, order: &str) -> Reply {
    buyer.client.post_empty(&format!("/v1/orders/{order}/refund")).await
}

/// An integer of an answer.
#[track_caller]
pub(crate) fn number(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().unwrap_or_else(|| panic!("no integer {field} in {answer}"))
}

/// An id of an answer.
#[track_caller]
pub(crate) fn id(answer: &Value, field: &str) -> String {
    let id = answer[field].as_str();
    id.unwrap_or_else(|| panic!("no text {field} in {answer}")).to_owned()
}

/// `GET seats` as a map; each seat must be there once and have one letter.
pub(crate) fn map(answer: &Value) -> Map {
    let mut states = BTreeMap::new();
    for section in answer["sections"].as_array().expect("sections") {
        for row in section["rows"].as_array().into_iter().flatten() {
            let seats = row["seats"].as_array().expect("seats of a row");
            let letters = row["states"].as_str().expect("states are text");
            assert_eq!(letters.len(), seats.len(), "one letter a seat: {row}");
            for (seat, letter) in seats.iter().zip(letters.chars()) {
                assert!("fhsb".contains(letter), "{letter} is no state");
                let seat = seat.as_str().expect("a seat id is text").to_owned();
                let twice = states.insert(seat, letter);
                assert!(twice.is_none(), "a seat is in the map twice: {row}");
            }
        }
    }
    Map { seq: id(answer, "seq"), states }
}

/// A price for every tier, each its own: 1,000 and 500 more for each next one.
fn prices(tiers: &Value) -> Value {
    let tiers = tiers.as_array().expect("tiers are a list").iter().enumerate();
    let price = |(i, tier): (usize, &Value)| {
        (tier.as_str().expect("a tier is text").to_owned(), json!(1_000 + 500 * i))
    };
    Value::Object(tiers.map(price).collect())
}
