//! Putting showtimes on sale: from a row of the catalog to a house of the engine, at the start, on
//! creation, and again if a crash or a full disk came between the two.
//!
//! The catalog says what is offered, the log what is sold. A row without a house is opened again
//! until it has one; a house whose terms are not the row's gets the row's.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tmomi_engine::ids::ShowtimeId;
use tmomi_engine::layout::Layout;
use tmomi_engine::{House, OpenShowtime, Reject};
use tmomi_persist::catalog::{CatalogError, NewShowtime, Page, PlanId, Showtime};
use tmomi_persist::layout_codec;
use tmomi_persist::plan::Plan;

use crate::api::calls;
use crate::app::App;
use crate::halls::{Hall, closes_at};
use crate::problem::{Code, Problem, Result};

/// Plans that were read lately: whoever uploads one makes a showtime of it next.
const RECENT_PLANS_MAX: usize = 4;
/// Rows of a page when all of them are read.
const PAGE_ROWS: u32 = 500;
/// Tries to open while another showtime is being opened.
const OPEN_TRIES: usize = 100;

/// What openings share.
#[derive(Default)]
pub(crate) struct Opening {
    /// Showtimes are opened and changed one at a time, so that rows and events change in the
    /// same order.
    turn: tokio::sync::Mutex<()>,
    recent: Mutex<VecDeque<(PlanId, Arc<Plan>)>>,
    /// Some row may have no house, or not its terms.
    incomplete: AtomicBool,
}

/// The right to open or to change a showtime.
pub(crate) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Opening {
    /// Waits for the right to open or to change a showtime.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.turn.lock().await
    }

    /// Whether some row may have no house, or not its terms.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }

    /// Some row may have no house, or not its terms: it is looked at again soon.
    pub(crate) fn set_incomplete(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Remembers a plan that was just read.
    pub(crate) fn remember(&self, id: PlanId, plan: Arc<Plan>) {
        let mut recent = self.recent.lock();
        recent.retain(|(known, _)| *known != id);
        recent.push_front((id, plan));
        recent.truncate(RECENT_PLANS_MAX);
    }

    fn recent(&self, id: PlanId) -> Option<Arc<Plan>> {
        let recent = self.recent.lock();
        recent.iter().find(|(known, _)| *known == id).map(|(_, plan)| Arc::clone(plan))
    }
}

/// A plan of the catalog.
///
/// # Errors
///
/// 503 if the catalog does not answer, 500 if the plan cannot be read any more.
pub(crate) async fn plan(app: &App, id: PlanId) -> Result<Arc<Plan>> {
    if let Some(plan) = app.halls.plan(id).or_else(|| app.opening.recent(id)) {
        return Ok(plan);
    }
    let stored = app.catalog.plan(id).await.map_err(calls::refused)?;
    let reading = tokio::task::spawn_blocking(move || Plan::from_json(&stored.body));
    let plan = reading.await.map_err(Problem::internal)?;
    let plan = Arc::new(plan.map_err(|error| Problem::internal(format!("plan {id}: {error}")))?);
    app.opening.remember(id, Arc::clone(&plan));
    Ok(plan)
}

/// The layout of a plan as the log will have it.
///
/// # Errors
///
/// 400 `bad-plan` if the log does not take it: a decision that is too large would end the log.
pub(crate) async fn layout_blob(app: &App, plan: &Arc<Plan>) -> Result<Vec<u8>> {
    let plan = Arc::clone(plan);
    let encoding = tokio::task::spawn_blocking(move || layout_codec::encode(&plan.spec()));
    let blob = encoding.await.map_err(Problem::internal)?;
    let fits = app.shard.check_layout(blob.len());
    fits.map_err(|error| Problem::new(Code::BadPlan, error.to_string()))?;
    Ok(blob)
}

/// Makes sure that a row of the catalog is on sale, with its terms.
///
/// # Errors
///
/// 503 if the log does not take it now; it will be tried again.
pub(crate) async fn ensure_open(app: &App, row: Showtime, turn: &Turn<'_>) -> Result<Arc<Hall>> {
    let opened = match app.halls.find(row.showtime_id) {
        Some(hall) => renew(app, &hall, row, turn).await,
        None => open_row(app, row).await,
    };
    if opened.is_err() {
        app.opening.set_incomplete();
    }
    opened
}

/// Makes what is on sale what the catalog says: opened, with other terms, or gone.
///
/// # Errors
///
/// 503 if the catalog or the log does not answer now; it will be tried again.
pub(crate) async fn reconcile(app: &App, id: ShowtimeId, turn: &Turn<'_>) -> Result<()> {
    match app.catalog.showtime(id).await {
        Ok(row) => ensure_open(app, row, turn).await.map(drop),
        Err(CatalogError::NotFound(_)) => {
            app.halls.remove(id);
            Ok(())
        }
        Err(error) => {
            app.opening.set_incomplete();
            Err(calls::refused(error))
        }
    }
}

/// Puts the terms of `row` in the place of a hall's. Nobody holds a seat for a price of before
/// once the window is open again.
async fn renew(app: &App, before: &Hall, row: Showtime, turn: &Turn<'_>) -> Result<Arc<Hall>> {
    let (old, new) = (before.terms(), &row.terms);
    if (&old.prices, &old.currency) != (&new.prices, &new.currency) {
        before.shut_window();
    }
    let hall = app.halls.put(before.with_terms(row).map_err(Problem::internal)?);
    app.decisions_settled(turn)?;
    hall.open_window();
    set_terms(app, hall.house(), hall.terms()).await?;
    Ok(hall)
}

