//! Rows in a SQL database: a SQLite file, MySQL, or MariaDB.

use std::collections::HashMap;
use std::ops::DerefMut as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{Any, AnyArguments};
use sqlx::query::Query;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, QueryBuilder, Row as _};
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, Seq, ShowtimeId};

use super::rows::{Rows, Stamp};
use super::tables::{Table, TableRow, Value};
use super::{EntryKey, Sink, SinkError};
use crate::database::{self, Dialect, OpenError, Part, Place};

/// Values of a row at most.
const ROW_VALUES_MAX: usize = 16;
/// Rows of a statement of SQLite at most, which takes 32,766 values by its default.
const FILE_ROWS_MAX: usize = 256;
const _: () = assert!(FILE_ROWS_MAX * ROW_VALUES_MAX <= 32_766);
/// Rows of a statement of a server at most: so many are some 10 KB, which is one record of TLS.
/// sqlx 0.9.0 leaves Nagle's algorithm on and writes a packet record by record, and each record
/// but the first then waits up to 40 ms for a delayed acknowledgement.
const SERVER_ROWS_MAX: usize = 64;

/// How long a server may take for a statement.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// The rows of one shard in a database.
#[derive(Debug)]
pub struct SqlSink {
    shard: u32,
    place: Place,
    /// `None` until it was opened.
    pool: Option<AnyPool>,
    upserts: Upserts,
}

impl SqlSink {
    /// The database at `place`, for the rows of `shard`. It is opened when it is needed first:
    /// whoever sells does not depend on it.
    pub fn at(place: impl Into<Place>, shard: u32) -> SqlSink {
        let place = place.into();
        let upserts = Upserts::new(place.dialect());
        SqlSink { shard, place, pool: None, upserts }
    }

    /// The same, opened at once.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open(place: impl Into<Place>, shard: u32) -> Result<SqlSink, OpenError> {
        let mut sink = SqlSink::at(place, shard);
        sink.pool().await?;
        Ok(sink)
    }

    /// Closes the connection.
    pub async fn close(&self) {
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
    }

    async fn pool(&mut self) -> Result<&AnyPool, OpenError> {
        let pool = match self.pool.take() {
            Some(pool) => pool,
            None => self.place.open(Part::Sales, 1).await?,
        };
        Ok(self.pool.insert(pool))
    }

    async fn write_all(
        &mut self,
        from: Stamp,
        to: Stamp,
        rows: &Rows,
    ) -> Result<Option<()>, SinkError> {
        let shard = self.shard;
        let dialect = self.place.dialect();
        let pool = self.pool().await?;
        let mut tx = match dialect {
            Dialect::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::MySql => answer(dialect, pool.begin()).await?,
        };
        // The position comes first: a writer that has been overtaken has nothing to undo.
        let moving = sqlx::query(
            "UPDATE shard_position SET epoch = ?, sequence = ?
             WHERE shard = ? AND epoch = ? AND sequence = ?",
        )
        .bind(i64::from(to.epoch.0))
        .bind(to.seq.0 as i64)
        .bind(i64::from(shard))
        .bind(i64::from(from.epoch.0))
        .bind(from.seq.0 as i64)
        .execute(&mut *tx);
        if answer(dialect, moving).await?.rows_affected() != 1 {
            return Ok(None);
        }
        let conn = tx.deref_mut();
        self.upserts.write(conn, shard, rows.holds.iter()).await?;
        self.upserts.write(conn, shard, rows.orders.iter()).await?;
        self.upserts.write(conn, shard, rows.tickets.iter()).await?;
        self.upserts.write(conn, shard, rows.entries.iter()).await?;
        answer(dialect, tx.commit()).await?;
        Ok(Some(()))
    }

    async fn read_position(&mut self) -> Result<Stamp, SinkError> {
        let shard = i64::from(self.shard);
        // A commit whose answer was lost may still be on its way: on a server it has the row.
        let dialect = self.place.dialect();
        let query = match dialect {
            Dialect::Sqlite => "SELECT epoch, sequence FROM shard_position WHERE shard = ?",
            Dialect::MySql => {
                "SELECT epoch, sequence FROM shard_position WHERE shard = ? FOR UPDATE"
            }
        };
        let pool = self.pool().await?;
        let row = answer(dialect, sqlx::query(query).bind(shard).fetch_optional(pool)).await?;
        if let Some(row) = row {
            let (epoch, seq): (i64, i64) = (row.try_get("epoch")?, row.try_get("sequence")?);
            return Ok(Stamp { epoch: Epoch(epoch as u32), seq: Seq(seq as u64) });
        }
        // Of two writers that begin one fails here, and finds the row the next time.
        let query = sqlx::query("INSERT INTO shard_position VALUES (?, 0, 0)").bind(shard);
        answer(dialect, query.execute(pool)).await?;
        Ok(Stamp::default())
    }

    async fn find_buyers(
        &mut self,
        entries: &[EntryKey],
    ) -> Result<Vec<(EntryKey, BuyerId)>, SinkError> {
        let (shard, dialect) = (i64::from(self.shard), self.place.dialect());
        let rows_max = self.upserts.rows_max();
        let pool = self.pool().await?;
        let mut sorted = entries.to_vec();
        sorted.sort_unstable();
        let mut found = Vec::with_capacity(entries.len());
        for of_showtime in sorted.chunk_by(|(one, _), (other, _)| one == other) {
            let mut rest = of_showtime;
            while let Some((showtime, _)) = rest.first() {
                let (run, after) = rest.split_at(run_length(rest.len(), rows_max));
                rest = after;
                let mut query = QueryBuilder::<Any>::new(
                    "SELECT entry, user_id FROM line_entry
                     WHERE user_id IS NOT NULL AND shard = ",
                );
                query.push_bind(shard).push(" AND showtime_id = ").push_bind(sql_id(*showtime));
                let mut list = query.push(" AND entry IN (").separated(", ");
                for (_, entry) in run {
                    list.push_bind(i64::from(entry.0));
                }
                let query = query.push(")").build();
                for row in answer(dialect, query.fetch_all(pool)).await? {
                    let (entry, buyer): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                    found.push(((*showtime, EntryId(entry as u32)), BuyerId(buyer as u64)));
                }
            }
        }
        Ok(found)
    }

    /// Gives a connection up on which something failed: it may owe an answer, for which it would
    /// be listened to for ever.
    fn after<T>(&mut self, done: Result<T, SinkError>) -> Result<T, SinkError> {
        if matches!(done, Err(SinkError::Away(_))) {
            self.pool = None;
        }
        done
    }
}

