//! How an event becomes eight words, and eight words an event.

use super::{
    BadEvent, Body, Event, EventWords, HAS_BLOB, LeaveReason, LineMode, LineSettings, MORE_FOLLOWS,
    Standing,
};
use crate::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq,
    ShowtimeId, TimeMs,
};

const AT_MASK: u64 = (1 << 48) - 1;

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn low(word: u64) -> u32 {
    word as u32
}

impl Event {
    /// The event as eight words. Times are cut to 48 bits (the year 10889).
    #[inline(always)]
    pub fn pack(&self) -> EventWords {
        let (kind, a, rest) = self.body.pack();
        let flags = u8::from(self.more_follows) * MORE_FOLLOWS + u8::from(self.has_blob) * HAS_BLOB;
        let head = self.at.0 & AT_MASK | u64::from(kind) << 48 | u64::from(flags) << 56;
        let [w3, w4, w5, w6, w7] = rest;
        [self.seq.0, head, pair(self.showtime.0, a), w3, w4, w5, w6, w7]
    }

    /// The event that [`pack`](Self::pack) made `words` of.
    ///
    /// # Errors
    ///
    /// [`BadEvent`] if the kind or a field is not one this version writes.
    #[inline(always)]
    pub fn unpack(words: &EventWords) -> Result<Event, BadEvent> {
        let seq = Seq(words[0]);
        let kind = (words[1] >> 48) as u8;
        let flags = (words[1] >> 56) as u8;
        let bad = BadEvent { seq, kind };
        if flags & !(MORE_FOLLOWS | HAS_BLOB) != 0 {
            return Err(bad);
        }
        let rest = [words[3], words[4], words[5], words[6], words[7]];
        Ok(Event {
            seq,
            at: TimeMs(words[1] & AT_MASK),
            showtime: ShowtimeId(high(words[2])),
            more_follows: flags & MORE_FOLLOWS != 0,
            has_blob: flags & HAS_BLOB != 0,
            body: Body::unpack(kind, low(words[2]), rest).ok_or(bad)?,
        })
    }
}

mod kind {
    pub(super) const EPOCH_START: u8 = 1;
    pub(super) const OPENED: u8 = 2;
    pub(super) const TERMS: u8 = 3;
    pub(super) const LINE_SET: u8 = 4;
    pub(super) const BUYER: u8 = 5;
    pub(super) const JOINED: u8 = 6;
    pub(super) const LEFT: u8 = 7;
    pub(super) const ADMITTED: u8 = 8;
    pub(super) const PASSED: u8 = 9;
    pub(super) const HELD: u8 = 10;
    pub(super) const MORE: u8 = 11;
    pub(super) const EXTENDED: u8 = 12;
    pub(super) const CONFIRMED: u8 = 13;
    pub(super) const RELEASED: u8 = 14;
    pub(super) const EXPIRED: u8 = 15;
    pub(super) const REFUNDED: u8 = 16;
    pub(super) const BLOCKED: u8 = 17;
    pub(super) const UNBLOCKED: u8 = 18;
}

impl Body {
    /// Kind, the 32 bits `a` and words 3 to 7.
    #[inline(always)]
    fn pack(&self) -> (u8, u32, [u64; 5]) {
        match *self {
            Body::EpochStart { epoch, node } => (kind::EPOCH_START, epoch.0, [node, 0, 0, 0, 0]),
            Body::Opened { limit, hold_ttl_ms } => {
                (kind::OPENED, limit, [hold_ttl_ms.into(), 0, 0, 0, 0])
            }
            Body::Terms { limit, hold_ttl_ms } => {
                (kind::TERMS, limit, [hold_ttl_ms.into(), 0, 0, 0, 0])
            }
            Body::LineSet(s) => {
                let times = pair(s.grace_ms, s.session_ms);
                let flow = pair(s.max_active, s.rate_per_1000s);
                (kind::LINE_SET, s.mode.number(), [flow, times, 0, 0, 0])
            }
            Body::Buyer { entry, buyer } => (kind::BUYER, entry.0, [buyer.0, 0, 0, 0, 0]),
            Body::Joined { entry, buyer, number, key } => {
                let rest = [buyer.0, number.0.into(), 0, key.hash, key.fingerprint];
                (kind::JOINED, entry.0, rest)
            }
            Body::Left { entry, number, was, reason } => {
                let how = pair(was.number(), reason.number());
                (kind::LEFT, entry.0, [number.0.into(), how, 0, 0, 0])
            }
            Body::Admitted { entry, number, until } => {
                (kind::ADMITTED, entry.0, [number.0.into(), until.0, 0, 0, 0])
            }
            Body::Passed { entry, number } => {
                (kind::PASSED, entry.0, [number.0.into(), 0, 0, 0, 0])
            }
            Body::Held { slot, entry, ttl_ms, first, key } => {
                let where_to = pair(slot.0, first.block.0);
                (
                    kind::HELD,
                    entry.0,
                    [where_to, ttl_ms.into(), first.mask, key.hash, key.fingerprint],
                )
            }
            Body::More { parts: [p, q, r] } => {
                let rest = [pair(p.block.0, q.block.0), r.block.0.into(), p.mask, q.mask, r.mask];
                (kind::MORE, 0, rest)
            }
            Body::Extended { hold, entry, first, ttl_ms } => {
                let slot_and_block = pair(hold.slot.0, first.block.0);
                let rest = [hold.seq.0, slot_and_block, first.mask, ttl_ms.into(), 0];
                (kind::EXTENDED, entry.0, rest)
            }
            Body::Confirmed { hold, entry, first, key } => {
                (kind::CONFIRMED, entry.0, of(hold, first, key))
            }
            Body::Released { hold, entry, first } => {
                (kind::RELEASED, entry.0, of(hold, first, RequestKey::NONE))
            }
            Body::Expired { hold, entry, first } => {
                (kind::EXPIRED, entry.0, of(hold, first, RequestKey::NONE))
            }
            Body::Refunded { hold, entry, first, key } => {
                (kind::REFUNDED, entry.0, of(hold, first, key))
            }
            Body::Blocked { first, key } => (kind::BLOCKED, 0, whole(first, key)),
            Body::Unblocked { first, key } => (kind::UNBLOCKED, 0, whole(first, key)),
        }
    }

