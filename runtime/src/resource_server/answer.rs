//! Answers of the layer itself, in the form of the core's: JSON with a message.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// An answer that says what was wrong. The message is ours and holds nothing of the request.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a status of reading a body means to the peer.
pub(super) fn unread(status: StatusCode) -> Response {
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is larger than this server reads",
        StatusCode::REQUEST_TIMEOUT => "the body did not arrive in time",
        _ => "the body could not be read",
    };
    problem(status, message)
}

/// D45: this layer alone says what pages may read; credentials are never among it.
pub(super) fn cross_origin(headers: &mut HeaderMap, fields: &[(&'static str, String)]) {
    let others: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in others {
        headers.remove(name);
    }
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        let said = headers.get_all(&name).iter().any(|there| there == value.as_str());
        if let (false, Ok(value)) = (said, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
}
