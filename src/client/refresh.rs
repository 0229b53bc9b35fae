//! Refresh, shared by several processes (OAuth 2.1 section 4.3, decision D39).
//!
//! Before a refresh token is sent, the session is claimed in its store, so that of all processes that share it one sends
//! it; what came of it is committed under that claim before it is used; and a session is given up only if nobody put a
//! newer one there in the meantime.
//!
//! ```text
//! Session ── refresh ─ ClaimRefresh ─▶ AwaitingClaim ─┬─ claimed ─ Fetch ─▶ AwaitingRefresh
//!    ▲                                                ├─ superseded: the newer session, nothing is sent
//!    │                                                └─ busy: another process is at it
//!    └── AwaitingCommit ◀─ CommitRefresh ─ AwaitingRefresh ─ DiscardSession ─▶ AwaitingDiscard ─▶ Ready
//! ```

use alloc::boxed::Box;
use core::fmt;

use super::Client;
use super::authorization::Ready;
use super::endpoint::{Body, EndpointCall};
use super::record::{RecordVersion, SessionInputs, SessionRecord};
use super::session::{Held, Session, Tokens};
use crate::entropy::{self, Entropy};
use crate::error::{Error, HostMisuse, OutsideFailed, PeerIncompatible, PeerMisbehaved};
use crate::identifier::{Issuer, ResourceId};
use crate::limits;
use crate::message::exchange::{FetchFailure, FetchPurpose, Reply};
use crate::message::token::{Grant, RefreshGrant};
use crate::sealer::Sealer;
use crate::step::{Failed, Step};
use crate::time::{self, Duration, OffsetDateTime};

/// Which action a receipt answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ActionId([u8; 16]);

/// Where a session lies, and who may bring back what lies there.
#[derive(Clone)]
struct Place {
    client: Client,
    issuer: Issuer,
    resource: ResourceId,
}

impl Place {
    fn of(held: &Held) -> Self {
        Self {
            client: held.prepared.server.target.client.clone(),
            issuer: held.prepared.server.issuer.issuer().clone(),
            resource: held.prepared.server.target.resource.resource().clone(),
        }
    }

    /// The session another process left in the same place.
    fn resume(
        &self,
        record: SessionRecord,
        version: RecordVersion,
        sealer: &dyn Sealer,
    ) -> Result<Session, Error> {
        // MCP-DISC-003, I-L3: of the same issuer and resource.
        if *record.issuer() != self.issuer || record.resource() != Some(&self.resource) {
            return Err(HostMisuse::ForeignRecord.into());
        }
        record.resume(&self.client, sealer, version)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("issuer", &self.issuer).field("resource", &self.resource).finish()
    }
}

impl Session {
    /// Begins a refresh: the session is claimed first.
    ///
    /// # Errors
    /// [`Failed`] with this session when there is no refresh token ([`HostMisuse::NoRefreshToken`]: authorize anew), or
    /// no randomness.
    pub fn refresh(
        self,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<ClaimRefresh, AwaitingClaim>, Failed<Self>> {
        // MCP-AUTH-084
        if !self.can_refresh() {
            return Err(Failed::new(HostMisuse::NoRefreshToken, self));
        }
        let id = match entropy::draw::<16>(entropy) {
            Ok(id) => ActionId(*id),
            Err(error) => return Err(Failed::new(OutsideFailed::from(error), self)),
        };
        let claim = Claim {
            place: Place::of(&self.0),
            version: self.0.version,
            until: time::after(now, Duration::seconds(limits::REFRESH_CLAIM_SECONDS)),
            id,
        };
        Ok(Step::new(ClaimRefresh(Box::new(claim)), AwaitingClaim(Box::new((id, self)))))
    }
}

/// Claim the session in its store, so that no other process sends its refresh token (D39).
///
/// One atomic operation: where the stored record still has [`ClaimRefresh::version`] and nobody holds a claim that has not
/// expired, note a claim until [`ClaimRefresh::until`] under a fence above every earlier one.
#[must_use = "the refresh waits for the claim"]
#[derive(Debug)]
pub struct ClaimRefresh(Box<Claim>);

#[derive(Debug)]
struct Claim {
    place: Place,
    version: Option<RecordVersion>,
    until: OffsetDateTime,
    id: ActionId,
}

impl ClaimRefresh {
    /// The issuer of the session.
    pub fn issuer(&self) -> &Issuer {
        &self.0.place.issuer
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        &self.0.place.resource
    }

    /// The version this process knows; none for a session that no store holds.
    pub fn version(&self) -> Option<RecordVersion> {
        self.0.version
    }

    /// When the claim ends by itself: this process may die.
    pub fn until(&self) -> OffsetDateTime {
        self.0.until
    }

