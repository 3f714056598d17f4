//! Everything in one thread: the disk, the processes that come and go on it, clients and clock.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use object_store::memory::InMemory;
use tempfile::TempDir;
use tmomi_engine::event::{Batch, LineMode, LineSettings};
use tmomi_engine::ids::{LineNumber, RequestKey, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::{Context, Engine};
use tmomi_persist::clock::Clock;
use tmomi_persist::journal::Reader;
use tmomi_persist::plan::Plan;
use tmomi_persist::shard::{JOURNAL_DIR, OpenError, Stalled};
use tmomi_persist::writer::{self, Record};
use tokio::runtime::Runtime;

use crate::client::{Client, Desk};
use crate::disk::Cache;
use crate::flip;
use crate::life::{Life, line, showtime};
use crate::rows::{OneHouse, Tables};
use crate::step::{Ask, Away, CLIENTS, Dice, Setting, Step};
use crate::truth::{SHOW, Truth};

/// 2027-01-01.
const START: TimeMs = TimeMs(1_798_761_600_000);
/// As the real one lets time pass.
const TICK_MS: u64 = 3;
/// Running time after which what is due is done.
const LATE_MS: u64 = 10;
/// Starts that may fail in a row because the disk fails again.
const STARTS_MAX: usize = 50;

/// Shows what the simulation says.
struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn now(&self) -> TimeMs {
        TimeMs(self.0.load(Ordering::Relaxed))
    }

    fn monotonic_ns(&self) -> u64 {
        self.now().0 * 1_000_000
    }
}

