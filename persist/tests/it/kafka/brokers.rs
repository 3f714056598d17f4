//! Brokers that misbehave as a real one cannot be made to: librdkafka's mock cluster.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey as Call;
use rdkafka::types::RDKafkaRespErr as Answer;
use tmomi_engine::OpenShowtime;
use tmomi_engine::event::{Batch, LineSettings};
use tmomi_engine::ids::{BlockIndex, Part, Seq, ShowtimeId, TierIndex, TimeMs};
use tmomi_engine::layout::{Layout, LayoutSpec, SectionSpec};
use tmomi_persist::kafka::{Compression, KafkaConfig, KafkaHistory, PublisherStatus};
use tmomi_persist::layout_codec;
use tmomi_persist::log::{Log, LogError, TooLarge};
use tmomi_persist::shard::Stalled;
use tmomi_persist::writer::Record;

use super::log::{decide, desk};
use super::publisher::{Sales, failure};
use super::{events, make, together, topic};
use crate::shard::{until, wait, waited};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> (Cluster, KafkaConfig) {
    let cluster = MockCluster::new(3).expect("three brokers");
    cluster.create_topic("mock", 1, 3).expect("a topic");
    let config = KafkaConfig::new(&cluster.bootstrap_servers(), "mock");
    (cluster, config)
}

/// What passes.
const PASSING: [Answer; 6] = [
    Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
    Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
];

/// R2, R6.
#[test]
fn what_brokers_refuse_for_a_while_is_committed_once_and_in_order() {
    let (cluster, kafka) = cluster();
    let folder = tempfile::tempdir().expect("a folder");
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    for round in 0..4_u64 {
        cluster.request_errors(Call::Produce, &PASSING);
        cluster.request_errors(Call::Fetch, &PASSING[2..4]);
        let decided = decide(&mut desk, 10 + round);
        wait(&desk.shard, decided);
        desk.join(20 + round);
    }
    cluster.partition_leader("mock", 0, Some(2)).expect("a leader");
    desk.join(30);
    let (found, repeated) = events(&kafka);
    assert_eq!((found.last_seq(), repeated), (Some(desk.shard.applied()), 0));
    // An answer that takes long: the log is stalled, and nobody is told too early.
    for broker in 1..=3 {
        cluster.broker_round_trip_time(broker, Duration::from_secs(3)).expect("a broker");
    }
    let decided = decide(&mut desk, 40);
    until("it is stalled", || matches!(desk.shard.accepting(), Err(Stalled::Waiting(_))));
    assert!(!waited(&desk.shard, decided, Duration::from_millis(10)));
    for broker in 1..=3 {
        cluster.broker_round_trip_time(broker, Duration::ZERO).expect("a broker");
    }
    wait(&desk.shard, decided);
    until("it accepts", || desk.shard.accepting().is_ok());
    desk.shard.close().expect("the brokers answer");
}

/// R2; planted: a record that fails for good counts as committed.
#[test]
fn a_record_that_is_refused_for_good_ends_the_log() {
    let (cluster, kafka) = cluster();
    let folder = tempfile::tempdir().expect("a folder");
    let mut desk = desk(&kafka, folder.path());
    desk.join(1);
    cluster
        .request_errors(Call::Produce, &[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 1]);
    let lost = decide(&mut desk, 2);
    assert!(!waited(&desk.shard, lost, Duration::from_secs(20)), "nobody is told");
    let Err(Stalled::Failed(Some(LogError::Fatal(why)))) = desk.shard.accepting() else {
        panic!("it accepts: {:?}", desk.shard.accepting());
    };
    assert!(why.contains("refuses") && why.contains("mock"), "{why}");
}

/// R2, R6: what was lost on the way is sent again by a new producer, from where the topic ends.
#[test]
fn a_publisher_whose_producer_is_of_no_use_any_more_begins_with_a_new_one() {
    let (cluster, kafka) = cluster();
    let mut sales = Sales::begin(51);
    sales.sell(30);
    let publisher = sales.publish(&kafka);
    sales.caught_up(&publisher);
    for answer in [
        Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        Answer::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        Answer::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    ] {
        cluster.request_errors(Call::Produce, &PASSING);
        cluster.request_errors(Call::Produce, &[answer; 2]);
        sales.sell(200);
        sales.caught_up(&publisher);
    }
    until("it runs", || publisher.state().status() == PublisherStatus::Running);
    drop(publisher);
    assert!(events(&kafka).0 == together(&sales.log.records));
    // A topic that takes less than it says.
    cluster.request_errors(Call::Produce, &[Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 1]);
    sales.sell(1);
    let why = failure(&sales.publish(&kafka));
    assert!(why.contains("max.message.bytes"), "{why}");
}

