//! The store in a PostgreSQL database: many processes, on as many machines, over one of it.
//!
//! The tables are made on first use, in the first schema of the connection's search path. Writes are transactions at `READ
//! COMMITTED` that first take advisory locks on the family and the epochs they rest on, so that a revocation is a
//! barrier; reads see one moment each. What flows do is done for many callers at once: reads by one call of a
//! function of the database, writes by one for all who ask for the same, which is one transaction. Nobody is answered before a commit that
//! waited for the disk (`synchronous_commit = on`, which each connection asks for and makes sure of), and time is the database's, the
//! same for all processes. It holds digests, never a code or token. Whether the disk is waited for at all is the server's: `fsync` and
//! `full_page_writes` are on unless its operator has turned them off for everybody, and are not looked at.
//!
//! Connect to the primary: a replica lags, and a revocation that has not arrived is none.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use mcp_authz::authorization_server::store::DecideOnce;
use mcp_authz::time::OffsetDateTime;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{
    ConnectOptions as _, Connection as _, Execute as _, Executor as _, PgConnection, Postgres, Row as _,
};

use super::connections::{Connections, Held};
use super::parsed::ParsedClients;
use super::schema::{self, Mismatch};
use super::{Bounds, StoreError, Stored};
use crate::clock::Clock;

/// The column in which a statement gives the database's clock, in microseconds.
macro_rules! clock {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT AS now"
    };
}

mod actions {
    include!("../sql/actions.rs");
}
mod administration {
    include!("../sql/administration.rs");
}
mod batch;
/// What the statements are sent through.
mod driver {
    pub(super) use sqlx::{Row as Get, query};
}
mod epochs {
    include!("../sql/epochs.rs");
}
mod forward {
    include!("../sql/forward.rs");
}
mod locks;
mod reads;
mod room {
    include!("../sql/room.rs");
}
mod rows {
    include!("../sql/rows.rs");
}
mod settings;
mod transactions;

use batch::{PATIENCE, Queue, in_time};
use locks::{Locks, take_turns};
use reads::Read;
use settings::{ALL, BATCHES, Dropped, SINGLE};
use transactions::{Insertions, Redemption, Rotation};

type This = PostgresStore;
type Turn = PostgresStore;
type Connection = PgConnection;
type Row = PgRow;
type Snapshot = Held<PgConnection>;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[concat!(include_str!("schema.sql"), include_str!("functions.sql"))];

/// Held while the schema is brought up to date.
const MIGRATION_LOCK: i64 = 0x6d63_7061;

/// Connections of one process.
const CONNECTIONS: u16 = 16;

/// How long a caller waits who only reads, or is served together with others: for a connection and for the database, and for another of
/// both where the first was dead or the others had to be left.
const LONGEST: Duration = Duration::from_secs(30);

/// Those that serve many callers at once: one for each field of [`Queues`].
const BATCH_CONNECTIONS: u16 = 5;

/// Those who wait to be served together, by what they ask for.
#[derive(Debug, Default)]
struct Queues {
    reads: Queue<Read>,
    insertions: Insertions,
    decisions: Queue<DecideOnce>,
    redemptions: Queue<Redemption>,
    rotations: Queue<Rotation>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is none of a database.
    #[error("the store's URL must be postgres://user@host/database")]
    Url,
    /// The database cannot be reached or refused a statement.
    #[error(
        "the store's database cannot be used; check the URL, and that its role may make tables and functions: {0}"
    )]
    Database(#[source] sqlx::Error),
    /// Written by a newer version of this program.
    #[error(
        "the database {database} has schema version {found}, and this program knows no version above {known}; run the program \
         that wrote it, or a newer one"
    )]
    Newer {
        /// The database's name.
        database: String,
        /// Its version.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
    /// Written by a program whose schema of that version was another.
    #[error(
        "the database {database} has schema version {found}, but not the tables that this program calls so: a build from \
         before the first release, or another program, made them; run that one, or name a new database, for which people sign \
         in again"
    )]
    Other {
        /// The database's name.
        database: String,
        /// The version it claims.
        found: i64,
    },
    /// The database is a read-only copy.
    #[error("the database is a replica: connect to the primary, because a revocation must be seen at once")]
    Replica,
    /// A connection does not have the settings it asked for.
    #[error("the store's database cannot be used: {0}")]
    Setting(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Configuration(source) if source.is::<Dropped>() => Self::Setting(source),
            error => Self::Database(error),
        }
    }
}

