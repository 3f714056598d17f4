//! Sessions: a family of refresh tokens, each good once, and the access tokens made with them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tmomi_engine::ids::{BuyerId, TimeMs};
use tmomi_persist::catalog::{self, Answer, CatalogError, Change, Family, Rotation, Session};

use super::tokens::{ACCESS_AUDIENCE, AccessClaims};
use super::{SessionId, passwords};
use crate::api::calls;
use crate::app::App;
use crate::idempotency::{self, ClientKey};
use crate::problem::{Code, Problem, Result};

/// Random bytes of a refresh token.
const REFRESH_BYTES: usize = 32;
/// Characters of a refresh token that is looked at at all.
const REFRESH_CHARS_MAX: usize = 128;

/// What a client signs its requests with.
pub(crate) struct Tokens {
    /// For requests.
    pub(crate) access: String,
    /// For new tokens, once.
    pub(crate) refresh: String,
}

/// A refresh token; the catalog keeps only its hash.
struct Refresh {
    text: String,
    hash: [u8; 32],
}

impl Refresh {
    fn new() -> Refresh {
        let mut bytes = [0; REFRESH_BYTES];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let hash = Sha256::digest(text.as_bytes()).into();
        Refresh { text, hash }
    }
}

/// Begins a session of a user whose password was right.
///
/// # Errors
///
/// 503 if the catalog does not answer.
pub(crate) async fn begin(app: &App, user: &catalog::User) -> Result<Tokens> {
    let refresh = Refresh::new();
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let expires_at = refresh_end(app);
    let begun = change.begin_session(user.user_id, &refresh.hash, expires_at).await;
    begun.map_err(calls::refused)?;
    let session = change.session_of(&refresh.hash).await.map_err(calls::refused)?;
    let session = session.ok_or_else(|| Problem::internal("a session that began is not there"))?;
    change.commit_unanswered().await.map_err(calls::not_committed)?;
    Ok(Tokens { access: access(app, user, session.family), refresh: refresh.text })
}

/// What the catalog remembers of a refresh with a key: no token, but what to make new ones of.
#[derive(Serialize, Deserialize)]
struct Refreshed {
    family: u64,
    user_id: u64,
}

/// New tokens for a refresh token. With the same key the same request gives new tokens again: the
/// client has lost the answer, and no thief knows the key.
///
/// # Errors
///
/// 401 for a token that is not good, 422 for a key of another request.
pub(crate) async fn refresh(app: &App, token: &str, key: &ClientKey) -> Result<Tokens> {
    if token.len() > REFRESH_CHARS_MAX {
        return Err(not_good());
    }
    let old: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    let new = Refresh::new();
    let now = app.clock.now();
    let call = key.call_of_nobody(&old, now);
    let _running = calls::running(app, call)?;
    let session = match app.catalog.begin(call).await.map_err(calls::refused)? {
        catalog::Begun::KeyReused => return Err(idempotency::reused()),
        catalog::Begun::Fresh(change) => rotate(app, change, &old, &new, now).await?,
        catalog::Begun::Done(answer) => refresh_again(app, &answer, &new, now).await?,
    };
    let user = app.catalog.user(session.user).await.map_err(calls::refused)?;
    Ok(Tokens { access: access(app, &user, session.family), refresh: new.text })
}

async fn rotate(
    app: &App,
    mut change: Change,
    old: &[u8; 32],
    new: &Refresh,
    now: TimeMs,
) -> Result<Session> {
    let session = change.session_of(old).await.map_err(calls::refused)?.ok_or_else(not_good)?;
    let rotation = change.rotate_session(old, &new.hash, refresh_end(app), now).await;
    match rotation.map_err(calls::refused)? {
        Rotation::Fresh(_) => {
            let refreshed = Refreshed { family: session.family.0, user_id: session.user.0 };
            let body = serde_json::to_vec(&refreshed).map_err(Problem::internal)?;
            let answer = Answer { status: 200, body };
            change.commit(&answer).await.map_err(calls::not_committed)?;
            Ok(session)
        }
        Rotation::Reused => {
            change.commit_unanswered().await.map_err(calls::not_committed)?;
            app.accounts.remembered.forget_session(SessionId(session.family.0));
            tracing::warn!(user_id = session.user.0, "a refresh token came twice; session ended");
            Err(not_good())
        }
        Rotation::Unknown | Rotation::Expired => Err(not_good()),
    }
}

async fn refresh_again(app: &App, answer: &Answer, new: &Refresh, now: TimeMs) -> Result<Session> {
    let done: Refreshed = serde_json::from_slice(&answer.body).map_err(Problem::internal)?;
    let session = Session { family: Family(done.family), user: BuyerId(done.user_id) };
    let mut change = app.catalog.change().await.map_err(calls::refused)?;
    let added = change.add_token(session, &new.hash, refresh_end(app), now).await;
    if !added.map_err(calls::refused)? {
        return Err(not_good());
    }
    change.commit_unanswered().await.map_err(calls::not_committed)?;
    Ok(session)
}

/// Ends a session with all its tokens.
///
/// # Errors
///
/// 503 if the catalog does not answer.
pub(crate) async fn end(app: &App, session: SessionId) -> Result<()> {
    let ended: std::result::Result<(), CatalogError> = async {
        let mut change = app.catalog.change().await?;
        change.end_family(Family(session.0)).await?;
        change.commit_unanswered().await
    }
    .await;
    ended.map_err(calls::not_committed)?;
    app.accounts.remembered.forget_session(session);
    Ok(())
}

fn access(app: &App, user: &catalog::User, family: Family) -> String {
    let now_s = app.clock.now().0 / 1_000;
    app.accounts.keyring().sign_access(&AccessClaims {
        iss: app.settings.issuer.clone(),
        aud: ACCESS_AUDIENCE.to_owned(),
        sub: user.user_id.to_string(),
        role: user.role.name().to_owned(),
        sid: family.0,
        iat: now_s,
        nbf: now_s,
        exp: now_s + u64::from(app.settings.access_ttl_s),
        jti: passwords::random_text(),
    })
}

fn refresh_end(app: &App) -> TimeMs {
    app.clock.now().plus_ms(u64::from(app.settings.refresh_ttl_s) * 1_000)
}

fn not_good() -> Problem {
    Problem::new(Code::Unauthenticated, "the refresh token is not good; sign in again")
}
