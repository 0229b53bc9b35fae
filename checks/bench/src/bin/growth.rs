//! What one flow costs over a store that already holds so many grants: the core's machines over SQLite and PostgreSQL,
//! without HTTP.
//!
//! The store is filled by SQL with copies of what flows left in it, under keys of their own, so that every table and
//! every index has as many rows as after that many flows. `growth [MOST [FLOWS]]`

use std::time::Instant;

use mcp_authz_bench::postgres::Postgres;
use mcp_authz_bench::transitions::{Ours, bounds, run};
use mcp_authz_tokio::store::Store;
use mcp_authz_tokio::store::postgres::PostgresStore;
use mcp_authz_tokio::store::sqlite::SqliteStore;
use sqlx::Executor as _;

/// Batches at each size. The least of them is the one the machine disturbed least.
const BATCHES: usize = 30;

/// Rows that one statement adds.
const CHUNK: usize = 100_000;

/// New keys for so many flows, and the rows of a flow under them. `$random(n)` is so many random bytes, `$series` the
/// table of the numbers from 1 on.
const FILL: [&str; 5] = [
    "CREATE TEMPORARY TABLE fresh AS SELECT $random(16) AS family, $random(32) AS code, $random(32) AS retired, \
     $random(32) AS leaf, $random(32) AS first, $random(32) AS second, 'person' || (n % 100000) AS subject FROM $series",
    "INSERT INTO codes (digest, family, spent, client_id, subject, expires, not_after, record) SELECT code, \
     fresh.family, old.spent, old.client_id, fresh.subject, old.expires, old.not_after, old.record FROM fresh, \
     (SELECT * FROM codes WHERE spent LIMIT 1) AS old",
    "INSERT INTO grants (family, client_id, subject, not_after, record) SELECT fresh.family, old.client_id, \
     fresh.subject, old.not_after, old.record FROM fresh, (SELECT * FROM grants LIMIT 1) AS old",
    "INSERT INTO refresh_tokens (digest, family, generation, retired, request, repeats, not_after, record) \
     SELECT CASE WHEN old.retired IS NULL THEN leaf ELSE fresh.retired END, fresh.family, old.generation, old.retired, \
     old.request, old.repeats, old.not_after, old.record FROM fresh, (SELECT * FROM refresh_tokens WHERE family = \
     (SELECT family FROM refresh_tokens LIMIT 1)) AS old",
    "INSERT INTO access_tokens (digest, family, not_after, record) SELECT first, fresh.family, old.not_after, old.record \
     FROM fresh, (SELECT * FROM access_tokens LIMIT 1) AS old UNION ALL SELECT second, fresh.family, old.not_after, \
     old.record FROM fresh, (SELECT * FROM access_tokens LIMIT 1) AS old",
];

/// What a database calls its random bytes and its numbers.
fn statement(text: &str, sqlite: bool, rows: usize) -> String {
    if sqlite {
        let series = format!(
            "(WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {rows}) SELECT n FROM counted)"
        );
        return text.replace("$random", "randomblob").replace("$series", &series);
    }
    let half = "decode(md5(random()::text || n), 'hex')";
    text.replace("$random(16)", half)
        .replace("$random(32)", &format!("({half} || {half})"))
        .replace("$series", &format!("generate_series(1, {rows}) AS n"))
}

/// Milliseconds of a flow, step by step and whole: the least of the batches.
fn measure<S: Store>(runtime: &tokio::runtime::Runtime, store: S, flows: usize) -> f64 {
    let mut ours = Ours::over(store, runtime);
    run(&mut ours, flows);
    (0..BATCHES)
        .map(|_| run(&mut ours, flows).iter().sum::<f64>() / flows as f64 / 1e6)
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (most, flows) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(10));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let sqlite = runtime.block_on(SqliteStore::open(&file)).unwrap().bounds(bounds());
    let server = Postgres::start();
    let postgres = runtime.block_on(PostgresStore::open(&server.url())).unwrap().bounds(bounds());
    println!("milliseconds of one flow by stored grants, least of {BATCHES} batches of {flows}");
    let mut first: Option<[f64; 2]> = None;
    let (mut stored, mut goal) = (0, 100);
    while goal <= most {
        // What is copied.
        run(&mut Ours::over(sqlite.clone(), &runtime), 1);
        run(&mut Ours::over(postgres.clone(), &runtime), 1);
        let start = Instant::now();
        while stored < goal {
            let rows = CHUNK.min(goal - stored);
            runtime.block_on(async {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
                let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
                let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
                connection.execute("BEGIN").await.unwrap();
                for text in FILL {
                    connection.execute(statement(text, true, rows).as_str()).await.unwrap();
                }
                connection.execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
                sqlx::Connection::close(connection).await.unwrap();
                let mut connection: sqlx::PgConnection =
                    sqlx::Connection::connect(&server.url()).await.unwrap();
                for text in FILL {
                    connection.execute(statement(text, false, rows).as_str()).await.unwrap();
                }
                sqlx::Connection::close(connection).await.unwrap();
            });
            stored += rows;
        }
        runtime.block_on(async {
            let mut connection: sqlx::PgConnection = sqlx::Connection::connect(&server.url()).await.unwrap();
            connection.execute("VACUUM ANALYZE").await.unwrap();
            connection.execute("CHECKPOINT").await.unwrap();
        });
        let filled = start.elapsed().as_secs();
        let times = [measure(&runtime, sqlite.clone(), flows), measure(&runtime, postgres.clone(), flows)];
        let first = *first.get_or_insert(times);
        println!(
            "{stored:8} grants: SQLite {:.3} ({:.2} times the first), PostgreSQL {:.3} ({:.2} times the first); filled in {filled} s",
            times[0],
            times[0] / first[0],
            times[1],
            times[1] / first[1]
        );
        goal *= 10;
    }
}
