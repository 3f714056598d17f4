//! Shows, as organisers see them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tmomi_persist::catalog::{NewShow, Show, ShowId, ShowPatch, VenueId};
use utoipa::ToSchema;

use super::{check_name, check_text};
use crate::api::calls::{self, Begun};
use crate::app::AppState;
use crate::extract::{Admin, Ids, Input, MinSeq, Page, Query, Reached};
use crate::problem::{Problem, ProblemView, Result};
use crate::text::nullable;

/// Characters of a description at most.
const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Characters of a picture's address at most.
const URL_CHARS_MAX: usize = 2_000;

/// A show to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowInput {
    name: String,
    venue_id: u64,
    description: Option<String>,
    /// An http or https address, or a path.
    image_url: Option<String>,
}

/// What is to be changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowChange {
    name: Option<String>,
    /// Only while the show has no showtime.
    venue_id: Option<u64>,
    /// null takes it away.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// null takes it away.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    image_url: Option<Option<String>>,
}

/// A show.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminShow {
    show_id: u64,
    name: String,
    venue_id: u64,
    description: Option<String>,
    image_url: Option<String>,
}

/// A page of shows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminShows {
    shows: Vec<AdminShow>,
    /// The next `after`; null at the end.
    next: Option<u64>,
}

impl From<Show> for AdminShow {
    fn from(show: Show) -> AdminShow {
        let Show { show_id, venue_id, name, description, image_url } = show;
        AdminShow { show_id: show_id.0, name, venue_id: venue_id.0, description, image_url }
    }
}

/// Makes a show
#[utoipa::path(
    post, path = "/v1/admin/shows", tag = "organiser", request_body = ShowInput,
    responses((status = 201, body = AdminShow), (status = 404, body = ProblemView)),
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    Admin(user): Admin,
    input: Input<ShowInput>,
) -> Result<Response> {
    let ShowInput { name, venue_id, description, image_url } = input.value;
    check_name(&name, "/name")?;
    check_description(description.as_deref())?;
    check_url(image_url.as_deref())?;
    let call = input.key.call(user.id, app.now());
    let _running = calls::running(&app, call)?;
    let mut change = match calls::begin(&app, call).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(response) => return Ok(response),
    };
    let new = NewShow {
        venue_id: VenueId(venue_id),
        name: &name,
        description: description.as_deref(),
        image_url: image_url.as_deref(),
    };
    let show = change.create_show(new).await;
    let show = show.map_err(|error| calls::refused(error).at("/venue_id"))?;
    calls::answer(change, StatusCode::CREATED, &AdminShow::from(show)).await
}

/// All shows
#[utoipa::path(
    get, path = "/v1/admin/shows", tag = "organiser", params(Page, MinSeq),
    responses((status = 200, body = AdminShows)),
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    _: Admin,
    Query(query): Query<Page>,
    _: Reached,
) -> Result<Json<AdminShows>> {
    let found = app.catalog.all_shows(calls::page(&query)?).await.map_err(calls::refused)?;
    let shows = found.items.into_iter().map(AdminShow::from).collect();
    Ok(Json(AdminShows { shows, next: found.next }))
}

/// One show
#[utoipa::path(
    get, path = "/v1/admin/shows/{show_id}", tag = "organiser",
    responses((status = 200, body = AdminShow), (status = 404, body = ProblemView)),
)]
pub(crate) async fn one(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    _: Reached,
) -> Result<Json<AdminShow>> {
    let show = app.catalog.show(show_id(&ids)?).await.map_err(calls::refused)?;
    Ok(Json(show.into()))
}

/// Changes a show
#[utoipa::path(
    patch, path = "/v1/admin/shows/{show_id}", tag = "organiser",
    request_body = ShowChange,
    responses(
        (status = 200, body = AdminShow),
        (status = 409, description = "`in-use`", body = ProblemView),
    ),
)]
pub(crate) async fn change(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    input: Input<ShowChange>,
) -> Result<Response> {
    let ShowChange { name, venue_id, description, image_url } = input.value;
    if let Some(name) = &name {
        check_name(name, "/name")?;
    }
    check_description(description.as_ref().and_then(Option::as_deref))?;
    check_url(image_url.as_ref().and_then(Option::as_deref))?;
    let id = show_id(&ids)?;
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let venue_id = venue_id.map(VenueId);
    let patch = ShowPatch { venue_id, name, description, image_url };
    let show = change.update_show(id, patch).await.map_err(calls::refused)?;
    calls::answer(change, StatusCode::OK, &AdminShow::from(show)).await
}

/// Takes a show out of the catalog
#[utoipa::path(
    delete, path = "/v1/admin/shows/{show_id}", tag = "organiser",
    responses((status = 204), (status = 409, description = "`in-use`", body = ProblemView)),
)]
pub(crate) async fn delete(State(app): State<AppState>, _: Admin, ids: Ids) -> Result<StatusCode> {
    let id = show_id(&ids)?;
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    change.delete_show(id, app.now()).await.map_err(calls::refused)?;
    change.commit_unanswered().await.map_err(calls::not_committed)?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_description(text: Option<&str>) -> Result<()> {
    check_text(text.unwrap_or(""), "/description", DESCRIPTION_CHARS_MAX)
}

/// A picture's address must not be a script.
fn check_url(url: Option<&str>) -> Result<()> {
    let Some(url) = url else { return Ok(()) };
    check_text(url, "/image_url", URL_CHARS_MAX)?;
    let known = ["https://", "http://", "/"].iter().any(|start| url.starts_with(start));
    if known && !url.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(Problem::bad_field("/image_url", "must be an http or https address, or a path"))
}

fn show_id(ids: &Ids) -> Result<ShowId> {
    ids.number("show").map(ShowId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_no_script() {
        assert!(check_url(Some("https://a.example/b.png")).is_ok());
        assert!(check_url(None).is_ok());
        for url in ["javascript:alert(1)", "data:text/html,x", "https://a b", ""] {
            assert!(check_url(Some(url)).is_err(), "{url}");
        }
    }
}
