//! The authorization server's store: one method per core action, each one atomic step (see
//! [`mcp_authz::authorization_server::store`] for what each transaction must give).
//!
//! [`memory::MemoryStore`] is for tests and demonstrations, [`sqlite::SqliteStore`] is the embedded default.
//! A store of another kind runs the suite in `kit` (feature `test-kit`), as these two do.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use mcp_authz::authorization_server::record::{ClientRecord, InvalidRecord};
use mcp_authz::authorization_server::store::{
    AllRevoked, ClientFound, ClientInsertion, CodeFound, CodeRedemption, DecideOnce, DecisionFound,
    DecisionInsertion, DecisionTaken, FamilyRevocation, FindClient, InsertClient, InsertDecision, ReadCode,
    ReadDecision, ReadRefresh, RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce,
    RevokeAll, RevokeFamily, RotateRefresh,
};
use mcp_authz::time::Duration;

use crate::BoxFuture;

#[cfg(any(test, feature = "test-kit"))]
pub mod kit;
pub mod memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// Consent pages that may wait for an answer at one time; the oldest goes when one more comes (I-P7).
pub const PENDING_DECISIONS: usize = 10_000;

/// Clients the operator did not write that never had an authorization; the oldest goes when one more comes (I-P7).
pub const UNUSED_CLIENTS: usize = 10_000;

/// How long a client the operator did not write is kept without any authorization (D40).
pub const UNUSED_CLIENT_LIFETIME: Duration = Duration::days(30);

/// How long a client the operator did not write is kept past its last use (D40).
pub const USED_CLIENT_LIFETIME: Duration = Duration::days(180);

/// How long rows of a family are kept past its end: the longest access token and the clocks' skew.
pub const AFTER_FAMILY: Duration = Duration::minutes(20);

/// What a method of a [`Store`] returns: the receipt, or that there is none.
pub type Stored<'a, R> = BoxFuture<'a, Result<R, StoreError>>;

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
    /// Moves an epoch.
    fn revoke_all(&self, action: RevokeAll) -> Stored<'_, AllRevoked>;
    /// Reserves an identifier.
    fn reserve_once(&self, action: ReserveOnce) -> Stored<'_, Reservation>;
    /// Deletes what nothing can depend on any more, in bounded steps. The host calls it every few minutes; a sweep
    /// that fails or is dropped half way has deleted less, and nothing else.
    fn sweep(&self) -> Stored<'_, ()>;
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
    /// A row is not what this program wrote.
    #[error("a stored row cannot be read; restore the database, or run the version that wrote it: {0}")]
    Corrupt(#[from] InvalidRecord),
    /// A key that was drawn at random is taken, or rows contradict each other.
    #[error(
        "stored rows contradict each other; check this machine's source of randomness, restore the database"
    )]
    Inconsistent,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use mcp_authz::authorization_server::test_kit::{Seen, client_found, find_client};
    use mcp_authz::identifier::ClientId;
    use mcp_authz::time::{Duration, OffsetDateTime};

    use super::{Store, kit, memory::MemoryStore};
    use crate::clock::Clock;

    #[derive(Debug, Default)]
    struct Days(AtomicI64);

    impl Clock for Days {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH + Duration::days(20_000 + self.0.load(Ordering::SeqCst))
        }
    }

    // D40, I-P7
    async fn a_client_stays_as_long_as_a_grant_of_it(store: impl Store, clock: &Days) {
        let known = async || {
            let found = store.find_client(find_client(ClientId::new("c1").unwrap())).await.unwrap();
            client_found(found).0.is_some()
        };
        kit::register(&store, "c1", clock.now()).await.unwrap();
        let mut path = kit::Path::fresh("c1", clock.now()).unwrap();
        path.grant.not_after = clock.now() + Duration::days(300);
        path.ask(&store).await.unwrap();
        path.approve(&store, path.agent, &path.grant.subject).await.unwrap();
        path.redeem(&store, path.refresh).await.unwrap();
        for (day, stays) in [(179, true), (181, true), (299, true), (301, false)] {
            clock.0.store(day, Ordering::SeqCst);
            store.sweep().await.unwrap();
            // The second sweep sees what the first one's order left.
            store.sweep().await.unwrap();
            assert_eq!(known().await, stays, "day {day}");
            let live = matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_));
            assert_eq!(live, stays, "day {day}");
        }
    }

    #[tokio::test]
    async fn a_client_in_memory_stays_as_long_as_a_grant_of_it() {
        let clock = Arc::new(Days::default());
        a_client_stays_as_long_as_a_grant_of_it(MemoryStore::with_clock(clock.clone()), &clock).await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_client_in_a_file_stays_as_long_as_a_grant_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Days::default());
        let file = folder.path().join("store.db");
        let store = super::sqlite::SqliteStore::open_with_clock(file, clock.clone()).await.unwrap();
        a_client_stays_as_long_as_a_grant_of_it(store, &clock).await;
    }
}
