//! One request at any endpoint of the authorization server as one enum: actions out, results in, one answer at the end.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use super::OutOfTurn;
use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authorization::{
    Authorizing, AwaitingClient, AwaitingConsent, AwaitingDecisionStored, AwaitingMetadataDocument,
    ConsentView, ErrorAwaitingPerson, PageOutcome, Recall, Recalled, Redirect, RequestOutcome,
    RequestValidated,
};
use crate::authorization_server::caller::{
    AwaitingCaller, AwaitingCallerKeys, AwaitingReservation, CallerOutcome,
};
use crate::authorization_server::decision::{AwaitingCodeStored, AwaitingDecision, Decided, Deciding};
use crate::authorization_server::error::TokenFailure;
use crate::authorization_server::introspection::{
    AwaitingIntrospected, AwaitingIntrospectedGrant, AwaitingIntrospectedRefresh, IntrospectionOutcome,
};
use crate::authorization_server::management::{
    AwaitingClientDeleted, AwaitingClientUpdated, AwaitingManaged, ManagementOutcome,
};
use crate::authorization_server::pushed::{AwaitingPushed, AwaitingPushedRequest};
use crate::authorization_server::refresh::{
    AwaitingRefresh, AwaitingRefreshSignature, AwaitingRotation, RefreshOutcome, RotationOutcome,
};
use crate::authorization_server::refusal::Refusal;
use crate::authorization_server::registration::AwaitingClientStored;
use crate::authorization_server::revocation::{
    AwaitingRevocable, AwaitingRevocableAccess, AwaitingRevoked, RevocableOutcome,
};
use crate::authorization_server::store::{
    AccessFound, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound, CodeRedemption,
    ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, RevokeFamily, RotateRefresh,
    UpdateClient,
};
use crate::authorization_server::token::{
    AwaitingCode, AwaitingRedemption, AwaitingRevocation, AwaitingSignature, CodeOutcome, RedemptionOutcome,
};
use crate::entropy::Entropy;
use crate::evidence::{Approval, Authentication};
use crate::jose::{KeyImporter, KeySet, Sign, Signed};
use crate::message::exchange::{Fetch, FetchFailure, Reply, RequestHead, Respond};
use crate::secret::AgentBinding;
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

/// Where a request at the authorization server stands.
#[must_use = "the peer waits for an answer"]
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerFlow {
    /// See [`AwaitingClient`].
    AwaitingClient(AwaitingClient),
    /// See [`AwaitingMetadataDocument`].
    AwaitingMetadataDocument(AwaitingMetadataDocument),
    /// See [`RequestValidated`].
    RequestValidated(RequestValidated),
    /// See [`ErrorAwaitingPerson`].
    ErrorAwaitingPerson(ErrorAwaitingPerson),
    /// See [`AwaitingDecisionStored`].
    AwaitingDecisionStored(AwaitingDecisionStored),
    /// See [`AwaitingDecision`].
    AwaitingDecision(AwaitingDecision),
    /// See [`Deciding`].
    Deciding(Deciding),
    /// See [`AwaitingCodeStored`].
    AwaitingCodeStored(AwaitingCodeStored),
    /// See [`AwaitingPushedRequest`].
    AwaitingPushedRequest(AwaitingPushedRequest),
    /// See [`AwaitingConsent`].
    AwaitingConsent(AwaitingConsent),
    /// See [`AwaitingCaller`].
    AwaitingCaller(AwaitingCaller),
    /// See [`AwaitingCallerKeys`].
    AwaitingCallerKeys(AwaitingCallerKeys),
    /// See [`AwaitingReservation`].
    AwaitingReservation(AwaitingReservation),
    /// See [`AwaitingPushed`].
    AwaitingPushed(AwaitingPushed),
    /// See [`AwaitingIntrospected`].
    AwaitingIntrospected(AwaitingIntrospected),
    /// See [`AwaitingIntrospectedGrant`].
    AwaitingIntrospectedGrant(AwaitingIntrospectedGrant),
    /// See [`AwaitingIntrospectedRefresh`].
    AwaitingIntrospectedRefresh(AwaitingIntrospectedRefresh),
    /// See [`AwaitingManaged`].
    AwaitingManaged(AwaitingManaged),
    /// See [`AwaitingClientUpdated`].
    AwaitingClientUpdated(AwaitingClientUpdated),
    /// See [`AwaitingClientDeleted`].
    AwaitingClientDeleted(AwaitingClientDeleted),
    /// See [`AwaitingCode`].
    AwaitingCode(AwaitingCode),
    /// See [`AwaitingSignature`].
    AwaitingSignature(AwaitingSignature),
    /// See [`AwaitingRedemption`].
    AwaitingRedemption(AwaitingRedemption),
    /// See [`AwaitingRefresh`].
    AwaitingRefresh(AwaitingRefresh),
    /// See [`AwaitingRefreshSignature`].
    AwaitingRefreshSignature(AwaitingRefreshSignature),
    /// See [`AwaitingRotation`].
    AwaitingRotation(AwaitingRotation),
    /// See [`AwaitingRevocation`].
    AwaitingRevocation(AwaitingRevocation),
    /// See [`AwaitingRevocable`].
    AwaitingRevocable(AwaitingRevocable),
    /// See [`AwaitingRevocableAccess`].
    AwaitingRevocableAccess(AwaitingRevocableAccess),
    /// See [`AwaitingRevoked`].
    AwaitingRevoked(AwaitingRevoked),
    /// See [`AwaitingClientStored`].
    AwaitingClientStored(AwaitingClientStored),
}

