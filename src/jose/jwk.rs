//! Public keys as JSON Web Keys: RFC 7517, RFC 7518 section 6, RFC 8037 section 2, thumbprints of RFC 7638.

use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::algorithm::Algorithm;
use crate::limits;
use crate::syntax::base64url;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};

/// Why a JSON object is no key this crate can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// Not a JSON object with distinct members of the right types.
    #[error("the key is not a well-formed JSON object")]
    Malformed,
    /// A number of the key is missing, has another length than its curve's, or is not canonically encoded.
    #[error("a number of the key is missing or not canonical")]
    Number,
    /// An RSA modulus shorter than 2048 or longer than 4096 bits, or an exponent that is even, one, or above 2^32.
    #[error("the RSA key is too short, too long, or has a weak exponent")]
    Strength,
    /// A private or shared key where only public ones belong.
    #[error("the document holds a private or shared key")]
    Private,
    /// `kty`, `crv` or `alg` names something this crate does not verify, or the three do not fit together.
    #[error("the key is of a type or algorithm that is not verified here")]
    Unsupported,
    /// `use` or `key_ops` says that the key is for something else than signatures.
    #[error("the key is not for signatures")]
    OtherUse,
    /// More keys than [`limits::KEYS`].
    #[error("the key set has too many keys")]
    TooMany,
    /// Not one key in the set that verifies signatures here.
    #[error("the key set has no key that verifies signatures")]
    Empty,
}

/// The numbers of a public key, checked for length and form; the curve equation is the importer's to check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKey {
    /// Ed25519 (RFC 8037).
    Ed25519 {
        /// The encoded point.
        x: [u8; 32],
    },
    /// A point on P-256.
    P256 {
        /// Big-endian.
        x: [u8; 32],
        /// Big-endian.
        y: [u8; 32],
    },
    /// A point on P-384.
    P384 {
        /// Big-endian.
        x: [u8; 48],
        /// Big-endian.
        y: [u8; 48],
    },
    /// An RSA key of 2048 to 4096 bits.
    Rsa {
        /// The modulus, big-endian without leading zeros.
        n: Vec<u8>,
        /// The public exponent, big-endian without leading zeros.
        e: Vec<u8>,
    },
}

/// A public key with its name and the one algorithm it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    key: PublicKey,
    kid: Option<String>,
    algorithm: Algorithm,
}

