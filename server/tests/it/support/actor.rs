//! A buyer who does anything a buyer can do, at random, and writes down what he is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::audit::{parse_seq, seq_of};
use super::house::{Buyer, Sale, id, map, number, seats_of};
use super::http::{self, Broken};
use super::random::Random;
use crate::history::{Call, Record, Reply};

/// Tries of one unknown outcome before the test gives up.
const SETTLE_TRIES_MAX: usize = 50;

/// What all actors wrote down, and who they are.
pub(crate) struct Notebook {
    start: Instant,
    records: Mutex<Vec<Record>>,
    buyers: Mutex<BTreeMap<u64, Buyer>>,
}

impl Default for Notebook {
    fn default() -> Notebook {
        let (records, buyers) = (Mutex::default(), Mutex::default());
        Notebook { start: Instant::now(), records, buyers }
    }
}

impl Notebook {
    /// All of it so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }

    /// Makes a call and writes it down with its reply.
    pub(crate) async fn call(
        &self,
        buyer: &Buyer,
        sale: &Sale,
        key: Option<&str>,
        call: Call,
    ) -> Reply {
        let (method, path, body) = to_http(sale, &call);
        let sent = self.now();
        let answer = buyer.client.attempt(method, &path, key, body).await;
        let got = self.now();
        let reply = from_http(&call, answer);
        let record = Record {
            buyer: buyer.user_id,
            sent,
            got,
            key: key.map(str::to_owned),
            call,
            reply: reply.clone(),
        };
        self.records.lock().push(record);
        reply
    }

