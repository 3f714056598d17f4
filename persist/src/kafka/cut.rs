//! A batch as records that the topic takes.

use tmomi_engine::event::{Batch, Event};
use tmomi_engine::ids::{Epoch, Seq};

use super::error::TopicFault;
use crate::frame::{self, Checksum};

/// A frame on its way to the topic.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: Checksum,
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) events: usize,
}

/// Encodes `batch` as frames of at most `bytes_max` bytes, each of whole decisions, as a
/// continuation of `previous`.
///
/// # Errors
///
/// [`TopicFault::TooLarge`] if a decision is larger than that.
pub(super) fn encode(
    shard: u32,
    epoch: Epoch,
    mut previous: Checksum,
    batch: &Batch,
    bytes_max: usize,
) -> Result<Vec<Encoded>, TopicFault> {
    let mut encoded = Vec::with_capacity(1);
    let mut put = |piece: &Batch| {
        let (first, last) = (piece.first_seq(), piece.last_seq());
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        let bytes = frame::encoded_bytes(piece);
        if bytes > bytes_max {
            return Err(TopicFault::TooLarge { seq: first, bytes, max: bytes_max });
        }
        let mut out = Vec::with_capacity(bytes);
        let checksum = frame::encode(shard, epoch, previous, piece, &mut out);
        previous = checksum.expect("the log gives whole decisions that count up");
        let events = piece.events.len();
        encoded.push(Encoded { bytes: out, checksum: previous, first, last, events });
        Ok(())
    };
    if frame::encoded_bytes(batch) <= bytes_max {
        put(batch)?;
    } else {
        pieces(batch, bytes_max).iter().try_for_each(put)?;
    }
    Ok(encoded)
}

/// As many whole decisions as fit, at a time; one that does not fit alone.
fn pieces(batch: &Batch, bytes_max: usize) -> Vec<Batch> {
    let mut pieces = vec![Batch::default()];
    let mut blobs = batch.blobs.iter().peekable();
    let more = |words: &&_| Event::unpack(words).is_ok_and(|event| event.more_follows);
    let mut rest = &batch.events[..];
    while !rest.is_empty() {
        let events = (rest.iter().take_while(more).count() + 1).min(rest.len());
        let (decision, others) = rest.split_at(events);
        rest = others;
        let last = decision[events - 1][0];
        let mut own = Vec::new();
        while let Some(blob) = blobs.next_if(|(seq, _)| seq.0 <= last) {
            own.push(blob.clone());
        }
        let alone = Batch { events: decision.to_vec(), blobs: own };
        let piece = pieces.last_mut().expect("there is one");
        // Both count a head and an end, so this is a little more than they take together.
        let together = frame::encoded_bytes(piece) + frame::encoded_bytes(&alone);
        if piece.events.is_empty() || together <= bytes_max {
            piece.events.extend(alone.events);
            piece.blobs.extend(alone.blobs);
        } else {
            pieces.push(alone);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::event::Body;
    use tmomi_engine::ids::{ShowtimeId, TimeMs};

    fn event(seq: u64, more_follows: bool) -> [u64; 8] {
        let body = Body::EpochStart { epoch: Epoch(1), node: seq };
        let (seq, at, showtime) = (Seq(seq), TimeMs(5), ShowtimeId(0));
        Event { seq, at, showtime, more_follows, has_blob: false, body }.pack()
    }

    /// R2; planted: a group is cut within a decision, so a crash keeps half of it.
    #[test]
    fn a_group_is_cut_between_decisions_and_the_pieces_are_a_chain() {
        let follows = [false, true, true, false, false, true, false];
        let events = follows.iter().zip(1..).map(|(more, seq)| event(seq, *more)).collect();
        let batch =
            Batch { events, blobs: vec![(Seq(2), vec![7; 100].into()), (Seq(7), [8].into())] };
        let pieces = encode(3, Epoch(1), Checksum(9), &batch, 400).expect("decisions are small");
        let shape: Vec<_> = pieces.iter().map(|p| (p.first.0, p.last.0, p.events)).collect();
        assert_eq!(shape, [(1, 1, 1), (2, 4, 3), (5, 7, 3)]);
        let (mut previous, mut together) = (Checksum(9), Batch::default());
        for piece in pieces {
            assert!(piece.bytes.len() <= 400);
            let (frame, header) = frame::decode(&piece.bytes).expect("a frame");
            assert_eq!((header.previous, header.checksum), (previous, piece.checksum));
            previous = piece.checksum;
            together.events.extend(frame.batch.events);
            together.blobs.extend(frame.batch.blobs);
        }
        assert_eq!(together, batch);
    }

    #[test]
    fn a_decision_that_the_topic_does_not_take_is_named_with_what_would_be_enough() {
        let batch = Batch { events: vec![event(1, true), event(2, false)], blobs: Vec::new() };
        let fault = encode(0, Epoch(1), Checksum::NONE, &batch, 150).expect_err("it is larger");
        assert_eq!(fault, TopicFault::TooLarge { seq: Seq(1), bytes: 184, max: 150 });
        assert!(fault.to_string().contains("max.message.bytes"), "{fault}");
    }
}
