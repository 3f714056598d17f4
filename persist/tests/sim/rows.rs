//! The database of rows, in memory: a transaction changes all of its tables or nothing.
//!
//! It merges rows as the statements of the real one do. What it must come to is told by an image,
//! which comes by the same events another way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tmomi_engine::ids::{BuyerId, Epoch, Seq, ShowtimeId};
use tmomi_engine::state::Place;
use tmomi_persist::image::{Ending, HoldView, Image};
use tmomi_persist::writer::{
    EntryKey, EntryRow, HoldOutcome, HoldRow, House, JournalSource, Names, NamesError, OrderRow,
    Record, Rows, Sink, SinkError, Source, SourceError, Stamp, TicketRow,
};

use crate::step::Away;

/// The tables. They outlive every process.
#[derive(Clone)]
pub(crate) struct Tables(Arc<Mutex<Stored>>);

struct Stored {
    position: Stamp,
    rows: Rows,
    away: Away,
}

impl Tables {
    pub(crate) fn new() -> Tables {
        let position = Stamp::default();
        Tables(Arc::new(Mutex::new(Stored { position, rows: Rows::default(), away: Away::No })))
    }

    pub(crate) fn set_away(&self, away: Away) {
        self.stored().away = away;
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().expect("no test panics within")
    }

    /// R8: the rows are what the events up to their position say.
    pub(crate) fn check(&self, image: &Image) {
        let stored = self.stored();
        assert_eq!(stored.position.seq, image.applied(), "R8: the rows stand elsewhere");
        let rows = &stored.rows;
        check_holds(rows, image);
        check_orders(rows, image);
        check_entries(rows, image);
    }
}

fn check_holds(rows: &Rows, image: &Image) {
    let active: Vec<_> = image.active_holds().collect();
    let open = rows.holds.values().filter(|row| row.state == HoldOutcome::Active).count();
    assert_eq!(open, active.len(), "R8: active holds");
    for hold in active {
        let row = rows
            .holds
            .get(&(hold.showtime, hold.id.seq))
            .expect("R8: the row of a hold is missing");
        assert_eq!(row.state, HoldOutcome::Active, "R8: {hold:?}");
        assert_eq!(row.deadline, Some(hold.deadline), "R8: {hold:?}");
        assert_eq!(row.created_at, Some(hold.created_at), "R8: {hold:?}");
        let seats = hold.parts().iter().map(|part| part.mask.count_ones()).sum();
        assert_eq!(row.seats, Some(seats), "R8: {hold:?}");
    }
    for ((_, seq), row) in &rows.holds {
        let id = tmomi_engine::ids::HoldId { slot: row.slot, seq: *seq };
        let said = match image.hold(id) {
            Some(HoldView::Active(_)) => HoldOutcome::Active,
            Some(HoldView::Order(order)) if order.refunded.is_some() => HoldOutcome::Refunded,
            Some(HoldView::Order(_)) => HoldOutcome::Confirmed,
            Some(HoldView::Ended(ended)) if ended.how == Ending::Released => HoldOutcome::Released,
            Some(HoldView::Ended(_)) => HoldOutcome::Expired,
            None => panic!("R8: a row of hold {id:?}, which never was"),
        };
        assert_eq!(row.state, said, "R8: hold {id:?}");
    }
}

fn check_orders(rows: &Rows, image: &Image) {
    assert_eq!(rows.orders.len(), image.orders().len(), "R8: orders");
    let mut tickets = 0;
    for order in image.orders() {
        let (showtime, seq) = (order.hold.showtime, order.hold.id.seq);
        let row = rows.orders.get(&(showtime, seq)).expect("R8: an order has no row");
        assert_eq!(row.refunded, order.refunded.is_some(), "R8: {order:?}");
        assert_eq!(row.confirmed_at, Some(order.confirmed.at), "R8: {order:?}");
        assert_eq!(row.refunded_at, order.refunded.map(|it| it.at), "R8: {order:?}");
        assert_eq!(Some(row.buyer), image.buyer_of(&order.hold), "R8: {order:?}");
        let mut total = 0;
        for seat in order.hold.parts().iter().flat_map(|part| part.seats()) {
            let ticket = rows.tickets.get(&(showtime, seq, seat)).expect("R8: no ticket");
            assert_eq!(ticket.refunded, order.refunded.is_some(), "R8: {ticket:?}");
            (total, tickets) = (total + ticket.price, tickets + 1);
        }
        assert_eq!(row.total, total, "R8: {order:?}");
    }
    assert_eq!(rows.tickets.len(), tickets, "R8: tickets");
}

fn check_entries(rows: &Rows, image: &Image) {
    let mut count = 0;
    for (showtime, about) in image.showtimes() {
        for (id, entry) in about.entries().iter().enumerate() {
            let id = tmomi_engine::ids::EntryId(id as u32);
            if about.entry(id).is_none() {
                continue;
            }
            count += 1;
            let row = rows.entries.get(&(showtime, id)).expect("R8: an entry has no row");
            assert_eq!((row.buyer, row.place), (Some(entry.buyer), entry.place), "R8: entry {id}");
            assert_eq!(row.number.unwrap_or_default(), entry.number, "R8: entry {id}");
            let until = (entry.place == Place::Admitted).then_some(entry.session_until);
            assert_eq!(row.session_until, until, "R8: entry {id}");
        }
    }
    assert_eq!(rows.entries.len(), count, "R8: entries");
}

