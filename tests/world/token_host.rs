//! A host of the token and revocation endpoints that carries out one action per call, so that tests can put other
//! flows, failures and the passage of time between any two of them.

use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::authorization_server::caller::{
    AwaitingCaller, AwaitingCallerKeys, AwaitingReservation, CallerOutcome,
};
use mcp_authz::authorization_server::error::TokenFailure;
use mcp_authz::authorization_server::introspection::{
    AwaitingIntrospected, AwaitingIntrospectedGrant, AwaitingIntrospectedRefresh, IntrospectionOutcome,
};
use mcp_authz::authorization_server::pushed::AwaitingPushed;
use mcp_authz::authorization_server::refresh::{
    AwaitingRefresh, AwaitingRefreshSignature, AwaitingRotation, RefreshOutcome, RotationOutcome,
};
use mcp_authz::authorization_server::revocation::{
    AwaitingRevocable, AwaitingRevocableAccess, AwaitingRevoked, RevocableOutcome,
};
use mcp_authz::authorization_server::store::{
    FindClient, InsertPushed, ReadAccess, ReadCode, ReadGrant, ReadRefresh, RedeemCode, ReserveOnce,
    RevokeFamily, RotateRefresh,
};
use mcp_authz::authorization_server::token::{
    AwaitingCode, AwaitingRedemption, AwaitingRevocation, AwaitingSignature, CodeOutcome, RedemptionOutcome,
};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::jose::Sign;
use mcp_authz::message::exchange::{Fetch, RequestHead, Respond};
use mcp_authz::step::Step;

use crate::keys::{ToyImporter, own_keys, sign};
use crate::store::Store;

/// Bytes that differ on every draw and repeat on every run.
#[derive(Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for byte in buffer {
            // SplitMix64
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
        Ok(())
    }
}

/// What went back to the client, and what the server's log says of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) respond: Respond,
    pub(crate) reason: Option<String>,
}

impl Answer {
    fn refused(failure: TokenFailure) -> Self {
        Self { respond: failure.respond(), reason: Some(failure.to_string()) }
    }

    fn plain(respond: Respond) -> Self {
        Self { respond, reason: None }
    }

    /// Whether tokens went out.
    pub(crate) fn is_success(&self) -> bool {
        self.respond.status() == 200
    }

    /// Status and error code; no code where the body has none.
    pub(crate) fn error(&self) -> (u16, String) {
        let body = std::str::from_utf8(self.respond.body()).unwrap();
        let code = body.split(r#""error":""#).nth(1).and_then(|rest| rest.split('"').next());
        (self.respond.status(), code.unwrap_or_default().to_owned())
    }
}

/// A request on its way; each variant is an action that waits to be carried out.
#[derive(Debug)]
pub(crate) enum Flow {
    Client(FindClient, AwaitingCaller),
    Fetch(Fetch, AwaitingCallerKeys),
    Keys(AwaitingCallerKeys),
    Reserve(ReserveOnce, AwaitingReservation),
    Push(InsertPushed, AwaitingPushed),
    Introspected(ReadAccess, AwaitingIntrospected),
    IntrospectedGrant(ReadGrant, AwaitingIntrospectedGrant),
    IntrospectedRefresh(ReadRefresh, AwaitingIntrospectedRefresh),
    Code(ReadCode, AwaitingCode),
    Sign(Sign, AwaitingSignature),
    Redeem(RedeemCode, AwaitingRedemption),
    Refresh(ReadRefresh, AwaitingRefresh),
    RefreshSign(Sign, AwaitingRefreshSignature),
    Rotate(RotateRefresh, AwaitingRotation),
    Revoke(RevokeFamily, AwaitingRevocation),
    Revocable(ReadRefresh, AwaitingRevocable),
    RevocableAccess(ReadAccess, AwaitingRevocableAccess),
    Revoked(RevokeFamily, AwaitingRevoked),
    Done(Answer),
}

impl Flow {
    /// A request at the token endpoint.
    pub(crate) fn token(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        Self::called(server.token(head, body))
    }

