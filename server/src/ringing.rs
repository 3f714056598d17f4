//! One ring of the shard's bell for all that a worker decides in a row.
//!
//! A ring that finds the shard's thread asleep is two switches of threads, which cost more than ten
//! decisions, and a commit of one event costs as much as one of many. A worker is told of many
//! requests at once and answers one after the other. So it rings when it has nothing left to do,
//! just before it sleeps, and all of them share a commit.
//!
//! A worker that is busy with anything else rings late; the shard's keeper rings for it then,
//! within some milliseconds.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use tmomi_persist::shard::Shard;

/// Decisions in a row at most: about as many tasks as a worker runs before it looks for more.
const DECISIONS_MAX: u32 = 64;

thread_local! {
    // Weak: a shard is closed by whoever has it, not by the last worker that ends.
    static OWN: RefCell<Ringer<Weak<Shard>>> = const { RefCell::new(Ringer::new()) };
}

/// The calling thread has made `count` decisions, which wait for their commit.
pub(crate) fn decided(shard: &Arc<Shard>, count: u32) {
    OWN.with_borrow_mut(|own| own.decided(|| Arc::downgrade(shard), count));
}

/// Rings for what the calling thread has decided. Every worker is to call it before it sleeps.
pub(crate) fn about_to_sleep() {
    OWN.with_borrow_mut(Ringer::about_to_sleep);
}

trait Bell {
    fn ring(&self);
}

impl Bell for Weak<Shard> {
    fn ring(&self) {
        if let Some(shard) = self.upgrade() {
            shard.wake();
        }
    }
}

/// What one thread has decided and not rung for.
struct Ringer<B> {
    /// Whether the thread is a worker: whether it has ever been about to sleep.
    sleeps: bool,
    decisions: u32,
    /// There if there are decisions; a process has one shard.
    bell: Option<B>,
}

impl<B: Bell> Ringer<B> {
    const fn new() -> Ringer<B> {
        Ringer { sleeps: false, decisions: 0, bell: None }
    }

    fn decided(&mut self, bell: impl FnOnce() -> B, count: u32) {
        if !self.sleeps {
            return bell().ring();
        }
        self.decisions += count;
        self.bell.get_or_insert_with(bell);
        if self.decisions >= DECISIONS_MAX {
            self.ring();
        }
    }

    fn about_to_sleep(&mut self) {
        self.sleeps = true;
        self.ring();
    }

    fn ring(&mut self) {
        self.decisions = 0;
        if let Some(bell) = self.bell.take() {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    impl Bell for Rc<Cell<u32>> {
        fn ring(&self) {
            self.set(self.get() + 1);
        }
    }

    /// Planted bugs: nothing is rung before the sleep; every decision is rung for; a sleep without
    /// a decision rings.
    #[test]
    fn a_worker_rings_once_for_what_it_decides_before_it_sleeps() {
        let (bell, mut worker) = (Rc::new(Cell::new(0)), Ringer::new());
        worker.about_to_sleep();
        assert_eq!(bell.get(), 0);
        for slept in 1..=3 {
            (0..5).for_each(|_| worker.decided(|| Rc::clone(&bell), 1));
            assert_eq!(bell.get(), slept - 1);
            worker.about_to_sleep();
            worker.about_to_sleep();
            assert_eq!(bell.get(), slept);
        }
    }

    /// Planted bug: a thread for blocking work leaves its ring to a sleep that never comes.
    #[test]
    fn a_thread_that_is_no_worker_rings_for_each_decision() {
        let (bell, mut thread) = (Rc::new(Cell::new(0)), Ringer::new());
        (0..5).for_each(|_| thread.decided(|| Rc::clone(&bell), 1));
        assert_eq!(bell.get(), 5);
    }

    /// Planted bug: several decisions at once count as one.
    #[test]
    fn a_worker_that_is_never_done_rings_now_and_then() {
        let (bell, mut worker) = (Rc::new(Cell::new(0)), Ringer::new());
        worker.about_to_sleep();
        (0..DECISIONS_MAX * 3).for_each(|_| worker.decided(|| Rc::clone(&bell), 1));
        assert_eq!(bell.get(), 3);
        (0..DECISIONS_MAX / 2).for_each(|_| worker.decided(|| Rc::clone(&bell), 4));
        assert_eq!(bell.get(), 5);
    }
}
