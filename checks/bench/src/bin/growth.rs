//! What one flow costs over a store that already holds so many grants: the core's machines over each store, without HTTP.
//!
//! The store in memory is filled by flows. In SQLite and PostgreSQL each size is a database of its own, filled by SQL with
//! copies of what flows left in it, under keys of their own, so that every table and every index has as many rows as after
//! that many flows. All are filled before any is measured, and then measured in turn, so that what else the machine does meets
//! all of them. `growth [MOST [FLOWS]]`

use std::time::Instant;

use mcp_authz_bench::postgres::Postgres;
use mcp_authz_bench::transitions::{Ours, Wait, bounds, run};
use mcp_authz_tokio::store::Store;
use mcp_authz_tokio::store::postgres::PostgresStore;
use mcp_authz_tokio::store::sqlite::SqliteStore;
use sqlx::Executor as _;

/// Batches at each size. The least of them is the one the machine disturbed least.
const BATCHES: usize = 30;

/// New keys for so many flows, and the rows of a flow under them, each table in the order of its key. `$random(n)` is so many
/// random bytes, `$family` the name of a family of moment `n`, `$series` the table of the numbers from 1 on.
const FILL: [&str; 6] = [
    "CREATE TEMPORARY TABLE fresh AS SELECT $family AS family, $random(32) AS code, $random(32) AS retired, \
     $random(32) AS leaf, $random(32) AS first, $random(32) AS second, 'person' || (n % 100000) AS subject FROM $series",
    "INSERT INTO codes (digest, family, spent, client_id, subject, expires, not_after, record) SELECT code, \
     fresh.family, old.spent, old.client_id, fresh.subject, old.expires, old.not_after, old.record FROM fresh, \
     (SELECT * FROM codes WHERE spent LIMIT 1) AS old ORDER BY code",
    "INSERT INTO grants (family, client_id, subject, not_after, record) SELECT fresh.family, old.client_id, \
     fresh.subject, old.not_after, old.record FROM fresh, (SELECT * FROM grants LIMIT 1) AS old ORDER BY fresh.family",
    "INSERT INTO refresh_tokens (digest, family, generation, retired, request, repeats, not_after, record) \
     SELECT CASE WHEN old.retired IS NULL THEN leaf ELSE fresh.retired END AS digest, fresh.family, old.generation, \
     old.retired, old.request, old.repeats, old.not_after, old.record FROM fresh, (SELECT * FROM refresh_tokens WHERE \
     family = (SELECT family FROM refresh_tokens LIMIT 1)) AS old ORDER BY 1",
    "INSERT INTO access_tokens (digest, family, not_after, record) SELECT first, fresh.family, old.not_after, old.record \
     FROM fresh, (SELECT * FROM access_tokens LIMIT 1) AS old ORDER BY first",
    "INSERT INTO access_tokens (digest, family, not_after, record) SELECT second, fresh.family, old.not_after, old.record \
     FROM fresh, (SELECT * FROM access_tokens LIMIT 1) AS old ORDER BY second",
];

/// What a database calls its random bytes and its numbers.
fn statement(text: &str, sqlite: bool, rows: usize) -> String {
    if sqlite {
        let series = format!(
            "(WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {rows}) SELECT n FROM counted)"
        );
        let family = "CAST(unhex(printf('%012x', 1600000000000 + n)) || randomblob(10) AS BLOB)";
        return text.replace("$random", "randomblob").replace("$family", family).replace("$series", &series);
    }
    let half = "decode(md5(random()::text || n), 'hex')";
    let family =
        "decode(lpad(to_hex(1600000000000 + n), 12, '0') || left(md5(random()::text || n), 20), 'hex')";
    text.replace("$family", family)
        .replace("$random(32)", &format!("({half} || {half})"))
        .replace("$series", &format!("generate_series(1, {rows}) AS n"))
}

/// Milliseconds of one of so many flows.
fn measure<S: Store, W: Wait>(ours: &mut Ours<S, W>, flows: usize) -> f64 {
    run(ours, flows).iter().sum::<f64>() / flows as f64 / 1e6
}

/// A store in memory after so many flows.
fn in_memory(rows: usize) -> Ours {
    let mut ours = Ours::default();
    for _ in 0..rows / 100 {
        run(&mut ours, 100);
    }
    ours
}

