//! The whole way: engine, journal, Kafka, writer, MySQL, with a house sold in random order while
//! the writer, the database and the broker are killed and a second writer runs against the first.
//! `TMOMI_TEST_WHOLE_SEATS` says how many seats; `make test-deep` sells ten million.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tmomi_engine::event::LineSettings;
use tmomi_engine::ids::{BuyerId, EntryId, Part, SeatAddr, Seq, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_engine::{Context, Handle, HoldRequest, House, OpenShowtime, Reject};
use tmomi_persist::catalog::{Catalog, NewShow, NewShowtime, NewVenue, Showtime};
use tmomi_persist::kafka::{KafkaConfig, Publisher, PublisherConfig, PublisherStatus};
use tmomi_persist::layout_codec;
use tmomi_persist::plan::Plan;
use tmomi_persist::shard::{JOURNAL_DIR, Shard, ShardConfig};
use tmomi_server::clock::SystemClock;

use crate::databases::{self, Database};
use crate::servers::{Kind, Own};
use crate::support::Launch;
use crate::support::random::Random;

/// Seats unless said, a multiple of those of a row.
const SEATS: u32 = 25_600;
const SEATS_PER_ROW: u32 = 64;
const SEATS_PER_ORDER: u32 = 4;
const BUYERS: u32 = 1_000;
const PRICE: u64 = 12_000;
/// Kills of a writer. Between them a part of the house is sold each; at some the database is
/// killed in a transaction, at others the broker.
const KILLS: u32 = 20;
const DATABASE_DIES_AT: [u32; 3] = [4, 10, 16];
const BROKER_DIES_AT: [u32; 2] = [7, 13];
/// More than any step needs, for so many seats.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// R1, R2, R6, R8 from end to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_is_sold_through_kafka_into_mysql_whatever_is_killed() {
    let seats = std::env::var("TMOMI_TEST_WHOLE_SEATS").ok().and_then(|n| n.parse().ok());
    let seats: u32 = seats.unwrap_or(SEATS);
    assert!(seats.is_multiple_of(SEATS_PER_ROW), "rows have {SEATS_PER_ROW} seats");
    let mut servers = Servers::start().await;
    let launch = Launch::new();
    let showtime = offer(&servers.database, seats).await;
    let plan = Plan::from_value(&plan(seats)).expect("a plan");
    let layout = Arc::new(Layout::build(plan.spec()).expect("a layout"));
    let clock = Arc::new(SystemClock::start());
    let shard = ShardConfig::journal(launch.data());
    let shard = Arc::new(Shard::open(shard, Arc::clone(&clock) as _).expect("an empty folder"));
    let publisher = publish(&servers, &launch, &shard, &clock);
    let orders = seats / SEATS_PER_ORDER;
    let allowed = Arc::new(AtomicU32::new(0));
    let selling = {
        let (shard, allowed) = (Arc::clone(&shard), Arc::clone(&allowed));
        std::thread::spawn(move || sell(&shard, layout, &showtime, orders, &allowed))
    };
    let writer = launch
        .set("TMOMI_DATABASE", servers.database.url())
        .set("TMOMI_KAFKA", "stream")
        .set("TMOMI_KAFKA_BROKERS", servers.kafka.address())
        .set("TMOMI_KAFKA_TOPIC", TOPIC)
        .arguments(&["writer"]);
    for kill in 0..KILLS {
        let before = servers.position().await;
        let sell_more = || {
            let part = u64::from(orders) * u64::from(kill + 1) / u64::from(KILLS);
            allowed.store(part as u32, Ordering::Relaxed);
        };
        if DATABASE_DIES_AT.contains(&kill) {
            servers.kill_database_in_a_transaction(&writer, sell_more).await;
            continue;
        }
        let (first, second) = (writer.start_unready(), writer.start_unready());
        sell_more();
        if BROKER_DIES_AT.contains(&kill) {
            tokio::task::block_in_place(|| {
                servers.kafka.kill();
                servers.kafka.restart();
            });
        }
        // Whichever of the two leaves, the other writes.
        servers.rows_pass(before + 1).await;
        first.kill();
        drop(second);
    }
    let sold = tokio::task::spawn_blocking(|| selling.join()).await.expect("it ran");
    let sold = sold.expect("every seat is sold");
    let last = shard.applied();
    let mut running = writer.start_unready();
    servers.rows_pass(last.0).await;
    assert!(running.runs(), "{}", running.log());
    drop(running);
    assert_eq!(publisher.state().status(), PublisherStatus::Running);
    publisher.stop();
    Arc::into_inner(shard).expect("nobody else has it").close().expect("the disk works");

    let asked = ["SELECT COUNT(*) || ' ' || SUM(price) || ' '
        || SUM((hold_seq * 2654435761 + seat_addr * 40503 + price) % 1000000007)
        FROM ticket WHERE state = 'valid'"];
    let told = servers.database.ask_text(&asked).await;
    assert_eq!(told, [format!("{seats} {} {}", u64::from(seats) * PRICE, sold.checksum)]);
    let twice = ["SELECT CAST(COUNT(*) AS CHAR) FROM (SELECT seat FROM ticket
        GROUP BY seat HAVING COUNT(*) > 1) x"];
    assert_eq!(servers.database.ask_text(&twice).await, ["0"], "R1: a seat is sold twice");
    let arguments = ["reconcile", "--database", servers.database.url()];
    let (status, said) = writer.run(&arguments);
    assert!(status.success() && said.contains("no differences"), "{said}");
}

const TOPIC: &str = "whole";

struct Servers {
    mysql: Own,
    kafka: Own,
    database: Database,
}

impl Servers {
    async fn start() -> Servers {
        let (mysql, kafka) = (Own::start(Kind::MySql), Own::start(Kind::Kafka));
        let database = databases::on_server("MySQL", mysql.address()).await;
        Servers { mysql, kafka, database }
    }

    async fn position(&self) -> u64 {
        let asked = ["SELECT CAST(sequence AS CHAR) FROM shard_position"];
        let told = self.database.ask_text(&asked).await;
        told.first().map_or(0, |text| text.parse().expect("a number"))
    }

    async fn rows_pass(&self, seq: u64) {
        let passed = async {
            while self.position().await < seq {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, passed).await.expect("the rows go on");
    }

    /// The database dies while a writer is in a transaction, which waits for a row that somebody
    /// else has locked.
    async fn kill_database_in_a_transaction(&mut self, writer: &Launch, sell_more: impl Fn()) {
        let before = self.position().await;
        let mut other = self.database.connect().await;
        let mut lock = other.begin().await.expect("the server answers");
        lock.execute("SELECT * FROM showtimes FOR UPDATE").await.expect("nobody has it");
        let running = writer.start_unready();
        sell_more();
        let caught = async {
            while !self.database.has_transaction("trx_rows_modified > 0").await {
                tokio::time::sleep(databases::TRANSACTIONS_SEEN_AFTER).await;
            }
        };
        tokio::time::timeout(PATIENCE, caught).await.expect("there is more to write");
        tokio::task::block_in_place(|| {
            self.mysql.kill();
            self.mysql.restart();
        });
        assert_eq!(self.position().await, before, "nothing of the transaction is there");
        self.rows_pass(before + 1).await;
        running.kill();
    }
}

fn plan(seats: u32) -> serde_json::Value {
    json!({"generate": {"sections": [{
        "name": "A", "tier": "R", "rows": seats / SEATS_PER_ROW, "seats_per_row": SEATS_PER_ROW,
    }]}})
}

/// The showtime and its buyers in the catalog.
async fn offer(database: &Database, seats: u32) -> Showtime {
    let catalog = Catalog::open(database.place.clone()).await.expect("the server is there");
    let mut change = catalog.change().await.expect("it takes changes");
    let venue = NewVenue { name: "House", address: None };
    let venue_id = change.create_venue(venue).await.expect("made").venue_id;
    let body = plan(seats).to_string();
    change.set_plan(venue_id, body.as_bytes(), seats, TimeMs(0)).await.expect("made");
    let show = NewShow { venue_id, name: "Show", description: None, image_url: None };
    let show = change.create_show(show).await.expect("made").show_id;
    let terms = NewShowtime {
        starts_at: TimeMs(4_000_000_000_000),
        currency: "EUR".to_owned(),
        prices: [("R".to_owned(), PRICE)].into(),
        opens_at: TimeMs(0),
        closes_at: None,
        limit: tmomi_engine::LIMIT_MAX,
        hold_ttl_ms: tmomi_engine::HOLD_TTL_MS_MAX,
        line: LineSettings::default(),
    };
    let showtime = change.create_showtime(show, terms).await.expect("made");
    change.commit_unanswered().await.expect("kept");
    catalog.close().await;
    let users: Vec<_> =
        (1..=BUYERS).map(|n| format!("({n}, '{n}', '{n}', '', 'buyer', 0)")).collect();
    database.run(&format!("INSERT INTO users VALUES {}", users.join(", "))).await;
    showtime
}

fn publish(
    servers: &Servers,
    launch: &Launch,
    shard: &Arc<Shard>,
    clock: &Arc<SystemClock>,
) -> Publisher {
    let (committed, floor) = (Arc::downgrade(shard), shard.journal_reader());
    let publisher = Publisher::spawn(PublisherConfig {
        kafka: KafkaConfig::new(servers.kafka.address(), TOPIC),
        shard: 0,
        journal: launch.data().join(JOURNAL_DIR),
        committed: Box::new(move || committed.upgrade().map_or(Seq(0), |shard| shard.applied())),
        needed: Box::new(move |seq| floor.keep_from(seq)),
        hook: Box::new(|_| {}),
        clock: Arc::clone(clock) as _,
    });
    publisher.expect("a thread")
}

struct Outcome {
    /// What the rows must add up to.
    checksum: u64,
}

/// Sells every seat, four neighbours at a time, in random order, as many orders as are allowed.
fn sell(
    shard: &Shard,
    layout: Arc<Layout>,
    showtime: &Showtime,
    orders: u32,
    allowed: &AtomicU32,
) -> Outcome {
    let mut handle = shard.engine().handle().expect("the first");
    let now = shard.clock().now();
    let open = OpenShowtime {
        showtime: showtime.showtime_id,
        blob: layout_codec::encode(layout.spec()).into(),
        layout,
        limit: showtime.terms.limit,
        hold_ttl_ms: showtime.terms.hold_ttl_ms,
        line: showtime.terms.line,
        opens_at: TimeMs(0),
        closes_at: TimeMs(u64::MAX),
    };
    let (house, _) = handle.open(now, open).expect("nothing is open");
    for buyer in 1..=BUYERS {
        let entry = with_room(shard, || handle.enter(&house, BuyerId(buyer.into()), now));
        assert_eq!(entry, EntryId(buyer - 1));
    }
    let mut places: Vec<u32> = (0..orders).collect();
    let mut random = Random::new(5);
    (1..places.len()).for_each(|n| places.swap(n, random.below(n + 1)));
    let mut checksum = 0;
    for (place, n) in places.into_iter().zip(0..) {
        while n >= allowed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        checksum += buy(shard, &mut handle, &house, EntryId(n % BUYERS), place);
    }
    drop(handle);
    Outcome { checksum }
}

fn buy(shard: &Shard, handle: &mut Handle, house: &House, entry: EntryId, place: u32) -> u64 {
    let seat = place * SEATS_PER_ORDER;
    let block = tmomi_engine::ids::BlockIndex(seat / SEATS_PER_ROW);
    let part = Part { block, mask: 0b1111 << (seat % SEATS_PER_ROW) };
    let at = Context::at(shard.clock().now());
    let request = HoldRequest { entry, ttl_ms: None, admitted_by_caller: false };
    let held = with_room(shard, || handle.hold(house, request, &[part], at));
    with_room(shard, || handle.confirm(held.id, None, at));
    let of_seat = |seat: SeatAddr| {
        let sum = held.id.seq.0 * 2_654_435_761 + u64::from(seat.raw()) * 40_503 + PRICE;
        sum % 1_000_000_007
    };
    part.seats().map(of_seat).sum()
}

/// Decides, and waits where the ring is full.
fn with_room<T>(shard: &Shard, mut decide: impl FnMut() -> Result<T, Reject>) -> T {
    loop {
        match decide() {
            Ok(done) => {
                shard.wake();
                return done;
            }
            Err(Reject::RingFull) => std::thread::yield_now(),
            Err(reject) => panic!("every seat is free: {reject:?}"),
        }
    }
}
