//! Kafka as the settings want it: not at all, as a stream of the journal, or as the log.
//!
//! The rest of the server asks this module, which is built in two ways: `wired` with the feature
//! `kafka`, `missing` without it.

#[cfg(not(feature = "kafka"))]
mod missing;
#[cfg(feature = "kafka")]
mod wired;

use clap::ValueEnum;
use serde::Deserialize;

use crate::config::{ConfigError, Settings};

#[cfg(not(feature = "kafka"))]
pub(crate) use missing::{
    Stream, StreamState, failure_hint, history, log, start_stream, start_writer,
};
#[cfg(feature = "kafka")]
pub(crate) use wired::{
    Stream, StreamState, failure_hint, history, log, start_stream, start_writer,
};

/// What Kafka is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaUse {
    /// Nothing.
    Off,
    /// The journal is the log, and a topic gets all of it.
    Stream,
    /// A topic is the log.
    Log,
}

/// How records are made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaCompression {
    /// Not at all.
    None,
    /// As gzip.
    Gzip,
    /// As Snappy.
    Snappy,
    /// As LZ4.
    Lz4,
}

/// Whether brokers are spoken to over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KafkaSecurity {
    /// No.
    Plaintext,
    /// Yes.
    Tls,
}

/// How a broker knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaMechanism {
    /// It does not.
    None,
    /// Name and password as they are.
    Plain,
    /// SCRAM with SHA-256.
    #[value(name = "scram-sha-256")]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Checks what the types of the settings do not say.
///
/// # Errors
///
/// [`ConfigError::OutOfRange`] with the first setting that is out of its range.
pub(crate) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let range =
        |ok, name, why| if ok { Ok(()) } else { Err(ConfigError::OutOfRange { name, why }) };
    if settings.kafka == KafkaUse::Off {
        return Ok(());
    }
    let is_built = cfg!(feature = "kafka");
    range(is_built, "kafka", "must be off: this program was built without Kafka")?;
    range(!settings.memory.is_on(), "kafka", "must be off with memory, which keeps nothing")?;
    let brokers = !settings.kafka_brokers.0.is_empty();
    range(brokers, "kafka_brokers", "must name at least one broker when kafka is not off")?;
    range(!settings.kafka_topic.is_empty(), "kafka_topic", "must be the name of a topic")?;
    let partitions = 1..=1_024;
    range(
        partitions.contains(&settings.kafka_partitions),
        "kafka_partitions",
        "must be 1 to 1024",
    )?;
    let replicas = 1..=16;
    range(replicas.contains(&settings.kafka_replication), "kafka_replication", "must be 1 to 16")?;
    let given = [
        settings.kafka_sasl_mechanism != KafkaMechanism::None,
        !settings.kafka_user.is_empty(),
        !settings.kafka_password.0.is_empty(),
    ];
    let why = "and kafka_user and kafka_password go together: give all or none";
    range(given == [given[0]; 3], "kafka_sasl_mechanism", why)?;
    let pairs = settings.kafka_properties.0.iter().all(|pair| pair.0.contains('='));
    range(pairs, "kafka_properties", "must be a list of name=value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn checked(args: &[&str]) -> Result<(), String> {
        let args = [&["tmomi", "serve"], args].concat();
        let cli = crate::cli::Cli::try_parse_from(args).expect("arguments that are understood");
        Settings::from(cli.settings).check().map_err(|error| error.to_string())
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn settings_of_kafka_that_do_not_go_together_are_refused_by_name() {
        assert_eq!(checked(&["--kafka-topic", ""]), Ok(()), "it is off");
        let stream = ["--kafka", "stream", "--kafka-brokers", "a:1,b:2"];
        assert_eq!(checked(&stream), Ok(()));
        let with = |more: &[&str]| checked(&[&stream[..], more].concat()).expect_err("refused");
        for (more, name) in [
            (&["--memory"][..], "memory"),
            (&["--kafka-partitions", "0"], "kafka_partitions"),
            (&["--kafka-replication", "0"], "kafka_replication"),
            (&["--kafka-user", "me"], "kafka_user"),
            (&["--kafka-sasl-mechanism", "plain"], "kafka_password"),
            (&["--kafka-properties", "linger.ms"], "kafka_properties"),
        ] {
            assert!(with(more).contains(name), "{}", with(more));
        }
        let why = checked(&["--kafka", "log"]).expect_err("no broker");
        assert!(why.contains("kafka_brokers"), "{why}");
        let file = "kafka = 'log'\nkafka_sasl_mechanism = 'scram-sha-512'\nkafka_brokers = ['a:1']";
        let file: crate::config::Layer = toml::from_str(file).expect("settings");
        assert_eq!(file.kafka_sasl_mechanism, Some(KafkaMechanism::ScramSha512));
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_program_without_kafka_says_so() {
        let why = checked(&["--kafka", "log", "--kafka-brokers", "a:1"]).expect_err("refused");
        assert!(why.contains("built without Kafka"), "{why}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let args = ["--kafka-password", "hunter22", "--kafka-properties", "a.password=hunter23"];
        let cli = crate::cli::Cli::try_parse_from([&["tmomi"], &args[..]].concat());
        let settings = cli.expect("arguments that are understood").settings;
        assert!(!format!("{settings:?}").contains("hunter"));
        assert!(!format!("{:?}", Settings::from(settings)).contains("hunter"));
    }
}
