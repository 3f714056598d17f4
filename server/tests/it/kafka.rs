//! The program beside Kafka: a stream of its journal, or the topic as its log.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tmomi_engine::event::EventWords;
use tmomi_engine::ids::Seq;
use tmomi_persist::history::{History, JournalHistory};
use tmomi_persist::kafka::{KafkaConfig, KafkaHistory};

use crate::databases;
use crate::servers::{self, Kind, Own};
use crate::support::house::{self, Buyer, Sale};
use crate::support::{Client, Launch, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn topic(name: &str) -> String {
    let since = std::time::UNIX_EPOCH.elapsed().expect("it is later").as_nanos();
    format!("server-{name}-{}-{since}", std::process::id())
}

pub(crate) fn launch(what: &str, brokers: &str, topic: &str) -> Launch {
    Launch::new()
        .set("TMOMI_KAFKA", what)
        .set("TMOMI_KAFKA_BROKERS", brokers)
        .set("TMOMI_KAFKA_TOPIC", topic)
}

/// Every event of a log up to its end.
fn events(history: &dyn History, to: Seq) -> Vec<EventWords> {
    let mut frames = history.after(Seq(0)).expect("the log is there");
    let mut events = Vec::new();
    while let Some(frame) = frames.read_to(to).expect("the log is sound") {
        events.extend(frame.batch.events);
    }
    events
}

async fn sale(server: &Server) -> Sale {
    Sale::open(server, house::rows(20, 60), json!({ "limit": 1_000 })).await
}

async fn metric(server: &Server, name: &str) -> Option<u64> {
    let text = Client::stranger(server.address()).get("/metrics").await.text();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn ready(server: &Server) -> String {
    Client::stranger(server.address()).get("/readyz").await.text()
}

async fn buy(sale: &Sale, buyer: &Buyer, seats: std::ops::Range<usize>) {
    for n in seats {
        sale.bought(buyer, &[&format!("A-{}-{}", n / 60 + 1, n % 60 + 1)]).await;
    }
}

/// Waits until the topic has what was answered.
async fn published(server: &Server) {
    eventually("all is published", PATIENCE, async || {
        let up = metric(server, "tmomi_stream_up").await == Some(1);
        (up && metric(server, "tmomi_stream_lag_events").await == Some(0)).then_some(())
    })
    .await;
}

/// R1, R2: what only the journal has would be sold again. Planted bug: nobody looks for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_a_journal_is_not_started_on_a_topic() {
    let topic = topic("moved");
    let server = launch("stream", &servers::kafka(), &topic).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..5).await;
    published(&server).await;
    let moved = server.stop().set("TMOMI_KAFKA", "log");
    let (status, said) = moved.start_refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("move") && said.contains("journal"), "{said}");
    // Done as it says, everything is there.
    let journal = moved.data().join("journal");
    std::fs::rename(&journal, moved.folder().join("aside")).expect("we own it");
    let server = moved.start();
    assert_eq!(buyer.seats_owned().await.len(), 5);
    buy(&sale, &buyer, 5..6).await;
    server.stop();
}

/// Sets how large a record of a topic may be, as an operator does.
fn set_record_bytes(topic: &str, bytes: u32) {
    let libs = servers::root().join("target/services/dist/kafka/libs/*");
    let done = std::process::Command::new("java")
        .arg("-cp")
        .arg(libs)
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", &servers::kafka(), "--alter"])
        .args(["--entity-type", "topics", "--entity-name", topic])
        .args(["--add-config", &format!("max.message.bytes={bytes}")])
        .output()
        .expect("java is there");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Says, as an operator does, that the house has no log any more.
async fn begin_anew(launch: &Launch) {
    let url = format!("sqlite://{}", launch.data().join("catalog.db").display());
    let mut conn = SqliteConnection::connect(&url).await.expect("a catalog");
    let words = "DELETE FROM settings WHERE name = 'epoch_starts'";
    let done = conn.execute(words).await.expect("it is a table");
    assert_eq!(done.rows_affected(), 1);
    conn.close().await.expect("it is written");
}

/// R1: without its log a house would sell every seat again. Planted bug: an empty log is that of a
/// new house.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_is_not_started_without_its_log() {
    let topic = topic("missing");
    let server = launch("log", &servers::kafka(), &topic).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..2).await;
    let launch = server.stop();
    // As before the first snapshot.
    std::fs::remove_dir_all(launch.data().join("snapshots")).expect("they were there");
    for (name, value) in [("TMOMI_KAFKA", "off"), ("TMOMI_KAFKA_TOPIC", &format!("{topic}-typo"))] {
        let (status, said) = launch.clone().set(name, value).start_refused();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("this house has sold") && said.contains("kafka_topic"), "{said}");
    }
    let server = launch.start();
    assert_eq!(buyer.seats_owned().await.len(), 2);
    buy(&sale, &buyer, 2..3).await;
    server.stop();
}

/// A plan of so many sections, with a place each.
fn sections(count: usize) -> serde_json::Value {
    let section = |n| json!({ "name": format!("S{n}"), "tier": "Standing", "places": 1 });
    json!({ "generate": { "sections": (0..count).map(section).collect::<Vec<_>>() } })
}

