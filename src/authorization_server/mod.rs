//! The authorization server: what it is configured with, and where each endpoint's machine lives.
//!
//! ```text
//! GET  /authorize   authorize ─FindClient▶ AwaitingClient ─(Fetch▶ AwaitingMetadataDocument)─▶ RequestValidated
//!                   RequestValidated ─show─InsertDecision▶ AwaitingDecisionStored ─▶ ConsentView
//! POST /decision    decide ─ReadDecision▶ AwaitingDecision ─DecideOnce▶ AwaitingCodeStored ─▶ Redirect
//! POST /token       token ─FindClient▶ … ─ReadCode▶ … ─Sign▶ … ─RedeemCode▶ … ─▶ Respond        (token.rs)
//!                                       ─ReadRefresh▶ … ─Sign▶ … ─RotateRefresh▶ … ─▶ Respond   (refresh.rs)
//! POST /register    register ─InsertClient▶ AwaitingClientStored ─▶ Respond
//! POST /revoke      revoke ─FindClient▶ … ─ReadRefresh▶ … ─RevokeFamily▶ … ─▶ Respond
//! GET  /.well-known metadata
//! ```
//!
//! | endpoint | checks, in their order |
//! |---|---|
//! | authorization | grammar, client, redirect URI; only then errors may redirect: response type, PKCE S256, resource, scope |
//! | decision | pending, browser, person, form value, time, scopes within what was shown; redirect URI once more |
//! | token | one client authentication; code live; client, verifier, redirect URI, resource, scope, expiry; sign; redeem |
//! | registration | grammar, each member, redirect URIs; then the id is fresh |

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::identifier::{Endpoint, InvalidIdentifier, Issuer, ResourceId, Scope, ScopeSet};
use crate::jose::SigningKeyId;
use crate::time::Duration;

mod authentication;
pub mod authorization;
pub mod client;
pub mod decision;
pub mod error;
mod issuance;
mod metadata;
pub mod record;
pub mod refresh;
pub mod refusal;
pub mod registration;
pub mod revocation;
pub mod store;
#[cfg(feature = "test-kit")]
#[doc(hidden)]
pub mod test_kit;
pub mod token;

/// A resource the server issues tokens for, and what its scopes mean to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownResource {
    id: ResourceId,
    scopes: BTreeMap<Scope, String>,
    default_scopes: ScopeSet,
}

impl KnownResource {
    /// A resource, with each of its scopes in words.
    pub fn new(id: ResourceId, scopes: impl IntoIterator<Item = (Scope, String)>) -> Self {
        Self { id, scopes: scopes.into_iter().collect(), default_scopes: ScopeSet::new() }
    }

    /// Sets what a request without `scope` asks for; without a default such a request is refused.
    #[must_use]
    pub fn default_scopes(self, default_scopes: ScopeSet) -> Self {
        Self { default_scopes, ..self }
    }

    /// Its identifier, in the spelling that goes into every `aud`.
    pub fn id(&self) -> &ResourceId {
        &self.id
    }

    /// Its scopes.
    pub fn scopes(&self) -> ScopeSet {
        self.scopes.keys().cloned().collect()
    }

    /// What a scope allows, in the operator's words.
    pub fn description(&self, scope: &Scope) -> Option<&str> {
        self.scopes.get(scope).map(String::as_str)
    }
}

/// Who may register a client by itself (RFC 7591 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationPolicy {
    /// Nobody: there is no registration endpoint.
    Closed,
    /// Everybody. Put a rate limit before the endpoint.
    Open,
}

/// How long things live. All are bounded: see [`Configuration::new`] for the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// A signed access token: 5 minutes by default, 15 at most, because it cannot be called back.
    pub access_token: Duration,
    /// An authorization code: 1 minute by default, 10 at most.
    pub code: Duration,
    /// A consent page without an answer: 10 minutes by default, an hour at most.
    pub decision: Duration,
    /// A refresh token that nobody uses: 14 days by default.
    pub refresh_idle: Duration,
    /// All credentials of one approval: 90 days by default.
    pub family: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: Duration::minutes(5),
            code: Duration::minutes(1),
            decision: Duration::minutes(10),
            refresh_idle: Duration::days(14),
            family: Duration::days(90),
        }
    }
}

