//! The authorization server's store in memory, one action at a time: what the contract in
//! `authorization_server::store` says, and nothing more clever.
//!
//! Each method is one atomic operation. A test interleaves flows by choosing whose action comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientOrigin, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, Epochs, FamilyId,
    GrantRecord, PushedRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, Basis, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, Retirement, RevocationTarget,
    RevokeAll, RevokeFamily, RotateRefresh, UpdateClient,
};
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::{Duration, OffsetDateTime};

/// How far a family has come. A tombstone stands apart, because it may come before the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Pending,
    Active,
}

/// Everything that decides what a credential is good for; equal before and after an action that changed nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Credentials {
    codes: BTreeMap<SecretDigest, (CodeRecord, bool)>,
    families: BTreeMap<FamilyId, Family>,
    tombstones: BTreeMap<FamilyId, &'static str>,
    grants: BTreeMap<FamilyId, GrantRecord>,
    refresh: BTreeMap<SecretDigest, (RefreshRecord, Option<Retired>)>,
    access: BTreeMap<SecretDigest, AccessRecord>,
    epochs: BTreeMap<EpochOf, u64>,
}

/// When, by which request, and how often repeated.
type Retired = (OffsetDateTime, SecretDigest, u32);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum EpochOf {
    Client(String),
    Subject(String),
    Consent(String, String),
}

/// The store. Its clock stands still until a test moves it.
#[derive(Debug)]
pub struct Store {
    now: OffsetDateTime,
    clients: BTreeMap<String, ClientRecord>,
    used_clients: BTreeSet<String>,
    decisions: BTreeMap<SecretDigest, DecisionRecord>,
    pushed: BTreeMap<SecretDigest, PushedRecord>,
    consents: BTreeMap<SecretDigest, ConsentRecord>,
    reserved: BTreeSet<(String, String, String)>,
    credentials: Credentials,
}

impl Store {
    /// An empty store whose clock shows that time.
    pub fn new(now: OffsetDateTime) -> Self {
        Self {
            now,
            clients: BTreeMap::new(),
            used_clients: BTreeSet::new(),
            decisions: BTreeMap::new(),
            pushed: BTreeMap::new(),
            consents: BTreeMap::new(),
            reserved: BTreeSet::new(),
            credentials: Credentials::default(),
        }
    }

    /// The store's clock.
    pub fn now(&self) -> OffsetDateTime {
        self.now
    }

    /// Moves the clock.
    pub fn pass(&mut self, duration: Duration) {
        self.now += duration;
    }

    /// Writes a client down, as an operator does.
    pub fn put_client(&mut self, record: ClientRecord) {
        self.clients.insert(record.client_id.as_str().to_owned(), record);
    }

    /// Forgets a client, as housekeeping does.
    pub fn drop_client(&mut self, client_id: &str) {
        self.clients.remove(client_id);
    }

    /// What is known of a client.
    pub fn client(&self, client_id: &str) -> Option<ClientRecord> {
        self.clients.get(client_id).cloned()
    }

    /// A retired refresh token, when it was retired and by which request.
    pub fn retired(&self, digest: SecretDigest) -> Option<(RefreshRecord, OffsetDateTime, SecretDigest)> {
        let (record, retired) = self.credentials.refresh.get(&digest)?;
        let (at, request, _) = (*retired)?;
        Some((record.clone(), at, request))
    }

    /// Inserts a code with its pending family, as an approval does.
    pub fn put_code(&mut self, digest: SecretDigest, record: CodeRecord) {
        self.credentials.families.insert(record.grant.family, Family::Pending);
        self.credentials.codes.insert(digest, (record, false));
    }

    /// What a code stands for.
    pub fn code(&self, code: &str) -> Option<CodeRecord> {
        let digest = SecretDigest::of(code.as_bytes());
        self.credentials.codes.get(&digest).map(|(record, _)| record.clone())
    }

    /// How many codes there are.
    pub fn codes(&self) -> usize {
        self.credentials.codes.len()
    }

