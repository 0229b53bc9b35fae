//! Secrets: redacted in `Debug`, erased on drop, without `PartialEq`, `Hash`, `Display` or serde.
//!
//! Two secrets are compared by their SHA-256 digests in constant time (I-G6). The text of a secret leaves only
//! through `expose`, which hosts call in the places `docs/audit.md` lists.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::erased::Erased;
use crate::limits;

/// The SHA-256 of a secret: what server stores hold instead of it.
///
/// Equality takes the same time wherever the first difference lies. A digest of 256 random bits gives nothing
/// away, so it has a plain `Debug` and may be stored and indexed.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// Digests any bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest read back from a store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        // Whole words instead of bytes: whether one differs is asked once, at the end.
        let words = self.0.as_chunks::<8>().0.iter().zip(other.0.as_chunks::<8>().0);
        let differing =
            words.fold(0, |all, (own, other)| all | (u64::from_ne_bytes(*own) ^ u64::from_ne_bytes(*other)));
        differing.ct_eq(&0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(")?;
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…)")
    }
}

/// Text that is no secret of its kind: empty, too long, or with bytes outside the kind's grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed {kind}: it must be 1 to {limit} bytes of the characters its grammar allows")]
pub struct InvalidSecret {
    kind: &'static str,
    limit: usize,
}

/// RFC 6749 appendix A: `%x20-7E`.
fn is_vschar(byte: u8) -> bool {
    (0x20..=0x7e).contains(&byte)
}

/// RFC 9110 section 11.2 token68 characters before the padding.
fn is_token68(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = text.split_at_checked(text.len().saturating_sub(padding)).map_or(text, |(body, _)| body);
    // Without a branch per byte: this runs over every token of every request.
    let allowed = |byte: u8| {
        (byte | 0x20).is_ascii_lowercase()
            // The digits, and `-`, `.` and `/` before them.
            | (b'-'..=b'9').contains(&byte)
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
    };
    !body.is_empty() && body.iter().fold(true, |all, byte| all & allowed(*byte))
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Erased<String>);

        impl $name {
            /// Takes text of the kind's grammar and length.
            ///
            /// # Errors
            /// [`InvalidSecret`] when it is empty, too long or has other characters; the text is not repeated.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidSecret> {
                let text = Erased::new(text.into());
                let valid: fn(&[u8]) -> bool = $valid;
                if text.is_empty() || text.len() > $limit || !valid(text.as_bytes()) {
                    return Err(InvalidSecret { kind: $kind, limit: $limit });
                }
                Ok(Self(text))
            }

            /// The text itself, for the one request or record it exists for.
            pub fn expose(&self) -> &str {
                &self.0
            }

            /// Its SHA-256, for comparison and for stores.
            pub fn digest(&self) -> SecretDigest {
                SecretDigest::of(self.0.as_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret!(
    /// An access token: attached to requests for its resource and to nothing else (OAuth 2.1 section 1.4).
    ///
    /// Its text is a token68, so that it fits an `Authorization` field without an escape (RFC 6750 section 2.1,
    /// I-L9): no line break, quote or space gets in.
    AccessToken, "access token", limits::TOKEN_BYTES, is_token68
);
secret!(
    /// A refresh token: sent to the token and revocation endpoint of its issuer only (OAuth 2.1 section 1.3.2).
    RefreshToken, "refresh token", limits::TOKEN_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);
secret!(
    /// An authorization code: single use, bound to client, redirect URI and verifier (OAuth 2.1 section 4.1).
    AuthorizationCode, "authorization code", limits::CODE_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);
secret!(
    /// A PKCE code verifier: 43 to 128 unreserved characters (RFC 7636 section 4.1).
    CodeVerifier, "code verifier", 128, |text| {
        // RFC7636-4.1-1
        text.len() >= 43
            && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
    }
);
secret!(
    /// A client secret (OAuth 2.1 section 2.4.1).
    ClientSecret, "client secret", limits::TOKEN_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);
secret!(
    /// An initial or registration access token (RFC 7591 section 3, RFC 7592 section 3).
    RegistrationToken, "registration access token", limits::TOKEN_BYTES, is_token68
);
secret!(
    /// A `state` value: ties a callback to the request that caused it (OAuth 2.1 section 4.1.1).
    State, "state", limits::STATE_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);
secret!(
    /// A `nonce` value: ties an ID token to the request that caused it (OpenID Connect Core section 3.1.2.1).
    Nonce, "nonce", limits::STATE_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);
secret!(
    /// An ID token as a provider sent it: read once, and dropped (OpenID Connect Core section 2).
    IdToken, "ID token", limits::TOKEN_BYTES, is_token68
);
/// A token as it was presented to a resource server, of unknown kind until it is verified (RFC 6750).
///
/// It shares the bytes of the field it came in: of an inbound token there is one copy.
#[derive(Clone)]
pub struct BearerToken {
    field: Arc<Erased<Vec<u8>>>,
    start: usize,
}

impl BearerToken {
    /// What stands in a field from there to its end.
    ///
    /// # Errors
    /// [`InvalidSecret`] when that is empty, too long or no token68.
    pub(crate) fn in_field(field: &Arc<Erased<Vec<u8>>>, start: usize) -> Result<Self, InvalidSecret> {
        let token = Self { field: Arc::clone(field), start };
        let bytes = token.bytes();
        if bytes.len() > limits::TOKEN_BYTES || !is_token68(bytes) {
            return Err(InvalidSecret { kind: "bearer token", limit: limits::TOKEN_BYTES });
        }
        Ok(token)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.field.get(self.start..).unwrap_or_default()
    }

    /// The text itself, for the request that asks about it or exchanges it.
    pub fn expose(&self) -> &str {
        // A token68 is ASCII.
        core::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// Its SHA-256, for a cache.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest::of(self.bytes())
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(redacted)")
    }
}

secret!(
    /// Text a peer submitted as a token of a kind yet to be found out: to be revoked or introspected (RFC 7009
    /// section 2.1, RFC 7662 section 2.1), or as a client assertion (RFC 7521 section 4.2).
    SubmittedToken, "submitted token", limits::TOKEN_BYTES, |text| text.iter().all(|byte| is_vschar(*byte))
);

/// Bytes of an outgoing message that hold a secret: erased on drop, redacted in `Debug`.
#[derive(Clone)]
pub struct SecretBytes(Erased<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Erased::new(bytes))
    }

    /// The bytes, for the one request they are the body of.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes, redacted)", self.0.len())
    }
}

