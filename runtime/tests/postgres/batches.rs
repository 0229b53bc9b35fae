//! Callers who are served together, by one store.

use std::sync::Arc;

use mcp_authz::authorization_server::test_kit::Seen;
use mcp_authz::secret::SecretDigest;
use mcp_authz_tokio::store::kit::{self, Path};
use mcp_authz_tokio::store::postgres::PostgresStore;
use tokio::task::JoinHandle;

use super::server::Server;
use super::{number, store};

type Attempt = JoinHandle<Option<Seen<()>>>;

/// Paths with a code to redeem.
async fn approved(store: &PostgresStore, many: usize) -> Vec<Path> {
    let now = kit::clock(store).await.unwrap();
    let mut paths = Vec::new();
    for _ in 0..many {
        let path = Path::fresh("c1", now).unwrap();
        path.ask(store).await.unwrap();
        path.approve(store, path.agent, &path.grant.subject).await.unwrap();
        paths.push(path);
    }
    paths
}

fn redeeming(store: &Arc<PostgresStore>, path: &Path) -> Attempt {
    let (store, path) = (Arc::clone(store), path.clone());
    tokio::spawn(async move { path.redeem(&*store, path.refresh).await.ok() })
}

fn rotating(store: &Arc<PostgresStore>, path: &Path, next: SecretDigest) -> Attempt {
    let (store, path) = (Arc::clone(store), path.clone());
    tokio::spawn(async move { path.rotate(&*store, path.refresh, 0, next).await.ok() })
}

// I-C1, I-T1: twenty who want the same code, or to rotate the same token, come together with others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_those_who_are_served_together_wins() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    for round in 0..5_u8 {
        let mut others = approved(&store, 20).await;
        let mut wanted = others.pop().unwrap();
        let mut race = Vec::new();
        for (n, other) in (0_u8..).zip(&others) {
            let mut path = wanted.clone();
            path.refresh = SecretDigest::of(&[round, n]);
            race.push((path.refresh, redeeming(&store, &path), redeeming(&store, other)));
        }
        let mut won = Vec::new();
        for (refresh, attempt, other) in race {
            assert_eq!(other.await.unwrap(), Some(Seen::Live(())));
            match attempt.await.unwrap().unwrap() {
                Seen::Live(()) => won.push(refresh),
                lost => assert_eq!(lost, Seen::Used(())),
            }
        }
        assert_eq!(won.len(), 1);
        wanted.refresh = won.pop().unwrap();
        let race: Vec<_> = (0..20_u8)
            .map(|n| {
                let other = others
                    .get(usize::from(n))
                    .map(|other| rotating(&store, other, SecretDigest::of(&[round, n, 1])));
                (rotating(&store, &wanted, SecretDigest::of(&[round, n, 2])), other)
            })
            .collect();
        let mut won = 0;
        for (attempt, other) in race {
            if let Some(other) = other {
                assert_eq!(other.await.unwrap(), Some(Seen::Live(())));
            }
            match attempt.await.unwrap().unwrap() {
                Seen::Live(()) => won += 1,
                lost => assert_eq!(lost, Seen::Used(())),
            }
        }
        assert_eq!(won, 1);
    }
}

// I-G9: what cannot be done for one is done for the others, and leaves nothing of that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_fails_takes_nobody_with_it() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    let mut paths = approved(&store, 20).await;
    // Two tokens that are the same: the database refuses whoever comes second.
    paths[7].refresh = paths[6].refresh;
    let race: Vec<_> = paths.iter().map(|path| redeeming(&store, path)).collect();
    let mut failed = Vec::new();
    for (path, attempt) in paths.iter().zip(race) {
        match attempt.await.unwrap() {
            Some(seen) => assert_eq!(seen, Seen::Live(())),
            None => failed.push(path.clone()),
        }
    }
    assert_eq!(failed.len(), 1);
    let mut admin = server.connect(&database).await.unwrap();
    assert_eq!(number(&mut admin, "SELECT count(*) FROM grants").await, 19);
    let mut again = failed.pop().unwrap();
    again.refresh = SecretDigest::of(b"another");
    assert_eq!(again.redeem(&*store, again.refresh).await.unwrap(), Seen::Live(()));
}

