//! The store in one SQLite file: the embedded default.
//!
//! The file is created on first use, readable by its owner only. Writes go through one thread with one connection under WAL and
//! `synchronous=FULL`, those that wait together in one `BEGIN IMMEDIATE` transaction, so that a receipt is made only for
//! what is on the disk; reads are done where they are asked for. Several processes on one machine may share the file. It holds
//! digests, never a code or token.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::time::OffsetDateTime;
use rusqlite::{ErrorCode, OpenFlags, TransactionBehavior};

use super::schema::{self, Mismatch};
use super::{Bounds, StoreError, Stored};
use crate::clock::{Clock, SystemClock};

/// The column in which a statement gives the database's clock: there is none, the process has its own.
macro_rules! clock {
    () => {
        "0 AS now"
    };
}

/// Two statements with one list of arguments; the second is an `INSERT` of a `SELECT` without a source.
macro_rules! together {
    ($first:literal, $second:literal) => {
        [$first, $second]
    };
}

mod actions {
    include!("../sql/actions.rs");
}
mod administration {
    include!("../sql/administration.rs");
}
mod driver;
mod epochs {
    include!("../sql/epochs.rs");
}
mod forward {
    include!("../sql/forward.rs");
}
mod locks;
mod readers;
mod room {
    include!("../sql/room.rs");
}
mod rows {
    include!("../sql/rows.rs");
}
mod transactions;
mod writer;

use driver::{Connection, Query, Row, Sql, now};
use locks::{Locks, take_turns};
use readers::Readers;
use writer::{Outcome, Writer};

type This = SqliteStore;

/// Marks the file as ours (`PRAGMA application_id`): "mcpa".
const APPLICATION_ID: i64 = 0x6d63_7061;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// How long a statement waits while another process has the file.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 128;

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
    Database(#[from] rusqlite::Error),
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
    readers: Readers,
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
        let opening = tokio::task::spawn_blocking(move || Self::open_file(path, clock));
        opening.await.map_err(std::io::Error::other)?
    }

    fn open_file(path: Arc<Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        create_private(&path)?;
        let mut connection = patiently_connect(&path)?;
        migrate(&path, &mut connection)?;
        let writer = Writer::start(Arc::clone(&path), connection)?;
        let readers = Readers::new(Arc::clone(&path));
        Ok(Self { path, clock, bounds: Bounds::default(), writer, readers })
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
        self.readers.close();
        self.writer.close().await;
    }

    /// Carries an action out in its turn, to its end even if nobody waits any more.
    fn carry_out<A, R, F>(
        &self,
        action: A,
        transaction: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        let turns = self.turns();
        Stored::later(self.writer.run(move |connection| {
            let turn = turns(connection);
            let kept = Rc::clone(&turn.kept);
            let answer = now(transaction(turn, action));
            let kept = kept.get() && answer.is_ok();
            Outcome { answer, kept }
        }))
    }

    /// Carries out what reads a row.
    fn read<A, R, F>(&self, action: A, statement: impl FnOnce(Turn, A) -> F + Send + 'static) -> Stored<'_, R>
    where
        A: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        let turns = self.turns();
        Stored::later(
            async move { self.readers.read(|connection| now(statement(turns(connection), action))) },
        )
    }

    /// Carries out what reads many.
    fn list<A, R, F>(
        &self,
        action: A,
        statements: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        let turns = self.turns();
        Stored::later(self.readers.list(move |connection| now(statements(turns(connection), action))))
    }

    /// What makes a turn of a connection.
    fn turns(&self) -> impl FnOnce(Connection) -> Turn + Send + 'static {
        let (clock, bounds) = (Arc::clone(&self.clock), self.bounds);
        move |connection| Turn { connection, clock, bounds, kept: Rc::default() }
    }
}

/// What one transaction of `store/sql` runs on.
struct Turn {
    connection: Connection,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    /// Whether what it did is to be committed.
    kept: Rc<Cell<bool>>,
}

