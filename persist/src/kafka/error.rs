//! What may be wrong with Kafka: cut by what whoever meets it does next.

use tmomi_engine::ids::Seq;

/// Why Kafka did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// Ask again later.
    #[error("Kafka at {brokers} does not answer: {reason}")]
    Away {
        /// The brokers.
        brokers: String,
        /// What is known of why.
        reason: String,
    },
    /// Somebody must give leave.
    #[error("Kafka at {brokers} refuses: {reason}; check user, password, TLS and rights")]
    Refused {
        /// The brokers.
        brokers: String,
        /// What they say.
        reason: String,
    },
    /// The settings are not usable.
    #[error("the settings of Kafka are not usable: {reason}")]
    Settings {
        /// Which, and why.
        reason: String,
    },
    /// The topic is not what it should be.
    #[error("topic {topic}: {fault}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong.
        fault: TopicFault,
    },
    /// A record is not what it should be.
    #[error("topic {topic}, partition {partition}, offset {offset}: {reason}")]
    Record {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the record stands.
        offset: i64,
        /// The event that should come next.
        seq: Seq,
        /// What is wrong.
        reason: String,
        /// What stands there.
        bytes: Vec<u8>,
    },
}

/// What is wrong with a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicFault {
    /// It is not there, or was removed.
    #[error("it is not there; was it deleted?")]
    Missing,
    /// It cannot be made.
    #[error("it is not there and cannot be made: {0}; make it by hand or give the right to")]
    NotMade(String),
    /// Showtimes are spread over another number of partitions.
    #[error(
        "it has {found} partitions and {expected} are set; showtimes keep their partition, so set \
         kafka_partitions to {found} or use another topic"
    )]
    Partitions {
        /// How many it has.
        found: u32,
        /// How many it should have.
        expected: u32,
    },
    /// Its settings would lose records.
    #[error("its setting {name} is {value}: {why}")]
    Setting {
        /// The setting's name.
        name: String,
        /// Its value.
        value: String,
        /// What it must be.
        why: &'static str,
    },
    /// A record is larger than it takes.
    #[error(
        "event {seq} needs a record of {bytes} bytes, and its setting max.message.bytes allows \
         {max}: set it to {} or more", bytes + super::config::RECORD_OVERHEAD_BYTES
    )]
    TooLarge {
        /// The first event of the record.
        seq: Seq,
        /// Bytes of the record.
        bytes: usize,
        /// Bytes that it takes.
        max: usize,
    },
    /// What was there is not there any more.
    #[error(
        "partition {partition} ends at offset {high} and had offset {position}: the topic was \
         recreated or has lost its tail; nothing more is written to it"
    )]
    Recreated {
        /// The partition.
        partition: i32,
        /// Where it ends.
        high: i64,
        /// Where somebody had got to.
        position: i64,
    },
    /// It begins later than it is needed from.
    #[error(
        "partition {partition} begins with event {oldest} at offset {offset} and event {wanted} is \
         needed: its retention (retention.ms, retention.bytes) must be unlimited"
    )]
    Removed {
        /// The partition.
        partition: i32,
        /// Its first offset.
        offset: i64,
        /// Its first event.
        oldest: Seq,
        /// What is needed.
        wanted: Seq,
    },
    /// What was to be read next is not there any more.
    #[error(
        "partition {partition} begins at offset {low} and offset {position} was not read yet: its \
         retention (retention.ms, retention.bytes) must be unlimited"
    )]
    Expired {
        /// The partition.
        partition: i32,
        /// Its first offset.
        low: i64,
        /// Where somebody had got to.
        position: i64,
    },
    /// Every record was removed.
    #[error(
        "every record of partition {partition} was removed, so nobody knows where it ended: its \
         retention (retention.ms, retention.bytes) must be unlimited"
    )]
    Emptied {
        /// The partition.
        partition: i32,
    },
    /// It ends before what is known to have been in it.
    #[error(
        "partition {partition} ends at event {last}, and {what} has event {seq}: the topic was \
         recreated, has lost its tail, or belongs to another log"
    )]
    Behind {
        /// The partition.
        partition: i32,
        /// Its last event.
        last: Seq,
        /// Who knows more.
        what: String,
        /// What he knows.
        seq: Seq,
    },
    /// It has the events of another log.
    #[error(
        "partition {partition} has another event {seq} than {what}: the topic belongs to another \
         log or was recreated; use another topic"
    )]
    Foreign {
        /// The partition.
        partition: i32,
        /// The event.
        seq: Seq,
        /// Who has a different one.
        what: String,
    },
}

impl KafkaError {
    /// Whether asking again may help without anybody doing anything about the topic.
    pub fn may_pass(&self) -> bool {
        matches!(self, KafkaError::Away { .. } | KafkaError::Refused { .. })
            || matches!(self, KafkaError::Topic { fault: TopicFault::Missing, .. })
    }
}
