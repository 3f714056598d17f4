//! The audit trail of a showtime: its events as the log has them.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tmomi_engine::event::{Body, Event};
use tmomi_engine::ids::{BuyerId, EntryId, Epoch, HoldId, Seq};
use tmomi_persist::frame::Frame;
use tmomi_persist::history::{History, HistoryError};
use tmomi_persist::image::Decision;
use utoipa::{IntoParams, ToSchema};

use crate::app::{App, AppState};
use crate::extract::{Admin, Ids, MinSeq, Query, Reached, limit_within};
use crate::halls::Hall;
use crate::problem::{Problem, ProblemView, Result};
use crate::text::{When, hold_text, order_text, parse_seq, seq_text};

/// Events of a page at most.
const LIMIT_MAX: u64 = 9_999;
/// Events of a page unless said.
const LIMIT: u64 = 100;
/// Events of the log that one call looks at: a page of a showtime that little is happening
/// at may end early, and the next one goes on from there.
const LOOK_MAX: u64 = 1_000_000;
/// Users that are looked up while the image is held.
const LOOK_UP_MAX: usize = 256;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Only events after this number.
    after_seq: Option<String>,
    /// How many, 1 to 9999; 100 unless said.
    limit: Option<u64>,
}

/// A page of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    events: Vec<EventView>,
    /// The list is complete up to this number.
    seq: String,
    /// The next `after_seq`; null at the end.
    next: Option<String>,
}

/// An event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    seq: String,
    at: When,
    /// `opened`, `line_set`, `joined`, `left`, `admitted`, `passed`, `held`, `extended`,
    /// `confirmed`, `released`, `expired`, `refunded`, `blocked` or `unblocked`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<u64>,
    /// The place in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seats: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What happened to a showtime, in order
#[utoipa::path(
    get, path = "/v1/admin/showtimes/{showtime_id}/events", tag = "organiser",
    params(EventsQuery, MinSeq),
    responses((status = 200, body = Events), (status = 404, body = ProblemView)),
)]
pub(crate) async fn events(
    State(app): State<AppState>,
    _: Admin,
    ids: Ids,
    Query(query): Query<EventsQuery>,
    _: Reached,
) -> Result<Json<Events>> {
    let limit = limit_within(query.limit, LIMIT, LIMIT_MAX)?;
    let after = match query.after_seq.as_deref().map(parse_seq) {
        Some(Some((_, seq))) => seq,
        Some(None) => return Err(Problem::bad_request("after_seq must be the seq of an answer")),
        None => Seq(0),
    };
    let hall = app.halls.get(ids.showtime()?)?;
    let Some(history) = app.shard.history().cloned() else {
        return Err(Problem::not_found("trail: this server keeps no log"));
    };
    let reading = tokio::task::spawn_blocking(move || read(&app, &hall, &*history, after, limit));
    reading.await.map_err(Problem::internal)?.map(Json)
}

fn read(app: &App, hall: &Hall, history: &dyn History, after: Seq, limit: usize) -> Result<Events> {
    let end = app.shard.applied();
    let mut page = Page {
        hall,
        after,
        limit,
        events: Vec::new(),
        entries: Vec::new(),
        seq: after,
        decision: Decision::default(),
    };
    let mut epoch = app.shard.epoch();
    if after >= end {
        return Ok(Events { events: Vec::new(), seq: seq_text(epoch, end), next: None });
    }
    let mut frames = history.after(after).map_err(unread)?;
    let mut looked = 0;
    while looked < LOOK_MAX {
        let Some(frame) = frames.read_to(end).map_err(unread)? else { break };
        looked += frame.batch.events.len() as u64;
        epoch = frame.epoch;
        if page.add(&frame)? == Full::Yes {
            break;
        }
    }
    let Page { mut events, entries, seq: reached, .. } = page;
    let found = entries.chunks(LOOK_UP_MAX).flat_map(|entries| users(app, hall, entries));
    for (at, user) in found {
        events[at].user_id = Some(user.0);
    }
    let seq = seq_text(epoch, reached);
    let next = (reached < end).then(|| seq.clone());
    Ok(Events { events, seq, next })
}

/// The log may be a topic whose brokers are away.
fn unread(error: HistoryError) -> Problem {
    if error.may_pass() {
        tracing::warn!(%error, "the trail is not read");
        return Problem::overloaded("the log cannot be read at the moment");
    }
    Problem::internal(error)
}

/// The users of some entries, by the places of their events.
fn users(app: &App, hall: &Hall, entries: &[(usize, EntryId)]) -> Vec<(usize, BuyerId)> {
    let image = app.shard.image().read();
    let showtime = image.showtime(hall.id());
    let user = |entry| Some(showtime?.entry(entry)?.buyer);
    entries.iter().filter_map(|(at, entry)| Some((*at, user(*entry)?))).collect()
}

#[derive(PartialEq, Eq)]
enum Full {
    Yes,
    No,
}

struct Page<'a> {
    hall: &'a Hall,
    after: Seq,
    limit: usize,
    events: Vec<EventView>,
    /// The entries whose users are still to be found, with the places of their events.
    entries: Vec<(usize, EntryId)>,
    /// Complete up to here.
    seq: Seq,
    decision: Decision,
}

