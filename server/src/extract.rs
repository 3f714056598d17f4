//! What handlers take from a request, in the contract's order of checks.
//!
//! axum runs extractors in the order of a handler's arguments, so a handler lists them like this
//! and the order is right by itself: [`User`] or [`Admin`] (401, 403), then [`Ids`], then
//! [`Query`] and [`Reached`] or [`Input`] last (413, 415, 400). [`Ids`] never refuses: a path
//! segment that cannot be an id is 404 when the handler asks for it, after the body was checked.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tmomi_engine::ids::{Seq, ShowtimeId};

use crate::app::AppState;
use crate::idempotency::{ClientKey, Fingerprint, sent_key};
use crate::problem::{Code, Problem, Result};
use crate::strict::parse_json;

/// Bytes of a body at most, unless the call says otherwise.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a plan or a batch at most.
pub(crate) const LARGE_BODY_BYTES_MAX: usize = 64 << 20;
/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Ids stay below 2^53, so that every JSON reader keeps them whole.
const ID_END: u64 = 1 << 53;

pub(crate) use crate::accounts::{Role, User};

/// A user whose role is admin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(pub(crate) User);

impl FromRequestParts<AppState> for User {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<User> {
        let user = app.accounts.authenticate(app, parts).await?;
        app.limits.user(user.id)?;
        Ok(user)
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Admin> {
        let user = User::from_request_parts(parts, app).await?;
        match user.role {
            Role::Admin => Ok(Admin(user)),
            Role::Buyer => Err(Problem::new(Code::Forbidden, "this call is for admins")),
        }
    }
}

/// The variable segment of the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids(String);

impl FromRequestParts<AppState> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Ids> {
        // A segment that is not UTF-8 names nothing.
        let params = RawPathParams::from_request_parts(parts, app).await;
        let text = params.as_ref().ok().and_then(|params| params.iter().next());
        Ok(Ids(text.map_or_else(String::new, |(_, text)| text.to_owned())))
    }
}

impl Ids {
    /// The segment as text; empty if there is none.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The segment as a catalog id.
    ///
    /// # Errors
    ///
    /// 404 if it is not a number below 2^53 as we write them.
    pub(crate) fn number(&self, what: &'static str) -> Result<u64> {
        let text = self.text();
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = u64::from_str(text).ok().filter(|id| digits && *id < ID_END);
        number.ok_or_else(|| Problem::not_found(what))
    }

    /// The segment as the id of a showtime.
    ///
    /// # Errors
    ///
    /// 404 if it cannot be one.
    pub(crate) fn showtime(&self) -> Result<ShowtimeId> {
        let number = self.number("showtime")?;
        let id = u32::try_from(number).map_err(|_| Problem::not_found("showtime"))?;
        Ok(ShowtimeId(id))
    }
}

/// The query of the request's target. Names that the call does not know are ignored, a token
/// among them; a value that is not understood is 400.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<AppState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Query<T>> {
        query(&parts.uri).map(Query)
    }
}

pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T> {
    let query = axum::extract::Query::<T>::try_from_uri(uri);
    query.map(|query| query.0).map_err(|error| Problem::bad_request(error.body_text()))
}

/// `?min_seq=`.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MinSeq {
    /// A `seq` of an earlier answer: waits until the answer has it.
    min_seq: Option<String>,
}

/// The number that `?min_seq=` asks for, which the image has; 0 if it does not ask. Every read
/// takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached(pub(crate) Seq);

impl FromRequestParts<AppState> for Reached {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Reached> {
        let MinSeq { min_seq } = query(&parts.uri)?;
        app.reach(min_seq.as_deref()).await.map(Reached)
    }
}

/// `?limit=` and `?after=` of the list calls.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// How many, 1 to 1000; 100 unless said.
    pub(crate) limit: Option<u64>,
    /// The `next` of the page before.
    pub(crate) after: Option<String>,
}

impl Page {
    /// How many items a page has at most.
    const LIMIT_MAX: u64 = 1_000;
    /// How many items a page has unless said.
    const LIMIT: u64 = 100;

    /// How many items are asked for.
    ///
    /// # Errors
    ///
    /// 400 unless it is 1 to 1000.
    pub(crate) fn limit(&self) -> Result<usize> {
        limit_within(self.limit, Page::LIMIT, Page::LIMIT_MAX)
    }

    /// The catalog id after which the page starts, if one was sent.
    ///
    /// # Errors
    ///
    /// 400 if it is no id.
    pub(crate) fn after_id(&self) -> Result<Option<u64>> {
        let Some(after) = &self.after else { return Ok(None) };
        let id = u64::from_str(after).ok().filter(|id| *id < ID_END);
        let problem = || Problem::bad_request("after must be the next of the page before");
        id.map(Some).ok_or_else(problem)
    }
}

/// A `?limit=` of 1 to `max`.
///
/// # Errors
///
/// 400 outside of that.
pub(crate) fn limit_within(limit: Option<u64>, default: u64, max: u64) -> Result<usize> {
    let limit = limit.unwrap_or(default);
    let problem = || Problem::bad_request(format!("limit must be 1 to {max}"));
    (1..=max).contains(&limit).then_some(limit as usize).ok_or_else(problem)
}

/// A JSON body and the key of the request.
#[derive(Clone, Debug)]
pub(crate) struct Input<T> {
    /// What the body says.
    pub(crate) value: T,
    /// The key, if the client sent one.
    pub(crate) key: ClientKey,
}

