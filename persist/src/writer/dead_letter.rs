//! Records that cannot become rows, kept for whoever answers the alarm.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use tmomi_engine::ids::Seq;

/// A record that cannot become rows.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// The shard of its log.
    pub shard: u32,
    /// The event, or the one that should have come.
    pub seq: Seq,
    /// What is wrong.
    pub reason: &'a str,
    /// What was found.
    pub bytes: &'a [u8],
}

/// A folder with one file for each record: a line with the reason, then the bytes.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    folder: PathBuf,
}

impl DeadLetters {
    /// Dead letters in `folder`, which is made with the first one.
    pub fn new(folder: PathBuf) -> DeadLetters {
        DeadLetters { folder }
    }

    /// Keeps a letter durably. One that is there already stays as it is, so that a writer which
    /// is started again and again leaves one file.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn keep(&self, letter: &DeadLetter<'_>) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let name = format!("shard-{}-event-{}.dead", letter.shard, letter.seq);
        let path = self.folder.join(name);
        let beside = path.with_extension("part");
        if path.exists() {
            return Ok(());
        }
        let mut file = File::create(&beside)?;
        writeln!(file, "{}", letter.reason.escape_debug())?;
        file.write_all(letter.bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.folder)?.sync_all()
    }
}
