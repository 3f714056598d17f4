//! `/openapi.json`: the calls as the code has them.

use std::sync::OnceLock;

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::api;
use crate::problem::Code;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tmomi",
        description = "Sells seats: a waiting line, a live seat map, holds and orders. Errors are \
            RFC 9457 problems with a `code`. Every POST that changes something honours \
            `Idempotency-Key` for 24 hours. Times are RFC 3339, money is an integer in the \
            currency's minor unit.",
    ),
    paths(
        api::accounts::signup,
        api::accounts::signin,
        api::accounts::refresh,
        api::accounts::signout,
        api::accounts::me,
        api::accounts::jwks,
        api::catalog::shows,
        api::catalog::show,
        api::catalog::showtime,
        api::catalog::seats,
        api::line::join,
        api::line::get,
        api::line::leave,
        crate::streams::line::stream,
        crate::streams::seats::stream,
        api::holds::hold,
        api::holds::get,
        api::holds::extend,
        api::holds::release,
        api::holds::confirm,
        api::batch::holds,
        api::orders::list,
        api::orders::get,
        api::orders::refund,
        api::orders::tickets,
        api::orders::ticket,
        api::organiser::venues::create,
        api::organiser::venues::list,
        api::organiser::venues::one,
        api::organiser::venues::change,
        api::organiser::venues::delete,
        api::organiser::venues::put_plan,
        api::organiser::shows::create,
        api::organiser::shows::list,
        api::organiser::shows::one,
        api::organiser::shows::change,
        api::organiser::shows::delete,
        api::organiser::showtimes::create,
        api::organiser::showtimes::list,
        api::organiser::showtimes::one,
        api::organiser::showtimes::change,
        api::organiser::showtimes::delete,
        api::organiser::showtimes::put_line,
        api::organiser::showtimes::stats,
        api::organiser::blocks::block,
        api::organiser::blocks::unblock,
        api::organiser::events::events,
        api::operating::healthz,
        api::operating::readyz,
        api::operating::metrics,
    )
)]
struct Description;

/// Ids that are opaque texts; all others are numbers of the catalog.
const TEXT_IDS: [&str; 3] = ["hold_id", "order_id", "ticket_id"];
/// Calls that need no token.
const PUBLIC: [&str; 8] = [
    "/v1/auth/signup",
    "/v1/auth/signin",
    "/v1/auth/refresh",
    "/v1/shows",
    "/v1/shows/{show_id}",
    "/v1/showtimes/{showtime_id}",
    "/v1/showtimes/{showtime_id}/seats",
    "/v1/showtimes/{showtime_id}/stream",
];

/// The description, made once.
pub(crate) fn description() -> &'static Value {
    static DESCRIPTION: OnceLock<Value> = OnceLock::new();
    DESCRIPTION.get_or_init(|| {
        let mut api = serde_json::to_value(Description::openapi()).expect("it is JSON");
        api["components"]["securitySchemes"] = json!({
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "cookie": {"type": "apiKey", "in": "cookie", "name": crate::accounts::ACCESS_COOKIE},
        });
        let paths = api["paths"].as_object_mut().expect("there are calls");
        for (path, calls) in paths {
            let calls = calls.as_object_mut().expect("by method");
            calls.values_mut().for_each(|call| complete(path, call));
        }
        let codes = Code::ALL.iter().map(|code| {
            json!({"code": code.name(), "status": code.status().as_u16(), "title": code.title()})
        });
        api["x-problem-codes"] = codes.collect();
        api
    })
}

/// Says of a call what is the same for all: the parameters in its path, whether it needs a token,
/// and what a refusal looks like.
fn complete(path: &str, call: &mut Value) {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let declared = names.map(|name| {
        let kind = if TEXT_IDS.contains(&name) { "string" } else { "integer" };
        json!({"name": name, "in": "path", "required": true, "schema": {"type": kind}})
    });
    let mut parameters: Vec<Value> = declared.collect();
    if let Some(known) = call["parameters"].as_array() {
        parameters.extend(known.iter().cloned());
    }
    call["parameters"] = parameters.into();
    if path.starts_with("/v1/") && !PUBLIC.contains(&path) {
        call["security"] = json!([{"bearer": []}, {"cookie": []}]);
    }
    let content =
        json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let responses = call["responses"].as_object_mut().expect("a call has answers");
    for (_, refusal) in responses.iter_mut().filter(|(status, _)| status.as_str() >= "400") {
        refusal["content"] = content.clone();
    }
    let any = json!({"description": "Every refusal is a problem.", "content": content});
    responses.insert("default".into(), any);
}

/// The call.
pub(crate) async fn openapi() -> Response {
    static BODY: OnceLock<Bytes> = OnceLock::new();
    let body = BODY.get_or_init(|| description().to_string().into());
    let mut response = body.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_answer_that_is_described_has_its_schema() {
        let text = description().to_string();
        let schemas = description()["components"]["schemas"].as_object().expect("schemas");
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "{name}");
        }
        assert!(schemas.contains_key("Problem"));
    }

    #[test]
    fn every_refusal_is_described_as_a_problem() {
        for calls in description()["paths"].as_object().expect("paths").values() {
            for call in calls.as_object().expect("by method").values() {
                let responses = call["responses"].as_object().expect("by status");
                let refusals = responses.iter().filter(|(status, _)| status.as_str() >= "400");
                for (status, refusal) in refusals {
                    let kinds = refusal["content"].as_object().expect("by media type");
                    assert!(kinds.keys().eq(["application/problem+json"]), "{status}: {call}");
                }
                assert!(responses.contains_key("default"));
            }
        }
        // What is left out while somebody waits may be left out.
        let required = &description()["components"]["schemas"]["PlaceBody"]["required"];
        assert_eq!(required, &json!(["number", "state", "ahead"]));
    }

    #[test]
    fn every_variable_of_a_path_is_declared_once() {
        for (path, calls) in description()["paths"].as_object().expect("paths") {
            for call in calls.as_object().expect("by method").values() {
                let parameters = call["parameters"].as_array().expect("a list");
                let declared = parameters.iter().filter(|parameter| parameter["in"] == "path");
                let declared: Vec<_> = declared.filter_map(|p| p["name"].as_str()).collect();
                let variables = path.split(['{', '}']).skip(1).step_by(2);
                assert_eq!(declared, variables.collect::<Vec<_>>(), "{path}");
            }
        }
    }

    #[test]
    fn every_route_is_described_and_every_described_path_is_a_route() {
        let code = include_str!("api/mod.rs");
        let routes = code.split(".route(").skip(1).filter_map(|rest| rest.split('"').nth(1));
        let pages = ["/", "/docs", "/openapi.json"];
        let routes: BTreeSet<&str> = routes.filter(|route| !pages.contains(route)).collect();
        let paths = description()["paths"].as_object().expect("paths");
        let paths: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        assert_eq!(paths, routes);
    }
}
