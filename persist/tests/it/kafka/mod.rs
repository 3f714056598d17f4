//! Kafka, by a real broker: the stream of a journal, and the log itself.
#![allow(clippy::disallowed_methods, reason = "a test measures how long something takes")]

mod brokers;
mod log;
mod publisher;
mod reconcile;
mod source;
mod topic;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::clock::Clock;
use tmomi_persist::frame::{self, Checksum};
use tmomi_persist::kafka::KafkaConfig;
use tmomi_persist::writer::Record;

use crate::servers;

/// More than any of these tests needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `act` gives, if it ends in time: it waits for nobody.
fn soon<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(act()));
    ended.recv_timeout(PATIENCE).expect("it waits for somebody")
}

/// Time as it is.
struct RealClock(Instant);

impl RealClock {
    fn start() -> std::sync::Arc<RealClock> {
        std::sync::Arc::new(RealClock(Instant::now()))
    }
}

impl Clock for RealClock {
    fn now(&self) -> tmomi_engine::ids::TimeMs {
        crate::sale::START.plus_ms(self.0.elapsed().as_millis() as u64)
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// A topic that nobody else has, at the shared broker. It is not made yet.
fn topic(name: &str) -> KafkaConfig {
    topic_at(&servers::kafka(), name)
}

fn topic_at(brokers: &str, name: &str) -> KafkaConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let since = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_millis();
    let mut config = KafkaConfig::new(brokers, &format!("test-{name}-{process}-{nth}-{since}"));
    config.patience = Duration::from_secs(10);
    config
}

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &config.brokers).create().expect("an admin")
}

/// In a thread of its own, since the caller may be in a runtime.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let waiting = scope.spawn(|| runtime.expect("a runtime").block_on(future));
        waiting.join().expect("it does not panic")
    })
}

/// Makes the topic by hand.
fn make(config: &KafkaConfig, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(&config.topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let made = block_on(admin(config).create_topics([&new], &AdminOptions::new()));
    made.expect("the broker answers")[0].as_ref().expect("the topic is new");
}

/// Removes the topic, as somebody might.
fn delete(config: &KafkaConfig) {
    let admin = admin(config);
    let deleted = block_on(admin.delete_topics(&[&config.topic], &AdminOptions::new()));
    deleted.expect("the broker answers")[0].as_ref().expect("the topic was there");
}

/// Writes bytes to the topic, as anybody who may could.
fn produce(config: &KafkaConfig, values: &[Vec<u8>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "20000000")
        .create()
        .expect("a producer");
    for value in values {
        loop {
            let record = BaseRecord::<str, [u8]>::to(&config.topic).partition(0).payload(value);
            match producer.send(record) {
                Ok(()) => break,
                Err(_) => producer.poll(Duration::from_millis(5)),
            }
        }
    }
    producer.flush(PATIENCE).expect("the broker takes them");
}

/// All records of partition 0 as they are.
fn values(config: &KafkaConfig) -> Vec<Vec<u8>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", "a-test")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    let ends = consumer.fetch_watermarks(&config.topic, 0, PATIENCE);
    let (low, high) = ends.expect("the broker answers");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&config.topic, 0, Offset::Offset(low)).expect("a partition");
    consumer.assign(&list).expect("a partition");
    let (mut values, mut next) = (Vec::new(), low);
    while next < high {
        let message = consumer.poll(PATIENCE).expect("it is there").expect("it can be read");
        assert_eq!(message.offset(), next);
        values.push(message.payload().expect("a value").to_vec());
        next += 1;
    }
    values
}

/// What a reader has who checks the numbers and nothing else: every event once and in order. Gives
/// how many records came twice as well.
fn events(config: &KafkaConfig) -> (Batch, usize) {
    let (mut all, mut repeated) = (Batch::default(), 0);
    let mut next = Seq(1);
    for value in values(config) {
        let (frame, header) = frame::decode(&value).expect("a frame");
        if header.next_seq() <= next {
            repeated += 1;
            continue;
        }
        assert_eq!(header.first, next, "nothing is left out");
        next = header.next_seq();
        all.events.extend(frame.batch.events);
        all.blobs.extend(frame.batch.blobs);
    }
    (all, repeated)
}

/// The events of some records together.
fn together(records: &[Record]) -> Batch {
    let mut all = Batch::default();
    for record in records {
        all.events.extend_from_slice(&record.batch.events);
        all.blobs.extend_from_slice(&record.batch.blobs);
    }
    all
}

/// Frames as an owner writes them, one after the other.
#[derive(Clone, Default)]
struct Pen(Checksum);

impl Pen {
    fn frame(&mut self, epoch: Epoch, batch: &Batch) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0 = frame::encode(0, epoch, self.0, batch, &mut bytes).expect("whole decisions");
        bytes
    }

    fn frames(&mut self, records: &[Record]) -> Vec<Vec<u8>> {
        records.iter().map(|record| self.frame(record.epoch, &record.batch)).collect()
    }
}
