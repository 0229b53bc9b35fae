//! A small store of people with passwords: for a server that has no other sign-in.
//!
//! Passwords are kept as argon2id hashes in PHC form.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use http::HeaderValue;
use http::request::Parts;
use mcp_authz::sealer::Sealer;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::form::Form;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::browser::Browser;
use super::devices::Devices;
use super::people::{EndedBy, Person, PersonAuthentication, SignIn, Standing, Ways, is_of_a_provider};
use super::sessions::{Session, Sessions};
pub use super::tries::RequestAddress;
use super::tries::{Trier, Tries};
use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};
use crate::store::{Store, StoreError};

/// Hashes computed at one time: each takes tens of megabytes.
const HASHES: usize = 2;

/// Who waits for a hash at one time; one more is told to come back.
const WAITING: usize = 32;

/// How long each waits at most.
const WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// Longest name, in bytes.
const NAME_BYTES: usize = 256;

/// Longest password, in bytes.
const PASSWORD_BYTES: usize = 1024;

/// Why people cannot be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidPeople {
    /// There is nobody.
    #[error("name at least one person who may sign in")]
    Nobody,
    /// A name is empty, longer than 256 bytes, a URL, or stands twice.
    #[error("a person's name is empty, longer than 256 bytes, a URL, or stands twice: {0:?}")]
    Name(String),
    /// A hash is none.
    #[error(
        "the password hash of {0:?} is no argon2 hash in PHC form; make one with `mcp-authz hash-password`"
    )]
    Hash(String),
    /// Hashing failed.
    #[error("the password could not be hashed")]
    Hashing,
}

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// With the person's epoch of before.
    Right(u64),
    /// Or tried too often.
    Wrong,
    /// No password was looked at.
    Busy,
}

/// People who sign in by name and password.
///
/// Wrong passwords are counted for a name from an address ([`RequestAddress`]); a name that is tried from very many
/// addresses rests as well. A browser in which the person signed in before has tries of its own.
pub struct Passwords {
    people: Arc<BTreeMap<String, String>>,
    /// What is computed for a name that nobody has, so that the time does not tell.
    nobody: Arc<String>,
    sessions: Sessions,
    devices: Devices,
    tries: Mutex<Tries>,
    waiting: Semaphore,
    hashing: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

/// The argon2id hash of a password, in PHC form.
///
/// # Errors
/// [`InvalidPeople::Hashing`] for an empty password or one of more than 1024 bytes.
pub fn hash_password(password: &str) -> Result<String, InvalidPeople> {
    if password.is_empty() || password.len() > PASSWORD_BYTES {
        return Err(InvalidPeople::Hashing);
    }
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|_| InvalidPeople::Hashing)
}

