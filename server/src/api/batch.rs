//! `holds:batch`: many holds in one request, one commit for all of them.
//!
//! Each line is decided by itself, in order; the answers wait for the last decision's commit
//! only. This is the door for partners and for load, so a bad line costs nothing but itself.
//!
//! What every line needs for a moment is taken for some lines at a time: the look at the image, a
//! handle, the memory that the engine will look at.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tmomi_engine::ids::{BuyerId, EntryId, Part, Seq, TimeMs};
use tmomi_engine::{Context, Handle, HoldRequest, House, Reject};
use tmomi_persist::catalog::Call;
use tmomi_persist::image::KeyImage;

use crate::api::calls;
use crate::api::hold_body::{HOLD_BYTES, HoldFacts, replayed};
use crate::api::holds::{BestInput, Wanted, check_choice, check_ttl, wanted};
use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, LARGE_BODY_BYTES_MAX, check_length, check_type, read_body};
use crate::halls::Hall;
use crate::idempotency::{self, Fingerprint, Running, call_of_line};
use crate::json::Json;
use crate::problem::{Problem, Result};
use crate::refusals;
use crate::strict::{object, parse_json};

/// Lines of one batch at most.
const LINES_MAX: usize = 10_000;
/// Lines that are decided one after the other with the same handle. Whoever changes a showtime
/// waits for so many.
const LINES_TOGETHER: usize = 64;
/// Batches leave this part of the ring's room to everybody else: one in so many slots.
const RING_SHARE: u64 = 2;
/// How long the lines of a batch wait for the log at most; then they are refused as any other hold
/// is.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// How often it looks meanwhile: well within the time that one commit takes.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// Buyers that are remembered, some 16 bytes each.
const BUYERS_KEPT_MAX: usize = 1 << 20;
/// Users have ids below this.
const USER_ID_END: u64 = 1 << 53;
/// Bytes of the answer to a line that names a seat.
const ANSWER_BYTES: usize = HOLD_BYTES + 64;
const NDJSON: &str = "application/x-ndjson";

/// The body of a batch.
pub(crate) struct Lines {
    body: Bytes,
    count: usize,
}

impl FromRequest<AppState> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Lines> {
        check_length(request.headers(), LARGE_BODY_BYTES_MAX)?;
        check_type(request.headers(), NDJSON)?;
        let body = read_body(request.into_body(), LARGE_BODY_BYTES_MAX).await?;
        let count = lines(&body).take(LINES_MAX + 1).count();
        if count > LINES_MAX {
            return Err(Problem::bad_request(format!("a batch has at most {LINES_MAX} lines")));
        }
        Ok(Lines { body, count })
    }
}

/// One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    idempotency_key: Cow<'a, str>,
    buyer: u64,
    #[serde(borrow)]
    seats: Option<Vec<Text<'a>>>,
    #[serde(default, deserialize_with = "object")]
    best_available: Option<BestInput>,
    ttl_ms: Option<u64>,
}

/// A text where it stands in the body, if nothing in it is escaped.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// What a line asks for, as far as the house is not needed to know.
pub(super) struct Wish<'a> {
    call: Call,
    buyer: BuyerId,
    seats: Option<Vec<Text<'a>>>,
    best: Option<BestInput>,
    ttl_ms: Option<u32>,
}

/// What is to be done for a line.
enum Task<'a> {
    Hold(Order<'a>),
    /// The key has led to this before.
    Known(KeyImage),
    Refuse(Problem),
}

/// A hold to make.
struct Order<'a> {
    buyer: BuyerId,
    wanted: Wanted,
    ttl_ms: Option<u32>,
    running: Running<'a>,
}

/// Who does not exist and what the admin has used, for all lines.
struct Known {
    missing: HashSet<BuyerId>,
    /// Keys of calls that the catalog remembers.
    keys: HashSet<[u8; 32]>,
}

/// Buyers that partners have named before and that exist. Nobody is ever taken out of the
/// catalog, so this is never wrong.
#[derive(Default)]
pub(crate) struct KnownBuyers(Mutex<HashSet<BuyerId>>);

/// Many holds, each for its own buyer. `Idempotency-Key` is not for this call: each line has its
/// own.
#[utoipa::path(post, path = "/v1/showtimes/{showtime_id}/holds:batch", tag = "holds",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn holds(
    State(app): State<AppState>,
    admin: Admin,
    ids: Ids,
    Lines { body, count }: Lines,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let (deciding, runtime) = (Arc::clone(&app), tokio::runtime::Handle::current());
    // Ten thousand lines take milliseconds, which the server's other requests need not wait.
    let task = tokio::task::spawn_blocking(move || {
        let (app, admin, now) = (&*deciding, admin.0.id, deciding.now());
        let path = format!("/v1/showtimes/{}/holds:batch", hall.id());
        // A wish is large, and a list that grows moves all it has.
        let mut wishes = Vec::with_capacity(count);
        wishes.extend(lines(&body).map(|line| read(line, &path, admin, now)));
        let known = runtime.block_on(known(app, admin, now, &wishes))?;
        Ok(Batch::new(app, &hall, known, wishes.len()).answer(wishes))
    });
    let (answers, last) = task.await.map_err(Problem::internal)??;
    if let Some(last) = last {
        app.committed(last).await?;
    }
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from(answers)).into_response())
}

