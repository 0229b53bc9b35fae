//! The authorization server: what it is configured with, and where each endpoint's machine lives.
//!
//! ```text
//! GET  /authorize   authorize ─FindClient▶ AwaitingClient ─(Fetch▶ AwaitingMetadataDocument)─▶ RequestValidated
//!                   RequestValidated ─show─InsertDecision▶ AwaitingDecisionStored ─▶ ConsentView
//! POST /decision    decide ─ReadDecision▶ AwaitingDecision ─DecideOnce▶ AwaitingCodeStored ─▶ Redirect
//! POST /token       token ─FindClient▶ … ─ReadCode▶ … ─Sign▶ … ─RedeemCode▶ … ─▶ Respond        (token.rs)
//!                                       ─ReadRefresh▶ … ─Sign▶ … ─RotateRefresh▶ … ─▶ Respond   (refresh.rs)
//! POST /register    register ─InsertClient▶ AwaitingClientStored ─▶ Respond
//! …    /register/ID manage ─FindClient▶ … ─UpdateClient / DeleteClient▶ … ─▶ Respond              (management.rs)
//! POST /revoke      revoke ─FindClient▶ … ─ReadRefresh, ReadAccess▶ … ─RevokeFamily▶ … ─▶ Respond
//! POST /introspect  introspect ─FindClient▶ … ─ReadAccess, ReadGrant, ReadRefresh▶ … ─▶ Respond   (introspection.rs)
//! POST /par         push ─FindClient▶ … ─InsertPushed▶ … ─▶ Respond                              (pushed.rs)
//! GET  /.well-known metadata
//! ```
//!
//! | endpoint | checks, in their order |
//! |---|---|
//! | authorization | grammar, client, redirect URI; only then errors may redirect: response type, PKCE S256, resource, scope |
//! | decision | pending, browser, person, form value, time, scopes within what was shown; redirect URI once more |
//! | token | one client authentication; code live; client, verifier, redirect URI, resource, scope, expiry; sign; redeem |
//! | revocation, introspection, pushed requests | client authentication as at the token endpoint (`caller.rs`); then ownership |
//! | registration | grammar, each member, redirect URIs; then the id is fresh |

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::identifier::{Endpoint, InvalidIdentifier, Issuer, ResourceId};
use crate::jose::SigningKeyId;
use crate::time::Duration;

mod authentication;
pub mod authorization;
pub mod caller;
pub mod client;
mod configuration;
pub mod decision;
pub mod document;
mod document_hosts;
pub mod error;
pub mod grace;
pub mod introspection;
mod issuance;
pub mod management;
mod metadata;
pub mod pushed;
pub mod record;
pub mod refresh;
pub mod refusal;
pub mod registration;
pub mod revocation;
pub mod sign_in;
pub mod store;
#[cfg(feature = "test-kit")]
#[doc(hidden)]
pub mod test_kit;
pub mod token;

pub use configuration::{
    Configuration, InvalidConfiguration, KnownResource, Lifetimes, PushedRequests, RegistrationPolicy,
};
pub use document_hosts::{DocumentHosts, InvalidDocumentHost};

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
pub struct AuthorizationServer {
    shared: Arc<Shared>,
}

/// What is configured, and the key of the moment.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    signing_key: SigningKeyId,
}