/// What the host carries out.
#[must_use = "the flow waits for its result"]
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerAction {
    /// Look a client up.
    FindClient(FindClient),
    /// Fetch a client metadata document.
    Fetch(Fetch),
    /// Store what a person will be asked.
    InsertDecision(Box<InsertDecision>),
    /// Read what a person was asked.
    ReadDecision(ReadDecision),
    /// Consume the decision.
    DecideOnce(Box<DecideOnce>),
    /// Read a code.
    ReadCode(ReadCode),
    /// Sign an access token.
    Sign(Sign),
    /// Redeem a code.
    RedeemCode(Box<RedeemCode>),
    /// Read a refresh token.
    ReadRefresh(ReadRefresh),
    /// Rotate a refresh token.
    RotateRefresh(Box<RotateRefresh>),
    /// Revoke a family.
    RevokeFamily(RevokeFamily),
    /// Store a client that registered.
    InsertClient(Box<InsertClient>),
    /// Read a pushed request.
    ReadPushed(ReadPushed),
    /// Store a pushed request.
    InsertPushed(InsertPushed),
    /// Read what a person wanted remembered.
    ReadConsent(ReadConsent),
    /// Import the keys of the client's record.
    ImportKeys,
    /// Reserve an identifier.
    ReserveOnce(ReserveOnce),
    /// Read an opaque access token.
    ReadAccess(ReadAccess),
    /// Read a grant.
    ReadGrant(ReadGrant),
    /// Replace a client.
    UpdateClient(Box<UpdateClient>),
    /// Delete a client.
    DeleteClient(DeleteClient),
}

/// What imports the keys of a client that signs.
#[derive(Clone)]
pub struct Importer(pub Arc<dyn KeyImporter>);

impl fmt::Debug for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Importer")
    }
}

