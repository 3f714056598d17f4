//! Commands that look at files and serve nothing.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tmomi_engine::ids::Seq;
use tmomi_persist::journal::{self, JournalError};
use tmomi_persist::plan::Plan;
use tmomi_persist::shard::{JOURNAL_DIR, SNAPSHOT_DIR};
use tmomi_persist::snapshot::{SnapshotError, Snapshots};

use crate::cli::{Failure, JournalCommand, SnapshotCommand, say};
use crate::config::Settings;
use crate::text::When;

/// `tmomi journal ...`
pub(crate) fn journal(settings: &Settings, command: JournalCommand) -> Result<(), Failure> {
    let dir = journal_dir(settings)?;
    match command {
        JournalCommand::Verify => verify_journal(&dir),
        JournalCommand::Dump { after } => dump_journal(&dir, Seq(after)),
    }
}

/// The folder of the journal, which must be there.
///
/// # Errors
///
/// [`Failure::Failed`] if it is not.
pub(crate) fn journal_dir(settings: &Settings) -> Result<PathBuf, Failure> {
    let dir = settings.data.join(JOURNAL_DIR);
    if !dir.is_dir() {
        let dir = dir.display();
        return Err(Failure::Failed(format!("there is no journal at {dir}; check --data")));
    }
    Ok(dir)
}

fn verify_journal(dir: &Path) -> Result<(), Failure> {
    let report = journal::verify(dir).map_err(|error| journal_failure(&error))?;
    for reign in &report.epochs {
        say(&format!("epoch {}: events {} to {}", reign.epoch, reign.first, reign.last));
    }
    if let Some(torn) = &report.torn {
        let (file, offset, bytes) = (torn.file.display(), torn.offset, torn.bytes);
        say(&format!(
            "{file}: an incomplete frame of {bytes} bytes at byte {offset}, never committed; the \
             next start cuts it off"
        ));
    }
    if let Some(damage) = report.damage {
        return Err(journal_failure(&damage));
    }
    let end = if report.closed { "closed in order" } else { "not closed" };
    let (segments, frames, events, bytes) =
        (report.segments, report.frames, report.events, report.bytes);
    say(&format!(
        "the journal is sound: {events} events in {frames} frames, {bytes} bytes in {segments} \
         segments, {end}"
    ));
    Ok(())
}

/// An event as a line of a dump.
#[derive(Serialize)]
struct Line {
    epoch: u32,
    seq: u64,
    at: When,
    showtime: u32,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
}

fn dump_journal(dir: &Path, after: Seq) -> Result<(), Failure> {
    for dumped in journal::dump(dir, after).map_err(|error| journal_failure(&error))? {
        let dumped = dumped.map_err(|error| journal_failure(&error))?;
        let event = dumped.event;
        let more = if event.more_follows { " ..." } else { "" };
        let text = |blob: Box<[u8]>| match std::str::from_utf8(&blob) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("({} bytes)", blob.len()),
        };
        let line = Line {
            epoch: dumped.epoch.0,
            seq: event.seq.0,
            at: When(event.at),
            showtime: event.showtime.0,
            event: format!("{:?}{more}", event.body),
            blob: dumped.blob.map(text),
        };
        // JSON escapes what a terminal would obey.
        say(&serde_json::to_string(&line).expect("text and numbers"));
    }
    Ok(())
}

/// What an operator does about a journal that does not open.
pub(crate) fn journal_failure(error: &JournalError) -> Failure {
    match error {
        JournalError::Io { .. } => {
            Failure::Failed(format!("{error}; is there room, and is it ours?"))
        }
        JournalError::InUse { .. } => {
            Failure::Failed(format!("{error}; stop that one or use another --data"))
        }
        JournalError::NewerVersion { .. } => Failure::Failed(error.to_string()),
        _ => Failure::Damaged(format!("{error}; nothing was changed: restore it from a copy")),
    }
}

/// `tmomi snapshot ...`
pub(crate) fn snapshot(settings: &Settings, command: SnapshotCommand) -> Result<(), Failure> {
    let dir = settings.data.join(SNAPSHOT_DIR);
    if !dir.is_dir() {
        let dir = dir.display();
        return Err(Failure::Failed(format!("there are no snapshots at {dir}; check --data")));
    }
    let snapshots = Snapshots::local(&dir, 0).map_err(snapshot_failure)?;
    let all = snapshots.list().map_err(snapshot_failure)?;
    if all.is_empty() {
        say("there is no snapshot yet");
    }
    for info in all {
        let (file, seq, bytes) = (&info.file, info.seq, info.bytes);
        match command {
            SnapshotCommand::List => say(&format!("event {seq}: {bytes} bytes, {file}")),
            SnapshotCommand::Verify => {
                let image = snapshots.read(&info).map_err(snapshot_failure)?;
                let showtimes = image.showtimes().len();
                say(&format!("event {seq}: sound, {showtimes} showtimes, {file}"));
            }
        }
    }
    Ok(())
}

pub(crate) fn snapshot_failure(error: SnapshotError) -> Failure {
    match error {
        error @ SnapshotError::Store { .. } => Failure::Failed(error.to_string()),
        error => Failure::Damaged(error.to_string()),
    }
}

/// `tmomi plan check FILE`
pub(crate) fn plan(file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::Failed(format!("cannot read {shown}: {error}")))?;
    let plan = Plan::from_json(&bytes)
        .map_err(|error| Failure::Damaged(format!("{shown} cannot be sold: {error}")))?;
    let report = serde_json::to_string_pretty(&plan.report()).expect("text and numbers");
    say(&report);
    Ok(())
}
