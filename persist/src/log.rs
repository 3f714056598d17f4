//! The log: makes decisions durable and gives them on in one order.
//!
//! ```text
//! ring -> keeper -> group commit: append, commit -> follower
//! ```
//!
//! While the shard's thread waits for a sync, decisions gather in the ring; the next commit takes
//! them all at once. Nothing is handed to the follower, and so nobody is answered, before its
//! events are durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tmomi_engine::DECISION_EVENTS_MAX;
use tmomi_engine::event::{Batch, Event};
use tmomi_engine::ids::Epoch;

use crate::clock::Clock;
use crate::frame::{self, FRAME_BLOB_BYTES_MAX, FRAME_BLOBS_MAX, FRAME_EVENTS_MAX};

/// Where committed decisions never get lost.
pub trait Log: Send {
    /// Writes `batch`, whose events follow those written before, as decided in `epoch`. Not
    /// durable before [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// [`LogError::Stalled`]: nothing was written, the same call may be made again.
    /// [`LogError::Fatal`]: nothing will ever be written again.
    fn append(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), LogError>;

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    ///
    /// [`LogError::Stalled`]: not durable yet and nothing is lost; the same call may be made again.
    /// [`LogError::Overtaken`]: before the first commit of an owner.
    /// [`LogError::Fatal`]: nobody knows what is durable of what was appended since the last
    /// commit, and every later call fails as well.
    fn commit(&mut self) -> Result<(), LogError>;

    /// Commits, and notes that the log was closed in order.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    fn seal(&mut self) -> Result<(), LogError> {
        self.commit()
    }

    /// What it takes of one decision at most, if that is less than a frame has room for.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// What a log takes of one decision at most. A decision that is larger ends it, so whoever may make
/// one asks before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of a frame.
    pub frame_bytes_max: usize,
    /// Bytes around a frame that its setting counts, too.
    pub overhead_bytes: usize,
    /// The setting that says so, in words.
    pub setting: String,
}

/// A layout that does not fit into the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the seating plan needs {needed} bytes in the log, and {setting} is {allowed}: set it to \
     {needed} or more and start the server again, or make the plan smaller"
)]
pub struct TooLarge {
    /// Bytes that opening a showtime with it takes, as the setting counts them.
    pub needed: usize,
    /// Bytes that the setting allows.
    pub allowed: usize,
    /// The setting.
    pub setting: String,
}

/// Events of the decision that opens a showtime: `Opened`, with the layout, and `LineSet`.
const OPENING_EVENTS: usize = 2;

impl Room {
    pub(crate) fn check_layout(&self, bytes: usize) -> Result<(), TooLarge> {
        let frame_bytes = frame::encoded_bytes_of(OPENING_EVENTS, std::iter::once(bytes));
        if frame_bytes <= self.frame_bytes_max {
            return Ok(());
        }
        let with_overhead = |bytes| bytes + self.overhead_bytes;
        Err(TooLarge {
            needed: with_overhead(frame_bytes),
            allowed: with_overhead(self.frame_bytes_max),
            setting: self.setting.clone(),
        })
    }
}

/// Why a log did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The disk is full or the brokers are away. Nothing is lost; try again later.
    #[error("{0}")]
    Stalled(Arc<str>),
    /// The owner before, or another one, wrote after this one had read the log and before it had
    /// begun: it must read the log again.
    #[error("{0}")]
    Overtaken(Arc<str>),
    /// The log is of no use any more. Nothing may be acknowledged.
    #[error("{0}")]
    Fatal(Arc<str>),
}

/// No log: what is committed is lost with the process. For embedding and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

impl Log for Memory {
    fn append(&mut self, _: Epoch, _: &Batch) -> Result<(), LogError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Events that are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The reign they were decided in.
    pub epoch: Epoch,
    /// The events: all that one commit covered, in order.
    pub batch: Batch,
}

