//! Reads an event stream (WHATWG HTML, server-sent events), the form in which streamable HTTP answers a POST with
//! several messages.
//!
//! Only the data of `message` events is kept: MCP puts one JSON-RPC message into each. A line or an event may be as
//! long as the reader was told and no longer, so that a peer that never ends one costs a bounded amount of memory.

use std::collections::VecDeque;

/// A line or event is longer than the reader allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than allowed")]
pub struct EventTooLarge;

/// Takes bytes as they arrive and gives the data of each complete event, in order.
#[derive(Debug)]
pub struct EventStream {
    max_bytes: usize,
    /// The line that has not ended.
    line: Vec<u8>,
    /// The `data` lines of the event that has not ended, each with its line feed.
    data: Vec<u8>,
    /// Whether the event that has not ended has another type than `message`.
    other_type: bool,
    /// The last byte was a carriage return: a line feed after it belongs to the same line end.
    after_return: bool,
    first_line: bool,
    events: VecDeque<Vec<u8>>,
}

impl EventStream {
    /// A reader for events of at most so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            data: Vec::new(),
            other_type: false,
            after_return: false,
            first_line: true,
            events: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream, however they are cut.
    ///
    /// # Errors
    /// [`EventTooLarge`]; nothing more can be read then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        for byte in bytes {
            match (byte, std::mem::take(&mut self.after_return)) {
                (b'\n', true) => {}
                (b'\n', false) => self.end_line(),
                (b'\r', _) => {
                    self.end_line();
                    self.after_return = true;
                }
                // I-G1: what has not ended is counted.
                _ if self.line.len().saturating_add(self.data.len()) >= self.max_bytes => {
                    return Err(EventTooLarge);
                }
                (byte, _) => self.line.push(*byte),
            }
        }
        Ok(())
    }

    /// The data of the next event, if it is complete. An event the stream ends within is none.
    pub fn next_event(&mut self) -> Option<Vec<u8>> {
        self.events.pop_front()
    }

    /// Whether a complete event is there.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            let other_type = std::mem::take(&mut self.other_type);
            // The line feed of the last data line is not part of it.
            if data.pop().is_some() && !data.is_empty() && !other_type {
                self.events.push_back(data);
            }
            return;
        }
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.other_type = !value.is_empty() && value != b"message",
            // Comments, ids and retry times: a stream that breaks is not resumed here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, proptest};

    use super::{EventStream, EventTooLarge};

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut stream = EventStream::new(100);
        let mut events = Vec::new();
        for piece in pieces {
            stream.push(piece).unwrap();
            while let Some(event) = stream.next_event() {
                events.push(String::from_utf8(event).unwrap());
            }
        }
        events
    }

    #[test]
    fn an_event_is_its_data_lines_joined() {
        assert_eq!(read(&[b"event: message\nid: 1\ndata: {\ndata:}\n\n"]), ["{\n}"]);
        assert_eq!(read(&[b"data: a\n\ndata: b\n\n"]), ["a", "b"]);
        assert_eq!(read(&[b"data:  two spaces\n\n"]), [" two spaces"]);
    }

    #[test]
    fn every_line_end_is_one() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("\u{feff}data: a{end}{end}: comment{end}data: b{end}{end}");
            assert_eq!(read(&[text.as_bytes()]), ["a", "b"], "{end:?}");
        }
    }

    #[test]
    fn what_holds_no_message_is_passed_over() {
        let text =
            b": comment\n\nevent: endpoint\ndata: /elsewhere\n\nid: 7\ndata:\n\ndata: m\n\nretry: 10\n\n";
        assert_eq!(read(&[text]), ["m"]);
        assert!(read(&[b"data: not ended\n"]).is_empty());
    }

    #[test]
    fn a_line_or_event_without_an_end_is_refused_at_the_limit() {
        assert_eq!(EventStream::new(10).push(b"data: 78901"), Err(EventTooLarge));
        assert_eq!(EventStream::new(10).push(b": comment without end"), Err(EventTooLarge));
        let mut stream = EventStream::new(10);
        assert_eq!(stream.push(b"data: 1\ndata: 2\ndata: 3\n"), Err(EventTooLarge));
        let mut stream = EventStream::new(10);
        for _ in 0..100 {
            assert_eq!(stream.push(b"data: 78\n\n"), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn what_a_server_sends_is_read_back(
            messages in proptest::collection::vec("[^\r\n]{1,60}", 0..8), end in proptest::sample::select(vec!["\n", "\r", "\r\n"]),
        ) {
            let text: String = messages.iter().map(|it| format!("event: message{end}data: {it}{end}{end}")).collect();
            let mut stream = EventStream::new(1000);
            stream.push(text.as_bytes()).unwrap();
            let read: Vec<_> = std::iter::from_fn(|| stream.next_event()).collect();
            assert_eq!(read, messages.iter().map(|it| it.as_bytes().to_vec()).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_within_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut stream = EventStream::new(50);
            let _ = stream.push(&bytes);
            assert!(stream.line.len() + stream.data.len() <= 51);
            assert!(stream.events.iter().all(|event| event.len() <= 50));
        }

        #[test]
        fn cutting_a_stream_changes_nothing(
            text in proptest::collection::vec(
                proptest::sample::select(vec!["data", "event", "message", ":", " ", "\r", "\n", "\n\n", "x"]), 0..40,
            ).prop_map(|words| words.concat()),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let mut whole = EventStream::new(1000);
            let mut parts = EventStream::new(1000);
            whole.push(text.as_bytes()).unwrap();
            for piece in pieces {
                parts.push(piece).unwrap();
            }
            assert_eq!(whole.events, parts.events);
        }
    }
}
