//! Registrations that their clients manage (RFC 7592): read, change, end.
//!
//! ```text
//!   AuthorizationServer::manage
//!      │ FindClient
//!   AwaitingManaged ─── GET ──────────────────────────────▶ Respond 200
//!      │ PUT: UpdateClient            │ DELETE: DeleteClient
//!   AwaitingClientUpdated             AwaitingClientDeleted
//!   Respond 200                       Respond 204
//! ```
//!
//! The registration access token is the whole of the authorization. The server keeps its digest, and of the client's
//! secret too: neither is told again, but the token that was just presented is repeated, as the RFC wants it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::AuthorizationServer;
use super::authorization::ForeignReceipt;
use super::record::{ClientCredential, ClientOrigin, ClientRecord};
use super::registration::{RegistrationReason, bearer, read_metadata};
use super::store::{
    ActionId, ClientDeletion, ClientFound, ClientUpdate, DeleteClient, FindClient, UpdateClient,
    UpdateOutcome,
};
use crate::entropy::Entropy;
use crate::identifier::{ClientId, Endpoint};
use crate::limits;
use crate::message::client_metadata::{
    ClientMetadata, IssuedSecret, RegistrationManagement, RegistrationResponse,
};
use crate::message::exchange::{RequestHead, Respond};
use crate::secret::{ClientSecret, RegistrationToken, SecretDigest};
use crate::step::{Failed, Step};
use crate::syntax::json::JsonObject;

/// What the client wants of its registration.
#[derive(Debug)]
enum Wanted {
    Read,
    Update(Vec<u8>),
    Delete,
}

impl AuthorizationServer {
    /// A request at a client's own registration, below the registration endpoint: the client identifier of the path, the
    /// head, and the body, read up to [`limits::REGISTRATION_BYTES`].
    ///
    /// # Errors
    /// The answer that goes out at once, when nothing here is managed, no token is presented, or an update is not
    /// acceptable.
    pub fn manage(
        &self,
        client_id: &str,
        head: &RequestHead,
        body: &[u8],
    ) -> Result<Step<FindClient, AwaitingManaged>, Respond> {
        if !self.manages_registrations() {
            return Err(Respond::new(404).with_header("cache-control", "no-store"));
        }
        let token = bearer(head).ok_or_else(not_authorized)?;
        let client_id = ClientId::new(client_id).map_err(|_| not_authorized())?;
        let wanted = match head.method() {
            "GET" => Wanted::Read,
            "DELETE" => Wanted::Delete,
            // Read once the client is who it says: nothing is told to others, not even what is wrong with their body.
            "PUT" => Wanted::Update(body.get(..=limits::REGISTRATION_BYTES).unwrap_or(body).to_vec()),
            // RFC7592-2.1-2
            _ => return Err(Respond::new(405).with_header("allow", "GET, PUT, DELETE")),
        };
        let find = FindClient::new(client_id);
        let inner = Inner { server: self.clone(), token, wanted };
        Ok(Step::new(find, AwaitingManaged(Box::new(inner))))
    }

    /// Where a client manages its registration.
    pub(super) fn management_uri(&self, client_id: &ClientId) -> Result<Endpoint, RegistrationReason> {
        // Our own identifiers are base64url: nothing in them needs an escape.
        let uri = [self.shared.inner.registration_endpoint.as_str(), "/", client_id.as_str()].concat();
        Endpoint::new(uri).map_err(|_| RegistrationReason::Unavailable)
    }
}

/// The metadata of an update, which names the client and chooses nothing that is the server's to choose.
fn updated(client_id: &ClientId, body: &[u8]) -> Result<ClientMetadata, RegistrationReason> {
    let metadata = read_metadata(body)?;
    let wrong = |member| RegistrationReason::Malformed(crate::message::Malformed::Invalid(member));
    let object = JsonObject::parse(body, limits::REGISTRATION_BYTES)
        .map_err(|_| RegistrationReason::Malformed(crate::message::Malformed::Invalid("body")))?;
    // RFC 7592 section 2.2: the client says which registration it means, and repeats nothing of the server's.
    if object.string("client_id") != Ok(Some(client_id.as_str())) {
        return Err(wrong("client_id"));
    }
    // RFC7592-2.2-2: not even the secret it has, because the server could not tell it from another.
    for name in [
        "client_secret",
        "client_secret_expires_at",
        "client_id_issued_at",
        "registration_access_token",
        "registration_client_uri",
    ] {
        if object.get(name).is_some() {
            return Err(RegistrationReason::Malformed(crate::message::Malformed::Forbidden(name)));
        }
    }
    Ok(metadata)
}

/// The answer to everybody without the right token, whether or not there is such a client (RFC 6750 section 3).
fn not_authorized() -> Respond {
    // RFC7592-2.1-2
    Respond::new(401)
        .with_header("www-authenticate", "Bearer realm=\"registration\", error=\"invalid_token\"")
        .with_header("cache-control", "no-store")
}

/// Waits for the record of the client whose registration it is.
#[must_use = "the client waits for an answer"]
pub struct AwaitingManaged(Box<Inner>);

struct Inner {
    server: AuthorizationServer,
    token: RegistrationToken,
    wanted: Wanted,
}

impl fmt::Debug for AwaitingManaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitingManaged").field("token", &self.0.token).finish_non_exhaustive()
    }
}

/// What follows on the client's record.
#[must_use = "the request goes on from here, or is answered"]
#[derive(Debug)]
pub enum ManagementOutcome {
    /// Next the registration is replaced.
    Update(Step<UpdateClient, AwaitingClientUpdated>),
    /// Next the registration ends.
    Delete(Step<DeleteClient, AwaitingClientDeleted>),
    /// Answer with this.
    Answer(Respond),
}

