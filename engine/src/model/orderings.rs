//! What the memory orderings are for: who comes after another has all that the other did.
//!
//! Most of them make sure that of two decisions about one thing the later one has the higher
//! number. Loom runs `fetch_add` as the machine does, always on the newest value, so a lost order
//! would not show there. A load may be stale, though: whoever is ordered behind somebody who has
//! taken a number must find it taken.
//!
//! `make mutants` weakens one ordering after the other to see these tests fail.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use loom::sync::Arc;

use super::{NOW, map, part, spawn};
use crate::entry::Stand;
use crate::hold::{Facts, Found, MAGAZINE, Slab, State};
use crate::house::Terms;
use crate::ids::{BlockIndex, BuyerId, EntryId, HoldId, HoldSlot, LineNumber, Seq, TimeMs};
use crate::index::Index;
use crate::line::{AtNumber, Line};
use crate::ring::Ring;
use crate::seat_map::SeatMap;

/// Numbers to take.
#[derive(Clone)]
struct Numbers(std::sync::Arc<Ring>);

impl Numbers {
    fn new() -> Numbers {
        Numbers(Ring::with_slack(4, 3, Seq(0)).0)
    }

    fn take(&self) {
        let _ = self.0.claim(1);
    }

    /// Somebody who took a number is before this call.
    fn assert_taken(&self) {
        assert_eq!(self.0.claimed(), Seq(1), "what comes later may have a lower number");
    }
}

/// Runs `first` beside `second`, with numbers to take. The second runs twice: loom tries fewer
/// orders of a thread that looks once and leaves.
fn race<T: 'static>(
    shared: T,
    first: impl FnOnce(&T, &Numbers) + 'static,
    second: impl Fn(&T, &Numbers),
) {
    let (shared, numbers) = (Arc::new(shared), Numbers::new());
    let (theirs, their_numbers) = (Arc::clone(&shared), numbers.clone());
    let first = spawn(move || first(&theirs, &their_numbers));
    second(&shared, &numbers);
    second(&shared, &numbers);
    first.join().unwrap();
}

fn line_of_one() -> (Line, EntryId) {
    let line = Line::new();
    let entry = line.entry_for(BuyerId(7)).unwrap();
    (line, entry)
}

#[test]
fn who_takes_a_seat_is_behind_who_gave_it_back() {
    loom::model(|| {
        let give = |map: &Arc<SeatMap>, numbers: &Numbers| {
            numbers.take();
            map.give_back(part(0, 1));
        };
        // The other seat of the block stays free, so that the summary is not looked at.
        race(map(&[0b10]), give, |map, numbers| {
            if map.take(&[part(0, 1)]).is_ok() {
                numbers.assert_taken();
            }
        });
    });
}

#[test]
fn who_unblocks_a_seat_is_behind_who_blocked_it() {
    loom::model(|| {
        let block = |map: &Arc<SeatMap>, numbers: &Numbers| {
            numbers.take();
            map.set_blocked(part(0, 1), true);
        };
        race(map(&[0]), block, |map, numbers| {
            if map.not_blocked(part(0, 1)).is_none() {
                numbers.assert_taken();
            }
        });
    });
}

/// R10: a search that skips a block because it is full knows of the try that filled it.
#[test]
fn who_finds_no_block_because_of_a_try_knows_of_the_try() {
    loom::model(|| {
        let whole = |map: &Arc<SeatMap>, _: &Numbers| {
            assert!(map.take(&[part(0, 1), part(1, 1)]).is_err(), "the second is full");
        };
        race(map(&[0b1, 0]), whole, |map, _| {
            let ended = map.tries_ended();
            let missed = map.next_with_run(1, 0, 1) != Some(BlockIndex(0));
            assert!(!(missed && map.untried_since(ended)), "nobody ever had the seat");
        });
    });
}

/// R10: whoever looks finds the seat free, or finds that somebody is trying.
#[test]
fn who_looks_at_a_seat_that_is_only_tried_is_not_told_that_it_is_taken() {
    loom::model(|| {
        let whole = |map: &Arc<SeatMap>, _: &Numbers| {
            assert!(map.take(&[part(0, 1), part(1, 1)]).is_err(), "the second is full");
        };
        race(map(&[0b11, 0]), whole, |map, _| {
            assert_eq!(map.look(&[part(0, 1)]), Ok(1), "nobody ever had the seat");
        });
    });
}

