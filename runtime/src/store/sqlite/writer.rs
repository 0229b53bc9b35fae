//! The one connection that writes, on a thread of its own, and transactions that are committed together.
//!
//! A commit waits for the disk, which takes longer than everything else a transaction does. So those that wait for their turn do
//! not each commit: one after the other runs in a savepoint, and when nothing waits any more, or enough has run, one commit
//! stands for all.
//!
//! ```text
//! one    ├ BEGIN, savepoint, statements ┤ .................................... ├ COMMIT ┤ answered
//! two    ............................... ├ savepoint, statements ┤ ...................... answered
//! three  .......................................................... ├ a statement fails: back to the savepoint, alone
//! ```
//!
//! Nobody is answered before the `COMMIT` of their group has returned, whether they changed something or only saw what another of
//! the group did; if it fails, it fails for all of them. A transaction that waits for its turn is carried out to its end, whether
//! or not its caller still waits. Not more than [`WAITING`] wait; a caller that comes then waits before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rusqlite::Error;
use tokio::sync::{mpsc, oneshot};

use super::driver::Connection;
use super::{Access, Ended, connect};
use crate::store::StoreError;

/// How many transactions wait for their turn at most.
const WAITING: usize = 1024;

/// How many are committed together at most, so that the first need not wait for ever.
const TOGETHER: usize = 256;

/// The thread that writes. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Message>);

enum Message {
    Run(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// One transaction, for the thread that writes.
trait Job: Send {
    /// Runs it; says whether what it did is to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells its caller, after the commit of its group or the failure of it.
    fn answer(self: Box<Self>, committed: Result<(), Arc<Error>>);
}

/// A transaction, then what it gave, and who waits for that.
struct Task<T, R> {
    transaction: Option<T>,
    answer: Result<R, StoreError>,
    caller: oneshot::Sender<Result<R, StoreError>>,
}

/// What a transaction gives.
pub(super) struct Outcome<R> {
    pub(super) answer: Result<R, StoreError>,
    /// Whether what it did is to be committed.
    pub(super) kept: bool,
}

impl<T, R> Job for Task<T, R>
where
    T: FnOnce(Connection) -> Outcome<R> + Send,
    R: Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(transaction) = self.transaction.take() else { return false };
        let outcome = transaction(connection.clone());
        self.answer = outcome.answer;
        outcome.kept
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<Error>>) {
        let answer = match committed {
            Ok(()) => self.answer,
            Err(error) => self.answer.and_then(|_| Err(StoreError::Failed(Box::new(error)))),
        };
        // Whoever waits no more needs no answer.
        let _ = self.caller.send(answer);
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(path: Arc<Path>, connection: rusqlite::Connection) -> std::io::Result<Self> {
        let (sender, messages) = mpsc::channel(WAITING);
        thread::Builder::new().name("mcp-authz-sqlite".to_owned()).spawn(move || {
            Lane { path, connection: Some(Connection::new(connection)) }.serve(messages);
        })?;
        Ok(Self(sender))
    }

    /// Runs a transaction in its turn, and gives its answer once it is on the disk.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        transaction: impl FnOnce(Connection) -> Outcome<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (caller, answer) = oneshot::channel();
        let task = Task { transaction: Some(transaction), answer: Err(Ended::error()), caller };
        self.0.send(Message::Run(Box::new(task))).await.map_err(|_| Ended::error())?;
        answer.await.map_err(|_| Ended::error())?
    }

    /// Closes the connection, as soon as everything that waits has ended.
    pub(super) async fn close(&self) {
        let (caller, closed) = oneshot::channel();
        if self.0.send(Message::Close(caller)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

/// The connection, and where there is another if that one fails.
struct Lane {
    path: Arc<Path>,
    connection: Option<Connection>,
}

impl Lane {
    /// Carries out what comes, until the store is closed or nobody has it any more.
    fn serve(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut next = messages.blocking_recv();
        while let Some(Message::Run(first)) = next {
            next = self.serve_group(first, &mut messages);
            if next.is_none() {
                next = messages.blocking_recv();
            }
        }
        messages.close();
        // What still waits is dropped, which tells whoever waits for it.
        drop((self, messages));
        if let Some(Message::Close(caller)) = next {
            let _ = caller.send(());
        }
    }

    /// Carries out one group and answers it; gives what else has come from the queue.
    fn serve_group(
        &mut self,
        first: Box<dyn Job>,
        messages: &mut mpsc::Receiver<Message>,
    ) -> Option<Message> {
        let mut group = Vec::new();
        let (committed, next) = match self.begin() {
            Ok(connection) => together(connection, first, messages, &mut group),
            Err(error) => {
                // Those that came meanwhile have waited as well.
                group.push(first);
                (Err(error), drain(messages, &mut group))
            }
        };
        if committed.is_err() {
            self.give_up();
        }
        let committed = committed.map_err(Arc::new);
        for job in group {
            job.answer(committed.clone());
        }
        next
    }

    /// Begins a transaction, on a new connection where the last one failed.
    fn begin(&mut self) -> Result<&Connection, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(connect(&self.path, Access::Writes)?),
        };
        let connection = self.connection.insert(connection);
        connection.run("BEGIN IMMEDIATE")?;
        Ok(connection)
    }

    /// Goes back to before a group that failed; where that fails too, the connection goes.
    fn give_up(&mut self) {
        if let Some(connection) = &self.connection
            && connection.is_open()
            && (connection.run("ROLLBACK").is_err() || connection.is_open())
        {
            self.connection = None;
        }
    }
}

/// Runs what waits in one transaction and commits it; gives what else has come from the queue.
fn together(
    connection: &Connection,
    first: Box<dyn Job>,
    messages: &mut mpsc::Receiver<Message>,
    group: &mut Vec<Box<dyn Job>>,
) -> (Result<(), Error>, Option<Message>) {
    let mut next = Some(Message::Run(first));
    loop {
        match next {
            Some(Message::Run(mut job)) if group.len() < TOGETHER => {
                let ran = one(connection, job.as_mut());
                group.push(job);
                if ran.is_err() {
                    return (ran, None);
                }
            }
            other => return (connection.run("COMMIT"), other),
        }
        next = messages.try_recv().ok();
    }
}

/// Runs one transaction of a group, and undoes it where it is not to be kept. An error is one of the whole group.
fn one(connection: &Connection, job: &mut dyn Job) -> Result<(), Error> {
    connection.run("SAVEPOINT one")?;
    // A panic is told to the caller by its answer, and to nobody else.
    let kept = catch_unwind(AssertUnwindSafe(|| job.run(connection))).unwrap_or(false);
    if !kept {
        // Where SQLite has rolled back everything, there is no savepoint any more, and this fails.
        connection.run("ROLLBACK TO one")?;
    }
    connection.run("RELEASE one")
}

/// Takes what waits, up to a message of another kind.
fn drain(messages: &mut mpsc::Receiver<Message>, group: &mut Vec<Box<dyn Job>>) -> Option<Message> {
    loop {
        match messages.try_recv() {
            Ok(Message::Run(job)) => group.push(job),
            Ok(other) => return Some(other),
            Err(_) => return None,
        }
    }
}
