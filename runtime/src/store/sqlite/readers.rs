//! Connections that read.
//!
//! A reader of a file with a write-ahead log waits for no writer, so a row is looked up by whoever asks for it, at once, with a
//! connection of its own: that takes microseconds, less than to hand the question to another thread. What reads many rows goes
//! to a thread that may wait, and so does a new connection that finds the file locked: once it has read, nobody locks
//! it out any more.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Ended;
use super::disk::Health;
use super::driver::Connection;
use super::opening::{Access, OpenError, PATIENCE, connect, is_busy};
use crate::store::StoreError;

/// Connections that are kept. More are made where more threads read at once, and closed after their use.
const KEPT: usize = 16;

/// How many read many rows at one time.
const LISTING: u32 = 4;

/// How many wait for a locked file at one time, each on a thread of its own.
const LOCKED_OUT: u32 = 4;

/// Connections that read one file. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: Arc<Path>,
    health: Health,
    /// None once the store was closed. They wait for nobody.
    idle: Mutex<Option<Vec<rusqlite::Connection>>>,
    listing: Arc<Semaphore>,
    locked_out: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: Arc<Path>, health: Health) -> Self {
        let idle = Mutex::new(Some(Vec::new()));
        let places = |most: u32| Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1)));
        Self(Arc::new(Shared {
            path,
            health,
            idle,
            listing: places(LISTING),
            locked_out: places(LOCKED_OUT),
        }))
    }

    /// Reads with a connection of its own, here and now.
    pub(super) async fn read<R>(
        &self,
        read: impl FnOnce(Connection) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let connection = match self.idle_one()? {
            Some(connection) => connection,
            None => match self.another(Duration::ZERO) {
                Err(OpenError::Database(error)) if is_busy(&error) => self.wait().await?,
                made => made?,
            },
        };
        let (connection, answer) = read_on(connection, read);
        self.give_back(connection);
        answer
    }

    /// Reads on a thread that may wait. The store stays open as long as the place is kept.
    pub(super) async fn list<R: Send + 'static>(
        &self,
        read: impl FnOnce(Connection) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<(R, OwnedSemaphorePermit), StoreError> {
        self.apart(&self.0.listing, move |readers| {
            let connection = match readers.idle_one()? {
                Some(connection) => connection,
                None => readers.another(PATIENCE)?,
            };
            connection.busy_timeout(PATIENCE)?;
            let (connection, answer) = read_on(connection, read);
            readers.give_back(connection.filter(|it| it.busy_timeout(Duration::ZERO).is_ok()));
            answer
        })
        .await
    }

    /// A connection to a file that is locked, as soon as it is not.
    async fn wait(&self) -> Result<rusqlite::Connection, StoreError> {
        let waited = self.apart(&self.0.locked_out, |readers| {
            let connection = match readers.idle_one()? {
                Some(connection) => connection,
                None => readers.another(PATIENCE)?,
            };
            connection.busy_timeout(Duration::ZERO)?;
            Ok(connection)
        });
        Ok(waited.await?.0)
    }

    /// Does something on a thread that may wait, as many at one time as there are places.
    async fn apart<R: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl FnOnce(&Self) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<(R, OwnedSemaphorePermit), StoreError> {
        self.check()?;
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| Ended::error())?;
        let readers = self.clone();
        // The place is given up by whoever waits for this, and not before it has ended if nobody does any more.
        let working = tokio::task::spawn_blocking(move || work(&readers).map(|answer| (answer, place)));
        working.await.map_err(|error| StoreError::Failed(Box::new(error)))?
    }

    /// Closes them, once every listing has ended; nothing is read any more.
    pub(super) async fn close(&self) {
        *self.idle() = None;
        for (places, most) in [(&self.0.listing, LISTING), (&self.0.locked_out, LOCKED_OUT)] {
            // Whoever waits for one before finds the store closed.
            let all = places.acquire_many(most).await;
            places.close();
            drop(all);
        }
    }

    /// An error once the store was closed or the disk has failed it.
    fn check(&self) -> Result<(), StoreError> {
        self.of_idle(|_| ())
    }

    /// One that waits.
    fn idle_one(&self) -> Result<Option<rusqlite::Connection>, StoreError> {
        self.of_idle(Vec::pop)
    }

    fn of_idle<R>(&self, take: impl FnOnce(&mut Vec<rusqlite::Connection>) -> R) -> Result<R, StoreError> {
        self.0.health.check()?;
        Ok(take(self.idle().as_mut().ok_or_else(Ended::error)?))
    }

    /// A new one, which has read already.
    fn another(&self, patience: Duration) -> Result<rusqlite::Connection, OpenError> {
        let connection = connect(&self.0.path, Access::Reads, patience)?;
        connection.query_row("SELECT count(*) FROM incarnation", (), |_| Ok(()))?;
        Ok(connection)
    }

    fn give_back(&self, connection: Option<rusqlite::Connection>) {
        if let Some(connection) = connection
            && let Some(idle) = self.idle().as_mut()
            && idle.len() < KEPT
        {
            idle.push(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<rusqlite::Connection>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads, and gives the connection back unless something is still under way on it.
fn read_on<R>(
    connection: rusqlite::Connection,
    read: impl FnOnce(Connection) -> Result<R, StoreError>,
) -> (Option<rusqlite::Connection>, Result<R, StoreError>) {
    let connection = Connection::new(connection);
    let answer = read(connection.clone());
    let connection = if connection.is_open() { None } else { connection.into_inner() };
    (connection, answer)
}