/// What the host brings.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerInput {
    /// Of [`ServerAction::FindClient`].
    ClientFound(ClientFound),
    /// Of [`ServerAction::Fetch`].
    Fetched(Result<Reply, FetchFailure>),
    /// The person is signed in.
    Person(Authentication),
    /// Of [`ServerAction::InsertDecision`].
    DecisionInserted(DecisionInsertion),
    /// Of [`ServerAction::ReadDecision`].
    DecisionFound(DecisionFound),
    /// The person approved; with the form's anti-forgery value.
    Approve(Approval, alloc::string::String),
    /// The person denied; with the form's anti-forgery value.
    Deny(alloc::string::String, AgentBinding, alloc::string::String),
    /// Of [`ServerAction::DecideOnce`].
    DecisionTaken(DecisionTaken),
    /// Of [`ServerAction::ReadCode`].
    CodeFound(CodeFound),
    /// Of [`ServerAction::Sign`].
    Signed(Signed),
    /// Of [`ServerAction::RedeemCode`].
    CodeRedeemed(CodeRedemption),
    /// Of [`ServerAction::ReadRefresh`].
    RefreshFound(RefreshFound),
    /// Of [`ServerAction::RotateRefresh`].
    RefreshRotated(RefreshRotation),
    /// Of [`ServerAction::RevokeFamily`].
    FamilyRevoked(FamilyRevocation),
    /// Of [`ServerAction::InsertClient`].
    ClientInserted(ClientInsertion),
    /// Of [`ServerAction::ReadPushed`].
    PushedFound(PushedFound),
    /// Of [`ServerAction::InsertPushed`].
    PushedInserted(PushedInsertion),
    /// Of [`ServerAction::ReadConsent`].
    ConsentFound(ConsentFound),
    /// Of [`ServerAction::ImportKeys`].
    Importer(Importer),
    /// Of [`ServerAction::Fetch`] for a client's keys.
    KeysFetched(Result<Reply, FetchFailure>, Importer),
    /// Of [`ServerAction::ReserveOnce`].
    Reserved(Reservation),
    /// Of [`ServerAction::ReadAccess`] at the revocation endpoint.
    AccessFound(AccessFound),
    /// Of [`ServerAction::ReadAccess`] at the introspection endpoint, with the server's own public keys.
    IntrospectedFound(AccessFound, KeySet),
    /// Of [`ServerAction::ReadGrant`].
    GrantFound(GrantFound),
    /// Of [`ServerAction::UpdateClient`].
    ClientUpdated(ClientUpdate),
    /// Of [`ServerAction::DeleteClient`].
    ClientDeleted(ClientDeletion),
    /// The store, or the key holder, failed.
    Failed,
}

/// How a request ends.
#[must_use = "the peer waits for it"]
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEnd {
    /// Send this answer.
    Respond(Respond),
    /// Send the browser back to the client.
    Redirect(Redirect),
    /// Show the consent page.
    Consent(Box<ConsentView>),
    /// Show why not.
    Refusal(Refusal),
}

/// What an input came to.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum ServerTurn {
    /// Carry this out, and come back with its result.
    Act(ServerAction, ServerFlow),
    /// The host's turn: sign the person in, or let them answer.
    Wait(ServerFlow),
    /// The request is over.
    End(ServerEnd),
}

type Advanced = Result<ServerTurn, Failed<ServerFlow, OutOfTurn>>;

fn act<A, S>(step: Step<A, S>, action: fn(A) -> ServerAction, state: fn(S) -> ServerFlow) -> ServerTurn {
    let (wanted, waiting) = step.into_parts();
    ServerTurn::Act(action(wanted), state(waiting))
}

fn respond(respond: Respond) -> ServerTurn {
    ServerTurn::End(ServerEnd::Respond(respond))
}

fn refusal(refusal: Refusal) -> ServerTurn {
    ServerTurn::End(ServerEnd::Refusal(refusal))
}

fn back<S, E>(failed: Failed<S, E>, state: fn(S) -> ServerFlow) -> Failed<ServerFlow, OutOfTurn> {
    Failed { error: OutOfTurn, state: state(failed.state) }
}

fn redirected(redirect: Result<Redirect, Refusal>) -> ServerTurn {
    redirect.map_or_else(refusal, |redirect| ServerTurn::End(ServerEnd::Redirect(redirect)))
}

impl ServerFlow {
    /// A request at the authorization endpoint.
    pub fn authorize(server: &AuthorizationServer, query: &str) -> ServerTurn {
        Self::authorizing(server.authorize(query))
    }

    fn authorizing(authorizing: Result<Authorizing, Refusal>) -> ServerTurn {
        match authorizing {
            Ok(Authorizing::Find(step)) => act(step, ServerAction::FindClient, Self::AwaitingClient),
            Ok(Authorizing::Fetch(step)) => act(step, ServerAction::Fetch, Self::AwaitingMetadataDocument),
            Ok(Authorizing::Pushed(step)) => act(step, ServerAction::ReadPushed, Self::AwaitingPushedRequest),
            Err(why) => refusal(why),
        }
    }

    /// The form of the consent page came back.
    pub fn decide(server: &AuthorizationServer, handle: &str) -> ServerTurn {
        act(server.decide(handle), ServerAction::ReadDecision, Self::AwaitingDecision)
    }

