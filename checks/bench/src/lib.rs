//! One access token of each algorithm, and the ways to validate it: the signature alone, the resource server of the
//! core, the same with a remembered token, and `jsonwebtoken` with the same checks of claims.

use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, ParsedPublicKey, RsaKeyPair, RsaPublicKeyComponents,
};
use jsonwebtoken::{DecodingKey, Validation};
use mcp_authz::identifier::{Issuer, ResourceId, ScopeSet};
use mcp_authz::jose::{
    Algorithm, BadSignature, KeyImporter as _, KeySet, PublicKey, VerifyingKey, signing_input,
};
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::resource_server::{
    Authorized, Recalled, RequiredScopes, ResourceServer, TokenCache, TrustedIssuer, VerificationOutcome,
};
use mcp_authz::syntax::base64url;
use mcp_authz::time::OffsetDateTime;
use mcp_authz_tokio::keys::{AwsLcImporter, SigningKey};

pub mod http;
pub mod load;
pub mod postgres;
pub mod server;
pub mod transitions;

pub const RESOURCE: &str = "https://mcp.example.com/mcp";
pub const ISSUER: &str = "https://as.example.com";

/// The algorithms that are measured.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

/// Everything one algorithm is measured with.
pub struct World {
    pub token: String,
    signed: String,
    signature: Vec<u8>,
    raw: ParsedPublicKey,
    server: ResourceServer,
    /// The same with a key that takes every signature: what is left is the time outside of it.
    unsigned: ResourceServer,
    head: RequestHead,
    required: RequiredScopes,
    now: OffsetDateTime,
    decoding: DecodingKey,
    validation: Validation,
    cache: TokenCache,
}

/// A key for which nothing is wrong.
struct Credulous(Algorithm);

impl VerifyingKey for Credulous {
    fn algorithm(&self) -> Algorithm {
        self.0
    }

    fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), BadSignature> {
        Ok(())
    }
}

/// What `jsonwebtoken` reads: the same claims.
#[derive(serde::Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub client_id: String,
    pub exp: i64,
    pub iat: i64,
    pub jti: String,
    pub scope: String,
}

impl World {
    /// One issuer with one key.
    pub fn new(algorithm: Algorithm) -> Self {
        Self::among(algorithm, 1, 1)
    }