/// The members of private and shared keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl Jwk {
    /// A key from its numbers.
    ///
    /// # Errors
    /// [`InvalidKey`] when the algorithm is not one of that kind of key, or an RSA key is too weak or not in its
    /// shortest form.
    pub fn new(key: PublicKey, kid: Option<String>, algorithm: Algorithm) -> Result<Self, InvalidKey> {
        let fits = match &key {
            PublicKey::Ed25519 { .. } => algorithm == Algorithm::EdDsa,
            PublicKey::P256 { .. } => algorithm == Algorithm::Es256,
            PublicKey::P384 { .. } => algorithm == Algorithm::Es384,
            PublicKey::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
        };
        // RFC8725-3.1-1: a key is for one algorithm of its own kind.
        if !fits {
            return Err(InvalidKey::Unsupported);
        }
        if let PublicKey::Rsa { n, e } = &key {
            check_rsa(n, e)?;
        }
        Ok(Self { key, kid, algorithm })
    }

    /// Reads one key of RFC 7517 form.
    ///
    /// An RSA key without `alg` is for RS256; a PS256 key has to say so.
    ///
    /// # Errors
    /// [`InvalidKey`] for everything that is not a public signature key of the algorithms of this crate.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidKey> {
        let object = JsonObject::parse(json, limits::DOCUMENT_BYTES).map_err(|_| InvalidKey::Malformed)?;
        Self::from_json(&object)
    }

    /// Reads one key from a member of a larger document, such as the `jwk` of client metadata.
    ///
    /// # Errors
    /// As [`Jwk::parse`].
    pub fn from_json(object: &JsonObject) -> Result<Self, InvalidKey> {
        if PRIVATE_MEMBERS.iter().any(|name| object.get(name).is_some()) {
            return Err(InvalidKey::Private);
        }
        let text = |name| object.string(name).map_err(|_| InvalidKey::Malformed);
        let kid = text("kid")?.map(String::from);
        // RFC 7517 section 4.2: an encryption key verifies nothing.
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(InvalidKey::OtherUse);
        }
        let operations = object.strings("key_ops").map_err(|_| InvalidKey::Malformed)?;
        if operations.is_some_and(|operations| !operations.contains(&"verify")) {
            return Err(InvalidKey::OtherUse);
        }
        let number = |name| {
            let encoded = text(name)?.ok_or(InvalidKey::Number)?;
            base64url::decode(encoded).map_err(|_| InvalidKey::Number)
        };
        let kty = text("kty")?.ok_or(InvalidKey::Malformed)?;
        let (key, default) = match (kty, text("crv")?) {
            ("OKP", Some("Ed25519")) => (PublicKey::Ed25519 { x: exact(number("x")?)? }, Algorithm::EdDsa),
            ("EC", Some("P-256")) => {
                (PublicKey::P256 { x: exact(number("x")?)?, y: exact(number("y")?)? }, Algorithm::Es256)
            }
            ("EC", Some("P-384")) => {
                (PublicKey::P384 { x: exact(number("x")?)?, y: exact(number("y")?)? }, Algorithm::Es384)
            }
            ("RSA", None) => (PublicKey::Rsa { n: number("n")?, e: number("e")? }, Algorithm::Rs256),
            _ => return Err(InvalidKey::Unsupported),
        };
        let algorithm = match text("alg")? {
            Some(name) => Algorithm::from_name(name).map_err(|_| InvalidKey::Unsupported)?,
            None => default,
        };
        Self::new(key, kid, algorithm)
    }

    /// The numbers of the key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The name tokens call it by.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key named by its own thumbprint, so that the name changes whenever the key does.
    #[must_use]
    pub fn named_by_thumbprint(mut self) -> Self {
        self.kid = Some(base64url::encode(&self.thumbprint()));
        self
    }

    /// The SHA-256 thumbprint of RFC 7638.
    pub fn thumbprint(&self) -> [u8; 32] {
        // RFC 7638 section 3.2: the required members alone, in the order of their names, without white space.
        let members = match &self.key {
            PublicKey::Ed25519 { x } => ObjectWriter::new()
                .string("crv", "Ed25519")
                .string("kty", "OKP")
                .string("x", base64url::encode(x)),
            PublicKey::P256 { x, y } => ec_members("P-256", x, y),
            PublicKey::P384 { x, y } => ec_members("P-384", x, y),
            PublicKey::Rsa { n, e } => ObjectWriter::new()
                .string("e", base64url::encode(e))
                .string("kty", "RSA")
                .string("n", base64url::encode(n)),
        };
        Sha256::digest(members.finish()).into()
    }

    /// The key as a JSON object, for a key set document.
    pub fn render(&self) -> Vec<u8> {
        let (kty, crv) = match &self.key {
            PublicKey::Ed25519 { .. } => ("OKP", Some("Ed25519")),
            PublicKey::P256 { .. } => ("EC", Some("P-256")),
            PublicKey::P384 { .. } => ("EC", Some("P-384")),
            PublicKey::Rsa { .. } => ("RSA", None),
        };
        let mut writer = ObjectWriter::new().string("kty", kty);
        if let Some(crv) = crv {
            writer = writer.string("crv", crv);
        }
        writer = match &self.key {
            PublicKey::Ed25519 { x } => writer.string("x", base64url::encode(x)),
            PublicKey::P256 { x, y } => {
                writer.string("x", base64url::encode(x)).string("y", base64url::encode(y))
            }
            PublicKey::P384 { x, y } => {
                writer.string("x", base64url::encode(x)).string("y", base64url::encode(y))
            }
            PublicKey::Rsa { n, e } => {
                writer.string("n", base64url::encode(n)).string("e", base64url::encode(e))
            }
        };
        if let Some(kid) = &self.kid {
            writer = writer.string("kid", kid);
        }
        writer.string("alg", self.algorithm.name()).string("use", "sig").finish()
    }
}

