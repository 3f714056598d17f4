//! Rows in SQLite.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::query_builder::Separated;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row as _};
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, SeatAddr, Seq, ShowtimeId, TimeMs};
use tmomi_engine::state::Place;

use super::rows::{EntryRow, HoldOutcome, HoldRow, OrderRow, Rows, Stamp, TicketRow};
use super::{EntryKey, Sink, SinkError};
use crate::catalog::{self, OpenError, refuse_format};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite/sales");

/// Rows of a statement at most.
const STATEMENT_ROWS_MAX: usize = 256;
/// Values of a row at most.
const ROW_VALUES_MAX: usize = 16;
/// What SQLite takes in one statement, by its default.
const SQLITE_VALUES_MAX: usize = 32_766;
const _: () = assert!(STATEMENT_ROWS_MAX * ROW_VALUES_MAX <= SQLITE_VALUES_MAX);

/// How long a statement waits for another process that writes.
const WAIT: Duration = Duration::from_secs(5);

/// The rows of one shard in a SQLite file.
#[derive(Debug)]
pub struct SqliteSink {
    shard: u32,
    path: PathBuf,
    /// `None` until it was opened.
    pool: Option<SqlitePool>,
}

type Values<'q> = Separated<'q, Sqlite, &'static str>;

/// A statement that inserts rows or, where there is one of the same key and no newer stamp,
/// changes it.
struct Upsert {
    insert: &'static str,
    conflict: &'static str,
}

const HOLDS: Upsert = Upsert {
    insert: "INSERT INTO hold (shard, hold_seq, slot, showtime_id, entry, state, seats, created_at,
             deadline, epoch, sequence) ",
    conflict: " ON CONFLICT (shard, hold_seq) DO UPDATE SET state = excluded.state,
        seats = COALESCE(excluded.seats, hold.seats),
        created_at = COALESCE(excluded.created_at, hold.created_at),
        deadline = COALESCE(excluded.deadline, hold.deadline),
        epoch = excluded.epoch, sequence = excluded.sequence
        WHERE (excluded.epoch, excluded.sequence) > (hold.epoch, hold.sequence)",
};

const ORDERS: Upsert = Upsert {
    insert: "INSERT INTO ticket_order (shard, hold_seq, slot, showtime_id, user_id, state, total,
             currency, payment_ref, confirmed_at, refunded_at, epoch, sequence) ",
    conflict: " ON CONFLICT (shard, hold_seq) DO UPDATE SET state = excluded.state,
        payment_ref = COALESCE(excluded.payment_ref, ticket_order.payment_ref),
        confirmed_at = COALESCE(excluded.confirmed_at, ticket_order.confirmed_at),
        refunded_at = COALESCE(excluded.refunded_at, ticket_order.refunded_at),
        epoch = excluded.epoch, sequence = excluded.sequence
        WHERE (excluded.epoch, excluded.sequence) > (ticket_order.epoch, ticket_order.sequence)",
};

const TICKETS: Upsert = Upsert {
    insert: "INSERT INTO ticket (shard, hold_seq, seat_addr, showtime_id, seat, tier, price, state,
             epoch, sequence) ",
    conflict: " ON CONFLICT (shard, hold_seq, seat_addr) DO UPDATE SET state = excluded.state,
        epoch = excluded.epoch, sequence = excluded.sequence
        WHERE (excluded.epoch, excluded.sequence) > (ticket.epoch, ticket.sequence)",
};

const ENTRIES: Upsert = Upsert {
    insert: "INSERT INTO line_entry (shard, showtime_id, entry, user_id, number, place,
             session_until, changed_at, epoch, sequence) ",
    conflict: " ON CONFLICT (shard, showtime_id, entry) DO UPDATE SET
        user_id = COALESCE(excluded.user_id, line_entry.user_id),
        number = COALESCE(excluded.number, line_entry.number), place = excluded.place,
        session_until = excluded.session_until, changed_at = excluded.changed_at,
        epoch = excluded.epoch, sequence = excluded.sequence
        WHERE (excluded.epoch, excluded.sequence) > (line_entry.epoch, line_entry.sequence)",
};