/// Opened showtimes carry their layout: frames of tens of megabytes, of every compression.
#[test]
fn large_records_go_through() {
    use tmomi_persist::history::History;
    let all = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];
    for compression in all {
        let mut kafka = topic("large");
        kafka.compression = compression;
        let mut sales = Sales::begin(52);
        sales.sell(3);
        let (epoch, last) = (sales.log.records[2].epoch, sales.log.last());
        // What no compression makes smaller.
        let mut dice = crate::writer::log::Dice(53);
        let blob: Vec<u8> = (0..5 << 20).flat_map(|_| dice.below(u64::MAX).to_le_bytes()).collect();
        let mut event = *sales.log.records[2].batch.events.last().expect("some");
        event[0] = last.0 + 1;
        let blobs = vec![(last.next(), blob.into_boxed_slice())];
        let batch = Batch { events: vec![event], blobs };
        sales.journal.append(epoch, &batch).expect("a disk");
        sales.journal.commit().expect("a disk");
        sales.committed.store(last.0 + 1, std::sync::atomic::Ordering::SeqCst);
        let publisher = sales.publish(&kafka);
        until("all is published", || publisher.state().published() == last.next());
        let mut records = sales.log.records.clone();
        records.push(Record { epoch, batch });
        let history = KafkaHistory::new(kafka, 0);
        let mut frames = history.after(Seq(0)).expect("the broker answers");
        let mut found = Batch::default();
        while let Some(frame) = frames.read_to(last.next()).expect("it is sound") {
            found.events.extend(frame.batch.events);
            found.blobs.extend(frame.batch.blobs);
        }
        assert!(found == together(&records), "{compression:?}");
    }
}

/// R2: a plan that the topic does not take ends the log with the setting's name, and the next start
/// goes on without it.
#[test]
fn a_decision_that_is_too_large_for_the_log_names_the_setting() {
    let (kafka, folder) = (topic("little"), tempfile::tempdir().expect("a folder"));
    make(&kafka, 1, &[("max.message.bytes", "2000")]);
    let mut desk = desk(&kafka, folder.path());
    // Many small decisions of one group are cut.
    let last = (1..200).map(|buyer| decide(&mut desk, buyer)).last().expect("some");
    wait(&desk.shard, last);
    let (part, reason) = (Part { block: BlockIndex(0), mask: 1 }, vec![b'x'; 3_000]);
    let context = desk.context(7);
    let blocked = desk.handle.block(&desk.house, &[part], Some(reason.into()), context);
    let seq = blocked.expect("it is free");
    desk.shard.wake();
    assert!(!waited(&desk.shard, seq, Duration::from_secs(20)));
    until("it says why", || matches!(desk.shard.accepting(), Err(Stalled::Failed(_))));
    let why = format!("{:?}", desk.shard.accepting());
    assert!(why.contains("max.message.bytes"), "{why}");
    assert!(desk.shard.close().is_err());
    let desk = self::desk(&kafka, folder.path());
    assert_eq!(desk.shard.first(), last.next());
}

/// R2: with what a refusal says the broker takes the layout, and with a byte less nobody tries.
/// Planted bugs: what is around a frame is not counted; one event is counted and two are written.
#[test]
fn a_layout_is_refused_before_it_ends_the_log_with_what_would_be_enough() {
    let place = SectionSpec::General { places: 1, tier: TierIndex(0) };
    let spec = LayoutSpec { sections: vec![place; 200] };
    let blob = layout_codec::encode(&spec);
    let open = OpenShowtime {
        showtime: ShowtimeId(77),
        layout: Layout::build(spec).expect("a layout").into(),
        blob: blob.clone().into(),
        limit: 1,
        hold_ttl_ms: 1_000,
        line: LineSettings::default(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    };
    let desk_on = |allowed: usize| {
        let (kafka, folder) = (topic("exact"), tempfile::tempdir().expect("a folder"));
        make(&kafka, 1, &[("max.message.bytes", &allowed.to_string())]);
        (desk(&kafka, folder.path()), folder, kafka)
    };
    let refused = |allowed| {
        let (desk, _folder, kafka) = desk_on(allowed);
        let error = desk.shard.check_layout(blob.len()).expect_err("it is too large");
        let setting = format!("max.message.bytes of topic {}", kafka.topic);
        assert_eq!(error, TooLarge { needed: error.needed, allowed, setting });
        error.needed
    };
    let needed = refused(2_000);
    assert_eq!(refused(needed - 1), needed);
    let (mut desk, _folder, _) = desk_on(needed);
    desk.shard.check_layout(blob.len()).expect("it fits");
    let (_, seq) = desk.handle.open(desk.shard.clock().now(), open).expect("it is new");
    desk.shard.wake();
    wait(&desk.shard, seq);
}
