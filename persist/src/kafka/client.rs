//! What librdkafka tells besides its answers.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::config::KafkaConfig;
use super::error::{KafkaError, TopicFault};

/// What a client complained of last. An answer says that it timed out; this says why.
#[derive(Clone, Debug, Default)]
pub(super) struct Ears {
    heard: Arc<Mutex<Option<Heard>>>,
}

/// A complaint, and its code if it has one.
pub(super) type Heard = (Option<Code>, String);

impl Ears {
    /// The last complaint.
    pub(super) fn last(&self) -> Option<Heard> {
        self.heard.lock().clone()
    }

    /// What an answer means.
    pub(super) fn meaning(&self, config: &KafkaConfig, error: &Native) -> KafkaError {
        let brokers = config.brokers.clone();
        let code = error.rdkafka_error_code();
        if code.is_some_and(is_refusal) {
            return KafkaError::Refused { brokers, reason: error.to_string() };
        }
        if code.is_some_and(is_of_no_topic) {
            return KafkaError::Topic { topic: config.topic.clone(), fault: TopicFault::Missing };
        }
        match self.last() {
            Some((Some(code), reason)) if is_refusal(code) => {
                KafkaError::Refused { brokers, reason }
            }
            Some((_, heard)) => KafkaError::Away { brokers, reason: format!("{error} ({heard})") },
            None => KafkaError::Away { brokers, reason: error.to_string() },
        }
    }
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

fn is_of_no_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId
    )
}

impl ClientContext for Ears {
    /// Whoever asked is told by an error and logs that; the rest is for those who look closer.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: Native, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        let code = error.rdkafka_error_code();
        // That all are away says less than why one is.
        if code != Some(Code::AllBrokersDown) {
            *self.heard.lock() = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Ears {}

/// Complaints that wait to be heard at most.
const COMPLAINTS_MAX: usize = 64;

/// Lets a consumer that reads nothing hear what it complains of. One that reads must not: a record
/// would be lost.
pub(super) fn hear(consumer: &BaseConsumer<Ears>) {
    for _ in 0..COMPLAINTS_MAX {
        // An error is heard by the context before it comes here.
        let _ = consumer.poll(Duration::ZERO);
    }
}

/// What became of a record.
#[derive(Debug)]
pub(super) struct Delivered<T> {
    /// What the sender said of it.
    pub(super) of: T,
    /// Its offset, or `None` if the broker knows that it has it and not where; or what is wrong.
    pub(super) outcome: Result<Option<i64>, Native>,
}

/// A producer's context: keeps what became of records until they are taken.
#[derive(Debug)]
pub(super) struct Deliveries<T> {
    pub(super) ears: Ears,
    delivered: Mutex<Vec<Delivered<T>>>,
}

impl<T> Deliveries<T> {
    pub(super) fn new(ears: Ears) -> Deliveries<T> {
        Deliveries { ears, delivered: Mutex::new(Vec::new()) }
    }

    /// What became of records since the last call, in the order of their deliveries.
    pub(super) fn take(&self) -> Vec<Delivered<T>> {
        std::mem::take(&mut *self.delivered.lock())
    }
}

impl<T: Send + Sync> ClientContext for Deliveries<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.ears.log(level, facility, message);
    }

    fn error(&self, error: Native, reason: &str) {
        self.ears.error(error, reason);
    }
}

impl<T: Send + Sync> ProducerContext for Deliveries<T> {
    type DeliveryOpaque = Box<T>;

    fn delivery(&self, result: &DeliveryResult<'_>, of: Box<T>) {
        let outcome = match result {
            Ok(message) => Ok(Some(message.offset()).filter(|offset| *offset >= 0)),
            Err((error, _)) => Err(error.clone()),
        };
        self.delivered.lock().push(Delivered { of: *of, outcome });
    }
}
