//! Writing a decision into the ring: claim its numbers, fill its events, publish them.

use crate::event::{Body, Event, PARTS_PER_MORE};
use crate::ids::{Part, Seq, ShowtimeId, TimeMs};
use crate::ring::Writer;

/// Numbers that are claimed and must be published: a gap would stop the reader for ever.
#[must_use = "claimed numbers must be published"]
pub(crate) struct Decision<'a> {
    writer: &'a Writer,
    at: TimeMs,
    showtime: ShowtimeId,
    first: Seq,
    count: usize,
}

impl<'a> Decision<'a> {
    /// Claims `count` numbers.
    pub(crate) fn claim(
        writer: &'a Writer,
        at: TimeMs,
        showtime: ShowtimeId,
        count: usize,
    ) -> Decision<'a> {
        Decision { writer, at, showtime, first: writer.claim(count), count }
    }

    /// Claims the numbers of one event with these parts.
    #[inline]
    pub(crate) fn claim_for(
        writer: &'a Writer,
        at: TimeMs,
        showtime: ShowtimeId,
        parts: &[Part],
    ) -> Decision<'a> {
        let further = if parts.len() > 1 { (parts.len() - 1).div_ceil(PARTS_PER_MORE) } else { 0 };
        Decision::claim(writer, at, showtime, 1 + further)
    }

    pub(crate) fn first_seq(&self) -> Seq {
        self.first
    }

    /// Publishes the only event.
    pub(crate) fn publish(self, body: Body) -> Seq {
        self.publish_all(&[body])
    }

    /// Publishes as many events as were claimed; gives the last number.
    pub(crate) fn publish_all(self, bodies: &[Body]) -> Seq {
        debug_assert_eq!(bodies.len(), self.count);
        bodies.iter().enumerate().for_each(|(n, body)| self.put(n, *body, false));
        self.last_seq()
    }

    /// As `publish_all`; the blob is the first event's.
    pub(crate) fn publish_with_blob(self, bodies: &[Body], blob: Box<[u8]>) -> Seq {
        debug_assert_eq!(bodies.len(), self.count);
        self.writer.ring().attach(self.first, blob);
        bodies.iter().enumerate().for_each(|(n, body)| self.put(n, *body, n == 0));
        self.last_seq()
    }

    /// Publishes `body`, which has the first part, and the rest of `parts` behind it.
    // Inlined with `pack`, so that the words of the one kind of event go straight into the ring.
    #[inline(always)]
    pub(crate) fn publish_parts(self, body: Body, parts: &[Part], blob: Option<Box<[u8]>>) -> Seq {
        let has_blob = blob.is_some();
        if let Some(blob) = blob {
            self.writer.ring().attach(self.first, blob);
        }
        self.put(0, body, has_blob);
        if parts.len() > 1 {
            self.put_further(&parts[1..]);
        }
        self.last_seq()
    }

    #[inline(never)]
    fn put_further(&self, parts: &[Part]) {
        for (n, chunk) in parts.chunks(PARTS_PER_MORE).enumerate() {
            let mut more = [Part::default(); PARTS_PER_MORE];
            more[..chunk.len()].copy_from_slice(chunk);
            self.put(n + 1, Body::More { parts: more }, false);
        }
    }

    #[inline(always)]
    fn put(&self, n: usize, body: Body, has_blob: bool) {
        let event = Event {
            seq: Seq(self.first.0 + n as u64),
            at: self.at,
            showtime: self.showtime,
            more_follows: n + 1 < self.count,
            has_blob,
            body,
        };
        self.writer.ring().publish(&event.pack());
    }

    fn last_seq(&self) -> Seq {
        Seq(self.first.0 + self.count as u64 - 1)
    }
}
