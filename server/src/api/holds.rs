//! Holds: taking seats, moving the deadline, giving them up, and making an order of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, Part, Seq, TimeMs};
use tmomi_engine::{BEST_SEATS_MAX, BestRequest, Context, Held, Reject};
use tmomi_engine::{HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN, Handle, HoldRequest};
use tmomi_persist::image::{Ending, HoldView, Outcome};
use utoipa::ToSchema;

use crate::api::hold_body::{HoldBody, HoldFacts, present, replayed};
use crate::api::orders::{OrderBody, order_body};
use crate::api::{calls, seq_header};
use crate::app::{App, AppState};
use crate::extract::{Ids, Input, MaybeInput, MinSeq, Reached, User};
use crate::halls::{Hall, check_seats};
use crate::idempotency::Running;
use crate::problem::{Code, Problem, Result};
use crate::refusals;
use crate::strict::object;
use crate::text::parse_hold;

/// Seats named in one request at most.
const SEATS_NAMED_MAX: usize = 1_000;
/// Bytes of a payment reference at most.
const PAYMENT_REF_BYTES_MAX: usize = 255;

/// Which seats to hold: exactly one of `seats` and `best_available`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldInput {
    /// Exactly these seats, by id.
    pub(crate) seats: Option<Vec<String>>,
    /// The best seats there are.
    #[serde(default, deserialize_with = "object")]
    pub(crate) best_available: Option<BestInput>,
    /// Until the deadline, 100 to 7,200,000 ms; the showtime's hold time unless said.
    pub(crate) ttl_ms: Option<u64>,
}

/// What the best seats must be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BestInput {
    /// How many, 1 to 1,000.
    pub(crate) count: u64,
    /// Only in the section of this name.
    pub(crate) section: Option<String>,
    /// Only of the tier of this name.
    pub(crate) tier: Option<String>,
    /// Side by side in one row; `true` unless said.
    pub(crate) adjacent: Option<bool>,
}

/// A new deadline.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendInput {
    /// From now to the deadline, 100 to 7,200,000 ms.
    ttl_ms: u64,
}

/// What goes with the confirmation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmInput {
    /// The payment's reference, at most 255 bytes; kept with the order.
    payment_ref: Option<String>,
}

/// Seats to take, as the engine takes them.
pub(crate) enum Wanted {
    Named(Vec<Part>),
    Best(BestRequest),
}

#[utoipa::path(post, path = "/v1/showtimes/{showtime_id}/holds", tag = "holds",
    request_body = HoldInput, responses((status = 201, body = HoldBody)))]
pub(crate) async fn hold(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    input: Input<HoldInput>,
) -> Result<Response> {
    app.limits.hold(user.id)?;
    let Input { value, key } = input;
    let ttl_ms = check_ttl(value.ttl_ms)?;
    check_choice(value.seats.as_deref(), value.best_available.as_ref())?;
    let hall = app.halls.get(ids.showtime()?)?;
    let wanted = wanted(&hall, value.seats.as_deref(), value.best_available.as_ref())?;
    let (running, known) = calls::keyed(&app, &user, &key).await?;
    if let Some(known) = known {
        return Ok(replayed(&app, known)?.answer(&app, &hall, StatusCode::CREATED));
    }
    let context = Context { now: app.now(), key: running.key() };
    let taken = take(&app, &hall, &wanted, context, |handle, hall| {
        let entry = entry_of(handle, hall, user.id, context.now)?;
        Ok(HoldRequest { entry, ttl_ms, admitted_by_caller: false })
    })?;
    commit(&app, running, taken.held.seq).await?;
    let Taken { held, parts, hall } = taken;
    Ok(HoldFacts::made(held, &parts, app.now()).answer(&app, &hall, StatusCode::CREATED))
}

#[utoipa::path(get, path = "/v1/holds/{hold_id}", tag = "holds", params(MinSeq),
    responses((status = 200, body = HoldBody)))]
pub(crate) async fn get(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    _: Reached,
) -> Result<Response> {
    let (id, hall) = find(&app, &user, &ids)?;
    let now = app.now();
    if is_overdue(&app, id, now) && app.shard.accepting().is_ok() {
        // It may have been confirmed in time, a moment ago; if the log does not say so, it stays
        // what it is.
        let _ = app.settled().await;
    }
    Ok(present(&app, id, now)?.answer(&app, &hall, StatusCode::OK))
}

#[utoipa::path(patch, path = "/v1/holds/{hold_id}", tag = "holds",
    request_body = ExtendInput, responses((status = 200, body = HoldBody)))]
