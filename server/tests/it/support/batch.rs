//! `holds:batch`: many holds in one request.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};
use serde_json::Value;

use super::house::Sale;
use super::http::{Client, Reply};

/// Lines that one request may have.
pub(crate) const LINES_MAX: usize = 10_000;

/// Sends `lines` as one batch and gives the answer to each.
pub(crate) async fn batch(sale: &Sale, lines: &[Value]) -> Vec<Value> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let reply = batch_text(&sale.admin, sale, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text();
    let answers = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    let answers: Vec<Value> = answers.collect();
    assert_eq!(answers.len(), lines.len(), "one answer a line");
    answers
}

/// Sends any text as a batch.
pub(crate) async fn batch_text(client: &Client, sale: &Sale, body: String) -> Reply {
    let mut request = client.request(Method::POST, &sale.path("/holds:batch"), None, None);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(CONTENT_TYPE, "application/x-ndjson".parse().expect("a header value"));
    *request.body_mut() = Full::new(Bytes::from(body));
    client.send(request).await
}
