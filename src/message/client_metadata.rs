//! What a client says about itself: client metadata (RFC 7591 section 2), the registration messages that carry it
//! (section 3), and the client ID metadata document (draft-ietf-oauth-client-id-metadata-document-01 section 4).
//!
//! ```text
//! ClientMetadata ─┬─ RegistrationRequest ──▶ RegistrationReply (RegistrationResponse | RegistrationError)
//!                 └─ ClientMetadataDocument
//! ```
//!
//! All of it is self-asserted (RFC 7591 section 5). Which redirect URIs, methods and scopes a server grants is its
//! policy, not this module's.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::{ClientId, Endpoint, RedirectUri, ScopeSet};
use crate::limits;
use crate::secret::{ClientSecret, RegistrationToken};
use crate::syntax::json::{JsonObject, JsonValue};

use super::error_code::{ErrorDetail, RegistrationErrorCode};
use super::read::{Document, Members};
use super::{Malformed, PageUri};

/// Whether a client runs on a person's device or on a server (OpenID Connect registration section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApplicationType {
    /// On a device, with loopback or private-scheme redirect URIs.
    Native,
    /// On a server, with https redirect URIs.
    Web,
}

impl ApplicationType {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Web => "web",
        }
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        match text {
            "native" => Ok(Self::Native),
            "web" => Ok(Self::Web),
            _ => Err(Malformed::Invalid("application_type")),
        }
    }

    /// The type that fits redirect URIs: native as soon as one is on loopback or has a private scheme.
    pub fn of(redirect_uris: &[RedirectUri]) -> Self {
        // MCP-REG-041, MCP-REG-042
        let web = redirect_uris
            .iter()
            .all(|uri| uri.as_str().get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")));
        if web { Self::Web } else { Self::Native }
    }
}

/// Client metadata; members that are not here are ignored when read (RFC 7591 section 2).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientMetadata {
    /// Redirect URIs that are https or http on loopback, in the client's order.
    pub redirect_uris: Vec<RedirectUri>,
    /// Listed redirect URIs that are neither, such as private schemes. Kept so that a policy which names one exactly
    /// can take it, and never rendered.
    pub other_redirect_uris: Vec<String>,
    /// The name, for a person.
    pub client_name: Option<String>,
    /// The home page.
    pub client_uri: Option<PageUri>,
    /// The logo.
    pub logo_uri: Option<PageUri>,
    /// Terms of service.
    pub tos_uri: Option<PageUri>,
    /// Policy on the use of data.
    pub policy_uri: Option<PageUri>,
    /// People responsible, commonly as mail addresses.
    pub contacts: Vec<String>,
    /// Grant types; see [`ClientMetadata::uses_grant_type`] for what absence means.
    pub grant_types: Option<Vec<String>>,
    /// Response types; absent means `code`.
    pub response_types: Option<Vec<String>>,
    /// How it authenticates at the token endpoint; absent means `client_secret_basic` in a registration.
    pub token_endpoint_auth_method: Option<String>,
    /// The algorithm of its client assertions.
    pub token_endpoint_auth_signing_alg: Option<String>,
    /// The scope it may ask for.
    pub scope: Option<ScopeSet>,
    /// Where it runs.
    pub application_type: Option<ApplicationType>,
    /// Its public keys by reference; never together with `jwks`.
    pub jwks_uri: Option<Endpoint>,
    /// Its public keys; private and symmetric ones are refused.
    pub jwks: Option<JsonObject>,
    /// The software, the same for all its instances.
    pub software_id: Option<String>,
    /// The version of the software.
    pub software_version: Option<String>,
}

impl ClientMetadata {
    /// Whether the client says that it uses this grant type; absence of the list means `authorization_code`.
    pub fn uses_grant_type(&self, grant_type: &str) -> bool {
        // RFC7591-2-7
        match &self.grant_types {
            Some(listed) => listed.iter().any(|listed| listed == grant_type),
            None => grant_type == "authorization_code",
        }
    }

    /// Whether the client says that it uses this response type; absence of the list means `code`.
    pub fn uses_response_type(&self, response_type: &str) -> bool {
        // RFC7591-2-7
        match &self.response_types {
            Some(listed) => listed.iter().any(|listed| listed == response_type),
            None => response_type == "code",
        }
    }

    /// The metadata alone, as JSON: what a server keeps of a client.
    pub fn render(&self) -> Vec<u8> {
        self.write(Document::new()).finish()
    }

    /// Reads what [`ClientMetadata::render`] wrote.
    ///
    /// # Errors
    /// [`Malformed`], whose `member()` is the one at fault.
    pub fn parse(json: &[u8]) -> Result<Self, Malformed> {
        Self::read(&Members::of(&JsonObject::parse(json, limits::DOCUMENT_BYTES)?))
    }

