//! The requests of a probe, as values.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mcp_authz::identifier::RedirectUri;
use mcp_authz::message::client_metadata::{ApplicationType, ClientMetadata, RegistrationRequest};
use mcp_authz::revision::Revision;
use mcp_authz::syntax::form;
use serde_json::{Value, json};

use super::registration::{REDIRECT, STATE};

/// A token that no issuer issued.
pub(crate) const NO_TOKEN: &str = "mcp-authz-probe.not-a-token";
/// A client that is registered nowhere.
pub(crate) const NO_CLIENT: &str = "mcp-authz-probe-unknown";
/// The name of the client that `--register` registers.
const NAME: &str = "mcp-authz probe";
/// A page of another origin.
const PAGE: &str = "https://mcp-authz-probe.invalid";
/// A code challenge of the right form; whose verifier it is of does not matter, as no code is ever redeemed.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// The last revision whose clients begin with `initialize`.
const STATEFUL: Revision = Revision::V2025_11_25;

/// What is sent: method, fields and body.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Message {
    fn new(method: Method, headers: &[(HeaderName, &'static str)], body: Vec<u8>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Self { method, headers: headers.collect(), body }
    }

    /// A GET for JSON.
    pub(crate) fn get() -> Self {
        Self::new(Method::GET, &[(ACCEPT, "application/json")], Vec::new())
    }

    /// A GET as a browser makes it.
    pub(crate) fn page() -> Self {
        Self::new(Method::GET, &[(ACCEPT, "text/html")], Vec::new())
    }

    /// A GET for an event stream.
    pub(crate) fn stream(revision: Revision) -> Self {
        Self::new(Method::GET, &[(ACCEPT, "text/event-stream")], Vec::new()).of(revision)
    }

    /// A POST of a form.
    pub(crate) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let headers = [(ACCEPT, "application/json"), (CONTENT_TYPE, "application/x-www-form-urlencoded")];
        Self::new(Method::POST, &headers, form::encode(pairs).into_bytes())
    }

    fn json(body: Vec<u8>) -> Self {
        let accept = (ACCEPT, "application/json, text/event-stream");
        Self::new(Method::POST, &[accept, (CONTENT_TYPE, "application/json")], body)
    }

    fn of(mut self, revision: Revision) -> Self {
        let name = HeaderName::from_static("mcp-protocol-version");
        self.headers.insert(name, HeaderValue::from_static(revision.as_str()));
        self
    }

    fn rpc(method: &str, params: Value) -> Self {
        Self::json(
            json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string().into_bytes(),
        )
    }

    /// The request that stateful revisions begin with.
    pub(crate) fn initialize(revision: Revision) -> Self {
        let revision = revision.min(STATEFUL);
        Self::rpc(
            "initialize",
            json!({"protocolVersion": revision.as_str(), "capabilities": {}, "clientInfo": client_info()}),
        )
    }

    /// A request of a revision without sessions: the first may be any.
    pub(crate) fn stateless(revision: Revision) -> Self {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": revision.as_str(),
            "io.modelcontextprotocol/clientInfo": client_info(),
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let mut message = Self::rpc("tools/list", json!({"_meta": meta})).of(revision);
        message.headers.insert("mcp-method", HeaderValue::from_static("tools/list"));
        message
    }

    /// The same with credentials, one field for each.
    pub(crate) fn with_authorization(mut self, fields: &[&'static str]) -> Self {
        for field in fields {
            self.headers.append(AUTHORIZATION, HeaderValue::from_static(field));
        }
        self
    }

    /// The same from a page of another origin.
    pub(crate) fn cross_origin(mut self) -> Self {
        self.headers.insert(ORIGIN, HeaderValue::from_static(PAGE));
        self
    }

    /// What a browser asks before a page of another origin may send the request.
    pub(crate) fn preflight() -> Self {
        let headers = [
            (HeaderName::from_static("access-control-request-method"), "POST"),
            (
                HeaderName::from_static("access-control-request-headers"),
                "authorization,content-type,mcp-protocol-version",
            ),
        ];
        Self::new(Method::OPTIONS, &headers, Vec::new()).cross_origin()
    }

    /// A registration of the probe's own client.
    pub(crate) fn registration() -> Option<Self> {
        let redirect = RedirectUri::new(REDIRECT).ok()?;
        let metadata = ClientMetadata {
            client_name: Some(NAME.into()),
            application_type: Some(ApplicationType::of(std::slice::from_ref(&redirect))),
            redirect_uris: vec![redirect],
            grant_types: Some(["authorization_code", "refresh_token"].map(String::from).into()),
            response_types: Some(vec!["code".into()]),
            token_endpoint_auth_method: Some("none".into()),
            ..ClientMetadata::default()
        };
        Some(Self::json(RegistrationRequest::new(metadata).ok()?.render()).accepting_json())
    }

    /// A registration that must be refused for its redirect URI.
    pub(crate) fn faulty_registration(redirect: &str) -> Self {
        let metadata = json!({
            "client_name": NAME,
            "redirect_uris": [redirect],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        Self::json(metadata.to_string().into_bytes()).accepting_json()
    }

    fn accepting_json(mut self) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self
    }
}

fn client_info() -> Value {
    json!({"name": "mcp-authz-probe", "version": env!("CARGO_PKG_VERSION")})
}

/// How an authorization request shows its code challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenged {
    S256,
    Plain,
    NotAtAll,
}

/// The parameters of an authorization request. None of them leads to a login that anybody would finish.
pub(crate) fn authorization<'a>(
    client_id: &'a str,
    redirect_uri: &'a str,
    resource: &'a str,
    challenged: Challenged,
) -> Vec<(&'static str, &'a str)> {
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", redirect_uri),
        ("state", STATE),
        ("resource", resource),
    ];
    let method = match challenged {
        Challenged::S256 => "S256",
        Challenged::Plain => "plain",
        Challenged::NotAtAll => return parameters,
    };
    parameters.extend([("code_challenge", CHALLENGE), ("code_challenge_method", method)]);
    parameters
}

/// A token request with a code that nobody issued.
pub(crate) fn token_request<'a>(client_id: &'a str, resource: &'a str) -> [(&'static str, &'a str); 6] {
    [
        ("grant_type", "authorization_code"),
        ("code", "mcp-authz-probe-no-code"),
        ("client_id", client_id),
        ("redirect_uri", REDIRECT),
        ("code_verifier", "mcp-authz-probe-no-verifier-0123456789-0123456789"),
        ("resource", resource),
    ]
}
