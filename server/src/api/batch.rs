//! `holds:batch`: many holds in one request, one commit for all of them.
//!
//! Each line is decided by itself, in order; the answers wait for the last decision's commit
//! only. This is the door for partners and for load, so a bad line costs nothing but itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::{BuyerId, Seq, TimeMs};
use tmomi_engine::{Context, HoldRequest};
use tmomi_persist::catalog::Call;

use crate::api::calls;
use crate::api::holds::{
    BestInput, HoldBody, HoldInput, Taken, check_choice, check_ttl, held_body, replayed, take,
    wanted,
};
use crate::app::{App, AppState};
use crate::extract::{
    Admin, Ids, LARGE_BODY_BYTES_MAX, check_length, check_type, object, parse_json, read_body,
};
use crate::halls::Hall;
use crate::idempotency::{self, ClientKey, Fingerprint, Running};
use crate::problem::{Problem, ProblemBody, Result};

/// Lines of one batch at most.
const LINES_MAX: usize = 10_000;
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
const NDJSON: &str = "application/x-ndjson";

/// The body of a batch.
pub(crate) struct Lines(Bytes);

impl FromRequest<AppState> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Lines> {
        check_length(request.headers(), LARGE_BODY_BYTES_MAX)?;
        check_type(request.headers(), NDJSON)?;
        let body = read_body(request.into_body(), LARGE_BODY_BYTES_MAX).await?;
        let lines = lines(&body).take(LINES_MAX + 1).count();
        if lines > LINES_MAX {
            return Err(Problem::bad_request(format!("a batch has at most {LINES_MAX} lines")));
        }
        Ok(Lines(body))
    }
}

/// One line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    idempotency_key: String,
    buyer: u64,
    seats: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object")]
    best_available: Option<BestInput>,
    ttl_ms: Option<u64>,
}

/// What a line asks for, as far as the house is not needed to know.
pub(super) struct Wish {
    call: Call,
    buyer: BuyerId,
    input: HoldInput,
    ttl_ms: Option<u32>,
}

/// What became of a line, before its commit.
enum Decided<'a> {
    Held(Taken, Running<'a>),
    Known(HoldBody),
    Refused(Problem),
}

/// Who exists and what the admin has used, for all lines.
struct Known {
    buyers: HashSet<BuyerId>,
    /// Keys of calls that the catalog remembers.
    keys: HashSet<[u8; 32]>,
    /// Since the start of the process: until then lines wait for room.
    waits_until: Duration,
}

/// Buyers that partners have named before and that exist. Nobody is ever taken out of the
/// catalog, so this is never wrong.
#[derive(Default)]
pub(crate) struct KnownBuyers(Mutex<HashSet<BuyerId>>);

#[derive(Serialize)]
struct HeldLine {
    status: u16,
    #[serde(flatten)]
    hold: HoldBody,
}

/// Many holds, each for its own buyer. `Idempotency-Key` is not for this call: each line has its
/// own.
#[utoipa::path(post, path = "/v1/showtimes/{showtime_id}/holds:batch", tag = "holds",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn holds(
    State(app): State<AppState>,
    admin: Admin,
    ids: Ids,
    Lines(body): Lines,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    // Ten thousand lines take milliseconds, which the server's other requests need not wait.
    let (admin, now) = (admin.0.id, app.now());
    let path = format!("/v1/showtimes/{}/holds:batch", hall.id());
    let reading = move || lines(&body).map(|line| read(line, &path, admin, now)).collect();
    let wishes: Vec<Result<Wish>> =
        tokio::task::spawn_blocking(reading).await.map_err(Problem::internal)?;
    let known = Known {
        buyers: existing(&app, &wishes).await?,
        keys: app
            .catalog
            .keys_of(admin.0, now)
            .await
            .map_err(calls::refused)?
            .into_iter()
            .collect(),
        waits_until: app.clock.since_start() + ROOM_WAIT,
    };
    let deciding = Arc::clone(&app);
    let task = tokio::task::spawn_blocking(move || {
        let decide = |wish: Result<Wish>| {
            let decided = wish.and_then(|wish| decide(&deciding, &hall, &known, &wish));
            decided.unwrap_or_else(Decided::Refused)
        };
        let decided: Vec<Decided<'_>> = wishes.into_iter().map(decide).collect();
        settle(&deciding, decided)
    });
    let (answers, last) = task.await.map_err(Problem::internal)?;
    if let Some(last) = last {
        app.committed(last).await?;
    }
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from(answers)).into_response())
}

