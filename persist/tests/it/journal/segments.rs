//! Segments: swapped, missing, doubled; removed on purpose; read from the middle; followed.

use std::fs;
use std::sync::Arc;

use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::journal::{
    AheadDisk, Journal, JournalConfig, JournalError, Reader, dump, retain_from, verify,
};
use tmomi_persist::log::Log;

use super::support::*;

fn many_segments() -> (tempfile::TempDir, Seq) {
    let dir = folder();
    let last = killed(dir.path(), SMALL, &[&SIZES[..], &SIZES, &SIZES].concat());
    assert!(segments(dir.path()).len() >= 5);
    (dir, last)
}

#[test]
fn a_missing_segment_is_named_by_its_first_event() {
    let (sound, last) = many_segments();
    let count = segments(sound.path()).len();
    for index in 0..count {
        let ruined = copy(sound.path());
        let paths = segments(ruined.path());
        fs::remove_file(&paths[index]).expect("removable");
        if index == 0 {
            // To the journal this is what retention does; recovery asks for what it needs.
            assert_eq!(open(ruined.path()).expect("a shorter journal").last, last);
            let error = read_all(ruined.path()).expect_err("its events are needed");
            let expected = JournalError::Removed {
                dir: ruined.path().to_owned(),
                wanted: Seq(1),
                oldest: first_of(&paths[1]),
            };
            assert_eq!(error.to_string(), expected.to_string());
            continue;
        }
        let error = open(ruined.path()).expect_err("a gap");
        let JournalError::MissingSegment { file, expected } = &error else {
            panic!("{error}");
        };
        assert_eq!((file, *expected), (&paths[index - 1], first_of(&paths[index])));
    }
}

fn first_of(path: &std::path::Path) -> Seq {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    Seq(stem.parse().expect("a number"))
}

#[test]
fn swapped_and_doubled_segments_are_refused() {
    let (sound, _) = many_segments();
    let swapped = copy(sound.path());
    let paths = segments(swapped.path());
    let aside = swapped.path().join("aside");
    fs::rename(&paths[1], &aside).expect("a rename");
    fs::rename(&paths[2], &paths[1]).expect("a rename");
    fs::rename(&aside, &paths[2]).expect("a rename");
    let error = open(swapped.path()).expect_err("swapped");
    assert!(matches!(&error, JournalError::Misnamed { file, .. } if *file == paths[1]), "{error}");

    let doubled = copy(sound.path());
    let paths = segments(doubled.path());
    let between = first_of(&paths[1]).0 + 1;
    fs::copy(&paths[1], doubled.path().join(format!("{between:020}.journal"))).expect("room");
    let error = open(doubled.path()).expect_err("doubled");
    assert!(matches!(error, JournalError::Repeated { .. }), "{error}");

    let misnamed = copy(sound.path());
    fs::write(misnamed.path().join("1.journal"), b"").expect("room");
    let error = open(misnamed.path()).expect_err("no number");
    assert!(error.to_string().contains("20 digits"), "{error}");
}

/// A segment of another history of the same shard begins with the right number.
#[test]
fn a_segment_of_another_journal_is_refused() {
    let (sound, _) = many_segments();
    let other = folder();
    let (mut journal, _) = Journal::open(other.path(), SMALL).expect("an empty folder");
    let mut next = 1;
    for size in [&SIZES[..], &SIZES, &SIZES].concat() {
        journal.append(Epoch(2), &batch(next, size)).expect("room and order");
        next += size;
    }
    drop(journal);
    let (ours, theirs) = (segments(sound.path()), segments(other.path()));
    assert_eq!(first_of(&ours[2]), first_of(&theirs[2]));
    fs::copy(&theirs[2], &ours[2]).expect("room");
    let error = open(sound.path()).expect_err("another history");
    assert!(error.to_string().contains("at byte 0: what begins here does not"), "{error}");
}