/// Events of a commit at most, but for the rest of the last decision.
pub const GROUP_EVENTS_MAX: usize = 8_192;

// A group is a frame, whatever is in it, but for large blobs.
const _: () = assert!(GROUP_EVENTS_MAX + DECISION_EVENTS_MAX <= FRAME_EVENTS_MAX);
const _: () = assert!(GROUP_EVENTS_MAX + DECISION_EVENTS_MAX <= FRAME_BLOBS_MAX);

/// What one commit took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSample {
    /// Events that it made durable.
    pub events: usize,
    /// Bytes of the frames.
    pub bytes: usize,
    /// From the first byte written to durable, in ns, with all the waiting.
    pub took_ns: u64,
}

/// Called after each commit, in the shard's thread: keep it short.
pub type CommitHook = Box<dyn FnMut(&CommitSample) + Send>;

/// How the log is, for whoever answers requests.
#[derive(Debug, Default)]
pub struct LogStatus {
    // Relaxed throughout: the flags guard no other data, and whoever reads one too late waits
    // for a commit that does not come, as if he had asked a moment earlier.
    stalled: AtomicBool,
    failed: AtomicBool,
    error: Mutex<Option<LogError>>,
}

impl LogStatus {
    /// Whether it waits for room or for brokers: answer 503, it may go on by itself.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Whether it failed for ever.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether commits can be expected.
    pub fn is_accepting(&self) -> bool {
        !self.is_stalled() && !self.is_failed()
    }

    /// Why it is stalled or failed, if it is.
    pub fn error(&self) -> Option<LogError> {
        self.error.lock().clone()
    }

    fn stall(&self, error: LogError) {
        *self.error.lock() = Some(error);
        self.stalled.store(true, Ordering::Relaxed);
    }

