//! The keys of an issuer: fetched at the start, and again for a token that names an unknown one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mcp_authz::identifier::{Endpoint, Issuer};
use mcp_authz::jose::{KeyImporter, KeySet};
use mcp_authz::message::exchange::AddressPolicy;
use mcp_authz::resource_server::{KeySetFailure, fetch_key_set};

use crate::client::fetch::Fetcher;

/// The least time between two fetches for unknown keys of one issuer (D42): tokens with invented key names must not
/// turn this server against the issuer.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(60);

/// Where an issuer publishes its keys.
#[derive(Clone)]
pub struct KeySource {
    issuer: Issuer,
    jwks_uri: Endpoint,
    importer: Arc<dyn KeyImporter>,
}

impl KeySource {
    /// The keys of `issuer` at this URL, which comes from the host's configuration or the issuer's metadata.
    pub fn new(issuer: Issuer, jwks_uri: Endpoint, importer: Arc<dyn KeyImporter>) -> Self {
        Self { issuer, jwks_uri, importer }
    }

    /// Whose keys.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Fetches the set: whole, or not at all. Loopback is reached only for an issuer on loopback.
    ///
    /// # Errors
    /// [`KeySetFailure`]; the keys there are stay in force.
    pub async fn fetch(&self, fetcher: &Fetcher) -> Result<KeySet, KeySetFailure> {
        let loopback = self.issuer.is_loopback() && self.jwks_uri.is_loopback();
        let addresses = if loopback { AddressPolicy::Loopback } else { AddressPolicy::Public };
        let step = fetch_key_set(self.issuer.clone(), &self.jwks_uri, addresses);
        let (fetch, waiting) = step.into_parts();
        let reply = fetcher.fetch(&fetch).await;
        waiting.receive(reply, &*self.importer).map(|(_, keys)| keys)
    }
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySource")
            .field("issuer", &self.issuer)
            .field("jwks_uri", &self.jwks_uri)
            .finish_non_exhaustive()
    }
}

/// The budget of fetches for unknown keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeyRefresh {
    source: KeySource,
    last: Mutex<Option<Instant>>,
}

impl KeyRefresh {
    pub(super) fn new(source: KeySource) -> Self {
        Self { source, last: Mutex::new(None) }
    }

    pub(super) fn issuer(&self) -> &Issuer {
        self.source.issuer()
    }

    pub(super) fn source(&self) -> &KeySource {
        &self.source
    }

    /// Takes one fetch out of the budget, if there is one.
    pub(super) fn may_fetch_unknown(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < UNKNOWN_KEY_INTERVAL) {
            return false;
        }
        *last = Some(Instant::now());
        true
    }
}
