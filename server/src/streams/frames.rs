//! What was sent to the readers of one seat stream lately, once for all of them.
//!
//! The ring is the buffer of every reader and the memory for those who come back: a reader is a
//! cursor into it. One that is overtaken by the ring's end has lost frames and is told so, which
//! bounds what a slow reader costs at a number.
//!
//! ```text
//!   base        frames, ascending                     last
//!    |   [seats 12] [counts 12] [seats 17] [seats 30]   |
//!   boundaries: a map at base and the frames after it make the map at last
//! ```

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tmomi_engine::ids::Seq;

/// Frames that are kept at most: 51 s at 20 frames a second.
const FRAMES_MAX: usize = 1_024;
/// Bytes that are kept at most.
const BYTES_MAX: usize = 4 << 20;
/// Bytes of one frame at most; a longer one costs its readers more than the map itself.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames that are given together have so many bytes at most: they are copied, and kept until the
/// reader's socket has taken them.
const GATHERED_BYTES_MAX: usize = 4 << 10;
/// A reader that is overtaken again before so many frames were made is too slow.
const LAG_AGAIN: u64 = 4 * FRAMES_MAX as u64;

const _: () = assert!(FRAME_BYTES_MAX * 4 <= BYTES_MAX);

/// What a frame tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The seats that changed since the boundary before, or that the map must be read anew.
    Seats,
    /// The free seats of sections; says all there is to say about them.
    Counts,
}

#[derive(Debug)]
struct Frame {
    seq: Seq,
    kind: Kind,
    bytes: Bytes,
}

impl Frame {
    /// Whether it is old to a client that has seen everything up to `seq`. Counts may have been
    /// sent behind the seats of the same number.
    fn is_known(&self, seq: Seq) -> bool {
        self.seq < seq || (self.seq == seq && matches!(self.kind, Kind::Seats))
    }
}

/// A reader's place in the ring: the number of the next frame, counted from the ring's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor(u64);

/// How often a reader was overtaken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    last: Option<Cursor>,
}

impl Lag {
    /// Notes that the reader, now at `cursor`, was overtaken. `true` if it stays behind: it was
    /// not for the first time within [`LAG_AGAIN`] frames.
    pub(crate) fn is_hopeless(&mut self, cursor: Cursor) -> bool {
        let before = self.last.replace(cursor);
        before.is_some_and(|before| cursor.0.saturating_sub(before.0) < LAG_AGAIN)
    }
}

/// What the ring has at a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A frame; the cursor has moved on.
    Frame(Bytes),
    /// Nothing yet.
    Nothing,
    /// The frame is gone. The cursor stands behind the last one now.
    Lagged,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Frames {
    frames: VecDeque<Frame>,
    /// The cursor of the first frame.
    first: Cursor,
    bytes: usize,
    base: Seq,
    last: Seq,
}

impl Frames {
    /// Nothing was sent, and no seat has changed after `base`.
    pub(crate) fn new(base: Seq) -> Frames {
        Frames { frames: VecDeque::new(), first: Cursor(0), bytes: 0, base, last: base }
    }

    /// Every change up to it is in a frame.
    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    /// Moves the last boundary: no seat has changed between, or its frame is pushed next.
    pub(crate) fn advance(&mut self, last: Seq) {
        debug_assert!(last >= self.last, "a stream never goes back");
        self.last = last;
    }

    /// Adds a frame at the last boundary.
    pub(crate) fn push(&mut self, kind: Kind, bytes: Bytes) {
        self.bytes += bytes.len();
        self.frames.push_back(Frame { seq: self.last, kind, bytes });
        while self.frames.len() > FRAMES_MAX || self.bytes > BYTES_MAX {
            let gone = self.frames.pop_front().expect("one frame is below the bounds");
            self.bytes -= gone.bytes.len();
            self.base = gone.seq;
            self.first.0 += 1;
        }
    }

    /// Behind the last frame.
    pub(crate) fn end(&self) -> Cursor {
        Cursor(self.first.0 + self.frames.len() as u64)
    }

    /// Where a client must go on that has seen everything up to `seq`, which may lie between two
    /// boundaries: a frame has the final states of all that changed since the boundary before it,
    /// so it also brings a later map up to date. `None` if that is too long ago.
    pub(crate) fn after(&self, seq: Seq) -> Option<Cursor> {
        if seq < self.base {
            return None;
        }
        let known = self.frames.partition_point(|frame| frame.is_known(seq));
        Some(Cursor(self.first.0 + known as u64))
    }

    /// Takes the next frame that tells something to a client that knows everything up to `floor`.
    pub(crate) fn take(&self, cursor: &mut Cursor, floor: Seq) -> Taken {
        let Some(index) = cursor.0.checked_sub(self.first.0) else {
            *cursor = self.end();
            return Taken::Lagged;
        };
        let skipped = self.frames.iter().skip(index as usize);
        let skipped = skipped.take_while(|frame| frame.is_known(floor)).count();
        cursor.0 += skipped as u64;
        let next = self.frames.get(index as usize + skipped);
        let Some(frame) = next else { return Taken::Nothing };
        cursor.0 += 1;
        Taken::Frame(frame.bytes.clone())
    }

