//! R8 from the other side: whatever is wrong in the rows is found, told, and set right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tmomi_engine::ids::{Epoch, SeatAddr, Seq, ShowtimeId};
use tmomi_engine::layout::Layout;
use tmomi_persist::history::JournalHistory;
use tmomi_persist::image::Image;
use tmomi_persist::journal::{Journal, JournalConfig};
use tmomi_persist::log::Log;
use tmomi_persist::plan::Plan;
use tmomi_persist::snapshot::{Encoded, Snapshots};
use tmomi_persist::writer::reconcile::{Mode, Past, ReconcileError, Report, reconcile};
use tmomi_persist::writer::{
    DeadLetters, House, JournalSource, Names, NamesError, SqlSink, Writer,
};

use super::log::Dice;
use super::{PATIENCE, clock, config, databases, killed_after, open, sqlite};
use crate::databases::Database;
use crate::sale::{Sale, Step};

const CONFIG: JournalConfig = JournalConfig { shard: 0, segment_bytes: 64 << 10 };
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Every showtime of the sale has the same house.
#[derive(Clone)]
pub(crate) struct OneHouse(Arc<House>);

impl OneHouse {
    pub(crate) fn new() -> OneHouse {
        let plan = json!({"generate": {"sections": [
            {"name": "A", "tier": "R", "rows": 3, "seats_per_row": 70},
            {"name": "F", "tier": "S", "places": 150},
        ]}});
        let plan = Plan::from_value(&plan).unwrap();
        let layout = Arc::new(Layout::build(plan.spec()).unwrap());
        let prices = vec![("R".into(), 150_000), ("S".into(), 90_000)];
        OneHouse(Arc::new(House { plan: Arc::new(plan), layout, prices, currency: "KRW".into() }))
    }
}

impl Names for OneHouse {
    async fn house(&mut self, _: ShowtimeId) -> Result<Arc<House>, NamesError> {
        Ok(Arc::clone(&self.0))
    }
}

/// A sale with a journal, and the rows of it.
pub(crate) struct Stage {
    pub(crate) database: Database,
    sale: Sale,
    pub(crate) image: Image,
    dice: Dice,
    journal: Journal,
}

type StageWriter = Writer<JournalSource, SqlSink, OneHouse>;

impl Stage {
    pub(crate) async fn on(database: Database, seed: u64) -> Stage {
        if database.kind != "SQLite" {
            let users: Vec<_> =
                (1..=12).map(|n| format!("({n}, 'b{n}', 'b{n}', '', 'buyer', 0)")).collect();
            database.run(&format!("INSERT INTO users VALUES {}", users.join(", "))).await;
            let showtime = "(9, 1, 1, 0, 'KRW', 0, 0, 4, 1, 'open', 0, 0, 0, 0, NULL)";
            database.run(&format!("INSERT INTO showtimes VALUES {showtime}")).await;
        }
        let folder = database.folder.path();
        std::fs::create_dir(folder.join("snapshots")).unwrap();
        let (journal, _) = Journal::open(&folder.join("journal"), CONFIG).unwrap();
        let image = Image::new();
        let mut stage = Stage { database, sale: Sale::open(), image, dice: Dice(seed), journal };
        stage.commit();
        stage
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.database.folder.path().join(name)
    }

    pub(crate) fn last(&self) -> Seq {
        self.image.applied()
    }

    /// Some steps, and sometimes a new reign.
    pub(crate) fn go_on(&mut self, steps: usize) {
        let steps: Vec<Step> = (0..steps).map(|_| step(&mut self.dice)).collect();
        self.sale.run(&steps);
        self.commit();
        if self.dice.below(2) == 0 {
            self.sale = Sale::resume(&self.image, self.sale.now);
            self.commit();
        }
    }

    /// A day on which nothing happens: what ended before is forgotten after it.
    fn let_a_day_pass(&mut self) {
        for _ in 0..40 {
            self.sale.run(&[Step::Wait { ms: DAY_MS }, Step::Join { house: false, buyer: 3 }]);
            self.sale.run(&[Step::Leave { house: false, buyer: 3 }]);
        }
        self.commit();
    }

