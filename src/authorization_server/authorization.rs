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
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::client::{ClientShown, client_of_document};
use super::decision::{Approved, AwaitingCodeStored};
use super::pushed::AwaitingPushedRequest;
use super::record::{ClientOrigin, ClientRecord, ConsentRecord, DecisionRecord, Epochs};
use super::refusal::{Refusal, RefusalReason};
use super::store::{
    ActionId, Basis, ClientFound, ConsentFound, DecideOnce, DecisionInsertion, FindClient, InsertDecision,
    ReadConsent, ReadPushed,
};
use super::{AuthorizationServer, KnownResource, PushedRequests};
use crate::entropy::{Entropy, draw_text};
use crate::evidence::{Authentication, ConsentGiven, ConsentRemembered, RedirectMatched};
use crate::identifier::{ClientId, ClientMetadataUrl, RedirectUri, ResourceId, Scope, ScopeSet};
use crate::message::authorization::{
    AuthorizationError, AuthorizationRequest, AuthorizationResponse, AuthorizationResult,
};
use crate::message::error_code::{AuthorizationErrorCode, ErrorDetail};
use crate::message::exchange::{Fetch, FetchFailure, Reply, Respond};
use crate::pkce::CodeChallenge;
use crate::secret::{AuthorizationCode, SecretDigest, State};
use crate::step::{Failed, Step};
use crate::time::{self, OffsetDateTime};

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
        let client_id = request.client_id.as_deref().ok_or_else(unknown)?;
        // A reference of another kind than this server's stays a fault of the request, told to the client below.
        if let Some(uri) =
            request.request_uri.as_deref().filter(|_| self.pushed_requests() != PushedRequests::Off)
        {
            let client_id = ClientId::new(client_id).map_err(|_| unknown())?;
            return self.read_pushed(client_id, uri).map(Authorizing::Pushed);
        }
        self.resolve_client(Pending::new(self.clone(), request))
    }

    /// Finds out whose request it is.
    pub(crate) fn resolve_client(&self, pending: Pending) -> Result<Authorizing, Refusal> {
        let unknown = || Refusal::new(RefusalReason::UnknownClient);
        let client_id = pending.request.client_id.as_deref().ok_or_else(unknown)?;
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
        let asked_for = pending.request.client_id.as_deref();
        match found.record {
            Some(client) if asked_for == Some(client.client_id.as_str()) => pending.validate(*client),
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
            Ok(client) => pending.validate(client),
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

    pub(crate) fn validate(self, client: ClientRecord) -> RequestOutcome {
        let (registered, matched) = match self.redirect_uri(&client) {
            Ok(found) => found,
            Err(reason) => return RequestOutcome::Refused(Refusal::new(reason)),
        };
        let answer =
            Answer { server: self.server.clone(), redirect: matched, state: self.request.state.clone() };
        match self.check(&client) {
            Ok(checked) => RequestOutcome::Validated(RequestValidated(Box::new(Validated {
                client,
                registered,
                answer,
                checked,
                pushed: self.pushed,
            }))),
            Err(error) => {
                RequestOutcome::Error(ErrorAwaitingPerson(Box::new((answer, error, client.shown()))))
            }
        }
    }

    /// The redirect URI to answer to, and the registered one it matched.
    fn redirect_uri(&self, client: &ClientRecord) -> Result<(RedirectUri, RedirectMatched), RefusalReason> {
        const REFUSED: RefusalReason = RefusalReason::RedirectUri;
        let requested = match (self.request.redirect_uri.as_deref(), client.redirect_uris().as_slice()) {
            // OAUTH21-2.3.1-2, OAUTH21-2.3.1-4, MCP-SEC-008
            (Some(text), _) => RedirectUri::new(text).map_err(|_| REFUSED)?,
            (None, [only]) => only.clone(),
            // OAUTH21-2.3.2-2
            (None, _) => return Err(REFUSED),
        };
        // OAUTH21-2.3.5-1, MCP-REG-023, I-R1: the comparison makes the evidence that every answer is sent through.
        let matched = RedirectMatched::compare(client.redirect_uris(), &requested).ok_or(REFUSED)?;
        let registered =
            client.redirect_uris().iter().find(|known| known.matches(&requested)).ok_or(REFUSED)?.clone();
        Ok((registered, matched))
    }

    fn check(&self, client: &ClientRecord) -> Result<Checked, Fault> {
        let request = &self.request;
        // Extensions that change what a request means are understood or refused, never ignored (I-G11).
        if request.request.is_some() {
            return Err(Fault::new(
                AuthorizationErrorCode::RequestNotSupported,
                "request objects are not supported",
            ));
        }
        if request.request_uri.is_some() {
            return Err(Fault::new(
                AuthorizationErrorCode::RequestUriNotSupported,
                "request_uri is not supported",
            ));
        }
        if request.authorization_details.is_some() {
            let code = AuthorizationErrorCode::InvalidAuthorizationDetails;
            return Err(Fault::new(code, "authorization_details is not supported"));
        }
        let invalid = |words| Err(Fault::new(AuthorizationErrorCode::InvalidRequest, words));
        if request.dpop_jkt.is_some() {
            return invalid("dpop_jkt is not supported");
        }
        // RFC9126-4-3
        if self.pushed.is_none() && self.server.pushed_requests() == PushedRequests::Required && !self.pushing
        {
            return invalid("requests have to be pushed to this server");
        }
        // OAUTH21-4.1.1-2, OAUTH21-10.1-2
        match request.response_type.as_deref() {
            Some("code") => {}
            None => return invalid("response_type is missing"),
            Some(_) => {
                return Err(Fault::new(
                    AuthorizationErrorCode::UnsupportedResponseType,
                    "response_type must be code",
                ));
            }
        }
        if request.response_mode.as_deref().is_some_and(|mode| mode != "query") {
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
        if request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) {
            return Err(Fault::new(AuthorizationErrorCode::ConsentRequired, "consent is always asked for"));
        }
        let challenge = self.challenge()?;
        let resource = self.resource()?;
        let scope = self.scope(client, resource)?;
        Ok(Checked {
            challenge,
            resource: resource.id().clone(),
            scope: scope
                .iter()
                .map(|scope| ScopeShown {
                    scope: scope.clone(),
                    words: String::from(resource.description(scope).unwrap_or_default()),
                    is_risky: resource.is_risky(scope),
                })
                .collect(),
        })
    }

    fn challenge(&self) -> Result<CodeChallenge, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidRequest, words);
        // OAUTH21-4.1.1-7, OAUTH21-4.1.2.1-1: every client, confidential ones too.
        let challenge = self.request.code_challenge.as_deref();
        let challenge = challenge.ok_or_else(|| invalid("code_challenge is missing"))?;
        // OAUTH21-4.1.1-8, OAUTH21-4.1.2.1-2: an absent method means plain, and plain is not taken (I-C6).
        if self.request.code_challenge_method.as_deref() != Some(crate::pkce::S256) {
            return Err(invalid("code_challenge_method must be S256"));
        }
        CodeChallenge::parse(challenge).map_err(|_| invalid("code_challenge is malformed"))
    }

    fn resource(&self) -> Result<&KnownResource, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidTarget, words);
        // RFC8707-2-6, RFC8707-2.1-1 (D30): exactly one, and one this server knows; a repeated one was refused with the query.
        let Some(requested) = self.request.resource.as_deref() else {
            // RFC9068-3-2 (D30): only where the operator named one.
            return self.server.default_resource().ok_or_else(|| invalid("resource is missing"));
        };
        // MCP-AUTH-058: in any case of its scheme and host.
        let requested =
            ResourceId::from_server_url(requested).map_err(|_| invalid("resource is malformed"))?;
        self.server.resource(&requested).ok_or_else(|| invalid("resource is not known to this server"))
    }

    fn scope(&self, client: &ClientRecord, resource: &KnownResource) -> Result<ScopeSet, Fault> {
        let invalid = |words| Fault::new(AuthorizationErrorCode::InvalidScope, words);
        let requested = match self.request.scope.as_deref() {
            // OAUTH21-A-1
            Some(text) => ScopeSet::parse(text).map_err(|_| invalid("scope is malformed"))?,
            // OAUTH21-1.4.1-2
            None => resource.default_scopes.clone(),
        };
        // OAUTH21-1.4.1-3 (D38): what is not known is dropped, and the answer says what was granted.
        let mut known = requested.intersection(&resource.scopes());
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
    scope: Vec<ScopeShown>,
}

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
        let pairs = response.pairs();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let location = self.redirect.redirect_uri().with_parameters(pairs);
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
pub struct ErrorAwaitingPerson(Box<(Answer, Fault, ClientShown)>);

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

