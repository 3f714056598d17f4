//! The writer's thread: the journal's events become rows of a database of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmomi_engine::ids::Seq;
use tmomi_persist::catalog::Catalog;
use tmomi_persist::journal::{JournalError, Reader};
use tmomi_persist::shard::Shard;
use tmomi_persist::writer::{
    self, CatalogNames, DeadLetters, Record, Source, SourceError, SqliteSink, Writer, WriterConfig,
    WriterHandle,
};

/// The file of the rows, in the data folder.
const ROWS_FILE: &str = "sales.db";
/// The folder of what could not become rows.
const DEAD_LETTERS_DIR: &str = "dead-letters";

/// The journal as the writer reads it: never beyond what is committed.
struct JournalSource {
    shard: Arc<Shard>,
    dir: PathBuf,
    after: Seq,
    reader: Option<Reader>,
}

impl JournalSource {
    fn read(&mut self) -> Result<Option<Record>, JournalError> {
        let committed = self.shard.applied();
        if self.after >= committed {
            return Ok(None);
        }
        if self.reader.is_none() {
            self.reader = Some(Reader::open(&self.dir, self.after)?);
        }
        let reader = self.reader.as_mut().expect("it was just opened");
        let frame = reader.read_to(committed)?;
        self.after = Reader::position(reader);
        Ok(frame.map(|frame| Record { epoch: frame.epoch, batch: frame.batch }))
    }
}

impl Source for JournalSource {
    fn seek(&mut self, after: Seq) -> Result<(), SourceError> {
        (self.after, self.reader) = (after, None);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        self.read().map_err(|error| {
            // Whatever it was, it is read anew.
            self.reader = None;
            match error {
                error @ JournalError::Io { .. } => SourceError::Away(error.to_string()),
                error => SourceError::Unreadable {
                    seq: self.after.next(),
                    reason: error.to_string(),
                    bytes: Vec::new(),
                },
            }
        })
    }
}

/// Starts the writer of a data folder.
///
/// # Errors
///
/// A text for the operator.
pub(crate) async fn start(
    data: &Path,
    journal: &Path,
    shard: &Arc<Shard>,
    catalog: &Catalog,
) -> Result<WriterHandle, String> {
    let path = data.join(ROWS_FILE);
    let sink = SqliteSink::open(&path, 0).await;
    let sink = sink.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    let source = JournalSource {
        shard: Arc::clone(shard),
        dir: journal.to_owned(),
        after: Seq(0),
        reader: None,
    };
    let names = CatalogNames::new(catalog.clone());
    let dead = DeadLetters::new(data.join(DEAD_LETTERS_DIR));
    let writer = Writer::new(WriterConfig::default(), source, sink, names, dead);
    writer::spawn(writer).map_err(|error| format!("cannot start the writer's thread: {error}"))
}
