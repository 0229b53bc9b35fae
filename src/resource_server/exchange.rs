//! Calling another resource on a person's behalf: token exchange as a client (RFC 8693 sections 2.1 and 2.2).
//!
//! The inbound token is never passed on (MCP-AUTH-079). Where the host configures an exchange, a handler gets an opaque
//! [`SubjectToken`], which goes to the token endpoint of that configuration and nowhere else; what comes back is a token
//! for the one resource that was asked for.
//!
//! ```text
//! Authorized ── subject_token ── exchange(target) ──> Fetch, AwaitingExchange ── receive ──> ExchangedToken
//! ```

use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::admission::Presented;
use crate::identifier::{ClientId, Endpoint, Issuer, ResourceId, ScopeSet};
use crate::limits;
use crate::message::error_code::TokenErrorCode;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::token::{TokenReply, TokenType};
use crate::secret::{AccessToken, BearerToken, ClientSecret};
use crate::step::Step;
use crate::syntax::json::JsonObject;
use crate::syntax::{basic, form};
use crate::time::{Duration, OffsetDateTime};

/// `grant_type` of an exchange.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The type of the token that is exchanged, and of the one asked for.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Where, and as whom, the inbound tokens of one issuer are exchanged. Part of the configuration of a resource server, never
/// of a request.
#[derive(Debug, Clone)]
pub struct TokenExchange {
    issuer: Issuer,
    endpoint: Endpoint,
    client_id: ClientId,
    client_secret: ClientSecret,
    addresses: AddressPolicy,
}

impl TokenExchange {
    /// Exchanges tokens of `issuer` at this token endpoint, which is that issuer's, with HTTP Basic authentication. A loopback
    /// endpoint is reached on loopback, any other on public addresses.
    pub fn new(issuer: Issuer, endpoint: Endpoint, client_id: ClientId, client_secret: ClientSecret) -> Self {
        let addresses = if endpoint.is_loopback() { AddressPolicy::Loopback } else { AddressPolicy::Public };
        Self { issuer, endpoint, client_id, client_secret, addresses }
    }

    /// Lets the endpoint lie in the private networks the host has named.
    #[must_use]
    pub fn on_private_networks(mut self) -> Self {
        self.addresses = AddressPolicy::PublicAndPrivateNetworks;
        self
    }

    /// Whose tokens are exchanged.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
}

/// The verified token of a request, to be exchanged. It cannot be read, cloned, compared or sent anywhere else.
pub struct SubjectToken {
    token: BearerToken,
    exchange: Arc<TokenExchange>,
}

impl SubjectToken {
    /// The presented token of that issuer, where the configuration has a use for it.
    pub(super) fn of(presented: &Presented, issuer: &Issuer) -> Option<Self> {
        let exchange = presented.server.token_exchange()?;
        // I-A7: a token of one issuer is never shown to another.
        if exchange.issuer != *issuer {
            return None;
        }
        Some(Self { token: presented.token.clone(), exchange: Arc::clone(exchange) })
    }

    /// Asks for a token for `target` with these scopes; without scopes for what the authorization server gives by itself.
    pub fn exchange(&self, target: ResourceId, scopes: &ScopeSet) -> Step<Fetch, AwaitingExchange> {
        let scope = scopes.to_string();
        // MCP-SEC-030: a separate token, from the authorization server.
        // RFC8693-2.1-1, RFC8693-2.1-2: the service acts as itself, so there is no actor token; one target, so that what comes back is good for nothing else.
        let mut pairs: Vec<(&str, &str)> = Vec::from([
            ("grant_type", GRANT_TYPE),
            ("resource", target.as_str()),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", self.token.expose()),
            ("subject_token_type", ACCESS_TOKEN),
        ]);
        if !scopes.is_empty() {
            pairs.push(("scope", &scope));
        }
        let exchange = &*self.exchange;
        let credentials = basic::encode(exchange.client_id.as_str(), &exchange.client_secret);
        // I-A7: to the configured endpoint, whatever the request said.
        let fetch = Fetch::post_form(
            FetchPurpose::TokenExchange,
            exchange.endpoint.as_str(),
            form::encode(pairs),
            Some(credentials),
            FetchPolicy::new(exchange.addresses, limits::REPLY_BYTES),
        );
        Step::new(fetch, AwaitingExchange(Box::new(Asked { target, scopes: scopes.clone() })))
    }
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectToken(redacted)")
    }
}

