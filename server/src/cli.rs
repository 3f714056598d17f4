//! The command line: what can be asked of the binary, and what its exit code says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, ConfigError, Layer, Settings, Switch};
use crate::export::Export;
use crate::logging;
use crate::reconcile::Reconcile;

const EXAMPLES: &str = "\
EXIT CODES
  0  it is done
  1  it failed; the last line says what, where, and what to do
  2  the command line or a setting is not understood
  3  the journal, a snapshot or the plan is damaged or not usable

FILES
  DIR/catalog.db     accounts, venues, shows, prices (SQLite)
  DIR/journal/       what was sold, in the order of its decision
  DIR/snapshots/     the journal up to a number, folded
  DIR/sales.db       orders and tickets as rows (SQLite)
  DIR/dead-letters/  what could not become rows

EXAMPLES
  tmomi                                  serve on http://127.0.0.1:8080 with a demo show
  tmomi serve --data /var/lib/tmomi      serve
  tmomi serve --config tmomi.toml        with settings from a file, like: listen = \"[::]:80\"
  TMOMI_ADMIN_EMAIL=a@b.example TMOMI_ADMIN_PASSWORD=... tmomi serve
  TMOMI_DATABASE=mysql://... tmomi serve  catalog and rows in MySQL or MariaDB
  tmomi writer --data DIR                write the rows from a process of its own
  tmomi journal verify --data DIR        read every frame and check it
  tmomi reconcile --data DIR             are the rows what the log says? --repair: make them so
  tmomi export orders --data DIR         as CSV; `tickets`, `--format jsonl`, `--showtime 7`
  tmomi plan check hall.json             would this seating plan be accepted?";

/// Sells seats: a waiting line, a live seat map, holds and orders, in one process
///
/// Tmomi serves an HTTP interface (see /docs on a running server) and keeps what it has decided
/// in a journal in its data folder. Without a command it serves, and on an empty data folder
/// makes a demo show first.
///
/// Every setting is also an environment variable, TMOMI_NAME, and a name in the settings file.
/// A flag wins over the environment, the environment over the file.
#[derive(Debug, Parser)]
#[command(name = "tmomi", version, after_long_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", env = "TMOMI_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// The settings that stand on the command line or in the environment.
    #[command(flatten)]
    pub settings: Layer,
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT
    Serve,
    /// Write orders and tickets as rows, beside a server that has `--writer off`
    ///
    /// It follows the journal in the data folder, and writes into the database that the server
    /// has for its catalog. Any number of them may be started: one writes, the others leave. What
    /// cannot become a row is kept in the folder dead-letters, and ends the process.
    Writer,
    /// Compare the rows with the log, and print every difference; a server may run on them
    ///
    /// Compared are the rows as they are at one moment with what the log adds up to at the
    /// event for which they stand. Exit code 0 says that there is no difference, or that all were
    /// repaired; 1 that there are some, a line each.
    Reconcile(Reconcile),
    /// Print orders or tickets, as CSV or JSON lines; a server may run on them
    ///
    /// Ids are those of the HTTP interface, times are RFC 3339 in UTC, prices are in the
    /// currency's minor unit. Text is as it is: one that begins with = + - or @ is a formula to a
    /// spreadsheet that is not told to read the column as text.
    Export(Export),
    /// Look at a journal; a server may run on it
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Look at snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look at a seating plan
    #[command(subcommand)]
    Plan(PlanCommand),
}

/// What can be done with a journal.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum JournalCommand {
    /// Read every frame, check it, and say how far it goes
    Verify,
    /// Print every event, one line each
    Dump {
        /// Only events after this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
    },
}

/// What can be done with snapshots.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Print number, size and time of each
    List,
    /// Read each and check it
    Verify,
}

/// What can be done with a plan.
#[derive(Clone, Debug, Subcommand)]
pub enum PlanCommand {
    /// Say what an import would read, or what is wrong and where
    Check {
        /// A pretix seating plan (JSON), or {"generate": ...}
        file: PathBuf,
    },
}

/// Why a command ended early. The text is one line for a person.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked failed.
    #[error("{0}")]
    Failed(String),
    /// A setting is not understood.
    #[error("{0}")]
    Usage(String),
    /// Data is damaged or not usable.
    #[error("{0}")]
    Damaged(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Damaged(_) => 3,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Runs the binary with the process's arguments and environment.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done if the terminal is gone.
            let _ = error.print();
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if help { 0 } else { 2 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say_error(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&Cli::command().try_get_matches()?)
}

fn run(cli: Cli) -> Result<(), Failure> {
    // Whatever is made from here on is for its owner only: the catalog has the keys that sign
    // tokens, and the data folder may be one that everybody reads.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    config::check_names(names)?;
    let file = cli.config.as_deref().map(config::read_file).transpose()?.unwrap_or_default();
    let mut layer = cli.settings.over(file);
    if cli.command.is_none() {
        layer.demo = layer.demo.or(Some(Switch::On));
    }
    let settings = Settings::from(layer);
    settings.check()?;
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            start_logging(&settings)?;
            crate::serve::serve(settings)
        }
        Command::Writer => {
            start_logging(&settings)?;
            crate::sidecar::run(settings)
        }
        Command::Reconcile(wish) => crate::reconcile::run(&settings, wish),
        Command::Export(wish) => crate::export::run(&settings, &wish),
        Command::Journal(command) => crate::inspect::journal(&settings, command),
        Command::Snapshot(command) => crate::inspect::snapshot(&settings, command),
        Command::Plan(PlanCommand::Check { file }) => crate::inspect::plan(&file),
    }
}

fn start_logging(settings: &Settings) -> Result<(), Failure> {
    let usage = |error| Failure::Usage(format!("the setting log is not understood: {error}"));
    logging::start(settings.log_format, &settings.log).map_err(usage)
}

/// Writes a line on standard output. A reader that went away is not an error.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn say_error(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "tmomi: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_stand_before_or_behind_the_command() {
        for args in [["tmomi", "--node", "7", "serve"], ["tmomi", "serve", "--node", "7"]] {
            let cli = Cli::try_parse_from(args).expect("arguments that are understood");
            assert_eq!(cli.settings.node, Some(7));
        }
    }

    #[test]
    fn an_unknown_setting_is_refused_by_its_name() {
        let error = Cli::try_parse_from(["tmomi", "--lisen", "x"]).expect_err("a typo");
        assert!(error.to_string().contains("--lisen"));
    }
}
