//! Cross-origin calls (the Fetch standard's CORS protocol): none, unless the settings name
//! origins. Named ones may send tokens in headers, and cookies.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-none-match, last-event-id",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after, tmomi-seq, x-request-id");
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins that may call.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<String>,
}

/// A request's origin, if it may call.
pub(crate) struct Allowed(HeaderValue);

impl Cors {
    /// These origins, as browsers write them: scheme, host, and port if it is not the usual one.
    pub(crate) fn new(origins: &[String]) -> Cors {
        Cors { origins: origins.to_vec() }
    }

    /// The origin of a request, if it is one of ours to allow.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<Allowed> {
        let origin = headers.get(ORIGIN)?;
        self.origins
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
            .then(|| Allowed(origin.clone()))
    }

    /// Whether any origin may call, so that answers differ by origin.
    pub(crate) fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }
}

impl Allowed {
    /// The answer to a preflight, if the request is one.
    pub(crate) fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        let asks = request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() != Method::OPTIONS || !asks {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page read an answer.
    pub(crate) fn mark(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// Says that the answer depends on the origin.
pub(crate) fn vary(headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))])
    }

    #[test]
    fn only_named_origins_may_call() {
        let cors = Cors::new(&["https://shop.example".to_owned()]);
        assert!(cors.allowed(&headers("https://shop.example")).is_some());
        assert!(cors.allowed(&headers("https://shop.example.evil")).is_none());
        assert!(cors.allowed(&headers("null")).is_none());
        assert!(cors.allowed(&HeaderMap::new()).is_none());
        assert!(Cors::new(&[]).allowed(&headers("https://shop.example")).is_none());
    }
}
