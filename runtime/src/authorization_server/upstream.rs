//! Signing people in at OpenID Providers, through the core's own client machines.
//!
//! ```text
//! GET /authorize ─▶ page: who asks, and a button for each provider          nothing that a callback could answer exists
//!    POST /sign-in, approved ─▶ new browser nonce, state, nonce, verifier ─▶ 303 to the provider
//! GET /sign-in/ID ─▶ same browser? same place? its state? its issuer? ─▶ counts once ─▶ code ─▶ ID token ─▶ keys
//!    signed in, in a browser with a new cookie ─▶ 303 back to /authorize ─▶ consent page
//! ```
//!
//! What the return is compared with lies sealed in a cookie of the browser that was sent away, so that strangers who begin
//! sign-ins fill no memory and any process over one store takes the return; the store reserves each `state`, so that it
//! counts once. The person is known by issuer and subject. No token of the provider's is kept or passed on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, StatusCode};
use mcp_authz::authorization_server::AuthorizationServer;
use mcp_authz::client::{
    AwaitingIdToken, AwaitingSignIn, Client, Configuration, EndpointCall, PreRegistered, Provider,
    SignInOutcome, SignInRecord, SignedIn, local_subject,
};
use mcp_authz::error::{Error, KnownCode, Remedy};
use mcp_authz::identifier::{ClientId, InvalidIdentifier, Issuer, RedirectUri, ScopeSet};
use mcp_authz::jose::KeyImporter;
use mcp_authz::message::authorization::Callback;
use mcp_authz::message::exchange::FetchFailure;
use mcp_authz::policy::Policy;
use mcp_authz::sealer::Sealer;
use mcp_authz::secret::{ClientSecret, SecretDigest};
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::form::Form;
use mcp_authz::time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use super::browser::Browser;
use super::default_importer;
use super::people::{
    EndedBy, Person, PersonAuthentication, ProviderShown, Returned, SignIn, SignInFault, Standing, Ways,
};
use super::person_endpoints::is_own_place;
use super::sessions::{Session, Sessions, cookie, only_cookie};
use crate::BoxFuture;
use crate::client::fetch::Fetcher;
use crate::clock::{Clock, SystemClock};
use crate::entropy::ThreadEntropy;
use crate::store::{Store, StoreError, epoch_at};

/// How long a provider's document is used.
const KNOWN: Duration = Duration::hours(1);

/// How long a provider whose document could not be had is not asked again: nobody turns this server against it.
const UNKNOWN: Duration = Duration::seconds(5);

/// How long a person may take at the provider.
const PATIENCE: Duration = Duration::minutes(15);

/// Longest page to come back to, in bytes; the browser takes cookies of 4096. A longer request is not forgotten by the
/// application: the person starts it once more, signed in.
const PLACE_BYTES: usize = 2048;

/// Longest cookie, in bytes.
const COOKIE_BYTES: usize = 4000;

/// Why a provider cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProvider {
    /// Its name does not go into a path.
    #[error(
        "a provider's name has 1 to 32 lower-case letters, digits and hyphens, and is no other provider's"
    )]
    Name,
    /// This server cannot be its client.
    #[error(transparent)]
    Client(#[from] mcp_authz::error::Error),
    /// Its redirect URI is none.
    #[error("the provider's redirect URI cannot be made from this server's issuer: {0}")]
    RedirectUri(#[from] InvalidIdentifier),
    /// The list of who may sign in is empty.
    #[error(
        "the list of who may sign in is empty, so nobody could; leave it out to let in everybody the provider knows"
    )]
    Nobody,
}

/// An OpenID Provider at which this server is registered, by hand, as a client.
#[derive(Debug, Clone)]
pub struct UpstreamProvider {
    id: String,
    issuer: Issuer,
    client_id: ClientId,
    secret: Option<ClientSecret>,
    scopes: Option<ScopeSet>,
    subjects: Option<BTreeSet<String>>,
    policy: Policy,
}

