//! One transaction per action.

use mcp_authz::authorization_server::record::{ClientRecord, CodeRecord, DecisionRecord, RefreshRecord};
use mcp_authz::authorization_server::store::{
    AllRevoked, ClientFound, ClientInsertion, CodeFound, CodeRedemption, DecideOnce, DecisionFound,
    DecisionInsertion, DecisionTaken, FamilyRevocation, FindClient, InsertClient, InsertDecision, ReadCode,
    ReadDecision, ReadRefresh, RedeemCode, RefreshFound, RefreshRotation, Reservation, ReservationKind,
    ReserveOnce, RevocationTarget, RevokeAll, RevokeFamily, RotateRefresh,
};
use mcp_authz::time::OffsetDateTime;
use sqlx::Row as _;

use super::SqliteStore;
use super::rows::{
    Replace, blob, bytes, client_used, epochs, family, family_bytes, insert_code, insert_refresh, is_known,
    make_room_for_client, signed, stands, write_client,
};
use crate::store::{
    AFTER_FAMILY, PENDING_DECISIONS, StoreError, UNUSED_CLIENT_LIFETIME, USED_CLIENT_LIFETIME,
};

/// How many rows a sweep deletes in one transaction.
const SWEEP_BATCH: i64 = 256;
impl SqliteStore {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let row = sqlx::query("SELECT record FROM clients WHERE client_id = ?")
            .bind(action.client_id().as_str())
            .fetch_optional(&self.reader)
            .await?;
        Ok(match row {
            Some(row) => action.found(ClientRecord::from_bytes(&blob(&row)?)?, self.now()),
            None => action.absent(self.now()),
        })
    }

    pub(super) async fn insert_client_row(self, action: InsertClient) -> Result<ClientInsertion, StoreError> {
        let mut transaction = self.begin().await?;
        // I-P5
        if is_known(&mut transaction, &action.record().client_id).await? {
            return Ok(action.taken());
        }
        make_room_for_client(&mut transaction).await?;
        if !write_client(&mut transaction, action.record(), Replace::Nothing).await? {
            return Ok(action.taken());
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn put_client_row(self, record: ClientRecord) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        write_client(&mut transaction, &record, Replace::Any).await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn insert_decision_row(
        self,
        action: InsertDecision,
    ) -> Result<DecisionInsertion, StoreError> {
        let mut transaction = self.begin().await?;
        // I-P7
        sqlx::query(
            "DELETE FROM decisions WHERE key IN (SELECT key FROM decisions ORDER BY not_after DESC LIMIT -1 OFFSET ?)",
        )
        .bind(i64::try_from(PENDING_DECISIONS.saturating_sub(1)).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO decisions (key, not_after, record) VALUES (?, ?, ?)")
            .bind(bytes(action.key()))
            .bind(action.record().not_after.unix_timestamp())
            .bind(action.record().to_bytes())
            .execute(&mut *transaction)
            .await?;
        if let Some(client) = action.client() {
            if !is_known(&mut transaction, &client.client_id).await? {
                make_room_for_client(&mut transaction).await?;
            }
            // Only a client of that origin is replaced (I-P5), and not by what was fetched before it.
            write_client(&mut transaction, client, Replace::OlderDocument).await?;
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let mut transaction = self.reader.begin().await?;
        let row = sqlx::query("SELECT record FROM decisions WHERE key = ?")
            .bind(bytes(action.key()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(self.now())) };
        let record = DecisionRecord::from_bytes(&blob(&row)?)?;
        let epochs = epochs(&mut transaction, &record.client_id, &record.subject).await?;
        Ok(action.found(record, epochs, self.now()))
    }

    pub(super) async fn decide_once_rows(self, action: DecideOnce) -> Result<DecisionTaken, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("DELETE FROM decisions WHERE key = ? RETURNING record")
            .bind(bytes(action.decision()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent()) };
        let record = DecisionRecord::from_bytes(&blob(&row)?)?;
        // I-P9: browser and person of the page. The deletion is rolled back.
        if record.agent != *action.agent() || record.subject != action.subject() {
            transaction.rollback().await?;
            return Ok(action.not_yours());
        }
        if let Some((digest, code)) = action.code() {
            insert_code(&mut transaction, digest, code).await?;
        }
        transaction.commit().await?;
        Ok(action.stored())
    }

    pub(super) async fn read_code_row(self, action: ReadCode) -> Result<CodeFound, StoreError> {
        let row = sqlx::query("SELECT spent, record FROM codes WHERE digest = ?")
            .bind(bytes(action.digest()))
            .fetch_optional(&self.reader)
            .await?;
        let Some(row) = row else { return Ok(action.absent(self.now())) };
        let record = CodeRecord::from_bytes(&blob(&row)?)?;
        let spent: bool = row.try_get("spent")?;
        Ok(if spent { action.spent(record, self.now()) } else { action.live(record, self.now()) })
    }

    pub(super) async fn redeem_code_rows(self, action: RedeemCode) -> Result<CodeRedemption, StoreError> {
        let mut transaction = self.begin().await?;
        let grant = action.grant();
        let row = sqlx::query("SELECT family, spent FROM codes WHERE digest = ?")
            .bind(bytes(action.digest()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent()) };
        if row.try_get::<Vec<u8>, _>("family")? != family_bytes(grant.family) {
            return Ok(action.absent());
        }
        // OAUTH21-4.1.3-1, I-C1
        if row.try_get("spent")? {
            return Ok(action.replayed());
        }
        let pending = matches!(family(&mut transaction, grant.family).await?, Some((false, _)));
        if !pending || !stands(&mut transaction, grant).await? {
            return Ok(action.revoked());
        }
        sqlx::query("UPDATE codes SET spent = 1 WHERE digest = ?")
            .bind(bytes(action.digest()))
            .execute(&mut *transaction)
            .await?;
        let generation = action.refresh().map_or(0, |(_, record)| record.generation);
        sqlx::query("UPDATE families SET active = 1, generation = ? WHERE family = ?")
            .bind(signed(generation)?)
            .bind(family_bytes(grant.family))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO grants (family, client_id, subject, not_after, record) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(family_bytes(grant.family))
        .bind(grant.client_id.as_str())
        .bind(grant.subject.as_str())
        .bind(grant.not_after.unix_timestamp())
        .bind(grant.to_bytes())
        .execute(&mut *transaction)
        .await?;
        if let Some((digest, record)) = action.refresh() {
            insert_refresh(&mut transaction, digest, record).await?;
        }
        client_used(&mut transaction, &grant.client_id, self.now()).await?;
        transaction.commit().await?;
        Ok(action.redeemed())
    }

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let mut transaction = self.reader.begin().await?;
        let row = sqlx::query("SELECT retired, record FROM refresh_tokens WHERE digest = ?")
            .bind(bytes(action.digest()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(self.now())) };
        let record = RefreshRecord::from_bytes(&blob(&row)?)?;
        if !stands(&mut transaction, &record.grant).await? {
            return Ok(action.absent(self.now()));
        }
        let retired: bool = row.try_get("retired")?;
        Ok(if retired { action.retired(record, self.now()) } else { action.live(record, self.now()) })
    }

    pub(super) async fn rotate_refresh_rows(
        self,
        action: RotateRefresh,
    ) -> Result<RefreshRotation, StoreError> {
        let mut transaction = self.begin().await?;
        let grant = &action.successor().grant;
        let generation = signed(action.presented_generation())?;
        let row = sqlx::query("SELECT family, generation, retired FROM refresh_tokens WHERE digest = ?")
            .bind(bytes(action.presented()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent()) };
        if row.try_get::<Vec<u8>, _>("family")? != family_bytes(grant.family)
            || row.try_get::<i64, _>("generation")? != generation
        {
            return Ok(action.absent());
        }
        let leaf = family(&mut transaction, grant.family).await?;
        if !matches!(leaf, Some((true, _))) || !stands(&mut transaction, grant).await? {
            return Ok(action.revoked());
        }
        // OAUTH21-4.3.1-3, I-T1: the leaf of that generation and no other.
        if row.try_get("retired")? || leaf != Some((true, generation)) {
            return Ok(action.retired());
        }
        sqlx::query("UPDATE refresh_tokens SET retired = 1 WHERE digest = ?")
            .bind(bytes(action.presented()))
            .execute(&mut *transaction)
            .await?;
        insert_refresh(&mut transaction, action.successor_digest(), action.successor()).await?;
        sqlx::query("UPDATE families SET generation = ? WHERE family = ?")
            .bind(signed(action.successor().generation)?)
            .bind(family_bytes(grant.family))
            .execute(&mut *transaction)
            .await?;
        client_used(&mut transaction, &grant.client_id, self.now()).await?;
        transaction.commit().await?;
        Ok(action.rotated())
    }

    pub(super) async fn revoke_family_row(
        self,
        action: RevokeFamily,
    ) -> Result<FamilyRevocation, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO tombstones (family, reason, revoked, not_after) VALUES (?, ?, ?, ?) \
             ON CONFLICT (family) DO NOTHING",
        )
        .bind(family_bytes(action.family()))
        .bind(action.reason().as_str())
        .bind(self.now().unix_timestamp())
        .bind(action.not_after().unix_timestamp())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(action.revoked())
    }

    pub(super) async fn revoke_all_row(self, action: RevokeAll) -> Result<AllRevoked, StoreError> {
        let (kind, subject, client) = match action.target() {
            RevocationTarget::Client(client) => (1_i64, "", client.as_str()),
            RevocationTarget::Subject(subject) => (2, subject.as_str(), ""),
            RevocationTarget::Consent { subject, client_id } => (3, subject.as_str(), client_id.as_str()),
            // A target this store does not know must not count as revoked.
            _ => return Err(StoreError::Inconsistent),
        };
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO epochs (kind, subject, client_id, epoch) VALUES (?, ?, ?, 1) \
             ON CONFLICT (kind, subject, client_id) DO UPDATE SET epoch = epoch + 1",
        )
        .bind(kind)
        .bind(subject)
        .bind(client)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(action.revoked())
    }

    pub(super) async fn reserve_once_row(self, action: ReserveOnce) -> Result<Reservation, StoreError> {
        let kind = match action.kind() {
            ReservationKind::ClientAssertion => 1_i64,
            _ => return Err(StoreError::Inconsistent),
        };
        let mut transaction = self.begin().await?;
        // I-A12: set if absent, or if what is there has ended.
        let changed = sqlx::query(
            "INSERT INTO reservations (kind, issuer, audience, value, until) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (kind, issuer, audience, value) DO UPDATE SET until = excluded.until WHERE until <= ?6",
        )
        .bind(kind)
        .bind(action.issuer())
        .bind(action.audience().as_str())
        .bind(action.value())
        .bind(action.until().unix_timestamp())
        .bind(self.now().unix_timestamp())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(if changed.rows_affected() == 1 { action.reserved() } else { action.already_seen() })
    }

    pub(super) async fn sweep_rows(self) -> Result<(), StoreError> {
        let now = self.now();
        let at = |instant: OffsetDateTime| instant.unix_timestamp();
        let family_end = at(now.saturating_sub(AFTER_FAMILY));
        // Tombstones go last: as long as anything of a family is there, so is what revoked it.
        for (sql, end) in [
            (
                "DELETE FROM decisions WHERE key IN \
                 (SELECT key FROM decisions WHERE not_after <= ?1 LIMIT ?2)",
                at(now),
            ),
            (
                "DELETE FROM reservations WHERE (kind, issuer, audience, value) IN \
                 (SELECT kind, issuer, audience, value FROM reservations WHERE until <= ?1 LIMIT ?2)",
                at(now),
            ),
            (
                "DELETE FROM codes WHERE digest IN (SELECT digest FROM codes WHERE not_after <= ?1 LIMIT ?2)",
                family_end,
            ),
            (
                "DELETE FROM refresh_tokens WHERE digest IN \
                 (SELECT digest FROM refresh_tokens WHERE not_after <= ?1 LIMIT ?2)",
                family_end,
            ),
            (
                "DELETE FROM grants WHERE family IN (SELECT family FROM grants WHERE not_after <= ?1 LIMIT ?2)",
                family_end,
            ),
            (
                "DELETE FROM families WHERE family IN \
                 (SELECT family FROM families WHERE not_after <= ?1 LIMIT ?2)",
                family_end,
            ),
            (
                "DELETE FROM tombstones WHERE family IN \
                 (SELECT family FROM tombstones WHERE not_after <= ?1 LIMIT ?2)",
                family_end,
            ),
            (
                "DELETE FROM clients WHERE client_id IN (SELECT client_id FROM clients \
                 WHERE origin <> 0 AND used IS NULL AND created <= ?1 LIMIT ?2)",
                at(now.saturating_sub(UNUSED_CLIENT_LIFETIME)),
            ),
            (
                // I-P7: never one with a grant that lives.
                "DELETE FROM clients WHERE client_id IN (SELECT client_id FROM clients \
                 WHERE origin <> 0 AND used <= ?1 \
                 AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.client_id = clients.client_id) LIMIT ?2)",
                at(now.saturating_sub(USED_CLIENT_LIFETIME)),
            ),
        ] {
            // The write lock is free between two batches.
            loop {
                let mut transaction = self.begin().await?;
                let deleted = sqlx::query(sql).bind(end).bind(SWEEP_BATCH).execute(&mut *transaction).await?;
                transaction.commit().await?;
                if i64::try_from(deleted.rows_affected()).is_ok_and(|rows| rows < SWEEP_BATCH) {
                    break;
                }
            }
        }
        Ok(())
    }
}
