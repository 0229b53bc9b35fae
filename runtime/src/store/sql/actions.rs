// One transaction per action that is no flow's, the same for every SQL database: compiled once for each, like `rows.rs`. What
// flows do is each database's own.
//
// `write` begins a transaction that holds what [`Locks`] names until it ends, and reads the store's clock; `one` reads by one
// statement.

use mcp_authz::authorization_server::record::{AccessRecord, ClientRecord, GrantRecord, PushedRecord};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, ClientDeletion, ClientInsertion, ClientUpdate, DecisionInsertion, DeleteClient,
    FamilyRevocation, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound, PushedInsertion,
    ReadAccess, ReadGrant, ReadPushed, Reservation, ReserveOnce, RevocationTarget, RevokeAll, RevokeFamily,
    UpdateClient,
};

use super::driver::query;
use super::epochs::move_epoch;
use super::room::{DECISIONS, make_room_for_client, pushed};
use super::rows::{
    Replace, blob, bytes, epochs, family_bytes, granted, is_known, reservation_key, standing, stands,
    write_client,
};
use super::transactions::insert_decision;
use super::{Locks, Turn};
use crate::store::StoreError;

impl Turn {
    pub(super) async fn insert_client_row(self, action: InsertClient) -> Result<ClientInsertion, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        // I-P5
        if is_known(&mut transaction, &action.record().client_id).await? {
            return transaction.unchanged(action.taken()).await;
        }
        if !make_room_for_client(&mut transaction, self.bounds, now).await? {
            return transaction.unchanged(action.full()).await;
        }
        if !write_client(&mut transaction, action.record(), Replace::Nothing).await? {
            return transaction.unchanged(action.taken()).await;
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn put_client_row(self, record: ClientRecord) -> Result<(), StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        write_client(&mut transaction, &record, Replace::Any).await?;
        transaction.commit().await
    }

