//! A journal is damaged by hand: it says so, with file and byte, or only a cut tail is lost.

use std::fs;

use tmomi_engine::event::Batch;
use tmomi_engine::ids::{Epoch, Seq};
use tmomi_persist::journal::{Journal, JournalConfig, JournalError, verify};
use tmomi_persist::log::Log;

use super::support::*;

fn prefix_of(all: &Batch, last: Seq) -> Batch {
    let mut prefix = all.clone();
    prefix.events.truncate(last.0 as usize);
    prefix.blobs.retain(|(seq, _)| *seq <= last);
    prefix
}

/// Every committed frame, the last one included, is guarded: one flipped bit anywhere either
/// stops the start with file and byte, or stands where nothing was written.
///
/// Planted bugs (R13): skip the comparison of the checksum in `frame::check`; cut off every bad
/// frame at the end of a journal as if a crash had left it.
#[test]
fn a_flipped_bit_anywhere_is_refused_or_was_in_unused_space() {
    let sound = folder();
    let last = killed(sound.path(), SMALL, &SIZES);
    let all = read_all(sound.path()).expect("a sound journal");
    assert_eq!(all, batch(1, last.0));
    for (index, path) in segments(sound.path()).iter().enumerate() {
        let bytes = fs::read(path).expect("a segment");
        let written = bytes.iter().rposition(|byte| *byte != 0).expect("a header");
        // In the room behind the last frame every 16th byte will do.
        for offset in (0..bytes.len()).filter(|at| *at <= written || at % 16 == 3) {
            let ruined = copy(sound.path());
            let file = &segments(ruined.path())[index];
            let bit = 1 << (offset % 8);
            change_byte(file, offset as u64, |byte| byte ^ bit);
            let report = verify(ruined.path()).expect("a readable folder");
            match open(ruined.path()) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(&*file.to_string_lossy()), "{offset}: {text}");
                    assert!(report.damage.is_some(), "{offset}: {text}");
                    check_place(&error, offset as u64);
                }
                Ok(tail) => {
                    assert_eq!(tail.last, last, "committed frames were lost for byte {offset}");
                    assert_eq!(read_all(ruined.path()).expect("it was opened"), all);
                    assert!(report.damage.is_none(), "{offset}");
                    assert_eq!(report.torn, tail.cut);
                    assert!(tail.cut.is_some() || is_note(&bytes, offset), "{offset} unnoticed");
                }
            }
        }
    }
}

fn check_place(error: &JournalError, flipped: u64) {
    match error {
        JournalError::Damaged { offset, .. } => {
            assert!(*offset <= flipped && flipped < offset + 2048, "{error} for byte {flipped}");
        }
        other => panic!("{other} for byte {flipped}"),
    }
}

/// Whether the byte is in the note at the end of a continued segment, which holds no events and
/// which the next segment makes needless.
fn is_note(bytes: &[u8], offset: usize) -> bool {
    bytes[bytes.len() - 1] != 0 && offset >= bytes.len() - 56
}

/// However short the last segment is cut, it opens with a prefix of whole frames, says what it
/// cut, and goes on; only a segment without its header is refused.
#[test]
fn a_segment_cut_at_any_byte_keeps_the_frames_before() {
    let sound = folder();
    let sizes = &SIZES[..8];
    let last = killed(sound.path(), SMALL, sizes);
    let all = read_all(sound.path()).expect("a sound journal");
    let paths = segments(sound.path());
    let newest = paths.last().expect("there are segments");
    let size = fs::metadata(newest).expect("a segment").len();
    for length in 0..size {
        let ruined = copy(sound.path());
        let file = segments(ruined.path()).pop().expect("there are segments");
        let cut = fs::File::options().write(true).open(&file).expect("a segment");
        cut.set_len(length).expect("writable");
        if length < 64 {
            let error = open(ruined.path()).expect_err("no header");
            assert!(matches!(error, JournalError::Damaged { offset: 0, .. }), "{error}");
            continue;
        }
        let (mut journal, tail) = Journal::open(ruined.path(), SMALL).expect("a cut tail");
        assert!(tail.last <= last);
        if let Some(torn) = &tail.cut {
            assert_eq!(
                (&torn.file, torn.offset + torn.bytes),
                (&file, length.min(torn.offset + torn.bytes))
            );
        }
        assert_eq!(read_all(ruined.path()).expect("it was opened"), prefix_of(&all, tail.last));
        // What follows is read back too: nothing of the old frame is left.
        let more = fill(&mut journal, &[2, 1]);
        drop(journal);
        assert_eq!(open(ruined.path()).expect("sound again").last, more);
        assert_eq!(read_all(ruined.path()).expect("sound again"), batch(1, more.0));
    }
}

