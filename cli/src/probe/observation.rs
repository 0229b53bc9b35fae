//! What came back for one request of the probe.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mcp_authz::message::exchange::{FetchFailure, Reply};
use mcp_authz_tokio::client::fetch::{Fetcher, Opened, Outgoing, reply_of};
use tokio::time::{Instant, timeout_at};

/// The head of an answer, and its body as far as it could be read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, or why there is none.
    pub(crate) body: Result<Vec<u8>, FetchFailure>,
}

/// An answer, or why there is none.
pub(crate) type Observed = Result<Answer, FetchFailure>;

impl Answer {
    /// The first field of that name, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.as_str() == name)
            .and_then(|(_, value)| value.to_str().ok())
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(field, _)| field.as_str() == name)
    }

    /// The same as the core reads it, with as much of a body as there is.
    pub(crate) fn reply(&self) -> Reply {
        reply_of(self.status, &self.headers, self.body.clone().unwrap_or_default())
    }

    /// The same, or why it is not whole: what the core's states wait for.
    pub(crate) fn whole(self) -> Result<Reply, FetchFailure> {
        self.body.map(|body| reply_of(self.status, &self.headers, body))
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn is_redirect(&self) -> bool {
        (300..400).contains(&self.status)
    }
}

/// How much one request may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

/// Sends a request. The head counts as soon as it is there; what is too long or too slow behind it is left.
pub(crate) async fn observe(fetcher: &Fetcher, outgoing: Outgoing<'_>, bounds: Bounds) -> Observed {
    let until = Instant::now() + bounds.time;
    let opened = timeout_at(until, fetcher.open(outgoing)).await.unwrap_or(Err(FetchFailure::TimedOut))?;
    let (status, headers) = (opened.status, opened.headers.clone());
    // An event stream is endless, and that it began is all there is to see.
    let body = if is_event_stream(&opened) {
        Ok(Vec::new())
    } else {
        let read = timeout_at(until, opened.read(bounds.bytes)).await;
        read.unwrap_or(Err(FetchFailure::TimedOut)).map(|incoming| incoming.body)
    };
    Ok(Answer { status, headers, body })
}

fn is_event_stream(opened: &Opened) -> bool {
    let essence =
        |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream");
    opened.headers.iter().any(|(name, value)| *name == http::header::CONTENT_TYPE && essence(value))
}
