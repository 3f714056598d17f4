//! Limits by address and by user, with the time to wait in every refusal. They live in memory and
//! are no promise: a restart forgets them.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use parking_lot::Mutex;
use tmomi_engine::ids::BuyerId;

use crate::config::Settings;
use crate::problem::{Code, Problem, Result};

/// Attempts to sign in from one address, for each that one account allows: an office or a school
/// has many accounts behind one address.
const SIGNINS_PER_ADDRESS: u32 = 10;

/// How a limit refills: this many in this time, all of them at once if unused.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    per: Duration,
}

struct Limit {
    buckets: DefaultKeyedRateLimiter<u64>,
    clock: DefaultClock,
    what: &'static str,
}

impl Limit {
    fn new(rate: Rate, what: &'static str) -> Limit {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(rate.per / burst.get());
        let quota = quota.unwrap_or_else(|| Quota::per_second(burst)).allow_burst(burst);
        let buckets = DefaultKeyedRateLimiter::keyed(quota);
        Limit { buckets, clock: DefaultClock::default(), what }
    }

    fn check(&self, key: u64) -> Result<()> {
        self.buckets.check_key(&key).map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            Problem::new(Code::RateLimited, self.what).retry_after_ms(wait_ms)
        })
    }

    fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

struct Table {
    addresses: Limit,
    users: Limit,
    signins: Limit,
    address_signins: Limit,
    signups: Limit,
    holds: Limit,
}

/// All limits; or none, if the settings say so.
pub(crate) struct Limits {
    table: Option<Table>,
    streams: Mutex<HashMap<BuyerId, u32>>,
    user_streams_max: u32,
    /// Keys are hashed with a secret, so that nobody can choose two that meet.
    hasher: RandomState,
}

impl Limits {
    /// The limits of the settings.
    pub(crate) fn new(settings: &Settings) -> Limits {
        let second = Duration::from_secs(1);
        let minute = Duration::from_secs(60);
        let hour = Duration::from_secs(3_600);
        let limit = |burst, per, what| Limit::new(Rate { burst, per }, what);
        let table = settings.rate_limits.is_on().then(|| Table {
            addresses: limit(
                settings.address_rate_per_s,
                second,
                "too many requests from this address",
            ),
            users: limit(settings.user_rate_per_s, second, "too many requests of this user"),
            signins: limit(settings.signin_rate_per_min, minute, "too many attempts to sign in"),
            address_signins: limit(
                settings.signin_rate_per_min.saturating_mul(SIGNINS_PER_ADDRESS),
                minute,
                "too many attempts to sign in from this address",
            ),
            signups: limit(settings.signup_rate_per_h, hour, "too many accounts from this address"),
            holds: limit(settings.hold_rate_per_min, minute, "too many holds of this user"),
        });
        Limits {
            table,
            streams: Mutex::default(),
            user_streams_max: settings.user_streams_max,
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn address(&self, address: IpAddr) -> Result<()> {
        self.check(|table| &table.addresses, network(address))
    }

    /// Counts a request of a user.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn user(&self, user: BuyerId) -> Result<()> {
        self.check(|table| &table.users, user)
    }

    /// Counts an attempt to sign in, for the account and for the address.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn signin(&self, email: &str, address: IpAddr) -> Result<()> {
        self.check(|table| &table.address_signins, network(address))?;
        self.check(|table| &table.signins, email)
    }

    /// Counts a sign-up.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn signup(&self, address: IpAddr) -> Result<()> {
        self.check(|table| &table.signups, network(address))
    }

    /// Counts a hold, so that holding and releasing in circles comes to an end.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn hold(&self, user: BuyerId) -> Result<()> {
        self.check(|table| &table.holds, user)
    }

    /// Counts an open stream of a user until the guard is dropped.
    ///
    /// # Errors
    ///
    /// 429 `rate-limited`.
    pub(crate) fn stream(self: &std::sync::Arc<Self>, user: BuyerId) -> Result<StreamSlot> {
        let mut streams = self.streams.lock();
        let open = streams.entry(user).or_default();
        if self.table.is_some() && *open >= self.user_streams_max {
            let detail = "too many open streams of this user";
            return Err(Problem::new(Code::RateLimited, detail).retry_after_ms(1_000));
        }
        *open += 1;
        Ok(StreamSlot { limits: std::sync::Arc::clone(self), user })
    }

    /// Forgets the keys that have been at rest for long. Called every few seconds, which bounds
    /// how many there are.
    pub(crate) fn sweep(&self) {
        if let Some(table) = &self.table {
            let Table { addresses, users, signins, address_signins, signups, holds } = table;
            [addresses, users, signins, address_signins, signups, holds]
                .into_iter()
                .for_each(Limit::sweep);
        }
    }

    fn check(&self, limit: impl Fn(&Table) -> &Limit, key: impl Hash) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        limit(table).check(self.hasher.hash_one(key))
    }
}

/// What one household or one attacker has: a whole address, or the first 64 bits of a v6 one.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// An open stream counts while this lives.
#[must_use]
pub(crate) struct StreamSlot {
    limits: std::sync::Arc<Limits>,
    user: BuyerId,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut streams = self.limits.streams.lock();
        if let Some(open) = streams.get_mut(&self.user) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layer, Switch};
    use std::sync::Arc;

    fn limits(switch: Switch) -> Arc<Limits> {
        let layer = Layer {
            signin_rate_per_min: Some(3),
            user_streams_max: Some(1),
            rate_limits: Some(switch),
            ..Layer::default()
        };
        Arc::new(Limits::new(&Settings::from(layer)))
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn guessing_a_password_is_slowed_down_and_says_how_long() {
        let limits = limits(Switch::On);
        let tries: Vec<_> = (0..4).map(|_| limits.signin("a@b", HOME)).collect();
        assert!(tries[..3].iter().all(|result| result.is_ok()));
        let problem = tries[3].clone().expect_err("the fourth");
        let body = serde_json::to_value(problem.body()).expect("text and numbers");
        let wait = body["retry_after_ms"].as_u64().expect("a time");
        assert!((1..=20_000).contains(&wait), "{wait}");
    }

    #[test]
    fn guessing_from_many_addresses_is_slowed_down_too() {
        let limits = limits(Switch::On);
        let from = |n| IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, n));
        assert!((0..3).all(|n| limits.signin("a@b", from(n)).is_ok()));
        assert!(limits.signin("a@b", from(9)).is_err());
        assert!(limits.signin("c@d", from(9)).is_ok());
    }

    #[test]
    fn off_is_off() {
        let limits = limits(Switch::Off);
        assert!((0..100).all(|_| limits.signin("a@b", HOME).is_ok()));
    }

    #[test]
    fn a_stream_counts_while_it_is_open() {
        let limits = limits(Switch::On);
        let slot = limits.stream(BuyerId(1)).expect("the first");
        assert!(limits.stream(BuyerId(1)).is_err());
        assert!(limits.stream(BuyerId(2)).is_ok());
        drop(slot);
        assert!(limits.stream(BuyerId(1)).is_ok());
        assert!(limits.streams.lock().is_empty());
    }
}
