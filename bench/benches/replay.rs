//! How fast events become an image: from a journal, as a start and the snapshots read it, and
//! batch by batch, as the follower applies them. Beside it, reading the same bytes and the
//! checksum of them.
//!
//! `cargo bench -p tmomi-bench --bench replay`; the files go under `target/`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use tmomi_bench::rounds::{Rounds, is_short, rounds, timed};
use tmomi_bench::sale::{BUYERS, FastSale, NOW, request, seat};
use tmomi_bench::{Rng, SEATS};
use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, HoldId, RequestKey, Seq};
use tmomi_engine::{Context, Reject};
use tmomi_persist::image::{Followed, Image};
use tmomi_persist::journal::{Journal, JournalConfig, Reader};
use tmomi_persist::log::Log;

/// Holds that are made; as many are released or confirmed.
const HOLDS: u32 = 2_000_000;
/// Holds that are active at a time.
const ACTIVE: usize = 50_000;
/// One hold in so many is confirmed.
const CONFIRMED_EVERY: u32 = 4;
/// Events of a frame: what one commit under load has.
const FRAME_EVENTS: usize = 2_048;

fn main() {
    for (title, has_keys) in [("without keys", false), ("each with a key", true)] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
        let batches = sold(has_keys);
        write(dir.path(), &batches);
        compare(title, dir.path(), &batches);
    }
}

fn compare(title: &str, dir: &Path, batches: &[Batch]) {
    let events: usize = batches.iter().map(|batch| batch.events.len()).sum();
    let mut table = Rounds::new(format!("{:.1}M events, {title}", events as f64 / 1e6), "/s");
    for _ in 0..rounds() {
        let mut add = |name, took: Duration| table.add(name, events as f64 / took.as_secs_f64());
        add("read and crc32c", timed(|| read_all(dir)));
        add("read, check and decode", timed(|| frames(dir)));
        add("replay into an image", timed(|| replay(dir)));
        add("follower: apply", timed(|| apply(batches)));
    }
    table.print();
}

/// Bare: the files in order, in steps that stay in the cache.
fn read_all(dir: &Path) -> u32 {
    let listed = std::fs::read_dir(dir).expect("it is there");
    let mut paths: Vec<_> = listed.map(|file| file.expect("it is listed").path()).collect();
    paths.sort();
    let (mut crc, mut step) = (0, vec![0; 1 << 18]);
    for path in paths.iter().filter(|path| path.extension().is_some()) {
        let mut file = File::open(path).expect("it can be read");
        loop {
            let read = file.read(&mut step).expect("it can be read");
            if read == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &step[..read]);
        }
    }
    crc
}

fn frames(dir: &Path) -> usize {
    let reader = Reader::open(dir, Seq(0)).expect("it is whole");
    reader.map(|frame| frame.expect("it is whole").batch.events.len()).sum()
}

fn replay(dir: &Path) -> Image {
    let mut image = Image::new();
    for frame in Reader::open(dir, Seq(0)).expect("it is whole") {
        let frame = frame.expect("it is whole");
        let followed = image.follow(frame.epoch, &frame.batch).expect("it was decided");
        assert_eq!(followed, Followed::Applied);
    }
    image
}

fn apply(batches: &[Batch]) -> Image {
    let mut image = Image::new();
    batches.iter().for_each(|batch| image.apply(batch).expect("it was decided"));
    image
}

/// Closes the journal, which cuts the last segment to what was written.
fn write(dir: &Path, batches: &[Batch]) {
    let (mut journal, _) = Journal::open(dir, JournalConfig::default()).expect("it is empty");
    for batch in batches {
        journal.append(EPOCH, batch).expect("there is room");
    }
    journal.seal().expect("the disk works");
}

/// The reign of all events: the one that an image begins with, so that none has to begin.
const EPOCH: Epoch = Epoch(0);

/// A sale: the house is opened, a million buyers enter, seats at random are held, and what is held
/// is confirmed or released a while later.
fn sold(has_keys: bool) -> Vec<Batch> {
    let mut events = Batch::default();
    let mut sale = FastSale::open_into(SEATS, &mut events);
    let (mut rng, mut active) = (Rng::new(0x5eed), VecDeque::<(u32, HoldId)>::new());
    let at = |n: u32, what: u64| Context {
        now: NOW,
        key: match has_keys {
            true => RequestKey { hash: u64::from(n) << 2 | what, fingerprint: u64::from(!n) },
            false => RequestKey::NONE,
        },
    };
    for n in 0..if is_short() { HOLDS / 20 } else { HOLDS } {
        let (request, parts) = (request(rng.below(BUYERS)), [seat(rng.below(SEATS))]);
        if n % 10_000 == 0 {
            sale.drain_into(&mut events);
        }
        match sale.handle.hold(&sale.house, request, &parts, at(n, 1)) {
            Ok(held) => active.push_back((n, held.id)),
            Err(Reject::RingFull) => unreachable!("it is drained in time"),
            Err(_) => continue,
        }
        if active.len() > ACTIVE {
            let (n, id) = active.pop_front().expect("there are some");
            let done = match n.is_multiple_of(CONFIRMED_EVERY) {
                true => sale.handle.confirm(id, None, at(n, 2)).map(drop),
                false => sale.handle.release(id, at(n, 3)).map(drop),
            };
            done.expect("it is active");
        }
    }
    sale.drain_into(&mut events);
    let Batch { events, mut blobs } = events;
    let batch = |events: &[_]| Batch { events: events.to_vec(), blobs: std::mem::take(&mut blobs) };
    events.chunks(FRAME_EVENTS).map(batch).collect()
}
