//! What flows read: one statement for all who ask for the same kind of record.

use mcp_authz::authorization_server::record::{
    ClientRecord, CodeRecord, ConsentRecord, DecisionRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    ClientFound, CodeFound, ConsentFound, DecisionFound, FindClient, ReadCode, ReadConsent, ReadDecision,
    ReadRefresh, RefreshFound, Retirement,
};
use mcp_authz::time::OffsetDateTime;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

use super::batch::{Queue, Work};
use super::rows::{digest, epochs, instant, stands, today};
use super::{PostgresStore, StoreError};

/// Declares the statement that gives a row for each of the keys in `$1`, with its place and the clock; `record` is NULL
/// where there is none.
macro_rules! each {
    ($key:literal, ($($columns:tt)*), $from:literal) => {
        concat!(
            "SELECT asked.nth, ",
            $($columns)*,
            ", ",
            clock!(),
            " FROM unnest($1::",
            $key,
            "[]) WITH ORDINALITY AS asked(key, nth) LEFT JOIN ",
            $from
        )
    };
}

/// What was found of one key, and when.
pub(super) struct Found {
    row: PgRow,
    now: OffsetDateTime,
}

impl Found {
    fn record(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.row.try_get("record")?)
    }
}

/// Puts the rows that such a statement gives in the order of the keys.
async fn read(
    store: &PostgresStore,
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
    keys: usize,
) -> Result<Vec<Found>, StoreError> {
    let mut found: Vec<Option<Found>> = std::iter::repeat_with(|| None).take(keys).collect();
    for row in query.fetch_all(connection).await? {
        let now = match &store.clock {
            Some(clock) => clock.now(),
            None => instant(row.try_get("now")?)?,
        };
        let nth: i64 = row.try_get("nth")?;
        let place = usize::try_from(nth).ok().and_then(|nth| found.get_mut(nth.checked_sub(1)?));
        *place.ok_or(StoreError::Inconsistent)? = Some(Found { row, now });
    }
    found.into_iter().collect::<Option<Vec<_>>>().ok_or(StoreError::Inconsistent)
}

impl Work for FindClient {
    type Outcome = Found;
    type Answer = ClientFound;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.clients
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let keys: Vec<&str> = batch.iter().map(|asked| asked.client_id().as_str()).collect();
        let sql = each!("text", ("clients.record"), "clients ON clients.client_id = asked.key");
        read(store, connection, sqlx::query(sql).bind(keys), batch.len()).await
    }

    fn answer(self, found: Found) -> Result<ClientFound, StoreError> {
        Ok(match found.record()? {
            Some(record) => self.found(ClientRecord::from_bytes(&record)?, found.now),
            None => self.absent(found.now),
        })
    }
}

impl Work for ReadDecision {
    type Outcome = Found;
    type Answer = DecisionFound;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.read_decisions
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let keys: Vec<[u8; 32]> = batch.iter().map(|asked| *asked.key().as_bytes()).collect();
        let sql = each!(
            "bytea",
            ("decisions.record, ", epochs!("decisions.client_id", "decisions.subject")),
            "decisions ON decisions.key = asked.key"
        );
        read(store, connection, sqlx::query(sql).bind(keys), batch.len()).await
    }

    fn answer(self, found: Found) -> Result<DecisionFound, StoreError> {
        let Some(record) = found.record()? else { return Ok(self.absent(found.now)) };
        Ok(self.found(DecisionRecord::from_bytes(&record)?, today(&found.row)?, found.now))
    }
}

impl Work for ReadConsent {
    type Outcome = Found;
    type Answer = ConsentFound;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.consents
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let keys: Vec<[u8; 32]> = batch.iter().map(|asked| *asked.key().as_bytes()).collect();
        let sql = each!(
            "bytea",
            ("consents.record, ", epochs!("consents.client_id", "consents.subject")),
            "consents ON consents.key = asked.key"
        );
        read(store, connection, sqlx::query(sql).bind(keys), batch.len()).await
    }

    fn answer(self, found: Found) -> Result<ConsentFound, StoreError> {
        let Some(record) = found.record()? else { return Ok(self.absent(found.now)) };
        Ok(self.found(ConsentRecord::from_bytes(&record)?, today(&found.row)?, found.now))
    }
}

impl Work for ReadCode {
    type Outcome = Found;
    type Answer = CodeFound;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.codes
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let keys: Vec<[u8; 32]> = batch.iter().map(|asked| *asked.digest().as_bytes()).collect();
        let sql = each!("bytea", ("codes.record, codes.spent"), "codes ON codes.digest = asked.key");
        read(store, connection, sqlx::query(sql).bind(keys), batch.len()).await
    }

    fn answer(self, found: Found) -> Result<CodeFound, StoreError> {
        let Some(record) = found.record()? else { return Ok(self.absent(found.now)) };
        let record = CodeRecord::from_bytes(&record)?;
        let spent: bool = found.row.try_get("spent")?;
        Ok(if spent { self.spent(record, found.now) } else { self.live(record, found.now) })
    }
}

impl Work for ReadRefresh {
    type Outcome = Found;
    type Answer = RefreshFound;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.refresh_tokens
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let keys: Vec<[u8; 32]> = batch.iter().map(|asked| *asked.digest().as_bytes()).collect();
        let sql = each!(
            "bytea",
            (
                "refresh_tokens.record, refresh_tokens.generation, refresh_tokens.retired, refresh_tokens.request, \
                 refresh_tokens.repeats, (SELECT leaf.generation FROM refresh_tokens leaf \
                 WHERE leaf.family = refresh_tokens.family AND leaf.retired IS NULL) AS leaf, \
                 grants.family IS NOT NULL AS active, \
                 EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = grants.family OFFSET 0) AS ended, ",
                epochs!("grants.client_id", "grants.subject")
            ),
            "refresh_tokens ON refresh_tokens.digest = asked.key LEFT JOIN grants ON grants.family = refresh_tokens.family"
        );
        read(store, connection, sqlx::query(sql).bind(keys), batch.len()).await
    }

    fn answer(self, found: Found) -> Result<RefreshFound, StoreError> {
        let (row, now) = (&found.row, found.now);
        let Some(record) = found.record()? else { return Ok(self.absent(now)) };
        let record = RefreshRecord::from_bytes(&record)?;
        if !stands(row, &record.grant)? {
            return Ok(self.absent(now));
        }
        let Some(retired) = row.try_get::<Option<i64>, _>("retired")? else {
            return Ok(self.live(record, now));
        };
        let request = digest(row.try_get("request")?)?;
        let repeats = u32::try_from(row.try_get::<i64, _>("repeats")?).unwrap_or(u32::MAX);
        let unused = row.try_get::<i64, _>("generation")?.checked_add(1) == row.try_get("leaf")?;
        Ok(self.retired(record, Retirement::new(instant(retired)?, request, repeats, unused), now))
    }
}
