//! Toy keys of the token endpoint's tests: a signature is a digest over the key's public half and the input. It tells one
//! key and one input from another, and that is all the core asks of a signature.

use mcp_authz::jose::{
    Algorithm, BadSignature, ImportFailed, Jwk, KeyImporter, KeySet, PublicKey, Sign, Signed, VerifyingKey,
};
use mcp_authz::secret::SecretDigest;

/// The key of that number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToyKey(pub(crate) u8);

impl ToyKey {
    /// A signature over the input.
    pub(crate) fn sign(self, input: &[u8]) -> Vec<u8> {
        let half = |label: &[u8]| SecretDigest::of(&[&[self.0; 32], label, input].concat());
        [*half(b"first").as_bytes(), *half(b"second").as_bytes()].concat()
    }

    /// The public half, under that name.
    pub(crate) fn jwk(self, kid: &str) -> Jwk {
        let key = PublicKey::Ed25519 { x: [self.0; 32] };
        Jwk::new(key, Some(kid.to_owned()), Algorithm::EdDsa).unwrap()
    }
}

impl VerifyingKey for ToyKey {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if self.sign(signed) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

/// Imports toy keys.
#[derive(Debug)]
pub(crate) struct ToyImporter;

impl KeyImporter for ToyImporter {
    fn import(&self, jwk: &Jwk) -> Result<Box<dyn VerifyingKey>, ImportFailed> {
        match jwk.key() {
            PublicKey::Ed25519 { x } => Ok(Box::new(ToyKey(x[0]))),
            _ => Err(ImportFailed),
        }
    }
}

/// The server's own key.
pub(crate) const OWN: ToyKey = ToyKey(200);

/// The server's own keys, as it publishes them.
pub(crate) fn own_keys() -> KeySet {
    let key: Box<dyn VerifyingKey> = Box::new(OWN);
    KeySet::new([(Some("key-1".to_owned()), key)]).unwrap()
}

/// Signs as the server.
pub(crate) fn sign(action: Sign) -> Signed {
    let signature = OWN.sign(action.input());
    action.signed(signature).unwrap()
}
