// Housekeeping, and what operators and the rotation of keys need: the same for every SQL database, like `rows.rs`.

use mcp_authz::authorization_server::record::{ClientRecord, ConsentRecord, FamilyId, GrantRecord};
use mcp_authz::identifier::ClientId;
use mcp_authz::secret::SecretDigest;
use mcp_authz::time::{Duration, OffsetDateTime};

use super::driver::{Get as _, query};
use super::epochs::move_epoch;
use super::room::idle;
use super::rows::{
    blob, bytes, epochs, family_bytes, instant, micros, signed, standing, stands, today, unsigned,
};
use super::{Connection, Locks, Row, Snapshot, Turn};
use crate::store::{
    AFTER_FAMILY, CLIENT_USE_NOTED, GrantsOf, KeyRow, KeyState, LISTED, StoreError, UNUSED_CLIENT_LIFETIME,
    USED_CLIENT_LIFETIME,
};

/// How many rows a sweep deletes in one transaction.
const SWEEP_BATCH: i64 = 256;

/// Declares what a sweep deletes. The condition stands twice: a row that another transaction changed meanwhile is looked at
/// again as it is now, by the outer one.
macro_rules! ending {
    ($table:literal, $key:literal, ($($condition:tt)*), $after:expr) => {
        (
            concat!(
                "DELETE FROM ",
                $table,
                " WHERE ",
                $($condition)*,
                " AND ",
                $key,
                " IN (SELECT ",
                $key,
                " FROM ",
                $table,
                " WHERE ",
                $($condition)*,
                " LIMIT $2)"
            ),
            $after,
        )
    };
}

/// What a sweep deletes: the statement, and how long before now a row must have ended.
///
/// Tombstones go last of a family: as long as anything of it is there, so is what revoked it.
pub(super) const SWEEPS: [(&str, Duration); 12] = [
    ending!("decisions", "key", ("not_after <= $1"), Duration::ZERO),
    ending!("pushed_requests", "key", ("not_after <= $1"), Duration::ZERO),
    ending!("consents", "key", ("not_after <= $1"), Duration::ZERO),
    ending!("reservations", "key", ("until <= $1"), Duration::ZERO),
    ending!("access_tokens", "digest", ("not_after <= $1"), AFTER_FAMILY),
    // A code that was redeemed is told from a guess for as long as its family may live; one that was not, and cannot be any
    // more, is a guess like others.
    ending!("codes", "digest", ("spent AND not_after <= $1"), AFTER_FAMILY),
    ending!("codes", "digest", ("NOT spent AND expires <= $1"), AFTER_FAMILY),
    ending!("refresh_tokens", "digest", ("not_after <= $1"), AFTER_FAMILY),
    ending!("grants", "family", ("not_after <= $1"), AFTER_FAMILY),
    ending!("tombstones", "family", ("not_after <= $1"), AFTER_FAMILY),
    // I-P7: never one that something rests on.
    ending!(
        "clients",
        "client_id",
        ("origin <> 0 AND used IS NULL AND created <= $1 AND ", idle!()),
        UNUSED_CLIENT_LIFETIME
    ),
    ending!(
        "clients",
        "client_id",
        ("origin <> 0 AND used <= $1 AND ", idle!()),
        USED_CLIENT_LIFETIME.saturating_add(CLIENT_USE_NOTED)
    ),
];

/// What the restoration of an older copy deletes: everything granted, pending or remembered; the keys, any of which may have
/// been withdrawn since; and clients that come back by themselves, any of which may have been deleted since. Tombstones,
/// epochs and reservations only ever refuse.
pub(super) const RESTORED: [&str; 9] = [
    "DELETE FROM decisions",
    "DELETE FROM pushed_requests",
    "DELETE FROM consents",
    "DELETE FROM access_tokens",
    "DELETE FROM codes",
    "DELETE FROM refresh_tokens",
    "DELETE FROM grants",
    "DELETE FROM signing_keys",
    "DELETE FROM clients WHERE origin <> 0",
];

/// The columns of a signing key.
macro_rules! columns {
    () => {
        "kid, algorithm, state, since, public_jwk, sealed"
    };
}

/// Declares the statement that lists grants of which that condition holds, by `$1`.
macro_rules! listing {
    ($condition:literal) => {
        concat!(
            "SELECT record, ",
            standing!(),
            " FROM grants WHERE ",
            $condition,
            " AND family > $2 ORDER BY family LIMIT $3"
        )
    };
}

/// Declares the statement that lists remembered consents of which that condition holds, by `$1`.
macro_rules! remembered {
    ($condition:literal) => {
        concat!(
            "SELECT record, ",
            epochs!("consents.client_id", "consents.subject"),
            " FROM consents WHERE ",
            $condition,
            " AND key > $2 AND not_after > $3 ORDER BY key LIMIT $4"
        )
    };
}

