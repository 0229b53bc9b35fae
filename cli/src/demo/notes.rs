//! The MCP server of the demonstration: notes that can be read and added, behind the resource-server layer.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::request::Parts;
use mcp_authz::resource_server::Authorized;
use mcp_authz_tokio::resource_server::ResourceServerLayer;
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};

/// Notes in memory.
#[derive(Debug, Clone, Default)]
struct Notes {
    notes: Arc<Mutex<Vec<String>>>,
}

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
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Adds a note in the name of the person whose token came along.
    #[tool(description = "Add a note")]
    async fn add_note(
        &self,
        Parameters(new): Parameters<NewNote>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, String> {
        // The layer put this there; the token itself never gets here.
        let who = parts.extensions.get::<Authorized>().ok_or("nobody is signed in")?;
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(format!("{}: {}", who.subject(), new.text));
        Ok(format!("{} notes", notes.len()))
    }
}

#[tool_handler(router = Self::tool_router())]
impl ServerHandler for Notes {}

/// The server at `/mcp`, for authorized requests only.
pub(super) fn router(layer: ResourceServerLayer) -> Router {
    let notes = Notes { notes: Arc::new(Mutex::new(vec!["alice: buy milk".to_owned()])) };
    let configuration =
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service = StreamableHttpService::new(
        move || Ok(notes.clone()),
        Arc::new(LocalSessionManager::default()),
        configuration,
    );
    Router::new().route_service("/mcp", service).layer(layer)
}
