//! A made-up log and, written independently of the fold, what its rows must be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tmomi_engine::event::{
    Batch, Body, Event, LeaveReason, LineSettings, PARTS_PER_MORE, Standing,
};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq,
    ShowtimeId, TimeMs,
};
use tmomi_engine::layout::Layout;
use tmomi_persist::plan::Plan;
use tmomi_persist::writer::Record;

/// The plan that every made-up showtime has: rows of two blocks, and a floor.
pub(crate) fn plan() -> Plan {
    Plan::from_value(&json!({"generate": {"sections": [
        {"name": "A", "tier": "R", "rows": 6, "seats_per_row": 70},
        {"name": "F", "tier": "S", "places": 400},
    ]}}))
    .unwrap()
}

/// Price of a seat by its name.
fn price(seat: &str) -> (&'static str, u64) {
    if seat.starts_with("A-") { ("R", 150_000) } else { ("S", 90_000) }
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// One decision in words, as the model of the rows understands it.
#[derive(Clone, Debug)]
enum Deed {
    Entry {
        showtime: u32,
        entry: u32,
        buyer: Option<u64>,
        number: Option<u32>,
        place: &'static str,
        until: Option<u64>,
    },
    Hold {
        id: HoldId,
        showtime: u32,
        entry: u32,
        seats: Vec<String>,
        deadline: u64,
    },
    Deadline {
        id: HoldId,
        deadline: u64,
    },
    Outcome {
        id: HoldId,
        state: &'static str,
        payment: Option<String>,
        buyer: u64,
    },
    Nothing,
}

struct Hold {
    id: HoldId,
    showtime: u32,
    entry: u32,
    seats: Vec<String>,
    confirmed: bool,
}

/// A log that grows by dice.
pub(crate) struct MadeUp {
    pub(crate) records: Vec<Record>,
    deeds: Vec<(Seq, u64, u32, Deed)>,
    plan: Plan,
    layout: Layout,
    free: BTreeMap<u32, BTreeSet<String>>,
    entries: BTreeMap<(u32, u32), u64>,
    holds: Vec<Hold>,
    batch: Batch,
    epoch: u32,
    seq: u64,
    at: u64,
    numbers: u32,
}

impl MadeUp {
    pub(crate) fn new() -> MadeUp {
        let plan = plan();
        let layout = Layout::build(plan.spec()).unwrap();
        let mut seats = BTreeSet::new();
        (1..=6).for_each(|row| seats.extend((1..=70).map(|n| format!("A-{row}-{n}"))));
        seats.extend((1..=400).map(|n| format!("F-{n}")));
        MadeUp {
            records: Vec::new(),
            deeds: Vec::new(),
            plan,
            layout,
            free: BTreeMap::from([(1, seats.clone()), (2, seats)]),
            entries: BTreeMap::new(),
            holds: Vec::new(),
            batch: Batch::default(),
            epoch: 0,
            seq: 0,
            at: 1_900_000_000_000,
            numbers: 0,
        }
    }

    /// The last event so far.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.seq)
    }

    /// Adds some records of some decisions each.
    pub(crate) fn grow(&mut self, dice: &mut Dice, records: usize) {
        for _ in 0..records {
            if self.epoch == 0 || dice.below(10) == 0 {
                self.epoch += 1;
                let body = Body::EpochStart { epoch: Epoch(self.epoch), node: 1 };
                self.decide(0, body, &[], Deed::Nothing);
            }
            for _ in 0..1 + dice.below(12) {
                self.at += dice.below(50);
                self.deed(dice);
            }
            if self.batch.events.is_empty() {
                self.deed_that_never_fails();
            }
            let batch = std::mem::take(&mut self.batch);
            self.records.push(Record { epoch: Epoch(self.epoch), batch });
        }
    }

    fn deed_that_never_fails(&mut self) {
        let body = Body::LineSet(LineSettings::default());
        self.decide(1, body, &[], Deed::Nothing);
    }

    fn deed(&mut self, dice: &mut Dice) {
        let showtime = 1 + dice.below(2) as u32;
        match dice.below(12) {
            0..=2 => self.enter(dice, showtime),
            3 => self.stand(dice),
            4..=7 => self.hold(dice, showtime),
            8 => self.deed_that_never_fails(),
            _ => self.end_hold(dice),
        }
    }

    fn enter(&mut self, dice: &mut Dice, showtime: u32) {
        let entry = dice.below(40) as u32;
        let known = self.entries.get(&(showtime, entry)).copied();
        let buyer = known.unwrap_or_else(|| 1_000 + self.entries.len() as u64);
        self.entries.insert((showtime, entry), buyer);
        let (entry_id, buyer_id) = (EntryId(entry), BuyerId(buyer));
        if known.is_none() && dice.below(2) == 0 {
            let body = Body::Buyer { entry: entry_id, buyer: buyer_id };
            let (place, number, until) = ("out", None, None);
            let deed = Deed::Entry { showtime, entry, buyer: Some(buyer), number, place, until };
            return self.decide(showtime, body, &[], deed);
        }
        self.numbers += 1;
        let number = LineNumber(self.numbers);
        let key = RequestKey { hash: dice.below(9), fingerprint: 7 };
        let body = Body::Joined { entry: entry_id, buyer: buyer_id, number, key };
        let (place, number) = ("waiting", Some(number.0));
        let deed = Deed::Entry { showtime, entry, buyer: Some(buyer), number, place, until: None };
        self.decide(showtime, body, &[], deed);
    }

    fn stand(&mut self, dice: &mut Dice) {
        let Some(nth) = self.entries.len().checked_sub(1) else { return };
        let nth = dice.below(nth as u64 + 1) as usize;
        let (showtime, entry) = *self.entries.keys().nth(nth).unwrap();
        let (entry_id, number) = (EntryId(entry), LineNumber(dice.below(99) as u32 + 1));
        let (was, until) = (Standing::Waiting, TimeMs(self.at + 600_000));
        let left = |reason| Body::Left { entry: entry_id, number, was, reason };
        let (body, place, until) = match dice.below(4) {
            0 => (left(LeaveReason::Asked), "out", None),
            1 => (left(LeaveReason::SessionOver), "expired", None),
            2 => (Body::Passed { entry: entry_id, number }, "passed", None),
            _ => (Body::Admitted { entry: entry_id, number, until }, "admitted", Some(until.0)),
        };
        let number = Some(number.0);
        let deed = Deed::Entry { showtime, entry, buyer: None, number, place, until };
        self.decide(showtime, body, &[], deed);
    }

    fn hold(&mut self, dice: &mut Dice, showtime: u32) {
        let entries: Vec<u32> =
            self.entries.keys().filter(|key| key.0 == showtime).map(|key| key.1).collect();
        if entries.is_empty() {
            return;
        }
        let entry = entries[dice.below(entries.len() as u64) as usize];
        let free = self.free.get_mut(&showtime).unwrap();
        let count = if dice.below(8) == 0 { 60 } else { 1 + dice.below(6) };
        let mut seats: Vec<String> = Vec::new();
        for _ in 0..count.min(free.len() as u64) {
            let nth = dice.below(free.len() as u64) as usize;
            let seat = free.iter().nth(nth).unwrap().clone();
            free.remove(&seat);
            seats.push(seat);
        }
        if seats.is_empty() {
            return;
        }
        let (parts, ttl_ms) = (self.parts(&seats), 300_000);
        let id = HoldId { slot: HoldSlot(dice.below(9) as u32), seq: Seq(self.seq + 1) };
        let body = Body::Held {
            slot: id.slot,
            entry: EntryId(entry),
            ttl_ms,
            first: parts[0],
            key: RequestKey::NONE,
        };
        let deadline = self.at + u64::from(ttl_ms);
        let deed = Deed::Hold { id, showtime, entry, seats: seats.clone(), deadline };
        self.decide(showtime, body, &parts[1..], deed);
        self.holds.push(Hold { id, showtime, entry, seats, confirmed: false });
    }

    fn end_hold(&mut self, dice: &mut Dice) {
        let Some(last) = self.holds.len().checked_sub(1) else { return };
        let nth = dice.below(last as u64 + 1) as usize;
        let Hold { id: hold, showtime, entry, ref seats, confirmed } = self.holds[nth];
        let parts = self.parts(seats);
        let (first, key, entry) = (parts[0], RequestKey::NONE, EntryId(entry));
        let buyer = self.entries[&(showtime, entry.0)];
        let outcome = |state| Deed::Outcome { id: hold, state, payment: None, buyer };
        let kind = dice.below(5);
        if !confirmed && kind == 0 {
            let deadline = self.at + 7_000;
            let body = Body::Extended { hold, entry, first, ttl_ms: 7_000 };
            return self.decide(showtime, body, &parts[1..], Deed::Deadline { id: hold, deadline });
        }
        if !confirmed && kind <= 2 {
            self.holds[nth].confirmed = true;
            let body = Body::Confirmed { hold, entry, first, key };
            let payment = (dice.below(2) == 0).then(|| format!("결제-{}", hold.seq));
            if let Some(payment) = &payment {
                self.batch.blobs.push((Seq(self.seq + 1), payment.as_bytes().into()));
            }
            let deed = Deed::Outcome { id: hold, state: "confirmed", payment, buyer };
            return self.decide(showtime, body, &parts[1..], deed);
        }
        let (body, state) = match (confirmed, kind) {
            (true, _) => (Body::Refunded { hold, entry, first, key }, "refunded"),
            (false, 3) => (Body::Released { hold, entry, first }, "released"),
            (false, _) => (Body::Expired { hold, entry, first }, "expired"),
        };
        self.decide(showtime, body, &parts[1..], outcome(state));
        let hold = self.holds.swap_remove(nth);
        self.free.get_mut(&showtime).unwrap().extend(hold.seats);
    }

    fn parts(&self, seats: &[String]) -> Vec<Part> {
        let mut masks: BTreeMap<BlockIndex, u64> = BTreeMap::new();
        for seat in seats {
            let seat = self.plan.seat(&self.layout, seat).unwrap();
            *masks.entry(seat.block()).or_default() |= 1 << seat.bit();
        }
        masks.into_iter().map(|(block, mask)| Part { block, mask }).collect()
    }

    /// Writes the events of one decision.
    fn decide(&mut self, showtime: u32, body: Body, more: &[Part], deed: Deed) {
        let mut bodies = vec![body];
        for parts in more.chunks(PARTS_PER_MORE) {
            let mut three = [Part::default(); PARTS_PER_MORE];
            three[..parts.len()].copy_from_slice(parts);
            bodies.push(Body::More { parts: three });
        }
        let last = bodies.len() - 1;
        for (n, body) in bodies.into_iter().enumerate() {
            self.seq += 1;
            let has_blob = n == 0 && self.batch.blobs.last().is_some_and(|b| b.0.0 == self.seq);
            let event = Event {
                seq: Seq(self.seq),
                at: TimeMs(self.at),
                showtime: ShowtimeId(showtime),
                more_follows: n < last,
                has_blob,
                body,
            };
            self.batch.events.push(event.pack());
        }
        self.deeds.push((Seq(self.seq), self.at, self.epoch, deed));
    }

    /// The rows that events 1 to `upto` add up to, as text.
    pub(crate) fn rows(&self, upto: Seq) -> Vec<String> {
        let mut rows = Expected::default();
        for (seq, at, epoch, deed) in self.deeds.iter().filter(|(seq, ..)| *seq <= upto) {
            rows.add(format!("{epoch}-{seq}"), *at, deed);
        }
        rows.text()
    }
}

