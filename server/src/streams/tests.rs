//! A small world for tests of streams and line: an engine, what it decided, and the image of it;
//! and the rule of the seat stream, that a map and the frames after it make the later map.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tmomi_engine::event::{Batch, LineMode, LineSettings};
use tmomi_engine::ids::{
    BlockIndex, BuyerId, EntryId, HoldId, Part, SectionIndex, Seq, ShowtimeId, TimeMs,
};
use tmomi_engine::layout::Layout;
use tmomi_engine::{
    Context, Engine, EngineConfig, Handle, HoldRequest, House, Keeper, OpenShowtime, Reject,
};
use tmomi_persist::image::{Image, ShowtimeImage};
use tmomi_persist::layout_codec;
use tmomi_persist::plan::Plan;

use super::frames::{Frames, Kind, Taken};
use super::tracker::{Tracker, push_counts};

const SHOWTIME: ShowtimeId = ShowtimeId(7);

/// One showtime of 150 seats and 70 places.
pub(crate) struct World {
    _engine: Engine,
    keeper: Keeper,
    handle: Handle,
    image: Image,
    /// What was applied and the stream has not seen.
    batches: Vec<Batch>,
    plan: Plan,
    pub(crate) house: Arc<House>,
    pub(crate) now: TimeMs,
}

impl World {
    pub(crate) fn new(line: LineSettings) -> World {
        let plan = serde_json::json!({"generate": {"sections": [
            {"name": "A", "tier": "gold", "rows": 2, "seats_per_row": 70},
            {"name": "B \"", "tier": "silver", "rows": 1, "seats_per_row": 10},
            {"name": "Floor", "tier": "floor", "places": 70},
        ]}});
        let plan = Plan::from_value(&plan).expect("a plan");
        let spec = plan.spec();
        let (engine, keeper) = Engine::new(EngineConfig::default());
        let mut handle = engine.handle().expect("a handle");
        let now = TimeMs(1_000_000);
        let open = OpenShowtime {
            showtime: SHOWTIME,
            blob: layout_codec::encode(&spec).into(),
            layout: Arc::new(Layout::build(spec).expect("a layout")),
            limit: 1_000,
            hold_ttl_ms: 60_000,
            line,
            opens_at: TimeMs(0),
            closes_at: TimeMs(u64::MAX),
        };
        let (house, _) = handle.open(now, open).expect("opened");
        let image = Image::new();
        let mut world =
            World { _engine: engine, keeper, handle, image, batches: Vec::new(), plan, house, now };
        world.apply();
        world
    }

    pub(crate) fn showtime(&self) -> &ShowtimeImage {
        self.image.showtime(SHOWTIME).expect("it was opened")
    }

    pub(crate) fn join(&mut self, buyer: u64) -> EntryId {
        let joined = self.handle.join(&self.house, BuyerId(buyer), Context::at(self.now));
        self.apply();
        joined.expect("joined").entry
    }

    pub(crate) fn leave(&mut self, entry: EntryId) {
        self.handle.leave(&self.house, entry, self.now).expect("left");
        self.apply();
    }

    pub(crate) fn set_line(&mut self, line: LineSettings) {
        self.handle.set_line(&self.house, self.now, line).expect("set");
        self.apply();
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.keeper.tick(self.now);
        self.apply();
    }

    pub(crate) fn sell_all(&mut self, entry: EntryId) -> HoldId {
        let blocks = self.house.layout().blocks().iter().enumerate();
        let all = blocks.map(|(n, block)| Part { block: BlockIndex(n as u32), mask: block.full() });
        let parts: Vec<Part> = all.collect();
        let held = self.hold(entry, &parts).expect("all is free");
        self.handle.confirm(held, None, Context::at(self.now)).expect("held");
        self.apply();
        held
    }

    pub(crate) fn refund(&mut self, order: HoldId) {
        self.handle.refund(order, Context::at(self.now)).expect("confirmed");
        self.apply();
    }

