//! The thread that waits for the disk, with a disk that is slow, fails, or remembers what it had.

use std::io;
use std::path::Path as File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::super::disk::{Log, OpenLog, WalFile, log_of};
use super::super::driver::{Get as _, query};
use super::super::{Locks, SqliteStore, Turn};
use super::{NOTED, beside, note, noted, numbers, run};
#[cfg(unix)]
use super::{again_with_files_of, limited};
use crate::clock::SystemClock;
use crate::store::kit::{self, Path};
use crate::store::{AdministeredStore as _, GrantsOf, Store as _, StoreError};
use mcp_authz::authorization_server::test_kit::{self, Seen};

/// A log whose syncs wait while the disk is held, and fail when it is broken.
#[derive(Clone, Default)]
struct Slow {
    held: Arc<(Mutex<bool>, Condvar)>,
    broken: Arc<AtomicBool>,
    began: Arc<AtomicUsize>,
}

impl Slow {
    fn hold(&self, held: bool) {
        *self.held.0.lock().unwrap() = held;
        self.held.1.notify_all();
    }

    /// Waits until so many syncs have begun.
    async fn began(&self, syncs: usize) {
        while self.began.load(Ordering::SeqCst) < syncs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn open(&self, folder: &File) -> SqliteStore {
        let slow = self.clone();
        let open: OpenLog = Arc::new(move |path| {
            WalFile::open(path)?;
            Ok(Box::new(slow.clone()))
        });
        let store = SqliteStore::open_file(&folder.join("store.db"), Arc::new(SystemClock), open).unwrap();
        run(&store, NOTED);
        store
    }
}

impl Log for Slow {
    fn sync(&self) -> io::Result<()> {
        self.began.fetch_add(1, Ordering::SeqCst);
        drop(self.held.1.wait_while(self.held.0.lock().unwrap(), |held| *held).unwrap());
        if self.broken.load(Ordering::SeqCst) { Err(io::Error::other("unplugged")) } else { Ok(()) }
    }
}

fn noting(store: &SqliteStore, number: i64) -> tokio::task::JoinHandle<Result<(), StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { note(&store, number).await })
}

/// Long enough for an answer that should not come.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

