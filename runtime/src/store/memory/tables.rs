//! The rows, and what several actions ask of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientOrigin, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, Epochs, GrantRecord,
    PushedRecord, RefreshRecord,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::epochs::{EpochKey, EpochRows};
use super::maps::{ByDigest, ByFamily, Key, Waiting};
use crate::store::{Bounds, EPOCH_KEPT, KeyRow, StoreError, epoch_at};

#[derive(Default)]
pub(super) struct Tables {
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) decisions: Waiting<Arc<DecisionRecord>>,
    pub(super) codes: ByDigest<Code>,
    pub(super) families: ByFamily<Family>,
    pub(super) access_tokens: ByDigest<Arc<AccessRecord>>,
    /// The key is made of what a client chose: it is hashed as a stranger's.
    pub(super) consents: HashMap<[u8; 32], ConsentRecord>,
    pub(super) pushed: Pushed,
    pub(super) keys: BTreeMap<String, KeyRow>,
    pub(super) incarnation: u64,
    pub(super) refresh_tokens: ByDigest<Refresh>,
    pub(super) tombstones: ByFamily<OffsetDateTime>,
    pub(super) epochs: EpochRows,
    /// By digests of what strangers choose, so that the hash is one that nobody can choose for.
    pub(super) reservations: HashMap<[u8; 32], OffsetDateTime>,
}

/// Pushed requests: those of the operator's clients, and those that strangers may have pushed.
#[derive(Default)]
pub(super) struct Pushed {
    of_operator: Waiting<PushedRecord>,
    of_strangers: Waiting<PushedRecord>,
}

impl Pushed {
    pub(super) fn of(&mut self, operator: bool) -> &mut Waiting<PushedRecord> {
        if operator { &mut self.of_operator } else { &mut self.of_strangers }
    }

    pub(super) fn get(&self, key: Key) -> Option<&PushedRecord> {
        self.of_operator.get(key).or_else(|| self.of_strangers.get(key))
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.of_operator.remove(key);
        self.of_strangers.remove(key);
    }

    pub(super) fn forget_ended(&mut self, now: OffsetDateTime) {
        self.of_operator.forget_ended(now);
        self.of_strangers.forget_ended(now);
    }
}

pub(super) struct Client {
    pub(super) record: Arc<ClientRecord>,
    pub(super) used: Option<OffsetDateTime>,
}

pub(super) struct Code {
    pub(super) record: Arc<CodeRecord>,
    pub(super) spent: bool,
}

pub(super) struct Family {
    /// From the redemption of the code on: what makes the family active.
    pub(super) grant: Option<Arc<GrantRecord>>,
    pub(super) generation: u64,
    pub(super) not_after: OffsetDateTime,
}

pub(super) struct Refresh {
    pub(super) record: Arc<RefreshRecord>,
    pub(super) retired: Option<Retired>,
}

/// How a refresh token was rotated away.
pub(super) struct Retired {
    pub(super) at: OffsetDateTime,
    pub(super) request: SecretDigest,
    pub(super) repeats: u32,
}

/// Where one more row goes.
pub(super) enum Room<K> {
    /// Beside the others.
    Free,
    /// In the place of that one.
    InsteadOf(K),
    /// Nowhere.
    None,
}

impl<K> Room<K> {
    /// The row that gives way, if one does.
    pub(super) fn instead_of(self) -> Option<K> {
        match self {
            Self::InsteadOf(key) => Some(key),
            Self::Free | Self::None => None,
        }
    }
}

impl Tables {
    pub(super) fn epochs(&self, client: &ClientId, subject: &str) -> Epochs {
        self.epochs.of(client, subject)
    }

    /// Whether nothing has been revoked since the grant was made.
    pub(super) fn stands(&self, grant: &GrantRecord) -> bool {
        !self.tombstones.contains_key(&grant.family)
            && self.epochs(&grant.client_id, &grant.subject) == grant.epochs
    }

    pub(super) fn is_active(&self, grant: &GrantRecord) -> bool {
        self.families.get(&grant.family).is_some_and(|family| family.grant.is_some()) && self.stands(grant)
    }

    /// What was granted.
    pub(super) fn grants(&self) -> impl Iterator<Item = &Arc<GrantRecord>> {
        self.families.values().filter_map(|family| family.grant.as_ref())
    }