    pub(super) async fn update_client_row(self, action: UpdateClient) -> Result<ClientUpdate, StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        let stored = action.record().to_bytes();
        let updated = query(
            "UPDATE clients SET digest = $1, record = $2, created = $5 WHERE client_id = $3 AND digest = $4",
        )
        .bind(bytes(mcp_authz::secret::SecretDigest::of(&stored)))
        .bind(stored)
        .bind(action.record().client_id.as_str())
        .bind(bytes(action.expected()))
        .bind(action.record().created.unix_timestamp())
        .execute(&mut *transaction)
        .await?;
        if updated.rows_affected() != 1 {
            return transaction.unchanged(action.changed()).await;
        }
        transaction.commit().await?;
        Ok(action.updated())
    }

    pub(super) async fn delete_client_row(self, action: DeleteClient) -> Result<ClientDeletion, StoreError> {
        let client = action.client_id().as_str();
        let (mut transaction, now) = self.write(Locks::moving(1, "", client)).await?;
        let deleted = query("DELETE FROM clients WHERE client_id = $1 AND digest = $2")
            .bind(client)
            .bind(bytes(action.expected()))
            .execute(&mut *transaction)
            .await?;
        if deleted.rows_affected() != 1 {
            return transaction.unchanged(action.changed()).await;
        }
        move_epoch(&mut transaction, (1, "", client), now).await?;
        transaction.commit().await?;
        Ok(action.deleted())
    }

    pub(super) async fn insert_pushed_row(self, action: InsertPushed) -> Result<PushedInsertion, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        let (client, of_operator) = (action.record().client_id.as_str(), action.is_of_operator());
        let bounds = (self.bounds.pushed(of_operator), self.bounds.pushed_of_a_client);
        if !pushed(of_operator).make_room(&mut transaction, client, bounds, now).await? {
            return transaction.unchanged(action.full()).await;
        }
        query(
            "INSERT INTO pushed_requests (key, of_operator, client_id, not_after, record) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(bytes(action.key()))
        .bind(of_operator)
        .bind(client)
        .bind(action.record().not_after.unix_timestamp())
        .bind(action.record().to_bytes())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn read_pushed_row(self, action: ReadPushed) -> Result<PushedFound, StoreError> {
        let sql = concat!("SELECT record, ", clock!(), " FROM pushed_requests WHERE key = $1");
        let (row, now) = self.one(query(sql).bind(bytes(action.key()))).await?;
        Ok(match row {
            Some(row) => action.found(PushedRecord::from_bytes(&blob(&row)?)?, now),
            None => action.absent(now),
        })
    }

    pub(super) async fn insert_decision_row(
        self,
        action: InsertDecision,
    ) -> Result<DecisionInsertion, StoreError> {
        if action.pushed().is_none()
            && action.client().is_none()
            && self.insert_decision_at_once(&action).await?
        {
            return Ok(action.inserted());
        }
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        if let Some(pushed) = action.pushed() {
            let consumed = query("DELETE FROM pushed_requests WHERE key = $1")
                .bind(bytes(pushed))
                .execute(&mut *transaction)
                .await?;
            if consumed.rows_affected() != 1 {
                return transaction.unchanged(action.pushed_is_gone()).await;
            }
        }
        let record = action.record();
        let bounds = (self.bounds.decisions, self.bounds.decisions_of_a_person);
        if !DECISIONS.make_room(&mut transaction, &record.subject, bounds, now).await? {
            return transaction.unchanged(action.full()).await;
        }
        insert_decision(&mut transaction, &action).await?;
        if let Some(client) = action.client() {
            let known = is_known(&mut transaction, &client.client_id).await?;
            if !known && !make_room_for_client(&mut transaction, self.bounds, now).await? {
                return transaction.unchanged(action.full()).await;
            }
            // Only a client of that origin is replaced (I-P5), and not by what was fetched before it.
            write_client(&mut transaction, client, Replace::OlderDocument).await?;
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn read_access_row(self, action: ReadAccess) -> Result<AccessFound, StoreError> {
        let sql = concat!(
            "SELECT access_tokens.record, grants.record AS granted, ",
            standing!(),
            ", ",
            clock!(),
            " FROM access_tokens JOIN grants ON grants.family = access_tokens.family WHERE digest = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.digest()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let grant = granted(&row)?;
        if !stands(&row, &grant)? {
            self.has_ended();
            return Ok(action.absent(now));
        }
        Ok(action.found(AccessRecord::from_bytes(&blob(&row)?, grant)?, now))
    }

    pub(super) async fn read_grant_row(self, action: ReadGrant) -> Result<GrantFound, StoreError> {
        let sql = concat!("SELECT record, ", standing!(), ", ", clock!(), " FROM grants WHERE family = $1");
        let (row, now) = self.one(query(sql).bind(family_bytes(action.family()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = GrantRecord::from_bytes(&blob(&row)?)?;
        if !stands(&row, &record)? {
            self.has_ended();
            return Ok(action.absent(now));
        }
        Ok(action.found(record, now))
    }

    pub(super) async fn revoke_family_row(
        self,
        action: RevokeFamily,
    ) -> Result<FamilyRevocation, StoreError> {
        let (mut transaction, now) = self.write(Locks::of_family(action.family())).await?;
        query(
            "INSERT INTO tombstones (family, reason, revoked, not_after) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (family) DO NOTHING",
        )
        .bind(family_bytes(action.family()))
        .bind(action.reason().as_str())
        .bind(now.unix_timestamp())
        .bind(action.not_after().unix_timestamp())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(action.revoked())
    }

    pub(super) async fn revoke_all_row(self, action: RevokeAll) -> Result<AllRevoked, StoreError> {
        let key = match action.target() {
            RevocationTarget::Client(client) => (1, "", client.as_str()),
            RevocationTarget::Subject(subject) => (2, subject.as_str(), ""),
            RevocationTarget::Consent { subject, client_id } => (3, subject.as_str(), client_id.as_str()),
            // A target this store does not know must not count as revoked.
            _ => return Err(StoreError::Inconsistent),
        };
        let (mut transaction, now) = self.write(Locks::moving(key.0, key.1, key.2)).await?;
        move_epoch(&mut transaction, key, now).await?;
        transaction.commit().await?;
        Ok(action.revoked())
    }

    pub(super) async fn reserve_once_row(self, action: ReserveOnce) -> Result<Reservation, StoreError> {
        let key = reservation_key(&action)?;
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        // I-A12: what has ended by the store's clock might have been forgotten already.
        if action.until() <= now {
            return transaction.unchanged(action.already_seen()).await;
        }
        // I-A12: set if absent, or if what is there has ended.
        let changed = query(
            "INSERT INTO reservations (key, until) VALUES ($1, $2) \
             ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE reservations.until <= $3",
        )
        .bind(key)
        .bind(action.until().unix_timestamp())
        .bind(now.unix_timestamp())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(if changed.rows_affected() == 1 { action.reserved() } else { action.already_seen() })
    }
}