/// The property itself: the power may fail at any moment, and whoever was answered before is in the log that the disk had by
/// then, as it was when the last sync that has ended began.
// I-G4
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_was_answered_is_in_what_the_disk_had_by_then() {
    struct Remembered {
        log: Box<dyn Log>,
        database: std::path::PathBuf,
        had: Arc<Mutex<Vec<Vec<u8>>>>,
    }
    impl Log for Remembered {
        fn sync(&self) -> io::Result<()> {
            let has = std::fs::read(log_of(&self.database))?;
            self.log.sync()?;
            std::thread::sleep(Duration::from_millis(2));
            self.had.lock().unwrap().push(has);
            Ok(())
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("store.db"), folder.path().join("copy.db"));
    let store = SqliteStore::open(&file).await.unwrap();
    run(&store, NOTED);
    store.close().await;
    // Nobody has it open, and it stays as it is: little is written, and nothing copied into it before the end.
    std::fs::copy(&file, &copy).unwrap();
    let had = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let remembered = Arc::clone(&had);
    let open: OpenLog = Arc::new(move |database| {
        let (log, had) = (WalFile::open(database)?, Arc::clone(&remembered));
        Ok(Box::new(Remembered { log, database: database.to_owned(), had }))
    });
    let store = SqliteStore::open_file(&file, Arc::new(SystemClock), open).unwrap();
    let writers: Vec<_> = (0..8_i64)
        .map(|writer| {
            let (store, had) = (store.clone(), Arc::clone(&had));
            tokio::spawn(async move {
                let mut answered = Vec::new();
                for number in writer * 100..writer * 100 + 20 {
                    note(&store, number).await.unwrap();
                    answered.push((number, had.lock().unwrap().len()));
                }
                answered
            })
        })
        .collect();
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.unwrap());
    }
    assert_eq!(answered.len(), 160);
    let had = had.lock().unwrap().clone();
    for (syncs, log) in had.iter().enumerate().map(|(before, log)| (before + 1, log)) {
        let left = folder.path().join(format!("{syncs}.db"));
        std::fs::copy(&copy, &left).unwrap();
        std::fs::write(log_of(&left), log).unwrap();
        let left = numbers(&rusqlite::Connection::open(left).unwrap());
        for (number, _) in answered.iter().filter(|(_, by)| *by == syncs) {
            assert!(
                left.contains(number),
                "{number}, answered after {syncs} syncs, is gone after a power cut"
            );
        }
    }
    assert!(answered.iter().all(|(_, syncs)| (1..=had.len()).contains(syncs)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_answered_while_the_disk_is_waited_for_not_even_who_only_looked() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    slow.hold(true);
    let looking = tokio::spawn({
        let store = store.clone();
        let look = async |turn: Turn, ()| {
            let (mut writing, _) = turn.write(Locks::NONE).await?;
            let seen =
                query("SELECT count(*) FROM noted").fetch_one(&mut *writing).await?.try_get::<i64, _>(0)?;
            writing.unchanged(seen).await
        };
        async move { store.carry_out((), look).await }
    });
    slow.began(1).await;
    let writing = noting(&store, 1);
    a_while().await;
    assert!(!looking.is_finished() && !writing.is_finished());
    slow.hold(false);
    assert_eq!(looking.await.unwrap().unwrap(), 0);
    writing.await.unwrap().unwrap();
    assert_eq!(slow.began.load(Ordering::SeqCst), 2);
}

// I-G4, RFC7009-2.2-1: whoever asks once more to end what is just ending must not be told that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_told_that_a_grant_has_ended_before_the_disk_has_that() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, &path.grant.subject).await.unwrap();
    path.redeem(&store, path.refresh).await.unwrap();
    let (access, _) = path.access();
    slow.hold(true);
    let syncs = slow.began.load(Ordering::SeqCst);
    let revoking = tokio::spawn({
        let (store, path) = (store.clone(), path.clone());
        async move { path.revoke(&store).await.is_ok() }
    });
    slow.began(syncs + 1).await;
    let asking = [0, 1, 2, 3].map(|what| {
        let (store, path) = (store.clone(), path.clone());
        tokio::spawn(async move {
            match what {
                0 => matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Absent),
                1 => test_kit::access_found(store.read_access(test_kit::read_access(access)).await.unwrap())
                    .is_none(),
                2 => test_kit::grant_found(
                    store.read_grant(test_kit::read_grant(path.grant.family)).await.unwrap(),
                )
                .is_none(),
                _ => store.list_grants(GrantsOf::All, None).await.unwrap().is_empty(),
            }
        })
    });
    a_while().await;
    let early = revoking.is_finished() || asking.iter().any(|asked| asked.is_finished());
    slow.hold(false);
    assert!(!early);
    assert!(revoking.await.unwrap());
    for asked in asking {
        assert!(asked.await.unwrap());
    }
}

#[tokio::test]
async fn a_log_that_was_deleted_stores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = SqliteStore::open(&file).await.unwrap();
    run(&store, NOTED);
    note(&store, 1).await.unwrap();
    std::fs::remove_file(log_of(&file)).unwrap();
    let error = note(&store, 2).await.unwrap_err().to_string();
    assert!(error.contains("deleted or replaced"), "{error}");
    note(&store, 3).await.unwrap_err();
}

/// 32 MiB, in as many rows as let the log be measured.
const FILL: &str = "INSERT INTO filled WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 512) \
    SELECT zeroblob(65536) FROM counted";

#[tokio::test]
async fn a_long_log_is_copied_into_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    run(&store, "CREATE TABLE filled (bytes BLOB) STRICT");
    let pages = |column: usize| {
        beside(&store).query_row("PRAGMA wal_checkpoint(NOOP)", (), |row| row.get::<_, i64>(column)).unwrap()
    };
    let fill = async |turn: Turn, ()| {
        let (mut writing, _) = turn.write(Locks::NONE).await?;
        query(FILL).execute(&mut *writing).await?;
        writing.commit().await
    };
    note(&store, 1).await.unwrap();
    assert_eq!(pages(2), 0, "a short log is left alone");
    store.carry_out((), fill).await.unwrap();
    // The answer does not wait for that, whoever writes next does.
    note(&store, 2).await.unwrap();
    assert!(pages(1) < 100, "the log begins anew");
    assert_eq!(noted(&store), [1, 2]);
}

