//! The checks, one function a promise.

use std::collections::{BTreeMap, HashMap};

use super::check_line::{check_line, rising};
use super::ownership::{Ownership, Tries, ghosts, owners, sorted};
use super::{Call, Fault, Instant, Kind, NEVER, Record, Reply, Terms};

/// Everything in `records` that cannot be; empty if all of it can.
///
/// The records are of one showtime, in any order. Nobody else bought, blocked or changed
/// anything there.
pub(crate) fn check(records: &[Record], terms: Terms) -> Vec<Fault> {
    let tries = Tries::of(records);
    let owners = owners(records, &tries);
    let by_order = |owner| Some((Ownership::order(owner)?, owner));
    let house = House {
        ghosts: ghosts(records, &tries),
        by_seat: by_seat(&owners),
        by_order: owners.values().filter_map(by_order).collect(),
        owners: &owners,
    };
    let mut faults = Faults::default();
    check_seats_once(&house, &mut faults);
    check_limit(&house, terms, &mut faults);
    check_keys(records, &mut faults);
    check_sequence(records, &tries, &house, &mut faults);
    for record in records {
        check_record(record, &house, &mut faults);
    }
    check_line(records, &mut faults);
    faults.0
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, kind: Kind, what: String) {
        self.0.push(Fault { kind, what });
    }
}

struct House<'a> {
    owners: &'a BTreeMap<String, Ownership>,
    by_seat: HashMap<&'a str, Vec<&'a Ownership>>,
    by_order: HashMap<&'a str, &'a Ownership>,
    ghosts: Vec<(Vec<String>, Instant)>,
}

impl House<'_> {
    fn owners_of(&self, seat: &str) -> impl Iterator<Item = &Ownership> {
        self.by_seat.get(seat).into_iter().flatten().copied()
    }

    fn ghost_has(&self, seat: &str, until: Instant) -> bool {
        // A wish for the best seats can have had any.
        let has = |seats: &[String]| {
            seats.is_empty() || seats.binary_search_by(|s| s.as_str().cmp(seat)).is_ok()
        };
        self.ghosts.iter().any(|(seats, sent)| *sent <= until && has(seats))
    }

    /// Whether anybody can have had the seat at some instant between the two.
    fn possibly_taken(&self, seat: &str, from: Instant, to: Instant) -> bool {
        self.owners_of(seat).any(|owner| owner.possibly_within(from, to))
            || self.ghost_has(seat, to)
    }
}

fn by_seat(owners: &BTreeMap<String, Ownership>) -> HashMap<&str, Vec<&Ownership>> {
    let mut by_seat: HashMap<&str, Vec<&Ownership>> = HashMap::new();
    for owner in owners.values() {
        for seat in &owner.seats {
            by_seat.entry(seat).or_default().push(owner);
        }
    }
    by_seat
}

/// R1: no two owners surely have one seat at one instant.
fn check_seats_once(house: &House, faults: &mut Faults) {
    for (seat, owners) in &house.by_seat {
        let mut owners: Vec<&Ownership> = owners.clone();
        owners.retain(|owner| owner.surely().0 < owner.surely().1);
        owners.sort_by_key(|owner| owner.surely().0);
        let mut longest: Option<&Ownership> = None;
        for owner in owners {
            if let Some(before) = longest.filter(|before| owner.surely().0 < before.surely().1) {
                let what = format!("{seat} by {before:?} and by {owner:?}");
                faults.add(Kind::SeatTwice, what);
            }
            let longer = longest.is_none_or(|before| before.surely().1 < owner.surely().1);
            longest = if longer { Some(owner) } else { longest };
        }
    }
}

/// R5: the seats that a buyer surely has at one instant are within the limit.
fn check_limit(house: &House, terms: Terms, faults: &mut Faults) {
    let mut steps: BTreeMap<u64, Vec<(Instant, i64)>> = BTreeMap::new();
    for owner in house.owners.values() {
        let (from, until) = owner.surely();
        if from < until {
            let seats = owner.seats.len() as i64;
            steps.entry(owner.buyer).or_default().extend([(from, seats), (until, -seats)]);
        }
    }
    for (buyer, mut steps) in steps {
        // At one instant what ends goes before what begins.
        steps.sort_unstable();
        let mut used = 0;
        for (at, change) in steps {
            used += change;
            if used > terms.limit as i64 {
                let what = format!("buyer {buyer} has {used} at {at}");
                faults.add(Kind::OverLimit, what);
                break;
            }
        }
    }
}

