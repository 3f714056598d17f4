//! Plans from a few numbers: `{"generate":{"sections":[..]}}`.

use std::collections::{BTreeMap, HashMap};

use tmomi_engine::ids::SectionIndex;
use tmomi_engine::layout::{LayoutSpec, ROW_SEATS_MAX, SEATS_MAX, SECTIONS_MAX, SectionSpec};

use super::json::{At, Json, Object};
use super::names::canonical;
use super::tiers::Tiers;
use super::{
    Drawn, GENERATED_NAME_BYTES_MAX, GENERATED_SPACING, Kind, Plan, PlanError, SectionEntry,
};

/// Reads the request. Here nobody has files from the field, so unknown fields are refused.
pub(super) fn read(document: &Object<'_>) -> Result<Plan, PlanError> {
    let root = At::ROOT;
    only(&root, document, &["generate"])?;
    let at = root.field("generate");
    let generate = at.object(root.required(document, "generate")?)?;
    only(&at, generate, &["sections"])?;
    let sections_at = at.field("sections");
    let list = sections_at.list(at.required(generate, "sections")?)?;
    if list.is_empty() || list.len() > SECTIONS_MAX {
        return Err(sections_at.refuse(format!("must have 1 to {SECTIONS_MAX} sections")));
    }
    let mut reader = Reader::default();
    for (index, section) in list.iter().enumerate() {
        reader.section(&sections_at.item(index), section)?;
    }
    reader.check_places(&sections_at)?;
    Ok(reader.finish())
}

#[derive(Default)]
struct Reader {
    tiers: Tiers,
    sections: Vec<SectionEntry>,
    by_name: HashMap<Box<str>, SectionIndex>,
    specs: Vec<SectionSpec>,
    rows: u32,
    seats: u32,
}

impl Reader {
    fn section(&mut self, at: &At<'_>, json: &Json<'_>) -> Result<(), PlanError> {
        let section = at.object(json)?;
        only(at, section, &["name", "tier", "rows", "seats_per_row", "places"])?;
        let name = name(at, section, "name")?;
        if name.is_empty() {
            return Err(at.field("name").refuse("must not be empty"));
        }
        let index = SectionIndex(self.sections.len() as u16);
        if self.by_name.insert(name.into(), index).is_some() {
            return Err(at.field("name").refuse("another section has this name"));
        }
        let tier = self.tiers.define(&at.field("tier"), self::name(at, section, "tier")?)?;
        let number = |field, max| at.field(field).count(at.required(section, field)?, max);
        let (kind, rows, spec, seats) = if section.get("places").is_some() {
            for field in ["rows", "seats_per_row"] {
                if section.get(field).is_some() {
                    return Err(at.field(field).refuse("a section with places has no rows"));
                }
            }
            let places = number("places", SEATS_MAX)?;
            (Kind::General { places }, 0, SectionSpec::General { places, tier }, places.into())
        } else {
            let rows = number("rows", SEATS_MAX)?;
            let seats_per_row = number("seats_per_row", ROW_SEATS_MAX)?;
            let first_distance = self.rows;
            let kind = Kind::Uniform { seats_per_row, left: 0.0, top: 0.0 };
            let spec = SectionSpec::Uniform { rows, seats_per_row, tier, first_distance };
            (kind, rows, spec, u64::from(rows) * u64::from(seats_per_row))
        };
        if seats > u64::from(SEATS_MAX - self.seats) {
            return Err(at.refuse(format!("the plan has more than {SEATS_MAX} seats")));
        }
        self.seats += seats as u32;
        let end = self.rows + rows;
        self.sections.push(SectionEntry { name: name.into(), rows: self.rows..end, kind });
        self.rows = end;
        self.specs.push(spec);
        Ok(())
    }

    /// Place 5 of a section `A-1` and seat 5 in row 1 of a section `A` would both be `A-1-5`.
    fn check_places(&self, at: &At<'_>) -> Result<(), PlanError> {
        for (index, section) in self.sections.iter().enumerate() {
            let Kind::General { .. } = section.kind else { continue };
            let Some((front, row)) = section.name.rsplit_once('-') else { continue };
            let (Some(row), Some(other)) = (canonical(row), self.by_name.get(front)) else {
                continue;
            };
            // General admission has no rows, so its range is empty.
            if row <= self.sections[usize::from(other.0)].rows.len() as u32 {
                let reason = format!("its places would be called as the seats of {front}");
                return Err(at.item(index).field("name").refuse(reason));
            }
        }
        Ok(())
    }

    /// Draws the sections one behind the other, each in the middle.
    fn finish(mut self) -> Plan {
        let widths = self.sections.iter().map(|section| match section.kind {
            Kind::Uniform { seats_per_row, .. } => seats_per_row,
            _ => 0,
        });
        let widest = widths.max().unwrap_or(0);
        for section in &mut self.sections {
            if let Kind::Uniform { seats_per_row, left, top } = &mut section.kind {
                *left = (widest - *seats_per_row) as f32 / 2.0 * GENERATED_SPACING;
                *top = section.rows.start as f32 * GENERATED_SPACING;
            }
        }
        Plan {
            tiers: self.tiers.into_names(),
            sections: self.sections,
            by_name: self.by_name,
            drawn: Drawn::default(),
            spec: LayoutSpec { sections: self.specs },
            ignored_fields: BTreeMap::new(),
        }
    }
}

/// Refuses every field but `known`.
fn only(at: &At<'_>, object: &Object<'_>, known: &[&str]) -> Result<(), PlanError> {
    match object.0.iter().find(|(field, _)| !known.contains(&field.as_ref())) {
        None => Ok(()),
        Some((field, _)) => Err(at.field(field).refuse("unknown field")),
    }
}

fn name<'j>(at: &At<'_>, of: &'j Object<'_>, field: &str) -> Result<&'j str, PlanError> {
    let here = at.field(field);
    let name = here.text(at.required(of, field)?)?;
    if name.len() > GENERATED_NAME_BYTES_MAX {
        let reason = format!("must not be longer than {GENERATED_NAME_BYTES_MAX} bytes");
        return Err(here.refuse(reason));
    }
    Ok(name)
}