async fn open_row(app: &App, row: Showtime) -> Result<Arc<Hall>> {
    let plan = plan(app, row.plan_id).await?;
    let house = match app.shard.engine().house(row.showtime_id) {
        Some(house) => {
            // It may have been opened by a call that nobody waited for.
            app.settled().await?;
            house
        }
        None => open_house(app, row.showtime_id, &plan, &row.terms).await?,
    };
    set_terms(app, &house, &row.terms).await?;
    let id = row.showtime_id;
    if house.layout().capacity() != plan.report().seats {
        return Err(Problem::internal(format!("showtime {id} has not the seats of its plan")));
    }
    let hall = Hall::new(row, plan, house)
        .map_err(|tier| Problem::internal(format!("showtime {id} has no price for {tier}")))?;
    hall.open_window();
    Ok(app.halls.put(hall))
}

async fn open_house(
    app: &App,
    showtime: ShowtimeId,
    plan: &Arc<Plan>,
    terms: &NewShowtime,
) -> Result<Arc<House>> {
    let blob = layout_blob(app, plan).await?;
    let building = Arc::clone(plan);
    let built = tokio::task::spawn_blocking(move || Layout::build(building.spec()));
    let layout = Arc::new(built.await.map_err(Problem::internal)?.map_err(Problem::internal)?);
    for _ in 0..OPEN_TRIES {
        let open = OpenShowtime {
            showtime,
            layout: Arc::clone(&layout),
            blob: blob.clone().into(),
            limit: terms.limit,
            hold_ttl_ms: terms.hold_ttl_ms,
            line: terms.line,
            opens_at: terms.opens_at,
            closes_at: closes_at(terms),
        };
        match app.decide(|handle| handle.open(app.now(), open))? {
            Ok((house, seq)) => {
                app.committed(seq).await?;
                return Ok(house);
            }
            Err(Reject::Contended | Reject::RingFull) => tokio::task::yield_now().await,
            Err(reject) => return Err(Problem::internal(format!("cannot open: {reject:?}"))),
        }
    }
    Err(Problem::overloaded("the log does not keep up"))
}

/// Makes the house's terms those of the catalog, if they are not.
///
/// # Errors
///
/// 503 if the log does not take it now.
pub(crate) async fn set_terms(app: &App, house: &House, terms: &NewShowtime) -> Result<()> {
    app.settled().await?;
    let (limit, hold_ttl_ms, line) = {
        let image = app.shard.image().read();
        let showtime = image.showtime(house.showtime());
        let showtime = showtime.ok_or_else(|| Problem::internal("a house is not in the image"))?;
        (showtime.limit(), showtime.hold_ttl_ms(), *showtime.settings())
    };
    let now = app.now();
    if (limit, hold_ttl_ms) != (terms.limit, terms.hold_ttl_ms) {
        let set = |handle: &mut tmomi_engine::Handle| {
            handle.set_terms(house, now, terms.limit, terms.hold_ttl_ms)
        };
        app.committed(app.decide(set)?.map_err(not_set)?).await?;
    }
    if line != terms.line {
        let set = app.decide(|handle| handle.set_line(house, now, terms.line))?;
        app.committed(set.map_err(not_set)?).await?;
    }
    Ok(())
}

fn not_set(reject: Reject) -> Problem {
    match reject {
        Reject::Contended | Reject::RingFull => Problem::overloaded("the log does not keep up"),
        reject => Problem::internal(format!("terms were refused: {reject:?}")),
    }
}

/// Puts every row of the catalog on sale, and takes off what is no row any more. Gives how many
/// there are on sale. One that cannot be opened does not keep the others; it is tried again.
///
/// # Errors
///
/// 503 if the catalog does not answer; it will be tried again.
pub(crate) async fn open_all(app: &App) -> Result<usize> {
    app.opening.incomplete.store(false, Ordering::Relaxed);
    let mut ids: BTreeSet<ShowtimeId> = app.halls.all().iter().map(|hall| hall.id()).collect();
    let mut page = Page { after: 0, limit: PAGE_ROWS };
    loop {
        let rows = app.catalog.showtimes(page).await.map_err(|error| {
            app.opening.set_incomplete();
            calls::refused(error)
        })?;
        ids.extend(rows.items.iter().map(|row| row.showtime_id));
        match rows.next {
            Some(after) => page.after = after,
            None => break,
        }
    }
    for id in ids {
        // What the row says is read when nobody else changes it.
        let turn = app.opening.turn().await;
        if let Err(problem) = reconcile(app, id, &turn).await {
            tracing::warn!(showtime = id.0, detail = problem.detail(), "not on sale yet");
        }
    }
    Ok(app.halls.all().len())
}

/// Opens what could not be opened before. Called once in a while.
pub(crate) async fn complete(app: &App) {
    if app.opening.is_incomplete()
        && let Err(problem) = open_all(app).await
    {
        tracing::warn!(detail = problem.detail(), "showtimes are not on sale yet");
    }
}