    fn commit(&mut self) {
        for batch in std::mem::take(&mut self.sale.batches) {
            let epoch = epoch_after(&self.image, &batch);
            let _ = self.image.follow(epoch, &batch).unwrap();
            self.journal.append(epoch, &batch).unwrap();
            self.journal.commit().unwrap();
        }
    }

    async fn writer(&self) -> StageWriter {
        let committed = self.last();
        let source = JournalSource::new(self.path("journal"), 0, move || committed);
        let dead = DeadLetters::new(self.path("dead"));
        Writer::new(config(400), source, open(&self.database).await, OneHouse::new(), dead, clock())
    }

    pub(crate) async fn write(&self) {
        write_until(&mut self.writer().await, self.last()).await;
    }

    /// The plan's name of a seat.
    pub(crate) fn seat_id(&self, seat: SeatAddr) -> String {
        let OneHouse(house) = OneHouse::new();
        house.plan.seat_id(&house.layout, seat)
    }

    pub(crate) fn journal(&self) -> JournalHistory {
        JournalHistory(self.path("journal"))
    }

    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots::local(&self.path("snapshots"), 0).unwrap()
    }

    async fn try_reconcile(
        &self,
        mode: Mode,
        names: &mut impl Names,
    ) -> Result<(Report, BTreeSet<String>), ReconcileError> {
        let past = Past::new(Arc::new(self.journal()), Some(self.snapshots()));
        self.reconcile_with(&past, mode, names).await
    }

    /// By any log.
    pub(crate) async fn reconcile_with(
        &self,
        past: &Past,
        mode: Mode,
        names: &mut impl Names,
    ) -> Result<(Report, BTreeSet<String>), ReconcileError> {
        let mut told = BTreeSet::new();
        let mut tell = |difference: &_| {
            assert!(told.insert(format!("{difference}")), "{difference} is told twice");
        };
        let place = &self.database.place;
        let report = reconcile(place, 0, past, names, mode, &mut tell).await?;
        assert_eq!(report.differences(), told.len() as u64, "{}", self.database.kind);
        Ok((report, told))
    }

    async fn reconcile(&self, mode: Mode) -> (Report, BTreeSet<String>) {
        let done = self.try_reconcile(mode, &mut OneHouse::new()).await;
        done.unwrap_or_else(|error| panic!("{}: {error}", self.database.kind))
    }

    async fn assert_clean(&self) -> Report {
        let (report, told) = self.reconcile(Mode::Check).await;
        assert!(told.is_empty(), "{}: {told:#?}", self.database.kind);
        report
    }

    /// The first column of a question's answer.
    async fn number(&self, question: &'static str) -> i64 {
        let answers = self.database.ask(&[question]).await;
        sqlx::Row::get::<i64, _>(answers[0].first().expect(question), 0)
    }

    /// All that the rows say, but not when they were changed.
    pub(crate) async fn rows(&self) -> BTreeSet<String> {
        let (_, all) = super::rows(&self.database).await;
        let said = |row: String| {
            let end = match row.split(' ').next() {
                Some("entry") => row.rfind(" 20"),
                Some("ticket") => Some(row.len()),
                _ => row.rfind(' '),
            };
            row[..end.expect("a stamp")].to_owned()
        };
        all.into_iter().map(said).collect()
    }

    pub(crate) async fn assert_rows(&self, expected: &BTreeSet<String>) {
        let found = self.rows().await;
        let wrong: Vec<_> = found.symmetric_difference(expected).take(9).collect();
        assert!(wrong.is_empty(), "{}: only in one of them: {wrong:#?}", self.database.kind);
    }
}

async fn write_until(writer: &mut StageWriter, last: Seq) {
    let state = writer.state();
    let reached = async {
        while state.position() < last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            () = reached => {}
            error = writer.run() => panic!("{error}"),
        }
    })
    .await
    .expect("the writer gets there in time");
}

/// The reign that a batch is of: it begins one, or goes on with the last.
fn epoch_after(image: &Image, batch: &tmomi_engine::event::Batch) -> Epoch {
    use tmomi_engine::event::{Body, Event};
    match batch.events.first().and_then(|words| Event::unpack(words).ok()) {
        Some(Event { body: Body::EpochStart { epoch, .. }, .. }) => epoch,
        _ => image.epoch(),
    }
}

