//! A shard's past: its image at any event that snapshots and log still have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tmomi_engine::DECISION_EVENTS_MAX;
use tmomi_engine::event::{Body, Event};
use tmomi_engine::ids::{HoldId, Seq};

use crate::frame::Frame;
use crate::history::{History, HistoryError};
use crate::image::Image;
use crate::recovery::{self, RecoveryError};
use crate::snapshot::Snapshots;

/// What a shard was, by its log and its snapshots. They are only read, and without a lock: another
/// process may be writing them.
pub struct Past {
    history: Arc<dyn History>,
    snapshots: Option<Snapshots>,
}

impl Past {
    /// The log, and the snapshots of its shard; without them the log is read from its beginning.
    pub fn new(history: Arc<dyn History>, snapshots: Option<Snapshots>) -> Past {
        Past { history, snapshots }
    }

    /// The image at event `to`, or at the end of the frame that has it. `known`, if it is not
    /// later, is what to go on from.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub(super) fn image_at(&self, to: Seq, known: Option<Image>) -> Result<Image, RecoveryError> {
        let known = known.filter(|image| image.applied() <= to);
        let mut image = match (known, &self.snapshots) {
            (Some(image), _) => image,
            (None, Some(snapshots)) => return recovery::image_at(snapshots, &*self.history, to),
            (None, None) => Image::new(),
        };
        if image.applied() < to {
            recovery::advance(&mut image, &*self.history, to)?;
        }
        Ok(image)
    }

    /// The payment references of orders that were confirmed in these decisions, as far as the log
    /// still has them. A decision has the number of its last event.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub(super) fn payment_refs(
        &self,
        orders: &[(HoldId, Seq)],
    ) -> Result<HashMap<HoldId, String>, RecoveryError> {
        let mut found = HashMap::new();
        let wanted: HashSet<HoldId> = orders.iter().map(|(order, _)| *order).collect();
        let decided = || orders.iter().map(|(_, seq)| *seq);
        let (Some(first), Some(last)) = (decided().min(), decided().max()) else {
            return Ok(found);
        };
        let after = Seq(first.0.saturating_sub(DECISION_EVENTS_MAX as u64));
        let mut note = |frame| note_payments(frame, &wanted, &mut found);
        let done = self.read(after, last, &mut note);
        match done.as_ref().err().and_then(HistoryError::oldest) {
            Some(oldest) => self.read(Seq(oldest.0.saturating_sub(1)), last, &mut note)?,
            None => done?,
        }
        Ok(found)
    }

    fn read(&self, after: Seq, to: Seq, take: &mut impl FnMut(Frame)) -> Result<(), HistoryError> {
        let mut frames = self.history.after(after)?;
        while let Some(frame) = frames.read_to(to)? {
            take(frame);
        }
        Ok(())
    }
}

fn note_payments(frame: Frame, wanted: &HashSet<HoldId>, found: &mut HashMap<HoldId, String>) {
    let batch = frame.batch;
    let start = batch.first_seq().unwrap_or_default();
    for (seq, blob) in &batch.blobs {
        let words = batch.events.get((seq.0 - start.0) as usize);
        let event = words.and_then(|words| Event::unpack(words).ok());
        if let Some(Event { body: Body::Confirmed { hold, .. }, .. }) = event
            && wanted.contains(&hold)
        {
            found.insert(hold, String::from_utf8_lossy(blob).into_owned());
        }
    }
}
