//! The one connection that writes, and transactions that are committed together.
//!
//! A commit waits for the disk, which takes longer than everything else a transaction does. So those that wait for their
//! turn do not each commit: each runs in a savepoint, hands the connection on and queues up again, and the first whose second
//! turn comes commits for all that ran in between.
//!
//! ```text
//! one    ├ BEGIN, savepoint, statements ┤ ............................ ├ COMMIT ┤ answered
//! two    ............................... ├ savepoint, statements ┤ .............. answered
//! three  .......................................... ├ statement fails: back to the savepoint, alone
//! ```
//!
//! Beginning and committing are tasks of their own: a caller that stops waiting leaves neither half done.
//!
//! Nobody is answered before the `COMMIT` of their group has returned; if it fails, it fails for all of them.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{
    ConnectOptions as _, Connection as _, Database, Executor as _, Sqlite, SqliteConnection,
    TransactionManager,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::store::StoreError;

type Manager = <Sqlite as Database>::TransactionManager;

/// How a commit went, once it is known.
type Outcome = Option<Result<(), Arc<sqlx::Error>>>;

/// The connection that writes. Clones share it; whoever waits for it is served in order.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Mutex<Lane>>);

#[derive(Debug)]
struct Lane {
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    /// What the connection has under way is not known: it is replaced before its next use.
    broken: bool,
    /// What was done since the last savepoint is to be undone.
    dirty: bool,
    /// The transaction that is open, and how many wait for its commit.
    group: Option<watch::Sender<Outcome>>,
    members: usize,
}

/// One transaction. Dropped before [`Writing::commit`], it has changed nothing.
pub(super) struct Writing {
    writer: Writer,
    lane: OwnedMutexGuard<Lane>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        let (broken, dirty, group, members) = (false, false, None, 0);
        Self(Arc::new(Mutex::new(Lane { options, connection, broken, dirty, group, members })))
    }

    /// Waits for its turn, then begins a transaction in the group that is open, or in a new one.
    pub(super) async fn begin(&self) -> Result<Writing, StoreError> {
        let turn = self.turn();
        let beginning = tokio::spawn(async move {
            let mut writing = turn.await?;
            // None is released: the `COMMIT` ends them all, and a rollback goes to the last one.
            if let Err(error) = writing.lane.connection.execute(sqlx::query("SAVEPOINT one")).await {
                return Err(writing.fail(error));
            }
            writing.ended = false;
            Ok(writing)
        });
        beginning.await.map_err(|_| StoreError::Inconsistent)?
    }

    /// A transaction of one statement, which SQLite does wholly or not at all; says how many rows it wrote.
    pub(super) async fn alone<'q>(
        &self,
        query: Query<'q, Sqlite, SqliteArguments<'q>>,
    ) -> Result<u64, StoreError> {
        let mut writing = tokio::spawn(self.turn()).await.map_err(|_| StoreError::Inconsistent)??;
        match query.execute(&mut writing.lane.connection).await {
            Ok(done) => {
                writing.ended = true;
                writing.join().await?;
                Ok(done.rows_affected())
            }
            // It may have been more than the statement that was undone.
            Err(error) => Err(writing.fail(error)),
        }
    }

    /// Waits for its turn, and opens a group where there is none. It has no savepoint yet: dropped now, it ends a group of its
    /// own, so that the file's write lock goes free, and leaves another's as it is.
    fn turn(&self) -> impl Future<Output = Result<Writing, StoreError>> + Send + 'static {
        let writer = self.clone();
        async move {
            let mut lane = Arc::clone(&writer.0).lock_owned().await;
            lane.open().await?;
            let ended = lane.members > 0;
            Ok(Writing { writer, lane, ended })
        }
    }

    /// Closes the connection, as soon as everything that waits has ended.
    pub(super) async fn close(&self) {
        let mut lane = self.0.lock().await;
        lane.broken = true;
        // What takes its place holds nothing open.
        if let Ok(nothing) = SqliteConnection::connect("sqlite::memory:").await {
            let _ = std::mem::replace(&mut lane.connection, nothing).close().await;
        }
    }
}

