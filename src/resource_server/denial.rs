//! What a refused request is answered: OAuth 2.1 section 5.3, RFC 6750 section 3, RFC 9728 section 5.1.
//!
//! The reason is for the host's logs and counters; the peer learns the status, the error code and what it needs to
//! do better, the same words for every reason of a kind.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};

use super::ResourceServer;
use super::scope::RequiredScopes;
use crate::identifier::Issuer;
use crate::jose::JwsError;
use crate::message::challenge::BearerChallenge;
use crate::message::error_code::BearerErrorCode;
use crate::message::exchange::{FetchFailure, Respond};
use crate::secret::SecretDigest;
use crate::syntax::json::ObjectWriter;

/// Why a request is refused. It holds no token and no text of a peer, and belongs in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// The `Host` is not one this server answers to, or there is not exactly one.
    #[error("the request is addressed to a host that is not this server's")]
    Host,
    /// A browser sends it for a page of an origin that is not allowed.
    #[error("the request comes from a web origin that is not allowed")]
    Origin,

    /// Two `Authorization` fields, or a token in the query or body besides the field.
    #[error("the request carries credentials in more than one place")]
    SeveralCredentials,
    /// The field is not one scheme and one token.
    #[error("the Authorization field is malformed")]
    MalformedCredentials,
    /// No credentials at all.
    #[error("the request carries no credentials")]
    NoCredentials,
    /// Credentials of another scheme than Bearer.
    #[error("the credentials are of another scheme than Bearer")]
    OtherScheme,
    /// A token in the query or body only, which is not looked at.
    #[error("the token is in the query or the body")]
    TokenOutsideHeader,

    /// A signed token that is not acceptable as such, or whose signature does not verify.
    #[error("{0}")]
    Token(JwsError),
    /// Not a signed token, and no issuer is configured that could be asked.
    #[error("the token is opaque and no issuer can be asked about it")]
    OpaqueToken,
    /// The token's issuer is not configured.
    #[error("the token is of an issuer that is not trusted here")]
    UnknownIssuer,
    /// The issuer has no key of that `kid` and algorithm: it may have new keys.
    #[error("the issuer has no key the token could be signed with")]
    UnknownKey,
    /// The `typ` is not that of an access token.
    #[error("the token is not an access token")]
    TokenType,
    /// A claim is missing, empty, or of the wrong type.
    #[error("the token's claim {0:?} is missing or malformed")]
    Claim(Option<&'static str>),
    /// The token is for somebody else.
    #[error("the token is not meant for this resource")]
    Audience,
    /// Now is at or after `exp`.
    #[error("the token has expired")]
    Expired,
    /// Now is before `nbf` or `iat`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token has `cnf`: it is bound to a key whose possession was not proven.
    #[error("the token is bound to a key that was not proven")]
    BoundToKey,
    /// The token has `authorization_details`, which this crate does not understand.
    #[error("the token carries restrictions that are not understood")]
    AuthorizationDetails,
    /// The token looks like an ID token or a refresh token.
    #[error("the token is an ID token or a refresh token")]
    IdToken,
    /// The issuer says that the token is not active.
    #[error("the issuer says the token is not active")]
    Inactive,
    /// The issuer's answer about the token is malformed or not a token of the Bearer type.
    #[error("the issuer's answer about the token cannot be used")]
    IntrospectionAnswer,

    /// The token lacks a scope of the operation.
    #[error("the token lacks a scope of the operation")]
    InsufficientScope,
    /// The host's own rules refuse this subject or client.
    #[error("the host's own rules refuse the request")]
    LocalPolicy,

    /// The issuer's keys were not fetched yet, or could not be fetched again for too long.
    #[error("the issuer's keys are not available")]
    KeysUnavailable,
    /// The issuer could not be asked about the token.
    #[error("the issuer could not be asked about the token: {0}")]
    IntrospectionFailed(FetchFailure),
    /// The issuer did not answer the question about the token with 200.
    #[error("the issuer answered {0} when asked about the token")]
    IntrospectionRefused(u16),
}

