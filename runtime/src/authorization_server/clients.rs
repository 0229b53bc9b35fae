//! The endpoints for clients: token, revocation, registration. Each loop carries one core machine from action to
//! action.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use mcp_authz::authorization_server::error::TokenFailure;
use mcp_authz::authorization_server::refresh::{AwaitingRefresh, RefreshOutcome, RotationOutcome};
use mcp_authz::authorization_server::revocation::RevocableOutcome;
use mcp_authz::authorization_server::store::{ReadCode, ReadRefresh, RevokeFamily};
use mcp_authz::authorization_server::token::{
    AwaitingCode, AwaitingRevocation, CodeOutcome, RedemptionOutcome, TokenClientOutcome,
};
use mcp_authz::limits;
use mcp_authz::message::exchange::Respond;
use mcp_authz::step::Step;

use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::entropy::OsEntropy;
use crate::http_io::{read_body, request_head, response};

/// An answer that ends a flow early.
type Ended = Respond;

impl AuthorizationServerHost {
    /// `POST /token`
    pub(super) async fn token(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match read_body(body, limits::FORM_BYTES).await {
            Ok(body) => body,
            Err(status) => return status.into_response(),
        };
        let answer = self.token_flow(&parts, &body).await.unwrap_or_else(|ended| ended);
        response(&answer)
    }

