//! The only HTTP shapes of the core: what a client may send, what it gets back, what a server gets and answers.
//!
//! A reviewer sees here that nothing else can leave: a GET with `Accept`, a POST of a form, a POST of JSON.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use zeroize::Zeroizing;

use crate::erased::Erased;
use crate::identifier::Network;
use crate::limits;
use crate::revision::Revision;
use crate::secret::SecretBytes;

/// Why a fetch is made; the runtime logs it and the report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FetchPurpose {
    /// RFC 9728 protected resource metadata.
    ProtectedResourceMetadata,
    /// RFC 8414 or OpenID Connect discovery metadata.
    AuthorizationServerMetadata,
    /// RFC 7591 dynamic client registration.
    Registration,
    /// OAuth 2.1 section 3.2: code for tokens.
    CodeExchange,
    /// OAuth 2.1 section 4.3: refresh.
    Refresh,
    /// RFC 7009 revocation.
    Revocation,
    /// RFC 7662 introspection by a resource server.
    Introspection,
    /// A client ID metadata document, fetched by an authorization server.
    ClientMetadataDocument,
    /// A JSON Web Key Set.
    KeySet,
    /// RFC 8693 token exchange by a resource server.
    TokenExchange,
}

/// Where a fetch may connect to. The host must check the literal address before it connects and every address a
/// name resolves to, connect to the address it checked, and ignore proxy settings of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AddressPolicy {
    /// Public unicast addresses only: no loopback, private, link-local, mapped or translated ones.
    Public,
    /// Loopback addresses only, http permitted: when the MCP URL the person gave is itself loopback.
    Loopback,
    /// Public addresses and the private ranges named by the relaxation `PrivateNetworks`.
    PublicAndPrivateNetworks,
}

/// The limits a host must enforce while it carries out a [`Fetch`] (I-L8). Redirects are never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPolicy {
    pub(crate) addresses: AddressPolicy,
    pub(crate) max_bytes: usize,
    pub(crate) timeout: Duration,
}

impl FetchPolicy {
    pub(crate) fn new(addresses: AddressPolicy, max_bytes: usize) -> Self {
        Self { addresses, max_bytes, timeout: Duration::from_secs(u64::from(limits::FETCH_SECONDS)) }
    }

    /// The addresses the host may connect to.
    pub fn addresses(&self) -> AddressPolicy {
        self.addresses
    }

    /// The most bytes of body to read; a longer reply is [`FetchFailure::TooLarge`].
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The time from connecting to the last byte of the body.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// A request for the host to send, with its purpose and the policy it is sent under.
#[must_use = "a fetch does nothing until the host sends it"]
pub struct Fetch {
    purpose: FetchPurpose,
    policy: FetchPolicy,
    url: String,
    body: Body,
    authorization: Option<Zeroizing<String>>,
    revision: Option<Revision>,
    networks: Vec<Network>,
}

enum Body {
    Get,
    Form(SecretBytes),
    Json(SecretBytes),
}

impl Fetch {
    pub(crate) fn get(purpose: FetchPurpose, url: impl Into<String>, policy: FetchPolicy) -> Self {
        Self {
            purpose,
            policy,
            url: url.into(),
            body: Body::Get,
            authorization: None,
            revision: None,
            networks: Vec::new(),
        }
    }

    pub(crate) fn post_form(
        purpose: FetchPurpose,
        url: impl Into<String>,
        form: String,
        authorization: Option<Zeroizing<String>>,
        policy: FetchPolicy,
    ) -> Self {
        let body = Body::Form(SecretBytes::new(form.into_bytes()));
        Self { purpose, policy, url: url.into(), body, authorization, revision: None, networks: Vec::new() }
    }

    pub(crate) fn post_json(
        purpose: FetchPurpose,
        url: impl Into<String>,
        json: Vec<u8>,
        authorization: Option<Zeroizing<String>>,
        policy: FetchPolicy,
    ) -> Self {
        let body = Body::Json(SecretBytes::new(json));
        Self { purpose, policy, url: url.into(), body, authorization, revision: None, networks: Vec::new() }
    }

    /// Says in the request which revision of MCP the client speaks.
    pub(crate) fn of_revision(self, revision: Option<Revision>) -> Self {
        Self { revision, ..self }
    }

    /// Lets it into the private networks that the host named for the server it is for.
    pub(crate) fn within(self, networks: &[Network]) -> Self {
        Self { networks: networks.into(), ..self }
    }

    /// Under [`AddressPolicy::PublicAndPrivateNetworks`], the private networks that this fetch may reach: those of its
    /// own server and of no other.
    pub fn private_networks(&self) -> &[Network] {
        &self.networks
    }