impl DenialReason {
    /// A short name for counters: one per kind of reason.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::SeveralCredentials => "several_credentials",
            Self::MalformedCredentials => "malformed_credentials",
            Self::NoCredentials => "no_credentials",
            Self::OtherScheme => "other_scheme",
            Self::TokenOutsideHeader => "token_outside_header",
            Self::Token(JwsError::Signature) => "signature",
            Self::Token(_) => "malformed_token",
            Self::OpaqueToken => "opaque_token",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::TokenType => "token_type",
            Self::Claim(_) => "claim",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BoundToKey => "bound_to_key",
            Self::AuthorizationDetails => "authorization_details",
            Self::IdToken => "id_token",
            Self::Inactive => "inactive",
            Self::IntrospectionAnswer => "introspection_answer",
            Self::InsufficientScope => "insufficient_scope",
            Self::LocalPolicy => "local_policy",
            Self::KeysUnavailable => "keys_unavailable",
            Self::IntrospectionFailed(_) => "introspection_failed",
            Self::IntrospectionRefused(_) => "introspection_refused",
        }
    }
}

/// The kinds of answer, by what the client should do next.
enum Answer {
    /// 400: mend the request.
    BadRequest,
    /// 401 without an error code: get a token.
    Unauthenticated,
    /// 401: get another token.
    InvalidToken,
    /// 403: get a token with more scopes.
    InsufficientScope,
    /// 403: no token helps.
    Forbidden,
    /// 421: ask another server.
    Misdirected,
    /// 503: the same request may succeed later.
    Unavailable,
}

/// The one mapping from reasons to answers.
const fn answer(reason: DenialReason) -> Answer {
    match reason {
        // I-A11
        DenialReason::Host => Answer::Misdirected,
        // MCP-AUTH-092, OAUTH21-5.3.2-1
        DenialReason::SeveralCredentials | DenialReason::MalformedCredentials => Answer::BadRequest,
        // MCP-AUTH-076, OAUTH21-5.3.2-2
        DenialReason::NoCredentials | DenialReason::OtherScheme | DenialReason::TokenOutsideHeader => {
            Answer::Unauthenticated
        }
        // MCP-AUTH-076, RFC9068-4-6, RFC7662-2.2-2
        DenialReason::Token(_)
        | DenialReason::OpaqueToken
        | DenialReason::UnknownIssuer
        | DenialReason::UnknownKey
        | DenialReason::TokenType
        | DenialReason::Claim(_)
        | DenialReason::Audience
        | DenialReason::Expired
        | DenialReason::NotYetValid
        | DenialReason::BoundToKey
        | DenialReason::AuthorizationDetails
        | DenialReason::IdToken
        | DenialReason::Inactive
        | DenialReason::IntrospectionAnswer => Answer::InvalidToken,
        // MCP-AUTH-091, MCP-AUTH-100
        DenialReason::InsufficientScope => Answer::InsufficientScope,
        DenialReason::LocalPolicy | DenialReason::Origin => Answer::Forbidden,
        DenialReason::KeysUnavailable
        | DenialReason::IntrospectionFailed(_)
        | DenialReason::IntrospectionRefused(_) => Answer::Unavailable,
    }
}

/// A refusal, complete: status, challenge and body for the peer, the reason for the host.
#[derive(Debug)]
#[must_use = "the peer waits for an answer, and the request must not be handled"]
pub struct Denial(Box<Interior>);

#[derive(Debug)]
struct Interior {
    reason: DenialReason,
    issuer: Option<Issuer>,
    /// Of the key name that was not known.
    kid: Option<SecretDigest>,
    /// Of the token, where a cache was asked for it.
    token: Option<SecretDigest>,
    server: ResourceServer,
    challenge: BearerChallenge,
}

impl Denial {
    pub(super) fn new(server: &ResourceServer, required: &RequiredScopes, reason: DenialReason) -> Self {
        let (code, description) = match answer(reason) {
            Answer::BadRequest => (
                Some(BearerErrorCode::InvalidRequest),
                Some("send one access token, as Bearer in one Authorization header"),
            ),
            // OAUTH21-5.3.2-2
            Answer::Unauthenticated | Answer::Forbidden | Answer::Misdirected | Answer::Unavailable => {
                (None, None)
            }
            // OAUTH21-5.3.1-5
            Answer::InvalidToken => {
                (Some(BearerErrorCode::InvalidToken), Some("the access token is not valid for this resource"))
            }
            // MCP-AUTH-103
            Answer::InsufficientScope => (
                Some(BearerErrorCode::InsufficientScope),
                Some("the access token lacks a scope this operation needs"),
            ),
        };
        // MCP-AUTH-014, MCP-AUTH-101, MCP-AUTH-105, MCP-L1125-001: all scopes of the operation at once, those the token has among
        // them (MCP-AUTH-104: nothing is remembered of a client), and none of other operations (MCP-SBP-050), listed
        // in the document or not (MCP-AUTH-015). A bad request and a local refusal are not mended by scopes.
        let scope = match answer(reason) {
            Answer::Unauthenticated | Answer::InvalidToken | Answer::InsufficientScope => {
                required.to_parameter()
            }
            Answer::BadRequest | Answer::Forbidden | Answer::Misdirected | Answer::Unavailable => None,
        };
        let challenge = BearerChallenge {
            scope,
            error: code.map(|code| String::from(code.as_str())),
            error_description: description.map(String::from),
            // MCP-L0618-001, MCP-DISC-005, MCP-AUTH-102, OAUTH21-5.3.1-2, RFC9728-5.1-1; each denial points at the document as it is
            // now (RFC9728-5.2-2).
            resource_metadata: Some(server.0.metadata_url.clone()),
            ..BearerChallenge::default()
        };
        Self(Box::new(Interior {
            reason,
            issuer: None,
            kid: None,
            token: None,
            server: server.clone(),
            challenge,
        }))
    }

