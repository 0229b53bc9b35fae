//! Step-ups, counted before the person is asked (MCP scope challenge handling, decision D33).
//!
//! The count of a server is one record, [`StepUpRecord`], apart from sessions and logins: it outlives both. It is joined
//! with what the store has in one atomic operation, so that no process lowers what another counted, and the join is where
//! a step-up too many is refused.
//!
//! ```text
//! Session ── challenged(403) ─ CountStepUp ─▶ AwaitingStepUp ── counted(receipt) ─▶ Ready ── earlier_session ─▶ Session
//!    ▲                                            └── given_up: the join refused, or the store failed
//!    └────────────────────────────────────────────┘
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::Client;
use super::authorization::{Earlier, Ready};
use super::record::{foreign, named};
use super::recorded::{required, scope, time};
use super::session::Session;
use crate::error::{Error, HostMisuse, PeerMisbehaved};
use crate::identifier::{ResourceId, ScopeSet};
use crate::limits;
use crate::sealer::Sealer;
use crate::secret::SecretDigest;
use crate::step::{Failed, Step};
use crate::syntax::base64url;
use crate::syntax::json::{JsonObject, JsonValue, ObjectWriter};
use crate::time::{self as clock, Duration, OffsetDateTime};

const KIND: &str = "step-up";
const VERSION: i64 = 1;

/// Step-up attempts by operation. It survives successful exchanges, logins and restarts: a server that challenges for ever
/// is stopped, whatever it grants in between (D33).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StepUpLedger {
    pub(crate) attempts: BTreeMap<String, Attempt>,
}

/// Attempts for one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) count: u32,
    pub(crate) since: OffsetDateTime,
    pub(crate) asked: ScopeSet,
}

impl StepUpLedger {
    /// Operations remembered at once; with more, none is added.
    const OPERATIONS: usize = 64;

    /// Takes over what was counted elsewhere: of each operation the most, so that joining lowers nothing.
    pub(crate) fn join(&mut self, other: &Self) {
        // D33, MCP-AUTH-115
        for (operation, attempt) in &other.attempts {
            let ours = self.attempts.entry(operation.clone()).or_insert_with(|| attempt.clone());
            ours.count = ours.count.max(attempt.count);
            ours.since = ours.since.max(attempt.since);
            ours.asked = ours.asked.union(&attempt.asked);
        }
    }

    /// Counts an attempt; an error when it must not be made.
    pub(crate) fn attempt(
        &mut self,
        operation: &str,
        asked: &ScopeSet,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        // MCP-AUTH-115, MCP-AUTH-117, D33: counted by operation; a remembered denial ends after a day.
        self.attempts.retain(|_, attempt| now < clock::after(attempt.since, Duration::days(1)));
        let full = self.attempts.len() >= Self::OPERATIONS && !self.attempts.contains_key(operation);
        if full {
            return Err(PeerMisbehaved::StepUpLoop.into());
        }
        let first = || Attempt { count: 0, since: now, asked: ScopeSet::new() };
        let attempt = self.attempts.entry(operation.to_string()).or_insert_with(first);
        if attempt.count >= limits::STEP_UP_ATTEMPTS || asked.is_subset_of(&attempt.asked) {
            return Err(PeerMisbehaved::StepUpLoop.into());
        }
        attempt.count = attempt.count.saturating_add(1);
        attempt.asked = attempt.asked.union(asked);
        Ok(())
    }

    fn write(&self) -> Vec<JsonValue> {
        let attempts = self.attempts.iter().map(|(operation, attempt)| {
            let attempt = ObjectWriter::new()
                .string("operation", operation.as_str())
                .integer("count", attempt.count.into())
                .integer("since", attempt.since.unix_timestamp())
                .string("asked", attempt.asked.to_string());
            JsonValue::Object(attempt.into_object())
        });
        attempts.collect()
    }

