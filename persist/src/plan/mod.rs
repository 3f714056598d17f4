//! Seating plans: the names and the geometry of a house.
//!
//! The engine knows blocks and bits, the world knows `A-12-7`. A [`Plan`] stands between them:
//! it is read from the pretix seating-plan format or from a `generate` request, says what the
//! engine's layout is built from, and translates seats both ways.
//!
//! ```text
//! JSON --> stream.rs --> pretix.rs   --+--> Plan --> spec() --> Layout::build
//!                   \--> generate.rs --+      \----> seat(), seat_id(), sections(): names
//! ```
//!
//! A drawn plan keeps one text with all seat ids, an index of four bytes a slot and two
//! coordinates a seat. A generated plan keeps one record a section: ids and coordinates of its
//! seats are computed.

mod focal;
mod generate;
mod json;
mod names;
mod pretix;
mod stream;
#[cfg(test)]
mod tests;
mod tiers;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;
use tmomi_engine::ids::{RowIndex, SeatAddr, SectionIndex, TierIndex};
use tmomi_engine::layout::{Layout, LayoutSpec};

use json::{At, Json};
use names::{Arena, Index, canonical};
use pretix::Reader;

/// Bytes of a `seat_guid` at most.
pub const SEAT_GUID_BYTES_MAX: usize = 128;
/// Bytes of a section's or tier's name in a `generate` request at most.
pub const GENERATED_NAME_BYTES_MAX: usize = 128;
/// The tier of seats whose category is empty.
pub const DEFAULT_TIER: &str = "default";
/// From seat to seat and from row to row in a generated plan, in plan units.
pub const GENERATED_SPACING: f32 = 20.0;

/// Why a plan cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", if pointer.is_empty() { "the plan" } else { pointer })]
pub struct PlanError {
    /// A JSON pointer (RFC 6901) to the place; empty for the whole document.
    pub pointer: String,
    /// What is wrong there, for a person.
    pub reason: String,
}

/// What an import has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Sections with seats or places.
    pub sections: u32,
    /// Rows with seats.
    pub rows: u32,
    /// Seats and places.
    pub seats: u32,
    /// The tiers by their number. Each needs a price.
    pub tiers: Vec<String>,
    /// Fields that the format does not have, by name, and how often each was there.
    pub ignored_fields: BTreeMap<String, u64>,
}

/// Names and geometry of a house.
#[derive(Debug)]
pub struct Plan {
    tiers: Vec<Box<str>>,
    sections: Vec<SectionEntry>,
    by_name: HashMap<Box<str>, SectionIndex>,
    drawn: Drawn,
    spec: LayoutSpec,
    ignored_fields: BTreeMap<String, u64>,
}

/// One section as kept.
#[derive(Debug)]
struct SectionEntry {
    name: Box<str>,
    /// Its rows among all rows of the plan; empty for general admission.
    rows: Range<u32>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Rows and seats stand in [`Drawn`].
    Drawn,
    /// Equal rows, everything computed.
    Uniform { seats_per_row: u32, left: f32, top: f32 },
    /// Places without rows.
    General { places: u32 },
}

/// The rows and seats of a drawn plan in plan order.
#[derive(Debug, Default)]
struct Drawn {
    row_names: Arena,
    /// The number of each row's first seat among all seats, and one more for the end.
    row_starts: Vec<u32>,
    guids: Arena,
    by_guid: Index,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Drawn {
    fn seats(&self, row: RowIndex) -> Range<u32> {
        self.row_starts[row.0 as usize]..self.row_starts[row.0 as usize + 1]
    }

    fn find(&self, guid: &str) -> Option<(RowIndex, u32)> {
        let seat = self.by_guid.find(&self.guids, guid)?;
        let row = self.row_starts.partition_point(|start| *start <= seat) - 1;
        Some((RowIndex(row as u32), seat - self.row_starts[row]))
    }
}

impl Plan {
    /// Reads a plan: the pretix seating-plan format, or an object whose only field is `generate`.
    ///
    /// # Errors
    ///
    /// [`PlanError`] names the place of what cannot be sold.
    pub fn from_json(bytes: &[u8]) -> Result<Plan, PlanError> {
        let mut from = serde_json::Deserializer::from_slice(bytes);
        let mut reader = Reader::default();
        let read = stream::read(&mut reader, &mut from);
        let read = read.and_then(|rest| from.end().map(|()| rest));
        Plan::finish(reader, read.map_err(|error| json::syntax_error(bytes, &error)))
    }

