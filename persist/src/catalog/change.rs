//! One transaction of the catalog, and the answers that an idempotency key finds again.

use sqlx::Row as _;
use tmomi_engine::ids::TimeMs;

use super::{Catalog, CatalogError, Conn, Dialect, Row, small, sql, sql_time, unreadable};

/// How long an answer is remembered, in ms.
pub const CALL_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A request that came with an idempotency key.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The user's number; 0 for requests without a user.
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

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing was done under it yet.
    Nothing,
    /// It was done; this was the answer.
    Answer(Answer),
    /// It stands for another request.
    Other,
}

/// A transaction that may change the catalog. Dropped without [`commit`](Self::commit), it
/// changes nothing. Only one can be open at a time, so it must not wait for anything else.
#[derive(Debug)]
pub struct Change {
    conn: Conn,
    call: Option<Call>,
}

impl Catalog {
    /// Begins a change that no key stands for.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`], also if another change stays open for 5 s.
    pub async fn change(&self) -> Result<Change, CatalogError> {
        // What a change has read stays so until it is done: it has its turn from the start. A file
        // knows one writer at a time; on a server a row that all changes lock stands for it.
        let mut conn = Conn::of(&self.writer, self.dialect).await?;
        match self.dialect {
            Dialect::Sqlite => conn.begin("BEGIN IMMEDIATE").await?,
            Dialect::MySql => {
                conn.begin("BEGIN").await?;
                let turn = "SELECT value FROM settings WHERE name = 'turn' FOR UPDATE";
                sqlx::query(turn).fetch_one(&mut conn).await?;
            }
        }
        Ok(Change { conn, call: None })
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
        Ok(match known(change.conn(), &call).await? {
            Known::Nothing => Begun::Fresh(change),
            Known::Answer(answer) => Begun::Done(answer),
            Known::Other => Begun::KeyReused,
        })
    }

    /// What a call's key stands for, without beginning anything.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn known(&self, call: &Call) -> Result<Known, CatalogError> {
        known(&mut self.read().await?, call).await
    }

    /// The hashes of all keys of a user that stand for something at `now`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn keys_of(&self, scope: u64, now: TimeMs) -> Result<Vec<[u8; 32]>, CatalogError> {
        let rows = sqlx::query(
            "SELECT key_hash FROM idempotent_calls WHERE scope = ? AND answered_at > ?",
        )
        .bind(sql(scope))
        .bind(sql_time(kept_from(now)))
        .fetch_all(&mut self.read().await?)
        .await?;
        let hash = |row: &Row| {
            let bytes: &[u8] = row.try_get("key_hash")?;
            bytes.try_into().map_err(|_| unreadable("key_hash", &bytes.len()))
        };
        Ok(rows.iter().map(hash).collect::<Result<_, sqlx::Error>>()?)
    }
}

async fn known(conn: &mut Conn, call: &Call) -> Result<Known, CatalogError> {
    let row = sqlx::query(
        "SELECT fingerprint, status, body FROM idempotent_calls
         WHERE scope = ? AND key_hash = ? AND answered_at > ?",
    )
    .bind(sql(call.scope))
    .bind(&call.key[..])
    .bind(sql_time(kept_from(call.at)))
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(Known::Nothing) };
    if row.try_get::<&[u8], _>("fingerprint")? != call.fingerprint {
        return Ok(Known::Other);
    }
    let status = small(&row, "status")?;
    let status = u16::try_from(status).map_err(|_| unreadable("status", &status))?;
    Ok(Known::Answer(Answer { status, body: row.try_get("body")? }))
}

/// An answer of this time or before is past its time at `now`.
fn kept_from(now: TimeMs) -> TimeMs {
    TimeMs(now.0.saturating_sub(CALL_KEPT_MS))
}

impl Change {
    pub(super) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
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
                .bind(i64::from(answer.status))
                .bind(&answer.body[..])
                .bind(sql_time(call.at))
                .execute(self.conn())
                .await?;
        }
        Ok(self.conn.commit().await?)
    }

    /// Makes the change durable and remembers no answer.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub async fn commit_unanswered(self) -> Result<(), CatalogError> {
        Ok(self.conn.commit().await?)
    }

    /// Forgets the answers that are past their time at `now`; gives how many.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn forget_answers(&mut self, now: TimeMs) -> Result<u64, CatalogError> {
        let query = sqlx::query("DELETE FROM idempotent_calls WHERE answered_at <= ?");
        Ok(query.bind(sql_time(kept_from(now))).execute(self.conn()).await?.rows_affected())
    }

    /// The value of a setting of this house, which stays so until the change is done.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn setting(&mut self, name: &str) -> Result<Option<String>, CatalogError> {
        let query = sqlx::query_scalar("SELECT value FROM settings WHERE name = ?");
        Ok(query.bind(name).fetch_optional(self.conn()).await?)
    }

    /// Sets a setting of this house.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn set_setting(&mut self, name: &str, value: &str) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM settings WHERE name = ?").bind(name).execute(self.conn()).await?;
        let query =
            sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?)").bind(name).bind(value);
        query.execute(self.conn()).await?;
        Ok(())
    }
}