/// Why a configuration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfiguration {
    /// There is no resource to issue tokens for: an empty list never means "any" (I-G8).
    #[error("name at least one resource to issue tokens for")]
    NoResource,
    /// Two resources are one after scheme, host and a lone slash are folded (D30).
    #[error("two configured resources differ only by case or a trailing slash: {0}")]
    SameResource(ResourceId),
    /// A resource without a scope, or a scope without words for the person who is asked.
    #[error("every resource needs at least one scope, and every scope a description: {0}")]
    NoScope(ResourceId),
    /// What a resource gives by default is not among its scopes.
    #[error("every default scope must be one of the resource's scopes: {0}")]
    DefaultScope(ResourceId),
    /// A lifetime is not above zero, or above its bound.
    #[error("the lifetime of {0} is outside its bounds")]
    Lifetime(&'static str),
    /// An endpoint cannot be made of the issuer.
    #[error("{0}")]
    Endpoint(#[from] InvalidIdentifier),
    /// The signing key has no name.
    #[error("the signing key needs a key id")]
    NoKeyId,
}

/// Everything an authorization server is told once.
#[derive(Debug, Clone)]
pub struct Configuration {
    issuer: Issuer,
    resources: Vec<KnownResource>,
    signing_key: SigningKeyId,
    lifetimes: Lifetimes,
    registration: RegistrationPolicy,
    metadata_documents: bool,
}

impl Configuration {
    /// A server of that issuer for these resources, which signs with that key. Registration is closed, client metadata
    /// documents are read.
    pub fn new(issuer: Issuer, resources: Vec<KnownResource>, signing_key: SigningKeyId) -> Self {
        Self {
            issuer,
            resources,
            signing_key,
            lifetimes: Lifetimes::default(),
            registration: RegistrationPolicy::Closed,
            metadata_documents: true,
        }
    }

    /// Sets the lifetimes.
    #[must_use]
    pub fn lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// Sets who may register.
    #[must_use]
    pub fn registration(self, registration: RegistrationPolicy) -> Self {
        Self { registration, ..self }
    }

    /// Sets whether a URL-shaped client id is resolved to its metadata document.
    #[must_use]
    pub fn metadata_documents(self, metadata_documents: bool) -> Self {
        Self { metadata_documents, ..self }
    }
}

/// An authorization server: configuration, checked. Cheap to clone; holds no state and no secret.
///
/// ```
/// use mcp_authz::authorization_server::authorization::{Authorizing, RequestOutcome};
/// use mcp_authz::authorization_server::record::{ClientCredential, ClientRecord};
/// use mcp_authz::authorization_server::{AuthorizationServer, Configuration, KnownResource};
/// use mcp_authz::identifier::{ClientId, Issuer, ResourceId, Scope};
/// use mcp_authz::jose::{Algorithm, SigningKeyId};
/// use mcp_authz::message::client_metadata::ClientMetadata;
/// use mcp_authz::time::OffsetDateTime;
///
/// let read = (Scope::new("read")?, "Read your notes".to_owned());
/// let notes = KnownResource::new(ResourceId::new("https://mcp.example/notes")?, [read]);
/// let key = SigningKeyId::new("2026-11", Algorithm::EdDsa);
/// let server = AuthorizationServer::new(Configuration::new(Issuer::new("https://as.example")?, vec![notes], key))?;
/// assert_eq!(server.metadata_path(), "/.well-known/oauth-authorization-server");
///
/// // GET /authorize?…: the request asks for a client, and waits for what the host's store says.
/// let query = "client_id=editor&redirect_uri=https%3A%2F%2Feditor.example%2Fback&response_type=code&state=s\
///     &scope=read&resource=https%3A%2F%2Fmcp.example%2Fnotes\
///     &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
/// let Authorizing::Find(step) = server.authorize(query).map_err(|refusal| refusal.reason())? else {
///     panic!("the client identifier is no URL")
/// };
/// let (find, waiting) = step.into_parts();
/// let metadata = ClientMetadata::parse(br#"{"redirect_uris":["https://editor.example/back"],"client_name":"Editor"}"#)?;
/// let now = OffsetDateTime::from_unix_timestamp(1_800_000_000)?;
/// let editor = ClientRecord::pre_registered(ClientId::new("editor")?, metadata, ClientCredential::None, now)
///     .ok_or("such a client could not be used")?;
/// match waiting.found(find.found(editor, now)) {
///     // Sign the person in, then `show`: the decision is stored before anything is on the page.
///     RequestOutcome::Validated(request) => {
///         assert_eq!(request.redirect_matched().redirect_uri().as_str(), "https://editor.example/back");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct AuthorizationServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    configuration: Configuration,
    authorization_endpoint: Endpoint,
    token_endpoint: Endpoint,
    registration_endpoint: Endpoint,
    revocation_endpoint: Endpoint,
    jwks_uri: Endpoint,
}

