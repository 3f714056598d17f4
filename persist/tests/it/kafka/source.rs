//! The writer behind a topic (R8), and what must not become rows.

use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{Epoch, Seq, ShowtimeId, TimeMs};
use tmomi_persist::kafka::{KafkaConfig, KafkaSource};
use tmomi_persist::writer::{
    DeadLetters, Source as _, SqlSink, Stamp, Status, Writer, WriterError,
};

use super::{PATIENCE, Pen, delete, make, produce, topic, topic_at};
use crate::databases::{Database, sqlite};
use crate::servers::{Kind, Own};
use crate::writer::clock::clock;
use crate::writer::log::{Dice, MadeUp};
use crate::writer::{TwoHouses, assert_same, config, leaves, open, rows, until};

type KafkaWriter = Writer<KafkaSource, SqlSink, TwoHouses>;

async fn writer(database: &Database, kafka: &KafkaConfig) -> KafkaWriter {
    let source = KafkaSource::new(kafka.clone(), 0);
    let dead = DeadLetters::new(database.folder.path().join("dead"));
    Writer::new(config(100), source, open(database).await, TwoHouses::new(), dead, clock())
}

fn log(seed: u64, records: usize) -> MadeUp {
    let mut log = MadeUp::new();
    log.grow(&mut Dice(seed), records);
    log
}

/// The first frame of a reign.
fn start(epoch: u32, seq: u64) -> Batch {
    let body = Body::EpochStart { epoch: Epoch(epoch), node: 7 };
    let event = Event {
        seq: Seq(seq),
        at: TimeMs(1_900_000_000_000),
        showtime: ShowtimeId(0),
        more_follows: false,
        has_blob: false,
        body,
    };
    Batch { events: vec![event.pack()], blobs: Vec::new() }
}

/// Frames that somebody writes who has not noticed that his reign has ended.
pub(super) fn zombie(epoch: u32, from: Seq, count: u64, pen: &mut Pen) -> Vec<Vec<u8>> {
    let frames = (from.0..from.0 + count).map(|seq| pen.frame(Epoch(epoch), &start(epoch, seq)));
    frames.collect()
}

#[tokio::test]
async fn a_writer_follows_a_topic_and_goes_on_where_it_was() {
    let (database, kafka) = (sqlite("sales.db"), topic("rows"));
    make(&kafka, 1, &[]);
    let (mut log, mut dice, mut pen) = (MadeUp::new(), Dice(41), Pen::default());
    for _ in 0..3 {
        let mut writer = writer(&database, &kafka).await;
        for _ in 0..2 {
            let known = log.records.len();
            log.grow(&mut dice, 300);
            let frames = pen.frames(&log.records[known..]);
            produce(&kafka, &frames);
            // What came twice is known.
            produce(&kafka, &frames[frames.len() - 3..]);
            until(&mut writer, log.last()).await;
        }
        assert_same(&log, rows(&database).await);
    }
}

/// R7; planted: a frame of an ended reign counts.
#[tokio::test]
async fn what_an_owner_wrote_after_its_reign_never_becomes_a_row() {
    let (database, kafka) = (sqlite("sales.db"), topic("zombie"));
    make(&kafka, 1, &[]);
    let (mut log, mut dice, mut pen) = (log(42, 900), Dice(43), Pen::default());
    let mut old = Pen::default();
    let mut written = 0;
    for _ in 0..4 {
        // Everything up to here, and then what somebody writes who does not know it yet.
        produce(&kafka, &pen.frames(&log.records[written..]));
        written = log.records.len();
        let epoch = log.records[written - 1].epoch.0;
        // Its numbers go far beyond what is there.
        produce(&kafka, &zombie(epoch - 1, Seq(log.last().0 - 20), 200, &mut old));
        let mut writer = writer(&database, &kafka).await;
        until(&mut writer, log.last()).await;
        assert_same(&log, rows(&database).await);
        log.grow(&mut dice, 300);
    }
}

