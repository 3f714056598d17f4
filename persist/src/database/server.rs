//! MySQL and MariaDB: what a server must be, and what its refusals mean.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::any::{Any, AnyConnectOptions};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, QueryBuilder, Row as _};

use super::OpenError;

/// What a connection begins with. A value that does not fit is an error and never cut; a
/// transaction waits as long for another as a file's does.
pub(super) const BEGINS: &str = "SET SESSION
    sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = 5,
    time_zone = '+00:00';
    SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
/// What one that writes adds: the server ends the transaction of a process that is frozen in it.
pub(super) const NO_SILENCE: &str = "SET SESSION wait_timeout = 10";
/// Such a connection is closed before the server does it, which would be an error in its log.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// What one that only reads adds.
pub(super) const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY";

/// The oldest servers that are known to do: (major, minor).
const MYSQL_MIN: (u32, u32) = (8, 0);
const MARIADB_MIN: (u32, u32) = (10, 6);
/// A seating plan is stored in one statement, of at most so many bytes.
pub(crate) const PLAN_BYTES_MAX: u32 = 64 << 20;
/// The collation of every column of text: names are what they are, byte for byte.
const COLLATION: &str = "utf8mb4_bin";

/// The address of a database of MySQL or MariaDB, with user and password. No text that it makes
/// shows the password.
#[derive(Clone)]
pub struct Server {
    options: AnyConnectOptions,
}

/// An address that names no database of MySQL or MariaDB.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a database is mysql://USER:PASSWORD@HOST:PORT/NAME, and this {0}")]
pub struct BadUrl(&'static str);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({self})")
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = &self.options.database_url;
        let host = url.host_str().unwrap_or("localhost");
        write!(f, "mysql://{}@{host}:{}{}", url.username(), url.port().unwrap_or(3306), url.path())
    }
}

impl Server {
    /// The server of an address like `mysql://user:password@host:3306/name`, which may end with
    /// options like `?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ssl/ca.pem`.
    ///
    /// # Errors
    ///
    /// [`BadUrl`], which does not show the address: it may have a password.
    pub fn parse(url: &str) -> Result<Server, BadUrl> {
        sqlx::any::install_default_drivers();
        let options = AnyConnectOptions::from_str(url).map_err(|_| BadUrl("is no address"))?;
        let url = &options.database_url;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(BadUrl("begins with another word"));
        }
        let path = url.path().trim_start_matches('/');
        if path.is_empty() || path.contains('/') {
            return Err(BadUrl("names no database behind the host"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadUrl("names no host"));
        }
        Ok(Server { options })
    }

    pub(super) fn options(&self) -> &AnyConnectOptions {
        &self.options
    }

    pub(super) async fn connect(&self) -> Result<AnyConnection, sqlx::Error> {
        self.options.connect().await
    }

    /// Whether the server can be used at all.
    pub(super) async fn check(&self, conn: &mut AnyConnection) -> Result<(), OpenError> {
        let asked = sqlx::query::<Any>(
            "SELECT CAST(VERSION() AS CHAR), CAST(@@read_only AS SIGNED),
                    CAST(@@max_allowed_packet AS SIGNED)",
        );
        let row = asked.fetch_one(conn).await.map_err(|error| self.explain(error))?;
        let version: String = row.try_get(0)?;
        check_version(&version).map_err(|what| self.refused(what))?;
        if row.try_get::<i64, _>(1)? != 0 {
            let what = "it is read-only; give the address of the one that takes writes, or SET \
                        GLOBAL read_only = OFF there";
            return Err(self.refused(what));
        }
        let packet: i64 = row.try_get(2)?;
        if packet < PLAN_BYTES_MAX.into() {
            tracing::warn!(
                server = %self, max_allowed_packet = packet,
                "seating plans larger than this cannot be stored; set max_allowed_packet to 64M"
            );
        }
        Ok(())
    }

