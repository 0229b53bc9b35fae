//! `mcp-authz serve` as an operator runs it: one process, a file for a store, and what its own subcommands say of it.

mod attacks;
mod grants;
mod login;
mod operator;
mod people;
#[cfg(feature = "postgres-tests")]
mod postgres;
#[path = "../../../runtime/tests/upstream/provider.rs"]
mod provider;
mod sessions;
mod sign_in;
mod support;
mod tls;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};

const TOOL: &str = env!("CARGO_BIN_EXE_mcp-authz");
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:9/callback";

/// A server that stops with its guard.
struct Server {
    child: Child,
    base: String,
    http: Client,
    log: std::sync::Mutex<std::sync::mpsc::Receiver<String>>,
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_at(free_port(), folder, arguments)
    }

    /// A server whose issuer is the same after a restart.
    fn start_at(port: u16, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_beside(port, port, folder, arguments)
    }

    /// A further process of the server whose issuer is at the first port: it listens at the other, as if behind one proxy.
    fn start_beside(issuer: u16, port: u16, folder: &Path, arguments: &[&str]) -> Self {
        let (issuer, base) = (format!("http://127.0.0.1:{issuer}"), format!("http://127.0.0.1:{port}"));
        let mut child = Command::new(TOOL)
            .current_dir(folder)
            .args(["serve", "--issuer", &issuer, "--listen", &format!("127.0.0.1:{port}"), "--json-log"])
            .args(["--resource", "http://127.0.0.1:8/mcp", "--registration", "open"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, log) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        let log = std::sync::Mutex::new(log);
        let server = Self { child, base, http, log };
        for _ in 0..300 {
            if server.http.get(format!("{}/readyz", server.base)).send().is_ok_and(|r| r.status() == 200) {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "the server does not come up: {:?}",
            server.log.lock().unwrap().try_iter().collect::<Vec<_>>()
        );
    }

    fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base)).send().unwrap()
    }

    fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Response {
        let body = mcp_authz::syntax::form::encode(pairs.iter().copied());
        let request = self.http.post(format!("{}{path}", self.base));
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send().unwrap()
    }

    fn register(&self) -> String {
        let body = format!(
            r#"{{"redirect_uris":["{CALLBACK}"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"]}}"#
        );
        let request = self.http.post(format!("{}/register", self.base));
        let answer = request.header("content-type", "application/json").body(body).send().unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        member(answer, "client_id")
    }

    fn authorize(&self, client: &str, change: &[(&str, &str)]) -> Response {
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", CALLBACK),
            ("state", "s"),
            ("resource", "http://127.0.0.1:8/mcp"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in change {
            pairs.retain(|(known, _)| known != name);
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        self.get(&format!("/authorize?{}", mcp_authz::syntax::form::encode(pairs)))
    }

    fn code(&self, client: &str) -> String {
        let answer = self.authorize(client, &[]);
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        assert!(location.starts_with(CALLBACK) && location.matches("iss=").count() == 1, "{location}");
        location.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned()
    }

    fn redeem(&self, client: &str, code: &str, verifier: &str) -> Response {
        self.post(
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("client_id", client),
                ("code", code),
                ("code_verifier", verifier),
                ("redirect_uri", CALLBACK),
            ],
        )
    }

    fn refresh(&self, client: &str, token: &str) -> Response {
        self.post(
            "/token",
            &[("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", token)],
        )
    }

    /// Asks the process to stop, as a supervisor does; its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn member(answer: Response, name: &str) -> String {
    let body: serde_json::Value = answer.json().unwrap();
    body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned()
}

