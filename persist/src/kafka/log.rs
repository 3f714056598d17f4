//! A partition as the log: what it has is what was decided.
//!
//! ```text
//! append -> pending -> producer -> topic -> consumer -> chain
//!              |          |                    |
//!              |      acknowledged         read back, in order, and nothing
//!              +----- committed <---- of a later reign before it
//! ```
//!
//! Acknowledged is not enough: an owner that was paused may still write after another has taken
//! over, and every broker takes it. Only reading back shows whose record came first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};

use super::chain::{Chain, Verdict};
use super::client::{Deliveries, Ears};
use super::config::{KafkaConfig, RECORD_OVERHEAD_BYTES, not_usable};
use super::cut::{self, Encoded};
use super::error::{KafkaError, TopicFault};
use super::records::{self, Records};
use super::tail::{Found, Raw, Tail};
use crate::frame::{Checksum, Header};
use crate::log::{Log, LogError, Room};

/// How long a look at the partition takes that finds nothing.
const LOOK: Duration = Duration::from_millis(10);
/// Looks that find nothing, one after the other, until the log counts as stalled: a second.
const LOOKS_MAX: u32 = 100;
/// How long an acknowledgement is waited for that comes with what was read back.
const ACK_LOOK: Duration = Duration::from_micros(50);
const ACK_LOOKS_MAX: u32 = 20;

/// The log of one shard in its partition.
pub struct KafkaLog {
    config: KafkaConfig,
    shard: u32,
    key: String,
    producer: BaseProducer<Deliveries<()>>,
    tail: Tail,
    /// What was read back.
    chain: Chain,
    /// The frame that was appended last.
    previous: Checksum,
    bytes_max: usize,
    /// The reign of what is appended.
    epoch: Epoch,
    /// Whether a frame of this reign was read back.
    has_begun: bool,
    /// Appended and not yet committed.
    pending: VecDeque<Pending>,
    /// Records that were read and may be what is pending.
    seen: VecDeque<Seen>,
    failed: Option<LogError>,
}

struct Pending {
    frame: Encoded,
    state: Sending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// The producer does not have it yet.
    Waits,
    Sent,
    /// Every replica in sync has it, at this offset if that is known.
    Acknowledged(Option<i64>),
}

struct Seen {
    offset: i64,
    header: Header,
    begins: Option<Epoch>,
}

/// Whose a record is.
enum Whose {
    Ours,
    Others,
    /// Not before it is acknowledged.
    Unknown,
}

impl KafkaLog {
    /// Goes on where `records` were read to, with records of up to `bytes_max` bytes.
    pub(super) fn open(
        config: &KafkaConfig,
        shard: u32,
        records: Records,
        bytes_max: usize,
    ) -> Result<KafkaLog, KafkaError> {
        let (tail, chain) = records.into_parts();
        let mut client = config.producer(bytes_max);
        // A commit waits for nothing but the brokers.
        client.set("linger.ms", "0");
        let producer = client.create_with_context(Deliveries::new(Ears::default()));
        let producer = producer.map_err(|e| KafkaError::Settings { reason: not_usable(&e) })?;
        Ok(KafkaLog {
            config: config.clone(),
            shard,
            key: shard.to_string(),
            producer,
            tail,
            chain,
            previous: chain.checksum,
            bytes_max,
            epoch: Epoch(0),
            has_begun: false,
            pending: VecDeque::new(),
            seen: VecDeque::new(),
            failed: None,
        })
    }

    /// Whether anything came of it.
    fn step(&mut self) -> Result<bool, LogError> {
        self.send()?;
        let mut is_busy = self.acknowledged()?;
        match self.tail.next(LOOK) {
            Ok(Found::Record(raw)) => {
                self.see(raw)?;
                is_busy = true;
            }
            Ok(Found::End | Found::Nothing) => {}
            Err(error) if error.may_pass() => {
                // It may have come at once.
                std::thread::sleep(LOOK);
            }
            Err(error) => return Err(fatal(&error)),
        }
        for _ in 0..ACK_LOOKS_MAX {
            is_busy |= self.acknowledged()?;
            self.settle()?;
            if self.seen.is_empty() || self.pending.is_empty() {
                break;
            }
            std::thread::sleep(ACK_LOOK);
        }
        Ok(is_busy)
    }

