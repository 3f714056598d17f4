//! Faults of disk, clock and machine around one node.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::support::house::{self, Buyer, Sale, confirm, id};
use crate::support::http::{Broken, Pool};
use crate::support::raw::Raw;
use crate::support::sse::Stream;
use crate::support::tools::{SmallDisk, Strace, faketime_library, files_below, limit_file_handles};
use crate::support::{Client, Launch, Reply, Server, all_at_once, eventually};

async fn big_sale(server: &Server) -> Sale {
    Sale::open(server, house::rows(100, 100), json!({ "limit": 10_000 })).await
}

fn seat(n: usize) -> String {
    format!("A-{}-{}", n / 100 + 1, n % 100 + 1)
}

/// A hold of the `n`th seat with a key of its own; `Err` if no answer came.
async fn try_hold(sale: &Sale, buyer: &Buyer, n: usize) -> Result<Reply, Broken> {
    let body = json!({ "seats": [seat(n)] });
    let key = format!("seat-{n}");
    buyer.client.attempt(Method::POST, &sale.path("/holds"), Some(&key), Some(body)).await
}

pub(crate) fn journal_files(server: &Server) -> Vec<PathBuf> {
    let files = files_below(server.launch().data()).into_iter();
    files.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect()
}

/// Rule R2. Planted bug: a sync error is retried, or its decisions are acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sync_error_nothing_is_acknowledged_that_is_not_there() {
    let mut server = Server::start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        acknowledged
            .push(id(&try_hold(&sale, &buyer, n).await.expect("an answer").expect(201), "hold_id"));
    }
    let strace =
        Strace::attach(server.pid(), "fdatasync", "error=EIO:when=2", &journal_files(&server));
    let mut refused = 0;
    for n in 20..60 {
        match try_hold(&sale, &buyer, n).await {
            Ok(reply) if reply.status == 201 => {
                assert_eq!(refused, 0, "an acknowledgement after the error");
                acknowledged.push(id(&reply.json(), "hold_id"));
            }
            Ok(reply) => {
                // Whoever was waiting is told that it is unknown, whoever comes later that
                // nothing was done.
                let code = if refused == 0 { "not-committed" } else { "overloaded" };
                assert!(reply.code() == "not-committed" || reply.code() == code);
                reply.refused(503, &reply.code());
                refused += 1;
            }
            Err(Broken(_)) => refused += 1,
        }
    }
    drop(strace);
    assert!(refused > 0, "the error was never noticed");
    if server.runs() {
        // If it still runs, it reads on but says that it does not serve.
        let ready = buyer.client.attempt(Method::GET, "/readyz", None, None).await;
        assert!(ready.is_err() || ready.is_ok_and(|reply| reply.status == 503));
    }
    let said = server.log();
    assert!(said.contains("journal") || said.contains("sync"), "the log says why:\n{said}");
    let server = server.crash();
    for hold in &acknowledged {
        let read = buyer.client.get(&format!("/v1/holds/{hold}")).await.expect(200);
        assert_eq!(read["state"], "active");
    }
    // The keys of the others settle them.
    for n in 20..60 {
        try_hold(&sale, &buyer, n).await.expect("an answer").expect(201);
    }
    assert_eq!(sale.stats().await["held"], 60);
    drop(server);
}

/// A disk whose sync takes half a second makes larger batches, not a queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_syncs_make_larger_batches() {
    let server = Server::start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let strace =
        Strace::attach(server.pid(), "fdatasync", "delay_enter=500000", &journal_files(&server));
    let start = Instant::now();
    let tasks = (0..400).map(|n| (sale.clone(), buyer.clone(), n));
    let replies = all_at_once(tasks, async |(sale, buyer, n): (Sale, Buyer, usize)| {
        let start = Instant::now();
        let reply = try_hold(&sale, &buyer, n).await.expect("an answer");
        (reply.status, start.elapsed())
    })
    .await;
    let took = start.elapsed();
    drop(strace);
    assert!(replies.iter().all(|(status, _)| *status == 201));
    let quickest = replies.iter().map(|(_, took)| *took).min().expect("some");
    eprintln!("400 holds in {took:?}, the quickest in {quickest:?}");
    assert!(quickest >= Duration::from_millis(450), "acknowledged before the sync");
    assert!(took < Duration::from_secs(15), "each waited for a sync of its own: {took:?}");
}

