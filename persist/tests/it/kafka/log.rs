//! The topic as the log: what it has is what was decided.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tmomi_engine::event::Batch;
use tmomi_engine::ids::{BuyerId, Epoch, Seq};
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::frame;
use tmomi_persist::kafka::KafkaConfig;
use tmomi_persist::log::LogError;
use tmomi_persist::shard::{LogConfig, ShardConfig, Stalled};
use tmomi_persist::snapshot::Snapshots;

use super::{Pen, delete, events, make, produce, soon, topic, topic_at, values};
use crate::sale::START;
use crate::servers::{Kind, Own};
use crate::shard::{Desk, TestClock, until, wait, waited};

pub(super) fn config(kafka: &KafkaConfig, folder: &Path, snapshot_events: u64) -> ShardConfig {
    ShardConfig::new(LogConfig::Kafka {
        kafka: kafka.clone(),
        dir: folder.to_owned(),
        snapshots: None,
        snapshot: SnapshotConfig { events: snapshot_events, ..SnapshotConfig::default() },
    })
}

pub(super) fn desk(kafka: &KafkaConfig, folder: &Path) -> Desk {
    Desk::new(config(kafka, folder, 1_000_000), TestClock::at(START))
}

/// The checksum of the last record.
fn pen(kafka: &KafkaConfig) -> Pen {
    let last = values(kafka).pop().expect("some");
    Pen(frame::check(&last).expect("a frame").checksum)
}

/// How many wait in the line.
fn waiting(desk: &Desk) -> u32 {
    desk.shard.image().read().showtimes().next().expect("one").1.waiting()
}

pub(super) fn decide(desk: &mut Desk, buyer: u64) -> Seq {
    let context = desk.context(9_000 + buyer);
    let joined = desk.handle.join(&desk.house, BuyerId(buyer), context).expect("there is room");
    desk.shard.wake();
    joined.seq
}

/// R2, R9; planted: recovery leaves out the tail, or takes events of an ended reign.
#[test]
fn what_was_answered_is_there_after_any_end_with_and_without_snapshots() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("log"));
    let mut before = None;
    for life in 0..5_u64 {
        let config = config(&kafka, folder.path(), if life == 2 { 10 } else { 1_000_000 });
        let mut desk = Desk::new(config, TestClock::at(START));
        if let Some((applied, waiting)) = before {
            assert_eq!(desk.shard.first(), Seq(applied), "a reign begins with the next number");
            assert_eq!(self::waiting(&desk), waiting);
        }
        for buyer in 0..40 {
            desk.join(life * 100 + buyer);
        }
        let (hash, applied) = (desk.shard.image().read().hash(), desk.shard.applied());
        before = Some((applied.0 + 1, waiting(&desk)));
        // As after `kill -9`: no last snapshot, nothing sealed. What was answered was committed.
        if life % 2 == 0 {
            std::mem::forget(desk);
        } else {
            drop(desk);
        }
        assert_eq!(replayed(&kafka, applied), hash, "the topic from zero gives the same image");
    }
}

/// The hash of the image that all records of the topic up to an event make.
fn replayed(kafka: &KafkaConfig, to: Seq) -> u64 {
    let mut image = tmomi_persist::image::Image::new();
    for value in values(kafka) {
        let (frame, header) = frame::decode(&value).expect("a frame");
        if header.first <= to {
            let _ = image.follow(frame.epoch, &frame.batch).expect("a legal log");
        }
    }
    image.hash()
}

/// The snapshot thread reads the topic, and the next start what is behind the snapshot.
#[test]
fn snapshots_are_made_from_the_topic() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("snapshots"));
    let mut desk = Desk::new(config(&kafka, folder.path(), 50), TestClock::at(START));
    for buyer in 0..200 {
        desk.join(buyer);
    }
    let snapshots = folder.path().join("snapshots");
    until("there is a snapshot", || {
        Snapshots::local(&snapshots, 0).is_ok_and(|all| !all.list().expect("a folder").is_empty())
    });
    let applied = desk.shard.applied();
    std::mem::forget(desk);
    let desk = self::desk(&kafka, folder.path());
    let (replayed, snapshot) = desk.shard.replayed();
    let snapshot = snapshot.expect("it began with one");
    assert_eq!(snapshot.seq.0 + replayed, applied.0);
    // The audit trail reads the same log.
    let history = desk.shard.history().expect("it has a log");
    let mut frames = history.after(Seq(100)).expect("the broker is there");
    let mut all = Vec::new();
    while let Some(frame) = frames.read_to(applied).expect("it is there") {
        all.extend(frame.batch.events.iter().map(|words| words[0]));
    }
    assert!(all.into_iter().eq(101..=applied.0));
}

