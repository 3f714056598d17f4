//! The keys that sign tokens: kept in the catalog, changed once a month, and good for checking
//! until the last token that they signed has expired.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tmomi_engine::ids::TimeMs;
use tmomi_persist::catalog::{Catalog, CatalogError, SigningKey};

use super::tokens::Keyring;

/// How long a key signs.
const SIGNS_MS: u64 = 30 * 86_400_000;
/// How long a retired key verifies: longer than any token lives. An access token lives for an
/// hour at most, an admission token for a day.
const VERIFIES_MS: u64 = 25 * 3_600_000;
const KEY_BYTES: usize = 32;

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The catalog failed.
    #[error("the signing keys cannot be read or kept: {0}")]
    Catalog(#[from] CatalogError),
    /// A key is not one of ours.
    #[error("the signing key {0} in the catalog is damaged: remove its row from signing_keys")]
    Damaged(String),
}

/// Loads the keys, makes a new one if the newest has signed for a month, and forgets those that
/// no token needs.
pub(crate) async fn load(catalog: &Catalog, now: TimeMs) -> Result<Keyring, KeysError> {
    let mut keys = catalog.signing_keys().await?;
    let signs =
        |key: &SigningKey| key.retired_at.is_none() && now.since_ms(key.created_at) < SIGNS_MS;
    if !keys.iter().any(signs) {
        let key = generate(now);
        let mut change = catalog.change().await?;
        for old in keys.iter().filter(|key| key.retired_at.is_none()) {
            change.retire_signing_key(&old.kid, now).await?;
        }
        change.add_signing_key(&key).await?;
        let before = TimeMs(now.0.saturating_sub(VERIFIES_MS));
        change.forget_signing_keys(before).await?;
        change.commit_unanswered().await?;
        tracing::info!(kid = %key.kid, "a new key signs tokens");
        keys = catalog.signing_keys().await?;
    }
    keyring(&keys, now)
}

fn keyring(keys: &[SigningKey], now: TimeMs) -> Result<Keyring, KeysError> {
    let verifies = |key: &&SigningKey| {
        key.retired_at.is_none_or(|retired_at| now.since_ms(retired_at) < VERIFIES_MS)
    };
    let secret = |key: &SigningKey| {
        let secret = <[u8; KEY_BYTES]>::try_from(&key.private[..]);
        secret.map_err(|_| KeysError::Damaged(key.kid.clone()))
    };
    let mut good = Vec::new();
    for key in keys.iter().filter(verifies) {
        good.push((&*key.kid, secret(key)?, key.retired_at));
    }
    let newest = good.iter().find(|(_, _, retired_at)| retired_at.is_none());
    let (kid, signing, _) = newest.ok_or_else(|| KeysError::Damaged("none".to_owned()))?;
    let older = good.iter().map(|(kid, secret, _)| (*kid, secret));
    Ok(Keyring::new(kid, signing, older))
}

fn generate(now: TimeMs) -> SigningKey {
    let mut bytes = [0; KEY_BYTES + 9];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    let (private, kid) = bytes.split_at(KEY_BYTES);
    SigningKey {
        kid: URL_SAFE_NO_PAD.encode(kid),
        private: private.to_vec(),
        created_at: now,
        retired_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kid: &str, n: u8, created_at: u64, retired_at: Option<u64>) -> SigningKey {
        let retired_at = retired_at.map(TimeMs);
        let (kid, private) = (kid.to_owned(), vec![n; KEY_BYTES]);
        SigningKey { kid, private, created_at: TimeMs(created_at), retired_at }
    }

    fn kids(keys: &[SigningKey], now: u64) -> Vec<String> {
        let jwks = keyring(keys, TimeMs(now)).expect("keys").jwks();
        let keys = jwks["keys"].as_array().expect("a list").iter();
        keys.map(|key| key["kid"].as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn a_retired_key_verifies_until_its_last_token_has_expired() {
        let keys = [key("new", 2, 100, None), key("old", 1, 0, Some(100))];
        assert_eq!(kids(&keys, 100), ["new", "old"]);
        assert_eq!(kids(&keys, 100 + VERIFIES_MS), ["new"]);
    }

    #[tokio::test]
    async fn keys_survive_a_restart_and_change_once_a_month() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("catalog.db");
        let catalog = Catalog::open(&path).await.expect("a catalog");
        let first = load(&catalog, TimeMs(1_000)).await.expect("a key").jwks();
        catalog.close().await;
        let catalog = Catalog::open(&path).await.expect("the same catalog");
        let again = load(&catalog, TimeMs(2_000)).await.expect("a key").jwks();
        assert_eq!(first, again);
        let later = TimeMs(1_000 + SIGNS_MS);
        let rotated = load(&catalog, later).await.expect("a key").jwks();
        assert_eq!(rotated["keys"].as_array().map(Vec::len), Some(2));
        let end = later.plus_ms(VERIFIES_MS);
        let end = load(&catalog, end).await.expect("a key").jwks();
        assert_eq!(end["keys"].as_array().map(Vec::len), Some(1));
    }
}
