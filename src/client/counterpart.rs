//! The side of a code flow that a resource has no part in: the issuer, its metadata, and who the client is there
//! (OAuth 2.1 section 4.1, RFC 7636, RFC 9207).
//!
//! A flow for a resource and a sign-in are the same from the authorization request to the token request, and both are
//! made here: what differs is what they ask for, and what they take from the answer.

use alloc::vec::Vec;

use super::authorization::{ErrorResponse, OpenUserAgent, Request};
use super::endpoint::{Body, Call};
use super::registration::{ClientAuthentication, Identity, IdentityKind};
use super::{Client, Given, addresses_for, networks_for};
use crate::entropy::Entropy;
use crate::error::{
    Error, HostMisuse, KnownCode, OutsideFailed, PeerIncompatible, PeerMisbehaved, malformed,
};
use crate::evidence::{CallbackExpected, CallbackMatched, IssuerMatched};
use crate::identifier::{Issuer, Network, ResourceId, ScopeSet};
use crate::limits;
use crate::message::authorization::{AuthorizationResult, Callback, CodeRequest};
use crate::message::exchange::{AddressPolicy, FetchFailure, FetchPurpose, Reply};
use crate::message::token::{CodeGrant, Grant, TokenReply, TokenResponse, TokenType};
use crate::pkce::{self, CodeChallenge};
use crate::policy::Relaxation;
use crate::secret::{self, AgentBinding, AuthorizationCode, Nonce, State};
use crate::time::{self, OffsetDateTime};

/// One issuer and who the client is there.
pub(super) struct Counterpart<'a> {
    pub(super) client: &'a Client,
    /// What the issuer was reached from.
    pub(super) given: Given,
    /// The issuer as it was given: relaxations are named for it.
    pub(super) listed_issuer: &'a Issuer,
    pub(super) issuer: &'a IssuerMatched,
    pub(super) metadata: &'a crate::message::server_metadata::ServerMetadata,
    pub(super) identity: &'a Identity,
}

/// What is asked for.
pub(super) struct Asked {
    pub(super) scope: ScopeSet,
    pub(super) resource: Option<ResourceId>,
    pub(super) nonce: Option<Nonce>,
}

/// What a callback is.
pub(super) enum Answered {
    /// Not an answer to this request: another browser, place or state, or too late.
    Unsolicited,
    /// An answer to this request from somebody else than was asked.
    Rejected(Error),
    /// A refusal of the issuer that was asked.
    Refused(ErrorResponse),
    /// A code of the issuer that was asked.
    Code { code: AuthorizationCode, issuer: IssuerMatched, matched: CallbackMatched },
}

impl<'a> Counterpart<'a> {
    /// Where a URL that the issuer named may lead.
    pub(super) fn addresses(&self, url: &str, what: &'static str) -> Result<AddressPolicy, Error> {
        addresses_for(self.client, self.given.clone(), url, what)
    }

