//! Venues and their seating plans.

use sqlx::Row as _;
use tmomi_engine::ids::TimeMs;

use super::{
    Catalog, CatalogError, Change, Conn, List, Noun, Page, PlanId, Row, VenueId, folded, number,
    small, sql, sql_time,
};
use crate::database::{PLAN_BYTES_MAX, inserted_number};

/// A venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Venue {
    /// The number.
    pub venue_id: VenueId,
    /// The name.
    pub name: String,
    /// The address, if it was given.
    pub address: Option<String>,
    /// Its present plan, if it has one.
    pub plan: Option<PlanId>,
    /// Seats and places of the present plan, 0 without one.
    pub capacity: u32,
}

/// A venue to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewVenue<'a> {
    /// The name.
    pub name: &'a str,
    /// The address.
    pub address: Option<&'a str>,
}

/// What is to be changed; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct VenuePatch {
    /// The name.
    pub name: Option<String>,
    /// The address; `Some(None)` takes it away.
    pub address: Option<Option<String>>,
}

/// A plan as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// The number.
    pub plan_id: PlanId,
    /// The JSON.
    pub body: Vec<u8>,
    /// Seats and places.
    pub seats: u32,
}

fn venue(row: &Row) -> Result<Venue, sqlx::Error> {
    let plan: Option<i64> = row.try_get("plan_id")?;
    Ok(Venue {
        venue_id: VenueId(number(row, "venue_id")?),
        name: row.try_get("name")?,
        address: row.try_get("address")?,
        plan: plan.map(|plan| PlanId(plan as u64)),
        capacity: small(row, "capacity")?,
    })
}

pub(super) async fn find_venue(conn: &mut Conn, id: VenueId) -> Result<Venue, CatalogError> {
    let row = sqlx::query(
        "SELECT v.*, COALESCE(p.seats, 0) AS capacity
         FROM venues v LEFT JOIN plans p ON p.plan_id = v.plan_id
         WHERE v.venue_id = ? AND v.deleted_at IS NULL",
    )
    .bind(sql(id.0))
    .fetch_optional(conn)
    .await?;
    Ok(venue(&row.ok_or(CatalogError::NotFound(Noun::Venue))?)?)
}

impl Catalog {
    /// One venue.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn venue(&self, id: VenueId) -> Result<Venue, CatalogError> {
        find_venue(&mut self.read().await?, id).await
    }

    /// The venues by number.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn venues(&self, page: Page) -> Result<List<Venue>, CatalogError> {
        let rows = sqlx::query(
            "SELECT v.*, COALESCE(p.seats, 0) AS capacity
             FROM venues v LEFT JOIN plans p ON p.plan_id = v.plan_id
             WHERE v.venue_id > ? AND v.deleted_at IS NULL ORDER BY v.venue_id LIMIT ?",
        )
        .bind(sql(page.after))
        .bind(page.rows())
        .fetch_all(&mut self.read().await?)
        .await?;
        let venues = rows.iter().map(venue).collect::<Result<_, _>>()?;
        Ok(page.list(venues, |venue| venue.venue_id.0))
    }

    /// A plan, also one that its venue has no more.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn plan(&self, id: PlanId) -> Result<StoredPlan, CatalogError> {
        let query = sqlx::query("SELECT body, seats FROM plans WHERE plan_id = ?").bind(sql(id.0));
        let mut conn = self.read().await?;
        let row = query.fetch_optional(conn.carrying(PLAN_BYTES_MAX)).await?;
        let row = row.ok_or(CatalogError::NotFound(Noun::Plan))?;
        Ok(StoredPlan { plan_id: id, body: row.try_get("body")?, seats: small(&row, "seats")? })
    }
}

