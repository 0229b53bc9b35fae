//! Requests to one MCP server: the token goes along, a 401 is answered by a refresh or a login, a 403
//! `insufficient_scope` by a step-up, and the request is then repeated once (MCP scope challenge handling).
//!
//! A reply is JSON or an event stream, as streamable HTTP has it; either way it is read as messages.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use mcp_authz::client::Session;
use mcp_authz::error::Error;
use mcp_authz::identifier::{InvalidIdentifier, ResourceId, ScopeSet};
use mcp_authz::message::exchange::{FetchFailure, Reply};

use super::access::{Shared, Tries, Verdict};
use super::driver::{Driver, LoginError};
use super::event::ClientEvent;
use super::fetch::{Outgoing, reply_of, secret_header};
pub use super::reply::{McpReply, OpenReply};

/// What a reply or a message of an event stream may have without [`Connection::max_bytes`]: tools return pictures.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// One request, to be sent once or, after an authorization, twice.
#[derive(Debug, Clone)]
pub struct McpRequest {
    /// What it is for: attempts at a step-up are counted by it, so the same operation has the same name.
    pub operation: String,
    /// The method.
    pub method: Method,
    /// Header fields besides `Authorization`, which the connection sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl McpRequest {
    /// A POST of one JSON-RPC message, as streamable HTTP has it.
    pub fn json_rpc(operation: impl Into<String>, message: impl Into<Vec<u8>>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accept = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(http::header::ACCEPT, accept);
        Self { operation: operation.into(), method: Method::POST, headers, body: message.into() }
    }

    /// A POST of one JSON-RPC message, named by its method and the tool, prompt or resource it is about.
    pub fn of_message(message: impl Into<Vec<u8>>) -> Self {
        let message = message.into();
        let parsed: serde_json::Value = serde_json::from_slice(&message).unwrap_or_default();
        let text = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
        let params = parsed.get("params");
        let about = ["name", "uri"].iter().find_map(|name| text(params?.get(name)));
        let operation = match (text(parsed.get("method")), about) {
            (Some(method), Some(about)) => format!("{method} {about}"),
            (Some(method), None) => method,
            (None, _) => "response".to_owned(),
        };
        Self::json_rpc(operation, message)
    }
}

/// Why a request has no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The MCP server could not be reached.
    #[error("the MCP server gave no answer: {0}")]
    Fetch(FetchFailure),
    /// The authorization that the server asked for failed.
    #[error("{0}")]
    Login(#[from] LoginError),
    /// The server asks for authorization, but none would help.
    #[error("{0}")]
    Denied(Error),
    /// Another request waited for the same authorization, and it failed.
    #[error("another request asked for this authorization, and it failed: {0}")]
    Elsewhere(Arc<str>),
    /// The task that authorized was stopped: the program is ending.
    #[error("the program ended while it was authorizing")]
    Interrupted,
}

/// One MCP server, and the authorization for it as far as there is one. Clones share it, and may send at the same time:
/// one of them authorizes, the others wait for what comes of it.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    url: Arc<str>,
    max_bytes: usize,
    patience: Duration,
}

impl Connection {
    /// A connection to the MCP server at the URL the person gave; nothing is known of it yet.
    ///
    /// # Errors
    /// [`InvalidIdentifier`] for a URL no MCP server can have.
    pub fn new(driver: Driver, url: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let url = url.into();
        let server = ResourceId::from_server_url(&url)?;
        let shared = Arc::new(Shared::new(driver, server));
        Ok(Self { shared, url: url.into(), max_bytes: MESSAGE_BYTES, patience: Duration::from_secs(60) })
    }

    /// Goes on with a session of an earlier process.
    #[must_use]
    pub fn with_session(self, session: Session) -> Self {
        self.shared.begin_with(session);
        self
    }

    /// Reads replies, or each message of an event stream, up to so many bytes; without this call 16 MiB.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Waits so long for a reply, and for each further piece of an event stream that answers a POST; without this call a
    /// minute. A stream that a GET opened may be silent for as long as it likes.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The URL the person gave.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Looks at the session; `None` where there is none, or somebody is authorizing.
    pub fn session<T>(&self, look: impl FnOnce(&Session) -> T) -> Option<T> {
        self.shared.session(look)
    }