/// What stands in for the browser of a person: equal only for the same browser session, or for this process.
///
/// A web host makes a random nonce per browser session, keeps it in a `__Host-` cookie and passes it here; only
/// its digest is kept. A program that listens on a loopback port for the one login it started uses
/// [`AgentBinding::this_process`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentBinding(AgentBindingKind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AgentBindingKind {
    Session(SecretDigest),
    ThisProcess,
}

impl AgentBinding {
    /// The binding to a browser session, from the nonce in its cookie.
    ///
    /// # Errors
    /// [`InvalidSecret`] for fewer than 16 bytes: an empty or short nonce binds nobody (I-G8, I-G10).
    pub fn session(nonce: &[u8]) -> Result<Self, InvalidSecret> {
        if nonce.len() < 16 {
            return Err(InvalidSecret {
                kind: "browser session nonce of at least 16 bytes",
                limit: usize::MAX,
            });
        }
        Ok(Self(AgentBindingKind::Session(SecretDigest::of(nonce))))
    }

    /// The binding to this process, for a loopback listener.
    pub const fn this_process() -> Self {
        Self(AgentBindingKind::ThisProcess)
    }

    /// The stored form: 33 bytes, the kind and the digest.
    pub fn to_bytes(self) -> [u8; 33] {
        let mut bytes = [0_u8; 33];
        if let AgentBindingKind::Session(digest) = self.0 {
            let (kind, rest) = bytes.split_at_mut(1);
            kind.fill(1);
            rest.copy_from_slice(digest.as_bytes());
        }
        bytes
    }

    /// Reads the stored form; anything else is `None`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, digest) = bytes.split_first()?;
        let digest: [u8; 32] = digest.try_into().ok()?;
        match kind {
            0 if digest == [0; 32] => Some(Self::this_process()),
            1 => Some(Self(AgentBindingKind::Session(SecretDigest::from_bytes(digest)))),
            _ => None,
        }
    }
}

