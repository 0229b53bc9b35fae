//! Error codes of the wire and the text that comes with them (OAuth 2.1 sections 3.2.4, 4.1.2.1 and 5.3.2,
//! RFC 7591 section 3.2.2, RFC 7009 section 2.2.1, RFC 8707 section 2).
//!
//! Each place an error can stand has a code type of its own, open at the end: a code we do not know is kept as
//! filtered text. The text a peer adds is for a person who asks for it; no `Display` of this crate shows it.

use alloc::string::String;
use core::fmt;

use crate::limits;

use super::read::Document;
use super::{Malformed, PageUri};

/// Text of an error in the characters the specifications allow: `%x20-21`, `%x23-5B`, `%x5D-7E`; one byte to
/// [`limits::ERROR_TEXT_BYTES`].
///
/// It was written by the peer: show it only as such. `Debug` gives its length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorText(String);

impl ErrorText {
    /// Keeps the allowed characters up to the limit and drops the rest; `None` when nothing is left.
    pub fn filtered(text: &str) -> Option<Self> {
        // OAUTH21-3.2.4-7, OAUTH21-3.2.4-8
        let kept: String =
            text.chars().filter(|c| is_error_text(*c)).take(limits::ERROR_TEXT_BYTES).collect();
        if kept.is_empty() { None } else { Some(Self(kept)) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorText({} bytes)", self.0.len())
    }
}

fn is_error_text(c: char) -> bool {
    matches!(c, ' '..='!' | '#'..='[' | ']'..='~')
}

/// A code this crate has no name for: one to 64 bytes of the characters of [`ErrorText`]. `Debug` gives its length.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownCode(String);

impl UnknownCode {
    /// The code as the peer wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownCode({} bytes)", self.0.len())
    }
}

macro_rules! error_code {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// Any other code.
            Other(UnknownCode),
        }

        impl $name {
            /// Reads a code, case and all.
            ///
            /// # Errors
            /// [`Malformed`] for an empty code, one longer than 64 bytes, or one with characters outside the grammar:
            /// such text is not passed on.
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    // OAUTH21-3.2.4-8
                    "" => Err(Malformed::Missing("error")),
                    _ if text.len() > limits::ERROR_CODE_BYTES || !text.chars().all(is_error_text) => {
                        Err(Malformed::Invalid("error"))
                    }
                    _ => Ok(Self::Other(UnknownCode(text.into()))),
                }
            }

            /// The code on the wire. That of `Other` was written by the peer.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(code) => code.as_str(),
                }
            }
        }
    };
}

error_code!(
    /// Errors of the authorization endpoint, delivered in the redirect (OAuth 2.1 section 4.1.2.1).
    AuthorizationErrorCode {
        /// A parameter is missing, repeated or wrong.
        InvalidRequest = "invalid_request",
        /// This client may not ask for a code this way.
        UnauthorizedClient = "unauthorized_client",
        /// The resource owner or the server's policy denied it.
        AccessDenied = "access_denied",
        /// The server does not issue codes this way.
        UnsupportedResponseType = "unsupported_response_type",
        /// The scope is unknown, malformed or too wide.
        InvalidScope = "invalid_scope",
        /// The server failed.
        ServerError = "server_error",
        /// The server cannot serve now.
        TemporarilyUnavailable = "temporarily_unavailable",
        /// The resource is unknown or not acceptable (RFC 8707 section 2).
        InvalidTarget = "invalid_target",
        /// Request objects are not supported (RFC 9101 section 7).
        RequestNotSupported = "request_not_supported",
        /// Request objects by reference are not supported (RFC 9101 section 7).
        RequestUriNotSupported = "request_uri_not_supported",
        /// Authorization details are not supported or not acceptable (RFC 9396 section 5).
        InvalidAuthorizationDetails = "invalid_authorization_details",
        /// `prompt=none`, but the person must sign in (OpenID Connect Core section 3.1.2.6).
        LoginRequired = "login_required",
        /// `prompt=none`, but the person must consent (OpenID Connect Core section 3.1.2.6).
        ConsentRequired = "consent_required",
    }
);

error_code!(
    /// Errors of the token, revocation and introspection endpoints (OAuth 2.1 section 3.2.4).
    TokenErrorCode {
        /// A parameter is missing, repeated or wrong.
        InvalidRequest = "invalid_request",
        /// The client is unknown or did not authenticate.
        InvalidClient = "invalid_client",
        /// The code or refresh token is unknown, expired, revoked or another client's.
        InvalidGrant = "invalid_grant",
        /// The client may not use this grant type.
        UnauthorizedClient = "unauthorized_client",
        /// The server does not have this grant type.
        UnsupportedGrantType = "unsupported_grant_type",
        /// The scope is malformed, unknown or beyond the grant.
        InvalidScope = "invalid_scope",
        /// The resource is unknown or not acceptable (RFC 8707 section 2).
        InvalidTarget = "invalid_target",
        /// This kind of token cannot be revoked (RFC 7009 section 2.2.1).
        UnsupportedTokenType = "unsupported_token_type",
        /// The server failed; not defined for this endpoint, yet sent by servers in use.
        ServerError = "server_error",
        /// The server cannot serve now; not defined for this endpoint, yet sent by servers in use.
        TemporarilyUnavailable = "temporarily_unavailable",
    }
);

