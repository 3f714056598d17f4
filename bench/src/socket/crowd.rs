//! Many connections on one thread: closed loops, where each sends as soon as it was answered, and
//! open ones, where requests have their times whatever the server does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::clock::LoadClock;
use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::wire::Answer;
use crate::Rng;

/// Looks at ready connections at a time.
const EVENTS_MAX: usize = 256;
/// Bytes of an answer that arrive at once as a rule.
const READ_BYTES: usize = 16 << 10;
/// Answers that take longer are lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whoever is on a connection.
pub trait Guest {
    /// Writes the next request; `false` if there is none.
    fn ask(&mut self, out: &mut Vec<u8>) -> bool;
    /// Reads the answer to it.
    fn hear(&mut self, answer: Answer<'_>);
}

/// What a load measured.
pub struct Outcome {
    /// Answers within the time of the load.
    pub answers: u64,
    /// From the first request to the last answer that was counted.
    pub took: Duration,
    /// From the sending, or the planned time, to the answer, in ns. Of all requests.
    pub latency_ns: Histogram<u64>,
}

impl Outcome {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// A quantile of the latencies, in ms.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e6
    }
}

struct Lane {
    stream: TcpStream,
    unread: Vec<u8>,
    /// When the request was sent or was to be sent; `None` while nothing is asked.
    since: Option<Duration>,
}

/// Connections, which stay open from one load to the next.
pub struct Crowd {
    clock: LoadClock,
    epoll: OwnedFd,
    lanes: Vec<Lane>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Crowd {
    /// Makes `count` connections.
    ///
    /// # Panics
    ///
    /// If the server does not take them.
    pub fn connect(address: SocketAddr, count: usize) -> Crowd {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("one more file handle");
        let lane = |n: usize| {
            let stream = TcpStream::connect(address).expect("the server accepts");
            stream.set_nodelay(true).expect("a connected socket");
            stream.set_nonblocking(true).expect("a connected socket");
            epoll::add(&epoll, &stream, EventData::new_u64(n as u64), EventFlags::IN)
                .expect("a socket");
            Lane { stream, unread: Vec::new(), since: None }
        };
        let lanes = (0..count).map(lane).collect();
        let (clock, out) = (LoadClock::start(), Vec::new());
        Crowd { clock, epoll, lanes, out, buffer: vec![0; READ_BYTES] }
    }

    /// Each guest asks again as soon as he was answered, for `run`. What is asked by then is
    /// answered before this returns, and is not counted.
    pub fn closed<G: Guest>(&mut self, guests: &mut [G], run: Duration) -> Outcome {
        let start = self.clock.elapsed();
        let mut outcome = Outcome { answers: 0, took: run, latency_ns: histogram() };
        let mut asking = 0;
        for (n, guest) in guests.iter_mut().enumerate() {
            asking += usize::from(self.ask(n, guest, None));
        }
        while asking > 0 {
            for lane in self.ready(PATIENCE) {
                let Some(since) = self.hear(lane, &mut guests[lane]) else { continue };
                asking -= 1;
                let now = self.clock.elapsed();
                outcome.latency_ns.saturating_record((now - since).as_nanos() as u64);
                if now - start <= run {
                    outcome.answers += 1;
                    asking += usize::from(self.ask(lane, &mut guests[lane], None));
                }
            }
        }
        outcome
    }

    /// Every guest asks once, all at once, and again as long as he has something to ask; until all
    /// are done.
    pub fn to_the_end<G: Guest>(&mut self, guests: &mut [G]) -> Outcome {
        let start = self.clock.elapsed();
        let mut outcome = self.closed(guests, Duration::MAX);
        outcome.took = self.clock.elapsed() - start;
        outcome
    }

    /// Requests at random times, `rate` a second, for `run`: on whichever connection is free, and
    /// late if none is. A latency counts from the planned time, so a server that stands still is
    /// seen by all that wait for it.
    pub fn open<G: Guest>(
        &mut self,
        guests: &mut [G],
        rate: f64,
        run: Duration,
        rng: &mut Rng,
    ) -> Outcome {
        let start = self.clock.elapsed();
        let mut outcome = Outcome { answers: 0, took: run, latency_ns: histogram() };
        let mut idle: VecDeque<usize> = (0..guests.len()).collect();
        let mut planned = start + pause(rate, rng);
        let mut asking = 0;
        loop {
            let now = self.clock.elapsed();
            while planned <= now && planned - start < run {
                let Some(lane) = idle.pop_front() else { break };
                assert!(self.ask(lane, &mut guests[lane], Some(planned)), "it has no end");
                asking += 1;
                planned += pause(rate, rng);
            }
            let more = planned - start < run;
            if !more && asking == 0 {
                return outcome;
            }
            let wait = match more && !idle.is_empty() {
                true => planned.saturating_sub(self.clock.elapsed()),
                false => PATIENCE,
            };
            for lane in self.ready(wait) {
                let Some(since) = self.hear(lane, &mut guests[lane]) else { continue };
                asking -= 1;
                idle.push_back(lane);
                let now = self.clock.elapsed();
                outcome.latency_ns.saturating_record((now - since).as_nanos() as u64);
                outcome.answers += u64::from(now - start <= run);
            }
        }
    }

    /// Connections with something to read.
    fn ready(&self, wait: Duration) -> Vec<usize> {
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_MAX];
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let (ready, _) = loop {
            match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => break ready.expect("our own epoll"),
            }
        };
        assert!(!ready.is_empty() || wait < PATIENCE, "no answer within {PATIENCE:?}");
        ready.iter().map(|event| event.data.u64() as usize).collect()
    }

    /// Sends the guest's next request. `false` if he has none.
    fn ask<G: Guest>(&mut self, lane: usize, guest: &mut G, planned: Option<Duration>) -> bool {
        self.out.clear();
        if !guest.ask(&mut self.out) {
            return false;
        }
        let since = planned.unwrap_or_else(|| self.clock.elapsed());
        let lane = &mut self.lanes[lane];
        debug_assert!(lane.since.is_none(), "one request at a time");
        lane.since = Some(since);
        // Less than a socket's buffer holds, and nothing else is in it.
        lane.stream.write_all(&self.out).expect("there is room for a request");
        true
    }

    /// Reads an answer, if it is there whole; gives when it was asked for.
    fn hear<G: Guest>(&mut self, lane: usize, guest: &mut G) -> Option<Duration> {
        let lane = &mut self.lanes[lane];
        let read = match lane.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            read => read.expect("the server answers"),
        };
        assert!(read > 0, "the server closed a connection");
        let mut bytes = &self.buffer[..read];
        if !lane.unread.is_empty() {
            lane.unread.extend_from_slice(bytes);
            bytes = &lane.unread;
        }
        match Answer::read(bytes) {
            Some(answer) => {
                debug_assert_eq!(answer.length, bytes.len(), "one answer a request");
                guest.hear(answer);
                lane.unread.clear();
                lane.since.take()
            }
            None => {
                if lane.unread.is_empty() {
                    lane.unread.extend_from_slice(&self.buffer[..read]);
                }
                None
            }
        }
    }
}

/// From one request to the next of a crowd whose members do not know each other: exponential.
fn pause(rate: f64, rng: &mut Rng) -> Duration {
    const STEPS: u32 = 1 << 30;
    let uniform = (f64::from(rng.below(STEPS)) + 0.5) / f64::from(STEPS);
    Duration::from_secs_f64(-uniform.ln() / rate)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}
