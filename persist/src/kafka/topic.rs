//! The topic: looked at, made if it is not there, and refused if it cannot be what it is for.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;

use super::client::{self, Ears};
use super::config::{KafkaConfig, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES, not_usable};
use super::error::{KafkaError, TopicFault};

/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// How long it rests between two looks for a topic that was just made, and how often.
const REST: Duration = Duration::from_millis(100);
const RESTS_MAX: u32 = 100;
/// Replicas from which on one may be away.
const REPLICAS_TO_LOSE_ONE: u16 = 3;

/// What the topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It repeats what a journal has.
    Stream,
    /// It is all there is.
    Log,
}

/// What is known of a topic that is as it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    /// Bytes of a record at most.
    pub(super) bytes_max: usize,
}

/// Looks at the topic for as long as `patience`, and makes it if it is not there and may be made.
pub(super) fn prepare(
    config: &KafkaConfig,
    of: Use,
    may_make: bool,
    patience: Duration,
) -> Result<Topic, KafkaError> {
    config.check()?;
    let asker = Asker::new(config)?;
    let mut questions = (patience.as_millis() / QUESTION.as_millis()).max(1);
    while questions > 0 {
        match asker.partitions() {
            Ok(Some(found)) => return asker.examine(found, of),
            Ok(None) if !may_make => return Err(asker.fault(TopicFault::Missing)),
            Ok(None) => {
                asker.make()?;
                return asker.examine(asker.wait()?, of);
            }
            Err(error @ KafkaError::Away { .. }) if questions == 1 => return Err(error),
            Err(KafkaError::Away { .. }) => questions -= 1,
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last question is answered, one way or the other")
}

/// Asks about a topic.
struct Asker<'a> {
    config: &'a KafkaConfig,
    consumer: BaseConsumer<Ears>,
}

impl Asker<'_> {
    fn new(config: &KafkaConfig) -> Result<Asker<'_>, KafkaError> {
        let consumer = config.consumer(0).create_with_context(Ears::default());
        let consumer = consumer.map_err(|e| KafkaError::Settings { reason: not_usable(&e) })?;
        Ok(Asker { config, consumer })
    }

    /// How many partitions it has; `None` if it is not there.
    fn partitions(&self) -> Result<Option<u32>, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.config.topic), QUESTION);
        let metadata = metadata.map_err(|error| self.failed(&error))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.config.topic);
        let Some(found) = found else { return Ok(None) };
        match found.error() {
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(found.partitions().len() as u32)),
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
            Some(error) => Err(self.failed(&Native::MetadataFetch(error.into()))),
        }
    }

    /// Makes the topic; that somebody else has just made it is as good.
    fn make(&self) -> Result<(), KafkaError> {
        let KafkaConfig { topic, partitions, replication, .. } = self.config;
        let bytes = (RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES).to_string();
        let in_sync = if *replication >= REPLICAS_TO_LOSE_ONE { "2" } else { "1" };
        let copies = TopicReplication::Fixed((*replication).into());
        let count = i32::try_from(*partitions).unwrap_or(i32::MAX);
        let new = NewTopic::new(topic, count, copies)
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("max.message.bytes", &bytes)
            .set("min.insync.replicas", in_sync)
            .set("unclean.leader.election.enable", "false");
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(QUESTION));
        let made = block_on(admin.create_topics([&new], &options.request_timeout(Some(QUESTION))));
        let results = made.map_err(|error| self.failed(&error))?;
        for result in results {
            match result {
                Ok(_) => tracing::info!(topic, partitions, replication, "the topic is made"),
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(self.fault(TopicFault::NotMade(code.to_string()))),
            }
        }
        Ok(())
    }

    /// Whether it is what it should be.
    fn examine(&self, found: u32, of: Use) -> Result<Topic, KafkaError> {
        let expected = self.config.partitions;
        if found != expected {
            return Err(self.fault(TopicFault::Partitions { found, expected }));
        }
        let Some(settings) = self.settings()? else {
            return Ok(Topic { bytes_max: RECORD_BYTES_MAX });
        };
        let value = |name: &str| settings.get(name).and_then(|entry| entry.value.clone());
        if let Some(policy) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
            return Err(self.fault(TopicFault::Setting {
                name: "cleanup.policy".to_owned(),
                value: policy,
                why: "all records of a shard have one key, so compaction would remove the log; \
                      it must be delete",
            }));
        }
        let losing = [("retention.ms", "-1"), ("retention.bytes", "-1")];
        for (name, never) in losing {
            let value = value(name).filter(|value| of == Use::Log && value != never);
            if let Some(value) = value {
                tracing::warn!(
                    name,
                    value,
                    "the topic is the log and forgets events: set it to -1"
                );
            }
        }
        let bytes = value("max.message.bytes").and_then(|value| value.parse().ok());
        let bytes_max = bytes.map_or(RECORD_BYTES_MAX, |bytes: usize| {
            bytes.saturating_sub(RECORD_OVERHEAD_BYTES).min(RECORD_BYTES_MAX)
        });
        Ok(Topic { bytes_max })
    }

    /// The topic's settings; `None` if one may not see them.
    fn settings(&self) -> Result<Option<ConfigResource>, KafkaError> {
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(QUESTION));
        let topic = ResourceSpecifier::Topic(&self.config.topic);
        let described = block_on(admin.describe_configs([&topic], &options));
        let described = match described.map_err(|error| self.failed(&error)) {
            // Not every service that speaks Kafka answers this, and one that knows the topic is
            // there.
            Err(error @ KafkaError::Away { .. }) => {
                tracing::warn!(%error, "the topic's settings are not seen and not checked");
                return Ok(None);
            }
            described => described?,
        };
        match described.into_iter().next() {
            Some(Ok(settings)) => Ok(Some(settings)),
            Some(Err(code)) => {
                tracing::warn!(%code, "the topic's settings cannot be seen and are not checked");
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn admin(&self) -> Result<AdminClient<Ears>, KafkaError> {
        let admin = self.config.client().create_with_context(Ears::default());
        admin.map_err(|error| KafkaError::Settings { reason: not_usable(&error) })
    }

    /// Waits until the brokers know of a topic that was just made.
    fn wait(&self) -> Result<u32, KafkaError> {
        for _ in 0..RESTS_MAX {
            if let Some(found) = self.partitions()? {
                return Ok(found);
            }
            std::thread::sleep(REST);
        }
        Err(self.fault(TopicFault::Missing))
    }

    fn failed(&self, error: &Native) -> KafkaError {
        client::hear(&self.consumer);
        self.consumer.context().meaning(self.config, error)
    }

    fn fault(&self, fault: TopicFault) -> KafkaError {
        KafkaError::Topic { topic: self.config.topic.clone(), fault }
    }
}

/// Waits for an answer that a thread of librdkafka brings: no runtime is needed for that.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
