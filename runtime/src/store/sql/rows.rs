// Statements that several transactions share, the same for every SQL database: the text is included once for each,
// below a parent that names the database's types (`Connection`, `Row`) and its `lock`.

use std::sync::Arc;

use mcp_authz::authorization_server::record::{ClientOrigin, ClientRecord, Epochs, FamilyId, GrantRecord};
use mcp_authz::authorization_server::store::ReserveOnce;
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;

use super::driver::{Get as _, query};
use super::{Connection, Row};
use crate::store::StoreError;

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

/// The grant that [`standing!`] is about, of which a row has the record as well.
pub(super) fn granted(row: &Row) -> Result<Arc<GrantRecord>, StoreError> {
    Ok(Arc::new(GrantRecord::from_bytes(&row.try_get::<Vec<u8>, _>("granted")?)?))
}

pub(super) fn reservation_key(action: &ReserveOnce) -> Result<Vec<u8>, StoreError> {
    crate::store::reservation_key(action).map(bytes)
}

/// Today's epochs of the client and the person that two expressions name, and of their consent, as columns of a statement.
macro_rules! epochs {
    ($client:literal, $subject:literal) => {
        concat!(
            "COALESCE((SELECT e.epoch FROM epochs e WHERE e.kind = 1 AND e.subject = '' AND e.client_id = ",
            $client,
            "), 0) AS client_epoch, \
             COALESCE((SELECT e.epoch FROM epochs e WHERE e.kind = 2 AND e.client_id = '' AND e.subject = ",
            $subject,
            "), 0) AS subject_epoch, \
             COALESCE((SELECT e.epoch FROM epochs e WHERE e.kind = 3 AND e.client_id = ",
            $client,
            " AND e.subject = ",
            $subject,
            "), 0) AS consent_epoch"
        )
    };
}
pub(super) use epochs;

/// What tells whether the grant of a row of `grants` stands, as columns of a statement.
macro_rules! standing {
    () => {
        concat!(
            "TRUE AS active, EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = grants.family) AS ended, ",
            epochs!("grants.client_id", "grants.subject")
        )
    };
}
pub(super) use standing;

/// What [`epochs!`] gave.
pub(super) fn today(row: &Row) -> Result<Epochs, StoreError> {
    Ok(Epochs::new(
        unsigned(row.try_get("client_epoch")?)?,
        unsigned(row.try_get("subject_epoch")?)?,
        unsigned(row.try_get("consent_epoch")?)?,
    ))
}

/// Whether a grant has begun and nothing has been revoked since, in a row with what [`epochs!`] gives, `active` and `ended`.
pub(super) fn stands(row: &Row, grant: &GrantRecord) -> Result<bool, StoreError> {
    let ended: bool = row.try_get("ended")?;
    Ok(row.try_get("active")? && !ended && today(row)? == grant.epochs)
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
    let written = query(
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
    let row = query("SELECT 1 FROM clients WHERE client_id = $1")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}
