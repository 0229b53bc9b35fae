//! The one connection that writes, on a thread of its own, and transactions that are committed together.
//!
//! A commit takes longer than a transaction, and the disk longer than both. So those that wait for their turn do not each commit: one
//! after the other runs in a savepoint, as long as the disk is waited for and they are not too many, and one commit stands for all.
//! Then another thread waits for the disk and answers them (`disk.rs`), while the next ones run.
//!
//! ```text
//! one    ├ BEGIN, savepoint, statements ┤ .................................. ├ COMMIT ┤ ├ sync ┤ answered
//! two    ............................... ├ savepoint, statements ┤ ............................... answered
//! three  ........................................................ ├ a statement fails: undone, alone ┤
//! four   .................................................................... ├ BEGIN, savepoint, statements ┤ ...
//! ```
//!
//! Where many were committed together lately, the group also waits a millisecond for more ([`MANY`]).
//!
//! Nobody is answered before their group is on the disk, whether they changed something or only saw what another of the group did; if
//! that fails, it fails for all of them. A transaction that waits for its turn is carried out to its end, whether or not its caller
//! still waits. Not more than [`WAITING`] wait; a caller that comes then is told to try again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::Ended;
use super::disk::{Disk, Failure, Health, Log, OpenLog};
use super::driver::Connection;
use super::opening::{Access, OpenError, PATIENCE, connect, is_busy};
use crate::store::{StoreError, WAITING};

/// At so many pages, 32 MiB, the log is copied into the file: that waits for the disk twice, and a page that was written often in
/// between is copied once.
const PAGES: i64 = 8192;

/// How long the log is, is asked for after so many changed rows. A row is in half a dozen trees.
const CHANGES: u64 = 512;

/// How many are committed together at most, so that the first need not wait for ever.
const TOGETHER: usize = 256;

/// So many together are many: where as many were lately, more are waited for once before a commit, for this long. A commit costs
/// as much as ten transactions, and waiting nothing but time; fewer callers would spend it waiting for one another.
const MANY: usize = 40;
const LINGER: Duration = Duration::from_millis(1);

/// The thread that writes. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Writer(mpsc::Sender<Message>);

enum Message {
    Run(Box<dyn Job>),
    /// The disk is waited for no more.
    Freed,
    Close(oneshot::Sender<()>),
}

/// One transaction, for the thread that writes.
pub(super) trait Job: Send {
    /// Runs it; says whether what it did is to be kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Tells its caller, once the disk has what its group did, or after the failure of that.
    fn answer(self: Box<Self>, stored: Result<(), Failure>);
}

/// A transaction, then what it gave, and who waits for that.
struct Task<T, R> {
    transaction: Option<T>,
    /// Nothing before it has run, and after a panic.
    answer: Option<Result<R, StoreError>>,
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
        self.answer = Some(outcome.answer);
        outcome.kept
    }

    fn answer(self: Box<Self>, stored: Result<(), Failure>) {
        let answer = match (self.answer, stored) {
            (Some(answer), Ok(())) => answer,
            (Some(Err(own)), Err(_)) => Err(own),
            (_, Err(failure)) => Err(failure.into()),
            (None, Ok(())) => Err(Ended::error()),
        };
        // Whoever waits no more needs no answer.
        let _ = self.caller.send(answer);
    }
}

impl Writer {
    /// Starts the threads, on a connection with its log, and whatever opens another one.
    pub(super) fn start(
        path: Arc<Path>,
        connection: rusqlite::Connection,
        open_log: OpenLog,
        health: Health,
    ) -> std::io::Result<Self> {
        let (sender, messages) = mpsc::channel(WAITING);
        let log = Arc::from(open_log(&path)?);
        let freed = sender.downgrade();
        let disk = Disk::start(health.clone(), move || {
            // Where the queue is full, whoever takes from it looks by itself.
            if let Some(sender) = freed.upgrade() {
                let _ = sender.try_send(Message::Freed);
            }
        })?;
        thread::Builder::new().name("mcp-authz-sqlite".to_owned()).spawn(move || {
            let open = Some(Open { log, connection: Connection::new(connection) });
            Lane { disk, open, path, open_log, health, measured: 0, crowd: 0 }.serve(messages);
        })?;
        Ok(Self(sender))
    }

