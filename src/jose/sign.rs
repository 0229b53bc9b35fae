//! Signing as an action: the host, or a key-management service, holds the private key (RFC 7515 section 5.1).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::algorithm::Algorithm;
use crate::erased::Erased;
use crate::secret::SecretDigest;
use crate::syntax::base64url;
use crate::syntax::json::ObjectWriter;

/// Names a private key the host holds: the `kid` tokens will carry, and its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SigningKeyId {
    kid: String,
    algorithm: Algorithm,
}

impl SigningKeyId {
    /// The key of that name and algorithm.
    pub fn new(kid: impl Into<String>, algorithm: Algorithm) -> Self {
        Self { kid: kid.into(), algorithm }
    }

    /// The `kid`.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// The bytes a compact JWS signs: header and claims in base64url, joined by a dot (RFC 7515 section 5.1).
///
/// The header has exactly `alg`, `kid` and `typ`; `token_type` is a media subtype such as `at+jwt`.
pub fn signing_input(key: &SigningKeyId, token_type: &str, claims: &[u8]) -> Vec<u8> {
    let header = ObjectWriter::new()
        .string("alg", key.algorithm.name())
        .string("kid", &*key.kid)
        .string("typ", token_type)
        .finish();
    let mut input = base64url::encode(&header);
    input.push('.');
    input.push_str(&base64url::encode(claims));
    input.into_bytes()
}

/// Action: sign these bytes with that key.
///
/// The host signs [`Sign::input`] as it is (hashing belongs to the algorithm) and reports with [`Sign::signed`].
/// A signer that fails drops the action; the state it came from offers its own way on.
#[must_use = "the state waits for the signature"]
pub struct Sign {
    key: SigningKeyId,
    input: Erased<Vec<u8>>,
}

impl Sign {
    /// The action, and what its [`Signed`] has to answer to.
    pub(crate) fn new(key: SigningKeyId, token_type: &str, claims: &[u8]) -> (Self, AwaitedSignature) {
        let input = Erased::new(signing_input(&key, token_type, claims));
        let awaited = AwaitedSignature(SecretDigest::of(&input));
        (Self { key, input }, awaited)
    }

    /// The key to sign with.
    pub fn key(&self) -> &SigningKeyId {
        &self.key
    }

    /// The bytes to sign. With their signature they are a token: they belong in no log.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Reports the signature. ECDSA signatures have the fixed-length form of RFC 7518 section 3.4, not ASN.1.
    ///
    /// # Errors
    /// [`InvalidSignature`] with the action when no signature of the key's algorithm has this length.
    pub fn signed(self, signature: impl Into<Vec<u8>>) -> Result<Signed, InvalidSignature> {
        let signature = Erased::new(signature.into());
        if !self.key.algorithm.allows_signature_length(signature.len()) {
            return Err(InvalidSignature { action: self });
        }
        let answers = SecretDigest::of(&self.input);
        let mut token = self.input;
        token.push(b'.');
        token.extend_from_slice(base64url::encode(&signature).as_bytes());
        Ok(Signed { answers, token })
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sign").field("key", &self.key).field("input", &"redacted").finish()
    }
}

/// Bytes that cannot be a signature of the key's algorithm, and the action they were for.
#[derive(Debug, thiserror::Error)]
#[error("the signature has another length than those of the key's algorithm")]
pub struct InvalidSignature {
    /// The action, to be tried again.
    pub action: Sign,
}

/// Receipt of a [`Sign`]: made by consuming it, accepted by the one state that asked for it.
#[must_use = "the state that asked for the signature waits for it"]
pub struct Signed {
    answers: SecretDigest,
    token: Erased<Vec<u8>>,
}

impl Signed {
    /// The compact JWS, if this is the signature that was awaited.
    ///
    /// Gives the receipt back when it belongs to another action.
    pub(crate) fn into_token(self, awaited: &AwaitedSignature) -> Result<Erased<String>, Self> {
        if self.answers != awaited.0 {
            return Err(self);
        }
        match core::str::from_utf8(&self.token) {
            Ok(token) => Ok(Erased::new(String::from(token))),
            Err(_) => Err(self),
        }
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signed(redacted)")
    }
}

/// What a state keeps to recognise the receipt of its own [`Sign`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwaitedSignature(SecretDigest);

#[cfg(test)]
mod tests {
    use super::super::toy::ToyKey;
    use super::super::{JwtBuffer, KeySet, UnverifiedJwt};
    use super::*;
    use alloc::boxed::Box;

    #[test]
    fn a_signed_action_is_a_token_that_verifies() {
        let key = ToyKey::new(Algorithm::EdDsa, 7);
        let (sign, awaited) = Sign::new(key.id("k1"), "at+jwt", br#"{"iss":"https://as.example"}"#);
        let signature = key.sign(sign.input());
        let token = sign.signed(signature).unwrap().into_token(&awaited).unwrap();
        let mut buffer = JwtBuffer::new();
        let jwt = UnverifiedJwt::parse(token.as_str(), &mut buffer).unwrap();
        assert_eq!(jwt.kid(), Some("k1"));
        assert_eq!(jwt.token_type(), Some("at+jwt"));
        let keys = KeySet::new([(Some("k1".into()), Box::new(key) as Box<_>)]).unwrap();
        assert!(jwt.verify(keys.find(Some("k1"), Algorithm::EdDsa).unwrap()).is_ok());
    }

    #[test]
    fn the_receipt_of_another_action_is_given_back() {
        let key = ToyKey::new(Algorithm::EdDsa, 7);
        let (one, _) = Sign::new(key.id("k1"), "at+jwt", b"{}");
        let (_, awaited) = Sign::new(key.id("k1"), "at+jwt", br#"{"a":1}"#);
        let signature = key.sign(one.input());
        assert!(one.signed(signature).unwrap().into_token(&awaited).is_err());
    }

    #[test]
    fn a_signature_of_another_length_gives_the_action_back() {
        let (sign, _) = Sign::new(SigningKeyId::new("k1", Algorithm::Es256), "at+jwt", b"{}");
        let sign = sign.signed([0_u8; 63]).unwrap_err().action;
        let sign = sign.signed([0_u8; 72]).unwrap_err().action;
        assert!(sign.signed([0_u8; 64]).is_ok());
    }

    #[test]
    fn neither_action_nor_receipt_shows_the_token() {
        let key = ToyKey::new(Algorithm::EdDsa, 7);
        let (sign, _) = Sign::new(key.id("k1"), "at+jwt", br#"{"sub":"canary"}"#);
        let body = String::from_utf8(sign.input().to_vec()).unwrap();
        let claims = body.split('.').nth(1).unwrap();
        let shown = alloc::format!("{sign:?}");
        assert!(!shown.contains(claims));
        let signature = key.sign(sign.input());
        assert!(!alloc::format!("{:?}", sign.signed(signature).unwrap()).contains(claims));
    }
}
