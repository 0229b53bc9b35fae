//! Answers that are shown to the person and never redirected: there is no client or redirect URI to answer to, or the
//! answer to the consent page is not acceptable (OAuth 2.1 section 2.3.5).

use alloc::string::ToString as _;

use crate::message::exchange::Respond;

/// Why the person is shown an error. The words are ours; nothing a stranger wrote is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The query is malformed or repeats a parameter.
    #[error("the application sent a malformed authorization request")]
    MalformedRequest,
    /// `client_id` is missing, malformed or unknown.
    #[error("the application is not known to this server")]
    UnknownClient,
    /// The client's metadata document could not be fetched or is not acceptable.
    #[error("the application's metadata document could not be used")]
    MetadataDocument,
    /// The operator reads no metadata documents of that host.
    #[error(
        "this server reads metadata documents of certain hosts only, and the application's is none of them; ask its operator"
    )]
    UntrustedDocument,
    /// `redirect_uri` is missing, malformed, or not registered for this client.
    #[error("the application asked to be answered at an address that it has not registered")]
    RedirectUri,
    /// The consent page expired, was answered before, or belongs to another browser, person or form.
    #[error("this page has expired or was already answered; start again from the application")]
    Decision,
    /// `request_uri` is none of this server's, has ended, was used before, or belongs to another client.
    #[error("the application's request has expired or was used before; start again from the application")]
    PushedRequest,
    /// The answer names scopes that were not shown.
    #[error("the answer asks for more than what was shown; start again from the application")]
    Scopes,
    /// As many pages wait for an answer as may.
    #[error("too many requests wait for an answer; try again in a few minutes")]
    Full,
    /// Store, network or source of randomness failed.
    #[error("the server cannot answer now; try again")]
    Unavailable,
}

/// An answer for the person.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct Refusal {
    reason: RefusalReason,
}

impl Refusal {
    pub(crate) fn new(reason: RefusalReason) -> Self {
        Self { reason }
    }

    /// Why; for the log, and for a host that draws its own page.
    pub fn reason(&self) -> RefusalReason {
        self.reason
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self.reason {
            RefusalReason::MalformedRequest
            | RefusalReason::UnknownClient
            | RefusalReason::MetadataDocument
            | RefusalReason::UntrustedDocument
            | RefusalReason::RedirectUri
            | RefusalReason::PushedRequest
            | RefusalReason::Scopes => 400,
            RefusalReason::Decision => 403,
            RefusalReason::Full | RefusalReason::Unavailable => 503,
        }
    }

    /// The answer as plain text.
    pub fn respond(&self) -> Respond {
        // OAUTH21-2.3.5-2, MCP-REG-025: for the person, and no location to go to.
        let answer = Respond::new(self.status())
            .with_header("content-type", "text/plain; charset=utf-8")
            .with_header("cache-control", "no-store")
            .with_body(self.reason.to_string().into_bytes());
        match self.reason {
            RefusalReason::Full => answer.with_header("retry-after", "60"),
            _ => answer,
        }
    }
}
