//! The seat stream: folded over the map it is the map, through reconnections and a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::audit::{Seq, parse_seq, seq_of};
use crate::support::house::{self, Buyer, Map, Sale, confirm, id, map, release};
use crate::support::random::Random;
use crate::support::sse::{Event, Stream};
use crate::support::{Client, Launch, Server, eventually};

const LIMIT: usize = 60;

async fn open_sale(server: &Server) -> Sale {
    Sale::open(server, house::rows(20, 60), json!({ "limit": LIMIT })).await
}

/// A client that keeps a map by the contract and by nothing else.
struct Viewer {
    client: Client,
    sale: Sale,
    stream: Stream,
    states: BTreeMap<String, char>,
    seq: Seq,
    last_id: String,
    resets: usize,
    /// How many events of `seats` came, by second.
    rate: BTreeMap<u64, usize>,
    opened: Instant,
}

impl Viewer {
    async fn open(client: &Client, sale: &Sale) -> Viewer {
        let path = sale.path("/stream");
        let mut stream = Stream::open(client, &path, None).await.expect("a stream");
        let hello = stream.next(Duration::from_secs(5)).await.expect("hello comes first");
        assert_eq!(hello.name, "hello");
        let mut viewer = Viewer {
            client: client.clone(),
            sale: sale.clone(),
            stream,
            states: BTreeMap::new(),
            seq: (0, 0),
            last_id: hello.id.clone(),
            resets: 0,
            rate: BTreeMap::new(),
            opened: Instant::now(),
        };
        viewer.load(hello.data["seq"].as_str().expect("hello has a seq")).await;
        viewer
    }

    /// Reads the map anew, at `at_least` or later.
    async fn load(&mut self, at_least: &str) {
        let path = self.sale.path(&format!("/seats?min_seq={at_least}"));
        let Map { seq, states } = map(&self.client.get(&path).await.expect(200));
        assert!(parse_seq(&seq) >= parse_seq(at_least), "{seq} is before {at_least}");
        (self.seq, self.states) = (parse_seq(&seq), states);
    }

    async fn take(&mut self, event: Event) {
        assert!(!event.id.is_empty(), "every event has an id: {event:?}");
        if event.name == "reset" {
            self.resets += 1;
            let seq = event.data["seq"].as_str().expect("reset has a seq").to_owned();
            self.load(&seq).await;
        }
        if event.name == "seats" {
            *self.rate.entry((event.at - self.opened).as_secs()).or_default() += 1;
            assert_eq!(event.data["seq"], event.id, "the id is the seq");
            let seq = seq_of(&event.data);
            let known = parse_seq(&self.last_id);
            assert!(seq > known, "a stream never goes back: {known:?}, then {seq:?}");
            if seq > self.seq {
                self.fold(&event.data);
                self.seq = seq;
            }
        }
        self.last_id = event.id;
    }

    fn fold(&mut self, changes: &Value) {
        for (name, letter) in [("free", 'f'), ("held", 'h'), ("sold", 's'), ("blocked", 'b')] {
            for seat in changes[name].as_array().into_iter().flatten() {
                let seat = seat.as_str().expect("a seat id");
                let state = self.states.get_mut(seat).expect("a seat of the map");
                *state = letter;
            }
        }
    }

    /// Takes what comes until the viewer is at `seq` or beyond.
    async fn reach(&mut self, seq: Seq) {
        while self.seq < seq {
            let event = self.stream.next(Duration::from_secs(10)).await;
            self.take(event.expect("the stream goes on")).await;
        }
    }

    async fn reconnect(&mut self) {
        let path = self.sale.path("/stream");
        let last = self.last_id.clone();
        self.stream = Stream::open(&self.client, &path, Some(&last)).await.expect("a stream");
    }
}

