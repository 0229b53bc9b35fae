//! The store in a PostgreSQL database: many processes, on as many machines, over one of it.
//!
//! The tables are made on first use, in the first schema of the connection's search path. Writes are transactions at `READ
//! COMMITTED` that first take advisory locks on the family and the epochs they rest on, so that a revocation is a
//! barrier; reads see one moment each. Commits wait for the disk (`synchronous_commit = on`), and time is the database's,
//! the same for all processes. It holds digests, never a code or token.
//!
//! Connect to the primary: a replica lags, and a revocation that has not arrived is none.

use std::sync::Arc;
use std::time::Duration;

use mcp_authz::time::OffsetDateTime;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Executor as _, PgConnection, PgPool, Postgres, Row as _, Transaction};

use super::StoreError;
use crate::clock::Clock;

mod administration {
    include!("../sql/administration.rs");
}
mod forward {
    include!("../sql/forward.rs");
}
mod locks;
mod rows {
    include!("../sql/rows.rs");
}
mod transactions {
    include!("../sql/transactions.rs");
}

use locks::Locks;

type This = PostgresStore;
type Connection = PgConnection;
type Row = PgRow;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[include_str!("schema.sql")];

/// Held while the schema is brought up to date.
const MIGRATION_LOCK: i64 = 0x6d63_7061;

/// Connections of one process.
const CONNECTIONS: u32 = 16;

/// How long a request waits for a free connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is none of a database.
    #[error("the store's URL must be postgres://user@host/database")]
    Url,
    /// The database cannot be reached or refused a statement.
    #[error("the store's database cannot be used; check the URL, and that its role may make tables: {0}")]
    Database(#[from] sqlx::Error),
    /// Written by a newer version of this program.
    #[error("the database has schema version {found}, this program knows {known}")]
    Newer {
        /// The database's.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
    /// The database is a read-only copy.
    #[error("the database is a replica: connect to the primary, because a revocation must be seen at once")]
    Replica,
}

/// A [`Store`](super::Store) in a PostgreSQL database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// In place of the database's clock, for tests.
    clock: Option<Arc<dyn Clock>>,
}

impl PostgresStore {
    /// Connects, and makes or updates the tables.
    ///
    /// # Errors
    /// [`OpenError`] for a database that cannot be reached, is newer than this program, or is a replica.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::connect(url, None).await
    }

    /// Connects with another clock than the database's: for tests.
    ///
    /// # Errors
    /// As [`PostgresStore::open`].
    pub async fn open_with_clock(url: &str, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::connect(url, Some(clock)).await
    }

    async fn connect(url: &str, clock: Option<Arc<dyn Clock>>) -> Result<Self, OpenError> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(OpenError::Url);
        }
        let options: PgConnectOptions = url.parse().map_err(|_| OpenError::Url)?;
        // Durable before the receipt, whatever the database's default is.
        let options = options
            .application_name("mcp-authz")
            .options([("synchronous_commit", "on"), ("idle_in_transaction_session_timeout", "30s")]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await?;
        let replica: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&pool).await?;
        if replica {
            return Err(OpenError::Replica);
        }
        migrate(&pool).await?;
        Ok(Self { pool, clock })
    }

    /// Closes the connections; what was committed stays.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A transaction that writes, with its locks, and the clock.
    async fn write(
        &self,
        locks: Locks,
    ) -> Result<(Transaction<'static, Postgres>, OffsetDateTime), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        for name in locks.shared() {
            sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
                .bind(name)
                .execute(&mut *transaction)
                .await?;
        }
        if let Some(name) = locks.exclusive() {
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(name).execute(&mut *transaction).await?;
        }
        // After the locks: what was waited for has happened before this time.
        let now = self.now(&mut transaction).await?;
        Ok((transaction, now))
    }

    /// A transaction that reads one moment of the database, and the clock.
    async fn snapshot(&self) -> Result<(Transaction<'static, Postgres>, OffsetDateTime), StoreError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut transaction = self.pool.begin_with(begin).await?;
        let now = self.now(&mut transaction).await?;
        Ok((transaction, now))
    }

    async fn now(&self, connection: &mut Connection) -> Result<OffsetDateTime, StoreError> {
        if let Some(clock) = &self.clock {
            return Ok(clock.now());
        }
        let row = sqlx::query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT")
            .fetch_one(connection)
            .await?;
        rows::instant(row.try_get(0)?)
    }
}

/// Brings the schema to the newest version, or refuses the database. Processes that start together take turns.
async fn migrate(pool: &PgPool) -> Result<(), OpenError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *transaction).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS mcp_authz_schema (one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL)").execute(&mut *transaction).await?;
    let version =
        sqlx::query("SELECT version FROM mcp_authz_schema").fetch_optional(&mut *transaction).await?;
    let version: i64 = version.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    let newer = || OpenError::Newer { found: version, known: SCHEMA.len() };
    let done = usize::try_from(version).map_err(|_| newer())?;
    for step in SCHEMA.get(done..).ok_or_else(newer)? {
        transaction.execute(*step).await?;
    }
    sqlx::query(
        "INSERT INTO mcp_authz_schema (one, version) VALUES (1, $1) \
         ON CONFLICT (one) DO UPDATE SET version = excluded.version",
    )
    .bind(i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
