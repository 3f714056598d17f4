//! Server-sent events as text, and the answer that carries them.

use std::convert::Infallible;
use std::fmt::Write;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::Stream;
use serde::Serialize;
use tmomi_engine::ids::{Epoch, Seq};

use crate::outlet::Endless;
use crate::text::parse_seq;

/// How long a client waits before it comes back, in ms: at least this and less than twice this,
/// so that those who lost their connection at one moment do not all come back at one.
const RETRY_MS: u32 = 2_000;
/// A line that says nothing but "still here".
pub(crate) const COMMENT: Bytes = Bytes::from_static(b": still here\n\n");
/// Where a client says which event it saw last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies of the nginx kind pass on every byte at once if they see it.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Where a client that opens a stream has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// It says nothing: it is here for the first time.
    Fresh,
    /// It has seen everything up to this event.
    After(Epoch, Seq),
    /// It says something that is not one of our ids.
    NotUnderstood,
}

impl Resume {
    /// Reads the header. An empty one is none, as the standard has it.
    pub(crate) fn of(headers: &HeaderMap) -> Resume {
        let Some(value) = headers.get(LAST_EVENT_ID) else { return Resume::Fresh };
        match value.to_str().map(str::trim) {
            Ok("") => Resume::Fresh,
            Ok(text) => match parse_seq(text) {
                Some((Some(epoch), seq)) => Resume::After(epoch, seq),
                _ => Resume::NotUnderstood,
            },
            Err(_) => Resume::NotUnderstood,
        }
    }
}

/// Writes the beginning of every stream: when to come back after it broke.
pub(crate) fn push_retry(out: &mut String) {
    // Without a random number all come back at once, which is worse but not wrong.
    let jitter_ms = getrandom::u32().unwrap_or(0) % RETRY_MS;
    let retry_ms = RETRY_MS + jitter_ms;
    write!(out, "retry: {retry_ms}\n\n").expect("a String takes every write");
}

/// Writes an event up to its data, which follows on one line and ends with [`push_end`].
pub(crate) fn push_head(out: &mut String, name: &str, id: &str) {
    write!(out, "event: {name}\nid: {id}\ndata: ").expect("a String takes every write");
}

/// Writes what ends an event.
pub(crate) fn push_end(out: &mut String) {
    out.push_str("\n\n");
}

/// Writes a whole event. JSON has no line breaks of its own, so its data is one line.
pub(crate) fn push_event(out: &mut String, name: &str, id: &str, data: &impl Serialize) {
    push_head(out, name, id);
    out.push_str(&serde_json::to_string(data).expect("texts and numbers"));
    push_end(out);
}

/// The answer whose body is `chunks`, until they end.
pub(crate) fn response(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(chunks.map(Ok::<_, Infallible>)));
    response.extensions_mut().insert(Endless);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resume(text: &'static str) -> Resume {
        Resume::of(&HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(text))]))
    }

    #[test]
    fn only_our_ids_are_understood() {
        assert_eq!(Resume::of(&HeaderMap::new()), Resume::Fresh);
        assert_eq!(resume(""), Resume::Fresh);
        assert_eq!(resume("3-99"), Resume::After(Epoch(3), Seq(99)));
        for text in ["x", "3", "-", "3-", "-3", "3-9-9", "3-99999999999999999999999", "3-9-"] {
            assert_eq!(resume(text), Resume::NotUnderstood, "{text}");
        }
    }

    #[test]
    fn an_event_has_its_name_its_id_and_one_line_of_data() {
        let mut out = String::new();
        push_event(&mut out, "hello", "1-2", &serde_json::json!({ "seq": "a\nb" }));
        assert_eq!(out, "event: hello\nid: 1-2\ndata: {\"seq\":\"a\\nb\"}\n\n");
    }

    #[test]
    fn clients_come_back_at_different_times() {
        let retry = || {
            let mut out = String::new();
            push_retry(&mut out);
            let text = out.strip_prefix("retry: ").and_then(|out| out.strip_suffix("\n\n"));
            text.and_then(|text| text.parse::<u32>().ok()).expect("a number")
        };
        let all: std::collections::BTreeSet<u32> = (0..20).map(|_| retry()).collect();
        assert!(all.len() > 1 && all.iter().all(|ms| (RETRY_MS..2 * RETRY_MS).contains(ms)));
    }
}
