//! The rows that an image says there must be, by table and in the order of the keys.

use std::collections::HashMap;
use std::sync::Arc;

use tmomi_engine::ids::{EntryId, HoldId, LineNumber, SeatAddr, Seq, ShowtimeId};
use tmomi_engine::state::Place;

use super::super::House;
use super::super::rows::{EntryRow, HoldKey, HoldOutcome, HoldRow, OrderRow, Stamp, TicketRow};
use super::super::tables::{TableRow, Value};
use super::merge::{Key, Stored};
use crate::image::{Ending, Entry, Hold, HoldView, Image, Order};

/// Names and prices, by showtime.
pub(super) type Houses = HashMap<ShowtimeId, Arc<House>>;

/// A row that there must be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: Key,
    /// What stands in its columns, in their order.
    pub(super) values: Vec<Value<'static>>,
    /// Whether the image knows the sequence of its last decision.
    pub(super) is_stamped: bool,
    /// Of an order: what the log knows its payment reference by.
    pub(super) confirmed: Option<(HoldId, Seq)>,
}

/// What an image says.
pub(super) struct Wants<'a> {
    shard: u32,
    position: Stamp,
    image: &'a Image,
    houses: &'a Houses,
    /// By the keys of their holds.
    orders: Vec<&'a Order>,
    /// The end of the first hold whose end is remembered.
    remembered_from: Option<Seq>,
}

