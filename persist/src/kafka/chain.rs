//! Which records of a partition count.
//!
//! A partition has the frames of one log, and beside them what must change nothing: frames of a
//! reign that has ended, from an owner that has not noticed; frames that came twice; the first
//! frame of a reign that began while the one before was still writing.
//!
//! ```text
//! frame's epoch   below ours     void: its reign has ended
//!                 ours           known events: void; the next ones, in the chain: it counts
//!                 above ours     a reign begins. With the next event, in the chain: it counts.
//!                                Known events: it only ends the reigns before it, and its owner
//!                                must look again and begin once more
//! anything else                  a record is missing, changed or of another log
//! ```
//!
//! Every reader goes by this, the owner as well, so all of them see the same log.

use tmomi_engine::ids::{Epoch, Seq};

use crate::frame::{Checksum, FrameKind, Header};

/// How far a reader has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The highest reign that was met.
    pub(super) epoch: Epoch,
    /// The last event.
    pub(super) last: Seq,
    /// The frame that has it.
    pub(super) checksum: Checksum,
    /// Whether the frames before are known. If not, the next one is believed.
    is_known: bool,
}

/// What a frame is to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It has the next events.
    Next,
    /// Its reign has ended.
    Stale,
    /// Its events are known.
    Repeated,
    /// It ends the reigns before it, and its own has not begun.
    Fence,
}

/// Why a frame cannot stand where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// Events are missing before it.
    #[error("event {found} stands where {expected} belongs")]
    Gap {
        /// The event that belongs there.
        expected: Seq,
        /// The event that stands there.
        found: Seq,
    },
    /// It names another frame as the one before it.
    #[error("it follows a frame with checksum {found}, and the one before it has {expected}")]
    Chain {
        /// The checksum of the frame before.
        expected: Checksum,
        /// The checksum it names.
        found: Checksum,
    },
    /// A reign without a beginning.
    #[error("epoch {0} begins without an EpochStart")]
    Reign(Epoch),
    /// It has no events.
    #[error("it is a note of a journal, without events")]
    Note,
}

impl Chain {
    /// Before the first frame of a log.
    pub(super) const START: Chain =
        Chain { epoch: Epoch(0), last: Seq(0), checksum: Checksum::NONE, is_known: true };

    /// Somewhere in a log: the first frame is believed.
    pub(super) const SOMEWHERE: Chain = Chain { is_known: false, ..Chain::START };

    /// Whether a frame was met.
    pub(super) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Looks at the next frame and goes on behind it. `begins` is the reign that its first event
    /// starts, if it does.
    pub(super) fn admit(
        &mut self,
        header: &Header,
        begins: Option<Epoch>,
    ) -> Result<Verdict, Broken> {
        if header.kind != FrameKind::Events {
            return Err(Broken::Note);
        }
        if !self.is_known {
            self.take(header);
            return Ok(Verdict::Next);
        }
        if header.epoch < self.epoch {
            return Ok(Verdict::Stale);
        }
        let expected = self.last.next();
        if header.first > expected {
            return Err(Broken::Gap { expected, found: header.first });
        }
        let is_reign = header.epoch > self.epoch;
        if is_reign && begins != Some(header.epoch) {
            return Err(Broken::Reign(header.epoch));
        }
        if header.first < expected {
            if is_reign {
                self.epoch = header.epoch;
                return Ok(Verdict::Fence);
            }
            if header.next_seq() <= expected {
                return Ok(Verdict::Repeated);
            }
        }
        if header.previous != self.checksum {
            return Err(Broken::Chain { expected: self.checksum, found: header.previous });
        }
        self.take(header);
        Ok(Verdict::Next)
    }

    fn take(&mut self, header: &Header) {
        let last = Seq(header.next_seq().0 - 1);
        let (epoch, checksum) = (header.epoch, header.checksum);
        *self = Chain { epoch, last, checksum, is_known: true };
    }
}