fn ec_members(curve: &str, x: &[u8], y: &[u8]) -> ObjectWriter {
    ObjectWriter::new()
        .string("crv", curve)
        .string("kty", "EC")
        .string("x", base64url::encode(x))
        .string("y", base64url::encode(y))
}

/// A coordinate has exactly the length of its field (RFC 7518 section 6.2.1.2).
fn exact<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], InvalidKey> {
    bytes.try_into().map_err(|_| InvalidKey::Number)
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), InvalidKey> {
    // RFC 7518 section 6.3.1: the shortest form, so no leading zero.
    let (Some(first), Some(last)) = (n.first(), e.last()) else { return Err(InvalidKey::Number) };
    if *first == 0 || e.first() == Some(&0) {
        return Err(InvalidKey::Number);
    }
    // RFC 7518 section 3.3: 2048 bits or more; with 256 bytes the top bit must be set.
    let long_enough = n.len() > 256 || (n.len() == 256 && *first >= 0x80);
    let weak_exponent = last % 2 == 0 || e == [1];
    if !long_enough || n.len() > 512 || e.len() > 4 || weak_exponent {
        return Err(InvalidKey::Strength);
    }
    Ok(())
}

/// The public keys of one issuer, as published at its `jwks_uri`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

impl JwkSet {
    /// A set to publish.
    ///
    /// # Errors
    /// [`InvalidKey::Empty`] without a key, [`InvalidKey::TooMany`] above [`limits::KEYS`].
    pub fn new(keys: impl IntoIterator<Item = Jwk>) -> Result<Self, InvalidKey> {
        let keys: Vec<Jwk> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if keys.len() > limits::KEYS {
            return Err(InvalidKey::TooMany);
        }
        Ok(Self { keys })
    }

    /// Reads a key set document. Keys of kinds this crate does not verify with, and encryption keys, are left out
    /// (RFC 7517 section 5); every other flaw refuses the whole set (D42).
    ///
    /// # Errors
    /// [`InvalidKey`]; a set with no usable key is [`InvalidKey::Empty`].
    pub fn parse(json: &[u8]) -> Result<Self, InvalidKey> {
        let document = JsonObject::parse(json, limits::DOCUMENT_BYTES).map_err(|_| InvalidKey::Malformed)?;
        Self::from_json(&document)
    }

    /// Reads a key set from a member of a larger document, such as the `jwks` of client metadata.
    ///
    /// # Errors
    /// As [`JwkSet::parse`].
    pub fn from_json(document: &JsonObject) -> Result<Self, InvalidKey> {
        let Some(JsonValue::Array(entries)) = document.get("keys") else { return Err(InvalidKey::Malformed) };
        if entries.len() > limits::KEYS {
            return Err(InvalidKey::TooMany);
        }
        let mut keys = Vec::new();
        for entry in entries {
            let JsonValue::Object(object) = entry else { return Err(InvalidKey::Malformed) };
            match Jwk::from_json(object) {
                Ok(key) => keys.push(key),
                Err(InvalidKey::Unsupported | InvalidKey::OtherUse) => {}
                Err(flaw) => return Err(flaw),
            }
        }
        Self::new(keys)
    }

