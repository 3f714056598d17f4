//! A partition as a writer's source.

use std::time::Duration;

use tmomi_engine::ids::Seq;

use super::config::KafkaConfig;
use super::error::{KafkaError, TopicFault};
use super::records::{Known, Records, Step};
use crate::writer::{Record, Source, SourceError, Stamp};

/// How long a look takes that finds nothing: the writer rests by itself.
const LOOK: Duration = Duration::from_millis(1);
/// How long the broker gathers before it answers, unless there is more or the operator says
/// otherwise. A sale of single orders makes thousands of records a second, and the writer has no
/// use for each of them at once: its transactions are larger and rarer.
const GATHER: [(&str, &str); 2] = [("fetch.min.bytes", "262144"), ("fetch.wait.max.ms", "25")];
/// Records that change nothing which one call passes over: a partition may be full of them, and
/// between two calls the writer can be stopped.
const VOIDS_MAX: usize = 4_096;

/// The events of a shard as its partition has them.
pub struct KafkaSource {
    config: KafkaConfig,
    shard: u32,
    /// Whether somebody fills the topic who may be behind the rows.
    follows_a_journal: bool,
    /// `None` before the first seek.
    records: Option<Records>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// The partition of `shard`. Asks nobody yet.
    pub fn new(mut config: KafkaConfig, shard: u32) -> KafkaSource {
        let gather = GATHER.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.properties.splice(..0, gather);
        KafkaSource { config, shard, follows_a_journal: false, records: None }
    }

    /// The topic is filled from a journal, which rows may have been written from, too: where it
    /// ends before them, it will have what is missing.
    #[must_use]
    pub fn behind_a_journal(self) -> KafkaSource {
        KafkaSource { follows_a_journal: true, ..self }
    }

    fn refuse(&self, error: KafkaError, next: Seq) -> SourceError {
        let is_late = matches!(&error, KafkaError::Topic { fault: TopicFault::Behind { .. }, .. });
        if self.follows_a_journal && is_late {
            return SourceError::Away(error.to_string());
        }
        refuse(error, next)
    }
}

impl Source for KafkaSource {
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError> {
        let Stamp { epoch, seq: after } = after;
        self.records = None;
        let refuse = |error| self.refuse(error, after.next());
        let mut records = Records::open(&self.config, self.shard).map_err(refuse)?;
        let known = (after > Seq(0)).then(|| Known { epoch, what: "the rows".to_owned() });
        records.seek(after, known).map_err(refuse)?;
        self.records = Some(records);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let Some(records) = &mut self.records else { return Ok(None) };
        for _ in 0..VOIDS_MAX {
            match records.step(LOOK) {
                Ok(Step::Frame(frame)) => {
                    return Ok(Some(Record { epoch: frame.epoch, batch: frame.batch }));
                }
                Ok(Step::Void) => {}
                Ok(Step::End | Step::Nothing) => return Ok(None),
                Err(error) => {
                    let next = records.after().next();
                    return Err(self.refuse(error, next));
                }
            }
        }
        Ok(None)
    }
}

fn refuse(error: KafkaError, next: Seq) -> SourceError {
    if error.may_pass() {
        return SourceError::Away(error.to_string());
    }
    let reason = error.to_string();
    match error {
        KafkaError::Record { seq, bytes, .. } => SourceError::Unreadable { seq, reason, bytes },
        _ => SourceError::Unreadable { seq: next, reason, bytes: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted bug: what the program gathers comes last.
    #[test]
    fn the_operator_says_how_long_the_broker_gathers() {
        let mut config = KafkaConfig::new("a:1", "t");
        config.properties = vec![("fetch.wait.max.ms".to_owned(), "3".to_owned())];
        let client = KafkaSource::new(config, 0).config.consumer(0);
        assert_eq!(client.get("fetch.wait.max.ms"), Some("3"));
        assert_eq!(client.get("fetch.min.bytes"), Some("262144"));
    }
}