    /// Gives the producer what it does not have yet.
    fn send(&mut self) -> Result<(), LogError> {
        let waiting = self.pending.iter_mut().filter(|pending| pending.state == Sending::Waits);
        for pending in waiting {
            let record = BaseRecord::with_opaque_to(&self.config.topic, Box::new(()))
                .partition(self.shard as i32)
                .key(&self.key)
                .payload(&pending.frame.bytes);
            match self.producer.send(record) {
                Ok(()) => pending.state = Sending::Sent,
                Err((Native::MessageProduction(Code::QueueFull), _)) => break,
                Err((error, _)) => return Err(self.lost(&error)),
            }
        }
        Ok(())
    }

    /// Notes what was acknowledged: one producer's records come in the order they were sent.
    fn acknowledged(&mut self) -> Result<bool, LogError> {
        self.producer.poll(Duration::ZERO);
        let delivered = self.producer.context().take();
        let is_any = !delivered.is_empty();
        for delivered in delivered {
            let offset = delivered.outcome.map_err(|error| self.lost(&error))?;
            let sent = self.pending.iter_mut().find(|pending| pending.state == Sending::Sent);
            let pending = sent.expect("what is acknowledged was sent");
            pending.state = Sending::Acknowledged(offset);
            let position = self.seen.front().map_or(self.tail.position(), |seen| seen.offset);
            if let Some(high) = offset.filter(|offset| *offset < position) {
                let partition = self.shard as i32;
                let fault = TopicFault::Recreated { partition, high, position };
                return Err(fatal(&self.tail.fault(fault)));
            }
        }
        Ok(is_any)
    }

    fn see(&mut self, raw: Raw) -> Result<(), LogError> {
        let Raw { offset, bytes } = raw;
        match records::check(&bytes, self.shard) {
            Ok(header) => {
                let begins = records::begins(&header, &bytes);
                self.seen.push_back(Seen { offset, header, begins });
                Ok(())
            }
            Err(reason) => Err(self.bad(offset, &reason)),
        }
    }

    /// Takes what was read back for what it is, in order.
    fn settle(&mut self) -> Result<(), LogError> {
        while let Some(seen) = self.seen.front() {
            let whose = match self.pending.front() {
                Some(pending) => whose(seen, pending),
                None => Whose::Others,
            };
            let Some(seen) = self.seen.pop_front_if(|_| !matches!(whose, Whose::Unknown)) else {
                return Ok(());
            };
            let verdict = self.chain.admit(&seen.header, seen.begins);
            let verdict = verdict.map_err(|broken| self.bad(seen.offset, &broken.to_string()))?;
            match whose {
                Whose::Ours => self.ours(&seen, verdict)?,
                _ => self.others(&seen, verdict)?,
            }
        }
        Ok(())
    }

    /// A frame of this log was read back.
    fn ours(&mut self, seen: &Seen, verdict: Verdict) -> Result<(), LogError> {
        let pending = self.pending.pop_front().expect("it was compared");
        if pending.frame.checksum != seen.header.checksum {
            return Err(self.bad(seen.offset, "it is not what was written there"));
        }
        match verdict {
            Verdict::Next => {
                self.has_begun = true;
                Ok(())
            }
            // What the owner before had on its way came first.
            Verdict::Fence if !self.has_begun => Err(self.overtaken(seen)),
            void => Err(self.bad(seen.offset, &format!("it came too late to count: {void:?}"))),
        }
    }