impl Passwords {
    /// These people, by name and hash, at an issuer that is https or not. The store is the server's; `sealer` seals who is signed
    /// in.
    ///
    /// # Errors
    /// [`InvalidPeople`]
    pub fn new(
        people: impl IntoIterator<Item = (String, String)>,
        store: Arc<dyn Store>,
        sealer: Arc<dyn Sealer + Send + Sync>,
        secure: bool,
    ) -> Result<Self, InvalidPeople> {
        let mut known = BTreeMap::new();
        for (name, hash) in people {
            if PasswordHash::new(&hash).is_err() {
                return Err(InvalidPeople::Hash(name));
            }
            let is_elsewhere = is_of_a_provider(&name);
            let fits = (1..=NAME_BYTES).contains(&name.len());
            if !fits || is_elsewhere || known.contains_key(&name) {
                return Err(InvalidPeople::Name(name));
            }
            known.insert(name, hash);
        }
        // I-G8
        if known.is_empty() {
            return Err(InvalidPeople::Nobody);
        }
        Ok(Self {
            people: Arc::new(known),
            nobody: Arc::new(hash_password("nobody has this password")?),
            sessions: Sessions::new(store, Arc::clone(&sealer), "person", secure),
            devices: Devices::new(sealer, secure),
            tries: Mutex::new(Tries::new()),
            waiting: Semaphore::new(WAITING),
            hashing: Arc::new(Semaphore::new(HASHES)),
            clock: Arc::new(SystemClock),
        })
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the password is that of the name. It takes as long for a name that nobody has, which is counted as well.
    ///
    /// # Errors
    /// [`StoreError`]; no password was looked at.
    async fn verify(&self, name: &str, password: &str, trier: Trier) -> Result<Verdict, StoreError> {
        let lengths = [(name, NAME_BYTES), (password, PASSWORD_BYTES)];
        if lengths.iter().any(|(text, most)| text.is_empty() || text.len() > *most) {
            return Ok(Verdict::Wrong);
        }
        // I-P7: who waits for a hash is bounded, in number and in time.
        let Ok(_place) = self.waiting.try_acquire() else { return Ok(Verdict::Busy) };
        let known = self.people.get(name).cloned();
        let is_known = known.is_some();
        // I-T4: before the password. It is asked for a name that nobody has as well, so that the time does not tell.
        let before = self.sessions.found_of(if is_known { name } else { "" }).await?;
        let Ok(Ok(permit)) = tokio::time::timeout(WAIT, Arc::clone(&self.hashing).acquire_owned()).await
        else {
            return Ok(Verdict::Busy);
        };
        if !self.tries().may_try(name, trier, self.clock.now()) {
            return Ok(Verdict::Wrong);
        }
        let hash = known.unwrap_or_else(|| self.nobody.as_ref().clone());
        let password = Zeroizing::new(password.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            // Held until the hash is computed, whoever waits for it.
            let _permit = permit;
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        if !(verified.await.unwrap_or(false) && is_known) {
            return Ok(Verdict::Wrong);
        }
        self.tries().signed_in(name, trier);
        Ok(Verdict::Right(before.epoch))
    }

    /// Who is signed in in the browser. Somebody who was removed is signed out, and whose password has changed as well: the
    /// old one may be known to others.
    fn signed_in(&self, request: &Parts, browser: &Browser) -> Option<Session> {
        let session = self.sessions.of(request, browser, self.clock.now())?;
        // I-P9
        let proved = self.proved(&session.subject)?;
        (session.proved == Some(proved)).then_some(session)
    }

    /// What stands for the password of that person in their sessions.
    fn proved(&self, name: &str) -> Option<SecretDigest> {
        self.people.get(name).map(|hash| SecretDigest::of(hash.as_bytes()))
    }
}

impl PersonAuthentication for Passwords {
    fn standing<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Standing> {
        Box::pin(std::future::ready(Standing::of(self.people.contains_key(subject))))
    }

    fn person<'a>(&'a self, request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person> {
        Box::pin(std::future::ready(match self.signed_in(request, browser) {
            Some(Session { subject, since, epoch, .. }) => {
                Person::SignedIn { subject, since, name: None, ended_by: EndedBy::Epoch(epoch) }
            }
            None => Person::Ways(Ways { password: true, providers: Vec::new() }),
        }))
    }

    fn sign_in<'a>(
        &'a self,
        request: &'a Parts,
        form: &'a Form,
        browser: &'a Browser,
    ) -> BoxFuture<'a, SignIn> {
        Box::pin(async move {
            let name = form.get("name").unwrap_or_default();
            let password = form.get("password").unwrap_or_default();
            let device = self.devices.of(request, name, self.clock.now()).map(Trier::Device);
            let trier = device.unwrap_or_else(|| Trier::Address(RequestAddress::network_of(request)));
            let epoch = match self.verify(name, password, trier).await {
                Ok(Verdict::Right(epoch)) => epoch,
                Ok(Verdict::Wrong) => return SignIn::Refused,
                Ok(Verdict::Busy) => return SignIn::Busy,
                Err(error) => return SignIn::Unavailable(error),
            };
            let now = self.clock.now();
            let proved = self.proved(name);
            let session = Session { subject: name.to_owned(), since: now, name: None, proved, epoch };
            match self.sessions.cookie(&session, browser, now) {
                Some(cookie) => {
                    SignIn::SignedIn([cookie].into_iter().chain(self.devices.cookie(name, now)).collect())
                }
                None => SignIn::Refused,
            }
        })
    }

