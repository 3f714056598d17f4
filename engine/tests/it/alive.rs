//! Signs of life: whoever shows one all the time is never passed over.

use tmomi_engine::event::{Batch, Body, Event, LineMode, LineSettings};
use tmomi_engine::ids::{BuyerId, LineNumber, TimeMs};
use tmomi_engine::{Context, Engine, OpenShowtime};

use crate::desk::{CONFIG, show};
use crate::stress::house;

/// R14. Plant: `alive` asks for the time of the last sign alone.
#[test]
fn an_open_stream_is_a_sign_of_life_however_short_the_grace() {
    let line = LineSettings {
        mode: LineMode::Paused,
        max_active: 1,
        rate_per_1000s: u32::MAX,
        grace_ms: 100,
        session_ms: 60_000,
    };
    let (engine, mut keeper) = Engine::new(CONFIG);
    let mut handle = engine.handle().expect("the first");
    let show = OpenShowtime { line, ..show(&house(1, 1)) };
    let (house, _) = handle.open(TimeMs(0), show).expect("nothing is open");
    let mut join = |buyer| {
        let joined = handle.join(&house, BuyerId(buyer), Context::at(TimeMs(0)));
        joined.expect("there is room").entry
    };
    let (silent, watching) = (join(1), join(2));
    house.watch(watching, TimeMs(0));
    handle
        .set_line(&house, TimeMs(9_000), LineSettings { mode: LineMode::Fifo, ..line })
        .expect("nobody else is at it");
    let mut batch = Batch::default();
    keeper.drain(&mut batch, usize::MAX);
    batch.clear();
    keeper.tick(TimeMs(10_000));
    keeper.drain(&mut batch, usize::MAX);
    let unpack = |words| Event::unpack(words).expect("the engine packed it").body;
    let decided: Vec<Body> = batch.events.iter().map(unpack).collect();
    let (first, second) = (LineNumber(1), LineNumber(2));
    let until = TimeMs(70_000);
    assert_eq!(
        decided,
        [
            Body::Passed { entry: silent, number: first },
            Body::Admitted { entry: watching, number: second, until },
        ]
    );
    // The stream of the other opens: he is back, and next.
    house.watch(silent, TimeMs(11_000));
    assert_eq!((house.returned(), house.returned_ahead(second)), (1, 1));
}
