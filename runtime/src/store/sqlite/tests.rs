use std::sync::Arc;
use std::time::Duration;

use super::driver::{Get as _, query};
use super::{OpenError, SqliteStore, Turn};
use crate::store::kit::{self, Path};
use crate::store::{AdministeredStore as _, Store as _, StoreError};
use mcp_authz::authorization_server::test_kit::Seen;
use mcp_authz::secret::{AuthorizationCode, RefreshToken, SecretDigest};

/// Another connection to the store's file, as another program's.
fn beside(store: &SqliteStore) -> rusqlite::Connection {
    rusqlite::Connection::open(store.path()).unwrap()
}

fn number(store: &SqliteStore, sql: &str) -> i64 {
    beside(store).query_row(sql, (), |row| row.get(0)).unwrap()
}

fn run(store: &SqliteStore, sql: &str) {
    beside(store).execute_batch(sql).unwrap();
}

/// Keeps the thread that writes busy until it is dropped.
struct Held(std::sync::mpsc::Sender<()>);

impl Held {
    fn release(self) {
        drop(self.0);
    }
}

async fn hold(store: &SqliteStore) -> Held {
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let (began, beginning) = tokio::sync::oneshot::channel();
    let store = store.clone();
    tokio::spawn(async move {
        let job = move |turn: Turn, ()| async move {
            began.send(()).unwrap();
            let _ = ended.recv();
            turn.write(super::Locks::NONE).await?.0.unchanged(()).await
        };
        store.carry_out((), job).await
    });
    beginning.await.unwrap();
    Held(sender)
}

/// Notes a number, in a table of the tests.
async fn note(store: &SqliteStore, number: i64) -> Result<(), StoreError> {
    let job = async |turn: Turn, number: i64| {
        let (mut writing, _) = turn.write(super::Locks::NONE).await?;
        query("INSERT INTO noted VALUES ($1)").bind(number).execute(&mut *writing).await?;
        writing.commit().await
    };
    store.carry_out(number, job).await
}

const NOTED: &str = "CREATE TABLE noted (number INTEGER PRIMARY KEY) STRICT";

/// The numbers that were noted, as another connection sees them.
fn noted(store: &SqliteStore) -> Vec<i64> {
    let other = beside(store);
    let mut numbers = other.prepare("SELECT number FROM noted ORDER BY number").unwrap();
    numbers.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    kit::run_administered(|| {
        let file = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let path = folder.path().join(file);
        async { SqliteStore::open(path).await.unwrap() }
    })
    .await
    .unwrap();
}

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
async fn commits_are_durable_and_reads_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let asked = async |turn: Turn, ()| {
        let mut connection = turn.connection.clone();
        let synchronous =
            query("PRAGMA synchronous").fetch_one(&mut connection).await?.try_get::<i64, _>(0)?;
        let mode = query("PRAGMA journal_mode").fetch_one(&mut connection).await?.try_get::<String, _>(0)?;
        Ok((synchronous, mode))
    };
    // 2 is FULL.
    assert_eq!(store.carry_out((), asked).await.unwrap(), (2, "wal".to_owned()));
    let deleting = async |turn: Turn, ()| {
        query("DELETE FROM clients").execute(&mut turn.connection.clone()).await?;
        Ok(())
    };
    assert!(store.read((), deleting).await.is_err());
    assert!(store.list((), deleting).await.is_err());
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

