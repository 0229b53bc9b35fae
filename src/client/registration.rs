//! Who the client is at an authorization server: registered by hand, by its metadata document, or dynamically
//! (RFC 7591, client ID metadata document draft, MCP client registration; priority in that order).
//!
//! An identity is bound to the issuer it was made for and never leaves for another.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::authorization::Ready;
use super::client_metadata::{metadata_of, proposed};
use super::discovery::Target;
use super::record::RegistrationRecord;
use super::redirect::CallbackPaths;
use super::{Credential, PreRegistered};
use crate::error::{
    Error, HostMisuse, KnownCode, OutsideFailed, PeerIncompatible, PeerMisbehaved, Remedy, malformed,
};
use crate::evidence::IssuerMatched;
use crate::identifier::{ClientId, RedirectUri, ScopeSet};
use crate::jose::SigningKeyId;
use crate::limits;
use crate::message::client_metadata::{
    ApplicationType, RegistrationReply, RegistrationRequest, RegistrationResponse,
};
use crate::message::exchange::{Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::message::server_metadata::ServerMetadata;
use crate::sealer::Sealer;
use crate::secret::ClientSecret;
use crate::step::{Failed, Step};
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
    /// Whether the secret has ended; an identity without one never ends by itself.
    pub(crate) fn is_expired(&self, now: OffsetDateTime) -> bool {
        // RFC7591-3.2.1-4
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
        // D36: the one for this resource, before one that only the host's word lets in.
        let ours = |it: &&PreRegistered| it.resources.contains(self.0.target.resource.resource());
        let identities = || by_hand(&self.0.target, &self.0.issuer);
        identities().find(ours).or_else(|| identities().next()).cloned()
    }

    /// Goes on as the client that was registered by hand at this issuer.
    ///
    /// # Errors
    /// [`Failed`] with this state when there is none.
    pub fn pre_registered(self) -> Result<Ready, Failed<Self>> {
        // MCP-REG-030, MCP-AUTH-013
        let Some(identity) = self.pre_registered_identity() else {
            return Err(Failed::new(HostMisuse::NoIdentity, self));
        };
        let redirect_uri = match self.0.redirect_by_hand(&identity.redirect_uri, &identity.issuer) {
            Ok(redirect_uri) => redirect_uri,
            Err(error) => return Err(Failed { error, state: self }),
        };
        let authentication = match authentication_of(&self.0.metadata, identity.credential) {
            Ok(authentication) => authentication,
            Err(error) => return Err(Failed { error, state: self }),
        };
        let identity = Identity {
            kind: IdentityKind::PreRegistered,
            client_id: identity.client_id,
            authentication,
            redirect_uri,
            pinned_scopes: identity.scopes,
            secret_expires: None,
        };
        Ok(Ready::new(*self.0, identity))
    }

    /// Goes on as the client of the configured metadata document.
    ///
    /// # Errors
    /// [`Failed`] with this state when there is none, the server does not read such documents, or sends no `iss`: then
    /// the answer must come on a path that no other server's does ([`ChoosingIdentity::metadata_document_among`]).
    pub fn metadata_document(self) -> Result<Ready, Failed<Self>> {
        self.by_document(None)
    }

    /// The same for a host that keeps registrations: an authorization server that sends no `iss` gets one of the
    /// document's callback paths for itself, the one it had or one that is not `taken`. Keep the
    /// [`Ready::registration_record`] before the person is asked, so that no other server gets that path.
    ///
    /// # Errors
    /// As there; and with [`PeerIncompatible::SharedRedirect`] when every path is taken.
    pub fn metadata_document_among(self, taken: &CallbackPaths) -> Result<Ready, Failed<Self>> {
        self.by_document(Some(taken))
    }

    fn by_document(self, taken: Option<&CallbackPaths>) -> Result<Ready, Failed<Self>> {
        match self.document_identity(taken) {
            Ok(identity) => Ok(Ready::new(*self.0, identity)),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn document_identity(&self, taken: Option<&CallbackPaths>) -> Result<Identity, Error> {
        let configuration = self.0.target.client.configuration();
        // MCP-AUTH-006, MCP-REG-054: the same at every server that reads such documents.
        let reads = self.0.metadata.client_id_metadata_document_supported;
        let client_id = proposed(configuration)?.filter(|_| reads).ok_or(HostMisuse::NoIdentity)?;
        // CIMD-6.2-1: what the document announces is what every request does.
        let authentication = match &configuration.document_key {
            None => ClientAuthentication::None,
            Some((key, _)) => keyed(&self.0.metadata, key.clone())?,
        };
        Ok(Identity {
            kind: IdentityKind::MetadataDocument,
            client_id,
            authentication,
            redirect_uri: self.0.redirect_of_document(taken)?,
            pinned_scopes: None,
            secret_expires: None,
        })
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
        match self.recorded(record, sealer, now) {
            Ok(identity) => Ok(Ready::new(*self.0, identity)),
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn recorded(
        &self,
        record: &RegistrationRecord,
        sealer: &dyn Sealer,
        now: OffsetDateTime,
    ) -> Result<Identity, Error> {
        // MCP-DISC-003: a registration of another issuer does not open here.
        let identity = record.open(&self.0.target.client, self.0.issuer.issuer(), sealer)?;
        if identity.kind != IdentityKind::Registered {
            return Err(HostMisuse::ForeignRecord.into());
        }
        // RFC7591-3.2.1-4
        if identity.is_expired(now) {
            return Err(PeerIncompatible::SecretExpired.into());
        }
        let redirect_uri = self.0.redirect_of_registration(&identity.redirect_uri)?;
        Ok(Identity { redirect_uri, ..identity })
    }

    /// Registers dynamically, as the type of application that the redirect URI makes it.
    ///
    /// # Errors
    /// [`Failed`] with this state when it is switched off, or the server has no registration endpoint.
    pub fn register(self) -> Result<Step<Fetch, AwaitingRegistration>, Failed<Self>> {
        self.registering(None)
    }

    /// Registers once more, as another type of application: what
    /// [`Remedy::RegisterAs`](crate::error::Remedy::RegisterAs) says.
    ///
    /// # Errors
    /// As [`ChoosingIdentity::register`].
    pub fn register_as(
        self,
        application_type: ApplicationType,
    ) -> Result<Step<Fetch, AwaitingRegistration>, Failed<Self>> {
        // MCP-REG-045
        self.registering(Some(application_type))
    }

    fn registering(
        self,
        application_type: Option<ApplicationType>,
    ) -> Result<Step<Fetch, AwaitingRegistration>, Failed<Self>> {
        match self.registration(application_type) {
            Ok((fetch, asked)) => {
                Ok(Step::new(fetch, AwaitingRegistration(Box::new(Registering { server: *self.0, asked }))))
            }
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn registration(&self, application_type: Option<ApplicationType>) -> Result<(Fetch, Asked), Error> {
        let target = &self.0.target;
        let configuration = target.client.configuration();
        // MCP-AUTH-008, MCP-REG-003: only where the metadata has the endpoint.
        let endpoint = self.0.metadata.registration_endpoint.as_ref();
        let endpoint =
            endpoint.filter(|_| configuration.dynamic_registration).ok_or(HostMisuse::NoIdentity)?;
        let redirect_uri = self.0.redirect_to_register()?;
        let mut metadata = metadata_of(configuration, self.0.registered_forms(&redirect_uri));
        let another_type = match application_type {
            Some(_) => None,
            None => metadata.application_type.map(other),
        };
        metadata.application_type = application_type.or(metadata.application_type);
        let request = RegistrationRequest::new(metadata).map_err(HostMisuse::Metadata)?;
        let addresses = target.addresses(endpoint.as_str(), "registration endpoint")?;
        let policy = FetchPolicy::new(addresses, limits::REPLY_BYTES);
        // RFC7591-3-2
        let fetch =
            Fetch::post_json(FetchPurpose::Registration, endpoint.as_str(), request.render(), None, policy);
        let fetch = fetch.within(target.networks());
        Ok((fetch, Asked { redirect_uri, another_type }))
    }
}

/// The identities that were registered by hand at this issuer and may be used for this resource: those that are for it,
/// and at the host's word the others, too (D36).
pub(super) fn by_hand<'c>(
    target: &'c Target,
    issuer: &'c IssuerMatched,
) -> impl Iterator<Item = &'c PreRegistered> {
    let resource = target.resource.resource();
    target.client.configuration().pre_registered.iter().filter(move |identity| {
        let here = identity.issuer == *issuer.issuer() || identity.issuer == target.listed_issuer;
        here && (target.asserted || identity.resources.contains(resource))
    })
}

fn other(application_type: ApplicationType) -> ApplicationType {
    match application_type {
        ApplicationType::Native => ApplicationType::Web,
        ApplicationType::Web => ApplicationType::Native,
    }
}

/// How a client that was registered by hand authenticates at this server.
pub(super) fn authentication_of(
    metadata: &ServerMetadata,
    credential: Option<Credential>,
) -> Result<ClientAuthentication, Error> {
    match credential {
        None => Ok(ClientAuthentication::None),
        Some(Credential::Secret(secret)) => Ok(presented(metadata, secret)),
        Some(Credential::PrivateKey(key)) => keyed(metadata, key),
    }
}

/// The key of a client that signs assertions, where the server takes them.
fn keyed(metadata: &ServerMetadata, key: SigningKeyId) -> Result<ClientAuthentication, Error> {
    // RFC8414-2-9: where the server lists algorithms, the key's is one of them.
    let listed = &metadata.token_endpoint_auth_signing_alg_values_supported;
    let name = key.algorithm().name();
    if listed.as_ref().is_some_and(|listed| !listed.iter().any(|known| known == name)) {
        return Err(PeerIncompatible::AssertionAlgorithm.into());
    }
    Ok(ClientAuthentication::PrivateKey(key))
}

/// How a secret is presented: as the server lists, Basic where it lists nothing (D37).
fn presented(metadata: &ServerMetadata, secret: ClientSecret) -> ClientAuthentication {
    // OAUTH21-2.4-1: one way, and only one.
    let basic = metadata.supports_token_endpoint_auth_method("client_secret_basic");
    let post = metadata.supports_token_endpoint_auth_method("client_secret_post");
    if post && !basic { ClientAuthentication::Post(secret) } else { ClientAuthentication::Basic(secret) }
}

/// What was asked of the registration endpoint.
#[derive(Debug)]
struct Asked {
    redirect_uri: RedirectUri,
    /// The type to try next, unless this was it.
    another_type: Option<ApplicationType>,
}

#[derive(Debug)]
struct Registering {
    server: Server,
    asked: Asked,
}

/// Waits for the registration endpoint.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingRegistration(Box<Registering>);

impl AwaitingRegistration {
    /// What the fetch brought.
    ///
    /// # Errors
    /// [`Failed`] with [`ChoosingIdentity`], from which another identity can be chosen or the registration tried again.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>) -> Result<Ready, Failed<ChoosingIdentity>> {
        let Registering { server, asked } = *self.0;
        match judge(&server, &asked, fetched) {
            // MCP-AUTH-013
            Ok(identity) => Ok(Ready::new(server, identity)),
            // MCP-REG-043
            Err(error) => Err(Failed { error, state: ChoosingIdentity(Box::new(server)) }),
        }
    }
}

/// A refusal, and what may be tried next.
fn refused(server: &Server, asked: &Asked, code: &str) -> Error {
    let code = KnownCode::of(code);
    // MCP-REG-043, MCP-REG-045
    let remedy = match code.as_str() {
        "invalid_redirect_uri" => match server.loopback_name(&asked.redirect_uri) {
            Some(relaxation) => Remedy::Relax(relaxation),
            None => Remedy::ConfigureIdentity,
        },
        "invalid_client_metadata" => asked.another_type.map_or(Remedy::ConfigureIdentity, Remedy::RegisterAs),
        _ => Remedy::ConfigureIdentity,
    };
    PeerIncompatible::RegistrationRefused { code, remedy: Box::new(remedy) }.into()
}

fn judge(server: &Server, asked: &Asked, fetched: Result<Reply, FetchFailure>) -> Result<Identity, Error> {
    let redirect_uri = &asked.redirect_uri;
    let reply = fetched.map_err(OutsideFailed::from)?;
    if reply.status() >= 500 || reply.status() == 429 {
        return Err(
            OutsideFailed::Unavailable { status: reply.status(), retry_after: reply.retry_after() }.into()
        );
    }
    let parsed = RegistrationReply::parse(reply.status(), reply.body());
    let response = match parsed {
        Ok(RegistrationReply::Registered(response)) => *response,
        Ok(RegistrationReply::Error(error)) => return Err(refused(server, asked, error.code.as_str())),
        // A refusal in other words than those of RFC 7591: what a closed endpoint answers.
        Err(_) if (400..500).contains(&reply.status()) => return Err(refused(server, asked, "")),
        Err(fault) => return Err(malformed("registration response")(fault)),
    };
    // MCP-SEC-015: a server that returns the registered URIs returns the one this client uses.
    let RegistrationResponse { client_id, client_secret, metadata, .. } = response;
    let (listed, others) = (&metadata.redirect_uris, &metadata.other_redirect_uris);
    let lists_any = !listed.is_empty() || !others.is_empty();
    let lists_ours = listed.contains(redirect_uri) || others.iter().any(|uri| uri == redirect_uri.as_str());
    // RFC7591-3.2.1-3
    if lists_any && !lists_ours {
        return Err(PeerMisbehaved::RegisteredRedirectUri.into());
    }
    let secret_expires = match client_secret.as_ref().map(|issued| issued.expires_at) {
        None | Some(0) => None,
        Some(at) => i64::try_from(at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
    };
    let secret = client_secret.map(|issued| issued.secret);
    let contradiction = || Error::from(PeerMisbehaved::RegisteredCredential);
    // RFC7591-3.2.1-3: the method is what the server registered; absent, what was asked for: none, unless a secret came along.
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
