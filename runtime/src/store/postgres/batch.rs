//! Work for many callers at once.
//!
//! Callers who ask for the same kind of thing while it is being done for others wait together, and are then served by one
//! statement: one way there and back, one transaction and one wait for the disk for all of them. Nobody waits for others to
//! come.
//!
//! No two of a batch touch the same thing: whoever would is left for a later batch, and sees what the earlier one did. So
//! each of a batch is as if it were alone. Where the database refuses a batch, all of it has been undone, and each is
//! tried alone: one that cannot be done takes nobody with it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio::sync::oneshot;

use super::{PostgresStore, StoreError};
use crate::store::WAITING;

/// The most that are served at once.
const MOST: usize = 64;

/// How many batches of one kind are under way at once.
const UNDER_WAY: usize = 1;

/// How long the database may take for a batch, or for one transaction: more than any lock is waited for. A connection that says nothing
/// for so long is closed, because everybody who asks for the same waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Something that is done for many callers at once.
pub(super) trait Work: Send + Sync + Sized + 'static {
    /// What the database says to each.
    type Outcome: Send + 'static;
    /// What the caller makes of it.
    type Answer;

    /// Whether it changes nothing, so that it may be done again where nobody knows whether it was.
    const READS: bool;

    /// Where those wait that ask for the same.
    fn queue(store: &PostgresStore) -> &Queue<Self>;

    /// Names of what no other of the same batch may touch.
    fn claims(&self) -> [Option<i64>; 2] {
        [None; 2]
    }

    /// Serves all of them in one transaction, which has ended, and is on the disk, when this returns: an outcome for each, in
    /// their order.
    fn carry_out(
        store: &PostgresStore,
        connection: &mut PgConnection,
        batch: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, StoreError>> + Send;

    /// What the outcome says to the caller.
    fn answer(self, outcome: Self::Outcome) -> Result<Self::Answer, StoreError>;
}

type Served<W> = Result<(W, <W as Work>::Outcome), StoreError>;
type Waiting<W> = (W, oneshot::Sender<Served<W>>);

/// Those who wait for work of one kind.
pub(super) struct Queue<W: Work>(Mutex<State<W>>);

struct State<W: Work> {
    waiting: Vec<Waiting<W>>,
    under_way: usize,
}

impl<W: Work> Default for Queue<W> {
    fn default() -> Self {
        Self(Mutex::new(State { waiting: Vec::new(), under_way: 0 }))
    }
}

impl<W: Work> fmt::Debug for Queue<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<W: Work> Queue<W> {
    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits with the others, unless they are too many; says whether somebody has to be sent who serves.
    fn join(&self, work: W, answer: oneshot::Sender<Served<W>>) -> Result<bool, StoreError> {
        let mut state = self.state();
        if state.waiting.len() >= WAITING {
            return Err(StoreError::Busy);
        }
        state.waiting.push((work, answer));
        let needed = state.under_way < UNDER_WAY;
        if needed {
            state.under_way = state.under_way.saturating_add(1);
        }
        Ok(needed)
    }
}

impl<W: Work> State<W> {
    /// Takes those who can be served together.
    fn next(&mut self) -> Vec<Waiting<W>> {
        let mut claimed = HashSet::new();
        let (mut batch, mut later) = (Vec::new(), Vec::new());
        for (work, answer) in std::mem::take(&mut self.waiting) {
            // Nobody is there any more, and nothing has begun.
            if answer.is_closed() {
                continue;
            }
            let claims = work.claims();
            let free = claims.iter().flatten().all(|claim| !claimed.contains(claim));
            if free && batch.len() < MOST {
                claimed.extend(claims.into_iter().flatten());
                batch.push((work, answer));
            } else {
                later.push((work, answer));
            }
        }
        self.waiting = later;
        batch
    }
}

/// Whoever serves. One who goes away before nobody waits any more leaves nobody waiting.
struct Turn<W: Work> {
    store: PostgresStore,
    over: bool,
    work: PhantomData<fn(W)>,
}

impl<W: Work> Turn<W> {
    fn new(store: PostgresStore) -> Self {
        Self { store, over: false, work: PhantomData }
    }

    /// The next to be served together; none where nobody waits, and then nobody serves any more.
    fn next(&mut self) -> Vec<Waiting<W>> {
        let mut state = W::queue(&self.store).state();
        let batch = state.next();
        if batch.is_empty() {
            state.under_way = state.under_way.saturating_sub(1);
            self.over = true;
        }
        batch
    }
}

