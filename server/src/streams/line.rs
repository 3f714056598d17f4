//! The line stream of a showtime: to each who waits his position, to each who is let in his
//! admission.
//!
//! One task goes over all readers at once, so a stream costs its slot and nothing while nothing
//! changes for it. A slot keeps the newest state only: a slow reader misses positions that are
//! out of date anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::json;
use tmomi_engine::House;
use tmomi_engine::event::LineSettings;
use tmomi_engine::ids::{EntryId, Seq, ShowtimeId};
use tmomi_persist::image::ShowtimeImage;

use super::slot::{News, Slot, Task, pass_over, sold_out};
use super::{COMMENT_EVERY, sse};
use crate::api::line::not_in_line;
use crate::app::AppState;
use crate::extract::{Ids, User};
use crate::halls::Hall;
use crate::limits::StreamSlot;
use crate::problem::{Problem, Result};
use crate::standing::{AdmissionBody, LineView, Standing};

/// From one pass to the next at least: so soon an admission is told.
const PASS_EVERY: Duration = Duration::from_millis(20);
/// From one pass to the next at most while something changes, since a pass looks long when the
/// system gives the processor to others in its middle.
const PASS_EVERY_MOST: Duration = Duration::from_millis(60);
/// From one pass that tells positions to the next at least.
const POSITIONS_EVERY: Duration = Duration::from_millis(200);
/// So much more for each reader: 10,000 positions a second, and some more for a long line.
const POSITIONS_EVERY_READER: Duration = Duration::from_micros(100);
/// From one pass that tells positions to the next at most: a change is told within a second.
const POSITIONS_EVERY_MOST: Duration = Duration::from_millis(700);
/// A pass may take this part of a hub's time while it holds the image: a commit waits for it.
const PASS_SHARE: u32 = 100;
/// How long a hub waits for the next event when the log has failed and none will come.
const NEVER: Duration = Duration::from_secs(3_600);
/// Readers that are gone over while the image is held, before others may have it.
const CHUNK: usize = 512;

/// One showtime's stream.
pub(crate) struct LineHub {
    hall: Arc<Hall>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    open: Vec<Arc<Slot>>,
    /// The task has ended.
    closed: bool,
}

/// The buyer's own call: his place, and what becomes of it.
#[utoipa::path(get, path = "/v1/showtimes/{showtime_id}/line/stream", tag = "streams",
    responses((status = 200, content_type = "text/event-stream",
        description = "Events `position`, `admitted`, `expired`, `sold_out`. Ends when the place \
            is given up.")))]
pub(crate) async fn stream(State(app): State<AppState>, user: User, ids: Ids) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let entry = hall.house().entry_of(user.id).ok_or_else(not_in_line)?;
    let limit = app.limits.stream(user.id)?;
    let reader = LineReader::open(app, &hall, entry, limit)?;
    Ok(sse::response(stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((chunk, reader))
    })))
}

