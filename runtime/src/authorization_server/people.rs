//! Who the person before the browser is: the host's own sign-in, behind one trait.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use mcp_authz::syntax::form::Form;
use mcp_authz::time::OffsetDateTime;

use super::browser::Browser;
use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};
use crate::store::StoreError;

/// Whether a person of that subject signs in at a provider: such a subject begins with the provider's issuer, and nobody of this
/// server's own is called so.
pub fn is_of_a_provider(subject: &str) -> bool {
    subject.starts_with("https://") || subject.starts_with("http://")
}

/// How the host knows the person. It is asked when an authorization request is valid, and again when the consent
/// page's form comes back.
pub trait PersonAuthentication: Send + Sync + fmt::Debug + 'static {
    /// Whether the person of that subject may still sign in here. It is asked whenever a client comes with something that
    /// they granted: a person who was removed ends their grants (I-T4).
    fn standing<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Standing>;

    /// Who is signed in, in this browser, by every factor the host asks for.
    ///
    /// The host's session should end with, or be bound to, `browser`: a decision counts only if the same person is
    /// signed in, in the same browser, as when the page was shown.
    fn person<'a>(&'a self, request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person>;

    /// The sign-in page's form came back, from this server's own page. `browser` is new: whoever knew the cookie the
    /// person came with does not know the one they are signed in under.
    fn sign_in<'a>(
        &'a self,
        _request: &'a Parts,
        _form: &'a Form,
        _browser: &'a Browser,
    ) -> BoxFuture<'a, SignIn> {
        Box::pin(std::future::ready(SignIn::NoPage))
    }

    /// The person signs out in this browser, whose sessions do not count from now on. What the host keeps of it, it forgets; the
    /// cookies it gives go with the answer.
    fn sign_out<'a>(&'a self, _request: &'a Parts, _browser: &'a Browser) -> BoxFuture<'a, Vec<HeaderValue>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// A browser came back from the provider of that name. `browser` is the one the cookie says, and `next` the one it is
    /// from now on if somebody is signed in: whoever knew the cookie before does not know the one they are signed in
    /// under.
    fn returned<'a>(
        &'a self,
        _provider: &'a str,
        _request: &'a Parts,
        _browser: Option<&'a Browser>,
        _next: &'a Browser,
    ) -> BoxFuture<'a, Returned> {
        Box::pin(std::future::ready(Returned::NoPage))
    }
}

/// Whether a person is still one of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They may sign in.
    Known,
    /// They may not, or never could: what they granted gives no token.
    Removed,
    /// It cannot be known at the moment: the client gets 503 and tries again.
    Unavailable,
}

impl Standing {
    /// That of a person who is known or not.
    pub fn of(is_known: bool) -> Self {
        if is_known { Self::Known } else { Self::Removed }
    }
}

/// How a person may sign in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ways {
    /// By the fields `name` and `password`.
    pub password: bool,
    /// At these providers: the field `provider` holds the one chosen.
    pub providers: Vec<ProviderShown>,
}

/// A provider at which people may sign in, as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderShown {
    /// What the form sends back.
    pub id: String,
    /// Where the person will be sent.
    pub host: String,
}

/// Why a sign-in elsewhere came to nothing, in this server's words.
#[derive(Debug)]
pub struct SignInFault {
    /// The status of the page.
    pub status: StatusCode,
    /// What was wrong, and whose fault it is.
    pub reason: String,
    /// What to do.
    pub advice: &'static str,
    /// The account at the provider, where it is the reason; a peer's text.
    pub account: Option<String>,
    /// What the store said, where it is the reason: for the log of this server, and not for the page.
    pub store: Option<StoreError>,
}

/// What a browser's return from a provider came to.
#[derive(Debug)]
pub enum Returned {
    /// The person is signed in.
    SignedIn {
        /// For the answer.
        cookies: Vec<HeaderValue>,
        /// Where on this server they came from, as far as that was kept.
        place: Option<String>,
    },
    /// It answers nothing that this browser asked; nothing was used.
    NotOurs,
    /// It came to nothing. The person may try again.
    Failed {
        /// Why.
        fault: SignInFault,
        /// For the answer.
        cookies: Vec<HeaderValue>,
        /// Where on this server they came from, as far as that was kept.
        place: Option<String>,
        /// Where it was tried.
        provider: ProviderShown,
    },
    /// There is no such provider.
    NoPage,
}

/// What the sign-in page's form came to.
#[derive(Debug)]
pub enum SignIn {
    /// The person signs in elsewhere: the browser is sent there, with a cookie for its return.
    Elsewhere {
        /// Where to.
        location: HeaderValue,
        /// What the return is compared with.
        cookie: HeaderValue,
    },
    /// The person cannot be sent there now.
    Failed(SignInFault, ProviderShown),
    /// The person is signed in; further cookies go with the answer, where the host needs some.
    SignedIn(Vec<HeaderValue>),
    /// Name or password are wrong, or were tried too often: the page is shown again.
    Refused,
    /// As many sign in at the moment as can: the answer is 503.
    Busy,
    /// The store failed: the answer is 503.
    Unavailable(StoreError),
    /// This kind of authentication has no such page.
    NoPage,
}

