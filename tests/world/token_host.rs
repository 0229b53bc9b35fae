//! A host of the token and revocation endpoints that carries out one action per call, so that tests can put other
//! flows, failures and the passage of time between any two of them.

use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::authorization_server::error::TokenFailure;
use mcp_authz::authorization_server::refresh::{
    AwaitingRefresh, AwaitingRefreshSignature, AwaitingRotation, RefreshOutcome, RotationOutcome,
};
use mcp_authz::authorization_server::revocation::{
    AwaitingRevocable, AwaitingRevocationClient, AwaitingRevoked, RevocableOutcome,
};
use mcp_authz::authorization_server::store::{
    FindClient, ReadCode, ReadRefresh, RedeemCode, RevokeFamily, RotateRefresh,
};
use mcp_authz::authorization_server::token::{
    AwaitingCode, AwaitingRedemption, AwaitingRevocation, AwaitingSignature, AwaitingTokenClient,
    CodeOutcome, RedemptionOutcome, TokenClientOutcome,
};
use mcp_authz::entropy::{Entropy, EntropyUnavailable};
use mcp_authz::jose::{Sign, Signed};
use mcp_authz::message::exchange::{RequestHead, Respond};

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
    Client(FindClient, AwaitingTokenClient),
    Code(ReadCode, AwaitingCode),
    Sign(Sign, AwaitingSignature),
    Redeem(RedeemCode, AwaitingRedemption),
    Refresh(ReadRefresh, AwaitingRefresh),
    RefreshSign(Sign, AwaitingRefreshSignature),
    Rotate(RotateRefresh, AwaitingRotation),
    Revoke(RevokeFamily, AwaitingRevocation),
    RevocationClient(FindClient, AwaitingRevocationClient),
    Revocable(ReadRefresh, AwaitingRevocable),
    Revoked(RevokeFamily, AwaitingRevoked),
    Done(Answer),
}

impl Flow {
    /// A request at the token endpoint.
    pub(crate) fn token(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        match server.token(head, body) {
            Ok(step) => {
                let (action, state) = step.into_parts();
                Self::Client(action, state)
            }
            Err(failure) => Self::Done(Answer::refused(failure)),
        }
    }

    /// A request at the revocation endpoint.
    pub(crate) fn revocation(server: &AuthorizationServer, head: &RequestHead, body: &[u8]) -> Self {
        match server.revoke(head, body) {
            Ok(step) => {
                let (action, state) = step.into_parts();
                Self::RevocationClient(action, state)
            }
            Err(failure) => Self::Done(Answer::refused(failure)),
        }
    }

    /// Carries out the one action that waits.
    pub(crate) fn advance(self, store: &mut Store, entropy: &mut Seeded) -> Self {
        match self {
            Self::Client(action, state) => match state.found(store.find_client(action)) {
                TokenClientOutcome::Code(step) => {
                    let (action, state) = step.into_parts();
                    Self::Code(action, state)
                }
                TokenClientOutcome::Refresh(step) => {
                    let (action, state) = step.into_parts();
                    Self::Refresh(action, state)
                }
                TokenClientOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Code(action, state) => match state.found(store.read_code(action), entropy) {
                CodeOutcome::Sign(step) => {
                    let (action, state) = step.into_parts();
                    Self::Sign(action, state)
                }
                CodeOutcome::Replayed(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revoke(action, state)
                }
                CodeOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Sign(action, state) => match state.signed(signature(action)) {
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
                RefreshOutcome::Reused(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revoke(action, state)
                }
                RefreshOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::RefreshSign(action, state) => match state.signed(signature(action)) {
                Ok(step) => {
                    let (action, state) = step.into_parts();
                    Self::Rotate(action, state)
                }
                Err(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Rotate(action, state) => {
                match state.rotated(store.rotate_refresh(action), entropy).unwrap() {
                    RotationOutcome::Tokens(respond) => Self::Done(Answer::plain(respond)),
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
            Self::RevocationClient(action, state) => match state.found(store.find_client(action)) {
                Ok(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revocable(action, state)
                }
                Err(failure) => Self::Done(Answer::refused(failure)),
            },
            Self::Revocable(action, state) => match state.found(store.read_refresh(action), entropy) {
                RevocableOutcome::Revoke(step) => {
                    let (action, state) = step.into_parts();
                    Self::Revoked(action, state)
                }
                RevocableOutcome::Done(respond) => Self::Done(Answer::plain(respond)),
                RevocableOutcome::Refused(failure) => Self::Done(Answer::refused(failure)),
            },
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
            Self::RevocationClient(_, state) => state.store_failed(),
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

/// Any bytes of the right length: nobody verifies them here.
fn signature(action: Sign) -> Signed {
    action.signed([7_u8; 64]).unwrap()
}