/// Declares what chooses among the statements of that kind, and gives its first argument.
macro_rules! choosing {
    ($of:expr, $listing:ident) => {
        match $of {
            GrantsOf::Subject(subject) => ($listing!("subject = $1"), subject.to_owned()),
            GrantsOf::Client(client) => ($listing!("client_id = $1"), client.as_str().to_owned()),
            GrantsOf::All => ($listing!("$1 = ''"), String::new()),
        }
    };
}

/// The statement that lists those grants, and its first argument.
pub(super) fn grants_of(of: GrantsOf<'_>) -> (&'static str, String) {
    choosing!(of, listing)
}

/// The statement that lists those consents, and its first argument.
pub(super) fn consents_of(of: GrantsOf<'_>) -> (&'static str, String) {
    choosing!(of, remembered)
}

impl Turn {
    /// Deletes some rows of one of [`SWEEPS`]; says whether there may be more.
    pub(super) async fn sweep_rows(self, (sql, after): (&'static str, Duration)) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        let end = now.saturating_sub(after).unix_timestamp();
        let deleted = query(sql).bind(end).bind(SWEEP_BATCH).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(i64::try_from(deleted.rows_affected()).is_ok_and(|rows| rows >= SWEEP_BATCH))
    }

    pub(super) async fn list_grant_rows(
        self,
        ((sql, of), after): ((&'static str, String), Option<FamilyId>),
    ) -> Result<Vec<GrantRecord>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let mut listed = Vec::new();
        let mut after = after.map_or_else(Vec::new, family_bytes);
        let page = i64::try_from(LISTED).unwrap_or(i64::MAX);
        while listed.len() < LISTED {
            let rows = query(sql)
                .bind(of.as_str())
                .bind(after.clone())
                .bind(page)
                .fetch_all(&mut snapshot.connection)
                .await?;
            let read = rows.len();
            for row in rows {
                let record = GrantRecord::from_bytes(&blob(&row)?)?;
                after = family_bytes(record.family);
                if listed.len() < LISTED && stands(&row, &record)? {
                    listed.push(record);
                }
            }
            if read < LISTED {
                break;
            }
        }
        end(snapshot).await?;
        Ok(listed)
    }

    pub(super) async fn list_consent_rows(
        self,
        ((sql, of), after): ((&'static str, String), Option<SecretDigest>),
    ) -> Result<Vec<ConsentRecord>, StoreError> {
        let (_, now) = self.one(query(concat!("SELECT ", clock!()))).await?;
        let mut snapshot = self.snapshot().await?;
        let mut listed = Vec::new();
        let mut after = after.map_or_else(Vec::new, bytes);
        let page = i64::try_from(LISTED).unwrap_or(i64::MAX);
        while listed.len() < LISTED {
            let rows = query(sql)
                .bind(of.as_str())
                .bind(after.clone())
                .bind(now.unix_timestamp())
                .bind(page)
                .fetch_all(&mut snapshot.connection)
                .await?;
            let read = rows.len();
            for row in rows {
                let record = ConsentRecord::from_bytes(&blob(&row)?)?;
                after = bytes(record.key());
                if listed.len() < LISTED && today(&row)? == record.epochs {
                    listed.push(record);
                }
            }
            if read < LISTED {
                break;
            }
        }
        end(snapshot).await?;
        Ok(listed)
    }

    pub(super) async fn list_client_rows(
        self,
        after: Option<ClientId>,
    ) -> Result<Vec<ClientRecord>, StoreError> {
        let mut snapshot = self.snapshot().await?;
        let rows = query("SELECT record FROM clients WHERE client_id > $1 ORDER BY client_id LIMIT $2")
            .bind(after.as_ref().map_or("", ClientId::as_str).to_owned())
            .bind(i64::try_from(LISTED).unwrap_or(i64::MAX))
            .fetch_all(&mut snapshot.connection)
            .await?;
        end(snapshot).await?;
        rows.iter().map(|row| Ok(ClientRecord::from_bytes(&blob(row)?)?)).collect()
    }

    pub(super) async fn remove_client_row(self, client: ClientId) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::moving(1, "", client.as_str())).await?;
        let removed = query("DELETE FROM clients WHERE client_id = $1")
            .bind(client.as_str())
            .execute(&mut *transaction)
            .await?;
        move_epoch(&mut transaction, (1, "", client.as_str()), now).await?;
        transaction.commit().await?;
        Ok(removed.rows_affected() == 1)
    }

    pub(super) async fn key_rows(self, (): ()) -> Result<(Vec<KeyRow>, OffsetDateTime), StoreError> {
        let mut snapshot = self.snapshot().await?;
        let sql = concat!("SELECT ", columns!(), " FROM signing_keys ORDER BY since, kid");
        let rows = query(sql).fetch_all(&mut snapshot.connection).await?;
        end(snapshot).await?;
        let (_, now) = self.one(query(concat!("SELECT ", clock!()))).await?;
        Ok((rows.iter().map(key).collect::<Result<_, _>>()?, now))
    }

    pub(super) async fn publish_key_row(self, key: KeyRow) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::KEYS).await?;
        let sql = concat!(
            "INSERT INTO signing_keys (",
            columns!(),
            ") SELECT $1, $2, 'published', $3, $4, $5 WHERE NOT EXISTS \
             (SELECT 1 FROM signing_keys WHERE state = 'published' OR kid = $6)"
        );
        let inserted = query(sql)
            .bind(key.kid.clone())
            .bind(key.algorithm)
            .bind(micros(now))
            .bind(key.public_jwk)
            .bind(key.sealed)
            .bind(key.kid)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(inserted.rows_affected() == 1)
    }