impl SqliteSink {
    /// The file at `path`, for the rows of `shard`. It is opened, or made, when it is needed
    /// first: whoever sells does not depend on it.
    pub fn at(path: &Path, shard: u32) -> SqliteSink {
        SqliteSink { shard, path: path.to_owned(), pool: None }
    }

    /// The same, opened at once.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn open(path: &Path, shard: u32) -> Result<SqliteSink, OpenError> {
        let mut sink = SqliteSink::at(path, shard);
        sink.pool().await?;
        Ok(sink)
    }

    /// Closes the file.
    pub async fn close(&self) {
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
    }

    async fn pool(&mut self) -> Result<&SqlitePool, OpenError> {
        let pool = match self.pool.take() {
            Some(pool) => pool,
            None => open_file(&self.path).await?,
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
        let mut tx = self.pool().await?.begin_with("BEGIN IMMEDIATE").await?;
        // The position comes first: a writer that has been overtaken has nothing to undo.
        let moved = sqlx::query(
            "UPDATE shard_position SET epoch = ?, sequence = ?
             WHERE shard = ? AND epoch = ? AND sequence = ?",
        )
        .bind(to.epoch.0)
        .bind(to.seq.0 as i64)
        .bind(shard)
        .bind(from.epoch.0)
        .bind(from.seq.0 as i64)
        .execute(&mut *tx)
        .await?;
        if moved.rows_affected() != 1 {
            return Ok(None);
        }
        upsert(&mut tx, &HOLDS, rows.holds.iter(), |v, row| push_hold(v, shard, row)).await?;
        upsert(&mut tx, &ORDERS, rows.orders.iter(), |v, row| push_order(v, shard, row)).await?;
        upsert(&mut tx, &TICKETS, rows.tickets.iter(), |v, row| push_ticket(v, shard, row)).await?;
        upsert(&mut tx, &ENTRIES, rows.entries.iter(), |v, row| push_entry(v, shard, row)).await?;
        tx.commit().await?;
        Ok(Some(()))
    }
}

impl Sink for SqliteSink {
    async fn position(&mut self) -> Result<Stamp, SinkError> {
        let shard = self.shard;
        let pool = self.pool().await?;
        let query = "SELECT epoch, sequence FROM shard_position WHERE shard = ?";
        let row = sqlx::query(query).bind(shard).fetch_optional(pool).await?;
        if let Some(row) = row {
            let seq: i64 = row.try_get("sequence")?;
            return Ok(Stamp { epoch: Epoch(row.try_get("epoch")?), seq: Seq(seq as u64) });
        }
        // Of two writers that begin one fails here, and finds the row the next time.
        let query = sqlx::query("INSERT INTO shard_position VALUES (?, 0, 0)").bind(shard);
        query.execute(pool).await?;
        Ok(Stamp::default())
    }

    async fn buyers(
        &mut self,
        entries: &[EntryKey],
    ) -> Result<Vec<(EntryKey, BuyerId)>, SinkError> {
        let shard = self.shard;
        let pool = self.pool().await?;
        let mut found = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_length(rest.len()));
            rest = after;
            let mut query = QueryBuilder::new(
                "SELECT showtime_id, entry, user_id FROM line_entry WHERE user_id IS NOT NULL
                 AND (shard, showtime_id, entry) IN (",
            );
            query.push_values(run, |mut values, (showtime, entry)| {
                values.push_bind(shard).push_bind(showtime.0).push_bind(entry.0);
            });
            for row in query.push(")").build().fetch_all(pool).await? {
                let key = (ShowtimeId(row.try_get(0)?), EntryId(row.try_get(1)?));
                found.push((key, BuyerId(row.try_get::<i64, _>(2)? as u64)));
            }
        }
        Ok(found)
    }

    async fn write(&mut self, from: Stamp, to: Stamp, rows: &Rows) -> Result<(), SinkError> {
        self.write_all(from, to, rows).await?.ok_or(SinkError::AnotherWriter)
    }
}

async fn open_file(path: &Path) -> Result<SqlitePool, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // The log lets go of what the position has passed, so a position must survive a
        // power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(WAIT);
    let pool = catalog::pool(1).connect_with(options).await?;
    MIGRATIONS.run(&pool).await.map_err(|error| refuse_format(error, &MIGRATIONS))?;
    Ok(pool)
}

