//! The frames of a partition that count, in order: what every reader of a topic reads.

use std::time::Duration;

use tmomi_engine::event::{Body, Event};
use tmomi_engine::ids::{Epoch, Seq};

use super::chain::{Chain, Verdict};
use super::config::KafkaConfig;
use super::error::{KafkaError, TopicFault};
use super::tail::{Found, Raw, Tail};
use crate::frame::{self, Frame, Header};
use crate::wire;

/// Records that reading begins before the one that is looked for. An owner has few of them on their
/// way, so behind so many there is one of the newest reign, and what is left of an ended one is
/// told apart.
const BACK: i64 = 256;

/// What came of a look at the partition.
#[derive(Debug)]
pub(super) enum Step {
    /// The next events.
    Frame(Frame),
    /// Something that changes nothing for this reader.
    Void,
    /// There is no more yet.
    End,
    /// Nothing came in time.
    Nothing,
}

/// What somebody knows of the event that reading begins after.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Its reign.
    pub(super) epoch: Epoch,
    /// Who knows it.
    pub(super) what: String,
}

/// Reads a partition.
pub(super) struct Records {
    tail: Tail,
    shard: u32,
    chain: Chain,
    /// The last event that was given, or after which reading began.
    after: Seq,
    known: Option<Known>,
    /// Whether reading began with the first record there is.
    from_first: bool,
}

impl Records {
    /// Nothing is read before [`seek`](Self::seek).
    pub(super) fn open(config: &KafkaConfig, shard: u32) -> Result<Records, KafkaError> {
        let tail = Tail::open(config, shard as i32)?;
        let (chain, after) = (Chain::START, Seq(0));
        Ok(Records { tail, shard, chain, after, known: None, from_first: false })
    }

    /// Goes on with the event after `after`, which must be the one that is `known`.
    pub(super) fn seek(&mut self, after: Seq, known: Option<Known>) -> Result<(), KafkaError> {
        (self.after, self.known) = (after, known);
        let (low, high) = self.tail.ends()?;
        if low == high && high > 0 {
            let partition = self.tail.partition();
            return Err(self.tail.fault(TopicFault::Emptied { partition }));
        }
        let from = (self.search(after, low, high)? - BACK).max(low);
        self.begin(from, low)
    }

    /// The next record.
    pub(super) fn step(&mut self, wait: Duration) -> Result<Step, KafkaError> {
        match self.tail.next(wait)? {
            Found::Record(raw) => self.take(raw),
            Found::End if self.chain.last < self.after => Err(self.behind()),
            Found::End => Ok(Step::End),
            Found::Nothing => Ok(Step::Nothing),
        }
    }

    /// The last event that was given, or after which reading began.
    pub(super) fn after(&self) -> Seq {
        self.after
    }