/// R2: what the topic does not take is refused before it is decided, and ends nothing. Planted bug:
/// nobody asks the log before the row is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_the_topic_does_not_take_is_refused_and_the_sale_goes_on() {
    let topic = topic("small");
    let server = launch("log", &servers::kafka(), &topic).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    let launch = server.stop();
    set_record_bytes(&topic, 2_000);
    let server = launch.start();
    let plan = format!("/v1/admin/venues/{}/plan", {
        let body = json!({ "name": "Large" });
        house::number(&sale.admin.post("/v1/admin/venues", body).await.expect(201), "venue_id")
    });
    sale.admin.put(&plan, sections(400)).await.expect(200);
    let venue: u64 = plan.split('/').nth(4).and_then(|id| id.parse().ok()).expect("its number");
    let body = json!({ "name": "Show", "venue_id": venue });
    let show =
        house::number(&sale.admin.post("/v1/admin/shows", body).await.expect(201), "show_id");
    let body = json!({
        "show_id": show, "starts_at": house::STARTS_AT, "currency": "EUR",
        "prices": { "Standing": 1_000 },
    });
    let reply = sale.admin.post("/v1/admin/showtimes", body.clone()).await;
    let detail = reply.refused(400, "bad-plan")["detail"].clone();
    let detail = detail.as_str().expect("text");
    assert!(detail.contains(&format!("max.message.bytes of topic {topic} is 2000")), "{detail}");
    let list = sale.admin.get("/v1/admin/showtimes").await.expect(200);
    assert_eq!(list["showtimes"].as_array().map(Vec::len), Some(1), "no row was left: {list}");
    buy(&sale, &buyer, 0..3).await;
    // Done as it says, it is sold.
    let needed = detail.split("needs ").nth(1).and_then(|rest| rest.split(' ').next());
    let launch = server.stop();
    set_record_bytes(&topic, needed.and_then(|n| n.parse().ok()).expect("a number"));
    let server = launch.start();
    sale.admin.post("/v1/admin/showtimes", body).await.expect(201);
    buy(&sale, &buyer, 3..5).await;
    server.stop();
}

/// R2: a row that the topic does not take, as an earlier version left one, ends no start and keeps
/// no other showtime away. Planted bug: the size is only asked for when the row is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_topic_does_not_take_ends_no_start() {
    let server = Server::start();
    let small = sale(&server).await;
    let large = Sale::open_as(&small.admin, sections(400), json!({})).await;
    let launch = server.stop();
    // A catalog whose showtimes the log does not have yet.
    for gone in ["journal", "snapshots"] {
        std::fs::remove_dir_all(launch.data().join(gone)).expect("it is there");
    }
    std::fs::remove_file(launch.data().join("sales.db")).expect("it is there");
    begin_anew(&launch).await;
    let topic = topic("rows");
    let launch = launch
        .set("TMOMI_KAFKA", "log")
        .set("TMOMI_KAFKA_BROKERS", &servers::kafka())
        .set("TMOMI_KAFKA_TOPIC", &topic);
    // The topic is made by a start of another house.
    self::launch("log", &servers::kafka(), &topic).start().stop();
    set_record_bytes(&topic, 2_000);
    let server = launch.start();
    let buyer = house::buyer(&server).await;
    buy(&small, &buyer, 0..3).await;
    large.admin.get(&large.path("")).await.refused(404, "not-found");
    let log = server.log();
    assert!(log.contains("not on sale yet") && log.contains("max.message.bytes"), "{log}");
    let launch = server.stop();
    set_record_bytes(&topic, 1 << 20);
    let server = launch.start();
    assert_eq!(large.stats().await["capacity"], 400);
    server.stop();
}

/// R2, R12: the journal is the log, whatever becomes of Kafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_all_that_was_sold_after_crashes_of_either_side() {
    let mut own = Own::start(Kind::Kafka);
    let topic = topic("stream");
    let server = launch("stream", own.address(), &topic).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..20).await;
    published(&server).await;
    assert_eq!(ready(&server).await, "ok\n");
    let server = server.crash();
    buy(&sale, &buyer, 20..40).await;
    own.kill();
    buy(&sale, &buyer, 40..60).await;
    eventually("it is told", PATIENCE, async || {
        let text = ready(&server).await;
        (text.starts_with("ok") && text.contains("the publisher waits")).then_some(())
    })
    .await;
    assert_eq!(metric(&server, "tmomi_stream_up").await, Some(0));
    // A start without Kafka sells, too.
    let server = server.crash();
    buy(&sale, &buyer, 60..80).await;
    own.restart();
    published(&server).await;
    buy(&sale, &buyer, 80..100).await;
    let launch = server.stop();
    let journal = JournalHistory(launch.data().join("journal"));
    let report = tmomi_persist::journal::verify(&journal.0).expect("a journal");
    let last = report.epochs.last().expect("a reign").last;
    let stream = KafkaHistory::new(KafkaConfig::new(own.address(), &topic), 0);
    assert_eq!(events(&stream, last), events(&journal, last));
}

