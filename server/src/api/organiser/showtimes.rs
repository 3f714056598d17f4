//! Showtimes: made, changed, counted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tmomi_engine::ids::ShowtimeId;
use tmomi_persist::catalog::{Call, NewShowtime, ShowId, Showtime, ShowtimePatch};
use utoipa::ToSchema;

use super::terms::{AdminShowtime, ShowtimeChange, ShowtimeInput, check_prices};
use crate::api::calls::{self, Begun};
use crate::api::line_settings::{LineInput, LineOutput, mode_name};
use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, Input, Page, Query};
use crate::halls::Hall;
use crate::idempotency::ClientKey;
use crate::opening;
use crate::problem::{Code, Problem, ProblemView, Result};
use crate::text::seq_text;

/// A page of showtimes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminShowtimes {
    showtimes: Vec<AdminShowtime>,
    /// The next `after`; null at the end.
    next: Option<u64>,
}

/// How a sale goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// The number that all of it is true at.
    seq: String,
    capacity: u32,
    free: u32,
    held: u32,
    sold: u32,
    blocked: u32,
    sections: Vec<SectionStats>,
    line: LineStats,
}

/// Free seats of a section.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SectionStats {
    name: String,
    free: u32,
}

/// How a line goes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineStats {
    /// `open`, `fifo` or `paused`.
    #[schema(value_type = String)]
    mode: &'static str,
    max_active: u32,
    rate_per_s: f64,
    /// Buyers in the line.
    waiting: u32,
    /// Buyers that are let in.
    active: u32,
}

/// Makes a showtime and puts it on sale
#[utoipa::path(
    post, path = "/v1/admin/showtimes", tag = "organiser", request_body = ShowtimeInput,
    responses((status = 201, body = AdminShowtime), (status = 404, body = ProblemView)),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    Admin(user): Admin,
    key: ClientKey,
    input: Input<ShowtimeInput>,
) -> Result<Response> {
    let now = app.now();
    let show_id = ShowId(input.value.show_id);
    let terms = input.value.terms(now)?;
    let call = key.call(&user.id.0.to_be_bytes(), input.fingerprint, now);
    to_the_end(async move { create_all(&app, show_id, terms, call).await }).await
}

async fn create_all(
    app: &App,
    show_id: ShowId,
    terms: NewShowtime,
    call: Option<Call>,
) -> Result<Response> {
    let _running = calls::running(app, call)?;
    let not_found = |error| calls::refused(error).at("/show_id");
    let show = app.catalog.show(show_id).await.map_err(not_found)?;
    let venue = app.catalog.venue(show.venue_id).await.map_err(calls::refused)?;
    let no_plan = || Problem::bad_field("/show_id", "the show's venue has no seating plan");
    let plan = opening::plan(app, venue.plan.ok_or_else(no_plan)?).await?;
    check_prices(&terms, &plan)?;
    let turn = app.opening.turn().await;
    let mut change = match calls::begin(app, call).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(response) => {
            drop(turn);
            // The first time may have ended between the row and the event.
            opening::complete(app).await;
            return Ok(response);
        }
    };
    let row = change.create_showtime(show_id, terms).await.map_err(not_found)?;
    if Some(row.plan_id) != venue.plan {
        return Err(Problem::overloaded("the venue's plan is being changed"));
    }
    let view = AdminShowtime::from(row.clone());
    let response = calls::answer(change, StatusCode::CREATED, &view).await?;
    opening::ensure_open(app, row, &turn).await.map_err(|problem| {
        tracing::warn!(detail = problem.detail(), "a showtime was made and is not on sale yet");
        Problem::not_committed()
    })?;
    Ok(response)
}

/// All showtimes
#[utoipa::path(
    get, path = "/v1/admin/showtimes", tag = "organiser", params(Page),
    responses((status = 200, body = AdminShowtimes)), security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    _: Admin,
    Query(query): Query<Page>,
) -> Result<Json<AdminShowtimes>> {
    let found = app.catalog.showtimes(calls::page(&query)?).await.map_err(calls::refused)?;
    let showtimes = found.items.into_iter().map(AdminShowtime::from).collect();
    Ok(Json(AdminShowtimes { showtimes, next: found.next }))
}

/// One showtime
#[utoipa::path(
    get, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser",
    params(("showtime_id" = u32, Path)),
    responses((status = 200, body = AdminShowtime), (status = 404, body = ProblemView)),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn one(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
) -> Result<Json<AdminShowtime>> {
    let row = app.catalog.showtime(ids.showtime()?).await.map_err(calls::refused)?;
    Ok(Json(row.into()))
}

/// Changes a showtime
#[utoipa::path(
    patch, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser",
    params(("showtime_id" = u32, Path)), request_body = ShowtimeChange,
    responses(
        (status = 200, body = AdminShowtime),
        (status = 409, description = "`in-use`", body = ProblemView),
    ),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn change(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<ShowtimeChange>,
) -> Result<Response> {
    let id = ids.showtime();
    to_the_end(async move {
        let turn = app.opening.turn().await;
        // A bad body is refused before a showtime that does not exist, as far as it can be.
        let hall = app.halls.get(id?)?;
        let (after, patch) = input.value.over(hall.terms())?;
        check_prices(&after, hall.plan())?;
        let row = apply(&app, &hall, after, patch).await?;
        drop(turn);
        Ok(Json(AdminShowtime::from(row)).into_response())
    })
    .await
}