    /// A request at the revocation endpoint.
    pub(crate) fn revocation(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        Self::called(server.revoke(head, body))
    }

    /// A request at the introspection endpoint.
    pub(crate) fn introspection(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        Self::called(server.introspect(head, body))
    }

    /// A request at the endpoint for pushed requests.
    pub(crate) fn push(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        Self::called(server.push(head, body))
    }

    fn called(step: Result<Step<FindClient, AwaitingCaller>, TokenFailure>) -> Self {
        match step {
            Ok(step) => {
                let (action, state) = step.into_parts();
                Self::Client(action, state)
            }
            Err(failure) => Self::Done(Answer::refused(failure)),
        }
    }

    fn caller(outcome: CallerOutcome) -> Self {
        match outcome {
            CallerOutcome::Code(step) => {
                let (action, state) = step.into_parts();
                Self::Code(action, state)
            }
            CallerOutcome::Refresh(step) => {
                let (action, state) = step.into_parts();
                Self::Refresh(action, state)
            }
            CallerOutcome::Revocation(step) => {
                let (action, state) = step.into_parts();
                Self::Revocable(action, state)
            }
            CallerOutcome::Introspection(step) => {
                let (action, state) = step.into_parts();
                Self::Introspected(action, state)
            }
            CallerOutcome::Push(step) => {
                let (action, state) = step.into_parts();
                Self::Push(action, state)
            }
            CallerOutcome::Fetch(step) => {
                let (action, state) = step.into_parts();
                Self::Fetch(action, state)
            }
            CallerOutcome::Keys(state) => Self::Keys(state),
            CallerOutcome::Reserve(step) => {
                let (action, state) = step.into_parts();
                Self::Reserve(action, state)
            }
            CallerOutcome::Answer(respond) => Self::Done(Answer::plain(respond)),
            CallerOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
        }
    }

    fn revocable(outcome: RevocableOutcome) -> Self {
        match outcome {
            RevocableOutcome::Revoke(step) => {
                let (action, state) = step.into_parts();
                Self::Revoked(action, state)
            }
            RevocableOutcome::Access(step) => {
                let (action, state) = step.into_parts();
                Self::RevocableAccess(action, state)
            }
            RevocableOutcome::Done(respond) => Self::Done(Answer::plain(respond)),
            RevocableOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
        }
    }

