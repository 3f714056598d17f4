//! What a stranger may send: whatever it is, reading it never panics, and never asks for more
//! memory than a constant times what was sent.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde::de::DeserializeOwned;
use tmomi_engine::ids::{BuyerId, TimeMs};

use super::organiser::{blocks, events, shows, terms, venues};
use super::{accounts, batch, catalog, holds, line_settings};
use crate::accounts::tokens::{ACCESS_AUDIENCE, AccessClaims, Keyring};
use crate::extract::{self, Nothing, Page};
use crate::streams::sse::Resume;
use crate::strict::parse_json;
use crate::text;

/// Bytes in use at a time, for each byte of input.
const BYTES_PER_BYTE: u64 = 64;
/// What even an empty input may take: a message, a key.
const BYTES_ALWAYS: u64 = 4 << 10;
const NOW: TimeMs = TimeMs(1_700_000_000_000);
const ISSUER: &str = "tmomi";

/// Bodies that some call takes, and queries, ids, tokens' parts: to be changed and mixed.
const SOUND: [&str; 14] = [
    r#"{"seats":["A-1-1","A-1-2"],"ttl_ms":60000}"#,
    r#"{"best_available":{"count":2,"section":"A","tier":"R","adjacent":true}}"#,
    r#"{"ttl_ms":60000}"#,
    r#"{"payment_ref":"pay-1"}"#,
    r#"{"email":"a@example.org","password":"correct horse"}"#,
    r#"{"refresh_token":"r"}"#,
    r#"{"seats":["A-1-1"],"reason":"camera"}"#,
    r#"{"name":"Hall","plan":{"generate":{"sections":[{"name":"A","tier":"R","rows":3}]}}}"#,
    r#"{"title":"Show","venue_id":1,"description":null}"#,
    r#"{"show_id":1,"venue_id":1,"starts_at":"2026-12-24T19:00:00Z","prices":{"R":5000},
        "currency":"EUR","limit":4,"line":{"mode":"fifo","max_active":9,"rate_per_s":5}}"#,
    r#"{"mode":"paused","max_active":9,"rate_per_s":5,"session_ms":60000,"grace_ms":1000}"#,
    r#"{"idempotency_key":"k","buyer":7,"seats":["A-1-1"],"ttl_ms":100}"#,
    "after=17&limit=50&min_seq=3-99&section=A&q=x%20y&from=5&types=held,sold",
    "3-99",
];

/// Reads `input`, which must not take more memory than it may.
fn bounded<T>(input: &[u8], read: impl FnOnce() -> T) {
    let taken = allocation_counter::measure(|| drop(read()));
    let most = BYTES_ALWAYS + BYTES_PER_BYTE * input.len() as u64;
    assert!(taken.bytes_max <= most, "{} bytes took {taken:?}", input.len());
}

fn body<T: DeserializeOwned>(input: &[u8]) {
    bounded(input, || parse_json::<T>(input));
}

/// As the body of every call that has one.
fn every_body(input: &[u8]) {
    body::<holds::HoldInput>(input);
    body::<holds::ExtendInput>(input);
    body::<holds::ConfirmInput>(input);
    body::<accounts::Credentials>(input);
    body::<accounts::RefreshBody>(input);
    body::<blocks::BlockInput>(input);
    body::<venues::VenueInput>(input);
    body::<venues::VenueChange>(input);
    body::<shows::ShowInput>(input);
    body::<shows::ShowChange>(input);
    body::<terms::ShowtimeInput>(input);
    body::<terms::ShowtimeChange>(input);
    body::<line_settings::LineInput>(input);
    body::<Nothing>(input);
    bounded(input, || batch::lines(input).count());
    let path = "/v1/showtimes/1/holds:batch";
    bounded(input, || batch::read(input, path, BuyerId(1), NOW));
}

fn query<T: DeserializeOwned>(text: &str) {
    if let Ok(uri) = Uri::try_from(format!("/v1/x?{text}")) {
        bounded(text.as_bytes(), || extract::query::<T>(&uri));
    }
}