impl Turn {
    /// A transaction that writes, and the clock: it has the file's one write lock since its group began, which
    /// holds more than any [`Locks`] name.
    async fn write(&self, _: Locks) -> Result<(Writing, OffsetDateTime), StoreError> {
        self.kept.set(false);
        let writing = Writing { connection: self.connection.clone(), kept: Rc::clone(&self.kept) };
        Ok((writing, self.clock.now()))
    }

    /// A transaction that reads one moment of the file over several statements.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.connection.run("BEGIN")?;
        Ok(Snapshot { connection: self.connection.clone() })
    }

    /// A transaction of one statement; says how many rows it wrote.
    async fn alone<S: Sql>(&self, query: Query<'_, S>) -> Result<u64, StoreError> {
        let rows = query.execute(&mut self.connection.clone()).await?.rows_affected();
        self.kept.set(rows > 0);
        Ok(rows)
    }

    /// One row of one statement, and the clock.
    async fn one<S: Sql>(&self, query: Query<'_, S>) -> Result<(Option<Row>, OffsetDateTime), StoreError> {
        let row = query.fetch_optional(&mut self.connection.clone()).await?;
        Ok((row, self.clock.now()))
    }
}

/// One transaction. Dropped before [`Writing::commit`], it has changed nothing.
struct Writing {
    connection: Connection,
    kept: Rc<Cell<bool>>,
}

impl Writing {
    /// Keeps what it did: nobody is answered before it is on the disk.
    async fn commit(self) -> Result<(), StoreError> {
        self.kept.set(true);
        Ok(())
    }

    /// Goes back to before the transaction, and gives what is to be answered: once what it may have seen of others in its
    /// group is on the disk.
    async fn unchanged<R>(self, receipt: R) -> Result<R, StoreError> {
        self.kept.set(false);
        Ok(receipt)
    }
}

impl Deref for Writing {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// A transaction that reads. One that is dropped takes its connection with it.
struct Snapshot {
    connection: Connection,
}

impl Snapshot {
    /// Its `COMMIT` has left the connection as it was.
    fn give_back(self) {}
}

/// The store was closed, or what should have answered has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the transaction has ended without an answer: the store was closed, or the log has a panic")]
struct Ended;

impl Ended {
    fn error() -> StoreError {
        StoreError::Failed(Box::new(Self))
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
enum Access {
    Reads,
    Writes,
}

/// A connection to the file, which is there.
fn connect(path: &Path, access: Access) -> Result<rusqlite::Connection, rusqlite::Error> {
    // No thread but the one that has the connection uses it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF")?;
    connection.execute_batch(match access {
        Access::Reads => "PRAGMA cache_size = -16384; PRAGMA query_only = ON",
        // The log is copied into the file at every 32 MiB: it waits for the disk twice, and a page that was written often
        // in between is copied once.
        Access::Writes => {
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536; \
             PRAGMA wal_autocheckpoint = 8192"
        }
    })?;
    Ok(connection)
}

/// Connects, and tries again while another process is just making the file: SQLite answers "locked" at once, without
/// its busy timeout, when two connections change to WAL together.
fn patiently_connect(path: &Path) -> Result<rusqlite::Connection, rusqlite::Error> {
    let mut tries = 0_u32;
    loop {
        match connect(path, Access::Writes) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < OPEN_TRIES =>
            {
                tries = tries.saturating_add(1);
                std::thread::sleep(Duration::from_millis(20));
            }
            connected => return connected,
        }
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
fn migrate(path: &Path, connection: &mut rusqlite::Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |sql: &str| transaction.query_row(sql, (), |row| row.get::<_, i64>(0));
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let fresh = version == 0 && application == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let digest: String = if number("SELECT count(*) FROM sqlite_schema WHERE name = 'schema_digest'")? == 1 {
        transaction.query_row("SELECT digest FROM schema_digest", (), |row| row.get(0))?
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
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_digest (one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1), \
         digest TEXT NOT NULL) STRICT",
    )?;
    let sql = "INSERT OR REPLACE INTO schema_digest (one, digest) VALUES (1, $1)";
    transaction.execute(sql, (schema::digest(SCHEMA),))?;
    transaction.pragma_update(None, "user_version", i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
