//! What a person wanted remembered.

use super::SecretDigest;
use crate::authorization_server::record::{ConsentRecord, Epochs};
use crate::time::OffsetDateTime;

/// Reads a remembered consent.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadConsent {
    key: SecretDigest,
}

/// What [`ReadConsent`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct ConsentFound {
    pub(crate) key: SecretDigest,
    pub(crate) record: Option<(ConsentRecord, Epochs)>,
    pub(crate) now: OffsetDateTime,
}

impl ReadConsent {
    pub(crate) fn new(key: SecretDigest) -> Self {
        Self { key }
    }

    /// The key.
    pub fn key(&self) -> SecretDigest {
        self.key
    }

    /// It is there. `epochs` are today's of its client, its person and their consent, read in the same transaction.
    pub fn found(self, record: ConsentRecord, epochs: Epochs, now: OffsetDateTime) -> ConsentFound {
        ConsentFound { key: self.key, record: Some((record, epochs)), now }
    }

    /// There is none.
    pub fn absent(self, now: OffsetDateTime) -> ConsentFound {
        ConsentFound { key: self.key, record: None, now }
    }
}
