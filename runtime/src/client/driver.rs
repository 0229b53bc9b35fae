//! Drives the core's client from a 401 to a session: it carries out each action and hands the result back.
//!
//! The driver makes no security decision. It chooses where the core lets the host choose (issuer, identity), fetches,
//! shows the page, listens for the browser and keeps the session, in the order the core's states ask for.
//!
//! ```text
//! 401 ─▶ authorize: discover ─▶ identify ─▶ Ready ─▶ login ─▶ Session ─▶ refresh ─▶ Session
//!                                             ▲                  │
//!                                             └── challenged: 401, 403 insufficient_scope
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::client::{
    AwaitingCallback, AwaitingPersisted, AwaitingStepUp, AwaitingTokens, CallbackOutcome, Client,
    CountStepUp, EndpointCall, ErrorResponse, IdentityKind, PersistSession, Ready, Session, StepUp,
};
use mcp_authz::error::{Error, KnownCode, OutsideFailed, PeerIncompatible, Remedy};
use mcp_authz::identifier::{ResourceId, ScopeSet};
use mcp_authz::message::exchange::{Fetch, FetchFailure, Reply};
use mcp_authz::secret::AgentBinding;
use mcp_authz::step::{Failed, Step};
use mcp_authz::time::OffsetDateTime;
use tokio::sync::Mutex;

use super::browser::BrowserFailed;
use super::callback::{CallbackListener, ListenError, WaitingBrowser, WaitingLogin};
#[cfg(feature = "aws-lc-rs")]
use super::credentials::MemoryStore;
use super::credentials::{CredentialStore, StoreFailed};
use super::event::{ClientEvent, EvidenceValue};
use super::fetch::Fetcher;
use super::pairing::{Nobody, Pairing};
pub use super::renewal::Refreshed;
use super::user_agent::UserAgent;
use crate::clock::{Clock, SystemClock};
use crate::core_time::CoreTime;
use crate::entropy::OsEntropy;
use crate::signer::Signer;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The core says why.
    #[error("{0}")]
    Core(#[from] Error),
    /// The authorization server refused, or the person did.
    #[error("the authorization server refused with {}", KnownCode::of(.0.code.as_str()))]
    Refused(ErrorResponse),
    /// The callback came from another issuer than the one that was asked; no token request was made.
    #[error("the callback was rejected: {0}")]
    Rejected(Error),
    /// The person does not want any of the issuers the resource names.
    #[error("no authorization server was chosen")]
    NoIssuer,
    /// No way to identify this client at the authorization server.
    #[error("there is no client identity for this authorization server")]
    NoIdentity,
    /// The page could not be shown.
    #[error("{0}")]
    Browser(#[from] BrowserFailed),
    /// The browser did not come back.
    #[error("{0}")]
    Listener(#[from] ListenError),
    /// The store of the credentials failed.
    #[error("{0}")]
    Store(#[from] StoreFailed),
    /// Another process is refreshing the session, and did not come to an end.
    #[error("another program of this person is refreshing the session; try again")]
    Busy,
}

type Observer = Arc<dyn Fn(ClientEvent<'_>) + Send + Sync>;

/// Drives logins of one client. Cheap to clone; one login at a time listens for the browser.
#[derive(Clone)]
pub struct Driver(Arc<Parts>);

struct Parts {
    client: Client,
    fetcher: Fetcher,
    listener: Mutex<CallbackListener>,
    user_agent: Box<dyn UserAgent>,
    store: Arc<dyn CredentialStore>,
    signer: Option<Arc<dyn Signer>>,
    clock: Arc<dyn Clock>,
    core: CoreTime,
    patience: Duration,
    pairing: Box<dyn Pairing>,
    identities: Vec<IdentityKind>,
    observer: Option<Observer>,
}

/// Collects what a [`Driver`] is made of besides its necessary parts.
pub struct DriverBuilder(Parts);

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("client", &self.0.client).finish_non_exhaustive()
    }
}

impl fmt::Debug for DriverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DriverBuilder")
    }
}

