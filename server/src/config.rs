//! Settings: a flag wins over the environment, the environment over the file, the file over the
//! default. A setting that nobody knows is refused by its name, wherever it stands.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, CommandFactory, ValueEnum};
use serde::Deserialize;
use tmomi_engine::WRITER_EVENTS_MAX;

use crate::handles::HANDLES_MAX;
use crate::kafka::{KafkaCompression, KafkaMechanism, KafkaSecurity, KafkaUse};

/// Slots of the event ring at least: room for one decision of every handle and the keeper.
const RING_SLOTS_MIN: u32 = 1 << 15;
const _: () = assert!((HANDLES_MAX + 1) * WRITER_EVENTS_MAX <= RING_SLOTS_MIN as usize);

/// The environment variables that start with this are settings.
const ENV_PREFIX: &str = "TMOMI_";

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Switch::On
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A text that no log, help page or debug print shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

/// Several values of a setting: a list in the file, separated by commas elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Several<T>(pub Vec<T>);

impl<T: FromStr> FromStr for Several<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Several<T>, T::Err> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(str::parse).collect::<Result<_, _>>().map(Several)
    }
}

/// A setting that need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Maybe<T>(pub Option<T>);

impl<T: FromStr> FromStr for Maybe<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Maybe<T>, T::Err> {
        if text.is_empty() { Ok(Maybe(None)) } else { text.parse().map(|value| Maybe(Some(value))) }
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ty = $default:expr, $env:literal, $value:literal
        $(, $extra:meta)*;)*) => {
        /// The settings as one source has them.
        #[derive(Clone, Debug, Default, Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Layer {
            $($(#[doc = $doc])*
            #[arg(long, env = $env, value_name = $value, hide_env_values = true, global = true
                $(, $extra)*)]
            pub $name: Option<$kind>,)*
        }

        /// The settings of a server.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc])* pub $name: $kind,)*
        }

        impl Layer {
            /// This layer, and `below` where it says nothing.
            pub fn over(self, below: Layer) -> Layer {
                Layer { $($name: self.$name.or(below.$name),)* }
            }
        }

        impl From<Layer> for Settings {
            fn from(layer: Layer) -> Settings {
                Settings { $($name: layer.$name.unwrap_or_else(|| $default),)* }
            }
        }
    };
}

