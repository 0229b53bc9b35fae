//! The client: from a 401 to a session, one state per thing it waits for.
//!
//! ```text
//!   Client::challenged(401)
//!      │ Fetch                                    RFC 9728, MCP protected resource metadata discovery
//!   AwaitingResourceMetadata ──┐ next location
//!      │         ▲─────────────┘
//!   ChoosingIssuer                                the host chooses; D36
//!      │ choose ─ Fetch                           RFC 8414, OpenID Connect discovery
//!   AwaitingServerMetadata ──┐ next location
//!      │         ▲───────────┘
//!   ChoosingIdentity ── pre_registered ───────────────┐
//!      │  │ metadata_document ────────────────────────┤
//!      │ register ─ Fetch                             │ RFC 7591
//!   AwaitingRegistration ─────────────────────────────┤
//!                                                   Ready ◀───────────────────────────────┐
//!      ┌───────────────────────────────────────────────┘ begin ─ OpenUserAgent             │
//!   AwaitingCallback ── Unsolicited: the state comes back ── Refused, Rejected ───────────┤
//!      │ receive ─ Fetch                                                                  │
//!   AwaitingTokens ────────────────────────────────────────── failed ────────────────────┤
//!      │ receive ─ PersistSession                                                         │
//!   AwaitingPersisted                                                                     │
//!      │ persisted(receipt)                                                               │
//!   Session ── challenged(403) ─ CountStepUp ─▶ AwaitingStepUp ── counted ───────────────┤
//!      ▲ earlier_session: a step-up that came to nothing ───────────────────────────────────┤
//!      │ refresh ─ ClaimRefresh ─▶ AwaitingClaim ─ Fetch                                  │
//!   AwaitingRefresh ── DiscardSession ─▶ AwaitingDiscard ── ended ────────────────────────┘
//!      └ CommitRefresh ─▶ AwaitingCommit ─▶ Session
//! ```
//!
//! A host that wants to know who sits before a browser, and no token, begins at [`Client::sign_in`]: `sign_in.rs` draws that
//! ladder. Both take the same steps from the authorization request to the token request.
//!
//! | state | waits for | can be stored |
//! |---|---|---|
//! | [`AwaitingResourceMetadata`] | the resource server's metadata document | no |
//! | [`ChoosingIssuer`] | the host's choice | no |
//! | [`AwaitingServerMetadata`] | the authorization server's metadata document | no |
//! | [`ChoosingIdentity`] | the host's choice | no |
//! | [`AwaitingRegistration`] | the registration endpoint | no |
//! | [`Ready`] | the host to begin | registration: [`RegistrationRecord`] |
//! | [`AwaitingCallback`] | the person's browser | [`CallbackRecord`] |
//! | [`AwaitingTokens`] | the token endpoint | no |
//! | [`AwaitingPersisted`] | the receipt that the session is kept | no |
//! | [`Session`] | requests to attach a token to | [`SessionRecord`] |
//! | [`AwaitingStepUp`] | the receipt that a step-up is counted | the count: [`StepUpRecord`] |
//! | [`AwaitingClaim`] | the claim on the session in its store | no |
//! | [`AwaitingAssertion`] | the key holder's signature | no |
//! | [`AwaitingRefresh`] | the token endpoint | no |
//! | [`AwaitingCommit`] | the receipt that the refreshed session is kept | no |
//! | [`AwaitingDiscard`] | a look into the store before a session is given up | no |
//! | [`AwaitingRevocation`] | the revocation endpoint | no |
//! | [`AwaitingProvider`] | an OpenID Provider's metadata document | no |
//! | [`Provider`] | people who sign in | no |
//! | [`AwaitingSignIn`] | the person's browser | [`SignInRecord`] |
//! | [`AwaitingIdToken`] | the provider's token endpoint | no |
//! | [`AwaitingProviderKeys`] | the provider's key set | no |

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::error::{Error, HostMisuse, PeerMisbehaved};
use crate::identifier::{
    ClientId, ClientMetadataUrl, Endpoint, Issuer, Network, Origin, RedirectUri, ResourceId, ScopeSet,
    address,
};
use crate::jose::SigningKeyId;
use crate::message::PageUri;
use crate::message::exchange::AddressPolicy;
use crate::policy::{Policy, PrivateNetworks, Relaxation};
use crate::revision::Revision;
use crate::secret::{ClientSecret, SecretDigest};
use crate::syntax::json::JsonObject;
use crate::syntax::uri::Uri;

