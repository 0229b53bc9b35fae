//! The store in memory: every action under one lock. What it holds ends with the process.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord, FamilyId};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, Basis, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, Retirement, RevocationTarget,
    RevokeAll, RevokeFamily, RotateRefresh, UpdateClient,
};
use mcp_authz::time::OffsetDateTime;

use super::{
    AFTER_FAMILY, Bounds, ReadSession, SessionFound, Store, StoreError, Stored, UNUSED_CLIENT_LIFETIME,
    USED_CLIENT_LIFETIME, reservation_key,
};
use crate::clock::{Clock, SystemClock};

mod administration;
mod epochs;
mod maps;
mod tables;

use epochs::EpochKey;
use tables::{Client, Code, Family, Refresh, Retired, Room, Tables};

/// A [`Store`] in memory.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    tables: Mutex<Tables>,
}

impl MemoryStore {
    /// An empty store on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// An empty store on another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, bounds: Bounds::default(), tables: Mutex::default() }
    }

    /// Sets how much may wait at one time.
    #[must_use]
    pub fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Runs one action: all of it under the lock.
    fn act<R: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Tables, OffsetDateTime) -> Result<R, StoreError>,
    ) -> Stored<'_, R> {
        self.act_at_any_time(|tables| action(tables, self.clock.now()))
    }

    /// Runs one action in which nothing ends by itself.
    fn act_at_any_time<R: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Tables) -> Result<R, StoreError>,
    ) -> Stored<'_, R> {
        Stored::at_once(self.lock().and_then(|mut tables| action(&mut tables)))
    }

    fn lock(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        // A panic while the lock was held may have left half an action behind (I-G9).
        self.tables.lock().map_err(|_| StoreError::Inconsistent)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl Store for MemoryStore {
    fn find_client(&self, action: FindClient) -> Stored<'_, ClientFound> {
        self.act(|tables, now| {
            Ok(match tables.clients.get(action.client_id()) {
                Some(client) => action.found(client.record.clone(), now),
                None => action.absent(now),
            })
        })
    }

    fn insert_client(&self, action: InsertClient) -> Stored<'_, ClientInsertion> {
        self.act(|tables, now| {
            // I-P5
            if tables.clients.contains_key(&action.record().client_id) {
                return Ok(action.taken());
            }
            match tables.room_for_client(self.bounds, now) {
                Room::Free => {}
                Room::InsteadOf(oldest) => drop(tables.clients.remove(&oldest)),
                Room::None => return Ok(action.full()),
            }
            let record = Arc::new(action.record().clone());
            tables.clients.insert(record.client_id.clone(), Client { record, used: None });
            Ok(action.inserted())
        })
    }

    fn put_client(&self, record: ClientRecord) -> Stored<'_, ()> {
        self.act_at_any_time(|tables| {
            let used = tables.clients.get(&record.client_id).and_then(|client| client.used);
            tables.clients.insert(record.client_id.clone(), Client { record: Arc::new(record), used });
            Ok(())
        })
    }

    fn update_client(&self, action: UpdateClient) -> Stored<'_, ClientUpdate> {
        self.act_at_any_time(|tables| {
            let record = action.record().clone();
            if tables.digest_of(&record.client_id) != Some(action.expected()) {
                return Ok(action.changed());
            }
            if let Some(client) = tables.clients.get_mut(&record.client_id) {
                client.record = Arc::new(record);
            }
            Ok(action.updated())
        })
    }

    fn delete_client(&self, action: DeleteClient) -> Stored<'_, ClientDeletion> {
        self.act(|tables, now| {
            if tables.digest_of(action.client_id()) != Some(action.expected()) {
                return Ok(action.changed());
            }
            tables.move_epoch(EpochKey::Client(action.client_id().clone()), now)?;
            tables.clients.remove(action.client_id());
            Ok(action.deleted())
        })
    }

    fn insert_pushed(&self, action: InsertPushed) -> Stored<'_, PushedInsertion> {
        self.act(|tables, now| {
            if tables.pushed.get(action.key().into()).is_some() {
                return Err(StoreError::Inconsistent);
            }
            let most = self.bounds.pushed(action.is_of_operator());
            let waiting = tables.pushed.of(action.is_of_operator());
            match waiting.room(&action.record().client_id, most, self.bounds.pushed_of_a_client, now) {
                Room::Free => {}
                Room::InsteadOf(oldest) => waiting.remove(oldest),
                Room::None => return Ok(action.full()),
            }
            waiting.insert(action.key().into(), action.record().clone());
            Ok(action.inserted())
        })
    }

    fn read_pushed(&self, action: ReadPushed) -> Stored<'_, PushedFound> {
        self.act(|tables, now| {
            Ok(match tables.pushed.get(action.key().into()) {
                Some(record) => action.found(record.clone(), now),
                None => action.absent(now),
            })
        })
    }

    fn read_consent(&self, action: ReadConsent) -> Stored<'_, ConsentFound> {
        self.act(|tables, now| {
            Ok(match tables.consents.get(action.key().as_bytes()) {
                Some(record) => {
                    let epochs = tables.epochs(&record.client_id, &record.subject);
                    action.found(record.clone(), epochs, now)
                }
                None => action.absent(now),
            })
        })
    }

    fn read_access(&self, action: ReadAccess) -> Stored<'_, AccessFound> {
        self.act(|tables, now| {
            Ok(match tables.access_tokens.get(&action.digest().into()) {
                Some(record) if tables.is_active(&record.grant) => action.found(record.clone(), now),
                _ => action.absent(now),
            })
        })
    }

    fn read_grant(&self, action: ReadGrant) -> Stored<'_, GrantFound> {
        self.act(|tables, now| {
            let family = tables.families.get(&action.family());
            Ok(match family.and_then(|family| family.grant.as_ref()) {
                Some(record) if tables.stands(record) => action.found(record.clone(), now),
                _ => action.absent(now),
            })
        })
    }

    fn insert_decision(&self, action: InsertDecision) -> Stored<'_, DecisionInsertion> {
        self.act(|tables, now| {
            if action.pushed().is_some_and(|pushed| tables.pushed.get(pushed.into()).is_none()) {
                return Ok(action.pushed_is_gone());
            }
            if tables.decisions.contains_key(action.key().into()) {
                return Err(StoreError::Inconsistent);
            }
            let room = tables.room_for_decision(&action.record().subject, self.bounds, now);
            let known = action.client().is_none_or(|client| tables.clients.contains_key(&client.client_id));
            let client_room = if known { Room::Free } else { tables.room_for_client(self.bounds, now) };
            if matches!(room, Room::None) || matches!(client_room, Room::None) {
                return Ok(action.full());
            }
            if let Some(oldest) = room.instead_of() {
                tables.decisions.remove(oldest);
            }
            if let Some(oldest) = client_room.instead_of() {
                tables.clients.remove(&oldest);
            }
            tables.decisions.insert(action.key().into(), action.record().clone());
            if let Some(pushed) = action.pushed() {
                tables.pushed.remove(pushed.into());
            }
            if let Some(record) = action.client() {
                let known = tables.clients.get(&record.client_id);
                let used = known.and_then(|client| client.used);
                // Only a client of that origin is replaced (I-P5), and not by what was fetched before it.
                let gives_way = known.is_none_or(|Client { record: known, .. }| {
                    known.origin == ClientOrigin::MetadataDocument && known.created <= record.created
                });
                if gives_way {
                    let client = Client { record: record.clone(), used };
                    tables.clients.insert(record.client_id.clone(), client);
                }
            }
            Ok(action.inserted())
        })
    }

    fn read_decision(&self, action: ReadDecision) -> Stored<'_, DecisionFound> {
        self.act(|tables, now| {
            Ok(match tables.decisions.get(action.key().into()) {
                Some(record) => {
                    let client = tables.clients.get(&record.client_id);
                    let client = client.map(|client| Arc::clone(&client.record));
                    let epochs = tables.epochs(&record.client_id, &record.subject);
                    action.found(record.clone(), client, epochs, now)
                }
                None => action.absent(now),
            })
        })
    }

    fn decide_once(&self, action: DecideOnce) -> Stored<'_, DecisionTaken> {
        self.act_at_any_time(|tables| {
            match action.basis() {
                Basis::Answer { decision, agent, subject } => {
                    let Some(record) = tables.decisions.get((*decision).into()) else {
                        return Ok(action.absent());
                    };
                    // I-P9: browser and person of the page.
                    if record.agent != *agent || record.subject != *subject {
                        return Ok(action.not_yours());
                    }
                }
                Basis::Remembered(consent) => {
                    if !tables.consents.contains_key(consent.as_bytes()) {
                        return Ok(action.absent());
                    }
                }
            }
            if let Some((digest, code)) = action.code() {
                let family = code.grant.family;
                if tables.families.contains_key(&family) || tables.codes.contains_key(&digest.into()) {
                    return Err(StoreError::Inconsistent);
                }
                let not_after = code.grant.not_after;
                tables.families.insert(family, Family { grant: None, generation: 0, not_after });
                tables.codes.insert(digest.into(), Code { record: code.clone(), spent: false });
            }
            if let Some((digest, consent)) = action.remember() {
                tables.consents.insert(*digest.as_bytes(), consent.clone());
            }
            if let Basis::Answer { decision, .. } = action.basis() {
                tables.decisions.remove((*decision).into());
            }
            Ok(action.stored())
        })
    }

    fn read_code(&self, action: ReadCode) -> Stored<'_, CodeFound> {
        self.act(|tables, now| {
            Ok(match tables.codes.get(&action.digest().into()) {
                Some(Code { record, spent: false }) => action.live(record.clone(), now),
                Some(Code { record, spent: true }) => action.spent(record.clone(), now),
                None => action.absent(now),
            })
        })
    }

    fn redeem_code(&self, action: RedeemCode) -> Stored<'_, CodeRedemption> {
        self.act(|tables, now| {
            let family = action.grant().family;
            let Some(code) = tables.codes.get(&action.digest().into()) else { return Ok(action.absent()) };
            if code.record.grant.family != family {
                return Ok(action.absent());
            }
            // OAUTH21-4.1.3-1, I-C1
            if code.spent {
                return Ok(action.replayed());
            }
            let pending = tables.families.get(&family).is_some_and(|family| family.grant.is_none());
            if !pending || !tables.stands(action.grant()) {
                return Ok(action.revoked());
            }
            if let Some((digest, record)) = action.refresh() {
                if tables.refresh_tokens.contains_key(&digest.into()) {
                    return Err(StoreError::Inconsistent);
                }
                let refresh = Refresh { record: record.clone(), retired: None };
                tables.refresh_tokens.insert(digest.into(), refresh);
            }
            if let Some((digest, record)) = action.access() {
                tables.access_tokens.insert(digest.into(), record.clone());
            }
            if let Some(code) = tables.codes.get_mut(&action.digest().into()) {
                code.spent = true;
            }
            if let Some(row) = tables.families.get_mut(&family) {
                row.grant = Some(action.grant().clone());
                row.generation = action.refresh().map_or(0, |(_, record)| record.generation);
            }
            if let Some(client) = tables.clients.get_mut(&action.grant().client_id) {
                client.used = Some(now);
            }
            Ok(action.redeemed())
        })
    }

    fn read_refresh(&self, action: ReadRefresh) -> Stored<'_, RefreshFound> {
        self.act(|tables, now| {
            let Some(refresh) = tables.refresh_tokens.get(&action.digest().into()) else {
                return Ok(action.absent(now));
            };
            let record = refresh.record.clone();
            if !tables.is_active(&record.grant) {
                return Ok(action.absent(now));
            }
            let Some(retired) = &refresh.retired else { return Ok(action.live(record, now)) };
            let leaf = tables.families.get(&record.grant.family).map(|family| family.generation);
            let unused = leaf.is_some() && leaf == record.generation.checked_add(1);
            let retirement = Retirement::new(retired.at, retired.request, retired.repeats, unused);
            Ok(action.retired(record, retirement, now))
        })
    }

    fn rotate_refresh(&self, action: RotateRefresh) -> Stored<'_, RefreshRotation> {
        self.act(|tables, now| {
            let grant = &action.successor().grant;
            let family = grant.family;
            let Some(row) = tables.refresh_tokens.get(&action.presented().into()) else {
                return Ok(action.absent());
            };
            if row.record.grant.family != family || row.record.generation != action.presented_generation() {
                return Ok(action.absent());
            }
            if !tables.is_active(grant) {
                return Ok(action.revoked());
            }
            let leaf = tables.families.get(&family).map(|leaf| leaf.generation);
            let may = match (action.repeats(), &row.retired) {
                // OAUTH21-4.3.1-3, I-T1: the leaf of that generation and no other.
                (None, None) => leaf == Some(action.presented_generation()),
                // I-T3
                (Some(most), Some(retired)) => {
                    let same = tables.refresh_tokens.get(&action.successor_digest().into());
                    retired.repeats < most
                        && same.is_some_and(|same| same.retired.is_none())
                        && leaf == Some(action.successor().generation)
                }
                _ => false,
            };
            if !may {
                return Ok(action.retired());
            }
            let repeated = action.repeats().is_some();
            if !repeated && tables.refresh_tokens.contains_key(&action.successor_digest().into()) {
                return Err(StoreError::Inconsistent);
            }
            if let Some(row) = tables.refresh_tokens.get_mut(&action.presented().into()) {
                match &mut row.retired {
                    Some(retired) => retired.repeats = retired.repeats.saturating_add(1),
                    None => {
                        let (request, repeats) = (action.request(), 0);
                        row.retired = Some(Retired { at: now, request, repeats });
                    }
                }
            }
            if let Some((digest, record)) = action.access() {
                tables.access_tokens.insert(digest.into(), record.clone());
            }
            if let Some(client) = tables.clients.get_mut(&grant.client_id) {
                client.used = Some(now);
            }
            if !repeated {
                if let Some(leaf) = tables.families.get_mut(&family) {
                    leaf.generation = action.successor().generation;
                }
                let successor = Refresh { record: action.successor().clone(), retired: None };
                tables.refresh_tokens.insert(action.successor_digest().into(), successor);
            }
            Ok(action.rotated())
        })
    }

    fn revoke_family(&self, action: RevokeFamily) -> Stored<'_, FamilyRevocation> {
        self.act_at_any_time(|tables| {
            tables.tombstones.insert(action.family(), action.not_after());
            Ok(action.revoked())
        })
    }

    fn revoke_all(&self, action: RevokeAll) -> Stored<'_, AllRevoked> {
        self.act(|tables, now| {
            let epoch = match action.target() {
                RevocationTarget::Client(id) => EpochKey::Client(id.clone()),
                RevocationTarget::Subject(subject) => EpochKey::Subject(subject.as_str().into()),
                RevocationTarget::Consent { subject, client_id } => {
                    EpochKey::Consent(subject.as_str().into(), client_id.clone())
                }
                // A target this store does not know must not count as revoked.
                _ => return Err(StoreError::Inconsistent),
            };
            tables.move_epoch(epoch, now)?;
            Ok(action.revoked())
        })
    }

    fn reserve_once(&self, action: ReserveOnce) -> Stored<'_, Reservation> {
        self.act(|tables, now| {
            // I-A12: what has ended by the store's clock might have been forgotten already.
            if action.until() <= now {
                return Ok(action.already_seen());
            }
            let id = *reservation_key(&action)?.as_bytes();
            // I-A12
            if tables.reservations.get(&id).is_some_and(|until| *until > now) {
                return Ok(action.already_seen());
            }
            tables.reservations.insert(id, action.until());
            Ok(action.reserved())
        })
    }

    fn read_session(&self, action: ReadSession) -> Stored<'_, SessionFound> {
        self.act(|tables, now| {
            let key = action.signed_out().map(reservation_key).transpose()?;
            let until = key.and_then(|key| tables.reservations.get(key.as_bytes()));
            let signed_out = until.is_some_and(|until| *until > now);
            Ok(SessionFound { signed_out, epoch: tables.epochs.of_sessions(action.subject()), now })
        })
    }

    fn sweep(&self) -> Stored<'_, ()> {
        self.act(|tables, now| {
            let busy = tables.busy_clients(now.saturating_sub(UNUSED_CLIENT_LIFETIME));
            let Tables { families, tombstones, codes, refresh_tokens, clients, .. } = tables;
            tables.access_tokens.retain(|_, token| token.expires.saturating_add(AFTER_FAMILY) > now);
            tables.consents.retain(|_, consent| consent.not_after > now);
            tables.pushed.forget_ended(now);
            tables.decisions.forget_ended(now);
            tables.reservations.retain(|_, until| *until > now);
            let kept = |not_after: OffsetDateTime| not_after.saturating_add(AFTER_FAMILY) > now;
            tombstones.retain(|_, not_after| kept(*not_after));
            // A code that was redeemed is told from a guess for as long as its family may live; one that was not, and cannot
            // be any more, is a guess like others.
            codes.retain(|_, code| {
                kept(if code.spent { code.record.grant.not_after } else { code.record.expires })
            });
            let asked: HashSet<FamilyId> = codes.values().map(|code| code.record.grant.family).collect();
            families.retain(|id, family| {
                kept(family.not_after) && (family.grant.is_some() || asked.contains(id))
            });
            refresh_tokens.retain(|_, refresh| kept(refresh.record.grant.not_after));
            clients.retain(|id, client| {
                client.record.origin == ClientOrigin::PreRegistered
                    // I-P7: never one that something rests on.
                    || busy.contains(id)
                    || match client.used {
                        None => client.record.created.saturating_add(UNUSED_CLIENT_LIFETIME) > now,
                        Some(used) => used.saturating_add(USED_CLIENT_LIFETIME) > now,
                    }
            });
            tables.sweep_epochs(now);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcp_authz::authorization_server::test_kit::Seen;

    use super::MemoryStore;
    use crate::store::kit;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_store_in_memory_keeps_the_contract() {
        kit::run_administered(|| async { MemoryStore::new() }).await.unwrap();
    }

    // I-C1: as in the databases, whose tests write such rows.
    #[tokio::test]
    async fn rows_that_contradict_each_other_mint_nothing() {
        let store = MemoryStore::new();
        let path = kit::Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
        path.ask(&store).await.unwrap();
        path.approve(&store, path.agent, &path.grant.subject).await.unwrap();
        let activate =
            |grant| store.lock().unwrap().families.get_mut(&path.grant.family).unwrap().grant = grant;
        activate(Some(Arc::new(path.grant.clone())));
        assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Revoked);
        activate(None);
        assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Live(()));
    }

    // I-P7
    #[tokio::test]
    async fn the_store_in_memory_keeps_its_bounds() {
        kit::run_bounded(|bounds| async move { MemoryStore::new().bounds(bounds) }).await.unwrap();
    }
}
