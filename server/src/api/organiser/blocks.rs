//! Taking seats off sale, and back.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::{Part, Seq};
use tmomi_engine::{Context, Handle, Reject};
use tmomi_persist::image::Outcome;
use utoipa::ToSchema;

use super::check_text;
use crate::api::calls;
use crate::api::holds::commit;
use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, Input, User};
use crate::halls::{Hall, check_seats};
use crate::idempotency::reused;
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
    request_body = BlockInput,
    responses(
        (status = 200, body = Blocked),
        (status = 409, description = "`seat-unavailable`", body = ProblemView),
    ),
)]
pub(crate) async fn block(
    State(app): State<AppState>,
    Admin(user): Admin,
    ids: Ids,
    input: Input<BlockInput>,
) -> Result<Response> {
    turn(&app, user, ids, input, Turn::Block).await
}

/// Puts blocked seats on sale again
#[utoipa::path(
    delete, path = "/v1/admin/showtimes/{showtime_id}/blocks", tag = "organiser",
    request_body = BlockInput,
    responses(
        (status = 200, body = Blocked),
        (status = 409, description = "`seat-unavailable`", body = ProblemView),
    ),
)]
pub(crate) async fn unblock(
    State(app): State<AppState>,
    Admin(user): Admin,
    ids: Ids,
    input: Input<BlockInput>,
) -> Result<Response> {
    turn(&app, user, ids, input, Turn::Unblock).await
}

async fn turn(
    app: &App,
    user: User,
    ids: Ids,
    input: Input<BlockInput>,
    turn: Turn,
) -> Result<Response> {
    let BlockInput { seats, reason } = input.value;
    check_text(reason.as_deref().unwrap_or(""), "/reason", REASON_CHARS_MAX)?;
    check_seats(&seats, SEATS_MAX)?;
    let hall = app.halls.get(ids.showtime()?)?;
    let parts = hall.parts(&seats)?;
    let (running, known) = calls::keyed(app, &user, &input.key).await?;
    if let Some(known) = known {
        return match known.outcome {
            Outcome::Blocked { seq, .. } | Outcome::Unblocked { seq, .. } => {
                answer(app, seats, seq)
            }
            _ => Err(reused()),
        };
    }
    let blob = reason.map(|reason| reason.into_bytes().into_boxed_slice());
    let context = Context { now: app.now(), key: running.key() };
    let decided = app.decide(|handle| decide(handle, &hall, &parts, blob, context, turn))?;
    let seq = decided.map_err(|reject| refusals::problem(reject, &hall))?;
    commit(app, running, seq).await?;
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

fn answer(app: &App, seats: Vec<String>, seq: Seq) -> Result<Response> {
    let body = Blocked { seats, seq: app.seq_text(seq) };
    let body = serde_json::to_vec(&body).map_err(Problem::internal)?;
    Ok(calls::json(StatusCode::OK, body))
}
