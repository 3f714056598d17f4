//! From where the topic ends to a fault, or to the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::Seq;

use super::{PublishError, PublishedSample, PublisherConfig, PublisherState, PublisherStatus};
use crate::frame::{self, Checksum, Header};
use crate::journal::{Damage, JournalError, Passed, Reader};
use crate::kafka::client::{Delivered, Deliveries, Ears};
use crate::kafka::config::not_usable;
use crate::kafka::cut::{self, Encoded};
use crate::kafka::error::{KafkaError, TopicFault};
use crate::kafka::records;
use crate::kafka::tail::Tail;
use crate::kafka::topic::{self, Use};

/// Records and bytes on their way at most.
const IN_FLIGHT_MAX: usize = 4_096;
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Frames that are given to the producer between two looks at what is acknowledged.
const FRAMES_MAX: usize = 64;
/// How long it rests when the topic has all there is.
const REST: Duration = Duration::from_millis(5);
/// How long it waits for room.
const ROOM_WAIT: Duration = Duration::from_millis(1);
/// Without an acknowledgement for so long, the brokers count as away.
const SILENCE_NS_MAX: u64 = 2_000_000_000;
/// How long a start asks the brokers before it rests.
const ASK: Duration = Duration::from_secs(2);

/// Where a partition ends.
#[derive(Clone, Copy)]
struct End {
    seq: Seq,
    checksum: Checksum,
    offset: i64,
}

/// What is remembered of a record on its way.
#[derive(Debug)]
struct Sent {
    first: Seq,
    last: Seq,
    events: usize,
    bytes: usize,
    at_ns: u64,
}

/// Publishes what the journal has and the topic has not, until it is told to stop.
pub(super) fn publish(
    config: &mut PublisherConfig,
    state: &PublisherState,
    stop: &AtomicBool,
) -> Result<(), PublishError> {
    // A topic that was there and is gone is not made again: what was in it is missing.
    let is_first = state.published() == Seq(0);
    let topic = topic::prepare(&config.kafka, Use::Stream, is_first, ASK)?;
    let mut tail = Tail::open(&config.kafka, config.shard as i32)?;
    let end = find_end(config, state, &mut tail)?;
    let reader = Reader::open(&config.journal, end.seq)?;
    let producer = config.kafka.producer(topic.bytes_max);
    let producer = producer.create_with_context(Deliveries::new(Ears::default()));
    let producer = producer.map_err(|e| KafkaError::Settings { reason: not_usable(&e) })?;
    let now_ns = config.clock.monotonic_ns();
    state.reached(end.seq);
    state.set(PublisherStatus::Running);
    tracing::info!(topic = config.kafka.topic, from = %end.seq.next(), "publishing");
    let mut session = Session {
        key: config.shard.to_string(),
        config,
        state,
        tail,
        reader,
        producer,
        bytes_max: topic.bytes_max,
        checksum: end.checksum,
        offset: end.offset,
        outbox: VecDeque::new(),
        in_flight: 0,
        in_flight_bytes: 0,
        heard_ns: now_ns,
    };
    while !stop.load(Ordering::Relaxed) {
        session.step()?;
    }
    Ok(())
}

/// Where the topic ends, which the journal must have, too.
fn find_end(
    config: &PublisherConfig,
    state: &PublisherState,
    tail: &mut Tail,
) -> Result<End, PublishError> {
    let partition = config.shard as i32;
    let behind = |tail: &Tail, last| {
        let (what, seq) = ("the publisher".to_owned(), state.published());
        tail.fault(TopicFault::Behind { partition, last, what, seq })
    };
    let Some(raw) = tail.last()? else {
        if state.published() > Seq(0) {
            return Err(behind(tail, Seq(0)).into());
        }
        return Ok(End { seq: Seq(0), checksum: Checksum::NONE, offset: -1 });
    };
    let header = records::check(&raw.bytes, config.shard).map_err(|reason| KafkaError::Record {
        topic: config.kafka.topic.clone(),
        partition,
        offset: raw.offset,
        seq: state.published().next(),
        reason,
        bytes: raw.bytes,
    })?;
    let seq = Seq(header.next_seq().0.saturating_sub(1));
    if seq < state.published() {
        return Err(behind(tail, seq).into());
    }
    if !is_ours(config, &header, seq)? {
        let what = format!("the journal {}", config.journal.display());
        return Err(tail.fault(TopicFault::Foreign { partition, seq, what }).into());
    }
    (config.needed)(header.first);
    Ok(End { seq, checksum: header.checksum, offset: raw.offset })
}