#[test]
fn whole_segments_below_a_number_are_removed_and_no_others() {
    let (dir, last) = many_segments();
    let paths = segments(dir.path());
    let third = first_of(&paths[2]);
    assert_eq!(retain_from(dir.path(), Seq(third.0 - 1)).expect("removable"), 1);
    assert_eq!(retain_from(dir.path(), third).expect("removable"), 1);
    assert_eq!(segments(dir.path()), paths[2..]);
    let tail = open(dir.path()).expect("sound");
    assert_eq!((tail.first, tail.last), (Some(third), last));
    let read: u64 = Reader::open(dir.path(), Seq(third.0 - 1))
        .expect("still there")
        .map(|frame| frame.expect("sound").batch.events.len() as u64)
        .sum();
    assert_eq!(read, last.0 - third.0 + 1);
    retain_from(dir.path(), Seq(u64::MAX)).expect("removable");
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(open(dir.path()).expect("sound").last, last);
}

#[test]
fn reading_begins_after_any_event_even_within_a_frame() {
    let (dir, last) = many_segments();
    for after in 0..=last.0 + 3 {
        let frames = Reader::open(dir.path(), Seq(after)).expect("sound");
        let mut events = Vec::new();
        for frame in frames {
            let frame = frame.expect("sound");
            assert!(frame.batch.blobs.iter().all(|(seq, _)| seq.0 > after));
            events.extend(frame.batch.events);
        }
        let expected = batch(after + 1, last.0.saturating_sub(after)).events;
        assert_eq!(events, expected, "after {after}");
    }
}

/// A reader beside the writer sees exactly what is committed, through every new segment.
#[test]
fn a_journal_can_be_followed_while_it_is_written() {
    let dir = folder();
    let (mut journal, _) = Journal::open(dir.path(), SMALL).expect("an empty folder");
    let mut reader = Reader::open(dir.path(), Seq(0)).expect("an empty journal");
    assert!(reader.read_to(Seq(0)).expect("nothing yet").is_none());
    let (mut committed, mut seen) = (Seq(0), Vec::new());
    for size in [&SIZES[..], &SIZES].concat() {
        journal.append(EPOCH, &batch(committed.0 + 1, size)).expect("room and order");
        assert!(reader.read_to(committed).expect("sound").is_none(), "before its commit");
        journal.commit().expect("a working disk");
        committed = Seq(committed.0 + size);
        while let Some(frame) = reader.read_to(committed).expect("sound") {
            seen.extend(frame.batch.events);
        }
        assert_eq!(reader.position(), committed);
    }
    assert_eq!(seen, batch(1, committed.0).events);
    let error = reader.read_to(committed.next()).expect_err("nobody committed that");
    assert!(matches!(error, JournalError::EndsEarly { .. }), "{error}");
}

#[test]
fn closing_in_order_is_noted_and_goes_on_in_the_same_segment() {
    let dir = folder();
    for round in 1..=5 {
        let (mut journal, tail) = Journal::open(dir.path(), SMALL).expect("sound");
        assert_eq!((tail.last, tail.closed), (Seq((round - 1) * 4), round > 1));
        fill(&mut journal, &[3, 1]);
        journal.seal().expect("a working disk");
        journal.seal().expect("nothing to do");
    }
    for _ in 0..40 {
        let (mut journal, tail) = Journal::open(dir.path(), SMALL).expect("sound");
        assert!(tail.closed);
        journal.seal().expect("nothing to do");
    }
    assert_eq!(read_all(dir.path()).expect("sound"), batch(1, 20));
}

/// A frame that is larger than a segment gets one that is large enough.
#[test]
fn frames_of_any_size_find_room() {
    let dir = folder();
    let last = killed(dir.path(), SMALL, &[100, 1, 200, 1, 1, 500, 30]);
    assert_eq!(open(dir.path()).expect("sound").last, last);
    assert_eq!(read_all(dir.path()).expect("sound"), batch(1, last.0));
}

