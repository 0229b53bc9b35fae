//! What a person wanted remembered, and the key that ties it to exactly what was shown.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Epochs, InvalidRecord, Members, Written};
use crate::identifier::{ClientId, RedirectUri, ResourceId, ScopeSet};
use crate::secret::SecretDigest;
use crate::time::OffsetDateTime;

/// A consent to be honoured again for the identical person, client, redirect URI, resource and client metadata (I-P2).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsentRecord {
    /// The person.
    pub subject: Arc<str>,
    /// The client.
    pub client_id: ClientId,
    /// Where the answers go.
    pub redirect_uri: RedirectUri,
    /// The resource.
    pub resource: ResourceId,
    /// The client's metadata when the person agreed.
    pub metadata_digest: SecretDigest,
    /// What the person agreed to.
    pub scope: ScopeSet,
    /// The epochs under which it was given.
    pub epochs: Epochs,
    /// When the person is asked again.
    pub not_after: OffsetDateTime,
}

impl ConsentRecord {
    /// The key: a digest of every part, each with its length, so that no two combinations share one.
    pub fn key(&self) -> SecretDigest {
        let parts: [&[u8]; 5] = [
            self.subject.as_bytes(),
            self.client_id.as_str().as_bytes(),
            self.redirect_uri.as_str().as_bytes(),
            self.resource.as_str().as_bytes(),
            self.metadata_digest.as_bytes(),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        SecretDigest::of(&bytes)
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        Written::new("consent")
            .string("subject", &self.subject)
            .string("client_id", self.client_id.as_str())
            .string("redirect_uri", self.redirect_uri.as_str())
            .string("resource", self.resource.as_str())
            .bytes("metadata_digest", self.metadata_digest.as_bytes())
            .scope("scope", &self.scope)
            .epochs(self.epochs)
            .time("not_after", self.not_after)
            .finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`InvalidRecord`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let members = Members::of("consent", bytes)?;
        Ok(Self {
            subject: members.subject()?,
            client_id: members.parsed("client_id", ClientId::new)?,
            redirect_uri: members.redirect_uri()?,
            resource: members.parsed("resource", ResourceId::new)?,
            metadata_digest: members.digest("metadata_digest")?,
            scope: members.scope("scope")?,
            epochs: members.epochs()?,
            not_after: members.time("not_after")?,
        })
    }
}
