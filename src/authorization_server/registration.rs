//! Dynamic client registration (RFC 7591): metadata checked member by member, a fresh identifier, never an overwrite.
//!
//! ```text
//! register(body) ─InsertClient▶ AwaitingClientStored ─stored─▶ Respond 201
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::authorization::ForeignReceipt;
use super::metadata::GRANT_TYPES;
use super::record::{ClientCredential, ClientOrigin, ClientRecord, SecretMethod};
use super::store::{ActionId, ClientInsertion, InsertClient, Insertion};
use super::{AuthorizationServer, RegistrationPolicy};
use crate::entropy::Entropy;
use crate::identifier::ClientId;
use crate::limits;
use crate::message::Malformed;
use crate::message::client_metadata::{
    ApplicationType, ClientMetadata, IssuedSecret, RegistrationError, RegistrationManagement,
    RegistrationRequest, RegistrationResponse,
};
use crate::message::error_code::{ErrorDetail, RegistrationErrorCode};
use crate::message::exchange::{RequestHead, Respond};
use crate::secret::{self, ClientSecret, RegistrationToken};
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationReason {
    /// This server registers nobody.
    #[error("this server does not register clients by itself")]
    Closed,
    /// No initial access token, or none that lets in.
    #[error("this server registers clients that present an initial access token")]
    NoInitialAccess,
    /// The server has no public clients.
    #[error("this server has no clients without credentials")]
    PublicClient,
    /// `private_key_jwt` without `jwks` or `jwks_uri`.
    #[error("private_key_jwt needs jwks or jwks_uri")]
    NoKeys,
    /// The body is longer than [`limits::REGISTRATION_BYTES`].
    #[error("the client metadata is too large")]
    TooLarge,
    /// The body is not a JSON object, or a member is malformed.
    #[error("the client metadata is malformed: {0}")]
    Malformed(Malformed),
    /// No redirect URI is acceptable.
    #[error("no redirect URI is https, or http on localhost, 127.0.0.1 or [::1]")]
    RedirectUris,
    /// The authentication method is none of this server's.
    #[error(
        "token_endpoint_auth_method must be none, client_secret_basic, client_secret_post or private_key_jwt"
    )]
    Method,
    /// The grant types lack the code grant, or have one this server lacks.
    #[error("grant_types must be authorization_code and may have refresh_token")]
    GrantTypes,
    /// The response types are not `code`.
    #[error("response_types must be code")]
    ResponseTypes,
    /// A fresh identifier was taken: the source of randomness is broken.
    #[error("the identifier was taken; try again")]
    Taken,
    /// There are as many clients as there may be, and none that nothing rests on.
    #[error("the server has as many clients as it takes; try again later")]
    Full,
    /// The store or the source of randomness failed.
    #[error("the server cannot register now; try again")]
    Unavailable,
}

impl RegistrationReason {
    /// The answer on the wire: one place, every reason (RFC 7591 section 3.2.2).
    pub fn respond(&self) -> Respond {
        let (status, code) = match self {
            Self::Closed => (403, RegistrationErrorCode::InvalidClientMetadata),
            Self::Malformed(malformed) if malformed.member() == Some("redirect_uris") => {
                (400, RegistrationErrorCode::InvalidRedirectUri)
            }
            // RFC7591-3-3: RFC 6750 says how a missing or wrong token is answered.
            Self::NoInitialAccess => {
                return Respond::new(401)
                    .with_header("www-authenticate", "Bearer realm=\"registration\"")
                    .with_header("cache-control", "no-store");
            }
            Self::TooLarge
            | Self::Malformed(_)
            | Self::Method
            | Self::PublicClient
            | Self::NoKeys
            | Self::GrantTypes
            | Self::ResponseTypes => (400, RegistrationErrorCode::InvalidClientMetadata),
            Self::RedirectUris => (400, RegistrationErrorCode::InvalidRedirectUri),
            // RFC 9110 section 15.6.4: for a person who reads it, as no code of RFC 7591 says so.
            Self::Full => {
                return Respond::new(503)
                    .with_header("retry-after", "60")
                    .with_header("content-type", "text/plain; charset=utf-8")
                    .with_header("cache-control", "no-store")
                    .with_body(alloc::format!("{self}").into_bytes());
            }
            Self::Taken | Self::Unavailable => {
                return Respond::new(503)
                    .with_header("retry-after", "1")
                    .with_header("cache-control", "no-store");
            }
        };
        // RFC7591-3.2.2-1
        let detail = ErrorDetail::of(&alloc::format!("{self}"));
        Respond::json(status, RegistrationError { code, detail }.render())
            .with_header("cache-control", "no-store")
    }
}