#[derive(Debug)]
struct Inner {
    configuration: Configuration,
    authorization_endpoint: Endpoint,
    token_endpoint: Endpoint,
    registration_endpoint: Endpoint,
    revocation_endpoint: Endpoint,
    introspection_endpoint: Endpoint,
    pushed_endpoint: Endpoint,
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
        let default = configuration.default_resource.as_ref();
        if default.is_some_and(|default| !configuration.resources.iter().any(|known| known.id == *default)) {
            return Err(InvalidConfiguration::DefaultResource);
        }
        if configuration.signing_key.kid().is_empty() {
            return Err(InvalidConfiguration::NoKeyId);
        }
        let base = configuration.issuer.as_str();
        let base = base.strip_suffix('/').unwrap_or(base).to_owned();
        // MCP-SEC-005, I-A9: endpoints are https like the issuer, and come of the configured issuer, never of a request.
        let endpoint = |path: &str| Endpoint::new([base.as_str(), path].concat());
        let signing_key = configuration.signing_key.clone();
        let inner = Arc::new(Inner {
            authorization_endpoint: endpoint("/authorize")?,
            token_endpoint: endpoint("/token")?,
            registration_endpoint: endpoint("/register")?,
            revocation_endpoint: endpoint("/revoke")?,
            introspection_endpoint: endpoint("/introspect")?,
            // RFC9126-2-1
            pushed_endpoint: endpoint("/par")?,
            jwks_uri: endpoint("/jwks")?,
            configuration,
        });
        Ok(Self { shared: Arc::new(Shared { inner, signing_key }) })
    }

    /// The same server, signing with another key from now on: for a host that rotates its keys. `None` without a key id.
    pub fn signing_with(&self, key: SigningKeyId) -> Option<Self> {
        let inner = Arc::clone(&self.shared.inner);
        (!key.kid().is_empty()).then(|| Self { shared: Arc::new(Shared { inner, signing_key: key }) })
    }

    /// The issuer.
    pub fn issuer(&self) -> &Issuer {
        &self.shared.inner.configuration.issuer
    }

    /// The resources.
    pub fn resources(&self) -> &[KnownResource] {
        &self.shared.inner.configuration.resources
    }

    /// The lifetimes.
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.shared.inner.configuration.lifetimes
    }

    /// The key it signs with.
    pub fn signing_key(&self) -> &SigningKeyId {
        &self.shared.signing_key
    }

    /// Who may register.
    pub fn registration(&self) -> &RegistrationPolicy {
        &self.shared.inner.configuration.registration
    }

    /// Whether clients manage their registrations.
    pub fn manages_registrations(&self) -> bool {
        self.shared.inner.configuration.managed
            && self.shared.inner.configuration.registration != RegistrationPolicy::Closed
    }

    /// Whether clients without credentials are let in.
    pub fn admits_public_clients(&self) -> bool {
        self.shared.inner.configuration.public_clients
    }

    /// What becomes of pushed authorization requests.
    pub fn pushed_requests(&self) -> PushedRequests {
        self.shared.inner.configuration.pushed
    }

    /// The grace for a lost answer to a refresh, where there is one.
    pub fn refresh_grace(&self) -> Option<&grace::RefreshGrace> {
        self.shared.inner.configuration.grace.as_ref()
    }

    /// The resource of a request that names none.
    pub(crate) fn default_resource(&self) -> Option<&KnownResource> {
        let id = self.shared.inner.configuration.default_resource.as_ref()?;
        self.resources().iter().find(|known| known.id == *id)
    }

    /// Whether client metadata documents are read.
    pub fn reads_metadata_documents(&self) -> bool {
        self.shared.inner.configuration.metadata_documents
    }

    /// The hosts whose documents are read, if the operator named them.
    pub fn document_hosts(&self) -> Option<&DocumentHosts> {
        self.shared.inner.configuration.document_hosts.as_ref()
    }

    /// Looks a requested resource up; scheme and host case and a lone slash are folded (D30).
    pub(crate) fn resource(&self, requested: &ResourceId) -> Option<&KnownResource> {
        let same = self.resources().iter().find(|known| known.id == *requested);
        same.or_else(|| self.resources().iter().find(|known| known.id.has_lookup_key_of(requested)))
    }

    /// Looks up what a request names as its resource; the configured spelling is known to be well-formed.
    pub(crate) fn resource_named(&self, text: &str) -> Result<Option<&KnownResource>, InvalidIdentifier> {
        match self.resources().iter().find(|known| known.id.as_str() == text) {
            Some(known) => Ok(Some(known)),
            // MCP-AUTH-058: in any case of its scheme and host.
            None => Ok(self.resource(&ResourceId::from_server_url(text)?)),
        }
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
        if !resource.default_scopes.is_subset_of(resource.scopes()) {
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
    within("approvals", lifetimes.family, Duration::days(400))?;
    within("remembered consents", lifetimes.consent, Duration::days(400))?;
    within("pushed requests", lifetimes.pushed, Duration::minutes(10))?;
    within("documents that cannot be fetched", lifetimes.stale_document, Duration::days(30))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use std::vec::Vec;

    use super::{AuthorizationServer, Configuration, InvalidConfiguration, KnownResource, Lifetimes};
    use crate::identifier::{Issuer, ResourceId, Scope, ScopeSet};
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
        assert_eq!(server.shared.inner.token_endpoint.as_str(), "https://as.example/t/token");
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

    // I-A4: a token says which key signed it.
    #[test]
    fn a_key_without_a_name_signs_nothing() {
        let nameless = || SigningKeyId::new("", Algorithm::EdDsa);
        let resources = || [resource("https://h.example")].into();
        let configured = Configuration { signing_key: nameless(), ..configuration(resources()) };
        assert_eq!(AuthorizationServer::new(configured).unwrap_err(), InvalidConfiguration::NoKeyId);
        let server = AuthorizationServer::new(configuration(resources())).unwrap();
        assert!(server.signing_with(nameless()).is_none());
        let next = server.signing_with(SigningKeyId::new("k2", Algorithm::EdDsa)).unwrap();
        assert_eq!((server.signing_key().kid(), next.signing_key().kid()), ("k1", "k2"));
    }

    // I-G8
    #[test]
    fn a_default_scope_is_one_of_the_resources() {
        let with = |scope| {
            let resource = resource("https://h.example").default_scopes(ScopeSet::parse(scope).unwrap());
            AuthorizationServer::new(configuration([resource].into()))
        };
        assert!(with("read").is_ok());
        assert!(matches!(with("read write").unwrap_err(), InvalidConfiguration::DefaultScope(_)));
    }

    // I-G8
    #[test]
    fn a_default_resource_is_one_of_the_resources() {
        let with = |id| {
            let configured = configuration([resource("https://h.example")].into());
            AuthorizationServer::new(configured.default_resource(ResourceId::new(id).unwrap()))
        };
        assert!(with("https://h.example").is_ok());
        assert_eq!(with("https://i.example").unwrap_err(), InvalidConfiguration::DefaultResource);
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
        // What nothing renews ends within a year or so.
        assert!(with(Lifetimes { family: Duration::days(400), ..normal }));
        assert!(!with(Lifetimes { family: Duration::days(401), ..normal }));
        assert!(with(Lifetimes { consent: Duration::days(400), ..normal }));
        assert!(!with(Lifetimes { consent: Duration::days(401), ..normal }));
        assert!(!with(Lifetimes { consent: Duration::ZERO, ..normal }));
        assert!(!with(Lifetimes { pushed: Duration::minutes(11), ..normal }));
    }
}
