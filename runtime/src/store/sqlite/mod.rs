//! The store in one SQLite file: the embedded default.
//!
//! The file is created on first use, readable by its owner only. Writes go through one connection, each in a
//! `BEGIN IMMEDIATE` transaction under WAL with `synchronous=FULL`, so that a receipt is made only for what is on
//! the disk; several processes on one machine may share the file. It holds digests, never a code or token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::time::OffsetDateTime;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Executor as _, Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::{Bounds, StoreError};
use crate::clock::{Clock, SystemClock};

mod administration {
    include!("../sql/administration.rs");
}
mod forward {
    include!("../sql/forward.rs");
}
mod locks;
mod room {
    include!("../sql/room.rs");
}
mod rows {
    include!("../sql/rows.rs");
}
mod transactions {
    include!("../sql/transactions.rs");
}

use locks::{Locks, take_turns};

type This = SqliteStore;
type Connection = SqliteConnection;
type Row = SqliteRow;

/// Marks the file as ours (`PRAGMA application_id`): "mcpa".
const APPLICATION_ID: i64 = 0x6d63_7061;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// How often a connection to a file that others are making is tried, 20 ms apart.
const OPEN_TRIES: u32 = 250;

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

/// A [`Store`](super::Store) in one SQLite file. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
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
        let path: Arc<Path> = path.as_ref().into();
        create_private(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(Duration::from_secs(5))
            .pragma("trusted_schema", "OFF");
        // One writer: transactions of this process queue here instead of meeting as busy errors.
        let writer = patiently_connect(1, &options).await?;
        migrate(&writer).await?;
        let reader = patiently_connect(4, &options.pragma("query_only", "ON")).await?;
        Ok(Self { path, clock, bounds: Bounds::default(), writer, reader })
    }

    /// Sets how much may wait at one time.
    #[must_use]
    pub fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
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

    /// A transaction that writes, and the clock: it has the file's one write lock from its first statement on, which
    /// holds more than any [`Locks`] name.
    async fn write(&self, _: Locks) -> Result<(Transaction<'static, Sqlite>, OffsetDateTime), StoreError> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok((transaction, self.clock.now()))
    }

    /// A transaction that reads one moment of the file, and the clock.
    async fn snapshot(&self) -> Result<(Transaction<'static, Sqlite>, OffsetDateTime), StoreError> {
        Ok((self.reader.begin().await?, self.clock.now()))
    }
}

/// Connects, and tries again while another process is just making the file: SQLite answers "locked" at once, without
/// its busy timeout, when two connections change to WAL together.
async fn patiently_connect(most: u32, options: &SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    let mut tries = 0_u32;
    loop {
        let connected = SqlitePoolOptions::new().max_connections(most).connect_with(options.clone()).await;
        match connected {
            Err(error) if is_busy(&error) && tries < OPEN_TRIES => {
                tries = tries.saturating_add(1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            connected => return connected,
        }
    }
}

/// `SQLITE_BUSY`, or one of its extended codes.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
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

#[cfg(test)]
mod tests;
