// One transaction per action, the same for every SQL database: compiled once for each, like `rows.rs`.
//
// `write` begins a transaction that holds what [`Locks`] names until it ends, and reads the store's clock; `one` reads by one
// statement, and `alone` writes by one.

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

use super::driver::{Get as _, query};
use super::epochs::move_epoch;
use super::room::{DECISIONS, PUSHED, limit, make_room_for_client};
use super::rows::{
    Replace, blob, bytes, client_used, digest, epochs, family_bytes, insert_access, insert_code,
    insert_refresh, instant, is_known, micros, reservation_key, signed, standing, stands, today,
    write_client,
};
use super::{Locks, Turn};
use crate::store::StoreError;

impl Turn {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let sql = concat!("SELECT record, ", clock!(), " FROM clients WHERE client_id = $1");
        let (row, now) = self.one(query(sql).bind(action.client_id().as_str())).await?;
        Ok(match row {
            Some(row) => action.found(ClientRecord::from_bytes(&blob(&row)?)?, now),
            None => action.absent(now),
        })
    }

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
        let client = action.record().client_id.as_str();
        let bounds = (self.bounds.pushed, self.bounds.pushed_of_a_client);
        if !PUSHED.make_room(&mut transaction, client, bounds, now).await? {
            return transaction.unchanged(action.full()).await;
        }
        query("INSERT INTO pushed_requests (key, client_id, not_after, record) VALUES ($1, $2, $3, $4)")
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
        if action.pushed().is_none() && action.client().is_none() {
            // One statement where nothing has to give way.
            let bounds = (self.bounds.decisions, self.bounds.decisions_of_a_person);
            let record = action.record();
            let query = query(
                "INSERT INTO decisions (key, subject, client_id, not_after, record) SELECT $1, $2, $3, $4, $5 \
                 WHERE (SELECT count(*) FROM (SELECT 1 FROM decisions LIMIT $6) AS few) < $6 \
                 AND (SELECT count(*) FROM (SELECT 1 FROM decisions WHERE subject = $2 LIMIT $7) AS few) < $7",
            )
            .bind(bytes(action.key()))
            .bind(&*record.subject)
            .bind(record.client_id.as_str())
            .bind(record.not_after.unix_timestamp())
            .bind(record.to_bytes())
            .bind(limit(bounds.0))
            .bind(limit(bounds.1));
            if self.alone(query).await? == 1 {
                return Ok(action.inserted());
            }
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
        query(
            "INSERT INTO decisions (key, subject, client_id, not_after, record) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(bytes(action.key()))
        .bind(&*record.subject)
        .bind(record.client_id.as_str())
        .bind(action.record().not_after.unix_timestamp())
        .bind(action.record().to_bytes())
        .execute(&mut *transaction)
        .await?;
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

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let sql = concat!(
            "SELECT decisions.record, ",
            epochs!("decisions.client_id", "decisions.subject"),
            ", ",
            clock!(),
            " FROM decisions WHERE key = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.key()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = DecisionRecord::from_bytes(&blob(&row)?)?;
        Ok(action.found(record, today(&row)?, now))
    }

    pub(super) async fn read_consent_row(self, action: ReadConsent) -> Result<ConsentFound, StoreError> {
        let sql = concat!(
            "SELECT consents.record, ",
            epochs!("consents.client_id", "consents.subject"),
            ", ",
            clock!(),
            " FROM consents WHERE key = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.key()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = ConsentRecord::from_bytes(&blob(&row)?)?;
        Ok(action.found(record, today(&row)?, now))
    }

    pub(super) async fn decide_once_rows(self, action: DecideOnce) -> Result<DecisionTaken, StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        match action.basis() {
            Basis::Answer { decision, agent, subject } => {
                let row = query("DELETE FROM decisions WHERE key = $1 RETURNING record")
                    .bind(bytes(*decision))
                    .fetch_optional(&mut *transaction)
                    .await?;
                let Some(row) = row else { return transaction.unchanged(action.absent()).await };
                let record = DecisionRecord::from_bytes(&blob(&row)?)?;
                // I-P9: browser and person of the page. The deletion is rolled back.
                if record.agent != *agent || record.subject != *subject {
                    return transaction.unchanged(action.not_yours()).await;
                }
            }
            Basis::Remembered(key) => {
                let row = query("SELECT 1 FROM consents WHERE key = $1")
                    .bind(bytes(*key))
                    .fetch_optional(&mut *transaction)
                    .await?;
                if row.is_none() {
                    return transaction.unchanged(action.absent()).await;
                }
            }
        }
        if let Some((key, record)) = action.remember() {
            query(
                "INSERT INTO consents (key, subject, client_id, not_after, record) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (key) DO UPDATE SET not_after = excluded.not_after, record = excluded.record",
            )
            .bind(bytes(key))
            .bind(&*record.subject)
            .bind(record.client_id.as_str())
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
        let sql = concat!("SELECT spent, record, ", clock!(), " FROM codes WHERE digest = $1");
        let (row, now) = self.one(query(sql).bind(bytes(action.digest()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = CodeRecord::from_bytes(&blob(&row)?)?;
        let spent: bool = row.try_get("spent")?;
        Ok(if spent { action.spent(record, now) } else { action.live(record, now) })
    }

    pub(super) async fn redeem_code_rows(self, action: RedeemCode) -> Result<CodeRedemption, StoreError> {
        let grant = action.grant();
        let (mut transaction, now) = self.write(Locks::of_grant(grant)).await?;
        let row = query(concat!(
            "SELECT family, spent, EXISTS (SELECT 1 FROM grants WHERE grants.family = codes.family) AS active, \
             EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = codes.family) AS ended, \
             (SELECT used FROM clients WHERE clients.client_id = $2) AS used, ",
            epochs!("$2", "$3"),
            " FROM codes WHERE digest = $1"
        ))
        .bind(bytes(action.digest()))
        .bind(grant.client_id.as_str())
        .bind(&*grant.subject)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return transaction.unchanged(action.absent()).await };
        if row.try_get::<Vec<u8>, _>("family")? != family_bytes(grant.family) {
            return transaction.unchanged(action.absent()).await;
        }
        // OAUTH21-4.1.3-1, I-C1
        if row.try_get("spent")? {
            return transaction.unchanged(action.replayed()).await;
        }
        // Pending, and nothing revoked since.
        if row.try_get("active")? || row.try_get("ended")? || today(&row)? != grant.epochs {
            return transaction.unchanged(action.revoked()).await;
        }
        query(together!(
            "UPDATE codes SET spent = TRUE WHERE digest = $6",
            "INSERT INTO grants (family, client_id, subject, not_after, record) SELECT $1, $2, $3, $4, $5"
        ))
        .bind(family_bytes(grant.family))
        .bind(grant.client_id.as_str())
        .bind(&*grant.subject)
        .bind(grant.not_after.unix_timestamp())
        .bind(grant.to_bytes())
        .bind(bytes(action.digest()))
        .execute(&mut *transaction)
        .await?;
        if let Some((digest, record)) = action.refresh() {
            insert_refresh(&mut transaction, digest, record).await?;
        }
        insert_access(&mut transaction, action.access()).await?;
        client_used(&mut transaction, &row, &grant.client_id, now).await?;
        transaction.commit().await?;
        Ok(action.redeemed())
    }

    pub(super) async fn read_access_row(self, action: ReadAccess) -> Result<AccessFound, StoreError> {
        let sql = concat!(
            "SELECT access_tokens.record, ",
            standing!(),
            ", ",
            clock!(),
            " FROM access_tokens JOIN grants ON grants.family = access_tokens.family WHERE digest = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.digest()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = AccessRecord::from_bytes(&blob(&row)?)?;
        let active = stands(&row, &record.grant)?;
        Ok(if active { action.found(record, now) } else { action.absent(now) })
    }

    pub(super) async fn read_grant_row(self, action: ReadGrant) -> Result<GrantFound, StoreError> {
        let sql = concat!("SELECT record, ", standing!(), ", ", clock!(), " FROM grants WHERE family = $1");
        let (row, now) = self.one(query(sql).bind(family_bytes(action.family()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = GrantRecord::from_bytes(&blob(&row)?)?;
        let active = stands(&row, &record)?;
        Ok(if active { action.found(record, now) } else { action.absent(now) })
    }

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let sql = concat!(
            "SELECT refresh_tokens.record, generation, retired, request, repeats, ",
            "(SELECT leaf.generation FROM refresh_tokens leaf WHERE leaf.family = refresh_tokens.family \
             AND leaf.retired IS NULL) AS leaf, ",
            standing!(),
            ", ",
            clock!(),
            " FROM refresh_tokens JOIN grants ON grants.family = refresh_tokens.family WHERE digest = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.digest()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = RefreshRecord::from_bytes(&blob(&row)?)?;
        if !stands(&row, &record.grant)? {
            return Ok(action.absent(now));
        }
        let Some(retired) = row.try_get::<Option<i64>, _>("retired")? else {
            return Ok(action.live(record, now));
        };
        let request = digest(row.try_get("request")?)?;
        let repeats = u32::try_from(row.try_get::<i64, _>("repeats")?).unwrap_or(u32::MAX);
        let unused = row.try_get::<i64, _>("generation")?.checked_add(1) == row.try_get("leaf")?;
        Ok(action.retired(record, Retirement::new(instant(retired)?, request, repeats, unused), now))
    }

    pub(super) async fn rotate_refresh_rows(
        self,
        action: RotateRefresh,
    ) -> Result<RefreshRotation, StoreError> {
        let grant = &action.successor().grant;
        let (mut transaction, now) = self.write(Locks::of_grant(grant)).await?;
        let generation = signed(action.presented_generation())?;
        let row = query(concat!(
            "SELECT family, generation, retired, repeats, \
             EXISTS (SELECT 1 FROM grants WHERE grants.family = refresh_tokens.family) AS active, \
             EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = refresh_tokens.family) AS ended, \
             (SELECT leaf.digest FROM refresh_tokens leaf WHERE leaf.family = refresh_tokens.family \
             AND leaf.retired IS NULL) AS leaf, \
             (SELECT used FROM clients WHERE clients.client_id = $2) AS used, ",
            epochs!("$2", "$3"),
            " FROM refresh_tokens WHERE digest = $1"
        ))
        .bind(bytes(action.presented()))
        .bind(grant.client_id.as_str())
        .bind(&*grant.subject)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return transaction.unchanged(action.absent()).await };
        if row.try_get::<Vec<u8>, _>("family")? != family_bytes(grant.family)
            || row.try_get::<i64, _>("generation")? != generation
        {
            return transaction.unchanged(action.absent()).await;
        }
        if !stands(&row, grant)? {
            return transaction.unchanged(action.revoked()).await;
        }
        let leaf = row.try_get::<Option<Vec<u8>>, _>("leaf")?;
        let retired = row.try_get::<Option<i64>, _>("retired")?.is_some();
        match action.repeats() {
            // OAUTH21-4.3.1-3, I-T1: the leaf of that generation and no other.
            None if !retired && leaf == Some(bytes(action.presented())) => {
                let successor = action.successor();
                query(together!(
                    "UPDATE refresh_tokens SET retired = $6, request = $7 WHERE digest = $8 AND retired IS NULL",
                    "INSERT INTO refresh_tokens (digest, family, generation, repeats, not_after, record) \
                     SELECT $1, $2, $3, 0, $4, $5"
                ))
                .bind(bytes(action.successor_digest()))
                .bind(family_bytes(successor.grant.family))
                .bind(signed(successor.generation)?)
                .bind(successor.grant.not_after.unix_timestamp())
                .bind(successor.to_bytes())
                .bind(micros(now))
                .bind(bytes(action.request()))
                .bind(bytes(action.presented()))
                .execute(&mut *transaction)
                .await?;
            }
            // I-T3
            Some(most)
                if retired
                    && row.try_get::<i64, _>("repeats")? < i64::from(most)
                    && leaf == Some(bytes(action.successor_digest())) =>
            {
                query("UPDATE refresh_tokens SET repeats = repeats + 1 WHERE digest = $1")
                    .bind(bytes(action.presented()))
                    .execute(&mut *transaction)
                    .await?;
            }
            _ => return transaction.unchanged(action.retired()).await,
        }
        insert_access(&mut transaction, action.access()).await?;
        client_used(&mut transaction, &row, &grant.client_id, now).await?;
        transaction.commit().await?;
        Ok(action.rotated())
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

    pub(super) async fn reservation_stands(self, action: ReserveOnce) -> Result<bool, StoreError> {
        let sql = concat!("SELECT until, ", clock!(), " FROM reservations WHERE key = $1");
        let (row, now) = self.one(query(sql).bind(reservation_key(&action)?)).await?;
        let until: Option<i64> = row.map(|row| row.try_get("until")).transpose()?;
        Ok(until.is_some_and(|until| now.unix_timestamp() < until))
    }
}
