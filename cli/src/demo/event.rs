//! What the demonstration shows, as values: sinks draw them on a terminal, as JSON lines, or as a page.

use std::time::Duration;

use serde::Serialize;

/// One of the four parties of the flow, in the order of their lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Party {
    /// The person's browser.
    Browser,
    /// The MCP client.
    Client,
    /// The MCP server: the protected resource.
    McpServer,
    /// The authorization server.
    AuthorizationServer,
}

impl Party {
    /// All of them, left to right.
    pub(crate) const ALL: [Self; 4] =
        [Self::Browser, Self::Client, Self::McpServer, Self::AuthorizationServer];

    /// The lane, from 0.
    pub(crate) fn lane(self) -> usize {
        Self::ALL.iter().position(|party| *party == self).unwrap_or(0)
    }

    /// The name at the head of the lane.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Client => "client",
            Self::McpServer => "MCP server",
            Self::AuthorizationServer => "auth server",
        }
    }
}

/// Something to show.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A part of the story begins.
    Act {
        /// What it is about.
        title: String,
        /// The same in a sentence for a newcomer.
        about: String,
    },
    /// A message went over a socket.
    Message {
        /// Who sent it.
        from: Party,
        /// Who got it.
        to: Party,
        /// What it was; secrets are redacted.
        what: String,
        /// Whether an attacker sent it.
        hostile: bool,
    },
    /// A check held, and a value now proves it; or a machine changed its state.
    Evidence {
        /// Who checked.
        at: Party,
        /// The name of the evidence type.
        name: String,
        /// What it vouches for.
        of: String,
    },
    /// A check did not hold: somebody refuses.
    Refusal {
        /// Who.
        at: Party,
        /// Why, in the machine's words.
        why: String,
    },
    /// Something to know about this run.
    Note {
        /// What.
        text: String,
    },
    /// An attack was tried beside a correct control.
    Attack {
        /// What was tried.
        name: String,
        /// Whether the attack was refused, as it must be.
        refused: bool,
        /// Who refused it, and with what answer.
        answer: String,
        /// Why, in the refusing machine's words.
        reason: String,
        /// What the correct control did.
        control: String,
        /// Whether the control succeeded, as it must.
        control_succeeded: bool,
    },
    /// Something differs from what it should be.
    Difference {
        /// What.
        what: String,
    },
    /// The end.
    Summary {
        /// What was proven: the statement, and whether it held.
        proven: Vec<Proven>,
        /// Messages that went over sockets.
        messages: usize,
        /// Transitions of core machines that were timed.
        transitions: u64,
        /// Time spent inside the core's transitions, in microseconds.
        core_microseconds: u128,
        /// Time from start to end, in microseconds.
        total_microseconds: u128,
    },
}

impl Event {
    /// Whether it has a row of its own in a diagram.
    pub(crate) fn is_step(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Evidence { .. } | Self::Refusal { .. })
    }

    /// Whether it is no sign that something went wrong.
    pub(crate) fn is_as_it_should_be(&self) -> bool {
        match self {
            Self::Difference { .. } => false,
            Self::Attack { refused, control_succeeded, .. } => *refused && *control_succeeded,
            Self::Summary { proven, .. } => proven.iter().all(|row| row.held),
            _ => true,
        }
    }
}

/// One row of the final table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Proven {
    /// The statement.
    pub(crate) statement: String,
    /// What was seen that proves it.
    pub(crate) seen: String,
    /// Whether it held.
    pub(crate) held: bool,
}

/// An event and when it happened, from the start of the demonstration.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Timed {
    /// Since the start.
    #[serde(serialize_with = "microseconds", rename = "at_microseconds")]
    pub(crate) at: Duration,
    /// Whether it repeats what was shown before, and a diagram may leave it out.
    pub(crate) folded: bool,
    /// What.
    #[serde(flatten)]
    pub(crate) event: Event,
}

fn microseconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(at.as_micros())
}
