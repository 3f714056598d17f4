//! For whoever runs the server.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tmomi_persist::writer::Status;

use crate::app::{App, AppState};
use crate::metrics::{Levels, of_writer};

/// What Prometheus' text format calls itself.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process answers
#[utoipa::path(get, path = "/healthz", tag = "operating", responses((status = 200)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can sell; says why not
#[utoipa::path(
    get, path = "/readyz", tag = "operating", responses((status = 200), (status = 503)),
)]
pub(crate) async fn readyz(State(app): State<AppState>) -> (StatusCode, String) {
    match why_not(&app) {
        None => (StatusCode::OK, format!("ok\n{}{}", rows_state(&app), stream_state(&app))),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn why_not(app: &App) -> Option<String> {
    if app.stop.is_stopping() {
        return Some("the server is stopping".to_owned());
    }
    if let Err(stalled) = app.shard.accepting() {
        return Some(stalled.to_string());
    }
    app.opening.is_incomplete().then(|| "a showtime is not on sale yet".to_owned())
}

/// What is wrong with the rows, if anything. Sales go on without them.
fn rows_state(app: &App) -> String {
    match app.writer.as_ref().map(|writer| writer.status()) {
        Some(Status::Waiting(why)) => format!("the writer of rows waits: {why}\n"),
        Some(Status::Failed(why)) => format!("the writer of rows has left: {why}\n"),
        _ => String::new(),
    }
}

/// What is wrong with the stream to Kafka, if anything. Sales go on without it.
fn stream_state(app: &App) -> String {
    let complaint = app.stream.as_ref().and_then(|stream| stream.complaint());
    complaint.map_or(String::new(), |complaint| format!("{complaint}\n"))
}

/// Counters and latencies for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operating", responses((status = 200)))]
pub(crate) async fn metrics(State(app): State<AppState>) -> Response {
    let mut text = app.metrics.render(&levels(&app), app.clock.since_start());
    if let Some(writer) = &app.writer {
        text.push_str(&of_writer(writer));
    }
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS));
    response
}

fn levels(app: &App) -> Levels {
    let image = app.shard.image().read();
    let mut levels = Levels { showtimes: image.showtimes().len() as u64, ..Levels::default() };
    for (_, showtime) in image.showtimes() {
        levels.waiting += u64::from(showtime.waiting());
        levels.active += u64::from(showtime.active());
    }
    drop(image);
    levels.ring_depth = app.shard.engine().ring_depth();
    levels.applied = app.shard.applied().0;
    levels.epoch = app.shard.epoch().0;
    levels.waiting_replies = app.shard.waiting() as u64;
    let stream = app.stream.as_ref();
    levels.published = stream.map(|stream| stream.published().0);
    levels.stream_well = stream.is_none_or(|stream| stream.complaint().is_none());
    levels
}
