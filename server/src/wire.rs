//! One connection's bytes, watched: who is slow, and who sends two lengths for one body.
//!
//! hyper times a head only from within, closes without a word, and would wait for the next
//! request of an idle connection no longer than for a head. So the time-outs are kept here, where
//! the bytes are, and the answer to a client that broke HTTP is written when hyper has let go of
//! the socket.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::SystemClock;
use crate::outlet::Handover;

/// A request's head must be complete so long after its first byte, and the first byte of a
/// connection so long after its start.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request is closed after so long.
pub(crate) const QUIET_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that takes none of its answer's bytes for so long is gone.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that asks for no more of an answer that goes on for so long is gone, though its other
/// streams of HTTP/2 may be alive.
pub(crate) const GIVEN_TIMEOUT: Duration = WRITE_TIMEOUT.saturating_mul(2);

/// What a client that speaks HTTP/2 at once begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const UNKNOWN: u8 = 0;
const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;

/// What is written when the connection is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Nothing.
    Silent = 0,
    /// A bare 400: the request has no one meaning.
    BadRequest = 1,
    /// A bare 408: the request did not arrive in time.
    Timeout = 2,
}

/// What the connection's task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again after so long.
    Wait(Duration),
    /// Close, with these words.
    Close(Farewell),
}

/// What is known of a connection. Its times are milliseconds since the process started, plus
/// one; 0 is "never". Only the tasks of one connection touch it, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Arc<SystemClock>,
    version: AtomicU8,
    farewell: AtomicU8,
    /// Requests that are being answered.
    running: AtomicU32,
    /// Since when nothing has been asked.
    quiet_since: AtomicU64,
    /// Since when a head has been arriving.
    head_since: AtomicU64,
    /// Since when the client has taken no byte.
    stalled_since: AtomicU64,
    /// Since when pieces of answers have been given that were not asked for another since, each
    /// with a number of its own.
    given: Mutex<BTreeSet<(u64, u64)>>,
    next_given: AtomicU64,
    /// Whether the socket is to outlive hyper.
    pub(crate) handover: Handover,
}

impl Activity {
    /// A connection that was just accepted.
    pub(crate) fn new(clock: Arc<SystemClock>) -> Activity {
        let activity = Activity {
            clock,
            version: AtomicU8::new(UNKNOWN),
            farewell: AtomicU8::new(Farewell::Silent as u8),
            running: AtomicU32::new(0),
            quiet_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            given: Mutex::default(),
            next_given: AtomicU64::new(0),
            handover: Handover::new(),
        };
        activity.quiet_since.store(activity.now(), Ordering::Relaxed);
        activity
    }

    /// A request's head is complete; the guard lives as long as the answer.
    pub(crate) fn request(self: &Arc<Activity>) -> Answering {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        Answering { activity: Arc::clone(self), given: None }
    }

