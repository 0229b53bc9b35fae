//! Proof Key for Code Exchange with S256, the only method there is here (RFC 7636, OAuth 2.1 section 4.1.1).

use alloc::string::String;
use core::fmt;

use sha2::{Digest as _, Sha256};

use crate::entropy::{Entropy, EntropyUnavailable};
use crate::secret::{self, CodeVerifier};
use crate::syntax::base64url;

/// The name of the one code challenge method.
pub const S256: &str = "S256";

/// An S256 code challenge, kept as the 32 bytes of the digest, so that a comparison needs no decoding.
#[derive(Clone, Copy)]
pub struct CodeChallenge([u8; 32]);

/// Not 43 characters of canonical base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the code challenge is not the base64url of 32 bytes")]
pub struct InvalidCodeChallenge;

impl CodeChallenge {
    /// The challenge of a verifier: SHA-256 over its ASCII bytes (RFC 7636 section 4.2).
    pub fn of(verifier: &CodeVerifier) -> Self {
        // OAUTH21-4.1.1-5
        Self(Sha256::digest(verifier.expose().as_bytes()).into())
    }

    /// Reads the parameter `code_challenge`.
    ///
    /// # Errors
    /// [`InvalidCodeChallenge`] for anything but 43 characters of canonical base64url (I-C5).
    pub fn parse(text: &str) -> Result<Self, InvalidCodeChallenge> {
        let mut bytes = [0; 32];
        // RFC7636-4.1-1: 32 bytes have one canonical text, of 43 characters.
        match base64url::decode_into(text, &mut bytes) {
            Ok(32) => Ok(Self(bytes)),
            _ => Err(InvalidCodeChallenge),
        }
    }

    /// A challenge read back from a store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text of the parameter.
    pub fn to_text(&self) -> String {
        base64url::encode(&self.0)
    }
}

impl fmt::Debug for CodeChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeChallenge(S256)")
    }
}

/// A fresh verifier: 43 characters from 256 random bits (RFC 7636 section 4.1).
pub(crate) fn new_verifier(entropy: &mut dyn Entropy) -> Result<CodeVerifier, EntropyUnavailable> {
    // OAUTH21-4.1.1-3, OAUTH21-4.1.1-4
    secret::fresh(entropy, CodeVerifier::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CodeChallenge, new_verifier};
    use crate::entropy::{Entropy, EntropyUnavailable};
    use crate::secret::CodeVerifier;

    #[test]
    fn the_vector_of_rfc_7636_appendix_b() {
        let verifier = CodeVerifier::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(CodeChallenge::of(&verifier).to_text(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    // I-C5
    #[test]
    fn only_the_canonical_text_of_32_bytes_is_a_challenge() {
        let good = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(CodeChallenge::parse(good).unwrap().to_text(), good);
        for text in [
            "",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cN",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
        ] {
            assert!(CodeChallenge::parse(text).is_err(), "{text}");
        }
    }

    struct Counting(u8);

    impl Entropy for Counting {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EntropyUnavailable> {
            self.0 = self.0.checked_sub(1).ok_or(EntropyUnavailable)?;
            buffer.fill(self.0);
            Ok(())
        }
    }

    // I-L5, OAUTH21-4.1.1-3, OAUTH21-4.1.1-4
    #[test]
    fn verifiers_are_drawn_anew_and_only_with_randomness() {
        let mut entropy = Counting(2);
        let first = new_verifier(&mut entropy).unwrap();
        let second = new_verifier(&mut entropy).unwrap();
        assert_eq!(first.expose().len(), 43);
        assert_ne!(first.expose(), second.expose());
        assert!(new_verifier(&mut entropy).is_err());
    }

    proptest! {
        // I-C7
        #[test]
        fn a_verifier_is_43_to_128_unreserved_characters(text in "[A-Za-z0-9._~+/= -]{0,140}") {
            let unreserved = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
            let expected = unreserved && (43..=128).contains(&text.len());
            prop_assert_eq!(CodeVerifier::new(text).is_ok(), expected);
        }
    }
}
