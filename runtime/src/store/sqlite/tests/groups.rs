//! Transactions that are committed together.

use std::time::Duration;

use mcp_authz::authorization_server::test_kit::Seen;
use mcp_authz::secret::SecretDigest;

use super::super::driver::{Get as _, query};
use super::super::{Locks, SqliteStore, Turn};
use super::{NOTED, beside, give_up, hold, note, noted, number, run};
use crate::store::kit::{self, Path};
use crate::store::{AdministeredStore as _, StoreError, WAITING};

/// Five approvals and redemptions wait together, and one of them fails: it alone has not happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_transactions_that_are_committed_together_one_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON grants WHEN new.client_id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END";
    run(&store, fail);
    let mut paths = Vec::new();
    for name in ["a", "b", "bad", "c", "d"] {
        let path = Path::fresh(name, now).unwrap();
        path.ask(&store).await.unwrap();
        path.approve(&store, path.agent, "ada").await.unwrap();
        paths.push((name, path));
    }
    // All of them queue up behind this one.
    let held = hold(&store).await;
    let mut waiting = Vec::new();
    for (name, path) in &paths {
        let (store, path) = (store.clone(), path.clone());
        waiting.push((*name, tokio::spawn(async move { path.redeem(&store, path.refresh).await.ok() })));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    held.release();
    for (name, redeemed) in waiting {
        let expected = (name != "bad").then_some(Seen::Live(()));
        assert_eq!(redeemed.await.unwrap(), expected, "{name}");
    }
    assert_eq!(number(&store, "SELECT count(*) FROM grants"), 4);
    assert_eq!(number(&store, "SELECT count(*) FROM codes WHERE spent"), 4);
    assert_eq!(number(&store, "SELECT count(*) FROM refresh_tokens"), 4);
}

/// A failure after which SQLite has rolled back the whole group: nobody of it is told that it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_rolled_back_with_another_is_answered_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON grants WHEN new.client_id = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no'); END";
    run(&store, fail);
    for order in [["a", "bad", "b", "c"], ["bad", "d", "e", "f"], ["g", "h", "i", "bad"]] {
        let mut paths = Vec::new();
        for name in order {
            let path = Path::fresh(name, now).unwrap();
            path.ask(&store).await.unwrap();
            path.approve(&store, path.agent, "ada").await.unwrap();
            paths.push(path);
        }
        let held = hold(&store).await;
        let mut waiting = Vec::new();
        for path in paths.clone() {
            let store = store.clone();
            waiting.push(tokio::spawn(async move { path.redeem(&store, path.refresh).await.ok() }));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        held.release();
        for (path, redeemed) in paths.iter().zip(waiting) {
            let redeemed = redeemed.await.unwrap();
            let live = matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_));
            assert!(live || redeemed.is_none(), "{order:?}: told that what is lost was stored");
        }
        // The store goes on.
        for path in paths.iter().filter(|path| path.grant.client_id.as_str() != "bad") {
            let mut again = path.clone();
            again.refresh = SecretDigest::of(path.code.as_bytes());
            assert!(matches!(
                again.redeem(&store, again.refresh).await.unwrap(),
                Seen::Live(()) | Seen::Used(())
            ));
        }
    }
}

/// What has changed nothing leaves the file's lock free for other processes.
#[tokio::test]
async fn an_answer_without_a_change_holds_no_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    assert!(kit::register(&store, "c1", now).await.unwrap());
    assert!(!kit::register(&store, "c1", now).await.unwrap());
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON clients BEGIN SELECT RAISE(ABORT, 'no'); END";
    run(&store, fail);
    assert!(kit::register(&store, "c2", now).await.is_err());
    run(&store, "DROP TRIGGER fail");
    assert!(kit::register(&store, "c2", now).await.unwrap());
}

/// Callers that stop waiting at any point of a transaction: whoever is answered well afterwards is stored, and nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_stops_waiting_takes_nobodys_commit_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    for number in 0..200 {
        give_up(note(&store, number), usize::try_from(number).unwrap() % 10).await;
        note(&store, 1000 + number).await.unwrap();
        assert!(noted(&store).contains(&(1000 + number)), "{number} was answered before it was stored");
    }
}

/// What waits for its turn is carried out, whoever has gone meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_caller_went_away_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    let held = hold(&store).await;
    give_up(path.redeem(&store, path.refresh), 1).await;
    assert_eq!(number(&store, "SELECT spent FROM codes"), 0);
    held.release();
    assert_eq!(path.redeem(&store, SecretDigest::of(b"again")).await.unwrap(), Seen::Used(()));
    assert!(matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_)));
}

