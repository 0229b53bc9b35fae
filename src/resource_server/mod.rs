//! The resource server role: an MCP server that takes access tokens (OAuth 2.1 section 5, RFC 6750, RFC 9728, and the
//! MCP authorization page).
//!
//! ```text
//! RequestHead ── ResourceServer::admit ──> PresentedToken ── verify ──> VerifiedToken ── authorize ──> Authorized
//!                      │                        │  │                        ▲               │
//!                      │                        │  └─ Fetch ─> AwaitingIntrospection        │
//!                      ▼                        ▼                 │                         ▼
//!                    Denial                  Denial            Denial                    Denial
//! ```
//!
//! Every request passes every step: [`Authorized`] has no other origin, and it gives no token text away, so that there is
//! nothing a handler could pass on (MCP-AUTH-079). A token that was verified before may come back from a [`TokenCache`] in
//! place of the second step; the others are passed all the same. What the answers, the metadata document and the audience say comes
//! from the configuration alone, never from a header of the request (I-A9).
//!
//! An MCP server that runs without authorization does not put this role before its handlers; there is no switch in
//! here that turns a check off.

mod addressing;
mod admission;
mod cache;
mod denial;
mod exchange;
mod issuer;
mod key_cache;
mod key_place;
mod key_set;
mod metadata;
mod scope;
mod verification;

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identifier::{Issuer, ResourceId, Scope, ScopeSet};
use crate::jose::KeySet;
use crate::limits;
use crate::message::PageUri;
use crate::time::Duration;

pub use admission::PresentedToken;
pub use cache::{Recalled, TokenCache};
pub use denial::{Denial, DenialReason};
pub use exchange::{AwaitingExchange, ExchangeFailure, ExchangedToken, SubjectToken, TokenExchange};
pub use issuer::{Introspection, ResourceRelaxation, TokenProfile, TrustedIssuer};
pub use key_cache::{FetchedKeys, KeyCache, MissingKey};
pub use key_place::{AwaitingKeyPlace, KeyPlace, KeyPlaceFailure, find_key_set};
pub use key_set::{AwaitingKeySet, KeySetFailure, fetch_key_set};
pub use scope::{Authorized, RequiredScopes};
pub use verification::{AwaitingIntrospection, VerificationOutcome, VerifiedToken};

use addressing::Addressing;
use issuer::Fetched;
use scope::Hierarchy;

/// The configuration of one protected resource. Cheap to clone; changes make a new value.
///
/// ```
/// use mcp_authz::identifier::{ClientId, Endpoint, Issuer, ResourceId, ScopeSet};
/// use mcp_authz::message::exchange::{Reply, RequestHead};
/// use mcp_authz::resource_server::{Introspection, RequiredScopes, ResourceServer, TrustedIssuer, VerificationOutcome};
/// use mcp_authz::secret::ClientSecret;
/// use mcp_authz::time::OffsetDateTime;
///
/// let endpoint = Endpoint::new("https://as.example/introspect")?;
/// let asked = Introspection::new(endpoint, ClientId::new("notes")?, ClientSecret::new("from the operator")?);
/// let issuer = TrustedIssuer::with_introspection(Issuer::new("https://as.example")?, asked);
/// let server = ResourceServer::new(ResourceId::new("https://mcp.example/notes")?, [issuer])?;
/// let reading = RequiredScopes::new(ScopeSet::parse("read")?)?;
///
/// // Without a token: a 401 that says where to get one.
/// let head = RequestHead::new("POST", "/notes").with_header("host", b"mcp.example");
/// let denial = server.admit(&head, &reading).expect_err("there is no token").respond();
/// assert_eq!(denial.status(), 401);
/// assert!(denial.header("www-authenticate").is_some_and(|value| value.contains("resource_metadata=")));
///
/// // With one: this issuer is asked about it; one with keys would be verified without a fetch.
/// let head = head.with_header("authorization", b"Bearer 7Fjfp0ZBr1KtDRbnfVdmIw");
/// let now = OffsetDateTime::from_unix_timestamp(1_800_000_000)?;
/// let presented = server.admit(&head, &reading).map_err(|denial| denial.reason().to_string())?;
/// let VerificationOutcome::Introspect(step) = presented.verify(now) else { panic!("the token is opaque") };
/// let (fetch, waiting) = step.into_parts();
/// assert_eq!(fetch.url(), "https://as.example/introspect");
/// let answer = r#"{"active":true,"iss":"https://as.example","aud":"https://mcp.example/notes","sub":"alice",
///     "client_id":"c1","scope":"read","exp":1800000300}"#;
/// let reply = Reply::new(200, answer).with_header("content-type", b"application/json");
/// let verified = waiting.receive(Ok(reply), now).map_err(|denial| denial.reason().to_string())?;
/// let authorized = verified.authorize(&reading).map_err(|denial| denial.reason().to_string())?;
/// assert_eq!(authorized.subject(), "alice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ResourceServer(Arc<Configuration>);