pub(crate) async fn extend(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    input: Input<ExtendInput>,
) -> Result<Response> {
    let ttl_ms = check_ttl(Some(input.value.ttl_ms))?.expect("it was given");
    let (id, hall) = find(&app, &user, &ids)?;
    let context = Context::at(app.now());
    match app.decide(|handle| handle.extend(id, ttl_ms, context))? {
        Ok(extended) => {
            app.committed(extended.seq).await?;
            let mut facts = present(&app, id, app.now())?;
            facts.seq = extended.seq;
            Ok(facts.answer(&app, &hall, StatusCode::OK))
        }
        Err(reject) => Err(explain(&app, &hall, id, reject).await?.into_problem()),
    }
}

#[utoipa::path(delete, path = "/v1/holds/{hold_id}", tag = "holds",
    responses((status = 204)))]
pub(crate) async fn release(State(app): State<AppState>, user: User, ids: Ids) -> Result<Response> {
    let (id, hall) = find(&app, &user, &ids)?;
    let context = Context::at(app.now());
    let seq = match app.decide(|handle| handle.release(id, context))? {
        Ok(seq) => {
            app.committed(seq).await?;
            seq
        }
        Err(reject) => match explain(&app, &hall, id, reject).await? {
            Explained::Released(seq) => seq,
            other => return Err(other.into_problem()),
        },
    };
    Ok((StatusCode::NO_CONTENT, seq_header(&app, seq)).into_response())
}

#[utoipa::path(post, path = "/v1/holds/{hold_id}/confirm", tag = "holds",
    request_body = ConfirmInput, responses((status = 200, body = OrderBody)))]
pub(crate) async fn confirm(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    input: MaybeInput<ConfirmInput>,
) -> Result<Json<OrderBody>> {
    let payment_ref = input.value.payment_ref.unwrap_or_default();
    if payment_ref.len() > PAYMENT_REF_BYTES_MAX {
        return Err(Problem::bad_field("/payment_ref", "at most 255 bytes"));
    }
    let blob = (!payment_ref.is_empty()).then(|| payment_ref.into_bytes().into_boxed_slice());
    let (id, hall) = find(&app, &user, &ids)?;
    let (running, known) = calls::keyed(&app, &user, &input.key).await?;
    if let Some(known) = known {
        return match known.outcome {
            Outcome::Confirmed { id, .. } => order_body(&app, &hall, id, true).map(Json),
            _ => Err(crate::idempotency::reused()),
        };
    }
    let context = Context { now: app.now(), key: running.key() };
    match app.decide(|handle| handle.confirm(id, blob, context))? {
        Ok(seq) => {
            commit(&app, running, seq).await?;
            order_body(&app, &hall, id, true).map(Json)
        }
        Err(reject) => match explain(&app, &hall, id, reject).await? {
            Explained::Confirmed => order_body(&app, &hall, id, false).map(Json),
            other => Err(other.into_problem()),
        },
    }
}

/// Waits for the commit of what `running` has decided.
pub(crate) async fn commit(app: &App, mut running: Running<'_>, seq: Seq) -> Result<()> {
    running.decided(seq);
    app.committed(seq).await?;
    running.committed();
    Ok(())
}

/// The buyer's entry; in a showtime without a waiting room he gets one here.
fn entry_of(
    handle: &mut Handle,
    hall: &Hall,
    buyer: BuyerId,
    now: TimeMs,
) -> std::result::Result<EntryId, Reject> {
    use tmomi_engine::event::LineMode;
    match hall.house().entry_of(buyer) {
        Some(entry) => Ok(entry),
        None if hall.house().line_settings().mode == LineMode::Open => {
            handle.enter(hall.house(), buyer, now)
        }
        None => Err(Reject::AdmissionRequired),
    }
}

impl Wanted {
    /// Takes it.
    ///
    /// # Errors
    ///
    /// The engine's.
    pub(crate) fn take(
        &self,
        handle: &mut Handle,
        hall: &Hall,
        request: HoldRequest,
        context: Context,
    ) -> std::result::Result<Held, Reject> {
        match self {
            Wanted::Named(parts) => handle.hold(hall.house(), request, parts, context),
            Wanted::Best(best) => handle.hold_best(hall.house(), request, *best, context),
        }
    }
}

/// A hold that was just made, its seats, and the terms that it was made on.
struct Taken {
    held: Held,
    parts: Vec<Part>,
    hall: Arc<Hall>,
}

/// Takes what is wanted, if the showtime is still there. The hall is looked up while the handle is
/// out: whoever changes prices waits for handles, so nobody takes seats for a price of before.
fn take(
    app: &App,
    hall: &Hall,
    wanted: &Wanted,
    context: Context,
    request: impl FnOnce(&mut Handle, &Hall) -> std::result::Result<HoldRequest, Reject>,
) -> Result<Taken> {
    let decided = app.decide(|handle| {
        let Some(hall) = app.halls.find(hall.id()) else { return Ok(None) };
        let request = request(handle, &hall)?;
        let held = wanted.take(handle, &hall, request, context)?;
        Ok(Some(Taken { held, parts: handle.parts().to_vec(), hall }))
    })?;
    let taken = decided.map_err(|reject| refusals::problem(reject, hall))?;
    taken.ok_or_else(|| Problem::not_found("showtime"))
}

