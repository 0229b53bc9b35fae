//! Text of a report: our own words, and peers' words that went through the terminal's escaping type. There is no way to
//! make a [`Line`] from a `String`, so none can be forgotten (I-P8).

use std::fmt;

use mcp_authz::error::Error;
use mcp_authz::identifier::InvalidIdentifier;
use mcp_authz::message::Malformed;
use mcp_authz::message::challenge::ChallengeError;
use mcp_authz::message::exchange::FetchFailure;
use mcp_authz::revision::Revision;
use mcp_authz::syntax::json::JsonError;
use mcp_authz_tokio::text::TerminalText;
use serde::{Serialize, Serializer};

/// One text of a report, without anything that could steer a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line(String);

impl Line {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(String::new())
    }

    /// Adds to it.
    #[must_use]
    pub(crate) fn and(mut self, part: impl Part) -> Self {
        part.add_to(&mut self.0);
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Line {
    fn from(words: &'static str) -> Self {
        Self(words.to_owned())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What a peer wrote, or what was made of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<T>(pub(crate) T);

/// Several texts of a peer's, the first few of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers<T>(pub(crate) T);

/// So many of a thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count(pub(crate) usize, pub(crate) &'static str);

impl Part for Count {
    fn add_to(&self, line: &mut String) {
        let plural = if self.0 == 1 { "" } else { "s" };
        line.push_str(&format!("{} {}{plural}", self.0, self.1));
    }
}

/// Most texts shown of a list.
const LISTED: usize = 6;

/// What a line is made of.
pub(crate) trait Part {
    /// Adds itself.
    fn add_to(&self, line: &mut String);
}

impl<T: fmt::Display> Part for Peer<T> {
    fn add_to(&self, line: &mut String) {
        line.push_str(&TerminalText(&self.0.to_string()).to_string());
    }
}

impl<T: fmt::Display> Part for Peers<&[T]> {
    fn add_to(&self, line: &mut String) {
        for (at, text) in self.0.iter().enumerate() {
            if at == LISTED {
                line.push_str(", and more");
                return;
            }
            line.push_str(if at == 0 { "" } else { ", " });
            Peer(text).add_to(line);
        }
    }
}

impl Part for Line {
    fn add_to(&self, line: &mut String) {
        line.push_str(&self.0);
    }
}

impl Part for &Line {
    fn add_to(&self, line: &mut String) {
        line.push_str(&self.0);
    }
}

/// Types whose words are our own: an error of the core repeats nothing that a peer wrote.
macro_rules! own {
    ($($type:ty),+) => {$(
        impl Part for $type {
            fn add_to(&self, line: &mut String) {
                line.push_str(&self.to_string());
            }
        }
    )+};
}

own!(
    &'static str,
    u16,
    usize,
    u64,
    Revision,
    FetchFailure,
    Malformed,
    JsonError,
    ChallengeError,
    InvalidIdentifier,
    &Error
);

/// A [`Line`] of these parts.
macro_rules! line {
    ($($part:expr),+ $(,)?) => {{
        let line = $crate::probe::line::Line::new();
        $(let line = line.and($part);)+
        line
    }};
}
pub(crate) use line;

#[cfg(test)]
mod tests {
    use super::{Peer, Peers};

    // I-P8
    #[test]
    fn what_a_peer_wrote_is_escaped_and_cut_and_our_words_are_not() {
        let hostile = "a\u{1b}[2J\u{202e}b";
        assert_eq!(
            line!["it says ", Peer(hostile), ": ", 401_u16].as_str(),
            "it says a\\u{1b}[2J\\u{202e}b: 401"
        );
        assert_eq!(line![Peers(&["x\n", "y"][..])].as_str(), "x\\u{a}, y");
        assert!(line![Peers(&["x"; 500][..])].as_str().ends_with(", and more"));
        assert!(line![Peer("x".repeat(500))].as_str().chars().count() < 90);
    }
}
