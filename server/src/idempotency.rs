//! `Idempotency-Key`: what a key is remembered by, and the requests that are still running.
//!
//! Outcomes of engine calls are remembered by the image, those of organiser calls by the catalog,
//! in the transaction of the change itself. Neither knows a request before it is decided, so two
//! requests with one key that run at the same time meet here.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use axum::http::HeaderMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tmomi_engine::ids::{BuyerId, RequestKey, Seq, TimeMs};
use tmomi_persist::catalog::Call;

use crate::problem::{Code, Problem, Result};

/// The header's name.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of a key at most.
const KEY_CHARS_MAX: usize = 128;
/// The table of running requests is cut in so many parts, each with its own lock.
const PARTS: usize = 64;

/// A request's key as the client sent it, if it did, and what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientKey(Option<(String, Fingerprint)>);

/// Reads the header.
///
/// # Errors
///
/// 400 unless it is 1 to 128 visible ASCII characters and there once.
pub(crate) fn sent_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).ok();
    let text = text.filter(|text| values.next().is_none() && is_key(text));
    let problem =
        || Problem::bad_request("Idempotency-Key must be 1 to 128 visible ASCII characters, once");
    text.map(|text| Some(text.to_owned())).ok_or_else(problem)
}

fn is_key(text: &str) -> bool {
    (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl ClientKey {
    /// A key for the request with this fingerprint.
    pub(crate) fn new(text: String, fingerprint: Fingerprint) -> ClientKey {
        ClientKey(Some((text, fingerprint)))
    }

    /// The same key for a request that is told apart by less than its whole body.
    pub(crate) fn standing_for(self, fingerprint: Fingerprint) -> ClientKey {
        ClientKey(self.0.map(|(text, _)| (text, fingerprint)))
    }

    /// What the key is remembered by for this user; `None` if there is none.
    pub(crate) fn call(&self, user: BuyerId, at: TimeMs) -> Option<Call> {
        let (key, fingerprint) = self.digest(&user.0.to_be_bytes())?;
        Some(Call { scope: user.0, key, fingerprint, at })
    }

    /// The same for a call without a user, like sign-up, which has something else to keep its keys
    /// apart from others': the address that signs up.
    pub(crate) fn call_of_nobody(&self, scope: &[u8], at: TimeMs) -> Option<Call> {
        let (key, fingerprint) = self.digest(scope)?;
        Some(Call { scope: 0, key, fingerprint, at })
    }

    fn digest(&self, scope: &[u8]) -> Option<([u8; 32], [u8; 32])> {
        let (key, fingerprint) = self.0.as_ref()?;
        Some((digest(scope, key), fingerprint.0))
    }
}

/// What a key that came in a line of a batch is remembered by.
///
/// # Errors
///
/// 400 unless it is 1 to 128 visible ASCII characters.
pub(crate) fn call_of_line(
    user: BuyerId,
    key: &str,
    fingerprint: Fingerprint,
    at: TimeMs,
) -> Result<Call> {
    let problem = || {
        let detail = "a key must be 1 to 128 visible ASCII characters";
        Problem::bad_field("/idempotency_key", detail)
    };
    let call = || {
        let key = digest(&user.0.to_be_bytes(), key);
        Call { scope: user.0, key, fingerprint: fingerprint.0, at }
    };
    is_key(key).then(call).ok_or_else(problem)
}

fn digest(scope: &[u8], key: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    // The length keeps a scope and a key apart that only together read the same.
    hasher.update((scope.len() as u64).to_be_bytes());
    hasher.update(scope);
    hasher.update(key.as_bytes());
    hasher.finalize().into()
}

/// What the engine and the image know a call's key by; [`RequestKey::NONE`] if there is none.
pub(crate) fn request_key(call: Option<&Call>) -> RequestKey {
    call.map_or(RequestKey::NONE, |call| RequestKey {
        // 0 means "no key" to the engine.
        hash: first_word(&call.key).max(1),
        fingerprint: first_word(&call.fingerprint),
    })
}

/// Tells requests with one key apart: method, path and body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a request.
    pub(crate) fn of(method: &str, path: &str, body: &[u8]) -> Fingerprint {
        let mut hasher = Sha256::new();
        hasher.update(method.as_bytes());
        hasher.update([0]);
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(body);
        Fingerprint(hasher.finalize().into())
    }
}

fn first_word(digest: &[u8; 32]) -> u64 {
    let first = digest.first_chunk::<8>().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}

/// The event that a key waits for: of its request that is running, one that never comes; of one
/// whose client went away, what it has decided, which stands.
const RUNNING: Seq = Seq(u64::MAX);

/// The keys of requests that are running, or whose decision is not committed yet.
#[derive(Debug)]
pub(crate) struct InProgress {
    parts: Box<[Mutex<HashMap<u64, Seq, Mix>>]>,
}

/// Keys are hashes already, but whoever sends them may have looked for some whose first bits are
/// the same; so they are mixed with a secret.
#[derive(Clone, Copy, Debug)]
struct Mix([u64; 2]);

#[derive(Debug)]
struct Mixed {
    secret: [u64; 2],
    mixed: u64,
}

impl BuildHasher for Mix {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed { secret: self.0, mixed: 0 }
    }
}

impl Hasher for Mixed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key ^ self.secret[0]) * u128::from(self.secret[1] | 1);
        self.mixed = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.mixed
    }
}