settings! {
    /// Address to serve on; port 0 takes a free one
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), "TMOMI_LISTEN", "ADDR";
    /// Folder of the journal, the snapshots and the catalog
    data: PathBuf = PathBuf::from("data"), "TMOMI_DATA", "DIR";
    /// Database of the catalog and of the rows, like mysql://user:password@host:3306/tmomi; two
    /// SQLite files in the data folder unless said. Others on the machine can read a flag: use the
    /// environment
    database: Secret = Secret(String::new()), "TMOMI_DATABASE", "URL";
    /// Write orders and tickets as rows from this process; off where `tmomi writer` does it
    writer: Switch = Switch::On, "TMOMI_WRITER", "on|off";
    /// Keep nothing: no journal, and a catalog that ends with the process. For trying out and for
    /// benchmarks
    memory: Switch = Switch::Off, "TMOMI_MEMORY", "on|off",
        num_args(0..=1), require_equals(true), default_missing_value("on");
    /// Create a demo show if the data folder is empty. On unless a command is named
    demo: Switch = Switch::Off, "TMOMI_DEMO", "on|off",
        num_args(0..=1), require_equals(true), default_missing_value("on");
    /// Email address of the admin to create or to update at the start
    admin_email: Maybe<String> = Maybe(None), "TMOMI_ADMIN_EMAIL", "EMAIL";
    /// The admin's password, 8 to 128 characters. Others on the machine can read a flag: use the
    /// environment
    admin_password: Secret = Secret(String::new()), "TMOMI_ADMIN_PASSWORD", "PASSWORD";
    /// Serve /metrics, /healthz and /readyz here
    metrics_listen: Maybe<SocketAddr> = Maybe(None), "TMOMI_METRICS_LISTEN", "ADDR";
    /// Serve /metrics on the main address too
    metrics_public: Switch = Switch::Off, "TMOMI_METRICS_PUBLIC", "on|off",
        num_args(0..=1), require_equals(true), default_missing_value("on");
    /// How log lines look
    log_format: LogFormat = LogFormat::Text, "TMOMI_LOG_FORMAT", "text|json";
    /// Which log lines: a level, or as RUST_LOG writes it
    log: String = "info".to_owned(), "TMOMI_LOG", "FILTER";
    /// Origins that may call from a browser, like `https://shop.example`; none unless named
    cors_origins: Several<String> = Several(Vec::new()), "TMOMI_CORS_ORIGINS", "ORIGINS";
    /// Proxies whose X-Forwarded-For is believed
    trusted_proxies: Several<IpAddr> = Several(Vec::new()), "TMOMI_TRUSTED_PROXIES", "IPS";
    /// Mark cookies Secure: on behind TLS
    cookies_secure: Switch = Switch::Off, "TMOMI_COOKIES_SECURE", "on|off",
        num_args(0..=1), require_equals(true), default_missing_value("on");
    /// Who the tokens say they are from (`iss`)
    issuer: String = "tmomi".to_owned(), "TMOMI_ISSUER", "TEXT";
    /// Limits by address and by user; off for load tests
    rate_limits: Switch = Switch::On, "TMOMI_RATE_LIMITS", "on|off";
    /// Requests a second from one address
    address_rate_per_s: u32 = 500, "TMOMI_ADDRESS_RATE_PER_S", "N";
    /// Requests a second of one user
    user_rate_per_s: u32 = 50, "TMOMI_USER_RATE_PER_S", "N";
    /// Attempts a minute to sign in to one account; from one address ten times as many
    signin_rate_per_min: u32 = 10, "TMOMI_SIGNIN_RATE_PER_MIN", "N";
    /// Accounts an hour from one address
    signup_rate_per_h: u32 = 600, "TMOMI_SIGNUP_RATE_PER_H", "N";
    /// Holds a minute of one user
    hold_rate_per_min: u32 = 60, "TMOMI_HOLD_RATE_PER_MIN", "N";
    /// Open streams of one user
    user_streams_max: u32 = 16, "TMOMI_USER_STREAMS_MAX", "N";
    /// Open connections
    connections_max: u32 = 20_000, "TMOMI_CONNECTIONS_MAX", "N";
    /// Open connections of one address
    address_connections_max: u32 = 1_000, "TMOMI_ADDRESS_CONNECTIONS_MAX", "N";
    /// Requests that are worked on at a time; more are answered 503
    requests_max: u32 = 16_384, "TMOMI_REQUESTS_MAX", "N";
    /// Threads that hash passwords
    hash_threads: u32 = 2, "TMOMI_HASH_THREADS", "N";
    /// Passwords that wait for a thread; more are answered 503
    hash_queue_max: u32 = 256, "TMOMI_HASH_QUEUE_MAX", "N";
    /// Seconds an access token is good for
    access_ttl_s: u32 = 900, "TMOMI_ACCESS_TTL_S", "S";
    /// Seconds a refresh token is good for
    refresh_ttl_s: u32 = 30 * 86_400, "TMOMI_REFRESH_TTL_S", "S";
    /// Seconds to finish running requests after SIGTERM
    shutdown_s: u32 = 10, "TMOMI_SHUTDOWN_S", "S";
    /// Threads that serve requests; 0 is one a core
    threads: u32 = 0, "TMOMI_THREADS", "N";
    /// Events that may wait for the journal; a power of two
    ring_slots: u32 = 1 << 17, "TMOMI_RING_SLOTS", "N";
    /// Bytes of a journal segment
    segment_bytes: u64 = 64 << 20, "TMOMI_SEGMENT_BYTES", "BYTES";
    /// Number of this node, for the journal
    node: u64 = 1, "TMOMI_NODE", "N";
    /// What Kafka is for: off, a stream of what the journal has, or the log in its place
    kafka: KafkaUse = KafkaUse::Off, "TMOMI_KAFKA", "off|stream|log";
    /// Some of the brokers, as host:port
    kafka_brokers: Several<String> = Several(Vec::new()), "TMOMI_KAFKA_BROKERS", "BROKERS";
    /// The topic; it is made if it is not there
    kafka_topic: String = "tmomi".to_owned(), "TMOMI_KAFKA_TOPIC", "TEXT";
    /// Partitions of the topic; never to be changed once there are events
    kafka_partitions: u32 = 1, "TMOMI_KAFKA_PARTITIONS", "N";
    /// Brokers that have each partition, if the topic is made; 3 lets one fail
    kafka_replication: u16 = 1, "TMOMI_KAFKA_REPLICATION", "N";
    /// How records are made smaller
    kafka_compression: KafkaCompression = KafkaCompression::None,
        "TMOMI_KAFKA_COMPRESSION", "none|gzip|snappy|lz4";
    /// Whether brokers are spoken to over TLS
    kafka_security: KafkaSecurity = KafkaSecurity::Plaintext,
        "TMOMI_KAFKA_SECURITY", "plaintext|tls";
    /// How brokers know who asks
    kafka_sasl_mechanism: KafkaMechanism = KafkaMechanism::None,
        "TMOMI_KAFKA_SASL_MECHANISM", "none|plain|scram-sha-256|scram-sha-512";
    /// Name for the brokers
    kafka_user: String = String::new(), "TMOMI_KAFKA_USER", "NAME";
    /// Password for the brokers. Others on the machine can read a flag: use the environment
    kafka_password: Secret = Secret(String::new()), "TMOMI_KAFKA_PASSWORD", "PASSWORD";
    /// File with the certificates that the brokers' are checked against; the system's unless said
    kafka_ca_file: Maybe<PathBuf> = Maybe(None), "TMOMI_KAFKA_CA_FILE", "FILE";
    /// Further properties of librdkafka, as name=value
    kafka_properties: Several<Secret> = Several(Vec::new()), "TMOMI_KAFKA_PROPERTIES", "PAIRS";
}