/// R2, R8, R9: with the topic as the log nothing needs a journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_as_the_log_has_all_that_was_answered() {
    let topic = topic("log");
    let server = launch("log", &servers::kafka(), &topic).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..30).await;
    house::rows_are_written(&server, &sale).await;
    assert!(!server.launch().data().join("journal").exists());
    let server = server.crash();
    assert_eq!(sale.seats_in(&buyer.client, 's').await.len(), 30);
    buy(&sale, &buyer, 30..60).await;
    house::rows_are_written(&server, &sale).await;
    // The trail is read from the topic.
    let trail = sale.admin.get(&sale.admin_path("/events?limit=1000")).await.expect(200);
    let trail = trail["events"].as_array().expect("a list");
    assert_eq!(trail.iter().filter(|event| event["type"] == "confirmed").count(), 60);
    let server = server.stop().start();
    assert_eq!(sale.stats().await["sold"], 60);
    // All else may be lost: the topic has it. (The catalog is no part of the log.)
    let launch = server.stop();
    std::fs::remove_dir_all(launch.data().join("snapshots")).expect("they were there");
    std::fs::remove_file(launch.data().join("sales.db")).expect("it was there");
    let server = launch.start();
    assert_eq!(sale.stats().await["sold"], 60);
    house::rows_are_written(&server, &sale).await;
}

/// R7: only who may serve ends the reign of the one who does. Planted bug: the shard is opened
/// before the catalog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_refused_leaves_the_owner_of_the_topic_alone() {
    let (topic, database) = (topic("refused"), databases::mysql().await);
    let launch = || launch("log", &servers::kafka(), &topic);
    let owner = launch().set("TMOMI_DATABASE", database.url()).start();
    let (sale, buyer) = (sale(&owner).await, house::buyer(&owner).await);
    let refused = |launch: Launch, status: i32, word: &str| {
        let (ended, said) = launch.start_refused();
        assert_eq!(ended.code(), Some(status), "{said}");
        assert!(said.contains(word), "{word} in {said}");
    };
    let database_url = database.url().replacen("root", "root:wrong", 1);
    refused(launch().set("TMOMI_DATABASE", &database_url), 1, "Access denied");
    refused(launch().set("TMOMI_DATABASE", database.url()), 1, "sell every seat twice");
    refused(launch().set("TMOMI_ADMIN_PASSWORD", "short"), 2, "admin's email and password");
    // A folder with a name, and a new database: only the log tells that it is not of this house.
    let half = launch();
    std::fs::create_dir_all(half.data()).expect("we own it");
    std::fs::write(half.data().join("house"), "another").expect("we own it");
    refused(half, 1, "is the database of none");
    buy(&sale, &buyer, 0..3).await;
    assert_eq!(ready(&owner).await, "ok\n");
    owner.stop();
}

/// Planted bug: a commit waits for its broker for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_broker_the_log_answers_503_and_goes_on() {
    let mut own = Own::start(Kind::Kafka);
    let mut server = launch("log", own.address(), &topic("away")).start();
    let (sale, buyer) = (sale(&server).await, house::buyer(&server).await);
    buy(&sale, &buyer, 0..5).await;
    own.kill();
    // Whoever is the first to ask waits in vain; then nobody waits.
    let reply = sale.hold(&buyer, &["A-1-10"]).await;
    reply.refused(503, "not-committed");
    sale.hold(&buyer, &["A-1-11"]).await.refused(503, "not-committed");
    assert!(ready(&server).await.contains(own.address()));
    assert_eq!(sale.seats_in(&buyer.client, 's').await.len(), 5, "reads go on");
    own.restart();
    eventually("it sells", PATIENCE, async || {
        (sale.hold(&buyer, &["A-1-12"]).await.status == 201).then_some(())
    })
    .await;
    // What was decided and not answered is there.
    assert_eq!(sale.stats().await["held"], 2);
    own.kill();
    let began = tokio::time::Instant::now();
    server.signal(rustix::process::Signal::TERM);
    server.wait_exit(Duration::from_secs(20));
    assert!(began.elapsed() < Duration::from_secs(20));
    own.restart();
    let server = server.launch().start();
    assert_eq!(sale.stats().await["held"], 2);
    drop(server);
}

#[test]
fn a_start_says_what_is_wrong_with_kafka() {
    let (status, said) = launch("log", "127.0.0.1:1", "nobody")
        .set("TMOMI_KAFKA_PASSWORD", "hunter22")
        .set("TMOMI_KAFKA_USER", "buyer")
        .set("TMOMI_KAFKA_SASL_MECHANISM", "plain")
        .start_refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("127.0.0.1:1") && said.contains("kafka_brokers"), "{said}");
    assert!(!said.contains("hunter22"), "{said}");

    let topic = topic("partitions");
    launch("log", &servers::kafka(), &topic).start().stop();
    let more = launch("log", &servers::kafka(), &topic).set("TMOMI_KAFKA_PARTITIONS", "3");
    let (status, said) = more.start_refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&topic) && said.contains("1 partitions and 3 are set"), "{said}");

    let (status, said) = launch("log", "", &topic).start_refused();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("kafka_brokers"), "{said}");
}
