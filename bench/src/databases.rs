//! Databases of the real servers that `make services` has started.

use std::path::Path;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tmomi_persist::catalog::Catalog;
use tmomi_persist::database::Server;

/// An empty database with the tables of this version, the showtime that is sold, and its buyers.
pub struct Database {
    /// The server's name.
    pub kind: &'static str,
    /// Its address, with user and password.
    pub url: String,
}

/// The servers that run, as (name, address). Panics if one does not.
pub fn servers() -> [(&'static str, String); 2] {
    [("MySQL", "mysql"), ("MariaDB", "mariadb")].map(|(kind, folder)| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/services/run");
        let address = std::fs::read_to_string(root.join(folder).join("address"));
        let address = address.expect("the server does not run: `make services` starts it");
        (kind, address.trim().to_owned())
    })
}

impl Database {
    /// Makes it anew, with users 1 to `buyers` and showtime 1.
    pub async fn fresh(kind: &'static str, address: &str, buyers: u32) -> Database {
        let root = format!("mysql://root@{address}/");
        let name = "tmomi_bench";
        let mut conn = MySqlConnection::connect(&root).await.expect("the server answers");
        let make =
            format!("DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8mb4");
        conn.execute(AssertSqlSafe(make)).await.expect("it may");
        let url = format!("{root}{name}");
        let server = Server::parse(&url).expect("an address");
        Catalog::open(&server).await.expect("the tables are made").close().await;
        let database = Database { kind, url };
        let mut conn = database.connect().await;
        let users: Vec<_> = (1..=buyers).collect();
        for users in users.chunks(1_000) {
            let rows: Vec<_> =
                users.iter().map(|n| format!("({n}, '{n}', '{n}', '', 'buyer', 0)")).collect();
            let insert = format!("INSERT INTO users VALUES {}", rows.join(", "));
            conn.execute(AssertSqlSafe(insert)).await.expect("they are new");
        }
        conn.execute(
            "INSERT INTO venues (venue_id, name, name_folded) VALUES (1, 'v', 'v');
             INSERT INTO plans VALUES (1, '', 0, 0);
             INSERT INTO shows (show_id, venue_id, name, name_folded) VALUES (1, 1, 's', 's');
             INSERT INTO showtimes VALUES
                 (1, 1, 1, 0, 'EUR', 0, 0, 4, 1, 'open', 0, 0, 0, 0, NULL);",
        )
        .await
        .expect("they are new");
        database
    }

    /// A connection, without TLS: see `SERVER_ROWS_MAX` of the writer for what sqlx makes of large
    /// statements with it.
    pub async fn connect(&self) -> MySqlConnection {
        let url = format!("{}?ssl-mode=DISABLED", self.url);
        MySqlConnection::connect(&url).await.expect("the server answers")
    }

    /// The place for a sink.
    pub fn server(&self) -> Server {
        Server::parse(&self.url).expect("an address")
    }
}