impl From<OpenError> for SinkError {
    fn from(error: OpenError) -> SinkError {
        match error {
            OpenError::Unavailable(error) => SinkError::from(error),
            error => SinkError::Unusable(error.to_string()),
        }
    }
}

impl From<sqlx::Error> for SinkError {
    fn from(error: sqlx::Error) -> SinkError {
        SinkError::Away(error.to_string())
    }
}

/// How many of `left` rows go into the next statement: a power of two, so that a few prepared
/// statements serve all batches.
fn run_length(left: usize) -> usize {
    let floor = 1 << left.ilog2();
    STATEMENT_ROWS_MAX.min(floor)
}

async fn upsert<R>(
    conn: &mut SqliteConnection,
    sql: &Upsert,
    rows: impl ExactSizeIterator<Item = R>,
    push: impl Fn(&mut Values<'_>, R),
) -> Result<(), sqlx::Error> {
    let mut left = rows.len();
    let mut rows = rows;
    while left > 0 {
        let run = run_length(left);
        left -= run;
        let mut query = QueryBuilder::new(sql.insert);
        query.push_values(rows.by_ref().take(run), |mut values, row| push(&mut values, row));
        query.push(sql.conflict);
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

fn push_stamp(values: &mut Values<'_>, stamp: Stamp) {
    values.push_bind(stamp.epoch.0).push_bind(stamp.seq.0 as i64);
}

fn sql_time(time: Option<TimeMs>) -> Option<i64> {
    time.map(|time| time.0 as i64)
}

fn push_hold(values: &mut Values<'_>, shard: u32, (seq, row): (&Seq, &HoldRow)) {
    let state = match row.state {
        HoldOutcome::Active => "active",
        HoldOutcome::Confirmed => "confirmed",
        HoldOutcome::Released => "released",
        HoldOutcome::Expired => "expired",
        HoldOutcome::Refunded => "refunded",
    };
    values
        .push_bind(shard)
        .push_bind(seq.0 as i64)
        .push_bind(row.slot.0)
        .push_bind(row.showtime.0)
        .push_bind(row.entry.0)
        .push_bind(state)
        .push_bind(row.seats)
        .push_bind(sql_time(row.created_at))
        .push_bind(sql_time(row.deadline));
    push_stamp(values, row.stamp);
}

fn push_order(values: &mut Values<'_>, shard: u32, (seq, row): (&Seq, &OrderRow)) {
    values
        .push_bind(shard)
        .push_bind(seq.0 as i64)
        .push_bind(row.slot.0)
        .push_bind(row.showtime.0)
        .push_bind(row.buyer.0 as i64)
        .push_bind(if row.refunded { "refunded" } else { "confirmed" })
        .push_bind(row.total as i64)
        .push_bind(row.currency.clone())
        .push_bind(row.payment_ref.clone())
        .push_bind(sql_time(row.confirmed_at))
        .push_bind(sql_time(row.refunded_at));
    push_stamp(values, row.stamp);
}

type TicketKey = (Seq, SeatAddr);

fn push_ticket(values: &mut Values<'_>, shard: u32, (key, row): (&TicketKey, &TicketRow)) {
    values
        .push_bind(shard)
        .push_bind(key.0.0 as i64)
        .push_bind(key.1.raw())
        .push_bind(row.showtime.0)
        .push_bind(row.seat.clone())
        .push_bind(row.tier.clone())
        .push_bind(row.price as i64)
        .push_bind(if row.refunded { "refunded" } else { "valid" });
    push_stamp(values, row.stamp);
}

fn push_entry(values: &mut Values<'_>, shard: u32, (key, row): (&EntryKey, &EntryRow)) {
    let place = match row.place {
        Place::Out => "out",
        Place::Waiting => "waiting",
        Place::Passed => "passed",
        Place::Admitted => "admitted",
        Place::Expired => "expired",
    };
    values
        .push_bind(shard)
        .push_bind(key.0.0)
        .push_bind(key.1.0)
        .push_bind(row.buyer.map(|buyer| buyer.0 as i64))
        .push_bind(row.number.map(|number| number.0))
        .push_bind(place)
        .push_bind(sql_time(row.session_until))
        .push_bind(row.changed_at.0 as i64);
    push_stamp(values, row.stamp);
}
