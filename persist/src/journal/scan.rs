//! Walks the frames of a journal in order and checks everything on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tmomi_engine::ids::{Epoch, Seq};

use super::segment::{self, Named, SEGMENT_HEAD_BYTES, SegmentHead};
use super::{Damage, JournalError, TornTail};
use crate::frame::{self, Checksum, FRAME_ALIGN, FrameError, FrameKind, HEAD_BYTES, Header};

/// What a step came to.
pub(super) enum Step<'a> {
    /// A good frame. Notes are given too.
    Frame { header: Header, bytes: &'a [u8] },
    /// There is no further frame now; a later step looks again.
    End(Option<TornTail>),
}

/// A place between two frames, and what is known of everything before it.
pub(super) struct Scanner {
    dir: PathBuf,
    current: Option<Current>,
    /// The shard of the first segment that was seen, or the one that was asked for.
    shard: Option<u32>,
    /// The checksum of the last frame, notes of kind `Continued` apart.
    pub(super) chain: Checksum,
    /// The number of the next event; `None` before the first segment.
    pub(super) next: Option<Seq>,
    /// The epoch of the last frame.
    pub(super) epoch: Epoch,
    /// Whether the last frame says that the journal was closed in order.
    pub(super) closed: bool,
    /// Where the frame begins that was given last.
    given: u64,
    /// Segments that were begun.
    pub(super) segments: usize,
    /// The segments that lack the note that they are continued.
    pub(super) unsealed: Vec<Unsealed>,
    window: Window,
}

/// A segment that ends without the note that another continues it.
pub(super) struct Unsealed {
    pub(super) path: PathBuf,
    /// Where the note belongs.
    pub(super) end: u64,
    /// The first event of the next segment.
    pub(super) next: Seq,
    /// Of the last frame.
    pub(super) chain: Checksum,
    /// Of the last frame.
    pub(super) epoch: Epoch,
}

/// The segment that is read.
pub(super) struct Current {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Where the next frame begins.
    pub(super) offset: u64,
    first: Seq,
    continued: bool,
}

impl Scanner {
    /// Begins with the segment that has event `from`, or waits for one if there is none at all.
    pub(super) fn start(
        dir: &Path,
        shard: Option<u32>,
        from: Seq,
    ) -> Result<Scanner, JournalError> {
        let mut scanner = Scanner::nowhere(dir, shard);
        let segments = segment::list(dir)?;
        let begun = segments.iter().rev().find(|segment| segment.first <= from);
        match (begun, segments.first()) {
            (Some(named), _) => scanner.enter(named)?,
            (None, Some(oldest)) => {
                let (dir, oldest) = (dir.to_owned(), oldest.first);
                return Err(JournalError::Removed { dir, wanted: from, oldest });
            }
            (None, None) => {}
        }
        Ok(scanner)
    }

    /// Begins with the oldest segment.
    pub(super) fn oldest(dir: &Path, shard: Option<u32>) -> Result<Scanner, JournalError> {
        let oldest = segment::list(dir)?.first().map_or(Seq(1), |segment| segment.first);
        Scanner::start(dir, shard, oldest)
    }

    fn nowhere(dir: &Path, shard: Option<u32>) -> Scanner {
        Scanner {
            dir: dir.to_owned(),
            current: None,
            shard,
            chain: Checksum::NONE,
            next: None,
            epoch: Epoch(0),
            closed: false,
            given: 0,
            segments: 0,
            unsealed: Vec::new(),
            window: Window::default(),
        }
    }

    /// The damage of the frame that was given last, if it turns out to be bad after all.
    pub(super) fn blame(&self, reason: impl Into<Damage>) -> JournalError {
        let path = self.current.as_ref().map_or(&self.dir, |current| &current.path);
        JournalError::damaged(path, self.given, reason)
    }

    /// Where the last frame of the current segment begins, if it has one.
    pub(super) fn last_frame(&self) -> Option<u64> {
        let current = self.current.as_ref()?;
        (current.offset > SEGMENT_HEAD_BYTES).then_some(self.given)
    }

