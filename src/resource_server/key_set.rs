//! Fetching an issuer's keys: waits for the document at its `jwks_uri` (RFC 7517 section 5, RFC 8414 section 2).
//!
//! The URL is the host's configuration or the issuer's metadata, never a token's (I-A4). A document that cannot be
//! used never replaces a good set (D42): the failure leaves the configured keys as they are.

use alloc::boxed::Box;

use crate::identifier::{Endpoint, Issuer};
use crate::jose::{InvalidKeySet, JwkSet, KeyImporter, KeySet};
use crate::limits;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, FetchPolicy, FetchPurpose, Reply};
use crate::step::Step;

/// Asks for the keys of an issuer. Hand what comes of it to
/// [`ResourceServer::with_replaced_keys`](super::ResourceServer::with_replaced_keys).
pub fn fetch_key_set(
    issuer: Issuer,
    jwks_uri: &Endpoint,
    addresses: AddressPolicy,
) -> Step<Fetch, AwaitingKeySet> {
    let policy = FetchPolicy::new(addresses, limits::DOCUMENT_BYTES);
    let fetch = Fetch::get(FetchPurpose::KeySet, jwks_uri.as_str(), policy);
    Step::new(fetch, AwaitingKeySet(Box::new(issuer)))
}

/// Waits for a key set document.
#[derive(Debug)]
#[must_use = "the keys come with the reply"]
pub struct AwaitingKeySet(Box<Issuer>);

/// Why the keys of an issuer cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetFailure {
    /// The fetch brought no reply.
    #[error("{0}")]
    Fetch(#[from] FetchFailure),
    /// The reply is no 200, a redirect among them.
    #[error("the key set is not there (status {0})")]
    Status(u16),
    /// The document is no usable key set.
    #[error("{0}")]
    Invalid(#[from] InvalidKeySet),
}

impl AwaitingKeySet {
    /// The issuer whose keys are awaited.
    pub fn issuer(&self) -> &Issuer {
        &self.0
    }

    /// Takes the reply: the whole set, or nothing.
    ///
    /// # Errors
    /// [`KeySetFailure`]; keep the keys there are.
    pub fn receive(
        self,
        reply: Result<Reply, FetchFailure>,
        importer: &dyn KeyImporter,
    ) -> Result<(Issuer, KeySet), KeySetFailure> {
        let reply = reply?;
        if reply.status() != 200 {
            return Err(KeySetFailure::Status(reply.status()));
        }
        let document = JwkSet::parse(reply.body()).map_err(InvalidKeySet::from)?;
        Ok((*self.0, KeySet::import(&document, importer)?))
    }
}
