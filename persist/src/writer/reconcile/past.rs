//! A shard's past: its image at any event that snapshots and log still have.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tmomi_engine::DECISION_EVENTS_MAX;
use tmomi_engine::event::{Body, Event};
use tmomi_engine::ids::{HoldId, Seq};

use crate::history::JournalHistory;
use crate::image::Image;
use crate::journal::{JournalError, Reader};
use crate::recovery::{self, RecoveryError};
use crate::snapshot::Snapshots;

/// What a shard was.
pub trait Past: Send + Sync {
    /// The image at event `to`, or at the end of the frame that has it. `known`, if it is not
    /// later, is what to go on from.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    fn image_at(&self, to: Seq, known: Option<Image>) -> Result<Image, RecoveryError>;

    /// The payment references of orders that were confirmed in these decisions, as far as the log
    /// still has them. A decision has the number of its last event.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    fn payment_refs(
        &self,
        orders: &[(HoldId, Seq)],
    ) -> Result<HashMap<HoldId, String>, RecoveryError> {
        let _ = orders;
        Ok(HashMap::new())
    }
}

/// The past that a journal and its snapshots have. The journal is read without a lock: another
/// process may be writing it.
pub struct JournalPast {
    snapshots: Snapshots,
    dir: PathBuf,
}

impl JournalPast {
    /// The journal in `dir`, and the snapshots of its shard.
    pub fn new(dir: PathBuf, snapshots: Snapshots) -> JournalPast {
        JournalPast { snapshots, dir }
    }

    /// A reader after `after`, or from the beginning if that is later.
    fn reader(&self, after: Seq) -> Result<Reader, JournalError> {
        match Reader::open(&self.dir, after) {
            Err(JournalError::Removed { oldest, .. }) => {
                Reader::open(&self.dir, Seq(oldest.0.saturating_sub(1)))
            }
            opened => opened,
        }
    }
}

impl Past for JournalPast {
    fn image_at(&self, to: Seq, known: Option<Image>) -> Result<Image, RecoveryError> {
        let history = JournalHistory(self.dir.clone());
        match known.filter(|image| image.applied() <= to) {
            Some(mut image) => {
                recovery::advance(&mut image, &history, to)?;
                Ok(image)
            }
            None => recovery::image_at(&self.snapshots, &history, to),
        }
    }

    fn payment_refs(
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
        let mut reader = self.reader(after)?;
        while let Some(frame) = reader.read_to(last)? {
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
        Ok(found)
    }
}
