//! The journal as a writer's source.

use std::fmt;
use std::path::PathBuf;

use tmomi_engine::ids::Seq;

use super::{Record, Source, SourceError};
use crate::journal::{JournalError, Reader};

/// The journal in a folder, which this process or another may be writing.
pub struct JournalSource {
    dir: PathBuf,
    shard: u32,
    committed: Box<dyn Fn() -> Seq + Send>,
    written: Box<dyn Fn(Seq) + Send>,
    /// `None` before the first seek.
    reader: Option<Reader>,
}

impl fmt::Debug for JournalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalSource").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl JournalSource {
    /// The journal of `shard` in `dir`. `committed` gives the last event that is committed: from
    /// the start no less than what a recovery found, and never a number that a crash can take
    /// back.
    pub fn new(
        dir: PathBuf,
        shard: u32,
        committed: impl Fn() -> Seq + Send + 'static,
    ) -> JournalSource {
        let (committed, written) = (Box::new(committed), Box::new(|_| {}));
        JournalSource { dir, shard, committed, written, reader: None }
    }

    /// Calls `written` with every position of the rows.
    #[must_use]
    pub fn on_written(self, written: impl Fn(Seq) + Send + 'static) -> JournalSource {
        JournalSource { written: Box::new(written), ..self }
    }
}

impl Source for JournalSource {
    fn seek(&mut self, after: Seq) -> Result<(), SourceError> {
        self.reader = None;
        let committed = (self.committed)();
        if after > committed {
            // Rows follow what is committed, so this is the database of another journal.
            let reason = format!("rows stand for event {after}, the journal ends at {committed}");
            return Err(SourceError::Unreadable { seq: after, reason, bytes: Vec::new() });
        }
        let reader = Reader::open(&self.dir, after).map_err(|e| refuse(e, after.next()))?;
        self.reader = Some(reader);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let next = Reader::position(reader).next();
        let frame = reader.read_to((self.committed)()).map_err(|error| refuse(error, next));
        let Some(frame) = frame? else { return Ok(None) };
        if frame.shard != self.shard {
            let reason = format!("the frame belongs to shard {}", frame.shard);
            return Err(SourceError::Unreadable { seq: next, reason, bytes: Vec::new() });
        }
        Ok(Some(Record { epoch: frame.epoch, batch: frame.batch }))
    }

    fn written(&mut self, position: Seq) {
        (self.written)(position);
    }
}

fn refuse(error: JournalError, seq: Seq) -> SourceError {
    match error {
        JournalError::Io { .. } => SourceError::Away(error.to_string()),
        // The damaged bytes stay where they are; the reason names file and offset.
        other => SourceError::Unreadable { seq, reason: other.to_string(), bytes: Vec::new() },
    }
}