fn step(dice: &mut Dice) -> Step {
    let house = dice.below(2) == 0;
    let (buyer, nth) = (1 + dice.below(12), dice.below(1 << 20) as usize);
    match dice.below(20) {
        0..=2 => Step::Join { house, buyer },
        3 => Step::Leave { house, buyer },
        4..=6 => {
            let (block, mask) = (dice.below(6) as u32, dice.below(1 << 30) << dice.below(34));
            Step::Hold { house, buyer, block, mask }
        }
        7..=9 => Step::Best { house, buyer, count: 1 + dice.below(8) as u32 },
        10 => Step::Extend { nth, ttl_ms: 100 + dice.below(900_000) as u32 },
        11..=14 => Step::Confirm { nth },
        15 => Step::Release { nth },
        16..=18 => Step::Refund { nth },
        _ => Step::Wait { ms: 1 + dice.below(5_000) },
    }
}

pub(crate) async fn stages(seed: u64) -> Vec<Stage> {
    let mut all = Vec::new();
    for database in databases().await {
        all.push(Stage::on(database, seed).await);
    }
    all
}

/// R8, of a writer's own rows at any position, of several reigns, days later and from a snapshot.
#[tokio::test]
async fn what_a_writer_wrote_is_what_the_log_says() {
    for mut stage in stages(41).await {
        for turn in 0..4 {
            stage.go_on(3_000);
            if turn == 1 {
                stage.let_a_day_pass();
                stage.snapshots().write(Encoded::of(&stage.image)).unwrap();
            }
            stage.write().await;
            let report = stage.assert_clean().await;
            assert_eq!(report.position.seq, stage.last());
        }
        let forgotten = stage.image.ended_holds().next().expect("some ended").ended.seq;
        let report = stage.assert_clean().await;
        let [holds, orders, tickets, entries] = &report.tables[..] else { panic!("four tables") };
        assert!(tickets.rows > 1_100, "more than a page: {report:?}");
        assert!(orders.rows > 100 && entries.rows > 20, "{report:?}");
        assert!(holds.rows > orders.rows && forgotten > Seq(1_000), "{report:?}");
    }
}

