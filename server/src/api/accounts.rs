//! Signing up, in and out.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tmomi_persist::catalog::{self, CatalogError, NewUser, Noun};
use utoipa::ToSchema;

use crate::accounts::sessions::{self, Tokens};
use crate::accounts::{ACCESS_COOKIE, REFRESH_COOKIE, Role, check_same_site, cookie};
use crate::api::calls::{self, Begun};
use crate::app::{App, AppState};
use crate::extract::{Input, MaybeInput, User};
use crate::front::Peer;
use crate::idempotency::{Fingerprint, reused};
use crate::problem::{Code, Problem, ProblemView, Result};

/// Characters of a password.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=128;
/// Bytes of an email address at most (RFC 5321, section 4.5.3.1.3, without the brackets).
const EMAIL_BYTES_MAX: usize = 254;

/// An email address and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The address; its case does not matter.
    email: String,
    /// 8 to 128 characters.
    password: String,
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    /// The user's number.
    user_id: u64,
    /// The address as it was typed.
    email: String,
    /// What the user may do.
    role: Role,
}

/// An access token and what renews it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// `Bearer`.
    #[schema(value_type = String)]
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: u32,
    /// For `POST /v1/auth/refresh`, once.
    refresh_token: String,
}

/// A refresh token, unless the cookie has it.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshBody {
    /// The token.
    refresh_token: Option<String>,
}

impl From<catalog::User> for Account {
    fn from(user: catalog::User) -> Account {
        Account { user_id: user.user_id.0, email: user.email, role: user.role.into() }
    }
}

/// Makes an account
#[utoipa::path(
    post, path = "/v1/auth/signup", tag = "accounts", request_body = Credentials,
    responses(
        (status = 201, body = Account),
        (status = 409, description = "`email-taken`", body = ProblemView),
    ),
)]
pub(crate) async fn signup(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    input: Input<Credentials>,
) -> Result<Response> {
    let Credentials { email, password } = input.value;
    check_account(&email, &password)?;
    app.limits.signup(peer.0)?;
    // What is kept must not help to guess the password, so that is no part of it.
    let fingerprint = Fingerprint::of("POST", "/v1/auth/signup", email.as_bytes());
    let key = input.key.standing_for(fingerprint);
    let call = key.call_of_nobody(email.to_lowercase().as_bytes(), app.clock.now());
    let _running = calls::running(&app, call)?;
    if let Some(answer) = calls::answered(&app, call.as_ref()).await? {
        let user = app.catalog.user_by_email(&email).await.map_err(calls::refused)?;
        let same = app.accounts.passwords.verify(password, Some(user.password_hash)).await?;
        return if same { calls::again(answer) } else { Err(reused()) };
    }
    let password_hash = app.accounts.passwords.hash(password).await?;
    let mut change = match calls::begin(&app, call).await? {
        Begun::Fresh(change) => change,
        Begun::Answered(response) => return Ok(response),
    };
    let new = NewUser {
        email: &email,
        password_hash: &password_hash,
        role: catalog::Role::Buyer,
        at: app.clock.now(),
    };
    let user = change.create_user(new).await.map_err(calls::refused)?;
    calls::answer(change, StatusCode::CREATED, &Account::from(user)).await
}

/// Signs in
#[utoipa::path(
    post, path = "/v1/auth/signin", tag = "accounts", request_body = Credentials,
    responses(
        (status = 200, body = SignedIn),
        (status = 401, description = "`bad-credentials`", body = ProblemView),
    ),
)]
pub(crate) async fn signin(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    input: Input<Credentials>,
) -> Result<Response> {
    let Credentials { email, password } = input.value;
    let too_long = email.len() > EMAIL_BYTES_MAX || password.len() > 4 * PASSWORD_CHARS.end();
    app.limits.signin(&email.to_lowercase(), peer.0)?;
    let user = match app.catalog.user_by_email(&email).await {
        Ok(user) => Some(user),
        Err(CatalogError::NotFound(Noun::User)) => None,
        Err(error) => return Err(calls::refused(error)),
    };
    // A password that nobody can have is checked too, so that it takes as long.
    let password = if too_long { String::new() } else { password };
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let matches = app.accounts.passwords.verify(password, hash).await?;
    let Some(user) = user.filter(|_| matches) else {
        return Err(Problem::new(Code::BadCredentials, "email or password is wrong"));
    };
    let tokens = sessions::begin(&app, &user).await?;
    Ok(signed_in(&app, tokens))
}

