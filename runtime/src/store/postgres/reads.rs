//! What flows read: one call of a function of the database for all who ask, whatever they ask for (`functions.sql`).

use mcp_authz::authorization_server::record::{CodeRecord, ConsentRecord, DecisionRecord, RefreshRecord};
use mcp_authz::authorization_server::store::{
    ClientFound, CodeFound, ConsentFound, DecisionFound, FindClient, ReadCode, ReadConsent, ReadDecision,
    ReadRefresh, RefreshFound, ReserveOnce, Retirement,
};
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::batch::{Queue, Work};
use super::rows::{bytes, digest, instant, reservation_key, stands, today};
use super::{PostgresStore, StoreError};

/// One row, by its key.
pub(super) enum Read {
    Client(String),
    Decision(SecretDigest),
    Consent(SecretDigest),
    Code(SecretDigest),
    Refresh(SecretDigest),
    Reservation(Vec<u8>),
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

/// The keys of all who ask, by their kinds, and whose they are.
#[derive(Default)]
struct Keys {
    clients: Vec<String>,
    /// Of decisions, consents, codes, refresh tokens and reservations.
    others: [Vec<Vec<u8>>; 5],
    askers: [Vec<usize>; 6],
}

impl Keys {
    fn of(batch: &[Read]) -> Self {
        let mut keys = Self::default();
        let [decisions, consents, codes, refresh_tokens, reservations] = &mut keys.others;
        let [client, decision, consent, code, refresh, reservation] = &mut keys.askers;
        for (asker, read) in batch.iter().enumerate() {
            let (kind, others, key) = match read {
                Read::Client(id) => {
                    keys.clients.push(id.clone());
                    client.push(asker);
                    continue;
                }
                Read::Decision(key) => (&mut *decision, &mut *decisions, bytes(*key)),
                Read::Consent(key) => (&mut *consent, &mut *consents, bytes(*key)),
                Read::Code(key) => (&mut *code, &mut *codes, bytes(*key)),
                Read::Refresh(key) => (&mut *refresh, &mut *refresh_tokens, bytes(*key)),
                Read::Reservation(key) => (&mut *reservation, &mut *reservations, key.clone()),
            };
            kind.push(asker);
            others.push(key);
        }
        keys
    }

    /// Who asked for a row.
    fn asker(&self, row: &PgRow) -> Result<usize, StoreError> {
        let (kind, nth): (i64, i64) = (row.try_get("kind")?, row.try_get("nth")?);
        let of_kind = usize::try_from(kind).ok().and_then(|kind| self.askers.get(kind));
        let asker = usize::try_from(nth).ok().and_then(|nth| of_kind?.get(nth.checked_sub(1)?));
        asker.copied().ok_or(StoreError::Inconsistent)
    }
}

impl Work for Read {
    type Outcome = Found;
    type Answer = Found;
    const READS: bool = true;

    fn queue(store: &PostgresStore) -> &Queue<Self> {
        &store.queues.reads
    }

    async fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> Result<Vec<Found>, StoreError> {
        let mut keys = Keys::of(batch);
        let mut query = sqlx::query("SELECT * FROM read_rows($1, $2, $3, $4, $5, $6)")
            .bind(std::mem::take(&mut keys.clients));
        for others in &mut keys.others {
            query = query.bind(std::mem::take(others));
        }
        let mut found: Vec<Option<Found>> = std::iter::repeat_with(|| None).take(batch.len()).collect();
        for row in query.fetch_all(connection).await? {
            let now = match &store.clock {
                Some(clock) => clock.now(),
                None => instant(row.try_get("now")?)?,
            };
            let place = found.get_mut(keys.asker(&row)?).ok_or(StoreError::Inconsistent)?;
            *place = Some(Found { row, now });
        }
        found.into_iter().collect::<Option<Vec<_>>>().ok_or(StoreError::Inconsistent)
    }

    fn answer(self, found: Found) -> Result<Found, StoreError> {
        Ok(found)
    }
}

impl PostgresStore {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let found = self.together(Read::Client(action.client_id().as_str().to_owned())).await?;
        Ok(match found.record()? {
            Some(record) => action.found(self.clients.read(record)?, found.now),
            None => action.absent(found.now),
        })
    }

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let found = self.together(Read::Decision(action.key())).await?;
        let Some(record) = found.record()? else { return Ok(action.absent(found.now)) };
        Ok(action.found(DecisionRecord::from_bytes(&record)?, today(&found.row)?, found.now))
    }

    pub(super) async fn read_consent_row(self, action: ReadConsent) -> Result<ConsentFound, StoreError> {
        let found = self.together(Read::Consent(action.key())).await?;
        let Some(record) = found.record()? else { return Ok(action.absent(found.now)) };
        Ok(action.found(ConsentRecord::from_bytes(&record)?, today(&found.row)?, found.now))
    }

    pub(super) async fn read_code_row(self, action: ReadCode) -> Result<CodeFound, StoreError> {
        let found = self.together(Read::Code(action.digest())).await?;
        let Some(record) = found.record()? else { return Ok(action.absent(found.now)) };
        let record = CodeRecord::from_bytes(&record)?;
        let spent: bool = found.row.try_get("spent")?;
        Ok(if spent { action.spent(record, found.now) } else { action.live(record, found.now) })
    }

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let found = self.together(Read::Refresh(action.digest())).await?;
        let (row, now) = (&found.row, found.now);
        let Some(record) = found.record()? else { return Ok(action.absent(now)) };
        let record = RefreshRecord::from_bytes(&record)?;
        if !stands(row, &record.grant)? {
            return Ok(action.absent(now));
        }
        let Some(retired) = row.try_get::<Option<i64>, _>("retired")? else {
            return Ok(action.live(record, now));
        };
        let request = digest(row.try_get("request")?)?;
        let repeats = u32::try_from(row.try_get::<i64, _>("repeats")?).unwrap_or(u32::MAX);
        let unused = row.try_get::<i64, _>("generation")?.checked_add(1) == row.try_get("leaf")?;
        Ok(action.retired(record, Retirement::new(instant(retired)?, request, repeats, unused), now))
    }

    pub(super) async fn reservation_stands(self, action: ReserveOnce) -> Result<bool, StoreError> {
        let found = self.together(Read::Reservation(reservation_key(&action)?)).await?;
        let until: Option<i64> = found.row.try_get("until")?;
        Ok(until.is_some_and(|until| found.now.unix_timestamp() < until))
    }
}
