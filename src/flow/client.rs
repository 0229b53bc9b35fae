//! The client's states as one enum.

use alloc::boxed::Box;
use alloc::string::String;

use super::OutOfTurn;
use crate::client::{
    AwaitingAssertion, AwaitingCallback, AwaitingClaim, AwaitingCommit, AwaitingDiscard, AwaitingPersisted,
    AwaitingRefresh, AwaitingRegistration, AwaitingResourceMetadata, AwaitingRevocation,
    AwaitingServerMetadata, AwaitingStepUp, AwaitingTokens, CallbackOutcome, ChoosingIdentity,
    ChoosingIssuer, ClaimOutcome, ClaimRefresh, Client, CommitRefresh, CountStepUp, DiscardSession,
    EndpointCall, ErrorResponse, IdentityKind, OpenUserAgent, PersistSession, Ready, RefreshClaim,
    RefreshCommitted, RefreshOutcome, ReleaseClaim, ResourceMetadataOutcome, ServerMetadataOutcome, Session,
    SessionDiscarded, SessionPersisted, Settled, StepUp, StepUpCounted,
};
use crate::entropy::Entropy;
use crate::error::{Error, HostMisuse, OutsideFailed};
use crate::evidence::IssuerForResource;
use crate::identifier::{Issuer, ResourceId, ScopeSet};
use crate::jose::{Sign, Signed};
use crate::message::authorization::Callback;
use crate::message::exchange::{Fetch, FetchFailure, Reply};
use crate::secret::AgentBinding;
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

/// Where a client's flow stands.
#[must_use = "a flow that is dropped is lost"]
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientFlow {
    /// See [`AwaitingResourceMetadata`].
    AwaitingResourceMetadata(AwaitingResourceMetadata),
    /// See [`ChoosingIssuer`].
    ChoosingIssuer(ChoosingIssuer),
    /// See [`AwaitingServerMetadata`].
    AwaitingServerMetadata(AwaitingServerMetadata),
    /// See [`ChoosingIdentity`].
    ChoosingIdentity(ChoosingIdentity),
    /// See [`AwaitingRegistration`].
    AwaitingRegistration(AwaitingRegistration),
    /// See [`Ready`].
    Ready(Ready),
    /// See [`AwaitingCallback`].
    AwaitingCallback(AwaitingCallback),
    /// See [`AwaitingAssertion`]; [`AwaitingTokens`] follows.
    AwaitingCodeAssertion(AwaitingAssertion<AwaitingTokens>),
    /// See [`AwaitingTokens`].
    AwaitingTokens(AwaitingTokens),
    /// See [`AwaitingPersisted`].
    AwaitingPersisted(AwaitingPersisted),
    /// See [`Session`].
    Session(Session),
    /// See [`AwaitingStepUp`].
    AwaitingStepUp(AwaitingStepUp),
    /// See [`AwaitingClaim`].
    AwaitingClaim(AwaitingClaim),
    /// See [`AwaitingAssertion`]; [`AwaitingRefresh`] follows.
    AwaitingRefreshAssertion(AwaitingAssertion<AwaitingRefresh>),
    /// See [`AwaitingRefresh`].
    AwaitingRefresh(AwaitingRefresh),
    /// See [`AwaitingCommit`].
    AwaitingCommit(AwaitingCommit),
    /// See [`AwaitingDiscard`].
    AwaitingDiscard(AwaitingDiscard),
    /// See [`AwaitingAssertion`]; [`AwaitingRevocation`] follows.
    AwaitingRevocationAssertion(AwaitingAssertion<AwaitingRevocation>),
    /// See [`AwaitingRevocation`].
    AwaitingRevocation(AwaitingRevocation),
}

/// What the host carries out.
#[must_use = "the flow waits for its result"]
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientAction {
    /// Send it, and come back with [`ClientInput::Fetched`].
    Fetch(Fetch),
    /// Open it, and come back with [`ClientInput::Callback`].
    OpenUserAgent(OpenUserAgent),
    /// Keep it, and come back with [`ClientInput::Persisted`].
    Persist(PersistSession),
    /// Sign it, and come back with [`ClientInput::Signed`], or [`ClientInput::SignerFailed`].
    Sign(Sign),
    /// Count the step-up, and come back with [`ClientInput::Counted`], or [`ClientInput::NotCounted`].
    Count(CountStepUp),
    /// Claim the session, and come back with [`ClientInput::Claimed`].
    Claim(ClaimRefresh),
    /// Keep the refreshed session, and come back with [`ClientInput::Committed`].
    Commit(CommitRefresh),
    /// Remove the session unless it was changed, and come back with [`ClientInput::Discarded`].
    Discard(DiscardSession),
    /// Give the claim back. Nothing waits for it.
    Release(ReleaseClaim),
}

