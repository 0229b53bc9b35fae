//! The authorization server's store: one method per core action, each one atomic step (see
//! [`mcp_authz::authorization_server::store`] for what each transaction must give).
//!
//! [`memory::MemoryStore`] is for tests and demonstrations, `sqlite::SqliteStore` (feature `sqlite`) is the embedded default,
//! `postgres::PostgresStore` (feature `postgres`) serves many processes. A store of another kind runs the suite in `kit` (feature
//! `test-kit`), as these three do.
//!
//! [`Store`] is what the core asks for; [`AdministeredStore`] is what an operator, the person's own page and the rotation
//! of signing keys need beside it.

use std::error::Error as StdError;
use std::fmt;
use std::future::Ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mcp_authz::authorization_server::record::{
    ClientRecord, ConsentRecord, FamilyId, GrantRecord, InvalidRecord,
};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReservationKind, ReserveOnce, RevokeAll,
    RevokeFamily, RotateRefresh, UpdateClient,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::BoxFuture;

mod bounds;
#[cfg(feature = "postgres")]
mod connections;
#[cfg(any(test, feature = "test-kit"))]
pub mod kit;
pub mod memory;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod parsed;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod schema;
mod sessions;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod witness;

pub use bounds::Bounds;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use bounds::WAITING;
pub(crate) use sessions::epoch_at;
pub use sessions::{EPOCH_KEPT, ReadSession, SessionFound};

/// How many rows one call of an [`AdministeredStore`] lists.
pub const LISTED: usize = 100;

/// How long a client the operator did not write is kept without any authorization (D40).
pub const UNUSED_CLIENT_LIFETIME: Duration = Duration::days(30);

/// How long a client the operator did not write is kept past its last use (D40).
pub const USED_CLIENT_LIFETIME: Duration = Duration::days(180);

/// How often at most a store in SQL notes that a client was used. What it keeps by the last use it keeps so much longer.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const CLIENT_USE_NOTED: Duration = Duration::hours(1);

/// How long rows of a family are kept past its end: the longest access token and the clocks' skew.
pub const AFTER_FAMILY: Duration = Duration::minutes(20);

/// What a method of a [`Store`] returns: the receipt, or that there is none. It is waited for once.
#[must_use = "nothing is stored before this was waited for"]
pub struct Stored<'a, R>(Answer<'a, R>);

enum Answer<'a, R> {
    AtOnce(Ready<Result<R, StoreError>>),
    Later(BoxFuture<'a, Result<R, StoreError>>),
}

impl<'a, R> Stored<'a, R> {
    /// What is known already: it costs no allocation.
    pub fn at_once(receipt: Result<R, StoreError>) -> Self {
        Self(Answer::AtOnce(std::future::ready(receipt)))
    }

    /// What has to be waited for.
    pub fn later(receipt: impl Future<Output = Result<R, StoreError>> + Send + 'a) -> Self {
        Self(Answer::Later(Box::pin(receipt)))
    }
}

impl<R> Future for Stored<'_, R> {
    type Output = Result<R, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::AtOnce(receipt) => Pin::new(receipt).poll(context),
            Answer::Later(receipt) => receipt.as_mut().poll(context),
        }
    }
}

impl<R> fmt::Debug for Stored<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored")
    }
}

