//! Figures of whole runs: several rounds, what is compared side by side in each of them, then the
//! median, the range, and the ratio of each to the first.

use std::time::Duration;

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

    /// Prints a row for each contender: a Markdown table without its head.
    #[allow(clippy::print_stdout, reason = "its table is what a runner is for")]
    pub fn print(&self) {
        let Some(baseline) = self.contenders.first() else { return };
        for contender in &self.contenders {
            let (median, low, high) = spread(&contender.samples);
            let ratios: Vec<f64> = contender
                .samples
                .iter()
                .zip(&baseline.samples)
                .map(|(sample, baseline)| sample / baseline)
                .collect();
            let (ratio, ratio_low, ratio_high) = spread(&ratios);
            println!(
                "| {} | {} | {} {} ({} to {}) | {ratio:.2} ({ratio_low:.2} to {ratio_high:.2}) |",
                self.title,
                contender.name,
                digits(median),
                self.unit,
                digits(low),
                digits(high),
            );
        }
    }
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