/// R7; planted: a commit looks at its acknowledgement and not at what was read back.
#[test]
fn a_second_owner_ends_the_reign_of_the_first_for_good() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("fenced"));
    let apart = tempfile::tempdir().expect("a folder");
    let mut first = desk(&kafka, folder.path());
    first.join(1);
    let mut second = desk(&kafka, apart.path());
    assert!(second.shard.epoch() > first.shard.epoch());
    second.join(2);
    // It does not know yet, and decides.
    let lost = decide(&mut first, 3);
    assert!(!waited(&first.shard, lost, Duration::from_secs(20)), "nobody is told");
    let Err(Stalled::Failed(Some(LogError::Fatal(why)))) = first.shard.accepting() else {
        panic!("it accepts: {:?}", first.shard.accepting());
    };
    assert!(why.contains("fenced") && why.contains("epoch 2"), "{why}");
    second.join(4);
    let hash = second.shard.image().read().hash();
    assert_eq!(waiting(&second), 3);
    let applied = second.shard.applied();
    assert!(first.shard.close().is_err());
    second.shard.close().expect("the broker is there");
    // Whoever reads it all sees the second's decisions only.
    let third = desk(&kafka, tempfile::tempdir().expect("a folder").path());
    assert_eq!(third.shard.first(), applied.next());
    assert!(values(&kafka).len() > 5);
    assert_eq!(waiting(&third), 3);
    assert_ne!(third.shard.image().read().hash(), hash, "a reign more");
}

/// R2: what a dead owner had on its way is part of the log if it came before the next reign.
/// Planted: a reign begins although its first frame came too late to count.
#[test]
fn what_arrives_while_a_reign_begins_is_read_before_it_does() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("overtaken"));
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    let epoch = desk.shard.epoch();
    std::mem::forget(desk);
    // Somebody writes frame after frame in the old reign while others begin new ones.
    let over = AtomicBool::new(false);
    let written = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut pen, mut next) = (pen(&kafka), events(&kafka).0.last_seq().expect("some"));
            while !over.load(Ordering::Relaxed) {
                next = next.next();
                produce(&kafka, &[pen.frame(epoch, &admissible(next))]);
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        until("it writes", || written.load(Ordering::Relaxed) > 0);
        let desk = self::desk(&kafka, folder.path());
        over.store(true, Ordering::Relaxed);
        writing.join().expect("it writes");
        assert!(desk.shard.epoch() > epoch);
        // Every frame before the first of the new reign counts.
        let all = values(&kafka);
        let heads = all.iter().map(|value| frame::check(value).expect("a frame"));
        let old = heads.take_while(|head| head.epoch == epoch).last().expect("some");
        assert_eq!(desk.shard.first(), old.next_seq());
    });
}

/// An event that can always be: the limits of a line are set.
fn admissible(seq: Seq) -> Batch {
    use tmomi_engine::event::{Body, Event, LineSettings};
    let event = Event {
        seq,
        at: START,
        showtime: tmomi_engine::ids::ShowtimeId(1),
        more_follows: false,
        has_blob: false,
        body: Body::LineSet(LineSettings::default()),
    };
    Batch { events: vec![event.pack()], blobs: Vec::new() }
}