error_code!(
    /// Errors in the challenge of a resource server (OAuth 2.1 section 5.3.2).
    BearerErrorCode {
        /// The request is malformed, or presents more than one credential.
        InvalidRequest = "invalid_request",
        /// The token is expired, revoked, malformed or not for this resource.
        InvalidToken = "invalid_token",
        /// The token lacks scope.
        InsufficientScope = "insufficient_scope",
        /// The person must authenticate anew or more strongly (RFC 9470 section 3).
        InsufficientUserAuthentication = "insufficient_user_authentication",
    }
);

error_code!(
    /// Errors of the registration endpoint (RFC 7591 section 3.2.2).
    RegistrationErrorCode {
        /// A redirect URI is not acceptable.
        InvalidRedirectUri = "invalid_redirect_uri",
        /// A member of the client metadata is not acceptable.
        InvalidClientMetadata = "invalid_client_metadata",
        /// The software statement is invalid.
        InvalidSoftwareStatement = "invalid_software_statement",
        /// The software statement is not approved.
        UnapprovedSoftwareStatement = "unapproved_software_statement",
    }
);

/// What comes with an error code: text for the developer and a link, both optional and both the peer's words. `Debug` says
/// whether they are there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// `error_description`.
    pub description: Option<ErrorText>,
    /// `error_uri`; one that is no https link is dropped.
    pub uri: Option<PageUri>,
}

impl fmt::Debug for ErrorDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // I-P8
        let uri = self.uri.as_ref().map(|_| "a link of the peer's");
        f.debug_struct("ErrorDetail").field("description", &self.description).field("uri", &uri).finish()
    }
}

impl ErrorDetail {
    /// No detail.
    pub const NONE: Self = Self { description: None, uri: None };

    /// Our own words, for a server's answer.
    pub fn of(description: &str) -> Self {
        Self { description: ErrorText::filtered(description), uri: None }
    }

    pub(super) fn write(&self, document: Document) -> Document {
        document
            .text("error_description", self.description.as_ref().map(ErrorText::as_str))
            .page("error_uri", self.uri.as_ref())
    }

    pub(super) fn read(description: Option<&str>, uri: Option<&str>) -> Self {
        Self {
            description: description.and_then(ErrorText::filtered),
            // OAUTH21-3.2.4-7: the URI's characters are those of a strict URI; others make it no link at all
            uri: uri.and_then(|text| PageUri::new(text).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::super::arbitrary::CANARY;
    use super::*;

    #[test]
    fn known_codes_read_back_and_case_matters() {
        for text in ["invalid_request", "access_denied", "invalid_target", "login_required"] {
            let code = AuthorizationErrorCode::parse(text).unwrap();
            assert!(!matches!(code, AuthorizationErrorCode::Other(_)), "{text}");
            assert_eq!(code.as_str(), text);
        }
        assert!(matches!(TokenErrorCode::parse("Invalid_Grant"), Ok(TokenErrorCode::Other(_))));
        assert!(matches!(
            BearerErrorCode::parse("insufficient_scope"),
            Ok(BearerErrorCode::InsufficientScope)
        ));
    }

    #[test]
    fn a_code_outside_the_grammar_or_limit_is_refused() {
        // OAUTH21-3.2.4-8
        for text in ["", "a\"b", "a\\b", "a\nb", "ä", &"a".repeat(limits::ERROR_CODE_BYTES + 1)] {
            assert!(RegistrationErrorCode::parse(text).is_err(), "{text:?}");
        }
        assert!(RegistrationErrorCode::parse(&"a".repeat(limits::ERROR_CODE_BYTES)).is_ok());
    }

    #[test]
    fn a_long_text_is_cut() {
        // I-G1
        let kept = ErrorText::filtered(&"a\n".repeat(10 * limits::ERROR_TEXT_BYTES)).unwrap();
        assert_eq!(kept.as_str(), "a".repeat(limits::ERROR_TEXT_BYTES));
    }

    #[test]
    fn the_peers_words_are_in_no_debug_output() {
        let code = TokenErrorCode::parse(CANARY).unwrap();
        let detail = ErrorDetail::of(CANARY);
        assert_eq!(detail.description.as_ref().unwrap().as_str(), CANARY);
        assert!(!format!("{code:?} {detail:?}").contains(CANARY));
    }

    proptest! {
        #[test]
        fn kept_text_is_bounded_and_within_its_characters(text: String) {
            // OAUTH21-3.2.4-7
            if let Some(kept) = ErrorText::filtered(&text) {
                let kept = kept.as_str().to_string();
                prop_assert!(!kept.is_empty() && kept.len() <= limits::ERROR_TEXT_BYTES);
                prop_assert!(kept.bytes().all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)));
            }
        }
    }
}
