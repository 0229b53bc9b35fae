//! The front channel: the authorization request (OAuth 2.1 section 4.1.1), and the response as it leaves the server
//! and as it arrives at the client's redirect URI (sections 4.1.2 and 4.1.2.1, RFC 9207).
//!
//! ```text
//! CodeRequest ──pairs──▶ query ──AuthorizationRequest::parse──▶ AuthorizationRequest
//! AuthorizationResponse ──pairs──▶ redirect ──Callback::from_url──▶ Callback
//! ```
//!
//! What is sent has every member it needs by its type; what is received may lack any.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::identifier::{ClientId, Issuer, RedirectUri, ResourceId, ScopeSet};
use crate::pkce::CodeChallenge;
use crate::secret::{AuthorizationCode, Nonce, State};
use crate::syntax::form::Form;
use crate::syntax::uri::Uri;

use super::Malformed;
use super::error_code::{AuthorizationErrorCode, ErrorDetail};

/// The authorization request this client sends: always for a code, always with an S256 challenge and a state.
#[derive(Debug, Clone)]
pub struct CodeRequest {
    /// Who asks.
    pub client_id: ClientId,
    /// Where the answer goes.
    pub redirect_uri: RedirectUri,
    /// The challenge of the verifier kept for the token request.
    pub code_challenge: CodeChallenge,
    /// What ties the answer to this request.
    pub state: State,
    /// What is asked for; `None`, or an empty set, leaves it to the server.
    pub scope: Option<ScopeSet>,
    /// The resource the token is for.
    pub resource: Option<ResourceId>,
    /// What an ID token is to repeat (OpenID Connect); none where no ID token is asked for.
    pub nonce: Option<Nonce>,
}

impl CodeRequest {
    /// The parameters to add to the authorization endpoint's query, each once, in a fixed order.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        // OAUTH21-4.1.1-1, OAUTH21-4.1.1-5, MCP-SEC-009, MCP-SEC-017, OAUTH21-2.3.2-1, OAUTH21-3.1-6
        let mut pairs: Vec<(&'static str, String)> = [
            ("response_type", "code".to_owned()),
            ("client_id", self.client_id.as_str().to_owned()),
            ("redirect_uri", self.redirect_uri.as_str().to_owned()),
            ("code_challenge", self.code_challenge.to_text()),
            ("code_challenge_method", "S256".to_owned()),
            ("state", self.state.expose().to_owned()),
        ]
        .into();
        if let Some(scope) = self.scope.as_ref().filter(|scope| !scope.is_empty()) {
            pairs.push(("scope", scope.to_string()));
        }
        if let Some(resource) = &self.resource {
            pairs.push(("resource", resource.as_str().to_owned()));
        }
        if let Some(nonce) = &self.nonce {
            pairs.push(("nonce", nonce.expose().to_owned()));
        }
        pairs
    }
}

/// An authorization request as a server received it: each parameter at most once, none checked beyond that, an
/// empty one absent. Parameters that are not here are ignored.
///
/// The values stay text, because a server has to find the client and its redirect URI before it may answer any
/// other fault with a redirect (OAuth 2.1 section 2.3.5).
#[derive(Debug, Clone, Default)]
pub struct AuthorizationRequest {
    form: Form,
    state: Option<State>,
}

macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        impl AuthorizationRequest {
            $($(#[$doc])*
            pub fn $name(&self) -> Option<&str> {
                self.form.get(stringify!($name))
            })*
        }
    };
}

parameters! {
    /// `response_type`.
    response_type;
    /// `client_id`.
    client_id;
    /// `redirect_uri`.
    redirect_uri;
    /// `scope`.
    scope;
    /// `code_challenge`.
    code_challenge;
    /// `code_challenge_method`.
    code_challenge_method;
    /// `resource` (RFC 8707); a second one is a repeated parameter (D30).
    resource;
    /// `response_mode`.
    response_mode;
    /// `prompt` (OpenID Connect).
    prompt;
    /// `max_age` (OpenID Connect).
    max_age;
    /// `nonce` (OpenID Connect).
    nonce;
    /// `request` (RFC 9101), which a server must understand or refuse.
    request;
    /// `request_uri` (RFC 9101, RFC 9126), which a server must understand or refuse.
    request_uri;
    /// `authorization_details` (RFC 9396), which a server must understand or refuse.
    authorization_details;
    /// `dpop_jkt` (RFC 9449), which a server must understand or refuse.
    dpop_jkt;
}

