//! JSON Web Signatures in the compact form, public keys, and the shape of signing.
//!
//! RFC 7515, 7517, 7518, 7519, 7638, 8037, and the advice of RFC 8725. The core holds no signature code: a host
//! imports keys through a [`KeyImporter`] and carries out [`Sign`] actions.
//!
//! What a token can never do here: name its own key (there is no way from a header member to a key), choose its
//! algorithm (it belongs to the configured key), be unsigned (no variant says `none`) or use a shared secret
//! (no variant says HMAC).

mod algorithm;
mod compact;
mod jwk;
mod key;
mod sign;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use compact::{JwsError, JwtBuffer, UnverifiedJwt, VerifiedJwt};
pub use jwk::{InvalidKey, Jwk, JwkSet, PublicKey};
pub use key::{BadSignature, ImportFailed, InvalidKeySet, KeyImporter, KeySet, UnknownKey, VerifyingKey};
pub(crate) use sign::AwaitedSignature;
pub use sign::{InvalidSignature, Sign, Signed, SigningKeyId, signing_input};

#[cfg(test)]
pub(crate) mod toy;
