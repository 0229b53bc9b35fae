//! `WWW-Authenticate`: the challenges of a response, and the Bearer challenge among them (RFC 9110 sections 11.3
//! to 11.6.1, RFC 6750 section 3, RFC 9728 section 5.1).
//!
//! Reading is strict: a field that is not a list of challenges, or a challenge that repeats a parameter, is an
//! error for the whole response, because two readers could understand it differently.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::limits;
use crate::syntax::field::{self, FieldReader};

/// Why the `WWW-Authenticate` fields of a response are of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// More bytes, challenges or parameters than the core reads.
    #[error("the WWW-Authenticate fields are too large")]
    TooLarge,
    /// Not a list of challenges.
    #[error("a WWW-Authenticate field is not a list of challenges")]
    Malformed,
    /// A challenge has a parameter twice.
    #[error("a challenge repeats a parameter")]
    Duplicate,
    /// Two challenges name different resource metadata, and nothing says which to believe.
    #[error("the challenges name different resource metadata documents")]
    Conflict,
}

/// One challenge of any scheme: parameters or a token68, never both, perhaps neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
    token68: Option<String>,
}

impl Challenge {
    /// The scheme as it was written.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether it is of this scheme, in any case.
    pub fn has_scheme(&self, scheme: &str) -> bool {
        // RFC9110-11.2-1
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The value of a parameter, unescaped; its name is matched in any case.
    pub fn param(&self, name: &str) -> Option<&str> {
        // RFC9110-11.2-1
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The parameters in order, names as they were written.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The token68 that stands in place of parameters.
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }

    fn named(scheme: &str) -> Self {
        Self { scheme: scheme.to_string(), params: Vec::new(), token68: None }
    }

    fn add(&mut self, name: &str, value: String) -> Result<(), ChallengeError> {
        if self.token68.is_some() {
            return Err(ChallengeError::Malformed);
        }
        // RFC9110-11.2-2, I-G2: in any case of the name, and whether or not the values agree.
        if self.param(name).is_some() {
            return Err(ChallengeError::Duplicate);
        }
        if self.params.len() == limits::CHALLENGE_PARAMETERS {
            return Err(ChallengeError::TooLarge);
        }
        self.params.push((name.to_string(), value));
        Ok(())
    }
}

/// Reads every `WWW-Authenticate` field of a response, given the fields' values in order.
///
/// # Errors
/// [`ChallengeError`] when any of them is malformed or they are too large together; none of their text is in it.
pub fn parse_challenges<'v>(
    values: impl IntoIterator<Item = &'v [u8]>,
) -> Result<Vec<Challenge>, ChallengeError> {
    let mut challenges = Vec::new();
    let mut allowance = limits::FIELD_BYTES;
    for value in values {
        // RFC9110-11.6.1-1: all fields count, none hides another. Each line is charged one more byte, so that empty
        // ones are bounded as well.
        allowance = allowance.checked_sub(value.len().saturating_add(1)).ok_or(ChallengeError::TooLarge)?;
        read_field(value, &mut challenges)?;
    }
    Ok(challenges)
}

/// One field line. Each begins with a challenge of its own: a parameter is never carried over from the line before.
fn read_field(value: &[u8], challenges: &mut Vec<Challenge>) -> Result<(), ChallengeError> {
    let mut reader = FieldReader::new(value);
    let mut current: Option<Challenge> = None;
    let mut takes_params = false;
    loop {
        reader.skip_white_space();
        // RFC9110-11.6.1-1: an empty list member means nothing.
        if !reader.is_at_end() && !reader.skip(b',') {
            let name = reader.token().ok_or(ChallengeError::Malformed)?;
            match read_value(&mut reader)? {
                Some(value) => {
                    let challenge = current.as_mut().filter(|_| takes_params);
                    challenge.ok_or(ChallengeError::Malformed)?.add(name, value)?;
                }
                None => {
                    // Parameters belong to a scheme with a space behind it.
                    takes_params = reader.clone().skip(b' ');
                    let challenge = read_challenge(name, &mut reader)?;
                    finish(current.replace(challenge), challenges)?;
                }
            }
            reader.skip_white_space();
            if !reader.is_at_end() && !reader.skip(b',') {
                return Err(ChallengeError::Malformed);
            }
        }
        if reader.is_at_end() {
            return finish(current, challenges);
        }
    }
}

