//! The claims of a JWT access token (RFC 9068 section 2.2).
//!
//! Only their presence, type and grammar are checked here. Issuer, audience, time and signature are the resource
//! server's to check, and nothing of a token is true before they are.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::{Scope, ScopeSet};
use crate::limits;
use crate::syntax::flat::{FlatObject, Strings};

use super::Malformed;
use super::read::Document;

/// Which claims hold what, for issuers that do not follow RFC 9068 (D32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimNames {
    /// The claim with the client's identifier.
    pub client_id: &'static str,
    /// The claim with the scope.
    pub scope: &'static str,
    /// How the scope is written there. The other way is a wrong type.
    pub scope_shape: ScopeShape,
    /// Whether `iat` must be there.
    pub requires_iat: bool,
    /// Whether `jti` must be there.
    pub requires_jti: bool,
}

/// How an issuer writes the scope of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeShape {
    /// One string, tokens separated by single spaces.
    Text,
    /// An array of tokens.
    List,
}

impl ClaimNames {
    /// The names and requirements of RFC 9068.
    pub const RFC9068: Self = Self {
        client_id: "client_id",
        scope: "scope",
        scope_shape: ScopeShape::Text,
        requires_iat: true,
        requires_jti: true,
    };
}

/// The claims of a presented token, read where they stand. Times are seconds since 1970; claims that are not here are
/// ignored.
#[derive(Debug)]
pub struct PresentedClaims<'c> {
    /// The issuer, exactly as written.
    pub iss: &'c str,
    /// The subject.
    pub sub: &'c str,
    /// The resources it is for: one or more, none empty.
    pub aud: Strings<'c>,
    /// The client it was issued to.
    pub client_id: &'c str,
    /// When it expires.
    pub exp: i64,
    /// When it becomes valid.
    pub nbf: Option<i64>,
    /// When it was issued.
    pub iat: Option<i64>,
    /// Its identifier.
    pub jti: Option<&'c str>,
    /// Its scope; each token is well-formed.
    pub scope: Option<ScopeClaim<'c>>,
    /// Whether it has `cnf`: it is bound to a key, and is no bearer token for who cannot check it.
    pub bound_to_key: bool,
    /// Whether it has `authorization_details`, which limit it beyond its scope.
    pub authorization_details: bool,
    /// Whether it has a mark of another kind of token: `nonce`, `at_hash`, `c_hash`, or a `typ` claim that is not
    /// `Bearer`.
    pub id_token_marks: bool,
}

/// A scope as it stands in a token.
#[derive(Debug, Clone, Copy)]
pub enum ScopeClaim<'c> {
    /// As one string; empty for no scope at all.
    Text(&'c str),
    /// As an array.
    List(Strings<'c>),
}

impl<'c> ScopeClaim<'c> {
    /// Appends the scope tokens to a text, with a space before each.
    pub(crate) fn append_to(self, text: &mut String) {
        match self {
            Self::Text("") => {}
            Self::Text(scope) => {
                text.push(' ');
                text.push_str(scope);
            }
            Self::List(scopes) => scopes.iter().for_each(|scope| {
                text.push(' ');
                text.push_str(scope);
            }),
        }
    }

    /// How many bytes that takes at most.
    pub(crate) fn text_bytes(self) -> usize {
        match self {
            Self::Text(scope) => scope.len().saturating_add(1),
            Self::List(scopes) => {
                scopes.iter().fold(0, |sum, scope| scope.len().saturating_add(1).saturating_add(sum))
            }
        }
    }

    /// Each scope token, as written.
    pub fn iter(self) -> impl Iterator<Item = &'c str> + Clone {
        let (text, list) = match self {
            Self::Text(text) => (Some(text), None),
            Self::List(list) => (None, Some(list)),
        };
        let text = text.into_iter().flat_map(|text| text.split(' ')).filter(|token| !token.is_empty());
        text.chain(list.into_iter().flat_map(Strings::iter))
    }
}

impl<'c> PresentedClaims<'c> {
    /// Reads the claims under an issuer's names.
    ///
    /// # Errors
    /// [`Malformed`] when a required claim is missing or empty, or one has another JSON type or grammar than it must
    /// have.
    pub fn read(claims: &'c FlatObject<'_>, names: ClaimNames) -> Result<Self, Malformed> {
        // RFC8693-4.1-1: the members at the top alone; an `act` claim and what lies in it are not looked at.
        let text = |name| required(claims, name);
        let aud = claims.one_or_more("aud")?.ok_or(Malformed::Missing("aud"))?;
        if aud.iter().next().is_none() || aud.iter().any(str::is_empty) {
            return Err(Malformed::Missing("aud"));
        }
        // RFC7519-4.1-1: NumericDate, here whole seconds only
        let exp = seconds(claims, "exp")?.ok_or(Malformed::Missing("exp"))?;
        let iat = seconds(claims, "iat")?;
        let jti = optional(claims, "jti")?;
        // RFC9068-2.2-1
        if names.requires_iat && iat.is_none() {
            return Err(Malformed::Missing("iat"));
        }
        if names.requires_jti && jti.is_none() {
            return Err(Malformed::Missing("jti"));
        }
        Ok(Self {
            // RFC9068-2.2-1
            iss: text("iss")?,
            sub: text("sub")?,
            aud,
            client_id: text(names.client_id)?,
            exp,
            nbf: seconds(claims, "nbf")?,
            iat,
            jti,
            scope: scope(claims, names)?,
            bound_to_key: claims.has("cnf"),
            authorization_details: claims.has("authorization_details"),
            id_token_marks: ["nonce", "at_hash", "c_hash"].iter().any(|name| claims.has(name))
                || (claims.has("typ") && claims.string("typ") != Ok(Some("Bearer"))),
        })
    }
}