fn tool(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(TOOL);
    let command = command.current_dir(folder).args(arguments).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A server that should not have started is ended, and its test fails.
    for _ in 0..600 {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait_with_output().unwrap()
}

const STORED: [&str; 4] = ["--store", "sqlite:store.db", "--master-key", "master.key"];

#[test]
fn a_server_keeps_everything_over_a_restart_and_its_operator_sees_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = [&STORED[..], &["--dangerously-auto-approve", "ann"]].concat();
    let port = free_port();
    let mut server = Server::start_at(port, folder, &arguments);
    let client = server.register();
    let issued: serde_json::Value = server.redeem(&client, &server.code(&client), VERIFIER).json().unwrap();
    let (access, refresh) = (
        issued["access_token"].as_str().unwrap().to_owned(),
        issued["refresh_token"].as_str().unwrap().to_owned(),
    );
    let kid = server.get("/jwks").json::<serde_json::Value>().unwrap()["keys"][0]["kid"].clone();
    assert_eq!(server.stop(), Some(0), "a server that is told to stop ends in peace");
    let logged: Vec<String> = server.log.lock().unwrap().iter().collect();
    assert!(logged[0].starts_with("WARNING:"), "{logged:?}");
    for line in &logged[1..] {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        assert!(!line.contains(&access) && !line.contains(&refresh));
    }
    #[cfg(unix)]
    for file in ["master.key", "store.db"] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }

    let server = Server::start_at(port, folder, &arguments);
    assert_eq!(server.get("/jwks").json::<serde_json::Value>().unwrap()["keys"][0]["kid"], kid);
    let next = member(server.refresh(&client, &refresh), "refresh_token");
    let issuer = ["--issuer", server.base.as_str()];
    let with = |words: &[&str]| tool(folder, &[words, &STORED, &issuer].concat());
    let listed = String::from_utf8(with(&["grants", "list"]).stdout).unwrap();
    assert!(listed.contains("ann") && listed.contains(&client) && listed.contains("mcp"), "{listed}");
    let clients = String::from_utf8(with(&["clients", "list"]).stdout).unwrap();
    assert!(clients.contains(&client), "{clients}");
    assert_eq!(with(&["grants", "revoke"]).status.code(), Some(2), "nothing named is not everything");
    assert!(with(&["keys", "rotate"]).status.success());
    let ended = with(&["grants", "revoke", "--subject", "ann"]);
    // What ends besides is said, too.
    assert!(ended.status.success());
    assert!(String::from_utf8(ended.stdout).unwrap().contains("signed out everywhere"));
    assert_eq!(member(server.refresh(&client, &next), "error"), "invalid_grant");
    assert!(with(&["grants", "list"]).stdout.is_empty());
    assert!(with(&["clients", "remove", &client]).status.success());
    assert_eq!(server.refresh(&client, &next).status(), StatusCode::UNAUTHORIZED);
}

// I-G14
#[test]
fn an_older_copy_of_the_store_is_refused_until_the_operator_owns_up_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = [&STORED[..], &["--dangerously-auto-approve", "ann"]].concat();
    let port = free_port();
    let mut server = Server::start_at(port, folder, &arguments);
    let kid = |server: &Server| {
        server.get("/jwks").json::<serde_json::Value>().unwrap()["keys"][0]["kid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let withdrawn = kid(&server);
    let added =
        ["clients", "add", "--name", "Mine", "--redirect-uri", "http://127.0.0.1/cb", "--method", "none"];
    let added = tool(folder, &[&added[..], &STORED[..]].concat());
    let added = String::from_utf8(added.stdout).unwrap();
    let own = added.lines().find_map(|line| line.strip_prefix("client_id: ")).unwrap().to_owned();
    let client = server.register();
    let refresh = member(server.redeem(&client, &server.code(&client), VERIFIER), "refresh_token");
    server.stop();
    let backup = folder.join("backup");
    std::fs::create_dir(&backup).unwrap();
    let files = ["store.db", "store.db-wal"];
    for file in files {
        let _absent = std::fs::copy(folder.join(file), backup.join(file));
    }
    let mut server = Server::start_at(port, folder, &arguments);
    member(server.refresh(&client, &refresh), "refresh_token");
    server.stop();
    let _absent = std::fs::remove_file(folder.join("store.db-shm"));
    for file in files {
        let _absent = std::fs::remove_file(folder.join(file));
        let _absent = std::fs::copy(backup.join(file), folder.join(file));
    }
    let issuer = ["--issuer", "http://127.0.0.1:7", "--listen", "127.0.0.1:0"];
    let resource = ["--resource", "http://127.0.0.1:8/mcp"];
    let refused = tool(folder, &[&["serve"], &arguments[..], &issuer, &resource].concat());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && error.contains("store restored"), "{error}");
    let restored = tool(folder, &[&["store", "restored"], &STORED[..], &issuer[..2]].concat());
    assert!(restored.status.success());
    let said = String::from_utf8(restored.stdout).unwrap();
    // Its own client is the operator's to look after; one that registered itself comes back by itself.
    assert!(said.contains("signing keys") && said.contains(&own) && !said.contains(&client), "{said}");
    let server = Server::start_at(port, folder, &arguments);
    assert_ne!(kid(&server), withdrawn, "a key of the copy may have been withdrawn since");
    assert_eq!(member(server.refresh(&client, &refresh), "error"), "invalid_client");
    let again = server.register();
    assert_eq!(
        member(server.refresh(&again, &refresh), "error"),
        "invalid_grant",
        "the retired token stays dead"
    );
}

