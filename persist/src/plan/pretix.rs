//! The pretix seating-plan format: strict about what is sold, kind about everything else.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use tmomi_engine::ids::{SectionIndex, TierIndex};
use tmomi_engine::layout::{
    LayoutSpec, ROW_SEATS_MAX, RowSpec, SEATS_MAX, SECTIONS_MAX, SectionSpec,
};

use super::focal::{self, Bounds, Point};
use super::json::{At, FINITE, Json, Object};
use super::names::{Index, canonical, told_apart};
use super::tiers::{Named, Tiers};
use super::{Drawn, Kind, Plan, PlanError, SEAT_GUID_BYTES_MAX, SectionEntry};

// The fields of the format's schema, and `general_admission`, which is our own. Whatever else a
// file has is counted as ignored.
const PLAN_FIELDS: &[&str] = &["name", "categories", "zones", "size"];
const CATEGORY_FIELDS: &[&str] = &["name", "color"];
const ZONE_FIELDS: &[&str] =
    &["position", "rows", "name", "displayed", "areas", "general_admission"];
const GENERAL_FIELDS: &[&str] = &["capacity", "category"];
const ROW_FIELDS: &[&str] =
    &["row_number", "seats", "position", "number_of_seats", "seats_spacing"];
const SEAT_FIELDS: &[&str] = &["seat_guid", "seat_number", "position", "category"];
const AREA_FIELDS: &[&str] = &[
    "position",
    "color",
    "border_color",
    "rotation",
    "text",
    "width",
    "height",
    "shape",
    "rectangle",
    "circle",
    "ellipse",
    "polygon",
    "uuid",
];

/// Names of ignored fields in the report at most; further ones are counted as [`OTHER_FIELDS`].
const IGNORED_NAMES_MAX: usize = 1_000;
const OTHER_FIELDS: &str = "…";

/// A zone that becomes a section.
struct Zone {
    name: Cow<'static, str>,
    rows: Range<u32>,
    kind: Kind,
}

/// What was read so far. [`stream`](super::stream) calls it: every seat of a row, then the row;
/// every row of a zone, then the zone; then the rest of the document.
#[derive(Default)]
pub(super) struct Reader {
    /// The first refusal; reading ends with it.
    pub(super) refused: Option<PlanError>,
    /// Whether the document had zones.
    pub(super) zones_listed: bool,
    categories: Named,
    ignored: BTreeMap<String, u64>,
    zones: Vec<Zone>,
    specs: Vec<SectionSpec>,
    drawn: Drawn,
    /// Where each seat is: within its row until the row ends, within its zone until that ends.
    points: Vec<Point>,
    /// Where in the document each row is: its zone and its place there.
    row_places: Vec<(usize, usize)>,
    stage: Option<Point>,
    /// Seats and places so far.
    seats: u32,
    /// Neighbouring seats of one category, of the row that is being read.
    runs: Vec<(usize, TierIndex)>,
    /// The rows of the zone that is being read.
    rows: Vec<RowSpec>,
    row_names: Vec<Cow<'static, str>>,
    row_numbers: Vec<usize>,
}

impl Reader {
    /// Keeps a refusal and gives what the parser is to be told.
    pub(super) fn refuse<E: serde::de::Error>(&mut self, refusal: PlanError) -> E {
        self.refused = Some(refusal);
        E::custom("refused")
    }

    fn count_ignored(&mut self, object: &Object<'_>, known: &[&str]) {
        for (field, _) in object.0.iter().filter(|(field, _)| !known.contains(&field.as_ref())) {
            if let Some(count) = self.ignored.get_mut(field.as_ref()) {
                *count += 1;
                continue;
            }
            let full = self.ignored.len() >= IGNORED_NAMES_MAX;
            let name = if full { OTHER_FIELDS } else { field };
            *self.ignored.entry(name.to_owned()).or_insert(0) += 1;
        }
    }

    fn add_seats(&mut self, at: &At<'_>, seats: u32) -> Result<(), PlanError> {
        if seats > SEATS_MAX - self.seats {
            return Err(at.refuse(format!("the plan has more than {SEATS_MAX} seats")));
        }
        self.seats += seats;
        Ok(())
    }

