//! When the keys of one issuer are fetched, and how long they hold (D42).
//!
//! ```text
//! KeyCache ── timed (it is due) ─────────┐
//!          ── missing (a token's key) ───┴─> Fetch, AwaitingKeySet ── receive ──> FetchedKeys
//! ```
//!
//! The two reasons to fetch have budgets of their own, so that tokens with invented key names cannot starve the timed
//! refresh. One fetch is under way at a time. A set is taken whole or not at all: what cannot be used never replaces
//! what there is, which stays in force for a bounded time.

use alloc::vec::Vec;

use super::denial::{Denial, DenialReason};
use super::issuer::Fetched;
use super::key_set::{AwaitingKeySet, KeySetFailure, fetch_key_set};
use crate::identifier::{Endpoint, Issuer};
use crate::jose::{KeyImporter, KeySet};
use crate::limits;
use crate::message::exchange::{AddressPolicy, Fetch, FetchFailure, Reply};
use crate::secret::SecretDigest;
use crate::step::Step;
use crate::time::{Duration, OffsetDateTime};

/// The schedule of one issuer's keys. The host keeps it behind its own lock, and asks [`KeyCache::timed`] now and then
/// and [`KeyCache::missing`] for each denial.
#[derive(Debug)]
pub struct KeyCache {
    issuer: Issuer,
    jwks_uri: Endpoint,
    addresses: AddressPolicy,
    /// When the timed refresh is due; at once in the beginning.
    due: Option<OffsetDateTime>,
    /// Before this no unknown key name is asked for.
    unknown_from: Option<OffsetDateTime>,
    /// A fetch is under way, and is given up at this time.
    under_way: Option<OffsetDateTime>,
    /// The key name that the fetch under way is for.
    asked: Option<SecretDigest>,
    /// Key names that a fresh set did not have, and until when that is believed. The budget bounds them (I-G1): one is
    /// learnt at a time, and forgotten before a handful are.
    absent: Vec<(SecretDigest, OffsetDateTime)>,
}

/// What to do about a token whose key is not there.
#[derive(Debug)]
#[must_use = "the request waits for its answer"]
pub enum MissingKey {
    /// Fetch the keys, then verify the token once more.
    Fetch(Step<Fetch, AwaitingKeySet>),
    /// They are being fetched: wait for that, then verify the token once more.
    UnderWay,
    /// Nothing would come of it now: answer with the denial.
    Deny,
}

/// Keys that were fetched, and how long they hold.
#[derive(Debug, Clone)]
pub struct FetchedKeys {
    pub(super) issuer: Issuer,
    pub(super) keys: KeySet,
    pub(super) fetched: Fetched,
}

impl FetchedKeys {
    /// Whose they are.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// From when on they are no longer believed.
    pub fn until(&self) -> OffsetDateTime {
        self.fetched.until
    }
}

impl KeyCache {
    /// The keys of `issuer` at this URL, which comes from the host's configuration or the issuer's metadata and never
    /// from a token. Nothing was fetched yet.
    pub fn new(issuer: Issuer, jwks_uri: Endpoint, addresses: AddressPolicy) -> Self {
        Self {
            issuer,
            jwks_uri,
            addresses,
            due: None,
            unknown_from: None,
            under_way: None,
            asked: None,
            absent: Vec::new(),
        }
    }

    /// Whose keys.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether a fetch is under way at this time.
    pub fn is_under_way(&self, now: OffsetDateTime) -> bool {
        // A fetch whose host never reported does not keep the keys from being fetched again.
        self.under_way.is_some_and(|until| lies_ahead(until, now, given_up_after()))
    }

    /// The timed refresh, if it is due and nothing is under way.
    pub fn timed(&mut self, now: OffsetDateTime) -> Option<Step<Fetch, AwaitingKeySet>> {
        let waits = self.due.is_some_and(|due| lies_ahead(due, now, limits::KEYS_FRESH_SECONDS));
        (!waits && !self.is_under_way(now)).then(|| self.fetch(None, now))
    }

    /// When [`KeyCache::timed`] has something to do at the earliest; `None` for at once.
    pub fn due(&self) -> Option<OffsetDateTime> {
        self.due
    }