impl AuthorizationRequest {
    /// Reads the query of a GET, without its question mark, or the form of a POST.
    ///
    /// # Errors
    /// [`Malformed`] for broken encoding, a repeated parameter, or a `state` that could not be echoed. Neither may
    /// be answered with a redirect.
    pub fn parse(query: &[u8]) -> Result<Self, Malformed> {
        // OAUTH21-3.1-7: the form refuses repeated names; OAUTH21-3.1-5, OAUTH21-3.1-8
        Self::from_form(Form::parse(query)?)
    }

    /// Takes a form.
    ///
    /// # Errors
    /// As [`AuthorizationRequest::parse`].
    pub fn from_form(form: Form) -> Result<Self, Malformed> {
        Ok(Self { state: state(&form)?, form })
    }

    /// `state`, which is echoed.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The form it came as, credentials in it included.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// `state`, to be echoed when all else has been read.
    pub(crate) fn into_state(self) -> Option<State> {
        self.state
    }
}

fn state(form: &Form) -> Result<Option<State>, Malformed> {
    form.get("state").map(State::new).transpose().map_err(|_| Malformed::Invalid("state"))
}

/// What a server sends to a redirect URI.
#[derive(Debug, Clone)]
pub struct AuthorizationResponse {
    /// The code, or why there is none.
    pub result: AuthorizationResult,
    /// The request's state, unchanged.
    pub state: Option<State>,
    /// The issuer of the server.
    pub iss: Issuer,
}

/// A code, or an error.
#[derive(Debug, Clone)]
pub enum AuthorizationResult {
    /// The code to redeem.
    Code(AuthorizationCode),
    /// Why there is none.
    Error(AuthorizationError),
}

/// An authorization error response (OAuth 2.1 section 4.1.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationError {
    /// The code.
    pub code: AuthorizationErrorCode,
    /// The peer's words.
    pub detail: ErrorDetail,
}

impl AuthorizationResponse {
    /// The parameters to add to the redirect URI's query, each once, in a fixed order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let result = match &self.result {
            AuthorizationResult::Code(code) => [Some(("code", code.expose())), None, None],
            // OAUTH21-4.1.2.1-3, OAUTH21-3.2.4-7
            AuthorizationResult::Error(AuthorizationError { code, detail }) => [
                Some(("error", code.as_str())),
                detail.description.as_ref().map(|words| ("error_description", words.as_str())),
                detail.uri.as_ref().map(|uri| ("error_uri", uri.as_str())),
            ],
        };
        // OAUTH21-4.1.2-3
        let state = self.state.as_ref().map(|state| ("state", state.expose()));
        // RFC9207-2-1, MCP-AUTH-031
        let iss = Some(("iss", self.iss.as_str()));
        result.into_iter().chain([state, iss]).flatten()
    }
}

/// An authorization response as it arrived: where, and with exactly one of a code and an error.
///
/// Anyone can send a browser here. Nothing of it means anything until `state`, the place it arrived at and `iss`
/// have been compared with the request's; its `Debug` shows neither code, state nor error.
#[derive(Clone)]
pub struct Callback {
    location: String,
    state: Option<State>,
    iss: Option<String>,
    result: AuthorizationResult,
}

impl Callback {
    /// Reads the URL the browser arrived at, in full: scheme, host, port, path and query as the host's own
    /// configuration and the request line give them, not as a forwarding header claims them.
    ///
    /// # Errors
    /// [`Malformed`] for what is no absolute URL, has a fragment or user information, for broken encoding, a
    /// repeated parameter, both or neither of `code` and `error`, and a value outside its grammar.
    pub fn from_url(url: &str) -> Result<Self, Malformed> {
        let (location, query) = match url.split_once('?') {
            Some((location, query)) => (location, query),
            None => (url, ""),
        };
        Self::from_parts(location, query)
    }

