//! The log: makes decisions durable and gives them on in one order.
//!
//! ```text
//! ring -> keeper -> [batches] -> group commit: gather, append, commit -> [committed] -> follower
//! ```
//!
//! One thread has the log. While it waits for a sync, batches gather; the next commit takes them
//! all at once. Nothing is handed to the follower, and so nobody is answered, before its events
//! are durable.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;
use tmomi_engine::event::{Batch, Event};
use tmomi_engine::ids::{Epoch, Seq};

use crate::clock::Clock;
use crate::frame::{self, FRAME_BYTES_MAX, FRAME_EVENTS_MAX};

/// How long a full disk is left alone before it is tried again, in ms.
pub const NO_SPACE_RETRY_MS: u64 = 200;

/// Where committed decisions never get lost.
pub trait Log: Send {
    /// Writes `batch`, whose events follow those written before, as decided in `epoch`. Not
    /// durable before [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// [`LogError::NoSpace`]: nothing was written, the same call may be made again.
    /// [`LogError::Fatal`]: nothing will ever be written again.
    fn append(&mut self, epoch: Epoch, batch: &Batch) -> Result<(), LogError>;

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    ///
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
}

/// Why a log did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no room. Nothing was written and nothing is lost; try again later.
    #[error("{0}")]
    NoSpace(Arc<str>),
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

/// What one commit took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitSample {
    /// Batches that had gathered.
    pub batches: usize,
    /// Events in them.
    pub events: usize,
    /// Bytes of the frames.
    pub bytes: usize,
    /// From the first byte written to durable, in ns, waiting for room included.
    pub took_ns: u64,
}

/// Called after each commit, in the log's thread: keep it short.
pub type CommitHook = Box<dyn FnMut(&CommitSample) + Send>;

/// Limits of the group commit.
#[derive(Clone, Copy, Debug)]
pub struct CommitConfig {
    /// Bytes of one commit at most, as far as whole batches allow.
    pub group_bytes_max: usize,
    /// Batches that may wait for a commit; the keeper waits beyond that.
    pub waiting_batches_max: usize,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig { group_bytes_max: 8 << 20, waiting_batches_max: 256 }
    }
}

const GROUP_BYTES_LIMIT: usize = FRAME_BYTES_MAX / 2;

/// How the log is, for whoever answers requests.
#[derive(Debug, Default)]
pub struct LogStatus {
    // Relaxed throughout: the flags guard no other data, and whoever reads one too late waits
    // for a commit that does not come, as if he had asked a moment earlier.
    stalled: AtomicBool,
    failed: AtomicBool,
    closing: AtomicBool,
    error: Mutex<Option<LogError>>,
}

impl LogStatus {
    /// Whether it waits for room: answer 503, it may go on by itself.
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

    fn fail(&self, error: LogError) {
        tracing::error!(%error, "the log failed, nothing is committed any more");
        *self.error.lock() = Some(error);
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// The thread that has the log.
pub struct GroupCommit {
    status: Arc<LogStatus>,
    thread: JoinHandle<()>,
}

impl GroupCommit {
    /// Starts the thread. Batches go into the sender that is returned; after their commit they
    /// come out of `committed`.
    ///
    /// If the log fails, the thread ends: sending a batch then answers an error, and the other
    /// end of `committed` is closed. To stop it in order, drop every clone of the sender and
    /// call [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// If the thread cannot be made.
    pub fn start(
        log: Box<dyn Log>,
        epoch: Epoch,
        config: CommitConfig,
        clock: Arc<dyn Clock>,
        committed: Sender<Committed>,
        hook: CommitHook,
    ) -> io::Result<(Sender<Batch>, GroupCommit)> {
        let (sender, worker) = Worker::new(log, epoch, config, clock, committed, hook);
        Ok((sender, GroupCommit::spawn(worker)?))
    }

    /// Has a thread of its own step `worker`.
    pub(crate) fn spawn(mut worker: Worker) -> io::Result<GroupCommit> {
        let status = worker.status();
        let of_thread = Arc::clone(&status);
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            // A panic must not look like a log that is merely slow.
            let guard = FailOnPanic(of_thread);
            worker.run();
            drop(guard);
        })?;
        Ok(GroupCommit { status, thread })
    }

    /// How the log is.
    pub fn status(&self) -> Arc<LogStatus> {
        Arc::clone(&self.status)
    }

    /// Waits until everything that was sent is committed and handed on, and the log is sealed.
    /// Every sender must have been dropped, or this waits for it. A log without room is not
    /// waited for.
    ///
    /// # Errors
    ///
    /// [`LogError`] if something that was sent is not committed; nobody was told it was.
    pub fn close(self) -> Result<(), LogError> {
        self.status.closing.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            return Err(LogError::Fatal("the log's thread panicked".into()));
        }
        self.status.error().map_or(Ok(()), Err)
    }
}

struct FailOnPanic(Arc<LogStatus>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(LogError::Fatal("the log's thread panicked".into()));
        }
    }
}

/// What the log's thread does, a step at a time.
pub(crate) struct Worker {
    log: Box<dyn Log>,
    epoch: Epoch,
    group_bytes_max: usize,
    clock: Arc<dyn Clock>,
    batches: Receiver<Batch>,
    /// Taken, and too large for the group before.
    left_over: Option<Batch>,
    /// Found no room, in whole or in part.
    group: Option<Group>,
    committed: Sender<Committed>,
    hook: CommitHook,
    status: Arc<LogStatus>,
}

/// Batches that are committed together.
struct Group {
    batch: Batch,
    batches: usize,
    /// How many of its frames are written.
    frames: usize,
    started_ns: u64,
}

