//! Who the client is at an authorization server: registered by hand, by its metadata document, or dynamically
//! (RFC 7591, client ID metadata document draft, MCP client registration; priority in that order).
//!
//! An identity is bound to the issuer it was made for and never leaves for another.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::authorization::Ready;
use super::discovery::Target;
use super::record::RegistrationRecord;
use super::{Credential, PreRegistered};
use crate::error::{
    Error, HostMisuse, KnownCode, OutsideFailed, PeerIncompatible, PeerMisbehaved, malformed,
};
use crate::evidence::IssuerMatched;
use crate::identifier::{ClientId, Issuer, RedirectUri, ScopeSet};
use crate::jose::SigningKeyId;
use crate::limits;
use crate::message::client_metadata::{
    ApplicationType, ClientMetadata, ClientMetadataDocument, RegistrationReply, RegistrationRequest,
    RegistrationResponse,
};
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::server_metadata::ServerMetadata;
use crate::policy::Relaxation;
use crate::sealer::Sealer;
use crate::secret::{ClientSecret, SecretDigest};
use crate::step::{Failed, Step};
use crate::syntax::base64url;
use crate::time::OffsetDateTime;

/// How an identity came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityKind {
    /// Registered by hand.
    PreRegistered,
    /// The client's metadata document.
    MetadataDocument,
    /// Registered dynamically.
    Registered,
}

/// How the client authenticates at the token endpoint: one way, chosen once.
#[derive(Debug, Clone)]
pub(crate) enum ClientAuthentication {
    None,
    Basic(ClientSecret),
    Post(ClientSecret),
    /// `private_key_jwt`: the host, or a key-management service, signs.
    PrivateKey(SigningKeyId),
}

/// Who the client is at one issuer.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) kind: IdentityKind,
    pub(crate) client_id: ClientId,
    pub(crate) authentication: ClientAuthentication,
    pub(crate) redirect_uri: RedirectUri,
    /// The scopes that may ever be asked for; `None` leaves them open.
    pub(crate) pinned_scopes: Option<ScopeSet>,
    /// When the secret ends.
    pub(crate) secret_expires: Option<OffsetDateTime>,
}

impl Identity {
    pub(crate) fn secret_has_expired(&self, now: OffsetDateTime) -> bool {
        self.secret_expires.is_some_and(|expires| now >= expires)
    }
}

/// A target with the authorization server found for it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) target: Target,
    pub(crate) issuer: IssuerMatched,
    pub(crate) metadata: ServerMetadata,
}

/// Holds the authorization server's metadata and waits for the host to choose who the client is there.
#[must_use = "the host chooses an identity"]
#[derive(Debug)]
pub struct ChoosingIdentity(Box<Server>);

impl ChoosingIdentity {
    pub(crate) fn new(target: Target, issuer: IssuerMatched, metadata: ServerMetadata) -> Self {
        Self(Box::new(Server { target, issuer, metadata }))
    }

    /// The evidence for the issuer.
    pub fn issuer_matched(&self) -> &IssuerMatched {
        &self.0.issuer
    }

    /// The authorization server's metadata.
    pub fn server_metadata(&self) -> &ServerMetadata {
        &self.0.metadata
    }

    /// The identities to be had here, best first (MCP client registration).
    pub fn identities(&self) -> Vec<IdentityKind> {
        // MCP-REG-001, MCP-REG-002
        let mut kinds = Vec::new();
        let configuration = self.0.target.client.configuration();
        if self.pre_registered_identity().is_some() {
            kinds.push(IdentityKind::PreRegistered);
        }
        if configuration.metadata_url.is_some() && self.0.metadata.client_id_metadata_document_supported {
            kinds.push(IdentityKind::MetadataDocument);
        }
        if configuration.dynamic_registration && self.0.metadata.registration_endpoint.is_some() {
            kinds.push(IdentityKind::Registered);
        }
        kinds
    }

    fn pre_registered_identity(&self) -> Option<PreRegistered> {
        // MCP-DISC-003, MCP-DISC-004, MCP-REG-051: looked up by the issuer's exact bytes.
        let issuer = self.0.issuer.issuer();
        let listed = &self.0.target.listed_issuer;
        let identities = &self.0.target.client.configuration().pre_registered;
        identities.iter().find(|identity| identity.issuer == *issuer || identity.issuer == *listed).cloned()
    }

