//! The endpoints for clients: token, revocation, introspection, pushed requests, registration. Each loop carries one core
//! machine from action to action.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::authorization_server::caller::{AwaitingCaller, CallerOutcome};
use mcp_authz::authorization_server::error::TokenFailure;
use mcp_authz::authorization_server::introspection::{AwaitingIntrospected, IntrospectionOutcome};
use mcp_authz::authorization_server::management::ManagementOutcome;
use mcp_authz::authorization_server::pushed::AwaitingPushed;
use mcp_authz::authorization_server::refresh::{
    AwaitingRefresh, AwaitingRotation, RefreshOutcome, RotationOutcome,
};
use mcp_authz::authorization_server::revocation::{AwaitingRevocable, RevocableOutcome};
use mcp_authz::authorization_server::store::{
    FindClient, InsertPushed, ReadAccess, ReadCode, ReadRefresh, RedeemCode, RevokeFamily, RotateRefresh,
};
use mcp_authz::authorization_server::token::{
    AwaitingCode, AwaitingRedemption, AwaitingRevocation, CodeOutcome, RedemptionOutcome,
};
use mcp_authz::jose::{JwkSet, KeySet};
use mcp_authz::limits;
use mcp_authz::message::exchange::{RequestHead, Respond};
use mcp_authz::step::Step;

use super::people::Standing;
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::entropy::ThreadEntropy;
use crate::http_io::{read_body, request_head, response};
use crate::store::StoreError;

/// An answer that ends a flow early.
type Ended = Respond;

/// An endpoint whose caller is a client.
type Endpoint =
    fn(&AuthorizationServer, &RequestHead, &[u8]) -> Result<Step<FindClient, AwaitingCaller>, TokenFailure>;

impl AuthorizationServerHost {
    /// `POST /token`, `/revoke`, `/introspect`, `/par`
    pub(super) async fn called(&self, request: Request, endpoint: Endpoint) -> Response {
        let (parts, body) = request.into_parts();
        let body = match read_body(body, limits::FORM_BYTES).await {
            Ok(body) => body,
            Err(status) => return status.into_response(),
        };
        let answer = self.called_flow(&parts, &body, endpoint).await.unwrap_or_else(|ended| ended);
        response(&answer)
    }

