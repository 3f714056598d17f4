//! What the benches share: houses to sell, and what to compare with.
//!
//! One file a question in `benches/`; every figure has its baseline in the same run, because a
//! figure of another machine or another hour says nothing.
//!
//! * `decisions`: what one hold, release, refusal, join and look at the line cost one thread
//! * `threads`: how many holds one thread and two make in a second, at random and in one row
//! * `best`: what the best seats cost, by how full the house is
//! * `sizes`: what the size of the house and of the request cost a hold
//! * `line`: what a position in line costs, by the length of the line
//! * `journal`: what a commit costs by the size of its batch
//! * `durable`: how many holds a second become durable, and how soon, by how many are in flight
//! * `kafka_log`: the same with a Kafka topic as the log, beside a bare produce and read back
//! * `kafka_stream`: how fast a journal is published, beside a bare producer
//! * `replay`: how fast events become an image again
//! * `snapshot`: how soon an image of ten million seats is written, and how soon a house is built
//! * `recovery`: how soon a house of ten million seats is back
//! * `writer`: how many rows a second become of events, in MySQL and MariaDB
//! * `sold_to_stored`: from a hold to a row: engine, Kafka, writer and database on one machine
//! * `http_holds`: a durable hold over HTTP, beside the same stack that does nothing
//! * `http_open_loop`: how long it takes at parts of the rate that the server reaches
//! * `http_batch`: holds a second through `holds:batch`
//! * `http_purchase`: whole purchases while ten thousand wait on streams
//! * `http_one_seat`: everybody wants one seat
//! * `http_expiry`: what others notice when 70,000 holds expire in a second
//! * `http_seat_stream`: a frame to ten thousand readers, beside a bare loop of `send`
//! * `http_line_stream`: how soon each of a line of ten thousand hears that he is let in
//!
//! `make bench-report` runs them and writes their rows into `docs/PERFORMANCE.md`. With
//! `TMOMI_BENCH_SHORT=1` each does as little as shows that it still runs.

pub mod bare_file;
pub mod baseline;
pub mod broker;
pub mod contenders;
pub mod databases;
pub mod flight;
pub mod rounds;
pub mod sale;
pub mod socket;
pub mod sold;

/// Seats of the large house: what the largest stadiums have, a hundred times.
pub const SEATS: u32 = 10_000_000;

/// A small generator of random numbers (xorshift64*, Vigna 2016), so that choosing a seat costs
/// next to nothing.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of `seed`, which must not be 0.
    pub fn new(seed: u64) -> Rng {
        assert_ne!(seed, 0, "0 gives nothing but 0");
        Rng(seed)
    }

    /// A number from 0 to `end - 1`. `end` must not be 0.
    pub fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // Lemire's multiplication instead of a division (2019), without its rejection.
        ((high * u64::from(end)) >> 32) as u32
    }
}
