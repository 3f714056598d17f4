//! Counters and latencies of the process, as Prometheus reads them.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use crossbeam::utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tmomi_persist::log::CommitSample;
use tmomi_persist::writer::{Status, WriterState};

use crate::problem::Code;

/// Threads share a histogram with few others.
const SHARDS: usize = 16;
/// The largest value that is told from a larger one: a minute in ns.
const VALUE_MAX: u64 = 60_000_000_000;
/// Significant digits of a value.
const DIGITS: u8 = 2;
/// What is reported of a spread.
const QUANTILES: [(&str, f64); 5] =
    [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)];
/// Counted apart, so that a look at the status tells how things are.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How values are spread since the start: times in ns, or counts.
pub(crate) struct Spread {
    shards: Box<[CachePadded<Mutex<Histogram<u64>>>]>,
    sum: AtomicU64,
    /// What a value is divided by in a report.
    unit: f64,
}

impl Spread {
    /// Of times, which are reported in seconds.
    fn times() -> Spread {
        Spread::new(1e9)
    }

    /// Of counts.
    fn counts() -> Spread {
        Spread::new(1.0)
    }

    fn new(unit: f64) -> Spread {
        let shard = || {
            let histogram = Histogram::new_with_bounds(1, VALUE_MAX, DIGITS);
            CachePadded::new(Mutex::new(histogram.expect("the bounds are in order")))
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Spread { shards, sum: AtomicU64::new(0), unit }
    }

    /// Counts a time.
    pub(crate) fn record(&self, took: Duration) {
        self.record_each(took, 1);
    }

    /// Counts what took `took` together as `count` that took as long as each other.
    pub(crate) fn record_each(&self, took: Duration, count: u32) {
        let each = took.checked_div(count).unwrap_or_default();
        self.record_values(u64::try_from(each.as_nanos()).unwrap_or(u64::MAX), count);
    }

    fn record_values(&self, value: u64, count: u32) {
        let count = u64::from(count);
        self.sum.fetch_add(value.saturating_mul(count), Ordering::Relaxed);
        self.shards[own_shard()].lock().saturating_record_n(value, count);
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        let mut all = self.shards[0].lock().clone();
        for shard in &self.shards[1..] {
            all.add(&*shard.lock()).expect("the bounds are the same");
        }
        head(out, name, "summary", help);
        for (label, quantile) in QUANTILES {
            let value = all.value_at_quantile(quantile) as f64 / self.unit;
            line(out, format_args!("{name}{{quantile=\"{label}\"}} {value}"));
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.unit;
        line(out, format_args!("{name}_sum {sum}\n{name}_count {}", all.len()));
    }
}

fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

/// Something that is there now and may be gone later.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What others know and a report takes from them at its time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    /// Events that wait for the log.
    pub(crate) ring_depth: u64,
    /// The last committed event.
    pub(crate) applied: u64,
    /// The reign.
    pub(crate) epoch: u32,
    /// Buyers in all lines.
    pub(crate) waiting: u64,
    /// Buyers that are let in, in all lines.
    pub(crate) active: u64,
    /// Showtimes.
    pub(crate) showtimes: u64,
    /// Replies that wait for a commit.
    pub(crate) waiting_replies: u64,
    /// The last event that Kafka has, if there is a stream to it.
    pub(crate) published: Option<u64>,
    /// Whether the publisher is at work and its brokers answer.
    pub(crate) stream_well: bool,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    /// From a request's decoding to its decision.
    pub(crate) decision: Spread,
    /// From the decision to its commit, as the request sees it.
    pub(crate) commit: Spread,
    /// From the head of a request to the head of its answer.
    pub(crate) reply: Spread,
    sync: Spread,
    commit_events: Spread,
    publish: Spread,
    commit_bytes: AtomicU64,
    /// Open seat streams.
    pub(crate) seat_streams: Gauge,
    /// Open line streams.
    pub(crate) line_streams: Gauge,
    /// Open connections.
    pub(crate) connections: Gauge,
    refusals: Box<[AtomicU64]>,
    answers: [AtomicU64; CLASSES.len()],
}

impl Metrics {
    /// Nothing happened yet.
    pub(crate) fn new() -> Metrics {
        Metrics {
            decision: Spread::times(),
            commit: Spread::times(),
            reply: Spread::times(),
            sync: Spread::times(),
            commit_events: Spread::counts(),
            publish: Spread::times(),
            commit_bytes: AtomicU64::new(0),
            seat_streams: Gauge::default(),
            line_streams: Gauge::default(),
            connections: Gauge::default(),
            refusals: Code::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            answers: Default::default(),
        }
    }