impl LineHub {
    /// Adds a reader, who knows where he stands from then on.
    fn join(app: &AppState, hall: &Arc<Hall>, slot: &Arc<Slot>) -> Result<()> {
        // A hub that is closed has retired, and there may be another; or the process ends.
        while !LineHub::of(app, hall).add(app, slot)? && !app.stop.is_stopping() {
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// The hub of a showtime, started if there is none.
    fn of(app: &AppState, hall: &Arc<Hall>) -> Arc<LineHub> {
        let mut hubs = app.streams.lines.lock();
        let fresh = || {
            let hub = Arc::new(LineHub { hall: Arc::clone(hall), slots: Mutex::default() });
            tokio::spawn(Desk::new(Arc::clone(app), Arc::clone(&hub)).run());
            hub
        };
        Arc::clone(hubs.entry(hall.id()).or_insert_with(fresh))
    }

    /// Adds a reader unless the hub is closed; he is told where he stands even so. A pass may be
    /// waited for here, so nobody calls this with the map of hubs in his hand.
    fn add(&self, app: &AppState, slot: &Arc<Slot>) -> Result<bool> {
        // The image is read while the slots are locked: no pass comes between what is told here
        // and the reader's place among the slots, so no change is missed.
        let mut slots = self.slots.lock();
        let image = app.shard.image().read();
        let found = image.showtime(self.hall.id()).ok_or_else(|| Problem::not_found("showtime"))?;
        let standing = LineView::new(found, self.hall.house()).standing(slot.entry);
        let mut news = slot.news.lock();
        news.told = Some(standing.ok_or_else(not_in_line)?);
        news.tell_standing = true;
        news.sold_out = sold_out(found);
        news.tell_sold_out = news.sold_out;
        news.end = slots.closed;
        if !slots.closed {
            slots.open.push(Arc::clone(slot));
        }
        Ok(!slots.closed)
    }

    /// Ends every stream; with `retire` only if there is none.
    fn close(&self, retire: bool) -> bool {
        let mut slots = self.slots.lock();
        if retire && !slots.open.is_empty() {
            return false;
        }
        slots.closed = true;
        for slot in slots.open.drain(..) {
            slot.news.lock().end = true;
            slot.waker.wake();
        }
        true
    }
}

/// The task of a hub.
struct Desk {
    app: AppState,
    hub: Arc<LineHub>,
    showtime: ShowtimeId,
    /// The image's number at the last pass.
    seen: Seq,
    /// The last event about the showtime then.
    passed: Option<Seq>,
    /// What positions depended on when they were last told.
    told: Option<Basis>,
    next_comment: Duration,
    next_positions: Duration,
}

/// Positions are the same while this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    last_seq: Seq,
    back: u32,
    settings: LineSettings,
}

impl Desk {
    fn new(app: AppState, hub: Arc<LineHub>) -> Desk {
        let now = app.clock.since_start();
        Desk {
            showtime: hub.hall.id(),
            seen: app.shard.applied(),
            app,
            hub,
            passed: None,
            told: None,
            next_comment: now + COMMENT_EVERY,
            next_positions: now,
        }
    }

    async fn run(mut self) {
        let app = Arc::clone(&self.app);
        let mut stopped = std::pin::pin!(app.stop.stopped());
        loop {
            let now = app.clock.since_start();
            let wake_at = self.next_comment.min(self.next_positions.max(now));
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = applied_after(&app, self.seen) => {}
                () = tokio::time::sleep(wake_at.saturating_sub(now)) => {}
            }
            let held = self.pass();
            let pause = (held * PASS_SHARE).clamp(PASS_EVERY, PASS_EVERY_MOST);
            if self.hub.slots.lock().open.is_empty() && self.retire() {
                return;
            }
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.hub.close(false);
    }

    /// Goes over all slots if something may have changed for them. Gives the longest time that the
    /// image was held.
    fn pass(&mut self) -> Duration {
        let clock = Arc::clone(&self.app.clock);
        let (house, now) = (self.hub.hall.house(), clock.since_start());
        let mut slots = self.hub.slots.lock();
        slots.open.retain(|slot| !slot.gone.load(Ordering::Relaxed));
        let mut task = Task { comment: now >= self.next_comment, ..Task::default() };
        if task.comment {
            self.next_comment = (self.next_comment + COMMENT_EVERY).max(now);
        }
        let (basis, changed) = {
            let image = self.app.shard.image().read();
            self.seen = image.applied();
            let showtime = image.showtime(self.showtime).expect("a showtime is opened for ever");
            task.sold_out = sold_out(showtime);
            let basis = Basis::of(showtime, house);
            (basis, self.passed.replace(basis.last_seq) != Some(basis.last_seq))
        };
        if now >= self.next_positions {
            let readers = u32::try_from(slots.open.len()).unwrap_or(u32::MAX);
            self.next_positions = now + positions_every(readers);
            task.positions = self.told != Some(basis);
            task.all = self.told.is_some_and(|told| told.settings != basis.settings);
            self.told = Some(basis);
        }
        if !(changed || task.positions || task.comment) {
            return Duration::ZERO;
        }
        let mut longest = Duration::ZERO;
        for chunk in slots.open.chunks(CHUNK) {
            let started = clock.since_start();
            let image = self.app.shard.image().read();
            let showtime = image.showtime(self.showtime).expect("a showtime is opened for ever");
            pass_over(chunk, LineView::new(showtime, house), task);
            drop(image);
            longest = longest.max(clock.since_start().saturating_sub(started));
        }
        longest
    }