/// A [`Store`](super::Store) in a PostgreSQL database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    connections: Connections<PgConnection>,
    /// Those that serve many callers at once.
    batches: Connections<PgConnection>,
    queues: Arc<Queues>,
    /// In place of the database's clock, for tests.
    clock: Option<Arc<dyn Clock>>,
    bounds: Bounds,
    clients: ParsedClients,
}

impl PostgresStore {
    /// Connects, and makes or updates the tables.
    ///
    /// # Errors
    /// [`OpenError`] for a database that cannot be reached, is newer than this program, is a replica, or does not get what the
    /// connection asks for.
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
        let options = settings::ask(options.application_name("mcp-authz"), ALL);
        let mut connection = options.connect().await?;
        settings::check(&mut connection, &[ALL]).await?;
        let replica: bool =
            sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
        if replica {
            return Err(OpenError::Replica);
        }
        migrate(&mut connection).await?;
        let _ = connection.close().await;
        let (single, batches) = (settings::ask(options.clone(), SINGLE), settings::ask(options, BATCHES));
        let connections = Connections::new(single, |new| settings::check(new, &[ALL, SINGLE]), CONNECTIONS);
        let batches =
            connections.others(batches, |new| settings::check(new, &[ALL, BATCHES]), BATCH_CONNECTIONS);
        // Refused now, and not when somebody waits for it.
        batches.take().await?.give_back();
        Ok(Self {
            connections,
            batches,
            queues: Arc::default(),
            clock,
            bounds: Bounds::default(),
            clients: ParsedClients::default(),
        })
    }

    /// Sets how much may wait at one time.
    #[must_use]
    pub fn bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Closes the connections; what was committed stays.
    pub async fn close(&self) {
        self.batches.close().await;
        self.connections.close().await;
    }

    /// Carries an action out in a task of its own, which ends even if nobody waits any more: a connection whose
    /// future is dropped between `BEGIN` and its answer would keep its locks.
    fn carry_out<A, R, F>(
        &self,
        action: A,
        transaction: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        self.carry_out_at_length(action, |turn, action| in_time(PATIENCE, transaction(turn, action)))
    }

    /// As [`Self::carry_out`], for what may take the database long, however much it is asked to hurry.
    fn carry_out_at_length<A, R, F>(
        &self,
        action: A,
        transaction: impl FnOnce(Turn, A) -> F + Send + 'static,
    ) -> Stored<'_, R>
    where
        A: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        let store = self.clone();
        Stored::later(async move {
            let task = tokio::spawn(async move { transaction(store, action).await });
            task.await.map_err(|error| StoreError::Failed(Box::new(error)))?
        })
    }

    /// Carries out what is done together with what others ask for: whoever serves them carries on though nobody waits any more.
    fn step<A, R, F>(&self, action: A, together: impl FnOnce(Turn, A) -> F) -> Stored<'static, R>
    where
        R: 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        self.read(action, together)
    }

    /// Carries out what only reads: nothing has to be ended if nobody waits any more.
    fn read<A, R, F>(&self, action: A, statement: impl FnOnce(Turn, A) -> F) -> Stored<'static, R>
    where
        R: 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        Stored::later(in_time(LONGEST, statement(self.clone(), action)))
    }

    /// As [`Self::read`], for what reads much.
    fn list<A, R, F>(&self, action: A, statements: impl FnOnce(Turn, A) -> F) -> Stored<'static, R>
    where
        R: 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        self.read(action, statements)
    }

    /// Something has ended: on the disk, where anybody can read it.
    fn has_ended(&self) {}

    /// A transaction that writes, with its locks, and the clock.
    async fn write(&self, locks: Locks) -> Result<(Writing, OffsetDateTime), StoreError> {
        // One round trip. The time is read after the locks: what was waited for has happened before it.
        let begin =
            format!(concat!("BEGIN ISOLATION LEVEL READ COMMITTED; {}SELECT ", clock!()), locks.statement());
        let (held, rows) = self.first(&begin, None).await?;
        let mut now = None;
        for row in rows {
            now = row.try_get("now").ok().or(now);
        }
        let now = self.clock.as_ref().map_or_else(
            || now.ok_or(StoreError::Inconsistent).and_then(rows::instant),
            |clock| Ok(clock.now()),
        )?;
        Ok((Writing(held), now))
    }

    /// A transaction that reads one moment of the database over several statements.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let (held, _) = self.first("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None).await?;
        Ok(held)
    }

    /// One row of one statement, and the clock: where there is a row, it has the clock in its column `now`.
    async fn one(
        &self,
        mut query: Query<'_, Postgres, PgArguments>,
    ) -> Result<(Option<Row>, OffsetDateTime), StoreError> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let (mut held, rows) = self.first(query.sql(), arguments).await?;
        let row = rows.into_iter().next();
        let now = match (&self.clock, &row) {
            (Some(clock), _) => clock.now(),
            (None, Some(row)) => rows::instant(row.try_get("now")?)?,
            (None, None) => {
                let row = sqlx::query(concat!("SELECT ", clock!())).fetch_one(&mut held.connection).await?;
                rows::instant(row.try_get("now")?)?
            }
        };
        held.give_back();
        Ok((row, now))
    }

    /// What is sent first over a connection, and changes nothing: where the connection was dead, it is sent over another.
    async fn first(
        &self,
        sql: &str,
        arguments: Option<PgArguments>,
    ) -> Result<(Held<PgConnection>, Vec<Row>), StoreError> {
        match self.first_once(sql, arguments.clone()).await {
            Err(error) if batch::is_lost(&error) => self.first_once(sql, arguments).await,
            begun => begun,
        }
    }

    async fn first_once(
        &self,
        sql: &str,
        arguments: Option<PgArguments>,
    ) -> Result<(Held<PgConnection>, Vec<Row>), StoreError> {
        let mut held = self.connections.take().await?;
        let rows = held.connection.fetch_all((sql, arguments)).await?;
        Ok((held, rows))
    }
}

