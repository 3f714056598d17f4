//! `tmomi writer`: the writer of rows as a process of its own, beside a server or after one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tmomi_persist::catalog::{Catalog, OpenError};
use tmomi_persist::shard::JOURNAL_DIR;
use tmomi_persist::writer::{JournalTail, Status, WriterError, WriterHandle, WriterState};
use tokio::net::TcpListener;

use crate::cli::{Failure, say};
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::identity;
use crate::kafka::{self, KafkaUse};
use crate::metrics;
use crate::rows::{self, DEAD_LETTERS_DIR, Output, Places};
use crate::serve::Signals;

/// How often it looks whether the writer has left.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The first wait for a database that is away at the start, and the longest.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Writes rows until SIGTERM or SIGINT.
///
/// # Errors
///
/// [`Failure`] that says why it left: [`Failure::Damaged`] for what cannot become rows.
pub(crate) fn run(settings: Settings) -> Result<(), Failure> {
    if settings.memory.is_on() {
        let what = "the setting memory keeps no journal, so there is nothing to write";
        return Err(Failure::Usage(what.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no thread: {error}")))?;
    runtime.block_on(until_stopped(settings))
}

async fn until_stopped(settings: Settings) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let places = Places::of(&settings, &settings.data)?;
    let inside = listen(&settings).await?;
    // What is wrong with it is said at once.
    tokio::select! {
        catalog = open_catalog(&places) => {
            let catalog = catalog?;
            let checked = identity::check_rows(&settings.data, &catalog, &places.catalog).await;
            rows::close(&catalog).await;
            checked?;
        }
        () = signals.next() => return Ok(()),
    }
    let into = places.rows.to_string();
    let writer = start(&settings, places)?;
    let state = Arc::clone(writer.state());
    say(&format!("Tmomi writes {} into {into}", settings.data.display()));
    let serving = async {
        match inside {
            // It serves until it is dropped.
            Some(listener) => drop(axum::serve(listener, router(Arc::clone(&state))).await),
            None => std::future::pending().await,
        }
    };
    let left = tokio::select! {
        why = has_left(&state) => Some(why),
        () = signals.next() => None,
        () = serving => None,
    };
    // Whoever asks has a moment to wait: a statement at most.
    writer.stop();
    left.map_or(Ok(()), |why| Err(failure(why)))
}

/// Opens the catalog, and waits for one that is away. What is wrong with it ends the process.
async fn open_catalog(places: &Places) -> Result<Catalog, Failure> {
    let mut wait = WAIT_MIN;
    loop {
        match Catalog::open(places.catalog.clone()).await {
            Ok(catalog) => return Ok(catalog),
            Err(OpenError::Unavailable(error)) => {
                tracing::warn!(%error, ?wait, "the writer waits for the catalog");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
            Err(error) => return Err(places.failed(&error)),
        }
    }
}

/// Behind the topic where there is one, or else behind the journal.
fn start(settings: &Settings, places: Places) -> Result<WriterHandle, Failure> {
    let output =
        Output { data: settings.data.clone(), places, clock: Arc::new(SystemClock::start()) };
    let started = match settings.kafka {
        KafkaUse::Off => output.spawn(JournalTail::new(settings.data.join(JOURNAL_DIR), 0)),
        KafkaUse::Stream | KafkaUse::Log => kafka::start_writer(settings, output),
    };
    started.map_err(|error| Failure::Failed(format!("no thread for the writer: {error}")))
}

async fn has_left(state: &WriterState) -> WriterError {
    loop {
        if let Status::Failed(why) = state.status() {
            return why;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn failure(why: WriterError) -> Failure {
    match why {
        WriterError::Poisoned { .. } => Failure::Damaged(format!(
            "{why}; a copy is in the folder {DEAD_LETTERS_DIR}, and the rows end before it"
        )),
        WriterError::Unusable(_) => Failure::Damaged(why.to_string()),
        why => Failure::Failed(why.to_string()),
    }
}

async fn listen(settings: &Settings) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = settings.metrics_listen.0 else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::Failed(format!("cannot listen on {address}: {error}; check --metrics-listen"))
    })?;
    Ok(Some(listener))
}

/// What Prometheus and whoever restarts it ask.
fn router(state: Arc<WriterState>) -> Router {
    let ready = Arc::clone(&state);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(move || std::future::ready(readiness(&ready))))
        .route("/metrics", get(move || std::future::ready(metrics::of_writer(&state))))
}

fn readiness(state: &WriterState) -> (StatusCode, String) {
    match state.status() {
        Status::Running => (StatusCode::OK, "ok\n".to_owned()),
        Status::Waiting(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("waits: {why}\n")),
        Status::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped\n".to_owned()),
        Status::Failed(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("has left: {why}\n")),
    }
}
