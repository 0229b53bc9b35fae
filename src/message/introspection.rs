//! Token introspection (RFC 7662): a resource server asks, the authorization server says whether the token is active
//! and what it stands for.
//!
//! Whether an active token is meant for the resource that asks is not decided here.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::ScopeSet;
use crate::limits;
use crate::secret::SubmittedToken;
use crate::syntax::form::Form;
use crate::syntax::json::JsonObject;

use super::Malformed;
use super::read::{Document, Members};
use super::revocation::{TokenTypeHint, render};
use super::token::{ClientParameters, TokenType, typed};

/// An introspection request (RFC 7662 section 2.1).
#[derive(Debug, Clone)]
pub struct IntrospectionRequest {
    /// `token`.
    pub token: SubmittedToken,
    /// `token_type_hint`.
    pub token_type_hint: Option<TokenTypeHint>,
    /// What the body says about the caller.
    pub client: ClientParameters,
}

impl IntrospectionRequest {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// [`Malformed`] for broken encoding, a repeated parameter, no `token`, and a value outside its grammar.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        Self::from_form(&Form::parse(body)?)
    }

    /// Reads a form.
    ///
    /// # Errors
    /// As [`IntrospectionRequest::parse`].
    pub fn from_form(form: &Form) -> Result<Self, Malformed> {
        Ok(Self {
            token: typed(form, "token", SubmittedToken::new)?.ok_or(Malformed::Missing("token"))?,
            token_type_hint: TokenTypeHint::read(form),
            client: ClientParameters::from_form(form)?,
        })
    }

    /// The body of the POST, each parameter once, in a fixed order. It holds secrets.
    pub fn render(&self) -> String {
        // RFC7662-2.1-1
        render(&self.token, self.token_type_hint, &self.client)
    }
}

/// The answer (RFC 7662 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntrospectionResponse {
    /// The token is not active, or not the caller's business; nothing else is said.
    Inactive,
    /// The token is active.
    Active(Box<ActiveToken>),
}

/// What an active token stands for. Times are seconds since 1970; members that are not here are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActiveToken {
    /// Its scope.
    pub scope: Option<ScopeSet>,
    /// The client it was issued to.
    pub client_id: Option<String>,
    /// The person, for display.
    pub username: Option<String>,
    /// How it is used.
    pub token_type: Option<TokenType>,
    /// When it expires.
    pub exp: Option<i64>,
    /// When it was issued.
    pub iat: Option<i64>,
    /// When it becomes valid.
    pub nbf: Option<i64>,
    /// The subject.
    pub sub: Option<String>,
    /// The resources it is for; empty when the server does not say.
    pub aud: Vec<String>,
    /// The issuer.
    pub iss: Option<String>,
    /// Its identifier.
    pub jti: Option<String>,
    /// Whether the answer has `cnf`: the token is bound to a key, and is no bearer token for who cannot check it.
    pub bound_to_key: bool,
    /// Whether the answer has `authorization_details`, which limit it beyond its scope.
    pub authorization_details: bool,
    /// Whether the answer has a mark of another kind of token: `nonce`, `at_hash`, `c_hash`, a `typ` that is not `Bearer`, or
    /// a `token_use` that is not an access token's.
    pub other_kind: bool,
}

