//! What flows write: a function of the database for all who ask for the same kind of action (`functions.sql`).

use std::sync::Arc;

use mcp_authz::authorization_server::record::{AccessRecord, GrantRecord};
use mcp_authz::authorization_server::store::{
    Basis, CodeRedemption, DecideOnce, DecisionTaken, InsertDecision, RedeemCode, RefreshRotation,
    RotateRefresh,
};
use mcp_authz::secret::SecretDigest;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

use super::batch::{Queue, Work};
use super::locks::{family, first, of_grants};
use super::room::limit;
use super::rows::{bytes, micros, signed};
use super::{Connection, PostgresStore, StoreError};
use crate::store::CLIENT_USE_NOTED;

type Sql<'a> = Query<'a, Postgres, PgArguments>;

/// What a function gives for each.
async fn outcomes(query: Sql<'_>, connection: &mut PgConnection) -> Result<Vec<i64>, StoreError> {
    Ok(query.fetch_one(connection).await?.try_get(0)?)
}

fn raw(digest: SecretDigest) -> [u8; 32] {
    *digest.as_bytes()
}

/// Binds what [`each`] gives of all.
macro_rules! bind {
    ($query:expr, $batch:expr, $($each:expr),+ $(,)?) => {
        $query$(.bind($batch.iter().map($each).collect::<Vec<_>>()))+
    };
}

/// A pending decision where nothing has to give way.
struct Insertion {
    key: [u8; 32],
    subject: Arc<str>,
    client: String,
    agent: [u8; 33],
    not_after: i64,
    record: Vec<u8>,
}

