//! What flows read: one call of a function of the database for all who ask, whatever they ask for (`functions.sql`).

use std::sync::Arc;

use mcp_authz::authorization_server::record::{
    CodeRecord, ConsentRecord, DecisionRecord, Epochs, GrantRecord, RefreshRecord,
};
use mcp_authz::authorization_server::store::{
    ClientFound, CodeFound, ConsentFound, DecisionFound, FindClient, ReadCode, ReadConsent, ReadDecision,
    ReadRefresh, RefreshFound, Retirement,
};
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::OffsetDateTime;
use sqlx::postgres::PgRow;
use sqlx::{Decode, PgConnection, Postgres, Row as _, Type};

use super::batch::{Queue, Work};
use super::rows::{bytes, digest, instant, reservation_key, unsigned};
use super::{PostgresStore, StoreError};
use crate::store::{ReadSession, SessionFound};

/// One row, by its key.
pub(super) enum Read {
    Client(String),
    Decision(SecretDigest),
    Consent(SecretDigest),
    Code(SecretDigest),
    Refresh(SecretDigest),
    /// What ends sessions: the key of a reservation, and a person.
    Session(Vec<u8>, String),
}

/// What was found of one key, and when.
pub(super) struct Found {
    now: OffsetDateTime,
    /// None where there is none, and of a session.
    record: Option<Vec<u8>>,
    /// Of a decision: its client's, and of a refresh token: its grant's, where there is one.
    beside: Option<Vec<u8>>,
    /// Today's, of the client, the person and their consent, for a decision, a consent or a refresh token; of the person alone, for
    /// a session.
    epochs: [i64; 3],
    /// Of a code.
    spent: bool,
    /// Of a refresh token.
    token: Token,
    /// Of a session's reservation.
    until: Option<i64>,
}

/// What is known of a refresh token and its family beside its record.
#[derive(Default)]
struct Token {
    /// Its family has begun, and nothing ended it but maybe an epoch.
    standing: bool,
    generation: i64,
    retired: Option<i64>,
    request: Option<Vec<u8>>,
    repeats: i64,
    leaf: Option<i64>,
}

/// The keys of all who ask, by their kinds, and whose they are.
#[derive(Default)]
struct Keys {
    clients: Vec<String>,
    /// Of decisions, consents, codes, refresh tokens and the reservations of sessions.
    others: [Vec<Vec<u8>>; 5],
    /// Whose sessions.
    people: Vec<String>,
    askers: [Vec<usize>; 6],
}

impl Keys {
    fn of(batch: &[Read]) -> Self {
        let mut keys = Self::default();
        let [decisions, consents, codes, refresh_tokens, sessions] = &mut keys.others;
        let [client, decision, consent, code, refresh, session] = &mut keys.askers;
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
                Read::Session(key, subject) => {
                    keys.people.push(subject.clone());
                    (&mut *session, &mut *sessions, key.clone())
                }
            };
            kind.push(asker);
            others.push(key);
        }
        keys
    }
}

/// One array of the database's answer, from its beginning.
struct Array<T>(std::vec::IntoIter<Option<T>>);

impl<T> Array<T>
where
    Option<Vec<Option<T>>>: for<'r> Decode<'r, Postgres> + Type<Postgres>,
{
    /// Empty where the database had nothing to put into it.
    fn of(row: &PgRow, column: &str) -> Result<Self, StoreError> {
        let array: Option<Vec<Option<T>>> = row.try_get(column)?;
        Ok(Self(array.unwrap_or_default().into_iter()))
    }
}

impl<T> Array<T> {
    fn next(&mut self) -> Result<Option<T>, StoreError> {
        self.0.next().ok_or(StoreError::Inconsistent)
    }

    fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    /// The next one, of what every row has that was found.
    fn of_row(&mut self, found: bool) -> Result<T, StoreError>
    where
        T: Default,
    {
        match self.next()? {
            Some(value) => Ok(value),
            None if found => Err(StoreError::Inconsistent),
            None => Ok(T::default()),
        }
    }
}