    pub(super) fn of_issuer(mut self, issuer: &Issuer) -> Self {
        self.0.issuer = Some(issuer.clone());
        self
    }

    /// Remembers, by digest, which key name is not known. A token without one asks for the issuer's only key.
    pub(super) fn for_key(mut self, kid: Option<&str>) -> Self {
        self.0.kid = Some(SecretDigest::of(kid.unwrap_or_default().as_bytes()));
        self
    }

    pub(super) fn of_token(mut self, digest: Option<SecretDigest>) -> Self {
        self.0.token = digest;
        self
    }

    pub(super) fn kid(&self) -> Option<SecretDigest> {
        self.0.kid
    }

    pub(super) fn token(&self) -> Option<SecretDigest> {
        self.0.token
    }

    pub(super) fn server(&self) -> &ResourceServer {
        &self.0.server
    }

    /// Why, for the host's logs and counters. The peer is not told.
    pub fn reason(&self) -> DenialReason {
        self.0.reason
    }

    /// The configured issuer whose token it was, where that is known: a host that sees
    /// [`DenialReason::UnknownKey`] may fetch that issuer's keys again.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.0.issuer.as_ref()
    }

    /// The status code: 400, 401, 403, 421 or 503.
    pub fn status(&self) -> u16 {
        match answer(self.0.reason) {
            Answer::BadRequest => 400,
            Answer::Unauthenticated | Answer::InvalidToken => 401,
            Answer::InsufficientScope | Answer::Forbidden => 403,
            Answer::Misdirected => 421,
            Answer::Unavailable => 503,
        }
    }

    /// The value of the `WWW-Authenticate` field; a 421 and a 503 have none, as no credentials would help.
    pub fn challenge(&self) -> Option<String> {
        match answer(self.0.reason) {
            Answer::Unavailable | Answer::Misdirected => None,
            // OAUTH21-5.3.1-1, OAUTH21-5.3.1-2, OAUTH21-5.3.1-3, OAUTH21-5.3.1-4: one Bearer challenge, with at least the metadata's place.
            Answer::BadRequest
            | Answer::Unauthenticated
            | Answer::InvalidToken
            | Answer::InsufficientScope
            | Answer::Forbidden => Some(self.0.challenge.render()),
        }
    }

    /// The answer.
    pub fn respond(&self) -> Respond {
        let challenge = &self.0.challenge;
        let body = match (&challenge.error, &challenge.error_description) {
            (Some(error), Some(description)) => ObjectWriter::new()
                .string("error", error.as_str())
                .string("error_description", description.as_str()),
            _ => ObjectWriter::new().string("message", self.message()),
        };
        let mut response =
            Respond::json(self.status(), body.finish()).with_header("cache-control", "no-store");
        if let Some(challenge) = self.challenge() {
            response = response.with_header("www-authenticate", challenge);
        }
        if let Answer::Unavailable = answer(self.0.reason) {
            response = response.with_header("retry-after", RETRY_SECONDS.to_string());
        }
        response
    }

    fn message(&self) -> &'static str {
        match answer(self.0.reason) {
            Answer::Unauthenticated => {
                "an access token is needed; the WWW-Authenticate header says where to get one"
            }
            Answer::Forbidden => "the request is not allowed",
            Answer::Misdirected => "this server does not answer for the host of the request",
            Answer::Unavailable => "the access token cannot be checked at the moment",
            Answer::BadRequest | Answer::InvalidToken | Answer::InsufficientScope => "the request is refused",
        }
    }
}

/// When to come back after a 503, in seconds.
const RETRY_SECONDS: u8 = 5;