/// `ttl_ms` within its bounds.
pub(crate) fn check_ttl(ttl_ms: Option<u64>) -> Result<Option<u32>> {
    let within = u64::from(HOLD_TTL_MS_MIN)..=u64::from(HOLD_TTL_MS_MAX);
    match ttl_ms {
        Some(ttl_ms) if !within.contains(&ttl_ms) => {
            Err(Problem::bad_field("/ttl_ms", "100 to 7200000"))
        }
        ttl_ms => Ok(ttl_ms.map(|ttl_ms| ttl_ms as u32)),
    }
}

/// What can be said of a hold's body without the house.
pub(crate) fn check_choice(
    seats: Option<&[impl AsRef<str>]>,
    best: Option<&BestInput>,
) -> Result<()> {
    match (seats, best) {
        (Some(seats), None) => check_seats(seats, SEATS_NAMED_MAX),
        (None, Some(best)) if !(1..=u64::from(BEST_SEATS_MAX)).contains(&best.count) => {
            Err(Problem::bad_field("/best_available/count", "1 to 1000"))
        }
        (None, Some(_)) => Ok(()),
        _ => Err(Problem::bad_request("send exactly one of seats and best_available")),
    }
}

/// The seats of a body that `check_choice` let pass, in the house's words.
pub(crate) fn wanted(
    hall: &Hall,
    seats: Option<&[impl AsRef<str>]>,
    best: Option<&BestInput>,
) -> Result<Wanted> {
    if let Some(seats) = seats {
        return hall.parts(seats).map(Wanted::Named);
    }
    let best = best.expect("one of the two is there");
    let section = best.section.as_ref().map(|name| {
        let problem = || Problem::bad_field("/best_available/section", "there is no such section");
        hall.plan().section_named(name).ok_or_else(problem)
    });
    let tier = best.tier.as_ref().map(|name| {
        let problem = || Problem::bad_field("/best_available/tier", "there is no such tier");
        hall.plan().tier(name).ok_or_else(problem)
    });
    Ok(Wanted::Best(BestRequest {
        count: best.count as u32,
        section: section.transpose()?,
        tier: tier.transpose()?,
        adjacent: best.adjacent.unwrap_or(true),
        avoid_orphans: true,
    }))
}

/// Whether the deadline has passed and nobody has noted it yet.
fn is_overdue(app: &App, id: HoldId, now: TimeMs) -> bool {
    let image = app.shard.image().read();
    matches!(image.hold(id), Some(HoldView::Active(hold)) if now >= hold.deadline)
}

/// The hold of the path, if it is the user's, and its hall.
fn find(app: &App, user: &User, ids: &Ids) -> Result<(HoldId, Arc<Hall>)> {
    let none = || Problem::not_found("hold");
    let id = parse_hold(ids.text()).ok_or_else(none)?;
    let image = app.shard.image().read();
    let hold = image.hold(id).ok_or_else(none)?.hold();
    if image.buyer_of(hold) != Some(user.id) {
        return Err(none());
    }
    let showtime = hold.showtime;
    drop(image);
    Ok((id, app.halls.get(showtime)?))
}

/// Why the engine refused, from what everybody sees.
enum Explained {
    Confirmed,
    Released(Seq),
    Expired,
    Other(Problem),
}

impl Explained {
    fn into_problem(self) -> Problem {
        match self {
            Explained::Confirmed => Problem::new(Code::HoldConfirmed, "the hold is an order"),
            Explained::Released(_) => Problem::new(Code::HoldReleased, "the hold was given up"),
            Explained::Expired => Problem::new(Code::HoldExpired, "the deadline has passed"),
            Explained::Other(problem) => problem,
        }
    }
}

/// Waits until the decision that stood in the way is committed and says what it was.
async fn explain(app: &App, hall: &Hall, id: HoldId, reject: Reject) -> Result<Explained> {
    match reject {
        Reject::HoldConfirmed | Reject::HoldGone => app.settled().await?,
        Reject::HoldExpired => return Ok(Explained::Expired),
        other => return Ok(Explained::Other(refusals::problem(other, hall))),
    }
    let image = app.shard.image().read();
    Ok(match image.hold(id) {
        Some(HoldView::Order(_)) => Explained::Confirmed,
        Some(HoldView::Ended(ended)) => match ended.how {
            Ending::Released => Explained::Released(ended.ended.seq),
            Ending::Expired => Explained::Expired,
        },
        Some(HoldView::Active(_)) | None => Explained::Other(Problem::not_found("hold")),
    })
}
