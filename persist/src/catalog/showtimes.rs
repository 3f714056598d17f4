//! Showtimes: what is sold, and for how much.

use std::collections::BTreeMap;

use sqlx::Row as _;
use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{ShowtimeId, TimeMs};

use super::shows::find_show;
use super::venues::find_venue;
use super::{
    Catalog, CatalogError, Change, Conn, List, Noun, Page, PlanId, Row, ShowId, number, small, sql,
    sql_time, time, time_or_none, unreadable,
};
use crate::database::inserted_number;

/// A showtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Showtime {
    /// The number, never given twice.
    pub showtime_id: ShowtimeId,
    /// What is performed.
    pub show_id: ShowId,
    /// The venue's plan when the showtime was made.
    pub plan_id: PlanId,
    /// What it is sold as.
    pub terms: NewShowtime,
}

/// How a showtime is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewShowtime {
    /// When it starts.
    pub starts_at: TimeMs,
    /// What prices are in, by ISO 4217.
    pub currency: String,
    /// The price of each tier in the currency's minor unit, below 2^53.
    pub prices: BTreeMap<String, u64>,
    /// When the sale opens.
    pub opens_at: TimeMs,
    /// When it closes, if it does.
    pub closes_at: Option<TimeMs>,
    /// Seats a buyer may have held or bought at a time.
    pub limit: u32,
    /// How long a hold lasts, in ms.
    pub hold_ttl_ms: u32,
    /// The line.
    pub line: LineSettings,
}

/// What is to be changed; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ShowtimePatch {
    /// When it starts.
    pub starts_at: Option<TimeMs>,
    /// What prices are in.
    pub currency: Option<String>,
    /// All prices.
    pub prices: Option<BTreeMap<String, u64>>,
    /// When the sale opens.
    pub opens_at: Option<TimeMs>,
    /// When it closes; `Some(None)` is never.
    pub closes_at: Option<Option<TimeMs>>,
    /// Seats a buyer may have held or bought at a time.
    pub limit: Option<u32>,
    /// How long a hold lasts, in ms.
    pub hold_ttl_ms: Option<u32>,
    /// The line.
    pub line: Option<LineSettings>,
}

fn mode_name(mode: LineMode) -> &'static str {
    match mode {
        LineMode::Open => "open",
        LineMode::Fifo => "fifo",
        LineMode::Paused => "paused",
    }
}

fn mode(row: &Row) -> Result<LineMode, sqlx::Error> {
    let name: &str = row.try_get("line_mode")?;
    let modes = [LineMode::Open, LineMode::Fifo, LineMode::Paused];
    let found = modes.into_iter().find(|mode| mode_name(*mode) == name);
    found.ok_or_else(|| unreadable("line_mode", &name))
}

fn showtime(row: &Row) -> Result<Showtime, sqlx::Error> {
    Ok(Showtime {
        showtime_id: ShowtimeId(small(row, "showtime_id")?),
        show_id: ShowId(number(row, "show_id")?),
        plan_id: PlanId(number(row, "plan_id")?),
        terms: NewShowtime {
            starts_at: time(row, "starts_at")?,
            currency: row.try_get("currency")?,
            prices: BTreeMap::new(),
            opens_at: time(row, "opens_at")?,
            closes_at: time_or_none(row, "closes_at")?,
            limit: small(row, "seat_limit")?,
            hold_ttl_ms: small(row, "hold_ttl_ms")?,
            line: LineSettings {
                mode: mode(row)?,
                max_active: small(row, "line_max_active")?,
                rate_per_1000s: small(row, "line_rate_per_1000s")?,
                grace_ms: small(row, "line_grace_ms")?,
                session_ms: small(row, "line_session_ms")?,
            },
        },
    })
}

/// Showtimes out of rows that have one price each, those of one showtime together.
fn showtimes(rows: &[Row]) -> Result<Vec<Showtime>, sqlx::Error> {
    let mut found: Vec<Showtime> = Vec::new();
    for row in rows {
        let id = small(row, "showtime_id")?;
        if found.last().is_none_or(|last| last.showtime_id.0 != id) {
            found.push(showtime(row)?);
        }
        if let (Some(tier), Some(last)) = (row.try_get("tier")?, found.last_mut()) {
            last.terms.prices.insert(tier, number(row, "amount")?);
        }
    }
    Ok(found)
}

