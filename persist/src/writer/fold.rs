//! From events to rows. The fold decides nothing: every event says all there is to know.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tmomi_engine::event::{Batch, Body, Event, LeaveReason};
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, Part, Seq, ShowtimeId, TimeMs};
use tmomi_engine::state::Place;

use super::names::House;
use super::rows::{EntryRow, HoldOutcome, HoldRow, OrderRow, Rows, Stamp, TicketRow};
use super::{EntryKey, Poison, Record};

/// The events of a record, read.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) record: Record,
    events: Vec<Event>,
}

/// What the events of some records need to know besides themselves.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Showtimes whose seats are to be named.
    pub(super) houses: HashSet<ShowtimeId>,
    /// Entries whose buyer no event of these records tells.
    pub(super) buyers: HashSet<EntryKey>,
}

/// What is known besides the events.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) houses: HashMap<ShowtimeId, Arc<House>>,
    pub(super) buyers: HashMap<EntryKey, BuyerId>,
}

impl Readable {
    /// Reads a record's events.
    pub(super) fn read(record: Record) -> Result<Readable, (Record, Poison)> {
        let events = record.batch.events.iter().map(Event::unpack).collect::<Result<_, _>>();
        match events {
            Ok(events) => Ok(Readable { record, events }),
            Err(bad) => {
                let reason = bad.to_string();
                Err((record, Poison { seq: bad.seq, reason }))
            }
        }
    }

    /// When the last event was decided.
    pub(super) fn last_time(&self) -> Option<TimeMs> {
        self.events.last().map(|event| event.at)
    }

