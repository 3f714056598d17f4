//! Refusals and errors as RFC 9457 `application/problem+json`, with every code of the contract.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// How long a client waits before it tries again after an overload, unless somebody knows better.
const RETRY_AFTER_MS: u64 = 1_000;

macro_rules! codes {
    ($($name:ident $code:literal $status:ident $title:literal;)*) => {
        /// What went wrong, as the contract names it. Each code has one status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code, in the order of the contract.
            pub(crate) const ALL: &[Code] = &[$(Code::$name),*];

            /// The code as it stands in an answer.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The status of every answer with this code.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            /// What the code means, the same for every occurrence.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest "bad-request" BAD_REQUEST "The request is not understood";
    UnknownSeat "unknown-seat" BAD_REQUEST "The house has no such seat";
    DuplicateSeat "duplicate-seat" BAD_REQUEST "A seat is named twice";
    EmptySeats "empty-seats" BAD_REQUEST "No seat is named";
    BadPlan "bad-plan" BAD_REQUEST "The seating plan cannot be sold";
    Unauthenticated "unauthenticated" UNAUTHORIZED "A valid access token is needed";
    BadCredentials "bad-credentials" UNAUTHORIZED "Email or password is wrong";
    Forbidden "forbidden" FORBIDDEN "Not allowed for this account";
    AdmissionRequired "admission-required" FORBIDDEN "It is not your turn yet";
    NotFound "not-found" NOT_FOUND "There is no such thing";
    NotInLine "not-in-line" NOT_FOUND "You are not in this line";
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The method is not allowed here";
    Timeout "timeout" REQUEST_TIMEOUT "The request took too long to arrive";
    EmailTaken "email-taken" CONFLICT "The email address has an account";
    SeatUnavailable "seat-unavailable" CONFLICT "A seat is not available";
    Contended "contended" CONFLICT "Another request is deciding about these seats";
    NoAdjacentSeats "no-adjacent-seats" CONFLICT "Not enough neighbouring seats are free";
    SoldOut "sold-out" CONFLICT "Not enough seats are free";
    SaleNotOpen "sale-not-open" CONFLICT "The sale is not open";
    HoldConfirmed "hold-confirmed" CONFLICT "The hold is an order already";
    InUse "in-use" CONFLICT "Something that was sold needs it";
    IdempotencyInProgress "idempotency-in-progress" CONFLICT "The same request is still running";
    HoldExpired "hold-expired" GONE "The hold's deadline has passed";
    HoldReleased "hold-released" GONE "The hold was given up";
    BodyTooLarge "body-too-large" PAYLOAD_TOO_LARGE "The body is too large";
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE
        "The content type is not understood here";
    LimitExceeded "limit-exceeded" UNPROCESSABLE_ENTITY "More seats than a buyer may have";
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY
        "The key belongs to another request";
    RateLimited "rate-limited" TOO_MANY_REQUESTS "Too many requests";
    Internal "internal" INTERNAL_SERVER_ERROR "The server failed";
    Overloaded "overloaded" SERVICE_UNAVAILABLE "The server has too much to do; nothing was done";
    NotCommitted "not-committed" SERVICE_UNAVAILABLE
        "Whether it took effect is unknown: retry with the same key";
}

impl Code {
    /// Whether an answer with this code says when to try again.
    fn says_retry(self) -> bool {
        matches!(
            self,
            Code::RateLimited | Code::Overloaded | Code::NotCommitted | Code::IdempotencyInProgress
        )
    }
}

/// A seat that stands in the way, and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ConflictSeat {
    /// The seat's id in the plan.
    pub(crate) seat: String,
    /// `held`, `sold`, `blocked`, or `free` where the call needs a blocked one.
    #[schema(value_type = String)]
    pub(crate) state: &'static str,
}

/// The rare members of a problem.
#[derive(Clone, Debug, Default)]
struct Extra {
    conflicts: Vec<ConflictSeat>,
    pointer: Option<String>,
    retry_after_ms: Option<u64>,
    limit: Option<u32>,
    used: Option<u32>,
}

/// A refusal or an error on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    extra: Option<Box<Extra>>,
}

