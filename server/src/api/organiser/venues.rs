//! Venues and their plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tmomi_persist::catalog::{NewVenue, Venue, VenueId, VenuePatch};
use tmomi_persist::plan::{Plan, Report};
use utoipa::ToSchema;

use super::{check_name, check_text};
use crate::api::calls::{self, Begun};
use crate::app::AppState;
use crate::extract::{self, Admin, Ids, Input, LARGE_BODY_BYTES_MAX, MinSeq, Page, Query, Reached};
use crate::problem::{Code, Problem, ProblemView, Result};
use crate::text::nullable;

/// Characters of an address at most.
const ADDRESS_CHARS_MAX: usize = 500;

/// A venue to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VenueInput {
    name: String,
    address: Option<String>,
}

/// What is to be changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VenueChange {
    name: Option<String>,
    /// null takes it away.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    address: Option<Option<String>>,
}

/// A venue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VenueView {
    venue_id: u64,
    name: String,
    address: Option<String>,
    /// Seats and places of its plan; 0 without one.
    capacity: u32,
}

/// A page of venues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Venues {
    venues: Vec<VenueView>,
    /// The next `after`; null at the end.
    next: Option<u64>,
}

/// What was read of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanView {
    venue_id: u64,
    sections: u32,
    rows: u32,
    /// Seats and places.
    seats: u32,
    /// Each needs a price.
    tiers: Vec<String>,
    /// Fields that the format does not have, and how often.
    ignored_fields: BTreeMap<String, u64>,
}

impl From<Venue> for VenueView {
    fn from(venue: Venue) -> VenueView {
        let Venue { venue_id, name, address, plan: _, capacity } = venue;
        VenueView { venue_id: venue_id.0, name, address, capacity }
    }
}

/// Makes a venue
#[utoipa::path(
    post, path = "/v1/admin/venues", tag = "organiser", request_body = VenueInput,
    responses((status = 201, body = VenueView)),
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    Admin(user): Admin,
    input: Input<VenueInput>,
) -> Result<Response> {
    let VenueInput { name, address } = input.value;
    check_name(&name, "/name")?;
    check_text(address.as_deref().unwrap_or(""), "/address", ADDRESS_CHARS_MAX)?;
    let call = input.key.call(user.id, app.now());
    let _running = calls::running(&app, call)?;
    let mut change = match calls::begin(&app, call).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(response) => return Ok(response),
    };
    let new = NewVenue { name: &name, address: address.as_deref() };
    let venue = change.create_venue(new).await.map_err(calls::refused)?;
    calls::answer(change, StatusCode::CREATED, &VenueView::from(venue)).await
}

/// All venues
#[utoipa::path(
    get, path = "/v1/admin/venues", tag = "organiser", params(Page, MinSeq),
    responses((status = 200, body = Venues)),
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    _: Admin,
    Query(query): Query<Page>,
    _: Reached,
) -> Result<Json<Venues>> {
    let found = app.catalog.venues(calls::page(&query)?).await.map_err(calls::refused)?;
    let venues = found.items.into_iter().map(VenueView::from).collect();
    Ok(Json(Venues { venues, next: found.next }))
}

/// One venue
#[utoipa::path(
    get, path = "/v1/admin/venues/{venue_id}", tag = "organiser",
    responses((status = 200, body = VenueView), (status = 404, body = ProblemView)),
)]
pub(crate) async fn one(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    _: Reached,
) -> Result<Json<VenueView>> {
    let venue = app.catalog.venue(venue_id(&ids)?).await.map_err(calls::refused)?;
    Ok(Json(venue.into()))
}

/// Changes a venue
#[utoipa::path(
    patch, path = "/v1/admin/venues/{venue_id}", tag = "organiser",
    request_body = VenueChange,
    responses((status = 200, body = VenueView), (status = 404, body = ProblemView)),
)]
pub(crate) async fn change(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<VenueChange>,
) -> Result<Response> {
    let VenueChange { name, address } = input.value;
    if let Some(name) = &name {
        check_name(name, "/name")?;
    }
    if let Some(Some(address)) = &address {
        check_text(address, "/address", ADDRESS_CHARS_MAX)?;
    }
    let id = venue_id(&ids)?;
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let patch = VenuePatch { name, address };
    let venue = change.update_venue(id, patch).await.map_err(calls::refused)?;
    calls::answer(change, StatusCode::OK, &VenueView::from(venue)).await
}

/// Takes a venue out of the catalog
#[utoipa::path(
    delete, path = "/v1/admin/venues/{venue_id}", tag = "organiser",
    responses((status = 204), (status = 409, description = "`in-use`", body = ProblemView)),
)]
pub(crate) async fn delete(State(app): State<AppState>, _: Admin, ids: Ids) -> Result<StatusCode> {
    let id = venue_id(&ids)?;
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    change.delete_venue(id, app.now()).await.map_err(calls::refused)?;
    change.commit_unanswered().await.map_err(calls::not_committed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a venue its seats: a pretix seating plan, or `{"generate": ...}`
#[utoipa::path(
    put, path = "/v1/admin/venues/{venue_id}/plan", tag = "organiser",
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses(
        (status = 200, body = PlanView),
        (status = 400, description = "`bad-plan` with `pointer`", body = ProblemView),
        (status = 409, description = "`in-use`", body = ProblemView),
    ),
)]
pub(crate) async fn put_plan(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    request: Request,
) -> Result<Response> {
    extract::check_length(request.headers(), LARGE_BODY_BYTES_MAX)?;
    extract::check_type(request.headers(), "application/json")?;
    let body = extract::read_body(request.into_body(), LARGE_BODY_BYTES_MAX).await?;
    // A large plan takes seconds to read, so it is not read where requests are answered.
    let reading = tokio::task::spawn_blocking(move || {
        let plan = Plan::from_json(&body);
        (body, plan)
    });
    let (body, plan) = reading.await.map_err(Problem::internal)?;
    let plan = plan.map_err(|error| Problem::new(Code::BadPlan, error.reason).at(error.pointer))?;
    let report = plan.report();
    let id = venue_id(&ids)?;
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let set = change.set_plan(id, &body, report.seats, app.now()).await;
    // Most likely a showtime is made of it next.
    app.opening.remember(set.map_err(calls::refused)?, Arc::new(plan));
    let Report { sections, rows, seats, tiers, ignored_fields } = report;
    let view = PlanView { venue_id: id.0, sections, rows, seats, tiers, ignored_fields };
    calls::answer(change, StatusCode::OK, &view).await
}

fn venue_id(ids: &Ids) -> Result<VenueId> {
    ids.number("venue").map(VenueId)
}
