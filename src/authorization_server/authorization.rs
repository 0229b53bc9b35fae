//! The authorization endpoint: from a query to a page that asks the person (OAuth 2.1 section 4.1.1, RFC 7636,
//! RFC 8707, RFC 9207).
//!
//! ```text
//! authorize(query) ─┬─FindClient──▶ AwaitingClient ───────────┐
//!                   └─Fetch───────▶ AwaitingMetadataDocument ─┤
//!      Refusal ◀── client or redirect URI not acceptable ─────┤
//!      ErrorAwaitingPerson ◀── anything else not acceptable ──┼──▶ RequestValidated
//!              │ redirect(person)                             │         │ show(person)
//!              ▼                                              │         ▼ InsertDecision
//!          Redirect                                           │   AwaitingDecisionStored ──▶ ConsentView
//! ```
//!
//! Nothing is stored before everything is valid, and nobody is redirected, not even with an error, before the host has
//! said who the person is (section 7.12.2): otherwise the endpoint would be an open redirector.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::client::client_of_document;
use super::pushed::AwaitingPushedRequest;
use super::record::ClientRecord;
use super::refusal::{Refusal, RefusalReason};
use super::store::{ClientFound, FindClient, ReadPushed};
use super::{AuthorizationServer, KnownResource, PushedRequests};
use crate::evidence::RedirectMatched;
use crate::identifier::{ClientId, ClientMetadataUrl, RedirectUri, ResourceId, ScopeSet};
use crate::message::authorization::AuthorizationRequest;
use crate::message::error_code::AuthorizationErrorCode;
use crate::message::exchange::{Fetch, FetchFailure, Reply};
use crate::pkce::CodeChallenge;
use crate::secret::SecretDigest;
use crate::step::Step;
use crate::time::OffsetDateTime;

mod answer;
mod page;
mod recall;

pub(crate) use answer::Answer;
pub use answer::{ErrorAwaitingPerson, Redirect};
use page::Validated;
pub use page::{AwaitingDecisionStored, ConsentView, PageOutcome, RequestValidated, ScopeShown};
pub use recall::{AwaitingConsent, Recall, Recalled};

/// How an authorization request goes on.
#[must_use = "the request goes on from here"]
#[derive(Debug)]
pub enum Authorizing {
    /// The client is looked up.
    Find(Step<FindClient, AwaitingClient>),
    /// The client's metadata document is fetched.
    Fetch(Step<Fetch, AwaitingMetadataDocument>),
    /// The request was pushed before (RFC 9126): it is read.
    Pushed(Step<ReadPushed, AwaitingPushedRequest>),
}

impl AuthorizationServer {
    /// A request at the authorization endpoint: the query of a GET, without its question mark.
    ///
    /// # Errors
    /// A [`Refusal`] to show, when the query is malformed or names no client.
    pub fn authorize(&self, query: &str) -> Result<Authorizing, Refusal> {
        // OAUTH21-3.1-4, OAUTH21-3.1-7: a repeated parameter leaves no client to answer to.
        let request = AuthorizationRequest::parse(query.as_bytes())
            .map_err(|_| Refusal::new(RefusalReason::MalformedRequest))?;
        let unknown = || Refusal::new(RefusalReason::UnknownClient);
        // OAUTH21-2.3.5-1, OAUTH21-2.3.5-2: an answer for the person, and no redirect.
        let client_id = request.client_id().ok_or_else(unknown)?;
        // A reference of another kind than this server's stays a fault of the request, told to the client below.
        if let Some(uri) = request.request_uri().filter(|_| self.pushed_requests() != PushedRequests::Off) {
            let client_id = ClientId::new(client_id).map_err(|_| unknown())?;
            return self.read_pushed(client_id, uri).map(Authorizing::Pushed);
        }
        self.resolve_client(Pending::new(self.clone(), request))
    }

    /// Finds out whose request it is.
    pub(crate) fn resolve_client(&self, pending: Pending) -> Result<Authorizing, Refusal> {
        let unknown = || Refusal::new(RefusalReason::UnknownClient);
        let client_id = pending.request.client_id().ok_or_else(unknown)?;
        let client_id = ClientId::new(client_id).map_err(|_| unknown())?;
        if client_id.looks_like_url() {
            // MCP-AUTH-005, MCP-REG-020: a URL is never looked up among registered ids, and refused before any fetch if malformed.
            let url = ClientMetadataUrl::new(client_id.as_str()).map_err(|_| unknown())?;
            let fetch = self.fetch_metadata_document(&url).map_err(Refusal::new)?;
            return Ok(Authorizing::Fetch(Step::new(
                fetch,
                AwaitingMetadataDocument(Box::new((pending, url))),
            )));
        }
        Ok(Authorizing::Find(Step::new(FindClient::new(client_id), AwaitingClient(Box::new(pending)))))
    }
}