/// Carries out the actions of the authorization server's core.
///
/// Each method is one transaction, durable before it returns. An error means that the receipt does not exist; the
/// transaction may or may not have been committed, and the caller answers 503.
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Looks a client up.
    fn find_client(&self, action: FindClient) -> Stored<'_, ClientFound>;
    /// Inserts a client, never over another.
    fn insert_client(&self, action: InsertClient) -> Stored<'_, ClientInsertion>;
    /// Writes a client of the operator's, over an older record of the same.
    fn put_client(&self, record: ClientRecord) -> Stored<'_, ()>;
    /// Replaces a client that manages its registration.
    fn update_client(&self, action: UpdateClient) -> Stored<'_, ClientUpdate>;
    /// Deletes a client that manages its registration, and moves its epoch.
    fn delete_client(&self, action: DeleteClient) -> Stored<'_, ClientDeletion>;
    /// Inserts a pushed request.
    fn insert_pushed(&self, action: InsertPushed) -> Stored<'_, PushedInsertion>;
    /// Reads a pushed request.
    fn read_pushed(&self, action: ReadPushed) -> Stored<'_, PushedFound>;
    /// Reads a remembered consent.
    fn read_consent(&self, action: ReadConsent) -> Stored<'_, ConsentFound>;
    /// Reads an opaque access token.
    fn read_access(&self, action: ReadAccess) -> Stored<'_, AccessFound>;
    /// Reads a grant.
    fn read_grant(&self, action: ReadGrant) -> Stored<'_, GrantFound>;
    /// Inserts a pending decision, and the client of a metadata document with it: over one of that origin only, and
    /// never over a document that was fetched later.
    fn insert_decision(&self, action: InsertDecision) -> Stored<'_, DecisionInsertion>;
    /// Reads a pending decision.
    fn read_decision(&self, action: ReadDecision) -> Stored<'_, DecisionFound>;
    /// Consumes a pending decision; on approval inserts code and family.
    fn decide_once(&self, action: DecideOnce) -> Stored<'_, DecisionTaken>;
    /// Reads a code.
    fn read_code(&self, action: ReadCode) -> Stored<'_, CodeFound>;
    /// Redeems a code.
    fn redeem_code(&self, action: RedeemCode) -> Stored<'_, CodeRedemption>;
    /// Reads a refresh token.
    fn read_refresh(&self, action: ReadRefresh) -> Stored<'_, RefreshFound>;
    /// Replaces a refresh token by its successor.
    fn rotate_refresh(&self, action: RotateRefresh) -> Stored<'_, RefreshRotation>;
    /// Revokes a family.
    fn revoke_family(&self, action: RevokeFamily) -> Stored<'_, FamilyRevocation>;
    /// Moves an epoch: to a number that is more, and no less than the store's clock in microseconds. A client's and a consent's
    /// need not be kept where there is nothing that they could end; a person's is kept for [`EPOCH_KEPT`] in any case, because
    /// sessions are in no store.
    fn revoke_all(&self, action: RevokeAll) -> Stored<'_, AllRevoked>;
    /// Reserves an identifier.
    fn reserve_once(&self, action: ReserveOnce) -> Stored<'_, Reservation>;
    /// Reads what ends sessions: whether the identifier of that browser is reserved, and the person's epoch.
    fn read_session(&self, action: ReadSession) -> Stored<'_, SessionFound>;
    /// Deletes what nothing can depend on any more, in bounded steps. The host calls it every few minutes; a sweep
    /// that fails or is dropped half way has deleted less, and nothing else.
    fn sweep(&self) -> Stored<'_, ()>;
}

/// Whose grants, or remembered consents, are listed.
#[derive(Debug, Clone, Copy)]
pub enum GrantsOf<'a> {
    /// One person's.
    Subject(&'a str),
    /// One client's.
    Client(&'a ClientId),
    /// Everybody's.
    All,
}

/// Where a signing key stands (D43).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// In the key set, so that resource servers learn it before a token needs it.
    Published,
    /// Signs. At most one key does.
    Signing,
    /// Signs no more; in the key set as long as a token of it may live.
    Retired,
}

/// A signing key as it is stored: its private part sealed, by whoever runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its `kid`.
    pub kid: String,
    /// Its algorithm's name.
    pub algorithm: String,
    /// Where it stands.
    pub state: KeyState,
    /// The public half, as JSON.
    pub public_jwk: Vec<u8>,
    /// The private part, sealed.
    pub sealed: Vec<u8>,
    /// When it came into its present state, by the store's clock.
    pub since: OffsetDateTime,
}

/// What an operator, a person's own page and the rotation of keys need of a store, beside the core's actions.
///
/// The same promises hold: each method is one transaction, durable before it returns.
pub trait AdministeredStore: Store {
    /// Grants that stand, ordered by family, [`LISTED`] at most, after the one of the family given.
    fn list_grants<'a>(&'a self, of: GrantsOf<'a>, after: Option<FamilyId>) -> Stored<'a, Vec<GrantRecord>>;
    /// What people wanted remembered and nothing has ended since, ordered by its key, [`LISTED`] at most, after the one of the
    /// key given.
    fn list_consents<'a>(
        &'a self,
        of: GrantsOf<'a>,
        after: Option<SecretDigest>,
    ) -> Stored<'a, Vec<ConsentRecord>>;
    /// Clients, ordered by identifier, [`LISTED`] at most, after the one given.
    fn list_clients<'a>(&'a self, after: Option<&'a ClientId>) -> Stored<'a, Vec<ClientRecord>>;
    /// Removes a client and moves its epoch, which ends its grants. Says whether there was one.
    fn remove_client<'a>(&'a self, client: &'a ClientId) -> Stored<'a, bool>;
    /// The signing keys, and the store's clock.
    fn keys(&self) -> Stored<'_, (Vec<KeyRow>, OffsetDateTime)>;
    /// Inserts a key as published, unless another one waits in that state or has its name. Says whether it did.
    fn publish_key(&self, key: KeyRow) -> Stored<'_, bool>;
    /// If the key is published: it signs from now on, and what signed is retired. Says whether it did.
    fn promote_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool>;
    /// If the key is published: it signs from now on, and every key that signed or was retired is deleted with that, so that
    /// nothing they signed is trusted any longer. Says whether it did.
    fn replace_keys<'a>(&'a self, kid: &'a str) -> Stored<'a, bool>;
    /// Deletes a key if it is retired. Says whether it did.
    fn forget_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool>;
    /// The store's incarnation: a number that only grows, of which its users keep a copy outside it.
    fn incarnation(&self) -> Stored<'_, u64>;
    /// Adds one to the incarnation, and gives the new number.
    fn advance_incarnation(&self) -> Stored<'_, u64>;
    /// After an older copy was restored: ends everything that was ever granted, pending or remembered, and every session, because
    /// one that was ended since would live again; and sets the incarnation to more than `seen`. Every signing key goes, because one that was withdrawn since would be trusted again,
    /// and every client but the operator's, because one that was deleted since would live again: they register again, or
    /// their document is fetched again. Gives the new number.
    fn restored(&self, seen: u64) -> Stored<'_, u64>;
}

