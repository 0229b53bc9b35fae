//! What the driver does with sessions that are kept: it brings them back, and it ends them.

use mcp_authz::client::{Ready, Session};
use mcp_authz::error::Error;
use mcp_authz::identifier::ResourceId;
use mcp_authz::step::Failed;

use super::credentials::StoreFailed;
use super::driver::{Driver, LoginError};
use crate::entropy::OsEntropy;

/// What came of a logout. The session is removed from its store in either case.
#[derive(Debug)]
#[must_use = "whether the tokens are revoked is in here"]
pub struct LoggedOut {
    /// From here a new authorization can begin.
    pub ready: Ready,
    /// Why the server did not revoke the tokens: whoever has them may use them until they end by themselves.
    pub not_revoked: Option<Error>,
}

impl Driver {
    /// Brings back the session that is kept for the server at that URL: the one of the most specific resource that
    /// covers it. `None` where there is none: send a request without a token, and
    /// [`authorize`](Driver::authorize) with the 401.
    ///
    /// # Errors
    /// [`LoginError::Store`] when the store fails; [`LoginError::Core`] when the record does not open for this client,
    /// because its name or policy is another than when the session began: log in again.
    pub async fn resume(&self, server: &ResourceId) -> Result<Option<Session>, LoginError> {
        let found = self.store().sessions_for(server.as_str()).await?.into_iter().next();
        let resumed =
            found.map(|kept| self.core_time().measure(|| kept.resume(self.client(), self.store().sealer())));
        Ok(resumed.transpose()?)
    }

    /// Revokes the session's tokens at their issuer. [`Driver::logout`] removes it from its store
    /// besides.
    ///
    /// # Errors
    /// [`Failed`] with the session, whose tokens may still be good.
    pub async fn revoke(&self, session: Session) -> Result<Ready, Failed<Session>> {
        let now = self.now();
        let call = self.core_time().measure(|| session.revoke(now, &mut OsEntropy))?;
        let (waiting, reply) = self.call(call).await;
        self.core_time().measure(|| waiting.receive(reply))
    }

    /// Logs out: the tokens are revoked at their issuer, and the session is removed from the store whatever came of that.
    ///
    /// Where another program has refreshed the session meanwhile, its tokens are those that are revoked.
    ///
    /// # Errors
    /// [`StoreFailed`]; the session may still be kept then.
    pub async fn logout(&self, session: Session) -> Result<LoggedOut, StoreFailed> {
        let (issuer, resource) = (session.issuer().clone(), session.resource().clone());
        let session = self.newest(session).await;
        let revoked = self.revoke(session).await;
        self.store().remove(&issuer, &resource).await?;
        Ok(match revoked {
            Ok(ready) => LoggedOut { ready, not_revoked: None },
            Err(Failed { error, state }) => LoggedOut { ready: state.into_ready(), not_revoked: Some(error) },
        })
    }

    /// The session as the store has it; the same one where the store has none, or does not say.
    async fn newest(&self, session: Session) -> Session {
        let Ok(kept) = self.store().sessions().await else { return session };
        let same_place = kept
            .into_iter()
            .find(|kept| kept.issuer() == session.issuer() && kept.resource() == session.resource());
        let newest = same_place.and_then(|kept| kept.resume(self.client(), self.store().sealer()).ok());
        newest.unwrap_or(session)
    }
}
