//! The wait for the disk, shared by everybody who waits for it at the same time.
//!
//! A commit that waits for the disk keeps its connection for as long. So transactions are committed without that wait, which
//! frees their connections, and nobody is answered before a transaction that does wait has been committed after theirs: the
//! log is written in order, so what came before it is on the disk, too, and on the replicas that a commit waits for.
//!
//! Others may read meanwhile what is not on the disk. Whatever they write rests on it and comes after it in the log; and
//! what they answer without writing is a refusal, or speaks of a credential that has not been given out.
//!
//! Where the connection that waits is cut off, the server may have crashed and lost what was committed before: whoever had begun
//! by then is told that the store is unavailable. So that nobody has begun, a connection that has not been used for a
//! while is asked before a transaction begins, and so it is when another connection to the server had to be made.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::store::connections::FRESH;

/// A transaction that writes to the log, and nothing to the tables: one that wrote nothing at all would not wait.
const WAIT: &str = "SELECT pg_logical_emit_message(true, 'mcp-authz', '')";

/// Waits for the disk. Clones wait together.
#[derive(Debug, Clone)]
pub(super) struct Durability(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: PgConnectOptions,
    /// How many transactions were committed.
    committed: AtomicU64,
    seen: Mutex<Seen>,
    waiting: tokio::sync::Mutex<Waiting>,
}

/// What is known of the connection.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When it was last seen to live, unless it has failed since.
    living: Option<Instant>,
    generation: Generation,
    /// How many other connections had been made when it was last asked.
    made: u64,
}

#[derive(Debug)]
struct Waiting {
    /// The connection whose commits wait.
    connection: Option<PgConnection>,
    /// How many of those committed are on the disk.
    durable: u64,
}

/// The life of one connection: what was begun in one is not waited for in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// What is left of a wait that failed or was given up: the next one to begin makes another connection.
struct Doubt<'a>(&'a Durability);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.seen().living = None;
    }
}

impl Durability {
    /// Over that connection and, should it be cut off, others like it.
    pub(super) fn new(options: PgConnectOptions, connection: PgConnection) -> Self {
        let waiting = tokio::sync::Mutex::new(Waiting { connection: Some(connection), durable: 0 });
        let seen = Mutex::new(Seen { living: Some(Instant::now()), generation: Generation(0), made: 0 });
        Self(Arc::new(Shared { options, committed: AtomicU64::new(0), seen, waiting }))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a transaction begins: makes sure that its end can be waited for. `made` counts the other connections to the
    /// server.
    pub(super) async fn ready(&self, made: u64) -> Result<Generation, sqlx::Error> {
        let seen = *self.seen();
        if seen.made == made && seen.living.is_some_and(|since| since.elapsed() < FRESH) {
            return Ok(seen.generation);
        }
        let mut waiting = self.0.waiting.lock().await;
        let doubt = Doubt(self);
        let mut living = None;
        if let Some(mut connection) = waiting.connection.take() {
            living = connection.ping().await.is_ok().then_some(connection);
        }
        let renewed = living.is_none();
        waiting.connection = Some(match living {
            Some(connection) => connection,
            None => self.0.options.connect().await?,
        });
        std::mem::forget(doubt);
        let mut seen = self.seen();
        let Generation(number) = seen.generation;
        let generation = Generation(if renewed { number.saturating_add(1) } else { number });
        *seen = Seen { living: Some(Instant::now()), generation, made };
        Ok(generation)
    }

    /// Returns once everything is on the disk that was committed before the call by whoever was ready in that generation.
    pub(super) async fn reached(&self, begun: Generation) -> Result<(), sqlx::Error> {
        let own = self.0.committed.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let mut waiting = self.0.waiting.lock().await;
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        if self.seen().generation != begun {
            return Err(lost());
        }
        // Another one, which began after this was committed, has waited for both.
        if waiting.durable >= own {
            return Ok(());
        }
        let committed = self.0.committed.load(Ordering::SeqCst);
        let mut connection = waiting.connection.take().ok_or_else(lost)?;
        let doubt = Doubt(self);
        connection.execute(sqlx::query(WAIT)).await?;
        std::mem::forget(doubt);
        waiting.connection = Some(connection);
        waiting.durable = committed;
        self.seen().living = Some(Instant::now());
        Ok(())
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        let connection = self.0.waiting.lock().await.connection.take();
        if let Some(connection) = connection {
            let _ = connection.close().await;
        }
    }
}
