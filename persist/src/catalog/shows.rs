//! Shows: what is performed.

use sqlx::Row as _;
use tmomi_engine::ids::TimeMs;

use super::venues::find_venue;
use super::{
    Catalog, CatalogError, Change, Conn, List, Noun, Page, Row, ShowId, VenueId, anywhere, folded,
    number, small, sql, sql_time, time_or_none,
};
use crate::database::inserted_number;

/// A show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// The number.
    pub show_id: ShowId,
    /// Where it is performed.
    pub venue_id: VenueId,
    /// The name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// A picture.
    pub image_url: Option<String>,
}

/// A show to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewShow<'a> {
    /// Where it is performed.
    pub venue_id: VenueId,
    /// The name.
    pub name: &'a str,
    /// What it is about.
    pub description: Option<&'a str>,
    /// A picture.
    pub image_url: Option<&'a str>,
}

/// What is to be changed; `None` stays as it is, `Some(None)` takes it away.
#[derive(Clone, Debug, Default)]
pub struct ShowPatch {
    /// Where it is performed.
    pub venue_id: Option<VenueId>,
    /// The name.
    pub name: Option<String>,
    /// What it is about.
    pub description: Option<Option<String>>,
    /// A picture.
    pub image_url: Option<Option<String>>,
}

/// A show as lists have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShowCard {
    /// The number.
    pub show_id: ShowId,
    /// The name.
    pub name: String,
    /// The venue's name.
    pub venue: String,
    /// When the first showtime starts, if there is one.
    pub starts_on: Option<TimeMs>,
    /// When the last showtime starts.
    pub ends_on: Option<TimeMs>,
    /// A picture.
    pub image_url: Option<String>,
    /// How many showtimes there are.
    pub showtimes: u32,
}

pub(super) async fn find_show(conn: &mut Conn, id: ShowId) -> Result<Show, CatalogError> {
    let row = sqlx::query("SELECT * FROM shows WHERE show_id = ? AND deleted_at IS NULL")
        .bind(sql(id.0))
        .fetch_optional(conn)
        .await?;
    Ok(show(&row.ok_or(CatalogError::NotFound(Noun::Show))?)?)
}

fn show(row: &Row) -> Result<Show, sqlx::Error> {
    Ok(Show {
        show_id: ShowId(number(row, "show_id")?),
        venue_id: VenueId(number(row, "venue_id")?),
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        image_url: row.try_get("image_url")?,
    })
}

async fn has_showtimes(conn: &mut Conn, id: ShowId) -> Result<bool, CatalogError> {
    let count = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM showtimes WHERE show_id = ? AND deleted_at IS NULL",
    );
    Ok(count.bind(sql(id.0)).fetch_one(conn).await? > 0)
}

fn card(row: &Row) -> Result<ShowCard, sqlx::Error> {
    Ok(ShowCard {
        show_id: ShowId(number(row, "show_id")?),
        name: row.try_get("name")?,
        venue: row.try_get("venue")?,
        starts_on: time_or_none(row, "starts_on")?,
        ends_on: time_or_none(row, "ends_on")?,
        image_url: row.try_get("image_url")?,
        showtimes: small(row, "showtimes")?,
    })
}