/// R12, R2; planted: a commit that takes long fails for good, or counts as done.
#[test]
fn without_its_broker_the_sale_stops_and_goes_on_when_it_is_back() {
    let mut own = Own::start(Kind::Kafka);
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = topic_at(own.address(), "away");
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    for round in 0..2_u64 {
        own.kill();
        let decided = decide(&mut desk, 10 + round);
        until("it says that it waits", || {
            matches!(desk.shard.accepting(), Err(Stalled::Waiting(_)))
        });
        assert!(!waited(&desk.shard, decided, Duration::from_millis(50)));
        let why = desk.shard.accepting().expect_err("it waits").to_string();
        assert!(why.contains(own.address()), "{why}");
        own.restart();
        wait(&desk.shard, decided);
        until("it accepts", || desk.shard.accepting().is_ok());
        desk.join(20 + round);
        own.pause();
        let decided = decide(&mut desk, 30 + round);
        until("it says that it waits", || desk.shard.accepting().is_err());
        own.resume();
        wait(&desk.shard, decided);
        desk.join(40 + round);
    }
    let (applied, hash) = (desk.shard.applied(), desk.shard.image().read().hash());
    assert_eq!(replayed(&kafka, applied), hash);
    // An end without its broker comes soon, and says what is lost.
    own.kill();
    decide(&mut desk, 50);
    let shard = desk.shard;
    assert!(matches!(soon(move || shard.close()), Err(LogError::Stalled(_))));
}

#[test]
fn a_topic_that_is_made_anew_under_the_log_ends_it() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("anew"));
    let mut desk = desk(&kafka, folder.path());
    for buyer in 0..20 {
        desk.join(buyer);
    }
    delete(&kafka);
    std::thread::sleep(Duration::from_secs(2));
    make(&kafka, 1, &[]);
    let lost = decide(&mut desk, 100);
    assert!(!waited(&desk.shard, lost, Duration::from_secs(45)), "nobody is told");
    until("it says why", || matches!(desk.shard.accepting(), Err(Stalled::Failed(_))));
    let why = format!("{:?}", desk.shard.accepting());
    assert!(why.contains("recreated") || why.contains("took no record"), "{why}");
    assert!(desk.shard.close().is_err());
}

/// R13: snapshots of one log and the topic of another, or of none.
#[test]
fn a_topic_that_is_not_the_log_of_the_snapshots_is_refused() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("one"));
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    desk.shard.close().expect("the broker is there");
    let refused = |kafka: &KafkaConfig| {
        let config = config(kafka, folder.path(), 1_000);
        let opened = tmomi_persist::shard::Shard::open(config, TestClock::at(START));
        opened.map(|_| ()).expect_err("it is another").to_string()
    };
    let empty = topic("empty");
    let why = refused(&empty);
    assert!(why.contains("ends at event 0") && why.contains(".snapshot"), "{why}");
    let garbage = topic("garbage");
    make(&garbage, 1, &[]);
    produce(&garbage, &[b"garbage".to_vec()]);
    let why = refused(&garbage);
    assert!(why.contains("offset 0"), "{why}");
    // Another log of the same length, of another reign.
    let other = topic("other");
    make(&other, 1, &[]);
    let mut pen = Pen::default();
    let frames: Vec<_> = (1..9).map(|seq| pen.frame(Epoch(7), &begun(7, seq))).collect();
    produce(&other, &frames);
    let why = refused(&other);
    assert!(why.contains("belongs to another log"), "{why}");
}

fn begun(epoch: u32, seq: u64) -> Batch {
    use tmomi_engine::event::{Body, Event};
    let body = Body::EpochStart { epoch: Epoch(epoch), node: 7 };
    let showtime = tmomi_engine::ids::ShowtimeId(0);
    let (seq, at) = (Seq(seq), START);
    let event = Event { seq, at, showtime, more_follows: false, has_blob: false, body };
    Batch { events: vec![event.pack()], blobs: Vec::new() }
}

/// R13: what was read back is not what was written.
#[test]
fn garbage_in_the_topic_ends_the_log() {
    let (folder, kafka) = (tempfile::tempdir().expect("a folder"), topic("noise"));
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    produce(&kafka, &[b"garbage".to_vec()]);
    let lost = decide(&mut desk, 2);
    assert!(!waited(&desk.shard, lost, Duration::from_secs(20)));
    until("it says why", || matches!(desk.shard.accepting(), Err(Stalled::Failed(_))));
    let why = format!("{:?}", desk.shard.accepting());
    assert!(why.contains("offset") && why.contains(&kafka.topic), "{why}");
}
