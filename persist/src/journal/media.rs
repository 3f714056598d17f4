//! The few calls by which a journal changes its files, so that tests can cut the power.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How a journal writes. Reading goes to the files themselves.
pub trait Media: Send + Sync {
    /// Makes an empty file to read and write; one of that name loses what it had. The name is not
    /// durable before its folder is synced.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `bytes` at `offset`. Not durable before a sync.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file at least `bytes` long, with the room taken and what is new in it zero.
    ///
    /// # Errors
    ///
    /// What the file system says, no room first of all. What was in the file is untouched.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;

    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn cut(&self, file: &File, bytes: u64) -> io::Result<()>;

    /// Makes the content durable, and of the file's size what reading it back needs.
    ///
    /// # Errors
    ///
    /// What the file system says. The content must then be taken as lost: a later success
    /// would not mean that it was written.
    fn sync_data(&self, file: &File) -> io::Result<()>;

    /// Makes content and size durable.
    ///
    /// # Errors
    ///
    /// As [`sync_data`](Self::sync_data).
    fn sync_all(&self, file: &File) -> io::Result<()>;

    /// Renames a file. The new name is not durable before its folder is synced.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. After a power cut its name may be back unless its folder was synced.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    ///
    /// As [`sync_data`](Self::sync_data).
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// A file of `bytes` zeros at `path` will be needed: it may be made now, beside everything
    /// else. Whoever does not do so gives none in [`take_made`](Self::take_made).
    fn make_ahead(&self, path: &Path, bytes: u64) {
        let _ = (path, bytes);
    }

    /// The file that was made at `path`, if there is one. It has its size and nothing but zeros,
    /// neither of which need be durable.
    fn take_made(&self, path: &Path) -> Option<File> {
        let _ = path;
        None
    }
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Media for Disk {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
            Err(Errno::INTR) => self.allocate(file, bytes),
            other => Ok(other?),
        }
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Whether an error means that there is no room, rather than that something broke.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
}

/// Takes room on a file system that cannot do so by itself.
fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut end = file.metadata()?.len();
    while end < bytes {
        let step = (bytes - end).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], end)?;
        end += step;
    }
    Ok(())
}