/// The lines. What ends with a line feed has no empty line after it.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    let ends = memchr::memchr_iter(b'\n', text).chain([text.len()]);
    let lines = ends.scan(0, |start, end| Some(&text[std::mem::replace(start, end + 1)..end]));
    lines.filter(|_| !body.is_empty()).map(<[u8]>::trim_ascii)
}

pub(super) fn read<'a>(
    line: &'a [u8],
    path: &str,
    admin: BuyerId,
    now: TimeMs,
) -> Result<Wish<'a>> {
    let Line { idempotency_key, buyer, seats, best_available: best, ttl_ms } = parse_json(line)?;
    if !(1..USER_ID_END).contains(&buyer) {
        return Err(Problem::bad_field("/buyer", "a user_id"));
    }
    let fingerprint = Fingerprint::of("POST", path, line);
    let call = call_of_line(admin, &idempotency_key, fingerprint, now)?;
    let ttl_ms = check_ttl(ttl_ms)?;
    check_choice(seats.as_deref(), best.as_ref())?;
    Ok(Wish { call, buyer: BuyerId(buyer), seats, best, ttl_ms })
}

/// What the catalog knows of the wishes.
async fn known(
    app: &App,
    admin: BuyerId,
    now: TimeMs,
    wishes: &[Result<Wish<'_>>],
) -> Result<Known> {
    let missing = missing(app, wishes).await?;
    let keys = app.catalog.keys_of(admin.0, now).await.map_err(calls::refused)?;
    Ok(Known { missing, keys: keys.into_iter().collect() })
}

/// The buyers of the wishes that do not exist.
async fn missing(app: &App, wishes: &[Result<Wish<'_>>]) -> Result<HashSet<BuyerId>> {
    let mut asked: HashSet<BuyerId> = {
        let known = app.buyers.0.lock();
        let named = wishes.iter().flatten().map(|wish| wish.buyer);
        named.filter(|buyer| !known.contains(buyer)).collect()
    };
    if !asked.is_empty() {
        let all: Vec<BuyerId> = asked.iter().copied().collect();
        let new = app.catalog.known_users(&all).await.map_err(calls::refused)?;
        for buyer in &new {
            asked.remove(buyer);
        }
        let mut known = app.buyers.0.lock();
        if known.len() + new.len() > BUYERS_KEPT_MAX {
            known.clear();
        }
        known.extend(&new);
    }
    Ok(asked)
}

/// A batch on its way.
struct Batch<'a> {
    app: &'a App,
    hall: &'a Hall,
    known: Known,
    /// Since the start of the process: until then lines wait for room.
    waits_until: Duration,
    /// What is answered to the lines so far.
    answers: Json,
    /// The last event that the answers wait for.
    last: Option<Seq>,
}

impl<'a> Batch<'a> {
    fn new(app: &'a App, hall: &'a Hall, known: Known, lines: usize) -> Batch<'a> {
        let waits_until = app.clock.since_start() + ROOM_WAIT;
        let answers = Json::with_capacity(lines * ANSWER_BYTES);
        Batch { app, hall, known, waits_until, answers, last: None }
    }

    /// The answers to all lines, and the last event that they wait for.
    fn answer(mut self, wishes: Vec<Result<Wish<'_>>>) -> (String, Option<Seq>) {
        let mut wishes = wishes.into_iter();
        while wishes.len() > 0 {
            let some = wishes.by_ref().take(LINES_TOGETHER);
            let task = |wish| self.task(wish).unwrap_or_else(Task::Refuse);
            let mut tasks: VecDeque<Task<'a>> = some.map(task).collect();
            self.look_up(&mut tasks);
            while !tasks.is_empty() {
                self.wait_for_room();
                let decided = self.app.decide_all(|handle| self.decide(handle, &mut tasks));
                if let Err(problem) = decided {
                    tasks.drain(..).for_each(|task| self.put_undecided(task, &problem));
                }
            }
        }
        (self.answers.0, self.last)
    }

    /// What a wish comes to before the image is looked at, its key taken.
    fn task(&self, wish: Result<Wish<'_>>) -> Result<Task<'a>> {
        let Wish { call, buyer, seats, best, ttl_ms } = wish?;
        let wanted = wanted(self.hall, seats.as_deref(), best.as_ref())?;
        if self.known.missing.contains(&buyer) {
            return Err(Problem::not_found("buyer").at("/buyer"));
        }
        let key = idempotency::request_key(Some(&call));
        let running = self.app.in_progress.begin(key, self.app.shard.applied())?;
        if self.known.keys.contains(&call.key) {
            return Err(idempotency::reused());
        }
        Ok(Task::Hold(Order { buyer, wanted, ttl_ms, running }))
    }

    /// Finds what the keys have led to before.
    fn look_up(&self, tasks: &mut VecDeque<Task<'a>>) {
        let image = self.app.shard.image().read();
        for task in tasks {
            let Task::Hold(order) = task else { continue };
            let known = crate::app::known(&image, order.running.key());
            if let Some(known) = known.transpose() {
                *task = known.map_or_else(Task::Refuse, Task::Known);
            }
        }
    }

    /// Waits until the log has written enough of what was decided: thousands of lines are decided
    /// sooner than one commit takes, and whoever buys one seat is not to find the ring full of
    /// them.
    fn wait_for_room(&self) {
        let engine = self.app.shard.engine();
        let depth_max = engine.ring_room() / RING_SHARE;
        while engine.ring_depth() > depth_max && self.may_wait() {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn may_wait(&self) -> bool {
        self.app.shard.accepting().is_ok() && self.app.clock.since_start() < self.waits_until
    }

    /// Does and answers the tasks up to one that must wait for room; gives how many it decided.
    fn decide(&mut self, handle: &mut Handle, tasks: &mut VecDeque<Task<'a>>) -> ((), u32) {
        let now = self.app.now();
        let mut decided = 0;
        // As in `holds::take`: the terms are those of the handle's time.
        let hall = self.app.halls.find(self.hall.id());
        if let Some(hall) = &hall {
            preload(hall.house(), tasks);
        }
        while let Some(task) = tasks.pop_front() {
            let (order, hall) = match (task, &hall) {
                (Task::Hold(order), Some(hall)) => (order, hall),
                (task, _) => {
                    self.put_undecided(task, &Problem::not_found("showtime"));
                    continue;
                }
            };
            match order.take(handle, hall, now) {
                Err(Reject::RingFull) if self.may_wait() => {
                    tasks.push_front(Task::Hold(order));
                    break;
                }
                Err(reject) => self.put_problem(&refusals::problem(reject, hall)),
                Ok(held) => {
                    order.running.left(held.seq);
                    self.last = self.last.max(Some(held.seq));
                    self.put_hold(hall, &HoldFacts::made(held, handle.parts(), now));
                }
            }
            decided += 1;
        }
        ((), decided)
    }

    /// The answer to a line that nothing was decided for; `problem` is why, unless its key or
    /// itself says what to answer.
    fn put_undecided(&mut self, task: Task<'a>, problem: &Problem) {
        let known = match task {
            Task::Known(known) => replayed(self.app, known),
            Task::Refuse(own) => Err(own),
            Task::Hold(_) => Err(problem.clone()),
        };
        match known {
            Ok(hold) => self.put_hold(self.hall, &hold),
            Err(problem) => self.put_problem(&problem),
        }
    }

    fn put_hold(&mut self, hall: &Hall, hold: &HoldFacts<'_>) {
        self.answers.raw("{\"status\":201,");
        hold.write(self.app, hall, &mut self.answers);
        self.answers.raw("\n");
    }

    fn put_problem(&mut self, problem: &Problem) {
        self.app.metrics.refused(problem.code());
        let body = serde_json::to_string(&problem.body()).expect("text and numbers");
        self.answers.raw(&body).raw("\n");
    }
}

impl Order<'_> {
    fn take(
        &self,
        handle: &mut Handle,
        hall: &Hall,
        now: TimeMs,
    ) -> std::result::Result<tmomi_engine::Held, Reject> {
        let entry = handle.enter(hall.house(), self.buyer, now)?;
        let request = HoldRequest { entry, ttl_ms: self.ttl_ms, admitted_by_caller: true };
        self.wanted.take(handle, hall, request, Context { now, key: self.running.key() })
    }
}

/// Has the engine load what these tasks will look at.
fn preload(house: &House, tasks: &VecDeque<Task<'_>>) {
    let named = |task| match task {
        &Task::Hold(Order { buyer, wanted: Wanted::Named(ref parts), .. }) => {
            Some((house.entry_of(buyer)?, &parts[..]))
        }
        _ => None,
    };
    let requests: Vec<(EntryId, &[Part])> = tasks.iter().filter_map(named).collect();
    house.preload(requests);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_counts_but_what_follows_the_last_line_feed() {
        let count = |text: &str| lines(text.as_bytes()).count();
        assert_eq!(["", "a", "a\n", "a\nb\r\n"].map(count), [0, 1, 1, 2]);
        assert_eq!(["\n", "a\n\n", "a\n\nb", "\na"].map(count), [1, 2, 3, 2]);
    }
}
