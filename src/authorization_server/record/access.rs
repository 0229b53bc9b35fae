//! An opaque access token as it is stored.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{GrantRecord, InvalidRecord, Members, Written};
use crate::identifier::ScopeSet;
use crate::time::OffsetDateTime;

/// An opaque access token, kept under its digest.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AccessRecord {
    /// What it was issued under.
    pub grant: Arc<GrantRecord>,
    /// What it may be used for: a part of the grant's scope.
    pub scope: ScopeSet,
    /// When it was issued.
    pub issued: OffsetDateTime,
    /// When it ends.
    pub expires: OffsetDateTime,
}

impl AccessRecord {
    /// The stored form, which does not have the grant: a store keeps that once for all tokens of its family.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written::new("access")
            .scope("scope", &self.scope)
            .time("issued", self.issued)
            .time("expires", self.expires)
            .finish()
    }

    /// Reads the stored form of a token of that grant's family.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8], grant: Arc<GrantRecord>) -> Result<Self, InvalidRecord> {
        let members = Members::of("access", bytes)?;
        Ok(Self {
            grant,
            scope: members.scope("scope")?,
            issued: members.time("issued")?,
            expires: members.time("expires")?,
        })
    }
}
