//! The store in a directory: one file for each session, readable by its owner only, with what is secret sealed.
//!
//! A lock on one file makes each operation atomic against every program that uses the directory. It is held while files
//! are read and written, never while a server is asked. A file is replaced whole: written beside, brought to the disk,
//! renamed, and the directory brought to the disk.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shelf::{Blobs, Shelf, Work};
use super::{SharedSealer, StoreFailed, Stored};
use crate::clock::{Clock, SystemClock};

/// How long the lock is waited for. Nobody holds it longer than a few files take.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// No file of a store is larger.
const FILE_BYTES: u64 = 2 * 1024 * 1024;

const LOCK: &str = "lock";
/// Where the next content of a file stands until it is whole.
const NEXT: &str = "next";

/// Why a directory cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryFailed {
    /// Other users may read or write what is there.
    #[error(
        "{} is open to other users of this machine (mode {mode:o}); if nobody else wrote there, close it: chmod go= {}",
        path.display(), path.display()
    )]
    OpenToOthers {
        /// What is open.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It leads somewhere else.
    #[error("{} is a symbolic link; if the place it leads to is meant, name that place", path.display())]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// Something else stands where a file or a directory should.
    #[error("{} is not a {expected}; move it away", path.display())]
    WrongKind {
        /// What stands there.
        path: PathBuf,
        /// What should.
        expected: &'static str,
    },
    /// Another program holds the lock, and does not come to an end.
    #[error("another program holds {} and does not let go; end that program and try again", path.display())]
    InUse {
        /// The file of the lock.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<DirectoryFailed> for StoreFailed {
    fn from(failed: DirectoryFailed) -> Self {
        Self::Place(Box::new(failed))
    }
}

fn io<'p>(doing: &'static str, path: &'p Path) -> impl Fn(io::Error) -> DirectoryFailed + use<'p> {
    move |source| DirectoryFailed::Io { doing, path: path.into(), source }
}

/// Where an application's credentials lie on this system unless the person says otherwise. `None` where the environment
/// names no home.
///
/// `$XDG_DATA_HOME` or `~/.local/share`; `~/Library/Application Support` on macOS; `%LOCALAPPDATA%` on Windows.
pub fn default_directory(application: &str) -> Option<PathBuf> {
    // A relative path would lead elsewhere from each working directory (XDG base directory specification).
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        absolute("HOME")?.join("Library/Application Support")
    } else {
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?
    };
    Some(data.join(application).join("credentials"))
}

/// A [`CredentialStore`](super::CredentialStore) in a directory. Clones, and other processes with the same directory,
/// share what is in it.
#[derive(Clone)]
pub struct FileStore {
    pub(super) directory: Arc<Directory>,
    sealer: SharedSealer,
    clock: Arc<dyn Clock>,
}

impl FileStore {
    /// The store in that directory, which is made if it is not there, with records under that sealer.
    ///
    /// # Errors
    /// [`StoreFailed::Place`] with [`DirectoryFailed`].
    pub fn with(directory: impl Into<PathBuf>, sealer: SharedSealer) -> Result<Self, StoreFailed> {
        Ok(Self::over(Directory::make(directory.into())?, sealer))
    }

    pub(super) fn over(directory: Directory, sealer: SharedSealer) -> Self {
        Self { directory: Arc::new(directory), sealer, clock: Arc::new(SystemClock) }
    }

    /// Reads the time there: it says when a claim has ended.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStore").field(&self.directory.path).finish()
    }
}

impl Shelf for FileStore {
    fn sealer(&self) -> &SharedSealer {
        &self.sealer
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn locked<T: Send + 'static>(&self, work: Work<T>) -> Stored<'_, T> {
        let directory = Arc::clone(&self.directory);
        Box::pin(async move {
            // Once begun it goes to its end, also when nobody waits any more.
            let done = tokio::task::spawn_blocking(move || work(&mut directory.lock()?)).await;
            done.unwrap_or_else(|failed| Err(StoreFailed::Place(Box::new(failed))))
        })
    }
}

/// A directory of this person's alone.
pub(super) struct Directory {
    pub(super) path: PathBuf,
}

impl Directory {
    /// The directory at that path; what is missing of it is made.
    pub(super) fn make(path: PathBuf) -> Result<Self, DirectoryFailed> {
        // Without what would put a name behind it into it.
        let path = std::path::absolute(&path).map_err(io("find the directory", &path))?;
        let path: PathBuf = path.components().collect();
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        permissions::for_owner_only(&mut builder);
        // What stands there already is left as it is, and checked.
        if fs::symlink_metadata(&path).is_err() {
            builder.create(&path).map_err(io("make the directory", &path))?;
        }
        let directory = Self { path };
        directory.check()?;
        Ok(directory)
    }

