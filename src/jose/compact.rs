//! Compact JSON Web Signatures with a claims set: RFC 7515 sections 3.1 and 5.2, RFC 7519 section 7.2.
//!
//! ```text
//! text ── parse ──> UnverifiedJwt ── verify(key) ──> VerifiedJwt ── claims
//! ```
//!
//! The bytes that are verified are the bytes that were parsed: both are slices of one text, decoded once, into one
//! buffer that the caller lends, and read in one pass without copying.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use zeroize::Zeroize as _;

use super::algorithm::Algorithm;
use super::key::VerifyingKey;
use crate::limits;
use crate::syntax::base64url;
use crate::syntax::flat::FlatObject;

/// Why a text is no acceptable signed token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Longer than [`limits::TOKEN_BYTES`], or a header above [`limits::JWS_HEADER_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// Not exactly three segments: an encrypted, nested or JSON-serialised token, or none at all.
    #[error("the token does not have three segments")]
    Segments,
    /// A segment is empty or not canonical unpadded base64url.
    #[error("a segment of the token is not canonical base64url")]
    Encoding,
    /// The header is not one JSON object with distinct members of the right types.
    #[error("the token's header is not a well-formed JSON object")]
    Header,
    /// The payload is not one JSON object with distinct members.
    #[error("the token's claims are not a well-formed JSON object")]
    Claims,
    /// `alg` is missing or names nothing this crate verifies.
    #[error("the token's algorithm is not among those that are verified")]
    Algorithm,
    /// `crit` is present: this crate knows no extension that could be critical.
    #[error("the token demands an extension that is not known")]
    CriticalExtension,
    /// The header brings a key, or says where to fetch one.
    #[error("the token's header carries or locates a key")]
    EmbeddedKey,
    /// The header says that the payload is encrypted, compressed, unencoded or another token.
    #[error("the token's payload is not a plain claims set")]
    PayloadForm,
    /// The key is for another algorithm than the one the header names.
    #[error("the token names another algorithm than the key's")]
    OtherAlgorithm,
    /// The signature is not the key's over these bytes.
    #[error("the token's signature does not verify")]
    Signature,
}

/// Tokens up to so many bytes are decoded without an allocation.
const BUFFER_BYTES: usize = 2048;

/// Where a token is decoded to. Lend a new one to each [`UnverifiedJwt::parse`].
pub struct JwtBuffer {
    inline: [u8; BUFFER_BYTES],
    spill: Vec<u8>,
    /// Where the signature lies. Without it the rest is no credential, so that it alone is erased.
    signature: core::ops::Range<usize>,
}

impl JwtBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { inline: [0; BUFFER_BYTES], spill: Vec::new(), signature: 0..0 }
    }

    /// Decodes header, payload and signature behind one another. Says how long the first two are in the text, with the dot
    /// between them, and what the three are.
    fn fill(&mut self, text: &[u8]) -> Result<(usize, [&[u8]; 3]), JwsError> {
        let mut free: &mut [u8] = if text.len() > BUFFER_BYTES {
            self.spill = alloc::vec![0; text.len()];
            &mut self.spill
        } else {
            &mut self.inline
        };
        let (mut read, mut signed) = (0_usize, 0);
        let mut decoded: [&[u8]; 3] = [&[]; 3];
        for (number, place) in decoded.iter_mut().enumerate() {
            if number > 0 {
                // What ends a segment is not of its alphabet; it has to be the dot.
                if text.get(read) != Some(&b'.') {
                    return Err(JwsError::Encoding);
                }
                signed = read;
                read = read.saturating_add(1);
            }
            // I-T11: the one spelling of each segment; an alphabet, padding or trailing-bit variant is another text.
            let run = base64url::decode_run(text.get(read..).unwrap_or_default(), free)
                .map_err(|_| JwsError::Encoding)?;
            let (used, rest) = free.split_at_mut_checked(run.bytes).ok_or(JwsError::Encoding)?;
            if used.is_empty() {
                return Err(JwsError::Encoding);
            }
            self.signature = self.signature.end..self.signature.end.saturating_add(run.bytes);
            read = read.saturating_add(run.characters);
            *place = used;
            free = rest;
        }
        if read == text.len() { Ok((signed, decoded)) } else { Err(JwsError::Encoding) }
    }
}

