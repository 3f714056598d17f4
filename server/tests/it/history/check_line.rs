//! The checks of the line's numbers, and of anything else that must rise.

use std::collections::BTreeMap;

use super::check::Faults;
use super::{Call, Instant, Kind, NEVER, Record, Reply};

/// R4 and the line's half of R2: numbers are given once, in the order of the joins, and kept.
pub(crate) fn check_line(records: &[Record], faults: &mut Faults) {
    let mut buyers: BTreeMap<u64, Vec<&Record>> = BTreeMap::new();
    for record in records {
        if matches!(record.call, Call::Join | Call::Leave | Call::ReadNumber) {
            buyers.entry(record.buyer).or_default().push(record);
        }
    }
    let mut given: BTreeMap<u64, u64> = BTreeMap::new();
    let mut joins = Vec::new();
    for (buyer, mut records) in buyers {
        records.sort_by_key(|record| record.sent);
        check_kept(&records, faults);
        for (number, (sent, got)) in numbers(&records) {
            if let Some(other) = given.insert(number, buyer) {
                let what = format!("{number} to buyer {other} and to buyer {buyer}");
                faults.add(Kind::NumberTwice, what);
            }
            joins.push((sent, got, number, format!("{number} to buyer {buyer}")));
        }
    }
    // Equal numbers are reported above already.
    for (first, second) in rising(joins) {
        faults.add(Kind::NumberJumped, format!("{first}, then {second}"));
    }
}

/// Every number of one buyer, with the first instant at which it can have been given and the
/// first at which it was known.
fn numbers(records: &[&Record]) -> BTreeMap<u64, (Instant, Instant)> {
    let mut numbers = BTreeMap::new();
    for record in records {
        let Reply::Number(number) = record.reply else { continue };
        let known = numbers.entry(number).or_insert((NEVER, NEVER));
        known.1 = record.got.min(known.1);
        let may_have_given = |r: &&&Record| {
            r.call == Call::Join && matches!(r.reply, Reply::Unknown | Reply::Number(_))
        };
        let joins = records.iter().filter(may_have_given);
        let joins = joins.filter(|r| r.reply == Reply::Unknown || r.reply == record.reply);
        known.0 = joins.map(|r| r.sent).min().unwrap_or(NEVER).min(known.0);
    }
    numbers
}

/// What one buyer was told about his number stays true until he leaves.
fn check_kept(records: &[&Record], faults: &mut Faults) {
    for (i, before) in records.iter().enumerate() {
        let Reply::Number(number) = before.reply else { continue };
        let says = |r: &&&Record| match &r.reply {
            Reply::Number(_) => true,
            Reply::Refused { code, .. } => code == "not-in-line",
            _ => false,
        };
        // The next that says anything is enough: it is compared with its next in turn.
        let mut later = records[i + 1..].iter().filter(|r| r.sent >= before.got);
        let Some(after) = later.find(says) else { continue };
        let left =
            |r: &&&Record| r.call == Call::Leave && r.sent < after.got && r.got > before.sent;
        if records.iter().any(|r| left(&r)) {
            continue;
        }
        if after.reply != Reply::Number(number) {
            faults.add(Kind::LostNumber, format!("{before:?}, then {after:?}"));
        }
    }
}

/// Pairs of which the second was asked for after the first was answered and does not have the
/// greater rank; and pairs of one rank. Items are (sent, got, rank, name).
pub(crate) fn rising<R: Copy + Ord>(
    mut items: Vec<(Instant, Instant, R, String)>,
) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    items.sort_by_key(|item| item.2);
    for pair in items.windows(2) {
        if pair[0].2 == pair[1].2 {
            wrong.push((pair[0].3.clone(), pair[1].3.clone()));
        }
    }
    // In the order of the calls, with the greatest rank of those that were answered before.
    let mut answered: Vec<&(Instant, Instant, R, String)> = items.iter().collect();
    answered.sort_by_key(|item| item.1);
    let mut answered = answered.into_iter().peekable();
    let mut asked: Vec<&(Instant, Instant, R, String)> = items.iter().collect();
    asked.sort_by_key(|item| item.0);
    let mut greatest: Option<&(Instant, Instant, R, String)> = None;
    for item in asked {
        while let Some(before) = answered.next_if(|before| before.1 < item.0) {
            if greatest.is_none_or(|greatest| greatest.2 < before.2) {
                greatest = Some(before);
            }
        }
        if let Some(before) = greatest.filter(|before| before.2 > item.2) {
            wrong.push((before.3.clone(), item.3.clone()));
        }
    }
    wrong
}
