//! Connections that read.
//!
//! A reader of a file with a write-ahead log waits for no writer, so a row is looked up by whoever asks for it, at once, with a
//! connection of its own: that takes microseconds, less than to hand the question to another thread. What reads many rows goes
//! to a thread that may wait.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::driver::Connection;
use super::{Access, Ended, connect};
use crate::store::StoreError;

/// Connections that are kept. More are made where more threads read at once, and closed after their use.
const KEPT: usize = 16;

/// How many read many rows at one time.
const LISTING: usize = 4;

/// Connections that read one file. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: Arc<Path>,
    /// None once the store was closed.
    idle: Mutex<Option<Vec<rusqlite::Connection>>>,
    listing: Semaphore,
}

impl Readers {
    pub(super) fn new(path: Arc<Path>) -> Self {
        let (idle, listing) = (Mutex::new(Some(Vec::new())), Semaphore::new(LISTING));
        Self(Arc::new(Shared { path, idle, listing }))
    }

    /// Reads with a connection of its own, here and now.
    pub(super) fn read<R>(
        &self,
        read: impl FnOnce(Connection) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let idle = self.idle().as_mut().ok_or_else(Ended::error)?.pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.0.path, Access::Reads)?,
        };
        let connection = Connection::new(connection);
        let answer = read(connection.clone());
        // One that something is still under way on is closed.
        if !connection.is_open()
            && let Some(connection) = connection.into_inner()
            && let Some(idle) = self.idle().as_mut()
            && idle.len() < KEPT
        {
            idle.push(connection);
        }
        answer
    }

    /// Reads on a thread that may wait.
    pub(super) async fn list<R: Send + 'static>(
        &self,
        read: impl FnOnce(Connection) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let _turn = self.0.listing.acquire().await.map_err(|_| Ended::error())?;
        let readers = self.clone();
        let reading = tokio::task::spawn_blocking(move || readers.read(read));
        reading.await.map_err(|error| StoreError::Failed(Box::new(error)))?
    }

    /// Closes them; nothing is read any more.
    pub(super) fn close(&self) {
        *self.idle() = None;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<Vec<rusqlite::Connection>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