/// What a step of the log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committing {
    /// A group is durable and handed on.
    Done,
    /// No batch waits.
    Idle,
    /// There is no room: the same group is tried again by the next step.
    NoRoom,
    /// The log failed; there is no further step.
    Failed,
}

impl Worker {
    /// Batches go into the sender.
    pub(crate) fn new(
        log: Box<dyn Log>,
        epoch: Epoch,
        config: CommitConfig,
        clock: Arc<dyn Clock>,
        committed: Sender<Committed>,
        hook: CommitHook,
    ) -> (Sender<Batch>, Worker) {
        let (sender, batches) = channel::bounded(config.waiting_batches_max);
        let worker = Worker {
            log,
            epoch,
            group_bytes_max: config.group_bytes_max.min(GROUP_BYTES_LIMIT),
            clock,
            batches,
            left_over: None,
            group: None,
            committed,
            hook,
            status: Arc::new(LogStatus::default()),
        };
        (sender, worker)
    }

    pub(crate) fn status(&self) -> Arc<LogStatus> {
        Arc::clone(&self.status)
    }

    fn run(&mut self) {
        loop {
            match self.step() {
                Committing::Done => {}
                Committing::Idle => match self.batches.recv() {
                    Ok(first) => self.left_over = Some(first),
                    Err(_) => return self.seal(),
                },
                Committing::NoRoom => {
                    thread::park_timeout(Duration::from_millis(NO_SPACE_RETRY_MS));
                }
                Committing::Failed => return,
            }
        }
    }

    /// Commits what has gathered and hands it on, or what found no room before. Waits for the
    /// disk and for the follower, but neither for batches nor for room.
    pub(crate) fn step(&mut self) -> Committing {
        let Some(mut group) = self.group.take().or_else(|| self.gather()) else {
            return Committing::Idle;
        };
        match self.commit(&mut group) {
            Ok(()) => {
                if self.status.is_stalled() {
                    tracing::info!("the log goes on");
                    self.status.resume();
                }
                self.hand_on(group)
            }
            Err(error @ LogError::NoSpace(_)) if !self.status.closing.load(Ordering::Relaxed) => {
                if !self.status.is_stalled() {
                    tracing::warn!(%error, "the log waits for room");
                }
                self.status.stall(error);
                self.group = Some(group);
                Committing::NoRoom
            }
            Err(error) => self.fail(error),
        }
    }

    /// Notes that the log was closed in order, once every batch is committed.
    pub(crate) fn seal(&mut self) {
        if let Err(error) = self.log.seal() {
            self.fail(error);
        }
    }

    fn fail(&self, error: LogError) -> Committing {
        self.status.fail(error);
        Committing::Failed
    }

    /// Takes what has gathered, within the bound; a batch beyond it is for the next group.
    fn gather(&mut self) -> Option<Group> {
        let mut group = Group {
            batch: Batch::default(),
            batches: 0,
            frames: 0,
            started_ns: self.clock.monotonic_ns(),
        };
        let mut bytes = 0;
        while let Some(mut next) = self.left_over.take().or_else(|| self.batches.try_recv().ok()) {
            bytes += frame::encoded_bytes(&next);
            let events = group.batch.events.len() + next.events.len();
            let is_first = group.batch.events.is_empty();
            if !is_first && (bytes > self.group_bytes_max || events > FRAME_EVENTS_MAX) {
                self.left_over = Some(next);
                break;
            }
            if is_first {
                group.batch = next;
            } else {
                group.batch.events.append(&mut next.events);
                group.batch.blobs.append(&mut next.blobs);
            }
            group.batches += 1;
        }
        (!group.batch.events.is_empty()).then_some(group)
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

    fn hand_on(&mut self, group: Group) -> Committing {
        let Group { batch, batches, started_ns, .. } = group;
        let sample = CommitSample {
            batches,
            events: batch.events.len(),
            bytes: frame::encoded_bytes(&batch),
            took_ns: self.clock.monotonic_ns().saturating_sub(started_ns),
        };
        (self.hook)(&sample);
        match self.committed.send(Committed { epoch: self.epoch, batch }) {
            Ok(()) => Committing::Done,
            Err(_) => self.fail(LogError::Fatal("nobody follows the log any more".into())),
        }
    }
}

fn fits_one_frame(batch: &Batch) -> bool {
    let blob_bytes: usize = batch.blobs.iter().map(|(_, blob)| blob.len()).sum();
    batch.events.len() <= FRAME_EVENTS_MAX
        && batch.blobs.len() <= frame::FRAME_BLOBS_MAX
        && blob_bytes <= frame::FRAME_BLOB_BYTES_MAX
}

/// Whole decisions of a batch that is too large for a frame, one decision's blobs at a time.
fn pieces(batch: &Batch) -> impl Iterator<Item = Batch> {
    const PIECE_EVENTS: usize = FRAME_EVENTS_MAX / 2;
    let mut rest = &batch.events[..];
    let mut blobs = batch.blobs.iter().peekable();
    std::iter::from_fn(move || {
        let mut piece = Batch::default();
        let ends = |words| Event::unpack(words).map_or(true, |event: Event| !event.more_follows);
        while let Some((words, others)) = rest.split_first() {
            let seq = Seq(words[0]);
            piece.events.push(*words);
            piece.blobs.extend(blobs.next_if(|(of, _)| *of == seq).cloned());
            rest = others;
            if ends(words) && (piece.events.len() >= PIECE_EVENTS || !piece.blobs.is_empty()) {
                break;
            }
        }
        (!piece.events.is_empty()).then_some(piece)
    })
}
