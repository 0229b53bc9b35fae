//! What operators and the rotation of keys need.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    ClientOrigin, ClientRecord, ConsentRecord, FamilyId, GrantRecord,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::MemoryStore;
use super::epochs::EpochKey;
use super::tables::Tables;
use crate::store::{AdministeredStore, GrantsOf, KeyRow, KeyState, LISTED, StoreError, Stored};

impl GrantsOf<'_> {
    /// Whether what that person granted that client is listed.
    fn includes(self, client_id: &ClientId, subject: &str) -> bool {
        match self {
            Self::Subject(own) => own == subject,
            Self::Client(own) => own == client_id,
            Self::All => true,
        }
    }
}

impl AdministeredStore for MemoryStore {
    fn list_grants<'a>(&'a self, of: GrantsOf<'a>, after: Option<FamilyId>) -> Stored<'a, Vec<GrantRecord>> {
        self.act_at_any_time(|tables| {
            let wanted = |grant: &&Arc<GrantRecord>| of.includes(&grant.client_id, &grant.subject);
            let later = tables.grants().filter(|grant| after.is_none_or(|after| grant.family > after));
            let mut listed: Vec<_> = later.filter(wanted).filter(|grant| tables.stands(grant)).collect();
            listed.sort_unstable_by_key(|grant| grant.family);
            Ok(listed.into_iter().take(LISTED).map(|grant| GrantRecord::clone(grant)).collect())
        })
    }

    fn list_consents<'a>(
        &'a self,
        of: GrantsOf<'a>,
        after: Option<SecretDigest>,
    ) -> Stored<'a, Vec<ConsentRecord>> {
        self.act(|tables, now| {
            let after = after.map(|after| *after.as_bytes());
            let stands = |consent: &ConsentRecord| {
                of.includes(&consent.client_id, &consent.subject)
                    && consent.not_after > now
                    && consent.epochs == tables.epochs(&consent.client_id, &consent.subject)
            };
            let later = tables.consents.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
            let mut listed: Vec<_> = later.filter(|(_, consent)| stands(consent)).collect();
            listed.sort_unstable_by_key(|(key, _)| **key);
            Ok(listed.into_iter().take(LISTED).map(|(_, consent)| consent.clone()).collect())
        })
    }

    fn list_clients<'a>(&'a self, after: Option<&'a ClientId>) -> Stored<'a, Vec<ClientRecord>> {
        self.act_at_any_time(|tables| {
            let later = tables.clients.values().map(|client| &*client.record);
            let later = later.filter(|record| after.is_none_or(|after| record.client_id > *after));
            Ok(later.take(LISTED).cloned().collect())
        })
    }

    fn remove_client<'a>(&'a self, client: &'a ClientId) -> Stored<'a, bool> {
        self.act(|tables, now| {
            tables.move_epoch(EpochKey::Client(client.clone()), now)?;
            Ok(tables.clients.remove(client).is_some())
        })
    }

    fn keys(&self) -> Stored<'_, (Vec<KeyRow>, OffsetDateTime)> {
        self.act(|tables, now| Ok((tables.keys.values().cloned().collect(), now)))
    }

    fn publish_key(&self, key: KeyRow) -> Stored<'_, bool> {
        self.act(|tables, now| {
            let waits = tables.keys.values().any(|known| known.state == KeyState::Published);
            if waits || tables.keys.contains_key(&key.kid) {
                return Ok(false);
            }
            let row = KeyRow { state: KeyState::Published, since: now, ..key };
            tables.keys.insert(row.kid.clone(), row);
            Ok(true)
        })
    }

    fn promote_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.act(|tables, now| {
            if tables.keys.get(kid).is_none_or(|key| key.state != KeyState::Published) {
                return Ok(false);
            }
            for key in tables.keys.values_mut() {
                let next = match key.state {
                    KeyState::Signing => KeyState::Retired,
                    KeyState::Published if key.kid == kid => KeyState::Signing,
                    _ => continue,
                };
                (key.state, key.since) = (next, now);
            }
            Ok(true)
        })
    }

    fn replace_keys<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.act(|tables, now| {
            if tables.keys.get(kid).is_none_or(|key| key.state != KeyState::Published) {
                return Ok(false);
            }
            tables.keys.retain(|_, key| key.kid == kid);
            for key in tables.keys.values_mut() {
                (key.state, key.since) = (KeyState::Signing, now);
            }
            Ok(true)
        })
    }

    fn forget_key<'a>(&'a self, kid: &'a str) -> Stored<'a, bool> {
        self.act_at_any_time(|tables| {
            let retired = tables.keys.get(kid).is_some_and(|key| key.state == KeyState::Retired);
            Ok(retired && tables.keys.remove(kid).is_some())
        })
    }

    fn incarnation(&self) -> Stored<'_, u64> {
        self.act_at_any_time(|tables| Ok(tables.incarnation))
    }

    fn advance_incarnation(&self) -> Stored<'_, u64> {
        self.act_at_any_time(|tables| {
            tables.incarnation = tables.incarnation.checked_add(1).ok_or(StoreError::Inconsistent)?;
            Ok(tables.incarnation)
        })
    }

    fn restored(&self, seen: u64) -> Stored<'_, u64> {
        self.act(|tables, now| {
            let next = tables.incarnation.max(seen).checked_add(1).ok_or(StoreError::Inconsistent)?;
            let old = std::mem::take(tables);
            // What only ever refuses stays, and the operator's own clients.
            let Tables { mut clients, epochs, tombstones, reservations, .. } = old;
            clients.retain(|_, client| client.record.origin == ClientOrigin::PreRegistered);
            let kept = Tables { clients, epochs, tombstones, reservations, ..Tables::default() };
            *tables = Tables { incarnation: next, ..kept };
            tables.move_epoch(EpochKey::Everybody, now)?;
            Ok(next)
        })
    }
}
