//! Verifying keys: the trait a host implements, and the keys of one issuer (RFC 7517, RFC 8725 section 3.8).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use super::algorithm::Algorithm;
use super::jwk::{InvalidKey, Jwk, JwkSet};

/// A public key that verifies signatures of exactly one algorithm.
///
/// Implementations must refuse a signature of another length than the algorithm's and, for ECDSA, take the
/// fixed-length form of RFC 7518 section 3.4. They must not panic.
pub trait VerifyingKey: Send + Sync {
    /// The one algorithm this key was configured for.
    fn algorithm(&self) -> Algorithm;

    /// Checks a signature over exactly these bytes.
    ///
    /// # Errors
    /// [`BadSignature`] when the signature is not one of this key over these bytes.
    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// The signature is not one of that key over those bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// Turns public keys into verifying keys, once, when a key set is taken over.
pub trait KeyImporter: Send + Sync {
    /// The verifying key of a public key.
    ///
    /// # Errors
    /// [`ImportFailed`] when the numbers are no key (a point off the curve, for instance) or the host has no
    /// implementation of the algorithm.
    fn import(&self, jwk: &Jwk) -> Result<Box<dyn VerifyingKey>, ImportFailed>;
}

/// The host could not make a verifying key of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not valid, or the host has no implementation of its algorithm")]
pub struct ImportFailed;

/// Why keys make no set for an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeySet {
    /// A document or one of its keys breaks RFC 7517 or RFC 7518.
    #[error("the key set is malformed: {0}")]
    Malformed(#[from] InvalidKey),
    /// No key that could verify a signature: an issuer without keys is a mistake (I-G8).
    #[error("the key set has no key that can verify a signature")]
    Empty,
    /// Two keys with the same `kid` and algorithm, so that a token could not say which it means.
    #[error("two keys of the set share a key id and an algorithm")]
    Ambiguous,
    /// The host's importer refused a key.
    #[error("{0}")]
    Import(#[from] ImportFailed),
}

/// No key of the issuer fits a token's `kid` and `alg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the issuer has no such key")]
pub struct UnknownKey;

type ByAlgorithm = BTreeMap<Algorithm, Arc<dyn VerifyingKey>>;

/// The verifying keys of one issuer, by `kid` and algorithm.
///
/// A set is made whole and replaced whole: there is no way to add a key to one (I-A4), so that a key its issuer
/// withdrew is gone with the next set.
#[derive(Clone)]
pub struct KeySet {
    named: BTreeMap<String, ByAlgorithm>,
    /// For tokens without `kid`: the only key of an algorithm; `None` where there are several.
    sole: BTreeMap<Algorithm, Option<Arc<dyn VerifyingKey>>>,
}

impl KeySet {
    /// A set from keys the host has: each with its `kid`, if it has one.
    ///
    /// # Errors
    /// [`InvalidKeySet::Empty`] without a key; [`InvalidKeySet::Ambiguous`] when two share `kid` and algorithm.
    pub fn new(
        keys: impl IntoIterator<Item = (Option<String>, Box<dyn VerifyingKey>)>,
    ) -> Result<Self, InvalidKeySet> {
        let mut set = Self { named: BTreeMap::new(), sole: BTreeMap::new() };
        for (kid, key) in keys {
            let key: Arc<dyn VerifyingKey> = Arc::from(key);
            let algorithm = key.algorithm();
            match set.sole.get_mut(&algorithm) {
                None => {
                    set.sole.insert(algorithm, Some(key.clone()));
                }
                Some(several) => *several = None,
            }
            if let Some(kid) = kid {
                let taken = set.named.entry(kid).or_default().insert(algorithm, key);
                if taken.is_some() {
                    return Err(InvalidKeySet::Ambiguous);
                }
            }
        }
        // I-G8: no keys never means that nothing needs to be verified.
        if set.sole.is_empty() {
            return Err(InvalidKeySet::Empty);
        }
        Ok(set)
    }

    /// A set from a parsed key set document, each key imported once.
    ///
    /// # Errors
    /// [`InvalidKeySet`] when a key cannot be imported or two are indistinguishable; nothing of the document is
    /// used then (D42).
    pub fn import(set: &JwkSet, importer: &dyn KeyImporter) -> Result<Self, InvalidKeySet> {
        let mut keys = alloc::vec::Vec::new();
        for jwk in set.keys() {
            let key = importer.import(jwk)?;
            // RFC8725-3.1-1: the algorithm is what the published key says, whatever the importer made of it.
            if key.algorithm() != jwk.algorithm() {
                return Err(ImportFailed.into());
            }
            keys.push((jwk.kid().map(String::from), key));
        }
        Self::new(keys)
    }

    /// The key for a token's `kid` and `alg`: the one of that name, or, for a token that names none, the only one
    /// of the algorithm. At most one key is ever tried, however many there are.
    ///
    /// # Errors
    /// [`UnknownKey`] when no key, or more than one, fits.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&dyn VerifyingKey, UnknownKey> {
        let found = match kid {
            Some(kid) => self.named.get(kid).and_then(|keys| keys.get(&algorithm)),
            None => self.sole.get(&algorithm).and_then(Option::as_ref),
        };
        found.map(AsRef::as_ref).ok_or(UnknownKey)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("algorithms", &self.sole.keys().collect::<alloc::vec::Vec<_>>())
            .field("named", &self.named.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::ToyKey;
    use super::*;

    fn named(kid: &str, algorithm: Algorithm, seed: u8) -> (Option<String>, Box<dyn VerifyingKey>) {
        (Some(kid.into()), Box::new(ToyKey::new(algorithm, seed)))
    }

    #[test]
    fn a_set_without_keys_cannot_be_made() {
        assert_eq!(KeySet::new([]).unwrap_err(), InvalidKeySet::Empty);
    }

    #[test]
    fn two_keys_with_one_name_and_algorithm_are_refused() {
        let keys = [named("a", Algorithm::Es256, 1), named("a", Algorithm::Es256, 2)];
        assert_eq!(KeySet::new(keys).unwrap_err(), InvalidKeySet::Ambiguous);
    }

    #[test]
    fn a_key_is_found_by_its_name_and_its_own_algorithm_only() {
        let set = KeySet::new([named("a", Algorithm::Es256, 1), named("b", Algorithm::EdDsa, 2)]).unwrap();
        assert_eq!(set.find(Some("a"), Algorithm::Es256).unwrap().algorithm(), Algorithm::Es256);
        assert!(set.find(Some("a"), Algorithm::EdDsa).is_err());
        assert!(set.find(Some("c"), Algorithm::Es256).is_err());
        assert!(set.find(Some("A"), Algorithm::Es256).is_err());
        assert!(set.find(Some(""), Algorithm::Es256).is_err());
    }

    #[test]
    fn a_token_without_a_key_name_needs_a_single_candidate() {
        let one = KeySet::new([named("a", Algorithm::Es256, 1), named("b", Algorithm::EdDsa, 2)]).unwrap();
        assert!(one.find(None, Algorithm::Es256).is_ok());
        assert!(one.find(None, Algorithm::Rs256).is_err());
        let two = KeySet::new([named("a", Algorithm::Es256, 1), named("b", Algorithm::Es256, 2)]).unwrap();
        assert!(two.find(None, Algorithm::Es256).is_err());
        let three = KeySet::new([
            named("a", Algorithm::Es256, 1),
            named("b", Algorithm::Es256, 2),
            named("c", Algorithm::Es256, 3),
        ])
        .unwrap();
        assert!(three.find(None, Algorithm::Es256).is_err());
    }
}
