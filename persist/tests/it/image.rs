//! The image: one fold, however it is reached, and no faith in any event.

use proptest::prelude::*;
use tmomi_engine::event::{Batch, Body, Event, LeaveReason, Standing};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, Epoch, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq,
    ShowtimeId, TimeMs,
};
use tmomi_persist::image::{
    Contradiction, Followed, HoldView, Image, ImageCodecError, Outcome, Past,
};
use tmomi_persist::layout_codec;

use crate::sale::{SHOWTIMES, START, Sale, layout_spec, steps};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// R9; planted: `apply` reads a clock, or a hash table's order reaches the encoding.
    #[test]
    fn follower_snapshot_with_tail_and_replay_have_one_hash(
        steps in steps(200),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut sale = Sale::open();
        sale.run(&steps);
        let replayed = sale.image();
        let mut followed = Image::new();
        let cut = cut.index(sale.batches.len());
        let mut restored = None;
        for (index, batch) in sale.batches.iter().enumerate() {
            prop_assert_eq!(followed.follow(Epoch(1), batch).unwrap(), Followed::Applied);
            if let Some(image) = &mut restored {
                Image::apply(image, batch).unwrap();
            }
            if index == cut {
                restored = Some(Image::decode(&followed.encode()).unwrap());
            }
        }
        prop_assert_eq!(followed.hash(), replayed.hash());
        prop_assert_eq!(restored.expect("the cut is one of the batches").hash(), replayed.hash());
    }

    /// R5; planted: an expiry does not give the seats back to the buyer's limit.
    #[test]
    fn seats_add_up_and_no_buyer_is_above_the_limit(steps in steps(200)) {
        let mut sale = Sale::open();
        sale.run(&steps);
        let mut image = Image::new();
        let mut limits = [100; 2];
        for batch in &sale.batches {
            image.apply(batch).unwrap();
            for (showtime, limit) in SHOWTIMES.iter().zip(&mut limits) {
                let showtime = image.showtime(*showtime).expect("both are open");
                *limit = showtime.limit().max(*limit);
                let sections = showtime.layout().sections();
                for (counts, section) in showtime.sections().iter().zip(sections) {
                    prop_assert_eq!(counts.total(), u64::from(section.capacity));
                }
                prop_assert!(showtime.entries().iter().all(|entry| entry.seats <= *limit));
            }
        }
        for id in SHOWTIMES {
            let house = sale.engine.house(id).expect("both are open");
            let showtime = image.showtime(id).expect("both are open");
            for (index, counts) in showtime.sections().iter().enumerate() {
                let section = tmomi_engine::ids::SectionIndex(index as u16);
                prop_assert_eq!(house.free_in(section), counts.free);
            }
            for (index, entry) in showtime.entries().iter().enumerate() {
                prop_assert_eq!(house.seats_in_use(EntryId(index as u32)), entry.seats);
            }
            prop_assert_eq!(house.active(), showtime.active());
        }
    }

    /// R6; planted: the new process counts on from what the old one had in memory.
    #[test]
    fn an_engine_built_from_the_image_goes_on_without_a_gap(
        before in steps(120),
        after in steps(120),
        lost in any::<prop::sample::Index>(),
    ) {
        let mut sale = Sale::open();
        sale.run(&before);
        // What was decided and not committed is lost with the process.
        let kept = lost.index(sale.batches.len()) + 1;
        let mut image = Image::new();
        sale.batches[..kept].iter().for_each(|batch| image.apply(batch).unwrap());
        let expected = image.applied().next();
        let mut next = Sale::resume(&image, sale.now);
        prop_assert_eq!(next.batches[0].first_seq(), Some(expected));
        next.run(&after);
        prop_assert_eq!(image.follow(Epoch(2), &next.all()).unwrap(), Followed::Applied);
    }
}