/// One row of each kind that can be harmed, and what must be told of it.
pub(crate) async fn harm(stage: &Stage) -> BTreeSet<String> {
    let order = stage.number("SELECT MIN(hold_seq) FROM ticket_order").await;
    let valid =
        stage.number("SELECT hold_seq FROM ticket_order WHERE state = 'confirmed' LIMIT 1").await;
    let seat = stage.number("SELECT MAX(seat_addr) FROM ticket").await;
    let of_seat = stage
        .number(
            "SELECT MAX(hold_seq) FROM ticket
             WHERE seat_addr = (SELECT MAX(seat_addr) FROM ticket)",
        )
        .await;
    let active = stage.number("SELECT MIN(hold_seq) FROM hold WHERE state = 'active'").await;
    let ended = stage.image.ended_holds().last().expect("one ended").hold.id.seq;
    let entry = stage.number("SELECT MAX(entry) FROM line_entry WHERE showtime_id = 9").await;
    let holds = stage.database.ask(&["SELECT hold_seq, showtime_id FROM hold"]).await;
    let of = holds[0].iter().map(|row| (sqlx::Row::get(row, 0), sqlx::Row::get(row, 1)));
    let of: BTreeMap<i64, i64> = of.collect();
    let key = |seq: i64| format!("{} {seq}", of[&seq]);
    let last = stage.last();
    let total = stage.image.orders().iter().find(|one| one.hold.id.seq.0 as i64 == valid);
    let total = total.expect("it is an order").hold.seats();
    let spoil = format!(
        "DELETE FROM ticket_order WHERE hold_seq = {order};
         UPDATE ticket_order SET total = 1, state = 'refunded' WHERE hold_seq = {valid};
         UPDATE ticket SET seat = 'A-9-9' WHERE hold_seq = {of_seat} AND seat_addr = {seat};
         INSERT INTO ticket SELECT shard, hold_seq, 99999, showtime_id, seat, tier, price, state,
            epoch, sequence FROM (SELECT * FROM ticket WHERE hold_seq = {of_seat}
            AND seat_addr = {seat}) AS one;
         UPDATE hold SET deadline = '2031-01-01 00:00:00.000' WHERE hold_seq = {active};
         DELETE FROM hold WHERE hold_seq = {ended};
         INSERT INTO hold SELECT shard, {last} + 7, slot, showtime_id, entry, 'released', seats,
            created_at, deadline, epoch, {last} + 7 FROM (SELECT * FROM hold
            WHERE hold_seq = {active}) AS one;
         UPDATE line_entry SET user_id = NULL, sequence = {last} + 1
            WHERE showtime_id = 9 AND entry = {entry};
         DELETE FROM line_entry WHERE showtime_id = 1 AND entry = 0;",
    );
    stage.database.run(&spoil).await;
    let told = stage.reconcile(Mode::Check).await.1;
    let is_told = |start: String| {
        assert!(told.iter().any(|line| line.starts_with(&start)), "{start} is not in {told:#?}");
    };
    is_told(format!("ticket_order {}: the row is missing", key(order)));
    is_told(format!("ticket_order {}: total is 1, should be ", key(valid)));
    assert!(total > 0);
    let state = "state is \"refunded\", should be \"confirmed\"";
    is_told(format!("ticket_order {}: {state}", key(valid)));
    is_told(format!("ticket {} {seat}: seat is \"A-9-9\", should be \"", key(of_seat)));
    is_told(format!("ticket {} 99999: there should be no such row", key(of_seat)));
    let deadline = "deadline is \"2031-01-01 00:00:00.000\", should be \"20";
    is_told(format!("hold {}: {deadline}", key(active)));
    is_told(format!("hold {}: the row is missing", key(ended.0 as i64)));
    is_told(format!("hold {} {}: there should be no such row", of[&active], last.0 + 7));
    is_told(format!("line_entry 9 {entry}: user_id is null, should be "));
    let beyond = last.0 + 1;
    is_told(format!("line_entry 9 {entry}: sequence is {beyond}, should be at most {last}"));
    is_told("line_entry 1 0: the row is missing".to_owned());
    assert_eq!(told.len(), 11, "{told:#?}");
    told
}

/// R8. A row with several wrong columns is told of each, and a row that is put back has a stamp
/// that later events win over.
#[tokio::test]
async fn every_difference_is_told_and_repaired_and_the_writer_goes_on() {
    for mut stage in stages(43).await {
        stage.go_on(700);
        stage.write().await;
        let before = stage.rows().await;
        let told = harm(&stage).await;
        let spoiled = stage.rows().await;
        assert!(spoiled != before, "{}", stage.database.kind);
        assert_eq!(stage.reconcile(Mode::Check).await.1, told, "a look changes nothing");
        assert_eq!(stage.reconcile(Mode::Repair).await.1, told);
        stage.assert_clean().await;
        stage.assert_rows(&before).await;
        for _ in 0..3 {
            stage.go_on(400);
            stage.write().await;
            stage.assert_clean().await;
        }
    }
}

/// All rows are gone but the position: they come back, with the payment references that the log
/// has. Planted bug: what is missing behind the last row is not looked for.
#[tokio::test]
async fn tables_that_were_emptied_are_filled_again() {
    for mut stage in stages(45).await {
        stage.go_on(900);
        stage.write().await;
        let before = stage.rows().await;
        for table in ["hold", "ticket_order", "ticket", "line_entry"] {
            stage.database.run(&format!("DELETE FROM {table}")).await;
        }
        let (report, _) = stage.reconcile(Mode::Repair).await;
        assert_eq!(report.differences() as usize, before.len());
        stage.assert_rows(&before).await;
    }
}