// I-T4: whatever comes together with a revocation of its family, nothing of the family is left once that has been answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_outlives_a_revocation_that_comes_in_between() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    for _ in 0..5 {
        let paths = approved(&store, 20).await;
        let race: Vec<_> = paths
            .iter()
            .map(|path| {
                let attempt = redeeming(&store, path);
                let (store, path) = (Arc::clone(&store), path.clone());
                (attempt, tokio::spawn(async move { path.revoke(&*store).await.unwrap() }))
            })
            .collect();
        for (path, (attempt, revocation)) in paths.iter().zip(race) {
            revocation.await.unwrap();
            assert_eq!(kit::refresh(&*store, path.refresh).await.unwrap(), Seen::Absent);
            attempt.await.unwrap().unwrap();
            assert_eq!(kit::refresh(&*store, path.refresh).await.unwrap(), Seen::Absent);
        }
    }
}

// A caller that goes away takes nobody with it, and a transaction that holds a family delays no other for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_those_who_went_away_or_wait_for_a_lock() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    let paths = approved(&store, 20).await;
    // As a transaction of another process would: the locks of all that the first asks for.
    let first = redeeming(&store, &paths[0]);
    assert_eq!(first.await.unwrap(), Some(Seen::Live(())));
    let mut admin = server.connect(&database).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut admin).await.unwrap();
    sqlx::query("SELECT 1 FROM refresh_tokens WHERE digest = $1 FOR UPDATE")
        .bind(paths[0].refresh.as_bytes().as_slice())
        .execute(&mut admin)
        .await
        .unwrap();
    let held = rotating(&store, &paths[0], SecretDigest::of(b"held"));
    let race: Vec<_> = paths[1..].iter().map(|path| redeeming(&store, path)).collect();
    for attempt in &race[..5] {
        attempt.abort();
    }
    let mut others = Vec::new();
    for (path, attempt) in paths[1..].iter().zip(race).skip(5) {
        assert_eq!(attempt.await.unwrap(), Some(Seen::Live(())));
        others.push(rotating(&store, path, SecretDigest::of(path.refresh.as_bytes())));
    }
    for other in others {
        assert_eq!(other.await.unwrap(), Some(Seen::Live(())));
    }
    assert!(!held.is_finished());
    sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
    assert_eq!(held.await.unwrap(), Some(Seen::Live(())));
}

// The tables are found where they were made, by whoever calls.
#[tokio::test]
async fn the_functions_look_nowhere_else() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let _store = store(&server, &database).await;
    let mut admin = server.connect(&database).await.unwrap();
    let loose = "SELECT count(*) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace \
        WHERE n.nspname = 'public' AND NOT 'search_path=public, pg_temp' = ANY (COALESCE(proconfig, '{}'))";
    assert_eq!(number(&mut admin, loose).await, 0);
    assert!(number(&mut admin, "SELECT count(*) FROM pg_proc WHERE proname = 'redeem_codes'").await == 1);
}

// What one of them asks for makes no sense: the others have their answers, in the same call.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_makes_no_sense_fails_its_own_reader_only() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    let paths = approved(&store, 20).await;
    for path in &paths {
        assert_eq!(path.redeem(&*store, path.refresh).await.unwrap(), Seen::Live(()));
    }
    let mut admin = server.connect(&database).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO epochs (kind, subject, client_id, epoch, looked_at) VALUES (2, 'nobody', '', -1, 0)",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    sqlx::query("UPDATE grants SET subject = 'nobody' WHERE family = $1")
        .bind(paths[10].grant.family.as_bytes().as_slice())
        .execute(&mut admin)
        .await
        .unwrap();
    let reading = |path: &Path| {
        let (store, refresh) = (Arc::clone(&store), path.refresh);
        tokio::spawn(async move { kit::refresh(&*store, refresh).await.is_ok() })
    };
    let all: Vec<_> = paths.iter().map(reading).collect();
    for (path, read) in paths.iter().zip(all) {
        assert_eq!(read.await.unwrap(), path.refresh != paths[10].refresh);
    }
}