impl IntrospectionResponse {
    /// Reads the body of a 200 answer.
    ///
    /// # Errors
    /// [`Malformed`] for what is no JSON object with a boolean `active`, and for an active token with a member of
    /// another JSON type or grammar than it must have: such an answer makes no token valid.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let object = JsonObject::parse(body, limits::REPLY_BYTES)?;
        let members = Members::of(&object);
        // RFC7662-2.2-2
        if !members.has("active") {
            return Err(Malformed::Missing("active"));
        }
        if !members.flag("active")? {
            return Ok(Self::Inactive);
        }
        let text = |name| members.display_text(name, limits::URL_BYTES);
        // I-A3: who it is about is said or not said; nothing stands for either.
        let identifier = |name| {
            members.typed(name, |text| {
                if (1..=limits::URL_BYTES).contains(&text.len()) { Ok(text) } else { Err(()) }
            })
        };
        // D32: servers answer about ID tokens and refresh tokens as well.
        let other_kind = ["nonce", "at_hash", "c_hash"].iter().any(|name| members.has(name))
            || members.text("typ")?.is_some_and(|kind| kind != "Bearer")
            || members.text("token_use")?.is_some_and(|kind| !matches!(kind, "access_token" | "access"));
        Ok(Self::Active(Box::new(ActiveToken {
            scope: members.scope("scope")?,
            client_id: identifier("client_id")?,
            username: text("username")?,
            token_type: members.typed("token_type", |text| TokenType::parse(&text))?,
            exp: members.seconds("exp")?,
            iat: members.seconds("iat")?,
            nbf: members.seconds("nbf")?,
            sub: identifier("sub")?,
            aud: members.one_or_more("aud")?.unwrap_or_default(),
            iss: identifier("iss")?,
            jti: text("jti")?,
            bound_to_key: members.has("cnf"),
            authorization_details: members.has("authorization_details"),
            other_kind,
        })))
    }

    /// The answer as JSON. `bound_to_key`, `authorization_details` and `other_kind` are only read: this crate issues none.
    pub fn render(&self) -> Vec<u8> {
        match self {
            // RFC7662-2.2-1, RFC7662-2.2-4
            Self::Inactive => Document::new().boolean("active", false).finish(),
            Self::Active(token) => Document::new()
                .boolean("active", true)
                .scope("scope", token.scope.as_ref())
                .text("client_id", token.client_id.as_deref())
                .text("username", token.username.as_deref())
                .text("token_type", token.token_type.map(TokenType::as_str))
                .seconds("exp", token.exp)
                .seconds("iat", token.iat)
                .seconds("nbf", token.nbf)
                .text("sub", token.sub.as_deref())
                .audience("aud", &token.aud)
                .text("iss", token.iss.as_deref())
                .text("jti", token.jti.as_deref())
                .finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{CANARY, scopes, text, texts, utf8};
    use super::*;

    fn active(member: &str) -> Result<ActiveToken, Malformed> {
        let body = format!(r#"{{"active":true{member}}}"#);
        match IntrospectionResponse::parse(body.as_bytes())? {
            IntrospectionResponse::Active(token) => Ok(*token),
            IntrospectionResponse::Inactive => panic!("inactive"),
        }
    }

    #[test]
    fn only_a_boolean_true_makes_a_token_active() {
        // RFC7662-2.2-2
        for body in
            ["{}", r#"{"active":"true"}"#, r#"{"active":1}"#, r#"{"active":null}"#, "true", "[true]", ""]
        {
            assert!(IntrospectionResponse::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(IntrospectionResponse::parse(br#"{"active":false,"active":true}"#).is_err());
        for body in [r#"{"active":false}"#, r#"{"active":false,"sub":"s","aud":7,"exp":"never"}"#] {
            assert_eq!(
                IntrospectionResponse::parse(body.as_bytes()).unwrap(),
                IntrospectionResponse::Inactive
            );
        }
    }

    #[test]
    fn a_member_of_another_type_or_grammar_makes_no_token_active() {
        // I-A3, I-T9
        for member in [
            r#","aud":7"#,
            r#","aud":null"#,
            r#","aud":[]"#,
            r#","aud":"""#,
            r#","aud":["https://mcp.example.com",""]"#,
            r#","aud":["https://mcp.example.com",7]"#,
            r#","aud":{"0":"https://mcp.example.com"}"#,
            r#","exp":"1""#,
            r#","exp":1.5"#,
            r#","exp":null"#,
            r#","nbf":"0""#,
            r#","scope":["a"]"#,
            r#","scope":"a\tb""#,
            r#","iss":["https://as.example.com"]"#,
            r#","sub":7"#,
            r#","sub":"""#,
            r#","iss":"""#,
            r#","client_id":"""#,
            r#","typ":7"#,
            r#","token_use":null"#,
            r#","client_id":null"#,
            r#","token_type":"mac""#,
        ] {
            assert!(active(member).is_err(), "{member}");
        }
    }

    #[test]
    fn audience_is_one_string_or_several_and_absence_is_none() {
        assert_eq!(active(r#","aud":"a""#).unwrap().aud, ["a"]);
        assert_eq!(active(r#","aud":["a","b"]"#).unwrap().aud, ["a", "b"]);
        assert!(active("").unwrap().aud.is_empty());
    }

    #[test]
    fn constraints_that_must_be_understood_are_seen() {
        // I-G11
        assert!(active(r#","cnf":{"jkt":"x"}"#).unwrap().bound_to_key);
        assert!(active(r#","cnf":null"#).unwrap().bound_to_key);
        assert!(active(r#","authorization_details":[]"#).unwrap().authorization_details);
        assert!(!active("").unwrap().bound_to_key);
        for mark in [
            r#","typ":"Refresh""#,
            r#","nonce":null"#,
            r#","at_hash":"x""#,
            r#","token_use":"refresh_token""#,
        ] {
            assert!(active(mark).unwrap().other_kind, "{mark}");
        }
        assert!(!active(r#","typ":"Bearer","token_use":"access_token""#).unwrap().other_kind);
    }

    #[test]
    fn an_inactive_answer_says_nothing_else() {
        // RFC7662-2.2-1, RFC7662-2.2-4
        assert_eq!(utf8(&IntrospectionResponse::Inactive.render()), r#"{"active":false}"#);
    }

    #[test]
    fn a_request_needs_a_token_and_debug_does_not_show_it() {
        // RFC7662-2.1-1, I-G7
        assert_eq!(IntrospectionRequest::parse(b"x=1").unwrap_err(), Malformed::Missing("token"));
        let request = IntrospectionRequest::parse(format!("token={CANARY}").as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains(CANARY));
        assert_eq!(request.render(), format!("token={CANARY}"));
    }

    #[test]
    fn a_hint_that_is_not_known_says_nothing() {
        // RFC7662-2.1-3
        let request = IntrospectionRequest::parse(b"token=t&token_type_hint=pat").unwrap();
        assert_eq!(request.token_type_hint, None);
    }

    proptest! {
        #[test]
        fn an_answer_reads_back_the_same(
            scope in of(scopes()), words in proptest::collection::vec(of(text()), 5), aud in texts(),
            times in proptest::collection::vec(of(any::<i64>()), 3),
        ) {
            let token = ActiveToken {
                scope,
                client_id: words[0].clone(),
                username: words[1].clone(),
                token_type: Some(TokenType::Bearer),
                exp: times[0],
                iat: times[1],
                nbf: times[2],
                sub: words[2].clone(),
                aud,
                iss: words[3].clone(),
                jti: words[4].clone(),
                bound_to_key: false,
                authorization_details: false,
                other_kind: false,
            };
            let answer = IntrospectionResponse::Active(Box::new(token));
            prop_assert_eq!(IntrospectionResponse::parse(&answer.render()).unwrap(), answer);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = IntrospectionResponse::parse(&bytes);
        }
    }
}
