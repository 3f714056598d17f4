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
//! SQLite today. The SQL keeps to what MySQL reads as well (no `RETURNING`, no upserts, folded
//! columns instead of collations), each noun's SQL is in its own file, and callers see none of
//! it: another database is another set of migrations and connections behind [`Catalog`].

mod accounts;
mod change;
mod sessions;
mod shows;
mod showtimes;
mod venues;

use std::path::Path;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use tmomi_engine::ids::TimeMs;

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
/// How long a statement waits for another process that writes, and a request for a connection.
const WAIT: Duration = Duration::from_secs(5);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite/catalog");

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

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer version of the program has written it.
    #[error("the database has format {found}, this version knows formats up to {known}")]
    Newer {
        /// The format it has.
        found: i64,
        /// The newest format of this version.
        known: i64,
    },
    /// Its tables are not what the versions of this program make.
    #[error("the database is not one of this program: {0}")]
    Foreign(MigrateError),
    /// It cannot be read or written.
    #[error("the database: {0}")]
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
    writer: SqlitePool,
    readers: SqlitePool,
}

type Conn = SqliteConnection;
type Row = SqliteRow;

impl Catalog {
    /// Opens the database at `path`, or makes it, and brings its tables to this version's format.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a database of a newer version is left as it is.
    pub async fn open(path: &Path) -> Result<Catalog, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A call that was answered survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT);
        let writer = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&writer).await.map_err(|error| refuse_format(error, &MIGRATIONS))?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "on")).await?;
        Ok(Catalog { writer, readers })
    }

    /// Waits for what is running and closes the files.
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
        Ok(query.bind(name).fetch_optional(&self.readers).await?)
    }

    async fn read(&self) -> Result<PoolConnection<Sqlite>, CatalogError> {
        Ok(self.readers.acquire().await?)
    }
}

/// A pool of `connections` that are kept for ever, unless one is of no use any more: when a
/// COMMIT fails for want of room, SQLite ends the transaction by itself, and the connection
/// believes it to be open and begins no other.
pub(crate) fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .before_acquire(|conn, _| Box::pin(std::future::ready(Ok(!conn.is_in_transaction()))))
}

/// What a database's format says about it, given the migrations that this version has.
pub(crate) fn refuse_format(error: MigrateError, known: &Migrator) -> OpenError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            OpenError::Unavailable(error)
        }
        MigrateError::VersionMissing(found) => {
            let known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
            OpenError::Newer { found, known }
        }
        other => OpenError::Foreign(other),
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