    /// Runs a transaction in its turn, and gives its answer once it is on the disk.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        transaction: impl FnOnce(Connection) -> Outcome<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (caller, answer) = oneshot::channel();
        let task = Task { transaction: Some(transaction), answer: None, caller };
        self.0.try_send(Message::Run(Box::new(task))).map_err(|refused| match refused {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Closed(_) => Ended::error(),
        })?;
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

/// A connection and the log that it writes.
struct Open {
    // Closed first.
    log: Arc<dyn Log>,
    connection: Connection,
}

/// What the thread has: a connection, and where there is another if that one fails.
struct Lane {
    // Everybody is answered before the connection is closed.
    disk: Disk,
    open: Option<Open>,
    path: Arc<Path>,
    open_log: OpenLog,
    health: Health,
    /// How many rows the connection had changed when the log was measured.
    measured: u64,
    /// How many were committed together, at most of late.
    crowd: usize,
}

impl Lane {
    /// Carries out what comes, until the store is closed or nobody has it any more.
    fn serve(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut next = messages.blocking_recv();
        let closing = loop {
            next = match next {
                Some(Message::Run(first)) => self.serve_group(first, &mut messages),
                Some(Message::Freed) => None,
                Some(Message::Close(caller)) => break Some(caller),
                None => break None,
            };
            if next.is_none() {
                next = messages.blocking_recv();
            }
        };
        messages.close();
        // What still waits is dropped, which tells whoever waits for it.
        drop((self, messages));
        if let Some(caller) = closing {
            let _ = caller.send(());
        }
    }

    /// Carries out one group and has it answered; gives what else has come from the queue.
    fn serve_group(
        &mut self,
        first: Box<dyn Job>,
        messages: &mut mpsc::Receiver<Message>,
    ) -> Option<Message> {
        let mut group = Vec::new();
        let (committed, next) = match self.begin() {
            Ok((connection, log)) => {
                let many = self.crowd >= MANY;
                let (ended, next) = together(&connection, &self.disk, many, first, messages, &mut group);
                // Half of it is forgotten after a dozen groups.
                self.crowd = self.crowd.saturating_sub(self.crowd / 16).max(group.len());
                (ended.map(|()| log), next)
            }
            Err(failure) => {
                // Those that came meanwhile have waited as well.
                group.push(first);
                (Err(failure), drain(messages, &mut group))
            }
        };
        match committed {
            Ok(log) => {
                self.disk.answer(log, group);
                self.shorten_log();
            }
            Err(failure) => {
                self.give_up();
                for job in group {
                    job.answer(Err(failure.clone()));
                }
            }
        }
        next
    }

    /// Begins a transaction, on a new connection where the last one failed; gives the log that it will be written to.
    fn begin(&mut self) -> Result<(Connection, Arc<dyn Log>), Failure> {
        self.health.check()?;
        if let Some(open) = &self.open {
            open.connection.run("BEGIN IMMEDIATE")?;
            return Ok((open.connection.clone(), Arc::clone(&open.log)));
        }
        let connection = Connection::new(connect(&self.path, Access::Writes, PATIENCE)?);
        // The log is there from then on.
        connection.run("BEGIN IMMEDIATE")?;
        let log: Arc<dyn Log> = Arc::from((self.open_log)(&self.path).map_err(OpenError::from)?);
        self.open = Some(Open { log: Arc::clone(&log), connection: connection.clone() });
        Ok((connection, log))
    }

    /// Copies the log into the file once it is long.
    fn shorten_log(&mut self) {
        let Some(Open { connection, .. }) = &self.open else { return };
        // A new connection begins with none.
        let changes = connection.changes();
        if changes.abs_diff(self.measured) < CHANGES {
            return;
        }
        self.measured = changes;
        // This one does nothing but tell how long the log is.
        let long = connection.number("PRAGMA wal_checkpoint(NOOP)", 1).map(|pages| pages >= PAGES);
        let copied = match long {
            Ok(true) => connection.number("PRAGMA wal_checkpoint(PASSIVE)", 0).map(drop),
            other => other.map(drop),
        };
        match copied {
            Err(error) if !is_busy(&error) => self.health.fail(Failure::Disk(Arc::new(error))),
            // Another process does it, or the next group.
            _ => {}
        }
    }

