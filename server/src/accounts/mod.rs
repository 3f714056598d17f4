//! Who is asking: access tokens, sessions, passwords.

pub(crate) mod keys;
pub(crate) mod passwords;
pub(crate) mod remembered;
pub(crate) mod sessions;
pub(crate) mod tokens;

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use parking_lot::RwLock;
use std::sync::Arc;
use tmomi_engine::ids::{BuyerId, TimeMs};
use tmomi_persist::catalog::{self, Family};

use crate::api::calls;
use crate::app::App;
use crate::problem::{Code, Problem, Result};
use passwords::Passwords;
use remembered::{Remembered, TokenHash};
use tokens::Keyring;

/// The cookie that has an access token.
pub(crate) const ACCESS_COOKIE: &str = "tmomi_access";
/// The cookie that has a refresh token.
pub(crate) const REFRESH_COOKIE: &str = "tmomi_refresh";

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Buys.
    Buyer,
    /// Organises, and buys.
    Admin,
}

impl From<catalog::Role> for Role {
    fn from(role: catalog::Role) -> Role {
        match role {
            catalog::Role::Buyer => Role::Buyer,
            catalog::Role::Admin => Role::Admin,
        }
    }
}

/// One sign-in and everything that was refreshed from it: the family of its refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The catalog's number of the user.
    pub(crate) id: BuyerId,
    /// What the user may do.
    pub(crate) role: Role,
    /// The sign-in that the request belongs to.
    pub(crate) session: SessionId,
}

/// Tokens, passwords and what is remembered of them.
pub(crate) struct Accounts {
    keyring: RwLock<Arc<Keyring>>,
    /// Verified tokens.
    pub(crate) remembered: Remembered,
    /// The threads that hash.
    pub(crate) passwords: Passwords,
}

impl Accounts {
    /// Nobody is remembered.
    pub(crate) fn new(keyring: Keyring, passwords: Passwords) -> Accounts {
        let keyring = RwLock::new(Arc::new(keyring));
        Accounts { keyring, remembered: Remembered::new(), passwords }
    }

    /// The keys that sign and verify.
    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    /// Other keys from now on.
    pub(crate) fn set_keyring(&self, keyring: Keyring) {
        *self.keyring.write() = Arc::new(keyring);
    }

    /// Whose request it is.
    ///
    /// # Errors
    ///
    /// 401 without a good access token; 403 if a cookie has it and another site sent the request.
    pub(crate) async fn authenticate(&self, app: &App, parts: &Parts) -> Result<User> {
        let bearer = bearer(&parts.headers)?;
        let by_cookie = || cookie(&parts.headers, ACCESS_COOKIE).ok_or_else(unauthenticated);
        let token = bearer.map_or_else(by_cookie, Ok)?;
        let hash = TokenHash::of(token);
        let user = match self.remembered.user(&hash, app.clock.now()) {
            Some(user) => user,
            None => self.verify(app, token, hash).await?,
        };
        if bearer.is_none() {
            check_same_site(&app.settings.cors_origins.0, parts)?;
        }
        Ok(user)
    }

    async fn verify(&self, app: &App, token: &str, hash: TokenHash) -> Result<User> {
        let now = app.clock.now();
        let claims = self.keyring().verify_access(token, &app.settings.issuer, now);
        let claims = claims.map_err(|why| {
            tracing::debug!(?why, "an access token was refused");
            unauthenticated()
        })?;
        let before = self.remembered.before();
        let known = app.catalog.session_user(Family(claims.sid)).await.map_err(calls::refused)?;
        // The catalog's word counts: a role may have changed, a session ended.
        let known = known.filter(|user| user.user_id.to_string() == claims.sub);
        let known = known.ok_or_else(unauthenticated)?;
        let (id, role) = (known.user_id, known.role.into());
        let user = User { id, role, session: SessionId(claims.sid) };
        let expires_at = TimeMs(claims.exp * 1_000);
        self.remembered.remember(hash, user, expires_at, before, now);
        Ok(user)
    }
}

fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "send a valid access token: Authorization: Bearer ...")
}

/// The token of the `Authorization` header, if there is one.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    // What is no token is found out when it is looked up.
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|_| values.next().is_none());
    let (scheme, token) = text.and_then(|text| text.split_once(' ')).ok_or_else(unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated());
    }
    Ok(Some(token.trim()))
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A browser sends our cookies with requests that another site made it send. `SameSite=Lax` stops
/// most of them; this stops the rest: what changes something must come from our own pages, or from
/// the `origins` of the settings. A client that is no browser sends neither header and is not a
/// danger to itself.
///
/// # Errors
///
/// 403 `forbidden`.
pub(crate) fn check_same_site(origins: &[String], parts: &Parts) -> Result<()> {
    let text = |name| parts.headers.get(name).map(|value: &HeaderValue| value.to_str());
    let origin = text(ORIGIN.as_str());
    let allowed = matches!(origin, Some(Ok(origin)) if origins.iter().any(|o| o == origin));
    if parts.method.is_safe() || allowed {
        return Ok(());
    }
    let same = match (text("sec-fetch-site"), origin) {
        (Some(site), _) => matches!(site, Ok("same-origin" | "none")),
        (None, Some(origin)) => {
            let origin = origin.ok().and_then(|origin| origin.split_once("://"));
            // HTTP/2 names the host in the target.
            let target = parts.uri.authority().map(|authority| authority.as_str());
            let host = target.or_else(|| text(HOST.as_str())?.ok());
            origin.is_some_and(|(_, authority)| Some(authority) == host)
        }
        (None, None) => true,
    };
    let problem =
        || Problem::new(Code::Forbidden, "a cookie does not sign requests of other sites");
    if same { Ok(()) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = headers(&[("cookie", "xtmomi_access=no; tmomi_access=yes; a=b")]);
        assert_eq!(cookie(&headers, ACCESS_COOKIE), Some("yes"));
        assert_eq!(cookie(&headers, REFRESH_COOKIE), None);
    }

    #[test]
    fn another_site_cannot_use_a_cookie() {
        let ours = ["https://shop.example".to_owned()];
        let check = |method: &str, uri: &str, pairs: &[(&'static str, &'static str)]| {
            let request = axum::http::Request::builder().method(method).uri(uri).body(());
            let (mut parts, ()) = request.expect("a request").into_parts();
            parts.headers = headers(pairs);
            check_same_site(&ours, &parts).is_ok()
        };
        let post = |pairs: &[(&'static str, &'static str)]| check("POST", "/v1/x", pairs);
        assert!(post(&[]));
        assert!(post(&[("sec-fetch-site", "same-origin")]));
        assert!(!post(&[("sec-fetch-site", "cross-site")]));
        assert!(!post(&[("sec-fetch-site", "same-site")]));
        assert!(post(&[("origin", "https://a.example"), ("host", "a.example")]));
        assert!(!post(&[("origin", "https://b.example"), ("host", "a.example")]));
        assert!(!post(&[("origin", "null"), ("host", "a.example")]));
        assert!(post(&[("origin", "https://shop.example"), ("sec-fetch-site", "cross-site")]));
        assert!(!post(&[("origin", "https://shop.example.evil"), ("host", "a.example")]));
        let h2 = |origin| check("POST", "https://a.example/v1/x", &[("origin", origin)]);
        assert!(h2("https://a.example") && !h2("https://b.example"));
        assert!(check("GET", "/v1/x", &[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn only_a_bearer_token_is_a_token() {
        assert_eq!(bearer(&headers(&[])).expect("none"), None);
        assert_eq!(bearer(&headers(&[("authorization", "bearer t")])).expect("one"), Some("t"));
        assert!(bearer(&headers(&[("authorization", "Basic t")])).is_err());
        assert!(bearer(&headers(&[("authorization", "t")])).is_err());
    }
}