/// Why the settings are not usable. The text names the setting, where it stands and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}: {cause}; check --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The file has a setting that nobody knows, or a value that is not one.
    #[error("the settings file {path} is not understood: {cause}")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        cause: String,
    },
    /// The environment has a setting that nobody knows.
    #[error("the environment has {0}, which is no setting; `tmomi help serve` lists them")]
    UnknownVariable(String),
    /// A value is out of its range.
    #[error("the setting {name} {why}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// What it must be.
        why: &'static str,
    },
}

/// Reads one settings file.
///
/// # Errors
///
/// [`ConfigError`] naming the file and what is wrong in it.
pub fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    parse_file(&text).map_err(|cause| ConfigError::NotUnderstood { path: path.to_owned(), cause })
}

/// Says where and what is wrong in words of its own: the parser's show the line, which may have a
/// password.
fn parse_file(text: &str) -> Result<Layer, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.lines().last().filter(|_| !before.ends_with('\n'));
        let column = column.map_or(0, |line| line.chars().count()) + 1;
        format!("line {line}, column {column}: {}", error.message())
    })
}

/// Looks for variables that mean to be settings and are none.
///
/// # Errors
///
/// [`ConfigError::UnknownVariable`] with the first name.
pub fn check_names(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let command = crate::cli::Cli::command();
    let known: Vec<&str> =
        command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    for name in names.filter(|name| name.starts_with(ENV_PREFIX)) {
        if !known.contains(&name.as_str()) {
            return Err(ConfigError::UnknownVariable(name));
        }
    }
    Ok(())
}

