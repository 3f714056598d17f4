//! The writing end of a journal.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};

use super::ahead::AheadDisk;
use super::lock::FolderLock;
use super::media::{self, Disk, Media};
use super::scan::{Scanner, Step, Unsealed};
use super::segment::{self, CreateError, SEGMENT_HEAD_BYTES, SegmentHead};
use super::{JournalError, TornTail};
use crate::frame::{self, Checksum, FrameKind, NOTE_BYTES, Origin};
use crate::log::{Log, LogError};

/// Room that is kept behind every frame, so that the journal can always be closed and continued.
const NOTES_BYTES: u64 = 2 * NOTE_BYTES as u64;

/// The next segment is made when one of so many parts of this one is full.
const NEXT_IS_MADE_AT: u64 = 4;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalConfig {
    /// The shard whose events it has.
    pub shard: u32,
    /// Bytes that a segment takes in advance. A frame that is larger gets a larger segment.
    pub segment_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig { shard: 0, segment_bytes: 64 << 20 }
    }
}

/// What an opened journal has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalTail {
    /// The first event it still has, or `None` if it is empty.
    pub first: Option<Seq>,
    /// The number of the last event; 0 if there was never one.
    pub last: Seq,
    /// The epoch of the last frame; 0 if there was never one.
    pub epoch: Epoch,
    /// Segments.
    pub segments: usize,
    /// Whether the process before closed it in order.
    pub closed: bool,
    /// The incomplete frame that was cut off, if there was one.
    pub cut: Option<TornTail>,
}

/// A journal that is being written. It has the folder for itself until it is dropped.
pub struct Journal {
    dir: PathBuf,
    config: JournalConfig,
    media: Arc<dyn Media>,
    segment: Option<Segment>,
    chain: Checksum,
    /// The number of the next event; `None` if the first batch decides.
    next: Option<Seq>,
    epoch: Epoch,
    /// Whether a frame was written that no sync has covered.
    unsynced: bool,
    closed: bool,
    /// Why nothing can be written any more.
    failed: Option<LogError>,
    buffer: Vec<u8>,
    _lock: FolderLock,
}

/// The segment that is written.
struct Segment {
    file: File,
    path: PathBuf,
    /// Where the next frame begins.
    end: u64,
    /// Bytes that were taken.
    allocated: u64,
    /// Whether the next one was asked for.
    next_is_made: bool,
}

impl Journal {
    /// Opens the journal of `dir`, or begins one: checks every frame, cuts off what a crash left
    /// incomplete, and takes the folder's lock.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if another process has it, if it is damaged, incomplete, of another
    /// shard or a newer version, or if the file system refuses.
    pub fn open(dir: &Path, config: JournalConfig) -> Result<(Journal, JournalTail), JournalError> {
        Journal::open_on(dir, config, Arc::new(AheadDisk::default()))
    }

