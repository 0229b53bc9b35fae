//! Where the key of a directory's records lies: in the keychain, or in a file beside the directory.
//!
//! The keychain holds one key of 32 bytes and nothing else: some are limited to 2,560 bytes an entry. Which of the two
//! it is stands in the directory from the first use on, so that a keychain that is out of reach for once never leads to
//! another key, under which no record opens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_authz::sealer::Sealer as _;
use mcp_authz::syntax::base64url;
use mcp_authz::syntax::json::{JsonObject, ObjectWriter};
use zeroize::Zeroizing;

use super::StoreFailed;
use super::directory::{Directory, FileStore, Locked, read_private, write_private};
use super::keychain::Keychain;
use super::shelf::{self, Blobs as _};
use crate::sealer::AeadSealer;

/// The file in the directory that says where the key is.
const MARK: &str = "key";
const FORMAT: i64 = 1;
/// What is sealed under the key to know it again.
const CHECK: &[u8] = b"mcp-authz key check 1";

/// Where the key may lie.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In this keychain, and nowhere else.
    Keychain(Arc<dyn Keychain>),
    /// In this keychain if it can be used at the first time, else in a file.
    KeychainOrFile(Arc<dyn Keychain>),
    /// In a file beside the directory, for its owner only.
    File,
}

impl KeySource {
    /// In the keychain of this system if it can be used at the first time, else in a file.
    #[cfg(feature = "keyring")]
    pub fn system(application: impl Into<String>) -> Self {
        Self::KeychainOrFile(Arc::new(super::keychain::SystemKeychain::new(application)))
    }
}

/// Where the key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyPlace {
    /// In the keychain.
    Keychain,
    /// In this file.
    File(PathBuf),
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keychain => f.write_str("the keychain"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The key of a directory's records is not to be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("the records in {} are sealed under a key in {place}: {fault}", directory.display())]
pub struct KeyFailed {
    /// The records' directory.
    pub directory: PathBuf,
    /// Where its key lies.
    pub place: KeyPlace,
    /// What is wrong.
    pub fault: KeyFault,
}

/// What is wrong with the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The keychain cannot be used.
    #[error(
        "it cannot be reached ({0}); unlock it, or run this program in the session it was first used in; to begin anew, move the directory away and sign in again"
    )]
    Unreachable(String),
    /// This program looks elsewhere.
    #[error(
        "this program does not use that place; run the one that did, or move the directory away and sign in again"
    )]
    NotUsed,
    /// There is none.
    #[error(
        "it is not there any more, and no record opens without it; move the directory away and sign in again"
    )]
    Gone,
    /// What lies there is no key.
    #[error("what lies there is not a key of this program; restore it, or move both away and sign in again")]
    Damaged,
    /// What lies there is another key.
    #[error(
        "the key there is another one; restore the one there was, or move the directory away and sign in again"
    )]
    Another,
    /// The operating system gave no randomness for a new one.
    #[error("a new one cannot be made: the operating system gives no randomness")]
    NoRandomness,
}

type Key = Zeroizing<[u8; 32]>;

impl FileStore {
    /// The store in that directory, with records under a key from that source, and where the key lies. At the first use
    /// both are made.
    ///
    /// # Errors
    /// [`StoreFailed::Place`] with [`DirectoryFailed`](super::DirectoryFailed) or [`KeyFailed`].
    pub async fn open(
        directory: impl Into<PathBuf>,
        source: KeySource,
    ) -> Result<(Self, KeyPlace), StoreFailed> {
        let path = directory.into();
        let opened = tokio::task::spawn_blocking(move || {
            let directory = Directory::make(path)?;
            let (sealer, place) = key_of(&directory, &source)?;
            Ok((Self::over(directory, Arc::new(sealer)), place))
        });
        opened.await.unwrap_or_else(|failed| Err(StoreFailed::Place(Box::new(failed))))
    }
}

fn key_of(directory: &Directory, source: &KeySource) -> Result<(AeadSealer, KeyPlace), StoreFailed> {
    let failed = |place: &KeyPlace, fault| KeyFailed {
        directory: directory.path.clone(),
        place: place.clone(),
        fault,
    };
    let mut locked = directory.lock()?;
    if let Some(mark) = Mark::read(&locked, directory)? {
        // The keychain may ask the person; nobody else has to wait for that.
        drop(locked);
        let Mark { place, check } = mark;
        let key = match (&place, source) {
            (KeyPlace::Keychain, KeySource::Keychain(keychain) | KeySource::KeychainOrFile(keychain)) => {
                in_keychain(&**keychain).map_err(|fault| failed(&place, fault))?
            }
            (KeyPlace::File(path), KeySource::File | KeySource::KeychainOrFile(_)) => {
                in_file(path)?.map(key_from).transpose().map_err(|fault| failed(&place, fault))?
            }
            _ => return Err(failed(&place, KeyFault::NotUsed).into()),
        };
        let sealer = AeadSealer::new(*key.ok_or_else(|| failed(&place, KeyFault::Gone))?);
        sealer.open(CHECK, &check).map_err(|_| failed(&place, KeyFault::Another))?;
        return Ok((sealer, place));
    }
    // Records without a word where their key is: a new key would not open them.
    if !shelf::is_empty(&locked)? {
        return Err(StoreFailed::Damaged(locked.place(MARK)));
    }
    let (key, place) = match source {
        KeySource::Keychain(keychain) | KeySource::KeychainOrFile(keychain) => {
            match in_keychain_for_good(&**keychain) {
                Ok(key) => (key, KeyPlace::Keychain),
                Err(KeyFault::Unreachable(_)) if matches!(source, KeySource::KeychainOrFile(_)) => {
                    in_file_for_good(directory, failed)?
                }
                Err(fault) => return Err(failed(&KeyPlace::Keychain, fault).into()),
            }
        }
        KeySource::File => in_file_for_good(directory, failed)?,
    };
    let sealer = AeadSealer::new(*key);
    let check = sealer.seal(CHECK, b"").map_err(mcp_authz::error::Error::from)?;
    locked.write(MARK, &Mark { place: place.clone(), check }.to_bytes())?;
    Ok((sealer, place))
}