/// A request whose client is not known yet.
#[derive(Debug)]
pub(crate) struct Pending {
    server: AuthorizationServer,
    request: AuthorizationRequest,
    pushed: Option<SecretDigest>,
    /// Whether it is being pushed just now.
    pushing: bool,
}

/// What the checks on a request came to.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum RequestOutcome {
    /// Everything is acceptable: sign the person in if need be, then show the request.
    Validated(RequestValidated),
    /// Client and redirect URI are acceptable, something else is not: sign the person in if need be, then redirect.
    Error(ErrorAwaitingPerson),
    /// Show this; there is nobody to redirect to.
    Refused(Refusal),
}

/// Waits for the record of the client the request names.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingClient(Box<Pending>);

impl AwaitingClient {
    /// The store has looked the client up.
    pub fn found(self, found: ClientFound) -> RequestOutcome {
        let pending = *self.0;
        let asked_for = pending.request.client_id();
        match found.record {
            Some(client) if asked_for == Some(client.client_id.as_str()) => pending.validate(client),
            _ => RequestOutcome::Refused(Refusal::new(RefusalReason::UnknownClient)),
        }
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

/// Waits for the client's metadata document.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingMetadataDocument(Box<(Pending, ClientMetadataUrl)>);

impl AwaitingMetadataDocument {
    /// What the fetch brought.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>, now: OffsetDateTime) -> RequestOutcome {
        let (pending, url) = *self.0;
        match client_of_document(&url, fetched, now) {
            Ok(client) => pending.validate(Arc::new(client)),
            Err(reason) => RequestOutcome::Refused(Refusal::new(reason)),
        }
    }

    /// The store could not be read: what was granted under an older document is not known.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

impl Pending {
    pub(crate) fn new(server: AuthorizationServer, request: AuthorizationRequest) -> Self {
        Self { server, request, pushed: None, pushing: false }
    }

    /// The request is being pushed.
    pub(crate) fn pushing(self) -> Self {
        Self { pushing: true, ..self }
    }

    /// The request was pushed, and is consumed under that key.
    pub(crate) fn pushed_as(self, key: SecretDigest) -> Self {
        Self { pushed: Some(key), ..self }
    }

    pub(crate) fn validate(self, client: Arc<ClientRecord>) -> RequestOutcome {
        let matched = match self.redirect_uri(&client) {
            Ok(matched) => matched,
            Err(reason) => return RequestOutcome::Refused(Refusal::new(reason)),
        };
        let checked = self.check(&client);
        let Self { server, request, pushed, .. } = self;
        let answer = Answer { server, redirect: matched, state: request.into_state() };
        match checked {
            Ok(checked) => RequestOutcome::Validated(RequestValidated(Box::new(Validated {
                client,
                answer,
                checked,
                pushed,
            }))),
            Err(error) => {
                RequestOutcome::Error(ErrorAwaitingPerson(Box::new((answer, error, client.shown()))))
            }
        }
    }

    /// The redirect URI to answer to.
    fn redirect_uri(&self, client: &ClientRecord) -> Result<RedirectMatched, RefusalReason> {
        const REFUSED: RefusalReason = RefusalReason::RedirectUri;
        let registered = client.redirect_uris();
        let requested = match (self.request.redirect_uri(), registered.as_slice()) {
            (Some(text), _) => match registered.iter().find(|known| known.as_str() == text) {
                // A registered spelling was read when it was registered.
                Some(known) if known.is_web() => known.clone(),
                // OAUTH21-2.3.1-2, OAUTH21-2.3.1-4, MCP-SEC-008
                _ => RedirectUri::new(text).map_err(|_| REFUSED)?,
            },
            (None, [only]) => only.clone(),
            // OAUTH21-2.3.2-2
            (None, _) => return Err(REFUSED),
        };
        // OAUTH21-2.3.5-1, MCP-REG-023, I-R1: the comparison makes the evidence that every answer is sent through.
        RedirectMatched::compare(registered, &requested).ok_or(REFUSED)
    }

    fn check(&self, client: &ClientRecord) -> Result<Checked, Fault> {
        let request = &self.request;
        // Extensions that change what a request means are understood or refused, never ignored (I-G11).
        if request.request().is_some() {
            return Err(Fault::new(
                AuthorizationErrorCode::RequestNotSupported,
                "request objects are not supported",
            ));
        }
        if request.request_uri().is_some() {
            return Err(Fault::new(
                AuthorizationErrorCode::RequestUriNotSupported,
                "request_uri is not supported",
            ));
        }
        if request.authorization_details().is_some() {
            let code = AuthorizationErrorCode::InvalidAuthorizationDetails;
            return Err(Fault::new(code, "authorization_details is not supported"));
        }
        let invalid = |words| Err(Fault::new(AuthorizationErrorCode::InvalidRequest, words));
        if request.dpop_jkt().is_some() {
            return invalid("dpop_jkt is not supported");
        }
        // RFC9126-4-3
        if self.pushed.is_none() && self.server.pushed_requests() == PushedRequests::Required && !self.pushing
        {
            return invalid("requests have to be pushed to this server");
        }
        // OAUTH21-4.1.1-2, OAUTH21-10.1-2
        match request.response_type() {
            Some("code") => {}
            None => return invalid("response_type is missing"),
            Some(_) => {
                return Err(Fault::new(
                    AuthorizationErrorCode::UnsupportedResponseType,
                    "response_type must be code",
                ));
            }
        }
        if request.response_mode().is_some_and(|mode| mode != "query") {
            return invalid("response_mode must be query");
        }
        if !client.metadata.uses_grant_type("authorization_code")
            || !client.metadata.uses_response_type("code")
        {
            return Err(Fault::new(
                AuthorizationErrorCode::UnauthorizedClient,
                "the client did not register this grant",
            ));
        }
        if request.prompt().is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) {
            return Err(Fault::new(AuthorizationErrorCode::ConsentRequired, "prompt=none is not supported"));
        }
        let challenge = self.challenge()?;
        let resource = self.resource()?;
        let scope = self.scope(client, resource)?;
        let shown = scope.iter().filter_map(|scope| {
            let words = Arc::clone(resource.description(scope)?);
            Some(ScopeShown { scope: scope.clone(), words, is_risky: resource.is_risky(scope) })
        });
        Ok(Checked {
            challenge,
            resource: resource.id().clone(),
            // Whoever names one wants a page, whatever it says.
            wants_page: request.prompt().is_some(),
            shown: shown.collect(),
            scope,
        })
    }

    fn challenge(&self) -> Result<CodeChallenge, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidRequest, words);
        // OAUTH21-4.1.1-7, OAUTH21-4.1.2.1-1: every client, confidential ones too.
        let challenge = self.request.code_challenge();
        let challenge = challenge.ok_or_else(|| invalid("code_challenge is missing"))?;
        // OAUTH21-4.1.1-8, OAUTH21-4.1.2.1-2: an absent method means plain, and plain is not taken (I-C6).
        if self.request.code_challenge_method() != Some(crate::pkce::S256) {
            return Err(invalid("code_challenge_method must be S256"));
        }
        CodeChallenge::parse(challenge).map_err(|_| invalid("code_challenge is malformed"))
    }

    fn resource(&self) -> Result<&KnownResource, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidTarget, words);
        // RFC8707-2-6, RFC8707-2.1-1 (D30): exactly one, and one this server knows; a repeated one was refused with the query.
        let Some(requested) = self.request.resource() else {
            // RFC9068-3-2 (D30): only where the operator named one.
            return self.server.default_resource().ok_or_else(|| invalid("resource is missing"));
        };
        // MCP-AUTH-058: in any case of its scheme and host.
        let known = self.server.resource_named(requested).map_err(|_| invalid("resource is malformed"))?;
        known.ok_or_else(|| invalid("resource is not known to this server"))
    }

    fn scope(&self, client: &ClientRecord, resource: &KnownResource) -> Result<ScopeSet, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidScope, words);
        // OAUTH21-1.4.1-3 (D38): what is not known is dropped, and the answer says what was granted.
        let mut known = match self.request.scope() {
            // OAUTH21-A-1
            Some(text) => resource.scopes().named_in(text).map_err(|_| invalid("scope is malformed"))?,
            // OAUTH21-1.4.1-2
            None => resource.default_scopes.clone(),
        };
        if let Some(registered) = &client.metadata.scope {
            known = known.intersection(registered);
        }
        if known.is_empty() {
            Err(invalid("no scope of the request is known for this resource"))
        } else {
            Ok(known)
        }
    }
}

/// A fault that goes back to the client.
#[derive(Debug)]
struct Fault {
    code: AuthorizationErrorCode,
    words: &'static str,
}

impl Fault {
    fn new(code: AuthorizationErrorCode, words: &'static str) -> Self {
        Self { code, words }
    }
}

#[derive(Debug)]
struct Checked {
    challenge: CodeChallenge,
    resource: ResourceId,
    wants_page: bool,
    scope: ScopeSet,
    shown: Vec<ScopeShown>,
}

/// A receipt that belongs to another action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is for another action than the one this state waits for")]
pub struct ForeignReceipt;
