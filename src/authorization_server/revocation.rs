//! Revocation: a client ends a grant of its own (RFC 7009).
//!
//! ```text
//!   AuthorizationServer::revoke
//!      │ FindClient
//!   AwaitingRevocationClient
//!      │ ReadRefresh
//!   AwaitingRevocable ── another's, or unknown ──> Respond 200
//!      │ RevokeFamily
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
use crate::authorization_server::error::{TokenFailure, TokenReason};
use crate::authorization_server::store::{
    ActionId, ClientFound, FamilyRevocation, FindClient, FoundState, ReadRefresh, RefreshFound,
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
    ) -> Result<Step<FindClient, AwaitingRevocationClient>, TokenFailure> {
        let form = read_form(head, body)?;
        // RFC7009-2.1-3: the hint is not needed to find a token here, so a wrong one cannot mislead.
        let token = RevocationRequest::from_form(&form).map_err(malformed)?.token;
        let credentials = PresentedCredentials::read(head, &form).map_err(TokenFailure::new)?;
        let find = FindClient::new(credentials.client_id().clone());
        Ok(Step::new(find, AwaitingRevocationClient(Box::new(ClientInner { credentials, token }))))
    }
}

/// The answer to every revocation by an authenticated client.
fn done() -> Respond {
    // RFC7009-2.2-1
    Respond::new(200).with_header("cache-control", "no-store")
}

/// Waits for the record of the client that the request names.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingRevocationClient(Box<ClientInner>);

#[derive(Debug)]
struct ClientInner {
    credentials: PresentedCredentials,
    token: SubmittedToken,
}

impl AwaitingRevocationClient {
    /// The store has looked the client up.
    ///
    /// # Errors
    /// [`TokenFailure`] when the client does not authenticate, or the token is of a type that cannot be revoked.
    pub fn found(self, found: ClientFound) -> Result<Step<ReadRefresh, AwaitingRevocable>, TokenFailure> {
        // RFC7009-2.1-2
        let client = self.0.credentials.check(found).map_err(TokenFailure::new)?;
        // RFC7009-2.2.1-1: the form of a JWT, which no refresh token of this server has.
        if self.0.token.expose().contains('.') {
            return Err(TokenFailure::new(TokenReason::UnsupportedTokenType));
        }
        let digest = self.0.token.digest();
        let inner = RevocableInner { client, digest };
        Ok(Step::new(ReadRefresh::new(digest), AwaitingRevocable(Box::new(inner))))
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
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
            FoundState::Live(record) | FoundState::Used(record)
                if record.grant.client_id == *self.0.client.client_id() =>
            {
                match RevokeFamily::new(&record.grant, RevocationReason::ClientRequest, entropy) {
                    Ok((revoke, id)) => {
                        RevocableOutcome::Revoke(Step::new(revoke, AwaitingRevoked(Box::new(id))))
                    }
                    Err(_) => RevocableOutcome::Refused(TokenFailure::new(TokenReason::NoEntropy)),
                }
            }
            // I-T8
            _ => RevocableOutcome::Done(done()),
        }
    }

    /// The store could not be read. Nothing was changed; the client may try again.
    pub fn store_failed(self) -> Respond {
        TokenFailure::new(TokenReason::StoreFailed).respond()
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
