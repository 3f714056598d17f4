//! A small HTTP/1.1 client: one pool of kept-alive connections, and bearers of tokens on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpStream;

use super::ANSWER_WITHIN;

type Connection = SendRequest<Full<Bytes>>;

/// A request got no complete answer: what it did is unknown.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Connections to one server.
pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    within: Duration,
}

impl Pool {
    /// A pool that opens as many connections as there are requests at a time.
    pub(crate) fn new(address: SocketAddr) -> Arc<Pool> {
        Pool::with_time_limit(address, ANSWER_WITHIN)
    }

    /// The same; an answer that takes longer than `within` is [`Broken`].
    pub(crate) fn with_time_limit(address: SocketAddr, within: Duration) -> Arc<Pool> {
        Arc::new(Pool { address, idle: Mutex::new(Vec::new()), within })
    }

    /// The server's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request and reads its whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply, Broken> {
        let answer = tokio::time::timeout(self.within, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(Broken(format!("no answer within {:?}", self.within))))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, Broken> {
        let mut connection = self.take().await?;
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        self.idle.lock().push(connection);
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// An idle connection that the server has not closed, or a new one.
    async fn take(&self) -> Result<Connection, Broken> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut connection) = idle else {
                return connect(self.address).await;
            };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }
}

/// A new connection of its own.
async fn connect(address: SocketAddr) -> Result<Connection, Broken> {
    let stream = TcpStream::connect(address).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    Ok(sender)
}

fn broken(error: impl std::fmt::Display) -> Broken {
    Broken(error.to_string())
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON; `Null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The `code` of a problem, empty in any other answer.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The JSON of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Asserts a refusal as the contract describes them.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["status"], status);
        assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
        assert!(!self.header("x-request-id").is_empty(), "every answer has a request id");
        problem
    }
}

/// Somebody who calls: a pool and, signed in, a token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) pool: Arc<Pool>,
    pub(crate) token: Option<String>,
}

impl Client {
    /// A stranger with a pool of his own.
    pub(crate) fn stranger(address: SocketAddr) -> Client {
        Client { pool: Pool::new(address), token: None }
    }

    /// The same pool with a token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client { pool: self.pool.clone(), token: Some(token.to_owned()) }
    }

    /// GET; no answer is a failure of the test.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::GET, path, None, None))
    }

    /// DELETE.
    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::DELETE, path, None, None))
    }

    /// POST of JSON.
    #[track_caller]
    pub(crate) fn post(
        &self,
        path: &str,
        body: Value,
    ) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::POST, path, None, Some(body)))
    }

    /// POST without a body.
    #[track_caller]
    pub(crate) fn post_empty(&self, path: &str) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::POST, path, None, None))
    }

    /// PUT of JSON.
    #[track_caller]
    pub(crate) fn put(
        &self,
        path: &str,
        body: Value,
    ) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::PUT, path, None, Some(body)))
    }

    /// PATCH of JSON.
    #[track_caller]
    pub(crate) fn patch(
        &self,
        path: &str,
        body: Value,
    ) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::PATCH, path, None, Some(body)))
    }

    /// POST with an `Idempotency-Key`; `None` for no body.
    #[track_caller]
    pub(crate) fn keyed(
        &self,
        path: &str,
        key: &str,
        body: Option<Value>,
    ) -> impl Future<Output = Reply> + Send + use<> {
        self.sure(self.request(Method::POST, path, Some(key), body))
    }

    /// Any call, where a missing answer is part of the test.
    pub(crate) async fn attempt(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Result<Reply, Broken> {
        self.pool.send(self.request(method, path, key, body)).await
    }

    /// Sends a request made by hand.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        self.pool.send(request).await.expect("an answer")
    }

    /// Opens a connection of its own, sends a GET and leaves the body unread.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, Broken> {
        let mut request = self.request(Method::GET, path, None, None);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().map_err(broken)?);
        }
        let opening = async {
            let mut connection = connect(self.pool.address).await?;
            connection.send_request(request).await.map_err(broken)
        };
        let late = |_| Err(Broken("the stream did not open".to_owned()));
        tokio::time::timeout(ANSWER_WITHIN, opening).await.unwrap_or_else(late)
    }

    /// A request with this client's token.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.pool.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = body.map(|body| body.to_string());
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        request.body(body).expect("a path and headers that HTTP allows")
    }

    #[track_caller]
    fn sure(&self, request: Request<Full<Bytes>>) -> impl Future<Output = Reply> + Send + use<> {
        let caller = std::panic::Location::caller();
        let what = format!("{} {}", request.method(), request.uri());
        let pool = self.pool.clone();
        async move {
            match pool.send(request).await {
                Ok(reply) => reply,
                Err(Broken(why)) => panic!("{caller}: {what} got no answer: {why}"),
            }
        }
    }
}
