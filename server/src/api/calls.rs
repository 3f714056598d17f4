//! What calls that change the catalog have in common: the answer to a key, and the catalog's
//! refusals as problems.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tmomi_engine::ids::{RequestKey, Seq};
use tmomi_persist::catalog::{self, Answer, Call, CatalogError, Change};

use crate::app::App;
use crate::extract::Page;
use crate::idempotency::{self, Running};
use crate::problem::{Code, Problem, Result};

/// What a call finds when it begins.
pub(crate) enum Begun {
    /// It is to be done.
    Fresh(Change),
    /// It was done under this key: this is the answer again.
    Answered(Response),
}

/// Takes the key of a call as long as it runs.
///
/// # Errors
///
/// 409 `idempotency-in-progress`.
pub(crate) fn running(app: &App, call: Option<Call>) -> Result<Running<'_>> {
    let key = call.map_or(RequestKey::NONE, |call| {
        let first = call.key.first_chunk::<8>().expect("a digest has 32 bytes");
        RequestKey { hash: u64::from_be_bytes(*first).max(1), fingerprint: 0 }
    });
    app.in_progress.begin(key, Seq(0))
}

/// Begins a change of the catalog, unless it was made under the same key before.
///
/// # Errors
///
/// 422 `idempotency-key-reused`, 503 if the catalog does not answer.
pub(crate) async fn begin(app: &App, call: Option<Call>) -> Result<Begun> {
    match app.catalog.begin(call).await.map_err(refused)? {
        catalog::Begun::Fresh(change) => Ok(Begun::Fresh(change)),
        catalog::Begun::Done(Answer { status, body }) => {
            let status = StatusCode::from_u16(status).map_err(Problem::internal)?;
            Ok(Begun::Answered(json(status, body)))
        }
        catalog::Begun::KeyReused => Err(idempotency::reused()),
    }
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
    let mut response = (status, body).into_response();
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
