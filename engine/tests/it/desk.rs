//! Both engines behind one counter: an operation goes in, an answer comes out.

use std::sync::Arc;

use tmomi_engine::event::{Batch, LineSettings};
use tmomi_engine::ids::{BuyerId, EntryId, HoldId, HoldSlot, LineNumber, Part, RequestKey, Seq};
use tmomi_engine::ids::{ShowtimeId, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::naive::Naive;
use tmomi_engine::{Context, Engine, EngineConfig, Handle, Held, HoldRequest, House, Keeper};
use tmomi_engine::{OpenShowtime, Reject};

use crate::fold::Fold;
use crate::op::{Answer, Op};

/// The showtime that the tests sell.
pub(crate) const SHOW: ShowtimeId = ShowtimeId(7);

/// A small ring, so that it wraps in most tests; one handle and the keeper's. Shuttle makes an
/// engine for each order that it tries, and decisions are smaller there.
pub(crate) const CONFIG: EngineConfig =
    EngineConfig { ring_slots: if cfg!(shuttle) { 1 << 6 } else { 1 << 12 }, handles_max: 8 };

/// An engine with one showtime open, used by one thread.
pub(crate) trait Desk: Sized {
    fn open(now: TimeMs, show: OpenShowtime) -> Self;
    fn restore(fold: &Fold, now: TimeMs) -> Self;
    /// Everything but the clock and the restart, which are the test's.
    fn apply(&mut self, op: &Op, holds: &[HoldId], context: Context) -> Result<Made, Reject>;
    /// The events since the last call.
    fn drain(&mut self) -> Batch;
    fn returned_ahead(&self, number: LineNumber) -> u32;
}

/// What an operation made: its answer, and the id if it was a hold.
pub(crate) struct Made(pub(crate) Answer, pub(crate) Option<HoldId>);

impl From<Answer> for Made {
    fn from(answer: Answer) -> Made {
        Made(answer, None)
    }
}

impl From<Seq> for Made {
    fn from(seq: Seq) -> Made {
        Answer::Seq(seq).into()
    }
}

impl From<tmomi_engine::Joined> for Made {
    fn from(joined: tmomi_engine::Joined) -> Made {
        let tmomi_engine::Joined { entry, number, seq, fresh } = joined;
        Answer::Joined { entry, number, fresh, seq }.into()
    }
}

impl From<tmomi_engine::Extended> for Made {
    fn from(extended: tmomi_engine::Extended) -> Made {
        let tmomi_engine::Extended { deadline, seq } = extended;
        Answer::Extended { deadline, seq }.into()
    }
}

/// A showtime of `layout` from time 0 on, limit 4, holds of 1,000 ms, no waiting.
pub(crate) fn show(layout: &Arc<Layout>) -> OpenShowtime {
    OpenShowtime {
        showtime: SHOW,
        layout: Arc::clone(layout),
        blob: Box::from(*b"a layout"),
        limit: 4,
        hold_ttl_ms: 1_000,
        line: LineSettings::default(),
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    }
}

/// The `nth` hold that was made, or one that never was.
pub(crate) fn nth_hold(holds: &[HoldId], nth: usize) -> HoldId {
    let never = HoldId { slot: HoldSlot(nth as u32), seq: Seq(u64::MAX) };
    holds.get(nth).copied().unwrap_or(never)
}

pub(crate) fn request(entry: EntryId, ttl_ms: Option<u32>, let_in: bool) -> HoldRequest {
    HoldRequest { entry, ttl_ms, admitted_by_caller: let_in }
}

fn held_of(held: Held, parts: &[Part]) -> Made {
    let (hold, deadline, seq) = (held.id.seq, held.deadline, held.seq);
    Made(Answer::Held { hold, deadline, seq, parts: parts.to_vec() }, Some(held.id))
}

fn reason() -> Option<Box<[u8]>> {
    Some(Box::from(*b"because"))
}

impl Desk for Naive {
    fn open(now: TimeMs, show: OpenShowtime) -> Naive {
        let mut naive = Naive::default();
        naive.open(now, show).expect("nothing is open yet");
        naive
    }

    fn restore(fold: &Fold, now: TimeMs) -> Naive {
        Naive::restore(fold, now)
    }

    fn apply(&mut self, op: &Op, holds: &[HoldId], context: Context) -> Result<Made, Reject> {
        let now = context.now;
        let hold = |nth| nth_hold(holds, nth);
        Ok(match op {
            Op::Enter(buyer) => Answer::Entry(self.enter(SHOW, *buyer, now)).into(),
            Op::Join(buyer) => self.join(SHOW, *buyer, context).into(),
            Op::Leave(buyer) => {
                let entry = self.enter(SHOW, *buyer, now);
                self.leave(SHOW, entry, now).map_or(Answer::Done, Answer::Seq).into()
            }
            Op::Touch(buyer) => {
                let entry = self.enter(SHOW, *buyer, now);
                self.touch(SHOW, entry, now);
                Answer::Done.into()
            }
            Op::Hold { buyer, parts, ttl_ms, let_in } => {
                let entry = self.enter(SHOW, *buyer, now);
                let held = self.hold(SHOW, request(entry, *ttl_ms, *let_in), parts, context)?;
                held_of(held, self.parts(held.id).expect("it was just made"))
            }
            Op::Best { buyer, best, ttl_ms, let_in } => {
                let entry = self.enter(SHOW, *buyer, now);
                let held =
                    self.hold_best(SHOW, request(entry, *ttl_ms, *let_in), *best, context)?;
                held_of(held, self.parts(held.id).expect("it was just made"))
            }
            Op::Extend { nth, ttl_ms } => self.extend(hold(*nth), *ttl_ms, context)?.into(),
            Op::Confirm { nth } => self.confirm(hold(*nth), reason(), context)?.into(),
            Op::Release { nth } => self.release(hold(*nth), context)?.into(),
            Op::Refund { nth } => self.refund(hold(*nth), context)?.into(),
            Op::Block(parts) => self.block(SHOW, parts, None, context)?.into(),
            Op::Unblock(parts) => self.unblock(SHOW, parts, reason(), context)?.into(),
            Op::Line(line) => self.set_line(SHOW, now, *line).into(),
            Op::Terms { limit, hold_ttl_ms } => {
                self.set_terms(SHOW, now, *limit, *hold_ttl_ms)?.into()
            }
            Op::Window { opens_at, closes_at } => {
                self.set_window(SHOW, *opens_at, *closes_at);
                Answer::Done.into()
            }
            Op::Tick => {
                settle(|| {
                    self.tick(now);
                    self.claimed()
                });
                Answer::Done.into()
            }
            Op::At(_) | Op::Restart => unreachable!("the test does it"),
        })
    }

    fn drain(&mut self) -> Batch {
        let mut batch = Batch::default();
        Naive::drain(self, &mut batch);
        batch
    }

    fn returned_ahead(&self, number: LineNumber) -> u32 {
        Naive::returned_ahead(self, SHOW, number)
    }
}

/// The fast engine with its keeper in the same hand.
pub(crate) struct Fast {
    pub(crate) engine: Engine,
    pub(crate) keeper: Keeper,
    pub(crate) handle: Handle,
    pub(crate) house: Arc<House>,
    out: Batch,
}

impl Fast {
    fn new((engine, keeper): (Engine, Keeper), now: TimeMs, show: Option<OpenShowtime>) -> Fast {
        let mut handle = engine.handle().expect("the first");
        if let Some(show) = show {
            handle.open(now, show).expect("nothing is open yet");
        }
        let house = engine.house(SHOW).expect("it is open");
        Fast { engine, keeper, handle, house, out: Batch::default() }
    }

    fn entry(&mut self, buyer: BuyerId, now: TimeMs) -> Result<EntryId, Reject> {
        self.handle.enter(&self.house, buyer, now)
    }
}

impl Desk for Fast {
    fn open(now: TimeMs, show: OpenShowtime) -> Fast {
        Fast::new(Engine::new(CONFIG), now, Some(show))
    }

    fn restore(fold: &Fold, now: TimeMs) -> Fast {
        Fast::new(Engine::restore(CONFIG, fold, now), now, None)
    }

    fn apply(&mut self, op: &Op, holds: &[HoldId], context: Context) -> Result<Made, Reject> {
        let now = context.now;
        let hold = |nth| nth_hold(holds, nth);
        let house = Arc::clone(&self.house);
        Ok(match op {
            Op::Enter(buyer) => Answer::Entry(self.entry(*buyer, now)?).into(),
            Op::Join(buyer) => self.handle.join(&house, *buyer, context)?.into(),
            Op::Leave(buyer) => {
                let entry = self.entry(*buyer, now)?;
                let left = self.handle.leave(&house, entry, now)?;
                left.map_or(Answer::Done, Answer::Seq).into()
            }
            Op::Touch(buyer) => {
                let entry = self.entry(*buyer, now)?;
                house.touch(entry, now);
                Answer::Done.into()
            }
            Op::Hold { buyer, parts, ttl_ms, let_in } => {
                let request = request(self.entry(*buyer, now)?, *ttl_ms, *let_in);
                let held = self.handle.hold(&house, request, parts, context)?;
                held_of(held, self.handle.parts())
            }
            Op::Best { buyer, best, ttl_ms, let_in } => {
                let request = request(self.entry(*buyer, now)?, *ttl_ms, *let_in);
                let held = self.handle.hold_best(&house, request, *best, context)?;
                held_of(held, self.handle.parts())
            }
            Op::Extend { nth, ttl_ms } => self.handle.extend(hold(*nth), *ttl_ms, context)?.into(),
            Op::Confirm { nth } => self.handle.confirm(hold(*nth), reason(), context)?.into(),
            Op::Release { nth } => self.handle.release(hold(*nth), context)?.into(),
            Op::Refund { nth } => self.handle.refund(hold(*nth), context)?.into(),
            Op::Block(parts) => self.handle.block(&house, parts, None, context)?.into(),
            Op::Unblock(parts) => self.handle.unblock(&house, parts, reason(), context)?.into(),
            Op::Line(line) => self.handle.set_line(&house, now, *line)?.into(),
            Op::Terms { limit, hold_ttl_ms } => {
                self.handle.set_terms(&house, now, *limit, *hold_ttl_ms)?.into()
            }
            Op::Window { opens_at, closes_at } => {
                house.set_window(*opens_at, *closes_at);
                Answer::Done.into()
            }
            Op::Tick => {
                settle(|| {
                    self.keeper.drain(&mut self.out, usize::MAX);
                    self.keeper.tick(now);
                    self.engine.claimed()
                });
                Answer::Done.into()
            }
            Op::At(_) | Op::Restart => unreachable!("the test does it"),
        })
    }

    fn drain(&mut self) -> Batch {
        self.keeper.drain(&mut self.out, usize::MAX);
        std::mem::take(&mut self.out)
    }

    fn returned_ahead(&self, number: LineNumber) -> u32 {
        self.house.returned_ahead(number)
    }
}

/// Ticks until the time asks for nothing more: what one tick frees, the next may let in. Bounded,
/// because every event of a tick takes an entry or a hold further.
fn settle(mut tick: impl FnMut() -> Seq) {
    let mut before = tick();
    for _ in 0..1_000 {
        let after = tick();
        if after == before {
            return;
        }
        before = after;
    }
    panic!("R12: the ticks find no end");
}

/// The context of the `n`th operation of a test.
pub(crate) fn context(now: TimeMs, n: usize) -> Context {
    let key = RequestKey { hash: n as u64 + 1, fingerprint: !(n as u64) };
    Context { now, key }
}
