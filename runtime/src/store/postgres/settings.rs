//! What a connection asks of the database when it begins, and whether it got that.
//!
//! A pooler in between may drop what it is asked for: PgBouncer does where `ignore_startup_parameters` has `options`. The database
//! then does as its defaults say, which may be not to wait for the disk. So each new connection asks what holds.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor as _, PgConnection, Row as _};

use crate::BoxFuture;

/// Settings by their names, in the words in which the database shows them.
pub(super) type Settings = &'static [(&'static str, &'static str)];

/// For all: durable before the receipt, and one statement sees what the one before it waited for, whatever the database's
/// defaults are.
pub(super) const ALL: Settings = &[
    ("idle_in_transaction_session_timeout", "30s"),
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
];

/// For those that serve one caller at a time: what waits for a lock in vain gives up before its caller does, and nothing is left
/// that would be done after that.
pub(super) const SINGLE: Settings = &[("lock_timeout", "5s")];

/// How those connections plan that serve many callers at once: the database would guess how many, and plan anew for each.
/// Every statement finds its rows by their keys. None waits long for a lock, because all would.
pub(super) const BATCHES: Settings = &[
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

/// Asks for that when a connection begins; the last word on a setting counts.
pub(super) fn ask(options: PgConnectOptions, settings: Settings) -> PgConnectOptions {
    options.options(settings.iter().map(|(name, value)| (name, value.replace(' ', "\\ "))))
}

/// Whether a new connection has what it asked for.
pub(super) fn check<'c>(
    connection: &'c mut PgConnection,
    settings: &'static [Settings],
) -> BoxFuture<'c, Result<(), sqlx::Error>> {
    Box::pin(compare(connection, settings))
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