/// R3; planted: the snapshot leaves the keys out.
#[test]
fn a_key_is_remembered_for_a_day_and_by_the_snapshot_too() {
    let key = RequestKey { hash: 77, fingerprint: 5 };
    let mut story = Story::new();
    story.tell(Body::Joined { entry: EntryId(0), buyer: BuyerId(8), number: LineNumber(1), key });
    let seq = story.image.applied();
    let outcome = Outcome::Joined {
        showtime: ShowtimeId(1),
        entry: EntryId(0),
        number: LineNumber(1),
        admitted_until: None,
        seq,
    };
    let restored = Image::decode(&story.image.encode()).expect("as encoded");
    for image in [&story.image, &restored] {
        let known = image.key(77).expect("it was just used");
        assert_eq!((known.fingerprint, known.outcome), (5, outcome));
    }
    let day_ms = 24 * 60 * 60 * 1_000;
    story.now = START.plus_ms(day_ms - 1);
    story.tell(Body::Buyer { entry: EntryId(1), buyer: BuyerId(9) });
    assert!(story.image.key(77).is_some());
    story.now = START.plus_ms(day_ms);
    story.tell(Body::Buyer { entry: EntryId(2), buyer: BuyerId(10) });
    assert!(story.image.key(77).is_none());
}

/// R7; planted: any epoch is followed.
#[test]
fn after_a_new_epoch_began_no_record_of_an_older_one_changes_anything() {
    let mut story = Story::new();
    story.tell(Body::EpochStart { epoch: Epoch(4), node: 2 });
    let hash = story.image.hash();
    let late = story.batch(Body::Buyer { entry: EntryId(0), buyer: BuyerId(9) });
    assert_eq!(story.image.follow(Epoch(3), &late).expect("no error"), Followed::Stale);
    assert_eq!(story.image.hash(), hash);
    let unannounced = story.image.follow(Epoch(5), &late).expect_err("epoch 5 never began");
    assert!(matches!(unannounced.what, Contradiction::Epoch { claimed: Epoch(5), .. }));
    let again = story.batch(Body::EpochStart { epoch: Epoch(4), node: 2 });
    assert!(story.image.follow(Epoch(4), &again).is_err());
}

/// An image and a hand that writes the next event.
struct Story {
    image: Image,
    now: TimeMs,
}

impl Story {
    fn new() -> Story {
        let mut story = Story { image: Image::new(), now: START };
        let mut open = story.batch(Body::Opened { limit: 4, hold_ttl_ms: 1_000 });
        open.blobs.push((Seq(1), layout_codec::encode(&layout_spec()).into()));
        story.image.apply(&open).expect("the first event");
        story
    }

    fn batch(&self, body: Body) -> Batch {
        let event = Event {
            seq: self.image.applied().next(),
            at: self.now,
            showtime: match body {
                Body::EpochStart { .. } => ShowtimeId(0),
                _ => ShowtimeId(1),
            },
            more_follows: false,
            has_blob: matches!(body, Body::Opened { .. }),
            body,
        };
        Batch { events: vec![event.pack()], blobs: Vec::new() }
    }

    fn tell(&mut self, body: Body) {
        let batch = self.batch(body);
        self.image.apply(&batch).expect("it contradicts nothing");
    }

    fn refused(&self, body: Body) -> Contradiction {
        let mut image = self.image.clone();
        image.apply(&self.batch(body)).expect_err("it contradicts what came before").what
    }
}

fn first(mask: u64) -> Part {
    Part { block: BlockIndex(0), mask }
}

#[test]
fn an_event_that_contradicts_the_line_is_named() {
    let key = RequestKey::NONE;
    let joined = |entry, buyer, number| Body::Joined {
        entry: EntryId(entry),
        buyer: BuyerId(buyer),
        number: LineNumber(number),
        key,
    };
    let mut story = Story::new();
    // Threads that take numbers at once may log them in another order.
    story.tell(joined(1, 51, 2));
    story.tell(joined(0, 50, 1));
    assert!(matches!(story.refused(joined(2, 52, 1)), Contradiction::Number(_)));
    assert!(matches!(story.refused(joined(2, 50, 3)), Contradiction::EntryTaken { .. }));
    assert!(matches!(story.refused(joined(0, 52, 3)), Contradiction::EntryTaken { .. }));
    assert!(matches!(story.refused(joined(0, 50, 3)), Contradiction::Standing { .. }));
    let admitted = |entry, number| Body::Admitted {
        entry: EntryId(entry),
        number: LineNumber(number),
        until: START,
    };
    assert!(matches!(story.refused(admitted(0, 2)), Contradiction::NotTheNumber { .. }));
    assert!(matches!(story.refused(admitted(7, 7)), Contradiction::NoEntry(_)));
    let showtime = |story: &Story| story.image.showtime(ShowtimeId(1)).expect("open").clone();
    assert_eq!(showtime(&story).ahead(LineNumber(2)), 1);
    story.tell(Body::Passed { entry: EntryId(0), number: LineNumber(1) });
    assert_eq!(showtime(&story).ahead(LineNumber(2)), 0);
    assert_eq!((showtime(&story).waiting(), showtime(&story).active()), (2, 0));
    story.tell(admitted(0, 1));
    assert!(matches!(story.refused(admitted(0, 1)), Contradiction::Standing { .. }));
    let left = |was| Body::Left {
        entry: EntryId(0),
        number: LineNumber(1),
        was,
        reason: LeaveReason::SessionOver,
    };
    assert!(matches!(story.refused(left(Standing::Waiting)), Contradiction::Standing { .. }));
    story.tell(left(Standing::Admitted));
    assert_eq!((showtime(&story).waiting(), showtime(&story).active()), (1, 0));
    story.tell(joined(0, 50, 9));
    assert_eq!(showtime(&story).ahead(LineNumber(9)), 1);
}

