//! Loom: every interleaving of two or three threads on each word, with tiny capacities.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tmomi-engine --lib --release model::`
//!
//! Each test names the planted bug that it caught; `make mutants` plants them again.

use loom::sync::Arc;
use loom::thread;

use crate::entry::Stand;
use crate::event::{Batch, Body, Event, EventWords};
use crate::hold::{Facts, Found, MAGAZINE, Slab, State};
use crate::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, HoldId, LineNumber, Part, Seq, ShowtimeId, TimeMs,
};
use crate::line::Line;
use crate::reject::Reject;
use crate::ring::{LOOK_EVENTS, Ring, Writer};
use crate::seat_map::SeatMap;
use crate::summary::Made;

mod orderings;

const NOW: TimeMs = TimeMs(1_000);

fn part(block: u32, mask: u64) -> Part {
    Part { block: BlockIndex(block), mask }
}

/// A map with these seats free.
fn map(free: &[u64]) -> Arc<SeatMap> {
    let (joined_before, joined_behind) = (false, false);
    let made = |free: &u64| Made { free: *free, len: 64, joined_before, joined_behind };
    Arc::new(SeatMap::of(free.iter().map(made)))
}

fn spawn<T: 'static>(run: impl FnOnce() -> T + 'static) -> thread::JoinHandle<T> {
    thread::spawn(run)
}

/// R1. Planted: the CAS of `clear` becomes a load and a store.
#[test]
fn one_of_two_gets_an_overlapping_seat() {
    loom::model(|| {
        let map = map(&[0b111]);
        let (first, second) = (Arc::clone(&map), Arc::clone(&map));
        let first = spawn(move || first.take(&[part(0, 0b011)]).is_ok());
        let second = spawn(move || second.take(&[part(0, 0b110)]).is_ok());
        let won = (first.join().unwrap(), second.join().unwrap());
        assert!(won.0 ^ won.1);
        let left = if won.0 { 0b100 } else { 0b001 };
        assert_eq!(map.free(BlockIndex(0)), left);
    });
}

/// R10. Planted: `look_at` leaves the version out; `look_at` calls a tried bit taken; `untry`
/// clears `trying` before it counts the version.
#[test]
fn a_seat_that_is_only_tried_is_not_called_taken() {
    loom::model(|| {
        // The second block is full, so the first is tried and given back.
        let map = map(&[0b1, 0]);
        let whole = Arc::clone(&map);
        let whole = spawn(move || whole.take(&[part(0, 1), part(1, 1)]));
        let single = map.take(&[part(0, 1)]);
        let taken = |reject| matches!(reject, Reject::SeatUnavailable(c) if c.block.0 == 0);
        assert!(!single.is_err_and(taken), "nobody ever had the seat");
        // The other was refused for the full block, or because the single one had the first.
        let refused = whole.join().unwrap().expect_err("its second seat was never free");
        assert!(!taken(refused) || single.is_ok());
        assert_eq!(map.free(BlockIndex(0)), if single.is_ok() { 0 } else { 1 });
    });
}

/// R10. Planted: two requests share a bit of `trying`, and the first to end clears it.
#[test]
fn of_two_that_try_a_seat_each_is_known_to_try() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let map = map(&[0b1, 0]);
        let doomed = |map: Arc<SeatMap>| spawn(move || map.take(&[part(0, 1), part(1, 1)]).is_ok());
        let others = [doomed(Arc::clone(&map)), doomed(Arc::clone(&map))];
        let single = map.take(&[part(0, 1)]);
        assert!(!matches!(single, Err(Reject::SeatUnavailable(_))), "nobody ever had the seat");
        assert!(others.into_iter().all(|other| !other.join().unwrap()));
        assert_eq!(map.free(BlockIndex(0)), u64::from(single.is_err()));
    });
}

