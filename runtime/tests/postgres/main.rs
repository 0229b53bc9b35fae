//! The PostgreSQL store on a server of its own. Without server binaries the target fails and says what to install.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mcp_authz::authorization_server::test_kit::{self as core, Decided, Seen};
use mcp_authz::secret::SecretDigest;
use mcp_authz_tokio::entropy::OsEntropy;
use mcp_authz_tokio::store::kit::{self, Path};
use mcp_authz_tokio::store::postgres::{OpenError, PostgresStore};
use mcp_authz_tokio::store::{AdministeredStore as _, Bounds, Store as _, StoreError};
use sqlx::{Executor as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod batches;
mod plans;
mod server;
mod settings;

use server::Server;

async fn store(server: &Server, database: &str) -> PostgresStore {
    PostgresStore::open(&server.url(database)).await.unwrap()
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_a_database_keeps_the_contract() {
    let server = Server::start().await;
    kit::run_administered(|| async {
        let database = server.database(None).await;
        store(&server, &database).await
    })
    .await
    .unwrap();
}

/// Each store has connections of its own, as a process of its own would; all start on an empty database at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_start_and_race_together_agree() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let url = server.url(&database);
            tokio::spawn(async move { PostgresStore::open(&url).await.unwrap() })
        })
        .collect();
    let mut stores = Vec::new();
    for opened in opening {
        stores.push(Arc::new(opened.await.unwrap()));
    }
    for round in 0..5_u8 {
        let path = Path::fresh("c1", kit::clock(&stores[0]).await.unwrap()).unwrap();
        path.ask(&stores[0]).await.unwrap();
        path.approve(&stores[1], path.agent, &path.grant.subject).await.unwrap();
        let race: Vec<_> = (0..20_u8)
            .map(|n| {
                let (store, mut path) = (Arc::clone(&stores[usize::from(n) % 4]), path.clone());
                path.refresh = SecretDigest::of(&[round, n]);
                tokio::spawn(async move { path.redeem(&store, path.refresh).await.unwrap() })
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
}

#[tokio::test]
async fn a_newer_database_is_refused_and_time_is_the_databases() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let opened = store(&server, &database).await;
    let mut connection = server.connect(&database).await.unwrap();
    let ours = kit::clock(&opened).await.unwrap();
    let theirs = number(&mut connection, "SELECT extract(epoch FROM clock_timestamp())::BIGINT").await;
    assert!((theirs - ours.unix_timestamp()).abs() <= 2);
    connection.execute("UPDATE mcp_authz_schema SET version = 99").await.unwrap();
    let error = PostgresStore::open(&server.url(&database)).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&database) && text.contains("99") && text.contains("run the program"), "{text}");
    assert!(matches!(PostgresStore::open("mysql://x").await.unwrap_err(), OpenError::Url));
    assert!(PostgresStore::open(&server.url("absent")).await.is_err());
}

