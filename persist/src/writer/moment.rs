//! One moment of a database of rows, in which everything else is read.

use sqlx::any::Any;
use sqlx::{AnyConnection, Connection as _, Executor as _, Transaction};

use crate::database::Dialect;

/// What a connection begins with: it waits longer than a request would for a writer's transaction.
const FILE_BEGINS: &str = "PRAGMA busy_timeout = 60000";
/// It may rest, too, while the log is read or a pipe is full; and every statement of a transaction
/// sees one state.
const SERVER_BEGINS: &str = "SET SESSION wait_timeout = 600, innodb_lock_wait_timeout = 60;
    SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// Begins a transaction that sees one state of the database until its end; to change it, it is the
/// only one that writes in a file, and takes its locks as it goes on a server.
pub(super) async fn begin(
    conn: &mut AnyConnection,
    dialect: Dialect,
    changes: bool,
) -> Result<Transaction<'_, Any>, sqlx::Error> {
    let (first, begin) = match (dialect, changes) {
        (Dialect::Sqlite, false) => (FILE_BEGINS, "BEGIN"),
        (Dialect::Sqlite, true) => (FILE_BEGINS, "BEGIN IMMEDIATE"),
        (Dialect::MySql, false) => (SERVER_BEGINS, "START TRANSACTION WITH CONSISTENT SNAPSHOT"),
        (Dialect::MySql, true) => (SERVER_BEGINS, "START TRANSACTION"),
    };
    conn.execute(first).await?;
    conn.begin_with(begin).await
}
