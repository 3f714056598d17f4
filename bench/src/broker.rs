//! The Kafka broker that `make services` starts, and what it takes bare of all that is ours.

use std::path::Path;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tmomi_persist::kafka::KafkaConfig;

/// More than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the broker is.
///
/// # Panics
///
/// If there is none: a bench without its baseline says nothing.
pub fn address() -> String {
    if let Ok(address) = std::env::var("TMOMI_TEST_KAFKA") {
        return address;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench is in the workspace");
    let file = root.join("target/services/run/kafka/address");
    let address = std::fs::read_to_string(file).unwrap_or_default();
    assert!(!address.is_empty(), "no Kafka is running: `make services`, or set TMOMI_TEST_KAFKA");
    address.trim().to_owned()
}

/// A topic that nobody else has. Dropping it deletes it: a bench writes gigabytes.
pub struct Topic(KafkaConfig);

/// One with so many partitions, which whoever opens it first makes.
pub fn topic(name: &str, nth: usize, partitions: u32) -> Topic {
    let since = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_millis();
    let name = format!("bench-{name}-{nth}-{}-{since}", std::process::id());
    Topic(KafkaConfig { partitions, ..KafkaConfig::new(&address(), &name) })
}

impl std::ops::Deref for Topic {
    type Target = KafkaConfig;

    fn deref(&self) -> &KafkaConfig {
        &self.0
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let Topic(KafkaConfig { brokers, topic, .. }) = self;
        let admin = ClientConfig::new().set("bootstrap.servers", &*brokers).create();
        let admin: AdminClient<DefaultClientContext> = admin.expect("settings that can be used");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system gives what it needs");
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        // One that nobody opened is not there.
        let _ = runtime.block_on(admin.delete_topics(&[topic], &options));
    }
}

/// A producer with the promises of ours, into a topic that is there.
pub struct Bare {
    producer: BaseProducer,
    consumer: BaseConsumer,
    topic: String,
}

impl Bare {
    /// As little as a client of `config`'s topic needs. `linger_ms` is how long records gather.
    pub fn open(config: &KafkaConfig, linger_ms: &str) -> Bare {
        let client = |set: &[(&str, &str)]| {
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", &config.brokers);
            set.iter().fold(client, |mut client, (name, value)| {
                client.set(*name, *value);
                client
            })
        };
        let producer = client(&[
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "0"),
            ("message.max.bytes", "100000000"),
            ("linger.ms", linger_ms),
        ]);
        let consumer = client(&[("group.id", "bare"), ("enable.auto.commit", "false")]);
        let bare = Bare {
            producer: producer.create().expect("settings that can be used"),
            consumer: consumer.create().expect("settings that can be used"),
            topic: config.topic.clone(),
        };
        let ends = bare.consumer.fetch_watermarks(&bare.topic, 0, PATIENCE);
        let (_, high) = ends.expect("the broker answers");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&bare.topic, 0, Offset::Offset(high)).expect("a partition");
        bare.consumer.assign(&list).expect("a partition");
        bare
    }

    /// Gives a record to the producer.
    pub fn send(&self, bytes: &[u8]) {
        loop {
            let record = BaseRecord::<str, [u8]>::to(&self.topic).partition(0).payload(bytes);
            match self.producer.send(record) {
                Ok(()) => return,
                Err(_) => self.producer.poll(Duration::from_millis(1)),
            }
        }
    }

    /// Lets the producer count what is acknowledged.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self) {
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Writes a record and reads it back.
    pub fn write_and_read(&self, bytes: &[u8]) {
        self.send(bytes);
        let found = self.consumer.poll(PATIENCE).expect("it comes").expect("it can be read");
        assert_eq!(found.payload_len(), bytes.len());
        self.flush();
    }
}
