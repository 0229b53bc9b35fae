//! From an identity to tokens: OAuth 2.1 section 4.1, RFC 7636, RFC 8707, RFC 9207.
//!
//! Verifier, state, issuer, redirect URI, resource and scope of one request are frozen together in [`AwaitingCallback`];
//! the token request is built from that record and the callback alone (I-L3, I-L5).

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::counterpart::{Answered, Asked, Counterpart};
use super::discovery::Target;
use super::endpoint::{Body, Call, EndpointCall};
use super::record::{CallbackRecord, RecordVersion};
use super::registration::{ChoosingIdentity, Identity, IdentityKind, Server};
use super::session::{AwaitingPersisted, Held, PersistSession, Session, Tokens};
use super::step_up::StepUpLedger;
use super::{Given, RegistrationRecord};
use crate::entropy::Entropy;
use crate::error::{Error, HostMisuse, OutsideFailed, PeerIncompatible};
use crate::evidence::{CallbackMatched, IssuerMatched, ResourceMatched};
use crate::identifier::{Issuer, RedirectUri, ScopeSet};
use crate::message::authorization::Callback;
use crate::message::error_code::{AuthorizationErrorCode, ErrorDetail};
use crate::message::exchange::{FetchFailure, FetchPurpose, Reply};
use crate::message::token::TokenResponse;
use crate::policy::Relaxation;
use crate::sealer::Sealer;
use crate::secret::{AgentBinding, CodeVerifier, SecretDigest};
use crate::step::{Failed, Step};
use crate::time::OffsetDateTime;

/// At rest: the client knows the resource, the authorization server and who it is there.
#[must_use = "the authorization has not begun"]
#[derive(Debug)]
pub struct Ready(pub(crate) Box<Prepared>);

#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) server: Server,
    pub(crate) identity: Identity,
    /// Scopes of an earlier grant and of challenges since: asked for again, so that a step-up loses nothing.
    pub(crate) wanted: ScopeSet,
    pub(crate) ledger: StepUpLedger,
    /// The session that a step-up goes on from; in memory only.
    pub(crate) earlier: Option<Box<Earlier>>,
}

/// What a session has beside how it came about.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) tokens: Tokens,
    pub(crate) version: Option<RecordVersion>,
    pub(crate) wanted: ScopeSet,
}

impl Ready {
    pub(crate) fn new(server: Server, identity: Identity) -> Self {
        let wanted = server.target.challenge_scope.clone().unwrap_or_default();
        let ledger = server.target.ledger.clone();
        Self(Box::new(Prepared { server, identity, wanted, ledger, earlier: None }))
    }

    /// Goes back to the choice of an identity: the authorization server does not know this one any more
    /// ([`Remedy::Reregister`](crate::error::Remedy::Reregister)). The scopes asked for and the step-ups counted so far
    /// go along.
    pub fn choose_identity(self) -> ChoosingIdentity {
        let Prepared { server, wanted, ledger, .. } = *self.0;
        let challenge_scope = (!wanted.is_empty()).then_some(wanted);
        // D33: a server that forgets its clients does not begin to count anew by that.
        let target = Target { challenge_scope, ledger, chosen_again: true, ..server.target };
        ChoosingIdentity::new(target, server.issuer, server.metadata)
    }

    /// Counts step-ups on from an earlier authorization for the same server: one that names another authorization
    /// server does not begin anew by that.
    pub fn counting_on(mut self, earlier: &Self) -> Self {
        // D33, MCP-AUTH-115
        self.0.ledger.join(&earlier.0.ledger);
        self
    }

    /// The session that was there before a step-up: its tokens are as good as they were, for less. For a step-up that the
    /// person denied, or that failed.
    ///
    /// # Errors
    /// This state, where there was no session, or this is another process than the one that had it: look into the store.
    pub fn earlier_session(mut self) -> Result<Session, Self> {
        let Some(earlier) = self.0.earlier.take() else { return Err(self) };
        let Earlier { tokens, version, wanted } = *earlier;
        // What was asked for in vain is not asked for again with the next login.
        let prepared = Prepared { wanted, ..*self.0 };
        Ok(Session(Box::new(Held { prepared, tokens, version })))
    }

    /// The authorization server the person will be sent to.
    pub fn issuer(&self) -> &Issuer {
        self.0.server.issuer.issuer()
    }