    /// Goes back to before a group that failed; where that fails too, the connection goes.
    fn give_up(&mut self) {
        if let Some(Open { connection, .. }) = &self.open
            && connection.is_open()
            && (connection.run("ROLLBACK").is_err() || connection.is_open())
        {
            self.open = None;
        }
    }
}

/// Runs what waits, and what comes while the disk is waited for and, where there are many, a little longer, in one transaction and
/// commits it; gives what else has come from the queue.
fn together(
    connection: &Connection,
    disk: &Disk,
    mut many: bool,
    first: Box<dyn Job>,
    messages: &mut mpsc::Receiver<Message>,
    group: &mut Vec<Box<dyn Job>>,
) -> (Result<(), Failure>, Option<Message>) {
    let mut next = Some(Message::Run(first));
    let end = loop {
        match next {
            Some(Message::Run(mut job)) => {
                let ran = one(connection, job.as_mut());
                group.push(job);
                if let Err(error) = ran {
                    return (Err(error.into()), None);
                }
            }
            Some(Message::Freed) => {}
            Some(Message::Close(_)) | None => break next,
        }
        if group.len() >= TOGETHER {
            break None;
        }
        next = match messages.try_recv() {
            Ok(message) => Some(message),
            Err(_) if disk.is_free() && many => {
                many = false;
                thread::sleep(LINGER);
                Some(Message::Freed)
            }
            Err(_) if disk.is_free() => break None,
            Err(_) => messages.blocking_recv(),
        };
    };
    let committed = disk.wait().and_then(|()| Ok(connection.run("COMMIT")?));
    (committed, end)
}

/// Runs one transaction of a group, and undoes it where it is not to be kept. An error is one of the whole group.
fn one(connection: &Connection, job: &mut dyn Job) -> Result<(), rusqlite::Error> {
    connection.run("SAVEPOINT one")?;
    // A panic is told to the caller by its answer, and to nobody else.
    let kept = catch_unwind(AssertUnwindSafe(|| job.run(connection))).unwrap_or(false);
    if !kept {
        // Where SQLite has rolled back everything, there is no savepoint any more, and this fails.
        connection.run("ROLLBACK TO one")?;
    }
    connection.run("RELEASE one")
}

/// Takes what waits, as many as would be committed together and up to a message of another kind.
fn drain(messages: &mut mpsc::Receiver<Message>, group: &mut Vec<Box<dyn Job>>) -> Option<Message> {
    while group.len() < TOGETHER {
        match messages.try_recv() {
            Ok(Message::Run(job)) => group.push(job),
            Ok(Message::Freed) => {}
            Ok(other) => return Some(other),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Connection, Failure, Job, Message, TOGETHER, drain, mpsc};

    struct Nothing;

    impl Job for Nothing {
        fn run(&mut self, _: &Connection) -> bool {
            false
        }

        fn answer(self: Box<Self>, _: Result<(), Failure>) {}
    }

    /// Those who wait longer get a try of their own.
    #[test]
    fn no_more_fail_together_than_would_be_committed_together() {
        let (sender, mut messages) = mpsc::channel(2 * TOGETHER);
        for _ in 0..TOGETHER + 9 {
            assert!(sender.try_send(Message::Run(Box::new(Nothing))).is_ok());
        }
        assert!(sender.try_send(Message::Freed).is_ok());
        let mut group: Vec<Box<dyn Job>> = vec![Box::new(Nothing)];
        assert!(drain(&mut messages, &mut group).is_none());
        assert_eq!((group.len(), messages.len()), (TOGETHER, 11));
        // The rest, with nothing between them that would end the group.
        group.clear();
        assert!(drain(&mut messages, &mut group).is_none());
        assert_eq!((group.len(), messages.len()), (10, 0));
    }
}
