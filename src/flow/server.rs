//! One request at any endpoint of the authorization server as one enum: actions out, results in, one answer at the end.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use super::OutOfTurn;
use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authorization::{
    Authorizing, AwaitingClient, AwaitingConsent, AwaitingDecisionStored, AwaitingMetadataDocument,
    ConsentView, ErrorAwaitingPerson, Redirect, RequestValidated,
};
use crate::authorization_server::caller::{AwaitingCaller, AwaitingCallerKeys, AwaitingReservation};
use crate::authorization_server::decision::{AwaitingCodeStored, AwaitingDecision, Deciding};
use crate::authorization_server::error::TokenFailure;
use crate::authorization_server::introspection::{
    AwaitingIntrospected, AwaitingIntrospectedGrant, AwaitingIntrospectedRefresh,
};
use crate::authorization_server::management::{
    AwaitingClientDeleted, AwaitingClientUpdated, AwaitingManaged,
};
use crate::authorization_server::pushed::{AwaitingPushed, AwaitingPushedRequest};
use crate::authorization_server::refresh::{AwaitingRefresh, AwaitingRefreshSignature, AwaitingRotation};
use crate::authorization_server::refusal::Refusal;
use crate::authorization_server::registration::AwaitingClientStored;
use crate::authorization_server::revocation::{AwaitingRevocable, AwaitingRevocableAccess, AwaitingRevoked};
use crate::authorization_server::store::{
    AccessFound, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound, CodeRedemption,
    ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, RevokeFamily, RotateRefresh,
    UpdateClient,
};
use crate::authorization_server::token::{
    AwaitingCode, AwaitingRedemption, AwaitingRevocation, AwaitingSignature,
};
use crate::entropy::Entropy;
use crate::evidence::{Approval, Authentication};
use crate::jose::{KeyImporter, KeySet, Sign, Signed};
use crate::message::exchange::{Fetch, FetchFailure, Reply, RequestHead, Respond};
use crate::secret::AgentBinding;
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

mod advance;

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
}