#[test]
fn a_report_adds_up_and_a_dump_gives_every_event() {
    let dir = folder();
    let config = JournalConfig { segment_bytes: 4096, ..SMALL };
    let (mut journal, _) = Journal::open(dir.path(), config).expect("an empty folder");
    for (epoch, first, count) in [(1, 1, 30), (1, 31, 10), (4, 41, 60)] {
        journal.append(Epoch(epoch), &batch(first, count)).expect("room and order");
    }
    journal.seal().expect("a working disk");
    let report = verify(dir.path()).expect("readable, though in use");
    assert_eq!((report.frames, report.events), (3, 100));
    assert_eq!((report.first, report.last), (Some(Seq(1)), Some(Seq(100))));
    assert_eq!(report.segments, segments(dir.path()).len());
    assert!(report.closed && report.torn.is_none() && report.damage.is_none());
    let epochs: Vec<_> = report.epochs.iter().map(|e| (e.epoch.0, e.first.0, e.last.0)).collect();
    assert_eq!(epochs, [(1, 1, 40), (4, 41, 100)]);

    let dumped: Vec<_> = dump(dir.path(), Seq(39)).expect("sound").collect();
    assert_eq!(dumped.len(), 61);
    for (dumped, seq) in dumped.into_iter().zip(40..) {
        let dumped = dumped.expect("a known event");
        assert_eq!(dumped.event.seq, Seq(seq));
        assert_eq!(dumped.epoch.0, if seq > 40 { 4 } else { 1 });
        assert_eq!(dumped.blob.is_some(), seq % 7 == 0);
    }
    let error = verify(&dir.path().join("nowhere")).expect_err("no folder");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

/// A frame of another history of the same shard, with the right number, in the same segment.
///
/// Planted bug: leave out the comparison with the checksum of the frame before.
#[test]
fn a_frame_of_another_journal_is_refused() {
    let (ours, theirs) = (folder(), folder());
    killed(ours.path(), SMALL, &[2, 2]);
    let (mut journal, _) = Journal::open(theirs.path(), SMALL).expect("an empty folder");
    let mut first = batch(1, 2);
    first.events[0][7] = 1;
    journal.append(EPOCH, &first).expect("room and order");
    fill(&mut journal, &[2]);
    drop(journal);
    let [ours, theirs] = [ours, theirs].map(|dir| (segments(dir.path()).remove(0), dir));
    let second = 64 + 48 + 2 * 64 + 8;
    let mut bytes = fs::read(&ours.0).expect("a segment");
    bytes[second..].copy_from_slice(&fs::read(&theirs.0).expect("a segment")[second..]);
    fs::write(&ours.0, bytes).expect("writable");
    let error = open(ours.1.path()).expect_err("another history");
    let text = error.to_string();
    assert!(text.contains(&format!("at byte {second}: what begins here does not")), "{text}");
}

#[test]
fn an_event_of_an_unknown_kind_is_named_with_its_place() {
    let dir = folder();
    let (mut journal, _) = Journal::open(dir.path(), SMALL).expect("an empty folder");
    let mut strange = batch(2, 1);
    strange.events[0][1] |= 200 << 48;
    fill(&mut journal, &[1]);
    journal.append(EPOCH, &strange).expect("a log does not look into events");
    journal.commit().expect("a working disk");
    let damage = verify(dir.path()).expect("readable").damage.expect("an unknown event");
    let place = format!("{} is damaged at byte {}", segments(dir.path())[0].display(), 64 + 120);
    assert!(damage.to_string().starts_with(&place), "{damage}");
    let dumped: Vec<_> = dump(dir.path(), Seq(0)).expect("sound").collect();
    assert_eq!(dumped.len(), 2);
    assert_eq!(dumped[1].as_ref().expect_err("unknown").to_string(), damage.to_string());
}

/// Whoever opens the folder next makes a file of the same name. Planted: `Journal` is dropped
/// without a look at what is made ahead.
#[test]
fn what_is_made_ahead_goes_with_the_right_to_the_folder() {
    let dir = folder();
    let config = JournalConfig { segment_bytes: 4 << 20, ..SMALL };
    // Others have it longer than the journal, as the thread that writes snapshots does.
    let media = Arc::new(AheadDisk::default());
    let (mut journal, _) =
        Journal::open_on(dir.path(), config, Arc::clone(&media) as _).expect("an empty folder");
    fill(&mut journal, &[9_000, 9_000]);
    let unfinished = dir.path().join("segment.new");
    while !unfinished.exists() {
        std::thread::yield_now();
    }
    drop(journal);
    assert!(!unfinished.exists());
    drop(media);
}
