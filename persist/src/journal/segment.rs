//! Segments: the files of a journal, their names and headers.
//!
//! ```text
//!  0 magic      "TMOMIJNL"
//!  8 version
//! 12 shard
//! 16 first      number of the first event, also the file's name
//! 24 previous   checksum of the last frame of the segment before
//! 28 crc32c     of all before
//! 32 zeros      up to 64, where the first frame begins
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc32c::crc32c;
use tmomi_engine::ids::Seq;

use super::media::{self, Disk, Media};
use super::{Damage, JournalError};
use crate::frame::{Checksum, FRAME_ALIGN};
use crate::wire::{self, Decode, Encode};

/// The version of segments that this code writes. It reads no other.
pub const FORMAT_VERSION: u32 = 1;
/// Where the first frame begins.
pub(super) const SEGMENT_HEAD_BYTES: u64 = 64;

const MAGIC: [u8; 8] = *b"TMOMIJNL";
const CHECKED_BYTES: usize = 28;
const EXTENSION: &str = "journal";
const UNFINISHED: &str = "new";
const NAME_DIGITS: usize = 20;

const _: () = assert!(SEGMENT_HEAD_BYTES.is_multiple_of(FRAME_ALIGN as u64));

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) shard: u32,
    pub(super) first: Seq,
    pub(super) previous: Checksum,
}

#[derive(Encode, Decode)]
struct Stored {
    magic: [u8; 8],
    version: u32,
    shard: u32,
    first: u64,
    previous: u32,
    crc32c: u32,
}

impl SegmentHead {
    fn encode(self) -> Vec<u8> {
        let stored = Stored {
            magic: MAGIC,
            version: FORMAT_VERSION,
            shard: self.shard,
            first: self.first.0,
            previous: self.previous.0,
            crc32c: 0,
        };
        let mut bytes = Vec::with_capacity(SEGMENT_HEAD_BYTES as usize);
        wire::encode_into(&stored, &mut bytes);
        bytes.truncate(CHECKED_BYTES);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes.resize(SEGMENT_HEAD_BYTES as usize, 0);
        bytes
    }

    /// Reads and checks the header of `file`, which stands at `path` under the name for `first`.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if it is damaged, of another version, or of another segment.
    pub(super) fn read(file: &File, path: &Path, first: Seq) -> Result<SegmentHead, JournalError> {
        let mut bytes = [0; SEGMENT_HEAD_BYTES as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(JournalError::damaged(path, 0, Damage::Header));
            }
            read => read.map_err(|error| JournalError::io("read", path, error))?,
        }
        let stored: Stored =
            wire::decode(&bytes).map_err(|_| JournalError::damaged(path, 0, Damage::Header))?.0;
        let rest = &bytes[CHECKED_BYTES + 4..];
        let sound = stored.crc32c == crc32c(&bytes[..CHECKED_BYTES]);
        if stored.magic != MAGIC || !sound {
            return Err(JournalError::damaged(path, 0, Damage::Header));
        }
        if stored.version != FORMAT_VERSION {
            let (file, version) = (path.to_owned(), stored.version);
            return Err(JournalError::NewerVersion { file, version });
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(JournalError::damaged(path, 0, Damage::Header));
        }
        if stored.first != first.0 {
            let (file, found) = (path.to_owned(), Seq(stored.first));
            return Err(JournalError::Misnamed { file, found });
        }
        Ok(SegmentHead { shard: stored.shard, first, previous: Checksum(stored.previous) })
    }
}

/// A segment by its name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) first: Seq,
    pub(super) path: PathBuf,
}

/// Where the segment that begins with `first` stands.
pub(super) fn path_of(dir: &Path, first: Seq) -> PathBuf {
    dir.join(format!("{:0width$}.{EXTENSION}", first.0, width = NAME_DIGITS))
}

/// The segments of `dir`, oldest first.
///
/// # Errors
///
/// [`JournalError::Io`] if the folder cannot be read, [`JournalError::Misnamed`] if a segment's
/// name is no number.
pub(super) fn list(dir: &Path) -> Result<Vec<Named>, JournalError> {
    let io = |error| JournalError::io("read", dir, error);
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let digits =
            stem.filter(|s| s.len() == NAME_DIGITS && s.bytes().all(|b| b.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(first) => segments.push(Named { first: Seq(first), path }),
            None => return Err(JournalError::damaged(&path, 0, Damage::Name)),
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Removes what a crash left of a segment that was being made.
pub(super) fn remove_unfinished(media: &dyn Media, dir: &Path) -> Result<(), JournalError> {
    let path = unfinished(dir);
    match media.remove(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(JournalError::io("remove", &path, error))
        }
        _ => Ok(()),
    }
}

/// What went wrong while a segment was made.
#[derive(Debug)]
pub(super) enum CreateError {
    /// There is no room; nothing is left behind.
    NoRoom(io::Error),
    /// Something broke.
    Broken(io::Error),
}

/// Makes a segment of `bytes` under its final name, durable with its header and its room.
pub(super) fn create(
    media: &dyn Media,
    dir: &Path,
    head: SegmentHead,
    bytes: u64,
) -> Result<(File, PathBuf), CreateError> {
    let (fresh, path) = (unfinished(dir), path_of(dir, head.first));
    let sort = |error| match media::is_no_room(&error) {
        true => CreateError::NoRoom(error),
        false => CreateError::Broken(error),
    };
    let file = match media.take_made(&fresh) {
        Some(file) => file,
        None => media.create(&fresh).map_err(sort)?,
    };
    let filled =
        media.allocate(&file, bytes).and_then(|()| media.write_at(&file, &head.encode(), 0));
    let give_back = |error| {
        // Whatever was taken is given back: others may need it more.
        let _ = media.remove(&fresh);
        sort(error)
    };
    filled.map_err(give_back)?;
    media.sync_all(&file).map_err(CreateError::Broken)?;
    // The folder may need room for the new name.
    media.rename(&fresh, &path).map_err(give_back)?;
    media.sync_dir(dir).map_err(CreateError::Broken)?;
    Ok((file, path))
}

/// Removes the segments whose events are all below `seq`; gives how many. The last segment
/// stays, and the oldest go first, so a crash leaves no gap.
///
/// # Errors
///
/// [`JournalError::Io`] if the folder cannot be read or a file not removed.
pub fn retain_from(dir: &Path, seq: Seq) -> Result<usize, JournalError> {
    retain_from_on(&Disk, dir, seq)
}

/// As [`retain_from`], through `media`.
pub(crate) fn retain_from_on(
    media: &dyn Media,
    dir: &Path,
    seq: Seq,
) -> Result<usize, JournalError> {
    let segments = list(dir)?;
    let mut removed = 0;
    for pair in segments.windows(2).take_while(|pair| pair[1].first <= seq) {
        let path = &pair[0].path;
        media.remove(path).map_err(|error| JournalError::io("remove", path, error))?;
        // One at a time: of several that were removed and not synced, a power cut may bring back
        // any, and a journal with a gap does not open.
        media.sync_dir(dir).map_err(|error| JournalError::io("sync", dir, error))?;
        removed += 1;
    }
    Ok(removed)
}

/// Where a segment is made that has no name yet.
pub(super) fn unfinished(dir: &Path) -> PathBuf {
    dir.join(format!("segment.{UNFINISHED}"))
}