    /// Reads what `write` wrote under that name.
    pub(crate) fn read(object: &JsonObject, name: &str) -> Result<Self, Error> {
        let Some(JsonValue::Array(attempts)) = object.get(name) else { return Err(foreign()) };
        let mut ledger = Self::default();
        for attempt in attempts {
            let JsonValue::Object(attempt) = attempt else { return Err(foreign()) };
            let count = attempt.integer("count").ok().flatten().and_then(|count| u32::try_from(count).ok());
            let read = Attempt {
                count: count.ok_or_else(foreign)?,
                since: time(attempt, "since")?,
                asked: scope(attempt, "asked")?,
            };
            let operation = required(attempt, "operation")?.to_string();
            // Counted twice is counted by nobody knows whom.
            if ledger.attempts.insert(operation, read).is_some() {
                return Err(foreign());
            }
        }
        Ok(ledger)
    }
}

/// What one step-up adds to the count.
#[derive(Debug)]
struct Counting {
    client: Client,
    server: ResourceId,
    known: StepUpLedger,
    operation: String,
    asked: ScopeSet,
    now: OffsetDateTime,
}

impl Counting {
    /// The count with this attempt, if it may be made.
    fn counted(&self, kept: Option<StepUpLedger>) -> Result<StepUpLedger, Error> {
        let mut ledger = kept.unwrap_or_default();
        ledger.join(&self.known);
        ledger.attempt(&self.operation, &self.asked, self.now)?;
        Ok(ledger)
    }
}

/// Count this step-up before the person is asked: it is joined with what the store has for the server, and kept.
///
/// One atomic operation: take the record that lies there, pass it through [`CountStepUp::join`], put what comes out in its
/// place. Where the join fails nothing is put there, and [`AwaitingStepUp::given_up`] goes back.
#[must_use = "a step-up is counted before the person is asked"]
#[derive(Debug)]
pub struct CountStepUp {
    counting: Arc<Counting>,
    id: SecretDigest,
}

/// How a step-up is joined with the count that a store has; for the store's own operation.
#[derive(Debug, Clone)]
pub struct StepUpJoin(Arc<Counting>);

impl CountStepUp {
    /// The server whose count it is: the URL the person gave.
    pub fn server(&self) -> &ResourceId {
        &self.counting.server
    }

    /// What to do to the record in the store.
    pub fn join(&self) -> StepUpJoin {
        StepUpJoin(Arc::clone(&self.counting))
    }

    /// It is kept.
    pub fn counted(self) -> StepUpCounted {
        StepUpCounted(self.id)
    }

    /// The host keeps nothing: the count ends with this process.
    pub fn kept_in_memory(self) -> StepUpCounted {
        StepUpCounted(self.id)
    }
}

impl StepUpJoin {
    /// The record to put in the place of `kept`.
    ///
    /// # Errors
    /// [`PeerMisbehaved::StepUpLoop`] when this step-up must not be made, counting what others counted;
    /// [`HostMisuse::ForeignRecord`] for what is no record of this server, and whatever the sealer fails with. The record
    /// in the store stays.
    pub fn joined(&self, kept: Option<&[u8]>, sealer: &dyn Sealer) -> Result<StepUpRecord, Error> {
        let Counting { client, server, .. } = &*self.0;
        let kept = match kept {
            None => None,
            Some(bytes) => Some(StepUpRecord::from_bytes(bytes)?.open(client, server, sealer)?),
        };
        StepUpRecord::seal(client, server, &self.0.counted(kept)?, sealer)
    }
}

/// That [`CountStepUp`] was carried out.
#[must_use = "the state waits for it"]
#[derive(Debug)]
pub struct StepUpCounted(SecretDigest);

/// Waits for the receipt that the step-up is counted.
#[must_use = "the step-up goes on with the receipt"]
#[derive(Debug)]
pub struct AwaitingStepUp(Box<Asking>);

#[derive(Debug)]
struct Asking {
    id: SecretDigest,
    session: Session,
    ledger: StepUpLedger,
    wanted: ScopeSet,
}

