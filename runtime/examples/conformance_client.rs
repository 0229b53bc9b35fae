//! The client that the MCP conformance suite runs: one way through the public API, whatever the scenario.
//!
//! It connects to the MCP server of its last argument, lists the tools and calls each. Everything about authorization
//! happens inside [`Connection`]; the person of this program consents to everything, by following the redirect of the
//! authorization endpoint. `tests/conformance/run` builds it and hands it to the suite, which sets
//! `MCP_CONFORMANCE_PROTOCOL_VERSION` and, for a client that was registered by hand, `MCP_CONFORMANCE_CONTEXT`.
//!
//! It ends with 0 when every request was answered, 1 when the authorization was refused on this side or by the peer,
//! and 2 when anything else went wrong.

use std::error::Error as StdError;
use std::process::ExitCode;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mcp_authz::client::{Client, Configuration, OpenUserAgent, PreRegistered};
use mcp_authz::error::Error;
use mcp_authz::identifier::{ClientId, ClientMetadataUrl, Issuer, ResourceId};
use mcp_authz::policy::{Policy, Relaxation};
use mcp_authz::secret::ClientSecret;
use mcp_authz_tokio::BoxFuture;
use mcp_authz_tokio::client::browser::BrowserFailed;
use mcp_authz_tokio::client::callback::CallbackListener;
use mcp_authz_tokio::client::connection::{Connection, McpReply, McpRequest, SendError};
use mcp_authz_tokio::client::driver::{Driver, LoginError};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::client::pairing::WhateverTheResourceNames;
use mcp_authz_tokio::client::user_agent::UserAgent;
use mcp_authz_tokio::mcp_fields;
use serde_json::{Value, json};

/// The suite gives a client 30 seconds and reports nothing of one that hangs.
const DEADLINE: Duration = Duration::from_secs(25);

/// Where the suite thinks this client publishes its metadata document.
const METADATA_URL: &str = "https://conformance-test.local/client-metadata.json";

/// The first revision without sessions: each request carries what `initialize` used to settle.
const STATELESS: &str = "2026-07-28";

type Failure = Box<dyn StdError + Send + Sync>;

/// A person who consents at once, at an authorization server that asks nothing.
#[derive(Debug)]
struct Consenting(reqwest::Client);

impl UserAgent for Consenting {
    fn open<'a>(&'a self, action: &'a OpenUserAgent) -> BoxFuture<'a, Result<(), BrowserFailed>> {
        Box::pin(async move {
            let answer = self.0.get(action.url()).send().await.map_err(|_| BrowserFailed)?;
            let location = answer.headers().get(http::header::LOCATION).ok_or(BrowserFailed)?;
            let location = location.to_str().map_err(|_| BrowserFailed)?.to_owned();
            // The listener answers once the login is over, so nobody waits for it here.
            tokio::spawn(self.0.get(location).send());
            Ok(())
        })
    }
}

/// One MCP server, spoken to in one revision.
struct Server {
    connection: Connection,
    revision: String,
    session: Option<HeaderValue>,
    requests: u64,
}

impl Server {
    async fn connect(url: &str, revision: String, context: &Value) -> Result<Self, Failure> {
        let listener = CallbackListener::bind().await?;
        let server = ResourceId::from_server_url(url)?;
        // Of use only to a server of 2025-03-26 that publishes nothing: the revision is stated, never guessed.
        let policy = Policy::strict().relax(Relaxation::LegacyEndpoints(server.clone()));
        let mut configuration =
            Configuration::new("mcp-authz conformance client", listener.redirect_uri("/callback")?)
                .metadata_document(ClientMetadataUrl::new(METADATA_URL)?)
                .revision(revision.parse()?)
                .policy(policy);
        let text = |name: &str| context.get(name).and_then(Value::as_str);
        if let (Some(client_id), Some(issuer)) = (text("client_id"), text("issuer")) {
            let identity = PreRegistered::new(
                Issuer::new(issuer)?,
                ClientId::new(client_id)?,
                listener.redirect_uri("/registered")?,
                [server],
            );
            configuration = configuration.pre_registered(match text("client_secret") {
                Some(secret) => identity.secret(ClientSecret::new(secret)?),
                None => identity,
            });
        }
        let browser =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
        let driver =
            Driver::builder(Client::new(configuration)?, Fetcher::new()?, listener, Consenting(browser))
                // Every server here is the suite's.
                .pairing(WhateverTheResourceNames)
                .build();
        Ok(Self { connection: Connection::new(driver, url)?, revision, session: None, requests: 0 })
    }