// An answer that nobody asked for may belong to somebody who did, and then all after it are others'.
#[tokio::test]
async fn an_answer_with_more_than_was_asked_for_is_none() {
    let server = Server::start().await;
    let database = server.database(None).await;
    store(&server, &database).await.close().await;
    let mut admin = server.connect(&database).await.unwrap();
    sqlx::raw_sql("ALTER FUNCTION read_rows RENAME TO rows_read").execute(&mut admin).await.unwrap();
    let arrays = [
        ("records", "BYTEA"),
        ("beside", "BYTEA"),
        ("client_epochs", "BIGINT"),
        ("subject_epochs", "BIGINT"),
        ("consent_epochs", "BIGINT"),
        ("spent", "BOOLEAN"),
        ("standing", "BOOLEAN"),
        ("generation", "BIGINT"),
        ("retired", "BIGINT"),
        ("request", "BYTEA"),
        ("repeats", "BIGINT"),
        ("leaf", "BIGINT"),
        ("until", "BIGINT"),
        ("person_epochs", "BIGINT"),
    ];
    for longer in [None].into_iter().chain((0..arrays.len()).map(Some)) {
        let (mut gives, mut selects) = (String::new(), String::new());
        for (place, (name, of)) in arrays.iter().enumerate() {
            gives += &format!(", OUT {name} {of}[]");
            let array = format!("r.{name}");
            selects += ", ";
            selects += &if longer == Some(place) { format!("array_append({array}, NULL)") } else { array };
        }
        let sql = format!(
            "CREATE OR REPLACE FUNCTION read_rows(TEXT[], BYTEA[], BYTEA[], BYTEA[], BYTEA[], BYTEA[], TEXT[], \
             OUT now BIGINT{gives}) RETURNS RECORD LANGUAGE sql STABLE \
             AS 'SELECT r.now{selects} FROM rows_read($1, $2, $3, $4, $5, $6, $7) AS r'"
        );
        sqlx::raw_sql(&sql).execute(&mut admin).await.unwrap();
        // Its connections have no plan of the function before.
        let store = store(&server, &database).await;
        let read = kit::refresh(&store, SecretDigest::of(b"nobody's")).await;
        match longer {
            None => assert_eq!(read.unwrap(), Seen::Absent),
            Some(place) => {
                let error = read.expect_err(arrays[place].0).to_string();
                assert!(error.contains("contradict each other"), "{error}");
            }
        }
    }
}

/// A database that is slower than those who ask: as many wait as there is room for, and nobody beyond.
#[tokio::test]
async fn who_comes_when_too_many_wait_is_told_to_try_again() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    // On one thread all of them have asked before the first is served.
    let asking: Vec<_> = (0..5000)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { kit::refresh(&*store, SecretDigest::of(b"nobody's")).await })
        })
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for asked in asking {
        match asked.await.unwrap() {
            Ok(found) => {
                assert_eq!(found, Seen::Absent);
                answered += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("try again"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((answered, refused), (4096, 904));
    assert_eq!(kit::refresh(&*store, SecretDigest::of(b"nobody's")).await.unwrap(), Seen::Absent);
}

// I-T1: rows that contradict each other mint nothing.
#[tokio::test]
async fn of_two_tokens_that_are_not_retired_the_newest_is_the_leaf() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = store(&server, &database).await;
    let path = approved(&store, 1).await.pop().unwrap();
    path.redeem(&store, path.refresh).await.unwrap();
    let twice = "INSERT INTO refresh_tokens SELECT '\\x01', family, 7, NULL, NULL, 0, not_after, record FROM refresh_tokens";
    let mut admin = server.connect(&database).await.unwrap();
    sqlx::raw_sql(twice).execute(&mut admin).await.unwrap();
    let successor = SecretDigest::of(b"successor");
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Used(()));
    sqlx::raw_sql("DELETE FROM refresh_tokens WHERE generation = 7").execute(&mut admin).await.unwrap();
    assert_eq!(path.rotate(&store, path.refresh, 0, successor).await.unwrap(), Seen::Live(()));
    // I-T3: a successor that is retired itself is none to hand out again.
    assert_eq!(path.repeat(&store, successor, 9).await.unwrap(), Seen::Live(()));
    let retired = "UPDATE refresh_tokens SET retired = 1, request = digest WHERE generation = 1";
    sqlx::raw_sql(retired).execute(&mut admin).await.unwrap();
    assert_eq!(path.repeat(&store, successor, 9).await.unwrap(), Seen::Used(()));
}