/// A request with nothing wrong. The host signs the person in and then shows it.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct RequestValidated(Box<Validated>);

#[derive(Debug)]
struct Validated {
    client: ClientRecord,
    registered: RedirectUri,
    answer: Answer,
    checked: Checked,
    pushed: Option<SecretDigest>,
}

impl Validated {
    /// Whether an earlier consent may stand in for the person (I-P2): only where the client proves who it is, and the
    /// answer goes nowhere that another program on the person's machine could listen.
    fn may_remember(&self) -> bool {
        // OAUTH21-7.3-1
        self.client.credential.is_confidential() && !self.answer.redirect.redirect_uri().is_loopback()
    }

    fn scope(&self) -> ScopeSet {
        self.checked.scope.iter().map(|shown| shown.scope.clone()).collect()
    }

    /// The remembered consent of this very request, as far as it can be known before it is read.
    fn consent_of(&self, person: &Authentication) -> ConsentRecord {
        ConsentRecord {
            subject: String::from(person.subject()),
            client_id: self.client.client_id.clone(),
            redirect_uri: self.answer.redirect.redirect_uri().clone(),
            resource: self.checked.resource.clone(),
            metadata_digest: self.client.metadata_digest(),
            scope: self.scope(),
            epochs: Epochs::default(),
            not_after: person.authenticated(),
        }
    }
}

