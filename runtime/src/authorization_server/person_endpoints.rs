//! The endpoints for the person's browser: the authorization request, the consent page's form, the sign-in page's form.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use mcp_authz::authorization_server::authorization::{
    Authorizing, ErrorAwaitingPerson, PageOutcome, Recall, Recalled, Redirect, RequestOutcome,
    RequestValidated,
};
use mcp_authz::authorization_server::decision::{AwaitingCodeStored, AwaitingDecision, Decided};
use mcp_authz::authorization_server::refusal::Refusal;
use mcp_authz::authorization_server::sign_in::RequestShown;
use mcp_authz::authorization_server::store::{DecideOnce, DecisionFound};
use mcp_authz::evidence::{Approval, Authentication};
use mcp_authz::identifier::{Scope, ScopeSet};
use mcp_authz::limits;
use mcp_authz::secret::AgentBinding;
use mcp_authz::step::Step;
use mcp_authz::syntax::form::Form;

use super::browser::Browser;
use super::pages::{self, SCOPE_FIELD};
use super::people::{EndedBy, Person, Returned, SignIn, SignInFault, Ways};
use super::sessions::SESSION;
use super::{AuthorizationEvent, AuthorizationServerHost};
use crate::entropy::ThreadEntropy;
use crate::http_io::{read_body, response};
use crate::store::ReadSession;

/// What the store found under the handle of a page, and what waits for it.
type ReadPage = (AwaitingDecision, DecisionFound);