    /// The evidence for the resource.
    pub fn resource_matched(&self) -> &ResourceMatched {
        &self.0.server.target.resource
    }

    /// How the identity came about.
    pub fn identity_kind(&self) -> IdentityKind {
        self.0.identity.kind
    }

    /// The client identifier used there.
    pub fn client_id(&self) -> &crate::identifier::ClientId {
        &self.0.identity.client_id
    }

    /// What [`Ready::begin`] will ask for if nothing is added: the challenge's scopes, else those of the resource's
    /// metadata, else none (MCP scope selection); for a pinned identity, what of them it may ask for.
    pub fn scopes(&self) -> ScopeSet {
        self.within_pins(self.named_scopes())
    }

    /// What challenges and metadata name.
    fn named_scopes(&self) -> ScopeSet {
        let prepared = &self.0;
        // MCP-AUTH-016, MCP-AUTH-017, MCP-AUTH-020, MCP-AUTH-021, MCP-AUTH-022, MCP-AUTH-023, D16: the challenge is authoritative; the metadata speaks only where it is silent.
        let mut scopes = if prepared.wanted.is_empty() {
            prepared.server.target.resource_scopes.clone().unwrap_or_default()
        } else {
            prepared.wanted.clone()
        };
        // MCP-AUTH-082, MCP-AUTH-083, D15: a refresh token is asked for only where the server lists the scope for it.
        let offline = prepared.server.metadata.scopes_supported.as_ref();
        let offline =
            offline.and_then(|listed| listed.iter().find(|scope| scope.as_str() == "offline_access"));
        if let (Some(offline), false) = (offline, scopes.is_empty()) {
            scopes.insert(offline.clone());
        } else if offline.is_none() {
            scopes = scopes.iter().filter(|scope| scope.as_str() != "offline_access").cloned().collect();
        }
        scopes
    }

    /// What of them the identity may ask for (D36). Where nobody names a scope, that is all it is pinned to: a request
    /// without the parameter would leave it to the server.
    fn within_pins(&self, named: ScopeSet) -> ScopeSet {
        match &self.0.identity.pinned_scopes {
            Some(pinned) if named.is_empty() => pinned.clone(),
            Some(pinned) => named.intersection(pinned),
            None => named,
        }
    }

