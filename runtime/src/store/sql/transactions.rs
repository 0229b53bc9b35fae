// One transaction per action, the same for every SQL database: compiled once for each, like `rows.rs`.
//
// `write` begins a transaction that holds what [`Locks`] names until it ends, and reads the store's clock; `snapshot`
// begins one whose reads all see one moment.

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, GrantRecord, PushedRecord,
    RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    AccessFound, AllRevoked, Basis, ClientDeletion, ClientFound, ClientInsertion, ClientUpdate, CodeFound,
    CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionInsertion, DecisionTaken, DeleteClient,
    FamilyRevocation, FindClient, GrantFound, InsertClient, InsertDecision, InsertPushed, PushedFound,
    PushedInsertion, ReadAccess, ReadCode, ReadConsent, ReadDecision, ReadGrant, ReadPushed, ReadRefresh,
    RedeemCode, RefreshFound, RefreshRotation, Reservation, ReserveOnce, Retirement, RevocationTarget,
    RevokeAll, RevokeFamily, RotateRefresh, UpdateClient,
};
use sqlx::Row as _;

use super::room::{DECISIONS, PUSHED, make_room_for_client};
use super::rows::{
    Replace, blob, bytes, client_used, digest, epochs, family_bytes, insert_access, insert_code,
    insert_refresh, instant, is_active, is_known, micros, move_epoch, reservation_key, signed, standing,
    write_client,
};
use super::{Connection, Locks, This};
use crate::store::StoreError;

impl This {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM clients WHERE client_id = $1")
            .bind(action.client_id().as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        Ok(match row {
            Some(row) => action.found(ClientRecord::from_bytes(&blob(&row)?)?, now),
            None => action.absent(now),
        })
    }

    pub(super) async fn insert_client_row(self, action: InsertClient) -> Result<ClientInsertion, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        // I-P5
        if is_known(&mut transaction, &action.record().client_id).await? {
            return Ok(action.taken());
        }
        if !make_room_for_client(&mut transaction, self.bounds, now).await? {
            return Ok(action.full());
        }
        if !write_client(&mut transaction, action.record(), Replace::Nothing).await? {
            return Ok(action.taken());
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn put_client_row(self, record: ClientRecord) -> Result<(), StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        write_client(&mut transaction, &record, Replace::Any).await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn update_client_row(self, action: UpdateClient) -> Result<ClientUpdate, StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        let stored = action.record().to_bytes();
        let updated = sqlx::query(
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
            return Ok(action.changed());
        }
        transaction.commit().await?;
        Ok(action.updated())
    }

    pub(super) async fn delete_client_row(self, action: DeleteClient) -> Result<ClientDeletion, StoreError> {
        let client = action.client_id().as_str();
        let (mut transaction, _) = self.write(Locks::moving(1, "", client)).await?;
        let deleted = sqlx::query("DELETE FROM clients WHERE client_id = $1 AND digest = $2")
            .bind(client)
            .bind(bytes(action.expected()))
            .execute(&mut *transaction)
            .await?;
        if deleted.rows_affected() != 1 {
            return Ok(action.changed());
        }
        move_epoch(&mut transaction, (1, "", client)).await?;
        transaction.commit().await?;
        Ok(action.deleted())
    }

