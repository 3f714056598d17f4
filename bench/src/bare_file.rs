//! Files that are written without a journal, to compare with.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tmomi_persist::journal::{Disk, Media};

/// Bytes of a file, as many as a segment of the journal has.
pub const FILE_BYTES: u64 = 64 << 20;

/// What was done to the room of a file before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It was written: a sync has the bytes to write and nothing else.
    Written,
    /// It was only taken, as the journal takes it: the file system notes with each sync which
    /// blocks are written by now.
    Taken,
}

/// A file that one appends to, byte behind byte, and syncs.
pub struct BareFile {
    file: File,
    room: Room,
    at: u64,
}

impl BareFile {
    /// A file in `dir`, ready to be written.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn new(dir: &Path, room: Room) -> io::Result<BareFile> {
        let path = dir.join(format!("bare-{room:?}"));
        let file = File::options().create(true).truncate(true).write(true).open(path)?;
        let mut bare = BareFile { file, room, at: 0 };
        bare.make_room()?;
        if room == Room::Written {
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                bare.file.write_all_at(&zeros, at)?;
            }
        }
        bare.file.sync_all()?;
        Ok(bare)
    }

    /// Appends and syncs. A full file begins again, with room as it was at first.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at + bytes.len() as u64 > FILE_BYTES {
            self.at = 0;
            self.make_room()?;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.file.sync_data()?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.room == Room::Written {
            return Ok(());
        }
        Disk.cut(&self.file, 0)?;
        Disk.allocate(&self.file, FILE_BYTES)?;
        Disk.sync_all(&self.file)
    }
}
