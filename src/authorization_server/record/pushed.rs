//! A pushed authorization request as it is stored.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{InvalidRecord, Members, Written};
use crate::identifier::ClientId;
use crate::time::OffsetDateTime;

/// A pushed authorization request (RFC 9126), kept under the digest of its request URI.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct PushedRecord {
    /// The client that pushed it, authenticated then.
    pub client_id: ClientId,
    /// The request as a query, to be read and checked again when the browser comes.
    pub query: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl PushedRecord {
    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written::new("pushed")
            .string("client_id", self.client_id.as_str())
            .string("query", &self.query)
            .time("not_after", self.not_after)
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let members = Members::of("pushed", bytes)?;
        Ok(Self {
            client_id: members.parsed("client_id", ClientId::new)?,
            query: String::from(members.required("query")?),
            not_after: members.time("not_after")?,
        })
    }
}

impl fmt::Debug for PushedRecord {
    /// Without the query: its `state` is the client's secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushedRecord")
            .field("client_id", &self.client_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