    fn hold(&mut self, entry: EntryId, parts: &[Part]) -> Result<HoldId, Reject> {
        let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: true };
        let held = self.handle.hold(&self.house, request, parts, Context::at(self.now));
        self.apply();
        held.map(|held| held.id)
    }

    fn apply(&mut self) {
        let mut batch = Batch::default();
        while self.keeper.drain(&mut batch, 1_000) > 0 {
            self.image.apply(&batch).expect("the engine does not contradict itself");
            self.batches.push(std::mem::take(&mut batch));
        }
    }

    /// The map as `GET seats` gives it.
    fn map(&self) -> BTreeMap<String, char> {
        let showtime = self.showtime();
        let mut map = BTreeMap::new();
        let layout = showtime.layout();
        for section in layout.sections().iter().filter(|section| !section.general) {
            for block in section.blocks.clone().map(BlockIndex) {
                let masks = showtime.masks(block).expect("a block of the layout");
                let full = Part { block, mask: layout.block(block).full() };
                for seat in full.seats() {
                    let bit = 1 << seat.bit();
                    let state = match bit {
                        bit if masks.held & bit != 0 => 'h',
                        bit if masks.sold & bit != 0 => 's',
                        bit if masks.blocked & bit != 0 => 'b',
                        _ => 'f',
                    };
                    map.insert(self.plan.seat_id(layout, seat), state);
                }
            }
        }
        map
    }

    fn free(&self) -> Vec<u64> {
        self.showtime().sections().iter().map(|section| section.free.into()).collect()
    }
}

/// What a client makes of the stream.
struct Client {
    seq: Seq,
    map: BTreeMap<String, char>,
    free: Vec<u64>,
}

impl Client {
    fn new(world: &World) -> Client {
        Client { seq: world.image.applied(), map: world.map(), free: world.free() }
    }

    /// As the contract says: frames up to the map's number are old, later ones are folded.
    fn fold(&mut self, frame: &[u8]) {
        let frame: Value = serde_json::from_slice(frame).expect("JSON");
        let seq = frame["seq"].as_str().and_then(|seq| seq.parse().ok()).expect("a number");
        if let Some(sections) = frame["sections"].as_array() {
            if Seq(seq) >= self.seq {
                let free = sections.iter().map(|section| section["free"].as_u64());
                self.free = free.collect::<Option<_>>().expect("numbers");
            }
            return;
        }
        if Seq(seq) <= self.seq {
            return;
        }
        for (name, letter) in [("free", 'f'), ("held", 'h'), ("sold", 's'), ("blocked", 'b')] {
            for id in frame[name].as_array().expect("a list") {
                let id = id.as_str().expect("an id");
                *self.map.get_mut(id).expect("a seat of the map") = letter;
            }
        }
        self.seq = Seq(seq);
    }
}

/// The part of a hub that is not time.
struct Stream {
    tracker: Tracker,
    frames: Frames,
}

impl Stream {
    fn new(world: &World) -> Stream {
        let tracker = Tracker::new(&world.image, SHOWTIME).expect("it was opened");
        Stream { tracker, frames: Frames::new(world.showtime().seats_seq()) }
    }

    /// Folds what was applied and tells it, as the hub does.
    fn look(&mut self, world: &mut World) {
        let layout = world.house.layout();
        world.batches.drain(..).for_each(|batch| self.tracker.follow(&batch, layout));
        let seq = self.tracker.seq();
        assert_eq!(seq, world.image.applied());
        self.frames.advance(seq);
        if self.tracker.seats_touched() {
            let mut text = String::new();
            self.tracker.push_seats(&mut text, &seq.to_string(), &world.plan, layout);
            self.tracker.told();
            self.frames.push(Kind::Seats, text.into());
        }
        if self.tracker.take_counts_touched() {
            let mut text = String::new();
            push_counts(&mut text, &seq.to_string(), self.tracker.free(), &world.plan);
            self.frames.push(Kind::Counts, text.into());
        }
    }

    /// Brings a client that comes back up to date.
    fn resume(&self, client: &mut Client) {
        let mut cursor = self.frames.after(client.seq).expect("the ring is long enough");
        while let Taken::Frame(frame) = self.frames.take(&mut cursor, Seq(0)) {
            client.fold(&frame);
        }
    }
}

