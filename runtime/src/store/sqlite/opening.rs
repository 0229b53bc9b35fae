//! Opening the file: whose it is, how connections to it are made, and its schema.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior};

use crate::store::StoreError;
use crate::store::schema::{self, Mismatch};

/// Marks the file as ours (`PRAGMA application_id`): "mcpa".
const APPLICATION_ID: i64 = 0x6d63_7061;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// How long a statement waits while another process has the file.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long opening the file is tried while others have it.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// How long a statement of one such try waits.
const TRY: Duration = Duration::from_millis(250);

/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 128;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be created or read.
    #[error("the store's file cannot be opened: {0}")]
    File(#[from] std::io::Error),
    /// SQLite refused it.
    #[error("the store's file cannot be used: {0}")]
    Database(#[from] Error),
    /// What SQLite takes for no file, or for a URL of one.
    #[error(
        "{path:?} is no file's name; name a file, or, for what may end with the process, the store in memory \
         (`mcp-authz serve --store memory`)"
    )]
    NoFile {
        /// The name.
        path: PathBuf,
    },
    /// Another program has it.
    #[error(
        "{path} was locked by another program for {seconds} seconds; end that program, or name another file"
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was tried.
        seconds: u64,
    },
    /// SQLite keeps no write-ahead log for it.
    #[error(
        "SQLite keeps {path} in journal mode `{mode}` and not in `wal`, which this store needs; name a file on a disk of this \
         machine"
    )]
    NoLog {
        /// The file.
        path: PathBuf,
        /// The mode.
        mode: String,
    },
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

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Database(error) => error.into(),
            error => Self::Failed(Box::new(error)),
        }
    }
}

/// Whether another connection was in the way.
pub(super) fn is_busy(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Creates the file for its owner only, unless it is there, before SQLite would create it for more: its log inherits the mode. Gives
/// its name without symbolic links, beside which SQLite has the log.
pub(super) fn make(path: &Path) -> Result<PathBuf, OpenError> {
    /// Closing the file gives up every lock that this process has on it: so no connection is made meanwhile.
    static ALONE: Mutex<()> = Mutex::new(());

    let name = path.as_os_str().as_encoded_bytes();
    if name.is_empty() || name == b":memory:" || name.starts_with(b"file:") {
        return Err(OpenError::NoFile { path: path.into() });
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
        made => drop(made),
    }
    drop(alone);
    Ok(path.canonicalize()?)
}

/// Opens the file that is there, brings its schema to the newest version, and makes sure that all of its log is on the disk.
pub(super) fn open(path: &Path, patience: Duration) -> Result<Connection, OpenError> {
    let start = Instant::now();
    let wait = || {
        if start.elapsed() >= patience {
            return Err(OpenError::Busy { path: path.into(), seconds: patience.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    };
    let connection = loop {
        match try_open(path) {
            // SQLite answers so at once, without its timeout, when two connections change to the log together.
            Err(OpenError::Database(error)) if is_busy(&error) => wait()?,
            opened => break opened?,
        }
    };
    copy_log(&connection, wait)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// Copies all that is in the log by now into the file. A process that failed, or was killed, may have left there what the system only
/// seems to have written: so all of it is written anew, and nobody is served before.
fn copy_log(connection: &Connection, wait: impl Fn() -> Result<(), OpenError>) -> Result<(), OpenError> {
    let copy = || {
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
    };
    let mut seen: Option<(i64, i64)> = None;
    loop {
        // I-G4: nothing fails where only a part was copied, or none because another process copies.
        let (busy, long, copied) = copy()?;
        if !busy {
            let (all, before) = seen.unwrap_or((long, long));
            // A log begins anew only once all of it was copied.
            if copied >= all || long < before {
                return Ok(());
            }
            seen = Some((all, long));
        }
        wait()?;
    }
}

fn try_open(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = plain(path, TRY)?;
    // Another program's file is left as it is.
    let look = connection.transaction()?;
    missing(path, &look)?;
    drop(look);
    set(path, &connection, Access::Writes)?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    Reads,
    Writes,
}

/// A connection to the file, which is there and ours. Each statement waits so long for others.
pub(super) fn connect(path: &Path, access: Access, patience: Duration) -> Result<Connection, OpenError> {
    let connection = plain(path, patience)?;
    set(path, &connection, access)?;
    Ok(connection)
}

fn plain(path: &Path, patience: Duration) -> Result<Connection, Error> {
    // No thread but the one that has the connection uses it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn set(path: &Path, connection: &Connection, access: Access) -> Result<(), OpenError> {
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF")?;
    match access {
        Access::Reads => connection.execute_batch("PRAGMA cache_size = -16384; PRAGMA query_only = ON")?,
        Access::Writes => {
            keep_log(path, connection)?;
            // The thread that writes copies the log into the file (`writer.rs`). Readers that stay on the log let it grow; what is
            // above twice the length at which it is copied is given back. What a savepoint goes back to stays in memory.
            connection.execute_batch(
                "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 0; \
                 PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY",
            )?;
        }
    }
    Ok(())
}

/// Changes to the write-ahead log.
pub(super) fn keep_log(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { Err(OpenError::NoLog { path: path.into(), mode }) }
}

/// The steps that its schema lacks, or why the file is refused.
fn missing(path: &Path, connection: &Connection) -> Result<&'static [&'static str], OpenError> {
    let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0));
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let fresh = version == 0 && application == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.into() });
    }
    let digest: String = if number("SELECT count(*) FROM sqlite_schema WHERE name = 'schema_digest'")? == 1 {
        connection.query_row("SELECT digest FROM schema_digest", (), |row| row.get(0))?
    } else {
        String::new()
    };
    schema::ahead(SCHEMA, version, &digest).map_err(|mismatch| match mismatch {
        Mismatch::Newer => OpenError::Newer { path: path.into(), found: version, known: SCHEMA.len() },
        Mismatch::Other => OpenError::Other { path: path.into(), found: version },
    })
}

/// Brings the schema to the newest version, or refuses the file.
fn migrate(path: &Path, connection: &mut Connection) -> Result<(), OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in missing(path, &transaction)? {
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