impl Work for Insertion {
    type Outcome = bool;
    type Answer = bool;
    const READS: bool = false;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.insertions.0
    }

    fn claims(&self) -> [Option<i64>; 2] {
        [Some(first(SecretDigest::from_bytes(self.key))), None]
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<bool>, StoreError> {
        let query = sqlx::query("SELECT insert_decisions($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(limit(store.bounds.decisions))
            .bind(limit(store.bounds.decisions_of_a_person));
        let query = bind!(
            query,
            batch,
            |one| one.key.as_slice(),
            |one| &*one.subject,
            |one| one.client.as_str(),
            |one| one.agent.as_slice(),
            |one| one.not_after,
            |one| one.record.as_slice(),
        );
        let inserted: Vec<Vec<u8>> = query.fetch_one(connection).await?.try_get(0)?;
        Ok(batch.iter().map(|one| inserted.iter().any(|key| *key == one.key)).collect())
    }

    fn answer(self, inserted: bool) -> Result<bool, StoreError> {
        Ok(inserted)
    }
}

/// Those who wait to insert a decision.
#[derive(Debug, Default)]
pub(super) struct Insertions(Queue<Insertion>);

impl PostgresStore {
    /// Inserts a decision where nothing has to give way; says whether nothing had.
    pub(super) async fn insert_decision_at_once(&self, action: &InsertDecision) -> Result<bool, StoreError> {
        let record = action.record();
        let insertion = Insertion {
            key: raw(action.key()),
            subject: Arc::clone(&record.subject),
            client: record.client_id.as_str().to_owned(),
            agent: record.agent.to_bytes(),
            not_after: record.not_after.unix_timestamp(),
            record: record.to_bytes(),
        };
        self.together(insertion).await
    }
}

/// Inserts a pending decision into a transaction.
pub(super) async fn insert_decision(
    connection: &mut Connection,
    action: &InsertDecision,
) -> Result<(), StoreError> {
    let record = action.record();
    sqlx::query(
        "INSERT INTO decisions (key, subject, client_id, agent, not_after, record) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(bytes(action.key()))
    .bind(&*record.subject)
    .bind(record.client_id.as_str())
    .bind(record.agent.to_bytes())
    .bind(record.not_after.unix_timestamp())
    .bind(record.to_bytes())
    .execute(connection)
    .await?;
    Ok(())
}

/// The decision of an answer, and whose it must be.
fn answered(action: &DecideOnce) -> Option<(SecretDigest, [u8; 33], &str)> {
    match action.basis() {
        Basis::Answer { decision, agent, subject } => Some((*decision, agent.to_bytes(), subject)),
        Basis::Remembered(_) => None,
    }
}

/// The consent that it rests on.
fn remembered(action: &DecideOnce) -> Option<[u8; 32]> {
    match action.basis() {
        Basis::Answer { .. } => None,
        Basis::Remembered(key) => Some(raw(*key)),
    }
}

impl Work for DecideOnce {
    type Outcome = i64;
    type Answer = DecisionTaken;
    const READS: bool = false;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.decisions
    }

    fn claims(&self) -> [Option<i64>; 2] {
        [answered(self).map(|(key, ..)| first(key)), self.remember().map(|(key, _)| first(key))]
    }

    async fn carry_out(
        _: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<i64>, StoreError> {
        let query = bind!(
            sqlx::query(
                "SELECT take_decisions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
            ),
            batch,
            |one| answered(one).map(|(key, ..)| raw(key)),
            |one| answered(one).map(|(_, agent, _)| agent),
            |one| answered(one).map(|(.., subject)| subject),
            remembered,
            |one| one.remember().map(|(key, _)| raw(key)),
            |one| one.remember().map(|(_, record)| &*record.subject),
            |one| one.remember().map(|(_, record)| record.client_id.as_str()),
            |one| one.remember().map(|(_, record)| record.not_after.unix_timestamp()),
            |one| one.remember().map(|(_, record)| record.to_bytes()),
            |one| one.code().map(|(digest, _)| raw(digest)),
            |one| one.code().map(|(_, code)| code.grant.family.as_bytes().to_vec()),
            |one| one.code().map(|(_, code)| code.grant.client_id.as_str()),
            |one| one.code().map(|(_, code)| &*code.grant.subject),
            |one| one.code().map(|(_, code)| code.expires.unix_timestamp()),
            |one| one.code().map(|(_, code)| code.grant.not_after.unix_timestamp()),
            |one| one.code().map(|(_, code)| code.to_bytes()),
        );
        outcomes(query, connection).await
    }

    fn answer(self, outcome: i64) -> Result<DecisionTaken, StoreError> {
        match outcome {
            0 => Ok(self.absent()),
            1 => Ok(self.not_yours()),
            2 => Ok(self.stored()),
            _ => Err(StoreError::Inconsistent),
        }
    }
}

/// A redemption with its numbers as the database has them.
pub(super) struct Redemption {
    action: RedeemCode,
    epochs: [i64; 3],
    generation: Option<i64>,
}

/// A rotation with its numbers as the database has them.
pub(super) struct Rotation {
    action: RotateRefresh,
    epochs: [i64; 3],
    generation: i64,
    successor_generation: i64,
}

fn epochs_of(grant: &GrantRecord) -> Result<[i64; 3], StoreError> {
    let epochs = &grant.epochs;
    Ok([signed(epochs.client)?, signed(epochs.subject)?, signed(epochs.consent)?])
}

/// Binds what a write into families begins with: the locks, the clock, and how often the use of a client is noted.
fn begun<'q, 'a>(
    sql: &'q str,
    store: &PostgresStore,
    grants: impl Iterator<Item = &'a GrantRecord>,
) -> Sql<'q> {
    let (names, exclusive) = of_grants(grants);
    sqlx::query(sql)
        .bind(names)
        .bind(exclusive)
        .bind(store.clock.as_ref().map(|clock| micros(clock.now())))
        .bind(CLIENT_USE_NOTED.whole_seconds())
}

fn access_digest(access: Option<(SecretDigest, &Arc<AccessRecord>)>) -> Option<[u8; 32]> {
    access.map(|(digest, _)| raw(digest))
}

fn access_end(access: Option<(SecretDigest, &Arc<AccessRecord>)>) -> Option<i64> {
    access.map(|(_, record)| record.expires.unix_timestamp())
}

fn access_record(access: Option<(SecretDigest, &Arc<AccessRecord>)>) -> Option<Vec<u8>> {
    access.map(|(_, record)| record.to_bytes())
}

impl Work for Redemption {
    type Outcome = i64;
    type Answer = CodeRedemption;
    const READS: bool = false;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.redemptions
    }

    fn claims(&self) -> [Option<i64>; 2] {
        [Some(first(self.action.digest())), Some(family(self.action.grant().family))]
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<i64>, StoreError> {
        let query = begun(
            "SELECT redeem_codes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
            store,
            batch.iter().map(|one| &**one.action.grant()),
        );
        let query = bind!(
            query,
            batch,
            |one| raw(one.action.digest()),
            |one| one.action.grant().family.as_bytes().as_slice(),
            |one| one.action.grant().client_id.as_str(),
            |one| &*one.action.grant().subject,
            |one| one.epochs[0],
            |one| one.epochs[1],
            |one| one.epochs[2],
            |one| one.action.grant().not_after.unix_timestamp(),
            |one| one.action.grant().to_bytes(),
            |one| one.action.refresh().map(|(digest, _)| raw(digest)),
            |one| one.generation,
            |one| one.action.refresh().map(|(_, record)| record.to_bytes()),
            |one| access_digest(one.action.access()),
            |one| access_end(one.action.access()),
            |one| access_record(one.action.access()),
        );
        outcomes(query, connection).await
    }

    fn answer(self, outcome: i64) -> Result<CodeRedemption, StoreError> {
        match outcome {
            0 => Ok(self.action.absent()),
            1 => Ok(self.action.replayed()),
            2 => Ok(self.action.revoked()),
            3 => Ok(self.action.redeemed()),
            _ => Err(StoreError::Inconsistent),
        }
    }
}

impl Work for Rotation {
    type Outcome = i64;
    type Answer = RefreshRotation;
    const READS: bool = false;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.rotations
    }

    fn claims(&self) -> [Option<i64>; 2] {
        let family = family(self.action.successor().grant.family);
        [Some(first(self.action.presented())), Some(family)]
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<i64>, StoreError> {
        let query = begun(
            "SELECT rotate_refresh_tokens($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
             $19, $20, $21)",
            store,
            batch.iter().map(|one| &*one.action.successor().grant),
        );
        let query = bind!(
            query,
            batch,
            |one| raw(one.action.presented()),
            |one| one.generation,
            |one| one.action.successor().grant.family.as_bytes().as_slice(),
            |one| one.action.successor().grant.client_id.as_str(),
            |one| &*one.action.successor().grant.subject,
            |one| one.epochs[0],
            |one| one.epochs[1],
            |one| one.epochs[2],
            |one| raw(one.action.request()),
            |one| one.action.repeats().map(i64::from),
            |one| raw(one.action.successor_digest()),
            |one| one.successor_generation,
            |one| one.action.successor().grant.not_after.unix_timestamp(),
            |one| one.action.successor().to_bytes(),
            |one| access_digest(one.action.access()),
            |one| access_end(one.action.access()),
            |one| access_record(one.action.access()),
        );
        outcomes(query, connection).await
    }

    fn answer(self, outcome: i64) -> Result<RefreshRotation, StoreError> {
        match outcome {
            0 => Ok(self.action.absent()),
            1 => Ok(self.action.retired()),
            2 => Ok(self.action.revoked()),
            3 | 4 => Ok(self.action.rotated()),
            _ => Err(StoreError::Inconsistent),
        }
    }
}

impl PostgresStore {
    pub(super) async fn decide_once_rows(self, action: DecideOnce) -> Result<DecisionTaken, StoreError> {
        self.together(action).await
    }

    pub(super) async fn redeem_code_rows(self, action: RedeemCode) -> Result<CodeRedemption, StoreError> {
        let epochs = epochs_of(action.grant())?;
        let generation = action.refresh().map(|(_, record)| signed(record.generation)).transpose()?;
        self.together(Redemption { action, epochs, generation }).await
    }

    pub(super) async fn rotate_refresh_rows(
        self,
        action: RotateRefresh,
    ) -> Result<RefreshRotation, StoreError> {
        let epochs = epochs_of(&action.successor().grant)?;
        let generation = signed(action.presented_generation())?;
        let successor_generation = signed(action.successor().generation)?;
        self.together(Rotation { action, epochs, generation, successor_generation }).await
    }
}
