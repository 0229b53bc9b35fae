//! The ID token of OpenID Connect Core section 2: where a token response has it, and what its claims are.
//!
//! Only presence, type and grammar are checked here. Whose token it is, for whom and for which request is the client's to
//! check, and nothing of it is true before.

use crate::limits;
use crate::secret::IdToken;
use crate::syntax::flat::{FlatObject, Strings};
use crate::syntax::json::JsonObject;

use super::Malformed;
use super::read::Members;

/// Longest subject identifier, in bytes (OpenID Connect Core section 2).
const SUBJECT_BYTES: usize = 255;

/// Takes the ID token out of the body of a token response.
///
/// # Errors
/// [`Malformed`] when there is none, or it is no token.
pub fn id_token_of(body: &[u8]) -> Result<IdToken, Malformed> {
    let object = JsonObject::parse(body, limits::REPLY_BYTES)?;
    // OIDCC-3.1.3.3-1
    Members::of(&object).required_typed("id_token", IdToken::new)
}

/// The claims of an ID token, read where they stand. Times are seconds since 1970; claims that are not here are ignored.
#[derive(Debug)]
pub struct IdTokenClaims<'c> {
    /// The issuer, exactly as written.
    pub iss: &'c str,
    /// The person, as the issuer knows them: 1 to 255 ASCII characters.
    pub sub: &'c str,
    /// The clients it is for: one or more, none empty.
    pub aud: Strings<'c>,
    /// The client it was issued to.
    pub azp: Option<&'c str>,
    /// When it expires.
    pub exp: i64,
    /// When it becomes valid.
    pub nbf: Option<i64>,
    /// When it was issued.
    pub iat: i64,
    /// The request it was made for.
    pub nonce: Option<&'c str>,
    /// When the person authenticated.
    pub auth_time: Option<i64>,
    /// The kind of token, where the issuer has a claim for it.
    pub typ: Option<&'c str>,
    /// What the person is called: `name`, `preferred_username` or `email`, the first there is. A peer's text, which
    /// identifies nobody.
    pub name: Option<&'c str>,
}

impl<'c> IdTokenClaims<'c> {
    /// Reads the claims.
    ///
    /// # Errors
    /// [`Malformed`] when a required claim is missing or empty, or one has another JSON type or grammar than it must
    /// have.
    pub fn read(claims: &'c FlatObject<'_>) -> Result<Self, Malformed> {
        // OIDCC-2-1
        let required = |name| text(claims, name)?.ok_or(Malformed::Missing(name));
        let sub = required("sub")?;
        // OIDCC-2-2
        if sub.len() > SUBJECT_BYTES || !sub.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
            return Err(Malformed::Invalid("sub"));
        }
        let aud = claims.one_or_more("aud")?.ok_or(Malformed::Missing("aud"))?;
        if aud.iter().next().is_none() || aud.iter().any(str::is_empty) {
            return Err(Malformed::Missing("aud"));
        }
        let mut name = None;
        for claim in ["name", "preferred_username", "email"] {
            name = name.or(text(claims, claim)?);
        }
        Ok(Self {
            iss: required("iss")?,
            sub,
            aud,
            azp: claims.string("azp")?,
            exp: seconds(claims, "exp")?.ok_or(Malformed::Missing("exp"))?,
            nbf: seconds(claims, "nbf")?,
            iat: seconds(claims, "iat")?.ok_or(Malformed::Missing("iat"))?,
            nonce: claims.string("nonce")?,
            auth_time: seconds(claims, "auth_time")?,
            typ: claims.string("typ")?,
            name,
        })
    }
}

/// Text that is there; empty text says nothing.
fn text<'c>(claims: &'c FlatObject<'_>, name: &'static str) -> Result<Option<&'c str>, Malformed> {
    match claims.string(name)?.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > limits::URL_BYTES => Err(Malformed::Invalid(name)),
        text => Ok(text),
    }
}

