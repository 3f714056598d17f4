//! What a snapshot says of entries, holds and orders, of which it may have millions: in words, as
//! field by field a snapshot of orders takes a third longer to read.
//!
//! ```text
//! entry   0 buyer
//!         1 number (32) | seats (32)
//!         2 end of the session
//!         3 place
//!
//! hold    0 record (32) | showtime (32)
//!         1 number of its event
//!         2 entry (32) | parts but the first (32)
//!         3 when it was made
//!         4 deadline
//!         5 block of the first part (32) | kind (32)
//!         6 mask of the first part
//!         7-8 when it was confirmed or ended, and by which event; zero while it is active
//!         then, if the kind says so, the same of its refund
//!         then block and mask of each further part
//! ```

use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, HoldId, HoldSlot, LineNumber, Part, Seq, ShowtimeId, TimeMs,
};
use tmomi_engine::state::Place;

use super::codec::{ImageCodecError, Input};
use super::hold::{Ended, Ending, Hold, Moment, Order, Parts};
use super::line::Entry;
use crate::wire::encode_words;

const ENTRY_WORDS: usize = 4;
const HOLD_WORDS: usize = 9;
/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = ENTRY_WORDS * size_of::<u64>();
/// Bytes of a hold or an order at least.
pub(super) const HOLD_BYTES_MIN: usize = HOLD_WORDS * size_of::<u64>();

/// Of a hold that is active.
const NO_MOMENT: Moment = Moment { at: TimeMs(0), seq: Seq(0) };

/// What a hold is or was, by number.
const KINDS: [Kind; 5] = [
    Kind::Active,
    Kind::Order,
    Kind::Refunded,
    Kind::Ended(Ending::Released),
    Kind::Ended(Ending::Expired),
];
/// The places of an entry, by number.
const PLACES: [Place; 5] =
    [Place::Out, Place::Waiting, Place::Passed, Place::Admitted, Place::Expired];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Active,
    Order,
    Refunded,
    Ended(Ending),
}

/// An order before it is known whose it is.
pub(super) struct OrderRow {
    pub(super) hold: Hold,
    pub(super) confirmed: Moment,
    pub(super) refunded: Option<Moment>,
}

pub(super) fn push_entry(entry: &Entry, out: &mut Vec<u8>) {
    let number = both(entry.number.0, entry.seats);
    let place = number_of(&entry.place, &PLACES).into();
    encode_words(&[entry.buyer.0, number, entry.session_until.0, place], out);
}

pub(super) fn push_active(hold: &Hold, out: &mut Vec<u8>) {
    push(hold, Kind::Active, NO_MOMENT, None, out);
}

pub(super) fn push_order(order: &Order, out: &mut Vec<u8>) {
    let kind = order.refunded.map_or(Kind::Order, |_| Kind::Refunded);
    push(&order.hold, kind, order.confirmed, order.refunded, out);
}

pub(super) fn push_ended(ended: &Ended, out: &mut Vec<u8>) {
    push(&ended.hold, Kind::Ended(ended.how), ended.ended, None, out);
}

fn push(hold: &Hold, kind: Kind, moment: Moment, refunded: Option<Moment>, out: &mut Vec<u8>) {
    let (first, more) = hold.parts().split_first().expect("a hold has seats");
    let words = [
        both(hold.id.slot.0, hold.showtime.0),
        hold.id.seq.0,
        both(hold.entry.0, more.len() as u32),
        hold.created_at.0,
        hold.deadline.0,
        both(first.block.0, number_of(&kind, &KINDS)),
        first.mask,
        moment.at.0,
        moment.seq.0,
    ];
    encode_words(&words, out);
    refunded.iter().for_each(|moment| encode_words(&[moment.at.0, moment.seq.0], out));
    more.iter().for_each(|part| encode_words(&[part.block.0.into(), part.mask], out));
}

pub(super) fn take_entry(input: &mut Input<'_>) -> Result<Entry, ImageCodecError> {
    let [buyer, number, session_until, place] = input.words::<ENTRY_WORDS>()?;
    let (number, seats) = halves(number);
    let place = usize::try_from(place).ok().and_then(|place| PLACES.get(place));
    Ok(Entry {
        buyer: BuyerId(buyer),
        number: LineNumber(number),
        seats,
        place: *place.ok_or_else(|| no_such("place"))?,
        session_until: TimeMs(session_until),
    })
}

pub(super) fn take_active(input: &mut Input<'_>) -> Result<Hold, ImageCodecError> {
    match take(input)? {
        (hold, Kind::Active, NO_MOMENT, None) => Ok(hold),
        _ => Err(no_such("hold")),
    }
}

pub(super) fn take_order(input: &mut Input<'_>) -> Result<OrderRow, ImageCodecError> {
    match take(input)? {
        (hold, Kind::Order | Kind::Refunded, confirmed, refunded) => {
            Ok(OrderRow { hold, confirmed, refunded })
        }
        _ => Err(no_such("order")),
    }
}

pub(super) fn take_ended(input: &mut Input<'_>) -> Result<Ended, ImageCodecError> {
    match take(input)? {
        (hold, Kind::Ended(how), ended, None) => Ok(Ended { hold, ended, how }),
        _ => Err(no_such("ended hold")),
    }
}

#[inline]
fn take(input: &mut Input<'_>) -> Result<(Hold, Kind, Moment, Option<Moment>), ImageCodecError> {
    let words = input.words::<HOLD_WORDS>()?;
    let [record, seq, entry, created_at, deadline, block, mask, at, by] = words;
    let ((slot, showtime), (entry, more), (block, kind)) =
        (halves(record), halves(entry), halves(block));
    let kind = *KINDS.get(kind as usize).ok_or_else(|| no_such("kind of a hold"))?;
    let refunded = match kind {
        Kind::Refunded => Some(moment(input.words()?)),
        _ => None,
    };
    let first = Part { block: BlockIndex(block), mask };
    let parts = match more {
        0 => Parts::One(first),
        _ => Parts::Many(take_parts(first, more, input)?),
    };
    let hold = Hold {
        id: HoldId { slot: HoldSlot(slot), seq: Seq(seq) },
        showtime: ShowtimeId(showtime),
        entry: EntryId(entry),
        created_at: TimeMs(created_at),
        deadline: TimeMs(deadline),
        parts,
    };
    Ok((hold, kind, moment([at, by]), refunded))
}

fn take_parts(
    first: Part,
    more: u32,
    input: &mut Input<'_>,
) -> Result<Box<[Part]>, ImageCodecError> {
    let mut parts = vec![first];
    for _ in 0..more {
        let [block, mask] = input.words()?;
        let block = u32::try_from(block).map_err(|_| no_such("block"))?;
        parts.push(Part { block: BlockIndex(block), mask });
    }
    Ok(parts.into())
}

fn moment([at, seq]: [u64; 2]) -> Moment {
    Moment { at: TimeMs(at), seq: Seq(seq) }
}

fn number_of<T: PartialEq>(value: &T, all: &[T]) -> u32 {
    all.iter().position(|other| other == value).expect("all are there") as u32
}

fn both(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn no_such(what: &str) -> ImageCodecError {
    ImageCodecError::Damaged(format!("it has no such {what}"))
}
