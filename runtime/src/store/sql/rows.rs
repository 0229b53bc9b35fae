// Statements that several transactions share, the same for every SQL database: the text is included once for each,
// below a parent that names the database's types (`Connection`, `Row`) and its `lock`.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    AccessRecord, ClientOrigin, ClientRecord, CodeRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::ReserveOnce;
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;
use sqlx::Row as _;

use super::{Connection, Row};
use crate::store::{CLIENT_USE_NOTED, StoreError};

pub(super) fn bytes(digest: SecretDigest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

pub(super) fn family_bytes(family: FamilyId) -> Vec<u8> {
    family.as_bytes().to_vec()
}

pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Inconsistent)
}

pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Inconsistent)
}

/// An instant as microseconds since 1970.
pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// Microseconds since 1970 as an instant.
pub(super) fn instant(micros: i64) -> Result<OffsetDateTime, StoreError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1000))
        .map_err(|_| StoreError::Inconsistent)
}

pub(super) fn digest(bytes: Vec<u8>) -> Result<SecretDigest, StoreError> {
    bytes.try_into().map(SecretDigest::from_bytes).map_err(|_| StoreError::Inconsistent)
}

pub(super) fn origin(origin: ClientOrigin) -> Result<i64, StoreError> {
    match origin {
        ClientOrigin::PreRegistered => Ok(0),
        ClientOrigin::Registered => Ok(1),
        ClientOrigin::MetadataDocument => Ok(2),
        _ => Err(StoreError::Inconsistent),
    }
}

pub(super) fn blob(row: &Row) -> Result<Vec<u8>, StoreError> {
    Ok(row.try_get("record")?)
}

/// The key of a reservation: no two combinations of its parts share one.
pub(super) fn reservation_key(kind: u8, action: &ReserveOnce) -> Vec<u8> {
    let mut key = vec![kind];
    for part in [action.issuer(), action.audience().as_str(), action.value()] {
        key.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        key.extend_from_slice(part.as_bytes());
    }
    bytes(SecretDigest::of(&key))
}

/// Today's epochs of a client, a person and their consent.
pub(super) async fn epochs(
    connection: &mut Connection,
    client: &ClientId,
    subject: &str,
) -> Result<Epochs, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, epoch FROM epochs WHERE (kind = 1 AND subject = '' AND client_id = $1) \
         OR (kind = 2 AND subject = $2 AND client_id = '') OR (kind = 3 AND subject = $2 AND client_id = $1)",
    )
    .bind(client.as_str())
    .bind(subject)
    .fetch_all(connection)
    .await?;
    let mut epochs = Epochs::default();
    for row in rows {
        let epoch = unsigned(row.try_get("epoch")?)?;
        match row.try_get::<i64, _>("kind")? {
            1 => epochs.client = epoch,
            2 => epochs.subject = epoch,
            3 => epochs.consent = epoch,
            _ => return Err(StoreError::Inconsistent),
        }
    }
    Ok(epochs)
}

/// What stands of a family: whether it is active, and the generation of its live refresh token. `None` when there is
/// none, or anything has been revoked since the grant was made.
pub(super) async fn standing(
    connection: &mut Connection,
    grant: &GrantRecord,
) -> Result<Option<(bool, i64)>, StoreError> {
    let row = sqlx::query(
        "SELECT active, generation FROM families WHERE family = $1 \
         AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = families.family)",
    )
    .bind(family_bytes(grant.family))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if epochs(connection, &grant.client_id, &grant.subject).await? != grant.epochs {
        return Ok(None);
    }
    Ok(Some((row.try_get("active")?, row.try_get("generation")?)))
}

/// Whether the grant's family is active and nothing has been revoked since.
pub(super) async fn is_active(connection: &mut Connection, grant: &GrantRecord) -> Result<bool, StoreError> {
    Ok(matches!(standing(connection, grant).await?, Some((true, _))))
}

/// Which client a write may replace. Where it may not, it leaves what is there.
#[derive(Clone, Copy)]
pub(super) enum Replace {
    /// Whatever has the identifier: for the operator.
    Any,
    /// A client of a metadata document that was fetched no later.
    OlderDocument,
    /// None.
    Nothing,
}

/// Inserts or replaces a client, keeping when it was used last; says whether it was written.
pub(super) async fn write_client(
    connection: &mut Connection,
    record: &ClientRecord,
    replace: Replace,
) -> Result<bool, StoreError> {
    let stored = record.to_bytes();
    let written = sqlx::query(
        "INSERT INTO clients (client_id, origin, created, digest, record) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (client_id) DO UPDATE SET origin = excluded.origin, created = excluded.created, \
         digest = excluded.digest, record = excluded.record \
         WHERE $6 = 2 OR ($6 = 1 AND clients.origin = 2 AND clients.created <= excluded.created)",
    )
    .bind(record.client_id.as_str())
    .bind(origin(record.origin)?)
    .bind(record.created.unix_timestamp())
    .bind(bytes(SecretDigest::of(&stored)))
    .bind(stored)
    .bind(match replace {
        Replace::Any => 2_i64,
        Replace::OlderDocument => 1,
        Replace::Nothing => 0,
    })
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

pub(super) async fn is_known(connection: &mut Connection, id: &ClientId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM clients WHERE client_id = $1")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn client_used(
    connection: &mut Connection,
    id: &ClientId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    // Every token of a client would write this one row, and wait for whoever wrote it last: once in an hour is enough for
    // a lifetime of months.
    sqlx::query("UPDATE clients SET used = $1 WHERE client_id = $2 AND (used IS NULL OR used <= $3)")
        .bind(now.unix_timestamp())
        .bind(id.as_str())
        .bind(now.saturating_sub(CLIENT_USE_NOTED).unix_timestamp())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_refresh(
    connection: &mut Connection,
    digest: SecretDigest,
    record: &RefreshRecord,
) -> Result<(), StoreError> {
    sqlx::query(
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

pub(super) async fn insert_access(
    connection: &mut Connection,
    access: Option<(SecretDigest, &Arc<AccessRecord>)>,
) -> Result<(), StoreError> {
    let Some((digest, record)) = access else { return Ok(()) };
    sqlx::query("INSERT INTO access_tokens (digest, not_after, record) VALUES ($1, $2, $3)")
        .bind(bytes(digest))
        .bind(record.expires.unix_timestamp())
        .bind(record.to_bytes())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_code(
    connection: &mut Connection,
    digest: SecretDigest,
    code: &CodeRecord,
) -> Result<(), StoreError> {
    let (family, not_after) = (family_bytes(code.grant.family), code.grant.not_after.unix_timestamp());
    sqlx::query("INSERT INTO families (family, active, generation, not_after) VALUES ($1, FALSE, 0, $2)")
        .bind(family.clone())
        .bind(not_after)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO codes (digest, family, spent, client_id, expires, not_after, record) \
         VALUES ($1, $2, FALSE, $3, $4, $5, $6)",
    )
    .bind(bytes(digest))
    .bind(family)
    .bind(code.grant.client_id.as_str())
    .bind(code.expires.unix_timestamp())
    .bind(not_after)
    .bind(code.to_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds one to an epoch.
pub(super) async fn move_epoch(
    connection: &mut Connection,
    (kind, subject, client): (u8, &str, &str),
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO epochs (kind, subject, client_id, epoch) VALUES ($1, $2, $3, 1) \
         ON CONFLICT (kind, subject, client_id) DO UPDATE SET epoch = epochs.epoch + 1",
    )
    .bind(i64::from(kind))
    .bind(subject)
    .bind(client)
    .execute(connection)
    .await?;
    Ok(())
}
