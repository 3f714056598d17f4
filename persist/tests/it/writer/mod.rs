//! Rule R8: the rows of a shard are the fold of its events up to the position beside them.

pub(crate) mod clock;
mod export;
mod journal;
pub(crate) mod log;
mod names;
pub(crate) mod reconcile;
mod server;
mod thread;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tmomi_engine::ids::{BuyerId, EntryId, Epoch, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_persist::writer::{
    DeadLetters, House, Names, NamesError, Record, Rows, Sink, SinkError, Source, SourceError,
    SqlSink, Stamp, Status, Writer, WriterConfig, WriterError,
};

use clock::clock;
use log::{Dice, MadeUp, plan};

use crate::databases::{Database, every, sqlite};

/// A log in memory that tests add to.
#[derive(Clone, Default)]
struct Shared {
    records: Arc<Mutex<Vec<Record>>>,
    next: usize,
}

impl Shared {
    fn of(log: &MadeUp) -> Shared {
        Shared { records: Arc::new(Mutex::new(log.records.clone())), next: 0 }
    }

    fn push(&self, records: &[Record]) {
        self.records.lock().unwrap().extend_from_slice(records);
    }
}

impl Source for Shared {
    /// Goes to the record with the event, and so gives some events a second time.
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError> {
        let after = after.seq;
        let records = self.records.lock().unwrap();
        let past = |record: &&Record| record.batch.last_seq() <= Some(after);
        self.next = records.iter().take_while(past).count().saturating_sub(1);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let record = self.records.lock().unwrap().get(self.next).cloned();
        self.next += usize::from(record.is_some());
        Ok(record)
    }
}

/// Showtimes 1 and 2 have a house.
pub(crate) struct TwoHouses(Arc<House>);

impl TwoHouses {
    pub(crate) fn new() -> TwoHouses {
        let plan = plan();
        let layout = Arc::new(Layout::build(plan.spec()).unwrap());
        let prices = vec![("R".into(), 150_000), ("S".into(), 90_000)];
        TwoHouses(Arc::new(House { plan: Arc::new(plan), layout, prices, currency: "KRW".into() }))
    }
}

impl Names for TwoHouses {
    async fn house(&mut self, showtime: ShowtimeId) -> Result<Arc<House>, NamesError> {
        match showtime.0 {
            1 | 2 => Ok(self.0.clone()),
            _ => Err(NamesError::Missing(format!("no showtime {showtime}"))),
        }
    }
}

/// More than any of these tests needs.
const PATIENCE: Duration = Duration::from_secs(60);

type TestWriter<K = SqlSink> = Writer<Shared, K, TwoHouses>;

pub(crate) fn config(events_max: usize) -> WriterConfig {
    WriterConfig { events_max, poll_ms: 1, backoff_ms_min: 1, ..WriterConfig::default() }
}

pub(crate) async fn open(database: &Database) -> SqlSink {
    SqlSink::open(database.place.clone(), 0).await.unwrap()
}

/// An empty database of each kind, with what the rows of a made-up log point to.
pub(crate) async fn databases() -> Vec<Database> {
    let mut all = Vec::new();
    for database in every("sales.db").await {
        all.push(database.with_catalog().await);
    }
    all
}

fn writer<K: Sink>(folder: &Path, events_max: usize, log: &Shared, sink: K) -> TestWriter<K> {
    let dead = DeadLetters::new(folder.join("dead"));
    Writer::new(config(events_max), log.clone(), sink, TwoHouses::new(), dead, clock())
}

/// Polls `future` so often at most and then drops it: a process that dies at that moment.
async fn killed_after<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs the writer until its rows stand for `seq`, or until it leaves.
async fn try_until<S: Source, K: Sink>(
    writer: &mut Writer<S, K, TwoHouses>,
    seq: Seq,
) -> Result<(), WriterError> {
    let state = writer.state();
    let reached = async {
        while state.position() < seq {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = reached => Ok(()),
        error = writer.run() => Err(error),
    }
}

pub(crate) async fn until<S: Source, K: Sink>(writer: &mut Writer<S, K, TwoHouses>, seq: Seq) {
    let reached = tokio::time::timeout(PATIENCE, try_until(writer, seq)).await;
    let state = writer.state();
    reached
        .unwrap_or_else(|_| panic!("the writer gets there in time: {:?}", state.status()))
        .unwrap();
}

/// Why the writer leaves, which it must.
pub(crate) async fn leaves<S: Source, K: Sink>(
    writer: &mut Writer<S, K, TwoHouses>,
) -> WriterError {
    tokio::time::timeout(PATIENCE, writer.run()).await.expect("the writer leaves")
}

/// Position and rows, at one time.
pub(crate) async fn rows(database: &Database) -> (Seq, Vec<String>) {
    let mut all = database
        .ask_text(&[
            "SELECT CAST(sequence AS CHAR) FROM shard_position WHERE shard = 0",
            "SELECT 'entry ' || showtime_id || ' ' || entry || ' ' || COALESCE(user_id, 'null')
             || ' ' || COALESCE(number, 'null') || ' ' || place || ' '
             || COALESCE(session_until, 'null') || ' ' || changed_at || ' ' || epoch || '-'
             || sequence FROM line_entry",
            "SELECT 'hold ' || hold_seq || ' ' || slot || ' ' || showtime_id || ' ' || entry || ' '
             || state || ' ' || seats || ' ' || created_at || ' ' || deadline || ' ' || epoch
             || '-' || sequence FROM hold",
            "SELECT 'order ' || hold_seq || ' ' || slot || ' ' || showtime_id || ' ' || user_id
             || ' ' || state || ' ' || total || ' ' || currency || ' '
             || COALESCE(payment_ref, 'null') || ' ' || COALESCE(confirmed_at, 'null') || ' '
             || COALESCE(refunded_at, 'null') || ' ' || epoch || '-' || sequence
             FROM ticket_order",
            "SELECT 'ticket ' || hold_seq || ' ' || showtime_id || ' ' || seat || ' ' || tier
             || ' ' || price || ' ' || state FROM ticket",
        ])
        .await;
    let position = if all.is_empty() { 0 } else { all.remove(0).parse().unwrap() };
    all.sort_unstable();
    (Seq(position), all)
}

pub(crate) fn assert_same(log: &MadeUp, (position, found): (Seq, Vec<String>)) {
    let expected = log.rows(position);
    if found != expected {
        let wrong: Vec<_> = found.iter().filter(|row| !expected.contains(row)).take(5).collect();
        let lost: Vec<_> = expected.iter().filter(|row| !found.contains(row)).take(5).collect();
        panic!("at {position} there are wrongly {wrong:#?} instead of {lost:#?}");
    }
}

/// R8. Planted bug: commit the position apart. A kill between the two commits shows.
#[tokio::test]
async fn rows_are_the_fold_of_the_events_whatever_is_killed_when() {
    let mut killed = BTreeMap::new();
    for seed in 0..4 {
        for database in databases().await {
            *killed.entry(database.kind).or_insert(0) +=
                killed_again_and_again(&database, seed).await;
        }
    }
    // A poll is a step of the writer or a millisecond: on a slow machine a life has more of them,
    // and a single house may have few lives.
    assert!(killed.values().all(|lives| *lives > 8), "hardly one was killed: {killed:?}");
}

/// Gives how many were killed.
async fn killed_again_and_again(database: &Database, seed: u64) -> u32 {
    let (mut log, mut dice) = (MadeUp::new(), Dice(seed));
    log.grow(&mut dice, 150);
    let shared = Shared::of(&log);
    let mut killed = 0;
    loop {
        let sink = open(database).await;
        let mut writer = writer(database.folder.path(), 40, &shared, sink);
        // More and more, so that a slow database gets somewhere, too.
        let polls = 1 + dice.below(90 + u64::from(killed));
        let life = killed_after(polls, try_until(&mut writer, log.last())).await;
        // The database may finish the commit of a writer that is dead already. The next one then
        // finds that the position has moved.
        let died = matches!(life, None | Some(Ok(()) | Err(WriterError::AnotherWriter(0))));
        assert!(died, "{}: {life:?}", database.kind);
        drop(writer);
        killed += u32::from(life.is_none());
        let found = rows(database).await;
        let done = found.0 == log.last();
        assert_same(&log, found);
        if done {
            return killed;
        }
        assert!(killed < 2_000, "{}: the writer gets nowhere", database.kind);
    }
}

#[tokio::test]
async fn one_large_batch_gives_the_same_rows_as_many_small_ones() {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(99), 600);
    for events_max in [1, 100, 1_000_000] {
        for database in databases().await {
            let sink = open(&database).await;
            let folder = database.folder.path();
            let mut writer = writer(folder, events_max, &Shared::of(&log), sink);
            until(&mut writer, log.last()).await;
            let found = rows(&database).await;
            assert_eq!(found.0, log.last(), "{}", database.kind);
            assert_same(&log, found);
        }
    }
}

/// Rows that are there already, of the same or a later decision, stay; earlier ones are changed.
/// Planted bug: rows are changed whatever their stamp.
#[tokio::test]
async fn a_row_of_a_later_decision_stays_as_it_is() {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(31), 60);
    for database in databases().await {
        let folder = database.folder.path();
        until(&mut writer(folder, 100, &Shared::of(&log), open(&database).await), log.last()).await;
        let whole = rows(&database).await;
        // As if a batch came once more, which the position keeps from happening.
        database.run("UPDATE shard_position SET epoch = 0, sequence = 0").await;
        let (mut earlier, mut dice) = (MadeUp::new(), Dice(31));
        earlier.grow(&mut dice, 30);
        let half = Shared::of(&earlier);
        until(&mut writer(folder, 9, &half, open(&database).await), earlier.last()).await;
        let found = rows(&database).await;
        assert_eq!((found.0, found.1), (earlier.last(), whole.1), "{}", database.kind);
    }
}

