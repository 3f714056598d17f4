//! The sale over HTTP: the real program in a process of its own, people who use it, and what it is
//! compared with.
//!
//! ```text
//! server.rs    the program: started on a port of the loopback, its CPU time, its memory, its end
//! wire.rs      requests as bytes, answers as far as a load has to read them
//! house.rs     an admin, accounts and a showtime, made over the API
//! crowd.rs     connections that send as soon as they are answered, or at planned times
//! buyers.rs    what those on the connections want: a hold, a purchase
//! readers.rs   open streams and what arrives on them
//! clock.rs     what time it is for them
//! bare.rs      the baselines: the same stack with an empty answer, a plain loop of `send`
//! ```
//!
//! Two cores serve both sides, so the load is cheap: bytes made before, one thread, `epoll`.

pub mod bare;
pub mod buyers;
pub mod clock;
pub mod crowd;
pub mod house;
pub mod readers;
pub mod server;
pub mod wire;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set to 1, the benches only show that they run: one short round with small crowds.
pub const SHORT: &str = "TMOMI_BENCH_SHORT";

/// Whether only a short run is asked for.
pub fn is_short() -> bool {
    std::env::var_os(SHORT).is_some_and(|value| value == "1")
}

/// `normal`, or `short` if only a short run is asked for.
pub fn sized<T>(normal: T, short: T) -> T {
    if is_short() { short } else { normal }
}

/// As many file handles as the system allows.
///
/// # Panics
///
/// If those are fewer than `needed`.
pub fn raise_handle_limit(needed: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let enough = maximum.is_none_or(|maximum| maximum >= needed);
    assert!(enough, "{needed} file handles are needed, `ulimit -Hn` allows {maximum:?}");
}
