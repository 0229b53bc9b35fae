//! The keys of an issuer: fetched in the beginning, again in time, and again for a token that names an unknown one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_authz::identifier::{Endpoint, Issuer};
use mcp_authz::jose::{KeyImporter, KeySet};
use mcp_authz::message::exchange::{AddressPolicy, Fetch};
use mcp_authz::resource_server::{
    AwaitingKeySet, Denial, FetchedKeys, KeyCache, KeyPlace, KeyPlaceFailure, KeySetFailure, MissingKey,
    fetch_key_set, find_key_set,
};
use mcp_authz::step::Step;
use mcp_authz::time::OffsetDateTime;
use tokio::sync::Notify;

use crate::client::fetch::Fetcher;
use crate::clock::Clock;

/// How long a request waits for a fetch of keys that another one began.
const WAIT: Duration = Duration::from_secs(10);

/// Where an issuer publishes its keys.
#[derive(Clone)]
pub struct KeySource {
    issuer: Issuer,
    jwks_uri: Endpoint,
    importer: Arc<dyn KeyImporter>,
    private_networks: bool,
}

impl KeySource {
    /// The keys of `issuer` at this URL, which comes from the host's configuration or the issuer's metadata.
    pub fn new(issuer: Issuer, jwks_uri: Endpoint, importer: Arc<dyn KeyImporter>) -> Self {
        Self { issuer, jwks_uri, importer, private_networks: false }
    }

    /// Lets the keys lie in the private networks the fetcher was built with.
    #[must_use]
    pub fn on_private_networks(mut self) -> Self {
        self.private_networks = true;
        self
    }

    /// The keys of `issuer` where its metadata says they are. The issuer is asked now, once.
    ///
    /// # Errors
    /// [`KeyPlaceFailure`]; none of what was read is used.
    pub async fn discover(
        issuer: Issuer,
        fetcher: &Fetcher,
        importer: Arc<dyn KeyImporter>,
    ) -> Result<Self, KeyPlaceFailure> {
        let jwks_uri = Self::place(&issuer, fetcher, false).await?;
        Ok(Self::new(issuer, jwks_uri, importer))
    }

    /// As [`KeySource::discover`], where the issuer and its keys may lie in the private networks the fetcher was built with.
    ///
    /// # Errors
    /// As [`KeySource::discover`].
    pub async fn discover_on_private_networks(
        issuer: Issuer,
        fetcher: &Fetcher,
        importer: Arc<dyn KeyImporter>,
    ) -> Result<Self, KeyPlaceFailure> {
        let jwks_uri = Self::place(&issuer, fetcher, true).await?;
        Ok(Self::new(issuer, jwks_uri, importer).on_private_networks())
    }

    async fn place(issuer: &Issuer, fetcher: &Fetcher, private: bool) -> Result<Endpoint, KeyPlaceFailure> {
        let addresses = addresses(issuer.is_loopback(), private);
        let mut step = find_key_set(issuer.clone(), addresses)?;
        loop {
            let (fetch, waiting) = step.into_parts();
            match waiting.receive(fetcher.fetch(&fetch).await)? {
                KeyPlace::Next(next) => step = next,
                KeyPlace::Found(jwks_uri) => return Ok(jwks_uri),
            }
        }
    }

    /// Whose keys.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Loopback is reached only for an issuer on loopback.
    pub(super) fn addresses(&self) -> AddressPolicy {
        addresses(self.issuer.is_loopback() && self.jwks_uri.is_loopback(), self.private_networks)
    }

    /// Fetches the set once: whole, or not at all.
    ///
    /// # Errors
    /// [`KeySetFailure`]; the keys there are stay in force.
    pub async fn fetch(&self, fetcher: &Fetcher) -> Result<KeySet, KeySetFailure> {
        let step = fetch_key_set(self.issuer.clone(), &self.jwks_uri, self.addresses());
        let (fetch, waiting) = step.into_parts();
        let reply = fetcher.fetch(&fetch).await;
        waiting.receive(reply, &*self.importer).map(|(_, keys)| keys)
    }
}

/// I-L8: where an issuer of the configuration is looked for.
fn addresses(loopback: bool, private_networks: bool) -> AddressPolicy {
    match (loopback, private_networks) {
        (true, _) => AddressPolicy::Loopback,
        (false, true) => AddressPolicy::PublicAndPrivateNetworks,
        (false, false) => AddressPolicy::Public,
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

/// The core's schedule of one issuer's keys, with those who wait for a fetch.
pub(super) struct KeyRefresh {
    issuer: Issuer,
    cache: Mutex<KeyCache>,
    importer: Arc<dyn KeyImporter>,
    fetched: Notify,
}

impl KeyRefresh {
    pub(super) fn new(source: KeySource) -> Self {
        let addresses = source.addresses();
        let issuer = source.issuer.clone();
        let cache = KeyCache::new(source.issuer, source.jwks_uri, addresses);
        Self { issuer, cache: Mutex::new(cache), importer: source.importer, fetched: Notify::new() }
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    fn cache(&self) -> MutexGuard<'_, KeyCache> {
        // Every change is made in one call, so that a poisoned lock still holds a whole schedule.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timed refresh, if it is due.
    pub(super) fn timed(&self, now: OffsetDateTime) -> Option<Step<Fetch, AwaitingKeySet>> {
        self.cache().timed(now)
    }

    /// What a denial calls for.
    pub(super) fn missing(&self, denial: &Denial, now: OffsetDateTime) -> MissingKey {
        self.cache().missing(denial, now)
    }

    /// Waits until the fetch under way is over.
    pub(super) async fn wait(&self, now: OffsetDateTime) {
        let mut over = std::pin::pin!(self.fetched.notified());
        // Whoever is told after this line is told while it waits.
        over.as_mut().enable();
        if self.cache().is_under_way(now) {
            let _ = tokio::time::timeout(WAIT, over).await;
        }
    }

    /// Carries a fetch out, and puts what came of it in force before anybody who waits goes on.
    pub(super) async fn fetch(
        &self,
        step: Step<Fetch, AwaitingKeySet>,
        fetcher: &Fetcher,
        clock: &dyn Clock,
        put_in_force: impl FnOnce(&FetchedKeys),
    ) -> Result<(), KeySetFailure> {
        let (fetch, waiting) = step.into_parts();
        // Whatever becomes of it, a panic of the importer among that.
        let _over = Over(&self.fetched);
        let reply = fetcher.fetch(&fetch).await;
        let mut cache = self.cache();
        // D42: whoever sees that this fetch is over sees its keys.
        cache.receive(waiting, reply, &*self.importer, clock.now()).map(|keys| put_in_force(&keys))
    }
}

/// Tells those who wait for a fetch that it is over, when it is dropped.
struct Over<'a>(&'a Notify);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}
