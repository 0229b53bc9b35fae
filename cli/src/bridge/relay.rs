//! Carries messages between the lines of a client and an authorized HTTP server (MCP transports: stdio, streamable HTTP).
//!
//! ```text
//!   lines in ─▶ Relay ─▶ POST, several at once ─▶ replies, event streams ─▶ lines out
//!                  └───▶ GET, once there is a session: what the server sends by itself
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_authz_tokio::client::connection::{Connection, McpRequest, OpenReply};
use mcp_authz_tokio::mcp_fields;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::message::{self, Message};

/// A line may be as long as a message over HTTP.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// How long a server may take over one request, and be silent in a stream that answers one.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Answers on their way to the client; a client that does not read makes the server wait.
const LINES: usize = 64;

/// How long requests that are under way when the client leaves may take.
const GRACE: Duration = Duration::from_secs(5);

/// Pauses between attempts to listen to a server that closed its stream.
const PAUSES: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// One client's way to one server.
#[derive(Debug, Clone)]
pub(super) struct Relay {
    connection: Connection,
    lines: mpsc::Sender<Vec<u8>>,
    settled: Arc<Mutex<Settled>>,
}

/// What `initialize` settled.
#[derive(Debug, Clone, Default)]
struct Settled {
    session: Option<HeaderValue>,
    revision: Option<HeaderValue>,
}

