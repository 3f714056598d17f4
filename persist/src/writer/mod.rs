//! The writer: turns the events of a shard into rows of a database.
//!
//! ```text
//! Source --> Readable --> Fold (with Names and known buyers) --> Rows --> Sink
//!   log       events        one row of each key, sorted           rows and position in one
//!                                                                  transaction
//! ```
//!
//! The rows of a shard are at every moment the fold of its events from the first to the position
//! that stands beside them: both are written in one transaction, and only if the position is
//! still the one that was read. So a crash, a batch that comes twice and a second writer change
//! nothing. The log is the truth; while the database is away the writer waits and sales go on.
//!
//! A record that cannot be read is copied aside and stops the writer, since rows without it
//! would be wrong without a sign of it.
//!
//! SQLite keeps the rows in a file of their own: the catalog has one writer at a time, and an
//! organiser's request must not wait for a batch of ten thousand rows, nor the other way round.

mod dead_letter;
pub mod export;
mod fold;
mod journal;
mod moment;
mod names;
mod pace;
pub mod reconcile;
mod rows;
mod sql;
mod state;
mod tables;
mod thread;
mod work;

use std::future::Future;

use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, Seq, ShowtimeId};

pub use dead_letter::{DeadLetter, DeadLetters};
pub use journal::{JournalSource, JournalTail};
pub use names::{CatalogNames, House, Names, NamesError};
pub use rows::{
    EntryRow, HoldKey, HoldOutcome, HoldRow, OrderRow, Rows, Stamp, TicketKey, TicketRow,
};
pub use sql::SqlSink;
pub use state::{Status, WriterState};
pub use thread::{WriterHandle, spawn};
pub use work::Writer;

/// Whole decisions of one reign, as the log gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The reign.
    pub epoch: Epoch,
    /// The events, at least one.
    pub batch: Batch,
}

/// Why the log gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Ask again later.
    #[error("{0}")]
    Away(String),
    /// What stands there cannot be read.
    #[error("{reason}")]
    Unreadable {
        /// Where the log stands: the event that should come next.
        seq: Seq,
        /// What is wrong.
        reason: String,
        /// What was found, as far as it can be told.
        bytes: Vec<u8>,
    },
}

/// A shard's log, read from the front. Reading may wait for a disk, so a writer has a thread of
/// its own.
pub trait Source: Send {
    /// Goes on with the event after `after`, which the rows stand for. Where the log still has that
    /// one, it must be of the same reign.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError>;

    /// The next committed record; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    fn next(&mut self) -> Result<Option<Record>, SourceError>;

    /// The rows stand for every event up to `position`, which the log need not keep for them.
    fn written(&mut self, position: Seq) {
        let _ = position;
    }
}

/// Why rows were not written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Whether they were is unknown: read the position and go on from there.
    #[error("the database of rows: {0}")]
    Away(String),
    /// The position is not the one that was read.
    #[error("another writer has moved the position of the shard")]
    AnotherWriter,
    /// It does not store what the rows say. Nothing was changed.
    #[error("the database of rows refuses a value: {0}")]
    Refused(String),
    /// It is not a database that this version writes, and waiting does not change that.
    #[error("the database of rows: {0}")]
    Unusable(String),
}

/// An entry, in its showtime.
pub type EntryKey = (ShowtimeId, EntryId);

/// The database of rows, for one shard.
pub trait Sink: Send {
    /// The last event that the rows stand for; [`Stamp::default`] before the first.
    fn position(&mut self) -> impl Future<Output = Result<Stamp, SinkError>> + Send;

    /// The buyers of those entries that have a row.
    fn buyers(
        &mut self,
        entries: &[EntryKey],
    ) -> impl Future<Output = Result<Vec<(EntryKey, BuyerId)>, SinkError>> + Send;

    /// Writes the rows and moves the position from `from` to `to`, all or nothing, and only if
    /// the position is `from`.
    fn write(
        &mut self,
        from: Stamp,
        to: Stamp,
        rows: &Rows,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;
}

/// How a writer works.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// The shard.
    pub shard: u32,
    /// Events in a transaction at most, unless one record has more. It has fewer if the database
    /// takes long for them.
    pub events_max: usize,
    /// How long it rests when it has written what there was, in ms.
    pub poll_ms: u64,
    /// The first wait when the database is away, in ms; each further one is twice as long.
    pub backoff_ms_min: u64,
    /// The longest wait when the database is away, in ms.
    pub backoff_ms_max: u64,
}

impl Default for WriterConfig {
    fn default() -> Self {
        WriterConfig {
            shard: 0,
            events_max: 1 << 16,
            poll_ms: 20,
            backoff_ms_min: 50,
            backoff_ms_max: 5_000,
        }
    }
}

/// Why a writer left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriterError {
    /// Another one writes the shard.
    #[error("another writer has moved the position of shard {0}; this one leaves")]
    AnotherWriter(u32),
    /// The database is not one that this version writes.
    #[error("{0}")]
    Unusable(String),
    /// A bug.
    #[error("the writer panicked")]
    Panicked,
    /// A record cannot become rows. It was copied aside.
    #[error("event {seq} of shard {shard} cannot become rows: {reason}")]
    Poisoned {
        /// The shard.
        shard: u32,
        /// The event, or the one that should come next.
        seq: Seq,
        /// What is wrong.
        reason: String,
    },
}

/// What is wrong with a record.
#[derive(Debug)]
struct Poison {
    seq: Seq,
    reason: String,
}
