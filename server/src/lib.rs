//! The server of Tmomi: HTTP and SSE around the engine, the log and the catalog.
//!
//! ```text
//! listener -> front (limits, ids, counters) -> api (handlers) -> sale (engine, log, follower)
//!    |                                          |                    |
//!  limits of HTTP                            accounts, catalog     streams
//! ```

pub(crate) mod accounts;
pub(crate) mod api;
pub(crate) mod app;
pub(crate) mod background;
pub mod cli;
pub mod clock;
pub mod config;
pub(crate) mod cors;
pub(crate) mod demo;
pub(crate) mod epochs;
pub mod export;
pub(crate) mod extract;
pub(crate) mod front;
pub(crate) mod halls;
pub(crate) mod handles;
pub(crate) mod idempotency;
pub(crate) mod identity;
pub(crate) mod inspect;
pub(crate) mod json;
pub mod kafka;
pub(crate) mod leftover;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod opening;
pub(crate) mod outlet;
pub(crate) mod pages;
pub(crate) mod problem;
pub mod reconcile;
pub(crate) mod refusals;
pub(crate) mod ringing;
pub(crate) mod rows;
pub(crate) mod seats;
pub(crate) mod serve;
pub(crate) mod sidecar;
pub(crate) mod standing;
pub(crate) mod stop;
pub(crate) mod streams;
pub(crate) mod strict;
pub(crate) mod text;
pub(crate) mod wire;
