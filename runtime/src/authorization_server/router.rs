//! Paths to endpoints, each run to its end whatever the peer does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tower_http::cors::{AllowOrigin, CorsLayer};

use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::jose::JwkSet;

use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::http_io::response;

impl AuthorizationServerHost {
    /// The router, to be served at the issuer's origin.
    pub fn router(self) -> Router {
        let base = self.base().to_owned();
        let path = |name: &str| format!("{base}{name}");
        let metadata = self.server.metadata_path();
        let clients = Router::new()
            .route(&metadata, get(Self::metadata))
            .route(&path("/jwks"), get(Self::key_set))
            .route(&path("/token"), any(Self::token))
            .route(&path("/revoke"), any(Self::revoke))
            .route(&path("/introspect"), any(Self::introspect))
            .route(&path("/par"), any(Self::push))
            .route(
                &path("/register"),
                post(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.register(request).await })
                }),
            )
            .route(
                &path("/register/{client_id}"),
                any(|State(host): State<Arc<Self>>, Path(client_id): Path<String>, request: Request| {
                    detached(async move { host.manage(&client_id, request).await })
                }),
            )
            .layer(self.cross_origin());
        // D45: never the pages for a person.
        let people = Router::new()
            .route(
                &path("/authorize"),
                get(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.authorize(request.into_parts().0).await })
                }),
            )
            .route(
                &path("/decision"),
                post(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.decision(request).await })
                }),
            )
            .route(
                &path("/grants"),
                get(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.grants(request.into_parts().0).await })
                })
                .post(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.end_grants(request).await })
                }),
            )
            .route(
                &path("/sign-in"),
                post(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.sign_in(request).await })
                }),
            )
            .route(
                &path("/sign-out"),
                post(|State(host): State<Arc<Self>>, request: Request| {
                    detached(async move { host.sign_out(request).await })
                }),
            )
            .route(
                &path("/sign-in/{provider}"),
                get(|State(host): State<Arc<Self>>, Path(provider): Path<String>, request: Request| {
                    detached(async move { host.returned(&provider, request.into_parts().0).await })
                }),
            );
        clients.merge(people).layer(map_response(later)).with_state(Arc::new(self))
    }

    /// Which pages' programs may read the answers for clients (D45): those of the configured origins, without credentials.
    fn cross_origin(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.origins.iter().map(|origin| origin.as_value().clone())))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("mcp-protocol-version")])
            .expose_headers([WWW_AUTHENTICATE, RETRY_AFTER])
            .max_age(Duration::from_secs(600))
    }

    async fn token(State(host): State<Arc<Self>>, request: Request) -> Response {
        detached(async move { host.called(request, AuthorizationServer::token).await }).await
    }

    async fn revoke(State(host): State<Arc<Self>>, request: Request) -> Response {
        detached(async move { host.called(request, AuthorizationServer::revoke).await }).await
    }

    async fn introspect(State(host): State<Arc<Self>>, request: Request) -> Response {
        detached(async move { host.called(request, AuthorizationServer::introspect).await }).await
    }

    async fn push(State(host): State<Arc<Self>>, request: Request) -> Response {
        detached(async move { host.called(request, AuthorizationServer::push).await }).await
    }

    /// The path below which the endpoints lie: the issuer's, without a slash at its end.
    pub(super) fn base(&self) -> &str {
        let issuer = self.server.issuer();
        let path = issuer.as_str().get(issuer.origin().as_str().len()..).unwrap_or_default();
        path.strip_suffix('/').unwrap_or(path)
    }

    async fn metadata(State(host): State<Arc<Self>>) -> Response {
        host.observe(AuthorizationEvent::MetadataServed);
        response(&host.core.measure(|| host.server.metadata_response()))
    }

    async fn key_set(State(host): State<Arc<Self>>) -> Response {
        host.observe(AuthorizationEvent::KeySetServed);
        let Ok(keys) = JwkSet::new(host.signer.public_keys()) else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let mut answer = Response::new(Body::from(keys.render()));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        answer
    }
}

/// When to come again where the server cannot answer now (RFC 9110 section 10.2.3): a store that has too much to do, or that
/// failed, has mostly recovered by then. An endpoint that knows better has said so.
async fn later(mut answer: Response) -> Response {
    if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().entry(RETRY_AFTER).or_insert(HeaderValue::from_static("1"));
    }
    answer
}

/// Runs the work in a task of its own: a peer that hangs up does not stop it half way (I-G5).
async fn detached(work: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(work).await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
