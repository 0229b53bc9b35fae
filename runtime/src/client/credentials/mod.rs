//! Where sessions and registrations are kept, and how programs that share a place agree on who refreshes
//! (decision D39).
//!
//! [`FileStore`] is a directory of sealed records, whose key lies in the operating system's keychain or in a file beside
//! it; [`MemoryStore`] ends with the process. Both carry out the same operations (`shelf`).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use mcp_authz::client::{
    ClaimRefresh, Client, CommitRefresh, DiscardSession, PairingRecord, PersistSession, RecordVersion,
    RefreshClaim, RefreshCommitted, RegistrationRecord, ReleaseClaim, Session, SessionDiscarded,
    SessionPersisted, SessionRecord,
};
use mcp_authz::error::Error;
use mcp_authz::identifier::{Issuer, ResourceId};
use mcp_authz::sealer::Sealer;

use crate::BoxFuture;

mod directory;
mod entry;
#[cfg(feature = "aws-lc-rs")]
mod key;
pub mod keychain;
#[cfg(any(test, feature = "test-kit"))]
pub mod kit;
mod memory;
mod shelf;

pub use directory::{DirectoryFailed, FileStore, default_directory};
#[cfg(feature = "aws-lc-rs")]
pub use key::{KeyFailed, KeyFault, KeyPlace, KeySource};
pub use memory::MemoryStore;

/// What a method of a [`CredentialStore`] returns: what came of it, or that it cannot say.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreFailed>>;

/// A sealer that the parts of a program share.
pub type SharedSealer = Arc<dyn Sealer + Send + Sync>;

/// Makes the record that takes the place of the one there was, if there was one.
pub type Joining = Box<dyn FnOnce(Option<&[u8]>) -> Result<Vec<u8>, Error> + Send>;

/// Makes the registration to keep beside those that are kept already, if one is to be kept, under the store's sealer.
pub type Choosing =
    Box<dyn FnOnce(&[RegistrationRecord], &dyn Sealer) -> Result<Option<RegistrationRecord>, Error> + Send>;

