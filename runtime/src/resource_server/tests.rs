//! The layer around a handler: what reaches it, and what the peer is answered otherwise.

use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use mcp_authz::identifier::{ClientId, Endpoint, Issuer, Origin, ResourceId, ScopeSet};
use mcp_authz::jose::{Algorithm, KeyImporter as _, KeySet, signing_input};
use mcp_authz::message::exchange::AddressPolicy;
use mcp_authz::resource_server::{
    Authorized, DenialReason, Introspection, InvalidConfiguration, RequiredScopes, ResourceServer,
    TrustedIssuer,
};
use mcp_authz::secret::ClientSecret;
use mcp_authz::syntax::base64url;
use mcp_authz::time::OffsetDateTime;
use tower::{Layer as _, ServiceExt as _};

use super::{Caller, KeySource, McpScopes, ResourceEvent, ResourceServerLayer};
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
    token_at(key, audience, scope, SystemClock.now().unix_timestamp())
}

fn token_at(key: &SigningKey, audience: &str, scope: &str, now: i64) -> String {
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
    ResourceServerLayer::new(server(key), Fetcher::new().unwrap(), scopes()).unwrap()
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
    let layer = ResourceServerLayer::builder(server(&key), fetcher, scopes()).body_limit(60).build().unwrap();
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
    assert_eq!(response.headers()["vary"], "origin");
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
        .build()
        .unwrap();
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

fn set(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

/// A layer before two resources on one host.
fn two(key: &SigningKey) -> ResourceServerLayer {
    let of = |resource: &str| {
        let issuer = TrustedIssuer::with_keys(Issuer::new(ISSUER).unwrap(), keys_of(key));
        ResourceServer::new(ResourceId::new(resource).unwrap(), [issuer]).unwrap()
    };
    let scopes = |base| McpScopes::new(set(base)).unwrap();
    ResourceServerLayer::builder(of(RESOURCE), Fetcher::new().unwrap(), scopes("notes:read"))
        .and(of("http://127.0.0.1:2/mcp/admin"), scopes("admin"))
        .build()
        .unwrap()
}

fn call_at(path: &str, token: &str) -> Request<Body> {
    let request = Request::post(path).header("host", HOST).header("authorization", format!("Bearer {token}"));
    request.body(Body::from(LIST)).unwrap()
}

// I-A11
#[tokio::test]
async fn a_request_belongs_to_the_resource_of_its_path_and_to_no_other() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let layer = two(&key);
    let notes = token(&key, RESOURCE, "notes:read admin");
    let admin = token(&key, "http://127.0.0.1:2/mcp/admin", "notes:read admin");
    for (path, token, expected) in [
        ("/mcp", &notes, 200),
        ("/mcp/x", &notes, 200),
        ("/mcp?a=b", &notes, 200),
        ("/mcp", &admin, 401),
        ("/mcp/admin", &admin, 200),
        ("/mcp/admin/x", &admin, 200),
        ("/mcp/admin", &notes, 401),
        ("/mcp/adminx", &notes, 200),
        ("/", &notes, 404),
        ("/mcpx", &notes, 404),
        ("/mcp/../mcp/admin", &notes, 404),
        ("/mcp/./admin", &notes, 404),
        ("/mcp/%2e%2e/x", &notes, 404),
        ("/mcp%2fadmin", &notes, 404),
        ("/mcp/%2fadmin", &notes, 404),
        ("/mcp//admin", &notes, 404),
        ("//mcp", &notes, 404),
    ] {
        assert_eq!(through(&layer, call_at(path, token)).await.0, expected, "{path}");
    }
    // Each has its own document, and neither has the root's.
    for (path, status) in [
        ("/.well-known/oauth-protected-resource/mcp", 200),
        ("/.well-known/oauth-protected-resource/mcp/admin", 200),
        ("/.well-known/oauth-protected-resource", 404),
    ] {
        let request = Request::get(path).header("host", HOST).body(Body::empty()).unwrap();
        assert_eq!(through(&layer, request).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn the_only_resource_has_its_document_at_the_root_too() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let request = |path| Request::get(path).header("host", HOST).body(Body::empty()).unwrap();
    let (status, root, _) = through(&layer(&key), request("/.well-known/oauth-protected-resource")).await;
    assert_eq!(status, StatusCode::OK);
    let (_, inserted, _) = through(&layer(&key), request("/.well-known/oauth-protected-resource/mcp")).await;
    assert_eq!(root, inserted);
}

// I-A11
#[tokio::test]
async fn another_host_or_origin_reaches_nothing() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let layer = layer(&key);
    let good = token(&key, RESOURCE, "notes:read");
    for path in ["/mcp", "/.well-known/oauth-protected-resource/mcp"] {
        let request = |host: Option<&str>, origin: Option<&str>, target: &str| {
            let mut request = Request::get(target).header("authorization", format!("Bearer {good}"));
            for (name, value) in [("host", host), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            request.body(Body::empty()).unwrap()
        };
        let absolute = |host: &str| format!("http://{host}{path}");
        for (host, origin, target, expected) in [
            (Some(HOST), None, path, 200),
            (Some("evil.example:2"), None, path, 421),
            (None, None, path, 421),
            (Some(HOST), Some("http://evil.example"), path, 403),
            (Some(HOST), Some("null"), path, 403),
            // HTTP/2 has the host in the target; where both stand, they agree.
            (None, None, &absolute(HOST), 200),
            (None, None, &absolute("evil.example"), 421),
            (Some(HOST), None, &absolute("evil.example"), 421),
        ] {
            let (status, _, response) = through(&layer, request(host, origin, target)).await;
            assert_eq!(status, expected, "{host:?} {origin:?} {target}");
            if expected != 200 {
                assert_eq!(response.headers()["content-type"], "application/json");
            }
        }
    }
}

// D45
#[tokio::test]
async fn pages_of_configured_origins_can_call_and_read_the_challenge() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let server = server(&key).with_origins([Origin::new("https://app.example").unwrap()]);
    let layer = ResourceServerLayer::new(server, Fetcher::new().unwrap(), scopes()).unwrap();
    let good = token(&key, RESOURCE, "notes:read");
    for path in ["/mcp", "/.well-known/oauth-protected-resource/mcp"] {
        let preflight = Request::options(path)
            .header("host", HOST)
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap();
        let (status, _, response) = through(&layer, preflight).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
        assert_eq!(response.headers().get_all("access-control-allow-origin").iter().count(), 1);
        assert_eq!(response.headers().get_all("vary").iter().count(), 1);
    }
    let mut challenged = call(None, LIST);
    challenged.headers_mut().insert("origin", "https://app.example".parse().unwrap());
    let (status, _, response) = through(&layer, challenged).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
    assert!(
        response.headers()["access-control-expose-headers"].to_str().unwrap().contains("www-authenticate")
    );
    // What the inner service says about origins does not count.
    let generous = tower::service_fn(async |_: Request<Body>| {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        response.headers_mut().insert("access-control-allow-credentials", "true".parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let response = layer.layer(generous).oneshot(call(Some(&good), LIST)).await.unwrap();
    assert!(response.headers().keys().all(|name| !name.as_str().starts_with("access-control-")));
}

#[tokio::test]
async fn what_a_layer_refuses_it_refuses_in_json() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let good = token(&key, RESOURCE, "notes:read");
    for body in ["[]", "{", r#"{"method":"tools/call"}"#] {
        let (status, text, response) = through(&layer(&key), call(Some(&good), body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()["content-type"], "application/json");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["message"].is_string(), "{text}");
    }
}

#[tokio::test]
async fn a_handler_that_wants_a_caller_does_not_run_without_one() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let handler = axum::routing::post(|caller: Caller| async move { caller.subject().to_owned() });
    let router = axum::Router::new().route("/mcp", handler);
    let answer = router.clone().oneshot(call(None, LIST)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let good = token(&key, RESOURCE, "notes:read");
    let answer = router.layer(layer(&key)).oneshot(call(Some(&good), LIST)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "alice");
}

// I-A14
#[tokio::test]
async fn a_token_is_remembered_until_the_keys_change_and_everything_is_counted() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let layer = layer(&key);
    let good = token(&key, RESOURCE, "notes:read");
    for _ in 0..3 {
        assert_eq!(through(&layer, call(Some(&good), LIST)).await.0, StatusCode::OK);
    }
    assert_eq!(through(&layer, call(Some(&good), WRITE)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(through(&layer, call(None, LIST)).await.0, StatusCode::UNAUTHORIZED);
    let counts = layer.counts();
    assert_eq!((counts.authorized, counts.recalled), (3, 3));
    assert_eq!((counts.denied["insufficient_scope"], counts.denied["no_credentials"]), (1, 1));
    assert_eq!(counts.denied_in_all(), 2);
    let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
    layer.replace_keys(&Issuer::new(ISSUER).unwrap(), &keys_of(&other)).unwrap();
    assert_eq!(through(&layer, call(Some(&good), LIST)).await.0, StatusCode::UNAUTHORIZED);
    assert!(layer.replace_keys(&Issuer::new("https://other.example").unwrap(), &keys_of(&other)).is_err());
}

/// The answer to one request, sent on its own.
async fn answered(layer: &ResourceServerLayer, token: &str) -> StatusCode {
    through(layer, call(Some(token), LIST)).await.0
}

// D42: the fetch belongs to everybody who waits for it, not to the request that began it.
#[tokio::test]
async fn a_caller_who_leaves_does_not_end_the_fetch_of_keys() {
    let (old, new) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let (uri, served, asked) = key_server().await;
    *served.lock().unwrap() = document(&[&old, &new]);
    let (first, later) = (fetching(&uri, &Arc::default()), fetching_after(&uri, &old));
    // Keys that were never there, and one that those there do not name.
    for (layer, token) in
        [(first, token(&old, RESOURCE, "notes:read")), (later, token(&new, RESOURCE, "notes:read"))]
    {
        let before = asked.load(Ordering::SeqCst);
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), answered(&layer, &token)).await;
        assert!(left.is_err(), "the key server takes longer than that");
        let patient = std::time::Duration::from_secs(5);
        let answer = tokio::time::timeout(patient, answered(&layer, &token)).await;
        assert_eq!(answer, Ok(StatusCode::OK));
        assert!(asked.load(Ordering::SeqCst) > before);
    }
}

/// A layer that has one key of its issuer, and fetches the others.
fn fetching_after(uri: &str, known: &SigningKey) -> ResourceServerLayer {
    let source =
        KeySource::new(Issuer::new(ISSUER).unwrap(), Endpoint::new(uri).unwrap(), Arc::new(AwsLcImporter));
    ResourceServerLayer::builder(server(known), Fetcher::new().unwrap(), scopes())
        .refresh_keys(source)
        .build()
        .unwrap()
}

// D42
#[tokio::test]
async fn a_denial_of_keys_that_were_replaced_meanwhile_is_looked_at_again() {
    let (old, new) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let (uri, served, _) = key_server().await;
    *served.lock().unwrap() = document(&[&old, &new]);
    let layer = fetching_after(&uri, &old);
    let good = token(&new, RESOURCE, "notes:read");
    let shared = &layer.shared;
    // One request is denied, and before it asks what to do another one has fetched the keys.
    let seen = shared.key_changes.load(Ordering::SeqCst);
    let (parts, _) = call(Some(&good), LIST).into_parts();
    let head = super::addressed_head(&parts);
    let required = RequiredScopes::none();
    let denial = shared.verify(&shared.first, &head, &required).await.unwrap_err();
    assert_eq!(denial.reason(), DenialReason::UnknownKey);
    assert_eq!(answered(&layer, &good).await, StatusCode::OK);
    assert!(shared.has_new_keys(&denial, seen).await);
    assert!(shared.verify(&shared.first, &head, &required).await.is_ok());
    // Without new keys it stays denied.
    let now = shared.key_changes.load(Ordering::SeqCst);
    assert!(!shared.has_new_keys(&denial, now).await);
}

// I-A14
#[tokio::test]
async fn how_many_tokens_are_remembered_holds_for_every_resource_whenever_it_is_said() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let admin = ResourceServer::new(
        ResourceId::new("http://127.0.0.1:2/mcp/admin").unwrap(),
        [TrustedIssuer::with_keys(Issuer::new(ISSUER).unwrap(), keys_of(&key))],
    );
    let layer = ResourceServerLayer::builder(server(&key), Fetcher::new().unwrap(), scopes())
        .remembered_tokens(0)
        .and(admin.unwrap(), McpScopes::new(set("admin")).unwrap())
        .build()
        .unwrap();
    let notes = token(&key, RESOURCE, "notes:read");
    let admin = token(&key, "http://127.0.0.1:2/mcp/admin", "admin");
    for _ in 0..2 {
        assert_eq!(through(&layer, call_at("/mcp", &notes)).await.0, StatusCode::OK);
        assert_eq!(through(&layer, call_at("/mcp/admin", &admin)).await.0, StatusCode::OK);
    }
    assert_eq!(layer.counts().recalled, 0);
}

// MCP-AUTH-092, OAUTH21-5.1.2-1
#[tokio::test]
async fn a_form_with_a_token_besides_the_field_is_a_bad_request() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let layer =
        ResourceServerLayer::new(server(&key), Fetcher::new().unwrap(), |_: &Parts| RequiredScopes::none())
            .unwrap();
    let good = token(&key, RESOURCE, "notes:read");
    let send = |body: &'static str, media: &str| {
        let mut request = call(Some(&good), body);
        request.headers_mut().insert("content-type", media.parse().unwrap());
        request
    };
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let (status, seen, _) = through(&layer, send("a=b&c=d", form)).await;
    assert!(status == StatusCode::OK && seen.ends_with("a=b&c=d"), "{status} {seen}");
    for media in [form, "Application/X-WWW-Form-URLEncoded"] {
        let (status, _, response) = through(&layer, send("a=b&access%5Ftoken=x", media)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{media}");
        assert!(response.headers()["www-authenticate"].to_str().unwrap().contains("invalid_request"));
    }
    assert_eq!(through(&layer, send("access_token=x", "text/plain")).await.0, StatusCode::OK);
}

/// A server of a key set that can be changed, and how often it was asked.
async fn key_server() -> (String, Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://127.0.0.1:{}/jwks", listener.local_addr().unwrap().port());
    let (document, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (served, counter) = (Arc::clone(&document), Arc::clone(&asked));
    let handler = axum::routing::get(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let document = served.lock().unwrap().clone();
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            ([("content-type", "application/json")], document)
        }
    });
    tokio::spawn(
        async move { axum::serve(listener, axum::Router::new().route("/jwks", handler)).await.unwrap() },
    );
    (uri, document, asked)
}

