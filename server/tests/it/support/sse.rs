//! A reader of event streams, as the WHATWG describes them (HTML, "Server-sent events").

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::http::{Broken, Client, Reply};

/// One event, and when it came.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
    pub(crate) at: Instant,
}

/// An open stream; dropped, its connection is closed.
pub(crate) struct Stream {
    events: mpsc::UnboundedReceiver<Event>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Opens a stream, from `last_event_id` on if given.
    ///
    /// # Errors
    ///
    /// The answer if it is not a stream.
    pub(crate) async fn open(
        client: &Client,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Stream, Reply> {
        let headers = last_event_id.map(|id| ("last-event-id", id));
        let response = client.open(path, headers.as_slice()).await;
        let response = response.unwrap_or_else(|Broken(why)| panic!("GET {path}: {why}"));
        let (head, body) = response.into_parts();
        if head.status != 200 {
            let body = body.collect().await.expect("a whole refusal").to_bytes();
            return Err(Reply { status: head.status.as_u16(), headers: head.headers, body });
        }
        assert_eq!(head.headers["content-type"], "text/event-stream");
        let (sender, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(body, sender));
        Ok(Stream { events, reader })
    }

    /// The next event, or `None` if the stream ended or nothing came in time.
    pub(crate) async fn next(&mut self, within: Duration) -> Option<Event> {
        tokio::time::timeout(within, self.events.recv()).await.ok().flatten()
    }

    /// The next event of this name; others are passed by.
    pub(crate) async fn wait_for(&mut self, name: &str, within: Duration) -> Option<Event> {
        let end = Instant::now() + within;
        loop {
            let event = self.next(end.saturating_duration_since(Instant::now())).await?;
            if event.name == name {
                return Some(event);
            }
        }
    }

    /// What has come and was not yet taken.
    pub(crate) fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut body: Incoming, events: mpsc::UnboundedSender<Event>) {
    let mut parser = Parser::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(bytes) = frame.into_data() else { continue };
        for event in parser.feed(&bytes) {
            if events.send(event).is_err() {
                return;
            }
        }
    }
}

/// Lines of a stream that are not yet an event.
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    name: String,
    id: String,
    data: String,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut lines = rest.split(|b| *b == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() {
                self.rest = line.to_vec();
                break;
            }
            let line = String::from_utf8_lossy(line);
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "id" => self.id = value.to_owned(),
            "data" => self.data.push_str(value),
            // Comments and `retry` change nothing here.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return None;
        }
        let data = serde_json::from_str(&data).expect("data is JSON");
        Some(Event { name, id: self.id.clone(), data, at: Instant::now() })
    }
}

#[test]
fn events_are_read_across_any_cut() {
    let text =
        ":hello\nretry: 100\n\nid: 1-2\nevent: seats\ndata: {\"a\":1}\n\nid: 1-3\ndata: 2\n\n";
    for cut in 0..text.len() {
        let mut parser = Parser::default();
        let mut events = parser.feed(&text.as_bytes()[..cut]);
        events.extend(parser.feed(&text.as_bytes()[cut..]));
        let read: Vec<_> = events.iter().map(|e| (e.name.as_str(), e.id.as_str())).collect();
        assert_eq!(read, [("seats", "1-2"), ("", "1-3")], "cut at {cut}");
    }
}
