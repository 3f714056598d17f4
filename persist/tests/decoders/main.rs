//! What reads bytes that anybody may have written: it never panics, and it never asks for more
//! memory than a constant times what it was given.
//!
//! A binary of its own, because it counts what is allocated. Planted: a length is believed before
//! the bytes that it counts are looked for.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::test_runner::Config;
use tmomi_engine::event::{Batch, Event, EventWords};
use tmomi_engine::ids::TimeMs;
use tmomi_engine::ids::{BlockIndex, BuyerId, Epoch, Part, RequestKey, ShowtimeId, TierIndex};
use tmomi_engine::layout::{Layout, LayoutSpec, RowSpec, SectionSpec};
use tmomi_engine::{Context, Engine, EngineConfig, HoldRequest, OpenShowtime};
use tmomi_persist::frame::{self, Checksum};
use tmomi_persist::image::{Image, ImageCodecError};
use tmomi_persist::layout_codec;
use tmomi_persist::plan::Plan;

/// Bytes in use at a time, for each byte of input: what counts may claim is bounded by 32 times the
/// input, in steps of 16.
const BYTES_PER_BYTE: u64 = 32 * 16;
/// What even an empty input may take: the first of these steps; a message, a map, a buffer.
const BYTES_ALWAYS: u64 = (64 + 16) << 10;
const BYTES_MAX: usize = 2_000;

/// Gives what `decode` makes of `input`, which must not have taken more than it may.
fn bounded<T>(input: &[u8], decode: impl FnOnce(&[u8]) -> T) -> T {
    bounded_but_for(0, input, decode)
}

/// As [`bounded`]; an image may take a pointer for every 4,096 records of the slab besides, of
/// which there are up to 2^28.
fn bounded_image(input: &[u8]) -> Result<Image, ImageCodecError> {
    const SLAB_POINTERS_BYTES: u64 = (1 << 28 >> 12) * 8;
    bounded_but_for(SLAB_POINTERS_BYTES, input, Image::decode)
}

fn bounded_but_for<T>(besides: u64, input: &[u8], decode: impl FnOnce(&[u8]) -> T) -> T {
    let mut decoded = None;
    let taken = allocation_counter::measure(|| decoded = Some(decode(input)));
    let most = BYTES_ALWAYS + besides + BYTES_PER_BYTE * input.len() as u64;
    assert!(taken.bytes_max <= most, "{} bytes of {} took {taken:?}", most, input.len());
    decoded.expect("it was just set")
}

/// A change of a sound input.
#[derive(Clone, Debug)]
enum Change {
    /// A byte becomes another.
    Byte(prop::sample::Index, u8),
    /// Eight bytes become a number that may be a count: a small one, or one that is far too large.
    Count(prop::sample::Index, u64),
    /// The rest is missing.
    Cut(prop::sample::Index),
    /// Something more stands there.
    Insert(prop::sample::Index, Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![
        0_u64..70,
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        (0_u32..64).prop_map(|shift| 1 << shift),
    ];
    let change = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (at(), number).prop_map(|(at, number)| Change::Count(at, number)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ];
    prop::collection::vec(change, 1..4)
}

fn changed(sound: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Byte(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Count(at, number) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + size_of::<u64>());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
    bytes
}

/// A small house of every kind of section.
fn spec() -> LayoutSpec {
    let tier = TierIndex(1);
    let runs = vec![(3, TierIndex(0)), (70, tier)];
    LayoutSpec {
        sections: vec![
            SectionSpec::Uniform { rows: 3, seats_per_row: 9, tier, first_distance: 7 },
            SectionSpec::Rows(vec![RowSpec { runs, distance: 4 }]),
            SectionSpec::General { places: 30, tier },
        ],
    }
}

/// A sale with an event of every common kind.
static SALE: LazyLock<Batch> = LazyLock::new(|| {
    let config = EngineConfig { ring_slots: 1 << 12, handles_max: 2 };
    let (engine, mut keeper) = Engine::new(config);
    let mut handle = engine.handle().expect("the first");
    let at = |ms, key| {
        let key = RequestKey { hash: key, fingerprint: 5 };
        Context { now: TimeMs(ms), key }
    };
    let show = OpenShowtime {
        showtime: ShowtimeId(3),
        layout: Arc::new(Layout::build(spec()).expect("a house")),
        blob: layout_codec::encode(&spec()).into(),
        limit: 9,
        hold_ttl_ms: 60_000,
        line: Default::default(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    };
    handle.start_epoch(TimeMs(1), Epoch(1), 7).expect("there is room");
    let (house, _) = handle.open(TimeMs(1), show).expect("nothing is open");
    let joined = handle.join(&house, BuyerId(70), at(2, 1)).expect("the line is open");
    let part = |block, mask| Part { block: BlockIndex(block), mask };
    let entry = joined.entry;
    let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: true };
    let mut hold = |parts: &[Part], key| {
        handle.hold(&house, request, parts, at(3, key)).expect("the seats are free").id
    };
    let (sold, refunded) = (hold(&[part(0, 3), part(1, 6)], 2), hold(&[part(2, 1)], 3));
    hold(&[part(5, 1)], 4);
    handle.confirm(sold, Some(Box::from(*b"paid")), at(4, 5)).expect("in time");
    handle.confirm(refunded, None, at(4, 6)).expect("in time");
    handle.refund(refunded, at(5, 7)).expect("an order");
    handle.block(&house, &[part(0, 8)], None, at(6, 8)).expect("it is free");
    handle.enter(&house, BuyerId(71), TimeMs(7)).expect("there is room");
    let mut batch = Batch::default();
    keeper.drain(&mut batch, usize::MAX);
    batch
});

static FRAME: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    frame::encode(0, Epoch(1), Checksum::NONE, &SALE, &mut bytes).expect("whole decisions");
    bytes
});