/// What handlers give.
pub(crate) type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem whose `detail` says what happened this time. The client reads it, so it has no
    /// secret and nothing of somebody else in it.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem { code, detail: detail.into(), extra: None }
    }

    /// 400 `bad-request`.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Code::BadRequest, detail)
    }

    /// 400 `bad-request` for the member of the body at `pointer` (RFC 6901).
    pub(crate) fn bad_field(
        pointer: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem::bad_request(detail).at(pointer)
    }

    /// 404 `not-found`: it is not there, or it belongs to someone else.
    pub(crate) fn not_found(what: &'static str) -> Problem {
        Problem::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// 503 `overloaded`: nothing was done.
    pub(crate) fn overloaded(detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Code::Overloaded, detail)
    }

    /// 503 `not-committed`: the log cannot commit, the outcome is unknown.
    pub(crate) fn not_committed() -> Problem {
        Problem::new(Code::NotCommitted, "the log cannot commit at the moment")
    }

    /// 500 `internal`. The cause goes to the log, not to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Problem {
        tracing::error!(cause = %crate::logging::Plain(&cause), "a request failed");
        Problem::new(Code::Internal, "the server's log has the cause")
    }

    /// With a JSON pointer (RFC 6901) to the place in the body.
    pub(crate) fn at(mut self, pointer: impl Into<String>) -> Problem {
        self.extra().pointer = Some(pointer.into());
        self
    }

    /// With the seats that stand in the way.
    pub(crate) fn with_conflicts(mut self, conflicts: Vec<ConflictSeat>) -> Problem {
        self.extra().conflicts = conflicts;
        self
    }

    /// With the time to wait before another try.
    pub(crate) fn retry_after_ms(mut self, retry_after_ms: u64) -> Problem {
        self.extra().retry_after_ms = Some(retry_after_ms);
        self
    }

    /// With the buyer's limit and the seats in use, without this request's.
    pub(crate) fn with_limit(mut self, limit: u32, used: u32) -> Problem {
        let extra = self.extra();
        (extra.limit, extra.used) = (Some(limit), Some(used));
        self
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What happened this time.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer's members: also one line of a batch's answer.
    pub(crate) fn body(&self) -> ProblemBody<'_> {
        let extra = self.extra.as_deref();
        ProblemBody {
            kind: format!("/docs#{}", self.code.name()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.name(),
            conflicts: extra.map_or(&[], |extra| &extra.conflicts),
            pointer: extra.and_then(|extra| extra.pointer.as_deref()),
            retry_after_ms: self.retry_ms(),
            limit: extra.and_then(|extra| extra.limit),
            used: extra.and_then(|extra| extra.used),
        }
    }

    fn retry_ms(&self) -> Option<u64> {
        let known = self.extra.as_deref().and_then(|extra| extra.retry_after_ms);
        known.or(match self.code {
            Code::Contended => Some(0),
            code if code.says_retry() => Some(RETRY_AFTER_MS),
            _ => None,
        })
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// A problem as it is sent (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Where the code is described.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// What went wrong.
    code: &'a str,
    /// The seats that stand in the way.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    conflicts: &'a [ConflictSeat],
    /// The place in the request's body, as RFC 6901 writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    /// How long to wait before another try, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// Seats a buyer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// Seats the buyer has, without this request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u32>,
}

/// The same, as the description of the calls names it.
pub(crate) type ProblemView = ProblemBody<'static>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).expect("a problem has only text and numbers");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(ms) = self.retry_ms() {
            // Whole seconds, rounded up: a client that waits this long has waited long enough.
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tmomi\"");
            headers.insert(axum::http::header::WWW_AUTHENTICATE, challenge);
        }
        if self.code == Code::Timeout {
            let close = HeaderValue::from_static("close");
            headers.insert(axum::http::header::CONNECTION, close);
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_its_status_its_code_and_a_time_to_retry() {
        for code in Code::ALL {
            let response = Problem::new(*code, "x").into_response();
            assert_eq!(response.status(), code.status(), "{code:?}");
            let retry = response.headers().contains_key(RETRY_AFTER);
            let status = code.status().as_u16();
            assert!(retry || (status != 429 && status != 503), "{code:?}");
        }
        let contended = Problem::new(Code::Contended, "x").into_response();
        assert_eq!(contended.headers()[RETRY_AFTER], "0");
    }

    #[test]
    fn members_that_do_not_apply_are_left_out() {
        let problem = Problem::bad_field("/seats/1", "twice").with_limit(4, 3);
        let title = "The request is not understood";
        let expected = serde_json::json!({
            "type": "/docs#bad-request", "title": title, "status": 400, "detail": "twice",
            "code": "bad-request", "pointer": "/seats/1", "limit": 4, "used": 3,
        });
        let body = serde_json::to_value(problem.body()).expect("text and numbers");
        assert_eq!(body, expected);
    }
}
