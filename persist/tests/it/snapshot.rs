//! Snapshots: what is damaged is named and stops the start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::image::Image;
use tmomi_persist::journal::{Journal, JournalConfig, JournalTail};
use tmomi_persist::log::Log;
use tmomi_persist::recovery::{Recovered, RecoveryError, recover};
use tmomi_persist::snapshot::{Encoded, SnapshotError, SnapshotInfo, Snapshots};

use crate::sale::{Sale, steps};

/// A sale whose journal has a segment every few batches, and snapshots at two of them.
struct Disk {
    dir: TempDir,
    snapshots: Snapshots,
    written: Vec<SnapshotInfo>,
    last: Image,
}

impl Disk {
    fn new() -> Disk {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("snapshots")).expect("a folder");
        let snapshots = Snapshots::local(&dir.path().join("snapshots"), 0).expect("a store");
        let mut disk = Disk { dir, snapshots, written: Vec::new(), last: Image::new() };
        let config = JournalConfig { segment_bytes: 16 << 10, ..JournalConfig::default() };
        let (mut journal, _) = Journal::open(&disk.journal(), config).expect("a new journal");
        let batches = batches();
        for (index, batch) in batches.iter().enumerate() {
            journal.append(Epoch(1), batch).expect("room");
            journal.commit().expect("a disk");
            disk.last.apply(batch).expect("no contradiction");
            if [batches.len() / 3, batches.len() * 2 / 3].contains(&index) {
                disk.snapshot();
            }
        }
        disk
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn snapshot(&mut self) {
        let written = self.snapshots.write(Encoded::of(&self.last)).expect("a disk");
        self.written.push(written);
    }

    fn recover(&self) -> Result<Recovered, RecoveryError> {
        let (_, tail) = Journal::open(&self.journal(), JournalConfig::default())?;
        recover(&self.snapshots, &self.journal(), &tail)
    }

    fn flip(&self, snapshot: &SnapshotInfo, at: usize) {
        flip(Path::new(&snapshot.file), at);
    }
}

/// Always the same.
fn batches() -> &'static [Batch] {
    static BATCHES: LazyLock<Vec<Batch>> = LazyLock::new(|| {
        let mut runner = TestRunner::deterministic();
        let steps = steps(2_000).prop_filter("long", |steps| steps.len() > 800);
        let mut sale = Sale::open();
        sale.run(&steps.new_tree(&mut runner).expect("steps").current());
        sale.batches
    });
    &BATCHES
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it is there");
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).expect("it can be changed");
}

/// R9 for a whole disk.
#[test]
fn recovery_from_any_snapshot_and_from_none_reaches_one_hash() {
    let disk = Disk::new();
    let newest = disk.recover().expect("all is well");
    assert_eq!(newest.snapshot.as_ref(), disk.written.last());
    assert_eq!(newest.image.hash(), disk.last.hash());
    for (kept, file) in [(1, Some(&disk.written[1])), (0, None)] {
        let left = disk.snapshots.keep_newest(kept).expect("a disk");
        assert_eq!(left.first(), file);
        let recovered = disk.recover().expect("the journal has everything");
        assert_eq!(recovered.image.hash(), disk.last.hash());
    }
}

/// R13; planted: the checksum is not looked at.
#[test]
fn a_flipped_bit_anywhere_in_a_snapshot_is_noticed() {
    let disk = Disk::new();
    let snapshot = &disk.written[0];
    let bytes = fs::metadata(&snapshot.file).expect("it is there").len() as usize;
    for at in (0..60).chain((60..bytes).step_by(997)).chain([bytes - 1]) {
        disk.flip(snapshot, at);
        let error = disk.snapshots.read(snapshot).expect_err("a bit is flipped").to_string();
        assert!(error.contains(&snapshot.file), "{error}");
        assert!(error.contains("damaged"), "byte {at}: {error}");
        disk.flip(snapshot, at);
    }
    assert!(disk.snapshots.read(snapshot).is_ok());
    let whole = fs::read(&snapshot.file).expect("it is there");
    for end in [0, 7, 43, 44, 45, bytes - 1] {
        fs::write(&snapshot.file, &whole[..end]).expect("it can be changed");
        assert!(disk.snapshots.read(snapshot).is_err(), "cut at {end}");
    }
}

#[test]
fn a_damaged_snapshot_stops_the_start_until_it_is_taken_away() {
    let disk = Disk::new();
    disk.flip(&disk.written[1], 5_000);
    let error = disk.recover().expect_err("the newest is damaged");
    assert!(error.to_string().contains(&disk.written[1].file), "{error}");
    assert!(matches!(error, RecoveryError::Snapshot(SnapshotError::Damaged { .. })));
    fs::remove_file(&disk.written[1].file).expect("it is there");
    let recovered = disk.recover().expect("the older one and the journal are there");
    assert_eq!(recovered.snapshot.as_ref(), Some(&disk.written[0]));
    assert_eq!(recovered.image.hash(), disk.last.hash());
}

#[test]
fn a_journal_that_ends_before_its_snapshot_stops_the_start() {
    let disk = Disk::new();
    let tail = JournalTail { last: Seq(1), ..JournalTail::default() };
    let error = recover(&disk.snapshots, &disk.journal(), &tail).expect_err("it is another's");
    assert!(matches!(&error, RecoveryError::JournalBehind { last: Seq(1), .. }), "{error}");
    assert!(error.to_string().contains(&disk.written[1].file), "{error}");
}

#[test]
fn a_snapshot_of_another_shard_version_or_event_is_refused() {
    let disk = Disk::new();
    let folder = disk.dir.path().join("snapshots");
    let other = Snapshots::local(&folder, 5).expect("the folder is there");
    let error = other.read(&disk.written[0]).expect_err("it is of shard 0");
    assert!(matches!(error, SnapshotError::Shard { found: 0, expected: 5, .. }));
    fs::copy(&disk.written[1].file, &disk.written[0].file).expect("a disk");
    let error = disk.snapshots.read(&disk.written[0]).expect_err("it has another name");
    assert!(error.to_string().contains("renamed"), "{error}");
    let missing = Snapshots::local(&folder.join("none"), 0).map(|_| ());
    assert!(matches!(missing, Err(SnapshotError::Store { action: "open", .. })));
}
