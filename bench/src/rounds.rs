//! Figures of whole runs: several rounds, what is compared side by side in each of them, then the
//! median, the range, and the ratio of each to the first.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// The head of a table of rows.
pub const TABLE_HEAD: &str = "| what | how | took | of the first |\n| --- | --- | --- | --- |";

/// Set to 1, a bench does as little as shows that it still runs.
const SHORT: &str = "TMOMI_BENCH_SHORT";

/// Whether a bench is run only to see that it still runs; its figures mean nothing then.
pub fn is_short() -> bool {
    std::env::var_os(SHORT).is_some_and(|value| value == "1")
}

/// Rounds of a comparison.
pub fn rounds() -> usize {
    if is_short() { 1 } else { 5 }
}

/// What one contender took in each round.
struct Contender {
    name: String,
    samples: Vec<f64>,
}

/// Contenders of one comparison; the first one added is the baseline.
pub struct Rounds {
    title: String,
    unit: &'static str,
    contenders: Vec<Contender>,
}

impl Rounds {
    /// A comparison whose samples are in `unit`.
    pub fn new(title: impl Into<String>, unit: &'static str) -> Rounds {
        Rounds { title: title.into(), unit, contenders: Vec::new() }
    }

    /// What is compared.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Adds a sample of the contender `name`.
    pub fn add(&mut self, name: &str, sample: f64) {
        match self.contenders.iter_mut().find(|contender| contender.name == name) {
            Some(contender) => contender.samples.push(sample),
            None => {
                self.contenders.push(Contender { name: name.to_owned(), samples: vec![sample] });
            }
        }
    }

    /// Adds a sample in milliseconds.
    pub fn add_ms(&mut self, name: &str, took: Duration) {
        self.add(name, took.as_secs_f64() * 1_000.0);
    }

    /// A row for each contender: a Markdown table without its head.
    pub fn rows(&self) -> Vec<String> {
        let Some(baseline) = self.contenders.first() else { return Vec::new() };
        let row = |contender: &Contender| {
            let (median, low, high) = spread(&contender.samples);
            let pairs = contender.samples.iter().zip(&baseline.samples);
            let ratios: Vec<f64> = pairs.map(|(sample, baseline)| sample / baseline).collect();
            let (ratio, ratio_low, ratio_high) = spread(&ratios);
            format!(
                "| {} | {} | {} {} ({} to {}) | {ratio:.2} ({ratio_low:.2} to {ratio_high:.2}) |",
                self.title,
                contender.name,
                digits(median),
                self.unit,
                digits(low),
                digits(high),
            )
        };
        self.contenders.iter().map(row).collect()
    }

    /// Prints the table.
    #[allow(clippy::print_stdout, reason = "its table is what a runner is for")]
    pub fn print(&self) {
        println!("{TABLE_HEAD}");
        self.rows().iter().for_each(|row| println!("{row}"));
    }
}

/// What `act` takes. Its result is given back afterwards, which may take its own time.
#[allow(clippy::disallowed_methods, reason = "the clock of a bench is its own")]
pub fn timed<T>(act: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    let result = black_box(act());
    let took = start.elapsed();
    drop(result);
    took
}

/// Median, least and greatest.
fn spread(samples: &[f64]) -> (f64, f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// Three digits that matter.
fn digits(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{:.3} M", number / 1e6),
        _ if number >= 100.0 => format!("{number:.0}"),
        _ if number >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
