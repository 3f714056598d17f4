//! Who had which seats from when to when, as far as the clients can know.

use std::collections::{BTreeMap, HashMap};

use super::{Call, Instant, NEVER, Record, Reply};

/// The server counts in whole milliseconds: a deadline may be this much, in microseconds, before
/// the one that the client reckons.
const CLOCK_SLACK_US: Instant = 2_000;

/// When the first call with a key was sent: of several tries any one may be the one that counts.
pub(crate) struct Tries<'a>(HashMap<(u64, &'a str), Instant>);

impl<'a> Tries<'a> {
    pub(crate) fn of(records: &'a [Record]) -> Tries<'a> {
        let mut first = HashMap::new();
        for record in records {
            if let Some(key) = &record.key {
                let sent = first.entry((record.buyer, key.as_str())).or_insert(NEVER);
                *sent = record.sent.min(*sent);
            }
        }
        Tries(first)
    }

    /// The earliest instant at which what `record` asks for can have been done.
    pub(crate) fn first_sent(&self, record: &Record) -> Instant {
        let key = record.key.as_deref();
        let first = key.and_then(|key| self.0.get(&(record.buyer, key)));
        first.copied().unwrap_or(record.sent)
    }
}

/// A hold and the order it may have become.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    pub(crate) buyer: u64,
    /// In ascending order.
    pub(crate) seats: Vec<String>,
    /// When it can first have been made, and when its first reply had come.
    pub(crate) made: (Instant, Instant),
    /// Its deadline is not before this.
    pub(crate) deadline_least: Instant,
    /// When the first confirm was sent and the first reply that said "confirmed" had come.
    pub(crate) confirm: (Instant, Instant),
    /// The same of a release.
    pub(crate) release: (Instant, Instant),
    /// The same of a refund.
    pub(crate) refund: (Instant, Instant),
    /// The order's id, if it was ever told.
    pub(crate) order: Option<String>,
}

impl Ownership {
    /// The order's id, if it was ever told.
    pub(crate) fn order(&self) -> Option<&str> {
        self.order.as_deref()
    }

    /// From when to when it surely had its seats; empty if the first is not below the second. A
    /// hold that was confirmed has never been free in between, whatever its deadline was.
    pub(crate) fn surely(&self) -> (Instant, Instant) {
        let held_until = self.deadline_least.min(self.release.0);
        let until = if self.confirm.1 == NEVER { held_until } else { self.refund.0 };
        (self.made.1, until)
    }

    /// Whether it surely had its seats all the time from `from` to `to`.
    pub(crate) fn surely_through(&self, from: Instant, to: Instant) -> bool {
        let surely = self.surely();
        surely.0 <= from && to < surely.1
    }

    /// Whether it can have had its seats at some instant from `from` to `to`.
    pub(crate) fn possibly_within(&self, from: Instant, to: Instant) -> bool {
        self.made.0 <= to && from <= self.release.1.min(self.refund.1)
    }

    /// Whether it can have been an order at some instant from `from` to `to`.
    pub(crate) fn possibly_sold_within(&self, from: Instant, to: Instant) -> bool {
        self.confirm.0 <= to && from <= self.refund.1
    }

    /// Whether it surely was an order all the time from `from` to `to`.
    pub(crate) fn surely_sold_through(&self, from: Instant, to: Instant) -> bool {
        self.confirm.1 <= from && to < self.refund.0
    }
}

/// Every acknowledged hold by its id.
pub(crate) fn owners(records: &[Record], tries: &Tries) -> BTreeMap<String, Ownership> {
    let mut owners = BTreeMap::new();
    for record in records {
        let (Call::Hold { ttl_ms, .. }, Reply::Held { hold, seats, .. }) =
            (&record.call, &record.reply)
        else {
            continue;
        };
        let never = (NEVER, NEVER);
        let owner: &mut Ownership = owners.entry(hold.clone()).or_insert_with(|| Ownership {
            buyer: record.buyer,
            seats: sorted(seats),
            made: never,
            deadline_least: NEVER,
            confirm: never,
            release: never,
            refund: never,
            order: None,
        });
        let sent = tries.first_sent(record);
        widen(&mut owner.made, sent, Some(record.got));
        let deadline = sent.saturating_add(ttl_ms * 1_000).saturating_sub(CLOCK_SLACK_US);
        owner.deadline_least = owner.deadline_least.min(deadline);
    }
    add_ends(records, &mut owners);
    owners
}

fn add_ends(records: &[Record], owners: &mut BTreeMap<String, Ownership>) {
    let mut hold_of_order = BTreeMap::new();
    for record in records {
        let done = matches!(record.reply, Reply::Done { .. }).then_some(record.got);
        match &record.call {
            Call::Confirm { hold } => {
                let Some(owner) = owners.get_mut(hold) else { continue };
                let mut got = None;
                if let Reply::Confirmed { order, .. } = &record.reply {
                    got = Some(record.got);
                    owner.order.get_or_insert_with(|| order.clone());
                    hold_of_order.insert(order.clone(), hold.clone());
                }
                widen(&mut owner.confirm, record.sent, got);
            }
            Call::Release { hold } => {
                let Some(owner) = owners.get_mut(hold) else { continue };
                widen(&mut owner.release, record.sent, done);
            }
            _ => {}
        }
    }
    for record in records {
        let Call::Refund { order } = &record.call else { continue };
        let done = matches!(record.reply, Reply::Done { .. }).then_some(record.got);
        let owner = hold_of_order.get(order).and_then(|hold| owners.get_mut(hold));
        if let Some(owner) = owner {
            widen(&mut owner.refund, record.sent, done);
        }
    }
}

/// The first of several tries begins it, the first good reply ends the doubt.
fn widen(step: &mut (Instant, Instant), sent: Instant, got: Option<Instant>) {
    step.0 = step.0.min(sent);
    step.1 = step.1.min(got.unwrap_or(NEVER));
}

/// Holds that may exist although nobody was ever told: their seats, and the first time they can
/// have been made.
pub(crate) fn ghosts(records: &[Record], tries: &Tries) -> Vec<(Vec<String>, Instant)> {
    let mut told = std::collections::HashSet::new();
    for record in records {
        if let (Reply::Held { .. }, Some(key)) = (&record.reply, &record.key) {
            told.insert((record.buyer, key.as_str()));
        }
    }
    let is_told = |record: &Record| {
        record.key.as_ref().is_some_and(|key| told.contains(&(record.buyer, key.as_str())))
    };
    let unknown = records.iter().filter(|r| r.reply == Reply::Unknown && !is_told(r));
    unknown
        .filter_map(|record| match &record.call {
            Call::Hold { seats, .. } => Some((sorted(seats), tries.first_sent(record))),
            _ => None,
        })
        .collect()
}

/// The same seats in ascending order.
pub(crate) fn sorted(seats: &[String]) -> Vec<String> {
    let mut seats = seats.to_vec();
    seats.sort_unstable();
    seats
}
