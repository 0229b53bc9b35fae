//! Refresh: one live token per family, replaced at each use (OAuth 2.1 section 4.3, RFC 8707 section 2.2).
//!
//! ```text
//!   AwaitingCaller (caller.rs)
//!      │ ReadRefresh
//!   AwaitingRefresh ──────────── retired ──┐
//!      │ Sign, unless opaque               │ RevokeFamily
//!   AwaitingRefreshSignature               │
//!      │ RotateRefresh                     │
//!   AwaitingRotation ─────────── retired ──┤
//!      │                          AwaitingRevocation (token.rs)
//!   Respond 200                        Respond 400 invalid_grant
//! ```
//!
//! Every client's token is rotated, confidential ones' too. A retired token that comes back is reuse: its family is
//! revoked, after the client has authenticated as the token's own (I-T2). Between the two lies the bounded grace of
//! decision D17 (`grace.rs`), where the operator asked for it: a client that lost the answer gets the same one again.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authentication::ClientAuthenticated;
use crate::authorization_server::authorization::ForeignReceipt;
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::grace::{self, RefreshGrace};
use crate::authorization_server::issuance::{self, Issuance, Issued, Planned};
use crate::authorization_server::record::GrantRecord;
use crate::authorization_server::store::{
    ActionId, FoundState, Outcome, ReadRefresh, RefreshFound, RefreshRotation, Retirement, RevocationReason,
    RevokeFamily, RotateRefresh, Rotation,
};
use crate::authorization_server::token::AwaitingRevocation;
use crate::entropy::{Ahead, Entropy};
use crate::identifier::ScopeSet;
use crate::jose::{Sign, Signed};
use crate::message::exchange::Respond;
use crate::message::token::RefreshGrant;
use crate::secret::{self, RefreshToken, SecretDigest};
use crate::step::{Failed, Step};
use crate::time::{self, OffsetDateTime};

/// Waits for the refresh token's record. Reading it changes nothing.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRefresh(Box<RefreshInner>);

#[derive(Debug)]
struct RefreshInner {
    server: AuthorizationServer,
    client: ClientAuthenticated,
    request: RefreshGrant,
    /// The digest of the token that was presented.
    presented: SecretDigest,
}