    /// A frame that this log has not written.
    fn others(&mut self, seen: &Seen, verdict: Verdict) -> Result<(), LogError> {
        let epoch = seen.header.epoch;
        if epoch > self.epoch {
            let (own, topic, offset) = (self.epoch, &self.config.topic, seen.offset);
            let text = format!(
                "fenced: another owner has begun epoch {epoch} of shard {} in topic {topic} at \
                 offset {offset}; this one decides in epoch {own} and leaves",
                self.shard
            );
            return Err(LogError::Fatal(text.into()));
        }
        match verdict {
            _ if !self.has_begun && epoch == self.epoch => Err(self.overtaken(seen)),
            Verdict::Next if !self.has_begun => Ok(()),
            Verdict::Next => Err(self.bad(seen.offset, "another owner writes in the same epoch")),
            void => {
                let offset = seen.offset;
                tracing::warn!(offset, %epoch, ?void, "a record of others changes nothing");
                Ok(())
            }
        }
    }

    fn overtaken(&self, seen: &Seen) -> LogError {
        let (topic, offset, epoch) = (&self.config.topic, seen.offset, seen.header.epoch);
        let text = format!(
            "another owner wrote to topic {topic} at offset {offset}, in epoch {epoch}, before \
             this one had begun"
        );
        LogError::Overtaken(text.into())
    }

    /// A record will never be there, or nobody knows.
    fn lost(&self, error: &Native) -> LogError {
        let (topic, partition) = (&self.config.topic, self.shard);
        let why = self.producer.client().fatal_error();
        let why = why.map_or(String::new(), |(_, why)| format!(" ({why})"));
        let meaning = self.producer.context().ears.meaning(&self.config, error);
        let text = format!("topic {topic}, partition {partition}, took no record: {meaning}{why}");
        LogError::Fatal(text.into())
    }

    fn bad(&self, offset: i64, reason: &str) -> LogError {
        let (topic, partition) = (self.config.topic.clone(), self.shard as i32);
        let (seq, reason, bytes) = (self.chain.last.next(), reason.to_owned(), Vec::new());
        fatal(&KafkaError::Record { topic, partition, offset, seq, reason, bytes })
    }

    fn stalled(&self) -> LogError {
        let events: usize = self.pending.iter().map(|pending| pending.frame.events).sum();
        let last = self.pending.back().map_or(Seq(0), |pending| pending.frame.last);
        let reason = format!("{events} events up to {last} are not committed");
        let heard = self.producer.context().ears.last();
        let error = match heard {
            Some((_, heard)) => self.tail.away(format!("{reason}: {heard}")),
            None => self.tail.away(reason),
        };
        LogError::Stalled(error.to_string().into())
    }
}

impl Log for KafkaLog {
    fn append(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let encoded = cut::encode(self.shard, epoch, self.previous, batch, self.bytes_max);
        let encoded = encoded.map_err(|fault| fatal(&self.tail.fault(fault)))?;
        self.epoch = epoch;
        for frame in encoded {
            self.previous = frame.checksum;
            self.pending.push_back(Pending { frame, state: Sending::Waits });
        }
        // On its way while the caller comes to ask for its commit.
        self.send().inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut looks = 0;
        while !self.pending.is_empty() {
            match self.step() {
                Ok(true) => looks = 0,
                Ok(false) => looks += 1,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
            if looks >= LOOKS_MAX {
                return Err(self.stalled());
            }
        }
        Ok(())
    }

    fn room(&self) -> Option<Room> {
        Some(Room {
            frame_bytes_max: self.bytes_max,
            overhead_bytes: RECORD_OVERHEAD_BYTES,
            setting: format!("max.message.bytes of topic {}", self.config.topic),
        })
    }
}

/// Two owners may have written the same bytes, so what counts is where the broker put them.
fn whose(seen: &Seen, pending: &Pending) -> Whose {
    let is_same = seen.header.checksum == pending.frame.checksum;
    match pending.state {
        Sending::Acknowledged(Some(offset)) if offset == seen.offset => Whose::Ours,
        Sending::Acknowledged(None) if is_same => Whose::Ours,
        Sending::Acknowledged(_) => Whose::Others,
        Sending::Waits | Sending::Sent if is_same => Whose::Unknown,
        Sending::Waits | Sending::Sent => Whose::Others,
    }
}

fn fatal(error: &KafkaError) -> LogError {
    LogError::Fatal(Arc::from(error.to_string()))
}
