//! The SQL databases: files of SQLite, or one database of MySQL or MariaDB.
//!
//! ```text
//! Place::File(catalog.db), Place::File(sales.db)     embedded: two files, one writer each
//! Place::Server(mysql://...)                         both in one database, with foreign keys
//! ```
//!
//! One set of migrations serves all three (`migrations.rs`); what only a server can refuse is in
//! `server.rs`, what only a file can be wrong in `file.rs`.

mod file;
mod migrations;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{Any, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{AnyPool, Connection as _, Executor};

pub(crate) use file::is_no_database;
pub(crate) use migrations::Part;
pub use server::{BadUrl, Server};
pub(crate) use server::{PLAN_BYTES_MAX, is_bad_value};

/// How long a statement waits for another process that writes, and a caller for a connection.
const WAIT: Duration = Duration::from_secs(5);

/// How long a server may take to be opened, its tables made included.
const OPEN_WAIT: Duration = Duration::from_secs(60);

/// Where a database is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A SQLite file, which is made if it is not there.
    File(PathBuf),
    /// A database of MySQL or MariaDB, which must be there.
    Server(Server),
}

/// Whose SQL it is, where the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// SQLite.
    Sqlite,
    /// MySQL, and MariaDB.
    MySql,
}

/// What connections are for.
#[derive(Clone, Copy, Debug)]
enum Access {
    Write,
    Read,
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
    /// The server is there and will not do: the text says what is wrong, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The file is no database, a damaged one, or another program's: the text names it.
    #[error("{0}")]
    NoDatabase(String),
    /// It cannot be read or written now.
    #[error("the database: {0}")]
    Unavailable(#[from] sqlx::Error),
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Place {
        Place::File(path.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Place {
        Place::File(path.clone())
    }
}

impl From<&Server> for Place {
    fn from(server: &Server) -> Place {
        Place::Server(server.clone())
    }
}

impl std::fmt::Display for Place {
    /// Without a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Server(server) => server.fmt(f),
        }
    }
}

impl Place {
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Place::File(_) => Dialect::Sqlite,
            Place::Server(_) => Dialect::MySql,
        }
    }

    /// Connects, and brings the tables of `part` to this version's format.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a database of a newer version is left as it is.
    pub(crate) async fn open(&self, part: Part, connections: u32) -> Result<AnyPool, OpenError> {
        self.in_time(self.open_now(part, connections)).await
    }

    async fn open_now(&self, part: Part, connections: u32) -> Result<AnyPool, OpenError> {
        let pool = self.pool(connections, Access::Write).await?;
        let migrations = migrations::of(part, self.dialect());
        let migrated = migrations.run(&pool).await;
        if let Err(error) = migrated {
            return Err(self.explain(migrations::refuse(error, &migrations)));
        }
        if let Place::Server(_) = self {
            let checked = server::check_tables(&pool, &migrations::tables()).await;
            checked.map_err(|error| self.explain(error))?;
        }
        Ok(pool)
    }

    /// Connections that change nothing, to what [`open`](Self::open) has opened.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub(crate) async fn readers(&self, connections: u32) -> Result<AnyPool, OpenError> {
        self.in_time(self.pool(connections, Access::Read)).await
    }

    /// A server that takes connections and says nothing is not waited for.
    async fn in_time<T>(
        &self,
        opening: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        match self {
            Place::File(_) => opening.await,
            Place::Server(server) => {
                let opened = tokio::time::timeout(OPEN_WAIT, opening).await;
                opened.unwrap_or_else(|_| Err(server.explain(no_answer(OPEN_WAIT))))
            }
        }
    }

    /// A pool of connections. One is given up when it is of no use any more: when a COMMIT fails
    /// for want of room, SQLite ends the transaction by itself, and the connection believes it to
    /// be open and begins no other.
    async fn pool(&self, connections: u32, access: Access) -> Result<AnyPool, OpenError> {
        sqlx::any::install_default_drivers();
        let (begin, last, idle) = match (self.dialect(), access) {
            (Dialect::Sqlite, Access::Write) => (file::BEGINS, None, None),
            (Dialect::Sqlite, Access::Read) => (file::BEGINS, Some("PRAGMA query_only = ON"), None),
            (Dialect::MySql, Access::Write) => {
                (server::BEGINS, Some(server::NO_SILENCE), Some(server::IDLE))
            }
            (Dialect::MySql, Access::Read) => (server::BEGINS, Some(server::READ_ONLY), None),
        };
        let options = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(WAIT)
            .idle_timeout(idle)
            .max_lifetime(None)
            .before_acquire(|conn, _| Box::pin(std::future::ready(Ok(!conn.is_in_transaction()))))
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    conn.execute(begin).await?;
                    if let Some(last) = last {
                        conn.execute(last).await?;
                    }
                    Ok(())
                })
            });
        match self {
            Place::File(path) => {
                // A pool would try again until its time is over, and not say why.
                file::check(path).await.map_err(|error| self.explain(error))?;
                let connected = options.connect_with(file::options(path)?).await;
                connected.map_err(|error| self.explain(error.into()))
            }
            Place::Server(server) => {
                let mut conn = server.connect().await.map_err(|error| server.explain(error))?;
                server.check(&mut conn).await?;
                let connected = options.connect_with(server.options().clone()).await;
                connected.map_err(|error| server.explain(error))
            }
        }
    }

    /// An error of opening, in words that say what to do if server or file are the reason.
    fn explain(&self, error: OpenError) -> OpenError {
        match (self, error) {
            (Place::Server(server), OpenError::Unavailable(error)) => server.explain(error),
            (Place::File(path), OpenError::Unavailable(error)) => file::explain(path, error),
            (_, error) => error,
        }
    }
}

/// The error of a server that has said nothing for `limit`.
pub(crate) fn no_answer(limit: Duration) -> sqlx::Error {
    let text = format!("no answer for {} s", limit.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// The number that the database gave the row which `done` has inserted.
pub(crate) async fn inserted_number(
    conn: impl Executor<'_, Database = Any>,
    done: sqlx::any::AnyQueryResult,
) -> Result<i64, sqlx::Error> {
    match done.last_insert_id() {
        Some(number) => Ok(number),
        // SQLite's has to be asked for.
        None => {
            let asked = sqlx::query_scalar::<Any, i64>("SELECT last_insert_rowid()");
            asked.fetch_one(conn).await
        }
    }
}
