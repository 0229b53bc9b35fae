//! An MCP server and its authorization server on one loopback port, of canned answers: good ones, of which a test breaks
//! one.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use mcp_authz::policy::Policy;
use mcp_authz::revision::Revision;
use mcp_authz_tokio::client::fetch::Fetcher;
use tokio::net::TcpListener;

use super::super::finding::{Report, Status};
use super::super::walk::{Limits, Plan, walk};

/// One answer. `ORIGIN` in it stands for the site's own origin.
#[derive(Debug, Clone)]
pub(super) struct Canned {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Text(String),
    /// 100 MB.
    Huge,
    /// A byte every 50 ms, for ever.
    Slow,
}

impl Canned {
    pub(super) fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Content::Text(String::new()) }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn json(status: u16, body: &str) -> Self {
        let answer = Self::of(status).with("content-type", "application/json");
        Self { body: Content::Text(body.to_owned()), ..answer }
    }

    pub(super) fn containing(self, body: &str) -> Self {
        Self { body: Content::Text(body.to_owned()), ..self }
    }

    fn respond(&self, origin: &str) -> Response {
        let mut response = Response::new(match &self.body {
            Content::Text(text) => Body::from(text.replace("ORIGIN", origin)),
            Content::Huge => endless(vec![b' '; 64 * 1024], 1600, Duration::ZERO),
            Content::Slow => endless(b" ".to_vec(), usize::MAX, Duration::from_millis(50)),
        });
        *response.status_mut() = self.status.try_into().unwrap();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value.replace("ORIGIN", origin).as_bytes()).unwrap();
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
        response
    }
}

/// One for all tests: setting one up reads the system's certificates.
pub(super) fn fetcher() -> Fetcher {
    static SHARED: OnceLock<Fetcher> = OnceLock::new();
    SHARED.get_or_init(|| Fetcher::new().unwrap()).clone()
}

