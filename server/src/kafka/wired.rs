//! With the feature `kafka`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tmomi_engine::ids::Seq;
use tmomi_persist::follower::SnapshotConfig;
use tmomi_persist::history::History;
use tmomi_persist::kafka::{
    Compression, KafkaConfig, KafkaError, KafkaHistory, KafkaSource, Mechanism, Publisher,
    PublisherConfig, PublisherState, PublisherStatus, Sasl,
};
use tmomi_persist::recovery::RecoveryError;
use tmomi_persist::shard::{JOURNAL_DIR, LogConfig, Shard};
use tmomi_persist::writer::WriterHandle;

use super::{KafkaCompression, KafkaMechanism, KafkaSecurity, KafkaUse};
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::rows::Output;

/// The shard of this process, and its partition.
const SHARD: u32 = 0;
/// How long the end of the process waits until the topic has what was answered. The next start
/// publishes the rest.
const LAST_RECORDS_WAIT: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The topic that gets what the journal has.
pub(crate) struct Stream(Publisher);

/// What others see of it.
#[derive(Clone)]
pub(crate) struct StreamState(Arc<PublisherState>);

impl Stream {
    /// What others see of it.
    pub(crate) fn state(&self) -> StreamState {
        StreamState(Arc::clone(self.0.state()))
    }

    /// Waits until the topic has everything that was answered, for 2 s at most, and stops; `false`
    /// if it gave up.
    pub(crate) async fn end(self, shard: &Shard) -> bool {
        // What ends by itself meanwhile, nobody was answered.
        let (state, answered) = (Arc::clone(self.0.state()), shard.applied());
        let caught_up = async {
            while state.published() < answered && state.status() == PublisherStatus::Running {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let in_time = tokio::time::timeout(LAST_RECORDS_WAIT, caught_up).await.is_ok();
        let published = state.published();
        if published < answered {
            tracing::warn!(%published, %answered, "the next start publishes what is missing");
        }
        self.0.stop();
        in_time
    }
}

impl StreamState {
    /// The last event that the topic has.
    pub(crate) fn published(&self) -> Seq {
        self.0.published()
    }

    /// What is wrong with it, if anything.
    pub(crate) fn complaint(&self) -> Option<String> {
        match self.0.status() {
            PublisherStatus::Running | PublisherStatus::Stopped => None,
            PublisherStatus::Starting => Some("the publisher looks for its topic".to_owned()),
            PublisherStatus::Waiting(why) => Some(format!("the publisher waits: {why}")),
            PublisherStatus::Failed(why) => Some(format!("the publisher has left: {why}")),
        }
    }
}

/// The topic as the log, if it is to be.
pub(crate) fn log(settings: &Settings, folder: &Path) -> Option<LogConfig> {
    (settings.kafka == KafkaUse::Log).then(|| LogConfig::Kafka {
        kafka: config(settings),
        dir: folder.to_owned(),
        snapshots: None,
        snapshot: SnapshotConfig::default(),
    })
}

/// The topic as a log that others write, if it is one. Asks nobody yet.
pub(crate) fn history(settings: &Settings) -> Option<Arc<dyn History>> {
    (settings.kafka == KafkaUse::Log)
        .then(|| Arc::new(KafkaHistory::new(config(settings), SHARD)) as Arc<dyn History>)
}

/// What an operator does about a topic that cannot be the log.
pub(crate) fn failure_hint(error: &RecoveryError) -> Option<String> {
    match error {
        RecoveryError::Kafka(error @ KafkaError::Away { .. }) => {
            Some(format!("{error}; start Kafka, or check kafka_brokers"))
        }
        RecoveryError::Kafka(error) => Some(format!("{error}; nothing was changed")),
        _ => None,
    }
}

/// Starts the publisher, if there is to be one.
///
/// # Errors
///
/// If the system gives no thread.
pub(crate) fn start_stream(
    settings: &Settings,
    folder: &Path,
    shard: &Arc<Shard>,
    clock: &Arc<SystemClock>,
    metrics: &Arc<Metrics>,
) -> io::Result<Option<Stream>> {
    if settings.kafka != KafkaUse::Stream {
        return Ok(None);
    }
    let (of_publisher, floor) = (Arc::clone(shard), shard.journal_reader());
    let metrics = Arc::clone(metrics);
    let publisher = Publisher::spawn(PublisherConfig {
        kafka: config(settings),
        shard: SHARD,
        journal: folder.join(JOURNAL_DIR),
        committed: Box::new(move || of_publisher.applied()),
        needed: Box::new(move |seq| floor.keep_from(seq)),
        hook: Box::new(move |sample| metrics.published(sample.took_ns)),
        clock: Arc::clone(clock) as Arc<_>,
    })?;
    Ok(Some(Stream(publisher)))
}

/// Starts a writer of rows behind the topic.
///
/// # Errors
///
/// If the system gives no thread.
pub(crate) fn start_writer(settings: &Settings, output: Output) -> io::Result<WriterHandle> {
    let source = KafkaSource::new(config(settings), SHARD);
    match settings.kafka {
        KafkaUse::Stream => output.spawn(source.behind_a_journal()),
        KafkaUse::Log | KafkaUse::Off => output.spawn(source),
    }
}

fn config(settings: &Settings) -> KafkaConfig {
    let mut config = KafkaConfig::new(&settings.kafka_brokers.0.join(","), &settings.kafka_topic);
    config.partitions = settings.kafka_partitions;
    config.replication = settings.kafka_replication;
    config.compression = match settings.kafka_compression {
        KafkaCompression::None => Compression::None,
        KafkaCompression::Gzip => Compression::Gzip,
        KafkaCompression::Snappy => Compression::Snappy,
        KafkaCompression::Lz4 => Compression::Lz4,
    };
    config.tls = settings.kafka_security == KafkaSecurity::Tls;
    config.ca_file = settings.kafka_ca_file.0.clone();
    let mechanism = match settings.kafka_sasl_mechanism {
        KafkaMechanism::None => None,
        KafkaMechanism::Plain => Some(Mechanism::Plain),
        KafkaMechanism::ScramSha256 => Some(Mechanism::ScramSha256),
        KafkaMechanism::ScramSha512 => Some(Mechanism::ScramSha512),
    };
    let (user, password) = (&settings.kafka_user, &settings.kafka_password.0);
    config.sasl = mechanism.map(|mechanism| Sasl {
        mechanism,
        user: user.clone(),
        password: password.clone(),
    });
    let pairs = settings.kafka_properties.0.iter().filter_map(|pair| pair.0.split_once('='));
    config.properties =
        pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    config
}