impl Drop for JwtBuffer {
    fn drop(&mut self) {
        let bytes: &mut [u8] = if self.spill.is_empty() { &mut self.inline } else { &mut self.spill };
        if let Some(signature) = bytes.get_mut(self.signature.clone()) {
            signature.zeroize();
        }
    }
}

impl Default for JwtBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for JwtBuffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("JwtBuffer(redacted)")
    }
}

/// A well-formed signed token whose signature nobody has looked at. Its claims are out of reach.
pub struct UnverifiedJwt<'a> {
    /// Header and payload as they are signed.
    signed: &'a [u8],
    signature: &'a [u8],
    algorithm: Algorithm,
    kid: Option<Cow<'a, str>>,
    token_type: Option<Cow<'a, str>>,
    claims: FlatObject<'a>,
}

/// What is wrong with a header that has this member, whatever its value. A thumbprint of a key (`x5t`) is neither a key
/// nor the place of one, and is ignored like any unknown member.
fn forbidden(name: &str) -> Option<JwsError> {
    match name {
        // RFC7515-4.1.11-1: no extension is known, so none may be critical, and an empty list is no list.
        "crit" => Some(JwsError::CriticalExtension),
        // RFC8725-3.10-1: a token does not choose what verifies it.
        "jwk" | "jku" | "x5u" | "x5c" => Some(JwsError::EmbeddedKey),
        // I-A6: encrypted, compressed, unencoded and nested tokens.
        "enc" | "zip" | "b64" | "cty" => Some(JwsError::PayloadForm),
        _ => None,
    }
}

impl<'a> UnverifiedJwt<'a> {
    /// Reads a token without believing any of it.
    ///
    /// # Errors
    /// [`JwsError`] for everything but three canonical segments with a header this crate understands whole.
    pub fn parse(text: &'a (impl AsRef<[u8]> + ?Sized), buffer: &'a mut JwtBuffer) -> Result<Self, JwsError> {
        let text = text.as_ref();
        if text.len() > limits::TOKEN_BYTES {
            return Err(JwsError::TooLong);
        }
        // I-A6: three segments, no more: five would be an encrypted token. They are counted only where they cannot be decoded.
        let (signed, [header, payload, signature]) = buffer.fill(text).map_err(|error| {
            let dots = text.iter().filter(|byte| **byte == b'.').count();
            if dots == 2 { error } else { JwsError::Segments }
        })?;
        let signed = text.get(..signed).unwrap_or_default();
        if header.len() > limits::JWS_HEADER_BYTES {
            return Err(JwsError::TooLong);
        }

        // RFC7519-4-1: one value for each header member.
        let mut members = FlatObject::empty();
        members.fill(header, limits::JWS_HEADER_BYTES).map_err(|_| JwsError::Header)?;
        if let Some(fault) = members.names().filter_map(forbidden).min() {
            return Err(fault);
        }
        let name = members.required_string("alg").map_err(|_| JwsError::Algorithm)?;
        let algorithm = Algorithm::from_name(name).map_err(|_| JwsError::Algorithm)?;
        let kid = members.kept_string("kid").map_err(|_| JwsError::Header)?;
        let token_type = members.kept_string("typ").map_err(|_| JwsError::Header)?;

        // RFC7519-4-1: a claim said twice would be read differently by two parsers.
        let claims = FlatObject::empty();
        let mut jwt = Self { signed, signature, algorithm, kid, token_type, claims };
        jwt.claims.fill(payload, limits::TOKEN_BYTES).map_err(|_| JwsError::Claims)?;
        Ok(jwt)
    }

    /// The `kid` of the header: which of the configured keys it claims.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The `alg` of the header: only ever compared with the configured key's.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `typ` of the header, as written.
    pub fn token_type(&self) -> Option<&str> {
        self.token_type.as_deref()
    }