fn seconds(claims: &FlatObject<'_>, name: &'static str) -> Result<Option<i64>, Malformed> {
    match claims.integer(name)? {
        Some(seconds) if seconds < 0 => Err(Malformed::Invalid(name)),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    const CLAIMS: [(&str, &str); 5] = [
        ("iss", r#""https://op.example""#),
        ("sub", r#""248289761001""#),
        ("aud", r#""client""#),
        ("exp", "2000000000"),
        ("iat", "1999999000"),
    ];

    fn claims(changes: &[(&str, &str)]) -> String {
        let mut members: Vec<(&str, &str)> = CLAIMS.into();
        for (name, value) in changes {
            members.retain(|(known, _)| known != name);
            if !value.is_empty() {
                members.push((name, value));
            }
        }
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    fn read<T>(
        changes: &[(&str, &str)],
        of: impl Fn(&IdTokenClaims<'_>) -> Option<T>,
    ) -> Result<Option<T>, Malformed> {
        let text = claims(changes);
        let object = FlatObject::parse(text.as_bytes(), 65536)?;
        IdTokenClaims::read(&object).map(|claims| of(&claims))
    }

    // OIDCC-2-1
    #[test]
    fn a_required_claim_that_is_missing_or_empty_refuses_the_token() {
        assert!(read(&[], |_| None::<()>).is_ok());
        for (name, _) in CLAIMS {
            assert_eq!(read(&[(name, "")], |_| None::<()>), Err(Malformed::Missing(name)));
        }
        for name in ["iss", "sub", "aud"] {
            assert_eq!(read(&[(name, "\"\"")], |_| None::<()>), Err(Malformed::Missing(name)));
        }
        for aud in ["[]", r#"["client",""]"#] {
            assert_eq!(read(&[("aud", aud)], |_| None::<()>), Err(Malformed::Missing("aud")), "{aud}");
        }
    }

    // OIDCC-2-1, OIDCC-2-2, I-A3, I-G2
    #[test]
    fn a_claim_of_another_type_or_grammar_refuses_the_token() {
        let long = format!("\"{}\"", "s".repeat(256));
        for (name, value) in [
            ("iss", "7"),
            ("sub", "7"),
            ("sub", "\"anaïs\""),
            ("sub", "\"a\\nb\""),
            ("sub", long.as_str()),
            ("aud", "{}"),
            ("aud", "[7]"),
            ("azp", "[\"client\"]"),
            ("exp", "\"2000000000\""),
            ("exp", "-1"),
            ("exp", "1.5"),
            ("iat", "null"),
            ("nbf", "true"),
            ("nonce", "7"),
            ("nonce", "null"),
            ("auth_time", "\"1\""),
            ("name", "{}"),
            ("typ", "1"),
        ] {
            let error = read(&[(name, value)], |_| None::<()>).unwrap_err();
            assert_eq!(error.member(), Some(name), "{name} {value} {error:?}");
        }
        assert!(read(&[("sub", &format!("\"{}\"", "s".repeat(255)))], |_| None::<()>).is_ok());
    }

    #[test]
    fn the_name_is_the_first_of_three_and_may_be_anything() {
        let name = |changes: &[(&str, &str)]| read(changes, |claims| claims.name.map(String::from)).unwrap();
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[("email", "\"a@b\"")]).as_deref(), Some("a@b"));
        assert_eq!(name(&[("email", "\"a@b\""), ("name", "\"<b>Ann\"")]).as_deref(), Some("<b>Ann"));
        assert_eq!(name(&[("preferred_username", "\"ann\""), ("name", "\"\"")]).as_deref(), Some("ann"));
    }

    // OIDCC-3.1.3.3-1
    #[test]
    fn a_token_response_without_an_id_token_signs_nobody_in() {
        let of = |member: &str| id_token_of(format!(r#"{{"access_token":"t"{member}}}"#).as_bytes());
        assert_eq!(of(r#","id_token":"a.b.c""#).unwrap().expose(), "a.b.c");
        assert_eq!(of("").unwrap_err(), Malformed::Missing("id_token"));
        for member in
            [r#","id_token":"""#, r#","id_token":null"#, r#","id_token":["a.b.c"]"#, r#","id_token":"a b""#]
        {
            assert!(of(member).is_err(), "{member}");
        }
    }
}
