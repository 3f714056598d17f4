//! Kafka: a stream of what the journal has, or the log itself.
//!
//! ```text
//! stream   journal -> Publisher -> topic -> whoever reads
//! log      decisions -> KafkaLog -> topic -> KafkaLog (committed) -> follower
//!                                        \-> KafkaSource -> writer
//!                                        \-> KafkaHistory -> recovery, snapshots, audit, reconcile
//! ```
//!
//! A shard is a partition and a record's value is a frame, the same as in the journal, with a chain
//! of its own: it names the checksum of the record before it that counts. So whoever reads notices
//! a record that is missing, changed, or another log's.
//!
//! * `config`: the settings, and the clients made of them.
//! * `topic`: looked at, made, or refused.
//! * `tail`: one partition, read from any offset.
//! * `chain`: which records count; every reader goes by it.
//! * `records`: the frames that count, from any event on.
//! * `source`, `history`: the same for the writer, and for recovery and the rest.
//! * `cut`: a batch as records that the topic takes.
//! * `publisher`: the stream.
//! * `log`: the log.

mod chain;
mod client;
mod config;
mod cut;
mod error;
mod history;
mod log;
mod open;
mod publisher;
mod records;
mod source;
mod tail;
mod topic;

pub use config::{Compression, KafkaConfig, Mechanism, RECORD_BYTES_MAX, Sasl};
pub use error::{KafkaError, TopicFault};
pub use history::KafkaHistory;
pub use log::KafkaLog;
pub(crate) use open::open;
pub use publisher::{PublishedSample, Publisher, PublisherConfig, PublisherState, PublisherStatus};
pub use source::KafkaSource;
