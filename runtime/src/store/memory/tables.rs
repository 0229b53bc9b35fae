//! The rows, and what several actions ask of them.

use std::collections::{BTreeMap, HashMap};

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientOrigin, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, Epochs, FamilyId,
    GrantRecord, PushedRecord, RefreshRecord,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use crate::store::{KeyRow, PENDING_DECISIONS, StoreError, UNUSED_CLIENTS};

/// The bytes of a digest. Looking one up may leak its bytes by time, and they are no secret.
pub(super) type Key = [u8; 32];

pub(super) fn key(digest: SecretDigest) -> Key {
    *digest.as_bytes()
}

#[derive(Default)]
pub(super) struct Tables {
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) decisions: HashMap<Key, DecisionRecord>,
    pub(super) codes: HashMap<Key, Code>,
    pub(super) families: HashMap<FamilyId, Family>,
    pub(super) grants: BTreeMap<FamilyId, GrantRecord>,
    pub(super) access_tokens: HashMap<Key, AccessRecord>,
    pub(super) consents: HashMap<Key, ConsentRecord>,
    pub(super) pushed: HashMap<Key, PushedRecord>,
    pub(super) keys: BTreeMap<String, KeyRow>,
    pub(super) incarnation: u64,
    pub(super) refresh_tokens: HashMap<Key, Refresh>,
    pub(super) tombstones: HashMap<FamilyId, OffsetDateTime>,
    pub(super) epochs: HashMap<EpochKey, u64>,
    pub(super) reservations: HashMap<(u8, String, String, String), OffsetDateTime>,
}

pub(super) struct Client {
    pub(super) record: ClientRecord,
    pub(super) used: Option<OffsetDateTime>,
}

pub(super) struct Code {
    pub(super) record: CodeRecord,
    pub(super) spent: bool,
}

pub(super) struct Family {
    pub(super) active: bool,
    pub(super) generation: u64,
    pub(super) not_after: OffsetDateTime,
}

pub(super) struct Refresh {
    pub(super) record: RefreshRecord,
    pub(super) retired: Option<Retired>,
}

/// How a refresh token was rotated away.
pub(super) struct Retired {
    pub(super) at: OffsetDateTime,
    pub(super) request: SecretDigest,
    pub(super) repeats: u32,
}

#[derive(PartialEq, Eq, Hash)]
pub(super) enum EpochKey {
    Client(ClientId),
    Subject(String),
    Consent(String, ClientId),
}

impl Tables {
    pub(super) fn epochs(&self, client: &ClientId, subject: &str) -> Epochs {
        let of = |key| self.epochs.get(&key).copied().unwrap_or_default();
        Epochs::new(
            of(EpochKey::Client(client.clone())),
            of(EpochKey::Subject(subject.to_owned())),
            of(EpochKey::Consent(subject.to_owned(), client.clone())),
        )
    }

    /// Whether nothing has been revoked since the grant was made.
    pub(super) fn stands(&self, grant: &GrantRecord) -> bool {
        !self.tombstones.contains_key(&grant.family)
            && self.epochs(&grant.client_id, &grant.subject) == grant.epochs
    }

    pub(super) fn is_active(&self, grant: &GrantRecord) -> bool {
        self.families.get(&grant.family).is_some_and(|family| family.active) && self.stands(grant)
    }

    pub(super) fn move_epoch(&mut self, key: EpochKey) -> Result<(), StoreError> {
        let epoch = self.epochs.entry(key).or_default();
        *epoch = epoch.checked_add(1).ok_or(StoreError::Inconsistent)?;
        Ok(())
    }

    pub(super) fn digest_of(&self, client: &ClientId) -> Option<SecretDigest> {
        self.clients.get(client).map(|client| SecretDigest::of(&client.record.to_bytes()))
    }

    /// Makes room for one more client that the operator did not write.
    pub(super) fn make_room_for_client(&mut self) {
        let unused =
            |client: &&Client| client.record.origin != ClientOrigin::PreRegistered && client.used.is_none();
        if self.clients.values().filter(unused).count() >= UNUSED_CLIENTS {
            // I-P7: the oldest of those that lose nothing by it.
            let oldest = self.clients.values().filter(unused).min_by_key(|client| client.record.created);
            if let Some(id) = oldest.map(|client| client.record.client_id.clone()) {
                self.clients.remove(&id);
            }
        }
    }

    /// Makes room for one more pending decision.
    pub(super) fn make_room_for_decision(&mut self, now: OffsetDateTime) {
        if self.decisions.len() >= PENDING_DECISIONS {
            self.decisions.retain(|_, decision| decision.not_after > now);
        }
        if self.decisions.len() >= PENDING_DECISIONS {
            let oldest = self.decisions.iter().min_by_key(|(_, decision)| decision.not_after);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.decisions.remove(&key);
            }
        }
    }
}
