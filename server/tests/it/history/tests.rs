//! The checker is checked: each rule's bug is planted into a history that is otherwise sound.

use super::{Call, Kind, Record, Reply, Terms, check};

/// A sound history: 7 has A-1 (order), 8 had A-2 and gave it back; both are in the line.
fn sound() -> Vec<Record> {
    vec![
        join(7, (0, 10), 1),
        join(8, (20, 30), 2),
        held(7, (100, 110), "h1", &["A-1"], 1),
        held(8, (105, 120), "h2", &["A-2"], 2),
        refused(9, (115, 125), &["A-1"], ("A-1", "held")),
        confirmed(7, (200, 210), "h1", &["A-1"], 3),
        confirmed(8, (205, 220), "h2", &["A-2"], 4),
        refunded(8, (300, 310), "order-h2", 5),
        held(9, (320, 330), "h3", &["A-2"], 6),
        map((400, 410), "sh"),
        read_hold(9, (420, 430), "h3", "active", &["A-2"]),
        read_order(7, (440, 450), "order-h1", "confirmed", &["A-1"]),
        record(7, (460, 470), Call::ReadNumber, Reply::Number(1)),
    ]
}

#[track_caller]
fn finds(history: &[Record], kind: Kind) {
    let faults = check(history, Terms { limit: 2 });
    let kinds: Vec<Kind> = faults.iter().map(|fault| fault.kind).collect();
    assert!(kinds.contains(&kind), "{kind:?} is not among {faults:?}");
}

#[track_caller]
fn finds_nothing(history: &[Record]) {
    assert_eq!(check(history, Terms { limit: 2 }), []);
}

fn with(extra: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut history = sound();
    history.extend(extra);
    history
}

#[test]
fn a_sound_history_has_no_fault_in_any_order() {
    let mut history = sound();
    finds_nothing(&history);
    history.reverse();
    finds_nothing(&history);
}

#[test]
fn a_seat_sold_twice_is_found() {
    let again =
        [held(9, (500, 510), "h4", &["A-1"], 7), confirmed(9, (520, 530), "h4", &["A-1"], 8)];
    finds(&with(again.clone()), Kind::SeatTwice);
    // Unless the first was given back before, even if nobody heard the answer.
    let back = Call::Refund { order: "order-h1".to_owned() };
    let mut history = with(again);
    history.push(record(7, (480, 490), back, Reply::Unknown));
    finds_nothing(&history);
}

#[test]
fn a_seat_held_twice_is_found() {
    finds(&with([held(10, (350, 360), "h4", &["A-2"], 7)]), Kind::SeatTwice);
    // After the deadline it is nobody's.
    finds_nothing(&with([held(10, (60_000_400, 60_000_500), "h4", &["A-2"], 7)]));
}

#[test]
fn a_lost_hold_is_found() {
    let not_found = Reply::Refused { code: "not-found".to_owned(), conflicts: vec![] };
    let read = Call::ReadHold { hold: "h3".to_owned() };
    finds(&with([record(9, (500, 510), read, not_found)]), Kind::LostHold);
    finds(&with([read_hold(9, (500, 510), "h3", "expired", &["A-2"])]), Kind::LostHold);
    finds(&with([read_hold(9, (500, 510), "h3", "released", &["A-2"])]), Kind::LostHold);
    finds(&with([read_hold(9, (500, 510), "h3", "active", &["A-9"])]), Kind::LostHold);
    let late = (60_000_500, 60_000_510);
    finds_nothing(&with([read_hold(9, late, "h3", "expired", &["A-2"])]));
}

#[test]
fn a_hold_that_expires_early_is_found() {
    let confirm = Call::Confirm { hold: "h3".to_owned() };
    let reply = Reply::Refused { code: "hold-expired".to_owned(), conflicts: vec![] };
    finds(&with([record(9, (500, 510), confirm, reply)]), Kind::LostHold);
}