/// The lines. What ends with a line feed has no empty line after it.
pub(super) fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = body.strip_suffix(b"\n").unwrap_or(body);
    let lines = (!body.is_empty()).then(|| text.split(|byte| *byte == b'\n'));
    lines.into_iter().flatten().map(<[u8]>::trim_ascii)
}

pub(super) fn read(line: &[u8], path: &str, admin: BuyerId, now: TimeMs) -> Result<Wish> {
    let Line { idempotency_key, buyer, seats, best_available, ttl_ms } = parse_json(line)?;
    if !(1..USER_ID_END).contains(&buyer) {
        return Err(Problem::bad_field("/buyer", "a user_id"));
    }
    let key = ClientKey::of_line(idempotency_key, Fingerprint::of("POST", path, line))?;
    let call = key.call(admin, now).expect("a line has a key");
    let ttl_ms = check_ttl(ttl_ms)?;
    let input = HoldInput { seats, best_available, ttl_ms: None };
    check_choice(&input)?;
    Ok(Wish { call, buyer: BuyerId(buyer), input, ttl_ms })
}

/// The buyers of the wishes that exist.
async fn existing(app: &App, wishes: &[Result<Wish>]) -> Result<HashSet<BuyerId>> {
    let named = wishes.iter().flatten().map(|wish| wish.buyer);
    let (mut found, asked): (HashSet<_>, HashSet<_>) = {
        let known = app.buyers.0.lock();
        named.partition(|buyer| known.contains(buyer))
    };
    if !asked.is_empty() {
        let asked: Vec<BuyerId> = asked.into_iter().collect();
        let new = app.catalog.known_users(&asked).await.map_err(calls::refused)?;
        let mut known = app.buyers.0.lock();
        if known.len() + new.len() > BUYERS_KEPT_MAX {
            known.clear();
        }
        known.extend(&new);
        found.extend(new);
    }
    Ok(found)
}

fn decide<'a>(app: &'a App, hall: &Hall, known: &Known, wish: &Wish) -> Result<Decided<'a>> {
    let wanted = wanted(hall, &wish.input)?;
    if !known.buyers.contains(&wish.buyer) {
        return Err(Problem::not_found("buyer").at("/buyer"));
    }
    let key = idempotency::request_key(Some(&wish.call));
    let running = app.in_progress.begin(key, app.shard.applied())?;
    if known.keys.contains(&wish.call.key) {
        return Err(idempotency::reused());
    }
    if let Some(known) = app.known(key)? {
        return replayed(app, hall, known).map(Decided::Known);
    }
    wait_for_room(app, known.waits_until);
    let context = Context { now: app.now(), key };
    let taken = take(app, hall, &wanted, context, |handle, hall| {
        let entry = handle.enter(hall.house(), wish.buyer, context.now)?;
        Ok(HoldRequest { entry, ttl_ms: wish.ttl_ms, admitted_by_caller: true })
    })?;
    Ok(Decided::Held(taken, running))
}

/// Waits until the log has written enough of what was decided: thousands of lines are decided
/// sooner than one commit takes, and whoever buys one seat is not to find the ring full of them.
fn wait_for_room(app: &App, until: Duration) {
    let engine = app.shard.engine();
    let depth_max = engine.ring_room() / RING_SHARE;
    while engine.ring_depth() > depth_max
        && app.shard.accepting().is_ok()
        && app.clock.since_start() < until
    {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The answers of all lines, and the last event that they wait for.
fn settle(app: &App, decided: Vec<Decided<'_>>) -> (Vec<u8>, Option<Seq>) {
    let mut out = Vec::new();
    let mut last = None;
    for decided in decided {
        match decided {
            Decided::Held(taken, mut running) => {
                let seq = taken.held.seq;
                last = last.max(Some(seq));
                // The key stays taken until the image knows the hold.
                running.decided(seq);
                put(&mut out, &HeldLine { status: 201, hold: held_body(app, &taken) });
            }
            Decided::Known(hold) => put(&mut out, &HeldLine { status: 201, hold }),
            Decided::Refused(problem) => {
                app.metrics.refused(problem.code());
                put::<ProblemBody<'_>>(&mut out, &problem.body());
            }
        }
    }
    (out, last)
}

fn put<T: Serialize>(out: &mut Vec<u8>, line: &T) {
    serde_json::to_writer(&mut *out, line).expect("memory takes text and numbers");
    out.push(b'\n');
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
