//! What happened at a resource server, in numbers: for a metrics endpoint.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mcp_authz::resource_server::DenialReason;

/// How many requests passed, and how many did not for which reason, since the layer was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceCounts {
    /// Requests that went on to the inner service.
    pub authorized: u64,
    /// Of those, the ones whose token was remembered.
    pub recalled: u64,
    /// Fetches of an issuer's keys.
    pub key_fetches: u64,
    /// Questions to an issuer about a token.
    pub introspections: u64,
    /// Requests refused, by [`DenialReason::label`].
    pub denied: BTreeMap<&'static str, u64>,
}

impl ResourceCounts {
    /// Requests refused for any reason.
    pub fn denied_in_all(&self) -> u64 {
        self.denied.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The numbers while they grow.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<ResourceCounts>);

impl Counter {
    pub(super) fn count(&self, of: impl FnOnce(&mut ResourceCounts) -> &mut u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = of(&mut counts);
        *number = number.saturating_add(1);
    }

    pub(super) fn denied(&self, reason: DenialReason) {
        self.count(|counts| counts.denied.entry(reason.label()).or_default());
    }

    pub(super) fn snapshot(&self) -> ResourceCounts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
