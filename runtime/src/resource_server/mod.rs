//! The resource server as a tower layer: what passes it is authorized, and nothing behind it ever sees a token.
//!
//! ```text
//! request ─▶ host, origin ─▶ admit ─▶ recall, or verify (─▶ keys, introspect) ─▶ body, if scopes need it ─▶ authorize ─▶ inner service
//!                  │           │                     │                                │                       │
//!                  └───────────┴───────────────────── Denial ─────────────────────────┴───────────────────────┘
//! ```
//!
//! The layer also answers for the RFC 9728 document and for pre-flight requests, which need no token. The inner service
//! finds [`Authorized`] in the request's extensions ([`Caller`] takes it from there); the `Authorization` field is gone
//! (MCP-AUTH-079).
//!
//! ```no_run
//! use axum::{Extension, Router, routing::post};
//! use mcp_authz::resource_server::{Authorized, ResourceServer};
//! use mcp_authz_tokio::client::fetch::Fetcher;
//! use mcp_authz_tokio::resource_server::{McpScopes, ResourceServerLayer};
//!
//! # fn build(
//! #     server: ResourceServer, fetcher: Fetcher, scopes: McpScopes,
//! # ) -> Result<Router, mcp_authz::resource_server::InvalidConfiguration> {
//! let layer = ResourceServerLayer::new(server, fetcher, scopes)?;
//! let router = Router::new()
//!     .route("/mcp", post(|Extension(who): Extension<Authorized>| async move { who.subject().to_owned() }))
//!     .fallback(|| async { http::StatusCode::NOT_FOUND })
//!     .layer(layer);
//! # Ok(router)
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use mcp_authz::identifier::Issuer;
use mcp_authz::jose::KeySet;
use mcp_authz::message::exchange::RequestHead;
use mcp_authz::resource_server::{
    Authorized, Denial, InvalidConfiguration, Recalled, RequiredScopes, ResourceServer, TokenCache,
    VerificationOutcome, VerifiedToken,
};
use tower::{Layer, Service};

use crate::client::fetch::Fetcher;
use crate::clock::{Clock, SystemClock};
use crate::core_time::CoreTime;
use crate::http_io::{read_body, request_head, response};

mod answer;
mod caller;
mod counts;
mod keys;
mod one_reading;
mod refresh;
mod scopes;

use answer::{problem, unread};
pub use caller::Caller;
use counts::Counter;
pub use counts::ResourceCounts;
use keys::KeyRefresh;
pub use keys::KeySource;
pub use scopes::{McpScopes, OperationScopes, RouteScopes, UnreadableOperation, method_has_a_body};

/// Where the document of a resource without a path lies.
const ROOT_DOCUMENT: &str = "/.well-known/oauth-protected-resource";

