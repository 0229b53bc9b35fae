//! The person behind a request, as an axum extractor.

use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use mcp_authz::resource_server::Authorized;

use super::answer::problem;

/// Who a request is for. A handler that takes it cannot run without [`ResourceServerLayer`](super::ResourceServerLayer)
/// before it: then the answer is 500, and never a handler without a caller.
///
/// ```
/// use axum::{Router, routing::post};
/// use mcp_authz_tokio::resource_server::Caller;
///
/// let router: Router = Router::new().route("/mcp", post(|caller: Caller| async move { caller.subject().to_owned() }));
/// ```
#[derive(Debug, Clone)]
pub struct Caller(pub Authorized);

impl Deref for Caller {
    type Target = Authorized;

    fn deref(&self) -> &Authorized {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        parts.extensions.get::<Authorized>().cloned().map(Self).ok_or_else(|| {
            tracing::error!("a handler asks for its caller, and no resource server layer stands before it");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the server is not set up to know its callers")
        })
    }
}
