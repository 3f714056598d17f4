//! A hold as clients see it: which one, and how it is written.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::Response;
use tmomi_engine::Held;
use tmomi_engine::event::PARTS_PER_MORE;
use tmomi_engine::ids::{HoldId, Part, Seq, TimeMs};
use tmomi_persist::image::{Ending, Hold, HoldView, KeyImage, Outcome};
use utoipa::ToSchema;

use crate::api::calls;
use crate::app::App;
use crate::halls::Hall;
use crate::json::Json;
use crate::problem::{Problem, Result};
use crate::text::{When, push_hold, push_seq};

/// Bytes of a hold's JSON without its seats, and of a seat whose names are not unusually long.
pub(crate) const HOLD_BYTES: usize = 192;
const SEAT_BYTES: usize = 64;

/// A seat of a hold.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what HoldFacts writes")]
pub(crate) struct HeldSeat {
    seat: String,
    tier: String,
    price: u64,
}

/// A hold as clients see it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what HoldFacts writes")]
pub(crate) struct HoldBody {
    hold_id: String,
    state: Option<String>,
    seats: Vec<HeldSeat>,
    total: u64,
    currency: String,
    expires_at: When,
    expires_in_ms: u64,
    seq: String,
}

/// What a [`HoldBody`] is made of.
pub(crate) struct HoldFacts<'a> {
    id: HoldId,
    parts: Cow<'a, [Part]>,
    deadline: TimeMs,
    /// The number of the event that the answer reports.
    pub(crate) seq: Seq,
    state: Option<&'static str>,
    now: TimeMs,
}

impl<'a> HoldFacts<'a> {
    /// A hold of `parts` that was just made; its time left is counted from `now`.
    pub(crate) fn made(held: Held, parts: &'a [Part], now: TimeMs) -> HoldFacts<'a> {
        let Held { id, deadline, seq } = held;
        HoldFacts { id, parts: Cow::Borrowed(parts), deadline, seq, state: None, now }
    }

    /// Writes what stands in the body behind its opening brace, on the terms of `hall`.
    pub(crate) fn write(&self, app: &App, hall: &Hall, json: &mut Json) {
        push_hold(&mut json.raw("\"hold_id\":\"").0, self.id);
        if let Some(state) = self.state {
            json.raw("\",\"state\":\"").raw(state);
        }
        json.raw("\",\"seats\":[");
        let mut total = 0;
        for (item, seat) in self.parts.iter().flat_map(|part| part.seats()).enumerate() {
            let tier = hall.tier_of(seat);
            let price = hall.price(tier);
            total += price;
            json.comma(item);
            json.raw("{\"seat\":").text(&hall.seat_id(seat)).raw(",\"tier\":");
            json.text(hall.tier_name(tier)).raw(",\"price\":").number(price).raw("}");
        }
        let left_ms = self.deadline.since_ms(self.now);
        json.raw("],\"total\":").number(total).raw(",\"currency\":").text(hall.currency());
        When(self.deadline).push(&mut json.raw(",\"expires_at\":\"").0);
        json.raw("\",\"expires_in_ms\":").number(left_ms);
        push_seq(&mut json.raw(",\"seq\":\"").0, app.epochs.of(self.seq), self.seq);
        json.raw("\"}");
    }

    /// The whole answer.
    pub(crate) fn answer(&self, app: &App, hall: &Hall, status: StatusCode) -> Response {
        let mut json = Json::with_capacity(HOLD_BYTES + self.parts.len() * SEAT_BYTES);
        json.raw("{");
        self.write(app, hall, &mut json);
        calls::json(status, json.0.into_bytes())
    }
}

/// The hold that the key's first request got.
pub(crate) fn replayed(app: &App, known: KeyImage) -> Result<HoldFacts<'static>> {
    let Outcome::Held { id, deadline, seq } = known.outcome else {
        return Err(crate::idempotency::reused());
    };
    let image = app.shard.image().read();
    let view = image.hold(id).ok_or_else(|| Problem::not_found("hold"))?;
    let parts = Cow::Owned(view.hold().parts().to_vec());
    Ok(HoldFacts { id, parts, deadline, seq, state: None, now: app.now() })
}

/// A hold as it is at `now`.
pub(crate) fn present(app: &App, id: HoldId, now: TimeMs) -> Result<HoldFacts<'static>> {
    let image = app.shard.image().read();
    let view = image.hold(id).ok_or_else(|| Problem::not_found("hold"))?;
    let (state, seq) = match view {
        // Nobody can have it any more, whether the expiry is in the log yet or not.
        HoldView::Active(hold) if now >= hold.deadline => ("expired", decided_seq(hold)),
        HoldView::Active(hold) => ("active", decided_seq(hold)),
        HoldView::Order(order) => ("confirmed", order.confirmed.seq),
        HoldView::Ended(ended) => match ended.how {
            Ending::Released => ("released", ended.ended.seq),
            Ending::Expired => ("expired", ended.ended.seq),
        },
    };
    let (parts, deadline) = (Cow::Owned(view.hold().parts().to_vec()), view.hold().deadline);
    Ok(HoldFacts { id, parts, deadline, seq, state: Some(state), now })
}

/// The last event of the decision that made the hold: its `seq` for clients.
fn decided_seq(hold: &Hold) -> Seq {
    let further = (hold.parts().len() - 1).div_ceil(PARTS_PER_MORE);
    Seq(hold.id.seq.0 + further as u64)
}