    /// Takes the session out, once nobody authorizes; the connection begins anew.
    pub async fn take_session(&self) -> Option<Session> {
        self.shared.take().await.into_session()
    }

    /// Sends a request with the token, answers a challenge as [`Connection::open`] does, and reads the reply: a body, or
    /// the messages of an event stream up to the answer to this request.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn send(&self, request: &McpRequest) -> Result<McpReply, SendError> {
        let reply = self.open(request).await?;
        reply.finish(&request.body, self.max_bytes).await.map_err(SendError::Fetch)
    }

    /// Sends a request with the token, and answers a challenge: at most one refresh and one login, then the request
    /// once more. What comes then is the reply, whatever its status; an event stream is yet to be read, by
    /// [`OpenReply::message`], while other requests are sent.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn open(&self, request: &McpRequest) -> Result<OpenReply, SendError> {
        let mut tries = Tries::default();
        loop {
            let used = self.shared.attach(|session| self.authorization(session)).await?;
            let (reply, opened) = self.send_once(request, used.with.as_ref()).await?;
            // A 401 is a challenge always, a 403 only with a token: without one there is nothing to widen.
            let challenged = match reply.status() {
                401 => true,
                403 => used.with.is_some(),
                _ => false,
            };
            if !challenged
                || self.shared.challenged(&used, &request.operation, &reply, &mut tries).await?
                    == Verdict::Stands
            {
                return Ok(opened);
            }
        }
    }

    /// Exchanges the refresh token now, not only when the access token is refused or about to end.
    ///
    /// # Errors
    /// [`SendError`]; a grant that is over leaves the connection ready for another login.
    pub async fn refresh(&self) -> Result<(), SendError> {
        let mut taken = self.shared.take().await;
        let refreshing = async move { taken.refresh().await.map(drop) };
        tokio::spawn(refreshing).await.map_err(|_| SendError::Interrupted)?
    }

    fn authorization(&self, session: &Session) -> Result<HeaderValue, SendError> {
        // MCP-AUTH-053, MCP-AUTH-071: with every request; the core hands the token out for its own resource only.
        let field = self.shared.driver.core_time().measure(|| session.authorization_for(&self.url));
        let field = field.map_err(SendError::Denied)?;
        secret_header(field.expose()).ok_or(SendError::Fetch(FetchFailure::NotSent))
    }

    async fn send_once(
        &self,
        request: &McpRequest,
        token: Option<&HeaderValue>,
    ) -> Result<(Reply, OpenReply), SendError> {
        let driver = &self.shared.driver;
        let mut headers = request.headers.clone();
        headers.remove(http::header::AUTHORIZATION);
        if let Some(token) = token {
            headers.insert(http::header::AUTHORIZATION, token.clone());
        }
        driver.observe(ClientEvent::Sending {
            operation: &request.operation,
            method: request.method.as_str(),
            url: &self.url,
            with_token: token.is_some(),
        });
        // I-L8: the person gave this URL, so it may lie in a network that the host named for it.
        let (client, server) = (driver.client(), &self.shared.server);
        let addresses = client
            .addresses(server, &self.url)
            .map_err(|_| SendError::Fetch(FetchFailure::AddressForbidden))?;
        let outgoing = Outgoing {
            method: request.method.clone(),
            url: &self.url,
            headers,
            body: &request.body,
            addresses,
            networks: client.private_networks(server),
        };
        let silence = (request.method != Method::GET).then_some(self.patience);
        let exchange =
            async { OpenReply::read(driver.fetcher().open(outgoing).await?, self.max_bytes, silence).await };
        let exchange = tokio::time::timeout(self.patience, exchange).await;
        let opened = exchange.unwrap_or(Err(FetchFailure::TimedOut)).map_err(SendError::Fetch)?;
        let reply = reply_of(opened.status(), opened.headers(), opened.body());
        driver.observe(ClientEvent::Answered(&reply));
        Ok((reply, opened))
    }

    /// The scopes the session has; none without one.
    pub fn scopes(&self) -> ScopeSet {
        self.session(|session| session.scopes().clone()).unwrap_or_default()
    }
}
