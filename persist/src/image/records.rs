//! What a snapshot says of holds, orders, entries and keys, field by field.
//!
//! The order and the types of the fields are the format: a change here is a new
//! [`FORMAT`](super::codec::FORMAT).

use tmomi_engine::event::{LineMode, LineSettings};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, HoldId, HoldSlot, LineNumber, Part, Seq, ShowtimeId, TimeMs,
};
use tmomi_engine::state::Place;

use super::hold::{Ended, Ending, Hold, Moment, Parts};
use super::keys::{KeyImage, Outcome};
use super::line::Entry;
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
    pub(super) entries: Vec<EntryRecord>,
    pub(super) numbers_given: Vec<u64>,
    pub(super) numbers_waiting: Vec<u64>,
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
pub(super) struct EntryRecord {
    buyer: u64,
    number: u32,
    seats: u32,
    place: PlaceRecord,
    session_until: u64,
}

#[derive(Encode, Decode)]
enum PlaceRecord {
    Out,
    Waiting,
    Passed,
    Admitted,
    Expired,
}

#[derive(Encode, Decode)]
pub(super) struct HoldIdRecord {
    slot: u32,
    seq: u64,
}

/// A block and a mask.
type PartRecord = (u32, u64);

/// The first part of a hold without seats: nobody decides one, but an event could say it.
const NO_PART: PartRecord = (0, 0);

/// The first part stands apart: most holds have no other, and no list is made for them then.
#[derive(Encode, Decode)]
pub(super) struct HoldRecord {
    id: HoldIdRecord,
    showtime: u32,
    entry: u32,
    created_at: u64,
    deadline: u64,
    first: PartRecord,
    more: Vec<PartRecord>,
}

#[derive(Encode, Decode)]
pub(super) struct MomentRecord {
    at: u64,
    seq: u64,
}

#[derive(Encode, Decode)]
pub(super) struct OrderRecord {
    pub(super) hold: HoldRecord,
    pub(super) confirmed: MomentRecord,
    pub(super) refunded: Option<MomentRecord>,
}

#[derive(Encode, Decode)]
pub(super) struct EndedRecord {
    hold: HoldRecord,
    ended: MomentRecord,
    how: EndingRecord,
}

#[derive(Encode, Decode)]
enum EndingRecord {
    Released,
    Expired,
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

impl OrderRecord {
    /// Where it was bought, and by whom.
    pub(super) fn whose(&self) -> (ShowtimeId, EntryId) {
        (ShowtimeId(self.hold.showtime), EntryId(self.hold.entry))
    }
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

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> EntryRecord {
        EntryRecord {
            buyer: entry.buyer.0,
            number: entry.number.0,
            seats: entry.seats,
            place: match entry.place {
                Place::Out => PlaceRecord::Out,
                Place::Waiting => PlaceRecord::Waiting,
                Place::Passed => PlaceRecord::Passed,
                Place::Admitted => PlaceRecord::Admitted,
                Place::Expired => PlaceRecord::Expired,
            },
            session_until: entry.session_until.0,
        }
    }
}

impl From<EntryRecord> for Entry {
    fn from(entry: EntryRecord) -> Entry {
        Entry {
            buyer: BuyerId(entry.buyer),
            number: LineNumber(entry.number),
            seats: entry.seats,
            place: match entry.place {
                PlaceRecord::Out => Place::Out,
                PlaceRecord::Waiting => Place::Waiting,
                PlaceRecord::Passed => Place::Passed,
                PlaceRecord::Admitted => Place::Admitted,
                PlaceRecord::Expired => Place::Expired,
            },
            session_until: TimeMs(entry.session_until),
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

impl From<&Hold> for HoldRecord {
    fn from(hold: &Hold) -> HoldRecord {
        let part = |part: &Part| (part.block.0, part.mask);
        let (first, more) = hold.parts().split_first().unzip();
        HoldRecord {
            id: hold.id.into(),
            showtime: hold.showtime.0,
            entry: hold.entry.0,
            created_at: hold.created_at.0,
            deadline: hold.deadline.0,
            first: first.map_or(NO_PART, part),
            more: more.unwrap_or_default().iter().map(part).collect(),
        }
    }
}

impl From<HoldRecord> for Hold {
    fn from(hold: HoldRecord) -> Hold {
        let part = |(block, mask): PartRecord| Part { block: BlockIndex(block), mask };
        let (first, more) = (hold.first, hold.more);
        Hold {
            id: hold.id.into(),
            showtime: ShowtimeId(hold.showtime),
            entry: EntryId(hold.entry),
            created_at: TimeMs(hold.created_at),
            deadline: TimeMs(hold.deadline),
            parts: match more.is_empty() {
                true if first == NO_PART => Parts::Many(Box::default()),
                true => Parts::One(part(first)),
                false => Parts::Many([first].into_iter().chain(more).map(part).collect()),
            },
        }
    }
}

impl From<Moment> for MomentRecord {
    fn from(moment: Moment) -> MomentRecord {
        MomentRecord { at: moment.at.0, seq: moment.seq.0 }
    }
}

impl From<MomentRecord> for Moment {
    fn from(moment: MomentRecord) -> Moment {
        Moment { at: TimeMs(moment.at), seq: Seq(moment.seq) }
    }
}

impl From<&Ended> for EndedRecord {
    fn from(ended: &Ended) -> EndedRecord {
        EndedRecord {
            hold: (&ended.hold).into(),
            ended: ended.ended.into(),
            how: match ended.how {
                Ending::Released => EndingRecord::Released,
                Ending::Expired => EndingRecord::Expired,
            },
        }
    }
}

impl From<EndedRecord> for Ended {
    fn from(ended: EndedRecord) -> Ended {
        Ended {
            hold: ended.hold.into(),
            ended: ended.ended.into(),
            how: match ended.how {
                EndingRecord::Released => Ending::Released,
                EndingRecord::Expired => Ending::Expired,
            },
        }
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
