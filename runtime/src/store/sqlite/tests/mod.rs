use std::sync::Arc;
use std::time::Duration;

use super::driver::{Get as _, query};
use super::{SqliteStore, Turn};
use crate::store::kit::{self, Path};
use crate::store::{Store as _, StoreError};
use mcp_authz::authorization_server::test_kit::Seen;
use mcp_authz::secret::{AuthorizationCode, RefreshToken, SecretDigest};

mod disk;
mod groups;
mod opening;
mod reading;

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

/// Set for a process whose files may not grow: the store's file.
#[cfg(unix)]
const LIMITED: &str = "MCP_AUTHZ_LIMITED_FILE";

/// In such a process, the store's file.
#[cfg(unix)]
fn limited() -> Option<std::ffi::OsString> {
    std::env::var_os(LIMITED)
}

/// Runs the test of that name as a process that cannot write into a file beyond so many bytes: a disk that fails at one place.
#[cfg(unix)]
fn again_with_files_of(bytes: u64, test: &str, file: &std::path::Path) {
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; exec \"$0\" --exact \"$2\""])
        .arg(std::env::current_exe().unwrap())
        .args([(bytes / 512).to_string(), format!("store::sqlite::tests::{test}")])
        .env(LIMITED, file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const NOTED: &str = "CREATE TABLE noted (number INTEGER PRIMARY KEY) STRICT";

/// The numbers that were noted, as another connection sees them.
fn noted(store: &SqliteStore) -> Vec<i64> {
    numbers(&beside(store))
}

fn numbers(connection: &rusqlite::Connection) -> Vec<i64> {
    let mut numbers = connection.prepare("SELECT number FROM noted ORDER BY number").unwrap();
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
async fn the_log_is_kept_and_reads_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db")).await.unwrap();
    let asked = async |turn: Turn, ()| {
        let mut connection = turn.connection.clone();
        let mode = query("PRAGMA journal_mode").fetch_one(&mut connection).await?.try_get::<String, _>(0)?;
        let mut settings = Vec::new();
        for setting in ["PRAGMA synchronous", "PRAGMA wal_autocheckpoint", "PRAGMA journal_size_limit"] {
            settings.push(query(setting).fetch_one(&mut connection).await?.try_get::<i64, _>(0)?);
        }
        Ok((mode, settings))
    };
    // 1 is NORMAL: checkpoints wait for the disk, and for commits `disk.rs` does. Checkpoints are the writer's.
    let expected = ("wal".to_owned(), vec![1, 0, 64 << 20]);
    assert_eq!(store.carry_out((), asked).await.unwrap(), expected);
    let deleting = async |turn: Turn, ()| {
        query("DELETE FROM clients").execute(&mut turn.connection.clone()).await?;
        Ok(())
    };
    assert!(store.read((), deleting).await.is_err());
    assert!(store.list((), deleting).await.is_err());
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
        "INSERT INTO decisions SELECT CAST('k' || i AS BLOB), 'ada', 'c', x'', i, x'' FROM n;",
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
    // I-T1: of two tokens that are not retired the newest is the leaf; a leaf of another generation is none to rotate.
    let twice = "INSERT INTO refresh_tokens SELECT x'01', family, 7, NULL, NULL, 0, not_after, record FROM refresh_tokens";
    run(&store, twice);
    let successor = SecretDigest::of(b"successor");
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Used(()));
    run(&store, "DELETE FROM refresh_tokens WHERE digest = x'01'");
    // I-T3: a successor that is retired itself is none to hand out again.
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Live(()));
    assert_eq!(path.repeat(&store, successor, 9).await.unwrap(), Seen::Live(()));
    run(&store, "UPDATE refresh_tokens SET retired = 1, request = digest WHERE generation = 1");
    assert_eq!(path.repeat(&store, successor, 9).await.unwrap(), Seen::Used(()));
    run(&store, "DELETE FROM refresh_tokens WHERE generation = 1");
    run(&store, "UPDATE refresh_tokens SET generation = 5");
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Absent);
    run(&store, "UPDATE refresh_tokens SET record = x'7b7d'");
    let error = kit::refresh(&store, path.refresh).await.unwrap_err();
    assert!(matches!(error, kit::KitError::Store(StoreError::Corrupt(_))), "{error}");
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