impl Page<'_> {
    /// Adds a frame's events of the showtime until the page is full.
    fn add(&mut self, frame: &Frame) -> Result<Full> {
        let mut words = &frame.batch.events[..];
        let mut decision = std::mem::take(&mut self.decision);
        while !words.is_empty() {
            decision.read(words).map_err(Problem::internal)?;
            words = &words[decision.events().len()..];
            let groups = groups(&decision);
            for (index, seq) in groups {
                if seq <= self.after {
                    continue;
                }
                let event = &decision.events()[index];
                if let Some((view, entry)) = self.view(frame, &decision, index, seq) {
                    if self.events.len() == self.limit {
                        return Ok(Full::Yes);
                    }
                    debug_assert_eq!(event.showtime, self.hall.id());
                    self.entries.extend(entry.map(|entry| (self.events.len(), entry)));
                    self.events.push(view);
                }
                self.seq = seq;
            }
        }
        self.decision = decision;
        Ok(Full::No)
    }

    /// The event as the trail shows it, if it is this showtime's and of a kind that is shown, and
    /// the entry whose user belongs there.
    fn view(
        &self,
        frame: &Frame,
        decision: &Decision,
        index: usize,
        seq: Seq,
    ) -> Option<(EventView, Option<EntryId>)> {
        let event = &decision.events()[index];
        if event.showtime != self.hall.id() {
            return None;
        }
        let (mut view, entry) = self.bare(event, frame.epoch, seq)?;
        let parts: Vec<_> = decision.parts(index).collect();
        view.seats = (!parts.is_empty()).then(|| self.hall.seat_ids(&parts));
        if let Body::Blocked { .. } | Body::Unblocked { .. } = event.body {
            let blob = frame.batch.blobs.iter().find(|(of, _)| *of == event.seq);
            view.reason = blob.map(|(_, text)| String::from_utf8_lossy(text).into_owned());
        }
        Some((view, entry))
    }

    fn bare(&self, event: &Event, epoch: Epoch, seq: Seq) -> Option<(EventView, Option<EntryId>)> {
        let mut view = EventView {
            seq: seq_text(epoch, seq),
            at: When(event.at),
            kind: "",
            hold_id: None,
            order_id: None,
            user_id: None,
            number: None,
            seats: None,
            reason: None,
        };
        let mut of = None;
        match event.body {
            Body::EpochStart { .. } | Body::Terms { .. } | Body::Buyer { .. } => return None,
            Body::More { .. } => return None,
            Body::Opened { .. } => view.kind = "opened",
            Body::LineSet(_) => view.kind = "line_set",
            Body::Joined { buyer, number, .. } => {
                (view.kind, view.user_id, view.number) = ("joined", Some(buyer.0), Some(number.0));
            }
            Body::Left { entry, number, .. } => {
                (view.kind, of, view.number) = ("left", Some(entry), Some(number.0));
            }
            Body::Admitted { entry, number, .. } => {
                (view.kind, of, view.number) = ("admitted", Some(entry), Some(number.0));
            }
            Body::Passed { entry, number } => {
                (view.kind, of, view.number) = ("passed", Some(entry), Some(number.0));
            }
            Body::Held { slot, entry, .. } => {
                let hold = HoldId { slot, seq: event.seq };
                (view.kind, of, view.hold_id) = ("held", Some(entry), Some(hold_text(hold)));
            }
            Body::Extended { hold, entry, .. } => {
                (view.kind, of, view.hold_id) = ("extended", Some(entry), Some(hold_text(hold)));
            }
            Body::Released { hold, entry, .. } => {
                (view.kind, of, view.hold_id) = ("released", Some(entry), Some(hold_text(hold)));
            }
            Body::Expired { hold, entry, .. } => {
                (view.kind, of, view.hold_id) = ("expired", Some(entry), Some(hold_text(hold)));
            }
            Body::Confirmed { hold, entry, .. } => {
                (view.kind, of, view.hold_id) = ("confirmed", Some(entry), Some(hold_text(hold)));
                view.order_id = Some(order_text(hold));
            }
            Body::Refunded { hold, entry, .. } => {
                (view.kind, of, view.hold_id) = ("refunded", Some(entry), Some(hold_text(hold)));
                view.order_id = Some(order_text(hold));
            }
            Body::Blocked { .. } => view.kind = "blocked",
            Body::Unblocked { .. } => view.kind = "unblocked",
        }
        Some((view, of))
    }
}

/// The events of a decision that stand for themselves: their places, and the number of the last
/// `More` behind each, which is the number that its answer reported.
fn groups(decision: &Decision) -> Vec<(usize, Seq)> {
    let mut groups: Vec<(usize, Seq)> = Vec::new();
    for (index, event) in decision.events().iter().enumerate() {
        match (event.body, groups.last_mut()) {
            (Body::More { .. }, Some(last)) => last.1 = event.seq,
            _ => groups.push((index, event.seq)),
        }
    }
    groups
}