#[derive(Debug, Clone)]
struct Configuration {
    /// Another one after each change of what a token is verified by.
    identity: Arc<()>,
    resource: ResourceId,
    /// Where the metadata document is found, for challenges.
    metadata_url: String,
    /// By their exact identifier: a token's `iss` finds its issuer or none (RFC 8725 section 3.8).
    issuers: BTreeMap<String, TrustedIssuer>,
    /// The one that is asked about opaque tokens.
    asked: Option<Issuer>,
    /// Whether any issuer verifies by keys; where none does, every token is opaque.
    any_keys: bool,
    /// Which hosts it answers to, and for pages of which origins.
    addressing: Addressing,
    /// Where inbound tokens are exchanged, if anywhere.
    exchange: Option<Arc<TokenExchange>>,
    /// In the order they were configured, for the document.
    issuer_order: Vec<Issuer>,
    scopes_supported: Option<ScopeSet>,
    hierarchy: Hierarchy,
    leeway: Duration,
    name: Option<String>,
    documentation: Option<PageUri>,
}

/// A configuration that cannot be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfiguration {
    /// No authorization server: nobody could get a token.
    #[error("a protected resource needs at least one authorization server")]
    NoIssuer,
    /// The same issuer twice, or more than [`limits::AUTHORIZATION_SERVERS`].
    #[error("an authorization server is configured twice, or there are too many")]
    Issuers,
    /// Two issuers verify tokens by introspection: an opaque token does not say which of them to ask.
    #[error("at most one authorization server can be asked about opaque tokens")]
    SeveralIntrospections,
    /// No audience would be accepted, or an empty one.
    #[error("an issuer needs at least one accepted audience, and none may be empty")]
    NoAudience,
    /// No token type would be accepted.
    #[error("a token profile needs at least one token type")]
    NoTokenType,
    /// The resource identifier has a query, or no path but a slash.
    #[error("write the resource identifier without a query, and without the slash when it is a host alone")]
    Resource,
    /// `offline_access` among the scopes of a resource: refresh tokens are between client and authorization server.
    #[error("offline_access is no scope of a protected resource")]
    OfflineAccess,
    /// No host, or one that cannot stand in a `Host` field.
    #[error("name at least one host, each as it stands in the Host field")]
    Host,
    /// Tokens without expiry held too long, or not at all.
    #[error("tokens without expiry are held for 1 to {} seconds", limits::NON_EXPIRING_SECONDS_MOST)]
    NonExpiring,
    /// A clock leeway above [`limits::CLOCK_LEEWAY_SECONDS_MOST`], or a negative one.
    #[error("the clock leeway is negative or too large")]
    Leeway,
    /// Tokens are to be exchanged of an issuer whose tokens are not accepted.
    #[error("the issuer whose tokens are exchanged is not one of the resource's authorization servers")]
    ExchangeIssuer,
    /// The issuer is not one of those configured with keys.
    #[error("no issuer of that identifier is configured to verify by keys")]
    UnknownIssuer,
    /// An issuer's keys are to be fetched, and nothing says where they are.
    #[error("an issuer's keys are to be fetched, and nothing says where they are")]
    KeysNowhere,
}