#[test]
fn an_event_that_contradicts_the_seats_is_named() {
    let key = RequestKey::NONE;
    let entry = EntryId(0);
    let held = |slot, mask| Body::Held {
        slot: HoldSlot(slot),
        entry,
        ttl_ms: 1_000,
        first: first(mask),
        key,
    };
    let mut story = Story::new();
    assert!(matches!(story.refused(held(0, 1)), Contradiction::NoEntry(_)));
    story.tell(Body::Buyer { entry, buyer: BuyerId(50) });
    story.tell(held(3, 0b11));
    let id = HoldId { slot: HoldSlot(3), seq: story.image.applied() };
    assert!(matches!(story.refused(held(4, 0b10)), Contradiction::Seats { mask: 0b10, .. }));
    assert!(matches!(story.refused(held(3, 0b100)), Contradiction::SlotTaken(_)));
    assert!(matches!(story.refused(held(4, 0b11100)), Contradiction::Limit { seats: 5, .. }));
    let beyond = Body::Blocked { first: Part { block: BlockIndex(1), mask: 1 << 63 }, key };
    assert!(matches!(story.refused(beyond), Contradiction::NoSeats { .. }));
    assert!(matches!(story.refused(held(4, 0)), Contradiction::NoSeats { .. }));
    let confirmed = |hold, mask| Body::Confirmed { hold, entry, first: first(mask), key };
    assert!(matches!(story.refused(confirmed(id, 0b1)), Contradiction::NotOfHold(_)));
    let other = HoldId { seq: Seq(99), ..id };
    assert!(matches!(story.refused(confirmed(other, 0b11)), Contradiction::NotThatHold(_)));
    let expired = Body::Expired { hold: id, entry, first: first(0b11) };
    assert!(matches!(story.refused(expired), Contradiction::Deadline(_)));
    story.now = START.plus_ms(1_000);
    assert!(matches!(story.refused(confirmed(id, 0b11)), Contradiction::Deadline(_)));
    story.now = START.plus_ms(999);
    story.tell(confirmed(id, 0b11));
    assert!(matches!(story.refused(confirmed(id, 0b11)), Contradiction::NotThatHold(_)));
    let Some(HoldView::Order(order)) = story.image.hold(id) else { panic!("it is an order") };
    assert_eq!((order.confirmed.at, order.refunded), (story.now, None));
    let refunded = Body::Refunded { hold: id, entry, first: first(0b11), key };
    story.tell(refunded);
    assert!(matches!(story.refused(refunded), Contradiction::NotThatHold(_)));
    story.tell(held(3, 0b11));
    assert!(matches!(story.image.hold(id), Some(HoldView::Order(o)) if o.refunded.is_some()));
    let unblocked = Body::Unblocked { first: first(0b100), key };
    assert!(matches!(story.refused(unblocked), Contradiction::Seats { .. }));
    let counts = story.image.showtime(ShowtimeId(1)).expect("open").counts();
    assert_eq!((counts.free, counts.held, counts.sold), (358, 2, 0));
}

