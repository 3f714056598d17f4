//! Asking for the memory of events before they are applied.
//!
//! An event changes words at random places of tables that no cache holds. One after the other,
//! each is waited for; asked for together, they come together.

use std::hint::black_box;

use tmomi_engine::event::{Body, Event};
use tmomi_engine::ids::{EntryId, HoldId, Part, ShowtimeId};

use super::Image;
use super::showtime::ShowtimeImage;

impl Image {
    /// Has what `events` will change brought to the cache.
    pub(super) fn ask_for(&self, events: &[Event]) {
        let mut loaded = 0;
        self.for_each_with_showtime(events, |showtime, body| loaded ^= self.near(showtime, body));
        self.for_each_with_showtime(events, |showtime, body| loaded ^= self.far(showtime, body));
        black_box(loaded);
    }

    /// Has brought to the cache where the orders of these entries' buyers are entered.
    pub(super) fn ask_for_buyers(&self, entries: impl Iterator<Item = (ShowtimeId, EntryId)>) {
        let loaded = entries.fold(0, |loaded, (showtime, entry)| {
            let entry = self.showtime(showtime).and_then(|showtime| showtime.entry(entry));
            loaded ^ entry.map_or(0, |entry| self.holds.touch_buyer(entry.buyer))
        });
        black_box(loaded);
    }

    #[inline]
    fn for_each_with_showtime(&self, events: &[Event], mut f: impl FnMut(&ShowtimeImage, &Body)) {
        let mut known: Option<(ShowtimeId, &ShowtimeImage)> = None;
        for event in events {
            if known.is_none_or(|(id, _)| id != event.showtime) {
                known = self.showtime(event.showtime).map(|showtime| (event.showtime, showtime));
            }
            let Some((_, showtime)) = known else { continue };
            f(showtime, &event.body);
        }
    }

    /// Loads what the event says itself that it changes.
    #[inline]
    fn near(&self, showtime: &ShowtimeImage, body: &Body) -> u64 {
        let both =
            |entry: EntryId, first: Part| showtime.line.touch(entry) ^ showtime.seats.touch(first);
        let hold = |id: HoldId| self.holds.touch_slot(id.slot);
        match *body {
            Body::Buyer { buyer, .. } => showtime.line.touch_buyer(buyer),
            Body::Joined { buyer, key, .. } => {
                showtime.line.touch_buyer(buyer) ^ self.keys.touch(key)
            }
            Body::Held { slot, entry, first, key, .. } => {
                both(entry, first) ^ self.holds.touch_slot(slot) ^ self.keys.touch(key)
            }
            Body::Confirmed { hold: id, entry, first, key }
            | Body::Refunded { hold: id, entry, first, key } => {
                both(entry, first) ^ hold(id) ^ self.keys.touch(key)
            }
            Body::Released { hold: id, entry, first }
            | Body::Expired { hold: id, entry, first } => {
                both(entry, first) ^ hold(id) ^ self.holds.touch_ended(id)
            }
            Body::Extended { hold: id, entry, .. } => showtime.line.touch(entry) ^ hold(id),
            _ => 0,
        }
    }

    /// Loads what is found by way of that, most of which has come by now.
    #[inline]
    fn far(&self, showtime: &ShowtimeImage, body: &Body) -> u64 {
        match *body {
            Body::Confirmed { hold, entry, .. } => {
                let buyer = showtime.line.entry(entry).map(|entry| entry.buyer);
                let order = buyer.map_or(0, |buyer| self.holds.touch_buyer(buyer));
                self.holds.touch(hold.slot) ^ order
            }
            Body::Released { hold, .. }
            | Body::Expired { hold, .. }
            | Body::Refunded { hold, .. }
            | Body::Extended { hold, .. } => self.holds.touch(hold.slot),
            _ => 0,
        }
    }
}
