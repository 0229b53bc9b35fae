//! The claims of a JWT access token (RFC 9068 section 2.2).
//!
//! Only their presence, type and grammar are checked here. Issuer, audience, time and signature are the resource
//! server's to check, and nothing of a token is true before they are.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::ScopeSet;
use crate::limits;
use crate::syntax::json::JsonObject;

use super::Malformed;
use super::read::{Document, Members};

/// Which claims hold what, for issuers that do not follow RFC 9068 (D32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimNames {
    /// The claim with the client's identifier.
    pub client_id: &'static str,
    /// The claim with the scope, as one string or as an array of tokens.
    pub scope: &'static str,
    /// Whether `iat` and `jti` must be there.
    pub issuance: bool,
}

impl ClaimNames {
    /// The names and requirements of RFC 9068.
    pub const RFC9068: Self = Self { client_id: "client_id", scope: "scope", issuance: true };
}

/// The claims. Times are seconds since 1970; claims that are not here are ignored when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTokenClaims {
    /// The issuer, exactly as written.
    pub iss: String,
    /// The subject.
    pub sub: String,
    /// The resources it is for: one or more, none empty.
    pub aud: Vec<String>,
    /// The client it was issued to.
    pub client_id: String,
    /// When it expires.
    pub exp: i64,
    /// When it becomes valid.
    pub nbf: Option<i64>,
    /// When it was issued.
    pub iat: Option<i64>,
    /// Its identifier.
    pub jti: Option<String>,
    /// Its scope.
    pub scope: Option<ScopeSet>,
    /// When the person authenticated.
    pub auth_time: Option<i64>,
    /// How strongly the person authenticated.
    pub acr: Option<String>,
    /// Whether it has `cnf`: it is bound to a key, and is no bearer token for who cannot check it.
    pub bound_to_key: bool,
    /// Whether it has `authorization_details`, which limit it beyond its scope.
    pub authorization_details: bool,
    /// Whether it has a mark of an ID token: `nonce`, `at_hash`, `c_hash`, or a `typ` claim of `ID`.
    pub id_token_marks: bool,
}

impl AccessTokenClaims {
    /// Reads the claims under their RFC 9068 names.
    ///
    /// # Errors
    /// [`Malformed`] when a required claim is missing or empty, or one has another JSON type or grammar than it must
    /// have.
    pub fn parse(claims: &JsonObject) -> Result<Self, Malformed> {
        Self::parse_named(claims, ClaimNames::RFC9068)
    }

    /// Reads the claims under an issuer's own names.
    ///
    /// # Errors
    /// As [`AccessTokenClaims::parse`].
    pub fn parse_named(claims: &JsonObject, names: ClaimNames) -> Result<Self, Malformed> {
        let members = Members::of(claims);
        let text = |name| members.required_text(name).map(ToOwned::to_owned);
        // RFC7519-4.1-1: NumericDate, here whole seconds only
        let exp = members.seconds("exp")?.ok_or(Malformed::Missing("exp"))?;
        let iat = members.seconds("iat")?;
        let jti = members.display_text("jti", limits::URL_BYTES)?;
        // RFC9068-2.2-1
        if names.issuance && iat.is_none() {
            return Err(Malformed::Missing("iat"));
        }
        if names.issuance && jti.is_none() {
            return Err(Malformed::Missing("jti"));
        }
        Ok(Self {
            // RFC9068-2.2-1
            iss: text("iss")?,
            sub: text("sub")?,
            aud: members.one_or_more("aud")?.ok_or(Malformed::Missing("aud"))?,
            client_id: text(names.client_id)?,
            exp,
            nbf: members.seconds("nbf")?,
            iat,
            jti,
            scope: match claims.string(names.scope) {
                Ok(_) => members.scope(names.scope)?,
                Err(_) if names.scope != "scope" => members.scope_list(names.scope, limits::SCOPES)?,
                Err(error) => return Err(error.into()),
            },
            auth_time: members.seconds("auth_time")?,
            acr: members.display_text("acr", limits::URL_BYTES)?,
            bound_to_key: members.has("cnf"),
            authorization_details: members.has("authorization_details"),
            id_token_marks: ["nonce", "at_hash", "c_hash"].iter().any(|name| members.has(name))
                || members.text("typ").is_ok_and(|typ| typ == Some("ID")),
        })
    }

