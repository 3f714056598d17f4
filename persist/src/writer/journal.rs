//! The journal as a writer's source: of this process, which knows what is committed, or of
//! another.

use std::fmt;
use std::path::{Path, PathBuf};

use tmomi_engine::ids::Seq;

use super::{Record, Source, SourceError, Stamp};
use crate::frame::Frame;
use crate::journal::{JournalError, Reader};

/// The journal in a folder, whose committed end is known.
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
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError> {
        self.reader = None;
        let (stamp, after) = (after, after.seq);
        let committed = (self.committed)();
        if after > committed {
            // Rows follow what is committed, so this is the database of another journal.
            let reason = format!("rows stand for event {after}, the journal ends at {committed}");
            return Err(SourceError::Unreadable { seq: after, reason, bytes: Vec::new() });
        }
        must_have(&self.dir, stamp)?;
        let reader = Reader::open(&self.dir, after).map_err(|e| refuse(e, after.next()))?;
        self.reader = Some(reader);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let next = Reader::position(reader).next();
        let frame = reader.read_to((self.committed)()).map_err(|error| refuse(error, next));
        frame?.map(|frame| record(frame, self.shard, next)).transpose()
    }

    fn written(&mut self, position: Seq) {
        (self.written)(position);
    }
}

/// The journal in a folder that another process writes, and does not say how far it has come.
///
/// A frame is written only when every frame before it is durable. So a frame that has another
/// behind it is committed, and the last one is once it is synced, whoever does that.
pub struct JournalTail {
    dir: PathBuf,
    shard: u32,
    /// `None` before the first seek.
    reader: Option<Reader>,
    /// Read, and not known to be durable yet.
    last: Option<Frame>,
}

impl fmt::Debug for JournalTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalTail").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl JournalTail {
    /// The journal of `shard` in `dir`. There may be none yet.
    pub fn new(dir: PathBuf, shard: u32) -> JournalTail {
        JournalTail { dir, shard, reader: None, last: None }
    }
}

impl Source for JournalTail {
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError> {
        (self.reader, self.last) = (None, None);
        must_have(&self.dir, after)?;
        let after = after.seq;
        let reader = Reader::open(&self.dir, after).map_err(|e| refuse(e, after.next()))?;
        self.reader = Some(reader);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let next = Reader::position(reader).next();
        let Some(last) = self.last.take() else {
            self.last = reader.read_written().map_err(|error| refuse(error, next))?;
            // What is behind it says whether it is durable.
            return if self.last.is_some() { self.next() } else { Ok(None) };
        };
        match reader.read_written() {
            Ok(Some(behind)) => self.last = Some(behind),
            // What cannot be read behind it, the next call says. A failed sync is not tried again:
            // nobody knows what is on the disk then, and a second one might say that all is well.
            Ok(None) | Err(_) => reader.sync().map_err(|error| {
                let reason = error.to_string();
                SourceError::Unreadable { seq: next, reason, bytes: Vec::new() }
            })?,
        }
        let first = last.batch.first_seq().unwrap_or_default();
        record(last, self.shard, first).map(Some)
    }
}

/// The event that the rows stand for is in the journal, and of the same reign: or else they are
/// those of another log.
fn must_have(dir: &Path, after: Stamp) -> Result<(), SourceError> {
    let Stamp { epoch, seq } = after;
    if seq == Seq(0) {
        return Ok(());
    }
    let found = Reader::open(dir, Seq(seq.0 - 1)).and_then(|mut reader| reader.read_written());
    let wrong = match found {
        Ok(Some(frame)) if frame.epoch == epoch => return Ok(()),
        Ok(Some(frame)) => format!("has it in epoch {}", frame.epoch),
        Ok(None) => "ends before it".to_owned(),
        // Its segment need not be there any more: the rows have it.
        Err(JournalError::Removed { .. }) => return Ok(()),
        Err(error) => return Err(refuse(error, seq.next())),
    };
    let reason = format!(
        "rows stand for event {seq} of epoch {epoch}, {} {wrong}: the rows are those of another \
         log",
        dir.display()
    );
    Err(SourceError::Unreadable { seq, reason, bytes: Vec::new() })
}

fn record(frame: Frame, shard: u32, next: Seq) -> Result<Record, SourceError> {
    if frame.shard != shard {
        let reason = format!("the frame belongs to shard {}", frame.shard);
        return Err(SourceError::Unreadable { seq: next, reason, bytes: Vec::new() });
    }
    Ok(Record { epoch: frame.epoch, batch: frame.batch })
}

fn refuse(error: JournalError, seq: Seq) -> SourceError {
    match error {
        JournalError::Io { .. } => SourceError::Away(error.to_string()),
        // The damaged bytes stay where they are; the reason names file and offset.
        other => SourceError::Unreadable { seq, reason: other.to_string(), bytes: Vec::new() },
    }
}
