//! The thread between the ring and the log: lets time pass and passes decisions on.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Seq, TimeMs};
use tmomi_engine::{Engine, Keeper};

use crate::clock::Clock;
use crate::log::LogStatus;

/// Time passes in steps of this, in ms. Deadlines are kept within 10 ms: this, the tick of the
/// engine's wheel and the sleep below fit into it.
const TICK_MS: u64 = 3;
/// How long the thread sleeps at most when there is nothing to do, in ms.
const SLEEP_MS: u64 = 1;
/// Events passed on at a time. As many times the batches that may wait for the log is what may
/// wait in memory.
const BATCH_EVENTS: usize = 2_048;

/// Wakes the pump.
#[derive(Debug, Default)]
pub(super) struct Bell {
    asleep: AtomicBool,
    closing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// There is something in the ring. Cheap unless the pump sleeps.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `sleep`: either the pump sees what is in the ring before it
        // sleeps, or this sees that it is about to.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// The pump is to pass on what has been decided until now, and end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

pub(super) struct Pump {
    pub(super) engine: Engine,
    pub(super) keeper: Keeper,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) batches: Sender<Batch>,
    pub(super) log: Arc<LogStatus>,
    pub(super) bell: Arc<Bell>,
    /// The last event that was passed on.
    pub(super) passed: Seq,
    /// Drained, but the log's queue was full.
    pub(super) waiting: Option<Batch>,
    pub(super) ticked_at: Option<TimeMs>,
    /// The last event that is still to be passed on, once the bell says that it is closing.
    pub(super) until: Option<Seq>,
}

/// What a step of the pump came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Something was passed on.
    Some,
    /// There was nothing to pass on.
    None,
    /// The log's queue is full.
    Full,
    /// There is no further step: the pump is closed, or the log has ended.
    End,
}

impl Pump {
    /// Runs until the bell says that it is closing and everything decided by then is passed on,
    /// or the log ends. While the log does not keep up, nothing more is drained: the ring fills
    /// and the engine refuses. Time passes all the same; what it could not end it ends later.
    pub(super) fn run(mut self) {
        let _ = self.bell.thread.set(thread::current());
        loop {
            match self.step() {
                Passed::Some => {}
                Passed::None => self.sleep(),
                Passed::Full => thread::park_timeout(Duration::from_millis(SLEEP_MS)),
                Passed::End => return,
            }
        }
    }

    /// Lets time pass, and passes on some of what has been decided. Never waits.
    pub(super) fn step(&mut self) -> Passed {
        if self.bell.is_closing() {
            self.until.get_or_insert_with(|| self.engine.claimed());
        } else {
            let now = self.clock.now();
            if self.ticked_at.is_none_or(|last| now.since_ms(last) >= TICK_MS) {
                self.keeper.tick(now);
                self.ticked_at = Some(now);
            }
        }
        let passed = self.pass_on();
        let done = self.until.is_some_and(|until| self.passed >= until);
        let hopeless = self.until.is_some() && !self.log.is_accepting();
        if done || hopeless { Passed::End } else { passed }
    }

    fn pass_on(&mut self) -> Passed {
        let batch = self.waiting.take().unwrap_or_else(|| {
            let mut batch = Batch::default();
            self.keeper.drain(&mut batch, BATCH_EVENTS);
            batch
        });
        let Some(last) = batch.last_seq() else { return Passed::None };
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.passed = last;
                Passed::Some
            }
            Err(TrySendError::Full(batch)) => {
                self.waiting = Some(batch);
                Passed::Full
            }
            Err(TrySendError::Disconnected(_)) => Passed::End,
        }
    }

    fn sleep(&self) {
        self.bell.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        if self.engine.ring_depth() == 0 {
            thread::park_timeout(Duration::from_millis(SLEEP_MS));
        } else {
            // A number is claimed and its event not yet published: it is being written just now.
            thread::yield_now();
        }
        self.bell.asleep.store(false, Ordering::Relaxed);
    }
}