    /// As [`from_json`](Self::from_json), from a value.
    ///
    /// # Errors
    ///
    /// As `from_json`.
    pub fn from_value(value: &serde_json::Value) -> Result<Plan, PlanError> {
        let mut reader = Reader::default();
        let read = stream::read(&mut reader, value);
        let refuse = |error: serde_json::Error| At::ROOT.refuse(error.to_string());
        Plan::finish(reader, read.map_err(refuse))
    }

    fn finish(mut reader: Reader, rest: Result<Json<'_>, PlanError>) -> Result<Plan, PlanError> {
        // The parser stops at a refusal and says so in its own words.
        if let Some(refusal) = reader.refused.take() {
            return Err(refusal);
        }
        let root = At::ROOT;
        let rest = rest?;
        let rest = root.object(&rest)?;
        match rest.get("generate") {
            Some(_) if reader.zones_listed => Err(root.field("zones").refuse("unknown field")),
            Some(_) => generate::read(rest),
            None => reader.finish(rest),
        }
    }

    /// What the engine's layout is built from. Sections, rows and tiers have the numbers that
    /// they have here.
    pub fn spec(&self) -> LayoutSpec {
        self.spec.clone()
    }

    /// What was read.
    pub fn report(&self) -> Report {
        Report {
            sections: self.sections.len() as u32,
            rows: self.sections.iter().map(|section| section.rows.len() as u32).sum(),
            seats: self.sections().map(|section| section.capacity()).sum(),
            tiers: self.tiers.iter().map(|name| String::from(&**name)).collect(),
            ignored_fields: self.ignored_fields.clone(),
        }
    }

    /// The names of the tiers by [`TierIndex`].
    pub fn tiers(&self) -> &[Box<str>] {
        &self.tiers
    }

    /// The tier called `name`.
    pub fn tier(&self, name: &str) -> Option<TierIndex> {
        let index = self.tiers.iter().position(|tier| &**tier == name)?;
        Some(TierIndex(index as u16))
    }

    /// The sections by [`SectionIndex`].
    pub fn sections(&self) -> impl ExactSizeIterator<Item = Section<'_>> {
        self.sections.iter().map(|entry| Section { plan: self, entry })
    }

    /// One section. Panics if there is no such section.
    pub fn section(&self, index: SectionIndex) -> Section<'_> {
        Section { plan: self, entry: &self.sections[usize::from(index.0)] }
    }

    /// The section called `name`.
    pub fn section_named(&self, name: &str) -> Option<SectionIndex> {
        self.by_name.get(name).copied()
    }

    /// One row, counted through all sections as in [`Layout::rows`]. Panics if there is no such
    /// row.
    pub fn row(&self, index: RowIndex) -> Row<'_> {
        let section = self.sections.partition_point(|section| section.rows.end <= index.0);
        let entry = &self.sections[section];
        assert!(entry.rows.contains(&index.0), "row {index} is in the section that ends after it");
        Row { plan: self, entry, index }
    }

    /// The seat called `id`, if the plan has one. `layout` must be built of [`spec`](Self::spec).
    pub fn seat(&self, layout: &Layout, id: &str) -> Option<SeatAddr> {
        if let Some((row, position)) = self.drawn.find(id) {
            return layout.seat(row, position);
        }
        let (front, number) = id.rsplit_once('-')?;
        let position = canonical(number)? - 1;
        if let Some(index) = self.section_named(front)
            && let Kind::General { .. } = self.sections[usize::from(index.0)].kind
        {
            return layout.place(index, position);
        }
        let (name, row) = front.rsplit_once('-')?;
        let row = canonical(row)? - 1;
        let entry = &self.sections[usize::from(self.section_named(name)?.0)];
        let rows = &entry.rows;
        match entry.kind {
            Kind::Uniform { .. } if row < rows.len() as u32 => {
                layout.seat(RowIndex(rows.start + row), position)
            }
            _ => None,
        }
    }

    /// The name of a seat. Panics if `layout`, built of [`spec`](Self::spec), has no such seat.
    pub fn seat_id(&self, layout: &Layout, seat: SeatAddr) -> String {
        let mut id = String::with_capacity(24);
        self.push_seat_id(layout, seat, &mut id);
        id
    }

    /// Writes the name of a seat behind what is in `out`. Panics as [`seat_id`](Self::seat_id).
    pub fn push_seat_id(&self, layout: &Layout, seat: SeatAddr, out: &mut String) {
        match layout.position(seat) {
            (Some(row), position) => self.row(row).push_seat_id(position, out),
            (None, position) => {
                let section = layout.block(seat.block()).section;
                self.section(section).push_place_id(position, out);
            }
        }
    }
}