/// What the host brings.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientInput {
    /// What a fetch brought.
    Fetched(Result<Reply, FetchFailure>),
    /// Fetch the same again, after a failure of the network.
    Retry,
    /// The chosen issuer, with the assertion it may need.
    Choose(Issuer, Option<IssuerForResource>),
    /// Go back to the choice of an issuer.
    ChooseAgain,
    /// The chosen identity.
    Identify(IdentityKind),
    /// Begin an authorization for these scopes beside those the flow knows of, in that browser.
    Begin(ScopeSet, AgentBinding),
    /// A request reached the redirect URI, in that browser.
    Callback(Box<Callback>, AgentBinding),
    /// Give up waiting for the browser.
    Abandon,
    /// The browser did not come back in time.
    TimedOut,
    /// The session is kept.
    Persisted(SessionPersisted),
    /// The step-up is counted.
    Counted(StepUpCounted),
    /// The join refused the step-up, or the store failed.
    NotCounted,
    /// Go back to the session that was there before a step-up that came to nothing.
    Return,
    /// The key holder's signature.
    Signed(Signed),
    /// The key holder failed.
    SignerFailed,
    /// Refresh the session.
    Refresh,
    /// What became of the claim.
    Claimed(RefreshClaim),
    /// What became of the refreshed session.
    Committed(RefreshCommitted),
    /// What became of the session that is over.
    Discarded(SessionDiscarded),
    /// Log out: revoke the session's tokens.
    Revoke,
    /// A request of the session, for that operation, was answered with this 401 or 403.
    Challenged(String, Reply),
}

/// What an input came to: where the flow stands, and what to carry out, or why nothing happened.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub struct ClientTurn {
    /// Where the flow stands now.
    pub flow: ClientFlow,
    /// What to carry out.
    pub action: Option<ClientAction>,
    /// What went wrong.
    pub error: Option<Error>,
    /// What the authorization server refused, in its words.
    pub refused: Option<ErrorResponse>,
}

impl ClientTurn {
    fn at(flow: ClientFlow) -> Self {
        Self { flow, action: None, error: None, refused: None }
    }

    fn act(action: ClientAction, flow: ClientFlow) -> Self {
        Self { action: Some(action), ..Self::at(flow) }
    }

    fn fetch<S>(step: Step<Fetch, S>, state: fn(S) -> ClientFlow) -> Self {
        let (fetch, waiting) = step.into_parts();
        Self::act(ClientAction::Fetch(fetch), state(waiting))
    }

    fn call<S>(
        call: EndpointCall<S>,
        fetched: fn(S) -> ClientFlow,
        signed: fn(AwaitingAssertion<S>) -> ClientFlow,
    ) -> Self {
        match call {
            EndpointCall::Fetch(step) => Self::fetch(step, fetched),
            EndpointCall::Sign(step) => {
                let (sign, waiting) = step.into_parts();
                Self::act(ClientAction::Sign(sign), signed(waiting))
            }
        }
    }

    fn signed<S>(
        state: AwaitingAssertion<S>,
        signature: Signed,
        fetched: fn(S) -> ClientFlow,
        again: fn(AwaitingAssertion<S>) -> ClientFlow,
    ) -> Self {
        match state.signed(signature) {
            Ok(step) => Self::fetch(step, fetched),
            Err(failed) => Self::failed(failed, again),
        }
    }

    fn kept(failed: Failed<Session>, release: ReleaseClaim) -> Self {
        Self { action: Some(ClientAction::Release(release)), ..Self::failed(failed, ClientFlow::Session) }
    }

    fn tokens(state: AwaitingTokens, fetched: Result<Reply, FetchFailure>, now: OffsetDateTime) -> Self {
        match state.receive(fetched, now) {
            Ok(step) => Self::persist(step),
            Err(failed) => Self::failed(failed, ClientFlow::Ready),
        }
    }

