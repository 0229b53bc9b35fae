//! A copy of the store's incarnation outside the store: it tells when an older copy of the store was restored.
//!
//! A restored backup revives retired refresh tokens and spent codes, and forgets revocations (I-G14). The store counts up
//! each time a server starts and cleans up; the highest number each server has seen stands in a small file of its own. A
//! store with a smaller number is an older copy, and is refused until the operator ends everything that was granted.
//!
//! A copy restored within one interval of that counting is not told from the original.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{AdministeredStore, StoreError};

/// Why the store cannot be trusted, or that cannot be known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The store is older than this server has seen it.
    #[error(
        "the store is an older copy (it counts {found}, this server has seen {seen}): tokens that were retired or revoked \
         since would be valid again; stop every server and run `mcp-authz store restored`, which ends everything granted"
    )]
    Restored {
        /// The store's incarnation.
        found: u64,
        /// The highest this server has seen.
        seen: u64,
    },
    /// The file cannot be read or written.
    #[error("the file {path} beside the store cannot be read or written: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else than a number.
    #[error(
        "the file {0} holds something else than the store's incarnation; restore it, or run `mcp-authz store restored`"
    )]
    Malformed(PathBuf),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The number a server has seen.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    seen: AtomicU64,
}

impl Witness {
    /// Reads the file; a file that is not there has seen nothing.
    ///
    /// # Errors
    /// [`WitnessError::File`], [`WitnessError::Malformed`]
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WitnessError> {
        let path = path.into();
        let seen = AtomicU64::new(read(&path)?);
        Ok(Self { path, seen })
    }

    /// Counts the store up and takes note; for the start of a server, and for its housekeeping.
    ///
    /// # Errors
    /// [`WitnessError::Restored`] for an older copy, which must not be served.
    pub async fn advance(&self, store: &dyn AdministeredStore) -> Result<(), WitnessError> {
        let seen = self.seen.load(Ordering::SeqCst);
        let found = store.incarnation().await?;
        if found < seen {
            return Err(WitnessError::Restored { found, seen });
        }
        self.note(store.advance_incarnation().await?)
    }

    /// The operator says that an older copy was restored: ends everything that was granted.
    ///
    /// # Errors
    /// As [`Witness::advance`], but never [`WitnessError::Restored`].
    pub async fn restored(&self, store: &dyn AdministeredStore) -> Result<(), WitnessError> {
        self.note(store.restored(self.seen.load(Ordering::SeqCst)).await?)
    }

    fn note(&self, number: u64) -> Result<(), WitnessError> {
        // Servers that share a folder share what they have seen.
        self.seen.fetch_max(number.max(read(&self.path)?), Ordering::SeqCst);
        let seen = self.seen.load(Ordering::SeqCst);
        write_whole(&self.path, seen).map_err(|source| WitnessError::File { path: self.path.clone(), source })
    }
}

/// The number of a file; none where it is not there.
fn read(path: &Path) -> Result<u64, WitnessError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| WitnessError::Malformed(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(WitnessError::File { path: path.to_owned(), source }),
    }
}

/// Writes a file in full or not at all, whoever else writes it at the same time.
fn write_whole(path: &Path, number: u64) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}-{}.new", std::process::id(), WRITTEN.fetch_add(1, Ordering::SeqCst)));
    let mut file = fs::File::create(&beside)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::{Witness, WitnessError};
    use crate::store::AdministeredStore as _;
    use crate::store::memory::MemoryStore;

    #[test]
    fn servers_that_share_the_file_write_it_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("incarnation");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let witness = Witness::open(&file).unwrap();
                    (1..=50).for_each(|number| witness.note(number).unwrap());
                });
            }
        });
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [file.as_path()]);
        // What another has seen is not forgotten.
        Witness::open(&file).unwrap().note(60).unwrap();
        let behind = Witness { path: file.clone(), seen: 0.into() };
        behind.note(2).unwrap();
        assert_eq!(Witness::open(&file).unwrap().seen.into_inner(), 60);
    }

    // I-G14
    #[tokio::test]
    async fn an_older_copy_is_refused_until_everything_granted_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("incarnation");
        let store = MemoryStore::new();
        let witness = Witness::open(&file).unwrap();
        for _ in 0..3 {
            witness.advance(&store).await.unwrap();
        }
        // Another server over the same store, and this one again, find nothing amiss.
        Witness::open(folder.path().join("other")).unwrap().advance(&store).await.unwrap();
        Witness::open(&file).unwrap().advance(&store).await.unwrap();
        let older = MemoryStore::new();
        older.advance_incarnation().await.unwrap();
        let witness = Witness::open(&file).unwrap();
        for _ in 0..2 {
            let error = witness.advance(&older).await.unwrap_err();
            assert!(matches!(error, WitnessError::Restored { found: 1, seen: 5 }), "{error}");
        }
        witness.restored(&older).await.unwrap();
        Witness::open(&file).unwrap().advance(&older).await.unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_not_taken_for_nothing_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("incarnation");
        for text in ["", "x", "-1", "1 2"] {
            std::fs::write(&file, text).unwrap();
            assert!(matches!(Witness::open(&file).unwrap_err(), WitnessError::Malformed(_)), "{text}");
        }
    }
}