/// What happens at the resource server, for a log or a demonstration. Nothing in it holds a token.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResourceEvent<'a> {
    /// The metadata document was asked for.
    MetadataServed,
    /// This issuer is asked about a token.
    Introspecting(&'a Issuer),
    /// An issuer's keys are fetched: for the first time, in time, or because a token names one that is not known.
    FetchingKeys(&'a Issuer),
    /// The request goes on to the inner service.
    Authorized(&'a Authorized),
    /// The request was refused.
    Denied(&'a Denial),
}

type Observer = Arc<dyn Fn(ResourceEvent<'_>) + Send + Sync>;

/// Wraps a service so that only authorized requests reach it. Cheap to clone.
#[derive(Clone)]
pub struct ResourceServerLayer {
    shared: Arc<Shared>,
}

/// One resource: its configuration, what its operations need, and the tokens that are known there.
struct Resource {
    server: RwLock<ResourceServer>,
    scopes: Box<dyn OperationScopes>,
    tokens: Mutex<TokenCache>,
}

impl Resource {
    fn new(server: ResourceServer, scopes: impl OperationScopes) -> Self {
        let tokens = Mutex::new(TokenCache::default());
        Self { server: RwLock::new(server), scopes: Box::new(scopes), tokens }
    }

    fn server(&self) -> ResourceServer {
        // A writer only ever stores a whole value, so a poisoned lock still holds one.
        self.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(
        &self,
        change: impl FnOnce(ResourceServer) -> Result<ResourceServer, InvalidConfiguration>,
    ) -> Result<(), InvalidConfiguration> {
        let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
        *server = change(server.clone())?;
        Ok(())
    }

    fn with_tokens<T>(&self, call: impl FnOnce(&mut TokenCache) -> T) -> T {
        call(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Shared {
    /// At least one.
    first: Resource,
    others: Vec<Resource>,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    core: CoreTime,
    keys: Vec<KeyRefresh>,
    /// The second at which the schedules of the keys are looked at next.
    key_check: AtomicI64,
    /// How often fetched keys were put in force.
    key_changes: AtomicU64,
    remembered_tokens: Option<usize>,
    body_limit: usize,
    observer: Option<Observer>,
    counter: Counter,
}

/// Collects what a [`ResourceServerLayer`] is made of besides its necessary parts.
pub struct ResourceServerLayerBuilder(Shared);

impl ResourceServerLayer {
    /// A layer over that configuration; `scopes` says what each operation needs.
    ///
    /// # Errors
    /// [`InvalidConfiguration::KeysNowhere`] where an issuer's keys are to be fetched: a [`KeySource`] says where they are.
    pub fn new(
        server: ResourceServer,
        fetcher: Fetcher,
        scopes: impl OperationScopes,
    ) -> Result<Self, InvalidConfiguration> {
        Self::builder(server, fetcher, scopes).build()
    }

    /// A layer with further parts.
    pub fn builder(
        server: ResourceServer,
        fetcher: Fetcher,
        scopes: impl OperationScopes,
    ) -> ResourceServerLayerBuilder {
        ResourceServerLayerBuilder(Shared {
            first: Resource::new(server, scopes),
            others: Vec::new(),
            fetcher,
            clock: Arc::new(SystemClock),
            core: CoreTime::default(),
            keys: Vec::new(),
            key_check: AtomicI64::new(0),
            key_changes: AtomicU64::new(0),
            remembered_tokens: None,
            body_limit: 4 * 1024 * 1024,
            observer: None,
            counter: Counter::default(),
        })
    }

    /// The configuration in force; of several resources, the first.
    pub fn server(&self) -> ResourceServer {
        self.shared.first.server()
    }

    /// Puts other keys of an issuer in force, in place of those there are (I-A4), at every resource that trusts it.
    ///
    /// # Errors
    /// [`InvalidConfiguration::UnknownIssuer`] when that issuer is configured with keys nowhere.
    pub fn replace_keys(&self, issuer: &Issuer, keys: &KeySet) -> Result<(), InvalidConfiguration> {
        let changed = self
            .shared
            .resources()
            .filter(|resource| {
                resource.change(|server| server.with_replaced_keys(issuer, keys.clone())).is_ok()
            })
            .count();
        if changed == 0 { Err(InvalidConfiguration::UnknownIssuer) } else { Ok(()) }
    }

    /// The time spent in the core.
    pub fn core_time(&self) -> &CoreTime {
        &self.shared.core
    }

    /// How many requests passed and how many did not, by reason.
    pub fn counts(&self) -> ResourceCounts {
        self.shared.counter.snapshot()
    }
}

impl ResourceServerLayerBuilder {
    /// Also protects another resource behind the same service. A request belongs to the resource whose path its own
    /// path equals or continues by whole segments, the longest first; to one that belongs to none the answer is 404.
    /// What routes behind the layer must route by the same path.
    #[must_use]
    pub fn and(mut self, server: ResourceServer, scopes: impl OperationScopes) -> Self {
        self.0.others.push(Resource::new(server, scopes));
        self
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.0.clock = clock;
        self
    }

    /// Counts the time spent in the core there.
    #[must_use]
    pub fn core_time(mut self, core: CoreTime) -> Self {
        self.0.core = core;
        self
    }

    /// Keeps this issuer's keys fresh: fetches them when they are due, and when a token names one that is not known.
    #[must_use]
    pub fn refresh_keys(mut self, source: KeySource) -> Self {
        self.0.keys.push(KeyRefresh::new(source));
        self
    }

    /// Remembers up to so many verified tokens for each resource; none with 0.
    #[must_use]
    pub fn remembered_tokens(mut self, most: usize) -> Self {
        self.0.remembered_tokens = Some(most);
        self
    }

    /// Reads bodies up to so many bytes where scopes depend on them; 4 MiB without this call.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.0.body_limit = bytes;
        self
    }

    /// Calls this for everything that happens. It must be quick: the request waits.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(ResourceEvent<'_>) + Send + Sync + 'static) -> Self {
        self.0.observer = Some(Arc::new(observer));
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`InvalidConfiguration::KeysNowhere`] when an issuer's keys are to be fetched and no [`KeySource`] is theirs,
    /// [`InvalidConfiguration::UnknownIssuer`] when one is of an issuer whose keys no resource uses,
    /// [`InvalidConfiguration::Issuers`] when two are of one issuer.
    pub fn build(mut self) -> Result<ResourceServerLayer, InvalidConfiguration> {
        self.0.check_key_sources()?;
        // I-A14: for each resource, whatever was called first.
        if let Some(most) = self.0.remembered_tokens {
            for resource in std::iter::once(&mut self.0.first).chain(&mut self.0.others) {
                resource.tokens = Mutex::new(TokenCache::new(most));
            }
        }
        Ok(ResourceServerLayer { shared: Arc::new(self.0) })
    }
}

impl fmt::Debug for ResourceServerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceServerLayer").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ResourceServerLayerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResourceServerLayerBuilder")
    }
}

impl<S> Layer<S> for ResourceServerLayer {
    type Service = ResourceServerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ResourceServerService { shared: Arc::clone(&self.shared), inner }
    }
}

/// A service that only authorized requests reach.
#[derive(Clone)]
pub struct ResourceServerService<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S: fmt::Debug> fmt::Debug for ResourceServerService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceServerService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> Service<Request<Body>> for ResourceServerService<S>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let (readable, passed) = shared.pass(request).await;
            let mut answer = match passed {
                Ok(request) => inner.call(request).await?.into_response(),
                Err(answer) => answer,
            };
            answer::cross_origin(answer.headers_mut(), &readable);
            Ok(answer)
        })
    }
}