mod authorization;
mod client_metadata;
mod counterpart;
mod discovery;
mod endpoint;
mod id_token;
mod issuer;
mod legacy;
mod record;
mod recorded;
mod redirect;
mod refresh;
mod registration;
mod revocation;
mod session;
mod sign_in;
mod step_up;
#[cfg(test)]
mod tests;

pub use authorization::{
    AwaitingCallback, AwaitingTokens, CallbackOutcome, ErrorResponse, OpenUserAgent, Ready,
};
pub use discovery::{
    AwaitingResourceMetadata, AwaitingServerMetadata, ResourceMetadataOutcome, ServerMetadataOutcome,
};
pub use endpoint::{AwaitingAssertion, EndpointCall};
pub use id_token::{SignedIn, local_subject};
pub use issuer::ChoosingIssuer;
pub use record::{
    CallbackRecord, PairingRecord, RecordVersion, RegistrationRecord, SessionRecord, SignInRecord,
};
pub use redirect::CallbackPaths;
pub use refresh::{
    AwaitingClaim, AwaitingCommit, AwaitingDiscard, AwaitingRefresh, ClaimOutcome, ClaimRefresh,
    CommitRefresh, DiscardSession, RefreshClaim, RefreshCommitted, RefreshOutcome, ReleaseClaim,
    SessionDiscarded, Settled,
};
pub use registration::{AwaitingRegistration, ChoosingIdentity, IdentityKind};
pub use revocation::AwaitingRevocation;
pub use session::{
    AuthorizationHeader, AwaitingPersisted, PersistSession, Session, SessionPersisted, StepUp,
};
pub use sign_in::{
    AwaitingIdToken, AwaitingProvider, AwaitingProviderKeys, AwaitingSignIn, Provider, SignInOutcome,
};
pub use step_up::{AwaitingStepUp, CountStepUp, StepUpCounted, StepUpJoin, StepUpRecord};

/// What a confidential client proves itself with.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Secret(ClientSecret),
    PrivateKey(SigningKeyId),
}

/// A client the operator of an authorization server registered by hand.
#[derive(Debug, Clone)]
pub struct PreRegistered {
    pub(crate) issuer: Issuer,
    pub(crate) client_id: ClientId,
    pub(crate) credential: Option<Credential>,
    pub(crate) redirect_uri: RedirectUri,
    pub(crate) resources: Vec<ResourceId>,
    pub(crate) scopes: Option<ScopeSet>,
}

impl PreRegistered {
    /// The identity `client_id` at `issuer`, for these resources and no other without the host's assertion (D36).
    pub fn new(
        issuer: Issuer,
        client_id: ClientId,
        redirect_uri: RedirectUri,
        resources: impl IntoIterator<Item = ResourceId>,
    ) -> Self {
        let resources = resources.into_iter().collect();
        Self { issuer, client_id, credential: None, redirect_uri, resources, scopes: None }
    }

    /// Adds the secret of a confidential client.
    #[must_use]
    pub fn secret(self, secret: ClientSecret) -> Self {
        Self { credential: Some(Credential::Secret(secret)), ..self }
    }

    /// Authenticates with assertions that this key signs (`private_key_jwt`, RFC 7523 section 2.2); the host holds it.
    #[must_use]
    pub fn private_key(self, key: SigningKeyId) -> Self {
        Self { credential: Some(Credential::PrivateKey(key)), ..self }
    }

    /// Pins the scopes that may ever be asked for under this identity.
    #[must_use]
    pub fn scopes(self, scopes: ScopeSet) -> Self {
        Self { scopes: Some(scopes), ..self }
    }
}

/// Where the public key of a client's metadata document is found.
#[derive(Debug, Clone)]
pub enum DocumentKeys {
    /// In the document itself: a JSON Web Key Set, without anything private.
    Inline(JsonObject),
    /// At that URL (`jwks_uri`).
    At(Endpoint),
}

/// What a client is told once.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub(crate) client_name: String,
    pub(crate) client_uri: Option<PageUri>,
    pub(crate) redirect_uri: RedirectUri,
    pub(crate) policy: Policy,
    pub(crate) pre_registered: Vec<PreRegistered>,
    pub(crate) metadata_url: Option<ClientMetadataUrl>,
    pub(crate) document_key: Option<(SigningKeyId, DocumentKeys)>,
    pub(crate) dynamic_registration: bool,
    pub(crate) revision: Revision,
    pub(crate) revisions: BTreeMap<ResourceId, Revision>,
}

