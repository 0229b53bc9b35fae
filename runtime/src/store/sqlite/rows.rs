//! Statements that several transactions share.

use mcp_authz::authorization_server::record::{
    ClientOrigin, ClientRecord, CodeRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::store::{StoreError, UNUSED_CLIENTS};

pub(super) fn bytes(digest: SecretDigest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

pub(super) fn family_bytes(family: FamilyId) -> Vec<u8> {
    family.as_bytes().to_vec()
}

pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Inconsistent)
}

pub(super) fn origin(origin: ClientOrigin) -> Result<i64, StoreError> {
    match origin {
        ClientOrigin::PreRegistered => Ok(0),
        ClientOrigin::Registered => Ok(1),
        ClientOrigin::MetadataDocument => Ok(2),
        _ => Err(StoreError::Inconsistent),
    }
}

pub(super) fn blob(row: &SqliteRow) -> Result<Vec<u8>, StoreError> {
    Ok(row.try_get("record")?)
}

/// Today's epochs of a client, a person and their consent.
pub(super) async fn epochs(
    connection: &mut SqliteConnection,
    client: &ClientId,
    subject: &str,
) -> Result<Epochs, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, epoch FROM epochs WHERE (kind = 1 AND subject = '' AND client_id = ?1) \
         OR (kind = 2 AND subject = ?2 AND client_id = '') OR (kind = 3 AND subject = ?2 AND client_id = ?1)",
    )
    .bind(client.as_str())
    .bind(subject)
    .fetch_all(connection)
    .await?;
    let mut epochs = Epochs::default();
    for row in rows {
        let epoch = u64::try_from(row.try_get::<i64, _>("epoch")?).map_err(|_| StoreError::Inconsistent)?;
        match row.try_get::<i64, _>("kind")? {
            1 => epochs.client = epoch,
            2 => epochs.subject = epoch,
            3 => epochs.consent = epoch,
            _ => return Err(StoreError::Inconsistent),
        }
    }
    Ok(epochs)
}

/// Whether nothing has been revoked since the grant was made.
pub(super) async fn stands(
    connection: &mut SqliteConnection,
    grant: &GrantRecord,
) -> Result<bool, StoreError> {
    let tombstone = sqlx::query("SELECT 1 FROM tombstones WHERE family = ?")
        .bind(family_bytes(grant.family))
        .fetch_optional(&mut *connection)
        .await?;
    if tombstone.is_some() {
        return Ok(false);
    }
    Ok(epochs(connection, &grant.client_id, &grant.subject).await? == grant.epochs)
}

/// Whether a family is there and active, and the generation of its live refresh token.
pub(super) async fn family(
    connection: &mut SqliteConnection,
    family: FamilyId,
) -> Result<Option<(bool, i64)>, StoreError> {
    let row = sqlx::query("SELECT active, generation FROM families WHERE family = ?")
        .bind(family_bytes(family))
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.try_get("active")?, row.try_get("generation")?))).transpose()
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
    connection: &mut SqliteConnection,
    record: &ClientRecord,
    replace: Replace,
) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "INSERT INTO clients (client_id, origin, created, record) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (client_id) DO UPDATE SET origin = ?2, created = ?3, record = ?4 \
         WHERE ?5 = 2 OR (?5 = 1 AND origin = 2 AND created <= ?3)",
    )
    .bind(record.client_id.as_str())
    .bind(origin(record.origin)?)
    .bind(record.created.unix_timestamp())
    .bind(record.to_bytes())
    .bind(match replace {
        Replace::Any => 2_i64,
        Replace::OlderDocument => 1,
        Replace::Nothing => 0,
    })
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

pub(super) async fn is_known(connection: &mut SqliteConnection, id: &ClientId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM clients WHERE client_id = ?")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Makes room for one more client that the operator did not write (I-P7).
pub(super) async fn make_room_for_client(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM clients WHERE client_id IN (SELECT client_id FROM clients WHERE used IS NULL AND origin <> 0 \
         ORDER BY created DESC, client_id LIMIT -1 OFFSET ?)",
    )
    .bind(i64::try_from(UNUSED_CLIENTS.saturating_sub(1)).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn client_used(
    connection: &mut SqliteConnection,
    id: &ClientId,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE clients SET used = ? WHERE client_id = ?")
        .bind(now.unix_timestamp())
        .bind(id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn insert_refresh(
    connection: &mut SqliteConnection,
    digest: SecretDigest,
    record: &RefreshRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO refresh_tokens (digest, family, generation, retired, not_after, record) \
         VALUES (?, ?, ?, 0, ?, ?)",
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

pub(super) async fn insert_code(
    connection: &mut SqliteConnection,
    digest: SecretDigest,
    code: &CodeRecord,
) -> Result<(), StoreError> {
    let (family, not_after) = (family_bytes(code.grant.family), code.grant.not_after.unix_timestamp());
    sqlx::query("INSERT INTO families (family, active, generation, not_after) VALUES (?, 0, 0, ?)")
        .bind(family.clone())
        .bind(not_after)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO codes (digest, family, spent, not_after, record) VALUES (?, ?, 0, ?, ?)")
        .bind(bytes(digest))
        .bind(family)
        .bind(not_after)
        .bind(code.to_bytes())
        .execute(connection)
        .await?;
    Ok(())
}