    /// Makes what was written into the current segment durable.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        let Some(current) = &self.current else { return Ok(()) };
        let synced = current.file.sync_data();
        synced.map_err(|error| JournalError::io("sync", &current.path, error))
    }

    /// Ends the walk where the next frame would begin.
    pub(super) fn into_current(self) -> Option<Current> {
        self.current
    }

    /// Goes to the next frame.
    ///
    /// # Errors
    ///
    /// [`JournalError`] names the file, and the byte where its first bad frame begins.
    pub(super) fn step(&mut self) -> Result<Step<'_>, JournalError> {
        loop {
            if self.current.is_none() && !self.begin()? {
                return Ok(Step::End(None));
            }
            if let Ok(header) = self.look()? {
                return self.pass(header);
            }
            if self.go_on()? {
                continue;
            }
            let tail = self.tail();
            // A writer may have added frames while the tail was read piece by piece: only what
            // is still bad when it is read again is bad.
            if !matches!(tail, Ok(None))
                && let Ok(header) = self.look()?
            {
                return self.pass(header);
            }
            self.window.restart();
            return Ok(Step::End(tail?));
        }
    }

    /// Looks for the first segment of a journal that had none.
    fn begin(&mut self) -> Result<bool, JournalError> {
        let segments = segment::list(&self.dir)?;
        let Some(oldest) = segments.first() else { return Ok(false) };
        self.enter(oldest)?;
        Ok(true)
    }

    fn enter(&mut self, named: &Named) -> Result<(), JournalError> {
        let path = &named.path;
        let file = File::open(path).map_err(|error| JournalError::io("open", path, error))?;
        let head = SegmentHead::read(&file, path, named.first)?;
        let expected = *self.shard.get_or_insert(head.shard);
        if head.shard != expected {
            let (file, found) = (path.to_owned(), head.shard);
            return Err(JournalError::WrongShard { file, found, expected });
        }
        match self.next {
            None => self.chain = head.previous,
            Some(_) if head.previous == self.chain => {}
            Some(_) => return Err(JournalError::damaged(path, 0, Damage::Chain)),
        }
        self.next = Some(head.first);
        self.segments += 1;
        self.window.restart();
        let (path, offset) = (path.to_owned(), SEGMENT_HEAD_BYTES);
        let (first, continued) = (head.first, false);
        self.current = Some(Current { file, path, offset, first, continued });
        Ok(())
    }

    /// Whether a good frame stands at the current place. It may still be out of place.
    fn look(&mut self) -> Result<Result<Header, FrameError>, JournalError> {
        let current = self.current.as_ref().expect("callers have a segment");
        let io = |error| JournalError::io("read", &current.path, error);
        if current.continued {
            return Ok(Err(FrameError::CutOff));
        }
        if let Ok(header) = self.window.check(current).map_err(io)? {
            return Ok(Ok(header));
        }
        // What was read ahead may be older than what a writer has added since.
        self.window.clear();
        self.window.check(current).map_err(io)
    }

    /// Takes a good frame as the next one.
    fn pass(&mut self, header: Header) -> Result<Step<'_>, JournalError> {
        let current = self.current.as_mut().expect("callers have a segment");
        let expected = self.next.expect("a segment has a first number");
        let damage = if Some(header.shard) != self.shard {
            Some(Damage::Shard(header.shard))
        } else if header.first != expected {
            Some(FrameError::Sequence { expected, found: header.first }.into())
        } else if header.previous != self.chain {
            Some(Damage::Chain)
        } else if header.epoch < self.epoch {
            Some(Damage::Epoch { found: header.epoch, before: self.epoch })
        } else {
            None
        };
        if let Some(reason) = damage {
            return Err(JournalError::damaged(&current.path, current.offset, reason));
        }
        self.closed = header.kind == FrameKind::Closed;
        match header.kind {
            FrameKind::Continued => current.continued = true,
            FrameKind::Events | FrameKind::Closed => {
                self.chain = header.checksum;
                self.next = Some(header.next_seq());
                self.epoch = header.epoch;
            }
        }
        self.given = current.offset;
        if !current.continued {
            current.offset += header.bytes as u64;
        }
        Ok(Step::Frame { header, bytes: self.window.at(self.given, header.bytes) })
    }

    /// Goes on to the next segment if there is one; true if it is worth looking again.
    fn go_on(&mut self) -> Result<bool, JournalError> {
        let current = self.current.as_ref().expect("callers have a segment");
        let next = self.next.expect("a segment has a first number");
        let segments = segment::list(&self.dir)?;
        let later = segments.into_iter().find(|segment| segment.first > current.first);
        let missing = |current: &Current| {
            let file = current.path.clone();
            Err(JournalError::MissingSegment { file, expected: next })
        };
        match later {
            None if current.continued => missing(current),
            None => Ok(false),
            // Every frame before it was durable before it was made. If something stands here
            // nevertheless, it is the note that says so, cut off.
            Some(named) if named.first == next => {
                if !current.continued {
                    let (path, end) = (current.path.clone(), current.offset);
                    let (chain, epoch) = (self.chain, self.epoch);
                    self.unsealed.push(Unsealed { path, end, next, chain, epoch });
                }
                self.enter(&named)?;
                Ok(true)
            }
            Some(named) => {
                // What was written before the later segment was made is seen by now.
                let Err(reason) = self.look()? else { return Ok(true) };
                if named.first < next {
                    return Err(JournalError::Repeated { file: named.path, expected: next });
                }
                let current = self.current.as_ref().expect("callers have a segment");
                if self.is_blank_here(current, &reason)? {
                    return missing(current);
                }
                Err(JournalError::damaged(&current.path, current.offset, reason))
            }
        }
    }

    /// Whether nothing at all was written at the current place, where no frame is for `reason`.
    fn is_blank_here(&self, at: &Current, reason: &FrameError) -> Result<bool, JournalError> {
        let blank = FrameError::Length { length: 0, check: 0 };
        let len = at.len().map_err(|error| JournalError::io("read", &at.path, error))?;
        Ok(*reason == blank || at.offset >= len || at.continued)
    }

    /// What stands behind the last good frame: nothing, a frame that a crash cut off, or damage.
    fn tail(&self) -> Result<Option<TornTail>, JournalError> {
        let current = self.current.as_ref().expect("callers have a segment");
        let Current { path, offset, .. } = current;
        let rest = current.written().map_err(|error| JournalError::io("read", path, error))?;
        if rest.is_empty() {
            return Ok(None);
        }
        let reason = match frame::check(&rest) {
            Err(FrameError::Version(version)) => {
                let (file, version) = (path.clone(), version.into());
                return Err(JournalError::NewerVersion { file, version });
            }
            Err(reason) => reason,
            Ok(_) => FrameError::Field("place"),
        };
        if let Some(at) = self.good_frame_in(&rest) {
            let good = offset + at as u64;
            return Err(JournalError::damaged(path, *offset, Damage::BeforeGood(good)));
        }
        if !frame::is_unfinished(&rest, *offset) {
            return Err(JournalError::damaged(path, *offset, reason));
        }
        let (file, bytes) = (path.clone(), rest.len() as u64);
        Ok(Some(TornTail { file, offset: *offset, bytes }))
    }

    /// Where in `rest`, which begins with a bad frame, a later frame of this journal stands.
    fn good_frame_in(&self, rest: &[u8]) -> Option<usize> {
        let is_ours = |header: &Header| {
            Some(header.shard) == self.shard && self.next.is_some_and(|next| next <= header.first)
        };
        // The content of the bad frame itself is the clients', so it is left out if possible.
        let from = frame::claimed_bytes(rest).unwrap_or(FRAME_ALIGN);
        (from..rest.len()).step_by(FRAME_ALIGN).find(|at| {
            let bytes = &rest[*at..];
            frame::claimed_bytes(bytes).is_ok()
                && frame::check(bytes).is_ok_and(|header| is_ours(&header))
        })
    }
}