/// What follows a scheme: nothing, a token68, or spaces and the first parameter.
fn read_challenge(scheme: &str, reader: &mut FieldReader<'_>) -> Result<Challenge, ChallengeError> {
    let mut challenge = Challenge::named(scheme);
    if reader.skip_spaces() == 0 {
        return Ok(challenge);
    }
    let mut ahead = reader.clone();
    if let Some(token68) = ahead.token68() {
        ahead.skip_white_space();
        let mut end = ahead.clone();
        if end.is_at_end() || end.skip(b',') {
            challenge.token68 = Some(token68.to_string());
            *reader = ahead;
            return Ok(challenge);
        }
    }
    let mut ahead = reader.clone();
    if let Some(name) = ahead.token() {
        let value = read_value(&mut ahead)?.ok_or(ChallengeError::Malformed)?;
        challenge.add(name, value)?;
        *reader = ahead;
    }
    Ok(challenge)
}

/// The equals sign and value behind a parameter's name; `None`, and nothing read, where no equals sign follows.
fn read_value(reader: &mut FieldReader<'_>) -> Result<Option<String>, ChallengeError> {
    let mut ahead = reader.clone();
    ahead.skip_white_space();
    if !ahead.skip(b'=') {
        return Ok(None);
    }
    ahead.skip_white_space();
    // RFC9110-11.2-1: token and quoted-string mean the same.
    let value = match ahead.quoted_string().map_err(|_| ChallengeError::Malformed)? {
        Some(text) => text,
        None => ahead.token().ok_or(ChallengeError::Malformed)?.to_string(),
    };
    *reader = ahead;
    Ok(Some(value))
}

fn finish(challenge: Option<Challenge>, challenges: &mut Vec<Challenge>) -> Result<(), ChallengeError> {
    if let Some(challenge) = challenge {
        if challenges.len() == limits::CHALLENGES {
            return Err(ChallengeError::TooLarge);
        }
        challenges.push(challenge);
    }
    Ok(())
}

/// The challenge an MCP client can use and an MCP server sends (RFC 6750 section 3, RFC 9728 section 5.1).
///
/// Read from a response, the values are the peer's text, unchecked: parse each as what it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BearerChallenge {
    /// The protection space.
    pub realm: Option<String>,
    /// The scopes the request needs, separated by spaces.
    pub scope: Option<String>,
    /// Why a presented token was refused.
    pub error: Option<String>,
    /// The same for developers.
    pub error_description: Option<String>,
    /// A page about it.
    pub error_uri: Option<String>,
    /// Where the protected resource metadata is.
    pub resource_metadata: Option<String>,
}