    pub(super) async fn insert_pushed_row(self, action: InsertPushed) -> Result<PushedInsertion, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        let client = action.record().client_id.as_str();
        let bounds = (self.bounds.pushed, self.bounds.pushed_of_a_client);
        if !PUSHED.make_room(&mut transaction, client, bounds, now).await? {
            return Ok(action.full());
        }
        sqlx::query(
            "INSERT INTO pushed_requests (key, client_id, not_after, record) VALUES ($1, $2, $3, $4)",
        )
        .bind(bytes(action.key()))
        .bind(client)
        .bind(action.record().not_after.unix_timestamp())
        .bind(action.record().to_bytes())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn read_pushed_row(self, action: ReadPushed) -> Result<PushedFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM pushed_requests WHERE key = $1")
            .bind(bytes(action.key()))
            .fetch_optional(&mut *transaction)
            .await?;
        Ok(match row {
            Some(row) => action.found(PushedRecord::from_bytes(&blob(&row)?)?, now),
            None => action.absent(now),
        })
    }

    pub(super) async fn insert_decision_row(
        self,
        action: InsertDecision,
    ) -> Result<DecisionInsertion, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        if let Some(pushed) = action.pushed() {
            let consumed = sqlx::query("DELETE FROM pushed_requests WHERE key = $1")
                .bind(bytes(pushed))
                .execute(&mut *transaction)
                .await?;
            if consumed.rows_affected() != 1 {
                return Ok(action.pushed_is_gone());
            }
        }
        let record = action.record();
        let bounds = (self.bounds.decisions, self.bounds.decisions_of_a_person);
        if !DECISIONS.make_room(&mut transaction, &record.subject, bounds, now).await? {
            return Ok(action.full());
        }
        sqlx::query(
            "INSERT INTO decisions (key, subject, client_id, not_after, record) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(bytes(action.key()))
        .bind(record.subject.as_str())
        .bind(record.client_id.as_str())
        .bind(action.record().not_after.unix_timestamp())
        .bind(action.record().to_bytes())
        .execute(&mut *transaction)
        .await?;
        if let Some(client) = action.client() {
            let known = is_known(&mut transaction, &client.client_id).await?;
            if !known && !make_room_for_client(&mut transaction, self.bounds, now).await? {
                return Ok(action.full());
            }
            // Only a client of that origin is replaced (I-P5), and not by what was fetched before it.
            write_client(&mut transaction, client, Replace::OlderDocument).await?;
        }
        transaction.commit().await?;
        Ok(action.inserted())
    }

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM decisions WHERE key = $1")
            .bind(bytes(action.key()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = DecisionRecord::from_bytes(&blob(&row)?)?;
        let epochs = epochs(&mut transaction, &record.client_id, &record.subject).await?;
        Ok(action.found(record, epochs, now))
    }

    pub(super) async fn read_consent_row(self, action: ReadConsent) -> Result<ConsentFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM consents WHERE key = $1")
            .bind(bytes(action.key()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = ConsentRecord::from_bytes(&blob(&row)?)?;
        let epochs = epochs(&mut transaction, &record.client_id, &record.subject).await?;
        Ok(action.found(record, epochs, now))
    }

    pub(super) async fn decide_once_rows(self, action: DecideOnce) -> Result<DecisionTaken, StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        match action.basis() {
            Basis::Answer { decision, agent, subject } => {
                let row = sqlx::query("DELETE FROM decisions WHERE key = $1 RETURNING record")
                    .bind(bytes(*decision))
                    .fetch_optional(&mut *transaction)
                    .await?;
                let Some(row) = row else { return Ok(action.absent()) };
                let record = DecisionRecord::from_bytes(&blob(&row)?)?;
                // I-P9: browser and person of the page. The deletion is rolled back.
                if record.agent != *agent || record.subject != *subject {
                    transaction.rollback().await?;
                    return Ok(action.not_yours());
                }
            }
            Basis::Remembered(key) => {
                let row = sqlx::query("SELECT 1 FROM consents WHERE key = $1")
                    .bind(bytes(*key))
                    .fetch_optional(&mut *transaction)
                    .await?;
                if row.is_none() {
                    return Ok(action.absent());
                }
            }
        }
        if let Some((key, record)) = action.remember() {
            sqlx::query(
                "INSERT INTO consents (key, subject, not_after, record) VALUES ($1, $2, $3, $4) ON CONFLICT (key) \
                 DO UPDATE SET not_after = excluded.not_after, record = excluded.record",
            )
            .bind(bytes(key))
            .bind(record.subject.as_str())
            .bind(record.not_after.unix_timestamp())
            .bind(record.to_bytes())
            .execute(&mut *transaction)
            .await?;
        }
        if let Some((digest, code)) = action.code() {
            insert_code(&mut transaction, digest, code).await?;
        }
        transaction.commit().await?;
        Ok(action.stored())
    }

    pub(super) async fn read_code_row(self, action: ReadCode) -> Result<CodeFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT spent, record FROM codes WHERE digest = $1")
            .bind(bytes(action.digest()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = CodeRecord::from_bytes(&blob(&row)?)?;
        let spent: bool = row.try_get("spent")?;
        Ok(if spent { action.spent(record, now) } else { action.live(record, now) })
    }

    pub(super) async fn redeem_code_rows(self, action: RedeemCode) -> Result<CodeRedemption, StoreError> {
        let grant = action.grant();
        let (mut transaction, now) = self.write(Locks::of_grant(grant)).await?;
        let row = sqlx::query("SELECT family, spent FROM codes WHERE digest = $1")
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
        if !matches!(standing(&mut transaction, grant).await?, Some((false, _))) {
            return Ok(action.revoked());
        }
        sqlx::query("UPDATE codes SET spent = TRUE WHERE digest = $1")
            .bind(bytes(action.digest()))
            .execute(&mut *transaction)
            .await?;
        let generation = action.refresh().map_or(0, |(_, record)| record.generation);
        sqlx::query("UPDATE families SET active = TRUE, generation = $1 WHERE family = $2")
            .bind(signed(generation)?)
            .bind(family_bytes(grant.family))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO grants (family, client_id, subject, not_after, record) VALUES ($1, $2, $3, $4, $5)",
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
        insert_access(&mut transaction, action.access()).await?;
        client_used(&mut transaction, &grant.client_id, now).await?;
        transaction.commit().await?;
        Ok(action.redeemed())
    }

    pub(super) async fn read_access_row(self, action: ReadAccess) -> Result<AccessFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM access_tokens WHERE digest = $1")
            .bind(bytes(action.digest()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = AccessRecord::from_bytes(&blob(&row)?)?;
        let active = is_active(&mut transaction, &record.grant).await?;
        Ok(if active { action.found(record, now) } else { action.absent(now) })
    }

    pub(super) async fn read_grant_row(self, action: ReadGrant) -> Result<GrantFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT record FROM grants WHERE family = $1")
            .bind(family_bytes(action.family()))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = GrantRecord::from_bytes(&blob(&row)?)?;
        let active = is_active(&mut transaction, &record).await?;
        Ok(if active { action.found(record, now) } else { action.absent(now) })
    }

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query(
            "SELECT generation, retired, request, repeats, record FROM refresh_tokens WHERE digest = $1",
        )
        .bind(bytes(action.digest()))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = RefreshRecord::from_bytes(&blob(&row)?)?;
        let Some((true, leaf)) = standing(&mut transaction, &record.grant).await? else {
            return Ok(action.absent(now));
        };
        let Some(retired) = row.try_get::<Option<i64>, _>("retired")? else {
            return Ok(action.live(record, now));
        };
        let request = digest(row.try_get("request")?)?;
        let repeats = u32::try_from(row.try_get::<i64, _>("repeats")?).unwrap_or(u32::MAX);
        let unused = row.try_get::<i64, _>("generation")?.checked_add(1) == Some(leaf);
        Ok(action.retired(record, Retirement::new(instant(retired)?, request, repeats, unused), now))
    }

    pub(super) async fn rotate_refresh_rows(
        self,
        action: RotateRefresh,
    ) -> Result<RefreshRotation, StoreError> {
        let grant = &action.successor().grant;
        let (mut transaction, now) = self.write(Locks::of_grant(grant)).await?;
        let generation = signed(action.presented_generation())?;
        let row =
            sqlx::query("SELECT family, generation, retired, repeats FROM refresh_tokens WHERE digest = $1")
                .bind(bytes(action.presented()))
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(row) = row else { return Ok(action.absent()) };
        if row.try_get::<Vec<u8>, _>("family")? != family_bytes(grant.family)
            || row.try_get::<i64, _>("generation")? != generation
        {
            return Ok(action.absent());
        }
        let Some((true, leaf)) = standing(&mut transaction, grant).await? else {
            return Ok(action.revoked());
        };
        let retired = row.try_get::<Option<i64>, _>("retired")?.is_some();
        match action.repeats() {
            // OAUTH21-4.3.1-3, I-T1: the leaf of that generation and no other.
            None if !retired && leaf == generation => {
                sqlx::query("UPDATE refresh_tokens SET retired = $1, request = $2 WHERE digest = $3")
                    .bind(micros(now))
                    .bind(bytes(action.request()))
                    .bind(bytes(action.presented()))
                    .execute(&mut *transaction)
                    .await?;
                insert_refresh(&mut transaction, action.successor_digest(), action.successor()).await?;
                sqlx::query("UPDATE families SET generation = $1 WHERE family = $2")
                    .bind(signed(action.successor().generation)?)
                    .bind(family_bytes(grant.family))
                    .execute(&mut *transaction)
                    .await?;
            }
            // I-T3
            Some(most)
                if retired
                    && row.try_get::<i64, _>("repeats")? < i64::from(most)
                    && leaf == signed(action.successor().generation)?
                    && is_live(&mut transaction, &action).await? =>
            {
                sqlx::query("UPDATE refresh_tokens SET repeats = repeats + 1 WHERE digest = $1")
                    .bind(bytes(action.presented()))
                    .execute(&mut *transaction)
                    .await?;
            }
            _ => return Ok(action.retired()),
        }
        insert_access(&mut transaction, action.access()).await?;
        client_used(&mut transaction, &grant.client_id, now).await?;
        transaction.commit().await?;
        Ok(action.rotated())
    }

    pub(super) async fn revoke_family_row(
        self,
        action: RevokeFamily,
    ) -> Result<FamilyRevocation, StoreError> {
        let (mut transaction, now) = self.write(Locks::of_family(action.family())).await?;
        sqlx::query(
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
        let (mut transaction, _) = self.write(Locks::moving(key.0, key.1, key.2)).await?;
        move_epoch(&mut transaction, key).await?;
        transaction.commit().await?;
        Ok(action.revoked())
    }

    pub(super) async fn reserve_once_row(self, action: ReserveOnce) -> Result<Reservation, StoreError> {
        let key = reservation_key(&action)?;
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        // I-A12: what has ended by the store's clock might have been forgotten already.
        if action.until() <= now {
            return Ok(action.already_seen());
        }
        // I-A12: set if absent, or if what is there has ended.
        let changed = sqlx::query(
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

    pub(super) async fn reservation_stands(self, action: ReserveOnce) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.snapshot().await?;
        let row = sqlx::query("SELECT 1 FROM reservations WHERE key = $1 AND until > $2")
            .bind(reservation_key(&action)?)
            .bind(now.unix_timestamp())
            .fetch_optional(&mut *transaction)
            .await?;
        Ok(row.is_some())
    }
}

/// Whether the successor that a repetition hands out again is the one that is stored, and live.
async fn is_live(connection: &mut Connection, action: &RotateRefresh) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM refresh_tokens WHERE digest = $1 AND retired IS NULL")
        .bind(bytes(action.successor_digest()))
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}
