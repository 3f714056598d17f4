//! Streams on their way without hyper: the same answers, and whoever hangs up is noticed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::json;

use crate::support::house::{self, Sale};
use crate::support::raw::Raw;
use crate::support::{Client, Launch, Server, eventually};

const SOON: Duration = Duration::from_secs(5);
const LAST_CHUNK: &str = "0\r\n\r\n";

async fn open_sale(server: &Server) -> Sale {
    let line = json!({ "mode": "paused", "max_active": 1, "rate_per_s": 1 });
    Sale::open(server, house::rows(4, 10), json!({ "line": line })).await
}

/// A stream by hand, up to its first event; gives what came so far.
async fn begin(server: &Server, request: &str) -> (Raw, String) {
    let mut raw = Raw::connect(server.address()).await;
    assert!(raw.send(request.as_bytes()).await);
    let begun = raw.read_until("data: ", SOON).await;
    (raw, begun)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
}

/// A buyer in line, and the request for his stream.
async fn waiting(server: &Server, sale: &Sale) -> String {
    let buyer = house::buyer(server).await;
    buyer.client.post_empty(&sale.path("/line")).await.expect(201);
    let token = buyer.client.token.expect("signed in");
    get(&sale.path("/line/stream"), &format!("Authorization: Bearer {token}\r\n"))
}

async fn gauge(client: &Client, name: &str) -> u64 {
    let text = client.get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).expect("a gauge")
}

/// The fields of a head, without what differs from answer to answer.
fn fields(answer: &str) -> Vec<String> {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    let names = |line: &str| line.split_once(':').expect("a field").0.to_owned();
    let own = ["content-type", "content-length", "connection", "transfer-encoding"];
    let mut fields: Vec<String> = head.lines().skip(1).map(names).collect();
    fields.retain(|name| !own.contains(&name.as_str()) && name != "x-accel-buffering");
    fields.sort();
    fields
}

/// Planted bug: what HTTP/1.0 cannot read goes the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_the_head_of_any_answer() {
    let server = Launch::new().set("TMOMI_CORS_ORIGINS", "https://shop.example").start();
    let sale = open_sale(&server).await;
    let origin = "Origin: https://shop.example\r\n";
    let request = get("/v1/shows", &format!("{origin}Connection: close\r\n"));
    let mut raw = Raw::connect(server.address()).await;
    raw.send(request.as_bytes()).await;
    let usual = raw.read_to_close(SOON).await.text();
    let (_raw, begun) = begin(&server, &get(&sale.path("/stream"), origin)).await;
    assert_eq!(fields(&begun), fields(&usual));
    for field in [
        "HTTP/1.1 200 OK\r\n",
        "\r\ncontent-type: text/event-stream\r\n",
        "\r\ncache-control: no-store\r\n",
        "\r\naccess-control-allow-origin: https://shop.example\r\n",
        "\r\nconnection: close\r\n",
        "\r\ntransfer-encoding: chunked\r\n",
        "\r\nx-accel-buffering: no\r\n",
    ] {
        assert!(begun.contains(field), "{field} in {begun}");
    }
    let old = get(&sale.path("/stream"), "").replace("HTTP/1.1", "HTTP/1.0");
    let (_raw, begun) = begin(&server, &old).await;
    let (head, body) = begun.split_once("\r\n\r\n").expect("a head");
    assert!(!head.contains("chunked") && body.starts_with("retry: "), "{begun}");
    let head = get(&sale.path("/stream"), "Connection: close\r\n").replace("GET", "HEAD");
    let mut raw = Raw::connect(server.address()).await;
    raw.send(head.as_bytes()).await;
    let outcome = raw.read_to_close(SOON).await;
    assert!(outcome.closed && outcome.text().ends_with("\r\n\r\n"), "{}", outcome.text());
}

