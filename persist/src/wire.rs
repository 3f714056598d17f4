//! The one module that knows bincode: little endian, integers of fixed width.
//!
//! Frames, snapshots and layouts are written through it, so replacing the crate is a change of
//! this file. Decoding memory is bounded by the size of the input, whatever lengths it claims.

use bincode::config::{Configuration, Fixint, LittleEndian, NoLimit};
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use tmomi_engine::event::EventWords;

pub(crate) use bincode::{Decode, Encode};

/// Bytes of one event on the wire: a fixed array has no length in front.
pub(crate) const EVENT_BYTES: usize = size_of::<EventWords>();

/// What decoding may allocate for each byte of its input, at least; never more than 16 times
/// this, or [`ALLOWANCE_BYTES_MIN`] for a small input.
const ALLOWANCE_FACTOR: usize = 32;
/// What decoding may allocate for an input however small.
const ALLOWANCE_BYTES_MIN: usize = 1 << 16;

type Config<Limit> = Configuration<LittleEndian, Fixint, Limit>;
type Limit<const BYTES: usize> = bincode::config::Limit<BYTES>;

const UNLIMITED: Config<NoLimit> = bincode::config::legacy();

/// Bytes that are not an encoding of what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode: {0}")]
pub(crate) struct WireError(String);

impl From<DecodeError> for WireError {
    fn from(error: DecodeError) -> WireError {
        WireError(error.to_string())
    }
}

/// Appends the encoding of `value` to `out`.
pub(crate) fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_writer(value, VecWriter(out), UNLIMITED)
        .expect("a vector takes every byte, and our types have no fallible part");
}

/// Decodes a value from the front of `bytes`; also gives how many bytes it took.
///
/// # Errors
///
/// [`WireError`] if the bytes end early, are no such value, or claim lengths that their size
/// cannot justify.
pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), WireError> {
    const TIERS: [usize; 5] = [ALLOWANCE_BYTES_MIN, 1 << 20, 1 << 24, 1 << 28, 1 << 32];
    let allowance = bytes.len().saturating_mul(ALLOWANCE_FACTOR);
    // The limit is a type parameter of the crate, hence steps.
    let decoded = match TIERS.iter().position(|tier| allowance <= *tier) {
        Some(0) => limited::<T, { TIERS[0] }>(bytes),
        Some(1) => limited::<T, { TIERS[1] }>(bytes),
        Some(2) => limited::<T, { TIERS[2] }>(bytes),
        Some(3) => limited::<T, { TIERS[3] }>(bytes),
        Some(_) => limited::<T, { TIERS[4] }>(bytes),
        None => limited::<T, { 1 << 36 }>(bytes),
    };
    Ok(decoded?)
}

/// Decodes a value that is all of `bytes`.
///
/// # Errors
///
/// As [`decode`], and if bytes are left over.
pub(crate) fn decode_all<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, taken) = decode(bytes)?;
    match bytes.len() - taken {
        0 => Ok(value),
        left => Err(WireError(format!("{left} bytes too many"))),
    }
}

/// Appends the encoding of `events`, without a count, to `out`.
///
/// Written out, here and back, as the crate takes ten times as long for the same words.
pub(crate) fn encode_events(events: &[EventWords], out: &mut Vec<u8>) {
    out.reserve(events.len() * EVENT_BYTES);
    events.iter().for_each(|event| encode_words(event, out));
}

/// The events that are all of `bytes`; a rest shorter than an event is ignored.
pub(crate) fn decode_events(bytes: &[u8]) -> Vec<EventWords> {
    let event = |bytes: &[u8]| decode_words(bytes).expect("bytes of an event");
    bytes.chunks_exact(EVENT_BYTES).map(event).collect()
}

/// Appends the encoding of `words`.
#[inline]
pub(crate) fn encode_words<const N: usize>(words: &[u64; N], out: &mut Vec<u8>) {
    let bytes = words.map(u64::to_le_bytes);
    out.extend_from_slice(bytes.as_flattened());
}

/// The words at the front of `bytes`, if there are so many.
#[inline]
pub(crate) fn decode_words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
    let words: &[_; N] = words.first_chunk()?;
    Some(words.map(u64::from_le_bytes))
}

fn limited<T: Decode<()>, const BYTES: usize>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    let config: Config<Limit<BYTES>> = UNLIMITED.with_limit::<BYTES>();
    bincode::decode_from_slice(bytes, config)
}

struct VecWriter<'a>(&'a mut Vec<u8>);

impl Writer for VecWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Sample {
        id: u32,
        names: Vec<String>,
        more: Option<u64>,
    }

    #[test]
    fn integers_are_little_endian_and_of_fixed_width() {
        let mut bytes = vec![7];
        encode_into(&(0x0102_u16, 3_u64), &mut bytes);
        assert_eq!(bytes, [7, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_value_comes_back_and_left_over_bytes_are_an_error() {
        let value = Sample { id: 9, names: vec!["가".into(), String::new()], more: Some(1) };
        let mut bytes = Vec::new();
        encode_into(&value, &mut bytes);
        assert_eq!(decode_all::<Sample>(&bytes).expect("as encoded"), value);
        bytes.push(0);
        assert!(decode_all::<Sample>(&bytes).is_err());
        assert!(decode::<Sample>(&bytes[..bytes.len() - 2]).is_err());
    }

    #[test]
    fn a_length_that_the_input_cannot_justify_allocates_nothing() {
        let claim = (1_u64 << 40).to_le_bytes();
        assert!(decode::<Vec<u8>>(&claim).is_err());
        assert!(decode::<Vec<u64>>(&claim).is_err());
    }

    #[test]
    fn events_are_their_words() {
        let events = vec![[1, 2, 3, 4, 5, 6, 7, u64::MAX]; 3];
        let mut bytes = vec![9];
        encode_events(&events, &mut bytes);
        assert_eq!(bytes.len(), 1 + 3 * EVENT_BYTES);
        assert_eq!(bytes[1..9], 1_u64.to_le_bytes());
        assert_eq!(decode_events(&bytes[1..]), events);
        let decoded: [EventWords; 3] = decode_all(&bytes[1..]).expect("the crate's own way");
        assert_eq!(decoded[..], events);
    }
}