    /// The same, with the frames after it if they are small: one write instead of several.
    pub(crate) fn gather(&self, cursor: &mut Cursor, floor: Seq) -> Taken {
        let first = match self.take(cursor, floor) {
            Taken::Frame(first) => first,
            other => return other,
        };
        let mut all = BytesMut::new();
        let mut next = *cursor;
        while let Taken::Frame(frame) = self.take(&mut next, floor) {
            let begun = all.len().max(first.len());
            if begun + frame.len() > GATHERED_BYTES_MAX {
                break;
            }
            if all.is_empty() {
                all.reserve(first.len() + frame.len());
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&frame);
            *cursor = next;
        }
        Taken::Frame(if all.is_empty() { first } else { all.freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u64) -> Bytes {
        Bytes::from(n.to_string())
    }

    fn push(frames: &mut Frames, seq: u64, kind: Kind) {
        frames.advance(Seq(seq));
        let text = if kind == Kind::Seats { frame(seq) } else { Bytes::from(format!("c{seq}")) };
        frames.push(kind, text);
    }

    /// Everything from `cursor` on.
    fn rest(frames: &Frames, mut cursor: Cursor) -> String {
        let mut texts = Vec::new();
        loop {
            match frames.take(&mut cursor, Seq(0)) {
                Taken::Frame(bytes) => texts.push(String::from_utf8_lossy(&bytes).into_owned()),
                Taken::Lagged => texts.push("lagged".to_owned()),
                Taken::Nothing => return texts.join(" "),
            }
        }
    }

    #[test]
    fn a_client_that_comes_back_gets_what_it_has_not_seen() {
        let mut frames = Frames::new(Seq(10));
        push(&mut frames, 12, Kind::Seats);
        push(&mut frames, 12, Kind::Counts);
        push(&mut frames, 17, Kind::Seats);
        push(&mut frames, 30, Kind::Counts);
        let after = |seq| frames.after(Seq(seq)).map(|cursor| rest(&frames, cursor));
        assert_eq!(after(9), None);
        assert_eq!(after(10).as_deref(), Some("12 c12 17 c30"));
        assert_eq!(after(11).as_deref(), Some("12 c12 17 c30"));
        assert_eq!(after(12).as_deref(), Some("c12 17 c30"));
        assert_eq!(after(13).as_deref(), Some("17 c30"));
        assert_eq!(after(17).as_deref(), Some("c30"));
        assert_eq!(after(31).as_deref(), Some(""));
    }

    #[test]
    fn a_reader_that_is_overtaken_is_told() {
        let mut frames = Frames::new(Seq(0));
        let mut slow = frames.end();
        (1..=FRAMES_MAX as u64).for_each(|seq| push(&mut frames, seq, Kind::Seats));
        assert_eq!(frames.take(&mut slow.clone(), Seq(0)), Taken::Frame(frame(1)));
        assert!(frames.after(Seq(0)).is_some());
        push(&mut frames, 2_000, Kind::Seats);
        assert!(frames.after(Seq(0)).is_none());
        assert!(frames.after(Seq(1)).is_some());
        assert_eq!(frames.take(&mut slow, Seq(0)), Taken::Lagged);
        assert_eq!(frames.take(&mut slow, Seq(0)), Taken::Nothing);
        push(&mut frames, 2_001, Kind::Seats);
        assert_eq!(frames.take(&mut slow, Seq(0)), Taken::Frame(frame(2_001)));
    }

    /// Planted bug: a frame that is made after a client was told a number has a smaller one.
    #[test]
    fn frames_below_what_a_client_was_told_are_left_out() {
        let mut frames = Frames::new(Seq(0));
        let mut cursor = frames.end();
        for (seq, kind) in [(4, Kind::Seats), (5, Kind::Counts), (6, Kind::Seats)] {
            push(&mut frames, seq, kind);
        }
        assert_eq!(frames.take(&mut cursor.clone(), Seq(9)), Taken::Nothing);
        assert_eq!(frames.take(&mut cursor.clone(), Seq(6)), Taken::Nothing);
        assert_eq!(frames.take(&mut cursor, Seq(5)), Taken::Frame(Bytes::from("c5")));
        assert_eq!(frames.take(&mut cursor, Seq(5)), Taken::Frame(frame(6)));
    }

    /// Planted bugs: the cursor of a frame that did not fit has moved on; the first frame is lost.
    #[test]
    fn small_frames_are_given_together_and_none_twice() {
        let mut frames = Frames::new(Seq(0));
        let mut cursor = frames.end();
        push(&mut frames, 1, Kind::Seats);
        push(&mut frames, 1, Kind::Counts);
        push(&mut frames, 2, Kind::Seats);
        frames.advance(Seq(3));
        frames.push(Kind::Seats, Bytes::from(vec![b'x'; GATHERED_BYTES_MAX]));
        push(&mut frames, 4, Kind::Seats);
        let mut given = Vec::new();
        while let Taken::Frame(bytes) = frames.gather(&mut cursor, Seq(1)) {
            given.push(bytes);
        }
        assert_eq!(given.len(), 3);
        assert_eq!((&given[0], &given[2]), (&Bytes::from("c12"), &frame(4)));
        assert_eq!(given[1].len(), GATHERED_BYTES_MAX);
    }

    #[test]
    fn a_reader_that_stays_behind_is_hopeless() {
        let mut lag = Lag::default();
        assert!(!lag.is_hopeless(Cursor(2_000)));
        assert!(!lag.is_hopeless(Cursor(2_000 + LAG_AGAIN)));
        assert!(lag.is_hopeless(Cursor(2_000 + 2 * LAG_AGAIN - 1)));
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let mut frames = Frames::new(Seq(0));
        for seq in 1..=40 {
            frames.advance(Seq(seq));
            frames.push(Kind::Seats, Bytes::from(vec![b'x'; FRAME_BYTES_MAX]));
        }
        assert_eq!(frames.bytes, BYTES_MAX);
        assert!(frames.after(Seq(35)).is_none() && frames.after(Seq(36)).is_some());
    }
}
