//! Without the feature `kafka`: the settings have been refused before anything here is asked.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tmomi_engine::ids::Seq;
use tmomi_persist::history::History;
use tmomi_persist::recovery::RecoveryError;
use tmomi_persist::shard::{LogConfig, Shard};
use tmomi_persist::writer::WriterHandle;

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::rows::Output;

/// There is none.
pub(crate) struct Stream(Infallible);

/// There is none.
pub(crate) struct StreamState(Infallible);

impl Stream {
    pub(crate) fn state(&self) -> StreamState {
        match self.0 {}
    }

    pub(crate) async fn end(self, _: &Shard) -> bool {
        match self.0 {}
    }
}

impl StreamState {
    pub(crate) fn published(&self) -> Seq {
        match self.0 {}
    }

    pub(crate) fn complaint(&self) -> Option<String> {
        match self.0 {}
    }
}

pub(crate) fn log(_: &Settings, _: &Path) -> Option<LogConfig> {
    None
}

pub(crate) fn history(_: &Settings) -> Option<Arc<dyn History>> {
    None
}

pub(crate) fn failure_hint(_: &RecoveryError) -> Option<String> {
    None
}

pub(crate) fn start_stream(
    _: &Settings,
    _: &Path,
    _: &Arc<Shard>,
    _: &Arc<SystemClock>,
    _: &Arc<Metrics>,
) -> io::Result<Option<Stream>> {
    Ok(None)
}

pub(crate) fn start_writer(_: &Settings, _: Output) -> io::Result<WriterHandle> {
    Err(io::Error::other("this program was built without Kafka"))
}