/// Waits for the token endpoint's answer. It holds no token.
#[derive(Debug)]
#[must_use = "the token comes with the reply"]
pub struct AwaitingExchange(Box<Asked>);

#[derive(Debug)]
struct Asked {
    target: ResourceId,
    scopes: ScopeSet,
}

/// Why no token came of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeFailure {
    /// The fetch brought no reply: try again later.
    #[error("{0}")]
    Fetch(#[from] FetchFailure),
    /// The authorization server refuses; the same request would be refused again (D26).
    #[error("the authorization server refuses the exchange: {0:?}")]
    Refused(TokenErrorCode),
    /// The reply has another status than those of the token endpoint: try again later.
    #[error("the token endpoint answered with status {0}")]
    Status(u16),
    /// The reply is no token reply of RFC 8693.
    #[error("the token endpoint's reply is malformed")]
    Malformed,
    /// The token is not the access token that was asked for, or is no bearer token.
    #[error("the token endpoint issued another type of token than an access token to bear")]
    OtherType,
    /// The token has scopes nobody asked for.
    #[error("the token endpoint granted scopes that were not asked for")]
    MoreScopes,
}

impl AwaitingExchange {
    /// Takes the reply at this time.
    ///
    /// # Errors
    /// [`ExchangeFailure`]; no token of it is used.
    pub fn receive(
        self,
        reply: Result<Reply, FetchFailure>,
        now: OffsetDateTime,
    ) -> Result<ExchangedToken, ExchangeFailure> {
        let Asked { target, scopes } = *self.0;
        let reply = reply?;
        if !matches!(reply.status(), 200 | 400 | 401) {
            return Err(ExchangeFailure::Status(reply.status()));
        }
        if !reply.is_json() {
            return Err(ExchangeFailure::Malformed);
        }
        let malformed = |_| ExchangeFailure::Malformed;
        let tokens =
            match TokenReply::parse(reply.status(), reply.body()).map_err(|_| ExchangeFailure::Malformed)? {
                TokenReply::Tokens(tokens) => tokens,
                TokenReply::Error(error) => return Err(ExchangeFailure::Refused(error.code)),
            };
        // RFC 8693 section 2.2.1: what was issued is said, and is what was asked for.
        let object = JsonObject::parse(reply.body(), limits::REPLY_BYTES).map_err(malformed)?;
        let issued = object.required_string("issued_token_type").map_err(malformed)?;
        if issued != ACCESS_TOKEN || tokens.token_type != TokenType::Bearer {
            return Err(ExchangeFailure::OtherType);
        }
        let granted = tokens.scope.unwrap_or_else(|| scopes.clone());
        if !scopes.is_empty() && !granted.is_subset_of(&scopes) {
            return Err(ExchangeFailure::MoreScopes);
        }
        let lifetime = tokens.expires_in.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        Ok(ExchangedToken {
            token: tokens.access_token,
            target,
            scopes: granted,
            expires_at: lifetime.map(|seconds| now.saturating_add(Duration::seconds(seconds))),
        })
    }
}

/// A token for the resource that was asked for, and for no other.
#[derive(Debug)]
pub struct ExchangedToken {
    token: AccessToken,
    target: ResourceId,
    scopes: ScopeSet,
    expires_at: Option<OffsetDateTime>,
}

impl ExchangedToken {
    /// The value of the `Authorization` field for a request to that URL; `None` unless the URL is the target's or lies
    /// below it.
    pub fn authorization_for(&self, request_url: &str) -> Option<Zeroizing<alloc::string::String>> {
        // I-L7: the same rule as for a client's own token.
        let covered = self.target.covers(request_url);
        covered.then(|| Zeroizing::new(["Bearer ", self.token.expose()].concat()))
    }

    /// The resource it is for.
    pub fn target(&self) -> &ResourceId {
        &self.target
    }

    /// Its scopes, as far as they are known.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// When it expires, if that was said.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }
}
