//! Why an endpoint of the authorization server refuses: the reason stays on this side, the peer gets a code.
//!
//! OAuth 2.1 section 3.2.4, RFC 7009 section 2.2.1, RFC 8707 section 2. The one function that maps a reason to
//! what goes over the wire is `TokenReason::wire`; it names every reason, so a new one does not compile until
//! somebody has decided what the peer may learn of it.

use core::fmt;

use crate::message::error_code::TokenErrorCode;
use crate::message::exchange::Respond;
use crate::message::token::TokenErrorResponse;

/// Why an endpoint for clients refused. For logs and metrics, never for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TokenReason {
    /// There is no such endpoint here.
    NoEndpoint,
    /// The method is not POST.
    NotPost,
    /// The body is no form: another media type, or bytes outside its grammar.
    NotAForm,
    /// A parameter or field came twice.
    Repeated,
    /// A required parameter is absent or empty.
    Missing(&'static str),
    /// A parameter is outside its grammar.
    Malformed(&'static str),
    /// A grant type this server does not have.
    UnsupportedGrantType,
    /// Two client authentication mechanisms in one request.
    SeveralCredentials,
    /// A client assertion beside another mechanism.
    AssertionBesideCredentials,
    /// Nothing in the request says who the client is.
    NoClient,
    /// The `Authorization` field is not Basic, or its content does not decode.
    UnreadableCredentials,
    /// A mechanism this server does not have.
    UnsupportedAuthentication,
    /// A client assertion that is malformed, not signed by the client, for somebody else, or not of now.
    AssertionInvalid,
    /// A client assertion that was used before.
    AssertionReplayed,
    /// The client's keys could not be had.
    KeysUnavailable,
    /// The client's metadata document has not been had for longer than it serves.
    DocumentUnavailable,
    /// The caller names itself and proves nothing, where proof is needed.
    CallerNotProved,
    /// No such client, or its registration has expired.
    UnknownClient,
    /// The client has a secret and did not present one.
    SecretMissing,
    /// The client has no secret and presented one.
    SecretUnexpected,
    /// The secret is another one.
    SecretWrong,
    /// The secret was right, until it expired.
    SecretExpired,
    /// The client is not registered for this grant type.
    GrantTypeNotRegistered,
    /// No such code, or its family is gone.
    CodeUnknown,
    /// The code's time is over.
    CodeExpired,
    /// The code was issued to another client.
    CodeForOtherClient,
    /// The verifier does not hash to the challenge.
    VerifierMismatch,
    /// The redirect URI is not the one of the authorization request.
    RedirectMismatch,
    /// The code was redeemed before; its family has been revoked.
    CodeReplayed,
    /// Client, person, consent or family were revoked since.
    GrantRevoked,
    /// The family's time is over.
    GrantExpired,
    /// No such refresh token.
    RefreshUnknown,
    /// The refresh token was issued to another client.
    RefreshForOtherClient,
    /// The refresh token's time is over.
    RefreshExpired,
    /// The refresh token was rotated away before; its family has been revoked.
    RefreshReused,
    /// More scope than the grant, or none that is left.
    ScopeExceeded,
    /// A resource outside the grant.
    TargetOutsideGrant,
    /// A token type the endpoint cannot revoke.
    UnsupportedTokenType,
    /// The store holds as many as it may.
    Full,
    /// The store could not be read or written.
    StoreFailed,
    /// The key holder did not sign.
    SignerFailed,
    /// The host's randomness failed.
    NoEntropy,
    /// The host gave a result that belongs to another action, or a signature of no use.
    HostMisuse,
}

/// What goes over the wire for a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) status: u16,
    /// `None`: an answer without a body, because the error is none of OAuth's (405, 500, 503).
    pub(crate) code: Option<TokenErrorCode>,
}

const fn wire(status: u16, code: TokenErrorCode) -> Wire {
    Wire { status, code: Some(code) }
}

impl TokenReason {
    /// The status and code the peer gets. Reasons a stranger could use to tell one guess from another share one
    /// answer: every fault of a code is `invalid_grant`, every fault of a credential `invalid_client`.
    pub(crate) const fn wire(self) -> Wire {
        match self {
            Self::NoEndpoint => Wire { status: 404, code: None },
            Self::NotPost => Wire { status: 405, code: None },
            // OAUTH21-3.2.4-1, OAUTH21-3.2.4-3, OAUTH21-3.2-4: 400 unless the code prescribes another status.
            Self::NotAForm
            | Self::Repeated
            | Self::Missing(_)
            | Self::Malformed(_)
            | Self::SeveralCredentials => wire(400, TokenErrorCode::InvalidRequest),
            // OAUTH21-10.1-2, OAUTH21-3.2.4-5
            Self::UnsupportedGrantType => wire(400, TokenErrorCode::UnsupportedGrantType),
            // OAUTH21-3.2.4-5
            Self::GrantTypeNotRegistered => wire(400, TokenErrorCode::UnauthorizedClient),
            // OAUTH21-3.2.4-2; D40: an unknown client is answered like a wrong secret.
            Self::AssertionBesideCredentials
            | Self::NoClient
            | Self::UnreadableCredentials
            | Self::UnsupportedAuthentication
            | Self::AssertionInvalid
            | Self::AssertionReplayed
            | Self::CallerNotProved
            | Self::UnknownClient
            | Self::SecretMissing
            | Self::SecretUnexpected
            | Self::SecretWrong
            | Self::SecretExpired => wire(401, TokenErrorCode::InvalidClient),
            // OAUTH21-3.2.4-4
            Self::CodeUnknown
            | Self::CodeExpired
            | Self::CodeForOtherClient
            | Self::VerifierMismatch
            | Self::RedirectMismatch
            | Self::CodeReplayed
            | Self::GrantRevoked
            | Self::GrantExpired
            | Self::RefreshUnknown
            | Self::RefreshForOtherClient
            | Self::RefreshExpired
            | Self::RefreshReused => wire(400, TokenErrorCode::InvalidGrant),
            // OAUTH21-3.2.4-6
            Self::ScopeExceeded => wire(400, TokenErrorCode::InvalidScope),
            // RFC8707-2-6
            Self::TargetOutsideGrant => wire(400, TokenErrorCode::InvalidTarget),
            // RFC7009-2.2.1-1
            Self::UnsupportedTokenType => wire(400, TokenErrorCode::UnsupportedTokenType),
            Self::Full => wire(503, TokenErrorCode::TemporarilyUnavailable),
            // I-G9: a failure outside is never a success, and the client may try again.
            Self::StoreFailed
            | Self::SignerFailed
            | Self::KeysUnavailable
            | Self::DocumentUnavailable
            | Self::NoEntropy => Wire { status: 503, code: None },
            Self::HostMisuse => Wire { status: 500, code: None },
        }
    }