    /// Why it is sent.
    pub fn purpose(&self) -> FetchPurpose {
        self.purpose
    }

    /// The limits to send it under.
    pub fn policy(&self) -> FetchPolicy {
        self.policy
    }

    /// `GET` or `POST`.
    pub fn method(&self) -> &'static str {
        match self.body {
            Body::Get => "GET",
            Body::Form(_) | Body::Json(_) => "POST",
        }
    }

    /// The absolute URL. It holds no secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `Accept` field: always JSON.
    pub fn accept(&self) -> &'static str {
        "application/json"
    }

    /// The `Content-Type` field of a POST.
    pub fn content_type(&self) -> Option<&'static str> {
        match self.body {
            Body::Get => None,
            Body::Form(_) => Some("application/x-www-form-urlencoded"),
            Body::Json(_) => Some("application/json"),
        }
    }

    /// The `MCP-Protocol-Version` field, where discovery has one.
    pub fn protocol_version(&self) -> Option<&'static str> {
        self.revision.map(Revision::as_str)
    }

    /// The `Authorization` field, for this request only. Secret.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|value| value.as_str())
    }

    /// The body of a POST, for this request only. Secret.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Get => &[],
            Body::Form(bytes) | Body::Json(bytes) => bytes.expose(),
        }
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("purpose", &self.purpose)
            .field("method", &self.method())
            .field("url", &self.url)
            .field("policy", &self.policy)
            .field("authorization", &self.authorization.as_ref().map(|_| "redacted"))
            .field("body", &"redacted")
            .finish()
    }
}

/// Why a fetch brought no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FetchFailure {
    /// No connection, no TLS, or the connection broke.
    #[error("the server could not be reached")]
    Unreachable,
    /// The time limit ran out.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The body is longer than the policy allows, or the head is longer than the host reads.
    #[error("the reply is larger than allowed")]
    TooLarge,
    /// The URL's host is, or resolves to, an address the policy forbids.
    #[error("the host lies on an address that this fetch may not connect to")]
    AddressForbidden,
    /// The host did not send it: what had to be done first failed.
    #[error("the request was not sent")]
    NotSent,
}

/// What came back for a [`Fetch`], reduced to what the core reads.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    content_type: Option<String>,
    www_authenticate: Vec<Vec<u8>>,
    retry_after: Option<String>,
    body: Erased<Vec<u8>>,
}

impl Reply {
    /// A reply with a status and a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type: None,
            www_authenticate: Vec::new(),
            retry_after: None,
            body: Erased::new(body.into()),
        }
    }

    /// Adds a header field; those the core does not read are dropped. Call it once per field line received.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &[u8]) -> Self {
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = core::str::from_utf8(value).ok().map(ToString::to_string);
        } else if name.eq_ignore_ascii_case("www-authenticate") {
            self.www_authenticate.push(value.to_vec());
        } else if name.eq_ignore_ascii_case("retry-after") {
            self.retry_after = core::str::from_utf8(value).ok().map(ToString::to_string);
        }
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The `Content-Type` field.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Whether the media type is `application/json` or ends in `+json`, parameters aside.
    pub fn is_json(&self) -> bool {
        let Some(value) = &self.content_type else { return false };
        let essence = value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
        let Some((kind, subtype)) = essence.split_once('/') else { return false };
        kind.eq_ignore_ascii_case("application")
            && (subtype.eq_ignore_ascii_case("json")
                || subtype
                    .get(subtype.len().saturating_sub(5)..)
                    .is_some_and(|end| subtype.len() > 5 && end.eq_ignore_ascii_case("+json")))
    }

    /// The `WWW-Authenticate` field values, one per field line.
    pub fn www_authenticate(&self) -> impl Iterator<Item = &[u8]> {
        self.www_authenticate.iter().map(Vec::as_slice)
    }

    /// The `Retry-After` field in seconds; a date is not read.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after.as_ref()?.trim().parse().ok().map(Duration::from_secs)
    }

    /// The body. It may hold tokens.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The head of a request that reached a server role: method, target and the fields the core reads.
#[derive(Clone)]
pub struct RequestHead {
    method: String,
    path: String,
    query: Option<String>,
    host: Vec<Vec<u8>>,
    origin: Vec<Vec<u8>>,
    content_type: Vec<Vec<u8>>,
    /// Shared with the token that is read from one.
    authorization: Vec<Arc<Erased<Vec<u8>>>>,
}

