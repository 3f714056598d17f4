//! What an operator asks of a journal: is it sound, and what is in it?

use std::iter::Peekable;
use std::path::Path;
use std::vec;

use tmomi_engine::event::{Event, EventWords};
use tmomi_engine::ids::{Epoch, Seq};

use super::reader::Reader;
use super::scan::{Scanner, Step};
use super::{Damage, JournalError, TornTail};
use crate::frame::{self, FrameKind};

/// What a walk through all of a journal found.
#[derive(Debug, Default)]
pub struct Report {
    /// Segments, the last one included.
    pub segments: usize,
    /// Frames with events.
    pub frames: u64,
    /// Events.
    pub events: u64,
    /// Bytes of the frames with events.
    pub bytes: u64,
    /// The first event, if there is one.
    pub first: Option<Seq>,
    /// The last event, if there is one.
    pub last: Option<Seq>,
    /// The reigns, in order.
    pub epochs: Vec<EpochReport>,
    /// Whether the last process closed the journal in order.
    pub closed: bool,
    /// The incomplete frame at the end, which the next start will cut off.
    pub torn: Option<TornTail>,
    /// Why the walk ended early: the journal would not open.
    pub damage: Option<JournalError>,
}

/// One reign in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochReport {
    /// Its number.
    pub epoch: Epoch,
    /// Its first event in the journal.
    pub first: Seq,
    /// Its last event so far.
    pub last: Seq,
}

/// An event with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// The reign it was decided in.
    pub epoch: Epoch,
    /// The event.
    pub event: Event,
    /// Its blob, if it has one.
    pub blob: Option<Box<[u8]>>,
}

/// Reads all of the journal of `dir` and checks it. Changes nothing; the journal may be in use.
///
/// # Errors
///
/// [`JournalError::Io`] if the folder cannot be read. What is wrong with the content stands in
/// the report.
pub fn verify(dir: &Path) -> Result<Report, JournalError> {
    let mut report = Report::default();
    let walked = Scanner::oldest(dir, None).and_then(|mut scanner| {
        let walked = walk(&mut scanner, &mut report);
        report.segments = scanner.segments;
        report.closed = scanner.closed;
        walked
    });
    match walked {
        Err(error @ JournalError::Io { .. }) => Err(error),
        walked => {
            report.damage = walked.err();
            Ok(report)
        }
    }
}

fn walk(scanner: &mut Scanner, report: &mut Report) -> Result<(), JournalError> {
    loop {
        let (header, bytes) = match scanner.step()? {
            Step::Frame { header, bytes } => (header, bytes),
            Step::End(torn) => {
                report.torn = torn;
                return Ok(());
            }
        };
        if header.kind != FrameKind::Events {
            continue;
        }
        let batch = frame::decode_body(&header, bytes).map_err(|reason| scanner.blame(reason))?;
        let unknown = batch.events.iter().find_map(|words| Event::unpack(words).err());
        if let Some(bad) = unknown {
            return Err(scanner.blame(Damage::Event(bad)));
        }
        let last = Seq(header.next_seq().0 - 1);
        report.frames += 1;
        report.events += u64::from(header.events);
        report.bytes += header.bytes as u64;
        report.first.get_or_insert(header.first);
        report.last = Some(last);
        match report.epochs.last_mut().filter(|known| known.epoch == header.epoch) {
            Some(known) => known.last = last,
            None => {
                let (epoch, first) = (header.epoch, header.first);
                report.epochs.push(EpochReport { epoch, first, last });
            }
        }
    }
}

/// The events of a journal, decoded. Ends after the first error.
pub struct Dump {
    reader: Reader,
    epoch: Epoch,
    events: vec::IntoIter<EventWords>,
    blobs: Peekable<vec::IntoIter<(Seq, Box<[u8]>)>>,
    failed: bool,
}

/// Reads the events of the journal of `dir` after event `after`.
///
/// # Errors
///
/// As [`Reader::open`]; each item as reading does, and [`Damage::Event`] for an event of a kind
/// that this version does not know.
pub fn dump(dir: &Path, after: Seq) -> Result<Dump, JournalError> {
    let reader = Reader::open(dir, after)?;
    let blobs = Vec::new().into_iter().peekable();
    let events = Vec::new().into_iter();
    Ok(Dump { reader, epoch: Epoch(0), events, blobs, failed: false })
}

impl Dump {
    fn decode_next(&mut self) -> Option<Result<Dumped, JournalError>> {
        let words = loop {
            if let Some(words) = self.events.next() {
                break words;
            }
            let frame = match self.reader.next()? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(error)),
            };
            self.epoch = frame.epoch;
            self.events = frame.batch.events.into_iter();
            self.blobs = frame.batch.blobs.into_iter().peekable();
        };
        let seq = Seq(words[0]);
        let blob = self.blobs.next_if(|(of, _)| *of == seq).map(|(_, blob)| blob);
        Some(match Event::unpack(&words) {
            Ok(event) => Ok(Dumped { epoch: self.epoch, event, blob }),
            Err(bad) => Err(self.reader.blame(Damage::Event(bad))),
        })
    }
}

impl Iterator for Dump {
    type Item = Result<Dumped, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.failed { None } else { self.decode_next() };
        self.failed = !matches!(next, Some(Ok(_)));
        next
    }
}
