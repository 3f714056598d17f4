//! 10,000 readers of one seat stream: how long a frame takes to reach the last of them and what it
//! costs, beside a bare loop of `send` of as many bytes to as many sockets; the frames a second
//! that readers get while seats change all the time; and the memory of a reader.
//!
//! `cargo bench -p tmomi-bench --bench http_seat_stream`; the files go under `target/`.
#![allow(clippy::print_stderr, reason = "how far it is, beside the table")]
#![allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tmomi_bench::rounds::Rounds;
use tmomi_bench::socket::bare::BareSender;
use tmomi_bench::socket::house::{self, Buyer, House, seat};
use tmomi_bench::socket::readers::Readers;
use tmomi_bench::socket::server::{Keep, Server};
use tmomi_bench::socket::wire::{Caller, Template};
use tmomi_bench::socket::{bare, raise_handle_limit, sized};

const READERS: usize = 10_000;
const ROUNDS: usize = 5;
/// Frames of one round.
const FRAMES: usize = 12;
/// From one frame to the next: more than the server's own pace for so many readers.
const FRAME_EVERY: Duration = Duration::from_millis(300);
/// How long seats change all the time.
const STEADY: Duration = Duration::from_secs(2);
const MARK: &[u8] = b"event: seats";
const BARE: &str = "bare loop of send";
const STREAM: &str = "seat stream";

/// One round of one side.
struct Fan {
    /// From the cause to the last reader, each frame, in ms.
    last_ms: Vec<f64>,
    /// CPU time of the sending process for one frame to one reader, in us.
    cpu_us: f64,
}

impl Fan {
    fn median_ms(&mut self) -> f64 {
        self.last_ms.sort_by(f64::total_cmp);
        self.last_ms[self.last_ms.len() / 2]
    }
}

/// The server and whoever changes its seats.
struct Sale {
    server: Server,
    house: House,
    buyer: Buyer,
    caller: Caller,
    next: u32,
    empty_bytes: u64,
}

impl Sale {
    fn open() -> Sale {
        let server = Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), Keep::Journal);
        let house = House::open(&server, 1_000_000, &json!({}));
        let buyer = house::buyers(&server, 1).pop().expect("one");
        let mut caller = Caller::connect(server.address());
        caller.identify(buyer.token.clone());
        // A connection that says nothing for ten seconds is closed, and the baseline comes first.
        caller.call("GET", &house.path(""), &Value::Null);
        let empty_bytes = server.process().resident_bytes();
        Sale { server, house, buyer, caller, next: 0, empty_bytes }
    }

    fn readers(&self, count: usize) -> Readers {
        let mut request = Vec::new();
        Template::new("GET", &self.house.path("/stream"), None).push_empty(&mut request);
        let requests = std::iter::repeat_n(request.as_slice(), count);
        Readers::open(self.server.address(), requests)
    }

    fn hold(&mut self) {
        let body = json!({ "seats": [seat(self.next)] });
        self.next += 1;
        self.caller.call("POST", &self.house.path("/holds"), &body);
    }

    /// Frames one by one. Gives the bytes of one, too.
    fn fan(&mut self, readers: &mut Readers) -> (Fan, usize) {
        let cpu = self.server.process().cpu();
        let (mut last_ms, mut bytes, mut frames) = (Vec::new(), 0, 0);
        for _ in 0..sized(FRAMES, 2) {
            let start = Instant::now();
            self.hold();
            let mut left = readers.len();
            while left > 0 {
                readers.read(Duration::from_secs(5), |_, heard, _| {
                    let seats = heard.windows(MARK.len()).any(|part| part == MARK);
                    left -= usize::from(seats);
                    frames += heard.windows(7).filter(|part| part == b"event: ").count();
                    bytes = if seats { heard.len() } else { bytes };
                });
            }
            last_ms.push(start.elapsed().as_secs_f64() * 1e3);
            quiet(readers, FRAME_EVERY.saturating_sub(start.elapsed()), &mut frames);
        }
        let cpu = self.server.process().cpu() - cpu;
        (Fan { last_ms, cpu_us: cpu.as_secs_f64() * 1e6 / frames as f64 }, bytes)
    }

    /// Seats change all the time: frames a second that a reader gets.
    fn steady(&mut self, readers: &mut Readers) -> f64 {
        let (mut seats, start) = (0, Instant::now());
        let token = self.buyer.token.clone();
        let (address, path) = (self.server.address(), self.house.path("/holds"));
        let (first, stop) = (self.next, std::sync::atomic::AtomicBool::new(false));
        let held = std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                let mut caller = Caller::connect(address);
                caller.identify(token);
                let mut n = first;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let body: Value = json!({ "seats": [seat(n)] });
                    caller.call("POST", &path, &body);
                    n += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                n
            });
            while start.elapsed() < sized(STEADY, STEADY / 4) {
                readers.read(Duration::from_millis(20), |_, heard, _| {
                    seats += heard.windows(MARK.len()).filter(|part| *part == MARK).count();
                });
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            changing.join().expect("seats were held")
        });
        self.next = held;
        let rate = seats as f64 / start.elapsed().as_secs_f64() / readers.len() as f64;
        quiet(readers, FRAME_EVERY * 2, &mut seats);
        rate
    }
}