/// Whoever reads can stop while a partition has only what is void. Planted bug: a call goes on
/// until it finds something. (A call that waits for the broker gives nothing, too, so the records
/// are there before they are asked for.)
#[test]
fn a_call_passes_over_no_more_than_so_many_void_records() {
    const VOIDS: u64 = 20_000;
    let kafka = topic("voids");
    make(&kafka, 1, &[]);
    let mut pen = Pen::default();
    let mut old = pen.clone();
    produce(&kafka, &[pen.frame(Epoch(2), &start(2, 1))]);
    produce(&kafka, &zombie(1, Seq(1), VOIDS, &mut old));
    produce(&kafka, &[pen.frame(Epoch(2), &start(2, 2))]);
    let mut source = KafkaSource::new(kafka, 0);
    source.seek(Stamp::default()).expect("the broker answers");
    let mut nothing = 0;
    let mut next = || loop {
        match source.next().expect("all of it is sound") {
            Some(record) => break (record.batch.last_seq(), std::mem::take(&mut nothing)),
            None => nothing += 1,
        }
    };
    assert_eq!(next().0, Some(Seq(1)));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (last, nothing) = next();
    assert_eq!(last, Some(Seq(2)));
    assert!(nothing >= 4, "{VOIDS} records in {} calls", nothing + 1);
}

/// R7: of two who begin at once the first counts, and one who comes late only ends what was before.
#[tokio::test]
async fn a_reign_that_began_too_late_ends_the_one_before_and_has_no_events() {
    let (database, kafka) = (sqlite("sales.db"), topic("fence"));
    make(&kafka, 1, &[]);
    let (log, mut pen) = (log(44, 50), Pen::default());
    let epoch = log.records.last().unwrap().epoch.0;
    let (known, late) = log.records.split_at(49);
    produce(&kafka, &pen.frames(known));
    let mut other = pen.clone();
    let seen = known.last().unwrap().batch.last_seq().unwrap();
    // The owner's last frame comes before the new reign, whose owner had not seen it.
    produce(&kafka, &pen.frames(late));
    produce(&kafka, &[other.frame(Epoch(epoch + 1), &start(epoch + 1, seen.0 + 1))]);
    // From here on the old owner's frames are void, although they continue the chain.
    let mut old = pen.clone();
    produce(&kafka, &[old.frame(Epoch(epoch), &start(epoch, log.last().0 + 1))]);
    // The new owner has read it all again.
    let begun = start(epoch + 2, log.last().0 + 1);
    let last = Seq(log.last().0 + 1);
    let mut third = pen.clone();
    produce(&kafka, &[pen.frame(Epoch(epoch + 2), &begun), third.frame(Epoch(epoch + 2), &begun)]);
    let mut writer = writer(&database, &kafka).await;
    until(&mut writer, last).await;
    let (position, found) = rows(&database).await;
    assert_eq!(position, last);
    assert_eq!(found, log.rows(log.last()), "a reign's beginning is no row");
}

/// Writes `bad` behind forty good records. Gives what the writer says.
async fn poisoned(name: &str, bad: impl FnOnce(&MadeUp, &mut Pen) -> Vec<Vec<u8>>) -> String {
    let (database, kafka, other) = (sqlite("sales.db"), topic(name), topic("sound"));
    let (log, mut pen) = (log(45, 60), Pen::default());
    for kafka in [&kafka, &other] {
        make(kafka, 1, &[]);
        produce(kafka, &Pen::default().frames(&log.records[..40]));
    }
    let good = pen.frames(&log.records[..40]);
    let bad = bad(&log, &mut pen);
    produce(&kafka, &bad);
    let mut writer = writer(&database, &kafka).await;
    let left = leaves(&mut writer).await;
    let end = log.records[39].batch.last_seq().unwrap();
    assert_eq!(writer.state().position(), end, "what stands before it became rows");
    assert!(matches!(left, WriterError::Poisoned { shard: 0, .. }), "{left}");
    assert_eq!(writer.state().status(), Status::Failed(left.clone()));
    let letters: Vec<_> = std::fs::read_dir(database.folder.path().join("dead")).unwrap().collect();
    let letter = std::fs::read(letters[0].as_ref().unwrap().path()).unwrap();
    assert!(bad.iter().any(|value| letter.ends_with(value)), "the record was copied aside");
    assert!(left.to_string().contains("offset 4"), "{left}");
    assert_eq!(good.len(), 40);
    // Others go on.
    let apart = sqlite("sales.db");
    until(&mut self::writer(&apart, &other).await, end).await;
    left.to_string()
}

