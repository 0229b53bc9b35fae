//! Connections that wait for their next use.
//!
//! Unlike a pool that asks each connection before and after every use whether it still lives, this one asks only those that
//! have waited for a while: under load, where it counts, a statement is one round trip and not three.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, Connection, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::BoxFuture;

/// How long a caller waits for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may have waited to be used without being asked first.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// What a new connection must pass before it is used.
pub(super) type Check<C> = fn(&mut C) -> BoxFuture<'_, Result<(), Error>>;

/// At most so many connections made in one way. Clones share them.
pub(super) struct Connections<C: Connection>(Arc<Shared<C>>);

struct Shared<C: Connection> {
    options: C::Options,
    check: Check<C>,
    idle: Mutex<Vec<(C, Instant)>>,
    free: Arc<Semaphore>,
    most: u32,
    /// When one was last found dead: what has waited since before that may be dead as well. Shared by all to one server.
    doubt: Arc<Mutex<Option<Instant>>>,
}

/// A connection in use. It is closed when it is dropped instead of given back: whatever had begun on it ends with it.
pub(super) struct Held<C: Connection> {
    pub(super) connection: C,
    place: Place<C>,
}

struct Place<C: Connection> {
    shared: Arc<Shared<C>>,
    _free: OwnedSemaphorePermit,
    given_back: bool,
}

impl<C: Connection> Drop for Place<C> {
    fn drop(&mut self) {
        if !self.given_back {
            *self.shared.doubt() = Some(Instant::now());
        }
    }
}

impl<C: Connection> fmt::Debug for Connections<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("most", &self.0.most).finish_non_exhaustive()
    }
}

impl<C: Connection> Clone for Connections<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connection> Connections<C> {
    pub(super) fn new(options: C::Options, check: Check<C>, most: u16) -> Self {
        Self::made(options, check, most, Arc::default())
    }

    /// Others to the same server, made in another way.
    pub(super) fn others(&self, options: C::Options, check: Check<C>, most: u16) -> Self {
        Self::made(options, check, most, Arc::clone(&self.0.doubt))
    }

    fn made(options: C::Options, check: Check<C>, most: u16, doubt: Arc<Mutex<Option<Instant>>>) -> Self {
        let free = Arc::new(Semaphore::new(usize::from(most)));
        let most = u32::from(most);
        Self(Arc::new(Shared { options, check, idle: Mutex::default(), free, most, doubt }))
    }

    /// A connection that nobody else uses: one that waits, or a new one.
    pub(super) async fn take(&self) -> Result<Held<C>, Error> {
        let taken = tokio::time::timeout(PATIENCE, async {
            let free = Arc::clone(&self.0.free).acquire_owned().await.map_err(|_| Error::PoolClosed)?;
            let mut place = Place { shared: Arc::clone(&self.0), _free: free, given_back: true };
            while let Some((mut connection, since)) = self.0.latest() {
                let doubted = self.0.doubt().is_some_and(|doubt| since <= doubt);
                if since.elapsed() < FRESH && !doubted || connection.ping().await.is_ok() {
                    place.given_back = false;
                    return Ok(Held { connection, place });
                }
            }
            let mut connection = self.0.options.connect().await?;
            (self.0.check)(&mut connection).await?;
            place.given_back = false;
            Ok(Held { connection, place })
        });
        taken.await.map_err(|_| Error::PoolTimedOut)?
    }

    /// Waits for those in use and closes all: nothing is taken any more.
    pub(super) async fn close(&self) {
        let all = self.0.free.acquire_many(self.0.most).await;
        self.0.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.0.idle());
        for (connection, _) in idle {
            let _ = connection.close().await;
        }
    }
}

impl<C: Connection> Shared<C> {
    /// The one that waits the shortest.
    fn latest(&self) -> Option<(C, Instant)> {
        self.idle().pop()
    }

    fn doubt(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(C, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connection> Held<C> {
    /// For the next one. Only a connection on which nothing is under way.
    pub(super) fn give_back(self) {
        let Self { connection, mut place } = self;
        place.given_back = true;
        place.shared.idle().push((connection, Instant::now()));
    }
}
