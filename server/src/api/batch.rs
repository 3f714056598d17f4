//! `holds:batch`: many holds in one request, one commit for all of them.
//!
//! Each line is decided by itself, in order; the answers wait for the last decision's commit
//! only. This is the door for partners and for load, so a bad line costs nothing but itself.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::{BuyerId, Seq};
use tmomi_engine::{Context, HoldRequest};

use crate::api::holds::{
    BestInput, HoldBody, HoldInput, Taken, Wanted, check_choice, check_ttl, held_body, replayed,
    take, wanted,
};
use crate::app::{App, AppState};
use crate::extract::{
    Admin, Ids, LARGE_BODY_BYTES_MAX, check_length, check_type, parse_json, read_body,
};
use crate::halls::Hall;
use crate::idempotency::{ClientKey, Fingerprint, Running};
use crate::problem::{Problem, ProblemBody, Result};
use crate::refusals;

/// Lines of one batch at most.
const LINES_MAX: usize = 10_000;
/// Users have ids below this.
const USER_ID_END: u64 = 1 << 53;
const NDJSON: &str = "application/x-ndjson";

/// The body of a batch.
pub(crate) struct Lines(Bytes);

impl FromRequest<AppState> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Lines> {
        check_length(request.headers(), LARGE_BODY_BYTES_MAX)?;
        check_type(request.headers(), NDJSON)?;
        let body = read_body(request.into_body(), LARGE_BODY_BYTES_MAX).await?;
        let lines = lines(&body).take(LINES_MAX + 1).count();
        if lines > LINES_MAX {
            return Err(Problem::bad_request(format!("a batch has at most {LINES_MAX} lines")));
        }
        Ok(Lines(body))
    }
}

/// One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    idempotency_key: String,
    buyer: u64,
    seats: Option<Vec<String>>,
    best_available: Option<BestInput>,
    ttl_ms: Option<u64>,
}

/// What became of a line, before its commit.
enum Decided<'a> {
    Held(Taken, Running<'a>),
    Known(HoldBody),
    Refused(Problem),
}

#[derive(Serialize)]
struct HeldLine {
    status: u16,
    #[serde(flatten)]
    hold: HoldBody,
}

#[utoipa::path(post, path = "/v1/showtimes/{showtime_id}/holds:batch", tag = "holds",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn holds(
    State(app): State<AppState>,
    admin: Admin,
    ids: Ids,
    Lines(body): Lines,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    // Ten thousand decisions take milliseconds, which the server's other requests need not wait.
    let deciding = Arc::clone(&app);
    let decide_hall = Arc::clone(&hall);
    let task = tokio::task::spawn_blocking(move || {
        let decided: Vec<Decided<'_>> =
            lines(&body).map(|line| decide(&deciding, &decide_hall, admin.0.id, line)).collect();
        settle(&deciding, &decide_hall, decided)
    });
    let (answers, last) = task.await.map_err(Problem::internal)?;
    if let Some(last) = last {
        app.committed(last).await?;
    }
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from(answers)).into_response())
}

/// The lines that are not blank.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

fn decide<'a>(app: &'a App, hall: &Hall, admin: BuyerId, line: &[u8]) -> Decided<'a> {
    match try_decide(app, hall, admin, line) {
        Ok(decided) => decided,
        Err(problem) => Decided::Refused(problem),
    }
}

fn try_decide<'a>(app: &'a App, hall: &Hall, admin: BuyerId, line: &[u8]) -> Result<Decided<'a>> {
    let parsed: Line = parse_json(line)?;
    if !(1..USER_ID_END).contains(&parsed.buyer) {
        return Err(Problem::bad_field("/buyer", "a user_id"));
    }
    let key = ClientKey::of_text(&parsed.idempotency_key)?;
    let ttl_ms = check_ttl(parsed.ttl_ms)?;
    let Line { seats, best_available, .. } = parsed;
    let input = HoldInput { seats, best_available, ttl_ms: None };
    check_choice(&input)?;
    let wanted: Wanted = wanted(hall, &input)?;
    let path = format!("/v1/showtimes/{}/holds:batch", hall.id());
    let key = key.request_key(admin, Fingerprint::of("POST", &path, line));
    let running = app.in_progress.begin(key, app.shard.applied())?;
    if let Some(body) = replayed(app, hall, key)? {
        return Ok(Decided::Known(body));
    }
    let context = Context { now: app.now(), key };
    let decided = app.decide(|handle| {
        let entry = handle.enter(hall.house(), BuyerId(parsed.buyer), context.now)?;
        let request = HoldRequest { entry, ttl_ms, admitted_by_caller: true };
        take(handle, hall, request, &wanted, context)
    })?;
    match decided {
        Ok(taken) => Ok(Decided::Held(taken, running)),
        Err(reject) => Err(refusals::problem(reject, hall)),
    }
}

/// The answers of all lines, and the last event that they wait for.
fn settle(app: &App, hall: &Hall, decided: Vec<Decided<'_>>) -> (Vec<u8>, Option<Seq>) {
    let mut out = Vec::new();
    let mut last = None;
    for decided in decided {
        match decided {
            Decided::Held(taken, mut running) => {
                let seq = taken.held.seq;
                last = last.max(Some(seq));
                // The key stays taken until the image knows the hold.
                running.decided(seq);
                put(&mut out, &HeldLine { status: 201, hold: held_body(app, hall, &taken) });
            }
            Decided::Known(hold) => put(&mut out, &HeldLine { status: 201, hold }),
            Decided::Refused(problem) => {
                app.metrics.refused(problem.code());
                put::<ProblemBody<'_>>(&mut out, &problem.body());
            }
        }
    }
    (out, last)
}

fn put<T: Serialize>(out: &mut Vec<u8>, line: &T) {
    serde_json::to_writer(&mut *out, line).expect("memory takes text and numbers");
    out.push(b'\n');
}