    /// The owner of a log goes on where it was read to.
    pub(super) fn into_parts(self) -> (Tail, Chain) {
        (self.tail, self.chain)
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// An offset before which, but for what is void, there are only events that are known. By
    /// halves: what is void may lead it astray, which shows in the chain.
    fn search(&mut self, after: Seq, low: i64, high: i64) -> Result<i64, KafkaError> {
        let (mut low_most, mut beyond) = (low, high);
        while beyond - low_most > BACK {
            let middle = low_most + (beyond - low_most) / 2;
            let Some(raw) = self.tail.at(middle)? else {
                beyond = middle;
                continue;
            };
            match frame::check(&raw.bytes) {
                Ok(header) if header.next_seq() <= after.next() => low_most = raw.offset + 1,
                Ok(_) => beyond = middle,
                Err(_) => return Ok(low),
            }
        }
        Ok(low_most)
    }

    fn begin(&mut self, from: i64, low: i64) -> Result<(), KafkaError> {
        self.from_first = from == low;
        self.chain = if from == 0 { Chain::START } else { Chain::SOMEWHERE };
        self.tail.seek(from)
    }

    /// The search was led astray: reads all there is.
    fn begin_at_first(&mut self) -> Result<Step, KafkaError> {
        let (low, _) = self.tail.ends()?;
        tracing::warn!(partition = self.tail.partition(), "the partition is read from its front");
        self.begin(low, low)?;
        Ok(Step::Void)
    }

    fn take(&mut self, raw: Raw) -> Result<Step, KafkaError> {
        let header = match check(&raw.bytes, self.shard) {
            Ok(header) => header,
            Err(reason) => return Err(self.bad(raw, reason)),
        };
        let (was_known, wanted) = (self.chain.is_known(), self.after.next());
        match self.chain.admit(&header, begins(&header, &raw.bytes)) {
            Ok(Verdict::Next) => {}
            Ok(void) => {
                let offset = raw.offset;
                tracing::warn!(offset, ?void, epoch = %header.epoch, "a record changes nothing");
                return Ok(Step::Void);
            }
            Err(_) if !self.from_first => return self.begin_at_first(),
            Err(broken) => return Err(self.bad(raw, broken.to_string())),
        }
        if !was_known && header.first > wanted {
            if !self.from_first {
                return self.begin_at_first();
            }
            let (partition, offset) = (self.tail.partition(), raw.offset);
            let oldest = header.first;
            return Err(self.tail.fault(TopicFault::Removed { partition, offset, oldest, wanted }));
        }
        if header.first <= self.after {
            self.recognise(&header)?;
        }
        if header.next_seq() <= wanted {
            return Ok(Step::Void);
        }
        self.give(&header, raw)
    }

    /// The events of a frame that are new.
    fn give(&mut self, header: &Header, raw: Raw) -> Result<Step, KafkaError> {
        let mut batch = match frame::decode_body(header, &raw.bytes) {
            Ok(batch) => batch,
            Err(reason) => return Err(self.bad(raw, reason.to_string())),
        };
        let after = self.after;
        if header.first <= after {
            batch.events.retain(|words| words[0] > after.0);
            batch.blobs.retain(|(seq, _)| *seq > after);
        }
        self.after = self.chain.last;
        Ok(Step::Frame(Frame { shard: header.shard, epoch: header.epoch, batch }))
    }

    /// Whether the event that reading begins after is the one that is known.
    fn recognise(&mut self, header: &Header) -> Result<(), KafkaError> {
        if header.next_seq() <= self.after {
            return Ok(());
        }
        match self.known.take() {
            Some(known) if known.epoch != header.epoch => {
                let (partition, seq) = (self.tail.partition(), self.after);
                let fault = TopicFault::Foreign { partition, seq, what: known.what };
                Err(self.tail.fault(fault))
            }
            _ => Ok(()),
        }
    }

    /// Why the events up to `committed` do not come: there are none, or nobody gives them.
    pub(super) fn missing(&self, committed: Seq) -> KafkaError {
        match self.tail.ends() {
            Ok((_, high)) if self.tail.position() >= high => self.ends_before(committed),
            Ok(_) => {
                let next = self.after.next();
                self.tail.away(format!("event {next} was committed and does not come"))
            }
            Err(error) => error,
        }
    }

    fn behind(&self) -> KafkaError {
        self.ends_before(self.after)
    }

    fn ends_before(&self, seq: Seq) -> KafkaError {
        let (partition, last) = (self.tail.partition(), self.chain.last);
        let what = self.known.as_ref().map_or("whoever reads it", |known| &known.what).to_owned();
        self.tail.fault(TopicFault::Behind { partition, last, what, seq })
    }

    fn bad(&self, raw: Raw, reason: String) -> KafkaError {
        KafkaError::Record {
            topic: self.tail.config().topic.clone(),
            partition: self.tail.partition(),
            offset: raw.offset,
            seq: self.chain.last.next().max(self.after.next()),
            reason,
            bytes: raw.bytes,
        }
    }
}

/// Checks a record from end to end.
pub(super) fn check(bytes: &[u8], shard: u32) -> Result<Header, String> {
    let header = frame::check(bytes).map_err(|error| error.to_string())?;
    if header.bytes != bytes.len() {
        return Err(format!("{} bytes follow the frame", bytes.len() - header.bytes));
    }
    if header.shard != shard {
        return Err(format!("the frame belongs to shard {}", header.shard));
    }
    Ok(header)
}

/// The reign that the first event of a frame begins, if it does.
pub(super) fn begins(header: &Header, bytes: &[u8]) -> Option<Epoch> {
    let first = bytes.get(frame::HEAD_BYTES..frame::HEAD_BYTES + wire::EVENT_BYTES)?;
    let words = wire::decode_events(first);
    match Event::unpack(words.first().filter(|_| header.events > 0)?).ok()?.body {
        Body::EpochStart { epoch, .. } => Some(epoch),
        _ => None,
    }
}
