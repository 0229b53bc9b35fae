//! A [`Connection`] as the HTTP client of an `rmcp` client: its requests carry the token, and challenges are answered here.
//!
//! ```no_run
//! # async fn run(driver: mcp_authz_tokio::client::driver::Driver) -> Result<(), Box<dyn std::error::Error>> {
//! use mcp_authz_tokio::client::{connection::Connection, rmcp::AuthorizedHttp};
//! use rmcp::ServiceExt as _;
//!
//! let connection = Connection::new(driver, "https://mcp.example/notes")?;
//! let client = ().serve(AuthorizedHttp::new(connection).transport()).await?;
//! println!("{} tools", client.list_all_tools().await?.len());
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mcp_authz::message::exchange::FetchFailure;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, ServerJsonRpcMessage};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    HttpStatusError, SseError, StreamableHttpClient, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::Sse;

use super::connection::{Connection, McpRequest, OpenReply, SendError};

const SESSION: &str = "mcp-session-id";
const LAST_EVENT: &str = "last-event-id";

/// Header fields that this client sets; a host that gives one of them would break what it means.
const RESERVED: [&str; 5] = ["authorization", "accept", "content-type", SESSION, LAST_EVENT];

/// The HTTP client of an `rmcp` transport, authorized by a [`Connection`]. Clones share the authorization.
#[derive(Debug, Clone)]
pub struct AuthorizedHttp(Connection);

/// Why a request of the transport came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizedHttpError {
    /// The server was not reached, or the authorization failed.
    #[error("{0}")]
    Send(#[from] SendError),
    /// The server goes on refusing: authorizing again would not help.
    #[error("the MCP server refuses with status {0} although it was asked with an access token")]
    StillRefused(u16),
    /// The server answers a request with a status that says no, and no JSON-RPC error.
    #[error("the MCP server answered with status {0}")]
    Status(u16),
    /// The transport was set up for another URL than the connection; a token is never sent there.
    #[error(
        "the transport asks for another URL than the connection is for: take the transport from `AuthorizedHttp`"
    )]
    OtherUrl,
    /// The transport was given an access token of its own.
    #[error("the transport has an `auth_header` of its own: leave it out, the connection authorizes")]
    OwnToken,
}

type Failed = StreamableHttpError<AuthorizedHttpError>;

fn failed(error: impl Into<AuthorizedHttpError>) -> Failed {
    StreamableHttpError::Client(error.into())
}

impl AuthorizedHttp {
    /// Authorizes through this connection.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// The transport to the connection's server, for `rmcp`'s `serve`.
    pub fn transport(self) -> StreamableHttpClientTransport<Self> {
        let configuration = StreamableHttpClientTransportConfig::with_uri(self.0.url());
        self.transport_with(configuration)
    }

    /// The transport with another configuration, whose URL is the connection's.
    pub fn transport_with(
        self,
        configuration: StreamableHttpClientTransportConfig,
    ) -> StreamableHttpClientTransport<Self> {
        StreamableHttpClientTransport::with_client(self, configuration)
    }

    /// I-L7: no token for another URL, and none but the connection's.
    fn checked(&self, uri: &str, token: Option<&String>) -> Result<(), Failed> {
        if uri != self.0.url() {
            return Err(failed(AuthorizedHttpError::OtherUrl));
        }
        if token.is_some() {
            return Err(failed(AuthorizedHttpError::OwnToken));
        }
        Ok(())
    }
}

fn with_fields(
    request: &mut McpRequest,
    fields: [(&'static str, Option<&str>); 2],
    custom: HashMap<HeaderName, HeaderValue>,
) -> Result<(), Failed> {
    for (name, value) in fields {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value)
                .map_err(|_| StreamableHttpError::UnexpectedServerResponse("the session id".into()))?;
            request.headers.insert(HeaderName::from_static(name), value);
        }
    }
    for (name, value) in custom {
        if RESERVED.contains(&name.as_str()) {
            return Err(StreamableHttpError::ReservedHeaderConflict(name.to_string()));
        }
        request.headers.insert(name, value);
    }
    Ok(())
}

fn bare(method: Method, operation: &str) -> McpRequest {
    McpRequest { operation: operation.to_owned(), method, headers: HeaderMap::new(), body: Vec::new() }
}

/// What the statuses of every method mean alike.
fn refused(status: u16, retry_after: Option<&str>) -> Failed {
    match status {
        401 | 403 => failed(AuthorizedHttpError::StillRefused(status)),
        429 | 500..=599 => HttpStatusError::new(status, retry_after.map(str::to_owned)).into(),
        _ => failed(AuthorizedHttpError::Status(status)),
    }
}

