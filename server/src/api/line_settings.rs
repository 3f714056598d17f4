//! The settings of a line as organisers send and see them.

use serde::{Deserialize, Serialize};
use tmomi_engine::event::{LineMode, LineSettings};
use utoipa::ToSchema;

use crate::problem::{Problem, Result};

/// Buyers that may be active at once, at most.
const MAX_ACTIVE_MAX: u32 = 10_000_000;
/// Admissions a second, at most.
const RATE_PER_S_MAX: f64 = 1_000_000.0;
/// The shortest and the longest grace and session, in ms.
const PERIOD_MS: std::ops::RangeInclusive<u32> = 100..=86_400_000;

// A token of an admission lives as long as the session; a retired key verifies for longer.
const _: () = assert!(*PERIOD_MS.end() <= 24 * 3_600_000);

/// How a line lets buyers in; what is missing stays as it is, or is as usual.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LineInput {
    /// `open`, `fifo` or `paused`.
    mode: Option<Mode>,
    /// Buyers that may be active at once.
    max_active: Option<u32>,
    /// Admissions a second.
    rate_per_s: Option<f64>,
    /// How long a sign of life lasts, in ms.
    grace_ms: Option<u32>,
    /// How long an admitted buyer has, in ms.
    session_ms: Option<u32>,
}

/// How buyers are let in.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// No waiting.
    Open,
    /// First in, first out.
    Fifo,
    /// Nobody is admitted.
    Paused,
}

/// How a line lets buyers in.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct LineOutput {
    /// `open`, `fifo` or `paused`.
    #[schema(value_type = String)]
    mode: &'static str,
    /// Buyers that may be active at once.
    max_active: u32,
    /// Admissions a second.
    rate_per_s: f64,
    /// How long a sign of life lasts, in ms.
    grace_ms: u32,
    /// How long an admitted buyer has, in ms.
    session_ms: u32,
}

impl LineInput {
    /// `before` with what was sent. `pointer` is where the settings stand in the body.
    ///
    /// # Errors
    ///
    /// 400 with a pointer to what is out of its range.
    pub(crate) fn over(&self, before: LineSettings, pointer: &str) -> Result<LineSettings> {
        let field = |ok: bool, name: &str, why: String| {
            if ok { Ok(()) } else { Err(Problem::bad_field(format!("{pointer}/{name}"), why)) }
        };
        let active = self.max_active.unwrap_or(before.max_active);
        let ok = (1..=MAX_ACTIVE_MAX).contains(&active);
        field(ok, "max_active", format!("must be 1 to {MAX_ACTIVE_MAX}"))?;
        let rate = self.rate_per_s.unwrap_or(rate_per_s(&before));
        let rate_per_1000s = (rate * 1_000.0).round();
        let ok = rate <= RATE_PER_S_MAX && rate_per_1000s >= 1.0;
        field(ok, "rate_per_s", format!("must be 0.001 to {RATE_PER_S_MAX}"))?;
        let period = || format!("must be {} to {}", PERIOD_MS.start(), PERIOD_MS.end());
        let grace_ms = self.grace_ms.unwrap_or(before.grace_ms);
        field(PERIOD_MS.contains(&grace_ms), "grace_ms", period())?;
        let session_ms = self.session_ms.unwrap_or(before.session_ms);
        field(PERIOD_MS.contains(&session_ms), "session_ms", period())?;
        Ok(LineSettings {
            mode: self.mode.map_or(before.mode, |mode| match mode {
                Mode::Open => LineMode::Open,
                Mode::Fifo => LineMode::Fifo,
                Mode::Paused => LineMode::Paused,
            }),
            max_active: active,
            rate_per_1000s: rate_per_1000s as u32,
            grace_ms,
            session_ms,
        })
    }
}

impl From<&LineSettings> for LineOutput {
    fn from(line: &LineSettings) -> LineOutput {
        LineOutput {
            mode: mode_name(line.mode),
            max_active: line.max_active,
            rate_per_s: rate_per_s(line),
            grace_ms: line.grace_ms,
            session_ms: line.session_ms,
        }
    }
}

/// Admissions a second.
pub(crate) fn rate_per_s(line: &LineSettings) -> f64 {
    f64::from(line.rate_per_1000s) / 1_000.0
}

/// The name of a mode in the API.
pub(crate) fn mode_name(mode: LineMode) -> &'static str {
    match mode {
        LineMode::Open => "open",
        LineMode::Fifo => "fifo",
        LineMode::Paused => "paused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(body: serde_json::Value) -> Result<LineSettings> {
        let input: LineInput = serde_json::from_value(body).expect("settings");
        input.over(LineSettings::default(), "/line")
    }

    #[test]
    fn what_is_missing_stays() {
        let line = over(serde_json::json!({"mode": "fifo", "rate_per_s": 2.5})).expect("good");
        assert_eq!((line.mode, line.rate_per_1000s), (LineMode::Fifo, 2_500));
        assert_eq!(line.max_active, LineSettings::default().max_active);
        let output = serde_json::to_value(LineOutput::from(&line)).expect("text and numbers");
        assert_eq!(output["rate_per_s"], 2.5);
    }

    #[test]
    fn what_is_out_of_its_range_is_refused() {
        for body in [
            serde_json::json!({"max_active": 0}),
            serde_json::json!({"rate_per_s": 0}),
            serde_json::json!({"rate_per_s": -1}),
            serde_json::json!({"rate_per_s": 1e300}),
            serde_json::json!({"grace_ms": 99}),
            serde_json::json!({"session_ms": 86_400_001}),
        ] {
            assert!(over(body.clone()).is_err(), "{body}");
        }
    }
}