    fn resume(&self) {
        *self.error.lock() = None;
        self.stalled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, error: LogError) {
        tracing::error!(%error, "the log failed, nothing is committed any more");
        *self.error.lock() = Some(error);
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// Commits what has gathered, a group at a time.
pub(crate) struct GroupCommit {
    log: Box<dyn Log>,
    epoch: Epoch,
    clock: Arc<dyn Clock>,
    hook: CommitHook,
    status: Arc<LogStatus>,
    /// What is to be committed: new, or the log has stalled over it.
    group: Option<Group>,
}

/// Events that are committed together.
struct Group {
    batch: Batch,
    /// How many of its frames are written.
    frames: usize,
    started_ns: u64,
}

impl GroupCommit {
    pub(crate) fn new(
        log: Box<dyn Log>,
        epoch: Epoch,
        clock: Arc<dyn Clock>,
        hook: CommitHook,
    ) -> GroupCommit {
        GroupCommit { log, epoch, clock, hook, status: Arc::default(), group: None }
    }

    pub(crate) fn status(&self) -> &Arc<LogStatus> {
        &self.status
    }

    /// Whether there is no group that waits for its commit.
    pub(crate) fn is_free(&self) -> bool {
        self.group.is_none()
    }

    /// `batch`, of [`GROUP_EVENTS_MAX`] events and what is left of a decision, is the next group.
    pub(crate) fn put(&mut self, batch: Batch) {
        assert!(self.is_free(), "a group is given up only once it is durable");
        self.group = Some(Group { batch, frames: 0, started_ns: self.clock.monotonic_ns() });
    }

    /// Commits the group; `None` if there is none, or the log has stalled and the next step tries
    /// again, or it has failed and there is no further step. Waits for the disk, but not for room.
    pub(crate) fn step(&mut self) -> Option<Committed> {
        if self.status.is_failed() {
            return None;
        }
        let mut group = self.group.take()?;
        match self.commit(&mut group) {
            Ok(()) => {
                if self.status.is_stalled() {
                    tracing::info!("the log goes on");
                    self.status.resume();
                }
                Some(self.done(group))
            }
            Err(error @ LogError::Stalled(_)) => {
                if !self.status.is_stalled() {
                    tracing::warn!(%error, "the log waits");
                }
                self.status.stall(error);
                self.group = Some(group);
                None
            }
            Err(error) => {
                self.status.fail(error);
                None
            }
        }
    }

    /// Notes that the log was closed in order, once every group is committed.
    pub(crate) fn seal(&mut self) {
        if let Err(error) = self.log.seal() {
            self.status.fail(error);
        }
    }

    /// Writes the frames of the group that are not written yet, and makes all of it durable.
    fn commit(&mut self, group: &mut Group) -> Result<(), LogError> {
        let Group { batch, frames, .. } = group;
        if !fits_one_frame(batch) {
            for piece in pieces(batch).skip(*frames) {
                self.log.append(self.epoch, &piece)?;
                *frames += 1;
            }
        } else if *frames == 0 {
            self.log.append(self.epoch, batch)?;
            *frames = 1;
        }
        self.log.commit()
    }

    fn done(&mut self, group: Group) -> Committed {
        let Group { batch, started_ns, .. } = group;
        let sample = CommitSample {
            events: batch.events.len(),
            bytes: frame::encoded_bytes(&batch),
            took_ns: self.clock.monotonic_ns().saturating_sub(started_ns),
        };
        (self.hook)(&sample);
        Committed { epoch: self.epoch, batch }
    }
}

fn fits_one_frame(batch: &Batch) -> bool {
    let blob_bytes: usize = batch.blobs.iter().map(|(_, blob)| blob.len()).sum();
    blob_bytes <= FRAME_BLOB_BYTES_MAX
}

/// Whole decisions of a batch whose blobs are too large for a frame: one decision with a blob, and
/// those before it, at a time.
fn pieces(batch: &Batch) -> impl Iterator<Item = Batch> {
    let mut rest = &batch.events[..];
    let mut blobs = batch.blobs.iter().peekable();
    std::iter::from_fn(move || {
        let mut piece = Batch::default();
        while let Some((words, others)) = rest.split_first() {
            let event: Event = Event::unpack(words).expect("it came from the ring");
            piece.events.push(*words);
            piece.blobs.extend(blobs.next_if(|(of, _)| *of == event.seq).cloned());
            rest = others;
            if !event.more_follows && !piece.blobs.is_empty() {
                break;
            }
        }
        (!piece.events.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tmomi_engine::event::Body;
    use tmomi_engine::ids::{Seq, ShowtimeId, TimeMs};

    fn event(seq: u64, more_follows: bool, has_blob: bool) -> [u64; 8] {
        let body = Body::EpochStart { epoch: Epoch(1), node: seq };
        let (seq, at, showtime) = (Seq(seq), TimeMs(5), ShowtimeId(0));
        Event { seq, at, showtime, more_follows, has_blob, body }.pack()
    }

    /// Planted bug: cut behind the event with the blob, in the middle of its decision.
    #[test]
    fn a_group_with_too_large_blobs_is_cut_between_decisions() {
        let events = vec![
            event(1, false, false),
            event(2, true, true),
            event(3, false, false),
            event(4, false, true),
            event(5, false, false),
        ];
        let blob = |length: usize| Box::<[u8]>::from(vec![7; length]);
        let blobs = vec![(Seq(2), blob(FRAME_BLOB_BYTES_MAX)), (Seq(4), blob(1))];
        let batch = Batch { events, blobs };
        assert!(!fits_one_frame(&batch));
        let cut: Vec<_> = pieces(&batch).collect();
        let shape: Vec<_> =
            cut.iter().map(|p| (p.first_seq(), p.events.len(), p.blobs.len())).collect();
        assert_eq!(shape, [(Some(Seq(1)), 3, 1), (Some(Seq(4)), 1, 1), (Some(Seq(5)), 1, 0)]);
        assert!(cut.iter().all(fits_one_frame));
    }
}
