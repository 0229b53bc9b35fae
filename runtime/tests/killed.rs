//! A process is killed while it writes to the embedded store, again and again: whatever it had been told is stored is
//! there, and nothing is there by half. The test runs itself as that process.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use mcp_authz::authorization_server::record::FamilyId;
use mcp_authz::authorization_server::test_kit::Seen;
use mcp_authz::secret::SecretDigest;
use mcp_authz_tokio::store::kit::{self, Path};
use mcp_authz_tokio::store::sqlite::SqliteStore;

/// Set for the process that is killed: the file it writes to.
const FILE: &str = "MCP_AUTHZ_KILLED_FILE";

/// The path of a round, known to both processes.
async fn path_of(store: &SqliteStore, round: u64) -> Path {
    let mut path = Path::fresh("c1", kit::clock(store).await.unwrap()).unwrap();
    let digest = |label: &[u8]| SecretDigest::of(&[label, &round.to_be_bytes()].concat());
    path.decision = digest(b"decision");
    path.code = digest(b"code");
    path.refresh = digest(b"refresh");
    path.grant.family = FamilyId::from_bytes(*digest(b"family").as_bytes().first_chunk().unwrap());
    path
}

fn successor(round: u64) -> SecretDigest {
    SecretDigest::of(&[b"successor".as_slice(), &round.to_be_bytes()].concat())
}

/// Approves, redeems and rotates for ever, six at a time so that they are committed together, and says after each receipt what
/// it got.
async fn writes(file: &str) {
    let store = SqliteStore::open(file).await.unwrap();
    let first = std::env::var("MCP_AUTHZ_KILLED_FIRST").unwrap().parse::<u64>().unwrap();
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in (first + writer * 1000).. {
                    let path = path_of(&store, round).await;
                    path.ask(&store).await.unwrap();
                    path.approve(&store, path.agent, "ada").await.unwrap();
                    println!("approved {round}");
                    assert_eq!(path.redeem(&store, path.refresh).await.unwrap(), Seen::Live(()));
                    println!("redeemed {round}");
                    let rotated = path.rotate(&store, path.refresh, 0, successor(round)).await.unwrap();
                    assert_eq!(rotated, Seen::Live(()));
                    println!("rotated {round}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

// I-G4, I-C1, I-T1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill_and_nothing_is_left_by_half() {
    if let Ok(file) = std::env::var(FILE) {
        return writes(&file).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let mut first = 0_u64;
    let mut answered = Vec::new();
    for kill in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_answered_survives_a_kill_and_nothing_is_left_by_half", "--nocapture"])
            .env(FILE, &file)
            .env("MCP_AUTHZ_KILLED_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).filter(|line| line.contains("ed ")).collect::<Vec<_>>()
        });
        // Every few milliseconds another place between two writes.
        std::thread::sleep(Duration::from_millis(250 + kill * 17));
        child.kill().unwrap();
        child.wait().unwrap();
        answered.extend(reader.join().unwrap());
        first += 10_000;
    }
    let store = SqliteStore::open(&file).await.unwrap();
    let mut receipts = 0;
    for line in answered {
        let Some((what, round)) = line.rsplit_once(' ') else { continue };
        let Ok(round) = round.parse::<u64>() else { continue };
        let path = path_of(&store, round).await;
        receipts += 1;
        if what.ends_with("rotated") {
            assert!(matches!(kit::refresh(&store, successor(round)).await.unwrap(), Seen::Live(_)), "{line}");
            assert!(matches!(kit::refresh(&store, path.refresh).await.unwrap(), Seen::Used(_)), "{line}");
        } else if what.ends_with("redeemed") {
            assert!(kit::refresh(&store, path.refresh).await.unwrap() != Seen::Absent, "{line}");
        }
    }
    assert!(receipts > 12, "the processes were killed before they wrote anything");
    let connection = rusqlite::Connection::open(&file).unwrap();
    for (half, sql) in [
        (
            "a family with two live tokens",
            "SELECT count(*) FROM (SELECT 1 FROM refresh_tokens WHERE retired IS NULL GROUP BY family HAVING count(*) > 1)",
        ),
        (
            "a grant without a live token",
            "SELECT count(*) FROM grants WHERE NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.family = grants.family AND r.retired IS NULL)",
        ),
        (
            "a token without its grant",
            "SELECT count(*) FROM refresh_tokens WHERE family NOT IN (SELECT family FROM grants)",
        ),
        (
            "a spent code without its grant, or a grant whose code is not spent",
            "SELECT count(*) FROM codes LEFT JOIN grants USING (family) WHERE spent <> (grants.record IS NOT NULL)",
        ),
        (
            "a retired token without its successor",
            "SELECT count(*) FROM refresh_tokens r WHERE retired IS NOT NULL AND NOT EXISTS (SELECT 1 FROM refresh_tokens s WHERE s.family = r.family AND s.generation = r.generation + 1)",
        ),
    ] {
        let count: i64 = connection.query_row(sql, (), |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{half}");
    }
}