/// What a page may read of the answer, as fields.
type Readable = Vec<(&'static str, String)>;

impl Shared {
    fn resources(&self) -> impl Iterator<Item = &Resource> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn observe(&self, event: ResourceEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    fn denied(&self, denial: &Denial) -> Response {
        tracing::debug!(reason = denial.reason().label(), "request refused");
        self.counter.denied(denial.reason());
        self.observe(ResourceEvent::Denied(denial));
        response(&denial.respond())
    }

    /// The resource a path belongs to: by whole segments, the longest first. A path that two parsers could read in two
    /// ways belongs to none (I-A11).
    fn resource_of(&self, path: &str) -> Option<&Resource> {
        if self.others.is_empty() {
            return Some(&self.first);
        }
        let covering = self.resources().filter_map(|resource| {
            let server = resource.server();
            let url = [server.resource().origin().as_str(), path].concat();
            server.resource().covers(&url).then(|| (server.resource().path().len(), resource))
        });
        covering.max_by_key(|(length, _)| *length).map(|(_, resource)| resource)
    }

    /// The resource whose metadata document lies at that path. Where there is one resource only, its document lies at
    /// the root as well, for clients that look there alone.
    fn described_at(&self, path: &str) -> Option<ResourceServer> {
        let mut servers = self.resources().map(Resource::server);
        servers
            .find(|server| server.metadata_path() == path)
            .or_else(|| (path == ROOT_DOCUMENT && self.others.is_empty()).then(|| self.first.server()))
    }

    /// Lets a request pass, without its token, or answers it; and says what a page may read of the answer.
    async fn pass(self: &Arc<Self>, request: Request<Body>) -> (Readable, Result<Request<Body>, Response>) {
        let (parts, body) = request.into_parts();
        let head = addressed_head(&parts);
        let path = parts.uri.path();
        if let Some(server) = self.described_at(path) {
            return (server.cross_origin(&head), Err(self.metadata(&server, &parts, &head)));
        }
        let Some(resource) = self.resource_of(path) else {
            return (Vec::new(), Err(problem(StatusCode::NOT_FOUND, "no protected resource has this path")));
        };
        let server = resource.server();
        let readable = server.cross_origin(&head);
        match server.preflight(&head) {
            Some(Ok(answer)) => (readable, Err(response(&answer))),
            Some(Err(denial)) => (readable, Err(self.denied(&denial))),
            None => (readable, self.guard(resource, &head, parts, body).await),
        }
    }

    async fn guard(
        self: &Arc<Self>,
        resource: &Resource,
        head: &RequestHead,
        mut parts: Parts,
        body: Body,
    ) -> Result<Request<Body>, Response> {
        self.refresh_due_keys();
        let required = resource.scopes.of_head(&parts);
        let seen = self.key_changes.load(Ordering::Acquire);
        let verified = match self.verify(resource, head, &required).await {
            // Once, if the issuer may have new keys.
            Err(denial) if self.has_new_keys(&denial, seen).await => {
                self.verify(resource, head, &required).await
            }
            verified => verified,
        };
        let verified = verified.map_err(|denial| self.denied(&denial))?;
        // A body is read only for who has a valid token.
        let (required, body) = self.required(resource, head, &parts, required, body).await?;
        let authorized =
            self.core.measure(|| verified.authorize(&required)).map_err(|denial| self.denied(&denial))?;
        self.counter.count(|counts| &mut counts.authorized);
        self.observe(ResourceEvent::Authorized(&authorized));
        // MCP-AUTH-079, I-A7: the token ends here.
        parts.headers.remove(AUTHORIZATION);
        parts.extensions.insert(authorized);
        Ok(Request::from_parts(parts, body))
    }

    /// The metadata document (RFC 9728 section 3).
    fn metadata(&self, server: &ResourceServer, parts: &Parts, head: &RequestHead) -> Response {
        match server.preflight(head) {
            Some(Ok(answer)) => return response(&answer),
            Some(Err(denial)) => return self.denied(&denial),
            None => {}
        }
        // I-A11: the document is for those who ask this server.
        if let Err(denial) = server.addressed(head) {
            return self.denied(&denial);
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "the document is read with GET");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        self.observe(ResourceEvent::MetadataServed);
        response(&self.core.measure(|| server.metadata_response()))
    }

    async fn verify(
        &self,
        resource: &Resource,
        head: &RequestHead,
        required: &RequiredScopes,
    ) -> Result<VerifiedToken, Denial> {
        let server = resource.server();
        let now = self.clock.now();
        // The digest is computed before the lock is taken.
        let presented = self.core.measure(|| {
            server.admit(head, required).map(|mut token| {
                token.digest();
                token
            })
        })?;
        let presented = match resource.with_tokens(|tokens| tokens.recall(presented, now)) {
            Recalled::Verified(verified) => {
                self.counter.count(|counts| &mut counts.recalled);
                return Ok(verified);
            }
            Recalled::Denied(denial) => return Err(denial),
            Recalled::Unknown(presented) => presented,
        };
        let verified = match self.core.measure(|| presented.verify(now)) {
            VerificationOutcome::Verified(verified) => Ok(verified),
            VerificationOutcome::Denied(denial) => Err(denial),
            VerificationOutcome::Introspect(step) => {
                let (fetch, waiting) = step.into_parts();
                self.counter.count(|counts| &mut counts.introspections);
                self.observe(ResourceEvent::Introspecting(waiting.issuer()));
                let reply = self.fetcher.fetch(&fetch).await;
                let now = self.clock.now();
                self.core.measure(|| waiting.receive(reply, now))
            }
        };
        let now = self.clock.now();
        resource.with_tokens(|tokens| match &verified {
            Ok(verified) => tokens.keep(verified, now),
            Err(denial) => tokens.keep_denial(denial, now),
        });
        verified
    }

    /// The scopes of the operation, and the body as it was read for them.
    async fn required(
        &self,
        resource: &Resource,
        head: &RequestHead,
        parts: &Parts,
        required: RequiredScopes,
        body: Body,
    ) -> Result<(RequiredScopes, Body), Response> {
        let (decides, is_form) = (resource.scopes.reads_body(parts), one_reading::is_form(&parts.headers));
        if !decides && !is_form {
            return Ok((required, body));
        }
        let bytes: Bytes = read_body(body, self.body_limit).await.map_err(unread)?;
        if is_form {
            // MCP-AUTH-092: a token in the form besides the one in the field.
            let admitted = resource.server().admit_form(head, &bytes, &required);
            admitted.map(drop).map_err(|denial| self.denied(&denial))?;
        }
        if !decides {
            return Ok((required, Body::from(bytes)));
        }
        // D46: the bytes that decide are the bytes that go on.
        match resource.scopes.of_body(parts, &bytes) {
            Ok(required) => Ok((required, Body::from(bytes))),
            Err(unreadable) => Err(problem(StatusCode::BAD_REQUEST, &unreadable.to_string())),
        }
    }
}

/// The head of a request with the host it is addressed to, wherever that stands: HTTP/2 has it in the target.
fn addressed_head(parts: &Parts) -> RequestHead {
    let head = request_head(parts);
    match parts.uri.authority() {
        Some(authority) if head.host().all(|host| host != authority.as_str().as_bytes()) => {
            head.with_header("host", authority.as_str().as_bytes())
        }
        _ => head,
    }
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests;