/// Planted bug: each difference is committed by itself.
#[tokio::test]
async fn a_repair_that_does_not_come_to_its_end_changes_nothing() {
    for mut stage in stages(47).await {
        stage.go_on(400);
        stage.write().await;
        let before = stage.rows().await;
        harm(&stage).await;
        let spoiled = stage.rows().await;
        for polls in (1..200).step_by(7) {
            let repair = stage.reconcile(Mode::Repair);
            let done = killed_after(polls, repair).await.is_some();
            // The database may be about to take the transaction back, or to commit it.
            let found = stage.rows().await;
            let whole = found == before || !done && found == spoiled;
            assert!(whole, "{}: {polls} polls", stage.database.kind);
            if found == before {
                break;
            }
        }
        stage.reconcile(Mode::Repair).await;
        stage.assert_rows(&before).await;
    }
}

/// Between the position and the rows of a comparison the writer has its turn, or tries to.
struct Meanwhile {
    writer: StageWriter,
    last: Seq,
    may_write: bool,
    done: bool,
}

impl Names for Meanwhile {
    async fn house(&mut self, showtime: ShowtimeId) -> Result<Arc<House>, NamesError> {
        if !std::mem::replace(&mut self.done, true) {
            match self.may_write {
                true => write_until(&mut self.writer, self.last).await,
                false => {
                    let waits = Duration::from_millis(300);
                    let wrote = tokio::time::timeout(waits, self.writer.run()).await;
                    assert!(wrote.is_err(), "it waits and does not leave");
                    assert!(self.writer.state().position() < self.last, "it waits");
                }
            }
        }
        OneHouse::new().house(showtime).await
    }
}

/// Planted bug: a server's transaction sees what others have committed since it began.
#[tokio::test]
async fn a_comparison_is_of_one_moment_while_the_writer_goes_on() {
    for mut stage in stages(49).await {
        stage.go_on(500);
        stage.write().await;
        let compared = stage.last();
        stage.go_on(500);
        let (writer, last) = (stage.writer().await, stage.last());
        let mut names = Meanwhile { writer, last, may_write: true, done: false };
        let (report, told) = stage.try_reconcile(Mode::Check, &mut names).await.unwrap();
        assert!(told.is_empty(), "{}: {told:#?}", stage.database.kind);
        assert_eq!(report.position.seq, compared, "{}", stage.database.kind);
        assert_eq!(stage.assert_clean().await.position.seq, last);
    }
}

/// Planted bug: the position is read and not held.
#[tokio::test]
async fn a_writer_waits_for_a_repair_and_goes_on_after_it() {
    for mut stage in stages(51).await {
        stage.go_on(500);
        stage.write().await;
        let (repaired, before) = (stage.last(), stage.rows().await);
        harm(&stage).await;
        stage.go_on(500);
        let (writer, last) = (stage.writer().await, stage.last());
        let mut names = Meanwhile { writer, last, may_write: false, done: false };
        let (report, told) = stage.try_reconcile(Mode::Repair, &mut names).await.unwrap();
        assert_eq!((report.position.seq, told.len()), (repaired, 11), "{}", stage.database.kind);
        stage.assert_rows(&before).await;
        stage.write().await;
        assert_eq!(stage.assert_clean().await.position.seq, last);
    }
}

#[tokio::test]
async fn rows_of_another_log_and_no_rows_are_said_and_left_alone() {
    let mut stage = Stage::on(sqlite("sales.db"), 53).await;
    stage.go_on(300);
    open(&stage.database).await.close().await;
    let why = async |stage: &Stage, mode| {
        let done = stage.try_reconcile(mode, &mut OneHouse::new()).await;
        done.expect_err("it is refused").to_string()
    };
    for mode in [Mode::Check, Mode::Repair] {
        let said = why(&stage, mode).await;
        assert!(said.contains("no writer has written rows of shard 0"), "{said}");
    }
    stage.write().await;
    let before = stage.rows().await;
    for (spoil, expected) in [
        ("epoch = epoch + 1", "is it the log of these rows"),
        ("sequence = sequence + 1000", "ends before"),
    ] {
        stage.database.run(&format!("UPDATE shard_position SET {spoil}")).await;
        for mode in [Mode::Check, Mode::Repair] {
            let said = why(&stage, mode).await;
            assert!(said.contains(expected), "{said}");
        }
        stage.database.run(&format!("UPDATE shard_position SET {}", spoil.replace('+', "-"))).await;
    }
    stage.assert_rows(&before).await;
    stage.assert_clean().await;
}