impl UpstreamProvider {
    /// The provider of that issuer, under a name of this server's: it is part of the redirect URI.
    pub fn new(id: impl Into<String>, issuer: Issuer, client_id: ClientId) -> Self {
        Self {
            id: id.into(),
            issuer,
            client_id,
            secret: None,
            scopes: None,
            subjects: None,
            policy: Policy::strict(),
        }
    }

    /// The secret that this server has there.
    #[must_use]
    pub fn secret(self, secret: ClientSecret) -> Self {
        Self { secret: Some(secret), ..self }
    }

    /// Asks for these scopes beside `openid`, such as `profile` for a name to show.
    #[must_use]
    pub fn scopes(self, scopes: ScopeSet) -> Self {
        Self { scopes: Some(scopes), ..self }
    }

    /// Lets only these people in, by the subject they have at the provider. Without this call everybody whom the provider
    /// knows may sign in.
    #[must_use]
    pub fn subjects(self, subjects: impl IntoIterator<Item = String>) -> Self {
        Self { subjects: Some(subjects.into_iter().collect()), ..self }
    }

    /// Relaxations for this provider, such as `AssumeS256`.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The redirect URI to register at the provider, for a server of that issuer.
    ///
    /// # Errors
    /// [`InvalidProvider`]
    pub fn redirect_uri(&self, server: &Issuer) -> Result<RedirectUri, InvalidProvider> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.id.is_empty() || self.id.len() > 32 || !self.id.bytes().all(fits) {
            return Err(InvalidProvider::Name);
        }
        // I-A9, D29: of the configuration alone, and for this provider alone.
        let base = server.as_str();
        let base = base.strip_suffix('/').unwrap_or(base);
        Ok(RedirectUri::new(format!("{base}/sign-in/{}", self.id))?)
    }
}

/// A provider, and what is known of it.
struct Configured {
    id: String,
    issuer: Issuer,
    redirect_uri: RedirectUri,
    client: Client,
    subjects: Option<BTreeSet<String>>,
    known: Mutex<Option<(Result<Provider, Error>, OffsetDateTime)>>,
}

impl Configured {
    fn shown(&self) -> ProviderShown {
        ProviderShown { id: self.id.clone(), host: self.issuer.host().to_owned() }
    }

    /// Whether the person of that local subject is one of this provider's, and may sign in.
    fn admits(&self, subject: &str) -> bool {
        let theirs = subject.strip_prefix(self.issuer.as_str()).is_some_and(|rest| rest.starts_with('#'));
        theirs && self.subjects.as_ref().is_none_or(|subjects| subjects.contains(subject))
    }
}

/// People who sign in at OpenID Providers.
pub struct Upstream {
    server: AuthorizationServer,
    store: Arc<dyn Store>,
    sealer: Arc<dyn Sealer + Send + Sync>,
    fetcher: Fetcher,
    importer: Arc<dyn KeyImporter>,
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    providers: Vec<Configured>,
    beside: Option<Arc<dyn PersonAuthentication>>,
    cookie: String,
    secure: bool,
}

impl Upstream {
    /// People of that server. The store is the server's, and `sealer` the same in all processes over it.
    pub fn new(
        server: AuthorizationServer,
        store: Arc<dyn Store>,
        sealer: Arc<dyn Sealer + Send + Sync>,
        fetcher: Fetcher,
    ) -> Self {
        let secure = server.issuer().as_str().starts_with("https://");
        let cookie = if secure { "__Host-mcp-authz-sign-in" } else { "mcp-authz-sign-in" };
        Self {
            sessions: Sessions::new(Arc::clone(&store), Arc::clone(&sealer), "upstream", secure),
            server,
            store,
            sealer,
            fetcher,
            importer: default_importer(),
            clock: Arc::new(SystemClock),
            providers: Vec::new(),
            beside: None,
            cookie: cookie.to_owned(),
            secure,
        }
    }

