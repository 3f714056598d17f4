//! The writer at work: gathers what the log has, folds it, writes it, and goes on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tmomi_engine::ids::TimeMs;

use super::fold::{Fold, Known, Needs, Readable};
use super::pace::Pace;
use super::{
    DeadLetter, DeadLetters, Names, NamesError, Poison, Record, Sink, SinkError, Source,
    SourceError, Stamp, Status, WriterConfig, WriterError, WriterState,
};
use crate::clock::Clock;

/// Buyers of entries kept in memory at most; beyond it all are forgotten and looked up again.
const BUYERS_KEPT: usize = 1 << 20;

/// Why a step did not succeed.
enum StepError {
    Away(String),
    Left(WriterError),
}

/// What the log gave for one batch.
struct Gathered {
    records: Vec<Readable>,
    end: End,
}

/// Why a batch ends where it ends.
enum End {
    /// The log has no more yet.
    Dry,
    /// It is large enough.
    Full,
    /// It does not answer, or what comes next cannot be read.
    Failed(SourceError),
}

/// A writer of one shard.
pub struct Writer<S, K, N> {
    config: WriterConfig,
    source: S,
    sink: K,
    names: N,
    dead: DeadLetters,
    known: Known,
    pace: Pace,
    state: Arc<WriterState>,
    clock: Arc<dyn Clock>,
    /// As it was read from the database or written there last; `None` if that is in doubt.
    position: Option<Stamp>,
    /// The last position that it knew.
    known_position: Option<Stamp>,
    /// Where the last transaction would have moved the position to.
    attempt: Option<Stamp>,
}

impl<S: Source, K: Sink, N: Names> Writer<S, K, N> {
    /// A writer that goes on where the rows of `sink` end. How long that takes is measured by
    /// `clock`.
    pub fn new(
        config: WriterConfig,
        source: S,
        sink: K,
        names: N,
        dead: DeadLetters,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = Arc::default();
        let known = Known::default();
        let pace = Pace::new(config.events_max);
        let (position, known_position, attempt) = (None, None, None);
        Writer {
            config,
            source,
            sink,
            names,
            dead,
            known,
            pace,
            state,
            clock,
            position,
            known_position,
            attempt,
        }
    }

    /// What others see of it.
    pub fn state(&self) -> Arc<WriterState> {
        self.state.clone()
    }

