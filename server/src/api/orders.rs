//! Orders and tickets: what a confirmed hold became, and giving it back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tmomi_engine::Context;
use tmomi_engine::Reject;
use tmomi_engine::ids::{BuyerId, HoldId, SeatAddr, Seq};
use tmomi_persist::image::{HoldView, Image, Order, Outcome};
use utoipa::ToSchema;

use crate::api::calls;
use crate::api::holds::commit;
use crate::app::{App, AppState};
use crate::extract::{Ids, MaybeInput, MinSeq, Nothing, Page, Query, Reached, User};
use crate::halls::Hall;
use crate::problem::{Problem, Result};
use crate::refusals;
use crate::text::{order_text, parse_order, parse_ticket, ticket_text};

/// A ticket inside its order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderTicket {
    ticket_id: String,
    seat: String,
    tier: String,
    price: u64,
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderBody {
    order_id: String,
    showtime_id: u32,
    /// `confirmed` or `refunded`.
    #[schema(value_type = String)]
    state: &'static str,
    tickets: Vec<OrderTicket>,
    total: u64,
    currency: String,
    seq: String,
}

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrdersBody {
    orders: Vec<OrderBody>,
    next: Option<String>,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TicketBody {
    ticket_id: String,
    order_id: String,
    showtime_id: u32,
    seat: String,
    tier: String,
    price: u64,
    /// `valid` or `refunded`.
    #[schema(value_type = String)]
    state: &'static str,
}

/// A page of tickets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TicketsBody {
    tickets: Vec<TicketBody>,
    next: Option<String>,
}

/// An order that was given back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefundBody {
    order_id: String,
    #[schema(value_type = String)]
    state: &'static str,
    seq: String,
}

#[utoipa::path(get, path = "/v1/orders", tag = "orders", params(Page, MinSeq),
    responses((status = 200, body = OrdersBody)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    user: User,
    page: Query<Page>,
    _: Reached,
) -> Result<Json<OrdersBody>> {
    let limit = page.0.limit()?;
    let after = after(&page.0, parse_order)?;
    let image = app.shard.image().read();
    let after = after.map(|id| own_order(&image, user.id, id)).transpose()?;
    let before = after.map(|order| order.hold.id);
    // Those of a showtime that cannot be shown just now do not hide the others.
    let shown = image.orders_of(user.id, before).filter(|order| hall_of(&app, order).is_ok());
    let mut orders: Vec<Order> = shown.take(limit + 1).cloned().collect();
    drop(image);
    let more = orders.len() > limit;
    orders.truncate(limit);
    let next = orders.last().filter(|_| more).map(|order| order_text(order.hold.id));
    let body = |order: &Order| Ok(body_of(&app, &*hall_of(&app, order)?, order, false));
    Ok(Json(OrdersBody { orders: orders.iter().map(body).collect::<Result<_>>()?, next }))
}

#[utoipa::path(get, path = "/v1/orders/{order_id}", tag = "orders", params(MinSeq),
    responses((status = 200, body = OrderBody)))]
pub(crate) async fn get(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    _: Reached,
) -> Result<Json<OrderBody>> {
    let order = find(&app, &user, &ids)?;
    Ok(Json(body_of(&app, &*hall_of(&app, &order)?, &order, false)))
}

#[utoipa::path(post, path = "/v1/orders/{order_id}/refund", tag = "orders",
    responses((status = 200, body = RefundBody)))]
pub(crate) async fn refund(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    input: MaybeInput<Nothing>,
) -> Result<Json<RefundBody>> {
    let order = find(&app, &user, &ids)?;
    let id = order.hold.id;
    let answer = |seq| {
        let seq = app.seq_text(seq);
        Ok(Json(RefundBody { order_id: order_text(id), state: "refunded", seq }))
    };
    let (running, known) = calls::keyed(&app, &user, &input.key).await?;
    if let Some(known) = known {
        return match known.outcome {
            Outcome::Refunded { seq, .. } => answer(seq),
            _ => Err(crate::idempotency::reused()),
        };
    }
    let context = Context { now: app.now(), key: running.key() };
    match app.decide(|handle| handle.refund(id, context))? {
        Ok(seq) => {
            commit(&app, running, seq).await?;
            answer(seq)
        }
        Err(Reject::HoldGone) => {
            app.settled().await?;
            let order = find(&app, &user, &ids)?;
            let refunded = order.refunded.ok_or_else(|| Problem::not_found("order"))?;
            answer(refunded.seq)
        }
        Err(reject) => Err(refusals::problem(reject, &*hall_of(&app, &order)?)),
    }
}

#[utoipa::path(get, path = "/v1/tickets", tag = "orders", params(Page, MinSeq),
    responses((status = 200, body = TicketsBody)))]