#[test]
fn a_lost_order_is_found() {
    let not_found = Reply::Refused { code: "not-found".to_owned(), conflicts: vec![] };
    let read = Call::ReadOrder { order: "order-h1".to_owned() };
    finds(&with([record(7, (500, 510), read, not_found)]), Kind::LostOrder);
    finds(&with([read_hold(7, (500, 510), "h1", "active", &["A-1"])]), Kind::LostOrder);
    finds(&with([map((500, 510), "fh")]), Kind::WrongMap);
    finds(&with([map((500, 510), "hh")]), Kind::WrongMap);
}

#[test]
fn a_lost_refund_is_found() {
    let read = read_order(8, (500, 510), "order-h2", "confirmed", &["A-2"]);
    finds(&with([read]), Kind::LostOrder);
    let invented = read_order(7, (500, 510), "order-h1", "refunded", &["A-1"]);
    finds(&with([invented]), Kind::LostOrder);
}

#[test]
fn a_lost_number_is_found() {
    let gone = Reply::Refused { code: "not-in-line".to_owned(), conflicts: vec![] };
    let gone = record(7, (500, 510), Call::ReadNumber, gone);
    finds(&with([gone.clone()]), Kind::LostNumber);
    finds(&with([record(7, (500, 510), Call::ReadNumber, Reply::Number(3))]), Kind::LostNumber);
    finds(&with([join(7, (500, 510), 9)]), Kind::LostNumber);
    let leave = record(7, (480, 490), Call::Leave, Reply::Unknown);
    finds_nothing(&with([leave, gone]));
}

#[test]
fn a_number_that_jumped_is_found() {
    let mut history = sound();
    history[0].reply = Reply::Number(2);
    history[1].reply = Reply::Number(1);
    history.pop();
    finds(&history, Kind::NumberJumped);
    // Joins that were under way together may have either order.
    history[0].got = 25;
    finds_nothing(&history);
}

#[test]
fn a_number_given_twice_is_found() {
    finds(&with([join(11, (25, 40), 2)]), Kind::NumberTwice);
}

#[test]
fn a_join_whose_answer_was_lost_may_have_its_number_from_the_first_try() {
    let first = record(11, (5, 15), Call::Join, Reply::Unknown);
    let mut history = with([join(12, (40, 50), 4)]);
    history.push(join(11, (60, 70), 3));
    finds(&history, Kind::NumberJumped);
    history.push(first);
    finds_nothing(&history);
}

#[test]
fn a_key_with_two_effects_is_found() {
    let mut twice = held(9, (335, 345), "h4", &["A-3"], 7);
    twice.key = Some("key-h3".to_owned());
    finds(&with([twice]), Kind::KeyTwice);
    let mut other = confirmed(7, (500, 510), "h1", &["A-1"], 3);
    if let Reply::Confirmed { order, .. } = &mut other.reply {
        *order = "another".to_owned();
    }
    finds(&with([other]), Kind::KeyTwice);
}

#[test]
fn a_buyer_over_the_limit_is_found() {
    finds(&with([held(7, (500, 510), "h4", &["A-3", "A-4"], 7)]), Kind::OverLimit);
    finds_nothing(&with([held(7, (500, 510), "h4", &["A-3"], 7)]));
}

#[test]
fn a_sequence_that_goes_back_is_found() {
    finds(&with([held(10, (500, 510), "h4", &["A-3"], 4)]), Kind::SeqBack);
    let mut epochs = with([held(10, (500, 510), "h4", &["A-3"], 2)]);
    finds(&epochs, Kind::SeqBack);
    if let Some(Reply::Held { seq, .. }) = epochs.last_mut().map(|r| &mut r.reply) {
        *seq = (2, 2);
    }
    finds_nothing(&epochs);
}