    /// What a denial for want of a key calls for. A denial of another reason or issuer calls for nothing.
    pub fn missing(&mut self, denial: &Denial, now: OffsetDateTime) -> MissingKey {
        if denial.issuer() != Some(&self.issuer) {
            return MissingKey::Deny;
        }
        match (denial.reason(), denial.kid()) {
            // There is no key at all: the timed budget.
            (DenialReason::KeysUnavailable, _) if self.is_under_way(now) => MissingKey::UnderWay,
            (DenialReason::KeysUnavailable, _) => self.timed(now).map_or(MissingKey::Deny, MissingKey::Fetch),
            (DenialReason::UnknownKey, Some(kid)) => self.unknown(kid, now),
            _ => MissingKey::Deny,
        }
    }

    fn unknown(&mut self, kid: SecretDigest, now: OffsetDateTime) -> MissingKey {
        self.absent.retain(|(_, until)| lies_ahead(*until, now, limits::ABSENT_KEY_SECONDS));
        if self.absent.iter().any(|(absent, _)| *absent == kid) {
            return MissingKey::Deny;
        }
        if self.is_under_way(now) {
            return MissingKey::UnderWay;
        }
        if self.unknown_from.is_some_and(|from| lies_ahead(from, now, limits::UNKNOWN_KEY_SECONDS)) {
            return MissingKey::Deny;
        }
        self.unknown_from = Some(later(now, limits::UNKNOWN_KEY_SECONDS));
        MissingKey::Fetch(self.fetch(Some(kid), now))
    }

    fn fetch(&mut self, asked: Option<SecretDigest>, now: OffsetDateTime) -> Step<Fetch, AwaitingKeySet> {
        self.under_way = Some(later(now, given_up_after()));
        self.asked = asked;
        fetch_key_set(self.issuer.clone(), &self.jwks_uri, self.addresses)
    }

    /// Takes the reply. Hand the keys to
    /// [`ResourceServer::with_fetched_keys`](super::ResourceServer::with_fetched_keys) of every resource server that
    /// trusts this issuer.
    ///
    /// # Errors
    /// [`KeySetFailure`]; the keys there are stay in force until they are too old.
    pub fn receive(
        &mut self,
        waiting: AwaitingKeySet,
        reply: Result<Reply, FetchFailure>,
        importer: &dyn KeyImporter,
        now: OffsetDateTime,
    ) -> Result<FetchedKeys, KeySetFailure> {
        self.under_way = None;
        let asked = self.asked.take();
        let document = SecretDigest::of(reply.as_ref().map_or(&[], Reply::body));
        match waiting.receive(reply, importer) {
            Ok((issuer, keys)) => {
                self.due = Some(later(now, limits::KEYS_FRESH_SECONDS));
                if let Some(asked) = asked {
                    // If the set has it, nobody will ask again.
                    self.absent.push((asked, later(now, limits::ABSENT_KEY_SECONDS)));
                }
                let held = limits::KEYS_FRESH_SECONDS.saturating_add(limits::KEYS_STALE_SECONDS);
                Ok(FetchedKeys { issuer, keys, fetched: Fetched { document, until: later(now, held) } })
            }
            Err(failure) => {
                // D42: a failure of either budget leaves the other as it was.
                if asked.is_none() {
                    self.due = Some(later(now, limits::KEYS_RETRY_SECONDS));
                }
                Err(failure)
            }
        }
    }
}

/// After how many seconds a fetch of which nothing was heard is given up.
fn given_up_after() -> i64 {
    i64::from(limits::FETCH_SECONDS).saturating_mul(2)
}

/// Whether that time, which was set so many seconds ahead, is still to come. One more than twice as far away is of a clock that
/// has been set back since, and binds nobody; by less, two readings of one clock may differ.
fn lies_ahead(at: OffsetDateTime, now: OffsetDateTime, seconds: i64) -> bool {
    now < at && at <= later(now, seconds.saturating_mul(2))
}

fn later(now: OffsetDateTime, seconds: i64) -> OffsetDateTime {
    now.saturating_add(Duration::seconds(seconds))
}
