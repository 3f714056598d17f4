//! An image as bytes: one image, one encoding, so that images can be compared by its hash.
//!
//! What follows from the rest is checked on the way back: the masks against holds and orders, the
//! seats in use of every entry, the numbers that wait against the entries.

use std::collections::BTreeMap;

use tmomi_engine::SeatState;
use tmomi_engine::ids::{Epoch, Seq, ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;

use super::Image;
use super::divergence::Contradiction;
use super::hold::Hold;
use super::line::Line;
use super::positions::Positions;
use super::records::{HeadRecord, KeyRecord, ShowtimeRecord};
use super::rows::{self, OrderRow};
use super::seats::{Masks, Seats};
use super::showtime::{ShowtimeImage, Terms};
use crate::layout_codec::{self, LayoutCodecError};
use crate::wire::{self, Decode, WireError};

/// The version of the encoding that this program writes and reads.
pub(super) const FORMAT: u32 = 4;

/// Orders that are read, and the memory of whose buyers is asked for, before one is added.
const ORDERS_AHEAD: usize = 32;

/// Bytes that are no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageCodecError {
    /// Written by another version.
    #[error("the image has format {0}, this program knows {FORMAT}")]
    Format(u32),
    /// Not an encoding.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// A layout in it is damaged.
    #[error(transparent)]
    Layout(#[from] LayoutCodecError),
    /// Its parts contradict each other.
    #[error("showtime {0}: seats, entries, holds and orders contradict each other")]
    Inconsistent(ShowtimeId),
    /// Its holds contradict each other.
    #[error("its holds contradict each other: {0}")]
    Holds(Contradiction),
}

impl From<WireError> for ImageCodecError {
    fn from(error: WireError) -> ImageCodecError {
        ImageCodecError::Damaged(error.to_string())
    }
}

impl Image {
    /// The one encoding of this image.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes_about());
        let head = HeadRecord {
            format: FORMAT,
            applied: self.applied.0,
            epoch: self.epoch.0,
            now: self.now.0,
            showtimes: self.showtimes.len() as u64,
            holds: self.holds.active_len() as u64,
            orders: self.holds.orders().len() as u64,
            ended: self.holds.ended_len() as u64,
            keys: self.keys.len() as u64,
        };
        wire::encode_into(&head, &mut out);
        for (id, showtime) in &self.showtimes {
            wire::encode_into(&showtime_record(*id, showtime), &mut out);
            showtime.entries().iter().for_each(|entry| rows::push_entry(entry, &mut out));
        }
        for hold in self.holds.active() {
            rows::push_active(hold, &mut out);
        }
        for order in self.holds.orders() {
            rows::push_order(order, &mut out);
        }
        for ended in self.holds.ended() {
            rows::push_ended(ended, &mut out);
        }
        for (hash, key) in self.keys.iter() {
            wire::encode_into(&KeyRecord::new(hash, key), &mut out);
        }
        out
    }

    /// The image that [`encode`](Self::encode) made `bytes` of.
    ///
    /// # Errors
    ///
    /// [`ImageCodecError`] if the bytes are of another version, damaged, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Image, ImageCodecError> {
        let mut input = Input { rest: bytes };
        let (format, _) = wire::decode::<u32>(bytes)?;
        if format != FORMAT {
            return Err(ImageCodecError::Format(format));
        }
        let head: HeadRecord = input.take()?;
        let mut image = Image {
            applied: Seq(head.applied),
            epoch: Epoch(head.epoch),
            now: TimeMs(head.now),
            ..Image::new()
        };
        for _ in 0..head.showtimes {
            image.add_showtime(&mut input)?;
        }
        for _ in 0..head.holds {
            let hold = rows::take_active(&mut input)?;
            image.holds.hold(hold).map_err(ImageCodecError::Holds)?;
        }
        image.holds.reserve(input.at_most(head.orders, rows::HOLD_BYTES_MIN));
        let mut ahead = Vec::with_capacity(ORDERS_AHEAD);
        for at in (0..head.orders).step_by(ORDERS_AHEAD) {
            for _ in at..head.orders.min(at + ORDERS_AHEAD as u64) {
                ahead.push(rows::take_order(&mut input)?);
            }
            image.ask_for_buyers(ahead.iter().map(|order| (order.hold.showtime, order.hold.entry)));
            ahead.drain(..).try_for_each(|order| image.add_order(order))?;
        }
        for _ in 0..head.ended {
            image.holds.remember(rows::take_ended(&mut input)?);
        }
        for _ in 0..head.keys {
            let (hash, key) = input.take::<KeyRecord>()?.into_parts();
            image.keys.restore(hash, key);
        }
        if !input.rest.is_empty() {
            return Err(ImageCodecError::Damaged(format!("{} bytes too many", input.rest.len())));
        }
        image.check()?;
        Ok(image)
    }

    /// A hash of the encoding: equal for equal images, on every machine.
    pub fn hash(&self) -> u64 {
        hash(&self.encode())
    }

    fn encoded_bytes_about(&self) -> usize {
        const RECORD_BYTES: usize = 96;
        let masks =
            |showtime: &ShowtimeImage| showtime.seats.all_masks().len() * size_of::<Masks>();
        let entries = |showtime: &ShowtimeImage| showtime.entries().len() * 32;
        let showtimes: usize = self.showtimes.values().map(|s| masks(s) + entries(s)).sum();
        let records = self.holds.orders().len() + self.holds.ended_len() + self.keys.len();
        showtimes + records * RECORD_BYTES + 4_096
    }

    fn add_showtime(&mut self, input: &mut Input<'_>) -> Result<(), ImageCodecError> {
        let record: ShowtimeRecord = input.take()?;
        let id = ShowtimeId(record.id);
        let inconsistent = ImageCodecError::Inconsistent(id);
        let ascending = self.showtimes.last_key_value().is_none_or(|(last, _)| *last < id);
        let spec = layout_codec::decode(&record.layout)?;
        // The seats' masks are there, so building as many blocks takes no more than they do.
        if spec.blocks() != record.held.len() as u64 {
            return Err(inconsistent);
        }
        let layout = self.share(Layout::build(spec).map_err(LayoutCodecError::from)?);
        let seats = Seats::restore(&layout, &record.held, &record.sold, &record.blocked);
        let positions = Positions::restore(record.numbers_given, record.numbers_waiting);
        let mut entries = Vec::with_capacity(input.at_most(record.entries, rows::ENTRY_BYTES));
        for _ in 0..record.entries {
            entries.push(rows::take_entry(input)?);
        }
        let line = positions.and_then(|positions| Line::restore(entries, positions));
        let (true, Some(seats), Some(line)) = (ascending, seats, line) else {
            return Err(inconsistent);
        };
        let showtime = ShowtimeImage {
            layout,
            seats,
            line,
            terms: Terms {
                limit: record.limit,
                limit_highest: record.limit_highest,
                hold_ttl_ms: record.hold_ttl_ms,
            },
            settings: record.line.into(),
            last_seq: Seq(record.last_seq),
            seats_seq: Seq(record.seats_seq),
            past: record.past.into(),
        };
        self.showtimes.insert(id, showtime);
        Ok(())
    }

    fn add_order(&mut self, order: OrderRow) -> Result<(), ImageCodecError> {
        let OrderRow { hold, confirmed, refunded } = order;
        let buyer = self.buyer_of(&hold).ok_or(ImageCodecError::Inconsistent(hold.showtime))?;
        self.holds.add_order(hold, buyer, confirmed, refunded).map_err(ImageCodecError::Holds)
    }

    /// Whether seats and entries are what holds and orders say.
    fn check(&self) -> Result<(), ImageCodecError> {
        let mut proofs: BTreeMap<ShowtimeId, Proof> = BTreeMap::new();
        for (id, showtime) in &self.showtimes {
            proofs.insert(*id, Proof::new(showtime));
        }
        let orders = self.holds.orders().iter().filter(|order| order.refunded.is_none());
        let holds = self.holds.active().map(|hold| (hold, SeatState::Held));
        for (hold, state) in holds.chain(orders.map(|order| (&order.hold, SeatState::Sold))) {
            let inconsistent = ImageCodecError::Inconsistent(hold.showtime);
            let proof = proofs.get_mut(&hold.showtime);
            if proof.and_then(|proof| proof.add(hold, state)).is_none() {
                return Err(inconsistent);
            }
        }
        match proofs.iter().find(|(_, proof)| !proof.holds()) {
            Some((id, _)) => Err(ImageCodecError::Inconsistent(*id)),
            None => Ok(()),
        }
    }
}