    /// Begins: the host opens the URL in the person's browser.
    ///
    /// `scopes` are asked for beside those of [`Ready::scopes`]; `agent` is the browser the answer must come from.
    ///
    /// # Errors
    /// [`Failed`] with this state when there is no randomness, when the authorization endpoint's own query is in the
    /// way or the URL would be too long, when the secret of the registration has expired, or when the identity is pinned to
    /// scopes of which none is asked for.
    pub fn begin(
        self,
        scopes: &ScopeSet,
        agent: AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Step<OpenUserAgent, AwaitingCallback>, Failed<Self>> {
        match self.request(scopes, agent, now, entropy) {
            Ok((open, request)) => {
                Ok(Step::new(open, AwaitingCallback(Box::new(Waiting { prepared: *self.0, request }))))
            }
            Err(error) => Err(Failed { error, state: self }),
        }
    }

    fn request(
        &self,
        scopes: &ScopeSet,
        agent: AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<(OpenUserAgent, Request), Error> {
        let Prepared { server, identity, .. } = &*self.0;
        let scope = self.within_pins(self.named_scopes().union(scopes));
        if identity.pinned_scopes.is_some() && scope.is_empty() {
            return Err(PeerIncompatible::ScopesNotPinned.into());
        }
        // Today's port and policy, and what the answer will be compared with.
        if server.written(&identity.redirect_uri)? != identity.redirect_uri {
            return Err(HostMisuse::RedirectUri.into());
        }
        // MCP-AUTH-050, MCP-AUTH-051, MCP-AUTH-054, MCP-AUTH-062: always, unless the host named the one relaxation.
        let resource = (!self.0.omits_resource()).then(|| server.target.resource.resource().clone());
        self.0.counterpart().request(Asked { scope, resource, nonce: None }, agent, now, entropy)
    }

    /// Whether the identity is more than what was configured: a registration, or a callback path that this issuer has for
    /// itself.
    fn is_to_be_kept(&self) -> bool {
        let Prepared { server, identity, .. } = &*self.0;
        let configured = &server.target.client.configuration().redirect_uri;
        match identity.kind {
            IdentityKind::Registered => true,
            // D29
            IdentityKind::MetadataDocument => {
                server.written(configured).is_ok_and(|configured| configured != identity.redirect_uri)
            }
            IdentityKind::PreRegistered => false,
        }
    }

    /// The registration, to use again at this issuer. `None` for an identity that was configured.
    ///
    /// # Errors
    /// [`Error`] when the sealer fails.
    pub fn registration_record(&self, sealer: &dyn Sealer) -> Result<Option<RegistrationRecord>, Error> {
        if !self.is_to_be_kept() {
            return Ok(None);
        }
        RegistrationRecord::seal(&self.0.server.target.client, self.issuer(), &self.0.identity, sealer)
            .map(Some)
    }
}

impl Prepared {
    pub(crate) fn omits_resource(&self) -> bool {
        // D36: only together with pinned scopes.
        let relaxation = Relaxation::OmitResource(self.server.target.listed_issuer.clone());
        self.identity.pinned_scopes.is_some() && self.server.target.client.policy().allows(&relaxation)
    }
}

impl Prepared {
    /// The side of the flow that a resource has no part in.
    pub(super) fn counterpart(&self) -> Counterpart<'_> {
        let target = &self.server.target;
        Counterpart {
            client: &target.client,
            given: Given::from(&target.server),
            listed_issuer: &target.listed_issuer,
            issuer: &self.server.issuer,
            metadata: &self.server.metadata,
            identity: &self.identity,
        }
    }

    /// A request to an endpoint of the recorded issuer.
    pub(super) fn call(
        &self,
        purpose: FetchPurpose,
        body: Body,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<Call, Error> {
        self.counterpart().call(purpose, body, now, entropy)
    }

    /// Reads a reply of the token endpoint.
    pub(super) fn tokens_of(&self, fetched: Result<Reply, FetchFailure>) -> Result<TokenResponse, Error> {
        self.counterpart().tokens_of(fetched)
    }
}

/// Open this URL in the person's browser: an https URL, or http on loopback, of printable ASCII (I-L6).
#[must_use = "the person has to see the page"]
pub struct OpenUserAgent {
    pub(super) url: String,
    pub(super) endpoint_length: usize,
}

impl OpenUserAgent {
    /// The URL. It holds the request's state: for the person's browser only, and never through a shell.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The endpoint alone, for logs.
    pub fn endpoint(&self) -> &str {
        self.url.get(..self.endpoint_length).unwrap_or_default()
    }
}

impl fmt::Debug for OpenUserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenUserAgent").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

/// What was sent, for the answer to be compared with.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) verifier: CodeVerifier,
    pub(crate) state: SecretDigest,
    pub(crate) agent: AgentBinding,
    /// Where the answer comes: another process may have asked, on a port of its own.
    pub(crate) redirect_uri: RedirectUri,
    pub(crate) scope: ScopeSet,
    pub(crate) not_after: OffsetDateTime,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) prepared: Prepared,
    pub(crate) request: Request,
}

/// Waits for the person's browser to come back.
#[must_use = "the browser will come back"]
#[derive(Debug)]
pub struct AwaitingCallback(pub(crate) Box<Waiting>);

/// What a callback came to.
#[must_use = "the flow goes on from here"]
#[derive(Debug)]
pub enum CallbackOutcome {
    /// Not an answer to this request: another browser, place or state, or too late. Go on waiting.
    Unsolicited(AwaitingCallback),
    /// A code of the issuer that was asked: exchange it.
    Accepted(EndpointCall<AwaitingTokens>),
    /// The issuer that was asked says no; begin anew if you like.
    Refused(ErrorResponse, Ready),
    /// The answer to this request, but not from the issuer that was asked. Nothing of it was used.
    Rejected(Failed<Ready>),
}

/// An error response of the authorization endpoint, from the issuer that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The code.
    pub code: AuthorizationErrorCode,
    /// The server's words; a peer's text.
    pub detail: ErrorDetail,
}