impl AuthorizationServer {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`InvalidConfiguration`], for the operator.
    pub fn new(configuration: Configuration) -> Result<Self, InvalidConfiguration> {
        check_resources(&configuration.resources)?;
        check_lifetimes(&configuration.lifetimes)?;
        if configuration.signing_key.kid().is_empty() {
            return Err(InvalidConfiguration::NoKeyId);
        }
        let base = configuration.issuer.as_str();
        let base = base.strip_suffix('/').unwrap_or(base).to_owned();
        // MCP-SEC-005, I-A9: endpoints are https like the issuer, and come of the configured issuer, never of a request.
        let endpoint = |path: &str| Endpoint::new([base.as_str(), path].concat());
        Ok(Self(Arc::new(Inner {
            authorization_endpoint: endpoint("/authorize")?,
            token_endpoint: endpoint("/token")?,
            registration_endpoint: endpoint("/register")?,
            revocation_endpoint: endpoint("/revoke")?,
            jwks_uri: endpoint("/jwks")?,
            configuration,
        })))
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.0.configuration.issuer
    }

    /// The resources.
    pub fn resources(&self) -> &[KnownResource] {
        &self.0.configuration.resources
    }

    /// The lifetimes.
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.0.configuration.lifetimes
    }

    /// The key it signs with.
    pub fn signing_key(&self) -> &SigningKeyId {
        &self.0.configuration.signing_key
    }

    /// Who may register.
    pub fn registration(&self) -> RegistrationPolicy {
        self.0.configuration.registration
    }

    /// Whether client metadata documents are read.
    pub fn reads_metadata_documents(&self) -> bool {
        self.0.configuration.metadata_documents
    }

    /// Looks a requested resource up; scheme and host case and a lone slash are folded (D30).
    pub(crate) fn resource(&self, requested: &ResourceId) -> Option<&KnownResource> {
        let key = requested.lookup_key();
        self.resources().iter().find(|known| known.id.lookup_key() == key)
    }
}

fn check_resources(resources: &[KnownResource]) -> Result<(), InvalidConfiguration> {
    if resources.is_empty() {
        return Err(InvalidConfiguration::NoResource);
    }
    let mut seen = BTreeMap::new();
    for resource in resources {
        if seen.insert(resource.id.lookup_key(), ()).is_some() {
            return Err(InvalidConfiguration::SameResource(resource.id.clone()));
        }
        if resource.scopes.is_empty() || resource.scopes.values().any(|words| words.trim().is_empty()) {
            return Err(InvalidConfiguration::NoScope(resource.id.clone()));
        }
        // I-G8
        if !resource.default_scopes.is_subset_of(&resource.scopes()) {
            return Err(InvalidConfiguration::DefaultScope(resource.id.clone()));
        }
    }
    Ok(())
}

