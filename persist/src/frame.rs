//! Frames: what one commit adds to a log, checked end to end.
//!
//! The journal's frame is also a Kafka record's value. All integers are little endian.
//!
//! ```text
//!  0 length    bytes of the whole frame, a multiple of 8
//!  4 !length   so that a frame whose body is damaged still says where it ends
//!  8 crc32c    of the length and of everything behind this field
//! 12 previous  crc32c of the frame before: a chain, so that frames cannot change places
//! 16 shard
//! 20 epoch
//! 24 first     sequence number of the first event, or of the next one if there is none
//! 32 events    how many
//! 36 blobs     how many
//! 40 version   16 bits
//! 42 kind      16 bits
//! 44 mark      no byte of it is zero
//! 48 events, 64 bytes each; blobs as (sequence number, length, bytes); zeros up to a
//!    multiple of 8; end mark of 8 bytes, none of them zero
//! ```
//!
//! The marks let the journal tell a write that was cut off, which leaves zeros, from damage.

use crc32c::{crc32c, crc32c_append};
use tmomi_engine::event::{Batch, Event, EventWords};
use tmomi_engine::ids::{Epoch, Seq};

use crate::wire::{self, Decode, EVENT_BYTES, Encode};

/// The version of frames that this code writes. It reads no other.
pub const FRAME_VERSION: u16 = 1;
/// Events in a frame at most.
pub const FRAME_EVENTS_MAX: usize = 1 << 18;
/// Bytes of all blobs of a frame at most.
pub const FRAME_BLOB_BYTES_MAX: usize = 96 << 20;
/// Blobs of a frame at most.
pub const FRAME_BLOBS_MAX: usize = 1 << 16;
/// Bytes of a frame at most.
pub const FRAME_BYTES_MAX: usize = 128 << 20;

/// Bytes in front of the events.
pub(crate) const HEAD_BYTES: usize = 48;
/// Frames begin and end at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;
/// Bytes of a frame without events.
pub(crate) const NOTE_BYTES: usize = HEAD_BYTES + END_BYTES;

const END_BYTES: usize = 8;
const BLOB_HEAD_BYTES: usize = 16;
const HEAD_MARK: [u8; 4] = *b"Tmom";
const END_MARK: [u8; END_BYTES] = *b"Tmomi.ok";
const CRC_AT: usize = 8;
const CRC_END: usize = CRC_AT + 4;

const _: () = assert!(
    HEAD_BYTES
        + FRAME_EVENTS_MAX * EVENT_BYTES
        + FRAME_BLOBS_MAX * BLOB_HEAD_BYTES
        + FRAME_BLOB_BYTES_MAX
        + FRAME_ALIGN
        + END_BYTES
        <= FRAME_BYTES_MAX
);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!((HEAD_BYTES | END_BYTES | FRAME_BYTES_MAX).is_multiple_of(FRAME_ALIGN));

/// The crc32c of a frame; the next frame names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Checksum(pub u32);

impl Checksum {
    /// What the first frame of a log names as the frame before it.
    pub const NONE: Checksum = Checksum(0);
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// It has events.
    Events,
    /// A note of the journal, without events: it was closed in order here.
    Closed,
    /// A note of the journal, without events: a further segment continues here.
    Continued,
}

/// Events as one commit wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The shard they belong to.
    pub shard: u32,
    /// The reign they were decided in.
    pub epoch: Epoch,
    /// The events; none in a note.
    pub batch: Batch,
}

/// What stands in front of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole frame.
    pub bytes: usize,
    /// The frame's checksum.
    pub checksum: Checksum,
    /// The checksum of the frame before.
    pub previous: Checksum,
    /// The shard.
    pub shard: u32,
    /// The reign.
    pub epoch: Epoch,
    /// The number of the first event; in a note, of the event that comes next.
    pub first: Seq,
    /// How many events.
    pub events: u32,
    /// What the frame is for.
    pub kind: FrameKind,
    blobs: u32,
}

impl Header {
    /// The number of the event after this frame.
    pub fn next_seq(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.events))
    }
}