/// A write that stopped at any byte, the rest still zeros, is cut off and said.
///
/// Planted bug: leave the torn bytes in the file.
#[test]
fn a_frame_half_written_is_cut_and_reported() {
    let sound = folder();
    let before = killed(sound.path(), SMALL, &SIZES[..2]);
    let begins = {
        let bytes = fs::read(&segments(sound.path())[0]).expect("a segment");
        bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1
    };
    let (mut journal, _) = Journal::open(sound.path(), SMALL).expect("sound");
    fill(&mut journal, &[4]);
    drop(journal);
    let bytes = fs::read(&segments(sound.path())[0]).expect("a segment");
    let ends = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    for written in begins + 1..ends {
        let ruined = copy(sound.path());
        let file = segments(ruined.path()).remove(0);
        let mut torn_bytes = bytes.clone();
        torn_bytes[written..].fill(0);
        fs::write(&file, &torn_bytes).expect("writable");
        let tail = open(ruined.path()).expect("a torn tail");
        assert_eq!(tail.last, before);
        let cut = tail.cut.expect("it is reported");
        assert_eq!((cut.file, cut.offset), (file, begins as u64));
        assert!(cut.bytes <= (written - begins) as u64);
        assert!(open(ruined.path()).expect("cut already").cut.is_none());
    }
}

/// A frame whose first sector never arrived is only a torn tail if it is the last one.
///
/// Planted bug: leave out the search for a good frame behind a bad one.
#[test]
fn a_hole_before_a_good_frame_is_damage() {
    let dir = folder();
    let config = JournalConfig { segment_bytes: 1 << 16, ..SMALL };
    killed(dir.path(), config, &[20, 20, 20]);
    let file = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&file).expect("a segment");
    let second = 64 + 48 + 20 * 64 + 8;
    let second = second + 2 * (16 + 10) + 4;
    bytes[second..second + 512].fill(0);
    fs::write(&file, &bytes).expect("writable");
    let error = Journal::open(dir.path(), config).map(|_| ()).expect_err("damage");
    let text = error.to_string();
    assert!(text.contains("a good frame follows"), "{text}");
    assert!(text.contains(&format!("byte {second}")), "{text}");
}

#[test]
fn a_folder_in_use_says_by_whom() {
    let dir = folder();
    let (journal, _) = Journal::open(dir.path(), SMALL).expect("an empty folder");
    let error = open(dir.path()).expect_err("in use");
    let pid = std::process::id();
    assert!(error.to_string().ends_with(&format!("is in use by process {pid}")), "{error}");
    drop(journal);
    open(dir.path()).expect("free again");
}

#[test]
fn a_newer_version_and_another_shard_are_refused_by_name() {
    let dir = folder();
    killed(dir.path(), SMALL, &[1]);
    let other = JournalConfig { shard: 4, ..SMALL };
    let error = Journal::open(dir.path(), other).map(|_| ()).expect_err("another shard");
    assert!(error.to_string().contains("belongs to shard 3, not to shard 4"), "{error}");

    let file = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&file).expect("a segment");
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&crc);
    fs::write(&file, &bytes).expect("writable");
    let error = open(dir.path()).expect_err("newer");
    assert!(matches!(error, JournalError::NewerVersion { version: 2, .. }), "{error}");
}

/// Planted bug (R6): leave out the check of order in `append`.
#[test]
fn numbers_and_epochs_never_go_back_or_leave_a_gap() {
    for (epoch, first) in [(2, 2), (2, 4), (1, 3)] {
        let dir = folder();
        let (mut journal, _) = Journal::open(dir.path(), SMALL).expect("an empty folder");
        let two = Epoch(2);
        journal.append(two, &batch(1, 2)).expect("the first");
        journal.commit().expect("a working disk");
        let epoch = Epoch(epoch);
        journal.append(epoch, &batch(first, 1)).expect_err("out of order");
        journal.append(two, &batch(3, 1)).expect_err("the log failed for ever");
        drop(journal);
        assert_eq!(open(dir.path()).expect("sound").last, Seq(2));
    }
}