    async fn token_flow(&self, parts: &Parts, body: &[u8]) -> Result<Respond, Ended> {
        let head = request_head(parts);
        let step = self.core.measure(|| self.server.token(&head, body)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::FindClient(&action));
        let found = match self.store.find_client(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        match self.core.measure(|| waiting.found(found)) {
            TokenClientOutcome::Code(step) => self.redeem(step).await,
            TokenClientOutcome::Refresh(step) => self.rotate(step).await,
            TokenClientOutcome::Refused(failure) => Err(self.refused(&failure)),
        }
    }

    /// Code for tokens: read, sign, redeem, release.
    async fn redeem(&self, step: Step<ReadCode, AwaitingCode>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::ReadCode(&action));
        let found = match self.store.read_code(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        let step = match self.core.measure(|| waiting.found(found, &mut OsEntropy)) {
            CodeOutcome::Sign(step) => step,
            CodeOutcome::Replayed(step) => return Err(self.revoke_then_refuse(step).await),
            CodeOutcome::Refused(failure) => return Err(self.refused(&failure)),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::VerifierMatched(waiting.verifier()));
        self.observe(AuthorizationEvent::Sign(&action));
        let Ok(signed) = self.signer.sign(action).await else { return Err(waiting.signer_failed()) };
        let step = self.core.measure(|| waiting.signed(signed)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RedeemCode(&action));
        let receipt = match self.store.redeem_code(action).await {
            Ok(receipt) => receipt,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        self.observe(AuthorizationEvent::CodeRedemption(&receipt));
        match self.core.measure(|| waiting.redeemed(receipt, &mut OsEntropy)) {
            Ok(RedemptionOutcome::Tokens(answer)) => {
                self.observe(AuthorizationEvent::TokensIssued);
                Ok(answer)
            }
            Ok(RedemptionOutcome::Replayed(step)) => Err(self.revoke_then_refuse(step).await),
            Ok(RedemptionOutcome::Refused(failure)) => Err(self.refused(&failure)),
            Err(failed) => Err(failed.state.store_failed()),
        }
    }

    /// Refresh token for tokens: read, sign, rotate, release.
    async fn rotate(&self, step: Step<ReadRefresh, AwaitingRefresh>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::ReadRefresh(&action));
        let found = match self.store.read_refresh(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        let step = match self.core.measure(|| waiting.found(found, &mut OsEntropy)) {
            RefreshOutcome::Sign(step) => step,
            RefreshOutcome::Reused(step) => return Err(self.revoke_then_refuse(step).await),
            RefreshOutcome::Refused(failure) => return Err(self.refused(&failure)),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::Sign(&action));
        let Ok(signed) = self.signer.sign(action).await else { return Err(waiting.signer_failed()) };
        let step = self.core.measure(|| waiting.signed(signed)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RotateRefresh(&action));
        let receipt = match self.store.rotate_refresh(action).await {
            Ok(receipt) => receipt,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        self.observe(AuthorizationEvent::RefreshRotation(&receipt));
        match self.core.measure(|| waiting.rotated(receipt, &mut OsEntropy)) {
            Ok(RotationOutcome::Tokens(answer)) => {
                self.observe(AuthorizationEvent::TokensIssued);
                Ok(answer)
            }
            Ok(RotationOutcome::Reused(step)) => Err(self.revoke_then_refuse(step).await),
            Ok(RotationOutcome::Refused(failure)) => Err(self.refused(&failure)),
            Err(failed) => Err(failed.state.store_failed()),
        }
    }

    /// The family ends first; the refusal is only to be had for the receipt.
    async fn revoke_then_refuse(&self, step: Step<RevokeFamily, AwaitingRevocation>) -> Respond {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RevokeFamily(&action));
        match self.store.revoke_family(action).await {
            Ok(receipt) => {
                self.observe(AuthorizationEvent::FamilyRevocation(&receipt));
                match self.core.measure(|| waiting.revoked(receipt)) {
                    Ok(failure) => self.refused(&failure),
                    Err(failed) => failed.state.store_failed(),
                }
            }
            Err(error) => {
                self.store_failed(&error);
                waiting.store_failed()
            }
        }
    }

    fn refused(&self, failure: &TokenFailure) -> Respond {
        tracing::debug!(reason = %failure, "token request refused");
        self.observe(AuthorizationEvent::TokenFailure(failure));
        failure.respond()
    }

    /// `POST /revoke`
    pub(super) async fn revoke(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match read_body(body, limits::FORM_BYTES).await {
            Ok(body) => body,
            Err(status) => return status.into_response(),
        };
        let answer = self.revocation_flow(&parts, &body).await.unwrap_or_else(|ended| ended);
        response(&answer)
    }

    async fn revocation_flow(&self, parts: &Parts, body: &[u8]) -> Result<Respond, Ended> {
        let head = request_head(parts);
        let step = self.core.measure(|| self.server.revoke(&head, body)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::FindClient(&action));
        let found = match self.store.find_client(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        let step = self.core.measure(|| waiting.found(found)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::ReadRefresh(&action));
        let found = match self.store.read_refresh(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        let step = match self.core.measure(|| waiting.found(found, &mut OsEntropy)) {
            RevocableOutcome::Revoke(step) => step,
            RevocableOutcome::Done(answer) => return Ok(answer),
            RevocableOutcome::Refused(failure) => return Err(self.refused(&failure)),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RevokeFamily(&action));
        match self.store.revoke_family(action).await {
            Ok(receipt) => {
                self.observe(AuthorizationEvent::FamilyRevocation(&receipt));
                let answer = self.core.measure(|| waiting.revoked(receipt));
                answer.map_err(|failed| failed.state.store_failed())
            }
            Err(error) => {
                self.store_failed(&error);
                Err(waiting.store_failed())
            }
        }
    }

    /// `POST /register`
    pub(super) async fn register(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if !is_json(&parts) {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
        }
        let body = match read_body(body, limits::DOCUMENT_BYTES).await {
            Ok(body) => body,
            Err(status) => return status.into_response(),
        };
        response(&self.registration_flow(&body).await)
    }

    async fn registration_flow(&self, body: &[u8]) -> Respond {
        let now = self.clock.now();
        let step = match self.core.measure(|| self.server.register(body, now, &mut OsEntropy)) {
            Ok(step) => step,
            Err(reason) => {
                self.observe(AuthorizationEvent::RegistrationRefused(&reason));
                return reason.respond();
            }
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::InsertClient(&action));
        match self.store.insert_client(action).await {
            Ok(receipt) => {
                self.observe(AuthorizationEvent::ClientInsertion(&receipt));
                let answer = self.core.measure(|| waiting.stored(receipt));
                answer.unwrap_or_else(|failed| failed.state.store_failed())
            }
            Err(error) => {
                self.store_failed(&error);
                waiting.store_failed()
            }
        }
    }
}

/// Whether the request says once that its body is JSON (RFC 7591 section 3.1).
fn is_json(parts: &Parts) -> bool {
    let mut kinds = parts.headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}
