//! The rows beside a sale: they follow it, and it never waits for them.

use serde_json::json;
use sqlx::{Connection as _, Executor as _, SqliteConnection};
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
    // A name that cannot be opened, for a while.
    std::fs::create_dir(&rows).expect("we own it");
    let server = launch.start();
    sale.bought(&buyer, &["A-1-1"]).await;
    eventually("it is told", Duration::from_secs(10), async || {
        let text = ready_text(&server).await;
        (text.starts_with("ok") && text.contains("the writer of rows waits")).then_some(())
    })
    .await;
    std::fs::remove_dir(&rows).expect("it is empty");
    std::fs::rename(&aside, &rows).expect("we own it");
    house::rows_are_written(&server, &sale).await;
    eventually("all is well", Duration::from_secs(10), async || {
        (ready_text(&server).await == "ok\n").then_some(())
    })
    .await;
}

/// Nobody waits for what will never be a database, and nobody writes into another program's.
/// Planted bug: garbage counts as away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_database_of_this_program_ends_the_writer_and_not_the_sale() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(20, 60), json!({ "limit": 1_000 })).await;
    let buyer = house::buyer(&server).await;
    let launch = server.stop();
    let rows = launch.data().join("sales.db");
    let others = launch.folder().join("others.db");
    let url = format!("sqlite://{}?mode=rwc", others.display());
    let mut conn = SqliteConnection::connect(&url).await.expect("a new file");
    conn.execute("CREATE TABLE songs (name TEXT)").await.expect("a table");
    conn.close().await.expect("it is written");
    let others = std::fs::read(others).expect("it is there");
    for (n, (bytes, why)) in
        [(vec![b'x'; 10_000], "not a database"), (others, "another program")].iter().enumerate()
    {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(launch.data().join(format!("sales.db{suffix}")));
        }
        std::fs::write(&rows, bytes).expect("we own it");
        let server = launch.start();
        sale.bought(&buyer, &[&format!("A-1-{}", n + 1)]).await;
        eventually("it is told", Duration::from_secs(10), async || {
            let text = ready_text(&server).await;
            let left = text.contains("the writer of rows has left") && text.contains(why);
            (text.starts_with("ok") && left && text.contains("sales.db")).then_some(())
        })
        .await;
        let metrics = Client::stranger(server.address()).get("/metrics").await.text();
        assert!(metrics.contains("\ntmomi_writer_up 0\n"), "{metrics}");
        server.stop();
        assert!(std::fs::read(&rows).expect("it is there") == *bytes, "it was not touched");
        for gone in ["sales.db", "catalog.db"] {
            let of_writer = launch.clone().arguments(&["writer"]);
            let (file, aside) = (launch.data().join(gone), launch.folder().join("aside"));
            std::fs::rename(&file, &aside).expect("we own it");
            std::fs::write(&file, bytes).expect("we own it");
            let (status, said) = of_writer.start_refused();
            assert_eq!(status.code(), Some(3), "{said}");
            assert!(said.contains(why) && said.contains(gone), "{said}");
            std::fs::rename(&aside, &file).expect("we own it");
        }
    }
    std::fs::remove_file(&rows).expect("we own it");
    let server = launch.start();
    house::rows_are_written(&server, &sale).await;
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
