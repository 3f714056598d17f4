//! The next segment, made before it is needed.
//!
//! Room that was only taken costs each sync that reaches a fresh block: the file system notes
//! durably which blocks are written by now, and a commit of a few kilobytes takes twice as long.
//! So a thread writes the zeros that stand there anyway, while the segment before is filled.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::media::{Disk, Media};

/// Files below this are made when they are needed: it takes no longer.
const BYTES_MIN: u64 = 1 << 20;
/// Bytes written at a time; a commit waits for the disk behind no more than these.
const STEP_BYTES: usize = 512 << 10;
/// Between two steps the disk is left to the commits.
const PAUSE: Duration = Duration::from_millis(1);

/// The file system, and a thread that makes one file at a time: what a journal is kept on.
#[derive(Debug, Default)]
pub struct AheadDisk {
    making: Mutex<Option<Making>>,
}

#[derive(Debug)]
struct Making {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<File>>,
}

impl AheadDisk {
    fn begin(path: &Path, bytes: u64) -> io::Result<Making> {
        let stop = Arc::new(AtomicBool::new(false));
        let (of_thread, path) = (Arc::clone(&stop), path.to_owned());
        let at = path.clone();
        let thread = thread::Builder::new().name("zeros".into()).spawn(move || {
            make(&at, bytes, &of_thread).inspect_err(|_| {
                // What room it took is given back at once: others may need it more.
                let _ = fs::remove_file(&at);
            })
        })?;
        Ok(Making { path, stop, thread })
    }
}

impl Making {
    /// Stops the thread; gives the file as far as it got.
    fn end(self) -> Option<File> {
        // Relaxed: the flag guards no other data.
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(Ok(file)) => Some(file),
            // Most likely there is no room. Whoever needs the file tries again, and is told.
            _ => None,
        }
    }
}

impl Drop for AheadDisk {
    fn drop(&mut self) {
        if let Some(making) = self.making.get_mut().take() {
            let path = making.path.clone();
            making.end();
            let _ = fs::remove_file(path);
        }
    }
}

/// A file of `bytes` zeros, as far as it gets before `stop`; behind that its room is taken.
fn make(path: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<File> {
    static ZEROS: [u8; STEP_BYTES] = [0; STEP_BYTES];
    let file = Disk.create(path)?;
    Disk.allocate(&file, bytes)?;
    let mut at = 0;
    while at < bytes && !stop.load(Ordering::Relaxed) {
        let step = (bytes - at).min(STEP_BYTES as u64);
        file.write_all_at(&ZEROS[..step as usize], at)?;
        file.sync_data()?;
        at += step;
        thread::sleep(PAUSE);
    }
    Ok(file)
}

impl Media for AheadDisk {
    fn make_ahead(&self, path: &Path, bytes: u64) {
        let mut making = self.making.lock();
        if bytes >= BYTES_MIN && making.is_none() {
            // Without a thread the file is made when it is needed.
            *making = AheadDisk::begin(path, bytes).ok();
        }
    }

    fn take_made(&self, path: &Path) -> Option<File> {
        let making = self.making.lock().take_if(|making| making.path == path)?;
        making.end()
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        Disk.create(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        Disk.write_at(file, bytes, offset)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
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

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 3 * STEP_BYTES as u64 + 7;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("room for a test")
    }

    /// Planted bug: write anything but zeros.
    #[test]
    fn whenever_it_is_taken_the_file_has_its_size_and_zeros_only() {
        let dir = folder();
        let path = dir.path().join("made");
        for wait_ms in [0, 1, 2, 5, 200] {
            let disk = AheadDisk::default();
            disk.make_ahead(&path, BYTES);
            thread::sleep(Duration::from_millis(wait_ms));
            assert!(disk.take_made(Path::new("another")).is_none());
            assert!(disk.take_made(&path).is_some(), "after {wait_ms} ms");
            assert!(disk.take_made(&path).is_none(), "it is given once");
            drop(disk);
            let bytes = fs::read(&path).expect("who took it keeps it");
            assert_eq!(bytes.len() as u64, BYTES);
            assert!(bytes.iter().all(|byte| *byte == 0), "after {wait_ms} ms");
        }
    }

    #[test]
    fn what_nobody_takes_is_removed_and_what_cannot_be_made_is_not_there() {
        let dir = folder();
        let path = dir.path().join("made");
        let disk = AheadDisk::default();
        disk.make_ahead(&path, BYTES_MIN - 1);
        assert!(disk.take_made(&path).is_none(), "too small to be worth it");
        disk.make_ahead(&path, BYTES);
        drop(disk);
        assert!(!path.exists());
        let disk = AheadDisk::default();
        disk.make_ahead(&path, u64::MAX >> 1);
        while !disk.making.lock().as_ref().is_none_or(|making| making.thread.is_finished()) {
            thread::yield_now();
        }
        assert!(!path.exists(), "what was taken is given back at once");
        assert!(disk.take_made(&path).is_none(), "no disk has so much room");
        assert!(!path.exists());
    }
}
