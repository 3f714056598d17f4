//! The baselines of the figures at the socket, each in a process of its own as the server is: the
//! bench starts itself again.
//!
//! * the stack: hyper and axum as `server/src/listener.rs` sets them up. It reads the same request
//!   and answers as many bytes, and does nothing in between.
//! * the sender: a plain loop of `send`, the same bytes to one socket after the other.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::clock::LoadClock;
use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::routing::post;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tower::Service;

use super::server::Process;

/// The variable that makes a bench a baseline, and of which kind.
const ROLE: &str = "TMOMI_BENCH_ROLE";
const STACK: &str = "stack";
const SENDER: &str = "sender";
/// Bytes of a request's head at most, as in the server.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// To be called first in `main`: `true` if this process was a baseline, and has ended as one.
pub fn was_baseline() -> bool {
    match std::env::var(ROLE).as_deref() {
        Ok(STACK) => stack(),
        Ok(SENDER) => sender(),
        _ => return false,
    }
    true
}

fn start(role: &str) -> (Process, SocketAddr) {
    let bench = std::env::current_exe().expect("a program knows where it is");
    let mut command = Command::new(bench);
    let mut process = Process::start(command.env(ROLE, role).stdin(Stdio::piped()));
    let address = process.line().parse().expect("its first line is its address");
    (process, address)
}

#[allow(clippy::print_stdout, reason = "whoever started this process reads it")]
fn say(text: impl std::fmt::Display) {
    println!("{text}");
    let _ = std::io::stdout().flush();
}

/// The stack without the sale.
pub struct BareStack {
    /// Its process.
    pub process: Process,
    /// Where it serves.
    pub address: SocketAddr,
}

impl BareStack {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start() -> BareStack {
        let (process, address) = start(STACK);
        BareStack { process, address }
    }
}

/// The answer to a hold of one seat, with the lengths that it has in the server.
const BODY: &str = "{\"hold_id\":\"0000000000000000\",\"seats\":[{\"seat\":\"S0-1000-100\",\
    \"tier\":\"T\",\"price\":1000}],\"total\":1000,\"currency\":\"EUR\",\"expires_at\":\
    \"2026-01-01T00:00:00.000Z\",\"expires_in_ms\":3600000,\"seq\":\"1-1000000\"}";

async fn answer(_: Bytes) -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::from(BODY));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let id = HeaderName::from_static("x-request-id");
    headers.insert(id, HeaderValue::from_static("0000000000000000"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn stack() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("threads").block_on(async {
        let router = Router::new().route("/v1/showtimes/{showtime_id}/holds", post(answer));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
        builder.http1().max_buf_size(HEAD_BYTES_MAX);
        let builder = std::sync::Arc::new(builder);
        let listener = tokio::net::TcpSocket::new_v4().expect("a socket");
        listener.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let listener = listener.listen(4_096).expect("a bound socket");
        say(listener.local_addr().expect("a bound socket"));
        loop {
            let (stream, _) = listener.accept().await.expect("there are file handles");
            let _ = stream.set_nodelay(true);
            let (router, builder) = (router.clone(), std::sync::Arc::clone(&builder));
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    router.clone().call(request.map(axum::body::Body::new))
                });
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

/// A plain loop of `send`.
pub struct BareSender {
    process: Process,
    /// Where it takes connections.
    pub address: SocketAddr,
}

impl BareSender {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start() -> BareSender {
        let (process, address) = start(SENDER);
        BareSender { process, address }
    }

    /// Takes the next `count` connections.
    pub fn accept(&mut self, count: usize) {
        self.tell(&format!("accept {count}"));
        assert_eq!(self.process.line(), "accepted");
    }

    /// Has it send `bytes` bytes to every connection. Does not wait for it.
    pub fn send(&mut self, bytes: usize) {
        self.tell(&format!("send {bytes}"));
    }

    /// How long the loop that was asked for first took, from its first `send` to its last.
    pub fn sent(&mut self) -> Duration {
        let line = self.process.line();
        Duration::from_nanos(line.parse().expect("nanoseconds"))
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn tell(&mut self, text: &str) {
        let input = self.process.child().stdin.as_mut().expect("it is piped");
        writeln!(input, "{text}").expect("it reads");
    }
}

fn sender() {
    super::raise_handle_limit(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    say(listener.local_addr().expect("a bound socket"));
    let clock = LoadClock::start();
    let mut streams: Vec<TcpStream> = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (verb, number) = line.split_once(' ').expect("a verb and a number");
        let number: usize = number.parse().expect("a number");
        if verb == "accept" {
            streams.extend((0..number).map(|_| {
                let (stream, _) = listener.accept().expect("there are file handles");
                stream.set_nodelay(true).expect("a connected socket");
                stream
            }));
            say("accepted");
        } else {
            let bytes = vec![b'x'; number];
            let start = clock.elapsed();
            for stream in &mut streams {
                stream.write_all(&bytes).expect("the readers read");
            }
            say((clock.elapsed() - start).as_nanos());
        }
    }
}