/// R13; planted: a record that is no frame is passed over; its shard is not looked at; the chain is
/// not looked at.
#[tokio::test]
async fn garbage_in_the_topic_stops_the_writer_with_a_dead_letter() {
    let why = poisoned("garbage", |_, _| vec![b"garbage".to_vec()]).await;
    assert!(why.contains("offset 40"), "{why}");
    let why = poisoned("empty", |_, _| vec![Vec::new()]).await;
    assert!(why.contains("cut off"), "{why}");
    for byte in [0, 9, 21, 60, 100] {
        let flipped = |log: &MadeUp, pen: &mut Pen| {
            let mut value = pen.frames(&log.records[40..41]).remove(0);
            value[byte] ^= 4;
            vec![value]
        };
        poisoned("flipped", flipped).await;
    }
    let shard = |log: &MadeUp, pen: &mut Pen| {
        let mut bytes = Vec::new();
        let record = &log.records[40];
        tmomi_persist::frame::encode(3, record.epoch, pen.0, &record.batch, &mut bytes).unwrap();
        vec![bytes]
    };
    assert!(poisoned("shard", shard).await.contains("belongs to shard 3"));
    let gap = |log: &MadeUp, pen: &mut Pen| pen.frames(&log.records[41..42]);
    assert!(poisoned("gap", gap).await.contains("belongs"));
    let chain = |log: &MadeUp, _: &mut Pen| Pen::default().frames(&log.records[40..41]);
    assert!(poisoned("chain", chain).await.contains("follows a frame"));
    let trailing = |log: &MadeUp, pen: &mut Pen| {
        let mut value = pen.frames(&log.records[40..41]).remove(0);
        value.extend([0; 8]);
        vec![value]
    };
    assert!(poisoned("trailing", trailing).await.contains("8 bytes follow"));
}

/// R8: rows and topic have the same numbers and are not of one log. Planted bug: only the number of
/// the last row is looked for.
#[tokio::test]
async fn rows_of_another_log_with_the_same_numbers_are_noticed() {
    let (database, kafka, other) = (sqlite("sales.db"), topic("own"), topic("other"));
    for (kafka, epoch) in [(&kafka, 1), (&other, 2)] {
        make(kafka, 1, &[]);
        let mut pen = Pen::default();
        let frames: Vec<_> = (1..=4).map(|n| pen.frame(Epoch(epoch), &start(epoch, n))).collect();
        produce(kafka, &frames);
    }
    until(&mut writer(&database, &kafka).await, Seq(4)).await;
    until(&mut writer(&database, &kafka).await, Seq(4)).await;
    let left = leaves(&mut writer(&database, &other).await).await.to_string();
    assert!(left.contains("another event 4 than the rows"), "{left}");
}

/// Planted bug: a writer that is ahead of the topic waits for ever.
#[tokio::test]
async fn a_topic_that_was_made_anew_or_lost_its_front_is_noticed() {
    let (database, kafka) = (sqlite("sales.db"), topic("anew"));
    make(&kafka, 1, &[]);
    let log = log(46, 30);
    produce(&kafka, &Pen::default().frames(&log.records));
    let mut running = writer(&database, &kafka).await;
    until(&mut running, log.last()).await;
    delete(&kafka);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    make(&kafka, 1, &[]);
    produce(&kafka, &Pen::default().frames(&log.records[..20]));
    let left = leaves(&mut running).await.to_string();
    assert!(left.contains("recreated"), "{left}");
    let left = leaves(&mut writer(&database, &kafka).await).await.to_string();
    assert!(left.contains("recreated"), "{left}");

    let (database, kafka) = (sqlite("sales.db"), topic("front"));
    make(&kafka, 1, &[]);
    let mut pen = Pen::default();
    pen.frames(&log.records[..10]);
    produce(&kafka, &pen.frames(&log.records[10..]));
    let left = leaves(&mut writer(&database, &kafka).await).await.to_string();
    assert!(left.contains("offset 0"), "{left}");
}

/// R12.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for() {
    let mut own = Own::start(Kind::Kafka);
    let (database, kafka) = (sqlite("sales.db"), topic_at(own.address(), "away"));
    make(&kafka, 1, &[]);
    let (log, mut pen) = (log(47, 100), Pen::default());
    produce(&kafka, &pen.frames(&log.records[..50]));
    let mut writer = writer(&database, &kafka).await;
    until(&mut writer, log.records[49].batch.last_seq().unwrap()).await;
    own.kill();
    let state = writer.state();
    let more = async {
        while !matches!(state.status(), Status::Waiting(_)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        tokio::task::block_in_place(|| {
            own.restart();
            produce(&kafka, &pen.frames(&log.records[50..]));
        });
        std::future::pending::<()>().await;
    };
    let all = async {
        while state.position() < log.last() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let both = async {
        tokio::select! {
            () = all => {}
            () = more => {}
            left = writer.run() => panic!("{left}"),
        }
    };
    // The broker's start is a part of it.
    let in_time = tokio::time::timeout(4 * PATIENCE, both).await;
    in_time.unwrap_or_else(|_| panic!("it waits and goes on: {:?}", state.status()));
    assert_same(&log, rows(&database).await);
}
