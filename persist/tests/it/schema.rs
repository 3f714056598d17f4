//! docs/SCHEMA.md: it names every table and column, and its questions are answered.

use std::collections::BTreeSet;

use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};
use tmomi_persist::catalog::Catalog;
use tmomi_persist::writer::SqlSink;

use crate::databases::{Database, every};

const DOCUMENT: &str = include_str!("../../../docs/SCHEMA.md");
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/0001_catalog.sql"),
    include_str!("../../migrations/0002_sales.sql"),
];

#[test]
fn every_table_and_column_is_in_the_document() {
    let mut missing = BTreeSet::new();
    for sql in MIGRATIONS {
        for table in sql.split("CREATE TABLE ").skip(1) {
            let body = table.split_once(") ").expect("a table has an end").0;
            let name = table.split_whitespace().next().unwrap();
            let whole = table.lines().take_while(|line| !line.starts_with(')'));
            let columns = whole.skip(1).filter_map(|line| line.split_whitespace().next());
            let is_column = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(body.starts_with(name));
            for word in std::iter::once(name).chain(columns.filter(is_column)) {
                if !DOCUMENT.contains(&format!("`{word}`")) {
                    missing.insert(format!("{name}: {word}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/SCHEMA.md: {missing:#?}");
}

/// The questions as they stand in the document.
fn questions() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```sql\n").skip(1);
    blocks.map(|block| block.split_once("```").expect("a block has an end").0).collect()
}

/// What is asked about: two shows; Ada, who bought, was refunded and bought again up to her limit;
/// Bob, who holds; Cem, who waits.
const DATA: [&str; 10] = [
    "INSERT INTO users VALUES (1, 'Ada@example.org', 'ada@example.org', '', 'buyer', 0),
                              (2, 'bob@example.org', 'bob@example.org', '', 'buyer', 0),
                              (3, 'cem@example.org', 'cem@example.org', '', 'buyer', 0)",
    "INSERT INTO venues (venue_id, name, name_folded) VALUES (1, 'Hall', 'hall')",
    "INSERT INTO plans VALUES (1, '', 0, 0)",
    "INSERT INTO shows (show_id, venue_id, name, name_folded)
     VALUES (1, 1, 'Swan Lake', 'swan lake'), (2, 1, '호두까기', '호두까기')",
    "INSERT INTO showtimes VALUES
     (1, 1, 1, 0, 'EUR', 0, 0, 3, 1, 'fifo', 0, 0, 0, 0, NULL),
     (2, 2, 1, 0, 'KRW', 0, 0, 3, 1, 'open', 0, 0, 0, 0, NULL)",
    "INSERT INTO line_entry VALUES
     (0, 1, 0, 'admitted', '2026-11-23 19:30:00.000', '2026-11-23 19:00:00.000', 1, 1, 1, 5),
     (0, 1, 1, 'expired', NULL, '2026-11-23 19:00:00.000', 2, 2, 1, 6),
     (0, 1, 2, 'waiting', NULL, '2026-11-23 19:00:00.000', 3, 3, 1, 7),
     (0, 2, 0, 'out', NULL, '2026-11-23 19:00:00.000', 1, NULL, 1, 8)",
    "INSERT INTO hold VALUES
     (0, 11, 0, 1, 0, 'confirmed', 3, '2026-11-23 19:10:00.000', '2026-11-23 19:20:00.000', 1, 13),
     (0, 14, 1, 1, 0, 'released', 1, '2026-11-23 19:10:00.000', '2026-11-23 19:20:00.000', 1, 15),
     (0, 16, 2, 1, 1, 'active', 2, '2026-11-23 19:10:00.000', '2026-11-23 19:20:00.000', 1, 16),
     (0, 17, 3, 2, 0, 'refunded', 1, '2026-11-23 19:10:00.000', '2026-11-23 19:20:00.000', 1, 19)",
    "INSERT INTO ticket_order VALUES
     (0, 11, 0, 1, 1, 5500, 'EUR', 'confirmed', 'pay-1', '2026-11-23 19:11:00.000', NULL, 1, 13),
     (0, 17, 3, 2, 1, 90000, 'KRW', 'refunded', NULL, '2026-11-23 19:12:00.000',
      '2026-11-24 23:59:59.999', 1, 19)",
    "INSERT INTO ticket VALUES
     (0, 11, 1, 1, 'A-1-1', 'Stalls', 2000, 'valid', 1, 13),
     (0, 11, 2, 1, 'A-1-2', 'Stalls', 2000, 'valid', 1, 13),
     (0, 11, 9, 1, 'B-1-1', 'Circle', 1500, 'valid', 1, 13),
     (0, 17, 1, 2, 'A-1-1', 'R', 90000, 'refunded', 1, 19)",
    "INSERT INTO shard_position VALUES (0, 1, 19)",
];

/// Each answer's columns, and its lines.
const ANSWERS: [(&str, &[&str]); 6] = [
    (
        "show_name tier currency tickets revenue",
        &["Swan Lake|Circle|EUR|1|1500", "Swan Lake|Stalls|EUR|2|4000"],
    ),
    ("showtime_id sold held", &["1|3|2", "2|0|0"]),
    (
        "hold_seq show_name state total currency",
        &["11|Swan Lake|confirmed|5500|EUR", "17|호두까기|refunded|90000|KRW"],
    ),
    ("refund_day currency orders amount", &["2026-11-24|KRW|1|90000"]),
    ("showtime_id joined admitted_now held bought", &["1|3|1|2|1"]),
    ("showtime_id user_id seats", &["1|1|3"]),
];

#[tokio::test]
async fn the_questions_of_the_document_are_answered_by_every_database() {
    assert_eq!(questions().len(), ANSWERS.len());
    for database in every("sales.db").await {
        let mut conn = furnished(&database).await;
        for (question, (columns, expected)) in questions().into_iter().zip(ANSWERS) {
            // A sum is a decimal in MySQL, which only its own clients read.
            let cast = columns.split(' ').map(|name| format!("CAST({name} AS CHAR)"));
            let cast = cast.collect::<Vec<_>>().join(", ");
            let asked = format!("SELECT {cast} FROM ({question}) AS asked");
            let rows = conn.fetch_all(AssertSqlSafe(asked)).await.unwrap();
            let line = |row: &sqlx::any::AnyRow| {
                let values = (0..row.len()).map(|n| row.get::<String, _>(n));
                values.collect::<Vec<_>>().join("|")
            };
            let mut lines: Vec<_> = rows.iter().map(line).collect();
            lines.sort_unstable();
            assert_eq!(lines, expected, "{}: {question}", database.kind);
        }
    }
}

/// A connection that sees rows and catalog, with the data in them.
async fn furnished(database: &Database) -> AnyConnection {
    SqlSink::open(database.place.clone(), 0).await.unwrap().close().await;
    let mut conn = database.connect().await;
    if database.kind == "SQLite" {
        let file = database.folder.path().join("catalog.db");
        Catalog::open(&file).await.unwrap().close().await;
        let attach = format!("ATTACH '{}' AS catalog", file.display());
        conn.execute(AssertSqlSafe(attach)).await.unwrap();
    }
    for sql in DATA {
        conn.execute(sql).await.unwrap_or_else(|error| panic!("{}: {error}", database.kind));
    }
    conn
}
