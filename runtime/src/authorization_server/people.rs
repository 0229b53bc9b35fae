//! Who the person before the browser is: the host's own sign-in, behind one trait.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use http::HeaderValue;
use http::request::Parts;
use mcp_authz::syntax::form::Form;
use mcp_authz::time::OffsetDateTime;

use super::browser::Browser;
use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};

/// How the host knows the person. It is asked when an authorization request is valid, and again when the consent
/// page's form comes back.
pub trait PersonAuthentication: Send + Sync + fmt::Debug + 'static {
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
}

/// What the sign-in page's form came to.
#[derive(Debug)]
pub enum SignIn {
    /// The person is signed in; a further cookie goes with the answer, where the host needs one.
    SignedIn(Option<HeaderValue>),
    /// Name or password are wrong, or were tried too often: the page is shown again.
    Refused,
    /// This kind of authentication has no such page.
    NoPage,
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
    },
    /// Not signed in; show the built-in page with one button for this person, which calls
    /// [`PersonAuthentication::sign_in`].
    Button {
        /// The name on the button.
        subject: String,
    },
    /// Not signed in; show the built-in page that asks for name and password, which calls
    /// [`PersonAuthentication::sign_in`] with the fields `name` and `password`.
    Password,
    /// Not signed in; answer with this, such as a redirect to the host's sign-in page that later comes back to the
    /// same authorization URL.
    Elsewhere(Box<Response>),
    /// It cannot be known at the moment.
    Unavailable,
}

/// Browsers of a [`LocalUser`] that stay signed in; the oldest goes when one more comes.
const SIGNED_IN_BROWSERS: usize = 256;

/// The one person at this machine, for demonstrations and servers of one's own on loopback.
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
    fn person<'a>(&'a self, _request: &'a Parts, browser: &'a Browser) -> BoxFuture<'a, Person> {
        let subject = self.subject.clone();
        Box::pin(std::future::ready(match self.since(browser) {
            Some(since) => Person::SignedIn { subject, since },
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
        Box::pin(std::future::ready(SignIn::SignedIn(None)))
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
