//! `login`, `token`, `bridge` and `logout` as a person and a script run them: the binary against our own authorization
//! server and an `rmcp` server behind the resource-server layer.

#[path = "../../runtime/tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mcp_authz::identifier::{Endpoint, ResourceId, ScopeSet};
use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::keys::AwsLcImporter;
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

#[derive(Debug, Clone)]
struct Notes;

#[tool_router]
impl Notes {
    #[tool(description = "Read the notes")]
    async fn read_notes(&self) -> String {
        "buy milk".to_owned()
    }

    #[tool(description = "Clear the notes")]
    async fn clear_notes(&self) -> String {
        "cleared".to_owned()
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for Notes {}

/// An MCP server with or without sessions; its URL, and its authorization server, which is on an origin of its own.
async fn mcp_server(sessions: bool) -> (String, String) {
    let (listener, origin) = support::port().await;
    let url = format!("{origin}/mcp");
    let issuer = support::authorization_server(&url, &["notes:read", "notes:write"]).await;
    let fetcher = Fetcher::new().unwrap();
    let jwks = Endpoint::new(format!("{issuer}/jwks")).unwrap();
    let named = issuer.as_str().to_owned();
    let keys = KeySource::new(issuer.clone(), jwks, Arc::new(AwsLcImporter)).fetch(&fetcher).await.unwrap();
    let resource = ResourceId::new(url.as_str()).unwrap();
    let server = ResourceServer::new(resource, [TrustedIssuer::with_keys(issuer, keys)]).unwrap();
    let scopes = McpScopes::new(ScopeSet::parse("notes:read").unwrap())
        .unwrap()
        .tool("clear_notes", ScopeSet::parse("notes:write").unwrap())
        .unwrap();
    let layer = ResourceServerLayer::builder(server, fetcher, scopes).build().unwrap();
    let configuration = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(sessions)
        .with_json_response(!sessions);
    let service =
        StreamableHttpService::new(|| Ok(Notes), Arc::new(LocalSessionManager::default()), configuration);
    let router = Router::new().route_service("/mcp", service).layer(layer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, named)
}

fn command(store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-authz"));
    command.args(arguments).args(["--no-browser", "--no-keychain", "--patience", "20", "--store"]).arg(store);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The address that the tool prints for the person.
async fn address(lines: &mut (impl AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(lines.read_line(&mut line).await.unwrap(), 0, "no address was printed");
        if line.starts_with("http") {
            return line.trim().to_owned();
        }
    }
}

/// Prints what is left, so that a child never waits for its reader.
fn drain(from: impl AsyncRead + Unpin + Send + 'static) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(_)) = lines.next_line().await {}
    });
}

async fn login(store: &Path, url: &str, issuer: &str) {
    let mut child = command(store, &["login", url, "--issuer", issuer]).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let address = address(&mut errors).await;
    drain(errors);
    support::Allowing::new().visit(address).await;
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("Logged in at") && said.contains("notes:read"), "{said}");
}

async fn run(store: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(store, arguments).stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_kept_for_scripts_and_ended_by_a_logout() {
    let (store, (url, issuer)) = (tempfile::tempdir().unwrap(), mcp_server(false).await);
    let store = store.path().join("credentials");
    let (code, out, err) = run(&store, &["token", &url]).await;
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(err.contains(&format!("mcp-authz login {url}")), "{err}");

    login(&store, &url, &issuer).await;
    let (code, token, err) = run(&store, &["token", &url]).await;
    assert_eq!(code, Some(0), "{err}");
    let header = run(&store, &["token", &url, "--header"]).await.1;
    assert_eq!(header, format!("Authorization: Bearer {token}"));
    // The server takes it.
    let asked = |token: String| {
        reqwest::Client::new()
            .post(&url)
            .header("authorization", format!("Bearer {}", token.trim()))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#)
            .send()
    };
    assert_eq!(asked(token.clone()).await.unwrap().status(), 200);
    // One that is to be good for longer than this one is another.
    let (code, renewed, err) = run(&store, &["token", &url, "--valid-for", "100000"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_ne!(renewed, token);
    assert_eq!(asked(renewed.clone()).await.unwrap().status(), 200);
    // What was kept under other options is not used under these.
    let relaxed = ["token", &url, "--relax", "AssumeS256=https://as.example"];
    let (code, out, err) = run(&store, &relaxed).await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("options you logged in with"), "{err}");
    // A second login finds the first.
    let (code, out, _) = run(&store, &["login", &url]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("Logged in at"), "{out}");
    // Nothing secret lies there in the clear.
    for file in std::fs::read_dir(&store).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let secret = renewed.trim().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }

    let (code, out, err) = run(&store, &["logout", &url]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("revoked and forgotten"), "{out}{err}");
    assert_eq!(run(&store, &["token", &url]).await.0, Some(3));
    assert_eq!(run(&store, &["logout", &url]).await.0, Some(3));
}

// D36: an authorization server elsewhere is taken at the person's word only, which is asked for once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_an_authorization_server_elsewhere_is_named_and_not_used() {
    let (store, (url, issuer)) = (tempfile::tempdir().unwrap(), mcp_server(false).await);
    let store = store.path().join("credentials");
    let refused = async || {
        let (code, out, err) = run(&store, &["login", &url]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        for part in [&*issuer, "--issuer", "notes:read", "nobody vouched"] {
            assert!(err.contains(part), "{part} in {err}");
        }
        assert!(!err.contains("/authorize"), "nobody is sent there: {err}");
    };
    refused().await;
    // A bridge's standard input is the program's, and never a person's.
    let (mut program, errors) = Program::start(&store, &[&url]);
    drain(errors);
    program.begin().await;
    let answer = program.answer(1).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("nobody vouched"), "{answer}");
    drop(program);

    login(&store, &url, &issuer).await;
    // The grant is over by what the server knows, and the next login asks for nothing but the login.
    std::fs::remove_file(session_file(&store)).unwrap();
    let mut child = command(&store, &["login", &url]).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    support::Allowing::new().visit(address(&mut errors).await).await;
    drain(errors);
    assert!(child.wait_with_output().await.unwrap().status.success());
    assert_eq!(run(&store, &["logout", &url]).await.0, Some(0));
    refused().await;
}

