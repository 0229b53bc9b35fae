// Room for one more row that a stranger causes, the same for every SQL database: compiled once for each, like `rows.rs`.
//
// See [`Bounds`] for what gives way. A transaction that finds no room is dropped, and changes nothing.

use mcp_authz::time::OffsetDateTime;

use super::driver::{Get as _, query};
use super::{Connection, take_turns};
use crate::store::{Bounds, StoreError};

/// That nothing rests on a client: no page that waits, no code that was not redeemed, no grant. What had ended by `$1` is
/// nothing.
macro_rules! idle {
    () => {
        "NOT EXISTS (SELECT 1 FROM decisions WHERE decisions.client_id = clients.client_id AND decisions.not_after > $1) \
         AND NOT EXISTS (SELECT 1 FROM codes WHERE codes.client_id = clients.client_id AND NOT codes.spent \
         AND codes.expires > $1) \
         AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.client_id = clients.client_id)"
    };
}
pub(super) use idle;

/// How often a client is looked for that gives way, where others take theirs meanwhile.
const EVICTIONS: u8 = 3;

/// The statements on one table of what waits.
pub(super) struct Waiting {
    counts: &'static str,
    sweep: &'static str,
    oldest: &'static str,
}

/// Declares the statements on those rows of a table that are counted together, and belong to what a column names.
macro_rules! waiting {
    ($table:literal, $together:literal, $owner:literal) => {
        Waiting {
            counts: concat!(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM ",
                $table,
                " WHERE ",
                $together,
                " LIMIT $1) AS few) AS all_waiting, (SELECT count(*) FROM (SELECT 1 FROM ",
                $table,
                " WHERE ",
                $together,
                " AND ",
                $owner,
                " = $3 LIMIT $2) AS few) AS own_waiting"
            ),
            sweep: concat!("DELETE FROM ", $table, " WHERE not_after <= $1"),
            oldest: concat!(
                "DELETE FROM ",
                $table,
                " WHERE key IN (SELECT key FROM ",
                $table,
                " WHERE ",
                $together,
                " AND ",
                $owner,
                " = $1 ORDER BY not_after, key LIMIT 1)"
            ),
        }
    };
}

pub(super) const DECISIONS: Waiting = waiting!("decisions", "TRUE", "subject");
const PUSHED_OF_OPERATOR: Waiting = waiting!("pushed_requests", "of_operator = TRUE", "client_id");
const PUSHED_OF_STRANGERS: Waiting = waiting!("pushed_requests", "of_operator = FALSE", "client_id");

/// Pushed requests of one kind: those of the other take none of their room.
pub(super) const fn pushed(of_operator: bool) -> &'static Waiting {
    if of_operator { &PUSHED_OF_OPERATOR } else { &PUSHED_OF_STRANGERS }
}

impl Waiting {
    /// Makes room for one more row of that owner; says whether there is some.
    pub(super) async fn make_room(
        &self,
        connection: &mut Connection,
        owner: &str,
        (most_of_all, most_of_owner): (usize, usize),
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let most = (limit(most_of_all), limit(most_of_owner));
        let (mut waiting, mut own) = self.counted(connection, owner, most).await?;
        if waiting >= most.0 {
            take_turns(&mut *connection).await?;
            query(self.sweep).bind(now.unix_timestamp()).execute(&mut *connection).await?;
            (waiting, own) = self.counted(connection, owner, most).await?;
        }
        if waiting < most.0 && own < most.1 {
            return Ok(true);
        }
        // I-P7: the owner's oldest, and nobody else's.
        let gone = query(self.oldest).bind(owner.to_owned()).execute(&mut *connection).await?;
        Ok(gone.rows_affected() == 1)
    }

    /// How many wait, and how many of the owner's; counted up to the most of each.
    async fn counted(
        &self,
        connection: &mut Connection,
        owner: &str,
        most: (i64, i64),
    ) -> Result<(i64, i64), StoreError> {
        let counts = query(self.counts).bind(most.0).bind(most.1).bind(owner.to_owned());
        let row = counts.fetch_one(connection).await?;
        Ok((row.try_get("all_waiting")?, row.try_get("own_waiting")?))
    }
}

/// Makes room for one more client that the operator did not write; says whether there is some.
pub(super) async fn make_room_for_client(
    connection: &mut Connection,
    bounds: Bounds,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let most = limit(bounds.unused_clients);
    if !is_full_of_clients(connection, most).await? {
        return Ok(true);
    }
    take_turns(connection).await?;
    for _ in 0..EVICTIONS {
        if !is_full_of_clients(connection, most).await? {
            return Ok(true);
        }
        // I-P7: the oldest of those that lose nothing by it. The outer condition looks again at one that another transaction
        // has changed meanwhile: it may have got its first grant.
        let evicted = query(concat!(
            "DELETE FROM clients WHERE used IS NULL AND origin <> 0 AND client_id IN (SELECT client_id FROM clients \
             WHERE used IS NULL AND origin <> 0 AND ",
            idle!(),
            " ORDER BY created, client_id LIMIT 1)"
        ))
        .bind(now.unix_timestamp())
        .execute(&mut *connection)
        .await?;
        if evicted.rows_affected() == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn is_full_of_clients(connection: &mut Connection, most: i64) -> Result<bool, StoreError> {
    let sql =
        "SELECT count(*) FROM (SELECT 1 FROM clients WHERE used IS NULL AND origin <> 0 LIMIT $1) AS few";
    Ok(number(&query(sql).bind(most).fetch_one(connection).await?)? >= most)
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

fn number(row: &super::Row) -> Result<i64, StoreError> {
    Ok(row.try_get(0)?)
}