impl DriverBuilder {
    /// Signs client assertions there: for an identity that authenticates with `private_key_jwt`.
    #[must_use]
    pub fn signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.0.signer = Some(signer);
        self
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.0.clock = clock;
        self
    }

    /// Counts the time spent in the core there.
    #[must_use]
    pub fn core_time(mut self, core: CoreTime) -> Self {
        self.0.core = core;
        self
    }

    /// Waits so long for a browser to come back; five minutes without this call.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.0.patience = patience;
        self
    }

    /// Gives the host's word for an authorization server like this (D36). Without this call there is none but the one that
    /// an identity registered by hand for the resource gives, or that the store keeps.
    #[must_use]
    pub fn pairing(mut self, pairing: impl Pairing) -> Self {
        self.0.pairing = Box::new(pairing);
        self
    }

    /// The kinds of identity to use, best first; without this call the order of the MCP specification.
    #[must_use]
    pub fn identities(mut self, identities: impl IntoIterator<Item = IdentityKind>) -> Self {
        self.0.identities = identities.into_iter().collect();
        self
    }

    /// Calls this for everything that happens. It must be quick: the flow waits.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(ClientEvent<'_>) + Send + Sync + 'static) -> Self {
        self.0.observer = Some(Arc::new(observer));
        self
    }

    /// The driver.
    pub fn build(self) -> Driver {
        Driver(Arc::new(self.0))
    }
}

impl Driver {
    /// A driver for `client`, whose redirect URI is one of `listener`'s, with credentials that end with the process.
    #[cfg(feature = "aws-lc-rs")]
    pub fn builder(
        client: Client,
        fetcher: Fetcher,
        listener: CallbackListener,
        user_agent: impl UserAgent,
    ) -> DriverBuilder {
        Self::builder_over(Arc::new(MemoryStore::new()), client, fetcher, listener, user_agent)
    }