/// Whether the journal has the events of a record: encoded again they are the same bytes.
fn is_ours(config: &PublisherConfig, header: &Header, last: Seq) -> Result<bool, JournalError> {
    let committed = (config.committed)();
    if last > committed || header.first == Seq(0) {
        return Ok(false);
    }
    let mut reader = match Reader::open(&config.journal, Seq(header.first.0 - 1)) {
        Ok(reader) => reader,
        // It keeps what comes next, and that is all that can be told.
        Err(JournalError::Removed { oldest, .. }) if oldest <= last.next() => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut batch = Batch::default();
    let mut epoch = header.epoch;
    while batch.last_seq() < Some(last) {
        let Some(frame) = reader.read_to(committed)? else { return Ok(false) };
        epoch = frame.epoch;
        batch.events.extend(frame.batch.events.into_iter().filter(|words| words[0] <= last.0));
        batch.blobs.extend(frame.batch.blobs.into_iter().filter(|(seq, _)| *seq <= last));
        if reader.position() >= last {
            break;
        }
    }
    let encoded = cut::encode(config.shard, epoch, header.previous, &batch, usize::MAX);
    Ok(encoded.is_ok_and(|frames| frames.len() == 1 && frames[0].checksum == header.checksum))
}

struct Session<'a> {
    config: &'a mut PublisherConfig,
    state: &'a PublisherState,
    tail: Tail,
    key: String,
    reader: Reader,
    producer: BaseProducer<Deliveries<Sent>>,
    bytes_max: usize,
    /// Of the last frame that was read.
    checksum: Checksum,
    /// Of the last record that was acknowledged.
    offset: i64,
    /// Read, and not given to the producer yet.
    outbox: VecDeque<Encoded>,
    in_flight: usize,
    in_flight_bytes: usize,
    /// When there was last nothing to wait for, or something was acknowledged.
    heard_ns: u64,
}