fn document(keys: &[&SigningKey]) -> Vec<u8> {
    mcp_authz::jose::JwkSet::new(keys.iter().map(|key| key.jwk().clone())).unwrap().render()
}

/// A layer that has to fetch its issuer's keys, at a clock that can be moved.
fn fetching(uri: &str, clock: &Arc<Moved>) -> ResourceServerLayer {
    let issuer = Issuer::new(ISSUER).unwrap();
    let trusted = TrustedIssuer::awaiting_keys(issuer.clone());
    let server = ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), [trusted]).unwrap();
    let source = KeySource::new(issuer, Endpoint::new(uri).unwrap(), Arc::new(AwsLcImporter));
    let clock: Arc<Moved> = Arc::clone(clock);
    ResourceServerLayer::builder(server, Fetcher::new().unwrap(), scopes())
        .refresh_keys(source)
        .clock(clock)
        .build()
        .unwrap()
}

/// The system's clock, moved by so many seconds.
#[derive(Debug, Default)]
struct Moved(AtomicI64);

impl crate::clock::Clock for Moved {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + mcp_authz::time::Duration::seconds(self.0.load(Ordering::SeqCst))
    }
}

// I-G8
#[test]
fn keys_that_are_to_be_fetched_have_a_place_and_an_issuer() {
    let issuer = |id: &str| Issuer::new(id).unwrap();
    let source = |id: &str| {
        KeySource::new(issuer(id), Endpoint::new("https://as.example/jwks").unwrap(), Arc::new(AwsLcImporter))
    };
    let build = |trusted: &str, sources: &[&str]| {
        let server = ResourceServer::new(
            ResourceId::new(RESOURCE).unwrap(),
            [TrustedIssuer::awaiting_keys(issuer(trusted))],
        );
        let builder = ResourceServerLayer::builder(server.unwrap(), Fetcher::new().unwrap(), scopes());
        let built = sources.iter().fold(builder, |builder, id| builder.refresh_keys(source(id))).build();
        built.map(drop)
    };
    assert_eq!(build(ISSUER, &[ISSUER]), Ok(()));
    assert_eq!(build(ISSUER, &[]), Err(InvalidConfiguration::KeysNowhere));
    assert_eq!(build(ISSUER, &["https://other.example"]), Err(InvalidConfiguration::UnknownIssuer));
    assert_eq!(build(ISSUER, &[ISSUER, "https://other.example"]), Err(InvalidConfiguration::UnknownIssuer));
    assert_eq!(build(ISSUER, &[ISSUER, ISSUER]), Err(InvalidConfiguration::Issuers));
}