    /// A short fixed text for the log.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoEndpoint => "there is no such endpoint",
            Self::NotPost => "the method is not POST",
            Self::NotAForm => "the body is not a form",
            Self::Repeated => "a parameter is repeated",
            Self::Missing(_) => "a required parameter is missing",
            Self::Malformed(_) => "a parameter is malformed",
            Self::UnsupportedGrantType => "unsupported grant type",
            Self::SeveralCredentials => "more than one client authentication mechanism",
            Self::AssertionBesideCredentials => "a client assertion beside other credentials",
            Self::NoClient => "no client is named",
            Self::UnreadableCredentials => "the authorization field cannot be read",
            Self::UnsupportedAuthentication => "unsupported client authentication",
            Self::AssertionInvalid => "the client assertion is not acceptable",
            Self::AssertionReplayed => "the client assertion was used before",
            Self::KeysUnavailable => "the client's keys could not be fetched",
            Self::DocumentUnavailable => "the client's metadata document could not be fetched for too long",
            Self::CallerNotProved => "the caller has to prove who it is",
            Self::UnknownClient => "unknown client",
            Self::SecretMissing => "the client did not present its secret",
            Self::SecretUnexpected => "a public client presented a secret",
            Self::SecretWrong => "wrong client secret",
            Self::SecretExpired => "the client secret has expired",
            Self::GrantTypeNotRegistered => "the client is not registered for this grant type",
            Self::CodeUnknown => "unknown code",
            Self::CodeExpired => "the code has expired",
            Self::CodeForOtherClient => "the code belongs to another client",
            Self::VerifierMismatch => "the verifier does not match the challenge",
            Self::RedirectMismatch => "the redirect URI is not the one of the request",
            Self::CodeReplayed => "the code was used before; its family is revoked",
            Self::GrantRevoked => "the grant was revoked",
            Self::GrantExpired => "the grant has expired",
            Self::RefreshUnknown => "unknown refresh token",
            Self::RefreshForOtherClient => "the refresh token belongs to another client",
            Self::RefreshExpired => "the refresh token has expired",
            Self::RefreshReused => "a retired refresh token came back; its family is revoked",
            Self::ScopeExceeded => "scope outside the grant",
            Self::TargetOutsideGrant => "resource outside the grant",
            Self::UnsupportedTokenType => "unsupported token type",
            Self::Full => "the store has no room",
            Self::StoreFailed => "the store failed",
            Self::SignerFailed => "the signer failed",
            Self::NoEntropy => "the source of randomness failed",
            Self::HostMisuse => "a result of another action was given",
        }
    }

    /// The parameter it is about.
    const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Missing(name) | Self::Malformed(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for TokenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self.parameter() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// The endpoint's refusal: [`TokenFailure::respond`] is the answer for the peer, `Display` the reason for the log.
///
/// The reason is finer than the answer; it goes to the log of this server and nowhere else.
#[must_use = "the peer waits for the answer"]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenFailure {
    reason: TokenReason,
}

impl TokenFailure {
    pub(crate) const fn new(reason: TokenReason) -> Self {
        Self { reason }
    }

    /// The answer for the peer.
    pub fn respond(&self) -> Respond {
        let wire = self.reason.wire();
        let answer = match wire.code {
            // OAUTH21-3.2.4-1, OAUTH21-3.2.4-7: a code from our own list and nothing the peer sent.
            Some(code) => Respond::json(wire.status, TokenErrorResponse::new(code).render()),
            None => Respond::new(wire.status),
        };
        // OAUTH21-3.2.3-8
        let answer = answer.with_header("cache-control", "no-store");
        match wire.status {
            // OAUTH21-3.2.4-2: Basic is the one scheme that can be tried; RFC 9110 wants a challenge on every 401.
            401 => answer.with_header("www-authenticate", "Basic realm=\"token\", charset=\"UTF-8\""),
            405 => answer.with_header("allow", "POST"),
            // What was pushed gives its place up when its time is over, a minute by default; whatever failed may work at once.
            503 if matches!(self.reason, TokenReason::Full) => answer.with_header("retry-after", "60"),
            503 => answer.with_header("retry-after", "1"),
            _ => answer,
        }
    }
}

impl fmt::Debug for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenFailure").field(&self.reason).finish()
    }
}

impl fmt::Display for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}
