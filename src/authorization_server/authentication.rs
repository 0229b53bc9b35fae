//! Who the client is: the credentials of a token, revocation or introspection request, and their check.
//!
//! OAuth 2.1 sections 2.4 and 3.2.2. Two steps, because the client's record lies in the store between them:
//! [`PresentedCredentials`] are read from the request, exactly one mechanism; [`ClientAuthenticated`] is what
//! their check against the record leaves, and nothing else in this role makes one.
//!
//! ```text
//!   RequestHead + Form ── read ──> PresentedCredentials ── FindClient ──> check ──> ClientAuthenticated
//! ```
//!
//! Mechanisms: `none`, `client_secret_basic`, `client_secret_post`. A client assertion (`private_key_jwt`) is
//! recognised, so that it is never taken for `none`, and refused.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::fmt;

use crate::authorization_server::error::TokenReason;
use crate::authorization_server::record::{ClientCredential, ClientRecord};
use crate::authorization_server::store::ClientFound;
use crate::identifier::{ClientId, ScopeSet};
use crate::message::exchange::RequestHead;
use crate::secret::{ClientSecret, SecretDigest};
use crate::syntax::basic;
use crate::syntax::form::Form;

/// The credentials of one request, before anything is known about the client.
///
/// A secret is digested where it is read: nothing of it lives on in a state.
#[derive(Clone)]
pub(crate) struct PresentedCredentials {
    client_id: ClientId,
    mechanism: Mechanism,
}

#[derive(Clone, Copy)]
enum Mechanism {
    /// `client_id` in the body and nothing else: names a client, proves nothing (OAUTH21-2.2-1).
    None,
    /// A secret, in the `Authorization` field or the body.
    Secret(SecretDigest),
}

impl PresentedCredentials {
    /// Reads the one mechanism of the request. The query is not looked at: credentials there do not count.
    pub(crate) fn read(head: &RequestHead, form: &Form) -> Result<Self, TokenReason> {
        let mut fields = head.authorization();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(TokenReason::SeveralCredentials);
        }
        let body_id = form.get("client_id");
        let body_secret = form.get("client_secret");
        // RFC7523-3.2-1: an assertion is a mechanism of its own, never a parameter to overlook.
        if form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some() {
            return Err(match (field, body_secret) {
                (None, None) => TokenReason::UnsupportedAuthentication,
                _ => TokenReason::AssertionBesideCredentials,
            });
        }
        match (field, body_secret) {
            // OAUTH21-2.4-2
            (Some(_), Some(_)) => Err(TokenReason::SeveralCredentials),
            (Some(field), None) => {
                // OAUTH21-2.4.1-4, OAUTH21-2.4.1-6: both halves are form-decoded by the parser.
                let (id, secret) = basic::decode(field).map_err(|_| TokenReason::UnreadableCredentials)?;
                // A client_id beside Basic is no second mechanism as long as it names the same client.
                if body_id.is_some_and(|other| other.as_bytes() != id.as_bytes()) {
                    return Err(TokenReason::SeveralCredentials);
                }
                Ok(Self { client_id: client_id(id)?, mechanism: Mechanism::Secret(secret.digest()) })
            }
            (None, Some(secret)) => {
                // OAUTH21-2.4.1-1
                let secret =
                    ClientSecret::new(secret).map_err(|_| TokenReason::Malformed("client_secret"))?;
                let id = body_id.ok_or(TokenReason::NoClient)?.to_string();
                Ok(Self { client_id: client_id(id)?, mechanism: Mechanism::Secret(secret.digest()) })
            }
            (None, None) => {
                let id = body_id.ok_or(TokenReason::NoClient)?.to_string();
                Ok(Self { client_id: client_id(id)?, mechanism: Mechanism::None })
            }
        }
    }

    /// The client the request names, to be looked up.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Checks the credentials against the record of the client they name.
    pub(crate) fn check(&self, found: ClientFound) -> Result<ClientAuthenticated, TokenReason> {
        if found.client_id != self.client_id {
            return Err(TokenReason::HostMisuse);
        }
        let record = found.record.ok_or(TokenReason::UnknownClient)?;
        match (self.mechanism, &record.credential) {
            // OAUTH21-2.2-1: named, not authenticated; what it may do rests on code, verifier or refresh token.
            (Mechanism::None, ClientCredential::None) => {}
            // OAUTH21-3.2.2-2
            (Mechanism::None, ClientCredential::Secret { .. }) => return Err(TokenReason::SecretMissing),
            // OAUTH21-3.2.2-3: credentials nobody asked for are checked all the same, and there is none to match.
            (Mechanism::Secret(_), ClientCredential::None) => return Err(TokenReason::SecretUnexpected),
            (Mechanism::Secret(presented), ClientCredential::Secret { digest, expires, .. }) => {
                // OAUTH21-2.4.1-6: digests of equal length, compared in constant time (I-G6).
                if presented != *digest {
                    return Err(TokenReason::SecretWrong);
                }
                if expires.is_some_and(|expires| found.now >= expires) {
                    return Err(TokenReason::SecretExpired);
                }
            }
        }
        Ok(ClientAuthenticated(Box::new(record)))
    }
}

/// The client of a request, its credentials checked against its record. Only [`PresentedCredentials::check`] makes one.
pub(crate) struct ClientAuthenticated(Box<ClientRecord>);

impl ClientAuthenticated {
    /// Which client.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.0.client_id
    }

    /// Whether the client is registered for a grant type.
    pub(crate) fn may_use(&self, grant_type: &str) -> bool {
        self.0.metadata.uses_grant_type(grant_type)
    }

    /// The scopes the client is registered for; `None` for one that named none.
    pub(crate) fn scope(&self) -> Option<&ScopeSet> {
        self.0.metadata.scope.as_ref()
    }
}

impl fmt::Debug for ClientAuthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientAuthenticated").field(&self.0.client_id).finish()
    }
}

/// Text outside the grammar names no client.
fn client_id(text: String) -> Result<ClientId, TokenReason> {
    ClientId::new(text).map_err(|_| TokenReason::UnknownClient)
}

impl fmt::Debug for PresentedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mechanism = match self.mechanism {
            Mechanism::None => "none",
            Mechanism::Secret(_) => "secret (redacted)",
        };
        f.debug_struct("PresentedCredentials")
            .field("client_id", &self.client_id)
            .field("mechanism", &mechanism)
            .finish()
    }
}
