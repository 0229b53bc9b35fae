//! What a connection asks of the database when it begins, and whether it got that.
//!
//! A pooler in between may drop what it is asked for: PgBouncer does where `ignore_startup_parameters` has `options`. The database
//! then does as its defaults say, which may be not to wait for the disk. So each new connection asks what holds.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgConnection, Row as _};

use crate::BoxFuture;

/// Settings by their names, in the words in which the database shows them.
type Settings = &'static [(&'static str, &'static str)];

/// For all: durable before the receipt, and one statement sees what the one before it waited for, whatever the database's
/// defaults are.
const ALL: Settings = &[
    ("idle_in_transaction_session_timeout", "30s"),
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
];

/// How those connections plan that serve many callers at once: the database would guess how many, and plan anew for each.
/// Every statement finds its rows by their keys. None waits long for a lock, because all would.
const BATCHES: Settings = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("lock_timeout", "250ms"),
];

/// What the database was asked for, and does not do.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database has {name} = {found:?} on this connection, which asked for {asked}: something on the way has dropped that; connect \
     to the server itself, or through a pooler that passes `options` on (PgBouncer: not with `ignore_startup_parameters = options`)"
)]
pub(super) struct Dropped {
    pub(super) name: &'static str,
    pub(super) asked: &'static str,
    pub(super) found: String,
}

/// Asks for what all connections rest on.
pub(super) fn ask(options: PgConnectOptions) -> PgConnectOptions {
    asking(options, ALL)
}

/// Asks for what those rest on besides that serve many callers at once.
pub(super) fn ask_for_batches(options: PgConnectOptions) -> PgConnectOptions {
    asking(options, BATCHES)
}

fn asking(options: PgConnectOptions, settings: Settings) -> PgConnectOptions {
    options.options(settings.iter().map(|(name, value)| (name, value.replace(' ', "\\ "))))
}

/// Whether a new connection has what [`ask`] asked for.
pub(super) fn check(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(compare(connection, &[ALL]))
}

/// Whether a new connection has what [`ask_for_batches`] asked for as well.
pub(super) fn check_for_batches(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(compare(connection, &[ALL, BATCHES]))
}

async fn compare(connection: &mut PgConnection, settings: &'static [Settings]) -> Result<(), sqlx::Error> {
    let shown: Vec<_> =
        settings.iter().copied().flatten().map(|(name, _)| format!("current_setting('{name}')")).collect();
    let row = connection.fetch_one(format!("SELECT {}", shown.join(", ")).as_str()).await?;
    for (place, (name, asked)) in settings.iter().copied().flatten().enumerate() {
        let found: String = row.try_get(place)?;
        // I-G4, I-T4
        if found != *asked {
            return Err(sqlx::Error::Configuration(Box::new(Dropped { name, asked, found })));
        }
    }
    Ok(())
}
