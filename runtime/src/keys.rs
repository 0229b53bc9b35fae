//! Keys and signatures over aws-lc-rs: [`AwsLcImporter`] verifies for the core, [`SigningKey`] carries out
//! [`Sign`] actions.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents,
};
use mcp_authz::jose::{
    Algorithm, BadSignature, ImportFailed, Jwk, KeyImporter, PublicKey, Sign, Signed, SigningKeyId,
    VerifyingKey,
};
use mcp_authz::secret::SecretBytes;

/// Makes verifying keys of the five algorithms of the core.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLcImporter;

impl KeyImporter for AwsLcImporter {
    fn import(&self, jwk: &Jwk) -> Result<Box<dyn VerifyingKey>, ImportFailed> {
        let algorithm = jwk.algorithm();
        let key = match (jwk.key(), algorithm) {
            (PublicKey::Ed25519 { x }, Algorithm::EdDsa) => ParsedPublicKey::new(&signature::ED25519, x),
            (PublicKey::P256 { x, y }, Algorithm::Es256) => {
                ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, uncompressed(x, y))
            }
            (PublicKey::P384 { x, y }, Algorithm::Es384) => {
                ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, uncompressed(x, y))
            }
            (PublicKey::Rsa { n, e }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
            }
            (PublicKey::Rsa { n, e }, Algorithm::Ps256) => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256)
            }
            _ => return Err(ImportFailed),
        };
        Ok(Box::new(Verifier { algorithm, key: key.map_err(|_| ImportFailed)? }))
    }
}

/// SEC 1 section 2.3.3: an uncompressed point.
fn uncompressed(x: &[u8], y: &[u8]) -> Vec<u8> {
    [&[4], x, y].concat()
}

struct Verifier {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl VerifyingKey for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.key.verify_sig(signed, signature).map_err(|_| BadSignature)
    }
}

/// Why a private key cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFailure {
    /// The PKCS#8 bytes are no key of the algorithm.
    Rejected,
    /// The library failed, which it does not do for a reason of the caller's.
    Unavailable,
}

impl fmt::Display for KeyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "the bytes are no private key of that algorithm",
            Self::Unavailable => "the cryptographic library failed",
        })
    }
}

impl std::error::Error for KeyFailure {}