/// R3: one key has one outcome, and one outcome one key.
fn check_keys(records: &[Record], faults: &mut Faults) {
    let mut outcomes: HashMap<(u64, &str), &str> = HashMap::new();
    let mut keys: HashMap<&str, (u64, &str)> = HashMap::new();
    let mut orders: HashMap<&str, &str> = HashMap::new();
    for record in records {
        let outcome = match (&record.call, &record.reply) {
            (Call::Hold { .. }, Reply::Held { hold, .. }) => hold,
            (Call::Confirm { hold }, Reply::Confirmed { order, .. }) => {
                if orders.insert(hold, order).is_some_and(|before| before != order) {
                    faults.add(Kind::KeyTwice, format!("{hold} became two orders: {record:?}"));
                }
                continue;
            }
            _ => continue,
        };
        let Some(key) = &record.key else { continue };
        let name = (record.buyer, key.as_str());
        if outcomes.insert(name, outcome).is_some_and(|before| before != outcome) {
            faults.add(Kind::KeyTwice, format!("key {key} made two holds: {record:?}"));
        }
        if keys.insert(outcome, name).is_some_and(|before| before != name) {
            faults.add(Kind::KeyTwice, format!("{outcome} was given to two keys: {record:?}"));
        }
    }
}

/// R6: who was answered before another asked has the smaller number, and no two have one.
fn check_sequence(records: &[Record], tries: &Tries, house: &House, faults: &mut Faults) {
    let mut decisions = BTreeMap::new();
    for record in records {
        let (what, sent, seq) = match (&record.call, &record.reply) {
            (Call::Hold { .. }, Reply::Held { hold, seq, .. }) => {
                (format!("held {hold}"), tries.first_sent(record), *seq)
            }
            (Call::Confirm { hold }, Reply::Confirmed { seq, .. }) => {
                let sent = house.owners.get(hold).map_or(record.sent, |owner| owner.confirm.0);
                (format!("confirmed {hold}"), sent, *seq)
            }
            (Call::Refund { order }, Reply::Done { seq: Some(seq) }) => {
                (format!("refunded {order}"), 0, *seq)
            }
            _ => continue,
        };
        let decision = decisions.entry(what).or_insert((sent, record.got, seq));
        decision.0 = decision.0.min(sent);
        decision.1 = decision.1.min(record.got);
        if decision.2 != seq {
            faults.add(Kind::SeqBack, format!("{seq:?} after {:?}: {record:?}", decision.2));
        }
    }
    let decisions = decisions.into_iter().map(|(what, (sent, got, seq))| (sent, got, seq, what));
    for (first, second) in rising(decisions.collect()) {
        faults.add(Kind::SeqBack, format!("{first}, then {second}"));
    }
}

/// What one reply says by itself, beside what was surely or possibly so while it was made.
fn check_record(record: &Record, house: &House, faults: &mut Faults) {
    match (&record.call, &record.reply) {
        (Call::Hold { seats: asked, .. }, Reply::Held { seats, .. })
            if !asked.is_empty() && sorted(asked) != sorted(seats) =>
        {
            faults.add(Kind::WrongSeats, format!("{record:?}"));
        }
        (Call::Hold { seats, .. }, Reply::Refused { code, conflicts })
            if code == "seat-unavailable" =>
        {
            check_refusal(record, seats, conflicts, house, faults);
        }
        (Call::Confirm { hold }, Reply::Confirmed { seats, .. }) => {
            let owner = house.owners.get(hold);
            if owner.is_some_and(|owner| owner.seats != sorted(seats)) {
                faults.add(Kind::WrongSeats, format!("{record:?}"));
            }
        }
        (Call::Confirm { hold } | Call::Release { hold }, Reply::Refused { code, .. }) => {
            let state = match code.as_str() {
                "hold-expired" => "expired",
                "hold-released" => "released",
                "hold-confirmed" => "confirmed",
                "not-found" => "none",
                _ => return,
            };
            check_hold(record, hold, state, house, faults);
        }
        (Call::ReadHold { hold }, Reply::State { state, seats }) => {
            let owner = house.owners.get(hold);
            if owner.is_some_and(|owner| owner.seats != sorted(seats)) {
                faults.add(Kind::LostHold, format!("other seats: {record:?}"));
            }
            check_hold(record, hold, state, house, faults);
        }
        (Call::ReadHold { hold }, Reply::Refused { code, .. }) if code == "not-found" => {
            check_hold(record, hold, "none", house, faults);
        }
        (Call::ReadOrder { order }, Reply::State { state, seats }) => {
            check_order(record, order, Some((state, seats)), house, faults);
        }
        (Call::ReadOrder { order } | Call::Refund { order }, Reply::Refused { code, .. })
            if code == "not-found" =>
        {
            check_order(record, order, None, house, faults);
        }
        (Call::ReadMap, Reply::Map(seats)) => {
            for (seat, letter) in seats {
                check_seat(record, seat, *letter, house, faults);
            }
        }
        _ => {}
    }
}