impl AwaitingManaged {
    /// The store has looked the client up.
    pub fn found(self, found: ClientFound, entropy: &mut dyn Entropy) -> ManagementOutcome {
        self.0.judge(found, entropy).unwrap_or_else(ManagementOutcome::Answer)
    }

    /// The store could not be read.
    pub fn store_failed(self) -> Respond {
        RegistrationReason::Unavailable.respond()
    }
}

impl Inner {
    fn judge(self, found: ClientFound, entropy: &mut dyn Entropy) -> Result<ManagementOutcome, Respond> {
        // RFC7592-2.1-2: an unknown client is answered like a wrong token (I-T8).
        let record = Arc::unwrap_or_clone(found.record.ok_or_else(not_authorized)?);
        let presented = self.token.digest();
        let registered = record.origin == ClientOrigin::Registered;
        // I-G6: digests of equal length, compared in constant time.
        if !registered || record.management.is_none_or(|digest| digest != presented) {
            return Err(not_authorized());
        }
        let unavailable = |_| RegistrationReason::Unavailable.respond();
        let expected = SecretDigest::of(&record.to_bytes());
        match self.wanted {
            Wanted::Read => {
                let answer = Answer { server: self.server, token: self.token };
                Ok(ManagementOutcome::Answer(answer.respond(&record, None)?))
            }
            Wanted::Delete => {
                let (delete, id) =
                    DeleteClient::new(expected, record.client_id, entropy).map_err(unavailable)?;
                Ok(ManagementOutcome::Delete(Step::new(delete, AwaitingClientDeleted(Box::new(id)))))
            }
            // RFC7592-2.2-2: what is left out is cleared.
            Wanted::Update(body) => {
                let metadata = updated(&record.client_id, &body).map_err(|reason| reason.respond())?;
                let same_method =
                    metadata.token_endpoint_auth_method.as_deref() == Some(record.credential.method());
                let has_keys = metadata.jwks.is_some() || metadata.jwks_uri.is_some();
                let keeps = same_method && (has_keys || record.credential != ClientCredential::PrivateKey);
                let (credential, secret) = if keeps {
                    (record.credential.clone(), None)
                } else {
                    self.server.credential(&metadata, entropy).map_err(|reason| reason.respond())?
                };
                let updated = ClientRecord { credential, metadata, ..record };
                let answer = Answer { server: self.server, token: self.token };
                let response = answer.respond(&updated, secret)?;
                let (update, id) = UpdateClient::new(expected, updated, entropy).map_err(unavailable)?;
                let waiting = AwaitingClientUpdated(Box::new((id, response)));
                Ok(ManagementOutcome::Update(Step::new(update, waiting)))
            }
        }
    }
}

/// What every answer about a registration holds beside the registration.
struct Answer {
    server: AuthorizationServer,
    token: RegistrationToken,
}

impl Answer {
    fn respond(self, record: &ClientRecord, secret: Option<ClientSecret>) -> Result<Respond, Respond> {
        let uri = self.server.management_uri(&record.client_id).map_err(|reason| reason.respond())?;
        let response = RegistrationResponse {
            client_id: record.client_id.clone(),
            client_id_issued_at: u64::try_from(record.created.unix_timestamp()).ok(),
            client_secret: secret.map(|secret| IssuedSecret { secret, expires_at: 0 }),
            // RFC7592-3-1
            management: Some(RegistrationManagement { uri, token: self.token }),
            metadata: record.metadata.clone(),
        };
        Ok(Respond::json(200, response.render()).with_header("cache-control", "no-store"))
    }
}

/// Waits until the store has replaced the registration.
#[must_use = "the client waits for an answer"]
pub struct AwaitingClientUpdated(Box<(ActionId, Respond)>);

impl fmt::Debug for AwaitingClientUpdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AwaitingClientUpdated").field(&String::from("redacted")).finish()
    }
}

impl AwaitingClientUpdated {
    /// The store has carried it out, or the registration was changed in between.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn updated(self, receipt: ClientUpdate) -> Result<Respond, Failed<Self, ForeignReceipt>> {
        if receipt.id != self.0.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        Ok(match receipt.outcome {
            UpdateOutcome::Done => self.0.1,
            UpdateOutcome::Changed => RegistrationReason::Unavailable.respond(),
        })
    }

    /// The store failed.
    pub fn store_failed(self) -> Respond {
        RegistrationReason::Unavailable.respond()
    }
}

/// Waits until the store has ended the registration, and every grant of the client with it.
#[must_use = "the client waits for an answer"]
#[derive(Debug)]
pub struct AwaitingClientDeleted(Box<ActionId>);

impl AwaitingClientDeleted {
    /// The store has carried it out, or the registration was changed in between.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn deleted(self, receipt: ClientDeletion) -> Result<Respond, Failed<Self, ForeignReceipt>> {
        if receipt.id != *self.0 {
            return Err(Failed::new(ForeignReceipt, self));
        }
        Ok(match receipt.outcome {
            // RFC7592-2.3-1, RFC7592-2.3-2: the transaction ended the grants too.
            UpdateOutcome::Done => Respond::new(204).with_header("cache-control", "no-store"),
            UpdateOutcome::Changed => RegistrationReason::Unavailable.respond(),
        })
    }

    /// The store failed.
    pub fn store_failed(self) -> Respond {
        RegistrationReason::Unavailable.respond()
    }
}