/// R11. Planted: drop the give-back.
#[test]
fn two_holds_over_two_blocks_take_all_or_nothing() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let map = map(&[0b1, 0b1]);
        let parts = [part(0, 1), part(1, 1)];
        let other = Arc::clone(&map);
        let other = spawn(move || other.take(&parts));
        let mine = map.take(&parts);
        let other = other.join().unwrap();
        assert!(!(mine.is_ok() && other.is_ok()));
        let taken = |result: &Result<(), Reject>| matches!(result, Err(Reject::SeatUnavailable(_)));
        assert!(!taken(&mine) || other.is_ok(), "told taken, and nobody had it");
        assert!(!taken(&other) || mine.is_ok(), "told taken, and nobody had it");
        let left = u64::from(mine.is_err() && other.is_err());
        assert_eq!((map.free(BlockIndex(0)), map.free(BlockIndex(1))), (left, left));
    });
}

/// Planted: `unmark` does not look again at the seats, or above at the bits.
#[test]
fn a_block_with_a_free_seat_is_in_the_summary() {
    loom::model(|| {
        let map = map(&[0b01]);
        map.take(&[part(0, 0b01)]).expect("it is free");
        let giver = Arc::clone(&map);
        let giver = spawn(move || giver.give_back(part(0, 0b01)));
        let _ = map.next_with_run(1, 0, 1);
        giver.join().unwrap();
        assert_eq!(map.next_with_run(1, 0, 1), Some(BlockIndex(0)));
    });
}

/// As above, in another group of blocks than the search begins in: it goes by the upper bits.
/// Planted: `unmark` does not look at the bits again when it has cleared the one above them.
#[test]
fn a_group_with_a_free_seat_is_in_the_summary() {
    loom::model(|| {
        let mut free = [0; 65];
        free[64] = 0b1;
        let map = map(&free);
        map.take(&[part(64, 0b1)]).expect("it is free");
        let giver = Arc::clone(&map);
        let giver = spawn(move || giver.give_back(part(64, 0b1)));
        let _ = map.next_with_run(1, 0, 65);
        giver.join().unwrap();
        assert_eq!(map.next_with_run(1, 0, 65), Some(BlockIndex(64)));
    });
}

/// R10. Planted: a clearing of the summary is not counted.
#[test]
fn who_misses_a_seat_whose_bit_is_being_cleared_knows_of_it() {
    loom::model(|| {
        let map = map(&[0b1]);
        map.take(&[part(0, 0b1)]).expect("it is free");
        let other = Arc::clone(&map);
        let other = spawn(move || other.next_with_run(1, 0, 1));
        map.give_back(part(0, 0b1));
        let ended = map.tries_ended();
        let missed = map.next_with_run(1, 0, 1).is_none();
        assert!(!(missed && map.untried_since(ended)), "it is free since before the search");
        other.join().unwrap();
    });
}

/// R10. Planted: only who finds the block full looks at its bit.
#[test]
fn a_seat_given_back_is_found_even_beside_one_that_is_coming_back() {
    loom::model(|| {
        let map = map(&[0]);
        let other = Arc::clone(&map);
        let other = spawn(move || other.give_back(part(0, 0b10)));
        map.give_back(part(0, 0b01));
        // Whoever was told that the first seat is free looks for it now.
        assert_eq!(map.next_with_run(1, 0, 1), Some(BlockIndex(0)));
        other.join().unwrap();
    });
}

/// R10. Planted: `begun` is counted after the first seat is taken.
#[test]
fn who_misses_a_seat_that_is_only_tried_knows_of_the_try() {
    loom::model(|| {
        // The second block is full, so the first is tried and given back.
        let map = map(&[0b1, 0]);
        let whole = Arc::clone(&map);
        let whole = spawn(move || whole.take(&[part(0, 1), part(1, 1)]).is_ok());
        // Twice, and all of it each time: loom tries fewer orders of a thread that looks once and
        // leaves, or that may leave out a load.
        for _ in 0..2 {
            let ended = map.tries_ended();
            let missed = map.free(BlockIndex(0)) == 0;
            let untried = map.untried_since(ended);
            assert!(!(missed && untried), "nobody ever had the seat");
        }
        assert!(!whole.join().unwrap());
    });
}