    /// The private networks that its fetches may reach.
    pub(super) fn networks(&self) -> &'a [Network] {
        networks_for(self.client, self.given.clone())
    }

    /// The authorization request, and what its answer will be compared with.
    pub(super) fn request(
        &self,
        asked: Asked,
        agent: AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<(OpenUserAgent, Request), Error> {
        // RFC7591-3.2.1-4: the person is not asked for what could not be redeemed.
        if self.identity.is_expired(now) {
            return Err(PeerIncompatible::SecretExpired.into());
        }
        // OAUTH21-7.5.2-1, OAUTH21-4.1.1-9, RFC7636-7.2-1, MCP-SBP-009, I-L5: random, fresh for every attempt, and S256 in
        // each.
        let verifier = pkce::new_verifier(entropy)?;
        let state = secret::fresh(entropy, State::new)?;
        let Asked { scope, resource, nonce } = asked;
        let digest = state.digest();
        let redirect_uri = self.identity.redirect_uri.clone();
        let request = CodeRequest {
            client_id: self.identity.client_id.clone(),
            redirect_uri: redirect_uri.clone(),
            code_challenge: CodeChallenge::of(&verifier),
            state,
            scope: Some(scope.clone()),
            resource,
            nonce,
        };
        let endpoint = self.metadata.authorization_endpoint.as_ref();
        let endpoint = endpoint.ok_or(PeerIncompatible::NoEndpoint("authorization endpoint"))?;
        let ours = request.pairs();
        let mut pairs: Vec<(&str, &str)> = ours.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut url =
            endpoint.with_parameters(pairs.clone()).map_err(|_| PeerMisbehaved::AuthorizationEndpoint)?;
        // AuthorizationExtras: none of them has a name of ours (OAUTH21-3.1-6), or of the endpoint's own query.
        if let Some(extras) = self.client.policy().authorization_extras(self.listed_issuer) {
            pairs.extend(extras.pairs());
            url = endpoint.with_parameters(pairs).map_err(HostMisuse::AuthorizationUrl)?;
        }
        if url.len() > limits::AUTHORIZATION_URL_BYTES {
            return Err(PeerIncompatible::AuthorizationUrlTooLong.into());
        }
        let open = OpenUserAgent { url, endpoint_length: endpoint.as_str().len() };
        let not_after = time::after(now, time::Duration::minutes(15));
        Ok((open, Request { verifier, state: digest, agent, redirect_uri, scope, not_after }))
    }

    /// Whether a callback answers that request, and what it says. `announced` is whether the issuer said, when the request
    /// was sent, that it sends `iss`.
    ///
    /// Checked in this order: browser, place, state and time; then the issuer; then error or code.
    pub(super) fn answered(
        &self,
        request: &Request,
        announced: bool,
        callback: Callback,
        agent: &AgentBinding,
        now: OffsetDateTime,
    ) -> Answered {
        let expected = CallbackExpected {
            agent: &request.agent,
            redirect_uri: &request.redirect_uri,
            state: &request.state,
            not_after: request.not_after,
        };
        // OAUTH21-2.3.3-1, OAUTH21-2.3.4-1, RFC8252-8.10-1, MCP-SBP-012, MCP-SBP-013
        let matched = CallbackMatched::compare(&expected, agent, callback.location(), callback.state(), now);
        let Some(matched) = matched else { return Answered::Unsolicited };
        // MCP-AUTH-030, MCP-AUTH-033, MCP-AUTH-039, MCP-AUTH-040, RFC9207-2.4-4: as recorded when the request was sent;
        // before the code, and before anything of an error is read.
        let Ok(issuer) = IssuerMatched::by_callback(self.issuer, announced, callback.iss()) else {
            return Answered::Rejected(PeerMisbehaved::CallbackIssuer.into());
        };
        match callback.into_result() {
            AuthorizationResult::Code(code) => Answered::Code { code, issuer, matched },
            AuthorizationResult::Error(error) => {
                Answered::Refused(ErrorResponse { code: error.code, detail: error.detail })
            }
        }
    }

    /// The token request for a code that answered that request.
    pub(super) fn exchange(
        &self,
        code: AuthorizationCode,
        request: &Request,
        matched: &CallbackMatched,
        resource: Option<&ResourceId>,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Call, Error> {
        let grant = Grant::AuthorizationCode(CodeGrant {
            code,
            // OAUTH21-4.1.2-5: the verifier of this very request.
            code_verifier: request.verifier.clone(),
            redirect_uri: Some(matched.redirect_uri().as_str().into()),
            resource: resource.map(|resource| resource.as_str().into()),
        });
        self.call(FetchPurpose::CodeExchange, Body::Token(grant), now, entropy)
    }

    /// Reads a reply of the token endpoint.
    pub(super) fn tokens_of(&self, fetched: Result<Reply, FetchFailure>) -> Result<TokenResponse, Error> {
        tokens_of(fetched).map_err(|error| match error {
            Error::Incompatible(PeerIncompatible::TokenRefused(code)) => self.refused(code),
            error => error,
        })
    }

    /// What a refusal of the token endpoint says about this identity: one that was registered can be registered anew, one
    /// that was configured cannot.
    fn refused(&self, code: KnownCode) -> Error {
        let Identity { kind, authentication, .. } = self.identity;
        let about_identity = matches!(code.as_str(), "invalid_client" | "unauthorized_client");
        if !about_identity || *kind == IdentityKind::Registered {
            return PeerIncompatible::TokenRefused(code).into();
        }
        let relaxation = Relaxation::AssertionAudience(self.listed_issuer.clone());
        // D19
        let signs = matches!(authentication, ClientAuthentication::PrivateKey(_));
        let may_help =
            signs && code.as_str() == "invalid_client" && !self.client.policy().allows(&relaxation);
        PeerIncompatible::IdentityRefused { code, relaxation: may_help.then_some(relaxation) }.into()
    }
}

fn tokens_of(fetched: Result<Reply, FetchFailure>) -> Result<TokenResponse, Error> {
    let reply = fetched.map_err(OutsideFailed::from)?;
    if reply.status() >= 500 || reply.status() == 429 {
        return Err(
            OutsideFailed::Unavailable { status: reply.status(), retry_after: reply.retry_after() }.into()
        );
    }
    // OAUTH21-3.2.3-2, OAUTH21-3.2.4-8, D37
    match TokenReply::parse(reply.status(), reply.body()).map_err(malformed("token response"))? {
        TokenReply::Error(error) => {
            Err(PeerIncompatible::TokenRefused(KnownCode::of(error.code.as_str())).into())
        }
        // RFC6749-7.1-1, OAUTH21-3.2.3-3: a DPoP token needs a proof that this client does not make.
        TokenReply::Tokens(tokens) if tokens.token_type != TokenType::Bearer => {
            Err(PeerIncompatible::TokenType.into())
        }
        TokenReply::Tokens(tokens) => Ok(tokens),
    }
}