fn check_lifetimes(lifetimes: &Lifetimes) -> Result<(), InvalidConfiguration> {
    let within = |name, lifetime: Duration, most: Duration| {
        let fits = lifetime.is_positive() && lifetime <= most;
        if fits { Ok(()) } else { Err(InvalidConfiguration::Lifetime(name)) }
    };
    // MCP-SEC-003
    within("access tokens", lifetimes.access_token, Duration::minutes(15))?;
    // OAUTH21-4.1.2-1
    within("codes", lifetimes.code, Duration::minutes(10))?;
    within("decisions", lifetimes.decision, Duration::hours(1))?;
    within("unused refresh tokens", lifetimes.refresh_idle, lifetimes.family)?;
    within("approvals", lifetimes.family, Duration::days(400))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use std::vec::Vec;

    use super::{AuthorizationServer, Configuration, InvalidConfiguration, KnownResource, Lifetimes};
    use crate::identifier::{Issuer, ResourceId, Scope};
    use crate::jose::{Algorithm, SigningKeyId};
    use crate::time::Duration;

    fn resource(id: &str) -> KnownResource {
        let scope = (Scope::new("read").unwrap(), "Read your notes".to_string());
        KnownResource::new(ResourceId::new(id).unwrap(), [scope])
    }

    fn configuration(resources: Vec<KnownResource>) -> Configuration {
        let key = SigningKeyId::new("k1", Algorithm::EdDsa);
        Configuration::new(Issuer::new("https://as.example/t/").unwrap(), resources, key)
    }

    #[test]
    fn endpoints_lie_below_the_issuer() {
        let server = AuthorizationServer::new(configuration([resource("https://h.example")].into())).unwrap();
        assert_eq!(server.0.token_endpoint.as_str(), "https://as.example/t/token");
    }

    // I-G8
    #[test]
    fn nothing_empty_means_everything() {
        let refused = |resources| AuthorizationServer::new(configuration(resources)).unwrap_err();
        assert_eq!(refused(Vec::new()), InvalidConfiguration::NoResource);
        let bare = KnownResource::new(ResourceId::new("https://h.example").unwrap(), []);
        assert!(matches!(refused([bare].into()), InvalidConfiguration::NoScope(_)));
        let blank = (Scope::new("read").unwrap(), " ".to_string());
        let blank = KnownResource::new(ResourceId::new("https://h.example").unwrap(), [blank]);
        assert!(matches!(refused([blank].into()), InvalidConfiguration::NoScope(_)));
    }

    // D30
    #[test]
    fn two_spellings_of_one_resource_are_an_error() {
        let twice = [resource("https://h.example"), resource("https://H.example/")].into();
        let error = AuthorizationServer::new(configuration(twice)).unwrap_err();
        assert!(matches!(error, InvalidConfiguration::SameResource(_)));
    }

    // OAUTH21-4.1.2-1
    #[test]
    fn lifetimes_are_bounded() {
        let with = |lifetimes| {
            AuthorizationServer::new(
                configuration([resource("https://h.example")].into()).lifetimes(lifetimes),
            )
            .is_ok()
        };
        let normal = Lifetimes::default();
        assert!(with(normal));
        assert!(!with(Lifetimes { access_token: Duration::minutes(16), ..normal }));
        assert!(!with(Lifetimes { access_token: Duration::ZERO, ..normal }));
        assert!(!with(Lifetimes { code: Duration::minutes(11), ..normal }));
        assert!(!with(Lifetimes { decision: Duration::hours(2), ..normal }));
        assert!(!with(Lifetimes { refresh_idle: Duration::days(91), ..normal }));
        assert!(!with(Lifetimes { family: Duration::days(-1), ..normal }));
    }
}