/// As every other text that a client may send.
fn every_text(text: &str) {
    query::<catalog::ShowsQuery>(text);
    query::<catalog::SeatsQuery>(text);
    query::<events::EventsQuery>(text);
    query::<Page>(text);
    let bytes = text.as_bytes();
    bounded(bytes, || text::parse_seq(text));
    bounded(bytes, || text::parse_hold(text));
    bounded(bytes, || text::parse_order(text));
    bounded(bytes, || text::parse_ticket(text));
    bounded(bytes, || text.parse::<text::When>());
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), value)]);
        bounded(bytes, || Resume::of(&headers));
    }
}

fn keyring() -> Keyring {
    Keyring::new("k", &[7; 32], std::iter::empty())
}

fn token() -> String {
    let now_s = NOW.0 / 1_000;
    keyring().sign_access(&AccessClaims {
        iss: ISSUER.to_owned(),
        aud: ACCESS_AUDIENCE.to_owned(),
        sub: "7".to_owned(),
        role: "buyer".to_owned(),
        sid: 3,
        iat: now_s,
        nbf: now_s,
        exp: now_s + 900,
        jti: "a".to_owned(),
    })
}

/// A sound text with some of its bytes changed, doubled or missing, and pieces of others in it.
fn near(sound: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    let at = any::<prop::sample::Index>;
    let piece = prop::sample::select(SOUND.map(str::to_owned).to_vec());
    let cut = (at(), at(), at(), any::<u8>(), piece, 0_u8..5);
    let cuts = prop::collection::vec(cut, 0..4);
    (prop::sample::select(sound), cuts).prop_map(|(sound, cuts)| {
        let mut bytes = sound.into_bytes();
        for (at, end, from, byte, piece, how) in cuts {
            let at = at.index(bytes.len() + 1);
            let end = at + end.index(bytes.len() - at + 1);
            match how {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.insert(at, byte),
                2 => drop(bytes.splice(at..end, [byte])),
                3 => drop(bytes.splice(at..at, piece.bytes().skip(from.index(piece.len())))),
                _ => bytes.extend_from_within(at..end),
            }
        }
        bytes
    })
}

/// What holds the bound must be sound itself, or nothing but refusals is tried.
#[test]
fn what_is_sound_is_read() {
    assert!(parse_json::<holds::HoldInput>(SOUND[0].as_bytes()).is_ok());
    assert!(parse_json::<holds::HoldInput>(SOUND[1].as_bytes()).is_ok());
    let line = batch::read(SOUND[11].as_bytes(), "/", BuyerId(1), NOW);
    assert!(line.is_ok());
    assert!(text::parse_seq(SOUND[13]).is_some());
    assert!(keyring().verify_access(&token(), ISSUER, NOW).is_ok());
    SOUND.iter().for_each(|sound| {
        every_body(sound.as_bytes());
        every_text(sound);
    });
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_body_panics_or_takes_more_than_it_is(
        near in near(SOUND.map(str::to_owned).to_vec()),
        any in prop::collection::vec(any::<u8>(), 0..500),
        deep in 0_usize..5_000,
    ) {
        every_body(&near);
        every_body(&any);
        every_body("[".repeat(deep).as_bytes());
        every_body("{\"seats\":".repeat(deep).as_bytes());
    }

    #[test]
    fn no_text_panics_or_takes_more_than_it_is(
        near in near(SOUND.map(str::to_owned).to_vec()),
        any in ".{0,200}",
        number in "[ho t]?-?[0-9a-f]{0,20}(-[0-9a-f]{0,20}){0,3}",
    ) {
        every_text(&String::from_utf8_lossy(&near));
        every_text(&any);
        every_text(&number);
    }

    /// Only the token that was signed is good, whatever is changed in it.
    #[test]
    fn no_other_token_is_good(near in near(vec![token()]), any in "[A-Za-z0-9_.-]{0,400}") {
        let ring = keyring();
        for text in [&*String::from_utf8_lossy(&near), &any] {
            let mut good = false;
            bounded(text.as_bytes(), || good = ring.verify_access(text, ISSUER, NOW).is_ok());
            prop_assert!(!good || text == token());
        }
    }
}
