//! An opaque access token as it is stored.

use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{GrantRecord, InvalidRecord, envelope, grant, opened, scope, time};
use crate::identifier::ScopeSet;
use crate::syntax::json::JsonValue;
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
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        envelope("access")
            .value("grant", JsonValue::Object(self.grant.to_object()))
            .string("scope", self.scope.to_string())
            .integer("issued", self.issued.unix_timestamp())
            .integer("expires", self.expires.unix_timestamp())
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let object = opened("access", bytes)?;
        Ok(Self {
            grant: grant(&object)?,
            scope: scope(&object)?,
            issued: time(&object, "issued")?,
            expires: time(&object, "expires")?,
        })
    }
}
