//! `mcp-authz guard` as an operator runs it: before a server that knows nothing of authorization.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use mcp_authz::jose::{Algorithm, JwkSet, signing_input};
use mcp_authz::syntax::base64url;
use mcp_authz_tokio::clock::{Clock as _, SystemClock};
use mcp_authz_tokio::keys::SigningKey;
use reqwest::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

/// The guard as a process, which ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    guard: Guard,
    key: SigningKey,
    issuer: String,
    resource: String,
    /// The heads of the requests that reached the server behind.
    seen: Arc<Mutex<Vec<String>>>,
    http: reqwest::Client,
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    (listener, origin)
}

impl World {
    async fn new() -> Self {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let (listener, issuer) = listen().await;
        let keys = JwkSet::new([key.jwk().clone()]).unwrap().render();
        let metadata = json!({ "issuer": issuer, "response_types_supported": ["code"], "jwks_uri": format!("{issuer}/jwks") });
        let as_json = |body: Vec<u8>| ([("content-type", "application/json")], body);
        let metadata = metadata.to_string().into_bytes();
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server", get(async move || as_json(metadata)))
            .route("/jwks", get(async move || as_json(keys)));
        serve(listener, router);

        let (listener, upstream) = listen().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        let behind = Router::new()
            .route(
                "/stream",
                get(async || {
                    // One event now, the next only after a while: whoever waits for the end does not see the first in time.
                    let events = tokio_stream::StreamExt::throttle(
                        tokio_stream::iter(
                            ["data: one\n\n", "data: two\n\n"].map(Ok::<_, std::convert::Infallible>),
                        ),
                        Duration::from_secs(3),
                    );
                    Response::builder()
                        .header("content-type", "text/event-stream")
                        .body(Body::from_stream(events))
                        .unwrap()
                }),
            )
            .fallback(move |request: Request| {
                heads.lock().unwrap().push(format!(
                    "{} {} {:?}",
                    request.method(),
                    request.uri(),
                    request.headers()
                ));
                async move {
                    let body: Bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
                    Response::builder()
                        .header("connection", "x-hop")
                        .header("x-hop", "1")
                        .header("mcp-session-id", "s1")
                        .body(Body::from(body))
                        .unwrap()
                }
            });
        serve(listener, behind);

        let (free, origin) = listen().await;
        drop(free);
        let resource = format!("{origin}/mcp");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-authz"))
            .args(["guard", "--upstream", &upstream, "--resource", &resource, "--issuer", &issuer])
            .args(["--listen", origin.trim_start_matches("http://")])
            .args(["--scope", "notes:read", "--tool", "add_note=notes:write"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("guarding") && line.contains(&resource), "{line}");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { guard: Guard(child), key, issuer, resource, seen, http }
    }

    fn token(&self, scope: &str, subject: &str) -> String {
        let now = SystemClock.now().unix_timestamp();
        let claims = json!({
            "iss": self.issuer, "sub": subject, "aud": self.resource, "client_id": "c1", "iat": now, "exp": now + 60,
            "jti": "1", "scope": scope,
        });
        let input = signing_input(&self.key.id(), "at+jwt", claims.to_string().as_bytes());
        let pair = Ed25519KeyPair::from_pkcs8(self.key.to_pkcs8().unwrap().expose()).unwrap();
        let signature = base64url::encode(pair.sign(&input).as_ref());
        format!("{}.{signature}", String::from_utf8(input).unwrap())
    }

    fn call(&self, path: &str, token: &str, body: &str) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}{path}", self.resource))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body.to_owned())
    }
}

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const ADD: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add_note"}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_authorized_requests_pass_and_they_arrive_without_a_token_and_with_a_name() {
    let world = World::new().await;

    let stranger = world.http.post(&world.resource).body(LIST).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let challenge = stranger.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.contains("/.well-known/oauth-protected-resource/mcp") && challenge.contains("notes:read")
    );
    let narrow = world.call("", &world.token("notes:read", "alice"), ADD).send().await.unwrap();
    assert_eq!(narrow.status(), StatusCode::FORBIDDEN);
    assert!(world.seen.lock().unwrap().is_empty(), "a refused request reaches nothing");

    // What a client says in the guard's name is dropped, in either spelling.
    let token = world.token("notes:read notes:write", "álice");
    let forged = world
        .call("/sub/x?y=z", &token, ADD)
        .header("mcp-authz-subject", "root")
        .header("mcp_authz_scope", "everything")
        .header("connection", "x-mine")
        .header("x-mine", "1");
    let answer = forged.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["mcp-session-id"], "s1");
    assert!(!answer.headers().contains_key("x-hop") && !answer.headers().contains_key("connection"));
    assert_eq!(answer.text().await.unwrap(), ADD);
    let seen = world.seen.lock().unwrap().pop().unwrap();
    assert!(seen.starts_with("POST /sub/x?y=z "), "{seen}");
    for part in [
        r#""mcp-authz-subject": "%C3%A1lice""#,
        r#""mcp-authz-client": "c1""#,
        r#""mcp-authz-scope": "notes:read notes:write""#,
    ] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    for part in ["root", "everything", "x-mine", "authorization", token.rsplit('.').next().unwrap()] {
        assert!(!seen.contains(part), "{part} in {seen}");
    }

    // Beside the resource there is nothing.
    for path in ["x", "/../other", "/%2e%2e/other"] {
        let url = format!("{}{path}", world.resource.replace("http://", ""));
        let (authority, target) = url.split_once('/').unwrap();
        let status = raw(authority, &format!("/{target}"), &token).await;
        assert!(status.starts_with("HTTP/1.1 404"), "{path}: {status}");
    }
    assert!(world.seen.lock().unwrap().is_empty());
}