/// The attacks of `vulnerabilities.md` that reach the endpoints from outside, over HTTP.
#[test]
fn attacks_over_http_get_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = format!("127.0.0.1:{}", free_port());
    let arguments = ["--store", "memory", "--dangerously-auto-approve", "ann", "--metrics-listen", &metrics];
    let server = Server::start(folder.path(), &arguments);
    let (client, other) = (server.register(), server.register());
    // 1, 87, 112, 133: nobody is sent to an address that is not registered, not even with an error.
    for uri in [
        "https://evil.example/callback",
        "http://127.0.0.1:9/callback/../x",
        "http://127.0.0.1:9@evil.example/callback",
        "http://127.0.0.1:9/callback#x",
        "http://127.0.0.1:9\\@evil.example/callback",
        "http://LOCALHOST:9/callback",
        "javascript:alert(1)",
    ] {
        let answer = server.authorize(&client, &[("redirect_uri", uri), ("response_type", "token")]);
        assert!(answer.status().is_client_error() && !answer.headers().contains_key("location"), "{uri}");
    }
    // 2, 15, 55, 96: no code without an S256 challenge.
    for change in [
        [("code_challenge", ""), ("state", "s")],
        [("code_challenge_method", ""), ("state", "s")],
        [("code_challenge_method", "plain"), ("state", "s")],
        [("resource", "https://other.example"), ("state", "s")],
    ] {
        let answer = server.authorize(&client, &change);
        let location = answer.headers()["location"].to_str().unwrap();
        assert!(location.contains("error=") && !location.contains("code="), "{location}");
    }
    // 97: a parameter said twice means nothing.
    let twice = server.get(&format!("/authorize?client_id={client}&client_id={other}&response_type=code"));
    assert!(twice.status().is_client_error() && !twice.headers().contains_key("location"));
    // 5, 81, 89, 113: a wrong guess at a code changes nothing, whoever makes it.
    let code = server.code(&client);
    for (who, verifier) in [(&other, VERIFIER), (&client, "x".repeat(43).as_str())] {
        assert_eq!(member(server.redeem(who, &code, verifier), "error"), "invalid_grant");
    }
    let issued: serde_json::Value = server.redeem(&client, &code, VERIFIER).json().unwrap();
    let refresh = issued["refresh_token"].as_str().unwrap();
    // 89, 117, 6: another client cannot use or revoke a refresh token, and learns nothing by trying.
    assert_eq!(member(server.refresh(&other, refresh), "error"), "invalid_grant");
    assert_eq!(server.post("/revoke", &[("token", refresh), ("client_id", &other)]).status(), 200);
    // 62, 68, 115, 7: a code that comes back ends everything that came of it.
    let next = member(server.refresh(&client, refresh), "refresh_token");
    assert_eq!(member(server.redeem(&client, &code, VERIFIER), "error"), "invalid_grant");
    assert_eq!(member(server.refresh(&client, &next), "error"), "invalid_grant");
    // 8, 116: so does a refresh token.
    let refresh = member(server.redeem(&client, &server.code(&client), VERIFIER), "refresh_token");
    let next = member(server.refresh(&client, &refresh), "refresh_token");
    assert_eq!(member(server.refresh(&client, &refresh), "error"), "invalid_grant");
    assert_eq!(member(server.refresh(&client, &next), "error"), "invalid_grant");
    // 118, 120: a public client introspects nothing.
    assert_eq!(server.post("/introspect", &[("token", &next), ("client_id", &client)]).status(), 401);
    // 64, 95: the documents come of the configuration, whatever the request says.
    let document = server.http.get(format!("{}/.well-known/oauth-authorization-server", server.base));
    let document =
        document.header("x-forwarded-host", "evil.example").header("host", "evil.example").send().unwrap();
    assert!(!document.text().unwrap().contains("evil.example"));
    // 65, 66: registrations are limited.
    let many = (0..12).any(|_| {
        let request =
            server.http.post(format!("{}/register", server.base)).header("content-type", "application/json");
        request.body("{}").send().unwrap().status() == StatusCode::TOO_MANY_REQUESTS
    });
    assert!(many);
    let counted = server.http.get(format!("http://{metrics}/metrics")).send().unwrap().text().unwrap();
    assert!(counted.contains("mcp_authz_tokens_issued_total 4") && !counted.contains(&client), "{counted}");
}