// I-L8
#[test]
fn keys_are_reached_where_the_issuer_lies_and_inside_a_network_only_where_that_is_said() {
    let source = |issuer: &str, jwks: &str| {
        KeySource::new(Issuer::new(issuer).unwrap(), Endpoint::new(jwks).unwrap(), Arc::new(AwsLcImporter))
    };
    for (issuer, jwks, addresses, named) in [
        (
            "https://as.example",
            "https://as.example/jwks",
            AddressPolicy::Public,
            AddressPolicy::PublicAndPrivateNetworks,
        ),
        (
            "https://as.example",
            "http://127.0.0.1:1/jwks",
            AddressPolicy::Public,
            AddressPolicy::PublicAndPrivateNetworks,
        ),
        (ISSUER, "https://as.example/jwks", AddressPolicy::Public, AddressPolicy::PublicAndPrivateNetworks),
        (ISSUER, "http://127.0.0.1:1/jwks", AddressPolicy::Loopback, AddressPolicy::Loopback),
    ] {
        assert_eq!(source(issuer, jwks).addresses(), addresses, "{issuer} {jwks}");
        assert_eq!(source(issuer, jwks).on_private_networks().addresses(), named, "{issuer} {jwks}");
    }
}

// D42: single-flight
#[tokio::test]
async fn requests_that_come_before_the_keys_wait_for_one_fetch() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (uri, served, asked) = key_server().await;
    *served.lock().unwrap() = document(&[&key]);
    let layer = fetching(&uri, &Arc::default());
    let good = token(&key, RESOURCE, "notes:read");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (layer, good) = (layer.clone(), good.clone());
            tokio::spawn(async move { through(&layer, call(Some(&good), LIST)).await.0 })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

