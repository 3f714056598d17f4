//! The rows beside a sale: they follow it, and it never waits for them.

use serde_json::json;
use tmomi_persist::journal;

use crate::support::house::{self, Sale};
use crate::support::{Client, Server, eventually};

use std::time::Duration;

async fn ready_text(server: &Server) -> String {
    Client::stranger(server.address()).get("/readyz").await.text()
}

/// Planted bug: the server opens the file before it serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_sells_without_its_rows_and_writes_them_later() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&server).await;
    let launch = server.stop();
    let (rows, aside) = (launch.data().join("sales.db"), launch.folder().join("aside"));
    std::fs::rename(&rows, &aside).expect("we own it");
    std::fs::write(&rows, [b'x'; 10_000]).expect("we own it");
    let server = launch.start();
    sale.bought(&buyer, &["A-1-1"]).await;
    eventually("it is told", Duration::from_secs(10), async || {
        let text = ready_text(&server).await;
        (text.starts_with("ok") && text.contains("the writer of rows waits")).then_some(())
    })
    .await;
    std::fs::rename(&aside, &rows).expect("we own it");
    house::rows_are_written(&server, &sale).await;
    eventually("all is well", Duration::from_secs(10), async || {
        (ready_text(&server).await == "ok\n").then_some(())
    })
    .await;
}

/// Planted bug: rows that are ahead of the journal count as written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_another_journal_are_left_alone() {
    let other = Server::start();
    let sale = Sale::open(&other, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&other).await;
    for n in 1..=20 {
        sale.bought(&buyer, &[&format!("A-1-{n}")]).await;
    }
    let other = other.stop();
    let launch = Server::start().stop();
    std::fs::copy(other.data().join("sales.db"), launch.data().join("sales.db")).expect("a copy");
    let server = launch.start();
    eventually("it is noticed", Duration::from_secs(10), async || {
        ready_text(&server).await.contains("the writer of rows has left").then_some(())
    })
    .await;
}

/// Planted bug: the writer is stopped before it has read what was answered last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_sigterm_is_in_the_rows() {
    let mut server = Server::start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&server).await;
    for n in 1..=10 {
        sale.bought(&buyer, &[&format!("A-1-{n}")]).await;
        let launch = server.stop();
        let report = journal::verify(&launch.data().join("journal")).expect("a journal");
        let last = report.epochs.last().expect("a reign").last;
        assert_eq!(house::rows_seq(launch.data()).await, Some(last.0));
        server = launch.start();
    }
}
