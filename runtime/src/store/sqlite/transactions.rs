//! What a flow does to the file, one transaction per action. `write` begins one and reads the store's clock; `one` reads by
//! one statement, and `alone` writes by one.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, CodeRecord, ConsentRecord, DecisionRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    Basis, ClientFound, CodeFound, CodeRedemption, ConsentFound, DecideOnce, DecisionFound, DecisionTaken,
    FindClient, InsertDecision, ReadCode, ReadConsent, ReadDecision, ReadRefresh, RedeemCode, RefreshFound,
    RefreshRotation, Retirement, RotateRefresh,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::driver::{Connection, Get as _, Query, Row, query};
use super::room::limit;
use super::rows::{
    blob, bytes, digest, epochs, family_bytes, granted, instant, micros, reservation_key, signed, standing,
    stands, today, unsigned,
};
use super::{Locks, Turn};
use crate::store::{CLIENT_USE_NOTED, ReadSession, SessionFound, StoreError};

impl Turn {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let sql = concat!("SELECT record, ", clock!(), " FROM clients WHERE client_id = $1");
        let (row, now) = self.one(query(sql).bind(action.client_id().as_str())).await?;
        Ok(match row {
            Some(row) => action.found(self.clients.read(blob(&row)?)?, now),
            None => action.absent(now),
        })
    }

    /// Inserts where nothing has to give way; says whether nothing had.
    pub(super) async fn insert_decision_at_once(&self, action: &InsertDecision) -> Result<bool, StoreError> {
        let bounds = (self.bounds.decisions, self.bounds.decisions_of_a_person);
        // With `LIMIT $1` alone the statement would be planned anew each time that a number is bound. An `INSERT` with these
        // conditions would copy its row through a table of its own.
        let room = query(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM decisions LIMIT $1 + 0) AS few) < $1 \
             AND (SELECT count(*) FROM (SELECT 1 FROM decisions WHERE subject = $3 LIMIT $2 + 0) AS few) < $2",
        )
        .bind(limit(bounds.0))
        .bind(limit(bounds.1))
        .bind(&*action.record().subject);
        // Nobody else writes between the two.
        let (row, _) = self.one(room).await?;
        let Some(row) = row else { return Ok(false) };
        Ok(row.try_get(0)? && self.alone(decision(action)).await? == 1)
    }

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let sql = concat!(
            "SELECT decisions.record, ",
            "(SELECT c.record FROM clients c WHERE c.client_id = decisions.client_id) AS client, ",
            epochs!("decisions.client_id", "decisions.subject"),
            ", ",
            clock!(),
            " FROM decisions WHERE key = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.key()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let record = DecisionRecord::from_bytes(&blob(&row)?)?;
        let client: Option<Vec<u8>> = row.try_get("client")?;
        let client = client.map(|bytes| self.clients.read(bytes)).transpose()?;
        Ok(action.found(record, client, today(&row)?, now))
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
                // I-P9: by the browser and the person of the page.
                let taken = query("DELETE FROM decisions WHERE key = $1 AND agent = $2 AND subject = $3")
                    .bind(bytes(*decision))
                    .bind(agent.to_bytes().to_vec())
                    .bind(&**subject)
                    .execute(&mut *transaction)
                    .await?;
                if taken.rows_affected() == 0 {
                    let row = query("SELECT 1 FROM decisions WHERE key = $1")
                        .bind(bytes(*decision))
                        .fetch_optional(&mut *transaction)
                        .await?;
                    let receipt = if row.is_some() { action.not_yours() } else { action.absent() };
                    return transaction.unchanged(receipt).await;
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
            "INSERT INTO grants (family, client_id, subject, not_after, record) VALUES ($1, $2, $3, $4, $5)"
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

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let sql = concat!(
            "SELECT refresh_tokens.record, grants.record AS granted, generation, retired, request, repeats, ",
            "(SELECT CASE WHEN leaf.retired IS NULL THEN leaf.generation END FROM refresh_tokens leaf \
             WHERE leaf.family = refresh_tokens.family ORDER BY leaf.generation DESC LIMIT 1) AS leaf, ",
            standing!(),
            ", ",
            clock!(),
            " FROM refresh_tokens JOIN grants ON grants.family = refresh_tokens.family WHERE digest = $1"
        );
        let (row, now) = self.one(query(sql).bind(bytes(action.digest()))).await?;
        let Some(row) = row else { return Ok(action.absent(now)) };
        let grant = granted(&row)?;
        if !stands(&row, &grant)? {
            self.has_ended();
            return Ok(action.absent(now));
        }
        let record = RefreshRecord::from_bytes(&blob(&row)?, grant)?;
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
             (SELECT CASE WHEN leaf.retired IS NULL THEN leaf.digest END FROM refresh_tokens leaf \
             WHERE leaf.family = refresh_tokens.family ORDER BY leaf.generation DESC LIMIT 1) AS leaf, \
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
                     VALUES ($1, $2, $3, 0, $4, $5)"
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

    pub(super) async fn read_session_row(self, action: ReadSession) -> Result<SessionFound, StoreError> {
        let sql = concat!(
            "SELECT (SELECT until FROM reservations WHERE key = $1) AS until, \
             max(COALESCE((SELECT epoch FROM epochs WHERE kind = 2 AND subject = $2 AND client_id = ''), 0), \
             COALESCE((SELECT epoch FROM epochs WHERE kind = 4 AND subject = '' AND client_id = ''), 0)) AS epoch, ",
            clock!()
        );
        // No reservation has the empty key.
        let key = action.signed_out().map(reservation_key).transpose()?.unwrap_or_default();
        let (row, now) = self.one(query(sql).bind(key).bind(action.subject())).await?;
        let row = row.ok_or(StoreError::Inconsistent)?;
        let until: Option<i64> = row.try_get("until")?;
        let signed_out = until.is_some_and(|until| now.unix_timestamp() < until);
        Ok(SessionFound { signed_out, epoch: unsigned(row.try_get("epoch")?)?, now })
    }
}

pub(super) async fn insert_decision(
    connection: &mut Connection,
    action: &InsertDecision,
) -> Result<(), StoreError> {
    decision(action).execute(connection).await?;
    Ok(())
}

fn decision(action: &InsertDecision) -> Query<'_, &'static str> {
    let record = action.record();
    query(
        "INSERT INTO decisions (key, subject, client_id, agent, not_after, record) VALUES ($1, $2, $3, $4, $5, $6)",
    )
        .bind(bytes(action.key()))
        .bind(&*record.subject)
        .bind(record.client_id.as_str())
        .bind(record.agent.to_bytes().to_vec())
        .bind(record.not_after.unix_timestamp())
        .bind(record.to_bytes())
}

/// Notes that a client was used, unless the row read in this transaction, in its column `used`, says that this was noted
/// lately: every token of a client would write this one row, and wait for whoever wrote it last, and once in an hour is enough
/// for a lifetime of months.
async fn client_used(
    connection: &mut Connection,
    row: &Row,
    id: &ClientId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let since = now.saturating_sub(CLIENT_USE_NOTED).unix_timestamp();
    if row.try_get::<Option<i64>, _>("used")?.is_some_and(|used| used > since) {
        return Ok(());
    }
    query("UPDATE clients SET used = $1 WHERE client_id = $2 AND (used IS NULL OR used <= $3)")
        .bind(now.unix_timestamp())
        .bind(id.as_str())
        .bind(since)
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_refresh(
    connection: &mut Connection,
    digest: SecretDigest,
    record: &RefreshRecord,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO refresh_tokens (digest, family, generation, repeats, not_after, record) \
         VALUES ($1, $2, $3, 0, $4, $5)",
    )
    .bind(bytes(digest))
    .bind(family_bytes(record.grant.family))
    .bind(signed(record.generation)?)
    .bind(record.grant.not_after.unix_timestamp())
    .bind(record.to_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_access(
    connection: &mut Connection,
    access: Option<(SecretDigest, &Arc<AccessRecord>)>,
) -> Result<(), StoreError> {
    let Some((digest, record)) = access else { return Ok(()) };
    query("INSERT INTO access_tokens (digest, family, not_after, record) VALUES ($1, $2, $3, $4)")
        .bind(bytes(digest))
        .bind(family_bytes(record.grant.family))
        .bind(record.expires.unix_timestamp())
        .bind(record.to_bytes())
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_code(
    connection: &mut Connection,
    digest: SecretDigest,
    code: &CodeRecord,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO codes (digest, family, spent, client_id, subject, expires, not_after, record) \
         VALUES ($1, $2, FALSE, $3, $4, $5, $6, $7)",
    )
    .bind(bytes(digest))
    .bind(family_bytes(code.grant.family))
    .bind(code.grant.client_id.as_str())
    .bind(&*code.grant.subject)
    .bind(code.expires.unix_timestamp())
    .bind(code.grant.not_after.unix_timestamp())
    .bind(code.to_bytes())
    .execute(connection)
    .await?;
    Ok(())
}
