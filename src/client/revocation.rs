//! Logging out: the tokens are revoked at their issuer (RFC 7009).

use alloc::boxed::Box;

use super::authorization::Ready;
use super::endpoint::{Body, EndpointCall};
use super::session::{Held, Session};
use crate::entropy::Entropy;
use crate::error::{Error, KnownCode, OutsideFailed, PeerIncompatible};
use crate::message::exchange::{FetchFailure, FetchPurpose, Reply};
use crate::message::revocation::TokenTypeHint;
use crate::message::token::TokenErrorResponse;
use crate::secret::SubmittedToken;
use crate::step::Failed;
use crate::time::OffsetDateTime;

impl Session {
    /// Revokes the refresh token, or the access token where there is none. A server that follows RFC 7009 ends the
    /// whole grant with its refresh token.
    ///
    /// Remove the session from its store whatever comes of this: a token that could not be revoked is not wanted either.
    ///
    /// # Errors
    /// [`Failed`] with this session when the server has no revocation endpoint, or there is no randomness.
    pub fn revoke(
        self,
        now: OffsetDateTime,
        entropy: &mut dyn Entropy,
    ) -> Result<EndpointCall<AwaitingRevocation>, Failed<Self>> {
        // RFC7009-2.1-1
        let tokens = &self.0.tokens;
        let (text, hint) = match &tokens.refresh {
            Some(refresh) => (refresh.expose(), TokenTypeHint::RefreshToken),
            None => (tokens.access.expose(), TokenTypeHint::AccessToken),
        };
        let call = SubmittedToken::new(text)
            .map_err(|_| Error::from(crate::error::HostMisuse::ForeignRecord))
            .and_then(|token| {
                self.0.prepared.call(FetchPurpose::Revocation, Body::Revocation(token, hint), now, entropy)
            });
        match call {
            Ok(call) => Ok(call.before(AwaitingRevocation(self.0))),
            Err(error) => Err(Failed { error, state: self }),
        }
    }
}

/// Waits for the revocation endpoint.
#[must_use = "the flow goes on with the fetch's result"]
#[derive(Debug)]
pub struct AwaitingRevocation(Box<Held>);

impl AwaitingRevocation {
    /// What the fetch brought: the tokens are gone from the server.
    ///
    /// # Errors
    /// [`Failed`] with the session, whose tokens may still be good: try again, or forget it.
    pub fn receive(self, fetched: Result<Reply, FetchFailure>) -> Result<Ready, Failed<Session>> {
        let error = match fetched {
            // RFC7009-2.2-2: whatever the body says.
            Ok(reply) if reply.status() == 200 => return Ok(Ready(Box::new(self.0.prepared))),
            // RFC7009-2.2.1-2
            Ok(reply) if reply.status() >= 500 || reply.status() == 429 => {
                Error::from(OutsideFailed::Unavailable {
                    status: reply.status(),
                    retry_after: reply.retry_after(),
                })
            }
            Ok(reply) => {
                let code = TokenErrorResponse::parse(reply.body());
                let code = code.map_or(KnownCode::of(""), |error| KnownCode::of(error.code.as_str()));
                PeerIncompatible::RevocationRefused(code).into()
            }
            Err(failure) => OutsideFailed::from(failure).into(),
        };
        Err(Failed { error, state: Session(self.0) })
    }
}