    /// The claim is this process's, under that fence.
    pub fn claimed(self, fence: u64) -> RefreshClaim {
        self.with(Claimed::Ours(Some(fence)))
    }

    /// No other process can know this session.
    pub fn alone(self) -> RefreshClaim {
        self.with(Claimed::Ours(None))
    }

    /// The store has another version: use that, and send nothing.
    ///
    /// # Errors
    /// [`Failed`] with this action when the record does not open, or belongs elsewhere.
    pub fn superseded(
        self,
        record: SessionRecord,
        version: RecordVersion,
        sealer: &dyn Sealer,
    ) -> Result<RefreshClaim, Failed<Self>> {
        match self.0.place.resume(record, version, sealer) {
            Ok(session) => Ok(self.with(Claimed::Superseded(session))),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// Another process holds a claim until then.
    pub fn busy(self, until: OffsetDateTime) -> RefreshClaim {
        self.with(Claimed::Busy(until))
    }

    /// The store has no such session any more: somebody logged out.
    pub fn absent(self) -> RefreshClaim {
        self.with(Claimed::Absent)
    }

    fn with(self, claimed: Claimed) -> RefreshClaim {
        RefreshClaim { id: self.0.id, claimed }
    }
}

#[derive(Debug)]
enum Claimed {
    Ours(Option<u64>),
    Superseded(Session),
    Busy(OffsetDateTime),
    Absent,
}

/// What came of a [`ClaimRefresh`].
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct RefreshClaim {
    id: ActionId,
    claimed: Claimed,
}

/// Waits for the claim on the session.
#[must_use = "the refresh goes on with the claim"]
#[derive(Debug)]
pub struct AwaitingClaim(Box<(ActionId, Session)>);

/// How a refresh goes on.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum ClaimOutcome {
    /// Send the refresh token.
    Claimed(EndpointCall<AwaitingRefresh>),
    /// Another process has refreshed: this is its session. Nothing was sent.
    Superseded(Session),
    /// Another process is refreshing; ask the store again at that time, or before.
    Busy(Session, OffsetDateTime),
    /// Somebody removed the session from the store: authorize anew.
    Ended(Failed<Ready>),
    /// The request could not be made; the session is as it was.
    Kept(Failed<Session>, ReleaseClaim),
}

impl AwaitingClaim {
    /// The store has answered.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn claimed(
        self,
        receipt: RefreshClaim,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<ClaimOutcome, Failed<Self>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(HostMisuse::ForeignReceipt, self));
        }
        let session = self.0.1;
        Ok(match receipt.claimed {
            Claimed::Superseded(newer) => ClaimOutcome::Superseded(newer),
            Claimed::Busy(until) => ClaimOutcome::Busy(session, until),
            Claimed::Absent => {
                ClaimOutcome::Ended(Failed::new(OutsideFailed::SessionRemoved, session.into_ready()))
            }
            Claimed::Ours(fence) => session.send_refresh(fence, now, entropy),
        })
    }

    /// The store failed; nothing was sent, and the session is as it was.
    pub fn store_failed(self) -> Session {
        self.0.1
    }
}

impl Session {
    fn send_refresh(
        self,
        fence: Option<u64>,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> ClaimOutcome {
        let release = ReleaseClaim { place: Place::of(&self.0), fence };
        let Some(refresh_token) = self.0.tokens.refresh.clone() else {
            return ClaimOutcome::Kept(Failed::new(HostMisuse::NoRefreshToken, self), release);
        };
        let id = match entropy::draw::<16>(entropy) {
            Ok(id) => ActionId(*id),
            Err(error) => return ClaimOutcome::Kept(Failed::new(OutsideFailed::from(error), self), release),
        };
        let prepared = &self.0.prepared;
        // OAUTH21-4.3.1-1: no scope is named, so no more can be asked for. MCP-AUTH-052, MCP-AUTH-080.
        let resource = (!prepared.omits_resource()).then(|| self.resource().as_str().into());
        let grant = Grant::RefreshToken(RefreshGrant { refresh_token, scope: None, resource });
        match prepared.call(FetchPurpose::Refresh, Body::Token(grant), now, entropy) {
            Ok(call) => ClaimOutcome::Claimed(call.before(AwaitingRefresh(Box::new(Refreshing {
                held: *self.0,
                fence,
                id,
            })))),
            Err(error) => ClaimOutcome::Kept(Failed { error, state: self }, release),
        }
    }
}

/// Waits for the token endpoint to answer a refresh.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingRefresh(Box<Refreshing>);

#[derive(Debug)]
struct Refreshing {
    held: Held,
    fence: Option<u64>,
    id: ActionId,
}

/// What a refresh came to.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum RefreshOutcome {
    /// New tokens: commit the session first, then use it.
    Refreshed(Step<CommitRefresh, AwaitingCommit>),
    /// No answer, or none that can be used: the session is as it was.
    Kept(Failed<Session>, ReleaseClaim),
    /// The server ends the grant, unless another process has renewed it: look into the store before the person is asked.
    Ended(Step<DiscardSession, AwaitingDiscard>),
}

