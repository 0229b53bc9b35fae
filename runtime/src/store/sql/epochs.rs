// Epochs: the numbers that end everything granted under an older one. The same for every SQL database, like `rows.rs`.
//
// A number is the time at which it was written, so that none is ever used twice, even where its row was deleted between. A row
// of a client or a consent is written only where it ends something: not the grant of a stranger's choice, and not the client
// that comes and goes, makes the table grow. One of a person is always written, because it ends their sessions, which are in no
// table: only an operator ends everything of a person's. Each of these is deleted once nothing is left that it could end. That of
// everybody is one row, and stays.

use mcp_authz::time::OffsetDateTime;

use super::driver::query;
use super::rows::micros;
use super::{Connection, Locks, Turn};
use crate::store::{EPOCH_KEPT, StoreError};

/// How many rows are looked at in one transaction.
const BATCH: i64 = 256;

/// That something was granted, or may come to be: what a condition on the columns `client_id` and `subject` finds.
macro_rules! granted {
    ($condition:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM decisions WHERE ",
            $condition,
            ") OR EXISTS (SELECT 1 FROM codes WHERE NOT spent AND ",
            $condition,
            ") OR EXISTS (SELECT 1 FROM grants WHERE ",
            $condition,
            ") OR EXISTS (SELECT 1 FROM consents WHERE ",
            $condition,
            "))"
        )
    };
}

/// Declares the statement that writes an epoch where that condition on `$2`, the person, and `$3`, the client, holds.
macro_rules! moving {
    ($condition:expr) => {
        concat!(
            "INSERT INTO epochs (kind, subject, client_id, epoch, looked_at) SELECT $1, $2, $3, $4, $4 WHERE ",
            $condition,
            " ON CONFLICT (kind, subject, client_id) DO UPDATE SET looked_at = excluded.looked_at, \
             epoch = CASE WHEN excluded.epoch > epochs.epoch THEN excluded.epoch ELSE epochs.epoch + 1 END"
        )
    };
}

/// Declares the statement that deletes, of those looked at just now, what ends nothing.
macro_rules! sweeping {
    ($kind:literal, $condition:literal) => {
        concat!(
            "DELETE FROM epochs WHERE looked_at = $1 AND epoch <= $2 AND kind = ",
            $kind,
            " AND NOT ",
            granted!($condition)
        )
    };
}

const SWEEPS: [&str; 3] = [
    sweeping!("1", "client_id = epochs.client_id"),
    sweeping!("2", "subject = epochs.subject"),
    sweeping!("3", "subject = epochs.subject AND client_id = epochs.client_id"),
];

/// Ends everything that was granted for that kind of key, of those that `schema.sql` names.
pub(super) async fn move_epoch(
    connection: &mut Connection,
    (kind, subject, client): (u8, &str, &str),
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let sql = match kind {
        1 => moving!(granted!("client_id = $3")),
        // Sessions are in no table: a person's, and everybody's.
        2 | 4 => moving!("TRUE"),
        3 => moving!(granted!("subject = $2 AND client_id = $3")),
        // A target this store does not know must not count as revoked.
        _ => return Err(StoreError::Inconsistent),
    };
    query(sql).bind(i64::from(kind)).bind(subject).bind(client).bind(micros(now)).execute(connection).await?;
    Ok(())
}

impl Turn {
    /// Deletes epochs that end nothing any more, of so many; says whether there may be more. A row is kept so long before it is
    /// looked at, and again: no session that began before it lasts that long, and no request that read what was before.
    pub(super) async fn sweep_epochs(self, (): ()) -> Result<bool, StoreError> {
        let (mut transaction, now) = self.write(Locks::NONE).await?;
        let before = micros(now.saturating_sub(EPOCH_KEPT));
        let looked_at = query(
            "UPDATE epochs SET looked_at = $1 WHERE looked_at <= $2 AND (kind, subject, client_id) IN \
             (SELECT kind, subject, client_id FROM epochs WHERE looked_at <= $2 ORDER BY looked_at LIMIT $3)",
        )
        .bind(micros(now))
        .bind(before)
        .bind(BATCH)
        .execute(&mut *transaction)
        .await?;
        for sql in SWEEPS {
            query(sql).bind(micros(now)).bind(before).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(i64::try_from(looked_at.rows_affected()).is_ok_and(|rows| rows >= BATCH))
    }
}
