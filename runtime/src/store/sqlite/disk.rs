//! The thread that waits for the disk, so that the one that writes need not.
//!
//! Under `synchronous = NORMAL` a `COMMIT` writes to the log (the file beside the database whose name ends in `-wal`) and does not wait
//! until the disk has it. The group is then handed to this thread, which waits for that and answers everybody of the group. Meanwhile
//! the next group runs, and is committed when this thread is free again: so whatever came in while the disk was waited for is one
//! commit, and nobody is answered before a sync that began after the commit of their group has ended.
//!
//! Why a sync of the log is enough, wherever the rows are:
//!
//! - One sync brings everything to the disk that was written to the log before it, by whatever process. So an answer also stands on what its
//!   transaction saw of others that were not answered yet, here or in another process, and a group that only looked waits like any other.
//! - A checkpoint syncs the log, copies it into the database, syncs the database and only then lets the log begin anew. What was
//!   committed before is on the disk then, in the database, and there is nothing left in the log that a sync would have to bring there.
//! - The log is one file as long as a connection has it open: only the last connection of all processes deletes it, under a lock that
//!   any other connection stands in the way of. So the file is opened when the connection has it, and goes with it.
//!   Keeping it open matters: the system tells a failed write to each descriptor that was open then, and to later ones
//!   only if nobody has been told. Closing it gives no lock of SQLite's up, for these are on the database and on the index of the log, which
//!   nothing but SQLite opens here.
//! - That the log is there, the folder says: SQLite syncs both when it begins a log, and [`WalFile::open`] the folder once more, which has
//!   a new database as well.
//!
//! A sync that failed says nothing about what is on the disk, and the next one may succeed without having brought it there. So the store
//! has failed then, for good: whoever waits, and whoever comes, reader or writer, gets an error. The next process copies all of the log
//! into the database before it serves anybody (`opening.rs`), which writes it again.
//!
//! The same holds for a checkpoint that failed: a later one may take what it has copied for stored. So the thread that writes makes them
//! itself (`writer.rs`), because SQLite would not tell that its own have failed.
//!
//! What only reads (`readers.rs`) may see what is not on the disk yet. Nothing is issued by reading alone: who reads a code, a decision or a
//! refresh token and acts on it writes, and that sync covers what was read. But "it has ended" is an answer that somebody may rely on who
//! asked to end it, so whoever reads that a grant has ended, and whoever reads a list, waits for a sync as well before that is said
//! (`SqliteStore::read`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;

use super::opening::OpenError;
use super::writer::Job;
use crate::store::StoreError;

/// The log of the database.
pub(super) trait Log: Send + Sync {
    /// Waits until the disk has what was written to it.
    fn sync(&self) -> io::Result<()>;
}

/// Opens the log of a database that a connection has open.
pub(super) type OpenLog = Arc<dyn Fn(&Path) -> io::Result<Box<dyn Log>> + Send + Sync>;

/// The log in its file.
#[derive(Debug)]
pub(super) struct WalFile(File);

impl WalFile {
    /// Opens the log of the database of that name, which leads over no symbolic link.
    pub(super) fn open(database: &Path) -> io::Result<Box<dyn Log>> {
        // Some systems sync only what may be written.
        let file = File::options().read(true).write(true).open(log_of(database))?;
        #[cfg(unix)]
        if let Some(folder) = database.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Box::new(Self(file)))
    }
}

impl Log for WalFile {
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()?;
        // What is written to a file without a name is found by nobody after the power has failed.
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::nlink(&self.0.metadata()?) == 0 {
            return Err(io::Error::other("the store's log was deleted or replaced while it was open"));
        }
        Ok(())
    }
}

/// Where SQLite has the log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Why a group is not stored, or not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Database(#[source] Arc<rusqlite::Error>),
    #[error("{0}")]
    Opening(#[source] Arc<OpenError>),
    #[error(
        "what was written may not be on the disk: {0}; the store answers nothing any more: check the disk, then end every process \
         that has this file open, and start again"
    )]
    Disk(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Database(error) => error.into(),
            error => Self::Opening(Arc::new(error)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Whether the disk has failed the store. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<OnceLock<Failure>>);

impl Health {
    /// An error from the first failure on.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.0.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    pub(super) fn fail(&self, failure: Failure) {
        // The first cause counts.
        let _ = self.0.set(failure);
    }
}

/// A group that was committed and is not known to be on the disk.
struct Committed {
    log: Arc<dyn Log>,
    group: Vec<Box<dyn Job>>,
}

/// The thread that waits for the disk, as the one that writes sees it.
pub(super) struct Disk {
    groups: Option<mpsc::Sender<Committed>>,
    turn: Arc<Turn>,
    health: Health,
    thread: Option<thread::JoinHandle<()>>,
}

/// Whether a sync is under way.
#[derive(Default)]
struct Turn {
    busy: Mutex<bool>,
    freed: Condvar,
}

impl Turn {
    fn busy(&self) -> MutexGuard<'_, bool> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Starts the thread; `freed` is called after each sync.
    pub(super) fn start(health: Health, freed: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (groups, committed) = mpsc::channel::<Committed>();
        let turn = Arc::<Turn>::default();
        let (theirs, told) = (Arc::clone(&turn), health.clone());
        let thread = thread::Builder::new().name("mcp-authz-disk".to_owned()).spawn(move || {
            for Committed { log, group } in committed {
                let synced = log.sync().map_err(Failure::from);
                if let Err(failure) = &synced {
                    told.fail(failure.clone());
                }
                // The file goes before the connection it belongs to.
                drop(log);
                *theirs.busy() = false;
                theirs.freed.notify_one();
                freed();
                // I-G4: not before, and never after a failure.
                let stored = told.check().and(synced);
                for job in group {
                    job.answer(stored.clone());
                }
            }
        })?;
        Ok(Self { groups: Some(groups), turn, health, thread: Some(thread) })
    }

    /// Whether no sync is under way.
    pub(super) fn is_free(&self) -> bool {
        !*self.turn.busy()
    }

    /// Waits until no sync is under way; an error if one has failed.
    pub(super) fn wait(&self) -> Result<(), Failure> {
        let waited = self.turn.freed.wait_while(self.turn.busy(), |busy| *busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.health.check()
    }

    /// Answers a group that was committed to that log, once the disk has it.
    pub(super) fn answer(&self, log: Arc<dyn Log>, group: Vec<Box<dyn Job>>) {
        *self.turn.busy() = true;
        let handed = self.groups.as_ref().map(|groups| groups.send(Committed { log, group }));
        if !matches!(handed, Some(Ok(()))) {
            // The thread is gone, and those of the group find that nobody answers them.
            self.health.fail(io::Error::other("nobody waits for the disk any more").into());
            *self.turn.busy() = false;
        }
    }
}

impl Drop for Disk {
    /// Waits until everybody is answered.
    fn drop(&mut self) {
        drop(self.groups.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