    /// Adds what this record needs to `needs`; `told` has the entries that came before it.
    pub(super) fn needs(&self, told: &mut HashSet<EntryKey>, needs: &mut Needs) {
        for event in &self.events {
            match event.body {
                Body::Buyer { entry, .. } | Body::Joined { entry, .. } => {
                    told.insert((event.showtime, entry));
                }
                Body::Confirmed { entry, .. } | Body::Refunded { entry, .. } => {
                    needs.houses.insert(event.showtime);
                    let key = (event.showtime, entry);
                    if !told.contains(&key) {
                        needs.buyers.insert(key);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Adds up events.
#[derive(Debug)]
pub(super) struct Fold<'a> {
    known: &'a mut Known,
    rows: Rows,
}

/// What an event is about, besides what it says.
#[derive(Clone, Copy)]
struct About {
    /// The number of the last event of the decision, which is the one that clients are told.
    stamp: Stamp,
    at: TimeMs,
    showtime: ShowtimeId,
}

impl<'a> Fold<'a> {
    pub(super) fn new(known: &'a mut Known) -> Fold<'a> {
        Fold { known, rows: Rows::default() }
    }

    pub(super) fn rows(self) -> Rows {
        self.rows
    }

    /// Adds the events of a record.
    pub(super) fn add(&mut self, readable: &Readable) -> Result<(), Poison> {
        let Readable { record, events } = readable;
        for decision in events.chunk_by(|event, _| event.more_follows) {
            let seq = decision[decision.len() - 1].seq;
            let stamp = Stamp { epoch: record.epoch, seq };
            // An event and the further seats of it.
            for said in decision.chunk_by(|_, next| matches!(next.body, Body::More { .. })) {
                let Event { at, showtime, .. } = said[0];
                let about = About { stamp, at, showtime };
                let added = self.event(about, &said[0], &said[1..], &record.batch);
                added.map_err(|reason| Poison { seq: said[0].seq, reason })?;
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        about: About,
        event: &Event,
        more: &[Event],
        batch: &Batch,
    ) -> Result<(), String> {
        match event.body {
            Body::EpochStart { .. }
            | Body::Opened { .. }
            | Body::Terms { .. }
            | Body::LineSet(_)
            | Body::Blocked { .. }
            | Body::Unblocked { .. } => {}
            Body::Buyer { .. }
            | Body::Joined { .. }
            | Body::Left { .. }
            | Body::Admitted { .. }
            | Body::Passed { .. } => self.entry(about, &event.body),
            Body::Held { slot, entry, ttl_ms, first, .. } => {
                let id = HoldId { slot, seq: event.seq };
                let seats = parts(first, more).map(|part| part.mask.count_ones()).sum();
                let deadline = about.at.plus_ms(ttl_ms.into());
                let row = hold_row(about, id, entry, HoldOutcome::Active);
                let (seats, created_at, deadline) = (Some(seats), Some(about.at), Some(deadline));
                self.rows
                    .hold((about.showtime, id.seq), HoldRow { seats, created_at, deadline, ..row });
            }
            Body::Extended { hold, entry, ttl_ms, .. } => {
                let deadline = Some(about.at.plus_ms(ttl_ms.into()));
                let row = hold_row(about, hold, entry, HoldOutcome::Active);
                self.rows.hold((about.showtime, hold.seq), HoldRow { deadline, ..row });
            }
            Body::Released { hold, entry, .. } => {
                self.rows.hold(
                    (about.showtime, hold.seq),
                    hold_row(about, hold, entry, HoldOutcome::Released),
                );
            }
            Body::Expired { hold, entry, .. } => {
                self.rows.hold(
                    (about.showtime, hold.seq),
                    hold_row(about, hold, entry, HoldOutcome::Expired),
                );
            }
            Body::Confirmed { hold, entry, first, .. } => {
                self.rows.hold(
                    (about.showtime, hold.seq),
                    hold_row(about, hold, entry, HoldOutcome::Confirmed),
                );
                let payment_ref = event.has_blob.then(|| blob(batch, event.seq)).transpose()?;
                let total = self.tickets(about, hold, false, parts(first, more))?;
                let row = self.order_row(about, hold, entry, total)?;
                let confirmed_at = Some(about.at);
                self.rows.order(
                    (about.showtime, hold.seq),
                    OrderRow { payment_ref, confirmed_at, ..row },
                );
            }
            Body::Refunded { hold, entry, first, .. } => {
                self.rows.hold(
                    (about.showtime, hold.seq),
                    hold_row(about, hold, entry, HoldOutcome::Refunded),
                );
                let total = self.tickets(about, hold, true, parts(first, more))?;
                let row = self.order_row(about, hold, entry, total)?;
                let refunded_at = Some(about.at);
                self.rows.order(
                    (about.showtime, hold.seq),
                    OrderRow { refunded: true, refunded_at, ..row },
                );
            }
            Body::More { .. } => return Err("seats that belong to no event".to_owned()),
        }
        Ok(())
    }

    fn entry(&mut self, about: About, body: &Body) {
        let row = |place| EntryRow {
            buyer: None,
            number: None,
            place,
            session_until: None,
            changed_at: about.at,
            stamp: about.stamp,
        };
        let (entry, row) = match *body {
            Body::Buyer { entry, buyer } => {
                (entry, EntryRow { buyer: Some(buyer), ..row(Place::Out) })
            }
            Body::Joined { entry, buyer, number, .. } => {
                let (buyer, number) = (Some(buyer), Some(number));
                (entry, EntryRow { buyer, number, ..row(Place::Waiting) })
            }
            Body::Left { entry, number, reason, .. } => {
                let place = match reason {
                    LeaveReason::Asked => Place::Out,
                    LeaveReason::SessionOver => Place::Expired,
                };
                (entry, EntryRow { number: Some(number), ..row(place) })
            }
            Body::Admitted { entry, number, until } => {
                let (number, session_until) = (Some(number), Some(until));
                (entry, EntryRow { number, session_until, ..row(Place::Admitted) })
            }
            Body::Passed { entry, number } => {
                (entry, EntryRow { number: Some(number), ..row(Place::Passed) })
            }
            _ => return,
        };
        let key = (about.showtime, entry);
        if let Some(buyer) = row.buyer {
            self.known.buyers.insert(key, buyer);
        }
        self.rows.entry(key, row);
    }

    fn order_row(
        &self,
        about: About,
        hold: HoldId,
        entry: EntryId,
        total: u64,
    ) -> Result<OrderRow, String> {
        let showtime = about.showtime;
        let buyer = self.known.buyers.get(&(showtime, entry));
        let buyer =
            buyer.ok_or_else(|| format!("entry {entry} of showtime {showtime} has no buyer"))?;
        Ok(OrderRow {
            slot: hold.slot,
            buyer: *buyer,
            refunded: false,
            total,
            currency: self.house(showtime)?.currency.clone(),
            payment_ref: None,
            confirmed_at: None,
            refunded_at: None,
            stamp: about.stamp,
        })
    }

    /// Adds the tickets of an order; gives the sum of their prices.
    fn tickets(
        &mut self,
        about: About,
        order: HoldId,
        refunded: bool,
        parts: impl Iterator<Item = Part>,
    ) -> Result<u64, String> {
        let house = self.house(about.showtime)?.clone();
        let mut total = 0;
        for part in parts {
            if !house.layout.has(part) {
                let (showtime, block) = (about.showtime, part.block);
                return Err(format!("showtime {showtime} has not all seats of block {block}"));
            }
            let tier = usize::from(house.layout.block(part.block).tier.0);
            let (tier, price) = &house.prices[tier];
            for seat in part.seats() {
                total += price;
                let row = TicketRow {
                    seat: house.plan.seat_id(&house.layout, seat),
                    tier: tier.clone(),
                    price: *price,
                    refunded,
                    stamp: about.stamp,
                };
                self.rows.ticket((about.showtime, order.seq, seat), row);
            }
        }
        Ok(total)
    }

    fn house(&self, showtime: ShowtimeId) -> Result<&Arc<House>, String> {
        let house = self.known.houses.get(&showtime);
        house.ok_or_else(|| format!("the catalog has no showtime {showtime}"))
    }
}

/// The seats of an event: its own part and those of the `More` events behind it.
fn parts(first: Part, more: &[Event]) -> impl Iterator<Item = Part> {
    let further = more.iter().filter_map(|event| match event.body {
        Body::More { parts } => Some(parts),
        _ => None,
    });
    std::iter::once(first).chain(further.flatten()).filter(|part| part.mask != 0)
}

fn hold_row(about: About, id: HoldId, entry: EntryId, state: HoldOutcome) -> HoldRow {
    HoldRow {
        slot: id.slot,
        entry,
        state,
        seats: None,
        created_at: None,
        deadline: None,
        stamp: about.stamp,
    }
}

/// The text that belongs to an event.
fn blob(batch: &Batch, seq: Seq) -> Result<String, String> {
    let place = batch.blobs.binary_search_by_key(&seq, |(of, _)| *of);
    let (_, bytes) = &batch.blobs[place.map_err(|_| "its text is missing".to_owned())?];
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