impl From<KeyFailed> for StoreFailed {
    fn from(failed: KeyFailed) -> Self {
        Self::Place(Box::new(failed))
    }
}

fn in_keychain(keychain: &dyn Keychain) -> Result<Option<Key>, KeyFault> {
    let text = keychain.read().map_err(|unusable| KeyFault::Unreachable(unusable.0))?;
    text.map(key_from).transpose()
}

/// The keychain's key, and if it has none, a new one.
fn in_keychain_for_good(keychain: &dyn Keychain) -> Result<Key, KeyFault> {
    if let Some(key) = in_keychain(keychain)? {
        return Ok(key);
    }
    let (key, text) = new_key()?;
    keychain.write(&text).map_err(|unusable| KeyFault::Unreachable(unusable.0))?;
    // Some take everything and keep nothing.
    match in_keychain(keychain)? {
        Some(kept) if *kept == *key => Ok(key),
        _ => Err(KeyFault::Unreachable("it does not keep what it is given".into())),
    }
}

fn in_file(path: &Path) -> Result<Option<Zeroizing<String>>, StoreFailed> {
    let bytes = read_private(path)?.map(Zeroizing::new);
    Ok(bytes.map(|bytes| Zeroizing::new(String::from_utf8_lossy(&bytes).trim().to_owned())))
}

/// The file's key, and if there is none, a new one.
fn in_file_for_good(
    directory: &Directory,
    failed: impl Fn(&KeyPlace, KeyFault) -> KeyFailed,
) -> Result<(Key, KeyPlace), StoreFailed> {
    let path = beside(&directory.path, ".key");
    let place = KeyPlace::File(path.clone());
    if let Some(text) = in_file(&path)? {
        return Ok((key_from(text).map_err(|fault| failed(&place, fault))?, place));
    }
    let (key, text) = new_key().map_err(|fault| failed(&place, fault))?;
    write_private(&path, &beside(&directory.path, ".key.next"), text.as_bytes())?;
    Ok((key, place))
}

fn new_key() -> Result<(Key, Zeroizing<String>), KeyFault> {
    let mut key = Key::default();
    getrandom::fill(key.as_mut_slice()).map_err(|_| KeyFault::NoRandomness)?;
    let text = Zeroizing::new(base64url::encode(key.as_slice()));
    Ok((key, text))
}

fn key_from(text: Zeroizing<String>) -> Result<Key, KeyFault> {
    let bytes = base64url::decode(&text).map(Zeroizing::new).map_err(|_| KeyFault::Damaged)?;
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| KeyFault::Damaged)?;
    Ok(Zeroizing::new(key))
}

/// The path of the directory with something behind its name: not in the directory, so that who copies or lists that one
/// does not have the key too.
fn beside(directory: &Path, ending: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Where the key is, and something it opens.
struct Mark {
    place: KeyPlace,
    check: Vec<u8>,
}

impl Mark {
    fn read(locked: &Locked<'_>, directory: &Directory) -> Result<Option<Self>, StoreFailed> {
        let Some(bytes) = locked.read(MARK)? else { return Ok(None) };
        let damaged = || StoreFailed::Damaged(locked.place(MARK));
        let object = JsonObject::parse(&bytes, 4096).map_err(|_| damaged())?;
        match object.integer("format") {
            Ok(Some(FORMAT)) => {}
            Ok(Some(later)) if later > FORMAT => return Err(StoreFailed::Later(locked.place(MARK))),
            _ => return Err(damaged()),
        }
        let place = match object.required_string("place").map_err(|_| damaged())? {
            "keychain" => KeyPlace::Keychain,
            "file" => KeyPlace::File(beside(&directory.path, ".key")),
            _ => return Err(damaged()),
        };
        let check = object.required_string("check").map_err(|_| damaged())?;
        Ok(Some(Self { place, check: base64url::decode(check).map_err(|_| damaged())? }))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let place = match &self.place {
            KeyPlace::Keychain => "keychain",
            KeyPlace::File(_) => "file",
        };
        ObjectWriter::new()
            .integer("format", FORMAT)
            .string("place", place)
            .string("check", base64url::encode(&self.check))
            .finish()
    }
}
