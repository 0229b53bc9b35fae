//! Whether an ID token says who signed in, for this client and for this request: OpenID Connect Core section 3.1.3.7.
//!
//! | step | check |
//! |---|---|
//! | 2 | `iss` is the provider's issuer, byte for byte |
//! | 3 | `aud` holds this client |
//! | 4, 5 | `azp` is this client where it is there, and it is there where `aud` holds others |
//! | 6, 7, 8 | the signature is of a key the provider publishes, with that key's algorithm; nothing unsigned, no shared secret |
//! | 9 | `exp` lies ahead |
//! | 10 | `iat` does not, nor before the request |
//! | 11 | `nonce` is the request's |
//!
//! Steps 12 and 13 are about what this client does not ask for, and step 1 about encryption, which it does not take.

use alloc::string::String;
use core::fmt::{self, Write as _};

use crate::error::IdTokenFault;
use crate::evidence::{IssuerMatched, NonceMatched};
use crate::identifier::{ClientId, Issuer};
use crate::jose::{JwtBuffer, KeySet, UnverifiedJwt};
use crate::limits;
use crate::message::Malformed;
use crate::message::id_token::IdTokenClaims;
use crate::secret::{IdToken, SecretDigest};
use crate::time::OffsetDateTime;

/// What an ID token is compared with.
pub(super) struct IdTokenExpected<'e> {
    pub(super) issuer: &'e IssuerMatched,
    pub(super) client_id: &'e ClientId,
    pub(super) nonce: &'e SecretDigest,
    /// When it was asked for.
    pub(super) begun: OffsetDateTime,
}

/// One identifier for provider and person, different for any other pair: the issuer, a `#`, and the provider's subject with
/// every byte but letters, digits, `-`, `.`, `_` and `~` percent-encoded.
///
/// No mail address or name has part in it, because a provider may give those to somebody else.
pub fn local_subject(issuer: &Issuer, subject: &str) -> String {
    // OIDCC-5.7-1: an issuer has no fragment, so the first `#` ends it.
    let mut text = String::from(issuer.as_str());
    text.push('#');
    for byte in subject.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _: fmt::Result = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Who signed in: what an ID token said that passed every check. It holds no token.
#[derive(Debug)]
pub struct SignedIn {
    issuer: IssuerMatched,
    nonce: NonceMatched,
    subject: String,
    name: Option<String>,
    authenticated: OffsetDateTime,
}

impl SignedIn {
    /// The provider.
    pub fn issuer(&self) -> &Issuer {
        self.issuer.issuer()
    }

    /// The evidence for the issuer.
    pub fn issuer_matched(&self) -> &IssuerMatched {
        &self.issuer
    }

    /// The evidence that the token was made for the request this browser began.
    pub fn nonce_matched(&self) -> &NonceMatched {
        &self.nonce
    }

    /// The person as the provider knows them: unique there, and nowhere else.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// One identifier for provider and person ([`local_subject`]).
    pub fn local_subject(&self) -> String {
        local_subject(self.issuer(), &self.subject)
    }

    /// What the provider calls the person; a peer's text, to be escaped, and no identity.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// When the person authenticated, as far as the provider says; else when the token was issued.
    pub fn authenticated(&self) -> OffsetDateTime {
        self.authenticated
    }

    /// Reads who signed in from an ID token.
    pub(super) fn of(
        token: &IdToken,
        keys: &KeySet,
        expected: &IdTokenExpected<'_>,
        now: OffsetDateTime,
    ) -> Result<Self, IdTokenFault> {
        let mut buffer = JwtBuffer::new();
        // OIDCC-3.1.3.7-5, OIDCC-3.1.3.7-6: unsigned tokens and shared secrets have no algorithm here.
        let jwt = UnverifiedJwt::parse(token.expose(), &mut buffer)?;
        // RFC8725-3.11-1: an ID token says nothing of its type, or that it is a JWT; every other type is another token's.
        if jwt.token_type().is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT")) {
            return Err(IdTokenFault::Kind);
        }
        // OIDCC-3.1.3.7-5: the key decides the algorithm, and is one that the provider publishes.
        let key = keys.find(jwt.kid(), jwt.algorithm()).map_err(|_| IdTokenFault::UnknownKey)?;
        let verified = jwt.verify(key)?;
        let claims = IdTokenClaims::read(verified.claims())?;
        if claims.typ.is_some_and(|kind| kind != "ID") {
            return Err(IdTokenFault::Kind);
        }
        // OIDCC-3.1.3.7-1
        let issuer = expected.issuer.repeated(claims.iss).ok_or(IdTokenFault::Issuer)?;
        let ours = expected.client_id.as_str();
        // OIDCC-3.1.3.7-2
        if !claims.aud.iter().any(|audience| audience == ours) {
            return Err(IdTokenFault::Audience);
        }
        // OIDCC-3.1.3.7-3, OIDCC-3.1.3.7-4
        let has_others = claims.aud.iter().any(|audience| audience != ours);
        if claims.azp.map_or(has_others, |party| party != ours) {
            return Err(IdTokenFault::AuthorizedParty);
        }
        let (now, begun) = (now.unix_timestamp(), expected.begun.unix_timestamp());
        let leeway = limits::CLOCK_LEEWAY_SECONDS;
        // OIDCC-3.1.3.7-7
        if claims.exp.saturating_add(leeway) <= now {
            return Err(IdTokenFault::Expired);
        }
        // OIDCC-3.1.3.7-8: nobody makes a token for a request that is not there yet.
        let latest = now.saturating_add(leeway);
        let starts = claims.nbf.unwrap_or(claims.iat);
        if claims.iat > latest || starts > latest || claims.iat < begun.saturating_sub(leeway) {
            return Err(IdTokenFault::IssuedAt);
        }
        // OIDCC-3.1.3.7-9, I-P3
        let nonce = claims.nonce.and_then(|nonce| NonceMatched::compare(expected.nonce, nonce));
        let nonce = nonce.ok_or(IdTokenFault::Nonce)?;
        let authenticated = claims.auth_time.unwrap_or(claims.iat).min(now);
        Ok(Self {
            issuer,
            nonce,
            subject: String::from(claims.sub),
            name: claims.name.map(String::from),
            authenticated: OffsetDateTime::from_unix_timestamp(authenticated)
                .map_err(|_| Malformed::Invalid("auth_time"))?,
        })
    }
}