/// Relays until the client's lines end.
///
/// # Errors
/// The error of reading or writing a line.
pub(super) async fn run(
    connection: Connection,
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<()> {
    let (lines, mut written) = mpsc::channel::<Vec<u8>>(LINES);
    let writing = tokio::spawn(async move {
        while let Some(line) = written.recv().await {
            output.write_all(&line).await?;
            output.flush().await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let relay = Relay { connection, lines, settled: Arc::default() };
    let mut under_way = JoinSet::new();
    let ended = relay.read(&mut input, &mut under_way).await;
    // Who asked may still hear the answer; the stream of what the server sends by itself ends with the client.
    let _ = tokio::time::timeout(GRACE, async { while under_way.join_next().await.is_some() {} }).await;
    under_way.shutdown().await;
    relay.leave().await;
    drop(relay);
    let wrote = writing.await.unwrap_or(Ok(()));
    ended.and(wrote)
}

impl Relay {
    async fn read(
        &self,
        input: &mut (impl AsyncBufRead + Unpin),
        under_way: &mut JoinSet<()>,
    ) -> std::io::Result<()> {
        let mut listening = None;
        let read = loop {
            let mut line = Vec::new();
            match (&mut *input).take(LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) => break Ok(()),
                Ok(read) if u64::try_from(read) == Ok(LINE_BYTES) && !line.ends_with(b"\n") => {
                    break Err(std::io::Error::other("a line of the MCP client is longer than 16 MiB"));
                }
                Ok(_) => {}
                Err(error) => break Err(error),
            }
            while under_way.try_join_next().is_some() {}
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Message::read(&line) {
                Err(answer) => self.give(answer).await,
                // What `initialize` settles goes with all that follows; notifications keep their order.
                Ok(message) if message.method.as_deref() == Some("initialize") => {
                    self.relay(message).await;
                    if listening.is_none() && self.settled().revision.is_some() {
                        let relay = self.clone();
                        listening = Some(tokio::spawn(async move { relay.listen().await }));
                    }
                }
                Ok(message) if !message.is_request() => self.relay(message).await,
                Ok(message) => {
                    let relay = self.clone();
                    under_way.spawn(async move { relay.relay(message).await });
                }
            }
        };
        if let Some(listening) = listening {
            listening.abort();
        }
        read
    }

    fn settled(&self) -> Settled {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settle(&self, change: impl FnOnce(&mut Settled)) {
        change(&mut self.settled.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Hands a message to the client, unless it is none.
    async fn give(&self, message: Vec<u8>) {
        if let Some(line) = message::line(message) {
            // The client is gone when nobody takes lines any more.
            let _ = self.lines.send(line).await;
        }
    }

    async fn relay(&self, message: Message) {
        let mut owed = message.ids.clone();
        if let Err(why) = self.post(&message, &mut owed).await {
            for id in &owed {
                self.give(message::failed(id, &why)).await;
            }
            if !message.is_request() {
                eprintln!("mcp-authz bridge: a notification was not delivered: {why}");
            }
        }
    }

    async fn post(&self, message: &Message, owed: &mut Vec<Value>) -> Result<(), String> {
        let initializes = message.method.as_deref() == Some("initialize");
        let settled = if initializes { Settled::default() } else { self.settled() };
        let mut request = McpRequest::of_message(message.bytes.clone());
        add_fields(&mut request.headers, message, &settled);
        let with_session = settled.session.is_some();
        let mut reply = self.connection.open(&request).await.map_err(|error| error.to_string())?;
        let status = reply.status();
        if initializes && (200..300).contains(&status) {
            let session = field(&reply, "mcp-session-id").cloned();
            self.settle(|settled| *settled = Settled { session, revision: None });
        }
        if !(200..300).contains(&status) {
            let body = reply.message().await.ok().flatten().unwrap_or_default();
            if message::is_error(&body) && owed.iter().any(|id| message::answers(&body, id)) {
                self.give(body).await;
                return Ok(());
            }
            return Err(match status {
                401 | 403 => format!("the MCP server refuses with status {status}; see `mcp-authz probe`"),
                404 if with_session => {
                    self.settle(|settled| settled.session = None);
                    "the MCP server has ended the session; restart the MCP client".to_owned()
                }
                _ => format!("the MCP server answered with status {status}"),
            });
        }
        loop {
            match reply.message().await {
                Ok(Some(answer)) => {
                    if let (true, Some(revision)) = (initializes, message::settled_revision(&answer)) {
                        let revision = HeaderValue::from_str(&revision).ok();
                        self.settle(|settled| settled.revision = revision);
                    }
                    owed.retain(|id| !message::answers(&answer, id));
                    self.give(answer).await;
                }
                // What comes after the last answer is a matter of luck.
                Ok(None) | Err(_) if owed.is_empty() => return Ok(()),
                Ok(None) => return Err("the MCP server ended its reply without an answer".to_owned()),
                Err(failure) => return Err(failure.to_string()),
            }
        }
    }

    /// Listens to what the server sends by itself, as long as it has something to say.
    async fn listen(&self) {
        let mut pauses = PAUSES.iter();
        loop {
            let settled = self.settled();
            let mut request = McpRequest {
                operation: "stream".to_owned(),
                method: Method::GET,
                headers: HeaderMap::new(),
                body: Vec::new(),
            };
            request.headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            add_settled(&mut request.headers, &settled);
            match self.connection.open(&request).await {
                Ok(mut reply) if reply.status() == 200 && reply.is_event_stream() => {
                    while let Ok(Some(message)) = reply.message().await {
                        pauses = PAUSES.iter();
                        self.give(message).await;
                    }
                }
                // It offers no stream, or the session has ended.
                Ok(reply) if matches!(reply.status(), 400..=499) => return,
                _ => {}
            }
            let Some(pause) = pauses.next() else { return };
            tokio::time::sleep(Duration::from_secs(*pause)).await;
        }
    }

    /// Ends the session at the server; one that does not let it be ended lets it expire.
    async fn leave(&self) {
        let settled = self.settled();
        if settled.session.is_none() {
            return;
        }
        let mut headers = HeaderMap::new();
        add_settled(&mut headers, &settled);
        let request = McpRequest {
            operation: "session/delete".to_owned(),
            method: Method::DELETE,
            headers,
            body: Vec::new(),
        };
        let _ = tokio::time::timeout(GRACE, self.connection.open(&request)).await;
    }
}

/// The header fields that streamable HTTP asks for, of the message's own revision or of the settled one.
fn add_fields(headers: &mut HeaderMap, message: &Message, settled: &Settled) {
    if !message.is_stateless() {
        return add_settled(headers, settled);
    }
    let mut add = |name: &'static str, text: Option<&String>| {
        if let Some(text) = text {
            headers.insert(HeaderName::from_static(name), mcp_fields::value(text));
        }
    };
    add(mcp_fields::PROTOCOL_VERSION, message.revision.as_ref());
    add(mcp_fields::METHOD, message.method.as_ref());
    add(mcp_fields::NAME, message.name.as_ref());
}

fn add_settled(headers: &mut HeaderMap, settled: &Settled) {
    for (name, value) in [("mcp-session-id", &settled.session), ("mcp-protocol-version", &settled.revision)] {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

fn field<'r>(reply: &'r OpenReply, name: &str) -> Option<&'r HeaderValue> {
    reply.headers().iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}