/// Before the first release version 1 was another one, and did not say which.
#[tokio::test]
async fn a_database_whose_version_1_is_another_is_refused() {
    let server = Server::start().await;
    for other in
        ["UPDATE mcp_authz_schema SET digest = 'x'", "ALTER TABLE mcp_authz_schema DROP COLUMN digest"]
    {
        let database = server.database(None).await;
        store(&server, &database).await.close().await;
        server.connect(&database).await.unwrap().execute(other).await.unwrap();
        let error = PostgresStore::open(&server.url(&database)).await.unwrap_err();
        assert!(matches!(error, OpenError::Other { found: 1, .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&database) && text.contains("version 1") && text.contains("name a new"),
            "{text}"
        );
    }
}

// I-G9: whichever statement fails, none is left.
#[tokio::test]
async fn a_failure_at_any_statement_leaves_nothing_behind() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = store(&server, &database).await;
    let mut admin = server.connect(&database).await.unwrap();
    admin
        .execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$",
        )
        .await
        .unwrap();
    let now = kit::clock(&store).await.unwrap();
    let path = Path::fresh("c1", now).unwrap();
    let successor = SecretDigest::of(b"successor");
    kit::register(&store, "c1", now).await.unwrap();
    path.ask(&store).await.unwrap();
    let dump = "SELECT md5(string_agg(t, '|' ORDER BY t)) FROM (\
        SELECT decisions::text t FROM decisions UNION ALL SELECT codes::text FROM codes \
        UNION ALL SELECT grants::text FROM grants \
        UNION ALL SELECT refresh_tokens::text FROM refresh_tokens UNION ALL SELECT access_tokens::text FROM access_tokens \
        UNION ALL SELECT consents::text FROM consents UNION ALL SELECT clients::text FROM clients) all_rows";
    for step in 0..3 {
        let events: &[(&str, &str)] = match step {
            0 => &[("DELETE", "decisions"), ("INSERT", "codes"), ("INSERT", "consents")],
            1 => &[
                ("UPDATE", "codes"),
                ("INSERT", "grants"),
                ("INSERT", "refresh_tokens"),
                ("INSERT", "access_tokens"),
                ("UPDATE", "clients"),
            ],
            _ => &[("UPDATE", "refresh_tokens"), ("INSERT", "refresh_tokens"), ("INSERT", "access_tokens")],
        };
        let act = async || -> Result<bool, StoreError> {
            match step {
                0 => {
                    let code = core::sample_code(path.grant.clone()).unwrap();
                    let consent = core::sample_consent(&path.grant).unwrap();
                    let code = Some((path.code, code));
                    let action = core::decide_and_remember(
                        path.decision,
                        path.agent,
                        "ada",
                        code,
                        Some(consent),
                        &mut OsEntropy,
                    );
                    Ok(core::decided(&store.decide_once(action.unwrap()).await?) == Decided::Stored)
                }
                1 => {
                    let refresh = (path.refresh, core::sample_refresh(path.grant.clone(), 0));
                    let action = core::redeem_code(
                        path.code,
                        path.grant.clone(),
                        Some(refresh),
                        Some(path.access()),
                        &mut OsEntropy,
                    );
                    Ok(core::redemption(&store.redeem_code(action.unwrap()).await?) == Seen::Live(()))
                }
                _ => {
                    let to = (successor, core::sample_refresh(path.grant.clone(), 1));
                    let issued = (SecretDigest::of(b"access"), core::sample_access(path.grant.clone()));
                    let action =
                        core::rotate_refresh((path.refresh, 0), to, Some(issued), None, &mut OsEntropy);
                    Ok(core::rotation(&store.rotate_refresh(action.unwrap()).await?) == Seen::Live(()))
                }
            }
        };
        let before: Option<String> = sqlx::query_scalar(dump).fetch_one(&mut admin).await.unwrap();
        for (event, table) in events {
            let sql = format!("CREATE TRIGGER fail BEFORE {event} ON {table} EXECUTE FUNCTION fail()");
            admin.execute(sql.as_str()).await.unwrap();
            assert!(act().await.is_err(), "{event} {table}");
            admin.execute(format!("DROP TRIGGER fail ON {table}").as_str()).await.unwrap();
            let after: Option<String> = sqlx::query_scalar(dump).fetch_one(&mut admin).await.unwrap();
            assert_eq!(after, before, "{event} {table}");
        }
        assert!(act().await.unwrap(), "step {step}");
    }
}

// I-C1, I-G4: connections that die in the middle of a transaction mint nothing and lose nothing that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_is_cut_off_redeems_wholly_or_not_at_all() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    let now = kit::clock(&store).await.unwrap();
    let (cut, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (mut paths, mut answers) = (Vec::new(), Vec::new());
    // Until enough were hit in the middle of something.
    for _ in 0..100 {
        let first = paths.len();
        for _ in 0..40 {
            let path = Path::fresh("c1", now).unwrap();
            path.ask(&store).await.unwrap();
            path.approve(&store, path.agent, "ada").await.unwrap();
            paths.push(path);
        }
        done.store(false, Ordering::Relaxed);
        let killer = {
            let (cut, done) = (Arc::clone(&cut), Arc::clone(&done));
            let mut admin = server.connect(&database).await.unwrap();
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE application_name = 'mcp-authz' AND state <> 'idle'";
                    let hit = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut admin).await.unwrap();
                    cut.fetch_add(u64::try_from(hit).unwrap(), Ordering::Relaxed);
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            })
        };
        let redeeming: Vec<_> = paths[first..]
            .iter()
            .map(|path| {
                let (store, path) = (Arc::clone(&store), path.clone());
                tokio::spawn(async move { path.redeem(&store, path.refresh).await.ok() })
            })
            .collect();
        for redeemed in redeeming {
            answers.push(redeemed.await.unwrap());
        }
        done.store(true, Ordering::Relaxed);
        killer.await.unwrap();
        // The store may still hold connections that were cut off: whoever reads, or begins a transaction, does not notice, and
        // after that they are known to be dead.
        let last = &paths.last().unwrap();
        kit::refresh(&store, last.refresh).await.unwrap();
        store.advance_incarnation().await.unwrap();
        if cut.load(Ordering::Relaxed) > 10 {
            break;
        }
    }
    assert!(cut.load(Ordering::Relaxed) > 0, "nothing was cut off");
    for (path, answer) in paths.iter().zip(answers) {
        let live = matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_));
        assert!(live || answer.is_none(), "an answer was given for what is not stored");
        let mut second = path.clone();
        second.refresh = SecretDigest::of(path.code.as_bytes());
        let again = second.redeem(&store, second.refresh).await.unwrap();
        assert_eq!(again, if live { Seen::Used(()) } else { Seen::Live(()) });
    }
}

