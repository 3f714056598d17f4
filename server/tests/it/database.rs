//! Catalog and rows in MySQL and MariaDB, the writer as a process of its own, and what becomes of
//! both when the other dies, freezes, or is the wrong one.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::databases::{self, Database};
use crate::servers::{Kind, Own};
use crate::support::audit::seq_of;
use crate::support::batch::batch;
use crate::support::house::{self, Buyer, Sale};
use crate::support::{Client, Launch, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn launch(database: &Database) -> Launch {
    Launch::new().set("TMOMI_DATABASE", database.url())
}

/// A server that leaves the rows to `tmomi writer`, and that one on the same folder.
fn apart(database: &Database) -> (Launch, Launch) {
    let server = launch(database).set("TMOMI_WRITER", "off");
    let writer = server.clone().arguments(&["writer"]);
    (server, writer)
}

async fn sale(server: &Server) -> Sale {
    Sale::open(server, house::rows(40, 60), json!({ "limit": 1_000 })).await
}

async fn buy(sale: &Sale, buyer: &Buyer, seats: std::ops::Range<usize>) {
    for n in seats {
        sale.bought(buyer, &[&format!("A-{}-{}", n / 60 + 1, n % 60 + 1)]).await;
    }
}

async fn number(database: &Database, question: &'static str) -> i64 {
    let text = database.ask_text(&[question]).await;
    text.first().map_or(0, |text| text.parse().expect("a number"))
}

async fn position(database: &Database) -> i64 {
    number(database, "SELECT CAST(sequence AS CHAR) FROM shard_position").await
}

async fn valid_tickets(database: &Database) -> i64 {
    number(database, "SELECT CAST(COUNT(*) AS CHAR) FROM ticket WHERE state = 'valid'").await
}

/// Waits until the rows stand for everything that was sold by now.
async fn written(database: &Database, sale: &Sale) {
    let (_, seq) = seq_of(&sale.stats().await);
    eventually("the rows follow", PATIENCE, async || {
        (position(database).await >= seq as i64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_in_a_server_sells_as_one_in_files_and_is_there_after_a_crash() {
    for database in [databases::mysql().await, databases::mariadb().await] {
        let server = launch(&database).start();
        let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
        buy(&sale, &buyer, 0..30).await;
        let server = server.crash();
        buy(&sale, &buyer, 30..40).await;
        written(&database, &sale).await;
        assert_eq!(valid_tickets(&database).await, 40, "{}", database.kind);
        assert_eq!(buyer.seats_owned().await.len(), 40);
        // A report joins what was sold with what was offered.
        let told = database
            .ask_text(&[
                "SELECT v.name || ' ' || u.email || ' ' || SUM(o.total) FROM ticket_order o
                 JOIN users u ON u.user_id = o.user_id
                 JOIN showtimes t ON t.showtime_id = o.showtime_id
                 JOIN shows s ON s.show_id = t.show_id
                 JOIN venues v ON v.venue_id = s.venue_id GROUP BY v.name, u.email",
            ])
            .await;
        let price = number(&database, "SELECT CAST(MAX(amount) AS CHAR) FROM prices").await;
        assert_eq!(told, [format!("House {} {}", buyer.email, price * 40)], "{}", database.kind);
        server.stop();
    }
}

/// R2, R8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_killed_twenty_times_beside_a_sale_ends_with_every_row() {
    let database = databases::mysql().await;
    let (server, writer) = apart(&database);
    let server = server.start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    for life in 0..20 {
        let running = writer.start_unready();
        buy(&sale, &buyer, life * 20..life * 20 + 20).await;
        running.kill();
    }
    let mut running = writer.start_unready();
    written(&database, &sale).await;
    assert_eq!(valid_tickets(&database).await, 400);
    // Asked to, it ends well.
    running.signal(Signal::TERM);
    assert!(running.wait_exit(PATIENCE).success(), "{}", running.log());
    server.stop();
}

/// Two writers, one frozen in a transaction: the other goes on, and the frozen one leaves.
/// Planted bug: a writer that wakes up takes the position it finds for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_frozen_in_a_transaction_holds_nobody_up_and_leaves() {
    let database = databases::mysql().await;
    let (server, writer) = apart(&database);
    let server = server.start();
    let plan = house::rows(700, 60);
    let sale = Sale::open(&server, plan, json!({ "limit": 100_000 })).await;
    let buyer = house::buyer(&server).await;
    let lines: Vec<Value> = (0..40_000)
        .map(|n| {
            let seat = format!("A-{}-{}", n / 60 + 1, n % 60 + 1);
            json!({"idempotency_key": n.to_string(), "buyer": buyer.user_id, "seats": [seat]})
        })
        .collect();
    for lines in lines.chunks(10_000) {
        batch(&sale, lines).await;
    }
    let mut frozen = writer.start_unready();
    // One that has not begun to write knows no position.
    eventually("it writes", PATIENCE, async || (position(&database).await > 0).then_some(())).await;
    eventually("it is frozen in a transaction", PATIENCE, async || {
        frozen.signal(Signal::STOP);
        tokio::time::sleep(databases::TRANSACTIONS_SEEN_AFTER).await;
        let caught = database.has_transaction("trx_rows_modified > 0").await;
        if !caught {
            frozen.signal(Signal::CONT);
        }
        caught.then_some(())
    })
    .await;
    let (_, seq) = seq_of(&sale.stats().await);
    assert!(position(&database).await < seq as i64, "there is more to write");
    let other = writer.start_unready();
    written(&database, &sale).await;
    frozen.signal(Signal::CONT);
    let status = frozen.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", frozen.log());
    assert!(frozen.log().contains("another writer has moved the position"), "{}", frozen.log());
    let holds = number(&database, "SELECT CAST(COUNT(*) AS CHAR) FROM hold").await;
    assert_eq!(holds, 40_000);
    drop(other);
    server.stop();
}

/// R2, R8, R12: sales go on while the database is away, and its rows follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_again_and_again_holds_no_sale_up() {
    let mut own = Own::start(Kind::MySql);
    let database = databases::on_server("MySQL", own.address()).await;
    let server = launch(&database).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    for life in 0..3 {
        buy(&sale, &buyer, life * 40..life * 40 + 10).await;
        own.kill();
        buy(&sale, &buyer, life * 40 + 10..life * 40 + 40).await;
        eventually("it is told", PATIENCE, async || {
            let text = Client::stranger(server.address()).get("/readyz").await.text();
            (text.starts_with("ok") && text.contains("the writer of rows waits")).then_some(())
        })
        .await;
        tokio::task::block_in_place(|| own.restart());
        written(&database, &sale).await;
        assert_eq!(valid_tickets(&database).await, life as i64 * 40 + 40);
    }
    server.stop();
}

/// What is wrong with a database is said once, with what to do, and nothing is touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_will_not_do_is_refused_with_what_to_do() {
    let own = Own::start(Kind::MariaDb);
    let database = databases::on_server("MariaDB", own.address()).await;
    let (address, url) = (own.address().to_owned(), database.url().to_owned());
    let name = url.rsplit('/').next().expect("a name").to_owned();
    database
        .run("CREATE USER poor@'%' IDENTIFIED BY 'hunter22'; GRANT SELECT ON *.* TO poor@'%'")
        .await;
    let refused = |url: String| {
        let launch = Launch::new().set("TMOMI_DATABASE", &url);
        let (status, said) = launch.start_refused();
        assert!(!said.contains("hunter"), "no password is shown: {said}");
        (status.code(), said)
    };
    let failed = |url: String, words: &[&str]| {
        let (code, said) = refused(url);
        assert_eq!(code, Some(1), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{word} in {said}"));
    };
    let with = |user: &str| format!("mysql://{user}@{address}/{name}");
    failed(with("poor:hunter23"), &["Access denied", "user poor and the password"]);
    failed(with("poor:hunter22"), &["denied", "GRANT SELECT, INSERT"]);
    failed(format!("mysql://root@{address}/nothing"), &["CREATE DATABASE nothing"]);
    failed(format!("mysql://root@127.0.0.1:1/{name}"), &["127.0.0.1:1", "is it running"]);
    database.run("SET GLOBAL read_only = ON").await;
    failed(url.clone(), &["read-only", &address]);
    database.run("SET GLOBAL read_only = OFF").await;
    let (code, said) = refused("mysql://root:hunter22@localhost".to_owned());
    assert_eq!(code, Some(2), "{said}");

    let server = launch(&database).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..3).await;
    let stopped = server.stop();
    database
        .run("ALTER TABLE ticket CONVERT TO CHARACTER SET latin1 COLLATE latin1_swedish_ci")
        .await;
    let (status, said) = stopped.start_refused();
    assert_eq!(status.code(), Some(1), "{said}");
    for word in ["table ticket", "latin1_swedish_ci", "ALTER TABLE ticket CONVERT TO"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    // What it says to do helps, and nothing is lost.
    database.run("ALTER TABLE ticket CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin").await;
    let server = stopped.start();
    written(&database, &sale).await;
    assert_eq!(valid_tickets(&database).await, 3);
    server.stop();
}

/// R1: two logs would sell every seat of one catalog twice. Planted bug: a folder takes the name of
/// whatever database it is given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_belongs_to_one_folder_and_a_folder_to_one_database() {
    let (database, empty) = (databases::mysql().await, databases::mysql().await);
    let server = launch(&database).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..2).await;
    let first = server.stop();
    let refused = |launch: &Launch| {
        let (status, said) = launch.start_refused();
        assert_eq!(status.code(), Some(1), "{said}");
        said
    };
    let second = launch(&database);
    let said = refused(&second);
    assert!(said.contains("sell every seat twice"), "{said}");
    let said = refused(&first.clone().set("TMOMI_DATABASE", empty.url()));
    assert!(said.contains("is the database of none"), "{said}");
    let name = std::fs::read_to_string(first.data().join("house")).expect("it has a name");
    std::fs::write(second.data().join("house"), "another").expect("we own it");
    let said = refused(&second);
    assert!(said.contains(name.trim()) && said.contains("another"), "{said}");
    let server = first.start();
    buy(&sale, &buyer, 2..4).await;
    written(&database, &sale).await;
    server.stop();
}

/// R8: what the catalog does not have cannot become a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_nobody_stop_the_writer_with_an_alarm_and_a_copy() {
    let database = databases::mariadb().await;
    let (server, writer) = apart(&database);
    let server = server.start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..2).await;
    let spoil = format!(
        "SET FOREIGN_KEY_CHECKS = 0; DELETE FROM refresh_tokens; DELETE FROM users
         WHERE user_id = {}",
        buyer.user_id
    );
    database.run(&spoil).await;
    let mut running = writer.start_unready();
    let status = running.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(3), "{}", running.log());
    let log = running.log();
    assert!(log.contains("cannot become rows") && log.contains("foreign key"), "{log}");
    let letters = std::fs::read_dir(writer.data().join("dead-letters")).expect("a folder");
    assert_eq!(letters.count(), 1);
    assert!(server.launch().data().is_dir());
}
