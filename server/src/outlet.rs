//! An answer that goes on for hours, without hyper.
//!
//! For each connection hyper has a task that is large and two buffers of 8 KiB, and for each frame
//! some work of its own: ten thousand readers of a stream are worth a shorter way. hyper reads the
//! request and writes the head of the answer. When the head is with the kernel, hyper's connection
//! is dropped and the socket comes back; what is left is an [`Outlet`]: the socket, the answer's
//! body, and the piece of it that is being sent.
//!
//! ```text
//! hyper   request ─> handler ─> head ─┐ flushed: the socket comes home
//! Outlet                              └─> body, chunk by chunk ─> last chunk ─> close
//! ```
//!
//! The head promises chunks (RFC 9112, section 7.1) and that the connection ends with them. Only
//! `GET` of HTTP/1.1 goes this way: HTTP/2 shares its connection, HTTP/1.0 knows no chunks, and
//! the answer to `HEAD` has no body.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, Request, Version};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::wire::Activity;

/// Bytes that a client may send while it is answered; they are thrown away.
const HEARD_BYTES_MAX: usize = 64 << 10;
/// A chunk of so many bytes, with its head and its end, is put together before it is sent: the
/// kernel takes one piece sooner than three.
const COPIED_BYTES_MAX: usize = 2 << 10;
/// The head of a chunk: a length in hexadecimal digits, and the end of its line.
const CHUNK_HEAD_BYTES_MAX: usize = usize::BITS as usize / 4 + 2;

/// Marks an answer, in its extensions, whose body goes on until somebody has enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endless;

/// Nothing is handed over.
const NOTHING: u8 = 0;
/// A body waits here, and hyper has its answer.
const OFFERED: u8 = 1;
/// The head is in hyper's buffer.
const WRITTEN: u8 = 2;
/// The head is with the kernel: hyper may go.
const FLUSHED: u8 = 3;

/// How far a connection is on its way from hyper to an [`Outlet`]. Only the connection's own tasks
/// touch it, so every access is relaxed.
#[derive(Debug)]
pub(crate) struct Handover {
    stage: AtomicU8,
    body: Mutex<Option<Body>>,
    socket: Mutex<Option<TcpStream>>,
}

impl Handover {
    /// An answer that is hyper's from its beginning to its end, until another is offered.
    pub(crate) fn new() -> Handover {
        let stage = AtomicU8::new(NOTHING);
        Handover { stage, body: Mutex::default(), socket: Mutex::default() }
    }

    /// Whether the answer to a request may go on without hyper, which alone can pass over a body.
    pub(crate) fn suits<B: hyper::body::Body>(request: &Request<B>) -> bool {
        request.version() == Version::HTTP_11
            && request.method() == Method::GET
            && request.body().is_end_stream()
    }

    /// Keeps the body of an answer. What hyper gets instead is the same head, and a body that
    /// only says when the head is written.
    pub(crate) fn offer(activity: &Arc<Activity>, mut response: Response) -> Response {
        // Nobody reads another request from this connection.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.map(|body| {
            *activity.handover.body.lock() = Some(body);
            activity.handover.stage.store(OFFERED, Ordering::Relaxed);
            Body::new(Absent(Arc::clone(activity)))
        })
    }

    /// Everything that hyper had to write is with the kernel.
    pub(crate) fn flushed(&self) {
        if self.stage.load(Ordering::Relaxed) == WRITTEN {
            self.stage.store(FLUSHED, Ordering::Relaxed);
        }
    }

    /// Whether hyper's connection can be dropped, after which [`take`](Self::take) has both.
    pub(crate) fn is_flushed(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == FLUSHED
    }

    /// The socket comes home.
    pub(crate) fn give_back(&self, socket: TcpStream) {
        *self.socket.lock() = Some(socket);
    }

    /// What an outlet is made of, if it came to that.
    pub(crate) fn take(&self) -> Option<Outlet> {
        let socket = self.socket.lock().take()?;
        let body = self.body.lock().take()?;
        Some(Outlet { socket, body: Some(body), chunk: None, sent: 0, heard: 0 })
    }
}

/// The body that hyper gets: it is asked for its first piece when the head is written.
struct Absent(Arc<Activity>);

impl HttpBody for Absent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let stage = &self.0.handover.stage;
        if stage.load(Ordering::Relaxed) == OFFERED {
            stage.store(WRITTEN, Ordering::Relaxed);
        }
        Poll::Pending
    }
}

/// Sends a body to a socket, chunk by chunk. Resolves when all is sent or the client has gone. One
/// that takes no byte for long has gone, too, says the kernel: the listener asked it to watch.
#[must_use = "nothing is sent unless it is polled"]
pub(crate) struct Outlet {
    socket: TcpStream,
    /// `None` after its end.
    body: Option<Body>,
    /// What is being sent. An empty one is the last.
    chunk: Option<Bytes>,
    /// Bytes of the chunk, with its head and its end, that the socket has taken.
    sent: usize,
    /// Bytes that the client has sent.
    heard: usize,
}

/// The connection is no more; why is of no interest to anybody.
struct Gone;

