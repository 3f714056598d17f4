//! The seat stream of a showtime: every change of its map, encoded once for all readers.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tmomi_engine::event::Batch;
use tmomi_engine::ids::Seq;
use tmomi_persist::shard::WATCHER_BATCHES_MAX;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};

use super::frames::{Cursor, FRAME_BYTES_MAX, Frames, Kind, Lag, Taken};
use super::sse::{self, Resume};
use super::tracker::{Tracker, push_counts};
use super::{AddressSlot, COMMENT_EVERY};
use crate::app::{App, AppState};
use crate::extract::Ids;
use crate::front::Peer;
use crate::halls::Hall;
use crate::problem::{Problem, Result};

/// From one frame to the next at least: 20 a second.
const FRAME_EVERY: Duration = Duration::from_millis(50);
/// So much more for each reader, so that many of them get fewer frames and not all of the
/// processor: 50,000 writes a second.
const FRAME_EVERY_READER: Duration = Duration::from_micros(20);
/// From one frame to the next at most while seats change.
const FRAME_EVERY_MOST: Duration = Duration::from_secs(1);
/// From one `counts` to the next at least, if it is sent by itself.
const COUNTS_EVERY: Duration = Duration::from_millis(500);
/// The same if it goes along with seats, when it costs no write of its own.
const COUNTS_ALONG_EVERY: Duration = Duration::from_millis(250);
/// How often what was applied is folded while the next frame waits for its time.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// So many commits a second do not overtake a hub.
const COMMITS_PER_S: usize = 100_000;
const _: () =
    assert!(COMMITS_PER_S * LOOK_EVERY.as_millis() as usize / 1_000 <= WATCHER_BATCHES_MAX);
/// A hub without readers remembers its frames so long for those who come back.
const LINGER: Duration = Duration::from_secs(60);
/// Batches that are folded at a time, before frames are told.
const BATCHES_MAX: usize = 4_096;

/// One showtime's stream.
pub(crate) struct SeatHub {
    hall: Arc<Hall>,
    shared: Mutex<Shared>,
    /// Counts the comments that are due; sent to after every frame.
    beats: watch::Sender<u64>,
}

struct Shared {
    frames: Frames,
    readers: usize,
    /// The task has ended; there will be no more frames.
    closed: bool,
}

/// The public call: a new reader of a showtime.
#[utoipa::path(get, path = "/v1/showtimes/{showtime_id}/stream", tag = "streams",
    responses((status = 200, content_type = "text/event-stream",
        description = "Events `hello`, `seats`, `counts`, `reset`.")))]
pub(crate) async fn stream(
    State(app): State<AppState>,
    Extension(Peer(address)): Extension<Peer>,
    ids: Ids,
    headers: HeaderMap,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let slot = AddressSlot::take(&app, address)?;
    let reader = SeatReader::open(app, hall, slot, Resume::of(&headers))?;
    Ok(sse::response(stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((chunk, reader))
    })))
}

impl SeatHub {
    /// The hub of a showtime with one more reader; started if there is none.
    fn join(app: &AppState, hall: &Arc<Hall>) -> Result<Arc<SeatHub>> {
        let showtime = hall.id();
        let mut hubs = app.streams.seats.lock();
        if let Some(hub) = hubs.get(&showtime) {
            let mut shared = hub.shared.lock();
            if !shared.closed {
                shared.readers += 1;
                drop(shared);
                return Ok(Arc::clone(hub));
            }
        }
        // Subscribed first: what is applied after the image is read comes in a batch.
        let batches = app.shard.subscribe();
        let (tracker, base) = {
            let image = app.shard.image().read();
            let none = || Problem::not_found("showtime");
            let found = image.showtime(showtime).ok_or_else(none)?;
            (Tracker::new(&image, showtime).ok_or_else(none)?, found.seats_seq())
        };
        let shared = Shared { frames: Frames::new(base), readers: 1, closed: false };
        let hub = Arc::new(SeatHub {
            hall: Arc::clone(hall),
            shared: Mutex::new(shared),
            beats: watch::Sender::new(0),
        });
        hubs.insert(showtime, Arc::clone(&hub));
        let desk = Desk {
            app: Arc::clone(app),
            hub: Arc::clone(&hub),
            batches,
            tracker,
            // Whoever comes back may have missed the last ones of the process or hub before.
            counts_due: true,
            counts_told: None,
            text: String::new(),
        };
        tokio::spawn(desk.run());
        Ok(hub)
    }

    fn close(&self) {
        self.shared.lock().closed = true;
        self.beats.send_modify(|_| ());
    }
}

/// The task of a hub.
struct Desk {
    app: AppState,
    hub: Arc<SeatHub>,
    batches: broadcast::Receiver<Arc<Batch>>,
    tracker: Tracker,
    /// Free seats were touched since they were told.
    counts_due: bool,
    counts_told: Option<Duration>,
    text: String,
}

