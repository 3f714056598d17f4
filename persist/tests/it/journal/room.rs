//! The disk is full: nothing is written, nothing is lost, and it goes on when there is room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use tmomi_persist::journal::{Disk, Journal, JournalConfig, Media};
use tmomi_persist::log::{Log, LogError};

use super::support::*;

/// A disk that has room for so many further allocations and names.
struct Narrow(Arc<AtomicU64>);

impl Narrow {
    fn take(&self) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        let left = left.checked_sub(1).ok_or(Errno::NOSPC)?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl Media for Narrow {
    fn create(&self, path: &Path) -> io::Result<File> {
        Disk.create(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        Disk.write_at(file, bytes, offset)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.take()?;
        Disk.allocate(file, bytes)
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        Disk.cut(file, bytes)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        Disk.sync_data(file)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        Disk.sync_all(file)
    }

    /// Takes room like an allocation: a folder grows with its names.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.take()?;
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut contents: Vec<_> =
        entries.map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect();
    contents.sort();
    contents
}

/// Planted bugs: write the note that ends a segment before the next one has its room; take a name
/// that finds no room for a broken disk.
#[test]
fn without_room_nothing_changes_and_the_same_batch_is_taken_later() {
    let dir = folder();
    let room = Arc::new(AtomicU64::new(0));
    let media = Narrow(Arc::clone(&room));
    let opened = Journal::open_on(dir.path(), SMALL, Arc::new(media));
    let (mut journal, _) = opened.expect("opening needs no room");
    let mut next = 1;
    let mut refused = 0;
    for size in [&SIZES[..], &SIZES].concat() {
        let batch = batch(next, size);
        let before = contents(dir.path());
        while let Err(error) = journal.append(EPOCH, &batch) {
            assert!(matches!(error, LogError::Stalled(_)), "{error}");
            journal.append(EPOCH, &batch).expect_err("still no room");
            journal.commit().expect("what was written before is sound");
            assert_eq!(contents(dir.path()), before, "nothing is written without room");
            refused += 1;
            // First too little for a segment: its name finds no room.
            room.store(2 - refused % 2, Ordering::Relaxed);
        }
        journal.commit().expect("a working disk");
        next += size;
    }
    assert!(refused >= 3, "every segment needed room");
    drop(journal);
    assert_eq!(read_all(dir.path()).expect("sound"), batch(1, next - 1));
}

/// The same with a real full file system. Needs a mount name space of its own, so it runs this
/// program again inside one; where that is not allowed, the test above has to do.
#[test]
fn a_full_file_system_is_noticed_before_a_frame_is_cut() {
    let dir = folder();
    let program = std::env::current_exe().expect("this test");
    let script = "mount -t tmpfs -o size=300k tmomi-test \"$TMOMI_FULL_DIR\" || exit 77; \
                  exec \"$0\" --exact journal::room::inside_a_small_file_system --ignored";
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(program)
        .env("TMOMI_FULL_DIR", dir.path())
        .output();
    match run {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        _ => eprintln!("no mount name space here, so no small file system"),
    }
}

#[test]
#[ignore = "run by the test above, in a small file system"]
fn inside_a_small_file_system() {
    let dir = PathBuf::from(std::env::var_os("TMOMI_FULL_DIR").expect("set by the test above"));
    let config = JournalConfig { segment_bytes: 64 << 10, ..SMALL };
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 100 << 10]).expect("room for the ballast");
    let journal_dir = dir.join("journal");
    let (mut journal, _) = Journal::open(&journal_dir, config).expect("an empty folder");
    let mut next = 1;
    let error = loop {
        match journal.append(EPOCH, &batch(next, 100)) {
            Ok(()) => next += 100,
            Err(error) => break error,
        }
        journal.commit().expect("a full disk fails no sync");
        assert!(next < 100_000, "the file system must be full by now");
    };
    assert!(matches!(error, LogError::Stalled(_)), "{error}");
    assert_eq!(read_all(&journal_dir).expect("sound"), batch(1, next - 1));
    fs::remove_file(ballast).expect("removable");
    journal.append(EPOCH, &batch(next, 100)).expect("there is room again");
    journal.commit().expect("a working disk");
    drop(journal);
    let (_, tail) = Journal::open(&journal_dir, config).expect("sound");
    assert_eq!((tail.last.0, tail.cut), (next + 99, None));
}
