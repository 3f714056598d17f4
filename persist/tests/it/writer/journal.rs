//! The writer behind a real journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::log::Log;
use tmomi_persist::writer::{
    DeadLetters, JournalSource, JournalTail, Record, Source, SourceError, SqlSink, Stamp, Writer,
    WriterError,
};

use super::log::{Dice, MadeUp};
use super::{TwoHouses, assert_same, clock, config, leaves, open, rows, until};
use crate::databases::{Database, sqlite};

const CONFIG: JournalConfig = JournalConfig { shard: 0, segment_bytes: 64 << 10 };

fn append(journal: &mut Journal, records: &[Record]) {
    for record in records {
        journal.append(record.epoch, &record.batch).unwrap();
        journal.commit().unwrap();
    }
}

async fn follower(
    database: &Database,
    committed: &Arc<AtomicU64>,
    written: &Arc<AtomicU64>,
) -> Writer<JournalSource, SqlSink, TwoHouses> {
    let (committed, written) = (committed.clone(), written.clone());
    let committed = move || Seq(committed.load(Ordering::SeqCst));
    let folder = database.folder.path();
    let source = JournalSource::new(folder.join("journal"), 0, committed)
        .on_written(move |seq| written.store(seq.0, Ordering::SeqCst));
    let dead = DeadLetters::new(folder.join("dead"));
    Writer::new(config(100), source, open(database).await, TwoHouses::new(), dead, clock())
}

#[tokio::test]
async fn a_writer_follows_a_journal_and_goes_on_where_it_was() {
    let (database, mut dice) = (sqlite("sales.db"), Dice(21));
    let dir = database.folder.path().join("journal");
    let (mut journal, _) = Journal::open(&dir, CONFIG).unwrap();
    let (mut log, committed) = (MadeUp::new(), Arc::new(AtomicU64::new(0)));
    let written = Arc::default();
    for _ in 0..3 {
        let mut writer = follower(&database, &committed, &written).await;
        for _ in 0..2 {
            let known = log.records.len();
            log.grow(&mut dice, 40);
            append(&mut journal, &log.records[known..]);
            // What is written but not committed yet is not there.
            committed.store(log.records[known + 9].batch.last_seq().unwrap().0, Ordering::SeqCst);
            until(&mut writer, Seq(committed.load(Ordering::SeqCst))).await;
            let found = rows(&database).await;
            assert_eq!(found.0, Seq(committed.load(Ordering::SeqCst)));
            assert_same(&log, found);
            committed.store(log.last().0, Ordering::SeqCst);
            until(&mut writer, log.last()).await;
        }
        assert_same(&log, rows(&database).await);
        // Segments that the rows have passed may go.
        assert_eq!(Seq(written.load(Ordering::SeqCst)), log.last());
        tmomi_persist::journal::retain_from(&dir, log.last()).unwrap();
    }
}

#[tokio::test]
async fn rows_of_another_journal_and_a_journal_cut_in_front_are_noticed() {
    let database = sqlite("sales.db");
    let dir = database.folder.path().join("journal");
    let (mut journal, _) = Journal::open(&dir, CONFIG).unwrap();
    let mut log = MadeUp::new();
    log.grow(&mut Dice(22), 300);
    append(&mut journal, &log.records);
    let (committed, written) = (Arc::new(AtomicU64::new(log.last().0)), Arc::default());
    tmomi_persist::journal::retain_from(&dir, log.last()).unwrap();
    let mut writer = follower(&database, &committed, &written).await;
    let left = leaves(&mut writer).await;
    assert!(matches!(&left, WriterError::Poisoned { seq: Seq(1), .. }), "{left}");
    assert!(left.to_string().contains("is needed"), "{left}");

    let database = sqlite("sales.db");
    let (mut journal, _) = Journal::open(&database.folder.path().join("journal"), CONFIG).unwrap();
    append(&mut journal, &log.records);
    until(&mut follower(&database, &committed, &written).await, log.last()).await;
    committed.store(5, Ordering::SeqCst);
    let left = leaves(&mut follower(&database, &committed, &written).await).await;
    assert!(matches!(&left, WriterError::Poisoned { .. }), "{left}");
    assert!(left.to_string().contains("ends at 5"), "{left}");
}

/// Planted bugs: the last frame waits until another is behind it; rows beyond the journal are taken
/// for its own; only the number of the last row is looked for. (That the last frame is synced
/// before it is given no test sees: the page cache outlives a killed process.)
#[tokio::test]
async fn the_journal_of_another_process_is_followed_to_its_last_frame() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut dice) = (MadeUp::new(), Dice(23));
    log.grow(&mut dice, 200);
    let (mut journal, _) = Journal::open(folder.path(), CONFIG).unwrap();
    let mut tail = JournalTail::new(folder.path().to_owned(), 0);
    tail.seek(Stamp::default()).unwrap();
    for records in log.records.chunks(7) {
        append(&mut journal, records);
        for record in records {
            assert_eq!(tail.next().unwrap().as_ref(), Some(record));
        }
        assert!(tail.next().unwrap().is_none());
    }
    // Another one goes on in the middle, over the ends of segments.
    let (epoch, seq) = (log.records[99].epoch, log.records[99].batch.last_seq().unwrap());
    let middle = Stamp { epoch, seq };
    let mut other = JournalTail::new(folder.path().to_owned(), 0);
    other.seek(middle).unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| other.next().unwrap()).collect();
    assert_eq!(rest, log.records[100..]);
    // Beyond the end, or of another log that has the same number.
    for (epoch, seq) in [(epoch, log.last().next()), (Epoch(epoch.0 + 1), seq)] {
        let wrong = other.seek(Stamp { epoch, seq });
        assert!(matches!(wrong, Err(SourceError::Unreadable { .. })), "{wrong:?}");
        let last = log.last();
        let mut of_server = JournalSource::new(folder.path().to_owned(), 0, move || last);
        let wrong = of_server.seek(Stamp { epoch, seq });
        assert!(matches!(wrong, Err(SourceError::Unreadable { .. })), "{wrong:?}");
    }
}