    /// Ends the hub unless somebody came.
    fn retire(&self) -> bool {
        let mut hubs = self.app.streams.lines.lock();
        let retired = self.hub.close(true);
        if retired {
            hubs.remove(&self.showtime);
        }
        retired
    }
}

impl Basis {
    fn of(showtime: &ShowtimeImage, house: &House) -> Basis {
        let back = house.returned();
        Basis { last_seq: showtime.last_seq(), back, settings: *showtime.settings() }
    }
}

/// Resolves when the image has the event after `seen`; never, if the log has failed.
async fn applied_after(app: &AppState, seen: Seq) {
    if app.shard.wait(seen.next()).await.is_err() {
        // What is read stays as it is until the process ends, and the readers keep it.
        tokio::time::sleep(NEVER).await;
    }
}

/// From one pass that tells positions to the next, for so many readers.
fn positions_every(readers: u32) -> Duration {
    POSITIONS_EVERY_READER.saturating_mul(readers).clamp(POSITIONS_EVERY, POSITIONS_EVERY_MOST)
}

/// One client's stream.
struct LineReader {
    app: AppState,
    showtime: ShowtimeId,
    slot: Arc<Slot>,
    begun: bool,
    _life: Life,
    _limit: StreamSlot,
}

/// The sign of life that an open stream is.
struct Life {
    app: AppState,
    hall: Arc<Hall>,
    entry: EntryId,
}

impl Life {
    fn begin(app: &AppState, hall: &Arc<Hall>, entry: EntryId) -> Life {
        hall.house().watch(entry, app.now());
        Life { app: Arc::clone(app), hall: Arc::clone(hall), entry }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.hall.house().unwatch(self.entry, self.app.now());
    }
}

impl LineReader {
    fn open(
        app: AppState,
        hall: &Arc<Hall>,
        entry: EntryId,
        limit: StreamSlot,
    ) -> Result<LineReader> {
        let showtime = hall.id();
        let slot = Arc::new(Slot::new(entry));
        let life = Life::begin(&app, hall, entry);
        LineHub::join(&app, hall, &slot)?;
        app.metrics.line_streams.add();
        Ok(LineReader { app, showtime, slot, begun: false, _life: life, _limit: limit })
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let news = std::future::poll_fn(|cx| self.slot.poll(cx)).await?;
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            sse::push_retry(&mut text);
        }
        self.push(&mut text, &news);
        Some(Bytes::from(text))
    }

    fn push(&self, text: &mut String, news: &News) {
        // The stream begins with the present state whatever the client saw last, so its ids need
        // only be different from each other.
        let id = self.app.seq_text(self.app.shard.applied());
        match news.told.filter(|_| news.tell_standing) {
            Some(Standing::Waiting(at)) => {
                let position = json!({
                    "number": at.number.0, "ahead": at.ahead, "eta_ms": at.eta_ms,
                });
                sse::push_event(text, "position", &id, &position);
            }
            Some(Standing::Admitted(admission)) => {
                let body = AdmissionBody::of(&self.app, self.showtime, admission);
                sse::push_event(text, "admitted", &id, &body);
            }
            Some(Standing::Expired(_)) => sse::push_event(text, "expired", &id, &json!({})),
            None => {}
        }
        if news.tell_sold_out {
            sse::push_event(text, "sold_out", &id, &json!({}));
        }
        if news.comment {
            text.push_str(std::str::from_utf8(&sse::COMMENT).expect("it is ASCII"));
        }
    }
}

impl Drop for LineReader {
    fn drop(&mut self) {
        // The next pass forgets the slot.
        self.slot.gone.store(true, Ordering::Relaxed);
        self.app.metrics.line_streams.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_readers_are_told_within_a_second() {
        assert_eq!(positions_every(1), POSITIONS_EVERY);
        assert_eq!(positions_every(5_000), Duration::from_millis(500));
        assert_eq!(positions_every(u32::MAX), POSITIONS_EVERY_MOST);
        assert!(POSITIONS_EVERY_MOST + PASS_EVERY_MOST < Duration::from_secs(1));
    }
}