    fn refreshed(state: AwaitingRefresh, fetched: Result<Reply, FetchFailure>, now: OffsetDateTime) -> Self {
        match state.receive(fetched, now) {
            RefreshOutcome::Refreshed(step) => {
                let (commit, waiting) = step.into_parts();
                Self::act(ClientAction::Commit(commit), ClientFlow::AwaitingCommit(waiting))
            }
            RefreshOutcome::Kept(failed, release) => Self::kept(failed, release),
            RefreshOutcome::Ended(step) => {
                let (discard, waiting) = step.into_parts();
                Self::act(ClientAction::Discard(discard), ClientFlow::AwaitingDiscard(waiting))
            }
        }
    }

    fn settled(settled: Settled) -> Self {
        match settled {
            Settled::Session(session) => Self::at(ClientFlow::Session(session)),
            Settled::Ended(failed) => Self::failed(failed, ClientFlow::Ready),
        }
    }

    fn revoked(state: AwaitingRevocation, fetched: Result<Reply, FetchFailure>) -> Self {
        match state.receive(fetched) {
            Ok(ready) => Self::at(ClientFlow::Ready(ready)),
            Err(failed) => Self::failed(failed, ClientFlow::Session),
        }
    }

    fn claimed(outcome: ClaimOutcome) -> Self {
        match outcome {
            ClaimOutcome::Claimed(call) => {
                Self::call(call, ClientFlow::AwaitingRefresh, ClientFlow::AwaitingRefreshAssertion)
            }
            ClaimOutcome::Superseded(session) => Self::at(ClientFlow::Session(session)),
            ClaimOutcome::Busy(session, _) => {
                Self::failed(Failed::new(OutsideFailed::RefreshElsewhere, session), ClientFlow::Session)
            }
            ClaimOutcome::Ended(failed) => Self::failed(failed, ClientFlow::Ready),
            ClaimOutcome::Kept(failed, release) => Self::kept(failed, release),
        }
    }

    fn persist(step: Step<PersistSession, AwaitingPersisted>) -> Self {
        let (persist, waiting) = step.into_parts();
        Self::act(ClientAction::Persist(persist), ClientFlow::AwaitingPersisted(waiting))
    }

    fn failed<S>(failed: Failed<S>, state: fn(S) -> ClientFlow) -> Self {
        Self { error: Some(failed.error), ..Self::at(state(failed.state)) }
    }
}

