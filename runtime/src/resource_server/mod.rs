//! The resource server as a tower layer: what passes it is authorized, and nothing behind it ever sees a token.
//!
//! ```text
//! request ─▶ admit ─▶ verify (─▶ introspect) ─▶ read the body, if scopes depend on it ─▶ authorize ─▶ inner service
//!              │         │                              │                                   │
//!              └─────────┴────────── Denial ────────────┴───────────────────────────────────┘
//! ```
//!
//! The layer also answers for the RFC 9728 document, which needs no token. The inner service finds
//! [`Authorized`] in the request's extensions; the `Authorization` field is gone (MCP-AUTH-079).
//!
//! ```no_run
//! use axum::{Extension, Router, routing::post};
//! use mcp_authz::resource_server::{Authorized, ResourceServer};
//! use mcp_authz_tokio::client::fetch::Fetcher;
//! use mcp_authz_tokio::resource_server::{McpScopes, ResourceServerLayer};
//!
//! # fn build(server: ResourceServer, fetcher: Fetcher, scopes: McpScopes) -> Router {
//! let layer = ResourceServerLayer::new(server, fetcher, scopes);
//! Router::new()
//!     .route("/mcp", post(|Extension(who): Extension<Authorized>| async move { who.subject().to_owned() }))
//!     .fallback(|| async { http::StatusCode::NOT_FOUND })
//!     .layer(layer)
//! # }
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use mcp_authz::identifier::Issuer;
use mcp_authz::jose::KeySet;
use mcp_authz::message::exchange::Fetch;
use mcp_authz::resource_server::{
    Authorized, Denial, DenialReason, InvalidConfiguration, RequiredScopes, ResourceServer,
    VerificationOutcome, VerifiedToken,
};
use tower::{Layer, Service};

use crate::client::fetch::Fetcher;
use crate::clock::{Clock, SystemClock};
use crate::core_time::CoreTime;
use crate::http_io::{read_body, request_head, response};

mod keys;
mod scopes;

use keys::KeyRefresh;
pub use keys::KeySource;
pub use scopes::{McpScopes, OperationScopes, UnreadableOperation};

/// What happens at the resource server, for a log or a demonstration. Nothing in it holds a token.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResourceEvent<'a> {
    /// The metadata document was asked for.
    MetadataServed,
    /// The issuer is asked about a token.
    Introspecting(&'a Fetch),
    /// An issuer's keys are fetched again, because a token names one that is not known.
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

struct Shared {
    server: RwLock<ResourceServer>,
    fetcher: Fetcher,
    scopes: Box<dyn OperationScopes>,
    clock: Arc<dyn Clock>,
    core: CoreTime,
    keys: Vec<KeyRefresh>,
    body_limit: usize,
    observer: Option<Observer>,
}

/// Collects what a [`ResourceServerLayer`] is made of besides its necessary parts.
pub struct ResourceServerLayerBuilder(Shared);

impl ResourceServerLayer {
    /// A layer over that configuration; `scopes` says what each operation needs.
    pub fn new(server: ResourceServer, fetcher: Fetcher, scopes: impl OperationScopes) -> Self {
        Self::builder(server, fetcher, scopes).build()
    }

    /// A layer with further parts.
    pub fn builder(
        server: ResourceServer,
        fetcher: Fetcher,
        scopes: impl OperationScopes,
    ) -> ResourceServerLayerBuilder {
        ResourceServerLayerBuilder(Shared {
            server: RwLock::new(server),
            fetcher,
            scopes: Box::new(scopes),
            clock: Arc::new(SystemClock),
            core: CoreTime::default(),
            keys: Vec::new(),
            body_limit: 1024 * 1024,
            observer: None,
        })
    }

    /// The configuration in force.
    pub fn server(&self) -> ResourceServer {
        self.shared.server()
    }

    /// Puts other keys of an issuer in force, in place of those there are (I-A4).
    ///
    /// # Errors
    /// [`InvalidConfiguration::UnknownIssuer`] when that issuer is not configured with keys.
    pub fn replace_keys(&self, issuer: &Issuer, keys: KeySet) -> Result<(), InvalidConfiguration> {
        self.shared.replace_keys(issuer, keys)
    }

    /// The time spent in the core.
    pub fn core_time(&self) -> &CoreTime {
        &self.shared.core
    }
}

impl ResourceServerLayerBuilder {
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

    /// Fetches this issuer's keys again when a token names one that is not known.
    #[must_use]
    pub fn refresh_keys(mut self, source: KeySource) -> Self {
        self.0.keys.push(KeyRefresh::new(source));
        self
    }

    /// Reads bodies up to so many bytes where scopes depend on them; 1 MiB without this call.
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
    pub fn build(self) -> ResourceServerLayer {
        ResourceServerLayer { shared: Arc::new(self.0) }
    }
}

impl fmt::Debug for ResourceServerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceServerLayer").field("server", &self.shared.server()).finish_non_exhaustive()
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
            match shared.guard(request).await {
                Ok(request) => Ok(inner.call(request).await?.into_response()),
                Err(answer) => Ok(answer),
            }
        })
    }
}

