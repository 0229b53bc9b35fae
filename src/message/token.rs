//! The token endpoint: requests, tokens and errors (OAuth 2.1 section 3.2).
//!
//! ```text
//! TokenRequest ──render──▶ form ──TokenRequest::parse──▶ TokenRequest
//! TokenResponse | TokenErrorResponse ──render──▶ JSON ──TokenReply::parse──▶ TokenReply
//! ```

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::identifier::{ClientId, Scope, ScopeSet};
use crate::limits;
use crate::secret::{
    AccessToken, AuthorizationCode, ClientSecret, CodeVerifier, RefreshToken, SubmittedToken,
};
use crate::syntax::form::{self, Form};
use crate::syntax::json::{JsonObject, ObjectText};

use super::Malformed;
use super::error_code::{ErrorDetail, TokenErrorCode};
use super::read::{Document, Members};

/// What a body says about the client that sent it. Credentials in the `Authorization` field stand beside it.
#[derive(Debug, Clone, Default)]
pub struct ClientParameters {
    /// `client_id`; names a client and proves nothing.
    pub client_id: Option<ClientId>,
    /// `client_secret` (`client_secret_post`).
    pub client_secret: Option<ClientSecret>,
    /// `client_assertion_type` (RFC 7521 section 4.2).
    pub client_assertion_type: Option<String>,
    /// `client_assertion`, a JWT for `private_key_jwt`.
    pub client_assertion: Option<SubmittedToken>,
}

impl ClientParameters {
    /// A public client.
    pub fn public(client_id: ClientId) -> Self {
        Self { client_id: Some(client_id), ..Self::default() }
    }

    /// Nothing in the body: the client authenticates in the `Authorization` field.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads them from a form.
    ///
    /// # Errors
    /// [`Malformed`] for a value outside its grammar.
    pub fn from_form(form: &Form) -> Result<Self, Malformed> {
        Ok(Self {
            client_id: typed(form, "client_id", ClientId::new)?,
            client_secret: typed(form, "client_secret", ClientSecret::new)?,
            client_assertion_type: form.get("client_assertion_type").map(ToOwned::to_owned),
            client_assertion: typed(form, "client_assertion", SubmittedToken::new)?,
        })
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            self.client_id.as_ref().map(|id| ("client_id", id.as_str())),
            self.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())),
            self.client_assertion_type.as_deref().map(|text| ("client_assertion_type", text)),
            self.client_assertion.as_ref().map(|token| ("client_assertion", token.expose())),
        ]
        .into_iter()
        .flatten()
    }
}

pub(super) fn typed<T, E>(
    form: &Form,
    name: &'static str,
    make: impl FnOnce(String) -> Result<T, E>,
) -> Result<Option<T>, Malformed> {
    form.get(name).map(|text| make(text.to_owned())).transpose().map_err(|_| Malformed::Invalid(name))
}

/// A token request.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// What the client presents.
    pub grant: Grant,
    /// What the body says about the client.
    pub client: ClientParameters,
}

/// What a token request presents, by its `grant_type`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Grant {
    /// `authorization_code`.
    AuthorizationCode(CodeGrant),
    /// `refresh_token`.
    RefreshToken(RefreshGrant),
    /// A grant type this crate does not have; only read, never rendered.
    Unsupported,
}

impl Grant {
    /// Reads what a form presents; what it says about the client stands beside it.
    ///
    /// # Errors
    /// As [`TokenRequest::parse`].
    pub fn from_form(form: &Form) -> Result<Self, Malformed> {
        let grant_type = form.get("grant_type").ok_or(Malformed::Missing("grant_type"))?;
        let text = |name| form.get(name).map(ToOwned::to_owned);
        Ok(match grant_type {
            "authorization_code" => Grant::AuthorizationCode(CodeGrant {
                code: typed(form, "code", AuthorizationCode::new)?.ok_or(Malformed::Missing("code"))?,
                // RFC7636-4.1-1, OAUTH21-4.1.3-5
                code_verifier: typed(form, "code_verifier", CodeVerifier::new)?
                    .ok_or(Malformed::Missing("code_verifier"))?,
                redirect_uri: text("redirect_uri"),
                resource: text("resource"),
            }),
            "refresh_token" => Grant::RefreshToken(RefreshGrant {
                refresh_token: typed(form, "refresh_token", RefreshToken::new)?
                    .ok_or(Malformed::Missing("refresh_token"))?,
                scope: text("scope"),
                resource: text("resource"),
            }),
            // OAUTH21-10.1-2: password and implicit grants end here with all others
            _ => Grant::Unsupported,
        })
    }
}

