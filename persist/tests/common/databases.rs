//! One database of each kind, which every test of rows and catalog runs on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by failing")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tempfile::TempDir;
use tmomi_persist::database::{Place, Server};

use crate::servers;

/// MySQL shows `innodb_trx` as it was, for as long as somebody has read it within the last 100 ms.
pub(crate) const TRANSACTIONS_SEEN_AFTER: Duration = Duration::from_millis(150);

/// An empty database that ends with it.
pub(crate) struct Database {
    /// Its kind, for messages.
    pub(crate) kind: &'static str,
    /// Where it is.
    pub(crate) place: Place,
    url: String,
    /// The server it is dropped from.
    server: Option<(String, String)>,
    /// For what else a test keeps.
    pub(crate) folder: TempDir,
}

/// A file of SQLite, called `name`, and a database each of MySQL and MariaDB.
pub(crate) async fn every(name: &str) -> [Database; 3] {
    [sqlite(name), mysql().await, mariadb().await]
}

/// A file of SQLite.
pub(crate) fn sqlite(name: &str) -> Database {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let url = format!("sqlite://{}", path.display());
    Database { kind: "SQLite", place: Place::File(path), url, server: None, folder }
}

/// A database of MySQL.
pub(crate) async fn mysql() -> Database {
    on_server("MySQL", &servers::mysql()).await
}

/// A database of MariaDB.
pub(crate) async fn mariadb() -> Database {
    on_server("MariaDB", &servers::mariadb()).await
}

/// An empty database of the server at `address`.
pub(crate) async fn on_server(kind: &'static str, address: &str) -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let root = format!("mysql://root@{address}/");
    // What the database says by itself must not matter.
    run(&root, &format!("CREATE DATABASE {name} CHARACTER SET latin1")).await;
    let url = format!("{root}{name}");
    let place = Place::Server(Server::parse(&url).unwrap());
    let folder = tempfile::tempdir().unwrap();
    Database { kind, place, url, server: Some((root, name)), folder }
}

async fn connect(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await.unwrap()
}

async fn run(url: &str, sql: &str) {
    connect(url).await.execute(AssertSqlSafe(sql)).await.unwrap();
}

impl Database {
    /// Its address, with user and password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn connect(&self) -> AnyConnection {
        connect(&self.url).await
    }

    /// Runs statements.
    pub(crate) async fn run(&self, sql: &str) {
        run(&self.url, sql).await;
    }

    /// Rows of questions that are asked of one state of the database.
    pub(crate) async fn ask(&self, questions: &[&'static str]) -> Vec<Vec<AnyRow>> {
        let mut conn = self.connect().await;
        let begin = if self.server.is_some() {
            "START TRANSACTION WITH CONSISTENT SNAPSHOT"
        } else {
            "BEGIN"
        };
        let mut tx = conn.begin_with(begin).await.unwrap();
        let mut answers = Vec::new();
        for question in questions {
            answers.push(sqlx::query(*question).fetch_all(&mut *tx).await.unwrap());
        }
        answers
    }

    /// The first column of questions that are asked of one state of the database.
    pub(crate) async fn ask_text(&self, questions: &[&'static str]) -> Vec<String> {
        let answers = self.ask(questions).await;
        answers.iter().flatten().map(|row| row.get::<String, _>(0)).collect()
    }

    /// Whether a session in this database has a transaction that is as `which` says. Others have
    /// theirs on the same server of MySQL.
    pub(crate) async fn has_transaction(&self, which: &str) -> bool {
        let question = format!(
            "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.innodb_trx
             JOIN performance_schema.threads ON processlist_id = trx_mysql_thread_id
             WHERE processlist_db = DATABASE() AND {which}"
        );
        let asked = sqlx::query(AssertSqlSafe(question));
        let row = asked.fetch_one(&mut self.connect().await).await.unwrap();
        row.get::<String, _>(0) != "0"
    }

    /// Puts what the rows of a made-up log point to into the catalog: showtimes 1 and 2, and users
    /// from 1,000. A file of rows has no catalog.
    pub(crate) async fn with_catalog(self) -> Database {
        let Place::Server(server) = &self.place else { return self };
        tmomi_persist::catalog::Catalog::open(server).await.unwrap().close().await;
        let users: Vec<_> =
            (1_000..1_200).map(|n| format!("({n}, '{n}', '{n}', '', 'buyer', 0)")).collect();
        self.run(&format!("INSERT INTO users VALUES {}", users.join(", "))).await;
        self.run(
            "INSERT INTO venues (venue_id, name, name_folded) VALUES (1, 'v', 'v');
             INSERT INTO plans VALUES (1, '', 0, 0);
             INSERT INTO shows (show_id, venue_id, name, name_folded) VALUES (1, 1, 's', 's');
             INSERT INTO showtimes VALUES
                 (1, 1, 1, 0, 'KRW', 0, 0, 4, 1, 'open', 0, 0, 0, 0, NULL),
                 (2, 1, 1, 0, 'KRW', 0, 0, 4, 1, 'open', 0, 0, 0, 0, NULL);",
        )
        .await;
        self
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((root, name)) = self.server.take() else { return };
        // A runtime of its own: the test's may be ending.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                if let Ok(mut conn) = AnyConnection::connect(&root).await {
                    let drop = format!("DROP DATABASE IF EXISTS {name}");
                    let _ = conn.execute(AssertSqlSafe(drop)).await;
                }
            });
            std::io::Result::Ok(())
        });
        let _ = dropped.join();
    }
}
