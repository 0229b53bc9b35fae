//! Tokens in use: attached to their resource and to nothing else, widened by step-up (OAuth 2.1 section 5, MCP token
//! handling and scope challenge handling). `refresh.rs` has their renewal.
//!
//! A new token is kept before it is used: [`AwaitingPersisted`] has no method but the one that takes the receipt.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use super::authorization::{Prepared, Ready};
use super::record::{PairingRecord, RecordVersion, SessionInputs, SessionRecord};
use super::step_up::{AwaitingStepUp, CountStepUp, StepUpLedger};
use crate::erased::Erased;
use crate::error::{Error, HostMisuse, PeerIncompatible, PeerMisbehaved, malformed};
use crate::identifier::{Issuer, ResourceId, ScopeSet};
use crate::message::Malformed;
use crate::message::challenge::{BearerChallenge, parse_challenges};
use crate::message::exchange::Reply;
use crate::message::token::TokenResponse;
use crate::sealer::Sealer;
use crate::secret::{AccessToken, RefreshToken, SecretDigest};
use crate::step::{Failed, Step};
use crate::time::{self, Duration, OffsetDateTime};

/// Tokens and what they are good for.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: AccessToken,
    pub(crate) expires: Option<OffsetDateTime>,
    pub(crate) refresh: Option<RefreshToken>,
    pub(crate) scope: ScopeSet,
    /// What the person granted at the login: no refresh goes beyond it, and one that narrows does not take it away. Empty
    /// where nobody has named a scope yet.
    pub(crate) granted: ScopeSet,
}

impl Tokens {
    pub(crate) fn new(
        response: TokenResponse,
        scope: ScopeSet,
        granted: ScopeSet,
        previous: Option<RefreshToken>,
        now: OffsetDateTime,
    ) -> Self {
        Self {
            access: response.access_token,
            expires: response.expires_in.map(|count| time::after(now, time::seconds(count))),
            // OAUTH21-4.3.2-1, OAUTH21-4.3.2-2: a new one replaces, none keeps the old.
            refresh: response.refresh_token.or(previous),
            scope,
            granted,
        }
    }

    /// The scope that a refresh's response gives, and the one first granted, as far as that is known by now. `None` for a
    /// response that goes beyond it.
    pub(crate) fn refreshed_scope(&self, named: Option<&ScopeSet>) -> Option<(ScopeSet, ScopeSet)> {
        match named {
            // RFC 6749 sections 5.1 and 6: silence means what was asked for, and a refresh that names no scope asks for
            // the one first granted, whatever an earlier refresh narrowed it to.
            None => Some((self.granted.clone(), self.granted.clone())),
            // Neither the login's request nor its response named a scope, so the server gave its default and had not to say
            // which. Now it says; to end the session would log an honest client out for having been told. What is named
            // here is taken for the first grant, and from now on nothing beyond it is.
            Some(named) if self.granted.is_empty() => Some((named.clone(), named.clone())),
            // I-T5 from this side: a refresh never widens.
            Some(named) => named.is_subset_of(&self.granted).then(|| (named.clone(), self.granted.clone())),
        }
    }
}

/// Keep this session before it is used: whatever was kept before is replaced by it.
#[must_use = "a rotated refresh token that is not kept is lost"]
#[derive(Debug)]
pub struct PersistSession {
    record: SessionInputs,
    id: SecretDigest,
}

impl PersistSession {
    /// The record to keep.
    ///
    /// # Errors
    /// [`Error`] when the sealer fails; the action is still there.
    pub fn record(&self, sealer: &dyn Sealer) -> Result<SessionRecord, Error> {
        self.record.seal(sealer)
    }

    /// The host's word for the pair, to keep with the session; none where an identity that was registered by hand for the
    /// resource spoke for it.
    ///
    /// # Errors
    /// [`Error`] when the sealer fails; the action is still there.
    pub fn pairing(&self, sealer: &dyn Sealer) -> Result<Option<PairingRecord>, Error> {
        self.record.pairing(sealer)
    }