    /// How many decisions are pending.
    pub fn pending(&self) -> usize {
        self.decisions.len()
    }

    /// Everything that decides about credentials.
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// The refresh tokens of a family that could be used now: a chain has at most one (I-T1).
    pub fn live_leaves(&self, family: FamilyId) -> usize {
        let leaf = |(record, retired): &&(RefreshRecord, Option<Retired>)| {
            record.grant.family == family && retired.is_none() && self.is_active(&record.grant)
        };
        self.credentials.refresh.values().filter(leaf).count()
    }

    /// Every family there ever was.
    pub fn families(&self) -> Vec<FamilyId> {
        self.credentials.families.keys().copied().collect()
    }

    /// Whether the family has a tombstone.
    pub fn is_revoked(&self, family: FamilyId) -> bool {
        self.credentials.tombstones.contains_key(&family)
    }

    /// Why the family has a tombstone.
    pub fn revocation(&self, family: FamilyId) -> Option<&'static str> {
        self.credentials.tombstones.get(&family).copied()
    }

    /// Whether the client ever completed an authorization (D40).
    pub fn was_used(&self, client_id: &str) -> bool {
        self.used_clients.contains(client_id)
    }

    /// [`FindClient`]
    pub fn find_client(&self, action: FindClient) -> ClientFound {
        match self.clients.get(action.client_id().as_str()).cloned() {
            Some(record) => action.found(record, self.now),
            None => action.absent(self.now),
        }
    }

    /// [`InsertClient`]
    pub fn insert_client(&mut self, action: InsertClient) -> ClientInsertion {
        let key = action.record().client_id.as_str().to_owned();
        if self.clients.contains_key(&key) {
            return action.taken();
        }
        self.clients.insert(key, action.record().clone());
        action.inserted()
    }

    /// [`UpdateClient`]
    pub fn update_client(&mut self, action: UpdateClient) -> ClientUpdate {
        let key = action.record().client_id.as_str();
        if self.digest_of(key) != Some(action.expected()) {
            return action.changed();
        }
        self.clients.insert(key.to_owned(), action.record().clone());
        action.updated()
    }

    /// [`DeleteClient`]
    pub fn delete_client(&mut self, action: DeleteClient) -> ClientDeletion {
        let key = action.client_id().as_str();
        if self.digest_of(key) != Some(action.expected()) {
            return action.changed();
        }
        self.clients.remove(key);
        *self.credentials.epochs.entry(EpochOf::Client(key.to_owned())).or_default() += 1;
        action.deleted()
    }

    fn digest_of(&self, client_id: &str) -> Option<SecretDigest> {
        self.clients.get(client_id).map(|record| SecretDigest::of(&record.to_bytes()))
    }

    /// [`InsertPushed`]
    pub fn insert_pushed(&mut self, action: InsertPushed) -> PushedInsertion {
        self.pushed.insert(action.key(), action.record().clone());
        action.inserted()
    }

    /// [`ReadPushed`]
    pub fn read_pushed(&self, action: ReadPushed) -> PushedFound {
        match self.pushed.get(&action.key()).cloned() {
            Some(record) => action.found(record, self.now),
            None => action.absent(self.now),
        }
    }

    /// [`ReadConsent`]
    pub fn read_consent(&self, action: ReadConsent) -> ConsentFound {
        match self.consents.get(&action.key()).cloned() {
            Some(record) => {
                let epochs = self.epochs(record.client_id.as_str(), &record.subject);
                action.found(record, epochs, self.now)
            }
            None => action.absent(self.now),
        }
    }

    /// [`ReserveOnce`]
    pub fn reserve_once(&mut self, action: ReserveOnce) -> Reservation {
        let key =
            (action.issuer().to_owned(), action.audience().as_str().to_owned(), action.value().to_owned());
        if self.reserved.insert(key) { action.reserved() } else { action.already_seen() }
    }

    /// [`InsertDecision`]
    pub fn insert_decision(&mut self, action: InsertDecision) -> DecisionInsertion {
        if action.pushed().is_some_and(|key| self.pushed.remove(&key).is_none()) {
            return action.pushed_is_gone();
        }
        if let Some(client) = action.client() {
            let key = client.client_id.as_str().to_owned();
            let replaceable = |known: &ClientRecord| known.origin == ClientOrigin::MetadataDocument;
            if self.clients.get(&key).is_none_or(replaceable) {
                self.clients.insert(key, ClientRecord::clone(client));
            }
        }
        self.decisions.insert(action.key(), DecisionRecord::clone(action.record()));
        action.inserted()
    }

    /// [`ReadDecision`]
    pub fn read_decision(&self, action: ReadDecision) -> DecisionFound {
        match self.decisions.get(&action.key()).cloned() {
            Some(record) => {
                let client = self.clients.get(record.client_id.as_str()).cloned().map(Arc::new);
                let epochs = self.epochs(record.client_id.as_str(), &record.subject);
                action.found(record, client, epochs, self.now)
            }
            None => action.absent(self.now),
        }
    }

    /// [`DecideOnce`]
    pub fn decide_once(&mut self, action: DecideOnce) -> DecisionTaken {
        match action.basis() {
            Basis::Answer { decision, agent, subject } => {
                let Some(record) = self.decisions.get(decision) else { return action.absent() };
                if record.agent != *agent || record.subject != *subject {
                    return action.not_yours();
                }
                self.decisions.remove(decision);
            }
            Basis::Remembered(key) => {
                if !self.consents.contains_key(key) {
                    return action.absent();
                }
            }
        }
        if let Some((key, record)) = action.remember() {
            self.consents.insert(key, record.clone());
        }
        if let Some((digest, record)) = action.code() {
            self.put_code(digest, CodeRecord::clone(record));
        }
        action.stored()
    }

    /// [`ReadCode`]
    pub fn read_code(&self, action: ReadCode) -> CodeFound {
        match self.credentials.codes.get(&action.digest()).cloned() {
            Some((record, false)) => action.live(record, self.now),
            Some((record, true)) => action.spent(record, self.now),
            None => action.absent(self.now),
        }
    }

    /// [`RedeemCode`]
    pub fn redeem_code(&mut self, action: RedeemCode) -> CodeRedemption {
        let family = action.grant().family;
        match self.credentials.codes.get(&action.digest()) {
            None => return action.absent(),
            Some((_, true)) => return action.replayed(),
            Some((_, false)) => {}
        }
        let pending = self.credentials.families.get(&family) == Some(&Family::Pending);
        if !pending || self.is_revoked(family) || !self.is_current(action.grant()) {
            return action.revoked();
        }
        if let Some((_, spent)) = self.credentials.codes.get_mut(&action.digest()) {
            *spent = true;
        }
        self.credentials.families.insert(family, Family::Active);
        self.credentials.grants.insert(family, GrantRecord::clone(action.grant()));
        if let Some((digest, record)) = action.refresh() {
            self.credentials.refresh.insert(digest, (RefreshRecord::clone(record), None));
        }
        if let Some((digest, record)) = action.access() {
            self.credentials.access.insert(digest, AccessRecord::clone(record));
        }
        self.used_clients.insert(action.grant().client_id.as_str().to_owned());
        action.redeemed()
    }

    /// [`ReadAccess`]
    pub fn read_access(&self, action: ReadAccess) -> AccessFound {
        match self.credentials.access.get(&action.digest()).cloned() {
            Some(record) if self.is_active(&record.grant) => action.found(record, self.now),
            _ => action.absent(self.now),
        }
    }

    /// [`ReadGrant`]
    pub fn read_grant(&self, action: ReadGrant) -> GrantFound {
        match self.credentials.grants.get(&action.family()).cloned() {
            Some(record) if self.is_active(&record) => action.found(record, self.now),
            _ => action.absent(self.now),
        }
    }

    /// [`ReadRefresh`]
    pub fn read_refresh(&self, action: ReadRefresh) -> RefreshFound {
        match self.credentials.refresh.get(&action.digest()).cloned() {
            Some((record, _)) if !self.is_active(&record.grant) => action.absent(self.now),
            Some((record, None)) => action.live(record, self.now),
            Some((record, Some((at, request, repeats)))) => {
                let unused = self.leaf(record.grant.family) == Some(record.generation + 1);
                action.retired(record, Retirement::new(at, request, repeats, unused), self.now)
            }
            None => action.absent(self.now),
        }
    }

    /// The generation of a family's live refresh token.
    fn leaf(&self, family: FamilyId) -> Option<u64> {
        let of = |(record, retired): &&(RefreshRecord, Option<Retired>)| {
            record.grant.family == family && retired.is_none()
        };
        self.credentials.refresh.values().find(of).map(|(record, _)| record.generation)
    }

    /// [`RotateRefresh`]
    pub fn rotate_refresh(&mut self, action: RotateRefresh) -> RefreshRotation {
        let (now, successor) = (self.now, action.successor().clone());
        let active = self.is_active(&successor.grant);
        let leaf = self.leaf(successor.grant.family);
        let same = self.credentials.refresh.get(&action.successor_digest());
        let replaces =
            same.is_some_and(|(_, retired)| retired.is_none()) && leaf == Some(successor.generation);
        let Some((record, retired)) = self.credentials.refresh.get_mut(&action.presented()) else {
            return action.absent();
        };
        if record.generation != action.presented_generation() {
            return action.retired();
        }
        match (action.repeats(), retired.as_mut()) {
            (None, None) | (Some(_), Some(_)) if !active => return action.revoked(),
            (None, None) => *retired = Some((now, action.request(), 0)),
            (Some(most), Some((_, _, repeats))) if replaces && *repeats < most => *repeats += 1,
            _ => return action.retired(),
        }
        if action.repeats().is_none() {
            self.credentials
                .refresh
                .insert(action.successor_digest(), (RefreshRecord::clone(&successor), None));
        }
        if let Some((digest, record)) = action.access() {
            self.credentials.access.insert(digest, AccessRecord::clone(record));
        }
        action.rotated()
    }

    /// [`RevokeFamily`]
    pub fn revoke_family(&mut self, action: RevokeFamily) -> FamilyRevocation {
        self.credentials.tombstones.entry(action.family()).or_insert(action.reason().as_str());
        action.revoked()
    }

    /// [`RevokeAll`]
    pub fn revoke_all(&mut self, action: RevokeAll) -> AllRevoked {
        let whose = match action.target() {
            RevocationTarget::Client(client) => EpochOf::Client(client.as_str().to_owned()),
            RevocationTarget::Subject(subject) => EpochOf::Subject(subject.clone()),
            RevocationTarget::Consent { subject, client_id } => {
                EpochOf::Consent(subject.clone(), client_id.as_str().to_owned())
            }
            other => panic!("the store does not know the target {other:?}"),
        };
        *self.credentials.epochs.entry(whose).or_default() += 1;
        action.revoked()
    }

    fn epochs(&self, client: &str, subject: &str) -> Epochs {
        let of = |whose| self.credentials.epochs.get(&whose).copied().unwrap_or(0);
        Epochs::new(
            of(EpochOf::Client(client.to_owned())),
            of(EpochOf::Subject(subject.to_owned())),
            of(EpochOf::Consent(subject.to_owned(), client.to_owned())),
        )
    }

    /// Whether nothing of client, person or consent was revoked since the grant.
    fn is_current(&self, grant: &GrantRecord) -> bool {
        self.epochs(grant.client_id.as_str(), &grant.subject) == grant.epochs
    }

    fn is_active(&self, grant: &GrantRecord) -> bool {
        let active = self.credentials.families.get(&grant.family) == Some(&Family::Active);
        active && !self.is_revoked(grant.family) && self.is_current(grant)
    }
}
