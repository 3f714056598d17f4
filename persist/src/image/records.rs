//! What a snapshot says of showtimes and keys, field by field.
//!
//! The order and the types of the fields are the format: a change here is a new
//! [`FORMAT`](super::codec::FORMAT).

use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{EntryId, HoldId, HoldSlot, LineNumber, Seq, ShowtimeId, TimeMs};

use super::keys::{KeyImage, Outcome};
use super::showtime::Past;
use crate::wire::{Decode, Encode};

#[derive(Encode, Decode)]
pub(super) struct HeadRecord {
    pub(super) format: u32,
    pub(super) applied: u64,
    pub(super) epoch: u32,
    pub(super) now: u64,
    pub(super) showtimes: u64,
    pub(super) holds: u64,
    pub(super) orders: u64,
    pub(super) ended: u64,
    pub(super) keys: u64,
}

#[derive(Encode, Decode)]
pub(super) struct ShowtimeRecord {
    pub(super) id: u32,
    pub(super) last_seq: u64,
    pub(super) seats_seq: u64,
    pub(super) past: PastRecord,
    pub(super) limit: u32,
    pub(super) limit_highest: u32,
    pub(super) hold_ttl_ms: u32,
    pub(super) line: LineRecord,
    pub(super) layout: Vec<u8>,
    pub(super) held: Vec<u64>,
    pub(super) sold: Vec<u64>,
    pub(super) blocked: Vec<u64>,
    pub(super) numbers_given: Vec<u64>,
    pub(super) numbers_waiting: Vec<u64>,
    /// They stand behind it, see `rows`.
    pub(super) entries: u64,
}

#[derive(Encode, Decode)]
pub(super) enum PastRecord {
    Untouched,
    Held,
    Sold,
}

#[derive(Encode, Decode)]
pub(super) struct LineRecord {
    mode: ModeRecord,
    max_active: u32,
    rate_per_1000s: u32,
    grace_ms: u32,
    session_ms: u32,
}

#[derive(Encode, Decode)]
enum ModeRecord {
    Open,
    Fifo,
    Paused,
}

#[derive(Encode, Decode)]
pub(super) struct HoldIdRecord {
    slot: u32,
    seq: u64,
}

#[derive(Encode, Decode)]
pub(super) struct KeyRecord {
    hash: u64,
    fingerprint: u64,
    at: u64,
    outcome: OutcomeRecord,
}

#[derive(Encode, Decode)]
enum OutcomeRecord {
    Joined { showtime: u32, entry: u32, number: u32, admitted_until: Option<u64>, seq: u64 },
    Held { id: HoldIdRecord, deadline: u64, seq: u64 },
    Confirmed { id: HoldIdRecord, seq: u64 },
    Refunded { id: HoldIdRecord, seq: u64 },
    Blocked { showtime: u32, seats: u32, seq: u64 },
    Unblocked { showtime: u32, seats: u32, seq: u64 },
}

impl From<Past> for PastRecord {
    fn from(past: Past) -> PastRecord {
        match past {
            Past::Untouched => PastRecord::Untouched,
            Past::Held => PastRecord::Held,
            Past::Sold => PastRecord::Sold,
        }
    }
}

impl From<PastRecord> for Past {
    fn from(past: PastRecord) -> Past {
        match past {
            PastRecord::Untouched => Past::Untouched,
            PastRecord::Held => Past::Held,
            PastRecord::Sold => Past::Sold,
        }
    }
}

impl From<&LineSettings> for LineRecord {
    fn from(line: &LineSettings) -> LineRecord {
        LineRecord {
            mode: match line.mode {
                LineMode::Open => ModeRecord::Open,
                LineMode::Fifo => ModeRecord::Fifo,
                LineMode::Paused => ModeRecord::Paused,
            },
            max_active: line.max_active,
            rate_per_1000s: line.rate_per_1000s,
            grace_ms: line.grace_ms,
            session_ms: line.session_ms,
        }
    }
}

impl From<LineRecord> for LineSettings {
    fn from(line: LineRecord) -> LineSettings {
        LineSettings {
            mode: match line.mode {
                ModeRecord::Open => LineMode::Open,
                ModeRecord::Fifo => LineMode::Fifo,
                ModeRecord::Paused => LineMode::Paused,
            },
            max_active: line.max_active,
            rate_per_1000s: line.rate_per_1000s,
            grace_ms: line.grace_ms,
            session_ms: line.session_ms,
        }
    }
}

impl From<HoldId> for HoldIdRecord {
    fn from(id: HoldId) -> HoldIdRecord {
        HoldIdRecord { slot: id.slot.0, seq: id.seq.0 }
    }
}

impl From<HoldIdRecord> for HoldId {
    fn from(id: HoldIdRecord) -> HoldId {
        HoldId { slot: HoldSlot(id.slot), seq: Seq(id.seq) }
    }
}

impl KeyRecord {
    pub(super) fn new(hash: u64, key: &KeyImage) -> KeyRecord {
        let outcome = match key.outcome {
            Outcome::Joined { showtime, entry, number, admitted_until, seq } => {
                OutcomeRecord::Joined {
                    showtime: showtime.0,
                    entry: entry.0,
                    number: number.0,
                    admitted_until: admitted_until.map(|until| until.0),
                    seq: seq.0,
                }
            }
            Outcome::Held { id, deadline, seq } => {
                OutcomeRecord::Held { id: id.into(), deadline: deadline.0, seq: seq.0 }
            }
            Outcome::Confirmed { id, seq } => {
                OutcomeRecord::Confirmed { id: id.into(), seq: seq.0 }
            }
            Outcome::Refunded { id, seq } => OutcomeRecord::Refunded { id: id.into(), seq: seq.0 },
            Outcome::Blocked { showtime, seats, seq } => {
                OutcomeRecord::Blocked { showtime: showtime.0, seats, seq: seq.0 }
            }
            Outcome::Unblocked { showtime, seats, seq } => {
                OutcomeRecord::Unblocked { showtime: showtime.0, seats, seq: seq.0 }
            }
        };
        KeyRecord { hash, fingerprint: key.fingerprint, at: key.at.0, outcome }
    }

    /// The hash of user and key, and what it led to.
    pub(super) fn into_parts(self) -> (u64, KeyImage) {
        let outcome = match self.outcome {
            OutcomeRecord::Joined { showtime, entry, number, admitted_until, seq } => {
                Outcome::Joined {
                    showtime: ShowtimeId(showtime),
                    entry: EntryId(entry),
                    number: LineNumber(number),
                    admitted_until: admitted_until.map(TimeMs),
                    seq: Seq(seq),
                }
            }
            OutcomeRecord::Held { id, deadline, seq } => {
                Outcome::Held { id: id.into(), deadline: TimeMs(deadline), seq: Seq(seq) }
            }
            OutcomeRecord::Confirmed { id, seq } => {
                Outcome::Confirmed { id: id.into(), seq: Seq(seq) }
            }
            OutcomeRecord::Refunded { id, seq } => {
                Outcome::Refunded { id: id.into(), seq: Seq(seq) }
            }
            OutcomeRecord::Blocked { showtime, seats, seq } => {
                Outcome::Blocked { showtime: ShowtimeId(showtime), seats, seq: Seq(seq) }
            }
            OutcomeRecord::Unblocked { showtime, seats, seq } => {
                Outcome::Unblocked { showtime: ShowtimeId(showtime), seats, seq: Seq(seq) }
            }
        };
        let key = KeyImage { fingerprint: self.fingerprint, at: TimeMs(self.at), outcome };
        (self.hash, key)
    }
}
