//! Requests as bytes, and answers as far as a load has to read them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

/// What is the same in every request of a kind: made once.
#[derive(Clone, Debug)]
pub struct Template {
    head: Vec<u8>,
}

impl Template {
    /// A request of a user with `token`, if there is one.
    pub fn new(method: &str, path: &str, token: Option<&str>) -> Template {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n");
        if let Some(token) = token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        Template { head: head.into_bytes() }
    }

    /// The same with one more field in the head.
    pub fn with(mut self, name: &str, value: &str) -> Template {
        write!(self.head, "{name}: {value}\r\n").expect("memory takes it");
        self
    }

    /// Writes a request with a body of `media`.
    pub fn push(&self, out: &mut Vec<u8>, media: &str, body: &[u8]) {
        out.extend_from_slice(&self.head);
        let length = body.len();
        write!(out, "Content-Type: {media}\r\nContent-Length: {length}\r\n\r\n")
            .expect("memory takes it");
        out.extend_from_slice(body);
    }

    /// Writes a request with a JSON body and an `Idempotency-Key`, as a client sends it that may
    /// have to send it again.
    pub fn push_keyed(&self, out: &mut Vec<u8>, key: u64, body: &str) {
        out.extend_from_slice(&self.head);
        write!(
            out,
            "Idempotency-Key: {key:016x}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("memory takes it");
    }

    /// Writes a request without a body.
    pub fn push_empty(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"\r\n");
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of head and body.
    pub length: usize,
}

impl<'a> Answer<'a> {
    /// The answer that `bytes` begin with, if it is there whole. Its body must have a length, as
    /// all but streams have here, or be none.
    ///
    /// # Panics
    ///
    /// If it is no answer of HTTP/1.1.
    pub fn read(bytes: &'a [u8]) -> Option<Answer<'a>> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
        let (from, to) = (end + 4, end + 4 + length);
        (bytes.len() >= to).then(|| Answer { status, body: &bytes[from..to], length: to })
    }

    /// The text of a JSON member that is a plain string, without reading the rest.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let body = std::str::from_utf8(self.body).ok()?;
        let (_, rest) = body.split_once(&format!("\"{name}\":\""))?;
        rest.split_once('"').map(|(text, _)| text)
    }
}

/// From the time that an answer's member `expires_at` names to `now_ms`, in ms; negative if it is
/// to come. Both must be within half a day.
///
/// # Panics
///
/// If there is no such member.
pub fn since_expiry_ms(text: &str, now_ms: u64) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    let (_, rest) = text.rsplit_once("\"expires_at\":\"").expect("a time");
    let (time, _) = rest.split_once('Z').expect("in UTC");
    let (_, time) = time.split_once('T').expect("RFC 3339");
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().expect("digits")).collect();
    let of_day_ms = ((parts[0] * 60.0 + parts[1]) * 60_000.0 + parts[2] * 1_000.0).round() as i64;
    let since = (now_ms as i64 - of_day_ms).rem_euclid(DAY_MS);
    if since > DAY_MS / 2 { since - DAY_MS } else { since }
}

/// One connection whose owner waits for each answer: for what comes before and after a load.
pub struct Caller {
    stream: TcpStream,
    token: Option<String>,
    unread: Vec<u8>,
}

impl Caller {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect(address: SocketAddr) -> Caller {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a connected socket");
        Caller { stream, token: None, unread: Vec::new() }
    }

    /// Says who it is from now on.
    pub fn identify(&mut self, token: String) {
        self.token = Some(token);
    }

    /// Sends JSON and gives the answer's.
    ///
    /// # Panics
    ///
    /// Unless the answer's status is below 300.
    pub fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let template = Template::new(method, path, self.token.as_deref());
        let mut request = Vec::new();
        template.push(&mut request, "application/json", body.to_string().as_bytes());
        let (status, answer) = self.exchange(&request);
        let text = String::from_utf8_lossy(&answer);
        assert!(status < 300, "{method} {path}: {status} {text}");
        serde_json::from_slice(&answer).unwrap_or(Value::Null)
    }

    /// Sends bytes and gives status and body of the answer.
    ///
    /// # Panics
    ///
    /// If the server closes the connection.
    pub fn exchange(&mut self, request: &[u8]) -> (u16, Vec<u8>) {
        self.stream.write_all(request).expect("the server reads");
        let mut buffer = vec![0; 256 << 10];
        loop {
            if let Some(Answer { status, body, length }) = Answer::read(&self.unread) {
                let answer = (status, body.to_vec());
                self.unread.drain(..length);
                return answer;
            }
            let read = self.stream.read(&mut buffer).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }
}