impl ClientFlow {
    /// Begins with a 401 (or 403), as [`Client::challenged`].
    ///
    /// # Errors
    /// As there.
    pub fn challenged(client: &Client, server: &ResourceId, reply: &Reply) -> Result<ClientTurn, Error> {
        client.challenged(server, reply).map(|step| ClientTurn::fetch(step, Self::AwaitingResourceMetadata))
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`Failed`] with the unchanged flow when the present state does not wait for such an input.
    pub fn advance(
        self,
        input: ClientInput,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<ClientTurn, Failed<Self, OutOfTurn>> {
        Ok(match (self, input) {
            (Self::AwaitingResourceMetadata(state), ClientInput::Fetched(fetched)) => {
                match state.receive(fetched) {
                    Ok(ResourceMetadataOutcome::Next(step)) => {
                        ClientTurn::fetch(step, Self::AwaitingResourceMetadata)
                    }
                    Ok(ResourceMetadataOutcome::Found(state)) => ClientTurn::at(Self::ChoosingIssuer(state)),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingResourceMetadata),
                }
            }
            (Self::AwaitingResourceMetadata(state), ClientInput::Retry) => match state.retry() {
                Ok(step) => ClientTurn::fetch(step, Self::AwaitingResourceMetadata),
                Err(failed) => ClientTurn::failed(failed, Self::AwaitingResourceMetadata),
            },
            (Self::ChoosingIssuer(state), ClientInput::Choose(issuer, assertion)) => {
                match state.choose(&issuer, assertion) {
                    Ok(step) => ClientTurn::fetch(step, Self::AwaitingServerMetadata),
                    Err(failed) => ClientTurn::failed(failed, Self::ChoosingIssuer),
                }
            }
            (Self::AwaitingServerMetadata(state), ClientInput::Fetched(fetched)) => {
                match state.receive(fetched) {
                    Ok(ServerMetadataOutcome::Next(step)) => {
                        ClientTurn::fetch(step, Self::AwaitingServerMetadata)
                    }
                    Ok(ServerMetadataOutcome::Found(state)) => ClientTurn::at(Self::ChoosingIdentity(state)),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingServerMetadata),
                }
            }
            (Self::AwaitingServerMetadata(state), ClientInput::Retry) => match state.retry() {
                Ok(step) => ClientTurn::fetch(step, Self::AwaitingServerMetadata),
                Err(failed) => ClientTurn::failed(failed, Self::AwaitingServerMetadata),
            },
            (Self::AwaitingServerMetadata(state), ClientInput::ChooseAgain) => {
                ClientTurn::at(Self::ChoosingIssuer(state.choose_again()))
            }
            (Self::ChoosingIdentity(state), ClientInput::Identify(kind)) => Self::identify(state, kind),
            (Self::AwaitingRegistration(state), ClientInput::Fetched(fetched)) => {
                match state.receive(fetched) {
                    Ok(ready) => ClientTurn::at(Self::Ready(ready)),
                    Err(failed) => ClientTurn::failed(failed, Self::ChoosingIdentity),
                }
            }
            (Self::Ready(state), ClientInput::Begin(scopes, agent)) => {
                match state.begin(&scopes, agent, now, entropy) {
                    Ok(step) => {
                        let (open, state) = step.into_parts();
                        ClientTurn::act(ClientAction::OpenUserAgent(open), Self::AwaitingCallback(state))
                    }
                    Err(failed) => ClientTurn::failed(failed, Self::Ready),
                }
            }
            (Self::AwaitingCallback(state), ClientInput::Callback(callback, agent)) => {
                match state.receive(*callback, &agent, now, entropy) {
                    CallbackOutcome::Unsolicited(state) => ClientTurn::at(Self::AwaitingCallback(state)),
                    CallbackOutcome::Accepted(call) => {
                        ClientTurn::call(call, Self::AwaitingTokens, Self::AwaitingCodeAssertion)
                    }
                    CallbackOutcome::Refused(response, ready) => {
                        ClientTurn { refused: Some(response), ..ClientTurn::at(Self::Ready(ready)) }
                    }
                    CallbackOutcome::Rejected(failed) => ClientTurn::failed(failed, Self::Ready),
                }
            }
            (Self::AwaitingCallback(state), ClientInput::Abandon) => {
                ClientTurn::at(Self::Ready(state.abandon()))
            }
            (Self::AwaitingCallback(state), ClientInput::TimedOut) => {
                ClientTurn::failed(state.timed_out(), Self::Ready)
            }
            (Self::AwaitingCodeAssertion(state), ClientInput::Signed(signed)) => {
                ClientTurn::signed(state, signed, Self::AwaitingTokens, Self::AwaitingCodeAssertion)
            }
            (Self::AwaitingCodeAssertion(state), ClientInput::SignerFailed) => {
                ClientTurn::tokens(state.signer_failed(), Err(FetchFailure::NotSent), now)
            }
            (Self::AwaitingTokens(state), ClientInput::Fetched(fetched)) => {
                ClientTurn::tokens(state, fetched, now)
            }
            (Self::AwaitingPersisted(state), ClientInput::Persisted(receipt)) => {
                match state.persisted(receipt) {
                    Ok(session) => ClientTurn::at(Self::Session(session)),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingPersisted),
                }
            }
            (Self::Session(state), ClientInput::Refresh) => match state.refresh(now, entropy) {
                Ok(step) => {
                    let (claim, state) = step.into_parts();
                    ClientTurn::act(ClientAction::Claim(claim), Self::AwaitingClaim(state))
                }
                Err(failed) => ClientTurn::failed(failed, Self::Session),
            },
            (Self::Session(state), ClientInput::Revoke) => match state.revoke(now, entropy) {
                Ok(call) => {
                    ClientTurn::call(call, Self::AwaitingRevocation, Self::AwaitingRevocationAssertion)
                }
                Err(failed) => ClientTurn::failed(failed, Self::Session),
            },
            (Self::Session(state), ClientInput::Challenged(operation, reply)) => {
                match state.challenged(&operation, &reply, now) {
                    Ok(StepUp::Refresh(session)) => ClientTurn::at(Self::Session(session)),
                    Ok(StepUp::Authorize(ready)) => ClientTurn::at(Self::Ready(ready)),
                    Ok(StepUp::Count(step)) => {
                        let (count, state) = step.into_parts();
                        ClientTurn::act(ClientAction::Count(count), Self::AwaitingStepUp(state))
                    }
                    Err(failed) => ClientTurn::failed(failed, Self::Session),
                }
            }
            (Self::AwaitingStepUp(state), ClientInput::Counted(receipt)) => match state.counted(receipt) {
                Ok(ready) => ClientTurn::at(Self::Ready(ready)),
                Err(failed) => ClientTurn::failed(failed, Self::AwaitingStepUp),
            },
            (Self::AwaitingStepUp(state), ClientInput::NotCounted) => {
                ClientTurn::at(Self::Session(state.given_up()))
            }
            (Self::Ready(state), ClientInput::Return) => match state.earlier_session() {
                Ok(session) => ClientTurn::at(Self::Session(session)),
                Err(ready) => return Err(Failed { error: OutOfTurn, state: Self::Ready(ready) }),
            },
            (Self::AwaitingClaim(state), ClientInput::Claimed(receipt)) => {
                match state.claimed(receipt, now, entropy) {
                    Ok(outcome) => ClientTurn::claimed(outcome),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingClaim),
                }
            }
            (Self::AwaitingRefreshAssertion(state), ClientInput::Signed(signed)) => {
                ClientTurn::signed(state, signed, Self::AwaitingRefresh, Self::AwaitingRefreshAssertion)
            }
            (Self::AwaitingRefreshAssertion(state), ClientInput::SignerFailed) => {
                ClientTurn::refreshed(state.signer_failed(), Err(FetchFailure::NotSent), now)
            }
            (Self::AwaitingRefresh(state), ClientInput::Fetched(fetched)) => {
                ClientTurn::refreshed(state, fetched, now)
            }
            (Self::AwaitingCommit(state), ClientInput::Committed(receipt)) => {
                match state.committed(receipt) {
                    Ok(settled) => ClientTurn::settled(settled),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingCommit),
                }
            }
            (Self::AwaitingDiscard(state), ClientInput::Discarded(receipt)) => {
                match state.discarded(receipt) {
                    Ok(settled) => ClientTurn::settled(settled),
                    Err(failed) => ClientTurn::failed(failed, Self::AwaitingDiscard),
                }
            }
            (Self::AwaitingRevocationAssertion(state), ClientInput::Signed(signed)) => {
                ClientTurn::signed(state, signed, Self::AwaitingRevocation, Self::AwaitingRevocationAssertion)
            }
            (Self::AwaitingRevocationAssertion(state), ClientInput::SignerFailed) => {
                ClientTurn::revoked(state.signer_failed(), Err(FetchFailure::NotSent))
            }
            (Self::AwaitingRevocation(state), ClientInput::Fetched(fetched)) => {
                ClientTurn::revoked(state, fetched)
            }
            (flow, _) => return Err(Failed { error: OutOfTurn, state: flow }),
        })
    }

    fn identify(state: ChoosingIdentity, kind: IdentityKind) -> ClientTurn {
        let ready = match kind {
            IdentityKind::PreRegistered => state.pre_registered(),
            IdentityKind::MetadataDocument => state.metadata_document(),
            IdentityKind::Registered => {
                return match state.register() {
                    Ok(step) => ClientTurn::fetch(step, Self::AwaitingRegistration),
                    Err(failed) => ClientTurn::failed(failed, Self::ChoosingIdentity),
                };
            }
        };
        match ready {
            Ok(ready) => ClientTurn::at(Self::Ready(ready)),
            Err(failed) => ClientTurn::failed(failed, Self::ChoosingIdentity),
        }
    }

    /// The session, where the flow has come that far.
    ///
    /// # Errors
    /// The flow as it is, before that.
    pub fn into_session(self) -> Result<Session, Failed<Self>> {
        match self {
            Self::Session(session) => Ok(session),
            flow => Err(Failed::new(HostMisuse::ForeignReceipt, flow)),
        }
    }
}