    /// Lets people sign in there.
    ///
    /// # Errors
    /// [`InvalidProvider`]
    pub fn provider(mut self, provider: UpstreamProvider) -> Result<Self, InvalidProvider> {
        let redirect_uri = provider.redirect_uri(self.server.issuer())?;
        let UpstreamProvider { id, issuer, client_id, secret, scopes, subjects, policy } = provider;
        if self.providers.iter().any(|known| known.id == id) {
            return Err(InvalidProvider::Name);
        }
        if subjects.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(InvalidProvider::Nobody);
        }
        let subjects = subjects.map(|subjects| {
            subjects.iter().map(|subject| local_subject(&issuer, subject)).collect::<BTreeSet<_>>()
        });
        // For no resource: this identity is for signing people in.
        let identity = PreRegistered::new(issuer.clone(), client_id, redirect_uri.clone(), []);
        let identity = match secret {
            Some(secret) => identity.secret(secret),
            None => identity,
        };
        let identity = identity.scopes(scopes.unwrap_or_default());
        let configuration = Configuration::new(self.server.issuer().as_str(), redirect_uri.clone());
        let client = Client::new(configuration.policy(policy).pre_registered(identity))?;
        let known = Mutex::new(None);
        self.providers.push(Configured { id, issuer, redirect_uri, client, subjects, known });
        Ok(self)
    }

    /// Lets people sign in another way, too.
    #[must_use]
    pub fn beside(self, people: Arc<dyn PersonAuthentication>) -> Self {
        Self { beside: Some(people), ..self }
    }

    /// Imports the providers' keys with that.
    #[must_use]
    pub fn importer(self, importer: Arc<dyn KeyImporter>) -> Self {
        Self { importer, ..self }
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    fn find(&self, id: &str) -> Option<&Configured> {
        self.providers.iter().find(|known| known.id == id)
    }

    /// The provider, as its document says it is today.
    async fn known(&self, configured: &Configured) -> Result<Provider, Error> {
        // One fetch at a time: whoever waits takes what came of it.
        let mut known = configured.known.lock().await;
        let now = self.clock.now();
        if let Some((provider, _)) = known.as_ref().filter(|(_, until)| now < *until) {
            return provider.clone();
        }
        let (fetch, waiting) = configured.client.sign_in(&configured.issuer)?.into_parts();
        let provider = waiting.receive(self.fetcher.fetch(&fetch).await);
        let lifetime = if provider.is_ok() { KNOWN } else { UNKNOWN };
        *known = Some((provider.clone(), now.saturating_add(lifetime)));
        provider
    }

    /// What binds what is known of the beginning: the browser, and nothing that is sealed for another use.
    fn beginning_in(browser: &Browser) -> Vec<u8> {
        [b"mcp-authz beginning 2 ".as_slice(), &browser.agent().to_bytes()].concat()
    }

    /// The person has just approved it: the browser, whose cookie is new, is sent to the provider.
    async fn begin(
        &self,
        configured: &Configured,
        place: &str,
        browser: &Browser,
    ) -> Result<(HeaderValue, HeaderValue), SignInFault> {
        let provider = self.known(configured).await.map_err(|error| fault(configured, &error))?;
        // Who comes is known only by the proof: the store's time before it stands for their epoch.
        let before = self.sessions.found_of("").await.map_err(store_failed)?;
        let epoch = epoch_at(before.now).max(before.epoch);
        // MCP-SBP-009, MCP-SBP-010, MCP-SBP-011, I-P3: what a callback could answer is made here, after the approval.
        let step = provider.begin(*browser.agent(), self.clock.now(), &mut ThreadEntropy);
        let (open, waiting) = step.map_err(|error| fault(configured, &error))?.into_parts();
        let record = waiting.park(&*self.sealer).map_err(|failed| fault(configured, &failed.error))?;
        let location = HeaderValue::try_from(open.url()).map_err(|_| unavailable())?;
        let record = base64url::encode(&record.to_bytes());
        let with = |place: &str| {
            let sealed =
                self.sealer.seal(&Self::beginning_in(browser), format!("{epoch} {place}").as_bytes());
            sealed.map(|sealed| format!("{record}.{}", base64url::encode(&sealed))).map_err(|_| unavailable())
        };
        let value = match with(if place.len() <= PLACE_BYTES { place } else { "" })? {
            // Whoever asked something that long begins anew from a page of this server.
            long if long.len() > COOKIE_BYTES => with("")?,
            value => value,
        };
        let cookie = cookie(&self.cookie, &value, PATIENCE, self.secure).ok_or_else(unavailable)?;
        Ok((location, cookie))
    }

    /// What this browser was sent away with, if it is for that provider: the state, the epoch of everybody who was not revoked
    /// since, and the page to come back to.
    fn waiting(
        &self,
        provider: &Provider,
        request: &Parts,
        browser: &Browser,
    ) -> Option<(AwaitingSignIn, u64, Option<String>)> {
        let (record, beginning) = only_cookie(request, &self.cookie)?.split_once('.')?;
        let record = SignInRecord::from_bytes(&base64url::decode(record).ok()?).ok()?;
        let waiting = record.resume(provider, &*self.sealer, self.clock.now()).ok()?;
        let opened =
            self.sealer.open(&Self::beginning_in(browser), &base64url::decode(beginning).ok()?).ok()?;
        let (epoch, place) = std::str::from_utf8(&opened).ok()?.split_once(' ')?;
        let place = Some(place).filter(|place| is_own_place(place)).map(str::to_owned);
        Some((waiting, epoch.parse().ok()?, place))
    }

    /// Reserves a request's state: the answer to it counts once.
    async fn counts(
        &self,
        configured: &Configured,
        (state, until): (SecretDigest, OffsetDateTime),
    ) -> Result<bool, SignInFault> {
        let (action, reserved) = self.server.sign_in_once(&configured.issuer, &state, until).into_parts();
        match self.store.reserve_once(action).await {
            Ok(receipt) => Ok(reserved.reserved(&receipt)),
            Err(error) => Err(store_failed(error)),
        }
    }

    /// From a code to who signed in.
    async fn identified(&self, call: EndpointCall<AwaitingIdToken>) -> Result<SignedIn, Error> {
        let (reply, waiting) = match call {
            EndpointCall::Fetch(step) => {
                let (fetch, waiting) = step.into_parts();
                (self.fetcher.fetch(&fetch).await, waiting)
            }
            // No provider is set up with a key here.
            EndpointCall::Sign(step) => (Err(FetchFailure::NotSent), step.into_parts().1.signer_failed()),
        };
        let (fetch, waiting) = waiting.receive(reply)?.into_parts();
        let reply = self.fetcher.fetch(&fetch).await;
        waiting.receive(reply, self.importer.as_ref(), self.clock.now())
    }

    async fn come_back(
        &self,
        configured: &Configured,
        request: &Parts,
        browser: &Browser,
        next: &Browser,
    ) -> Returned {
        let location = configured.redirect_uri.without_query();
        let query = request.uri.query().unwrap_or_default();
        let Ok(callback) = Callback::from_parts(location, query) else { return Returned::NotOurs };
        if only_cookie(request, &self.cookie).is_none() {
            return Returned::NotOurs;
        }
        let provider = configured.shown();
        let failed = |fault, cookies, place| Returned::Failed { fault, cookies, place, provider };
        let known = match self.known(configured).await {
            Ok(known) => known,
            Err(error) => return failed(fault(configured, &error), Vec::new(), None),
        };
        let Some((waiting, epoch, place)) = self.waiting(&known, request, browser) else {
            return Returned::NotOurs;
        };
        let counted = (waiting.state_digest(), waiting.not_after());
        let outcome = waiting.receive(callback, browser.agent(), self.clock.now(), &mut ThreadEntropy);
        // MCP-SBP-012: what is not the answer to this browser's request burns nothing.
        if matches!(outcome, SignInOutcome::Unsolicited(_)) {
            return Returned::NotOurs;
        }
        let cookies = Vec::from_iter(cookie(&self.cookie, "", Duration::ZERO, self.secure));
        match self.counts(configured, counted).await {
            Ok(true) => {}
            Ok(false) => return Returned::NotOurs,
            Err(fault) => return failed(fault, cookies, place),
        }
        let call = match outcome {
            SignInOutcome::Unsolicited(_) => return Returned::NotOurs,
            SignInOutcome::Accepted(call) => call,
            SignInOutcome::Rejected(error) => return failed(fault(configured, &error), cookies, place),
            SignInOutcome::Refused(response) => {
                return failed(refusal(configured, response.code.as_str()), cookies, place);
            }
        };
        let signed_in = match self.identified(call).await {
            Ok(signed_in) => signed_in,
            Err(error) => return failed(fault(configured, &error), cookies, place),
        };
        if !configured.admits(&signed_in.local_subject()) {
            tracing::warn!(provider = %configured.issuer, "somebody who is not on the list signed in");
            return failed(not_admitted(signed_in.subject()), cookies, place);
        }
        let subject = signed_in.local_subject();
        let found = match self.sessions.found_of(&subject).await {
            Ok(found) => found,
            Err(error) => return failed(store_failed(error), cookies, place),
        };
        // I-T4: this is after the proof, as only the proof says who it is, and the session is kept with it. So whatever was revoked
        // since they were sent to the provider ends the sign-in here: they may have proved themselves before that.
        if found.is_revoked_since(epoch) {
            return failed(revoked_meanwhile(), cookies, place);
        }
        let session = Session {
            subject,
            epoch: found.epoch,
            since: signed_in.authenticated(),
            name: signed_in.name().map(str::to_owned),
            proved: None,
        };
        match self.sessions.cookie(&session, next, self.clock.now()) {
            Some(session) => {
                let cookies = cookies.into_iter().chain([session]).collect();
                Returned::SignedIn { cookies, place }
            }
            None => failed(unavailable(), cookies, place),
        }
    }
}