/// A fresh secret of 256 random bits, made by the core.
pub(crate) fn fresh<S>(
    entropy: &mut dyn crate::entropy::Entropy,
    make: fn(String) -> Result<S, InvalidSecret>,
) -> Result<S, crate::entropy::EntropyUnavailable> {
    let bytes = crate::entropy::draw::<32>(entropy)?;
    make(crate::entropy::text_of(&bytes)).map_err(|_| crate::entropy::EntropyUnavailable)
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use std::format;
    use std::string::String;

    use proptest::prelude::*;

    use super::{
        AccessToken, AgentBinding, AuthorizationCode, BearerToken, ClientSecret, CodeVerifier, Erased,
        InvalidSecret, RefreshToken, RegistrationToken, State, SubmittedToken,
    };
    use crate::limits;

    /// Whether each kind of secret takes the text, and how long it may be.
    fn kinds(text: &str) -> [(&'static str, usize, bool); 8] {
        [
            ("access token", limits::TOKEN_BYTES, AccessToken::new(text).is_ok()),
            ("refresh token", limits::TOKEN_BYTES, RefreshToken::new(text).is_ok()),
            ("code", limits::CODE_BYTES, AuthorizationCode::new(text).is_ok()),
            ("client secret", limits::TOKEN_BYTES, ClientSecret::new(text).is_ok()),
            ("registration token", limits::TOKEN_BYTES, RegistrationToken::new(text).is_ok()),
            ("state", limits::STATE_BYTES, State::new(text).is_ok()),
            ("submitted token", limits::TOKEN_BYTES, SubmittedToken::new(text).is_ok()),
            ("bearer token", limits::TOKEN_BYTES, bearer(text).is_ok()),
        ]
    }

    fn bearer(text: &str) -> Result<BearerToken, InvalidSecret> {
        let field = format!("Bearer {text}").into_bytes();
        BearerToken::in_field(&Arc::new(Erased::new(field)), "Bearer ".len())
    }

    // I-G8, I-G1, I-L9
    #[test]
    fn a_secret_is_neither_empty_nor_longer_than_its_kind_may_be() {
        for (kind, limit, empty) in kinds("") {
            assert!(!empty, "an empty {kind}");
            for (length, allowed) in [(1, true), (limit, true), (limit + 1, false)] {
                let taken = kinds(&"a".repeat(length)).into_iter().find(|known| known.0 == kind);
                assert_eq!(taken.unwrap().2, allowed, "{kind} of {length} bytes");
            }
        }
    }

    // I-A8, I-L9
    #[test]
    fn no_secret_has_a_line_break_or_a_character_beyond_ascii() {
        for text in ["a\r\nb", "a\nb", "a\0", "a\u{7f}", "ä", "a\tb"] {
            for (kind, _, taken) in kinds(text) {
                assert!(!taken, "{kind}: {text:?}");
            }
        }
    }

    // I-A10
    #[test]
    fn a_token_that_is_presented_is_a_token68_and_more_than_its_padding() {
        for (text, taken) in
            [("a", true), ("a==", true), ("-._~+/09", true), ("=", false), ("==", false), ("a=b", false)]
        {
            assert_eq!(AccessToken::new(text).is_ok(), taken, "{text}");
            assert_eq!(bearer(text).is_ok(), taken, "{text}");
        }
        for text in ["a b", "a,b", "a\"b", "a:b"] {
            assert!(AccessToken::new(text).is_err() && bearer(text).is_err(), "{text}");
        }
    }

    // RFC7636-4.1-1, I-C7
    #[test]
    fn a_verifier_has_43_to_128_unreserved_characters() {
        for (length, taken) in [(0, false), (1, false), (42, false), (43, true), (128, true), (129, false)] {
            assert_eq!(CodeVerifier::new("a".repeat(length)).is_ok(), taken, "{length}");
        }
    }

    // I-G10, I-G8: a browser session has a nonce that nobody guesses.
    #[test]
    fn a_short_nonce_binds_nobody() {
        for length in 0..40 {
            assert_eq!(AgentBinding::session(&[7; 40][..length]).is_ok(), length >= 16, "{length}");
        }
    }

    // I-P9
    #[test]
    fn the_stored_form_of_a_binding_is_the_only_one() {
        let session = AgentBinding::session(&[7; 16]).unwrap();
        for binding in [session, AgentBinding::this_process()] {
            assert_eq!(AgentBinding::from_bytes(&binding.to_bytes()), Some(binding));
        }
        let mut bytes = session.to_bytes();
        for kind in [0, 2, 255] {
            bytes[0] = kind;
            assert_eq!(AgentBinding::from_bytes(&bytes), None, "kind {kind} with the digest of a session");
        }
        let process = AgentBinding::this_process().to_bytes();
        for at in 1..33 {
            let mut changed = process;
            changed[at] = 1;
            assert_eq!(AgentBinding::from_bytes(&changed), None, "byte {at}");
        }
        for length in [0, 1, 32] {
            assert_eq!(AgentBinding::from_bytes(&process[..length]), None);
        }
        assert_eq!(AgentBinding::from_bytes(&[0; 34]), None);
    }

    proptest! {
        // I-C7
        #[test]
        fn a_verifier_is_what_its_grammar_says(text in "[ -~ä\n]{40,130}") {
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let grammar = (43..=128).contains(&text.len()) && text.bytes().all(unreserved);
            prop_assert_eq!(CodeVerifier::new(text).is_ok(), grammar);
        }

        // I-C7: one character of another kind, wherever it stands.
        #[test]
        fn a_verifier_with_one_other_character_is_none(
            text in "[A-Za-z0-9._~-]{43,127}", at in any::<proptest::sample::Index>(), other in "[ !-,/:-@\\[-^`{-}ä]",
        ) {
            prop_assert!(CodeVerifier::new(text.as_str()).is_ok());
            let at = at.index(text.len());
            let changed: String = [&text[..at], &other, &text[at..]].concat();
            prop_assert!(CodeVerifier::new(changed).is_err());
        }

        // I-G7
        #[test]
        fn no_secret_shows_itself(text in "[A-Za-z0-9]{60,80}") {
            let shown = [
                format!("{:?}", AccessToken::new(text.as_str()).unwrap()),
                format!("{:?}", CodeVerifier::new(text.as_str()).unwrap()),
                format!("{:?}", State::new(text.as_str()).unwrap()),
                format!("{:?}", bearer(&text).unwrap()),
                format!("{:?}", CodeVerifier::new(format!("{text}{text}{text}")).map(|_| ()).unwrap_err()),
                format!("{}", AccessToken::new(format!("{text}\n")).unwrap_err()),
            ];
            prop_assert!(shown.iter().all(|shown| !shown.contains(&text[..8])), "{:?}", shown);
        }
    }
}