    /// Reads a location (scheme, host, port and path) and a query without its question mark.
    ///
    /// # Errors
    /// As [`Callback::from_url`].
    pub fn from_parts(location: &str, query: &str) -> Result<Self, Malformed> {
        const LOCATION: &str = "the callback's URL";
        let uri = Uri::parse(location).map_err(|_| Malformed::Invalid(LOCATION))?;
        if uri.fragment().is_some()
            || uri.userinfo().is_some()
            || uri.query().is_some()
            || query.contains('#')
        {
            return Err(Malformed::Invalid(LOCATION));
        }
        // OAUTH21-4.1.2-6: the form refuses repeated names
        let form = Form::parse(query.as_bytes())?;
        let result = match (form.get("code"), form.get("error")) {
            // OAUTH21-4.1.2-6
            (Some(_), Some(_)) => return Err(Malformed::Conflict("code", "error")),
            (None, None) => return Err(Malformed::Missing("code")),
            (Some(code), None) => AuthorizationResult::Code(
                AuthorizationCode::new(code).map_err(|_| Malformed::Invalid("code"))?,
            ),
            (None, Some(code)) => AuthorizationResult::Error(AuthorizationError {
                code: AuthorizationErrorCode::parse(code)?,
                detail: ErrorDetail::read(form.get("error_description"), form.get("error_uri")),
            }),
        };
        Ok(Self {
            location: location.to_owned(),
            state: state(&form)?,
            // RFC9207-2.4-1: decoded once, by the form
            iss: form.get("iss").map(ToOwned::to_owned),
            result,
        })
    }

    /// Where it arrived: the URL up to its query, exactly as received.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The `state` parameter.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The `iss` parameter, decoded once and otherwise untouched.
    pub fn iss(&self) -> Option<&str> {
        self.iss.as_deref()
    }