impl Session<'_> {
    fn step(&mut self) -> Result<(), PublishError> {
        let mut filled = 0;
        while filled < FRAMES_MAX && self.fill()? {
            filled += 1;
        }
        self.producer.poll(match filled == FRAMES_MAX {
            true => Duration::ZERO,
            false if self.outbox.is_empty() => REST,
            false => ROOM_WAIT,
        });
        let delivered = self.producer.context().take();
        if !delivered.is_empty() || self.in_flight == 0 {
            self.heard_ns = self.config.clock.monotonic_ns();
        }
        for delivered in delivered {
            self.acknowledged(delivered)?;
        }
        self.listen();
        Ok(())
    }

    /// Gives the producer the next frame; `false` if there is none, or no room.
    fn fill(&mut self) -> Result<bool, PublishError> {
        if self.outbox.is_empty() {
            let Some(passed) = self.reader.pass_to((self.config.committed)())? else {
                return Ok(false);
            };
            self.encode(passed)?;
        }
        while let Some(frame) = self.outbox.front() {
            let bytes = frame.bytes.len();
            let is_full = self.in_flight >= IN_FLIGHT_MAX
                || self.in_flight > 0 && self.in_flight_bytes + bytes > IN_FLIGHT_BYTES_MAX;
            if is_full || !self.send()? {
                return Ok(false);
            }
            self.outbox.pop_front();
            self.in_flight += 1;
            self.in_flight_bytes += bytes;
        }
        Ok(true)
    }

    /// Puts a frame behind those before it in the topic. One that fits is what the journal has but
    /// for that.
    fn encode(&mut self, passed: Passed) -> Result<(), PublishError> {
        let of = match &passed {
            Passed::Whole { header, .. } => header.shard,
            Passed::Part(frame) => frame.shard,
        };
        if of != self.config.shard {
            return Err(self.reader.blame(Damage::Shard(of)).into());
        }
        let (epoch, batch) = match passed {
            Passed::Whole { header, mut bytes } if header.bytes <= self.bytes_max => {
                let checksum = frame::put_behind(self.checksum, &mut bytes);
                let last = Seq(header.next_seq().0 - 1);
                let events = header.events as usize;
                let encoded = Encoded { bytes, checksum, first: header.first, last, events };
                self.checksum = checksum;
                self.outbox.push_back(encoded);
                return Ok(());
            }
            Passed::Whole { header, bytes } => {
                let batch = frame::decode_body(&header, &bytes);
                (header.epoch, batch.map_err(|error| self.reader.blame(error.into()))?)
            }
            Passed::Part(frame) => (frame.epoch, frame.batch),
        };
        let shard = self.config.shard;
        let encoded = cut::encode(shard, epoch, self.checksum, &batch, self.bytes_max);
        let encoded = encoded.map_err(|fault| self.tail.fault(fault))?;
        self.checksum = encoded.last().map_or(self.checksum, |frame| frame.checksum);
        self.outbox.extend(encoded);
        Ok(())
    }

    /// Gives the front of the outbox to the producer; `false` if its queue is full.
    fn send(&self) -> Result<bool, PublishError> {
        let Some(Encoded { bytes, first, last, events, .. }) = self.outbox.front() else {
            return Ok(false);
        };
        let at_ns = self.config.clock.monotonic_ns();
        let sent = Sent { first: *first, last: *last, events: *events, bytes: bytes.len(), at_ns };
        let record = BaseRecord::with_opaque_to(&self.config.kafka.topic, Box::new(sent))
            .partition(self.config.shard as i32)
            .key(&self.key)
            .payload(bytes);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((Native::MessageProduction(Code::QueueFull), _)) => Ok(false),
            Err((error, record)) => Err(self.lost(&error, &record.delivery_opaque).into()),
        }
    }

    fn acknowledged(&mut self, delivered: Delivered<Sent>) -> Result<(), PublishError> {
        let Delivered { of: sent, outcome } = delivered;
        let offset = outcome.map_err(|error| self.lost(&error, &sent))?;
        self.in_flight -= 1;
        self.in_flight_bytes -= sent.bytes;
        if let Some(offset) = offset {
            if offset <= self.offset {
                let (partition, position) = (self.config.shard as i32, self.offset);
                let fault = TopicFault::Recreated { partition, high: offset, position };
                return Err(self.tail.fault(fault).into());
            }
            self.offset = offset;
        }
        self.state.reached(sent.last);
        (self.config.needed)(sent.first);
        let took_ns = self.config.clock.monotonic_ns().saturating_sub(sent.at_ns);
        let Sent { events, bytes, .. } = sent;
        (self.config.hook)(&PublishedSample { events, bytes, took_ns });
        Ok(())
    }

    /// Says so when the brokers are silent, and when they are not any more.
    fn listen(&self) {
        let silence_ns = self.config.clock.monotonic_ns().saturating_sub(self.heard_ns);
        let is_waiting = matches!(self.state.status(), PublisherStatus::Waiting(_));
        if silence_ns < SILENCE_NS_MAX && is_waiting {
            tracing::info!("the publisher goes on");
            self.state.set(PublisherStatus::Running);
        } else if silence_ns >= SILENCE_NS_MAX && !is_waiting {
            let heard = self.producer.context().ears.last();
            let reason = heard.map_or("no acknowledgement".to_owned(), |(_, heard)| heard);
            let brokers = self.config.kafka.brokers.clone();
            let error = KafkaError::Away { brokers, reason };
            tracing::warn!(%error, "the publisher waits; sales go on");
            self.state.set(PublisherStatus::Waiting(error.to_string()));
        }
    }

    /// Why a record is not there. What is on its way behind it goes with this producer.
    fn lost(&self, error: &Native, sent: &Sent) -> KafkaError {
        if error.rdkafka_error_code() == Some(Code::MessageSizeTooLarge) {
            let Sent { first, bytes, .. } = *sent;
            let max = self.bytes_max.min(bytes.saturating_sub(1));
            return self.tail.fault(TopicFault::TooLarge { seq: first, bytes, max });
        }
        // The next session sees what is true of the topic.
        self.producer.context().ears.meaning(&self.config.kafka, error)
    }
}