    /// A driver for `client`, whose redirect URI is one of `listener`'s, with credentials in `store`.
    pub fn builder_over(
        store: Arc<dyn CredentialStore>,
        client: Client,
        fetcher: Fetcher,
        listener: CallbackListener,
        user_agent: impl UserAgent,
    ) -> DriverBuilder {
        DriverBuilder(Parts {
            client,
            fetcher,
            listener: Mutex::new(listener),
            user_agent: Box::new(user_agent),
            store,
            signer: None,
            clock: Arc::new(SystemClock),
            core: CoreTime::default(),
            patience: Duration::from_secs(300),
            pairing: Box::new(Nobody),
            identities: [
                IdentityKind::PreRegistered,
                IdentityKind::MetadataDocument,
                IdentityKind::Registered,
            ]
            .into(),
            observer: None,
        })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Where the credentials lie.
    pub fn store(&self) -> &dyn CredentialStore {
        &*self.0.store
    }

    /// The time spent in the core.
    pub fn core_time(&self) -> &CoreTime {
        &self.0.core
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.0.fetcher
    }

    pub(super) fn observe(&self, event: ClientEvent<'_>) {
        if let Some(observer) = &self.0.observer {
            observer(event);
        }
    }

    pub(super) fn pairing(&self) -> &dyn Pairing {
        &*self.0.pairing
    }

    pub(super) fn identities(&self) -> &[IdentityKind] {
        &self.0.identities
    }

    pub(super) fn evidence(&self, name: &'static str, value: &dyn EvidenceValue) {
        self.observe(ClientEvent::Evidence(name, value));
    }

    pub(super) async fn fetch(&self, fetch: Fetch) -> Result<Reply, FetchFailure> {
        self.observe(ClientEvent::Fetching(&fetch));
        let reply = self.0.fetcher.fetch(&fetch).await;
        self.observe(ClientEvent::Fetched(fetch.purpose(), reply.as_ref().map_err(|failure| *failure)));
        reply
    }

    /// From the reply that asked for authorization to a session: discovery, identity, login.
    ///
    /// `server` is the URL the person gave, as [`ResourceId::from_server_url`] reads it.
    ///
    /// # Errors
    /// [`LoginError`]
    pub async fn authorize(&self, server: &ResourceId, reply: &Reply) -> Result<Session, LoginError> {
        let ready = self.prepare(server, reply).await?;
        self.login(ready).await.map_err(|failed| failed.error)
    }

    /// Asks the person, and waits for the browser to come back. Where the server turns out to have forgotten this
    /// client's registration, it is told anew who this client is, and the person is asked once more.
    ///
    /// # Errors
    /// [`Failed`] with the state to begin again from, as far as there is one.
    pub async fn login(&self, ready: Ready) -> Result<Session, Failed<Option<Ready>, LoginError>> {
        match self.login_once(ready).await {
            Err(Failed { error: LoginError::Core(error), state: Some(ready) })
                if is_forgotten(&error, &ready) =>
            {
                let ready = self.register_anew(ready).await.map_err(|error| failed(error, None))?;
                self.login_once(ready).await
            }
            Err(Failed { error: LoginError::Core(error), state: Some(ready) })
                if is_unanswered(&error) && error.remedy() == Remedy::Reregister =>
            {
                // D40: for the next login. Nobody sits before this one.
                let state = self.register_anew(ready).await.ok();
                Err(failed(error, state))
            }
            done => done,
        }
    }

    async fn login_once(&self, ready: Ready) -> Result<Session, Failed<Option<Ready>, LoginError>> {
        let core = &self.0.core;
        // One login at a time: the listener is one, and so is the person.
        let mut listener = self.0.listener.lock().await;
        let mut visits = listener.login(self.0.patience);
        let agent = AgentBinding::this_process();
        let now = self.now();
        let step = core.measure(|| ready.begin(&ScopeSet::new(), agent, now, &mut OsEntropy));
        let (open, waiting) = match step {
            Ok(step) => step.into_parts(),
            Err(Failed { error, state }) => return Err(failed(error, Some(state))),
        };
        self.observe(ClientEvent::OpeningUserAgent(&open));
        if let Err(error) = self.0.user_agent.open(&open).await {
            return Err(failed(error, Some(waiting.abandon())));
        }
        let (call, browser) = self.callback(&mut visits, waiting).await?;
        self.evidence("CallbackMatched", call.state().callback_matched());
        self.evidence("IssuerMatched", call.state().issuer_matched());
        let (waiting, reply) = self.call(call).await;
        let now = self.now();
        let step = match core.measure(|| waiting.receive(reply, now)) {
            Ok(step) => step,
            Err(Failed { error, state }) => {
                browser.failed();
                return Err(failed(error, Some(state)));
            }
        };
        match self.keep(step).await {
            Ok(session) => {
                browser.accepted();
                Ok(session)
            }
            Err(error) => {
                browser.failed();
                Err(failed(error, None))
            }
        }
    }

    /// Waits until the awaited browser comes; others are shown that nothing was awaited.
    async fn callback(
        &self,
        visits: &mut WaitingLogin<'_>,
        mut waiting: AwaitingCallback,
    ) -> Result<(EndpointCall<AwaitingTokens>, WaitingBrowser), Failed<Option<Ready>, LoginError>> {
        loop {
            let arrival = match visits.next().await {
                Ok(arrival) => arrival,
                Err(ListenError::DeadlinePassed) => {
                    let Failed { error, state } = waiting.timed_out();
                    return Err(failed(error, Some(state)));
                }
                Err(error) => return Err(failed(error, Some(waiting.abandon()))),
            };
            let (callback, browser) = arrival.into_parts();
            self.observe(ClientEvent::CallbackArrived(&callback));
            let now = self.now();
            let agent = AgentBinding::this_process();
            match self.0.core.measure(|| waiting.receive(callback, &agent, now, &mut OsEntropy)) {
                CallbackOutcome::Unsolicited(again) => {
                    self.observe(ClientEvent::CallbackUnsolicited);
                    browser.stray();
                    waiting = again;
                }
                CallbackOutcome::Accepted(call) => return Ok((call, browser)),
                CallbackOutcome::Refused(response, ready) => {
                    self.observe(ClientEvent::Refused(&response));
                    browser.failed();
                    return Err(failed(LoginError::Refused(response), Some(ready)));
                }
                CallbackOutcome::Rejected(Failed { error, state }) => {
                    self.observe(ClientEvent::Rejected(&error));
                    browser.failed();
                    return Err(failed(LoginError::Rejected(error), Some(state)));
                }
            }
        }
    }

    async fn keep(&self, step: Step<PersistSession, AwaitingPersisted>) -> Result<Session, LoginError> {
        let (action, waiting) = step.into_parts();
        self.observe(ClientEvent::Keeping(&action));
        let receipt = self.0.store.keep(action).await?;
        let session = self.0.core.measure(|| waiting.persisted(receipt)).map_err(|failed| failed.error)?;
        self.observe(ClientEvent::Established(&session));
        Ok(session)
    }

    /// Sends a request to the issuer, signed first where the identity authenticates so.
    pub(super) async fn call<S>(&self, call: EndpointCall<S>) -> (S, Result<Reply, FetchFailure>) {
        let (fetch, waiting) = match call {
            EndpointCall::Fetch(step) => step.into_parts(),
            EndpointCall::Sign(step) => {
                let (sign, waiting) = step.into_parts();
                let signed = match &self.0.signer {
                    Some(signer) => signer.sign(sign).await.ok(),
                    None => None,
                };
                let Some(signed) = signed else {
                    return (waiting.signer_failed(), Err(FetchFailure::NotSent));
                };
                match self.0.core.measure(|| waiting.signed(signed)) {
                    Ok(step) => step.into_parts(),
                    Err(failed) => return (failed.state.signer_failed(), Err(FetchFailure::NotSent)),
                }
            }
        };
        let reply = self.fetch(fetch).await;
        (waiting, reply)
    }

    /// Hears what the core makes of a 401 or 403 to a request with this session's token.
    ///
    /// # Errors
    /// [`Failed`] with the session when nothing is to be gained; the request must not be repeated.
    pub fn challenged(
        &self,
        session: Session,
        operation: &str,
        reply: &Reply,
    ) -> Result<StepUp, Failed<Session>> {
        let now = self.now();
        self.0.core.measure(|| session.challenged(operation, reply, now))
    }

    /// Counts a step-up in the store, which has what other programs and earlier processes counted, before the person is
    /// asked.
    ///
    /// # Errors
    /// [`Failed`] with the session as it was, when that is too often or the store failed.
    pub async fn step_up(
        &self,
        step: Step<CountStepUp, AwaitingStepUp>,
    ) -> Result<Ready, Failed<Session, LoginError>> {
        let (count, waiting) = step.into_parts();
        let (join, store) = (count.join(), Arc::clone(&self.0.store));
        let joined =
            move |kept: Option<&[u8]>| join.joined(kept, store.sealer()).map(|record| record.to_bytes());
        match self.0.store.join_step_ups(count.server(), Box::new(joined)).await {
            Ok(()) => {}
            Err(StoreFailed::Record(error)) => return Err(failed(error, waiting.given_up())),
            Err(error) => return Err(failed(error, waiting.given_up())),
        }
        match self.0.core.measure(|| waiting.counted(count.counted())) {
            Ok(ready) => {
                self.observe(ClientEvent::SteppingUp(&ready));
                Ok(ready)
            }
            Err(foreign) => Err(failed(foreign.error, foreign.state.given_up())),
        }
    }

    /// Ends the callback listener; pages on their way still arrive.
    pub async fn close(self) {
        if let Some(parts) = Arc::into_inner(self.0) {
            parts.listener.into_inner().close().await;
        }
    }
}

/// Whether nobody came back from the authorization server.
fn is_unanswered(error: &Error) -> bool {
    matches!(error, Error::Outside(OutsideFailed::NoCallback { .. }))
}

/// Whether the token endpoint does not know the client that registered there (D40), or its secret has ended.
pub(super) fn is_forgotten(error: &Error, ready: &Ready) -> bool {
    let refused = matches!(
        error,
        Error::Incompatible(PeerIncompatible::TokenRefused(_) | PeerIncompatible::SecretExpired)
    );
    refused && error.remedy() == Remedy::Reregister && ready.identity_kind() == IdentityKind::Registered
}

pub(super) fn failed<S>(error: impl Into<LoginError>, state: S) -> Failed<S, LoginError> {
    Failed { error: error.into(), state }
}
