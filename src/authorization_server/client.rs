//! Finding out who a client is: a stored record, or its client ID metadata document (draft-01 sections 3 to 6, MCP
//! client registration).

use alloc::string::String;
use alloc::vec::Vec;

use super::AuthorizationServer;
use super::record::{ClientCredential, ClientOrigin, ClientRecord};
use super::refusal::RefusalReason;
use crate::identifier::{ClientMetadataUrl, RedirectUri, address};
use crate::limits;
use crate::message::client_metadata::ClientMetadataDocument;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::time::OffsetDateTime;

impl AuthorizationServer {
    /// The fetch of a client metadata document, if this server reads them and the URL may be fetched.
    pub(crate) fn fetch_metadata_document(&self, url: &ClientMetadataUrl) -> Result<Fetch, RefusalReason> {
        if !self.reads_metadata_documents() {
            return Err(RefusalReason::UnknownClient);
        }
        // MCP-SEC-025
        if self.document_hosts().is_some_and(|hosts| !hosts.contains(url.host())) {
            return Err(RefusalReason::UntrustedDocument);
        }
        let addresses =
            address_policy(self, url.host(), url.is_loopback()).ok_or(RefusalReason::MetadataDocument)?;
        // MCP-SEC-021, CIMD-4-3, CIMD-6.6-1: purpose and policy say that a stranger chose the URL; the policy of a fetch follows no redirect and reads 5 KB.
        let policy = FetchPolicy::new(addresses, limits::CLIENT_METADATA_DOCUMENT_BYTES);
        Ok(Fetch::get(FetchPurpose::ClientMetadataDocument, url.as_str(), policy))
    }
}

/// Where a fetch of a URL that a client chose may connect to; `None` for nowhere.
pub(crate) fn address_policy(
    server: &AuthorizationServer,
    host: &str,
    is_loopback: bool,
) -> Option<AddressPolicy> {
    // CIMD-6.5-2: no special-use address, but for a loopback server that talks to itself.
    if is_loopback {
        return server.issuer().is_loopback().then_some(AddressPolicy::Loopback);
    }
    let is_special = address::literal(host).is_some_and(|literal| !address::is_public(literal));
    (!is_special).then_some(AddressPolicy::Public)
}

/// The client of a fetched document.
pub(crate) fn client_of_document(
    url: &ClientMetadataUrl,
    fetched: Result<Reply, FetchFailure>,
    now: OffsetDateTime,
) -> Result<ClientRecord, RefusalReason> {
    const UNUSABLE: RefusalReason = RefusalReason::MetadataDocument;
    let reply = fetched.map_err(|failure| match failure {
        FetchFailure::NotSent => RefusalReason::Unavailable,
        _ => UNUSABLE,
    })?;
    // CIMD-4-2, CIMD-4.1-5: 200 and nothing else, JSON of any name.
    if reply.status() != 200 || !reply.is_json() {
        return Err(UNUSABLE);
    }
    // MCP-REG-024, CIMD-4.1-4, CIMD-4.4-3: what does not parse is not kept, and nothing was stored yet.
    let document = ClientMetadataDocument::parse(reply.body()).map_err(|_| UNUSABLE)?;
    // MCP-REG-021, CIMD-4.1-2: the document names the very URL it was fetched from (I-P1).
    if document.client_id().as_str().as_bytes() != url.as_str().as_bytes() {
        return Err(UNUSABLE);
    }
    let metadata = document.metadata().clone();
    // A document cannot hold a secret: a client of one is public, or signs with a key that the document names.
    let credential = match metadata.token_endpoint_auth_method.as_deref() {
        None | Some("none") => ClientCredential::None,
        // CIMD-6.2-2: who announces private_key_jwt is never let in without it; the document has keys, or did not parse.
        Some("private_key_jwt") => ClientCredential::PrivateKey,
        Some(_) => return Err(UNUSABLE),
    };
    if metadata.redirect_uris.is_empty() {
        return Err(UNUSABLE);
    }
    Ok(ClientRecord {
        client_id: url.to_client_id(),
        origin: ClientOrigin::MetadataDocument,
        credential,
        metadata,
        created: now,
        management: None,
        gone_since: None,
        configured: false,
        initial_access: false,
    })
}