impl BearerChallenge {
    /// What the Bearer and DPoP challenges of a response say, wherever they stand; `None` if there are none.
    ///
    /// Error, scope and realm come from one challenge: the first with an error or scope, Bearer before DPoP. The
    /// metadata may stand in any of them.
    ///
    /// # Errors
    /// [`ChallengeError::Conflict`] when they name different metadata.
    pub fn find(challenges: &[Challenge]) -> Result<Option<Self>, ChallengeError> {
        // RFC9728-5.1-2, RFC9110-11.6.1-1. RFC 6750 gives Bearer no token68: such a challenge says nothing.
        let of = |scheme: &'static str| {
            challenges.iter().filter(move |known| known.has_scheme(scheme) && known.token68.is_none())
        };
        let usable = || of("Bearer").chain(of("DPoP"));
        let says_why = |known: &&Challenge| known.param("error").is_some() || known.param("scope").is_some();
        let Some(main) = usable().find(says_why).or_else(|| usable().next()) else {
            return Ok(None);
        };
        let mut locations = usable().filter_map(|known| known.param("resource_metadata"));
        let location = locations.next();
        if locations.any(|other| Some(other) != location) {
            return Err(ChallengeError::Conflict);
        }
        let value = |name| main.param(name).map(String::from);
        Ok(Some(Self {
            realm: value("realm"),
            scope: value("scope"),
            error: value("error"),
            error_description: value("error_description"),
            error_uri: value("error_uri"),
            resource_metadata: location.map(String::from),
        }))
    }

    /// The value of a `WWW-Authenticate` field: one Bearer challenge in printable ASCII, every value quoted.
    ///
    /// A character that a realm or description cannot hold becomes `?`. Any other parameter whose value has a
    /// character outside its grammar is left out: half a URL would be another URL. With nothing to say, the realm
    /// is written empty.
    pub fn render(&self) -> String {
        // OAUTH21-5.3.1-3, OAUTH21-5.3.1-4: each at most once, each in its character set, so that no value can end its
        // quotes, the parameter or the field (I-A8).
        let params = [
            // RFC9110-11.5-1
            ("realm", self.realm.as_deref().map(|text| replaced(text, |byte| matches!(byte, b' '..=b'~')))),
            ("error", checked(self.error.as_deref(), is_text_byte)),
            ("error_description", self.error_description.as_deref().map(|text| replaced(text, is_text_byte))),
            ("error_uri", checked(self.error_uri.as_deref(), is_uri_byte)),
            ("scope", checked(self.scope.as_deref(), is_text_byte)),
            // RFC9728-5.1-1
            ("resource_metadata", checked(self.resource_metadata.as_deref(), is_uri_byte)),
        ];
        let mut out = String::from("Bearer");
        let mut separator = " ";
        for (name, value) in params {
            if let Some(quoted) = value.and_then(|value| field::quote(&value)) {
                out.extend([separator, name, "=", &quoted]);
                separator = ", ";
            }
        }
        // OAUTH21-5.3.1-2: a scheme alone is not a Bearer challenge.
        if separator == " " {
            out.push_str(" realm=\"\"");
        }
        out
    }
}

/// Characters of scope, error and description (RFC 6750 section 3): printable, neither quote nor backslash.
const fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')
}

const fn is_uri_byte(byte: u8) -> bool {
    is_text_byte(byte) && byte != b' '
}

fn checked(text: Option<&str>, allowed: fn(u8) -> bool) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.bytes().all(allowed)).map(String::from)
}