// I-A13: what decided about the scopes is what the server behind gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_method_takes_an_unauthorized_body_along() {
    let world = World::new().await;
    let token = world.token("notes:read", "alice");
    let send = |method: reqwest::Method| {
        let request = world.call("", &token, ADD).build().unwrap();
        let mut request = reqwest::RequestBuilder::from_parts(world.http.clone(), request).build().unwrap();
        *request.method_mut() = method;
        let fields = request.headers_mut();
        for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
            fields.insert(name, "POST".parse().unwrap());
        }
        world.http.execute(request)
    };
    for method in ["PUT", "PATCH", "QUERY", "POST"] {
        let answer = send(method.parse().unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method}");
    }
    assert!(world.seen.lock().unwrap().is_empty());
    for method in ["GET", "DELETE"] {
        let answer = send(method.parse().unwrap()).await.unwrap();
        assert_eq!(
            (answer.status(), answer.text().await.unwrap()),
            (StatusCode::OK, String::new()),
            "{method}"
        );
        let seen = world.seen.lock().unwrap().pop().unwrap();
        assert!(seen.starts_with(method) && !seen.contains("override") && !seen.contains("x-http"), "{seen}");
    }
}

/// The status line of a request whose target no HTTP library has tidied up.
async fn raw(authority: &str, target: &str, token: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{LIST}",
        LIST.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

// I-P7: whoever has a token holds no connection with a body that comes a byte at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_hardly_comes_is_not_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new().await;
    let authority = world.resource.trim_start_matches("http://").split('/').next().unwrap();
    let (mut reading, mut writing) = tokio::net::TcpStream::connect(authority).await.unwrap().into_split();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n",
        world.token("notes:read", "alice")
    );
    writing.write_all(head.as_bytes()).await.unwrap();
    let drips = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut answer = Vec::new();
    // To its end, or until it is reset because of what was sent meanwhile.
    let ended = async { while reading.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
    drips.abort();
    assert!(ended.is_ok(), "the connection is held");
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("the body did not arrive in time"), "{answer}");
    assert!(world.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_passes_as_it_comes() {
    let world = World::new().await;
    let url = format!("{}/stream", world.resource);
    let request =
        world.http.get(url).header("authorization", format!("Bearer {}", world.token("notes:read", "alice")));
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = tokio::time::timeout(Duration::from_secs(2), answer.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, "data: one\n\n");
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: two\n\n");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_told_to_stop_lets_requests_end() {
    let mut world = World::new().await;
    let url = format!("{}/stream", world.resource);
    let request =
        world.http.get(url).header("authorization", format!("Bearer {}", world.token("notes:read", "alice")));
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: one\n\n");
    let process = world.guard.0.id().to_string();
    assert!(Command::new("kill").arg(process).status().unwrap().success());
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: two\n\n", "what was begun goes on");
    drop(answer);
    let ended = tokio::task::spawn_blocking(move || world.guard.0.wait().map(|status| status.success()));
    let ended = tokio::time::timeout(Duration::from_secs(25), ended).await;
    assert!(ended.unwrap().unwrap().unwrap(), "it ends in order");
}

#[test]
fn a_guard_that_is_told_nonsense_does_not_start() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_mcp-authz")).arg("guard").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let base = [
        "--upstream",
        "http://127.0.0.1:1",
        "--resource",
        "https://mcp.example",
        "--issuer",
        "https://as.example",
    ];
    for (extra, says) in [
        (["--tool", "add_note"], "NAME=SCOPES"),
        (["--scope", "offline_access"], "offline_access"),
        (["--host", "a b"], "Host"),
        (["--origin", "https://a.example/x"], "origin"),
        (["--audience", ""], "audience"),
        (["--private-network", "0.0.0.0/0"], "private-network"),
        (["--resource", "http://mcp.example"], "cannot be used multiple times"),
    ] {
        let arguments: Vec<&str> = base.iter().copied().chain(extra).collect();
        let (code, told) = run(&arguments);
        assert!(code == Some(2) && told.contains(says), "{extra:?}: {told}");
    }
    // Nobody answers there: which server that is, is said.
    let mut arguments = base;
    arguments[5] = "http://127.0.0.1:1";
    let (code, told) = run(&arguments);
    assert!(code == Some(2) && told.contains("http://127.0.0.1:1") && told.contains("--jwks"), "{told}");
    for option in ["--upstream", "--resource", "--issuer"] {
        let mut arguments = base;
        let at = arguments.iter().position(|argument| *argument == option).unwrap() + 1;
        arguments[at] = "ftp://elsewhere.example";
        let (code, told) = run(&arguments);
        assert!(code == Some(2) && told.contains(option), "{option}: {told}");
    }
}