/// A time since 1970. Before that nobody issued a token, and other implementations read no such number.
#[inline(always)]
fn seconds(claims: &FlatObject<'_>, name: &'static str) -> Result<Option<i64>, Malformed> {
    match claims.integer(name)? {
        Some(seconds) if seconds < 0 => Err(Malformed::Invalid(name)),
        seconds => Ok(seconds),
    }
}

#[inline(always)]
fn required<'c>(claims: &'c FlatObject<'_>, name: &'static str) -> Result<&'c str, Malformed> {
    optional(claims, name)?.ok_or(Malformed::Missing(name))
}

/// Text that is there; empty text says nothing.
#[inline(always)]
fn optional<'c>(claims: &'c FlatObject<'_>, name: &'static str) -> Result<Option<&'c str>, Malformed> {
    match claims.string(name)?.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > limits::URL_BYTES => Err(Malformed::Invalid(name)),
        text => Ok(text),
    }
}

fn scope<'c>(claims: &'c FlatObject<'_>, names: ClaimNames) -> Result<Option<ScopeClaim<'c>>, Malformed> {
    let claim = match names.scope_shape {
        ScopeShape::Text => match claims.string(names.scope)? {
            None => return Ok(None),
            Some("") => return Ok(Some(ScopeClaim::Text(""))),
            Some(text) if ScopeSet::is_text(text) => ScopeClaim::Text(text),
            Some(_) => return Err(Malformed::Invalid(names.scope)),
        },
        ScopeShape::List => match claims.strings(names.scope)? {
            None => return Ok(None),
            Some(list) if ScopeSet::is_set(list.iter()) => ScopeClaim::List(list),
            Some(_) => return Err(Malformed::Invalid(names.scope)),
        },
    };
    Ok(Some(claim))
}

/// The claims of a token to be issued. Times are seconds since 1970.
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
}

impl AccessTokenClaims {
    /// Reads a claims set under the RFC 9068 names.
    ///
    /// # Errors
    /// [`Malformed`] as [`PresentedClaims::read`], and for what is no JSON object.
    pub fn parse(claims: &[u8]) -> Result<Self, Malformed> {
        Self::read(&FlatObject::parse(claims, limits::REPLY_BYTES)?)
    }

    /// Reads the claims of a token under the RFC 9068 names.
    ///
    /// # Errors
    /// [`Malformed`] as [`PresentedClaims::read`].
    pub fn read(claims: &FlatObject<'_>) -> Result<Self, Malformed> {
        let read = PresentedClaims::read(claims, ClaimNames::RFC9068)?;
        let scope = read.scope.map(|scope| {
            scope.iter().map(|token| Scope::new(token).map_err(|_| Malformed::Invalid("scope"))).collect()
        });
        Ok(Self {
            iss: read.iss.to_owned(),
            sub: read.sub.to_owned(),
            aud: read.aud.iter().map(ToOwned::to_owned).collect(),
            client_id: read.client_id.to_owned(),
            exp: read.exp,
            nbf: read.nbf,
            iat: read.iat,
            jti: read.jti.map(ToOwned::to_owned),
            scope: scope.transpose()?,
            auth_time: claims.integer("auth_time")?,
            acr: optional(claims, "acr")?.map(ToOwned::to_owned),
        })
    }

    /// The claims set to sign, under the RFC 9068 names and in a fixed order.
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