    /// What the server's error means for whoever gave the address. What may pass by itself stays
    /// as it is.
    pub(super) fn explain(&self, error: sqlx::Error) -> OpenError {
        let number = number(&error);
        let name = self.options.database_url.path().trim_start_matches('/');
        let user = self.options.database_url.username();
        let what = match (&error, number) {
            (_, Some(1045 | 1698)) => {
                format!("{error}; are user {user} and the password right, from this machine?")
            }
            (_, Some(1049)) => {
                format!("{error}; make it: CREATE DATABASE {name} CHARACTER SET utf8mb4")
            }
            (_, Some(1044 | 1142 | 1143 | 1227)) => format!(
                "{error}; the user needs: GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, \
                 INDEX, REFERENCES ON {name}.* TO {user}"
            ),
            (_, Some(1290 | 1792 | 1836)) => {
                format!("{error}; it is read-only: give the one that takes writes")
            }
            (sqlx::Error::Configuration(_) | sqlx::Error::Tls(_), _) => {
                format!("{error}; see ssl-mode and ssl-ca in the address")
            }
            (sqlx::Error::Io(_), _) => {
                let shown = format!("{self}: {error}; is it running, and the address right?");
                return OpenError::Unavailable(sqlx::Error::Io(std::io::Error::other(shown)));
            }
            _ => return OpenError::Unavailable(error),
        };
        self.refused(what)
    }

    fn refused(&self, what: impl std::fmt::Display) -> OpenError {
        OpenError::Refused(format!("{self}: {what}"))
    }
}

/// Whether a value does not fit into its column: asking again does not help.
pub(crate) fn is_bad_value(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1048 | 1264 | 1292 | 1366 | 1406))
}

/// The server's number of an error, if it is one of its own.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// `10.11.6-MariaDB-..`, or `9.7.0` and something.
fn check_version(version: &str) -> Result<(), String> {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let is_mariadb = version.to_ascii_lowercase().contains("mariadb");
    let (what, least) = if is_mariadb { ("MariaDB", MARIADB_MIN) } else { ("MySQL", MYSQL_MIN) };
    if found < least {
        let (major, minor) = least;
        return Err(format!("it is version {version}; {what} {major}.{minor} or newer is needed"));
    }
    Ok(())
}

/// Whether the tables are as this program makes them: somebody may have made or converted them
/// otherwise, and a name would be found in the place of another.
pub(super) async fn check_tables(pool: &AnyPool, tables: &[&str]) -> Result<(), OpenError> {
    let mut query = QueryBuilder::<Any>::new(
        "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), CAST(collation_name AS CHAR)
         FROM information_schema.columns
         WHERE table_schema = DATABASE() AND collation_name <> ",
    );
    query.push_bind(COLLATION).push(" AND table_name IN (");
    let mut list = query.separated(", ");
    for table in tables {
        list.push_bind(*table);
    }
    let found = query.push(") LIMIT 1").build().fetch_optional(pool).await?;
    let Some(row) = found else { return Ok(()) };
    let (table, column): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let collation: String = row.try_get(2)?;
    Err(OpenError::Refused(format!(
        "column {column} of table {table} has collation {collation} and must have {COLLATION}: \
         ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {COLLATION}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_database_and_never_shows_its_password() {
        let server = Server::parse("mysql://me:hunter22@db.example:3307/tmomi").expect("one");
        assert_eq!(server.to_string(), "mysql://me@db.example:3307/tmomi");
        assert!(!format!("{server:?}").contains("hunter22"));
        for bad in ["", "tmomi", "sqlite://x", "mysql://me:hunter22@h", "mysql://h/", "mysql:///x"]
        {
            let error = Server::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter22"), "{error}");
        }
    }

    #[test]
    fn too_old_a_server_is_told_by_its_version() {
        let check = |version| check_version(version).is_ok();
        assert!(check("9.7.0") && check("8.0.36-0ubuntu1") && check("10.11.6-MariaDB-0+deb12u1"));
        assert!(check("11.4.2-MariaDB") && !check("5.7.44-log") && !check("10.3.39-MariaDB"));
    }
}
