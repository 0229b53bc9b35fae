//! Which files are opened, and how.

use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(unix)]
use super::super::disk::log_of;
use super::super::opening::{self, keep_log};
use super::super::{OpenError, SqliteStore};
#[cfg(unix)]
use super::{again_with_files_of, limited};
use super::{number, run};
use crate::store::{AdministeredStore as _, Store as _};

#[tokio::test]
async fn the_file_is_made_on_first_use_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.sweep().await.unwrap();
    #[cfg(unix)]
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    store.close().await;
    SqliteStore::open(&path).await.unwrap().close().await;
}

#[tokio::test]
async fn foreign_and_newer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    other.close().unwrap();
    let error = SqliteStore::open(&foreign).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("foreign.db"), "{error}");

    let newer = folder.path().join("newer.db");
    let store = SqliteStore::open(&newer).await.unwrap();
    run(&store, "PRAGMA user_version = 99");
    store.close().await;
    let error = SqliteStore::open(&newer).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("newer.db") && text.contains("99") && text.contains("run the program"), "{text}");
}

/// Before the first release version 1 was another one.
#[tokio::test]
async fn a_file_whose_version_1_is_another_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (name, other) in
        [("undated.db", "DROP TABLE schema_digest"), ("other.db", "UPDATE schema_digest SET digest = 'x'")]
    {
        let file = folder.path().join(name);
        let store = SqliteStore::open(&file).await.unwrap();
        run(&store, other);
        store.close().await;
        let tables = "SELECT count(*) FROM sqlite_schema";
        let before = number(&store, tables);
        let error = SqliteStore::open(&file).await.unwrap_err();
        assert!(matches!(error, OpenError::Other { found: 1, .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains("version 1") && text.contains("name a new file"),
            "{text}"
        );
        assert_eq!(number(&store, tables), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_can_make_and_open_one_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("store.db"));
    let opened: Vec<_> = (0..8)
        .map(|_| {
            let path = Arc::clone(&path);
            tokio::spawn(async move { SqliteStore::open(&*path).await })
        })
        .collect();
    for store in opened {
        let store = store.await.unwrap().unwrap();
        assert_eq!(number(&store, "SELECT count(*) FROM incarnation"), 1);
    }
}

#[tokio::test]
async fn a_closed_store_answers_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    store.close().await;
    assert!(store.advance_incarnation().await.is_err());
    assert!(store.incarnation().await.is_err());
    assert!(store.list_clients(None).await.is_err());
    store.close().await;
}

#[tokio::test]
async fn what_sqlite_takes_for_no_file_is_refused() {
    for name in ["", ":memory:", "file::memory:", "file:store.db?mode=memory"] {
        let error = SqliteStore::open(name).await.unwrap_err();
        assert!(matches!(error, OpenError::NoFile { .. }), "{name}: {error}");
        assert!(error.to_string().contains("--store memory"), "{error}");
        assert!(name.is_empty() || !std::path::Path::new(name).exists(), "{name}");
    }
}

/// SQLite answers with the mode that it stays in, and no error.
#[test]
fn a_file_without_a_log_is_refused() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let error = keep_log("store.db".as_ref(), &connection).unwrap_err();
    assert!(matches!(&error, OpenError::NoLog { mode, .. } if mode == "memory"), "{error}");
    assert!(error.to_string().contains("store.db"), "{error}");
}

#[tokio::test]
async fn another_programs_file_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).unwrap();
    other.execute_batch("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')").unwrap();
    other.close().unwrap();
    let before = std::fs::read(&foreign).unwrap();
    SqliteStore::open(&foreign).await.unwrap_err();
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_that_another_program_keeps_locked_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").unwrap();
    let start = Instant::now();
    let error = opening::open(&path, Duration::from_millis(400)).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(matches!(&error, OpenError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("store.db was locked by another program"), "{error}");
    drop(other);
    SqliteStore::open(&path).await.unwrap();
}

// I-G4: what a process that failed has left is written anew before anybody is served, or nobody is.
#[tokio::test]
async fn a_file_is_not_opened_before_all_of_its_log_was_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    // Another process, which stays: one of its connections reads what was before.
    let (writes, reads) =
        (rusqlite::Connection::open(&path).unwrap(), rusqlite::Connection::open(&path).unwrap());
    reads.execute_batch("BEGIN; SELECT count(*) FROM incarnation").unwrap();
    let look: i64 = reads.query_row("SELECT number FROM incarnation", (), |row| row.get(0)).unwrap();
    writes.execute_batch("UPDATE incarnation SET number = number + 1").unwrap();
    let left = || -> (i64, i64) {
        let sql = "PRAGMA wal_checkpoint(NOOP)";
        writes.query_row(sql, (), |row| Ok((row.get(1)?, row.get(2)?))).unwrap()
    };
    let error = opening::open(&path, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(&error, OpenError::Busy { .. }), "{error}");
    let (long, copied) = left();
    assert!(copied < long, "{copied} of {long}");
    // It opens as soon as that one has ended, with all of it in the file.
    let opening = std::thread::spawn({
        let path = path.clone();
        move || opening::open(&path, Duration::from_secs(10))
    });
    std::thread::sleep(Duration::from_millis(100));
    assert!(!opening.is_finished());
    reads.execute_batch("COMMIT").unwrap();
    let opened = opening.join().unwrap().unwrap();
    let (long, copied) = left();
    assert!(copied == long && long > 0, "{copied} of {long}");
    let now: i64 = opened.query_row("SELECT number FROM incarnation", (), |row| row.get(0)).unwrap();
    assert_eq!(now, look + 1);
}

/// A disk that takes the log and not what would be copied into the file.
#[cfg(unix)]
#[tokio::test]
async fn a_file_into_which_its_log_cannot_be_copied_is_refused() {
    if let Some(copy) = limited() {
        let error = SqliteStore::open(copy).await.unwrap_err();
        assert!(matches!(&error, OpenError::Database(_)), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = SqliteStore::open(&path).await.unwrap();
    run(&store, "CREATE TABLE filled (bytes BLOB) STRICT; INSERT INTO filled VALUES (zeroblob(3145728))");
    store.close().await;
    // As a process that was killed has left it.
    let killed = rusqlite::Connection::open(&path).unwrap();
    killed.execute_batch("INSERT INTO filled VALUES (zeroblob(1048576))").unwrap();
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(log_of(&path), log_of(&copy)).unwrap();
    again_with_files_of(
        2 * 1024 * 1024,
        "opening::a_file_into_which_its_log_cannot_be_copied_is_refused",
        &copy,
    );
    // It is the limit that it was refused for.
    SqliteStore::open(copy).await.unwrap();
}
