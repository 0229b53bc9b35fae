//! The answer to a request: a body, or an event stream that is read message by message.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mcp_authz::message::exchange::FetchFailure;

use super::event_stream::EventStream;
use super::fetch::{Incoming, Opened};

/// The answer to a request, whole.
#[derive(Debug)]
pub struct McpReply {
    /// The status.
    pub status: u16,
    /// The header fields, in their order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty for an event stream, which is read as [`McpReply::messages`].
    pub body: Vec<u8>,
    events: Vec<Vec<u8>>,
}

impl McpReply {
    /// The JSON-RPC messages: those of the event stream, or the body if there is one. A peer's bytes, not yet parsed.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let body = Some(self.body.as_slice()).filter(|body| !body.is_empty());
        self.events.iter().map(Vec::as_slice).chain(body)
    }
}

/// The answer to a request, of which an event stream is yet to be read.
#[derive(Debug)]
pub struct OpenReply {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Body(Vec<u8>),
    Events {
        opened: Box<Opened>,
        stream: EventStream,
        silence: Option<Duration>,
        /// Bytes that may come before the next message: comments end as well.
        allowance: usize,
    },
}

impl OpenReply {
    /// Reads the body, unless it is an event stream, whose pieces may be so far apart.
    pub(super) async fn read(
        opened: Opened,
        max_bytes: usize,
        silence: Option<Duration>,
    ) -> Result<Self, FetchFailure> {
        if (200..300).contains(&opened.status) && is_event_stream(&opened.headers) {
            let (status, headers) = (opened.status, opened.headers.clone());
            let (opened, stream) = (opened.into(), EventStream::new(max_bytes));
            let content = Content::Events { opened, stream, silence, allowance: max_bytes };
            return Ok(Self { status, headers, content });
        }
        let Incoming { status, headers, body } = opened.read(max_bytes).await?;
        Ok(Self { status, headers, content: Content::Body(body) })
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header fields, in their order.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Whether the messages come as an event stream.
    pub fn is_event_stream(&self) -> bool {
        matches!(self.content, Content::Events { .. })
    }

    /// The body, as far as there is one that is no event stream.
    pub(super) fn body(&self) -> &[u8] {
        match &self.content {
            Content::Body(body) => body,
            Content::Events { .. } => &[],
        }
    }

    /// The next JSON-RPC message, a peer's bytes; `None` at the end.
    ///
    /// # Errors
    /// [`FetchFailure`] when the stream breaks, a message or what comes in its place is too large, or nothing comes for
    /// too long.
    pub async fn message(&mut self) -> Result<Option<Vec<u8>>, FetchFailure> {
        let (opened, stream, silence, allowance) = match &mut self.content {
            Content::Body(body) => return Ok(Some(std::mem::take(body)).filter(|body| !body.is_empty())),
            Content::Events { opened, stream, silence, allowance } => (opened, stream, *silence, *allowance),
        };
        let mut left = allowance;
        loop {
            if let Some(event) = stream.next_event() {
                return Ok(Some(event));
            }
            let piece = match silence {
                Some(limit) => tokio::time::timeout(limit, opened.piece()).await,
                None => Ok(opened.piece().await),
            };
            let Some(piece) = piece.unwrap_or(Err(FetchFailure::TimedOut))? else { return Ok(None) };
            stream.push(&piece).map_err(|_| FetchFailure::TooLarge)?;
            // I-G1: a server that sends comments for ever is heard no longer than one that sends a message.
            left = left.saturating_sub(piece.len());
            if left == 0 && !stream.has_event() {
                return Err(FetchFailure::TooLarge);
            }
        }
    }

    /// Reads on to the answer to `request`, or to the end.
    pub(super) async fn finish(self, request: &[u8], max_bytes: usize) -> Result<McpReply, FetchFailure> {
        let (status, headers) = (self.status, self.headers.clone());
        let mut reply = McpReply { status, headers, body: Vec::new(), events: Vec::new() };
        let mut open = match self.content {
            Content::Body(body) => return Ok(McpReply { body, ..reply }),
            Content::Events { .. } => self,
        };
        let id = id_of(request);
        let mut left = max_bytes;
        while let Some(message) = open.message().await? {
            left = left.checked_sub(message.len()).ok_or(FetchFailure::TooLarge)?;
            let answered = id.as_ref().is_some_and(|id| answers(&message, id));
            reply.events.push(message);
            // A server ends the stream behind its answer; one that does not is not waited for.
            if answered {
                break;
            }
        }
        Ok(reply)
    }
}

fn is_event_stream(headers: &[(HeaderName, HeaderValue)]) -> bool {
    let field = headers.iter().find(|(name, _)| *name == http::header::CONTENT_TYPE);
    let media_type = field.and_then(|(_, value)| value.to_str().ok()?.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn id_of(request: &[u8]) -> Option<serde_json::Value> {
    let request: serde_json::Value = serde_json::from_slice(request).ok()?;
    request.get("id").cloned()
}

/// Whether the message is the response to the request of that id, and not a request of the server's own.
fn answers(message: &[u8], id: &serde_json::Value) -> bool {
    let Ok(message) = serde_json::from_slice::<serde_json::Value>(message) else { return false };
    message.get("id") == Some(id) && (message.get("result").is_some() || message.get("error").is_some())
}