    /// Writes until it has to leave. Dropping the future stops it at any moment; a transaction
    /// that was not committed then changes nothing.
    pub async fn run(&mut self) -> WriterError {
        let mut backoff_ms = self.config.backoff_ms_min;
        loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(Duration::from_millis(self.config.poll_ms)).await,
                Err(StepError::Left(error)) => {
                    tracing::error!(shard = self.config.shard, %error, "the writer leaves");
                    *self.state.status.lock() = Status::Failed(error.clone());
                    return error;
                }
                Err(StepError::Away(reason)) => {
                    self.position = None;
                    let shard = self.config.shard;
                    tracing::warn!(shard, reason, backoff_ms, "the writer waits");
                    *self.state.status.lock() = Status::Waiting(reason);
                    tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
                    backoff_ms = (backoff_ms * 2).min(self.config.backoff_ms_max);
                    continue;
                }
            }
            if backoff_ms != self.config.backoff_ms_min {
                backoff_ms = self.config.backoff_ms_min;
                *self.state.status.lock() = Status::Running;
            }
        }
    }

    /// Writes one batch; `false` if the log has no more yet. What is committed while the writer
    /// rests gathers for the next transaction, which costs the same with one event as with many.
    async fn step(&mut self) -> Result<bool, StepError> {
        let from = match self.position {
            Some(position) => position,
            None => self.resume().await?,
        };
        let Gathered { records, end } = self.gather(from);
        if !records.is_empty() {
            self.write(from, &records).await?;
        }
        match end {
            End::Dry => Ok(false),
            End::Full => Ok(true),
            End::Failed(error) => Err(self.source_failed(error)),
        }
    }

    /// Finds out where the rows end and goes there.
    async fn resume(&mut self) -> Result<Stamp, StepError> {
        let position = self.sink.position().await.map_err(|e| self.sink_failed(e))?;
        // Whether its own last transaction was committed is what it may not know. Where only
        // another writer can have moved it, that one goes on. (A position before it is that of a
        // database that was restored.)
        if let Some(known) = self.known_position
            && position > known
            && Some(position) != self.attempt
        {
            return Err(self.sink_failed(SinkError::AnotherWriter));
        }
        if let Err(error) = self.source.seek(position) {
            return Err(self.source_failed(error));
        }
        self.moved_to(position);
        Ok(position)
    }

    fn moved_to(&mut self, position: Stamp) {
        self.position = Some(position);
        self.known_position = Some(position);
        self.state.position.store(position.seq.0, Ordering::Relaxed);
        self.source.written(position.seq);
    }

    /// Takes what the log has, up to a batch, or up to what cannot be read.
    fn gather(&mut self, mut at: Stamp) -> Gathered {
        let mut records = Vec::new();
        let mut events = 0;
        while events < self.pace.events() {
            let record = match self.source.next() {
                Ok(Some(record)) => record,
                Ok(None) => return Gathered { records, end: End::Dry },
                Err(error) => return Gathered { records, end: End::Failed(error) },
            };
            let Some(record) = fresh(record, at) else { continue };
            let first = record.batch.first_seq().unwrap_or_default();
            if first != at.seq.next() {
                let reason = format!("event {} should come here", at.seq.next());
                let (seq, bytes) = (first, raw(&record));
                let error = SourceError::Unreadable { seq, reason, bytes };
                return Gathered { records, end: End::Failed(error) };
            }
            match Readable::read(record) {
                Ok(readable) => {
                    events += readable.record.batch.events.len();
                    records.push(readable);
                    at = end_of(at, &records);
                }
                Err((record, Poison { seq, reason })) => {
                    let error = SourceError::Unreadable { seq, reason, bytes: raw(&record) };
                    return Gathered { records, end: End::Failed(error) };
                }
            }
        }
        Gathered { records, end: End::Full }
    }

    /// Writes some records in one transaction. If one of them cannot become rows, those before
    /// it are written one by one.
    async fn write(&mut self, from: Stamp, records: &[Readable]) -> Result<(), StepError> {
        match self.write_once(from, records).await? {
            Ok(()) => return Ok(()),
            Err(poison) if records.len() == 1 => {
                let bytes = raw(&records[0].record);
                return Err(self.bury(poison, bytes));
            }
            Err(_) => {}
        }
        let mut from = from;
        for record in records.chunks(1) {
            if let Err(poison) = self.write_once(from, record).await? {
                return Err(self.bury(poison, raw(&record[0].record)));
            }
            from = end_of(from, record);
        }
        Ok(())
    }

    async fn write_once(
        &mut self,
        from: Stamp,
        records: &[Readable],
    ) -> Result<Result<(), Poison>, StepError> {
        if let Err(poison) = self.look_up(records).await? {
            return Ok(Err(poison));
        }
        let mut fold = Fold::new(&mut self.known);
        for record in records {
            if let Err(poison) = fold.add(record) {
                return Ok(Err(poison));
            }
        }
        let rows = fold.rows();
        let to = end_of(from, records);
        self.attempt = Some(to);
        let started = self.clock.monotonic_ns();
        match self.sink.write(from, to, &rows).await {
            Ok(()) => {
                let took_ns = self.clock.monotonic_ns().saturating_sub(started);
                let took = Duration::from_nanos(took_ns);
                self.pace.took((to.seq.0 - from.seq.0) as usize, took);
                self.state.wrote(rows.len(), took, last_time(records));
            }
            Err(SinkError::Refused(reason)) => {
                let seq = records[0].record.batch.first_seq().unwrap_or_default();
                return Ok(Err(Poison { seq, reason }));
            }
            Err(error) => {
                self.pace.failed();
                return Err(self.sink_failed(error));
            }
        }
        self.moved_to(to);
        Ok(Ok(()))
    }

    /// Finds the names and the buyers that the records need.
    async fn look_up(&mut self, records: &[Readable]) -> Result<Result<(), Poison>, StepError> {
        let (mut told, mut needs) = (HashSet::new(), Needs::default());
        records.iter().for_each(|record| record.needs(&mut told, &mut needs));
        self.known.houses.clear();
        for showtime in needs.houses {
            match self.names.house(showtime).await {
                Ok(house) => self.known.houses.insert(showtime, house),
                Err(NamesError::Away(reason)) => return Err(StepError::Away(reason)),
                Err(NamesError::Missing(reason)) => {
                    let seq = records[0].record.batch.first_seq().unwrap_or_default();
                    return Ok(Err(Poison { seq, reason }));
                }
            };
        }
        if self.known.buyers.len() > BUYERS_KEPT {
            self.known.buyers.clear();
        }
        let missing = |key: &_| !self.known.buyers.contains_key(key);
        let wanted: Vec<_> = needs.buyers.into_iter().filter(missing).collect();
        if !wanted.is_empty() {
            let found = self.sink.buyers(&wanted).await.map_err(|e| self.sink_failed(e))?;
            self.known.buyers.extend(found);
        }
        Ok(Ok(()))
    }

    fn sink_failed(&self, error: SinkError) -> StepError {
        match error {
            // A question is never refused, only what is to be written.
            SinkError::Away(_) | SinkError::Refused(_) => StepError::Away(error.to_string()),
            SinkError::AnotherWriter => {
                StepError::Left(WriterError::AnotherWriter(self.config.shard))
            }
            SinkError::Unusable(_) => StepError::Left(WriterError::Unusable(error.to_string())),
        }
    }

    fn source_failed(&mut self, error: SourceError) -> StepError {
        match error {
            SourceError::Away(reason) => StepError::Away(reason),
            SourceError::Unreadable { seq, reason, bytes } => {
                self.bury(Poison { seq, reason }, bytes)
            }
        }
    }

    /// Copies aside what cannot become rows, and leaves.
    fn bury(&mut self, poison: Poison, bytes: Vec<u8>) -> StepError {
        let shard = self.config.shard;
        let Poison { seq, reason } = poison;
        let letter = DeadLetter { shard, seq, reason: &reason, bytes: &bytes };
        match self.dead.keep(&letter) {
            Ok(()) => StepError::Left(WriterError::Poisoned { shard, seq, reason }),
            // Without the copy the alarm would have nothing to show; the disk may come back.
            Err(error) => StepError::Away(format!("cannot copy event {seq} aside: {error}")),
        }
    }
}

/// The part of a record that is new after `at`. Records of older reigns are void.
fn fresh(mut record: Record, at: Stamp) -> Option<Record> {
    if record.epoch < at.epoch {
        return None;
    }
    record.batch.events.retain(|words| words[0] > at.seq.0);
    record.batch.blobs.retain(|(seq, _)| *seq > at.seq);
    (!record.batch.events.is_empty()).then_some(record)
}

fn end_of(from: Stamp, records: &[Readable]) -> Stamp {
    let last = records.last().map(|readable| &readable.record);
    let end = |record: &Record| Some(Stamp { epoch: record.epoch, seq: record.batch.last_seq()? });
    last.and_then(end).unwrap_or(from)
}

/// When the last of some events was decided.
fn last_time(records: &[Readable]) -> TimeMs {
    records.last().and_then(Readable::last_time).unwrap_or_default()
}

/// The events of a record as they are.
fn raw(record: &Record) -> Vec<u8> {
    record.batch.events.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
}
