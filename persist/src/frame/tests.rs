use proptest::prelude::*;
use tmomi_engine::event::Body;
use tmomi_engine::ids::{EntryId, LineNumber, ShowtimeId, TimeMs};

use super::*;

fn event(seq: u64, more_follows: bool) -> EventWords {
    let body = Body::Passed { entry: EntryId(7), number: LineNumber(9) };
    let (at, showtime) = (TimeMs(1_700_000_000_000), ShowtimeId(3));
    Event { seq: Seq(seq), at, showtime, more_follows, has_blob: false, body }.pack()
}

fn batch(first: u64, count: u64) -> Batch {
    let events = (first..first + count).map(|seq| event(seq, false)).collect();
    Batch { events, blobs: Vec::new() }
}

fn encoded(batch: &Batch) -> (Vec<u8>, Checksum) {
    let mut bytes = Vec::new();
    let checksum = encode(5, Epoch(2), Checksum(77), batch, &mut bytes).expect("a sound batch");
    assert_eq!(bytes.len(), encoded_bytes(batch));
    (bytes, checksum)
}

#[test]
fn a_frame_comes_back_as_it_went() {
    let mut batch = batch(10, 3);
    batch.blobs = vec![(Seq(10), b"abc".as_slice().into()), (Seq(12), Box::default())];
    let (mut bytes, checksum) = encoded(&batch);
    let length = bytes.len();
    bytes.extend_from_slice(b"what follows");
    let (frame, header) = decode(&bytes).expect("as encoded");
    assert_eq!(frame, Frame { shard: 5, epoch: Epoch(2), batch });
    assert_eq!((header.bytes, header.checksum), (length, checksum));
    assert_eq!((header.previous, header.next_seq()), (Checksum(77), Seq(13)));
}

/// Kafka and older journals have these bytes: a change of them is a new version.
#[test]
fn the_format_of_version_1_stays_what_it_is() {
    let (bytes, _) = encoded(&batch(0x0102, 1));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "78000000\
                    87ffffff\
                    cfc08e55\
                    4d000000\
                    05000000\
                    02000000\
                    0201000000000000\
                    01000000\
                    00000000\
                    0100\
                    0000\
                    546d6f6d\
                    0201000000000000\
                    0068e5cf8b010900\
                    0700000003000000\
                    0900000000000000\
                    0000000000000000\
                    0000000000000000\
                    0000000000000000\
                    0000000000000000\
                    546d6f6d692e6f6b";
    assert_eq!(hex, expected);
}

#[test]
fn what_is_no_whole_run_of_decisions_is_not_encoded() {
    let refused = |batch: &Batch| {
        let mut out = vec![1];
        let error = encode(0, Epoch(1), Checksum::NONE, batch, &mut out).expect_err("refused");
        assert_eq!(out, [1], "nothing is left of a refused batch");
        error
    };
    assert_eq!(refused(&Batch::default()), FrameError::Field("count of events"));
    let mut gap = batch(1, 2);
    gap.events[1][0] = 3;
    assert_eq!(refused(&gap), FrameError::Sequence { expected: Seq(2), found: Seq(3) });
    let open = Batch { events: vec![event(1, true)], blobs: Vec::new() };
    assert_eq!(refused(&open), FrameError::WithinDecision(Seq(1)));
    let mut last = batch(1, 1);
    last.events[0][0] = u64::MAX;
    assert_eq!(refused(&last), FrameError::Field("first number"));
    let many = batch(1, FRAME_EVENTS_MAX as u64 + 1);
    assert!(matches!(refused(&many), FrameError::TooLarge { what: "events", .. }));
}

#[test]
fn a_later_version_is_told_from_damage() {
    let (mut bytes, _) = encoded(&batch(1, 1));
    bytes[40] = 2;
    assert!(matches!(check(&bytes), Err(FrameError::Checksum { .. })));
    let crc = checksum(&bytes).0.to_le_bytes();
    bytes[CRC_AT..CRC_END].copy_from_slice(&crc);
    assert_eq!(check(&bytes), Err(FrameError::Version(2)));
}

/// A write that was cut off at any byte is recognised; a finished frame never looks like one.
#[test]
fn a_cut_write_is_told_from_a_finished_one() {
    let (bytes, _) = encoded(&batch(1, 20));
    for offset in [64, 512, 504, 1000] {
        assert!(!is_unfinished(&bytes, offset));
        for cut in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            assert!(is_unfinished(&torn, offset), "cut at {cut}");
            assert!(is_unfinished(&torn[..cut], offset), "file ends at {cut}");
        }
        for start in (0..bytes.len()).filter(|at| (offset + *at as u64).is_multiple_of(512)) {
            let mut torn = bytes.clone();
            let end = (start + 512).min(torn.len());
            torn[start..end].fill(0);
            assert!(is_unfinished(&torn, offset), "sector at {start} is missing");
        }
    }
}

/// Fails if `check` does not compare the checksum (R13).
#[test]
fn every_flipped_bit_is_noticed_and_is_no_cut_write() {
    let mut sound = batch(1, 2);
    sound.blobs = vec![(Seq(2), b"payment 12".as_slice().into())];
    let (bytes, _) = encoded(&sound);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&flipped).is_err(), "bit {bit}");
        assert!(!is_unfinished(&flipped, 64), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(decode(&bytes).is_err());
        is_unfinished(&bytes, 64);
    }

    /// Bytes whose checksum is right, but whose fields may be anything.
    #[test]
    fn contradictory_fields_are_refused_without_panic(
        fields in prop::collection::vec((12_usize..120, any::<u8>()), 1..6),
        events in 1_u64..3,
    ) {
        let mut sound = batch(1, events);
        sound.blobs = vec![(Seq(1), b"12345".as_slice().into())];
        let (mut bytes, _) = encoded(&sound);
        for (at, value) in fields {
            bytes[at] = value;
        }
        let crc = checksum(&bytes).0.to_le_bytes();
        bytes[CRC_AT..CRC_END].copy_from_slice(&crc);
        if let Ok((frame, header)) = decode(&bytes) {
            prop_assert_eq!(frame.batch.events.len(), header.events as usize);
            prop_assert_eq!(frame.batch.first_seq(), Some(header.first));
        }
    }

    #[test]
    fn any_batch_comes_back(
        first in 1_u64..1 << 50,
        contents in prop::collection::vec(
            (any::<[u64; 6]>(), prop::option::of(any::<Vec<u8>>())),
            1..20,
        ),
    ) {
        let mut sound = Batch::default();
        for (index, (words, blob)) in contents.into_iter().enumerate() {
            let seq = first + index as u64;
            let [w2, w3, w4, w5, w6, w7] = words;
            sound.events.push([seq, event(0, false)[1], w2, w3, w4, w5, w6, w7]);
            sound.blobs.extend(blob.map(|blob| (Seq(seq), blob.into_boxed_slice())));
        }
        let (bytes, _) = encoded(&sound);
        prop_assert_eq!(decode(&bytes).expect("as encoded").0.batch, sound);
        prop_assert!(!is_unfinished(&bytes, 64));
    }
}

#[cfg(feature = "kafka")]
#[test]
fn a_frame_put_behind_another_is_what_would_have_been_written_there() {
    let (mut moved, _) = encoded(&batch(10, 3));
    let mut there = Vec::new();
    let written = encode(5, Epoch(2), Checksum(99), &batch(10, 3), &mut there);
    assert_eq!(written, Ok(put_behind(Checksum(99), &mut moved)));
    assert_eq!(moved, there);
}
