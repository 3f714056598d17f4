//! Journals to be mistreated.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{EntryId, Epoch, LineNumber, Seq, ShowtimeId, TimeMs};
use tmomi_persist::journal::{Journal, JournalConfig, JournalError, JournalTail, Reader};
use tmomi_persist::log::Log;

/// A folder for one test, in memory where that is possible: thousands of syncs take their time.
pub(super) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("room for a test")
}

/// Segments that hold a handful of frames.
pub(super) const SMALL: JournalConfig = JournalConfig { shard: 3, segment_bytes: 2048 };
pub(super) const EPOCH: Epoch = Epoch(1);

/// Events from `first` on; what they say differs with their numbers. Every seventh has a blob.
pub(super) fn batch(first: u64, count: u64) -> Batch {
    let mut batch = Batch::default();
    for seq in first..first + count {
        let has_blob = seq.is_multiple_of(7);
        let body = Body::Passed { entry: EntryId(seq as u32), number: LineNumber(1) };
        let (at, showtime) = (TimeMs(1_700_000_000_000 + seq), ShowtimeId(1));
        let event = Event { seq: Seq(seq), at, showtime, more_follows: false, has_blob, body };
        batch.events.push(event.pack());
        if has_blob {
            batch.blobs.push((Seq(seq), format!("blob of {seq}").into_bytes().into()));
        }
    }
    batch
}

/// The frames' sizes in events of the journals that tests make, cut to their length.
pub(super) const SIZES: [u64; 12] = [1, 3, 2, 9, 1, 1, 5, 4, 8, 1, 2, 3];

/// Appends and commits a frame for each of `sizes`; gives the last number.
pub(super) fn fill(journal: &mut Journal, sizes: &[u64]) -> Seq {
    let mut next = journal.next_seq().unwrap_or(Seq(1)).0;
    for size in sizes {
        journal.append(EPOCH, &batch(next, *size)).expect("room and order");
        journal.commit().expect("a working disk");
        next += size;
    }
    Seq(next - 1)
}

/// A journal of one frame for each of `sizes`, left as a killed process leaves it.
pub(super) fn killed(dir: &Path, config: JournalConfig, sizes: &[u64]) -> Seq {
    let (mut journal, _) = Journal::open(dir, config).expect("an empty folder");
    fill(&mut journal, sizes)
}

pub(super) fn open(dir: &Path) -> Result<JournalTail, JournalError> {
    Journal::open(dir, SMALL).map(|(_, tail)| tail)
}

/// All events and blobs, as one batch.
pub(super) fn read_all(dir: &Path) -> Result<Batch, JournalError> {
    let mut all = Batch::default();
    for frame in Reader::open(dir, Seq(0))? {
        let mut frame = frame?;
        all.events.append(&mut frame.batch.events);
        all.blobs.append(&mut frame.batch.blobs);
    }
    Ok(all)
}

/// The segments, oldest first.
pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|it| it == "journal");
    let mut paths: Vec<PathBuf> = entries.filter(is_segment).collect();
    paths.sort();
    paths
}

/// Overwrites the byte at `offset` by what `change` makes of it.
pub(super) fn change_byte(path: &Path, offset: u64, change: impl Fn(u8) -> u8) {
    let file = File::options().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte within");
    file.write_all_at(&[change(byte[0])], offset).expect("writable");
}

/// A copy of a journal that may be ruined.
pub(super) fn copy(from: &Path) -> TempDir {
    let to = folder();
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file");
        fs::copy(&path, to.path().join(name)).expect("room for a test");
    }
    to
}