impl Sink for Tables {
    async fn position(&mut self) -> Result<Stamp, SinkError> {
        let stored = self.stored();
        if stored.away == Away::Before {
            return Err(SinkError::Away("away".into()));
        }
        Ok(stored.position)
    }

    async fn buyers(
        &mut self,
        entries: &[EntryKey],
    ) -> Result<Vec<(EntryKey, BuyerId)>, SinkError> {
        let stored = self.stored();
        let of = |key: &EntryKey| Some((*key, stored.rows.entries.get(key)?.buyer?));
        Ok(entries.iter().filter_map(of).collect())
    }

    async fn write(&mut self, from: Stamp, to: Stamp, rows: &Rows) -> Result<(), SinkError> {
        let mut stored = self.stored();
        if stored.away == Away::Before {
            return Err(SinkError::Away("away".into()));
        }
        if stored.position != from {
            return Err(SinkError::AnotherWriter);
        }
        stored.position = to;
        let into = &mut stored.rows;
        merge(&mut into.holds, &rows.holds, merge_hold);
        merge(&mut into.orders, &rows.orders, merge_order);
        merge(&mut into.tickets, &rows.tickets, merge_ticket);
        merge(&mut into.entries, &rows.entries, merge_entry);
        match stored.away {
            Away::After => Err(SinkError::Away("away".into())),
            _ => Ok(()),
        }
    }
}

fn merge<K: Copy + Ord, R: Clone>(
    into: &mut BTreeMap<K, R>,
    rows: &BTreeMap<K, R>,
    update: impl Fn(&mut R, &R),
) {
    for (key, new) in rows {
        into.entry(*key).and_modify(|row| update(row, new)).or_insert_with(|| new.clone());
    }
}

fn merge_hold(row: &mut HoldRow, new: &HoldRow) {
    if new.stamp > row.stamp {
        row.state = new.state;
        row.seats = new.seats.or(row.seats);
        row.created_at = new.created_at.or(row.created_at);
        row.deadline = new.deadline.or(row.deadline);
        row.stamp = new.stamp;
    }
}

fn merge_order(row: &mut OrderRow, new: &OrderRow) {
    if new.stamp > row.stamp {
        row.refunded = new.refunded;
        row.confirmed_at = new.confirmed_at.or(row.confirmed_at);
        row.refunded_at = new.refunded_at.or(row.refunded_at);
        row.stamp = new.stamp;
    }
}

fn merge_ticket(row: &mut TicketRow, new: &TicketRow) {
    if new.stamp > row.stamp {
        (row.refunded, row.stamp) = (new.refunded, new.stamp);
    }
}

fn merge_entry(row: &mut EntryRow, new: &EntryRow) {
    if new.stamp > row.stamp {
        let (buyer, number) = (new.buyer.or(row.buyer), new.number.or(row.number));
        *row = EntryRow { buyer, number, ..new.clone() };
    }
}

/// Names of the one house there is.
#[derive(Clone)]
pub(crate) struct OneHouse(pub(crate) Arc<House>);

impl Names for OneHouse {
    async fn house(&mut self, _: ShowtimeId) -> Result<Arc<House>, NamesError> {
        Ok(Arc::clone(&self.0))
    }
}

/// The journal, into which a node that was overtaken writes now and then.
pub(crate) struct Haunted {
    pub(crate) journal: JournalSource,
    pub(crate) zombie: Arc<Mutex<bool>>,
    pub(crate) last: Option<Record>,
}

impl Source for Haunted {
    fn seek(&mut self, after: Stamp) -> Result<(), SourceError> {
        self.last = None;
        self.journal.seek(after)
    }

    fn next(&mut self) -> Result<Option<Record>, SourceError> {
        let haunts = std::mem::take(&mut *self.zombie.lock().expect("no test panics within"));
        if haunts
            && let Some(last) = &self.last
            && last.epoch > Epoch(1)
        {
            return Ok(Some(zombie(last)));
        }
        let next = self.journal.next()?;
        self.last = next.clone().or(self.last.take());
        Ok(next)
    }

    fn written(&mut self, position: Seq) {
        self.journal.written(position);
    }
}

/// What the node before would have written next: the last record again, in an ended reign.
pub(crate) fn zombie(last: &Record) -> Record {
    let mut zombie = last.clone();
    let count = zombie.batch.events.len() as u64;
    zombie.epoch = Epoch(last.epoch.0 - 1);
    zombie.batch.events.iter_mut().for_each(|words| words[0] += count);
    zombie.batch.blobs.iter_mut().for_each(|(seq, _)| seq.0 += count);
    zombie
}