/// A private key that signs tokens, named by the thumbprint of its public half.
pub struct SigningKey {
    pair: Pair,
    jwk: Jwk,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// A fresh key; RSA keys have 2048 bits and take a noticeable part of a second.
    ///
    /// # Errors
    /// [`KeyFailure::Unavailable`] when the library fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyFailure> {
        let pair = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::generate().map(Pair::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::Ecdsa)
            }
            Algorithm::Es384 => {
                EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).map(Pair::Ecdsa)
            }
            // RFC9068-2.1-2
            Algorithm::Rs256 | Algorithm::Ps256 => RsaKeyPair::generate(KeySize::Rsa2048).map(Pair::Rsa),
        };
        Self::of(pair.map_err(|_| KeyFailure::Unavailable)?, algorithm)
    }

    /// A key from its PKCS#8 form, for the algorithm it was made for.
    ///
    /// # Errors
    /// [`KeyFailure::Rejected`] when the bytes are no key of that algorithm.
    pub fn from_pkcs8(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyFailure> {
        let pair = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Pair::Ed25519),
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, bytes).map(Pair::Ecdsa)
            }
            Algorithm::Es384 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, bytes).map(Pair::Ecdsa)
            }
            Algorithm::Rs256 | Algorithm::Ps256 => RsaKeyPair::from_pkcs8(bytes).map(Pair::Rsa),
        };
        Self::of(pair.map_err(|_| KeyFailure::Rejected)?, algorithm)
    }

    fn of(pair: Pair, algorithm: Algorithm) -> Result<Self, KeyFailure> {
        let key = match &pair {
            Pair::Ed25519(pair) => PublicKey::Ed25519 { x: array(pair.public_key().as_ref())? },
            Pair::Ecdsa(pair) => {
                let point = pair.public_key().as_ref();
                let point = point.strip_prefix(&[4]).ok_or(KeyFailure::Unavailable)?;
                let (x, y) = point.split_at_checked(point.len() / 2).ok_or(KeyFailure::Unavailable)?;
                match algorithm {
                    Algorithm::Es384 => PublicKey::P384 { x: array(x)?, y: array(y)? },
                    _ => PublicKey::P256 { x: array(x)?, y: array(y)? },
                }
            }
            Pair::Rsa(pair) => PublicKey::Rsa {
                n: pair.public_key().modulus().big_endian_without_leading_zero().to_vec(),
                e: pair.public_key().exponent().big_endian_without_leading_zero().to_vec(),
            },
        };
        let jwk = Jwk::new(key, None, algorithm).map_err(|_| KeyFailure::Rejected)?.named_by_thumbprint();
        Ok(Self { pair, jwk })
    }

    /// The private key in PKCS#8 form, to be stored sealed.
    ///
    /// # Errors
    /// [`KeyFailure::Unavailable`] when the library fails.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, KeyFailure> {
        let bytes = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Pair::Rsa(pair) => pair.as_der().map(|document| document.as_ref().to_vec()),
        };
        bytes.map(SecretBytes::new).map_err(|_| KeyFailure::Unavailable)
    }

    /// The public half, to publish in a key set.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// Its name and algorithm, for the authorization server's configuration.
    pub fn id(&self) -> SigningKeyId {
        SigningKeyId::new(self.jwk.kid().unwrap_or_default(), self.jwk.algorithm())
    }

    /// Carries a [`Sign`] action out.
    ///
    /// # Errors
    /// [`KeyFailure::Rejected`] when the action names another key, [`KeyFailure::Unavailable`] when the library
    /// fails; nothing was issued then.
    pub fn sign(&self, action: Sign) -> Result<Signed, KeyFailure> {
        if *action.key() != self.id() {
            return Err(KeyFailure::Rejected);
        }
        let signature = self.sign_bytes(action.input())?;
        action.signed(signature).map_err(|_| KeyFailure::Unavailable)
    }

    fn sign_bytes(&self, input: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(input).map(|signature| signature.as_ref().to_vec()),
            Pair::Ecdsa(pair) => {
                pair.sign(&SystemRandom::new(), input).map(|signature| signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match self.jwk.algorithm() {
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0_u8; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), input, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| KeyFailure::Unavailable)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KeyFailure> {
    bytes.try_into().map_err(|_| KeyFailure::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp_authz::jose::{JwkSet, JwsError, JwtBuffer, KeySet, UnverifiedJwt, VerifyingKey, signing_input};

    fn token(key: &SigningKey, claims: &[u8]) -> String {
        let mut token = String::from_utf8(signing_input(&key.id(), "at+jwt", claims)).unwrap();
        let signature = key.sign_bytes(token.as_bytes()).unwrap();
        token.push('.');
        token.push_str(&mcp_authz::syntax::base64url::encode(&signature));
        token
    }

    /// What a token says in `member`, if it verifies.
    fn verified(token: &str, key: &dyn VerifyingKey, member: &'static str) -> Result<String, JwsError> {
        let mut buffer = JwtBuffer::new();
        let jwt = UnverifiedJwt::parse(token, &mut buffer)?;
        let verified = jwt.verify(key)?;
        Ok(verified.claims().string(member).unwrap().unwrap_or_default().to_owned())
    }

    #[test]
    fn every_algorithm_signs_and_verifies_through_its_published_key() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm).unwrap();
            let stranger = SigningKey::generate(algorithm).unwrap();
            let published = JwkSet::new([key.jwk().clone()]).unwrap().render();
            let keys = KeySet::import(&JwkSet::parse(&published).unwrap(), &AwsLcImporter).unwrap();
            let token = token(&key, br#"{"iss":"https://as.example"}"#);
            let verifier = keys.find(key.jwk().kid(), algorithm).unwrap();
            assert_eq!(verified(&token, verifier, "iss").unwrap(), "https://as.example");

            let other = AwsLcImporter.import(stranger.jwk()).unwrap();
            let refused = verified(&token, other.as_ref(), "iss").unwrap_err();
            assert_eq!(refused, JwsError::Signature, "{algorithm}");
            assert!(keys.find(stranger.jwk().kid(), algorithm).is_err());
        }
    }

    #[test]
    fn a_changed_claim_breaks_every_signature() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm).unwrap();
            let verifier = AwsLcImporter.import(key.jwk()).unwrap();
            let honest = token(&key, br#"{"sub":"alice"}"#);
            let forged = token(&key, br#"{"sub":"mallo"}"#);
            let (_, signature) = honest.rsplit_once('.').unwrap();
            let (signed, _) = forged.rsplit_once('.').unwrap();
            let mixed = format!("{signed}.{signature}");
            assert_eq!(verified(&mixed, verifier.as_ref(), "sub"), Err(JwsError::Signature), "{algorithm}");
        }
    }

    #[test]
    fn an_rsa_key_is_for_one_padding_only() {
        let key = SigningKey::generate(Algorithm::Rs256).unwrap();
        let as_pss = Jwk::new(key.jwk().key().clone(), None, Algorithm::Ps256).unwrap();
        let verifier = AwsLcImporter.import(&as_pss).unwrap();
        let input = b"input";
        assert!(verifier.verify(input, &key.sign_bytes(input).unwrap()).is_err());
    }

    #[test]
    fn a_stored_key_comes_back_the_same_and_for_no_other_algorithm() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
            let key = SigningKey::generate(algorithm).unwrap();
            let stored = key.to_pkcs8().unwrap();
            let again = SigningKey::from_pkcs8(algorithm, stored.expose()).unwrap();
            assert_eq!(again.jwk(), key.jwk());
            assert_eq!(
                SigningKey::from_pkcs8(Algorithm::Es384, stored.expose()).unwrap_err(),
                KeyFailure::Rejected
            );
        }
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let off = Jwk::new(PublicKey::P256 { x: [1; 32], y: [1; 32] }, None, Algorithm::Es256).unwrap();
        assert!(AwsLcImporter.import(&off).is_err());
    }

    #[test]
    fn a_private_key_does_not_show_in_debug() {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(key.jwk().kid().unwrap()));
        assert!(shown.len() < 200, "{shown}");
    }

    /// RFC 7515 appendices A.2 and A.3: tokens signed elsewhere, with line breaks in their claims.
    #[test]
    fn the_published_rs256_and_es256_examples_verify() {
        let claims =
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let es256 = (
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        );
        let rs256 = (
            r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        );
        for (jwk, header, signature) in [es256, rs256] {
            let verifier = AwsLcImporter.import(&Jwk::parse(jwk.as_bytes()).unwrap()).unwrap();
            let token = format!("{header}.{claims}.{signature}");
            assert_eq!(verified(&token, verifier.as_ref(), "iss").unwrap(), "joe");
            // The claims of another person.
            let forged = token.replacen("eyJpc3MiOiJqb2UiLA", "eyJpc3MiOiJqb2siLA", 1);
            assert_ne!(forged, token);
            assert_eq!(verified(&forged, verifier.as_ref(), "iss"), Err(JwsError::Signature));
        }
    }

    /// RFC 8037 appendix A.4: an Ed25519 signature made elsewhere.
    #[test]
    fn the_published_ed25519_example_verifies() {
        let jwk =
            Jwk::parse(br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#)
                .unwrap();
        let verifier = AwsLcImporter.import(&jwk).unwrap();
        let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = mcp_authz::syntax::base64url::decode(
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        )
        .unwrap();
        assert!(verifier.verify(signed, &signature).is_ok());
        assert!(verifier.verify(&signed[1..], &signature).is_err());
    }
}
