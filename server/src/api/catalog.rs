//! The public catalog: what is on sale, and the map of seats.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tmomi_engine::ids::{SectionIndex, TierIndex};
use tmomi_persist::catalog::{ShowCard, ShowId};
use utoipa::{IntoParams, ToSchema};

use crate::api::calls;
use crate::api::line_settings::mode_name;
use crate::app::{App, AppState};
use crate::extract::{Ids, MinSeq, Page, Query, Reached};
use crate::halls::Hall;
use crate::problem::{Problem, Result};
use crate::seats::{self, Rendered, Snapshot};
use crate::text::{When, parse_seq, seq_text};

/// A seat map of more seats is rendered on a thread of its own.
const SEATS_INLINE_MAX: u32 = 20_000;

/// Characters of a part of a name at most: as many as a name has.
const PART_CHARS_MAX: usize = 200;

/// `GET /v1/shows`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowsQuery {
    /// Part of a word of the show's or the venue's name.
    q: Option<String>,
    /// How many, 1 to 1000; 100 unless said.
    limit: Option<u64>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A page of shows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShowsBody {
    shows: Vec<ShowItem>,
    next: Option<String>,
}

/// A show in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShowItem {
    show_id: u64,
    name: String,
    venue: String,
    /// When the first showtime starts, null without one.
    starts_on: Option<When>,
    /// When the last showtime starts.
    ends_on: Option<When>,
    image_url: Option<String>,
    /// How many showtimes.
    showtimes: u32,
}

/// A show.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShowBody {
    show_id: u64,
    name: String,
    venue: String,
    venue_id: u64,
    description: Option<String>,
    starts_on: Option<When>,
    ends_on: Option<When>,
    image_url: Option<String>,
    showtimes: Vec<ShowtimeItem>,
}

/// A showtime of a show.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShowtimeItem {
    showtime_id: u32,
    starts_at: When,
    sale: SaleBody,
    free: u32,
    capacity: u32,
}

/// When seats are sold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SaleBody {
    /// `scheduled`, `open`, `closed` or `ended`.
    #[schema(value_type = String)]
    state: &'static str,
    opens_at: When,
    closes_at: Option<When>,
}

/// A showtime.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShowtimeBody {
    showtime_id: u32,
    show_id: u64,
    starts_at: When,
    sale: SaleBody,
    sections: Vec<SectionBody>,
    line: LineBody,
    seq: String,
}

/// A section and what it costs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SectionBody {
    name: String,
    /// The tier with the lowest price.
    tier: String,
    price: u64,
    /// All tiers, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    tiers: Option<Vec<TierBody>>,
    currency: String,
    capacity: u32,
    free: u32,
    general_admission: bool,
}

/// A tier and what it costs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TierBody {
    tier: String,
    price: u64,
}

/// How a showtime lets buyers in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineBody {
    /// `open`, `fifo` or `paused`.
    #[schema(value_type = String)]
    mode: &'static str,
}

/// `GET seats`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeatsQuery {
    /// Only the section of this name.
    section: Option<String>,
}

#[utoipa::path(get, path = "/v1/shows", tag = "catalog",
    params(ShowsQuery, MinSeq),
    responses((status = 200, body = ShowsBody)))]
pub(crate) async fn shows(
    State(app): State<AppState>,
    query: Query<ShowsQuery>,
    _: Reached,
) -> Result<Json<ShowsBody>> {
    let ShowsQuery { q, limit, after } = query.0;
    if q.as_ref().is_some_and(|part| part.chars().count() > PART_CHARS_MAX) {
        return Err(Problem::bad_request(format!("q may have {PART_CHARS_MAX} characters")));
    }
    let piece = calls::page(&Page { limit, after })?;
    let part = q.as_deref().filter(|part| !part.is_empty());
    let found = app.catalog.shows(part, piece).await.map_err(calls::refused)?;
    let next = found.next.map(|next| next.to_string());
    Ok(Json(ShowsBody { shows: found.items.into_iter().map(item).collect(), next }))
}

fn item(card: ShowCard) -> ShowItem {
    ShowItem {
        show_id: card.show_id.0,
        name: card.name,
        venue: card.venue,
        starts_on: card.starts_on.map(When),
        ends_on: card.ends_on.map(When),
        image_url: card.image_url,
        showtimes: card.showtimes,
    }
}

#[utoipa::path(get, path = "/v1/shows/{show_id}", tag = "catalog", params(MinSeq),
    responses((status = 200, body = ShowBody)))]
pub(crate) async fn show(
    State(app): State<AppState>,
    ids: Ids,
    _: Reached,
) -> Result<Json<ShowBody>> {
    let id = ShowId(ids.number("show")?);
    let show = app.catalog.show(id).await.map_err(calls::refused)?;
    let venue = app.catalog.venue(show.venue_id).await.map_err(calls::refused)?;
    let showtimes = app.catalog.showtimes_of(id).await.map_err(calls::refused)?;
    let starts = || showtimes.iter().map(|showtime| showtime.terms.starts_at);
    let (starts_on, ends_on) = (starts().min().map(When), starts().max().map(When));
    // One that is being opened just now is not there yet.
    let halls = showtimes.iter().filter_map(|showtime| app.halls.get(showtime.showtime_id).ok());
    Ok(Json(ShowBody {
        show_id: show.show_id.0,
        name: show.name,
        venue: venue.name,
        venue_id: show.venue_id.0,
        description: show.description,
        starts_on,
        ends_on,
        image_url: show.image_url,
        showtimes: halls.map(|hall| showtime_item(&app, &hall)).collect(),
    }))
}

