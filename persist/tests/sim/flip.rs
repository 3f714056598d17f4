//! R13: a flipped bit is noticed. Only copies are ruined.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tmomi_engine::ids::Seq;
use tmomi_persist::journal::{Journal, JournalConfig, JournalError, Reader};
use tmomi_persist::snapshot::Snapshots;

use crate::step::Dice;
use crate::truth::Truth;

/// Flips a bit of the journal and one of the newest snapshot.
pub(crate) fn check(journal: &Path, store: &Arc<InMemory>, truth: &Truth, dice: &mut Dice) {
    flip_journal(journal, truth, dice);
    flip_snapshot(store, dice);
}

fn flip_journal(journal: &Path, truth: &Truth, dice: &mut Dice) {
    let parent = journal.parent().expect("a folder of the test");
    let copy = tempfile::tempdir_in(parent).expect("room for a test");
    let mut segments: Vec<PathBuf> = fs::read_dir(journal)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "journal"))
        .collect();
    segments.sort();
    let mut copies = Vec::new();
    for path in &segments {
        let to = copy.path().join(path.file_name().expect("a file"));
        fs::copy(path, &to).expect("room for a test");
        copies.push(to);
    }
    if copies.is_empty() {
        return;
    }
    let path = &copies[dice.below(copies.len() as u64) as usize];
    let bytes = fs::read(path).expect("a segment");
    let Some(end) = bytes.iter().rposition(|byte| *byte != 0) else { return };
    let at = dice.below(end as u64 + 1);
    let byte = bytes[at as usize] ^ 1 << dice.below(8);
    let file = fs::File::options().write(true).open(path).expect("a segment");
    file.write_all_at(&[byte], at).expect("writable");
    let opened = Journal::open(copy.path(), JournalConfig::default());
    if opened.is_ok() {
        drop(opened);
        let what = format!("R13: byte {at} of {}", path.display());
        check_log(copy.path(), truth, truth.applied()).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

/// The journal has the events that were seen, from its first one up to `applied` at least.
pub(crate) fn check_log(dir: &Path, truth: &Truth, applied: Seq) -> Result<(), JournalError> {
    let first = tmomi_persist::journal::verify(dir)?.first.unwrap_or(Seq(1));
    let mut last = Seq(first.0 - 1);
    let mut seen = truth.log.iter().flat_map(|record| &record.batch.events);
    let mut seen = seen.by_ref().skip_while(|words| words[0] < first.0);
    for frame in Reader::open(dir, last)? {
        let frame = frame?;
        for words in &frame.batch.events {
            let Some(before) = seen.next() else { break };
            assert_eq!(before, words, "R6, R13: event {} is another now", before[0]);
        }
        last = frame.batch.last_seq().unwrap_or(last);
    }
    assert!(last >= applied, "R2, R13: the log ends at {last}, and {applied} was told");
    Ok(())
}

fn flip_snapshot(store: &Arc<InMemory>, dice: &mut Dice) {
    let snapshots = Snapshots::new(Arc::clone(store) as _, StorePath::default(), 0);
    let listed = snapshots.list().expect("a store in memory");
    let Some(newest) = listed.first() else { return };
    let objects = store.list(None).try_collect::<Vec<_>>().now_or_never();
    let objects = objects.expect("it does not wait").expect("a store in memory");
    let object = objects.iter().max_by_key(|it| it.location.to_string()).expect("it is there");
    let got = store.get(&object.location).now_or_never().expect("it does not wait");
    let bytes = got.expect("it is there").bytes().now_or_never().expect("it does not wait");
    let mut bytes = bytes.expect("it is there").to_vec();
    let at = dice.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << dice.below(8);
    let ruined = Arc::new(InMemory::new());
    let put = ruined.put(&object.location, PutPayload::from(bytes)).now_or_never();
    put.expect("it does not wait").expect("a store in memory");
    let snapshots = Snapshots::new(ruined, StorePath::default(), 0);
    assert!(snapshots.read(newest).is_err(), "R13: byte {at} of {}", newest.file);
}
