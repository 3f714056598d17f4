//! The atomics, from `std` or, under `--cfg loom` and `--cfg shuttle`, from those who decide which
//! thread goes on at each of them; and how to wait.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Stands between a SeqCst write of one word and the SeqCst load of another. Loom takes SeqCst for
/// AcqRel everywhere but in fences, so there it is one; elsewhere the accesses say it all.
#[inline]
pub(crate) fn seq_cst_here() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Does both, each on a thread of its own where there are threads.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn both<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// Does both. Those who decide which thread goes on know no thread but their own.
#[cfg(any(loom, shuttle))]
pub(crate) fn both<A, B>(one: impl FnOnce() -> A, other: impl FnOnce() -> B) -> (A, B) {
    (one(), other())
}

/// Looks at a word again before giving up on it: spins, then yields, then sleeps, then says it was
/// enough.
///
/// The bound is in looks, not in time: the engine has no clock. A thread that owns a word for a
/// few instructions may lose its core to whoever is looking, so most looks leave theirs.
pub(crate) struct Patience {
    #[cfg(not(any(loom, shuttle)))]
    backoff: crossbeam::utils::Backoff,
    looks: u32,
}

/// Looks before a caller answers `contended`: some 20 ms, more than a scheduler's slice.
const LOOKS_MAX: u32 = if cfg!(loom) {
    3
} else if cfg!(shuttle) {
    16
} else {
    256
};
/// Looks before one sleeps.
#[cfg(not(any(loom, shuttle)))]
const AWAKE_LOOKS_MAX: u32 = 32;
/// Sleeps are this long at least; the system makes 60 to 100 us of it.
#[cfg(not(any(loom, shuttle)))]
const SLEEP: std::time::Duration = std::time::Duration::from_micros(20);

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience {
            #[cfg(not(any(loom, shuttle)))]
            backoff: crossbeam::utils::Backoff::new(),
            looks: 0,
        }
    }

    /// Waits a little; `false` once it has been long enough.
    pub(crate) fn wait(&mut self) -> bool {
        self.looks += 1;
        #[cfg(not(any(loom, shuttle)))]
        if self.looks < AWAKE_LOOKS_MAX {
            self.backoff.snooze();
        } else {
            std::thread::sleep(SLEEP);
        }
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(shuttle)]
        shuttle::thread::yield_now();
        self.looks < LOOKS_MAX
    }
}