#[tokio::test]
async fn a_second_writer_matches_nothing_and_leaves() {
    for database in databases().await {
        let (mut log, mut dice) = (MadeUp::new(), Dice(5));
        log.grow(&mut dice, 20);
        let shared = Shared::of(&log);
        let folder = database.folder.path();
        let mut frozen = writer(folder, 50, &shared, open(&database).await);
        until(&mut frozen, log.last()).await;
        let known = log.records.len();
        log.grow(&mut dice, 20);
        shared.push(&log.records[known..]);
        let mut other = writer(folder, 50, &shared, open(&database).await);
        until(&mut other, log.last()).await;
        assert_eq!(leaves(&mut frozen).await, WriterError::AnotherWriter(0));
        assert_eq!(frozen.state().status(), Status::Failed(WriterError::AnotherWriter(0)));
        let found = rows(&database).await;
        assert_eq!(found.0, log.last(), "{}", database.kind);
        assert_same(&log, found);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_copied_aside_and_stops_the_shard() {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(6), 30);
    let last_good = log.records[19].batch.last_seq().unwrap();
    let bad = last_good.next();
    let unknown_kind = |record: &mut Record| record.batch.events[0][1] |= 0xff << 48;
    let no_showtime = |record: &mut Record| {
        // A confirmation of a showtime that the catalog does not have.
        let confirmed = 13 << 48;
        record.batch.events.truncate(1);
        record.batch.events[0][1] = confirmed;
        record.batch.events[0][2] = 77 << 32;
    };
    let gap = |record: &mut Record| {
        record.batch.events.iter_mut().for_each(|words| words[0] += 1);
    };
    type Spoil<'a> = &'a dyn Fn(&mut Record);
    let spoils: [(Spoil<'_>, Seq); 3] =
        [(&unknown_kind, bad), (&no_showtime, bad), (&gap, bad.next())];
    for (spoil, named) in spoils {
        let database = sqlite("sales.db");
        let folder = database.folder.path();
        let shared = Shared::of(&log);
        spoil(&mut shared.records.lock().unwrap()[20]);
        for _ in 0..2 {
            let sink = open(&database).await;
            let mut writer = writer(folder, 1_000_000, &shared, sink);
            let left = leaves(&mut writer).await;
            assert!(
                matches!(&left, WriterError::Poisoned { shard: 0, seq, .. } if *seq == named),
                "{left}"
            );
            assert_eq!(writer.state().status(), Status::Failed(left));
            let found = rows(&database).await;
            assert_eq!(found.0, last_good, "everything before it is written");
            assert_same(&log, found);
            let letters: Vec<_> = std::fs::read_dir(folder.join("dead")).unwrap().collect();
            assert_eq!(letters.len(), 1);
            let letter = std::fs::read(letters[0].as_ref().unwrap().path()).unwrap();
            assert!(letter.len() >= 64, "the reason and the events");
        }
    }
}

#[tokio::test]
async fn records_of_an_older_reign_change_nothing() {
    let (database, mut dice) = (sqlite("sales.db"), Dice(8));
    let mut log = MadeUp::new();
    log.grow(&mut dice, 200);
    let shared = Shared::of(&log);
    {
        // A node that was overtaken wakes up and writes what would have come next for it.
        let mut records = shared.records.lock().unwrap();
        let places: Vec<usize> =
            (1..records.len()).filter(|n| records[*n].epoch > records[n - 1].epoch).collect();
        assert!(places.len() > 2);
        for place in places.into_iter().rev() {
            let mut zombie = records[place].clone();
            zombie.epoch = Epoch(zombie.epoch.0 - 1);
            zombie.batch.events.iter_mut().for_each(|words| {
                words[0] += log.records[place].batch.events.len() as u64;
            });
            records.insert(place + 1, zombie);
        }
    }
    let mut writer = writer(database.folder.path(), 30, &shared, open(&database).await);
    until(&mut writer, log.last()).await;
    assert_same(&log, rows(&database).await);
}

/// A database that goes away now and then, before or after it has done what was asked.
struct Flaky {
    inner: SqlSink,
    dice: Dice,
}

impl Flaky {
    fn away(&mut self) -> Result<(), SinkError> {
        match self.dice.below(4) {
            0 => Err(SinkError::Away("gone".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Sink for Flaky {
    async fn position(&mut self) -> Result<Stamp, SinkError> {
        self.away()?;
        self.inner.position().await
    }

    async fn buyers(
        &mut self,
        entries: &[(ShowtimeId, EntryId)],
    ) -> Result<Vec<((ShowtimeId, EntryId), BuyerId)>, SinkError> {
        self.away()?;
        self.inner.buyers(entries).await
    }

    async fn write(&mut self, from: Stamp, to: Stamp, rows: &Rows) -> Result<(), SinkError> {
        self.away()?;
        self.inner.write(from, to, rows).await?;
        self.away()
    }
}

#[tokio::test]
async fn a_database_that_comes_and_goes_ends_with_the_same_rows() {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(11), 200);
    for database in databases().await {
        let inner = open(&database).await;
        let sink = Flaky { inner, dice: Dice(12) };
        let mut writer = writer(database.folder.path(), 60, &Shared::of(&log), sink);
        until(&mut writer, log.last()).await;
        assert_same(&log, rows(&database).await);
    }
}

/// A database that cannot be opened at first holds nobody up; one of a newer version, or a file
/// that is none, ends the writer. Planted bugs: the file is opened before the writer runs; garbage
/// counts as away.
#[tokio::test]
async fn a_writer_waits_for_its_file_and_leaves_one_of_a_newer_version_alone() {
    let database = sqlite("sales.db");
    let folder = database.folder.path();
    let path = folder.join("sales.db");
    let mut log = MadeUp::new();
    log.grow(&mut Dice(14), 10);
    let shared = Shared::of(&log);
    std::fs::create_dir(&path).unwrap();
    let sink = SqlSink::at(&path, 0);
    let handle = tmomi_persist::writer::spawn(writer(folder, 60, &shared, sink)).unwrap();
    while !matches!(handle.state().status(), Status::Waiting(_)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::remove_dir(&path).unwrap();
    while handle.state().position() < log.last() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.stop();
    assert_same(&log, rows(&database).await);

    database.run("INSERT INTO _sqlx_migrations VALUES (9999, 'x', 0, 1, x'00', 0)").await;
    let mut writer = writer(folder, 60, &shared, SqlSink::at(&path, 0));
    let left = leaves(&mut writer).await;
    assert!(matches!(&left, WriterError::Unusable(why) if why.contains("9999")), "{left}");
    assert_eq!(writer.state().status(), Status::Failed(left));

    let garbage = folder.join("garbage");
    std::fs::write(&garbage, [b'x'; 10_000]).unwrap();
    let mut writer = self::writer(folder, 60, &shared, SqlSink::at(&garbage, 0));
    let left = leaves(&mut writer).await;
    assert!(matches!(&left, WriterError::Unusable(why) if why.contains("garbage")), "{left}");
}