    /// The `iss` the token claims, to choose among configured issuers and for nothing else.
    ///
    /// `None` when it is missing or not a string.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.string("iss").ok().flatten()
    }

    /// Checks the signature and releases the claims.
    ///
    /// # Errors
    /// [`JwsError::OtherAlgorithm`] when the key is for another algorithm, [`JwsError::Signature`] when it did not
    /// make the signature. No claim is released then (RFC 8725 section 3.3).
    pub fn verify(&self, key: &dyn VerifyingKey) -> Result<VerifiedJwt<'_>, JwsError> {
        // RFC8725-3.1-1: the algorithm is the key's; the header has to agree.
        if key.algorithm() != self.algorithm {
            return Err(JwsError::OtherAlgorithm);
        }
        if !self.algorithm.allows_signature_length(self.signature.len()) {
            return Err(JwsError::Signature);
        }
        // RFC8725-3.3-1
        key.verify(self.signed, self.signature).map_err(|_| JwsError::Signature)?;
        Ok(VerifiedJwt(self))
    }
}

impl core::fmt::Debug for UnverifiedJwt<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UnverifiedJwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A token whose signature a configured key has verified. Nothing is known yet of what it says.
pub struct VerifiedJwt<'a>(&'a UnverifiedJwt<'a>);

impl VerifiedJwt<'_> {
    /// The `typ` of the header, as written.
    pub fn token_type(&self) -> Option<&str> {
        self.0.token_type()
    }

    /// The claims.
    pub fn claims(&self) -> &FlatObject<'_> {
        &self.0.claims
    }
}

