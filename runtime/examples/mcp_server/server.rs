//! The notes, and the layer before them.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::request::Parts;
use mcp_authz::identifier::{Endpoint, Issuer, ResourceId, ScopeSet};
use mcp_authz::resource_server::{Authorized, ResourceServer, TrustedIssuer};
use mcp_authz_tokio::client::fetch::Fetcher;
use mcp_authz_tokio::keys::AwsLcImporter;
use mcp_authz_tokio::resource_server::{KeySource, McpScopes, ResourceServerLayer};
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Notes in memory.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

/// What `add_note` takes.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct NewNote {
    /// The text of the note.
    text: String,
}

#[tool_router]
impl Notes {
    /// All notes, one a line.
    #[tool(description = "Read the notes")]
    async fn read_notes(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Adds a note in the name of the caller. The layer put the caller there; no token gets this far.
    #[tool(description = "Add a note")]
    async fn add_note(
        &self,
        Parameters(new): Parameters<NewNote>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, String> {
        let caller = parts.extensions.get::<Authorized>().ok_or("nobody is signed in")?;
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(format!("{}: {}", caller.subject(), new.text));
        Ok(format!("{} notes", notes.len()))
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for Notes {}

/// The layer: whose tokens are taken, for which resource, and which tool needs which scope.
pub(crate) fn layer(resource: &str, issuer: &str, jwks: &str) -> Result<ResourceServerLayer, Failure> {
    let issuer = Issuer::new(issuer)?;
    let keys = KeySource::new(issuer.clone(), Endpoint::new(jwks)?, Arc::new(AwsLcImporter));
    let resource = ResourceId::new(resource)?;
    if resource.path().trim_matches('/').is_empty() {
        return Err("name the resource by a URL with a path, such as http://127.0.0.1:8090/mcp".into());
    }
    let server = ResourceServer::new(resource, [TrustedIssuer::awaiting_keys(issuer)])?
        .with_name("Notes")
        .with_scopes_supported(ScopeSet::parse("notes:read notes:write")?)?;
    let scopes =
        McpScopes::new(ScopeSet::parse("notes:read")?)?.tool("add_note", ScopeSet::parse("notes:write")?)?;
    Ok(ResourceServerLayer::builder(server, Fetcher::new()?, scopes).refresh_keys(keys).build()?)
}

/// The MCP server at the resource's path, behind the layer.
pub(crate) fn router(layer: ResourceServerLayer) -> Router {
    let notes = Notes::default();
    let service = StreamableHttpService::new(
        move || Ok(notes.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true),
    );
    Router::new().route_service(layer.server().resource().path(), service).layer(layer)
}