#[test]
fn a_showtime_remembers_that_it_was_held_and_sold() {
    let (entry, key) = (EntryId(0), RequestKey::NONE);
    let mut story = Story::new();
    let past = |story: &Story| {
        let restored = Image::decode(&story.image.encode()).expect("as encoded");
        restored.showtime(ShowtimeId(1)).expect("open").past()
    };
    story.tell(Body::Buyer { entry, buyer: BuyerId(50) });
    story.tell(Body::Blocked { first: first(0b100), key });
    assert_eq!(past(&story), Past::Untouched);
    let hold = |story: &mut Story| {
        let (slot, first) = (HoldSlot(0), first(1));
        story.tell(Body::Held { slot, entry, ttl_ms: 1_000, first, key });
        HoldId { slot, seq: story.image.applied() }
    };
    let id = hold(&mut story);
    story.tell(Body::Released { hold: id, entry, first: first(1) });
    assert_eq!(past(&story), Past::Held);
    let id = hold(&mut story);
    story.tell(Body::Confirmed { hold: id, entry, first: first(1), key });
    story.tell(Body::Refunded { hold: id, entry, first: first(1), key });
    assert_eq!(past(&story), Past::Sold);
}

/// Planted: the outcome takes the session's end from an admission that came later.
#[test]
fn a_join_remembers_whether_it_let_in() {
    let key = |hash| RequestKey { hash, fingerprint: 1 };
    let joined = |n: u32, hash| Body::Joined {
        entry: EntryId(n),
        buyer: BuyerId(n.into()),
        number: LineNumber(n + 1),
        key: key(hash),
    };
    let admitted =
        |n: u32, until| Body::Admitted { entry: EntryId(n), number: LineNumber(n + 1), until };
    let mut story = Story::new();
    let mut at_once = story.batch(joined(0, 70));
    let mut event = Event::unpack(&at_once.events[0]).expect("just packed");
    event.more_follows = true;
    at_once.events[0] = event.pack();
    let body = admitted(0, START.plus_ms(9));
    at_once.events.push(Event { seq: event.seq.next(), more_follows: false, body, ..event }.pack());
    story.image.apply(&at_once).expect("one decision");
    story.tell(joined(1, 71));
    story.tell(admitted(1, START.plus_ms(9)));
    let restored = Image::decode(&story.image.encode()).expect("as encoded");
    let until = |hash| match restored.key(hash).expect("just used").outcome {
        Outcome::Joined { admitted_until, .. } => admitted_until,
        other => panic!("a join, not {other:?}"),
    };
    assert_eq!((until(70), until(71)), (Some(START.plus_ms(9)), None));
}

#[test]
fn an_event_out_of_its_order_is_named() {
    let mut story = Story::new();
    let gap = story.batch(Body::Terms { limit: 4, hold_ttl_ms: 1_000 });
    story.tell(Body::Terms { limit: 4, hold_ttl_ms: 1_000 });
    let again = story.image.clone().apply(&gap).expect_err("its number is used");
    assert!(matches!(again.what, Contradiction::Sequence { expected: Seq(3) }));
    let parts = [Part::default(); 3];
    assert!(matches!(story.refused(Body::More { parts }), Contradiction::StrayParts));
    let mut cut = story.batch(Body::Buyer { entry: EntryId(0), buyer: BuyerId(1) });
    let mut event = Event::unpack(&cut.events[0]).expect("just packed");
    event.more_follows = true;
    cut.events[0] = event.pack();
    let cut = story.image.clone().apply(&cut).expect_err("half a decision");
    assert!(matches!(cut.what, Contradiction::Cut));
    let opened = Body::Opened { limit: 4, hold_ttl_ms: 1_000 };
    assert!(matches!(story.refused(opened), Contradiction::AlreadyOpen));
}