impl<T: DeserializeOwned> FromRequest<AppState> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Input<T>> {
        check_length(request.headers(), BODY_BYTES_MAX)?;
        check_type(request.headers(), "application/json")?;
        let (key, bytes) = read_keyed(request, BODY_BYTES_MAX).await?;
        Ok(Input { value: parse_json(&bytes)?, key })
    }
}

/// The same for calls whose body may be missing: then it is `T::default()`.
#[derive(Clone, Debug)]
pub(crate) struct MaybeInput<T> {
    /// What the body says, or the default.
    pub(crate) value: T,
    /// The key, if the client sent one.
    pub(crate) key: ClientKey,
}

impl<T: DeserializeOwned + Default> FromRequest<AppState> for MaybeInput<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<MaybeInput<T>> {
        check_length(request.headers(), BODY_BYTES_MAX)?;
        let typed = check_type(request.headers(), "application/json");
        let (key, bytes) = read_keyed(request, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(MaybeInput { value: T::default(), key });
        }
        typed?;
        Ok(MaybeInput { value: parse_json(&bytes)?, key })
    }
}

/// The body of a call that takes none: nothing, or an empty object.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

async fn read_keyed(request: Request, bytes_max: usize) -> Result<(ClientKey, Bytes)> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(body, bytes_max).await?;
    let key = match sent_key(&parts.headers)? {
        Some(key) => {
            let fingerprint = Fingerprint::of(parts.method.as_str(), parts.uri.path(), &bytes);
            ClientKey::new(key, fingerprint)
        }
        None => ClientKey::default(),
    };
    Ok((key, bytes))
}

/// Refuses a body that says it is too long before any of it is read.
///
/// # Errors
///
/// 413.
pub(crate) fn check_length(headers: &HeaderMap, bytes_max: usize) -> Result<()> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    Ok(())
}

/// Checks the media type; parameters like `charset` are not looked at.
///
/// # Errors
///
/// 415.
pub(crate) fn check_type(headers: &HeaderMap, expected: &'static str) -> Result<()> {
    let sent = headers.get(CONTENT_TYPE);
    if sent.is_some_and(|sent| sent == expected) {
        return Ok(());
    }
    let sent = sent.and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = sent.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let detail = format!("the content type must be {expected}");
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// Reads a whole body within [`BODY_TIMEOUT`].
///
/// # Errors
///
/// 413 above `bytes_max`, 408 if it does not arrive in time, 400 if it breaks off.
pub(crate) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes> {
    let late = |_| Problem::new(Code::Timeout, "the body did not arrive within 30 s");
    tokio::time::timeout(BODY_TIMEOUT, whole(body, bytes_max)).await.map_err(late)?
}

/// Puts a body together. Most are one piece, which is given as it is.
async fn whole(mut body: Body, bytes_max: usize) -> Result<Bytes> {
    let (mut first, mut all) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body breaks off"))?;
        let piece = frame.into_data().unwrap_or_default();
        if first.len().max(all.len()) + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if first.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body may have {bytes_max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted bug: what came first is lost if a single byte follows.
    #[tokio::test]
    async fn a_body_is_whole_however_it_is_cut() {
        use futures_util::stream::iter;
        let cut = |pieces: &'static [&'static str]| {
            let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece));
            read_body(Body::from_stream(iter(pieces)), 6)
        };
        for pieces in [&["abcdef"][..], &["ab", "cdef"], &["", "a", "", "b", "cd", "ef"]] {
            assert_eq!(cut(pieces).await.expect("six bytes"), "abcdef", "{pieces:?}");
        }
        assert_eq!(cut(&[]).await.expect("nothing"), "");
        for pieces in [&["abcdefg"][..], &["abcdef", "g"], &["a", "bcde", "fg"]] {
            let code = cut(pieces).await.expect_err("seven bytes").code();
            assert_eq!(code, Code::BodyTooLarge, "{pieces:?}");
        }
        let broken = [Ok("ab"), Err(std::io::Error::other("gone"))];
        let broken = read_body(Body::from_stream(iter(broken)), 6).await;
        assert_eq!(broken.expect_err("cut off").code(), Code::BadRequest);
    }

    #[test]
    fn only_ids_as_we_write_them_are_ids() {
        let number = |text: &str| Ids(text.to_owned()).number("show").ok();
        assert_eq!(number("17"), Some(17));
        for text in ["", "0", "017", "+1", "-1", "1e3", "9007199254740992", "x"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert!(Ids("4294967296".to_owned()).showtime().is_err());
    }

    #[test]
    fn parameters_of_the_media_type_do_not_matter() {
        let headers = |text| HeaderMap::from_iter([(CONTENT_TYPE, text)]);
        let json = |text: &'static str| {
            check_type(&headers(axum::http::HeaderValue::from_static(text)), "application/json")
        };
        assert!(json("Application/JSON; charset=utf-8").is_ok());
        assert!(json("text/plain").is_err());
        assert!(check_type(&HeaderMap::new(), "application/json").is_err());
    }

    #[test]
    fn names_that_a_query_does_not_know_are_ignored() {
        let uri = |text| Uri::from_static(text);
        let page: Page = query(&uri("/x?access_token=t&limit=7")).expect("a page");
        assert_eq!(page.limit().expect("7"), 7);
        assert!(query::<Page>(&uri("/x?limit=seven")).is_err());
        let page: Page = query(&uri("/x?limit=1001")).expect("a number");
        assert!(page.limit().is_err());
    }
}
