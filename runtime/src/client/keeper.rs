//! Where sessions are kept, and how processes that share a place agree on who refreshes (decision D39).

use std::fmt;

use mcp_authz::client::{
    ClaimRefresh, CommitRefresh, DiscardSession, PersistSession, RefreshClaim, RefreshCommitted,
    ReleaseClaim, SessionDiscarded, SessionPersisted,
};

use crate::BoxFuture;

/// Keeps sessions. Each method is one atomic operation of its store, durable when it returns.
pub trait SessionKeeper: Send + Sync + fmt::Debug + 'static {
    /// Keeps a session after a login, in place of what was kept for its issuer and resource before.
    ///
    /// # Errors
    /// [`KeepFailed`]; the tokens are dropped, and the person signs in again.
    fn keep(&self, action: PersistSession) -> BoxFuture<'_, Result<SessionPersisted, KeepFailed>>;

    /// Claims a session for one refresh.
    ///
    /// # Errors
    /// [`KeepFailed`]; nothing is sent, and the session stays as it is.
    fn claim(&self, action: ClaimRefresh) -> BoxFuture<'_, Result<RefreshClaim, KeepFailed>>;

    /// Keeps the refreshed session, if the claim still holds.
    ///
    /// # Errors
    /// [`KeepFailed`]; it is tried a few times, because the server has retired the refresh token that is stored.
    fn commit(&self, action: CommitRefresh) -> BoxFuture<'_, Result<RefreshCommitted, KeepFailed>>;

    /// Removes a session that is over, unless another process has renewed it.
    ///
    /// # Errors
    /// [`KeepFailed`]; it is tried a few times.
    fn discard(&self, action: DiscardSession) -> BoxFuture<'_, Result<SessionDiscarded, KeepFailed>>;

    /// Gives a claim back. One that is not given back ends by itself.
    fn release(&self, action: ReleaseClaim) -> BoxFuture<'_, ()>;
}

/// The store of the sessions failed.
#[derive(Debug, thiserror::Error)]
#[error("the session could not be kept: {0}")]
pub struct KeepFailed(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Keeps nothing beyond the process: no other process can know the session.
#[derive(Debug, Clone, Copy, Default)]
pub struct InMemory;

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, KeepFailed>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl SessionKeeper for InMemory {
    fn keep(&self, action: PersistSession) -> BoxFuture<'_, Result<SessionPersisted, KeepFailed>> {
        ready(action.kept_in_memory())
    }

    fn claim(&self, action: ClaimRefresh) -> BoxFuture<'_, Result<RefreshClaim, KeepFailed>> {
        ready(action.alone())
    }

    fn commit(&self, action: CommitRefresh) -> BoxFuture<'_, Result<RefreshCommitted, KeepFailed>> {
        ready(action.kept_in_memory())
    }

    fn discard(&self, action: DiscardSession) -> BoxFuture<'_, Result<SessionDiscarded, KeepFailed>> {
        ready(action.discarded())
    }

    fn release(&self, _: ReleaseClaim) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