/// Changes the settings of a showtime's line
#[utoipa::path(
    put, path = "/v1/admin/showtimes/{showtime_id}/line", tag = "organiser",
    params(("showtime_id" = u32, Path)), request_body = LineInput,
    responses((status = 200, body = LineOutput), (status = 404, body = ProblemView)),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn put_line(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<LineInput>,
) -> Result<Response> {
    let id = ids.showtime();
    to_the_end(async move {
        let turn = app.opening.turn().await;
        let hall = app.halls.get(id?)?;
        let line = input.value.over(hall.terms().line, "")?;
        let after = NewShowtime { line, ..hall.terms().clone() };
        let patch = ShowtimePatch { line: Some(line), ..ShowtimePatch::default() };
        apply(&app, &hall, after, patch).await?;
        drop(turn);
        Ok(Json(LineOutput::from(&line)).into_response())
    })
    .await
}

/// First the row, then the hall, then the log: a start after a crash in between goes on from the
/// row.
async fn apply(
    app: &App,
    hall: &Hall,
    after: NewShowtime,
    patch: ShowtimePatch,
) -> Result<Showtime> {
    let before = hall.terms();
    let priced = (&before.prices, &before.currency) == (&after.prices, &after.currency);
    let shut = if priced { None } else { Some(shut_unused(app, hall).await?) };
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let row = change.update_showtime(hall.id(), patch).await.map_err(calls::refused)?;
    change.commit_unanswered().await.map_err(calls::not_committed)?;
    let after = hall.with_terms(row.clone()).map_err(Problem::internal)?;
    let after = app.halls.put(after);
    // The new hall has opened its own window.
    if let Some(shut) = shut {
        shut.keep();
    }
    opening::set_terms(app, after.house(), after.terms()).await?;
    Ok(row)
}

/// Takes a showtime out of the catalog
#[utoipa::path(
    delete, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser",
    params(("showtime_id" = u32, Path)),
    responses((status = 204), (status = 409, description = "`in-use`", body = ProblemView)),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn delete(State(app): State<AppState>, _: Admin, ids: Ids) -> Result<StatusCode> {
    let id = ids.showtime()?;
    to_the_end(async move {
        let turn = app.opening.turn().await;
        let hall = app.halls.get(id)?;
        let shut = shut_unused(&app, &hall).await?;
        let mut change = app.catalog.change().await.map_err(calls::refused)?;
        change.delete_showtime(id, app.now()).await.map_err(calls::refused)?;
        change.commit_unanswered().await.map_err(calls::not_committed)?;
        app.halls.remove(id);
        shut.keep();
        drop(turn);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// No seat can be held while this lives.
struct Shut<'a>(Option<&'a Hall>);

impl Shut<'_> {
    /// Nor afterwards.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        if let Some(hall) = self.0 {
            hall.open_window();
        }
    }
}

/// Shuts the sale for a moment and makes sure that nothing of the showtime is held or was sold.
///
/// # Errors
///
/// 409 `in-use`; the sale goes on.
async fn shut_unused<'a>(app: &App, hall: &'a Hall) -> Result<Shut<'a>> {
    hall.shut_window();
    let shut = Shut(Some(hall));
    // A hold that was decided before the window was shut is in the image now.
    app.settled().await?;
    if is_used(app, hall.id()) {
        return Err(Problem::new(Code::InUse, "seats of the showtime are held or were sold"));
    }
    Ok(shut)
}

fn is_used(app: &App, id: ShowtimeId) -> bool {
    let image = app.shard.image().read();
    let counts = image.showtime(id).map(|showtime| showtime.counts()).unwrap_or_default();
    counts.held + counts.sold > 0 || image.orders().iter().any(|order| order.hold.showtime == id)
}

/// How a sale goes
#[utoipa::path(
    get, path = "/v1/admin/showtimes/{showtime_id}/stats", tag = "organiser",
    params(("showtime_id" = u32, Path)),
    responses((status = 200, body = Stats), (status = 404, body = ProblemView)),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(crate) async fn stats(State(app): State<AppState>, _: Admin, ids: Ids) -> Result<Json<Stats>> {
    let hall = app.halls.get(ids.showtime()?)?;
    let image = app.shard.image().read();
    let showtime = image.showtime(hall.id()).ok_or_else(|| Problem::not_found("showtime"))?;
    let counts = showtime.counts();
    let sections = hall.plan().sections().zip(showtime.sections());
    let settings = showtime.settings();
    Ok(Json(Stats {
        seq: seq_text(image.epoch(), image.applied()),
        capacity: hall.layout().capacity(),
        free: counts.free,
        held: counts.held,
        sold: counts.sold,
        blocked: counts.blocked,
        sections: sections
            .map(|(section, counts)| SectionStats {
                name: section.name().to_owned(),
                free: counts.free,
            })
            .collect(),
        line: LineStats {
            mode: mode_name(settings.mode),
            max_active: settings.max_active,
            rate_per_s: f64::from(settings.rate_per_1000s) / 1_000.0,
            waiting: showtime.waiting(),
            active: showtime.active(),
        },
    }))
}

/// Runs a call to its end, also if its client goes away: what changes both the catalog and the
/// log must not stop between the two.
async fn to_the_end<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(call).await.unwrap_or_else(|error| Err(Problem::internal(error)))
}
