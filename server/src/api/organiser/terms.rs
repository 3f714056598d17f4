//! How a showtime is sold, as organisers send and see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tmomi_engine::event::LineSettings;
use tmomi_engine::ids::TimeMs;
use tmomi_engine::{HOLD_TTL_MS_MAX, HOLD_TTL_MS_MIN, LIMIT_MAX};
use tmomi_persist::catalog::{NewShowtime, Showtime, ShowtimePatch};
use tmomi_persist::plan::Plan;
use utoipa::ToSchema;

use crate::api::line_settings::{LineInput, LineOutput};
use crate::problem::{Problem, Result};
use crate::strict::object;
use crate::text::{When, nullable};

/// Seats a buyer may have unless the organiser says otherwise.
pub(crate) const LIMIT: u32 = 4;
/// How long a hold lasts unless the organiser says otherwise, in ms.
pub(crate) const HOLD_TTL_MS: u32 = 300_000;
/// The highest price of a seat, in the minor unit: a thousand of them are still below 2^53.
const PRICE_MAX: u64 = 1_000_000_000_000;

/// A showtime to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowtimeInput {
    pub(crate) show_id: u64,
    starts_at: When,
    /// Three letters (ISO 4217).
    currency: String,
    /// A price for every tier of the plan, in the currency's minor unit.
    prices: BTreeMap<String, u64>,
    /// Now, unless said.
    opens_at: Option<When>,
    /// Without it the sale goes on.
    closes_at: Option<When>,
    /// Seats a buyer may have; 4 unless said.
    limit: Option<u32>,
    /// How long a hold lasts, in ms; 300000 unless said.
    hold_ttl_ms: Option<u32>,
    #[serde(default, deserialize_with = "object")]
    line: Option<LineInput>,
}

/// What is to be changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowtimeChange {
    starts_at: Option<When>,
    /// Only while nothing was held or sold.
    currency: Option<String>,
    /// Every tier; only while nothing was held or sold.
    prices: Option<BTreeMap<String, u64>>,
    opens_at: Option<When>,
    /// null: the sale goes on.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<When>)]
    closes_at: Option<Option<When>>,
    limit: Option<u32>,
    hold_ttl_ms: Option<u32>,
    #[serde(default, deserialize_with = "object")]
    line: Option<LineInput>,
}

/// A showtime.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminShowtime {
    showtime_id: u32,
    show_id: u64,
    starts_at: When,
    currency: String,
    prices: BTreeMap<String, u64>,
    opens_at: When,
    closes_at: Option<When>,
    limit: u32,
    hold_ttl_ms: u32,
    line: LineOutput,
}

impl From<Showtime> for AdminShowtime {
    fn from(row: Showtime) -> AdminShowtime {
        let terms = row.terms;
        AdminShowtime {
            showtime_id: row.showtime_id.0,
            show_id: row.show_id.0,
            starts_at: When(terms.starts_at),
            currency: terms.currency,
            prices: terms.prices,
            opens_at: When(terms.opens_at),
            closes_at: terms.closes_at.map(When),
            limit: terms.limit,
            hold_ttl_ms: terms.hold_ttl_ms,
            line: LineOutput::from(&terms.line),
        }
    }
}

impl ShowtimeInput {
    /// The terms, as far as they can be checked without the plan.
    ///
    /// # Errors
    ///
    /// 400 with a pointer.
    pub(crate) fn terms(self, now: TimeMs) -> Result<NewShowtime> {
        let line = match &self.line {
            Some(line) => line.over(LineSettings::default(), "/line")?,
            None => LineSettings::default(),
        };
        let terms = NewShowtime {
            starts_at: self.starts_at.0,
            currency: self.currency,
            prices: self.prices,
            opens_at: self.opens_at.map_or(now, |when| when.0),
            closes_at: self.closes_at.map(|when| when.0),
            limit: self.limit.unwrap_or(LIMIT),
            hold_ttl_ms: self.hold_ttl_ms.unwrap_or(HOLD_TTL_MS),
            line,
        };
        check(&terms)?;
        Ok(terms)
    }
}

impl ShowtimeChange {
    /// `before` with what was sent, and the same as the catalog takes it.
    ///
    /// # Errors
    ///
    /// 400 with a pointer.
    pub(crate) fn over(self, before: &NewShowtime) -> Result<(NewShowtime, ShowtimePatch)> {
        let line = self.line.map(|line| line.over(before.line, "/line")).transpose()?;
        let patch = ShowtimePatch {
            starts_at: self.starts_at.map(|when| when.0),
            currency: self.currency,
            prices: self.prices,
            opens_at: self.opens_at.map(|when| when.0),
            closes_at: self.closes_at.map(|when| when.map(|when| when.0)),
            limit: self.limit,
            hold_ttl_ms: self.hold_ttl_ms,
            line,
        };
        let mut after = before.clone();
        patch.clone().apply(&mut after);
        check(&after)?;
        Ok((after, patch))
    }
}