    /// As [`open`](Self::open), writing through `media`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(
        dir: &Path,
        config: JournalConfig,
        media: Arc<dyn Media>,
    ) -> Result<(Journal, JournalTail), JournalError> {
        make_dir(dir)?;
        let lock = FolderLock::take(dir)?;
        segment::remove_unfinished(&*media, dir)?;
        // A process that was killed may have made and removed names that are not durable yet.
        media.sync_dir(dir).map_err(|error| JournalError::io("sync", dir, error))?;
        let mut scanner = Scanner::oldest(dir, Some(config.shard))?;
        let first = segment::list(dir)?.first().map(|oldest| oldest.first);
        let cut = loop {
            if let Step::End(torn) = scanner.step()? {
                break torn;
            }
        };
        let mut tail = JournalTail {
            first,
            last: scanner.next.map_or(Seq(0), |next| Seq(next.0 - 1)),
            epoch: scanner.epoch,
            segments: scanner.segments,
            closed: scanner.closed,
            cut,
        };
        if tail.first > Some(tail.last) {
            tail.first = None;
        }
        for unsealed in scanner.unsealed.drain(..) {
            seal_late(&*media, config.shard, unsealed)?;
        }
        let (chain, next, last_frame) = (scanner.chain, scanner.next, scanner.last_frame());
        let segment = scanner.into_current().map(|current| (current.path, current.offset));
        let is_cut = tail.cut.is_some();
        let reopen = |(path, end)| Segment::reopen(&*media, path, end, is_cut);
        let segment = segment.map(reopen).transpose()?;
        if let (Some(segment), Some(from)) = (&segment, last_frame) {
            segment.make_durable(&*media, from)?;
        }
        let journal = Journal {
            dir: dir.to_owned(),
            config,
            media,
            segment,
            chain,
            next,
            epoch: tail.epoch,
            unsynced: false,
            closed: tail.closed,
            failed: None,
            buffer: Vec::new(),
            _lock: lock,
        };
        Ok((journal, tail))
    }

    /// The number of the next event, or `None` if the first batch decides.
    pub fn next_seq(&self) -> Option<Seq> {
        self.next
    }

    fn origin(&self, epoch: Epoch) -> Origin {
        Origin { shard: self.config.shard, epoch, previous: self.chain }
    }

    /// Nothing is written or promised from here on.
    fn fail(&mut self, what: String) -> LogError {
        let error = LogError::Fatal(Arc::from(what));
        self.failed = Some(error.clone());
        error
    }

    fn fail_io(&mut self, action: &str, error: &io::Error) -> LogError {
        let path = self.segment.as_ref().map_or(&self.dir, |segment| &segment.path);
        let end = self.segment.as_ref().map_or(0, |segment| segment.end);
        let what = format!("cannot {action} {} near byte {end}: {error}", path.display());
        self.fail(what)
    }

    fn check_order(&mut self, epoch: Epoch, batch: &Batch) -> Result<Seq, LogError> {
        let Some(first) = batch.first_seq() else {
            return Err(self.fail("an empty batch was to be written".into()));
        };
        if let Some(next) = self.next.filter(|next| *next != first) {
            return Err(self.fail(format!("event {first} was to be written in place of {next}")));
        }
        if epoch < self.epoch {
            let what = format!("epoch {epoch} was to be written after epoch {}", self.epoch);
            return Err(self.fail(what));
        }
        Ok(first)
    }

    /// Sees to it that a frame of `bytes` and the notes behind it fit into the segment.
    fn make_room(&mut self, bytes: u64, first: Seq) -> Result<(), LogError> {
        let needed = bytes + NOTES_BYTES;
        let size = self.config.segment_bytes;
        let Some(segment) = &self.segment else {
            return self.begin_segment(first, needed);
        };
        // An empty segment is not followed by another of the same name, however full it gets.
        let is_empty = segment.end == SEGMENT_HEAD_BYTES;
        let end = segment.end;
        if end + needed <= size || is_empty {
            return self.grow(size.max(end + needed), end + needed);
        }
        // The note that ends the segment needs its room too; a cut tail may have taken it.
        self.grow(end + NOTES_BYTES, end + NOTES_BYTES)?;
        self.roll(first, needed)
    }

    /// Takes room in the segment up to `bytes`, unless it has `enough` already.
    fn grow(&mut self, bytes: u64, enough: u64) -> Result<(), LogError> {
        let segment = self.segment.as_mut().expect("callers have a segment");
        if enough <= segment.allocated {
            return Ok(());
        }
        match self.media.allocate(&segment.file, bytes) {
            Err(error) if media::is_no_room(&error) => return Err(self.no_space(&error)),
            Err(error) => return Err(self.fail_io("extend", &error)),
            Ok(()) => segment.allocated = bytes,
        }
        let synced = self.media.sync_all(&segment.file);
        synced.map_err(|error| self.fail_io("sync", &error))
    }

    /// Ends the segment and begins the next one.
    fn roll(&mut self, first: Seq, needed: u64) -> Result<(), LogError> {
        debug_assert!(!self.unsynced, "the frames before must be durable");
        let mut before = self.segment.take().expect("there is a segment to end");
        if let Err(error) = self.begin_segment(first, needed) {
            self.segment = Some(before);
            return Err(error);
        }
        let origin = self.origin(self.epoch);
        before
            .mark_continued(&*self.media, origin, first)
            .map_err(|error| self.fail_io("seal the segment before", &error))
    }

    fn begin_segment(&mut self, first: Seq, needed: u64) -> Result<(), LogError> {
        let head = SegmentHead { shard: self.config.shard, first, previous: self.chain };
        let allocated = self.config.segment_bytes.max(SEGMENT_HEAD_BYTES + needed);
        match segment::create(&*self.media, &self.dir, head, allocated) {
            Ok((file, path)) => {
                let (end, next_is_made) = (SEGMENT_HEAD_BYTES, false);
                self.segment = Some(Segment { file, path, end, allocated, next_is_made });
                Ok(())
            }
            Err(CreateError::NoRoom(error)) => Err(self.no_space(&error)),
            Err(CreateError::Broken(error)) => Err(self.fail_io("begin a segment after", &error)),
        }
    }

    fn no_space(&self, error: &io::Error) -> LogError {
        LogError::Stalled(format!("no room in {}: {error}", self.dir.display()).into())
    }

    /// Writes what is in the buffer behind the last frame.
    fn write_buffer(&mut self) -> Result<(), LogError> {
        let segment = self.segment.as_mut().expect("room was made in a segment");
        let bytes = self.buffer.len() as u64;
        debug_assert!(segment.end + bytes <= segment.allocated, "no frame leaves its room");
        self.media
            .write_at(&segment.file, &self.buffer, segment.end)
            .map_err(|error| self.fail_io("write", &error))?;
        let segment = self.segment.as_mut().expect("it was there above");
        segment.end += bytes;
        self.unsynced = true;
        self.make_ahead();
        Ok(())
    }
}

