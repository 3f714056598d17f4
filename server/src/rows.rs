//! The writer's thread: the journal's events become rows of a database of their own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tmomi_persist::catalog::Catalog;
use tmomi_persist::shard::Shard;
use tmomi_persist::writer::{
    self, CatalogNames, DeadLetters, JournalSource, SqliteSink, Status, Writer, WriterConfig,
    WriterHandle, WriterState,
};

/// The file of the rows, in the data folder.
const ROWS_FILE: &str = "sales.db";
/// The folder of what could not become rows.
const DEAD_LETTERS_DIR: &str = "dead-letters";
/// How long the end of the process waits for the rows of what was answered. The next start writes
/// the rest.
const LAST_ROWS_WAIT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Starts the writer of a data folder. The file of its rows may be away: then it waits.
///
/// # Errors
///
/// If the system gives no thread.
pub(crate) fn start(
    data: &Path,
    journal: &Path,
    shard: &Arc<Shard>,
    catalog: &Catalog,
) -> io::Result<WriterHandle> {
    let (of_source, keeper) = (Arc::clone(shard), Arc::clone(shard));
    let source = JournalSource::new(journal.to_owned(), 0, move || of_source.applied())
        .on_written(move |position| keeper.keep_journal_from(position.next()));
    let sink = SqliteSink::at(&data.join(ROWS_FILE), 0);
    let names = CatalogNames::new(catalog.clone());
    let dead = DeadLetters::new(data.join(DEAD_LETTERS_DIR));
    writer::spawn(Writer::new(WriterConfig::default(), source, sink, names, dead))
}

/// Waits until the rows stand for everything that was answered, for 2 s at most.
pub(crate) async fn catch_up(writer: &WriterState, shard: &Shard) {
    // What ends by itself meanwhile, nobody was answered.
    let answered = shard.applied();
    let caught_up = async {
        while writer.position() < answered && writer.status() == Status::Running {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let _ = tokio::time::timeout(LAST_ROWS_WAIT, caught_up).await;
    let written = writer.position();
    if written < answered {
        tracing::warn!(%written, %answered, "the next start writes the rows that are missing");
    }
}
