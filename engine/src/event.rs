//! Events: what the engine decided, in 64 bytes each.
//!
//! Replay decides nothing: an event carries the outcome as masks and slots, so applying it
//! assigns bits. One decision is one or more consecutive events; all but the last have
//! `more_follows` set, and whoever cuts the stream cuts it between decisions.
//!
//! ```text
//! word 0   sequence number
//! word 1   at, ms since 1970 (48 bits) | kind (8) | flags (8)
//! word 2   showtime (32) | a (32)
//! word 3-7 by kind, see `Event::pack`
//! ```

mod words;

use crate::ids::{
    BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq, ShowtimeId,
    TimeMs,
};

/// An event as it stands in the ring, in a frame and on disk.
pub type EventWords = [u64; 8];

/// Parts of a decision beyond the first travel in [`Body::More`] events, so many in each.
pub const PARTS_PER_MORE: usize = 3;

/// Flag: another event of the same decision follows.
const MORE_FOLLOWS: u8 = 1;
/// Flag: a blob of variable size belongs to this event.
const HAS_BLOB: u8 = 2;

/// How a showtime lets buyers in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LineMode {
    /// No waiting; joining is not needed.
    #[default]
    Open,
    /// First in, first out.
    Fifo,
    /// Joining goes on, nobody is admitted.
    Paused,
}

/// The settings of a showtime's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineSettings {
    /// How buyers are let in.
    pub mode: LineMode,
    /// Buyers that may be active at once.
    pub max_active: u32,
    /// Admissions in 1,000 seconds: a rate of 2.5 a second is 2,500.
    pub rate_per_1000s: u32,
    /// How long a sign of life lasts, in ms.
    pub grace_ms: u32,
    /// How long an admitted buyer has before the turn passes on, in ms.
    pub session_ms: u32,
}

impl Default for LineSettings {
    fn default() -> Self {
        LineSettings {
            mode: LineMode::Open,
            max_active: 1_000,
            rate_per_1000s: 200_000,
            grace_ms: 120_000,
            session_ms: 600_000,
        }
    }
}

/// Why somebody is no longer in the line or among the admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// The buyer gave the place up.
    Asked,
    /// The session ran out with no active hold.
    SessionOver,
}

/// Where an entry stood when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In the line.
    Waiting,
    /// Passed over, in the line.
    Passed,
    /// Let in.
    Admitted,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A new process decides from here on. Showtime 0.
    EpochStart {
        /// The number of its reign, above every one before.
        epoch: Epoch,
        /// The node, as the operator numbers them.
        node: u64,
    },
    /// A showtime went on sale. Its blob is the layout, as the log encodes it.
    Opened {
        /// Seats a buyer may have held or bought at a time.
        limit: u32,
        /// How long a hold lasts unless the request says otherwise, in ms.
        hold_ttl_ms: u32,
    },
    /// The buyer's limit and the hold time changed.
    Terms {
        /// As in `Opened`.
        limit: u32,
        /// As in `Opened`.
        hold_ttl_ms: u32,
    },
    /// The line's settings changed.
    LineSet(LineSettings),
    /// A buyer got an entry without joining the line.
    Buyer {
        /// The new entry.
        entry: EntryId,
        /// Whose it is.
        buyer: BuyerId,
    },
    /// A buyer took a number.
    Joined {
        /// The entry, new if this buyer had none.
        entry: EntryId,
        /// Whose it is.
        buyer: BuyerId,
        /// The number.
        number: LineNumber,
        /// The client's key.
        key: RequestKey,
    },
    /// An entry is no longer in the line or among the admitted.
    Left {
        /// The entry.
        entry: EntryId,
        /// The number that is given up.
        number: LineNumber,
        /// Where it stood.
        was: Standing,
        /// Why.
        reason: LeaveReason,
    },
    /// An entry was let in.
    Admitted {
        /// The entry.
        entry: EntryId,
        /// Its number.
        number: LineNumber,
        /// When its session ends, unless it holds something then.
        until: TimeMs,
    },
    /// The turn came, nobody was there; the number is kept.
    Passed {
        /// The entry.
        entry: EntryId,
        /// Its number.
        number: LineNumber,
    },
    /// Seats were taken for an entry. The event's sequence number is the hold's.
    Held {
        /// The slab record.
        slot: HoldSlot,
        /// For whom.
        entry: EntryId,
        /// From `at` to the deadline, in ms.
        ttl_ms: u32,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// The client's key.
        key: RequestKey,
    },
    /// Further parts of the event before it; unused ones have an empty mask.
    More {
        /// The parts.
        parts: [Part; PARTS_PER_MORE],
    },
    /// A hold got a new deadline.
    Extended {
        /// The hold.
        hold: HoldId,
        /// Whose it is.
        entry: EntryId,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// From `at` to the deadline, in ms.
        ttl_ms: u32,
    },
    /// A hold became an order. Its blob, if any, is the payment reference.
    Confirmed {
        /// The hold, now the order.
        hold: HoldId,
        /// Whose it is.
        entry: EntryId,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// The client's key.
        key: RequestKey,
    },
    /// A hold was given up; its seats are free.
    Released {
        /// The hold.
        hold: HoldId,
        /// Whose it was.
        entry: EntryId,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
    },
    /// A hold's deadline passed; its seats are free.
    Expired {
        /// The hold.
        hold: HoldId,
        /// Whose it was.
        entry: EntryId,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
    },
    /// An order was given back; its seats are free.
    Refunded {
        /// The order.
        hold: HoldId,
        /// Whose it was.
        entry: EntryId,
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// The client's key.
        key: RequestKey,
    },
    /// Seats were taken off sale. Its blob, if any, is the reason.
    Blocked {
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// The client's key.
        key: RequestKey,
    },
    /// Blocked seats are on sale again. Its blob, if any, is the reason.
    Unblocked {
        /// The first part of the seats; `More` events have the rest.
        first: Part,
        /// The client's key.
        key: RequestKey,
    },
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Its number in the shard.
    pub seq: Seq,
    /// When it was decided, by the clock of the process that decided.
    pub at: TimeMs,
    /// The showtime it is about; 0 if about none.
    pub showtime: ShowtimeId,
    /// Whether another event of the same decision follows.
    pub more_follows: bool,
    /// Whether a blob belongs to it.
    pub has_blob: bool,
    /// What was decided.
    pub body: Body,
}