/// A body that comes piece by piece.
fn endless(piece: Vec<u8>, pieces: usize, pause: Duration) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    tokio::spawn(async move {
        for _ in 0..pieces {
            tokio::time::sleep(pause).await;
            if sender.send(Ok(piece.clone())).await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

pub(super) const RESOURCE: &str = r#"{"resource":"ORIGIN/mcp","authorization_servers":["ORIGIN"],"scopes_supported":["read"],"bearer_methods_supported":["header"],"resource_name":"Site"}"#;
pub(super) const SERVER: &str = r#"{"issuer":"ORIGIN","authorization_endpoint":"ORIGIN/authorize","token_endpoint":"ORIGIN/token","registration_endpoint":"ORIGIN/register","revocation_endpoint":"ORIGIN/revoke","introspection_endpoint":"ORIGIN/introspect","jwks_uri":"ORIGIN/jwks","response_types_supported":["code"],"grant_types_supported":["authorization_code","refresh_token"],"scopes_supported":["read"],"code_challenge_methods_supported":["S256"],"token_endpoint_auth_methods_supported":["none","private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["ES256"],"authorization_response_iss_parameter_supported":true,"client_id_metadata_document_supported":true,"protected_resources":["ORIGIN/mcp"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}"#;
pub(super) const REGISTERED: &str = r#"{"client_id":"c1","redirect_uris":["http://127.0.0.1:33418/callback"],"token_endpoint_auth_method":"none"}"#;
pub(super) const CHALLENGE: &str =
    r#"Bearer resource_metadata="ORIGIN/.well-known/oauth-protected-resource/mcp", scope="read""#;
const WITH_ERROR: &str = r#"Bearer error="invalid_token", resource_metadata="ORIGIN/.well-known/oauth-protected-resource/mcp", scope="read""#;
const ERROR: &str =
    "http://127.0.0.1:33418/callback?error=invalid_request&state=mcp-authz-probe-state&iss=ORIGIN";

/// The answers, by what they answer.
#[derive(Debug, Clone)]
pub(super) struct Site(BTreeMap<&'static str, Canned>);

impl Site {
    /// As it should be.
    pub(super) fn good() -> Self {
        let refused =
            || Canned::of(401).with("www-authenticate", CHALLENGE).with("access-control-allow-origin", "*");
        let document = |body| Canned::json(200, body).with("access-control-allow-origin", "*");
        let refused_client =
            Canned::json(401, r#"{"error":"invalid_client"}"#).with("cache-control", "no-store");
        let refused_uri = Canned::json(400, r#"{"error":"invalid_redirect_uri"}"#);
        let to_client = Canned::of(302).with("location", ERROR);
        Self(BTreeMap::from([
            ("initialize", refused().with("access-control-expose-headers", "WWW-Authenticate")),
            ("stateless", refused().with("access-control-expose-headers", "WWW-Authenticate")),
            ("stream", refused()),
            ("token", refused().with("www-authenticate", WITH_ERROR)),
            ("query", refused()),
            ("malformed", Canned::of(400)),
            ("twice", Canned::of(400)),
            ("basic", refused()),
            (
                "preflight",
                Canned::of(204)
                    .with("access-control-allow-origin", "*")
                    .with("access-control-allow-headers", "Authorization, Content-Type"),
            ),
            ("resource", document(RESOURCE)),
            ("resource-root", Canned::of(404)),
            ("rfc8414", document(SERVER)),
            ("openid", document(SERVER)),
            ("jwks", Canned::json(200, r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#)),
            ("authorize-unknown", Canned::of(400)),
            ("authorize-foreign", Canned::of(400)),
            ("authorize-without", to_client.clone()),
            ("authorize-plain", to_client),
            ("exchange", refused_client.clone()),
            ("exchange-get", Canned::of(405)),
            ("revoke", refused_client.clone()),
            ("introspect", refused_client),
            ("register", Canned::json(201, REGISTERED)),
            ("register-script", refused_uri.clone()),
            ("register-http", refused_uri),
        ]))
    }

    /// Puts another answer in.
    pub(super) fn set(&mut self, key: &'static str, answer: Canned) {
        assert!(self.0.insert(key, answer).is_some(), "{key}");
    }

    /// Changes one answer.
    pub(super) fn change(&mut self, key: &'static str, change: impl FnOnce(Canned) -> Canned) {
        let answer = self.0.get(key).unwrap().clone();
        self.set(key, change(answer));
    }

    /// Puts the same header field into every 401 of the MCP server.
    pub(super) fn challenge(&mut self, value: &str) {
        for key in ["initialize", "stateless", "stream", "query", "basic"] {
            self.change(key, |answer| answer.with("www-authenticate", value));
        }
    }

    /// Replaces a piece of the documents of the authorization server.
    pub(super) fn server(&mut self, from: &str, to: &str) {
        let document = SERVER.replacen(from, to, 1);
        assert_ne!(document, SERVER, "{from}");
        self.change("rfc8414", |answer| answer.containing(&document));
        self.change("openid", |answer| answer.containing(&document));
    }

    /// Replaces a piece of the resource's document.
    pub(super) fn resource(&mut self, from: &str, to: &str) {
        let document = RESOURCE.replacen(from, to, 1);
        assert_ne!(document, RESOURCE, "{from}");
        self.change("resource", |answer| answer.containing(&document));
    }

    /// Changes every answer.
    pub(super) fn change_all(&mut self, change: impl Fn(Canned) -> Canned) {
        for answer in self.0.values_mut() {
            *answer = change(answer.clone());
        }
    }

    async fn answer(&self, request: Request, origin: &str) -> Response {
        let (head, body) = request.into_parts();
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        let query = head.uri.query().unwrap_or_default();
        let fields: Vec<&str> =
            head.headers.get_all("authorization").iter().map(|value| value.to_str().unwrap()).collect();
        let key = match (head.method.clone(), head.uri.path()) {
            (Method::OPTIONS, "/mcp") => "preflight",
            (_, "/mcp") if query.contains("access_token=") => "query",
            (method, "/mcp") => match fields.as_slice() {
                [] if method == Method::GET => "stream",
                [] if body.contains("initialize") => "initialize",
                [] => "stateless",
                [one] if one.starts_with("Basic ") => "basic",
                [one] if one.split(' ').count() == 2 => "token",
                [_] => "malformed",
                _ => "twice",
            },
            (_, "/.well-known/oauth-protected-resource/mcp") => "resource",
            (_, "/.well-known/oauth-protected-resource") => "resource-root",
            (_, "/.well-known/oauth-authorization-server") => "rfc8414",
            (_, "/.well-known/openid-configuration") => "openid",
            (_, "/jwks") => "jwks",
            (_, "/authorize") if query.contains("client_id=mcp-authz-probe-unknown") => "authorize-unknown",
            (_, "/authorize") if query.contains("probe.invalid") => "authorize-foreign",
            (_, "/authorize") if query.contains("plain") => "authorize-plain",
            (_, "/authorize") => "authorize-without",
            (Method::GET, "/token") => "exchange-get",
            (_, "/token") => "exchange",
            (_, "/revoke") => "revoke",
            (_, "/introspect") => "introspect",
            (_, "/register") if body.contains("javascript:") => "register-script",
            (_, "/register") if body.contains("probe.invalid") => "register-http",
            (_, "/register") => "register",
            _ => return Canned::of(404).respond(origin),
        };
        self.0.get(key).unwrap().respond(origin)
    }

    /// Serves it and probes it.
    pub(super) async fn probed(self, policy: impl FnOnce(&str) -> Policy, limits: Limits) -> Report {
        self.served(policy, limits, Revision::default()).await
    }

    /// The same for a server of that revision.
    pub(super) async fn probed_as(self, revision: Revision, policy: impl FnOnce(&str) -> Policy) -> Report {
        self.served(policy, Limits::within(Duration::from_secs(60)), revision).await
    }

    async fn served(self, policy: impl FnOnce(&str) -> Policy, limits: Limits, revision: Revision) -> Report {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (url, policy) = (format!("{origin}/mcp"), policy(&origin));
        let router = Router::new().fallback(move |request: Request| {
            let (site, origin) = (self.clone(), origin.clone());
            async move { site.answer(request, &origin).await }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let plan = Plan { url, policy, revision, register: true, limits, fetcher: fetcher() };
        let report = walk(plan).await;
        serving.abort();
        report
    }

    /// The same without relaxations and within the usual limits.
    pub(super) async fn report(self) -> Report {
        self.probed(|_| Policy::strict(), Limits::within(Duration::from_secs(60))).await
    }
}

/// The checks that came out so or so, and how.
pub(super) fn not_passed(report: &Report) -> Vec<(&'static str, Status)> {
    let mut found: Vec<_> = report
        .findings()
        .filter(|finding| matches!(finding.status, Status::Warn | Status::Fail))
        .map(|finding| (finding.check.name, finding.status))
        .collect();
    found.sort_unstable();
    found
}