/// Why bytes are no frame, or a batch cannot become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before the frame does.
    #[error("the frame is cut off")]
    CutOff,
    /// There is no frame here, or its length was changed.
    #[error("no frame begins here: its length is {length:#x}, the check of it {check:#x}")]
    Length {
        /// The length field.
        length: u32,
        /// The field that should be its complement.
        check: u32,
    },
    /// The content is not what was written.
    #[error("the checksum is {computed} and should be {stored}")]
    Checksum {
        /// As it stands in the frame.
        stored: Checksum,
        /// As it follows from the content.
        computed: Checksum,
    },
    /// Another version wrote it.
    #[error("the frame has version {0}, this program reads version {FRAME_VERSION}")]
    Version(u16),
    /// The fields contradict each other.
    #[error("the frame's {0} cannot be")]
    Field(&'static str),
    /// The events' numbers do not count up from the frame's first.
    #[error("event {found} stands where {expected} belongs")]
    Sequence {
        /// The number that belongs there.
        expected: Seq,
        /// The number that stands there.
        found: Seq,
    },
    /// A batch above a limit.
    #[error("{what} are {count}, more than the limit of {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        count: usize,
        /// How much there may be.
        max: usize,
    },
    /// A batch whose last decision is not complete.
    #[error("the batch ends within the decision of event {0}")]
    WithinDecision(Seq),
}

/// What a frame is encoded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) shard: u32,
    pub(crate) epoch: Epoch,
    /// The checksum of the frame before.
    pub(crate) previous: Checksum,
}

#[derive(Encode, Decode)]
struct Head {
    length: u32,
    length_check: u32,
    crc32c: u32,
    previous: u32,
    shard: u32,
    epoch: u32,
    first: u64,
    events: u32,
    blobs: u32,
    version: u16,
    kind: u16,
    mark: [u8; 4],
}

/// Appends a frame with the events of `batch` to `out` and gives its checksum, which the next
/// frame takes as `previous`. On an error `out` is as before.
///
/// # Errors
///
/// [`FrameError`] if the batch is empty, passes a limit, ends within a decision, or its numbers
/// do not count up.
pub fn encode(
    shard: u32,
    epoch: Epoch,
    previous: Checksum,
    batch: &Batch,
    out: &mut Vec<u8>,
) -> Result<Checksum, FrameError> {
    let first = batch.first_seq().ok_or(FrameError::Field("count of events"))?;
    check_batch(first, batch)?;
    Ok(put(FrameKind::Events, Origin { shard, epoch, previous }, first, batch, out))
}

/// Makes a frame the continuation of another one than it was written behind.
#[cfg(feature = "kafka")]
pub(crate) fn put_behind(previous: Checksum, frame: &mut [u8]) -> Checksum {
    frame[CRC_END..CRC_END + 4].copy_from_slice(&previous.0.to_le_bytes());
    let checksum = checksum(frame);
    frame[CRC_AT..CRC_END].copy_from_slice(&checksum.0.to_le_bytes());
    checksum
}

/// Appends a note, a frame without events, to `out`; `next` is the number of the next event.
pub(crate) fn encode_note(
    kind: FrameKind,
    origin: Origin,
    next: Seq,
    out: &mut Vec<u8>,
) -> Checksum {
    debug_assert!(kind != FrameKind::Events);
    put(kind, origin, next, &Batch::default(), out)
}

/// Bytes of the frame that `batch` becomes.
pub fn encoded_bytes(batch: &Batch) -> usize {
    encoded_bytes_of(batch.events.len(), batch.blobs.iter().map(|(_, blob)| blob.len()))
}

/// The same of so many events with blobs of these lengths.
pub(crate) fn encoded_bytes_of(events: usize, blobs: impl Iterator<Item = usize>) -> usize {
    let blobs: usize = blobs.map(|bytes| BLOB_HEAD_BYTES + bytes).sum();
    let body = HEAD_BYTES + events * EVENT_BYTES + blobs;
    body.next_multiple_of(FRAME_ALIGN) + END_BYTES
}

