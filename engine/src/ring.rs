//! The event ring: many threads write decisions, one reads them in sequence.
//!
//! A decision takes its sequence numbers with one `fetch_add`, writes its events into the slots
//! of those numbers and publishes each by storing the number into the slot's first word. The
//! reader takes slot after slot while the first word is the number it expects, and gives out
//! whole decisions only.
//!
//! Room is looked for *before* anything is decided, so that there is never a decision without an
//! event. No shared counter of reservations is needed: a registered writer adds at most
//! [`WRITER_EVENTS_MAX`] events between two looks, so `writers * that` slots of slack are enough. A
//! look reads the two words that every writer and the reader write, so a [`Writer`] looks only once
//! for [`LOOK_EVENTS`] events.

use crossbeam::queue::SegQueue;
use crossbeam::utils::CachePadded;
use std::cell::Cell;
use std::sync::Arc;

use crate::event::{self, Batch, EventWords, PARTS_PER_MORE};
use crate::ids::Seq;
use crate::sync::{AtomicU64, Ordering};
use crate::table::Words;

/// Parts of a decision at most: the blocks that one hold or block order may touch.
pub const PARTS_MAX: usize = if cfg!(shuttle) { 8 } else { 1024 };
/// Events of a decision at most.
pub const DECISION_EVENTS_MAX: usize = 1 + (PARTS_MAX - 1).div_ceil(PARTS_PER_MORE);

/// Events that a writer may claim before the decision for which it looks for room again.
pub(crate) const LOOK_EVENTS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };
/// Events that a handle adds at most before it looks again whether there is room.
pub const WRITER_EVENTS_MAX: usize = LOOK_EVENTS + DECISION_EVENTS_MAX;

/// Words of a slot, one cache line.
const SLOT_WORDS: usize = 8;

pub(crate) struct Ring {
    slots: Words,
    slot_mask: u64,
    slack: u64,
    /// The last number claimed.
    claimed: CachePadded<AtomicU64>,
    /// The last number the reader is done with.
    consumed: CachePadded<AtomicU64>,
    blobs: SegQueue<(Seq, Box<[u8]>)>,
}

impl Ring {
    /// A ring whose first number is `applied + 1`, for at most `writers` threads.
    ///
    /// Panics unless `slots` is a power of two with room for what every writer may add.
    pub(crate) fn new(slots: usize, writers: usize, applied: Seq) -> (Arc<Ring>, RingReader) {
        Ring::with_slack(slots, writers * WRITER_EVENTS_MAX, applied)
    }

    pub(crate) fn with_slack(slots: usize, slack: usize, from: Seq) -> (Arc<Ring>, RingReader) {
        assert!(slots.is_power_of_two(), "the ring has a power of two of slots");
        assert!(slack <= slots, "a ring of {slots} slots needs {slack} for its writers alone");
        let ring = Arc::new(Ring {
            slots: Words::new(slots * SLOT_WORDS),
            slot_mask: slots as u64 - 1,
            slack: slack as u64,
            claimed: CachePadded::new(AtomicU64::new(from.0)),
            consumed: CachePadded::new(AtomicU64::new(from.0)),
            blobs: SegQueue::new(),
        });
        let reader = RingReader { ring: Arc::clone(&ring), next: from.0 + 1, strays: Vec::new() };
        (ring, reader)
    }

    /// Whether a registered writer may make decisions now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        // Acquire pairs with the reader's Release store: whoever writes a slot after this look
        // writes after the reader has copied what was in it. `claimed` may be stale, by at most
        // what the other writers claim meanwhile, and the slack has room for that.
        let consumed = self.consumed.load(Ordering::Acquire);
        self.claimed.load(Ordering::Acquire) + self.slack <= consumed + self.slot_mask + 1
    }

    /// Events it has room for beside the slack.
    pub(crate) fn room(&self) -> u64 {
        self.slot_mask + 1 - self.slack
    }

    /// Takes `count` consecutive numbers and gives the first.
    #[inline]
    pub(crate) fn claim(&self, count: usize) -> Seq {
        debug_assert!(0 < count && count <= DECISION_EVENTS_MAX);
        // Two decisions about one seat are ordered by the seat's own word (Release when it is given
        // back, Acquire when it is taken), and of two additions that are so ordered the first gets
        // the lower number. AcqRel: what the writers before had looked at in `has_room`, this one
        // has, so that all that was read from its slot is before what it writes there.
        Seq(self.claimed.fetch_add(count as u64, Ordering::AcqRel) + 1)
    }

    /// Gives the event to the reader. `words[0]` is a number from `claim`.
    #[inline]
    pub(crate) fn publish(&self, words: &EventWords) {
        let slot: &[AtomicU64; SLOT_WORDS] = self.slots.row((words[0] & self.slot_mask) as usize);
        for n in 1..SLOT_WORDS {
            slot[n].store(words[n], Ordering::Relaxed);
        }
        // Release pairs with the reader's Acquire load of the same word.
        slot[0].store(words[0], Ordering::Release);
    }

    /// Lays the blob of event `seq` down; before that event is published.
    pub(crate) fn attach(&self, seq: Seq, blob: Box<[u8]>) {
        self.blobs.push((seq, blob));
    }

    /// The last number claimed so far.
    pub(crate) fn claimed(&self) -> Seq {
        Seq(self.claimed.load(Ordering::Acquire))
    }

    /// Events claimed and not yet read.
    pub(crate) fn depth(&self) -> u64 {
        let consumed = self.consumed.load(Ordering::Acquire);
        self.claimed.load(Ordering::Relaxed).saturating_sub(consumed)
    }
}