    fn check(&self) -> Result<(), DirectoryFailed> {
        let metadata = fs::symlink_metadata(&self.path).map_err(io("find the directory", &self.path))?;
        if !metadata.is_symlink() && !metadata.is_dir() {
            return Err(DirectoryFailed::WrongKind { path: self.path.clone(), expected: "directory" });
        }
        closed(&self.path, &metadata)
    }

    /// Waits for the lock.
    pub(super) fn lock(&self) -> Result<Locked<'_>, StoreFailed> {
        self.check()?;
        let path = self.path.join(LOCK);
        let end = Instant::now().checked_add(LOCK_PATIENCE);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            permissions::for_owner_only_file(&mut options);
            let file = options.open(&path).map_err(io("open", &path))?;
            match fs4::FileExt::try_lock(&file) {
                // Somebody may have removed the file between: then others lock another one.
                Ok(()) if permissions::is_at(&file, &path) => {
                    return Ok(Locked { directory: self, _lock: file });
                }
                Ok(()) | Err(fs4::TryLockError::WouldBlock) => {}
                Err(fs4::TryLockError::Error(source)) => return Err(io("lock", &path)(source).into()),
            }
            if end.is_none_or(|end| Instant::now() >= end) {
                return Err(DirectoryFailed::InUse { path }.into());
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }
}

/// Refuses what leads elsewhere, and what others may read or write.
fn closed(path: &Path, metadata: &Metadata) -> Result<(), DirectoryFailed> {
    if metadata.is_symlink() {
        return Err(DirectoryFailed::SymbolicLink { path: path.into() });
    }
    match permissions::of_others(metadata) {
        None => Ok(()),
        Some(mode) => Err(DirectoryFailed::OpenToOthers { path: path.into(), mode }),
    }
}

/// Reads a file that is this person's alone.
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, DirectoryFailed> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("find", path)(error)),
    };
    closed(path, &metadata)?;
    if !metadata.is_file() {
        return Err(DirectoryFailed::WrongKind { path: path.into(), expected: "file" });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("open", path))?;
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(io("read", path))?;
    Ok(Some(bytes))
}

/// Writes a file of this person's alone: whole, or not at all. `next` stands in the same directory.
pub(super) fn write_private(path: &Path, next: &Path, bytes: &[u8]) -> Result<(), DirectoryFailed> {
    match fs::remove_file(next) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("remove", next)(error)),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    permissions::for_owner_only_file(&mut options);
    let mut file = options.open(next).map_err(io("make", next))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", next))?;
    drop(file);
    fs::rename(next, path).map_err(io("write", path))?;
    permissions::settle(path).map_err(io("write", path))
}

/// A directory while its lock is held.
pub(super) struct Locked<'d> {
    directory: &'d Directory,
    _lock: File,
}

impl Locked<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }
}

impl Blobs for Locked<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreFailed> {
        Ok(read_private(&self.at(name))?)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreFailed> {
        Ok(write_private(&self.at(name), &self.at(NEXT), bytes)?)
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreFailed> {
        let path = self.at(name);
        fs::remove_file(&path).and_then(|()| permissions::settle(&path)).map_err(io("remove", &path))?;
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StoreFailed> {
        let path = &self.directory.path;
        let mut names = Vec::new();
        for file in fs::read_dir(path).map_err(io("list", path))? {
            let file = file.map_err(io("list", path))?;
            // A name that is no text is none of a store's.
            names.extend(file.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn place(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }
}

#[cfg(unix)]
mod permissions {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
    use std::path::Path;

    pub(super) fn for_owner_only(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn for_owner_only_file(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// The mode, where it gives others anything.
    pub(super) fn of_others(metadata: &Metadata) -> Option<u32> {
        // What another user can read or write is not kept there.
        Some(metadata.mode() & 0o7777).filter(|mode| mode & 0o077 != 0)
    }

    pub(super) fn is_at(file: &File, path: &Path) -> bool {
        let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let at_path = std::fs::metadata(path).map(place).ok();
        at_path.is_some() && at_path == file.metadata().map(place).ok()
    }

    /// Brings a change of the directory around a file to the disk.
    pub(super) fn settle(path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

/// Windows gives a person's own directories to that person only, cannot rename a file that is open, and brings changes of
/// a directory to the disk by itself.
#[cfg(not(unix))]
mod permissions {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    pub(super) fn for_owner_only(_: &mut DirBuilder) {}

    pub(super) fn for_owner_only_file(_: &mut OpenOptions) {}

    pub(super) fn of_others(_: &Metadata) -> Option<u32> {
        None
    }

    pub(super) fn is_at(_: &File, _: &Path) -> bool {
        true
    }

    pub(super) fn settle(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
