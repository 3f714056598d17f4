//! Tiers by name. Blanks around a name are no part of it: prices are rows with the name as a key,
//! and MySQL and MariaDB take names that differ in blanks at their ends for one.

use std::collections::HashMap;

use tmomi_engine::ids::TierIndex;

use super::json::At;
use super::{DEFAULT_TIER, PlanError};

/// The tiers of a plan, in the order they were defined.
#[derive(Default)]
pub(super) struct Tiers {
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, TierIndex>,
}

impl Tiers {
    /// The tier called `name`, which is made if there is none. The empty name is
    /// [`DEFAULT_TIER`].
    pub(super) fn define(&mut self, at: &At<'_>, name: &str) -> Result<TierIndex, PlanError> {
        self.define_or(name.trim()).ok_or_else(|| at.refuse("too many tiers"))
    }

    fn define_or(&mut self, name: &str) -> Option<TierIndex> {
        let name = if name.is_empty() { DEFAULT_TIER } else { name };
        if let Some(tier) = self.by_name.get(name) {
            return Some(*tier);
        }
        let tier = TierIndex(u16::try_from(self.names.len()).ok()?);
        self.names.push(name.into());
        self.by_name.insert(name.into(), tier);
        Some(tier)
    }

    pub(super) fn into_names(self) -> Vec<Box<str>> {
        self.names
    }
}

/// The categories that seats name, numbered as they come by: a file may define them after the
/// seats.
#[derive(Default)]
pub(super) struct Named {
    /// The name, and a pointer to where it was first.
    first: Vec<(Box<str>, String)>,
    by_name: HashMap<Box<str>, TierIndex>,
}

impl Named {
    /// The provisional number of a category.
    pub(super) fn number(&mut self, at: &At<'_>, name: &str) -> Result<TierIndex, PlanError> {
        let name = name.trim();
        if let Some(number) = self.by_name.get(name) {
            return Ok(*number);
        }
        let number = u16::try_from(self.first.len());
        let number = TierIndex(number.map_err(|_| at.refuse("too many tiers"))?);
        self.first.push((name.into(), at.pointer()));
        self.by_name.insert(name.into(), number);
        Ok(number)
    }

    /// The tiers of the provisional numbers.
    pub(super) fn resolve(self, tiers: &mut Tiers) -> Result<Vec<TierIndex>, PlanError> {
        let tier = |(name, pointer): (Box<str>, String)| {
            if let Some(tier) = tiers.by_name.get(&name) {
                return Ok(*tier);
            }
            let reason = match name.is_empty() {
                true => match tiers.define_or(&name) {
                    Some(tier) => return Ok(tier),
                    None => "too many tiers".to_owned(),
                },
                false => format!("no category is called {name:?}"),
            };
            Err(PlanError { pointer, reason })
        };
        self.first.into_iter().map(tier).collect()
    }
}