    /// Goes on as the client that was registered by hand at this issuer.
    ///
    /// # Errors
    /// [`Failed`] with this state when there is none.
    pub fn pre_registered(self) -> Result<Ready, Failed<Self>> {
        let Some(identity) = self.pre_registered_identity() else {
            return Err(Failed::new(HostMisuse::NoIdentity, self));
        };
        let registers = self.0.target.client.configuration().dynamic_registration;
        let shared = self.serves_others(&identity.redirect_uri, &identity.issuer, registers);
        if let Err(error) = self.own_redirect(shared) {
            return Err(Failed { error, state: self });
        }
        let authentication = match identity.credential {
            None => ClientAuthentication::None,
            Some(Credential::Secret(secret)) => presented(&self.0.metadata, secret),
            Some(Credential::PrivateKey(key)) => {
                // RFC8414-2-9: where the server lists algorithms, the key's is one of them.
                let listed = &self.0.metadata.token_endpoint_auth_signing_alg_values_supported;
                let name = key.algorithm().name();
                if listed.as_ref().is_some_and(|listed| !listed.iter().any(|known| known == name)) {
                    return Err(Failed::new(PeerIncompatible::AssertionAlgorithm, self));
                }
                ClientAuthentication::PrivateKey(key)
            }
        };
        let identity = Identity {
            kind: IdentityKind::PreRegistered,
            client_id: identity.client_id,
            authentication,
            redirect_uri: identity.redirect_uri,
            pinned_scopes: identity.scopes,
            secret_expires: None,
        };
        Ok(Ready::new(*self.0, identity))
    }

    /// Whether other servers answer to that redirect URI as well as `issuer`: those this client `registers` with, those
    /// that read its metadata document, or those where it was registered by hand.
    fn serves_others(&self, redirect_uri: &RedirectUri, issuer: &Issuer, registers: bool) -> bool {
        let configuration = self.0.target.client.configuration();
        let path = redirect_uri.without_query();
        configuration.redirect_uri.without_query() == path
            && (registers || configuration.metadata_url.is_some())
            || configuration
                .pre_registered
                .iter()
                .any(|other| other.issuer != *issuer && other.redirect_uri.without_query() == path)
    }

    /// D29: where no `iss` will tell servers apart, the redirect URI must.
    fn own_redirect(&self, shared: bool) -> Result<(), Error> {
        // OAUTH21-2.3.4-1
        let relaxation = Relaxation::SharedRedirect(self.0.target.listed_issuer.clone());
        let announced = self.0.metadata.authorization_response_iss_parameter_supported;
        if announced || !shared || self.0.target.client.policy().allows(&relaxation) {
            return Ok(());
        }
        Err(PeerIncompatible::SharedRedirect { relaxation }.into())
    }

    /// Goes on as the client of the configured metadata document.
    ///
    /// # Errors
    /// [`Failed`] with this state when there is none, the server does not read such documents, or sends no `iss`: a
    /// document's redirect URI serves every server.
    pub fn metadata_document(self) -> Result<Ready, Failed<Self>> {
        let configuration = self.0.target.client.configuration();
        let url = configuration
            .metadata_url
            .clone()
            .filter(|_| self.0.metadata.client_id_metadata_document_supported);
        let redirect_uri = configuration.redirect_uri.clone();
        let Some(url) = url else {
            return Err(Failed::new(HostMisuse::NoIdentity, self));
        };
        if let Err(error) = self.own_redirect(true) {
            return Err(Failed { error, state: self });
        }
        let identity = Identity {
            kind: IdentityKind::MetadataDocument,
            client_id: url.to_client_id(),
            authentication: ClientAuthentication::None,
            redirect_uri,
            pinned_scopes: None,
            secret_expires: None,
        };
        Ok(Ready::new(*self.0, identity))
    }