#[test]
fn the_orders_of_a_buyer_come_newest_first_and_page_by_page() {
    let mut story = Story::new();
    let mut ids = Vec::new();
    for (n, entry) in [(0, EntryId(0)), (1, EntryId(1)), (2, EntryId(0)), (3, EntryId(0))] {
        if story.image.showtime(ShowtimeId(1)).expect("open").entry(entry).is_none() {
            story.tell(Body::Buyer { entry, buyer: BuyerId(50 + u64::from(entry.0)) });
        }
        let (slot, key) = (HoldSlot(n), RequestKey::NONE);
        story.tell(Body::Held { slot, entry, ttl_ms: 1_000, first: first(1 << n), key });
        let hold = HoldId { slot, seq: story.image.applied() };
        story.tell(Body::Confirmed { hold, entry, first: first(1 << n), key });
        ids.push(hold);
    }
    let restored = Image::decode(&story.image.encode()).expect("as encoded");
    for image in [&story.image, &restored] {
        let orders = |before| -> Vec<HoldId> {
            image.orders_of(BuyerId(50), before).map(|order| order.hold.id).collect()
        };
        assert_eq!(orders(None), [ids[3], ids[2], ids[0]]);
        assert_eq!(orders(Some(ids[2])), [ids[0]]);
        assert_eq!(image.orders_of(BuyerId(52), None).count(), 0);
    }
}

/// R13 for what the checksum cannot see: an encoding that contradicts itself.
#[test]
fn an_encoding_that_contradicts_itself_is_refused() {
    let mut sale = Sale::open();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = steps(150).new_tree(&mut runner).expect("steps");
    sale.run(&proptest::strategy::ValueTree::current(&tree));
    let bytes = sale.image().encode();
    assert!(Image::decode(&bytes).is_ok());
    for end in (0..bytes.len()).step_by(97) {
        assert!(Image::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    for at in (0..bytes.len()).step_by(13) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        if let Ok(image) = Image::decode(&flipped) {
            assert_ne!(image.hash(), sale.image().hash(), "flipped at {at}");
        }
    }
}

/// R1; planted: a seat that two orders have is proven by the first.
#[test]
fn an_encoding_with_a_seat_in_two_orders_is_refused() {
    const BUYER: u64 = 0x5ea7_5ea7_5ea7_5ea7;
    const WORD: usize = size_of::<u64>();
    let mut story = Story::new();
    let (entry, key) = (EntryId(0), RequestKey::NONE);
    story.tell(Body::Buyer { entry, buyer: BuyerId(BUYER) });
    for (n, mask) in [(0, 0b011), (1, 0b100)] {
        let slot = HoldSlot(n);
        story.tell(Body::Held { slot, entry, ttl_ms: 1_000, first: first(mask), key });
        let hold = HoldId { slot, seq: story.image.applied() };
        story.tell(Body::Confirmed { hold, entry, first: first(mask), key });
    }
    let mut bytes = story.image.encode();
    assert!(Image::decode(&bytes).is_ok());
    // The last order has a seat of the first one, and the buyer as many seats as both have.
    let mask = bytes.len() - 3 * WORD;
    assert_eq!(bytes[mask], 0b100);
    bytes[mask] = 0b110;
    let buyer = bytes.windows(WORD).position(|word| word == BUYER.to_le_bytes());
    let seats = buyer.expect("he is there") + WORD;
    assert_eq!(bytes[seats], 3);
    bytes[seats] = 4;
    assert!(matches!(Image::decode(&bytes), Err(ImageCodecError::Inconsistent(_))));
}

/// Planted: any entry of no buyer is unused; a number that was not given is not looked at.
#[test]
fn an_encoding_with_an_entry_that_nobody_could_have_is_refused() {
    const BUYER: u64 = 0x5ea7_5ea7_5ea7_5ea7;
    const WORD: usize = size_of::<u64>();
    let mut story = Story::new();
    story.tell(Body::Buyer { entry: EntryId(0), buyer: BuyerId(BUYER) });
    let good = story.image.encode();
    let buyer = good.windows(WORD).position(|word| word == BUYER.to_le_bytes());
    let buyer = buyer.expect("he is there");
    let (number, session_until) = (buyer + WORD + WORD / 2, buyer + 2 * WORD);
    let changed = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Image::decode(&bytes)
    };
    assert!(changed(&|_| {}).is_ok());
    let no_such = |bytes: &mut [u8]| bytes[number] = 1;
    assert!(matches!(changed(&no_such), Err(ImageCodecError::Inconsistent(_))));
    let nobody = |bytes: &mut [u8]| {
        bytes[buyer..buyer + WORD].fill(0xff);
        bytes[session_until] = 1;
    };
    assert!(matches!(changed(&nobody), Err(ImageCodecError::Inconsistent(_))));
}
