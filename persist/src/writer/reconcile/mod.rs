//! Compares the rows of a shard with the image of its log at the same event, and sets them right.
//!
//! ```text
//! Past: snapshot, log -> Image at event n -> wanted rows, by key ---\
//!                                                                    merge -> Difference (-> fix)
//! database, as it is at position n -------> stored rows, by key ----/
//! ```
//!
//! All tables are read in one transaction together with the position, so a writer may go on
//! meanwhile, and page by page in the order of their keys, so ten million rows need no memory; the
//! image is in it as a whole. To repair, the transaction holds the position: a writer waits, and
//! nothing is changed unless everything is.
//!
//! What an image does not remember is not compared:
//!
//! * the payment reference of an order, and when an entry was changed last;
//! * the epoch of a row and, of active holds and entries, its sequence: they must not be beyond the
//!   position, for then no later event could change the row;
//! * holds that ended before those which the image remembers. Their rows must say that they ended,
//!   and before that.
//!
//! A row that is put back has the position as its stamp where the image has no better one, so every
//! later event wins over it, and the last moment of the image where a time is not known. A payment
//! reference is looked for in the log and is null if the log has forgotten it.

mod fix;
mod merge;
mod past;
mod wanted;

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::any::Any;
use sqlx::{AnyConnection, AnyPool, Row as _};
use tmomi_engine::ids::{Epoch, Seq, ShowtimeId};

pub use merge::{Difference, TableReport};
pub use past::Past;

use super::moment::begin;
use super::rows::Stamp;
use super::tables::{ENTRY, HOLD, ORDER, TICKET};
use super::{House, Names, NamesError};
use crate::database::{Dialect, OpenError, Part, Place};
use crate::image::{Image, Past as ShowtimePast};
use crate::journal::JournalError;
use crate::recovery::RecoveryError;
use merge::Merge;
use wanted::{Houses, Wants};

/// How often it begins again when the log is cut short under its hands.
const TRIES: u32 = 3;

/// What is to be done about differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: no row changes.
    Check,
    /// The rows are made what they must be.
    Repair,
}

/// What was compared.
#[derive(Clone, Debug)]
pub struct Report {
    /// The last event that the rows stand for.
    pub position: Stamp,
    /// Each table, in the order in which they were compared.
    pub tables: Vec<TableReport>,
}

impl Report {
    /// How many differences there were.
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(TableReport::differences).sum()
    }
}

/// Why rows could not be compared. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// It cannot be read or written.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// It has no position.
    #[error("no writer has written rows of shard {0} there yet")]
    NoPosition(u32),
    /// The image of that position cannot be had.
    #[error("the log up to event {position}, for which the rows stand: {cause}")]
    Past {
        /// The position of the rows.
        position: Seq,
        /// Why not.
        cause: RecoveryError,
    },
    /// The position is not the end of a decision of this log.
    #[error(
        "the rows stand for event {position} of epoch {epoch}; the log there has event {found} of \
         epoch {found_epoch}: is it the log of these rows?"
    )]
    OtherLog {
        /// The position of the rows.
        position: Seq,
        /// Its reign.
        epoch: Epoch,
        /// Where the log's frame ends.
        found: Seq,
        /// Its reign.
        found_epoch: Epoch,
    },
    /// The catalog does not name the seats.
    #[error("{0}")]
    Names(#[from] NamesError),
    /// Somebody moved the position although it was locked.
    #[error("the position of the rows has moved meanwhile")]
    Moved,
}

/// Compares the rows of `shard` at `place` with its past, tells every difference, and with
/// [`Mode::Repair`] makes the rows what they must be. Reading the log blocks.
///
/// # Errors
///
/// [`ReconcileError`]; differences that were told are not repaired then.
pub async fn reconcile(
    place: &Place,
    shard: u32,
    past: &Past,
    names: &mut impl Names,
    mode: Mode,
    tell: &mut dyn FnMut(&Difference),
) -> Result<Report, ReconcileError> {
    let pool = match mode {
        Mode::Check => place.readers(1).await?,
        Mode::Repair => place.open(Part::Sales, 1).await?,
    };
    let task = Task { dialect: place.dialect(), shard, past, mode };
    let mut tries = 1;
    let done = loop {
        match task.run(&pool, names, tell).await {
            Err(error) if tries < TRIES && error.is_of_a_shorter_log() => tries += 1,
            done => break done,
        }
    };
    pool.close().await;
    done
}

