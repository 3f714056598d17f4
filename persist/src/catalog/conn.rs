//! A connection whose every statement has a limit.
//!
//! A server that is frozen, or gone without a word, answers nothing and closes nothing. What is
//! asked then fails within the limit, and the connection is closed: it owes an answer, for which
//! it would be listened to the next time.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::any::{Any, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AnyPool, Either, Execute, Executor, SqlStr};

use crate::database::{Dialect, no_answer};

/// How long a statement of a server may take: a little longer than it waits for a lock
/// (`database::server`). A file has no limit: nobody is silent there but the disk, and what it was
/// asked goes on behind the back of whoever gives up.
const ANSWER_WAIT: Duration = Duration::from_secs(6);
/// What each MiB that it carries adds.
const MIB_WAIT: Duration = Duration::from_secs(1);

/// A connection of a pool, to be asked through `&mut`.
#[derive(Debug)]
pub(super) struct Conn {
    /// `None` only when it has been dropped.
    conn: Option<PoolConnection<Any>>,
    limit: Duration,
    /// Something was asked, and the answer did not come.
    owes: bool,
    in_change: bool,
}

impl Conn {
    pub(super) async fn of(pool: &AnyPool, dialect: Dialect) -> Result<Conn, sqlx::Error> {
        let conn = Some(pool.acquire().await?);
        let limit = match dialect {
            Dialect::Sqlite => Duration::MAX,
            Dialect::MySql => ANSWER_WAIT,
        };
        Ok(Conn { conn, limit, owes: false, in_change: false })
    }

    /// The same, with the time that a statement of `bytes` needs.
    pub(super) fn carrying(&mut self, bytes: u32) -> &mut Conn {
        self.limit = self.limit.saturating_add(MIB_WAIT * (bytes >> 20));
        self
    }

    /// Begins a transaction in the words of the database. Dropped before it is
    /// [committed](Self::commit), it changes nothing.
    pub(super) async fn begin(&mut self, words: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(words).execute(&mut *self).await?;
        self.in_change = true;
        Ok(())
    }

    /// Makes durable what was changed since it began.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(&mut self).await?;
        self.in_change = false;
        Ok(())
    }

    /// Asks, and remembers whether an answer came: an error of the database is one.
    async fn ask<'a, T, F>(
        &'a mut self,
        ask: impl FnOnce(&'a mut AnyConnection) -> F,
    ) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>> + 'a,
    {
        let Conn { conn, limit, owes, .. } = self;
        *owes = true;
        let answer = within(*limit, ask(conn.as_mut().expect("it is not dropped"))).await;
        *owes = !matches!(&answer, Ok(_) | Err(sqlx::Error::Database(_)));
        answer
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if self.owes {
            drop(conn.detach());
        } else {
            tokio::spawn(give_back(conn, self.in_change, self.limit));
        }
    }
}

/// Gives a connection back to its pool, which asks once more whether it is well.
async fn give_back(mut conn: PoolConnection<Any>, in_change: bool, limit: Duration) {
    if in_change {
        let undo = async { sqlx::raw_sql("ROLLBACK").execute(&mut *conn).await };
        if within(limit, undo).await.is_err() {
            drop(conn.detach());
            return;
        }
    }
    // Given up in time, the connection is closed.
    let back = conn.return_to_pool();
    let _ = tokio::time::timeout(limit, back).await;
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or_else(|_| Err(no_answer(limit)))
}

impl<'c> Executor<'c> for &'c mut Conn {
    type Database = Any;

    /// All at once: what the catalog is asked has few rows.
    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let all = self.ask(|conn| conn.fetch_many(query).try_collect::<Vec<_>>());
        let items = stream::once(all).map_ok(|all| stream::iter(all.into_iter().map(Ok)));
        items.try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<AnyRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(self.ask(|conn| conn.fetch_optional(query)))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [AnyTypeInfo],
    ) -> BoxFuture<'e, Result<AnyStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(self.ask(|conn| conn.prepare_with(sql, parameters)))
    }
}
