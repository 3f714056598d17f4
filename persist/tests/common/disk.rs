//! A disk whose cache is lost with the power, for the journal.
//!
//! The files of the folder are what a process sees, as on a real system. Beside them stands what
//! the disk has for certain: each file's durable content and name, and what was changed since. A
//! process that is killed leaves all as it is, so the next one sees what no sync has covered. When
//! the power fails, of the changes that no sync has covered any may have reached the disk and any
//! not: a write by sectors, each name and each size by itself.
//!
//! After a failed sync the pages are clean and were never written, as on Linux: what was to be
//! written can still be read, and no later sync covers it unless it is written again.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use tmomi_persist::journal::{Disk, Media};

const SECTOR_BYTES: u64 = 512;

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Cache(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<OnDisk>,
    calls: usize,
    /// From this call on the power is off.
    dead_from: Option<usize>,
    /// The sync with this number fails, once.
    bad_sync: Option<usize>,
    syncs: usize,
    full: bool,
    /// Whether files are made ahead, and the one that is.
    makes_ahead: bool,
    made: Option<(PathBuf, File)>,
}

/// A file, as the disk has it.
struct OnDisk {
    /// Keeps the inode, and with it its number, as long as the disk may have it.
    file: File,
    inode: u64,
    content: Vec<u8>,
    name: Option<PathBuf>,
    changes: Vec<Change>,
    /// What the name became since, in order; `None`: it was removed.
    names: Vec<Option<PathBuf>>,
}

enum Change {
    /// The content itself is read from the file.
    Write {
        offset: u64,
        bytes: Vec<u8>,
        /// A sync of it has failed.
        given_up: bool,
    },
    Allocate(u64),
    Cut(u64),
}

impl Cache {
    /// A disk whose power fails after so many calls.
    pub(crate) fn dying_at(call: usize) -> Cache {
        let cache = Cache::default();
        cache.state().dead_from = Some(call);
        cache
    }

    /// The power fails after so many further calls.
    pub(crate) fn die_after(&self, calls: usize) {
        let mut state = self.state();
        state.dead_from = Some(state.calls + calls);
    }

    /// Whether the power has failed.
    pub(crate) fn is_dead(&self) -> bool {
        let state = self.state();
        state.dead_from.is_some_and(|dead_from| state.calls > dead_from)
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Syncs of files so far.
    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// The sync of a file with this number fails.
    pub(crate) fn fail_sync(&self, number: usize) {
        self.state().bad_sync = Some(number);
    }

    /// Whether a sync has failed since there were so many.
    pub(crate) fn has_failed_sync_since(&self, syncs: usize) -> bool {
        let state = self.state();
        state.bad_sync.is_some_and(|bad| syncs < bad && bad <= state.syncs)
    }

    /// Calls are taken again.
    pub(crate) fn revive(&self) {
        self.state().dead_from = None;
    }

    /// Nothing fails from here on, unless it is asked for again.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.dead_from, state.bad_sync, state.full) = (None, None, false);
    }

    /// Whether there is no room for anything new.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether files are made before they are needed.
    pub(crate) fn set_makes_ahead(&self, makes_ahead: bool) {
        self.state().makes_ahead = makes_ahead;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics within")
    }

