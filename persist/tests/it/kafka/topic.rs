//! The topic: made, looked at, refused; and brokers that are not there.

use std::time::Duration;

use tmomi_persist::kafka::{KafkaConfig, Mechanism, Sasl};
use tmomi_persist::shard::{LogConfig, Shard, ShardConfig};

use super::{make, topic};
use crate::sale::START;
use crate::shard::TestClock;

fn open(config: &KafkaConfig) -> Result<Shard, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogConfig::Kafka {
        kafka: config.clone(),
        dir: folder.path().to_owned(),
        snapshots: None,
        snapshot: Default::default(),
    };
    let opened = Shard::open(ShardConfig::new(log), TestClock::at(START));
    opened.map_err(|error| error.to_string())
}

/// What a start with this topic says.
fn refusal(config: &KafkaConfig) -> String {
    open(config).map(|_| ()).expect_err("it does not start")
}

/// Planted bug: the count of partitions is not compared.
#[test]
fn a_topic_is_made_and_one_with_other_partitions_is_refused() {
    let mut config = topic("partitions");
    drop(open(&config).expect("it is made"));
    config.partitions = 4;
    let why = refusal(&config);
    assert!(why.contains(&config.topic) && why.contains("1 partitions and 4 are set"), "{why}");
}

/// R2; planted: a topic that is compacted is taken.
#[test]
fn a_topic_that_would_lose_records_is_refused() {
    let config = topic("compacted");
    make(&config, 1, &[("cleanup.policy", "compact")]);
    let why = refusal(&config);
    assert!(why.contains("cleanup.policy") && why.contains("must be delete"), "{why}");
}

#[test]
fn brokers_that_are_missing_or_refuse_are_named() {
    let mut config = KafkaConfig::new("127.0.0.1:1", "nobody");
    config.patience = Duration::from_secs(1);
    let why = refusal(&config);
    assert!(why.contains("127.0.0.1:1") && why.contains("refused"), "{why}");

    // The client is built with TLS and SCRAM: what is missing is the broker, still.
    let (user, password) = ("buyer".to_owned(), "hunter22".to_owned());
    config.tls = true;
    config.sasl = Some(Sasl { mechanism: Mechanism::ScramSha512, user, password });
    let why = refusal(&config);
    assert!(why.contains("127.0.0.1:1") && why.contains("refused"), "{why}");

    let mut config = topic("refused");
    config.patience = Duration::from_secs(4);
    let (user, password) = ("buyer".to_owned(), "hunter22".to_owned());
    config.sasl = Some(Sasl { mechanism: Mechanism::Plain, user, password });
    let why = refusal(&config);
    assert!(why.contains(&config.brokers) && !why.contains("hunter22"), "{why}");

    config.sasl = None;
    config.properties = vec![("no.such.property".into(), "1".into())];
    let why = refusal(&config);
    assert!(why.contains("no.such.property"), "{why}");
}

#[test]
fn a_topic_that_cannot_be_made_says_why() {
    let mut config = topic("replicas");
    config.replication = 3;
    let why = refusal(&config);
    assert!(why.contains(&config.topic) && why.contains("cannot be made"), "{why}");
}