/// What follows on the refresh token's record.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum RefreshOutcome {
    /// Everything fits; next the access token is signed.
    Sign(Step<Sign, AwaitingRefreshSignature>),
    /// Everything fits; the access token is opaque, and next the refresh token is rotated.
    Rotate(Step<RotateRefresh, AwaitingRotation>),
    /// A retired token came back: its family is revoked before the refusal goes out.
    Reused(Step<RevokeFamily, AwaitingRevocation>),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingRefresh {
    pub(crate) fn step(
        server: AuthorizationServer,
        client: ClientAuthenticated,
        request: RefreshGrant,
    ) -> Step<ReadRefresh, Self> {
        let presented = request.refresh_token.digest();
        let inner = RefreshInner { server, client, request, presented };
        Step::new(ReadRefresh::new(presented), Self(Box::new(inner)))
    }

    /// The store has read the refresh token.
    pub fn found(self, found: RefreshFound, entropy: &mut dyn Entropy) -> RefreshOutcome {
        self.0
            .judge(found, entropy)
            .unwrap_or_else(|reason| RefreshOutcome::Refused(TokenFailure::new(reason)))
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

impl RefreshInner {
    fn judge(self, found: RefreshFound, entropy: &mut dyn Entropy) -> Result<RefreshOutcome, TokenReason> {
        let presented = self.presented;
        if found.digest != presented {
            return Err(TokenReason::HostMisuse);
        }
        let (record, retired) = match found.state {
            FoundState::Live(record) => (record, false),
            FoundState::Used(record) => (record, true),
            FoundState::Absent => return Err(TokenReason::RefreshUnknown),
        };
        // OAUTH21-4.3-1: before anything a stranger could set off.
        if record.grant.client_id != *self.client.client_id() {
            return Err(TokenReason::RefreshForOtherClient);
        }
        let repeats = match (retired, found.retirement) {
            (false, _) => None,
            // D17
            (true, Some(retirement)) if self.is_within_grace(&retirement, found.now) => {
                self.server.refresh_grace().map(RefreshGrace::repeats)
            }
            (true, _) => {
                // OAUTH21-4.3.1-5 (I-T2)
                let reason = RevocationReason::RefreshReused;
                let revoke = AwaitingRevocation::step(&record.grant, reason, entropy)?;
                return Ok(RefreshOutcome::Reused(revoke));
            }
        };
        // OAUTH21-4.3.1-3, OAUTH21-4.3.3-2: by the clock of the store.
        if found.now >= record.expires {
            return Err(TokenReason::RefreshExpired);
        }
        let grant = Arc::clone(&record.grant);
        issuance::check_target(&grant, self.request.resource.as_deref())?;
        let wanted = self.wanted_scope(&grant)?;
        let scope = issuance::current_scope(&self.server, &self.client, &grant, &wanted)?;
        let next = record.generation.checked_add(1).ok_or(TokenReason::GrantExpired)?;
        // MCP-SEC-004, OAUTH21-2.4-4: what is stolen from a public client serves once, and its second use is noticed.
        let entropy = &mut Ahead::<80>::of(entropy);
        let token = self.successor(&grant, next, entropy)?;
        let rotation = Rotation {
            presented,
            presented_generation: record.generation,
            request: self.request_digest(),
            successor_digest: token.digest(),
            successor: issuance::refresh_record(&self.server, &grant, next, found.now),
            repeats,
        };
        let no_entropy = |_| TokenReason::NoEntropy;
        match Issuance::plan(&self.server, &grant, scope, Some(token), found.now, entropy)? {
            Planned::Sign(sign, issuance) => {
                let (rotate, id) = RotateRefresh::new(rotation, None, entropy).map_err(no_entropy)?;
                let inner = SignatureInner { rotate, id, issuance, again: self };
                Ok(RefreshOutcome::Sign(Step::new(sign, AwaitingRefreshSignature(Box::new(inner)))))
            }
            Planned::Opaque(issued, row) => {
                let (rotate, id) = RotateRefresh::new(rotation, Some(row), entropy).map_err(no_entropy)?;
                let inner = RotationInner { id, grant, repeated: repeats.is_some(), issued, again: self };
                Ok(RefreshOutcome::Rotate(Step::new(rotate, AwaitingRotation(Box::new(inner)))))
            }
        }
    }

    /// Whether the answer of the rotation that retired the token may be repeated (I-T3): in time, to the same request,
    /// not too often, and not once the successor was used.
    fn is_within_grace(&self, retirement: &Retirement, now: OffsetDateTime) -> bool {
        self.server.refresh_grace().is_some_and(|grace| {
            retirement.successor_unused
                && now < time::after(retirement.at, grace.window())
                && retirement.repeats < grace.repeats()
                && retirement.request == self.request_digest()
        })
    }

    fn request_digest(&self) -> SecretDigest {
        let (scope, resource) = (self.request.scope.as_deref(), self.request.resource.as_deref());
        SecretDigest::of(grace::request_text(self.client.client_id().as_str(), scope, resource).as_bytes())
    }

    /// The token that replaces the presented one: computed where an answer may have to be repeated, else random.
    fn successor(
        &self,
        grant: &GrantRecord,
        generation: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<RefreshToken, TokenReason> {
        match self.server.refresh_grace() {
            Some(grace) => grace
                .successor(&self.request.refresh_token, grant.family, generation)
                .ok_or(TokenReason::HostMisuse),
            None => secret::fresh(entropy, RefreshToken::new).map_err(|_| TokenReason::NoEntropy),
        }
    }

    /// The scope asked for, within the grant; none asked for means all of it (I-T5).
    fn wanted_scope(&self, grant: &GrantRecord) -> Result<ScopeSet, TokenReason> {
        let Some(text) = &self.request.scope else { return Ok(grant.scope.clone()) };
        // OAUTH21-4.3.1-2, OAUTH21-A-1, OAUTH21-3.2.4-6
        let wanted = ScopeSet::parse(text).map_err(|_| TokenReason::ScopeExceeded)?;
        if wanted.is_empty() || !wanted.is_subset_of(&grant.scope) {
            return Err(TokenReason::ScopeExceeded);
        }
        Ok(wanted)
    }
}

/// Waits for the signature of the access token. The refresh token is still live.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRefreshSignature(Box<SignatureInner>);

#[derive(Debug)]
struct SignatureInner {
    rotate: RotateRefresh,
    id: ActionId,
    issuance: Issuance,
    again: RefreshInner,
}

impl AwaitingRefreshSignature {
    /// The key holder has signed.
    ///
    /// # Errors
    /// [`TokenFailure`] for the signature of another action.
    pub fn signed(self, signed: Signed) -> Result<Step<RotateRefresh, AwaitingRotation>, TokenFailure> {
        let SignatureInner { rotate, id, issuance, again } = *self.0;
        let issued = issuance.signed(signed).map_err(TokenFailure::new)?;
        let (grant, repeated) = (Arc::clone(&rotate.successor().grant), rotate.repeats().is_some());
        let inner = RotationInner { id, grant, repeated, issued, again };
        Ok(Step::new(rotate, AwaitingRotation(Box::new(inner))))
    }

    /// The key holder did not sign. Nothing was changed; the refresh token can be presented again.
    pub fn signer_failed(self) -> Respond {
        TokenFailure::new(TokenReason::SignerFailed).respond()
    }
}

/// Holds the tokens back until the store has committed the rotation.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRotation(Box<RotationInner>);

#[derive(Debug)]
struct RotationInner {
    id: ActionId,
    grant: Arc<GrantRecord>,
    repeated: bool,
    issued: Issued,
    again: RefreshInner,
}

/// What follows on the rotation.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum RotationOutcome {
    /// Committed: the answer with the tokens.
    Tokens(Respond),
    /// Somebody else rotated the token in between, and there is a grace: the token is read again, to tell a second copy
    /// of the same request from reuse.
    ReadAgain(Step<ReadRefresh, AwaitingRefresh>),
    /// Somebody else rotated the token in between: its family is revoked before the refusal goes out.
    Reused(Step<RevokeFamily, AwaitingRevocation>),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingRotation {
    /// The store has carried out the rotation, or found that it must not.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn rotated(
        self,
        receipt: RefreshRotation,
        entropy: &mut dyn Entropy,
    ) -> Result<RotationOutcome, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.id {
            return Err(Failed::new(ForeignReceipt, self));
        }
        let RotationInner { grant, repeated, issued, again, .. } = *self.0;
        let refused = |reason| RotationOutcome::Refused(TokenFailure::new(reason));
        Ok(match receipt.outcome {
            // MCP-SEC-004: the one way to the tokens (I-T1, I-G4).
            Outcome::Done => RotationOutcome::Tokens(issued.respond()),
            // I-T3: the token is retired by now, so this happens once.
            Outcome::Used if !repeated && again.server.refresh_grace().is_some() => {
                RotationOutcome::ReadAgain(AwaitingRefresh::step(again.server, again.client, again.request))
            }
            // OAUTH21-4.3.1-5
            Outcome::Used => AwaitingRevocation::step(&grant, RevocationReason::RefreshReused, entropy)
                .map_or_else(refused, RotationOutcome::Reused),
            // OAUTH21-4.3.1-3 (I-T4)
            Outcome::Revoked => refused(TokenReason::GrantRevoked),
            Outcome::Absent => refused(TokenReason::RefreshUnknown),
        })
    }

    /// The store failed, before or after it committed: the tokens are dropped.
    ///
    /// If it had committed, the client's next try presents a retired token, and the person logs in once more.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}