impl Settings {
    /// Checks what the types do not say.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] with the first setting that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |ok: bool, name, why| {
            if ok { Ok(()) } else { Err(ConfigError::OutOfRange { name, why }) }
        };
        range(self.ring_slots.is_power_of_two(), "ring_slots", "must be a power of two")?;
        let slots = RING_SLOTS_MIN..=(1 << 24);
        range(slots.contains(&self.ring_slots), "ring_slots", "must be 32768 to 16777216")?;
        range(self.segment_bytes >= 1 << 20, "segment_bytes", "must be at least 1048576")?;
        range((1..=64).contains(&self.hash_threads), "hash_threads", "must be 1 to 64")?;
        range(self.hash_queue_max > 0, "hash_queue_max", "must be at least 1")?;
        range(self.connections_max > 0, "connections_max", "must be at least 1")?;
        range(self.requests_max > 0, "requests_max", "must be at least 1")?;
        range((1..=3_600).contains(&self.access_ttl_s), "access_ttl_s", "must be 1 to 3600")?;
        range(self.refresh_ttl_s > 0, "refresh_ttl_s", "must be at least 1")?;
        let rates = [
            ("address_rate_per_s", self.address_rate_per_s),
            ("user_rate_per_s", self.user_rate_per_s),
            ("signin_rate_per_min", self.signin_rate_per_min),
            ("signup_rate_per_h", self.signup_rate_per_h),
            ("hold_rate_per_min", self.hold_rate_per_min),
        ];
        rates
            .into_iter()
            .try_for_each(|(name, rate)| range(rate > 0, name, "must be at least 1"))?;
        let passing = self.memory.is_on() && !self.database.0.is_empty();
        range(!passing, "database", "is of no use with memory, which keeps nothing")?;
        let admin = self.admin_email.0.is_none() == self.admin_password.0.is_empty();
        range(admin, "admin_email", "and admin_password go together: give both or neither")?;
        crate::kafka::check(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(args: &[&str]) -> Layer {
        let cli = crate::cli::Cli::try_parse_from([&["tmomi"], args].concat());
        cli.expect("arguments that are understood").settings
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file: Layer = toml::from_str("listen = '0.0.0.0:1'\nnode = 7").expect("a file");
        let settings = Settings::from(parse(&["serve", "--listen", "[::1]:9"]).over(file));
        assert_eq!(settings.listen, "[::1]:9".parse().expect("an address"));
        assert_eq!((settings.node, settings.threads), (7, 0));
        assert!(settings.check().is_ok());
    }

    #[test]
    fn a_setting_that_nobody_knows_is_refused_by_name() {
        let error = toml::from_str::<Layer>("lisen = 'x'").expect_err("a typo").to_string();
        assert!(error.contains("lisen"), "{error}");
        let names = ["PATH", "TMOMI_DATA", "TMOMI_DATTA"].map(str::to_owned);
        let error = check_names(names.into_iter()).expect_err("a typo").to_string();
        assert!(error.contains("TMOMI_DATTA"), "{error}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let layer = parse(&["--admin-password", "hunter22"]);
        assert!(!format!("{layer:?}").contains("hunter22"));
        let why = Settings::from(layer).check().expect_err("no address").to_string();
        assert!(why.contains("admin_email"), "{why}");
    }

    #[test]
    fn a_bad_file_is_shown_by_its_place_only() {
        let text = "listen = '127.0.0.1:80'\nadmin_password = \"hunter22\" x\n";
        let why = parse_file(text).expect_err("an x too many");
        assert!(why.starts_with("line 2, column ") && !why.contains("hunter22"), "{why}");
        let why = parse_file("surprise = 1").expect_err("no setting");
        assert!(why.starts_with("line 1, column 1: ") && why.contains("surprise"), "{why}");
    }

    #[test]
    fn lists_are_separated_by_commas_or_are_lists() {
        let layer = parse(&["--trusted-proxies", "10.0.0.1, ::1"]);
        let file: Layer = toml::from_str("trusted_proxies = ['10.0.0.1', '::1']").expect("a file");
        assert_eq!(layer.trusted_proxies, file.trusted_proxies);
    }
}
