//! One process at a time writes in a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::JournalError;

const NAME: &str = "lock";
/// A process number has at most ten digits; anything longer is not ours.
const PID_BYTES_MAX: u64 = 16;

/// The right to write in a folder, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Takes the lock of `dir`, which must exist. Never waits.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if another process, or another part of this one, has it;
    /// [`JournalError::Io`] if the file cannot be made.
    pub fn take(dir: &Path) -> Result<FolderLock, JournalError> {
        let path = dir.join(NAME);
        let io = |action, source| JournalError::io(action, &path, source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(|error| io("open", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(PID_BYTES_MAX).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(JournalError::InUse { path: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", error)),
        }
        // The number is only told to people, so it need not be durable.
        file.set_len(0).map_err(|error| io("write", error))?;
        file.rewind().map_err(|error| io("write", error))?;
        writeln!(file, "{}", std::process::id()).map_err(|error| io("write", error))?;
        Ok(FolderLock { file })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process that is just being started has it too,
        // until it begins its program.
        let _ = self.file.unlock();
    }
}
