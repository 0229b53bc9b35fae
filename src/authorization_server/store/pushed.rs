//! Pushed authorization requests (RFC 9126): stored before the browser comes.

use super::{ActionId, Insertion, SecretDigest};
use crate::authorization_server::record::PushedRecord;
use crate::entropy::{Entropy, EntropyUnavailable};
use crate::time::OffsetDateTime;

/// Inserts a pushed request.
#[must_use = "the request is known only once this is carried out"]
#[derive(Debug)]
pub struct InsertPushed {
    id: ActionId,
    key: SecretDigest,
    record: PushedRecord,
    of_operator: bool,
}

/// That [`InsertPushed`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct PushedInsertion {
    pub(crate) id: ActionId,
    pub(crate) outcome: Insertion,
}

impl InsertPushed {
    pub(crate) fn new(
        key: SecretDigest,
        record: PushedRecord,
        of_operator: bool,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, ActionId), EntropyUnavailable> {
        let (id, twin) = ActionId::pair(entropy)?;
        Ok((Self { id, key, record, of_operator }, twin))
    }

    /// The key: the digest of the request URI.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// The row.
    pub fn record(&self) -> &PushedRecord {
        &self.record
    }

    /// Whether a client of the operator pushed it, and has proved that it did. These are counted apart from all others: room
    /// for one kind does not depend on how many of the other wait (I-P7).
    pub fn is_of_operator(&self) -> bool {
        self.of_operator
    }

    /// It is stored.
    pub fn inserted(self) -> PushedInsertion {
        PushedInsertion { id: self.id, outcome: Insertion::Done }
    }

    /// As many requests of its kind wait as may, all of other clients (I-P7); nothing was changed.
    pub fn full(self) -> PushedInsertion {
        PushedInsertion { id: self.id, outcome: Insertion::Full }
    }
}

/// Reads a pushed request. It is consumed later, when the person has been shown what it asks for.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadPushed {
    key: SecretDigest,
}

/// What [`ReadPushed`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct PushedFound {
    pub(crate) key: SecretDigest,
    pub(crate) record: Option<PushedRecord>,
    pub(crate) now: OffsetDateTime,
}

impl ReadPushed {
    pub(crate) fn new(key: SecretDigest) -> Self {
        Self { key }
    }

    /// The key.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// It waits.
    pub fn found(self, record: PushedRecord, now: OffsetDateTime) -> PushedFound {
        PushedFound { key: self.key, record: Some(record), now }
    }

    /// There is none, or it was consumed.
    pub fn absent(self, now: OffsetDateTime) -> PushedFound {
        PushedFound { key: self.key, record: None, now }
    }
}