impl Configuration {
    /// A client with a name for people, answered at `redirect_uri`: strict policy, dynamic registration on.
    ///
    /// A program that listens on a loopback port gives the URI with the port it listens on.
    pub fn new(client_name: impl Into<String>, redirect_uri: RedirectUri) -> Self {
        Self {
            client_name: client_name.into(),
            client_uri: None,
            redirect_uri,
            policy: Policy::strict(),
            pre_registered: Vec::new(),
            metadata_url: None,
            document_key: None,
            dynamic_registration: true,
            revision: Revision::default(),
            revisions: BTreeMap::new(),
        }
    }

    /// Sets the relaxations.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Adds an identity that was registered by hand.
    #[must_use]
    pub fn pre_registered(mut self, identity: PreRegistered) -> Self {
        self.pre_registered.push(identity);
        self
    }

    /// Sets the client's home page, for a person who is asked to trust it.
    #[must_use]
    pub fn client_uri(self, client_uri: PageUri) -> Self {
        Self { client_uri: Some(client_uri), ..self }
    }

    /// Sets the URL at which this client publishes its metadata document: the bytes of
    /// [`Client::client_metadata_document`]. It has no query, and stays what it is for as long as the client is known by
    /// it.
    #[must_use]
    pub fn metadata_document(self, url: ClientMetadataUrl) -> Self {
        Self { metadata_url: Some(url), ..self }
    }

    /// Authenticates as the client of the metadata document with assertions that this key signs (`private_key_jwt`); its
    /// public part is found there.
    #[must_use]
    pub fn document_key(self, key: SigningKeyId, keys: DocumentKeys) -> Self {
        // MCP-REG-014
        Self { document_key: Some((key, keys)), ..self }
    }

    /// States the revision of MCP that servers keep to; the newest without this call.
    #[must_use]
    pub fn revision(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// States the revision of this one server, named by the URL the person gives
    /// ([`ResourceId::from_server_url`]).
    #[must_use]
    pub fn revision_of(mut self, server: ResourceId, revision: Revision) -> Self {
        self.revisions.insert(server, revision);
        self
    }

    /// Sets whether the client registers itself where nothing else is configured.
    #[must_use]
    pub fn dynamic_registration(self, dynamic_registration: bool) -> Self {
        Self { dynamic_registration, ..self }
    }
}

/// A client: configuration, cheap to clone. Where every flow begins.
///
/// ```
/// use mcp_authz::client::{Client, Configuration, ResourceMetadataOutcome};
/// use mcp_authz::identifier::{RedirectUri, ResourceId};
/// use mcp_authz::message::exchange::Reply;
///
/// let redirect_uri = RedirectUri::new("http://127.0.0.1:4711/callback")?;
/// let client = Client::new(Configuration::new("My editor", redirect_uri))?;
///
/// // The person gave this URL; a request without a token was answered with 401.
/// let server = ResourceId::from_server_url("https://mcp.example/notes")?;
/// let unauthorized = Reply::new(401, "").with_header("www-authenticate", br#"Bearer scope="read""#);
/// let (fetch, state) = client.challenged(&server, &unauthorized)?.into_parts();
/// assert_eq!(fetch.url(), "https://mcp.example/.well-known/oauth-protected-resource/notes");
///
/// // The host sends `fetch`, and hands over what came back. Here is what a server could say.
/// let document = r#"{"resource":"https://mcp.example/notes","authorization_servers":["https://as.example"]}"#;
/// let reply = Reply::new(200, document).with_header("content-type", b"application/json");
/// match state.receive(Ok(reply)).map_err(|failed| failed.error)? {
///     ResourceMetadataOutcome::Found(choosing) => assert_eq!(choosing.issuers()[0].as_str(), "https://as.example"),
///     ResourceMetadataOutcome::Next(_) => unreachable!("the document was there"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client(Arc<Configuration>);

impl Client {
    /// A client of that configuration.
    ///
    /// # Errors
    /// [`HostMisuse::TwoIdentities`] when two identities were registered by hand at one issuer for one resource.
    pub fn new(configuration: Configuration) -> Result<Self, Error> {
        // D36: the identity is the one for the resource, so there is one. The lone slash makes no other issuer here, because
        // a relaxation may take it for none.
        let identities = &configuration.pre_registered;
        let clash = identities.iter().enumerate().any(|(index, one)| {
            identities.iter().skip(index.saturating_add(1)).any(|other| {
                let here = one.issuer == other.issuer || one.issuer.differs_by_root_slash(&other.issuer);
                here && one.resources.iter().any(|resource| other.resources.contains(resource))
            })
        });
        if clash { Err(HostMisuse::TwoIdentities.into()) } else { Ok(Self(Arc::new(configuration))) }
    }