    pub(super) async fn promote_key_row(self, kid: String) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::KEYS).await?;
        // D43: one compare-and-swap, whichever process is first.
        query(
            "UPDATE signing_keys SET state = 'retired', since = $1 WHERE state = 'signing' \
             AND EXISTS (SELECT 1 FROM signing_keys WHERE kid = $2 AND state = 'published')",
        )
        .bind(micros(now))
        .bind(kid.clone())
        .execute(&mut *transaction)
        .await?;
        let promoted = query(
            "UPDATE signing_keys SET state = 'signing', since = $1 WHERE kid = $2 AND state = 'published'",
        )
        .bind(micros(now))
        .bind(kid)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(promoted.rows_affected() == 1)
    }

    pub(super) async fn replace_keys_rows(self, kid: String) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::KEYS).await?;
        // D43: as a promotion, but that what signed is gone.
        query(
            "DELETE FROM signing_keys WHERE kid <> $1 \
             AND EXISTS (SELECT 1 FROM signing_keys WHERE kid = $1 AND state = 'published')",
        )
        .bind(kid.clone())
        .execute(&mut *transaction)
        .await?;
        let promoted = query(
            "UPDATE signing_keys SET state = 'signing', since = $1 WHERE kid = $2 AND state = 'published'",
        )
        .bind(micros(now))
        .bind(kid)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(promoted.rows_affected() == 1)
    }

    pub(super) async fn forget_key_row(self, kid: String) -> Result<bool, StoreError> {
        let (mut transaction, _) = self.write(Locks::KEYS).await?;
        let forgotten = query("DELETE FROM signing_keys WHERE kid = $1 AND state = 'retired'")
            .bind(kid)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(forgotten.rows_affected() == 1)
    }

    pub(super) async fn incarnation_row(self, (): ()) -> Result<u64, StoreError> {
        let sql = concat!("SELECT number, ", clock!(), " FROM incarnation");
        let (row, _) = self.one(query(sql)).await?;
        unsigned(row.ok_or(StoreError::Inconsistent)?.try_get("number")?)
    }

    pub(super) async fn advance_incarnation_row(self, (): ()) -> Result<u64, StoreError> {
        let (mut transaction, _) = self.write(Locks::KEYS).await?;
        let next = incarnation(&mut transaction).await?.checked_add(1).ok_or(StoreError::Inconsistent)?;
        set_incarnation(&mut transaction, next).await?;
        transaction.commit().await?;
        Ok(next)
    }

    /// One of [`RESTORED`]. No bounded batches: nothing else runs while a store is restored.
    pub(super) async fn delete_restored_rows(self, sql: &'static str) -> Result<(), StoreError> {
        let (mut transaction, _) = self.write(Locks::NONE).await?;
        query(sql).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Ends everybody's sessions, sets the incarnation to more than `seen`, and gives it.
    pub(super) async fn incarnation_after(self, seen: u64) -> Result<u64, StoreError> {
        let (mut transaction, now) = self.write(Locks::KEYS).await?;
        move_epoch(&mut transaction, (4, "", ""), now).await?;
        let next =
            incarnation(&mut transaction).await?.max(seen).checked_add(1).ok_or(StoreError::Inconsistent)?;
        set_incarnation(&mut transaction, next).await?;
        transaction.commit().await?;
        Ok(next)
    }
}

/// Ends a transaction that read, and gives its connection back.
async fn end(mut snapshot: Snapshot) -> Result<(), StoreError> {
    query("COMMIT").execute(&mut snapshot.connection).await?;
    snapshot.give_back();
    Ok(())
}

async fn incarnation(connection: &mut Connection) -> Result<u64, StoreError> {
    let row = query("SELECT number FROM incarnation").fetch_one(connection).await?;
    unsigned(row.try_get("number")?)
}

async fn set_incarnation(connection: &mut Connection, number: u64) -> Result<(), StoreError> {
    query("UPDATE incarnation SET number = $1").bind(signed(number)?).execute(connection).await?;
    Ok(())
}

fn key(row: &Row) -> Result<KeyRow, StoreError> {
    let state = match row.try_get::<String, _>("state")?.as_str() {
        "published" => KeyState::Published,
        "signing" => KeyState::Signing,
        "retired" => KeyState::Retired,
        _ => return Err(StoreError::Inconsistent),
    };
    Ok(KeyRow {
        kid: row.try_get("kid")?,
        algorithm: row.try_get("algorithm")?,
        state,
        public_jwk: row.try_get("public_jwk")?,
        sealed: row.try_get("sealed")?,
        since: instant(row.try_get("since")?)?,
    })
}
