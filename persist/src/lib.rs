//! What outlives the process: the log and what is made of it, the catalog, seating plans.

pub mod catalog;
pub mod clock;
pub mod database;
pub mod follower;
pub mod frame;
pub mod history;
pub mod image;
pub mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod layout_codec;
pub mod log;
pub mod plan;
pub mod recovery;
pub mod shard;
pub mod snapshot;
pub mod watermark;
mod wire;
pub mod writer;