    /// Whether the connection may go on.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict_in(Duration::ZERO)
    }

    /// Whether the connection may go on if nothing happens for `time`.
    pub(crate) fn verdict_in(&self, time: Duration) -> Verdict {
        let now = self.now() + time.as_millis() as u64;
        let left = |since: u64, timeout: Duration| {
            let end = since + timeout.as_millis() as u64;
            // A time that was never taken cannot run out.
            if since == 0 { u64::MAX } else { end.saturating_sub(now) }
        };
        let given = self.given.lock().first().map_or(0, |(since, _)| *since);
        let stalled = left(self.stalled_since.load(Ordering::Relaxed), WRITE_TIMEOUT)
            .min(left(given, GIVEN_TIMEOUT));
        if stalled == 0 {
            return Verdict::Close(Farewell::Silent);
        }
        if self.running.load(Ordering::Relaxed) > 0 {
            return Verdict::Wait(Duration::from_millis(stalled.min(HEAD_TIMEOUT_MS)));
        }
        let head = left(self.head_since.load(Ordering::Relaxed), HEAD_TIMEOUT);
        if head == 0 {
            return Verdict::Close(Farewell::Timeout);
        }
        // The first byte is owed like the rest of a head; later a client may think.
        let unknown = self.version.load(Ordering::Relaxed) == UNKNOWN;
        let patience = if unknown { HEAD_TIMEOUT } else { QUIET_TIMEOUT };
        let quiet = left(self.quiet_since.load(Ordering::Relaxed), patience);
        if quiet == 0 {
            return Verdict::Close(Farewell::Silent);
        }
        Verdict::Wait(Duration::from_millis(stalled.min(head).min(quiet).min(HEAD_TIMEOUT_MS)))
    }

    /// Chooses the last words.
    pub(crate) fn say(&self, farewell: Farewell) {
        self.farewell.store(farewell as u8, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.clock.since_start().as_millis() as u64 + 1
    }

    fn bytes_read(&self) {
        let idle = self.running.load(Ordering::Relaxed) == 0;
        // HTTP/2 has frames between requests, so there a head is not told from the rest; what
        // never becomes a request is closed as quiet.
        let counts = self.version.load(Ordering::Relaxed) != HTTP_2;
        if idle && counts && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn bytes_written(&self, pending: bool) {
        if !pending {
            self.stalled_since.store(0, Ordering::Relaxed);
        } else if self.stalled_since.load(Ordering::Relaxed) == 0 {
            self.stalled_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

const HEAD_TIMEOUT_MS: u64 = HEAD_TIMEOUT.as_millis() as u64;

/// A request is being answered while this lives.
#[must_use]
#[derive(Debug)]
pub(crate) struct Answering {
    activity: Arc<Activity>,
    /// The entry of the piece that was given last.
    given: Option<(u64, u64)>,
}

impl Answering {
    /// A piece of the answer was given, and it goes on.
    pub(crate) fn gave(&mut self) {
        let number = self.activity.next_given.fetch_add(1, Ordering::Relaxed);
        let given = (self.activity.now(), number);
        self.activity.given.lock().insert(given);
        self.given = Some(given);
    }

    /// The next piece is asked for, since there is room for it.
    pub(crate) fn asked(&mut self) {
        if let Some(given) = self.given.take() {
            self.activity.given.lock().remove(&given);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.asked();
        self.activity.running.fetch_sub(1, Ordering::Relaxed);
        self.activity.quiet_since.store(self.activity.now(), Ordering::Relaxed);
    }
}

/// The socket as hyper sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// There until the end.
    stream: Option<TcpStream>,
    activity: Arc<Activity>,
    scan: Scan,
}

impl Wire {
    /// Watches `stream`.
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Wire {
        Wire { stream: Some(stream), activity, scan: Scan::default() }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("it is taken when all else is over"))
    }

    /// Looks at bytes before hyper does.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let activity = &self.activity;
        match self.scan.feed(bytes) {
            Scanned::Unknown => {}
            Scanned::Http1 => activity.version.store(HTTP_1, Ordering::Relaxed),
            Scanned::Http2 => activity.version.store(HTTP_2, Ordering::Relaxed),
            Scanned::TwoLengths => {
                activity.say(Farewell::BadRequest);
                let why = "Content-Length and Transfer-Encoding in one request";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        activity.bytes_read();
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match self.stream().poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                Poll::Ready(self.look(&buf.filled()[before..]))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream().poll_write(cx, buf);
        self.activity.bytes_written(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.stream().poll_write_vectored(cx, bufs);
        self.activity.bytes_written(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for it when it has nothing left to write. A socket has nothing to flush.
        self.activity.handover.flushed();
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if self.activity.handover.is_flushed() {
            return self.activity.handover.give_back(stream);
        }
        let farewell = self.activity.farewell.load(Ordering::Relaxed);
        let status = match farewell {
            _ if farewell == Farewell::BadRequest as u8 => "400 Bad Request",
            _ if farewell == Farewell::Timeout as u8 => "408 Request Timeout",
            _ => return,
        };
        let bytes = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        // Whether it arrives is the client's affair.
        let _ = stream.try_write(bytes.as_bytes());
    }
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scanned {
    /// The start of either version.
    Unknown,
    Http1,
    Http2,
    /// HTTP/1 with both `Content-Length` and `Transfer-Encoding` in one head.
    TwoLengths,
}

/// Reads lines and looks for the two header fields that say how long a body is. hyper takes one
/// of them and drops the other; a proxy in front may choose differently and see other requests
/// than we do (RFC 9112, section 6.1).
///
/// Bodies are read as lines, too: framing them would be a second parser to be fooled. No JSON has
/// a line that begins with either name, so no honest body is refused.
#[derive(Debug, Default)]
struct Scan {
    preface: usize,
    http_2: bool,
    line: usize,
    start: [u8; NAME_MAX],
    length_seen: bool,
    encoding_seen: bool,
}

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";
/// Bytes of a line that decide which field it is.
const NAME_MAX: usize = ENCODING.len();
const _: () = assert!(LENGTH.len() <= NAME_MAX);

impl Scan {
    fn feed(&mut self, bytes: &[u8]) -> Scanned {
        if self.http_2 {
            return Scanned::Http2;
        }
        if self.preface < PREFACE.len() {
            let rest = &PREFACE[self.preface..];
            let n = rest.len().min(bytes.len());
            if bytes[..n] == rest[..n] {
                self.preface += n;
                self.http_2 = self.preface == PREFACE.len();
                return if self.http_2 { Scanned::Http2 } else { Scanned::Unknown };
            }
            // The part of a preface before it was the start of a request line, which no field
            // name looks like.
            self.preface = PREFACE.len();
        }
        self.lines(bytes)
    }

    fn lines(&mut self, mut bytes: &[u8]) -> Scanned {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let text = &bytes[..end.unwrap_or(bytes.len())];
            if self.line < NAME_MAX {
                let n = text.len().min(NAME_MAX - self.line);
                self.start[self.line..self.line + n].copy_from_slice(&text[..n]);
            }
            self.line += text.len();
            let Some(end) = end else { break };
            if self.end_line() {
                return Scanned::TwoLengths;
            }
            bytes = &bytes[end + 1..];
        }
        Scanned::Http1
    }

    /// Whether the line completes the pair.
    fn end_line(&mut self) -> bool {
        let start = &self.start[..self.line.min(NAME_MAX)];
        let is = |name: &[u8]| {
            start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let empty = start.is_empty() || start == b"\r";
        self.length_seen = !empty && (self.length_seen || is(LENGTH));
        self.encoding_seen = !empty && (self.encoding_seen || is(ENCODING));
        self.line = 0;
        self.length_seen && self.encoding_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Scanned {
        let whole = Scan::default().feed(text.as_bytes());
        let mut scan = Scan::default();
        let pieces: Vec<Scanned> = text.bytes().map(|byte| scan.feed(&[byte])).collect();
        let two = pieces.contains(&Scanned::TwoLengths);
        assert_eq!(two, whole == Scanned::TwoLengths, "cut or whole, the same: {text:?}");
        whole
    }

    #[test]
    fn two_lengths_in_one_head_are_found_however_they_are_written() {
        let two = "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(scan(two), Scanned::TwoLengths);
        let bare = "POST / HTTP/1.1\ntransfer-ENCODING:chunked\nhost: x\ncontent-length:3\n\n";
        assert_eq!(scan(bare), Scanned::TwoLengths);
        let second = format!("GET / HTTP/1.1\r\n\r\n{two}");
        assert_eq!(scan(&second), Scanned::TwoLengths);
    }

    #[test]
    fn honest_requests_pass() {
        let one = "POST / HTTP/1.1\r\nContent-Length: 3\r\nx-transfer-encoding: a\r\n\r\n{}\n";
        let other = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(scan(&format!("{one}{other}{one}")), Scanned::Http1);
        assert_eq!(scan("GET / HTTP/1.1\r\n"), Scanned::Http1);
    }

    #[test]
    fn http_2_is_told_by_its_preface() {
        assert_eq!(Scan::default().feed(PREFACE), Scanned::Http2);
        assert_eq!(Scan::default().feed(b"PRI"), Scanned::Unknown);
        assert_eq!(Scan::default().feed(b"PUT / HTTP/1.1\r\n"), Scanned::Http1);
    }

    #[test]
    fn a_new_connection_waits_for_its_first_byte_and_no_longer() {
        let activity = Arc::new(Activity::new(Arc::new(SystemClock::start())));
        assert!(matches!(activity.verdict(), Verdict::Wait(_)));
        let answering = activity.request();
        assert!(matches!(activity.verdict(), Verdict::Wait(_)));
        drop(answering);
        activity.stalled_since.store(1, Ordering::Relaxed);
        assert!(matches!(activity.verdict(), Verdict::Wait(_) | Verdict::Close(_)));
    }
}