/// The database's answer to all who ask.
struct Answers {
    now: OffsetDateTime,
    records: Array<Vec<u8>>,
    beside: Array<Vec<u8>>,
    epochs: [Array<i64>; 3],
    spent: Array<bool>,
    standing: Array<bool>,
    generation: Array<i64>,
    retired: Array<i64>,
    request: Array<Vec<u8>>,
    repeats: Array<i64>,
    leaf: Array<i64>,
    until: Array<i64>,
    person: Array<i64>,
}

impl Answers {
    fn of(row: &PgRow, now: OffsetDateTime) -> Result<Self, StoreError> {
        Ok(Self {
            now,
            records: Array::of(row, "records")?,
            beside: Array::of(row, "beside")?,
            epochs: [
                Array::of(row, "client_epochs")?,
                Array::of(row, "subject_epochs")?,
                Array::of(row, "consent_epochs")?,
            ],
            spent: Array::of(row, "spent")?,
            standing: Array::of(row, "standing")?,
            generation: Array::of(row, "generation")?,
            retired: Array::of(row, "retired")?,
            request: Array::of(row, "request")?,
            repeats: Array::of(row, "repeats")?,
            leaf: Array::of(row, "leaf")?,
            until: Array::of(row, "until")?,
            person: Array::of(row, "person_epochs")?,
        })
    }

    fn epochs(&mut self) -> Result<[i64; 3], StoreError> {
        let [client, subject, consent] = &mut self.epochs;
        Ok([client.of_row(true)?, subject.of_row(true)?, consent.of_row(true)?])
    }

    /// Whether nobody is left without an answer, and no answer without somebody who asked.
    fn are_over(&self) -> bool {
        let [client, subject, consent] = &self.epochs;
        let numbers = [
            client,
            subject,
            consent,
            &self.generation,
            &self.retired,
            &self.repeats,
            &self.leaf,
            &self.until,
            &self.person,
        ];
        self.records.is_over()
            && self.beside.is_over()
            && self.request.is_over()
            && self.spent.is_over()
            && self.standing.is_over()
            && numbers.into_iter().all(Array::is_over)
    }

    /// The next answer, to somebody who asked for this. They come kind after kind.
    fn next(&mut self, read: &Read) -> Result<Found, StoreError> {
        let record = match read {
            Read::Session(..) => None,
            _ => self.records.next()?,
        };
        let exists = record.is_some();
        let beside = match read {
            Read::Decision(_) | Read::Refresh(_) => self.beside.next()?,
            _ => None,
        };
        let epochs = match read {
            Read::Decision(_) | Read::Consent(_) | Read::Refresh(_) => self.epochs()?,
            Read::Session(..) => [0, self.person.of_row(true)?, 0],
            Read::Client(_) | Read::Code(_) => [0; 3],
        };
        let spent = matches!(read, Read::Code(_)) && self.spent.of_row(exists)?;
        let token = match read {
            Read::Refresh(_) => Token {
                standing: self.standing.of_row(exists)?,
                generation: self.generation.of_row(exists)?,
                retired: self.retired.next()?,
                request: self.request.next()?,
                repeats: self.repeats.of_row(exists)?,
                leaf: self.leaf.next()?,
            },
            _ => Token::default(),
        };
        let until = match read {
            Read::Session(..) => self.until.next()?,
            _ => None,
        };
        Ok(Found { now: self.now, record, beside, epochs, spent, token, until })
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
        let Keys { clients, others, people, askers } = Keys::of(batch);
        let mut query = sqlx::query("SELECT * FROM read_rows($1, $2, $3, $4, $5, $6, $7)").bind(clients);
        for others in others {
            query = query.bind(others);
        }
        let row = query.bind(people).fetch_one(connection).await?;
        let now = match &store.clock {
            Some(clock) => clock.now(),
            None => instant(row.try_get("now")?)?,
        };
        let mut answers = Answers::of(&row, now)?;
        let mut found: Vec<Option<Found>> = std::iter::repeat_with(|| None).take(batch.len()).collect();
        for asker in askers.into_iter().flatten() {
            let (Some(read), Some(place)) = (batch.get(asker), found.get_mut(asker)) else {
                return Err(StoreError::Inconsistent);
            };
            *place = Some(answers.next(read)?);
        }
        // One element too many would be somebody else's.
        if !answers.are_over() {
            return Err(StoreError::Inconsistent);
        }
        found.into_iter().collect::<Option<Vec<_>>>().ok_or(StoreError::Inconsistent)
    }