impl AwaitingStepUp {
    /// Begins to count; the session comes back where its own count says that it is enough.
    pub(crate) fn begin(
        session: Session,
        operation: &str,
        asked: ScopeSet,
        now: OffsetDateTime,
    ) -> Result<Step<CountStepUp, Self>, Failed<Session>> {
        let prepared = &session.0.prepared;
        // MCP-AUTH-017, MCP-AUTH-114: the union; nothing that was granted is lost by asking for more.
        let wanted = prepared.wanted.union(&session.0.tokens.scope).union(&asked);
        let (token, scope) = (session.0.tokens.access.digest(), asked.to_string());
        let time = now.unix_timestamp_nanos().to_be_bytes();
        let id = [token.as_bytes(), &time[..], operation.as_bytes(), b"\0", scope.as_bytes()].concat();
        let id = SecretDigest::of(&id);
        let counting = Counting {
            client: prepared.server.target.client.clone(),
            server: prepared.server.target.server.clone(),
            known: prepared.ledger.clone(),
            operation: operation.to_string(),
            asked,
            now,
        };
        match counting.counted(None) {
            Ok(ledger) => {
                let asking = Asking { id, session, ledger, wanted };
                Ok(Step::new(CountStepUp { counting: Arc::new(counting), id }, Self(Box::new(asking))))
            }
            Err(error) => Err(Failed { error, state: session }),
        }
    }

    /// It is counted: where the person is asked for the union of the scopes. [`Ready::earlier_session`] gives the session
    /// back if that comes to nothing.
    ///
    /// # Errors
    /// [`Failed`] with this state when the receipt is of another action.
    pub fn counted(self, receipt: StepUpCounted) -> Result<Ready, Failed<Self>> {
        if receipt.0 != self.0.id {
            return Err(Failed::new(HostMisuse::ForeignReceipt, self));
        }
        let Asking { session, ledger, wanted, .. } = *self.0;
        let mut held = session.0;
        let earlier = Earlier {
            tokens: held.tokens,
            version: held.version,
            wanted: core::mem::replace(&mut held.prepared.wanted, wanted),
        };
        held.prepared.ledger = ledger;
        held.prepared.earlier = Some(Box::new(earlier));
        Ok(Ready(Box::new(held.prepared)))
    }

    /// The join refused, or the store failed: nobody is asked, and the session is as it was.
    pub fn given_up(self) -> Session {
        self.0.session
    }
}

/// The step-ups counted at one server: what was tried, how often, and since when.
///
/// It is for every session and login at that server, and for every configuration of this client: sealed, and bound to its
/// server.
#[derive(Clone, PartialEq, Eq)]
pub struct StepUpRecord {
    server: ResourceId,
    sealed: Vec<u8>,
}

impl StepUpRecord {
    fn seal(
        client: &Client,
        server: &ResourceId,
        ledger: &StepUpLedger,
        sealer: &dyn Sealer,
    ) -> Result<Self, Error> {
        // MCP-SEC-001
        named(client, sealer)?;
        let plaintext = ObjectWriter::new().value("attempts", JsonValue::Array(ledger.write())).finish();
        Ok(Self { server: server.clone(), sealed: sealer.seal(&place(server).finish(), &plaintext)? })
    }

    fn open(&self, client: &Client, server: &ResourceId, sealer: &dyn Sealer) -> Result<StepUpLedger, Error> {
        named(client, sealer)?;
        if self.server != *server {
            return Err(foreign());
        }
        let plaintext = sealer.open(&place(&self.server).finish(), &self.sealed)?;
        let object = JsonObject::parse(&plaintext, super::record::RECORD_BYTES).map_err(|_| foreign())?;
        StepUpLedger::read(&object, "attempts")
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        place(&self.server).string("sealed", base64url::encode(&self.sealed)).finish()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`HostMisuse::LaterRecord`] for a version this crate does not know yet, [`HostMisuse::ForeignRecord`] for another
    /// kind or other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let object = super::record::clear(KIND, bytes, VERSION..=VERSION)?.0;
        Ok(Self {
            server: ResourceId::new(required(&object, "server")?).map_err(|_| foreign())?,
            sealed: base64url::decode(required(&object, "sealed")?).map_err(|_| foreign())?,
        })
    }

    /// The server whose count it is.
    pub fn server(&self) -> &ResourceId {
        &self.server
    }
}

/// What the record has in the clear, authenticated by the seal.
fn place(server: &ResourceId) -> ObjectWriter {
    ObjectWriter::new().string("kind", KIND).integer("version", VERSION).string("server", server.as_str())
}

impl fmt::Debug for StepUpRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(KIND).field("server", &self.server).finish_non_exhaustive()
    }
}
