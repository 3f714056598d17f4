//! The end of the process, told to everybody who must finish something.

use tokio::sync::watch;

/// Given out once a start; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    stopping: watch::Sender<bool>,
}

impl Stop {
    /// Nothing stops yet.
    pub(crate) fn new() -> Stop {
        Stop { stopping: watch::Sender::new(false) }
    }

    /// Tells everybody. A second call changes nothing.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the process is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the process is stopping; at once if it already is.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the sender is gone, which also is an end.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_after_the_stop_is_told_too() {
        let stop = Stop::new();
        let early = stop.stopped();
        assert!(!stop.is_stopping());
        stop.stop();
        early.await;
        stop.stopped().await;
        assert!(stop.is_stopping());
    }
}
