//! Registrations that their clients manage (RFC 7592).

use alloc::boxed::Box;

use super::{ActionId, SecretDigest};
use crate::authorization_server::record::ClientRecord;
use crate::entropy::{Entropy, EntropyUnavailable};
use crate::identifier::ClientId;

/// Replaces the record of a client that manages its registration.
#[must_use = "the registration is changed only once this is carried out"]
#[derive(Debug)]
pub struct UpdateClient {
    id: ActionId,
    expected: SecretDigest,
    record: Box<ClientRecord>,
}

/// That [`UpdateClient`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct ClientUpdate {
    pub(crate) id: ActionId,
    pub(crate) outcome: UpdateOutcome,
}

/// The result of a conditional write on a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateOutcome {
    Done,
    Changed,
}

impl UpdateClient {
    pub(crate) fn new(
        expected: SecretDigest,
        record: ClientRecord,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, expected, record: Box::new(record) }, twin))
    }

    /// The SHA-256 of the stored form that is replaced; another one there is [`UpdateClient::changed`].
    pub fn expected(&self) -> SecretDigest {
        self.expected
    }

    /// The new row; its key is the client's identifier.
    pub fn record(&self) -> &ClientRecord {
        &self.record
    }

    /// It is replaced.
    pub fn updated(self) -> ClientUpdate {
        ClientUpdate { id: self.id, outcome: UpdateOutcome::Done }
    }

    /// The client is gone or was changed in between; nothing was changed.
    pub fn changed(self) -> ClientUpdate {
        ClientUpdate { id: self.id, outcome: UpdateOutcome::Changed }
    }
}

/// Deletes a client that manages its registration, and ends all its grants by moving the client's epoch.
#[must_use = "the client is gone only once this is carried out"]
#[derive(Debug)]
pub struct DeleteClient {
    id: ActionId,
    expected: SecretDigest,
    client_id: ClientId,
}

/// That [`DeleteClient`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct ClientDeletion {
    pub(crate) id: ActionId,
    pub(crate) outcome: UpdateOutcome,
}

impl DeleteClient {
    pub(crate) fn new(
        expected: SecretDigest,
        client_id: ClientId,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, expected, client_id }, twin))
    }

    /// The SHA-256 of the stored form that is deleted; another one there is [`DeleteClient::changed`].
    pub fn expected(&self) -> SecretDigest {
        self.expected
    }

    /// The client.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The row is gone and the client's epoch has moved.
    pub fn deleted(self) -> ClientDeletion {
        ClientDeletion { id: self.id, outcome: UpdateOutcome::Done }
    }

    /// The client is gone or was changed in between; nothing was changed.
    pub fn changed(self) -> ClientDeletion {
        ClientDeletion { id: self.id, outcome: UpdateOutcome::Changed }
    }
}
