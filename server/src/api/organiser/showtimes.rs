//! Showtimes: made, changed, counted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tmomi_engine::ids::ShowtimeId;
use tmomi_persist::catalog::{Answer, Call, Change, NewShowtime, ShowId, Showtime, ShowtimePatch};
use tmomi_persist::image::Past;
use utoipa::ToSchema;

use super::terms::{AdminShowtime, ShowtimeChange, ShowtimeInput, check_prices};
use crate::api::calls::{self, Begun};
use crate::api::line_settings::{LineInput, LineOutput, mode_name, rate_per_s};
use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, Input, MinSeq, Page, Query, Reached};
use crate::halls::Hall;
use crate::opening::{self, Turn};
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
    responses(
        (status = 201, body = AdminShowtime),
        (status = 400, description = "`bad-plan`: the log has no room for it", body = ProblemView),
        (status = 404, body = ProblemView),
    ),
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    Admin(user): Admin,
    input: Input<ShowtimeInput>,
) -> Result<Response> {
    let now = app.now();
    let show_id = ShowId(input.value.show_id);
    let terms = input.value.terms(now)?;
    let call = input.key.call(user.id, now);
    calls::to_the_end(async move { create_all(&app, show_id, terms, call).await }).await
}

async fn create_all(
    app: &App,
    show_id: ShowId,
    terms: NewShowtime,
    call: Option<Call>,
) -> Result<Response> {
    let _running = calls::running(app, call)?;
    if let Some(answer) = calls::answered(app, call.as_ref()).await? {
        return create_again(app, answer).await;
    }
    let not_found = |error| calls::refused(error).at("/show_id");
    let show = app.catalog.show(show_id).await.map_err(not_found)?;
    let venue = app.catalog.venue(show.venue_id).await.map_err(calls::refused)?;
    let no_plan = || Problem::bad_field("/show_id", "the show's venue has no seating plan");
    let plan = opening::plan(app, venue.plan.ok_or_else(no_plan)?).await?;
    check_prices(&terms, &plan)?;
    // Nothing may be in the catalog that can never be on sale.
    opening::layout_blob(app, &plan).await.map_err(|problem| problem.at("/show_id"))?;
    let turn = app.opening.turn().await;
    let mut change = match calls::begin(app, call).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(response) => return Ok(response),
    };
    let row = change.create_showtime(show_id, terms).await.map_err(not_found)?;
    if Some(row.plan_id) != venue.plan {
        return Err(Problem::overloaded("the venue's plan is being changed"));
    }
    let view = AdminShowtime::from(row.clone());
    let response = calls::answer(change, StatusCode::CREATED, &view).await?;
    opening::ensure_open(app, row, &turn).await.map_err(not_yet)?;
    Ok(response)
}

/// The answer of the first time. That may have ended between the row and the event, and who is
/// told of a showtime finds it, unless it was deleted since.
async fn create_again(app: &App, answer: Answer) -> Result<Response> {
    #[derive(serde::Deserialize)]
    struct Made {
        showtime_id: u32,
    }
    let made: Made = serde_json::from_slice(&answer.body).map_err(Problem::internal)?;
    let id = ShowtimeId(made.showtime_id);
    if app.halls.find(id).is_none() {
        let turn = app.opening.turn().await;
        opening::reconcile(app, id, &turn).await.map_err(not_yet)?;
    }
    calls::again(answer)
}

/// The catalog has it and the log does not, yet.
fn not_yet(problem: Problem) -> Problem {
    tracing::warn!(detail = problem.detail(), "the catalog is ahead of what is on sale");
    Problem::not_committed()
}

/// All showtimes
#[utoipa::path(
    get, path = "/v1/admin/showtimes", tag = "organiser", params(Page, MinSeq),
    responses((status = 200, body = AdminShowtimes)),
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    _: Admin,
    Query(query): Query<Page>,
    _: Reached,
) -> Result<Json<AdminShowtimes>> {
    let found = app.catalog.showtimes(calls::page(&query)?).await.map_err(calls::refused)?;
    let showtimes = found.items.into_iter().map(AdminShowtime::from).collect();
    Ok(Json(AdminShowtimes { showtimes, next: found.next }))
}

/// One showtime
#[utoipa::path(
    get, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser", params(MinSeq),
    responses((status = 200, body = AdminShowtime), (status = 404, body = ProblemView)),
)]
pub(crate) async fn one(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    _: Reached,
) -> Result<Json<AdminShowtime>> {
    let row = app.catalog.showtime(ids.showtime()?).await.map_err(calls::refused)?;
    Ok(Json(row.into()))
}

