//! Between the core's HTTP shapes and those of the `http` crate.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mcp_authz::message::exchange::{RequestHead, Respond};

/// How long a peer may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The head of a request as the core reads it: target and fields exactly as received.
pub fn request_head(parts: &Parts) -> RequestHead {
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut head = RequestHead::new(parts.method.as_str(), target);
    for (name, value) in &parts.headers {
        head = head.with_header(name.as_str(), value.as_bytes());
    }
    head
}

/// The core's answer as a response.
pub fn response(answer: &Respond) -> Response {
    let mut response = Response::new(Body::from(answer.body().to_vec()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers() {
        match HeaderValue::from_str(value) {
            Ok(value) => response.headers_mut().append(HeaderName::from_static(name), value),
            // A field that cannot be written must not be left out of a security answer.
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    response
}

/// Reads a body up to a limit and within a time; the error is the answer.
pub(crate) async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, StatusCode>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