    /// Ends everything that was granted under that key. The number is the time, so that none is used twice. Where there is
    /// nothing to end, none is kept, but for a person, whose sessions are in no table: only an operator ends everything of a
    /// person's, so that no stranger makes these rows grow.
    pub(super) fn move_epoch(&mut self, key: EpochKey, now: OffsetDateTime) -> Result<(), StoreError> {
        let has_sessions = matches!(key, EpochKey::Subject(_) | EpochKey::Everybody);
        if !has_sessions && !self.granted().any(|(client, subject)| key.covers(client, subject)) {
            return Ok(());
        }
        let epoch = self.epochs.entry(key);
        let next = epoch.checked_add(1).ok_or(StoreError::Inconsistent)?;
        *epoch = next.max(epoch_at(now));
        Ok(())
    }

    /// Client and person of everything that was granted, or may come to be.
    fn granted(&self) -> impl Iterator<Item = (&ClientId, &str)> {
        let asked = self.decisions.values().map(|decision| (&decision.client_id, &*decision.subject));
        let approved = self.codes.values().filter(|code| !code.spent).map(|code| &code.record.grant);
        let grants = approved.chain(self.grants());
        let grants = grants.map(|grant| (&grant.client_id, &*grant.subject));
        let remembered = self.consents.values().map(|consent| (&consent.client_id, &*consent.subject));
        asked.chain(grants).chain(remembered)
    }

    /// Forgets epochs that end nothing any more, [`EPOCH_KEPT`] after they were moved: no session that began before lasts that
    /// long, and no request that read what was before.
    pub(super) fn sweep_epochs(&mut self, now: OffsetDateTime) {
        let before = epoch_at(now.saturating_sub(EPOCH_KEPT));
        let (mut clients, mut subjects, mut pairs) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (client, subject) in self.granted() {
            clients.insert(client.clone());
            subjects.insert(subject.to_owned());
            pairs.insert((subject.to_owned(), client.clone()));
        }
        let fresh = |epoch: u64| epoch > before;
        self.epochs.retain(
            |client, epoch| fresh(epoch) || clients.contains(client),
            |subject, epoch| fresh(epoch) || subjects.contains(subject),
            |subject, client, epoch| fresh(epoch) || pairs.contains(&(subject.to_owned(), client.clone())),
        );
    }

    pub(super) fn digest_of(&self, client: &ClientId) -> Option<SecretDigest> {
        self.clients.get(client).map(|client| SecretDigest::of(&client.record.to_bytes()))
    }

    /// Clients that something rests on: a page that waits, a code that was not redeemed, a grant. What had ended by then
    /// is nothing.
    pub(super) fn busy_clients(&self, then: OffsetDateTime) -> HashSet<ClientId> {
        let asked = self.decisions.values().filter(|decision| decision.not_after > then);
        let approved = self.codes.values().filter(|code| !code.spent && code.record.expires > then);
        let asked = asked.map(|decision| &decision.client_id);
        let approved = approved.map(|code| &code.record.grant.client_id);
        let granted = self.grants().map(|grant| &grant.client_id);
        asked.chain(approved).chain(granted).cloned().collect()
    }

    /// Room for one more client that the operator did not write.
    pub(super) fn room_for_client(&self, bounds: Bounds, now: OffsetDateTime) -> Room<ClientId> {
        let unused =
            |client: &&Client| client.record.origin != ClientOrigin::PreRegistered && client.used.is_none();
        let unused: Vec<&Client> = self.clients.values().filter(unused).collect();
        if unused.len() < bounds.unused_clients {
            return Room::Free;
        }
        // I-P7: the oldest of those that lose nothing by it.
        let busy = self.busy_clients(now);
        let idle = unused.into_iter().filter(|client| !busy.contains(&client.record.client_id));
        let oldest = idle.min_by_key(|client| client.record.created);
        oldest.map_or(Room::None, |client| Room::InsteadOf(client.record.client_id.clone()))
    }

    /// Room for one more pending decision of that person.
    pub(super) fn room_for_decision(
        &mut self,
        subject: &Arc<str>,
        bounds: Bounds,
        now: OffsetDateTime,
    ) -> Room<Key> {
        self.decisions.room(subject, bounds.decisions, bounds.decisions_of_a_person, now)
    }
}
