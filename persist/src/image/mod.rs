//! A shard at one sequence number: the fold of its committed events.
//!
//! Owner, replica, snapshot and replay all come by their image through [`Image::apply`], which
//! reads no clock and depends on no order of a hash table, so they agree to the bit. It believes no
//! event: seats that are held were free, what is confirmed was held, numbers come once. What
//! contradicts that is a [`Divergence`], and nobody is told anything after it.

mod ahead;
mod apply;
mod codec;
mod decision;
mod divergence;
mod hold;
mod holds;
mod id_map;
mod index;
mod keys;
mod line;
mod positions;
mod recent;
mod records;
mod rows;
mod seats;
mod showtime;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;

use tmomi_engine::ids::{BuyerId, Epoch, HoldId, Part, Seq, ShowtimeId, TimeMs};
use tmomi_engine::state::{EntryState, HoldState, ShardState, ShowtimeState};

pub use apply::Followed;
pub use decision::Decision;
pub use divergence::{Contradiction, Divergence};
pub use hold::{Ended, Ending, Hold, HoldView, Moment, Order};
pub use keys::{KeyImage, Outcome};
pub use line::Entry;
pub use recent::REMEMBERED_MS;
pub use seats::{Counts, Masks};
pub use showtime::{Past, ShowtimeImage};

pub use codec::ImageCodecError;
pub(crate) use decision::slices;

use holds::Holds;
use keys::Keys;

/// Everything at one sequence number.
#[derive(Clone, Debug)]
pub struct Image {
    applied: Seq,
    epoch: Epoch,
    /// The latest time of an event: what is remembered for a day is forgotten by it.
    now: TimeMs,
    showtimes: BTreeMap<ShowtimeId, ShowtimeImage>,
    holds: Holds,
    keys: Keys,
    /// The events that are applied next.
    ahead: Decision,
    parts: Vec<Part>,
}

impl Default for Image {
    fn default() -> Self {
        Image::new()
    }
}

impl Image {
    /// Before the first event.
    pub fn new() -> Image {
        Image {
            applied: Seq(0),
            epoch: Epoch(0),
            now: TimeMs(0),
            showtimes: BTreeMap::new(),
            holds: Holds::new(),
            keys: Keys::new(),
            ahead: Decision::default(),
            parts: Vec::new(),
        }
    }

    /// The number of the last event in it.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// The reign that the last event is of; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The latest time of an event in it.
    pub fn now(&self) -> TimeMs {
        self.now
    }

    /// A showtime; `None` if it was never opened.
    pub fn showtime(&self, showtime: ShowtimeId) -> Option<&ShowtimeImage> {
        self.showtimes.get(&showtime)
    }

    /// All showtimes, by id.
    pub fn showtimes(&self) -> impl ExactSizeIterator<Item = (ShowtimeId, &ShowtimeImage)> {
        self.showtimes.iter().map(|(id, showtime)| (*id, showtime))
    }

    /// What became of a hold; `None` if there was none or it ended long ago.
    pub fn hold(&self, id: HoldId) -> Option<HoldView<'_>> {
        self.holds.get(id)
    }

    /// The buyer of a hold or an order.
    pub fn buyer_of(&self, hold: &Hold) -> Option<BuyerId> {
        let entry = self.showtime(hold.showtime)?.entry(hold.entry)?;
        Some(entry.buyer)
    }

    /// The orders of a buyer in all showtimes, newest first; with `before`, an order of his, only
    /// older ones.
    pub fn orders_of(
        &self,
        buyer: BuyerId,
        before: Option<HoldId>,
    ) -> impl Iterator<Item = &Order> {
        self.holds.orders_of(buyer, before)
    }

    /// All orders, in the order of their confirmation.
    pub fn orders(&self) -> &[Order] {
        self.holds.orders()
    }

    /// All active holds, in no meaningful order.
    pub fn active_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.active()
    }

    /// The holds that ended and are remembered, in the order of their ends: all since the first.
    pub fn ended_holds(&self) -> impl Iterator<Item = &Ended> {
        self.holds.ended()
    }

    /// What a key led to, by the hash of user and key. Remembered for a day at least, as long as
    /// the shard is not flooded with keys or with holds: what is left of a hold that is forgotten
    /// is no answer, so its key is forgotten with it.
    pub fn key(&self, hash: u64) -> Option<&KeyImage> {
        self.keys.get(hash).filter(|key| match key.outcome {
            Outcome::Held { id, .. } => self.hold(id).is_some(),
            _ => true,
        })
    }
}

/// What an engine is built from, to decide on from here.
impl ShardState for Image {
    fn applied(&self) -> Seq {
        self.applied
    }

    fn showtimes(&self) -> impl Iterator<Item = ShowtimeState> {
        self.showtimes.iter().map(|(id, showtime)| showtime_state(*id, showtime))
    }

    fn entries(&self, showtime: ShowtimeId) -> impl Iterator<Item = EntryState> {
        self.showtimes[&showtime].entries().iter().map(entry_state)
    }

    fn holds(&self) -> impl Iterator<Item = HoldState<'_>> {
        self.holds.active().map(hold_state)
    }

    fn orders(&self) -> impl Iterator<Item = HoldState<'_>> {
        let orders = self.holds.orders().iter().filter(|order| order.refunded.is_none());
        orders.map(|order| hold_state(&order.hold))
    }
}

fn hold_state(hold: &Hold) -> HoldState<'_> {
    HoldState {
        id: hold.id,
        showtime: hold.showtime,
        entry: hold.entry,
        created_at: hold.created_at,
        deadline: hold.deadline,
        parts: hold.parts(),
    }
}

fn entry_state(entry: &Entry) -> EntryState {
    EntryState {
        buyer: entry.buyer,
        number: entry.number,
        place: entry.place,
        session_until: entry.session_until,
    }
}

fn showtime_state(id: ShowtimeId, showtime: &ShowtimeImage) -> ShowtimeState {
    ShowtimeState {
        showtime: id,
        layout: Arc::clone(showtime.layout()),
        limit: showtime.limit(),
        hold_ttl_ms: showtime.hold_ttl_ms(),
        line: *showtime.settings(),
        blocked: showtime.blocked(),
        last_number: showtime.last_number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::ids::{HoldSlot, RequestKey};

    #[test]
    fn a_key_is_forgotten_with_the_hold_that_it_names() {
        let mut image = Image::new();
        let id = HoldId { slot: HoldSlot(0), seq: Seq(1) };
        let outcome = Outcome::Held { id, deadline: TimeMs(2), seq: Seq(1) };
        image.keys.remember(RequestKey { hash: 7, fingerprint: 7 }, TimeMs(1), outcome);
        assert_eq!(image.key(7), None, "a hold that nobody can show");
    }
}