#[test]
fn what_is_not_configured_right_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = tool(folder.path(), &[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let issuer = ["--issuer", "http://127.0.0.1:7"];
    let with = |more: &[&str]| refused(&[&issuer[..], more].concat());
    assert!(refused(&["--store", "memory"]).contains("issuer"));
    assert!(with(&["--store", "memory"]).contains("at least one resource"));
    let resource = ["--resource", "http://127.0.0.1:8/mcp"];
    let with = |more: &[&str]| refused(&[&issuer[..], &resource, more].concat());
    assert!(with(&["--store", "memory"]).contains("at least one person"));
    assert!(
        with(&["--store", "redis://x", "--master-key", "k"]).contains("memory, sqlite:FILE or postgres://")
    );
    assert!(with(&["--store", "sqlite:x.db"]).contains("master key"));
    let none = with(&["--store", "sqlite::memory:", "--master-key", "k"]);
    assert!(none.contains("is no file's name") && none.contains("--store memory"), "{none}");
    assert!(!folder.path().join(":memory:").exists());
    assert!(with(&["--store", "memory", "--user", "ann:plain"]).contains("argon2"));
    std::fs::write(folder.path().join("open.key"), [1; 32]).unwrap();
    assert!(with(&["--store", "memory", "--master-key", "open.key"]).contains("readable by others"));
    let listening = tool(
        folder.path(),
        &["serve", "--listen", "0.0.0.0:0", "--issuer", "https://as.example", "--store", "memory"],
    );
    assert!(String::from_utf8(listening.stderr).unwrap().contains("--trusted-proxy"));
    // Behind a proxy that is not named everybody would have its address.
    let unnamed = refused(&["--issuer", "https://as.example", "--store", "memory"]);
    assert!(unnamed.contains("no certificate") && unnamed.contains("--trusted-proxy"), "{unnamed}");
    let with =
        |more: &[&str]| with(&[&["--store", "memory", "--dangerously-auto-approve", "ann"], more].concat());
    for origin in ["*", "null", "http://app.example", "https://app.example/"] {
        std::fs::write(folder.path().join("o.toml"), format!("allowed_origins = [{origin:?}]\n")).unwrap();
        let said = with(&["--config", "o.toml"]);
        assert!(said.contains("allowed_origins") && !said.contains("panicked"), "{said}");
    }
    // The file and the member are named, and nothing secret is.
    for (text, named) in [
        ("store = \"postgres://ann:hunter2@db/authz\njson_log = true\n", "bad.toml: line 1, "),
        ("grant_days = 9223372036854775807\n", "bad.toml: line 1, column 14, grant_days: "),
        ("signing_key_days = -5\n", "signing_key_days: -5 is not from 1 to 3650"),
        ("limits = { registrations = 0 }\n", "registrations: "),
    ] {
        std::fs::write(folder.path().join("bad.toml"), text).unwrap();
        let said = with(&["--config", "bad.toml"]);
        assert!(said.contains(named) && !said.contains("hunter2") && !said.contains("panicked"), "{said}");
        let keys = tool(folder.path(), &["keys", "rotate", "--config", "bad.toml"]);
        let said = String::from_utf8(keys.stderr).unwrap();
        assert!(keys.status.code() == Some(2) && said.contains(named) && !said.contains("hunter2"), "{said}");
    }
    let client = format!(
        r#"{{"client_id":"twice","redirect_uris":["{CALLBACK}"],"token_endpoint_auth_method":"none"}}"#
    );
    for file in ["one.json", "two.json"] {
        std::fs::write(folder.path().join(file), &client).unwrap();
    }
    let said = with(&["--client", "one.json", "--client", "two.json"]);
    assert!(said.contains("one.json") && said.contains("two.json") && said.contains("\"twice\""), "{said}");
    std::fs::write(folder.path().join("two.json"), client.replace("redirect_uris", "redirect_uri")).unwrap();
    let said = with(&["--client", "two.json"]);
    assert!(said.contains("two.json") && said.contains("did you mean \"redirect_uris\"?"), "{said}");
}

#[test]
fn a_hashed_password_is_what_the_configuration_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        Command::new(TOOL).arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let hash = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let user = format!("ann:{}", hash.trim());
    let server = Server::start(folder.path(), &["--store", "memory", "--user", &user]);
    let page = server.authorize(&server.register(), &[]).text().unwrap();
    assert!(page.contains("type=\"password\"") && !page.contains("name=\"decision\""), "{page}");
    let example = tool(folder.path(), &["serve", "--example-configuration"]);
    assert!(String::from_utf8(example.stdout).unwrap().contains("refresh_grace"));
}
