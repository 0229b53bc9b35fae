//! Revocation: a client ends a grant of its own (RFC 7009).
//!
//! ```text
//!   AuthorizationServer::revoke
//!      │ FindClient
//!   AwaitingCaller (caller.rs)
//!      │ ReadRefresh
//!   AwaitingRevocable ── no refresh token, ReadAccess ──> AwaitingRevocableAccess ── another's, or unknown ──> Respond 200
//!      │ RevokeFamily                                        │ RevokeFamily
//!   AwaitingRevoked ──────────────────────────────> Respond 200
//! ```
//!
//! An authenticated client learns nothing of tokens that are not its own: the answer is the same 200 (I-T8). JWT
//! access tokens live to their `exp`; asking to revoke one is `unsupported_token_type`, so that no client takes a
//! 200 for more than it is.

use alloc::boxed::Box;

use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::authentication::{ClientAuthenticated, PresentedCredentials};
use crate::authorization_server::authorization::ForeignReceipt;
use crate::authorization_server::caller::{Asked, AwaitingCaller};
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::record::GrantRecord;
use crate::authorization_server::store::{
    AccessFound, ActionId, FamilyRevocation, FindClient, FoundState, ReadAccess, ReadRefresh, RefreshFound,
    RevocationReason, RevokeFamily,
};
use crate::authorization_server::token::{malformed, read_form};
use crate::entropy::Entropy;
use crate::message::exchange::{RequestHead, Respond};
use crate::message::revocation::RevocationRequest;
use crate::secret::{SecretDigest, SubmittedToken};
use crate::step::{Failed, Step};

impl AuthorizationServer {
    /// A request at the revocation endpoint: the head and the body, read up to [`crate::limits::FORM_BYTES`].
    ///
    /// # Errors
    /// [`TokenFailure`], whose answer goes out at once, when the request is no well-formed revocation request.
    pub fn revoke(
        &self,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<Step<FindClient, AwaitingCaller>, TokenFailure> {
        let form = read_form(head, body)?;
        // RFC7009-2.1-3: the hint is not needed to find a token here, so a wrong one cannot mislead.
        let token = RevocationRequest::from_form(&form).map_err(malformed)?.token;
        let credentials = PresentedCredentials::read(head, &form).map_err(TokenFailure::new)?;
        Ok(AwaitingCaller::step(self, credentials, Asked::Revocation(Revoking { token })))
    }
}

/// The answer to every revocation by an authenticated client.
fn done() -> Respond {
    // RFC7009-2.2-1
    Respond::new(200).with_header("cache-control", "no-store")
}

/// What a revocation request asks for, while its client is found out.
#[derive(Debug)]
pub(crate) struct Revoking {
    token: SubmittedToken,
}

impl Revoking {
    /// The client is who it says: the token is read.
    pub(crate) fn go_on(
        self,
        client: ClientAuthenticated,
    ) -> Result<Step<ReadRefresh, AwaitingRevocable>, TokenReason> {
        // RFC7009-2.2.1-1: the form of a JWT, which no other token of this server has.
        if self.token.expose().contains('.') {
            return Err(TokenReason::UnsupportedTokenType);
        }
        let digest = self.token.digest();
        Ok(Step::new(
            ReadRefresh::new(digest),
            AwaitingRevocable(Box::new(RevocableInner { client, digest })),
        ))
    }
}

/// Waits for the record of the token to revoke.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRevocable(Box<RevocableInner>);

#[derive(Debug)]
struct RevocableInner {
    client: ClientAuthenticated,
    digest: SecretDigest,
}

/// What follows on the record of the token to revoke.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum RevocableOutcome {
    /// The token is the client's own: its family is revoked before the answer goes out.
    Revoke(Step<RevokeFamily, AwaitingRevoked>),
    /// It is no refresh token: it may be an opaque access token.
    Access(Step<ReadAccess, AwaitingRevocableAccess>),
    /// Nothing to revoke; the answer does not tell.
    Done(Respond),
    /// Answer with this.
    Refused(TokenFailure),
}

impl AwaitingRevocable {
    /// The store has read the token.
    pub fn found(self, found: RefreshFound, entropy: &mut dyn Entropy) -> RevocableOutcome {
        if found.digest != self.0.digest {
            return RevocableOutcome::Refused(TokenFailure::new(TokenReason::HostMisuse));
        }
        match found.state {
            // RFC7009-2-1, RFC7009-2.1-2, RFC7009-2.1-4: a retired token of its own ends the grant just as well.
            FoundState::Live(record) | FoundState::Used(record) => {
                self.0.client.end_own(&record.grant, entropy)
            }
            // RFC7009-2.1-3
            FoundState::Absent => {
                let read = ReadAccess::new(self.0.digest);
                RevocableOutcome::Access(Step::new(read, AwaitingRevocableAccess(self.0)))
            }
        }
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

/// Waits for the record of an opaque access token to revoke.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRevocableAccess(Box<RevocableInner>);

impl AwaitingRevocableAccess {
    /// The store has read the token. What remains is [`RevocableOutcome::Revoke`], `Done` or `Refused`.
    pub fn found(self, found: AccessFound, entropy: &mut dyn Entropy) -> RevocableOutcome {
        if found.digest != self.0.digest {
            return RevocableOutcome::Refused(TokenFailure::new(TokenReason::HostMisuse));
        }
        match found.record {
            // RFC7009-2.1-5: with its refresh token, so that one call ends what the person sees as one grant.
            Some(record) => self.0.client.end_own(&record.grant, entropy),
            None => RevocableOutcome::Done(done()),
        }
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}

impl ClientAuthenticated {
    /// Revokes the grant if it is the client's own; if not, the answer does not tell (I-T8).
    fn end_own(&self, grant: &GrantRecord, entropy: &mut dyn Entropy) -> RevocableOutcome {
        // RFC7009-2.1-2
        if grant.client_id != *self.client_id() {
            return RevocableOutcome::Done(done());
        }
        match RevokeFamily::new(grant, RevocationReason::ClientRequest, entropy) {
            Ok((revoke, id)) => RevocableOutcome::Revoke(Step::new(revoke, AwaitingRevoked(Box::new(id)))),
            Err(_) => RevocableOutcome::Refused(TokenFailure::new(TokenReason::NoEntropy)),
        }
    }
}

/// Waits for the revocation; the answer is to be had for its receipt only.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRevoked(Box<ActionId>);

impl AwaitingRevoked {
    /// The family is revoked: the answer.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn revoked(self, receipt: FamilyRevocation) -> Result<Respond, Failed<Self, ForeignReceipt>> {
        if receipt.id != *self.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        Ok(done())
    }

    /// The store failed: the token may still be alive, and the client has to try again (RFC 7009 section 2.2.1).
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
    }
}