async fn find_showtime(conn: &mut Conn, id: ShowtimeId) -> Result<Showtime, CatalogError> {
    let rows = sqlx::query(
        "SELECT t.*, p.tier, p.amount
         FROM showtimes t LEFT JOIN prices p ON p.showtime_id = t.showtime_id
         WHERE t.showtime_id = ? AND t.deleted_at IS NULL",
    )
    .bind(i64::from(id.0))
    .fetch_all(conn)
    .await?;
    showtimes(&rows)?.pop().ok_or(CatalogError::NotFound(Noun::Showtime))
}

impl Catalog {
    /// One showtime.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn showtime(&self, id: ShowtimeId) -> Result<Showtime, CatalogError> {
        find_showtime(&mut self.read().await?, id).await
    }

    /// One showtime, also if it is no longer in the catalog: the log may still speak of it.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn showtime_ever(&self, id: ShowtimeId) -> Result<Showtime, CatalogError> {
        let rows = sqlx::query(
            "SELECT t.*, p.tier, p.amount
             FROM showtimes t LEFT JOIN prices p ON p.showtime_id = t.showtime_id
             WHERE t.showtime_id = ?",
        )
        .bind(i64::from(id.0))
        .fetch_all(&mut self.read().await?)
        .await?;
        showtimes(&rows)?.pop().ok_or(CatalogError::NotFound(Noun::Showtime))
    }

    /// The showtimes by number.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn showtimes(&self, page: Page) -> Result<List<Showtime>, CatalogError> {
        let rows = sqlx::query(
            "SELECT t.*, p.tier, p.amount
             FROM (SELECT * FROM showtimes WHERE showtime_id > ? AND deleted_at IS NULL
                   ORDER BY showtime_id LIMIT ?) t
                  LEFT JOIN prices p ON p.showtime_id = t.showtime_id
             ORDER BY t.showtime_id",
        )
        .bind(sql(page.after))
        .bind(page.rows())
        .fetch_all(&mut self.read().await?)
        .await?;
        Ok(page.list(showtimes(&rows)?, |showtime| showtime.showtime_id.0.into()))
    }

    /// All showtimes of a show, the earliest first. A show that does not exist has none.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn showtimes_of(&self, show: ShowId) -> Result<Vec<Showtime>, CatalogError> {
        let rows = sqlx::query(
            "SELECT t.*, p.tier, p.amount
             FROM showtimes t LEFT JOIN prices p ON p.showtime_id = t.showtime_id
             WHERE t.show_id = ? AND t.deleted_at IS NULL
             ORDER BY t.starts_at, t.showtime_id",
        )
        .bind(sql(show.0))
        .fetch_all(&mut self.read().await?)
        .await?;
        Ok(showtimes(&rows)?)
    }
}

