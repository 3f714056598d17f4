//! Rule R8: the rows of a shard are the fold of its events up to the position beside them.

mod journal;
mod log;
mod names;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_persist::writer::{
    DeadLetters, House, Names, NamesError, Record, Rows, Sink, SinkError, Source, SourceError,
    SqliteSink, Stamp, Status, Writer, WriterConfig, WriterError,
};

use log::{Dice, MadeUp, plan};

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
    fn seek(&mut self, after: Seq) -> Result<(), SourceError> {
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
struct TwoHouses(Arc<House>);

impl TwoHouses {
    fn new() -> TwoHouses {
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
const PATIENCE: Duration = Duration::from_secs(20);

type TestWriter<K = SqliteSink> = Writer<Shared, K, TwoHouses>;

fn config(events_max: usize) -> WriterConfig {
    WriterConfig { events_max, poll_ms: 1, backoff_ms_min: 1, ..WriterConfig::default() }
}

async fn open(folder: &Path) -> SqliteSink {
    SqliteSink::open(&folder.join("sales.db"), 0).await.unwrap()
}

fn writer<K: Sink>(folder: &Path, events_max: usize, log: &Shared, sink: K) -> TestWriter<K> {
    let dead = DeadLetters::new(folder.join("dead"));
    Writer::new(config(events_max), log.clone(), sink, TwoHouses::new(), dead)
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

async fn until<S: Source, K: Sink>(writer: &mut Writer<S, K, TwoHouses>, seq: Seq) {
    let reached = tokio::time::timeout(PATIENCE, try_until(writer, seq)).await;
    reached.expect("the writer gets there in time").unwrap();
}

/// Why the writer leaves, which it must.
async fn leaves<S: Source, K: Sink>(writer: &mut Writer<S, K, TwoHouses>) -> WriterError {
    tokio::time::timeout(PATIENCE, writer.run()).await.expect("the writer leaves")
}

/// Position and rows, in one read transaction.
async fn rows(folder: &Path) -> (Seq, Vec<String>) {
    let options = SqliteConnectOptions::new().filename(folder.join("sales.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    let position: Option<i64> =
        sqlx::query_scalar("SELECT sequence FROM shard_position WHERE shard = 0")
            .fetch_optional(&mut *tx)
            .await
            .unwrap();
    let mut all = Vec::new();
    for query in [
        "SELECT 'entry ' || showtime_id || ' ' || entry || ' ' || COALESCE(user_id, 'null') || ' '
         || COALESCE(number, 'null') || ' ' || place || ' ' || COALESCE(session_until, 'null')
         || ' ' || changed_at || ' ' || epoch || '-' || sequence FROM line_entry",
        "SELECT 'hold ' || hold_seq || ' ' || slot || ' ' || showtime_id || ' ' || entry || ' '
         || state || ' ' || seats || ' ' || created_at || ' ' || deadline || ' ' || epoch || '-'
         || sequence FROM hold",
        "SELECT 'order ' || hold_seq || ' ' || slot || ' ' || showtime_id || ' ' || user_id || ' '
         || state || ' ' || total || ' ' || currency || ' ' || COALESCE(payment_ref, 'null')
         || ' ' || COALESCE(confirmed_at, 'null') || ' ' || COALESCE(refunded_at, 'null') || ' '
         || epoch || '-' || sequence FROM ticket_order",
        "SELECT 'ticket ' || hold_seq || ' ' || showtime_id || ' ' || seat || ' ' || tier || ' '
         || price || ' ' || state FROM ticket",
    ] {
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *tx).await.unwrap();
        all.extend(rows);
    }
    all.sort_unstable();
    (Seq(position.unwrap_or(0) as u64), all)
}

fn assert_same(log: &MadeUp, (position, found): (Seq, Vec<String>)) {
    let expected = log.rows(position);
    if found != expected {
        let wrong: Vec<_> = found.iter().filter(|row| !expected.contains(row)).take(5).collect();
        let lost: Vec<_> = expected.iter().filter(|row| !found.contains(row)).take(5).collect();
        panic!("at {position} there are wrongly {wrong:#?} instead of {lost:#?}");
    }
}

#[tokio::test]
async fn rows_are_the_fold_of_the_events_whatever_is_killed_when() {
    for seed in 0..4 {
        let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice(seed));
        let mut log = MadeUp::new();
        log.grow(&mut dice, 150);
        let shared = Shared::of(&log);
        let mut lives = 0;
        loop {
            // Planted bug: commit the position apart. A kill between the two commits shows.
            let sink = killed_after(400, open(folder.path())).await.unwrap();
            let mut writer = writer(folder.path(), 40, &shared, sink);
            let polls = 1 + dice.below(90);
            let life = killed_after(polls, try_until(&mut writer, log.last())).await;
            // SQLite has a thread of its own, which may finish the commit of a writer that is
            // dead already. The next one then finds that the position has moved.
            let died = matches!(life, None | Some(Ok(()) | Err(WriterError::AnotherWriter(0))));
            assert!(died, "{life:?}");
            drop(writer);
            lives += 1;
            let found = rows(folder.path()).await;
            let done = found.0 == log.last();
            assert_same(&log, found);
            if done {
                break;
            }
            assert!(lives < 2_000, "the writer gets nowhere");
        }
        assert!(lives > 5, "only {lives} lives, so nothing was killed");
    }
}

#[tokio::test]
async fn one_large_batch_gives_the_same_rows_as_many_small_ones() {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(99), 600);
    for events_max in [1, 100, 1_000_000] {
        let folder = tempfile::tempdir().unwrap();
        let sink = open(folder.path()).await;
        let mut writer = writer(folder.path(), events_max, &Shared::of(&log), sink);
        until(&mut writer, log.last()).await;
        let found = rows(folder.path()).await;
        assert_eq!(found.0, log.last());
        assert_same(&log, found);
    }
}

#[tokio::test]
async fn a_second_writer_matches_nothing_and_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut dice) = (MadeUp::new(), Dice(5));
    log.grow(&mut dice, 20);
    let shared = Shared::of(&log);
    let mut frozen = writer(folder.path(), 50, &shared, open(folder.path()).await);
    until(&mut frozen, log.last()).await;
    let known = log.records.len();
    log.grow(&mut dice, 20);
    shared.push(&log.records[known..]);
    let mut other = writer(folder.path(), 50, &shared, open(folder.path()).await);
    until(&mut other, log.last()).await;
    assert_eq!(leaves(&mut frozen).await, WriterError::AnotherWriter(0));
    assert_eq!(frozen.state().status(), Status::Failed(WriterError::AnotherWriter(0)));
    let found = rows(folder.path()).await;
    assert_eq!(found.0, log.last());
    assert_same(&log, found);
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
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::of(&log);
        spoil(&mut shared.records.lock().unwrap()[20]);
        for _ in 0..2 {
            let sink = open(folder.path()).await;
            let mut writer = writer(folder.path(), 1_000_000, &shared, sink);
            let left = leaves(&mut writer).await;
            assert!(
                matches!(&left, WriterError::Poisoned { shard: 0, seq, .. } if *seq == named),
                "{left}"
            );
            assert_eq!(writer.state().status(), Status::Failed(left));
            let found = rows(folder.path()).await;
            assert_eq!(found.0, last_good, "everything before it is written");
            assert_same(&log, found);
            let letters: Vec<_> = std::fs::read_dir(folder.path().join("dead")).unwrap().collect();
            assert_eq!(letters.len(), 1);
            let letter = std::fs::read(letters[0].as_ref().unwrap().path()).unwrap();
            assert!(letter.len() >= 64, "the reason and the events");
        }
    }
}

