//! What an authorization server is told once.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::document_hosts::DocumentHosts;
use super::grace::RefreshGrace;
use crate::identifier::{ClientId, InvalidIdentifier, Issuer, ResourceId, Scope, ScopeSet};
use crate::jose::SigningKeyId;
use crate::secret::SecretDigest;
use crate::time::Duration;

/// A resource the server issues tokens for, and what its scopes mean to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownResource {
    pub(super) id: ResourceId,
    pub(super) scopes: BTreeMap<Scope, Arc<str>>,
    known: ScopeSet,
    pub(super) risky: ScopeSet,
    pub(super) default_scopes: ScopeSet,
    pub(super) opaque: bool,
    pub(super) introspected_by: Option<ClientId>,
}

impl KnownResource {
    /// A resource, with each of its scopes in words.
    pub fn new(id: ResourceId, scopes: impl IntoIterator<Item = (Scope, String)>) -> Self {
        let scopes: BTreeMap<Scope, Arc<str>> =
            scopes.into_iter().map(|(scope, words)| (scope, words.into())).collect();
        Self {
            id,
            known: scopes.keys().cloned().collect(),
            scopes,
            risky: ScopeSet::new(),
            default_scopes: ScopeSet::new(),
            opaque: false,
            introspected_by: None,
        }
    }

    /// Says which scopes are marked on the consent page, because what they allow cannot be undone or reaches far.
    #[must_use]
    pub fn risky_scopes(self, risky: ScopeSet) -> Self {
        Self { risky, ..self }
    }

    /// Gives it opaque access tokens, which end at once when their grant does, instead of signed ones. Only a resource
    /// server that introspects can use them.
    #[must_use]
    pub fn opaque_tokens(self, introspected_by: ClientId) -> Self {
        Self { opaque: true, ..self.introspected_by(introspected_by) }
    }

    /// Lets the resource server introspect tokens for this resource. It authenticates as that client
    /// ([`ClientRecord::resource_server`](super::record::ClientRecord::resource_server)).
    #[must_use]
    pub fn introspected_by(self, client_id: ClientId) -> Self {
        Self { introspected_by: Some(client_id), ..self }
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
    pub fn scopes(&self) -> &ScopeSet {
        &self.known
    }

    /// Whether a scope is marked on the consent page.
    pub fn is_risky(&self, scope: &Scope) -> bool {
        self.risky.contains(scope)
    }

    /// Whether its access tokens are opaque.
    pub fn has_opaque_tokens(&self) -> bool {
        self.opaque
    }

    /// The resource server that may introspect tokens for it.
    pub fn introspector(&self) -> Option<&ClientId> {
        self.introspected_by.as_ref()
    }

    /// What a scope allows, in the operator's words.
    pub fn description(&self, scope: &Scope) -> Option<&Arc<str>> {
        self.scopes.get(scope)
    }
}

/// Who may register a client by itself (RFC 7591 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationPolicy {
    /// Nobody: there is no registration endpoint.
    Closed,
    /// Everybody. Put a rate limit before the endpoint.
    Open,
    /// Who presents one of these initial access tokens, as digests; none in the list lets nobody in.
    InitialAccessToken(Vec<SecretDigest>),
}

/// What becomes of pushed authorization requests (RFC 9126).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushedRequests {
    /// There is no endpoint for them.
    #[default]
    Off,
    /// A client may push its request.
    Offered,
    /// A client has to: a request that the browser brings by itself is refused.
    Required,
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
    /// A consent that a person wants remembered: 90 days by default.
    pub consent: Duration,
    /// A pushed authorization request until the browser brings it: 1 minute by default, 10 at most.
    pub pushed: Duration,
    /// A client metadata document after it was last fetched, where it cannot be fetched again: 7 days by default, 30 at
    /// most.
    pub stale_document: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: Duration::minutes(5),
            code: Duration::minutes(1),
            decision: Duration::minutes(10),
            refresh_idle: Duration::days(14),
            family: Duration::days(90),
            consent: Duration::days(90),
            pushed: Duration::minutes(1),
            stale_document: Duration::days(7),
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
    /// The default resource is none of the resources.
    #[error("the default resource must be one of the resources")]
    DefaultResource,
    /// The signing key has no name.
    #[error("the signing key needs a key id")]
    NoKeyId,
}

/// Everything an authorization server is told once.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub(super) issuer: Issuer,
    pub(super) resources: Vec<KnownResource>,
    pub(super) default_resource: Option<ResourceId>,
    pub(super) signing_key: SigningKeyId,
    pub(super) lifetimes: Lifetimes,
    pub(super) registration: RegistrationPolicy,
    pub(super) managed: bool,
    pub(super) public_clients: bool,
    pub(super) metadata_documents: bool,
    pub(super) document_hosts: Option<DocumentHosts>,
    pub(super) pushed: PushedRequests,
    pub(super) grace: Option<RefreshGrace>,
}

impl Configuration {
    /// A server of that issuer for these resources, which signs with that key. Registration is closed, client metadata
    /// documents are read.
    pub fn new(issuer: Issuer, resources: Vec<KnownResource>, signing_key: SigningKeyId) -> Self {
        Self {
            issuer,
            resources,
            default_resource: None,
            signing_key,
            lifetimes: Lifetimes::default(),
            registration: RegistrationPolicy::Closed,
            managed: false,
            public_clients: true,
            metadata_documents: true,
            document_hosts: None,
            pushed: PushedRequests::Off,
            grace: None,
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

    /// Reads metadata documents of these hosts only. Without it they are read wherever they may be fetched.
    #[must_use]
    pub fn document_hosts(self, hosts: DocumentHosts) -> Self {
        Self { document_hosts: Some(hosts), ..self }
    }

    /// Names the resource of a request that names none (`DefaultResource`, D30). Without it such a request is refused.
    #[must_use]
    pub fn default_resource(self, resource: ResourceId) -> Self {
        Self { default_resource: Some(resource), ..self }
    }

    /// Sets whether a client that registered may read, change and end its registration (RFC 7592).
    #[must_use]
    pub fn managed_registrations(self, managed: bool) -> Self {
        Self { managed, ..self }
    }

    /// Sets whether clients without credentials are let in: they are unless this says no.
    #[must_use]
    pub fn public_clients(self, public_clients: bool) -> Self {
        Self { public_clients, ..self }
    }

    /// Sets what becomes of pushed authorization requests.
    #[must_use]
    pub fn pushed_requests(self, pushed: PushedRequests) -> Self {
        Self { pushed, ..self }
    }

    /// Lets a client that lost the answer to a refresh repeat it: a relaxation, off without this (D17).
    #[must_use]
    pub fn refresh_grace(self, grace: RefreshGrace) -> Self {
        Self { grace: Some(grace), ..self }
    }
}