    /// The issuer of the session: with the resource, the place in a store.
    pub fn issuer(&self) -> &Issuer {
        self.record.issuer()
    }

    /// The resource of the session.
    pub fn resource(&self) -> &ResourceId {
        self.record.resource()
    }

    /// It is kept, under that version; every claim on what was there before has ended.
    pub fn persisted(self, version: RecordVersion) -> SessionPersisted {
        SessionPersisted { id: self.id, version: Some(version) }
    }

    /// The host keeps nothing: a lost process is a lost login, and the person signs in again.
    pub fn kept_in_memory(self) -> SessionPersisted {
        SessionPersisted { id: self.id, version: None }
    }
}

/// That [`PersistSession`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct SessionPersisted {
    id: SecretDigest,
    version: Option<RecordVersion>,
}

/// Waits for the receipt that the session is kept.
#[must_use = "the tokens are there once the session is kept"]
#[derive(Debug)]
pub struct AwaitingPersisted(Box<(SecretDigest, Held)>);

impl AwaitingPersisted {
    pub(crate) fn begin(prepared: Prepared, tokens: Tokens) -> Step<PersistSession, Self> {
        let id = tokens.access.digest();
        // The session that was there is replaced.
        let prepared = Prepared { earlier: None, ..prepared };
        let record = SessionInputs::of(&prepared, &tokens);
        Step::new(
            PersistSession { record, id },
            Self(Box::new((id, Held { prepared, tokens, version: None }))),
        )
    }

    /// The store failed: the same action once more. Dropping it loses the login.
    pub fn again(self) -> Step<PersistSession, Self> {
        let record = SessionInputs::of(&self.0.1.prepared, &self.0.1.tokens);
        Step::new(PersistSession { record, id: self.0.0 }, self)
    }

    /// The session is kept and can be used.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn persisted(self, receipt: SessionPersisted) -> Result<Session, Failed<Self>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(HostMisuse::ForeignReceipt, self));
        }
        Ok(Session(Box::new(Held { version: receipt.version, ..self.0.1 })))
    }
}

#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) prepared: Prepared,
    pub(crate) tokens: Tokens,
    /// Under which version a store holds it; none where no other process can know it.
    pub(crate) version: Option<RecordVersion>,
}

/// At rest: tokens for one resource.
#[must_use = "a session that is dropped is lost unless it was kept"]
#[derive(Debug)]
pub struct Session(pub(crate) Box<Held>);

/// The value of an `Authorization` field, for one request to the token's own resource. Secret.
pub struct AuthorizationHeader(Erased<String>);

impl AuthorizationHeader {
    /// The value.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthorizationHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorizationHeader(redacted)")
    }
}

impl Session {
    /// The resource the tokens are for.
    pub fn resource(&self) -> &ResourceId {
        self.0.prepared.server.target.resource.resource()
    }

    /// The issuer they come from.
    pub fn issuer(&self) -> &Issuer {
        self.0.prepared.server.issuer.issuer()
    }

    /// The scopes granted.
    pub fn scopes(&self) -> &ScopeSet {
        &self.0.tokens.scope
    }

    /// When the access token ends, if the server said so.
    pub fn expires(&self) -> Option<OffsetDateTime> {
        self.0.tokens.expires
    }

    /// Whether the access token has ended, or ends within `margin`. A server may end it earlier.
    pub fn is_expired(&self, now: OffsetDateTime, margin: Duration) -> bool {
        self.0.tokens.expires.is_some_and(|expires| time::after(now, margin) >= expires)
    }

    /// Whether there is a refresh token.
    pub fn can_refresh(&self) -> bool {
        self.0.tokens.refresh.is_some()
    }

