//! What is left of a request's body when it was answered without being read.
//!
//! A client that is still sending sees its connection break and may never see the answer, if the
//! server closes it there and then. So what is left is read for a while and thrown away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

/// Bytes of a body that are thrown away at most: as many as the largest body may have.
const DISCARD_BYTES_MAX: usize = crate::extract::LARGE_BODY_BYTES_MAX;
/// How long a client that goes on sending is listened to.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a body comes back to.
pub(crate) struct Leftover<B>(Arc<Mutex<Option<B>>>);

impl<B> Default for Leftover<B> {
    fn default() -> Self {
        Leftover(Arc::default())
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Leftover<B> {
    /// The same body, which comes back if it is dropped before its end.
    pub(crate) fn watch(&self, body: B) -> Watched<B> {
        Watched { body: Some(body), home: Arc::clone(&self.0) }
    }

    /// Throws away what came back, while the answer is on its way.
    pub(crate) fn discard(self) {
        if let Some(body) = self.0.lock().take() {
            tokio::spawn(tokio::time::timeout(DISCARD_TIMEOUT, discard(body)));
        }
    }
}

async fn discard(mut body: impl Body<Data = Bytes> + Unpin) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > DISCARD_BYTES_MAX {
            return;
        }
    }
}

/// A body that is read by somebody else.
pub(crate) struct Watched<B: Body> {
    body: Option<B>,
    home: Arc<Mutex<Option<B>>>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Body> Drop for Watched<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.home.lock() = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn only_what_was_not_read_comes_back() {
        let leftover = Leftover::default();
        let read = leftover.watch(Full::from("abc")).collect().await.expect("three bytes");
        assert_eq!(read.to_bytes(), "abc");
        assert!(leftover.0.lock().is_none());
        drop(leftover.watch(Full::from("abc")));
        assert!(leftover.0.lock().is_some());
        leftover.discard();
    }
}
