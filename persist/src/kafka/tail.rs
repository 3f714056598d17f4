//! One partition, read from any offset. No group, no commits: whoever reads keeps his position.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Ears};
use super::config::{KafkaConfig, not_usable};
use super::error::{KafkaError, TopicFault};

/// How long a broker is asked for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a record that is known to be there is waited for.
const RECORD_WAIT: Duration = Duration::from_secs(10);

/// A record as it stands in the partition.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) offset: i64,
    pub(super) bytes: Vec<u8>,
}

/// What a look at the partition found.
#[derive(Debug)]
pub(super) enum Found {
    Record(Raw),
    /// There is nothing behind this yet.
    End,
    /// Nothing came in time.
    Nothing,
}

/// A reader of one partition.
pub(super) struct Tail {
    config: KafkaConfig,
    partition: i32,
    consumer: BaseConsumer<Ears>,
    /// The offset after the last record that was given, or where reading begins.
    next: i64,
    is_reading: bool,
}

impl Tail {
    /// Nothing is read before [`seek`](Self::seek).
    pub(super) fn open(config: &KafkaConfig, partition: i32) -> Result<Tail, KafkaError> {
        let consumer = config.consumer(partition).create_with_context(Ears::default());
        let consumer = consumer.map_err(|e| KafkaError::Settings { reason: not_usable(&e) })?;
        Ok(Tail { config: config.clone(), partition, consumer, next: 0, is_reading: false })
    }

    /// The first offset and the one after the last.
    pub(super) fn ends(&self) -> Result<(i64, i64), KafkaError> {
        let (topic, partition) = (&self.config.topic, self.partition);
        let ends = self.consumer.fetch_watermarks(topic, partition, ANSWER_WAIT);
        ends.map_err(|error| self.failed(&error))
    }

    /// Goes on with the first record at `offset` or behind it.
    pub(super) fn seek(&mut self, offset: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let added =
            list.add_partition_offset(&self.config.topic, self.partition, Offset::Offset(offset));
        let assigned = added.and_then(|()| self.consumer.assign(&list));
        (self.next, self.is_reading) = (offset, true);
        assigned.map_err(|error| self.failed(&error))
    }

    /// The offset after the last record that was given.
    pub(super) fn position(&self) -> i64 {
        self.next
    }

    /// The next record, if it comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Found, KafkaError> {
        match self.consumer.poll(wait) {
            None => Ok(Found::Nothing),
            // What was fetched before a seek.
            Some(Ok(message)) if message.offset() < self.next => Ok(Found::Nothing),
            Some(Ok(message)) => {
                let bytes = message.payload().unwrap_or_default().to_owned();
                let offset = message.offset();
                self.next = offset + 1;
                Ok(Found::Record(Raw { offset, bytes }))
            }
            Some(Err(Native::PartitionEOF(_))) => Ok(Found::End),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
                    Err(self.beyond())
                }
                // No group is needed, so no right to one either.
                Some(Code::GroupAuthorizationFailed) => Ok(Found::Nothing),
                _ => Err(self.failed(&error)),
            },
        }
    }

    /// The first record at `offset` or behind it, which is said to be there; `None` if the
    /// partition ends before.
    pub(super) fn at(&mut self, offset: i64) -> Result<Option<Raw>, KafkaError> {
        self.seek(offset)?;
        let mut waited = Duration::ZERO;
        while waited < RECORD_WAIT {
            const STEP: Duration = Duration::from_millis(100);
            match self.next(STEP)? {
                Found::Record(raw) => return Ok(Some(raw)),
                Found::End => return Ok(None),
                Found::Nothing => waited += STEP,
            }
        }
        Err(self.away(format!("the record at offset {offset} does not come")))
    }

    /// The last record; `None` if there was never one.
    pub(super) fn last(&mut self) -> Result<Option<Raw>, KafkaError> {
        let (low, high) = self.ends()?;
        if low == high {
            let partition = self.partition;
            let emptied = || Err(self.fault(TopicFault::Emptied { partition }));
            return if high == 0 { Ok(None) } else { emptied() };
        }
        // Marks of transactions take an offset and are no records, so it may be further back.
        let mut back = 1;
        loop {
            let from = (high - back).max(low);
            let last = self.last_from(from, high)?;
            if last.is_some() || from == low {
                return Ok(last);
            }
            back *= 2;
        }
    }

    fn last_from(&mut self, from: i64, high: i64) -> Result<Option<Raw>, KafkaError> {
        let mut last = None;
        let mut next = self.at(from)?;
        while let Some(raw) = next {
            let is_last = raw.offset + 1 >= high;
            last = Some(raw);
            if is_last {
                break;
            }
            next = self.at(self.next)?;
        }
        Ok(last)
    }

    /// What is known of why nothing comes.
    pub(super) fn away(&self, reason: String) -> KafkaError {
        let brokers = self.config.brokers.clone();
        let heard = self.consumer.context().last();
        let reason = heard.map_or(reason.clone(), |(_, heard)| format!("{reason} ({heard})"));
        KafkaError::Away { brokers, reason }
    }

    pub(super) fn fault(&self, fault: TopicFault) -> KafkaError {
        KafkaError::Topic { topic: self.config.topic.clone(), fault }
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// The position is not within the partition any more.
    fn beyond(&self) -> KafkaError {
        let (partition, position) = (self.partition, self.next);
        match self.ends() {
            Ok((low, _)) if position < low => {
                self.fault(TopicFault::Expired { partition, low, position })
            }
            Ok((_, high)) => self.fault(TopicFault::Recreated { partition, high, position }),
            Err(error) => error,
        }
    }

    fn failed(&self, error: &Native) -> KafkaError {
        if !self.is_reading {
            client::hear(&self.consumer);
        }
        self.consumer.context().meaning(&self.config, error)
    }
}
