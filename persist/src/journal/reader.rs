//! Reads a journal: for recovery, the writer of rows, and the audit trail.

use std::path::{Path, PathBuf};

use tmomi_engine::event::Batch;
use tmomi_engine::ids::Seq;

use super::scan::{Scanner, Step};
use super::{Damage, JournalError, TornTail};
use crate::frame::{self, Frame, FrameKind, Header};

/// The frames of a journal after some event, in order. Takes no lock: the journal may be
/// written meanwhile.
///
/// As an iterator it gives every frame that is there and stops at the end, or after the first
/// error. A journal that is being written is followed with [`read_to`](Self::read_to), which
/// never gives a frame before it is committed.
pub struct Reader {
    dir: PathBuf,
    scanner: Scanner,
    after: Seq,
    torn: Option<TornTail>,
    ended: bool,
}

impl Reader {
    /// Begins with the event after `after`. The journal may have none yet.
    ///
    /// # Errors
    ///
    /// [`JournalError::Removed`] if the journal begins later, and otherwise as reading does.
    pub fn open(dir: &Path, after: Seq) -> Result<Reader, JournalError> {
        let scanner = Scanner::start(dir, None, after.next())?;
        Ok(Reader { dir: dir.to_owned(), scanner, after, torn: None, ended: false })
    }

    /// The next frame, if its events are at or below `committed`, the highest number that the
    /// log has committed. `None` means: nothing new, ask again when more is committed.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal is damaged, or ends although more is committed.
    pub fn read_to(&mut self, committed: Seq) -> Result<Option<Frame>, JournalError> {
        // A frame is committed as a whole, so its first event tells.
        if self.after >= committed {
            return Ok(None);
        }
        match self.read()? {
            Some(frame) => Ok(Some(frame)),
            None => {
                let (dir, wanted) = (self.dir.clone(), self.after.next());
                Err(JournalError::EndsEarly { dir, wanted })
            }
        }
    }

    /// The next frame that another process has written, committed or not; `None` means: nothing
    /// new, ask again later. Every frame before one that is given is durable, and
    /// [`sync`](Self::sync) makes it so, too.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal is damaged.
    pub fn read_written(&mut self) -> Result<Option<Frame>, JournalError> {
        self.read()
    }

    /// Makes the frame that was given last durable, as its writer is about to do: from then on it
    /// is part of the journal whatever becomes of that process.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub fn sync(&self) -> Result<(), JournalError> {
        self.scanner.sync()
    }

    /// As [`read_to`](Self::read_to), for who passes frames on: one that is new from its first
    /// event is given as it stands in the journal, which costs a copy.
    ///
    /// # Errors
    ///
    /// As [`read_to`](Self::read_to).
    #[cfg(feature = "kafka")]
    pub(crate) fn pass_to(&mut self, committed: Seq) -> Result<Option<Passed>, JournalError> {
        if self.after >= committed {
            return Ok(None);
        }
        loop {
            let Step::Frame { header, bytes } = self.scanner.step()? else {
                let (dir, wanted) = (self.dir.clone(), self.after.next());
                return Err(JournalError::EndsEarly { dir, wanted });
            };
            if header.kind != FrameKind::Events || header.next_seq() <= self.after.next() {
                continue;
            }
            if header.first == self.after.next() {
                self.after = Seq(header.next_seq().0 - 1);
                let bytes = bytes[..header.bytes].to_vec();
                return Ok(Some(Passed::Whole { header, bytes }));
            }
            return match frame::decode_body(&header, bytes) {
                Ok(batch) => Ok(Some(Passed::Part(self.give(header, batch)))),
                Err(reason) => Err(self.scanner.blame(reason)),
            };
        }
    }

    /// The last event that was given, or after which reading began.
    pub fn position(&self) -> Seq {
        self.after
    }

    /// The incomplete frame at the end, if the iterator came upon one.
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The damage of the last frame, found by whoever unpacked its events.
    pub(crate) fn blame(&self, reason: Damage) -> JournalError {
        self.scanner.blame(reason)
    }

    fn read(&mut self) -> Result<Option<Frame>, JournalError> {
        loop {
            let (header, bytes) = match self.scanner.step()? {
                Step::Frame { header, bytes } => (header, bytes),
                Step::End(torn) => {
                    self.torn = torn;
                    return Ok(None);
                }
            };
            if header.kind != FrameKind::Events || header.next_seq() <= self.after.next() {
                continue;
            }
            return match frame::decode_body(&header, bytes) {
                Ok(batch) => Ok(Some(self.give(header, batch))),
                Err(reason) => Err(self.scanner.blame(reason)),
            };
        }
    }

    /// The events of a frame that are new, as there may be earlier ones in the first frame.
    fn give(&mut self, header: Header, mut batch: Batch) -> Frame {
        let after = self.after;
        if header.first <= after {
            batch.events.retain(|words| words[0] > after.0);
            batch.blobs.retain(|(seq, _)| *seq > after);
        }
        debug_assert_eq!(batch.first_seq(), Some(after.next()), "nothing is left out");
        self.after = Seq(header.next_seq().0 - 1);
        Frame { shard: header.shard, epoch: header.epoch, batch }
    }
}

/// A frame that is passed on.
#[cfg(feature = "kafka")]
#[derive(Debug)]
pub(crate) enum Passed {
    /// All of it, checked from end to end.
    Whole {
        /// What stands in front of its events.
        header: Header,
        /// As it stands in the journal.
        bytes: Vec<u8>,
    },
    /// Its last events: those before were given already.
    Part(Frame),
}

impl Iterator for Reader {
    type Item = Result<Frame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