fn field<'r>(reply: &'r OpenReply, name: &str) -> Option<&'r str> {
    reply
        .headers()
        .iter()
        .find(|(known, _)| known.as_str() == name)
        .and_then(|(_, value)| value.to_str().ok())
}

fn events(reply: OpenReply) -> BoxStream<'static, Result<Sse, SseError>> {
    Box::pin(stream::unfold(Some(reply), async |reply| {
        let mut reply = reply?;
        let broken = |failure: FetchFailure| Some((Err(SseError::Body(failure.into())), None));
        match reply.message().await {
            Ok(None) => None,
            Ok(Some(message)) => match String::from_utf8(message) {
                Ok(data) => Some((Ok(Sse::default().data(data)), Some(reply))),
                Err(_) => broken(FetchFailure::Unreachable),
            },
            Err(failure) => broken(failure),
        }
    }))
}

impl StreamableHttpClient for AuthorizedHttp {
    type Error = AuthorizedHttpError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        self.checked(&uri, auth_header.as_ref())?;
        let mut request = McpRequest::of_message(serde_json::to_vec(&message)?);
        with_fields(&mut request, [(SESSION, session_id.as_deref()), (LAST_EVENT, None)], custom_headers)?;
        let mut reply = self.0.open(&request).await.map_err(failed)?;
        let session = field(&reply, SESSION).map(str::to_owned);
        match reply.status() {
            202 | 204 => return Ok(StreamableHttpPostResponse::Accepted),
            404 if session_id.is_some() => return Err(StreamableHttpError::SessionExpired),
            200..=299 if reply.is_event_stream() => {
                return Ok(StreamableHttpPostResponse::Sse(events(reply), session));
            }
            _ => {}
        }
        let status = reply.status();
        let retry_after = field(&reply, "retry-after").map(str::to_owned);
        let body = reply.message().await.map_err(|failure| failed(SendError::Fetch(failure)))?;
        let body = body.unwrap_or_default();
        let parsed = serde_json::from_slice::<ServerJsonRpcMessage>(&body);
        match (status, parsed) {
            (200..=299, Ok(message)) => Ok(StreamableHttpPostResponse::Json(message, session)),
            (200..=299, Err(_)) if body.is_empty() => Ok(StreamableHttpPostResponse::Accepted),
            (200..=299, Err(error)) => Err(error.into()),
            (401 | 403, _) => Err(refused(status, None)),
            // What a server says of a revision it does not know, which the client's negotiation reads.
            (_, parsed) => match (discovering(&message), parsed) {
                (None, Ok(error @ ServerJsonRpcMessage::Error(_))) => {
                    Ok(StreamableHttpPostResponse::Json(error, session))
                }
                (Some(id), parsed) if (400..500).contains(&status) => {
                    let error = match parsed {
                        Ok(ServerJsonRpcMessage::Error(error)) => error.error,
                        _ => ErrorData::invalid_request("the server does not know this request", None),
                    };
                    Ok(StreamableHttpPostResponse::Json(ServerJsonRpcMessage::error(error, Some(id)), None))
                }
                _ => Err(refused(status, retry_after.as_deref())),
            },
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        self.checked(&uri, auth_header.as_ref())?;
        let mut request = bare(Method::DELETE, "session/delete");
        with_fields(&mut request, [(SESSION, Some(&session_id)), (LAST_EVENT, None)], custom_headers)?;
        let reply = self.0.open(&request).await.map_err(failed)?;
        match reply.status() {
            // A server may not let sessions be ended.
            200..=299 | 405 => Ok(()),
            status => Err(refused(status, field(&reply, "retry-after"))),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        self.checked(&uri, auth_header.as_ref())?;
        let mut request = bare(Method::GET, "stream");
        request.headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let fields = [(SESSION, session_id.as_deref()), (LAST_EVENT, last_event_id.as_deref())];
        with_fields(&mut request, fields, custom_headers)?;
        let reply = self.0.open(&request).await.map_err(failed)?;
        match reply.status() {
            200..=299 if reply.is_event_stream() => Ok(events(reply)),
            200..=299 => Err(StreamableHttpError::UnexpectedContentType(None)),
            405 => Err(StreamableHttpError::ServerDoesNotSupportSse),
            404 if session_id.is_some() => Err(StreamableHttpError::SessionExpired),
            status => Err(refused(status, field(&reply, "retry-after"))),
        }
    }
}

/// The id of a request that asks which revisions the server has.
fn discovering(message: &ClientJsonRpcMessage) -> Option<rmcp::model::RequestId> {
    match message {
        ClientJsonRpcMessage::Request(request) => {
            matches!(request.request, ClientRequest::DiscoverRequest(_)).then(|| request.id.clone())
        }
        _ => None,
    }
}
