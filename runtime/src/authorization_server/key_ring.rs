//! Signing keys in the store, for any number of processes (decision D43).
//!
//! ```text
//! published ──(lead)──▶ signing ──(the next one signs)──▶ retired ──(longest token)──▶ gone
//! ```
//!
//! The private part is sealed by a master key that never enters the store. A key is in the key set long enough before it
//! signs that every resource server has seen it, and long enough after that its last token has ended. Which process
//! promotes a key does not matter: the store lets exactly one do it. A process that could not read the schedule for half
//! the life of a cached key set stops signing, because another may have retired its key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use mcp_authz::identifier::Issuer;
use mcp_authz::jose::{Algorithm, Jwk, Sign, Signed, SigningKeyId};
use mcp_authz::sealer::Sealer;
use mcp_authz::time::{Duration, OffsetDateTime};

use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};
use crate::keys::{KeyFailure, SigningKey};
use crate::signer::{Signer, SignerFailed};
use crate::store::{AFTER_FAMILY, AdministeredStore, KeyRow, KeyState, StoreError};

/// How long a key set may be cached: what the router says in its answers.
const MAX_AGE: Duration = Duration::minutes(5);

/// How old the schedule may be while a process signs.
const HALF_AGE: Duration = Duration::seconds(150);

/// How often [`KeyRing::tend`] has to be called.
pub const INTERVAL: Duration = Duration::minutes(1);

/// How far clocks may be apart.
const SKEW: Duration = Duration::minutes(1);

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A key was sealed under another master key, or for another issuer.
    #[error(
        "the signing key {0} does not open: it was sealed under another master key or for another issuer"
    )]
    Sealed(String),
    /// The library could not make or seal a key.
    #[error("a signing key could not be made: {0}")]
    Key(#[from] KeyFailure),
    /// Sealing failed.
    #[error("a signing key could not be sealed")]
    Sealing,
}

/// The keys of one issuer. Call [`KeyRing::tend`] at least every [`INTERVAL`].
pub struct KeyRing {
    store: Arc<dyn AdministeredStore>,
    sealer: Arc<dyn Sealer + Send + Sync>,
    issuer: Issuer,
    algorithm: Algorithm,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    known: RwLock<Known>,
}

/// What was read last.
struct Known {
    keys: BTreeMap<String, (KeyState, Arc<SigningKey>)>,
    read: Option<OffsetDateTime>,
}

impl KeyRing {
    /// The keys of that issuer in that store: each new one of that algorithm, signing for `lifetime`.
    ///
    /// `sealer` holds the master key, which every process over the store shares.
    pub fn new(
        store: Arc<dyn AdministeredStore>,
        sealer: Arc<dyn Sealer + Send + Sync>,
        issuer: Issuer,
        algorithm: Algorithm,
        lifetime: Duration,
    ) -> Self {
        let known = RwLock::new(Known { keys: BTreeMap::new(), read: None });
        Self { store, sealer, issuer, algorithm, lifetime, clock: Arc::new(SystemClock), known }
    }

    /// Reads this process's time there.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Reads the keys, and does what is due: makes, promotes, forgets.
    ///
    /// # Errors
    /// [`KeyRingError`]; what was read before is used until it is too old.
    pub async fn tend(&self) -> Result<(), KeyRingError> {
        // Every step leads to another row; a handful settles any state.
        for _ in 0..8 {
            let read = self.clock.now();
            let (rows, now) = self.store.keys().await?;
            self.take(&rows, read)?;
            match self.due(&rows, now) {
                None => return Ok(()),
                Some(Due::Make) => {
                    self.publish().await?;
                }
                Some(Due::Promote(kid)) => {
                    self.store.promote_key(&kid).await?;
                }
                Some(Due::Forget(kid)) => {
                    self.store.forget_key(&kid).await?;
                }
            }
        }
        Ok(())
    }

    /// Publishes a new key, to sign once every cached key set has it; `false` when one waits already.
    ///
    /// # Errors
    /// [`KeyRingError`]
    pub async fn publish(&self) -> Result<bool, KeyRingError> {
        let key = SigningKey::generate(self.algorithm)?;
        let kid = key.id().kid().to_owned();
        let private = key.to_pkcs8()?;
        let sealed = self
            .sealer
            .seal(&self.associated(&kid, self.algorithm.name()), private.expose())
            .map_err(|_| KeyRingError::Sealing)?;
        let row = KeyRow {
            kid,
            algorithm: self.algorithm.name().to_owned(),
            state: KeyState::Published,
            public_jwk: key.jwk().render(),
            sealed,
            since: OffsetDateTime::UNIX_EPOCH,
        };
        Ok(self.store.publish_key(row).await?)
    }

