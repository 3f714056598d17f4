//! A partition as a history: for recovery, snapshots, the audit trail and a comparison of rows.

use std::time::Duration;

use tmomi_engine::ids::Seq;

use super::config::KafkaConfig;
use super::error::KafkaError;
use super::records::{Known, Records, Step};
use crate::frame::Frame;
use crate::history::{Frames, History, HistoryError};

/// How long a look takes that finds nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Looks that find nothing, one after the other, until the broker counts as away.
const LOOKS_MAX: u32 = 100;

/// The events of a shard as its partition has them.
#[derive(Clone, Debug)]
pub struct KafkaHistory {
    config: KafkaConfig,
    shard: u32,
}

impl KafkaHistory {
    /// The partition of `shard`. Asks nobody yet.
    pub fn new(config: KafkaConfig, shard: u32) -> KafkaHistory {
        KafkaHistory { config, shard }
    }
}

impl History for KafkaHistory {
    fn after(&self, after: Seq) -> Result<Box<dyn Frames>, HistoryError> {
        let mut records = Records::open(&self.config, self.shard)?;
        records.seek(after, None)?;
        Ok(Box::new(KafkaFrames(records)))
    }
}

struct KafkaFrames(Records);

impl Frames for KafkaFrames {
    fn read_to(&mut self, committed: Seq) -> Result<Option<Frame>, HistoryError> {
        if self.0.after() >= committed {
            return Ok(None);
        }
        Ok(Some(next(&mut self.0, committed)?))
    }
}

/// The next frame, of which somebody knows that it is there: up to event `committed`.
fn next(records: &mut Records, committed: Seq) -> Result<Frame, KafkaError> {
    let mut looks = 0;
    while looks < LOOKS_MAX {
        match records.step(LOOK)? {
            Step::Frame(frame) => return Ok(frame),
            Step::Void => {}
            Step::End | Step::Nothing => looks += 1,
        }
    }
    Err(records.missing(committed))
}

/// Reads the partition from behind event `after`, which is `known`, to where it ends now, and gives
/// every frame to `take`.
pub(super) fn read_all<E: From<KafkaError>>(
    records: &mut Records,
    after: Seq,
    known: Option<Known>,
    mut take: impl FnMut(Frame) -> Result<(), E>,
) -> Result<(), E> {
    records.seek(after, known)?;
    let mut looks = 0;
    while looks < LOOKS_MAX {
        match records.step(LOOK)? {
            Step::Frame(frame) => take(frame)?,
            Step::Void => {}
            Step::Nothing => {
                looks += 1;
                continue;
            }
            Step::End => return Ok(()),
        }
        looks = 0;
    }
    Err(records.tail().away("the partition is not read to its end".to_owned()).into())
}
