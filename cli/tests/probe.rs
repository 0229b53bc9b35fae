//! The probe as a server's author or a CI job runs it: the binary against our own servers, where nothing fails, and against
//! others, with its exit codes and both forms of its output.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

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

    /// Our own authorization server and resource server; the URL of the latter.
    fn own(&self) -> String {
        let ((issuing, issuer), (serving, server)) = (self.listen(), self.listen());
        let issuer = Issuer::new(format!("http://{issuer}")).unwrap();
        let resource = ResourceId::new(format!("http://{server}/mcp")).unwrap();
        let scope = Scope::new("notes:read").unwrap();
        let known = KnownResource::new(resource.clone(), [(scope, "Read your notes".to_owned())]);
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let configuration =
            Configuration::new(issuer.clone(), vec![known], key.id()).registration(RegistrationPolicy::Open);
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
        );
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
    let url = servers.own();
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
    if std::env::var_os("SHOW").is_some() {
        println!("URL {url}");
        std::thread::sleep(Duration::from_secs(90));
    }
}
