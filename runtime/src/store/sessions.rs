//! What ends the sessions of people: they sign out, or everything of theirs is revoked.

use mcp_authz::authorization_server::store::ReserveOnce;
use mcp_authz::time::{Duration, OffsetDateTime};

/// How long a store keeps a person's epoch at least after it moved, by its own clock: a session of before that lasts as long lives
/// again. Sessions here last eight hours; a week, so that a clock that jumps by days revives none of them.
pub const EPOCH_KEPT: Duration = Duration::days(7);

/// Asks a store for what ends sessions of a person.
#[derive(Debug)]
pub struct ReadSession {
    subject: String,
    signed_out: Option<ReserveOnce>,
}

impl ReadSession {
    /// Of that person; nobody is called the empty string.
    pub fn of(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), signed_out: None }
    }

    /// In the browser that this says they signed out in
    /// ([`AuthorizationServer::signed_out`](mcp_authz::authorization_server::AuthorizationServer::signed_out)).
    #[must_use]
    pub fn in_browser(self, signed_out: ReserveOnce) -> Self {
        Self { signed_out: Some(signed_out), ..self }
    }

    /// The person.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What would be reserved, had they signed out in the browser.
    pub fn signed_out(&self) -> Option<&ReserveOnce> {
        self.signed_out.as_ref()
    }
}

/// What ends sessions of a person, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionFound {
    /// Whether they signed out in the browser; not where none was named.
    pub signed_out: bool,
    /// Their epoch: when everything of theirs was last revoked, or everybody's ended with an older copy of the store
    /// ([`AdministeredStore::restored`](super::AdministeredStore::restored)), in microseconds since 1970, or a little later. 0 where
    /// neither was, or has been forgotten ([`EPOCH_KEPT`]).
    pub epoch: u64,
    /// The store's clock.
    pub now: OffsetDateTime,
}

impl SessionFound {
    /// Whether a session still stands that began when the person's epoch was that. One that is less today was forgotten, and ends
    /// nothing.
    pub fn stands(&self, began_under: u64) -> bool {
        // I-T4
        !self.signed_out && !self.is_revoked_since(began_under)
    }

    /// Whether everything of the person was revoked after their epoch was that.
    pub fn is_revoked_since(&self, epoch: u64) -> bool {
        self.epoch > epoch
    }
}

/// An instant as an epoch that was written then.
pub(crate) fn epoch_at(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or_default()
}