    /// The relaxations in force.
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The revision that the host stated for the server at that URL.
    pub fn revision(&self, server: &ResourceId) -> Revision {
        self.0.revisions.get(server).copied().unwrap_or(self.0.revision)
    }

    /// Where a URL that the server, or its metadata, names may lead: the address policy of every fetch of a flow. For a
    /// host that sends requests of its own to such a URL.
    ///
    /// # Errors
    /// [`PeerMisbehaved::ForbiddenAddress`] for a URL that no fetch may go to.
    pub fn addresses(&self, server: &ResourceId, url: &str) -> Result<AddressPolicy, Error> {
        addresses_for(self, server, url, "URL")
    }

    /// The private networks that requests for that server may reach beside public addresses: those that the policy names
    /// for its origin, and no other server's.
    pub fn private_networks(&self, server: &ResourceId) -> &[Network] {
        networks_for(self, server)
    }

    pub(crate) fn configuration(&self) -> &Configuration {
        &self.0
    }

    /// What a record must agree with: a client of another name or policy refuses it.
    pub(crate) fn digest(&self) -> SecretDigest {
        let policy = String::from(self.0.policy.clone());
        SecretDigest::of([self.0.client_name.as_str(), "\0", &policy].concat().as_bytes())
    }
}

/// What everything of a flow is reached from: the URL of the MCP server, which the person gave, or the issuer of a
/// sign-in, which the host configured. No peer chose it.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    origin: Origin,
    is_loopback: bool,
}

impl From<&ResourceId> for Given {
    fn from(server: &ResourceId) -> Self {
        Self { origin: server.origin(), is_loopback: server.is_loopback() }
    }
}

impl From<&Issuer> for Given {
    fn from(issuer: &Issuer) -> Self {
        Self { origin: issuer.origin(), is_loopback: issuer.is_loopback() }
    }
}

/// The private networks that a flow may reach from there.
pub(crate) fn networks_for(client: &Client, given: impl Into<Given>) -> &[Network] {
    client.policy().private_networks(&given.into().origin).map_or(&[], PrivateNetworks::networks)
}

/// Where a URL that a peer named may lead. Loopback is reached only when the URL that *no peer* chose is loopback
/// itself, a private network only when the host named it for that URL's origin; everything else is public.
pub(crate) fn addresses_for(
    client: &Client,
    given: impl Into<Given>,
    url: &str,
    what: &'static str,
) -> Result<AddressPolicy, Error> {
    let Given { origin, is_loopback } = given.into();
    // MCP-SBP-020, I-L8
    let refused = |relaxation| Error::from(PeerMisbehaved::ForbiddenAddress { what, relaxation });
    let forbidden = || refused(None);
    let uri = Uri::parse(url).map_err(|_| forbidden())?;
    if crate::identifier::is_loopback_host(uri.host()) {
        return if is_loopback { Ok(AddressPolicy::Loopback) } else { Err(forbidden()) };
    }
    if uri.scheme() != "https" {
        return Err(forbidden());
    }
    // The relaxation is for servers of one origin: no other server's metadata leads into those networks.
    let networks = client.policy().private_networks(&origin);
    match address::literal(uri.host()).filter(|literal| !address::is_public(*literal)) {
        None if networks.is_none() => Ok(AddressPolicy::Public),
        None => Ok(AddressPolicy::PublicAndPrivateNetworks),
        Some(literal) if networks.is_some_and(|it| it.networks().iter().any(|it| it.contains(literal))) => {
            Ok(AddressPolicy::PublicAndPrivateNetworks)
        }
        Some(literal) => Err(refused(
            Network::of(literal)
                .and_then(|network| PrivateNetworks::new(origin, [network]).ok())
                .map(Relaxation::PrivateNetworks),
        )),
    }
}