    fn sign_out<'a>(&'a self, _request: &'a Parts, _browser: &'a Browser) -> BoxFuture<'a, Vec<HeaderValue>> {
        Box::pin(std::future::ready(self.sessions.no_cookie().into_iter().collect()))
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("people", &self.people.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use mcp_authz::authorization_server::store::{RevocationTarget, RevokeAll};

    use super::super::tries::{TRIES, Trier};
    use super::{InvalidPeople, NAME_BYTES, Passwords, Verdict, WAIT, WAITING, hash_password};
    use crate::sealer::AeadSealer;
    use crate::store::memory::MemoryStore;
    use crate::store::{ReadSession, Store as _};

    fn people(list: &[(&str, &str)]) -> Result<Passwords, InvalidPeople> {
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let list = list.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()));
        Passwords::new(list, Arc::new(MemoryStore::new()), sealer, true)
    }

    #[test]
    fn nobody_twice_nobody_unnamed_and_nobody_without_a_hash() {
        let hash = hash_password("secret").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert_eq!(people(&[]).unwrap_err(), InvalidPeople::Nobody);
        for list in [
            &[("ann", hash.as_str()), ("ann", &hash)][..],
            &[("", &hash)],
            &[("https://op.example#1", &hash)],
        ] {
            assert!(matches!(people(list).unwrap_err(), InvalidPeople::Name(_)));
        }
        for text in ["", "secret", "$argon2id$"] {
            assert!(matches!(people(&[("ann", text)]).unwrap_err(), InvalidPeople::Hash(_)), "{text}");
        }
        assert!(hash_password("").is_err());
    }

    fn from(n: u8) -> Trier {
        Trier::Address(IpAddr::from([192, 0, 2, n]))
    }

    // I-G8
    #[tokio::test]
    async fn only_the_right_password_is_right_and_a_stranger_locks_nobody_out() {
        let people = people(&[("ann", &hash_password("secret").unwrap())]).unwrap();
        assert_eq!(people.verify("ann", "secret", from(1)).await.unwrap(), Verdict::Right(0));
        let long = "a".repeat(NAME_BYTES + 1);
        for (name, password) in [
            ("ann", ""),
            ("ann", "Secret"),
            ("", "secret"),
            ("bob", "secret"),
            ("Ann", "secret"),
            (&long, "x"),
        ] {
            assert_eq!(
                people.verify(name, password, from(1)).await.unwrap(),
                Verdict::Wrong,
                "{name} {password}"
            );
        }
        for _ in 0..TRIES {
            assert_eq!(people.verify("ann", "wrong", from(2)).await.unwrap(), Verdict::Wrong);
        }
        assert_eq!(
            people.verify("ann", "secret", from(2)).await.unwrap(),
            Verdict::Wrong,
            "that address rests"
        );
        assert_eq!(people.verify("ann", "secret", from(1)).await.unwrap(), Verdict::Right(0), "and no other");
    }

    // I-P7
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_hash_is_bounded_and_does_not_wait_for_ever() {
        let people = Arc::new(people(&[("ann", &hash_password("secret").unwrap())]).unwrap());
        let held = people.hashing.clone().acquire_many_owned(2).await.unwrap();
        let verify = || {
            let people = people.clone();
            tokio::spawn(async move { people.verify("ann", "secret", from(1)).await.unwrap() })
        };
        let waiting: Vec<_> = (0..WAITING).map(|_| verify()).collect();
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        assert_eq!(verify().await.unwrap(), Verdict::Busy);
        assert_eq!(began.elapsed(), std::time::Duration::ZERO, "there is no place to wait");
        for one in waiting {
            assert_eq!(one.await.unwrap(), Verdict::Busy);
        }
        assert!(began.elapsed() >= WAIT);
        drop(held);
        assert_eq!(
            people.verify("ann", "secret", from(1)).await.unwrap(),
            Verdict::Right(0),
            "and nothing was counted"
        );
    }

    // I-T4: what is revoked while a password is looked at ends the session that comes of it.
    #[tokio::test]
    async fn the_epoch_of_a_session_is_that_of_before_its_password() {
        let store = Arc::new(MemoryStore::new());
        let list = [("ann".to_owned(), hash_password("secret").unwrap())];
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let people = Arc::new(Passwords::new(list, store.clone(), sealer, true).unwrap());
        let held = people.hashing.clone().acquire_many_owned(2).await.unwrap();
        let verifying = tokio::spawn({
            let people = people.clone();
            async move { people.verify("ann", "secret", from(1)).await.unwrap() }
        });
        tokio::task::yield_now().await;
        let target = RevocationTarget::Subject("ann".to_owned());
        let _revoked = store.revoke_all(RevokeAll::of(target)).await.unwrap();
        drop(held);
        let Verdict::Right(epoch) = verifying.await.unwrap() else { panic!("the password is right") };
        let today = store.read_session(ReadSession::of("ann")).await.unwrap();
        assert!(!today.stands(epoch));
        assert_eq!(people.verify("ann", "secret", from(1)).await.unwrap(), Verdict::Right(today.epoch));
    }

    #[test]
    fn a_name_is_no_longer_than_what_is_tried() {
        let hash = hash_password("secret").unwrap();
        let (fits, long) = ("a".repeat(NAME_BYTES), "a".repeat(NAME_BYTES + 1));
        assert!(people(&[(&fits, &hash)]).is_ok());
        assert!(matches!(people(&[(&long, &hash)]).unwrap_err(), InvalidPeople::Name(_)));
    }
}