pub(crate) async fn tickets(
    State(app): State<AppState>,
    user: User,
    page: Query<Page>,
    _: Reached,
) -> Result<Json<TicketsBody>> {
    let limit = page.0.limit()?;
    let after = after(&page.0, parse_ticket)?;
    let image = app.shard.image().read();
    let mut orders: Vec<Order> = Vec::new();
    if let Some((id, _)) = after {
        orders.push(own_order(&image, user.id, id)?.clone());
    }
    // One ticket more than asked for tells whether there is a next page.
    let mut missing = limit + 1;
    let further = image.orders_of(user.id, after.map(|(id, _)| id));
    for order in further.filter(|order| hall_of(&app, order).is_ok()) {
        orders.push(order.clone());
        missing = missing.saturating_sub(order.hold.seats() as usize);
        if missing == 0 {
            break;
        }
    }
    drop(image);
    let mut tickets = Vec::new();
    let mut seen = after.is_none();
    'all: for order in &orders {
        let Ok(hall) = hall_of(&app, order) else {
            // Only the first can be without, the one of `after`.
            seen = true;
            continue;
        };
        for (place, seat) in seats_of(order).enumerate() {
            if seen {
                tickets.push(ticket_body(&hall, order, place, seat));
            }
            seen |= after == Some((order.hold.id, place));
            if tickets.len() > limit {
                break 'all;
            }
        }
    }
    let more = tickets.len() > limit;
    tickets.truncate(limit);
    let next = tickets.last().filter(|_| more).map(|ticket| ticket.ticket_id.clone());
    Ok(Json(TicketsBody { tickets, next }))
}

#[utoipa::path(get, path = "/v1/tickets/{ticket_id}", tag = "orders", params(MinSeq),
    responses((status = 200, body = TicketBody)))]
pub(crate) async fn ticket(
    State(app): State<AppState>,
    user: User,
    ids: Ids,
    _: Reached,
) -> Result<Json<TicketBody>> {
    let none = || Problem::not_found("ticket");
    let (id, place) = parse_ticket(ids.text()).ok_or_else(none)?;
    let order = own_order(&app.shard.image().read(), user.id, id).map_err(|_| none())?.clone();
    let seat = seats_of(&order).nth(place).ok_or_else(none)?;
    Ok(Json(ticket_body(&*hall_of(&app, &order)?, &order, place, seat)))
}

/// The order of a hold; as it was confirmed, whatever became of it, if `as_confirmed`.
pub(crate) fn order_body(
    app: &App,
    hall: &Hall,
    id: HoldId,
    as_confirmed: bool,
) -> Result<OrderBody> {
    let image = app.shard.image().read();
    let Some(HoldView::Order(order)) = image.hold(id) else {
        return Err(Problem::not_found("order"));
    };
    let order = order.clone();
    drop(image);
    Ok(body_of(app, hall, &order, as_confirmed))
}

fn body_of(app: &App, hall: &Hall, order: &Order, as_confirmed: bool) -> OrderBody {
    let refunded = order.refunded.filter(|_| !as_confirmed);
    let mut total = 0;
    let mut tickets = Vec::new();
    for (place, seat) in seats_of(order).enumerate() {
        let tier = hall.tier_of(seat);
        let price = hall.price(tier);
        total += price;
        tickets.push(OrderTicket {
            ticket_id: ticket_text(order.hold.id, place),
            seat: hall.seat_id(seat),
            tier: hall.tier_name(tier).to_owned(),
            price,
        });
    }
    let seq: Seq = refunded.unwrap_or(order.confirmed).seq;
    OrderBody {
        order_id: order_text(order.hold.id),
        showtime_id: order.hold.showtime.0,
        state: if refunded.is_some() { "refunded" } else { "confirmed" },
        tickets,
        total,
        currency: hall.currency().to_owned(),
        seq: app.seq_text(seq),
    }
}

fn ticket_body(hall: &Hall, order: &Order, place: usize, seat: SeatAddr) -> TicketBody {
    let tier = hall.tier_of(seat);
    TicketBody {
        ticket_id: ticket_text(order.hold.id, place),
        order_id: order_text(order.hold.id),
        showtime_id: order.hold.showtime.0,
        seat: hall.seat_id(seat),
        tier: hall.tier_name(tier).to_owned(),
        price: hall.price(tier),
        state: if order.refunded.is_some() { "refunded" } else { "valid" },
    }
}

fn seats_of(order: &Order) -> impl Iterator<Item = SeatAddr> {
    order.hold.parts().iter().flat_map(|part| part.seats())
}

fn hall_of(app: &App, order: &Order) -> Result<Arc<Hall>> {
    app.halls.get(order.hold.showtime)
}

fn find(app: &App, user: &User, ids: &Ids) -> Result<Order> {
    let id = parse_order(ids.text()).ok_or_else(|| Problem::not_found("order"))?;
    own_order(&app.shard.image().read(), user.id, id).cloned()
}

/// The order, if it is the buyer's.
fn own_order(image: &Image, buyer: BuyerId, id: HoldId) -> Result<&Order> {
    match image.hold(id) {
        Some(HoldView::Order(order)) if image.buyer_of(&order.hold) == Some(buyer) => Ok(order),
        _ => Err(Problem::not_found("order")),
    }
}

/// The `?after=` of a list, taken apart.
fn after<T>(page: &Page, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    let problem = || Problem::bad_request("after must be the next of the page before");
    page.after.as_deref().map(|text| parse(text).ok_or_else(problem)).transpose()
}
