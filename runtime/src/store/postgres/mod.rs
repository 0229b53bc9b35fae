//! The store in a PostgreSQL database: many processes, on as many machines, over one of it.
//!
//! The tables are made on first use, in the first schema of the connection's search path. Writes are transactions at `READ
//! COMMITTED` that first take advisory locks on the family and the epochs they rest on, so that a revocation is a
//! barrier; reads see one moment each. What flows do is done for many callers at once: reads by one call of a
//! function of the database, writes by one for all who ask for the same, which is one transaction. Nobody is answered before a commit that
//! waited for the disk (`synchronous_commit = on`), and time is the database's, the same for all processes. It holds
//! digests, never a code or token.
//!
//! Connect to the primary: a replica lags, and a revocation that has not arrived is none.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

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
mod transactions;

use batch::{PATIENCE_WITH_ONE, Queue, in_time};
use locks::{Locks, take_turns};
use reads::Read;
use transactions::{Insertions, Redemption, Rotation};

type This = PostgresStore;
type Turn = PostgresStore;
type Connection = PgConnection;
type Row = PgRow;
type Snapshot = Held<PgConnection>;

/// The schema steps: the first makes version 1, each further one the next.
const SCHEMA: &[&str] = &[concat!(include_str!("schema.sql"), include_str!("functions.sql"))];

/// What every connection asks for, whatever the database's defaults are, and what `current_setting` says then: a transaction
/// of a process that died keeps its locks no longer than that, nobody is answered before the disk has it, and one statement
/// sees what the one before it waited for.
const SETTINGS: &[(&str, &str)] = &[
    ("idle_in_transaction_session_timeout", "10s"),
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
];

/// Held while the schema is brought up to date.
const MIGRATION_LOCK: i64 = 0x6d63_7061;

/// Connections of one process.
const CONNECTIONS: u16 = 16;

/// Those that serve many callers at once: one for each field of [`Queues`].
const BATCH_CONNECTIONS: u16 = 5;

/// How those connections plan that serve many callers at once: the database would guess how many, and plan anew for each.
/// Every statement finds its rows by their keys. None waits long for a lock, because all would.
const BATCHES: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("lock_timeout", "250ms"),
];

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
    Database(#[from] sqlx::Error),
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
    /// Something on the way to the database drops what a connection asks for.
    #[error(
        "the database has {name} = {found} on this connection, which asked for {wanted}: a proxy on the way dropped that \
         (PgBouncer does, told to ignore the startup parameter `options`); connect to the database itself"
    )]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// What it is.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The database is a read-only copy.
    #[error("the database is a replica: connect to the primary, because a revocation must be seen at once")]
    Replica,
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
    /// [`OpenError`] for a database that cannot be reached, is newer than this program, is a replica, or is behind a proxy that
    /// drops what a connection asks for.
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
        // A space would end a setting.
        let settings = SETTINGS.iter().map(|(name, value)| (name, value.replace(' ', "\\ ")));
        let options = options.application_name("mcp-authz").options(settings);
        let mut connection = options.connect().await?;
        let replica: bool =
            sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
        if replica {
            return Err(OpenError::Replica);
        }
        for (name, wanted) in SETTINGS.iter().copied() {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await?;
            if found != wanted {
                return Err(OpenError::Setting { name, found, wanted });
            }
        }
        migrate(&mut connection).await?;
        let _ = connection.close().await;
        let connections = Connections::new(options.clone(), CONNECTIONS);
        let batches = connections.others(options.options(BATCHES), BATCH_CONNECTIONS);
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
    /// future is dropped between `BEGIN` and its answer would keep its locks. Where the database says nothing any more, the
    /// connection is closed, and the caller is told.
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
        self.at_length(action, |store, action| in_time(PATIENCE_WITH_ONE, transaction(store, action)))
    }

    /// As [`Self::carry_out`], for what may take as long as it does: it is asked for once, by an operator.
    fn at_length<A, R, F>(
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
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        self.read(action, together)
    }

    /// Carries out what only reads: nothing has to be ended if nobody waits any more.
    fn read<A, R, F>(&self, action: A, statement: impl FnOnce(Turn, A) -> F) -> Stored<'static, R>
    where
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        Stored::later(statement(self.clone(), action))
    }

    /// As [`Self::read`], for what reads much.
    fn list<A, R, F>(&self, action: A, statements: impl FnOnce(Turn, A) -> F) -> Stored<'static, R>
    where
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
        let read = async {
            let (mut held, rows) = self.first(query.sql(), arguments).await?;
            let row = rows.into_iter().next();
            let now = match (&self.clock, &row) {
                (Some(clock), _) => clock.now(),
                (None, Some(row)) => rows::instant(row.try_get("now")?)?,
                (None, None) => {
                    let clock = sqlx::query(concat!("SELECT ", clock!()));
                    rows::instant(clock.fetch_one(&mut held.connection).await?.try_get("now")?)?
                }
            };
            held.give_back();
            Ok((row, now))
        };
        in_time(PATIENCE_WITH_ONE, read).await
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
