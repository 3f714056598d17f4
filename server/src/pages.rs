//! The two pages a browser can open. Both stand on their own: no script, font or picture of
//! another host. The real pages are another piece of work.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use tmomi_persist::catalog::{Page, ShowCard, ShowId};

use crate::api::calls;
use crate::app::{App, AppState};
use crate::halls::Hall;
use crate::problem::Result;
use crate::text::When;

/// A page may talk to this server and to nobody else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Shows `/openapi.json`.
const DOCS: &str = include_str!("docs.html");

/// The page at `/docs`.
pub(crate) async fn docs() -> Response {
    page(DOCS.to_owned())
}

/// An HTML page with the headers that every page has.
fn page(html: String) -> Response {
    let mut response = html.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Shows on the first page.
const SHOWS_MAX: u32 = 100;

/// A show as the first page lists it.
struct Listed {
    show: ShowCard,
    showtimes: Vec<Arc<Hall>>,
}

/// The page at `/`: what is on sale.
pub(crate) async fn home(State(app): State<AppState>) -> Result<Response> {
    let page = Page { after: 0, limit: SHOWS_MAX };
    let shows = app.catalog.shows(None, page).await.map_err(calls::refused)?;
    let mut halls: HashMap<ShowId, Vec<Arc<Hall>>> = HashMap::new();
    for hall in app.halls.all() {
        halls.entry(hall.show_id()).or_default().push(hall);
    }
    let listed = shows
        .items
        .into_iter()
        .map(|show| Listed { showtimes: halls.remove(&show.show_id).unwrap_or_default(), show });
    Ok(render(&app, &listed.collect::<Vec<_>>()))
}

fn render(app: &App, shows: &[Listed]) -> Response {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Tmomi</title><style>body{font:16px/1.5 \
         system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color-scheme:light \
         dark}table{border-collapse:collapse;width:100%}td{padding:.2rem .6rem .2rem 0}</style>\
         <h1>On sale</h1>",
    );
    if shows.is_empty() {
        html.push_str("<p>Nothing yet.</p>");
    }
    for Listed { show, showtimes } in shows {
        let (id, name, venue) = (show.show_id, escape(&show.name), escape(&show.venue));
        html.push_str(&format!(
            "<h2><a href=\"/v1/shows/{id}\">{name}</a></h2><p>{venue}</p><table>"
        ));
        for hall in showtimes {
            let (id, starts_at) = (hall.id(), When(hall.terms().starts_at));
            let state = hall.sale_state(app.now()).name();
            let image = app.shard.image().read();
            let free = image.showtime(id).map_or(0, |showtime| showtime.counts().free);
            drop(image);
            let capacity = hall.layout().capacity();
            html.push_str(&format!(
                "<tr><td><a href=\"/v1/showtimes/{id}\">{starts_at}</a><td>{state}<td>{free} of \
                 {capacity} free<td><a href=\"/v1/showtimes/{id}/seats\">seats</a> <a \
                 href=\"/v1/showtimes/{id}/stream\">live</a>"
            ));
        }
        html.push_str("</table>");
    }
    html.push_str(
        "<p><a href=\"/docs\">The interface</a>, <a href=\"/v1/shows\">all shows</a></p>",
    );
    page(html)
}

/// Text for HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text() {
        assert_eq!(escape("<b>\"'&"), "&lt;b&gt;&quot;&#39;&amp;");
    }

    #[test]
    fn the_pages_ask_no_other_host() {
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!DOCS.contains(outside), "{outside}");
        }
    }
}