/// Who ends a session when everything of its person is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// This server: it compares their epoch of today with this one, which the host reads
    /// ([`Store::read_session`](crate::store::Store::read_session)) before the person proves themselves and keeps with the session:
    /// one that was read after the proof is past a revocation that came between. The session must last less than
    /// [`EPOCH_KEPT`](crate::store::EPOCH_KEPT), a week: then the store may forget the epoch, and one that was forgotten ends
    /// nothing.
    Epoch(u64),
    /// The host, which keeps the session itself.
    Host,
}

/// What the host knows about the person.
#[derive(Debug)]
pub enum Person {
    /// Signed in, fully.
    SignedIn {
        /// The person's identifier, unique and never given to somebody else. Not empty.
        subject: String,
        /// Since when.
        since: OffsetDateTime,
        /// What somebody else calls the person, for the page; a peer's text, which identifies nobody.
        name: Option<String>,
        /// Who ends the session when everything of the person is revoked. Where it is this server, the epoch is that of before
        /// they proved themselves, and the session lasts less than a week.
        ended_by: EndedBy,
    },
    /// Not signed in; show the built-in page with one button for this person, which calls
    /// [`PersonAuthentication::sign_in`].
    Button {
        /// The name on the button.
        subject: String,
    },
    /// Not signed in; show the built-in page with these ways to sign in, which calls [`PersonAuthentication::sign_in`].
    Ways(Ways),
    /// Not signed in; answer with this, such as a redirect to the host's sign-in page that later comes back to the
    /// same authorization URL.
    Elsewhere(Box<Response>),
    /// It cannot be known at the moment.
    Unavailable,
}

/// Browsers of a [`LocalUser`] that stay signed in; the oldest goes when one more comes.
const SIGNED_IN_BROWSERS: usize = 256;

/// The one person at this machine, for demonstrations and servers of one's own on loopback. Whoever revokes everything of theirs
/// is they themselves, and stays signed in.
pub struct LocalUser {
    subject: String,
    clock: Arc<dyn Clock>,
    /// `None` is [`LocalUser::automatic`].
    signed_in: Option<Mutex<HashMap<[u8; 33], OffsetDateTime>>>,
}

impl LocalUser {
    /// Asks with a page of one button, once per browser session. `None` for an empty subject.
    pub fn with_page(subject: impl Into<String>) -> Option<Self> {
        Self::new(subject.into(), Some(Mutex::default()))
    }

    /// Takes whoever sends a request for this person, without asking. Only for a server that nobody else can reach.
    /// `None` for an empty subject.
    pub fn automatic(subject: impl Into<String>) -> Option<Self> {
        Self::new(subject.into(), None)
    }

    /// Reads the time there.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn new(subject: String, signed_in: Option<Mutex<HashMap<[u8; 33], OffsetDateTime>>>) -> Option<Self> {
        (!subject.is_empty()).then(|| Self { subject, clock: Arc::new(SystemClock), signed_in })
    }

    fn since(&self, browser: &Browser) -> Option<OffsetDateTime> {
        match &self.signed_in {
            None => Some(self.clock.now()),
            Some(browsers) => {
                let browsers = browsers.lock().unwrap_or_else(PoisonError::into_inner);
                browsers.get(&browser.agent().to_bytes()).copied()
            }
        }
    }
}

impl PersonAuthentication for LocalUser {
    fn standing<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Standing> {
        Box::pin(std::future::ready(Standing::of(self.subject == subject)))
    }

    fn person<'a>(&'a self, _request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person> {
        let subject = self.subject.clone();
        Box::pin(std::future::ready(match self.since(browser) {
            Some(since) => Person::SignedIn { subject, since, name: None, ended_by: EndedBy::Host },
            None => Person::Button { subject },
        }))
    }

    fn sign_in<'a>(
        &'a self,
        _request: &'a Parts,
        _form: &'a Form,
        browser: &'a Browser,
    ) -> BoxFuture<'a, SignIn> {
        if let Some(browsers) = &self.signed_in {
            let mut browsers = browsers.lock().unwrap_or_else(PoisonError::into_inner);
            if browsers.len() >= SIGNED_IN_BROWSERS {
                let oldest = browsers.iter().min_by_key(|(_, since)| **since).map(|(key, _)| *key);
                oldest.map(|key| browsers.remove(&key));
            }
            browsers.insert(browser.agent().to_bytes(), self.clock.now());
        }
        Box::pin(std::future::ready(SignIn::SignedIn(Vec::new())))
    }
}

impl fmt::Debug for LocalUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = self.signed_in.is_some();
        f.debug_struct("LocalUser")
            .field("subject", &self.subject)
            .field("asks", &asks)
            .finish_non_exhaustive()
    }
}
