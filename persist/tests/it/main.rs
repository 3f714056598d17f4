//! Tests of what outlives the process, through the crate's public face.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by failing")]

mod catalog;
#[path = "../common/databases.rs"]
#[allow(dead_code, reason = "each test binary needs its part of it")]
mod databases;
#[path = "../common/disk.rs"]
#[allow(dead_code, reason = "either test binary needs its part of it")]
mod disk;
mod image;
mod journal;
#[cfg(feature = "kafka")]
mod kafka;
mod plan;
mod sale;
mod schema;
#[path = "../common/servers.rs"]
#[allow(dead_code, reason = "each test binary needs its part of it")]
mod servers;
mod services;
mod shard;
mod silence;
mod snapshot;
mod writer;
