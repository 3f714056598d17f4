//! What a commit of the journal costs by the size of its batch, beside a bare write of as many
//! bytes and the same sync: into a file that was written before, and into one whose room was only
//! taken. They take turns, commit by commit.
//!
//! `cargo bench -p tmomi-bench --bench journal`; the files go under `target/`.
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tmomi_bench::bare_file::{BareFile, Room};
use tmomi_bench::rounds::{Rounds, is_short, rounds};
use tmomi_bench::sale::{NOW, SHOW};
use tmomi_engine::event::{Batch, Body, Event};
use tmomi_engine::ids::{BlockIndex, EntryId, Epoch, HoldSlot, Part, RequestKey, Seq};
use tmomi_persist::frame;
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::log::Log;

const SIZES: [usize; 5] = [1, 8, 64, 512, 4_096];
/// Bytes that each contender writes in a round: a segment and a half, so that the journal begins
/// new ones. Small commits stop at [`COMMITS_MAX`].
const ROUND_BYTES: usize = 96 << 20;
const COMMITS_MAX: usize = 2_000;
/// Of [`JournalConfig`]'s default.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Within this the next segment is made, once it was begun.
const MADE_AHEAD_WITHIN: Duration = Duration::from_secs(2);

fn main() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target can be written");
    let mut contenders = Contenders::new(dir.path());
    contenders.fill_first_segment();
    for events in SIZES {
        contenders.compare(events);
    }
}

struct Contenders {
    written: BareFile,
    taken: BareFile,
    journal: Journal,
    next: u64,
    batch: Batch,
}

impl Contenders {
    fn new(dir: &Path) -> Contenders {
        let (journal, _) =
            Journal::open(&dir.join("journal"), JournalConfig::default()).expect("it is empty");
        Contenders {
            written: BareFile::new(dir, Room::Written).expect("there is room"),
            taken: BareFile::new(dir, Room::Taken).expect("there is room"),
            journal,
            next: 1,
            batch: Batch::default(),
        }
    }

    /// The first segment of a process is made while it waits, and later ones ahead: the figures are
    /// those of a process that has been at work for a while.
    fn fill_first_segment(&mut self) {
        let mut written = 0;
        while written < SEGMENT_BYTES {
            self.make_batch(SIZES[SIZES.len() - 1]);
            self.commit();
            let before = written;
            written += frame::encoded_bytes(&self.batch) as u64;
            if before < SEGMENT_BYTES / 2 && written >= SEGMENT_BYTES / 2 {
                thread::sleep(MADE_AHEAD_WITHIN);
            }
        }
    }

    fn compare(&mut self, events: usize) {
        let mut median = Rounds::new(format!("commit of {events} events, median"), "us");
        let mut mean = Rounds::new(format!("commit of {events} events, mean"), "us");
        for _ in 0..rounds() {
            let mut took = [Vec::new(), Vec::new(), Vec::new()];
            self.make_batch(events);
            let bytes = vec![0xab; frame::encoded_bytes(&self.batch)];
            let commits = (ROUND_BYTES / bytes.len()).min(COMMITS_MAX);
            for _ in 0..if is_short() { 10 } else { commits } {
                took[0].push(us(|| self.written.append(&bytes).expect("the disk works")));
                took[1].push(us(|| self.taken.append(&bytes).expect("the disk works")));
                self.make_batch(events);
                took[2].push(us(|| self.commit()));
            }
            let names = ["bare, written before", "bare, room taken before", "journal"];
            for (name, took) in names.into_iter().zip(&mut took) {
                took.sort_by(f64::total_cmp);
                median.add(name, took[took.len() / 2]);
                mean.add(name, took.iter().sum::<f64>() / took.len() as f64);
            }
        }
        median.print();
        mean.print();
    }

    fn commit(&mut self) {
        self.journal.append(Epoch(1), &self.batch).expect("there is room");
        self.journal.commit().expect("the disk works");
        self.next += self.batch.events.len() as u64;
    }

    /// The next holds.
    fn make_batch(&mut self, events: usize) {
        self.batch.clear();
        for n in self.next..self.next + events as u64 {
            let body = Body::Held {
                slot: HoldSlot(n as u32),
                entry: EntryId(n as u32),
                ttl_ms: 300_000,
                first: Part { block: BlockIndex(n as u32), mask: 0b11 },
                key: RequestKey { hash: n, fingerprint: !n },
            };
            let (seq, at, showtime) = (Seq(n), NOW, SHOW);
            let event = Event { seq, at, showtime, more_follows: false, has_blob: false, body };
            self.batch.events.push(event.pack());
        }
    }
}

fn us(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e6
}