#[test]
fn a_refusal_without_a_reason_is_found() {
    let nobody = refused(10, (500, 510), &["A-3"], ("A-3", "held"));
    finds(&with([nobody]), Kind::Unjustified);
    finds(&with([refused(10, (500, 510), &["A-3"], ("A-1", "sold"))]), Kind::Unjustified);
    finds(&with([refused(10, (500, 510), &["A-2"], ("A-2", "sold"))]), Kind::Unjustified);
    let call = Call::Hold { seats: vec!["A-3".to_owned()], ttl_ms: 60_000 };
    let mut ghost = vec![record(11, (495, 520), call, Reply::Unknown)];
    ghost.push(refused(10, (500, 510), &["A-3"], ("A-3", "held")));
    finds_nothing(&with(ghost));
}

#[test]
fn half_a_hold_is_found() {
    let mut half = held(10, (500, 510), "h4", &["A-3", "A-4"], 7);
    if let Reply::Held { seats, .. } = &mut half.reply {
        seats.pop();
    }
    finds(&with([half]), Kind::WrongSeats);
}

#[test]
fn a_map_with_a_seat_that_nobody_took_is_found() {
    let seats = vec![("A-9".to_owned(), 's')];
    finds(&with([record(1, (500, 510), Call::ReadMap, Reply::Map(seats))]), Kind::WrongMap);
    let seats = vec![("A-9".to_owned(), 'h')];
    finds(&with([record(1, (500, 510), Call::ReadMap, Reply::Map(seats))]), Kind::WrongMap);
}

fn record(buyer: u64, time: (u64, u64), call: Call, reply: Reply) -> Record {
    Record { buyer, sent: time.0, got: time.1, key: None, call, reply }
}

fn seats_of(seats: &[&str]) -> Vec<String> {
    seats.iter().map(|seat| (*seat).to_owned()).collect()
}

fn join(buyer: u64, time: (u64, u64), number: u64) -> Record {
    record(buyer, time, Call::Join, Reply::Number(number))
}

fn held(buyer: u64, time: (u64, u64), hold: &str, seats: &[&str], seq: u64) -> Record {
    let call = Call::Hold { seats: seats_of(seats), ttl_ms: 60_000 };
    let reply = Reply::Held { hold: hold.to_owned(), seats: seats_of(seats), seq: (1, seq) };
    Record { key: Some(format!("key-{hold}")), ..record(buyer, time, call, reply) }
}

fn refused(buyer: u64, time: (u64, u64), seats: &[&str], conflict: (&str, &str)) -> Record {
    let call = Call::Hold { seats: seats_of(seats), ttl_ms: 60_000 };
    let conflicts = vec![(conflict.0.to_owned(), conflict.1.to_owned())];
    record(buyer, time, call, Reply::Refused { code: "seat-unavailable".to_owned(), conflicts })
}

fn confirmed(buyer: u64, time: (u64, u64), hold: &str, seats: &[&str], seq: u64) -> Record {
    let order = format!("order-{hold}");
    let reply = Reply::Confirmed { order, seats: seats_of(seats), seq: (1, seq) };
    record(buyer, time, Call::Confirm { hold: hold.to_owned() }, reply)
}

fn refunded(buyer: u64, time: (u64, u64), order: &str, seq: u64) -> Record {
    let call = Call::Refund { order: order.to_owned() };
    record(buyer, time, call, Reply::Done { seq: Some((1, seq)) })
}

fn read_hold(buyer: u64, time: (u64, u64), hold: &str, state: &str, seats: &[&str]) -> Record {
    let reply = Reply::State { state: state.to_owned(), seats: seats_of(seats) };
    record(buyer, time, Call::ReadHold { hold: hold.to_owned() }, reply)
}

fn read_order(buyer: u64, time: (u64, u64), order: &str, state: &str, seats: &[&str]) -> Record {
    let reply = Reply::State { state: state.to_owned(), seats: seats_of(seats) };
    record(buyer, time, Call::ReadOrder { order: order.to_owned() }, reply)
}

/// A map of and so on with these letters.
fn map(time: (u64, u64), letters: &str) -> Record {
    let seats = letters.chars().enumerate();
    let seats = seats.map(|(i, letter)| (format!("A-{}", i + 1), letter)).collect();
    record(0, time, Call::ReadMap, Reply::Map(seats))
}