impl Catalog {
    /// One show.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn show(&self, id: ShowId) -> Result<Show, CatalogError> {
        find_show(&mut self.read().await?, id).await
    }

    /// The shows by number, as organisers see them.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn all_shows(&self, page: Page) -> Result<List<Show>, CatalogError> {
        let rows = sqlx::query(
            "SELECT * FROM shows WHERE show_id > ? AND deleted_at IS NULL
             ORDER BY show_id LIMIT ?",
        )
        .bind(sql(page.after))
        .bind(page.rows())
        .fetch_all(&mut self.read().await?)
        .await?;
        let shows = rows.iter().map(show).collect::<Result<_, _>>()?;
        Ok(page.list(shows, |show| show.show_id.0))
    }

    /// The shows by number; those whose name or whose venue's name has `part` in it, if given.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn shows(
        &self,
        part: Option<&str>,
        page: Page,
    ) -> Result<List<ShowCard>, CatalogError> {
        let pattern = anywhere(part.unwrap_or(""));
        let rows = sqlx::query(
            "SELECT s.show_id, s.name, v.name AS venue, s.image_url,
                    MIN(t.starts_at) AS starts_on, MAX(t.starts_at) AS ends_on,
                    COUNT(t.showtime_id) AS showtimes
             FROM shows s JOIN venues v ON v.venue_id = s.venue_id
                  LEFT JOIN showtimes t ON t.show_id = s.show_id AND t.deleted_at IS NULL
             WHERE s.show_id > ? AND s.deleted_at IS NULL
                   AND (s.name_folded LIKE ? ESCAPE '!' OR v.name_folded LIKE ? ESCAPE '!')
             GROUP BY s.show_id, s.name, v.name, s.image_url ORDER BY s.show_id LIMIT ?",
        )
        .bind(sql(page.after))
        .bind(&*pattern)
        .bind(&*pattern)
        .bind(page.rows())
        .fetch_all(&mut self.read().await?)
        .await?;
        let cards = rows.iter().map(card).collect::<Result<_, _>>()?;
        Ok(page.list(cards, |card| card.show_id.0))
    }
}

impl Change {
    /// Makes a show.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such venue, or `Unavailable`.
    pub async fn create_show(&mut self, new: NewShow<'_>) -> Result<Show, CatalogError> {
        find_venue(self.conn(), new.venue_id).await?;
        let done = sqlx::query(
            "INSERT INTO shows (venue_id, name, name_folded, description, image_url)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(sql(new.venue_id.0))
        .bind(new.name)
        .bind(folded(new.name))
        .bind(new.description)
        .bind(new.image_url)
        .execute(self.conn())
        .await?;
        Ok(Show {
            show_id: ShowId(inserted_number(self.conn(), done).await? as u64),
            venue_id: new.venue_id,
            name: new.name.to_owned(),
            description: new.description.map(str::to_owned),
            image_url: new.image_url.map(str::to_owned),
        })
    }

    /// Changes a show; gives it as it is now.
    ///
    /// # Errors
    ///
    /// `NotFound` (the show or its new venue), `InUse` if a show with showtimes is to move to
    /// another venue, or `Unavailable`.
    pub async fn update_show(
        &mut self,
        id: ShowId,
        patch: ShowPatch,
    ) -> Result<Show, CatalogError> {
        let mut show = find_show(self.conn(), id).await?;
        if let Some(venue) = patch.venue_id
            && venue != show.venue_id
        {
            find_venue(self.conn(), venue).await?;
            if has_showtimes(self.conn(), id).await? {
                return Err(CatalogError::InUse(Noun::Show));
            }
            show.venue_id = venue;
        }
        show.name = patch.name.unwrap_or(show.name);
        show.description = patch.description.unwrap_or(show.description);
        show.image_url = patch.image_url.unwrap_or(show.image_url);
        sqlx::query(
            "UPDATE shows SET venue_id = ?, name = ?, name_folded = ?, description = ?,
                    image_url = ? WHERE show_id = ?",
        )
        .bind(sql(show.venue_id.0))
        .bind(&*show.name)
        .bind(folded(&show.name))
        .bind(show.description.as_deref())
        .bind(show.image_url.as_deref())
        .bind(sql(id.0))
        .execute(self.conn())
        .await?;
        Ok(show)
    }

    /// Takes a show out of the catalog.
    ///
    /// # Errors
    ///
    /// `NotFound`, `InUse` while it has a showtime, or `Unavailable`.
    pub async fn delete_show(&mut self, id: ShowId, at: TimeMs) -> Result<(), CatalogError> {
        find_show(self.conn(), id).await?;
        if has_showtimes(self.conn(), id).await? {
            return Err(CatalogError::InUse(Noun::Show));
        }
        let query = sqlx::query("UPDATE shows SET deleted_at = ? WHERE show_id = ?");
        query.bind(sql_time(at)).bind(sql(id.0)).execute(self.conn()).await?;
        Ok(())
    }
}
