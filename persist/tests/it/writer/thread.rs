//! A writer on a thread of its own.

use std::time::Duration;

use tmomi_persist::writer::{
    DeadLetters, Record, Source, SourceError, Stamp, Status, Writer, WriterError, spawn,
};

use super::clock::clock;
use super::log::{Dice, MadeUp};
use super::{PATIENCE, Shared, TwoHouses, assert_same, config, open, rows, writer};
use crate::databases::sqlite;

#[tokio::test]
async fn a_writer_on_its_thread_follows_and_stops() {
    let (database, mut dice) = (sqlite("sales.db"), Dice(13));
    let folder = database.folder.path();
    let mut log = MadeUp::new();
    log.grow(&mut dice, 10);
    let shared = Shared::of(&log);
    let sink = open(&database).await;
    let handle = spawn(writer(folder, 60, &shared, sink)).unwrap();
    let reach = async |seq| {
        while handle.state().position() < seq {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    reach(log.last()).await;
    let known = log.records.len();
    log.grow(&mut dice, 10);
    shared.push(&log.records[known..]);
    reach(log.last()).await;
    assert_eq!(handle.state().status(), Status::Running);
    let state = handle.state().clone();
    handle.stop();
    assert_eq!(state.status(), Status::Stopped);
    assert!(state.rows() > 0);
    assert_same(&log, rows(&database).await);
}

/// Planted bug: the state stays as it was before.
#[tokio::test]
async fn a_writer_that_panicked_is_not_at_work() {
    struct Broken;
    impl Source for Broken {
        fn seek(&mut self, _: Stamp) -> Result<(), SourceError> {
            panic!("a bug");
        }
        fn next(&mut self) -> Result<Option<Record>, SourceError> {
            Ok(None)
        }
    }
    let database = sqlite("sales.db");
    let dead = DeadLetters::new(database.folder.path().join("dead"));
    let sink = open(&database).await;
    let writer = Writer::new(config(60), Broken, sink, TwoHouses::new(), dead, clock());
    let state = writer.state();
    let handle = spawn(writer).unwrap();
    let ended = async {
        while state.status() == Status::Running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it is not at work");
    handle.stop();
    assert_eq!(state.status(), Status::Failed(WriterError::Panicked));
}
