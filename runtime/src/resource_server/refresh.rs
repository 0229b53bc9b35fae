//! Keeping the keys of the issuers: when a request makes the layer fetch them, and what it waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mcp_authz::identifier::Issuer;
use mcp_authz::message::exchange::Fetch;
use mcp_authz::resource_server::{
    AwaitingKeySet, Denial, DenialReason, FetchedKeys, InvalidConfiguration, MissingKey,
};
use mcp_authz::step::Step;
use mcp_authz::time::OffsetDateTime;

use super::{Resource, ResourceEvent, Shared};

/// How often the schedules of the keys are looked at, in seconds: often enough for their shortest interval.
const KEY_CHECK_SECONDS: i64 = 5;

impl Shared {
    /// Every issuer whose keys are to be fetched has one source, and every source an issuer.
    pub(super) fn check_key_sources(&self) -> Result<(), InvalidConfiguration> {
        // I-G8
        let sources_of = |issuer: &Issuer| self.keys.iter().filter(|keys| keys.issuer() == issuer).count();
        for keys in &self.keys {
            if sources_of(keys.issuer()) > 1 {
                return Err(InvalidConfiguration::Issuers);
            }
            if !self.resources().any(|resource| resource.server().verifies_by_keys_of(keys.issuer())) {
                return Err(InvalidConfiguration::UnknownIssuer);
            }
        }
        let somewhere =
            |resource: &Resource| resource.server().awaited_keys().all(|issuer| sources_of(issuer) > 0);
        if self.resources().all(somewhere) { Ok(()) } else { Err(InvalidConfiguration::KeysNowhere) }
    }

    /// Begins the timed refresh of whichever keys are due. The request does not wait: the keys there are still hold.
    pub(super) fn refresh_due_keys(self: &Arc<Self>) {
        let now = self.clock.now();
        let second = now.unix_timestamp();
        let at = self.key_check.load(Ordering::Relaxed);
        // One request in a few seconds looks, so that the cost does not grow with the number of issuers.
        if self.keys.is_empty()
            // A clock that was set back does not keep the schedules from being looked at.
            || (second < at && at <= second.saturating_add(KEY_CHECK_SECONDS))
            || self
                .key_check
                .compare_exchange(
                    at,
                    second.saturating_add(KEY_CHECK_SECONDS),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_err()
        {
            return;
        }
        for at in 0..self.keys.len() {
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.refresh_timed(at, now).await });
        }
    }

    async fn refresh_timed(&self, at: usize, now: OffsetDateTime) {
        if let Some(step) = self.keys.get(at).and_then(|keys| keys.timed(now)) {
            self.fetch_keys(at, step).await;
        }
    }

    async fn fetch_keys(&self, at: usize, step: Step<Fetch, AwaitingKeySet>) -> bool {
        let Some(keys) = self.keys.get(at) else { return false };
        self.counter.count(|counts| &mut counts.key_fetches);
        self.observe(ResourceEvent::FetchingKeys(keys.issuer()));
        let fetched =
            keys.fetch(step, &self.fetcher, &*self.clock, |fetched| self.put_in_force(fetched)).await;
        if let Err(error) = &fetched {
            tracing::warn!(issuer = %keys.issuer(), %error, "the keys of an issuer could not be fetched");
        }
        fetched.is_ok()
    }

    fn put_in_force(&self, fetched: &FetchedKeys) {
        for resource in self.resources() {
            // Another resource may not trust this issuer: then there is nothing to change.
            let _ = resource.change(|server| server.with_fetched_keys(fetched));
        }
        self.key_changes.fetch_add(1, Ordering::Release);
    }

    /// Whether the denial was for want of a key, and keys were put in force since `seen` was read: by another request, or
    /// because this one fetched them.
    pub(super) async fn has_new_keys(self: &Arc<Self>, denial: &Denial, seen: u64) -> bool {
        if !matches!(denial.reason(), DenialReason::UnknownKey | DenialReason::KeysUnavailable) {
            return false;
        }
        let at = self.keys.iter().position(|keys| Some(keys.issuer()) == denial.issuer());
        let Some((at, keys)) = at.and_then(|at| Some((at, self.keys.get(at)?))) else { return false };
        let now = self.clock.now();
        match keys.missing(denial, now) {
            MissingKey::Fetch(step) => {
                // D42: others wait for this fetch, so that it goes on without the request that began it.
                let shared = Arc::clone(self);
                let fetching = tokio::spawn(async move { shared.fetch_keys(at, step).await });
                fetching.await.unwrap_or(false)
            }
            MissingKey::UnderWay => {
                keys.wait(now).await;
                true
            }
            // D42: the denial may be of keys that were replaced while it was made.
            MissingKey::Deny => self.key_changes.load(Ordering::Acquire) != seen,
        }
    }
}