impl AwaitingRefresh {
    /// What the fetch brought.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>, now: OffsetDateTime) -> RefreshOutcome {
        let Refreshing { held, fence, id } = *self.0;
        let response = match held.prepared.tokens_of(fetched) {
            Ok(response) => response,
            Err(error) if !ends_the_grant(&error) => {
                let release = ReleaseClaim { place: Place::of(&held), fence };
                return RefreshOutcome::Kept(Failed { error, state: Session(Box::new(held)) }, release);
            }
            Err(error) => {
                return RefreshOutcome::Ended(AwaitingDiscard::step(Over { held, fence, id, error }));
            }
        };
        let Some((scope, granted)) = held.tokens.refreshed_scope(response.scope.as_ref()) else {
            let error = PeerMisbehaved::ScopeWidened.into();
            return RefreshOutcome::Ended(AwaitingDiscard::step(Over { held, fence, id, error }));
        };
        let Held { prepared, tokens, version } = held;
        let tokens = Tokens::new(response, scope, granted, tokens.refresh, now);
        let held = Held { prepared, tokens, version };
        RefreshOutcome::Refreshed(AwaitingCommit::step(Renewed { held, fence, id }))
    }
}

/// Whether the server said that the refresh token is good for nothing more. Everything else may pass.
fn ends_the_grant(error: &Error) -> bool {
    match error {
        Error::Incompatible(PeerIncompatible::TokenRefused(code)) => {
            !matches!(code.as_str(), "temporarily_unavailable" | "server_error")
        }
        Error::Incompatible(_) => true,
        Error::Outside(_) | Error::Peer(_) | Error::Host(_) => false,
    }
}

/// Keep the new tokens in place of the old ones, if the claim still holds (D39): an atomic comparison of the fence.
#[must_use = "a rotated refresh token that is not kept is lost"]
#[derive(Debug)]
pub struct CommitRefresh(Box<Commit>);

#[derive(Debug)]
struct Commit {
    place: Place,
    record: SessionInputs,
    fence: Option<u64>,
    id: ActionId,
}

impl CommitRefresh {
    /// The issuer of the session.
    pub fn issuer(&self) -> &Issuer {
        &self.0.place.issuer
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        &self.0.place.resource
    }

    /// The fence of the claim; none for a session no other process knows.
    pub fn fence(&self) -> Option<u64> {
        self.0.fence
    }

    /// The record to keep.
    ///
    /// # Errors
    /// [`Error`] when the sealer fails; the action is still there.
    pub fn record(&self, sealer: &dyn Sealer) -> Result<SessionRecord, Error> {
        self.0.record.seal(sealer)
    }

    /// It is kept, under that version.
    pub fn committed(self, version: RecordVersion) -> RefreshCommitted {
        RefreshCommitted { id: self.0.id, committed: Committed::Kept(Some(version)) }
    }

    /// The host keeps nothing.
    pub fn kept_in_memory(self) -> RefreshCommitted {
        RefreshCommitted { id: self.0.id, committed: Committed::Kept(None) }
    }