/// An open stream of the line is a sign of life, so its end must not be. Planted bugs: the reading
/// side is not looked at; a connection is no longer counted when hyper has left it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_is_noticed() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let stranger = Client::stranger(server.address());
    let request = waiting(&server, &sale).await;
    // Those of the stranger and of who opened the sale; the buyer's may take a moment to go.
    let before = 2;
    eventually("the buyer has gone", Duration::from_secs(20), async || {
        (gauge(&stranger, "tmomi_connections").await == before).then_some(())
    })
    .await;
    for way in ["closed", "half closed", "closed with a request unread"] {
        let (mut raw, _) = begin(&server, &request).await;
        assert_eq!(gauge(&stranger, "tmomi_line_streams").await, 1, "{way}");
        assert_eq!(gauge(&stranger, "tmomi_connections").await, before + 1, "{way}");
        match way {
            "half closed" => raw.half_close().await,
            "closed" => {}
            _ => assert!(raw.send(get("/v1/shows", "").as_bytes()).await),
        }
        let _kept = (way == "half closed").then_some(raw);
        eventually(way, Duration::from_secs(2), async || {
            let open = gauge(&stranger, "tmomi_line_streams").await;
            let connections = gauge(&stranger, "tmomi_connections").await;
            ((open, connections) == (0, before)).then_some(())
        })
        .await;
    }
}

/// Planted bug: what a client says while it is answered is read without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_the_request_for_a_stream_is_not_answered() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let (buyer, shows) = (house::buyer(&server).await, get("/v1/shows", ""));
    let request = get(&sale.path("/stream"), "");
    let (mut raw, mut heard) = begin(&server, &format!("{request}{shows}")).await;
    raw.send(shows.as_bytes()).await;
    sale.admin.post(&sale.admin_path("/blocks"), json!({ "seats": ["A-1-1"] })).await.expect(200);
    heard += &raw.read_until("\"blocked\":[\"A-1-1\"]", SOON).await;
    assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
    for _ in 0..64 {
        if !raw.send(&[b'x'; 16 << 10]).await {
            break;
        }
    }
    assert!(raw.read_to_close(SOON).await.closed, "somebody is listened to for ever");
    assert_eq!(buyer.client.get("/v1/shows").await.status, 200);
}

/// Planted bug: the last chunk is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_streams_as_http_has_it() {
    let mut server = Server::start();
    let sale = open_sale(&server).await;
    let seats = begin(&server, &get(&sale.path("/stream"), "")).await.0;
    let line = begin(&server, &waiting(&server, &sale).await).await.0;
    server.signal(Signal::TERM);
    for mut raw in [seats, line] {
        let outcome = raw.read_to_close(SOON).await;
        assert!(outcome.closed && outcome.text().ends_with(LAST_CHUNK), "{}", outcome.text());
    }
    assert!(server.wait_exit(SOON).success());
}

/// Who gives up his place hears the end of the stream, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_the_line_ends_with_the_place() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let request = waiting(&server, &sale).await;
    let (mut raw, _) = begin(&server, &request).await;
    let leave = request.replace("GET", "DELETE").replace("/line/stream", "/line/me");
    let mut leaving = Raw::connect(server.address()).await;
    leaving.send(leave.as_bytes()).await;
    leaving.read_until("HTTP/1.1 204", SOON).await;
    let outcome = raw.read_to_close(SOON).await;
    assert!(outcome.closed && outcome.text().ends_with(LAST_CHUNK), "{}", outcome.text());
}

/// Planted bug: the version is not looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_http_2_share_their_connection() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let socket = tokio::net::TcpStream::connect(server.address()).await.expect("accepted");
    let opening = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
    let (mut sender, connection) = opening.expect("HTTP/2");
    tokio::spawn(connection);
    let uri = |path: &str| format!("http://{}{path}", server.address());
    let request =
        |path: &str| hyper::Request::get(uri(path)).body(Empty::<Bytes>::new()).expect("a request");
    let mut streams = Vec::new();
    for _ in 0..2 {
        let answer = sender.send_request(request(&sale.path("/stream"))).await.expect("a stream");
        assert!(answer.headers().get("connection").is_none());
        streams.push(answer.into_body());
    }
    let shows = sender.send_request(request("/v1/shows")).await.expect("an answer");
    assert_eq!(shows.status(), 200);
    sale.admin.post(&sale.admin_path("/blocks"), json!({ "seats": ["A-1-1"] })).await.expect(200);
    for stream in &mut streams {
        let mut heard = String::new();
        while !heard.contains("event: seats") {
            let frame = tokio::time::timeout(SOON, stream.frame()).await.expect("in time");
            let bytes = frame.expect("it goes on").expect("whole").into_data().expect("data");
            heard.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        assert!(heard.starts_with("retry: ") && heard.contains("event: hello"), "{heard}");
    }
}
