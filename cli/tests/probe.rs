//! The probe as a server's author or a CI job runs it: the binary against our own servers, where nothing fails, and against
//! others, with its exit codes and both forms of its output.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use mcp_authz::authorization_server::{
    AuthorizationServer, Configuration, KnownResource, RegistrationPolicy,
};
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId, Scope, ScopeSet};
use mcp_authz::jose::Algorithm;
use mcp_authz::resource_server::{ResourceServer, TrustedIssuer};
use mcp_authz_tokio::authorization_server::AuthorizationServerHost;
use mcp_authz_tokio::authorization_server::people::LocalUser;
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::keys::{AwsLcImporter, SigningKey};
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use mcp_authz_tokio::store::memory::MemoryStore;
use serde_json::Value;
use tokio::net::TcpListener;

/// Serves in the background, until the test's process ends.
struct Servers(tokio::runtime::Runtime);

impl Servers {
    fn new() -> Self {
        Self(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
    }

    fn serve(&self, listener: TcpListener, router: Router) {
        self.0.spawn(async move { axum::serve(listener, router).await });
    }

    fn listen(&self) -> (TcpListener, SocketAddr) {
        let listener = self.0.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An MCP server that answers everything with that status.
    fn answering(&self, status: StatusCode) -> String {
        let (listener, address) = self.listen();
        self.serve(listener, Router::new().fallback(any(move || async move { status })));
        format!("http://{address}/mcp")
    }

    /// Our own authorization server, with or without client metadata documents, and resource server; the URL of the
    /// latter.
    fn own(&self, metadata_documents: bool) -> String {
        let ((issuing, issuer), (serving, server)) = (self.listen(), self.listen());
        let issuer = Issuer::new(format!("http://{issuer}")).unwrap();
        let resource = ResourceId::new(format!("http://{server}/mcp")).unwrap();
        let scope = Scope::new("notes:read").unwrap();
        let known = KnownResource::new(resource.clone(), [(scope, "Read your notes".to_owned())]);
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let configuration = Configuration::new(issuer.clone(), vec![known], key.id())
            .registration(RegistrationPolicy::Open)
            .metadata_documents(metadata_documents);
        let fetcher = Fetcher::new().unwrap();
        let host = AuthorizationServerHost::new(
            AuthorizationServer::new(configuration).unwrap(),
            Arc::new(MemoryStore::new()),
            Arc::new(key),
            Arc::new(LocalUser::with_page("alice").unwrap()),
            fetcher.clone(),
        );
        self.serve(issuing, host.router());
        let jwks = Endpoint::new(format!("{issuer}/jwks")).unwrap();
        let source = KeySource::new(issuer.clone(), jwks, Arc::new(AwsLcImporter));
        let keys = self.0.block_on(source.fetch(&fetcher)).unwrap();
        let scopes = ScopeSet::parse("notes:read").unwrap();
        let layer = ResourceServerLayer::new(
            ResourceServer::new(resource.clone(), [TrustedIssuer::with_keys(issuer, keys)])
                .unwrap()
                .with_scopes_supported(scopes.clone())
                .unwrap()
                .with_name("Notes"),
            fetcher,
            McpScopes::new(scopes).unwrap(),
        )
        .unwrap();
        let inner = Router::new().route("/mcp", any(|| async {})).layer(layer);
        self.serve(serving, inner);
        resource.as_str().to_owned()
    }
}

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-authz")).arg("probe").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", text(&output.stdout)))
}

fn findings(report: &Value) -> Vec<&Value> {
    let sections = report["sections"].as_array().unwrap();
    sections.iter().flat_map(|section| section["findings"].as_array().unwrap()).collect()
}

fn of_status<'a>(report: &'a Value, status: &str) -> Vec<&'a str> {
    let found = findings(report).into_iter().filter(|finding| finding["status"] == status);
    found.map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[test]
fn our_own_servers_pass_every_check() {
    let servers = Servers::new();
    let url = servers.own(true);
    let output = probe(&[&url, "--json", "--register", "--warnings-fail"]);
    let report = report(&output);
    assert_eq!(of_status(&report, "fail"), [""; 0], "{report:#}");
    assert_eq!(of_status(&report, "warn"), [""; 0], "{report:#}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((&report["verdict"], &report["exit_code"]), (&"pass".into(), &0.into()));
    let passed = of_status(&report, "pass");
    for check in [
        "no-token.stateless",
        "challenge.scope",
        "bad-token.error",
        "resource-metadata.resource",
        "server-metadata.issuer",
        "server-metadata.keys",
        "authorize.open-redirect",
        "token.error",
        "revocation",
        "register.script-redirect",
        "registered.open-redirect",
        "client.discovery",
    ] {
        assert!(passed.contains(&check), "{check}: {report:#}");
    }

    let shown = probe(&[&url]);
    assert_eq!(shown.status.code(), Some(0));
    let shown = text(&shown.stdout);
    assert!(shown.lines().last().unwrap().starts_with("PASS: "), "{shown}");
    assert!(shown.contains("MCP-AUTH-076") && !shown.contains('\u{1b}'), "{shown}");
    let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest}");
}