    /// The `Authorization` field for a request to that URL.
    ///
    /// # Errors
    /// [`HostMisuse::OtherResource`] unless the URL is the resource's or lies below it: scheme, host and port equal, path
    /// a whole-segment continuation.
    pub fn authorization_for(&self, request_url: &str) -> Result<AuthorizationHeader, Error> {
        // OAUTH21-1.4-1: the token as it came; nothing of it is read.
        // MCP-AUTH-053, MCP-AUTH-070, MCP-AUTH-072, OAUTH21-7.1.3-1, I-L7: a header field, for its own resource.
        if !self.resource().covers(request_url) {
            return Err(HostMisuse::OtherResource.into());
        }
        Ok(AuthorizationHeader(Erased::new(["Bearer ", self.0.tokens.access.expose()].concat())))
    }

    /// A request was answered with this 401 or 403; `operation` names what was tried, for counting attempts.
    ///
    /// # Errors
    /// [`Failed`] with this session when nothing more could be gained by authorizing, or too much was tried (D33). The
    /// request must not be repeated then.
    pub fn challenged(
        self,
        operation: &str,
        reply: &Reply,
        now: OffsetDateTime,
    ) -> Result<StepUp, Failed<Self>> {
        let challenge = parse_challenges(reply.www_authenticate())
            .and_then(|challenges| BearerChallenge::find(&challenges))
            .map_err(PeerMisbehaved::from);
        let challenge = match challenge {
            Ok(challenge) => challenge,
            Err(error) => return Err(Failed::new(error, self)),
        };
        match reply.status() {
            // OAUTH21-3.2.3-5, OAUTH21-5.3.2-3: an early 401 is no fault; refresh, or authorize anew.
            401 if self.can_refresh() && !self.0.prepared.identity.is_expired(now) => {
                Ok(StepUp::Refresh(self))
            }
            401 => Ok(StepUp::Authorize(self.into_ready())),
            // MCP-AUTH-110, MCP-AUTH-113
            403 => {
                let insufficient = challenge.filter(|it| it.error.as_deref() == Some("insufficient_scope"));
                let Some(scope) = insufficient.and_then(|challenge| challenge.scope) else {
                    return Err(Failed::new(PeerIncompatible::NothingToGain, self));
                };
                self.step_up(operation, &scope, now)
            }
            _ => Err(Failed::new(HostMisuse::NotAChallenge, self)),
        }
    }

    fn step_up(self, operation: &str, scope: &str, now: OffsetDateTime) -> Result<StepUp, Failed<Self>> {
        let Ok(asked) = ScopeSet::parse(scope) else {
            return Err(Failed { error: malformed("challenge")(Malformed::Invalid("scope")), state: self });
        };
        // MCP-AUTH-102, D33: a challenge that adds nothing to what the token has, or comes too often, ends here.
        if asked.is_subset_of(&self.0.tokens.scope) {
            return Err(Failed::new(PeerMisbehaved::StepUpLoop, self));
        }
        AwaitingStepUp::begin(self, operation, asked, now).map(StepUp::Count)
    }

    /// Forgets the step-ups counted in this process: the person says that the server may ask again. The host removes what
    /// its store has of them ([`StepUpRecord`](super::StepUpRecord)).
    pub fn forgetting_step_ups(mut self) -> Self {
        // D33
        self.0.prepared.ledger = StepUpLedger::default();
        self
    }

    /// Gives the tokens up and goes back to where an authorization begins.
    pub fn into_ready(self) -> Ready {
        Ready(Box::new(self.0.prepared))
    }

    /// The session to keep, as it is now.
    ///
    /// # Errors
    /// [`Error`] when the sealer fails.
    pub fn record(&self, sealer: &dyn Sealer) -> Result<SessionRecord, Error> {
        SessionInputs::of(&self.0.prepared, &self.0.tokens).seal(sealer)
    }
}

/// What a 401 or 403 asks for.
#[must_use = "the request was refused"]
#[derive(Debug)]
pub enum StepUp {
    /// The token is not taken any more: refresh, then repeat the request once.
    Refresh(Session),
    /// The token is not taken any more and cannot be renewed: begin anew.
    Authorize(Ready),
    /// More authorization may help: count the attempt, ask for the union of the scopes, then repeat the request once.
    Count(Step<CountStepUp, AwaitingStepUp>),
}