/// Keeps what a client has to know in its next process. Records reach it sealed.
///
/// Each method is one atomic operation against everybody who shares the store, and durable when it returns. After an
/// error it may or may not have happened.
pub trait CredentialStore: Send + Sync + fmt::Debug + 'static {
    /// The sealer under which records lie here.
    fn sealer(&self) -> &(dyn Sealer + Send + Sync);

    /// Keeps a session after a login, in place of what was kept for its issuer and resource before; claims on that end.
    /// With it, the host's word for the pair ([`PersistSession::pairing`]).
    ///
    /// # Errors
    /// [`StoreFailed`]; the tokens are dropped, and the person signs in again.
    fn keep(&self, action: PersistSession) -> Stored<'_, SessionPersisted>;

    /// Claims a session for one refresh.
    ///
    /// # Errors
    /// [`StoreFailed`]; nothing is sent, and the session stays as it is.
    fn claim(&self, action: ClaimRefresh) -> Stored<'_, RefreshClaim>;

    /// Keeps the refreshed session, if the claim still holds.
    ///
    /// # Errors
    /// [`StoreFailed`]; it is tried a few times, because the server has retired the refresh token that is stored.
    fn commit(&self, action: CommitRefresh) -> Stored<'_, RefreshCommitted>;

    /// Removes a session that is over, unless it was changed since the claim.
    ///
    /// # Errors
    /// [`StoreFailed`]; it is tried a few times.
    fn discard(&self, action: DiscardSession) -> Stored<'_, SessionDiscarded>;

    /// Gives a claim back. One that is not given back ends by itself.
    fn release(&self, action: ReleaseClaim) -> BoxFuture<'_, ()>;

    /// The sessions kept, in no order.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn sessions(&self) -> Stored<'_, Vec<KeptSession>>;

    /// The sessions whose resource covers that URL: the most specific first, of several for one resource the newest.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn sessions_for<'a>(&'a self, url: &'a str) -> Stored<'a, Vec<KeptSession>> {
        Box::pin(async move {
            let mut found = self.sessions().await?;
            // MCP-AUTH-053, MCP-DISC-003: a session is found by its own resource and by nothing else.
            found.retain(|kept| kept.resource().covers(url));
            found.sort_by_key(|kept| std::cmp::Reverse((kept.resource().path().len(), kept.version())));
            Ok(found)
        })
    }

    /// Removes a session, whatever its version, and the host's word for its pair: somebody logs out. Claims on it end.
    /// Whether there was a session.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn remove(&self, issuer: &Issuer, resource: &ResourceId) -> Stored<'_, bool>;

    /// The words of the host that are kept for that resource, one for each issuer: at the next login nobody is asked.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn pairings(&self, resource: &ResourceId) -> Stored<'_, Vec<PairingRecord>>;

    /// The registration at that issuer.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn registration(&self, issuer: &Issuer) -> Stored<'_, Option<RegistrationRecord>>;

    /// Keeps a registration in place of the one at its issuer.
    ///
    /// # Errors
    /// [`StoreFailed`]; the next process registers once more.
    fn keep_registration(&self, record: RegistrationRecord) -> Stored<'_, ()>;

    /// Keeps the registration that `choose` makes with every other one before it, if it makes one: what several
    /// authorization servers may not share is given out under one lock. `choose` is quick: the store is locked.
    ///
    /// # Errors
    /// [`StoreFailed`], also when `choose` fails; nothing is kept then.
    fn choose_registration(&self, choose: Choosing) -> Stored<'_, ()>;

    /// Removes that registration, unless another has taken its place.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn forget_registration(&self, record: RegistrationRecord) -> Stored<'_, ()>;

    /// The sealed count of step-ups at that server.
    ///
    /// # Errors
    /// [`StoreFailed`]
    fn step_ups(&self, server: &ResourceId) -> Stored<'_, Option<Vec<u8>>>;

    /// Replaces the sealed count of step-ups at that server by what `join` makes of it, with no other change in between.
    /// `join` is quick: the store is locked.
    ///
    /// # Errors
    /// [`StoreFailed`], also when `join` fails; the count is as it was then.
    fn join_step_ups(&self, server: &ResourceId, join: Joining) -> Stored<'_, ()>;
}

/// A session as it lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    resource: ResourceId,
    record: SessionRecord,
    version: RecordVersion,
}

impl KeptSession {
    /// That record under that version; `None` for a record that names no resource, which is no session's.
    pub fn new(record: SessionRecord, version: RecordVersion) -> Option<Self> {
        let resource = record.resource()?.clone();
        Some(Self { resource, record, version })
    }

    /// The issuer of the session.
    pub fn issuer(&self) -> &Issuer {
        self.record.issuer()
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        &self.resource
    }

    /// The version it has in its store.
    pub fn version(&self) -> RecordVersion {
        self.version
    }

    /// Brings the session back.
    ///
    /// # Errors
    /// [`Error`] when the record does not open for this client, or would not pass today's checks.
    pub fn resume(self, client: &Client, sealer: &dyn Sealer) -> Result<Session, Error> {
        self.record.resume(client, sealer, self.version)
    }
}

/// The store did not do it, or cannot say that it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFailed {
    /// A record cannot be sealed, does not open, or belongs elsewhere.
    #[error("{0}")]
    Record(#[from] Error),
    /// What lies there is not what a store wrote. It was left as it is.
    #[error("{0} is damaged; move it away, and sign in again at the server it was for")]
    Damaged(String),
    /// A later version wrote it. It was left as it is.
    #[error(
        "{0} was written by a later version of this program; use that version, or move it away and sign in again"
    )]
    Later(String),
    /// The place failed; its own words say what to do.
    #[error("{0}")]
    Place(#[source] Box<dyn StdError + Send + Sync>),
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests;
