//! The showtimes on sale, in memory: what the catalog says of them beside the engine's house.
//!
//! A [`Hall`] never changes; a change of the catalog puts a new one in its place. Whoever works
//! with one keeps it until the end of the request, so a request sees one set of prices.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tmomi_engine::House;
use tmomi_engine::ids::{Part, SeatAddr, SectionIndex, ShowtimeId, TierIndex, TimeMs};
use tmomi_engine::layout::Layout;
use tmomi_persist::catalog::{NewShowtime, PlanId, ShowId, Showtime};
use tmomi_persist::plan::Plan;

use crate::problem::{self, Code, Problem};
use crate::seats::RenderedSeats;

/// How far the sale of a showtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SaleState {
    /// It has not opened.
    Scheduled,
    /// Seats can be held.
    Open,
    /// It has closed, and the showtime has not started.
    Closed,
    /// It has closed, and the showtime has started.
    Ended,
}

impl SaleState {
    /// The name in the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SaleState::Scheduled => "scheduled",
            SaleState::Open => "open",
            SaleState::Closed => "closed",
            SaleState::Ended => "ended",
        }
    }
}

/// One showtime.
pub(crate) struct Hall {
    id: ShowtimeId,
    show_id: ShowId,
    plan_id: PlanId,
    plan: Arc<Plan>,
    house: Arc<House>,
    terms: NewShowtime,
    /// By tier.
    prices: Vec<u64>,
    rendered: Arc<RenderedSeats>,
}

impl Hall {
    /// The showtime `row` with its plan and its house. Gives the name of a tier without a price,
    /// which the catalog never has.
    pub(crate) fn new(row: Showtime, plan: Arc<Plan>, house: Arc<House>) -> Result<Hall, String> {
        let known = &row.terms.prices;
        let price = |tier: &str| known.get(tier).copied().ok_or_else(|| tier.to_owned());
        let prices = plan.tiers().iter().map(|tier| price(tier)).collect::<Result<_, _>>()?;
        Ok(Hall {
            id: row.showtime_id,
            show_id: row.show_id,
            plan_id: row.plan_id,
            plan,
            house,
            terms: row.terms,
            prices,
            rendered: Arc::default(),
        })
    }

    /// The same showtime with other terms; what stands in the log, and the window, is for the
    /// caller to change.
    pub(crate) fn with_terms(&self, row: Showtime) -> Result<Hall, String> {
        let mut hall = Hall::new(row, Arc::clone(&self.plan), Arc::clone(&self.house))?;
        hall.rendered = Arc::clone(&self.rendered);
        Ok(hall)
    }

    /// Its number.
    pub(crate) fn id(&self) -> ShowtimeId {
        self.id
    }

    /// Its show.
    pub(crate) fn show_id(&self) -> ShowId {
        self.show_id
    }

    /// Names and geometry.
    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What the engine decides about.
    pub(crate) fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Blocks and rows.
    pub(crate) fn layout(&self) -> &Arc<Layout> {
        self.house.layout()
    }

    /// What the catalog says.
    pub(crate) fn terms(&self) -> &NewShowtime {
        &self.terms
    }

    /// The currency of its prices.
    pub(crate) fn currency(&self) -> &str {
        &self.terms.currency
    }

    /// The last rendering of its map.
    pub(crate) fn rendered(&self) -> &RenderedSeats {
        &self.rendered
    }

    /// When the sale closes: when the catalog says, or else never.
    pub(crate) fn closes_at(&self) -> TimeMs {
        closes_at(&self.terms)
    }

    /// How far the sale is at `now`.
    pub(crate) fn sale_state(&self, now: TimeMs) -> SaleState {
        if now < self.terms.opens_at {
            SaleState::Scheduled
        } else if now < self.closes_at() {
            SaleState::Open
        } else if now < self.terms.starts_at {
            SaleState::Closed
        } else {
            SaleState::Ended
        }
    }

    /// The price of a tier. Panics if the plan has no such tier.
    pub(crate) fn price(&self, tier: TierIndex) -> u64 {
        self.prices[usize::from(tier.0)]
    }

    /// The name of a tier. Panics if the plan has no such tier.
    pub(crate) fn tier_name(&self, tier: TierIndex) -> &str {
        &self.plan.tiers()[usize::from(tier.0)]
    }

    /// The tier of a seat. Panics if the layout has no such seat.
    pub(crate) fn tier_of(&self, seat: SeatAddr) -> TierIndex {
        self.layout().block(seat.block()).tier
    }