    fn read(members: &Members<'_>) -> Result<Self, Malformed> {
        let mut redirect_uris = Vec::new();
        let mut other_redirect_uris = Vec::new();
        for text in members
            .typed_list("redirect_uris", limits::REDIRECT_URIS, Ok::<_, Malformed>)?
            .unwrap_or_default()
        {
            if text.is_empty() || text.len() > limits::URL_BYTES {
                return Err(Malformed::Invalid("redirect_uris"));
            }
            // D9: one that cannot be accepted does not spoil the others
            match RedirectUri::new(text.as_str()) {
                Ok(uri) => redirect_uris.push(uri),
                Err(_) => other_redirect_uris.push(text),
            }
        }
        let metadata = Self {
            redirect_uris,
            other_redirect_uris,
            client_name: members.display_text("client_name", limits::CLIENT_NAME_BYTES)?,
            client_uri: members.page("client_uri")?,
            logo_uri: members.page("logo_uri")?,
            tos_uri: members.page("tos_uri")?,
            policy_uri: members.page("policy_uri")?,
            contacts: members.texts("contacts")?.unwrap_or_default(),
            grant_types: members.texts("grant_types")?,
            response_types: members.texts("response_types")?,
            token_endpoint_auth_method: members
                .display_text("token_endpoint_auth_method", limits::URL_BYTES)?,
            token_endpoint_auth_signing_alg: members
                .display_text("token_endpoint_auth_signing_alg", limits::URL_BYTES)?,
            scope: members.scope("scope")?,
            application_type: members.typed("application_type", |text| ApplicationType::parse(&text))?,
            jwks_uri: members.endpoint("jwks_uri")?,
            jwks: members.object("jwks")?,
            software_id: members.display_text("software_id", limits::URL_BYTES)?,
            software_version: members.display_text("software_version", limits::URL_BYTES)?,
        };
        metadata.check()?;
        Ok(metadata)
    }

    /// The rules between members, the same for every message that carries them.
    fn check(&self) -> Result<(), Malformed> {
        // RFC7591-2-3, RFC7591-2-4
        if self.jwks.is_some() && self.jwks_uri.is_some() {
            return Err(Malformed::Conflict("jwks", "jwks_uri"));
        }
        // RFC8414-2-11: an assertion without a signature is none
        if self.token_endpoint_auth_signing_alg.as_deref() == Some("none") {
            return Err(Malformed::Invalid("token_endpoint_auth_signing_alg"));
        }
        if self.jwks.as_ref().is_some_and(holds_secret_key) {
            // OIDCR-2-3
            return Err(Malformed::Invalid("jwks"));
        }
        Ok(())
    }

    fn write(&self, document: Document) -> Document {
        document
            .texts("redirect_uris", self.redirect_uris.iter().map(RedirectUri::as_str))
            .text("client_name", self.client_name.as_deref())
            .page("client_uri", self.client_uri.as_ref())
            .page("logo_uri", self.logo_uri.as_ref())
            .page("tos_uri", self.tos_uri.as_ref())
            .page("policy_uri", self.policy_uri.as_ref())
            .texts("contacts", self.contacts.iter().map(String::as_str))
            .list("grant_types", self.grant_types.as_deref())
            .list("response_types", self.response_types.as_deref())
            .text("token_endpoint_auth_method", self.token_endpoint_auth_method.as_deref())
            .text("token_endpoint_auth_signing_alg", self.token_endpoint_auth_signing_alg.as_deref())
            .scope("scope", self.scope.as_ref())
            .text("application_type", self.application_type.map(ApplicationType::as_str))
            .endpoint("jwks_uri", self.jwks_uri.as_ref())
            .object("jwks", self.jwks.as_ref())
            .text("software_id", self.software_id.as_deref())
            .text("software_version", self.software_version.as_deref())
    }
}

/// Whether a key set holds a private or symmetric key, or is no key set.
fn holds_secret_key(jwks: &JsonObject) -> bool {
    const SECRET: [&str; 8] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth"];
    let Some(JsonValue::Array(keys)) = jwks.get("keys") else { return true };
    keys.iter().any(|key| match key {
        JsonValue::Object(key) => {
            SECRET.iter().any(|name| key.get(name).is_some())
                || !matches!(key.string("kty"), Ok(Some(kind)) if kind != "oct")
        }
        _ => true,
    })
}

/// A registration request: the body of a POST to the registration endpoint (RFC 7591 section 3.1).
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrationRequest(ClientMetadata);

