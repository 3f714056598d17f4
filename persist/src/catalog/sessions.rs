//! Sessions by their number: what an access token says it belongs to.

use tmomi_engine::ids::{BuyerId, TimeMs};

use super::accounts::{end_family, insert_token, user};
use super::{Catalog, CatalogError, Change, User, number, sql, time};

/// A session: the family of the refresh tokens that one sign-in began. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family(pub u64);

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub family: Family,
    /// Its user.
    pub user: BuyerId,
}

impl Catalog {
    /// The user of a session; `None` once it has ended.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn session_user(&self, family: Family) -> Result<Option<User>, CatalogError> {
        let row = sqlx::query(
            "SELECT u.* FROM users u WHERE u.user_id =
                    (SELECT user_id FROM refresh_tokens WHERE family = ? LIMIT 1)",
        )
        .bind(sql(family.0))
        .fetch_optional(&mut self.read().await?)
        .await?;
        Ok(row.as_ref().map(user).transpose()?)
    }
}

impl Change {
    /// The session of a refresh token, used ones too; `None` once it has ended.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn session_of(
        &mut self,
        token_hash: &[u8; 32],
    ) -> Result<Option<Session>, CatalogError> {
        let row = sqlx::query("SELECT family, user_id FROM refresh_tokens WHERE token_hash = ?")
            .bind(&token_hash[..])
            .fetch_optional(self.conn())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (family, user) = (number(&row, "family")?, number(&row, "user_id")?);
        Ok(Some(Session { family: Family(family), user: BuyerId(user) }))
    }

    /// Gives a session one more token, for a client that lost the answer with the last one.
    /// `false`: the session has ended, or ends at `now`.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn add_token(
        &mut self,
        session: Session,
        token_hash: &[u8; 32],
        expires_at: TimeMs,
        now: TimeMs,
    ) -> Result<bool, CatalogError> {
        let row = sqlx::query(
            "SELECT expires_at FROM refresh_tokens WHERE family = ?
             ORDER BY expires_at DESC LIMIT 1",
        )
        .bind(sql(session.family.0))
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(false) };
        if time(&row, "expires_at")? <= now {
            return Ok(false);
        }
        let family = session.family.0 as i64;
        insert_token(self.conn(), token_hash, family, session.user, expires_at).await?;
        Ok(true)
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub async fn end_family(&mut self, family: Family) -> Result<(), CatalogError> {
        end_family(self.conn(), family.0 as i64).await
    }
}