impl RequestValidated {
    /// The evidence for the redirect URI.
    pub fn redirect_matched(&self) -> &RedirectMatched {
        &self.0.answer.redirect
    }

    /// The person is signed in, and may have wanted the answer to this very request remembered: that is read first.
    pub fn recall(self, person: &Authentication) -> Recall {
        if !self.0.may_remember() {
            return Recall::Ask(self);
        }
        let read = ReadConsent::new(self.0.consent_of(person).key());
        Recall::Read(Step::new(read, AwaitingConsent(Box::new((self, person.clone())))))
    }

    /// The person is signed in: what they will be asked is stored first, bound to them and to their browser.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no randomness; nothing was stored.
    pub fn show(
        self,
        person: &Authentication,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<InsertDecision, AwaitingDecisionStored>, Refusal> {
        let (may_remember, scope) = (self.0.may_remember(), self.0.scope());
        let Validated { client, registered, answer, checked, pushed } = *self.0;
        let unavailable = |_| Refusal::new(RefusalReason::Unavailable);
        // OAUTH21-7.7-1, OAUTH21-1.4-2: neither can be guessed. The page is shown whatever was approved before
        // (OAUTH21-7.3-1).
        let handle = draw_text(entropy).map_err(unavailable)?;
        let csrf = draw_text(entropy).map_err(unavailable)?;
        let redirect_uri = answer.redirect.redirect_uri().clone();
        let record = DecisionRecord {
            client_id: client.client_id.clone(),
            registered_redirect_uri: registered,
            redirect_uri: redirect_uri.clone(),
            resource: checked.resource.clone(),
            scope,
            state: answer.state,
            challenge: checked.challenge,
            // OAUTH21-3.2.3-6: only where the client registered the grant.
            refresh: client.metadata.uses_grant_type("refresh_token"),
            agent: *person.agent(),
            subject: String::from(person.subject()),
            authenticated: person.authenticated(),
            csrf: SecretDigest::of(csrf.as_bytes()),
            metadata_digest: client.metadata_digest(),
            may_remember,
            not_after: time::after(now, answer.server.lifetimes().decision),
        };
        let view = ConsentView {
            client: client.shown(),
            client_id: client.client_id.clone(),
            // MCP-SEC-024, MCP-SBP-004
            redirect_host: String::from(redirect_uri.host_for_display()),
            // MCP-SEC-022: any program on the machine can claim a loopback redirect: the name is worth nothing there.
            redirect_is_loopback: redirect_uri.is_loopback(),
            resource: checked.resource,
            scopes: checked.scope,
            subject: String::from(person.subject()),
            may_remember,
            handle: (*handle).clone(),
            csrf: (*csrf).clone(),
        };
        let document = (client.origin == ClientOrigin::MetadataDocument).then_some(client);
        let key = SecretDigest::of(handle.as_bytes());
        let (insert, id) =
            InsertDecision::new(key, record, document, pushed, entropy).map_err(unavailable)?;
        Ok(Step::new(insert, AwaitingDecisionStored(Box::new((id, view)))))
    }
}

/// Whether an earlier answer may stand in for the person.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum Recall {
    /// It may: it is read.
    Read(Step<ReadConsent, AwaitingConsent>),
    /// It may not: the person is asked.
    Ask(RequestValidated),
}

/// Waits for what the person wanted remembered.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub struct AwaitingConsent(Box<(RequestValidated, Authentication)>);

/// What the memory came to.
#[must_use = "the person waits for an answer"]
#[derive(Debug)]
pub enum Recalled {
    /// The person agreed to all of this before: the code is stored.
    Remembered(Step<DecideOnce, AwaitingCodeStored>),
    /// The person is asked.
    Ask(RequestValidated, Authentication),
    /// Show this.
    Refused(Refusal),
}

