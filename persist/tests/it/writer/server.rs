//! What only a database of its own process does to a writer: it picks it as the victim of a
//! deadlock, keeps it waiting, and takes no writes for a while.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor};
use tmomi_persist::writer::Status;

use super::log::{Dice, MadeUp};
use super::{PATIENCE, Shared, assert_same, open, rows, until, writer};
use crate::databases::{self, Database};
use crate::servers::{Kind, Own};

/// Rows of the other session, so that the writer is the cheaper one to undo.
const OTHER_ROWS: usize = 20_000;
/// On a busy machine the moment for a deadlock may be missed: how long it is looked for, and how
/// often it is tried.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const SCENES_MAX: usize = 20;

async fn has_transaction(database: &Database, which: &str) {
    let asked = async {
        while !database.has_transaction(which).await {
            tokio::time::sleep(databases::TRANSACTIONS_SEEN_AFTER).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it comes to that");
}

/// R8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_victim_of_a_deadlock_writes_its_batch_again_once() {
    let database = databases::mysql().await.with_catalog().await;
    let folder = database.folder.path();
    let (mut log, mut dice) = (MadeUp::new(), Dice(71));
    log.grow(&mut dice, 40);
    let shared = Shared::of(&log);
    until(&mut writer(folder, 1_000, &shared, open(&database).await), log.last()).await;
    let sink = open(&database).await;
    let handle = tmomi_persist::writer::spawn(writer(folder, 1_000, &shared, sink)).unwrap();
    database.run("CREATE TABLE other (n BIGINT PRIMARY KEY)").await;
    let many: Vec<_> = (0..OTHER_ROWS).map(|n| format!("({n})")).collect();
    let insert = format!("INSERT INTO other VALUES {}", many.join(", "));
    let mut other = database.connect().await;
    let mut told = false;
    for _ in 0..SCENES_MAX {
        // The other session has every entry; the writer gets the position and waits for one; then
        // the other wants the position, unless the writer has waited too long by then.
        let mut tx = other.begin().await.unwrap();
        tx.execute(AssertSqlSafe(insert.as_str())).await.unwrap();
        tx.execute("SELECT entry FROM line_entry FOR UPDATE").await.unwrap();
        let known = log.records.len();
        log.grow(&mut dice, 40);
        shared.push(&log.records[known..]);
        has_transaction(&database, "trx_state = 'LOCK WAIT'").await;
        tx.execute("UPDATE shard_position SET sequence = sequence").await.unwrap();
        let deadlock = async {
            let state = handle.state();
            while !matches!(state.status(), Status::Waiting(why) if why.contains("1213")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        told = tokio::time::timeout(TOLD_WITHIN, deadlock).await.is_ok();
        tx.rollback().await.unwrap();
        reached(&handle, &log).await;
        if told {
            break;
        }
    }
    assert!(told, "the writer is told of the deadlock");
    handle.stop();
    assert_same(&log, rows(&database).await);
}

/// R12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_for_a_while_is_waited_for() {
    let own = Own::start(Kind::MySql);
    let database = databases::on_server("MySQL", own.address()).await.with_catalog().await;
    let folder = database.folder.path();
    let (mut log, mut dice) = (MadeUp::new(), Dice(72));
    log.grow(&mut dice, 40);
    let shared = Shared::of(&log);
    let sink = open(&database).await;
    let handle = tmomi_persist::writer::spawn(writer(folder, 1_000, &shared, sink)).unwrap();
    reached(&handle, &log).await;
    database.run("SET GLOBAL super_read_only = ON").await;
    let known = log.records.len();
    log.grow(&mut dice, 40);
    shared.push(&log.records[known..]);
    let told = async {
        while !matches!(handle.state().status(), Status::Waiting(why) if why.contains("read-only"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the reason is told");
    database.run("SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF").await;
    reached(&handle, &log).await;
    handle.stop();
    assert_same(&log, rows(&database).await);
}

async fn reached(handle: &tmomi_persist::writer::WriterHandle, log: &MadeUp) {
    let all = async {
        while handle.state().position() < log.last() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    in_time.unwrap_or_else(|_| panic!("the rows follow: {:?}", handle.state().status()));
}