impl Change {
    /// Makes a venue.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn create_venue(&mut self, new: NewVenue<'_>) -> Result<Venue, CatalogError> {
        let query = sqlx::query("INSERT INTO venues (name, name_folded, address) VALUES (?, ?, ?)")
            .bind(new.name)
            .bind(folded(new.name))
            .bind(new.address);
        let done = query.execute(self.conn()).await?;
        Ok(Venue {
            venue_id: VenueId(inserted_number(self.conn(), done).await? as u64),
            name: new.name.to_owned(),
            address: new.address.map(str::to_owned),
            plan: None,
            capacity: 0,
        })
    }

    /// Changes a venue; gives it as it is now.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn update_venue(
        &mut self,
        id: VenueId,
        patch: VenuePatch,
    ) -> Result<Venue, CatalogError> {
        let mut venue = find_venue(self.conn(), id).await?;
        venue.name = patch.name.unwrap_or(venue.name);
        venue.address = patch.address.unwrap_or(venue.address);
        sqlx::query("UPDATE venues SET name = ?, name_folded = ?, address = ? WHERE venue_id = ?")
            .bind(&*venue.name)
            .bind(folded(&venue.name))
            .bind(venue.address.as_deref())
            .bind(sql(id.0))
            .execute(self.conn())
            .await?;
        Ok(venue)
    }

    /// Gives a venue another plan; what `body` says was read by the caller.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InUse` once a showtime uses the present plan, or `Unavailable`.
    pub async fn set_plan(
        &mut self,
        id: VenueId,
        body: &[u8],
        seats: u32,
        at: TimeMs,
    ) -> Result<PlanId, CatalogError> {
        let venue = find_venue(self.conn(), id).await?;
        if let Some(plan) = venue.plan
            && used(
                self.conn(),
                plan,
                "SELECT COUNT(*) FROM showtimes \
                    WHERE plan_id = ? AND deleted_at IS NULL",
            )
            .await?
        {
            return Err(CatalogError::InUse(Noun::Plan));
        }
        let done = sqlx::query("INSERT INTO plans (body, seats, created_at) VALUES (?, ?, ?)")
            .bind(body)
            .bind(i64::from(seats))
            .bind(sql_time(at))
            .execute(self.conn().carrying(PLAN_BYTES_MAX))
            .await?;
        let plan = inserted_number(self.conn(), done).await?;
        let query = sqlx::query("UPDATE venues SET plan_id = ? WHERE venue_id = ?");
        query.bind(plan).bind(sql(id.0)).execute(self.conn()).await?;
        // The log may speak of the seats of a deleted showtime, so its plan is kept.
        if let Some(old) = venue.plan
            && !used(self.conn(), old, "SELECT COUNT(*) FROM showtimes WHERE plan_id = ?").await?
        {
            let query = sqlx::query("DELETE FROM plans WHERE plan_id = ?").bind(sql(old.0));
            query.execute(self.conn()).await?;
        }
        Ok(PlanId(plan as u64))
    }

    /// Takes a venue out of the catalog.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InUse` while it has a show, or `Unavailable`.
    pub async fn delete_venue(&mut self, id: VenueId, at: TimeMs) -> Result<(), CatalogError> {
        find_venue(self.conn(), id).await?;
        let shows = sqlx::query_scalar::<_, i64>(
            "SELECT COUNT(*) FROM shows WHERE venue_id = ? AND deleted_at IS NULL",
        );
        if shows.bind(sql(id.0)).fetch_one(self.conn()).await? > 0 {
            return Err(CatalogError::InUse(Noun::Venue));
        }
        let query = sqlx::query("UPDATE venues SET deleted_at = ? WHERE venue_id = ?");
        query.bind(sql_time(at)).bind(sql(id.0)).execute(self.conn()).await?;
        Ok(())
    }
}

async fn used(conn: &mut Conn, plan: PlanId, count: &'static str) -> Result<bool, CatalogError> {
    let showtimes: i64 = sqlx::query_scalar(count).bind(sql(plan.0)).fetch_one(conn).await?;
    Ok(showtimes > 0)
}