/// The server restarts, or a firewall forgets: the connections that wait for their next use are dead, all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_reads_or_begins_does_not_notice_that_a_connection_died() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = store(&server, &database).await;
    let mut admin = server.connect(&database).await.unwrap();
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    path.redeem(&store, path.refresh).await.unwrap();
    store.advance_incarnation().await.unwrap();
    for incarnation in 1..5 {
        assert_eq!(store.incarnation().await.unwrap(), incarnation);
        // While they have waited for less than after which they are asked first.
        let sql = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'mcp-authz'";
        assert!(number(&mut admin, sql).await >= 1);
        assert!(matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Live(_)));
        assert_eq!(store.incarnation().await.unwrap(), incarnation);
        assert!(number(&mut admin, sql).await >= 2);
        assert_eq!(store.advance_incarnation().await.unwrap(), incarnation + 1);
    }
}

/// A way to the server that may fall silent, as where a firewall has forgotten it: nothing is refused and nothing arrives.
async fn way_to(url: &str, silent: &Arc<AtomicBool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, rest) = url.split_once("@").unwrap();
    let (server, database) = rest.split_once("/").unwrap();
    let way = format!("postgres://mcp@{}/{database}", listener.local_addr().unwrap());
    let (server, silent) = (server.to_owned(), Arc::clone(silent));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&server).await.unwrap();
            let (client, server) = (client.into_split(), server.into_split());
            for (mut from, mut to) in [(client.0, server.1), (server.0, client.1)] {
                let silent = Arc::clone(&silent);
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(length @ 1..) = from.read(&mut bytes).await {
                        if !silent.load(Ordering::SeqCst) && to.write_all(&bytes[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    way
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_falls_silent_holds_nobody_for_long() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let silent = Arc::new(AtomicBool::new(false));
    let store = Arc::new(PostgresStore::open(&way_to(&server.url(&database), &silent).await).await.unwrap());
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    silent.store(true, Ordering::SeqCst);
    let reading: Vec<_> = (0..3)
        .map(|_| {
            let (store, path) = (Arc::clone(&store), path.clone());
            tokio::spawn(async move { kit::refresh(&store, path.refresh).await.is_err() })
        })
        .collect();
    let redeeming = {
        let (store, path) = (Arc::clone(&store), path.clone());
        tokio::spawn(async move { path.redeem(&store, path.refresh).await.is_err() })
    };
    // Longer than its patience, for a read with both of its connections, and for a reader who came meanwhile.
    let all = async {
        for reader in reading {
            assert!(reader.await.unwrap());
        }
        assert!(redeeming.await.unwrap());
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("somebody waits for ever");
    silent.store(false, Ordering::SeqCst);
    // It may say nothing over a connection of before, but not for ever.
    let mut read = kit::refresh(&store, path.refresh).await;
    for _ in 0..3 {
        if read.is_err() {
            read = kit::refresh(&store, path.refresh).await;
        }
    }
    assert!(matches!(read.unwrap(), Seen::Absent));
    assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Live(()));
}

/// What no others are served with: an end that is asked for, and what is read for the operator.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_falls_silent_holds_nobody_who_is_alone_for_long() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let silent = Arc::new(AtomicBool::new(false));
    let store = Arc::new(PostgresStore::open(&way_to(&server.url(&database), &silent).await).await.unwrap());
    let path = Path::fresh("c1", kit::clock(&store).await.unwrap()).unwrap();
    // So lately that two connections are not asked whether they still live.
    let (read, advanced) = tokio::join!(store.list_clients(None), store.advance_incarnation());
    assert!(read.is_ok() && advanced.is_ok());
    silent.store(true, Ordering::SeqCst);
    let revoking = async {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(15), path.revoke(&store)).await;
        ended.expect("who ends a grant waits for ever").unwrap_err().to_string()
    };
    let reading = async {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(45), store.list_clients(None)).await;
        ended.expect("who reads waits for ever").unwrap_err().to_string()
    };
    let (revoked, read) = tokio::join!(revoking, reading);
    assert!(revoked.contains("the database says nothing any more"), "{revoked}");
    assert!(read.contains("the database says nothing any more"), "{read}");
    silent.store(false, Ordering::SeqCst);
    path.revoke(&store).await.unwrap();
}