    /// A seat of the row that is being read.
    pub(super) fn seat(&mut self, at: &At<'_>, json: &Json<'_>) -> Result<(), PlanError> {
        let seat = at.object(json)?;
        self.count_ignored(seat, SEAT_FIELDS);
        let here = at.field("seat_guid");
        let guid = here.text(at.required(seat, "seat_guid")?)?;
        if guid.is_empty() || guid.len() > SEAT_GUID_BYTES_MAX {
            return Err(here.refuse(format!("must have 1 to {SEAT_GUID_BYTES_MAX} bytes")));
        }
        label(&at.field("seat_number"), at.required(seat, "seat_number")?)?;
        let here = at.field("category");
        let category = here.text(at.required(seat, "category")?)?;
        let category = self.categories.number(&here, category)?;
        let here = at.field("position");
        let point = self.position(&here, at.required(seat, "position")?)?;
        self.add_seats(at, 1)?;
        self.drawn.guids.push(guid);
        self.points.push(point);
        match self.runs.last_mut() {
            Some((seats, last)) if *last == category => *seats += 1,
            _ => self.runs.push((1, category)),
        }
        Ok(())
    }

    /// The end of a row: `row` has its fields but the seats.
    pub(super) fn end_row(
        &mut self,
        at: &At<'_>,
        number: usize,
        row: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError> {
        self.count_ignored(row, ROW_FIELDS);
        let name = label(&at.field("row_number"), at.required(row, "row_number")?)?;
        let seats_at = at.field("seats");
        if !listed {
            return Err(seats_at.refuse("is missing"));
        }
        let origin = match row.get("position") {
            Some(position) => self.position(&at.field("position"), position)?,
            None => (0.0, 0.0),
        };
        let runs = std::mem::take(&mut self.runs);
        let seats: usize = runs.iter().map(|(seats, _)| seats).sum();
        if seats == 0 {
            return Ok(());
        }
        if seats > ROW_SEATS_MAX as usize {
            return Err(seats_at.refuse(format!("must not have more than {ROW_SEATS_MAX}")));
        }
        let first = self.points.len() - seats;
        self.drawn.row_starts.push(first as u32);
        shift(&mut self.points[first..], origin);
        self.row_names.push(named(&name, "Row", number));
        self.row_numbers.push(number);
        let runs = runs.into_iter().map(|(seats, tier)| (seats as u16, tier)).collect();
        self.rows.push(RowSpec { runs, distance: 0 });
        Ok(())
    }

    /// The end of a zone: `zone` has its fields but the rows.
    pub(super) fn end_zone(
        &mut self,
        at: &At<'_>,
        number: usize,
        zone: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError> {
        self.count_ignored(zone, ZONE_FIELDS);
        let origin = self.position(&at.field("position"), at.required(zone, "position")?)?;
        let name = match zone.get("name") {
            Some(name) => at.field("name").text(name)?,
            None => "",
        };
        let areas = self.areas(&at.field("areas"), zone, origin)?;
        let general = zone.get("general_admission");
        if !listed && areas == 0 && general.is_none() {
            return Err(at.field("rows").refuse("is missing"));
        }
        let first_row = self.row_places.len();
        let rows = std::mem::take(&mut self.rows);
        let kind = match general {
            Some(_) if !rows.is_empty() => {
                return Err(at.field("rows").refuse("a general-admission zone has no seats"));
            }
            Some(general) => {
                let (places, tier) = self.general(&at.field("general_admission"), general)?;
                self.specs.push(SectionSpec::General { places, tier });
                Kind::General { places }
            }
            None if rows.is_empty() => {
                if self.stage.is_none() && focal::names_stage(name) {
                    self.stage = Some(origin);
                }
                return Ok(());
            }
            None => {
                let first_seat = self.drawn.row_starts[first_row] as usize;
                shift(&mut self.points[first_seat..], origin);
                self.end_rows(number);
                self.specs.push(SectionSpec::Rows(rows));
                Kind::Drawn
            }
        };
        let rows = first_row as u32..self.row_places.len() as u32;
        self.zones.push(Zone { name: named(name, "Zone", number), rows, kind });
        Ok(())
    }

    /// Names the rows of the zone that ends, and keeps where they are.
    fn end_rows(&mut self, zone: usize) {
        self.row_places.extend(self.row_numbers.drain(..).map(|row| (zone, row)));
        for name in told_apart(&std::mem::take(&mut self.row_names), |_, _| false) {
            self.drawn.row_names.push(&name);
        }
    }
    /// Reads decoration only as far as it may be the stage; gives how many areas there are.
    fn areas(&mut self, at: &At<'_>, zone: &Object<'_>, origin: Point) -> Result<usize, PlanError> {
        let Some(areas) = zone.get("areas") else { return Ok(0) };
        let areas = at.list(areas)?;
        for area in areas {
            let Json::Object(area) = area else { continue };
            self.count_ignored(area, AREA_FIELDS);
            if self.stage.is_none() && focal::names_stage(focal::area_text(area)) {
                let (x, y) = focal::area_centre(area);
                self.stage = Some((origin.0 + x, origin.1 + y));
            }
        }
        Ok(areas.len())
    }

    fn general(&mut self, at: &At<'_>, json: &Json<'_>) -> Result<(u32, TierIndex), PlanError> {
        let general = at.object(json)?;
        self.count_ignored(general, GENERAL_FIELDS);
        let here = at.field("capacity");
        let places = here.count(at.required(general, "capacity")?, SEATS_MAX)?;
        self.add_seats(&here, places)?;
        let here = at.field("category");
        let category = here.text(at.required(general, "category")?)?;
        Ok((places, self.categories.number(&here, category)?))
    }

    fn position(&mut self, at: &At<'_>, json: &Json<'_>) -> Result<Point, PlanError> {
        let position = at.object(json)?;
        self.count_ignored(position, &["x", "y"]);
        let number = |axis| at.field(axis).number(at.required(position, axis)?);
        Ok((number("x")?, number("y")?))
    }

    /// The end of the document: `document` has its fields but the zones.
    pub(super) fn finish(mut self, document: &Object<'_>) -> Result<Plan, PlanError> {
        let root = At::ROOT;
        self.count_ignored(document, PLAN_FIELDS);
        root.field("name").text(root.required(document, "name")?)?;
        let mut tiers = self.tiers(&root.field("categories"), document)?;
        let at = root.field("zones");
        if !self.zones_listed {
            return Err(at.refuse("is missing"));
        }
        if self.seats == 0 {
            return Err(at.refuse("the plan has no seat"));
        }
        if self.zones.len() > SECTIONS_MAX {
            return Err(at.refuse(format!("more than {SECTIONS_MAX} zones have seats")));
        }
        self.drawn.row_starts.push(self.drawn.guids.len() as u32);
        self.drawn.by_guid = match Index::build(&self.drawn.guids) {
            Ok(index) => index,
            Err(seat) => {
                let guid = self.drawn.guids.get(seat);
                let reason = format!("another seat is called {guid:?}");
                return Err(self.refuse_seat(seat, "seat_guid", &reason));
            }
        };
        self.drawn.guids.shrink();
        self.set_points()?;
        let tier_of = std::mem::take(&mut self.categories).resolve(&mut tiers)?;
        let names = self.section_names();
        let mut spec = LayoutSpec { sections: std::mem::take(&mut self.specs) };
        set_tiers(&mut spec, &tier_of);
        self.set_distances(&mut spec);
        let sections: Vec<SectionEntry> = (self.zones.into_iter().zip(names))
            .map(|(zone, name)| SectionEntry { name, rows: zone.rows, kind: zone.kind })
            .collect();
        let numbered = sections.iter().enumerate();
        Ok(Plan {
            tiers: tiers.into_names(),
            by_name: numbered.map(|(i, s)| (s.name.clone(), SectionIndex(i as u16))).collect(),
            sections,
            drawn: self.drawn,
            spec,
            ignored_fields: self.ignored,
        })
    }

    fn tiers(&mut self, at: &At<'_>, document: &Object<'_>) -> Result<Tiers, PlanError> {
        let mut tiers = Tiers::default();
        let categories = at.list(At::ROOT.required(document, "categories")?)?;
        for (index, category) in categories.iter().enumerate() {
            let at = at.item(index);
            let category = at.object(category)?;
            self.count_ignored(category, CATEGORY_FIELDS);
            let here = at.field("name");
            tiers.define(&here, here.text(at.required(category, "name")?)?)?;
        }
        Ok(tiers)
    }

    /// Keeps the points in half of their memory.
    fn set_points(&mut self) -> Result<(), PlanError> {
        // A zero is added so that no coordinate is the negative zero, which JSON would show.
        self.drawn.x = self.points.iter().map(|point| (point.0 + 0.0) as f32).collect();
        self.drawn.y = self.points.iter().map(|point| (point.1 + 0.0) as f32).collect();
        let far = |x: &f32| !x.is_finite();
        let (x, y) = (self.drawn.x.iter().position(far), self.drawn.y.iter().position(far));
        match x.into_iter().chain(y).min() {
            None => Ok(()),
            Some(seat) => Err(self.refuse_seat(seat as u32, "position", FINITE)),
        }
    }

    fn set_distances(&self, spec: &mut LayoutSpec) {
        let mut all = Bounds::default();
        let row = |seats: &[u32]| {
            let mut bounds = Bounds::default();
            for point in &self.points[seats[0] as usize..seats[1] as usize] {
                bounds.add(*point);
                all.add(*point);
            }
            bounds.middle().unwrap_or((0.0, 0.0))
        };
        let middles: Vec<Point> = self.drawn.row_starts.windows(2).map(row).collect();
        let focal = self.stage.or(all.top_centre()).unwrap_or((0.0, 0.0));
        focal::set_distances(spec, &middles, focal);
    }

    /// The refusal of a field of a seat, by the seat's number.
    fn refuse_seat(&self, seat: u32, field: &str, reason: &str) -> PlanError {
        let row = self.drawn.row_starts.partition_point(|start| *start <= seat) - 1;
        let (zone, number) = self.row_places[row];
        let (root, place) = (At::ROOT, (seat - self.drawn.row_starts[row]) as usize);
        let zones = root.field("zones");
        let zone = zones.item(zone);
        let rows = zone.field("rows");
        let row = rows.item(number);
        let seats = row.field("seats");
        let seat = seats.item(place);
        seat.field(field).refuse(reason)
    }

    /// A place of general admission is called `Floor-7`. If a seat is called like that, the
    /// section gets another name.
    fn section_names(&self) -> Vec<Box<str>> {
        let general = |index: usize| matches!(self.zones[index].kind, Kind::General { .. });
        let mut fronts = HashSet::new();
        if (0..self.zones.len()).any(general) {
            let guids = (0..self.drawn.guids.len() as u32).map(|seat| self.drawn.guids.get(seat));
            let split = guids.filter_map(|guid| guid.rsplit_once('-'));
            fronts.extend(split.filter(|(_, n)| canonical(n).is_some()).map(|(front, _)| front));
        }
        let names: Vec<_> = self.zones.iter().map(|zone| zone.name.clone()).collect();
        let apart = told_apart(&names, |index, name| general(index) && fronts.contains(name));
        apart.into_iter().map(|name| name.into_owned().into_boxed_str()).collect()
    }
}

/// Gives the seats the tiers of their categories. Two categories may be one tier.
fn set_tiers(spec: &mut LayoutSpec, tier_of: &[TierIndex]) {
    let tier = |category: TierIndex| tier_of[usize::from(category.0)];
    for section in &mut spec.sections {
        match section {
            SectionSpec::General { tier: of, .. } | SectionSpec::Uniform { tier: of, .. } => {
                *of = tier(*of);
            }
            SectionSpec::Rows(rows) => {
                for runs in rows.iter_mut().map(|row| &mut row.runs) {
                    runs.iter_mut().for_each(|(_, of)| *of = tier(*of));
                    runs.dedup_by(|next, run| {
                        let same = next.1 == run.1;
                        run.0 += if same { next.0 } else { 0 };
                        same
                    });
                }
            }
        }
    }
}

fn shift(points: &mut [Point], by: Point) {
    for point in points {
        *point = (point.0 + by.0, point.1 + by.1);
    }
}

/// A text, or a number where files have one instead.
fn label<'j>(at: &At<'_>, json: &'j Json<'_>) -> Result<Cow<'j, str>, PlanError> {
    match json {
        Json::Number(number) => Ok(Cow::Owned(number.to_string())),
        _ => at.text(json).map(Cow::Borrowed),
    }
}

/// The name, or for one that is blank what it is and its place, from 1.
fn named(name: &str, what: &str, number: usize) -> Cow<'static, str> {
    if name.trim().is_empty() {
        return Cow::Owned(format!("{what} {}", number + 1));
    }
    Cow::Owned(name.to_owned())
}
