//! What every host relies on: the public types move between threads, and states are cheap to move.

use std::mem::size_of;

use mcp_authz::authorization_server::{
    AuthorizationServer, authorization, caller, decision, document, introspection, management, pushed,
    refresh, registration, revocation, sign_in, token,
};
use mcp_authz::client::{
    AwaitingAssertion, AwaitingCallback, AwaitingClaim, AwaitingCommit, AwaitingDiscard, AwaitingIdToken,
    AwaitingPersisted, AwaitingProvider, AwaitingProviderKeys, AwaitingRefresh, AwaitingRegistration,
    AwaitingResourceMetadata, AwaitingRevocation, AwaitingServerMetadata, AwaitingSignIn, AwaitingTokens,
    CallbackRecord, ChoosingIdentity, ChoosingIssuer, Client, PersistSession, Provider, Ready,
    RegistrationRecord, Session, SessionPersisted, SessionRecord, SignInRecord,
};
use mcp_authz::flow::{ClientFlow, ClientTurn, ServerFlow, ServerTurn};
use mcp_authz::resource_server::{
    Authorized, AwaitingExchange, AwaitingIntrospection, AwaitingKeyPlace, AwaitingKeySet, Denial,
    PresentedToken, ResourceServer, VerifiedToken,
};

fn moves<T: Send + Sync + 'static>() {}

macro_rules! states {
    ($($state:ty),+ $(,)?) => {$(
        moves::<$state>();
        assert_eq!(size_of::<$state>(), size_of::<usize>(), stringify!($state));
    )+};
}

#[test]
fn states_are_one_pointer_and_move_between_threads() {
    states!(
        AwaitingResourceMetadata,
        ChoosingIssuer,
        AwaitingServerMetadata,
        ChoosingIdentity,
        AwaitingRegistration,
        Ready,
        AwaitingCallback,
        AwaitingTokens,
        AwaitingPersisted,
        Session,
        AwaitingClaim,
        AwaitingAssertion<AwaitingTokens>,
        AwaitingRefresh,
        AwaitingCommit,
        AwaitingDiscard,
        AwaitingRevocation,
        AwaitingProvider,
        Provider,
        AwaitingSignIn,
        AwaitingIdToken,
        AwaitingProviderKeys,
        PresentedToken,
        VerifiedToken,
        AwaitingIntrospection,
        AwaitingExchange,
        AwaitingKeySet,
        AwaitingKeyPlace,
        Authorized,
        Denial,
        document::AwaitingKnownDocument,
        document::KnownDocument,
        document::AwaitingGrantsEnded,
        document::AwaitingDocumentStored,
        document::AwaitingDocumentForgotten,
        authorization::AwaitingClient,
        authorization::AwaitingMetadataDocument,
        authorization::RequestValidated,
        authorization::ErrorAwaitingPerson,
        authorization::AwaitingDecisionStored,
        decision::AwaitingDecision,
        decision::Deciding,
        decision::AwaitingCodeStored,
        authorization::AwaitingConsent,
        caller::AwaitingCaller,
        caller::AwaitingCallerKeys,
        caller::AwaitingReservation,
        introspection::AwaitingIntrospected,
        introspection::AwaitingIntrospectedGrant,
        introspection::AwaitingIntrospectedRefresh,
        management::AwaitingManaged,
        management::AwaitingClientUpdated,
        management::AwaitingClientDeleted,
        pushed::AwaitingPushed,
        pushed::AwaitingPushedRequest,
        token::AwaitingCode,
        token::AwaitingSignature,
        token::AwaitingRedemption,
        token::AwaitingRevocation,
        refresh::AwaitingRefresh,
        refresh::AwaitingRefreshSignature,
        refresh::AwaitingRotation,
        revocation::AwaitingRevocable,
        revocation::AwaitingRevocableAccess,
        revocation::AwaitingRevoked,
        sign_in::AwaitingSignInReserved,
        registration::AwaitingClientStored,
        Client,
        ResourceServer,
        AuthorizationServer,
    );
}

#[test]
fn everything_else_moves_too() {
    moves::<PersistSession>();
    moves::<SessionPersisted>();
    moves::<CallbackRecord>();
    moves::<SessionRecord>();
    moves::<RegistrationRecord>();
    moves::<SignInRecord>();
    moves::<ClientFlow>();
    moves::<ClientTurn>();
    moves::<ServerFlow>();
    moves::<ServerTurn>();
    moves::<mcp_authz::error::Error>();
    moves::<mcp_authz::policy::Policy>();
    assert!(size_of::<ClientFlow>() <= 2 * size_of::<usize>());
    assert!(size_of::<ServerFlow>() <= 2 * size_of::<usize>());
}
