//! Bytes that are no HTTP, or too much of it, or too slow.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::support::house::{self, Sale};
use crate::support::raw::{Outcome, Raw, exchange};
use crate::support::{Client, Server};

const SOON: Duration = Duration::from_secs(5);
/// Headers must be complete within 10 s, bodies within 30 s; this much later at most.
const LATE: Duration = Duration::from_secs(5);

async fn still_serves(address: SocketAddr) {
    let reply = Client::stranger(address).get("/v1/shows").await;
    assert_eq!(reply.status, 200, "the server goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_is_400_and_closed() {
    let server = Server::start();
    let long = "x".repeat(200_000);
    let cases: Vec<(&str, String)> = vec![
        ("garbage", "\u{1}\u{2}\u{3}garbage\r\n\r\n".to_owned()),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{0}\u{5}hello".repeat(20) + "\r\n\r\n"),
        ("no version", "GET /\r\nHost: t\r\n\r\n".to_owned()),
        ("HTTP/3", "GET / HTTP/3.0\r\nHost: t\r\n\r\n".to_owned()),
        ("space in a name", "GET / HTTP/1.1\r\nHo st: t\r\n\r\n".to_owned()),
        ("no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n".to_owned()),
        ("NUL in a value", "GET / HTTP/1.1\r\nHost: t\r\nx: a\0b\r\n\r\n".to_owned()),
        (
            "bad length",
            "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Length: -5\r\n\r\n".into(),
        ),
        (
            "two lengths",
            "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\
             Content-Length: 3\r\n\r\n{}"
                .to_owned(),
        ),
        (
            "length and chunks",
            "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (
            "bad chunk",
            "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"
                .to_owned(),
        ),
        ("long line", format!("GET /{long} HTTP/1.1\r\nHost: t\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let outcome = exchange(server.address(), bytes.as_bytes(), SOON).await;
        let allowed: &[u16] = if what == "long line" { &[400, 414, 431] } else { &[0, 400] };
        assert!(allowed.contains(&outcome.status()), "{what}: {}", outcome.text());
        assert!(outcome.closed, "{what}: the connection stays open");
        assert!(!outcome.text().contains("HTTP/1.1 2"), "{what}: nothing was served");
    }
    still_serves(server.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_or_too_large_headers_are_431() {
    let server = Server::start();
    let mut many = "GET /v1/shows HTTP/1.1\r\nHost: t\r\n".to_owned();
    (0..200).for_each(|n| write!(many, "x-{n}: 1\r\n").expect("a string grows"));
    let large = "y".repeat(80 * 1024);
    let large = format!("GET /v1/shows HTTP/1.1\r\nHost: t\r\nx: {large}\r\n");
    for head in [many, large] {
        let outcome = exchange(server.address(), format!("{head}\r\n").as_bytes(), SOON).await;
        assert_eq!(outcome.status(), 431, "{}", outcome.text());
        assert!(outcome.closed);
    }
    // As much as the contract allows is served.
    let mut allowed = "GET /v1/shows HTTP/1.1\r\nHost: t\r\nConnection: close\r\n".to_owned();
    (0..90).for_each(|n| write!(allowed, "x-{n}: {}\r\n", "z".repeat(500)).expect("it grows"));
    let outcome = exchange(server.address(), format!("{allowed}\r\n").as_bytes(), SOON).await;
    assert_eq!(outcome.status(), 200, "{}", outcome.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_are_closed_after_ten_seconds() {
    let server = Server::start();
    let mut raw = Raw::connect(server.address()).await;
    raw.send(b"GET /v1/shows HTTP/1.1\r\nHost: t\r\n").await;
    // One more byte now and then does not buy time.
    let outcome = drip(&mut raw, b"x", Duration::from_secs(10) + LATE).await;
    assert!(outcome.closed, "after {:?}", outcome.took);
    assert!(matches!(outcome.status(), 0 | 408), "{}", outcome.text());
    still_serves(server.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_is_408_and_closed() {
    let server = Server::start();
    let mut raw = Raw::connect(server.address()).await;
    let head = "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{";
    raw.send(head.as_bytes()).await;
    let outcome = drip(&mut raw, b" ", Duration::from_secs(30) + LATE).await;
    assert!(outcome.closed, "after {:?}", outcome.took);
    assert_eq!(outcome.status(), 408, "{}", outcome.text());
    assert!(outcome.text().contains("\"timeout\""), "{}", outcome.text());
    still_serves(server.address()).await;
}

/// Sends a byte every half second until the server closes.
async fn drip(raw: &mut Raw, byte: &[u8], within: Duration) -> Outcome {
    let start = tokio::time::Instant::now();
    let mut all = Outcome { bytes: Vec::new(), closed: false, took: Duration::ZERO };
    while !all.closed && start.elapsed() < within {
        let sent = raw.send(byte).await;
        let outcome = raw.read_to_close(Duration::from_millis(500)).await;
        all.bytes.extend(outcome.bytes);
        all.closed = outcome.closed || !sent;
    }
    all.took = start.elapsed();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded() {
    let server = Server::start();
    let sale = Sale::open(&server, house::rows(2, 10), json!({})).await;
    let buyer = house::buyer(&server).await;
    let token = buyer.client.token.as_deref().expect("signed in");
    // By what the head says, before a byte of the body has come.
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        sale.path("/holds"),
        (1 << 20) + 1
    );
    let outcome = exchange(server.address(), head.as_bytes(), SOON).await;
    assert_eq!(outcome.status(), 413, "{}", outcome.text());
    // And by what has come, where the head says nothing.
    let head =
        head.replace(&format!("Content-Length: {}", (1 << 20) + 1), "Transfer-Encoding: chunked");
    let mut raw = Raw::connect(server.address()).await;
    raw.send(head.as_bytes()).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..40 {
        if !raw.send(chunk.as_bytes()).await {
            break;
        }
    }
    let outcome = raw.read_to_close(SOON).await;
    assert!(outcome.closed, "an endless body is read on and on");
    assert!(matches!(outcome.status(), 0 | 413), "{}", outcome.text());
    still_serves(server.address()).await;
}

/// Sends what HTTP/2 frames need; see RFC 9113.
mod h2 {
    pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_STREAM_AND_HEADERS: u8 = 0x5;

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// `GET /` over http with authority `t`, from the static table of HPACK.
    pub(super) fn get() -> Vec<u8> {
        vec![0x82, 0x86, 0x84, 0x01, 0x01, b't']
    }

    /// The kinds of the whole frames in what a server has sent.
    pub(super) fn kinds(mut bytes: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while bytes.len() >= 9 {
            let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8;
            let length = length | usize::from(bytes[2]);
            kinds.push(bytes[3]);
            bytes = bytes.get(9 + length..).unwrap_or_default();
        }
        kinds
    }
}

/// Rapid reset (CVE-2023-44487): requests that are cancelled at once are not free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rapid_reset_is_answered_goaway() {
    let server = Server::start();
    let mut bytes = h2::PREFACE.to_vec();
    bytes.extend(h2::frame(h2::SETTINGS, 0, 0, &[]));
    for n in 0..20_000 {
        let stream = 2 * n + 1;
        bytes.extend(h2::frame(h2::HEADERS, h2::END_STREAM_AND_HEADERS, stream, &h2::get()));
        bytes.extend(h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    goes_away(&server, bytes).await;
}

/// CONTINUATION flood (CVE-2024-27316): a header list without an end is not collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_continuation_flood_is_answered_goaway() {
    let server = Server::start();
    let before = server.resident_bytes();
    let mut bytes = h2::PREFACE.to_vec();
    bytes.extend(h2::frame(h2::SETTINGS, 0, 0, &[]));
    bytes.extend(h2::frame(h2::HEADERS, 0, 1, &h2::get()));
    // A literal field without indexing, again and again.
    let field: Vec<u8> = [&[0x00, 0x01, b'x', 0x7e][..], &[b'v'; 126]].concat();
    let fields = field.repeat(100);
    (0..2_000).for_each(|_| bytes.extend(h2::frame(h2::CONTINUATION, 0, 1, &fields)));
    goes_away(&server, bytes).await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "26 MB of headers cost {grown} bytes");
}

async fn goes_away(server: &Server, bytes: Vec<u8>) {
    let mut raw = Raw::connect(server.address()).await;
    // The server may close before all of it is sent.
    let sending = tokio::time::timeout(SOON, raw.send(&bytes)).await;
    let outcome = raw.read_to_close(SOON).await;
    let kinds = h2::kinds(&outcome.bytes);
    let refused = kinds.contains(&h2::GOAWAY) || outcome.closed;
    assert!(refused, "{sending:?}, frames {kinds:?}");
    still_serves(server.address()).await;
}

/// A client that goes away in the middle leaves nothing behind that others would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_are_forgotten() {
    let server = Server::start();
    for cut in [1, 10, 30, 60, 90] {
        for _ in 0..50 {
            let text = "POST /v1/auth/signin HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\n\r\n\
                        {\"email\":\"a@b.c\",\"pass";
            let mut raw = Raw::connect(server.address()).await;
            raw.send(&text.as_bytes()[..cut.min(text.len())]).await;
        }
    }
    still_serves(server.address()).await;
}