#[tokio::test]
async fn records_of_an_older_reign_change_nothing() {
    let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice(8));
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
    let mut writer = writer(folder.path(), 30, &shared, open(folder.path()).await);
    until(&mut writer, log.last()).await;
    assert_same(&log, rows(folder.path()).await);
}

/// A database that goes away now and then, before or after it has done what was asked.
struct Flaky {
    inner: SqliteSink,
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
    let folder = tempfile::tempdir().unwrap();
    let mut log = MadeUp::new();
    log.grow(&mut Dice(11), 200);
    let inner = open(folder.path()).await;
    let sink = Flaky { inner, dice: Dice(12) };
    let mut writer = writer(folder.path(), 60, &Shared::of(&log), sink);
    until(&mut writer, log.last()).await;
    assert_same(&log, rows(folder.path()).await);
}

#[tokio::test]
async fn a_writer_on_its_thread_follows_and_stops() {
    let (folder, mut dice) = (tempfile::tempdir().unwrap(), Dice(13));
    let mut log = MadeUp::new();
    log.grow(&mut dice, 10);
    let shared = Shared::of(&log);
    let sink = open(folder.path()).await;
    let handle = tmomi_persist::writer::spawn(writer(folder.path(), 60, &shared, sink)).unwrap();
    let reach = async |seq| {
        while handle.state().position() < seq {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    reach(log.last()).await;
    let known = log.records.len();
    log.grow(&mut dice, 10);
    shared.push(&log.records[known..]);
    reach(log.last()).await;
    assert_eq!(handle.state().status(), Status::Running);
    let state = handle.state().clone();
    handle.stop();
    assert_eq!(state.status(), Status::Stopped);
    assert!(state.rows() > 0);
    assert_same(&log, rows(folder.path()).await);
}

/// A database that is away or not one at first holds nobody up, and one of a newer version ends
/// the writer. Planted bug: the file is opened before the writer runs.
#[tokio::test]
async fn a_writer_waits_for_its_file_and_leaves_one_of_a_newer_version_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sales.db");
    let mut log = MadeUp::new();
    log.grow(&mut Dice(14), 10);
    let shared = Shared::of(&log);
    std::fs::write(&path, [b'x'; 10_000]).unwrap();
    let sink = SqliteSink::at(&path, 0);
    let handle = tmomi_persist::writer::spawn(writer(folder.path(), 60, &shared, sink)).unwrap();
    while !matches!(handle.state().status(), Status::Waiting(_)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::remove_file(&path).unwrap();
    while handle.state().position() < log.last() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.stop();
    assert_same(&log, rows(folder.path()).await);

    let options = SqliteConnectOptions::new().filename(&path);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'x', 0, 1, x'00', 0)";
    sqlx::query(newer).execute(&mut conn).await.unwrap();
    let mut writer = writer(folder.path(), 60, &shared, SqliteSink::at(&path, 0));
    let left = leaves(&mut writer).await;
    assert!(matches!(&left, WriterError::Unusable(why) if why.contains("9999")), "{left}");
    assert_eq!(writer.state().status(), Status::Failed(left));
}

/// Planted bug: the state stays as it was before.
#[tokio::test]
async fn a_writer_that_panicked_is_not_at_work() {
    struct Broken;
    impl Source for Broken {
        fn seek(&mut self, _: Seq) -> Result<(), SourceError> {
            panic!("a bug");
        }
        fn next(&mut self) -> Result<Option<Record>, SourceError> {
            Ok(None)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (sink, dead) = (open(folder.path()).await, DeadLetters::new(folder.path().join("dead")));
    let writer = Writer::new(config(60), Broken, sink, TwoHouses::new(), dead);
    let state = writer.state();
    let handle = tmomi_persist::writer::spawn(writer).unwrap();
    let ended = async {
        while state.status() == Status::Running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it is not at work");
    handle.stop();
    assert_eq!(state.status(), Status::Failed(WriterError::Panicked));
}