    /// Goes on as the client an earlier registration at this issuer made.
    ///
    /// # Errors
    /// [`Failed`] with this state when the record is of another issuer, client or version, its secret has expired, or
    /// its redirect URI serves other servers too and this one no longer sends `iss`: register anew.
    pub fn registered(
        self,
        record: &RegistrationRecord,
        sealer: &dyn Sealer,
        now: OffsetDateTime,
    ) -> Result<Ready, Failed<Self>> {
        // MCP-DISC-003: a registration of another issuer does not open here.
        let identity = match record.open(&self.0.target.client, self.0.issuer.issuer(), sealer) {
            Ok(identity) => identity,
            Err(error) => return Err(Failed { error, state: self }),
        };
        if identity.secret_has_expired(now) {
            return Err(Failed::new(PeerIncompatible::SecretExpired, self));
        }
        // What the server announces today counts, not what it did when it registered this client.
        let shared = self.serves_others(&identity.redirect_uri, self.0.issuer.issuer(), true);
        match self.own_redirect(shared) {
            Ok(()) => Ok(Ready::new(*self.0, identity)),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    /// Registers dynamically.
    ///
    /// # Errors
    /// [`Failed`] with this state when it is switched off, or the server has no registration endpoint.
    pub fn register(self) -> Result<Step<Fetch, AwaitingRegistration>, Failed<Self>> {
        let configuration = self.0.target.client.configuration();
        let endpoint = self.0.metadata.registration_endpoint.clone();
        let Some(endpoint) = endpoint.filter(|_| configuration.dynamic_registration) else {
            return Err(Failed::new(HostMisuse::NoIdentity, self));
        };
        match self.registration(endpoint.as_str()) {
            Ok((fetch, redirect_uri)) => {
                Ok(Step::new(fetch, AwaitingRegistration(Box::new((*self.0, redirect_uri)))))
            }
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn registration(&self, endpoint: &str) -> Result<(Fetch, RedirectUri), Error> {
        let target = &self.0.target;
        let configuration = target.client.configuration();
        let redirect_uri = self.registered_redirect_uri()?;
        let request = RegistrationRequest::new(metadata_of(&configuration.client_name, &redirect_uri))
            .map_err(HostMisuse::Metadata)?;
        let addresses = target.addresses(endpoint, "registration endpoint")?;
        let policy = FetchPolicy::new(addresses, limits::REPLY_BYTES);
        Ok((
            Fetch::post_json(FetchPurpose::Registration, endpoint, request.render(), None, policy),
            redirect_uri,
        ))
    }

    /// The configured redirect URI; for a server that sends no `iss`, with a last segment of its own (D29).
    fn registered_redirect_uri(&self) -> Result<RedirectUri, Error> {
        let configured = &self.0.target.client.configuration().redirect_uri;
        let relaxation = Relaxation::SharedRedirect(self.0.target.listed_issuer.clone());
        if self.0.metadata.authorization_response_iss_parameter_supported
            || self.0.target.client.policy().allows(&relaxation)
        {
            return Ok(configured.clone());
        }
        let digest = SecretDigest::of(self.0.issuer.issuer().as_str().as_bytes());
        let own = base64url::encode(digest.as_bytes().get(..12).unwrap_or_default());
        let base = configured.without_query();
        let base = base.strip_suffix('/').unwrap_or(base);
        let query = configured.query().map_or_else(String::new, |query| format!("?{query}"));
        RedirectUri::new(format!("{base}/{own}{query}")).map_err(|_| HostMisuse::RedirectUri.into())
    }
}

/// The metadata this client registers: public, code and refresh.
fn metadata_of(client_name: &str, redirect_uri: &RedirectUri) -> ClientMetadata {
    ClientMetadata {
        client_name: Some(client_name.into()),
        // MCP-REG-040, MCP-REG-041
        application_type: Some(ApplicationType::of(core::slice::from_ref(redirect_uri))),
        redirect_uris: Vec::from([redirect_uri.clone()]),
        grant_types: Some(["authorization_code", "refresh_token"].map(String::from).into()),
        response_types: Some(["code"].map(String::from).into()),
        token_endpoint_auth_method: Some("none".into()),
        ..ClientMetadata::default()
    }
}

impl super::Client {
    /// The metadata document to publish at the configured URL (MCP client ID metadata documents).
    ///
    /// # Errors
    /// [`HostMisuse::NoIdentity`] when no URL is configured, [`HostMisuse::Metadata`] when the document would not be one.
    pub fn client_metadata_document(&self) -> Result<Vec<u8>, Error> {
        let configuration = self.configuration();
        let url = configuration.metadata_url.as_ref().ok_or(HostMisuse::NoIdentity)?;
        let metadata = metadata_of(&configuration.client_name, &configuration.redirect_uri);
        // MCP-REG-012, MCP-REG-013
        let document =
            ClientMetadataDocument::new(url.to_client_id(), metadata).map_err(HostMisuse::Metadata)?;
        Ok(document.render())
    }
}

/// How a secret is presented: as the server lists, Basic where it lists nothing (D37).
fn presented(metadata: &ServerMetadata, secret: ClientSecret) -> ClientAuthentication {
    // OAUTH21-2.4-1: one way, and only one.
    let basic = metadata.supports_token_endpoint_auth_method("client_secret_basic");
    let post = metadata.supports_token_endpoint_auth_method("client_secret_post");
    if post && !basic { ClientAuthentication::Post(secret) } else { ClientAuthentication::Basic(secret) }
}

/// Waits for the registration endpoint.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingRegistration(Box<(Server, RedirectUri)>);

impl AwaitingRegistration {
    /// What the fetch brought.
    ///
    /// # Errors
    /// [`Failed`] with [`ChoosingIdentity`], from which another identity can be chosen or the registration tried again.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>) -> Result<Ready, Failed<ChoosingIdentity>> {
        let (server, redirect_uri) = *self.0;
        match judge(&server, &redirect_uri, fetched) {
            Ok(identity) => Ok(Ready::new(server, identity)),
            // MCP-REG-043
            Err(error) => Err(Failed { error, state: ChoosingIdentity(Box::new(server)) }),
        }
    }
}

fn judge(
    server: &Server,
    redirect_uri: &RedirectUri,
    fetched: Result<Reply, FetchFailure>,
) -> Result<Identity, Error> {
    let reply = fetched.map_err(OutsideFailed::from)?;
    if reply.status() >= 500 || reply.status() == 429 {
        return Err(
            OutsideFailed::Unavailable { status: reply.status(), retry_after: reply.retry_after() }.into()
        );
    }
    let reply =
        RegistrationReply::parse(reply.status(), reply.body()).map_err(malformed("registration response"))?;
    let response = match reply {
        RegistrationReply::Registered(response) => *response,
        RegistrationReply::Error(error) => {
            return Err(PeerIncompatible::RegistrationRefused(KnownCode::of(error.code.as_str())).into());
        }
    };
    // MCP-SEC-015: a server that returns the registered URIs returns the one this client uses.
    let RegistrationResponse { client_id, client_secret, metadata, .. } = response;
    let listed = &metadata.redirect_uris;
    let lists_any = !listed.is_empty() || !metadata.other_redirect_uris.is_empty();
    if lists_any && !listed.contains(redirect_uri) {
        return Err(PeerMisbehaved::RegisteredRedirectUri.into());
    }
    let secret_expires = match client_secret.as_ref().map(|issued| issued.expires_at) {
        None | Some(0) => None,
        Some(at) => i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
    };
    let secret = client_secret.map(|issued| issued.secret);
    let contradiction = || Error::from(PeerMisbehaved::RegisteredCredential);
    // The method is what the server registered; absent, what was asked for: none, unless a secret came along.
    let authentication = match (metadata.token_endpoint_auth_method.as_deref(), secret) {
        (Some("none") | None, None) => ClientAuthentication::None,
        (Some("client_secret_basic"), Some(secret)) => ClientAuthentication::Basic(secret),
        (Some("client_secret_post"), Some(secret)) => ClientAuthentication::Post(secret),
        (None, Some(secret)) => presented(&server.metadata, secret),
        // A public client that was given a secret all the same keeps to what it registered.
        (Some("none"), Some(_)) => ClientAuthentication::None,
        _ => return Err(contradiction()),
    };
    Ok(Identity {
        kind: IdentityKind::Registered,
        client_id,
        authentication,
        redirect_uri: redirect_uri.clone(),
        pinned_scopes: None,
        secret_expires,
    })
}
