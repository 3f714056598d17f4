//! The stream: what the journal has, the topic gets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tmomi_engine::ids::Seq;
use tmomi_persist::journal::{Journal, JournalConfig, retain_from};
use tmomi_persist::kafka::{
    KafkaConfig, PublishedSample, Publisher, PublisherConfig, PublisherStatus,
};
use tmomi_persist::log::Log;
use tmomi_persist::writer::Record;

use super::{
    Pen, RealClock, delete, events, make, produce, soon, together, topic, topic_at, values,
};
use crate::servers::{Kind, Own};
use crate::shard::until;
use crate::writer::log::{Dice, MadeUp};

const CONFIG: JournalConfig = JournalConfig { shard: 0, segment_bytes: 64 << 10 };

/// A journal that grows, and what is known of it.
pub(super) struct Sales {
    folder: TempDir,
    pub(super) journal: Journal,
    pub(super) log: MadeUp,
    dice: Dice,
    pub(super) committed: Arc<AtomicU64>,
    needed: Arc<AtomicU64>,
    samples: Arc<Mutex<Vec<PublishedSample>>>,
}

impl Sales {
    pub(super) fn begin(seed: u64) -> Sales {
        let folder = tempfile::tempdir().expect("a folder");
        let (journal, _) = Journal::open(&folder.path().join("journal"), CONFIG).expect("empty");
        let (committed, needed, samples) = Default::default();
        let (log, dice) = (MadeUp::new(), Dice(seed));
        Sales { folder, journal, log, dice, committed, needed, samples }
    }