impl core::fmt::Debug for VerifiedJwt<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VerifiedJwt").field("token_type", &self.token_type()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::ToyKey;
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"at+jwt"}"#;
    const CLAIMS: &str = r#"{"iss":"https://as.example","sub":"a"}"#;

    fn key() -> ToyKey {
        ToyKey::new(Algorithm::Es256, 1)
    }

    fn accepts(text: &str) -> bool {
        let mut buffer = JwtBuffer::new();
        UnverifiedJwt::parse(text, &mut buffer).is_ok_and(|jwt| jwt.verify(&key()).is_ok())
    }

    fn parse(text: &str) -> Result<(), JwsError> {
        UnverifiedJwt::parse(text, &mut JwtBuffer::new()).map(|_| ())
    }

    fn verify(text: &str, key: &dyn VerifyingKey) -> Result<(), JwsError> {
        UnverifiedJwt::parse(text, &mut JwtBuffer::new()).unwrap().verify(key).map(|_| ())
    }

    fn refusal(header: &str, claims: &str) -> JwsError {
        parse(&key().token(header, claims)).unwrap_err()
    }

    #[test]
    fn a_well_formed_token_releases_its_claims_to_the_right_key() {
        let token = key().token(HEADER, CLAIMS);
        let mut buffer = JwtBuffer::new();
        let jwt = UnverifiedJwt::parse(&token, &mut buffer).unwrap();
        assert_eq!(jwt.kid(), Some("k"));
        assert_eq!(jwt.claimed_issuer(), Some("https://as.example"));
        let verified = jwt.verify(&key()).unwrap();
        assert_eq!(verified.token_type(), Some("at+jwt"));
        assert_eq!(verified.claims().string("sub").unwrap(), Some("a"));
    }

    #[test]
    fn another_key_verifies_nothing() {
        let token = key().token(HEADER, CLAIMS);
        let other = ToyKey::new(Algorithm::Es256, 2);
        let refused = verify(&token, &other).unwrap_err();
        assert_eq!(refused, JwsError::Signature);
    }

    #[test]
    fn a_signature_of_another_length_reaches_no_key() {
        struct Credulous;
        impl VerifyingKey for Credulous {
            fn algorithm(&self) -> Algorithm {
                Algorithm::Es256
            }
            fn verify(&self, _: &[u8], _: &[u8]) -> Result<(), super::super::BadSignature> {
                Ok(())
            }
        }
        let signed = key().token(HEADER, CLAIMS);
        let (signed, _) = signed.rsplit_once('.').unwrap();
        for (length, accepted) in
            [(1, false), (63, false), (64, true), (65, false), (70, false), (256, false)]
        {
            let token = format!("{signed}.{}", base64url::encode(&alloc::vec![0; length]));
            assert_eq!(verify(&token, &Credulous).is_ok(), accepted, "{length}");
        }
    }

    #[test]
    fn the_header_cannot_choose_the_algorithm() {
        // I-A5: the same key material, the header naming another algorithm than the key's.
        let confused = ToyKey::new(Algorithm::Rs256, 1).token(HEADER, CLAIMS);
        let rsa = ToyKey::new(Algorithm::Rs256, 1);
        let refused = verify(&confused, &rsa).unwrap_err();
        assert_eq!(refused, JwsError::OtherAlgorithm);
        for name in ["none", "None", "HS256", "HS384", "RS512", ""] {
            let header = format!(r#"{{"alg":"{name}"}}"#);
            assert_eq!(refusal(&header, CLAIMS), JwsError::Algorithm, "{name}");
        }
        assert_eq!(refusal(r#"{"kid":"k"}"#, CLAIMS), JwsError::Algorithm);
        assert_eq!(refusal(r#"{"alg":["ES256"]}"#, CLAIMS), JwsError::Algorithm);
    }

    #[test]
    fn segments_are_exactly_three() {
        let token = key().token(HEADER, CLAIMS);
        for text in ["", ".", "a", "a.b", "..", "...", &format!("{token}."), &format!(".{token}")] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("a.b.c.d").unwrap_err(), JwsError::Segments);
        assert_eq!(parse("a.b.c.d.e").unwrap_err(), JwsError::Segments);
        // What ends a segment is a dot, and nothing else that is not of its alphabet.
        for other in ["=", "+", " ", "~", ",", "\u{e9}"] {
            for dot in ["first", "second"] {
                let changed = match dot {
                    "first" => token.replacen('.', other, 1),
                    _ => token
                        .chars()
                        .rev()
                        .collect::<std::string::String>()
                        .replacen('.', other, 1)
                        .chars()
                        .rev()
                        .collect(),
                };
                assert_eq!(parse(&changed).unwrap_err(), JwsError::Segments, "{other} for the {dot} dot");
                let three = format!("{changed}.");
                assert_eq!(parse(&three).unwrap_err(), JwsError::Encoding, "{other} for the {dot} dot");
            }
        }
        // An unsigned token's empty third segment.
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(parse(&format!("{signed}.")).unwrap_err(), JwsError::Encoding);
    }

    #[test]
    fn no_extension_may_be_critical() {
        for crit in [r#"["b64"]"#, r#"["exp"]"#, "[]", "null", r#""b64""#] {
            let header = format!(r#"{{"alg":"ES256","crit":{crit}}}"#);
            assert!(
                matches!(refusal(&header, CLAIMS), JwsError::CriticalExtension | JwsError::Header),
                "{crit}"
            );
        }
    }

    #[test]
    fn a_header_brings_no_key_and_no_place_of_one() {
        for member in [r#""jwk":{}"#, r#""jku":"https://evil.example""#, r#""x5u":"u""#, r#""x5c":["a"]"#] {
            let header = format!(r#"{{"alg":"ES256",{member}}}"#);
            assert_eq!(refusal(&header, CLAIMS), JwsError::EmbeddedKey, "{member}");
        }
        // A thumbprint chooses nothing.
        let header = r#"{"alg":"ES256","x5t":"abc"}"#;
        assert!(parse(&key().token(header, CLAIMS)).is_ok());
    }

    #[test]
    fn encrypted_compressed_unencoded_and_nested_payloads_are_refused() {
        for member in
            [r#""enc":"A128GCM""#, r#""zip":"DEF""#, r#""b64":false"#, r#""b64":true"#, r#""cty":"JWT""#]
        {
            let header = format!(r#"{{"alg":"ES256",{member}}}"#);
            assert_eq!(refusal(&header, CLAIMS), JwsError::PayloadForm, "{member}");
        }
    }

    #[test]
    fn duplicates_and_wrong_types_in_the_header_are_refused() {
        assert_eq!(refusal(r#"{"alg":"ES256","alg":"ES256"}"#, CLAIMS), JwsError::Header);
        assert_eq!(refusal(r#"{"alg":"ES256","kid":1}"#, CLAIMS), JwsError::Header);
        assert_eq!(refusal(r#"{"alg":"ES256","typ":["at+jwt"]}"#, CLAIMS), JwsError::Header);
        assert_eq!(refusal(r#"["ES256"]"#, CLAIMS), JwsError::Header);
        assert_eq!(refusal(r#"{"alg":"ES256"} {}"#, CLAIMS), JwsError::Header);
    }

    #[test]
    fn duplicate_claims_and_payloads_that_are_no_object_are_refused() {
        assert_eq!(refusal(HEADER, r#"{"sub":"a","sub":"b"}"#), JwsError::Claims);
        assert_eq!(refusal(HEADER, r#"{"a":{"b":1,"b":1}}"#), JwsError::Claims);
        assert_eq!(refusal(HEADER, "[]"), JwsError::Claims);
        assert_eq!(refusal(HEADER, "null"), JwsError::Claims);
        // A nested token as the payload.
        assert_eq!(refusal(HEADER, &key().token(HEADER, CLAIMS)), JwsError::Claims);
    }

    #[test]
    fn a_token_of_any_length_is_decoded_whole() {
        for filling in [0, 1, 1200, 1400, 1500, 1600, 4000] {
            let claims = format!(r#"{{"iss":"i","pad":"{}"}}"#, "p".repeat(filling));
            let token = key().token(HEADER, &claims);
            let mut buffer = JwtBuffer::new();
            let jwt = UnverifiedJwt::parse(&token, &mut buffer).unwrap();
            let pad = jwt.verify(&key()).unwrap().claims().string("pad").unwrap().map(str::len);
            assert_eq!(pad, Some(filling));
        }
    }

    #[test]
    fn long_tokens_and_long_headers_are_refused_before_they_are_read() {
        let long = "a".repeat(limits::TOKEN_BYTES);
        assert_eq!(refusal(HEADER, &format!(r#"{{"sub":"{long}"}}"#)), JwsError::TooLong);
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(limits::JWS_HEADER_BYTES));
        assert_eq!(refusal(&header, CLAIMS), JwsError::TooLong);
    }

    #[test]
    fn padding_and_the_other_alphabet_are_refused() {
        // I-A6: a payload of each length modulo three, so that every kind of padding occurs.
        for claims in [r#"{"a":1}"#, r#"{"a":12}"#, r#"{"a":123}"#] {
            let token = key().token(HEADER, claims);
            assert!(accepts(&token));
            for padded in [format!("{token}="), format!("{token}=="), token.replace('.', "=.")] {
                assert!(!accepts(&padded), "{padded}");
            }
        }
    }

    proptest! {
        // I-T11: no proper prefix, no extension and no case variant of a valid token is accepted.
        #[test]
        fn only_the_exact_text_is_accepted(cut in any::<prop::sample::Index>(), extra in "[A-Za-z0-9_.=-]{1,4}") {
            let token = key().token(HEADER, CLAIMS);
            prop_assert!(accepts(&token));
            prop_assert!(!accepts(&token[..cut.index(token.len())]));
            let longer = format!("{token}{extra}");
            prop_assert!(!accepts(&longer));
            let longer = format!("{extra}{token}");
            prop_assert!(!accepts(&longer));
            let at = cut.index(token.len());
            let mut other = token.clone().into_bytes();
            other[at] ^= 0x20;
            if let Ok(other) = core::str::from_utf8(&other) {
                prop_assert!(!accepts(other));
            }
        }

        // I-A6, I-T11: replacing any one character, also by one that only changes unused trailing bits, is refused.
        #[test]
        fn no_single_character_can_change(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let token = key().token(HEADER, CLAIMS);
            let at = at.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(accepts(&changed), changed == token);
        }

        // I-G1
        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in ".{0,200}") {
            let _ = UnverifiedJwt::parse(&text, &mut JwtBuffer::new()).map(|jwt| jwt.claimed_issuer().map(|iss| iss.to_string()));
        }

        // I-G1
        #[test]
        fn any_header_and_claims_are_parsed_or_refused_without_a_panic(header in ".{0,80}", claims in ".{0,80}") {
            let _ = parse(&key().token(&header, &claims));
        }
    }
}
