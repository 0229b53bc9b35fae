//! Passing an authorized request on, and what comes back, without holding a stream up.

use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use mcp_authz::identifier::{Endpoint, ResourceId};
use mcp_authz::resource_server::Authorized;
use mcp_authz_tokio::resource_server::{Caller, method_has_a_body};

use super::Failure;

/// Fields that belong to one connection (RFC 9110 section 7.6.1), and those that the two sides say of themselves.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Fields in which some servers look for another method than the request's.
const OTHER_METHOD: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// What the server behind is told of the caller. Whatever a client sends under this beginning is dropped.
const OF_THE_GUARD: &str = "mcp-authz-";

/// The most of a body that is passed on. The layer has read it, within its own limit and from a peer that neither was silent nor slow
/// for long, because scopes depend on it.
const BODY_BYTES: usize = 4 * 1024 * 1024;

/// The server behind, and the resource it stands for.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    endpoint: Endpoint,
    resource: ResourceId,
    http: reqwest::Client,
}

impl Upstream {
    pub(super) fn new(endpoint: Endpoint, resource: ResourceId) -> Result<Self, Failure> {
        if endpoint.as_str().contains('?') {
            return Err("write the upstream without a query".into());
        }
        // Redirects are the client's to follow, and a proxy of the environment is not asked to see the requests.
        let http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        Ok(Self { endpoint, resource, http })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The URL behind of a request's: what follows the resource's path follows the upstream's.
    fn url_of(&self, request: &Request) -> Option<String> {
        let path = request.uri().path();
        // I-A11: a path that could be read in two ways, or lies elsewhere, has nothing behind it.
        if !self.resource.covers(&[self.resource.origin().as_str(), path].concat()) {
            return None;
        }
        let below = path.strip_prefix(self.resource.path().trim_end_matches('/'))?;
        let mut url = [self.endpoint.as_str().trim_end_matches('/'), below].concat();
        if let Some(query) = request.uri().query() {
            let _ = write!(url, "?{query}");
        }
        Some(url)
    }

    /// Sends an authorized request on and hands the answer back as it comes.
    pub(super) async fn pass(self, request: Request) -> Response {
        let Some(caller) = request.extensions().get::<Authorized>().cloned().map(Caller) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let Some(url) = self.url_of(&request) else { return StatusCode::NOT_FOUND.into_response() };
        let (parts, body) = request.into_parts();
        // I-A13: the scopes of these requests were not decided by a body, so that there is none behind.
        let body = if method_has_a_body(&parts.method) { body } else { Body::empty() };
        let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        };
        let fields = inbound(parts.headers, &caller);
        match self.http.request(parts.method, url).headers(fields).body(body).send().await {
            Ok(answer) => {
                let (mut parts, body) = axum::http::Response::from(answer).into_parts();
                without_connection(&mut parts.headers);
                Response::from_parts(parts, Body::new(body))
            }
            // What went wrong there is not the caller's to know, nor where the server is.
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}

/// The fields of the request behind: the client's, and who it is.
fn inbound(mut fields: HeaderMap, caller: &Caller) -> HeaderMap {
    without_connection(&mut fields);
    // MCP-AUTH-079: gone already; a second place that says so costs nothing.
    for name in [header::AUTHORIZATION, header::HOST, header::CONTENT_LENGTH] {
        fields.remove(name);
    }
    // I-A13: the request behind has the method that was authorized.
    for name in OTHER_METHOD {
        fields.remove(name);
    }
    // RFC9700-4.13-1: what the server behind believes comes from here alone. Some servers read `_` and `-` alike.
    let is_ours = |name: &&HeaderName| name.as_str().replace('_', "-").starts_with(OF_THE_GUARD);
    let claimed: Vec<HeaderName> = fields.keys().filter(is_ours).cloned().collect();
    for name in claimed {
        fields.remove(name);
    }
    let scopes = caller.scopes().to_string();
    for (name, value) in [
        ("mcp-authz-subject", caller.subject()),
        ("mcp-authz-client", caller.client().as_str()),
        ("mcp-authz-issuer", caller.issuer().issuer().as_str()),
        ("mcp-authz-scope", &scopes),
    ] {
        if let Ok(value) = HeaderValue::from_str(&escaped(value)) {
            fields.insert(HeaderName::from_static(name), value);
        }
    }
    fields
}

fn without_connection(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.into_iter().chain(OF_THE_CONNECTION) {
        fields.remove(name);
    }
}

/// Text for a field: everything but printable ASCII percent-encoded, and the percent sign itself.
fn escaped(text: &str) -> String {
    let mut field = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            field.push(char::from(byte));
        } else {
            let _ = write!(field, "%{byte:02X}");
        }
    }
    field
}
