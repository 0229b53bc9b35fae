//! The signature algorithms: a closed list (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 8725 section 3.1).

use core::fmt;

/// A signature algorithm with a public key. Unsigned tokens and shared secrets have no variant (I-A5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256; every verifier of RFC 9068 tokens knows it.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

/// A name that is no algorithm of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature algorithm is not one of EdDSA, ES256, ES384, RS256 and PS256")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Every algorithm, the ones to prefer first.
    pub const ALL: [Self; 5] = [Self::EdDsa, Self::Es256, Self::Es384, Self::Rs256, Self::Ps256];

    /// The algorithm of a registered `alg` value, compared as bytes.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`] for every other value, `none` and the HMAC names among them.
    pub fn from_name(name: &str) -> Result<Self, UnknownAlgorithm> {
        // RFC9068-2.1-3, RFC9068-4-4, RFC8725-3.1-1: RS256 is there; nothing unsigned, nothing with a shared secret, no other spelling.
        match name {
            "EdDSA" => Ok(Self::EdDsa),
            "ES256" => Ok(Self::Es256),
            "ES384" => Ok(Self::Es384),
            "RS256" => Ok(Self::Rs256),
            "PS256" => Ok(Self::Ps256),
            _ => Err(UnknownAlgorithm),
        }
    }

    /// The registered `alg` value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    /// Whether a signature of this algorithm can have this many bytes.
    ///
    /// The elliptic curve ones have a fixed length (RFC 7518 section 3.4, RFC 8032 section 5.1.6), an RSA
    /// signature is as long as its modulus.
    pub(super) const fn allows_signature_length(self, bytes: usize) -> bool {
        match self {
            Self::EdDsa | Self::Es256 => bytes == 64,
            Self::Es384 => bytes == 96,
            Self::Rs256 | Self::Ps256 => bytes >= 256 && bytes <= 512,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_is_an_algorithm() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Ok(algorithm));
        }
        // I-A5: unsigned and shared-secret names, other cases and neighbours have no value.
        for name in ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "es256", "ES256 ", "RS1", "ES512"]
        {
            assert_eq!(Algorithm::from_name(name), Err(UnknownAlgorithm), "{name}");
        }
    }
}