/// R1, R12. Planted: `own` stores instead of exchanging.
#[test]
fn of_confirm_and_expiry_and_release_one_wins() {
    loom::model(|| {
        let slab = Slab::new();
        let mut cache = Vec::new();
        assert!(slab.fill(&mut cache, 1));
        let facts = Facts { entry: EntryId(3), house: 0, created_at: NOW };
        let record = slab.new_record(&cache);
        let slot = record.slot();
        slab.make(&mut cache, record, Seq(9), facts, TimeMs(2_000), &[part(0, 1)]);
        let id = HoldId { slot, seq: Seq(9) };
        let slab = Arc::new(slab);
        let race = move |slab: &Slab, confirm: bool| {
            let Found::Active(seen) = slab.find_now(id) else { return false };
            let Some(owned) = seen.own() else { return false };
            let mut parts = Vec::new();
            owned.parts(&mut parts);
            assert_eq!((parts, owned.facts().entry), (vec![part(0, 1)], EntryId(3)));
            if confirm {
                owned.settle(TimeMs(2_000), State::Confirmed);
            } else {
                owned.end(&mut Vec::new());
            }
            true
        };
        let other = Arc::clone(&slab);
        let confirmed = spawn(move || race(&other, true));
        let third = Arc::clone(&slab);
        let released = spawn(move || race(&third, false));
        let expired = race(&slab, false);
        let won = [confirmed.join().unwrap(), released.join().unwrap(), expired];
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        assert_eq!(matches!(slab.find_now(id), Found::Confirmed(_)), won[0]);
    });
}

/// Planted: the stack of spares without the tag.
#[test]
fn a_spare_slot_is_given_to_one() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let slab = Slab::new();
        let mut cache = Vec::new();
        assert!(slab.fill(&mut cache, 2 * MAGAZINE));
        slab.spill_all(&mut cache);
        let slab = Arc::new(slab);
        let other = Arc::clone(&slab);
        let other = spawn(move || {
            let mut cache = Vec::new();
            assert!(other.fill(&mut cache, MAGAZINE + 1));
            let kept = cache.split_off(MAGAZINE);
            other.spill_all(&mut cache);
            kept
        });
        let mut cache = Vec::new();
        assert!(slab.fill(&mut cache, MAGAZINE + 1));
        let kept = other.join().unwrap();
        assert!(cache.iter().all(|slot| !kept.contains(slot)));
    });
}

/// R5. Planted: the look at the seats and the change of the word are two steps without the turn.
#[test]
fn two_requests_of_a_buyer_do_not_pass_the_limit_together() {
    loom::model(|| {
        let line = Arc::new(Line::new());
        let entry = line.entry_for(BuyerId(7)).unwrap();
        let limit = 1;
        let hold = move |line: &Line| {
            let Ok(turn) = line.turn(entry) else { return false };
            if turn.seen().seats() + 1 > limit {
                turn.end();
                return false;
            }
            turn.end_with_hold(1);
            true
        };
        let other = Arc::clone(&line);
        let other = spawn(move || hold(&other));
        let mine = hold(&line);
        let other = other.join().unwrap();
        assert!(!(mine && other));
        assert_eq!(line.look(entry).seats(), u32::from(mine) + u32::from(other));
    });
}

/// R4. Planted: a number is read and stored back.
#[test]
fn a_buyer_who_joins_twice_has_one_entry_and_numbers_are_given_once() {
    loom::model(|| {
        let line = Arc::new(Line::new());
        let other = Arc::clone(&line);
        let join = |line: &Line, buyer| {
            let entry = line.entry_for(BuyerId(buyer)).unwrap();
            let Ok(turn) = line.turn(entry) else { return (entry, LineNumber::NONE) };
            if turn.seen().stand() == Stand::Waiting {
                turn.end();
                return (entry, line.number(entry));
            }
            let number = line.take_number(entry, NOW).unwrap();
            turn.end_at(Stand::Waiting);
            (entry, number)
        };
        let twice = spawn(move || join(&other, 7));
        let (entry, number) = join(&line, 7);
        let (same, again) = twice.join().unwrap();
        assert_eq!(entry, same);
        let told = |number: LineNumber| number == LineNumber::NONE || number == LineNumber(1);
        assert!(told(number) && told(again));
        assert_eq!(line.last_number(), LineNumber(1));
    });
}