    fn journal_dir(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(super) fn sell(&mut self, records: usize) {
        let known = self.log.records.len();
        self.log.grow(&mut self.dice, records);
        append(&mut self.journal, &self.log.records[known..]);
        self.committed.store(self.log.last().0, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, kafka: &KafkaConfig) -> Publisher {
        let (committed, needed) = (Arc::clone(&self.committed), Arc::clone(&self.needed));
        let samples = Arc::clone(&self.samples);
        let config = PublisherConfig {
            kafka: kafka.clone(),
            shard: 0,
            journal: self.journal_dir(),
            committed: Box::new(move || Seq(committed.load(Ordering::SeqCst))),
            needed: Box::new(move |seq| needed.store(seq.0, Ordering::SeqCst)),
            hook: Box::new(move |sample| samples.lock().expect("whole").push(*sample)),
            clock: RealClock::start(),
        };
        Publisher::spawn(config).expect("a thread")
    }

    /// Waits until the topic has everything.
    pub(super) fn caught_up(&self, publisher: &Publisher) {
        let state = publisher.state();
        until("all is published", || {
            let status = state.status();
            assert!(!matches!(status, PublisherStatus::Failed(_)), "{status:?}");
            state.published() == self.log.last()
        });
    }
}

fn append(journal: &mut Journal, records: &[Record]) {
    for record in records {
        journal.append(record.epoch, &record.batch).expect("a disk");
        journal.commit().expect("a disk");
    }
}

/// Why the publisher leaves, which it must.
pub(super) fn failure(publisher: &Publisher) -> String {
    let failed = || match publisher.state().status() {
        PublisherStatus::Failed(why) => Some(why),
        _ => None,
    };
    until("the publisher leaves", || failed().is_some());
    failed().expect("it stays so")
}

/// R2, R6; planted: the publisher goes on where it knows that it was instead of where the topic
/// ends.
#[test]
fn everything_is_published_in_order_whoever_dies_when() {
    let (mut sales, kafka) = (Sales::begin(31), topic("stream"));
    for _ in 0..12 {
        sales.sell(60);
        let publisher = sales.publish(&kafka);
        sales.sell(60);
        // It may not even have asked where the topic ends, or be done.
        std::thread::sleep(Duration::from_millis(sales.dice.below(250)));
        drop(publisher);
    }
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    assert_eq!(publisher.state().status(), PublisherStatus::Running);
    let (found, repeated) = events(&kafka);
    assert!(found == together(&sales.log.records), "the topic has what the journal has");
    assert!(repeated < 12 * 20, "{repeated} records came twice");
    // What is published the journal need not keep.
    let needed = Seq(sales.needed.load(Ordering::SeqCst));
    let last_record = &sales.log.records.last().expect("some").batch;
    assert_eq!(Some(needed), last_record.first_seq());
    let samples = sales.samples.lock().expect("whole");
    assert!(samples.iter().all(|sample| sample.took_ns > 0 && sample.bytes > 64 * sample.events));
    publisher.stop();
}

/// R2; planted: what is written and not committed is published.
#[test]
fn nothing_is_published_before_it_is_committed() {
    let (mut sales, kafka) = (Sales::begin(32), topic("committed"));
    sales.sell(50);
    let (last, tenth) = (sales.log.last(), sales.log.records[9].batch.last_seq());
    sales.committed.store(tenth.expect("events").0, Ordering::SeqCst);
    let publisher = sales.publish(&kafka);
    until("ten are published", || Some(publisher.state().published()) == tenth);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(values(&kafka).len(), 10);
    sales.committed.store(last.0, Ordering::SeqCst);
    sales.caught_up(&publisher);
}

/// R12: sales go on while Kafka is away, and what was sold is published in order when it is back.
#[test]
fn a_broker_that_is_killed_or_frozen_is_waited_for() {
    let mut own = Own::start(Kind::Kafka);
    let (mut sales, kafka) = (Sales::begin(33), topic_at(own.address(), "killed"));
    sales.sell(100);
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    for round in 0..2 {
        // Some of it is on its way when the broker dies.
        sales.sell(300);
        own.kill();
        sales.sell(300);
        let state = publisher.state();
        until("it says that it waits", || matches!(state.status(), PublisherStatus::Waiting(_)));
        assert!(state.published() < sales.log.last());
        own.restart();
        sales.caught_up(&publisher);
        until("it says that it goes on", || state.status() == PublisherStatus::Running);
        sales.sell(50);
        own.pause();
        sales.sell(50);
        std::thread::sleep(Duration::from_millis(300 * round));
        own.resume();
        sales.caught_up(&publisher);
    }
    publisher.stop();
    let (found, _) = events(&kafka);
    assert!(found == together(&sales.log.records), "the topic has what the journal has");
    // A broker that is away holds up neither the start nor the end.
    own.kill();
    let publisher = sales.publish(&kafka);
    std::thread::sleep(Duration::from_millis(100));
    soon(move || publisher.stop());
}

/// R13; planted: the publisher does not compare the last record with the journal.
#[test]
fn a_topic_of_another_journal_is_refused() {
    let (mut sales, mut others) = (Sales::begin(34), Sales::begin(35));
    let kafka = topic("foreign");
    others.sell(20);
    let publisher = others.publish(&kafka);
    others.caught_up(&publisher);
    drop(publisher);
    let before = values(&kafka).len();
    // Longer than the other, and shorter.
    for _ in 0..2 {
        let why = failure(&sales.publish(&kafka));
        assert!(why.contains("another log") && why.contains(&kafka.topic), "{why}");
        sales.sell(60);
    }
    assert_eq!(values(&kafka).len(), before, "nothing was added");
}

#[test]
fn a_topic_that_is_deleted_or_made_anew_is_noticed() {
    let (mut sales, kafka) = (Sales::begin(36), topic("recreated"));
    sales.sell(50);
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    delete(&kafka);
    sales.sell(10);
    // Long enough for a producer that does not know yet.
    std::thread::sleep(Duration::from_millis(500));
    until("the topic is gone", || std::panic::catch_unwind(|| make(&kafka, 1, &[])).is_ok());
    let why = failure(&publisher);
    assert!(why.contains("recreated"), "{why}");
    drop(publisher);
    // What a producer wrote before it knew is no beginning.
    delete(&kafka);
    std::thread::sleep(Duration::from_secs(1));
    // Somebody has looked and starts it again: all of it is published.
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    assert!(events(&kafka).0 == together(&sales.log.records));
}

#[test]
fn garbage_at_the_end_of_the_topic_stops_the_publisher() {
    let (mut sales, kafka) = (Sales::begin(37), topic("garbage"));
    sales.sell(5);
    make(&kafka, 1, &[]);
    let mut frames = Pen::default().frames(&sales.log.records);
    frames.push(b"garbage".to_vec());
    produce(&kafka, &frames);
    let why = failure(&sales.publish(&kafka));
    assert!(why.contains("offset 5") && why.contains(&kafka.topic), "{why}");
}

/// Planted bug: a record that the topic does not take is tried again for ever.
#[test]
fn a_record_that_is_too_large_for_the_topic_names_the_setting() {
    let (mut sales, kafka) = (Sales::begin(38), topic("small"));
    make(&kafka, 1, &[("max.message.bytes", "1024")]);
    // Decisions of some hundred bytes: groups are cut, and all is there.
    sales.sell(40);
    let largest = sales.log.records.iter().map(|r| r.batch.events.len()).max().expect("some");
    assert!(largest * 64 > 1_024);
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    assert!(events(&kafka).0 == together(&sales.log.records));
    drop(publisher);

    let kafka = topic("smaller");
    make(&kafka, 1, &[("max.message.bytes", "600")]);
    let why = failure(&sales.publish(&kafka));
    assert!(why.contains("max.message.bytes") && why.contains(&kafka.topic), "{why}");
}

/// Planted bug: the publisher of an empty topic begins where the journal begins.
#[test]
fn a_journal_that_was_cut_in_front_cannot_fill_a_new_topic() {
    let (mut sales, kafka) = (Sales::begin(39), topic("cut"));
    sales.sell(500);
    retain_from(Path::new(&sales.journal_dir()), sales.log.last()).expect("a disk");
    let why = failure(&sales.publish(&kafka));
    assert!(why.contains("is needed"), "{why}");
}