    /// Ends the power. Of what was not synced, what `keeps` picks reached the
    /// disk.
    pub(crate) fn cut_power(&self, mut keeps: impl FnMut() -> bool) {
        let mut state = self.state();
        let (changed, kept) = std::mem::take(&mut state.files)
            .into_iter()
            .partition(|file| !file.changes.is_empty() || !file.names.is_empty());
        state.files = kept;
        let changed: Vec<OnDisk> = changed;
        let mut left = Vec::new();
        for file in &changed {
            let seen = file.names.last().unwrap_or(&file.name);
            let mut name = &file.name;
            for later in &file.names {
                name = if keeps() { later } else { name };
            }
            left.push((name.clone(), file.after_power_cut(&mut keeps)));
            seen.iter().for_each(|seen| fs::remove_file(seen).expect("a process saw it"));
        }
        for (name, content) in left {
            name.iter().for_each(|name| fs::write(name, &content).expect("the real disk works"));
        }
    }
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.dead_from.is_some_and(|dead_from| self.calls > dead_from) {
            true => Err(Errno::IO.into()),
            false => Ok(()),
        }
    }

    fn room(&self) -> io::Result<()> {
        if self.full { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// The file of a handle; one that was there before this disk is durable.
    fn file(&mut self, file: &File) -> io::Result<&mut OnDisk> {
        let inode = file.metadata()?.ino();
        let known = self.files.iter().position(|known| known.inode == inode);
        let index = known.map_or_else(
            || {
                let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
                self.files.push(OnDisk::durable(file, Some(name))?);
                Ok::<_, io::Error>(self.files.len() - 1)
            },
            Ok,
        )?;
        Ok(&mut self.files[index])
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.call()?;
        self.syncs += 1;
        let fails = self.bad_sync == Some(self.syncs);
        let on_disk = self.file(file)?;
        if fails {
            on_disk.give_up();
            return Err(Errno::IO.into());
        }
        on_disk.sync()
    }
}

impl OnDisk {
    fn durable(file: &File, name: Option<PathBuf>) -> io::Result<OnDisk> {
        let inode = file.metadata()?.ino();
        let (content, file) = (seen(file)?, file.try_clone()?);
        Ok(OnDisk { file, inode, content, name, changes: Vec::new(), names: Vec::new() })
    }

    /// What is dirty reaches the disk.
    fn sync(&mut self) -> io::Result<()> {
        let seen = seen(&self.file)?;
        self.content.resize(seen.len(), 0);
        let mut given_up = Vec::new();
        for change in self.changes.drain(..) {
            match change {
                Change::Write { given_up: true, .. } => given_up.push(change),
                Change::Write { offset, bytes, .. } => {
                    // A sector is written as it is seen, with what a failed sync left in it.
                    let from = (offset / SECTOR_BYTES * SECTOR_BYTES) as usize;
                    let end = (offset + bytes.len() as u64).next_multiple_of(SECTOR_BYTES);
                    let end = (end as usize).min(seen.len());
                    self.content[from..end].copy_from_slice(&seen[from..end]);
                }
                Change::Allocate(_) => {}
                Change::Cut(bytes) => {
                    let from = (bytes as usize).min(seen.len());
                    self.content[from..].copy_from_slice(&seen[from..]);
                }
            }
        }
        given_up.retain(|change| !change.is_in(&self.content));
        self.changes = given_up;
        Ok(())
    }

    fn give_up(&mut self) {
        for change in &mut self.changes {
            if let Change::Write { given_up, .. } = change {
                *given_up = true;
            }
        }
    }

    fn after_power_cut(&self, keeps: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.content.clone();
        for change in &self.changes {
            match change {
                Change::Write { offset, bytes, .. } => {
                    let (mut at, end) = (*offset, offset + bytes.len() as u64);
                    while at < end {
                        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                        let part = &bytes[(at - offset) as usize..(next - offset) as usize];
                        if next <= content.len() as u64 && keeps() {
                            content[at as usize..next as usize].copy_from_slice(part);
                        }
                        at = next;
                    }
                }
                Change::Allocate(bytes) if keeps() => {
                    let bytes = content.len().max(*bytes as usize);
                    content.resize(bytes, 0);
                }
                Change::Cut(bytes) if keeps() => content.truncate(*bytes as usize),
                _ => {}
            }
        }
        content
    }
}

impl Change {
    /// Whether the content has it already.
    fn is_in(&self, content: &[u8]) -> bool {
        let Change::Write { offset, bytes, .. } = self else { return false };
        let at = *offset as usize;
        content.get(at..at + bytes.len()).is_none_or(|there| there == bytes)
    }
}

/// What a process sees of a file.
fn seen(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Media for Cache {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.state();
        state.call()?;
        let file = Disk.create(path)?;
        let mut on_disk = OnDisk::durable(&file, None)?;
        on_disk.names.push(Some(path.to_owned()));
        state.files.push(on_disk);
        Ok(file)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        let change = Change::Write { offset, bytes: bytes.to_vec(), given_up: false };
        state.file(file)?.changes.push(change);
        Disk.write_at(file, bytes, offset)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.room()?;
        state.file(file)?.changes.push(Change::Allocate(bytes));
        Disk.allocate(file, bytes)
    }

    fn cut(&self, file: &File, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.file(file)?.changes.push(Change::Cut(bytes));
        Disk.cut(file, bytes)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.state().sync(file)
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.state().sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.room()?;
        let file = File::open(from)?;
        state.file(&file)?.names.push(Some(to.to_owned()));
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        // What a process left it removes, and is not given it then.
        state.made.take_if(|(made, _)| made == path);
        let file = File::open(path)?;
        state.file(&file)?.names.push(None);
        Disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        for file in &mut state.files {
            debug_assert!(file.names.iter().flatten().all(|name| name.parent() == Some(dir)));
            file.name = file.names.drain(..).next_back().unwrap_or(file.name.take());
        }
        state.files.retain(|file| file.name.is_some());
        Disk.sync_dir(dir)
    }

    /// Nothing of the file is durable: it is taken when its zeros are still on their way.
    fn make_ahead(&self, path: &Path, bytes: u64) {
        if !self.state().makes_ahead {
            return;
        }
        let made = self.create(path).and_then(|file| {
            self.allocate(&file, bytes)?;
            self.write_at(&file, &vec![0; bytes as usize], 0)?;
            Ok(file)
        });
        if made.is_err() {
            // As if it had never been begun: there is no room, or no power.
            let _ = self.remove(path);
        }
        self.state().made = made.ok().map(|file| (path.to_owned(), file));
    }

    fn take_made(&self, path: &Path) -> Option<File> {
        let made = self.state().made.take_if(|(made, _)| made == path);
        made.map(|(_, file)| file)
    }
}