    /// The name of a seat. Panics if the layout has no such seat.
    pub(crate) fn seat_id(&self, seat: SeatAddr) -> String {
        self.plan.seat_id(self.layout(), seat)
    }

    /// The names of the seats of `parts`.
    pub(crate) fn seat_ids(&self, parts: &[Part]) -> Vec<String> {
        parts.iter().flat_map(|part| part.seats()).map(|seat| self.seat_id(seat)).collect()
    }

    /// The tiers of a section's seats, in the plan's order whatever they cost: rendered maps name
    /// a tier by its place here.
    pub(crate) fn section_tiers(&self, section: SectionIndex) -> &[TierIndex] {
        &self.layout().sections()[usize::from(section.0)].tiers
    }

    /// The seats called `ids`, which [`check_seats`] has let pass, as the engine takes them:
    /// ascending blocks, each once.
    ///
    /// # Errors
    ///
    /// 400 `unknown-seat`, with a pointer to the seat in the member `seats`.
    pub(crate) fn parts(&self, ids: &[impl AsRef<str>]) -> problem::Result<Vec<Part>> {
        let mut parts = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            let seat = self.plan.seat(self.layout(), id.as_ref()).ok_or_else(|| {
                let detail = "the house has no seat of this name";
                Problem::new(Code::UnknownSeat, detail).at(format!("/seats/{index}"))
            })?;
            parts.push(Part { block: seat.block(), mask: 1 << seat.bit() });
        }
        parts.sort_unstable_by_key(|part| part.block);
        parts.dedup_by(|next, part| {
            let same = next.block == part.block;
            part.mask |= if same { next.mask } else { 0 };
            same
        });
        Ok(parts)
    }

    /// Seats can be held when the catalog says so.
    pub(crate) fn open_window(&self) {
        self.house.set_window(self.terms.opens_at, self.closes_at());
    }

    /// No seat can be held, until the window is opened again or another hall takes its place.
    pub(crate) fn shut_window(&self) {
        self.house.set_window(TimeMs(0), TimeMs(0));
    }
}

/// Checks what can be said of a list of seats without the house.
///
/// # Errors
///
/// 400 `empty-seats` or `duplicate-seat`, or `bad-request` for more than `seats_max`; with a
/// pointer to the seat in the member `seats`.
pub(crate) fn check_seats(ids: &[impl AsRef<str>], seats_max: usize) -> problem::Result<()> {
    if ids.is_empty() {
        return Err(Problem::new(Code::EmptySeats, "name at least one seat").at("/seats"));
    }
    if ids.len() > seats_max {
        let detail = format!("at most {seats_max} seats at a time");
        return Err(Problem::bad_field("/seats", detail));
    }
    if ids.len() == 1 {
        return Ok(());
    }
    let mut sorted: Vec<(&str, usize)> = ids.iter().map(AsRef::as_ref).zip(0..).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let pointer = format!("/seats/{}", pair[1].1);
            Err(Problem::new(Code::DuplicateSeat, "a seat is named twice").at(pointer))
        }
        None => Ok(()),
    }
}

/// When a sale closes. One that the catalog gives no end goes on: seats are sold at the door, too.
pub(crate) fn closes_at(terms: &NewShowtime) -> TimeMs {
    terms.closes_at.unwrap_or(TimeMs(u64::MAX))
}

/// All showtimes that are not deleted.
#[derive(Default)]
pub(crate) struct Halls {
    by_id: RwLock<HashMap<ShowtimeId, Arc<Hall>>>,
}

impl Halls {
    /// A showtime.
    ///
    /// # Errors
    ///
    /// 404.
    pub(crate) fn get(&self, id: ShowtimeId) -> problem::Result<Arc<Hall>> {
        let hall = self.by_id.read().get(&id).cloned();
        hall.ok_or_else(|| Problem::not_found("showtime"))
    }

    /// A showtime, or nothing.
    pub(crate) fn find(&self, id: ShowtimeId) -> Option<Arc<Hall>> {
        self.by_id.read().get(&id).cloned()
    }

    /// A new showtime, or other terms of one.
    pub(crate) fn put(&self, hall: Hall) -> Arc<Hall> {
        let hall = Arc::new(hall);
        self.by_id.write().insert(hall.id, Arc::clone(&hall));
        hall
    }

    /// A showtime that was deleted.
    pub(crate) fn remove(&self, id: ShowtimeId) {
        self.by_id.write().remove(&id);
    }