/// Each of the stores has connections of its own, as a process of its own would.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_between_processes_has_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(Arc::new(SqliteStore::open(&file).await.unwrap()));
    }
    let path = Path::fresh("c1", kit::clock(&stores[0]).await.unwrap()).unwrap();
    path.ask(&stores[0]).await.unwrap();
    path.approve(&stores[1], path.agent, &path.grant.subject).await.unwrap();
    let race: Vec<_> = (0..20_u8)
        .map(|n| {
            let (store, path) = (Arc::clone(&stores[usize::from(n) % 4]), path.clone());
            tokio::spawn(async move { path.redeem(&store, SecretDigest::of(&[n])).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for attempt in race {
        match attempt.await.unwrap() {
            Seen::Live(()) => won += 1,
            other => assert_eq!(other, Seen::Used(())),
        }
    }
    assert_eq!(won, 1);
}

// I-G7
#[tokio::test]
async fn a_restart_keeps_everything_and_the_file_has_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let (code, token) = ("canary-code-5b8f", "canary-token-91aa");
    let store = SqliteStore::open(&file).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    let mut path = Path::fresh("c1", now).unwrap();
    path.code = AuthorizationCode::new(code).unwrap().digest();
    path.refresh = RefreshToken::new(token).unwrap().digest();
    let (pending, revoked) = (Path::fresh("c1", now).unwrap(), Path::fresh("c1", now).unwrap());
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    path.redeem(&store, path.refresh).await.unwrap();
    pending.ask(&store).await.unwrap();
    revoked.ask(&store).await.unwrap();
    revoked.approve(&store, revoked.agent, "ada").await.unwrap();
    revoked.revoke(&store).await.unwrap();
    // The files as a thief would find them: the writes are still in the log.
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let mut files = [read("store.db"), read("store.db-wal")].concat();
    store.close().await;
    files.extend(read("store.db"));
    let has = |needle: &[u8]| files.windows(needle.len()).any(|window| window == needle);
    assert!(!has(code.as_bytes()) && !has(token.as_bytes()));
    assert!(has(path.code.as_bytes()) && has(path.refresh.as_bytes()));

    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(path.redeem(&store, SecretDigest::of(b"x")).await.unwrap(), Seen::Used(()));
    assert!(matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_)));
    assert_eq!(revoked.redeem(&store, revoked.refresh).await.unwrap(), Seen::Revoked);
    let decided = pending.approve(&store, pending.agent, "ada").await.unwrap();
    assert_eq!(decided, mcp_authz::authorization_server::test_kit::Decided::Stored);
}

// I-G9: whichever write fails, none is left.
#[tokio::test]
async fn a_failure_between_two_writes_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    let fail = |event: &str| {
        let sql = format!("CREATE TRIGGER fail BEFORE {event} BEGIN SELECT RAISE(ABORT, 'full'); END");
        run(&store, &sql);
    };
    let mend = || run(&store, "DROP TRIGGER fail");

    let path = Path::fresh("c1", now).unwrap();
    fail("INSERT ON decisions");
    assert!(path.ask(&store).await.is_err());
    mend();
    assert_eq!(number(&store, "SELECT count(*) FROM decisions"), 0);
    path.ask(&store).await.unwrap();
    for event in ["INSERT ON codes", "DELETE ON decisions"] {
        fail(event);
        assert!(path.approve(&store, path.agent, "ada").await.is_err(), "{event}");
        mend();
        assert_eq!(number(&store, "SELECT count(*) FROM decisions"), 1, "{event}");
        assert_eq!(number(&store, "SELECT count(*) FROM codes"), 0, "{event}");
    }
    path.approve(&store, path.agent, "ada").await.unwrap();
    for event in
        ["UPDATE ON codes", "INSERT ON grants", "INSERT ON refresh_tokens", "INSERT ON access_tokens"]
    {
        fail(event);
        assert!(path.redeem(&store, path.refresh).await.is_err(), "{event}");
        mend();
        assert_eq!(number(&store, "SELECT spent FROM codes"), 0, "{event}");
        assert_eq!(number(&store, "SELECT count(*) FROM grants"), 0, "{event}");
        assert_eq!(number(&store, "SELECT count(*) FROM refresh_tokens"), 0, "{event}");
    }
    assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Live(()));
    let successor = SecretDigest::of(b"successor");
    for event in ["UPDATE ON refresh_tokens", "INSERT ON refresh_tokens"] {
        fail(event);
        assert!(path.rotate(&store, path.refresh, 0, successor).await.is_err(), "{event}");
        mend();
        assert!(matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_)), "{event}");
        assert_eq!(kit::refresh(&store, successor).await.unwrap(), Seen::Absent, "{event}");
    }
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Live(()));
}

