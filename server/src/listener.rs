//! The accept loop: connection limits, HTTP limits, time-outs, and an orderly end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::front::Front;
use crate::metrics::Metrics;
use crate::outlet::{Endless, Handover};
use crate::stop::Stop;
use crate::wire::{Activity, Answering, Verdict, WRITE_TIMEOUT, Wire};

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of a request's head at most.
pub(crate) const HEAD_FIELDS_MAX: usize = 100;
/// Requests of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 256;
/// Requests that a client opens and resets before we take them, until the connection is closed
/// (CVE-2023-44487).
const RESETS_MAX: usize = 64;
/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 4_096;
/// How long the loop rests when no file handle is left.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// In all.
    pub(crate) total: u32,
    /// Of one address; `None` is no limit.
    pub(crate) per_address: Option<u32>,
}

/// A socket that is listened on.
pub(crate) struct Listener {
    socket: TcpListener,
    limits: ConnectionLimits,
    permits: Arc<Semaphore>,
    addresses: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The system's: the address is in use, or not ours.
    pub(crate) fn bind(address: SocketAddr, limits: ConnectionLimits) -> io::Result<Listener> {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // A restart finds connections of its predecessor in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let permits = Arc::new(Semaphore::new(limits.total as usize));
        Ok(Listener { socket, limits, permits, addresses: Arc::default() })
    }

    /// Where it listens, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`, then lets running requests finish for `grace` at most. Connections
    /// that are still there then are cut.
    pub(crate) async fn run(self, front: Arc<Front>, stop: Stop, grace: Duration) {
        let mut stopped = pin!(stop.stopped());
        let builder = Arc::new(http());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(slot) = self.admit(address.ip(), &front) else { continue };
                    let connection = Connection {
                        stream,
                        address: address.ip(),
                        front: Arc::clone(&front),
                        builder: Arc::clone(&builder),
                        slot,
                    };
                    tokio::spawn(connection.serve(stop.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // No file handles, most likely. Those of others come back.
                    tracing::warn!(%error, "cannot accept connections for a moment");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(self.socket);
        let all = self.permits.acquire_many(self.limits.total);
        if tokio::time::timeout(grace, all).await.is_err() {
            let left = self.limits.total as usize - self.permits.available_permits();
            tracing::warn!(connections = left, "cut connections that did not end in time");
        }
    }

    /// A place for one more connection of `address`, if there is one. Without one the socket is
    /// closed at once, which a client sees sooner than silence.
    fn admit(&self, address: IpAddr, front: &Front) -> Option<Slot> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let address = address.to_canonical();
        if let Some(limit) = self.limits.per_address {
            let mut addresses = self.addresses.lock();
            let count = addresses.entry(address).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        let addresses = self.limits.per_address.map(|_| Arc::clone(&self.addresses));
        let metrics = Arc::clone(front.metrics());
        metrics.connections.add();
        Some(Slot { address, addresses, metrics, _permit: permit })
    }
}

/// A connection counts while this lives.
struct Slot {
    address: IpAddr,
    addresses: Option<Arc<Mutex<HashMap<IpAddr, u32>>>>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.connections.remove();
        let Some(addresses) = &self.addresses else { return };
        let mut addresses = addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// Whether only the connection that was to be accepted has failed.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // `wire.rs` keeps the time-outs of HTTP/1. hyper refuses a head of more than 100 fields by
    // itself, and is quicker when it is not told to.
    const _: () = assert!(HEAD_FIELDS_MAX == 100);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http1().max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Connection {
    stream: TcpStream,
    address: IpAddr,
    front: Arc<Front>,
    builder: Arc<Builder<TokioExecutor>>,
    slot: Slot,
}

impl Connection {
    async fn serve(self, stop: Stop) {
        let activity = Arc::new(Activity::new(self.front.clock()));
        let slot = self.converse(&activity, stop).await;
        if let Some(outlet) = activity.handover.take() {
            // In a task of its own: this one is as large as hyper's connection was.
            tokio::spawn(async move {
                outlet.await;
                drop(slot);
            });
        }
    }

    /// Speaks HTTP until the connection ends, or one of its answers goes on without hyper.
    async fn converse(self, activity: &Arc<Activity>, stop: Stop) -> Slot {
        let Connection { stream, address, front, builder, slot } = self;
        prepare(&stream);
        let io = TokioIo::new(Wire::new(stream, Arc::clone(activity)));
        let service = service_fn(|request| answer(&front, activity, address, request));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut stopped = pin!(stop.stopped());
        let mut stopping = false;
        let mut look = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            tokio::select! {
                biased;
                // What went wrong with one client's connection is of no interest to anybody.
                _ = connection.as_mut() => return slot,
                // Right behind hyper, which is all that can change it.
                () = handed_over(&activity.handover) => return slot,
                () = &mut stopped, if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut look => match activity.verdict() {
                    Verdict::Wait(rest) => look.set(tokio::time::sleep(rest)),
                    Verdict::Close(farewell) => {
                        activity.say(farewell);
                        return slot;
                    }
                },
            }
        }
    }
}

/// Answers one request of a connection.
fn answer(
    front: &Arc<Front>,
    activity: &Arc<Activity>,
    address: IpAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    let answering = activity.request();
    let (front, activity) = (Arc::clone(front), Arc::clone(activity));
    async move {
        let suits = Handover::suits(&request);
        let mut response = front.serve(address, request).await?;
        if suits && response.extensions().get::<Endless>().is_some() {
            response = Handover::offer(&activity, response);
        }
        Ok(response.map(|body| Answer { body, answering }))
    }
}

/// Resolves when hyper has done its part of an answer that goes on.
fn handed_over(handover: &Handover) -> impl Future<Output = ()> {
    poll_fn(|_| if handover.is_flushed() { Poll::Ready(()) } else { Poll::Pending })
}

/// Sets what makes a connection quick, and its end noticed. A connection that is gone already is
/// found out when it is read.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Answers are small and whole: waiting for more to send only adds latency.
    let _ = socket.set_tcp_nodelay(true);
    // Without it a client whose machine or network is gone is sent to for a quarter of an hour,
    // and waits in a line all the time. What is sent to a stream, if only its comments, asks.
    let _ = socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT));
}