    /// A refusal or an error with this code, an answer or a line of one.
    pub(crate) fn refused(&self, code: Code) {
        self.refusals[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The log has committed something.
    pub(crate) fn committed(&self, sample: &CommitSample) {
        self.sync.record_values(sample.took_ns, 1);
        self.commit_events.record_values(sample.events as u64, 1);
        self.commit_bytes.fetch_add(sample.bytes as u64, Ordering::Relaxed);
    }

    /// Kafka has acknowledged a record of the stream.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "there is no stream"))]
    pub(crate) fn published(&self, took_ns: u64) {
        self.publish.record_values(took_ns, 1);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
        self.reply.record(took);
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn render(&self, levels: &Levels, up: Duration) -> String {
        let mut out = String::with_capacity(8 << 10);
        let name = "tmomi_decision_seconds";
        self.decision.render(&mut out, name, "From a decoded request to its decision.");
        let name = "tmomi_commit_seconds";
        self.commit.render(&mut out, name, "From a decision to its commit.");
        let name = "tmomi_reply_seconds";
        self.reply.render(&mut out, name, "From a request's head to its answer's head.");
        let name = "tmomi_log_commit_seconds";
        self.sync.render(&mut out, name, "From the first byte written to durable.");
        let name = "tmomi_log_commit_events";
        self.commit_events.render(&mut out, name, "Events of one commit.");
        if levels.published.is_some() {
            let name = "tmomi_stream_publish_seconds";
            self.publish.render(&mut out, name, "From given to Kafka to acknowledged.");
        }
        head(&mut out, "tmomi_answers_total", "counter", "Answers by class of status.");
        for (class, count) in CLASSES.iter().zip(&self.answers) {
            let count = count.load(Ordering::Relaxed);
            line(&mut out, format_args!("tmomi_answers_total{{status=\"{class}\"}} {count}"));
        }
        head(&mut out, "tmomi_refusals_total", "counter", "Refusals and errors by code.");
        for (code, count) in Code::ALL.iter().zip(&self.refusals) {
            let (code, count) = (code.name(), count.load(Ordering::Relaxed));
            line(&mut out, format_args!("tmomi_refusals_total{{code=\"{code}\"}} {count}"));
        }
        self.render_levels(&mut out, levels, up);
        out
    }

    fn render_levels(&self, out: &mut String, levels: &Levels, up: Duration) {
        let gauge = |gauge: &Gauge| gauge.0.load(Ordering::Relaxed).max(0) as u64;
        let bytes = self.commit_bytes.load(Ordering::Relaxed);
        let counters = [("tmomi_log_bytes_total", bytes, "Bytes that the log has committed.")];
        let gauges = [
            ("tmomi_ring_depth", levels.ring_depth, "Events that wait for the log."),
            ("tmomi_applied_seq", levels.applied, "The last committed event."),
            ("tmomi_replies_waiting", levels.waiting_replies, "Replies that wait for a commit."),
            ("tmomi_epoch", levels.epoch.into(), "The number of this reign."),
            ("tmomi_line_waiting", levels.waiting, "Buyers in all lines."),
            ("tmomi_buyers_active", levels.active, "Buyers that are let in."),
            ("tmomi_showtimes", levels.showtimes, "Showtimes that were opened."),
            ("tmomi_seat_streams", gauge(&self.seat_streams), "Open seat streams."),
            ("tmomi_line_streams", gauge(&self.line_streams), "Open line streams."),
            ("tmomi_connections", gauge(&self.connections), "Open connections."),
            ("tmomi_uptime_seconds", up.as_secs(), "How long the process has run."),
        ];
        let published = levels.published.unwrap_or_default();
        let lag = levels.applied.saturating_sub(published);
        let stream = [
            ("tmomi_stream_seq", published, "The last event that Kafka has acknowledged."),
            ("tmomi_stream_lag_events", lag, "Committed events that Kafka has yet to get."),
            (
                "tmomi_stream_up",
                levels.stream_well.into(),
                "0 if the publisher waits for its brokers, or has left.",
            ),
        ];
        let stream = if levels.published.is_some() { &stream[..] } else { &[] };
        let kinds = [("counter", &counters[..]), ("gauge", &gauges[..]), ("gauge", stream)];
        for (kind, values) in kinds {
            for (name, value, help) in values {
                head(out, name, kind, help);
                line(out, format_args!("{name} {value}"));
            }
        }
    }
}

/// How a writer of rows is doing, in Prometheus' text format.
pub(crate) fn of_writer(writer: &WriterState) -> String {
    let mut out = String::new();
    let (transactions, busy) = writer.transactions();
    let (up, last_s) = (writer.status() == Status::Running, writer.last_time().0 as f64 / 1e3);
    let values = [
        ("tmomi_writer_seq", "gauge", writer.position().0 as f64, "The last event in the rows."),
        ("tmomi_writer_up", "gauge", f64::from(up), "0 if it waits or has left."),
        ("tmomi_writer_last_event_timestamp_seconds", "gauge", last_s, "Time of that event."),
        ("tmomi_writer_rows_total", "counter", writer.rows() as f64, "Rows written."),
        ("tmomi_writer_transactions_total", "counter", transactions as f64, "Transactions."),
        ("tmomi_writer_busy_seconds_total", "counter", busy.as_secs_f64(), "Time in them."),
    ];
    for (name, kind, value, help) in values {
        head(&mut out, name, kind, help);
        line(&mut out, format_args!("{name} {value}"));
    }
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_code_and_the_quantiles() {
        let metrics = Metrics::new();
        metrics.refused(Code::SeatUnavailable);
        metrics.answered(StatusCode::CONFLICT, Duration::from_millis(2));
        metrics.seat_streams.add();
        let levels = Levels { waiting: 7, ..Levels::default() };
        let text = metrics.render(&levels, Duration::from_secs(3));
        for line in [
            "tmomi_refusals_total{code=\"seat-unavailable\"} 1",
            "tmomi_answers_total{status=\"4xx\"} 1",
            "tmomi_reply_seconds_count 1",
            "tmomi_line_waiting 7",
            "tmomi_seat_streams 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let p50 = text.lines().find(|l| l.starts_with("tmomi_reply_seconds{quantile=\"0.5\"}"));
        let s: f64 = p50.and_then(|l| l.rsplit(' ').next()?.parse().ok()).expect("a number");
        assert!((0.0019..0.0021).contains(&s), "{s}");
        metrics.seat_streams.remove();
        let text = metrics.render(&levels, Duration::ZERO);
        assert!(text.contains("tmomi_seat_streams 0"));
    }
}