impl Outlet {
    /// Looks whether the client has hung up.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        loop {
            let mut bytes = [0; 512];
            let mut read = ReadBuf::new(&mut bytes);
            let result = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read));
            self.heard += read.filled().len();
            let ended = read.filled().is_empty();
            if result.is_err() || ended || self.heard > HEARD_BYTES_MAX {
                return Poll::Ready(Gone);
            }
        }
    }

    /// The next piece of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Gone>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Err(Gone)) };
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Ok(bytes)),
                    // An empty chunk would be the end.
                    _ => {}
                },
                Some(Err(_)) => return Poll::Ready(Err(Gone)),
                None => {
                    self.body = None;
                    return Poll::Ready(Ok(Bytes::new()));
                }
            }
        }
    }

    /// Sends what is left of a chunk.
    fn poll_send(&mut self, chunk: &[u8], cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut head = [0; CHUNK_HEAD_BYTES_MAX];
        let mut rest = &mut head[..];
        write!(rest, "{:x}\r\n", chunk.len()).expect("there is room for every length");
        let used = CHUNK_HEAD_BYTES_MAX - rest.len();
        let all = used + chunk.len() + 2;
        let pieces = [&head[..used], chunk, b"\r\n"];
        while self.sent < all {
            match self.poll_write(pieces, all, cx) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.sent += count;
                }
                Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        pieces: [&[u8]; 3],
        all: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if all <= COPIED_BYTES_MAX {
            let mut copy = [0; COPIED_BYTES_MAX];
            let mut rest = &mut copy[..];
            for piece in pieces {
                rest.write_all(piece).expect("there is room for all");
            }
            return socket.poll_write(cx, &copy[self.sent..all]);
        }
        let mut slices = pieces.map(IoSlice::new);
        let mut slices = &mut slices[..];
        IoSlice::advance_slices(&mut slices, self.sent);
        socket.poll_write_vectored(cx, slices)
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Gone));
        }
        loop {
            let chunk = match self.chunk.take() {
                Some(chunk) => chunk,
                None => ready!(self.poll_body(cx))?,
            };
            match self.poll_send(&chunk, cx) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => {
                    self.chunk = Some(chunk);
                    return Poll::Pending;
                }
            }
            self.sent = 0;
            if chunk.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Future for Outlet {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_all(cx).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use socket2::SockRef;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// Both ends of a connection; the sender's buffer is soon full.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (client, (server, _)) = (client.expect("connected"), accepted.expect("accepted"));
        SockRef::from(&server).set_send_buffer_size(2_048).expect("a small buffer");
        (client, server)
    }

    fn outlet(socket: TcpStream, body: Body) -> Outlet {
        Outlet { socket, body: Some(body), chunk: None, sent: 0, heard: 0 }
    }

    /// The bytes of a chunked body, and whether it has an end.
    fn decode(mut bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        while let Some(end) = bytes.windows(2).position(|part| part == b"\r\n") {
            let length = std::str::from_utf8(&bytes[..end]).expect("digits");
            let length = usize::from_str_radix(length, 16).expect("hexadecimal");
            let chunk = &bytes[end + 2..];
            assert_eq!(&chunk[length..length + 2], b"\r\n");
            body.extend_from_slice(&chunk[..length]);
            bytes = &chunk[length + 2..];
            if length == 0 {
                assert!(bytes.is_empty(), "nothing comes after the last chunk");
                return (body, true);
            }
        }
        (body, false)
    }

    /// Planted bugs: a piece that was sent in part is sent from its beginning; an empty piece is
    /// sent as the last chunk.
    #[tokio::test]
    async fn every_piece_arrives_whole_through_a_small_buffer() {
        let sizes = [1, 0, COPIED_BYTES_MAX - 7, COPIED_BYTES_MAX, 900_000, 15, 16, 0, 999];
        let piece = |(n, size): (usize, usize)| Bytes::from(vec![b'a' + n as u8; size]);
        let pieces: Vec<Bytes> = sizes.into_iter().enumerate().map(piece).collect();
        let body = stream::iter(pieces.clone()).map(Ok::<_, std::convert::Infallible>);
        let (mut client, server) = connection().await;
        let sending = tokio::spawn(outlet(server, Body::from_stream(body)));
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("an orderly end");
        sending.await.expect("no panic");
        let (body, ended) = decode(&heard);
        assert!(ended && body == pieces.concat());
    }

    /// Planted bug: the reading side is looked at only while there is nothing to send.
    #[tokio::test]
    async fn who_hangs_up_is_noticed_though_the_socket_is_full() {
        let (client, server) = connection().await;
        let body = Body::from(vec![b'x'; 8 << 20]);
        let mut sending = tokio::spawn(outlet(server, body));
        let filled = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(filled, &mut sending).await.is_err(), "it waits");
        SockRef::from(&client).shutdown(std::net::Shutdown::Write).expect("connected");
        let soon = tokio::time::timeout(std::time::Duration::from_secs(5), sending).await;
        soon.expect("noticed").expect("no panic");
    }
}