/// Buys, releases and refunds until told to stop.
async fn trade(sale: Sale, buyer: Buyer, mut random: Random, stopped: watch::Receiver<bool>) {
    let mut held: Vec<String> = Vec::new();
    while !*stopped.borrow() {
        let row = 1 + random.below(20);
        let first = 1 + random.below(57);
        let seats: Vec<String> = (first..first + 3).map(|n| format!("A-{row}-{n}")).collect();
        let seats: Vec<&str> = seats.iter().map(String::as_str).collect();
        let reply = sale.hold(&buyer, &seats).await;
        if reply.status == 201 {
            held.push(id(&reply.json(), "hold_id"));
        }
        if random.chance(40) && !held.is_empty() {
            let hold = held.swap_remove(random.below(held.len()));
            let reply = confirm(&buyer, &hold).await.expect(200);
            if random.chance(70) {
                house::refund(&buyer, &id(&reply, "order_id")).await.expect(200);
            }
        } else if held.len() > LIMIT / 3 - 2 {
            let hold = held.swap_remove(0);
            assert_eq!(release(&buyer, &hold).await.status, 204);
        }
    }
}

/// Planted bugs: a frame leaves out what was changed twice; a reconnect starts at the present.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_folded_over_the_map_is_the_map() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let mut random = Random::from_environment();
    let (stop, stopped) = watch::channel(false);
    let mut traders = Vec::new();
    for buyer in house::buyers(&server, 8).await {
        let trader = trade(sale.clone(), buyer, random.split(), stopped.clone());
        traders.push(tokio::spawn(trader));
    }
    let stranger = Client::stranger(server.address());
    let mut steady = Viewer::open(&stranger, &sale).await;
    let mut restless = Viewer::open(&stranger, &sale).await;
    let mut exact = 0;
    for round in 0..40 {
        tokio::time::sleep(Duration::from_millis(random.next() % 120)).await;
        let now = sale.map(&stranger).await;
        for viewer in [&mut steady, &mut restless] {
            viewer.reach(parse_seq(&now.seq)).await;
            if viewer.seq == parse_seq(&now.seq) {
                assert_eq!(viewer.states, now.states, "round {round}");
                exact += 1;
            }
        }
        restless.reconnect().await;
    }
    stop.send(true).expect("the traders listen");
    for trader in traders {
        trader.await.expect("a trader's task");
    }
    let last = sale.map(&stranger).await;
    for viewer in [&mut steady, &mut restless] {
        viewer.reach(parse_seq(&last.seq)).await;
        assert_eq!(viewer.states, last.states);
        assert_eq!(viewer.resets, 0, "nobody was away for long");
    }
    let busiest = steady.rate.values().max().copied().unwrap_or(0);
    assert!(busiest <= 21, "{busiest} events of seats in a second");
    eprintln!("{exact} maps compared exactly, at most {busiest} events a second");
}