#[test]
fn the_exit_code_tells_a_failure_from_a_walk_that_could_not_be_done() {
    let servers = Servers::new();
    let open = servers.answering(StatusCode::OK);
    let output = probe(&[&open, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let seen = report(&output);
    assert_eq!((&seen["verdict"], &seen["exit_code"]), (&"fail".into(), &1.into()));
    assert!(of_status(&seen, "fail").contains(&"no-token.stateless"));
    let failed = findings(&seen).into_iter().find(|finding| finding["status"] == "fail").unwrap();
    for member in ["check", "title", "seen", "fix"] {
        assert!(!failed[member].as_str().unwrap().is_empty(), "{member}");
    }
    assert_eq!(failed["requirements"], serde_json::json!(["MCP-AUTH-076"]));

    let missing = servers.answering(StatusCode::NOT_FOUND);
    let (free, address) = servers.listen();
    drop(free);
    let nobody = format!("http://{address}/mcp");
    for url in [missing.as_str(), nobody.as_str(), "no url"] {
        let output = probe(&[url, "--json"]);
        assert_eq!(output.status.code(), Some(2), "{url}");
        let seen = report(&output);
        assert_eq!(seen["verdict"], "incomplete", "{url}");
        assert!(!seen["cut_short"].as_str().unwrap().is_empty(), "{url}");
        let shown = probe(&[url]);
        assert_eq!(shown.status.code(), Some(2));
        assert!(text(&shown.stdout).contains("The walk stopped: "), "{}", text(&shown.stdout));
        assert!(text(&shown.stdout).lines().last().unwrap().starts_with("NOT DONE: "));
    }
    // Plain http beyond this machine is a failure, and nothing is sent.
    let plain = probe(&["http://server.invalid/mcp", "--json"]);
    assert_eq!((plain.status.code(), &report(&plain)["requests"]), (Some(1), &0.into()));
}

#[test]
fn warnings_fail_when_they_are_to() {
    let servers = Servers::new();
    let url = servers.own(false);
    for (arguments, code) in [(&["--json"][..], 0), (&["--json", "--warnings-fail"], 1)] {
        let url = url.replace("http://", "HTTP://");
        let output = probe(&[&[url.as_str()], arguments].concat());
        assert_eq!(output.status.code(), Some(code));
        let seen = report(&output);
        assert_eq!((&seen["verdict"], &seen["exit_code"]), (&"warn".into(), &code.into()));
        assert_eq!(of_status(&seen, "warn"), ["server-metadata.registration"]);
    }
    // Before there were client metadata documents, nobody could ask for them.
    let output = probe(&[&url, "--json", "--warnings-fail", "--revision", "2025-06-18"]);
    assert_eq!(output.status.code(), Some(0), "{:#}", report(&output));
}

#[test]
fn revision_and_relaxations_are_in_the_report() {
    let servers = Servers::new();
    let url = servers.own(true);
    let relaxation = format!("AssumeS256={}", url.trim_end_matches("/mcp"));
    let output = probe(&[&url, "--json", "--relax", &relaxation, "--revision", "2025-11-25"]);
    let seen = report(&output);
    assert_eq!(output.status.code(), Some(0), "{seen:#}");
    assert_eq!(seen["revision"], "2025-11-25");
    assert_eq!(seen["relaxations"], serde_json::json!([relaxation]));
    // Revisions with sessions begin with initialize.
    assert!(findings(&seen).iter().all(|finding| finding["check"] != "no-token.stateless"));
}

#[test]
fn options_that_cannot_be_read_are_refused() {
    for arguments in [
        &["https://server.invalid/mcp", "--relax", "AssumeS256"][..],
        &["https://server.invalid/mcp", "--relax", "Everything=https://as.invalid"],
        &[
            "https://server.invalid/mcp",
            "--relax",
            "AssumeS256=https://as.invalid",
            "--relax",
            "AssumeS256=https://as.invalid",
        ],
        &["https://server.invalid/mcp", "--revision", "latest"],
        &["https://server.invalid/mcp", "--timeout", "0"],
        &[],
    ] {
        let output = probe(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let proxy = "EgressProxy=http://proxy.invalid:3128 enforces-address-policy";
    let output = probe(&["https://server.invalid/mcp", "--relax", proxy]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("EgressProxy is not for probe"));
    let help = probe(&["--help"]);
    for option in
        ["--json", "--warnings-fail", "--register", "--relax", "--revision", "--timeout", "Exit code: 0"]
    {
        assert!(text(&help.stdout).contains(option), "{option}");
    }
}

#[test]
fn a_silent_server_does_not_hold_the_probe_up() {
    let servers = Servers::new();
    let (listener, address) = servers.listen();
    // Connections are taken by the system, and never answered.
    let started = Instant::now();
    let output = probe(&[&format!("http://{address}/mcp"), "--timeout", "1"]);
    drop(listener);
    assert_eq!(output.status.code(), Some(2));
    assert!(started.elapsed() < Duration::from_secs(10));
}