/// A code and what proves that its owner presents it (OAuth 2.1 section 4.1.3).
#[derive(Debug, Clone)]
pub struct CodeGrant {
    /// `code`.
    pub code: AuthorizationCode,
    /// `code_verifier`; there is no code without a challenge here, so it is never left out.
    pub code_verifier: CodeVerifier,
    /// `redirect_uri`, which OAuth 2.0 clients and servers use (D14).
    pub redirect_uri: Option<String>,
    /// `resource` (RFC 8707 section 2.2).
    pub resource: Option<String>,
}

/// A refresh token and what of its grant is asked for (OAuth 2.1 section 4.3).
#[derive(Debug, Clone)]
pub struct RefreshGrant {
    /// `refresh_token`.
    pub refresh_token: RefreshToken,
    /// `scope`, to narrow the token.
    pub scope: Option<String>,
    /// `resource`, to narrow the token (RFC 8707 section 2.2).
    pub resource: Option<String>,
}

impl TokenRequest {
    /// Reads the body of a POST. Parameters that are not here are ignored, empty ones are absent.
    ///
    /// # Errors
    /// [`Malformed`] for broken encoding, a repeated parameter, no `grant_type`, a parameter its grant needs, and a
    /// value outside its grammar.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        // OAUTH21-3.2-4: the form refuses repeated names; OAUTH21-3.2-3
        Self::from_form(&Form::parse(body)?)
    }

    /// Reads a form.
    ///
    /// # Errors
    /// As [`TokenRequest::parse`].
    pub fn from_form(form: &Form) -> Result<Self, Malformed> {
        Ok(Self { grant: Grant::from_form(form)?, client: ClientParameters::from_form(form)? })
    }

    /// The body of the POST, each parameter once, in a fixed order. It holds secrets.
    pub fn render(&self) -> String {
        // OAUTH21-3.2.2-1, OAUTH21-4.1.3-8, OAUTH21-3.2-2, OAUTH21-B-1
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        match &self.grant {
            Grant::AuthorizationCode(grant) => {
                pairs.push(("grant_type", "authorization_code"));
                pairs.push(("code", grant.code.expose()));
                pairs.push(("code_verifier", grant.code_verifier.expose()));
                pairs.extend(grant.redirect_uri.as_deref().map(|text| ("redirect_uri", text)));
                pairs.extend(grant.resource.as_deref().map(|text| ("resource", text)));
            }
            Grant::RefreshToken(grant) => {
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("refresh_token", grant.refresh_token.expose()));
                pairs.extend(grant.scope.as_deref().map(|text| ("scope", text)));
                pairs.extend(grant.resource.as_deref().map(|text| ("resource", text)));
            }
            Grant::Unsupported => {}
        }
        pairs.extend(self.client.pairs());
        form::encode(pairs)
    }
}

/// How a token is used. A type this crate does not know is refused with the whole response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenType {
    /// `Bearer` (RFC 6750).
    Bearer,
    /// `DPoP` (RFC 9449).
    DPoP,
}

impl TokenType {
    /// Reads the name, in any case.
    ///
    /// # Errors
    /// [`Malformed`] for any other type.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        // OAUTH21-3.2.3-3, RFC6749-7.1-1
        if text.eq_ignore_ascii_case("bearer") {
            Ok(Self::Bearer)
        } else if text.eq_ignore_ascii_case("dpop") {
            Ok(Self::DPoP)
        } else {
            Err(Malformed::Invalid("token_type"))
        }
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::DPoP => "DPoP",
        }
    }
}

/// Tokens (OAuth 2.1 section 3.2.3). Members that are not here are ignored when read.
#[derive(Debug, Clone)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// How to use it.
    pub token_type: TokenType,
    /// Its lifetime in seconds from now. Any number up to 2^63: add it to a time with checks only.
    pub expires_in: Option<u64>,
    /// A refresh token.
    pub refresh_token: Option<RefreshToken>,
    /// The scope granted; absent means the scope asked for.
    pub scope: Option<ScopeSet>,
}

