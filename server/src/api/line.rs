//! The waiting line: joining, looking, leaving.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tmomi_engine::Context;
use tmomi_engine::ids::{EntryId, LineNumber};
use tmomi_persist::image::Outcome;
use utoipa::ToSchema;

use crate::api::holds::commit;
use crate::api::{calls, seq_header};
use crate::app::{App, AppState};
use crate::extract::{Ids, MaybeInput, MinSeq, Nothing, Reached, User};
use crate::halls::Hall;
use crate::idempotency::reused;
use crate::problem::{Code, Problem, Result};
use crate::refusals;
use crate::standing::{Admission, AdmissionBody, LineView, Standing};
use crate::text::When;

/// Where a buyer stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceBody {
    /// The place in the order of joining.
    number: u32,
    /// `waiting`, `admitted` or `expired`.
    #[schema(value_type = String)]
    state: &'static str,
    /// Waiting entries that will be admitted before; 0 is next.
    ahead: u32,
    /// When the turn will come, in ms from now; null if that cannot be known.
    eta_ms: Option<u64>,
    /// There if admitted: when the session ends, unless a hold is active then.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<When>,
    /// There if admitted: the same from now on, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
    /// There if admitted: what other shops can check.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    admission_token: Option<Arc<str>>,
}

/// Takes a number, or says which the buyer has.
#[utoipa::path(post, path = "/v1/showtimes/{showtime_id}/line", tag = "line",
    responses((status = 201, body = PlaceBody), (status = 200, body = PlaceBody)))]
pub(crate) async fn join(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    input: MaybeInput<Nothing>,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let (running, known) = calls::keyed(&app, &user, &input.key).await?;
    if let Some(known) = known {
        let first = as_joined(&app, &hall, known.outcome)?;
        return Ok((StatusCode::CREATED, Json(body_of(&app, &hall, first))).into_response());
    }
    let key = running.key();
    let context = Context { now: app.now(), key };
    let joined = app.decide(|handle| handle.join(hall.house(), user.id, context))?;
    let joined = joined.map_err(|reject| refusals::problem(reject, &hall))?;
    commit(&app, running, joined.seq).await?;
    let status = if joined.fresh { StatusCode::CREATED } else { StatusCode::OK };
    let known = if joined.fresh { app.known(key)? } else { None };
    let standing = match (known, standing(&app, &hall, joined.entry)?) {
        // What the same key will be told again.
        (Some(known), _) => as_joined(&app, &hall, known.outcome)?,
        (None, Some(standing)) => standing,
        // Left again since, by another request.
        (None, None) => waiting(&app, &hall, joined.number)?,
    };
    Ok((status, Json(body_of(&app, &hall, standing))).into_response())
}

/// Where the buyer stands; a sign of life.
#[utoipa::path(get, path = "/v1/showtimes/{showtime_id}/line/me", tag = "line", params(MinSeq),
    responses((status = 200, body = PlaceBody)))]
pub(crate) async fn get(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    _: Reached,
) -> Result<Json<PlaceBody>> {
    let hall = app.halls.get(ids.showtime()?)?;
    let entry = hall.house().entry_of(user.id).ok_or_else(not_in_line)?;
    hall.house().touch(entry, app.now());
    let standing = standing(&app, &hall, entry)?.ok_or_else(not_in_line)?;
    Ok(Json(body_of(&app, &hall, standing)))
}

/// Gives the place up.
#[utoipa::path(delete, path = "/v1/showtimes/{showtime_id}/line/me", tag = "line",
    responses((status = 204)))]
pub(crate) async fn leave(State(app): State<AppState>, user: User, ids: Ids) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let entry = hall.house().entry_of(user.id).ok_or_else(not_in_line)?;
    let now = app.now();
    let left = app.decide(|handle| handle.leave(hall.house(), entry, now))?;
    match left.map_err(|reject| refusals::problem(reject, &hall))? {
        Some(seq) => {
            app.committed(seq).await?;
            Ok((StatusCode::NO_CONTENT, seq_header(&app, seq)).into_response())
        }
        None => {
            // Another request may have given the place up and wait for its commit still.
            app.settled().await?;
            Err(not_in_line())
        }
    }
}

/// 404 `not-in-line`.
pub(crate) fn not_in_line() -> Problem {
    Problem::new(Code::NotInLine, "join the line first")
}

/// Where the entry stands, as every reader sees it.
fn standing(app: &App, hall: &Hall, entry: EntryId) -> Result<Option<Standing>> {
    let image = app.shard.image().read();
    let showtime = image.showtime(hall.id());
    let showtime = showtime.ok_or_else(|| Problem::not_found("showtime"))?;
    Ok(LineView::new(showtime, hall.house()).standing(entry))
}

/// Where the entry stood right after the join of `outcome`, which the same key is told again
/// however it stands by then: let in, if no waiting was needed, or else in the line.
fn as_joined(app: &App, hall: &Hall, outcome: Outcome) -> Result<Standing> {
    let Outcome::Joined { entry, number, admitted_until, .. } = outcome else {
        return Err(reused());
    };
    let Some(until) = admitted_until else { return waiting(app, hall, number) };
    let image = app.shard.image().read();
    let known = image.showtime(hall.id()).and_then(|showtime| showtime.entry(entry));
    let buyer = known.ok_or_else(not_in_line)?.buyer;
    Ok(Standing::Admitted(Admission { entry, buyer, number, until }))
}

/// The place of a number in the order of the line.
fn waiting(app: &App, hall: &Hall, number: LineNumber) -> Result<Standing> {
    let image = app.shard.image().read();
    let showtime = image.showtime(hall.id());
    let showtime = showtime.ok_or_else(|| Problem::not_found("showtime"))?;
    Ok(Standing::Waiting(LineView::new(showtime, hall.house()).in_order(number)))
}

fn body_of(app: &App, hall: &Hall, standing: Standing) -> PlaceBody {
    let place = |number: LineNumber, state, ahead, eta_ms| PlaceBody {
        number: number.0,
        state,
        ahead,
        eta_ms,
        expires_at: None,
        expires_in_ms: None,
        admission_token: None,
    };
    match standing {
        Standing::Waiting(at) => place(at.number, "waiting", at.ahead, at.eta_ms),
        Standing::Admitted(of) => {
            let admission = AdmissionBody::of(app, hall.id(), of);
            PlaceBody {
                expires_at: Some(admission.expires_at),
                expires_in_ms: Some(admission.expires_in_ms),
                admission_token: Some(admission.admission_token),
                ..place(of.number, "admitted", 0, Some(0))
            }
        }
        Standing::Expired(number) => place(number, "expired", 0, None),
    }
}
