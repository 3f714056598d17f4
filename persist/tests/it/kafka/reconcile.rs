//! R8 with a topic as the log: what it has is what the rows are compared with.

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::admin::AdminOptions;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::history::History;
use tmomi_persist::kafka::{KafkaConfig, KafkaHistory};
use tmomi_persist::snapshot::Encoded;
use tmomi_persist::writer::reconcile::{Mode, Past, ReconcileError, Report};

use super::source::zombie;
use super::{Pen, admin, block_on, make, produce, topic};
use crate::databases::sqlite;
use crate::writer::reconcile::{OneHouse, Stage, harm};

/// A topic that gets what a stage's journal has.
struct Copy {
    kafka: KafkaConfig,
    pen: Pen,
    /// Of an owner who has not noticed that his reign has ended.
    old: Pen,
    epoch: Epoch,
    last: Seq,
    records: i64,
}

impl Copy {
    fn new(name: &str) -> Copy {
        let (kafka, pen, old) = (topic(name), Pen::default(), Pen::default());
        make(&kafka, 1, &[]);
        Copy { kafka, pen, old, epoch: Epoch(0), last: Seq(0), records: 0 }
    }

    /// Up to event `to`; where a reign has begun, an older one goes on writing for a while.
    fn catch_up(&mut self, stage: &Stage, to: Seq) {
        let mut frames = stage.journal().after(self.last).unwrap();
        let mut values = Vec::new();
        while let Some(frame) = frames.read_to(to).unwrap() {
            values.push(self.pen.frame(frame.epoch, &frame.batch));
            self.last = frame.batch.last_seq().unwrap();
            if frame.epoch > self.epoch && self.epoch > Epoch(0) {
                values.extend(zombie(self.epoch.0, self.last.next(), 20, &mut self.old));
            }
            self.epoch = frame.epoch;
        }
        self.records += values.len() as i64;
        produce(&self.kafka, &values);
    }

    fn history(&self) -> Arc<KafkaHistory> {
        Arc::new(KafkaHistory::new(self.kafka.clone(), 0))
    }

    /// Removes the first records, as a finite retention would.
    fn remove(&self, count: i64) {
        let mut list = TopicPartitionList::new();
        let to = Offset::Offset(count);
        list.add_partition_offset(&self.kafka.topic, 0, to).expect("a partition");
        let done = block_on(admin(&self.kafka).delete_records(&list, &AdminOptions::new()));
        done.expect("the broker answers").elements()[0].error().expect("they are removed");
    }
}

async fn reconcile(
    stage: &Stage,
    past: &Past,
    mode: Mode,
) -> Result<(Report, BTreeSet<String>), ReconcileError> {
    stage.reconcile_with(past, mode, &mut OneHouse::new()).await
}

/// Planted bugs: the last record is left out; a record of an ended reign counts.
#[tokio::test]
async fn rows_are_compared_with_the_topic_and_repaired_from_it() {
    let mut stage = Stage::on(sqlite("sales.db"), 61).await;
    let mut copy = Copy::new("reconcile");
    for turn in 0..6 {
        stage.go_on(300);
        if turn == 2 {
            stage.snapshots().write(Encoded::of(&stage.image)).unwrap();
        }
    }
    stage.write().await;
    copy.catch_up(&stage, stage.last());
    assert!(copy.epoch > Epoch(2), "several reigns");
    let before = stage.rows().await;
    let from_its_front = Past::new(copy.history(), None);
    let from_a_snapshot = Past::new(copy.history(), Some(stage.snapshots()));
    for past in [&from_its_front, &from_a_snapshot] {
        let (report, told) = reconcile(&stage, past, Mode::Check).await.unwrap();
        assert!(told.is_empty(), "{told:#?}");
        assert_eq!(report.position.seq, stage.last());
        let harmed = harm(&stage).await;
        assert_eq!(reconcile(&stage, past, Mode::Check).await.unwrap().1, harmed);
        assert_eq!(reconcile(&stage, past, Mode::Repair).await.unwrap().1, harmed);
        // With the payment references, which no image has.
        stage.assert_rows(&before).await;
    }
}

/// Planted bugs: a topic that ends counts as one that is away; one whose front is gone is not asked
/// for the payment references that it still has.
#[tokio::test]
async fn a_topic_without_its_tail_or_its_front_says_what_it_can() {
    let mut stage = Stage::on(sqlite("sales.db"), 63).await;
    let mut copy = Copy::new("ends");
    stage.go_on(300);
    copy.catch_up(&stage, stage.last());
    stage.snapshots().write(Encoded::of(&stage.image)).unwrap();
    let (removed, end) = (copy.records, stage.last());
    stage.go_on(300);
    stage.write().await;
    let past = Past::new(copy.history(), Some(stage.snapshots()));
    let why = reconcile(&stage, &past, Mode::Repair).await.expect_err("it ends").to_string();
    assert!(why.contains(&format!("ends at event {end}")), "{why}");
    copy.catch_up(&stage, stage.last());
    copy.remove(removed);

    let before = stage.rows().await;
    stage.database.run("DELETE FROM ticket_order").await;
    reconcile(&stage, &past, Mode::Repair).await.unwrap();
    let found = stage.rows().await;
    let paid = |rows: &BTreeSet<String>| rows.iter().filter(|row| row.contains(" paid ")).count();
    assert!(0 < paid(&found) && paid(&found) < paid(&before), "{found:#?}");
    let unpaid = |rows: &BTreeSet<String>| -> BTreeSet<String> {
        rows.iter().map(|row| row.replace(" paid ", " null ")).collect()
    };
    assert_eq!(unpaid(&found), unpaid(&before));
    let past = Past::new(copy.history(), None);
    let why = reconcile(&stage, &past, Mode::Check).await.expect_err("no front").to_string();
    assert!(why.contains("retention"), "{why}");
}