impl InProgress {
    /// Nothing runs.
    pub(crate) fn new() -> InProgress {
        let secret = RandomState::new();
        let mix = Mix([secret.hash_one(0), secret.hash_one(1)]);
        let part = |_| Mutex::new(HashMap::with_hasher(mix));
        InProgress { parts: (0..PARTS).map(part).collect() }
    }

    /// Takes `key` until the guard is dropped, and longer if it has [`Running::decided`] something
    /// that is not committed then. `applied` is the last event that the image has. A request
    /// without a key takes nothing. The caller asks the image for the key's outcome *after* this.
    ///
    /// # Errors
    ///
    /// 409 `idempotency-in-progress` while another request has it.
    pub(crate) fn begin(&self, key: RequestKey, applied: Seq) -> Result<Running<'_>> {
        if key.is_some() {
            let mut part = self.part(key.hash).lock();
            if part.len() == part.capacity() {
                part.retain(|_, waits_for| *waits_for > applied);
                // So that the next sweep is as many keys away as this one looked at.
                let kept = part.len();
                part.reserve(kept);
            }
            if part.get(&key.hash).is_some_and(|waits_for| *waits_for > applied) {
                let detail = "a request with this key has not been answered yet";
                return Err(Problem::new(Code::IdempotencyInProgress, detail));
            }
            part.insert(key.hash, RUNNING);
        }
        Ok(Running { table: self, key, decided: None })
    }

    fn part(&self, hash: u64) -> &Mutex<HashMap<u64, Seq, Mix>> {
        &self.parts[hash as usize % PARTS]
    }
}

/// A running request has its key.
///
/// A handler's future is dropped when its client goes away, also between the decision and its
/// commit. The key then stays taken until the image knows the outcome, so that a retry cannot
/// decide a second time.
#[must_use]
#[derive(Debug)]
pub(crate) struct Running<'a> {
    table: &'a InProgress,
    key: RequestKey,
    decided: Option<Seq>,
}

impl Running<'_> {
    /// The key, for the decision; [`RequestKey::NONE`] if there is none.
    pub(crate) fn key(&self) -> RequestKey {
        self.key
    }

    /// The request has decided something; call it before the first `await` after the decision.
    pub(crate) fn decided(&mut self, seq: Seq) {
        self.decided = Some(seq);
    }

    /// Nobody waits here for the commit of what the request has decided; the key stays taken until
    /// the image knows the outcome.
    pub(crate) fn left(mut self, seq: Seq) {
        self.decided(seq);
    }

    /// The image knows the outcome.
    pub(crate) fn committed(mut self) {
        self.decided = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.key.is_some() {
            return;
        }
        let hash = self.key.hash;
        let mut part = self.table.part(hash).lock();
        match self.decided {
            Some(seq) => part.insert(hash, seq),
            None => part.remove(&hash),
        };
    }
}

/// 422 `idempotency-key-reused`: the key is known with another method, path or body.
pub(crate) fn reused() -> Problem {
    let detail = "the key was used with another path or body";
    Problem::new(Code::IdempotencyKeyReused, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(user: u64) -> RequestKey {
        let fingerprint = Fingerprint::of("POST", "/v1/x", b"{}");
        let key = ClientKey::new("k".to_owned(), fingerprint);
        request_key(key.call(BuyerId(user), TimeMs(0)).as_ref())
    }

    #[test]
    fn keys_are_visible_and_bounded() {
        let line = |text: &str| call_of_line(BuyerId(1), text, Fingerprint::default(), TimeMs(0));
        assert!(line("").is_err());
        assert!(line("a b").is_err());
        assert!(line(&"k".repeat(129)).is_err());
        assert!(line(&"k".repeat(128)).is_ok());
        assert_eq!(sent_key(&HeaderMap::new()).expect("no key"), None);
    }

    #[test]
    fn users_do_not_share_keys() {
        assert_eq!(key(1), key(1));
        assert_ne!(key(1).hash, key(2).hash);
        let fingerprint = Fingerprint::of("POST", "/v1/x", b"{}");
        assert_ne!(fingerprint, Fingerprint::of("POST", "/v1/x", b"{ }"));
        assert_ne!(fingerprint, Fingerprint::of("POST", "/v1/y", b"{}"));
    }

    #[test]
    fn a_key_is_taken_until_its_request_has_ended() {
        let table = InProgress::new();
        let key = key(1);
        let running = table.begin(key, Seq(0)).expect("free");
        let code = table.begin(key, Seq(0)).expect_err("taken").code();
        assert_eq!(code, Code::IdempotencyInProgress);
        drop(running);
        assert!(table.begin(key, Seq(0)).is_ok());
        let _none = table.begin(RequestKey::NONE, Seq(0)).expect("no key");
        assert!(table.begin(RequestKey::NONE, Seq(0)).is_ok());
    }

    #[test]
    fn a_client_that_goes_away_leaves_the_key_until_the_commit() {
        let table = InProgress::new();
        let key = key(1);
        let mut running = table.begin(key, Seq(4)).expect("free");
        running.decided(Seq(6));
        drop(running);
        assert!(table.begin(key, Seq(5)).is_err());
        let mut running = table.begin(key, Seq(6)).expect("committed");
        running.decided(Seq(9));
        running.committed();
        assert!(table.begin(key, Seq(8)).is_ok());
    }
}