impl Shared {
    fn server(&self) -> ResourceServer {
        // A writer only ever stores a whole value, so a poisoned lock still holds one.
        self.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace_keys(&self, issuer: &Issuer, keys: KeySet) -> Result<(), InvalidConfiguration> {
        let mut server = self.server.write().unwrap_or_else(PoisonError::into_inner);
        *server = server.clone().with_replaced_keys(issuer, keys)?;
        Ok(())
    }

    fn observe(&self, event: ResourceEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    fn denied(&self, denial: &Denial) -> Response {
        tracing::debug!(reason = %denial.reason(), "request refused");
        self.observe(ResourceEvent::Denied(denial));
        response(&denial.respond())
    }

    /// Lets a request pass, without its token, or answers it.
    async fn guard(&self, request: Request<Body>) -> Result<Request<Body>, Response> {
        let (mut parts, body) = request.into_parts();
        let server = self.server();
        if parts.uri.path() == server.metadata_path() {
            return Err(self.metadata(&server, &parts));
        }
        let required = self.scopes.of_head(&parts);
        let verified = match self.verify(&parts, &required).await {
            // Once, if the issuer may have new keys.
            Err(denial) if self.fetch_unknown_key(&denial).await => self.verify(&parts, &required).await,
            verified => verified,
        };
        let verified = verified.map_err(|denial| self.denied(&denial))?;
        // A body is read only for who has a valid token.
        let (required, body) = self.required(&parts, required, body).await?;
        let authorized =
            self.core.measure(|| verified.authorize(&required)).map_err(|denial| self.denied(&denial))?;
        self.observe(ResourceEvent::Authorized(&authorized));
        // MCP-AUTH-079, I-A7: the token ends here.
        parts.headers.remove(AUTHORIZATION);
        parts.extensions.insert(authorized);
        Ok(Request::from_parts(parts, body))
    }

    /// The metadata document (RFC 9728 section 3).
    fn metadata(&self, server: &ResourceServer, parts: &Parts) -> Response {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, HeaderValue::from_static("GET, HEAD"))])
                .into_response();
        }
        self.observe(ResourceEvent::MetadataServed);
        response(&self.core.measure(|| server.metadata_response()))
    }

    async fn verify(&self, parts: &Parts, required: &RequiredScopes) -> Result<VerifiedToken, Denial> {
        let head = request_head(parts);
        let server = self.server();
        let now = self.clock.now();
        let outcome = self.core.measure(|| server.admit(&head, required).map(|token| token.verify(now)))?;
        match outcome {
            VerificationOutcome::Verified(verified) => Ok(verified),
            VerificationOutcome::Denied(denial) => Err(denial),
            VerificationOutcome::Introspect(step) => {
                let (fetch, waiting) = step.into_parts();
                self.observe(ResourceEvent::Introspecting(&fetch));
                let reply = self.fetcher.fetch(&fetch).await;
                let now = self.clock.now();
                self.core.measure(|| waiting.receive(reply, now))
            }
        }
    }

    /// Whether the denial was for want of a key and the issuer's keys have just been fetched again.
    async fn fetch_unknown_key(&self, denial: &Denial) -> bool {
        let (DenialReason::UnknownKey, Some(issuer)) = (denial.reason(), denial.issuer()) else {
            return false;
        };
        let Some(refresh) = self.keys.iter().find(|refresh| refresh.issuer() == issuer) else { return false };
        if !refresh.may_fetch_unknown() {
            return false;
        }
        self.observe(ResourceEvent::FetchingKeys(issuer));
        match refresh.source().fetch(&self.fetcher).await {
            Ok(keys) => self.replace_keys(issuer, keys).is_ok(),
            Err(error) => {
                tracing::warn!(%error, "the keys of an issuer could not be fetched");
                false
            }
        }
    }

    /// The scopes of the operation, and the body as it was read for them.
    async fn required(
        &self,
        parts: &Parts,
        required: RequiredScopes,
        body: Body,
    ) -> Result<(RequiredScopes, Body), Response> {
        if !self.scopes.reads_body(parts) {
            return Ok((required, body));
        }
        let bytes: Bytes = read_body(body, self.body_limit).await.map_err(IntoResponse::into_response)?;
        // D46: the bytes that decide are the bytes that go on.
        match self.scopes.of_body(parts, &bytes) {
            Ok(required) => Ok((required, Body::from(bytes))),
            Err(UnreadableOperation) => Err(StatusCode::BAD_REQUEST.into_response()),
        }
    }
}

#[cfg(all(test, feature = "aws-lc-rs"))]
mod tests;
