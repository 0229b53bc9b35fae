//! Between the core's HTTP shapes and those of the `http` crate.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mcp_authz::message::exchange::{RequestHead, Respond};
use tokio::time::Instant;

/// How long a peer may send nothing of a body.
const SILENCE: Duration = Duration::from_secs(10);

/// How many bytes of a body a peer must have sent for each second that it takes longer than that: whoever sends one now and then is
/// not silent, and would hold its connection for as long as it likes.
const SLOWEST: u32 = 16 * 1024;

/// The head of a request as the core reads it: target and fields exactly as received.
pub fn request_head(parts: &Parts) -> RequestHead {
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut head = RequestHead::new(parts.method.as_str(), target);
    for (name, value) in &parts.headers {
        head = head.with_header(name.as_str(), value.as_bytes());
    }
    head
}

/// The core's answer as a response.
pub fn response(answer: &Respond) -> Response {
    let mut response = Response::new(Body::from(answer.body().to_vec()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers() {
        match HeaderValue::from_str(value) {
            Ok(value) => response.headers_mut().append(HeaderName::from_static(name), value),
            // A field that cannot be written must not be left out of a security answer.
            Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    response
}

/// Reads a body up to a limit, from a peer that is neither silent nor slow for long; the error is the answer.
pub(crate) async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, StatusCode>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (begun, mut read) = (Instant::now(), Vec::new());
    let mut body = std::pin::pin!(Limited::new(body, limit));
    loop {
        let silent = Instant::now().checked_add(SILENCE);
        let sent = Duration::from_secs(u64::try_from(read.len()).unwrap_or(u64::MAX));
        let slow = begun.checked_add(SILENCE.saturating_add(sent.checked_div(SLOWEST).unwrap_or_default()));
        let until = [silent, slow].into_iter().flatten().min().unwrap_or(begun);
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(None) => return Ok(read.into()),
            Ok(Some(Ok(frame))) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Ok(Some(Err(_))) => return Err(StatusCode::BAD_REQUEST),
            Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use http::StatusCode;
    use http_body::Frame;
    use tokio::time::{Instant, Sleep, sleep};

    use super::read_body;

    const MOST: usize = 4 * 1024 * 1024;

    /// A body in so many pieces of so many bytes, each after a pause, and then nothing more for an hour.
    struct Pieces {
        left: usize,
        bytes: usize,
        pause: Duration,
        next: Pin<Box<Sleep>>,
        ends: bool,
    }

    fn pieces(left: usize, bytes: usize, pause: Duration, ends: bool) -> Pieces {
        Pieces { left, bytes, pause, next: Box::pin(sleep(pause)), ends }
    }

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 && self.ends {
                return Poll::Ready(None);
            }
            std::task::ready!(self.next.as_mut().poll(context));
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            self.left = left;
            let pause = if left == 0 { Duration::from_secs(3600) } else { self.pause };
            self.next = Box::pin(sleep(pause));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; self.bytes])))))
        }
    }

    /// What reading it gives, and after how many seconds.
    async fn read(body: Pieces) -> (Result<usize, StatusCode>, u64) {
        let begun = Instant::now();
        let read = read_body(body, MOST).await.map(|bytes| bytes.len());
        (read, begun.elapsed().as_secs())
    }

    const LATE: Result<usize, StatusCode> = Err(StatusCode::REQUEST_TIMEOUT);

    // I-P7: nobody holds a connection by a body that does not come, or that comes a byte at a time.
    #[tokio::test(start_paused = true)]
    async fn who_is_silent_or_slow_for_long_is_not_waited_for() {
        let second = Duration::from_secs(1);
        assert_eq!(read(pieces(1, 1, second * 60, true)).await, (LATE, 10));
        assert_eq!(read(pieces(1, MOST / 2, Duration::ZERO, false)).await, (LATE, 10), "after much of it");
        let (slow, after) = read(pieces(MOST, 1, second * 9, true)).await;
        assert_eq!((slow, after), (LATE, 10), "one byte now and then");
        let (slow, after) = read(pieces(MOST / 4096, 4096, second, true)).await;
        assert!(slow == LATE && after < 20, "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_sending_may_take_long() {
        let long = pieces(64, MOST / 64, Duration::from_secs(3), true);
        assert_eq!(read(long).await, (Ok(MOST), 64 * 3));
        let waits = pieces(2, 10, Duration::from_secs(4), true);
        assert_eq!(read(waits).await, (Ok(20), 8));
        let larger = pieces(65, MOST / 64, Duration::ZERO, true);
        assert_eq!(read(larger).await.0, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