impl Current {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The bytes from the current place to the last one that is not zero.
    fn written(&self) -> io::Result<Vec<u8>> {
        const STEP_BYTES: usize = 1 << 16;
        static ZEROS: [u8; STEP_BYTES] = [0; STEP_BYTES];
        let (mut rest, mut kept) = (Vec::new(), 0);
        let mut step = vec![0; STEP_BYTES];
        loop {
            let read = read_at(&self.file, &mut step, self.offset + kept as u64)?;
            if read == 0 {
                break;
            }
            // Zeros at the end are not stored: a segment is mostly room.
            if step[..read] != ZEROS[..read] {
                rest.resize(kept, 0);
                rest.extend_from_slice(&step[..read]);
            }
            kept += read;
        }
        let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        rest.truncate(end);
        Ok(rest)
    }
}

/// A piece of the current segment in memory.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// How much the next read takes.
    read_bytes: usize,
}

impl Window {
    const READ_BYTES_MIN: usize = 1 << 12;
    const READ_BYTES_MAX: usize = 1 << 20;

    fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Forgets everything and reads little at first: there may be only one new frame.
    fn restart(&mut self) {
        self.clear();
        self.read_bytes = Self::READ_BYTES_MIN;
    }

    fn at(&self, offset: u64, bytes: usize) -> &[u8] {
        let from = (offset - self.start) as usize;
        &self.bytes[from..from + bytes]
    }

    fn check(&mut self, current: &Current) -> io::Result<Result<Header, FrameError>> {
        let mut wanted = HEAD_BYTES;
        loop {
            let bytes = self.fill(&current.file, current.offset, wanted)?;
            match frame::claimed_bytes(bytes) {
                Ok(length) if length > bytes.len() && length > wanted => {
                    // Reading ahead is bounded by what is there, whatever the length claims.
                    if current.offset + length as u64 > current.len()? {
                        return Ok(Err(FrameError::CutOff));
                    }
                    wanted = length;
                }
                Ok(_) => return Ok(frame::check(bytes)),
                Err(reason) => return Ok(Err(reason)),
            }
        }
    }

    /// The bytes from `offset` on, `wanted` at least unless the file ends before.
    fn fill(&mut self, file: &File, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + wanted as u64 > end {
            let size = wanted.max(self.read_bytes);
            self.read_bytes = (self.read_bytes * 2).min(Self::READ_BYTES_MAX);
            self.bytes.resize(size, 0);
            let read = read_at(file, &mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        Ok(&self.bytes[(offset - self.start) as usize..])
    }
}

/// Reads until `bytes` is full or the file ends; gives how many were read.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
