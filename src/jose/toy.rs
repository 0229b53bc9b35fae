//! A stand-in for signatures in the core's unit tests: a SHA-256 tag under a seed. Real ones are tested in the
//! runtime.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::{Algorithm, BadSignature, ImportFailed, Jwk, KeyImporter, PublicKey, SigningKeyId, VerifyingKey};

/// Verifies, and makes, toy signatures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToyKey {
    algorithm: Algorithm,
    seed: u8,
}

impl ToyKey {
    pub(crate) fn new(algorithm: Algorithm, seed: u8) -> Self {
        Self { algorithm, seed }
    }

    /// A tag of the length the algorithm's signatures have.
    pub(crate) fn sign(&self, input: &[u8]) -> Vec<u8> {
        let length = match self.algorithm {
            Algorithm::EdDsa | Algorithm::Es256 => 64,
            Algorithm::Es384 => 96,
            Algorithm::Rs256 | Algorithm::Ps256 => 256,
        };
        let tag = Sha256::new().chain_update([self.seed]).chain_update(input).finalize();
        tag.iter().copied().cycle().take(length).collect()
    }

    pub(crate) fn id(&self, kid: &str) -> SigningKeyId {
        SigningKeyId::new(kid, self.algorithm)
    }

    /// A signed token with this header and payload text, well-formed or not.
    pub(crate) fn token(&self, header: &str, payload: &str) -> String {
        let encode = crate::syntax::base64url::encode;
        let mut token = alloc::format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let signature = encode(&self.sign(token.as_bytes()));
        token.push('.');
        token.push_str(&signature);
        token
    }
}

impl VerifyingKey for ToyKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if self.sign(signed) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

/// Imports an Ed25519 key as the toy key whose seed is its first byte.
#[derive(Debug)]
pub(crate) struct ToyImporter;

impl KeyImporter for ToyImporter {
    fn import(&self, jwk: &Jwk) -> Result<Box<dyn VerifyingKey>, ImportFailed> {
        match jwk.key() {
            PublicKey::Ed25519 { x } => Ok(Box::new(ToyKey::new(Algorithm::EdDsa, x[0]))),
            _ => Err(ImportFailed),
        }
    }
}