/// A host drops the future when a peer hangs up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_redemption_happened_wholly_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    for microseconds in (0..40).map(|step| step * 50) {
        let path = Path::fresh("c1", now).unwrap();
        path.ask(&store).await.unwrap();
        path.approve(&store, path.agent, "ada").await.unwrap();
        let redeem = path.redeem(&store, path.refresh);
        let _elapsed = tokio::time::timeout(Duration::from_micros(microseconds), redeem).await;
        let second = SecretDigest::of(path.code.as_bytes());
        let again = path.redeem(&store, second).await.unwrap();
        let first = matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_));
        assert_eq!(again, if first { Seen::Used(()) } else { Seen::Live(()) });
    }
}

// I-P7
#[tokio::test]
async fn the_store_in_a_file_keeps_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    kit::run_bounded(|bounds| {
        let file = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let path = folder.path().join(file);
        async move { SqliteStore::open(path).await.unwrap().bounds(bounds) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_sweep_goes_on_after_its_first_batch() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700) ";
    let full = [
        numbers,
        "INSERT INTO decisions SELECT CAST('k' || i AS BLOB), 'ada', 'c', i, x'' FROM n;",
        numbers,
        "INSERT INTO clients SELECT 'u' || i, 1, i, NULL, x'', x'' FROM n;",
        "INSERT INTO clients VALUES ('operator', 0, 0, NULL, x'', x''), ('used', 1, 0, 1, x'', x'')",
    ];
    run(&store, &full.concat());
    Path::fresh("c1", now).unwrap().ask(&store).await.unwrap();
    kit::register(&store, "c1", now).await.unwrap();
    store.sweep().await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM decisions"), 1);
    assert_eq!(number(&store, "SELECT count(*) FROM clients WHERE origin <> 0"), 1);
    assert_eq!(number(&store, "SELECT count(*) FROM clients WHERE origin = 0"), 1);
}

#[tokio::test]
async fn rows_that_contradict_each_other_mint_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    // A grant that nobody redeemed.
    run(&store, "INSERT INTO grants SELECT family, client_id, subject, not_after, record FROM codes");
    assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Revoked);
    run(&store, "DELETE FROM grants");
    path.redeem(&store, path.refresh).await.unwrap();
    // Two live tokens cannot be stored; a leaf of another generation is none to rotate.
    let twice = "INSERT INTO refresh_tokens SELECT x'01', family, 7, NULL, NULL, 0, not_after, record FROM refresh_tokens";
    assert!(beside(&store).execute_batch(twice).is_err());
    run(&store, "UPDATE refresh_tokens SET generation = 5");
    let successor = SecretDigest::of(b"successor");
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Absent);
    run(&store, "UPDATE refresh_tokens SET record = x'7b7d'");
    let error = kit::refresh(&store, path.refresh).await.unwrap_err();
    assert!(matches!(error, kit::KitError::Store(StoreError::Corrupt(_))), "{error}");
}

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

/// Gives a future up after so many looks at it.
async fn give_up(future: impl Future, looks: usize) {
    let mut given_up = Box::pin(future);
    for _ in 0..looks {
        let look = |context: &mut std::task::Context<'_>| {
            std::task::Poll::Ready(given_up.as_mut().poll(context).is_ready())
        };
        if std::future::poll_fn(look).await {
            return;
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
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
        let (mut writing, _) = turn.write(super::Locks::NONE).await?;
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
        let (mut writing, _) = turn.write(super::Locks::NONE).await?;
        let seen =
            query("SELECT count(*) FROM noted").fetch_one(&mut *writing).await?.try_get::<i64, _>(0)?;
        writing.unchanged(seen).await
    };
    let orphan = async |turn: Turn, ()| {
        let (mut writing, _) = turn.write(super::Locks::NONE).await?;
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