static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut image = Image::new();
    image.apply(&SALE).expect("as decided");
    image.encode()
});

/// A plan of one zone, as it comes from the editor.
const PLAN: &str = r##"{"name":"Hall","categories":[{"name":"A","color":"#fff"}],"zones":[{
 "name":"Z","position":{"x":0,"y":0},"uuid":"u","zone_id":"z","rows":[{"position":{"x":1,"y":2},
 "row_number":"1","row_number_position":"both","seats":[{"seat_number":"1","seat_guid":"1-1",
 "uuid":"s","position":{"x":3,"y":4},"category":"A"}]}],"areas":[{"shape":"text","text":{
 "text":"stage","position":{"x":5,"y":6},"color":"#000"}}]}]}"##;

/// Makes the checksum of a frame right, so that what follows it is looked at.
fn sign(frame: &mut [u8]) {
    const CRC: std::ops::Range<usize> = 8..12;
    if frame.len() >= CRC.end {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..CRC.start]), &frame[CRC.end..]);
        frame[CRC].copy_from_slice(&crc.to_le_bytes());
    }
}

/// What holds the bound must be sound itself, or nothing but refusals is tried.
#[test]
fn what_is_sound_is_read_within_the_bound() {
    assert_eq!(bounded(&FRAME, frame::decode).expect("sound").0.batch, *SALE);
    assert_eq!(bounded_image(&IMAGE).expect("sound").encode(), *IMAGE);
    let layout = layout_codec::encode(&spec());
    assert_eq!(bounded(&layout, layout_codec::decode).expect("sound"), spec());
    let plan = bounded(PLAN.as_bytes(), Plan::from_json).expect("sound");
    assert_eq!(plan.report().seats, 1);
    for words in &SALE.events {
        assert_eq!(Event::unpack(words).expect("sound").pack(), *words);
    }
}

/// The bound holds for large inputs, too: thirty gigabytes of sections, claimed by nine megabytes.
#[test]
fn a_large_input_takes_no_more_for_its_size() {
    let mut bytes = layout_codec::encode(&spec());
    bytes[1..9].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    bytes.resize(9 << 20, 0);
    assert!(bounded(&bytes, layout_codec::decode).is_err());
}

/// Planted: a count of blobs is believed before their bytes are there.
#[test]
fn no_field_of_a_frame_takes_more_than_its_bytes() {
    for mut bytes in with_large_numbers(&FRAME) {
        sign(&mut bytes);
        let _ = bounded(&bytes, frame::decode);
    }
}

/// Planted: a house is built before its masks are counted; a record of the slab is made with all
/// below it.
#[test]
fn no_field_of_an_image_takes_more_than_its_bytes() {
    for bytes in with_large_numbers(&IMAGE) {
        let _ = bounded_image(&bytes);
    }
}

/// What is sound, with a large number at one place after the other.
fn with_large_numbers(sound: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let changed = |at: usize, number: u32| {
        let mut bytes = sound.to_vec();
        bytes[at..at + size_of::<u32>()].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let places = 0..sound.len() - size_of::<u32>();
    places.flat_map(move |at| [1 << 20, (1 << 28) - 1].map(|number| changed(at, number)))
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_frame_takes_more_than_its_bytes(changes in changes(), signed: bool) {
        let mut bytes = changed(&FRAME, &changes);
        if signed {
            sign(&mut bytes);
        }
        if let Ok((frame, header)) = bounded(&bytes, frame::decode) {
            prop_assert_eq!(frame.batch.events.len(), header.events as usize);
        }
    }

    #[test]
    fn no_image_takes_more_than_its_bytes(changes in changes()) {
        let bytes = changed(&IMAGE, &changes);
        if let Ok(image) = bounded_image(&bytes) {
            prop_assert_eq!(image.encode(), bytes, "one image has one encoding");
        }
    }

    #[test]
    fn no_layout_takes_more_than_its_bytes(changes in changes()) {
        let bytes = changed(&layout_codec::encode(&spec()), &changes);
        if let Ok(spec) = bounded(&bytes, layout_codec::decode) {
            prop_assert_eq!(layout_codec::encode(&spec), bytes);
        }
    }

    #[test]
    fn no_plan_takes_more_than_its_bytes(changes in changes()) {
        let _ = bounded(&changed(PLAN.as_bytes(), &changes), Plan::from_json);
    }

    #[test]
    fn no_bytes_take_more_than_they_are(bytes in prop::collection::vec(any::<u8>(), 0..BYTES_MAX)) {
        let _ = bounded(&bytes, frame::decode);
        let _ = bounded_image(&bytes);
        let _ = bounded(&bytes, layout_codec::decode);
        let _ = bounded(&bytes, Plan::from_json);
    }

    /// An event is read as it stands or not at all; what is read says the same again.
    #[test]
    fn any_words_are_an_event_or_none(mut words: EventWords, kind in 0_u64..32) {
        words[1] = words[1] & !(0xffff << 48) | kind << 48;
        let taken = allocation_counter::measure(|| {
            let _ = Event::unpack(&words);
        });
        prop_assert_eq!(taken.count_total, 0);
        if let Ok(event) = Event::unpack(&words) {
            prop_assert_eq!(Event::unpack(&event.pack()), Ok(event));
        }
    }
}
