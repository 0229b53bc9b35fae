//! The example of an MCP server behind the layer, over sockets: what a stranger, a reader and a writer get.
#![cfg(feature = "aws-lc-rs")]

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::routing::get;
use mcp_authz::jose::{Algorithm, JwkSet, signing_input};
use mcp_authz::syntax::base64url;
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::keys::SigningKey;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[path = "../examples/mcp_server/server.rs"]
mod server;

#[test]
fn the_example_says_that_it_needs_a_path() {
    for resource in ["http://127.0.0.1:8090", "http://127.0.0.1:8090/"] {
        let refused = server::layer(resource, "https://as.example", "https://as.example/jwks");
        assert!(refused.is_err_and(|error| error.to_string().contains("path")), "{resource}");
    }
}

/// The MCP server with a key server behind it, and a client that sends what it is told.
struct World {
    key: SigningKey,
    issuer: String,
    resource: String,
    http: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let keys = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", keys.local_addr().unwrap());
        let document = JwkSet::new([key.jwk().clone()]).unwrap().render();
        let served = Router::new()
            .route("/jwks", get(async move || ([("content-type", "application/json")], document)));
        tokio::spawn(async move { axum::serve(keys, served).await.unwrap() });

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let resource = format!("http://{}/mcp", listener.local_addr().unwrap());
        let layer = server::layer(&resource, &issuer, &format!("{issuer}/jwks")).unwrap();
        let router = server::router(layer);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { key, issuer, resource, http }
    }

    fn token(&self, scope: &str) -> String {
        let now = SystemClock.now().unix_timestamp();
        let claims = json!({
            "iss": self.issuer, "sub": "alice", "aud": self.resource, "client_id": "c1", "iat": now, "exp": now + 60,
            "jti": "1", "scope": scope,
        });
        let input = signing_input(&self.key.id(), "at+jwt", claims.to_string().as_bytes());
        let pair = Ed25519KeyPair::from_pkcs8(self.key.to_pkcs8().unwrap().expose()).unwrap();
        let signature = base64url::encode(pair.sign(&input).as_ref());
        format!("{}.{signature}", String::from_utf8(input).unwrap())
    }

    async fn call(&self, token: Option<&str>, method: &str, params: Value) -> (StatusCode, String, String) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = self
            .http
            .post(&self.resource)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-06-18")
            .body(message.to_string());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = request.send().await.unwrap();
        let challenge =
            answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (answer.status(), challenge.unwrap_or_default(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn the_example_serves_who_may_and_tells_the_others_what_they_need() {
    let world = World::new().await;
    let add = || json!({ "name": "add_note", "arguments": { "text": "buy milk" } });

    let (status, challenge, body) = world.call(None, "tools/list", json!({})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains("resource_metadata=") && challenge.contains("notes:read"), "{challenge}");
    assert!(serde_json::from_str::<Value>(&body).unwrap()["message"].is_string(), "{body}");

    let reader = world.token("notes:read");
    let (status, _, body) = world.call(Some(&reader), "tools/list", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.contains("read_notes") && body.contains("add_note"), "{body}");

    let (status, challenge, _) = world.call(Some(&reader), "tools/call", add()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(challenge.contains("insufficient_scope") && challenge.contains("notes:write"), "{challenge}");

    let writer = world.token("notes:read notes:write");
    let (status, _, body) = world.call(Some(&writer), "tools/call", add()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, _, body) = world.call(Some(&reader), "tools/call", json!({ "name": "read_notes" })).await;
    assert!(body.contains("alice: buy milk"), "{body}");

    let document =
        world.http.get(world.resource.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"));
    let document: Value =
        serde_json::from_str(&document.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(
        (&document["resource"], &document["authorization_servers"][0]),
        (&json!(world.resource), &json!(world.issuer))
    );
}
