//! What goes back to the client through the person's browser, and how: only to a redirect URI that was matched.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::Fault;
use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::client::ClientShown;
use crate::authorization_server::refusal::{Refusal, RefusalReason};
use crate::authorization_server::sign_in::RequestShown;
use crate::evidence::{Authentication, RedirectMatched};
use crate::message::authorization::{AuthorizationError, AuthorizationResponse, AuthorizationResult};
use crate::message::error_code::{AuthorizationErrorCode, ErrorDetail};
use crate::message::exchange::Respond;
use crate::secret::{AuthorizationCode, State};

/// Where and how an authorization response goes: only through evidence, with the client's state and our issuer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) server: AuthorizationServer,
    pub(crate) redirect: RedirectMatched,
    pub(crate) state: Option<State>,
}

impl Answer {
    pub(crate) fn code(self, code: AuthorizationCode) -> Result<Redirect, Refusal> {
        self.send(AuthorizationResult::Code(code))
    }

    pub(crate) fn error(
        self,
        code: AuthorizationErrorCode,
        words: &'static str,
    ) -> Result<Redirect, Refusal> {
        self.send(AuthorizationResult::Error(AuthorizationError { code, detail: ErrorDetail::of(words) }))
    }

    fn send(self, result: AuthorizationResult) -> Result<Redirect, Refusal> {
        // RFC9207-2-1, OAUTH21-4.1.2-3: state as it came, iss as configured, each once (I-R6, I-R7).
        let response = AuthorizationResponse { result, state: self.state, iss: self.server.issuer().clone() };
        let location = self.redirect.redirect_uri().with_parameters(response.pairs());
        location.map(|location| Redirect { location }).map_err(|_| Refusal::new(RefusalReason::RedirectUri))
    }
}

/// Sends the person's browser back to the client. The URL holds the code.
#[must_use = "the person waits for an answer"]
pub struct Redirect {
    location: String,
}

impl Redirect {
    /// The URL, for the person's browser only.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The answer: 303, so that no browser repeats a POST (I-R8).
    pub fn respond(self) -> Respond {
        // OAUTH21-7.5.4-1, OAUTH21-3.1-9: no 307, and no CORS header here.
        Respond::new(303)
            .with_header("location", self.location)
            .with_header("cache-control", "no-store")
            .with_header("referrer-policy", "no-referrer")
    }
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.location.split('?').next().unwrap_or_default();
        f.debug_struct("Redirect").field("to", &target).finish_non_exhaustive()
    }
}

/// An error for the client, held back until the host says who the person is.
///
/// A host that does not trust every client may show the error and the host of the redirect URI first, and redirect
/// when the person asks for it (OAuth 2.1 section 7.12.2).
#[must_use = "the client waits for the error"]
#[derive(Debug)]
pub struct ErrorAwaitingPerson(pub(super) Box<(Answer, Fault, ClientShown)>);

impl ErrorAwaitingPerson {
    /// The code of the error.
    pub fn code(&self) -> &AuthorizationErrorCode {
        &self.0.1.code
    }

    /// What is wrong, in our words.
    pub fn words(&self) -> &'static str {
        self.0.1.words
    }

    /// Who would get it.
    pub fn client(&self) -> &ClientShown {
        // MCP-SEC-020: what a page in between needs; `verified` says whether the operator knows the client.
        &self.0.2
    }

    /// The request, for a page that somebody sees who has not signed in.
    pub fn shown(&self) -> RequestShown {
        RequestShown::new(self.client().clone(), self.0.0.redirect.redirect_uri())
    }

    /// The host it would go to.
    pub fn redirect_host(&self) -> &str {
        self.0.0.redirect.redirect_uri().host_for_display()
    }

    /// The person is signed in: the browser goes back to the client with the error.
    ///
    /// # Errors
    /// A [`Refusal`] to show when the redirect URI cannot take the parameters.
    pub fn redirect(self, _person: &Authentication) -> Result<Redirect, Refusal> {
        // OAUTH21-7.12.2-1
        let (answer, fault, _) = *self.0;
        answer.error(fault.code, fault.words)
    }
}