// D42: stale-while-revalidate, bounded
#[tokio::test]
async fn stale_keys_are_used_for_an_hour_and_then_the_answer_is_503() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (uri, served, asked) = key_server().await;
    *served.lock().unwrap() = document(&[&key]);
    let clock = Arc::new(Moved::default());
    let layer = fetching(&uri, &clock);
    let lasting = |key: &SigningKey, seconds: i64| {
        let at = SystemClock.now().unix_timestamp() + seconds;
        token_at(key, RESOURCE, "notes:read", at)
    };
    assert_eq!(through(&layer, call(Some(&lasting(&key, 0)), LIST)).await.0, StatusCode::OK);
    // From now on the key server is broken: an empty set, which never replaces a good one.
    *served.lock().unwrap() = br#"{"keys":[]}"#.to_vec();
    for (second, status) in [(599, StatusCode::OK), (700, StatusCode::OK), (4100, StatusCode::OK)] {
        clock.0.store(second, Ordering::SeqCst);
        assert_eq!(through(&layer, call(Some(&lasting(&key, second)), LIST)).await.0, status, "{second}");
        // The refresh goes on behind the request's back.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    clock.0.store(4300, Ordering::SeqCst);
    let (status, _, response) = through(&layer, call(Some(&lasting(&key, 4300)), LIST)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    assert!(asked.load(Ordering::SeqCst) >= 3);
    // It comes back by itself.
    *served.lock().unwrap() = document(&[&key]);
    clock.0.store(4400, Ordering::SeqCst);
    assert_eq!(through(&layer, call(Some(&lasting(&key, 4400)), LIST)).await.0, StatusCode::OK);
}

// D42, I-A4: a key the issuer withdrew is gone with the next set.
#[tokio::test]
async fn a_withdrawn_key_is_gone_after_the_refresh() {
    let (old, new) =
        (SigningKey::generate(Algorithm::EdDsa).unwrap(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    let (uri, served, _) = key_server().await;
    *served.lock().unwrap() = document(&[&old]);
    let layer = fetching(&uri, &Arc::default());
    let (before, after) = (token(&old, RESOURCE, "notes:read"), token(&new, RESOURCE, "notes:read"));
    assert_eq!(through(&layer, call(Some(&before), LIST)).await.0, StatusCode::OK);
    *served.lock().unwrap() = document(&[&new]);
    assert_eq!(through(&layer, call(Some(&after), LIST)).await.0, StatusCode::OK);
    assert_eq!(through(&layer, call(Some(&before), LIST)).await.0, StatusCode::UNAUTHORIZED);
}

// D32, I-A14
#[tokio::test]
async fn an_issuer_is_asked_once_about_an_opaque_token_and_shortly_about_one_that_is_not_active() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/introspect", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let questions = Arc::clone(&asked);
    let exp = SystemClock.now().unix_timestamp() + 300;
    let handler = axum::routing::post(move |headers: http::HeaderMap, body: String| {
        assert!(headers["authorization"].to_str().unwrap().starts_with("Basic "));
        let active = body.contains("token=good");
        questions.lock().unwrap().push(body);
        let answer = if active {
            format!(
                r#"{{"active":true,"aud":"{RESOURCE}","sub":"alice","client_id":"c1","scope":"notes:read","exp":{exp}}}"#
            )
        } else {
            r#"{"active":false}"#.to_owned()
        };
        std::future::ready(([("content-type", "application/json")], answer))
    });
    let server = tokio::spawn(async move {
        axum::serve(listener, axum::Router::new().route("/introspect", handler)).await.unwrap();
    });
    let asking = Introspection::new(
        Endpoint::new(endpoint).unwrap(),
        ClientId::new("rs").unwrap(),
        ClientSecret::new("secret").unwrap(),
    );
    let trusted = TrustedIssuer::with_introspection(Issuer::new(ISSUER).unwrap(), asking);
    let resource = ResourceServer::new(ResourceId::new(RESOURCE).unwrap(), [trusted]).unwrap();
    let clock = Arc::new(Moved::default());
    let moved: Arc<Moved> = Arc::clone(&clock);
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let observer = move |event: ResourceEvent<'_>| {
        // I-A7: whose token it is, and nothing of the question.
        if let ResourceEvent::Introspecting(issuer) = event {
            assert_eq!(issuer.as_str(), ISSUER);
            heard.fetch_add(1, Ordering::SeqCst);
        }
    };
    let layer = ResourceServerLayer::builder(resource, Fetcher::new().unwrap(), scopes())
        .clock(moved)
        .observer(observer)
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(through(&layer, call(Some("good"), LIST)).await.0, StatusCode::OK);
        assert_eq!(through(&layer, call(Some("stale"), LIST)).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(asked.lock().unwrap().len(), 2);
    clock.0.store(20, Ordering::SeqCst);
    assert_eq!(through(&layer, call(Some("stale"), LIST)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(through(&layer, call(Some("good"), LIST)).await.0, StatusCode::OK);
    assert_eq!(asked.lock().unwrap().len(), 3);
    clock.0.store(70, Ordering::SeqCst);
    assert_eq!(through(&layer, call(Some("good"), LIST)).await.0, StatusCode::OK);
    assert_eq!((asked.lock().unwrap().len(), layer.counts().introspections), (4, 4));
    assert_eq!(told.load(Ordering::SeqCst), 4);
    // An issuer out of reach is no verdict on the token.
    server.abort();
    let _ = server.await;
    clock.0.store(140, Ordering::SeqCst);
    assert_eq!(through(&layer, call(Some("good"), LIST)).await.0, StatusCode::SERVICE_UNAVAILABLE);
}
