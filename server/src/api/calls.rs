//! What calls that change the catalog have in common: the answer to a key, and the catalog's
//! refusals as problems.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use tmomi_persist::catalog::{self, Answer, Call, CatalogError, Change};
use tmomi_persist::image::KeyImage;

use crate::accounts::{Role, User};
use crate::app::App;
use crate::extract::Page;
use crate::idempotency::{self, ClientKey, Running};
use crate::problem::{Code, Problem, Result};

/// What a call finds when it begins.
pub(crate) enum Begun {
    /// It is to be done.
    Fresh(Change),
    /// It was done under this key: this is the answer again.
    Answered(Response),
}

/// Takes the key of a call that the engine decides, and says what it led to before.
///
/// # Errors
///
/// 409 `idempotency-in-progress`; 422 if it led to something else, also in the catalog.
pub(crate) async fn keyed<'a>(
    app: &'a App,
    user: &User,
    key: &ClientKey,
) -> Result<(Running<'a>, Option<KeyImage>)> {
    let call = key.call(user.id, app.now());
    let key = idempotency::request_key(call.as_ref());
    let running = app.in_progress.begin(key, app.shard.applied())?;
    let known = app.known(key)?;
    // Only admins make calls that the catalog remembers.
    if let (Some(call), None, Role::Admin) = (call, known, user.role)
        && app.catalog.known(&call).await.map_err(refused)? != catalog::Known::Nothing
    {
        return Err(idempotency::reused());
    }
    Ok((running, known))
}

/// Takes the key of a call that changes the catalog as long as it runs.
///
/// # Errors
///
/// 409 `idempotency-in-progress`; 422 if the engine has decided something under the key.
pub(crate) fn running(app: &App, call: Option<Call>) -> Result<Running<'_>> {
    let key = idempotency::request_key(call.as_ref());
    let running = app.in_progress.begin(key, app.shard.applied())?;
    if key.is_some() && app.shard.image().read().key(key.hash).is_some() {
        return Err(idempotency::reused());
    }
    Ok(running)
}

/// What a call was answered, if it was made before.
///
/// # Errors
///
/// 422 `idempotency-key-reused`, 503 if the catalog does not answer.
pub(crate) async fn answered(app: &App, call: Option<&Call>) -> Result<Option<Answer>> {
    let Some(call) = call else { return Ok(None) };
    match app.catalog.known(call).await.map_err(refused)? {
        catalog::Known::Nothing => Ok(None),
        catalog::Known::Answer(answer) => Ok(Some(answer)),
        catalog::Known::Other => Err(idempotency::reused()),
    }
}

/// Begins a change of the catalog, unless it was made under the same key before.
///
/// # Errors
///
/// 422 `idempotency-key-reused`, 503 if the catalog does not answer.
pub(crate) async fn begin(app: &App, call: Option<Call>) -> Result<Begun> {
    match app.catalog.begin(call).await.map_err(refused)? {
        catalog::Begun::Fresh(change) => Ok(Begun::Fresh(change)),
        catalog::Begun::Done(answer) => Ok(Begun::Answered(again(answer)?)),
        catalog::Begun::KeyReused => Err(idempotency::reused()),
    }
}

/// The answer of the first time.
///
/// # Errors
///
/// 500 if it has no status that HTTP knows.
pub(crate) fn again(Answer { status, body }: Answer) -> Result<Response> {
    let status = StatusCode::from_u16(status).map_err(Problem::internal)?;
    Ok(json(status, body))
}

/// Runs a call to its end, also if its client goes away: what changes both the catalog and
/// something else must not stop between the two.
///
/// # Errors
///
/// The call's.
pub(crate) async fn to_the_end<T: Send + 'static>(
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(call).await.unwrap_or_else(|error| Err(Problem::internal(error)))
}

/// Commits a change together with its answer, and gives the answer.
///
/// # Errors
///
/// 503 `not-committed`.
pub(crate) async fn answer(
    change: Change,
    status: StatusCode,
    body: &impl Serialize,
) -> Result<Response> {
    let body = serde_json::to_vec(body).map_err(Problem::internal)?;
    let answer = Answer { status: status.as_u16(), body };
    change.commit(&answer).await.map_err(not_committed)?;
    Ok(json(status, answer.body))
}

/// A page of the catalog's lists.
///
/// # Errors
///
/// 400 for a limit or an `after` that is not understood.
pub(crate) fn page(page: &Page) -> Result<catalog::Page> {
    let limit = page.limit()? as u32;
    Ok(catalog::Page { after: page.after_id()?.unwrap_or(0), limit })
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// What the catalog refused. Nothing was changed.
pub(crate) fn refused(error: CatalogError) -> Problem {
    match error {
        CatalogError::NotFound(noun) => {
            Problem::new(Code::NotFound, format!("there is no such {noun}"))
        }
        CatalogError::EmailTaken => {
            Problem::new(Code::EmailTaken, "the email address has an account")
        }
        CatalogError::InUse(noun) => Problem::new(Code::InUse, format!("the {noun} is in use")),
        CatalogError::Unavailable(cause) => {
            let cause = crate::logging::Plain(&cause).to_string();
            tracing::error!(cause, "the catalog database does not answer");
            Problem::overloaded("the catalog does not answer")
        }
    }
}

/// A commit of the catalog that failed: whether it was done is unknown.
pub(crate) fn not_committed(error: CatalogError) -> Problem {
    let cause = crate::logging::Plain(&error).to_string();
    tracing::error!(cause, "the catalog database did not commit");
    Problem::new(Code::NotCommitted, "the catalog did not commit")
}