/// Disk full: sales stop with 503, reads go on, and sales resume when there is room; so do
/// accounts and the rows, whose transactions failed. Planted bug: a connection whose COMMIT failed
/// is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_sales_and_nothing_else() {
    let launch = Launch::new().set("TMOMI_SEGMENT_BYTES", "1048576");
    let place = launch.folder().join("small");
    let Some(disk) = SmallDisk::mount(&place, 24 << 20) else {
        eprintln!("skipped: mounting is not allowed here");
        return;
    };
    let server = launch.on(&disk.path().join("data")).start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let sure = try_hold(&sale, &buyer, 0).await.expect("an answer").expect(201);
    let filler = disk.fill();
    let mut refused = None;
    for n in 1..9_000 {
        let reply = try_hold(&sale, &buyer, n).await.expect("an answer");
        if reply.status != 201 {
            refused = Some((n, reply));
            break;
        }
    }
    let (first, reply) = refused.expect("the disk is full one day");
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(!reply.header("retry-after").is_empty());
    // Reads go on.
    let hold = format!("/v1/holds/{}", id(&sure, "hold_id"));
    buyer.client.get(&hold).await.expect(200);
    sale.map(&buyer.client).await;
    assert_eq!(buyer.client.get("/healthz").await.status, 200, "it is alive");
    let ready = buyer.client.get("/readyz").await;
    assert_eq!(ready.status, 503, "and says that it does not sell: {}", ready.text());
    no_account_is_made(&server).await;
    std::fs::remove_file(filler).expect("our file");
    eventually("sales resume", Duration::from_secs(20), async || {
        let reply = try_hold(&sale, &buyer, first).await.ok()?;
        (reply.status == 201).then_some(())
    })
    .await;
    let stats = sale.stats().await;
    assert_eq!(stats["held"], first + 1, "what was refused was done once, later");
    house::buyer(&server).await;
    house::rows_are_written(&server, &sale).await;
    let server = server.crash();
    assert_eq!(sale.stats().await["held"], first + 1);
    drop(server);
}

/// Makes accounts until the catalog's file, which has some room of its own, takes no more.
async fn no_account_is_made(server: &Server) {
    let stranger = Client::stranger(server.address());
    for _ in 0..500 {
        let body = json!({ "email": house::fresh_email(), "password": house::PASSWORD });
        if stranger.post("/v1/auth/signup", body).await.status >= 500 {
            return;
        }
    }
    panic!("accounts are made on a full disk");
}

/// A start on a full disk says so and serves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_says_so() {
    let launch = Launch::new();
    let place = launch.folder().join("small");
    let Some(disk) = SmallDisk::mount(&place, 8 << 20) else {
        eprintln!("skipped: mounting is not allowed here");
        return;
    };
    std::fs::create_dir(disk.path().join("data")).expect("there is room for a folder");
    disk.fill();
    let (_, said) = launch.on(&disk.path().join("data")).start_refused();
    let said = said.to_lowercase();
    assert!(said.contains("space") || said.contains("full"), "{said}");
}

/// SIGTERM under load: no answer is lost, what was answered is there, the status is 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drains_and_ends_well() {
    let mut server = Server::start();
    let sale = big_sale(&server).await;
    let buyers = house::buyers(&server, 16).await;
    let address = server.address();
    let load = buyers.iter().enumerate().map(|(i, buyer)| {
        let pool = Pool::with_time_limit(address, Duration::from_secs(15));
        (sale.clone(), buyer.on(pool), i)
    });
    let load: Vec<_> = load.collect();
    let load = tokio::spawn(all_at_once(load, async |(sale, buyer, i)| {
        let mut held = Vec::new();
        for n in 0..600 {
            match try_hold(&sale, &buyer, i * 600 + n).await {
                Ok(reply) if reply.status == 201 => held.push(id(&reply.json(), "hold_id")),
                Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.text()),
                // Refused, or closed before it was read: never an answer cut in the middle.
                Err(Broken(_)) => break,
            }
        }
        held
    }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal(Signal::TERM);
    let status = server.wait_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", server.log());
    let held = load.await.expect("the load ends");
    let count: usize = held.iter().map(Vec::len).sum();
    assert!(count > 0, "nothing was held before the signal");
    let server = server.launch().start();
    for (buyer, held) in buyers.iter().zip(&held) {
        for hold in held {
            let read = buyer.client.get(&format!("/v1/holds/{hold}")).await.expect(200);
            assert_eq!(read["state"], "active");
        }
    }
    drop(server);
}