// A lock that another process keeps: who waits for it is told that nothing was done, and nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_is_not_waited_for_without_end() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = Arc::new(store(&server, &database).await);
    let now = kit::clock(&store).await.unwrap();
    let (path, other) = (Path::fresh("c1", now).unwrap(), Path::fresh("c1", now).unwrap());
    path.ask(&store).await.unwrap();
    path.approve(&store, path.agent, "ada").await.unwrap();
    let mut admin = server.connect(&database).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut admin).await.unwrap();
    sqlx::raw_sql("LOCK codes, tombstones").execute(&mut admin).await.unwrap();
    let attempts = async { tokio::join!(path.redeem(&store, path.refresh), other.revoke(&store)) };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(9), attempts).await;
    let (redeemed, revoked) = ended.expect("somebody waits for ever");
    for error in [redeemed.unwrap_err().to_string(), revoked.unwrap_err().to_string()] {
        assert!(error.contains("lock timeout"), "{error}");
    }
    sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
    assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Live(()));
}

/// The machine loses power: what had been answered is there, and nothing half.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crashed_server_comes_back_with_what_it_answered() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let opened = Arc::new(store(&server, &database).await);
    let path = Path::fresh("c1", kit::clock(&opened).await.unwrap()).unwrap();
    path.ask(&opened).await.unwrap();
    path.approve(&opened, path.agent, "ada").await.unwrap();
    path.redeem(&opened, path.refresh).await.unwrap();
    let rotating = {
        let (store, path) = (Arc::clone(&opened), path.clone());
        tokio::spawn(async move {
            let (mut generation, mut leaf) = (0_u64, path.refresh);
            loop {
                let next = SecretDigest::of(&generation.to_be_bytes());
                match path.rotate(&store, leaf, generation, next).await {
                    Ok(Seen::Live(())) => (generation, leaf) = (generation + 1, next),
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => return (generation, leaf),
                }
            }
        })
    };
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    server.crash();
    let (generation, leaf) = rotating.await.unwrap();
    assert!(generation > 0);
    server.launch().await;
    let again = store(&server, &database).await;
    let mut connection = server.connect(&database).await.unwrap();
    let live = "SELECT count(*) FROM refresh_tokens WHERE retired IS NULL";
    assert_eq!(number(&mut connection, live).await, 1);
    // The last rotation may have been committed without an answer.
    match kit::refresh(&again, leaf).await.unwrap() {
        Seen::Live(record) => assert_eq!(record.generation, generation),
        Seen::Used(record) => assert_eq!(record.generation, generation),
        other => panic!("what was answered is lost: {other:?}"),
    }
}

// I-G14: a copy from before brings retired tokens back to life; its number gives it away.
#[tokio::test]
async fn an_older_copy_is_told_by_its_incarnation_and_restored_to_nothing() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let opened = store(&server, &database).await;
    let path = Path::fresh("c1", kit::clock(&opened).await.unwrap()).unwrap();
    path.ask(&opened).await.unwrap();
    path.approve(&opened, path.agent, "ada").await.unwrap();
    path.redeem(&opened, path.refresh).await.unwrap();
    opened.advance_incarnation().await.unwrap();
    opened.close().await;
    let copy = server.database(Some(&database)).await;
    let opened = store(&server, &database).await;
    path.rotate(&opened, path.refresh, 0, SecretDigest::of(b"next")).await.unwrap();
    let seen = opened.advance_incarnation().await.unwrap();
    let older = store(&server, &copy).await;
    assert!(
        matches!(kit::refresh(&older, path.refresh).await.unwrap(), Seen::Live(_)),
        "it revives what was retired"
    );
    assert!(older.incarnation().await.unwrap() < seen);
    assert!(older.restored(seen).await.unwrap() > seen);
    assert_eq!(kit::refresh(&older, path.refresh).await.unwrap(), Seen::Absent);
}

// I-P7
#[tokio::test]
async fn the_store_in_a_database_keeps_its_bounds() {
    let server = Server::start().await;
    kit::run_bounded(|bounds| {
        let server = &server;
        async move {
            let database = server.database(None).await;
            store(server, &database).await.bounds(bounds)
        }
    })
    .await
    .unwrap();
}