/// The name a person is shown, and whether it is more than the client's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientShown {
    /// The self-asserted name; a peer's text, to be escaped by the page.
    pub name: Option<String>,
    /// What identifies it: the host of its metadata document, or its identifier.
    pub identity: String,
    /// Whether the operator wrote the registration. Every other name is unverified (RFC 7591 section 5).
    pub verified: bool,
}

impl ClientRecord {
    /// What to show of it.
    pub fn shown(&self) -> ClientShown {
        // CIMD-6.4-1
        let identity = match self.origin {
            ClientOrigin::MetadataDocument => ClientMetadataUrl::new(self.client_id.as_str())
                .map_or_else(|_| String::new(), |url| url.host().into()),
            ClientOrigin::Registered | ClientOrigin::PreRegistered => self.client_id.as_str().into(),
        };
        ClientShown {
            name: self.metadata.client_name.clone(),
            identity,
            // RFC7591-5-2
            verified: self.origin == ClientOrigin::PreRegistered,
        }
    }

    /// A client the operator writes down.
    ///
    /// `None` without a redirect URI (such a client could not use any grant of this server), with one of a private
    /// scheme, and for an identifier that is a URL: those belong to metadata documents.
    pub fn pre_registered(
        client_id: crate::identifier::ClientId,
        metadata: crate::message::client_metadata::ClientMetadata,
        credential: ClientCredential,
        now: OffsetDateTime,
    ) -> Option<Self> {
        // OAUTH21-2-1, MCP-SEC-008
        let uris = &metadata.redirect_uris;
        let has_keys = metadata.jwks.is_some() || metadata.jwks_uri.is_some();
        let usable = !uris.is_empty()
            && uris.iter().all(|uri| RedirectUri::new(uri.as_str()).is_ok())
            && (has_keys || credential != ClientCredential::PrivateKey);
        (usable && !client_id.looks_like_url()).then_some(Self {
            client_id,
            origin: ClientOrigin::PreRegistered,
            credential,
            metadata,
            created: now,
            management: None,
            gone_since: None,
            configured: false,
            initial_access: false,
        })
    }

    /// A resource server that introspects: it proves who it is and may use no grant.
    ///
    /// `None` for a credential that proves nothing, and for an identifier that is a URL.
    pub fn resource_server(
        client_id: crate::identifier::ClientId,
        credential: ClientCredential,
        now: OffsetDateTime,
    ) -> Option<Self> {
        let metadata = crate::message::client_metadata::ClientMetadata {
            grant_types: Some(Vec::new()),
            response_types: Some(Vec::new()),
            ..Default::default()
        };
        // A key needs metadata that says which.
        let proves = matches!(credential, ClientCredential::Secret { .. });
        (proves && !client_id.looks_like_url()).then_some(Self {
            client_id,
            origin: ClientOrigin::PreRegistered,
            credential,
            metadata,
            created: now,
            management: None,
            gone_since: None,
            configured: false,
            initial_access: false,
        })
    }

    /// The same client, as one that stands in the operator's configuration.
    #[must_use]
    pub fn configured(self) -> Self {
        Self { configured: true, ..self }
    }

    /// Whether the operator let it in: wrote it down, or gave out the initial access token that it registered with.
    pub fn is_of_operator(&self) -> bool {
        match self.origin {
            ClientOrigin::PreRegistered => true,
            ClientOrigin::Registered => self.initial_access,
            ClientOrigin::MetadataDocument => false,
        }
    }

    pub(crate) fn redirect_uris(&self) -> &Vec<RedirectUri> {
        &self.metadata.redirect_uris
    }
}
