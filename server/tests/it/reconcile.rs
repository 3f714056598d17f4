//! `tmomi reconcile` and `tmomi export`, beside a running server and after it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::kafka;
use crate::servers;
use crate::support::house::{self, Sale, list_all};
use crate::support::{Launch, Server};

/// A sale with an order, a refunded one and a hold, and the rows of them.
async fn sold(server: &Server) -> (house::Buyer, String) {
    let sale = Sale::open(server, house::rows(20, 60), json!({ "limit": 100 })).await;
    let buyer = house::buyer(server).await;
    let hold = sale.held(&buyer, &["A-1-1", "A-1-2", "A-20-60"]).await;
    let path = format!("/v1/holds/{hold}/confirm");
    let body = json!({ "payment_ref": "pay \"1\", =2" });
    let paid = house::id(&buyer.client.post(&path, body).await.expect(200), "order_id");
    let order = sale.bought(&buyer, &["A-2-1"]).await;
    house::refund(&buyer, &order).await.expect(200);
    for n in 1..40 {
        sale.bought(&buyer, &[&format!("A-3-{n}")]).await;
    }
    sale.held(&buyer, &["A-9-9"]).await;
    house::rows_are_written(server, &sale).await;
    (buyer, paid)
}

/// Runs the program to its end: whether it ended well, and what it said.
fn run(launch: &Launch, arguments: &[&str]) -> (Option<i32>, String) {
    let (status, said) = launch.run(arguments);
    (status.code(), said)
}

/// With the row of an order that has a payment reference, which only the log knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_row_is_found_and_repaired() {
    found_and_repaired(Server::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_topic_as_the_log_a_spoiled_row_is_found_and_repaired() {
    let server = kafka::launch("log", &servers::kafka(), &kafka::topic("reconcile")).start();
    let server = found_and_repaired(server).await;
    let nobody = ["reconcile", "--repair", "--kafka-brokers", "127.0.0.1:1"];
    let (code, said) = run(server.launch(), &nobody);
    assert!(code == Some(1) && said.contains("check kafka_brokers"), "{code:?}: {said}");
}

async fn found_and_repaired(server: Server) -> Server {
    let (_, paid) = sold(&server).await;
    let (code, said) = run(server.launch(), &["reconcile"]);
    assert!(code == Some(0) && said.contains("no differences at event "), "{code:?}: {said}");
    let launch = server.stop();
    let rows = launch.data().join("sales.db");
    let hold_seq = u64::from_str_radix(paid.split('-').nth(1).expect("its number"), 16);
    let hold_seq = hold_seq.expect("it is hexadecimal");
    let spoil = format!(
        "DELETE FROM ticket_order WHERE hold_seq = {hold_seq};
         UPDATE ticket SET state = 'refunded' WHERE hold_seq = {hold_seq} AND seat = 'A-1-1';"
    );
    let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", rows.display()))
        .await
        .expect("it is a database");
    conn.execute(sqlx::AssertSqlSafe(spoil)).await.expect("it is changed");
    conn.close().await.expect("it is closed");
    let (code, said) = run(&launch, &["reconcile"]);
    assert_eq!(code, Some(1), "{said}");
    let missing = format!(" {hold_seq}: the row is missing\n");
    assert!(said.contains(&missing), "{said}");
    assert!(said.contains(": state is \"refunded\", should be \"valid\"\n"), "{said}");
    assert!(said.contains("2 differences at event "), "{said}");
    // While a server runs on it, too.
    let server = launch.start();
    let (code, said) = run(server.launch(), &["reconcile", "--repair"]);
    assert!(code == Some(0) && said.contains("all repaired"), "{code:?}: {said}");
    let (code, said) = run(server.launch(), &["reconcile"]);
    assert!(code == Some(0) && said.contains("no differences"), "{code:?}: {said}");
    let (_, csv) = run(server.launch(), &["export", "orders"]);
    let line = csv.lines().find(|line| line.starts_with(&paid)).expect("the order is back");
    assert!(line.contains(",\"pay \"\"1\"\", =2\","), "with its payment: {line}");
    // Nobody has begun a reign but the server, which goes on.
    let buyer = house::buyer(&server).await;
    let sale = Sale::open(&server, house::rows(1, 2), json!({})).await;
    sale.bought(&buyer, &["A-1-1"]).await;
    server
}

/// Ids above all, which the tables do not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_has_what_the_interface_shows() {
    let server = Server::start();
    let (buyer, paid) = sold(&server).await;
    let mut shown = BTreeMap::new();
    let mut of_orders = BTreeMap::new();
    for order in list_all(&buyer.client, "/v1/orders", "orders").await {
        for ticket in order["tickets"].as_array().expect("a list") {
            let mut ticket = ticket.clone();
            ticket["order_id"] = order["order_id"].clone();
            shown.insert(house::id(&ticket, "ticket_id"), ticket);
        }
        of_orders.insert(house::id(&order, "order_id"), order);
    }
    let lines = exported(&server, "orders");
    assert_eq!(lines.len(), of_orders.len());
    for line in &lines {
        let order = &of_orders[&house::id(line, "order_id")];
        for field in ["showtime_id", "state", "total", "currency"] {
            assert_eq!(line[field], order[field], "{line}");
        }
        assert_eq!(line["ticket_count"], order["tickets"].as_array().expect("a list").len());
        assert_eq!(line["user_id"], buyer.user_id);
        let time = line["confirmed_at"].as_str().expect("a time");
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(line["refunded_at"].is_null(), line["state"] == "confirmed", "{line}");
        let payment = if line["order_id"] == paid { json!("pay \"1\", =2") } else { Value::Null };
        assert_eq!(line["payment_ref"], payment);
    }
    let lines = exported(&server, "tickets");
    assert_eq!(lines.len(), shown.len());
    for line in &lines {
        let ticket = &shown[&house::id(line, "ticket_id")];
        for field in ["order_id", "seat", "tier", "price"] {
            assert_eq!(line[field], ticket[field], "{line}");
        }
    }
    let out = server.launch().folder().join("tickets.csv");
    let path = out.to_str().expect("a name in letters");
    let (code, said) = run(server.launch(), &["export", "tickets", "--out", path]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let csv = std::fs::read_to_string(&out).expect("it is there");
    assert_eq!(csv.lines().count(), shown.len() + 1);
    let (_, other) = run(server.launch(), &["export", "tickets", "--showtime", "77"]);
    assert_eq!(Some(other.trim_end()), csv.lines().next(), "a header and nothing else");
}

fn exported(server: &Server, what: &str) -> Vec<Value> {
    let (code, said) = run(server.launch(), &["export", what, "--format", "jsonl"]);
    assert_eq!(code, Some(0), "{said}");
    said.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn what_is_not_there_is_said_and_not_made() {
    let launch = Launch::new();
    for arguments in [&["reconcile"][..], &["reconcile", "--repair"], &["export", "orders"]] {
        let (code, said) = run(&launch, arguments);
        assert!(code == Some(1) && said.contains("check --data"), "{code:?}: {said}");
        assert!(!Path::new(launch.data()).exists(), "{arguments:?}");
    }
}