fn replaced(text: &str, allowed: fn(u8) -> bool) -> String {
    text.chars()
        .map(|character| if u8::try_from(character).is_ok_and(allowed) { character } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String, ToString};
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{BearerChallenge, Challenge, ChallengeError, parse_challenges};
    use crate::limits;

    fn parse(text: &str) -> Result<Vec<Challenge>, ChallengeError> {
        parse_challenges([text.as_bytes()])
    }

    fn challenge(scheme: &str, params: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_string(),
            params: params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            token68: None,
        }
    }

    fn with_token68(scheme: &str, token68: &str) -> Challenge {
        Challenge { token68: Some(token68.to_string()), ..challenge(scheme, &[]) }
    }

    #[test]
    fn every_form_of_challenge_is_read() {
        let expected = vec![
            challenge("Newauth", &[("realm", "apps"), ("type", "1"), ("title", "Login to \"apps\"")]),
            challenge("Basic", &[("realm", "simple")]),
        ];
        assert_eq!(
            parse(r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#),
            Ok(expected)
        );
        assert_eq!(parse("Bearer"), Ok(vec![challenge("Bearer", &[])]));
        assert_eq!(parse("  Bearer  "), Ok(vec![challenge("Bearer", &[])]));
        assert_eq!(parse("Negotiate abc=="), Ok(vec![with_token68("Negotiate", "abc==")]));
        assert_eq!(parse("Negotiate   abc= "), Ok(vec![with_token68("Negotiate", "abc=")]));
        assert_eq!(
            parse("Negotiate, NTLM, Negotiate a/b, Bearer x=y"),
            Ok(vec![
                challenge("Negotiate", &[]),
                challenge("NTLM", &[]),
                with_token68("Negotiate", "a/b"),
                challenge("Bearer", &[("x", "y")]),
            ])
        );
        assert_eq!(
            parse("Bearer a = b ,\tc\t=\t\"d\"\t"),
            Ok(vec![challenge("Bearer", &[("a", "b"), ("c", "d")])])
        );
        assert_eq!(parse("Bearer a"), Ok(vec![with_token68("Bearer", "a")]), "a lone word is a token68");
        assert_eq!(parse("a b=c"), Ok(vec![challenge("a", &[("b", "c")])]));
        assert_eq!(
            parse("Bearer x=\"a, Basic realm=y\""),
            Ok(vec![challenge("Bearer", &[("x", "a, Basic realm=y")])])
        );
    }

    // RFC9110-11.6.1-1
    #[test]
    fn empty_list_members_mean_nothing() {
        let expected = Ok(vec![challenge("Bearer", &[("a", "1"), ("b", "2")]), challenge("Basic", &[])]);
        for text in [
            "Bearer a=1,b=2,Basic",
            ",, ,Bearer a=1, ,b=2,,\t,Basic,,",
            "Bearer , a=1 , , b=2 , Basic ,",
            "Bearer ,,a=1,b=2,Basic",
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        for text in ["", " ", ",", " , ,\t"] {
            assert_eq!(parse(text), Ok(Vec::new()), "{text:?}");
        }
    }

    // RFC9110-11.6.1-1
    #[test]
    fn several_fields_are_one_list() {
        let fields: [&[u8]; 4] = [b"Basic realm=a", b"", b"Bearer realm=b", b"Negotiate, Bearer"];
        let schemes: Vec<_> =
            parse_challenges(fields).unwrap().iter().map(|known| known.scheme().to_string()).collect();
        assert_eq!(schemes, ["Basic", "Bearer", "Negotiate", "Bearer"]);
        assert_eq!(parse_challenges([]), Ok(Vec::new()));
    }

    #[test]
    fn malformed_fields_are_refused() {
        for text in [
            "=",
            "a=b",
            "\"Bearer\"",
            "Bearer a b",
            "Bearer a=b c=d",
            "Bearer a=b c",
            "Bearer a=b; c=d",
            "Bearer a=,b=c",
            "Bearer a==b",
            "Bearer a=\"b",
            "Bearer a=\"b\\\"",
            "Bearer a=\"b\"c",
            "Bearer a=\"b\" \"c\"",
            "Bearer a=b=c",
            "Bearer abc, d=e",
            "Bearer abc==, d=e",
            "Bearer\ta=b",
            "Bearer, a=b",
            "Bearer a=b/c",
            "Bearer a='b c'",
            "Bearer \"a\"=b",
            "Bearer a=b\r\nSet-Cookie: x",
            "Bearer a=\"b\r\n\"",
            "Bearer a=b\0",
            "Bearer a=\u{e4}",
            "B\u{e4}rer a=b",
            "Bearer: a=b",
            "(Bearer) a=b",
        ] {
            assert_eq!(parse(text), Err(ChallengeError::Malformed), "{text:?}");
        }
        assert_eq!(parse_challenges([&b"Bearer a=\"\xff\""[..]]), Err(ChallengeError::Malformed));
    }

    #[test]
    fn a_field_never_continues_the_challenge_of_the_one_before() {
        let fields: [&[u8]; 2] = [b"Bearer a=1", b"b=2"];
        assert_eq!(parse_challenges(fields), Err(ChallengeError::Malformed));
    }

    // RFC9110-11.2-2, I-G2
    #[test]
    fn a_repeated_parameter_is_refused_in_any_scheme_case_and_spelling() {
        for text in [
            "Bearer a=1,a=1",
            "Bearer a=1, A=\"1\"",
            "Bearer resource_metadata=\"https://a\", error=x, Resource_Metadata=\"https://b\"",
            "Unknown x=1, x=2, Bearer a=1",
            "Bearer a=1, Unknown x=1, y=2, X=1",
        ] {
            assert_eq!(parse(text), Err(ChallengeError::Duplicate), "{text}");
        }
        assert!(parse("Bearer a=1, Basic a=1, Bearer a=1").is_ok(), "other challenges have their own");
    }

    // I-G1
    #[test]
    fn size_and_counts_are_bounded() {
        let fits = format!("Bearer a=\"{}\"", "x".repeat(limits::FIELD_BYTES - 12));
        assert!(parse(&fits).is_ok());
        assert_eq!(parse(&format!("{fits} ")), Err(ChallengeError::TooLarge));
        assert_eq!(
            parse_challenges(vec![&b""[..]; limits::FIELD_BYTES + 1]),
            Err(ChallengeError::TooLarge),
            "so are empty fields"
        );
        let half = format!("a b=\"{}\"", "x".repeat(limits::FIELD_BYTES / 2));
        assert_eq!(parse_challenges([half.as_bytes(), half.as_bytes()]), Err(ChallengeError::TooLarge));
        assert!(parse(&"a,".repeat(limits::CHALLENGES)).is_ok());
        assert_eq!(parse(&"a,".repeat(limits::CHALLENGES + 1)), Err(ChallengeError::TooLarge));
        assert_eq!(
            parse_challenges(vec![&b"a"[..]; limits::CHALLENGES + 1]),
            Err(ChallengeError::TooLarge),
            "over several fields as well"
        );
        let params = |count: usize| (0..count).map(|n| format!("p{n}=1,")).collect::<String>();
        assert!(parse(&format!("a {}", params(limits::CHALLENGE_PARAMETERS))).is_ok());
        assert_eq!(
            parse(&format!("a {}", params(limits::CHALLENGE_PARAMETERS + 1))),
            Err(ChallengeError::TooLarge)
        );
    }

    // RFC9110-11.2-1
    #[test]
    fn names_are_matched_in_any_case() {
        let found = parse("bEARER Scope=\"a b\", RESOURCE_METADATA=\"https://x/\"").unwrap();
        assert!(found[0].has_scheme("Bearer") && found[0].scheme() == "bEARER");
        assert_eq!(found[0].param("sCOPE"), Some("a b"));
        assert_eq!(found[0].params().next(), Some(("Scope", "a b")));
        let bearer = BearerChallenge::find(&found).unwrap().unwrap();
        assert_eq!(bearer.scope.as_deref(), Some("a b"));
        assert_eq!(bearer.resource_metadata.as_deref(), Some("https://x/"));
    }

    fn find(text: &str) -> Result<Option<BearerChallenge>, ChallengeError> {
        BearerChallenge::find(&parse(text).unwrap())
    }

    // RFC9728-5.1-2, RFC9110-11.6.1-1
    #[test]
    fn the_usable_challenge_is_found_wherever_it_stands() {
        for text in [
            "Bearer error=e, scope=s, resource_metadata=\"https://m\"",
            "Basic realm=x, Bearer unknown=1, error=e, scope=s, resource_metadata=\"https://m\", Negotiate abc=",
            "DPoP algs=\"ES256\", scope=s, error=e, resource_metadata=\"https://m\"",
            "DPoP error=other, resource_metadata=\"https://m\", Bearer error=e, scope=s",
            "Bearer resource_metadata=\"https://m\", Bearer error=e, scope=s",
            "Bearer abc==, dpop error=e, scope=s, Bearer resource_metadata=\"https://m\"",
            "DPoP resource_metadata=\"https://m\", Bearer error=e, scope=s, resource_metadata=\"https://m\"",
        ] {
            let found = find(text).unwrap().unwrap();
            assert_eq!(found.error.as_deref(), Some("e"), "{text}");
            assert_eq!(found.scope.as_deref(), Some("s"), "{text}");
            assert_eq!(found.resource_metadata.as_deref(), Some("https://m"), "{text}");
        }
        assert_eq!(find("Bearer"), Ok(Some(BearerChallenge::default())));
        for text in ["", "Basic realm=x, resource_metadata=\"https://m\"", "Bearer abc", "BearerX a=b"] {
            assert_eq!(find(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn different_metadata_in_one_response_is_a_conflict() {
        for text in [
            "Bearer resource_metadata=\"https://a\", Bearer resource_metadata=\"https://b\"",
            "DPoP resource_metadata=\"https://a\", Bearer resource_metadata=\"https://A\"",
            "Bearer resource_metadata=\"\", DPoP resource_metadata=\"https://b\"",
        ] {
            assert_eq!(find(text), Err(ChallengeError::Conflict), "{text}");
        }
    }

    #[test]
    fn renders_as_other_clients_expect_it() {
        let challenge = BearerChallenge {
            realm: Some(String::from("a \"b\"")),
            scope: Some(String::from("files:read files:write")),
            error: Some(String::from("insufficient_scope")),
            error_description: Some(String::from("more is needed")),
            error_uri: Some(String::from("https://h/e")),
            resource_metadata: Some(String::from("https://h/.well-known/oauth-protected-resource")),
        };
        assert_eq!(
            challenge.render(),
            "Bearer realm=\"a \\\"b\\\"\", error=\"insufficient_scope\", error_description=\"more is needed\", \
             error_uri=\"https://h/e\", scope=\"files:read files:write\", \
             resource_metadata=\"https://h/.well-known/oauth-protected-resource\""
        );
    }

    // OAUTH21-5.3.1-2
    #[test]
    fn a_scheme_alone_is_never_rendered() {
        assert_eq!(BearerChallenge::default().render(), "Bearer realm=\"\"");
        let unusable = BearerChallenge { scope: Some(String::new()), ..BearerChallenge::default() };
        assert_eq!(unusable.render(), "Bearer realm=\"\"");
    }

    // OAUTH21-5.3.1-4, I-A8
    #[test]
    fn no_value_leaves_its_quotes() {
        for hostile in
            ["x\", scope=\"admin", "x\\", "x\r\nSet-Cookie: a=b", "x\u{0}", "\u{e4}", "x\u{2028}", "\u{7f}"]
        {
            let text = Some(String::from(hostile));
            let rendered = BearerChallenge {
                realm: None,
                scope: text.clone(),
                error: text.clone(),
                error_description: text.clone(),
                error_uri: text.clone(),
                resource_metadata: text.clone(),
            }
            .render();
            let read = find(&rendered).unwrap().unwrap();
            let description = read.error_description.clone().unwrap();
            assert_eq!(
                read,
                BearerChallenge { error_description: Some(description.clone()), ..Default::default() }
            );
            assert_eq!(description.chars().count(), hostile.chars().count(), "{hostile:?}");
            assert!(description.contains('?'), "{hostile:?}");
            let realm = BearerChallenge { realm: text, ..BearerChallenge::default() }.render();
            assert_eq!(parse(&realm).unwrap()[0].params().count(), 1, "{hostile:?}");
        }
    }

    /// A challenge spelled out at random: what it means, and one of the many ways to write it.
    #[derive(Debug, Clone)]
    struct Spelled {
        meaning: Challenge,
        text: String,
    }

    /// White space before and after the equals sign, which characters get a backslash, whether a token is quoted.
    fn spell_value(value: &str, quoted: bool, escapes: u64) -> String {
        if !quoted && crate::syntax::field::is_token(value.as_bytes()) {
            return value.to_string();
        }
        let mut out = String::from("\"");
        for (at, character) in value.chars().enumerate() {
            if matches!(character, '"' | '\\') || (escapes >> (at % 64)) & 1 == 1 {
                out.push('\\');
            }
            out.push(character);
        }
        out.push('"');
        out
    }

    fn spelled() -> impl Strategy<Value = Spelled> {
        let white = "[ \t]{0,2}";
        let param = (
            "[A-Za-z_*!-]{1,8}",
            "[ -~äß\t]{0,12}",
            any::<bool>(),
            any::<u64>(),
            (white, white),
            "[ \t,]{0,3}",
        );
        let params = proptest::collection::vec(param, 0..5).prop_map(|mut params| {
            let mut seen: Vec<String> = Vec::new();
            params.retain(|(name, ..)| {
                let lower = name.to_ascii_lowercase();
                let fresh = !seen.contains(&lower);
                seen.push(lower);
                fresh
            });
            params
        });
        let with_params =
            ("[A-Za-z][A-Za-z0-9.-]{0,7}", " {1,3}", params).prop_map(|(scheme, spaces, params)| {
                let mut meaning = challenge(&scheme, &[]);
                let mut text = format!("{scheme}{spaces}");
                for (at, (name, value, quoted, escapes, (before, after), gap)) in
                    params.into_iter().enumerate()
                {
                    if at > 0 {
                        text.push_str(&format!(",{gap}"));
                    }
                    text.push_str(&format!("{name}{before}={after}{}", spell_value(&value, quoted, escapes)));
                    meaning.params.push((name, value));
                }
                Spelled { meaning, text }
            });
        let with_token68 = ("[A-Za-z][A-Za-z0-9]{0,7}", " {1,3}", "[A-Za-z0-9._~+/-]{1,12}={0,3}").prop_map(
            |(scheme, spaces, value)| Spelled {
                text: format!("{scheme}{spaces}{value}"),
                meaning: with_token68(&scheme, &value),
            },
        );
        prop_oneof![3 => with_params, 1 => with_token68]
    }

    fn representable(challenge: &BearerChallenge) -> BearerChallenge {
        let clean = |text: &Option<String>, space: bool| {
            text.clone().filter(|text| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|c| (c.is_ascii_graphic() && c != '"' && c != '\\') || (space && c == ' '))
            })
        };
        let shown = |text: &Option<String>, also: &str| {
            text.as_ref().map(|text| {
                text.chars()
                    .map(|c| {
                        let plain = c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\');
                        if plain || also.contains(c) { c } else { '?' }
                    })
                    .collect::<String>()
            })
        };
        let mut expected = BearerChallenge {
            realm: shown(&challenge.realm, "\"\\"),
            scope: clean(&challenge.scope, true),
            error: clean(&challenge.error, true),
            error_description: shown(&challenge.error_description, ""),
            error_uri: clean(&challenge.error_uri, false),
            resource_metadata: clean(&challenge.resource_metadata, false),
        };
        if expected == BearerChallenge::default() {
            expected.realm = Some(String::new());
        }
        expected
    }

    fn value() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(prop_oneof![
            "[ -~]{0,20}",
            ".{0,12}",
            "[a-z:/. ]{0,20}",
            "[\"\\\\, =\r\n\0]{0,8}"
        ])
    }

    proptest! {
        // I-G1
        #[test]
        fn never_panics(fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..4)) {
            if let Ok(found) = parse_challenges(fields.iter().map(Vec::as_slice)) {
                let _ = BearerChallenge::find(&found);
            }
        }

        #[test]
        fn never_panics_on_nearly_challenges(text in "(Bearer|a|b|=|\"|\\\\|,| |\t|==|x=y){0,24}") {
            if let Ok(found) = parse(&text) {
                let _ = BearerChallenge::find(&found);
            }
        }

        #[test]
        fn every_spelling_means_the_same(
            all in proptest::collection::vec((spelled(), "[ \t]{0,2},[ \t,]{0,3}"), 1..5),
            lead in "[ \t,]{0,3}",
            split in any::<u8>(),
        ) {
            let meaning: Vec<_> = all.iter().map(|(known, _)| known.meaning.clone()).collect();
            let mut fields = vec![lead];
            for (at, (known, separator)) in all.iter().enumerate() {
                let field = fields.last_mut().unwrap();
                field.push_str(&known.text);
                field.push_str(separator);
                if split >> (at % 8) & 1 == 1 {
                    fields.push(String::new());
                }
            }
            let read = parse_challenges(fields.iter().map(|field| field.as_bytes()));
            prop_assert_eq!(read, Ok(meaning), "{:?}", fields);
        }

        // RFC9110-11.2-2, I-G2
        #[test]
        fn a_duplicate_is_found_wherever_it_stands(
            names in proptest::collection::btree_set("[a-z]{1,6}", 1..8),
            at in any::<proptest::sample::Index>(),
            upper in any::<bool>(),
            before in any::<bool>(),
        ) {
            let mut params: Vec<_> = names.iter().map(|name| format!("{name}=1")).collect();
            let again = params[at.index(params.len())].clone();
            params.push(if upper { again.to_ascii_uppercase() } else { again });
            let other = if before { "Basic realm=x, " } else { "" };
            let text = format!("{other}Bearer {}, Basic realm=x", params.join(", "));
            prop_assert_eq!(parse(&text), Err(ChallengeError::Duplicate));
        }

        // I-A8
        #[test]
        fn what_is_rendered_is_printable_and_read_back(
            (realm, scope, error) in (value(), value(), value()),
            (error_description, error_uri, resource_metadata) in (value(), value(), value()),
        ) {
            let challenge =
                BearerChallenge { realm, scope, error, error_description, error_uri, resource_metadata };
            let text = challenge.render();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", text);
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), 1);
            prop_assert_eq!(BearerChallenge::find(&read), Ok(Some(representable(&challenge))));
        }
    }
}