/// An answer of a server within [`ANSWER_WAIT`]. A file has no such limit: nobody is silent there
/// but the disk, and what it was asked goes on behind the back of whoever gives up.
async fn answer<T>(
    dialect: Dialect,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    if dialect == Dialect::Sqlite {
        return asked.await;
    }
    let answer = tokio::time::timeout(ANSWER_WAIT, asked).await;
    answer.unwrap_or_else(|_| Err(database::no_answer(ANSWER_WAIT)))
}

impl Sink for SqlSink {
    async fn position(&mut self) -> Result<Stamp, SinkError> {
        let done = self.read_position().await;
        self.after(done)
    }

    async fn buyers(
        &mut self,
        entries: &[EntryKey],
    ) -> Result<Vec<(EntryKey, BuyerId)>, SinkError> {
        let done = self.find_buyers(entries).await;
        self.after(done)
    }

    async fn write(&mut self, from: Stamp, to: Stamp, rows: &Rows) -> Result<(), SinkError> {
        let done = self.write_all(from, to, rows).await;
        self.after(done)?.ok_or(SinkError::AnotherWriter)
    }
}

impl From<OpenError> for SinkError {
    fn from(error: OpenError) -> SinkError {
        match error {
            OpenError::Unavailable(error) => SinkError::from(error),
            // What is wrong with a server its operator may set right at any time.
            OpenError::Refused(what) => SinkError::Away(what),
            error => SinkError::Unusable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for SinkError {
    fn from(error: sqlx::Error) -> SinkError {
        let refused = matches!(&error, sqlx::Error::Database(e)
            if e.is_foreign_key_violation() || e.is_check_violation());
        if refused || database::is_bad_value(&error) {
            return SinkError::Refused(error.to_string());
        }
        if database::is_no_database(&error) {
            return SinkError::Unusable(error.to_string());
        }
        SinkError::Away(error.to_string())
    }
}

fn sql_id(showtime: ShowtimeId) -> i64 {
    i64::from(showtime.0)
}

/// How many of `left` rows go into the next statement: a power of two, so that a few prepared
/// statements serve all batches.
fn run_length(left: usize, max: usize) -> usize {
    let floor = 1 << left.ilog2();
    max.min(floor)
}

/// The statements that write rows, by table and count of rows.
#[derive(Debug)]
pub(super) struct Upserts {
    dialect: Dialect,
    known: HashMap<(&'static str, usize), Arc<str>>,
}

impl Upserts {
    pub(super) fn new(dialect: Dialect) -> Upserts {
        Upserts { dialect, known: HashMap::new() }
    }

    fn rows_max(&self) -> usize {
        match self.dialect {
            Dialect::Sqlite => FILE_ROWS_MAX,
            Dialect::MySql => SERVER_ROWS_MAX,
        }
    }

    fn statement(&mut self, table: &Table, rows: usize) -> Query<'static, Any, AnyArguments> {
        let make = || Arc::from(table.upsert(rows, self.dialect));
        let sql = self.known.entry((table.name, rows)).or_insert_with(make);
        sqlx::query(AssertSqlSafe(Arc::clone(sql)))
    }

    async fn write<'a, R: TableRow + 'a>(
        &mut self,
        conn: &mut AnyConnection,
        shard: u32,
        rows: impl ExactSizeIterator<Item = (&'a R::Key, &'a R)>,
    ) -> Result<(), sqlx::Error>
    where
        R::Key: 'a,
    {
        let mut left = rows.len();
        let mut rows = rows;
        while left > 0 {
            let run = run_length(left, self.rows_max());
            left -= run;
            let mut query = Some(self.statement(R::table(), run));
            for (key, row) in rows.by_ref().take(run) {
                row.put(shard, key, &mut |value| query = query.take().map(|q| bind(q, value)));
            }
            if let Some(query) = query {
                answer(self.dialect, query.execute(&mut *conn)).await?;
            }
        }
        Ok(())
    }

    /// Writes rows of which only the values are known, in the order of the columns.
    pub(super) async fn write_values(
        &mut self,
        conn: &mut AnyConnection,
        table: &Table,
        rows: &[Vec<Value<'_>>],
    ) -> Result<(), sqlx::Error> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_length(rest.len(), self.rows_max()));
            rest = after;
            let query = self.statement(table, run.len());
            let query = run.iter().flatten().cloned().fold(query, bind);
            answer(self.dialect, query.execute(&mut *conn)).await?;
        }
        Ok(())
    }
}

pub(super) fn bind<'q>(
    query: Query<'q, Any, AnyArguments>,
    value: Value<'_>,
) -> Query<'q, Any, AnyArguments> {
    match value {
        Value::NoNumber => query.bind(None::<i64>),
        Value::NoText => query.bind(None::<String>),
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text.into_owned()),
    }
}
