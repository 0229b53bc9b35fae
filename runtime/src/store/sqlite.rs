//! The store in one SQLite file: the embedded default.
//!
//! The file is created on first use, readable by its owner only. Writes go through one connection, each in a
//! `BEGIN IMMEDIATE` transaction under WAL with `synchronous=FULL`, so that a receipt is made only for what is on
//! the disk; several processes on one machine may share the file. It holds digests, never a code or token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::authorization_server::record::{
    ClientOrigin, ClientRecord, CodeRecord, DecisionRecord, Epochs, FamilyId, GrantRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    AllRevoked, ClientFound, ClientInsertion, CodeFound, CodeRedemption, DecideOnce, DecisionFound,
    DecisionInsertion, DecisionTaken, FamilyRevocation, FindClient, InsertClient, InsertDecision, ReadCode,
    ReadDecision, ReadRefresh, RedeemCode, RefreshFound, RefreshRotation, Reservation, ReservationKind,
    ReserveOnce, RevocationTarget, RevokeAll, RevokeFamily, RotateRefresh,
};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Executor as _, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::{
    AFTER_FAMILY, PENDING_DECISIONS, Store, StoreError, Stored, UNUSED_CLIENT_LIFETIME, UNUSED_CLIENTS,
    USED_CLIENT_LIFETIME,
};
use crate::clock::{Clock, SystemClock};

/// Marks the file as ours (`PRAGMA application_id`): "mcpa".
const APPLICATION_ID: i64 = 0x6d63_7061;

/// How many rows a sweep deletes in one transaction.
const SWEEP_BATCH: i64 = 256;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be created or read.
    #[error("the store's file cannot be opened: {0}")]
    File(#[from] std::io::Error),
    /// SQLite refused it.
    #[error("the store's file cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    /// Another program's database.
    #[error("the file is another program's database")]
    Foreign,
    /// Written by a newer version of this program.
    #[error("the file has schema version {found}, this program knows {known}")]
    Newer {
        /// The file's.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
}

/// A [`Store`] in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, creating it if need be, on the system's clock.
    ///
    /// # Errors
    /// [`OpenError`] for a file that is not this program's, or newer than it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with_clock(path, Arc::new(SystemClock)).await
    }

    /// Opens the file on another clock.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_with_clock(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        create_private(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(Duration::from_secs(5))
            .pragma("trusted_schema", "OFF");
        // One writer: transactions of this process queue here instead of meeting as busy errors.
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        migrate(&writer).await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.pragma("query_only", "ON"))
            .await?;
        Ok(Self { path, clock, writer, reader })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the connections; what was committed stays.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// A transaction that writes: it has the write lock from its first statement on.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Creates the file for its owner only, before SQLite would create it for more; its WAL inherits the mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Brings the schema to the newest version, or refuses the file.
async fn migrate(writer: &SqlitePool) -> Result<(), OpenError> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let number = async |connection: &mut SqliteConnection, sql: &'static str| {
        sqlx::query(sql).fetch_one(connection).await?.try_get::<i64, _>(0)
    };
    let version = number(&mut transaction, "PRAGMA user_version").await?;
    let application = number(&mut transaction, "PRAGMA application_id").await?;
    let tables = number(&mut transaction, "SELECT count(*) FROM sqlite_schema").await?;
    let fresh = version == 0 && application == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign);
    }
    let newer = || OpenError::Newer { found: version, known: SCHEMA.len() };
    let done = usize::try_from(version).map_err(|_| newer())?;
    for step in SCHEMA.get(done..).ok_or_else(newer)? {
        transaction.execute(*step).await?;
    }
    transaction.execute(format!("PRAGMA user_version = {}", SCHEMA.len()).as_str()).await?;
    transaction.execute(format!("PRAGMA application_id = {APPLICATION_ID}").as_str()).await?;
    transaction.commit().await?;
    Ok(())
}

