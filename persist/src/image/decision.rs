//! Reading decisions out of a batch.

use std::ops::Range;

use tmomi_engine::event::{Batch, Body, Event, EventWords};
use tmomi_engine::ids::{Part, Seq, TimeMs};

use super::divergence::{Contradiction, Divergence};

/// The events of one decision and the seats of its seat event.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    events: Vec<Event>,
}

impl Decision {
    /// Reads the decision at the front of `words`, over what was there before.
    ///
    /// # Errors
    ///
    /// [`Divergence`] if it is cut off or has an event that this version does not know.
    pub fn read(&mut self, words: &[EventWords]) -> Result<(), Divergence> {
        self.read_some(words, 1)
    }

    /// Reads whole decisions at the front of `words` until there are `events_min` events, over
    /// what was there before: one decision at least, and none behind one that cannot be read.
    pub(super) fn read_some(
        &mut self,
        words: &[EventWords],
        events_min: usize,
    ) -> Result<(), Divergence> {
        self.events.clear();
        let mut whole = 0;
        for words in words {
            let event = match Event::unpack(words) {
                Ok(event) => event,
                Err(bad) => return self.cut_to(whole, bad.seq, bad.into()),
            };
            self.events.push(event);
            if !event.more_follows {
                whole = self.events.len();
                if whole >= events_min {
                    return Ok(());
                }
            }
        }
        let seq = self.events.last().map(|event| event.seq).unwrap_or_default();
        self.cut_to(whole, seq, Contradiction::Cut)
    }

    /// Leaves the `whole` first events, or says what is wrong with the first decision.
    fn cut_to(&mut self, whole: usize, seq: Seq, what: Contradiction) -> Result<(), Divergence> {
        if whole > 0 {
            self.events.truncate(whole);
            return Ok(());
        }
        let known = match what {
            Contradiction::Cut => self.events.last(),
            _ => self.events.first(),
        };
        let showtime = known.map(|event| event.showtime).unwrap_or_default();
        Err(Divergence { seq, showtime, what })
    }

    /// Its events, at least one once it was read.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The number of its last event; what whoever asked for it waits for.
    pub fn last_seq(&self) -> Seq {
        self.events.last().map(|event| event.seq).unwrap_or_default()
    }

    /// The seats of the event at `index`: its first part and those of the `More` events behind it.
    /// Empty if it is not about seats.
    pub fn parts(&self, index: usize) -> impl Iterator<Item = Part> {
        parts(&self.events, index)
    }
}

/// As [`Decision::parts`], of the events of one decision.
pub(super) fn parts(decision: &[Event], index: usize) -> impl Iterator<Item = Part> {
    let first = decision.get(index).and_then(|event| event.body.first_part());
    let behind = first.map_or(&[][..], |_| &decision[index + 1..]);
    let more = behind.iter().map_while(|event| match event.body {
        Body::More { parts } => Some(parts),
        _ => None,
    });
    first.into_iter().chain(more.flatten()).filter(|part| part.mask != 0)
}

/// The end of the session, if the decision lets somebody in.
pub(super) fn admitted_until(decision: &[Event]) -> Option<TimeMs> {
    decision.iter().find_map(|event| match event.body {
        Body::Admitted { until, .. } => Some(until),
        _ => None,
    })
}

/// Whether the `More` event at `index` belongs to a seat event before it.
pub(super) fn continues_seats(decision: &[Event], index: usize) -> bool {
    let before = decision[..index].iter().rev();
    let head = before.map(|event| &event.body).find(|body| !matches!(body, Body::More { .. }));
    head.is_some_and(|body| body.first_part().is_some())
}

/// Cuts a batch between decisions into ranges of about `events_max` events.
pub(crate) fn slices(batch: &Batch, events_max: usize) -> impl Iterator<Item = Range<usize>> {
    let events = &batch.events;
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut end = (start + events_max.max(1)).min(events.len());
        while end < events.len() && Event::unpack(&events[end - 1]).is_ok_and(|e| e.more_follows) {
            end += 1;
        }
        let range = start..end;
        start = end;
        (!range.is_empty()).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::ids::{BlockIndex, EntryId, HoldSlot, RequestKey, ShowtimeId, TimeMs};

    fn part(block: u32) -> Part {
        Part { block: BlockIndex(block), mask: 1 }
    }

    /// One hold of as many parts as given, after another.
    fn holds(parts: &[u32]) -> Batch {
        let mut batch = Batch::default();
        for &count in parts {
            let more = (count - 1).div_ceil(3);
            for n in 0..=more {
                let rest = |at: u32| if at < count { part(at) } else { Part::default() };
                let (slot, entry, key) = (HoldSlot(0), EntryId(0), RequestKey::NONE);
                let body = match n {
                    0 => Body::Held { slot, entry, ttl_ms: 1, first: part(0), key },
                    _ => Body::More { parts: [3 * n - 2, 3 * n - 1, 3 * n].map(rest) },
                };
                let event = Event {
                    seq: Seq(batch.events.len() as u64 + 1),
                    at: TimeMs(1),
                    showtime: ShowtimeId(1),
                    more_follows: n < more,
                    has_blob: false,
                    body,
                };
                batch.events.push(event.pack());
            }
        }
        batch
    }

    #[test]
    fn a_batch_is_cut_between_decisions_only() {
        let batch = holds(&[1, 9, 1, 1, 4]);
        let cuts = |most| slices(&batch, most).map(|range| range.end).collect::<Vec<_>>();
        assert_eq!(cuts(1), [1, 5, 6, 7, 9]);
        assert_eq!(cuts(2), [5, 7, 9]);
        assert_eq!(cuts(100), [9]);
    }

    #[test]
    fn a_decision_has_all_parts_of_its_seat_event() {
        let batch = holds(&[5, 1]);
        let mut decision = Decision::default();
        decision.read(&batch.events).expect("whole");
        assert_eq!((decision.events().len(), decision.last_seq()), (3, Seq(3)));
        let blocks: Vec<u32> = decision.parts(0).map(|part| part.block.0).collect();
        assert_eq!(blocks, [0, 1, 2, 3, 4]);
        let continues = |index| continues_seats(decision.events(), index);
        assert!(!continues(0) && continues(2));
        assert!(decision.read(&batch.events[..2]).is_err());
    }
}