/// Checks what the types do not say.
fn check(terms: &NewShowtime) -> Result<()> {
    let field = |ok: bool, pointer: &str, why: &'static str| {
        if ok { Ok(()) } else { Err(Problem::bad_field(pointer, why)) }
    };
    let currency = terms.currency.as_bytes();
    let letters = currency.len() == 3 && currency.iter().all(u8::is_ascii_uppercase);
    field(letters, "/currency", "must be three capital letters (ISO 4217)")?;
    let ordered = terms.closes_at.is_none_or(|closes_at| terms.opens_at < closes_at);
    field(ordered, "/closes_at", "must be after opens_at")?;
    field((1..=LIMIT_MAX).contains(&terms.limit), "/limit", "must be 1 to 1048575")?;
    let ttl = (HOLD_TTL_MS_MIN..=HOLD_TTL_MS_MAX).contains(&terms.hold_ttl_ms);
    field(ttl, "/hold_ttl_ms", "must be 100 to 7200000")?;
    let dear = terms.prices.iter().find(|(_, price)| **price > PRICE_MAX);
    match dear {
        Some((tier, _)) => {
            Err(Problem::bad_field(price_pointer(tier), format!("may be {PRICE_MAX} at most")))
        }
        None => Ok(()),
    }
}

/// Checks that every tier of the plan has a price, and nothing else has one.
///
/// # Errors
///
/// 400 with a pointer.
pub(crate) fn check_prices(terms: &NewShowtime, plan: &Plan) -> Result<()> {
    let unknown = terms.prices.keys().find(|name| plan.tier(name).is_none());
    if let Some(name) = unknown {
        return Err(Problem::bad_field(price_pointer(name), "the plan has no such tier"));
    }
    let missing = plan.tiers().iter().find(|tier| !terms.prices.contains_key(&***tier));
    match missing {
        Some(tier) => Err(Problem::bad_field("/prices", format!("the tier {tier:?} has no price"))),
        None => Ok(()),
    }
}

fn price_pointer(tier: &str) -> String {
    format!("/prices/{}", tier.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> serde_json::Value {
        serde_json::json!({
            "show_id": 1, "starts_at": "2030-01-31T19:30:00Z", "currency": "KRW",
            "prices": {"VIP": 100_000}, "opens_at": "2029-01-01T00:00:00Z",
        })
    }

    fn pointer_with(name: &str, value: serde_json::Value) -> Option<String> {
        let mut body = body();
        body[name] = value;
        let input: ShowtimeInput = serde_json::from_value(body).expect("a showtime");
        let problem = input.terms(TimeMs(0)).err()?;
        let body = serde_json::to_value(problem.body()).expect("text and numbers");
        Some(body["pointer"].as_str().expect("a pointer").to_owned())
    }

    #[test]
    fn what_is_missing_has_its_default() {
        let mut body = body();
        body.as_object_mut().expect("an object").remove("opens_at");
        let input: ShowtimeInput = serde_json::from_value(body).expect("a showtime");
        let terms = input.terms(TimeMs(7)).expect("good terms");
        assert_eq!((terms.opens_at, terms.limit, terms.hold_ttl_ms), (TimeMs(7), 4, 300_000));
        assert_eq!(terms.line, LineSettings::default());
    }

    #[test]
    fn every_field_has_its_range() {
        let bad = [
            ("currency", serde_json::json!("krw"), "/currency"),
            ("closes_at", serde_json::json!("2028-01-01T00:00:00Z"), "/closes_at"),
            ("limit", serde_json::json!(0), "/limit"),
            ("hold_ttl_ms", serde_json::json!(99), "/hold_ttl_ms"),
            ("prices", serde_json::json!({"a/b": PRICE_MAX + 1}), "/prices/a~1b"),
            ("line", serde_json::json!({"max_active": 0}), "/line/max_active"),
        ];
        for (name, value, pointer) in bad {
            assert_eq!(pointer_with(name, value).as_deref(), Some(pointer));
        }
        assert_eq!(pointer_with("limit", serde_json::json!(10)), None);
    }

    #[test]
    fn null_takes_the_close_away_and_nothing_leaves_it() {
        let input: ShowtimeInput = serde_json::from_value(body()).expect("a showtime");
        let mut before = input.terms(TimeMs(0)).expect("good terms");
        before.closes_at = Some(TimeMs(2_000_000_000_000));
        let over = |body: serde_json::Value| {
            let change: ShowtimeChange = serde_json::from_value(body).expect("a change");
            change.over(&before).expect("good terms").0.closes_at
        };
        assert_eq!(over(serde_json::json!({})), before.closes_at);
        assert_eq!(over(serde_json::json!({"closes_at": null})), None);
    }
}
