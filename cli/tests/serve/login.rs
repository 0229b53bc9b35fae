//! People who sign in at an OpenID Provider, as an operator sets it up. What a provider may say is tried in the runtime's tests.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::routing::{get, post};
use mcp_authz::syntax::form::Form;
use reqwest::StatusCode;
use serde_json::json;

use super::people::{Browser, hidden, path, user};
use super::{Server, tool};

/// A provider that knows nobody: each code is refused. What its clients prove themselves with comes out of the channel.
fn provider() -> (String, Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let document = json!({
        "issuer": origin,
        "authorization_endpoint": format!("{origin}/authorize"),
        "token_endpoint": format!("{origin}/token"),
        "jwks_uri": format!("{origin}/jwks"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
    });
    let (send, proofs) = channel();
    let json = || [(CONTENT_TYPE, "application/json")];
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(async move || (json(), document.to_string())))
        .route(
            "/token",
            post(async move |headers: HeaderMap| {
                send.send(headers[AUTHORIZATION].to_str().unwrap().to_owned()).unwrap();
                (axum::http::StatusCode::BAD_REQUEST, json(), r#"{"error":"invalid_grant"}"#)
            }),
        );
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
    });
    (origin, proofs)
}

fn secret(folder: &Path, mode: u32) {
    let file = folder.join("op.secret");
    std::fs::write(&file, "the secret\n").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    #[cfg(not(unix))]
    let _ = mode;
}

#[test]
fn people_sign_in_by_password_or_at_a_provider() {
    let (origin, proofs) = provider();
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), 0o600);
    let ann = user("ann");
    let arguments = ["--login-oidc", &origin, "--login-client-id", "ours", "--login-client-secret-file"];
    let arguments = [&arguments[..], &["op.secret", "--user", &ann, "--store", "memory"]].concat();
    let server = Server::start(folder.path(), &arguments);
    let redirect_uri = format!("{}/sign-in/oidc", server.base);
    let log: Vec<String> = server.log.lock().unwrap().try_iter().collect();
    assert!(log.iter().any(|line| line.contains(&redirect_uri)), "the operator is told: {log:?}");
    let client = server.register();
    let mut browser = Browser::new(&server);
    let page = browser.visit(&path(&client, &[]));
    assert!(page.contains("type=\"password\"") && page.contains("Sign in at 127.0.0.1"), "{page}");
    let (request, csrf) = (hidden(&page, "request"), hidden(&page, "csrf"));
    let pairs = [("request", request.as_str()), ("csrf", &csrf), ("provider", "oidc")];
    let sent = browser.submit("/sign-in", &pairs, &[]);
    assert_eq!(sent.status(), StatusCode::SEE_OTHER);
    let location = sent.headers()["location"].to_str().unwrap();
    let (place, query) = location.split_once('?').unwrap();
    assert_eq!(place, format!("{origin}/authorize"));
    let asked = Form::parse(query.as_bytes()).unwrap();
    assert_eq!(asked.get("client_id"), Some("ours"));
    assert_eq!(asked.get("redirect_uri"), Some(redirect_uri.as_str()));
    assert_eq!(asked.get("scope"), Some("openid profile"));
    let state = asked.get("state").unwrap();
    let page = browser.visit(&format!("/sign-in/oidc?code=c&state={state}"));
    assert_eq!(proofs.recv().unwrap(), "Basic b3Vyczp0aGUrc2VjcmV0");
    assert!(
        page.contains("refused the token request (invalid_grant)") && page.contains("Try again at"),
        "{page}"
    );
}

#[test]
fn a_login_that_cannot_be_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), 0o644);
    let common = ["serve", "--issuer", "http://127.0.0.1:9", "--listen", "127.0.0.1:0", "--store", "memory"];
    let common = [&common[..], &["--resource", "http://127.0.0.1:8/mcp"]].concat();
    let fails = |more: &[&str]| {
        let output = tool(folder.path(), &[&common[..], more].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let id = ["--login-client-id", "ours"];
    assert!(fails(&["--login-oidc", "https://op.example"]).contains("--login-client-id"));
    assert!(fails(&[&["--login-oidc", "http://op.example"][..], &id].concat()).contains("issuer"));
    #[cfg(unix)]
    {
        let file = ["--login-oidc", "https://op.example", "--login-client-secret-file", "op.secret"];
        assert!(fails(&[&file[..], &id].concat()).contains("chmod 600"));
    }
    let logins = |text: &str| {
        std::fs::write(folder.path().join("serve.toml"), text).unwrap();
        fails(&["--config", "serve.toml"])
    };
    let login = "[[login]]\nname = \"a\"\nissuer = \"https://op.example\"\nclient_id = \"c\"\n";
    assert!(logins(&format!("{login}subjects = []\n")).contains("nobody could"));
    assert!(logins(&format!("{login}{login}")).contains("no other provider's"));
    assert!(logins(&format!("{login}relax = [\"Everything\"]\n")).contains("relax"));
    assert!(logins(&login.replace("\"a\"", "\"A/b\"")).contains("lower-case"));
}
