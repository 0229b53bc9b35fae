//! Compact JWS and key sets: what verifies is exactly what was signed (I-A5, I-A6, I-T11).

use mcp_authz::jose::{Algorithm, BadSignature, Jwk, JwkSet, JwtBuffer, UnverifiedJwt, VerifyingKey};
use mcp_authz::secret::SecretDigest;

struct Tag;

impl VerifyingKey for Tag {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        if tag(signed) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

fn tag(signed: &[u8]) -> Vec<u8> {
    SecretDigest::of(signed).as_bytes().repeat(2)
}

/// Tokens as they come, and tokens with a signature that fits what comes.
pub fn jws(data: &[u8]) {
    let _ = JwkSet::parse(data);
    if let Ok(key) = Jwk::parse(data) {
        let again = Jwk::parse(&key.render()).expect("a rendered key is a key");
        assert_eq!(again.thumbprint(), key.thumbprint(), "a key reads differently after it is written");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(text);
    if text.matches('.').count() == 1 {
        let signature = mcp_authz::syntax::base64url::encode(&tag(text.as_bytes()));
        let token = format!("{text}.{signature}");
        if check(&token) {
            assert!(
                !check(&format!("{token}=")) && !check(&format!("{token}.")) && !check(&format!(" {token}"))
            );
            assert!(!check(&token[..token.len() - 1]), "a prefix of a token verifies");
        }
    }
}

/// Whether it verifies; and if it does, that nothing about it is loose.
fn check(token: &str) -> bool {
    let mut buffer = JwtBuffer::new();
    let Ok(jwt) = UnverifiedJwt::parse(token, &mut buffer) else { return false };
    assert_eq!(token.split('.').count(), 3, "not three segments");
    assert!(
        token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
        "not base64url"
    );
    jwt.verify(&Tag).is_ok()
}
