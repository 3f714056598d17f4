//! The catalog database: what is offered, and who may do what.
//!
//! ```text
//! read:    Catalog::show(..), Catalog::shows(..), ..       any of a few connections
//! change:  Catalog::begin(call) -> Change -> commit()      the one connection that writes
//! ```
//!
//! A [`Change`] is one transaction: everything that a request changes, and with an idempotency
//! key also what it is answered, so that the two are there together or not at all.
//!
//! The engine's log is the truth about what is sold and is never asked here; whether a showtime
//! may still be changed because nothing of it has been sold is for the caller to know.
//!
//! SQLite, MySQL and MariaDB alike: the SQL keeps to what all of them read (no `RETURNING`, no
//! upserts, folded columns instead of collations), each noun's SQL is in its own file, and callers
//! see none of it.

mod accounts;
mod change;
mod conn;
mod sessions;
mod shows;
mod showtimes;
mod venues;

use sqlx::AnyPool;
use sqlx::any::AnyRow;
use tmomi_engine::ids::TimeMs;

pub use crate::database::OpenError;
use crate::database::{Dialect, Part, Place};

use conn::Conn;

pub use accounts::{NewUser, Role, Rotation, SigningKey, User};
pub use change::{Answer, Begun, CALL_KEPT_MS, Call, Change, Known};
pub use sessions::{Family, Session};
pub use shows::{NewShow, Show, ShowCard, ShowPatch};
pub use showtimes::{NewShowtime, Showtime, ShowtimePatch};
pub use venues::{NewVenue, StoredPlan, Venue, VenuePatch};

/// Items of a list at most.
pub const LIST_ITEMS_MAX: u32 = 1_000;

/// Connections that read. Each is a thread of SQLite's; more than the cores of a small machine
/// would only take turns.
const READERS: u32 = 4;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A venue. Never given twice.
    VenueId
}
id! {
    /// A plan, which stays as it is; a venue's new plan has a new number.
    PlanId
}
id! {
    /// A show. Never given twice.
    ShowId
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A user.
    User,
    /// A venue.
    Venue,
    /// A venue's plan.
    Plan,
    /// A show.
    Show,
    /// A showtime.
    Showtime,
}

impl std::fmt::Display for Noun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Noun::User => "user",
            Noun::Venue => "venue",
            Noun::Plan => "plan",
            Noun::Show => "show",
            Noun::Showtime => "showtime",
        })
    }
}

/// Why the catalog did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no such thing.
    #[error("no such {0}")]
    NotFound(Noun),
    /// Another user has the address, whatever the case of its letters.
    #[error("the email address is taken")]
    EmailTaken,
    /// Something stands on it.
    #[error("the {0} is in use")]
    InUse(Noun),
    /// The database did not answer, or not with what it must. Nothing was changed unless the
    /// error came from a commit, where it is unknown.
    #[error("the catalog database: {0}")]
    Unavailable(#[from] sqlx::Error),
}

/// A piece of a list: items after a number.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The last item of the piece before; 0 for the first piece.
    pub after: u64,
    /// Items at most, 1 to [`LIST_ITEMS_MAX`].
    pub limit: u32,
}

/// What a list method found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T> {
    /// The items, by their numbers.
    pub items: Vec<T>,
    /// `after` of the next piece; `None` at the end.
    pub next: Option<u64>,
}

impl Page {
    /// One row more than asked for shows whether there is a next piece.
    fn rows(self) -> i64 {
        i64::from(self.limit.clamp(1, LIST_ITEMS_MAX)) + 1
    }

    fn list<T>(self, mut items: Vec<T>, number: impl Fn(&T) -> u64) -> List<T> {
        let more = items.len() as i64 == self.rows();
        if more {
            items.pop();
        }
        let next = if more { items.last().map(number) } else { None };
        List { items, next }
    }
}

/// The catalog database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    dialect: Dialect,
    writer: AnyPool,
    readers: AnyPool,
}

type Row = AnyRow;

impl Catalog {
    /// Opens the database at `place`, and brings its tables to this version's format.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a database of a newer version is left as it is.
    pub async fn open(place: impl Into<Place>) -> Result<Catalog, OpenError> {
        let place = place.into();
        let writer = place.open(Part::Catalog, 1).await?;
        let readers = place.readers(READERS).await?;
        Ok(Catalog { dialect: place.dialect(), writer, readers })
    }

    /// Waits for what is running and closes the connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The value of a setting of this house.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Unavailable`].
    pub async fn setting(&self, name: &str) -> Result<Option<String>, CatalogError> {
        let query = sqlx::query_scalar("SELECT value FROM settings WHERE name = ?");
        Ok(query.bind(name).fetch_optional(&mut self.read().await?).await?)
    }

    async fn read(&self) -> Result<Conn, CatalogError> {
        Ok(Conn::of(&self.readers, self.dialect).await?)
    }
}

/// A number as SQL has it. One from 2^63 turns negative, which no row has.
fn sql(number: u64) -> i64 {
    number as i64
}

fn sql_time(time: TimeMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// A column with a number from 0.
fn number(row: &Row, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = sqlx::Row::try_get(row, column)?;
    u64::try_from(number).map_err(|_| unreadable(column, &number))
}

/// A column with a number that fits in 32 bits.
fn small(row: &Row, column: &str) -> Result<u32, sqlx::Error> {
    let number = number(row, column)?;
    u32::try_from(number).map_err(|_| unreadable(column, &number))
}

fn time(row: &Row, column: &str) -> Result<TimeMs, sqlx::Error> {
    number(row, column).map(TimeMs)
}

fn time_or_none(row: &Row, column: &str) -> Result<Option<TimeMs>, sqlx::Error> {
    let time: Option<i64> = sqlx::Row::try_get(row, column)?;
    time.map(|_| self::time(row, column)).transpose()
}

/// What no version of this program writes.
fn unreadable(column: &str, value: &dyn std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} has the value {value}").into())
}

/// A name as it is searched for and compared.
fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// A LIKE pattern, with `!` as its escape, that finds `part` anywhere in a folded column.
fn anywhere(part: &str) -> String {
    let mut pattern = String::from("%");
    for c in folded(part).chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