    /// Makes the key that waits sign at once, after a leak, and deletes every key of before: they leave the key set, and what
    /// they signed is refused as soon as a resource server fetches it again. `false` when none waits.
    ///
    /// # Errors
    /// [`KeyRingError`]
    pub async fn promote_at_once(&self) -> Result<bool, KeyRingError> {
        let (rows, _) = self.store.keys().await?;
        match rows.iter().find(|row| row.state == KeyState::Published) {
            Some(row) => Ok(self.store.replace_keys(&row.kid).await?),
            None => Ok(false),
        }
    }

    fn due(&self, rows: &[KeyRow], now: OffsetDateTime) -> Option<Due> {
        let of = |state| rows.iter().find(|row| row.state == state);
        let past = |row: &KeyRow, time: Duration| now >= row.since.saturating_add(time);
        let lead = MAX_AGE.saturating_add(INTERVAL).saturating_add(SKEW);
        match (of(KeyState::Signing), of(KeyState::Published)) {
            (None, None) => return Some(Due::Make),
            // Nobody has a key set without it: there never was one.
            (None, Some(row)) => return Some(Due::Promote(row.kid.clone())),
            (Some(_), Some(row)) if past(row, lead) => return Some(Due::Promote(row.kid.clone())),
            (Some(row), None) if past(row, self.lifetime) => return Some(Due::Make),
            _ => {}
        }
        let over = rows.iter().find(|row| row.state == KeyState::Retired && past(row, AFTER_FAMILY));
        over.map(|row| Due::Forget(row.kid.clone()))
    }

