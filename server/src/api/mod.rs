//! The calls, one file a noun. A new call is a handler, a line in [`router`] and its name in
//! `openapi.rs`.

pub(crate) mod accounts;
pub(crate) mod batch;
pub(crate) mod calls;
pub(crate) mod catalog;
#[cfg(test)]
mod decoding;
pub(crate) mod hold_body;
pub(crate) mod holds;
pub(crate) mod line;
pub(crate) mod line_settings;
pub(crate) mod operating;
pub(crate) mod orders;
pub(crate) mod organiser;

use axum::Router;
use axum::http::HeaderName;
use axum::routing::{get, post, put};
use tmomi_engine::ids::Seq;

use self::organiser::{blocks, events, shows, showtimes, venues};
use crate::app::{App, AppState};
use crate::config::Settings;
use crate::problem::{Code, Problem};
use crate::{openapi, pages, streams};

/// Every route of the main listener.
pub(crate) fn router(app: AppState) -> Router {
    let public_metrics = serves_metrics(&app.settings);
    let metrics = Router::new().route("/metrics", get(operating::metrics));
    Router::new()
        .route("/", get(pages::home))
        .route("/docs", get(pages::docs))
        .route("/openapi.json", get(openapi::openapi))
        .merge(health_routes())
        .merge(if public_metrics { metrics } else { Router::new() })
        .merge(account_routes())
        .merge(catalog_routes())
        .merge(sale_routes())
        .merge(line_routes())
        .merge(organiser_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app)
}

/// Every route of the listener for whoever runs the server.
pub(crate) fn inside_router(app: AppState) -> Router {
    Router::new()
        .route("/metrics", get(operating::metrics))
        .merge(health_routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app)
}

fn health_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(operating::healthz))
        .route("/readyz", get(operating::readyz))
}

fn account_routes() -> Router<AppState> {
    Router::new()
        .route("/v1/auth/signup", post(accounts::signup))
        .route("/v1/auth/signin", post(accounts::signin))
        .route("/v1/auth/refresh", post(accounts::refresh))
        .route("/v1/auth/signout", post(accounts::signout))
        .route("/v1/me", get(accounts::me))
        .route("/.well-known/jwks.json", get(accounts::jwks))
}

fn catalog_routes() -> Router<AppState> {
    Router::new()
        .route("/v1/shows", get(catalog::shows))
        .route("/v1/shows/{show_id}", get(catalog::show))
        .route("/v1/showtimes/{showtime_id}", get(catalog::showtime))
        .route("/v1/showtimes/{showtime_id}/seats", get(catalog::seats))
}

fn sale_routes() -> Router<AppState> {
    let hold = get(holds::get).patch(holds::extend).delete(holds::release);
    Router::new()
        .route("/v1/showtimes/{showtime_id}/holds", post(holds::hold))
        .route("/v1/showtimes/{showtime_id}/holds:batch", post(batch::holds))
        .route("/v1/holds/{hold_id}", hold)
        .route("/v1/holds/{hold_id}/confirm", post(holds::confirm))
        .route("/v1/orders", get(orders::list))
        .route("/v1/orders/{order_id}", get(orders::get))
        .route("/v1/orders/{order_id}/refund", post(orders::refund))
        .route("/v1/tickets", get(orders::tickets))
        .route("/v1/tickets/{ticket_id}", get(orders::ticket))
}

fn line_routes() -> Router<AppState> {
    Router::new()
        .route("/v1/showtimes/{showtime_id}/line", post(line::join))
        .route("/v1/showtimes/{showtime_id}/line/me", get(line::get).delete(line::leave))
        .route("/v1/showtimes/{showtime_id}/line/stream", get(streams::line::stream))
        .route("/v1/showtimes/{showtime_id}/stream", get(streams::seats::stream))
}

fn organiser_routes() -> Router<AppState> {
    let venue = get(venues::one).patch(venues::change).delete(venues::delete);
    let show = get(shows::one).patch(shows::change).delete(shows::delete);
    let seats_off_sale = post(blocks::block).delete(blocks::unblock);
    let showtime = get(showtimes::one).patch(showtimes::change).delete(showtimes::delete);
    Router::new()
        .route("/v1/admin/venues", get(venues::list).post(venues::create))
        .route("/v1/admin/venues/{venue_id}", venue)
        .route("/v1/admin/venues/{venue_id}/plan", put(venues::put_plan))
        .route("/v1/admin/shows", get(shows::list).post(shows::create))
        .route("/v1/admin/shows/{show_id}", show)
        .route("/v1/admin/showtimes", get(showtimes::list).post(showtimes::create))
        .route("/v1/admin/showtimes/{showtime_id}", showtime)
        .route("/v1/admin/showtimes/{showtime_id}/line", put(showtimes::put_line))
        .route("/v1/admin/showtimes/{showtime_id}/blocks", seats_off_sale)
        .route("/v1/admin/showtimes/{showtime_id}/stats", get(showtimes::stats))
        .route("/v1/admin/showtimes/{showtime_id}/events", get(events::events))
}

/// Whether the main listener has the metrics: if somebody asked for it, or if nobody but this
/// machine can reach it, and there is no other place for them.
fn serves_metrics(settings: &Settings) -> bool {
    let private = settings.listen.ip().is_loopback() && settings.trusted_proxies.0.is_empty();
    settings.metrics_public.is_on() || (private && settings.metrics_listen.0.is_none())
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is nothing at this path; /docs lists the calls")
}

/// axum adds `Allow`.
async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "the header Allow lists the methods")
}

/// The header with a `seq` for answers that have no body.
pub(crate) fn seq_header(app: &App, seq: Seq) -> [(HeaderName, String); 1] {
    [(HeaderName::from_static("tmomi-seq"), app.seq_text(seq))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Switch};

    #[test]
    fn metrics_are_public_only_if_asked_for() {
        let serves = |listen: &str, metrics: Option<&str>, proxy: Option<&str>, public| {
            let layer = Layer {
                listen: Some(listen.parse().expect("an address")),
                metrics_listen: metrics.map(|address| address.parse().expect("an address")),
                trusted_proxies: proxy.map(|proxy| proxy.parse().expect("an address")),
                metrics_public: Some(if public { Switch::On } else { Switch::Off }),
                ..Layer::default()
            };
            serves_metrics(&Settings::from(layer))
        };
        let (here, everywhere) = ("127.0.0.1:80", "0.0.0.0:80");
        assert!(serves(here, None, None, false));
        assert!(serves("[::1]:80", None, None, false));
        assert!(!serves(here, Some("127.0.0.1:81"), None, false));
        assert!(!serves(here, None, Some("127.0.0.1"), false), "a proxy opens it to others");
        assert!(!serves(everywhere, None, None, false));
        assert!(serves(everywhere, None, None, true));
    }
}