impl RequestHead {
    /// A head from the method and the request target in origin form (`/path?query`), exactly as received.
    pub fn new(method: impl Into<String>, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_string())),
            None => (target, None),
        };
        Self {
            method: method.into(),
            path: path.to_string(),
            query,
            host: Vec::new(),
            origin: Vec::new(),
            content_type: Vec::new(),
            authorization: Vec::new(),
        }
    }

    /// Adds a header field; those the core does not read are dropped. Call it once per field line received.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &[u8]) -> Self {
        let fields = [
            ("host", &mut self.host),
            ("origin", &mut self.origin),
            ("content-type", &mut self.content_type),
        ];
        for (field, values) in fields {
            if name.eq_ignore_ascii_case(field) {
                values.push(value.to_vec());
            }
        }
        if name.eq_ignore_ascii_case("authorization") {
            self.authorization.push(Arc::new(Erased::new(value.to_vec())));
        }
        self
    }

    /// The method, as received.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, as received: percent-escapes and dot segments are untouched.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The `Host` fields.
    pub fn host(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.host.iter().map(Vec::as_slice)
    }

    /// The `Origin` fields.
    pub fn origin(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.origin.iter().map(Vec::as_slice)
    }

    /// The `Content-Type` fields.
    pub fn content_type(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.content_type.iter().map(Vec::as_slice)
    }

    /// The `Authorization` fields. Secret.
    pub fn authorization(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.authorization.iter().map(|value| value.as_slice())
    }

    /// The same, to be kept.
    pub(crate) fn shared_authorization(&self) -> impl ExactSizeIterator<Item = &Arc<Erased<Vec<u8>>>> {
        self.authorization.iter()
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query.as_ref().map(|_| "redacted"))
            .field("authorization", &self.authorization.len())
            .finish_non_exhaustive()
    }
}

/// An answer of a server role, complete: status, fields and body.
#[must_use = "the peer waits for this answer"]
pub struct Respond {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: SecretBytes,
}

impl Respond {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: SecretBytes::new(Vec::new()) }
    }

    pub(crate) fn json(status: u16, body: Vec<u8>) -> Self {
        let mut headers = Vec::with_capacity(4);
        headers.push(("content-type", Cow::Borrowed("application/json")));
        Self { status, headers, body: SecretBytes::new(body) }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = SecretBytes::new(body);
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header fields, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_ref())
    }

    /// The body. It may hold tokens, for the peer that asked only.
    pub fn body(&self) -> &[u8] {
        self.body.expose()
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond")
            .field("status", &self.status)
            .field("headers", &self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            .field("body", &self.body)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString as _;

    use super::{Fetch, FetchPolicy, FetchPurpose, Reply, RequestHead, Respond};
    use crate::message::arbitrary::CANARY;
    use crate::message::exchange::AddressPolicy;

    #[test]
    fn a_reply_is_json_only_where_it_says_so() {
        // RFC 6838 section 4.2.8, RFC 6839 section 3.1
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jwk-set+json", true),
            (" application/json ;a=b", true),
            ("application/+json", false),
            ("application/json-seq", false),
            ("application/jsonp", false),
            ("application/x-json-stream", false),
            ("application/jwt", false),
            ("text/json", false),
            ("text/html; a=application/json", false),
            ("json", false),
            ("", false),
        ] {
            let reply = Reply::new(200, "{}").with_header("Content-Type", value.as_bytes());
            assert_eq!(reply.is_json(), json, "{value}");
        }
        assert!(!Reply::new(200, "{}").is_json());
        assert!(!Reply::new(200, "{}").with_header("content-type", b"application/json\xff").is_json());
    }

    #[test]
    fn no_message_shows_what_it_carries() {
        // I-G7, MCP-AUTH-040
        let policy = FetchPolicy::new(AddressPolicy::Public, 100);
        let form = Fetch::post_form(
            FetchPurpose::CodeExchange,
            "https://as.example/token",
            format!("code={CANARY}"),
            Some(CANARY.to_string().into()),
            policy,
        );
        let json = Fetch::post_json(
            FetchPurpose::Registration,
            "https://as.example/register",
            CANARY.into(),
            Some(CANARY.to_string().into()),
            policy,
        );
        let reply = Reply::new(200, CANARY).with_header("www-authenticate", CANARY.as_bytes());
        let head = RequestHead::new("GET", &format!("/mcp?access_token={CANARY}"))
            .with_header("authorization", CANARY.as_bytes());
        let respond = Respond::json(200, CANARY.into()).with_header("location", CANARY);
        for shown in [
            format!("{form:?}"),
            format!("{json:?}"),
            format!("{reply:?}"),
            format!("{head:?}"),
            format!("{respond:?}"),
        ] {
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }
}
