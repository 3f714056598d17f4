//! What wakes the shard's thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use tmomi_engine::Engine;

/// Wakes the thread that answers to it.
#[derive(Debug, Default)]
pub(super) struct Bell {
    asleep: AtomicBool,
    closing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// There is something in the ring. Cheap unless the thread sleeps.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `sleep`: either the thread sees what is in the ring before it
        // sleeps, or this sees that it is about to.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// What has been decided until now is to be committed, and then the shard ends.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Wakes `thread` from now on; before anybody else has the bell.
    pub(super) fn belongs_to(&self, thread: &Thread) {
        let _ = self.thread.set(thread.clone());
    }

    /// Sleeps until it rings; with `most` only so long, whatever is in the ring.
    pub(super) fn sleep(&self, engine: &Engine, most: Option<Duration>) {
        if let Some(most) = most {
            return thread::park_timeout(most);
        }
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        if engine.ring_depth() == 0 {
            thread::park();
        } else {
            // A number is claimed and its event not yet published: it is being written just now.
            thread::yield_now();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Wakes the thread, whatever it waits for.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
