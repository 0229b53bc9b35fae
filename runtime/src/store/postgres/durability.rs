//! The wait for the disk, shared by everybody who waits for it at the same time.
//!
//! A commit that waits for the disk keeps its connection for as long. So transactions are committed without that wait, which
//! frees their connections, and nobody is answered before a transaction that does wait has been committed after theirs: the
//! log is written in order, so what came before it is on the disk, too, and on the replicas that a commit waits for.
//!
//! Others may read meanwhile what is not on the disk. Whatever they write rests on it and comes after it in the log; and
//! what they answer without writing is a refusal, or speaks of a credential that has not been given out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _, PgConnection};
use tokio::sync::Mutex;

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
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// The connection whose commits wait.
    connection: Option<PgConnection>,
    /// How many of those committed are on the disk.
    durable: u64,
}

impl Durability {
    /// Over that connection and, should it be cut off, others like it.
    pub(super) fn new(options: PgConnectOptions, connection: PgConnection) -> Self {
        let waiting = Mutex::new(Waiting { connection: Some(connection), durable: 0 });
        Self(Arc::new(Shared { options, committed: AtomicU64::new(0), waiting }))
    }

    /// Returns once everything is on the disk that was committed before the call.
    pub(super) async fn reached(&self) -> Result<(), sqlx::Error> {
        let own = self.0.committed.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let mut waiting = self.0.waiting.lock().await;
        // Another one, which began after this was committed, has waited for both.
        if waiting.durable >= own {
            return Ok(());
        }
        let committed = self.0.committed.load(Ordering::SeqCst);
        let mut connection = match waiting.connection.take() {
            Some(connection) => connection,
            None => self.0.options.connect().await?,
        };
        connection.execute(sqlx::query(WAIT)).await?;
        waiting.connection = Some(connection);
        waiting.durable = committed;
        Ok(())
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        let connection = self.0.waiting.lock().await.connection.take();
        if let Some(connection) = connection {
            let _ = sqlx::Connection::close(connection).await;
        }
    }
}