    /// The claims set to sign, under the RFC 9068 names and in a fixed order. The marks that are only read are left
    /// out: this crate issues no token that is bound to a key or limited by details.
    pub fn render(&self) -> Vec<u8> {
        // RFC9068-2.2-1, RFC9068-2.2.3-1
        Document::new()
            .text("iss", Some(&self.iss))
            .text("sub", Some(&self.sub))
            .audience("aud", &self.aud)
            .text("client_id", Some(&self.client_id))
            .seconds("exp", Some(self.exp))
            .seconds("nbf", self.nbf)
            .seconds("iat", self.iat)
            .text("jti", self.jti.as_deref())
            .scope("scope", self.scope.as_ref())
            .seconds("auth_time", self.auth_time)
            .text("acr", self.acr.as_deref())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{scopes, text, texts};
    use super::*;

    const CLAIMS: [(&str, &str); 7] = [
        ("iss", r#""https://as.example.com""#),
        ("sub", r#""ada""#),
        ("aud", r#""https://mcp.example.com/mcp""#),
        ("client_id", r#""c""#),
        ("exp", "2000000000"),
        ("iat", "1999999000"),
        ("jti", r#""j""#),
    ];

    fn claims<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> JsonObject {
        let members: Vec<_> =
            members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        JsonObject::parse(format!("{{{}}}", members.join(",")).as_bytes(), 4096).unwrap()
    }

    fn with(name: &str, value: &str) -> Result<AccessTokenClaims, Malformed> {
        let others = CLAIMS.into_iter().filter(|(other, _)| *other != name);
        AccessTokenClaims::parse(&claims(others.chain([(name, value)])))
    }

    #[test]
    fn a_required_claim_that_is_missing_or_empty_refuses_the_token() {
        // RFC9068-2.2-1, I-A3
        assert!(AccessTokenClaims::parse(&claims(CLAIMS)).is_ok());
        for (missing, _) in CLAIMS {
            let rest = claims(CLAIMS.into_iter().filter(|(name, _)| *name != missing));
            assert_eq!(AccessTokenClaims::parse(&rest).unwrap_err(), Malformed::Missing(missing));
        }
        for name in ["iss", "sub", "aud", "client_id", "jti"] {
            assert_eq!(with(name, "\"\"").unwrap_err(), Malformed::Missing(name));
        }
        assert_eq!(with("aud", "[]").unwrap_err(), Malformed::Missing("aud"));
        assert!(with("aud", r#"["https://mcp.example.com",""]"#).is_err());
    }

    #[test]
    fn a_claim_of_another_type_refuses_the_token() {
        // RFC7519-4.1-1, I-A3, I-T9
        for (name, value) in [
            ("exp", r#""2000000000""#),
            ("exp", "2000000000.5"),
            ("exp", "null"),
            ("nbf", r#""0""#),
            ("nbf", "null"),
            ("iat", "true"),
            ("aud", "7"),
            ("aud", "[7]"),
            ("aud", r#"{"a":"b"}"#),
            ("aud", "null"),
            ("iss", r#"["https://as.example.com"]"#),
            ("sub", "7"),
            ("client_id", "null"),
            ("jti", "1"),
            ("scope", r#"["read"]"#),
            ("scope", r#""a  b""#),
            ("scope", "null"),
            ("auth_time", r#""1""#),
            ("acr", "1"),
        ] {
            let error = with(name, value).unwrap_err();
            assert_eq!(error.member(), Some(name), "{name} {value} {error:?}");
        }
    }

    #[test]
    fn marks_of_an_id_token_and_constraints_are_seen() {
        // D32, I-G11
        for (name, value) in
            [("nonce", "\"n\""), ("at_hash", "\"h\""), ("c_hash", "\"h\""), ("typ", "\"ID\"")]
        {
            assert!(with(name, value).unwrap().id_token_marks, "{name}");
        }
        assert!(!with("typ", "\"Bearer\"").unwrap().id_token_marks);
        assert!(with("cnf", "null").unwrap().bound_to_key);
        assert!(with("authorization_details", "[]").unwrap().authorization_details);
        let plain = AccessTokenClaims::parse(&claims(CLAIMS)).unwrap();
        assert!(!plain.id_token_marks && !plain.bound_to_key && !plain.authorization_details);
    }

    #[test]
    fn an_issuers_own_names_are_read_only_where_they_are_configured() {
        // D32
        let own = claims([
            ("iss", "\"i\""),
            ("sub", "\"s\""),
            ("aud", "\"a\""),
            ("exp", "1"),
            ("azp", "\"c\""),
            ("scp", r#"["read","write"]"#),
        ]);
        assert_eq!(AccessTokenClaims::parse(&own).unwrap_err(), Malformed::Missing("iat"));
        let names = ClaimNames { client_id: "azp", scope: "scp", issuance: false };
        let read = AccessTokenClaims::parse_named(&own, names).unwrap();
        assert_eq!(read.client_id, "c");
        assert_eq!(read.scope, Some(ScopeSet::parse("read write").unwrap()));
        let text = claims([
            ("iss", "\"i\""),
            ("sub", "\"s\""),
            ("aud", "\"a\""),
            ("exp", "1"),
            ("azp", "\"c\""),
            ("scp", "\"read write\""),
        ]);
        assert_eq!(AccessTokenClaims::parse_named(&text, names).unwrap(), read);
    }

    proptest! {
        #[test]
        fn claims_read_back_the_same(
            words in proptest::collection::vec(text(), 4), aud in texts(), exp: i64, iat: i64, nbf in of(any::<i64>()),
            scope in of(scopes()), acr in of(text()),
        ) {
            // RFC9068-2.2-1, RFC9068-2.2.3-1
            let sent = AccessTokenClaims {
                iss: words[0].clone(),
                sub: words[1].clone(),
                aud,
                client_id: words[2].clone(),
                exp,
                nbf,
                iat: Some(iat),
                jti: Some(words[3].clone()),
                scope,
                auth_time: nbf,
                acr,
                bound_to_key: false,
                authorization_details: false,
                id_token_marks: false,
            };
            let object = JsonObject::parse(&sent.render(), limits::REPLY_BYTES).unwrap();
            prop_assert_eq!(AccessTokenClaims::parse(&object).unwrap(), sent);
        }
    }
}
