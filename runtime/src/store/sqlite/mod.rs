//! The store in one SQLite file: the embedded default.
//!
//! The file is created on first use, readable by its owner only. Writes go through one thread with one connection and a write-ahead
//! log, those that wait together in one `BEGIN IMMEDIATE` transaction; a second thread waits until the disk has the log, and a
//! receipt is made only then. Reads are done where they are asked for. Several processes on one machine may share the file. It
//! holds digests, never a code or token.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use mcp_authz::time::OffsetDateTime;

use super::parsed::ParsedClients;
use super::{Bounds, StoreError, Stored};
use crate::clock::{Clock, SystemClock};

/// The column in which a statement gives the database's clock: there is none, the process has its own.
macro_rules! clock {
    () => {
        "0 AS now"
    };
}

/// Two statements with one list of arguments.
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
mod disk;
mod driver;
mod epochs {
    include!("../sql/epochs.rs");
}
mod forward {
    include!("../sql/forward.rs");
}
mod locks;
mod opening;
mod readers;
mod room {
    include!("../sql/room.rs");
}
mod rows {
    include!("../sql/rows.rs");
}
mod transactions;
mod writer;

pub use opening::OpenError;

use disk::{Health, OpenLog, WalFile};
use driver::{Connection, Query, Row, Sql, now};
use locks::{Locks, take_turns};
use readers::Readers;
use writer::{Outcome, Writer};

type This = SqliteStore;

/// A [`Store`](super::Store) in one SQLite file. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: Arc<Path>,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    writer: Writer,
    readers: Readers,
    clients: ParsedClients,
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
        let opening =
            tokio::task::spawn_blocking(move || Self::open_file(&path, clock, Arc::new(WalFile::open)));
        opening.await.map_err(std::io::Error::other)?
    }

    fn open_file(path: &Path, clock: Arc<dyn Clock>, open_log: OpenLog) -> Result<Self, OpenError> {
        let path: Arc<Path> = opening::make(path)?.into();
        let connection = opening::open(&path, opening::OPENING)?;
        let health = Health::default();
        let writer = Writer::start(Arc::clone(&path), connection, open_log, health.clone())?;
        let readers = Readers::new(Arc::clone(&path), health);
        let (bounds, clients) = (Bounds::default(), ParsedClients::default());
        Ok(Self { path, clock, bounds, writer, readers, clients })
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

    /// Closes the connections, as soon as what has begun has ended and whoever waited is answered.
    pub async fn close(&self) {
        self.readers.close().await;
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

    /// As [`Self::carry_out`]: a file never falls silent.
    fn carry_out_at_length<A, R, F>(
        &self,
        action: A,
        transaction: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        self.carry_out(action, transaction)
    }

    /// As [`Self::carry_out`]: here a step of a flow waits for its turn like everything else.
    fn step<A, R, F>(
        &self,
        action: A,
        transaction: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        self.carry_out(action, transaction)
    }

    /// Carries out what reads a row, or a handful.
    fn read<A, R, F>(&self, action: A, statement: impl FnOnce(Turn, A) -> F + Send + 'static) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>>,
    {
        let turns = self.turns();
        Stored::later(async move {
            let read = self.readers.read(|connection| {
                let turn = turns(connection);
                let ended = Rc::clone(&turn.ended);
                now(statement(turn, action)).map(|answer| (answer, ended.get()))
            });
            let (answer, ended) = read.await?;
            if ended {
                self.disk_has_it().await?;
            }
            Ok(answer)
        })
    }

    /// Carries out what reads many. What a list leaves out may just have ended.
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
        Stored::later(async move {
            let list = self.readers.list(move |connection| now(statements(turns(connection), action)));
            let (answer, place) = list.await?;
            let stored = self.disk_has_it().await;
            drop(place);
            stored.map(|()| answer)
        })
    }

    /// Waits until the disk has all that anybody can have read by now, whichever process wrote it.
    async fn disk_has_it(&self) -> Result<(), StoreError> {
        // I-G4: a group that changes nothing waits for the disk as well.
        self.writer.run(|_| Outcome { answer: Ok(()), kept: false }).await
    }

    /// What makes a turn of a connection.
    fn turns(&self) -> impl FnOnce(Connection) -> Turn + Send + 'static {
        let (clock, bounds, clients) = (Arc::clone(&self.clock), self.bounds, self.clients.clone());
        move |connection| Turn {
            connection,
            clock,
            bounds,
            clients,
            kept: Rc::default(),
            ended: Rc::default(),
        }
    }
}

/// What one transaction of `store/sql` runs on.
struct Turn {
    connection: Connection,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    clients: ParsedClients,
    /// Whether what it did is to be committed.
    kept: Rc<Cell<bool>>,
    /// Whether it read that something has ended.
    ended: Rc<Cell<bool>>,
}

impl Turn {
    /// Something has ended, maybe so lately that the disk does not have it: nobody is told before it has.
    fn has_ended(&self) {
        self.ended.set(true);
    }

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

#[cfg(test)]
mod tests;