impl RegistrationRequest {
    /// A request to send.
    ///
    /// # Errors
    /// [`Malformed`] without a redirect URI, without `application_type` or `token_endpoint_auth_method`, and for
    /// members that exclude each other.
    pub fn new(metadata: ClientMetadata) -> Result<Self, Malformed> {
        // RFC7591-2-1
        if metadata.redirect_uris.is_empty() {
            return Err(Malformed::Missing("redirect_uris"));
        }
        // MCP-REG-040
        if metadata.application_type.is_none() {
            return Err(Malformed::Missing("application_type"));
        }
        // RFC7591-2-8: absence would mean client_secret_basic
        if metadata.token_endpoint_auth_method.is_none() {
            return Err(Malformed::Missing("token_endpoint_auth_method"));
        }
        metadata.check()?;
        Ok(Self(metadata))
    }

    /// Reads a request. What it lacks has the default its specification gives it; a server decides what it needs.
    ///
    /// # Errors
    /// [`Malformed`], whose `member()` is the one at fault.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        // RFC7591-2-5
        let object = JsonObject::parse(body, limits::DOCUMENT_BYTES)?;
        ClientMetadata::read(&Members::of(&object)).map(Self)
    }

    /// The request as JSON.
    pub fn render(&self) -> Vec<u8> {
        self.0.render()
    }

    /// What the client says about itself.
    pub fn metadata(&self) -> &ClientMetadata {
        &self.0
    }

    /// What the client says about itself.
    pub fn into_metadata(self) -> ClientMetadata {
        self.0
    }
}

/// A client secret as a server issued it.
#[derive(Debug, Clone)]
pub struct IssuedSecret {
    /// The secret.
    pub secret: ClientSecret,
    /// When it expires, in seconds since 1970; 0 for never.
    pub expires_at: u64,
}

/// Where and with what a registration is managed (RFC 7592 section 3).
#[derive(Debug, Clone)]
pub struct RegistrationManagement {
    /// `registration_client_uri`, used as given.
    pub uri: Endpoint,
    /// `registration_access_token`.
    pub token: RegistrationToken,
}

/// A registration that succeeded (RFC 7591 section 3.2.1).
#[derive(Debug, Clone)]
pub struct RegistrationResponse {
    /// The identifier issued.
    pub client_id: ClientId,
    /// When, in seconds since 1970.
    pub client_id_issued_at: Option<u64>,
    /// The secret, for a client that has one.
    pub client_secret: Option<IssuedSecret>,
    /// How to manage it, where the server offers that.
    pub management: Option<RegistrationManagement>,
    /// What the server registered, which may differ from what was asked for.
    pub metadata: ClientMetadata,
}

impl RegistrationResponse {
    /// The response as JSON. It holds secrets.
    pub fn render(&self) -> Vec<u8> {
        // RFC7591-3.2.1-1, RFC7591-3.2.1-2, RFC7592-3-1
        let secret = self.client_secret.as_ref();
        let management = self.management.as_ref();
        let document = Document::new()
            .text("client_id", Some(self.client_id.as_str()))
            .count("client_id_issued_at", self.client_id_issued_at)
            .text("client_secret", secret.map(|issued| issued.secret.expose()))
            .count("client_secret_expires_at", secret.map(|issued| issued.expires_at))
            .endpoint("registration_client_uri", management.map(|management| &management.uri))
            .text("registration_access_token", management.map(|management| management.token.expose()));
        self.metadata.write(document).finish()
    }

    fn read(members: &Members<'_>) -> Result<Self, Malformed> {
        let client_secret = match members.typed("client_secret", ClientSecret::new)? {
            None => None,
            // Many servers that never let a secret expire leave the member out. One that does expire shows as
            // `invalid_client`, so nothing is gained by refusing.
            Some(secret) => {
                let expires_at = members.count("client_secret_expires_at")?.unwrap_or(0);
                Some(IssuedSecret { secret, expires_at })
            }
        };
        let uri = members.endpoint("registration_client_uri")?;
        let token = members.typed("registration_access_token", RegistrationToken::new)?;
        Ok(Self {
            client_id: members.required_typed("client_id", ClientId::new)?,
            client_id_issued_at: members.count("client_id_issued_at")?,
            client_secret,
            // RFC7592-B-1; one without the other is of no use
            management: uri.zip(token).map(|(uri, token)| RegistrationManagement { uri, token }),
            metadata: ClientMetadata::read(members)?,
        })
    }
}

/// A registration that was refused (RFC 7591 section 3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationError {
    /// The code.
    pub code: RegistrationErrorCode,
    /// The peer's words.
    pub detail: ErrorDetail,
}