    #[inline(always)]
    fn unpack(kind: u8, a: u32, [w3, w4, w5, w6, w7]: [u64; 5]) -> Option<Body> {
        let entry = EntryId(a);
        let hold = HoldId { seq: Seq(w3), slot: HoldSlot(high(w4)) };
        let first = Part { block: BlockIndex(low(w4)), mask: w5 };
        let key = RequestKey { hash: w6, fingerprint: w7 };
        let number = |word: u64| u32::try_from(word).ok();
        Some(match kind {
            kind::EPOCH_START => Body::EpochStart { epoch: Epoch(a), node: w3 },
            kind::OPENED => Body::Opened { limit: a, hold_ttl_ms: number(w3)? },
            kind::TERMS => Body::Terms { limit: a, hold_ttl_ms: number(w3)? },
            kind::LINE_SET => Body::LineSet(LineSettings {
                mode: LineMode::from_number(a)?,
                max_active: high(w3),
                rate_per_1000s: low(w3),
                grace_ms: high(w4),
                session_ms: low(w4),
            }),
            kind::BUYER => Body::Buyer { entry, buyer: BuyerId(w3) },
            kind::JOINED => {
                let number = LineNumber(number(w4)?);
                Body::Joined { entry, buyer: BuyerId(w3), number, key }
            }
            kind::LEFT => Body::Left {
                entry,
                number: LineNumber(number(w3)?),
                was: Standing::from_number(high(w4))?,
                reason: LeaveReason::from_number(low(w4))?,
            },
            kind::ADMITTED => {
                Body::Admitted { entry, number: LineNumber(number(w3)?), until: TimeMs(w4) }
            }
            kind::PASSED => Body::Passed { entry, number: LineNumber(number(w3)?) },
            kind::HELD => Body::Held {
                slot: HoldSlot(high(w3)),
                entry,
                ttl_ms: number(w4)?,
                first: Part { block: BlockIndex(low(w3)), mask: w5 },
                key,
            },
            kind::MORE => Body::More {
                parts: [
                    Part { block: BlockIndex(high(w3)), mask: w5 },
                    Part { block: BlockIndex(low(w3)), mask: w6 },
                    Part { block: BlockIndex(number(w4)?), mask: w7 },
                ],
            },
            kind::EXTENDED => Body::Extended { hold, entry, first, ttl_ms: number(w6)? },
            kind::CONFIRMED => Body::Confirmed { hold, entry, first, key },
            kind::RELEASED => Body::Released { hold, entry, first },
            kind::EXPIRED => Body::Expired { hold, entry, first },
            kind::REFUNDED => Body::Refunded { hold, entry, first, key },
            kind::BLOCKED | kind::UNBLOCKED => {
                let first = Part { block: BlockIndex(number(w3)?), mask: w4 };
                match kind {
                    kind::BLOCKED => Body::Blocked { first, key },
                    _ => Body::Unblocked { first, key },
                }
            }
            _ => return None,
        })
    }
}

fn of(hold: HoldId, first: Part, key: RequestKey) -> [u64; 5] {
    [hold.seq.0, pair(hold.slot.0, first.block.0), first.mask, key.hash, key.fingerprint]
}

fn whole(first: Part, key: RequestKey) -> [u64; 5] {
    [first.block.0.into(), first.mask, 0, key.hash, key.fingerprint]
}

impl LineMode {
    pub(crate) fn number(self) -> u32 {
        match self {
            LineMode::Open => 0,
            LineMode::Fifo => 1,
            LineMode::Paused => 2,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<LineMode> {
        [LineMode::Open, LineMode::Fifo, LineMode::Paused].get(number as usize).copied()
    }
}

impl Standing {
    fn number(self) -> u32 {
        match self {
            Standing::Waiting => 0,
            Standing::Passed => 1,
            Standing::Admitted => 2,
        }
    }

    fn from_number(number: u32) -> Option<Standing> {
        [Standing::Waiting, Standing::Passed, Standing::Admitted].get(number as usize).copied()
    }
}

impl LeaveReason {
    fn number(self) -> u32 {
        match self {
            LeaveReason::Asked => 0,
            LeaveReason::SessionOver => 1,
        }
    }

    fn from_number(number: u32) -> Option<LeaveReason> {
        [LeaveReason::Asked, LeaveReason::SessionOver].get(number as usize).copied()
    }
}