impl AwaitingConsent {
    /// The store has looked for it.
    pub fn found(self, found: ConsentFound, entropy: &mut dyn Entropy) -> Recalled {
        let (request, person) = *self.0;
        let expected = request.0.consent_of(&person);
        let Some((record, epochs)) = found.record.filter(|_| found.key == expected.key()) else {
            return Recalled::Ask(request, person);
        };
        let Some(consent) = remembered(&expected, &record, epochs, found.now) else {
            return Recalled::Ask(request, person);
        };
        // A pushed request, or a client of a document, is written down with the page: these are asked.
        if request.0.pushed.is_some() || request.0.client.origin == ClientOrigin::MetadataDocument {
            return Recalled::Ask(request, person);
        }
        let Validated { client, answer, checked, .. } = *request.0;
        let approved = Approved {
            client_id: client.client_id.clone(),
            subject: record.subject,
            resource: checked.resource,
            redirect_uri: answer.redirect.redirect_uri().clone(),
            challenge: checked.challenge,
            refresh: client.metadata.uses_grant_type("refresh_token"),
            authenticated: person.authenticated(),
            epochs,
        };
        let basis = Basis::Remembered(found.key);
        match approved.take(answer, basis, Some(consent), None, found.now, entropy) {
            Ok(step) => Recalled::Remembered(step),
            Err(refusal) => Recalled::Refused(refusal),
        }
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

fn remembered(
    expected: &ConsentRecord,
    record: &ConsentRecord,
    today: Epochs,
    now: OffsetDateTime,
) -> Option<ConsentGiven> {
    fn side(consent: &ConsentRecord, epochs: Epochs) -> ConsentRemembered<'_> {
        let epochs = [epochs.client, epochs.subject, epochs.consent];
        ConsentRemembered { key: consent.key(), scopes: &consent.scope, epochs }
    }
    ConsentGiven::remembered(&side(expected, today), &side(record, record.epochs), record.not_after, now)
}

/// Waits until the store holds what the person will be asked.
#[must_use = "the person waits for the page"]
#[derive(Debug)]
pub struct AwaitingDecisionStored(Box<(ActionId, ConsentView)>);

/// A receipt that belongs to another action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receipt is for another action than the one this state waits for")]
pub struct ForeignReceipt;

/// What the person is shown.
#[must_use = "the person waits for the page"]
#[derive(Debug)]
pub enum PageOutcome {
    /// The consent page.
    Consent(Box<ConsentView>),
    /// Why there is none.
    Refused(Refusal),
}

impl PageOutcome {
    /// The consent page, or the refusal.
    ///
    /// # Errors
    /// The [`Refusal`] to show instead.
    pub fn into_page(self) -> Result<ConsentView, Refusal> {
        match self {
            Self::Consent(view) => Ok(*view),
            Self::Refused(refusal) => Err(refusal),
        }
    }
}

impl AwaitingDecisionStored {
    /// The store holds it: the page may be shown. Or the pushed request it came of was used before: the refusal is.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn stored(self, receipt: DecisionInsertion) -> Result<PageOutcome, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        // RFC9126-4-2: single use.
        Ok(if receipt.inserted {
            PageOutcome::Consent(Box::new(self.0.1))
        } else {
            PageOutcome::Refused(Refusal::new(RefusalReason::PushedRequest))
        })
    }

    /// The store failed; nothing is pending.
    pub fn store_failed(self) -> Refusal {
        Refusal::new(RefusalReason::Unavailable)
    }
}

/// A scope as the person is asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeShown {
    /// The scope.
    pub scope: Scope,
    /// What it allows, in the operator's words.
    pub words: String,
    /// Whether the operator marked it.
    pub is_risky: bool,
}

/// What the consent page shows and what its form sends back.
///
/// Client name and identity are a peer's text: the page escapes them (I-P8).
pub struct ConsentView {
    /// Who asks.
    pub client: ClientShown,
    /// The client's identifier.
    pub client_id: ClientId,
    /// The host the answer goes to: the one thing the client cannot invent.
    pub redirect_host: String,
    /// Whether the answer goes to a program on the person's own machine.
    pub redirect_is_loopback: bool,
    /// What the client wants to reach.
    pub resource: ResourceId,
    /// What it wants to do there.
    pub scopes: Vec<ScopeShown>,
    /// Who is signed in.
    pub subject: String,
    /// Whether the person may have the answer remembered.
    pub may_remember: bool,
    /// The handle of the decision, for a hidden field of the form. Secret.
    pub handle: String,
    /// The anti-forgery value, for a hidden field of the form. Secret.
    pub csrf: String,
}

impl fmt::Debug for ConsentView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsentView")
            .field("client_id", &self.client_id)
            .field("redirect_host", &self.redirect_host)
            .field("resource", &self.resource)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