    fn claims<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
        let members: Vec<_> =
            members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    }

    fn changed(name: &str, value: &str) -> Vec<u8> {
        let others = CLAIMS.into_iter().filter(|(other, _)| *other != name);
        claims(others.chain([(name, value)]))
    }

    fn with(name: &str, value: &str) -> Result<AccessTokenClaims, Malformed> {
        AccessTokenClaims::parse(&changed(name, value))
    }

    /// What one reading of the claims says.
    fn read<T>(
        text: &[u8],
        names: ClaimNames,
        of: impl Fn(&PresentedClaims<'_>) -> T,
    ) -> Result<T, Malformed> {
        let object = FlatObject::parse(text, 4096).unwrap();
        PresentedClaims::read(&object, names).map(|claims| of(&claims))
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
    fn a_claim_has_a_bounded_length() {
        // I-G1
        for name in ["iss", "sub", "client_id", "jti"] {
            let of = |bytes: usize| with(name, &format!("\"{}\"", "a".repeat(bytes)));
            assert!(of(limits::URL_BYTES).is_ok(), "{name}");
            assert_eq!(of(limits::URL_BYTES + 1).unwrap_err(), Malformed::Invalid(name));
        }
    }

    #[test]
    fn a_claim_of_another_type_refuses_the_token() {
        // RFC7519-4.1-1, I-A3, I-T9
        for (name, value) in [
            ("exp", r#""2000000000""#),
            ("exp", "2000000000.5"),
            ("exp", "null"),
            ("exp", "-1"),
            ("nbf", "-1"),
            ("iat", "-9223372036854775808"),
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
    fn marks_of_other_tokens_and_constraints_are_seen() {
        // D32, I-G11
        let marked =
            |name, value| read(&changed(name, value), ClaimNames::RFC9068, |claims| claims.id_token_marks);
        for (name, value) in [
            ("nonce", "\"n\""),
            ("nonce", "null"),
            ("at_hash", "\"h\""),
            ("c_hash", "\"h\""),
            ("typ", "\"ID\""),
            ("typ", "\"Refresh\""),
            ("typ", "\"bearer\""),
            ("typ", "[\"Bearer\"]"),
        ] {
            assert_eq!(marked(name, value), Ok(true), "{name} {value}");
        }
        assert_eq!(marked("typ", "\"Bearer\""), Ok(false));
        let bound = |value| read(&changed("cnf", value), ClaimNames::RFC9068, |claims| claims.bound_to_key);
        assert_eq!((bound("null"), bound("{}")), (Ok(true), Ok(true)));
        let limited = changed("authorization_details", "[]");
        assert_eq!(read(&limited, ClaimNames::RFC9068, |claims| claims.authorization_details), Ok(true));
        let plain = |claims: &PresentedClaims<'_>| {
            claims.id_token_marks || claims.bound_to_key || claims.authorization_details
        };
        assert_eq!(read(&claims(CLAIMS), ClaimNames::RFC9068, plain), Ok(false));
    }

    #[test]
    fn an_issuers_own_names_and_shapes_are_read_only_where_they_are_configured() {
        // D32
        let own = |scope| {
            claims([
                ("iss", "\"i\""),
                ("sub", "\"s\""),
                ("aud", "\"a\""),
                ("exp", "1"),
                ("azp", "\"c\""),
                ("scp", scope),
            ])
        };
        let list = own(r#"["read","write"]"#);
        assert_eq!(AccessTokenClaims::parse(&list).unwrap_err(), Malformed::Missing("iat"));
        let names = ClaimNames {
            client_id: "azp",
            scope: "scp",
            scope_shape: ScopeShape::List,
            requires_iat: false,
            requires_jti: false,
        };
        let scopes = |claims: &PresentedClaims<'_>| {
            let scope = claims.scope.unwrap().iter().map(ToOwned::to_owned).collect::<Vec<_>>();
            (ToOwned::to_owned(claims.client_id), scope)
        };
        let expected = ("c".into(), Vec::from(["read".into(), "write".into()]));
        assert_eq!(read(&list, names, scopes), Ok(expected.clone()));
        let text = own("\"read write\"");
        let as_text = ClaimNames { scope_shape: ScopeShape::Text, ..names };
        assert_eq!(read(&text, as_text, scopes), Ok(expected));
        for (written, names) in [(&text, names), (&list, as_text)] {
            assert_eq!(read(written, names, |_| ()).unwrap_err().member(), Some("scp"));
        }
        for scope in [r#"["a b"]"#, r#"["a","a\"b"]"#, r#"[""]"#, r#"["a",1]"#] {
            assert_eq!(read(&own(scope), names, |_| ()).unwrap_err().member(), Some("scp"), "{scope}");
        }
    }

    proptest! {
        #[test]
        fn a_required_claim_with_another_value_refuses_the_token(
            at in 0_usize..7, value in prop::sample::select(std::vec![
                "", "null", "\"\"", "[]", "{}", "7.5", "true", "-1", "[\"\"]", "[null]", "\"2000000000\"",
            ]),
        ) {
            // RFC9068-2.2-1, I-A3: missing (written here as no value), empty, or of another type.
            let (name, _) = CLAIMS[at];
            prop_assume!(value != "\"2000000000\"" || matches!(name, "exp" | "iat"));
            let others = CLAIMS.into_iter().filter(|(other, _)| *other != name);
            let given = (!value.is_empty()).then_some((name, value));
            prop_assert!(AccessTokenClaims::parse(&claims(others.chain(given))).is_err(), "{}: {}", name, value);
        }

        #[test]
        fn claims_read_back_the_same(
            words in proptest::collection::vec(text(), 4), aud in texts(), exp in 0..i64::MAX, iat in 0..i64::MAX, nbf in of(0..i64::MAX),
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
            };
            prop_assert_eq!(AccessTokenClaims::parse(&sent.render()).unwrap(), sent);
        }
    }
}