    /// Carries out the one action that waits.
    pub(crate) fn advance(self, store: &mut Store, entropy: &mut Seeded) -> Self {
        match self {
            Self::Client(action, state) => Self::caller(state.found(store.find_client(action), entropy)),
            Self::Keys(state) => Self::caller(state.import(&ToyImporter)),
            Self::Fetch(..) => panic!("the test fetches by itself"),
            Self::Reserve(action, state) => Self::caller(state.reserved(store.reserve_once(action), entropy)),
            Self::Push(action, state) => {
                Self::Done(Answer::plain(state.stored(store.insert_pushed(action)).unwrap()))
            }
            Self::Introspected(action, state) => match state.found(store.read_access(action), &own_keys()) {
                IntrospectionOutcome::Grant(step) => {
                    let (action, state) = step.into_parts();
                    Self::IntrospectedGrant(action, state)
                }
                IntrospectionOutcome::Refresh(step) => {
                    let (action, state) = step.into_parts();
                    Self::IntrospectedRefresh(action, state)
                }
                IntrospectionOutcome::Answer(respond) => Self::Done(Answer::plain(respond)),
                IntrospectionOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::IntrospectedGrant(action, state) => {
                Self::Done(state.found(store.read_grant(action)).map_or_else(Answer::refused, Answer::plain))
            }
            Self::IntrospectedRefresh(action, state) => Self::Done(
                state.found(store.read_refresh(action)).map_or_else(Answer::refused, Answer::plain),
            ),
            Self::Code(action, state) => match state.found(store.read_code(action), entropy) {
                CodeOutcome::Sign(step) => {
                    let (action, state) = step.into_parts();
                    Self::Sign(action, state)
                }
                CodeOutcome::Redeem(step) => {
                    let (action, state) = step.into_parts();
                    Self::Redeem(action, state)
                }
                CodeOutcome::Replayed(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revoke(action, state)
                }
                CodeOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Sign(action, state) => match state.signed(sign(action)) {
                Ok(step) => {
                    let (action, state) = step.into_parts();
                    Self::Redeem(action, state)
                }
                Err(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Redeem(action, state) => {
                match state.redeemed(store.redeem_code(action), entropy).unwrap() {
                    RedemptionOutcome::Tokens(respond) => Self::Done(Answer::plain(respond)),
                    RedemptionOutcome::Replayed(step) => {
                        let (action, state) = step.into_parts();
                        Self::Revoke(action, state)
                    }
                    RedemptionOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
                }
            }
            Self::Refresh(action, state) => match state.found(store.read_refresh(action), entropy) {
                RefreshOutcome::Sign(step) => {
                    let (action, state) = step.into_parts();
                    Self::RefreshSign(action, state)
                }
                RefreshOutcome::Rotate(step) => {
                    let (action, state) = step.into_parts();
                    Self::Rotate(action, state)
                }
                RefreshOutcome::Reused(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revoke(action, state)
                }
                RefreshOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::RefreshSign(action, state) => match state.signed(sign(action)) {
                Ok(step) => {
                    let (action, state) = step.into_parts();
                    Self::Rotate(action, state)
                }
                Err(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Rotate(action, state) => {
                match state.rotated(store.rotate_refresh(action), entropy).unwrap() {
                    RotationOutcome::Tokens(respond) => Self::Done(Answer::plain(respond)),
                    RotationOutcome::ReadAgain(step) => {
                        let (action, state) = step.into_parts();
                        Self::Refresh(action, state)
                    }
                    RotationOutcome::Reused(step) => {
                        let (action, state) = step.into_parts();
                        Self::Revoke(action, state)
                    }
                    RotationOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
                }
            }
            Self::Revoke(action, state) => {
                Self::Done(Answer::refused(state.revoked(store.revoke_family(action)).unwrap()))
            }
            Self::Revocable(action, state) => {
                Self::revocable(state.found(store.read_refresh(action), entropy))
            }
            Self::RevocableAccess(action, state) => {
                Self::revocable(state.found(store.read_access(action), entropy))
            }
            Self::Revoked(action, state) => {
                Self::Done(Answer::plain(state.revoked(store.revoke_family(action)).unwrap()))
            }
            Self::Done(answer) => Self::Done(answer),
        }
    }

    /// The action fails without an effect: the store is unreachable, the key holder refuses.
    pub(crate) fn fail(self) -> Self {
        Self::Done(Answer::plain(match self {
            Self::Client(_, state) => state.store_failed(),
            Self::Code(_, state) => state.store_failed(),
            Self::Sign(_, state) => state.signer_failed(),
            Self::Redeem(_, state) => state.store_failed(),
            Self::Refresh(_, state) => state.store_failed(),
            Self::RefreshSign(_, state) => state.signer_failed(),
            Self::Rotate(_, state) => state.store_failed(),
            Self::Revoke(_, state) => state.store_failed(),
            Self::Fetch(..) | Self::Keys(_) => panic!("no store has a part in it"),
            Self::Reserve(_, state) => state.store_failed(),
            Self::Push(_, state) => state.store_failed(),
            Self::Introspected(_, state) => state.store_failed(),
            Self::IntrospectedGrant(_, state) => state.store_failed(),
            Self::IntrospectedRefresh(_, state) => state.store_failed(),
            Self::RevocableAccess(_, state) => state.store_failed(),
            Self::Revocable(_, state) => state.store_failed(),
            Self::Revoked(_, state) => state.store_failed(),
            Self::Done(answer) => return Self::Done(answer),
        }))
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The answer of a flow that has ended.
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::Done(answer) => answer,
            other => panic!("the flow has not ended: {other:?}"),
        }
    }

    /// Carries everything out to the end.
    pub(crate) fn finish(mut self, store: &mut Store, entropy: &mut Seeded) -> Answer {
        while !self.is_done() {
            self = self.advance(store, entropy);
        }
        self.answer()
    }
}