/// One transaction. Dropped before it has ended, it takes its connection with it, and has changed nothing.
struct Writing(Held<PgConnection>);

impl Writing {
    /// Returns once the changes are on the disk.
    async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Goes back to before the transaction, and gives what is to be answered.
    async fn unchanged<R>(self, receipt: R) -> Result<R, StoreError> {
        self.end("ROLLBACK").await?;
        Ok(receipt)
    }

    async fn end(mut self, statement: &'static str) -> Result<(), StoreError> {
        self.0.connection.execute(statement).await?;
        self.0.give_back();
        Ok(())
    }
}

impl Deref for Writing {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }
}

/// Brings the schema to the newest version, or refuses the database. Processes that start together take turns.
async fn migrate(connection: &mut PgConnection) -> Result<(), OpenError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *transaction).await?;
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS mcp_authz_schema \
             (one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL, digest TEXT NOT NULL)",
        )
        .await?;
    // An older table has no such column.
    let sql = "SELECT version, to_jsonb(mcp_authz_schema) ->> 'digest' AS digest FROM mcp_authz_schema";
    let row = sqlx::query(sql).fetch_optional(&mut *transaction).await?;
    let (version, digest): (i64, Option<String>) = match row {
        Some(row) => (row.try_get("version")?, row.try_get("digest")?),
        None => (0, None),
    };
    let steps = match schema::ahead(SCHEMA, version, &digest.unwrap_or_default()) {
        Ok(steps) => steps,
        Err(mismatch) => {
            let name = "SELECT current_database()::TEXT";
            let database = sqlx::query_scalar(name).fetch_one(&mut *transaction).await?;
            return Err(match mismatch {
                Mismatch::Newer => OpenError::Newer { database, found: version, known: SCHEMA.len() },
                Mismatch::Other => OpenError::Other { database, found: version },
            });
        }
    };
    for step in steps {
        transaction.execute(*step).await?;
    }
    sqlx::query(
        "INSERT INTO mcp_authz_schema (one, version, digest) VALUES (1, $1, $2) \
         ON CONFLICT (one) DO UPDATE SET version = excluded.version, digest = excluded.digest",
    )
    .bind(i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX))
    .bind(schema::digest(SCHEMA))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