type Nullable = Option<u64>;

/// The rows of the model. Fields are in the order of the tables' columns.
#[derive(Default)]
struct Expected {
    entries: BTreeMap<(u32, u32), ExpectedEntry>,
    holds: BTreeMap<u64, ExpectedHold>,
}

/// Buyer, number, place, end of the session, time of the change, number of the event.
type ExpectedEntry = (Nullable, Nullable, &'static str, Nullable, u64, String);

struct ExpectedHold {
    slot: u32,
    showtime: u32,
    entry: u32,
    seats: Vec<String>,
    state: &'static str,
    created: u64,
    deadline: u64,
    buyer: u64,
    payment: Option<String>,
    confirmed: Nullable,
    refunded: Nullable,
    stamp: String,
}

impl Expected {
    fn add(&mut self, stamp: String, at: u64, deed: &Deed) {
        match deed {
            Deed::Nothing => {}
            Deed::Entry { showtime, entry, buyer, number, place, until } => {
                let row = self.entries.entry((*showtime, *entry)).or_default();
                let number = number.map(u64::from).or(row.1);
                *row = (buyer.or(row.0), number, place, *until, at, stamp);
            }
            Deed::Hold { id, showtime, entry, seats, deadline } => {
                let hold = ExpectedHold {
                    slot: id.slot.0,
                    showtime: *showtime,
                    entry: *entry,
                    seats: seats.clone(),
                    state: "active",
                    created: at,
                    deadline: *deadline,
                    buyer: 0,
                    payment: None,
                    confirmed: None,
                    refunded: None,
                    stamp,
                };
                self.holds.insert(id.seq.0, hold);
            }
            Deed::Deadline { id, deadline } => {
                let hold = self.holds.get_mut(&id.seq.0).unwrap();
                (hold.deadline, hold.stamp) = (*deadline, stamp);
            }
            Deed::Outcome { id, state, payment, buyer } => {
                let hold = self.holds.get_mut(&id.seq.0).unwrap();
                (hold.state, hold.stamp, hold.buyer) = (state, stamp, *buyer);
                match *state {
                    "confirmed" => (hold.confirmed, hold.payment) = (Some(at), payment.clone()),
                    "refunded" => hold.refunded = Some(at),
                    _ => {}
                }
            }
        }
    }

    fn text(&self) -> Vec<String> {
        let or_null = |value: &Nullable| value.map_or("null".to_owned(), |v| v.to_string());
        let mut rows = Vec::new();
        let time_or_null = |at: &Nullable| at.map_or("null".to_owned(), shown);
        for ((showtime, entry), (buyer, number, place, until, at, stamp)) in &self.entries {
            let (buyer, number, until) = (or_null(buyer), or_null(number), time_or_null(until));
            let at = shown(*at);
            rows.push(format!(
                "entry {showtime} {entry} {buyer} {number} {place} {until} {at} {stamp}"
            ));
        }
        for (seq, h) in &self.holds {
            let ExpectedHold { slot, showtime, entry, state, created, deadline, stamp, .. } = h;
            let (created, deadline) = (shown(*created), shown(*deadline));
            let seats = h.seats.len();
            // The rows carry the number of the last event of the decision.
            rows.push(format!(
                "hold {seq} {slot} {showtime} {entry} {state} {seats} {created} {deadline} {stamp}"
            ));
            if h.confirmed.is_none() {
                continue;
            }
            let total: u64 = h.seats.iter().map(|seat| price(seat).1).sum();
            let payment = h.payment.as_deref().unwrap_or("null");
            let confirmed = time_or_null(&h.confirmed);
            let refunded = time_or_null(&h.refunded);
            let about = format!("{seq} {slot} {showtime} {} {state} {total} KRW", h.buyer);
            rows.push(format!("order {about} {payment} {confirmed} {refunded} {stamp}"));
            for seat in &h.seats {
                let (tier, price) = price(seat);
                let state = if *state == "refunded" { "refunded" } else { "valid" };
                rows.push(format!("ticket {seq} {showtime} {seat} {tier} {price} {state}"));
            }
        }
        rows.sort_unstable();
        rows
    }
}

/// A time as the databases show it.
fn shown(ms: u64) -> String {
    let at = time::UtcDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
    let form = time::macros::format_description!(
        "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"
    );
    at.format(form).unwrap()
}
