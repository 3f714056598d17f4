//! Open streams, read on one thread.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::clock::LoadClock;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Looks at ready streams at a time.
const EVENTS_MAX: usize = 1_024;
/// More than arrives on a stream between two looks.
const READ_BYTES: usize = 64 << 10;
/// Until all of a crowd's streams are open.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// Streams that stay open.
pub struct Readers {
    clock: LoadClock,
    epoll: OwnedFd,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Readers {
    /// One connection for each of `requests`, which is sent on it, without waiting for an answer.
    ///
    /// # Panics
    ///
    /// If the server does not take the connections.
    pub fn connect<'a>(address: SocketAddr, requests: impl Iterator<Item = &'a [u8]>) -> Readers {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("one more file handle");
        let open = |(n, request): (usize, &[u8])| {
            let mut stream = TcpStream::connect(address).expect("the server accepts");
            stream.write_all(request).expect("there is room for a request");
            stream.set_nonblocking(true).expect("a connected socket");
            epoll::add(&epoll, &stream, EventData::new_u64(n as u64), EventFlags::IN)
                .expect("a socket");
            stream
        };
        let streams = requests.enumerate().map(open).collect();
        Readers { clock: LoadClock::start(), epoll, streams, buffer: vec![0; READ_BYTES] }
    }

    /// The same for streams of the server: each has been told its first event.
    ///
    /// # Panics
    ///
    /// If one is refused, or not answered within a minute.
    pub fn open<'a>(address: SocketAddr, requests: impl Iterator<Item = &'a [u8]>) -> Readers {
        let mut readers = Readers::connect(address, requests);
        let mut begun = vec![false; readers.len()];
        let (mut left, start) = (begun.len(), readers.clock.elapsed());
        while left > 0 {
            assert!(readers.clock.elapsed() - start < OPEN_WITHIN, "{left} are not open");
            readers.read(Duration::from_millis(100), |n, bytes, _| {
                let text = String::from_utf8_lossy(bytes);
                let refused = text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 200");
                assert!(!refused, "{text}");
                let first = text.contains("data: ") && !std::mem::replace(&mut begun[n], true);
                left -= usize::from(first);
            });
        }
        readers
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// The clock that `heard` is told the time of.
    pub fn clock(&self) -> &LoadClock {
        &self.clock
    }

    /// Waits `wait` at most for something to arrive, and gives all that is there to `heard`: which
    /// stream, the bytes, the time.
    ///
    /// # Panics
    ///
    /// If the server closes a stream.
    pub fn read(&mut self, wait: Duration, mut heard: impl FnMut(usize, &[u8], Duration)) {
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return,
            ready => ready.expect("our own epoll").0,
        };
        for event in ready.iter() {
            let n = event.data.u64() as usize;
            let read = match self.streams[n].read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                read => read.expect("a stream goes on"),
            };
            assert!(read > 0, "stream {n} was closed");
            heard(n, &self.buffer[..read], self.clock.elapsed());
        }
    }
}