/// R4. Planted: a number is read and stored back.
#[test]
fn two_buyers_never_get_one_number() {
    loom::model(|| {
        let line = Arc::new(Line::new());
        let (first, second) =
            (line.entry_for(BuyerId(1)).unwrap(), line.entry_for(BuyerId(2)).unwrap());
        let other = Arc::clone(&line);
        let other = spawn(move || other.take_number(second, NOW).unwrap());
        let mine = line.take_number(first, NOW).unwrap();
        assert_ne!(mine, other.join().unwrap());
    });
}

/// R14. Planted: `touch` changes the place without the turn.
#[test]
fn whoever_comes_back_is_counted_back_once() {
    loom::model(|| {
        let line = Arc::new(Line::new());
        let entry = line.entry_for(BuyerId(1)).unwrap();
        line.take_number(entry, NOW).unwrap();
        line.turn(entry).unwrap().end_at(Stand::Passed);
        let other = Arc::clone(&line);
        let other = spawn(move || other.touch(entry, NOW));
        line.touch(entry, NOW);
        other.join().unwrap();
        assert_eq!(line.look(entry).stand(), Stand::Back);
        assert_eq!(line.back_before(LineNumber(2)), 1);
        assert_eq!(line.first_back(), Some(LineNumber(1)));
    });
}

fn event(seq: Seq, more_follows: bool) -> EventWords {
    let body = Body::EpochStart { epoch: Epoch(1), node: seq.0 };
    let showtime = ShowtimeId(0);
    Event { seq, at: NOW, showtime, more_follows, has_blob: false, body }.pack()
}

/// R6. Planted: `publish` stores the number Relaxed; numbers are claimed one by one.
#[test]
fn the_ring_gives_whole_decisions_in_sequence() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (ring, mut reader) = Ring::with_slack(4, 3, Seq(0));
        let other = std::sync::Arc::clone(&ring);
        let pair = spawn(move || {
            let first = other.claim(2);
            other.publish(&event(first, true));
            other.publish(&event(first.next(), false));
        });
        let mut batch = Batch::default();
        let single = ring.claim(1);
        ring.publish(&event(single, false));
        reader.drain(&mut batch, 4);
        let half = batch.events.last().is_some_and(crate::event::more_follows);
        assert!(!half, "a decision was cut");
        pair.join().unwrap();
        reader.drain(&mut batch, 4);
        let events: Vec<Event> = batch.events.iter().map(|w| Event::unpack(w).unwrap()).collect();
        assert_eq!(events.len(), 3);
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event.seq, Seq(n as u64 + 1));
            assert_eq!(event.body, Body::EpochStart { epoch: Epoch(1), node: n as u64 + 1 });
        }
    });
}

/// Planted: `has_room` without the slack; a writer looks once and never again.
#[test]
fn a_slot_is_not_written_before_it_was_read() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        // Four slots, one writer beside the reader, who looks before every second event.
        let (ring, mut reader) = Ring::with_slack(4, LOOK_EVENTS, Seq(0));
        let writer = spawn(move || {
            let writer = Writer::new(ring);
            let mut written = 0;
            for _ in 0..5 {
                if writer.has_room() {
                    let seq = writer.claim(1);
                    writer.ring().publish(&event(seq, false));
                    written += 1;
                }
            }
            written
        });
        let mut batch = Batch::default();
        reader.drain(&mut batch, 1);
        reader.drain(&mut batch, 1);
        let written = writer.join().unwrap();
        reader.drain(&mut batch, 4);
        let seqs: Vec<u64> = batch.events.iter().map(|words| words[0]).collect();
        let nodes: Vec<u64> = batch.events.iter().map(|words| words[3]).collect();
        let all: Vec<u64> = (1..=written).collect();
        assert_eq!((&seqs, &nodes), (&all, &all));
    });
}