/// A value that moves down a level, because another key begins with the same turn, stays found.
#[test]
fn who_is_in_the_index_is_found_while_another_comes_near() {
    let first_turn = |key: &u64| Index::way(*key) >> 60;
    let near = (2..).find(|key| first_turn(key) == first_turn(&1)).expect("there are 16 turns");
    let keys = [1, near];
    loom::model(move || {
        let key_of = move |value: u32| keys[value as usize];
        let index = Index::new();
        let entered = index.find_or_insert(keys[0], key_of, || Ok::<_, ()>(0));
        assert_eq!(entered, Ok((0, None)));
        // Loom finds the stale load only if the thread that was spawned looks.
        let look = move |index: &Index, _: &Numbers| {
            assert_eq!([(); 2].map(|()| index.get(keys[0], key_of)), [Some(0); 2]);
        };
        race(index, look, |index, _| {
            let entered = index.find_or_insert(keys[1], key_of, || Ok::<_, ()>(1));
            assert_eq!(entered, Ok((1, None)));
        });
    });
}

#[test]
fn who_uses_what_is_free_on_an_account_is_behind_who_freed_it() {
    loom::model(|| {
        let line = line_of_one();
        line.0.charge(line.1, 1, true);
        let free = |(line, entry): &(Line, EntryId), numbers: &Numbers| {
            numbers.take();
            line.give_back(*entry, 1, true);
        };
        race(line, free, |(line, entry), numbers| {
            let Ok(turn) = line.turn(*entry) else { return };
            if turn.seen().seats() == 0 {
                numbers.assert_taken();
            }
            turn.end();
        });
    });
}

#[test]
fn who_has_the_next_turn_is_behind_the_one_before() {
    for way in 0..3 {
        loom::model(move || {
            let first = move |(line, entry): &(Line, EntryId), numbers: &Numbers| {
                let Ok(turn) = line.turn(*entry) else { return };
                numbers.take();
                match way {
                    0 => {
                        turn.make_known();
                        turn.end();
                    }
                    1 => turn.end_with_hold(1),
                    _ => turn.end_at(Stand::Waiting),
                }
            };
            race(line_of_one(), first, |(line, entry), numbers| {
                let Ok(turn) = line.turn(*entry) else { return };
                let seen = turn.seen();
                if seen.known() || seen.seats() == 1 || seen.stand() == Stand::Waiting {
                    numbers.assert_taken();
                }
                turn.end();
            });
        });
    }
}

/// R14: or the keeper would think that the number was given up.
#[test]
fn who_finds_an_entry_at_a_number_finds_it_in_its_turn_or_waiting() {
    loom::model(|| {
        let join = |(line, entry): &(Line, EntryId), _: &Numbers| {
            let turn = line.turn(*entry).unwrap();
            line.take_number(*entry, NOW).unwrap();
            turn.end_at(Stand::Waiting);
        };
        race(line_of_one(), join, |(line, _), _| {
            if let AtNumber::Entry(entry) = line.at_number(LineNumber(1)) {
                let seen = line.look(entry);
                assert!(seen.taken() || seen.stand() == Stand::Waiting);
            }
        });
    });
}

#[test]
fn who_is_let_in_is_behind_who_made_room() {
    loom::model(|| {
        let line = Line::new();
        line.count_active(true, false);
        let leave = |line: &Line, numbers: &Numbers| {
            numbers.take();
            line.count_active(false, true);
        };
        race(line, leave, |line, numbers| {
            if line.active() == 0 {
                numbers.assert_taken();
            }
        });
    });
}

#[test]
fn a_hold_under_a_new_limit_is_behind_the_change() {
    loom::model(|| {
        let change = |terms: &Terms, numbers: &Numbers| {
            numbers.take();
            terms.set_sale(5, 1_000);
        };
        race(Terms::default(), change, |terms, numbers| {
            if terms.limit() == 5 {
                numbers.assert_taken();
            }
        });
    });
}

#[test]
fn a_change_of_the_organiser_is_behind_the_one_before() {
    loom::model(|| {
        // Seen by the test alone: loom runs one thread at a time and knows nothing of it.
        let changed = std::sync::Arc::new(AtomicBool::new(false));
        let note = std::sync::Arc::clone(&changed);
        let first = move |terms: &Terms, numbers: &Numbers| {
            if terms.begin_change() {
                note.store(true, SeqCst);
                numbers.take();
                terms.end_change();
            }
        };
        race(Terms::default(), first, |terms, numbers| {
            if terms.begin_change() {
                if changed.load(SeqCst) {
                    numbers.assert_taken();
                }
                terms.end_change();
            }
        });
    });
}