/// R10: each conflict is a seat of the request that somebody can have had.
fn check_refusal(
    record: &Record,
    asked: &[String],
    conflicts: &[(String, String)],
    house: &House,
    faults: &mut Faults,
) {
    let foreign = |seat: &String| !asked.is_empty() && !asked.contains(seat);
    let justified = conflicts.iter().all(|(seat, state)| {
        let (from, to) = (record.sent, record.got);
        let sold = || house.owners_of(seat).any(|owner| owner.possibly_sold_within(from, to));
        let possible = if state == "sold" { sold() } else { house.possibly_taken(seat, from, to) };
        possible && !foreign(seat)
    });
    if conflicts.is_empty() || !justified {
        faults.add(Kind::Unjustified, format!("{record:?}"));
    }
}

/// Whether the hold can be in `state` ("none": there is no such hold) during the call.
fn check_hold(record: &Record, hold: &str, state: &str, house: &House, faults: &mut Faults) {
    let Some(owner) = house.owners.get(hold) else { return };
    if record.sent < owner.made.1 {
        return;
    }
    let confirmed = owner.confirm.1 <= record.sent;
    let possible = match state {
        "active" => !confirmed && owner.release.1 > record.sent,
        "expired" => !confirmed && record.got >= owner.deadline_least,
        "released" => !confirmed && owner.release.0 < record.got,
        "confirmed" => owner.confirm.0 < record.got,
        _ => false,
    };
    if !possible {
        let kind = if confirmed { Kind::LostOrder } else { Kind::LostHold };
        faults.add(kind, format!("{state}: {record:?} but {owner:?}"));
    }
}

/// Whether the order can be as the reply says; `None`: there is no such order.
fn check_order(
    record: &Record,
    order: &str,
    read: Option<(&String, &Vec<String>)>,
    house: &House,
    faults: &mut Faults,
) {
    let owner = house.by_order.get(order);
    let Some(owner) = owner.filter(|owner| owner.confirm.1 <= record.sent) else { return };
    let possible = read.is_some_and(|(state, seats)| {
        let state = match state.as_str() {
            "confirmed" => owner.refund.1 == NEVER || owner.refund.1 > record.sent,
            "refunded" => owner.refund.0 < record.got,
            _ => false,
        };
        state && owner.seats == sorted(seats)
    });
    if !possible {
        faults.add(Kind::LostOrder, format!("{record:?} but {owner:?}"));
    }
}

/// Whether the seat can have had this letter during the call.
fn check_seat(record: &Record, seat: &str, letter: char, house: &House, faults: &mut Faults) {
    let (from, to) = (record.sent, record.got);
    let sold = house.owners_of(seat).find(|owner| owner.surely_sold_through(from, to));
    let held = house.owners_of(seat).find(|owner| owner.surely_through(from, to));
    let possible = match letter {
        'f' => held.is_none(),
        'h' => sold.is_none() && house.possibly_taken(seat, from, to),
        's' => house.owners_of(seat).any(|owner| owner.possibly_sold_within(from, to)),
        _ => false,
    };
    if !possible {
        let what = format!("{seat} is {letter} from {from} to {to}: {:?}", sold.or(held));
        faults.add(Kind::WrongMap, what);
    }
}
