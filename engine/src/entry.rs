//! The entry word: where a buyer stands, and what he has in use; and the turns at it.
//!
//! ```text
//! 63  49  48  47              24 23        4   3    2   0
//! +-----+-----+------------------+-----------+------+-----+
//! |     |known| seats in use     | holds     | turn |place|
//! +-----+-----+------------------+-----------+------+-----+
//! ```
//!
//! *Known* is set once the event that gave the buyer this entry is published. *Seats in use* are
//! held and bought ones, *holds* the active holds. Whoever sets the turn bit alone may add to them
//! or change the place; a buyer's parallel requests take turns at it, so one that fails never makes
//! another look over the limit. Giving seats back needs no turn.

use crate::event::Standing;
use crate::reject::Reject;
use crate::sync::{AtomicU64, Ordering, Patience};

/// Seats in use of one buyer at most: what the word has room for.
pub const LIMIT_MAX: u32 = (1 << 20) - 1;

const PLACE_MASK: u64 = 0b111;
const TURN: u64 = 1 << 3;
const HOLD_ONE: u64 = 1 << 4;
const HOLDS_MASK: u64 = (1 << 20) - 1;
const SEATS_SHIFT: u32 = 24;
const SEATS_MASK: u64 = (1 << 24) - 1;
pub(crate) const KNOWN: u64 = 1 << 48;

// A buyer cannot have more holds than seats, so neither field overflows into the next.
const _: () = assert!((LIMIT_MAX as u64) <= HOLDS_MASK && HOLDS_MASK <= SEATS_MASK);

/// Where an entry stands, as its word says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Not in the line.
    Out,
    Waiting,
    Admitted,
    /// Passed over and not seen since.
    Passed,
    /// Passed over and back: next to be admitted.
    Back,
    /// The session ran out.
    Expired,
}

/// The entry word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryWord(u64);

impl EntryWord {
    pub(crate) fn stand(self) -> Stand {
        match self.0 & PLACE_MASK {
            0 => Stand::Out,
            1 => Stand::Waiting,
            2 => Stand::Admitted,
            3 => Stand::Passed,
            4 => Stand::Back,
            _ => Stand::Expired,
        }
    }

    pub(crate) fn seats(self) -> u32 {
        (self.0 >> SEATS_SHIFT & SEATS_MASK) as u32
    }

    pub(crate) fn holds(self) -> u32 {
        (self.0 >> 4 & HOLDS_MASK) as u32
    }

    /// The log knows whose entry it is.
    pub(crate) fn known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Somebody has the turn.
    pub(crate) fn taken(self) -> bool {
        self.0 & TURN != 0
    }
}

pub(crate) fn place_bits(stand: Stand) -> u64 {
    match stand {
        Stand::Out => 0,
        Stand::Waiting => 1,
        Stand::Admitted => 2,
        Stand::Passed => 3,
        Stand::Back => 4,
        Stand::Expired => 5,
    }
}

impl Stand {
    /// As an event says it; `None` if not in the line and not let in.
    pub(crate) fn standing(self) -> Option<Standing> {
        match self {
            Stand::Waiting => Some(Standing::Waiting),
            Stand::Passed | Stand::Back => Some(Standing::Passed),
            Stand::Admitted => Some(Standing::Admitted),
            Stand::Out | Stand::Expired => None,
        }
    }
}

/// The turn at an entry: until `end`, nobody else changes its place or adds to its seats.
#[must_use = "the turn must be ended"]
pub(crate) struct Turn<'a> {
    word: &'a AtomicU64,
    seen: EntryWord,
}

impl Turn<'_> {
    /// What the word was when the turn began. Seats and holds may have become fewer since.
    pub(crate) fn seen(&self) -> EntryWord {
        self.seen
    }

    /// The event that gives the buyer this entry is published.
    pub(crate) fn make_known(&self) {
        self.word.fetch_or(KNOWN, Ordering::Relaxed);
    }

    /// Ends the turn without a change.
    pub(crate) fn end(self) {
        // Release, as in the other two: what was done in the turn is before the next turn, whose
        // CAS acquires.
        self.word.fetch_sub(TURN, Ordering::Release);
    }

    /// Ends the turn after a hold of `seats` seats.
    pub(crate) fn end_with_hold(self, seats: u32) {
        self.word.fetch_add(amount(seats, true) - TURN, Ordering::Release);
    }

    /// Ends the turn with the entry at another place.
    pub(crate) fn end_at(self, stand: Stand) {
        let change = place_bits(stand).wrapping_sub(place_bits(self.seen.stand()));
        self.word.fetch_add(change.wrapping_sub(TURN), Ordering::Release);
    }
}

/// The word of one entry.
#[derive(Clone, Copy)]
pub(crate) struct Account<'a>(pub(crate) &'a AtomicU64);

impl<'a> Account<'a> {
    #[inline]
    pub(crate) fn look(self) -> EntryWord {
        EntryWord(self.0.load(Ordering::Acquire))
    }

    /// Waits for the turn, or says `Contended`.
    #[inline]
    pub(crate) fn turn(self) -> Result<Turn<'a>, Reject> {
        match self.try_turn() {
            Some(turn) => Ok(turn),
            None => self.wait_turn(),
        }
    }

    #[cold]
    fn wait_turn(self) -> Result<Turn<'a>, Reject> {
        let mut patience = Patience::new();
        while patience.wait() {
            if let Some(turn) = self.try_turn() {
                return Ok(turn);
            }
        }
        Err(Reject::Contended)
    }

    /// The turn, if it is free.
    #[inline]
    pub(crate) fn try_turn(self) -> Option<Turn<'a>> {
        let word = self.0;
        let mut seen = EntryWord(word.load(Ordering::Relaxed));
        while !seen.taken() {
            let mine = seen.0 | TURN;
            // Acquire pairs with the Release that ended the turn before, and with that of
            // `give_back`: its event's number is below ours.
            match word.compare_exchange_weak(seen.0, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Turn { word, seen }),
                Err(now) => seen = EntryWord(now),
            }
        }
        None
    }

    /// Takes seats off, and a hold, if it was active.
    #[inline]
    pub(crate) fn give_back(self, seats: u32, active_hold: bool) {
        // Release pairs with the Acquire of `try_turn`.
        self.0.fetch_sub(amount(seats, active_hold), Ordering::Release);
    }

    /// Puts a restored hold or order on.
    pub(crate) fn charge(self, seats: u32, active_hold: bool) {
        self.0.fetch_add(amount(seats, active_hold), Ordering::Relaxed);
    }
}

fn amount(seats: u32, active_hold: bool) -> u64 {
    (u64::from(seats) << SEATS_SHIFT) + u64::from(active_hold) * HOLD_ONE
}
