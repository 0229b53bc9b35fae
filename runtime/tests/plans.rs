//! How the embedded store finds its rows: every statement that it sends while it runs through the contract is explained by
//! the database, and none reads a table from end to end that grows with what was granted.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use mcp_authz_tokio::store::kit;
use mcp_authz_tokio::store::sqlite::SqliteStore;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static SENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Keeps the statements that the store logs.
struct Statements;

struct Statement(String);

impl Visit for Statement {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "statement" {
            value.clone_into(&mut self.0);
        }
    }
}

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("mcp_authz_tokio::store::sqlite")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut statement = Statement(String::new());
        event.record(&mut statement);
        SENT.lock().unwrap_or_else(PoisonError::into_inner).insert(statement.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Whether that step of a plan reads a table whose rows nobody bounds.
fn scans(step: &str) -> bool {
    let Some(scanned) = step.strip_prefix("SCAN ") else { return false };
    let table = scanned.split(' ').next().unwrap_or_default();
    // A handful of rows each.
    !matches!(
        table,
        "CONSTANT"
            | "signing_keys"
            | "incarnation"
            | "schema_digest"
            | "sqlite_master"
            | "sqlite_schema"
            | "few"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_statement_reads_a_whole_table() {
    tracing::subscriber::set_global_default(Statements).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    kit::run_administered(|| {
        let file = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let path = folder.path().join(file);
        async { SqliteStore::open(path).await.unwrap() }
    })
    .await
    .unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("0")).unwrap();
    let sent = SENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (mut explained, mut scanned) = (0, Vec::new());
    for statement in &sent {
        let word = statement.split_whitespace().next().unwrap_or_default();
        // Everything of an older copy goes at once (`restored`); what makes the tables is no query.
        let at_once = statement.starts_with("DELETE FROM") && !statement.contains('$');
        if !matches!(word, "SELECT" | "INSERT" | "UPDATE" | "DELETE") || at_once {
            continue;
        }
        let plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}"));
        let mut plan = plan.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let mut steps = plan.raw_query();
        while let Some(step) = steps.next().unwrap() {
            let step: String = step.get("detail").unwrap();
            // Counted up to a bound, over an index.
            let counts = statement.contains(" AS few") && step.contains("INDEX");
            if scans(&step) && !counts {
                scanned.push(format!("{step}: {statement}"));
            }
        }
        explained += 1;
    }
    assert!(scanned.is_empty(), "{scanned:#?}");
    assert!(explained > 40, "{explained} statements were seen: {sent:#?}");
}