impl PersonAuthentication for Upstream {
    fn standing<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Standing> {
        Box::pin(async move {
            match &self.beside {
                // Of a provider that is configured, and on its list if it has one.
                _ if self.providers.iter().any(|known| known.admits(subject)) => Standing::Known,
                Some(people) => people.standing(subject).await,
                None => Standing::Removed,
            }
        })
    }

    fn person<'a>(&'a self, request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person> {
        Box::pin(async move {
            let session = self.sessions.of(request, browser, self.clock.now());
            // Somebody whose provider was removed, or who was taken from its list, is signed out.
            let session =
                session.filter(|session| self.providers.iter().any(|known| known.admits(&session.subject)));
            if let Some(Session { subject, since, name, epoch, .. }) = session {
                return Person::SignedIn { subject, since, name, ended_by: EndedBy::Epoch(epoch) };
            }
            let providers = self.providers.iter().map(Configured::shown).collect();
            match &self.beside {
                None => Person::Ways(Ways { password: false, providers }),
                Some(people) => match people.person(request, browser).await {
                    Person::Ways(ways) => Person::Ways(Ways { providers, ..ways }),
                    person => person,
                },
            }
        })
    }

    fn sign_in<'a>(
        &'a self,
        request: &'a Parts,
        form: &'a Form,
        browser: &'a Browser,
    ) -> BoxFuture<'a, SignIn> {
        Box::pin(async move {
            let Some(id) = form.get("provider") else {
                return match &self.beside {
                    Some(people) => people.sign_in(request, form, browser).await,
                    None => SignIn::NoPage,
                };
            };
            let Some(configured) = self.find(id) else { return SignIn::NoPage };
            match self.begin(configured, form.get("request").unwrap_or_default(), browser).await {
                Ok((location, cookie)) => SignIn::Elsewhere { location, cookie },
                Err(fault) => SignIn::Failed(fault, configured.shown()),
            }
        })
    }

    fn sign_out<'a>(&'a self, request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Vec<HeaderValue>> {
        Box::pin(async move {
            let mut cookies: Vec<HeaderValue> = self.sessions.no_cookie().into_iter().collect();
            if let Some(people) = &self.beside {
                cookies.extend(people.sign_out(request, browser).await);
            }
            cookies
        })
    }

    fn returned<'a>(
        &'a self,
        provider: &'a str,
        request: &'a Parts,
        browser: Option<&'a Browser>,
        next: &'a Browser,
    ) -> BoxFuture<'a, Returned> {
        Box::pin(async move {
            let Some(configured) = self.find(provider) else { return Returned::NoPage };
            match browser {
                Some(browser) => self.come_back(configured, request, browser, next).await,
                // A browser that never asked.
                None => Returned::NotOurs,
            }
        })
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let providers: Vec<&Issuer> = self.providers.iter().map(|known| &known.issuer).collect();
        f.debug_struct("Upstream").field("providers", &providers).finish_non_exhaustive()
    }
}