impl RegistrationError {
    /// The error as JSON.
    pub fn render(&self) -> Vec<u8> {
        self.detail.write(Document::new().text("error", Some(self.code.as_str()))).finish()
    }
}

/// What the registration endpoint answered.
#[derive(Debug, Clone)]
pub enum RegistrationReply {
    /// A registration.
    Registered(Box<RegistrationResponse>),
    /// A refusal.
    Error(RegistrationError),
}

impl RegistrationReply {
    /// Reads a reply by its status and body: 201, or 200 as some servers answer, without `error` is a
    /// registration.
    ///
    /// # Errors
    /// [`Malformed`] for what is neither a registration nor an error.
    pub fn parse(status: u16, body: &[u8]) -> Result<Self, Malformed> {
        let object = JsonObject::parse(body, limits::REPLY_BYTES)?;
        let members = Members::of(&object);
        if !matches!(status, 200 | 201) || members.has("error") {
            // RFC7591-3.2.2-2
            return Ok(Self::Error(RegistrationError {
                code: RegistrationErrorCode::parse(members.required_text("error")?)?,
                detail: ErrorDetail::read(members.text("error_description")?, members.text("error_uri")?),
            }));
        }
        RegistrationResponse::read(&members).map(|response| Self::Registered(Box::new(response)))
    }
}

/// A client ID metadata document: client metadata at the URL that is the client's identifier.
///
/// Whether `client_id` is that URL is not decided here: the server compares it with the URL it fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientMetadataDocument {
    client_id: ClientId,
    metadata: ClientMetadata,
}

