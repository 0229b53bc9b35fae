//! How often everything of a client, a person, or a person's consent to a client was revoked.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_authz::authorization_server::record::Epochs;
use mcp_authz::identifier::ClientId;

/// What an epoch is of.
#[derive(Debug)]
pub(super) enum EpochKey {
    Client(ClientId),
    Subject(Arc<str>),
    Consent(Arc<str>, ClientId),
    /// Of the sessions of everybody.
    Everybody,
}

impl EpochKey {
    /// Whether what that person granted that client is ended by this.
    pub(super) fn covers(&self, client: &ClientId, subject: &str) -> bool {
        match self {
            Self::Client(own) => own == client,
            Self::Subject(own) => **own == *subject,
            Self::Consent(own, with) => **own == *subject && with == client,
            Self::Everybody => false,
        }
    }
}

/// The numbers of all that were moved. Each is looked up without a copy of its key.
#[derive(Default)]
pub(super) struct EpochRows {
    clients: HashMap<ClientId, u64>,
    subjects: HashMap<Arc<str>, u64>,
    consents: HashMap<Arc<str>, HashMap<ClientId, u64>>,
    everybody: u64,
}

impl EpochRows {
    /// Today's.
    pub(super) fn of(&self, client: &ClientId, subject: &str) -> Epochs {
        let or_none = |epoch: Option<&u64>| epoch.copied().unwrap_or_default();
        let consent = self.consents.get(subject).and_then(|with| with.get(client));
        Epochs::new(or_none(self.clients.get(client)), self.of_subject(subject), or_none(consent))
    }

    /// Today's of a person.
    fn of_subject(&self, subject: &str) -> u64 {
        self.subjects.get(subject).copied().unwrap_or_default()
    }

    /// Today's of a person's sessions.
    pub(super) fn of_sessions(&self, subject: &str) -> u64 {
        self.of_subject(subject).max(self.everybody)
    }

    /// The number to move.
    pub(super) fn entry(&mut self, key: EpochKey) -> &mut u64 {
        match key {
            EpochKey::Client(client) => self.clients.entry(client),
            EpochKey::Subject(subject) => return self.subjects.entry(subject).or_default(),
            EpochKey::Everybody => return &mut self.everybody,
            EpochKey::Consent(subject, client) => self.consents.entry(subject).or_default().entry(client),
        }
        .or_default()
    }

    /// Keeps what one of the three says is to be kept.
    pub(super) fn retain(
        &mut self,
        of_client: impl Fn(&ClientId, u64) -> bool,
        of_subject: impl Fn(&str, u64) -> bool,
        of_consent: impl Fn(&str, &ClientId, u64) -> bool,
    ) {
        self.clients.retain(|client, epoch| of_client(client, *epoch));
        self.subjects.retain(|subject, epoch| of_subject(subject, *epoch));
        self.consents.retain(|subject, with| {
            with.retain(|client, epoch| of_consent(subject, client, *epoch));
            !with.is_empty()
        });
    }
}