// A client registered by hand is an option of each command, and whoever forgets it is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_registered_client_needs_its_options_again() {
    let (store, (url, issuer)) = (tempfile::tempdir().unwrap(), mcp_server(false).await);
    let store = store.path().join("credentials");
    let metadata = json!({ "redirect_uris": ["http://127.0.0.1/registered"], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"] });
    let answer =
        reqwest::Client::new().post(format!("{issuer}/register")).json(&metadata).send().await.unwrap();
    let registered: Value = answer.json().await.unwrap();
    let own = ["--issuer", &issuer, "--client-id", registered["client_id"].as_str().unwrap()];
    let mut child = command(&store, &[&["login", &url][..], &own].concat()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    support::Allowing::new().visit(address(&mut errors).await).await;
    drain(errors);
    assert!(child.wait_with_output().await.unwrap().status.success());
    let (code, out, err) = run(&store, &["token", &url]).await;
    assert!(code == Some(3) && out.is_empty() && err.contains("--client-id"), "{err}");
    assert_eq!(run(&store, &[&["token", &url][..], &own].concat()).await.0, Some(0));
}

fn session_file(store: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(store).unwrap().map(|file| file.unwrap().path());
    let is_session = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("session-"))
    };
    files.into_iter().find(is_session).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_a_browser_elsewhere_ended_at_can_be_pasted() {
    let (store, (url, issuer)) = (tempfile::tempdir().unwrap(), mcp_server(false).await);
    let store = store.path().join("credentials");
    let mut child = command(&store, &["login", &url, "--issuer", &issuer]).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let address = address(&mut errors).await;
    drain(errors);
    let callback = support::Allowing::new().consent(address).await;
    let mut input = child.stdin.take().unwrap();
    let (place, _) = callback.split_once('?').unwrap();
    // Mistakes first: another address, and one of this program that is not the awaited one.
    for line in ["https://evil.example/?code=x", &format!("{place}?code=forged&state=guessed"), &callback] {
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(run(&store, &["token", &url]).await.0, Some(0));
}

#[tokio::test]
async fn the_document_to_publish_is_printed_for_a_url_that_can_be_one() {
    let tool = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-authz"));
        let output = command.arg("client-metadata").args(arguments).output();
        async move {
            let output = output.await.unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        }
    };
    let url = "https://client.example/mcp-authz.json";
    let (code, document, _) = tool(&[url]).await;
    assert_eq!(code, Some(0));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["client_id"], url);
    assert_eq!(document["redirect_uris"].as_array().unwrap().len(), 16);
    for (url, says) in [
        ("http://client.example/x.json", "it must be https"),
        ("https://client.example/x.json?y", "no query"),
        ("https://client.example", "path"),
    ] {
        let (code, out, err) = tool(&[url]).await;
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(err.contains(says), "{err}");
    }
    // Nothing inside this machine is fetched for it.
    let (code, _, err) = tool(&["https://127.0.0.1/x.json", "--check"]).await;
    assert_eq!(code, Some(2), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_and_what_to_do() {
    const TWICE: [&str; 2] = ["--relax", "AssumeS256=https://as.example"];
    let store = tempfile::tempdir().unwrap();
    let store = store.path().join("credentials");
    for (arguments, says) in [
        (&["login", "ftp://mcp.example"][..], "is not the URL of an MCP server"),
        (&["login", "https://mcp.example", "--relax", "Everything=https://mcp.example"], "no relaxation"),
        (&["login", "https://mcp.example", "--relax", "AssumeS256"], "written NAME=URL"),
        (&["login", "https://mcp.example", TWICE[0], TWICE[1], TWICE[0], TWICE[1]], "named twice"),
        (&["login", "https://mcp.example", "--issuer", "https://as.example?x"], "--issuer"),
        (&["login", "http://127.0.0.1:1/mcp"], "gave no answer"),
    ] {
        let (code, out, err) = run(&store, arguments).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    // An authorization server that takes no client it does not know.
    let (listener, origin) = support::port().await;
    let resource =
        json!({ "resource": format!("{origin}/mcp"), "authorization_servers": [origin] }).to_string();
    let server = json!({
        "issuer": origin, "authorization_endpoint": format!("{origin}/authorize"), "token_endpoint": format!("{origin}/token"),
        "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    })
    .to_string();
    let document =
        |text: String| axum::routing::get(async move || ([("content-type", "application/json")], text));
    let challenge = [("www-authenticate", "Bearer")];
    let router = Router::new()
        .route("/.well-known/oauth-protected-resource/mcp", document(resource))
        .route("/.well-known/oauth-authorization-server", document(server))
        .fallback(move || async move { (axum::http::StatusCode::UNAUTHORIZED, challenge) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (code, _, err) = run(&store, &["login", &format!("{origin}/mcp")]).await;
    assert!(code == Some(1) && err.contains("--client-id") && err.contains("client-metadata"), "{err}");
    // A server that asks for no login.
    let (listener, origin) = support::port().await;
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(|| async { "{}" })).await });
    let (code, out, _) = run(&store, &["login", &format!("{origin}/mcp")]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("without a login"), "{out}");
}

/// A program that speaks MCP over stdio and knows nothing of authorization.
struct Program {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Program {
    fn start(store: &Path, arguments: &[&str]) -> (Self, BufReader<tokio::process::ChildStderr>) {
        let mut child = command(store, &[&["bridge"], arguments].concat()).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (Self { child, lines }, errors)
    }

    async fn say(&mut self, message: Value) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    /// The next message that has this id.
    async fn answer(&mut self, id: u64) -> Value {
        let next = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the bridge ended");
                let message: Value = serde_json::from_str(&line).unwrap();
                if message["id"] == id {
                    return message;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.unwrap()
    }

    async fn begin(&mut self) {
        self.say(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "p", "version": "1"},
        }}))
        .await;
    }

    async fn call(&mut self, id: u64, tool: &str) {
        let params = json!({"name": tool, "arguments": {}});
        self.say(json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_log_in_uses_the_server_over_stdio() {
    for sessions in [false, true] {
        let (store, (url, issuer)) = (tempfile::tempdir().unwrap(), mcp_server(sessions).await);
        let store = store.path().join("credentials");
        let (mut program, mut errors) = Program::start(&store, &[&url, "--issuer", &issuer]);
        // The first request leads to a login.
        program.begin().await;
        let login = tokio::spawn(async move {
            let first = address(&mut errors).await;
            support::Allowing::new().visit(first).await;
            // The second is for more scopes.
            let second = address(&mut errors).await;
            support::Allowing::new().visit(second).await;
            drain(errors);
        });
        assert_eq!(program.answer(1).await["result"]["protocolVersion"], "2025-11-25");
        program.say(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        program.say(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})).await;
        assert_eq!(program.answer(2).await["result"]["tools"].as_array().unwrap().len(), 2);
        program.call(3, "read_notes").await;
        assert_eq!(program.answer(3).await["result"]["content"][0]["text"], "buy milk");
        program.call(4, "clear_notes").await;
        assert_eq!(program.answer(4).await["result"]["content"][0]["text"], "cleared");
        login.await.unwrap();
        // What is no message is answered, and nothing stops.
        program.child.stdin.as_mut().unwrap().write_all(b"{oops\n\n").await.unwrap();
        let line = program.lines.next_line().await.unwrap().unwrap();
        assert!(line.contains("-32700"), "{line}");
        program.call(5, "no_such_tool").await;
        assert!(program.answer(5).await.get("error").is_some());
        drop(program.child.stdin.take());
        let ended = tokio::time::timeout(Duration::from_secs(10), program.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
        // The session is kept: another bridge asks nobody.
        let (mut again, errors) = Program::start(&store, &[&url]);
        drain(errors);
        again.begin().await;
        assert_eq!(again.answer(1).await["result"]["protocolVersion"], "2025-11-25");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_answered_is_answered_with_an_error() {
    let store = tempfile::tempdir().unwrap();
    let (mut program, errors) = Program::start(&store.path().join("c"), &["http://127.0.0.1:1/mcp"]);
    drain(errors);
    program.begin().await;
    let answer = program.answer(1).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("gave no answer"), "{answer}");
}