/// Measures the store in memory. It is gone before the databases are filled: its largest sizes take gigabytes.
fn measure_in_memory(sizes: &[usize], flows: usize) {
    let start = Instant::now();
    let mut stores: Vec<_> = sizes.iter().map(|size| (in_memory(*size), f64::INFINITY)).collect();
    println!("filled in {:.0} s (memory)", start.elapsed().as_secs_f64());
    for batch in 0..=BATCHES {
        for (store, least) in &mut stores {
            let time = measure(store, flows);
            // The first one warms up.
            if batch > 0 {
                *least = least.min(time);
            }
        }
    }
    for (size, (_, least)) in sizes.iter().zip(&stores) {
        println!("{size:8} grants: memory {least:.4} ms a flow ({:.2} times the first)", least / stores[0].1);
    }
}

fn fill_sqlite(file: &std::path::Path, rows: usize) {
    // Nobody else has the file, and a crash would only end the measurement.
    let connection = rusqlite::Connection::open(file).unwrap();
    let quick = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000";
    connection.execute_batch(quick).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for text in FILL {
        connection.execute_batch(&statement(text, true, rows)).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

async fn fill_postgres(url: &str, rows: usize) {
    let mut connection: sqlx::PgConnection = sqlx::Connection::connect(url).await.unwrap();
    connection.execute("SET work_mem = '256MB'").await.unwrap();
    for text in FILL {
        connection.execute(statement(text, false, rows).as_str()).await.unwrap();
    }
    // What autovacuum would have done by then.
    connection.execute("VACUUM ANALYZE").await.unwrap();
    connection.execute("CHECKPOINT").await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (most, flows) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(10));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sizes: Vec<usize> =
        std::iter::successors(Some(100), |size| Some(size * 10)).take_while(|size| *size <= most).collect();
    println!("one flow by stored grants, least of {BATCHES} batches of {flows}, the sizes in turn");
    measure_in_memory(&sizes, flows);
    let server = Postgres::start();
    let mut stores = Vec::new();
    for size in &sizes {
        let start = Instant::now();
        let file = folder.path().join(format!("{size}.db"));
        let url = runtime.block_on(server.database(&format!("grants{size}")));
        // What is copied.
        let sqlite = runtime.block_on(SqliteStore::open(&file)).unwrap();
        run(&mut Ours::over(sqlite.clone(), &runtime), 1);
        runtime.block_on(sqlite.close());
        let postgres = runtime.block_on(PostgresStore::open(&url)).unwrap();
        run(&mut Ours::over(postgres.clone(), &runtime), 1);
        runtime.block_on(postgres.close());
        fill_sqlite(&file, *size);
        let of_sqlite = start.elapsed().as_secs_f64();
        runtime.block_on(fill_postgres(&url, *size));
        let both = start.elapsed().as_secs_f64();
        println!(
            "{size:8} grants: filled in {of_sqlite:.0} s (SQLite) and {:.0} s (PostgreSQL)",
            both - of_sqlite
        );
        let sqlite = runtime.block_on(SqliteStore::open(&file)).unwrap().bounds(bounds());
        let postgres = runtime.block_on(PostgresStore::open(&url)).unwrap().bounds(bounds());
        stores.push((Ours::over(sqlite, &runtime), Ours::over(postgres, &runtime), [f64::INFINITY; 2]));
    }
    // What was filled is still being written out by the machine.
    let _ = std::process::Command::new("sync").status();
    for batch in 0..=BATCHES {
        for (sqlite, postgres, least) in &mut stores {
            let times = [measure(sqlite, flows), measure(postgres, flows)];
            // The first one warms up.
            if batch > 0 {
                *least = [least[0].min(times[0]), least[1].min(times[1])];
            }
        }
    }
    let first = stores.first().map_or([1.0; 2], |(_, _, least)| *least);
    for (size, (_, _, [sqlite, postgres])) in sizes.iter().zip(&stores) {
        println!(
            "{size:8} grants: SQLite {sqlite:.3} ms a flow ({:.2} times the first), PostgreSQL {postgres:.3} ms ({:.2} times)",
            sqlite / first[0],
            postgres / first[1]
        );
    }
}