/// Reads what comes for `rest`; counts events.
fn quiet(readers: &mut Readers, rest: Duration, frames: &mut usize) {
    let start = Instant::now();
    while let Some(left) = rest.checked_sub(start.elapsed()) {
        readers.read(left, |_, heard, _| {
            *frames += heard.windows(7).filter(|part| part == b"event: ").count();
        });
    }
}

/// The same number of bytes to the same number of sockets, by a loop.
fn bare_fan(sender: &mut BareSender, count: usize, bytes: usize) -> Fan {
    let nothing = std::iter::repeat_n(&b"x"[..], count);
    let address = sender.address;
    let mut readers = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| sender.accept(count));
        let readers = Readers::connect(address, nothing);
        accepting.join().expect("all were taken");
        readers
    });
    let cpu = sender.process().cpu();
    let mut last_ms = Vec::new();
    // CPU time is counted in steps of 10 ms, so few would be none.
    for _ in 0..FRAMES {
        let start = Instant::now();
        sender.send(bytes);
        let mut left = count * bytes;
        while left > 0 {
            readers.read(Duration::from_secs(5), |_, heard, _| left -= heard.len());
        }
        last_ms.push(start.elapsed().as_secs_f64() * 1e3);
        sender.sent();
    }
    let cpu = sender.process().cpu() - cpu;
    Fan { last_ms, cpu_us: cpu.as_secs_f64() * 1e6 / (FRAMES * count) as f64 }
}

fn main() {
    if bare::was_baseline() {
        return;
    }
    raise_handle_limit(11_000);
    let count = sized(READERS, 500);
    let mut sale = Sale::open();
    let mut last = Rounds::new("10,000 readers, a frame to the last of them", "ms");
    let mut cpu = Rounds::new("CPU time of a frame to one reader", "us");
    let mut rate = Rounds::new("10,000 readers, seats change all the time", "frames/s");
    let mut memory = Rounds::new("memory of a reader", "KiB");
    // As many bytes as a frame of one seat has.
    let mut bytes = 128;
    for round in 0..sized(ROUNDS, 1) {
        eprintln!("round {}", round + 1);
        let mut sender = BareSender::start();
        let mut fan = bare_fan(&mut sender, count, bytes);
        last.add(BARE, fan.median_ms());
        cpu.add(BARE, fan.cpu_us);
        drop(sender);
        let mut readers = sale.readers(count);
        if round == 0 {
            // Later ones partly live in what those before them have left.
            let grown = sale.server.process().resident_bytes().saturating_sub(sale.empty_bytes);
            memory.add(STREAM, grown as f64 / 1_024.0 / count as f64);
        }
        let (mut fan, sent) = sale.fan(&mut readers);
        bytes = sent;
        last.add(STREAM, fan.median_ms());
        cpu.add(STREAM, fan.cpu_us);
        rate.add(STREAM, sale.steady(&mut readers));
    }
    last.print();
    cpu.print();
    rate.print();
    memory.print();
}