    /// The code or the error. Only after `state`, location and `iss` have been compared.
    pub(crate) fn into_result(self) -> AuthorizationResult {
        self.result
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // MCP-AUTH-040
        f.debug_struct("Callback")
            .field("location", &self.location)
            .field("state", &self.state)
            .field("iss", &self.iss.as_ref().map(|_| "unverified"))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::option::of;
    use proptest::prelude::*;

    use super::super::arbitrary::{CANARY, detail, scopes, utf8};
    use super::super::error_code::ErrorText;
    use super::*;
    use crate::syntax::form;

    const HERE: &str = "http://127.0.0.1:4711/callback";

    fn arrive(query: &str) -> Result<Callback, Malformed> {
        Callback::from_url(&format!("{HERE}?{query}"))
    }

    fn encode(pairs: &[(&'static str, String)]) -> String {
        form::encode(pairs.iter().map(|(name, value)| (*name, value.as_str())))
    }

    #[test]
    fn a_code_request_always_has_challenge_method_state_and_redirect_uri() {
        // OAUTH21-4.1.1-1, OAUTH21-4.1.1-5, MCP-SEC-009, MCP-SEC-017, OAUTH21-2.3.2-1, OAUTH21-3.1-6
        let request = CodeRequest {
            client_id: ClientId::new("client").unwrap(),
            redirect_uri: RedirectUri::new(HERE).unwrap(),
            code_challenge: CodeChallenge::from_bytes([7; 32]),
            state: State::new("st").unwrap(),
            scope: None,
            resource: None,
            nonce: None,
        };
        let names: Vec<_> = request.pairs().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "response_type",
                "client_id",
                "redirect_uri",
                "code_challenge",
                "code_challenge_method",
                "state"
            ]
        );
    }

    #[test]
    fn a_repeated_parameter_refuses_the_request_even_an_unknown_one() {
        // OAUTH21-3.1-7, I-G2
        for query in [
            "client_id=a&client_id=a",
            "client_id=a&client%5Fid=b",
            "state=a&state=",
            "resource=https://a.example&resource=https://b.example",
            "x=1&x=2",
        ] {
            assert!(
                matches!(AuthorizationRequest::parse(query.as_bytes()), Err(Malformed::Form(_))),
                "{query}"
            );
        }
    }

    #[test]
    fn empty_parameters_are_absent_and_unknown_ones_ignored() {
        // OAUTH21-3.1-5, OAUTH21-3.1-8
        let request =
            AuthorizationRequest::parse(b"client_id=a&scope=&state=&foo=bar&redirect_uri=").unwrap();
        assert_eq!(request.client_id(), Some("a"));
        assert!(request.scope().is_none() && request.state().is_none() && request.redirect_uri().is_none());
    }

    #[test]
    fn a_state_that_cannot_be_echoed_refuses_the_request() {
        for state in ["a%0Ab", "%C3%A9", &"a".repeat(crate::limits::STATE_BYTES + 1)] {
            let query = format!("client_id=a&state={state}");
            assert_eq!(
                AuthorizationRequest::parse(query.as_bytes()).unwrap_err(),
                Malformed::Invalid("state")
            );
        }
    }

    #[test]
    fn parameters_a_server_must_understand_are_kept() {
        // I-G11
        let request = AuthorizationRequest::parse(
            b"request=a&request_uri=b&authorization_details=c&dpop_jkt=d&response_mode=fragment",
        )
        .unwrap();
        assert_eq!(request.request(), Some("a"));
        assert_eq!(request.request_uri(), Some("b"));
        assert_eq!(request.authorization_details(), Some("c"));
        assert_eq!(request.dpop_jkt(), Some("d"));
        assert_eq!(request.response_mode(), Some("fragment"));
    }

    #[test]
    fn a_callback_has_exactly_one_of_code_and_error() {
        // OAUTH21-4.1.2-6
        assert_eq!(
            arrive("code=c&error=access_denied&state=s").unwrap_err(),
            Malformed::Conflict("code", "error")
        );
        for neither in ["", "state=s&iss=https://as.example.com", "code=&error=&state=s", "code=&state=s"] {
            assert_eq!(arrive(neither).unwrap_err(), Malformed::Missing("code"), "{neither}");
        }
        assert!(arrive("code=c&error=&state=s").is_ok());
        assert_eq!(Callback::from_url(HERE).unwrap_err(), Malformed::Missing("code"));
    }

    #[test]
    fn a_callback_with_anything_repeated_is_refused() {
        // OAUTH21-4.1.2-6
        for query in [
            "code=a&code=a&state=s",
            "code=a&state=s&state=s",
            "code=a&state=s&iss=https://as.example.com&iss=https://as.example.com",
            "error=access_denied&error=access_denied&state=s",
            "code=a&state=s&st%61te=s",
            "code=a&code=",
        ] {
            assert!(matches!(arrive(query), Err(Malformed::Form(_))), "{query}");
        }
    }

    #[test]
    fn a_callback_keeps_where_it_arrived_and_decodes_iss_once() {
        // RFC9207-2.4-1, RFC8252-8.10-1
        let callback = arrive("code=c&state=s&iss=https%3A%2F%2Fas.example.com%2F%252e").unwrap();
        assert_eq!(callback.location(), HERE);
        assert_eq!(callback.iss(), Some("https://as.example.com/%2e"));
        assert_eq!(callback.state().unwrap().expose(), "s");
        let AuthorizationResult::Code(code) = callback.into_result() else { panic!("a code") };
        assert_eq!(code.expose(), "c");
    }

    #[test]
    fn a_callback_at_what_is_no_plain_url_is_refused() {
        for url in [
            "/callback?code=c",
            "http://user@127.0.0.1/callback?code=c",
            "http://127.0.0.1/callback#?code=c",
            "http://127.0.0.1/callback?code=c#x",
            "http://127.0.0.1/call back?code=c",
            "",
            "?code=c",
        ] {
            assert!(Callback::from_url(url).is_err(), "{url}");
        }
        assert!(Callback::from_parts("http://127.0.0.1/callback?x=1", "code=c").is_err());
    }

    #[test]
    fn a_callback_outside_the_grammar_of_its_values_is_refused() {
        for query in ["code=a%00b", "code=%FF", "code=%zz", "code=c&state=%0A", "error=a%22b", "error=%0D%0A"]
        {
            assert!(arrive(query).is_err(), "{query}");
        }
    }

    #[test]
    fn error_text_is_filtered_and_a_link_of_another_scheme_dropped() {
        // OAUTH21-3.2.4-8, MCP-SBP-041
        let callback = arrive(
            "error=access_denied&error_description=a%1B%5B31m%22b%5C%E2%80%AE&error_uri=javascript:alert(1)&state=s",
        )
        .unwrap();
        let AuthorizationResult::Error(error) = callback.into_result() else { panic!("an error") };
        assert_eq!(error.code, AuthorizationErrorCode::AccessDenied);
        assert_eq!(error.detail.description.as_ref().map(ErrorText::as_str), Some("a[31mb"));
        assert_eq!(error.detail.uri, None);
    }

    #[test]
    fn debug_and_errors_show_neither_secrets_nor_the_peers_words() {
        // I-G7, MCP-AUTH-040
        for query in [
            format!("code={CANARY}&state={CANARY}&iss={CANARY}"),
            format!("error={CANARY}&error_description={CANARY}&state={CANARY}"),
        ] {
            let callback = arrive(&query).unwrap();
            assert!(!format!("{callback:?}").contains(CANARY), "{callback:?}");
            let result = callback.into_result();
            assert!(!format!("{result:?}").contains(CANARY), "{result:?}");
        }
        for query in [
            format!("code={CANARY}&code={CANARY}"),
            format!("code={CANARY}&error=x"),
            format!("error={CANARY}%00"),
        ] {
            let error = arrive(&query).unwrap_err();
            assert!(!format!("{error:?} {error}").contains(CANARY), "{error:?}");
        }
        let request = AuthorizationRequest::parse(format!("state={CANARY}").as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains(CANARY));
        let error = AuthorizationRequest::parse(format!("state={CANARY}%0A").as_bytes()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains(CANARY));
    }

    proptest! {
        #[test]
        fn a_code_request_reads_back_the_same(
            id in "[ -~]{1,20}", state in "[ -~]{1,40}", scope in of(scopes()), resource: bool, challenge: [u8; 32],
        ) {
            let sent = CodeRequest {
                client_id: ClientId::new(id).unwrap(),
                redirect_uri: RedirectUri::new(HERE).unwrap(),
                code_challenge: CodeChallenge::from_bytes(challenge),
                state: State::new(state).unwrap(),
                scope,
                resource: resource.then(|| ResourceId::new("https://mcp.example.com/mcp").unwrap()),
                nonce: resource.then(|| Nonce::new("n-0S6_WzA2Mj").unwrap()),
            };
            let pairs = sent.pairs();
            let received = AuthorizationRequest::parse(encode(&pairs).as_bytes()).unwrap();
            prop_assert_eq!(received.response_type(), Some("code"));
            prop_assert_eq!(received.client_id(), Some(sent.client_id.as_str()));
            prop_assert_eq!(received.redirect_uri(), Some(HERE));
            let challenge = sent.code_challenge.to_text();
            prop_assert_eq!(received.code_challenge(), Some(challenge.as_str()));
            prop_assert_eq!(received.code_challenge_method(), Some("S256"));
            prop_assert_eq!(received.state().map(State::expose), Some(sent.state.expose()));
            let scope = sent.scope.map(|scope| scope.to_string());
            prop_assert_eq!(received.scope(), scope.as_deref());
            prop_assert_eq!(received.resource(), sent.resource.as_ref().map(ResourceId::as_str));
            prop_assert_eq!(received.nonce(), sent.nonce.as_ref().map(Nonce::expose));
        }

        #[test]
        fn a_response_reads_back_the_same(code in "[ -~]{1,40}", state in of("[ -~]{1,40}"), error in of(detail())) {
            // I-R7, MCP-AUTH-031, RFC9207-2-1, OAUTH21-4.1.2-3, OAUTH21-4.1.2.1-3
            let sent = AuthorizationResponse {
                result: match error {
                    None => AuthorizationResult::Code(AuthorizationCode::new(code.clone()).unwrap()),
                    Some(detail) => AuthorizationResult::Error(AuthorizationError {
                        code: AuthorizationErrorCode::AccessDenied,
                        detail,
                    }),
                },
                state: state.map(|state| State::new(state).unwrap()),
                iss: Issuer::new("https://as.example.com/t").unwrap(),
            };
            let callback = arrive(&form::encode(sent.pairs())).unwrap();
            prop_assert_eq!(callback.iss(), Some("https://as.example.com/t"));
            prop_assert_eq!(callback.state().map(State::expose), sent.state.as_ref().map(State::expose));
            match (callback.into_result(), sent.result) {
                (AuthorizationResult::Code(read), AuthorizationResult::Code(sent)) => {
                    prop_assert_eq!(read.expose(), sent.expose());
                }
                (AuthorizationResult::Error(read), AuthorizationResult::Error(sent)) => prop_assert_eq!(read, sent),
                _ => prop_assert!(false, "another kind of result"),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text in "\\PC{0,60}") {
            let _ = AuthorizationRequest::parse(&bytes);
            let _ = Callback::from_url(&text);
            let _ = arrive(&text);
            if core::str::from_utf8(&bytes).is_ok() {
                let _ = arrive(&utf8(&bytes));
            }
        }
    }
}
