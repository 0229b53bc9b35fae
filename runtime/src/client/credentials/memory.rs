//! The store in memory: drivers that share it behave as programs that share a directory do. It ends with the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "aws-lc-rs")]
use mcp_authz::sealer::{Sealer, SealerFailed};
#[cfg(feature = "aws-lc-rs")]
use zeroize::Zeroizing;

use super::shelf::{Blobs, Shelf, Work};
use super::{SharedSealer, StoreFailed, Stored};
use crate::clock::{Clock, SystemClock};
#[cfg(feature = "aws-lc-rs")]
use crate::sealer::AeadSealer;

/// A [`CredentialStore`](super::CredentialStore) in memory. Clones share what is in it.
#[derive(Clone)]
pub struct MemoryStore {
    sealer: SharedSealer,
    clock: Arc<dyn Clock>,
    blobs: Arc<Mutex<Memory>>,
}

impl MemoryStore {
    /// An empty store, whose records are sealed under a key that nobody else has.
    #[cfg(feature = "aws-lc-rs")]
    pub fn new() -> Self {
        Self::with(Arc::new(Ephemeral::default()))
    }

    /// An empty store with records under that sealer.
    pub fn with(sealer: SharedSealer) -> Self {
        Self { sealer, clock: Arc::new(SystemClock), blobs: Arc::default() }
    }

    /// Reads the time there: it says when a claim has ended.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

/// A sealer under a key that is drawn when it is first used.
#[cfg(feature = "aws-lc-rs")]
#[derive(Default)]
struct Ephemeral(std::sync::OnceLock<Result<AeadSealer, SealerFailed>>);

#[cfg(feature = "aws-lc-rs")]
impl Ephemeral {
    fn sealer(&self) -> Result<&AeadSealer, SealerFailed> {
        self.0.get_or_init(AeadSealer::ephemeral).as_ref().map_err(|failed| *failed)
    }
}

#[cfg(feature = "aws-lc-rs")]
impl Sealer for Ephemeral {
    fn seal(&self, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealerFailed> {
        self.sealer()?.seal(associated, plaintext)
    }

    fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealerFailed> {
        self.sealer()?.open(associated, sealed)
    }
}

#[cfg(feature = "aws-lc-rs")]
impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl Shelf for MemoryStore {
    fn sealer(&self) -> &SharedSealer {
        &self.sealer
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn locked<T: Send + 'static>(&self, work: Work<T>) -> Stored<'_, T> {
        Box::pin(async {
            // Each write is whole, so a panic elsewhere left nothing half done.
            work(&mut *self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

#[derive(Default)]
struct Memory(BTreeMap<String, Vec<u8>>);

impl Blobs for Memory {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        Ok(self.0.get(name).cloned())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreFailed> {
        self.0.insert(name.into(), bytes.into());
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreFailed> {
        self.0.remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StoreFailed> {
        Ok(self.0.keys().cloned().collect())
    }

    fn place(&self, name: &str) -> String {
        format!("{name} in memory")
    }
}
