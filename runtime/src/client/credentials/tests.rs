use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mcp_authz::client::{Client, Configuration};
use mcp_authz::identifier::{Issuer, RedirectUri, ResourceId};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::keychain::{Keychain, KeychainUnusable};
use super::kit::{self, Hands, ISSUER, SERVER, Shared};
use super::{
    CredentialStore as _, DirectoryFailed, FileStore, KeyFailed, KeyFault, KeyPlace, KeySource, MemoryStore,
    StoreFailed,
};
use crate::clock::Clock;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_the_contract() {
    kit::run(|clock| async { MemoryStore::new().with_clock(clock) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    kit::run(|clock: Arc<dyn Clock>| {
        let path = folder.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        async move { open(&path, KeySource::File).await.unwrap().0.with_clock(clock) }
    })
    .await
    .unwrap();
}

async fn open(path: &Path, source: KeySource) -> Result<(FileStore, KeyPlace), StoreFailed> {
    FileStore::open(path, source).await
}

/// A store with one session and one registration in it.
async fn used(path: &Path, source: KeySource) -> Shared<FileStore> {
    let store = Arc::new(open(path, source).await.unwrap().0);
    let redirect_uri = RedirectUri::new("http://127.0.0.1:4711/callback").unwrap();
    let client = Client::new(Configuration::new("The kit", redirect_uri)).unwrap();
    let shared = Shared { store, client, clock: Arc::new(Hands::default()) };
    drop(shared.login(1).await.unwrap());
    let registration = shared.registration(ISSUER, "c1").unwrap();
    shared.store.keep_registration(registration).await.unwrap();
    shared
}

fn a_directory() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app").join("credentials");
    (folder, path)
}

/// Every file below the directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn file(path: &Path, kind: &str) -> PathBuf {
    let is_of_kind = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(kind);
    files(path).into_iter().find(is_of_kind).unwrap()
}