impl TokenResponse {
    /// The response as JSON. It holds secrets.
    pub fn render(&self) -> Vec<u8> {
        // OAUTH21-3.2.3-1, OAUTH21-3.2.3-4
        let refresh_token = self.refresh_token.as_ref().map(RefreshToken::expose);
        let scopes = self.scope.iter().flatten().map(Scope::as_str);
        let length =
            scopes.clone().fold(0_usize, |sum, scope| sum.saturating_add(scope.len()).saturating_add(1));
        // Room for all of it, so that no token is left behind where the text was before it grew (I-G7): of these, a refresh
        // token alone may have characters that JSON escapes, with one more each.
        let refresh_room = refresh_token.map_or(0, |token| token.len().saturating_mul(2));
        let tokens = self.access_token.expose().len().saturating_add(refresh_room);
        let mut text = ObjectText::with_room_for(length.saturating_add(tokens).saturating_add(160));
        text.member("access_token").string(self.access_token.expose());
        if let Some(seconds) = self.expires_in {
            text.member("expires_in").integer(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        if let Some(token) = refresh_token {
            text.member("refresh_token").string(token);
        }
        if self.scope.is_some() {
            text.member("scope").words(scopes);
        }
        text.member("token_type").string(self.token_type.as_str());
        text.finish()
    }

    fn read(members: &Members<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            // OAUTH21-3.2.3-2, OAUTH21-3.2.3-9
            access_token: members.required_typed("access_token", AccessToken::new)?,
            token_type: TokenType::parse(members.required_text("token_type")?)?,
            expires_in: members.count("expires_in")?,
            refresh_token: members.typed("refresh_token", RefreshToken::new)?,
            scope: members.scope("scope")?,
        })
    }
}

/// An error of the token, revocation or introspection endpoint (OAuth 2.1 section 3.2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenErrorResponse {
    /// The code.
    pub code: TokenErrorCode,
    /// The peer's words.
    pub detail: ErrorDetail,
}

impl TokenErrorResponse {
    /// An error without words.
    pub fn new(code: TokenErrorCode) -> Self {
        Self { code, detail: ErrorDetail::NONE }
    }

    /// Reads the body of an error answer, of any of the three endpoints.
    ///
    /// # Errors
    /// [`Malformed`] for what is no JSON object with an `error`.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let object = JsonObject::parse(body, limits::REPLY_BYTES)?;
        Self::read(&Members::of(&object))
    }

    fn read(members: &Members<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            // OAUTH21-3.2.4-8
            code: TokenErrorCode::parse(members.required_text("error")?)?,
            detail: ErrorDetail::read(members.text("error_description")?, members.text("error_uri")?),
        })
    }

    /// The error as JSON.
    pub fn render(&self) -> Vec<u8> {
        // OAUTH21-3.2.4-1, OAUTH21-3.2.4-7
        self.detail.write(Document::new().text("error", Some(self.code.as_str()))).finish()
    }
}

/// What the token endpoint answered.
#[derive(Debug, Clone)]
pub enum TokenReply {
    /// Tokens.
    Tokens(TokenResponse),
    /// An error.
    Error(TokenErrorResponse),
}

