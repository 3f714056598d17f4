//! The whole of a shard, its clients and their clock in one thread, on a disk that fails.
//!
//! A seed gives a list of steps ([`step`]); a [`world`] takes them: clients ask, the stages of the
//! shard have their turns, the power fails between two calls to the disk, a process is killed and
//! the next one brings back what is there. What was committed and told is judged by [`truth`]. The
//! code that runs is the product's own, from the journal's files to the writer's fold; the disk
//! below the journal, the store of snapshots and the tables of rows are the simulation's.
//!
//! A run depends on nothing but its steps. One that fails is shortened and printed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by failing")]

mod client;
#[path = "../common/disk.rs"]
#[allow(dead_code, reason = "either test binary needs its part of it")]
mod disk;
mod flip;
#[path = "../../../engine/tests/it/fold.rs"]
#[allow(dead_code, reason = "the engine's own tests need more of it")]
mod fold;
mod life;
mod rows;
mod run;
mod step;
mod truth;
mod world;

use run::{Outcome, run};
use step::steps_of;

/// Seeds that `make test` runs.
const SEEDS: u64 = 1_000;

/// `TMOMI_SIM_SEED` is the first seed, `TMOMI_SIM_COUNT` says how many.
///
/// Planted bugs. R2: skip the sync of a commit, of a new segment or of its folder; try a failed
/// sync again; hand on before the commit; do not write the last frame again, or sync the folder,
/// at the start; remove segments under one sync, or before the writer has read them; let the
/// watermark run ahead. R3: leave the keys out of the snapshot. R5: forget the limit on expiry. R6:
/// number from memory after a crash. R7: take a record of an older epoch, in image or writer. R8:
/// believe the position though the write failed. R9: read a clock in `apply`. R10, R11: drop the
/// give-back of a taking of several blocks that fails. R12: lose the timers of restored holds;
/// confirm after the deadline. R13: skip the checksum of frames or snapshots. R14: count an ended
/// session as active.
#[test]
fn no_seed_breaks_a_promise() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first: u64 = number("TMOMI_SIM_SEED").unwrap_or(0);
    let count = number("TMOMI_SIM_COUNT").unwrap_or(SEEDS);
    run::seeds(first..first.saturating_add(count));
}

/// The same steps lead to the same log.
#[test]
fn a_seed_is_run_again_exactly() {
    for seed in 7_000..7_008 {
        let steps = steps_of(seed);
        let hash = |outcome| match outcome {
            Outcome::Kept(hash) => hash,
            Outcome::Broken(what) => panic!("seed {seed}: {what}"),
        };
        assert_eq!(hash(run(&steps)), hash(run(&steps)), "seed {seed}");
    }
}