impl Desk {
    async fn run(mut self) {
        let app = Arc::clone(&self.app);
        let mut stopped = std::pin::pin!(app.stop.stopped());
        let mut next_comment = app.clock.since_start() + COMMENT_EVERY;
        let mut empty_since = None;
        loop {
            let now = app.clock.since_start();
            let wake_at = match self.counts_due {
                // What was folded during the rest wakes nobody any more.
                _ if self.tracker.touched() => now,
                true => next_comment.min(self.counts_at(COUNTS_EVERY)),
                false => next_comment,
            };
            tokio::select! {
                biased;
                () = &mut stopped => break,
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.tracker.follow(&batch, self.hub.hall.layout()),
                    Err(RecvError::Lagged(_)) => self.begin_anew(),
                    Err(RecvError::Closed) => break,
                },
                () = tokio::time::sleep(wake_at.saturating_sub(now)) => {}
            }
            self.catch_up();
            self.tell();
            let now = app.clock.since_start();
            if now >= next_comment {
                next_comment = (next_comment + COMMENT_EVERY).max(now);
                self.hub.beats.send_modify(|beats| *beats += 1);
            }
            let readers = self.hub.shared.lock().readers;
            empty_since = (readers == 0).then(|| empty_since.unwrap_or(now));
            if empty_since.is_some_and(|since| now >= since + LINGER) && self.retire() {
                return;
            }
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = self.rest(frame_every(readers)) => {}
            }
        }
        self.hub.close();
    }

    /// Lets time pass. What is applied meanwhile is folded now and then, since it is kept for a
    /// watcher in a number only.
    async fn rest(&mut self, rest: Duration) {
        let mut left = rest;
        while !left.is_zero() {
            let step = left.min(LOOK_EVERY);
            tokio::time::sleep(step).await;
            left -= step;
            self.catch_up();
        }
    }

    /// Folds what there is.
    fn catch_up(&mut self) {
        for _ in 0..BATCHES_MAX {
            match self.batches.try_recv() {
                Ok(batch) => self.tracker.follow(&batch, self.hub.hall.layout()),
                Err(TryRecvError::Lagged(_)) => self.begin_anew(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Batches were missed, and with them which seats were touched: every reader reads the map
    /// again.
    fn begin_anew(&mut self) {
        tracing::warn!(showtime = self.hub.hall.id().0, "a seat stream missed events: reset");
        let image = self.app.shard.image().read();
        let tracker = Tracker::new(&image, self.hub.hall.id());
        drop(image);
        self.tracker = tracker.expect("a showtime is opened for ever");
        self.counts_due = true;
        let seq = self.app.seq_text(self.tracker.seq());
        self.text.clear();
        push_seq(&mut self.text, "reset", &seq);
        self.push(Kind::Seats);
        self.hub.beats.send_modify(|_| ());
    }

    /// Tells what was touched. Readers are woken once, so what is told together is sent together.
    fn tell(&mut self) {
        self.counts_due |= self.tracker.take_counts_touched();
        let seats = self.tracker.seats_touched();
        if seats {
            self.tell_seats();
        }
        let now = self.app.clock.since_start();
        let every = if seats { COUNTS_ALONG_EVERY } else { COUNTS_EVERY };
        let counts = self.counts_due && now >= self.counts_at(every);
        if counts {
            self.counts_due = false;
            self.counts_told = Some(now);
            self.tell_counts();
        }
        if seats || counts {
            self.hub.beats.send_modify(|_| ());
        }
    }

    /// When counts may be told next.
    fn counts_at(&self, every: Duration) -> Duration {
        self.counts_told.map_or(Duration::ZERO, |told| told + every)
    }

    fn tell_seats(&mut self) {
        let hall = &self.hub.hall;
        let seq = self.app.seq_text(self.tracker.seq());
        self.text.clear();
        sse::push_head(&mut self.text, "seats", &seq);
        self.tracker.push_seats(&mut self.text, &seq, hall.plan(), hall.layout());
        sse::push_end(&mut self.text);
        self.tracker.told();
        if self.text.len() > FRAME_BYTES_MAX {
            self.text = String::new();
            push_seq(&mut self.text, "reset", &seq);
        }
        self.push(Kind::Seats);
    }

    /// All seats of the map that were touched have been told, so the counts have the number of
    /// everything that was folded.
    fn tell_counts(&mut self) {
        let seq = self.app.seq_text(self.tracker.seq());
        self.text.clear();
        sse::push_head(&mut self.text, "counts", &seq);
        push_counts(&mut self.text, &seq, self.tracker.free(), self.hub.hall.plan());
        sse::push_end(&mut self.text);
        self.push(Kind::Counts);
    }

    /// Adds `text` to the frames, at the number of the tracker.
    fn push(&mut self, kind: Kind) {
        let mut shared = self.hub.shared.lock();
        shared.frames.advance(self.tracker.seq());
        shared.frames.push(kind, Bytes::copy_from_slice(self.text.as_bytes()));
    }

    /// Ends the hub unless somebody came.
    fn retire(&self) -> bool {
        let mut hubs = self.app.streams.seats.lock();
        let mut shared = self.hub.shared.lock();
        if shared.readers > 0 {
            return false;
        }
        shared.closed = true;
        drop(shared);
        hubs.remove(&self.hub.hall.id());
        true
    }
}

/// From one frame to the next for so many readers.
fn frame_every(readers: usize) -> Duration {
    let readers = u32::try_from(readers).unwrap_or(u32::MAX);
    FRAME_EVERY_READER.saturating_mul(readers).clamp(FRAME_EVERY, FRAME_EVERY_MOST)
}

/// Writes an event whose data is its number only.
fn push_seq(out: &mut String, name: &str, seq: &str) {
    sse::push_event(out, name, seq, &serde_json::json!({ "seq": seq }));
}

/// One client's stream.
struct SeatReader {
    app: AppState,
    hub: Arc<SeatHub>,
    beats: watch::Receiver<u64>,
    /// Comments that were sent.
    beat: u64,
    cursor: Cursor,
    /// The client knows everything up to here.
    floor: Seq,
    lag: Lag,
    /// What the stream begins with, until it was sent.
    first: Option<Bytes>,
    _slot: AddressSlot,
}

impl SeatReader {
    fn open(
        app: AppState,
        hall: Arc<Hall>,
        slot: AddressSlot,
        resume: Resume,
    ) -> Result<SeatReader> {
        let hub = SeatHub::join(&app, &hall)?;
        app.metrics.seat_streams.add();
        let beats = hub.beats.subscribe();
        let beat = *beats.borrow();
        let Begun { cursor, floor, first } = begin(&app, &hub.shared.lock().frames, resume);
        let (first, lag) = (Some(first), Lag::default());
        Ok(SeatReader { app, hub, beats, beat, cursor, floor, lag, first, _slot: slot })
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            // Before the ring is looked at: what is pushed after the look wakes us.
            let beat = *self.beats.borrow_and_update();
            let taken = {
                let shared = self.hub.shared.lock();
                if shared.closed {
                    return None;
                }
                shared.frames.gather(&mut self.cursor, self.floor)
            };
            match taken {
                Taken::Frame(bytes) => return Some(bytes),
                Taken::Lagged => return self.reset(),
                Taken::Nothing if beat != self.beat => {
                    self.beat = beat;
                    return Some(sse::COMMENT);
                }
                Taken::Nothing => self.beats.changed().await.ok()?,
            }
        }
    }

    /// The reader has lost frames: `reset`, or the end if that is not for the first time lately.
    fn reset(&mut self) -> Option<Bytes> {
        if self.lag.is_hopeless(self.cursor) {
            return None;
        }
        let shared = self.hub.shared.lock();
        // The cursor may have been set a moment ago; the number must be of its place.
        self.cursor = shared.frames.end();
        self.floor = newest(&self.app, &shared.frames);
        drop(shared);
        let seq = self.app.seq_text(self.floor);
        let mut text = String::new();
        push_seq(&mut text, "reset", &seq);
        Some(Bytes::from(text))
    }
}

impl Drop for SeatReader {
    fn drop(&mut self) {
        self.hub.shared.lock().readers -= 1;
        self.app.metrics.seat_streams.remove();
    }
}

/// The last event that anybody was told of: answers go out as soon as it is applied, frames a
/// moment later, and batches are seen a moment before the image's number is.
fn newest(app: &App, frames: &Frames) -> Seq {
    app.shard.applied().max(frames.last())
}

/// Where a reader begins, and what it is told first.
struct Begun {
    cursor: Cursor,
    floor: Seq,
    first: Bytes,
}

fn begin(app: &App, frames: &Frames, resume: Resume) -> Begun {
    let mut text = String::new();
    sse::push_retry(&mut text);
    let newest = newest(app, frames);
    let resumed = match resume {
        // An event that was told to anybody has one epoch for ever.
        Resume::After(epoch, seq) if seq <= newest && epoch == app.epochs.of(seq) => {
            frames.after(seq).map(|cursor| (cursor, seq))
        }
        _ => None,
    };
    if resumed.is_none() {
        let name = if resume == Resume::Fresh { "hello" } else { "reset" };
        push_seq(&mut text, name, &app.seq_text(newest));
    }
    let (cursor, floor) = resumed.unwrap_or((frames.end(), newest));
    Begun { cursor, floor, first: Bytes::from(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_readers_get_fewer_frames() {
        assert_eq!(frame_every(0), FRAME_EVERY);
        assert_eq!(frame_every(2_500), FRAME_EVERY);
        assert_eq!(frame_every(10_000), Duration::from_millis(200));
        assert_eq!(frame_every(usize::MAX), FRAME_EVERY_MOST);
    }
}