/// Declares one forwarding method per action.
macro_rules! forward {
    ($($method:ident($action:ty) -> $receipt:ty;)*) => {
        $(fn $method(&self, action: $action) -> Stored<'_, $receipt> {
            (**self).$method(action)
        })*
    };
}

impl<S: Store + ?Sized> Store for Arc<S> {
    forward! {
        find_client(FindClient) -> ClientFound;
        insert_client(InsertClient) -> ClientInsertion;
        put_client(ClientRecord) -> ();
        update_client(UpdateClient) -> ClientUpdate;
        delete_client(DeleteClient) -> ClientDeletion;
        insert_pushed(InsertPushed) -> PushedInsertion;
        read_pushed(ReadPushed) -> PushedFound;
        read_consent(ReadConsent) -> ConsentFound;
        read_access(ReadAccess) -> AccessFound;
        read_grant(ReadGrant) -> GrantFound;
        insert_decision(InsertDecision) -> DecisionInsertion;
        read_decision(ReadDecision) -> DecisionFound;
        decide_once(DecideOnce) -> DecisionTaken;
        read_code(ReadCode) -> CodeFound;
        redeem_code(RedeemCode) -> CodeRedemption;
        read_refresh(ReadRefresh) -> RefreshFound;
        rotate_refresh(RotateRefresh) -> RefreshRotation;
        revoke_family(RevokeFamily) -> FamilyRevocation;
        revoke_all(RevokeAll) -> AllRevoked;
        reserve_once(ReserveOnce) -> Reservation;
        read_session(ReadSession) -> SessionFound;
    }

    fn sweep(&self) -> Stored<'_, ()> {
        (**self).sweep()
    }
}

/// The store did not do it, or cannot say that it did. The request is answered with 503 and may be repeated: what may
/// happen once has then happened at most once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed.
    #[error("the store failed; check that its disk has room and that its file may be written: {0}")]
    Failed(#[source] Box<dyn StdError + Send + Sync>),
    /// Too many wait already. Nothing was begun.
    #[error(
        "more is asked of the store than its database can do, and this was not begun: try again, and give the database more room"
    )]
    Busy,
    /// A row is not what this program wrote.
    #[error("a stored row cannot be read; restore the database, or run the version that wrote it: {0}")]
    Corrupt(#[from] InvalidRecord),
    /// A key that was drawn at random is taken, or rows contradict each other.
    #[error(
        "stored rows contradict each other; check this machine's source of randomness, restore the database"
    )]
    Inconsistent,
}

#[cfg(feature = "postgres")]
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

#[cfg(feature = "sqlite")]
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The key of a reservation: no two combinations of its parts share one, and however long they are, it is short.
fn reservation_key(action: &ReserveOnce) -> Result<SecretDigest, StoreError> {
    let kind = match action.kind() {
        ReservationKind::ClientAssertion => 1,
        ReservationKind::SignIn => 2,
        ReservationKind::SignOut => 3,
        _ => return Err(StoreError::Inconsistent),
    };
    let mut key = vec![kind];
    for part in [action.issuer(), action.audience().as_str(), action.value()] {
        key.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    Ok(SecretDigest::of(&key))
}

#[cfg(test)]
mod tests {
    use super::{kit, memory::MemoryStore};

    #[tokio::test]
    async fn in_memory_each_row_stays_as_long_as_something_rests_on_it() {
        kit::run_aging(|clock| async { MemoryStore::with_clock(clock) }).await.unwrap();
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn in_a_file_each_row_stays_as_long_as_something_rests_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let count = std::sync::atomic::AtomicU32::new(0);
        kit::run_aging(|clock| {
            let file = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
            let path = folder.path().join(file);
            async { super::sqlite::SqliteStore::open_with_clock(path, clock).await.unwrap() }
        })
        .await
        .unwrap();
    }
}