/// Changes a showtime
#[utoipa::path(
    patch, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser",
    request_body = ShowtimeChange,
    responses(
        (status = 200, body = AdminShowtime),
        (status = 409, description = "`in-use`", body = ProblemView),
    ),
)]
pub(crate) async fn change(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<ShowtimeChange>,
) -> Result<Response> {
    let id = ids.showtime();
    calls::to_the_end(async move {
        let turn = app.opening.turn().await;
        // A bad body is refused before a showtime that does not exist, as far as it can be.
        let hall = app.halls.get(id?)?;
        let (after, patch) = input.value.over(hall.terms())?;
        check_prices(&after, hall.plan())?;
        let before = hall.terms();
        let priced = (&before.prices, &before.currency) == (&after.prices, &after.currency);
        let shut =
            if priced { None } else { Some(Shut::unused(&app, &hall, Past::Held, &turn).await?) };
        let row = apply(&app, hall.id(), patch, shut, &turn).await?;
        Ok(Json(AdminShowtime::from(row)).into_response())
    })
    .await
}

/// Changes the settings of a showtime's line
#[utoipa::path(
    put, path = "/v1/admin/showtimes/{showtime_id}/line", tag = "organiser",
    request_body = LineInput,
    responses((status = 200, body = LineOutput), (status = 404, body = ProblemView)),
)]
pub(crate) async fn put_line(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<LineInput>,
) -> Result<Response> {
    let id = ids.showtime();
    calls::to_the_end(async move {
        let turn = app.opening.turn().await;
        let hall = app.halls.get(id?)?;
        let line = input.value.over(hall.terms().line, "")?;
        let patch = ShowtimePatch { line: Some(line), ..ShowtimePatch::default() };
        apply(&app, hall.id(), patch, None, &turn).await?;
        Ok(Json(LineOutput::from(&line)).into_response())
    })
    .await
}

/// First the row, then the hall, then the log: whoever finds them apart goes on from the row.
async fn apply(
    app: &App,
    id: ShowtimeId,
    patch: ShowtimePatch,
    shut: Option<Shut<'_>>,
    turn: &Turn<'_>,
) -> Result<Showtime> {
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let row = change.update_showtime(id, patch).await.map_err(calls::refused)?;
    commit(app, change, shut).await?;
    opening::ensure_open(app, row.clone(), turn).await.map_err(not_yet)?;
    Ok(row)
}

/// Commits a change of a showtime. From here on only the row opens the window again: this call
/// with its new terms, or, if nobody knows what the row is, whoever finds out.
async fn commit(app: &App, change: Change, shut: Option<Shut<'_>>) -> Result<()> {
    if let Some(shut) = shut {
        shut.keep();
    }
    change.commit_unanswered().await.map_err(|error| {
        app.opening.set_incomplete();
        calls::not_committed(error)
    })
}

/// Takes a showtime out of the catalog
#[utoipa::path(
    delete, path = "/v1/admin/showtimes/{showtime_id}", tag = "organiser",
    responses((status = 204), (status = 409, description = "`in-use`", body = ProblemView)),
)]
pub(crate) async fn delete(State(app): State<AppState>, _: Admin, ids: Ids) -> Result<StatusCode> {
    let id = ids.showtime()?;
    calls::to_the_end(async move {
        let turn = app.opening.turn().await;
        let hall = app.halls.get(id)?;
        let shut = Shut::unused(&app, &hall, Past::Sold, &turn).await?;
        let mut change = app.catalog.change().await.map_err(calls::refused)?;
        change.delete_showtime(id, app.now()).await.map_err(calls::refused)?;
        commit(&app, change, Some(shut)).await?;
        app.halls.remove(id);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

/// No seat can be held while this lives.
struct Shut<'a>(Option<&'a Hall>);

impl<'a> Shut<'a> {
    /// Shuts the sale for a moment, if no seat is held and nothing as far as `bound` ever became
    /// of one, and makes sure that it stays so.
    ///
    /// # Errors
    ///
    /// 409 `in-use`; a sale that goes on never stops for that.
    async fn unused(app: &App, hall: &'a Hall, bound: Past, turn: &Turn<'_>) -> Result<Shut<'a>> {
        check_unused(app, hall.id(), bound)?;
        hall.shut_window();
        let shut = Shut(Some(hall));
        // A hold that was decided before the window was shut is in the image then.
        app.decisions_settled(turn)?;
        app.settled().await?;
        check_unused(app, hall.id(), bound)?;
        Ok(shut)
    }

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

fn check_unused(app: &App, id: ShowtimeId, bound: Past) -> Result<()> {
    let image = app.shard.image().read();
    let Some(showtime) = image.showtime(id) else { return Ok(()) };
    if showtime.past() >= bound || showtime.counts().held > 0 {
        return Err(Problem::new(Code::InUse, "seats of the showtime are held or were sold"));
    }
    Ok(())
}

/// How a sale goes
#[utoipa::path(
    get, path = "/v1/admin/showtimes/{showtime_id}/stats", tag = "organiser", params(MinSeq),
    responses((status = 200, body = Stats), (status = 404, body = ProblemView)),
)]
pub(crate) async fn stats(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    _: Reached,
) -> Result<Json<Stats>> {
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
            rate_per_s: rate_per_s(settings),
            waiting: showtime.waiting(),
            active: showtime.active(),
        },
    }))
}