/// Renews the tokens; the refresh token that was sent is used up
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "accounts", request_body = RefreshBody,
    responses(
        (status = 200, body = SignedIn),
        (status = 401, description = "`unauthenticated`", body = ProblemView),
    ),
)]
pub(crate) async fn refresh(
    State(app): State<AppState>,
    parts: Parts,
    input: MaybeInput<RefreshBody>,
) -> Result<Response> {
    let token = match input.value.refresh_token {
        Some(token) => token,
        None => {
            let detail = "send a refresh token, in the body or as a cookie";
            let missing = || Problem::new(Code::Unauthenticated, detail);
            let token = cookie(&parts.headers, REFRESH_COOKIE).ok_or_else(missing)?;
            check_same_site(&app.settings.cors_origins.0, &parts)?;
            token.to_owned()
        }
    };
    // A family that dies must do so also if the thief does not wait for the answer.
    let refreshing = Arc::clone(&app);
    let refresh = async move { sessions::refresh(&refreshing, &token, &input.key).await };
    Ok(signed_in(&app, calls::to_the_end(refresh).await?))
}

/// Ends this session, with all its tokens
#[utoipa::path(
    post, path = "/v1/auth/signout", tag = "accounts",
    responses((status = 204)),
)]
pub(crate) async fn signout(
    State(app): State<AppState>,
    user: User,
    // The session's refresh token may be sent along; it ends with the session.
    _input: MaybeInput<RefreshBody>,
) -> Result<Response> {
    let ending = Arc::clone(&app);
    calls::to_the_end(async move { sessions::end(&ending, user.session).await }).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookies(&app, &mut response, "", "", 0, 0);
    Ok(response)
}

/// Who am I
#[utoipa::path(
    get, path = "/v1/me", tag = "accounts",
    responses((status = 200, body = Account)),
)]
pub(crate) async fn me(State(app): State<AppState>, user: User) -> Result<Json<Account>> {
    let user = app.catalog.user(user.id).await.map_err(calls::refused)?;
    Ok(Json(user.into()))
}

/// The public keys of access and admission tokens
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "accounts",
    responses((status = 200, description = "a JWK set (RFC 7517)")),
)]
pub(crate) async fn jwks(State(app): State<AppState>) -> Response {
    let mut response = Json(app.accounts.keyring().jwks()).into_response();
    // Shorter than a retired key is kept, so nobody misses a new one for long.
    let public = HeaderValue::from_static("public, max-age=300");
    response.headers_mut().insert(CACHE_CONTROL, public);
    response
}

/// Checks an address and a password that are to make an account.
///
/// # Errors
///
/// 400 with a pointer.
pub(crate) fn check_account(email: &str, password: &str) -> Result<()> {
    check_email(email)?;
    if !PASSWORD_CHARS.contains(&password.chars().count()) {
        return Err(Problem::bad_field("/password", "must have 8 to 128 characters"));
    }
    Ok(())
}

fn check_email(email: &str) -> Result<()> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    let (local, domain) = email.rsplit_once('@').unwrap_or_default();
    let good = !local.is_empty() && !domain.is_empty() && email.chars().all(plain);
    if good && email.len() <= EMAIL_BYTES_MAX && email.matches('@').count() == 1 {
        return Ok(());
    }
    Err(Problem::bad_field("/email", "must be an email address"))
}

fn signed_in(app: &App, tokens: Tokens) -> Response {
    let (access_s, refresh_s) = (app.settings.access_ttl_s, app.settings.refresh_ttl_s);
    let body = SignedIn {
        access_token: tokens.access,
        token_type: "Bearer",
        expires_in: access_s,
        refresh_token: tokens.refresh,
    };
    let mut response = Json(&body).into_response();
    let (access, refresh) = (&body.access_token, &body.refresh_token);
    set_cookies(app, &mut response, access, refresh, access_s, refresh_s);
    response
}

fn set_cookies(
    app: &App,
    response: &mut Response,
    access: &str,
    refresh: &str,
    access_s: u32,
    refresh_s: u32,
) {
    let secure = if app.settings.cookies_secure.is_on() { "; Secure" } else { "" };
    let cookies = [
        format!(
            "{ACCESS_COOKIE}={access}; Path=/; Max-Age={access_s}; HttpOnly; SameSite=Lax{secure}"
        ),
        format!(
            "{REFRESH_COOKIE}={refresh}; Path=/v1/auth; Max-Age={refresh_s}; HttpOnly; \
             SameSite=Strict{secure}"
        ),
    ];
    for cookie in cookies {
        let value = HeaderValue::try_from(cookie).expect("tokens are visible ASCII");
        response.headers_mut().append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_at_sign_and_no_space() {
        assert!(check_email("a@b").is_ok());
        assert!(check_email("mina.kim+tickets@예시.kr").is_ok());
        let long = format!("{}@b", "a".repeat(EMAIL_BYTES_MAX));
        for email in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\r\nx: y", &long] {
            assert!(check_email(email).is_err(), "{email}");
        }
    }
}