/// What outlives every process.
pub(crate) struct World {
    dir: TempDir,
    disk: Cache,
    store: Arc<InMemory>,
    clock: Arc<SimClock>,
    runtime: Runtime,
    layout: Arc<Layout>,
    house: Arc<writer::House>,
    tables: Tables,
    clients: Vec<Client>,
    pub(crate) truth: Truth,
    /// Of the next end of a process, and whether the power ends with it.
    luck: u64,
    power_cut: bool,
    life: Option<Life>,
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let plan = Plan::from_value(&serde_json::json!({"generate": {"sections": [
            {"name": "A", "tier": "R", "rows": 2, "seats_per_row": 70},
            {"name": "B", "tier": "S", "rows": 4, "seats_per_row": 6},
            {"name": "F", "tier": "S", "places": 9},
        ]}}))
        .expect("a plan");
        let layout = Arc::new(Layout::build(plan.spec()).expect("seats"));
        let prices = plan.tiers().iter().map(|tier| (Arc::from(&**tier), 1_500)).collect();
        let house = writer::House {
            plan: Arc::new(plan),
            layout: Arc::clone(&layout),
            prices,
            currency: "JPY".into(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let mut world = World {
            dir: dir.expect("room for a test"),
            disk: Cache::default(),
            store: Arc::default(),
            clock: Arc::new(SimClock(AtomicU64::new(START.0))),
            runtime: runtime.expect("a runtime"),
            truth: Truth::new(&layout),
            layout,
            house: Arc::new(house),
            tables: Tables::new(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            luck: 0,
            power_cut: false,
            life: None,
        };
        world.start();
        world
    }

    /// Takes a step, and after it whatever a process does by itself: replies go out, and one whose
    /// disk failed is started again.
    pub(crate) fn take(&mut self, step: Step) {
        match step {
            Step::Ask { client, ask } => self.ask(client, Some(ask), 0),
            Step::Again { client, nth } => self.ask(client, None, nth),
            Step::Look { client } => self.look(client),
            Step::Set(setting) => self.set(setting),
            Step::Pass { ms } => self.pass(ms),
            Step::Turn => {
                let stages = &mut self.life().stages;
                let _ = stages.pump() | stages.commit() | stages.follow();
            }
            Step::Pump => drop(self.life().stages.pump()),
            Step::Commit => drop(self.life().stages.commit()),
            Step::Follow => drop(self.life().stages.follow()),
            Step::Snapshot => drop(self.life().stages.snapshot()),
            Step::Write { away, zombie } => self.write(away, zombie),
            Step::Calm { ms } => self.calm(ms),
            Step::Kill { calls, luck } => {
                (self.luck, self.power_cut) = (luck, false);
                self.disk.die_after(calls);
            }
            Step::PowerCut { calls, luck } => {
                (self.luck, self.power_cut) = (luck, true);
                self.disk.die_after(calls);
            }
            Step::BadSync { after, luck } => {
                // Somebody starts the program again, or the whole machine.
                (self.luck, self.power_cut) = (luck, luck.is_multiple_of(2));
                self.disk.fail_sync(self.disk.syncs() + 1 + after);
            }
            Step::Full(full) => self.disk.set_full(full),
            Step::Close { luck } => {
                self.luck = luck;
                self.close();
            }
        }
        self.hear();
        match self.life().shard.accepting() {
            Ok(()) | Err(Stalled::Waiting(_)) if !self.disk.is_dead() => {}
            Ok(()) | Err(Stalled::Waiting(_) | Stalled::Failed(_)) => self.end(),
            Err(other) => panic!("R9: the shard says: {other}"),
        }
    }

    /// Nothing fails any more: whatever was begun comes to its end.
    pub(crate) fn finish(&mut self) {
        self.calm(60);
        // No hold is made for longer, and no session lasts longer.
        self.pass(10_000);
        self.calm(60);
        let image = self.life().shard.image().read().clone();
        assert_eq!(image.active_holds().count(), 0, "R12: a hold outlives its deadline");
        for _ in 0..3 {
            self.write(Away::No, true);
        }
        self.truth.same(&image, "the follower's");
        self.tables.check(&image);
        (0..CLIENTS).for_each(|client| self.look(client));
        self.close();
        self.hear();
        let journal = self.dir.path().join(JOURNAL_DIR);
        flip::check_log(&journal, &self.truth, self.truth.applied()).expect("R2: the log is read");
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("a process is there between steps")
    }

    fn now(&mut self) -> TimeMs {
        self.life().shard.clock().now()
    }

    fn pass(&mut self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// A client asks, or asks again.
    fn ask(&mut self, client: usize, ask: Option<Ask>, nth: usize) {
        let now = self.now();
        let life = self.life.as_mut().expect("a process is there between steps");
        let Some(house) = life.shard.engine().house(SHOW) else { return };
        let image = life.shard.image().read();
        let engine: &Engine = life.shard.engine();
        let desk = Desk {
            handle: &mut life.handle,
            house: &house,
            image: &image,
            claimed: &|| engine.claimed(),
            context: Context { now, key: RequestKey::NONE },
        };
        // A server refuses before it asks the engine.
        if life.shard.accepting().is_err() {
            return;
        }
        let client = &mut self.clients[client];
        match ask {
            Some(ask) => client.ask(ask, desk, &mut self.truth),
            None => client.again(nth, desk, &mut self.truth),
        }
    }

    fn look(&mut self, client: usize) {
        let life = self.life.as_mut().expect("a process is there between steps");
        let image = life.shard.image().read();
        let holds = &self.clients[client].holds;
        holds.iter().for_each(|id| self.truth.look(&image, *id));
    }

    fn set(&mut self, setting: Setting) {
        let now = self.now();
        let Life { shard, handle, .. } = self.life();
        let Some(house) = shard.engine().house(SHOW) else { return };
        // Refused if the ring is full; nobody waits for it.
        let _ = match setting {
            Setting::Limit(limit) => handle.set_terms(&house, now, limit, 300),
            Setting::Line { mode, max_active } => {
                let mode = [LineMode::Open, LineMode::Fifo, LineMode::Paused][usize::from(mode)];
                handle.set_line(&house, now, LineSettings { mode, max_active, ..line() })
            }
        };
    }

    /// The writer writes what there is.
    fn write(&mut self, away: Away, zombie: bool) {
        self.tables.set_away(away);
        let _context = self.runtime.enter();
        let life = self.life.as_mut().expect("a process is there between steps");
        *life.zombie.lock().expect("no test panics within") = zombie;
        let mut context = TaskContext::from_waker(Waker::noop());
        // It waits when there is nothing more to write or the database is away; dropped, it stops.
        if let Poll::Ready(left) = pin!(life.writer.run()).poll(&mut context) {
            panic!("R8: the writer leaves: {left}");
        }
    }

    /// Replies go out, and what was applied is known.
    fn hear(&mut self) {
        let Some(life) = self.life.as_mut() else { return };
        let epoch = life.shard.epoch();
        while let Ok(batch) = life.watcher.try_recv() {
            assert_eq!(batch.first_seq(), Some(self.truth.applied().next()), "R6: a stream jumps");
            self.truth.add(Record { epoch, batch: Batch::clone(&batch) });
        }
        let applied = life.shard.applied();
        assert_eq!(applied, self.truth.applied(), "R6: the watermark is not what was streamed");
        self.clients.iter_mut().for_each(|client| client.hear(applied, &mut self.truth));
    }

    /// Everybody has a turn while time passes, and nothing fails.
    fn calm(&mut self, ms: u64) {
        self.disk.heal();
        let mut passed = 0;
        while passed < ms {
            self.pass(TICK_MS);
            passed += TICK_MS;
            let stages = &mut self.life().stages;
            while stages.pump() | stages.commit() | stages.follow() {}
            stages.snapshot();
            self.hear();
            if self.life().shard.accepting().is_err() {
                // The sync that failed before the calm.
                return;
            }
        }
        if ms > 4 * LATE_MS {
            self.check_calm();
        }
    }

    /// R12, R14, R5 and R9: what is due is done, and everybody says the same.
    fn check_calm(&mut self) {
        let now = self.now();
        let life = self.life.as_mut().expect("a process is there between steps");
        let image = life.shard.image().read().clone();
        assert_eq!(life.shard.engine().claimed(), image.applied(), "R12: the backlog stays");
        assert!(!self.clients.iter().any(Client::is_waiting), "R12: a reply does not come");
        for hold in image.active_holds() {
            assert!(hold.deadline.plus_ms(LATE_MS) > now, "R12: {hold:?} is late at {now}");
        }
        self.truth.same(&image, "the follower's");
        let (Some(show), Some(house)) = (image.showtime(SHOW), life.shard.engine().house(SHOW))
        else {
            return;
        };
        self.truth.check_house(&house);
        for section in show.sections().iter().zip(self.layout.sections()) {
            assert_eq!(section.0.total(), u64::from(section.1.capacity), "R5");
        }
        let (line, waiting) = (show.settings(), show.ahead(LineNumber(u32::MAX)));
        let moves = line.mode == LineMode::Open
            || line.mode == LineMode::Fifo && show.active() < line.max_active;
        assert!(!moves || waiting == 0, "R14: {waiting} wait, {} active", show.active());
    }

    /// Closes in order and opens again.
    fn close(&mut self) {
        let Life { stages, shard, watcher, writer, handle, .. } =
            self.life.take().expect("a process is there between steps");
        drop((writer, handle));
        let closed = stages.close();
        let mut watcher = watcher;
        while let Ok(batch) = watcher.try_recv() {
            self.truth.add(Record { epoch: shard.epoch(), batch: Batch::clone(&batch) });
        }
        let applied = shard.applied();
        self.clients.iter_mut().for_each(|client| client.hear(applied, &mut self.truth));
        if closed.is_ok() {
            assert!(!self.clients.iter().any(Client::is_waiting), "R2: a close tells nobody");
        }
        drop(shard);
        self.lose();
        self.start();
    }

    /// The process ends; another one starts.
    fn end(&mut self) {
        self.life = None;
        self.lose();
        self.start();
    }

    fn lose(&mut self) {
        let mut dice = Dice(self.luck);
        self.restore_disk(&mut dice);
        self.clients.iter_mut().for_each(Client::lose);
        self.truth.forget_refusals();
        if dice.chance(40) {
            let journal = self.dir.path().join(JOURNAL_DIR);
            flip::check(&journal, &self.store, &self.truth, &mut dice);
        }
    }

    /// The power is back, if it was lost.
    fn restore_disk(&mut self, dice: &mut Dice) {
        if self.power_cut {
            // All of it, nothing, or some.
            let percent = [0, 100, 50, 90, 10][dice.below(5) as usize];
            self.disk.cut_power(|| dice.chance(percent));
        }
        self.power_cut = false;
        self.disk.revive();
    }

    fn start(&mut self) {
        self.disk.set_makes_ahead(self.luck % 2 == 1);
        for _ in 0..STARTS_MAX {
            let syncs = self.disk.syncs();
            match self.open() {
                Ok(life) => {
                    self.life = Some(life);
                    return self.check_start();
                }
                Err(_) if self.disk.is_dead() || self.disk.has_failed_sync_since(syncs) => {
                    self.restore_disk(&mut Dice(self.luck));
                }
                Err(OpenError::Log(_)) => self.disk.set_full(false),
                Err(error) => panic!("R2: it does not start: {error}"),
            }
        }
        panic!("it does not start");
    }

    fn open(&self) -> Result<Life, OpenError> {
        let World { dir, disk, store, clock, house, tables, .. } = self;
        let clock = Arc::clone(clock) as _;
        Life::open(dir.path(), disk, store, clock, tables.clone(), OneHouse(Arc::clone(house)))
    }

    /// R2, R6, R9: what the new process brought back is what the one before was seen to commit,
    /// and perhaps what it committed unseen.
    fn check_start(&mut self) {
        let life = self.life.as_mut().expect("just started");
        let known = self.truth.applied();
        assert!(life.shard.first() > known, "R2: it ends before {known}, which was told");
        let journal = self.dir.path().join(JOURNAL_DIR);
        let reader = Reader::open(&journal, known).expect("R2: the journal goes on");
        for frame in reader {
            let frame = frame.expect("R2: a good frame");
            self.truth.add(Record { epoch: frame.epoch, batch: frame.batch });
        }
        self.truth.same(&life.shard.image().read(), "snapshot and tail");
        self.truth.check_stale();
        let now = life.shard.clock().now();
        if life.shard.engine().house(SHOW).is_none() {
            let _ = life.handle.open(now, showtime(&self.layout));
        }
    }
}