/// One of the registered writers.
pub(crate) struct Writer {
    ring: Arc<Ring>,
    /// Events before the next look for room.
    left: Cell<usize>,
}

impl Writer {
    pub(crate) fn new(ring: Arc<Ring>) -> Writer {
        Writer { ring, left: Cell::new(0) }
    }

    /// Whether it may make a decision now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        if self.left.get() == 0 && self.ring.has_room() {
            self.left.set(LOOK_EVENTS);
        }
        self.left.get() > 0
    }

    /// Takes `count` consecutive numbers and gives the first.
    #[inline]
    pub(crate) fn claim(&self, count: usize) -> Seq {
        self.left.set(self.left.get().saturating_sub(count));
        self.ring.claim(count)
    }

    /// The ring that it writes.
    #[inline]
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// The one reader.
pub(crate) struct RingReader {
    ring: Arc<Ring>,
    next: u64,
    /// Blobs that came off the queue before their event was reached.
    strays: Vec<(Seq, Box<[u8]>)>,
}

impl RingReader {
    /// Moves whole decisions into `out` until nothing more is published or at least `events_max`
    /// events were moved, and says how many.
    pub(crate) fn drain(&mut self, out: &mut Batch, events_max: usize) -> usize {
        let start = out.events.len();
        let mut whole = start;
        let mut next = self.next;
        while whole - start < events_max {
            let slot: &[AtomicU64; SLOT_WORDS] =
                self.ring.slots.row((next & self.ring.slot_mask) as usize);
            // Acquire pairs with the Release store in `publish`.
            if slot[0].load(Ordering::Acquire) != next {
                break;
            }
            let mut words = [next; SLOT_WORDS];
            for (to, from) in words.iter_mut().zip(slot).skip(1) {
                *to = from.load(Ordering::Relaxed);
            }
            next += 1;
            out.events.push(words);
            if !event::more_follows(&words) {
                whole = out.events.len();
            }
        }
        out.events.truncate(whole);
        self.take_blobs(out, start);
        let moved = whole - start;
        if moved > 0 {
            self.next += moved as u64;
            // Release pairs with the Acquire load in `has_room`.
            self.ring.consumed.store(self.next - 1, Ordering::Release);
        }
        moved
    }

    fn take_blobs(&mut self, out: &mut Batch, start: usize) {
        for words in &out.events[start..] {
            if !event::has_blob(words) {
                continue;
            }
            let seq = Seq(words[0]);
            while self.strays.iter().all(|(of, _)| *of != seq) {
                self.strays.push(self.ring.blobs.pop().expect("laid down before its event"));
            }
            let at = self.strays.iter().position(|(of, _)| *of == seq).expect("just found");
            out.blobs.push(self.strays.swap_remove(at));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::event::{Body, Event};
    use crate::ids::{Epoch, ShowtimeId, TimeMs};

    fn event(seq: u64, more_follows: bool, has_blob: bool) -> EventWords {
        let body = Body::EpochStart { epoch: Epoch(1), node: seq };
        let (seq, at, showtime) = (Seq(seq), TimeMs(5), ShowtimeId(0));
        Event { seq, at, showtime, more_follows, has_blob, body }.pack()
    }

    #[test]
    fn a_decision_that_is_half_published_is_not_given_out() {
        let (ring, mut reader) = Ring::with_slack(8, 4, Seq(0));
        assert_eq!(ring.claim(1), Seq(1));
        assert_eq!(ring.claim(2), Seq(2));
        ring.publish(&event(2, true, false));
        let mut batch = Batch::default();
        assert_eq!(reader.drain(&mut batch, 100), 0);
        ring.publish(&event(1, false, false));
        assert_eq!(reader.drain(&mut batch, 100), 1);
        ring.publish(&event(3, false, false));
        assert_eq!(reader.drain(&mut batch, 1), 2);
        assert_eq!(batch.last_seq(), Some(Seq(3)));
    }

    #[test]
    fn room_is_back_when_the_reader_has_read() {
        let (ring, mut reader) = Ring::with_slack(8, 4, Seq(100));
        for seq in 101..=105 {
            assert!(ring.has_room());
            assert_eq!(ring.claim(1), Seq(seq));
            ring.publish(&event(seq, false, false));
        }
        assert!(!ring.has_room());
        assert_eq!(reader.drain(&mut Batch::default(), 1), 1);
        assert!(ring.has_room());
    }

    #[test]
    fn a_blob_finds_its_event() {
        let (ring, mut reader) = Ring::with_slack(8, 4, Seq(0));
        ring.claim(2);
        ring.attach(Seq(2), Box::from(*b"second"));
        ring.attach(Seq(1), Box::from(*b"first"));
        ring.publish(&event(1, false, true));
        ring.publish(&event(2, false, true));
        let mut batch = Batch::default();
        reader.drain(&mut batch, 1);
        assert_eq!(batch.blobs, [(Seq(1), Box::from(*b"first"))]);
        reader.drain(&mut batch, 1);
        assert_eq!(batch.blobs[1], (Seq(2), Box::from(*b"second")));
    }
}