impl TokenReply {
    /// Reads a reply by its status and body: 200 without `error` is tokens, anything else an error or nothing.
    ///
    /// # Errors
    /// [`Malformed`] for what is neither.
    pub fn parse(status: u16, body: &[u8]) -> Result<Self, Malformed> {
        let object = JsonObject::parse(body, limits::REPLY_BYTES)?;
        let members = Members::of(&object);
        // D37: some servers report errors under status 200
        if status != 200 || members.has("error") {
            return TokenErrorResponse::read(&members).map(Self::Error);
        }
        TokenResponse::read(&members).map(Self::Tokens)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{CANARY, detail, scopes, utf8};
    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn tokens(body: &str) -> Result<TokenResponse, Malformed> {
        match TokenReply::parse(200, body.as_bytes())? {
            TokenReply::Tokens(tokens) => Ok(tokens),
            TokenReply::Error(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_response_without_access_token_or_token_type_is_refused() {
        // OAUTH21-3.2.3-2
        for (body, missing) in [
            (r#"{"token_type":"Bearer"}"#, "access_token"),
            (r#"{"access_token":"","token_type":"Bearer"}"#, "access_token"),
            (r#"{"access_token":"t"}"#, "token_type"),
            (r#"{"access_token":"t","token_type":""}"#, "token_type"),
            ("{}", "access_token"),
        ] {
            assert_eq!(
                TokenReply::parse(200, body.as_bytes()).unwrap_err(),
                Malformed::Missing(missing),
                "{body}"
            );
        }
    }

    #[test]
    fn token_type_is_compared_without_case_and_unknown_types_are_refused() {
        // OAUTH21-3.2.3-3, RFC6749-7.1-1
        for name in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            let body = format!(r#"{{"access_token":"t","token_type":"{name}"}}"#);
            assert_eq!(tokens(&body).unwrap().token_type, TokenType::Bearer);
        }
        for name in ["mac", "N_A", "Bearer ", "bearertoken"] {
            let body = format!(r#"{{"access_token":"t","token_type":"{name}"}}"#);
            assert_eq!(tokens(&body).unwrap_err(), Malformed::Invalid("token_type"), "{name}");
        }
    }

    #[test]
    fn expires_in_is_any_whole_number_from_zero_and_nothing_else() {
        // OAUTH21-3.2.3-4, I-T9
        let with = |number: &str| {
            tokens(&format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{number}}}"#))
                .map(|tokens| tokens.expires_in)
        };
        assert_eq!(with("0").unwrap(), Some(0));
        assert_eq!(with("3600").unwrap(), Some(3600));
        assert_eq!(with("9223372036854775807").unwrap(), Some(9_223_372_036_854_775_807));
        assert!(with("18446744073709551615").unwrap().is_some());
        for wrong in ["-1", "3600.0", "3.6e3", "\"3600\"", "null", "true", "[3600]"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tokens(r#"{"access_token":"t","token_type":"Bearer"}"#).unwrap().expires_in, None);
    }

    #[test]
    fn a_member_of_another_type_or_grammar_is_refused_and_unknown_ones_ignored() {
        // I-G2, I-L9, OAUTH21-3.2.3-9
        for member in [
            r#""refresh_token":null"#,
            r#""refresh_token":"""#,
            r#""refresh_token":"a\nb""#,
            r#""scope":["a"]"#,
            r#""scope":"a  b""#,
            r#""scope":"a\"b""#,
            r#""access_token":"again""#,
        ] {
            let body = format!(r#"{{"access_token":"t","token_type":"Bearer",{member}}}"#);
            assert!(tokens(&body).is_err(), "{member}");
        }
        for token in [r#""a b""#, r#""a\r\nX: y""#, r#""é""#, "7", "{}"] {
            let body = format!(r#"{{"access_token":{token},"token_type":"Bearer"}}"#);
            assert!(tokens(&body).is_err(), "{token}");
        }
        assert!(tokens(r#"{"access_token":"t","token_type":"Bearer","id_token":null,"x":[{}]}"#).is_ok());
    }

    #[test]
    fn an_error_under_status_200_is_an_error_and_so_is_every_other_status() {
        // D37
        for (status, body) in [
            (200, r#"{"error":"invalid_grant"}"#),
            (200, r#"{"access_token":"t","token_type":"Bearer","error":"invalid_grant"}"#),
            (400, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"invalid_grant","access_token":"t","token_type":"Bearer"}"#),
        ] {
            let TokenReply::Error(error) = TokenReply::parse(status, body.as_bytes()).unwrap() else {
                panic!("{status} {body}")
            };
            assert_eq!(error.code, TokenErrorCode::InvalidGrant);
        }
        for status in [400, 500, 201] {
            let tokens = br#"{"access_token":"t","token_type":"Bearer"}"#;
            assert_eq!(TokenReply::parse(status, tokens).unwrap_err(), Malformed::Missing("error"));
        }
        assert!(
            TokenReply::parse(200, br#"{"error":null,"access_token":"t","token_type":"Bearer"}"#).is_err()
        );
    }

    #[test]
    fn unknown_codes_are_kept_and_malformed_ones_are_not() {
        // OAUTH21-3.2.4-8
        let error =
            TokenErrorResponse::parse(br#"{"error":"slow_down","error_description":"wait \"a\" bit"}"#)
                .unwrap();
        assert_eq!(error.code.as_str(), "slow_down");
        assert_eq!(error.detail.description.unwrap().as_str(), "wait a bit");
        for code in [r#""a\"b""#, r#""a\u0000""#, r#""""#, "null", "5", &format!("\"{}\"", "a".repeat(65))] {
            let body = format!(r#"{{"error":{code}}}"#);
            assert!(TokenErrorResponse::parse(body.as_bytes()).is_err(), "{code}");
        }
        let body = format!(r#"{{"error":"invalid_grant","error_description":"{}"}}"#, "a".repeat(9999));
        let error = TokenErrorResponse::parse(body.as_bytes()).unwrap();
        assert_eq!(error.detail.description.unwrap().as_str().len(), limits::ERROR_TEXT_BYTES);
    }

    #[test]
    fn a_code_request_without_code_or_verifier_is_refused() {
        // OAUTH21-4.1.3-5, I-C5
        let parse = |body: &str| TokenRequest::parse(body.as_bytes());
        assert_eq!(parse("code=c").unwrap_err(), Malformed::Missing("grant_type"));
        assert_eq!(parse("grant_type=&code=c").unwrap_err(), Malformed::Missing("grant_type"));
        assert_eq!(
            parse(&format!("grant_type=authorization_code&code_verifier={VERIFIER}")).unwrap_err(),
            Malformed::Missing("code")
        );
        for absent in ["", "&code_verifier="] {
            assert_eq!(
                parse(&format!("grant_type=authorization_code&code=c{absent}")).unwrap_err(),
                Malformed::Missing("code_verifier")
            );
        }
        assert_eq!(parse("grant_type=refresh_token").unwrap_err(), Malformed::Missing("refresh_token"));
    }

    #[test]
    fn a_verifier_outside_its_grammar_is_refused_before_it_is_hashed() {
        // RFC7636-4.1-1, I-C7
        for verifier in
            ["short", &"a".repeat(42), &"a".repeat(129), &format!("{VERIFIER}%20"), &format!("{VERIFIER}=")]
        {
            let body = format!("grant_type=authorization_code&code=c&code_verifier={verifier}");
            assert_eq!(
                TokenRequest::parse(body.as_bytes()).unwrap_err(),
                Malformed::Invalid("code_verifier"),
                "{verifier}"
            );
        }
    }

    #[test]
    fn a_repeated_parameter_is_refused_and_an_unknown_one_ignored() {
        // OAUTH21-3.2-3, OAUTH21-3.2-4
        for extra in ["&code=c", "&client_id=a&client_id=b", "&x=1&x=1", "&grant_type=refresh_token"] {
            let body = format!("grant_type=authorization_code&code=c&code_verifier={VERIFIER}{extra}");
            assert!(matches!(TokenRequest::parse(body.as_bytes()), Err(Malformed::Form(_))), "{extra}");
        }
        let body =
            format!("grant_type=authorization_code&code=c&code_verifier={VERIFIER}&foo=bar&client_id=");
        assert!(TokenRequest::parse(body.as_bytes()).unwrap().client.client_id.is_none());
    }

    #[test]
    fn other_grant_types_are_not_supported() {
        // OAUTH21-10.1-2
        for grant_type in ["password", "implicit", "client_credentials", "Authorization_Code"] {
            let body = format!("grant_type={grant_type}&username=u&password=p");
            let request = TokenRequest::parse(body.as_bytes()).unwrap();
            assert!(matches!(request.grant, Grant::Unsupported), "{grant_type}");
        }
    }

    // I-G7: where a text grows, it leaves a copy behind that nobody erases.
    #[test]
    fn tokens_are_written_where_they_stay() {
        let response = TokenResponse {
            access_token: AccessToken::new("a".repeat(900)).unwrap(),
            token_type: TokenType::Bearer,
            expires_in: Some(u64::MAX),
            refresh_token: Some(RefreshToken::new("\"".repeat(4000)).unwrap()),
            scope: Some(ScopeSet::parse("read write").unwrap()),
        };
        let body = response.render();
        // A text that grew has twice the room that it had.
        assert!(body.capacity() - body.len() < 160, "{} of {}", body.len(), body.capacity());
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        // I-G7
        let request = TokenRequest::parse(
            format!(
                "grant_type=authorization_code&code={CANARY}&code_verifier={CANARY}&client_secret={CANARY}\
                 &client_assertion={CANARY}"
            )
            .as_bytes(),
        )
        .unwrap();
        let refresh =
            TokenRequest::parse(format!("grant_type=refresh_token&refresh_token={CANARY}").as_bytes())
                .unwrap();
        let reply = TokenReply::parse(
            200,
            format!(r#"{{"access_token":"{CANARY}","token_type":"Bearer","refresh_token":"{CANARY}"}}"#)
                .as_bytes(),
        )
        .unwrap();
        let error = TokenReply::parse(
            400,
            format!(r#"{{"error":"{CANARY}","error_description":"{CANARY}"}}"#).as_bytes(),
        )
        .unwrap();
        let shown = format!("{request:?} {refresh:?} {reply:?} {error:?}");
        assert!(!shown.contains(CANARY), "{shown}");
        for body in [
            format!(r#"{{"access_token":"{CANARY}","token_type":"{CANARY}"}}"#),
            format!(r#"{{"access_token":"{CANARY} ","token_type":"Bearer"}}"#),
            format!(r#"{{"access_token":"{CANARY}","access_token":"{CANARY}"}}"#),
            format!(r#"{{"access_token":"{CANARY}""#),
        ] {
            let error = TokenReply::parse(200, body.as_bytes()).unwrap_err();
            assert!(!format!("{error:?} {error}").contains(CANARY), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn a_code_grant_reads_back_the_same(
            code in "[ -~]{1,30}", verifier in "[A-Za-z0-9._~-]{43,128}", redirect in of("[ -~]{1,30}"),
            resource in of("\\PC{1,20}"), id in of("[ -~]{1,20}"), secret in of("[ -~]{1,20}"),
        ) {
            // OAUTH21-3.2-2, OAUTH21-3.2.2-1, OAUTH21-4.1.3-8, OAUTH21-B-1
            let sent = TokenRequest {
                grant: Grant::AuthorizationCode(CodeGrant {
                    code: AuthorizationCode::new(code.clone()).unwrap(),
                    code_verifier: CodeVerifier::new(verifier.clone()).unwrap(),
                    redirect_uri: redirect.clone(),
                    resource: resource.clone(),
                }),
                client: ClientParameters {
                    client_id: id.clone().map(|id| ClientId::new(id).unwrap()),
                    client_secret: secret.clone().map(|secret| ClientSecret::new(secret).unwrap()),
                    ..ClientParameters::none()
                },
            };
            let body = sent.render();
            let received = TokenRequest::parse(body.as_bytes()).unwrap();
            prop_assert_eq!(received.render(), body);
            let Grant::AuthorizationCode(grant) = received.grant else { panic!("a code grant") };
            prop_assert_eq!(grant.code.expose(), code);
            prop_assert_eq!(grant.code_verifier.expose(), verifier);
            prop_assert_eq!(grant.redirect_uri, redirect);
            prop_assert_eq!(grant.resource, resource);
            prop_assert_eq!(received.client.client_id.map(|id| id.as_str().to_owned()), id);
            prop_assert_eq!(received.client.client_secret.map(|secret| secret.expose().to_owned()), secret);
        }

        #[test]
        fn a_refresh_grant_reads_back_the_same(token in "[ -~]{1,30}", scope in of("[!#-\\[\\]-~]{1,20}")) {
            let sent = TokenRequest {
                grant: Grant::RefreshToken(RefreshGrant {
                    refresh_token: RefreshToken::new(token.clone()).unwrap(),
                    scope: scope.clone(),
                    resource: None,
                }),
                client: ClientParameters::public(ClientId::new("c").unwrap()),
            };
            let received = TokenRequest::parse(sent.render().as_bytes()).unwrap();
            let Grant::RefreshToken(grant) = received.grant else { panic!("a refresh grant") };
            prop_assert_eq!(grant.refresh_token.expose(), token);
            prop_assert_eq!(grant.scope, scope);
        }

        #[test]
        fn tokens_read_back_the_same(
            access in "[A-Za-z0-9._~+/-]{1,30}={0,2}", refresh in of("[ -~]{1,30}"), expires in of(0..u64::MAX / 2),
            scope in of(scopes()),
        ) {
            // OAUTH21-3.2.3-1
            let sent = TokenResponse {
                access_token: AccessToken::new(access.clone()).unwrap(),
                token_type: TokenType::Bearer,
                expires_in: expires,
                refresh_token: refresh.clone().map(|text| RefreshToken::new(text).unwrap()),
                scope: scope.clone(),
            };
            let read = tokens(&utf8(&sent.render())).unwrap();
            prop_assert_eq!(read.access_token.expose(), access);
            prop_assert_eq!(read.token_type, TokenType::Bearer);
            prop_assert_eq!(read.expires_in, expires);
            prop_assert_eq!(read.refresh_token.map(|token| token.expose().to_owned()), refresh);
            prop_assert_eq!(read.scope, scope);
        }

        #[test]
        fn an_error_reads_back_the_same_and_stays_in_its_characters(detail in detail()) {
            // OAUTH21-3.2.4-1, OAUTH21-3.2.4-7
            let sent = TokenErrorResponse { code: TokenErrorCode::InvalidTarget, detail };
            prop_assert_eq!(TokenErrorResponse::parse(&sent.render()).unwrap(), sent);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, status: u16) {
            let _ = TokenRequest::parse(&bytes);
            let _ = TokenReply::parse(status, &bytes);
        }
    }
}