impl<'a> Wants<'a> {
    pub(super) fn new(
        shard: u32,
        position: Stamp,
        image: &'a Image,
        houses: &'a Houses,
    ) -> Wants<'a> {
        let mut orders: Vec<&Order> = image.orders().iter().collect();
        orders.sort_unstable_by_key(|order| key(&order.hold));
        let remembered_from = image.ended_holds().next().map(|first| first.ended.seq);
        Wants { shard, position, image, houses, orders, remembered_from }
    }

    pub(super) fn holds(&self) -> impl Iterator<Item = Wanted> {
        let active = self.image.active_holds().map(HoldView::Active);
        let orders = self.orders.iter().map(|order| HoldView::Order(order));
        let ended = self.image.ended_holds().map(HoldView::Ended);
        let mut all: Vec<HoldView<'_>> = active.chain(orders).chain(ended).collect();
        all.sort_unstable_by_key(|view| key(view.hold()));
        all.into_iter().map(|view| self.hold(view))
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = Wanted> {
        self.orders.iter().map(|order| self.order(order))
    }

    pub(super) fn tickets(&self) -> impl Iterator<Item = Wanted> {
        self.orders.iter().flat_map(|order| {
            let mut seats: Vec<SeatAddr> = seats(order).collect();
            seats.sort_unstable();
            seats.into_iter().map(|seat| self.ticket(order, seat))
        })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Wanted> {
        self.image.showtimes().flat_map(move |(showtime, about)| {
            let ids = (0..about.entries().len()).map(|id| EntryId(id as u32));
            let used = ids.filter_map(|id| Some((id, about.entry(id)?)));
            used.map(move |(id, entry)| self.entry(showtime, id, entry))
        })
    }

    /// Whether a row that the image does not know is that of a hold which ended before those that
    /// the image remembers.
    pub(super) fn ended_long_ago(&self, row: &Stored) -> bool {
        let (made, changed) = (row.number("hold_seq"), row.number("sequence"));
        let before = self.remembered_from.unwrap_or(self.position.seq).0 as i64;
        let is_of_past =
            changed.is_some_and(|at| made.is_some_and(|made| made <= at) && at <= before);
        is_of_past && ["released", "expired"].iter().any(|end| row.is("state", end))
    }

    /// The stamp of a decision. Its reign is not known; it was not a later one than the position's.
    fn stamp(&self, seq: Seq) -> Stamp {
        Stamp { epoch: self.position.epoch, seq }
    }

    fn wanted<R: TableRow>(&self, key: R::Key, row: &R, is_stamped: bool) -> Wanted {
        let mut values = Vec::with_capacity(R::table().columns().count());
        row.put(self.shard, &key, &mut |value| values.push(value.into_owned()));
        Wanted { key: Key::of(R::table(), &values), values, is_stamped, confirmed: None }
    }

    fn hold(&self, view: HoldView<'_>) -> Wanted {
        let hold: &Hold = view.hold();
        let (state, ended) = match view {
            HoldView::Active(_) => (HoldOutcome::Active, None),
            HoldView::Order(Order { refunded: Some(moment), .. }) => {
                (HoldOutcome::Refunded, Some(moment.seq))
            }
            HoldView::Order(order) => (HoldOutcome::Confirmed, Some(order.confirmed.seq)),
            HoldView::Ended(ended) if ended.how == Ending::Released => {
                (HoldOutcome::Released, Some(ended.ended.seq))
            }
            HoldView::Ended(ended) => (HoldOutcome::Expired, Some(ended.ended.seq)),
        };
        let row = HoldRow {
            slot: hold.id.slot,
            entry: hold.entry,
            state,
            seats: Some(hold.seats()),
            created_at: Some(hold.created_at),
            deadline: Some(hold.deadline),
            stamp: self.stamp(ended.unwrap_or(self.position.seq)),
        };
        self.wanted(key(hold), &row, ended.is_some())
    }

    fn order(&self, order: &Order) -> Wanted {
        let (hold, house) = (&order.hold, self.house(order));
        let price = |seat: SeatAddr| house.prices[tier(house, seat)].1;
        let row = OrderRow {
            slot: hold.id.slot,
            buyer: self.image.buyer_of(hold).expect("the image has the entry of every order"),
            refunded: order.refunded.is_some(),
            total: seats(order).map(price).sum(),
            currency: house.currency.clone(),
            payment_ref: None,
            confirmed_at: Some(order.confirmed.at),
            refunded_at: order.refunded.map(|moment| moment.at),
            stamp: self.stamp(last_seq(order)),
        };
        let confirmed = Some((hold.id, order.confirmed.seq));
        Wanted { confirmed, ..self.wanted(key(hold), &row, true) }
    }

    fn ticket(&self, order: &Order, seat: SeatAddr) -> Wanted {
        let house = self.house(order);
        let (tier, price) = &house.prices[tier(house, seat)];
        let row = TicketRow {
            seat: house.plan.seat_id(&house.layout, seat),
            tier: tier.clone(),
            price: *price,
            refunded: order.refunded.is_some(),
            stamp: self.stamp(last_seq(order)),
        };
        self.wanted((order.hold.showtime, order.hold.id.seq, seat), &row, true)
    }

    fn entry(&self, showtime: ShowtimeId, id: EntryId, entry: &Entry) -> Wanted {
        let row = EntryRow {
            buyer: Some(entry.buyer),
            number: Some(entry.number).filter(|number| *number != LineNumber::NONE),
            place: entry.place,
            session_until: Some(entry.session_until).filter(|_| entry.place == Place::Admitted),
            changed_at: self.image.now(),
            stamp: self.position,
        };
        self.wanted((showtime, id), &row, false)
    }

    fn house(&self, order: &Order) -> &House {
        self.houses.get(&order.hold.showtime).expect("the houses of all orders were found")
    }
}

fn key(hold: &Hold) -> HoldKey {
    (hold.showtime, hold.id.seq)
}

fn seats(order: &Order) -> impl Iterator<Item = SeatAddr> {
    order.hold.parts().iter().flat_map(|part| part.seats())
}

fn tier(house: &House, seat: SeatAddr) -> usize {
    usize::from(house.layout.block(seat.block()).tier.0)
}

fn last_seq(order: &Order) -> Seq {
    order.refunded.unwrap_or(order.confirmed).seq
}