impl Change {
    /// Makes a showtime with the present plan of the show's venue. That `terms` has a price for
    /// each tier is for the caller to see to.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such show or its venue has no plan, or `Unavailable`.
    pub async fn create_showtime(
        &mut self,
        show_id: ShowId,
        terms: NewShowtime,
    ) -> Result<Showtime, CatalogError> {
        let show = find_show(self.conn(), show_id).await?;
        let plan = find_venue(self.conn(), show.venue_id).await?.plan;
        let plan_id = plan.ok_or(CatalogError::NotFound(Noun::Plan))?;
        let done = sqlx::query(
            "INSERT INTO showtimes (show_id, plan_id, starts_at, currency, opens_at, closes_at,
                    seat_limit, hold_ttl_ms, line_mode, line_max_active, line_rate_per_1000s,
                    line_grace_ms, line_session_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(sql(show_id.0))
        .bind(sql(plan_id.0))
        .bind(sql_time(terms.starts_at))
        .bind(&*terms.currency)
        .bind(sql_time(terms.opens_at))
        .bind(terms.closes_at.map(sql_time))
        .bind(i64::from(terms.limit))
        .bind(i64::from(terms.hold_ttl_ms))
        .bind(mode_name(terms.line.mode))
        .bind(i64::from(terms.line.max_active))
        .bind(i64::from(terms.line.rate_per_1000s))
        .bind(i64::from(terms.line.grace_ms))
        .bind(i64::from(terms.line.session_ms))
        .execute(self.conn())
        .await?;
        let number = inserted_number(self.conn(), done).await?;
        let Ok(number) = u32::try_from(number) else {
            return Err(unreadable("showtime_id", &number).into());
        };
        let showtime_id = ShowtimeId(number);
        insert_prices(self.conn(), showtime_id, &terms.prices).await?;
        Ok(Showtime { showtime_id, show_id, plan_id, terms })
    }

    /// Changes a showtime; gives it as it is now. Whether so much may be changed of what has
    /// been sold is for the caller to know.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn update_showtime(
        &mut self,
        id: ShowtimeId,
        patch: ShowtimePatch,
    ) -> Result<Showtime, CatalogError> {
        let mut showtime = find_showtime(self.conn(), id).await?;
        let prices = patch.prices.clone();
        patch.apply(&mut showtime.terms);
        let terms = &showtime.terms;
        sqlx::query(
            "UPDATE showtimes SET starts_at = ?, currency = ?, opens_at = ?, closes_at = ?,
                    seat_limit = ?, hold_ttl_ms = ?, line_mode = ?, line_max_active = ?,
                    line_rate_per_1000s = ?, line_grace_ms = ?, line_session_ms = ?
             WHERE showtime_id = ?",
        )
        .bind(sql_time(terms.starts_at))
        .bind(&*terms.currency)
        .bind(sql_time(terms.opens_at))
        .bind(terms.closes_at.map(sql_time))
        .bind(i64::from(terms.limit))
        .bind(i64::from(terms.hold_ttl_ms))
        .bind(mode_name(terms.line.mode))
        .bind(i64::from(terms.line.max_active))
        .bind(i64::from(terms.line.rate_per_1000s))
        .bind(i64::from(terms.line.grace_ms))
        .bind(i64::from(terms.line.session_ms))
        .bind(i64::from(id.0))
        .execute(self.conn())
        .await?;
        if let Some(prices) = prices {
            let query =
                sqlx::query("DELETE FROM prices WHERE showtime_id = ?").bind(i64::from(id.0));
            query.execute(self.conn()).await?;
            insert_prices(self.conn(), id, &prices).await?;
        }
        Ok(showtime)
    }

    /// Takes a showtime out of the catalog. That nothing of it has been sold is for the caller to
    /// know.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn delete_showtime(
        &mut self,
        id: ShowtimeId,
        at: TimeMs,
    ) -> Result<(), CatalogError> {
        find_showtime(self.conn(), id).await?;
        let query = sqlx::query("UPDATE showtimes SET deleted_at = ? WHERE showtime_id = ?");
        query.bind(sql_time(at)).bind(i64::from(id.0)).execute(self.conn()).await?;
        Ok(())
    }
}

impl ShowtimePatch {
    /// Changes `terms`.
    pub fn apply(self, terms: &mut NewShowtime) {
        fn set<T>(value: Option<T>, field: &mut T) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(self.starts_at, &mut terms.starts_at);
        set(self.currency, &mut terms.currency);
        set(self.prices, &mut terms.prices);
        set(self.opens_at, &mut terms.opens_at);
        set(self.closes_at, &mut terms.closes_at);
        set(self.limit, &mut terms.limit);
        set(self.hold_ttl_ms, &mut terms.hold_ttl_ms);
        set(self.line, &mut terms.line);
    }
}

async fn insert_prices(
    conn: &mut Conn,
    id: ShowtimeId,
    prices: &BTreeMap<String, u64>,
) -> Result<(), CatalogError> {
    for (tier, amount) in prices {
        sqlx::query("INSERT INTO prices VALUES (?, ?, ?)")
            .bind(i64::from(id.0))
            .bind(&**tier)
            .bind(sql(*amount))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