impl Journal {
    /// Has the next segment made once a good part of this one is full: a process that writes
    /// little makes none.
    fn make_ahead(&mut self) {
        let size = self.config.segment_bytes;
        if let Some(segment) = &mut self.segment
            && !segment.next_is_made
            && segment.end >= size / NEXT_IS_MADE_AT
        {
            segment.next_is_made = true;
            self.media.make_ahead(&segment::unfinished(&self.dir), size);
        }
    }
}

impl Drop for Journal {
    /// What was made ahead goes with the right to the folder, not after it.
    fn drop(&mut self) {
        let path = segment::unfinished(&self.dir);
        if self.media.take_made(&path).is_some() {
            let _ = self.media.remove(&path);
        }
    }
}

impl Log for Journal {
    fn append(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let first = self.check_order(epoch, batch)?;
        // At most one frame is not durable, so that damage can be told from a cut tail.
        self.commit()?;
        self.buffer.clear();
        let shard = self.config.shard;
        let encoded = frame::encode(shard, epoch, self.chain, batch, &mut self.buffer);
        let chain = encoded.map_err(|error| self.fail(format!("cannot write a batch: {error}")))?;
        self.make_room(self.buffer.len() as u64, first)?;
        self.write_buffer()?;
        self.chain = chain;
        self.next = batch.last_seq().map(Seq::next);
        self.epoch = epoch;
        self.closed = false;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.unsynced {
            return Ok(());
        }
        let segment = self.segment.as_ref().expect("a frame was written into it");
        let synced = self.media.sync_data(&segment.file);
        // After a failed sync nobody knows what is on the disk, so it is never tried again.
        synced.map_err(|error| self.fail_io("sync", &error))?;
        self.unsynced = false;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), LogError> {
        self.commit()?;
        let (Some(next), Some(segment)) = (self.next, &self.segment) else { return Ok(()) };
        // The room for it was taken with the last frame.
        let fits = segment.end + NOTES_BYTES <= segment.allocated;
        if self.closed || !fits || segment.end == SEGMENT_HEAD_BYTES {
            return Ok(());
        }
        self.buffer.clear();
        let origin = self.origin(self.epoch);
        self.chain = frame::encode_note(FrameKind::Closed, origin, next, &mut self.buffer);
        self.write_buffer()?;
        self.closed = true;
        self.commit()
    }
}

impl Segment {
    /// Opens a segment that ends at `end`; if `is_cut`, what stands behind it becomes zeros.
    fn reopen(
        media: &dyn Media,
        path: PathBuf,
        end: u64,
        is_cut: bool,
    ) -> Result<Segment, JournalError> {
        let io = |action, error| JournalError::io(action, &path, error);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(|error| io("open", error))?;
        if is_cut {
            // Cutting, and letting the next allocation extend, leaves no old byte behind.
            media.cut(&file, end).map_err(|error| io("cut", error))?;
            media.sync_all(&file).map_err(|error| io("sync", error))?;
        }
        let allocated = file.metadata().map_err(|error| io("read", error))?.len();
        Ok(Segment { file, path, end, allocated, next_is_made: false })
    }

    /// Writes the last frame, which begins at `from`, once more. The process before may have gone
    /// because a sync of it failed: then it can be read, but is not on the disk, and no later sync
    /// would write it.
    fn make_durable(&self, media: &dyn Media, from: u64) -> Result<(), JournalError> {
        let io = |action, error| JournalError::io(action, &self.path, error);
        let mut bytes = vec![0; (self.end - from) as usize];
        self.file.read_exact_at(&mut bytes, from).map_err(|error| io("read", error))?;
        media.write_at(&self.file, &bytes, from).map_err(|error| io("write", error))?;
        media.sync_data(&self.file).map_err(|error| io("sync", error))
    }

    /// Notes that a further segment continues here, and gives back the room that is left.
    fn mark_continued(&mut self, media: &dyn Media, origin: Origin, next: Seq) -> io::Result<()> {
        let mut note = Vec::with_capacity(NOTE_BYTES);
        frame::encode_note(FrameKind::Continued, origin, next, &mut note);
        media.write_at(&self.file, &note, self.end)?;
        media.sync_data(&self.file)?;
        media.cut(&self.file, self.end + note.len() as u64)
    }
}

/// Notes in a segment that it is continued, which a crash kept from being noted.
fn seal_late(media: &dyn Media, shard: u32, unsealed: Unsealed) -> Result<(), JournalError> {
    let Unsealed { path, end, next, chain, epoch } = unsealed;
    let mut segment = Segment::reopen(media, path, end, false)?;
    let origin = Origin { shard, epoch, previous: chain };
    let sealed = segment.mark_continued(media, origin, next);
    sealed.map_err(|error| JournalError::io("seal", &segment.path, error))
}

/// Makes a folder, and those it is in, whose names are durable.
pub(crate) fn make_dir(dir: &Path) -> Result<(), JournalError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_dir(parent)?;
    match fs::create_dir(dir) {
        // Another process starts here, too; the lock will tell.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(JournalError::io("create", dir, error));
        }
        _ => {}
    }
    Disk.sync_dir(parent).map_err(|error| JournalError::io("sync", parent, error))
}
