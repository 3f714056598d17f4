//! Users, the refresh tokens of their sessions, and the keys that sign tokens.

use sqlx::{QueryBuilder, Row as _};
use tmomi_engine::ids::{BuyerId, TimeMs};

use super::{
    Catalog, CatalogError, Change, Conn, Noun, Row, folded, number, sql, sql_time, time,
    time_or_none, unreadable,
};
use crate::database::inserted_number;

/// Users in one question at most; SQLite takes 32,766 parameters.
const USERS_ASKED_MAX: usize = 10_000;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Buys.
    Buyer,
    /// Runs the house.
    Admin,
}

impl Role {
    /// The role as the API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Buyer => "buyer",
            Role::Admin => "admin",
        }
    }

    fn from_name(name: &str) -> Option<Role> {
        [Role::Buyer, Role::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The number, never given twice.
    pub user_id: BuyerId,
    /// As it was typed; unique without regard to case.
    pub email: String,
    /// As the password hasher writes it.
    pub password_hash: String,
    /// What the user may do.
    pub role: Role,
    /// When the account was made.
    pub created_at: TimeMs,
}

impl std::fmt::Debug for User {
    /// Without the password hash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut user = f.debug_struct("User");
        user.field("user_id", &self.user_id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A user to be made.
#[derive(Clone, Copy)]
pub struct NewUser<'a> {
    /// As it was typed.
    pub email: &'a str,
    /// As the password hasher writes it.
    pub password_hash: &'a str,
    /// What the user may do.
    pub role: Role,
    /// Now.
    pub at: TimeMs,
}

/// What became of a refresh token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was good; the new one stands in its place.
    Fresh(BuyerId),
    /// It had been used before: somebody has a copy, so its whole family is dead now.
    Reused,
    /// There is no such token, or its family is dead.
    Unknown,
    /// It was good once.
    Expired,
}

/// A key that signs tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its public name.
    pub kid: String,
    /// The private key, as the server encodes it.
    pub private: Vec<u8>,
    /// When it was made.
    pub created_at: TimeMs,
    /// Since when it signs no more.
    pub retired_at: Option<TimeMs>,
}

impl std::fmt::Debug for SigningKey {
    /// Without the private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

pub(super) fn user(row: &Row) -> Result<User, sqlx::Error> {
    let role: &str = row.try_get("role")?;
    Ok(User {
        user_id: BuyerId(number(row, "user_id")?),
        email: row.try_get("email")?,
        password_hash: row.try_get("password_hash")?,
        role: Role::from_name(role).ok_or_else(|| unreadable("role", &role))?,
        created_at: time(row, "created_at")?,
    })
}

impl Catalog {
    /// The user with this number.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn user(&self, id: BuyerId) -> Result<User, CatalogError> {
        let query = sqlx::query("SELECT * FROM users WHERE user_id = ?").bind(sql(id.0));
        let row = query.fetch_optional(&mut self.read().await?).await?;
        Ok(user(&row.ok_or(CatalogError::NotFound(Noun::User))?)?)
    }

    /// The user with this address, whatever the case of its letters.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn user_by_email(&self, email: &str) -> Result<User, CatalogError> {
        let query = sqlx::query("SELECT * FROM users WHERE email_folded = ?").bind(folded(email));
        let row = query.fetch_optional(&mut self.read().await?).await?;
        Ok(user(&row.ok_or(CatalogError::NotFound(Noun::User))?)?)
    }

    /// Those of `users` that exist, ascending. Asks for so many at a time that the database takes
    /// the question.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn known_users(&self, users: &[BuyerId]) -> Result<Vec<BuyerId>, CatalogError> {
        let mut known = Vec::with_capacity(users.len());
        for users in users.chunks(USERS_ASKED_MAX) {
            let mut query = QueryBuilder::new("SELECT user_id FROM users WHERE user_id IN (");
            let mut list = query.separated(", ");
            for user in users {
                list.push_bind(sql(user.0));
            }
            query.push(")");
            for row in query.build().fetch_all(&mut self.read().await?).await? {
                known.push(BuyerId(number(&row, "user_id")?));
            }
        }
        known.sort_unstable();
        Ok(known)
    }

    /// All signing keys, the newest first.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>, CatalogError> {
        let query = sqlx::query("SELECT * FROM signing_keys ORDER BY created_at DESC, kid");
        let rows = query.fetch_all(&mut self.read().await?).await?;
        let key = |row: &Row| {
            Ok(SigningKey {
                kid: row.try_get("kid")?,
                private: row.try_get("private")?,
                created_at: time(row, "created_at")?,
                retired_at: time_or_none(row, "retired_at")?,
            })
        };
        rows.iter().map(key).collect()
    }
}