/// Out of file handles it cannot accept; with some free again it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_handles_accepting_pauses_and_goes_on() {
    let server = Server::start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
    limit_file_handles(server.pid(), used as u32 + 16);
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(Raw::connect(server.address()).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Who is connected is served, the journal too.
    sale.bought(&buyer, &[&seat(0)]).await;
    drop(connections);
    eventually("new connections are accepted", Duration::from_secs(20), async || {
        let client = Client::stranger(server.address());
        let asked = client.attempt(Method::GET, "/v1/shows", None, None);
        let reply = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
    sale.bought(&buyer, &[&seat(1)]).await;
}

/// The wall clock jumps an hour ahead and back: no mass expiry, no early end of a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_expires_nothing() {
    let Some(library) = faketime_library() else {
        panic!("libfaketime is not installed; `make packages` does it");
    };
    let launch = Launch::new();
    let offset = launch.folder().join("offset");
    std::fs::write(&offset, "+0\n").expect("our folder");
    let server = launch
        .set("LD_PRELOAD", &library.to_string_lossy())
        .set("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy())
        .set("FAKETIME_NO_CACHE", "1")
        .set("DONT_FAKE_MONOTONIC", "1")
        .start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let mut holds = Vec::new();
    for n in 0..50 {
        holds.push(sale.held(&buyer, &[&seat(n)]).await);
    }
    for jump in ["+3600\n", "-3600\n", "+0\n"] {
        std::fs::write(&offset, jump).expect("our folder");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(sale.stats().await["held"], 50, "after {jump}");
        let left = buyer.client.get(&format!("/v1/holds/{}", holds[0])).await.expect(200);
        let left = house::number(&left, "expires_in_ms");
        assert!((200_000..=300_000).contains(&left), "{left} ms are left after {jump}");
    }
    // A deadline is still kept.
    let body = json!({ "seats": [seat(60)], "ttl_ms": 200 });
    let short = buyer.client.post(&sale.path("/holds"), body).await.expect(201);
    tokio::time::sleep(Duration::from_millis(400)).await;
    confirm(&buyer, &id(&short, "hold_id")).await.refused(410, "hold-expired");
    confirm(&buyer, &holds[1]).await.expect(200);
}

/// After a restart with an earlier clock, time goes on from the last event's. Planted bug: streams
/// give signs of life by the clock of the machine, so whoever waits on one counts as gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_moves_after_a_restart_with_an_earlier_clock() {
    let Some(library) = faketime_library() else {
        panic!("libfaketime is not installed; `make packages` does it");
    };
    let launch = Launch::new();
    let ahead = launch.clone().set("LD_PRELOAD", &library.to_string_lossy());
    let server = ahead.set("FAKETIME", "+1h").set("DONT_FAKE_MONOTONIC", "1").start();
    let line = json!({ "mode": "paused", "max_active": 1, "rate_per_s": 1_000, "grace_ms": 1_000 });
    let sale = Sale::open(&server, house::rows(2, 10), json!({ "line": line })).await;
    let buyer = house::buyer(&server).await;
    buyer.client.post_empty(&sale.path("/line")).await.expect(201);
    drop(server.kill());
    let server = launch.start();
    // Tokens are made by the clock of the machine: those of before come from the future.
    let token = house::sign_in(&buyer.client, &buyer.email, house::PASSWORD).await;
    let client = buyer.client.with_token(&token);
    let admin = house::admin(&server).await;
    let mut stream =
        Stream::open(&client, &sale.path("/line/stream"), None).await.expect("in line");
    tokio::time::sleep(Duration::from_secs(3)).await;
    Sale { admin, ..sale }.set_line(json!({ "mode": "fifo" })).await;
    stream.wait_for("admitted", Duration::from_secs(5)).await.expect("the buyer is still there");
}

/// SIGSTOP and SIGCONT: time that did not run for the process ends holds, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_goes_on() {
    let server = Server::start();
    let sale = big_sale(&server).await;
    let buyer = house::buyer(&server).await;
    let hold = sale.held(&buyer, &[&seat(0)]).await;
    server.signal(Signal::STOP);
    let asked = {
        let (sale, buyer) = (sale.clone(), buyer.clone());
        tokio::spawn(async move { try_hold(&sale, &buyer, 1).await })
    };
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.signal(Signal::CONT);
    asked.await.expect("a task").expect("an answer, late").expect(201);
    confirm(&buyer, &hold).await.expect(200);
}