/// Marsaglia's xorshift: numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One random decision.
fn decide(world: &mut World, holds: &mut Vec<HoldId>, entry: EntryId, dice: &mut Dice) {
    let context = Context::at(world.now);
    let block = BlockIndex(dice.roll(world.house.layout().blocks().len() as u64) as u32);
    let full = world.house.layout().block(block).full();
    let seats = 1 << dice.roll(64) | 1 << dice.roll(64);
    let part = Part { block, mask: if seats & full == 0 { 1 } else { seats & full } };
    let pick = (!holds.is_empty()).then(|| dice.roll(holds.len() as u64) as usize);
    // Refusals are as good: they change nothing.
    match (dice.roll(8), pick) {
        (0..=2, _) => holds.extend(world.hold(entry, &[part])),
        (3, Some(pick)) => drop(world.handle.confirm(holds[pick], None, context)),
        (4, Some(pick)) => drop(world.handle.release(holds.swap_remove(pick), context)),
        (5, Some(pick)) => drop(world.handle.refund(holds[pick], context)),
        (6, _) => drop(world.handle.block(&world.house, &[part], None, context)),
        (7, _) => drop(world.handle.unblock(&world.house, &[part], None, context)),
        _ => world.pass_ms(dice.roll(20_000)),
    }
    world.apply();
}

#[test]
fn a_map_of_any_number_and_the_frames_after_it_are_the_later_map() {
    for seed in 1..=30 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut world = World::new(LineSettings { mode: LineMode::Open, ..Default::default() });
        let (entry, mut holds) = (world.join(1), Vec::new());
        for _ in 0..dice.roll(20) {
            decide(&mut world, &mut holds, entry, &mut dice);
        }
        let mut stream = Stream::new(&world);
        let mut clients = vec![Client::new(&world)];
        for _ in 0..200 {
            decide(&mut world, &mut holds, entry, &mut dice);
            match dice.roll(6) {
                0 => stream.look(&mut world),
                // A map between two frames, too.
                1 => clients.push(Client::new(&world)),
                2 if !clients.is_empty() => {
                    let pick = dice.roll(clients.len() as u64) as usize;
                    stream.resume(&mut clients[pick]);
                }
                _ => {}
            }
        }
        stream.look(&mut world);
        for client in &mut clients {
            stream.resume(client);
            assert_eq!(client.map, world.map(), "seed {seed}");
            assert_eq!(client.free, world.free(), "seed {seed}");
        }
    }
}

#[test]
fn what_changed_back_is_told_and_places_are_counted_only() {
    let mut world = World::new(LineSettings { mode: LineMode::Open, ..Default::default() });
    let entry = world.join(1);
    let (mut stream, before) = (Stream::new(&world), world.image.applied());
    let part = |mask| Part { block: BlockIndex(0), mask };
    let held = world.hold(entry, &[part(0b1001)]).expect("free");
    // Whoever reads the map now must hear that the seats are free again.
    world.handle.release(held, Context::at(world.now)).expect("held");
    let floor = world.house.layout().place(SectionIndex(2), 0).expect("a place");
    world.hold(entry, &[Part { block: floor.block(), mask: 1 }]).expect("free");
    world.hold(entry, &[part(0b1000)]).expect("free");
    stream.look(&mut world);
    let mut cursor = stream.frames.after(before).expect("not too long ago");
    let mut texts = String::new();
    while let Taken::Frame(frame) = stream.frames.take(&mut cursor, Seq(0)) {
        texts += std::str::from_utf8(&frame).expect("JSON");
        texts.push('\n');
    }
    expect_test::expect![[r#"
        {"seq":"8","free":["A-1-1"],"held":["A-1-4"],"sold":[],"blocked":[]}
        {"seq":"8",
        "sections":[{"name":"A","free":139},{"name":"B \"","free":10},{"name":"Floor","free":69}]}
    "#]]
    .assert_eq(&texts.replace(",\"sections\"", ",\n\"sections\""));
}

#[test]
fn a_house_is_sold_in_one_frame() {
    let mut world = World::new(LineSettings { mode: LineMode::Open, ..Default::default() });
    let entry = world.join(1);
    let (mut stream, mut client) = (Stream::new(&world), Client::new(&world));
    world.sell_all(entry);
    stream.look(&mut world);
    stream.resume(&mut client);
    assert!(client.map.values().all(|state| *state == 's') && client.map.len() == 150);
    assert_eq!(client.free, [0, 0, 0]);
}
