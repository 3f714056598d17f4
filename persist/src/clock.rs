//! The clock as an argument. The real one is the server's; nothing here reads the system's time.

use tmomi_engine::ids::TimeMs;

/// Tells the time to the threads of a shard.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May be read often; must not block.
    fn now(&self) -> TimeMs;

    /// Nanoseconds since some instant of this process; never goes back. For durations only.
    fn monotonic_ns(&self) -> u64;
}