/// Nobody else of the group notices, and the thread goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_panic_in_a_transaction_ends_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    let panics = async |turn: Turn, number: i64| -> Result<(), StoreError> {
        let (mut writing, _) = turn.write(Locks::NONE).await?;
        query("INSERT INTO noted VALUES ($1)").bind(number).execute(&mut *writing).await?;
        writing.commit().await?;
        panic!("as if the program had a bug");
    };
    let held = hold(&store).await;
    let (before, after) = (note(&store, 1), note(&store, 3));
    let all = async { tokio::join!(before, store.carry_out(2, panics), after) };
    let releasing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        held.release();
    };
    let ((before, panicked, after), ()) = tokio::join!(all, releasing);
    assert!(before.is_ok() && after.is_ok());
    let error = panicked.unwrap_err();
    assert!(error.to_string().contains("without an answer"), "{error}");
    note(&store, 4).await.unwrap();
    assert_eq!(noted(&store), [1, 3, 4]);
    // Nor one that only reads.
    let panics = async |_: Turn, ()| -> Result<(), StoreError> { panic!("as if the program had a bug") };
    assert!(store.list((), panics).await.is_err());
    assert_eq!(store.incarnation().await.unwrap(), 0);
}

/// The commit of a group fails: nobody of it is told that it is stored, nor what only the group has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_that_fails_is_answered_to_each_of_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    run(&store, "CREATE TABLE child (number INTEGER REFERENCES noted DEFERRABLE INITIALLY DEFERRED) STRICT");
    let checked = async |turn: Turn, ()| {
        for sql in ["RELEASE one", "COMMIT", "PRAGMA foreign_keys = ON", "BEGIN", "SAVEPOINT one"] {
            turn.connection.run(sql)?;
        }
        Ok(())
    };
    store.carry_out((), checked).await.unwrap();
    let look = async |turn: Turn, ()| {
        let (mut writing, _) = turn.write(Locks::NONE).await?;
        let seen =
            query("SELECT count(*) FROM noted").fetch_one(&mut *writing).await?.try_get::<i64, _>(0)?;
        writing.unchanged(seen).await
    };
    let orphan = async |turn: Turn, ()| {
        let (mut writing, _) = turn.write(Locks::NONE).await?;
        query("INSERT INTO child VALUES (99)").execute(&mut *writing).await?;
        writing.commit().await
    };
    let held = hold(&store).await;
    let all = async { tokio::join!(note(&store, 1), store.carry_out((), look), store.carry_out((), orphan)) };
    let releasing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        held.release();
    };
    let ((stored, seen, orphan), ()) = tokio::join!(all, releasing);
    assert!(stored.is_err() && seen.is_err() && orphan.is_err(), "{stored:?} {seen:?} {orphan:?}");
    assert!(noted(&store).is_empty());
    note(&store, 2).await.unwrap();
    assert_eq!(store.carry_out((), look).await.unwrap(), 1);
}

/// A caller that stops waiting keeps other processes from writing no longer than its transaction takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_caller_that_stops_waiting_leaves_the_file_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let other = beside(&store);
    run(&store, NOTED);
    other.busy_timeout(Duration::from_secs(2)).unwrap();
    for looks in 0..20 {
        give_up(note(&store, i64::try_from(looks).unwrap()), looks % 6).await;
        other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").expect("the file is free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_that_writes_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    let other = beside(&store);
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO noted VALUES (1)").unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { note(&store, 2).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    // Whoever only reads does not wait.
    assert_eq!(store.incarnation().await.unwrap(), 0);
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(noted(&store), [1, 2]);
}

/// Who waits for a file that another process has is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_cannot_begin_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    let impatient = async |turn: Turn, ()| {
        query("PRAGMA busy_timeout = 50").fetch_one(&mut turn.connection.clone()).await?;
        Ok(())
    };
    store.carry_out((), impatient).await.unwrap();
    let other = beside(&store);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (first, second) = tokio::join!(note(&store, 1), note(&store, 2));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.to_string().contains("database is locked"), "{error}");
    }
    other.execute_batch("COMMIT").unwrap();
    note(&store, 3).await.unwrap();
    assert_eq!(noted(&store), [3]);
}

/// A disk that is slower than those who ask: as many wait as there is room for, and nobody beyond.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_comes_when_too_many_wait_is_told_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    run(&store, NOTED);
    let held = hold(&store).await;
    let asking: Vec<_> = (0..i64::try_from(WAITING).unwrap() + 50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { (number, note(&store, number).await) })
        })
        .collect();
    let early = async {
        while asking.iter().filter(|asked| asked.is_finished()).count() < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), early).await.expect("nobody is told");
    held.release();
    let mut stored = Vec::new();
    for asked in asking {
        match asked.await.unwrap() {
            (number, Ok(())) => stored.push(number),
            (_, Err(error)) => assert!(matches!(&error, StoreError::Busy), "{error}"),
        }
    }
    assert_eq!(stored.len(), WAITING);
    assert_eq!(noted(&store), stored);
    note(&store, -1).await.unwrap();
}
