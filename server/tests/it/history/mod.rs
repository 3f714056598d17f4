//! What clients were told, and whether it can all be true of one house.
//!
//! A history is a list of calls with their replies, each with the instants at which the call was
//! sent and its reply had come. [`check`] knows nothing else: no log, no database, no server. It
//! reasons with two kinds of time. Something was *surely* so from the reply that said it until a
//! call was sent that could end it. Something was *possibly* so from the call that could begin it
//! until the reply that surely ended it.
//!
//! ```text
//! hold sent   hold got        confirm got          refund sent   refund got
//!     |-----------|----------------|--------------------|-------------|
//!     <............................ possibly ..........................>
//!                 <........... surely ..................>
//! ```

mod check;
mod check_line;
mod ownership;
mod tests;

pub(crate) use check::check;

use std::fmt;

use crate::support::audit::Seq;

/// Microseconds since the history began.
pub(crate) type Instant = u64;

/// The time of what never ends.
pub(crate) const NEVER: Instant = Instant::MAX;

/// One call of one buyer.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Who called, by user id.
    pub(crate) buyer: u64,
    /// When the first byte was about to leave.
    pub(crate) sent: Instant,
    /// When the last byte had come, or the client had given up.
    pub(crate) got: Instant,
    /// The `Idempotency-Key`, if any.
    pub(crate) key: Option<String>,
    pub(crate) call: Call,
    pub(crate) reply: Reply,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Join,
    /// Leaves the line.
    Leave,
    Hold {
        seats: Vec<String>,
        ttl_ms: u64,
    },
    Confirm {
        hold: String,
    },
    Release {
        hold: String,
    },
    Refund {
        order: String,
    },
    ReadHold {
        hold: String,
    },
    ReadOrder {
        order: String,
    },
    ReadNumber,
    ReadMap,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// To a join or a read of one's own number.
    Number(u64),
    /// 201 to a hold.
    Held { hold: String, seats: Vec<String>, seq: Seq },
    /// 200 to a confirm.
    Confirmed { order: String, seats: Vec<String>, seq: Seq },
    /// Released, left or refunded.
    Done { seq: Option<Seq> },
    /// The state of a hold or an order.
    State { state: String, seats: Vec<String> },
    /// One letter a seat.
    Map(Vec<(String, char)>),
    /// A refusal, which changed nothing. Conflicts are seats with their claimed states.
    Refused { code: String, conflicts: Vec<(String, String)> },
    /// No reply, or one that says that the outcome is not known.
    Unknown,
}

/// Something that cannot be, with the records that say so in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

/// The promises that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// R1: two holds or orders surely had one seat at one time.
    SeatTwice,
    /// R2: an acknowledged hold is not there, or not with its seats, before its deadline.
    LostHold,
    /// R2: an acknowledged order or refund is not there.
    LostOrder,
    /// R2: an acknowledged number is not there.
    LostNumber,
    /// R3: one key had two effects.
    KeyTwice,
    /// R4: who joined later has a smaller number.
    NumberJumped,
    /// R4: two joins have one number.
    NumberTwice,
    /// R5: a buyer surely had more seats than the limit.
    OverLimit,
    /// R6: two decisions have one number, or a later decision a smaller one.
    SeqBack,
    /// R10: a refusal named a seat that nobody can have had.
    Unjustified,
    /// R11: a hold has other seats than were asked for.
    WrongSeats,
    /// The map shows a seat held or sold that nobody asked for, or free while somebody has it.
    WrongMap,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// What the house promises beside the contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Seats a buyer may have held and bought at a time.
    pub(crate) limit: usize,
}
