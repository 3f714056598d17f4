//! Where a house looks at, and how far each row is from it.

use tmomi_engine::layout::{LayoutSpec, SectionSpec};

use super::json::{Json, Object};

/// A point in plan coordinates.
pub(super) type Point = (f64, f64);

/// What a stage is called. A zone or an area whose text has one of these is where the house
/// looks at.
const STAGE_WORDS: [&str; 12] = [
    "stage",
    "bühne",
    "무대",
    "scène",
    "scene",
    "escenario",
    "palco",
    "podium",
    "舞台",
    "ステージ",
    "screen",
    "스크린",
];

/// The farthest row of a plan has this distance, whatever unit the plan is drawn in.
const DISTANCE_MAX: f64 = 1_000_000.0;

/// Whether a text names a stage.
pub(super) fn names_stage(text: &str) -> bool {
    let text = text.to_lowercase();
    STAGE_WORDS.iter().any(|word| text.contains(word))
}

/// The text of an area: a plain one, or the `text` of an object.
pub(super) fn area_text<'j>(area: &'j Object<'_>) -> &'j str {
    match area.get("text") {
        Some(Json::Text(text)) => text,
        Some(Json::Object(text)) => match text.get("text") {
            Some(Json::Text(text)) => text,
            _ => "",
        },
        _ => "",
    }
}

/// The centre of an area relative to its zone. Decoration is read kindly: what is missing or no
/// number counts as 0.
pub(super) fn area_centre(area: &Object<'_>) -> Point {
    let (x, y) = object(area, "position").map_or((0.0, 0.0), |p| (number(p, "x"), number(p, "y")));
    let (dx, dy) = match area.get("shape") {
        Some(Json::Text(shape)) if shape == "rectangle" => {
            object(area, "rectangle").map_or((0.0, 0.0), half_size)
        }
        Some(Json::Text(shape)) if shape == "polygon" => {
            object(area, "polygon").map_or((0.0, 0.0), polygon_middle)
        }
        // Circles, ellipses and texts are drawn around their position.
        Some(_) => (0.0, 0.0),
        None => half_size(area),
    };
    (x + dx, y + dy)
}

fn object<'j, 'a>(of: &'j Object<'a>, field: &str) -> Option<&'j Object<'a>> {
    match of.get(field) {
        Some(Json::Object(object)) => Some(object),
        _ => None,
    }
}

fn number(of: &Object<'_>, field: &str) -> f64 {
    match of.get(field) {
        Some(Json::Number(number)) if number.is_finite() => *number,
        _ => 0.0,
    }
}

fn half_size(of: &Object<'_>) -> Point {
    (number(of, "width") / 2.0, number(of, "height") / 2.0)
}

fn polygon_middle(of: &Object<'_>) -> Point {
    let Some(Json::List(points)) = of.get("points") else { return (0.0, 0.0) };
    let mut bounds = Bounds::default();
    for point in points {
        if let Json::Object(point) = point {
            bounds.add((number(point, "x"), number(point, "y")));
        }
    }
    bounds.middle().unwrap_or((0.0, 0.0))
}

/// The smallest rectangle around some points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    low: Point,
    high: Point,
}

impl Default for Bounds {
    fn default() -> Self {
        let far = f64::INFINITY;
        Bounds { low: (far, far), high: (-far, -far) }
    }
}

impl Bounds {
    pub(super) fn add(&mut self, (x, y): Point) {
        self.low = (self.low.0.min(x), self.low.1.min(y));
        self.high = (self.high.0.max(x), self.high.1.max(y));
    }

    /// The middle, unless there is no point.
    pub(super) fn middle(&self) -> Option<Point> {
        let middle = ((self.low.0 + self.high.0) / 2.0, (self.low.1 + self.high.1) / 2.0);
        (self.low.0 <= self.high.0).then_some(middle)
    }

    /// The middle of the upper edge, where a stage is usually drawn.
    pub(super) fn top_centre(&self) -> Option<Point> {
        Some((self.middle()?.0, self.low.1))
    }
}

/// Gives every drawn row its distance from `focal`, in parts of the farthest row's. `middles`
/// has the middle of every row in plan order.
pub(super) fn set_distances(spec: &mut LayoutSpec, middles: &[Point], focal: Point) {
    // A root is rounded alike on every machine, `hypot` is not; and the number of a block, which
    // is in the log, depends on the order of the distances.
    let away = |middle: &Point| {
        let (x, y) = (middle.0 - focal.0, middle.1 - focal.1);
        (x * x + y * y).sqrt()
    };
    let farthest = middles.iter().map(away).fold(0.0, f64::max);
    if farthest == 0.0 {
        return;
    }
    let mut distances = middles.iter().map(|m| (away(m) / farthest * DISTANCE_MAX).round() as u32);
    for section in &mut spec.sections {
        if let SectionSpec::Rows(rows) = section {
            for (row, distance) in rows.iter_mut().zip(&mut distances) {
                row.distance = distance;
            }
        }
    }
}
