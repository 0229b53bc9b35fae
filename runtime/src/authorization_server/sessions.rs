//! Who is signed in, in a cookie of the person's browser: sealed under the server's key and bound to the browser, so that
//! every process over one store knows it and none has to remember it. A session ends with its time, with the browser that its
//! person signs out in ([`mcp_authz::authorization_server::AuthorizationServer::signed_out`]), with what they proved themselves
//! with, and when everything of theirs is revoked: the store's epoch of the person is sealed with it.
//!
//! The epoch is that of before the proof: what is revoked while somebody proves themselves ends the session that comes of it.

use std::sync::Arc;

use http::HeaderValue;
use http::header::COOKIE;
use http::request::Parts;
use mcp_authz::sealer::Sealer;
use mcp_authz::secret::SecretDigest;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::json::{JsonObject, ObjectWriter};
use mcp_authz::time::{Duration, OffsetDateTime};

use super::browser::Browser;
use crate::store::{EPOCH_KEPT, ReadSession, SessionFound, Store, StoreError};

/// How long a person stays signed in.
pub(super) const SESSION: Duration = Duration::hours(8);

// I-T4: an epoch that was forgotten ends nothing, so it is kept for longer than what it ends; at least twice, because one is
// measured by the store's clock and the other by this machine's.
const _: () = assert!(SESSION.whole_seconds() * 2 < EPOCH_KEPT.whole_seconds());

/// Longest sealed session, in bytes.
const SESSION_BYTES: usize = 4096;

/// Makes the cookies and reads them.
pub(super) struct Sessions {
    store: Arc<dyn Store>,
    sealer: Arc<dyn Sealer + Send + Sync>,
    /// The cookie's name, and what is sealed with it: sessions of one kind of sign-in are none of another's.
    name: String,
    secure: bool,
}

/// Somebody who is signed in.
pub(super) struct Session {
    pub(super) subject: String,
    /// When they authenticated.
    pub(super) since: OffsetDateTime,
    /// What somebody else calls them; a peer's text.
    pub(super) name: Option<String>,
    /// A digest of what they proved themselves with here: whoever changes it ends the sessions that came of the old one.
    pub(super) proved: Option<SecretDigest>,
    /// Their epoch of before they proved themselves.
    pub(super) epoch: u64,
}

impl Sessions {
    /// Sessions of that kind, at an issuer that is https or not. The store is the server's.
    pub(super) fn new(
        store: Arc<dyn Store>,
        sealer: Arc<dyn Sealer + Send + Sync>,
        kind: &str,
        secure: bool,
    ) -> Self {
        let prefix = if secure { "__Host-" } else { "" };
        Self { store, sealer, name: format!("{prefix}mcp-authz-{kind}"), secure }
    }

    /// What the store says of that person at the moment.
    pub(super) async fn found_of(&self, subject: &str) -> Result<SessionFound, StoreError> {
        self.store.read_session(ReadSession::of(subject)).await
    }

    /// What a session is sealed for: this kind, in this browser.
    fn associated(&self, browser: &Browser) -> Vec<u8> {
        [self.name.as_bytes(), b" session 4 ", browser.agent().to_bytes().as_slice()].concat()
    }

    /// The cookie of somebody who has just signed in, in a browser that has just got a cookie for it.
    pub(super) fn cookie(
        &self,
        session: &Session,
        browser: &Browser,
        now: OffsetDateTime,
    ) -> Option<HeaderValue> {
        let text = ObjectWriter::new()
            .integer("at", now.unix_timestamp())
            .integer("since", session.since.unix_timestamp())
            .string("subject", session.subject.as_str())
            .string("epoch", session.epoch.to_string())
            .optional_string("name", session.name.as_deref())
            .optional_string("proved", session.proved.map(|proved| base64url::encode(proved.as_bytes())))
            .finish();
        let sealed = self.sealer.seal(&self.associated(browser), &text).ok()?;
        cookie(&self.name, &base64url::encode(&sealed), SESSION, self.secure)
    }

    /// Who is signed in in the browser.
    pub(super) fn of(&self, request: &Parts, browser: &Browser, now: OffsetDateTime) -> Option<Session> {
        let sealed = base64url::decode(only_cookie(request, &self.name)?).ok()?;
        let text = self.sealer.open(&self.associated(browser), &sealed).ok()?;
        let session = JsonObject::parse(&text, SESSION_BYTES).ok()?;
        let time = |name| OffsetDateTime::from_unix_timestamp(session.integer(name).ok().flatten()?).ok();
        if now >= time("at")?.saturating_add(SESSION) {
            return None;
        }
        Some(Session {
            subject: session.required_string("subject").ok()?.to_owned(),
            since: time("since")?,
            epoch: session.required_string("epoch").ok()?.parse().ok()?,
            name: session.string("name").ok()?.map(str::to_owned),
            proved: match session.string("proved").ok()? {
                None => None,
                Some(text) => {
                    let digest = base64url::decode(text).ok()?.try_into().ok()?;
                    Some(SecretDigest::from_bytes(digest))
                }
            },
        })
    }

    /// For the answer to whoever signs out: the cookie is no more.
    pub(super) fn no_cookie(&self) -> Option<HeaderValue> {
        cookie(&self.name, "", Duration::ZERO, self.secure)
    }
}

/// A cookie for this host alone, which no script reads.
pub(super) fn cookie(name: &str, value: &str, lifetime: Duration, secure: bool) -> Option<HeaderValue> {
    // MCP-SBP-007
    let secure = if secure { "; Secure" } else { "" };
    let seconds = lifetime.whole_seconds();
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    let mut cookie = HeaderValue::try_from(text).ok()?;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// The value of the request's one cookie of that name.
pub(super) fn only_cookie<'r>(request: &'r Parts, name: &str) -> Option<&'r str> {
    let cookies = request.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut ours = cookies
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value);
    // I-G2: of two cookies of one name, neither counts.
    let (Some(value), None) = (ours.next(), ours.next()) else { return None };
    Some(value)
}