impl Change {
    /// Makes a user.
    ///
    /// # Errors
    ///
    /// `EmailTaken` or `Unavailable`.
    pub async fn create_user(&mut self, new: NewUser<'_>) -> Result<User, CatalogError> {
        let done = sqlx::query(
            "INSERT INTO users (email, email_folded, password_hash, role, created_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(new.email)
        .bind(folded(new.email))
        .bind(new.password_hash)
        .bind(new.role.name())
        .bind(sql_time(new.at))
        .execute(self.conn())
        .await
        .map_err(|error| match &error {
            sqlx::Error::Database(e) if e.is_unique_violation() => CatalogError::EmailTaken,
            _ => CatalogError::Unavailable(error),
        })?;
        Ok(User {
            user_id: BuyerId(inserted_number(self.conn(), done).await? as u64),
            email: new.email.to_owned(),
            password_hash: new.password_hash.to_owned(),
            role: new.role,
            created_at: new.at,
        })
    }

    /// Gives a user another password and role; his sessions end.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable`.
    pub async fn set_credentials(
        &mut self,
        id: BuyerId,
        password_hash: &str,
        role: Role,
    ) -> Result<(), CatalogError> {
        let query = sqlx::query("UPDATE users SET password_hash = ?, role = ? WHERE user_id = ?")
            .bind(password_hash)
            .bind(role.name())
            .bind(sql(id.0));
        if query.execute(self.conn()).await?.rows_affected() == 0 {
            return Err(CatalogError::NotFound(Noun::User));
        }
        self.end_sessions(id).await
    }

    /// Begins a session: a family of refresh tokens, of which `token_hash` is the first.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn begin_session(
        &mut self,
        user: BuyerId,
        token_hash: &[u8; 32],
        expires_at: TimeMs,
    ) -> Result<(), CatalogError> {
        let token = insert_token(self.conn(), token_hash, 0, user, expires_at).await?;
        let query = sqlx::query("UPDATE refresh_tokens SET family = ? WHERE token_id = ?");
        query.bind(token).bind(token).execute(self.conn()).await?;
        Ok(())
    }

    /// Puts `new_hash` in the place of `old_hash`. What [`Rotation`] says is done with the
    /// commit, the death of a family too.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn rotate_session(
        &mut self,
        old_hash: &[u8; 32],
        new_hash: &[u8; 32],
        expires_at: TimeMs,
        now: TimeMs,
    ) -> Result<Rotation, CatalogError> {
        let row = sqlx::query("SELECT * FROM refresh_tokens WHERE token_hash = ?")
            .bind(&old_hash[..])
            .fetch_optional(self.conn())
            .await?;
        let Some(row) = row else { return Ok(Rotation::Unknown) };
        let family: i64 = row.try_get("family")?;
        if time_or_none(&row, "used_at")?.is_some() {
            end_family(self.conn(), family).await?;
            return Ok(Rotation::Reused);
        }
        if time(&row, "expires_at")? <= now {
            return Ok(Rotation::Expired);
        }
        let token: i64 = row.try_get("token_id")?;
        let query = sqlx::query("UPDATE refresh_tokens SET used_at = ? WHERE token_id = ?");
        query.bind(sql_time(now)).bind(token).execute(self.conn()).await?;
        let user = BuyerId(number(&row, "user_id")?);
        insert_token(self.conn(), new_hash, family, user, expires_at).await?;
        Ok(Rotation::Fresh(user))
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn end_sessions(&mut self, user: BuyerId) -> Result<(), CatalogError> {
        let query = sqlx::query("DELETE FROM refresh_tokens WHERE user_id = ?").bind(sql(user.0));
        query.execute(self.conn()).await?;
        Ok(())
    }

    /// Forgets the refresh tokens that have expired at `now`; gives how many.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn forget_tokens(&mut self, now: TimeMs) -> Result<u64, CatalogError> {
        let query = sqlx::query("DELETE FROM refresh_tokens WHERE expires_at <= ?");
        Ok(query.bind(sql_time(now)).execute(self.conn()).await?.rows_affected())
    }

    /// Keeps a signing key.
    ///
    /// # Errors
    ///
    /// `Unavailable`, also if there is a key of this name.
    pub async fn add_signing_key(&mut self, key: &SigningKey) -> Result<(), CatalogError> {
        sqlx::query("INSERT INTO signing_keys VALUES (?, ?, ?, ?)")
            .bind(&*key.kid)
            .bind(&key.private[..])
            .bind(sql_time(key.created_at))
            .bind(key.retired_at.map(sql_time))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Marks a signing key as retired, if there is one of this name that is not.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn retire_signing_key(&mut self, kid: &str, at: TimeMs) -> Result<(), CatalogError> {
        sqlx::query("UPDATE signing_keys SET retired_at = ? WHERE kid = ? AND retired_at IS NULL")
            .bind(sql_time(at))
            .bind(kid)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Forgets the signing keys that were retired before `before`.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn forget_signing_keys(&mut self, before: TimeMs) -> Result<u64, CatalogError> {
        let query = sqlx::query("DELETE FROM signing_keys WHERE retired_at < ?");
        Ok(query.bind(sql_time(before)).execute(self.conn()).await?.rows_affected())
    }
}

pub(super) async fn insert_token(
    conn: &mut Conn,
    token_hash: &[u8; 32],
    family: i64,
    user: BuyerId,
    expires_at: TimeMs,
) -> Result<i64, CatalogError> {
    let done = sqlx::query(
        "INSERT INTO refresh_tokens (token_hash, family, user_id, expires_at) VALUES (?, ?, ?, ?)",
    )
    .bind(&token_hash[..])
    .bind(family)
    .bind(sql(user.0))
    .bind(sql_time(expires_at))
    .execute(&mut *conn)
    .await?;
    Ok(inserted_number(conn, done).await?)
}

pub(super) async fn end_family(conn: &mut Conn, family: i64) -> Result<(), CatalogError> {
    let query = sqlx::query("DELETE FROM refresh_tokens WHERE family = ?").bind(family);
    query.execute(conn).await?;
    Ok(())
}
