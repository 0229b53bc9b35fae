//! Reading what an access token stands for: its own row, or the grant it came of.

use alloc::sync::Arc;

use super::SecretDigest;
use crate::authorization_server::record::{AccessRecord, FamilyId, GrantRecord};
use crate::time::OffsetDateTime;

/// Reads an opaque access token.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadAccess {
    digest: SecretDigest,
}

/// What [`ReadAccess`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct AccessFound {
    pub(crate) digest: SecretDigest,
    pub(crate) record: Option<Arc<AccessRecord>>,
    pub(crate) now: OffsetDateTime,
}

impl ReadAccess {
    pub(crate) fn new(digest: SecretDigest) -> Self {
        Self { digest }
    }

    /// The key.
    pub fn digest(&self) -> SecretDigest {
        self.digest
    }

    /// It is there, and its family is active under today's epochs.
    pub fn found(self, record: impl Into<Arc<AccessRecord>>, now: OffsetDateTime) -> AccessFound {
        AccessFound { digest: self.digest, record: Some(record.into()), now }
    }

    /// There is none, or its family is revoked.
    pub fn absent(self, now: OffsetDateTime) -> AccessFound {
        AccessFound { digest: self.digest, record: None, now }
    }
}

/// Reads a grant by its family.
#[must_use = "the state waits for what was found"]
#[derive(Debug)]
pub struct ReadGrant {
    family: FamilyId,
}

/// What [`ReadGrant`] found.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct GrantFound {
    pub(crate) family: FamilyId,
    pub(crate) record: Option<Arc<GrantRecord>>,
    pub(crate) now: OffsetDateTime,
}

impl ReadGrant {
    pub(crate) fn new(family: FamilyId) -> Self {
        Self { family }
    }

    /// The key.
    pub fn family(&self) -> FamilyId {
        self.family
    }

    /// It is there, and its family is active under today's epochs.
    pub fn found(self, record: impl Into<Arc<GrantRecord>>, now: OffsetDateTime) -> GrantFound {
        // A store that answers with another family's grant has found nothing.
        let record = Some(record.into()).filter(|record| record.family == self.family);
        GrantFound { family: self.family, record, now }
    }

    /// There is none, or its family is revoked.
    pub fn absent(self, now: OffsetDateTime) -> GrantFound {
        GrantFound { family: self.family, record: None, now }
    }
}