/// A slab with one hold of number 9, and its record.
fn slab_of_one() -> (Slab, HoldSlot, Vec<HoldSlot>) {
    let slab = Slab::new();
    let mut cache = Vec::new();
    assert!(slab.fill(&mut cache, 1));
    let slot = make(&slab, &mut cache, Seq(9));
    (slab, slot, cache)
}

/// Makes a hold whose entry, seat and number say the same.
fn make(slab: &Slab, cache: &mut Vec<HoldSlot>, seq: Seq) -> HoldSlot {
    let facts = Facts { entry: EntryId(seq.0 as u32), house: 0, created_at: NOW };
    let record = slab.new_record(cache);
    let slot = record.slot();
    slab.make(cache, record, seq, facts, TimeMs(2_000), &[part(0, seq.0)]);
    slot
}

fn own_and_end(slab: &Slab, id: HoldId, cache: &mut Vec<HoldSlot>) {
    let Found::Active(seen) = slab.find_now(id) else { panic!("it was just made") };
    seen.own().expect("nobody else is here").end(cache);
}

#[test]
fn who_owns_a_hold_reads_all_of_it() {
    loom::model(|| {
        let slab = Slab::new();
        let mut cache = Vec::new();
        assert!(slab.fill(&mut cache, 1));
        let slot = slab.new_record(&cache).slot();
        let make = move |slab: &Slab, _: &Numbers| {
            make(slab, &mut cache, Seq(9));
        };
        race(slab, make, |slab, _| {
            let Found::Active(seen) = slab.find_now(HoldId { slot, seq: Seq(9) }) else { return };
            let owned = seen.own().expect("nobody else is here");
            let mut parts = Vec::new();
            owned.parts(&mut parts);
            assert_eq!((parts, owned.facts().entry), (vec![part(0, 9)], EntryId(9)));
            owned.settle(TimeMs(2_000), State::Active);
        });
    });
}

/// R1: or the new hold could be ended by the id of the one before.
#[test]
fn a_hold_is_not_taken_for_the_one_before_in_its_record() {
    loom::model(|| {
        let (slab, slot, mut cache) = slab_of_one();
        let before = HoldId { slot, seq: Seq(9) };
        own_and_end(&slab, before, &mut cache);
        let again = move |slab: &Slab, _: &Numbers| {
            make(slab, &mut cache, Seq(10));
        };
        race(slab, again, |slab, _| {
            assert!(matches!(slab.find_now(before), Found::Gone));
        });
    });
}

/// Also if the word is the same again: a hold was extended to the deadline it had.
#[test]
fn who_owns_a_hold_is_behind_its_owner_before() {
    loom::model(|| {
        let (slab, slot, _) = slab_of_one();
        let id = HoldId { slot, seq: Seq(9) };
        // Seen by the test alone, as above.
        let owned = std::sync::Arc::new(AtomicBool::new(false));
        let note = std::sync::Arc::clone(&owned);
        let extend = move |slab: &Slab, numbers: &Numbers| {
            let Found::Active(seen) = slab.find_now(id) else { return };
            if let Some(extended) = seen.own() {
                note.store(true, SeqCst);
                numbers.take();
                extended.settle(TimeMs(2_000), State::Active);
            }
        };
        race(slab, extend, |slab, numbers| {
            let Found::Active(seen) = slab.find_now(id) else { return };
            let Some(mine) = seen.own() else { return };
            if owned.load(SeqCst) {
                numbers.assert_taken();
            }
            mine.settle(TimeMs(2_000), State::Active);
        });
    });
}

/// Or spares would be lost: the link to the batch below is read before the exchange.
#[test]
fn who_takes_spares_knows_which_are_below_them() {
    loom::model(|| {
        let slab = Slab::new();
        let (mut below, mut above) = (Vec::new(), Vec::new());
        assert!(slab.fill(&mut below, MAGAZINE) && slab.fill(&mut above, MAGAZINE));
        slab.spill_all(&mut below);
        let spill = move |slab: &Slab, _: &Numbers| slab.spill_all(&mut above);
        race(slab, spill, |slab, _| {
            let mut cache = Vec::new();
            assert!(slab.fill(&mut cache, 1));
            slab.spill_all(&mut cache);
            // All that there are were made in the beginning, unless one was lost.
            let mut all = Vec::new();
            assert!(slab.fill(&mut all, MAGAZINE));
            assert!(all.iter().all(|slot| slot.0 < 2 * MAGAZINE as u32), "spares were lost");
            slab.spill_all(&mut all);
        });
    });
}
