//! A server that sends whatever a case wants: bytes in pieces, for ever, never, or an honest answer with one change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_authz::syntax::form::Form;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the body, or of the query where there is no body.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let form = if self.body.is_empty() { query } else { &self.body };
        Form::parse(form.as_bytes()).ok()?.get(name).map(str::to_owned)
    }

    /// Everything of it that a reader at the other end could see, as one text.
    pub(crate) fn text(&self) -> String {
        let fields: Vec<_> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{} {}\n{}\n\n{}", self.method, self.target, fields.join("\n"), self.body)
    }

    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        Some(Self { method, target, headers, body: String::from_utf8(body).ok()? })
    }
}

/// A part of an answer on the wire.
#[derive(Clone)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// The same bytes for ever, with a pause before each.
    Endless(Vec<u8>, Option<Duration>),
    /// Nothing more, and the connection stays open.
    Silence,
}

/// What a server sends.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// What comes behind the head, where it is not just the body.
    pub(crate) pieces: Vec<Piece>,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), pieces: Vec::new() }
    }

    pub(crate) fn document(status: u16, document: &Value) -> Self {
        Self::status(status).with("content-type", "application/json").body(document.to_string())
    }

    /// Sets a header field, in place of the one there was.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.and(name, value)
    }

    /// Adds a header field line.
    pub(crate) fn and(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends these pieces and nothing before them.
    pub(crate) fn raw(pieces: impl Into<Vec<Piece>>) -> Self {
        Self::status(0).pieces(pieces)
    }

    /// Sends these pieces behind the head, which then says nothing of a length.
    pub(crate) fn pieces(mut self, pieces: impl Into<Vec<Piece>>) -> Self {
        self.pieces = pieces.into();
        self
    }

    /// The document with a change.
    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut document = serde_json::from_slice(&self.body).unwrap();
        change(&mut document);
        self.body = document.to_string().into_bytes();
        self
    }

    /// The document with one member set, or removed by `null`.
    pub(crate) fn member(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.edit(|document| {
            let members = document.as_object_mut().unwrap();
            if value.is_null() {
                members.remove(name);
            } else {
                members.insert(name.to_owned(), value);
            }
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        String::from_utf8(value.clone()).ok()
    }

    /// The same redirect to a changed place.
    pub(crate) fn location(self, change: impl FnOnce(String) -> String) -> Self {
        let location = change(self.header("location").unwrap());
        self.with("location", location)
    }

    async fn send(&self, stream: &mut TcpStream, sent: &AtomicUsize) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Answer\r\nconnection: close\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if self.pieces.is_empty() {
            head.extend(format!("content-length: {}\r\n\r\n", self.body.len()).into_bytes());
            head.extend(&self.body);
            return stream.write_all(&head).await;
        }
        head.extend(b"\r\n");
        if self.status != 0 {
            stream.write_all(&head).await?;
        }
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => stream.write_all(bytes).await?,
                Piece::Endless(bytes, pause) => loop {
                    if let Some(pause) = pause {
                        tokio::time::sleep(*pause).await;
                    }
                    stream.write_all(bytes).await?;
                    sent.fetch_add(bytes.len(), Ordering::SeqCst);
                },
                Piece::Silence => std::future::pending().await,
            }
        }
        Ok(())
    }
}

/// Serves each connection one request. `sent` counts the bytes of endless pieces.
pub(crate) async fn serve(
    sent: Arc<AtomicUsize>,
    answer: impl Fn(&str, Request) -> Answer + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (answer, own) = (Arc::new(answer), origin.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, own, sent) = (Arc::clone(&answer), own.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                if let Some(request) = Request::read(&mut stream).await {
                    let _ = answer(&own, request).send(&mut stream, &sent).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    origin
}