/// A section of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    plan: &'a Plan,
    entry: &'a SectionEntry,
}

impl<'a> Section<'a> {
    /// Its name; no other section of the plan has it.
    pub fn name(self) -> &'a str {
        &self.entry.name
    }

    /// Whether it has places instead of rows.
    pub fn general_admission(self) -> bool {
        matches!(self.entry.kind, Kind::General { .. })
    }

    /// Seats or places.
    pub fn capacity(self) -> u32 {
        match self.entry.kind {
            Kind::General { places } => places,
            Kind::Uniform { seats_per_row, .. } => self.entry.rows.len() as u32 * seats_per_row,
            Kind::Drawn => {
                let Range { start, end } = self.entry.rows;
                let starts = &self.plan.drawn.row_starts;
                starts[end as usize] - starts[start as usize]
            }
        }
    }

    /// Its rows in plan order; none in general admission.
    pub fn rows(self) -> impl ExactSizeIterator<Item = Row<'a>> {
        let Section { plan, entry } = self;
        entry.rows.clone().map(move |index| Row { plan, entry, index: RowIndex(index) })
    }

    /// Writes the name of place `position` (from 0) of general admission behind `out`.
    pub fn push_place_id(self, position: u32, out: &mut String) {
        debug_assert!(self.general_admission(), "seats are named by their row");
        write!(out, "{}-{}", self.entry.name, position + 1).expect("a String takes every write");
    }
}

/// A row of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    plan: &'a Plan,
    entry: &'a SectionEntry,
    index: RowIndex,
}

impl<'a> Row<'a> {
    /// Its number among all rows of the plan, as in [`Layout::rows`].
    pub fn index(self) -> RowIndex {
        self.index
    }

    /// Its name; no other row of the section has it.
    pub fn name(self) -> Cow<'a, str> {
        match self.entry.kind {
            Kind::Drawn => Cow::Borrowed(self.plan.drawn.row_names.get(self.index.0)),
            _ => Cow::Owned(self.number().to_string()),
        }
    }

    /// How many seats it has.
    pub fn seats(self) -> u32 {
        match self.entry.kind {
            Kind::Drawn => self.plan.drawn.seats(self.index).len() as u32,
            Kind::Uniform { seats_per_row, .. } => seats_per_row,
            Kind::General { .. } => 0,
        }
    }

    /// Writes the name of the seat at `position` (from 0, below [`seats`](Self::seats)) behind
    /// `out`.
    pub fn push_seat_id(self, position: u32, out: &mut String) {
        match self.entry.kind {
            Kind::Drawn => out.push_str(self.plan.drawn.guids.get(self.drawn_seat(position))),
            _ => {
                out.push_str(&self.entry.name);
                for number in [self.number(), position + 1] {
                    out.push('-');
                    out.push_str(itoa::Buffer::new().format(number));
                }
            }
        }
    }

    /// Where the seat at `position` (from 0, below [`seats`](Self::seats)) is, in plan
    /// coordinates: x to the right, y away from the top.
    pub fn point(self, position: u32) -> (f32, f32) {
        match self.entry.kind {
            Kind::Drawn => {
                let seat = self.drawn_seat(position) as usize;
                (self.plan.drawn.x[seat], self.plan.drawn.y[seat])
            }
            Kind::Uniform { left, top, .. } => {
                let x = left + position as f32 * GENERATED_SPACING;
                (x, top + (self.number() - 1) as f32 * GENERATED_SPACING)
            }
            Kind::General { .. } => (0.0, 0.0),
        }
    }

    fn drawn_seat(self, position: u32) -> u32 {
        let seats = self.plan.drawn.seats(self.index);
        assert!(position < seats.len() as u32, "row {} has no seat {position}", self.index);
        seats.start + position
    }

    /// From 1, within the section.
    fn number(self) -> u32 {
        self.index.0 - self.entry.rows.start + 1
    }
}