impl Lane {
    /// Makes the connection ready for one more transaction.
    async fn open(&mut self) -> Result<(), StoreError> {
        if self.broken {
            self.give_up();
            self.connection = self.options.connect().await?;
            self.broken = false;
        }
        if self.group.is_none() {
            if let Err(error) = Manager::begin(&mut self.connection, Some("BEGIN IMMEDIATE".into())).await {
                return Err(self.fail(error));
            }
            self.group = Some(watch::Sender::new(None));
        }
        self.undo().await
    }

    /// Goes back to the savepoint of a transaction that did not end well. Where that is gone, so is the whole group: SQLite
    /// may have rolled back more.
    async fn undo(&mut self) -> Result<(), StoreError> {
        if !self.dirty {
            return Ok(());
        }
        match self.connection.execute(sqlx::query("ROLLBACK TO one")).await {
            // Not before: whoever gives up waiting leaves it to the next.
            Ok(_) => {
                self.dirty = false;
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Commits what the group did, and tells it.
    async fn commit(&mut self) {
        if self.broken {
            return self.give_up();
        }
        if self.undo().await.is_ok() {
            match Manager::commit(&mut self.connection).await {
                Ok(()) => self.answer(Ok(())),
                Err(error) => drop(self.fail(error)),
            }
        }
    }

    /// Tells a group whose connection is gone that it has not happened, or that nobody knows.
    fn give_up(&mut self) {
        if self.group.is_some() {
            drop(self.fail(sqlx::Error::WorkerCrashed));
        }
    }

    /// Ends the group without a commit: SQLite may have rolled back more than the transaction that failed.
    fn fail(&mut self, error: sqlx::Error) -> StoreError {
        self.broken = true;
        // The connection is replaced only when it is needed next; the file's write lock goes free now.
        Manager::start_rollback(&mut self.connection);
        self.dirty = false;
        let error = Arc::new(error);
        self.answer(Err(Arc::clone(&error)));
        StoreError::Failed(Box::new(error))
    }

    fn answer(&mut self, outcome: Result<(), Arc<sqlx::Error>>) {
        self.members = 0;
        if let Some(group) = self.group.take() {
            group.send_replace(Some(outcome));
        }
    }
}

impl Writing {
    /// Ends its group without a commit.
    fn fail(mut self, error: sqlx::Error) -> StoreError {
        self.ended = true;
        self.lane.fail(error)
    }

    /// Returns once the changes are on the disk.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.ended = true;
        self.join().await
    }

    /// Goes back to before the transaction, and gives what is to be answered: once what it may have seen of others in its
    /// group is on the disk.
    pub(super) async fn unchanged<R>(mut self, receipt: R) -> Result<R, StoreError> {
        if self.lane.members > 0 {
            self.ended = true;
            self.lane.dirty = true;
            self.join().await?;
        }
        Ok(receipt)
    }

    /// Hands the connection on, and waits until the group is committed.
    async fn join(mut self) -> Result<(), StoreError> {
        let Some(group) = &self.lane.group else { return Err(StoreError::Inconsistent) };
        let mut outcome = group.subscribe();
        self.lane.members = self.lane.members.saturating_add(1);
        let writer = self.writer.clone();
        drop(self);
        // Those that waited before come first, and join the group.
        let open = outcome.clone();
        tokio::spawn(async move {
            let mut lane = writer.0.lock().await;
            // Still open, so it is this transaction's.
            if open.borrow().is_none() {
                lane.commit().await;
            }
        });
        // Where nobody answers any more, what there is says nothing.
        let _ = outcome.changed().await;
        let outcome = outcome.borrow();
        match &*outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(StoreError::Failed(Box::new(Arc::clone(error)))),
            None => Err(StoreError::Inconsistent),
        }
    }
}

impl Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.lane.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.lane.connection
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let lane = &mut *self.lane;
        if lane.members > 0 {
            // Whoever comes next undoes it: at the latest a member of the group, to commit.
            lane.dirty = true;
        } else {
            // Nobody would commit: the file's write lock goes free for other processes.
            Manager::start_rollback(&mut lane.connection);
            lane.group = None;
        }
    }
}