impl AuthorizationServerHost {
    /// `GET /authorize`
    pub(super) async fn authorize(&self, parts: Parts) -> Response {
        let query = parts.uri.query().unwrap_or_default();
        if query.len() > limits::AUTHORIZATION_URL_BYTES {
            return StatusCode::URI_TOO_LONG.into_response();
        }
        let Some(browser) = self.browsers.known_or_fresh(&parts) else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let mut answer = match self.checked(query).await {
            Ok((RequestOutcome::Validated(request), is_new)) => {
                self.ask(&parts, &browser, (request, is_new)).await
            }
            Ok((RequestOutcome::Error(error), _)) => self.answer_error(&parts, &browser, error).await,
            Ok((RequestOutcome::Refused(refusal), _)) | Err(refusal) => self.refusal(&refusal),
        };
        if let Some(cookie) = browser.set_cookie() {
            answer.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        answer
    }

    /// Everything about the request that needs no person; and whether its client comes of a document and is new to the store.
    async fn checked(&self, query: &str) -> Result<(RequestOutcome, bool), Refusal> {
        let mut authorizing = self.core.measure(|| self.server.authorize(query))?;
        if let Authorizing::Pushed(step) = authorizing {
            let (action, waiting) = step.into_parts();
            let found = match self.store.read_pushed(action).await {
                Ok(found) => found,
                Err(error) => {
                    self.store_failed(&error);
                    return Err(waiting.store_failed());
                }
            };
            authorizing = self.core.measure(|| waiting.found(found))?;
        }
        match authorizing {
            // What was pushed is no reference to another.
            Authorizing::Pushed(step) => Err(step.into_parts().1.store_failed()),
            Authorizing::Find(step) => {
                let (action, waiting) = step.into_parts();
                self.observe(AuthorizationEvent::FindClient(&action));
                match self.store.find_client(action).await {
                    Ok(found) => Ok((self.core.measure(|| waiting.found(found)), false)),
                    Err(error) => {
                        self.store_failed(&error);
                        Err(waiting.store_failed())
                    }
                }
            }
            Authorizing::Fetch(step) => {
                let (fetch, waiting) = step.into_parts();
                match self.document(&fetch).await {
                    Ok(looked) => {
                        let outcome = self.core.measure(|| waiting.receive(looked.fetched, looked.at));
                        Ok((outcome, looked.is_new))
                    }
                    // The store failed: nothing is known of what was granted under an older document.
                    Err(_) => Err(waiting.store_failed()),
                }
            }
        }
    }

    /// Who is signed in in the browser, as far as the host knows, and as long as they did not sign out there and nobody revoked
    /// everything of theirs.
    pub(super) async fn person_in(&self, parts: &Parts, browser: &Browser) -> Person {
        let person = self.people.person(parts, browser).await;
        let Person::SignedIn { subject, ended_by, .. } = &person else { return person };
        // A browser that is new has not signed out.
        if browser.set_cookie().is_some() && *ended_by == EndedBy::Host {
            return person;
        }
        let signed_out = self.server.signed_out(browser.agent(), self.clock.now());
        let asked = ReadSession::of(subject.as_str()).in_browser(signed_out);
        let found = match self.store.read_session(asked).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Person::Unavailable;
            }
        };
        // I-P9, I-T4: in whichever process it was, and whoever has a copy of the cookies.
        let stands = |ended_by: &EndedBy| match ended_by {
            EndedBy::Epoch(epoch) => found.stands(*epoch),
            EndedBy::Host => !found.signed_out,
        };
        if stands(ended_by) {
            return person;
        }
        let Some(fresh) = self.browsers.fresh() else { return Person::Unavailable };
        match self.people.person(parts, &fresh).await {
            // The same session, whatever the browser.
            Person::SignedIn { ended_by: EndedBy::Epoch(epoch), .. } if found.is_revoked_since(epoch) => {
                Person::Unavailable
            }
            person => person,
        }
    }

    /// Who sends a form of a page that was shown to somebody who was signed in, or what they get if nobody is any more.
    pub(super) async fn sender(&self, parts: &Parts, browser: &Browser) -> Result<String, Response> {
        match self.person_in(parts, browser).await {
            Person::SignedIn { subject, .. } => Ok(subject),
            Person::Unavailable => Err(StatusCode::SERVICE_UNAVAILABLE.into_response()),
            Person::Button { .. } | Person::Ways(_) | Person::Elsewhere(_) => Err(pages::expired()),
        }
    }

    /// The person, or the answer that has them sign in first.
    async fn person(
        &self,
        parts: &Parts,
        browser: &Browser,
        asked: impl FnOnce() -> RequestShown,
    ) -> Result<(Authentication, Option<String>), Response> {
        match self.person_in(parts, browser).await {
            Person::SignedIn { subject, since, name, .. } => {
                let person = Authentication::assertion(subject, *browser.agent(), since);
                let person = person.ok_or_else(|| StatusCode::SERVICE_UNAVAILABLE.into_response())?;
                Ok((person, name))
            }
            Person::Button { subject } => {
                let query = parts.uri.query().unwrap_or_default();
                Err(pages::sign_in(self.base(), &subject, &format!("/authorize?{query}")))
            }
            Person::Ways(ways) => {
                let query = parts.uri.query().unwrap_or_default();
                let place = format!("/authorize?{query}");
                let token = self.forms.token(browser.agent(), &approval_of(&place));
                // MCP-SBP-002, MCP-SBP-004: who asks is shown before anybody is sent away.
                Err(pages::ways(self.base(), &ways, &place, &token, Some(&asked()), None))
            }
            Person::Elsewhere(response) => Err(*response),
            Person::Unavailable => Err(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        }
    }

    async fn ask(
        &self,
        parts: &Parts,
        browser: &Browser,
        (request, is_new): (RequestValidated, bool),
    ) -> Response {
        self.observe(AuthorizationEvent::RedirectMatched(request.redirect_matched()));
        let (person, name) = match self.person(parts, browser, || request.shown()).await {
            Ok(person) => person,
            Err(answer) => return answer,
        };
        // The page writes a new client down.
        let request = if is_new { Ok(request) } else { self.recall(request, &person).await };
        let request = match request {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        let now = self.clock.now();
        let step = match self.core.measure(|| request.show(&person, now, &mut ThreadEntropy)) {
            Ok(step) => step,
            Err(refusal) => return self.refusal(&refusal),
        };
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::InsertDecision(&action));
        let view = match self.store.insert_decision(action).await {
            Ok(receipt) => match self.core.measure(|| waiting.stored(receipt)).map(PageOutcome::into_page) {
                Ok(Ok(view)) => view,
                Ok(Err(refusal)) => return self.refusal(&refusal),
                Err(failed) => return self.refusal(&failed.state.store_failed()),
            },
            Err(error) => {
                self.store_failed(&error);
                return self.refusal(&waiting.store_failed());
            }
        };
        if self.approves_everything {
            let all = view.scopes.iter().map(|shown| shown.scope.clone()).collect();
            let approval = Approval::assertion(person.subject(), *browser.agent(), all);
            let answered = match self.read_decision(&view.handle).await {
                Ok(read) => self.answered(read, &view.csrf, Ok(approval)).await,
                Err(refusal) => Err(refusal),
            };
            return match answered {
                Ok(redirect) => self.redirect(redirect),
                Err(refusal) => self.refusal(&refusal),
            };
        }
        self.observe(AuthorizationEvent::Shown(&view));
        pages::consent(self.base(), &view, name.as_deref(), &self.sign_out_token(browser))
    }

    /// The request, unless the person wanted the answer to it remembered: then the answer.
    async fn recall(
        &self,
        request: RequestValidated,
        person: &Authentication,
    ) -> Result<RequestValidated, Response> {
        let step = match self.core.measure(|| request.recall(person)) {
            Recall::Ask(request) => return Ok(request),
            Recall::Read(step) => step,
        };
        let (action, waiting) = step.into_parts();
        let found = match self.store.read_consent(action).await {
            Ok(found) => found,
            Err(error) => {
                self.store_failed(&error);
                return Err(self.refusal(&waiting.store_failed()));
            }
        };
        let step = match self.core.measure(|| waiting.found(found, &mut ThreadEntropy)) {
            Recalled::Ask(request, _) => return Ok(request),
            Recalled::Refused(refusal) => return Err(self.refusal(&refusal)),
            Recalled::Remembered(step) => step,
        };
        Err(match self.take(step).await {
            Ok(redirect) => self.redirect(redirect),
            Err(refusal) => self.refusal(&refusal),
        })
    }

    async fn answer_error(&self, parts: &Parts, browser: &Browser, error: ErrorAwaitingPerson) -> Response {
        let person = match self.person(parts, browser, || error.shown()).await {
            Ok((person, _)) => person,
            Err(answer) => return answer,
        };
        // MCP-SEC-019: nobody is sent by itself to a host that only the client names; where nobody is asked anything, nobody is there.
        let asks = (!error.client().verified && !self.approves_everything)
            .then(|| (error.shown(), error.code().clone(), error.words()));
        let redirect = match self.core.measure(|| error.redirect(&person)) {
            Ok(redirect) => redirect,
            Err(refusal) => return self.refusal(&refusal),
        };
        match asks {
            None => self.redirect(redirect),
            Some((shown, code, words)) => {
                pages::error_for_client(&shown, (code.as_str(), words), redirect.location())
            }
        }
    }

    /// `POST /decision`
    pub(super) async fn decision(&self, request: Request) -> Response {
        let (parts, form) = match self.own_form(request).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        let Some(browser) = self.browsers.known(&parts) else { return pages::expired() };
        // I-T4: what is granted is granted under the epochs that are read here, and whether the session stands is asked after
        // that: a revocation between the two ends the session, and a later one the grant.
        let read = match self.read_decision(form.get("handle").unwrap_or_default()).await {
            Ok(read) => read,
            Err(refusal) => return self.refusal(&refusal),
        };
        let person = match self.sender(&parts, &browser).await {
            Ok(subject) => subject,
            Err(answer) => return answer,
        };
        match self.decide(read, &form, &browser, &person).await {
            Ok(redirect) => self.redirect(redirect),
            Err(refusal) => self.refusal(&refusal),
        }
    }

    async fn decide(
        &self,
        read: ReadPage,
        form: &Form,
        browser: &Browser,
        subject: &str,
    ) -> Result<Redirect, Refusal> {
        let csrf = form.get("csrf").unwrap_or_default();
        let agent = *browser.agent();
        // Anything but the one word is no approval (I-G8).
        let answer = if form.get("decision") == Some("approve") {
            let approval = Approval::assertion(subject, agent, approved(form));
            Ok(if form.get("remember") == Some("on") { approval.remembered() } else { approval })
        } else {
            Err((subject, agent))
        };
        self.answered(read, csrf, answer).await
    }

    /// What is pending under that handle.
    async fn read_decision(&self, handle: &str) -> Result<ReadPage, Refusal> {
        let (action, waiting) = self.core.measure(|| self.server.decide(handle)).into_parts();
        self.observe(AuthorizationEvent::ReadDecision(&action));
        match self.store.read_decision(action).await {
            Ok(found) => Ok((waiting, found)),
            Err(error) => {
                self.store_failed(&error);
                Err(waiting.store_failed())
            }
        }
    }

    /// The person approved, or denied.
    async fn answered(
        &self,
        (waiting, found): ReadPage,
        csrf: &str,
        answer: Result<Approval, (&str, AgentBinding)>,
    ) -> Result<Redirect, Refusal> {
        let step = self.core.measure(|| {
            let deciding = waiting.found(found)?;
            match answer {
                Ok(approval) => deciding.approve(approval, csrf, &mut ThreadEntropy),
                Err((subject, agent)) => deciding.deny(subject, agent, csrf, &mut ThreadEntropy),
            }
        })?;
        self.take(step).await
    }

    /// The decision, and the code with it, are stored; the browser goes back to the client.
    async fn take(&self, step: Step<DecideOnce, AwaitingCodeStored>) -> Result<Redirect, Refusal> {
        let (action, waiting) = step.into_parts();
        self.observe(AuthorizationEvent::DecideOnce(&action));
        let receipt = match self.store.decide_once(action).await {
            Ok(receipt) => receipt,
            Err(error) => {
                self.store_failed(&error);
                return Err(waiting.store_failed());
            }
        };
        self.observe(AuthorizationEvent::DecisionTaken(&receipt));
        match self.core.measure(|| waiting.decided(receipt)) {
            Ok(Decided::Redirect(redirect)) => Ok(redirect),
            Ok(Decided::Refused(refusal)) => Err(refusal),
            Err(failed) => Err(failed.state.store_failed()),
        }
    }

    /// `POST /sign-in`
    pub(super) async fn sign_in(&self, request: Request) -> Response {
        let (parts, form) = match self.own_form(request).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        let Some(known) = self.browsers.known(&parts) else { return pages::expired() };
        // Back to where the person came from, which is always one of this server's own pages.
        let request = form.get("request").unwrap_or_default();
        if !is_own_place(request) {
            return pages::expired();
        }
        // Session fixation: who is signed in is known by another cookie than who was not.
        let Some(browser) = self.browsers.fresh() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        // MCP-SBP-010, MCP-SBP-011: nobody is sent elsewhere who has not just approved it, on the page of this very request.
        let token = form.get("csrf").unwrap_or_default();
        if form.get("provider").is_some() && !self.forms.is_token(known.agent(), &approval_of(request), token)
        {
            return pages::expired();
        }
        match self.people.sign_in(&parts, &form, &browser).await {
            SignIn::SignedIn(more) => self.back(request, &browser, more),
            SignIn::Elsewhere { location, cookie } => {
                let answer = (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response();
                with_cookies(answer, browser.set_cookie().into_iter().chain([&cookie]))
            }
            SignIn::Failed(fault, provider) => {
                self.heard(&fault);
                let token = self.forms.token(known.agent(), &approval_of(request));
                pages::sign_in_failed(self.base(), &fault, &provider, Some((request, &token)))
            }
            SignIn::Refused => {
                let ways = match self.people.person(&parts, &known).await {
                    Person::Ways(ways) => ways,
                    _ => Ways { password: true, providers: Vec::new() },
                };
                let token = self.forms.token(known.agent(), &approval_of(request));
                let why = "Name or password are wrong, or were tried too often.";
                pages::ways(self.base(), &ways, request, &token, None, Some(why))
            }
            SignIn::Busy => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")]).into_response(),
            SignIn::Unavailable(error) => {
                self.store_failed(&error);
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
            SignIn::NoPage => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// Notes the store's failure, if that is why a sign-in came to nothing.
    fn heard(&self, fault: &SignInFault) {
        if let Some(error) = &fault.store {
            self.store_failed(error);
        }
    }

    /// `POST /sign-out`: the sessions of the browser end, in every process over the store.
    pub(super) async fn sign_out(&self, request: Request) -> Response {
        let (parts, form) = match self.own_form(request).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        let Some(browser) = self.browsers.known(&parts) else { return pages::expired() };
        // I-P9: no other page signs anybody out.
        let token = form.get("csrf").unwrap_or_default();
        if !self.forms.is_token(browser.agent(), SIGN_OUT, token) {
            return pages::expired();
        }
        let until = self.clock.now().saturating_add(SESSION);
        // Whether it is the first time or not: it is signed out.
        if let Err(error) = self.store.reserve_once(self.server.signed_out(browser.agent(), until)).await {
            self.store_failed(&error);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let cookies = self.people.sign_out(&parts, &browser).await;
        let next = self.browsers.fresh();
        let next = next.as_ref().and_then(Browser::set_cookie);
        with_cookies(pages::signed_out(self.base()), next.into_iter().chain(&cookies))
    }

    /// The value for the button that signs the person of this browser out.
    pub(super) fn sign_out_token(&self, browser: &Browser) -> String {
        self.forms.token(browser.agent(), SIGN_OUT)
    }

    /// `GET /sign-in/ID`: the browser comes back from a provider.
    pub(super) async fn returned(&self, provider: &str, parts: Parts) -> Response {
        // Session fixation: who is signed in is known by another cookie than who was not.
        let Some(next) = self.browsers.fresh() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let known = self.browsers.known(&parts);
        match self.people.returned(provider, &parts, known.as_ref(), &next).await {
            Returned::SignedIn { cookies, place: Some(place) } => self.back(&place, &next, cookies),
            Returned::SignedIn { cookies, place: None } => {
                with_cookies(pages::signed_in(), next.set_cookie().into_iter().chain(&cookies))
            }
            Returned::NotOurs => pages::expired(),
            Returned::Failed { fault, cookies, place, provider } => {
                self.heard(&fault);
                // The request that waits for the person is where it was: they may approve once more.
                let again = known
                    .as_ref()
                    .zip(place.as_deref())
                    .map(|(browser, place)| (place, self.forms.token(browser.agent(), &approval_of(place))));
                let again = again.as_ref().map(|(place, token)| (*place, token.as_str()));
                let answer = pages::sign_in_failed(self.base(), &fault, &provider, again);
                with_cookies(answer, &cookies)
            }
            Returned::NoPage => StatusCode::NOT_FOUND.into_response(),
        }
    }

    /// Back to where the person came from, in a browser that has a new cookie.
    fn back(&self, place: &str, browser: &Browser, more: impl IntoIterator<Item = HeaderValue>) -> Response {
        let Ok(target) = HeaderValue::try_from(format!("{}{place}", self.base())) else {
            return pages::expired();
        };
        let answer = (StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response();
        let more: Vec<HeaderValue> = more.into_iter().collect();
        with_cookies(answer, browser.set_cookie().into_iter().chain(&more))
    }

    /// A form of one of this server's own pages.
    pub(super) async fn own_form(&self, request: Request) -> Result<(Parts, Form), Response> {
        let (parts, body) = request.into_parts();
        // MCP-SBP-005, I-P9: beside the value in the form and the cookie, what the browser says of the page.
        if !self.browsers.same_origin(&parts.headers) {
            return Err(pages::expired());
        }
        let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !kind.starts_with(b"application/x-www-form-urlencoded") {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
        }
        let body =
            read_body(body, limits::FORM_BYTES).await.map_err(axum::response::IntoResponse::into_response)?;
        let form = Form::parse(&body).map_err(|_| StatusCode::BAD_REQUEST.into_response())?;
        Ok((parts, form))
    }

    fn redirect(&self, redirect: Redirect) -> Response {
        self.observe(AuthorizationEvent::Redirected(&redirect));
        response(&redirect.respond())
    }

    fn refusal(&self, refusal: &Refusal) -> Response {
        tracing::debug!(reason = %refusal.reason(), "authorization request refused");
        self.observe(AuthorizationEvent::Refusal(refusal));
        pages::refusal(refusal)
    }
}

/// Whether a person may be sent back there: to one of this server's own pages.
pub(super) fn is_own_place(place: &str) -> bool {
    place.starts_with("/authorize?") || place == "/grants"
}

/// What the button to sign out is for. No subject has such a name.
const SIGN_OUT: &str = "\0sign out";

/// What a person approves who goes elsewhere to sign in: to come back to that place. No subject has such a name.
pub(super) fn approval_of(place: &str) -> String {
    format!("\0sign in for {place}")
}

fn with_cookies<'c>(mut answer: Response, cookies: impl IntoIterator<Item = &'c HeaderValue>) -> Response {
    for cookie in cookies {
        answer.headers_mut().append(SET_COOKIE, cookie.clone());
    }
    answer
}

/// The scopes whose boxes are ticked. A name that is no scope counts for nothing.
fn approved(form: &Form) -> ScopeSet {
    form.names()
        .filter_map(|name| name.strip_prefix(SCOPE_FIELD))
        .filter_map(|scope| Scope::new(scope).ok())
        .collect()
}
