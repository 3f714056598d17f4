//! Runs lists of steps, on all cores, and shortens one that fails.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::step::{Step, steps_of};
use crate::world::World;

/// Runs that shortening may take.
const TRIES_MAX: usize = 1_000;

thread_local! {
    /// What the last panic of this thread said, while it is one that is looked for.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All promises were kept; a hash of the log.
    Kept(u64),
    /// One was broken.
    Broken(String),
}

/// Takes the steps, one after another, in a world of their own.
pub(crate) fn run(steps: &[Step]) -> Outcome {
    listen();
    QUIET.set(true);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(*step));
        world.finish();
        let mut hasher = DefaultHasher::new();
        for record in &world.truth.log {
            (record.epoch, &record.batch.events, &record.batch.blobs).hash(&mut hasher);
        }
        hasher.finish()
    }));
    QUIET.set(false);
    match ran {
        Ok(hash) => Outcome::Kept(hash),
        Err(_) => Outcome::Broken(SAID.take().unwrap_or_default()),
    }
}

/// Runs every seed; panics at the first that breaks a promise, with the steps that are enough.
pub(crate) fn seeds(seeds: Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let broken: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let found = || broken.lock().expect("no test panics within");
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || found().is_some() {
                        return;
                    }
                    if let Outcome::Broken(what) = run(&steps_of(seed)) {
                        found().get_or_insert((seed, what));
                    }
                }
            });
        }
    });
    let Some((seed, what)) = found().take() else { return };
    // Before it is shortened, which takes a while.
    eprintln!("TMOMI_SIM_SEED={seed} TMOMI_SIM_COUNT=1 breaks a promise: {what}");
    let all = steps_of(seed);
    let (few, last) = shorten(&all, what.clone());
    let list: Vec<String> = few.iter().map(|step| format!("    {step:?}")).collect();
    panic!(
        "seed {seed} breaks a promise: {what}\n{} of its {} steps are enough for: {last}\n{}",
        few.len(),
        all.len(),
        list.join("\n"),
    );
}

/// Leaves steps out, many at a time and then fewer, as long as a promise is broken.
fn shorten(steps: &[Step], what: String) -> (Vec<Step>, String) {
    let (mut steps, mut what) = (steps.to_vec(), what);
    let mut size = steps.len() / 2;
    let mut tries = 0;
    while size > 0 {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() && tries < TRIES_MAX {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            tries += 1;
            match run(&fewer) {
                Outcome::Broken(still) => (steps, what) = (fewer, still),
                Outcome::Kept(_) => at += size,
            }
        }
        // Once more with the same size if that helped: what was needed may no longer be.
        size = if steps.len() < before && size == 1 { 1 } else { size / 2 };
    }
    (steps, what)
}

/// Keeps what a panic says, instead of printing it, where a run may panic.
fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| match QUIET.with(|quiet| *quiet.borrow()) {
            true => SAID.set(Some(info.to_string())),
            false => usual(info),
        }));
    });
}