/// A showtime, and what its seats and entries must be by its holds and orders alone.
struct Proof<'a> {
    showtime: &'a ShowtimeImage,
    /// The seats of each block that a hold or an order has.
    taken: Vec<u64>,
    in_use: Vec<u32>,
}

impl<'a> Proof<'a> {
    fn new(showtime: &'a ShowtimeImage) -> Proof<'a> {
        let in_use = vec![0; showtime.entries().len()];
        Proof { showtime, taken: vec![0; showtime.seats.all_masks().len()], in_use }
    }

    fn add(&mut self, hold: &Hold, state: SeatState) -> Option<()> {
        for part in hold.parts() {
            let known = self.showtime.masks(part.block)?.are(state);
            let taken = &mut self.taken[part.block.0 as usize];
            if part.mask == 0 || part.mask & (!known | *taken) != 0 {
                return None;
            }
            *taken |= part.mask;
        }
        *self.in_use.get_mut(hold.entry.0 as usize)? += hold.seats();
        Some(())
    }

    fn holds(&self) -> bool {
        let known = &self.showtime.seats;
        let limit = self.showtime.terms.limit_highest;
        let in_use = self.showtime.entries().iter().map(|entry| entry.seats);
        known.all_masks().map(|masks| masks.held | masks.sold).eq(self.taken.iter().copied())
            && in_use.eq(self.in_use.iter().copied())
            && self.in_use.iter().all(|seats| *seats <= limit)
    }
}

fn showtime_record(id: ShowtimeId, showtime: &ShowtimeImage) -> ShowtimeRecord {
    let positions = showtime.line.positions();
    ShowtimeRecord {
        id: id.0,
        last_seq: showtime.last_seq.0,
        seats_seq: showtime.seats_seq.0,
        past: showtime.past.into(),
        limit: showtime.terms.limit,
        limit_highest: showtime.terms.limit_highest,
        hold_ttl_ms: showtime.terms.hold_ttl_ms,
        line: (&showtime.settings).into(),
        layout: layout_codec::encode(showtime.layout.spec()),
        held: showtime.seats.all_masks().map(|masks| masks.held).collect(),
        sold: showtime.seats.all_masks().map(|masks| masks.sold).collect(),
        blocked: showtime.seats.all_masks().map(|masks| masks.blocked).collect(),
        numbers_given: positions.given_words().to_vec(),
        numbers_waiting: positions.waiting_words().collect(),
        entries: showtime.entries().len() as u64,
    }
}

/// Bytes that are read from the front.
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn take<T: Decode<()>>(&mut self) -> Result<T, WireError> {
        let (value, taken) = wire::decode(self.rest)?;
        self.rest = &self.rest[taken..];
        Ok(value)
    }

    #[inline]
    pub(super) fn words<const N: usize>(&mut self) -> Result<[u64; N], ImageCodecError> {
        let cut_off = || ImageCodecError::Damaged("it is cut off".into());
        let words = wire::decode_words(self.rest).ok_or_else(cut_off)?;
        self.rest = &self.rest[N * size_of::<u64>()..];
        Ok(words)
    }

    /// As many of `count` as the bytes can have, so that a false count reserves little.
    fn at_most(&self, count: u64, bytes_min: usize) -> usize {
        usize::try_from(count).unwrap_or(usize::MAX).min(self.rest.len() / bytes_min)
    }
}

/// Eight bytes at a time, each mixed into all bits by a multiplication. Tells images apart; is no
/// proof against somebody who wants two to agree.
fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(ODD);
        mixed ^ mixed >> 32
    };
    let mut words = bytes.chunks_exact(size_of::<u64>());
    let mut hash = mix(ODD, bytes.len() as u64);
    for word in &mut words {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("chunks are of eight bytes")));
    }
    words.remainder().iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}
