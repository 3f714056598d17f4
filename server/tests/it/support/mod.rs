//! What every test needs: a server of its own, clients, a house to sell.

pub(crate) mod actor;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod house;
pub(crate) mod http;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod server;
pub(crate) mod sse;
pub(crate) mod tools;

pub(crate) use http::{Client, Reply};
pub(crate) use server::{Launch, Server};

use std::time::Duration;

use tokio::time::Instant;

/// How long an answer may take before the test calls it a hang.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Polls `ready` every 20 ms until it gives a value.
///
/// # Panics
///
/// After `within`, with `what`.
pub(crate) async fn eventually<T, F>(what: &str, within: Duration, mut ready: F) -> T
where
    F: AsyncFnMut() -> Option<T>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = ready().await {
            return value;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs one task for each item, all at once, and gives their results in the items' order.
pub(crate) async fn all_at_once<I, Doing, T>(
    items: impl IntoIterator<Item = I>,
    run: impl Fn(I) -> Doing,
) -> Vec<T>
where
    Doing: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<_> = items.into_iter().map(|item| tokio::spawn(run(item))).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.expect("a client's task ran to its end"));
    }
    results
}
