//! `tmomi reconcile`: are the rows what the log says, and if not, make them so.

use std::sync::Arc;

use clap::Args;
use tmomi_persist::history::JournalHistory;
use tmomi_persist::recovery::RecoveryError;
use tmomi_persist::shard::SNAPSHOT_DIR;
use tmomi_persist::snapshot::Snapshots;
use tmomi_persist::writer::CatalogNames;
use tmomi_persist::writer::reconcile::{self, Mode, Past, ReconcileError, Report};

use crate::cli::{Failure, say};
use crate::config::Settings;
use crate::inspect::{journal_dir, journal_failure, snapshot_failure};
use crate::rows::Places;
use crate::{identity, kafka};

/// The shard of this process.
const SHARD: u32 = 0;

/// How.
#[derive(Clone, Copy, Debug, Args)]
pub struct Reconcile {
    /// Make the rows what they should be, all of them or none
    #[arg(long)]
    pub repair: bool,
}

/// Runs the command: a line for each difference, then what was compared.
///
/// # Errors
///
/// [`Failure::Failed`] if there are differences and they stay, or if it cannot be known.
pub(crate) fn run(settings: &Settings, wish: Reconcile) -> Result<(), Failure> {
    let history = match kafka::history(settings) {
        Some(topic) => topic,
        None => Arc::new(JournalHistory(journal_dir(settings)?)),
    };
    let past = Past::new(history, snapshots(settings)?);
    let places = Places::of(settings, &settings.data)?;
    places.must_exist()?;
    let mode = if wish.repair { Mode::Repair } else { Mode::Check };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no thread: {error}")))?;
    let report = runtime.block_on(async {
        let catalog = places.open_catalog().await?;
        identity::check_rows(&settings.data, &catalog, &places.catalog).await?;
        let mut names = CatalogNames::new(catalog.clone());
        let tell = &mut |difference: &reconcile::Difference| say(&difference.to_string());
        let done = reconcile::reconcile(&places.rows, SHARD, &past, &mut names, mode, tell).await;
        catalog.close().await;
        done.map_err(|error| failure(error, &places))
    })?;
    tell(&report, mode)
}

/// Of another machine's house there are none, and a topic has all of it.
fn snapshots(settings: &Settings) -> Result<Option<Snapshots>, Failure> {
    let dir = settings.data.join(SNAPSHOT_DIR);
    let snapshots = dir.is_dir().then(|| Snapshots::local(&dir, SHARD)).transpose();
    snapshots.map_err(snapshot_failure)
}

fn tell(report: &Report, mode: Mode) -> Result<(), Failure> {
    for table in &report.tables {
        say(&format!(
            "{}: {} rows, {} missing, {} too many, {} columns wrong",
            table.table, table.rows, table.missing, table.too_many, table.columns
        ));
    }
    let position = report.position;
    let at = format!("at event {} of epoch {}", position.seq, position.epoch);
    match (report.differences(), mode) {
        (0, _) => say(&format!("no differences {at}")),
        (count, Mode::Repair) => say(&format!("{count} differences {at}, all repaired")),
        (count, Mode::Check) => {
            let what = "`tmomi reconcile --repair` makes the rows what the log says";
            return Err(Failure::Failed(format!("{count} differences {at}; {what}")));
        }
    }
    Ok(())
}

fn failure(error: ReconcileError, places: &Places) -> Failure {
    if let ReconcileError::Past { cause, .. } = &error
        && let Some(hint) = kafka::failure_hint(cause)
    {
        return Failure::Failed(hint);
    }
    match error {
        ReconcileError::Open(error) => places.failed(&error),
        ReconcileError::Past { cause: RecoveryError::Journal(error), .. } => {
            journal_failure(&error)
        }
        ReconcileError::Past { cause: RecoveryError::Snapshot(error), .. } => {
            snapshot_failure(error)
        }
        ReconcileError::Past { cause: RecoveryError::Diverged(_), .. } => {
            Failure::Damaged(error.to_string())
        }
        error => Failure::Failed(format!("{}: {error}; nothing was changed", places.rows)),
    }
}