    /// All of them, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Hall>> {
        let mut all: Vec<_> = self.by_id.read().values().cloned().collect();
        all.sort_unstable_by_key(|hall| hall.id);
        all
    }

    /// A plan that some showtime has, so that it is read once.
    pub(crate) fn plan(&self, id: PlanId) -> Option<Arc<Plan>> {
        let halls = self.by_id.read();
        let mut halls = halls.values();
        halls.find(|hall| hall.plan_id == id).map(|hall| Arc::clone(&hall.plan))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tmomi_engine::event::LineSettings;
    use tmomi_engine::{Engine, EngineConfig, OpenShowtime};

    /// A hall of two sections and a general-admission floor, on sale from 100 to 200.
    pub(crate) fn hall() -> Hall {
        let plan = serde_json::json!({"generate": {"sections": [
            {"name": "A", "tier": "gold", "rows": 2, "seats_per_row": 3},
            {"name": "B", "tier": "silver", "rows": 1, "seats_per_row": 70},
            {"name": "Floor", "tier": "floor", "places": 5},
        ]}});
        let plan = Plan::from_value(&plan).expect("a plan");
        let layout = Arc::new(Layout::build(plan.spec()).expect("a layout"));
        let (engine, _keeper) = Engine::new(EngineConfig::default());
        let open = OpenShowtime {
            showtime: ShowtimeId(1),
            layout,
            blob: Box::default(),
            limit: 4,
            hold_ttl_ms: 1_000,
            line: LineSettings::default(),
            opens_at: TimeMs(0),
            closes_at: TimeMs(1),
        };
        let mut handle = engine.handle().expect("a handle");
        let (house, _) = handle.open(TimeMs(1), open).expect("opened");
        let prices = [("gold", 300), ("silver", 200), ("floor", 100)];
        let row = Showtime {
            showtime_id: ShowtimeId(1),
            show_id: ShowId(1),
            plan_id: PlanId(1),
            terms: NewShowtime {
                starts_at: TimeMs(300),
                currency: "EUR".to_owned(),
                prices: prices.map(|(tier, price)| (tier.to_owned(), price)).into(),
                opens_at: TimeMs(100),
                closes_at: Some(TimeMs(200)),
                limit: 4,
                hold_ttl_ms: 1_000,
                line: LineSettings::default(),
            },
        };
        Hall::new(row, Arc::new(plan), house).expect("every tier has a price")
    }

    #[test]
    fn seats_become_ascending_parts() {
        let hall = hall();
        let ids = ["B-1-66", "A-1-3", "A-1-1", "B-1-65"].map(str::to_owned);
        let parts = hall.parts(&ids).expect("seats");
        assert!(parts.windows(2).all(|pair| pair[0].block < pair[1].block));
        assert_eq!(hall.seat_ids(&parts), ["A-1-1", "A-1-3", "B-1-65", "B-1-66"]);
        assert_eq!(hall.price(hall.tier_of(parts[0].seats().next().expect("one"))), 300);
    }

    #[test]
    fn a_bad_list_of_seats_is_refused_with_the_place() {
        let hall = hall();
        let refused = |ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let problem = check_seats(&ids, 3).and_then(|()| hall.parts(&ids).map(drop));
            let problem = problem.expect_err("a bad list");
            let body = serde_json::to_value(problem.body()).expect("text and numbers");
            format!("{} {}", body["code"].as_str().expect("a code"), body["pointer"])
        };
        assert_eq!(refused(&[]), "empty-seats \"/seats\"");
        assert_eq!(refused(&["A-1-1", "A-1-4"]), "unknown-seat \"/seats/1\"");
        assert_eq!(refused(&["A-1-01"]), "unknown-seat \"/seats/0\"");
        assert_eq!(refused(&["A-1-99999999999999999999"]), "unknown-seat \"/seats/0\"");
        assert_eq!(refused(&["A-1-1", "A-1-2", "A-1-1"]), "duplicate-seat \"/seats/2\"");
        assert_eq!(refused(&["A-1-1"; 4]), "bad-request \"/seats\"");
    }

    #[test]
    fn the_sale_has_four_states() {
        let hall = hall();
        let states = [99, 100, 199, 200, 299, 300].map(|ms| hall.sale_state(TimeMs(ms)).name());
        assert_eq!(states, ["scheduled", "open", "open", "closed", "closed", "ended"]);
    }
}