impl AwaitingCallback {
    /// A request reached the redirect URI.
    ///
    /// Checked in this order: browser, place, state and time; then the issuer; then error or code. Anybody can send a
    /// browser here, so the first group gives the state back.
    pub fn receive(
        self,
        callback: Callback,
        agent: &AgentBinding,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> CallbackOutcome {
        // RFC9700-4.2.4-1: taken out with the first answer to it.
        let Waiting { prepared, request } = *self.0;
        let announced = prepared.server.metadata.authorization_response_iss_parameter_supported;
        let answered = prepared.counterpart().answered(&request, announced, callback, agent, now);
        let (code, issuer, matched) = match answered {
            Answered::Unsolicited => {
                return CallbackOutcome::Unsolicited(Self(Box::new(Waiting { prepared, request })));
            }
            Answered::Rejected(error) => {
                return CallbackOutcome::Rejected(Failed { error, state: Ready(Box::new(prepared)) });
            }
            Answered::Refused(response) => {
                return CallbackOutcome::Refused(response, Ready(Box::new(prepared)));
            }
            Answered::Code { code, issuer, matched } => (code, issuer, matched),
        };
        // MCP-AUTH-052
        let resource = (!prepared.omits_resource()).then(|| prepared.server.target.resource.resource());
        let call = prepared.counterpart().exchange(code, &request, &matched, resource, now, entropy);
        match call {
            Ok(call) => {
                let exchanging = Exchanging { prepared, scope: request.scope, issuer, matched };
                CallbackOutcome::Accepted(call.before(AwaitingTokens(Box::new(exchanging))))
            }
            Err(error) => CallbackOutcome::Rejected(Failed { error, state: Ready(Box::new(prepared)) }),
        }
    }

    /// Gives up on this request; its state and verifier are gone.
    pub fn abandon(self) -> Ready {
        Ready(Box::new(self.0.prepared))
    }

    /// Gives up because nobody came back in time.
    ///
    /// An authorization server that has forgotten a dynamic registration tells that to the person, and not to this client:
    /// the error's remedy is to register anew, unless that was done already or a session shows that the registration is
    /// good.
    pub fn timed_out(self) -> Failed<Ready> {
        // D40
        let Prepared { server, identity, earlier, .. } = &self.0.prepared;
        let registered = identity.kind == IdentityKind::Registered;
        let reregister = registered && !server.target.chosen_again && earlier.is_none();
        Failed::new(OutsideFailed::NoCallback { reregister }, self.abandon())
    }

    /// When an answer comes too late.
    pub fn not_after(&self) -> OffsetDateTime {
        self.0.request.not_after
    }

    /// The redirect URI the browser will arrive at.
    pub fn redirect_uri(&self) -> &RedirectUri {
        &self.0.request.redirect_uri
    }

    /// Puts the state away, for a host that handles the callback in another process.
    ///
    /// # Errors
    /// [`Failed`] with this state when the sealer fails.
    pub fn park(self, sealer: &dyn Sealer) -> Result<CallbackRecord, Failed<Self>> {
        match CallbackRecord::seal(&self.0, sealer) {
            Ok(record) => Ok(record),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

/// Waits for the token endpoint.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingTokens(Box<Exchanging>);

#[derive(Debug)]
struct Exchanging {
    prepared: Prepared,
    scope: ScopeSet,
    issuer: IssuerMatched,
    matched: CallbackMatched,
}

impl AwaitingTokens {
    /// The evidence for the callback.
    pub fn callback_matched(&self) -> &CallbackMatched {
        &self.0.matched
    }

    /// The evidence for the callback's issuer.
    pub fn issuer_matched(&self) -> &IssuerMatched {
        &self.0.issuer
    }

    /// What the fetch brought. On success the session is to be kept first, then used.
    ///
    /// # Errors
    /// [`Failed`] with [`Ready`]: the code is used up, and another authorization may begin.
    pub fn receive(
        self,
        fetched: Result<Reply, FetchFailure>,
        now: OffsetDateTime,
    ) -> Result<Step<PersistSession, AwaitingPersisted>, Failed<Ready>> {
        let Exchanging { mut prepared, scope, .. } = *self.0;
        let response = match prepared.tokens_of(fetched) {
            Ok(response) => response,
            Err(error) => return Err(Failed { error, state: Ready(Box::new(prepared)) }),
        };
        // OAUTH21-1.4.1-4: the granted scope is what the server says, and what was asked for where it is silent.
        let granted = response.scope.clone().unwrap_or_else(|| scope.clone());
        prepared.wanted = prepared.wanted.union(&scope);
        let tokens = Tokens::new(response, granted.clone(), granted, None, now);
        Ok(AwaitingPersisted::begin(prepared, tokens))
    }
}