    /// The issuer among others, and its key among others.
    pub fn among(algorithm: Algorithm, issuers: usize, keys: usize) -> Self {
        let key = SigningKey::generate(algorithm).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        let claims = format!(
            r#"{{"iss":"{ISSUER}","exp":1900000300,"aud":"{RESOURCE}","sub":"5ba552d67","client_id":"s6BhdRkqt3","iat":1899999990,"jti":"dbe39bf3a3ba4238a513f51d6e1691c4","scope":"notes:read notes:write"}}"#
        );
        let input = signing_input(&key.id(), "at+jwt", claims.as_bytes());
        let signed = String::from_utf8(input).unwrap();
        let token = sign(&key, &signed);
        let signature = base64url::decode(token.rsplit('.').next().unwrap()).unwrap();

        let verifier = || {
            let others = (1..keys).map(|n| {
                let other = Box::new(Credulous(algorithm)) as Box<dyn VerifyingKey>;
                (Some(format!("{}{n}", key.id().kid())), other)
            });
            let own = AwsLcImporter.import(key.jwk()).unwrap();
            KeySet::new(others.chain([(Some(key.id().kid().to_owned()), own)])).unwrap()
        };
        let credulous = || {
            let own = Box::new(Credulous(algorithm)) as Box<dyn VerifyingKey>;
            KeySet::new([(Some(key.id().kid().to_owned()), own)]).unwrap()
        };
        let server = |keys: &dyn Fn() -> KeySet| {
            let trusted = (0..issuers).map(|n| {
                let issuer = if n == 0 { ISSUER.to_owned() } else { format!("https://as{n}.example.com") };
                TrustedIssuer::with_keys(Issuer::new(issuer).unwrap(), keys())
            });
            ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), trusted).unwrap()
        };
        let head = RequestHead::new("POST", "/mcp")
            .with_header("host", b"mcp.example.com")
            .with_header("authorization", format!("Bearer {token}").as_bytes());

        let encode = |bytes: &[u8]| base64url::encode(bytes);
        let (raw, decoding, jwt_algorithm) = match key.jwk().key() {
            PublicKey::Ed25519 { x } => (
                ParsedPublicKey::new(&signature::ED25519, x).unwrap(),
                DecodingKey::from_ed_components(&encode(x)).unwrap(),
                jsonwebtoken::Algorithm::EdDSA,
            ),
            PublicKey::P256 { x, y } => (
                ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, [&[4][..], x, y].concat()).unwrap(),
                DecodingKey::from_ec_components(&encode(x), &encode(y)).unwrap(),
                jsonwebtoken::Algorithm::ES256,
            ),
            PublicKey::Rsa { n, e } => (
                RsaPublicKeyComponents { n, e }
                    .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
                    .unwrap(),
                DecodingKey::from_rsa_components(&encode(n), &encode(e)).unwrap(),
                jsonwebtoken::Algorithm::RS256,
            ),
            other => panic!("{other:?} is not measured"),
        };
        let mut validation = Validation::new(jwt_algorithm);
        validation.set_audience(&[RESOURCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        // It reads the system's clock, which may lie on either side of the token's life.
        validation.validate_exp = false;

        let mut world = Self {
            signed,
            signature,
            raw,
            server: server(&verifier),
            unsigned: server(&credulous),
            head,
            required: RequiredScopes::new(ScopeSet::parse("notes:read").unwrap()).unwrap(),
            now,
            decoding,
            validation,
            cache: TokenCache::default(),
            token,
        };
        world.warm();
        world
    }

    /// The signature alone.
    pub fn raw(&self) {
        self.raw.verify_sig(self.signed.as_bytes(), &self.signature).unwrap();
    }

    /// From the head of a request to what a handler gets.
    pub fn cold(&self) -> Authorized {
        self.validate(&self.server)
    }

    /// The same without the signature.
    pub fn outside(&self) -> Authorized {
        self.validate(&self.unsigned)
    }

    fn validate(&self, server: &ResourceServer) -> Authorized {
        match server.admit(&self.head, &self.required).unwrap().verify(self.now) {
            VerificationOutcome::Verified(verified) => verified.authorize(&self.required).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The same with a token that is remembered.
    pub fn warm(&mut self) -> Authorized {
        let presented = self.server.admit(&self.head, &self.required).unwrap();
        let verified = match self.cache.recall(presented, self.now) {
            Recalled::Verified(verified) => verified,
            Recalled::Unknown(presented) => match presented.verify(self.now) {
                VerificationOutcome::Verified(verified) => {
                    self.cache.keep(&verified, self.now);
                    verified
                }
                other => panic!("{other:?}"),
            },
            Recalled::Denied(denial) => panic!("{denial:?}"),
        };
        verified.authorize(&self.required).unwrap()
    }

    /// `jsonwebtoken` on the same backend: decoding with the same checks.
    pub fn jsonwebtoken(&self) -> Claims {
        let decoded = jsonwebtoken::decode::<Claims>(&self.token, &self.decoding, &self.validation).unwrap();
        assert!(decoded.header.typ.as_deref() == Some("at+jwt") && decoded.claims.exp > 1_900_000_000);
        assert!(decoded.claims.scope.split(' ').any(|scope| scope == "notes:read"));
        decoded.claims
    }
}

/// The compact form of a token with this content.
pub fn sign(key: &SigningKey, input: &str) -> String {
    let (stored, random) = (key.to_pkcs8().unwrap(), aws_lc_rs::rand::SystemRandom::new());
    let (stored, bytes) = (stored.expose(), input.as_bytes());
    let signature = match key.id().algorithm() {
        Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(stored).unwrap().sign(bytes).as_ref().to_vec(),
        Algorithm::Es256 | Algorithm::Es384 => {
            let curve = match key.id().algorithm() {
                Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                _ => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            };
            let pair = EcdsaKeyPair::from_pkcs8(curve, stored).unwrap();
            pair.sign(&random, bytes).unwrap().as_ref().to_vec()
        }
        Algorithm::Rs256 | Algorithm::Ps256 => {
            let padding: &'static dyn signature::RsaEncoding = match key.id().algorithm() {
                Algorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
                _ => &signature::RSA_PSS_SHA256,
            };
            let pair = RsaKeyPair::from_pkcs8(stored).unwrap();
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &random, bytes, &mut signature).unwrap();
            signature
        }
    };
    format!("{input}.{}", base64url::encode(&signature))
}
