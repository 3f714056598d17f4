//! SQLite: where a file is, and what a file may be that is none of ours.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr as _;

use sqlx::any::{Any, AnyConnectOptions};
use sqlx::sqlite::SqliteError;
use sqlx::{ConnectOptions as _, Connection as _};

use super::OpenError;

/// What a connection begins with: a transaction that was committed survives a power cut.
pub(super) const BEGINS: &str = "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON;
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";

/// SQLite's words for a file that is damaged, and for one that never was a database.
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;

/// Whether the file can be ours: it is empty, or the first thing in it is what this program has
/// made there. (Its first table is the one of its steps.)
pub(super) async fn check(path: &Path) -> Result<(), OpenError> {
    let mut conn = options(path)?.connect().await?;
    let asked = sqlx::query_scalar::<Any, i64>(
        "SELECT COUNT(*) > 0 AND COALESCE(SUM(name = '_sqlx_migrations'), 0) = 0
         FROM sqlite_master",
    );
    let is_foreign = asked.fetch_one(&mut conn).await? != 0;
    conn.close().await?;
    if is_foreign {
        return Err(refused(path, "it has the tables of another program"));
    }
    Ok(())
}

/// What an error means for whoever named the file. What may pass by itself stays as it is.
pub(super) fn explain(path: &Path, error: sqlx::Error) -> OpenError {
    if is_no_database(&error) { refused(path, error) } else { OpenError::Unavailable(error) }
}

fn refused(path: &Path, what: impl std::fmt::Display) -> OpenError {
    OpenError::NoDatabase(format!("{} is no database of this program: {what}", path.display()))
}

/// Whether the file is damaged or no database at all: asking again does not help.
pub(crate) fn is_no_database(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    let Some(error) = error.and_then(|error| error.try_downcast_ref::<SqliteError>()) else {
        return false;
    };
    let code = sqlx::error::DatabaseError::code(error).and_then(|code| code.parse::<i32>().ok());
    // What stands above the lowest byte says more of the same.
    matches!(code.map(|code| code & 0xff), Some(CORRUPT | NOT_A_DATABASE))
}

/// The options of a file, made if it is not there. Its path goes through an address, so what means
/// something there is escaped.
pub(super) fn options(path: &Path) -> Result<AnyConnectOptions, sqlx::Error> {
    let path = std::path::absolute(path)?;
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => url.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            byte => write!(url, "%{byte:02X}").expect("a String takes every write"),
        }
    }
    AnyConnectOptions::from_str(&format!("{url}?mode=rwc"))
}
