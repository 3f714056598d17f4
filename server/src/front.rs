//! What happens to every request before and after its handler: request id, limits, overload,
//! panics, headers that every answer has, counters.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION};
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::Service;

use crate::app::AppState;
use crate::cors::{self, Cors};
use crate::leftover::Leftover;
use crate::logging::Plain;
use crate::problem::{Code, Problem};

/// The header of a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where a request came from: the client's address, behind trusted proxies too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The id that the answer carries and the log has, in 16 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestId(u64);

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl RequestId {
    fn header(self) -> HeaderValue {
        let digit = |n: usize| b"0123456789abcdef"[(self.0 >> (60 - 4 * n)) as usize & 15];
        HeaderValue::from_bytes(&std::array::from_fn::<u8, 16, _>(digit)).expect("hex digits")
    }
}

/// The router and what stands before it. Cheap to share.
pub(crate) struct Front {
    app: AppState,
    router: Router,
    cors: Cors,
    /// Requests that are worked on.
    running: AtomicU32,
    next_id: AtomicU64,
}

impl Front {
    /// Serves `router`.
    pub(crate) fn new(app: AppState, router: Router) -> Front {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system has random numbers");
        let next_id = AtomicU64::new(u64::from_ne_bytes(seed));
        let cors = Cors::new(&app.settings.cors_origins.0);
        Front { app, router, cors, running: AtomicU32::new(0), next_id }
    }

    /// The clock, for whoever serves connections.
    pub(crate) fn clock(&self) -> std::sync::Arc<crate::clock::SystemClock> {
        std::sync::Arc::clone(&self.app.clock)
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &std::sync::Arc<crate::metrics::Metrics> {
        &self.app.metrics
    }

    /// Answers one request of `address`.
    pub(crate) async fn serve<B>(
        &self,
        address: IpAddr,
        request: Request<B>,
    ) -> Result<Response, Infallible>
    where
        B: hyper::body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let started = self.app.clock.since_start();
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let peer = Peer(self.client(address, &request));
        let version = request.version();
        let mut request = request;
        request.extensions_mut().insert(peer);
        if request.headers().len() > crate::listener::HEAD_FIELDS_MAX {
            // HTTP/1 has refused it before; h2 counts bytes only.
            return Ok(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response());
        }
        // Without the query: somebody may have put a secret there.
        let target = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| format!("{} {}", request.method(), Plain(request.uri().path())));
        let origin = self.cors.allowed(request.headers());
        let preflight = origin.as_ref().and_then(|origin| origin.preflight(&request));
        let mut response = match (preflight, self.admit(peer)) {
            (Some(preflight), _) => preflight,
            (None, Ok(_running)) => self.call(request).await,
            (None, Err(problem)) => problem.into_response(),
        };
        if let Some(code) = response.extensions().get::<Code>() {
            self.app.metrics.refused(*code);
        }
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            // The line before has the cause.
            tracing::error!(request_id = %id, "a request was answered 500");
        }
        let headers = response.headers_mut();
        if self.cors.is_on() {
            cors::vary(headers);
        }
        if let Some(origin) = origin {
            origin.mark(headers);
        }
        headers.insert(REQUEST_ID, id.header());
        // Answers are private unless their handler says otherwise.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if version == Version::HTTP_2 {
            headers.remove(CONNECTION);
        }
        let took = self.app.clock.since_start().saturating_sub(started);
        if let Some(target) = target {
            let (status, took_us) = (response.status().as_u16(), took.as_micros() as u64);
            tracing::debug!(request_id = %id, target, status, took_us, "answered");
        }
        self.app.metrics.answered(response.status(), took);
        Ok(response)
    }

    async fn call<B>(&self, request: Request<B>) -> Response
    where
        B: hyper::body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // HTTP/2 can end one request without the connection.
        if request.version() == Version::HTTP_2 || request.body().is_end_stream() {
            return self.call_router(request.map(Body::new)).await;
        }
        let leftover = Leftover::default();
        let watched = request.map(|body| Body::new(leftover.watch(body)));
        let response = self.call_router(watched).await;
        if response.status() != StatusCode::REQUEST_TIMEOUT {
            leftover.discard();
        }
        response
    }

    async fn call_router(&self, request: Request<Body>) -> Response {
        let answer = AssertUnwindSafe(self.router.clone().call(request)).catch_unwind().await;
        match answer {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Problem::internal("a handler panicked").into_response(),
        }
    }

    /// Counts a request in, unless there are too many.
    fn admit(&self, peer: Peer) -> crate::problem::Result<Running<'_>> {
        let running = Running::new(&self.running);
        if running.count > self.app.settings.requests_max {
            return Err(Problem::overloaded("too many requests are being worked on"));
        }
        self.app.limits.address(peer.0)?;
        Ok(running)
    }

    /// The client's address: the last one in `X-Forwarded-For` that no trusted proxy has.
    fn client<B>(&self, address: IpAddr, request: &Request<B>) -> IpAddr {
        let trusted = &self.app.settings.trusted_proxies.0;
        let address = address.to_canonical();
        if !trusted.contains(&address) {
            return address;
        }
        let lines = request.headers().get_all("x-forwarded-for").iter().rev();
        let texts = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
        let mut hops = texts.map_while(|text| text.trim().parse::<IpAddr>().ok());
        hops.find(|hop| !trusted.contains(&hop.to_canonical())).unwrap_or(address)
    }
}

struct Running<'a> {
    running: &'a AtomicU32,
    count: u32,
}

impl Running<'_> {
    fn new(running: &AtomicU32) -> Running<'_> {
        Running { running, count: running.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted bug: the first digit is missing and the last is there twice.
    #[test]
    fn the_header_has_the_id_as_the_log_has_it() {
        for id in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(RequestId(id).header(), RequestId(id).to_string());
        }
    }
}
