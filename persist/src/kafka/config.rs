//! What is set of Kafka, and the clients that are made of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::config::ClientConfig;

use super::error::KafkaError;
use crate::frame::FRAME_BLOB_BYTES_MAX;

/// Bytes of a record at most in a topic that is made here. A broker takes no request above 100 MiB
/// unless `socket.request.max.bytes` says more; a frame of the log has so many bytes of blobs, a
/// commit's events, and room to spare.
pub const RECORD_BYTES_MAX: usize = 99 << 20;
const _: () = assert!(FRAME_BLOB_BYTES_MAX + (2 << 20) <= RECORD_BYTES_MAX);

/// What Kafka puts around a record: the head of a batch, lengths, the key.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 512;
/// What librdkafka takes as the largest message at least.
const MESSAGE_BYTES_MIN: usize = 1_000;
/// Bytes of an answer at most: a record, and what comes with it.
const ANSWER_BYTES_MAX: usize = RECORD_BYTES_MAX + (64 << 20);
/// Bytes that are read ahead.
const READ_AHEAD_KBYTES: usize = 32 << 10;
/// How long a broker that was away is left alone at most, in ms.
const RECONNECT_MS_MAX: usize = 1_000;
/// How long a broker that does not answer is believed to be there, in ms: the largest record may
/// take so long on its way.
const SOCKET_TIMEOUT_MS: usize = 20_000;

/// How records are made smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// As gzip.
    Gzip,
    /// As Snappy.
    Snappy,
    /// As LZ4.
    Lz4,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
        }
    }
}

/// How a broker knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password as they are: over TLS only, if at all.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A name and a password for the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How they are shown to the broker.
    pub mechanism: Mechanism,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sasl { mechanism, user, .. } = self;
        f.debug_struct("Sasl").field("mechanism", mechanism).field("user", user).finish()
    }
}

/// A topic, the brokers that have it, and how they are spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Some of the brokers, as `host:port`, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// How many partitions it has, one for each shard.
    pub partitions: u32,
    /// How many brokers have each of them, if the topic is made here.
    pub replication: u16,
    /// How records are made smaller.
    pub compression: Compression,
    /// Whether the brokers are spoken to over TLS.
    pub tls: bool,
    /// The certificates that the brokers' are checked against; the system's unless said.
    pub ca_file: Option<PathBuf>,
    /// Who asks, if the brokers want to know.
    pub sasl: Option<Sasl>,
    /// Further properties of librdkafka.
    pub properties: Vec<(String, String)>,
    /// How long a start waits for the brokers.
    pub patience: Duration,
}

impl fmt::Debug for KafkaConfig {
    /// Without what may be a secret: of the further properties only the names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("partitions", &self.partitions)
            .field("compression", &self.compression)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .field("properties", &names)
            .finish_non_exhaustive()
    }
}

/// Properties that a log rests on, or that have a setting of their own, and what else they are
/// called, so nobody else sets them.
const OWN: [&str; 26] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "isolation.level",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "queuing.strategy",
    "request.required.acks",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.timeout.ms",
    "transactional.id",
];

impl KafkaConfig {
    /// One partition of `topic` at `brokers`, with everything else as usual.
    pub fn new(brokers: &str, topic: &str) -> KafkaConfig {
        KafkaConfig {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: 1,
            replication: 1,
            compression: Compression::None,
            tls: false,
            ca_file: None,
            sasl: None,
            properties: Vec::new(),
            patience: Duration::from_secs(15),
        }
    }

    /// Whether the clients can be made.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Settings`] says which property is unknown, not usable or not to be set.
    pub fn check(&self) -> Result<(), KafkaError> {
        let refuse = |reason: String| Err(KafkaError::Settings { reason });
        if self.brokers.is_empty() || self.topic.is_empty() {
            return refuse("brokers and topic must be named".to_owned());
        }
        if self.partitions == 0 || self.replication == 0 {
            return refuse("a topic has at least one partition and one replica".to_owned());
        }
        if let Some((name, _)) = self.properties.iter().find(|(name, _)| OWN.contains(&&**name)) {
            return refuse(format!("the property {name} is set by the program itself"));
        }
        for client in [self.producer(RECORD_BYTES_MAX), self.consumer(0)] {
            if let Err(error) = client.create_native_config() {
                return refuse(not_usable(&error));
            }
        }
        Ok(())
    }

    /// What every client is made of.
    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        let protocol = match (self.tls, &self.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        client
            .set("bootstrap.servers", &self.brokers)
            .set("security.protocol", protocol)
            .set("allow.auto.create.topics", "false")
            .set("receive.message.max.bytes", ANSWER_BYTES_MAX.to_string())
            .set("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string())
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS.to_string());
        if let Some(Sasl { mechanism, user, password }) = &self.sasl {
            client
                .set("sasl.mechanism", mechanism.name())
                .set("sasl.username", user)
                .set("sasl.password", password);
        }
        if let Some(file) = &self.ca_file {
            client.set("ssl.ca.location", file.to_string_lossy());
        }
        client
    }

    /// A producer that gives up nothing by itself, repeats nothing and keeps the order; of records
    /// with up to `bytes_max` bytes.
    pub(super) fn producer(&self, bytes_max: usize) -> ClientConfig {
        let mut client = self.client();
        let bytes_of_message = (bytes_max + RECORD_OVERHEAD_BYTES).max(MESSAGE_BYTES_MIN);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            // Of a message that fails for good nothing behind it may be there.
            .set("enable.gapless.guarantee", "true")
            .set("message.max.bytes", bytes_of_message.to_string())
            .set("compression.type", self.compression.name());
        client
    }

    /// A consumer of `partition` that belongs to no group: what it is named is for the broker's
    /// metrics only.
    pub(super) fn consumer(&self, partition: i32) -> ClientConfig {
        let mut client = self.client();
        client
            .set("group.id", format!("{}-{partition}", self.topic))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            // A transaction that somebody left open in the topic must not hide what is behind it.
            .set("isolation.level", "read_uncommitted")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.max.messages.kbytes", READ_AHEAD_KBYTES.to_string());
        client
    }
}

/// What is wrong with a property, without its value: that may be a secret.
pub(super) fn not_usable(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, what, name, _) => format!("{name}: {what}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut config = KafkaConfig::new("a:1", "t");
        let (user, password) = ("buyer".to_owned(), "hunter22".to_owned());
        config.sasl = Some(Sasl { mechanism: Mechanism::Plain, user, password });
        config.properties = vec![("ssl.key.password".into(), "hunter23".into())];
        let shown = format!("{config:?}");
        assert!(shown.contains("buyer") && shown.contains("ssl.key.password"), "{shown}");
        assert!(!shown.contains("hunter"), "{shown}");
        config.check().expect("settings that can be used");
    }

    #[test]
    fn a_property_that_the_log_rests_on_is_not_set_by_others() {
        let with = |name: &str, value: &str| {
            let mut config = KafkaConfig::new("a:1", "t");
            config.properties = vec![(name.to_owned(), value.to_owned())];
            config.check()
        };
        with("linger.ms", "2").expect("it may be set");
        let why = with("acks", "1").expect_err("it is ours").to_string();
        assert!(why.contains("acks"), "{why}");
        for other_name in ["delivery.timeout.ms", "compression.codec", "metadata.broker.list"] {
            let why = with(other_name, "1").expect_err("it is ours").to_string();
            assert!(why.contains("set by the program"), "{why}");
        }
        let why = with("ssl.key.pasword", "hunter22").expect_err("there is none").to_string();
        assert!(why.contains("ssl.key.pasword") && !why.contains("hunter"), "{why}");
    }
}