fn bytes(digest: SecretDigest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

fn family_bytes(family: FamilyId) -> Vec<u8> {
    family.as_bytes().to_vec()
}

fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Inconsistent)
}

fn origin(origin: ClientOrigin) -> Result<i64, StoreError> {
    match origin {
        ClientOrigin::PreRegistered => Ok(0),
        ClientOrigin::Registered => Ok(1),
        ClientOrigin::MetadataDocument => Ok(2),
        _ => Err(StoreError::Inconsistent),
    }
}

fn blob(row: &SqliteRow) -> Result<Vec<u8>, StoreError> {
    Ok(row.try_get("record")?)
}

/// Today's epochs of a client, a person and their consent.
async fn epochs(
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
async fn stands(connection: &mut SqliteConnection, grant: &GrantRecord) -> Result<bool, StoreError> {
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
async fn family(
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
enum Replace {
    /// Whatever has the identifier: for the operator.
    Any,
    /// A client of a metadata document that was fetched no later.
    OlderDocument,
    /// None.
    Nothing,
}

/// Inserts or replaces a client, keeping when it was used last; says whether it was written.
async fn write_client(
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

async fn is_known(connection: &mut SqliteConnection, id: &ClientId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM clients WHERE client_id = ?")
        .bind(id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Makes room for one more client that the operator did not write (I-P7).
async fn make_room_for_client(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM clients WHERE client_id IN (SELECT client_id FROM clients WHERE used IS NULL AND origin <> 0 \
         ORDER BY created DESC, client_id LIMIT -1 OFFSET ?)",
    )
    .bind(i64::try_from(UNUSED_CLIENTS.saturating_sub(1)).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

async fn client_used(
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

async fn insert_refresh(
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

async fn insert_code(
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

impl SqliteStore {
    async fn find_client_row(&self, action: FindClient) -> Result<ClientFound, StoreError> {
        let row = sqlx::query("SELECT record FROM clients WHERE client_id = ?")
            .bind(action.client_id().as_str())
            .fetch_optional(&self.reader)
            .await?;
        Ok(match row {
            Some(row) => action.found(ClientRecord::from_bytes(&blob(&row)?)?, self.now()),
            None => action.absent(self.now()),
        })
    }

    async fn insert_client_row(&self, action: InsertClient) -> Result<ClientInsertion, StoreError> {
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

    async fn put_client_row(&self, record: ClientRecord) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        write_client(&mut transaction, &record, Replace::Any).await?;
        Ok(transaction.commit().await?)
    }

    async fn insert_decision_row(&self, action: InsertDecision) -> Result<DecisionInsertion, StoreError> {
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

    async fn read_decision_row(&self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
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

    async fn decide_once_rows(&self, action: DecideOnce) -> Result<DecisionTaken, StoreError> {
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

    async fn read_code_row(&self, action: ReadCode) -> Result<CodeFound, StoreError> {
        let row = sqlx::query("SELECT spent, record FROM codes WHERE digest = ?")
            .bind(bytes(action.digest()))
            .fetch_optional(&self.reader)
            .await?;
        let Some(row) = row else { return Ok(action.absent(self.now())) };
        let record = CodeRecord::from_bytes(&blob(&row)?)?;
        let spent: bool = row.try_get("spent")?;
        Ok(if spent { action.spent(record, self.now()) } else { action.live(record, self.now()) })
    }

    async fn redeem_code_rows(&self, action: RedeemCode) -> Result<CodeRedemption, StoreError> {
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

    async fn read_refresh_row(&self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
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

    async fn rotate_refresh_rows(&self, action: RotateRefresh) -> Result<RefreshRotation, StoreError> {
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

    async fn revoke_family_row(&self, action: RevokeFamily) -> Result<FamilyRevocation, StoreError> {
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

    async fn revoke_all_row(&self, action: RevokeAll) -> Result<AllRevoked, StoreError> {
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

    async fn reserve_once_row(&self, action: ReserveOnce) -> Result<Reservation, StoreError> {
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

    async fn sweep_rows(&self) -> Result<(), StoreError> {
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

impl Store for SqliteStore {
    fn find_client(&self, action: FindClient) -> Stored<'_, ClientFound> {
        Box::pin(self.find_client_row(action))
    }

    fn insert_client(&self, action: InsertClient) -> Stored<'_, ClientInsertion> {
        Box::pin(self.insert_client_row(action))
    }

    fn put_client(&self, record: ClientRecord) -> Stored<'_, ()> {
        Box::pin(self.put_client_row(record))
    }

    fn insert_decision(&self, action: InsertDecision) -> Stored<'_, DecisionInsertion> {
        Box::pin(self.insert_decision_row(action))
    }

    fn read_decision(&self, action: ReadDecision) -> Stored<'_, DecisionFound> {
        Box::pin(self.read_decision_row(action))
    }

    fn decide_once(&self, action: DecideOnce) -> Stored<'_, DecisionTaken> {
        Box::pin(self.decide_once_rows(action))
    }

    fn read_code(&self, action: ReadCode) -> Stored<'_, CodeFound> {
        Box::pin(self.read_code_row(action))
    }

    fn redeem_code(&self, action: RedeemCode) -> Stored<'_, CodeRedemption> {
        Box::pin(self.redeem_code_rows(action))
    }

    fn read_refresh(&self, action: ReadRefresh) -> Stored<'_, RefreshFound> {
        Box::pin(self.read_refresh_row(action))
    }

    fn rotate_refresh(&self, action: RotateRefresh) -> Stored<'_, RefreshRotation> {
        Box::pin(self.rotate_refresh_rows(action))
    }

    fn revoke_family(&self, action: RevokeFamily) -> Stored<'_, FamilyRevocation> {
        Box::pin(self.revoke_family_row(action))
    }

    fn revoke_all(&self, action: RevokeAll) -> Stored<'_, AllRevoked> {
        Box::pin(self.revoke_all_row(action))
    }

    fn reserve_once(&self, action: ReserveOnce) -> Stored<'_, Reservation> {
        Box::pin(self.reserve_once_row(action))
    }

    fn sweep(&self) -> Stored<'_, ()> {
        Box::pin(self.sweep_rows())
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, Executor as _, SqliteConnection};

    use super::{OpenError, SqliteStore};
    use crate::store::Store as _;

    #[tokio::test]
    async fn the_file_is_made_on_first_use_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = SqliteStore::open(&path).await.unwrap();
        store.sweep().await.unwrap();
        #[cfg(unix)]
        for name in ["store.db", "store.db-wal", "store.db-shm"] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        store.close().await;
        SqliteStore::open(&path).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn commits_are_durable_and_reads_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
        let number = async |pool: &sqlx::SqlitePool, sql: &'static str| {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await.unwrap()
        };
        // 2 is FULL.
        assert_eq!(number(&store.writer, "PRAGMA synchronous").await, 2);
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.writer).await.unwrap();
        assert_eq!(mode, "wal");
        assert!(store.reader.execute("DELETE FROM clients").await.is_err());
    }

    #[tokio::test]
    async fn foreign_and_newer_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("foreign.db");
        let url = format!("sqlite://{}?mode=rwc", foreign.display());
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        other.execute("CREATE TABLE notes (text TEXT)").await.unwrap();
        other.close().await.unwrap();
        assert!(matches!(SqliteStore::open(&foreign).await.unwrap_err(), OpenError::Foreign));

        let newer = folder.path().join("newer.db");
        let store = SqliteStore::open(&newer).await.unwrap();
        store.writer.execute("PRAGMA user_version = 99").await.unwrap();
        store.close().await;
        assert!(matches!(SqliteStore::open(&newer).await.unwrap_err(), OpenError::Newer { found: 99, .. }));
    }
}
