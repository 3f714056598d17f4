//! One transaction of the catalog, and the answers that an idempotency key finds again.

use sqlx::sqlite::Sqlite;
use sqlx::{Row as _, Transaction};
use tmomi_engine::ids::TimeMs;

use super::{Catalog, CatalogError, Conn, sql, sql_time};

/// How long an answer is remembered, in ms.
pub const CALL_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A request that came with an idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The user's number, or 0 for requests without a user.
    pub scope: u64,
    /// Hash of the key.
    pub key: [u8; 32],
    /// Fingerprint of method, path and body.
    pub fingerprint: [u8; 32],
    /// When it came.
    pub at: TimeMs,
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// What a call finds when it begins.
#[derive(Debug)]
pub enum Begun {
    /// Nothing was done under this key yet.
    Fresh(Change),
    /// It was done; this was the answer.
    Done(Answer),
    /// The key stands for another request.
    KeyReused,
}

/// A transaction that may change the catalog. Dropped without [`commit`](Self::commit), it
/// changes nothing. Only one can be open at a time, so it must not wait for anything else.
#[derive(Debug)]
pub struct Change {
    tx: Transaction<'static, Sqlite>,
    call: Option<Call>,
}

impl Catalog {
    /// Begins a change that no key stands for.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`], also if another change stays open for 5 s.
    pub async fn change(&self) -> Result<Change, CatalogError> {
        // A transaction that reads before it writes would be refused if another process wrote
        // in between; this one has its turn from the start.
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change { tx, call: None })
    }

    /// Begins the change that `call` asks for, unless it is done already.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub async fn begin(&self, call: Option<Call>) -> Result<Begun, CatalogError> {
        let mut change = self.change().await?;
        let Some(call) = call else { return Ok(Begun::Fresh(change)) };
        change.call = Some(call);
        let row = sqlx::query(
            "SELECT fingerprint, status, body FROM idempotent_calls
             WHERE scope = ? AND key_hash = ? AND answered_at > ?",
        )
        .bind(sql(call.scope))
        .bind(&call.key[..])
        .bind(sql_time(TimeMs(call.at.0.saturating_sub(CALL_KEPT_MS))))
        .fetch_optional(change.conn())
        .await?;
        let Some(row) = row else { return Ok(Begun::Fresh(change)) };
        if row.try_get::<&[u8], _>("fingerprint")? != call.fingerprint {
            return Ok(Begun::KeyReused);
        }
        Ok(Begun::Done(Answer { status: row.try_get("status")?, body: row.try_get("body")? }))
    }
}

impl Change {
    pub(super) fn conn(&mut self) -> &mut Conn {
        &mut self.tx
    }

    /// Makes the change durable, and with it `answer` if the change has a [`Call`].
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`]: whether it was done is unknown.
    pub async fn commit(mut self, answer: &Answer) -> Result<(), CatalogError> {
        if let Some(call) = self.call {
            // An older answer under this key is past its time, or the call would not be here.
            sqlx::query("DELETE FROM idempotent_calls WHERE scope = ? AND key_hash = ?")
                .bind(sql(call.scope))
                .bind(&call.key[..])
                .execute(self.conn())
                .await?;
            sqlx::query("INSERT INTO idempotent_calls VALUES (?, ?, ?, ?, ?, ?)")
                .bind(sql(call.scope))
                .bind(&call.key[..])
                .bind(&call.fingerprint[..])
                .bind(answer.status)
                .bind(&answer.body[..])
                .bind(sql_time(call.at))
                .execute(self.conn())
                .await?;
        }
        Ok(self.tx.commit().await?)
    }

    /// Makes the change durable and remembers no answer.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub async fn commit_unanswered(self) -> Result<(), CatalogError> {
        Ok(self.tx.commit().await?)
    }

    /// Forgets the answers that are past their time at `now`; gives how many.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn forget_answers(&mut self, now: TimeMs) -> Result<u64, CatalogError> {
        let before = sql_time(TimeMs(now.0.saturating_sub(CALL_KEPT_MS)));
        let query = sqlx::query("DELETE FROM idempotent_calls WHERE answered_at <= ?");
        Ok(query.bind(before).execute(self.conn()).await?.rows_affected())
    }

    /// Sets a setting of this house.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn set_setting(&mut self, name: &str, value: &str) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM settings WHERE name = ?").bind(name).execute(self.conn()).await?;
        let query = sqlx::query("INSERT INTO settings VALUES (?, ?)").bind(name).bind(value);
        query.execute(self.conn()).await?;
        Ok(())
    }
}