    async fn called_flow(&self, parts: &Parts, body: &[u8], endpoint: Endpoint) -> Result<Respond, Ended> {
        let head = request_head(parts);
        let server = self.signing_server();
        let step = self.core.measure(|| endpoint(&server, &head, body)).map_err(|f| self.refused(&f))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::FindClient(&action));
        if action.client_id().looks_like_url() {
            self.tend(action.client_id()).await?;
        }
        let found = self.store.find_client(action).await;
        let (found, waiting) = self.held(found, waiting, AwaitingCaller::store_failed)?;
        let mut outcome = match waiting.document(&found) {
            None => self.core.measure(|| waiting.found(found, &mut ThreadEntropy)),
            // As at the authorization endpoint, where the browser brings the same client in a moment.
            Some(fetch) => {
                let looked = self.document(&fetch).await?;
                self.core
                    .measure(|| waiting.found_document(found, looked.fetched, looked.at, &mut ThreadEntropy))
            }
        };
        loop {
            outcome = match outcome {
                CallerOutcome::Keys(waiting) => self.core.measure(|| waiting.import(self.importer.as_ref())),
                CallerOutcome::Fetch(step) => self.with_key_set(step).await,
                CallerOutcome::Reserve(step) => {
                    let (action, waiting) = step.into_parts();
                    let receipt = self.store.reserve_once(action).await;
                    let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                    self.core.measure(|| waiting.reserved(receipt, &mut ThreadEntropy))
                }
                CallerOutcome::Code(step) => return self.code(step).await,
                CallerOutcome::Refresh(step) => return self.refresh(step).await,
                CallerOutcome::Revocation(step) => return self.revocable(step).await,
                CallerOutcome::Introspection(step) => return self.introspected(step).await,
                CallerOutcome::Push(step) => return self.pushed(step).await,
                CallerOutcome::Answer(answer) => return Ok(answer),
                CallerOutcome::Refused(failure) => return Err(self.refused(&failure)),
            };
        }
    }

    /// The configuration with the key that signs now. Without one nothing is signed, and the state answers 503.
    fn signing_server(&self) -> AuthorizationServer {
        let key = self.signer.signing_key().ok();
        key.and_then(|key| self.server.signing_with(key)).unwrap_or_else(|| self.server.clone())
    }

    /// What the store gave, beside the state that waits for it; or the state's answer to its failure.
    pub(super) fn held<R, W>(
        &self,
        result: Result<R, StoreError>,
        waiting: W,
        failed: impl FnOnce(W) -> Respond,
    ) -> Result<(R, W), Ended> {
        match result {
            Ok(receipt) => Ok((receipt, waiting)),
            Err(error) => {
                self.store_failed(&error);
                Err(failed(waiting))
            }
        }
    }

    /// What became of the person of a grant that was found: their removal ends it (I-T4). Nothing found is nobody's.
    async fn standing(&self, subject: Option<&str>) -> Standing {
        match subject {
            Some(subject) => self.people.standing(subject).await,
            None => Standing::Known,
        }
    }

    /// Code for tokens: read, sign, redeem, release.
    async fn code(&self, step: Step<ReadCode, AwaitingCode>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::ReadCode(&action));
        let found = self.store.read_code(action).await;
        let (found, waiting) = self.held(found, waiting, AwaitingCode::store_failed)?;
        let found = match self.standing(found.subject()).await {
            Standing::Known => found,
            Standing::Removed => found.withheld(),
            Standing::Unavailable => return Err(waiting.store_failed()),
        };
        let step = match self.core.measure(|| waiting.found(found, &mut ThreadEntropy)) {
            CodeOutcome::Redeem(step) => return self.redeem(step).await,
            CodeOutcome::Sign(step) => step,
            CodeOutcome::Replayed(step) => return Err(self.revoke_then_refuse(step).await),
            CodeOutcome::Refused(failure) => return Err(self.refused(&failure)),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::VerifierMatched(waiting.verifier()));
        self.observe(AuthorizationEvent::Sign(&action));
        let Ok(signed) = self.signer.sign(action).await else { return Err(waiting.signer_failed()) };
        let step = self.core.measure(|| waiting.signed(signed)).map_err(|f| self.refused(&f))?;
        self.redeem(step).await
    }

    async fn redeem(&self, step: Step<RedeemCode, AwaitingRedemption>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RedeemCode(&action));
        let receipt = self.store.redeem_code(action).await;
        let (receipt, waiting) = self.held(receipt, waiting, AwaitingRedemption::store_failed)?;
        self.observe(AuthorizationEvent::CodeRedemption(&receipt));
        match self.core.measure(|| waiting.redeemed(receipt, &mut ThreadEntropy)) {
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
    async fn refresh(&self, mut step: Step<ReadRefresh, AwaitingRefresh>) -> Result<Respond, Ended> {
        loop {
            let (action, waiting) = step.into_parts();
            self.observe(AuthorizationEvent::ReadRefresh(&action));
            let found = self.store.read_refresh(action).await;
            let (found, waiting) = self.held(found, waiting, AwaitingRefresh::store_failed)?;
            let found = match self.standing(found.subject()).await {
                Standing::Known => found,
                Standing::Removed => found.withheld(),
                Standing::Unavailable => return Err(waiting.store_failed()),
            };
            let rotate = match self.core.measure(|| waiting.found(found, &mut ThreadEntropy)) {
                RefreshOutcome::Rotate(step) => step,
                RefreshOutcome::Sign(step) => {
                    let (action, waiting) = step.into_parts();
                    self.observe(AuthorizationEvent::Sign(&action));
                    let Ok(signed) = self.signer.sign(action).await else {
                        return Err(waiting.signer_failed());
                    };
                    self.core.measure(|| waiting.signed(signed)).map_err(|f| self.refused(&f))?
                }
                RefreshOutcome::Reused(step) => return Err(self.revoke_then_refuse(step).await),
                RefreshOutcome::Refused(failure) => return Err(self.refused(&failure)),
            };
            match self.rotate(rotate).await? {
                RotationOutcome::Tokens(answer) => {
                    self.observe(AuthorizationEvent::TokensIssued);
                    return Ok(answer);
                }
                // At most once: the token is retired by now.
                RotationOutcome::ReadAgain(again) => step = again,
                RotationOutcome::Reused(step) => return Err(self.revoke_then_refuse(step).await),
                RotationOutcome::Refused(failure) => return Err(self.refused(&failure)),
            }
        }
    }

    async fn rotate(&self, step: Step<RotateRefresh, AwaitingRotation>) -> Result<RotationOutcome, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RotateRefresh(&action));
        let receipt = self.store.rotate_refresh(action).await;
        let (receipt, waiting) = self.held(receipt, waiting, AwaitingRotation::store_failed)?;
        self.observe(AuthorizationEvent::RefreshRotation(&receipt));
        let outcome = self.core.measure(|| waiting.rotated(receipt, &mut ThreadEntropy));
        outcome.map_err(|failed| failed.state.store_failed())
    }

    /// The family ends first; the refusal is only to be had for the receipt.
    async fn revoke_then_refuse(&self, step: Step<RevokeFamily, AwaitingRevocation>) -> Respond {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RevokeFamily(&action));
        let receipt = self.store.revoke_family(action).await;
        let (receipt, waiting) = match self.held(receipt, waiting, AwaitingRevocation::store_failed) {
            Ok(held) => held,
            Err(ended) => return ended,
        };
        self.observe(AuthorizationEvent::FamilyRevocation(&receipt));
        match self.core.measure(|| waiting.revoked(receipt)) {
            Ok(failure) => self.refused(&failure),
            Err(failed) => failed.state.store_failed(),
        }
    }

    pub(super) fn refused(&self, failure: &TokenFailure) -> Respond {
        tracing::debug!(reason = %failure, "request of a client refused");
        self.observe(AuthorizationEvent::TokenFailure(failure));
        failure.respond()
    }

    async fn revocable(&self, step: Step<ReadRefresh, AwaitingRevocable>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::ReadRefresh(&action));
        let found = self.store.read_refresh(action).await;
        let (found, waiting) = self.held(found, waiting, AwaitingRevocable::store_failed)?;
        let mut outcome = self.core.measure(|| waiting.found(found, &mut ThreadEntropy));
        if let RevocableOutcome::Access(step) = outcome {
            let (action, waiting) = step.into_parts();
            let found = self.store.read_access(action).await;
            let (found, waiting) = self.held(found, waiting, |waiting| waiting.store_failed())?;
            outcome = self.core.measure(|| waiting.found(found, &mut ThreadEntropy));
        }
        let step = match outcome {
            RevocableOutcome::Revoke(step) => step,
            RevocableOutcome::Done(answer) => return Ok(answer),
            RevocableOutcome::Refused(failure) => return Err(self.refused(&failure)),
            // An access token was looked for just now.
            RevocableOutcome::Access(step) => return Err(step.into_parts().1.store_failed()),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::RevokeFamily(&action));
        let receipt = self.store.revoke_family(action).await;
        let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
        self.observe(AuthorizationEvent::FamilyRevocation(&receipt));
        let answer = self.core.measure(|| waiting.revoked(receipt));
        answer.map_err(|failed| failed.state.store_failed())
    }

    async fn introspected(&self, step: Step<ReadAccess, AwaitingIntrospected>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        let found = self.store.read_access(action).await;
        let (found, waiting) = self.held(found, waiting, AwaitingIntrospected::store_failed)?;
        let found = match self.standing(found.subject()).await {
            Standing::Known => found,
            Standing::Removed => found.withheld(),
            Standing::Unavailable => return Err(waiting.store_failed()),
        };
        let keys = JwkSet::new(self.signer.public_keys()).map_err(drop);
        let keys = keys.and_then(|keys| KeySet::import(&keys, self.importer.as_ref()).map_err(drop));
        let Ok(keys) = keys else { return Err(waiting.store_failed()) };
        match self.core.measure(|| waiting.found(found, &keys)) {
            IntrospectionOutcome::Grant(step) => {
                let (action, waiting) = step.into_parts();
                let found = self.store.read_grant(action).await;
                let (found, waiting) = self.held(found, waiting, |waiting| waiting.store_failed())?;
                let found = match self.standing(found.subject()).await {
                    Standing::Known => found,
                    Standing::Removed => found.withheld(),
                    Standing::Unavailable => return Err(waiting.store_failed()),
                };
                self.core.measure(|| waiting.found(found)).map_err(|failure| self.refused(&failure))
            }
            IntrospectionOutcome::Refresh(step) => {
                let (action, waiting) = step.into_parts();
                let found = self.store.read_refresh(action).await;
                let (found, waiting) = self.held(found, waiting, |waiting| waiting.store_failed())?;
                let found = match self.standing(found.subject()).await {
                    Standing::Known => found,
                    Standing::Removed => found.withheld(),
                    Standing::Unavailable => return Err(waiting.store_failed()),
                };
                self.core.measure(|| waiting.found(found)).map_err(|failure| self.refused(&failure))
            }
            IntrospectionOutcome::Answer(answer) => Ok(answer),
            IntrospectionOutcome::Refused(failure) => Err(self.refused(&failure)),
        }
    }

    async fn pushed(&self, step: Step<InsertPushed, AwaitingPushed>) -> Result<Respond, Ended> {
        let (action, waiting) = step.into_parts();
        let receipt = self.store.insert_pushed(action).await;
        let (receipt, waiting) = self.held(receipt, waiting, AwaitingPushed::store_failed)?;
        self.core.measure(|| waiting.stored(receipt)).map_err(|failed| failed.state.store_failed())
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
        response(&self.registration_flow(&parts, &body).await.unwrap_or_else(|ended| ended))
    }

    async fn registration_flow(&self, parts: &Parts, body: &[u8]) -> Result<Respond, Ended> {
        let (head, now) = (request_head(parts), self.clock.now());
        let step = self.core.measure(|| self.server.register(&head, body, now, &mut ThreadEntropy));
        let step = step.map_err(|reason| {
            self.observe(AuthorizationEvent::RegistrationRefused(&reason));
            reason.respond()
        })?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::InsertClient(&action));
        let receipt = self.store.insert_client(action).await;
        let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
        self.observe(AuthorizationEvent::ClientInsertion(&receipt));
        self.core.measure(|| waiting.stored(receipt)).map_err(|failed| failed.state.store_failed())
    }

    /// `GET`, `PUT`, `DELETE /register/{client_id}`
    pub(super) async fn manage(&self, client_id: &str, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if parts.method == http::Method::PUT && !is_json(&parts) {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
        }
        let body = match read_body(body, limits::DOCUMENT_BYTES).await {
            Ok(body) => body,
            Err(status) => return status.into_response(),
        };
        let answer = self.management_flow(client_id, &parts, &body).await;
        response(&answer.unwrap_or_else(|ended| ended))
    }

    async fn management_flow(&self, client_id: &str, parts: &Parts, body: &[u8]) -> Result<Respond, Ended> {
        let head = request_head(parts);
        let step = self.core.measure(|| self.server.manage(client_id, &head, body))?;
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::FindClient(&action));
        let found = self.store.find_client(action).await;
        let (found, waiting) = self.held(found, waiting, |waiting| waiting.store_failed())?;
        match self.core.measure(|| waiting.found(found, &mut ThreadEntropy)) {
            ManagementOutcome::Update(step) => {
                let (action, waiting) = step.into_parts();
                let receipt = self.store.update_client(action).await;
                let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                self.core.measure(|| waiting.updated(receipt)).map_err(|failed| failed.state.store_failed())
            }
            ManagementOutcome::Delete(step) => {
                let (action, waiting) = step.into_parts();
                let receipt = self.store.delete_client(action).await;
                let (receipt, waiting) = self.held(receipt, waiting, |waiting| waiting.store_failed())?;
                self.core.measure(|| waiting.deleted(receipt)).map_err(|failed| failed.state.store_failed())
            }
            ManagementOutcome::Answer(answer) => Ok(answer),
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