fn directory_failed(error: StoreFailed) -> DirectoryFailed {
    match error {
        StoreFailed::Place(failed) => *failed.downcast().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn key_fault<T>(opened: Result<T, StoreFailed>) -> KeyFault {
    match opened.err().unwrap() {
        StoreFailed::Place(failed) => failed.downcast::<KeyFailed>().unwrap().fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_process_finds_what_was_kept() {
    let (_folder, path) = a_directory();
    let (first, place) = open(&path, KeySource::File).await.unwrap();
    assert_eq!(place, KeyPlace::File(path.with_file_name("credentials.key")));
    drop(first);
    let first = used(&path, KeySource::File).await;
    let second = Shared { store: Arc::new(open(&path, KeySource::File).await.unwrap().0), ..first.clone() };
    let session = second.copy().await.unwrap();
    assert_eq!(session.authorization_for(SERVER).unwrap().expose(), "Bearer access-1");
    let issuer = Issuer::new(ISSUER).unwrap();
    let registrations =
        (first.store.registration(&issuer).await.unwrap(), second.store.registration(&issuer).await.unwrap());
    assert!(registrations.0.is_some() && registrations.0 == registrations.1);
}

// MCP-SEC-001
#[tokio::test]
async fn no_file_has_a_token_in_the_clear_and_the_directory_does_not_have_the_key() {
    let (folder, path) = a_directory();
    let shared = used(&path, KeySource::File).await;
    let session = shared.copy().await.unwrap();
    let _ = shared.commits(shared.claimed(session).await.unwrap(), 2).await.unwrap();
    let key = fs::read_to_string(path.with_file_name("credentials.key")).unwrap();
    for file in files(folder.path()) {
        let bytes = fs::read(&file).unwrap();
        for secret in ["access-1", "refresh-1", "access-2", "refresh-2"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", file.display());
        }
        if file.starts_with(&path) {
            let found = bytes.windows(key.len()).any(|window| window == key.as_bytes());
            assert!(!found, "the key in {}", file.display());
        }
    }
}

#[cfg(unix)]
mod permissions {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn what_the_store_makes_is_for_its_owner_only() {
        let (folder, path) = a_directory();
        let _ = used(&path, KeySource::File).await;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o700, 0o700));
        let made = files(folder.path());
        assert!(made.len() >= 6, "{made:?}");
        for file in made {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
    }

    #[tokio::test]
    async fn what_others_can_read_or_write_is_not_used() {
        let (_folder, path) = a_directory();
        let shared = used(&path, KeySource::File).await;
        for (open_one, others, closed) in [
            (path.clone(), 0o750, 0o700),
            (path.clone(), 0o702, 0o700),
            (file(&path, "session-"), 0o604, 0o600),
        ] {
            set_mode(&open_one, others);
            let failed = directory_failed(shared.store.sessions().await.unwrap_err());
            let shown = failed.to_string();
            assert!(
                matches!(&failed, DirectoryFailed::OpenToOthers { path, mode } if *path == open_one && *mode == others),
                "{shown}"
            );
            assert!(shown.contains("chmod go="), "{shown}");
            set_mode(&open_one, closed);
        }
        let key = path.with_file_name("credentials.key");
        set_mode(&key, 0o640);
        let failed = directory_failed(open(&path, KeySource::File).await.unwrap_err());
        assert!(matches!(failed, DirectoryFailed::OpenToOthers { path, .. } if path == key));
        set_mode(&key, 0o600);
        assert_eq!(shared.store.sessions().await.unwrap().len(), 1);
        assert!(open(&path, KeySource::File).await.is_ok());
    }

    #[tokio::test]
    async fn a_link_is_not_followed_and_another_kind_of_thing_is_not_used() {
        let (folder, path) = a_directory();
        let shared = used(&path, KeySource::File).await;
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let failed = directory_failed(open(&link, KeySource::File).await.unwrap_err());
        assert!(matches!(failed, DirectoryFailed::SymbolicLink { path } if path == link));
        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        let failed = directory_failed(open(&dangling, KeySource::File).await.unwrap_err());
        assert!(matches!(failed, DirectoryFailed::SymbolicLink { .. }));
        let session = file(&path, "session-");
        let moved = folder.path().join("moved");
        fs::rename(&session, &moved).unwrap();
        symlink(&moved, &session).unwrap();
        let failed = directory_failed(shared.store.sessions().await.unwrap_err());
        assert!(matches!(failed, DirectoryFailed::SymbolicLink { path } if path == session));
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let failed = directory_failed(open(&plain, KeySource::File).await.unwrap_err());
        assert!(matches!(failed, DirectoryFailed::WrongKind { expected: "directory", .. }));
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_left_as_it_is() {
    let (_folder, path) = a_directory();
    let shared = used(&path, KeySource::File).await;
    let session = file(&path, "session-");
    let good = fs::read(&session).unwrap();
    let place = session.display().to_string();
    let text = String::from_utf8(good.clone()).unwrap();
    let another_name = path.join(format!("session-{}", "0".repeat(64)));
    for bytes in [
        Vec::new(),
        good[..good.len() / 2].to_vec(),
        vec![0; good.len()],
        text.replace("\"record\"", "\"recorb\"").into_bytes(),
        text.replace("\"number\":", "\"number\":-").into_bytes(),
        text.replace("as.example", "as.examplf").into_bytes(),
        text.replace("{\"", "{\"fence\":7,\"").into_bytes(),
    ] {
        fs::write(&session, &bytes).unwrap();
        let damaged = |error: StoreFailed| matches!(error, StoreFailed::Damaged(named) if named == place);
        assert!(damaged(shared.store.sessions().await.unwrap_err()));
        assert!(damaged(shared.login(2).await.map(drop).err().map(store_failed).unwrap()));
        assert_eq!(fs::read(&session).unwrap(), bytes, "nothing is written over it");
    }
    fs::write(&session, text.replace("\"format\":1", "\"format\":2")).unwrap();
    let failed = shared.store.sessions().await.unwrap_err();
    assert!(matches!(&failed, StoreFailed::Later(named) if *named == place), "{failed}");
    // The record inside has a version of its own.
    fs::write(&session, text.replace("\\\"version\\\":3", "\\\"version\\\":4")).unwrap();
    assert!(matches!(shared.login(2).await.map(drop).err().map(store_failed), Some(StoreFailed::Later(_))));
    fs::rename(&session, &another_name).unwrap();
    fs::write(&another_name, &good).unwrap();
    let failed = shared.store.sessions().await.unwrap_err();
    assert!(matches!(failed, StoreFailed::Damaged(named) if named == another_name.display().to_string()));
    fs::rename(&another_name, &session).unwrap();
    assert_eq!(shared.store.sessions().await.unwrap().len(), 1);
    // The host's word under the name of another pair is no word.
    let word = file(&path, "pairing-");
    let place = path.join(format!("pairing-{}", "0".repeat(64)));
    fs::copy(&word, &place).unwrap();
    let failed = shared.store.pairings(&ResourceId::new(kit::SERVER).unwrap()).await.unwrap_err();
    assert!(matches!(failed, StoreFailed::Damaged(named) if named == place.display().to_string()));
}

fn store_failed(error: kit::KitError) -> StoreFailed {
    match error {
        kit::KitError::Store(failed) => failed,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_sequence_that_was_lost_goes_on_above_what_is_there() {
    let (_folder, path) = a_directory();
    let shared = used(&path, KeySource::File).await;
    let session = shared.copy().await.unwrap();
    let waiting = shared.claimed(session).await.unwrap();
    fs::remove_file(path.join("sequence")).unwrap();
    drop(shared.login_at("https://mcp.example/other", ISSUER, 5).await.unwrap());
    let versions: Vec<u64> =
        shared.store.sessions().await.unwrap().iter().map(|kept| kept.version().number()).collect();
    assert!(versions.iter().all(|version| *version > 0) && versions[0] != versions[1], "{versions:?}");
    assert!(kit::is_session(&shared.commits(waiting, 2).await.unwrap(), 2).unwrap());
    fs::write(path.join("sequence"), "many").unwrap();
    assert!(matches!(shared.login(2).await.map(drop).err().map(store_failed), Some(StoreFailed::Damaged(_))));
}

#[tokio::test]
async fn a_write_that_was_cut_short_leaves_what_there_was() {
    let (_folder, path) = a_directory();
    let shared = used(&path, KeySource::File).await;
    fs::write(path.join("next"), "half a reco").unwrap();
    assert_eq!(shared.store.sessions().await.unwrap().len(), 1);
    drop(shared.login(2).await.unwrap());
    let session = shared.copy().await.unwrap();
    assert_eq!(session.authorization_for(SERVER).unwrap().expose(), "Bearer access-2");
}

/// A keychain that can be out of reach, and one that forgets.
#[derive(Debug, Default)]
struct Chain {
    entry: Mutex<Option<String>>,
    out_of_reach: Mutex<bool>,
    forgets: bool,
}

impl Keychain for Chain {
    fn read(&self) -> Result<Option<Zeroizing<String>>, KeychainUnusable> {
        if *self.out_of_reach.lock().unwrap() {
            return Err(KeychainUnusable("no bus".into()));
        }
        Ok(self.entry.lock().unwrap().clone().map(Zeroizing::new))
    }

    fn write(&self, text: &str) -> Result<(), KeychainUnusable> {
        if !self.forgets {
            *self.entry.lock().unwrap() = Some(text.into());
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_keychain_holds_one_key_of_32_bytes_and_no_file_does() {
    let (folder, path) = a_directory();
    let chain = Arc::new(Chain::default());
    let (_, place) = open(&path, KeySource::KeychainOrFile(chain.clone())).await.unwrap();
    assert_eq!(place, KeyPlace::Keychain);
    let shared = used(&path, KeySource::Keychain(chain.clone())).await;
    let entry = chain.entry.lock().unwrap().clone().unwrap();
    assert_eq!(mcp_authz::syntax::base64url::decode(&entry).unwrap().len(), 32);
    for file in files(folder.path()) {
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(entry.len()).any(|window| window == entry.as_bytes()));
    }
    assert!(!path.with_file_name("credentials.key").exists());
    // Another directory of the application uses the same entry.
    let elsewhere = folder.path().join("elsewhere");
    let (_, place) = open(&elsewhere, KeySource::KeychainOrFile(chain.clone())).await.unwrap();
    assert_eq!((place, chain.entry.lock().unwrap().clone()), (KeyPlace::Keychain, Some(entry)));
    assert!(shared.find().await.unwrap().is_some());
}

#[tokio::test]
async fn without_a_keychain_the_key_lies_in_a_file_and_stays_there() {
    let (_folder, path) = a_directory();
    for chain in [
        Chain { out_of_reach: Mutex::new(true), ..Chain::default() },
        Chain { forgets: true, ..Chain::default() },
    ] {
        let chain = Arc::new(chain);
        let shared = used(&path, KeySource::KeychainOrFile(chain.clone())).await;
        *chain.out_of_reach.lock().unwrap() = false;
        let (again, place) = open(&path, KeySource::KeychainOrFile(chain.clone())).await.unwrap();
        assert!(matches!(place, KeyPlace::File(_)));
        assert!(Shared { store: Arc::new(again), ..shared }.find().await.unwrap().is_some());
        assert_eq!(*chain.entry.lock().unwrap(), None);
        let fault = key_fault(open(&path, KeySource::Keychain(chain)).await);
        assert_eq!(fault, KeyFault::NotUsed);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
    let chain = Arc::new(Chain { out_of_reach: Mutex::new(true), ..Chain::default() });
    let fault = key_fault(open(&path, KeySource::Keychain(chain)).await);
    assert_eq!(fault, KeyFault::Unreachable("no bus".into()));
}

#[tokio::test]
async fn a_keychain_that_was_used_and_is_out_of_reach_never_leads_to_another_key() {
    let (_folder, path) = a_directory();
    let chain = Arc::new(Chain::default());
    let source = KeySource::KeychainOrFile(chain.clone());
    let shared = used(&path, source.clone()).await;
    *chain.out_of_reach.lock().unwrap() = true;
    let error = open(&path, source.clone()).await.unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains("keychain") && shown.contains("no bus") && shown.contains("unlock"), "{shown}");
    assert_eq!(key_fault::<()>(Err(error)), KeyFault::Unreachable("no bus".into()));
    assert_eq!(key_fault(open(&path, KeySource::File).await), KeyFault::NotUsed);
    *chain.out_of_reach.lock().unwrap() = false;
    let good = chain.entry.lock().unwrap().take();
    assert_eq!(key_fault(open(&path, source.clone()).await), KeyFault::Gone);
    assert_eq!(*chain.entry.lock().unwrap(), None, "no new key was made");
    for (entry, fault) in [
        ("not a key", KeyFault::Damaged),
        ("AAAA", KeyFault::Damaged),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", KeyFault::Another),
    ] {
        *chain.entry.lock().unwrap() = Some(entry.into());
        assert_eq!(key_fault(open(&path, source.clone()).await), fault);
    }
    *chain.entry.lock().unwrap() = good;
    let (again, _) = open(&path, source).await.unwrap();
    assert!(Shared { store: Arc::new(again), ..shared }.find().await.unwrap().is_some());
}

#[tokio::test]
async fn records_without_a_word_where_their_key_is_are_left_alone() {
    let (_folder, path) = a_directory();
    let _ = used(&path, KeySource::File).await;
    fs::remove_file(path.with_file_name("credentials.key")).unwrap();
    assert_eq!(key_fault(open(&path, KeySource::File).await), KeyFault::Gone);
    fs::write(path.join("key"), "{}").unwrap();
    assert!(matches!(open(&path, KeySource::File).await, Err(StoreFailed::Damaged(_))));
    fs::remove_file(path.join("key")).unwrap();
    let failed = open(&path, KeySource::File).await.unwrap_err();
    assert!(matches!(failed, StoreFailed::Damaged(named) if named == path.join("key").display().to_string()));
    assert!(!path.with_file_name("credentials.key").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn programs_that_begin_at_once_agree_on_one_key() {
    let (_folder, path) = a_directory();
    let chain = Arc::new(Chain::default());
    let opening: Vec<_> = (0..20)
        .map(|_| {
            let (path, chain) = (path.clone(), chain.clone());
            tokio::spawn(async move { open(&path, KeySource::KeychainOrFile(chain)).await.unwrap().0 })
        })
        .collect();
    let shared = used(&path, KeySource::Keychain(chain)).await;
    for opened in opening {
        let other = Shared { store: Arc::new(opened.await.unwrap()), ..shared.clone() };
        assert!(other.find().await.unwrap().is_some());
    }
}
