//! Taking seats off sale, and back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::{Part, RequestKey, Seq};
use tmomi_engine::{Context, Handle, Reject};
use tmomi_persist::image::Outcome;
use utoipa::ToSchema;

use super::check_text;
use crate::api::calls;
use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, Input};
use crate::halls::Hall;
use crate::idempotency::{self, ClientKey};
use crate::problem::{Problem, ProblemView, Result};
use crate::refusals;

/// Characters of a reason at most.
const REASON_CHARS_MAX: usize = 500;
/// Seats of one call at most; more would not fit into the body anyway.
const SEATS_MAX: usize = 50_000;

/// Which seats, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockInput {
    seats: Vec<String>,
    reason: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Blocked {
    /// The seats as they were sent.
    seats: Vec<String>,
    /// The number of the event.
    seq: String,
}

/// What to do with the seats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Block,
    Unblock,
}

/// Takes free seats off sale
#[utoipa::path(
    post, path = "/v1/admin/showtimes/{showtime_id}/blocks", tag = "organiser",
    params(("showtime_id" = u32, Path)), request_body = BlockInput,
    responses(
        (status = 200, body = Blocked),
        (status = 409, description = "`seat-unavailable`", body = ProblemView),
    ),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn block(
    State(app): State<AppState>,
    Admin(user): Admin,
    key: ClientKey,
    ids: Ids,
    input: Input<BlockInput>,
) -> Result<Response> {
    let key = key.request_key(user.id, input.fingerprint);
    turn(&app, ids, input.value, key, Turn::Block).await
}

/// Puts blocked seats on sale again
#[utoipa::path(
    delete, path = "/v1/admin/showtimes/{showtime_id}/blocks", tag = "organiser",
    params(("showtime_id" = u32, Path)), request_body = BlockInput,
    responses(
        (status = 200, body = Blocked),
        (status = 409, description = "`seat-unavailable`", body = ProblemView),
    ),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn unblock(
    State(app): State<AppState>,
    Admin(user): Admin,
    key: ClientKey,
    ids: Ids,
    input: Input<BlockInput>,
) -> Result<Response> {
    let key = key.request_key(user.id, input.fingerprint);
    turn(&app, ids, input.value, key, Turn::Unblock).await
}

async fn turn(
    app: &App,
    ids: Ids,
    input: BlockInput,
    key: RequestKey,
    turn: Turn,
) -> Result<Response> {
    let BlockInput { seats, reason } = input;
    check_text(reason.as_deref().unwrap_or(""), "/reason", REASON_CHARS_MAX)?;
    let hall = app.halls.get(ids.showtime()?)?;
    let parts = hall.parts(&seats, SEATS_MAX)?;
    let mut running = app.in_progress.begin(key, app.shard.applied())?;
    if let Some(seq) = known(app, key)? {
        return answer(app, seats, seq);
    }
    let blob = reason.map(|reason| reason.into_bytes().into_boxed_slice());
    let context = Context { now: app.now(), key };
    let decided = app.decide(|handle| decide(handle, &hall, &parts, blob, context, turn))?;
    let seq = decided.map_err(|reject| refusals::problem(reject, &hall))?;
    running.decided(seq);
    app.committed(seq).await?;
    running.committed();
    answer(app, seats, seq)
}

fn decide(
    handle: &mut Handle,
    hall: &Hall,
    parts: &[Part],
    blob: Option<Box<[u8]>>,
    context: Context,
    turn: Turn,
) -> std::result::Result<Seq, Reject> {
    match turn {
        Turn::Block => handle.block(hall.house(), parts, blob, context),
        Turn::Unblock => handle.unblock(hall.house(), parts, blob, context),
    }
}

/// What the key has led to, if anything.
fn known(app: &App, key: RequestKey) -> Result<Option<Seq>> {
    if !key.is_some() {
        return Ok(None);
    }
    let image = app.shard.image().read();
    let Some(known) = image.key(key.hash) else { return Ok(None) };
    match known.outcome {
        Outcome::Blocked { seq, .. } | Outcome::Unblocked { seq, .. }
            if known.fingerprint == key.fingerprint =>
        {
            Ok(Some(seq))
        }
        _ => Err(idempotency::reused()),
    }
}

fn answer(app: &App, seats: Vec<String>, seq: Seq) -> Result<Response> {
    let body = Blocked { seats, seq: app.seq_text(seq) };
    let body = serde_json::to_vec(&body).map_err(Problem::internal)?;
    Ok(calls::json(StatusCode::OK, body))
}
