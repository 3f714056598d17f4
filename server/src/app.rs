//! What every handler shares.

use std::sync::Arc;
use std::time::Duration;

use tmomi_engine::ids::{RequestKey, Seq, TimeMs};
use tmomi_engine::{Handle, Reject};
use tmomi_persist::catalog::Catalog;
use tmomi_persist::image::{Image, KeyImage};
use tmomi_persist::shard::Shard;
use tmomi_persist::writer::WriterState;
use tokio::sync::Semaphore;

use crate::accounts::Accounts;
use crate::api::batch::KnownBuyers;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::epochs::Epochs;
use crate::halls::Halls;
use crate::handles::Handles;
use crate::idempotency::{InProgress, reused};
use crate::kafka::StreamState;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::opening::{Opening, Turn};
use crate::problem::{Problem, Result};
use crate::ringing;
use crate::standing::Admissions;
use crate::stop::Stop;
use crate::streams::Streams;
use crate::text::{parse_seq, seq_text};

/// The server's parts. Built once, in `serve.rs`.
pub(crate) struct App {
    /// The settings.
    pub(crate) settings: Settings,
    /// The clock.
    pub(crate) clock: Arc<SystemClock>,
    /// Accounts, venues, shows, prices.
    pub(crate) catalog: Catalog,
    /// The engine, the log and the image.
    pub(crate) shard: Arc<Shard>,
    /// Which reign an event belongs to.
    pub(crate) epochs: Epochs,
    /// How the writer of rows is doing, if there is one.
    pub(crate) writer: Option<Arc<WriterState>>,
    /// Handles to decide with.
    pub(crate) handles: Handles,
    /// Showtimes on their way to being on sale.
    pub(crate) opening: Opening,
    /// The showtimes.
    pub(crate) halls: Halls,
    /// How the stream to Kafka is doing, if there is one.
    pub(crate) stream: Option<StreamState>,
    /// Tokens and passwords.
    pub(crate) accounts: Accounts,
    /// Requests with a key that are running.
    pub(crate) in_progress: InProgress,
    /// Places for requests that wait for a number.
    pub(crate) min_seq_waits: Semaphore,
    /// Buyers that partners have named and that exist.
    pub(crate) buyers: KnownBuyers,
    /// Limits by address and user.
    pub(crate) limits: Arc<Limits>,
    /// Counters and latencies.
    pub(crate) metrics: Arc<Metrics>,
    /// Tokens of those who are let in.
    pub(crate) admissions: Admissions,
    /// Open streams.
    pub(crate) streams: Streams,
    /// The end of the process.
    pub(crate) stop: Stop,
}

/// How long `?min_seq=` waits.
const MIN_SEQ_WAIT: Duration = Duration::from_secs(5);
/// Requests that wait for a number at a time. Strangers may wait, so they must not fill the places
/// of those who buy.
const MIN_SEQ_WAITS_MAX: usize = 1_024;
/// How long a reply waits for its commit. A disk that takes longer is as good as stuck.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// The places of [`App::min_seq_waits`].
pub(crate) fn min_seq_places() -> Semaphore {
    Semaphore::new(MIN_SEQ_WAITS_MAX)
}

impl App {
    /// The time to decide by: the clock's, and never before the last event of the process before.
    pub(crate) fn now(&self) -> TimeMs {
        self.shard.clock().now()
    }

    /// Makes a decision, if the log takes decisions at all.
    ///
    /// # Errors
    ///
    /// 503 `not-committed` if the log has no room or has failed, `overloaded` if too many decide;
    /// nothing was decided. The inner result is the engine's.
    pub(crate) fn decide<T>(
        &self,
        decide: impl FnOnce(&mut Handle) -> std::result::Result<T, Reject>,
    ) -> Result<std::result::Result<T, Reject>> {
        self.decide_all(|handle| (decide(handle), 1))
    }