/// The length that the frame at the front of `bytes` claims, if the two fields that hold it
/// agree and it is one a frame can have.
///
/// # Errors
///
/// [`FrameError::CutOff`] if there are fewer than eight bytes, [`FrameError::Length`] if the
/// fields disagree, [`FrameError::Field`] if no frame has such a length.
pub(crate) fn claimed_bytes(bytes: &[u8]) -> Result<usize, FrameError> {
    let length = word_at(bytes, 0).ok_or(FrameError::CutOff)?;
    let check = word_at(bytes, 4).ok_or(FrameError::CutOff)?;
    if length != !check {
        return Err(FrameError::Length { length, check });
    }
    let bytes = length as usize;
    if !(NOTE_BYTES..=FRAME_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(FRAME_ALIGN) {
        return Err(FrameError::Field("length"));
    }
    Ok(bytes)
}

/// Checks the frame at the front of `bytes` from end to end, without decoding its events.
///
/// # Errors
///
/// [`FrameError`] names what is wrong.
pub fn check(bytes: &[u8]) -> Result<Header, FrameError> {
    let bytes = bytes.get(..claimed_bytes(bytes)?).ok_or(FrameError::CutOff)?;
    let head: Head = wire::decode(bytes).map_err(|_| FrameError::CutOff)?.0;
    let (stored, computed) = (Checksum(head.crc32c), checksum(bytes));
    if stored != computed {
        return Err(FrameError::Checksum { stored, computed });
    }
    // Later versions keep the fields up to here, so that they can be told from damage.
    if head.version != FRAME_VERSION {
        return Err(FrameError::Version(head.version));
    }
    let kind = match (head.kind, head.events) {
        (0, 1..) => FrameKind::Events,
        (1, 0) => FrameKind::Closed,
        (2, 0) => FrameKind::Continued,
        _ => return Err(FrameError::Field("kind")),
    };
    if head.mark != HEAD_MARK || !bytes.ends_with(&END_MARK) {
        return Err(FrameError::Field("mark"));
    }
    let room = bytes.len() - NOTE_BYTES;
    let (events, blobs) = (head.events as usize, head.blobs as usize);
    if events > FRAME_EVENTS_MAX || events * EVENT_BYTES > room {
        return Err(FrameError::Field("count of events"));
    }
    if blobs > FRAME_BLOBS_MAX || blobs * BLOB_HEAD_BYTES > room - events * EVENT_BYTES {
        return Err(FrameError::Field("count of blobs"));
    }
    if head.first.checked_add(u64::from(head.events)).is_none() {
        return Err(FrameError::Field("first number"));
    }
    Ok(Header {
        bytes: bytes.len(),
        checksum: stored,
        previous: Checksum(head.previous),
        shard: head.shard,
        epoch: Epoch(head.epoch),
        first: Seq(head.first),
        events: head.events,
        kind,
        blobs: head.blobs,
    })
}

/// Checks and decodes the frame at the front of `bytes`.
///
/// # Errors
///
/// [`FrameError`] names what is wrong. Events are not unpacked, so unknown kinds pass.
pub fn decode(bytes: &[u8]) -> Result<(Frame, Header), FrameError> {
    let header = check(bytes)?;
    let batch = decode_body(&header, bytes)?;
    Ok((Frame { shard: header.shard, epoch: header.epoch, batch }, header))
}

/// The batch of the frame at the front of `bytes`, which [`check`] gave `header` for.
///
/// # Errors
///
/// [`FrameError`] if the events' numbers do not count up or a blob belongs to none of them.
pub(crate) fn decode_body(header: &Header, bytes: &[u8]) -> Result<Batch, FrameError> {
    let body = &bytes[HEAD_BYTES..header.bytes - END_BYTES];
    let (events, mut rest) = body.split_at(header.events as usize * EVENT_BYTES);
    let events = wire::decode_events(events);
    check_sequence(header.first, &events)?;
    let mut blobs: Vec<(Seq, Box<[u8]>)> = Vec::with_capacity(header.blobs as usize);
    for _ in 0..header.blobs {
        let ((seq, blob), taken): ((u64, Vec<u8>), usize) =
            wire::decode(rest).map_err(|_| FrameError::Field("blob"))?;
        let after_last = blobs.last().is_none_or(|(last, _)| last.0 < seq);
        if !after_last || seq < header.first.0 || seq >= header.next_seq().0 {
            return Err(FrameError::Field("blob's event"));
        }
        blobs.push((Seq(seq), blob.into_boxed_slice()));
        rest = &rest[taken..];
    }
    if rest.len() >= FRAME_ALIGN || rest.iter().any(|byte| *byte != 0) {
        return Err(FrameError::Field("padding"));
    }
    Ok(Batch { events, blobs })
}

/// Whether `bytes`, the start of a frame as far as it reached the disk, lack a part that a
/// finished write would have left: `offset` is where they stand in their file.
///
/// Whoever writes frames into zeros leaves whole sectors of zeros, or zeros at the end, if the
/// write is cut off. A changed bit leaves neither, so it is told apart even in a log's last frame.
pub(crate) fn is_unfinished(bytes: &[u8], offset: u64) -> bool {
    const SECTOR_BYTES: u64 = 512;
    let length = match claimed_bytes(bytes) {
        Ok(length) => length,
        // The first sector is missing, or the write ended within these eight bytes.
        Err(FrameError::Length { length: 0, check: 0 }) | Err(FrameError::CutOff) => return true,
        Err(FrameError::Length { .. }) => HEAD_BYTES,
        Err(_) => return false,
    };
    let Some(written) = bytes.get(..length) else { return true };
    if written.last() == Some(&0) {
        return true;
    }
    let first_sector = (SECTOR_BYTES - offset % SECTOR_BYTES).min(length as u64) as usize;
    let (head, rest) = written.split_at(first_sector);
    let blank = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    blank(head) || rest.chunks(SECTOR_BYTES as usize).any(blank)
}

fn check_batch(first: Seq, batch: &Batch) -> Result<(), FrameError> {
    let within = |what, count, max| match count <= max {
        true => Ok(()),
        false => Err(FrameError::TooLarge { what, count, max }),
    };
    within("events", batch.events.len(), FRAME_EVENTS_MAX)?;
    within("blobs", batch.blobs.len(), FRAME_BLOBS_MAX)?;
    let blob_bytes = batch.blobs.iter().map(|(_, blob)| blob.len()).sum();
    within("bytes of blobs", blob_bytes, FRAME_BLOB_BYTES_MAX)?;
    check_sequence(first, &batch.events)?;
    match batch.events.last().map(Event::unpack) {
        Some(Ok(last)) if last.more_follows => Err(FrameError::WithinDecision(last.seq)),
        _ => Ok(()),
    }
}

fn check_sequence(first: Seq, events: &[EventWords]) -> Result<(), FrameError> {
    let count = events.len() as u64;
    if first.0.checked_add(count).is_none() {
        return Err(FrameError::Field("first number"));
    }
    for (words, expected) in events.iter().zip(first.0..first.0 + count) {
        if words[0] != expected {
            let (expected, found) = (Seq(expected), Seq(words[0]));
            return Err(FrameError::Sequence { expected, found });
        }
    }
    Ok(())
}

fn put(kind: FrameKind, origin: Origin, first: Seq, batch: &Batch, out: &mut Vec<u8>) -> Checksum {
    let start = out.len();
    let length = encoded_bytes(batch) as u32;
    out.reserve(length as usize);
    let head = Head {
        length,
        length_check: !length,
        crc32c: 0,
        previous: origin.previous.0,
        shard: origin.shard,
        epoch: origin.epoch.0,
        first: first.0,
        events: batch.events.len() as u32,
        blobs: batch.blobs.len() as u32,
        version: FRAME_VERSION,
        kind: match kind {
            FrameKind::Events => 0,
            FrameKind::Closed => 1,
            FrameKind::Continued => 2,
        },
        mark: HEAD_MARK,
    };
    wire::encode_into(&head, out);
    wire::encode_events(&batch.events, out);
    for (seq, blob) in &batch.blobs {
        wire::encode_into(&(seq.0, &blob[..]), out);
    }
    out.resize(start + length as usize - END_BYTES, 0);
    out.extend_from_slice(&END_MARK);
    let checksum = checksum(&out[start..]);
    out[start + CRC_AT..start + CRC_END].copy_from_slice(&checksum.0.to_le_bytes());
    checksum
}

fn checksum(frame: &[u8]) -> Checksum {
    Checksum(crc32c_append(crc32c(&frame[..CRC_AT]), &frame[CRC_END..]))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(word.try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests;