fn showtime_item(app: &App, hall: &Hall) -> ShowtimeItem {
    let image = app.shard.image().read();
    let free = image.showtime(hall.id()).map_or(0, |showtime| showtime.counts().free);
    ShowtimeItem {
        showtime_id: hall.id().0,
        starts_at: When(hall.terms().starts_at),
        sale: sale_body(app, hall),
        free,
        capacity: hall.layout().capacity(),
    }
}

fn sale_body(app: &App, hall: &Hall) -> SaleBody {
    let terms = &hall.terms();
    SaleBody {
        state: hall.sale_state(app.now()).name(),
        opens_at: When(terms.opens_at),
        closes_at: terms.closes_at.map(When),
    }
}

#[utoipa::path(get, path = "/v1/showtimes/{showtime_id}", tag = "catalog", params(MinSeq),
    responses((status = 200, body = ShowtimeBody)))]
pub(crate) async fn showtime(
    State(app): State<AppState>,
    ids: Ids,
    _: Reached,
) -> Result<Json<ShowtimeBody>> {
    let hall = app.halls.get(ids.showtime()?)?;
    let image = app.shard.image().read();
    let seq = image.applied();
    let frees: Vec<u32> = image
        .showtime(hall.id())
        .map(|showtime| showtime.sections().iter().map(|counts| counts.free).collect())
        .unwrap_or_default();
    drop(image);
    let sections = hall.plan().sections().enumerate().map(|(n, section)| {
        let built = &hall.layout().sections()[n];
        let tiers = hall.section_tiers(SectionIndex(n as u16));
        let tier = |tier: &TierIndex| TierBody {
            tier: hall.tier_name(*tier).to_owned(),
            price: hall.price(*tier),
        };
        let tiers: Vec<TierBody> = tiers.iter().map(tier).collect();
        let lowest = tiers.iter().min_by_key(|tier| tier.price).expect("a section has a tier");
        SectionBody {
            name: section.name().to_owned(),
            tier: lowest.tier.clone(),
            price: lowest.price,
            currency: hall.currency().to_owned(),
            capacity: built.capacity,
            free: frees.get(n).copied().unwrap_or(0),
            general_admission: built.general,
            tiers: (tiers.len() > 1).then_some(tiers),
        }
    });
    Ok(Json(ShowtimeBody {
        showtime_id: hall.id().0,
        show_id: hall.show_id().0,
        starts_at: When(hall.terms().starts_at),
        sale: sale_body(&app, &hall),
        sections: sections.collect(),
        line: LineBody { mode: mode_name(hall.house().line_settings().mode) },
        seq: app.seq_text(seq),
    }))
}

#[utoipa::path(get, path = "/v1/showtimes/{showtime_id}/seats", tag = "catalog",
    params(SeatsQuery, MinSeq), responses((status = 200, body = serde_json::Value,
        content_type = "application/json"), (status = 304)))]
pub(crate) async fn seats(
    State(app): State<AppState>,
    ids: Ids,
    headers: HeaderMap,
    query: Query<SeatsQuery>,
    Reached(at_least): Reached,
) -> Result<Response> {
    let hall = app.halls.get(ids.showtime()?)?;
    let section =
        query.0.section.as_deref().map(|name| {
            hall.plan().section_named(name).ok_or_else(|| Problem::not_found("section"))
        });
    let section: Option<SectionIndex> = section.transpose()?;
    let fresh = (CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(etag) = unchanged(&app, &hall, &headers) {
        return Ok((StatusCode::NOT_MODIFIED, [fresh, (ETAG, etag)]).into_response());
    }
    let rendered = match section {
        None => {
            let none = || Problem::not_found("showtime");
            let changed = app.shard.image().read().showtime(hall.id()).map(|s| s.seats_seq());
            let needed = changed.ok_or_else(none)?.max(at_least);
            hall.rendered().at(needed, render(&app, &hall, None)).await?
        }
        Some(_) => Arc::new(render(&app, &hall, section).await?),
    };
    let etag = HeaderValue::try_from(format!("\"{}\"", rendered.tag)).expect("digits");
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json), fresh, (ETAG, etag)], rendered.body.clone()).into_response())
}

/// Renders the map as it is now.
async fn render(app: &App, hall: &Arc<Hall>, section: Option<SectionIndex>) -> Result<Rendered> {
    let none = || Problem::not_found("showtime");
    let snapshot = Snapshot::take(&app.shard.image().read(), hall.id()).ok_or_else(none)?;
    if hall.layout().capacity() <= SEATS_INLINE_MAX {
        return Ok(seats::render(hall, &snapshot, section));
    }
    let hall = Arc::clone(hall);
    let render = move || seats::render(&hall, &snapshot, section);
    tokio::task::spawn_blocking(render).await.map_err(Problem::internal)
}

/// The entity tag that the client has, if the map has not changed since.
fn unchanged(app: &App, hall: &Hall, headers: &HeaderMap) -> Option<HeaderValue> {
    let tags = headers.get(IF_NONE_MATCH)?.to_str().ok()?;
    let image = app.shard.image().read();
    let changed = image.showtime(hall.id())?.seats_seq();
    let current = |tag: &&str| {
        let text = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        parse_seq(text).is_some_and(|(epoch, seq)| {
            epoch.is_none_or(|epoch| epoch <= image.epoch())
                && changed <= seq
                && seq <= image.applied()
        })
    };
    let tag = match tags.trim() {
        // Any map will do for whoever asks so.
        "*" => format!("\"{}\"", seq_text(image.epoch(), image.applied())),
        tags => tags.split(',').map(str::trim).find(current)?.to_owned(),
    };
    HeaderValue::try_from(tag).ok()
}