    fn answer(self, found: Found) -> Result<Found, StoreError> {
        Ok(found)
    }
}

/// Today's epochs. What is none fails its own caller, and nobody who was served with them.
fn epochs([client, subject, consent]: [i64; 3]) -> Result<Epochs, StoreError> {
    Ok(Epochs::new(unsigned(client)?, unsigned(subject)?, unsigned(consent)?))
}

impl PostgresStore {
    pub(super) async fn find_client_row(self, action: FindClient) -> Result<ClientFound, StoreError> {
        let found = self.together(Read::Client(action.client_id().as_str().to_owned())).await?;
        Ok(match found.record {
            Some(record) => action.found(self.clients.read(record)?, found.now),
            None => action.absent(found.now),
        })
    }

    pub(super) async fn read_decision_row(self, action: ReadDecision) -> Result<DecisionFound, StoreError> {
        let found = self.together(Read::Decision(action.key())).await?;
        let Some(record) = found.record else { return Ok(action.absent(found.now)) };
        let client = found.beside.map(|bytes| self.clients.read(bytes)).transpose()?;
        Ok(action.found(DecisionRecord::from_bytes(&record)?, client, epochs(found.epochs)?, found.now))
    }

    pub(super) async fn read_consent_row(self, action: ReadConsent) -> Result<ConsentFound, StoreError> {
        let found = self.together(Read::Consent(action.key())).await?;
        let Some(record) = found.record else { return Ok(action.absent(found.now)) };
        Ok(action.found(ConsentRecord::from_bytes(&record)?, epochs(found.epochs)?, found.now))
    }

    pub(super) async fn read_code_row(self, action: ReadCode) -> Result<CodeFound, StoreError> {
        let found = self.together(Read::Code(action.digest())).await?;
        let Some(record) = found.record else { return Ok(action.absent(found.now)) };
        let record = CodeRecord::from_bytes(&record)?;
        Ok(if found.spent { action.spent(record, found.now) } else { action.live(record, found.now) })
    }

    pub(super) async fn read_refresh_row(self, action: ReadRefresh) -> Result<RefreshFound, StoreError> {
        let found = self.together(Read::Refresh(action.digest())).await?;
        let Found { now, token, .. } = found;
        let (Some(record), Some(grant)) = (found.record, found.beside) else { return Ok(action.absent(now)) };
        let grant = GrantRecord::from_bytes(&grant)?;
        if !token.standing || epochs(found.epochs)? != grant.epochs {
            return Ok(action.absent(now));
        }
        let record = RefreshRecord::from_bytes(&record, Arc::new(grant))?;
        let Some(retired) = token.retired else { return Ok(action.live(record, now)) };
        let request = digest(token.request.ok_or(StoreError::Inconsistent)?)?;
        let repeats = u32::try_from(token.repeats).unwrap_or(u32::MAX);
        let unused = token.leaf.is_some() && token.generation.checked_add(1) == token.leaf;
        Ok(action.retired(record, Retirement::new(instant(retired)?, request, repeats, unused), now))
    }

    pub(super) async fn read_session_row(self, action: ReadSession) -> Result<SessionFound, StoreError> {
        // No reservation has the empty key.
        let key = action.signed_out().map(reservation_key).transpose()?.unwrap_or_default();
        let found = self.together(Read::Session(key, action.subject().to_owned())).await?;
        let signed_out = found.until.is_some_and(|until| found.now.unix_timestamp() < until);
        Ok(SessionFound { signed_out, epoch: epochs(found.epochs)?.subject, now: found.now })
    }
}