impl AuthorizationServer {
    /// A registration request: the head and the body of a POST with content type `application/json`, read up to
    /// [`limits::REGISTRATION_BYTES`].
    ///
    /// # Errors
    /// [`RegistrationReason`], whose answer goes out at once. Nothing was stored.
    pub fn register(
        &self,
        head: &RequestHead,
        body: &[u8],
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<InsertClient, AwaitingClientStored>, RegistrationReason> {
        // RFC7591-3-3, MCP-AUTH-007: open only where the operator said so.
        let initial_access = match self.registration() {
            RegistrationPolicy::Closed => return Err(RegistrationReason::Closed),
            RegistrationPolicy::Open => false,
            RegistrationPolicy::InitialAccessToken(accepted) => {
                let presented = bearer(head).map(|token| token.digest());
                // I-G6: digests of equal length, each compared in constant time.
                if !presented.is_some_and(|presented| accepted.contains(&presented)) {
                    return Err(RegistrationReason::NoInitialAccess);
                }
                true
            }
        };
        let metadata = read_metadata(body)?;
        let unavailable = |_| RegistrationReason::Unavailable;
        let (credential, secret) = self.credential(&metadata, entropy)?;
        // RFC7591-3.2.1-1
        let client_id = ClientId::draw(entropy).map_err(unavailable)?;
        let management = if self.manages_registrations() {
            let token = secret::fresh(entropy, RegistrationToken::new).map_err(unavailable)?;
            Some(RegistrationManagement { uri: self.management_uri(&client_id)?, token })
        } else {
            None
        };
        let record = ClientRecord {
            client_id: client_id.clone(),
            origin: ClientOrigin::Registered,
            credential,
            metadata: metadata.clone(),
            created: now,
            management: management.as_ref().map(|management| management.token.digest()),
            gone_since: None,
            configured: false,
            initial_access,
        };
        let response = RegistrationResponse {
            client_id,
            client_id_issued_at: u64::try_from(now.unix_timestamp()).ok(),
            // RFC7591-3.2.1-2
            client_secret: secret.map(|secret| IssuedSecret { secret, expires_at: 0 }),
            // RFC7592-3-1
            management,
            metadata,
        };
        let (insert, id) = InsertClient::new(record, entropy).map_err(unavailable)?;
        Ok(Step::new(insert, AwaitingClientStored(Box::new((id, response)))))
    }

    /// How a client of this metadata authenticates, with a secret of its own if it needs one.
    pub(super) fn credential(
        &self,
        metadata: &ClientMetadata,
        entropy: &mut dyn Entropy,
    ) -> Result<(ClientCredential, Option<ClientSecret>), RegistrationReason> {
        let unavailable = |_| RegistrationReason::Unavailable;
        let method = match metadata.token_endpoint_auth_method.as_deref() {
            Some("none") if !self.admits_public_clients() => return Err(RegistrationReason::PublicClient),
            Some("none") => return Ok((ClientCredential::None, None)),
            Some("private_key_jwt") if metadata.jwks.is_none() && metadata.jwks_uri.is_none() => {
                return Err(RegistrationReason::NoKeys);
            }
            Some("private_key_jwt") => return Ok((ClientCredential::PrivateKey, None)),
            Some("client_secret_basic") => SecretMethod::Basic,
            Some("client_secret_post") => SecretMethod::Post,
            _ => return Err(RegistrationReason::Method),
        };
        // MCP-AUTH-004, OAUTH21-2.1-1, OAUTH21-8.1-1, I-P6: a secret of its own, or none. A digest is all the server keeps.
        // RFC7591-5-4, RFC7591-3.2.1-2
        let secret = secret::fresh(entropy, ClientSecret::new).map_err(unavailable)?;
        Ok((ClientCredential::Secret { method, digest: secret.digest(), expires: None }, Some(secret)))
    }
}

/// The token of a head with exactly one `Authorization: Bearer` field.
pub(super) fn bearer(head: &RequestHead) -> Option<RegistrationToken> {
    let mut fields = head.authorization();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = core::str::from_utf8(field).ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    scheme.eq_ignore_ascii_case("bearer").then(|| RegistrationToken::new(token).ok()).flatten()
}

/// The metadata of a request body, bounded and with its defaults.
pub(super) fn read_metadata(body: &[u8]) -> Result<ClientMetadata, RegistrationReason> {
    // I-P7: what a stranger can have stored is bounded.
    if body.len() > limits::REGISTRATION_BYTES {
        return Err(RegistrationReason::TooLarge);
    }
    // RFC7591-3-1, RFC7591-2-5
    let request = RegistrationRequest::parse(body).map_err(RegistrationReason::Malformed)?;
    accepted(request.into_metadata())
}

/// What of the metadata is registered, with the defaults written out.
fn accepted(mut metadata: ClientMetadata) -> Result<ClientMetadata, RegistrationReason> {
    // D9, MCP-SEC-008: unacceptable URIs of a list were set aside when it was read; one must remain.
    metadata.other_redirect_uris = Vec::new();
    if metadata.redirect_uris.is_empty() {
        return Err(RegistrationReason::RedirectUris);
    }
    // RFC7591-2-7, RFC7591-2-6: the defaults of absent members; a grant this server lacks is left out.
    let grant_types =
        metadata.grant_types.take().unwrap_or_else(|| [String::from("authorization_code")].into());
    let known: Vec<String> =
        grant_types.into_iter().filter(|grant| GRANT_TYPES.contains(&grant.as_str())).collect();
    if !known.iter().any(|grant| grant == "authorization_code") {
        return Err(RegistrationReason::GrantTypes);
    }
    metadata.grant_types = Some(known);
    let response_types = metadata.response_types.take().unwrap_or_else(|| [String::from("code")].into());
    // RFC7591-2.1-1
    if response_types != ["code"] {
        return Err(RegistrationReason::ResponseTypes);
    }
    metadata.response_types = Some(response_types);
    metadata.token_endpoint_auth_method.get_or_insert_with(|| String::from("client_secret_basic"));
    if metadata.application_type.is_none() {
        metadata.application_type = Some(ApplicationType::of(&metadata.redirect_uris));
    }
    Ok(metadata)
}

/// Waits until the store holds the client. The response holds its secret.
#[must_use = "the client waits for an answer"]
pub struct AwaitingClientStored(Box<(ActionId, RegistrationResponse)>);

impl fmt::Debug for AwaitingClientStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitingClientStored").field("client_id", &self.0.1.client_id).finish_non_exhaustive()
    }
}

impl AwaitingClientStored {
    /// The store has carried it out: the answer is 201, or 503 when the identifier was taken or there is no room.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn stored(self, receipt: ClientInsertion) -> Result<Respond, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        match receipt.outcome {
            Insertion::Done => {}
            Insertion::Refused => return Ok(RegistrationReason::Taken.respond()),
            // I-P7
            Insertion::Full => return Ok(RegistrationReason::Full.respond()),
        }
        // RFC7591-3.2.1-1, OAUTH21-3.2.3-8
        Ok(Respond::json(201, self.0.1.render()).with_header("cache-control", "no-store"))
    }

    /// The store failed; nothing was registered.
    pub fn store_failed(self) -> Respond {
        RegistrationReason::Unavailable.respond()
    }
}