impl ReconcileError {
    /// Whether the log began later when it was read than when its length was asked for.
    fn is_of_a_shorter_log(&self) -> bool {
        let ReconcileError::Past { cause, .. } = self else { return false };
        matches!(
            cause,
            RecoveryError::Snapshot(_)
                | RecoveryError::Journal(JournalError::Removed { .. } | JournalError::Io { .. })
        )
    }
}

/// One comparison.
struct Task<'a> {
    dialect: Dialect,
    shard: u32,
    past: &'a Past,
    mode: Mode,
}

impl Task<'_> {
    async fn run(
        &self,
        pool: &AnyPool,
        names: &mut impl Names,
        tell: &mut dyn FnMut(&Difference),
    ) -> Result<Report, ReconcileError> {
        // Most of the log is read before anybody waits for it, and with no connection that rests.
        let ahead = self.position(&mut *pool.acquire().await?, false).await?;
        let image = self.image(ahead, None)?;
        let mut conn = pool.acquire().await?;
        let locks = self.mode == Mode::Repair;
        let mut tx = begin(&mut conn, self.dialect, locks).await?;
        let position = self.position(&mut tx, locks).await?;
        let image = self.image(position, Some(image))?;
        let houses = houses(&image, names).await?;
        let tables = self.tables(&mut tx, position, &image, &houses, tell).await?;
        if locks {
            if self.position(&mut tx, locks).await? != position {
                return Err(ReconcileError::Moved);
            }
            tx.commit().await?;
        }
        Ok(Report { position, tables })
    }

    /// The position of the rows; to repair them it is held until the transaction ends.
    async fn position(
        &self,
        conn: &mut AnyConnection,
        locks: bool,
    ) -> Result<Stamp, ReconcileError> {
        let asked = match (self.dialect, locks) {
            (Dialect::MySql, true) => {
                "SELECT epoch, sequence FROM shard_position WHERE shard = ? FOR UPDATE"
            }
            _ => "SELECT epoch, sequence FROM shard_position WHERE shard = ?",
        };
        let query = sqlx::query::<Any>(asked).bind(i64::from(self.shard));
        let row = query.fetch_optional(conn).await?;
        let row = row.ok_or(ReconcileError::NoPosition(self.shard))?;
        let (epoch, seq): (i64, i64) = (row.try_get("epoch")?, row.try_get("sequence")?);
        Ok(Stamp { epoch: Epoch(epoch as u32), seq: Seq(seq as u64) })
    }

    /// The image at `position`, on from one that may be before it.
    fn image(&self, at: Stamp, known: Option<Image>) -> Result<Image, ReconcileError> {
        let position = at.seq;
        let image = self.past.image_at(position, known);
        let image = image.map_err(|cause| ReconcileError::Past { position, cause })?;
        let (found, found_epoch, epoch) = (image.applied(), image.epoch(), at.epoch);
        if (found, found_epoch) != (position, epoch) {
            return Err(ReconcileError::OtherLog { position, epoch, found, found_epoch });
        }
        Ok(image)
    }

    async fn tables(
        &self,
        conn: &mut AnyConnection,
        position: Stamp,
        image: &Image,
        houses: &Houses,
        tell: &mut dyn FnMut(&Difference),
    ) -> Result<Vec<TableReport>, ReconcileError> {
        let (dialect, shard) = (self.dialect, self.shard);
        let wants = Wants::new(shard, position, image, houses);
        let past = (self.mode == Mode::Repair).then_some(self.past);
        let mut merge = Merge::new(conn, dialect, shard, position, past, tell);
        let none = |_: &merge::Stored| false;
        Ok(vec![
            merge.table(&HOLD, wants.holds(), |row| wants.ended_long_ago(row)).await?,
            merge.table(&ORDER, wants.orders(), none).await?,
            merge.table(&TICKET, wants.tickets(), none).await?,
            merge.table(&ENTRY, wants.entries(), none).await?,
        ])
    }
}

/// The names and prices of everything that was sold.
async fn houses(image: &Image, names: &mut impl Names) -> Result<Houses, ReconcileError> {
    let mut houses: HashMap<ShowtimeId, Arc<House>> = HashMap::new();
    for (id, showtime) in image.showtimes() {
        if showtime.past() == ShowtimePast::Sold {
            houses.insert(id, names.house(id).await?);
        }
    }
    for order in image.orders() {
        let showtime = order.hold.showtime;
        let house = houses.get(&showtime);
        let has_all =
            |house: &Arc<House>| order.hold.parts().iter().all(|part| house.layout.has(*part));
        if !house.is_some_and(has_all) {
            let what = format!("the catalog's plan of showtime {showtime} has not all sold seats");
            return Err(NamesError::Missing(what).into());
        }
    }
    Ok(houses)
}