/// What was copied may be on the disk or not, and a later copy would take it for stored.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_log_that_could_not_be_copied_nobody_is_told_that_anything_is_stored() {
    const FILLED: &str =
        "CREATE TABLE filled (bytes BLOB) STRICT; INSERT INTO filled VALUES (zeroblob(37748736))";
    if let Some(file) = limited() {
        let store = SqliteStore::open(file).await.unwrap();
        note(&store, 1).await.unwrap();
        let fill = async |turn: Turn, ()| {
            let (mut writing, _) = turn.write(Locks::NONE).await?;
            query(FILL).execute(&mut *writing).await?;
            writing.commit().await
        };
        // It is on the disk, and answered before or after the copy.
        let _either = store.carry_out((), fill).await;
        let error = note(&store, 2).await.unwrap_err().to_string();
        assert!(error.contains("may not be on the disk") && error.contains("start again"), "{error}");
        assert!(store.incarnation().await.is_err());
        assert_eq!(noted(&store), [1]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = SqliteStore::open(&file).await.unwrap();
    run(&store, NOTED);
    run(&store, FILLED);
    store.close().await;
    again_with_files_of(
        37_748_736,
        "disk::after_a_log_that_could_not_be_copied_nobody_is_told_that_anything_is_stored",
        &file,
    );
    let store = SqliteStore::open(&file).await.unwrap();
    note(&store, 3).await.unwrap();
    assert_eq!(noted(&store), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_while_the_disk_is_waited_for_is_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    slow.hold(true);
    let mut writing = vec![noting(&store, 0)];
    slow.began(1).await;
    writing.extend((1..20).map(|number| noting(&store, number)));
    a_while().await;
    // Committed, and not yet.
    assert_eq!(noted(&store), [0]);
    slow.hold(false);
    for answer in writing {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(slow.began.load(Ordering::SeqCst), 2);
    assert_eq!(noted(&store).len(), 20);
}

/// After a crowd a group waits for more: whoever comes alone then, or closes the store, is not left waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_crowd_those_who_come_alone_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    for round in 0..2 {
        slow.hold(true);
        let began = slow.began.load(Ordering::SeqCst);
        let mut writing = vec![noting(&store, round * 1000)];
        slow.began(began + 1).await;
        writing.extend((1..100).map(|number| noting(&store, round * 1000 + number)));
        a_while().await;
        slow.hold(false);
        for answer in writing {
            answer.await.unwrap().unwrap();
        }
        for number in 100..200 {
            note(&store, round * 1000 + number).await.unwrap();
            // Whatever it was committed with, it was answered after a sync of its own.
            assert!(noted(&store).contains(&(round * 1000 + number)));
        }
    }
    let last = noting(&store, 9999);
    store.close().await;
    let answered = last.await.unwrap().is_ok();
    assert_eq!(noted(&store).contains(&9999), answered);
}

/// The sync after a failed one may succeed, and say nothing about what the failed one should have brought to the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_sync_that_failed_nobody_is_told_that_anything_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    note(&store, 1).await.unwrap();
    slow.hold(true);
    let waiting = noting(&store, 2);
    slow.began(2).await;
    let next = noting(&store, 3);
    a_while().await;
    slow.broken.store(true, Ordering::SeqCst);
    slow.hold(false);
    let error = waiting.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("may not be on the disk: unplugged") && error.contains("start again"), "{error}");
    next.await.unwrap().unwrap_err();
    slow.broken.store(false, Ordering::SeqCst);
    assert_eq!(note(&store, 4).await.unwrap_err().to_string(), error);
    // What is read might be what the disk does not have.
    assert!(store.incarnation().await.is_err() && store.list_clients(None).await.is_err());
    assert_eq!(noted(&store), [1, 2]);
    store.close().await;
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    note(&store, 5).await.unwrap();
    assert_eq!(noted(&store), [1, 2, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_closes_the_store_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::default();
    let store = slow.open(folder.path());
    slow.hold(true);
    let first = noting(&store, 1);
    slow.began(1).await;
    let second = noting(&store, 2);
    a_while().await;
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    a_while().await;
    assert!(!closing.is_finished() && !first.is_finished());
    slow.hold(false);
    closing.await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(noted(&store), [1, 2]);
}

/// The log stands beside the file itself.
#[cfg(unix)]
#[tokio::test]
async fn a_name_that_is_a_symbolic_link_leads_to_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = SqliteStore::open(&file).await.unwrap();
    run(&store, NOTED);
    store.close().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let store = SqliteStore::open(&link).await.unwrap();
    note(&store, 1).await.unwrap();
    assert_eq!(noted(&store), [1]);
    assert_eq!(beside(&store).path().unwrap(), store.path().to_str().unwrap());
    assert!(log_of(&file).exists() && !log_of(&link).exists());
}