    /// The claim had ended, and the store has this record now: use that. The new tokens are dropped.
    ///
    /// # Errors
    /// [`Failed`] with this action when the record does not open, or belongs elsewhere.
    pub fn fenced(
        self,
        record: SessionRecord,
        version: RecordVersion,
        sealer: &dyn Sealer,
    ) -> Result<RefreshCommitted, Failed<Self>> {
        match self.0.place.resume(record, version, sealer) {
            Ok(session) => Ok(RefreshCommitted { id: self.0.id, committed: Committed::Fenced(session) }),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// The store has no such session any more: somebody logged out.
    pub fn absent(self) -> RefreshCommitted {
        RefreshCommitted { id: self.0.id, committed: Committed::Absent }
    }
}

#[derive(Debug)]
enum Committed {
    Kept(Option<RecordVersion>),
    Fenced(Session),
    Absent,
}

/// What came of a [`CommitRefresh`].
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct RefreshCommitted {
    id: ActionId,
    committed: Committed,
}

/// Waits until the refreshed session is kept.
#[must_use = "the tokens are there once the session is kept"]
#[derive(Debug)]
pub struct AwaitingCommit(Box<Renewed>);

#[derive(Debug)]
struct Renewed {
    held: Held,
    fence: Option<u64>,
    id: ActionId,
}

impl AwaitingCommit {
    fn step(renewed: Renewed) -> Step<CommitRefresh, Self> {
        let Renewed { held, fence, id } = &renewed;
        let record = SessionInputs::of(&held.prepared, &held.tokens);
        let commit = Commit { place: Place::of(held), record, fence: *fence, id: *id };
        Step::new(CommitRefresh(Box::new(commit)), Self(Box::new(renewed)))
    }

    /// The store failed: the same action once more. Dropping it loses the login, because the server has retired the
    /// refresh token that is stored.
    pub fn again(self) -> Step<CommitRefresh, Self> {
        Self::step(*self.0)
    }

    /// The store has answered.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn committed(self, receipt: RefreshCommitted) -> Result<Settled, Failed<Self>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(HostMisuse::ForeignReceipt, self));
        }
        let held = self.0.held;
        Ok(match receipt.committed {
            Committed::Kept(version) => Settled::Session(Session(Box::new(Held { version, ..held }))),
            Committed::Fenced(session) => Settled::Session(session),
            Committed::Absent => {
                Settled::Ended(Failed::new(OutsideFailed::SessionRemoved, Ready(Box::new(held.prepared))))
            }
        })
    }
}

/// Where a refresh has come to rest.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum Settled {
    /// A session: the refreshed one, or a newer one of another process.
    Session(Session),
    /// There is none any more, and why: authorize anew.
    Ended(Failed<Ready>),
}

/// Remove the session from the store, unless it was changed since the claim (D39).
#[must_use = "a session that is over is to be removed"]
#[derive(Debug)]
pub struct DiscardSession(Box<Discard>);

#[derive(Debug)]
struct Discard {
    place: Place,
    fence: Option<u64>,
    id: ActionId,
}

impl DiscardSession {
    /// The issuer of the session.
    pub fn issuer(&self) -> &Issuer {
        &self.0.place.issuer
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        &self.0.place.resource
    }

    /// The fence of the claim; none for a session no other process knows.
    pub fn fence(&self) -> Option<u64> {
        self.0.fence
    }

    /// It is removed, or was never there.
    pub fn discarded(self) -> SessionDiscarded {
        SessionDiscarded { id: self.0.id, newer: None }
    }

    /// The store has a newer one: use that.
    ///
    /// # Errors
    /// [`Failed`] with this action when the record does not open, or belongs elsewhere.
    pub fn superseded(
        self,
        record: SessionRecord,
        version: RecordVersion,
        sealer: &dyn Sealer,
    ) -> Result<SessionDiscarded, Failed<Self>> {
        match self.0.place.resume(record, version, sealer) {
            Ok(session) => Ok(SessionDiscarded { id: self.0.id, newer: Some(session) }),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

/// What came of a [`DiscardSession`].
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct SessionDiscarded {
    id: ActionId,
    newer: Option<Session>,
}

/// Waits for a look into the store, before the person is told that they are logged out.
#[must_use = "the flow goes on with the store's answer"]
#[derive(Debug)]
pub struct AwaitingDiscard(Box<Over>);

#[derive(Debug)]
struct Over {
    held: Held,
    fence: Option<u64>,
    id: ActionId,
    error: Error,
}

impl AwaitingDiscard {
    fn step(over: Over) -> Step<DiscardSession, Self> {
        let discard = Discard { place: Place::of(&over.held), fence: over.fence, id: over.id };
        Step::new(DiscardSession(Box::new(discard)), Self(Box::new(over)))
    }

    /// Why the grant is over.
    pub fn error(&self) -> &Error {
        &self.0.error
    }

    /// The store failed: the same action once more.
    pub fn again(self) -> Step<DiscardSession, Self> {
        Self::step(*self.0)
    }

    /// The store has answered.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn discarded(self, receipt: SessionDiscarded) -> Result<Settled, Failed<Self>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(HostMisuse::ForeignReceipt, self));
        }
        let Over { held, error, .. } = *self.0;
        Ok(match receipt.newer {
            Some(session) => Settled::Session(session),
            None => Settled::Ended(Failed { error, state: Ready(Box::new(held.prepared)) }),
        })
    }
}

/// Give a claim back that came to nothing; without it the claim ends by itself.
#[must_use = "other processes wait for the claim to end"]
#[derive(Debug)]
pub struct ReleaseClaim {
    place: Place,
    fence: Option<u64>,
}

impl ReleaseClaim {
    /// The issuer of the session.
    pub fn issuer(&self) -> &Issuer {
        &self.place.issuer
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        &self.place.resource
    }

    /// The fence of the claim; none where nothing was claimed.
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }
}
