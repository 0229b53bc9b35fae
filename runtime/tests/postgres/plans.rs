//! How the database finds its rows: it explains every statement that the store sends while it runs through the contract, those
//! within its functions too, and none reads a table from end to end that grows with what was granted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcp_authz_tokio::store::kit;
use mcp_authz_tokio::store::postgres::PostgresStore;
use serde_json::Value;

use super::server::Server;

/// What grows with what was granted. The others have a handful of rows.
const GROWING: [&str; 11] = [
    "access_tokens",
    "clients",
    "codes",
    "consents",
    "decisions",
    "epochs",
    "grants",
    "pushed_requests",
    "refresh_tokens",
    "reservations",
    "tombstones",
];

/// Every plan goes into the server's log. The tables are small, and would be read from end to end where there is an index.
const EXPLAINED: &str = "options[session_preload_libraries]=auto_explain&options[auto_explain.log_min_duration]=0\
    &options[auto_explain.log_nested_statements]=on&options[auto_explain.log_format]=json\
    &options[auto_explain.log_timing]=off&options[enable_seqscan]=off";

/// The relations that a plan reads from end to end.
fn scanned<'a>(plan: &'a Value, above: &str, found: &mut BTreeSet<&'a str>) {
    let text = |name: &str| plan[name].as_str().unwrap_or_default();
    let (kind, table) = (text("Node Type"), plan["Relation Name"].as_str().unwrap_or_default());
    let whole = match kind {
        "Seq Scan" => true,
        // The clients whom nobody has used are bounded, and have this index to themselves.
        "Index Scan" | "Index Only Scan" => {
            plan["Index Cond"].is_null() && text("Index Name") != "clients_unused"
        }
        _ => false,
    };
    // The first few of a table are no more than that.
    if whole && above != "Limit" && GROWING.contains(&table) {
        found.insert(table);
    }
    for part in plan["Plans"].as_array().into_iter().flatten() {
        scanned(part, kind, found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_statement_reads_a_whole_table() {
    let server = Arc::new(Server::start().await);
    kit::run_administered(|| async {
        let database = server.database(None).await;
        PostgresStore::open(&format!("{}?{EXPLAINED}", server.url(&database))).await.unwrap()
    })
    .await
    .unwrap();
    let log = server.log();
    let mut explained: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in log.split("  plan:\n").skip(1) {
        let plan: String = entry.lines().take_while(|line| line.starts_with('\t')).collect();
        let plan: Value = serde_json::from_str(&plan).unwrap_or_else(|error| panic!("{error}: {plan}"));
        let statement = plan["Query Text"].as_str().unwrap().to_owned();
        let mut found = BTreeSet::new();
        scanned(&plan["Plan"], "", &mut found);
        explained.entry(statement).or_default().extend(found.into_iter().map(str::to_owned));
    }
    // Everything of an older copy goes at once (`restored`). Of the clients that nobody uses so many are deleted once in a
    // while, and the database weighs how it finds out which.
    explained.retain(|statement, _| {
        let at_once = statement.starts_with("DELETE FROM") && !statement.contains('$');
        !(at_once || statement.starts_with("DELETE FROM clients WHERE origin <> 0"))
    });
    let within = |function: &str, what: &str| {
        assert!(
            explained.keys().any(|statement| statement.contains(what)),
            "{function}: {what} was not explained"
        );
    };
    within("read_rows", "LEFT JOIN refresh_tokens t ON");
    within("take_decisions", "DELETE FROM decisions USING");
    within("insert_decisions", "INSERT INTO decisions (key");
    within("redeem_codes", "UPDATE codes SET spent = TRUE FROM unnest");
    within("rotate_refresh_tokens", "UPDATE refresh_tokens r SET retired");
    assert!(explained.len() > 60, "{} statements were explained", explained.len());
    explained.retain(|_, found| !found.is_empty());
    assert!(explained.is_empty(), "{explained:#?}");
}
