//! From a topic to an image and a log that goes on behind it.

use super::config::KafkaConfig;
use super::history::read_all;
use super::log::KafkaLog;
use super::records::{Known, Records};
use super::topic::{self, Use};
use crate::recovery::{Recovered, RecoveryError, Replay};
use crate::snapshot::Snapshots;
use tmomi_engine::ids::Epoch;

/// Reads the newest snapshot and what the partition of `shard` has after it. Gives the image, the
/// log that goes on there, and the highest epoch that anybody has begun.
pub(crate) fn open(
    config: &KafkaConfig,
    shard: u32,
    snapshots: &Snapshots,
) -> Result<(Recovered, KafkaLog, Epoch), RecoveryError> {
    let topic = topic::prepare(config, Use::Log, true, config.patience)?;
    let newest = snapshots.list()?.into_iter().next();
    let mut replay = Replay::begin(snapshots, newest)?;
    let (after, epoch) = (replay.applied(), replay.image().epoch());
    let known = replay.snapshot().map(|snapshot| Known { epoch, what: snapshot.file.clone() });
    let mut records = Records::open(config, shard)?;
    read_all(&mut records, after, known, |frame| replay.take(&frame))?;
    let seen = records.chain().epoch.max(replay.image().epoch());
    let log = KafkaLog::open(config, shard, records, topic.bytes_max)?;
    Ok((replay.finish(), log, seen))
}