    /// A request at the token endpoint.
    pub fn token(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> ServerTurn {
        Self::called(server.token(head, body))
    }

    /// A request at the revocation endpoint.
    pub fn revoke(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> ServerTurn {
        Self::called(server.revoke(head, body))
    }

    /// A request at the introspection endpoint.
    pub fn introspect(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> ServerTurn {
        Self::called(server.introspect(head, body))
    }

    /// A request at the endpoint for pushed requests.
    pub fn push(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> ServerTurn {
        Self::called(server.push(head, body))
    }

    fn called(step: Result<Step<FindClient, AwaitingCaller>, TokenFailure>) -> ServerTurn {
        match step {
            Ok(step) => act(step, ServerAction::FindClient, Self::AwaitingCaller),
            Err(failure) => respond(failure.respond()),
        }
    }

    /// A request at a client's own registration.
    pub fn manage(
        server: &AuthorizationServer,
        client_id: &str,
        head: &RequestHead,
        body: &[u8],
    ) -> ServerTurn {
        match server.manage(client_id, head, body) {
            Ok(step) => act(step, ServerAction::FindClient, Self::AwaitingManaged),
            Err(answer) => respond(answer),
        }
    }

    /// A request at the registration endpoint.
    pub fn register(
        server: &AuthorizationServer,
        head: &RequestHead,
        body: &[u8],
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> ServerTurn {
        match server.register(head, body, now, entropy) {
            Ok(step) => {
                act(step, |action| ServerAction::InsertClient(Box::new(action)), Self::AwaitingClientStored)
            }
            Err(reason) => respond(reason.respond()),
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`Failed`] with the unchanged flow when the present state does not wait for such an input, or for the result of
    /// another action.
    pub fn advance(self, input: ServerInput, now: OffsetDateTime, entropy: &mut dyn Entropy) -> Advanced {
        match (self, input) {
            (Self::AwaitingClient(state), ServerInput::ClientFound(found)) => {
                Ok(Self::checked(state.found(found)))
            }
            (Self::AwaitingMetadataDocument(state), ServerInput::Fetched(fetched)) => {
                Ok(Self::checked(state.receive(fetched, now)))
            }
            (Self::RequestValidated(state), ServerInput::Person(person)) => Ok(match state.recall(&person) {
                Recall::Read(step) => act(step, ServerAction::ReadConsent, Self::AwaitingConsent),
                Recall::Ask(state) => Self::asked(state, &person, now, entropy),
            }),
            (Self::AwaitingConsent(state), ServerInput::ConsentFound(found)) => {
                Ok(match state.found(found, entropy) {
                    Recalled::Remembered(step) => Self::decided(Ok(step)),
                    Recalled::Ask(state, person) => Self::asked(state, &person, now, entropy),
                    Recalled::Refused(why) => refusal(why),
                })
            }
            (Self::AwaitingPushedRequest(state), ServerInput::PushedFound(found)) => {
                Ok(Self::authorizing(state.found(found)))
            }
            (Self::ErrorAwaitingPerson(state), ServerInput::Person(person)) => {
                Ok(redirected(state.redirect(&person)))
            }
            (Self::AwaitingDecisionStored(state), ServerInput::DecisionInserted(receipt)) => state
                .stored(receipt)
                .map(|outcome| match outcome {
                    PageOutcome::Consent(view) => ServerTurn::End(ServerEnd::Consent(view)),
                    PageOutcome::Refused(why) => refusal(why),
                })
                .map_err(|failed| back(failed, Self::AwaitingDecisionStored)),
            (Self::AwaitingDecision(state), ServerInput::DecisionFound(found)) => {
                Ok(state.found(found).map_or_else(refusal, |state| ServerTurn::Wait(Self::Deciding(state))))
            }
            (Self::Deciding(state), ServerInput::Approve(approval, csrf)) => {
                Ok(Self::decided(state.approve(approval, &csrf, entropy)))
            }
            (Self::Deciding(state), ServerInput::Deny(subject, agent, csrf)) => {
                Ok(Self::decided(state.deny(&subject, agent, &csrf, entropy)))
            }
            (Self::AwaitingCodeStored(state), ServerInput::DecisionTaken(receipt)) => {
                match state.decided(receipt) {
                    Ok(Decided::Redirect(redirect)) => Ok(ServerTurn::End(ServerEnd::Redirect(redirect))),
                    Ok(Decided::Refused(why)) => Ok(refusal(why)),
                    Err(failed) => Err(back(failed, Self::AwaitingCodeStored)),
                }
            }
            (Self::AwaitingClientStored(state), ServerInput::ClientInserted(receipt)) => {
                state.stored(receipt).map(respond).map_err(|failed| back(failed, Self::AwaitingClientStored))
            }
            (flow, ServerInput::Failed) => flow.failed(),
            (flow, input) => flow.advance_registration(input, entropy),
        }
    }

    fn asked(
        state: RequestValidated,
        person: &Authentication,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> ServerTurn {
        match state.show(person, now, entropy) {
            Ok(step) => act(
                step,
                |action| ServerAction::InsertDecision(Box::new(action)),
                Self::AwaitingDecisionStored,
            ),
            Err(why) => refusal(why),
        }
    }

    fn checked(outcome: RequestOutcome) -> ServerTurn {
        match outcome {
            RequestOutcome::Validated(state) => ServerTurn::Wait(Self::RequestValidated(state)),
            RequestOutcome::Error(state) => ServerTurn::Wait(Self::ErrorAwaitingPerson(state)),
            RequestOutcome::Refused(why) => refusal(why),
        }
    }

    fn decided(step: Result<Step<DecideOnce, AwaitingCodeStored>, Refusal>) -> ServerTurn {
        match step {
            Ok(step) => {
                act(step, |action| ServerAction::DecideOnce(Box::new(action)), Self::AwaitingCodeStored)
            }
            Err(why) => refusal(why),
        }
    }

    /// The management of registrations.
    fn advance_registration(self, input: ServerInput, entropy: &mut dyn Entropy) -> Advanced {
        match (self, input) {
            (Self::AwaitingManaged(state), ServerInput::ClientFound(found)) => {
                Ok(match state.found(found, entropy) {
                    ManagementOutcome::Update(step) => act(
                        step,
                        |action| ServerAction::UpdateClient(Box::new(action)),
                        Self::AwaitingClientUpdated,
                    ),
                    ManagementOutcome::Delete(step) => {
                        act(step, ServerAction::DeleteClient, Self::AwaitingClientDeleted)
                    }
                    ManagementOutcome::Answer(answer) => respond(answer),
                })
            }
            (Self::AwaitingClientUpdated(state), ServerInput::ClientUpdated(receipt)) => state
                .updated(receipt)
                .map(respond)
                .map_err(|failed| back(failed, Self::AwaitingClientUpdated)),
            (Self::AwaitingClientDeleted(state), ServerInput::ClientDeleted(receipt)) => state
                .deleted(receipt)
                .map(respond)
                .map_err(|failed| back(failed, Self::AwaitingClientDeleted)),
            (flow, input) => flow.advance_caller(input, entropy),
        }
    }

    fn caller(outcome: CallerOutcome) -> ServerTurn {
        match outcome {
            CallerOutcome::Code(step) => act(step, ServerAction::ReadCode, Self::AwaitingCode),
            CallerOutcome::Refresh(step) => act(step, ServerAction::ReadRefresh, Self::AwaitingRefresh),
            CallerOutcome::Revocation(step) => act(step, ServerAction::ReadRefresh, Self::AwaitingRevocable),
            CallerOutcome::Introspection(step) => {
                act(step, ServerAction::ReadAccess, Self::AwaitingIntrospected)
            }
            CallerOutcome::Push(step) => act(step, ServerAction::InsertPushed, Self::AwaitingPushed),
            CallerOutcome::Fetch(step) => act(step, ServerAction::Fetch, Self::AwaitingCallerKeys),
            CallerOutcome::Keys(state) => {
                ServerTurn::Act(ServerAction::ImportKeys, Self::AwaitingCallerKeys(state))
            }
            CallerOutcome::Reserve(step) => act(step, ServerAction::ReserveOnce, Self::AwaitingReservation),
            CallerOutcome::Answer(answer) => respond(answer),
            CallerOutcome::Refused(failure) => respond(failure.respond()),
        }
    }

    /// Who calls an endpoint for clients, and the endpoints for pushed requests and introspection.
    fn advance_caller(self, input: ServerInput, entropy: &mut dyn Entropy) -> Advanced {
        let failed = |failure: TokenFailure| respond(failure.respond());
        Ok(match (self, input) {
            (Self::AwaitingCaller(state), ServerInput::ClientFound(found)) => {
                Self::caller(state.found(found, entropy))
            }
            (Self::AwaitingCallerKeys(state), ServerInput::Importer(importer)) => {
                Self::caller(state.import(importer.0.as_ref()))
            }
            (Self::AwaitingCallerKeys(state), ServerInput::KeysFetched(fetched, importer)) => {
                Self::caller(state.receive(fetched, importer.0.as_ref()))
            }
            (Self::AwaitingReservation(state), ServerInput::Reserved(receipt)) => {
                Self::caller(state.reserved(receipt, entropy))
            }
            (Self::AwaitingPushed(state), ServerInput::PushedInserted(receipt)) => {
                match state.stored(receipt) {
                    Ok(answer) => respond(answer),
                    Err(failed) => return Err(back(failed, Self::AwaitingPushed)),
                }
            }
            (Self::AwaitingIntrospected(state), ServerInput::IntrospectedFound(found, keys)) => {
                match state.found(found, &keys) {
                    IntrospectionOutcome::Grant(step) => {
                        act(step, ServerAction::ReadGrant, Self::AwaitingIntrospectedGrant)
                    }
                    IntrospectionOutcome::Refresh(step) => {
                        act(step, ServerAction::ReadRefresh, Self::AwaitingIntrospectedRefresh)
                    }
                    IntrospectionOutcome::Answer(answer) => respond(answer),
                    IntrospectionOutcome::Refused(failure) => failed(failure),
                }
            }
            (Self::AwaitingIntrospectedGrant(state), ServerInput::GrantFound(found)) => {
                state.found(found).map_or_else(failed, respond)
            }
            (Self::AwaitingIntrospectedRefresh(state), ServerInput::RefreshFound(found)) => {
                state.found(found).map_or_else(failed, respond)
            }
            (flow, input) => return flow.advance_token(input, entropy),
        })
    }

    fn revocable(outcome: RevocableOutcome) -> ServerTurn {
        match outcome {
            RevocableOutcome::Revoke(step) => act(step, ServerAction::RevokeFamily, Self::AwaitingRevoked),
            RevocableOutcome::Access(step) => {
                act(step, ServerAction::ReadAccess, Self::AwaitingRevocableAccess)
            }
            RevocableOutcome::Done(answer) => respond(answer),
            RevocableOutcome::Refused(failure) => respond(failure.respond()),
        }
    }

    /// The token and revocation endpoints.
    fn advance_token(self, input: ServerInput, entropy: &mut dyn Entropy) -> Advanced {
        let revoke = |step| act(step, ServerAction::RevokeFamily, Self::AwaitingRevocation);
        Ok(match (self, input) {
            (Self::AwaitingCode(state), ServerInput::CodeFound(found)) => match state.found(found, entropy) {
                CodeOutcome::Sign(step) => act(step, ServerAction::Sign, Self::AwaitingSignature),
                CodeOutcome::Redeem(step) => {
                    act(step, |action| ServerAction::RedeemCode(Box::new(action)), Self::AwaitingRedemption)
                }
                CodeOutcome::Replayed(step) => revoke(step),
                CodeOutcome::Refused(failure) => respond(failure.respond()),
            },
            (Self::AwaitingSignature(state), ServerInput::Signed(signed)) => match state.signed(signed) {
                Ok(step) => {
                    act(step, |action| ServerAction::RedeemCode(Box::new(action)), Self::AwaitingRedemption)
                }
                Err(failure) => respond(failure.respond()),
            },
            (Self::AwaitingRedemption(state), ServerInput::CodeRedeemed(receipt)) => {
                match state.redeemed(receipt, entropy) {
                    Ok(RedemptionOutcome::Tokens(answer)) => respond(answer),
                    Ok(RedemptionOutcome::Replayed(step)) => revoke(step),
                    Ok(RedemptionOutcome::Refused(failure)) => respond(failure.respond()),
                    Err(failed) => return Err(back(failed, Self::AwaitingRedemption)),
                }
            }
            (Self::AwaitingRefresh(state), ServerInput::RefreshFound(found)) => match state
                .found(found, entropy)
            {
                RefreshOutcome::Sign(step) => act(step, ServerAction::Sign, Self::AwaitingRefreshSignature),
                RefreshOutcome::Rotate(step) => {
                    act(step, |action| ServerAction::RotateRefresh(Box::new(action)), Self::AwaitingRotation)
                }
                RefreshOutcome::Reused(step) => revoke(step),
                RefreshOutcome::Refused(failure) => respond(failure.respond()),
            },
            (Self::AwaitingRefreshSignature(state), ServerInput::Signed(signed)) => {
                match state.signed(signed) {
                    Ok(step) => act(
                        step,
                        |action| ServerAction::RotateRefresh(Box::new(action)),
                        Self::AwaitingRotation,
                    ),
                    Err(failure) => respond(failure.respond()),
                }
            }
            (Self::AwaitingRotation(state), ServerInput::RefreshRotated(receipt)) => {
                match state.rotated(receipt, entropy) {
                    Ok(RotationOutcome::Tokens(answer)) => respond(answer),
                    Ok(RotationOutcome::ReadAgain(step)) => {
                        act(step, ServerAction::ReadRefresh, Self::AwaitingRefresh)
                    }
                    Ok(RotationOutcome::Reused(step)) => revoke(step),
                    Ok(RotationOutcome::Refused(failure)) => respond(failure.respond()),
                    Err(failed) => return Err(back(failed, Self::AwaitingRotation)),
                }
            }
            (Self::AwaitingRevocation(state), ServerInput::FamilyRevoked(receipt)) => {
                match state.revoked(receipt) {
                    Ok(failure) => respond(failure.respond()),
                    Err(failed) => return Err(back(failed, Self::AwaitingRevocation)),
                }
            }
            (Self::AwaitingRevocable(state), ServerInput::RefreshFound(found)) => {
                Self::revocable(state.found(found, entropy))
            }
            (Self::AwaitingRevocableAccess(state), ServerInput::AccessFound(found)) => {
                Self::revocable(state.found(found, entropy))
            }
            (Self::AwaitingRevoked(state), ServerInput::FamilyRevoked(receipt)) => {
                match state.revoked(receipt) {
                    Ok(answer) => respond(answer),
                    Err(failed) => return Err(back(failed, Self::AwaitingRevoked)),
                }
            }
            (flow, _) => return Err(Failed { error: OutOfTurn, state: flow }),
        })
    }

    /// Store or key holder failed: the answer is 503, and nothing that sounds final (I-G9).
    fn failed(self) -> Advanced {
        Ok(match self {
            Self::AwaitingClient(state) => refusal(state.store_failed()),
            Self::AwaitingDecisionStored(state) => refusal(state.store_failed()),
            Self::AwaitingDecision(state) => refusal(state.store_failed()),
            Self::AwaitingCodeStored(state) => refusal(state.store_failed()),
            Self::AwaitingPushedRequest(state) => refusal(state.store_failed()),
            Self::AwaitingConsent(state) => refusal(state.store_failed()),
            Self::AwaitingCaller(state) => respond(state.store_failed()),
            Self::AwaitingReservation(state) => respond(state.store_failed()),
            Self::AwaitingPushed(state) => respond(state.store_failed()),
            Self::AwaitingIntrospected(state) => respond(state.store_failed()),
            Self::AwaitingIntrospectedGrant(state) => respond(state.store_failed()),
            Self::AwaitingIntrospectedRefresh(state) => respond(state.store_failed()),
            Self::AwaitingManaged(state) => respond(state.store_failed()),
            Self::AwaitingClientUpdated(state) => respond(state.store_failed()),
            Self::AwaitingClientDeleted(state) => respond(state.store_failed()),
            Self::AwaitingRevocableAccess(state) => respond(state.store_failed()),
            Self::AwaitingCode(state) => respond(state.store_failed()),
            Self::AwaitingSignature(state) => respond(state.signer_failed()),
            Self::AwaitingRedemption(state) => respond(state.store_failed()),
            Self::AwaitingRefresh(state) => respond(state.store_failed()),
            Self::AwaitingRefreshSignature(state) => respond(state.signer_failed()),
            Self::AwaitingRotation(state) => respond(state.store_failed()),
            Self::AwaitingRevocation(state) => respond(state.store_failed()),
            Self::AwaitingRevocable(state) => respond(state.store_failed()),
            Self::AwaitingRevoked(state) => respond(state.store_failed()),
            Self::AwaitingClientStored(state) => respond(state.store_failed()),
            flow @ (Self::AwaitingMetadataDocument(_)
            | Self::AwaitingCallerKeys(_)
            | Self::RequestValidated(_)
            | Self::ErrorAwaitingPerson(_)
            | Self::Deciding(_)) => return Err(Failed { error: OutOfTurn, state: flow }),
        })
    }
}
