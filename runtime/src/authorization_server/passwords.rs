//! A small store of people with passwords: for a server that has no other sign-in.
//!
//! Passwords are kept as argon2id hashes in PHC form.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use http::request::Parts;
use mcp_authz::sealer::Sealer;
use mcp_authz::syntax::form::Form;
use mcp_authz::time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::browser::Browser;
use super::people::{Person, PersonAuthentication, SignIn, Ways};
use super::sessions::{Session, Sessions};
use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};

/// Wrong passwords for one name within [`PAUSE`], after which the name is not tried for as long.
const TRIES: u32 = 10;

/// See [`TRIES`].
const PAUSE: Duration = Duration::minutes(5);

/// Names whose tries are counted at one time (I-P7).
const COUNTED: usize = 10_000;

/// Hashes computed at one time: each takes tens of megabytes.
const HASHES: usize = 2;

/// Longest password, in bytes.
const PASSWORD_BYTES: usize = 1024;

/// Why people cannot be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidPeople {
    /// There is nobody.
    #[error("name at least one person who may sign in")]
    Nobody,
    /// A name is empty, a URL, or stands twice.
    #[error("a person's name is empty, a URL, or stands twice: {0:?}")]
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

/// People who sign in by name and password.
pub struct Passwords {
    people: Arc<BTreeMap<String, String>>,
    /// What is computed for a name that nobody has, so that the time does not tell.
    nobody: Arc<String>,
    sessions: Sessions,
    tries: Mutex<HashMap<String, (u32, OffsetDateTime)>>,
    hashing: Semaphore,
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
    /// These people, by name and hash, at an issuer that is https or not; `sealer` seals who is signed in.
    ///
    /// # Errors
    /// [`InvalidPeople`]
    pub fn new(
        people: impl IntoIterator<Item = (String, String)>,
        sealer: Arc<dyn Sealer + Send + Sync>,
        secure: bool,
    ) -> Result<Self, InvalidPeople> {
        let mut known = BTreeMap::new();
        for (name, hash) in people {
            if PasswordHash::new(&hash).is_err() {
                return Err(InvalidPeople::Hash(name));
            }
            // What begins like an issuer is somebody's who signs in elsewhere.
            let is_elsewhere = name.starts_with("https://") || name.starts_with("http://");
            if name.is_empty() || is_elsewhere || known.contains_key(&name) {
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
            sessions: Sessions::new(sealer, "person", secure),
            tries: Mutex::default(),
            hashing: Semaphore::new(HASHES),
            clock: Arc::new(SystemClock),
        })
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// Counts a try; whether the name may be tried.
    fn may_try(&self, name: &str) -> bool {
        let now = self.clock.now();
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= COUNTED {
            tries.retain(|_, (_, since)| since.saturating_add(PAUSE) > now);
        }
        if tries.len() >= COUNTED && !tries.contains_key(name) {
            // A flood of names: known ones are still counted, unknown ones need no hash.
            return self.people.contains_key(name);
        }
        let entry = tries.entry(name.to_owned()).or_insert((0, now));
        if entry.1.saturating_add(PAUSE) <= now {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
        entry.0 <= TRIES
    }

    /// Whether the password is that of the name. It takes as long for a name that nobody has.
    async fn verify(&self, name: &str, password: &str) -> bool {
        if name.is_empty() || password.is_empty() || password.len() > PASSWORD_BYTES || !self.may_try(name) {
            return false;
        }
        let Ok(_permit) = self.hashing.acquire().await else { return false };
        let known = self.people.get(name).cloned();
        let is_known = known.is_some();
        let hash = known.unwrap_or_else(|| self.nobody.as_ref().clone());
        let password = Zeroizing::new(password.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        });
        let right = is_known && verified.await.unwrap_or(false);
        if right {
            self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        }
        right
    }

    /// Who is signed in in the browser. Somebody who was removed is signed out.
    fn signed_in(&self, request: &Parts, browser: &Browser) -> Option<Session> {
        let session = self.sessions.of(request, browser, self.clock.now())?;
        self.people.contains_key(&session.subject).then_some(session)
    }
}

impl PersonAuthentication for Passwords {
    fn person<'a>(&'a self, request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person> {
        Box::pin(std::future::ready(match self.signed_in(request, browser) {
            Some(Session { subject, since, .. }) => Person::SignedIn { subject, since, name: None },
            None => Person::Ways(Ways { password: true, providers: Vec::new() }),
        }))
    }

    fn sign_in<'a>(
        &'a self,
        _request: &'a Parts,
        form: &'a Form,
        browser: &'a Browser,
    ) -> BoxFuture<'a, SignIn> {
        Box::pin(async move {
            let name = form.get("name").unwrap_or_default();
            if !self.verify(name, form.get("password").unwrap_or_default()).await {
                return SignIn::Refused;
            }
            let now = self.clock.now();
            let session = Session { subject: name.to_owned(), since: now, name: None };
            match self.sessions.cookie(&session, browser, now) {
                Some(cookie) => SignIn::SignedIn(Some(cookie)),
                None => SignIn::Refused,
            }
        })
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("people", &self.people.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{InvalidPeople, Passwords, TRIES, hash_password};
    use crate::sealer::AeadSealer;

    fn people(list: &[(&str, &str)]) -> Result<Passwords, InvalidPeople> {
        let sealer = Arc::new(AeadSealer::ephemeral().unwrap());
        let list = list.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()));
        Passwords::new(list, sealer, true)
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

    // I-G8
    #[tokio::test]
    async fn only_the_right_password_is_right_and_not_after_too_many_wrong_ones() {
        let people = people(&[("ann", &hash_password("secret").unwrap())]).unwrap();
        assert!(people.verify("ann", "secret").await);
        for (name, password) in
            [("ann", ""), ("ann", "Secret"), ("", "secret"), ("bob", "secret"), ("Ann", "secret")]
        {
            assert!(!people.verify(name, password).await, "{name} {password}");
        }
        for _ in 0..TRIES {
            assert!(!people.verify("ann", "wrong").await);
        }
        assert!(!people.verify("ann", "secret").await, "the name rests");
    }
}