impl ResourceServer {
    /// A resource server that accepts tokens meant for `resource` from these issuers.
    ///
    /// # Errors
    /// [`InvalidConfiguration`] when nobody could get a token, an opaque token could be anyone's, or the identifier is
    /// written in a form clients would not send.
    pub fn new(
        resource: ResourceId,
        issuers: impl IntoIterator<Item = TrustedIssuer>,
    ) -> Result<Self, InvalidConfiguration> {
        check_spelling(&resource)?;
        let mut by_identifier = BTreeMap::new();
        let mut issuer_order = Vec::new();
        for issuer in issuers {
            issuer_order.push(issuer.issuer().clone());
            let issuer = issuer.for_resource(&resource);
            // I-G8: of two entries for one issuer neither could be preferred.
            if by_identifier.insert(String::from(issuer.issuer().as_str()), issuer).is_some() {
                return Err(InvalidConfiguration::Issuers);
            }
        }
        // MCP-DISC-001
        if by_identifier.is_empty() {
            return Err(InvalidConfiguration::NoIssuer);
        }
        if by_identifier.len() > limits::AUTHORIZATION_SERVERS {
            return Err(InvalidConfiguration::Issuers);
        }
        let mut asking = by_identifier.values().filter(|issuer| issuer.introspection().is_some());
        let asked = asking.next().map(|issuer| issuer.issuer().clone());
        if asking.next().is_some() {
            return Err(InvalidConfiguration::SeveralIntrospections);
        }
        let any_keys = by_identifier.values().any(TrustedIssuer::has_keys);
        let metadata_url = metadata::document_url(&resource);
        Ok(Self(Arc::new(Configuration {
            identity: Arc::new(()),
            addressing: Addressing::of(&resource),
            exchange: None,
            resource,
            metadata_url,
            issuers: by_identifier,
            asked,
            any_keys,
            issuer_order,
            scopes_supported: None,
            hierarchy: Hierarchy::default(),
            leeway: Duration::seconds(limits::CLOCK_LEEWAY_SECONDS),
            name: None,
            documentation: None,
        })))
    }

    /// Lists scopes in the metadata document. Some may be left out; challenges need not follow the list.
    ///
    /// # Errors
    /// [`InvalidConfiguration::OfflineAccess`]
    pub fn with_scopes_supported(mut self, scopes: ScopeSet) -> Result<Self, InvalidConfiguration> {
        // MCP-AUTH-086
        scope::refuse_offline_access(&scopes)?;
        self.configuration_mut().scopes_supported = Some(scopes);
        Ok(self)
    }

    /// A token with the scope `broader` also passes where one of `narrower` is needed. Implications add up and reach
    /// through one another.
    #[must_use]
    pub fn with_implied_scopes(mut self, broader: Scope, narrower: ScopeSet) -> Self {
        self.configuration_mut().hierarchy.imply(&broader, &narrower);
        self
    }

    /// How far the clocks of issuer and resource may be apart; [`limits::CLOCK_LEEWAY_SECONDS`] without this call.
    ///
    /// # Errors
    /// [`InvalidConfiguration::Leeway`] when it is negative or above [`limits::CLOCK_LEEWAY_SECONDS_MOST`].
    pub fn with_clock_leeway(mut self, leeway: Duration) -> Result<Self, InvalidConfiguration> {
        // OAUTH21-5.2-1: a leeway lengthens the life of every token, so it stays small.
        if leeway.is_negative() || leeway > Duration::seconds(limits::CLOCK_LEEWAY_SECONDS_MOST) {
            return Err(InvalidConfiguration::Leeway);
        }
        self.configuration_mut().leeway = leeway;
        Ok(self)
    }