/// Planted bug: the ids of frames start again with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_goes_on_after_a_crash() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let stranger = Client::stranger(server.address());
    let mut viewer = Viewer::open(&stranger, &sale).await;
    sale.bought(&buyer, &["A-1-1"]).await;
    viewer.reach(parse_seq(&sale.map(&stranger).await.seq)).await;
    let server = server.crash();
    sale.bought(&buyer, &["A-1-2"]).await;
    viewer.reconnect().await;
    sale.bought(&buyer, &["A-1-3"]).await;
    let now = sale.map(&stranger).await;
    viewer.reach(parse_seq(&now.seq)).await;
    assert_eq!(viewer.states, now.states);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_as_a_last_event_id_is_a_reset() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let stranger = Client::stranger(server.address());
    for last in ["garbage", "9-99999999999", "0-0", "1-", "-1-1", "1-1-1", "99999999999-1"] {
        let path = sale.path("/stream");
        let mut stream = Stream::open(&stranger, &path, Some(last)).await.expect("a stream");
        let first = stream.next(Duration::from_secs(5)).await.expect("an answer");
        let first_name = first.name.as_str();
        assert!(first_name == "reset" || first_name == "hello", "{last}: {first:?}");
        assert!(first.data["seq"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_follow_the_sale() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let path = sale.path("/stream");
    let mut stream = Stream::open(&buyer.client, &path, None).await.expect("a stream");
    sale.held(&buyer, &["A-1-1", "A-1-2"]).await;
    eventually("the counts have it", Duration::from_secs(5), async || {
        let counts = stream.wait_for("counts", Duration::from_secs(3)).await?;
        let section = counts.data["sections"][0].clone();
        assert_eq!(section["name"], "A");
        (section["free"] == 20 * 60 - 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_has_a_tag_and_waits_for_a_number() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let path = sale.path("/seats");
    let first = buyer.client.get(&path).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.contains(first.json()["seq"].as_str().expect("a seq")), "{tag}");
    let headers = [("if-none-match", tag.as_str())];
    let unchanged = buyer.client.open(&path, &headers).await.expect("an answer");
    assert_eq!(unchanged.status(), 304);
    let hold = sale.hold(&buyer, &["A-1-1"]).await.expect(201);
    let changed = buyer.client.open(&path, &headers).await.expect("an answer");
    assert_eq!(changed.status(), 200);
    let seq = hold["seq"].as_str().expect("a seq");
    let now = buyer.client.get(&format!("{path}?min_seq={seq}")).await.expect(200);
    assert_eq!(map(&now).states["A-1-1"], 'h');
    let future = buyer.client.get(&format!("{path}?min_seq=9-999999999")).await;
    assert_eq!(future.status, 503, "{}", future.text());
    let garbage = buyer.client.get(&format!("{path}?min_seq=soon")).await;
    garbage.refused(400, "bad-request");
    let section = buyer.client.get(&format!("{path}?section=A")).await.expect(200);
    assert_eq!(map(&section).states.len(), 20 * 60);
}

/// Planted bug: `hello` has the number of the last frame, which comes later than an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hello_is_not_before_what_was_answered() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let mut viewer = Viewer::open(&buyer.client, &sale).await;
    for n in 1..=30 {
        let hold = sale.hold(&buyer, &[&format!("A-1-{n}")]).await.expect(201);
        let mut stream =
            Stream::open(&buyer.client, &sale.path("/stream"), None).await.expect("ok");
        let hello = stream.next(Duration::from_secs(5)).await.expect("hello comes first");
        assert_eq!(hello.name, "hello");
        assert!(seq_of(&hello.data) >= seq_of(&hold), "{hello:?} after {hold}");
    }
    let now = sale.map(&buyer.client).await;
    viewer.reach(parse_seq(&now.seq)).await;
    assert_eq!(viewer.states, now.states);
}

/// Planted bug: a process only tells counts that change in its own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_a_crash_kept_back_are_told_to_who_comes_back() {
    let server = Server::start();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let path = sale.path("/stream");
    let mut stream = Stream::open(&buyer.client, &path, None).await.expect("a stream");
    // Counts are told twice a second, so the second hold's wait when its seats are told.
    let mut last = String::new();
    for seat in ["A-1-1", "A-1-2"] {
        sale.held(&buyer, &[seat]).await;
        let within = Duration::from_secs(5);
        last = stream.wait_for("seats", within).await.expect("the seats are told").id;
    }
    let server = server.crash();
    let mut stream = Stream::open(&buyer.client, &path, Some(&last)).await.expect("a stream");
    let first = stream.next(Duration::from_secs(5)).await.expect("the counts");
    assert_eq!(
        (first.name.as_str(), &first.data["sections"][0]["free"]),
        ("counts", &json!(1_198))
    );
    drop(server);
}

/// Planted bug: the epoch of an id is not looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_with_the_epoch_of_another_number_is_a_reset() {
    let server = Server::start().crash();
    let sale = open_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let hold = sale.hold(&buyer, &["A-1-1"]).await.expect(201);
    let (epoch, seq) = seq_of(&hold);
    for (epoch, known) in [(epoch, true), (epoch - 1, false), (epoch + 1, false)] {
        let (path, last) = (sale.path("/stream"), format!("{epoch}-{seq}"));
        let mut stream = Stream::open(&buyer.client, &path, Some(&last)).await.expect("a stream");
        let first = stream.next(Duration::from_secs(2)).await;
        let is_reset = first.is_some_and(|event| event.name == "reset");
        assert_eq!(is_reset, !known, "{last}");
    }
}

/// Bytes of memory that a reader who does not read may cost at most: what the ring has is shared
/// by all, and each has some of it on its way to the socket.
const STUCK_BYTES_MAX: u64 = 4 << 20;
const STUCK: usize = 8;

/// Readers with a tiny window who do not read slow no sale and cost little; who reads on is told
/// that he missed something, and who never does is closed. Planted bugs: frames wait for the
/// slowest; the kernel is not asked to watch who takes no byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_slows_no_sale() {
    let port = crate::support::server::free_port();
    let server = Launch::new().set("TMOMI_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    let server = server.start_inside(port);
    let sale = Sale::open(&server, house::rows(101, 100), json!({ "limit": 10_000 })).await;
    let buyer = house::buyer(&server).await;
    let mut reader = Viewer::open(&buyer.client, &sale).await;
    let before = server.resident_bytes();
    let mut stuck: Vec<_> = (0..STUCK).map(|_| stuck_reader(&server, &sale)).collect();
    let all: Vec<String> = sale.map(&buyer.client).await.states.into_keys().collect();
    let all: Vec<&String> = all.iter().filter(|seat| !seat.starts_with("A-101-")).collect();
    let (path, body) = (sale.admin_path("/blocks"), json!({ "seats": all }));
    let mut slowest = Duration::ZERO;
    for round in 0..200 {
        // Each round changes ten thousand seats, and the next one comes in a frame of its own.
        let method = [hyper::Method::POST, hyper::Method::DELETE][round % 2].clone();
        let asked = sale.admin.attempt(method, &path, None, Some(body.clone())).await;
        asked.expect("an answer").expect(200);
        let start = Instant::now();
        let hold = sale.held(&buyer, &["A-101-1"]).await;
        assert_eq!(release(&buyer, &hold).await.status, 204);
        slowest = slowest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(slowest < Duration::from_secs(2), "a hold took {slowest:?}");
    let cost = server.resident_bytes().saturating_sub(before);
    eprintln!("{STUCK} readers cost {cost} bytes, a hold took {slowest:?} at most");
    assert!(cost < STUCK as u64 * STUCK_BYTES_MAX, "{cost} bytes");
    let now = sale.map(&buyer.client).await;
    reader.reach(parse_seq(&now.seq)).await;
    assert_eq!(reader.states, now.states, "who reads misses nothing");
    assert_eq!(reader.resets, 0);
    let late = stuck.pop().expect("eight");
    tokio::task::spawn_blocking(move || read_until_reset(late)).await.expect("a reset");
    let inside = Client::stranger(([127, 0, 0, 1], port).into());
    eventually("who never reads is closed", Duration::from_secs(60), async || {
        let text = inside.get("/metrics").await.text();
        let open = text.lines().find_map(|line| line.strip_prefix("tmomi_seat_streams "))?;
        (open == "1").then_some(())
    })
    .await;
    drop(stuck);
}

/// A connection that asks for the stream and then leaves it alone.
fn stuck_reader(server: &Server, sale: &Sale) -> std::net::TcpStream {
    use std::io::Write;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a small window");
    socket.connect(&server.address().into()).expect("the server accepts");
    let mut stream: std::net::TcpStream = socket.into();
    let request = format!("GET {} HTTP/1.1\r\nHost: t\r\n\r\n", sale.path("/stream"));
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream
}

/// Reads what is left of the stream up to a reset.
fn read_until_reset(stream: std::net::TcpStream) {
    use std::io::BufRead;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let mut lines = std::io::BufReader::new(stream).split(b'\n');
    let reset = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with(b"event: reset")));
    assert!(reset.is_some(), "whoever missed something is told");
}