const AGAIN: &str = "Try again.";
const LATER: &str = "Try again in a moment.";
const OPERATOR: &str =
    "Nothing on your side helps: tell the operator of this server, whose log says the same with more words.";

/// What the person and the log are told.
fn fault(configured: &Configured, error: &Error) -> SignInFault {
    let remedy = error.remedy();
    tracing::warn!(provider = %configured.issuer, %error, ?remedy, "a sign-in at a provider failed");
    let (status, advice) = match (error, &remedy) {
        (Error::Outside(_), Remedy::RetryAfter(_)) => (StatusCode::SERVICE_UNAVAILABLE, LATER),
        (_, Remedy::Reauthorize) => (StatusCode::FORBIDDEN, AGAIN),
        _ => (StatusCode::BAD_GATEWAY, OPERATOR),
    };
    SignInFault { status, reason: error.to_string(), advice, account: None, store: None }
}

/// The provider's own no.
fn refusal(configured: &Configured, code: &str) -> SignInFault {
    let code = KnownCode::of(code);
    tracing::info!(provider = %configured.issuer, %code, "a provider refused a sign-in");
    let advice = match code.as_str() {
        "access_denied" | "server_error" | "temporarily_unavailable" => AGAIN,
        _ => OPERATOR,
    };
    let reason = format!("the provider answered {code}");
    SignInFault { status: StatusCode::FORBIDDEN, reason, advice, account: None, store: None }
}

fn not_admitted(subject: &str) -> SignInFault {
    SignInFault {
        status: StatusCode::FORBIDDEN,
        reason: "this account is not among those that may sign in to this server".to_owned(),
        advice: "Sign in with another account, or ask the operator of this server to let this one in.",
        account: Some(subject.to_owned()),
        store: None,
    }
}

/// An operator was faster.
fn revoked_meanwhile() -> SignInFault {
    SignInFault {
        status: StatusCode::FORBIDDEN,
        reason:
            "everything you had allowed here was ended while you signed in, by the operator of this server"
                .to_owned(),
        advice: AGAIN,
        account: None,
        store: None,
    }
}

/// This server's own fault, and its store's.
fn store_failed(error: StoreError) -> SignInFault {
    SignInFault { store: Some(error), ..unavailable() }
}

/// This server's own fault.
fn unavailable() -> SignInFault {
    SignInFault {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: "this server cannot sign anybody in at the moment".to_owned(),
        advice: LATER,
        account: None,
        store: None,
    }
}