impl<W: Work> Drop for Turn<W> {
    fn drop(&mut self) {
        if !self.over {
            let mut state = W::queue(&self.store).state();
            state.under_way = state.under_way.saturating_sub(1);
            state.waiting.clear();
        }
    }
}

/// One failure for all of a batch.
#[derive(Debug, Clone)]
struct Together(Arc<StoreError>);

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            StoreError::Failed(source) => source.fmt(f),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Together {}

/// What the database said where it refused a statement, and so has undone everything.
fn refused(error: &StoreError) -> Option<&PgDatabaseError> {
    let StoreError::Failed(source) = error else { return None };
    let refusal = source.downcast_ref::<sqlx::Error>()?.as_database_error()?;
    let refusal = refusal.try_downcast_ref::<PgDatabaseError>()?;
    // Anything worse ends the connection: the transaction may have been committed.
    (refusal.severity() == PgSeverity::Error).then_some(refusal)
}

/// Whether the way to the database was lost. What had been sent may have been done, or not.
pub(super) fn is_lost(error: &StoreError) -> bool {
    let StoreError::Failed(source) = error else { return false };
    source.downcast_ref::<sqlx::Error>().is_some_and(|failure| match failure {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(_) => refused(error).is_none(),
        _ => false,
    })
}

/// What the database says, unless it says nothing: then the way to it is lost.
pub(super) async fn in_time<R>(
    patience: Duration,
    said: impl Future<Output = Result<R, StoreError>>,
) -> Result<R, StoreError> {
    tokio::time::timeout(patience, said).await.unwrap_or_else(|_| {
        let silence = "the database says nothing any more; what it was asked for may have been done";
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silence)).into())
    })
}

/// `lock_not_available`: what a batch waited for in vain.
const LOCKED: &str = "55P03";

impl PostgresStore {
    /// Has that done, together with what others ask for.
    pub(super) async fn together<W: Work>(&self, work: W) -> Result<W::Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        if W::queue(self).join(work, answer)? {
            // From here on: a task that never begins has gone away as well.
            tokio::spawn(serve(Turn::<W>::new(self.clone())));
        }
        let served = answered.await.map_err(|lost| StoreError::Failed(Box::new(lost)))?;
        let (work, outcome) = served?;
        work.answer(outcome)
    }

    /// Serves a batch, and where the connection was dead, tries another: only if nothing can be done twice by that.
    async fn batch<W: Work>(&self, batch: &[W]) -> Result<Vec<W::Outcome>, StoreError> {
        match self.batch_once(batch).await {
            Err(error) if W::READS && is_lost(&error) => self.batch_once(batch).await,
            served => served,
        }
    }

    /// Over a connection that does not wait long for a lock, because all of the batch would.
    async fn batch_once<W: Work>(&self, batch: &[W]) -> Result<Vec<W::Outcome>, StoreError> {
        let mut held = self.batches.take().await?;
        let outcomes = in_time(PATIENCE, W::carry_out(self, &mut held.connection, batch)).await?;
        held.give_back();
        if outcomes.len() == batch.len() { Ok(outcomes) } else { Err(StoreError::Inconsistent) }
    }

    async fn alone<W: Work>(self, work: W, answer: oneshot::Sender<Served<W>>) {
        let served = async {
            let mut held = self.connections.take().await?;
            let one = std::slice::from_ref(&work);
            let mut outcomes = in_time(PATIENCE, W::carry_out(&self, &mut held.connection, one)).await?;
            held.give_back();
            outcomes.pop().ok_or(StoreError::Inconsistent)
        };
        let served = served.await.map(|outcome| (work, outcome));
        let _ = answer.send(served);
    }
}

/// Serves those that wait, until nobody does.
async fn serve<W: Work>(mut turn: Turn<W>) {
    loop {
        let batch = turn.next();
        if batch.is_empty() {
            return;
        }
        let (works, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        match turn.store.batch(&works).await {
            Ok(outcomes) => {
                for ((work, outcome), answer) in works.into_iter().zip(outcomes).zip(answers) {
                    let _ = answer.send(Ok((work, outcome)));
                }
            }
            Err(error) => {
                let again =
                    refused(&error).is_some_and(|refusal| works.len() > 1 || refusal.code() == LOCKED);
                let error = Together(Arc::new(error));
                for (work, answer) in works.into_iter().zip(answers) {
                    if again {
                        tokio::spawn(turn.store.clone().alone(work, answer));
                    } else {
                        let _ = answer.send(Err(StoreError::Failed(Box::new(error.clone()))));
                    }
                }
            }
        }
    }
}
