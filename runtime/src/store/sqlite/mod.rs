//! The store in one SQLite file: the embedded default.
//!
//! The file is created on first use, readable by its owner only. Writes go through one connection under WAL with
//! `synchronous=FULL`, those that wait together in one `BEGIN IMMEDIATE` transaction, so that a receipt is made only for
//! what is on the disk; several processes on one machine may share the file. It holds digests, never a code or token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::time::OffsetDateTime;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, Sqlite, SqliteConnection};

use super::connections::{Connections, Held};
use super::schema::{self, Mismatch};
use super::{Bounds, StoreError};
use crate::clock::{Clock, SystemClock};

/// The column in which a statement gives the database's clock: there is none, the process has its own.
macro_rules! clock {
    () => {
        "0 AS now"
    };
}

/// Two statements that are sent as one, with one list of arguments; the second is an `INSERT` of a `SELECT` without a source.
macro_rules! together {
    ($first:literal, $second:literal) => {
        concat!($first, "; ", $second)
    };
}

mod actions {
    include!("../sql/actions.rs");
}
mod administration {
    include!("../sql/administration.rs");
}
mod epochs {
    include!("../sql/epochs.rs");
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
mod transactions;
mod writer;

use locks::{Locks, take_turns};
use writer::{Writer, Writing};

type This = SqliteStore;
type Connection = SqliteConnection;
type Row = SqliteRow;
type Snapshot = Held<SqliteConnection>;

/// Marks the file as ours (`PRAGMA application_id`): "mcpa".
const APPLICATION_ID: i64 = 0x6d63_7061;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// Connections that read.
const READERS: u16 = 4;

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
    #[error("{path} is another program's database; name a file of the store's own")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error(
        "{path} has schema version {found}, and this program knows no version above {known}; run the program that wrote it, \
         or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
    /// Written by a program whose schema of that version was another.
    #[error(
        "{path} has schema version {found}, but not the tables that this program calls so: a build from before the first \
         release, or another program, made it; run that one, or name a new file, for which people sign in again"
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// The version it claims.
        found: i64,
    },
}

/// A [`Store`](super::Store) in one SQLite file. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    writer: Writer,
    readers: Connections<SqliteConnection>,
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
        let options = options.pragma("cache_size", "-65536");
        let mut connection = patiently_connect(&options).await?;
        migrate(&path, &mut connection).await?;
        let writer = Writer::new(options.clone(), connection);
        let options = options.pragma("cache_size", "-16384").pragma("query_only", "ON");
        Ok(Self {
            path,
            clock,
            bounds: Bounds::default(),
            writer,
            readers: Connections::new(options, READERS),
        })
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
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A transaction that writes, and the clock: it has the file's one write lock from its first statement on, which
    /// holds more than any [`Locks`] name.
    async fn write(&self, _: Locks) -> Result<(Writing, OffsetDateTime), StoreError> {
        let transaction = self.writer.begin().await?;
        Ok((transaction, self.clock.now()))
    }

    /// A transaction that reads one moment of the file over several statements.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut held = self.readers.take().await?;
        held.connection.execute("BEGIN").await?;
        Ok(held)
    }

    /// A transaction of one statement; says how many rows it wrote.
    async fn alone<'q>(&self, query: Query<'q, Sqlite, SqliteArguments<'q>>) -> Result<u64, StoreError> {
        self.writer.alone(query).await
    }

    /// One row of one statement, and the clock.
    async fn one<'q>(
        &self,
        query: Query<'q, Sqlite, SqliteArguments<'q>>,
    ) -> Result<(Option<Row>, OffsetDateTime), StoreError> {
        let mut held = self.readers.take().await?;
        let row = query.fetch_optional(&mut held.connection).await?;
        held.give_back();
        Ok((row, self.clock.now()))
    }
}

/// Connects, and tries again while another process is just making the file: SQLite answers "locked" at once, without
/// its busy timeout, when two connections change to WAL together.
async fn patiently_connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut tries = 0_u32;
    loop {
        match options.connect().await {
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
async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let number = async |connection: &mut SqliteConnection, sql: &'static str| {
        sqlx::query(sql).fetch_one(connection).await?.try_get::<i64, _>(0)
    };
    let version = number(&mut transaction, "PRAGMA user_version").await?;
    let application = number(&mut transaction, "PRAGMA application_id").await?;
    let tables = number(&mut transaction, "SELECT count(*) FROM sqlite_schema").await?;
    let fresh = version == 0 && application == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let has_digest = "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_digest'";
    let digest: String = if number(&mut transaction, has_digest).await? == 1 {
        sqlx::query_scalar("SELECT digest FROM schema_digest").fetch_one(&mut *transaction).await?
    } else {
        String::new()
    };
    let steps = match schema::ahead(SCHEMA, version, &digest) {
        Ok(steps) => steps,
        Err(Mismatch::Newer) => {
            return Err(OpenError::Newer { path: path.into(), found: version, known: SCHEMA.len() });
        }
        Err(Mismatch::Other) => return Err(OpenError::Other { path: path.into(), found: version }),
    };
    for step in steps {
        transaction.execute(*step).await?;
    }
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_digest (one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1), \
             digest TEXT NOT NULL) STRICT",
        )
        .await?;
    sqlx::query("INSERT OR REPLACE INTO schema_digest (one, digest) VALUES (1, $1)")
        .bind(schema::digest(SCHEMA))
        .execute(&mut *transaction)
        .await?;
    transaction.execute(format!("PRAGMA user_version = {}", SCHEMA.len()).as_str()).await?;
    transaction.execute(format!("PRAGMA application_id = {APPLICATION_ID}").as_str()).await?;
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests;