    /// The name people see.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.configuration_mut().name = Some(name.into());
        self
    }

    /// A page for developers.
    #[must_use]
    pub fn with_documentation(mut self, page: PageUri) -> Self {
        self.configuration_mut().documentation = Some(page);
        self
    }

    /// Lets handlers exchange the token of a request for one of another resource (RFC 8693), where it is of the issuer that
    /// the exchange is for. Requests with tokens of other issuers have nothing to exchange.
    ///
    /// # Errors
    /// [`InvalidConfiguration::ExchangeIssuer`] when that issuer's tokens are not accepted here.
    pub fn with_token_exchange(mut self, exchange: TokenExchange) -> Result<Self, InvalidConfiguration> {
        // I-G8
        if !self.0.issuers.contains_key(exchange.issuer().as_str()) {
            return Err(InvalidConfiguration::ExchangeIssuer);
        }
        self.configuration_mut().exchange = Some(Arc::new(exchange));
        Ok(self)
    }

    /// The same resource server with other keys for one issuer, which the host vouches for until it replaces them: the
    /// old ones are gone (I-A4).
    ///
    /// # Errors
    /// [`InvalidConfiguration::UnknownIssuer`] when that issuer is not configured with keys.
    pub fn with_replaced_keys(self, issuer: &Issuer, keys: KeySet) -> Result<Self, InvalidConfiguration> {
        self.with_keys_of(issuer, keys, None)
    }

    /// The same resource server with keys that were fetched, in place of those there are (I-A4), for as long as they
    /// hold. Where the document is the one there was, it holds longer and nothing else changes: what a
    /// [`TokenCache`] remembers stays.
    ///
    /// # Errors
    /// [`InvalidConfiguration::UnknownIssuer`] when their issuer is not configured with keys.
    pub fn with_fetched_keys(self, fetched: &FetchedKeys) -> Result<Self, InvalidConfiguration> {
        self.with_keys_of(&fetched.issuer, fetched.keys.clone(), Some(fetched.fetched))
    }

    fn with_keys_of(
        mut self,
        issuer: &Issuer,
        keys: KeySet,
        fetched: Option<Fetched>,
    ) -> Result<Self, InvalidConfiguration> {
        let trusted = self.0.issuers.get(issuer.as_str()).ok_or(InvalidConfiguration::UnknownIssuer)?;
        let unchanged = fetched.is_some_and(|fetched| trusted.has_keys_of(fetched.document));
        // I-A14: what was verified with these keys stays verified.
        let configuration = if unchanged { Arc::make_mut(&mut self.0) } else { self.configuration_mut() };
        let replaced = configuration
            .issuers
            .get_mut(issuer.as_str())
            .is_some_and(|trusted| trusted.replace_keys(keys, fetched));
        if replaced { Ok(self) } else { Err(InvalidConfiguration::UnknownIssuer) }
    }

    /// The issuers whose keys are still to be fetched: their tokens are answered with 503 until they are.
    pub fn awaited_keys(&self) -> impl Iterator<Item = &Issuer> {
        self.0.issuers.values().filter(|issuer| issuer.awaits_keys()).map(TrustedIssuer::issuer)
    }

    /// Whether tokens of that issuer are verified by its keys here.
    pub fn verifies_by_keys_of(&self, issuer: &Issuer) -> bool {
        self.0.issuers.get(issuer.as_str()).is_some_and(TrustedIssuer::has_keys)
    }

    /// What is accepted beyond the strict default, for an audit. Empty unless the host named something.
    pub fn relaxations(&self) -> Vec<ResourceRelaxation> {
        self.0.issuers.values().flat_map(TrustedIssuer::relaxations).collect()
    }

    fn token_exchange(&self) -> Option<&Arc<TokenExchange>> {
        self.0.exchange.as_ref()
    }

    /// Whether the other is this very configuration, and not one that looks alike: every change makes a new one, but that keys
    /// hold longer.
    fn is_the_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.identity, &other.0.identity)
    }

    /// The identifier tokens must be meant for.
    pub fn resource(&self) -> &ResourceId {
        &self.0.resource
    }

    /// The authorization servers, in the order they were given.
    pub fn issuers(&self) -> impl ExactSizeIterator<Item = &Issuer> {
        self.0.issuer_order.iter()
    }

    fn configuration_mut(&mut self) -> &mut Configuration {
        let configuration = Arc::make_mut(&mut self.0);
        configuration.identity = Arc::new(());
        configuration
    }
}

/// The identifier clients will send and compare is written in its plain form.
fn check_spelling(resource: &ResourceId) -> Result<(), InvalidConfiguration> {
    let text = resource.as_str();
    // RFC9728-1.2-1: its type has refused fragments and other schemes; RFC9728-1.2-2
    if text.contains('?') {
        return Err(InvalidConfiguration::Resource);
    }
    // MCP-AUTH-060: on a host alone the slash means nothing, and clients compare bytes.
    let path = text.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    if path.is_some_and(|(_, path)| path.is_empty()) {
        return Err(InvalidConfiguration::Resource);
    }
    Ok(())
}