/// Transactions that make room at the same time find the same oldest client; those that come second look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_for_room_refuses_nobody() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let mut bounds = Bounds::default();
    bounds.unused_clients = 40;
    let store = Arc::new(store(&server, &database).await.bounds(bounds));
    let now = kit::clock(&*store).await.unwrap();
    for number in 0..40 {
        assert!(kit::register(&*store, &format!("old-{number}"), now).await.unwrap());
    }
    let race: Vec<_> = (0..10)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { kit::register(&*store, &format!("new-{number}"), now).await.unwrap() })
        })
        .collect();
    for attempt in race {
        assert!(attempt.await.unwrap());
    }
    let mut admin = server.connect(&database).await.unwrap();
    // Each made room for one.
    assert_eq!(number(&mut admin, "SELECT count(*) FROM clients").await, 40);
}

#[tokio::test]
async fn a_sweep_goes_on_after_its_first_batch() {
    let server = Server::start().await;
    let database = server.database(None).await;
    let store = store(&server, &database).await;
    let mut admin = server.connect(&database).await.unwrap();
    let full = "INSERT INTO decisions SELECT decode(md5(i::text), 'hex'), 'ada', 'c', '', i, '' FROM generate_series(1, 700) i; \
         INSERT INTO clients SELECT 'u' || i, 1, i, NULL, '', '' FROM generate_series(1, 700) i; \
         INSERT INTO clients VALUES ('operator', 0, 0, NULL, '', ''), ('used', 1, 0, 1, '', '')";
    sqlx::raw_sql(full).execute(&mut admin).await.unwrap();
    let now = kit::clock(&store).await.unwrap();
    Path::fresh("c1", now).unwrap().ask(&store).await.unwrap();
    kit::register(&store, "c1", now).await.unwrap();
    store.sweep().await.unwrap();
    assert_eq!(number(&mut admin, "SELECT count(*) FROM decisions").await, 1);
    assert_eq!(number(&mut admin, "SELECT count(*) FROM clients WHERE origin <> 0").await, 1);
    assert_eq!(number(&mut admin, "SELECT count(*) FROM clients WHERE origin = 0").await, 1);
}

#[tokio::test]
async fn each_row_stays_as_long_as_something_rests_on_it() {
    let server = Server::start().await;
    kit::run_aging(|clock| {
        let server = &server;
        async move {
            let database = server.database(None).await;
            PostgresStore::open_with_clock(&server.url(&database), clock).await.unwrap()
        }
    })
    .await
    .unwrap();
}

/// Waits until a statement of the store's waits for another transaction.
async fn waits_for_a_lock(admin: &mut PgConnection) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mcp-authz' AND wait_event_type = 'Lock'";
    for _ in 0..400 {
        if number(admin, sql).await > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("nothing waits");
}

// I-P7, D40: who looks for room, or cleans up, finds a client unused at the moment of its first grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_is_not_taken_away_in_the_moment_of_its_first_grant() {
    let server = Server::start().await;
    for sweeps in [false, true] {
        let database = server.database(None).await;
        let mut bounds = Bounds::default();
        bounds.unused_clients = 2;
        let store = Arc::new(store(&server, &database).await.bounds(bounds));
        let now = kit::clock(&*store).await.unwrap();
        let long_ago = now - mcp_authz::time::Duration::days(31);
        for id in ["first", "second"] {
            assert!(kit::register(&*store, id, long_ago).await.unwrap());
        }
        let (mut admin, mut using) =
            (server.connect(&database).await.unwrap(), server.connect(&database).await.unwrap());
        let used =
            "BEGIN; UPDATE clients SET used = extract(epoch FROM now())::BIGINT WHERE client_id = 'first'";
        using.execute(used).await.unwrap();
        let other = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                if sweeps {
                    store.sweep().await.unwrap();
                    return true;
                }
                kit::register(&*store, "third", now).await.unwrap()
            })
        };
        waits_for_a_lock(&mut admin).await;
        using.execute("COMMIT").await.unwrap();
        assert!(other.await.unwrap(), "there is room: the first one is used now");
        let kept = "SELECT count(*) FROM clients WHERE client_id = 'first' AND used IS NOT NULL";
        assert_eq!(number(&mut admin, kept).await, 1, "sweeps: {sweeps}");
        let second = "SELECT count(*) FROM clients WHERE client_id = 'second'";
        assert_eq!(number(&mut admin, second).await, i64::from(!sweeps), "sweeps: {sweeps}");
    }
}