    /// Makes decisions one after the other, and gives what they come to. They say how many they
    /// were.
    ///
    /// # Errors
    ///
    /// As [`decide`](Self::decide).
    pub(crate) fn decide_all<T>(&self, decide: impl FnOnce(&mut Handle) -> (T, u32)) -> Result<T> {
        if self.shard.accepting().is_err() {
            return Err(Problem::not_committed());
        }
        let started = self.clock.since_start();
        let decided = self.handles.with(decide);
        let (decided, count) =
            decided.ok_or_else(|| Problem::overloaded("too many decisions at once"))?;
        let took = self.clock.since_start().saturating_sub(started);
        self.metrics.decision.record_each(took, count);
        ringing::decided(&self.shard, count);
        Ok(decided)
    }

    /// Waits until the image has event `seq`, which a decision of this process has: then it is
    /// committed, and may be answered.
    ///
    /// # Errors
    ///
    /// 503 `not-committed`, after 10 s at the latest.
    pub(crate) async fn committed(&self, seq: Seq) -> Result<()> {
        let started = self.clock.since_start();
        let committed = tokio::time::timeout(COMMIT_WAIT, self.shard.wait(seq)).await;
        self.metrics.commit.record(self.clock.since_start().saturating_sub(started));
        match committed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Problem::not_committed()),
        }
    }

    /// What a key was used for, if it was.
    ///
    /// # Errors
    ///
    /// 422 if that was another request.
    pub(crate) fn known(&self, key: RequestKey) -> Result<Option<KeyImage>> {
        if !key.is_some() {
            return Ok(None);
        }
        known(&self.shard.image().read(), key)
    }

    /// The number of a committed event as clients see it.
    pub(crate) fn seq_text(&self, seq: Seq) -> String {
        seq_text(self.epochs.of(seq), seq)
    }

    /// Waits until no decision runs that began before this call. To be asked by whoever has the
    /// turn to change a showtime.
    ///
    /// # Errors
    ///
    /// 503 `overloaded` if one does not end.
    pub(crate) fn decisions_settled(&self, _: &Turn<'_>) -> Result<()> {
        let why = || Problem::overloaded("too many decisions at once");
        self.handles.settle().then_some(()).ok_or_else(why)
    }

    /// Waits until the image has every decision made before this call.
    ///
    /// # Errors
    ///
    /// 503 `not-committed`.
    pub(crate) async fn settled(&self) -> Result<()> {
        self.committed(self.shard.engine().claimed()).await
    }

    /// Waits until the image has the number that a client asks for with `?min_seq=`.
    ///
    /// # Errors
    ///
    /// 400 for a text that is no number, 503 after 5 s or if too many wait.
    pub(crate) async fn reach(&self, min_seq: Option<&str>) -> Result<Seq> {
        let Some(text) = min_seq else { return Ok(Seq(0)) };
        let problem = || Problem::bad_request("min_seq must be the seq of an answer");
        let (epoch, seq) = parse_seq(text).ok_or_else(problem)?;
        let late = || Problem::overloaded("this node has not seen min_seq yet");
        let of_later_reign = epoch.is_some_and(|epoch| epoch > self.shard.epoch());
        if of_later_reign || seq > self.shard.applied() {
            let many = || Problem::overloaded("too many requests wait for a min_seq");
            let _place = self.min_seq_waits.try_acquire().map_err(|_| many())?;
            let reached = async {
                match of_later_reign {
                    true => std::future::pending().await,
                    false => self.shard.wait(seq).await,
                }
            };
            let reached = tokio::time::timeout(MIN_SEQ_WAIT, reached).await;
            reached.map_err(|_| late())?.map_err(|_| Problem::not_committed())?;
        }
        Ok(seq)
    }
}

/// As [`App::known`], of a key that there is and an image that is being read.
pub(crate) fn known(image: &Image, key: RequestKey) -> Result<Option<KeyImage>> {
    match image.key(key.hash) {
        Some(known) if known.fingerprint != key.fingerprint => Err(reused()),
        known => Ok(known.copied()),
    }
}

/// What axum hands to the handlers.
pub(crate) type AppState = Arc<App>;