/// An answer's body, which counts as running until its last byte is with hyper.
struct Answer {
    body: Body,
    answering: Answering,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answering.asked();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) && !self.body.is_end_stream() {
            self.answering.gave();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::wire::{Farewell, GIVEN_TIMEOUT};
    use futures_util::{StreamExt, stream};

    #[tokio::test]
    async fn a_client_that_vanished_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.expect("accepted");
        prepare(&stream);
        let timeout = SockRef::from(&stream).tcp_user_timeout().expect("Linux has it");
        assert_eq!(timeout, Some(WRITE_TIMEOUT));
        drop(client);
    }

    /// Planted bug: only the socket's stalls are looked at, and the other streams of an HTTP/2
    /// connection keep it going.
    #[tokio::test]
    async fn a_body_that_nobody_asks_for_ends_the_connection() {
        let activity = Arc::new(Activity::new(Arc::new(SystemClock::start())));
        let chunks = ["a", "b"].map(|text| Ok::<_, std::convert::Infallible>(Bytes::from(text)));
        let chunks = stream::iter(chunks).chain(stream::pending());
        let mut answer = Answer { body: Body::from_stream(chunks), answering: activity.request() };
        let poll = |answer: &mut Answer| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            hyper::body::Body::poll_frame(Pin::new(answer), &mut cx).is_ready()
        };
        let later = || activity.verdict_in(GIVEN_TIMEOUT);
        assert!(matches!(later(), Verdict::Wait(_)));
        assert!(poll(&mut answer));
        assert_eq!(later(), Verdict::Close(Farewell::Silent));
        assert!(poll(&mut answer));
        assert_eq!(later(), Verdict::Close(Farewell::Silent));
        assert!(!poll(&mut answer), "it is asked for more, which comes later");
        assert!(matches!(later(), Verdict::Wait(_)));
    }
}
