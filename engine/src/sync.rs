//! The atomics, from `std` or, under `--cfg loom`, from the model checker; and how to wait.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Stands between a SeqCst write of one word and the SeqCst load of another. Loom takes SeqCst for
/// AcqRel everywhere but in fences, so there it is one; elsewhere the accesses say it all.
#[inline]
pub(crate) fn seq_cst_here() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Looks at a word again before giving up on it: spins, then yields, then sleeps, then says it was
/// enough.
///
/// The bound is in looks, not in time: the engine has no clock. A thread that owns a word for a
/// few instructions may lose its core to whoever is looking, so most looks leave theirs.
pub(crate) struct Patience {
    #[cfg(not(loom))]
    backoff: crossbeam::utils::Backoff,
    looks: u32,
}

/// Looks before a caller answers `contended`: some 20 ms, more than a scheduler's slice.
const LOOKS_MAX: u32 = if cfg!(loom) { 3 } else { 256 };
/// Looks before one sleeps.
#[cfg(not(loom))]
const AWAKE_LOOKS_MAX: u32 = 32;
/// Sleeps are this long at least; the system makes 60 to 100 us of it.
#[cfg(not(loom))]
const SLEEP: std::time::Duration = std::time::Duration::from_micros(20);

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience {
            #[cfg(not(loom))]
            backoff: crossbeam::utils::Backoff::new(),
            looks: 0,
        }
    }

    /// Waits a little; `false` once it has been long enough.
    pub(crate) fn wait(&mut self) -> bool {
        self.looks += 1;
        #[cfg(not(loom))]
        if self.looks < AWAKE_LOOKS_MAX {
            self.backoff.snooze();
        } else {
            std::thread::sleep(SLEEP);
        }
        #[cfg(loom)]
        loom::thread::yield_now();
        self.looks < LOOKS_MAX
    }
}