impl ClientMetadataDocument {
    /// A document to publish.
    ///
    /// # Errors
    /// As [`ClientMetadataDocument::parse`].
    pub fn new(client_id: ClientId, metadata: ClientMetadata) -> Result<Self, Malformed> {
        // CIMD-4.1-3, MCP-REG-012
        metadata.check()?;
        check_document(&metadata)?;
        if metadata.redirect_uris.is_empty() {
            return Err(Malformed::Missing("redirect_uris"));
        }
        Ok(Self { client_id, metadata })
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Malformed`] for more than [`limits::CLIENT_METADATA_DOCUMENT_BYTES`], without `client_id`, `client_name`
    /// or `redirect_uris`, and for a secret, a method of client authentication that rests on one, or
    /// `private_key_jwt` without keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // MCP-REG-024, CIMD-6.6-1
        let object = JsonObject::parse(bytes, limits::CLIENT_METADATA_DOCUMENT_BYTES)?;
        let members = Members::of(&object);
        for name in ["client_secret", "client_secret_expires_at"] {
            // CIMD-4.1-4
            if members.has(name) {
                return Err(Malformed::Forbidden(name));
            }
        }
        let client_id = members.required_typed("client_id", ClientId::new)?;
        let metadata = ClientMetadata::read(&members)?;
        check_document(&metadata)?;
        Ok(Self { client_id, metadata })
    }

    /// The document as JSON.
    pub fn render(&self) -> Vec<u8> {
        // MCP-REG-012
        self.metadata.write(Document::new().text("client_id", Some(self.client_id.as_str()))).finish()
    }

    /// The identifier the document claims.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// What the client says about itself. Absent `token_endpoint_auth_method` means `none` here: the default of a
    /// registration rests on a secret, which no document can hold.
    pub fn metadata(&self) -> &ClientMetadata {
        &self.metadata
    }
}

fn check_document(metadata: &ClientMetadata) -> Result<(), Malformed> {
    // MCP-REG-024, D28
    if metadata.client_name.is_none() {
        return Err(Malformed::Missing("client_name"));
    }
    if metadata.redirect_uris.is_empty() && metadata.other_redirect_uris.is_empty() {
        return Err(Malformed::Missing("redirect_uris"));
    }
    // CIMD-4.1-4
    match metadata.token_endpoint_auth_method.as_deref() {
        Some("private_key_jwt") if metadata.jwks.is_none() && metadata.jwks_uri.is_none() => {
            Err(Malformed::Missing("jwks_uri"))
        }
        Some(method) if method.starts_with("client_secret") => {
            Err(Malformed::Forbidden("token_endpoint_auth_method"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{CANARY, detail, endpoint, maybe_texts, page, scopes, text, texts};
    use super::*;

    const URL: &str = "https://client.example.com/oauth/metadata.json";

    fn request(members: &str) -> Result<ClientMetadata, Malformed> {
        RegistrationRequest::parse(format!("{{{members}}}").as_bytes())
            .map(RegistrationRequest::into_metadata)
    }

    fn document(members: &str) -> Result<ClientMetadataDocument, Malformed> {
        ClientMetadataDocument::parse(
            format!(
                r#"{{"client_id":"{URL}","client_name":"C","redirect_uris":["http://127.0.0.1/cb"]{members}}}"#
            )
            .as_bytes(),
        )
    }

    fn registered(members: &str) -> Result<RegistrationResponse, Malformed> {
        let body = format!(r#"{{"client_id":"c1","redirect_uris":["http://127.0.0.1/cb"]{members}}}"#);
        match RegistrationReply::parse(201, body.as_bytes())? {
            RegistrationReply::Registered(response) => Ok(*response),
            RegistrationReply::Error(error) => panic!("{error:?}"),
        }
    }

    fn native() -> ClientMetadata {
        ClientMetadata {
            redirect_uris: [RedirectUri::new("http://127.0.0.1/cb").unwrap()].into(),
            application_type: Some(ApplicationType::Native),
            token_endpoint_auth_method: Some("none".into()),
            ..ClientMetadata::default()
        }
    }

    #[test]
    fn a_request_states_redirect_uris_application_type_and_method() {
        // RFC7591-2-1, MCP-REG-040, RFC7591-2-8
        assert!(RegistrationRequest::new(native()).is_ok());
        for (metadata, missing) in [
            (ClientMetadata { redirect_uris: Vec::new(), ..native() }, "redirect_uris"),
            (ClientMetadata { application_type: None, ..native() }, "application_type"),
            (ClientMetadata { token_endpoint_auth_method: None, ..native() }, "token_endpoint_auth_method"),
        ] {
            assert_eq!(RegistrationRequest::new(metadata).unwrap_err(), Malformed::Missing(missing));
        }
        // RFC7591-2-3
        let both = ClientMetadata {
            jwks: JsonObject::parse(br#"{"keys":[]}"#, 100).ok(),
            jwks_uri: Endpoint::new("https://client.example.com/jwks").ok(),
            ..native()
        };
        assert_eq!(RegistrationRequest::new(both).unwrap_err(), Malformed::Conflict("jwks", "jwks_uri"));
    }

    #[test]
    fn the_application_type_follows_the_redirect_uris() {
        // MCP-REG-041, MCP-REG-042
        let of = |uris: &[&str]| {
            ApplicationType::of(&uris.iter().map(|uri| RedirectUri::new(*uri).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["https://app.example.com/cb"]), ApplicationType::Web);
        assert_eq!(of(&["http://127.0.0.1/cb"]), ApplicationType::Native);
        assert_eq!(of(&["https://app.example.com/cb", "http://localhost/cb"]), ApplicationType::Native);
    }

    #[test]
    fn absent_members_have_the_defaults_of_the_rfc_and_empty_lists_mean_nothing() {
        // RFC7591-2-7
        let absent = request("").unwrap();
        assert!(absent.uses_grant_type("authorization_code") && !absent.uses_grant_type("refresh_token"));
        assert!(absent.uses_response_type("code") && !absent.uses_response_type("token"));
        assert_eq!(absent.token_endpoint_auth_method, None);
        let empty = request(r#""grant_types":[],"response_types":[]"#).unwrap();
        assert!(!empty.uses_grant_type("authorization_code") && !empty.uses_response_type("code"));
    }

    #[test]
    fn an_error_names_the_member_at_fault() {
        for (member, name) in [
            (r#""redirect_uris":"http://127.0.0.1/cb""#, "redirect_uris"),
            (r#""redirect_uris":[7]"#, "redirect_uris"),
            (r#""redirect_uris":[""]"#, "redirect_uris"),
            (r#""client_name":null"#, "client_name"),
            (r#""client_name":{"de":"x"}"#, "client_name"),
            (r#""client_uri":"javascript:alert(1)""#, "client_uri"),
            (r#""logo_uri":"data:image/png;base64,x""#, "logo_uri"),
            (r#""tos_uri":"http://example.com/tos""#, "tos_uri"),
            (r#""policy_uri":"file:///x""#, "policy_uri"),
            (r#""contacts":"me@example.com""#, "contacts"),
            (r#""grant_types":"authorization_code""#, "grant_types"),
            (r#""scope":["a"]"#, "scope"),
            (r#""scope":"a\"b""#, "scope"),
            (r#""application_type":"desktop""#, "application_type"),
            (r#""application_type":1"#, "application_type"),
            (r#""jwks_uri":"http://example.com/jwks""#, "jwks_uri"),
            (r#""jwks":"{}""#, "jwks"),
            (r#""jwks":{"keys":[]},"jwks_uri":"https://example.com/jwks""#, "jwks"),
            (r#""token_endpoint_auth_method":["none"]"#, "token_endpoint_auth_method"),
            (r#""token_endpoint_auth_signing_alg":"none""#, "token_endpoint_auth_signing_alg"),
        ] {
            // RFC7591-2-4, RFC7591-2-3, I-P8, I-G2
            assert_eq!(request(member).unwrap_err().member(), Some(name), "{member}");
        }
        let long = format!(r#""client_name":"{}""#, "n".repeat(limits::CLIENT_NAME_BYTES + 1));
        assert_eq!(request(&long).unwrap_err(), Malformed::Invalid("client_name"));
        let long = format!(r#""redirect_uris":["https://a.example/{}"]"#, "p".repeat(limits::URL_BYTES));
        assert_eq!(request(&long).unwrap_err(), Malformed::Invalid("redirect_uris"));
        let uris: Vec<_> =
            (0..=limits::REDIRECT_URIS).map(|i| format!("\"https://example.com/{i}\"")).collect();
        let many = format!(r#""redirect_uris":[{}]"#, uris.join(","));
        assert_eq!(request(&many).unwrap_err(), Malformed::Invalid("redirect_uris"));
    }

    #[test]
    fn a_redirect_uri_that_cannot_be_accepted_does_not_spoil_the_others_and_is_set_apart() {
        // D9, I-R4
        let metadata = request(
            r#""redirect_uris":["com.example.app:/cb","https://app.example.com/cb","http://app.example.com/cb","javascript:alert(1)","https://app.example.com/cb#f","http://localhost:8080/cb"]"#,
        )
        .unwrap();
        let accepted: Vec<_> = metadata.redirect_uris.iter().map(RedirectUri::as_str).collect();
        assert_eq!(accepted, ["https://app.example.com/cb", "http://localhost:8080/cb"]);
        assert_eq!(metadata.other_redirect_uris.len(), 4);
    }

    #[test]
    fn a_key_set_with_a_private_or_symmetric_key_is_refused() {
        // OIDCR-2-3
        for keys in [
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"x","y":"y","d":"secret"}]}"#,
            r#"{"keys":[{"kty":"oct","k":"secret"}]}"#,
            r#"{"keys":[{"kty":"oct"}]}"#,
            r#"{"keys":[{"kty":"RSA","n":"n","e":"AQAB"},{"kty":"RSA","n":"n","e":"AQAB","p":"p"}]}"#,
            r#"{"keys":["x"]}"#,
            r#"{"keys":[{"x":"x"}]}"#,
            r#"{"keys":{}}"#,
            "{}",
        ] {
            assert_eq!(
                request(&format!(r#""jwks":{keys}"#)).unwrap_err(),
                Malformed::Invalid("jwks"),
                "{keys}"
            );
        }
        assert!(request(r#""jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"x","y":"y"}]}"#).is_ok());
    }

    #[test]
    fn a_request_ignores_what_it_does_not_know_a_chosen_secret_included() {
        // RFC7591-2-5, RFC7592-2.2-2
        let metadata = request(
            r#""client_id":"mine","client_secret":"mine","software_statement":"x.y.z","client_name#de":"D""#,
        )
        .unwrap();
        assert_eq!(metadata, ClientMetadata::default());
        assert!(request(r#""scope":"a","scope":"b""#).is_err());
    }

    #[test]
    fn a_secret_comes_with_its_expiry() {
        // RFC7591-3.2.1-2
        let unsaid = registered(r#","client_secret":"s""#).unwrap();
        assert_eq!(unsaid.client_secret.as_ref().unwrap().expires_at, 0);
        let rendered = String::from_utf8(unsaid.render()).unwrap();
        assert!(rendered.contains(r#""client_secret_expires_at":0"#), "{rendered}");
        for wrong in ["null", "\"0\"", "-1", "0.5"] {
            let members = format!(r#","client_secret":"s","client_secret_expires_at":{wrong}"#);
            assert!(registered(&members).is_err(), "{wrong}");
        }
        let issued = registered(r#","client_secret":"s","client_secret_expires_at":0"#).unwrap();
        assert_eq!(issued.client_secret.unwrap().expires_at, 0);
        assert!(registered(r#","client_secret":"","client_secret_expires_at":0"#).is_err());
        assert!(registered(r#","client_secret_expires_at":0"#).unwrap().client_secret.is_none());
    }

    #[test]
    fn a_response_without_client_id_is_refused() {
        for body in [r#"{"redirect_uris":[]}"#, r#"{"client_id":""}"#] {
            assert_eq!(
                RegistrationReply::parse(201, body.as_bytes()).unwrap_err(),
                Malformed::Missing("client_id")
            );
        }
        assert!(RegistrationReply::parse(201, br#"{"client_id":7}"#).is_err());
    }

    #[test]
    fn management_needs_both_its_address_and_its_token() {
        // RFC7592-3-1, RFC7592-B-1
        let uri = r#","registration_client_uri":"https://as.example.com/r/1""#;
        let token = r#","registration_access_token":"t""#;
        assert!(registered(uri).unwrap().management.is_none());
        assert!(registered(token).unwrap().management.is_none());
        let management = registered(&format!("{uri}{token}")).unwrap().management.unwrap();
        assert_eq!(management.uri.as_str(), "https://as.example.com/r/1");
        assert!(registered(r#","registration_client_uri":"http://as.example.com/r""#).is_err());
    }

    #[test]
    fn an_error_is_an_error_under_any_status_and_other_statuses_are_nothing_else() {
        // RFC7591-3.2.2-1, RFC7591-3.2.2-2
        for status in [200, 201, 400, 403] {
            let body = br#"{"error":"invalid_redirect_uri","error_description":"no","client_id":"c","x":1}"#;
            let RegistrationReply::Error(error) = RegistrationReply::parse(status, body).unwrap() else {
                panic!("{status}")
            };
            assert_eq!(error.code, RegistrationErrorCode::InvalidRedirectUri);
        }
        assert_eq!(
            RegistrationReply::parse(400, br#"{"client_id":"c"}"#).unwrap_err(),
            Malformed::Missing("error")
        );
    }

    #[test]
    fn a_document_has_client_id_name_and_redirect_uris() {
        // MCP-REG-012, MCP-REG-024, D28
        for (text, missing) in [
            (r#"{"client_name":"C","redirect_uris":["https://a.example/cb"]}"#, "client_id"),
            (
                r#"{"client_id":"https://a.example/c","redirect_uris":["https://a.example/cb"]}"#,
                "client_name",
            ),
            (
                r#"{"client_id":"https://a.example/c","client_name":"","redirect_uris":["https://a.example/cb"]}"#,
                "client_name",
            ),
            (r#"{"client_id":"https://a.example/c","client_name":"C"}"#, "redirect_uris"),
            (r#"{"client_id":"https://a.example/c","client_name":"C","redirect_uris":[]}"#, "redirect_uris"),
        ] {
            assert_eq!(
                ClientMetadataDocument::parse(text.as_bytes()).unwrap_err(),
                Malformed::Missing(missing),
                "{text}"
            );
        }
        let document = document("").unwrap();
        assert_eq!(document.client_id().as_str(), URL);
        assert_eq!(document.metadata().client_name.as_deref(), Some("C"));
    }

    #[test]
    fn a_document_holds_no_secret_and_no_method_that_needs_one() {
        // CIMD-4.1-3, CIMD-4.1-4
        for member in
            [r#","client_secret":"s""#, r#","client_secret":null"#, r#","client_secret_expires_at":0"#]
        {
            assert!(matches!(document(member), Err(Malformed::Forbidden(_))), "{member}");
        }
        for method in ["client_secret_basic", "client_secret_post", "client_secret_jwt"] {
            assert_eq!(
                document(&format!(r#","token_endpoint_auth_method":"{method}""#)).unwrap_err(),
                Malformed::Forbidden("token_endpoint_auth_method")
            );
            let metadata = ClientMetadata {
                client_name: Some("C".into()),
                token_endpoint_auth_method: Some(method.into()),
                ..native()
            };
            assert!(ClientMetadataDocument::new(ClientId::new(URL).unwrap(), metadata).is_err());
        }
        let publish = |metadata| ClientMetadataDocument::new(ClientId::new(URL).unwrap(), metadata);
        let named = ClientMetadata { client_name: Some("C".into()), ..native() };
        let symmetric = JsonObject::parse(br#"{"keys":[{"kty":"oct","k":"s"}]}"#, 100).ok();
        assert_eq!(
            publish(ClientMetadata { jwks: symmetric, ..named.clone() }).unwrap_err(),
            Malformed::Invalid("jwks")
        );
        // MCP-REG-012
        let private = ["com.example.app:/cb".into()].into();
        assert_eq!(
            publish(ClientMetadata { redirect_uris: Vec::new(), other_redirect_uris: private, ..named })
                .unwrap_err(),
            Malformed::Missing("redirect_uris")
        );
        assert!(document(r#","token_endpoint_auth_method":"none""#).is_ok());
        assert!(document(r#","token_endpoint_auth_method":"private_key_jwt""#).is_err());
        assert!(
            document(r#","token_endpoint_auth_method":"private_key_jwt","jwks_uri":"https://a.example/j""#)
                .is_ok()
        );
        assert!(document(r#","jwks":{"keys":[]},"jwks_uri":"https://a.example/j""#).is_err());
    }

    #[test]
    fn a_document_has_a_size_limit() {
        // CIMD-6.6-1
        let padding = |bytes: usize| document(&format!(r#","x":"{}""#, "x".repeat(bytes)));
        assert!(padding(limits::CLIENT_METADATA_DOCUMENT_BYTES - 200).is_ok());
        assert!(padding(limits::CLIENT_METADATA_DOCUMENT_BYTES).is_err());
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        // I-G7
        let response = registered(&format!(
            r#","client_secret":"{CANARY}","client_secret_expires_at":0,"registration_access_token":"{CANARY}","registration_client_uri":"https://as.example.com/r""#
        ))
        .unwrap();
        assert!(!format!("{response:?}").contains(CANARY), "{response:?}");
        for members in [
            format!(r#","client_secret":"{CANARY}","client_secret_expires_at":"0""#),
            format!(r#","client_secret":"{CANARY}\n","client_secret_expires_at":0"#),
            format!(r#","jwks":{{"keys":[{{"kty":"oct","k":"{CANARY}"}}]}}"#),
        ] {
            let error = registered(&members).unwrap_err();
            assert!(!format!("{error:?} {error}").contains(CANARY), "{error:?}");
        }
    }

    prop_compose! {
        fn metadata()(
            uris in proptest::collection::vec("https://[a-z]{1,8}\\.example/[a-z]{0,8}", 1..4),
            name in text(), links in proptest::collection::vec(of(page()), 4), contacts in texts(),
            lists in proptest::collection::vec(maybe_texts(), 2), scope in of(scopes()), jwks_uri in of(endpoint()),
            software in of(text()), native: bool,
        ) -> ClientMetadata {
            ClientMetadata {
                redirect_uris: uris.into_iter().map(|uri| RedirectUri::new(uri).unwrap()).collect(),
                other_redirect_uris: Vec::new(),
                client_name: Some(name),
                client_uri: links[0].clone(),
                logo_uri: links[1].clone(),
                tos_uri: links[2].clone(),
                policy_uri: links[3].clone(),
                contacts,
                grant_types: lists[0].clone(),
                response_types: lists[1].clone(),
                token_endpoint_auth_method: Some("none".into()),
                token_endpoint_auth_signing_alg: Some("ES256".into()),
                scope,
                application_type: Some(if native { ApplicationType::Native } else { ApplicationType::Web }),
                jwks: jwks_uri.is_none().then(|| {
                    JsonObject::parse(br#"{"keys":[{"kty":"EC","crv":"P-256","x":"x","y":"y"}]}"#, 200).unwrap()
                }),
                jwks_uri,
                software_id: software.clone(),
                software_version: software,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back_the_same(
            metadata in metadata(), expires in 0..u64::MAX / 2, detail in detail(), issued in of(0..u64::MAX / 2),
        ) {
            let request = RegistrationRequest::new(metadata.clone()).unwrap();
            prop_assert_eq!(RegistrationRequest::parse(&request.render()).unwrap(), request);

            let document = ClientMetadataDocument::new(ClientId::new(URL).unwrap(), metadata.clone()).unwrap();
            prop_assert_eq!(ClientMetadataDocument::parse(&document.render()).unwrap(), document);

            // RFC7591-3.2.1-1
            let response = RegistrationResponse {
                client_id: ClientId::new("c1").unwrap(),
                client_id_issued_at: issued,
                client_secret: Some(IssuedSecret { secret: ClientSecret::new("s e c").unwrap(), expires_at: expires }),
                management: None,
                metadata: metadata.clone(),
            };
            let RegistrationReply::Registered(read) = RegistrationReply::parse(201, &response.render()).unwrap() else {
                panic!("registered")
            };
            prop_assert_eq!(read.client_id, response.client_id);
            prop_assert_eq!(read.client_id_issued_at, issued);
            let secret = read.client_secret.unwrap();
            prop_assert_eq!(secret.secret.expose(), "s e c");
            prop_assert_eq!(secret.expires_at, expires);
            prop_assert_eq!(read.metadata, metadata);

            let error = RegistrationError { code: RegistrationErrorCode::InvalidClientMetadata, detail };
            let RegistrationReply::Error(read) = RegistrationReply::parse(400, &error.render()).unwrap() else {
                panic!("an error")
            };
            prop_assert_eq!(read, error);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, status: u16) {
            let _ = RegistrationRequest::parse(&bytes);
            let _ = RegistrationReply::parse(status, &bytes);
            let _ = ClientMetadataDocument::parse(&bytes);
        }
    }
}