    /// Reads something of a buyer, with an answer that must be known.
    pub(crate) async fn read(&self, buyer: u64, sale: &Sale, call: Call) {
        let buyer = self.buyers.lock()[&buyer].clone();
        let what = format!("{call:?}");
        let reply = self.call(&buyer, sale, None, call).await;
        assert_ne!(reply, Reply::Unknown, "{what} has no answer");
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

fn to_http(sale: &Sale, call: &Call) -> (Method, String, Option<Value>) {
    let hold_path = |hold: &str| format!("/v1/holds/{hold}");
    match call {
        Call::Join => (Method::POST, sale.path("/line"), None),
        Call::Leave => (Method::DELETE, sale.path("/line/me"), None),
        Call::Hold { seats, ttl_ms } => {
            let body = if seats.is_empty() {
                json!({ "best_available": { "count": 2, "adjacent": false }, "ttl_ms": ttl_ms })
            } else {
                json!({ "seats": seats, "ttl_ms": ttl_ms })
            };
            (Method::POST, sale.path("/holds"), Some(body))
        }
        Call::Confirm { hold } => {
            let body = json!({ "payment_ref": format!("paid for {hold}") });
            (Method::POST, format!("/v1/holds/{hold}/confirm"), Some(body))
        }
        Call::Release { hold } => (Method::DELETE, hold_path(hold), None),
        Call::Refund { order } => (Method::POST, format!("/v1/orders/{order}/refund"), None),
        Call::ReadHold { hold } => (Method::GET, hold_path(hold), None),
        Call::ReadOrder { order } => (Method::GET, format!("/v1/orders/{order}"), None),
        Call::ReadNumber => (Method::GET, sale.path("/line/me"), None),
        Call::ReadMap => (Method::GET, sale.path("/seats"), None),
    }
}

fn from_http(call: &Call, answer: Result<http::Reply, Broken>) -> Reply {
    // A broken connection, a time-out and `not-committed` all mean: unknown.
    let Ok(answer) = answer else { return Reply::Unknown };
    if answer.status == 503 {
        return Reply::Unknown;
    }
    assert!(answer.status < 500, "{call:?}: {}", answer.text());
    let json = answer.json();
    if answer.status >= 400 {
        let conflicts = json["conflicts"].as_array().into_iter().flatten();
        let conflicts = conflicts.map(|c| (id(c, "seat"), id(c, "state"))).collect();
        return Reply::Refused { code: answer.code(), conflicts };
    }
    match call {
        Call::Join | Call::ReadNumber => Reply::Number(number(&json, "number")),
        Call::Hold { .. } => Reply::Held {
            hold: id(&json, "hold_id"),
            seats: seats_of(&json["seats"]),
            seq: seq_of(&json),
        },
        Call::Confirm { .. } => Reply::Confirmed {
            order: id(&json, "order_id"),
            seats: seats_of(&json["tickets"]),
            seq: seq_of(&json),
        },
        Call::Refund { .. } => Reply::Done { seq: Some(seq_of(&json)) },
        Call::Release { .. } | Call::Leave => {
            let seq = answer.header("tmomi-seq");
            Reply::Done { seq: (!seq.is_empty()).then(|| parse_seq(seq)) }
        }
        Call::ReadHold { .. } => {
            Reply::State { state: id(&json, "state"), seats: seats_of(&json["seats"]) }
        }
        Call::ReadOrder { .. } => {
            Reply::State { state: id(&json, "state"), seats: seats_of(&json["tickets"]) }
        }
        Call::ReadMap => Reply::Map(map(&json).states.into_iter().collect()),
    }
}

/// One buyer with what he believes he has.
pub(crate) struct Actor {
    buyer: Buyer,
    sale: Sale,
    notebook: Arc<Notebook>,
    random: Random,
    joined: bool,
    holds: Vec<String>,
    orders: Vec<String>,
    /// Calls whose outcome he does not know.
    unknown: Vec<(Option<String>, Call)>,
    keys: u64,
}

impl Actor {
    /// Somebody who is not in line yet.
    pub(crate) fn new(buyer: Buyer, sale: Sale, notebook: Arc<Notebook>, random: Random) -> Actor {
        notebook.buyers.lock().insert(buyer.user_id, buyer.clone());
        let (holds, orders, unknown) = (Vec::new(), Vec::new(), Vec::new());
        let joined = false;
        Actor { buyer, sale, notebook, random, joined, holds, orders, unknown, keys: 0 }
    }

    /// Acts until told to stop or until an answer is missing.
    pub(crate) async fn act_until(&mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() && self.unknown.is_empty() {
            let call = self.choose();
            let key = self.key_for(&call);
            self.make(key, call).await;
        }
    }

    /// Sends what is unknown again with the same keys until it is known.
    pub(crate) async fn settle(&mut self) {
        for tries in 0.. {
            let Some((key, call)) = self.unknown.pop() else { return };
            assert!(tries < SETTLE_TRIES_MAX, "{call:?} does not settle");
            self.make(key, call).await;
        }
    }

    async fn make(&mut self, key: Option<String>, call: Call) {
        let reply = self.notebook.call(&self.buyer, &self.sale, key.as_deref(), call.clone()).await;
        match (&call, reply) {
            (_, Reply::Unknown) => self.unknown.push((key, call)),
            (Call::Join, Reply::Number(_)) => self.joined = true,
            (Call::Hold { .. }, Reply::Held { hold, .. }) if !self.holds.contains(&hold) => {
                self.holds.push(hold);
            }
            (Call::Confirm { hold }, Reply::Confirmed { order, .. }) => {
                self.holds.retain(|held| held != hold);
                if !self.orders.contains(&order) {
                    self.orders.push(order);
                }
            }
            (Call::Confirm { hold } | Call::Release { hold }, _) => {
                self.holds.retain(|held| held != hold);
            }
            (Call::Refund { order }, _) => self.orders.retain(|own| own != order),
            _ => {}
        }
    }

    fn choose(&mut self) -> Call {
        if !self.joined {
            return Call::Join;
        }
        let hold = self.random.pick(&self.holds).cloned();
        let order = self.random.pick(&self.orders).cloned();
        match (self.random.below(100), hold, order) {
            (0..35, Some(hold), _) => Call::Confirm { hold },
            (35..45, Some(hold), _) => Call::Release { hold },
            (45..60, _, Some(order)) => Call::Refund { order },
            (60..63, ..) => Call::ReadNumber,
            (63..65, ..) => Call::Join,
            (65..67, Some(hold), _) => Call::ReadHold { hold },
            (67..69, _, Some(order)) => Call::ReadOrder { order },
            (69..70, ..) => Call::ReadMap,
            _ => self.choose_hold(),
        }
    }

    fn choose_hold(&mut self) -> Call {
        // Some deadlines pass while the server is down.
        let ttl_ms = if self.random.chance(20) { 500 } else { 300_000 };
        let best = self.random.chance(10);
        let count = if best { 0 } else { 1 + self.random.below(4) };
        let row = 1 + self.random.below(20);
        // Half of the wishes are for the first seats of a row: these are fought for.
        let span = if self.random.chance(50) { 8 } else { 60 };
        let seats: Vec<String> = (1..=span).map(|n| format!("A-{row}-{n}")).collect();
        Call::Hold { seats: self.random.sample(&seats, count), ttl_ms }
    }

    fn key_for(&mut self, call: &Call) -> Option<String> {
        self.keys += 1;
        let key = format!("{}-{}", self.buyer.user_id, self.keys);
        match call {
            Call::Hold { .. } => Some(key),
            // By themselves these are safe to repeat; half of them use a key all the same.
            Call::Join | Call::Confirm { .. } | Call::Refund { .. } => {
                self.random.chance(50).then_some(key)
            }
            _ => None,
        }
    }
}