    fn is_stateless(&self) -> bool {
        self.revision.as_str() >= STATELESS
    }

    /// Sends one message; `id` is absent for a notification.
    async fn send(&mut self, method: &str, mut params: Value, id: Option<u64>) -> Result<McpReply, Failure> {
        if self.is_stateless() {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": self.revision,
                "io.modelcontextprotocol/clientInfo": client_info(),
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if let Some(id) = id {
            message["id"] = id.into();
        }
        let mut request = McpRequest::json_rpc(method, message.to_string());
        let mut header = |name: &'static str, value: HeaderValue| {
            request.headers.insert(HeaderName::from_static(name), value);
        };
        if method != "initialize" {
            header("mcp-protocol-version", HeaderValue::from_str(&self.revision)?);
        }
        if self.is_stateless() {
            header(mcp_fields::METHOD, mcp_fields::value(method));
            if let Some(name) = params.get("name").and_then(Value::as_str) {
                header(mcp_fields::NAME, mcp_fields::value(name));
            }
        }
        if let Some(session) = &self.session {
            header("mcp-session-id", session.clone());
        }
        let reply = self.connection.send(&request).await?;
        match reply.status {
            200..=299 => Ok(reply),
            status => Err(format!("{method} was answered with status {status}").into()),
        }
    }

    /// Sends one request and finds its result among the messages of the reply.
    async fn request(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.requests += 1;
        let id = self.requests;
        let reply = self.send(method, params, Some(id)).await?;
        for message in reply.messages() {
            let mut message: Value = serde_json::from_slice(message)?;
            if message.get("id") == Some(&id.into()) {
                if method == "initialize" {
                    let field = reply.headers.iter().find(|(name, _)| name.as_str() == "mcp-session-id");
                    self.session = field.map(|(_, value)| value.clone());
                }
                return match message.get_mut("result") {
                    Some(result) => Ok(result.take()),
                    None => Err(format!("{method} was answered with an error").into()),
                };
            }
        }
        Err(format!("{method} was not answered").into())
    }

    async fn initialize(&mut self) -> Result<(), Failure> {
        let params = json!({
            "protocolVersion": self.revision, "capabilities": {}, "clientInfo": client_info(),
        });
        let result = self.request("initialize", params).await?;
        if let Some(revision) = result.get("protocolVersion").and_then(Value::as_str) {
            self.revision = revision.to_owned();
        }
        self.send("notifications/initialized", json!({}), None).await?;
        Ok(())
    }
}

fn client_info() -> Value {
    json!({"name": "mcp-authz-conformance", "version": env!("CARGO_PKG_VERSION")})
}

async fn run() -> Result<(), Failure> {
    let url = std::env::args().next_back().filter(|url| url.starts_with("http"));
    let url = url.ok_or("the last argument is the URL of an MCP server")?;
    let revision = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION").unwrap_or_else(|_| STATELESS.into());
    let context = match std::env::var("MCP_CONFORMANCE_CONTEXT") {
        Ok(context) => serde_json::from_str(&context)?,
        Err(_) => Value::Null,
    };
    let mut server = Server::connect(&url, revision, &context).await?;
    if !server.is_stateless() {
        server.initialize().await?;
    }
    let listed = server.request("tools/list", json!({})).await?;
    let tools = listed.get("tools").and_then(Value::as_array).cloned().unwrap_or_default();
    for name in tools.iter().filter_map(|tool| tool.get("name")) {
        server.request("tools/call", json!({"name": name, "arguments": {}})).await?;
    }
    Ok(())
}

/// Whether a peer broke a rule, lacks something, or said no; not a fault of the network or of this program.
fn is_refusal(failure: &Failure) -> bool {
    let judged = |error: &Error| matches!(error, Error::Peer(_) | Error::Incompatible(_));
    match failure.downcast_ref::<SendError>() {
        Some(SendError::Denied(error) | SendError::Login(LoginError::Core(error))) => judged(error),
        Some(SendError::Login(LoginError::Rejected(error))) => judged(error),
        Some(SendError::Login(LoginError::Refused(_) | LoginError::NoIssuer | LoginError::NoIdentity)) => {
            true
        }
        _ => false,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let failure = match tokio::time::timeout(DEADLINE, run()).await {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => failure,
        Err(_) => "not done after 25 seconds".into(),
    };
    eprintln!("{failure}");
    if is_refusal(&failure) { ExitCode::from(1) } else { ExitCode::from(2) }
}
