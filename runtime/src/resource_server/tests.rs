//! The layer around a handler: what reaches it, and what the peer is answered otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId, ScopeSet};
use mcp_authz::jose::{Algorithm, KeyImporter as _, KeySet, signing_input};
use mcp_authz::resource_server::{Authorized, ResourceServer, TrustedIssuer};
use mcp_authz::syntax::base64url;
use tower::{Layer as _, ServiceExt as _};

use super::{KeySource, McpScopes, ResourceEvent, ResourceServerLayer};
use crate::client::fetch::Fetcher;
use crate::clock::{Clock as _, SystemClock};
use crate::keys::{AwsLcImporter, SigningKey};

const ISSUER: &str = "http://127.0.0.1:1";
const RESOURCE: &str = "http://127.0.0.1:2/mcp";
const HOST: &str = "127.0.0.1:2";

fn keys_of(key: &SigningKey) -> KeySet {
    let kid = key.id().kid().to_owned();
    KeySet::new([(Some(kid), AwsLcImporter.import(key.jwk()).unwrap())]).unwrap()
}

fn token(key: &SigningKey, audience: &str, scope: &str) -> String {
    let now = SystemClock.now().unix_timestamp();
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"alice","aud":"{audience}","client_id":"c1","iat":{now},"exp":{},"jti":"1","scope":"{scope}"}}"#,
        now + 300
    );
    let input = signing_input(&key.id(), "at+jwt", claims.as_bytes());
    let pair = Ed25519KeyPair::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
    let signature = base64url::encode(pair.sign(&input).as_ref());
    format!("{}.{signature}", String::from_utf8(input).unwrap())
}

fn scopes() -> McpScopes {
    let set = |text| ScopeSet::parse(text).unwrap();
    McpScopes::new(set("notes:read")).unwrap().tool("write_note", set("notes:write")).unwrap()
}

fn server(key: &SigningKey) -> ResourceServer {
    let issuer = TrustedIssuer::with_keys(Issuer::new(ISSUER).unwrap(), keys_of(key));
    ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), [issuer]).unwrap()
}

/// Sends one request through the layer to a handler that says whom it saw and what else.
async fn through(layer: &ResourceServerLayer, request: Request<Body>) -> (StatusCode, String, Response<()>) {
    let handler = tower::service_fn(async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let who = parts.extensions.get::<Authorized>().map(|who| who.subject().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        let seen = format!("{who:?} {:?} {}", parts.headers, String::from_utf8_lossy(&body));
        Ok::<_, Infallible>(Response::new(Body::from(seen)))
    });
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8_lossy(&body).into_owned(), Response::from_parts(parts, ()))
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const WRITE: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"write_note"}}"#;

fn call(token: Option<&str>, body: &'static str) -> Request<Body> {
    let mut request = Request::post("/mcp").header("host", HOST).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::from(body)).unwrap()
}

fn layer(key: &SigningKey) -> ResourceServerLayer {
    ResourceServerLayer::new(server(key), Fetcher::new().unwrap(), scopes())
}

// MCP-AUTH-079, I-A7
#[tokio::test]
async fn the_handler_sees_the_person_and_the_body_and_no_token() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let token = token(&key, RESOURCE, "notes:read");
    let (status, seen, _) = through(&layer(&key), call(Some(&token), LIST)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(seen.starts_with("Some(\"alice\")") && seen.ends_with(LIST), "{seen}");
    assert!(!seen.to_lowercase().contains("bearer") && !seen.contains(&token), "{seen}");
}

// MCP-AUTH-076, MCP-DISC-005
#[tokio::test]
async fn without_a_token_the_challenge_says_where_and_for_what() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (status, _, response) = through(&layer(&key), call(None, LIST)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.contains("http://127.0.0.1:2/.well-known/oauth-protected-resource/mcp")
            && challenge.contains("notes:read"),
        "{challenge}"
    );
}

// I-A1, I-A13
#[tokio::test]
async fn other_audiences_and_missing_scopes_do_not_pass() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let layer = layer(&key);
    let foreign = token(&key, "http://127.0.0.1:3/mcp", "notes:read notes:write");
    assert_eq!(through(&layer, call(Some(&foreign), LIST)).await.0, StatusCode::UNAUTHORIZED);
    let narrow = token(&key, RESOURCE, "notes:read");
    let (status, _, response) = through(&layer, call(Some(&narrow), WRITE)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("notes:read notes:write"));
    let wide = token(&key, RESOURCE, "notes:read notes:write");
    assert_eq!(through(&layer, call(Some(&wide), WRITE)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_body_is_not_read_for_a_stranger_and_bounded_for_everyone() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let fetcher = Fetcher::new().unwrap();
    let layer = ResourceServerLayer::builder(server(&key), fetcher, scopes()).body_limit(60).build();
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&polled);
    let body = Body::new(http_body_util::StreamBody::new(futures_stream(counter)));
    let request = Request::post("/mcp").header("host", HOST).body(body).unwrap();
    assert_eq!(through(&layer, request).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(polled.load(Ordering::SeqCst), 0);
    let token = token(&key, RESOURCE, "notes:read notes:write");
    assert_eq!(through(&layer, call(Some(&token), WRITE)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(through(&layer, call(Some(&token), LIST)).await.0, StatusCode::OK);
    assert_eq!(through(&layer, call(Some(&token), "[]")).await.0, StatusCode::BAD_REQUEST);
}

/// An empty body that counts whether anybody reads it.
fn futures_stream(
    counter: Arc<AtomicUsize>,
) -> impl tokio_stream::Stream<Item = Result<http_body::Frame<bytes::Bytes>, Infallible>> {
    tokio_stream::iter(std::iter::from_fn(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        None
    }))
}

// RFC9728-3.2-1
#[tokio::test]
async fn the_document_needs_no_token() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let path = "/.well-known/oauth-protected-resource/mcp";
    let request = Request::get(path).header("host", HOST).body(Body::empty()).unwrap();
    let (status, body, response) = through(&layer(&key), request).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(body.contains(RESOURCE) && body.contains(ISSUER));
    let request = Request::post(path).header("host", HOST).body(Body::empty()).unwrap();
    assert_eq!(through(&layer(&key), request).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

// D42
#[tokio::test]
async fn unknown_keys_are_fetched_again_but_not_for_every_token() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (old, new) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let document = mcp_authz::jose::JwkSet::new([new.jwk().clone()]).unwrap().render();
    let served = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&served);
    let router = axum::Router::new().route(
        "/jwks",
        axum::routing::get(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::ready(([("content-type", "application/json")], document.clone()))
        }),
    );
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let uri = Endpoint::new(format!("http://127.0.0.1:{port}/jwks")).unwrap();
    let source = KeySource::new(Issuer::new(ISSUER).unwrap(), uri, Arc::new(AwsLcImporter));
    let events = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&events);
    let layer = ResourceServerLayer::builder(server(&old), Fetcher::new().unwrap(), scopes())
        .refresh_keys(source)
        .observer(move |event| {
            if matches!(event, ResourceEvent::FetchingKeys(_)) {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        })
        .build();
    assert_eq!(
        through(&layer, call(Some(&token(&new, RESOURCE, "notes:read")), LIST)).await.0,
        StatusCode::OK
    );
    let unknown = SigningKey::generate(Algorithm::EdDsa).unwrap();
    for _ in 0..3 {
        let forged = token(&unknown, RESOURCE, "notes:read");
        assert_eq!(through(&layer, call(Some(&forged), LIST)).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!((served.load(Ordering::SeqCst), events.load(Ordering::SeqCst)), (1, 1));
    task.abort();
}