/// Whole decisions in their order: what the ring gives to the log and the log to followers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events, their sequence numbers consecutive.
    pub events: Vec<EventWords>,
    /// The blobs of those events that have one, in the order of the events.
    pub blobs: Vec<(Seq, Box<[u8]>)>,
}

impl Batch {
    /// The number of the first event, if there is one.
    pub fn first_seq(&self) -> Option<Seq> {
        self.events.first().map(|words| Seq(words[0]))
    }

    /// The number of the last event, if there is one.
    pub fn last_seq(&self) -> Option<Seq> {
        self.events.last().map(|words| Seq(words[0]))
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.blobs.clear();
    }
}

/// Words that are no event: of a newer version, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEvent {
    /// The sequence number they claim.
    pub seq: Seq,
    /// The kind they claim.
    pub kind: u8,
}

impl std::fmt::Display for BadEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {} has kind {} or a field this version does not know", self.seq, self.kind)
    }
}

impl std::error::Error for BadEvent {}

/// Whether another event of the same decision follows, without unpacking.
pub fn more_follows(words: &EventWords) -> bool {
    (words[1] >> 56) as u8 & MORE_FOLLOWS != 0
}

/// Whether a blob belongs to the event, without unpacking.
pub fn has_blob(words: &EventWords) -> bool {
    (words[1] >> 56) as u8 & HAS_BLOB != 0
}

impl Body {
    /// The first part of the seats, if the event is about seats; `More` events have the rest.
    pub fn first_part(&self) -> Option<Part> {
        match *self {
            Body::Held { first, .. }
            | Body::Extended { first, .. }
            | Body::Confirmed { first, .. }
            | Body::Released { first, .. }
            | Body::Expired { first, .. }
            | Body::Refunded { first, .. }
            | Body::Blocked { first, .. }
            | Body::Unblocked { first, .. } => Some(first),
            _ => None,
        }
    }

    /// The client's key, if the event has one.
    pub fn key(&self) -> RequestKey {
        match *self {
            Body::Joined { key, .. }
            | Body::Held { key, .. }
            | Body::Confirmed { key, .. }
            | Body::Refunded { key, .. }
            | Body::Blocked { key, .. }
            | Body::Unblocked { key, .. } => key,
            _ => RequestKey::NONE,
        }
    }
}
