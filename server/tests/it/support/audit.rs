//! The audit trail of a showtime, added up by the rules of the contract alone.

use std::collections::BTreeMap;

use serde_json::Value;

use super::house::{Sale, number};

/// A position in the log: (epoch, sequence).
pub(crate) type Seq = (u32, u64);

/// `"<epoch>-<sequence>"` as a number that compares.
#[track_caller]
pub(crate) fn parse_seq(text: &str) -> Seq {
    let parts = text
        .split_once('-')
        .and_then(|(epoch, sequence)| Some((epoch.parse().ok()?, sequence.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("{text:?} is no sequence number"))
}

/// The `seq` of an answer.
#[track_caller]
pub(crate) fn seq_of(answer: &Value) -> Seq {
    parse_seq(answer["seq"].as_str().unwrap_or_else(|| panic!("no seq in {answer}")))
}

/// All events of a showtime, page by page.
pub(crate) async fn trail(sale: &Sale, page: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let path = sale.admin_path(&format!("/events?limit={page}{after}"));
        let answer = sale.admin.get(&path).await.expect(200);
        events.extend(answer["events"].as_array().expect("a list").iter().cloned());
        match &answer["next"] {
            Value::String(next) => after = format!("&after_seq={next}"),
            _ => return events,
        }
    }
}

/// What the trail says about one seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owned {
    Held { hold: String, user: u64 },
    Sold { hold: String, user: u64 },
    Blocked,
}

/// The trail added up: every seat that is not free.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) seats: BTreeMap<String, Owned>,
    /// How many events there were of each type.
    pub(crate) counts: BTreeMap<String, usize>,
}

impl Ledger {
    /// Adds events up.
    ///
    /// # Panics
    ///
    /// If a number does not rise, or a step is not one that the contract allows: a held seat held
    /// again, a confirmation of somebody else's hold, and so on.
    pub(crate) fn of(events: &[Value]) -> Ledger {
        let mut ledger = Ledger::default();
        let mut last = (0, 0);
        for event in events {
            let seq = seq_of(event);
            assert!(seq > last, "numbers rise: {last:?} then {event}");
            last = seq;
            ledger.add(event);
        }
        ledger
    }

    /// How many events of this type there were.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    fn add(&mut self, event: &Value) {
        let kind = event["type"].as_str().expect("type is text");
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        assert!(event["at"].is_string(), "every event has a time: {event}");
        let held = || Owned::Held { hold: hold_of(event), user: number(event, "user_id") };
        let sold = || Owned::Sold { hold: hold_of(event), user: number(event, "user_id") };
        match kind {
            "held" => self.step(event, None, Some(held())),
            "confirmed" => self.step(event, Some(held()), Some(sold())),
            "released" | "expired" => self.step(event, Some(held()), None),
            "refunded" => self.step(event, Some(sold()), None),
            "blocked" => self.step(event, None, Some(Owned::Blocked)),
            "unblocked" => self.step(event, Some(Owned::Blocked), None),
            "extended" => assert!(!seats(event).is_empty() && !hold_of(event).is_empty()),
            "opened" | "line_set" | "joined" | "left" | "admitted" | "passed" => {}
            other => panic!("{other} is no event type"),
        }
    }

    fn step(&mut self, event: &Value, before: Option<Owned>, after: Option<Owned>) {
        let seats = seats(event);
        assert!(!seats.is_empty(), "a seat event lists its seats: {event}");
        for seat in seats {
            assert_eq!(self.seats.get(&seat), before.as_ref(), "{seat} before {event}");
            match &after {
                Some(owned) => drop(self.seats.insert(seat, owned.clone())),
                None => drop(self.seats.remove(&seat)),
            }
        }
    }
}

fn hold_of(event: &Value) -> String {
    event["hold_id"].as_str().unwrap_or_else(|| panic!("no hold_id in {event}")).to_owned()
}

fn seats(event: &Value) -> Vec<String> {
    let seats = event["seats"].as_array().unwrap_or_else(|| panic!("no seats in {event}"));
    seats.iter().map(|seat| seat.as_str().expect("a seat id is text").to_owned()).collect()
}