    /// Opens what is new, and keeps the rest.
    fn take(&self, rows: &[KeyRow], read: OffsetDateTime) -> Result<(), KeyRingError> {
        let mut keys = BTreeMap::new();
        for row in rows {
            let known = self.known().keys.get(&row.kid).map(|(_, key)| Arc::clone(key));
            let key = match known {
                Some(key) => key,
                None => Arc::new(self.open(row)?),
            };
            keys.insert(row.kid.clone(), (row.state, key));
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { keys, read: Some(read) };
        Ok(())
    }

    fn open(&self, row: &KeyRow) -> Result<SigningKey, KeyRingError> {
        let failed = || KeyRingError::Sealed(row.kid.clone());
        let private = self
            .sealer
            .open(&self.associated(&row.kid, &row.algorithm), &row.sealed)
            .map_err(|_| failed())?;
        let algorithm = Algorithm::from_name(&row.algorithm).map_err(|_| failed())?;
        let key = SigningKey::from_pkcs8(algorithm, &private)?;
        // The row's name is the sealed key's own: nobody can give one key another's place.
        if key.id().kid() == row.kid { Ok(key) } else { Err(failed()) }
    }

    /// What a sealed key is tied to: kind, issuer, name, algorithm, each with its length.
    fn associated(&self, kid: &str, algorithm: &str) -> Vec<u8> {
        let mut bytes = b"mcp-authz signing key 1".to_vec();
        for part in [self.issuer.as_str(), kid, algorithm] {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that signs, unless the schedule is too old to know (D43).
    fn current(&self) -> Option<Arc<SigningKey>> {
        let known = self.known();
        let limit = known.read?.saturating_add(HALF_AGE);
        if self.clock.now() >= limit {
            return None;
        }
        let signing = known.keys.values().find(|(state, _)| *state == KeyState::Signing);
        signing.map(|(_, key)| Arc::clone(key))
    }
}

enum Due {
    Make,
    Promote(String),
    Forget(String),
}

impl Signer for KeyRing {
    fn signing_key(&self) -> Result<SigningKeyId, SignerFailed> {
        self.current().map(|key| key.id()).ok_or(SignerFailed)
    }

    fn sign(&self, action: Sign) -> BoxFuture<'_, Result<Signed, SignerFailed>> {
        let key = self.current().filter(|key| key.id() == *action.key());
        let signed = key.ok_or(SignerFailed).and_then(|key| key.sign(action).map_err(|_| SignerFailed));
        Box::pin(std::future::ready(signed))
    }

    fn public_keys(&self) -> Vec<Jwk> {
        self.known().keys.values().map(|(_, key)| key.jwk().clone()).collect()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> =
            self.known().keys.iter().map(|(kid, (state, _))| format!("{kid} {state:?}")).collect();
        f.debug_struct("KeyRing").field("issuer", &self.issuer).field("keys", &keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use mcp_authz::identifier::Issuer;
    use mcp_authz::jose::Algorithm;
    use mcp_authz::time::{Duration, OffsetDateTime};

    use super::{KeyRing, KeyRingError};
    use crate::clock::Clock;
    use crate::sealer::AeadSealer;
    use crate::signer::Signer as _;
    use crate::store::memory::MemoryStore;
    use crate::store::{AdministeredStore as _, KeyState};

    #[derive(Debug, Default)]
    struct Minutes(AtomicI64);

    impl Minutes {
        fn pass(&self, minutes: i64) {
            self.0.fetch_add(minutes, Ordering::SeqCst);
        }
    }

    impl Clock for Minutes {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::UNIX_EPOCH
                + Duration::days(20_000)
                + Duration::minutes(self.0.load(Ordering::SeqCst))
        }
    }

    fn ring(store: &Arc<MemoryStore>, clock: &Arc<Minutes>, master: u8, issuer: &str) -> KeyRing {
        let sealer = Arc::new(AeadSealer::new([master; 32]));
        let issuer = Issuer::new(issuer).unwrap();
        KeyRing::new(store.clone(), sealer, issuer, Algorithm::EdDsa, Duration::days(30)).clock(clock.clone())
    }

    const ISSUER: &str = "https://as.example";

    fn world() -> (Arc<MemoryStore>, Arc<Minutes>) {
        let clock = Arc::new(Minutes::default());
        (Arc::new(MemoryStore::with_clock(clock.clone())), clock)
    }

    // D43
    #[tokio::test]
    async fn two_processes_rotate_one_key_ring_without_a_token_that_cannot_be_verified() {
        let (store, clock) = world();
        let (one, two) = (ring(&store, &clock, 1, ISSUER), ring(&store, &clock, 1, ISSUER));
        assert!(one.signing_key().is_err(), "nothing is known before the store was read");
        one.tend().await.unwrap();
        two.tend().await.unwrap();
        let first = one.signing_key().unwrap();
        assert_eq!(two.signing_key().unwrap(), first);
        // Tended every minute for long past the key's life, by two processes in turn.
        let (mut published, mut current) = (Vec::new(), first.clone());
        let mut rotations = 0;
        for minute in 0..(31 * 24 * 60) {
            clock.pass(1);
            let (tended, other) = if minute % 2 == 0 { (&one, &two) } else { (&two, &one) };
            tended.tend().await.unwrap();
            let signing = tended.signing_key().unwrap();
            let set: Vec<_> = other.public_keys().iter().map(|key| key.kid().unwrap().to_owned()).collect();
            assert!(
                set.contains(&signing.kid().to_owned()),
                "another process publishes what this one signs with"
            );
            if signing != current {
                rotations += 1;
                // It was in every key set fetched in the last five minutes.
                let recent: &[Vec<String>] = &published[published.len() - 5..];
                assert!(recent.iter().all(|set| set.contains(&signing.kid().to_owned())));
                current = signing;
            }
            published.push(set);
        }
        assert_eq!(rotations, 1);
        assert_eq!(store.keys().await.unwrap().0.len(), 1, "the retired key is gone once its tokens are");
    }

    // D43: another process may have retired the key in the meantime.
    #[tokio::test]
    async fn a_process_that_cannot_read_the_schedule_stops_signing() {
        let (store, clock) = world();
        let ring = ring(&store, &clock, 1, ISSUER);
        ring.tend().await.unwrap();
        clock.pass(2);
        assert!(ring.signing_key().is_ok());
        clock.pass(1);
        assert!(ring.signing_key().is_err());
        assert!(!ring.public_keys().is_empty(), "what was published is still published");
        ring.tend().await.unwrap();
        assert!(ring.signing_key().is_ok());
    }

    #[tokio::test]
    async fn a_key_opens_under_its_master_key_and_for_its_issuer_only() {
        let (store, clock) = world();
        ring(&store, &clock, 1, ISSUER).tend().await.unwrap();
        for (master, issuer) in [(2, ISSUER), (1, "https://other.example")] {
            let error = ring(&store, &clock, master, issuer).tend().await.unwrap_err();
            assert!(matches!(error, KeyRingError::Sealed(_)), "{error}");
        }
        let (rows, _) = store.keys().await.unwrap();
        let private = rows[0].sealed.windows(4).any(|window| window == b"\x30\x53\x02\x01");
        assert!(!private, "the private part is sealed");
    }

    #[tokio::test]
    async fn an_operator_rotates_early_or_at_once() {
        let (store, clock) = world();
        let ring = ring(&store, &clock, 1, ISSUER);
        ring.tend().await.unwrap();
        let first = ring.signing_key().unwrap();
        assert!(!ring.promote_at_once().await.unwrap(), "none waits");
        assert!(ring.publish().await.unwrap() && !ring.publish().await.unwrap());
        ring.tend().await.unwrap();
        assert_eq!(ring.signing_key().unwrap(), first, "the next one waits its turn");
        assert_eq!(ring.public_keys().len(), 2);
        assert!(ring.promote_at_once().await.unwrap());
        ring.tend().await.unwrap();
        assert_ne!(ring.signing_key().unwrap(), first);
        // What leaked is trusted no longer: not in the store, and not in the key set.
        let states: Vec<_> = store.keys().await.unwrap().0.into_iter().map(|row| row.state).collect();
        assert_eq!(states, [KeyState::Signing]);
        let published: Vec<_> = ring.public_keys().iter().map(|key| key.kid().map(str::to_owned)).collect();
        assert_eq!(published, [Some(ring.signing_key().unwrap().kid().to_owned())]);
    }
}
