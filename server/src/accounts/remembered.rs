//! Verified access tokens, by their SHA-256, until they expire: a buyer's second request costs a
//! hash and a look instead of a signature check and a question to the catalog.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tmomi_engine::ids::TimeMs;

use super::{SessionId, User};

/// The table is cut in so many parts, each with its own lock.
const PARTS: usize = 64;
/// Tokens in one part at most: 64 times as many buyers at once.
const PART_TOKENS_MAX: usize = 8_192;

/// A token's SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a token.
    pub(crate) fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token.as_bytes()).into())
    }

    fn part(&self) -> usize {
        usize::from(self.0[31]) % PARTS
    }
}

/// The key is a cryptographic hash already: its first bytes are as good as any.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    user: User,
    expires_at: TimeMs,
}

type Part = HashMap<TokenHash, Entry, BuildHasherDefault<FirstBytes>>;

/// The table.
pub(crate) struct Remembered {
    parts: Box<[Mutex<Part>]>,
    /// How often sessions were forgotten.
    forgotten: AtomicU64,
}

/// Taken before the catalog is asked about a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before(u64);

impl Remembered {
    /// Knows no token.
    pub(crate) fn new() -> Remembered {
        Remembered {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Whose token it is, if it was verified and has not expired.
    pub(crate) fn user(&self, token: &TokenHash, now: TimeMs) -> Option<User> {
        let part = self.parts[token.part()].lock();
        part.get(token).filter(|entry| now < entry.expires_at).map(|entry| entry.user)
    }

    /// To be called before the catalog is asked whether the session is alive.
    pub(crate) fn before(&self) -> Before {
        // Pairs with the release in `forget`: whoever sees the count before it asks the catalog
        // before the session died and is refused by `remember`, or sees the count after it.
        Before(self.forgotten.load(Ordering::Acquire))
    }

    /// Remembers a verified token, unless some session ended since `before`.
    pub(crate) fn remember(
        &self,
        token: TokenHash,
        user: User,
        expires_at: TimeMs,
        before: Before,
        now: TimeMs,
    ) {
        let mut part = self.parts[token.part()].lock();
        // Under the part's lock: `forget` counts first and sweeps the parts afterwards, so an
        // entry that slips in before the count is swept.
        if self.forgotten.load(Ordering::Acquire) != before.0 {
            return;
        }
        if part.len() >= PART_TOKENS_MAX {
            part.retain(|_, entry| now < entry.expires_at);
        }
        if part.len() >= PART_TOKENS_MAX {
            // All of them are good. Beginning anew costs each buyer one check; looking for one
            // to leave out would cost every newcomer a look at all.
            part.clear();
        }
        part.insert(token, Entry { user, expires_at });
    }

    /// Forgets the tokens of every session that `ended` says so of. The catalog has to know of
    /// the end before.
    pub(crate) fn forget(&self, ended: impl Fn(&User) -> bool) {
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        for part in &self.parts {
            part.lock().retain(|_, entry| !ended(&entry.user));
        }
    }

    /// Forgets the tokens of one session.
    pub(crate) fn forget_session(&self, session: SessionId) {
        self.forget(|user| user.session == session);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use tmomi_engine::ids::BuyerId;

    fn user(session: u64) -> User {
        User { id: BuyerId(1), role: Role::Buyer, session: SessionId(session) }
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_its_session_ends() {
        let table = Remembered::new();
        let (one, two) = (TokenHash::of("one"), TokenHash::of("two"));
        let (now, end) = (TimeMs(1), TimeMs(10));
        table.remember(one, user(1), end, table.before(), now);
        table.remember(two, user(2), end, table.before(), now);
        assert_eq!(table.user(&one, TimeMs(9)), Some(user(1)));
        assert_eq!(table.user(&one, end), None);
        table.forget_session(SessionId(1));
        assert_eq!(table.user(&one, now), None);
        assert_eq!(table.user(&two, now), Some(user(2)));
    }

    #[test]
    fn a_session_that_ends_during_the_check_is_not_remembered() {
        let table = Remembered::new();
        let token = TokenHash::of("one");
        let before = table.before();
        table.forget_session(SessionId(1));
        table.remember(token, user(1), TimeMs(10), before, TimeMs(1));
        assert_eq!(table.user(&token, TimeMs(1)), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let table = Remembered::new();
        for n in 0..PART_TOKENS_MAX * PARTS + 10_000 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_ne_bytes());
            table.remember(TokenHash(hash), user(1), TimeMs(10), table.before(), TimeMs(1));
        }
        assert!(table.parts[0].lock().len() <= PART_TOKENS_MAX);
    }
}