    /// The keys.
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// The document to publish.
    pub fn render(&self) -> Vec<u8> {
        let mut json = Vec::from(*br#"{"keys":["#);
        for (at, key) in self.keys.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&key.render());
        }
        json.extend_from_slice(b"]}");
        json
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::{ToyImporter, ToyKey};
    use super::super::{ImportFailed, InvalidKeySet, KeyImporter, KeySet, VerifyingKey};
    use super::*;
    use alloc::boxed::Box;
    use alloc::format;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn rsa(n: &[u8], e: &[u8], rest: &str) -> Result<Jwk, InvalidKey> {
        let (n, e) = (base64url::encode(n), base64url::encode(e));
        Jwk::parse(format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"{rest}}}"#).as_bytes())
    }

    /// RFC 8037 appendix A.3.
    #[test]
    fn the_published_ed25519_thumbprint() {
        let key = Jwk::parse(ED.as_bytes()).unwrap();
        assert_eq!(base64url::encode(&key.thumbprint()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key.algorithm(), Algorithm::EdDsa);
    }

    /// RFC 7638 section 3.1.
    #[test]
    fn the_published_rsa_thumbprint() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
                 jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSq\
                 zs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHa\
                 Q-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let json = format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#);
        let key = Jwk::parse(json.as_bytes()).unwrap();
        assert_eq!(base64url::encode(&key.thumbprint()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(key.kid(), Some("2011-04-29"));
    }

    #[test]
    fn keys_render_to_what_they_were_parsed_from() {
        let keys = [
            Jwk::new(PublicKey::Ed25519 { x: [1; 32] }, Some("a".into()), Algorithm::EdDsa).unwrap(),
            Jwk::new(PublicKey::P256 { x: [2; 32], y: [3; 32] }, None, Algorithm::Es256).unwrap(),
            Jwk::new(PublicKey::P384 { x: [4; 48], y: [5; 48] }, Some("c".into()), Algorithm::Es384).unwrap(),
            Jwk::new(PublicKey::Rsa { n: [0xff; 256].into(), e: [1, 0, 1].into() }, None, Algorithm::Ps256)
                .unwrap(),
        ];
        for key in &keys {
            assert_eq!(Jwk::parse(&key.render()).as_ref(), Ok(key));
        }
        let set = JwkSet::new(keys).unwrap();
        assert_eq!(JwkSet::parse(&set.render()).unwrap(), set);
    }

    #[test]
    fn a_document_with_a_private_or_shared_key_is_refused_whole() {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            let key = ED.replace('}', &format!(r#","{member}":"AA"}}"#));
            assert_eq!(Jwk::parse(key.as_bytes()).unwrap_err(), InvalidKey::Private, "{member}");
            let set = format!(r#"{{"keys":[{ED},{key}]}}"#);
            assert_eq!(JwkSet::parse(set.as_bytes()).unwrap_err(), InvalidKey::Private, "{member}");
        }
    }

    #[test]
    fn numbers_have_exactly_their_length() {
        for x in ["", "AA", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="] {
            let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
            assert_eq!(Jwk::parse(key.as_bytes()).unwrap_err(), InvalidKey::Number, "{x}");
        }
        let key = r#"{"kty":"EC","crv":"P-256","x":"AA"}"#;
        assert_eq!(Jwk::parse(key.as_bytes()).unwrap_err(), InvalidKey::Number);
    }

    #[test]
    fn weak_rsa_keys_are_refused() {
        let strong = [0xff; 256];
        assert!(rsa(&strong, &[1, 0, 1], "").is_ok());
        assert!(rsa(&strong, &[3], "").is_ok());
        let mut short = strong;
        short[0] = 0x7f;
        for (n, e) in [
            (&strong[..255], &[1, 0, 1][..]),
            (&short, &[1, 0, 1]),
            (&[0xff; 513], &[1, 0, 1]),
            (&strong, &[1]),
            (&strong, &[4]),
            (&strong, &[1, 0, 0, 0, 1]),
        ] {
            assert_eq!(rsa(n, e, "").unwrap_err(), InvalidKey::Strength);
        }
        let mut padded = [0xff; 257];
        padded[0] = 0;
        assert_eq!(rsa(&padded, &[1, 0, 1], "").unwrap_err(), InvalidKey::Number);
        assert_eq!(rsa(&strong, &[0, 3], "").unwrap_err(), InvalidKey::Number);
        assert_eq!(rsa(&[], &[3], "").unwrap_err(), InvalidKey::Number);
    }

    #[test]
    fn type_curve_and_algorithm_have_to_fit() {
        for other in ["ES256", "RS256", "none", "HS256"] {
            let key = ED.replace('}', &format!(r#","alg":"{other}"}}"#));
            assert_eq!(Jwk::parse(key.as_bytes()).unwrap_err(), InvalidKey::Unsupported, "{other}");
        }
        assert_eq!(rsa(&[0xff; 256], &[3], r#","alg":"EdDSA""#).unwrap_err(), InvalidKey::Unsupported);
        assert_eq!(rsa(&[0xff; 256], &[3], r#","alg":"PS256""#).unwrap().algorithm(), Algorithm::Ps256);
        assert_eq!(rsa(&[0xff; 256], &[3], "").unwrap().algorithm(), Algorithm::Rs256);
        assert_eq!(
            Jwk::parse(br#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#).unwrap_err(),
            InvalidKey::Unsupported
        );
    }

    #[test]
    fn a_set_leaves_out_what_it_cannot_verify_with_and_is_never_empty() {
        let encryption = ED.replace('}', r#","use":"enc"}"#);
        let signing_only = ED.replace('}', r#","key_ops":["sign"]}"#);
        let strange = r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#;
        let set = format!(r#"{{"keys":[{encryption},{strange},{signing_only},{ED}]}}"#);
        assert_eq!(JwkSet::parse(set.as_bytes()).unwrap().keys().len(), 1);
        let set = format!(r#"{{"keys":[{encryption},{strange},{signing_only}]}}"#);
        assert_eq!(JwkSet::parse(set.as_bytes()).unwrap_err(), InvalidKey::Empty);
        for text in [r#"{"keys":[]}"#, r#"{"keys":{}}"#, "{}", "[]", r#"{"keys":[1]}"#, ""] {
            assert!(JwkSet::parse(text.as_bytes()).is_err(), "{text}");
        }
        let twice = format!(r#"{{"keys":[{ED}],"keys":[{ED}]}}"#);
        assert_eq!(JwkSet::parse(twice.as_bytes()).unwrap_err(), InvalidKey::Malformed);
    }

    // D42
    #[test]
    fn a_set_with_an_entry_that_is_no_key_at_all_is_refused_whole() {
        let key = rsa(&[0xff; 256], &[1, 0, 1], "").unwrap();
        let good = String::from_utf8(key.render()).unwrap();
        assert!(JwkSet::parse(format!(r#"{{"keys":[{good}]}}"#).as_bytes()).is_ok());
        for entry in ["7", "null", "[]", r#""key""#] {
            let set = format!(r#"{{"keys":[{good},{entry}]}}"#);
            assert_eq!(JwkSet::parse(set.as_bytes()).unwrap_err(), InvalidKey::Malformed, "{entry}");
        }
    }

    #[test]
    fn a_set_is_bounded() {
        let keys = alloc::vec![ED; limits::KEYS + 1].join(",");
        let set = format!(r#"{{"keys":[{keys}]}}"#);
        assert_eq!(JwkSet::parse(set.as_bytes()).unwrap_err(), InvalidKey::TooMany);
        // Those that would be left out count as well.
        let unusable = set.replace("Ed25519", "Ed448");
        assert_eq!(JwkSet::parse(unusable.as_bytes()).unwrap_err(), InvalidKey::TooMany);
        let key = Jwk::parse(ED.as_bytes()).unwrap();
        assert_eq!(JwkSet::new(alloc::vec![key; limits::KEYS + 1]).unwrap_err(), InvalidKey::TooMany);
    }

    #[test]
    fn an_importer_cannot_change_the_algorithm_of_a_key() {
        struct Confused;
        impl KeyImporter for Confused {
            fn import(&self, _: &Jwk) -> Result<Box<dyn VerifyingKey>, ImportFailed> {
                Ok(Box::new(ToyKey::new(Algorithm::Rs256, 1)))
            }
        }
        let set = JwkSet::new([Jwk::parse(ED.as_bytes()).unwrap()]).unwrap();
        assert!(matches!(KeySet::import(&set, &Confused), Err(InvalidKeySet::Import(_))));
    }

    #[test]
    fn one_key_that_cannot_be_imported_refuses_the_set() {
        let p256 = Jwk::new(PublicKey::P256 { x: [2; 32], y: [3; 32] }, None, Algorithm::Es256).unwrap();
        let set = JwkSet::new([Jwk::parse(ED.as_bytes()).unwrap(), p256]).unwrap();
        assert!(matches!(KeySet::import(&set, &ToyImporter), Err(InvalidKeySet::Import(_))));
        let set = JwkSet::new([Jwk::parse(ED.as_bytes()).unwrap()]).unwrap();
        assert!(KeySet::import(&set, &ToyImporter).is_ok());
    }
}
