//! How far the image has got, and who waits for it to get further.
//!
//! A reply waits for the number of its event. Most are reached within a commit, so the common
//! question is one atomic load; the rest wait in a tree ordered by number, so that an advance
//! touches only those it wakes. The idea of waiting on a sequence number is neon's `SeqWait`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tmomi_engine::ids::Seq;

/// The log failed before the awaited event was committed. Whether it ever will be is unknown: the
/// next start finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log failed before the event was committed")]
pub struct NotCommitted;

/// Waiters woken under one lock at most, so that those who come to wait are not held up.
const WAKE_MAX: usize = 256;

/// The number of the last applied event.
#[derive(Debug, Default)]
pub struct Watermark {
    applied: AtomicU64,
    failed: AtomicBool,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// By the awaited number; the ticket tells apart those who wait for the same.
    wakers: BTreeMap<(Seq, u64), Waker>,
    next_ticket: u64,
}

impl Watermark {
    /// At `applied`, with nobody waiting.
    pub fn new(applied: Seq) -> Arc<Watermark> {
        Arc::new(Watermark { applied: AtomicU64::new(applied.0), ..Watermark::default() })
    }

    /// The number of the last event that every reader of the image sees.
    pub fn applied(&self) -> Seq {
        // Acquire: pairs with the release in `advance`, so that what was applied is visible.
        Seq(self.applied.load(Ordering::Acquire))
    }

    /// Whether [`fail`](Self::fail) was called.
    pub fn failed(&self) -> bool {
        // Acquire: pairs with the release in `fail`.
        self.failed.load(Ordering::Acquire)
    }

    /// Moves on to `applied` and wakes those who wait for it or less. Never goes back.
    pub fn advance(&self, applied: Seq) {
        // Release: pairs with the acquire in `applied`. A waiter that registers looks again under
        // the lock, and this store comes before the lock is taken below, so none is missed.
        self.applied.fetch_max(applied.0, Ordering::Release);
        self.wake(|seq| seq <= applied);
    }

    /// The log is dead: whoever waits, now or later, for what is not yet applied is told so.
    pub fn fail(&self) {
        // Release: pairs with the acquire in `failed`; before the lock, as in `advance`.
        self.failed.store(true, Ordering::Release);
        self.wake(|_| true);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiters.lock().wakers.len()
    }

    /// Waits until event `seq` is applied. The caller bounds the time; a dropped wait leaves
    /// nothing behind.
    pub fn wait(self: &Arc<Self>, seq: Seq) -> Wait {
        Wait { watermark: Arc::clone(self), seq, ticket: None }
    }

    fn wake(&self, reached: impl Fn(Seq) -> bool) {
        let mut woken = Vec::new();
        loop {
            let mut waiters = self.waiters.lock();
            while woken.len() < WAKE_MAX {
                match waiters.wakers.first_entry() {
                    Some(first) if reached(first.key().0) => woken.push(first.remove()),
                    _ => break,
                }
            }
            drop(waiters);
            if woken.is_empty() {
                return;
            }
            woken.drain(..).for_each(Waker::wake);
        }
    }

    fn settled(&self, seq: Seq) -> Option<Result<(), NotCommitted>> {
        if seq <= self.applied() {
            return Some(Ok(()));
        }
        self.failed().then_some(Err(NotCommitted))
    }
}

/// The future of [`Watermark::wait`]. Ready at once if the event is applied already.
#[derive(Debug)]
#[must_use = "a wait does nothing until it is awaited"]
pub struct Wait {
    watermark: Arc<Watermark>,
    seq: Seq,
    ticket: Option<u64>,
}

impl Future for Wait {
    type Output = Result<(), NotCommitted>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(result) = this.watermark.settled(this.seq) {
            return Poll::Ready(result);
        }
        let mut waiters = this.watermark.waiters.lock();
        // Again, under the lock: an advance between the look above and here has found nobody.
        if let Some(result) = this.watermark.settled(this.seq) {
            return Poll::Ready(result);
        }
        let ticket = *this.ticket.get_or_insert_with(|| {
            waiters.next_ticket += 1;
            waiters.next_ticket
        });
        waiters
            .wakers
            .entry((this.seq, ticket))
            .and_modify(|waker| waker.clone_from(cx.waker()))
            .or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.watermark.waiters.lock().wakers.remove(&(self.seq, ticket));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn poll(wait: &mut Wait, flag: &Arc<Flag>) -> Poll<Result<(), NotCommitted>> {
        let waker = Waker::from(Arc::clone(flag));
        Pin::new(wait).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn an_advance_wakes_those_it_reached_and_nobody_else() {
        let mark = Watermark::new(Seq(4));
        let (near, far) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let (mut first, mut second) = (mark.wait(Seq(5)), mark.wait(Seq(9)));
        assert!(poll(&mut mark.wait(Seq(4)), &near).is_ready());
        assert!(poll(&mut first, &near).is_pending());
        assert!(poll(&mut second, &far).is_pending());
        mark.advance(Seq(7));
        assert!(near.0.load(Ordering::SeqCst) && !far.0.load(Ordering::SeqCst));
        assert_eq!(poll(&mut first, &near), Poll::Ready(Ok(())));
        mark.advance(Seq(3));
        assert_eq!(mark.applied(), Seq(7));
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let mark = Watermark::new(Seq(0));
        let flag = Arc::new(Flag::default());
        let mut wait = mark.wait(Seq(u64::MAX));
        assert!(poll(&mut wait, &flag).is_pending() && poll(&mut wait, &flag).is_pending());
        assert_eq!(mark.waiting(), 1);
        drop(wait);
        assert_eq!(mark.waiting(), 0);
    }

    #[test]
    fn a_failed_log_acknowledges_nothing_new() {
        let mark = Watermark::new(Seq(2));
        let flag = Arc::new(Flag::default());
        let mut wait = mark.wait(Seq(3));
        assert!(poll(&mut wait, &flag).is_pending());
        mark.fail();
        assert!(flag.0.load(Ordering::SeqCst));
        assert_eq!(poll(&mut wait, &flag), Poll::Ready(Err(NotCommitted)));
        assert_eq!(poll(&mut mark.wait(Seq(2)), &flag), Poll::Ready(Ok(())));
    }

    #[test]
    fn many_waiters_over_many_threads_are_all_woken() {
        let mark = Watermark::new(Seq(0));
        let threads: Vec<_> = (0..4u64)
            .map(|t| {
                let mark = Arc::clone(&mark);
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for n in 0..500 {
                            mark.wait(Seq(1 + n * 4 + t)).await.unwrap();
                        }
                    });
                })
            })
            .collect();
        for seq in 1..=2_000 {
            mark.advance(Seq(seq));
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(mark.waiting(), 0);
    }
}
