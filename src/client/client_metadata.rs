//! What this client says about itself: in a registration, and in the document that it publishes (RFC 7591 section 2,
//! client ID metadata document draft section 4).

use alloc::string::String;
use alloc::vec::Vec;

use super::{Client, Configuration, DocumentKeys};
use crate::error::{Error, HostMisuse};
use crate::identifier::{ClientId, RedirectUri};
use crate::limits;
use crate::message::Malformed;
use crate::message::client_metadata::{ApplicationType, ClientMetadata, ClientMetadataDocument};
use crate::message::exchange::Reply;
use crate::syntax::json::{JsonObject, JsonValue};

/// The metadata of every identity: code and refresh, public unless a document says otherwise.
pub(super) fn metadata_of(configuration: &Configuration, redirect_uris: Vec<RedirectUri>) -> ClientMetadata {
    ClientMetadata {
        // RFC7591-2-9
        client_name: Some(configuration.client_name.clone()),
        client_uri: configuration.client_uri.clone(),
        // MCP-REG-040, MCP-REG-041
        application_type: Some(ApplicationType::of(&redirect_uris)),
        redirect_uris,
        // MCP-AUTH-081
        grant_types: Some(["authorization_code", "refresh_token"].map(String::from).into()),
        response_types: Some(["code"].map(String::from).into()),
        token_endpoint_auth_method: Some("none".into()),
        ..ClientMetadata::default()
    }
}

impl Client {
    /// The metadata document to publish at the configured URL (MCP client ID metadata documents).
    ///
    /// Its redirect URIs are a fixed set: the configured one, and further paths below it, of which each authorization
    /// server that sends no `iss` gets one for itself (D29).
    ///
    /// # Errors
    /// [`HostMisuse::NoIdentity`] when no URL is configured, [`HostMisuse::Metadata`] when the document would not be one.
    pub fn client_metadata_document(&self) -> Result<Vec<u8>, Error> {
        let bytes = self.document()?.render();
        // MCP-REG-024, CIMD-6.6-1: servers read no more than this of it.
        ClientMetadataDocument::parse(&bytes).map_err(HostMisuse::Metadata)?;
        Ok(bytes)
    }

    fn document(&self) -> Result<ClientMetadataDocument, Error> {
        let configuration = self.configuration();
        let client_id = proposed(configuration)?.ok_or(HostMisuse::NoIdentity)?;
        let mut metadata = metadata_of(configuration, self.document_redirect_uris());
        if let Some((key, keys)) = &configuration.document_key {
            // MCP-REG-014, CIMD-6.2-1
            metadata.token_endpoint_auth_method = Some("private_key_jwt".into());
            metadata.token_endpoint_auth_signing_alg = Some(key.algorithm().name().into());
            match keys {
                DocumentKeys::Inline(jwks) if !has_key(jwks, Some(key.kid())) => {
                    return Err(HostMisuse::Metadata(Malformed::Invalid("jwks")).into());
                }
                DocumentKeys::Inline(jwks) => metadata.jwks = Some(jwks.clone()),
                DocumentKeys::At(uri) => metadata.jwks_uri = Some(uri.clone()),
            }
        }
        // MCP-REG-012, MCP-REG-013
        let document = ClientMetadataDocument::new(client_id, metadata).map_err(HostMisuse::Metadata)?;
        Ok(document)
    }

    /// Checks what is published at the configured URL, as an authorization server would fetch it: the very document that
    /// this client needs, in names of its own or not.
    ///
    /// For a host, before it relies on the URL; `published` is what a GET without redirects brought.
    ///
    /// # Errors
    /// [`HostMisuse::Published`] says what an authorization server would not take, or this client could not use;
    /// [`HostMisuse::NoIdentity`] when no URL is configured.
    pub fn check_published_document(&self, published: &Reply) -> Result<(), Error> {
        let ours = self.document()?;
        let wrong = |fault| Error::from(HostMisuse::Published(fault));
        let invalid = |member| wrong(Malformed::Invalid(member));
        // MCP-REG-013, D27: 200 alone, as JSON, at the URL itself.
        if published.status() != 200 {
            return Err(invalid("status"));
        }
        if !published.is_json() {
            return Err(invalid("content-type"));
        }
        // MCP-REG-012, MCP-REG-024, CIMD-4.1-4, CIMD-6.6-1
        let theirs = ClientMetadataDocument::parse(published.body()).map_err(wrong)?;
        if theirs.client_id() != ours.client_id() {
            return Err(invalid("client_id"));
        }
        let (needed, given) = (ours.metadata(), theirs.metadata());
        let lists = |uri: &RedirectUri| {
            given.redirect_uris.contains(uri)
                || given.other_redirect_uris.iter().any(|other| other == uri.as_str())
        };
        if !needed.redirect_uris.iter().all(lists) {
            return Err(invalid("redirect_uris"));
        }
        // MCP-AUTH-081
        let grants = ["authorization_code", "refresh_token"];
        if !grants.iter().all(|grant| given.uses_grant_type(grant)) {
            return Err(invalid("grant_types"));
        }
        if !given.uses_response_type("code") {
            return Err(invalid("response_types"));
        }
        // CIMD-6.2-1: an absent method is `none` in a document.
        let method = given.token_endpoint_auth_method.as_deref().unwrap_or("none");
        if Some(method) != needed.token_endpoint_auth_method.as_deref() {
            return Err(invalid("token_endpoint_auth_method"));
        }
        if given.jwks_uri != needed.jwks_uri {
            return Err(invalid("jwks_uri"));
        }
        let key = self.configuration().document_key.as_ref().map(|(key, _)| key.kid());
        if needed.jwks.is_some() && !given.jwks.as_ref().is_some_and(|jwks| has_key(jwks, key)) {
            return Err(invalid("jwks"));
        }
        Ok(())
    }
}

/// The identifier that this client is known by where servers read its document.
pub(super) fn proposed(configuration: &Configuration) -> Result<Option<ClientId>, Error> {
    let Some(url) = &configuration.metadata_url else { return Ok(None) };
    // CIMD-3-3: with a query it would be another client for each. CIMD-3-4: short, as every identifier.
    if url.as_str().contains('?') || url.as_str().len() > limits::CLIENT_METADATA_URL_BYTES {
        return Err(HostMisuse::Metadata(Malformed::Invalid("client_id")).into());
    }
    Ok(Some(url.to_client_id()))
}

/// Whether a key set has the key of that name.
fn has_key(jwks: &JsonObject, kid: Option<&str>) -> bool {
    let Some(JsonValue::Array(keys)) = jwks.get("keys") else { return false };
    kid.is_some_and(|kid| {
        keys.iter().any(|key| matches!(key, JsonValue::Object(key) if key.string("kid") == Ok(Some(kid))))
    })
}
