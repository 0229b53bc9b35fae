//! Verified tokens, remembered: a token that was verified once is not verified again while nothing has changed (I-A14).
//!
//! What is remembered is what the token says, never what it allows: the scopes of each operation are compared on every
//! request. An entry is found by the full SHA-256 of the token, under the very configuration it was verified with; any
//! change of that, new keys among them, empties the cache. Nothing is used at or past a token's `exp`, past the end of
//! the keys it was verified with, or longer than [`limits::INTROSPECTION_CACHE_SECONDS`] where its issuer was asked.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use super::ResourceServer;
use super::admission::PresentedToken;
use super::denial::{Denial, DenialReason};
use super::exchange::SubjectToken;
use super::verification::{Facts, VerifiedToken};
use crate::limits;
use crate::secret::SecretDigest;
use crate::time::OffsetDateTime;

/// What is known of the tokens of one resource server. The host keeps it behind its own lock.
///
/// ```text
/// PresentedToken ── recall ──> Verified | Denied | Unknown ── verify ──> VerifiedToken ── keep
/// ```
#[derive(Debug)]
pub struct TokenCache {
    /// The configuration that everything in here was verified with.
    configuration: Option<ResourceServer>,
    verified: Bounded<Kept>,
    /// Opaque tokens that are not active, apart: strangers can make as many as they like.
    inactive: Bounded<Kept>,
}

/// What a cache says of a token.
#[derive(Debug)]
#[must_use = "the request waits for its token to be verified"]
pub enum Recalled {
    /// It was verified before, and still holds.
    Verified(VerifiedToken),
    /// Its issuer said a moment ago that it is not active.
    Denied(Denial),
    /// It has to be verified. Hand what comes of that to [`TokenCache::keep`] or [`TokenCache::keep_denial`].
    Unknown(PresentedToken),
}

#[derive(Debug)]
struct Kept {
    /// `None` for a token that is not active.
    facts: Option<Arc<Facts>>,
    from: i64,
    until: i64,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::new(limits::CACHED_TOKENS)
    }
}

impl TokenCache {
    /// A cache of at most so many verified tokens, and as many that are not active.
    pub fn new(entries: usize) -> Self {
        Self { configuration: None, verified: Bounded::new(entries), inactive: Bounded::new(entries) }
    }

    /// How many tokens it remembers.
    pub fn len(&self) -> usize {
        self.verified.by_digest.len().saturating_add(self.inactive.by_digest.len())
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers a token that [`TokenCache::recall`] did not know and that has been verified since.
    pub fn keep(&mut self, token: &VerifiedToken, now: OffsetDateTime) {
        let facts = token.facts();
        if let Some(digest) = facts.digest.filter(|_| self.is_of(&facts.server)) {
            let kept =
                Kept { facts: Some(Arc::clone(facts)), from: now.unix_timestamp(), until: facts.stale_at };
            self.verified.insert(digest, kept);
        }
    }

    /// Remembers for a moment that an opaque token is not active. Other denials are not remembered.
    pub fn keep_denial(&mut self, denial: &Denial, now: OffsetDateTime) {
        if denial.reason() != DenialReason::Inactive {
            return;
        }
        if let Some(digest) = denial.token().filter(|_| self.is_of(denial.server())) {
            let from = now.unix_timestamp();
            let until = from.saturating_add(limits::INACTIVE_CACHE_SECONDS);
            self.inactive.insert(digest, Kept { facts: None, from, until });
        }
    }

    /// Looks a presented token up.
    pub fn recall(&mut self, mut token: PresentedToken, now: OffsetDateTime) -> Recalled {
        let digest = token.digest();
        let presented = token.interior_mut();
        // I-A14: the configuration is the very one, not one that looks alike.
        if !self.is_of(&presented.server) {
            self.verified.clear();
            self.inactive.clear();
            self.configuration = Some(presented.server.clone());
        }
        let now = now.unix_timestamp();
        if let Some(facts) = self.verified.get(&digest, now).and_then(|kept| kept.facts.clone()) {
            let subject_token = SubjectToken::of(presented, facts.issuer.issuer());
            return Recalled::Verified(VerifiedToken::new(facts, subject_token));
        }
        if self.inactive.get(&digest, now).is_some() {
            return Recalled::Denied(Denial::new(
                &presented.server,
                &presented.required,
                DenialReason::Inactive,
            ));
        }
        Recalled::Unknown(token)
    }

    fn is_of(&self, server: &ResourceServer) -> bool {
        self.configuration.as_ref().is_some_and(|own| own.is_the_same_as(server))
    }
}

/// Entries up to a number; the oldest go first.
#[derive(Debug)]
struct Bounded<V> {
    by_digest: BTreeMap<SecretDigest, V>,
    /// In the order they came; one that was replaced stands here twice.
    order: VecDeque<SecretDigest>,
    most: usize,
}

impl Bounded<Kept> {
    fn new(most: usize) -> Self {
        Self { by_digest: BTreeMap::new(), order: VecDeque::new(), most }
    }

    fn clear(&mut self) {
        self.by_digest.clear();
        self.order.clear();
    }

    /// The entry, if it holds at this time; one that does not is dropped.
    fn get(&mut self, digest: &SecretDigest, now: i64) -> Option<&Kept> {
        // I-T9, RFC7662-4-2: at `exp` it is over; a clock that went back knows nothing either.
        if self.by_digest.get(digest).is_some_and(|kept| now < kept.from || now >= kept.until) {
            self.by_digest.remove(digest);
        }
        self.by_digest.get(digest)
    }

    fn insert(&mut self, digest: SecretDigest, kept: Kept) {
        // I-G1: bounded, whatever comes.
        while self.order.len() >= self.most {
            match self.order.pop_front() {
                Some(oldest) => self.by_digest.remove(&oldest),
                None => return,
            };
        }
        self.order.push_back(digest);
        self.by_digest.insert(digest, kept);
    }
}
